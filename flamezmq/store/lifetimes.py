"""When objects go: what peers say about who needs them, and the ends of processes.

Part of the store's thread.  Who lets go may do so long after somebody else has
said that he holds on, and be heard first, for they speak on different
connections.  So letting go waits until all has been read that was there to read:
a `Drop` never overtakes a `Hold`, nor the `Put` of its object.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from flamezmq.store import messages as s
from flamezmq.store.holders import Holders


class Lifetimes:
    """Of all objects of a store.

    drain    reads what peers have said by now
    drop     has objects go; `on_gone` is then called for each
    answer   tells a peer something, if it is still there
    changed  is told of objects that others hold than before
    """

    def __init__(
        self,
        drain: Callable[[], None],
        drop: Callable[[Iterable[bytes]], None],
        answer: Callable[[Any, s.Answer], None],
        changed: Callable[[Iterable[bytes]], None],
    ) -> None:
        self.holders = Holders()
        self._drain, self._drop, self._answer, self._changed = drain, drop, answer, changed
        self._late: list[Callable[[], Iterable[bytes]]] = []  # deeds that let go; they return what is free
        self._stays: list[list[bytes]] = []  # heard of, maybe sooner than of their objects
        self._makers: dict[bytes, int] = {}  # results of tasks -> pid of their executor
        self._poll: select.epoll | None = None
        self._ends: dict[int, int] = {}  # pidfd -> pid, of processes that hold something

    def deeds(self) -> dict[type, Callable[[Any, Any], None]]:
        """What is done with which message of a peer."""
        return {
            s.Hold: self._on_hold,
            s.Stay: lambda _, said: self._stays.append(said.ids),
            s.Drop: lambda peer, said: self._late.append(partial(self._let_go, peer.pid, said.ids)),
            s.Free: lambda peer, said: self._late.append(partial(self._free, peer, said.ids)),
        }

    def serve(self, poll: select.epoll) -> None:
        """Have the ends of processes told by `poll`."""
        self._poll = poll

    # --- what happens

    def on_put(self, pid: int, put: s.Put | s.PutSmall | s.Share) -> None:
        """An object is here."""
        by = pid if put.terms & s.OF_PROCESS else 0
        self.holders.put(put.id, put.contains, bool(put.terms & s.PINNED), by)
        if by:
            self._watch(pid)
        if put.terms & s.RESULT:
            self._makers[put.id] = pid

    def on_gone(self, name: bytes) -> list[bytes]:
        """An object has gone; those that nobody needs any more now."""
        self._makers.pop(name, None)
        return self.holders.gone(name)

    def on_end(self, fd: int) -> bool:
        """Whether this descriptor is that of a process, which has ended then."""
        pid = self._ends.pop(fd, None)
        if pid is None:
            return False
        os.close(fd)
        self._late.append(partial(self.holders.end, pid))
        return True

    def on_lost(self, pid: int, last: bytes) -> None:
        """This executor has ended; of its results those after `last` have reached nobody.

        last: empty: none has
        """
        lost = [name for name, maker in self._makers.items() if maker == pid and not name <= last]
        self._late.append(lambda: lost)

    def on_brought(self, name: bytes, terms: int) -> None:
        """An object has come from another machine."""
        self.holders.put(name, (), bool(terms & s.PINNED))

    def disown(self, names: Iterable[bytes]) -> None:
        """Their owner needs these no more, or nobody has ever heard of them."""
        self._late.append(partial(self.holders.let_go, 0, names))

    def stay(self, names: list[bytes]) -> None:
        """Somebody of whom nothing is known has references to these."""
        self._stays.append(names)

    def free(self, names: Iterable[bytes]) -> None:
        """Have these go, whoever needs them."""
        self._late.append(lambda: names)

    @property
    def is_due(self) -> bool:
        """Whether `settle` has something to do."""
        return bool(self._late or self._stays)

    def settle(self) -> None:
        """Let go of what was to be let go of before this; what is heard of meanwhile has its own turn."""
        late, self._late = self._late, []
        stays, self._stays = self._stays, []
        self._drain()
        for names in (*stays, *self._stays):
            self.holders.stay(names)
        for deed in late:
            self._drop(deed())

    def close(self) -> None:
        """Watch no process any more."""
        for fd in self._ends:
            os.close(fd)
        self._ends.clear()

    # --- how

    def _on_hold(self, peer: Any, said: s.Hold) -> None:
        self.holders.hold(peer.pid, said.ids)
        self._changed(said.ids)
        self._watch(peer.pid)

    def _let_go(self, pid: int, names: list[bytes]) -> Iterable[bytes]:
        free = self.holders.let_go(pid, names)
        self._changed(names)
        return free

    def _free(self, peer: Any, names: list[bytes]) -> Iterable[bytes]:
        self._drop(names)
        self._answer(peer, s.Freed())
        return ()

    def _watch(self, pid: int) -> None:
        if pid in self._ends.values() or self._poll is None:
            return
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            self._late.append(partial(self.holders.end, pid))
        except OSError:
            return  # it is in no namespace of ours, or there are no descriptors: its session's end will do
        else:
            self._ends[fd] = pid
            self._poll.register(fd, select.EPOLLIN)
