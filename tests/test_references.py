"""References: what is put once is read by every task, in lists and dicts, too, and lives as it should."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import flamezmq as flm
from flamezmq import running
from flamezmq.store import access
from flamezmq.wire.handles import Handle, pack, unpack
from tests.waiting import until

numpy = pytest.importorskip("numpy")

pytestmark = pytest.mark.processes
KIB, MIB = 1 << 10, 1 << 20
LIMIT_SECONDS = 20


@pytest.fixture(scope="module")
def client() -> Iterator[flm.Client]:
    with flm.Client("", executors=2) as client:
        client.submit(abs, 1).result(LIMIT_SECONDS)  # before that there may be no node, and no store
        yield client


def total(*arrays: Any) -> float:
    return float(sum(array.sum() for array in arrays))


@dataclass
class Job:
    name: str
    data: Any


# --- putting and reading


def values() -> dict[str, Any]:
    """One of each sort."""
    grid = numpy.arange(40_000.0).reshape(200, 200)
    records = numpy.zeros(5_000, dtype=[("a", "i4"), ("b", "f8", (3,))])
    records["a"] = numpy.arange(5_000)
    return {
        "an int": 17,
        "text": "x" * 100_000,
        "bytes": b"x" * 100_000,
        "no bytes": b"",
        "nothing": None,
        "an array": grid,
        "a small array": numpy.arange(10),
        "an array without elements": numpy.empty((0, 3)),
        "a scalar array": numpy.array(1.5),
        "every second column": grid[:, ::2],
        "a transposed one": grid.T,
        "a structured one": records,
        "a field of it": records["b"],
        "a masked one": numpy.ma.masked_greater(grid, 100),
        "an array of objects": numpy.array([1, "a", None], dtype=object),
        "many": [grid + k for k in range(20)] + [{"k": (grid, "x")}],
        "an array subclass": grid.view(numpy.matrix),
    }


def same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, numpy.ma.MaskedArray):
        return bool((one.mask == other.mask).all() and (one.filled(0) == other.filled(0)).all())
    if isinstance(one, numpy.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and bool((one == other).all())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


@pytest.mark.parametrize("what", values())
def test_what_is_put_is_read_again_here_and_in_a_task(client: flm.Client, what: str) -> None:
    value = values()[what]
    ref = client.put(value)
    assert same(ref.get(), value)
    assert same(ref.get(copy=True), value)
    assert same(flm.private(ref), value)
    assert same(client.submit(lambda x: x, ref).result(LIMIT_SECONDS), value)


@pytest.mark.parametrize("size", [0, 1, 64 * KIB - 300, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 3 * MIB])
def test_sizes_on_both_sides_of_what_has_a_segment_of_its_own(client: flm.Client, size: int) -> None:
    ref = client.put(b"x" * size)
    assert client.submit(len, ref).result(LIMIT_SECONDS) == size
    assert ref.get() == b"x" * size


@pytest.mark.parametrize("maker", ["pandas", "pyarrow"])
def test_tables_are_read_again(client: flm.Client, maker: str) -> None:
    module = pytest.importorskip(maker)
    columns = {"a": list(range(50_000)), "b": [str(k) for k in range(50_000)]}
    table = module.DataFrame(columns) if maker == "pandas" else module.table(columns)
    assert client.submit(lambda x: x, client.put(table)).result(LIMIT_SECONDS).equals(table)


def test_what_is_changed_after_a_put_does_not_reach_the_object(client: flm.Client) -> None:
    array = numpy.zeros(100_000)
    ref = client.put(array)
    array[:] = 1
    assert ref.get().sum() == 0


def test_a_reader_gets_views_without_a_copy_and_may_not_write_to_them(client: flm.Client) -> None:
    ref = client.put(numpy.zeros(100_000))
    view = ref.get()
    assert not view.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1


def test_a_task_may_not_write_to_what_others_read_but_to_its_own(client: flm.Client) -> None:
    def spoil(array: Any) -> None:
        array[0] = 1

    def add(array: Any) -> float:
        mine = flm.private(array)
        mine += 1
        return float(mine.sum())

    ref = client.put(numpy.zeros(100_000))
    with pytest.raises(ValueError, match="read-only") as caught:
        client.submit(spoil, ref).result(LIMIT_SECONDS)
    assert "flm.private(value)" in caught.value.__notes__[0], "it says what to do"
    with pytest.raises(ValueError, match="read-only") as caught:
        list(client.map(spoil, [ref]))
    assert len(caught.value.__notes__) == 1
    assert client.submit(add, ref).result(LIMIT_SECONDS) == 100_000
    again = client.put(ref.get())
    for mine in (flm.private(ref), ref.get(copy=True), flm.private(again), again.get(copy=True)):
        mine += 1
    assert ref.get().sum() == again.get().sum() == 0


def test_many_are_read_at_once_in_their_order(client: flm.Client) -> None:
    refs = [client.put(numpy.full(20_000 if k % 2 else 2, k)) for k in range(450)]  # more than one answer
    assert [array[0] for array in client.get(refs)] == list(range(450))
    assert [array[0] for array in client.get(reversed(refs), copy=True)] == list(reversed(range(450)))
    assert client.get(refs[7])[0] == 7
    assert client.get([]) == []
    with pytest.raises(TypeError, match="gather"):
        client.get([client.submit(abs, 1)])  # type: ignore[list-item]


def test_equal_values_are_stored_once_and_go_each_by_itself(
    client: flm.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = numpy.random.default_rng(1).random(500_000)
    first = client.put(array)
    with monkeypatch.context() as patch:
        patch.setattr(access.Access, "put", None)  # nothing is copied
        twins = [client.put(array.copy(), name=str(k), pin=k == 4) for k in range(5)]
    assert len({first, *twins}) == 6
    gone = has_gone(first)
    client.free(twins[0])
    assert not gone()
    del first
    until(gone)
    assert all((twin.get() == array).all() for twin in twins[1:])
    other = array.copy()
    other[250_000] += 1  # where no sample is taken
    assert (client.put(other).get() == other).all()
    client.free(twins[1:])


def test_what_has_the_samples_of_another_value_and_not_its_bytes_is_put(client: flm.Client) -> None:
    zeros = numpy.zeros(1_000_000, dtype=numpy.uint8)
    refs = [client.put(zeros)]
    for at in (1, 5_000, 500_001, 999_998):
        value = zeros.copy()
        value[at] = 1
        refs.append(client.put(value))
        assert refs[-1].get()[at] == 1
    assert [int(ref.get().sum()) for ref in refs] == [0, 1, 1, 1, 1]


# --- references as things


def test_a_reference_says_what_it_stands_for(client: flm.Client) -> None:
    ref = client.put(numpy.zeros((10, 1000)), name="weights")
    assert "'weights': numpy.ndarray float64 (10, 1000), 80," in repr(ref)
    assert ref.name == "weights"
    assert ref.size > 80_000
    assert "list of 3, " in repr(client.put([1, 2, 3]))
    assert len(pickle.dumps(ref)) < 400


def test_references_are_keys_and_equal_themselves_only_pickled_too(client: flm.Client) -> None:
    first, second = client.put(1), client.put(2)
    again = pickle.loads(pickle.dumps(first))
    assert {first: "a", second: "b"}[again] == "a"
    assert again == first != second
    assert again.get() == 1
    assert repr(again) == repr(first)


def test_a_reference_stands_for_its_value_wherever_in_the_arguments_it_is(client: flm.Client) -> None:
    ref, small = client.put(numpy.ones(100_000)), client.put(numpy.ones(10))

    def look(a: list[Any], b: dict[str, Any], job: Job, *, key: Any) -> list[float]:
        assert a[1] is b["deep"][0] is job.data
        return [float(one.sum()) for one in (a[1], job.data, key)]

    futures = [client.submit(look, [0, ref], {"deep": (ref,)}, Job("j", ref), key=small) for _ in range(3)]
    assert client.gather(futures) == [[100_000.0, 100_000.0, 10.0]] * 3
    assert list(client.map(total, [ref, small, ref])) == [100_000, 10, 100_000]
    assert list(client.map(lambda pair: total(*pair), [(ref, small)] * 20)) == [100_010] * 20


def test_a_reference_a_future_and_a_large_array_go_together(client: flm.Client) -> None:
    ref = client.put(numpy.ones(100_000))
    made = client.submit(numpy.ones, 50_000)
    assert client.submit(total, ref, made, numpy.ones(20_000)).result(LIMIT_SECONDS) == 170_000
    assert client.submit(total, made, ref).result(LIMIT_SECONDS) == 150_000


def test_arguments_that_contain_themselves_are_taken(client: flm.Client) -> None:
    ref = client.put(numpy.ones(100_000))
    loop: list[Any] = [ref]
    loop.append(loop)
    assert client.submit(lambda x: x[1] is x and float(x[0].sum()), loop).result(LIMIT_SECONDS) == 100_000


def test_what_can_not_be_pickled_is_named(client: flm.Client) -> None:
    with pytest.raises(flm.Unpicklable, match=r"the object.*\['a'\]\[1\]"):
        client.put({"a": [1, (k for k in "generator")]})
    with pytest.raises(TypeError, match="name is 3"):
        client.put(1, name=3)  # type: ignore[arg-type]
    with pytest.raises(flm.StrayFuture):
        client.put([client.submit(abs, 1)])


def test_results_are_gathered_in_order_and_the_first_error_comes_at_once(client: flm.Client) -> None:
    def fail() -> None:
        raise LookupError("no")

    ref = client.put("x")
    assert client.gather([client.submit(abs, -1), ref, client.submit(abs, -2)]) == [1, "x", 2]
    assert client.gather([]) == []
    with pytest.raises(LookupError, match="no"):
        client.gather([client.submit(abs, 1), client.submit(fail)])
    with pytest.raises(TypeError, match="neither"):
        client.gather([3])  # type: ignore[list-item]


# --- in tasks


def test_a_task_puts_and_its_caller_reads(client: flm.Client) -> None:
    def make(k: int) -> dict[str, Any]:
        inner = flm.current().client
        return {"large": inner.put(numpy.full(100_000, k)), "small": [inner.put(k)]}

    for k in range(5):
        found = client.submit(make, k).result(LIMIT_SECONDS)
        assert found["large"].get()[0] == k
        assert client.submit(total, found["large"]).result(LIMIT_SECONDS) == 100_000 * k
        assert client.get(found["small"]) == [k]


def test_a_nested_task_gets_the_value_too(client: flm.Client) -> None:
    def outer(array: Any) -> float:
        inner = flm.current().client
        mine = inner.put(array + 1)
        return sum(inner.map(total, [mine, mine])) + inner.submit(total, mine).result()

    assert client.submit(outer, client.put(numpy.zeros(100_000))).result(LIMIT_SECONDS) == 300_000


def test_a_function_that_holds_a_reference_has_the_reference_itself(client: flm.Client) -> None:
    ref = client.put(numpy.ones(100_000))
    assert client.submit(lambda: float(ref.get().sum())).result(LIMIT_SECONDS) == 100_000


# --- how long they live


def is_gone(handle: Handle) -> bool:
    return access.of(handle.home).open([handle])[0] is None


def has_gone(ref: flm.ObjectRef) -> Callable[[], bool]:
    """Whether it is gone from its store; who asks holds nothing there."""
    assert ref._handle is not None
    return partial(is_gone, ref._handle)


def stays(is_gone: Callable[[], bool], client: flm.Client) -> bool:
    """It is still there when all has been done that was to be done by now."""
    other = client.put("other")
    other_is_gone = has_gone(other)
    del other
    until(other_is_gone)
    return not is_gone()


def test_what_was_freed_is_gone_for_all_and_views_of_it_stay(client: flm.Client) -> None:
    refs = [client.put(numpy.ones(100_000)), client.put(1)]
    view = refs[0].get()
    client.free(refs)
    assert all(has_gone(ref)() for ref in refs)
    others = [client.put(numpy.zeros(100_000)) for _ in range(20)]
    assert view.sum() == 100_000
    with pytest.raises(flm.ObjectLost, match="freed"):
        client.submit(total, refs[0]).result(LIMIT_SECONDS)
    client.free(refs[0])
    client.free(others)


def test_an_object_goes_with_the_last_reference_to_it(client: flm.Client) -> None:
    for value in (1, numpy.ones(100_000)):
        ref = client.put(value)
        again, gone = [ref], has_gone(ref)
        del ref
        assert stays(gone, client)
        del again[0]
        until(gone)


def test_views_of_an_object_outlive_it(client: flm.Client) -> None:
    ref = client.put(numpy.ones(100_000))
    view, gone = ref.get(), has_gone(ref)
    del ref
    until(gone)
    others = [client.put(numpy.zeros(100_000)) for _ in range(20)]
    assert view.sum() == 100_000
    assert all(other.get().sum() == 0 for other in others)


def read(ref: flm.ObjectRef) -> float:
    return float(ref.get().sum())


def give(value: Any) -> dict[str, Any]:
    return {"ref": flm.current().client.put(value)}


def test_a_reference_in_a_result_holds_its_object_until_nobody_has_either(client: flm.Client) -> None:
    for value in (5, numpy.full(100_000, 5)):
        futures = [client.submit(give, value) for _ in range(20)]
        flm.wait(futures)
        refs = [future.result()["ref"] for future in futures[:10]]
        gone = [has_gone(ref) for ref in refs]
        del futures  # of half of them nobody has looked at the result
        assert all(stays(is_gone, client) for is_gone in gone)
        assert all(numpy.max(ref.get()) == 5 for ref in refs)
        del refs
        for is_gone in gone:
            until(is_gone)


def test_a_reference_inside_another_object_holds_its_own(client: flm.Client) -> None:
    inner = client.put(numpy.ones(100_000))
    gone = has_gone(inner)
    middle = client.put({"inner": inner})
    outer = client.put([middle])
    del inner, middle
    assert stays(gone, client)
    inner = client.submit(lambda refs: refs[0].get()["inner"], outer).result(LIMIT_SECONDS)
    assert inner.get().sum() == 100_000
    del outer
    assert stays(gone, client)
    del inner
    until(gone)


def test_what_is_pickled_where_nobody_counts_stays_until_the_session_ends(client: flm.Client) -> None:
    with client.session("short") as session:
        ref = session.put(numpy.ones(100_000))
        gone = has_gone(ref)
        text = pickle.dumps(ref)
        future = session.submit(partial(read, ref))
        del ref
        assert stays(gone, client)
        assert pickle.loads(text).get().sum() == future.result(LIMIT_SECONDS) == 100_000
        assert stays(gone, client)
    until(gone)


def test_what_is_pinned_stays_until_it_is_freed(client: flm.Client) -> None:
    with client.session("short") as session:
        ref = session.put(numpy.ones(100_000), pin=True)
        again, gone, other_gone = pickle.dumps(ref), has_gone(ref), has_gone(session.put(1))
        del ref
    until(other_gone)
    with client.session("other") as session:
        ref = pickle.loads(again)
        assert session.submit(total, ref).result(LIMIT_SECONDS) == 100_000
        session.free(ref)
        assert gone()


def put_and_die(file: str) -> None:
    ref = flm.current().client.put(numpy.ones(100_000))
    assert ref._handle is not None
    Path(file).write_bytes(pack(ref._handle))
    os.kill(os.getpid(), signal.SIGKILL)


def return_and_die(file: str) -> Any:
    """Its result is put, and never sent."""
    assert running.executor is not None
    keeper = running.executor.keeper
    keep = keeper.keep

    def keep_and_die(*args: Any) -> None:
        kept = keep(*args)
        assert kept is not None
        Path(file).write_bytes(kept.payload)
        os.kill(os.getpid(), signal.SIGKILL)

    keeper.keep = keep_and_die  # type: ignore[method-assign,assignment]
    return numpy.ones(100_000)


@pytest.mark.parametrize("work", [put_and_die, return_and_die])
def test_what_a_killed_executor_has_put_goes_with_it(
    client: flm.Client, work: Callable[[str], Any], tmp_path: Path
) -> None:
    kept = client.submit(numpy.ones, 100_000)  # of the same executor, maybe
    assert kept.result(LIMIT_SECONDS).sum() == 100_000
    with client.session("deadly", max_retries=0) as session, pytest.raises(flm.TaskLost):
        session.submit(work, str(tmp_path / "handle")).result(LIMIT_SECONDS)
    handle = unpack((tmp_path / "handle").read_bytes())
    until(partial(is_gone, handle))
    assert client.submit(total, kept).result(LIMIT_SECONDS) == 100_000


def test_the_result_of_a_task_that_was_cancelled_goes(client: flm.Client) -> None:
    def work() -> Any:
        return numpy.ones(100_000)

    futures = [client.submit(work) for _ in range(50)]
    client._own().cancel(futures, running=True)
    handles = [future._hold.handle for future in futures if future._hold is not None]
    del futures
    for handle in handles:
        until(partial(is_gone, handle))


def test_what_a_nested_task_has_put_outlives_its_task(client: flm.Client) -> None:
    def inner(k: int) -> flm.ObjectRef:
        return flm.current().client.put(numpy.full(100_000, k))

    def outer(count: int) -> list[flm.ObjectRef]:
        mine = flm.current().client
        time.sleep(0.05)  # so that others begin some of them
        return [future.result() for future in [mine.submit(inner, k) for k in range(count)]]

    refs = client.submit(outer, 6).result(LIMIT_SECONDS)
    gone = [has_gone(ref) for ref in refs]
    assert [ref.get()[0] for ref in refs] == list(range(6))
    assert {ref.session_id for ref in refs} == {client._own().id}
    del refs
    for is_gone in gone:
        until(is_gone)


def test_a_forked_child_lets_go_of_nothing_that_its_parent_has(client: flm.Client) -> None:
    ref = client.put(numpy.ones(100_000))
    gone = has_gone(ref)
    pid = os.fork()
    if not pid:
        del ref
        client._objects.holdings.drop()
        client._objects.holdings.close()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert stays(gone, client)


def test_a_task_has_its_argument_though_its_caller_drops_the_reference(client: flm.Client) -> None:
    futures = [client.submit(total, client.put(numpy.ones(100_000))) for _ in range(20)]
    assert client.gather(futures) == [100_000] * 20


def test_objects_go_with_their_session(client: flm.Client) -> None:
    with client.session("short") as session:
        ref = session.put(numpy.ones(100_000))
        assert ref.session_id == session.id
    until(has_gone(ref))
    with pytest.raises(flm.ClientClosed):
        session.put(1)


def test_where_no_store_is_in_reach_the_value_travels_in_the_reference(
    client: flm.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client._objects, "find", lambda wait=False: "")
    for value in (numpy.ones(100_000), "text", [numpy.ones(10_000)] * 3):
        ref = client.put(value)
        assert same(ref.get(), value)
        assert same(client.submit(lambda x: x, ref).result(LIMIT_SECONDS), value)
        assert same(pickle.loads(pickle.dumps(ref)).get(), value)
    with pytest.raises(ValueError, match="read-only"):
        client.put(numpy.ones(100_000)).get()[0] = 1


def test_the_first_thing_that_a_program_does_may_be_a_put() -> None:
    with flm.Client("", executors=1) as client:
        assert client.put(numpy.ones(100_000))._handle is not None, "it did not wait for the worker"


# --- event loops


def test_event_loops_put_and_read() -> None:
    async def main() -> None:
        async with flm.aio.Client("", executors=1) as client, client.session("objects") as session:
            for owner in (client, session):
                refs = [await owner.put(numpy.full(100_000, k), name=str(k)) for k in range(3)]
                assert [array[0] for array in await owner.get(refs)] == [0, 1, 2]
                assert (await owner.get(refs[1], copy=True))[0] == 1
                sums = [owner.submit(total, ref) for ref in refs]
                assert await owner.gather(sums) == [0, 100_000, 200_000]
                assert (await owner.gather([refs[2]]))[0][0] == 2
                assert [value async for value in owner.map(total, refs)] == [0, 100_000, 200_000]
                with pytest.raises(TypeError, match="neither"):
                    await owner.gather([3])  # type: ignore[list-item]
                await owner.free(refs[0])
                with pytest.raises(flm.ObjectLost):
                    await owner.get(refs)

    asyncio.run(main())
