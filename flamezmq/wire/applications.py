"""The messages about applications and services: what is registered, bound to a session, and unbound.

An application is registered once and serves many sessions.  Its service is the
user's code, or names it; the router keeps it and never unpickles it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from flamezmq.wire.ranges import Count, Index, Limit, Seconds

#: A name that people write: not empty, and not endless.
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
#: What a python service may take to be entered, where its option `session_timeout` does not say.
SESSION_TIMEOUT_SECONDS = 600.0


class Application(msgspec.Struct, array_like=True, frozen=True):
    """What is to serve the tasks of a session, and how.

    shim               the way to run it: "python", or another one that executors know
    service            for "python": a pickled class, or what finds it; empty for others
    command            the program of other shims, with its `arguments`
    environment        variables, set while it is bound
    working_directory  where it runs; empty: where the session's client does
    description        for people, as `labels` are
    labels             name -> value
    image              of the container that it is to run in, where there are containers
    delay_release      of its sessions, where they do not say
    max_executors      of its sessions, where they do not say; 0: no limit
    isolation          "app": a process may serve several sessions in turn; "session": one only
    schema             JSON Schemas of its payloads, by "input", "output" and "common_data"
    bind_retries       a session is stopped after so many failed binds in a row
    grace              seconds that unbinding may take, until the process is killed
    options            of its shim, by name
    """

    name: Name
    shim: Name = "python"
    service: bytes = b""
    command: str = ""
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    working_directory: str = ""
    description: str = ""
    labels: dict[str, str] = {}
    image: str = ""
    delay_release: Seconds = 0.0
    max_executors: Limit = 0
    isolation: Literal["app", "session"] = "app"
    schema: dict[str, Any] = {}
    bind_retries: Count = 5
    grace: Seconds = 5.0
    options: dict[str, bool | int | float | str | None] = {}


class Service(msgspec.Struct, array_like=True):
    """What an executor is told with `Bind` that is to bind an application's service.

    application  its name
    revision     rises whenever one is registered or updated
    description  nil where this executor has this revision already
    common_data  the session's, pickled; empty: none
    """

    application: Name
    revision: Index
    description: Application | None
    common_data: bytes = b""


class ApplicationRow(msgspec.Struct, array_like=True):
    """A registered application, as a controller sees it.

    number       the router's; what was registered or updated later has a greater one
    application  without its pickled service
    bytes        of that
    by           who has registered or updated it last
    age          seconds since then
    sessions     ids of those that are open, the first few
    open         so many there are
    """

    number: int
    application: Application
    bytes: int
    by: str
    age: float
    sessions: list[str]
    open: int


class RegisterApplication(msgspec.Struct, tag=10, array_like=True):
    """Client -> router: make it known; answered by `Done`.

    Refused where there is another one of this name.

    by  who wants it, for people
    """

    request: int
    application: Application
    by: str


class UpdateApplication(msgspec.Struct, tag=11, array_like=True):
    """Client -> router: put it in the place of the one of the same name; answered by `Done`.

    Refused while sessions of that are open.

    by  who wants it, for people
    """

    request: int
    application: Application
    by: str


class UnregisterApplication(msgspec.Struct, tag=12, array_like=True):
    """Client -> router: forget it; answered by `Done`.  Refused while sessions of it are open."""

    request: int
    name: str


class AskApplications(msgspec.Struct, tag=13, array_like=True):
    """Client -> router: which are registered?  Answered by `Applications`.

    name   only this one; "" for all
    after  only rows with a greater number
    """

    request: int
    name: str = ""
    after: int = 0


class Applications(msgspec.Struct, tag=35, array_like=True):
    """Answer to `AskApplications`, whose `request` it quotes.

    more  so many others would have fitted the question
    """

    request: int
    rows: list[ApplicationRow]
    more: int = 0


class Unbind(msgspec.Struct, tag=45, array_like=True):
    """Router -> executor: the session's service is to go; answered by `Unbound`.

    The executor holds nothing then, and gets nothing until it has answered.
    """

    session: Index


class Unbound(msgspec.Struct, tag=65, array_like=True):
    """Answer to `Unbind`.

    error  what its last hook has raised; the executor is replaced then
    """

    session: Index
    error: str = ""


class BindFailed(msgspec.Struct, tag=66, array_like=True):
    """Executor -> router: the session's service could not be bound here; the executor is replaced.

    It throws away what it holds of the session, and what is still to come: none of that has begun.

    text       type and text of the error
    traceback  as text
    """

    session: Index
    text: str
    traceback: str


AboutApplications = RegisterApplication | UpdateApplication | UnregisterApplication | AskApplications
AboutServices = Unbound | BindFailed
