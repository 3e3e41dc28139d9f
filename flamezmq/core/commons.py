"""What the broker knows of a session with members, beside the session; see `core/joining.py`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flamezmq.core.keeping import End, Shelf
from flamezmq.core.members import Client, Session
from flamezmq.wire import messages as m

if TYPE_CHECKING:
    from flamezmq.core.broker import Broker


@dataclass(slots=True, eq=False)
class Reader:
    """Who is sent how tasks end.

    alias        the client's number of the session
    unconfirmed  what it was sent, and has not said that it has
    """

    peer: int
    alias: int
    unconfirmed: deque[End] = field(default_factory=deque)


@dataclass(slots=True, eq=False)
class Member(Reader):
    """A client in a session; `who` it is, for people."""

    number: int = 0
    who: str = ""
    next_index: int = 0
    drained: bool = False  # it submits nothing more, for somebody closes the session
    leaves: bool = False  # and has closed it by that


@dataclass(slots=True, eq=False)
class Fetcher(Reader):
    """A member that has asked for what others have submitted, up to these indices, by member."""

    ends: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Common:
    """What belongs to a session with members, beside the session.

    client  stands for all of them
    asked   the spec as it was opened
    shelf   what it keeps, if it is detached
    """

    session: Session
    client: Client
    asked: m.SessionSpec
    shelf: Shelf | None
    members: dict[int, Member] = field(default_factory=dict)  # that are here
    fetchers: list[Fetcher] = field(default_factory=list)
    last: int = -1  # number of the member that came last

    def readers(self) -> Iterator[Reader]:
        yield from self.members.values()
        yield from self.fetchers


def weigh(broker: Broker, common: Common) -> None:
    """Hand out nothing more while a member does not take its results, or what is kept takes all room."""
    slow = any(broker.clients[one.peer].held_back for one in common.readers() if one.peer in broker.clients)
    full = common.shelf is not None and common.shelf.is_full(common.client.held_back)
    broker.hold(common.client, slow or full)


def look_whether_drained(broker: Broker, common: Common) -> None:
    """It is closed when nothing is left, as soon as no member submits any more."""
    if common.session.draining and all(member.drained for member in common.members.values()):
        broker.drained[common.session.number] = common.session


def kept_in_full(broker: Broker, session: Session) -> int:
    """So many kept results take all the room, of a session that is held back; 0: that is not the reason."""
    common = broker.commons.get(session.client.peer)
    shelf = common.shelf if common is not None else None
    return shelf.results if shelf is not None and shelf.is_full(was_full=True) else 0


def row(broker: Broker, session: Session) -> tuple[int, bool, int, int]:
    """As the last columns of `SessionRow`: (clients, detached, kept, kept bytes)."""
    common = broker.commons.get(session.client.peer)
    if common is None:
        return -1, session.spec.detached, 0, 0
    shelf = common.shelf
    kept = (shelf.results, shelf.size) if shelf is not None else (0, 0)
    return len(common.members), shelf is not None, *kept


def check(broker: Broker) -> None:
    """Compare every index with every other."""
    for peer, common in broker.commons.items():
        assert common.client.peer == peer == -common.session.number
        for reader in common.readers():
            assert broker.clients[reader.peer].joined[reader.alias] == peer, "a member that nobody knows"
        if common.shelf is not None:
            common.shelf.check()
    for client in broker.clients.values():
        for alias, peer in client.joined.items():
            readers = broker.commons[peer].readers()
            assert any(one.peer == client.peer and one.alias == alias for one in readers)
