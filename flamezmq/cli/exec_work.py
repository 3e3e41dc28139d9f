"""What flmexec was asked to run, and how a task of it is submitted."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flamezmq.cli.exec_template import Job, Template
from flamezmq.scripts import run_script

if TYPE_CHECKING:
    from flamezmq.client.future import Future
    from flamezmq.client.session import Session

#: Tells a command which task it is.
NUMBER_VARIABLE = "FLAMEZMQ_TASK_NUMBER"
#: Languages in whose code inputs are replaced; in others {} means something else.
SHELLS = ("shell", "bash")


class Work:
    """A command or a script.

    words      of the command line, before the first `:::`
    language, code  as they were given
    has_input  whether each task has an input
    timeout, most_bytes  of each task

    Raises:
        click.UsageError: there is nothing to run, or the script can't be read.
    """

    def __init__(
        self,
        words: Sequence[str],
        language: str | None,
        code: str | None,
        has_input: bool,
        timeout: float | None,
        most_bytes: int,
    ) -> None:
        self.language = language or "shell"
        self._file = ""
        if code is None and language is None:
            code, words = " ".join(words), []
        elif code is None and words:
            self._file, *words = words
            code = _read(self._file)
        is_input = language is None and code == "" and has_input
        if code is None or not (code or is_input):
            raise click.UsageError("nothing to run: give a COMMAND, -c CODE, or -l LANGUAGE SCRIPT.")
        replaced = self.language in SHELLS and not self._file
        self._script = "" if replaced else code
        self.template = Template(code if replaced else None, words, has_input)
        terms: dict[str, Any] = {"timeout": timeout, "most_bytes": most_bytes}
        if replaced:
            self._function: Callable[..., Any] = functools.partial(run_script, self.language, **terms)
        else:  # the script travels once, and not with each task
            self._function = functools.partial(run_script, self.language, code, file=self._file, **terms)

    def submit(self, session: Session, number: int, job: Job) -> Future:
        """One task."""
        environment = {NUMBER_VARIABLE: str(number)}
        given = [job.arguments] if job.code is None else [job.code, job.arguments]
        return session.submit(self._function, *given, environment=environment)

    def spell(self, job: Job) -> str:
        """The command, as one would type it."""
        if job.code is not None:
            return " ".join([job.code, *map(shlex.quote, job.arguments)])
        script = [self._file] if self._file else ["-c", self._script]
        return shlex.join([self.language, *script, *job.arguments])


def _read(file: str) -> str:
    try:
        return Path(file).read_bytes().decode(errors="surrogateescape")
    except (OSError, ValueError) as error:
        raise click.UsageError(f"can't read the script {file!r}: {error}.") from error
