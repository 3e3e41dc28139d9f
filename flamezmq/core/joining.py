"""Sessions with members: clients that submit to one session, at a time or one after the other.

All else of the broker sees an ordinary session, with one client: a `Client` that no peer is behind
(its number is negative).  What members say comes in here, and is passed on as that client's; what
goes to that client is given, when the turn ends, to the member whose task it is about, by the index:
member k's tasks begin at k times STRIDE.  So scheduler, credit, retries and deaths know nothing of
members, and sessions without any cost nothing.

Functions over the broker's state; same rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any
from zlib import crc32

from msgspec.structs import replace

from flamezmq.core import opening, quotas, returns, telling
from flamezmq.core.commons import Common, Fetcher, Member, Reader, look_whether_drained, weigh
from flamezmq.core.keeping import Shelf
from flamezmq.core.members import NAME_CHARACTERS, Client, Effects, Session
from flamezmq.core.meter import Leeway
from flamezmq.errors import ProtocolError
from flamezmq.wire import joining as j
from flamezmq.wire import messages as m
from flamezmq.wire.joining import STRIDE

if TYPE_CHECKING:
    from flamezmq.core.broker import Broker

#: Fields of a spec in which those who open the same session may differ.
_THEIR_OWN = frozenset(("environment", "forward_output", "within", "outer"))
#: Fields whose 0 says that nothing was asked for.
_NONE_AT_ZERO = frozenset(("max_executors", "max_tasks_per_child", "preempt_after"))
#: Of a value that is quoted.
MOST_CHARACTERS = 200

Frames = list[Any]


# --- joining


def on_open(broker: Broker, peer: int, message: m.Open, frames: Frames, now: float, out: Effects) -> None:
    """Open the session, or join the one that has this id, if it is for several."""
    if not message.who:
        opening.on_open(broker, peer, message, frames, now, out)
        return
    if _is_known(broker, peer, message.session):
        return  # said twice
    found = broker.records.find(message.id)
    if found is not None:
        out.append((peer, _join(broker, peer, message, found, now, out, message.spec), []))
        return
    application, spec, why_not = opening.checked(broker, message.spec, inner=False)
    if message.spec.within or message.spec.restarts >= 0:
        why_not = "tasks and actors have sessions of their own, which nobody joins"
    if not message.id or len(message.id) > NAME_CHARACTERS:
        why_not = f"an id has 1 to {NAME_CHARACTERS} characters"
    if why_not:
        out.append((peer, j.Joined(message.session, j.REFUSED, text=why_not), []))
        return
    session = opening.open_session(broker, None, message, spec, application, now)
    shelf = Shelf(broker.limits.max_kept_bytes) if spec.detached else None
    common = Common(session, session.client, message.spec, shelf)
    broker.commons[session.client.peer] = common
    quotas.enlist(broker, session)
    out.append((peer, _admit(broker, common, peer, message, out), []))


def on_join(broker: Broker, peer: int, message: j.Join, _frames: list[Any], now: float, out: Effects) -> None:
    """Join a session, whatever its spec is."""
    if _is_known(broker, peer, message.session):
        return
    found = broker.records.find(message.id)
    if found is None:
        text = f"there is no session {message.id[:NAME_CHARACTERS]!r}"
        out.append((peer, j.Joined(message.session, j.UNKNOWN, text=text), []))
    else:
        out.append((peer, _join(broker, peer, message, found, now, out, None), []))


def _is_known(broker: Broker, peer: int, alias: int) -> bool:
    client = broker.client(peer)
    if alias in client.sessions:
        raise ProtocolError(f"session {alias} is open already")
    return alias in client.joined


def _join(
    broker: Broker,
    peer: int,
    message: m.Open | j.Join,
    session: Session,
    now: float,
    out: Effects,
    asked: m.SessionSpec | None,
) -> j.Joined:
    common = broker.commons.get(session.client.peer)
    refused = j.Joined(message.session, j.REFUSED)
    if session.closed:
        ago = now - session.closed_at
        return j.Joined(message.session, j.CLOSED, text=session.ending, ago=ago)
    if common is None:
        refused.text = f"session {session.id} is one client's alone: it was opened without an id"
    elif broker.draining:
        refused.text = "this router is stopping; try again later"
    elif session.draining:
        refused.text = f"session {session.id} is being closed by {session.draining}: it takes nothing more"
    elif common.last + 1 >= j.MOST_MEMBERS:
        refused.text = f"session {session.id} has had {j.MOST_MEMBERS:,} members; close it, or use another id"
    else:
        differs = _differences(asked, common.asked) if asked is not None else []
        if differs:
            return j.Joined(message.session, j.DIFFERS, differs=differs)
        return _admit(broker, common, peer, message, out)
    return refused


def _differences(asked: m.SessionSpec, has: m.SessionSpec) -> list[str]:
    """Flat triples: field, what is asked for, what the session has."""
    said: list[str] = []
    for name in m.SessionSpec.__struct_fields__:
        ours, theirs = getattr(asked, name), getattr(has, name)
        if name not in _THEIR_OWN and ours != theirs:
            said += (name, _in_words(name, ours), _in_words(name, theirs))
    return said


def _in_words(name: str, value: Any) -> str:
    if not value and (isinstance(value, bytes | str | tuple) or name in _NONE_AT_ZERO):
        return "none"
    if isinstance(value, bytes):  # two of the same length must not look the same
        return f"a pickle of {len(value):,} bytes (CRC-32 {crc32(value):08x})"
    if isinstance(value, tuple):
        return ",".join(f"{one.name}={one.amount:g}" for one in value)
    return repr(value)[:MOST_CHARACTERS]


def _admit(broker: Broker, common: Common, peer: int, message: m.Open | j.Join, out: Effects) -> j.Joined:
    common.last += 1
    number = common.last
    who = message.who[:NAME_CHARACTERS]
    common.members[number] = Member(peer, message.session, number=number, who=who, next_index=number * STRIDE)
    broker.client(peer).joined[message.session] = common.client.peer
    weigh(broker, common)
    session = common.session
    session.members = number + 1
    quotas.admit(session, number, Leeway(peer, message.session, number * STRIDE), out)
    return j.Joined(
        message.session,
        j.JOINED,
        number,
        application=session.spec.application,
        detached=common.shelf is not None,
        confirm=0 if common.shelf is None else common.shelf.room // 8,
    )


# --- what members say


def on_message(broker: Broker, peer: int, message: Any, frames: list[Any], now: float, out: Effects) -> bool:
    """Whether it was of a member, about a session with members, and is done with."""
    client = broker.clients.get(peer)
    if client is None or not client.joined:
        return False
    common = broker.commons.get(client.joined.get(getattr(message, "session", -1), 0))
    if common is None:
        return False
    act = _acts.get(type(message))
    if act is None:
        return False
    reader = next(one for one in common.readers() if one.peer == peer and one.alias == message.session)
    act(broker, common, reader, message, frames, now, out)
    return True


def _on_submit(
    broker: Broker,
    common: Common,
    reader: Reader,
    message: m.Submit,
    frames: list[Any],
    now: float,
    out: Effects,
) -> None:
    """Its functions get numbers that no other member's have, and its tasks follow its own."""
    if not isinstance(reader, Member):
        raise ProtocolError("nothing is submitted where results are fetched")
    session, base = common.session, reader.number * STRIDE
    numbers = [*(new.number for new in message.functions), *(part.function for part in message.slices)]
    if not all(0 <= number < STRIDE for number in (*numbers, *message.forget)):
        raise ProtocolError("numbers of functions begin with 0")
    if any(alias != reader.alias for alias in message.needs[1::3]):
        raise ProtocolError("a task of a session with members needs tasks of the same member only")
    if any(index // STRIDE != reader.number for index in message.needs[2::3]):
        raise ProtocolError("it needs a task of another member")
    for new in message.functions:
        new.number += base
    for part in message.slices:
        part.function += base
    message.forget = [number + base for number in message.forget]
    message.needs[1::3] = [session.alias] * (len(message.needs) // 3)
    latest, first = session.next_index, reader.next_index
    session.next_index = first
    try:
        _pass_on(broker, common, message, frames, now, out)
    finally:
        reader.next_index = session.next_index
        session.next_index = max(latest, session.next_index)
    if common.shelf is not None and reader.next_index > first:
        common.shelf.note_submitted(first, reader.next_index)


def _pass_on(broker: Broker, common: Common, message: Any, frames: Frames, now: float, out: Effects) -> None:
    message.session = common.session.alias
    broker.handle(common.client.peer, message, frames, now, out)


def _on_any(
    broker: Broker, common: Common, _reader: Reader, message: Any, frames: Frames, now: float, out: Effects
) -> None:
    _pass_on(broker, common, message, frames, now, out)


def _on_query(
    broker: Broker,
    common: Common,
    reader: Reader,
    message: m.Query,
    frames: list[Any],
    now: float,
    out: Effects,
) -> None:
    """The answer is for the one that asks."""
    answers: Effects = []
    _pass_on(broker, common, message, frames, now, answers)
    out += [(reader.peer, replace(answer, session=reader.alias), []) for _, answer, _ in answers]


def _on_want(
    broker: Broker,
    common: Common,
    reader: Reader,
    message: m.WantRoom,
    _frames: list[Any],
    now: float,
    _out: Effects,
) -> None:
    if not isinstance(reader, Member):
        raise ProtocolError("nothing is submitted where results are fetched")
    quotas.want(broker, common.session, reader.number, message, now)


def _on_close(
    broker: Broker,
    common: Common,
    reader: Reader,
    message: m.Close,
    frames: list[Any],
    now: float,
    out: Effects,
) -> None:
    """A member closes the session for all, or has submitted all that it will."""
    if not isinstance(reader, Member):
        raise ProtocolError("a session is not closed where its results are fetched")
    session = common.session
    if message.drained and session.draining:
        reader.drained = True
        look_whether_drained(broker, common)
        return
    reader.leaves = True
    out.append((common.client.peer, m.ClosedBy(session.alias, reader.who), []))
    broker.close_session(session, f"closed by {reader.who}", now, out)


def _on_fetch(
    broker: Broker,
    common: Common,
    reader: Reader,
    message: j.Fetch,
    _frames: list[Any],
    _now: float,
    out: Effects,
) -> None:
    """Send what is kept of others, and from now on what becomes of the rest."""
    shelf, client = common.shelf, broker.client(reader.peer)
    if shelf is None or not isinstance(reader, Member):
        raise ProtocolError("only a member of a detached session can fetch")
    if message.under in client.sessions or message.under in client.joined:
        raise ProtocolError(f"session {message.under} is open already")
    others = shelf.of_others(reader.number)
    fetcher = Fetcher(reader.peer, message.under)
    for _, end in others:
        number = (end - 1) // STRIDE
        fetcher.ends[number] = max(fetcher.ends.get(number, 0), end)
    common.fetchers.append(fetcher)
    client.joined[message.under] = common.client.peer
    tasks = [number for first, end in others for number in (first, end - first)]
    out.append((reader.peer, j.Past(message.under, tasks), []))
    for end_ in shelf.ends:
        if end_.member != reader.number:
            telling.send(fetcher, end_, end_.message, out)


def _on_fetched(
    broker: Broker,
    common: Common,
    reader: Reader,
    message: j.Fetched,
    _frames: list[Any],
    _now: float,
    _out: Effects,
) -> None:
    if common.shelf is None:
        raise ProtocolError("nothing is kept of a session that is not detached")
    for _ in range(min(message.messages, len(reader.unconfirmed))):
        common.shelf.confirm(reader.unconfirmed.popleft())
    common.shelf.make_room()
    weigh(broker, common)


def _on_leave(
    broker: Broker,
    common: Common,
    reader: Reader,
    message: j.LeaveSession,
    _frames: list[Any],
    now: float,
    out: Effects,
) -> None:
    if isinstance(reader, Fetcher) or common.shelf is not None or len(common.members) > 1:
        out.append((reader.peer, m.Closed(message.session), []))
        broker.client(reader.peer).joined.pop(message.session, None)
        _lose(broker, common, reader, "left", now, out)
    else:  # it hears `Closed` when all is here that its tasks have printed
        broker.close_session(common.session, f"closed when its last member left: {_who(reader)}", now, out)


def handlers(broker: Broker) -> dict[type, Callable[..., None]]:
    """What is said by those who are members of no session, or of none that is still open."""

    def gone(peer: int, message: Any, _frames: list[Any], _now: float, out: Effects) -> None:
        broker.client(peer)
        if type(message) is not j.Fetched:
            alias = message.under if type(message) is j.Fetch else message.session
            out.append((peer, m.Closed(alias), []))

    return {
        m.Open: lambda *said: on_open(broker, *said),
        j.Join: lambda *said: on_join(broker, *said),
        j.Fetch: gone,
        j.Fetched: gone,
        j.LeaveSession: gone,
    }


_acts: dict[type, Callable[..., None]] = {
    m.Submit: _on_submit,
    m.Cancel: _on_any,
    m.Pull: _on_any,
    m.Supply: _on_any,
    m.Query: _on_query,
    m.WantRoom: _on_want,
    m.Close: _on_close,
    j.Fetch: _on_fetch,
    j.Fetched: _on_fetched,
    j.LeaveSession: _on_leave,
}


# --- members that go


def _who(reader: Reader) -> str:
    return reader.who if isinstance(reader, Member) else ""


def on_client_lost(broker: Broker, client: Client, now: float, out: Effects) -> None:
    """The client is gone for good: out of all its sessions."""
    for peer in dict.fromkeys(client.joined.values()):
        common = broker.commons.get(peer)
        if common is not None:
            for reader in [one for one in common.readers() if one.peer == client.peer]:
                _lose(broker, common, reader, "was lost", now, out)
    client.joined.clear()


def _lose(broker: Broker, common: Common, reader: Reader, how: str, now: float, out: Effects) -> None:
    """What it has not confirmed is as if it had never been sent."""
    if isinstance(reader, Fetcher):
        common.fetchers.remove(reader)
        return
    assert isinstance(reader, Member)
    del common.members[reader.number]
    quotas.on_leave(broker, common.session, reader.number)
    session, base = common.session, reader.number * STRIDE
    session.functions = {n: f for n, f in session.functions.items() if not base <= n < base + STRIDE}
    if session.closed:
        return
    if common.shelf is None and not common.members:
        ending = f"its last member {how}: {reader.who}"
        broker.close_session(session, ending, now, out)
        return
    if common.shelf is None:
        theirs = set(_unended(session, reader.number))
        if theirs:
            returns.cancel(broker, session, theirs, now, out, running=True)
    weigh(broker, common)
    look_whether_drained(broker, common)


def _unended(session: Session, number: int) -> Iterator[int]:
    """The tasks of a member that have not ended."""
    runs = [*session.queue, *(run for _, _, run in session.delayed)]
    runs += [run for executor in session.executors.values() for run in executor.held]
    for run in runs:
        if run.start // STRIDE == number:
            yield from range(run.start, run.end)
    yield from (index for index in session.blocked if index // STRIDE == number)


def on_backlog(broker: Broker, client: Client) -> None:
    """A client takes its results too slowly, or again fast enough."""
    for peer in dict.fromkeys(client.joined.values()):
        if peer in broker.commons:
            weigh(broker, broker.commons[peer])


def busy_members(broker: Broker, busy: Iterable[int]) -> list[int]:
    """The clients behind those of `busy` that stand for members."""
    return [one.peer for peer in busy if peer in broker.commons for one in broker.commons[peer].readers()]
