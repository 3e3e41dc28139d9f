"""What a function takes with it when it travels by value, and whether that has changed.

`captured` lists it, for messages.  `Watch` remembers it, for speed: a function
is pickled again only when something that it refers to may have changed.

A watch compares by identity, so it can hold only what can't change in place:
atoms, strings, tuples of such, modules, by-reference functions and classes,
and, walked in turn, by-value functions and classes.  One list, dict, array or
instance among the captures makes it `volatile`: pickle each time, and compare
the pickles.  The watch is made before the pickle is, so a change made between
the two is seen by the next check, never missed.
"""

from __future__ import annotations

import enum
import functools
import operator
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from flamezmq.optioned import Optioned
from flamezmq.serialize.pickler import (
    BY_VALUE_MODULES,
    CachedFunction,
    by_reference,
    global_names,
    module_by_reference,
)

#: Stands for a name that is not there (yet): a builtin, or a helper that is defined later.
_MISSING: Any = object()

#: Instances of exactly these types can't change, and hold nothing that can.
_FROZEN = frozenset(
    {
        *(int, float, str, bytes, bool, complex, type(None), type(...), type(NotImplemented), range),
        *(types.MemberDescriptorType, types.GetSetDescriptorType, types.WrapperDescriptorType),
        *(types.MethodDescriptorType, types.ClassMethodDescriptorType, types.GenericAlias, TypeVar),
    }
)
#: The same, of modules that we need not import.  Loggers travel by name.
_FROZEN_ELSEWHERE = {
    "datetime": {"date", "datetime", "time", "timedelta", "timezone"},
    "decimal": {"Decimal"},
    "fractions": {"Fraction"},
    "logging": {"Logger", "RootLogger"},
    "pathlib": {"PosixPath"},
    "pathlib._local": {"PosixPath"},  # its home in Python 3.13
    "re": {"Pattern"},
    "uuid": {"UUID"},
    "zoneinfo": {"ZoneInfo"},
}


class Captured(NamedTuple):
    """One thing that a function ships: `where` as in "global `k`"."""

    where: str
    value: object


def captured(function: types.FunctionType) -> Iterator[Captured]:
    """Everything that a by-value function ships besides its code, in a stable order."""
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        value = _cell_value(cell)
        if value is not _MISSING:
            yield Captured(f"captured variable `{name}`", value)
    for name in global_names(code):
        if name in function.__globals__:
            yield Captured(f"global `{name}`", function.__globals__[name])
    defaults = function.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount]
    for name, value in zip(names[len(names) - len(defaults) :], defaults, strict=True):
        yield Captured(f"default of `{name}`", value)
    for name, value in (function.__kwdefaults__ or {}).items():
        yield Captured(f"default of `{name}`", value)
    for name, value in function.__dict__.items():
        yield Captured(f"attribute `{name}`", value)
    for name, value in function.__annotations__.items():
        yield Captured(f"annotation of `{name}`", value)


def _cell_value(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _MISSING


#: One thing that must stay the same: `ask(about) is answer`.
Check = tuple[Callable[[Any], object], object, object]


class Watch:
    """All that must stay the same for a function's pickle to stay good.

    checks    asked in order, in every submit, so `FunctionTable.name` has the loop itself
    modules   len(sys.modules), if a package is captured, else 0: cloudpickle ships the imported
              submodules that the code names, so one imported later changes the pickle
    volatile  something captured can change in place; the checks are not complete
    """

    __slots__ = ("_root", "_seen", "_todo", "checks", "modules", "volatile")

    def __init__(self, function: object) -> None:
        self.checks: list[Check] = [(len, BY_VALUE_MODULES, len(BY_VALUE_MODULES))]
        self.modules = 0
        self.volatile = False
        self._root: Any = function
        self._seen: set[int] = set()
        self._todo: list[Any] = [function]  # a list, not recursion: chains of helpers can be long
        while self._todo and not self.volatile:
            self._visit(self._todo.pop())
        self._seen.clear()

    def changed(self) -> bool:
        """Whether the function must be pickled again."""
        if self.modules and self.modules != len(sys.modules):
            return True
        return any(ask(about) is not answer for ask, about, answer in self.checks)

    def _visit(self, value: Any) -> None:
        kind = type(value)
        if kind in _FROZEN:
            return
        if id(value) in self._seen:
            if value is self._root and kind is types.FunctionType:
                self._watch_attributes(value)  # it knows itself by name
            return
        self._seen.add(id(value))
        if isinstance(value, type):
            self._visit_class(value)
            return
        visit = _VISITORS.get(kind)
        if visit is not None:
            visit(self, value)
        elif isinstance(value, enum.Enum):
            self._todo.append(kind)
        elif not _is_frozen(value):
            self.volatile = True

    def _visit_function(self, function: types.FunctionType) -> None:
        if by_reference(function):
            return
        if function is not self._root:
            self._watch_attributes(function)
        self.checks.append((_get_code, function, function.__code__))
        if function.__defaults__:
            self.checks.append((_get_defaults, function, function.__defaults__))
            self._todo.extend(function.__defaults__)
        for name in global_names(function.__code__):
            self._visit_item(function.__globals__, name)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            if name != "repr_running":  # a set in each dataclass's __repr__, empty while nobody is in there
                self._visit_cell(cell)
        for mapping in (function.__kwdefaults__, function.__dict__):
            if mapping:
                self._visit_mapping(mapping)

    def _watch_attributes(self, function: types.FunctionType) -> None:
        """A function that others reach by name may be given attributes that they read."""
        self.checks.append((len, function.__dict__, len(function.__dict__)))

    def _visit_item(self, mapping: dict[str, Any], name: str) -> None:
        value = mapping.get(name, _MISSING)
        if value is None or value is _MISSING:  # get() answers None to both
            self.checks.append((mapping.__contains__, name, value is None))
        if value is not _MISSING:
            self.checks.append((mapping.get, name, value))
            self._todo.append(value)

    def _visit_cell(self, cell: types.CellType) -> None:
        value = _cell_value(cell)
        self.checks.append((_cell_value, cell, value))
        if value is not _MISSING:
            self._todo.append(value)

    def _visit_mapping(self, mapping: Mapping[str, Any]) -> None:
        self.checks.append((_is_as_it_was, (mapping, list(mapping), list(mapping.values())), True))
        self._todo.extend(mapping.values())

    def _visit_class(self, cls: type) -> None:
        if cls.__module__ == "builtins" or by_reference(cls):
            return
        attributes = vars(cls)
        self.checks.append((_is_as_it_was, (attributes, list(attributes), list(attributes.values())), True))
        self._todo.extend((type(cls), *cls.__bases__))
        for name, value in attributes.items():
            # Dunders such as __annotations__ and __dataclass_fields__, and what enums and
            # ABCs keep for themselves, are dicts that nobody changes after the class is made.
            kept = name.startswith("_") and (name.endswith("_") or name == "_abc_impl")
            if not kept or type(value) in _VISITORS:
                self._todo.append(value)

    def _visit_module(self, module: types.ModuleType) -> None:
        if not module_by_reference(module):
            self.volatile = True
        elif hasattr(module, "__path__"):
            self.modules = len(sys.modules)

    def _visit_group(self, group: tuple[Any, ...] | frozenset[Any]) -> None:
        self._todo.extend(group)

    def _visit_builtin(self, function: types.BuiltinFunctionType) -> None:
        if not isinstance(function.__self__, types.ModuleType | None):
            self._todo.append(function.__self__)  # [].append takes its list along

    def _visit_partial(self, partial: functools.partial[Any]) -> None:
        self._visit_mapping(partial.keywords)
        self._visit_mapping(vars(partial))
        self._todo.extend((partial.func, *partial.args))

    def _visit_optioned(self, optioned: Optioned[..., Any]) -> None:
        if not by_reference(optioned):
            self._todo.append(optioned.fn)
            self._todo.extend(optioned.options.retry_on or ())

    def _visit_cached(self, function: Any) -> None:
        if not by_reference(function):
            self._todo.append(function.__wrapped__)

    def _visit_wrapped(self, method: Any) -> None:
        self._todo.append(method.__func__)

    def _visit_property(self, descriptor: property) -> None:
        self._todo.extend((descriptor.fget, descriptor.fset, descriptor.fdel))

    def _visit_cached_property(self, descriptor: functools.cached_property[Any]) -> None:
        self._todo.append(descriptor.func)


_VISITORS: dict[type, Any] = {
    types.FunctionType: Watch._visit_function,
    types.ModuleType: Watch._visit_module,
    tuple: Watch._visit_group,
    frozenset: Watch._visit_group,
    types.BuiltinFunctionType: Watch._visit_builtin,
    functools.partial: Watch._visit_partial,
    Optioned: Watch._visit_optioned,
    CachedFunction: Watch._visit_cached,
    classmethod: Watch._visit_wrapped,
    staticmethod: Watch._visit_wrapped,
    property: Watch._visit_property,
    functools.cached_property: Watch._visit_cached_property,
}


_get_code = operator.attrgetter("__code__")
_get_defaults = operator.attrgetter("__defaults__")


def _is_as_it_was(snapshot: tuple[Mapping[str, Any], list[str], list[Any]]) -> bool:
    mapping, names, values = snapshot
    return list(mapping) == names and all(map(operator.is_, mapping.values(), values))


def _is_frozen(value: object) -> bool:
    kind = type(value)
    if kind.__module__.partition(".")[0] != "numpy":
        return kind.__name__ in _FROZEN_ELSEWHERE.get(kind.__module__, ())
    numpy = sys.modules["numpy"]
    if isinstance(value, numpy.ufunc | numpy.dtype):
        return True
    return isinstance(value, numpy.generic) and not isinstance(value, numpy.void | numpy.object_)
