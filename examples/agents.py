"""Agents that write scripts, run them, and learn from what comes back: a result, an error, or too late.

    python examples/agents.py
    python examples/agents.py --agents 8 --rounds 10

Shows `flm.scripts.run_script`, which is what flmexec runs: each script is a process of its own, with
its data on stdin and a limit of time, so that a bad one harms nobody.  The "model" that
writes them here is a random generator, which makes mistakes on purpose; no network is needed.

The agents look for the law behind some measurements: each script is a guess, and prints how far off it is.
"""

import argparse
import json
import random
from collections import Counter

import flamezmq as flm
from flamezmq.scripts import ScriptResult, run_script

#: What was measured: x, y.
MEASURED = [(x, 3 * x * x - 2 * x + 5) for x in range(-5, 6)]
LIMIT_SECONDS = 1.0

SCRIPT = """\
import json, sys

def law(x):
    return {guess}

points = json.load(sys.stdin)
print(sum((law(x) - y) ** 2 for x, y in points))
"""
#: What goes wrong with some of the scripts that models write.
MISTAKES = ["a * x +", "undefined_name", "[0] * 10 ** 13", "max(iter(int, 1))"]


class Agent:
    """Writes a script, is told what came of it, and writes a better one."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.best = [0.0, 0.0, 0.0]
        self.error = float("inf")
        self.tried = self.best
        self.outcomes: Counter[str] = Counter()

    def write(self) -> str:
        """The next script: near the best one so far, and now and then nonsense."""
        if self.random.random() < 0.15:
            return SCRIPT.format(guess=self.random.choice(MISTAKES))
        spread = min(5.0, 0.1 + self.error**0.5 / 20)
        self.tried = [value + self.random.gauss(0, spread) for value in self.best]
        a, b, c = self.tried
        return SCRIPT.format(guess=f"{a!r} * x * x + {b!r} * x + {c!r}")

    def learn(self, result: ScriptResult) -> None:
        """What came of it: a number on stdout, or the last line of a traceback."""
        if result.timed_out:
            self.outcomes["no end in time"] += 1
        elif not result.ok:
            self.outcomes[result.stderr.strip().rpartition("\n")[2].partition(":")[0] or result.signal] += 1
        else:
            self.outcomes["ran"] += 1
            error = float(result.stdout)
            if error < self.error:
                self.error, self.best = error, self.tried


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--agents", type=int, default=4, help="[%(default)s]")
    parser.add_argument("--rounds", type=int, default=15, help="scripts of each [%(default)s]")
    asked = parser.parse_args()
    agents = [Agent(seed) for seed in range(20, 20 + asked.agents)]
    data = json.dumps(MEASURED)

    with flm.Client() as client, client.session("agents") as session:

        def send(agent: Agent) -> flm.Future:
            return session.submit(run_script, "python", agent.write(), stdin=data, timeout=LIMIT_SECONDS)

        working = {send(agent): (agent, asked.rounds - 1) for agent in agents}
        while working:  # each goes on as soon as its own script has ended
            done, _ = flm.wait(working, return_when=flm.FIRST_COMPLETED)
            for future in done:
                agent, left = working.pop(future)
                agent.learn(future.result())
                if left:
                    working[send(agent)] = (agent, left - 1)

    outcomes = sum((agent.outcomes for agent in agents), Counter())
    best = min(agents, key=lambda agent: agent.error)
    print(f"{outcomes.total()} scripts: " + ", ".join(f"{n} {what}" for what, n in outcomes.most_common()))
    a, b, c = best.best
    print(f"the best guess is {a:.1f} x² {b:+.1f} x {c:+.1f}, which is {best.error**0.5:.1f} off")


if __name__ == "__main__":
    main()
