"""Talking to a program through its pipes: one message there, one back; or all its input, all its output.

Both directions are served at once, so neither side can block the other however
large the messages are.  All waits watch the program's life, too.
"""

from __future__ import annotations

import os
import select
import struct
from time import monotonic
from typing import Protocol

from flamezmq.shims.payloads import shown
from flamezmq.shims.program import Program

#: One read; a pipe holds no more, unless somebody has enlarged it.
_CHUNK = 1 << 16
_ERROR_BIT = 1 << 31
_LENGTH = struct.Struct(">I")
_NOTHING = memoryview(b"")


class Nonsense(ValueError):
    """A program has answered what is no message; the text shows it."""


class Late(Exception):
    """Its time is over.  (No TimeoutError: what interrupts a task is one.)"""


class Reader(Protocol):
    """One answer, put together from what the pipe gives."""

    def feed(self, chunk: bytes) -> bytes | None:
        """The answer, once it is whole.  Raises Nonsense."""


class LineReader:
    """A line of at most `most` bytes."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> bytes | None:
        at = chunk.find(b"\n")
        self._parts.append(chunk if at < 0 else chunk[:at])
        self._size += len(self._parts[-1])
        if self._size > self.most:
            raise Nonsense(f"a line of more than max_bytes={self.most} bytes, {shown(self._parts[0])}")
        if at < 0:
            return None
        if at < len(chunk) - 1:
            raise Nonsense(f"more than one line, the next is {shown(chunk[at + 1 :])}")
        return b"".join(self._parts)


class FrameReader:
    """A frame of at most `most` bytes; `failed`: its payload is the text of an error."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.failed = False
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> bytes | None:
        buffer = self._buffer
        buffer += chunk
        if len(buffer) < _LENGTH.size:
            return None
        (head,) = _LENGTH.unpack_from(buffer)
        length = head & ~_ERROR_BIT
        if length > self.most:
            begin = shown(bytes(buffer[:64]))
            raise Nonsense(f"a frame of {length} bytes, more than max_bytes={self.most}; it begins {begin}")
        surplus = len(buffer) - _LENGTH.size - length
        if surplus > 0:
            raise Nonsense(f"more than one frame, {surplus} bytes follow the first")
        if surplus < 0:
            return None
        self.failed = bool(head & _ERROR_BIT)
        return bytes(memoryview(buffer)[_LENGTH.size :])


def frame(data: bytes) -> bytes:
    """A message with its length before it.  Raises ValueError if no frame takes it."""
    if len(data) >= _ERROR_BIT:
        raise ValueError(f"a frame takes less than 2 GiB, not {len(data)} bytes; pass the name of a file")
    return _LENGTH.pack(len(data)) + data


class Talk:
    """A conversation with a program that is kept warm."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._poll = select.poll()
        self._poll.register(program.stdout, select.POLLIN)
        self._poll.register(program.pidfd, select.POLLIN)

    def ask(self, message: bytes, reader: Reader, seconds: float | None) -> bytes:
        """Send one message, return the answer to it.

        Raises:
            ServiceFailed: it died, took more than `seconds`, or answered nonsense; it is ended.
        """
        program, deadline = self.program, None if seconds is None else monotonic() + seconds
        try:
            unasked = _read(program.stdout) if self._poll.poll(0) else None
            if unasked:
                raise Nonsense(f"{shown(unasked)} before it was asked")
            answer = self._exchange(message, reader, deadline)
        except Nonsense as error:
            raise program.failure(f"answered nonsense: {error}", dying=0.0) from None
        except Late:
            raise program.failure(
                f"has not answered within {seconds:g} s (task_timeout)", dying=0.0
            ) from None
        if answer is None:
            raise program.failure()
        return answer

    def _exchange(self, message: bytes, reader: Reader, deadline: float | None) -> bytes | None:
        """None if it has closed its end."""
        stdin, stdout = self.program.stdin, self.program.stdout
        answer: bytes | None = None
        rest = _write(stdin, memoryview(message))
        if rest:
            self._poll.register(stdin, select.POLLOUT)
        while answer is None or rest:
            ready = {fd for fd, _ in self._poll.poll(_milliseconds(deadline))}
            if not ready:
                raise Late
            if stdin in ready and rest:
                rest = _write(stdin, rest)
                if not rest:
                    self._poll.unregister(stdin)
            chunk = _read(stdout)  # what it wrote before it died counts
            if chunk == b"":
                return answer
            if chunk:
                answer = reader.feed(chunk) if answer is None else _surplus(chunk)
            elif self.program.pidfd in ready:
                return answer
        return answer


def run_once(program: Program, data: bytes, seconds: float | None, most: int) -> bytes:
    """Give a program all of its input, return all of its output; it has ended then.

    Raises:
        ServiceFailed: it did not exit with code 0, not within `seconds`, or wrote more than `most` bytes.
    """
    deadline = None if seconds is None else monotonic() + seconds
    try:
        output = _serve_all(program, data, deadline, most)
        ended = program.ended
        if ended is None or ended.signal or ended.exit_code:
            raise program.failure()
        program.end()
        return output
    except Late:
        raise program.failure(f"has not ended within {seconds:g} s", dying=0.0) from None
    except Nonsense as error:
        raise program.failure(str(error), dying=0.0) from None
    except BaseException:
        program.end()
        raise


def _serve_all(program: Program, data: bytes, deadline: float | None, most: int) -> bytes:
    output = bytearray()
    rest = memoryview(data)
    poll = select.poll()
    for fd in (program.stdout, program.murmur.fd, program.pidfd):
        poll.register(fd, select.POLLIN)
    if rest:
        poll.register(program.stdin, select.POLLOUT)
    else:
        program.close_stdin()
    while True:
        ready = {fd for fd, _ in poll.poll(_milliseconds(deadline))}
        if not ready:
            raise Late
        if program.murmur.fd in ready and not program.murmur.drain():
            poll.unregister(program.murmur.fd)
        if program.stdin in ready:
            rest = _write(program.stdin, rest)
            if not rest:
                poll.unregister(program.stdin)
                program.close_stdin()
        if program.pidfd in ready:
            program.wait(None)  # until nothing else holds its pipes, either
        if program.stdout in ready or program.ended is not None:
            while chunk := _read(program.stdout):
                output += chunk
                if len(output) > most:
                    raise Nonsense(f"wrote more than max_bytes={most} bytes")
            if program.ended is not None:
                return bytes(output)
            if chunk == b"":
                poll.unregister(program.stdout)


def _surplus(chunk: bytes) -> bytes:
    raise Nonsense(f"{shown(chunk)} after its answer")


def _write(fd: int, rest: memoryview) -> memoryview:
    """What did not fit; nothing is left for a program that reads no more."""
    try:
        return rest[os.write(fd, rest) :]
    except BlockingIOError:
        return rest
    except BrokenPipeError:
        return _NOTHING


def _read(fd: int) -> bytes | None:
    """None if there is nothing now, b"" at the end."""
    try:
        return os.read(fd, _CHUNK)
    except BlockingIOError:
        return None


def _seconds(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - monotonic())


def _milliseconds(deadline: float | None) -> float | None:
    """Rounded up: poll takes whole ones, and must not spin at the end."""
    return None if deadline is None else max(0.0, deadline - monotonic()) * 1000 + 1
