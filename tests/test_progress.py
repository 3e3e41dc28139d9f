"""`flm.progress` and `map(..., progress=...)`: what is drawn, on a terminal that the test looks at."""

from __future__ import annotations

import concurrent.futures as cf
import os
import pty
import re
import subprocess
import sys
import time
import types
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

import flamezmq as flm
from flamezmq.client import progress

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parent.parent
LIMIT_SECONDS = 40.0
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"
HEAD = "import os, signal, sys, time\nimport flamezmq as flm\n"


class Terminal:
    """Programs on a pseudo-terminal, and what they have drawn."""

    def __init__(self) -> None:
        self.raw = ""
        self.code = 0

    def run(self, program: str, *, stdout: Any = None, term: str = "xterm") -> Terminal:
        """Run a program with stderr, and stdout if no other is given, on the terminal."""
        ours, theirs = pty.openpty()
        env = {**os.environ, "TERM": term, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "LINES": "30"}
        child = subprocess.Popen(
            [sys.executable, "-c", HEAD + program],
            stdin=subprocess.DEVNULL,
            stdout=theirs if stdout is None else stdout,
            stderr=theirs,
            env=env,
        )
        os.close(theirs)
        try:
            self.raw = _read_all(ours)
            self.code = child.wait(LIMIT_SECONDS)
        finally:
            child.kill()
            child.wait()
            os.close(ours)
        return self

    @property
    def screen(self) -> list[str]:
        """What a person sees at the end: the bar is drawn over itself again and again."""
        lines: list[str] = [""]
        row = 0
        for piece in re.findall(r"\x1b\[\??[\d;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", self.raw):
            if piece == "\n":
                row += 1
                lines += [""] * (row + 1 - len(lines))
                column = 0
            elif piece == "\r":
                column = 0
            elif piece == "\x1b[2K":
                lines[row] = ""
            elif re.fullmatch(r"\x1b\[\d*A", piece):
                row -= int(piece[2:-1] or 1)
            elif not piece.startswith("\x1b"):
                column = 0 if not lines[row] else column
                lines[row] = lines[row][:column] + piece + lines[row][column + len(piece) :]
                column += len(piece)
        return [line.rstrip() for line in lines]

    @property
    def cursor_is_shown(self) -> bool:
        return self.raw.rfind(SHOW) >= self.raw.rfind(HIDE)


def _read_all(fd: int) -> str:
    parts = []
    deadline = monotonic() + LIMIT_SECONDS
    while monotonic() < deadline:
        try:
            part = os.read(fd, 65536)
        except OSError:  # EIO: nobody holds the other end any more
            break
        if not part:
            break
        parts.append(part)
    return b"".join(parts).decode()


def bars(screen: list[str], label: str) -> list[str]:
    return [line for line in screen if line.startswith(label)]


def test_a_bar_is_drawn_while_futures_end_and_stays_when_all_have() -> None:
    terminal = Terminal().run("""
with flm.Client(executors=2) as client:
    futures = [client.submit(time.sleep, 0.02) for _ in range(40)]
    seen = {future.result() for future in flm.progress(futures, label="naps [1]")}
    print("seen", seen)
""")

    assert terminal.code == 0
    assert "40/40" in bars(terminal.screen, "naps [1] ")[0]
    assert len(bars(terminal.screen, "naps")) == 1
    assert "seen {None}" in terminal.screen
    drawn = {int(count) for count in re.findall(r"(\d+)/40", terminal.raw)}
    assert len(drawn) > 2, "it moved"
    assert terminal.cursor_is_shown


def test_failures_are_counted_and_leaving_by_an_error_leaves_the_terminal_as_it_was() -> None:
    terminal = Terminal().run("""
def work(n):
    if n % 4 == 0:
        raise KeyError(n)
with flm.Client(executors=2) as client:
    futures = [client.submit(work, n) for n in range(16)]
    flm.wait(futures)
    for future in flm.progress(futures, label="work"):
        pass
    try:
        for future in flm.progress(futures, label="again"):
            future.result()
    except KeyError as error:
        print("caught", error)
    for future in flm.progress(futures, label="brief"):
        break
    print("after")
    for future in flm.progress(futures, label="uncaught"):
        future.result()
""")

    assert terminal.code == 1
    [line] = bars(terminal.screen, "work")
    assert "16/16 4 failed" in line
    screen = terminal.screen
    assert "1/16 1 failed" in bars(screen, "again")[0]
    assert screen.index("caught 0") > screen.index(bars(screen, "again")[0])
    assert "1/16" in bars(screen, "brief")[0]
    assert screen.index("after") > screen.index(bars(screen, "brief")[0])
    assert screen.index("KeyError: 0") > screen.index(bars(screen, "uncaught")[0])
    assert terminal.cursor_is_shown


def test_what_tasks_and_the_program_print_stands_above_the_bar_in_lines_of_its_own() -> None:
    terminal = Terminal().run("""
def speak(n):
    print("task", n)
    time.sleep(0.02)
with flm.Client(executors=2) as client:
    futures = [client.submit(speak, n) for n in range(30)]
    for number, future in enumerate(flm.progress(futures, label="talk"), 1):
        sys.stdout.write(f"taken {number}\\n")  # in one piece: another thread prints, too
""")
    said = [re.sub(r"^\(\S+\) ", "", line) for line in terminal.screen if "task " in line]

    assert sorted(said) == sorted(f"task {n}" for n in range(30))
    assert [line for line in terminal.screen if line.startswith("taken")] == [
        f"taken {n}" for n in range(1, 31)
    ]
    assert len(bars(terminal.screen, "talk")) == 1
    assert "30/30" in bars(terminal.screen, "talk")[0]


def test_map_draws_a_bar_of_its_items_and_closes_it_however_it_is_left() -> None:
    terminal = Terminal().run("""
from itertools import count
with flm.Client(executors=2) as client:
    print(sum(client.map(abs, range(1000), progress="known")))
    print(sum(1 for _ in client.map(abs, iter(range(10)), progress="hinted")))
    for value in client.map(abs, count(), progress="endless"):
        if value > 50:
            break
    print("left")
    results = client.map(lambda x: 1 // x, [1, 0, 1], progress="faulty", chunksize=3)
    print(next(results))
    results.close()
    print("closed")
""")

    assert terminal.code == 0
    screen = terminal.screen
    assert "1000/1000" in bars(screen, "known")[0]
    assert "10/10" in bars(screen, "hinted")[0]
    assert re.search(r" \d+/\? ", bars(screen, "endless")[0] + " ")
    assert screen.index("left") > screen.index(bars(screen, "endless")[0])
    assert "3/3 1 failed" in bars(screen, "faulty")[0]
    assert screen.index("closed") > screen.index(bars(screen, "faulty")[0])
    assert terminal.cursor_is_shown


def test_ctrl_c_completes_the_bar_and_a_bar_that_waits_moves_on() -> None:
    terminal = Terminal().run("""
import threading
with flm.Client(executors=1) as client:
    futures = [client.submit(time.sleep, 30)]
    threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        for future in flm.progress(futures, label="long"):
            pass
    except KeyboardInterrupt:
        print("interrupted")
    client.close()
""")

    screen = terminal.screen
    assert screen.index("interrupted") > screen.index(bars(screen, "long")[0])
    assert "0:00:01" in terminal.raw, "it was drawn while nothing ended"
    assert terminal.cursor_is_shown


def test_bars_in_bars_leave_the_outer_one() -> None:
    terminal = Terminal().run("""
with flm.Client(executors=2) as client:
    for value in client.map(abs, range(3), progress="outer", chunksize=1):
        assert len(list(client.map(abs, range(5), progress="inner"))) == 5
""")

    assert terminal.code == 0
    assert "inner" in terminal.raw
    assert "3/3" in bars(terminal.screen, "outer")[0]
    assert not bars(terminal.screen, "inner")


def test_a_bar_in_a_thread_that_outlives_the_program_gives_the_terminal_back() -> None:
    terminal = Terminal().run("""
import threading
client = flm.Client(executors=1)
futures = [client.submit(abs, 1), client.submit(time.sleep, 60)]
drawn = threading.Event()
def watch():
    for future in flm.progress(futures, label="held"):
        drawn.set()
        time.sleep(60)
threading.Thread(target=watch, daemon=True).start()
drawn.wait(10)
""")

    assert terminal.code == 0
    assert HIDE in terminal.raw
    assert terminal.cursor_is_shown


def test_a_terminal_that_goes_away_does_not_stop_the_work(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    program = f"""
with flm.Client(executors=1) as client:
    futures = [client.submit(abs, 1)]
    seen = 0
    for future in flm.progress([*futures, *[client.submit(time.sleep, 0.2) for _ in range(5)]], label="gone"):
        seen += 1
    seen += len(list(client.map(abs, range(10), progress="gone, too")))
open({str(tmp_path / "out")!r}, "w").write(str(seen))
"""
    env = {**os.environ, "TERM": "xterm", "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(
        [sys.executable, "-c", HEAD + program], stdin=theirs, stdout=theirs, stderr=theirs, env=env
    )
    os.close(theirs)
    text = b""
    while b"gone" not in text:
        text += os.read(ours, 4096)
    os.close(ours)

    child.wait(LIMIT_SECONDS)

    assert (tmp_path / "out").read_text() == "16"


def test_in_a_pipe_and_on_a_dumb_terminal_nothing_is_drawn_and_rich_is_not_imported(tmp_path: Path) -> None:
    program = """
with flm.Client(executors=1) as client:
    futures = [client.submit(abs, n) for n in range(5)]
    print(sum(future.result() for future in flm.progress(futures)))
    print(sum(client.map(abs, range(5), progress="items")))
    print("rich" in sys.modules)
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", HEAD + program],
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        env=env,
        check=True,
    )

    assert done.stdout == "10\n10\nFalse\n"
    assert done.stderr == ""
    assert Terminal().run(program, term="dumb").raw == "10\r\n10\r\nFalse\r\n"


def test_with_stdout_in_a_file_the_bar_is_on_the_terminal_and_the_output_in_the_file(tmp_path: Path) -> None:
    with open(tmp_path / "out", "w+") as out:
        terminal = Terminal().run(
            """
with flm.Client(executors=1) as client:
    for value in client.map(abs, range(5), progress="items", chunksize=1):
        print("value", value)
""",
            stdout=out,
        )
        out.seek(0)
        assert out.read() == "".join(f"value {n}\n" for n in range(5))

    assert "5/5" in bars(terminal.screen, "items")[0]
    assert "value" not in terminal.raw


def test_futures_of_other_makers_and_a_timeout() -> None:
    with cf.ThreadPoolExecutor(1) as pool:
        futures = [pool.submit(abs, -n) for n in range(5)]
        bar = flm.progress([*futures, futures[0]], label="others")
        assert len(bar) == 5
        assert {future.result() for future in bar} == {0, 1, 2, 3, 4}
    with flm.Client(executors=1) as client:
        slow = [client.submit(time.sleep, 30)]
        with pytest.raises(TimeoutError):
            list(flm.progress(slow, timeout=0.05))
        client.close()


def test_in_a_notebook_one_output_is_replaced_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    class ZMQInteractiveShell:
        pass

    class Handle:
        def update(self, data: dict[str, str], raw: bool) -> None:
            assert raw
            shown.append(data["text/plain"])

    def display(data: dict[str, str], raw: bool, display_id: bool) -> Handle:
        assert display_id
        assert "<progress" in data["text/html"]
        handle = Handle()
        handle.update(data, raw)
        return handle

    notebook: Any = types.ModuleType("IPython")
    notebook.get_ipython = ZMQInteractiveShell
    notebook.display = types.SimpleNamespace(display=display)
    monkeypatch.setitem(sys.modules, "IPython", notebook)

    bar = progress.Bar("a<b", 10)
    bar.advance(4, failed=1)
    bar.advance(6)
    bar.close()

    assert progress.is_watched()
    assert shown[0].startswith("a<b 4/10, 1 failed, ")
    assert shown[-1].startswith("a<b 10/10, 1 failed, ")
