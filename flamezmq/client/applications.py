"""What a client can do about applications: make them known, change them, forget them, look at them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import time
from typing import Any

from flamezmq import shims
from flamezmq.client import surroundings
from flamezmq.client.application import Application
from flamezmq.client.inquiry import exchange
from flamezmq.errors import Refused, ShimMissing
from flamezmq.wire import messages as m


@dataclass(frozen=True, slots=True)
class ApplicationInfo:
    """A registered application, as `Client.applications` shows it.

    Attributes:
        name, shim, description, labels, isolation: as it was registered.
        registered_by: who has registered or updated it last.
        registered_at: when, in seconds since the epoch.
        sessions: ids of open sessions of it, the first few.
        open_sessions: so many there are.
    """

    name: str
    shim: str
    description: str
    labels: dict[str, str]
    isolation: str
    registered_by: str
    registered_at: float
    sessions: tuple[str, ...]
    open_sessions: int


class ApplicationsOfClient:
    """The part of `Client` that is about applications."""

    def register(self, application: Application) -> None:
        """Make an application known to the router, until that ends or forgets it; sessions name it by `app`.

        To register the same again changes nothing.  One round trip.

        Raises:
            Refused: another one of this name is registered.
            Unpicklable: its service can't travel.
            ClientClosed, RouterLost: there is nobody to tell.
        """
        described = _checked(application).described()
        self._order(lambda request: m.RegisterApplication(request, described, surroundings.who()))

    def update(self, application: Application) -> None:
        """Put an application in the place of the registered one of the same name.

        Raises:
            NotFound: there is none.
            Refused: sessions of it are open; the text names them.
            Unpicklable, ClientClosed, RouterLost: as `register`.
        """
        described = _checked(application).described()
        self._order(lambda request: m.UpdateApplication(request, described, surroundings.who()))

    def unregister(self, name: str) -> None:
        """Have the router forget the application of this name.  Raises as `update` does."""
        self._order(lambda request: m.UnregisterApplication(request, name))

    def applications(self) -> list[ApplicationInfo]:
        """Those that are registered, the one that was registered or updated last at the end.

        Raises:
            ClientClosed, RouterLost: there is nobody to ask.
        """
        found: list[ApplicationInfo] = []
        after, more = 0, 1
        while more:
            page = exchange(self, partial(m.AskApplications, after=after))  # type: ignore[arg-type]
            found += map(_info, page.rows)
            after, more = page.rows[-1].number if page.rows else 0, page.more
        return found

    def _check_common_data(self, app: str, value: Any) -> None:
        """Ask what the application is, and whether its shim would refuse the common data.

        Each bind would, and the session would end after some; whoever opens it is told instead.  It is
        left to the executors where the shim can't be made here.

        Raises:
            BadPayload: it would; says what is wrong, and where.
        """
        found = exchange(self, partial(m.AskApplications, name=app)).rows  # type: ignore[arg-type]
        if not found or found[0].application.shim == "python":
            return
        try:
            shim = shims.make(found[0].application)
        except (ValueError, ShimMissing):
            return
        shim.check_common_data(value)

    def _order(self, message: Callable[[int], Any]) -> None:
        done = exchange(self, message)  # type: ignore[arg-type]
        if done.outcome:
            raise Refused(done.text)


def _checked(application: Any) -> Application:
    if not isinstance(application, Application):
        raise TypeError(f"{application!r} is no application; make one by flm.Application(...)")
    return application


def _info(row: m.ApplicationRow) -> ApplicationInfo:
    one = row.application
    about = one.name, one.shim, one.description, one.labels, one.isolation
    return ApplicationInfo(*about, row.by, time() - row.age, tuple(row.sessions), row.open)
