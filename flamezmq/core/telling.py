"""What members of a session are told: each what is about its own tasks, all what is about the session.

Results of several members in one message (an executor may hold tasks of more than one) are the only
ones that are taken apart; their payloads stay unread.  What tells how tasks of a detached session have
ended is kept, too (`core/keeping.py`), and sent to those who fetch.

Functions over the broker's state; same rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from flamezmq.core.commons import Common, Member, Reader, look_whether_drained, weigh
from flamezmq.core.keeping import End, size_of
from flamezmq.core.members import Effects
from flamezmq.errors import ProtocolError
from flamezmq.wire import messages as m
from flamezmq.wire.codec import join_payloads, split_payloads
from flamezmq.wire.joining import STRIDE

if TYPE_CHECKING:
    from flamezmq.core.broker import Broker

_read_outputs = msgspec.msgpack.Decoder(list[bytes]).decode


def route(broker: Broker, out: Effects) -> None:
    """Give what is for the members of a session to those that it is about."""
    if not any(peer < 0 for peer, _, _ in out):
        return
    said, out[:] = out[:], []
    for effect in said:
        common = broker.commons.get(effect[0]) if effect[0] < 0 else None
        if common is not None:
            _give(broker, common, effect[1], effect[2], out)
        elif effect[0] >= 0:
            out.append(effect)


def _give(broker: Broker, common: Common, message: Any, frames: list[Any], out: Effects) -> None:
    kind = type(message)
    if kind is m.RoutedResults:
        for part, beside in _by_member(message, frames):
            _end(broker, common, part, beside, _ranges_of(part), out)
    elif kind is m.Begun or kind is m.RoutedPart:
        _tell(common, message.index // STRIDE, message, frames, out)
    elif kind is m.Lost:
        _end(broker, common, message, frames, [(message.index, message.index + 1)], out)
    elif kind is m.Cancelled:
        for _, indices in _grouped(message.indices):
            part = m.Cancelled(message.session, indices, [], message.reason)
            _end(broker, common, part, [], _ranges(indices), out)
        for number, indices in _grouped(message.refused):
            part = m.Cancelled(message.session, [], indices, message.reason)
            _tell(common, number, part, [], out)
            for fetcher in common.fetchers:
                out.append((fetcher.peer, replace(part, session=fetcher.alias), []))
    elif kind is m.Expired:
        for _, indices in _grouped(message.indices):
            _end(broker, common, replace(message, indices=indices), [], _ranges(indices), out)
    elif kind is m.Wanted:
        for number, indices in _grouped(message.indices):
            _tell(common, number, m.Wanted(message.session, indices), [], out)
    elif kind is m.Unmet:
        _give_unmet(broker, common, message, out)
    elif kind is not m.Huddle:  # each sleeps where it likes
        _give_all(broker, common, message, out)


def _give_all(broker: Broker, common: Common, message: Any, out: Effects) -> None:
    """What is about the session as a whole."""
    readers = list(common.readers())
    if type(message) is m.ClosedBy and not message.draining:
        readers = [one for one in readers if not (isinstance(one, Member) and one.leaves)]
    elif type(message) is m.Output:
        readers = list(common.members.values())
    elif type(message) is m.ClosedBy:
        readers = list(common.members.values())
        look_whether_drained(broker, common)
    for reader in readers:
        out.append((reader.peer, replace(message, session=reader.alias), []))
    if type(message) is m.Closed:
        for reader in readers:
            client = broker.clients.get(reader.peer)
            if client is not None:
                client.joined.pop(reader.alias, None)
        del broker.commons[common.client.peer]


def _tell(common: Common, number: int, message: Any, frames: list[Any], out: Effects) -> None:
    member = common.members.get(number)
    if member is not None:
        out.append((member.peer, _addressed(message, member), frames))


def _addressed(message: Any, reader: Reader) -> Any:
    return message if type(message) is m.Unmet else replace(message, session=reader.alias)


def _end(
    broker: Broker,
    common: Common,
    message: Any,
    frames: list[Any],
    ranges: list[tuple[int, int]],
    out: Effects,
    told: Any = None,
) -> None:
    """Tasks of one member have ended: tell it (as `told`, if that is another message), and keep it."""
    if not ranges:
        return
    number = ranges[0][0] // STRIDE
    shelf = common.shelf
    if shelf is None or common.session.closed:
        _tell(common, number, told or message, frames, out)
        return
    end = End(message, frames, ranges, size_of(message, frames))
    member = common.members.get(number)
    if member is not None:
        send(member, end, told or message, out)
    for fetcher in common.fetchers:
        if any(first < fetcher.ends.get(number, 0) for first, _ in ranges):
            send(fetcher, end, message, out)
    shelf.put(end)
    weigh(broker, common)


def send(reader: Reader, end: End, message: Any, out: Effects) -> None:
    reader.unconfirmed.append(end)
    out.append((reader.peer, _addressed(message, reader), end.frames))


def _give_unmet(broker: Broker, common: Common, message: m.Unmet, out: Effects) -> None:
    """One message for each task: those who fetch are told in words, for they know nothing of its needs."""
    session, tasks = common.session, message.tasks
    for index, needed in zip(tasks[1::4], tasks[3::4], strict=True):
        member = common.members.get(index // STRIDE)
        alias = member.alias if member is not None else 0
        reason = f"task {session.id}/{index} needs task {session.id}/{needed}, which has no value"
        kept = m.Cancelled(session.alias, [index], [], reason)
        told = m.Unmet([alias, index, alias, needed])
        _end(broker, common, kept, [], [(index, index + 1)], out, told)


def _grouped(indices: list[int]) -> list[tuple[int, list[int]]]:
    groups: dict[int, list[int]] = {}
    for index in indices:
        groups.setdefault(index // STRIDE, []).append(index)
    return list(groups.items())


def _ranges_of(message: m.RoutedResults | m.Results | m.Cancelled) -> list[tuple[int, int]]:
    if isinstance(message, m.Cancelled):
        return _ranges(message.indices)
    return [(part.first, part.first + part.count) for part in message.slices]


def _ranges(indices: list[int]) -> list[tuple[int, int]]:
    ranges: list[tuple[int, int]] = []
    for index in indices:
        if ranges and ranges[-1][1] == index:
            ranges[-1] = (ranges[-1][0], index + 1)
        else:
            ranges.append((index, index + 1))
    return ranges


def _outputs(message: m.RoutedResults, frames: list[Any]) -> list[Any]:
    """The payloads of a message; none, if they can't be read."""
    try:
        return split_payloads(_read_outputs(message.outputs), message.parts, frames)
    except (msgspec.DecodeError, ValueError, ProtocolError):
        return []


def _by_member(message: m.RoutedResults, frames: list[Any]) -> list[tuple[Any, list[Any]]]:
    """The same results in a message for each member; as they are, if there is one only."""
    live = [part for part in message.slices if part.attempt]
    numbers = dict.fromkeys(part.first // STRIDE for part in live)
    if len(numbers) < 2 and len(live) == len(message.slices):
        return [(message, frames)]
    outputs = _outputs(message, frames)
    if len(outputs) != sum(part.count for part in message.slices):
        whole = [i for part in live for i in range(part.first, part.first + part.count)]
        why = "an executor has sent results that nobody can read"
        return [(m.Cancelled(message.session, found, [], why), []) for _, found in _grouped(whole)]
    errors = set(message.failed)
    sizes = dict(zip(message.stored[::2], message.stored[1::2], strict=False))
    taken: list[tuple[Any, list[Any]]] = []
    for number in numbers:
        slices: list[m.Slice] = []
        seconds: list[float] = []
        failed: list[int] = []
        stored: list[int] = []
        payloads: list[Any] = []
        position = 0
        for part, took in zip(message.slices, message.seconds, strict=True):
            here = range(position, position + part.count)
            position += part.count
            if part.attempt and part.first // STRIDE == number:
                failed += [len(payloads) + at - here.start for at in here if at in errors]
                for at in sizes.keys() & set(here):
                    stored += (len(payloads) + at - here.start, sizes[at])
                payloads += outputs[here.start : here.stop]
                slices.append(part)
                seconds.append(took)
        texts, parts, beside = join_payloads(payloads)
        taken.append((m.Results(message.session, slices, failed, seconds, parts, texts, stored), beside))
    return taken
