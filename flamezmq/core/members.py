"""Who takes part: clients, sessions, workers, executors, as the broker sees them.

Data only, and the counts that go with it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any

from flamezmq.core.blocked import Blocked, Value
from flamezmq.core.tasks import Function, Ranks, Run
from flamezmq.tenant import Tenant as Tenant
from flamezmq.wire import messages as m

if TYPE_CHECKING:
    from flamezmq.core.applications import Registered
    from flamezmq.core.control import Cancelling
    from flamezmq.core.events import Events
    from flamezmq.core.locality import Far, Inputs
    from flamezmq.core.meter import Meter
    from flamezmq.core.readers import Readers
    from flamezmq.core.streams import Streaming

#: Of a session: messages with results that are remembered, and of each so many slices.
RECENT_MESSAGES = 32
RECENT_SLICES = 16
#: And ranges of tasks that were cancelled.
GONE_RANGES = 64
#: So many deadlines of a session are kept without asking whether their tasks have ended.
LEAST_DEADLINES = 64
#: Of an id or a name that a peer has chosen, so many characters are kept for people.
NAME_CHARACTERS = 200

Deadline = tuple[float, int, int, Function]  # when; first and count of the tasks
Effects = list[tuple[int, Any, list[Any]]]  # (peer, message, buffer frames), in the order of sending


@dataclass(slots=True, eq=False)
class Client:
    """A user's process.

    held_back   it has not taken its results, so it gets no more run
    held_since  and since when
    inner       it is a task, and submits tasks of its own
    joined      its numbers of sessions that it is a member of, or fetches from -> the client of all members
    awaited     session -> index -> the blocked tasks that wait for this one
    later       blocked tasks that lack only values that were let go; oldest first
    composed    tasks that have got all their values, or have asked for them, and are not over
    kept_bytes  of values, here or asked for
    """

    peer: int
    sessions: dict[int, Session] = field(default_factory=dict)
    joined: dict[int, int] = field(default_factory=dict)
    held_back: bool = False
    held_since: float = 0.0
    inner: bool = False
    awaited: dict[int, dict[int, dict[Blocked, None]]] = field(default_factory=dict)
    later: deque[Blocked] = field(default_factory=deque)
    composed: int = 0
    kept_bytes: int = 0


@dataclass(slots=True, eq=False)
class Session:
    """The unit of work.  `number` is the router's, `alias` the client's."""

    number: int
    alias: int
    id: str
    spec: m.SessionSpec
    client: Client
    functions: dict[int, Function] = field(default_factory=dict)  # the client's number -> function
    queue: deque[Run] | Ranks = field(default_factory=deque)
    queued: int = 0
    delayed: list[tuple[float, int, Run]] = field(default_factory=list)  # a heap: (when, index, one task)
    blocked: dict[int, Blocked] = field(default_factory=dict)  # index -> task that waits for others
    composed: dict[int, list[Value]] = field(default_factory=dict)  # index -> what it has got from others
    inputs: dict[int, Inputs] = field(default_factory=dict)  # index -> its objects (core/locality.py)
    far_only: dict[str, Far] = field(default_factory=dict)  # node -> what its executors have found there
    next_index: int = 0  # tasks below it have been submitted (core/joining.py: as far as there are any)
    members: int = 1  # clients that it has had
    executors: dict[int, Executor] = field(default_factory=dict)  # bound to it
    busy: int = 0  # of them, those that hold tasks and are not leaving
    held: int = 0  # tasks on executors
    begun: dict[int, int] = field(default_factory=dict)  # index -> executor: those that said so
    charges: dict[int, int] = field(default_factory=dict)  # index -> executors it took down
    retried: dict[int, int] = field(default_factory=dict)  # index -> how often its options had it run again
    unwanted: dict[int, float] = field(default_factory=dict)  # index, held -> when to kill if it runs
    late: dict[int, Function] = field(default_factory=dict)  # of these, those that only their deadline ends
    deadlines: list[Deadline] = field(default_factory=list)  # a heap
    most_deadlines: int = LEAST_DEADLINES  # then look which of them have ended
    succeed: int = 0
    failed: int = 0
    cancelled: int = 0
    seconds: float = -1.0  # average run time over all functions; -1.0 while unknown
    stores: dict[int, None] = field(default_factory=dict)  # workers that have objects of it
    closed: bool = False
    root: Session | None = None  # the outermost whose tasks' tasks these are: its client hears the prints
    counted: bool = False  # it matters how many of its tasks an executor was given (core/wear.py)
    actor: bool = False  # one process runs its tasks, in order, and nothing else (core/actors.py)
    deaths: int = 0  # of an actor: how many instances it has lost
    gpus: float = 0.0  # that each of its executors asks for
    readers: Readers | None = None  # where some of its tasks stream (core/readers.py)
    keeps: bool = False  # executors may stay with it without anything to do (core/rests.py)
    tenant: str = ""
    meter: Meter | None = None  # where its tenant has a quota on what is queued (core/quotas.py)
    application: Registered | None = None
    bound: dict[int, Executor] = field(default_factory=dict)  # those that have its service (core/services.py)
    failed_binds: int = 0  # since the last one that has succeeded
    # For those who look from outside (core/records.py), and give orders (core/control.py):
    opened_at: float = 0.0
    closed_at: float = -1.0
    ending: str = ""
    cancelling: Cancelling | None = None
    gone: deque[tuple[int, int, str]] = field(
        default_factory=lambda: deque(maxlen=GONE_RANGES)
    )  # see control
    suspended: str = ""  # by whom; nothing is handed out (core/changes.py)
    suspended_at: float = 0.0
    draining: str = ""  # by whom; it is closed when nothing of it is left (core/changes.py)
    homeless_since: float = -1.0  # when the last node that could serve it left; -1: none has been here
    events: Events | None = None  # what has happened (core/events.py)
    labels: dict[int, str] = field(default_factory=dict)  # the router's numbers of functions -> their names
    recent: deque[Any] = field(default_factory=lambda: deque(maxlen=RECENT_MESSAGES))  # what ended of late

    def __post_init__(self) -> None:
        spec = self.spec
        self.counted = bool(spec.initializer or spec.max_tasks_per_child or spec.application)
        self.actor = spec.restarts >= 0
        self.gpus = next((one.amount for one in spec.resources if one.name == "gpu"), 0.0)
        self.keeps = bool(spec.min_executors or spec.delay_release or spec.gang > 1) and not self.actor

    def note_cancelled(self, indices: list[int]) -> None:
        """These tasks will never run; they have been taken out already."""
        self.cancelled += len(indices)
        if self.unwanted:
            for index in indices:
                self.unwanted.pop(index, None)
                self.late.pop(index, None)
        if self.retried:
            for index in indices:
                self.retried.pop(index, None)

    @property
    def waiting(self) -> int:
        """Tasks that no executor holds."""
        return self.queued + len(self.delayed) + len(self.blocked)

    def learn(self, seconds: float, count: int) -> None:
        mean = max(seconds / count, 1e-7)
        self.seconds = mean if self.seconds < 0 else self.seconds + 0.3 * (mean - self.seconds)


@dataclass(slots=True, eq=False)
class Executor:
    """A process that runs tasks.

    served    the session that it was bound to last, whose tasks have printed what still comes
    load      seconds of work it is believed to hold
    finished  tasks whose results have come from it, in all its life
    asked     what it still has to answer, and for which session: None for a Retract, indices for a Drop
    taken     tasks that it was given, by session, of those that have them `counted`
    worn      an initializer, or a hook of a service, has failed in it: to be replaced
    aside     it is an actor's, and not among those that sessions share
    heard     when it last said something
    stalled   its task takes longer than was believed: what it held besides was asked back
    since     when the oldest task that it holds came, or was the next: it runs since then
    past      numbers of the sessions that it was bound to of late, for what their tasks still print
    tenant    that of the first session that it served
    confined  it has served a session that shares no process with others
    service   the session whose service is bound in it, or about to be
    binding   nothing has been heard since it was told to bind that
    enters_at  since when it has a task that waits for that; None: it has not been given one yet
    unbinding  it was told that this has to go, and has not answered
    applications  name -> the revision that it was sent
    paused    since when its task has waited for its own tasks, or for the reader of its stream; or None
    reads     and it is for its reader
    stream    what it has streamed last; of a task that has ended, unless it still holds it
    last_object  id of the last result of its tasks that lies in a store, as far as has been heard
    rests_since  when it ran dry, and stayed with its session all the same; None while it does not
    rests_until  when that is to be looked at again
    preempt_at  when it is to be killed, if somebody still waits for it
    devices     GPUs that its process sees, for its life, and for what request (core/devices.py)
    """

    peer: int
    node: str
    token: str
    number: int
    pid: int
    heard: float
    session: Session | None = None
    served: Session | None = None
    held: deque[Run] = field(default_factory=deque)
    tasks: int = 0
    load: float = 0.0
    finished: int = 0
    known: dict[int, None] = field(default_factory=dict)  # functions it has, oldest first
    asked: deque[tuple[Session, list[int] | None]] = field(default_factory=deque)
    leaving: bool = False  # gets no more; to be unbound once it holds nothing
    exiting: bool = False  # told to exit: it serves nobody any more
    departing: bool = False  # its worker leaves: to be told to exit once it holds nothing
    stalled: bool = False
    paused: float | None = None
    reads: bool = False
    last_object: bytes = b""
    rests_since: float | None = None
    rests_until: float = inf
    preempt_at: float = inf
    stream: Streaming | None = None
    reclaimed: bool = False  # it was to leave before it was paused
    taken: dict[int, int] = field(default_factory=dict)
    worn: bool = False
    aside: bool = False
    environment: m.Environment | None = None
    owner: int = -1  # peer of the client whose environment it has
    tenant: str = ""
    confined: bool = False
    service: Session | None = None
    binding: bool = False
    enters_at: float | None = None
    unbinding: bool = False
    applications: dict[str, int] = field(default_factory=dict)
    devices: tuple[str, ...] = ()
    device_amount: float = 0.0
    bound_to: int = 0  # session number of the last Bind that was sent
    since: float = 0.0
    past: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=8))
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = f"{self.node[:NAME_CHARACTERS]}/{self.number}"


@dataclass(slots=True, eq=False)
class Worker:
    """A node's agent.

    executors  so many it was started with
    since      when it came
    leaving    its executors are to end, and it gets no new ones
    resources  what else it has, by names of its cluster's own
    devices    names of its GPUs, as far as they are known
    store, store_at, store_limit  its store's name, ZeroMQ address, and bytes of memory that it may have
    last_death, died_at  how an executor of it died last that was not to end, and when
    stillborn, failing_since  so many have died in a row before they were here, and since when they do
    """

    peer: int
    node: str
    token: str
    executors: int  # that it has without spare ones
    pid: int = 0
    cores: float = 0.0
    memory: int = 0
    gpus: int = 0
    since: float = 0.0
    spare: int = 0  # that it was asked to have beside them
    actors: int = 0  # executors that stand aside for actors: it has been asked for as many more
    lowered: bool = False  # it was asked to have fewer than before, at least once
    crowded: bool = False  # it may have more than it was asked to have: it heard of that too late
    idle_since: float | None = None  # since when it has had one too many
    leaving: bool = False
    last_death: str = ""
    died_at: float = 0.0
    stillborn: int = 0
    failing_since: float = 0.0
    resources: tuple[m.Resource, ...] = ()
    devices: tuple[str, ...] = ()
    store: str = ""
    store_at: str = ""
    store_limit: int = 0


@dataclass(slots=True)
class Limits:
    """What the broker allows itself.

    horizon_seconds   work that an executor may hold, or `batch_tasks` if that is more, but
                      never more than `deep_seconds`: a message is worth its price from so many tasks on
    short_seconds     tasks below it get one more, to hide the round trip
    hidden_seconds    and longer ones up to it, as long as enough are queued for all executors
    max_grant         tasks in one message
    drain_seconds     after a death, how long its last messages may still arrive
    overdue_seconds   an executor that was not heard for so long gives back what it holds
    orphan_seconds    a task whose session has ended may run on for so long, after it was interrupted
    grace_seconds     and one that was cancelled, or whose timeout is over
    actors_per_worker  that may live at a time, on average
    max_kept_bytes    of results, in a detached session
    tenants           what each may have, by name (core/quotas.py, bounds.py)
    """

    horizon_seconds: float = 0.002
    batch_tasks: int = 64
    deep_seconds: float = 0.016
    short_seconds: float = 0.005
    hidden_seconds: float = 0.1
    max_grant: int = 4096
    drain_seconds: float = 0.02
    overdue_seconds: float = 0.005
    orphan_seconds: float = 1.0
    grace_seconds: float = 1.0
    actors_per_worker: int = 64
    max_tasks: int = 1 << 17
    max_bytes: int = 256 << 20
    known_functions: int = 512
    max_kept_bytes: int = 256 << 20
    tenants: dict[str, Tenant] = field(default_factory=dict)
