"""What the daemons and clients can be told: a file, then the environment, then flags; the last one counts.

Each option is described once, here.  The flags and their help (cli/options.py), the names in the
environment, the checks of the file and the table in docs/daemons.md are made from that.

Clients import it as they start: nothing heavy at the top, not even pathlib.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flamezmq import address, resources
from flamezmq.errors import ConfigError
from flamezmq.resources import parse_offer

#: Where a router listens, and is looked for, unless somebody says otherwise.
DEFAULT_ADDRESS = "tcp://127.0.0.1:7601"
#: Names the file, as `--config` does; empty means that there is none.
FILE_VARIABLE = "FLAMEZMQ_CONFIG"
FILE_NAME = "flamezmq.toml"

_SWITCH = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}
_WHAT = {
    "address": f"an address ({address.FORMS})",
    "place": f"an address ({address.FORMS})",
    "door": f"a host ({address.DOORS})",
    "text": "a text that is not empty",
    "folder": "a folder, from the root on (/var/tmp)",
    "integer": "an integer",
    "number": "a number",
    "switch": "true or false",
    "resources": "names and amounts (gpu=2,license=1)",
    "most": "names and amounts (cpu=16,mem=32g,gpu=2)",
    "size": 'a size like "64m" or "1g", or a number of bytes',
}


@dataclass(frozen=True, slots=True)
class Option:
    """One thing that can be set.

    name     as in the file; the flag and the variable follow from it
    kind     address, place (an address to listen at), door (of a store), text, folder, integer, number,
             switch, resources (of a node), most (of resources), size or choice
    default  None where it depends on the machine
    help     a sentence
    shown    the default in words, where it is None or unreadable
    least    the smallest number that is allowed
    most     the greatest
    choices  of a choice
    also     further variables, looked at after the option's own
    """

    name: str
    kind: str
    default: Any
    help: str
    shown: str = ""
    least: float | None = None
    choices: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    most: float | None = None

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def expected(self) -> str:
        """What a value must be, for people."""
        if self.kind == "choice":
            return "one of " + ", ".join(self.choices)
        least = f" from {self.least:g}" if self.least is not None else ""
        return _WHAT[self.kind] + least + (f" to {self.most:,.0f}" if self.most is not None else "")

    @property
    def default_in_words(self) -> str:
        if self.shown:
            return self.shown
        return str(self.default).lower() if isinstance(self.default, bool) else str(self.default)

    def variables(self, table: str) -> tuple[str, ...]:
        """Where the environment may say it, the first one that does counts."""
        return (f"FLAMEZMQ_{table}_{self.name}".upper(), *self.also)

    def check(self, value: Any) -> Any:
        """The value, as it is used.

        Raises:
            ValueError: it is none; the text says what was expected.
        """
        if self.kind == "size" and isinstance(value, str):
            value = resources.size(value)
        kinds: dict[str, tuple[type, ...]] = {
            "size": (int,),
            "integer": (int,),
            "number": (int, float),
            "switch": (bool,),
        }
        wanted = kinds.get(self.kind, (str,))
        right = isinstance(value, wanted) and (self.kind == "switch" or not isinstance(value, bool))
        if right and self.kind in ("integer", "number", "size"):
            right = self.least is None or value >= self.least  # a NaN is not
            right = right and (self.most is None or value <= self.most)
        elif right and self.kind == "place":
            return address.check(value, listens=True)
        elif right and self.kind == "address":
            return address.check(value)
        elif right and self.kind == "door":
            return address.check_door(value)
        elif right and self.kind == "resources":
            parse_offer(value)
        elif right and self.kind == "most":
            resources.parse(value, zeros=True)
        elif right and self.kind == "choice":
            right = value in self.choices
        elif right and self.kind == "text":
            right = bool(value)
        elif right and self.kind == "folder":
            right = os.path.isabs(value)
        if not right:
            raise ValueError(f"{value!r} is not {self.expected}")
        return float(value) if self.kind == "number" else value

    def parse(self, text: str) -> Any:
        """A value that was written as a text: in the environment, or behind a flag.

        Raises:
            ValueError: as `check`.
        """
        value: Any = text
        try:
            if self.kind == "integer":
                value = int(text)
            elif self.kind == "number":
                value = float(text)
            elif self.kind == "switch":
                value = _SWITCH.get(text.strip().lower(), text)
        except ValueError:
            pass  # said below, in our own words
        return self.check(value)


_LOG = (
    Option(
        "log_format",
        "choice",
        "auto",
        "How log lines look: text for people, JSON for programs; auto is text if stderr is a terminal.",
        choices=("auto", "text", "json"),
    ),
    Option(
        "log_level",
        "choice",
        "info",
        "The least important lines that are written.",
        choices=("debug", "info", "warning", "error"),
    ),
)

_STORE = (
    Option(
        "store_limit",
        "size",
        None,
        "Memory that objects may have on this node; those used least recently go to disk for others.",
        shown="a third of the node's memory, as its cgroup allows it",
        least=1 << 20,
    ),
    Option(
        "store_folder",
        "folder",
        None,
        "A folder of a tmpfs that is to hold them, which may be smaller.",
        shown="memory that no file system limits",
    ),
    Option(
        "spill_folder",
        "folder",
        None,
        "A folder on disk for objects that memory has no room for.",
        shown="/var/tmp",
    ),
    Option(
        "spill_limit",
        "size",
        None,
        "What they may have there; 0: none goes to disk.",
        shown="half of what is free there when the first object comes",
        least=0,
    ),
    Option(
        "store_wait_seconds",
        "number",
        10.0,
        "How long `put` waits for room when memory and disk are full.",
        least=0,
    ),
)

#: table -> its options, in the order of the help.
TABLES: dict[str, tuple[Option, ...]] = {
    "router": (
        Option("bind", "place", DEFAULT_ADDRESS, "Where to listen: tcp://HOST:PORT or ipc://PATH."),
        Option(
            "insecure",
            "switch",
            False,
            "Listen where other machines can reach it, although whoever does may run code on the workers.",
        ),
        Option(
            "drain_seconds",
            "number",
            10.0,
            "When told to stop: how long running tasks may take to end.",
            least=0,
        ),
        Option("max_tasks", "integer", 1 << 17, "Unfinished tasks that each client may have here.", least=1),
        Option(
            "max_bytes",
            "integer",
            256 << 20,
            "Bytes of large payloads that each client may have here.",
            least=1 << 20,
        ),
        Option(
            "max_kept_bytes",
            "integer",
            256 << 20,
            "Bytes of results that each detached session may keep here.",
            least=1 << 20,
        ),
        *_LOG,
    ),
    "worker": (
        Option("router", "address", DEFAULT_ADDRESS, "The router to work for.", also=("FLAMEZMQ_ADDRESS",)),
        Option(
            "node",
            "text",
            None,
            "This node's name; of two with the same name the later one stays.",
            shown="the host's name, with a number if it is taken on this host",
        ),
        Option(
            "executors",
            "integer",
            None,
            "How many processes run tasks.",
            shown="one per usable core",
            least=1,
        ),
        Option(
            "resources",
            "resources",
            None,
            "What this node has for sessions that ask for it: GPUs, and whatever your cluster has names for; "
            "`cpu` and `mem` in the place of what is measured.",
            shown="the cores, memory and GPUs that it sees",
        ),
        Option(
            "store_address",
            "door",
            None,
            "Where other nodes, and clients elsewhere, reach this node's objects; none: nobody does, so "
            "large arguments and results travel with their tasks.",
            shown="its address on the way to the router, any free port",
        ),
        Option(
            "drain_seconds",
            "number",
            10.0,
            "When told to stop: how long running tasks may take to end.",
            least=0,
        ),
        *_STORE,
        *_LOG,
    ),
    "client": (
        Option(
            "address",
            "address",
            None,
            "The router to use.",
            shown="a private cluster of this machine",
            also=("FLAMEZMQ_ADDRESS",),
        ),
        Option(
            "connect_timeout",
            "number",
            15.0,
            "Seconds to wait for a router that does not answer yet.",
            least=0,
        ),
    ),
}

#: Of each table [tenants.NAME].
TENANT = (
    Option(
        "queued_tasks",
        "integer",
        None,
        "Tasks of all its sessions together that may wait with the router.",
        shown="as many as come",
        least=1,
    ),
    Option(
        "queued_bytes",
        "size",
        None,
        "Bytes of their arguments.",
        shown="as many as come",
        least=1,
    ),
    Option(
        "weight",
        "number",
        1.0,
        "Of its share, among the tenants that have any work: twice the weight has twice the share.",
        shown="1",
        least=0.001,
        most=1e6,
    ),
    Option(
        "max_executors",
        "integer",
        None,
        "Executors that may serve its sessions at a time.",
        shown="as many as there are",
        least=1,
    ),
    Option(
        "resources",
        "most",
        None,
        "The most that these executors may have of their nodes together; 0: nothing of that.",
        shown="as much as there is",
    ),
)
_TENANTS = "tenants"


def option(table: str, name: str) -> Option:
    return next(one for one in TABLES[table] if one.name == name)


# --- the file


def places() -> Iterator[str]:
    """Where the file is looked for; the first one that exists is used, alone."""
    yield FILE_NAME
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    yield os.path.join(home, "flamezmq", FILE_NAME)
    yield os.path.join("/etc/flamezmq", FILE_NAME)


def find(given: str | None = None) -> str | None:
    """The file to use: `given`, or the one in FLAMEZMQ_CONFIG, or the first of `places`."""
    named = os.environ.get(FILE_VARIABLE) if given is None else given
    if named is not None:
        return named or None
    return next((place for place in places() if os.path.isfile(place)), None)


def load(path: str) -> dict[str, dict[str, Any]]:
    """The tables of a file, each value checked.

    Raises:
        ConfigError: it can't be read, or says what nobody understands: names the file, the line, the
            key and what was expected.
    """
    import tomllib

    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        tables = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from error
    except ValueError as error:  # no TOML, or no UTF-8
        raise ConfigError(f"{path}: {error}") from error
    for table, values in tables.items():
        if table not in TABLES and table != _TENANTS:
            raise _unknown(path, text, "", table, [*TABLES, _TENANTS])
        if not isinstance(values, dict):
            raise ConfigError(f"{_at(path, text, '', table)}: {table} is a table: write [{table}]")
        if table != _TENANTS:
            _check(path, text, table, values, TABLES[table])
            continue
        for tenant, its in values.items():
            if not isinstance(its, dict):
                where = _at(path, text, table, tenant)
                raise ConfigError(f"{where}: a tenant is a table: write [{table}.{tenant}]")
            _check(path, text, f"{table}.{tenant}", its, TENANT)
    return tables


def _check(path: str, text: str, table: str, values: dict[str, Any], options: tuple[Option, ...]) -> None:
    """Check the values of one table, and put what they stand for in their place."""
    names = {one.name: one for one in options}
    for name, value in values.items():
        if name not in names:
            raise _unknown(path, text, table, name, names)
        try:
            values[name] = names[name].check(value)
        except ValueError as error:
            where = _at(path, text, table, name)
            raise ConfigError(f"{where}: {name} in [{table}]: {error}") from error


def _unknown(path: str, text: str, table: str, name: str, known: Iterable[str]) -> ConfigError:
    import difflib

    close = difflib.get_close_matches(name, known, 1)
    what = f"key {name!r} in [{table}]" if table else f"table [{name}]"
    hint = f"did you mean {close[0]!r}?" if close else "there are " + ", ".join(known)
    return ConfigError(f"{_at(path, text, table, name)}: unknown {what}; {hint}")


def _at(path: str, text: str, table: str, name: str) -> str:
    """path:line, as far as a look at the text tells."""
    here = ""
    for number, line in enumerate(text.splitlines(), 1):
        head = re.match(r"\s*\[([^\[\]]+)\]", line)
        here = re.sub(r"\s*\.\s*|[\"']", lambda m: m[0].strip(" \t\"'"), head[1].strip()) if head else here
        key = re.match(r"\s*\"?([\w-]+)\"?\s*[=.]", line)
        if (key and key[1] == name and here == table) or (not table and head and here.split(".")[0] == name):
            return f"{path}:{number}"
    return path


# --- all together


def settings(table: str, given: Mapping[str, Any] | None = None, file: str | None = None) -> dict[str, Any]:
    """Every option of a table: what flags have given (None: nothing), else environment, file, default.

    Args:
        table: "router", "worker" or "client".
        given: values that are checked already.
        file: the file to read instead of the one that `find` finds.

    Raises:
        ConfigError: the file or the environment says what nobody understands.
    """
    return _found(table, TABLES[table], given or {}, file)


def store() -> dict[str, Any]:
    """What the worker's table says of its store, for that of a private cluster; raises as `settings`."""
    return _found("worker", _STORE, {}, None)


def _found(
    table: str, options: Iterable[Option], given: Mapping[str, Any], file: str | None
) -> dict[str, Any]:
    path = find(file)
    from_file = load(path).get(table, {}) if path is not None else {}
    found: dict[str, Any] = {}
    for one in options:
        value = given.get(one.name)
        if value is None:
            value = _from_environment(table, one)
        if value is None:
            value = from_file.get(one.name, one.default)
        found[one.name] = value
    return found


def tenants(file: str | None = None) -> dict[str, dict[str, Any]]:
    """What the file says of tenants, by name; raises as `settings`."""
    path = find(file)
    return load(path).get(_TENANTS, {}) if path is not None else {}


def _from_environment(table: str, one: Option) -> Any:
    for variable in one.variables(table):
        text = os.environ.get(variable)
        if text:  # an empty one says nothing
            try:
                return one.parse(text)
            except ValueError as error:
                raise ConfigError(f"{variable} in the environment: {error}") from error
    return None
