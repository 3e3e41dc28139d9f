"""`flmctl tenants`: what each tenant may have, and has; `flmctl tenants set` changes it."""

from __future__ import annotations

import json
from typing import Any

import click

from flamezmq.cli.ctl_base import Failure, address_option, connect, examples, say
from flamezmq.cli.ctl_change import by
from flamezmq.cli.ctl_complete import tenant_names
from flamezmq.cli.ctl_output import Column, Row, memory, output_option, show
from flamezmq.wire import messages as m

TENANTS: tuple[Column, ...] = (
    Column("Tenant", "tenant", "its name; `*` stands for all that are not named, `-` has none"),
    Column("Weight", "weight", "of its share, among the tenants that have any work", right=True),
    Column("Sessions", "sessions", "of it that are open", right=True),
    Column("Executors", "executors", "that serve them / that may, at a time", right=True),
    Column("Tasks", "tasks", "that wait with the router / that may (`queued_tasks`)", right=True),
    Column(
        "Bytes",
        "bytes",
        "of their arguments / that may (`queued_bytes`); counted only where there is a limit",
        right=True,
    ),
    Column("Waiting", "waiting", "clients whose `submit` waits for room under its quotas", right=True),
    Column("Resources", "resources", "the most that its executors may have of their nodes", wide=True),
    Column("Named", "named", "no: it has what `*` has, or no limits", wide=True),
)


@click.group(
    "tenants",
    invoke_without_command=True,
    epilog=examples("tenants", "tenants -o json", "tenants set '*' --queued-tasks 100000"),
)
@output_option
@address_option
@click.pass_context
def tenants_command(context: click.Context, output: str, address: str | None) -> None:
    """Show what each tenant may have, and has; `tenants set` changes it.

    Those that the router's settings name, or somebody since, and those of open sessions.
    """
    if context.invoked_subcommand is not None:
        if address:
            context.find_root().obj = address
        return
    with connect(address) as controller:
        rows = [tenant_row(row) for row in controller.tenants()]
    show(rows if output == "json" else [for_people(row) for row in rows], TENANTS, output)


@tenants_command.command(
    "set",
    epilog=examples(
        "tenants set research --weight 2 --max-executors 8",
        "tenants set research --queued-tasks 100000 --queued-bytes 1g",
        "tenants set '*' --resources cpu=16",
    ),
)
@click.argument("name", shell_complete=tenant_names)
@click.option("--weight", type=float, help="Of its share, among the tenants that have any work.")
@click.option("--max-executors", type=int, help="Executors that may serve it at a time; 0: no limit.")
@click.option("--resources", help="The most that these may have, as in cpu=16,gpu=2; '': no limit.")
@click.option("--queued-tasks", type=int, help="Its tasks that may wait with the router; 0: no limit.")
@click.option("--queued-bytes", help="Bytes of their arguments, as in 64m or 1g; 0: no limit.")
@click.option("--new", is_flag=True, help="It need not be known: it may have no session yet.")
@output_option
@address_option
def set_tenant_command(name: str, new: bool, output: str, address: str | None, **asked: Any) -> None:
    """Change what a tenant may have, while the router runs.

    NAME is one that `flmctl tenants` shows: '*' is each that is not named, '' that of the sessions that
    name none.  It reaches sessions that are open, and holds until the router ends: what is to stay goes
    into its file of settings.
    """
    from flamezmq.client.tenants import checked

    try:
        changes = checked(name, **asked)
    except ValueError as error:
        raise click.UsageError(f"{error}.") from error
    with connect(address) as controller:
        done, text = controller.set_tenant(name, by(), new, **changes)
    if not done:
        raise Failure(text)
    say(json.dumps({"done": True, "text": text}) if output == "json" else text)


def tenant_row(row: m.TenantRow) -> Row:
    """For programs; limits are null where there is none."""
    return {
        "tenant": row.name,
        "named": row.named,
        "weight": row.weight,
        "sessions": row.sessions,
        "executors": row.executors,
        "max_executors": row.max_executors or None,
        "resources": row.resources or None,
        "tasks": row.tasks,
        "queued_tasks": row.queued_tasks or None,
        "bytes": row.bytes if row.bytes >= 0 else None,
        "queued_bytes": row.queued_bytes or None,
        "waiting": row.asking,
    }


def for_people(row: Row) -> Row:
    """What is there, and of how much."""
    shown = dict(row, named="yes" if row["named"] else "no")
    for key, limit in (("executors", "max_executors"), ("tasks", "queued_tasks")):
        shown[key] = f"{row[key]:,}" if row[limit] is None else f"{row[key]:,} / {row[limit]:,}"
    if row["queued_bytes"] is not None:
        shown["bytes"] = f"{memory(row['bytes'] or 0)} / {memory(row['queued_bytes'])}"
    return shown
