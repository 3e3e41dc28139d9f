"""References in sessions and clients: putting objects, reading many at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from flamezmq.client.future import FAILED, Future
from flamezmq.client.waiting import FIRST_EXCEPTION, wait
from flamezmq.serialize.values import dump_object
from flamezmq.store.access import About
from flamezmq.store.keeping import Hold, Kept
from flamezmq.store.kinds import kind_of
from flamezmq.store.messages import PINNED
from flamezmq.store.names import ids
from flamezmq.store.refs import ObjectRef, values_of
from flamezmq.wire.handles import Handle, pack

if TYPE_CHECKING:
    from flamezmq.client.objects import SessionKeeper
    from flamezmq.client.session import Session


class References:
    """The part of `Session` that is about objects."""

    _keeper: SessionKeeper

    def put(self, obj: Any, /, *, name: str = "", pin: bool = False) -> ObjectRef:
        """Keep a copy of `obj` where every task can read it; returns a reference to it, at once.

        What is changed in `obj` afterwards does not reach the copy.  Anything that can be pickled; arrays
        and other large buffers are copied once, and are read as views of shared memory, without a copy.

        Args:
            name: what people see of it, in `repr` and in error messages.
            pin: keep it until it is freed, or its node's worker ends, though no reference is left and the
                session is closed.

        The object goes when its last reference is gone, in any process, in a result, or inside another
        object; and with the session.  What is pickled where nobody counts, in the closure of a function or
        by `pickle` itself, keeps it until the session ends.

        Raises:
            Unpicklable: names what can't travel.
            StoreFull: the node's store has no room for it, neither in memory nor on disk, and nobody has made
                any in the time that its settings give (`store_wait_seconds`, 10); says what holds it.
            TypeError: `name` is no string.
            ClientClosed, RouterLost: the session is closed, or nobody is there.

        The pickle, one memory copy, and some tens of microseconds.  What this session has put before, and
        still has a reference to, is compared instead, and stored once (from 64 KiB on).  On a machine
        without a worker of the cluster it goes through the store of some node; where there is none, the
        value stays in the reference, and travels with each call that it is given to.
        """
        if not isinstance(name, str):
            raise TypeError(f"name is {name!r}; it must be a string")
        self._check_usable()
        putting = Putting(self._keeper, name, PINNED if pin else 0)
        pieces = dump_object(obj, putting)
        where = pieces if putting.handle is None else putting.handle
        return ObjectRef(putting.id, where, self._keeper.session, name, kind_of(obj), putting.hold)

    def get(self, refs: ObjectRef | Iterable[ObjectRef], /, *, copy: bool = False) -> Any:
        """The values of these references, in their order; of a single one, its value.

        Args:
            copy: in memory of their own, which may be written to, as in `ObjectRef.get`.

        Raises:
            TypeError: something else is among them; `gather` takes futures.
            ObjectLost: one of them was freed, or its session was closed.
            StoreLost: the node's store has ended.

        One question to the store for up to 200 of them.
        """
        if isinstance(refs, ObjectRef):
            return refs.get(copy)
        wanted = list(refs)
        for ref in wanted:
            if not isinstance(ref, ObjectRef):
                raise TypeError(f"{ref!r} is no ObjectRef; for futures there is gather()")
        return values_of(wanted, copy)

    def gather(self, futures: Iterable[Future | ObjectRef], /, timeout: float | None = None) -> list[Any]:
        """The results of these futures, in their order, when all are there; of references, their values.

        Args:
            timeout: seconds; None waits as long as it takes.

        Raises:
            TimeoutError: not done in time; the tasks go on.
            TypeError: something else is among them.
            Exception: the error of a task, as soon as the first has failed; the others go on.
        """
        wanted = list(futures)
        for one in wanted:
            if not isinstance(one, Future | ObjectRef):
                raise TypeError(f"{one!r} is neither a Future nor an ObjectRef")
        waited = [one for one in wanted if isinstance(one, Future)]
        done, left = wait(waited, timeout, FIRST_EXCEPTION)
        for future in waited:
            if future in done and (future.cancelled() or future._form in FAILED):
                future.result()
        if left:
            raise TimeoutError(f"{len(left)} of {len(waited)} tasks were not done in time")
        return [one.result() if isinstance(one, Future) else one.get() for one in wanted]

    def free(self, refs: ObjectRef | Iterable[ObjectRef], /) -> None:
        """Have these objects go now, whoever has a reference to them.

        Reading one raises ObjectLost from then on; views of it that somebody has stay as they are, and
        its memory is used again when the last of them is gone.  Freeing one twice does nothing.

        Raises:
            TypeError: something else is among them.
        """
        for ref in [refs] if isinstance(refs, ObjectRef) else list(refs):
            if not isinstance(ref, ObjectRef):
                raise TypeError(f"{ref!r} is no ObjectRef")
            ref._free()

    def _check_usable(self) -> None:
        raise NotImplementedError


class ReferencesOfClient:
    """The part of `Client` that is about objects: as in its own session."""

    def _own(self) -> Session:
        raise NotImplementedError

    def put(self, obj: Any, /, *, name: str = "", pin: bool = False) -> ObjectRef:
        """Keep a copy of `obj` where every task can read it; returns a reference to it, at once.

        As `Session.put`, which explains `name` and `pin`, in the client's own session.
        """
        return self._own().put(obj, name=name, pin=pin)

    def get(self, refs: ObjectRef | Iterable[ObjectRef], /, *, copy: bool = False) -> Any:
        """The values of these references, in their order; of a single one, its value.

        As `Session.get`, which explains `copy`.
        """
        return self._own().get(refs, copy=copy)

    def gather(self, futures: Iterable[Future | ObjectRef], /, timeout: float | None = None) -> list[Any]:
        """The results of these futures, in their order, when all are there; of references, their values.

        As `Session.gather`, which explains `timeout`.
        """
        return self._own().gather(futures, timeout)

    def free(self, refs: ObjectRef | Iterable[ObjectRef], /) -> None:
        """Have these objects go now, whoever has a reference to them; as `Session.free`."""
        self._own().free(refs)


class Putting:
    """A keeper for one `put`: takes whatever its size, and remembers where it went.

    handle  of the object; None: there is no store in reach
    """

    least = 0

    def __init__(self, keeper: SessionKeeper, name: str, terms: int) -> None:
        self._keeper, self._name, self._terms = keeper, name, terms
        self.id = ids.next()
        self.handle: Handle | None = None
        self.hold: Hold | None = None

    def keep(self, pieces: Sequence[Any], size: int, contains: Sequence[bytes] = ()) -> Kept | None:
        """As of `Keeper`; raises StoreFull, for nobody has asked for a copy that travels."""
        keeper, about = self._keeper, About(self._terms, contains, self._name)
        store = keeper.find()
        samples, like = keeper.contents.find(store, pieces) if store else (b"", None)
        if like is not None:
            self.handle = keeper.share(self.id, like, about)
        if self.handle is None:
            self.handle = keeper.put(self.id, pieces, store, about, wait=True)
        if self.handle is None:
            return None
        self.hold = keeper.hold(self.handle)
        keeper.contents.note(samples, self.hold)
        return Kept(pack(self.handle))
