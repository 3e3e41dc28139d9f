"""Runs of tasks: cut, left out and put together, no task is lost, doubled or moved."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from flamezmq.core.tasks import Function, Run, extract, merge
from flamezmq.wire import messages as m

F = Function(9, b"blob", "f")


def run_of(first: int, count: int, done: int = 0, attempt: int = 1) -> Run:
    run = Run(F, first, attempt, [b"%d" % index for index in range(first, first + count)], False)
    run.done = done
    return run


def tasks(run: Run) -> list[tuple[int, bytes]]:
    """(index, input) of each task that is still there."""
    return list(zip(range(run.start, run.end), run.inputs[run.done :], strict=True))


def as_they_were(first: int, end: int) -> list[tuple[int, bytes]]:
    return [(index, b"%d" % index) for index in range(first, end)]


def test_taking_cuts_off_the_front_and_leaves_the_rest() -> None:
    run = run_of(10, 5, done=1, attempt=3)

    part = run.take(2)

    assert tasks(part) == as_they_were(11, 13)
    assert tasks(run) == as_they_were(13, 15)
    assert (part.attempt, part.function, len(part), len(run)) == (3, F, 2, 2)
    assert run.slice() == m.Slice(9, 13, 2, 3)


def test_between_copies_and_changes_nothing() -> None:
    run = run_of(10, 5, done=1)
    run.estimate = 0.5

    part = run.between(12, 14)

    assert tasks(part) == as_they_were(12, 14)
    assert part.estimate == 0.5
    assert tasks(run) == as_they_were(11, 15)


def test_without_nothing_it_stays_the_same_run() -> None:
    run = run_of(0, 3)
    assert list(run.without({7})) == [run]
    assert list(run.without({0, 1, 2})) == []


some_run = st.builds(
    lambda first, count, done: run_of(first, count, min(done, count - 1)),
    st.integers(0, 20),
    st.integers(1, 12),
    st.integers(0, 5),
)
some_indices = st.sets(st.integers(0, 35))


@given(some_run, some_indices)
def test_without_leaves_exactly_the_others_in_their_order(run: Run, unwanted: set[int]) -> None:
    before = tasks(run)

    left = [task for part in run.without(unwanted) for task in tasks(part)]

    assert left == [task for task in before if task[0] not in unwanted]


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), some_indices)
def test_extract_takes_what_is_there_and_keeps_the_order_of_the_rest(
    counts: list[int], wanted: set[int]
) -> None:
    runs: deque[Run] = deque()
    end = 0
    for count in counts:
        runs.append(run_of(end, count))
        end += count

    found = extract(runs, wanted)

    assert found == sorted(index for index in wanted if index < end)
    left = [task for run in runs for task in tasks(run)]
    assert left == [task for task in as_they_were(0, end) if task[0] not in wanted]


def test_merge_sorts_by_index() -> None:
    late, early = run_of(5, 2), run_of(0, 3)
    assert merge([late, early]) == [early, late]


def test_a_function_learns_its_run_time_and_forgets_old_ones_slowly() -> None:
    function = Function(1, b"", "f")
    assert function.seconds == -1.0

    function.learn(1.0, 100)
    assert function.seconds == 0.01, "the first is taken as it is"
    function.learn(0.2, 10)
    assert 0.01 < function.seconds < 0.02
    for _ in range(50):
        function.learn(0.2, 10)
    assert abs(function.seconds - 0.02) < 1e-6
    function.learn(0.0, 5)
    assert function.seconds > 0, "no task takes no time at all"
