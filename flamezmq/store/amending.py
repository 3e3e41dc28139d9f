"""Versions in a store, of the objects whose home it is.  Part of the store's thread.

An object that was put, and never amended, has no entry here, and costs nothing.
With its first amendment its content gets an id of its own, as the first *part*,
and the object becomes a mere name for its parts: who opens it as a plain object
does not find it, and asks for its versions.

A new version is made in one step, when its part is here as a whole: a writer that
dies before has changed nothing.  What an `update` replaces stays for a moment if
somebody was told of it just now, who may be about to open it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from math import inf
from typing import NamedTuple, Protocol, TypeAlias

from flamezmq.core.versions import NO_LIST, STALE, Amendment, Versions
from flamezmq.store.names import ids
from flamezmq.store.pool import Segment
from flamezmq.wire import amendments as a

#: Parts named in one answer, and bytes of small ones that ride along.
MOST_PARTS = 1000
MOST_DATA_BYTES = 1 << 16
#: What was replaced stays for so long, if nobody needs its room; and at most so many parts of it.
RETIRED_SECONDS = 2.0
MOST_RETIRED = 1000
#: Amendments that are known again when they are asked for again.
MOST_NOTED = 1000

Reply: TypeAlias = Callable[[a.Answer], object]
_REFUSALS = {STALE: a.STALE, NO_LIST: a.NO_LIST}


class Lying(Protocol):
    """An object as the store has it.  data: all of it, if it is small."""

    sizes: list[int]
    data: bytes


class Shelves(Protocol):
    """The objects of the store."""

    def find(self, name: bytes) -> Lying | None:
        """The object of this id, if it is here."""
        ...

    def is_moving(self, name: bytes) -> bool:
        """Whether this object is on its way to the disk, or back, and has to keep its id for so long."""
        ...

    def enclose(self, name: bytes, inner: bytes) -> None:
        """What was the content of object `name` is object `inner` from now on, which `name` needs."""
        ...

    def can_adopt(self, amend: a.Amend, segment: Segment | None) -> bool:
        """Whether the part is here: as an object, in this segment, or in the message."""
        ...

    def adopt(self, amend: a.Amend, segment: Segment | None) -> None:
        """It is an object from now on, which the amended one needs, and nobody else."""
        ...

    def refuse(self, amend: a.Amend, segment: Segment | None) -> None:
        """The part will not be needed."""
        ...

    def release(self, name: bytes, part: bytes) -> None:
        """Object `name` needs this part no more."""
        ...


class Asked(NamedTuple):
    """A question.  segment: that holds the part, if it was filled on this node."""

    question: a.Question
    reply: Reply
    segment: Segment | None = None


class Amending:
    """The versions of a store's objects."""

    def __init__(self, shelves: Shelves) -> None:
        self._shelves = shelves
        self.versions = Versions()
        self._early: list[Asked] = []
        self._late: list[tuple[Asked, a.Amend]] = []  # the first amendments of objects that are moving
        self._retired: deque[tuple[float, bytes, bytes]] = deque()  # when, object, part; oldest first
        self._told: dict[bytes, float] = {}  # object -> when somebody was told of its parts
        self._noted: OrderedDict[bytes, int] = OrderedDict()  # part -> the version that it made

    @property
    def is_early(self) -> bool:
        """Whether somebody has asked for what is not here, or not yet."""
        return bool(self._early)

    @property
    def is_busy(self) -> bool:
        """Whether `turn` will have something to do, now or later."""
        return bool(self._retired or self._late)

    def ask(self, asked: Asked, now: float) -> None:
        """Its `reply` is called, maybe later: the Put of the object may have been sent, and not read."""
        if self._shelves.find(asked.question.id) is None:
            self._early.append(asked)
        else:
            self._answer(asked, now)

    def look(self, now: float) -> None:
        """Nothing is left to be read: what is not here now does not come."""
        early, self._early = self._early, []
        for asked in early:
            if self._shelves.find(asked.question.id) is not None:
                self._answer(asked, now)
            elif isinstance(asked.question, a.Since):
                asked.reply(a.Parts(asked.question.id, 0))
            else:
                self._refuse(asked, asked.question, a.GONE)

    def turn(self, now: float) -> None:
        """Do what is due."""
        late, self._late = self._late, []
        for asked, question in late:
            if self._shelves.find(question.id) is None:
                self._refuse(asked, question, a.GONE)
            else:
                self._amend(asked, question, now)
        self.tidy(now - RETIRED_SECONDS)

    def on_gone(self, name: bytes) -> None:
        """This object is here no more; its parts go with it."""
        self.versions.end(name)
        self._told.pop(name, None)

    def tidy(self, before: float) -> bool:
        """Let go of what was replaced by then; whether there was anything."""
        has = False
        while self._retired and (self._retired[0][0] <= before or len(self._retired) > MOST_RETIRED):
            _, name, part = self._retired.popleft()
            self._shelves.release(name, part)
            has = True
        return has

    # --- how

    def _answer(self, asked: Asked, now: float) -> None:
        question = asked.question
        if isinstance(question, a.Since):
            self._told[question.id] = now
            asked.reply(self._since(question))
        elif question.part in self._noted:
            version = self._noted[question.part]
            asked.reply(a.Amended(question.id, version, "", question.kind))
        elif not self._shelves.can_adopt(question, asked.segment):
            self._refuse(asked, question, a.NO_PART)
        else:
            self._amend(asked, question, now)

    def _since(self, question: a.Since) -> a.Parts:
        name = question.id
        if name not in self.versions:
            if question.after:
                return a.Parts(name, 1, 2)
            return a.Parts(name, 1, 1, True, "", [self._part(name)])
        came = self.versions.after(name, question.after, MOST_PARTS)
        parts: list[a.Part] = []
        room = MOST_DATA_BYTES
        for part in map(self._part, came.parts):
            room -= len(part.data)
            if room < 0 and parts:
                break
            parts.append(part)
        return a.Parts(name, came.newest, came.first, came.whole, came.kind, parts)

    def _part(self, name: bytes) -> a.Part:
        one = self._shelves.find(name)
        if one is None:
            return a.Part(name, [])
        return a.Part(name, one.sizes, one.data)

    def _amend(self, asked: Asked, question: a.Amend, now: float) -> None:
        name = question.id
        if name not in self.versions:
            if self._shelves.is_moving(name):
                self._late.append((asked, question))
                return
            first = ids.next()
            self._shelves.enclose(name, first)
            self.versions.begin(name, first, question.was)
        amendment = Amendment(question.part, question.appends, question.kind, question.expected)
        outcome = self.versions.amend(name, amendment)
        if outcome.refusal:
            self._refuse(asked, question, _REFUSALS[outcome.refusal])
            return
        self._shelves.adopt(question, asked.segment)
        if now - self._told.get(name, -inf) < RETIRED_SECONDS:
            self._retired.extend((now, name, part) for part in outcome.replaced)
            self.tidy(0.0)
        else:  # nobody is about to open them
            for part in outcome.replaced:
                self._shelves.release(name, part)
        self._noted[question.part] = outcome.version
        if len(self._noted) > MOST_NOTED:
            self._noted.popitem(last=False)
        asked.reply(a.Amended(name, outcome.version, "", self.versions.kind(name)))

    def _refuse(self, asked: Asked, question: a.Amend, why: str) -> None:
        """The newest version stays the newest."""
        self._shelves.refuse(question, asked.segment)
        newest, kind = 1, question.was
        if question.id in self.versions:
            newest, kind = self.versions.newest(question.id), self.versions.kind(question.id)
        asked.reply(a.Amended(question.id, newest, why, kind))
