"""The registry of applications: what is known by a name, and which sessions are of it.

It lives as long as the router.  An application is changed, or forgotten, only
while no session of it is open: what a session is served by never changes under
its hands.  Functions over the broker's state; same rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec import structs

from flamezmq.core.control import DONE, MOST_CHARACTERS, NOT_DONE, NOT_FOUND
from flamezmq.core.members import Effects
from flamezmq.wire import messages as m

if TYPE_CHECKING:
    from flamezmq.core.broker import Broker

#: So many may be registered at a time.
MOST_APPLICATIONS = 1_000
#: Bytes of all their pickles together.
MOST_BYTES = 1 << 30
#: Rows of an answer.
MOST_ROWS = 256
#: Names, or ids, in a sentence or a row.
MOST_NAMES = 16


@dataclass(slots=True, eq=False)
class Registered:
    """An application that is known.

    number  rises with each one that is registered or updated
    by      who has done it
    at      when
    enters  seconds that an executor takes to enter its service, learned; below 0 while unknown
    """

    number: int
    application: m.Application
    by: str
    at: float
    enters: float = -1.0


class Registry:
    """All that are known, by their names, the latest last."""

    def __init__(self) -> None:
        self.known: dict[str, Registered] = {}
        self._last = 0

    def put(self, application: m.Application, by: str, now: float) -> None:
        self._last += 1
        self.known.pop(application.name, None)
        self.known[application.name] = Registered(self._last, application, by, now)

    def lacks_room(self, application: m.Application) -> str:
        """Why it can't be known, too; "" if it can."""
        others = [one.application for name, one in self.known.items() if name != application.name]
        if len(others) >= MOST_APPLICATIONS:
            return f"{MOST_APPLICATIONS:,} applications are registered, and there is no room for more"
        if sum(len(one.service) for one in others) + len(application.service) > MOST_BYTES:
            return f"the pickles of all applications together would have more than {MOST_BYTES >> 20:,} MiB"
        return ""


def of_session(broker: Broker, spec: m.SessionSpec) -> tuple[Registered | None, m.SessionSpec, str]:
    """The application that a session asks for, its spec with what that gives, or why it can't be opened."""
    if not spec.application:
        return None, spec, ""
    found = broker.registry.known.get(spec.application)
    if found is None:
        text = f"this router knows no application {spec.application[:MOST_CHARACTERS]!r}; {_those(broker)}"
        return None, spec, text
    spec = structs.replace(
        spec,
        max_executors=spec.max_executors or found.application.max_executors,
        delay_release=spec.delay_release or found.application.delay_release,
    )
    return found, spec, ""


def _those(broker: Broker) -> str:
    known = _listed(list(broker.registry.known))
    return f"registered are {known}" if known else "none is registered"


def handlers(broker: Broker) -> dict[type, Any]:
    """What is done with the messages about applications."""
    return {
        m.RegisterApplication: partial(on_register, broker),
        m.UpdateApplication: partial(on_update, broker),
        m.UnregisterApplication: partial(on_unregister, broker),
        m.AskApplications: partial(on_ask, broker),
    }


def on_register(
    broker: Broker, peer: int, message: m.RegisterApplication, _frames: list[Any], now: float, out: Effects
) -> None:
    broker.client(peer)
    application, registry = message.application, broker.registry
    older = registry.known.get(application.name)
    if older is not None and older.application == application:
        _answer(peer, message.request, DONE, f"application {application.name} is registered", out)
    elif older is not None:
        text = (
            f"another application {application.name} was registered by {older.by}, "
            f"{now - older.at:,.0f} s ago; update it, or unregister it first"
        )
        _answer(peer, message.request, NOT_DONE, text, out)
    else:
        _put(broker, peer, message, "is registered", now, out)


def on_update(
    broker: Broker, peer: int, message: m.UpdateApplication, _frames: list[Any], now: float, out: Effects
) -> None:
    broker.client(peer)
    if _may_change(broker, peer, message.request, message.application.name, "updated", out):
        _put(broker, peer, message, "is updated", now, out)


def on_unregister(
    broker: Broker, peer: int, message: m.UnregisterApplication, _frames: list[Any], now: float, out: Effects
) -> None:
    broker.client(peer)
    if _may_change(broker, peer, message.request, message.name, "unregistered", out):
        del broker.registry.known[message.name]
        broker.events.append(("application-unregistered", {"application": message.name}))
        _answer(peer, message.request, DONE, f"application {message.name} is unregistered", out)


def on_ask(
    broker: Broker, peer: int, message: m.AskApplications, _frames: list[Any], now: float, out: Effects
) -> None:
    broker.client(peer)
    found = [
        one
        for one in broker.registry.known.values()
        if one.number > message.after and message.name in ("", one.application.name)
    ]
    rows = [_row(broker, one, now) for one in found[:MOST_ROWS]]
    out.append((peer, m.Applications(message.request, rows, len(found) - len(rows)), []))


def _put(
    broker: Broker,
    peer: int,
    message: m.RegisterApplication | m.UpdateApplication,
    done: str,
    now: float,
    out: Effects,
) -> None:
    application, by = message.application, message.by[:MOST_CHARACTERS]
    why_not = broker.registry.lacks_room(application)
    if why_not:
        _answer(peer, message.request, NOT_DONE, why_not, out)
        return
    broker.registry.put(application, by, now)
    event = "application-" + done.removeprefix("is ")
    broker.events.append((event, {"application": application.name, "shim": application.shim, "by": by}))
    _answer(peer, message.request, DONE, f"application {application.name} {done}", out)


def _may_change(broker: Broker, peer: int, request: int, name: str, what: str, out: Effects) -> bool:
    """Whether it is known, and nobody uses it; if not, who asks is told."""
    shown = name[:MOST_CHARACTERS]
    if name not in broker.registry.known:
        _answer(peer, request, NOT_FOUND, f"there is no application {shown!r}; {_those(broker)}", out)
        return False
    sessions = _open_sessions(broker, name)
    if sessions:
        text = f"application {shown} can't be {what} while sessions of it are open: {_listed(sessions)}"
        _answer(peer, request, NOT_DONE, text, out)
    return not sessions


def _open_sessions(broker: Broker, name: str) -> list[str]:
    return [s.id for s in broker.sessions.values() if s.spec.application == name and not s.closed]


def _row(broker: Broker, one: Registered, now: float) -> m.ApplicationRow:
    sessions = _open_sessions(broker, one.application.name)
    shown = structs.replace(one.application, service=b"")
    size = len(one.application.service)
    return m.ApplicationRow(
        one.number, shown, size, one.by, now - one.at, sessions[:MOST_NAMES], len(sessions)
    )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def _answer(peer: int, request: int, outcome: int, text: str, out: Effects) -> None:
    out.append((peer, m.Done(request, outcome, text), []))
