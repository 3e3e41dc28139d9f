"""Applications described in YAML: one mapping in a file, with the fields of `flm.Application` as its keys.

What is wrong is refused with the line on which it stands, and with what was expected there.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from flamezmq.wire import messages as m

if TYPE_CHECKING:
    from flamezmq.client.application import Application

#: How the types of the wire are called here.
_IN_YAML = {
    "object": "a mapping",
    "array": "a list",
    "str": "a text",
    "bool": "true or false",
    "int": "an integer",
    "float": "a number",
    "null": "nothing",
    "date": "a date",
    "datetime": "a time",
}
#: How its bounds are.
_BOUNDS = {">=": "from", "<=": "up to"}
#: What may be left empty, as it may be None in Python.
_OPTIONAL = ("service", "command", "working_directory", "max_executors")


class Mistake(Exception):
    """The file says what nobody understands; the text names the file and the line."""

    def __init__(self, path: str, line: int, text: str) -> None:
        super().__init__(f"{path}, line {line}: {text}")


def read(path: str, text: str) -> Application:
    """The application that a file describes.

    path: for complaints

    Raises:
        Mistake: it describes none.
    """
    import yaml

    from flamezmq.client.application import Application

    try:
        loader = yaml.SafeLoader(text)
    except yaml.reader.ReaderError as error:
        raise Mistake(path, text.count("\n", 0, error.position) + 1, f"no YAML: {error.reason}") from error
    try:
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            line = node.start_mark.line + 1 if node is not None else 1
            raise Mistake(path, line, "an application is a mapping, with lines such as `name: model`")
        fields, lines = _fields(path, loader, node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise Mistake(path, mark.line + 1 if mark else 1, f"no YAML: {error.problem}") from error
    finally:
        loader.dispose()
    if "name" not in fields:
        raise Mistake(path, node.start_mark.line + 1, "there is no `name`, which sessions call it by")
    try:
        return Application(**fields)
    except (ValueError, TypeError) as error:
        raise Mistake(path, _line_of(str(error), lines) or node.start_mark.line + 1, str(error)) from error


def _line_of(text: str, lines: dict[str, int]) -> int:
    """The line of what a complaint names; 0 if it names nothing that the file says."""
    options = [f"options.{name}" for name in re.findall(r"option '?(\w+)", text)]
    return next((lines[key] for key in [*options, *re.findall(r"`(\w+)`", text)] if key in lines), 0)


def _fields(path: str, loader: Any, node: Any) -> tuple[dict[str, Any], dict[str, int]]:
    """What the mapping says, checked one by one; and the line of each, also of "options.framing"."""
    kinds = _kinds()
    fields: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        line = key_node.start_mark.line + 1
        if not isinstance(key, str) or key not in kinds:  # a list, for example, can't be looked up
            raise Mistake(path, line, f"there is no key {key!r}; there are {', '.join(kinds)}")
        if key in fields:
            raise Mistake(path, line, f"`{key}` is said a second time")
        value = loader.construct_object(value_node, deep=True)
        if value is not None or key not in _OPTIONAL:
            _check(path, loader, key, value_node, kinds[key])
        fields[key], lines[key] = value, line
        if key == "options":
            lines |= {f"options.{name.value}": name.start_mark.line + 1 for name, _ in value_node.value}
    return fields, lines


def _kinds() -> dict[str, Any]:
    """Key -> the type of what stands behind it."""
    hints = get_type_hints(m.Application, include_extras=True)
    return {name: hints[name] for name in m.Application.__struct_fields__} | {"service": str}


def _check(path: str, loader: Any, key: str, node: Any, kind: Any) -> None:
    """Whether the value is of the type; if not, on which line it is not."""
    value = loader.construct_object(node, deep=True)
    if get_origin(kind) is Literal and value not in get_args(kind):
        raise Mistake(
            path, node.start_mark.line + 1, f"`{key}`: expected {' or '.join(get_args(kind))}, got {value!r}"
        )
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        for part in node.value if isinstance(node.value, list) else ():
            inner = part[1] if isinstance(part, tuple) else part
            name = loader.construct_object(part[0], deep=True) if isinstance(part, tuple) else ""
            value = loader.construct_object(inner, deep=True)
            try:
                msgspec.convert({name: value} if isinstance(part, tuple) else [value], kind)
            except msgspec.ValidationError as closer:
                where = f"{key}.{name}" if name else key
                raise Mistake(path, inner.start_mark.line + 1, f"`{where}`: {_words(closer)}") from error
        raise Mistake(path, node.start_mark.line + 1, f"`{key}`: {_words(error)}") from error


def _words(error: msgspec.ValidationError) -> str:
    """msgspec says "Expected `int` >= 0, got `str` - at `$[...]`"."""
    text = str(error).partition(" - at ")[0]
    text = re.sub(r"` (>=|<=) ([\d.]+)", lambda found: f"`, {_BOUNDS[found[1]]} {float(found[2]):.0f}", text)
    text = re.sub(r"`(\w+)`", lambda found: _IN_YAML.get(found[1], found[0]), text)
    quotes = (
        "; put it in quotes" if re.match(r"Expected a text, got (?!a list|a mapping|nothing)", text) else ""
    )
    return text[:1].lower() + text[1:] + quotes
