"""Knocking: does anybody listen at this address?

ZeroMQ dials for ever and does not say why nobody answers.  That a host refuses a
connection is certain: the process that listened there has ended, for a store that
comes anew has another port.  A host that says nothing may only be slow.
"""

from __future__ import annotations

import errno
import select
import socket


class Knock:
    """One attempt to connect to a "tcp://host:port"; never blocks."""

    def __init__(self, address: str) -> None:
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._error = self._socket.connect_ex((host.strip("[]"), int(port)))

    def refused(self) -> bool | None:
        """Whether nobody listens; None: there is no answer yet.  May be asked again after an answer."""
        if self._error == errno.EINPROGRESS:
            answered = select.poll()
            answered.register(self._socket, select.POLLOUT)
            if not answered.poll(0):
                return None
            self._error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self.close()
        return self._error == errno.ECONNREFUSED

    def close(self) -> None:
        """Give up."""
        self._socket.close()
