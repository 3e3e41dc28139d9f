"""The messages of controllers: questions, orders, and the answers, whose rows are typed.

A controller is a peer of role "client" that looks from outside and needs no
session.  No row holds what a client has pickled.  The rest of the messages, and
the unions of who may say what, stand in `messages.py`.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from flamezmq.wire.objects import ObjectRow
from flamezmq.wire.resources import Resource


class Ask(msgspec.Struct, tag=7, array_like=True):
    """Show me; answered by `Answer`.  For those who look from outside: they need no session.

    kind      0: sessions, 1: executors, 2: nodes, 3: tasks, 4: logs, 5: the router itself,
              6: events of a session, 7: why a session, or a task, waits, 8: objects
    session   only this one, by its id; "" for all (sessions, tasks, logs, events, why, objects)
    task      only this one, by its index; -1 for all (logs: what it has printed), for the session (why)
    executor  only this one, by its name; "" for all (executors, logs)
    state     only those in this state, a number of flamezmq/states.py; -1 for all (tasks)
    closed    also sessions that have ended of late (sessions)
    after     only rows with a greater number (sessions, executors, nodes, logs, events, objects)
    limit     rows in the answer, at most; the router has a limit of its own
    """

    request: int
    kind: Annotated[int, msgspec.Meta(ge=0, le=8)]
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
    clients  that are members of it now; -1: it was opened for one
    detached  it stays when they have gone
    kept, kept_bytes  ends of tasks that are kept, and the bytes that they take
    gang     it gets executors so many at a time; 1: one by one
    gangs    whole ones that it has
    gathered executors that are reserved for a further one; -1: none is gathered
    min_executors, max_executors, resources  as in `SessionSpec`, or as they were changed
    objects, object_bytes  that it has in stores, each counted once, as far as these have told
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
    clients: int = -1
    detached: bool = False
    kept: int = 0
    kept_bytes: int = 0
    gang: int = 1
    gangs: int = 0
    gathered: int = -1
    min_executors: int = 0
    max_executors: int = 0
    resources: tuple[Resource, ...] = ()
    objects: int = 0
    object_bytes: int = 0


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
    resources  what else it has, by names of its cluster's own
    objects    that its store has, as far as it has told
    store_used, store_limit  bytes of memory that the store has in use, and may have; 0: it has none
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
    resources: tuple[Resource, ...] = ()
    objects: int = 0
    store_used: int = 0
    store_limit: int = 0


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


class Why(msgspec.Struct, array_like=True):
    """Where a task stands, or those of a session, and why nothing of that is handed out.

    task         its index, -1: it is about the session
    where        "runs"; "held" (by an executor, behind others); "queue"; "retry" (it waits for its time);
                 "needs" (values of others); "client" (it waits there to be submitted); "ended"; or "session"
    state        of the task; -1: it has ended, nobody remembers how
    since        seconds since it was submitted, or has ended; of a session: of the next one that is queued;
                 -1: unknown
    attempt      the one that runs, or is to; 0: unknown
    executor     its name, where the task is or was; of "executors die" the node
    ahead        tasks before it, in the queue or there
    current      index of the task that runs there, -1: none
    runs_for     seconds for which it has been running
    seconds      that it took; -1: unknown
    delay        seconds until it may run again
    lacking      so many values are not here
    needs        the names of some of the tasks whose values those are, and
    need_states  their states
    fetching     all that is lacking has been here, and comes from the client again
    queued, running, held, delayed, blocked  tasks of the session, by where they are
    cause        why nothing is handed out of the queue: "" (that is not the reason), "closed", "suspended",
                 "held back" (the client does not take its results), "kept" (of `by` results that nobody has
                 fetched there is no room for more), "router stops", "no workers",
                 "no executors", "executors die", "limit" (it has as many as it may), "all" (it has all),
                 "share" (others have the rest), "unsuitable" (the free ones have served other programs, and
                 are being replaced), "no node fits" (`by` says what is missing), "no room" (the nodes that
                 could serve it do something else), "now" (an executor is about to get it), "actor is busy",
                 "actor starts", "actor waits" (call `current`, before it, lacks values), "too many actors"
                 (`limit` a node), "gang" (`gathered` of `gang` are reserved), "gang too large" (there are
                 never so many), "readers" (`streams` wait for their readers: no more may begin), "tenant"
                 (`tenant` has all that it may, `by` says what), "beyond tenant" (it may never have so much),
                 "near" (node `near`, which has its data, is due sooner than that could be elsewhere)
    by           who has suspended, cancelled or closed it; how executors die
    cause_since  seconds since that is so, -1: unknown
    have         executors that serve the session
    limit        that may; 0: any number
    executors    that there are
    free         of them, those that serve nobody
    workers      that there are
    rivals       other sessions that have executors
    waiting_rivals  other sessions in which tasks wait for executors
    paused_for   seconds for which the task that runs has been waiting for tasks of its own, or for the reader
                 of its stream; -1: it does not
    binding      the executor is still about to bind the session's service
    failing      how the executors of node `executor` die as they start, time after time, while others serve
    stillborn    so many have in a row, there or of "executors die"
    failing_for  seconds for which they do; -1: unknown
    gang         executors that the session gets at a time
    gathered     of these, those that are reserved for the next gang
    unsent       tasks that wait in clients for room under their tenant's quota, so many at least
    unsent_since seconds since the first of them does; -1: none does
    tenant       of these: whose quota it is (or of "tenant"), and
    quota        which, "queued_tasks" or "queued_bytes"
    quota_limit, quota_used, quota_ahead  what it is, what is queued, and what may come yet without asking
    reads        what the task that runs waits for is its reader
    streams      of all sessions, that wait for their readers, where it is for those that executors are few
    streams_since  seconds for which the first of them has
    input_bytes  that the task takes out of stores; 0: none, or all are on one node
    near         the node that has most of them; of a task that runs, its own, and
    near_bytes   so many of them
    near_for     seconds for which an executor elsewhere still leaves it to one of that node ("near")
    """

    session: str
    task: int
    where: str = ""
    state: int = -1
    since: float = -1.0
    attempt: int = 0
    executor: str = ""
    ahead: int = 0
    current: int = -1
    runs_for: float = -1.0
    seconds: float = -1.0
    delay: float = 0.0
    lacking: int = 0
    needs: list[str] = []
    need_states: list[int] = []
    fetching: bool = False
    queued: int = 0
    running: int = 0
    held: int = 0
    delayed: int = 0
    blocked: int = 0
    cause: str = ""
    by: str = ""
    cause_since: float = -1.0
    have: int = 0
    limit: int = 0
    executors: int = 0
    free: int = 0
    workers: int = 0
    rivals: int = 0
    waiting_rivals: int = 0
    paused_for: float = -1.0
    binding: bool = False
    failing: str = ""
    stillborn: int = 0
    failing_for: float = -1.0
    gang: int = 1
    gathered: int = 0
    unsent: int = 0
    unsent_since: float = -1.0
    tenant: str = ""
    quota: str = ""
    quota_limit: int = 0
    quota_used: int = 0
    quota_ahead: int = 0
    reads: bool = False
    streams: int = 0
    streams_since: float = -1.0
    input_bytes: int = 0
    near: str = ""
    near_bytes: int = 0
    near_for: float = -1.0


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
    more   so many others would have fitted the question: sessions, executors, nodes, tasks, log rows,
           events, objects
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
    why: list[Why] = []
    objects: list[ObjectRow] = []


class Done(msgspec.Struct, tag=31, array_like=True):
    """Answer to an order (about a session, a task or an application), whose `request` it quotes.

    outcome  0: done; 1: it could not be done; 2: there is no such session, task or application
    text     what was done, or why not; a sentence
    """

    request: int
    outcome: int
    text: str


class ClosedBy(msgspec.Struct, tag=32, array_like=True):
    """The client's session is closed by somebody else; `Closed` follows, as after `Close`.

    reason    who did it
    draining  not yet: submit nothing more, and say `Close` with `drained` behind what was submitted
    """

    session: int
    reason: str
    draining: bool = False
