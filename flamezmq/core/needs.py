"""Needs: tasks that take the values of others, kept aside until all of these are here.

A blocked task stands in `Session.blocked` and, under each value that it lacks,
in `Client.awaited`.  When the output of an awaited task passes through the
broker it is given to all that wait for it; a task that has all is queued, call
and values composed into one payload (`wire/composed.py`).  Nothing is unpickled.

Whether a needed task has ended already the broker does not know: it keeps no
list of what was.  Where it can't be sure it asks the client (`Wanted`), which
knows: what has ended when the question comes it supplies, and all else ends
after the question was asked, so it passes through here.

Values are kept only as far as `Limits.max_bytes` goes, per client.  What is
over it is let go, and had again from the client when its task has nothing else
to wait for, and there is room, or nothing that could make room.

Functions over the broker's state; same rules.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from flamezmq.core import dispatch, locality
from flamezmq.core.blocked import Blocked, Key, Value
from flamezmq.core.members import Client, Effects, Session
from flamezmq.core.tasks import Run, merge, rejoin
from flamezmq.errors import ProtocolError
from flamezmq.wire import messages as m
from flamezmq.wire.codec import split_payloads
from flamezmq.wire.composed import compose

if TYPE_CHECKING:
    from flamezmq.core.broker import Broker

_read_outputs = msgspec.msgpack.Decoder(list[bytes]).decode


# --- coming in


def read(session: Session, message: m.Submit) -> dict[int, list[Key]]:
    """What the tasks of a Submit need, by the index of the task.

    A task needs older ones only, so that no two can wait for each other.
    """
    flat = message.needs
    if len(flat) % 3:
        raise ProtocolError("`needs` are triples")
    wants: dict[int, list[Key]] = {}
    last = 0
    for position, alias, index in zip(flat[::3], flat[1::3], flat[2::3], strict=True):
        task = session.next_index + position
        other = session.client.sessions.get(alias)
        if not last <= position < len(message.inputs):
            raise ProtocolError("`needs` does not fit the message")
        if other is not None and index >= (task if other is session else other.next_index):
            raise ProtocolError(f"task {task} needs one that does not stand before it")
        wants.setdefault(task, []).append((alias, index))
        last = position
    for task, keys in wants.items():
        if len(set(keys)) != len(keys):
            raise ProtocolError(f"task {task} needs the same one twice")
    return wants


def keep_aside(session: Session, runs: list[Run], wants: dict[int, list[Key]], out: Effects) -> list[Run]:
    """Block those of the new tasks that need others; returns the runs that remain."""
    rest: list[Run] = []
    unsure: dict[int, list[int]] = {}
    for run in runs:
        here = [index for index in range(run.start, run.end) if index in wants]
        if here:
            rest.extend(run.without(set(here)))
        else:
            rest.append(run)
        for index in here:
            payload = run.inputs[index - run.first]
            blocked = Blocked(session, run.function, index, payload, wants[index], run.came)
            session.blocked[index] = blocked
            for key in blocked.needs:
                if _await(session.client, key, blocked) and not _is_to_come(session, key):
                    unsure.setdefault(key[0], []).append(key[1])
    _ask(session.client, unsure, out)
    return rest


def _await(client: Client, key: Key, blocked: Blocked) -> bool:
    """Whether it is the first that waits for this one."""
    waiting = client.awaited.setdefault(key[0], {}).setdefault(key[1], {})
    waiting[blocked] = None
    return len(waiting) == 1


def _is_to_come(session: Session, key: Key) -> bool:
    """Whether this task, needed by one that has just come in, has certainly not ended."""
    other = session.client.sessions.get(key[0])
    return other is not None and (
        key[1] in other.blocked or (other is session and key[1] >= session.next_index)
    )


def _ask(client: Client, unsure: dict[int, list[int]], out: Effects) -> None:
    out += [(client.peer, m.Wanted(alias, indices), []) for alias, indices in unsure.items()]


# --- values


def outputs_of(session: Session, message: m.RoutedResults, frames: list[Any]) -> list[Any] | None:
    """The payloads of these results if some task waits for one of them."""
    waiting = session.client.awaited.get(session.alias)
    if not waiting or session.closed:
        return None
    if not any(i in waiting for part in message.slices for i in range(part.first, part.first + part.count)):
        return None
    try:
        column = _read_outputs(message.outputs)
    except (msgspec.DecodeError, ValueError) as error:
        raise ProtocolError(f"unreadable outputs: {error}") from None
    outputs = split_payloads(column, message.parts, frames)
    if len(outputs) != sum(part.count for part in message.slices):
        raise ProtocolError("results without outputs")
    return outputs


def on_outputs(
    broker: Broker, session: Session, message: m.RoutedResults, outputs: list[Any], out: Effects
) -> None:
    """Give values to those that wait for them; fail those that wait for what has failed."""
    waiting = session.client.awaited[session.alias]
    errors = set(message.failed)
    failed: list[int] = []
    ready: list[Blocked] = []
    position = 0
    for part in message.slices:
        for index in range(part.first, part.first + part.count) if part.attempt else ():
            if index in waiting:
                offset = position + index - part.first
                if offset in errors:
                    failed.append(index)
                else:
                    ready += _deliver(broker, session.client, (session.alias, index), outputs[offset])
        position += part.count
    _queue(broker, ready)
    ended_badly(session, failed, out)


def on_supply(
    broker: Broker, peer: int, message: m.Supply, frames: list[Any], _now: float, out: Effects
) -> None:
    """The client has sent what had passed before; it may be that nobody waits for it any more."""
    client = broker.client(peer)
    values = split_payloads(message.value, message.parts, frames)
    if len(values) != (0 if message.failed else 1):
        raise ProtocolError("one value is due where a task has not failed")
    key = (message.session, message.index)
    if values:
        _queue(broker, _deliver(broker, client, key, values[0]))
    else:
        _fail(client, [key], out)


def _deliver(broker: Broker, client: Client, key: Key, payload: Any) -> list[Blocked]:
    """Returns those that lack nothing more."""
    size = sum(map(len, payload)) if type(payload) is list else len(payload)
    value = Value(payload, size)
    ready: list[Blocked] = []
    for blocked in _take(client, key):
        asked_for = blocked.fetching
        if asked_for:
            client.kept_bytes -= blocked.later.pop(key)  # it was counted when it was asked for
        if asked_for or value.users or _has_room(broker, client, blocked, size):
            client.kept_bytes += 0 if value.users else size
            value.users += 1
            blocked.values[key] = value
        else:
            blocked.later[key] = size
        if blocked.lacks:
            continue
        if blocked.later and not asked_for:
            client.later.append(blocked)
            broker.owing[client.peer] = client
        elif not blocked.later:
            ready.append(blocked)
    return ready


def _has_room(broker: Broker, client: Client, blocked: Blocked, size: int) -> bool:
    """Always for one: else nothing would ever make room."""
    last = blocked.lacks == 1 and not blocked.later and not client.composed
    return last or client.kept_bytes + size <= broker.limits.max_bytes


def fetch(broker: Broker, out: Effects) -> None:
    """Have values that were let go sent again, for tasks that wait for nothing else."""
    for client in list(broker.owing.values()):
        if broker.gated:
            _fetch_gates(client, out)
        while client.later and (
            client.kept_bytes < broker.limits.max_bytes or _nothing_moves(broker, client)
        ):
            blocked = client.later.popleft()
            _fetch(client, blocked, out)
        if not client.later:
            del broker.owing[client.peer]


def _nothing_moves(broker: Broker, client: Client) -> bool:
    """Whether none that has its values can run: all may stand behind actors' calls that lack theirs."""
    held_back = 0
    for number, gate in broker.gated.items():
        session = broker.sessions.get(number)
        if session is not None and session.client is client:
            held_back += sum(index > gate for index in session.composed)
    return client.composed <= held_back


def _fetch(client: Client, blocked: Blocked, out: Effects) -> None:
    if blocked.session.blocked.get(blocked.index) is not blocked:
        return  # cancelled meanwhile
    blocked.fetching = True
    client.composed += 1
    client.kept_bytes += sum(blocked.later.values())
    missing: dict[int, list[int]] = {}
    for key in blocked.later:
        _await(client, key, blocked)
        missing.setdefault(key[0], []).append(key[1])
    _ask(client, missing, out)


def _fetch_gates(client: Client, out: Effects) -> None:
    """A call that holds back others of its actor has its values, room or not: these would never make any."""
    for blocked in list(client.later):
        if blocked.session.actor and next(iter(blocked.session.blocked), -1) == blocked.index:
            client.later.remove(blocked)
            _fetch(client, blocked, out)


def _queue(broker: Broker, ready: list[Blocked]) -> None:
    """These have all that they need: queue them, old ones before what is younger than they are."""
    runs: dict[Session, list[Run]] = {}
    for blocked in ready:
        session = blocked.session
        del session.blocked[blocked.index]
        payload = compose(blocked.payload, [blocked.values[key].payload for key in blocked.needs])
        session.composed[blocked.index] = list(blocked.values.values())
        session.client.composed += not blocked.fetching
        locality.note_values(broker, session, blocked.index, blocked.values.values())
        run = Run(blocked.function, blocked.index, 1, [payload], type(payload) is list, blocked.came)
        runs.setdefault(session, []).append(run)
    for session, found in runs.items():
        found = rejoin(merge(found))
        if session.actor:
            _put_in_order(session, found)
            found = []
        front = session.queue[0].start if session.queue else -1
        younger = [run for run in found if run.start > front]
        session.queue.extend(younger)
        session.queued += sum(map(len, younger))
        dispatch.requeue(session, [run for run in found if run.start < front])
        broker.demand(session)
        broker.fed.update(session.executors)


def _put_in_order(session: Session, found: list[Run]) -> None:
    """Between those that were submitted before and after them."""
    for run in found:
        session.queue.insert(bisect_left(session.queue, run.start, key=_start), run)  # type: ignore[union-attr]
        session.queued += len(run)


def _start(run: Run) -> int:
    return run.start


# --- endings


def over(session: Session, indices: Iterable[int]) -> None:
    """These will not run any more: let go of the values that they had got."""
    for index in indices:
        values = session.composed.pop(index, None)
        if values is not None:
            session.client.composed -= 1
            _release(session.client, values)


def _release(client: Client, values: Iterable[Value]) -> None:
    for value in values:
        value.users -= 1
        if not value.users:
            client.kept_bytes -= value.size


def ended_badly(session: Session, indices: Iterable[int], out: Effects) -> None:
    """These never had a value and will not have one: those that wait for it fail, and so on for theirs."""
    if session.composed:
        over(session, indices)
    if session.inputs:
        locality.over(session, indices)
    if session.alias in session.client.awaited:
        _fail(session.client, [(session.alias, index) for index in indices], out)


def _fail(client: Client, keys: Iterable[Key], out: Effects) -> None:
    told: list[int] = []
    todo = deque(keys)
    while todo:
        key = todo.popleft()
        for blocked in _take(client, key):
            _drop(client, blocked)
            blocked.session.failed += 1
            this = (blocked.session.alias, blocked.index)
            told += (*this, *key)
            todo.append(this)
    if told:
        out.append((client.peer, m.Unmet(told), []))


def cancel(session: Session, indices: Iterable[int]) -> list[int]:
    """Drop those of these tasks that are blocked; returns them.  Of those that need them the caller tells."""
    gone = [index for index in indices if index in session.blocked]
    for index in gone:
        _drop(session.client, session.blocked[index])
    return gone


def close(session: Session, out: Effects) -> None:
    """The session ends, and what of it has not ended will have no value.

    What has ended may be needed on: its client supplies it.
    """
    waiting = session.client.awaited.get(session.alias)
    live: set[int] = set()
    if waiting:
        live.update(session.blocked)
        delayed = [run for _, _, run in session.delayed]
        for runs in (session.queue, delayed, *(executor.held for executor in session.executors.values())):
            live.update(index for run in runs for index in range(run.start, run.end))
    session.cancelled += len(cancel(session, list(session.blocked)))
    over(session, list(session.composed))
    if waiting:
        _fail(session.client, [(session.alias, index) for index in list(waiting) if index in live], out)


def _take(client: Client, key: Key) -> dict[Blocked, None]:
    """Those that wait for this one; they do so no longer."""
    waiting = client.awaited.get(key[0])
    if waiting is None:
        return {}
    found = waiting.pop(key[1], {})
    if not waiting:
        del client.awaited[key[0]]
    return found


def _drop(client: Client, blocked: Blocked) -> None:
    del blocked.session.blocked[blocked.index]
    for alias, index in blocked.needs:
        waiting = client.awaited.get(alias, {}).get(index, {})
        waiting.pop(blocked, None)
        if not waiting:
            _take(client, (alias, index))
    _release(client, blocked.values.values())
    if blocked.fetching:
        client.composed -= 1
        client.kept_bytes -= sum(blocked.later.values())


def check(broker: Broker) -> None:
    """Compare every index with every other."""
    for client in broker.clients.values():
        values: dict[Value, int] = {}
        blocked = [b for session in client.sessions.values() for b in session.blocked.values()]
        composed = [v for session in client.sessions.values() for v in session.composed.values()]
        for holder in (*composed, *(b.values.values() for b in blocked)):
            for value in holder:
                values[value] = values.get(value, 0) + 1
        assert all(value.users == users for value, users in values.items()), "users of values"
        asked = [b for b in blocked if b.fetching]
        asked_bytes = sum(sum(b.later.values()) for b in asked)
        assert client.kept_bytes == sum(value.size for value in values) + asked_bytes, "kept_bytes"
        assert client.composed == len(composed) + len(asked), "composed"
        lacking = {(key, b) for b in blocked for key in b.needs if b.awaits(key)}
        awaited = {
            ((alias, index), b)
            for alias, waiting in client.awaited.items()
            for index, those in waiting.items()
            for b in those
        }
        assert lacking == awaited, "awaited"
        assert all(client.awaited.values()) and all(w for a in client.awaited.values() for w in a.values())
        for b in blocked:
            assert b.session.blocked[b.index] is b
            assert b.lacks or b.fetching or b in client.later, "a task that waits for nothing"
        assert not client.later or broker.owing.get(client.peer) is client
