"""Fan-out: what one task costs the router with 2, 10, 100 and 1,000 executors connected.

The router is a real one, the client too; the executors are simulated, but speak
the real protocol (perf/simulated.py), and their tasks take no time.  What they
say that a task took is what the router plans with: no-ops travel in large
grants, tasks of 1 ms one or two at a time.  Only our own engine has this figure.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import median

from perf.engines import OURS
from perf.measure import Sample, median_sample, sample
from perf.report import Report, at_most
from perf.router_process import router_process
from perf.settings import Settings
from perf.simulated import simulated_executors
from perf.tasks import noop

CONNECTED = (2, 10, 100, 1000)
QUICK = (2, 100)
#: (what a task is, seconds that it is said to take, tasks in a run)
KINDS = (("no-ops", 1e-6, 20_000), ("tasks of 1 ms", 1e-3, 10_000))
HELPERS = 2
GATHER_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Found:
    """Runs with one number of executors, and function calls per task in the router."""

    samples: list[Sample]
    router_calls: float


def run(settings: Settings, report: Report) -> None:
    if OURS not in settings.engines:
        report.add("CPU per task, router", OURS, None, "us", None, "not measured")
        return
    for kind, seconds, tasks in KINDS:
        few = 0.0
        for executors in settings.pick(CONNECTED, QUICK):
            asked = (executors, seconds, settings.pick(tasks, 2000), settings.repeats(2))
            figure = f"{kind}, {executors:,} executors: CPU per task, router"
            found = report.attempt(figure, OURS, "us", None, fan_out, *asked, limit=100)
            if found is not None:
                cost = _add(report, figure, asked[2], found)
                few = few or cost
                if executors == 1000:
                    ratio = f"{kind}: cost per task with 1,000, times that with 2"
                    report.add(ratio, OURS, cost / few, "x", at_most(1.5))


def fan_out(executors: int, task_seconds: float, tasks: int, repeats: int) -> Found:
    """So many runs through one router, after one to warm up."""
    with (
        router_process() as router,
        simulated_executors(router.address, executors, HELPERS, task_seconds) as helpers,
    ):
        import flamezmq as flm

        with flm.Client(router.address) as client:

            def once() -> None:
                for future in [client.submit(noop) for _ in range(tasks)]:
                    future.result(GATHER_SECONDS)

            once()
            pids = {"router": [router.pid], "executors": helpers}
            samples = [sample(pids, once) for _ in range(repeats)]
            return Found(samples, router.calls(once) / tasks)


def _add(report: Report, figure: str, tasks: int, found: Found) -> float:
    middle = median_sample(found.samples)
    cost = median(one.cpu_us(tasks, "router") for one in found.samples)
    note = f"{tasks / middle.seconds:,.0f} tasks/s; calls {found.router_calls:.3g} per task"
    report.add(figure, OURS, cost, "us", None, note, middle.costs(tasks))
    report.raw.append({"figure": figure} | asdict(found))
    return cost
