"""The messages between workers and the router: nodes, their executors' deaths, what executors print."""

from __future__ import annotations

import msgspec

from flamezmq.wire.resources import Resource


class Register(msgspec.Struct, tag=80, array_like=True):
    """A node with its capacity; a later one of the same name replaces it.

    token   drawn by the worker, quoted by its executors
    memory  bytes
    resources  what else it has, by names of its cluster's own
    devices    names of its GPUs, as in CUDA_VISIBLE_DEVICES; empty: they are not known
    store      the name of its store; "": it has none
    store_at   the store's ZeroMQ address; "": it has none, for all are on its node
    store_limit  bytes of memory that the store may have
    """

    node: str
    token: str
    pid: int
    cores: float
    memory: int
    executors: int
    gpus: int = 0
    resources: tuple[Resource, ...] = ()
    devices: tuple[str, ...] = ()
    store: str = ""
    store_at: str = ""
    store_limit: int = 0


class Died(msgspec.Struct, tag=81, array_like=True):
    """An executor is dead.

    session, running  the task that ran then (router's session number, index), -1 if none
    finished          how many tasks it had finished in its life
    expected          it was told to go: not an accident, nobody is charged
    overdue           and that was because the task that ran, or the bind, had not kept to its timeout
    binding           it was binding the session's service, and `running` had not begun
    """

    number: int
    pid: int
    node: str
    session: int
    running: int
    finished: int
    signal: str
    exit_code: int
    oom: bool
    rss_bytes: int
    stderr: tuple[str, ...]
    expected: bool = False
    overdue: bool = False
    binding: bool = False


class Printed(msgspec.Struct, tag=82, array_like=True):
    """What executor `number` printed; the other columns as in `Output`.

    tasks  flat triples (characters of `text`, session, index): which task printed them, as far as that is
           known; an index of -1 is for none.  The session is the router's number
    """

    number: int
    stream: int
    text: str
    dropped: int
    tasks: list[int] = []


class Kill(msgspec.Struct, tag=83, array_like=True):
    """End this executor now; it does not answer.

    grace           if not negative: only if its task is over its timeout by so many seconds, as its page says
    session, index  if `index` is not negative: only if this task runs there (the router's session number)
    """

    number: int
    grace: float = -1.0
    session: int = 0
    index: int = -1


class Target(msgspec.Struct, tag=86, array_like=True):
    """Have so many executors from now on; those that are too many are told to exit by the router."""

    executors: int


class Flush(msgspec.Struct, tag=84, array_like=True):
    """Send on what the executors have printed so far, then answer with `Flushed`.

    request  a number that the answer quotes
    """

    request: int


class Flushed(msgspec.Struct, tag=85, array_like=True):
    """Answer to `Flush`: all that had been printed then has gone out before this.

    request  as in `Flush`
    """

    request: int


class Leave(msgspec.Struct, tag=87, array_like=True):
    """The worker is about to leave: its executors get no more, give back what has not begun, and Exit."""
