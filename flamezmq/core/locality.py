"""Locality: a task goes where its data is, if that costs nobody more than the data's way to it.

For each task whose arguments lie in stores it is known of which objects they are
made (`Session.inputs`), and from the directory which nodes have these.  An
executor that may take more gets, of the next tasks in the queue, the first that
lacks nothing much on its node.  If there is none, it gets one whose data is
elsewhere, unless an executor there is due sooner than the data could be here: then
it holds out, for as long as the transfer would take, and never longer.

So that nothing waits for ever, a task is passed over for a bounded number of others.
Where sessions share executors, an executor that holds out is the first to be given to
others.

Functions over the broker's state; same rules.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice, repeat
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from flamezmq.core.blocked import Value
from flamezmq.core.directory import Directory
from flamezmq.core.members import NAME_CHARACTERS, Executor, Session
from flamezmq.errors import ProtocolError
from flamezmq.wire import messages as m
from flamezmq.wire.handles import is_handle, unpack

if TYPE_CHECKING:
    from flamezmq.core.broker import Broker

#: What is fetched from another node is taken to come so fast: as in a fast network, so that waits are short.
BYTES_PER_SECOND = 1e9
#: So much less on a node than elsewhere makes no difference: it is there in a millisecond.
NEAR_BYTES = 1 << 20
#: Of a queue, so many tasks are looked at for one that is near; and so many alike are handed out together.
LOOK_TASKS, ALIKE_TASKS = 128, 64
#: A task may be passed over for so many others for each executor of its session.
PASSED_PER_EXECUTOR = 4


class Piece(NamedTuple):
    """An object that a task takes: its id, the store that keeps it, its bytes."""

    id: bytes
    home: str
    size: int


class Far(NamedTuple):
    """What an executor of a node has found, of whose next tasks none is near; it holds for the others there.

    stamp   (time, tasks that are queued, version of the directory): as long as these are the same
    latest  when one of these tasks is to be taken at the latest, and
    least   seconds that the nearest one's data would travel; 0.0: not known
    stays   nobody is free where their data is
    """

    stamp: tuple[float, int, int]
    latest: float = inf
    least: float = 0.0
    stays: bool = False


class Inputs:
    """What a task takes out of stores.

    passed  so many others were handed out before it, for their data was nearer
    until   when an executor that could have had it would have had its data; inf: none holds out for it
    """

    __slots__ = ("_held", "_most", "_version", "passed", "pieces", "until")

    def __init__(self, pieces: list[Piece]) -> None:
        self.pieces = pieces
        self.passed, self.until = 0, inf
        self._held: dict[str, int] = {}
        self._most = 0
        self._version = -1  # of the directory, when that was looked up

    @property
    def size(self) -> int:
        return sum(piece.size for piece in self.pieces)

    def held(self, broker: Broker) -> dict[str, int]:
        """Node -> bytes of it that are there; the greatest first."""
        if self._version != broker.directory.version:
            self._look(broker.directory)
        return self._held

    def _look(self, directory: Directory) -> None:
        self._version = directory.version
        held: dict[str, int] = {}
        for piece in self.pieces:
            entry = directory.find(piece.id)
            nodes: Iterable[str] = ()
            if entry is not None:
                nodes = entry.holders
            elif (home := directory.homes.get(piece.home)) is not None:
                nodes = (home,)  # its store has not told of it yet
            for node in nodes:
                held[node] = held.get(node, 0) + piece.size
        self._held = dict(sorted(held.items(), key=lambda item: (-item[1], item[0])))
        self._most = max(held.values(), default=0)

    def lacks(self, broker: Broker, node: str) -> int:
        """Bytes that this node lacks and the best one has."""
        if self._version != broker.directory.version:
            self._look(broker.directory)
        return self._most - self._held.get(node, 0)

    def best(self, broker: Broker) -> list[str]:
        """The nodes that have most of it."""
        held = self.held(broker)
        return [node for node, size in held.items() if size == self._most]


# --- what is known of tasks


def read(message: m.Submit, first: int) -> dict[int, Inputs]:
    """What the tasks of a Submit take out of stores, by their indices, which begin at `first`."""
    count, flat = len(message.objects), message.uses
    if len(flat) % 2 or not count == len(message.homes) == len(message.sizes):
        raise ProtocolError("`objects` and `uses` of Submit do not fit")
    pieces = list(map(Piece, message.objects, message.homes, message.sizes))
    found: dict[int, Inputs] = {}
    for position, number in zip(flat[::2], flat[1::2], strict=True):
        if position >= len(message.inputs) or number >= count:
            raise ProtocolError("`uses` of Submit names what is not there")
        found.setdefault(first + position, Inputs([])).pieces.append(pieces[number])
    return found


def note(broker: Broker, session: Session, found: dict[int, Inputs]) -> None:
    """These tasks take what lies in stores.  Where it makes no difference where they run, nobody asks."""
    if found and len(broker.workers) > 1 and not session.actor and session.spec.gang == 1:
        session.inputs.update(found)
        broker.scheduler.choosy[session.number] = None


def note_values(broker: Broker, session: Session, index: int, values: Iterable[Value]) -> None:
    """So do those that have got the values of others, as far as these are handles."""
    if len(broker.workers) < 2:
        return
    pieces: list[Piece] = []
    for value in values:
        if is_handle(value.payload):
            try:
                handle = unpack(value.payload)
            except ProtocolError:
                continue  # whoever unpickles it is told
            pieces.append(Piece(handle.id, handle.home, handle.size))
    if pieces:
        own = session.inputs.get(index)
        note(broker, session, {index: Inputs([*(own.pieces if own is not None else ()), *pieces])})


def over(session: Session, indices: Iterable[int]) -> None:
    """These will not run any more."""
    for index in indices:
        session.inputs.pop(index, None)


# --- who gets what


def bring_near(broker: Broker, executor: Executor, session: Session, n: int, little: bool) -> int:
    """Put what this executor is to run next at the front of the queue.

    Returns how many of these tasks, up to n, it may have; 0: what is queued is for others, for now.

    little: only what is near
    """
    node, inputs, queue = executor.token, session.inputs, session.queue
    since = broker.now
    if broker.holding_out:
        since, _ = broker.holding_out.pop(executor.peer, (since, since))
    stamp = (broker.now, session.queued, broker.directory.version)
    known = session.far_only.get(node)
    if known is not None and known.stamp == stamp:
        if little:
            return 0
        if broker.now < since + known.least:
            if not executor.tasks:
                _hold_out(broker, executor, since, min(known.latest, since + known.least))
            return 0
    n = min(n, ALIKE_TASKS)
    most = PASSED_PER_EXECUTOR * len(session.executors)
    far: list[tuple[int, int, Inputs]] = []
    for position, index in _next(session):
        mine = inputs.get(index)
        if mine is None or mine.passed >= most or mine.lacks(broker, node) < NEAR_BYTES:
            run = queue[position]
            count = 1
            while count < n and index + count < run.end and _is_near(broker, session, index + count, node):
                count += 1
            if far:
                far[0][2].passed += 1
                _to_front(session, position, index, count)
            return count
        far.append((position, index, mine))
    session.far_only[node] = Far(stamp)
    if little:
        return 0
    chosen = _choose_far(broker, session, node, far, since)
    if isinstance(chosen, tuple):
        _to_front(session, *chosen, 1)
        return 1
    least = min(mine.lacks(broker, node) for _, _, mine in far) / BYTES_PER_SECOND
    session.far_only[node] = Far(stamp, chosen, least)
    if not executor.tasks:
        _hold_out(broker, executor, since, chosen)
    return 0


def gives_way(broker: Broker, executor: Executor, session: Session) -> bool:
    """Whether all that is next has its data elsewhere, where a free executor could serve the session."""
    if executor.tasks or session.keeps or not broker.scheduler.idle:
        return False
    stamp = (broker.now, session.queued, broker.directory.version)
    known = session.far_only.get(executor.token)
    if known is not None and known.stamp == stamp and known.stays:
        return False
    nodes: dict[str, None] = {}
    for _, index in _next(session):
        mine = session.inputs.get(index)
        if mine is None or mine.lacks(broker, executor.token) < NEAR_BYTES:
            return False
        nodes[mine.best(broker)[0]] = None
    if any(broker.scheduler.has_free(node, session.number) for node in nodes):
        return True
    session.far_only[executor.token] = Far(stamp, stays=True)
    return False


def _next(session: Session) -> Iterator[tuple[int, int]]:
    """The next tasks of its queue: (which of the runs, index).  Where there are priorities, the first one."""
    most = LOOK_TASKS if type(session.queue) is deque else 1
    runs = enumerate(islice(session.queue, most))
    tasks = (zip(repeat(position), range(run.start, run.end)) for position, run in runs)
    return islice(chain.from_iterable(tasks), most)


def _is_near(broker: Broker, session: Session, index: int, node: str) -> bool:
    mine = session.inputs.get(index)
    return mine is None or mine.lacks(broker, node) < NEAR_BYTES


def _to_front(session: Session, position: int, index: int, count: int) -> None:
    """Take these tasks out of the run at this place of the queue, and put them before all others."""
    queue = session.queue
    run = queue[position]
    if not position and run.start == index:
        return
    assert type(queue) is deque
    if len(run) > 2 * LOOK_TASKS:  # the rest of a long one stays as it is: it need not be copied each time
        queue.insert(position, run.take(index + count - run.start))
        run = queue[position]
    del queue[position]
    for start, end in ((index + count, run.end), (run.start, index)):
        if start < end:
            queue.insert(position, run.between(start, end))
    queue.appendleft(run.between(index, index + count))


def _choose_far(
    broker: Broker, session: Session, node: str, far: list[tuple[int, int, Inputs]], since: float
) -> tuple[int, int] | float:
    """The first of these whose data is here sooner than an executor is free where it lies.

    Without one: when there is to be one at the latest, for an executor that is idle since then.
    """
    dues = _dues(broker, session)
    ahead: Counter[str] = Counter()
    latest = inf
    for position, index, mine in far:
        seconds = mine.lacks(broker, node) / BYTES_PER_SECOND
        due, there = min(
            (_due(dues.get(other, ()), ahead[other], session.seconds), other) for other in mine.best(broker)
        )
        until = min(mine.until, since + seconds)
        if due >= seconds or broker.now >= until:
            return position, index
        ahead[there] += 1
        mine.until = until
        latest = min(latest, until)
    return latest


def _dues(broker: Broker, session: Session) -> dict[str, list[float]]:
    """Node -> in how many seconds the session's executors there have run what they hold, rising."""
    dues: dict[str, list[float]] = {}
    for executor in session.executors.values():
        if not executor.leaving and not executor.unbinding:
            due = 0.0
            if executor.held:
                known = executor.held[0].function.seconds >= 0 and executor.paused is None
                due = max(executor.load - (broker.now - executor.since), 0.0) if known else inf
            elif executor.tasks:
                due = executor.load  # it is being fed just now
            dues.setdefault(executor.token, []).append(due)
    for some in dues.values():
        some.sort()
    return dues


def _due(dues: Any, ahead: int, seconds: float) -> float:
    """When one of these executors begins a task before which so many others are waiting for them."""
    if not dues:
        return inf
    turns, which = divmod(ahead, len(dues))
    if not turns:
        return float(dues[which])
    return float(dues[which]) + turns * seconds if seconds >= 0 else inf


def _hold_out(broker: Broker, executor: Executor, since: float, until: float) -> None:
    """It stays idle until then, or until there is something for it; whoever else needs it may have it."""
    broker.holding_out[executor.peer] = since, until
    if executor.rests_since is None:
        executor.rests_since = broker.now
        broker.scheduler.rest(executor.peer)


def look(broker: Broker, now: float) -> None:
    """Feed those that have held out long enough, or for nothing."""
    for peer, (_, until) in list(broker.holding_out.items()):
        executor = broker.executors.get(peer)
        session = executor.session if executor is not None else None
        if executor is None or session is None or executor.tasks:
            del broker.holding_out[peer]
            continue
        if executor.leaving or not session.queued or not session.inputs:
            del broker.holding_out[peer]
        elif now < until:
            continue
        broker.fed[peer] = executor


def wishes(broker: Broker, number: int) -> list[str]:
    """The nodes on which the session needs further executors, for its data is there; the first one last."""
    session = broker.sessions[number]
    idle = Counter(e.token for e in session.executors.values() if not e.tasks and not e.leaving)
    wished: list[str] = []
    for _, index in _next(session):
        mine = session.inputs.get(index)
        best = mine.best(broker)[:1] if mine is not None else ()
        for node in best:
            if idle[node]:
                idle[node] -= 1
            else:
                wished.append(node)
    return wished[::-1]


# --- for those who look on


def explain(broker: Broker, session: Session, why: m.Why) -> None:
    """Where the data of a task lies (of a session: of its next one), and who holds out for it."""
    index = why.task if why.task >= 0 or not session.queue else session.queue[0].start
    mine = session.inputs.get(index)
    if mine is None:
        return
    held = mine.held(broker)
    at = next((e for e in session.executors.values() if e.tasks and e.name == why.executor), None)
    node = at.token if at is not None else next(iter(held), "")
    why.input_bytes, why.near_bytes = mine.size, held.get(node, 0)
    why.near = next((w.node[:NAME_CHARACTERS] for w in broker.workers.values() if w.token == node), "")
    holds_out = any(peer in broker.holding_out for peer in session.executors)
    if at is None and holds_out and broker.now < mine.until < inf:
        why.cause, why.near_for = "near", mine.until - broker.now


def check(broker: Broker) -> None:
    """Compare every index with every other."""
    for session in broker.sessions.values():
        assert not session.inputs or session.closed or session.number in broker.scheduler.choosy
        assert all(index < session.next_index for index in session.inputs), "inputs of a task that never came"
