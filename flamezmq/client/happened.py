"""What has happened to a session, in words: for flmctl, and for `Session.events`."""

from __future__ import annotations

from dataclasses import dataclass
from time import time

from flamezmq.wire import messages as m


@dataclass(frozen=True, slots=True)
class Event:
    """Something that has happened to a session; once, or several times in a short while.

    Attributes:
        time: when it happened first, in seconds since 1970.
        kind: what it was, in a word or two: "opened", "bound", "executor died", "task lost", ...
        text: the same in a sentence.
        count: how often.
        seconds: from the first to the last time.
    """

    time: float
    kind: str
    text: str
    count: int
    seconds: float


def event_of(row: m.EventRow) -> Event:
    """What the router has told, for programs."""
    return Event(time() - row.age, row.kind, sentence(row), row.count, row.lasted)


def sentence(row: m.EventRow) -> str:
    """One event in words."""
    if row.kind == "bound":
        return _bound(row)
    words = _WORDS.get(row.kind)
    if words is None:  # of a newer router
        return f"{row.kind} {row.text}".rstrip()
    once, often = words
    text = f": {row.text}" if row.text else ""
    known = {"executor": row.executor, "task": row.task, "count": f"{row.count:,}", "by": f" {row.text}"}
    if row.count > 1:
        return often.format(**known).rstrip() + text
    if "{by}" in once:
        return once.format(**known).strip()
    if row.kind == "executor died" and row.task >= 0:
        once += " while it ran task {task}"
    return once.format(**known) + text


#: How each kind is said when it has happened once, and when it has several times.
_WORDS = {
    "opened": ("opened{by}", ""),
    "executor died": ("executor {executor} died", "{count} executors died, the last one {executor}"),
    "task lost": (
        "task {task} is lost, its executor {executor} is dead",
        "{count} tasks are lost, the last one {task} with executor {executor}",
    ),
    "task retried": ("task {task} is to run again", "{count} tasks are to run again, the last one {task}"),
    "task timed out": (
        "executor {executor} was killed, task {task} had not kept to its timeout",
        "{count} executors were killed for the timeouts of their tasks, the last one {executor} for {task}",
    ),
    "preempted": (
        "executor {executor} was killed, because others had waited for it",
        "{count} executors were killed, the last one {executor}, because others had waited for them",
    ),
    "task too late": (
        "task {task} had not begun before its deadline",
        "{count} tasks had not begun before their deadlines, the last one {task}",
    ),
    "initializer failed": ("the initializer failed on {executor}", "the initializer failed {count} times"),
    "bind failed": (
        "the service could not be bound on {executor}",
        "the service could not be bound {count} times, the last time on {executor}",
    ),
    "unbind failed": (
        "the last hook of the service failed on {executor}",
        "the last hook of the service failed {count} times, the last time on {executor}",
    ),
    "stopped": ("the session was stopped", ""),
    "held back": ("nothing more is handed out: its results are not taken", ""),
    "goes on": ("its results were taken, tasks are handed out again", ""),
    "suspended": ("suspended{by}", ""),
    "resumed": ("resumed{by}", ""),
    "changed": ("changed:{by}", ""),
    "draining": ("nothing more is taken, it will be closed{by}", ""),
    "closed": ("{by}", ""),
}


def _bound(row: m.EventRow) -> str:
    serve = f"{row.left} serve it" if row.left > 1 else "1 serves it" if row.left else "none serves it"
    if not row.count:
        return f"executors have left: of {row.most}, {serve}"
    if row.count == 1:
        return f"executor {row.executor} was bound: in the end {serve}"
    return (
        f"{row.count:,} times an executor was bound, {row.executor} first, {row.most} at a time at most: "
        f"in the end {serve}"
    )
