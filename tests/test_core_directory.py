"""The directory: against a model, and what reports that come late, or twice, do to it."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from flamezmq.core.directory import Directory, Report
from flamezmq.wire.objects import COPY, PINNED

A, B = "a", "b"


def id_of(k: int) -> bytes:
    return k.to_bytes(16, "big")


def test_the_home_of_an_object_comes_before_its_copies() -> None:
    directory = Directory()
    directory.has(B, Report(id_of(1), "", 10, COPY))
    directory.has(A, Report(id_of(1), "s", 10, PINNED))

    entry = directory.find(id_of(1))

    assert entry is not None
    assert entry.nodes == [A, B]
    assert (entry.session, entry.is_marked(PINNED)) == ("s", True)


def test_a_copy_that_was_told_of_first_stands_where_it_came_in_its_session() -> None:
    directory = Directory()
    directory.has(B, Report(id_of(1), "", 10, COPY))
    directory.has(A, Report(id_of(2), "s", 10))
    directory.has(A, Report(id_of(1), "s", 10))
    directory.check()

    assert [entry.id for entry in directory.page(0, 9, "s")[0]] == [id_of(1), id_of(2)]


def test_the_size_of_an_object_is_what_its_home_said_last() -> None:
    directory = Directory()
    directory.has(A, Report(id_of(1), "s", 10))
    directory.has(B, Report(id_of(1), "", 10, COPY))
    directory.has(A, Report(id_of(1), "s", 30))
    directory.has(B, Report(id_of(1), "", 10, COPY))
    directory.check()

    assert directory.of_session("s") == (1, 30)


def test_what_a_lost_node_had_alone_is_named_and_the_rest_stays() -> None:
    directory = Directory()
    for k in (1, 2):
        directory.has(A, Report(id_of(k), "s", 10))
    directory.has(B, Report(id_of(2), "s", 10, COPY))

    assert [entry.id for entry in directory.lose(A)] == [id_of(1)]
    entry = directory.find(id_of(2))
    assert entry is not None
    assert entry.nodes == [B]
    assert directory.lose(A) == []
    directory.check()


def test_pages_go_on_behind_the_last_number_whatever_has_gone_meanwhile() -> None:
    directory = Directory()
    for k in range(10):
        directory.has(A, Report(id_of(k), "s", 1))
    page, more = directory.page(0, 4)
    directory.gone(A, [id_of(3), id_of(4), id_of(5)])

    rest, none = directory.page(page[-1].number, 9)

    assert (more, none) == (6, 0)
    assert [entry.id for entry in rest] == [id_of(k) for k in (6, 7, 8, 9)]


OBJECTS, NODES, SESSIONS = st.integers(0, 5), st.sampled_from("xyz"), st.sampled_from(["s", "t"])


class Reports(RuleBasedStateMachine):
    """`holders`: (object, node) -> what was said last; an object's session is fixed, but may be unknown."""

    @initialize()
    def begin(self) -> None:
        self.directory = Directory()
        self.holders: dict[tuple[int, str], Report] = {}

    @rule(k=OBJECTS, node=NODES, knows=st.booleans(), marks=st.integers(0, 7), readers=st.integers(0, 2))
    def has(self, k: int, node: str, knows: bool, marks: int, readers: int) -> None:
        session = ("s" if k % 2 else "t") if knows else ""
        report = Report(id_of(k), session, k, marks, f"n{k}" if not marks & COPY else "", readers)
        self.directory.has(node, report)
        self.holders[k, node] = report

    @rule(ks=st.lists(OBJECTS), node=NODES)
    def gone(self, ks: list[int], node: str) -> None:
        self.directory.gone(node, map(id_of, ks))
        for k in ks:
            self.holders.pop((k, node), None)

    @rule(node=NODES)
    def lose(self, node: str) -> None:
        alone = {k for k, other in self.holders if other == node} - {
            k for k, other in self.holders if other != node
        }
        assert {entry.id for entry in self.directory.lose(node)} == {id_of(k) for k in alone}
        self.holders = {key: report for key, report in self.holders.items() if key[1] != node}

    @rule(session=SESSIONS)
    def end(self, session: str) -> None:
        ids = {entry.id for entry in self.directory.page(0, 99, session)[0]}
        self.directory.end_session(session)
        self.holders = {key: one for key, one in self.holders.items() if id_of(key[0]) not in ids}

    @rule(after=st.integers(0, 30), limit=st.integers(0, 4))
    def page(self, after: int, limit: int) -> None:
        page, more = self.directory.page(after, limit)
        everything, none = self.directory.page(0, 1 << 30)
        wanted = [entry for entry in everything if entry.number > after]
        assert none == 0
        assert page == wanted[:limit]
        assert more == len(wanted) - len(page)

    @invariant()
    def agrees(self) -> None:
        self.directory.check()
        said: dict[int, dict[str, Report]] = {}
        for (k, node), report in self.holders.items():
            said.setdefault(k, {})[node] = report
        assert len(self.directory) == len(said)
        for k, reports in said.items():
            entry: Any = self.directory.find(id_of(k))
            assert entry.holders == {node: report.marks for node, report in reports.items()}
            assert entry.readers == {node: one.readers for node, one in reports.items() if one.readers}
            assert entry.session in {"", "s" if k % 2 else "t"}
            assert entry.session or not any(report.session for report in reports.values())
            homes = [node for node in entry.nodes if not reports[node].marks & COPY]
            assert entry.nodes[: len(homes)] == homes
        for node in "xyz":
            assert self.directory.count(node) == sum(other == node for _, other in self.holders)


TestReports = Reports.TestCase
TestReports.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
