"""The stdio shim: any program, asked through its stdin and stdout.

Kept warm, a program gets one message per task and answers each with one, in
order: a line, or a frame (4 bytes, the length as a big-endian number, then so
many bytes).  In one-shot mode it is started for each task, the input is all of
its stdin, and what it writes to stdout is the result.

An answer that fails its task, while the program goes on: a JSON object whose
only key is "error", with a text; in frames, a length with its highest bit set,
the payload is the text.

A program that has died while nobody asked it is replaced at the next task.
Whatever goes wrong within a task (an interrupt as well), the program is ended:
an answer that comes later must not be taken for that of another task.
"""

from __future__ import annotations

import os
from typing import Any

from flamezmq import processes
from flamezmq.errors import BadPayload, ServiceError
from flamezmq.shims.base import Shim
from flamezmq.shims.options import ShimOptions, check, check_command
from flamezmq.shims.payloads import NotJson, Payloads, the_input
from flamezmq.shims.pipes import FrameReader, LineReader, Talk, frame, run_once
from flamezmq.shims.program import Keeper, Program
from flamezmq.shims.roles import Application, Context

#: framing: "lines" or "frames".
#: one_shot: a program for each task.
#: payload: "json", "text" or "bytes"; lines default to json, the others to bytes.
#: common_data: the program takes it, as the first message after each bind, which it answers as a task;
#: in one-shot mode it is the file that FLAMEZMQ_COMMON_DATA names.
#: task_timeout: seconds; then the program is killed.
#: max_bytes: the largest answer.
OPTIONS = {
    "framing": "lines",
    "one_shot": False,
    "payload": None,
    "common_data": False,
    "task_timeout": None,
    "max_bytes": 1 << 28,  # less than a text says that is read as a frame's length
}


class Stdio(Shim):
    """See the head of this file."""

    def __init__(self, application: Application) -> None:
        super().__init__(application)
        check_command(application)
        options = ShimOptions(application, OPTIONS)
        self.name = application.name
        self.one_shot = options.flag("one_shot")
        self.lines = options.choice("framing", ("lines", "frames")) == "lines"
        if application.options.get("payload") is not None:
            form = options.choice("payload", ("json", "text", "bytes"))
        else:
            form = "json" if self.lines and not self.one_shot else "bytes"
        if form == "bytes" and self.lines and not self.one_shot:
            raise ValueError(
                "the option payload is 'bytes'; they may hold newlines, so they need framing='frames'"
            )
        self.payloads = Payloads(application, form)
        self.takes_common_data = options.flag("common_data")
        self.task_timeout = options.seconds("task_timeout")
        self.patience = application.grace / 4  # to end by itself, and again after SIGTERM
        self.most = options.count("max_bytes")
        self._keeper = Keeper(application)
        self._talk: Talk | None = None
        self._greeted = False  # the program has got the common data of the session
        self._common_data = b""  # as it travels

    @classmethod
    def check(cls, application: Application) -> None:
        check(cls, application)

    def check_common_data(self, value: Any) -> None:
        self._dump_common_data(value)

    def _dump_common_data(self, value: Any) -> bytes:
        if not self.takes_common_data:
            reason = "the program takes none; set the option common_data if it does"
            raise self.payloads.bad("common_data", reason)
        return self.payloads.dump("common_data", value)

    def enter(self, ctx: Context) -> None:
        self._common_data = b""
        if ctx.common_data is not None or self.takes_common_data:
            self._common_data = self._dump_common_data(ctx.common_data)
        self._greeted = False
        if not self.one_shot:
            self._warm(ctx)

    def invoke(self, ctx: Context, /, *args: Any, **kwargs: Any) -> Any:
        data = self.payloads.dump("input", the_input(args, kwargs))
        if self.one_shot:
            program = self._start(ctx)
            return self._loaded(run_once(program, data, self.task_timeout, self.most), program)
        talk = self._warm(ctx)
        return self._asked(talk, data)

    def leave(self, ctx: Context) -> None:
        if self._talk is not None:
            self._talk.program.murmur.drain()

    def stop(self) -> None:
        talk, self._talk = self._talk, None
        try:
            if talk is not None:
                talk.program.close_stdin()
                talk.program.wait(self.patience)
                talk.program.end(self.patience)
        finally:
            self._keeper.close()

    # --- a warm program

    def _warm(self, ctx: Context) -> Talk:
        """The program, alive, and with the common data of this session."""
        talk = self._talk
        if talk is not None and not talk.program.alive():
            self._talk = None
            why = talk.program.failure()
            ctx.log.warning("flamezmq: %s", why)
            talk = None
        if talk is None:
            program = self._start(ctx)
            program.murmur.follow()
            talk = self._talk = Talk(program)
            self._greeted = False
        talk.program.murmur.log = ctx.log
        if not self._greeted and self.takes_common_data:
            self._asked(talk, self._common_data)
        self._greeted = True
        return talk

    def _asked(self, talk: Talk, data: bytes) -> Any:
        program = talk.program
        try:
            if self.lines:
                answer = talk.ask(self._line(data), LineReader(self.most), self.task_timeout)
                failed = False
            else:
                reader = FrameReader(self.most)
                answer = talk.ask(frame(data), reader, self.task_timeout)
                failed = reader.failed
            program.murmur.drain()
            if failed:
                raise ServiceError(self.name, answer.decode("utf-8", "backslashreplace"))
            return self._loaded(answer, program, may_fail=self.lines)
        except (ServiceError, BadPayload):
            raise  # it has answered, or was not asked: it is in step
        except BaseException:
            if self._talk is talk:
                self._talk = None
            program.end()
            raise

    def _line(self, data: bytes) -> bytes:
        if b"\n" in data:  # JSON has none
            raise self.payloads.bad("input", "a text that goes as a line has no newline in it")
        return data + b"\n"

    def _loaded(self, answer: bytes, program: Program, may_fail: bool = False) -> Any:
        try:
            value = self.payloads.load(answer)
        except NotJson as error:
            raise program.failure(f"answered nonsense: {error}", dying=0.0) from None
        if may_fail and type(value) is dict and len(value) == 1 and type(value.get("error")) is str:
            raise ServiceError(self.name, value["error"])
        self.payloads.check("output", value)
        return value

    # --- starting

    def _start(self, ctx: Context) -> Program:
        if not self.one_shot:
            return self._keeper.start(ctx, {}, stdin=True, stdout=True)
        environment = {
            "FLAMEZMQ_SESSION_ID": ctx.session_id,
            "FLAMEZMQ_TASK_ID": ctx.task_id,
            "FLAMEZMQ_ATTEMPT": str(ctx.attempt),
        }
        if not self.takes_common_data:
            return self._keeper.start(ctx, environment, stdin=True, stdout=True)
        environment["FLAMEZMQ_COMMON_DATA"] = f"/dev/fd/{processes.FIRST_FD}"
        fd = os.memfd_create("flamezmq-common-data")
        try:
            with open(fd, "wb", closefd=False) as file:
                file.write(self._common_data)
            return self._keeper.start(ctx, environment, stdin=True, stdout=True, more=(fd,))
        finally:
            os.close(fd)
