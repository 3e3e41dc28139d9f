"""Frames of a telescope: each goes through a chain of tasks, whose arrays stay in shared memory on the way.

    python examples/stars.py
    python examples/stars.py --frames 64 --size 2048

Shows futures as arguments: every task is submitted before the first has ended, and takes the array of the
one before it straight from the store of the node, as a copy-on-write view.  Nothing of it passes the router
or this program, which sees the numbers at the end only.  The last task takes a list of futures.

The frames are made up: noise on a sky that is brighter to one side, and stars of which it is known where
they are.  Needs numpy.
"""

import argparse

import numpy

import flamezmq as flm

STARS = 40
#: How bright a star is, in multiples of the noise, and how many pixels it reaches to each side.
BRIGHTNESS, WIDTH = 0.8, 2


def expose(number: int, size: int) -> numpy.ndarray:
    """A frame; stars are in the same places in all of them."""
    frame = numpy.random.default_rng(number).standard_normal((size, size))
    frame += numpy.linspace(0, 50, size)
    for row, column in places(size):
        frame[row - WIDTH : row + WIDTH + 1, column - WIDTH : column + WIDTH + 1] += BRIGHTNESS
    return frame


def flatten(frame: numpy.ndarray) -> numpy.ndarray:
    """Take the sky away, in place: the view is this task's own."""
    frame -= numpy.median(frame, axis=0)
    frame -= numpy.median(frame, axis=1)[:, None]
    return frame


def smooth(frame: numpy.ndarray) -> numpy.ndarray:
    """The mean of each pixel and its neighbours, by running sums."""
    reach = 2 * WIDTH + 1
    for axis in (0, 1):
        sums = numpy.cumsum(frame, axis)
        sums = numpy.concatenate([numpy.zeros_like(sums.take([0], axis)), sums], axis)
        count = frame.shape[axis]
        frame = (sums.take(range(reach, count + 1), axis) - sums.take(range(count + 1 - reach), axis)) / reach
        frame = numpy.pad(frame, [(WIDTH, WIDTH) if axis == other else (0, 0) for other in (0, 1)])
    return frame


def stack(frames: list[numpy.ndarray]) -> numpy.ndarray:
    """The mean of all frames."""
    return sum(frames[1:], start=frames[0]) / len(frames)


def found(frame: numpy.ndarray) -> int:
    """How many of the stars stand out from the rest of the frame."""
    peaks = frame > frame.mean() + 4 * frame.std()
    return sum(bool(peaks[row, column]) for row, column in places(len(frame)))


def places(size: int) -> list[tuple[int, int]]:
    """Where the stars are."""
    source = numpy.random.default_rng(0)
    return [tuple(source.integers(WIDTH, size - WIDTH, 2)) for _ in range(STARS)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--frames", type=int, default=16, help="to take [%(default)s]")
    parser.add_argument(
        "--size", type=int, default=512, help="of a frame, pixels on either side [%(default)s]"
    )
    asked = parser.parse_args()

    with flm.Client() as client:
        submit = client.submit
        frames = [submit(expose, number, asked.size) for number in range(1, asked.frames + 1)]
        smoothed = [submit(smooth, submit(flatten, frame)) for frame in frames]
        alone = [submit(found, frame) for frame in smoothed]
        together = submit(found, submit(stack, smoothed))
        best = max(future.result() for future in alone)
        print(
            f"{len(frames)} frames of {asked.size**2 * 8 / 2**20:.0f} MiB through {4 * len(frames) + 2} tasks"
        )
        print(f"{together.result()} of {STARS} stars found in their mean, {best} in the best one alone")


if __name__ == "__main__":
    main()
