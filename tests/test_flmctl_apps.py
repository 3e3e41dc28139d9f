"""Applications in YAML, and `flmctl register`, `update`, `unregister`, `list --apps`, `view --app`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flamezmq as flm
from flamezmq.cli.app_file import Mistake, read
from tests.test_flmctl import COMMAND, environment, run

pytestmark = pytest.mark.processes

LIMIT_SECONDS = 20.0
GOOD = """\
name: doubler
service: doubling_of_mine:Double
description: twice as much
labels:
  team: blue
environment: {FACTOR: "2"}
max_executors: 3
delay_release: 1.5
isolation: session
bind_retries: 2
"""


@pytest.fixture
def client() -> Iterator[flm.Client]:
    with flm.testing.cluster(executors=1, forward_output=False) as client:
        yield client


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "app.yaml"
    path.write_text(GOOD)
    return path


# --- the file


def test_a_file_describes_what_an_application_describes() -> None:
    application = read("app.yaml", GOOD)

    assert application == flm.Application(
        name="doubler",
        service="doubling_of_mine:Double",
        description="twice as much",
        labels={"team": "blue"},
        environment={"FACTOR": "2"},
        max_executors=3,
        delay_release=1.5,
        isolation="session",
        bind_retries=2,
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1: an application is a mapping"),
        ("- name\n", "line 1: an application is a mapping"),
        ("name: a\nservise: m:C\n", "line 2: there is no key 'servise'; there are name, shim, service"),
        ("name: a\nservice: m:C\nname: b\n", "line 3: `name` is said a second time"),
        ("# mine\nservice: m:C\n", "line 2: there is no `name`"),
        (
            "name: a\nservice: m:C\nbind_retries: many\n",
            "line 3: `bind_retries`: expected an integer, got a text",
        ),
        ("name: a\nservice: m:C\nbind_retries: 0\n", "line 3: `bind_retries`: expected an integer, from 1"),
        ("name: a\nservice: [m, C]\n", "line 2: `service`: expected a text, got a list"),
        (
            "name: a\nservice: m:C\nlabels:\n  x: y\n  n: 1\n",
            "line 5: `labels.n`: expected a text, got an integer; put it in quotes",
        ),
        (
            "name: a\nshim: stdio\ncommand: cat\narguments:\n- x\n- 1\n",
            "line 6: `arguments`: expected a text",
        ),
        (
            "name: a\nservice: m:C\nisolation: none\n",
            "line 3: `isolation`: expected app or session, got 'none'",
        ),
        ("name: a\nservice: m:C\ngrace: 100\n", "line 3: application a: `grace`"),
        ("name: a\nservice: no colon\n", "line 2: 'no colon' names no `service`; write module:Class"),
        ("name: a\nshim: cobol\n", "line 2: application a: there is no `shim` 'cobol'; those"),
        (
            "name: a\nservice: m:C\ndelay_release: .inf\n",
            "line 3: `delay_release`: expected a number, up to 1",
        ),
        (
            "name: a\nshim: stdio\ncommand: cat\noptions:\n  payload: json\n  frame: x\n",
            "line 6: application a",
        ),
        ("name: a\nshim: stdio\ncommand: cat\noptions:\n  framing: x\n", "line 5: application a: the option"),
        ("name: a\nservice: m:C\n[b]: c\n", "line 3: there is no key ['b']"),
        ("name: a\nservice: m:C\n? {b: c}\n: d\n", "line 3: there is no key {'b': 'c'}"),
        (
            "name: a\nservice: m:C\nenvironment:\n  A=B: c\n",
            "line 3: application a: `environment` can't have",
        ),
        ("name: a\n", "needs a `service`, a class"),
        ("name: a\nservice: {m: C\n", "line 3: no YAML: expected ',' or '}'"),
        (
            "name: a\nservice: !!python/object:os.system m\n",
            "line 2: no YAML: could not determine a constructor",
        ),
        ("name: \x00\n", "line 1: no YAML"),
    ],
)
def test_what_is_wrong_is_refused_with_its_line_and_what_was_expected(text: str, words: str) -> None:
    with pytest.raises(Mistake) as refused:
        read("app.yaml", text)

    assert str(refused.value).startswith("app.yaml, line ")
    assert words in str(refused.value)


def test_what_may_be_none_may_be_left_empty() -> None:
    application = read("app.yaml", "name: a\nservice: m:C\nmax_executors: null\nworking_directory:\n")

    assert application == flm.Application(name="a", service="m:C")


def test_mistakes_on_standard_input_are_told_as_such() -> None:
    done = subprocess.run(
        [*COMMAND, "register", "-f", "-"],
        input="name: a\nservise: m:C\n",
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        env=environment(),
        check=False,
    )

    assert done.returncode == 2
    assert done.stderr.startswith("flmctl: standard input, line 2: there is no key 'servise'")


def test_a_file_that_is_no_text_is_refused_with_its_line(file: Path) -> None:
    file.write_bytes(b"name: a\nservice: \xff\n")

    done = run("register", "-f", str(file))

    assert done.returncode == 2
    assert done.stderr == f"flmctl: {file}, line 2: no YAML: this is no text in UTF-8.\n"


# --- the commands


def ctl(client: flm.Client, *words: str) -> subprocess.CompletedProcess[str]:
    return run(*words, address=client.address)


def of(client: flm.Client, *words: str) -> Any:
    done = ctl(client, *words, "-o", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_application_comes_from_a_file_is_shown_is_used_and_goes(
    client: flm.Client, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "doubling_of_mine.py").write_text(
        "import os\nclass Double:\n    def on_task_invoke(self, ctx, x):\n"
        "        return int(os.environ['FACTOR']) * x\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    done = ctl(client, "register", "-f", str(file))
    assert (done.returncode, done.stdout) == (0, "application doubler is registered\n")
    with client.session(app="doubler") as session:
        double: Any = session.submit
        assert double(4).result(LIMIT_SECONDS) == 8
        (row,) = of(client, "list", "--apps")
        assert (row["name"], row["open_sessions"], row["sessions"]) == ("doubler", 1, [session.id])
        shown = ctl(client, "view", "--app", "doubler").stdout
        assert "FACTOR=2" in shown
        assert session.id in shown
        for words in (("unregister", "doubler"), ("update", "-f", str(file))):
            refused = ctl(client, *words)
            assert refused.returncode == 1
            assert refused.stderr.endswith(f"while sessions of it are open: {session.id}\n")

    file.write_text(GOOD.replace("twice as much", "two of them"))
    assert ctl(client, "register", "-f", str(file)).returncode == 1, "another one of its name"
    assert of(client, "update", "-f", str(file))["text"] == "application doubler is updated"
    assert of(client, "view", "--app", "doubler")["description"] == "two of them"
    assert ctl(client, "unregister", "doubler").returncode == 0
    assert of(client, "list", "--apps") == []
    assert ctl(client, "unregister", "doubler").returncode == 4
    assert ctl(client, "view", "--app", "doubler").returncode == 4


def test_a_file_that_is_wrong_is_wrong_usage_and_nobody_is_asked(file: Path) -> None:
    file.write_text(GOOD + "colour: red\n")

    done = run("register", "-f", str(file))

    assert done.returncode == 2
    assert f"{file}, line 11: there is no key 'colour'" in done.stderr


def test_a_table_of_applications_has_a_line_for_each(client: flm.Client, file: Path) -> None:
    ctl(client, "register", "-f", str(file))

    head, line = ctl(client, "list", "--apps").stdout.splitlines()

    assert head.split() == ["Name", "Shim", "Sessions", "Registered", "Description"]
    assert line.split()[:3] == ["doubler", "python", "0"]
