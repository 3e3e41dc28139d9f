"""What a task of flmexec runs: the command, with its input in the place of `{}`.

The replacement strings are GNU parallel's: {} the input, {.} without its extension, {/} its
last part, {//} its folder, {/.} the last part without extension, {1} {2} ... (also {1.} and so on)
one of several inputs, {#} the task's number.  Inputs are quoted for the shell
where a shell reads them.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from typing import NamedTuple

_STRING = re.compile(r"\{(?:(#)|(\d*)(//|/\.|/|\.)?)\}")


class Job(NamedTuple):
    """One task's command: the code, if it is another one for each task, and the arguments."""

    code: str | None
    arguments: list[str]


class Template:
    """What all tasks have in common.

    code       the shell's, in which inputs are replaced, "" if the input itself is code; None if
               all run the same script
    arguments  of the script, in which they are replaced, too
    has_input  whether tasks have inputs: then one that has no place is appended
    """

    def __init__(self, code: str | None, arguments: Sequence[str], has_input: bool) -> None:
        self._code, self._arguments, self._has_input = code, list(arguments), has_input
        used = any(_STRING.search(text) for text in [code or "", *self._arguments])
        self._append = has_input and not used

    def fill(self, number: int, values: Sequence[str]) -> Job:
        """The command of task `number` (from 1)."""
        code = self._code
        if code == "":
            return Job(" ".join(values), [])
        if code is not None:
            code = self._replaced(code, number, values, shlex.quote)
        arguments = [self._replaced(word, number, values, str) for word in self._arguments]
        if self._append:
            if code is not None and not arguments:
                code = " ".join([code, *map(shlex.quote, values)])
            else:
                arguments += values
        return Job(code, arguments)

    def _replaced(self, text: str, number: int, values: Sequence[str], quote: Callable[[str], str]) -> str:
        if "{" not in text:
            return text

        def value(match: re.Match[str]) -> str:
            seq, which, part = match.groups()
            if seq:
                return str(number)
            if not self._has_input:
                return match[0]
            if not which:
                return " ".join(quote(_part(one, part)) for one in values)
            return quote(_part(values[int(which) - 1], part)) if 0 < int(which) <= len(values) else match[0]

        return _STRING.sub(value, text)


def _part(value: str, part: str | None) -> str:
    if part == "//":
        folder = value.rpartition("/")
        return (folder[0].rstrip("/") or "/") if folder[1] else "."
    if part in ("/", "/."):
        value = value.rpartition("/")[2]
    if part in (".", "/."):
        stem, dot, extension = value.rpartition(".")
        if dot and stem and not stem.endswith("/") and "/" not in extension:
            return stem
    return value
