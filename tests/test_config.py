"""Settings: who wins, what is refused and how, and that every one of them is documented."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

import flamezmq as flm
from flamezmq import config
from flamezmq.cli import router, worker
from flamezmq.config import TABLES, Option

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No file in any place, nothing in the environment."""
    for table, options in TABLES.items():
        for option in options:
            for variable in option.variables(table):
                monkeypatch.delenv(variable, raising=False)
    monkeypatch.delenv(config.FILE_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def file_with(text: str) -> None:
    Path(config.FILE_NAME).write_text(text, encoding="utf-8")


# --- who wins


def test_flags_win_over_the_environment_that_over_the_file_that_over_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert config.settings("worker")["drain_seconds"] == 10
    file_with("[worker]\ndrain_seconds = 3\n")
    assert config.settings("worker")["drain_seconds"] == 3
    monkeypatch.setenv("FLAMEZMQ_WORKER_DRAIN_SECONDS", "2.5")
    assert config.settings("worker")["drain_seconds"] == 2.5
    assert config.settings("worker", {"drain_seconds": 0.0})["drain_seconds"] == 0


def test_the_first_file_that_exists_is_read_alone(tmp_path: Path) -> None:
    home = tmp_path / "home" / "flamezmq"
    home.mkdir(parents=True)
    (home / config.FILE_NAME).write_text("[worker]\nexecutors = 7\nnode = 'home'\n")
    assert config.settings("worker")["executors"] == 7

    file_with("[worker]\nexecutors = 8\n")

    found = config.settings("worker")
    assert (found["executors"], found["node"]) == (8, None)


def test_a_file_can_be_named_and_none_can_be_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_with("[worker]\nexecutors = 8\n")
    other = tmp_path / "other.toml"
    other.write_text("[worker]\nexecutors = 9\n")

    assert config.settings("worker", file=str(other))["executors"] == 9
    monkeypatch.setenv(config.FILE_VARIABLE, str(other))
    assert config.settings("worker")["executors"] == 9
    monkeypatch.setenv(config.FILE_VARIABLE, "")
    assert config.settings("worker")["executors"] is None
    with pytest.raises(flm.ConfigError, match=r"nowhere\.toml: can't be read: No such file"):
        config.settings("worker", file="nowhere.toml")


def test_a_worker_takes_the_address_that_clients_take_unless_it_has_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLAMEZMQ_ADDRESS", "tcp://a:1")
    assert config.settings("worker")["router"] == config.settings("client")["address"] == "tcp://a:1"
    monkeypatch.setenv("FLAMEZMQ_WORKER_ROUTER", "tcp://b:2")
    assert config.settings("worker")["router"] == "tcp://b:2"


def test_a_client_reads_the_file_too(monkeypatch: pytest.MonkeyPatch) -> None:
    file_with("[client]\naddress = 'ipc:///nowhere/at/all'\nconnect_timeout = 0.2\n")

    with pytest.raises(flm.RouterLost, match=r"no router answers at ipc:///nowhere/at/all \(waited 0.2 s\)"):
        flm.Client()


# --- what is refused


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[router]\nbnid = 'tcp://a:1'\n", "toml:2: unknown key 'bnid' in [router]; did you mean 'bind'?"),
        ("[router]\n\nzzz = 1\n", "flamezmq.toml:3: unknown key 'zzz' in [router]; there are bind, insecure"),
        ("[ruoter]\nbind = 'tcp://a:1'\n", "flamezmq.toml:1: unknown table [ruoter]; did you mean 'router'?"),
        ("router = 3\n", "flamezmq.toml:1: router is a table: write [router]"),
        ("[worker]\n[router]\nbind = 'a:1'\n", "flamezmq.toml:3: bind in [router]: 'a:1' is not an address"),
        ("[worker]\nexecutors = '4'\n", "toml:2: executors in [worker]: '4' is not an integer from 1"),
        ("[worker]\nexecutors = 0\n", "0 is not an integer from 1"),
        ("[worker]\nexecutors = true\n", "True is not an integer from 1"),
        ("[worker]\ndrain_seconds = nan\n", "nan is not a number from 0"),
        ("[worker]\nnode = ''\n", "'' is not a text that is not empty"),
        ("[router]\nlog_format = 'xml'\n", "'xml' is not one of auto, text, json"),
        ("[router]\ninsecure = 'yes'\n", "'yes' is not true or false"),
        ("[tenants.a]\nqueued = 3\n", "unknown key 'queued' in [tenants.a]; did you mean 'queued_tasks'?"),
        ("[tenants]\na = 3\n", "flamezmq.toml:2: a tenant is a table: write [tenants.a]"),
        ("[tenants.a]\nqueued_bytes = '1q'\n", "queued_bytes in [tenants.a]: a size is given as '64m'"),
        ("[tenants.a]\n[tenants.\"b c\"]\nqueued_tasks = 0\n", "toml:3: queued_tasks in [tenants.b c]"),
        ("[router\n", "flamezmq.toml: Expected ']' at the end of a table declaration (at line 1, column 8)"),
    ],
)  # fmt: skip
def test_what_the_file_says_wrong_is_named_with_its_line(text: str, complaint: str) -> None:
    file_with(text)

    with pytest.raises(flm.ConfigError) as caught:
        config.settings("client")  # whoever reads the file checks all of it

    assert complaint in str(caught.value)


def test_what_the_file_says_of_tenants_is_read_by_their_names() -> None:
    assert config.tenants() == {}
    file_with("[tenants.research]\nqueued_tasks = 5\n[tenants.'*']\nqueued_bytes = '1.5m'\n")

    assert config.tenants() == {"research": {"queued_tasks": 5}, "*": {"queued_bytes": 3 << 19}}


@pytest.mark.parametrize(
    ("variable", "text", "complaint"),
    [
        ("FLAMEZMQ_WORKER_EXECUTORS", "many", "'many' is not an integer from 1"),
        ("FLAMEZMQ_WORKER_DRAIN_SECONDS", "-1", "-1.0 is not a number from 0"),
        ("FLAMEZMQ_ADDRESS", "here", "'here' is not an address (tcp://HOST:PORT or ipc://PATH)"),
    ],
)
def test_what_the_environment_says_wrong_is_named(
    variable: str, text: str, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, text)

    with pytest.raises(flm.ConfigError) as caught:
        config.settings("worker")

    assert str(caught.value) == f"{variable} in the environment: {complaint}"


@pytest.mark.parametrize("text", ["1", "true", "Yes", "on"])
def test_a_switch_has_several_words_in_the_environment(text: str) -> None:
    assert Option("x", "switch", False, "").parse(text) is True


# --- the commands


@pytest.mark.parametrize(("command", "table"), [(router.command, "router"), (worker.command, "worker")])
def test_the_help_names_every_option_its_default_and_its_variables(command, table: str) -> None:
    text = re.sub(r"\s+", " ", CliRunner().invoke(command, ["--help"]).output)

    for option in TABLES[table]:
        assert option.flag in text
        assert f"default: {option.default_in_words}; environment: " in text
        for variable in option.variables(table):
            assert variable in text
        assert option.help in text


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--drain-seconds", "-1"], "'--drain-seconds': -1.0 is not a number from 0"),
        (["--bind", "here"], "'--bind': 'here' is not an address"),
        (["--log-level", "loud"], "'--log-level': 'loud' is not one of debug, info, warning, error"),
        (["--config", "nowhere.toml"], "nowhere.toml: can't be read"),
        (["--nonsense"], "No such option"),
    ],
)
def test_a_wrong_flag_is_refused_with_what_was_expected(words: list[str], complaint: str) -> None:
    done = CliRunner().invoke(router.command, words)

    assert done.exit_code == 2
    assert complaint in done.output


def test_the_example_in_deploy_says_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    example = ROOT / "deploy" / "flamezmq.toml"
    tables = config.load(str(example))

    assert tables.keys() == TABLES.keys()
    defaults = {
        (table, option.name): option.default for table, options in TABLES.items() for option in options
    }
    for table, values in tomllib.loads(example.read_text()).items():
        for name, value in values.items():
            assert value == defaults[table, name] or (table, name) == ("client", "address")


@pytest.mark.parametrize(("unit", "command"), [("flmrouter", router.command), ("flmworker", worker.command)])
def test_the_units_in_deploy_use_flags_that_there_are(unit: str, command) -> None:
    text = (ROOT / "deploy" / f"{unit}.service").read_text(encoding="utf-8")
    (start,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    known = {flag for option in command.params for flag in option.opts}

    assert start.split()[0].endswith(f"/{unit}")
    assert set(re.findall(r"(?<!\S)--[\w-]+", start)) <= known
    assert re.search(r"^Type=notify$", text, re.MULTILINE)
    stop = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert stop is not None
    assert int(stop[1]) > config.option(unit.removeprefix("flm"), "drain_seconds").default


def test_no_two_options_share_a_variable_but_the_address() -> None:
    seen = [v for table, options in TABLES.items() for option in options for v in option.variables(table)]
    own = [variable for variable in seen if variable != "FLAMEZMQ_ADDRESS"]

    assert len(own) == len(set(own))
    assert config.FILE_VARIABLE not in own


# --- what the pages show


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_each_file_of_settings_that_a_page_shows_is_understood(page: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"^```toml\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    for block in blocks:
        file = tmp_path / "flamezmq.toml"
        file.write_text(block)
        assert config.load(str(file))
    assert blocks or page.name != "sharing.md", "its example is no longer looked at"
