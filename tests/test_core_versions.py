"""Versions of objects against a model that keeps every version whole."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from flamezmq.core.versions import LIST, NO_LIST, STALE, Amendment, Versions

KINDS = st.sampled_from(["list of 0", "dict of 3", "listing"])
ALL = 1 << 30


class Model:
    """One object: all its versions, each as the whole list of its parts."""

    def __init__(self, part: bytes, kind: str) -> None:
        self.versions: list[list[bytes]] = [[part]]
        self.kind = kind


class Reader:
    """Reads increments, a few parts at a time, as another process does."""

    def __init__(self, name: bytes) -> None:
        self.name, self.version = name, 0
        self.parts: list[bytes] = []
        self.fetched: list[bytes] = []

    def read(self, versions: Versions, most: int) -> None:
        came = versions.after(self.name, self.version, most)
        assert came.whole or came.first == self.version + 1
        if came.whole:
            self.parts = []
        self.parts = [*self.parts, *came.parts]
        self.fetched += came.parts
        self.version = max(self.version, came.first + len(came.parts) - 1)


class Stories(RuleBasedStateMachine):
    names = Bundle("names")
    readers = Bundle("readers")

    def __init__(self) -> None:
        super().__init__()
        self.versions = Versions()
        self.models: dict[bytes, Model] = {}
        self.alive: set[bytes] = set()
        self.last = 0

    def made(self) -> bytes:
        self.last += 1
        self.alive.add(part := b"%d" % self.last)
        return part

    @rule(target=names, kind=KINDS)
    def begin(self, kind: str) -> bytes:
        part = self.made()
        name = b"of " + part
        self.models[name] = Model(part, kind)
        self.versions.begin(name, part, kind)
        return name

    @rule(name=names, appends=st.booleans(), kind=KINDS, behind=st.none() | st.integers(0, 2))
    def amend(self, name: bytes, appends: bool, kind: str, behind: int | None) -> None:
        model = self.models.get(name)
        if model is None:
            return
        part, newest = self.made(), model.versions[-1]
        expected = max(1, len(model.versions) - behind) if behind is not None else 0

        outcome = self.versions.amend(name, Amendment(part, appends, kind, expected))

        if expected not in (0, len(model.versions)):
            assert (outcome.refusal, list(outcome.replaced)) == (STALE, [])
        elif appends and model.kind not in ("list of 0", LIST):
            assert (outcome.refusal, list(outcome.replaced)) == (NO_LIST, [])
        elif appends:
            assert (outcome.refusal, list(outcome.replaced)) == ("", [])
            model.versions.append([*newest, part])
            model.kind = LIST
        else:
            assert (outcome.refusal, list(outcome.replaced)) == ("", newest)
            model.versions.append([part])
            model.kind = kind
        self.alive -= {part} if outcome.refusal else set(outcome.replaced)
        assert outcome.version == len(model.versions)

    @rule(target=readers, name=names)
    def reader(self, name: bytes) -> Reader:
        return Reader(name)

    @rule(reader=readers, most=st.sampled_from([1, 2, 7, ALL]))
    def read(self, reader: Reader, most: int) -> None:
        model = self.models.get(reader.name)
        if model is None:
            return
        before = len(reader.fetched)
        reader.read(self.versions, most)
        assert reader.parts == model.versions[reader.version - 1], "no version has ever been so"
        assert len(set(reader.fetched)) == len(reader.fetched), "a part was fetched twice"
        assert len(reader.fetched) - before <= most
        if most == ALL:
            assert reader.version == len(model.versions)

    @rule(name=names)
    def end(self, name: bytes) -> None:
        model = self.models.pop(name, None)
        assert self.versions.end(name) == (model.versions[-1] if model is not None else [])
        assert name not in self.versions
        if model is not None:
            self.alive -= set(model.versions[-1])

    @invariant()
    def keeps_what_the_newest_versions_need_and_nothing_else(self) -> None:
        self.versions.check()
        assert self.alive == {part for model in self.models.values() for part in model.versions[-1]}
        for name, model in self.models.items():
            came = self.versions.after(name, 0, ALL)
            assert (came.newest, came.whole, came.kind) == (len(model.versions), True, model.kind)
            assert list(came.parts) == model.versions[-1]
            assert not self.versions.after(name, came.newest, ALL).parts


TestStories = Stories.TestCase
TestStories.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
