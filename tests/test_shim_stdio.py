"""The stdio shim, against shell scripts and compiled C programs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from flamezmq import shims
from flamezmq.errors import BadPayload, ServiceError, ServiceFailed, TaskTimeout
from flamezmq.shims import murmur
from tests.shim_stage import App, Ctx, below, interrupted, lives, named, running, script
from tests.waiting import until

pytestmark = pytest.mark.processes

#: `echo` would take the backslashes of JSON for its own.
ECHO = 'while read -r line; do printf "%s\\n" "$line"; done\n'
#: Answers a frame with its bytes in reverse; one that begins with "!" with an error.
REVERSE_C = r"""
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <arpa/inet.h>

int main(void) {
    uint32_t head;
    while (fread(&head, 4, 1, stdin) == 1) {
        uint32_t length = ntohl(head);
        char *data = malloc(length + 1);
        if (fread(data, 1, length, stdin) != length) return 3;
        for (uint32_t i = 0; i < length / 2; i++) {
            char swap = data[i];
            data[i] = data[length - 1 - i];
            data[length - 1 - i] = swap;
        }
        int bad = length && data[length - 1] == '!';
        head = htonl(length | (bad ? 0x80000000u : 0));
        fwrite(&head, 4, 1, stdout);
        fwrite(data, 1, length, stdout);
        fflush(stdout);
        free(data);
    }
    return 0;
}
"""


@pytest.fixture(scope="module")
def reverse(tmp_path_factory: pytest.TempPathFactory) -> str:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) here")
    folder = tmp_path_factory.mktemp("reverse")
    (folder / "reverse.c").write_text(REVERSE_C)
    subprocess.run([compiler, "-o", folder / "reverse", folder / "reverse.c"], check=True)
    return str(folder / "reverse")


def lines(folder: Path, text: str, **options: object) -> App:
    return App("stdio", script(folder, text), options=dict(options))


# --- messages


def test_a_script_gets_a_line_of_json_for_each_task_and_is_kept_warm(tmp_path: Path) -> None:
    ctx = Ctx()
    with running(lines(tmp_path, 'while read -r line; do printf "[$$, %s]\\n" "$line"; done\n'), ctx) as shim:
        answers = [shim.invoke(ctx, {"size": 2, "name": "é\n"}), shim.invoke(ctx), shim.invoke(ctx, 1, 2)]
        answers.append(shim.invoke(ctx, size=3))

    assert [value for _, value in answers] == [{"size": 2, "name": "é\n"}, None, [1, 2], {"size": 3}]
    assert len({pid for pid, _ in answers}) == 1


def test_a_c_program_gets_frames_of_bytes_however_large(reverse: str) -> None:
    ctx = Ctx()
    large = os.urandom(5_000_000)
    with running(App("stdio", reverse, options={"framing": "frames"}), ctx) as shim:
        assert shim.invoke(ctx, b"abc") == b"cba"
        assert shim.invoke(ctx, b"") == b""
        assert shim.invoke(ctx, large) == large[::-1]


def test_an_answer_can_be_an_error_and_the_program_goes_on(tmp_path: Path, reverse: str) -> None:
    ctx = Ctx()
    said = lines(tmp_path, 'while read -r line; do echo "{\\"error\\": \\"no $line here, $$\\"}"; done\n')
    with running(said, ctx) as shim:
        texts = []
        for _ in range(2):
            with pytest.raises(ServiceError, match="'app' says: no 1 here") as caught:
                shim.invoke(ctx, 1)
            texts.append(caught.value.text)
        assert texts[0] == texts[1]  # the same process
    with running(App("stdio", reverse, options={"framing": "frames"}), ctx) as shim:
        with pytest.raises(ServiceError, match="says: dab!"):
            shim.invoke(ctx, b"!bad")
        assert shim.invoke(ctx, b"ok") == b"ko"


def test_lines_can_be_text_without_json(tmp_path: Path) -> None:
    ctx = Ctx()
    with running(lines(tmp_path, ECHO, payload="text"), ctx) as shim:
        assert shim.invoke(ctx, "not json {") == "not json {"
        with pytest.raises(BadPayload, match="no newline"):
            shim.invoke(ctx, "a\nb")
        assert shim.invoke(ctx, "on") == "on"


@pytest.mark.parametrize("value", [float("nan"), b"bytes", {1, 2}, object()])
def test_what_json_has_no_place_for_is_refused_and_the_program_stays(tmp_path: Path, value: object) -> None:
    ctx = Ctx()
    with running(lines(tmp_path, "while read -r line; do echo $$; done\n"), ctx) as shim:
        first = shim.invoke(ctx)
        with pytest.raises(BadPayload, match="the input of application 'app' is refused at \\$"):
            shim.invoke(ctx, value)
        assert shim.invoke(ctx) == first


def test_the_program_has_the_applications_environment_and_folder(tmp_path: Path) -> None:
    ctx = Ctx()
    text = 'while read -r line; do echo "[\\"$COLOUR\\", \\"$PWD\\", \\"$FLAMEZMQ_NODE\\"]"; done\n'
    app = App("stdio", script(tmp_path, text), environment={"COLOUR": "red"}, working_directory=str(tmp_path))
    with running(app, ctx) as shim:
        assert shim.invoke(ctx) == ["red", str(tmp_path), "node"]


def test_common_data_is_the_first_message_after_each_bind_and_after_a_death(tmp_path: Path) -> None:
    app = lines(
        tmp_path,
        'read -r common; echo null\nwhile read -r line; do [ "$line" = 0 ] && exit 7; '
        'case $line in *model*) common=$line; echo null;; *) echo "$common";; esac; done\n',
        common_data=True,
    )
    ctx = Ctx(common_data={"model": 1})
    with running(app, ctx) as shim:
        assert shim.invoke(ctx, 1) == {"model": 1}
        with pytest.raises(ServiceFailed, match="exit code 7"):
            shim.invoke(ctx, 0)
        assert shim.invoke(ctx, 1) == {"model": 1}
        shim.leave(ctx)
        ctx = Ctx(common_data={"model": 2})
        shim.enter(ctx)
        assert shim.invoke(ctx, 1) == {"model": 2}


def test_common_data_for_a_program_that_takes_none_is_refused(tmp_path: Path) -> None:
    with running(lines(tmp_path, ECHO)) as shim:
        with pytest.raises(BadPayload, match="the program takes none; set the option common_data"):
            shim.enter(Ctx(common_data=1))


# --- one-shot


def one_shot(command: str, *arguments: str, **options: object) -> App:
    return App("stdio", command, arguments, options={"one_shot": True, **options})


def test_a_one_shot_program_gets_the_input_and_its_stdout_is_the_result() -> None:
    ctx = Ctx()
    with running(one_shot("wc", "-l"), ctx) as shim:
        assert shim.invoke(ctx, "a\nb\n") == b"2\n"
        assert shim.invoke(ctx) == b"0\n"
    with running(one_shot("tr", "a-z", "A-Z", payload="text"), ctx) as shim:
        assert shim.invoke(ctx, "ab") == "AB"
    with running(one_shot("cat", payload="json"), ctx) as shim:
        assert shim.invoke(ctx, {"a": [1]}) == {"a": [1]}


def test_a_one_shot_program_that_fails_says_its_exit_code_and_last_lines(tmp_path: Path) -> None:
    ctx = Ctx()
    with running(one_shot(script(tmp_path, "echo begin >&2; echo the end >&2; exit 3\n")), ctx) as shim:
        with pytest.raises(ServiceFailed, match=r"has ended \(exit code 3\); .*begin \| the end") as caught:
            shim.invoke(ctx)
    assert (caught.value.exit_code, caught.value.stderr) == (3, ("begin", "the end"))
    assert ctx.logged == ["begin", "the end"]


def test_large_input_and_output_of_a_one_shot_program_do_not_block_each_other() -> None:
    ctx = Ctx()
    data = os.urandom(3_000_000)
    with running(one_shot("cat"), ctx) as shim:
        assert shim.invoke(ctx, data) == data
    with running(one_shot("echo", "did not read it"), ctx) as shim:
        assert shim.invoke(ctx, data) == b"did not read it\n"


def test_a_one_shot_program_finds_the_common_data_in_a_file() -> None:
    ctx = Ctx(common_data=b"shared")
    app = one_shot(
        "sh", "-c", 'cat "$FLAMEZMQ_COMMON_DATA"; cat; echo " $FLAMEZMQ_TASK_ID"', common_data=True
    )
    with running(app, ctx) as shim:
        assert shim.invoke(ctx, b" mine") == b"shared mine session-1/0\n"
        assert shim.invoke(ctx, b" two") == b"shared two session-1/0\n"


def test_what_a_one_shot_program_leaves_behind_is_gone_with_its_task(tmp_path: Path) -> None:
    ctx = Ctx()
    with running(one_shot(script(tmp_path, "sleep 1000 & setsid sleep 1000 & echo done\n")), ctx) as shim:
        assert shim.invoke(ctx) == b"done\n"
        assert not named("sleep")


def test_a_one_shot_program_that_takes_too_long_is_killed_and_so_is_one_that_writes_too_much() -> None:
    ctx = Ctx()
    with running(one_shot("sleep", "1000", task_timeout=0.1), ctx) as shim:
        with pytest.raises(ServiceFailed, match=r"has not ended within 0.1 s, so it was ended"):
            shim.invoke(ctx)
        assert not named("sleep")
    with running(one_shot("cat", "/dev/zero", max_bytes=1000), ctx) as shim:
        with pytest.raises(ServiceFailed, match="wrote more than max_bytes=1000"):
            shim.invoke(ctx)


# --- what goes wrong


def test_a_program_that_dies_fails_its_task_and_the_next_one_gets_a_fresh_one(tmp_path: Path) -> None:
    ctx = Ctx()
    app = lines(
        tmp_path,
        'while read -r line; do [ "$line" = 1 ] && { echo "it hurts" >&2; exit 9; }\n'
        '[ "$line" = 2 ] && kill -SEGV $$\necho $$; done\n',
    )
    with running(app, ctx) as shim:
        first = shim.invoke(ctx, 0)
        with pytest.raises(ServiceFailed, match=r"has ended \(exit code 9\); its last words: it hurts"):
            shim.invoke(ctx, 1)
        second = shim.invoke(ctx, 0)
        with pytest.raises(
            ServiceFailed, match=r"has died \(killed by SIGSEGV, at most \d+ MiB resident\)"
        ) as caught:
            shim.invoke(ctx, 2)
        assert (caught.value.signal, caught.value.exit_code) == ("SIGSEGV", None)
        assert first != second != shim.invoke(ctx, 0)


def test_a_program_that_dies_while_nobody_asks_it_is_replaced_and_that_is_logged(tmp_path: Path) -> None:
    ctx = Ctx()
    with running(lines(tmp_path, "while read -r line; do echo $$; done\n"), ctx) as shim:
        first = shim.invoke(ctx)
        os.kill(first, signal.SIGKILL)
        until(lambda: not shim._talk.program.alive())  # type: ignore[attr-defined]
        assert shim.invoke(ctx) != first
    assert any("killed by SIGKILL" in line for line in ctx.logged)


def test_a_program_that_hangs_is_killed_when_the_tasks_time_is_over(tmp_path: Path) -> None:
    ctx = Ctx()
    text = 'while read -r line; do [ "$line" = 1 ] && sleep 1000; echo $$; done\n'
    with running(lines(tmp_path, text, task_timeout=0.2), ctx) as shim:
        first = shim.invoke(ctx, 0)
        with pytest.raises(ServiceFailed, match=r"has not answered within 0.2 s"):
            shim.invoke(ctx, 1)
        assert not named("sleep")
        assert shim.invoke(ctx, 0) != first


def test_the_late_answer_to_a_task_that_was_interrupted_is_not_the_next_ones(tmp_path: Path) -> None:
    ctx = Ctx()
    text = 'while read -r line; do [ "$line" = 1 ] && sleep 0.3; echo "$line"; done\n'
    with running(lines(tmp_path, text), ctx) as shim:
        with pytest.raises(TaskTimeout), interrupted(0.1):
            shim.invoke(ctx, 1)
        assert shim.invoke(ctx, 2) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("read -r line; echo hello; sleep 1000\n", "'hello' is not JSON"),
        ("read -r line; printf '1\\n2\\n'; sleep 1000\n", "more than one line, the next is '2"),
        ("read -r line; printf 12; printf 345678; sleep 1000\n", "a line of more than max_bytes=6"),
    ],
)
def test_nonsense_fails_the_task_and_ends_the_program(tmp_path: Path, text: str, said: str) -> None:
    ctx = Ctx()
    with running(lines(tmp_path, text, max_bytes=6), ctx) as shim:
        with pytest.raises(ServiceFailed, match=f"answered nonsense: {said}"):
            shim.invoke(ctx)
        until(lambda: not named("sleep"))


def test_a_banner_before_the_first_question_is_nonsense(tmp_path: Path) -> None:
    ctx = Ctx()
    with running(lines(tmp_path, "echo 1; echo ready >&2; read -r line; echo 2\n"), ctx) as shim:
        until(lambda: ctx.logged == ["ready"])
        with pytest.raises(ServiceFailed, match=r"nonsense: '1\\n' before it was asked"):
            shim.invoke(ctx)


def test_text_where_a_frame_should_be_is_nonsense_and_not_a_wait_for_gigabytes(tmp_path: Path) -> None:
    ctx = Ctx()
    app = App("stdio", script(tmp_path, "echo hello world; sleep 1000\n"), options={"framing": "frames"})
    with running(app, ctx) as shim:
        with pytest.raises(ServiceFailed, match=r"nonsense: .*hello world"):
            shim.invoke(ctx, b"x")


def test_a_flood_on_stderr_blocks_nothing_and_is_bounded(tmp_path: Path) -> None:
    ctx = Ctx()
    flood = "i=0; while [ $i -lt 200 ]; do printf '%1000s\\n' $i; i=$((i+1)); done >&2; seq 20000 >&2\n"
    text = f'while read -r line; do {flood}echo "$line"; {flood}echo after >&2; done\n'
    with running(lines(tmp_path, text), ctx) as shim:
        for number in range(3):
            assert shim.invoke(ctx, number) == number
        until(lambda: shim._talk.program.murmur.last_words()[-1:] == ("after",))  # type: ignore[attr-defined]
    assert 1000 <= len(ctx.logged) < 10_000
    assert any("lines of stderr were left out" in line for line in ctx.logged)


def test_what_a_flood_leaves_out_is_told_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    ctx, now = Ctx(), 0.0
    monkeypatch.setattr(murmur, "monotonic", lambda: now)
    ours, theirs = os.pipe()
    heard = murmur.Murmur(ours, ctx.log)
    for step in range(3000):  # 3 seconds of 10,000 lines each
        now = step / 1000
        os.write(theirs, b"line\n" * 10)
        heard.drain()
    os.close(theirs)
    heard.close()

    told = [line for line in ctx.logged if "left out" in line]
    assert 1 <= len(told) <= 4
    lines = len(ctx.logged) - len(told)
    assert lines <= murmur.BURST_LINES + 4 * murmur.LINES_PER_SECOND
    assert lines + sum(int(line.split()[1]) for line in told) == 30_000, "each line is shown or counted"


def test_the_last_words_have_room_for_a_traceback_that_begins_with_what_is_wrong(tmp_path: Path) -> None:
    text = "read -r line; { echo Error: boom; echo; seq -f 'at step %g' 9; } >&2; exit 1\n"
    with running(lines(tmp_path, text)) as shim:
        with pytest.raises(ServiceFailed, match=r"its last words: Error: boom \| at step 1 \|"):
            shim.invoke(Ctx())


def test_stderr_is_logged_while_nobody_asks_and_a_line_without_an_end_is_cut(tmp_path: Path) -> None:
    ctx = Ctx()
    text = (
        "printf '%9000s\\n' x >&2; echo short >&2; read -r line; printf 'no end' >&2; echo 1; read -r line\n"
    )
    with running(lines(tmp_path, text), ctx) as shim:
        until(lambda: ctx.logged[1:] == ["short"])
        assert shim.invoke(ctx) == 1
    assert [len(line) for line in ctx.logged] == [4096 + 3, 5, 6]


@pytest.mark.parametrize(
    ("command", "why"), [("/nowhere/at-all", "No such file"), ("/etc/passwd", "Permission")]
)
def test_a_command_that_can_not_be_run_fails_the_bind(command: str, why: str) -> None:
    with running(App("stdio", command)) as shim:
        with pytest.raises(ServiceFailed, match=f"can't be started in /.*: .*{why}") as failed:
            shim.enter(Ctx())
    assert "by hand" not in str(failed.value), "there is nothing that would run"
    assert str(failed.value).endswith("that its working_directory is there")


def test_an_environment_that_is_too_large_is_said_and_the_shim_goes_on() -> None:
    ctx = Ctx()
    app = App("stdio", "cat", environment={"LARGE": "x" * 200_000})
    with running(app) as shim:
        with pytest.raises(ServiceFailed, match="the environment of a program may take 128 KiB, not 195"):
            shim.enter(ctx)
        app.environment.clear()
        shim.enter(ctx)
        assert shim.invoke(ctx, 1) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"frame": "lines"}, "the shim stdio has no option 'frame'; there are common_data, framing"),
        ({"framing": "words"}, "framing is one of lines, frames, not 'words'"),
        ({"task_timeout": "1"}, "task_timeout is a number of seconds above 0, not '1'"),
        ({"one_shot": 1}, "one_shot is true or false, not 1"),
        ({"max_bytes": 0}, "max_bytes is an integer from 1, not 0"),
        ({"payload": "bytes"}, "they may hold newlines"),
    ],
)
def test_wrong_options_are_refused_with_what_was_expected(options: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        shims.make(App("stdio", "cat", options=options))


# --- how programs end


def test_a_program_may_end_by_itself_and_one_that_will_not_is_killed(tmp_path: Path) -> None:
    polite = tmp_path / "polite"
    ctx = Ctx()
    with running(lines(tmp_path, f"while read -r line; do echo 1; done; echo bye > {polite}\n"), ctx) as shim:
        shim.invoke(ctx)
    assert polite.read_text() == "bye\n"

    text = "trap '' TERM; read -r line; echo 1; while :; do sleep 1000; done\n"
    with running(App("stdio", script(tmp_path, text), grace=0.1), ctx) as shim:
        shim.invoke(ctx)
        assert named("service.sh")
    assert not below()


def test_a_warden_that_is_killed_takes_the_program_with_it_and_the_next_task_has_both(tmp_path: Path) -> None:
    ctx = Ctx()
    with running(lines(tmp_path, "while read -r line; do echo $$; done\n"), ctx) as shim:
        first = shim.invoke(ctx)
        program = psutil.Process(first)
        (warden,) = named("flm-warden")
        warden.kill()
        until(lambda: not lives(program))
        assert shim.invoke(ctx) != first


EXECUTOR = """
import sys
from tests.shim_stage import App, Ctx, running

ctx = Ctx()
with running(App("stdio", sys.argv[1]), ctx) as shim:
    shim.invoke(ctx)
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_all_that_a_program_has_started_dies_with_an_executor_that_is_killed(tmp_path: Path) -> None:
    text = (
        "sleep 1000 & setsid sleep 1000 & (setsid sh -c 'sleep 1000 & wait') &\nread -r line; echo 1; wait\n"
    )
    path = script(tmp_path, text)
    executor = subprocess.Popen(
        [sys.executable, "-c", EXECUTOR, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with executor:
        assert executor.stdout is not None
        assert executor.stdout.readline() == b"ready\n"
        started = until(lambda: below() if len(named("sleep")) == 3 else [])
        executor.kill()
    until(lambda: not any(map(lives, started)))


# --- schemas

SCHEMA = {
    "input": {
        "type": "object",
        "properties": {"size": {"type": "integer", "minimum": 1}},
        "required": ["size"],
    },
    "output": {"type": "integer"},
    "common_data": {"type": "string"},
}


def test_a_schema_refuses_input_output_and_common_data_and_names_the_place(tmp_path: Path) -> None:
    app = App(
        "stdio",
        script(tmp_path, 'read -r c; echo 1; while read -r line; do echo "${line#*:}" | tr -d "}"; done\n'),
        schema=SCHEMA,
        options={"common_data": True},
    )
    ctx = Ctx(common_data="yes")
    with running(app, ctx) as shim:
        assert shim.invoke(ctx, {"size": 3}) == 3
        with pytest.raises(BadPayload, match=r"the input of .* at \$\.size: 0 is less than the minimum of 1"):
            shim.invoke(ctx, {"size": 0})
        with pytest.raises(BadPayload, match=r"at \$: 'size' is a required property"):
            shim.invoke(ctx, {})
        with pytest.raises(BadPayload, match=r"the common data of .* at \$: 5 is not of type 'string'"):
            shim.enter(Ctx(common_data=5))
    ctx = Ctx()
    with running(App("stdio", script(tmp_path, ECHO), schema={"output": {"type": "string"}}), ctx) as shim:
        with pytest.raises(BadPayload, match=r"the output of .* at \$: 1 is not of type 'string'"):
            shim.invoke(ctx, 1)
        assert shim.invoke(ctx, "fine") == "fine"


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"inputs": {}}, "has the key 'inputs'; there are input, output, common_data"),
        ({"input": {"type": "whole number"}}, "'input' in the schema of application 'app' is no JSON Schema"),
    ],
)
def test_what_is_no_schema_is_refused_when_the_shim_is_made(schema: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        shims.make(App("stdio", "cat", schema=schema))
