"""`flm.Application`: what users say of an application, checked before it travels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from flamezmq import shims
from flamezmq.wire import messages as m

#: The longest that unbinding a service may take: so long a client waits that closes its session.
MOST_GRACE_SECONDS = 60.0
#: What JSON Schemas may be given for.
SCHEMAS = ("input", "output", "common_data")


@dataclass(frozen=True, kw_only=True)
class Application:
    """A description of what serves the tasks of sessions; `client.register` makes it known.

    Args:
        name: what sessions call it by.
        shim: the way to run it; "python" runs a service in the executor itself.
        service: for "python": a class (see `flm.service`), or "module:Class", which executors import.
        command: the program of other shims.
        arguments: of the command.
        environment: variables that are set while it is bound.
        working_directory: where it runs; None is where the session's client does.
        description: for people.
        labels: for people and their programs.
        image: of the container that it is to run in, where there are containers.
        delay_release: seconds that an idle executor stays with a session, where that does not say.
        max_executors: how many executors may serve a session, where that does not say; None: no limit.
        isolation: "app": a process may serve several sessions of a tenant, one after the other, each by a
            fresh instance; "session": a process serves one session and ends with it.
        schema: JSON Schemas for the payloads of other shims, by "input", "output" and "common_data".
        bind_retries: a session is stopped after so many failed binds in a row.
        grace: seconds that `on_session_leave` may take, until its process is killed.
        options: of the shim.

    Raises:
        ValueError, TypeError: something is missing, or is not what it must be; the text names it.
    """

    name: str
    shim: str = "python"
    service: type | str | None = None
    command: str | None = None
    arguments: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    working_directory: str | None = None
    description: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    image: str = ""
    delay_release: float = 0.0
    max_executors: int | None = None
    isolation: str = "app"
    schema: Mapping[str, Any] = field(default_factory=dict)
    bind_retries: int = 5
    grace: float = 5.0
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        described = self._described()
        _check_schema(self.schema)
        try:
            shims.shim_class(self.shim).check(described)
        except ValueError as error:
            raise ValueError(f"application {self.name}: {error}") from error

    def described(self) -> m.Application:
        """As it travels, with the service pickled as it is now.

        Raises:
            Unpicklable: the service can't travel.
        """
        return self._described(pickled=True)

    def _described(self, pickled: bool = False) -> m.Application:
        if not isinstance(self.name, str) or not self.name or not self.name.isprintable():
            raise ValueError(f"an application's name is a text that can be printed, not {self.name!r}")
        fields = {name: getattr(self, name) for name in m.Application.__struct_fields__}
        fields["max_executors"] = self.max_executors if self.max_executors is not None else 0
        if self.max_executors == 0:
            raise ValueError(f"application {self.name}: `max_executors` is an integer from 1, or None, not 0")
        if self.isolation not in ("app", "session"):
            raise ValueError(
                f"application {self.name}: `isolation` is 'app' or 'session', not {self.isolation!r}"
            )
        if isinstance(self.grace, int | float) and not 0 < self.grace <= MOST_GRACE_SECONDS:
            raise ValueError(f"application {self.name}: `grace` is from above 0 to 60 s, not {self.grace}")
        for name in ("command", "working_directory"):
            fields[name] = fields[name] or ""
        _check_variables(self.name, self.environment)
        for name in ("environment", "labels", "schema", "options"):
            fields[name] = dict(fields[name]) if isinstance(fields[name], Mapping) else fields[name]
        fields["service"] = self._service(pickled)
        try:
            return msgspec.convert(list(fields.values()), m.Application)
        except msgspec.ValidationError as error:
            raise TypeError(f"application {self.name}: {_in_our_words(error)}") from error

    def _service(self, pickled: bool) -> bytes:
        """The pickle, or something that stands for it until it is needed."""
        if self.service is None:
            return b""
        from flamezmq.shims.service import check_service, dump_service

        check_service(self.service)
        return dump_service(self.service) if pickled else b"later"


def _check_variables(name: str, environment: Mapping[str, str]) -> None:
    """What the system can't set is said now, rather than by each bind that fails."""
    for variable, value in environment.items() if isinstance(environment, Mapping) else ():
        if not variable or "=" in str(variable) or "\0" in f"{variable}{value}":
            raise ValueError(
                f"application {name}: `environment` can't have {variable!r}: a variable has a name,"
                " without '=', and no NUL in name or value"
            )


def _in_our_words(error: msgspec.ValidationError) -> str:
    """msgspec says "Expected `int`, got `str` - at `$.bind_retries`"; of an array-like struct it counts."""
    text, _, path = str(error).partition(" - at ")
    found = re.search(r"\$\[(\d+)\]", path)
    name = m.Application.__struct_fields__[int(found[1])] if found else path.strip("`$.")
    text = text.replace("`object`", "a mapping").replace("`array`", "a list")
    where = "a key in " if path.startswith("`key`") else ""
    return f"{where}`{name}`: {text[:1].lower()}{text[1:]}"


def _check_schema(schema: Mapping[str, Any]) -> None:
    """Whether it looks like schemas; what is in them, if the library for it is here."""
    if not isinstance(schema, Mapping):
        raise TypeError(f"`schema` is a mapping from {', '.join(SCHEMAS)} to JSON Schemas, not {schema!r}")
    for what, one in schema.items():
        if what not in SCHEMAS:
            raise ValueError(f"`schema` has {what!r}; there may be {', '.join(SCHEMAS)}")
        if not isinstance(one, Mapping | bool):
            raise TypeError(f"`schema` of {what} is a JSON Schema, a mapping, not {one!r}")
        try:
            from jsonschema import SchemaError, validators  # type: ignore[import-untyped,unused-ignore]
        except ImportError:
            continue  # who has it, an executor that checks payloads, will say so
        try:
            validators.validator_for(one).check_schema(one)
        except SchemaError as error:
            raise ValueError(f"`schema` of {what} is no JSON Schema: {error.message}") from error
