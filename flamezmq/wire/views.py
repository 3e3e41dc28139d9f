"""The messages of controllers: questions, orders, and the answers, whose rows are typed.

A controller is a peer of role "client" that looks from outside and needs no
session.  No row holds what a client has pickled.  The rest of the messages, and
the unions of who may say what, stand in `messages.py`.
"""

from __future__ import annotations

from typing import Annotated

import msgspec


class Ask(msgspec.Struct, tag=7, array_like=True):
    """Show me; answered by `Answer`.  For those who look from outside: they need no session.

    kind      0: sessions, 1: executors, 2: nodes, 3: tasks, 4: logs, 5: the router itself,
              6: events of a session
    session   only this one, by its id; "" for all (sessions, tasks, logs, events)
    task      only what this task has printed, by its index; -1 for all (logs)
    executor  only this one, by its name; "" for all (executors, logs)
    state     only those in this state, a number of flamezmq/states.py; -1 for all (tasks)
    closed    also sessions that have ended of late (sessions)
    after     only rows with a greater number (sessions, executors, nodes, logs, events)
    limit     rows in the answer, at most; the router has a limit of its own
    """

    request: int
    kind: Annotated[int, msgspec.Meta(ge=0, le=6)]
    session: str = ""
    task: int = -1
    executor: str = ""
    state: int = -1
    closed: bool = False
    after: int = 0
    limit: int = 256


class CloseSession(msgspec.Struct, tag=8, array_like=True):
    """Close another client's session, by its id; answered by `Done`, and its client gets `ClosedBy`.

    by  who wants it, for the people whose tasks are cancelled
    """

    request: int
    session: str
    by: str


class CancelTask(msgspec.Struct, tag=9, array_like=True):
    """Cancel another client's task if it has not begun, or interrupt it; answered by `Done`.

    session, index  the session's id, the task's index in it
    by              as in `CloseSession`
    running         interrupt it if it runs; the answer comes when it has ended
    """

    request: int
    session: str
    index: int
    by: str
    running: bool = False


class SessionRow(msgspec.Struct, array_like=True):
    """A session, as a controller sees it.  Ages are seconds before the answer.

    number   the router's; sessions that were opened later have greater ones
    state    as all states here, a number of flamezmq/states.py
    slots    executors that serve it now
    pending, running, succeed, failed, cancelled  tasks, as in `Counts`
    seconds  average run time of its tasks, -1 while unknown
    age      since it was opened
    closed   since it was closed, -1 while it is open
    ending   why it was closed
    """

    number: int
    id: str
    state: int
    name: str
    application: str
    tenant: str
    priority: int
    weight: float
    max_retries: int
    host: str
    slots: int
    pending: int
    running: int
    succeed: int
    failed: int
    cancelled: int
    seconds: float
    age: float
    closed: float
    ending: str


class ExecutorRow(msgspec.Struct, array_like=True):
    """An executor, as a controller sees it.

    number    the router's; later ones are greater
    name      "node/number"
    session   id of the one that it serves, "" if none
    tasks     so many it holds, the running one counted
    running   index of the task that it is believed to run, -1 if none
    since     seconds for which it has been running it, -1 if none
    finished  tasks that it has finished in all its life
    """

    number: int
    name: str
    state: int
    session: str
    node: str
    pid: int
    tasks: int
    running: int
    since: float
    finished: int


class NodeRow(msgspec.Struct, array_like=True):
    """A node, as a controller sees it: what its worker has told, and what is there.

    memory     bytes
    executors  that are there
    busy       of them, those that hold tasks
    wanted     executors that its worker was started with
    age        seconds since its worker came
    """

    number: int
    name: str
    state: int
    cores: float
    memory: int
    gpus: int
    executors: int
    busy: int
    wanted: int
    pid: int
    age: float


class TaskRow(msgspec.Struct, array_like=True):
    """`count` tasks of a session, in one state: indices `first`, `first + 1`, ...

    function  its name for people
    attempt   from 1
    executor  that holds, runs or ran them; "" for what waits with the router
    since     seconds for which they have been running, or since they ended; -1 for what waits
    seconds   run time of each, on average; -1 unless they have ended
    delay     seconds until they may run again (a retry that waits); else 0
    """

    first: int
    count: int
    state: int
    function: str
    attempt: int
    executor: str
    since: float
    seconds: float
    delay: float = 0.0


class LogRow(msgspec.Struct, array_like=True):
    """What one task has printed in one go, or an executor between tasks.

    number   the router's, rising
    age      seconds since it came to the router
    task     index in the session, -1 if no task printed it, or nobody knows which
    stream   1 (stdout) or 2 (stderr)
    dropped  bytes before it that were over the rate and are gone
    """

    number: int
    age: float
    executor: str
    session: str
    task: int
    stream: int
    text: str
    dropped: int


class EventRow(msgspec.Struct, array_like=True):
    """Something that has happened to a session; once, or several times in a short while.

    number    from 1 in the session, rising; where some are missing, older ones have been forgotten
    age       seconds since it happened first
    kind      in words, one of flamezmq/core/events.py
    count     how often
    lasted    seconds from the first to the last time
    text      by whom, or how; of the last time, as the next two
    task      index of the one that it is about, -1 if none
    executor  its name, "" if none; of "bound" the first one
    most      of "bound": executors that served the session at a time
    left      of "bound": those that did in the end
    """

    number: int
    age: float
    kind: str
    count: int
    lasted: float
    text: str = ""
    task: int = -1
    executor: str = ""
    most: int = 0
    left: int = 0


class RouterRow(msgspec.Struct, array_like=True):
    """The router itself.

    version   of flamezmq, for people
    uptime    seconds since it was started
    clients   without the one that asks, and without tasks that submit tasks
    pending   tasks that wait, in all sessions
    held      tasks that executors have
    draining  it was told to stop
    """

    version: str
    protocol: int
    uptime: float
    clients: int
    sessions: int
    nodes: int
    executors: int
    pending: int
    held: int
    draining: bool


class Answer(msgspec.Struct, tag=30, array_like=True):
    """Answer to `Ask`, whose `request` it quotes: one of the columns has rows.

    error  there is no such session or executor; a sentence
    more   so many others would have fitted the question: sessions, executors, nodes, tasks, log rows, events
    """

    request: int
    error: str = ""
    sessions: list[SessionRow] = []
    executors: list[ExecutorRow] = []
    nodes: list[NodeRow] = []
    tasks: list[TaskRow] = []
    logs: list[LogRow] = []
    more: int = 0
    router: list[RouterRow] = []
    events: list[EventRow] = []


class Done(msgspec.Struct, tag=31, array_like=True):
    """Answer to `CloseSession`, `CancelTask` and `ChangeSession`, whose `request` it quotes.

    outcome  0: done; 1: it could not be done; 2: there is no such session or task
    text     what was done, or why not; a sentence
    """

    request: int
    outcome: int
    text: str


class ClosedBy(msgspec.Struct, tag=32, array_like=True):
    """The client's session is closed by somebody else; `Closed` follows, as after `Close`.

    reason  who did it
    """

    session: int
    reason: str
