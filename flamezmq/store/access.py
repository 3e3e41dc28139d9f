"""A process's access to the store of its node: putting and opening objects.

Used by clients and executors alike, from any thread: a thread that asks has a
connection for itself, and idle ones are kept for the next.  A question waits for
its answer for as long as the store lives; one that is interrupted takes its
connection with it, and the store takes back what that had leased.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from flamezmq.errors import ObjectLost, StoreFull, StoreLost
from flamezmq.store import checked, mapping
from flamezmq.store import messages as s
from flamezmq.store.checked import Damaged
from flamezmq.store.filling import NO_FILES, Filling, Unpassed
from flamezmq.store.layout import cut, cut_packed, extent
from flamezmq.store.names import address
from flamezmq.wire import amendments as a
from flamezmq.wire.handles import Handle

#: Small objects are put without a question; only for so many bytes of them room is asked for, at once.
SMALL_BYTES = 1 << 20


class About(NamedTuple):
    """What is said of an object when it is put; the fields are those of `messages.Put`."""

    terms: int = 0
    contains: Sequence[bytes] = ()
    name: str = ""


NOTHING = About()


class Connection:
    """One socket to the store.

    filling  the segments that it may fill
    at       the ZeroMQ address of the store, or ""
    node     the name of its node
    """

    def __init__(self, name: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self.socket.connect(address(name))
            hello = s.decode_answer(self.socket.recv(s.PACKET_BYTES))
            self.at, self.node = hello.at, hello.node
        except BaseException:
            self.socket.close()
            raise
        self.filling = Filling(self.ask, self.tell)
        self._small_left = 0

    def tell(self, message: s.Question) -> None:
        """Say what has no answer."""
        self.socket.send(s.encode(message))

    def ask(self, question: s.Question) -> tuple[Any, list[int]]:
        """The answer, and the descriptors that came with it; they are the caller's to close.

        Raises:
            Unpassed: not all could be taken in.
        """
        self.socket.send(s.encode(question))
        packet, fds, flags, _ = socket.recv_fds(self.socket, s.PACKET_BYTES, s.MOST_FDS)
        if not packet:
            raise ConnectionResetError
        answer = s.decode_answer(packet)
        if flags & socket.MSG_CTRUNC:
            for fd in fds:
                os.close(fd)
            raise Unpassed(answer)
        return answer, fds

    def count_small(self, size: int, patient: bool = False) -> None:
        """A small object of so many bytes will be put.

        Raises:
            StoreFull: there is no room for it.
        """
        if size > self._small_left:
            answer, _ = self.ask(s.Small(SMALL_BYTES, patient))
            if isinstance(answer, s.Full):
                raise StoreFull(size, answer.limit, answer.holders)
            self._small_left += SMALL_BYTES
        self._small_left -= size

    def close(self) -> None:
        self.socket.close()


class Access:
    """What a process does with the store of this name.

    Every method raises StoreLost when the store, or its worker, has ended.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._idle: list[Connection] = []
        self._pid = os.getpid()

    def put(
        self,
        name: bytes,
        session: str,
        pieces: Sequence[Any],
        about: About = NOTHING,
        patient: bool = False,
    ) -> Handle:
        """Keep a copy of the pieces as object `name`; returns its handle.

        patient: where memory and disk are full, wait as long as the store's settings say

        Raises:
            StoreFull: there is no room, and none can be made.
        """
        sizes = tuple(memoryview(piece).nbytes for piece in pieces)
        said = about.terms, list(about.contains), about.name
        with self._connection() as connection:
            if sum(sizes) < s.INLINE_BYTES:
                connection.count_small(sum(sizes), patient)
                connection.tell(s.PutSmall(name, session, list(sizes), b"".join(pieces), *said))
            else:
                segment = connection.filling.fill(pieces, extent(sizes), patient)
                connection.tell(s.Put(name, session, segment, list(sizes), *said))
            return Handle(name, self.name, sizes, connection.at, connection.node)

    def share(self, name: bytes, session: str, like: Handle, about: About = NOTHING) -> Handle | None:
        """Make an object `name` with the bytes of another one; None: that has no segment any more."""
        said = about.terms, list(about.contains), about.name
        with self._connection() as connection:
            answer, _ = connection.ask(s.Share(name, session, like.id, *said))
        return like._replace(id=name) if answer.done else None

    def open(
        self,
        handles: Sequence[Handle],
        private: bool = False,
        whys: dict[bytes, s.Found] | None = None,
        modest: bool = False,
    ) -> list[list[memoryview] | None]:
        """The pieces of these objects, as views without a copy; None for one that can't be had.

        What is on another node is fetched.

        private: they are writable, for this process alone; a page is copied when it is first written to
        whys: gets, by the id of what can't be had, what the store says of it
        modest: what is on the disk is not wanted, unless there is room for it that nobody else has to leave
        """
        opened: list[list[memoryview] | None] = []
        at_once = s.MOST_FDS
        with self._connection() as connection:
            while len(opened) < len(handles):
                some = handles[len(opened) : len(opened) + at_once]
                at = ["" if one.home == self.name else one.at for one in some]
                question = s.Open([one.id for one in some], at, [one.sizes for one in some], modest)
                try:
                    answer, fds = connection.ask(question)
                except Unpassed:
                    if len(some) == 1:
                        raise
                    at_once = len(some) // 2
                    continue
                opened += _views(answer.found, fds, private)
                if whys is not None:
                    asked = zip(some, answer.found, strict=False)
                    whys.update((handle.id, found) for handle, found in asked if not found.sizes)
        return opened

    def free(self, names: Sequence[bytes]) -> None:
        """Have these objects go, whoever needs them; they are gone when this returns."""
        with self._connection() as connection:
            for start in range(0, len(names), s.MOST_IDS):
                connection.ask(s.Free(list(names[start : start + s.MOST_IDS])))

    def since(self, name: bytes, version: int) -> a.Parts:
        """What came after this version of an object whose home this store is: the first of it."""
        with self._connection() as connection:
            answer, _ = connection.ask(s.Ask(a.Since(name, version)))
        parts: a.Parts = answer
        return parts

    def amend(self, amend: a.Amend, pieces: Sequence[Any]) -> a.Amended:
        """Make a new version of such an object, of these pieces; waits for room as a patient `put` does.

        Raises:
            StoreFull: there is no room, and none can be made.
        """
        with self._connection() as connection:
            segment, size = 0, sum(amend.sizes)
            if size < s.INLINE_BYTES:
                connection.count_small(size, patient=True)
                amend.data = b"".join(pieces)
            else:
                segment = connection.filling.fill(pieces, extent(amend.sizes), patient=True)
            answer, _ = connection.ask(s.Ask(amend, segment))
        amended: a.Amended = answer
        return amended

    def tell(self, kind: type[s.Hold | s.Stay | s.Drop], names: Sequence[bytes]) -> None:
        """Say this of these objects."""
        with self._connection() as connection:
            for start in range(0, len(names), s.MOST_IDS):
                connection.tell(kind(list(names[start : start + s.MOST_IDS])))

    def drop(self, names: Iterable[bytes]) -> None:
        """This process needs these no more, as their owner, or as one who holds them."""
        self.tell(s.Drop, list(names))

    def close(self) -> None:
        """Hang up."""
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        """One that no other thread uses; what interrupts its use ends it, for an answer may be on its way."""
        if self._pid != os.getpid():  # those of the process that this was forked from are not ours
            self._pid, self._idle = os.getpid(), []
        try:
            connection = self._idle.pop() if self._idle else Connection(self.name)
        except OSError as error:
            raise StoreLost(self.name) from error
        try:
            yield connection
        except StoreFull:
            self._idle.append(connection)
            raise
        except Unpassed:
            self._idle.append(connection)
            raise OSError(errno.EMFILE, NO_FILES) from None
        except OSError as error:
            connection.close()
            raise StoreLost(self.name) from error
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)


#: Whether this process has been given views that nobody may write to.
has_lent = False
#: Why a node of this machine is lost.
WORKER_ENDED = "its worker has ended"
#: By the name of the store, of those that this process has reached.
_reached: dict[str, Access] = {}
#: The name of the store of this process's node, if it is an executor.
own = ""
#: Has opened what this process reads next, if it knows that: an executor does.
look_ahead: Callable[[Handle], list[memoryview] | None] | None = None


def of(name: str) -> Access:
    """This process's access to the store of this name, which must be on this node."""
    found = _reached.get(name)
    if found is None:
        found = _reached.setdefault(name, Access(name))
    return found


def is_here(name: str) -> bool:
    """Whether the store of this name is on this node: who can connect to it is."""
    try:
        with of(name)._connection():
            return True
    except StoreLost:
        return False


def _from_outside(handle: Handle) -> list[memoryview]:
    """Read as a process on no node does; its sockets are loaded where somebody needs them."""
    from flamezmq.store import outside

    return outside.fetch(handle)


def fetch(handle: Handle, private: bool = True) -> list[memoryview]:
    """The pieces of an object, mapped into this process.

    Raises:
        ObjectLost: it is not there any more, or its store has ended.
    """
    if private and look_ahead is not None and (opened := look_ahead(handle)) is not None:
        return opened
    whys: dict[bytes, s.Found] = {}
    try:
        pieces = of(handle.home).open([handle], private, whys)[0]
    except StoreLost as error:
        check_elsewhere(handle, error)
        if not own:
            return _from_outside(handle)
        pieces = _from_own(handle, private, whys)
    if pieces is None:
        said = whys.get(handle.id) or s.Found([])
        if said.why == s.NO_ROOM:
            return _from_outside(handle)
        raise ObjectLost(handle.id.hex(), handle.size, said.why, (handle.node or "?") if said.lost else "")
    return pieces


def check_elsewhere(handle: Handle, error: StoreLost) -> None:
    """The home of this object is not on this node.  Raises ObjectLost: it was, and has ended."""
    if not handle.at or own == handle.home:
        raise ObjectLost(handle.id.hex(), handle.size, WORKER_ENDED, handle.node or "?") from error


def fetch_all(handles: Sequence[Handle], private: bool = True) -> list[list[memoryview] | None]:
    """The pieces of objects that have one home; None for one that is not there any more."""
    if not handles:
        return []
    try:
        return of(handles[0].home).open(handles, private)
    except StoreLost as error:
        check_elsewhere(handles[0], error)
    if own:
        return of(own).open(handles, private)
    return [_from_afar(handle) for handle in handles]


def _from_afar(handle: Handle) -> list[memoryview] | None:
    try:
        return _from_outside(handle)
    except ObjectLost as error:
        if error.node:
            raise
        return None


def _from_own(handle: Handle, private: bool, whys: dict[bytes, s.Found]) -> list[memoryview] | None:
    """Have it brought by the store of this node."""
    try:
        return of(own).open([handle], private, whys)[0]
    except StoreLost as error:  # the one that is lost is ours
        raise ObjectLost(handle.id.hex(), handle.size, f"no way to it: {error}") from error


def _views(found: Iterable[s.Found], fds: list[int], private: bool) -> Iterator[list[memoryview] | None]:
    """Map what came; all descriptors are closed whatever happens."""
    view = mapping.private if private else mapping.shared
    left = iter(fds)
    try:
        for one in found:
            if not one.sizes:
                yield None
            elif one.checks:
                yield _from_disk(one, next(left))
            elif one.size:
                yield cut(_view_or_copy(view, next(left), one.size), one.sizes)
            else:
                pieces = cut_packed(one.data, one.sizes)
                yield [memoryview(bytearray(piece) if private else piece) for piece in pieces]
    finally:
        for fd in fds:
            os.close(fd)


def _view_or_copy(view: Callable[[int, int], memoryview], fd: int, size: int) -> memoryview:
    """A process may have no more mappings than the system allows (vm.max_map_count): then it gets a copy."""
    try:
        return view(fd, size)
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        return checked.copy_of(fd, size)


def _from_disk(one: s.Found, fd: int) -> list[memoryview] | None:
    """Read what the store has no room to bring back; None, and `why`, if it is damaged."""
    try:
        memory = checked.checked_copy(fd, one.offset, one.size, one.checks)
    except Damaged as error:
        one.sizes, one.why = [], f"it lay on the disk of its node, where {error}"
        return None
    return cut(memory, one.sizes)
