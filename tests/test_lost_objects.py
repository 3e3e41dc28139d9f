"""Objects of a node that is lost: who wanted them is told, soon, and not as if he had failed himself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import flamezmq as flm
from flamezmq.errors import ObjectLost
from tests.daemons import daemons_in
from tests.two_nodes import SIZE, TwoNodes
from tests.waiting import LIMIT_SECONDS, until

pytestmark = pytest.mark.processes


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[TwoNodes]:
    with daemons_in(tmp_path) as daemons:
        cluster = TwoNodes(daemons)
        with cluster.client:
            yield cluster


def test_a_value_whose_node_is_lost_is_an_error_that_names_both(cluster: TwoNodes) -> None:
    future = cluster.made_on(cluster.client, "a")
    cluster.lose("a")
    with pytest.raises(ObjectLost, match=r"node a, which kept it, is lost") as caught:
        future.result(LIMIT_SECONDS)
    error = caught.value
    assert (error.node, error.task_id, error.id) == ("a", "", future._hold.handle.id.hex())
    assert error.size > SIZE


def test_a_task_that_needs_what_is_lost_does_not_run_and_says_so(cluster: TwoNodes, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    patient = flm.options(retries=3)(lambda value: ran.touch())
    future = cluster.made_on(cluster.client, "a")
    cluster.lose("a")
    task = cluster.client.submit(patient, future)
    error = task.exception(LIMIT_SECONDS)
    assert isinstance(error, ObjectLost)
    assert (error.node, error.task_id) == ("a", task.task_id)
    assert f"task {task.task_id} did not run" in str(error)
    assert not hasattr(error, "__notes__"), "its retries were not tried: they are for its own errors"
    assert not ran.exists()


def test_what_waits_for_others_at_the_router_fails_with_them(cluster: TwoNodes, tmp_path: Path) -> None:
    go = tmp_path / "go"

    def slow() -> int:
        until(go.exists, "the word to go on")
        return 1

    client = cluster.client
    there = cluster.made_on(client, "a")
    running = client.submit(slow)
    both = client.submit(lambda *values: len(values), there, running)
    behind = client.submit(abs, both)
    cluster.lose("a")
    go.touch()
    error = both.exception(LIMIT_SECONDS)
    assert isinstance(error, ObjectLost), error
    assert error.node == "a"
    failed = behind.exception(LIMIT_SECONDS)
    assert isinstance(failed, flm.DependencyFailed)
    assert "ObjectLost" in failed.reason
    assert "node a" in failed.reason


def test_a_session_is_closed_though_the_values_of_its_futures_are_lost(cluster: TwoNodes) -> None:
    with cluster.client.session() as session:
        lost = cluster.made_on(session, "a")
        kept = cluster.made_on(session, "b")
        cluster.lose("a")
    assert len(kept.result(0)) == SIZE
    with pytest.raises(ObjectLost):
        lost.result(LIMIT_SECONDS)


def test_an_error_of_a_lost_object_travels_whole() -> None:
    import pickle

    error = ObjectLost("ab" * 16, 5, "nobody listens", "a").of_task("s/1")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert (again.node, again.task_id, again.reason) == ("a", "s/1", "nobody listens")
