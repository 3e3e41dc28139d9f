"""Executors that are to be given back, and the sessions that wait for them.

Pure bookkeeping of the scheduler's; what it does to a session's rank is told to the tree.
"""

from __future__ import annotations

from flamezmq.shares import Share, Tree


class Promises:
    """Who is to have which executor next.

    waiters    executor that is given back -> the session that waits for it
    kept       of them, those that are free already
    unclaimed  executors that are given back, and nobody waits for them yet
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.waiters: dict[int, Share] = {}
        self.kept: dict[int, None] = {}
        self.unclaimed: dict[int, None] = {}

    def offer(self, executor: int) -> None:
        """It will be free soon, and nobody waits for it."""
        self.unclaimed[executor] = None

    def promise(self, executor: int, share: Share) -> None:
        """It will be free soon, and this session waits for it."""
        del self.unclaimed[executor]
        self.waiters[executor] = share
        share.promised[executor] = None
        self._tree.rank(share)

    def is_free(self, executor: int) -> None:
        """It has been given back: it is kept, if it is promised."""
        self.unclaimed.pop(executor, None)
        if executor in self.waiters:
            self.kept[executor] = None

    def renounce(self, share: Share) -> None:
        """One that was promised to it may go to another session."""
        executor = next(iter(share.promised))
        del share.promised[executor], self.waiters[executor]
        if executor in self.kept:
            del self.kept[executor]
        else:
            self.unclaimed[executor] = None
        self._tree.stale[share] = None

    def withdraw(self, executor: int) -> None:
        """The executor serves somebody else, or will not be free soon."""
        self.unclaimed.pop(executor, None)
        self.kept.pop(executor, None)
        share = self.waiters.pop(executor, None)
        if share is not None:
            del share.promised[executor]
            self._tree.stale[share] = None

    def check(self, shares: list[Share]) -> None:
        """Compare every index with every other."""
        promised = {e: share for share in shares for e in share.promised}
        assert promised == self.waiters
        soon = {e for share in shares for e, free in share.leaving.items() if free}
        assert soon == set(promised) - set(self.kept) | set(self.unclaimed)
        assert set(self.kept) <= set(promised)
