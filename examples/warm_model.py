"""A model that stays warm: a service loads it once in each executor, and then answers as long as it is asked.

    python examples/warm_model.py
    python examples/warm_model.py --requests 20000

Shows a service (`flm.service`), its application, and `common_data`: the weights, which travel once to each
executor and not with each request.  Needs numpy.

The model is a real one, if small: softmax regression, trained here on digits of a seven-segment display
that is hard to read.
"""

import argparse
import os
from typing import Any

import numpy as np

import flamezmq as flm

#: The bars of 0 to 9: top, upper left, upper right, middle, lower left, lower right, bottom.
SEGMENTS = (
    0b1110111,
    0b0010010,
    0b1011101,
    0b1011011,
    0b0111010,
    0b1101011,
    0b1101111,
    0b1010010,
    0b1111111,
    0b1111011,
)
DIGITS = np.array([[int(bar) for bar in f"{digit:07b}"] for digit in SEGMENTS], dtype=float)


def display(digits: Any, random: np.random.Generator) -> Any:
    """What a bad display shows of these digits: n x 7, more or less bright."""
    return DIGITS[digits] + random.normal(0, 0.35, (len(digits), 7))


def train(rounds: int = 300) -> tuple[Any, Any]:
    """Weights, 7 x 10, and biases, 10."""
    random = np.random.default_rng(1)
    digits = random.integers(0, 10, 2000)
    seen, wanted = display(digits, random), np.eye(10)[digits]
    weights, biases = np.zeros((7, 10)), np.zeros(10)
    for _ in range(rounds):
        scores = np.exp(seen @ weights + biases)
        wrong = scores / scores.sum(axis=1, keepdims=True) - wanted
        weights -= 2 * seen.T @ wrong / len(seen)
        biases -= 2 * wrong.mean(axis=0)
    return weights, biases


@flm.service
class Reader:
    """Reads displays."""

    def on_session_enter(self, ctx: flm.Context) -> None:
        self.weights, self.biases = ctx.common_data  # of a large model: load it into the GPU

    def on_task_invoke(self, ctx: flm.Context, seen: Any) -> tuple[int, int]:
        """The digit, and where it was read."""
        return int(np.argmax(seen @ self.weights + self.biases)), os.getpid()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000, help="displays to be read [%(default)s]")
    count = parser.parse_args().requests
    random = np.random.default_rng(2)
    digits = random.integers(0, 10, count)

    with flm.Client() as client:
        client.register(flm.Application(name="reader", service=Reader))
        with client.session("reading", app="reader", common_data=train()) as session:
            answers = list(session.map(display(digits, random)))

    right = sum(int(digit) == answer for digit, (answer, _) in zip(digits, answers, strict=True))
    places = len({place for _, place in answers})
    print(f"{count:,} displays read by {places} models that were loaded once; {right / count:.0%} are right")


if __name__ == "__main__":
    main()
