"""Values on their way to a program and back: JSON, text or bytes, checked against the application's schema.

JSON is strict: what it has no word for (NaN, bytes, sets) is refused, not bent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from flamezmq.errors import BadPayload, ShimMissing

if TYPE_CHECKING:
    from flamezmq.shims.roles import Application

#: Keys of an application's schema, and what they are called in errors.
PARTS = {"input": "the input", "output": "the output", "common_data": "the common data"}
#: What of a wrong payload is shown.
_SHOWN = 80

_to_json = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode


def the_input(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """A task's arguments as the one value that travels to a program.

    None is None, one is itself, several are a list, keywords alone are a dict.

    Raises:
        TypeError: there are both.
    """
    if kwargs:
        if args:
            raise TypeError(
                "a program gets one value: positional arguments or keywords, not both; pass one dict"
            )
        return dict(kwargs)
    return args[0] if len(args) == 1 else list(args) if args else None


class NotJson(ValueError):
    """A program has answered something else; the text shows it."""


def from_json(data: bytes) -> Any:
    """Raises NotJson."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise NotJson(f"{shown(data)} is not JSON") from None


def shown(data: bytes) -> str:
    """The beginning of a payload, for an error."""
    return repr(data[:_SHOWN])[1:] + ("..." if len(data) > _SHOWN else "")


class Payloads:
    """How one application's values travel.

    form: "json"; "text", a str as UTF-8; "bytes", as they are.
    """

    def __init__(self, application: Application, form: str) -> None:
        self.application, self.form = application.name, form
        self._checks = _checks(application)

    def check(self, part: str, value: Any) -> None:
        """Raises BadPayload if the schema of this part ("input", "output", "common_data") forbids it."""
        check = self._checks.get(part)
        if check is not None:
            check(value)

    def dump(self, part: str, value: Any) -> bytes:
        """The checked value as bytes.

        Raises:
            BadPayload: the schema, or the form, does not allow it.
        """
        self.check(part, value)
        if self.form == "json":
            try:
                return _to_json(value).encode()
            except (TypeError, ValueError, RecursionError) as error:
                raise self.bad(part, f"JSON has no place for it: {error}") from None
        if isinstance(value, str):
            return value.encode("utf-8", "surrogateescape")
        if value is None:
            return b""
        if self.form == "bytes" and isinstance(value, bytes | bytearray | memoryview):
            return bytes(value)
        kind = "str" if self.form == "text" else "bytes or str"
        raise self.bad(part, f"a {kind} is expected, not {type(value).__name__} (payload={self.form!r})")

    def load(self, data: bytes) -> Any:
        """A program's answer, not checked yet.  Raises NotJson."""
        if self.form == "json":
            return from_json(data)
        return data.decode("utf-8", "surrogateescape") if self.form == "text" else data

    def bad(self, part: str, reason: str, path: str = "$") -> BadPayload:
        return BadPayload(self.application, PARTS[part], path, reason)


def check_schema(schema: Mapping[str, Any] | None, application: str) -> None:
    """Is it one that an application can have?

    Raises:
        ValueError: an unknown key, or what is no JSON Schema, in words.
        ShimMissing: there is a schema, and jsonschema is not installed here.
    """
    unknown = sorted(set(schema or ()) - set(PARTS))
    if unknown:
        raise ValueError(
            f"the schema of application {application!r} has the key {unknown[0]!r}; "
            f"there are {', '.join(PARTS)}"
        )
    for part, rules in (schema or {}).items():
        _validator(rules, part, application)


def _checks(application: Application) -> dict[str, Callable[[Any], None]]:
    check_schema(application.schema, application.name)
    return {
        part: _check(_validator(rules, part, application.name), part, application.name)
        for part, rules in (application.schema or {}).items()
    }


def _validator(rules: Any, part: str, application: str) -> Any:
    try:
        from jsonschema import SchemaError
        from jsonschema.validators import validator_for
    except ImportError:
        raise ShimMissing("a schema", "jsonschema", "schema") from None
    kind = validator_for(rules)
    try:
        kind.check_schema(rules)
    except SchemaError as error:
        raise ValueError(
            f"{part!r} in the schema of application {application!r} is no JSON Schema: "
            f"{error.message} at {error.json_path}"
        ) from None
    return kind(rules)


def _check(validator: Any, part: str, application: str) -> Callable[[Any], None]:
    from jsonschema.exceptions import best_match

    def check(value: Any) -> None:
        error = best_match(validator.iter_errors(value))
        if error is not None:
            raise BadPayload(application, PARTS[part], error.json_path, error.message)

    return check
