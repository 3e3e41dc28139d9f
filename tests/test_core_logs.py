"""Who printed what: the marks in a stream, what workers say of it, what the router keeps of it."""

from __future__ import annotations

import io
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flamezmq import page
from flamezmq.client.controller import LOGS
from flamezmq.core import logs
from flamezmq.core.chatter import BATCH_SECONDS, Chatter
from flamezmq.core.logs import Logs
from flamezmq.core.marks import UNKNOWN, Reader, mark
from flamezmq.streams import MarkedStream
from flamezmq.wire import codec
from flamezmq.wire import messages as m
from tests.core_stage import CLIENT, WORKER, Stage

#: What the page says in these tests.
PAGE = (9, 99)


def joined(pieces: list[tuple[tuple[int, int], bytes]]) -> list[tuple[tuple[int, int], bytes]]:
    """Neighbours of one task as one."""
    return [
        (task, b"".join(piece for _, piece in some))
        for task, some in itertools.groupby(pieces, lambda piece: piece[0])
    ]


# --- marks


def test_a_mark_says_whose_the_texts_behind_it_are() -> None:
    said = f"{mark(1, 5)}five{mark(1, 6)}six{mark(0, UNKNOWN)}who".encode()

    assert Reader().split(b"before" + said, PAGE) == [
        (PAGE, b"before"),
        ((1, 5), b"five"),
        ((1, 6), b"six"),
        (PAGE, b"who"),
    ]


def test_a_mark_counts_until_the_next_one_whatever_the_page_says() -> None:
    reader = Reader()
    reader.split(mark(1, 5).encode(), PAGE)

    assert reader.split(b"late", PAGE) == [((1, 5), b"late")]


texts = st.binary(max_size=6) | st.sampled_from([b"\x00", b"\x1e", b"\x00\x1eflm", b"\x00\x1eflm 1", b"\n"])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 3), texts), max_size=6), st.data())
def test_marks_are_found_wherever_reads_tear_them(said: list[tuple[int, bytes]], data: Any) -> None:
    stream = b"".join(mark(1, index).encode() + text for index, text in said)
    whole = joined(Reader().split(stream + b".", PAGE))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))

    reader = Reader()
    pieces = []
    for begin, end in itertools.pairwise([0, *cuts, len(stream)]):
        pieces += reader.split(stream[begin:end], PAGE)
    pieces += reader.split(b".", PAGE)

    assert joined(pieces) == whole
    assert b"".join(piece for _, piece in pieces) == b"".join(text for _, text in said) + b"."


# --- the executor's streams


def stream_and_page() -> tuple[MarkedStream, io.BytesIO, memoryview]:
    raw = io.BytesIO()
    words = memoryview(bytearray(page.SIZE)).cast("Q")
    below = io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)
    return MarkedStream(below, words), raw, words


def test_the_first_text_of_a_task_is_marked_and_the_others_are_not() -> None:
    stream, raw, words = stream_and_page()
    words[page.SESSION] = 4
    for index in (0, 0, 1):
        words[page.RUNNING] = index + 1
        print("hé", index, file=stream)
    words[page.RUNNING] = 0
    stream.flush()

    text = f"{mark(4, 0)}hé 0\nhé 0\n{mark(4, 1)}hé 1\n{mark(0, UNKNOWN)}"
    assert raw.getvalue().decode() == text


def test_a_flush_within_a_task_ends_nothing() -> None:
    stream, raw, words = stream_and_page()
    words[page.RUNNING] = 1
    print("a", end="", flush=True, file=stream)
    print("b", end="", flush=True, file=stream)

    assert raw.getvalue().decode() == f"{mark(0, 0)}ab"


def test_who_prints_nothing_writes_nothing() -> None:
    stream, raw, words = stream_and_page()
    for index in range(3):
        words[page.RUNNING] = index + 1
        stream.flush()

    assert raw.getvalue() == b""


def test_what_is_printed_between_tasks_is_nobodys() -> None:
    stream, raw, _ = stream_and_page()
    print("a thread", end="", file=stream)
    stream.flush()

    assert raw.getvalue().decode() == f"{mark(0, UNKNOWN)}a thread"


# --- what the worker says


def said(chatter: Chatter, now: float) -> list[tuple[str, list[int]]]:
    return [(message.text, message.tasks) for message in chatter.say(1, now)]


def test_a_batch_says_how_many_characters_each_task_has_printed() -> None:
    chatter = Chatter()
    chatter.hear(1, f"{mark(3, 0)}é\n{mark(3, 1)}two\n".encode(), 0.0)
    chatter.hear(1, b"more\n", 0.0)

    assert said(chatter, 0.0) == [("é\ntwo\nmore\n", [2, 3, 0, 9, 3, 1])]


def test_a_line_that_is_not_finished_keeps_its_task() -> None:
    chatter = Chatter()
    chatter.hear(1, f"{mark(3, 0)}one\n{mark(3, 1)}two\nthr".encode(), 0.0)

    assert said(chatter, 0.0) == [("one\ntwo\n", [4, 3, 0, 4, 3, 1])]
    chatter.hear(1, b"ee\n", 0.0)
    assert said(chatter, BATCH_SECONDS) == [("three\n", [6, 3, 1])]


def test_what_no_mark_is_about_is_whose_the_page_says_it_is() -> None:
    chatter = Chatter()
    chatter.hear(2, b"a program\n", 0.0, PAGE)

    assert said(chatter, 0.0) == [("a program\n", [10, 9, 99])]


def test_marks_are_no_last_words() -> None:
    chatter = Chatter()
    chatter.hear(2, f"{mark(3, 0)}aaah\n".encode(), 0.0)

    assert chatter.last_words() == ("aaah",)


# --- what the router keeps


def rows(stage: Stage, **question: Any) -> list[tuple[str, int, str]]:
    """(session, task, text) of the answer's rows."""
    return [(row.session, row.task, row.text) for row in answer(stage, **question).logs]


def answer(stage: Stage, **question: Any) -> m.Answer:
    stage.broker.on_client(3)
    stage.say(3, m.Ask(1, LOGS, **question))
    return stage.heard(3, m.Answer)[0]


def printing(tasks: list[int], text: str = "ab", forward: bool = False) -> Stage:
    stage = Stage(executors=1)
    stage.open(forward_output=forward)
    stage.submit(3)
    stage.now = 5.0
    stage.say(WORKER, m.Printed(1, 2, text, 7, tasks))
    return stage


def test_each_piece_is_kept_with_its_task_also_where_nobody_wants_to_hear_it() -> None:
    stage = printing([1, 1, 0, 1, 1, 2])

    assert stage.heard(CLIENT, m.Output) == []
    assert rows(stage, session="s1") == [("s1", 0, "a"), ("s1", 2, "b")]
    assert rows(stage, session="s1", task=2) == [("s1", 2, "b")]
    stage.now = 6.0
    row, other = answer(stage, executor="node/1").logs
    assert (row.executor, row.stream, row.dropped, row.age) == ("node/1", 2, 7, 1.0)
    assert other.dropped == 0, "it is said once"
    assert rows(stage, executor="node/1", after=row.number) == [("s1", 2, "b")]


def test_a_session_that_an_executor_never_served_is_not_believed() -> None:
    stage = printing([2, 77, 0])

    assert rows(stage, executor="node/1") == [("s1", -1, "ab")]


@pytest.mark.parametrize("tasks", [[], [1], [-5, 1, 0], [10**9, 1, 0], [0, 1, 0], [1, 1, 0]])
def test_columns_that_do_not_fit_lose_no_text(tasks: list[int]) -> None:
    stage = printing(tasks)

    assert "".join(row[2] for row in rows(stage, executor="node/1")) == "ab"


def test_what_is_printed_after_the_next_bind_is_still_the_old_sessions() -> None:
    stage = printing([2, 1, 0])
    stage.say(CLIENT, m.Close(1))
    stage.say(11, m.Retracted(1, [run.slice() for run in stage.executor(1).held]))
    stage.open(2)
    stage.submit(1, alias=2)

    stage.say(WORKER, m.Printed(1, 1, "late", 0, [4, 1, 0]))

    assert rows(stage, session="s1") == [("s1", 0, "ab"), ("s1", 0, "late")]
    assert rows(stage, session="s2") == []


def test_the_log_of_a_dead_executor_is_still_there() -> None:
    stage = printing([2, 1, 0])
    stage.dies(1, running=0)

    assert rows(stage, executor="node/1") == [("s1", 0, "ab")]


def test_who_is_not_there_has_no_log() -> None:
    stage = printing([2, 1, 0])

    assert "no executor 'node/2'" in answer(stage, executor="node/2").error
    assert "has no task 3" in answer(stage, session="s1", task=3).error
    stage.ready(2)
    assert answer(stage, executor="node/2").error == "", "it is there, and has said nothing"


def test_a_long_log_comes_in_several_answers() -> None:
    stage = printing([])
    for _ in range(50):
        stage.say(WORKER, m.Printed(1, 1, "x" * 1000, 0))

    found = answer(stage, executor="node/1")
    assert found.more == 0
    stage.say(WORKER, m.Printed(1, 1, "y" * 60_000, 0))
    stage.ready(2)
    stage.say(WORKER, m.Printed(2, 1, "z" * 60_000, 0))
    found = answer(stage)
    assert found.more > 0
    assert len(codec.encode(found)) < 200_000


def test_each_executor_keeps_its_latest_and_all_together_have_a_bound() -> None:
    kept = Logs(executor_bytes=1000, total_bytes=2500)
    for number in range(100):
        kept.add("n/1", "s", number, 1, "x" * 50, 0, 0.0)
        kept.check()
    assert [piece.task for piece in kept.find("n/1", "", -1, 0)] == [95, 96, 97, 98, 99]

    for number in range(100, 200):
        kept.add(f"n/{number % 3}", "s", number, 1, "x" * 50, 0, 0.0)
        kept.check()
    shares = [len(list(kept.find(f"n/{executor}", "", -1, 0))) for executor in range(3)]
    assert sum(shares) == 12
    assert min(shares) >= 3, "nobody who prints is forgotten for another"


def test_who_is_silent_for_long_is_forgotten() -> None:
    kept = Logs(executor_bytes=1000, total_bytes=1500)
    kept.add("n/1", "s", 0, 1, "x" * 800, 0, 0.0)
    for number in range(5):
        kept.add("n/2", "s", number, 1, "x" * 100, 0, 0.0)

    assert "n/1" not in kept


def test_a_text_longer_than_all_room_loses_its_beginning() -> None:
    kept = Logs(executor_bytes=1000, total_bytes=1000)
    kept.add("n/1", "s", 0, 1, "a" * 5000 + "end", 0, 0.0)
    kept.check()

    (piece,) = kept.find("n/1", "s", 0, 0)
    assert piece.text.endswith("aend")
    assert piece.size <= 1000


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3), st.text(max_size=300)), max_size=40))
def test_its_sums_are_right_whatever_is_printed(printed: list[tuple[int, int, str]]) -> None:
    kept = Logs(executor_bytes=800, total_bytes=1500)
    for executor, session, text in printed:
        kept.add(f"n/{executor}", f"s{session}", 0, 1, text, 0, 0.0)
        kept.check()
    numbers = [piece.number for piece in kept.find("", "", -1, 0)]
    assert numbers == sorted(numbers)
    assert logs.EXECUTOR_BYTES <= logs.TOTAL_BYTES
