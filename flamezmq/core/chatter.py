"""What an executor prints, and for which task: whole lines, in batches, at a bounded rate; its last words.

The first text after a silence goes out at once, what follows waits a little for
company.  A line without an end (a progress bar) waits longer, then goes as it is.
What is over the rate is dropped, counted and reported, never kept.

Pure: bytes and `now` come in, messages go out.
"""

from __future__ import annotations

import codecs

import msgspec

from flamezmq.core.marks import Reader, Task
from flamezmq.errors import CRASH
from flamezmq.wire import messages as m

#: At most one message per stream in so many seconds.
BATCH_SECONDS = 0.02
#: A line that has no end yet is sent after so long.
UNFINISHED_SECONDS = 0.1
#: So many characters go out at once, whatever the time.
BATCH_CHARACTERS = 1 << 16
#: What an executor may print on and on, and in a burst after it was quiet.
RATE_BYTES_PER_SECOND = 1_000_000
BURST_BYTES = 2_000_000
#: The last words in a death certificate.
LAST_LINES = 20
#: How faulthandler ends its report; it says nothing about the death.
_IDLE_WORDS = "Extension modules: "
_LAST_CHARACTERS = 8192


def _decoder() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")("replace")


def cut(tasks: list[int], characters: int) -> tuple[list[int], list[int]]:
    """The triples of the first so many characters, and those of the rest."""
    before: list[int] = []
    for at in range(0, len(tasks), 3):
        count, session, index = tasks[at : at + 3]
        if count > characters:
            head = [characters, session, index] if characters else []
            return before + head, [count - characters, session, index, *tasks[at + 3 :]]
        before += (count, session, index)
        characters -= count
    return before, []


class Stream(msgspec.Struct, eq=False):
    """One of the two pipes."""

    reader: Reader = msgspec.field(default_factory=Reader)
    decoder: codecs.IncrementalDecoder = msgspec.field(default_factory=_decoder)
    text: list[str] = []
    tasks: list[int] = []  # as in `Printed`, of `text`
    size: int = 0  # characters in `text`
    lines: bool = False  # a line in `text` is whole
    since: float = 0.0  # when its first piece came
    said: float = -1.0  # when the last message went out
    dropped: int = 0
    tail: str = ""

    def waiting(self) -> bool:
        return bool(self.text or self.dropped)

    def due(self) -> float:
        if self.size >= BATCH_CHARACTERS:
            return self.said
        if self.lines or not self.text:
            return self.said + BATCH_SECONDS
        return max(self.since + UNFINISHED_SECONDS, self.said + BATCH_SECONDS)

    def hear(self, task: Task, text: str, now: float) -> None:
        if text:
            if not self.text:
                self.since = now
            if self.tasks[-2:] == [*task]:
                self.tasks[-3] += len(text)
            else:
                self.tasks += (len(text), *task)
            self.text.append(text)
            self.size += len(text)
            self.lines = self.lines or "\n" in text

    def say(self, number: int, stream: int, now: float, last: bool) -> m.Printed:
        text = "".join(self.text)
        unfinished = ""
        tasks: list[int] = self.tasks
        left: list[int] = []
        if self.lines and not last and self.size < BATCH_CHARACTERS:
            end = text.rindex("\n") + 1
            text, unfinished = text[:end], text[end:]
            tasks, left = cut(tasks, end)
        if len(tasks) == 3 and tasks[2] < 0:
            tasks = []  # nobody knows whose it is
        message = m.Printed(number, stream, text, self.dropped, tasks)
        self.text, self.tasks = [unfinished] if unfinished else [], left
        self.size, self.lines, self.dropped = len(unfinished), False, 0
        self.since = self.said = now
        return message


class Chatter(msgspec.Struct, eq=False):
    """Both streams of one executor."""

    streams: tuple[Stream, Stream] = msgspec.field(default_factory=lambda: (Stream(), Stream()))
    dropped_bytes: int = 0
    _budget: float = BURST_BYTES
    _as_of: float = 0.0

    def hear(self, stream: int, data: bytes, now: float, running: Task = (0, -1)) -> None:
        """Take in what was read from `stream` (1 or 2); `running`: what the executor's page says."""
        heard = self.streams[stream - 1]
        pieces = [(task, heard.decoder.decode(piece)) for task, piece in heard.reader.split(data, running)]
        heard.tail = (heard.tail + "".join([text for _, text in pieces]))[-_LAST_CHARACTERS:]
        self._budget = min(BURST_BYTES, self._budget + (now - self._as_of) * RATE_BYTES_PER_SECOND)
        self._as_of = now
        if len(data) > self._budget:
            heard.dropped += len(data)
            self.dropped_bytes += len(data)
        else:
            self._budget -= len(data)
            for task, text in pieces:
                heard.hear(task, text, now)

    def say(self, number: int, now: float, last: bool = False) -> list[m.Printed]:
        """Messages that are due; `last`: the executor is dead, everything is."""
        return [
            stream.say(number, position, now, last)
            for position, stream in enumerate(self.streams, 1)
            if stream.waiting() and (last or now >= stream.due())
        ]

    def waiting(self) -> bool:
        return any(stream.waiting() for stream in self.streams)

    def due(self) -> float:
        return min(stream.due() for stream in self.streams if stream.waiting())

    def last_words(self) -> tuple[str, ...]:
        """The last lines on stderr that say something; of a crash the first ones of its report."""
        lines = [line for line in self.streams[1].tail.splitlines() if line.strip()]
        if lines and lines[-1].startswith(_IDLE_WORDS):
            lines.pop()
        for at, line in enumerate(lines):
            if line.startswith(CRASH):
                return tuple(lines[at : at + LAST_LINES])
        return tuple(lines[-LAST_LINES:])
