"""Clusters in a large array: k-means over points that lie in shared memory once, for all tasks and rounds.

    python examples/kmeans.py
    python examples/kmeans.py --megabytes 1024 --clusters 16 --rounds 20

Shows references: `client.put(points)` copies the points once into the store of this node, and the reference
stands for them as an argument of every task.  A task gets a read-only view of the whole array, without a
copy, and looks at its share of it; what travels in a round are the centers and some sums.

The points come from known centers, so that the result can be judged.  Needs numpy.
"""

import argparse
from itertools import pairwise

import numpy

import flamezmq as flm

DIMENSIONS = 8
#: Points that a task looks at together: their distances to all centers fit into the processor's cache.
BLOCK = 4096


def points_around(centers: numpy.ndarray, megabytes: int) -> numpy.ndarray:
    """So many megabytes of points, each near one of the centers."""
    source = numpy.random.default_rng(1)
    points = source.standard_normal((megabytes * 2**20 // 4 // DIMENSIONS, DIMENSIONS), numpy.float32)
    for start in range(0, len(points), BLOCK):
        block = points[start : start + BLOCK]
        block += centers[source.integers(len(centers), size=len(block))]
    return points


def share_of_a_round(
    points: numpy.ndarray, start: int, stop: int, centers: numpy.ndarray
) -> tuple[numpy.ndarray, numpy.ndarray]:
    """One task: for each center the sum and the number of those of `points[start:stop]` that are nearest."""
    sums, counts = numpy.zeros(centers.shape), numpy.zeros(len(centers))
    for first in range(start, stop, BLOCK):
        block = points[first : min(first + BLOCK, stop)]
        distances = (centers**2).sum(1) - 2 * block @ centers.T  # but for what is the same for all centers
        nearest = (distances.argmin(1)[:, None] == numpy.arange(len(centers))).astype(numpy.float32)
        sums += nearest.T @ block
        counts += nearest.sum(0)
    return sums, counts


def far_apart(points: numpy.ndarray, count: int) -> numpy.ndarray:
    """Some of the points, to begin with: each as far as can be from those before it."""
    chosen = [points[0]]
    nearest = numpy.full(len(points), numpy.inf)
    while len(chosen) < count:
        nearest = numpy.minimum(nearest, ((points - chosen[-1]) ** 2).sum(1))
        chosen.append(points[nearest.argmax()])
    return numpy.array(chosen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=64, help="of points [%(default)s]")
    parser.add_argument("--clusters", type=int, default=8, help="to be found [%(default)s]")
    parser.add_argument("--rounds", type=int, default=5, help="of all points [%(default)s]")
    parser.add_argument("--tasks", type=int, default=16, help="of each round [%(default)s]")
    asked = parser.parse_args()

    true = numpy.random.default_rng(2).uniform(-20, 20, (asked.clusters, DIMENSIONS)).astype(numpy.float32)
    points = points_around(true, asked.megabytes)
    centers = far_apart(points[:10_000], asked.clusters)
    bounds = [len(points) * number // asked.tasks for number in range(asked.tasks + 1)]

    with flm.Client() as client:
        shared = client.put(points)
        del points  # one copy is enough
        for _ in range(asked.rounds):
            shares = [
                client.submit(share_of_a_round, shared, start, stop, centers)
                for start, stop in pairwise(bounds)
            ]
            sums, counts = (sum(parts) for parts in zip(*(share.result() for share in shares), strict=True))
            centers = (sums / numpy.maximum(counts, 1)[:, None]).astype(numpy.float32)
        print(f"{shared.size / 2**20:.0f} MiB of points in shared memory, {bounds[-1]:,} in all")

    off = [min(float(numpy.linalg.norm(center - one)) for center in centers) for one in true]
    close = sum(distance < 0.1 for distance in off)
    print(f"{close} of {len(true)} clusters found to a tenth of their width")


if __name__ == "__main__":
    main()
