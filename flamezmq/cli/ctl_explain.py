"""`flmctl explain`: why a task waits, or those of a session do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
import msgspec

from flamezmq import states
from flamezmq.cli.ctl_base import address_option, connect, examples, say
from flamezmq.cli.ctl_complete import session_ids
from flamezmq.cli.ctl_output import name_of, output_option, plain
from flamezmq.errors import NotFound

if TYPE_CHECKING:
    from flamezmq.client.controller import Controller
    from flamezmq.wire.messages import Why


@click.command("explain", epilog=examples("explain nightly-XcEzMK", "explain nightly-XcEzMK/13012"))
@click.argument("target", metavar="TASK|SESSION", shell_complete=session_ids)
@output_option
@address_option
def explain_command(target: str, output: str, address: str | None) -> None:
    """Say in a sentence or two why a task, or a session, waits, and since when.

    A TASK is <session id>/<index>, as `future.task_id` says it.  Of one that runs, or has ended,
    that is said.  `-o json` gives the facts of which the sentences are made.
    """
    from flamezmq.client.reasons import sentences

    with connect(address) as controller:
        why = find(controller, target)
    text = plain(sentences(why))
    say(json.dumps({"text": text, **facts(why)}, indent=2) if output == "json" else text)


def find(controller: Controller, target: str) -> Why:
    """What is asked for: a task, if it can be one, else a session.

    Raises:
        NotFound: nobody has this name.
    """
    session, _, number = target.rpartition("/")
    if session and number.isascii() and number.isdigit() and len(number) <= 18:
        try:
            return controller.why(session, int(number))
        except NotFound as error:
            if "has no task" in str(error):  # the session is there
                raise
    return controller.why(target)


def facts(why: Why) -> dict[str, Any]:
    """For programs: what is known, and nothing of what is not."""
    found = {
        key: round(value, 3) if isinstance(value, float) else value
        for key, value in msgspec.structs.asdict(why).items()
        if value not in (-1, -1.0, "", [])
    }
    if why.state >= 0:
        found["state"] = name_of(states.TaskState, why.state)
    found["need_states"] = [name_of(states.TaskState, state) for state in why.need_states]
    return found
