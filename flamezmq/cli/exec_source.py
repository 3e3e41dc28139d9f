"""Where flmexec's inputs come from: nowhere (-t), behind `:::`, in files (`::::`), or lines of stdin (-i).

A source never blocks: the lines of a slow producer are taken as they come, while
results are printed.  Nothing is read ahead of what can be run soon.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

Values = tuple[str, ...]

#: A line that is longer can be no argument.
MOST_LINE_BYTES = 1 << 24
_CHUNK = 1 << 16
#: Before inputs, and before files of them.
MARK, FILES_MARK = ":::", "::::"
#: Behind one of these: the list goes along with the one before it.
LINKED = "+"


class BadInput(Exception):
    """The input is none that tasks can be made of."""


class Source(Protocol):
    """Inputs, one for each task.

    fd     where they come from; -1 for nowhere
    ended  there are no more
    total  how many there are in all; None if nobody knows
    """

    fd: int
    ended: bool
    total: int | None

    @property
    def ready(self) -> bool:
        """Whether `pull` is sure not to read; else `fd` must be readable, or it blocks."""

    def pull(self) -> Values | None:
        """The next one; None if there is none just now, or ever (`ended`)."""


class Listed:
    """Inputs that are all there."""

    fd = -1
    ready = True

    def __init__(self, values: Iterable[Values], total: int) -> None:
        self.total: int | None = total
        self.ended = False
        self._values: Iterator[Values] = iter(values)

    def pull(self) -> Values | None:
        value = next(self._values, None)
        self.ended = value is None
        return value


def repeated(count: int) -> Listed:
    """So many tasks without an input."""
    return Listed(itertools.repeat((), count), count)


def combined(lists: Sequence[Sequence[Values]]) -> Listed:
    """Each with each, the last one changing fastest."""
    total = 1
    for one in lists:
        total *= len(one)
    return Listed((tuple(itertools.chain(*values)) for values in itertools.product(*lists)), total)


def split(words: Sequence[str]) -> tuple[list[str], list[list[Values]]]:
    """The words before the first mark, and the list behind each `:::`, or in each file behind a `::::`.

    A list behind `:::+` or `::::+` goes along with the one before it, as far as the shorter one goes.

    Raises:
        BadInput: a file can't be read, or none is named; or there is no list to go along with.
    """
    own: list[str] = []
    found: list[tuple[bool, list[str]]] = []  # whether it goes along, and its inputs
    mark = ""
    for word in words:
        if word.removesuffix(LINKED) in (MARK, FILES_MARK):
            mark = word
            if mark.endswith(LINKED) and not found:
                raise BadInput(f"{mark} goes along with the list before it, and none stands there")
            if mark.startswith(FILES_MARK):
                continue
            found.append((mark.endswith(LINKED), []))
        elif mark.startswith(FILES_MARK):
            found.append((mark.endswith(LINKED), _lines_of(word)))
        else:
            (found[-1][1] if mark else own).append(word)
    if mark.startswith(FILES_MARK) and words[-1] == mark:
        raise BadInput(f"no file of inputs stands behind {mark}")
    lists: list[list[Values]] = []
    for linked, inputs in found:
        if linked:
            lists[-1] = [(*values, further) for values, further in zip(lists[-1], inputs, strict=False)]
        else:
            lists.append([(one,) for one in inputs])
    return own, lists


def _lines_of(path: str) -> list[str]:
    """All lines of a file; `-` is standard input."""
    try:
        with open(
            0 if path == "-" else path, errors="surrogateescape", newline="\n", closefd=path != "-"
        ) as file:
            return [line.removesuffix("\n") for line in file]
    except OSError as error:
        raise BadInput(f"can't read the inputs in {path!r}: {error.strerror}") from error


class Lines:
    """Lines of a descriptor, which end with a newline or NUL, the last one perhaps with neither."""

    total: int | None = None

    def __init__(self, fd: int, null: bool) -> None:
        self.fd = fd
        self.ended = False
        self._end = b"\0" if null else b"\n"
        self._lines: deque[bytes] = deque()
        self._rest = b""
        self._dry = False

    def pull(self) -> Values | None:
        """The next line; reads once if none is here."""
        if not self._lines and not self._dry:
            self._read()
        if self._lines:
            return (self._lines.popleft().decode(errors="surrogateescape"),)
        self.ended = self._dry
        return None

    @property
    def ready(self) -> bool:
        """Whether a line, or the end, is here."""
        return bool(self._lines) or self._dry

    def _read(self) -> None:
        try:
            data = os.read(self.fd, _CHUNK)
        except BlockingIOError:
            return  # somebody has made it so, and it was taken meanwhile
        if not data:
            self._dry = True
            if self._rest:
                self._lines.append(self._rest)
            return
        *lines, self._rest = (self._rest + data).split(self._end)
        self._lines.extend(lines)
        if len(self._rest) > MOST_LINE_BYTES:
            raise BadInput(f"a line of the input is longer than {MOST_LINE_BYTES >> 20} MiB")
