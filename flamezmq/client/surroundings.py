"""The user's process as the cluster sees it: where its code is at home, and its terminal."""

from __future__ import annotations

import os
import socket
import sys

from flamezmq import processes
from flamezmq.wire import messages as m


def environment() -> m.Environment:
    """Where executors of this machine find what the user's functions import, and the files they open."""
    here = processes.current_folder()
    search_path = tuple(os.path.abspath(os.path.join(here, entry)) for entry in sys.path)
    return m.Environment(socket.gethostname(), here, search_path)


def who(program: str = "") -> str:
    """Who we are, for the people whose sessions and tasks it is about."""
    import getpass

    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        user = str(os.getuid())
    name = program or os.path.basename(sys.argv[0]) or "python"
    return f"{name} (pid {os.getpid()}, {user}@{socket.gethostname()})"


def say(text: str) -> None:
    """A line on the user's stderr, if there is one."""
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        pass


def show(message: m.Output) -> None:
    """What a task printed, on the user's own streams."""
    stream = sys.stderr if message.stream == 2 else sys.stdout
    lines = message.text.splitlines()
    if message.dropped:
        lines.append(f"... {message.dropped} bytes more than can be shown")
    # At once: what the program prints meanwhile, in another thread, does not come between.
    stream.write("".join(f"({message.executor}) {line}\n" for line in lines))
    stream.flush()


def show_plainly(message: m.Output) -> None:
    """The same without the executors' names, as if this process had printed it."""
    stream = sys.stderr if message.stream == 2 else sys.stdout
    stream.write(message.text)
    if message.dropped:
        print(f"... {message.dropped} bytes more than can be shown", file=stream)
    stream.flush()
