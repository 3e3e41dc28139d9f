"""flmctl on a terminal: top and how it is left, colours, completion; and the page about it."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

import flamezmq as flm
from tests.test_flmctl import COMMAND, LIMIT_SECONDS, LONG_SECONDS, environment, free_address, run
from tests.waiting import until

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "flmctl.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def client() -> Iterator[flm.Client]:
    with flm.Client(executors=2) as one, one.session("demo") as session:
        session.submit(abs, -1).result(LIMIT_SECONDS)
        yield one


class Terminal:
    """A program on a terminal of its own; `text`: what it has written so far."""

    def __init__(self, words: list[str], address: str) -> None:
        self.ours, self.its = pty.openpty()
        termios.tcsetwinsize(self.its, (30, 120))
        self.before = termios.tcgetattr(self.its)
        env = environment(address) | {"TERM": "xterm-256color"}
        env.pop("NO_COLOR", None)
        self.program = subprocess.Popen(
            [*COMMAND, *words],
            stdin=self.its,
            stdout=self.its,
            stderr=self.its,
            env=env,
            start_new_session=True,
            preexec_fn=self._take_terminal,
        )
        self.text = ""

    def _take_terminal(self) -> None:
        import fcntl

        fcntl.ioctl(self.its, termios.TIOCSCTTY, 0)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.program.kill()
        self.program.wait(LIMIT_SECONDS)
        os.close(self.ours)
        os.close(self.its)

    def press(self, keys: bytes) -> None:
        os.write(self.ours, keys)

    def read_until(self, pattern: str) -> re.Match[str]:
        deadline = time.monotonic() + LIMIT_SECONDS
        while (found := re.search(pattern, self.text, re.DOTALL)) is None:
            assert time.monotonic() < deadline, self.text
            if select.select([self.ours], [], [], 0.1)[0]:
                self.text += os.read(self.ours, 1 << 16).decode()
        return found

    def end(self) -> int:
        """Its exit code, and the rest of what it writes; it must not stand in the way by being unread."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while self.program.poll() is None or select.select([self.ours], [], [], 0)[0]:
            assert time.monotonic() < deadline, self.text
            if select.select([self.ours], [], [], 0.05)[0]:
                self.text += os.read(self.ours, 1 << 16).decode()
        return self.program.wait(LIMIT_SECONDS)


@pytest.mark.parametrize("keys", [b"q", b"Q", b"\x03"], ids=["q", "Q", "Ctrl-C"])
def test_top_is_drawn_and_left_by_a_key_and_the_terminal_is_as_before(
    client: flm.Client, keys: bytes
) -> None:
    with Terminal(["top", "-d", "0.2"], client.address) as terminal:
        terminal.read_until(r"flmctl top .*1 session, 2 executors.*demo-\w+.*Tasks/s|demo-\w+.*Since")
        terminal.read_until("(flmctl top.*){2}")  # it is drawn again
        terminal.press(keys)

        assert terminal.end() == 0
        rest = terminal.text[terminal.text.rindex("flmctl top") :]
        assert "\x1b[?25h" in rest, "the cursor is there again"
        assert "\x1b[?1049l" in rest, "and what stood on the screen before"
        assert termios.tcgetattr(terminal.its) == terminal.before
        assert "Traceback" not in terminal.text


def test_other_keys_do_not_end_top() -> None:
    with (
        flm.Client(executors=1) as client,
        Terminal(["top", "-d", "0.1", "-n", "5"], client.address) as terminal,
    ):
        terminal.press(b"xyz\x1b[A")
        assert terminal.end() == 0
        assert len(re.findall("flmctl top", terminal.text)) == 5


@pytest.mark.slow
def test_top_ends_with_a_sentence_when_its_router_is_gone() -> None:
    client = flm.Client(executors=1)
    with Terminal(["top", "-d", "0.1"], client.address) as terminal:
        terminal.read_until("flmctl top")
        client.close()
        assert terminal.end() == 3
        assert "is gone" in terminal.text.split("\x1b[?1049l")[1]
        assert termios.tcgetattr(terminal.its) == terminal.before


def test_top_goes_into_a_pipe_without_a_colour(client: flm.Client) -> None:
    done = run("top", "-n", "2", "-d", "0.1", address=client.address)

    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert len(re.findall("^flmctl top ", done.stdout, re.MULTILINE)) == 2
    assert len(re.findall("^demo-", done.stdout, re.MULTILINE)) == 2


def test_a_table_has_colours_where_somebody_looks_and_only_there(client: flm.Client) -> None:
    with Terminal(["list"], client.address) as terminal:
        assert terminal.end() == 0
        assert "\x1b[32mOpen \x1b[0m" in terminal.text
    assert "\x1b" not in run("list", address=client.address).stdout


# --- completion


def completed(line: str, address: str, position: int) -> list[str]:
    """What bash would be offered."""
    env = environment(address) | {
        "_FLMCTL_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(position),
    }
    done = subprocess.run(
        COMMAND, capture_output=True, text=True, timeout=LIMIT_SECONDS, env=env, check=False
    )
    assert done.stderr == ""
    return [offer.split(",", 1)[1] for offer in done.stdout.split()]


def test_sessions_and_executors_are_completed(client: flm.Client) -> None:
    (session,) = [one.id for one in client._sessions.values() if one.id.startswith("demo-")]

    assert session in completed("flmctl view ", client.address, 2)
    assert completed("flmctl close dem", client.address, 2) == [session]
    assert completed("flmctl close x", client.address, 2) == []
    until(lambda: len(completed("flmctl logs ", client.address, 2)) >= 3)
    offers = completed("flmctl logs ", client.address, 2)
    assert f"{session}/" in offers
    assert any(re.fullmatch(r".+/\d+", offer) for offer in offers)
    assert session in completed(f"flmctl -a {client.address} view ", free_address(), 4)
    assert "list" in completed("flmctl ", client.address, 1)


def test_a_router_that_is_not_there_completes_nothing_and_says_nothing() -> None:
    assert completed("flmctl view ", free_address(), 2) == []
    assert completed("flmctl view -a nonsense ", "", 4) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_of_the_page_are_there(shell: str) -> None:
    assert f"{shell}_source" in PAGE
    env = environment() | {"_FLMCTL_COMPLETE": f"{shell}_source"}
    done = subprocess.run(
        COMMAND, capture_output=True, text=True, timeout=LIMIT_SECONDS, env=env, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "_FLMCTL_COMPLETE" in done.stdout


# --- the page


def test_the_tables_of_the_page_have_the_columns_that_are_printed(client: flm.Client) -> None:
    for words in (["list"], ["list", "-e"], ["list", "-n"]):
        (shown,) = re.findall(rf"^    \$ flmctl {' '.join(words)}\n    (.+)$", PAGE, re.MULTILINE)
        head = run(*words, address=client.address).stdout.splitlines()[0]
        assert shown.split() == head.split()
    (session,) = [one.id for one in client._sessions.values() if one.id.startswith("demo-")]
    (shown,) = re.findall(r"^    (Task .+)$", PAGE, re.MULTILINE)
    assert shown.split() in [
        line.split() for line in run("view", session, "-t", address=client.address).stdout.splitlines()
    ]


def test_what_the_page_says_of_a_closed_session_is_what_its_client_hears() -> None:
    with flm.Client(executors=1) as client:
        session = client.session("nightly")
        future = session.submit(time.sleep, LONG_SECONDS)
        assert run("close", session.id, address=client.address).returncode == 0
        with pytest.raises(CancelledError) as caught:
            future.result(LIMIT_SECONDS)
    (shown,) = re.findall(r"^    CancelledError: (.+)$", PAGE, re.MULTILINE)

    def general(text: str) -> str:
        return re.sub(r"\(pid .*\)|-\w{6}\b", "", text)

    assert general(str(caught.value)) == general(shown)


def test_ctrl_c_while_a_router_is_waited_for_is_at_once(tmp_path: Path) -> None:
    command = [*COMMAND, "list", "-a", f"ipc://{tmp_path}/nobody"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment()) as program:
        until(lambda: _is_waiting(program.pid))
        program.send_signal(signal.SIGINT)
        _, complaint = program.communicate(timeout=LIMIT_SECONDS)
    assert program.returncode == 130, complaint
    assert complaint.strip() == ""


def _is_waiting(pid: int) -> bool:
    """It has its sockets: ZeroMQ's threads are there."""
    return len(os.listdir(f"/proc/{pid}/task")) > 1
