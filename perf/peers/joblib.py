"""joblib: Parallel, on loky."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from perf.compare.face import Function, Peer


class Engine(Peer):
    title = "joblib"
    packages = ("joblib==1.6.0",)
    chosen = (
        "one `Parallel(n_jobs=2)` kept open by `with`, on loky. It has no submit: a task for each is "
        "`batch_size=1` with everything dispatched ahead; a batch is the default, `batch_size='auto'`"
    )
    program = """
from joblib import Parallel, delayed
print(Parallel(n_jobs=2)([delayed(abs)(-7)])[0], flush=True)
"""
    cannot = {"queue": "no submit: nothing can be queued and left"}

    def __init__(self, workers: int) -> None:
        from joblib import Parallel, delayed

        self._delayed = delayed
        self._single = Parallel(n_jobs=workers, batch_size=1, pre_dispatch="all")
        self._auto = Parallel(n_jobs=workers)
        self._single.__enter__()
        self._auto.__enter__()

    def one(self, function: Function, *arguments: Any) -> Any:
        return self._single([self._delayed(function)(*arguments)])[0]

    def each(self, function: Function, arguments: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        delayed = self._delayed(function)
        yield from self._single([delayed(*some) for some in arguments])

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterable[Any]:
        delayed = self._delayed(function)
        found: Iterable[Any] = self._auto(delayed(item) for item in items)
        return found

    def outcomes(
        self, function: Function, arguments: Sequence[tuple[Any, ...]], seconds: float
    ) -> tuple[dict[int, Any], int]:
        try:
            return dict(enumerate(self.each(function, arguments))), 0
        except Exception:
            return {}, len(arguments)  # one error for all, and no results

    def fib(self, number: int) -> int:
        return int(self.one(fib, number))

    def close(self) -> None:
        self._auto.__exit__(None, None, None)
        self._single.__exit__(None, None, None)


def fib(number: int) -> int:
    """joblib decides how deep it goes parallel; from the second level on it runs tasks in place."""
    from joblib import Parallel, delayed

    if number < 2:
        return number
    return int(sum(Parallel(n_jobs=2)([delayed(fib)(number - 1), delayed(fib)(number - 2)])))
