"""What a service tells systemd: that it is ready, alive, or about to stop (sd_notify(3)).

One datagram per word, to the socket that systemd names in the environment.
Without one, nothing is said.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping


class Notifier:
    """Takes NOTIFY_SOCKET and WATCHDOG_* out of `environment`: they are not for what we start.

    interval  seconds between two signs of life, half of what systemd wants; 0.0 if it wants none
    """

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        self._address = environment.pop("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]
        limit = environment.pop("WATCHDOG_USEC", "")
        whose = environment.pop("WATCHDOG_PID", "") or str(os.getpid())
        ours = limit.isdigit() and whose == str(os.getpid())
        self.interval = int(limit) / 2e6 if ours else 0.0
        self._due = 0.0

    def ready(self, status: str) -> None:
        self._say(f"READY=1\nSTATUS={status}")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._say(f"STATUS={text}")

    def stopping(self, status: str) -> None:
        self._say(f"STOPPING=1\nSTATUS={status}")

    def alive(self, now: float) -> None:
        """A sign of life, if one is due.  To be called at least each `interval`."""
        if self.interval and now >= self._due:
            self._due = now + self.interval
            self._say("WATCHDOG=1")

    def next_sign(self) -> float | None:
        """When `alive` is to be called next, at the latest; None: never."""
        return self._due if self.interval else None

    def _say(self, text: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            try:
                end.setblocking(False)
                end.sendto(text.encode(), self._address)
            except OSError:
                pass  # systemd is being restarted, or is too busy: it will ask again
