"""When to do it again.

The next process, after one has died: at once, unless they die young time after
time.  A task, after it has failed: after a pause, twice as long each time.

Pure: time comes in as `now`.
"""

from __future__ import annotations

#: Who dies earlier, died young (and had done nothing yet, as far as one can tell).
YOUNG_SECONDS = 1.0
#: So many young deaths in a row are an accident; more are a rule, and the next start waits.
ACCIDENTS = 3
#: After so many, within a few seconds, there is no reason to believe that the next one will live.
HOPELESS = 8
FIRST_DELAY_SECONDS = 0.1
LONGEST_DELAY_SECONDS = 5.0
#: After so long without another one, young deaths are forgotten.
FORGET_SECONDS = 10.0


class Backoff:
    """When may the next one start?  At once, unless too many in a row died young.

    Those that lived side by side count once.  `until` is 0 while nothing waits.
    """

    __slots__ = ("last", "until", "young")

    def __init__(self) -> None:
        self.young = 0
        self.until = self.last = 0.0

    @property
    def hopeless(self) -> bool:
        return self.young >= HOPELESS

    def died(self, young: bool, born: float, now: float) -> None:
        if not young or now - self.last > FORGET_SECONDS:
            self.young = 0
        if young and (born >= self.last or not self.young):
            self.young += 1
            self.last = now
            if self.young >= ACCIDENTS:
                delay = FIRST_DELAY_SECONDS * 2.0 ** min(self.young - ACCIDENTS, 10)
                self.until = now + min(delay, LONGEST_DELAY_SECONDS)


#: However often the pause before the next run was doubled, it is no longer than this.
MOST_PAUSE_SECONDS = 3600.0


def pause(backoff: float, retried: int) -> float:
    """Seconds to wait before the run that follows `retried` others."""
    return min(backoff * 2.0 ** min(retried, 100), MOST_PAUSE_SECONDS)
