"""Commands: a program in a process group of its own; its output is kept, within bounds, and it ends with us.

Nothing of a command outlives its run: what is left of its group when it ends, is
over its time, or when its task is interrupted, is killed here; when the
executor dies, by its guard.

Whoever calls `run` waits in `poll`, so a signal that raises (a task that is
cancelled, or over its time) gets through at once.
"""

from __future__ import annotations

import errno
import os
import select
import signal
from collections.abc import Mapping, Sequence
from math import ceil
from time import monotonic
from typing import NamedTuple

from flamezmq import processes
from flamezmq.shims.guard import guard

#: Bytes of each of a command's two outputs that are kept unless somebody says otherwise.
MOST_BYTES = 16 << 20
#: Between SIGTERM and SIGKILL for a command that is over its time.
GRACE_SECONDS = 0.5
#: Of a command that was over its time, as timeout(1) has it; of what can't be run, as a shell does.
TIMED_OUT, NOT_EXECUTABLE, NOT_FOUND = 124, 126, 127
#: Where a command finds the file that it was handed.
FILE_FD = 3
_CHUNK = 1 << 16
#: After the end of a command: a pipe holds less, and who writes on was not of its group.
_LAST_CHUNKS = 32
#: What keeps a command from being started that is no fault of its own.
_SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
_SIGNALS = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})


class Ended(NamedTuple):
    """How a command ended.

    exit_code   its own; 128 and the number of the signal that killed it; 124 if its time was over;
                126 or 127 if it could not be started
    signal      "SIGKILL" or another name, "" for none
    timed_out   its time was over
    stdout, stderr  what is kept of them
    dropped     bytes of both that are not kept
    seconds     how long it ran
    """

    exit_code: int
    signal: str
    timed_out: bool
    stdout: bytes
    stderr: bytes
    dropped: int
    seconds: float


def run(
    words: Sequence[str],
    *,
    stdin: bytes = b"",
    file: bytes | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float | None = None,
    most_bytes: int = MOST_BYTES,
    guarded: bool = False,
) -> Ended:
    """Run a program and wait for its end.

    Args:
        words: the program, looked for as a shell does, and its arguments.
        stdin: what it can read.
        file: the content of a file that it finds as /dev/fd/3.
        environment: variables beside those of this process.
        timeout: seconds until its group gets SIGTERM, and soon after SIGKILL.
        most_bytes: of each output that are kept; the rest is read, counted, and dropped.
        guarded: this process is an executor, whose commands end with it.

    Raises:
        OSError: there are no more descriptors, or no memory.
    """
    began = monotonic()
    deadline = None if timeout is None else began + timeout
    outputs = Capture(most_bytes), Capture(most_bytes)
    pid, status, timed_out = 0, 0, False
    if guarded:
        guard.start()
    try:
        try:
            pid = _spawn(words, stdin, file, environment, outputs)
        except (OSError, ValueError) as error:
            return _not_started(words, error, monotonic() - began)
        timed_out = not _follow(pid, outputs, deadline)
        if timed_out:
            _ask_to_end(pid, outputs)
    finally:
        if pid:
            status = _end(pid)
        for output in outputs:
            output.finish()
    code = os.waitstatus_to_exitcode(status)
    return Ended(
        TIMED_OUT if timed_out else code if code >= 0 else 128 - code,
        processes.signal_name(-code) if code < 0 else "",
        timed_out,
        outputs[0].taken(),
        outputs[1].taken(),
        outputs[0].dropped + outputs[1].dropped,
        monotonic() - began,
    )


class Capture:
    """One output of a command, read from a pipe: the first `most` bytes, and the number of the others."""

    def __init__(self, most: int) -> None:
        self.dropped = 0
        self.ended = False
        self.fd = self.theirs = -1
        self._room = most
        self._kept: list[bytes] = []

    def open(self) -> None:
        self.fd, self.theirs = os.pipe()
        os.set_blocking(self.fd, False)

    def read(self) -> bool:
        """Take a piece of what is there; False if nothing is there just now, or ever (`ended`)."""
        try:
            data = os.read(self.fd, _CHUNK)
        except BlockingIOError:
            return False
        self.ended = not data
        kept = data[: self._room]
        if kept:
            self._kept.append(kept)
            self._room -= len(kept)
        self.dropped += len(data) - len(kept)
        return bool(data)

    def let_go(self) -> None:
        """The command has its end."""
        if self.theirs >= 0:
            os.close(self.theirs)
            self.theirs = -1

    def finish(self) -> None:
        """Take the rest, without waiting, and close."""
        self.let_go()
        if self.fd >= 0:
            for _ in range(_LAST_CHUNKS):
                if not self.read():
                    break
            os.close(self.fd)
            self.fd = -1

    def taken(self) -> bytes:
        return b"".join(self._kept)


def _spawn(
    words: Sequence[str],
    stdin: bytes,
    file: bytes | None,
    environment: Mapping[str, str] | None,
    outputs: tuple[Capture, Capture],
) -> int:
    opened: list[int] = []
    actions: list[tuple[int, int, int] | tuple[int, int, str, int, int]] = []
    try:
        if stdin:
            opened.append(_in_memory(stdin))
            actions.append((os.POSIX_SPAWN_DUP2, opened[-1], 0))
        else:
            actions.append((os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0))
        for target, output in enumerate(outputs, 1):
            output.open()
            actions.append((os.POSIX_SPAWN_DUP2, output.theirs, target))
        if file is not None:  # last, for it may take the place of one of ours
            opened.append(_in_memory(file))
            actions.append((os.POSIX_SPAWN_DUP2, opened[-1], FILE_FD))
        return os.posix_spawnp(
            words[0],
            list(words),
            os.environ if environment is None else {**os.environ, **environment},
            file_actions=actions,
            setpgroup=0,
            setsigmask=(),
            setsigdef=_SIGNALS,  # executors ignore SIGINT, and Python SIGPIPE; a command should not
        )
    finally:
        for fd in opened:
            os.close(fd)
        for output in outputs:
            output.let_go()


def _in_memory(data: bytes) -> int:
    """A file that nobody else sees, and that goes with the last who has it open."""
    fd = os.memfd_create("flm-command")
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _not_started(words: Sequence[str], error: Exception, seconds: float) -> Ended:
    """As a shell says it."""
    if isinstance(error, OSError) and error.errno in _SCARCE:
        raise error
    reason = error.strerror if isinstance(error, OSError) else str(error)
    code = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
    text = f"flamezmq: can't run {words[0]}: {reason}\n"
    return Ended(code, "", False, b"", text.encode(errors="backslashreplace"), 0, seconds)


def _follow(pid: int, outputs: tuple[Capture, Capture], deadline: float | None) -> bool:
    """Read what the command prints until it has ended; False if it has not in time."""
    pidfd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        open_ones = {output.fd: output for output in outputs if output.fd >= 0}
        for fd in open_ones:
            poll.register(fd, select.POLLIN)
        while True:
            left = None if deadline is None else deadline - monotonic()
            if left is not None and left <= 0:
                return False
            ended = False
            for fd, _ in poll.poll(None if left is None else ceil(left * 1000)):
                if fd == pidfd:
                    ended = True
                elif not open_ones[fd].read() and open_ones[fd].ended:
                    poll.unregister(fd)
                    del open_ones[fd]
            if ended:
                return True
    finally:
        os.close(pidfd)


def _ask_to_end(pid: int, outputs: tuple[Capture, Capture]) -> None:
    """SIGTERM to all of the group, and a moment for it."""
    processes.kill_group(pid, signal.SIGTERM)
    _follow(pid, outputs, monotonic() + GRACE_SECONDS)


def _end(pid: int) -> int:
    """Kill what is left of the group, before its number can be another's; returns the status of the first."""
    processes.kill_group(pid)
    return os.waitpid(pid, 0)[1]
