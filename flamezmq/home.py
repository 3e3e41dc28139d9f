"""Where a user's code is at home: the folder and the search path that its executor takes over."""

from __future__ import annotations

import os
import socket
import sys

from flamezmq.capacity import VISIBLE_DEVICES
from flamezmq.processes import current_folder
from flamezmq.wire import messages as m


class Home:
    """What the process was born with, and which session's surroundings it has now.

    devices  names of the GPUs that it may see, if it was told
    """

    def __init__(self) -> None:
        self.environment: m.Environment | None = None
        self.devices: tuple[str, ...] = ()
        self._born_with = (current_folder(), list(sys.path))

    def see(self, devices: tuple[str, ...]) -> None:
        """Let libraries that are loaded from now on, and programs, see these GPUs only."""
        self.devices = devices
        os.environ[VISIBLE_DEVICES] = ",".join(devices)

    def enter(self, environment: m.Environment) -> None:
        """Be where the user's code is at home, if that is this machine."""
        if environment == self.environment:
            return
        self.environment = environment
        cwd, path = self._born_with
        if environment.host == socket.gethostname():
            known = set(environment.sys_path)
            sys.path[:] = [*environment.sys_path, *(p for p in path if p not in known)]
            cwd = environment.cwd
        try:
            os.chdir(cwd)
        except (OSError, ValueError):  # it is gone, or is no path
            os.chdir("/")  # it was deleted, or we may not go there
