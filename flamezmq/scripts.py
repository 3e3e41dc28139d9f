"""Scripts and programs as tasks: each in a process of its own, its output kept whole.

    result = client.submit(run_script, "python", code, timeout=10).result()
    print(result.exit_code, result.stdout)

For code that must not run in the executor itself: generated scripts, programs of other
languages, whatever may crash, hang or leave something behind.  It is what `flmexec` runs.
A task that fails by its exit code has not failed as a task: it returns a
ScriptResult that says so.  The idea, and the words, are those of Flame's flmexec.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import time

from flamezmq import running
from flamezmq.shims import command
from flamezmq.shims.command import FILE_FD, MOST_BYTES

__all__ = ["ScriptResult", "run_program", "run_script"]

#: The languages of `run_script`: the interpreter, and the flag behind which it takes code.
LANGUAGES: dict[str, tuple[str, str]] = {
    "shell": ("/bin/sh", "-c"),
    "bash": ("bash", "-c"),
    "python": (sys.executable or "python3", "-c"),
    "node": ("node", "-e"),
    "perl": ("perl", "-e"),
}
#: Longer code is handed over as a file: the kernel takes 128 KiB as one argument, its end included.
MOST_WORD_BYTES = (1 << 17) - 1
#: How each language runs code from that file.
_FROM_FILE: dict[str, tuple[str, ...]] = {
    "python": ("-c", f"exec(compile(open('/dev/fd/{FILE_FD}', 'rb').read(), '<script>', 'exec'))"),
    "node": ("-e", f"(0, eval)(require('fs').readFileSync({FILE_FD}, 'utf8'))", "--"),
}


@dataclass(frozen=True, slots=True)
class ScriptResult:
    """What came of a script or a program.

    Attributes:
        exit_code: its own; 128 and the signal's number if a signal has killed it; 124 if its time
            was over; 126 or 127 if it could not be started, and stderr says why.
        stdout_bytes: what it has printed on its standard output, at most `most_bytes`.
        stderr_bytes: the same for its standard error.
        seconds: how long it ran.
        signal: the name of the signal that has killed it, such as "SIGKILL"; "" for none.
        timed_out: whether it was killed because its time was over.
        dropped_bytes: how much it has printed that is not kept.
        began: when it was started, in seconds since 1970, by the clock of its node.
        executor: `node/number` of the executor that has run it; "" outside of a cluster.
    """

    exit_code: int
    stdout_bytes: bytes
    stderr_bytes: bytes
    seconds: float
    signal: str = ""
    timed_out: bool = False
    dropped_bytes: int = 0
    began: float = 0.0
    executor: str = ""

    @property
    def stdout(self) -> str:
        """`stdout_bytes` as text; what is no UTF-8 is replaced."""
        return self.stdout_bytes.decode(errors="replace")

    @property
    def stderr(self) -> str:
        """`stderr_bytes` as text; what is no UTF-8 is replaced."""
        return self.stderr_bytes.decode(errors="replace")

    @property
    def ok(self) -> bool:
        """Whether its exit code is 0."""
        return not self.exit_code


def run_script(
    language: str,
    code: str,
    arguments: Sequence[str] = (),
    *,
    stdin: str | bytes = b"",
    timeout: float | None = None,
    environment: Mapping[str, str] | None = None,
    most_bytes: int = MOST_BYTES,
    file: str = "",
) -> ScriptResult:
    """Run code in a process of its own: a task function, as in `submit(run_script, "python", code)`.

    Args:
        language: "shell", "bash", "python", "node" or "perl"; its interpreter must be on the node.
            Python is the one that the executor runs.
        code: the script's text, of any length.
        arguments: those of the script.
        stdin: what it can read; a text goes as UTF-8.
        timeout: seconds until all its processes get SIGTERM, and half a second later SIGKILL.
        environment: variables beside those of the executor.
        most_bytes: of each of its two outputs that are kept; what is beyond is read and dropped,
            and `dropped_bytes` says how much.
        file: where the code comes from.  If that file is on the node with the same content, it is
            run in its own place, where it finds what it imports; else the code is.

    Raises:
        ValueError: nobody knows that language.
        OSError: the node has no more descriptors, processes or memory.

    Its processes are a process group of their own.  What is left of that when the script ends is
    killed; all of it is when the task is interrupted or its executor dies.  It costs what the
    interpreter's start costs: a millisecond for the shell, some ten for Python.
    """
    interpreter = LANGUAGES.get(language)
    if interpreter is None:
        raise ValueError(f"no language {language!r}; there are {', '.join(LANGUAGES)}")
    program, flag = interpreter
    handed: bytes | None = None
    if file and _holds(file, code):
        words = [program, file, *arguments]
    elif len(data := _bytes(code)) < MOST_WORD_BYTES:
        name = [language] if language in ("shell", "bash") else []  # their $0
        name += ["--"] if language in ("node", "perl") else []
        words = [program, flag, code, *name, *arguments]
    else:
        handed = data
        words = [program, *_FROM_FILE.get(language, (f"/dev/fd/{FILE_FD}",)), *arguments]
    return _run(words, handed, stdin, timeout, environment, most_bytes)


def run_program(
    words: Sequence[str],
    *,
    stdin: str | bytes = b"",
    timeout: float | None = None,
    environment: Mapping[str, str] | None = None,
    most_bytes: int = MOST_BYTES,
) -> ScriptResult:
    """Run a program, without a shell between: a task function, as `run_script`.

    Args:
        words: the program, looked for on the node's PATH, and its arguments.
        stdin: what it can read; a text goes as UTF-8.
        timeout: seconds until all its processes get SIGTERM, and half a second later SIGKILL.
        environment: variables beside those of the executor.
        most_bytes: of each of its two outputs that are kept.

    Raises:
        ValueError: there are no words.
        OSError: the node has no more descriptors, processes or memory.
    """
    if isinstance(words, str) or not words:
        raise ValueError(f"`words` is {words!r}; it must be a program and its arguments, as in ['ls', '-l']")
    return _run(list(words), None, stdin, timeout, environment, most_bytes)


def _run(
    words: list[str],
    file: bytes | None,
    stdin: str | bytes,
    timeout: float | None,
    environment: Mapping[str, str] | None,
    most_bytes: int,
) -> ScriptResult:
    here = running.executor
    began = time()
    ended = command.run(
        words,
        stdin=_bytes(stdin) if isinstance(stdin, str) else stdin,
        file=file,
        environment=environment,
        timeout=timeout,
        most_bytes=most_bytes,
        guarded=here is not None,
    )
    return ScriptResult(
        ended.exit_code,
        ended.stdout,
        ended.stderr,
        ended.seconds,
        ended.signal,
        ended.timed_out,
        ended.dropped,
        began,
        f"{here.config.node}/{here.config.number}" if here is not None else "",
    )


def _holds(file: str, code: str) -> bool:
    try:
        with open(file, "rb") as there:
            return there.read() == _bytes(code)
    except (OSError, ValueError):
        return False


def _bytes(text: str) -> bytes:
    """As a file name: what is no UTF-8 in a user's script or input comes out as it was."""
    return text.encode(errors="surrogateescape")
