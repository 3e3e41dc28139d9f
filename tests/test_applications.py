"""Applications in real executors: who shares a process, what is registered, what is refused."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flamezmq as flm
from tests.services import Diary, register, service_session

pytestmark = pytest.mark.processes

LIMIT_SECONDS = 30.0


@pytest.fixture
def cluster() -> Iterator[flm.Client]:
    with flm.testing.cluster(executors=2, forward_output=False) as client:
        yield client


# --- who shares a process


class Leaky:
    def on_task_invoke(self, ctx: flm.Context) -> tuple[int, list[str]]:
        sys.modules.setdefault("left_behind", type(sys)("left_behind"))
        module = sys.modules["left_behind"]
        seen = list(getattr(module, "names", []))
        module.names = [*seen, ctx.session_id]  # type: ignore[attr-defined]
        return os.getpid(), seen


def visits(client: flm.Client, tenants: list[str]) -> list[tuple[int, list[str]]]:
    found = []
    for tenant in tenants:
        with service_session(client, "s", app="leaky", tenant=tenant) as session:
            found.append(session.submit().result(LIMIT_SECONDS))
    return found


def test_with_isolation_app_a_process_serves_the_next_session_of_its_tenant_only() -> None:
    with flm.testing.cluster(executors=1) as client:
        register(client, Leaky, "leaky")
        (a, none), (b, a_s), (c, nothing) = visits(client, ["a", "a", "b"])

    assert a == b != c
    assert (none, len(a_s), nothing) == ([], 1, [])


def test_with_isolation_session_each_session_has_a_process_of_its_own() -> None:
    with flm.testing.cluster(executors=1) as client:
        before = client.submit(os.getpid).result(LIMIT_SECONDS)
        register(client, Leaky, "leaky", isolation="session")
        found = visits(client, ["a", "a", "a"])
        after = client.submit(os.getpid).result(LIMIT_SECONDS)

    assert len({before, after, *(pid for pid, _ in found)}) == 5
    assert all(seen == [] for _, seen in found)


def test_variables_and_folder_of_a_service_are_there_while_it_is_bound_and_no_longer(tmp_path: Path) -> None:
    class Where:
        def on_task_invoke(self, ctx: flm.Context) -> tuple[str, str | None]:
            return os.getcwd(), os.environ.get("MODEL")

    def here() -> tuple[str, str | None]:
        return os.getcwd(), os.environ.get("MODEL")

    with flm.testing.cluster(executors=1) as client:
        before = client.submit(here).result(LIMIT_SECONDS)
        register(client, Where, "where", working_directory=str(tmp_path), environment={"MODEL": "large"})
        with service_session(client, app="where") as session:
            assert session.submit().result(LIMIT_SECONDS) == (str(tmp_path), "large")
        assert client.submit(here).result(LIMIT_SECONDS) == before


# --- registering


def test_what_is_registered_is_listed_and_is_not_changed_while_it_is_used(cluster: flm.Client) -> None:
    register(cluster, Leaky, "leaky", description="leaves names behind", labels={"team": "a"})
    with service_session(cluster, "mine", app="leaky") as session:
        (info,) = cluster.applications()
        assert (info.name, info.shim, info.labels, info.sessions) == (
            "leaky",
            "python",
            {"team": "a"},
            (session.id,),
        )
        with pytest.raises(flm.Refused, match=f"while sessions of it are open: {session.id}"):
            cluster.update(flm.Application(name="leaky", service=Diary))
        with pytest.raises(flm.Refused, match=session.id):
            cluster.unregister("leaky")

    cluster.update(flm.Application(name="leaky", service=Diary))
    cluster.unregister("leaky")
    assert cluster.applications() == []
    with pytest.raises(flm.NotFound):
        cluster.unregister("leaky")
    with pytest.raises(flm.Refused, match="knows no application 'leaky'; none is registered"):
        cluster.session(app="leaky")


def test_an_updated_service_is_the_one_that_runs(cluster: flm.Client) -> None:
    class Old:
        def on_task_invoke(self, ctx: flm.Context) -> str:
            return "old"

    class New:
        def on_task_invoke(self, ctx: flm.Context) -> str:
            return "new"

    register(cluster, Old, "age")
    with service_session(cluster, app="age") as session:
        assert session.submit().result(LIMIT_SECONDS) == "old"
    cluster.update(flm.Application(name="age", service=New))
    with service_session(cluster, app="age") as session:
        assert {future.result(LIMIT_SECONDS) for future in [session.submit() for _ in range(20)]} == {"new"}


def test_a_service_may_be_named_where_executors_can_import_it(
    cluster: flm.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models_of_mine.py").write_text(
        "class Double:\n    def on_task_invoke(self, ctx, x):\n        return 2 * x\n"
    )
    cluster.register(flm.Application(name="double", service="models_of_mine:Double"))
    monkeypatch.syspath_prepend(tmp_path)

    with service_session(cluster, app="double") as session:
        assert session.submit(4).result(LIMIT_SECONDS) == 8


def test_the_client_for_event_loops_takes_sessions_with_an_application() -> None:
    async def main() -> tuple[int, list[int]]:
        async with flm.aio.Client("", executors=1) as client:
            assert client._behind is not None
            register(client._behind, Double, "double")
            async with client.session(app="double") as session:
                return await session.submit(2), [x async for x in session.map(range(3))]

    assert asyncio.run(main()) == (4, [0, 2, 4])


class Double:
    def on_task_invoke(self, ctx: flm.Context, x: int) -> int:
        return 2 * x


def open_inside() -> None:
    flm.current().client.session(app="double")


def test_a_task_can_not_open_a_session_with_an_application(cluster: flm.Client) -> None:
    error = cluster.submit(open_inside).exception(LIMIT_SECONDS)
    assert isinstance(error, ValueError)
    assert "a task can't open a session with an application" in str(error)
    assert "submit(client.submit(" in str(error), "what to do instead"


def test_a_task_has_its_result_served_by_the_way_of_futures(cluster: flm.Client) -> None:
    register(cluster, Double, "double")
    with service_session(cluster, app="double") as service:
        assert service.submit(cluster.submit(abs, -4)).result(LIMIT_SECONDS) == 8


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"name": ""}, "a text that can be printed"),
        ({"shim": "cobol"}, "no `shim` 'cobol'"),
        ({"service": None}, "needs a `service`"),
        ({"service": object}, "no method on_task_invoke"),
        ({"service": "no colon"}, "write module:Class"),
        ({"command": "ls"}, "not for the shim python"),
        ({"schema": {"input": {}}}, "not for the shim python"),
        ({"isolation": "none"}, "`isolation` is 'app' or 'session', not 'none'"),
        ({"bind_retries": 0}, "`bind_retries`"),
        ({"options": {"session_timeout": 0}}, "session_timeout is a number of seconds above 0"),
        ({"options": {"timeout": 1}}, "the shim python has no option 'timeout'; there are session_timeout"),
        ({"grace": 1000.0}, "`grace`"),
        ({"environment": {"A": 1}}, "`environment`: expected `str`, got `int`"),
        ({"environment": {"A=": "1"}}, "`environment` can't have 'A='"),
        ({"labels": {1: "a"}}, "a key in `labels`: expected `str`, got `int`"),
        ({"schema": {"inputs": {}}}, "there may be input"),
    ],
)
def test_what_is_wrong_with_an_application_is_said_before_it_travels(
    wrong: dict[str, Any], words: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=words):
        flm.Application(**{"name": "n", "service": Double, **wrong})


def test_a_service_that_could_not_be_called_is_refused_where_it_is_written() -> None:
    class Greedy:
        def __init__(self, model: str) -> None: ...
        def on_task_invoke(self, ctx: flm.Context, x: int) -> None: ...

    class Blind:
        def on_task_invoke(self) -> None: ...

    class Wordy:
        def on_session_enter(self, ctx: flm.Context, model: str) -> None: ...
        def on_task_invoke(self, ctx: flm.Context) -> None: ...

    class Free:
        def __init__(self, model: str = "") -> None: ...
        def on_task_invoke(self, *args: object) -> None: ...
        @staticmethod
        def on_session_enter(ctx: flm.Context) -> None: ...

    with pytest.raises(TypeError, match=r"Greedy.__init__ is called without arguments .* missing .* 'model'"):
        flm.service(Greedy)
    with pytest.raises(TypeError, match=r"Blind.on_task_invoke is called as \(self, ctx, \.\.\.\), but"):
        flm.service(Blind)
    with pytest.raises(TypeError, match=r"Wordy.on_session_enter is called as \(self, ctx\), but .*'model'"):
        flm.service(Wordy)
    assert flm.service(Free) is Free


def test_a_method_that_looks_like_a_hook_and_is_none_is_refused() -> None:
    with pytest.raises(TypeError, match="on_session_entr is no hook"):

        @flm.service
        class Typo:
            def on_task_invoke(self, ctx: flm.Context) -> None: ...
            def on_session_entr(self, ctx: flm.Context) -> None: ...
