"""flmworker: a node's worker as a service."""

from __future__ import annotations

from typing import Any, NoReturn

import click

from flamezmq import log
from flamezmq.cli import options
from flamezmq.cli.ending import run_and_exit
from flamezmq.errors import ConfigError

EXAMPLES = """\
  flmworker                               one executor per usable core, for a router of this machine
  flmworker --router tcp://HOST:7601      for one of another machine
  flmworker --executors 4 --node big-one  with a number and a name of its own
  flmworker --store-limit 4g              with so much memory for objects"""


@click.command(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=options.epilog("worker", "executors = 4", "it can't work here", EXAMPLES)
    + "  4  executors die as they start, again and again\n",
)
@options.flags_of("worker")
def command(file: str | None, **given: Any) -> int:
    """Run a worker on this node: it starts executors, which run the tasks that a router hands out.

    A router that is not there yet is waited for; one that goes away is waited for, too.
    """
    from flamezmq.daemon import worker
    from flamezmq.daemon.notify import Notifier

    found = options.settings("worker", file, given)
    try:
        return worker.run(found, log.open_log(found["log_format"], found["log_level"]), Notifier())
    except ConfigError as error:
        raise click.UsageError(str(error)) from error


def main() -> NoReturn:
    """The console script."""
    run_and_exit("flmworker", command, options.ERRORS)


if __name__ == "__main__":
    main()
