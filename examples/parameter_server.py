"""Learning to balance a pole: a parameter server that is an actor, and tasks that try its parameters out.

    python examples/parameter_server.py
    python examples/parameter_server.py --rounds 50

Shows actors (`client.actor`: one instance in a process of its own, whose calls keep their order) and
futures as arguments: the parameters go from the server to the tasks, and their rewards back to it,
without a way through this program, which only says what depends on what.

The method is evolution strategies (Salimans and others, 2017): try the parameters with some noise and
with its opposite, and go where the rewards are better.  The pole is the usual one of reinforcement
learning: a cart that is pushed left or right.
"""

import argparse
import math
import random

import flamezmq as flm

STEPS = 200
NOISE, STEP = 0.5, 0.6


class ParameterServer:
    """Holds the parameters of the policy, and learns from trials."""

    def __init__(self) -> None:
        self.parameters = [0.0, 0.0, 0.0, 0.0]

    def get(self) -> list[float]:
        return self.parameters

    def learn(self, trials: list[tuple[int, float, float]]) -> list[float]:
        """From (seed of the noise, reward with it, reward with its opposite); returns the new parameters."""
        scale = max(abs(plus - minus) for _, plus, minus in trials) or 1.0
        for seed, plus, minus in trials:
            weight = STEP * (plus - minus) / scale / len(trials)
            self.parameters = [p + weight * n for p, n in zip(self.parameters, noise(seed), strict=True)]
        return self.parameters


def noise(seed: int) -> list[float]:
    """The same for the same seed, so that it need not travel."""
    source = random.Random(seed)
    return [source.gauss(0, 1) for _ in range(4)]


def attempt(parameters: list[float], seed: int) -> tuple[int, float, float]:
    """One task: how well the parameters do with some noise, and with its opposite."""
    change = [NOISE * n for n in noise(seed)]
    plus = [p + c for p, c in zip(parameters, change, strict=True)]
    minus = [p - c for p, c in zip(parameters, change, strict=True)]
    return seed, balance(plus, seed), balance(minus, seed)


def balance(parameters: list[float], seed: int) -> float:
    """For how many steps, 200 at most, the pole stands (the physics of Barto, Sutton and Anderson, 1983)."""
    source = random.Random(seed)
    x, speed, angle, turn = (source.uniform(-0.05, 0.05) for _ in range(4))
    for step in range(STEPS):
        a, b, c, d = parameters
        push = 10.0 if a * x + b * speed + c * angle + d * turn > 0 else -10.0
        cos, sin = math.cos(angle), math.sin(angle)
        force = (push + 0.05 * turn * turn * sin) / 1.1
        turning = (9.8 * sin - cos * force) / (0.5 * (4 / 3 - 0.1 * cos * cos / 1.1))
        moving = force - 0.05 * turning * cos / 1.1
        x, speed = x + 0.02 * speed, speed + 0.02 * moving
        angle, turn = angle + 0.02 * turn, turn + 0.02 * turning
        if abs(x) > 2.4 or abs(angle) > 0.21:
            return float(step)
    return float(STEPS)


def score(parameters: list[float]) -> float:
    """Without noise, on average."""
    return sum(balance(parameters, -seed) for seed in range(1, 21)) / 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="of learning [%(default)s]")
    parser.add_argument("--trials", type=int, default=16, help="tasks of each round [%(default)s]")
    asked = parser.parse_args()

    with flm.Client() as client, client.actor(ParameterServer) as server:
        parameters = server.get()  # a Future, as all that follow
        scores = [client.submit(score, parameters)]
        for round in range(asked.rounds):
            seeds = range(round * asked.trials, (round + 1) * asked.trials)
            parameters = server.learn([client.submit(attempt, parameters, seed) for seed in seeds])
            scores.append(client.submit(score, parameters))
        found = [future.result() for future in scores]

    print("steps that the pole stands, by round:", " ".join(f"{steps:.0f}" for steps in found))
    print(f"from {found[0]:.0f} to {max(found):.0f} of {STEPS}")


if __name__ == "__main__":
    main()
