"""The messages: batches of columns, one class per sentence.

Tasks travel as *slices*: `count` tasks with consecutive indices, one function
and one attempt, so that the header of ten thousand tasks is a few integers.
A task is named by its session and its index in it (from 0, in submit order).

Columns called `inputs` or `outputs` hold one payload per task, in the order of
the slices.  A payload is one pickle; `parts` lists, as flat pairs (offset in
the column, number of frames), those that bring out-of-band buffers, which
follow as frames of their own in the same order.

Everything here came from a peer: lengths and ranges are checked by the broker
(`ProtocolError`), types by msgspec.  Only executors and clients unpickle.
"""

from __future__ import annotations

from typing import Any

import msgspec

from flamezmq.wire.agents import Died as Died
from flamezmq.wire.agents import Flush as Flush
from flamezmq.wire.agents import Flushed as Flushed
from flamezmq.wire.agents import Kill as Kill
from flamezmq.wire.agents import Leave as Leave
from flamezmq.wire.agents import Printed as Printed
from flamezmq.wire.agents import Register as Register
from flamezmq.wire.agents import Target as Target
from flamezmq.wire.applications import AboutApplications as AboutApplications
from flamezmq.wire.applications import AboutServices as AboutServices
from flamezmq.wire.applications import Application as Application
from flamezmq.wire.applications import ApplicationRow as ApplicationRow
from flamezmq.wire.applications import Applications as Applications
from flamezmq.wire.applications import AskApplications as AskApplications
from flamezmq.wire.applications import BindFailed as BindFailed
from flamezmq.wire.applications import RegisterApplication as RegisterApplication
from flamezmq.wire.applications import Service as Service
from flamezmq.wire.applications import Unbind as Unbind
from flamezmq.wire.applications import Unbound as Unbound
from flamezmq.wire.applications import UnregisterApplication as UnregisterApplication
from flamezmq.wire.applications import UpdateApplication as UpdateApplication
from flamezmq.wire.changes import ChangeSession as ChangeSession
from flamezmq.wire.deadlines import Expired as Expired
from flamezmq.wire.handshake import PROTOCOL as PROTOCOL
from flamezmq.wire.handshake import Hello as Hello
from flamezmq.wire.handshake import Refuse as Refuse
from flamezmq.wire.handshake import Welcome as Welcome
from flamezmq.wire.interrupts import Interrupt as Interrupt
from flamezmq.wire.interrupts import Interrupted as Interrupted
from flamezmq.wire.joining import AboutMembers as AboutMembers
from flamezmq.wire.joining import ToMembers as ToMembers
from flamezmq.wire.needs import Supply as Supply
from flamezmq.wire.needs import Unmet as Unmet
from flamezmq.wire.needs import Wanted as Wanted
from flamezmq.wire.objects import AskStores as AskStores
from flamezmq.wire.objects import Discard as Discard
from flamezmq.wire.objects import Holders as Holders
from flamezmq.wire.objects import ObjectRow as ObjectRow
from flamezmq.wire.objects import Stocked as Stocked
from flamezmq.wire.objects import Stocks as Stocks
from flamezmq.wire.objects import Stores as Stores
from flamezmq.wire.objects import Unclaimed as Unclaimed
from flamezmq.wire.objects import Unstock as Unstock
from flamezmq.wire.objects import WhoHas as WhoHas
from flamezmq.wire.ranges import Count as Count
from flamezmq.wire.ranges import Index as Index
from flamezmq.wire.ranges import Limit as Limit
from flamezmq.wire.ranges import Priority as Priority
from flamezmq.wire.ranges import Seconds as Seconds
from flamezmq.wire.resources import Resource as Resource
from flamezmq.wire.streams import Part as Part
from flamezmq.wire.streams import Pull as Pull
from flamezmq.wire.streams import RoutedPart as RoutedPart
from flamezmq.wire.tasks import NewFunction as NewFunction
from flamezmq.wire.tasks import Options as Options
from flamezmq.wire.tasks import Slice as Slice
from flamezmq.wire.tenants import AboutTenants as AboutTenants
from flamezmq.wire.tenants import AskTenants as AskTenants
from flamezmq.wire.tenants import Room as Room
from flamezmq.wire.tenants import SetTenant as SetTenant
from flamezmq.wire.tenants import TenantRow as TenantRow
from flamezmq.wire.tenants import Tenants as Tenants
from flamezmq.wire.tenants import ToTenants as ToTenants
from flamezmq.wire.tenants import WantRoom as WantRoom
from flamezmq.wire.views import Answer as Answer
from flamezmq.wire.views import Ask as Ask
from flamezmq.wire.views import CancelTask as CancelTask
from flamezmq.wire.views import ClosedBy as ClosedBy
from flamezmq.wire.views import CloseSession as CloseSession
from flamezmq.wire.views import Done as Done
from flamezmq.wire.views import EventRow as EventRow
from flamezmq.wire.views import ExecutorRow as ExecutorRow
from flamezmq.wire.views import LogRow as LogRow
from flamezmq.wire.views import NodeRow as NodeRow
from flamezmq.wire.views import RouterRow as RouterRow
from flamezmq.wire.views import SessionRow as SessionRow
from flamezmq.wire.views import TaskRow as TaskRow
from flamezmq.wire.views import Why as Why

# --- client -> router ---------------------------------------------------------------------


class Environment(msgspec.Struct, array_like=True, frozen=True):
    """Where the user's code is at home: applied by executors of the same machine (`host`)."""

    host: str = ""
    cwd: str = ""
    sys_path: tuple[str, ...] = ()


class SessionSpec(msgspec.Struct, array_like=True, frozen=True):
    """What a session asks for.

    application          the name of a registered one, whose service runs its tasks; "": they bring functions
    tenant               for whom it is; tenants share evenly, and never share a process
    priority             among the sessions of its tenant; higher ones are served first
    weight               of its share among those of the same tenant and priority, above 0
    within               "token/number" of the executor whose task has opened it (nested tasks), or ""
    max_executors        that serve it at a time; 0: no limit
    initializer          a pickled (function, arguments), called once in each process; empty: none
    max_tasks_per_child  of the session, for one executor process, which is then replaced; 0: no limit
    outer                the router's number of the session whose task has opened it, or 0
    min_executors        that it has as long as it is open, whatever others want
    resources            that each of its executors needs
    delay_release        seconds that an executor stays bound to it without anything to do
    preempt_after        seconds after which executors that are due to others leave their tasks; 0: never
    common_data          a pickle for its service, sent to each executor that binds it; empty: none
    restarts             how many more instances it may have, where the session is an actor; -1: it is none
    detached             it stays when its clients have gone, and what its tasks give is kept
    gang                 it gets executors so many at a time, and gives them back so; 1: one by one
    """

    name: str
    application: str = ""
    tenant: str = ""
    priority: int = 0
    weight: float = 1.0
    max_retries: int = 3
    forward_output: bool = True
    environment: Environment = Environment()
    within: str = ""
    max_executors: Limit = 0
    initializer: bytes = b""
    max_tasks_per_child: Limit = 0
    outer: Limit = 0
    min_executors: Limit = 0
    resources: tuple[Resource, ...] = ()
    delay_release: Seconds = 0.0
    preempt_after: Seconds = 0.0
    common_data: bytes = b""
    restarts: int = -1
    detached: bool = False
    gang: Count = 1


class Open(msgspec.Struct, tag=1, array_like=True):
    """Open a session; answered by `Opened`.

    session  a number that the client chose, from 1; it names the session in all that follows
    id       its name for people
    who      opens it for others to join, or joins it; answered by `Joined`.  "": it is this client's alone
    """

    session: int
    id: str
    spec: SessionSpec
    who: str = ""


class Submit(msgspec.Struct, tag=2, array_like=True):
    """Run these tasks.

    functions  those that the router has not seen
    forget     numbers of functions that are not used again
    slices     indices go on without a gap, from 0
    inputs     pickled arguments; the router never unpickles them
    needs      tasks that wait for others, as flat triples (position in `inputs`, session and index of a task
               of this client whose value it takes), positions rising; its placeholders are in that order
    ages       for each slice, the seconds since the submit of its first task if its function has a deadline;
               empty if none has
    objects    ids of those that the arguments refer to, as far as they can be had from other nodes
    homes      for each of these, the name of the store that keeps it
    sizes      and its bytes
    uses       flat pairs (position in `inputs`, index into `objects`), positions rising
    """

    session: int
    functions: list[NewFunction]
    forget: list[int]
    slices: list[Slice]
    inputs: list[bytes]
    parts: list[int]
    needs: list[Index] = []
    ages: list[Seconds] = []
    objects: list[bytes] = []
    homes: list[str] = []
    sizes: list[Index] = []
    uses: list[Index] = []


class Cancel(msgspec.Struct, tag=3, array_like=True):
    """Cancel these tasks if they have not begun; answered by `Cancelled` (one or several).

    running  interrupt those that run; for these the answer is how they end
    """

    session: int
    indices: list[int]
    running: bool = False


class Close(msgspec.Struct, tag=4, array_like=True):
    """Close the session: what waits or can be taken back is cancelled.

    Answered by `Closed`, after all that its tasks have printed.

    drained  somebody wanted that (`ClosedBy` with `draining`), and nothing more comes: cancel nothing,
             and close it when what it has has ended
    """

    session: int
    drained: bool = False


class Query(msgspec.Struct, tag=5, array_like=True):
    """How many tasks of the session are in which state?  Answered by `Counts`.

    request  a number that the answer quotes
    """

    session: int
    request: int


# --- router -> client ---------------------------------------------------------------------


class Opened(msgspec.Struct, tag=20, array_like=True):
    """Answer to `Open`.

    error  why not; empty when it is open (the router refuses no session yet)
    """

    session: int
    error: str = ""


class Results(msgspec.Struct, tag=21, array_like=True):
    """Executor -> router -> client: these tasks have ended.

    failed   positions in `outputs` that hold a pickled error instead of a value
    seconds  run time of each slice, all of its tasks together; finite, from 0
    outputs  pickled values and errors
    stored   flat pairs (position in `outputs`, bytes) of those that hold a handle (`handles`): the value lies
             in a store, and is so large
    last     id of the object that the last of these is; empty: there are none
    """

    session: int
    slices: list[Slice]
    failed: list[int]
    seconds: list[Seconds]
    parts: list[int]
    outputs: list[bytes]
    stored: list[int] = []
    last: bytes = b""


class RoutedResults(msgspec.Struct, tag=21, array_like=True):
    """`Results` as the router reads it: the outputs stay as they came, unread."""

    session: int
    slices: list[Slice]
    failed: list[int]
    seconds: list[Seconds]
    parts: list[int]
    outputs: msgspec.Raw
    stored: list[int] = []
    last: bytes = b""


class Cancelled(msgspec.Struct, tag=22, array_like=True):
    """Answer to `Cancel`.

    indices  these will never run
    refused  these have begun or ended
    reason   who has cancelled them, if it was not this client
    """

    session: int
    indices: list[int]
    refused: list[int]
    reason: str = ""


class Closed(msgspec.Struct, tag=23, array_like=True):
    """Answer to `Close`."""

    session: int


class Counts(msgspec.Struct, tag=24, array_like=True):
    """Answer to `Query`, whose `request` it quotes.

    suspended  who has suspended the session; empty: nobody has
    """

    session: int
    request: int
    pending: int
    running: int
    succeed: int
    failed: int
    cancelled: int
    suspended: str = ""


class Lost(msgspec.Struct, tag=25, array_like=True):
    """The task is given up: it took its executors down, or may not be started twice.

    attempts     how many were started
    certificate  the last death, an array with its tag
    timeout      it was killed because it ran for longer than so many seconds; 0: that was not the reason
    label        its function's name for people
    values       so many of its stream had been sent on before; it is not replayed
    """

    session: int
    index: int
    attempts: int
    certificate: Died
    timeout: Seconds = 0.0
    label: str = ""
    values: Index = 0


class Begun(msgspec.Struct, tag=26, array_like=True):
    """Executor -> router -> client: this task runs, and is not known to be short."""

    session: int
    index: int
    attempt: int


class Output(msgspec.Struct, tag=27, array_like=True):
    """What a task printed.

    executor  "node/number"
    stream    1 (stdout) or 2 (stderr)
    dropped   bytes that were over the rate and are gone
    """

    session: int
    executor: str
    stream: int
    text: str
    dropped: int = 0


class Taken(msgspec.Struct, tag=33, array_like=True):
    """To a client inside a task: executors were given these of its tasks."""

    session: int
    indices: list[int]


# --- router -> executor -------------------------------------------------------------------


class Bind(msgspec.Struct, tag=40, array_like=True):
    """Serve this session from now on.

    id           its name for people
    initializer  to be called before its first task; empty: there is none, or it was called here before
    service      to be bound before its first task, if it has an application
    devices      GPUs that its process may see from now on, as in CUDA_VISIBLE_DEVICES; empty: nothing is said
    root         of a session of nested tasks: id of the outermost one, to which objects belong that they put
    """

    session: Index
    environment: Environment
    id: str = ""
    initializer: bytes = b""
    service: Service | None = None
    devices: tuple[str, ...] = ()
    root: str = ""


class Grant(msgspec.Struct, tag=41, array_like=True):
    """Run these tasks, in this order.

    functions  those that this executor has not seen
    forget     numbers of functions that are not used again
    retried    for each slice, how often its task was sent back by `Retry`; empty if none was
    """

    session: int
    functions: list[NewFunction]
    forget: list[int]
    slices: list[Slice]
    inputs: list[bytes]
    parts: list[int]
    retried: list[int] = []


class Retract(msgspec.Struct, tag=42, array_like=True):
    """Give back all that has not begun but the `keep` oldest; answered by `Retracted`."""

    session: int
    keep: int


class Drop(msgspec.Struct, tag=43, array_like=True):
    """Give back these if they have not begun; answered by `Retracted` (with what could be had)."""

    session: int
    indices: list[int]


class Exit(msgspec.Struct, tag=44, array_like=True):
    """Leave, once what is held has ended."""


class Huddle(msgspec.Struct, tag=90, array_like=True):
    """To executors and clients of the router's own host: sleep on processor `cpu`, all of you.

    cpu  negative: sleep where you like
    """

    cpu: int


# --- executor -> router -------------------------------------------------------------------


class Ready(msgspec.Struct, tag=60, array_like=True):
    """A new executor; always its first message.

    token, number  those that its worker forked it with
    """

    node: str
    token: str
    number: int
    pid: int


class Waiting(msgspec.Struct, tag=63, array_like=True):
    """The running task waits for its own tasks, which run elsewhere, or for its reader (or goes on again).

    While it waits, what this executor holds besides is asked back, and a spare one may take its place.

    reader  it waits for the reader of its stream
    """

    session: int
    waits: bool
    reader: bool = False


class Retracted(msgspec.Struct, tag=61, array_like=True):
    """Answer to `Retract` and `Drop`, in the order they were asked.

    slices  these never begin here
    """

    session: int
    slices: list[Slice]


class Retry(msgspec.Struct, tag=62, array_like=True):
    """This task has raised an error that its options name, and may be run again.

    slice    one task; it is no longer held here
    seconds  not sooner than after so many
    """

    session: int
    slice: Slice
    seconds: Seconds


class Broken(msgspec.Struct, tag=64, array_like=True):
    """Executor -> router -> client: the session's initializer has failed here, so the session is broken.

    The executor throws away what it holds of the session, and what is still to come; it is replaced.
    To the client the router then closes the session, and sends `Closed` by itself.  It says so, too, when
    the service of a session could not be bound, again and again.

    executor   its name ("node/number")
    text       type and text of the error
    traceback  as text
    died       from the router: the session is an actor, and its last instance has died so
    instances  and so many it has had
    binds      so many binds in a row have failed, the last one with this error; 0: it was the initializer
    """

    session: int
    executor: str
    text: str
    traceback: str
    died: Died | None = None
    instances: Index = 0
    binds: Index = 0


FromClient = (
    Open | Submit | Cancel | Close | Query | Supply | Ask | CloseSession | CancelTask | ChangeSession | Pull
) | (AboutTenants | AboutApplications | AboutMembers | AskStores)
ToClient = (
    Opened
    | Results
    | Cancelled
    | Closed
    | Counts
    | Lost
    | Expired
    | Begun
    | Output
    | Wanted
    | Unmet
    | Taken
    | Huddle
    | Answer
    | Stores
    | Done
    | ClosedBy
    | Broken
    | Part
    | Applications
    | ToMembers
    | ToTenants
)
FromExecutor = (
    Ready | RoutedResults | RoutedPart | Begun | Retracted | Retry | Interrupted | Waiting | Broken
) | AboutServices
ToExecutor = Bind | Grant | Retract | Drop | Interrupt | Pull | Exit | Huddle | Unbind
FromWorker = Register | Died | Printed | Flushed | Leave | Stocks | Stocked | WhoHas
ToWorker = Kill | Flush | Target | Exit | Unstock | Unclaimed | Discard | Holders
Message = Any
