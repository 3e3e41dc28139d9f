"""What must hold of a task that was dropped because its deadline had passed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.sim.ledger import Account
from tests.sim.users import Future

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster


def check(cluster: Cluster, future: Future, account: Account) -> None:
    """It had not begun in time; or it had, and something else has ended that attempt."""
    assert future.name.options is not None
    deadline = future.name.options.deadline
    assert deadline, "it had no deadline"
    assert future.ended >= future.submitted + deadline * 0.99, "it had time left"
    retired = {executor.name for worker in cluster.workers for executor in worker.retired}
    here = {f"{token}/{number}" for token, number in cluster.broker.by_name}  # some are given up, and live on
    lost = account.finished > account.sent  # what it ended with: its executor was cut off, and given up
    died = any(executor in retired or executor not in here for executor, _ in account.begins)
    assert lost or account.sent_back or died or not account.begins, f"it had begun: {account}"
