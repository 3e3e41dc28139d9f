"""Futures as arguments: what the pickler does with them, and what the router asks about them later.

A future that has its value is pickled as that value.  For one that has none yet
a placeholder goes into the pickle, and the call becomes a `Dependent`: the
router keeps the task aside until the values are there.  One that has failed, or
was cancelled, fails the call at once.
"""

from __future__ import annotations

import concurrent.futures as cf
import pickle
from typing import TYPE_CHECKING, Any, cast

from flamezmq.client.future import Future
from flamezmq.core.caller import DONE, ERROR, FINISHED, RAW, UNMET, VALUE, Dependent, own
from flamezmq.errors import ProtocolError, Refused, StrayClient, Unpicklable
from flamezmq.serialize.pickler import OutOfPlace, Payload, Pickler, add_reducer
from flamezmq.serialize.placeholders import value_at
from flamezmq.serialize.values import dump_value, load_pieces, load_value
from flamezmq.wire import messages as m
from flamezmq.wire.codec import join_payloads
from flamezmq.wire.handles import pack

if TYPE_CHECKING:
    from flamezmq.client.api import Client


def reduce_future(pickler: Pickler, future: Future) -> Any:
    """Put its value there, or a placeholder."""
    if pickler.owner is None:
        raise OutOfPlace(
            "only arguments of submit and map are waited for; pass it as one, or take its result() here",
            future,
        )
    if future._session._client is not pickler.owner:
        raise OutOfPlace("it is of another client; pass its result()", future)
    state, form, value = future._state, future._form, future._value
    if state is FINISHED and future._recipe is not None:  # a placeholder: it may have to be made again
        pickler.needs.append(future._session._client._lineage.current(future))
        return value_at, (len(pickler.needs) - 1,)
    if (
        state is FINISHED and future._hold is not None
    ):  # as the task has made it, whatever was done to it here
        pickler.holds.append(future._hold)
        return load_value, (pack(future._hold.handle),)
    if state is FINISHED and form == VALUE:
        return _itself, (value,)
    if state is FINISHED and form == RAW:
        if type(value) is list:
            return load_pieces, tuple(map(pickle.PickleBuffer, value))
        return load_value, (value,)
    pickler.needs.append(future)
    return value_at, (len(pickler.needs) - 1,)


def _itself(value: Any) -> Any:
    return value


def reduce_client(_pickler: Pickler, client: Any) -> Any:
    """Refuse a client, or one of its sessions: nobody can drive a socket from two processes."""
    raise OutOfPlace("a task that needs one takes flm.current().client", client, StrayClient)


def _reduce_stranger(pickler: Pickler, future: Any) -> Any:
    raise OutOfPlace("it was not made by a client; pass its result()", future)


def depend(future: Future, call: Dependent, function: str) -> bool:
    """Note whose futures the call needs; False, and `future` has failed, if it can't wait for one of them.

    function: its name for people
    """
    for need in call.needs:
        if need._state in DONE and (need._state is not FINISHED or need._form not in (RAW, VALUE)):
            future._form, future._value, future._state = UNMET, need, FINISHED
            future._label = f"{function} (not sent)"
            return False
    why_not = future._session._refuses(need._session for need in call.needs)
    if why_not:
        future._form, future._value, future._state = ERROR, Refused(why_not), FINISHED
        future._label = f"{function} (not sent)"
        return False
    future.needy = True
    call.needs = [(need._session._calls, need) for need in call.needs]
    return True


def value_payload(future: Future) -> Payload | None:
    """The value of a future that has ended, pickled; None if it has none, or none that can be pickled."""
    state, form, value = future._state, future._form, future._value
    if state is FINISHED and future._hold is not None:
        return pack(future._hold.handle)
    if state is FINISHED and form == RAW:
        return cast(Payload, own(value))
    if state is FINISHED and form == VALUE:
        try:
            return dump_value(value)
        except Unpicklable:
            return None
    return None


def on_wanted(client: Client, message: m.Wanted) -> None:
    """The router asks for the values of tasks that had ended before it heard that others need them.

    What has not ended it will see for itself.
    """
    for index in message.indices:
        need = client._needed.get((message.session, index))
        if need is None:
            continue
        if need._state not in DONE:
            if need._index != index:  # it was put back, and runs under another number
                client._orders.append(m.Supply(message.session, index, True, [], []), [])
                client._pump.arm()
            continue
        if need._form == VALUE:  # the user has looked at it: to pickle it again runs the user's code
            client._errands.add(_supply, client, message.session, index, need)
        else:
            _supply(client, message.session, index, need)


def _supply(client: Client, alias: int, index: int, need: Future) -> None:
    payload = value_payload(need)
    column, parts, frames = join_payloads([] if payload is None else [payload])
    client._orders.append(m.Supply(alias, index, payload is None, column, parts), frames)
    client._pump.arm()


def on_unmet(client: Client, message: m.Unmet) -> None:
    """These tasks will not run: what they need has no value."""
    tasks = message.tasks
    if len(tasks) % 4:
        raise ProtocolError("`tasks` of Unmet are quadruples")
    for alias, index, needed, its in zip(*(tasks[column::4] for column in range(4)), strict=True):
        calls = client._calls.get(alias)
        if calls is not None:
            calls.on_unmet(index, (needed, its), client._on_end)


add_reducer(Future, reduce_future)
add_reducer(cf.Future, _reduce_stranger)
