"""A parameter sweep: an epidemic for each pair of two rates, with a bar while it runs.

    python examples/sweep.py
    python examples/sweep.py --steps 100

Shows `map` with several inputs and `progress`: on a terminal a bar on stderr while results come, in a
pipe or a file nothing.  One pair of rates is senseless, and fails alone: its error stands where its
result would have come.
"""

import argparse
import itertools

import flamezmq as flm

DAYS = 200


def peak_of_epidemic(infections: float, recoveries: float) -> float:
    """The largest share of people who are ill at a time (the SIR model, an hour a step)."""
    if recoveries <= 0:
        raise ValueError("nobody would ever be well again")
    healthy, ill, peak = 0.999, 0.001, 0.0
    for _ in range(DAYS * 24):
        new, well = infections / 24 * healthy * ill, recoveries / 24 * ill
        healthy, ill = healthy - new, ill + new - well
        peak = max(peak, ill)
    return peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=12, help="of each rate [%(default)s]")
    steps = parser.parse_args().steps
    rates = [step / steps for step in range(steps)]
    pairs = list(itertools.product(rates, rates))
    infections, recoveries = zip(*pairs, strict=True)

    with flm.Client() as client:
        peaks = client.map(peak_of_epidemic, infections, recoveries, progress="epidemics")
        found, refused = {}, 0
        for pair in pairs:
            try:
                found[pair] = next(peaks)
            except ValueError:
                refused += 1

    mild = sum(peak < 0.1 for peak in found.values())
    (infection, recovery), worst = max(found.items(), key=lambda item: item[1])
    print(f"{len(found)} epidemics, {mild} of them mild; {refused} pairs of rates make no sense")
    print(f"the worst one: {worst:.0%} ill at a time, with {infection:.2f} infections a day")
    print(f"and {recovery:.2f} recoveries")


if __name__ == "__main__":
    main()
