"""A task that does not end by itself, for the tests of what ends it."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import flamezmq as flm


def waste(how: str, begun: Path | None = None) -> str:
    """For longer than anybody waits, in one of several ways; makes the file `begun` first."""
    if begun is not None:
        begun.touch()
    if how == "sleep":
        time.sleep(1000)
    while how == "busy":
        pass
    while how == "stubborn":
        try:
            time.sleep(0.01)
        except BaseException:
            pass
    if how == "in C":
        sum(range(10**12))
    if how == "nested" and begun is not None:
        flm.current().client.submit(waste, "sleep", begun.with_name("inner")).result()
    if how == "thread":
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
        threading.Event().wait()
    return how
