"""Pi by throwing darts: many short tasks without arguments worth mentioning, one sum.

    python examples/pi.py
    python examples/pi.py --darts 1000000000

Shows `map` over a range, unordered because a sum does not care, and that each executor has random
numbers of its own.  Uses numpy if it is installed (a hundred times as fast), else plain Python.
"""

import argparse
import importlib.util
import random

import flamezmq as flm

#: Each task throws so many.
DARTS = 100_000


def throw(darts: int) -> int:
    """How many of them hit the quarter of a circle."""
    return sum(random.random() ** 2 + random.random() ** 2 < 1 for _ in range(darts))


def throw_quickly(darts: int) -> int:
    """The same by numpy, which only the executors have to import."""
    import numpy

    x, y = numpy.random.random((2, darts))
    return int(numpy.count_nonzero(x * x + y * y < 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--darts", type=int, default=4_000_000, help="in all [%(default)s]")
    count = max(1, parser.parse_args().darts // DARTS)
    function = throw_quickly if importlib.util.find_spec("numpy") else throw

    with flm.Client() as client:
        hits = sum(client.map(function, [DARTS] * count, ordered=False))

    print(f"{count * DARTS:,} darts: pi is about {4 * hits / (count * DARTS):.4f}")


if __name__ == "__main__":
    main()
