"""What truly happened to each task, written down where it happened, compared at the end."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Account:
    """One task.

    begins      (executor, attempt), each time that it began
    took_down   executors that died while it ran, and whose worker saw it
    sent        how often its result was sent, on a connection that stood
    finished    how often it came to its end
    sent_back   how often it failed, and was to run again
    overdue     executors that were killed because it did not keep to its timeout
    interrupted how often it ended because it was interrupted
    """

    begins: list[tuple[str, int]] = field(default_factory=list)
    took_down: int = 0
    sent: int = 0
    finished: int = 0
    sent_back: int = 0
    overdue: int = 0
    interrupted: int = 0


class Ledger:
    """What is written down of all.

    calls  of actors, by session: (index, attempt, executor) of each call that began, in that order
    """

    def __init__(self) -> None:
        self.accounts: dict[bytes, Account] = {}
        self.calls: dict[str, list[tuple[int, int, str]]] = {}

    def of(self, payload: bytes) -> Account:
        key = payload.partition(b"#")[0]
        account = self.accounts.get(key)
        if account is None:
            account = self.accounts[key] = Account()
        return account
