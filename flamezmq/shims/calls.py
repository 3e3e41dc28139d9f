"""The function of all tasks of sessions with an application: it calls the service that is bound here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flamezmq.shims.base import Shim
    from flamezmq.shims.context import Context


class Bound:
    """What is bound in this process: a shim and the context of its session; nothing in all others."""

    shim: Shim | None = None
    ctx: Context | None = None


def invoke(*args: Any, **kwargs: Any) -> Any:
    """Run a task by the service that is bound here."""
    shim = Bound.shim
    if shim is None:
        raise RuntimeError(
            "no service is bound here: this runs in an executor of a session with an application"
        )
    return shim.invoke(Bound.ctx, *args, **kwargs)  # type: ignore[arg-type]
