"""Learning from what another one has tried: a player fills a replay buffer, and learners read what comes.

    python examples/replay_buffer.py
    python examples/replay_buffer.py --episodes 2000 --learners 4

Shows an object with versions.  The buffer is a list that was put once, with `client.put([])`.  The player,
a task, appends to it (`ref.append`): one episode at a time, at the cost of that episode.  The learners,
tasks as well, ask now and then for what came since they last looked (`ref.since`), and get that alone,
as views of the memory that the player has filled.

The player walks at random over a field of ice with holes in it.  Each learner finds the way from corner to
corner by Q-learning (Watkins, 1989) with a discount of its own.
"""

import argparse
import functools
import time

import numpy as np

import flamezmq as flm

FIELD = ["...#....", ".#...#..", ".#.#...#", "...#.#..", ".#...#..", ".##.#..#", "...#....", ".#...#.."]
SIZE = len(FIELD)
MOVES = ((0, 1), (1, 0), (0, -1), (-1, 0))
GOAL = SIZE * SIZE - 1
STEP, WAIT_SECONDS = 0.5, 0.002


def walk(place: int, move: int) -> tuple[int, float, bool]:
    """(place, reward, whether it is over) after one step."""
    row, column = (here + there for here, there in zip(divmod(place, SIZE), MOVES[move], strict=True))
    if not (0 <= row < SIZE and 0 <= column < SIZE):
        return place, 0.0, False
    after = row * SIZE + column
    return after, float(after == GOAL), after == GOAL or FIELD[row][column] == "#"


def play(buffer: flm.ObjectRef, episodes: int) -> int:
    """One task: walk at random, from anywhere, and append each episode; returns how many steps that were."""
    steps = 0
    source = np.random.default_rng(1)
    for _ in range(episodes):
        place, over = int(source.integers(GOAL)), False
        episode: list[tuple[int, int, int, float, bool]] = []
        while not over and len(episode) < 100:
            move = int(source.integers(4))
            after, reward, over = walk(place, move)
            episode.append((place, move, after, reward, over))
            place = after
        buffer.append(np.array(episode))
        steps += len(episode)
    buffer.append(None)  # that was all
    return steps


def learn(buffer: flm.ObjectRef, discount: float) -> tuple[int, int, int]:
    """One task: learn from what comes; returns (steps read, increments, length of the way that was found)."""
    values = np.zeros((SIZE * SIZE, 4))
    version = steps = increments = 0
    while True:
        episodes, version, _ = buffer.since(version)
        increments += bool(episodes)
        for episode in episodes:
            if episode is None:
                return steps, increments, length(values)
            steps += len(episode)
            for place, move, after, reward, over in episode[::-1]:  # backwards it is learned sooner
                best = 0.0 if over else discount * values[int(after)].max()
                values[int(place), int(move)] += STEP * (reward + best - values[int(place), int(move)])
        if not episodes:
            time.sleep(WAIT_SECONDS)


def length(values: np.ndarray) -> int:
    """Of the way from corner to corner that seems best; 0: it ends in a hole, or nowhere."""
    place, over, steps = 0, False, 0
    while not over and steps < SIZE * SIZE:
        place, _, over = walk(place, int(values[place].argmax()))
        steps += 1
    return steps if place == GOAL else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--episodes", type=int, default=1500, help="that are played [%(default)s]")
    parser.add_argument("--learners", type=int, default=3, help="who learn from them [%(default)s]")
    asked = parser.parse_args()

    with flm.Client("", executors=1 + asked.learners) as client:
        client.submit(abs, 1).result()  # there is a node, and it has a store
        buffer = client.put([], name="buffer")
        # As an argument the buffer would be its value, the list; in a `partial` it stays a reference.
        player = client.submit(functools.partial(play, buffer), asked.episodes)
        discounts = [0.9 + 0.09 * k / asked.learners for k in range(asked.learners)]
        learners = [client.submit(functools.partial(learn, buffer), discount) for discount in discounts]
        steps = player.result()
        found = [learner.result() for learner in learners]

    print(f"{asked.episodes} episodes of {steps} steps were appended, one by one")
    for discount, (read, increments, way) in zip(discounts, found, strict=True):
        way_in_words = f"found a way of {way} steps" if way else "found no way"
        print(f"discount {discount:.2f}: read {read} steps in {increments} increments, {way_in_words}")


if __name__ == "__main__":
    main()
