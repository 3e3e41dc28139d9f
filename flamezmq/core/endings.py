"""Tasks that end without a result: cancelled, or too late for their deadline.

They have been taken from wherever they were.  Whichever way an unwanted task
comes back from its executor, it comes through here.
"""

from __future__ import annotations

from collections.abc import Sequence

from flamezmq.core import control, events, needs
from flamezmq.core.members import RECENT_SLICES, Effects, Session
from flamezmq.core.tasks import Function
from flamezmq.wire import messages as m


def unwanted(
    session: Session, indices: list[int], now: float, out: Effects, refused: Sequence[int] = ()
) -> None:
    """These will never run, or not again; the late ones of them have failed, the others are cancelled.

    refused: of others that should have been cancelled it is certain that they have begun or ended
    """
    if session.late:
        late = {index: session.late[index] for index in indices if index in session.late}
        indices = [index for index in indices if index not in late]
        expired(session, late, now, out)
    if indices or refused:
        session.note_cancelled(indices)
        control.tell_cancelled(session, indices, list(refused), out)
        needs.ended_badly(session, indices, out)


def expired(session: Session, late: dict[int, Function], now: float, out: Effects) -> None:
    """These have not begun in time."""
    if not late:
        return
    session.failed += len(late)
    by_function: dict[Function, list[int]] = {}
    for index, function in late.items():
        by_function.setdefault(function, []).append(index)
        session.late.pop(index, None)
        session.unwanted.pop(index, None)
        session.retried.pop(index, None)
    for function, indices in by_function.items():
        deadline = function.options.deadline if function.options is not None else 0.0
        out.append((session.client.peer, m.Expired(session.alias, indices, deadline, function.label), []))
        events.note(session, events.LATE, now, f"after {deadline:g} s", indices[-1], count=len(indices))
    last = list(late)[-RECENT_SLICES:]
    parts = [m.Slice(late[index].number, index, 1, 1) for index in last]
    session.recent.append(("", parts, [-1.0] * len(parts), list(range(len(parts))), now))
    needs.ended_badly(session, late, out)
