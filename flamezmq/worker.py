"""The worker: a node's agent.  Starts and watches executors, passes on what they print.

One thread.  The zygote is forked first, while this process has no ZeroMQ
context; a later one is started as a clean process.  What to do is decided by
`core.agent`; this file waits, reads, and carries the effects out.

Before a death is reported, the executor's pipes are drained; its page is read
last, when nobody can write to it any more.
"""

from __future__ import annotations

import errno
import gc
import os
import select
import signal
import socket
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

import msgspec

from flamezmq import capacity, page, processes, zygote
from flamezmq.core import agent as a
from flamezmq.errors import FlameError, last_words
from flamezmq.log import Log, Quiet
from flamezmq.net.line import Line
from flamezmq.store.doors import host_towards
from flamezmq.store.hosting import Hosting
from flamezmq.store.terms import Terms
from flamezmq.wire import messages as m

#: A pipe that gave less than this is left alone for a moment, so that a task that prints
#: line by line costs us a wake-up per moment, not per line.
LOUD_BYTES = 1 << 15
MOMENT_SECONDS = 0.01
#: What is still read from the pipes of a dead executor; a grandchild may go on writing for ever.
DRAIN_BYTES = 4 << 20
#: When the worker stops, the zygote gets this much longer than its executors.
PATIENCE_SECONDS = 0.3
#: A zygote that does not take requests for so long is as good as dead.
ZYGOTE_SECONDS = 5.0
#: Exit codes: the router is gone; executors die as they start.
ROUTER_LOST, HOPELESS = 3, 4


class WorkerConfig(msgspec.Struct, frozen=True):
    """address: the router's.  node: this worker's name; a later one of that name replaces it.

    tell: called with facts that the launcher wants to know ({"zygote": pid}).
    log: where the node's events go.
    devices: the names of its GPUs.  others: what else it has.
    store: what its store may use.
    store_address: where others reach its store (`store/doors`); "": on the way to the router.
    """

    address: str
    node: str
    executors: int
    cores: float
    memory: int
    tell: Callable[[dict[str, Any]], None] = lambda facts: None
    log: Log = Quiet()
    devices: tuple[str, ...] = ()
    others: Mapping[str, float] = {}
    store: Terms = Terms()
    store_address: str = ""


class Pipe:
    """What an executor prints.

    ended       nobody can write to it any more
    rest_until  it has just been read, and was not loud
    """

    __slots__ = ("ended", "fd", "number", "rest_until", "stream")

    def __init__(self, fd: int, number: int, stream: int) -> None:
        self.fd, self.number, self.stream = fd, number, stream
        self.ended = False
        self.rest_until = 0.0

    def read(self, at_most: int) -> bytes:
        """What is there, b"" if nothing is."""
        pieces, size = [], 0
        while size < at_most:
            try:
                piece = os.read(self.fd, 1 << 16)
            except BlockingIOError:
                break
            if not piece:
                self.ended = True
                break
            pieces.append(piece)
            size += len(piece)
        return b"".join(pieces)


class Held(msgspec.Struct, eq=False):
    """The worker's side of an executor.  `pidfd` is -1 until it is forked."""

    words: memoryview
    pipes: list[Pipe]
    pidfd: int = -1


class Worker:
    """The host: the agent, the line to the router, the channel to the zygote.

    wake_fd   readable when a signal has come; then `on_wake` is called with the worker
    line      to the router, if somebody has dialled already
    why_lost  what the line said when it was lost; "" while it is there
    told      the router has told this worker to leave
    """

    def __init__(
        self,
        config: WorkerConfig,
        end: socket.socket,
        zygote_pid: int,
        wake_fd: int,
        on_wake: Callable[[Worker], None],
        line: Line | None = None,
    ) -> None:
        self.config, self.log = config, config.log
        self.token = os.urandom(8).hex()
        limit = config.store.limit_of(config.memory)
        door = config.store_address or host_towards(config.address)
        self.store = Hosting(self.token, config.store, limit, door, config.node)
        self.line = line or Line(config.address, "worker")
        self.why_lost = ""
        self.told = False
        self.held: dict[int, Held] = {}
        self.pipes: dict[int, Pipe] = {}  # by descriptor
        self.wake_fd, self._on_wake = wake_fd, on_wake
        self.end, self.zygote_pid = end, zygote_pid
        self.orphans: dict[int, int] = {}  # pidfd -> number: their zygote is dead, they follow it
        self.drain_by: float | None = None
        self.stop_by: float | None = None
        others = tuple(m.Resource(name, amount) for name, amount in config.others.items())
        register = m.Register(
            config.node, self.token, os.getpid(), config.cores, config.memory, config.executors,
            len(config.devices), others, config.devices, self.store.name, self.store.at, self.store.limit,
        )  # fmt: skip
        self.agent = a.Agent(register)
        self._deeds: dict[type, Callable[[Any], None]] = {
            a.Fork: self._fork,
            a.Kill: self._kill,
            a.Send: self._send,
            a.StartZygote: self._start_zygote,
            a.StopZygote: self._stop_zygote,
        }

    # --- the loop

    def serve(self) -> int:
        """Run until stopped; returns the exit code.

        Executors are asked for before the line is dialled, which its first turn does.
        """
        self.start()
        while not self.ended():
            self.turn()
            if why := self.agent.hopeless(monotonic()):
                print(why, flush=True)
                return HOPELESS
        if self.why_lost:
            print(f"worker: {self.why_lost}", flush=True)
        return ROUTER_LOST if self.why_lost else 0

    def start(self) -> None:
        self._adopt_zygote(self.end, self.zygote_pid)
        self._do(self.agent.on_start(monotonic()))

    def turn(self, until: float | None = None) -> None:
        """Wait for something to happen, not longer than `until`, and deal with it."""
        for fd in self._wait(until):
            self._on_ready(fd)
        now = monotonic()
        for message, _ in self.line.receive():
            self._on_message(message, now)
        self._do(self.agent.on_time(now))
        if self.drain_by is not None and (now >= self.drain_by or not self.agent.executors):
            self.stop()

    def drain(self, seconds: float) -> None:
        """What has not begun goes back to the router; what runs may end, for so long; then stop."""
        if not self.line.link.up or not seconds:
            self.stop()  # nobody is there to take anything back
        elif self.drain_by is None:
            now = monotonic()
            self.drain_by = now + seconds
            self._do(self.agent.on_drain(now))

    def stop(self) -> None:
        """End the executors at once, within a bound."""
        now = monotonic()
        self.stop_by = self.stop_by or now + a.GRACE_SECONDS + PATIENCE_SECONDS
        self._do(self.agent.on_stop(now))

    def ended(self) -> bool:
        """Nothing is left, or what is left does not end in time (`close` kills it)."""
        if self.agent.ended and not self.agent.zygote_up:
            return True
        return self.stop_by is not None and monotonic() >= self.stop_by

    def _wait(self, until: float | None) -> list[int]:
        """Block until something happens.  The line may be lost; then we only have to end."""
        now = monotonic()
        fds = [self.wake_fd, self.store.news_fd, *self.store.fds, *self.orphans]
        if self.agent.zygote_up:
            fds.append(self.end.fileno())
        deadlines = [self.agent.next_deadline(), self.drain_by, self.stop_by, until]
        for pipe in self.pipes.values():
            if now >= pipe.rest_until:
                fds.append(pipe.fd)
            else:
                deadlines.append(pipe.rest_until)
        until = min((d for d in deadlines if d is not None), default=None)
        timeout = -1 if until is None else max(0, int((until - now) * 1000) + 1)
        if not self.why_lost:
            try:
                return self.line.poll(timeout, fds)
            except FlameError as error:
                self.why_lost = str(error) or type(error).__name__
                self.stop()
                return []
        poll = select.poll()
        for fd in fds:
            poll.register(fd, select.POLLIN)
        return [fd for fd, _ in poll.poll(timeout)]

    def _on_ready(self, fd: int) -> None:
        pipe = self.pipes.get(fd)
        if pipe is not None:
            self._on_text(pipe)
        elif fd in self.orphans:
            self._on_orphan_end(fd)
        elif fd == self.wake_fd:
            self._on_wake(self)
        elif self.agent.zygote_up and fd == self.end.fileno():
            self._on_report()
        elif fd == self.store.news_fd:
            for news in self.store.news():
                self.line.enqueue(news)
        elif fd in self.store.fds:
            self.store.start()

    def _on_message(self, message: Any, now: float) -> None:
        if isinstance(message, m.Kill):
            self._on_kill(message, now)
        elif isinstance(message, m.Target):
            self._do(self.agent.on_target(message.executors, now))
        elif isinstance(message, m.Flush):
            for held in self.held.values():
                self._drain(held, now)
            self._do(self.agent.on_flush(message.request, now))
        elif isinstance(message, m.Unstock):
            self.store.end_session(message.session)
        elif isinstance(message, m.Holders):
            self.store.on_holders(message)
        elif isinstance(message, m.Unclaimed):
            self.store.lose(message.pid, message.last)
        elif isinstance(message, m.Discard):
            self.store.discard(message.ids)
        elif isinstance(message, m.Exit):
            self.told = True
            self.stop()

    def _on_kill(self, message: m.Kill, now: float) -> None:
        overdue = message.grace >= 0
        held = self.held.get(message.number)
        if overdue and (held is None or not _is_overdue(held.words, now - message.grace)):
            return  # its task has ended meanwhile, or has begun later than the router knows
        if message.index >= 0 and (held is None or not _runs(held.words, message.session, message.index)):
            return  # it has ended, or waits behind another one
        self._do(self.agent.on_kill_order(message.number, now, overdue))

    # --- what the zygote tells

    def _on_report(self) -> None:
        received = zygote.receive_report(self.end)
        now = monotonic()
        if received is None:
            self._on_zygote_end(now)
            return
        report, fds = received
        if isinstance(report, zygote.Forked):
            if not fds:  # the kernel drops what would be one descriptor too many
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            self.held[report.number].pidfd = fds[0]
            self.log.debug("executor-started", executor=self._name(report.number), pid=report.pid)
            self._do(self.agent.on_forked(report.number, report.pid, now))
        else:
            end = a.End(report.signal, report.exit_code, report.oom, report.rss_bytes)
            self._bury(report.number, end, now)

    def _on_zygote_end(self, now: float) -> None:
        """Its executors were killed with it, or soon are: wait for each, then report it."""
        if not self.agent.stopping:
            self.log.warning("zygote-lost", pid=self.zygote_pid)
        self._drop_zygote()
        for number, held in list(self.held.items()):
            if held.pidfd >= 0:
                self._kill_whole(number)
                self.orphans[held.pidfd] = number
            else:
                self._drain(held, now)
                self._forget(number)
        self._do(self.agent.on_zygote_lost(now))

    def _on_orphan_end(self, pidfd: int) -> None:
        self._bury(self.orphans[pidfd], a.End(signal="SIGKILL"), monotonic())

    def _bury(self, number: int, end: a.End, now: float) -> None:
        """An executor is dead: take in its last output, then its page, and tell the agent."""
        held = self.held[number]
        self._drain(held, now)
        session, running, finished = held.words[:3]
        overdue, binding = _is_overdue(held.words, now), held.words[page.PREPARING] == page.BINDING
        words = a.Words(session, running - 1, finished, overdue, binding)
        self._forget(number)
        self._do(self.agent.on_exited(number, end, words, now))

    def _drain(self, held: Held, now: float) -> None:
        for pipe in held.pipes:
            data = pipe.read(DRAIN_BYTES)
            if data:
                self._on_data(pipe, data, now)

    def _forget(self, number: int) -> None:
        held = self.held.pop(number)
        for pipe in held.pipes:
            self.pipes.pop(pipe.fd, None)
            os.close(pipe.fd)
        if held.pidfd >= 0:
            self.orphans.pop(held.pidfd, None)
            os.close(held.pidfd)
        held.words.release()

    def _on_text(self, pipe: Pipe) -> None:
        data = pipe.read(4 * LOUD_BYTES)
        now = monotonic()
        if len(data) < LOUD_BYTES:
            pipe.rest_until = now + MOMENT_SECONDS
        if data:
            self._on_data(pipe, data, now)
        if pipe.ended:
            del self.pipes[pipe.fd]  # our end is closed with the executor

    def _on_data(self, pipe: Pipe, data: bytes, now: float) -> None:
        session, running = self.held[pipe.number].words[:2]
        self._do(self.agent.on_output(pipe.number, pipe.stream, data, now, (session, running - 1)))

    # --- effects

    def _do(self, effects: a.Effects) -> None:
        for effect in effects:
            self._deeds[type(effect)](effect)

    def _send(self, effect: a.Send) -> None:
        if isinstance(effect.message, m.Died):
            self._log_death(effect.message)
        self.line.enqueue(effect.message)  # goes out when the loop waits next

    def _log_death(self, died: m.Died) -> None:
        write = self.log.debug if died.expected else self.log.warning
        write(
            "executor-ended" if died.expected else "executor-lost",
            executor=self._name(died.number),
            pid=died.pid,
            **({"signal": died.signal} if died.signal else {"exit_code": died.exit_code}),
            **({"oom": True} if died.oom else {}),
            **({"words": last_words(died.stderr, 1)[0]} if died.stderr else {}),
        )

    def _name(self, number: int) -> str:
        return f"{self.config.node}/{number}"

    def _fork(self, effect: a.Fork) -> None:
        page_fd = page.create()
        ends = [os.pipe(), os.pipe()]
        fds = [page_fd, ends[0][1], ends[1][1]]
        pipes = [Pipe(end[0], effect.number, stream) for stream, end in enumerate(ends, 1)]
        self.held[effect.number] = Held(page.open_words(page_fd), pipes)
        for pipe in pipes:
            os.set_blocking(pipe.fd, False)
            self.pipes[pipe.fd] = pipe
        config = self.config
        cores = config.cores / max(1, config.executors)
        try:
            self._ask_zygote(zygote.Fork(effect.number, config.address, config.node, self.token, cores), fds)
        finally:
            for fd in fds:
                os.close(fd)

    def _kill(self, effect: a.Kill) -> None:
        held = self.held.get(effect.number)
        if held is not None and held.pidfd >= 0:
            self._signal(held.pidfd)

    def _kill_whole(self, number: int) -> None:
        """An executor whose zygote is dead, and what its task has started."""
        self._signal(self.held[number].pidfd)
        processes.kill_group(self.agent.executors[number].pid)

    @staticmethod
    def _signal(pidfd: int) -> None:
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it has ended by itself

    # --- the zygote

    def _ask_zygote(self, request: zygote.Fork | zygote.Stop, fds: list[int] | None = None) -> None:
        try:
            zygote.send(self.end, request, fds)
        except TimeoutError:
            processes.kill(self.zygote_pid)  # its end is seen on the channel
        except OSError:
            pass  # it has ended; the channel says so

    def _start_zygote(self, _: a.StartZygote) -> None:
        self._adopt_zygote(*spawn_zygote())

    def _adopt_zygote(self, end: socket.socket, pid: int) -> None:
        end.settimeout(ZYGOTE_SECONDS)
        self.end, self.zygote_pid = end, pid
        self.config.tell({"zygote": pid, "zygote_at": monotonic()})

    def _stop_zygote(self, effect: a.StopZygote) -> None:
        self._ask_zygote(zygote.Stop(effect.grace))

    def _drop_zygote(self) -> None:
        """Its channel has closed: make sure that it is dead, and reap it."""
        self.end.close()
        pid, self.zygote_pid = self.zygote_pid, 0
        if pid:
            processes.kill(pid)
            os.waitpid(pid, 0)

    def reap(self) -> None:
        """Take in orphans of ours that have ended, if this process adopts them."""
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid == self.zygote_pid:
                self.zygote_pid = 0  # its channel tells the rest

    def close(self) -> None:
        """Leave nothing: what did not end in time is killed here."""
        self._drop_zygote()
        for number in list(self.held):
            if self.held[number].pidfd >= 0:
                self._kill_whole(number)
            self._forget(number)
        self.store.stop()
        self.line.close(bye=True)

    def statistics(self) -> dict[str, int]:
        return {**self.agent.statistics(), "descriptors": 2 * len(self.pipes) + len(self.held)}


def spawn_zygote() -> tuple[socket.socket, int]:
    """A clean process, started anew: (our end of its channel, its pid)."""
    ours, theirs = zygote.channel()
    pid = processes.spawn("flamezmq.zygote:boot", str(os.getpid()), [theirs.fileno()])
    theirs.close()
    return ours, pid


def _stop_on_signal(worker: Worker) -> None:
    os.read(worker.wake_fd, 512)
    worker.stop()


def _is_overdue(words: memoryview, now: float) -> bool:
    """Whether a task runs whose time was over at `now`."""
    return 0 < words[page.DUE] <= now * 1e9


def _runs(words: memoryview, session: int, index: int) -> bool:
    """Whether this task runs."""
    running = words[page.SESSION], words[page.RUNNING]
    return running == (session, index + 1) and not words[page.PREPARING]


def main(config: WorkerConfig) -> int:
    """Serve until SIGTERM (returns 0), until the router is gone (3) or no executor can live here (4).

    Call it in the main thread of a process without a ZeroMQ context: it forks.
    """
    capacity.limit_math_threads(config.cores / max(1, config.executors))
    ours, theirs = zygote.channel()
    pid = processes.fork_child("flm-zygote", [theirs.fileno()], lambda: zygote.main(theirs))
    theirs.close()
    gc.enable()
    wake_fd, signal_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(signal_fd, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    worker = Worker(config, ours, pid, wake_fd, _stop_on_signal)
    try:
        return worker.serve()
    finally:
        worker.close()
