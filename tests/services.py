"""What tests of services share: one that writes down how it is called, and making it known."""

from __future__ import annotations

import os
from typing import Any

import flamezmq as flm


class Diary:
    """Each hook writes a line: its name, the session's id, the process.  `diary.txt` in the common data."""

    def __init__(self) -> None:
        self.tasks = 0

    def note(self, ctx: flm.Context, what: str) -> None:
        with open(ctx.common_data["diary"], "a") as file:
            file.write(f"{what} {ctx.session_id} {os.getpid()}\n")

    def on_session_enter(self, ctx: flm.Context) -> None:
        self.note(ctx, "enter")

    def on_task_invoke(self, ctx: flm.Context, x: Any) -> Any:
        self.tasks += 1
        return x, os.getpid(), self.tasks

    def on_session_leave(self, ctx: flm.Context) -> None:
        self.note(ctx, "leave")


def service_session(client: flm.Client, name: str = "s", **terms: Any) -> Any:
    return client.session(name, **terms)


def register(client: flm.Client, service: type = Diary, name: str = "diary", **more: Any) -> None:
    client.register(flm.Application(name=name, service=service, **more))
