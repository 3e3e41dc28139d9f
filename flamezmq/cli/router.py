"""flmrouter: the router as a service."""

from __future__ import annotations

from typing import Any, NoReturn

import click

from flamezmq import config, log
from flamezmq.cli import options
from flamezmq.cli.ending import run_and_exit

EXAMPLES = """\
  flmrouter                                        for workers and clients of this machine
  flmrouter --bind tcp://0.0.0.0:7601 --insecure   for others, too, in a network that you trust
  flmrouter --config flamezmq.toml                 as the file says"""


@click.command(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=options.epilog("router", "drain_seconds = 10", "it can't listen there", EXAMPLES),
)
@options.flags_of("router")
def command(file: str | None, **given: Any) -> int:
    """Run the router of a flamezmq cluster: workers and clients dial it."""
    from flamezmq.daemon import router
    from flamezmq.daemon.notify import Notifier

    found = options.settings("router", file, given)
    tenants = config.tenants(file)
    return router.run(found, tenants, log.open_log(found["log_format"], found["log_level"]), Notifier())


def main() -> NoReturn:
    """The console script."""
    run_and_exit("flmrouter", command, options.ERRORS)


if __name__ == "__main__":
    main()
