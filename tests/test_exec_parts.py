"""The parts of flmexec without a cluster: replacement strings, inputs, outputs that wait, the log of jobs."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import click
import pytest

from flamezmq.cli import exec as flmexec
from flamezmq.cli.exec_output import Report, Spool, Task
from flamezmq.cli.exec_source import MOST_LINE_BYTES, BadInput, Lines, combined, split
from flamezmq.cli.exec_template import Job, Template
from flamezmq.cli.exec_work import Work
from flamezmq.scripts import ScriptResult

# --- replacement strings


@pytest.mark.parametrize(
    ("template", "value", "command"),
    [
        ("echo {}", "a", "echo a"),
        ("echo {} {}", "a b", "echo 'a b' 'a b'"),
        ("gzip", "x'y", "gzip 'x'\"'\"'y'"),
        ("echo {.}", "dir.d/a.tar.gz", "echo dir.d/a.tar"),
        ("echo {.}", "dir.d/plain", "echo dir.d/plain"),
        ("echo {.}", ".hidden", "echo .hidden"),
        ("echo {/}", "dir/a.gz", "echo a.gz"),
        ("echo {//}", "dir/sub/a.gz", "echo dir/sub"),
        ("echo {//}", "a.gz", "echo ."),
        ("echo {//}", "/a.gz", "echo /"),
        ("echo {/.}", "dir/a.gz", "echo a"),
        ("echo {#}", "a", "echo 7"),
        ("echo {1/.}", "dir/a.gz", "echo a"),
        ("echo {2}", "a", "echo {2}"),
        ("echo ${x} {y}", "a", "echo ${x} {y} a"),
        ("echo", "", "echo ''"),
    ],
)
def test_inputs_take_their_places_as_in_gnu_parallel(template: str, value: str, command: str) -> None:
    assert Template(template, [], True).fill(7, [value]).code == command


def test_several_inputs_have_numbers_and_together_they_are_a_list() -> None:
    template = Template("echo {2}-{1} {}", [], True)

    assert template.fill(1, ["a", "b c"]).code == "echo 'b c'-a a 'b c'"
    assert Template("echo", [], True).fill(1, ["a", "b"]).code == "echo a b"


def test_without_a_command_the_inputs_are_commands() -> None:
    work = Work([], None, None, True, None, 10)

    assert work.template.fill(1, ["echo {} | wc"]) == Job("echo {} | wc", [])


def test_without_inputs_only_the_number_is_replaced() -> None:
    assert Template("find {} {#}", [], False).fill(3, []).code == "find {} 3"


def test_arguments_of_a_script_are_not_quoted_and_an_input_without_a_place_is_the_last() -> None:
    assert Template(None, ["-v"], True).fill(1, ["a b"]).arguments == ["-v", "a b"]
    assert Template(None, ["{.}.png", "{}"], True).fill(1, ["a b.jpg"]).arguments == ["a b.png", "a b.jpg"]


def test_a_command_can_be_shown_as_one_would_type_it(tmp_path: Path) -> None:
    script = tmp_path / "s.py"
    script.write_text("pass")
    in_place = Work([str(script), "-v"], "python", None, True, None, 10)
    code = Work([], "python", "print({})", True, None, 10)

    assert in_place.spell(in_place.template.fill(1, ["a b"])) == f"python {script} -v 'a b'"
    assert code.spell(code.template.fill(1, ["x"])) == "python -c 'print({})' x"


# --- inputs


def test_each_list_of_inputs_is_combined_with_each_other() -> None:
    command, lists = split(["echo", "{}", ":::", "a", "b", ":::", "1", "2"])
    source = combined(lists)

    assert command == ["echo", "{}"]
    assert source.total == 4
    assert [source.pull() for _ in range(4)] == [("a", "1"), ("a", "2"), ("b", "1"), ("b", "2")]
    assert source.pull() is None
    assert source.ended


def test_a_list_may_go_along_with_the_one_before_it(tmp_path: Path) -> None:
    (tmp_path / "numbers").write_text("1\n2\n3\n")

    _, lists = split(["echo", ":::", "a", "b", "::::+", str(tmp_path / "numbers"), ":::", "x", "y"])
    source = combined(lists)

    assert source.total == 4
    expected = [("a", "1", "x"), ("a", "1", "y"), ("b", "2", "x"), ("b", "2", "y")]
    assert [source.pull() for _ in range(4)] == expected
    with pytest.raises(BadInput, match="none stands there"):
        split(["echo", ":::+", "a"])


def lines_of(data: bytes, null: bool = False) -> list[str]:
    read, write = os.pipe()
    os.write(write, data)
    os.close(write)
    source, found = Lines(read, null), []
    while not source.ended:
        if (values := source.pull()) is not None:
            found.append(values[0])
    os.close(read)
    return found


def test_lines_end_with_a_newline_or_nul_and_the_last_one_need_not() -> None:
    assert lines_of(b"a\n\nb c\nd") == ["a", "", "b c", "d"]
    assert lines_of(b"a\nb\0c\0", null=True) == ["a\nb", "c"]
    assert lines_of(b"") == []
    assert os.fsencode(lines_of(b"\xff\xfe\n")[0]) == b"\xff\xfe"


def test_a_line_that_has_no_end_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    file = tmp_path / "long"
    file.write_bytes(bytes(MOST_LINE_BYTES + (1 << 17)))
    with file.open("rb") as opened, pytest.raises(BadInput, match="16 MiB"):
        source = Lines(opened.fileno(), null=False)
        while not source.ended:
            source.pull()


def test_a_slow_producer_is_not_waited_for_where_lines_are_there() -> None:
    read, write = os.pipe()
    source = Lines(read, null=False)
    os.write(write, b"a\nb\nc")

    assert not source.ready
    assert source.pull() == ("a",)
    assert source.ready
    assert source.pull() == ("b",)
    assert not source.ready, "the rest of `c` has not come"
    for end in (read, write):
        os.close(end)


# --- outputs


def test_what_waits_for_its_turn_goes_to_the_disk_beyond_a_bound_and_comes_back_as_it_was() -> None:
    spool = Spool(most_bytes=100)
    given = [(bytes([number]) * 40, b"e" * number) for number in range(20)]

    kept = [spool.put(*one) for one in given]

    assert sum(len(one.stdout) + len(one.stderr) for one in kept) <= 100
    assert [spool.get(one) for one in reversed(kept)] == given[::-1]
    assert spool._file is not None
    assert spool._file.seek(0, 2) == 0, "the room on the disk is given back"
    spool.close()


def task(number: int, result: ScriptResult | None, note: str = "") -> Task:
    made = Task(number, (f"in {number}",), f"echo\t{number}")
    made.result, made.note = result, note
    made.failed = result is None or not result.ok
    return made


def test_the_log_of_jobs_is_gnu_parallels() -> None:
    log = io.StringIO()
    report = Report("none", False, log, None)
    report.ended(task(1, ScriptResult(3, b"abc", b"de", 0.5, began=100.25, executor="big/1")))
    report.ended(task(2, ScriptResult(137, b"", b"", 0.5, signal="SIGKILL", began=100.25, executor="big/1")))
    report.ended(task(3, None, "lost"))

    head, *lines = log.getvalue().splitlines()
    assert head.split("\t") == [
        "Seq", "Host", "Starttime", "JobRuntime", "Send", "Receive", "Exitval", "Signal", "Command",
    ]  # fmt: skip
    assert lines == [
        "1\tbig\t100.250\t0.500\t0\t5\t3\t0\techo\\t1",
        "2\tbig\t100.250\t0.500\t0\t0\t0\t9\techo\\t2",
        "3\t-\t0\t0\t0\t0\t-1\t0\techo\\t3",
    ]


def test_a_tag_stands_before_each_line(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    Report("failed", True, None, None).show(task(1, None), b"a\nb", b"c\n")

    assert capfdbinary.readouterr() == (b"in 1\ta\nin 1\tb", b"in 1\tc\n")


def test_json_says_all_about_a_task_in_one_line(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    Report("json", True, None, None).show(task(1, ScriptResult(0, b"", b"", 1.0)), b"\xffa\n", b"")

    text = capfdbinary.readouterr().out.decode()
    assert text.count("\n") == 1
    found = json.loads(text)
    assert (found["task"], found["exit_code"], found["input"]) == (1, 0, ["in 1"])
    assert found["stdout"] == "\ufffda\n"


def test_a_long_table_is_cut_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("failed", False, None, None)
    for number in range(1, 101):
        report.ended(task(number, ScriptResult(number % 2, b"", b"", 0.1, executor="n/1")))
    report.close()

    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 + 20 + 2
    assert lines[-2:] == ["30 more are not shown; --joblog FILE has them all", "50 of 100 tasks have failed"]


# --- the command line


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "nothing to run"),
        (["-l", "python"], "nothing to run"),
        (["-l", "python", "/nowhere.py"], "can't read the script"),
        (["-t", "2", "echo", ":::", "a"], "give one of them"),
        (["-0", "echo"], "-0 goes with -i"),
        (["--halt", "later,fail=1", "echo"], "neither 'never' nor"),
        (["--halt", "now,fail=0", "echo"], "neither 'never' nor"),
        (["--max-output", "1t", "echo"], "no size"),
        (["--max-output", "1g", "echo"], "more than 512m"),
        (["-a", "nonsense", "echo"], "nonsense"),
        (["--joblog", "/nowhere/log", "echo"], "can't write the log of jobs"),
    ],
)
def test_what_is_wrong_is_said_before_a_cluster_is_started(words: list[str], complaint: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        flmexec.command.main(words, prog_name="flmexec", standalone_mode=False)

    assert complaint in caught.value.format_message()


def test_a_dry_run_prints_the_commands(capfd: pytest.CaptureFixture[str]) -> None:
    words = ["--dry-run", "-j", "3", "mv -v {} {.}.txt", ":::", "a b.md", "c.md"]

    assert not flmexec.command.main(words, prog_name="flmexec", standalone_mode=False)
    assert capfd.readouterr().out == "mv -v 'a b.md' 'a b'.txt\nmv -v c.md c.txt\n"
