"""Run seeds by hand: `python -m tests.sim SEED` traces one, `python -m tests.sim FIRST END` runs many."""

from __future__ import annotations

import re
import sys
import time
import traceback

from tests.sim.cluster import Cluster
from tests.sim.plan import draw


def main() -> int:
    if len(sys.argv) == 2:
        seed = int(sys.argv[1])
        print(draw(seed))
        Cluster(seed, tracing=True).run()
        return 0
    failed: dict[str, list[int]] = {}
    first, end = int(sys.argv[1]), int(sys.argv[2])
    start = time.process_time()
    slowest = (0.0, 0)
    for seed in range(first, end):
        before = time.process_time()
        try:
            Cluster(seed).run()
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            text = re.sub(r"\d+", "N", str(error).split("\n")[0][:100])
            failed.setdefault(f"{frame.name}:{frame.lineno} {type(error).__name__} {text}", []).append(seed)
        slowest = max(slowest, (time.process_time() - before, seed))
    for what, seeds in sorted(failed.items(), key=lambda item: -len(item[1])):
        print(len(seeds), what, seeds[:6])
    took = time.process_time() - start
    print(f"{end - first} runs, {took:.1f} s, slowest {slowest[0]:.2f} s (seed {slowest[1]})")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
