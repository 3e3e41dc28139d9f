"""What the shell completes: ids of sessions and names of executors, asked of the router in passing.

A router that does not answer soon completes nothing; it is never waited for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from flamezmq.cli.ctl_base import connect

if TYPE_CHECKING:
    from flamezmq.client.controller import Controller

#: How long the router may take; a person has pressed a key.
PATIENCE_SECONDS = 0.3
#: Nobody reads more.
MOST = 200


def session_ids(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Open sessions."""
    try:
        with connect(_address(context), PATIENCE_SECONDS) as controller:
            return _sessions(controller, incomplete)
    except Exception:  # a complaint would land in the middle of the user's line
        return []


def session_ids_and_executors(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[str]:
    """Open sessions, as the beginning of a task, and executors."""
    try:
        with connect(_address(context), PATIENCE_SECONDS) as controller:
            executors, _ = controller.executors(MOST)
            names = [row.name for row in executors if row.name.startswith(incomplete)]
            return [f"{id}/" for id in _sessions(controller, incomplete)] + names
    except Exception:
        return []


def application_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Registered applications."""
    try:
        with connect(_address(context), PATIENCE_SECONDS) as controller:
            rows, _ = controller.applications(limit=MOST)
            return [row.application.name for row in rows if row.application.name.startswith(incomplete)]
    except Exception:
        return []


def tenant_names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Tenants that the router knows."""
    try:
        with connect(_address(context), PATIENCE_SECONDS) as controller:
            return [row.name for row in controller.tenants()[:MOST] if row.name.startswith(incomplete)]
    except Exception:
        return []


def _address(context: click.Context) -> str | None:
    """As far as it has been typed: behind the command's name, or before it (the group has not run)."""
    return context.params.get("address") or context.find_root().params.get("address")


def _sessions(controller: Controller, incomplete: str) -> list[str]:
    sessions, _ = controller.sessions(limit=MOST)
    return [row.id for row in sessions if row.id.startswith(incomplete)]
