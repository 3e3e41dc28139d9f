"""Questions and orders of a client that quote a number, and the wait for what is answered."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from flamezmq.errors import NotFound, RouterLost

if TYPE_CHECKING:
    from flamezmq.client.api import Client

#: How long the router may take to answer.
ANSWER_SECONDS = 10.0


def exchange(client: Client, message: Callable[[int], Any]) -> Any:
    """Send `message(request)`; returns the answer that quotes the request.

    Raises:
        NotFound: there is no such session or task.
        ClientClosed, RouterLost: there is nobody to ask, or no answer came in time.
    """
    client._check_open()
    with client._submit_lock:
        client._last_request += 1
        request = client._last_request
    answers = client._answers
    answers[request] = None
    try:
        client._tell(message(request))
        client._drive(lambda: answers[request] is not None, monotonic() + ANSWER_SECONDS)
        answer = answers[request]
    finally:
        del answers[request]
    if answer is None:
        client._check_open()
        raise RouterLost(f"the router at {client.address} has not answered in {ANSWER_SECONDS:g} s")
    if getattr(answer, "error", "") or getattr(answer, "outcome", 0) == 2:
        raise NotFound(getattr(answer, "error", "") or answer.text)
    return answer


def on_answer(client: Client, message: Any) -> None:
    """Called for what comes; what nobody waits for any more is dropped."""
    if message.request in client._answers:
        client._answers[message.request] = message
