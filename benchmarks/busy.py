"""How threads behave on a machine that has other work, and beyond its cores: python -m benchmarks.busy

With every core busy with other processes, more threads must not be slower than one; idle, eight threads not slower
than as many as there are cores; and two `mlp train` at once, one thread each, must not disturb each other.
"""

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks import ours, report
from benchmarks.compare import chosen_nets
from benchmarks.comparison import Comparison, compare, take_turns
from benchmarks.processes import at_once, save_rows, training
from benchmarks.worker import Task, Work, WorkerError, Workers
from mlp_cli.benchmark import NETS, Net

ROUNDS = 5
# A measurement of many time slices, since the system gives cores to others in between.
SECONDS = 0.5
MANY = 8
BUSY, BEYOND, TOGETHER = 1 / 1.25, 1 / 1.2, 0.95
# Nets for two trainings at once, from cache to memory, and epochs that take some seconds.
PAIRS = {("8-16-2", 32): 150, ("784-128-10", 32): 100, ("784-512-512-10", 128): 45}


# Computes for as long as the process that started it lives, however that one ends.
NEIGHBOUR = """
import os
parent = os.getppid()
while os.getppid() == parent:
    sum(range(100_000))
"""


@contextlib.contextmanager
def neighbours(cores: list[int]):
    """A process on each of these cores that does nothing but compute. They are bound to their cores: free ones share
    what the measured threads leave in ways that differ from second to second."""
    running = [subprocess.Popen([sys.executable, "-c", NEIGHBOUR]) for _ in cores]
    try:
        if hasattr(os, "sched_setaffinity"):
            for process, core in zip(running, cores, strict=True):
                os.sched_setaffinity(process.pid, [core])
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def long(task: Task) -> Callable[[], float]:
    """A task whose measurement takes `SECONDS`."""

    def measured() -> float:
        task.begin(SECONDS)
        return task.end()

    return measured


def tasks(workers: Workers, net: Net, counts: list[int]) -> dict[int, Callable[[], float]]:
    """The net's training in so many threads each, free to run on every core."""
    work = Work(net.sizes, net.batch, net.rows)
    return {count: long(workers.get(ours, count, free=True).net(work)) for count in counts}


def among_neighbours(workers: Workers, net: Net, rounds: int) -> Iterator[Comparison]:
    """All cores busy: two threads and many against one."""
    contenders = tasks(workers, net, [1, 2, MANY])
    with neighbours(workers.cores):
        times = take_turns(contenders, rounds)
    for count in (2, MANY):
        yield compare(
            report.title(net), "cores busy", "1 thread", count, times[count], times[1], least=BUSY, share=True
        )


def beyond_the_cores(workers: Workers, net: Net, rounds: int) -> Iterator[Comparison]:
    """All cores idle: many threads against as many as there are cores."""
    alone = len(workers.cores)
    times = take_turns(tasks(workers, net, [alone, MANY]), rounds)
    against = report.count(alone, "thread")
    yield compare(report.title(net), "cores idle", against, MANY, times[MANY], times[alone], least=BEYOND, share=True)


def together(net: Net, cores: int, rounds: int) -> Iterator[Comparison]:
    """Two `mlp train --threads 1` at once, from start to end, against one alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_rows(folder, net, net.rows)
        train = partial(training, folder, net.sizes, net.batch, PAIRS[net.name, net.batch])
        commands = [[*train(run=run), "--threads", "1"] for run in ("first", "second")]
        found: dict[str, list[list[float]]] = {"alone": [], "both": []}
        contenders = {"alone": commands[:1], "both": commands}
        take_turns({who: partial(_remember, found[who], started) for who, started in contenders.items()}, rounds)
    least = TOGETHER if cores > 1 else None
    alone = [seconds for (seconds,) in found["alone"][1:]]  # the first round does not count
    for number, which in enumerate(("first", "second")):
        both = [seconds[number] for seconds in found["both"][1:]]
        yield compare(report.title(net), f"{which} of two", "alone", 1, both, alone, least=least, share=True)


def _remember(found: list[list[float]], commands: list[list[str]]) -> float:
    """Run commands at once, and add to what was found the seconds from their start until each ended."""
    found.append(at_once(commands))
    return statistics.fmean(found[-1])


def measure(nets: list[Net], rounds: int) -> Iterator[Comparison]:
    """Everything above, for these nets."""
    with Workers() as workers:
        for net in nets:
            for part in (among_neighbours, beyond_the_cores):
                report.note(f"{report.title(net)}: {part.__doc__}")
                yield from part(workers, net, rounds)
                workers.drop()
    for net in nets:
        if (net.name, net.batch) in PAIRS:
            report.note(f"{report.title(net)}: {together.__doc__}")
            yield from together(net, len(workers.cores), rounds)


def main() -> int:
    """Measure and print."""
    parser = report.options("busy", __doc__, ROUNDS)
    about = "such as 8-16-2, or 784-128-10@32 for batch 32; default: all"
    parser.add_argument("--nets", type=chosen_nets, metavar="NET,...", default=list(NETS), help=about)
    wanted = parser.parse_args()
    record = report.begin(wanted.rounds)
    try:
        found = list(measure(wanted.nets, wanted.rounds))
    except subprocess.CalledProcessError as error:
        print(f"{error.stderr}{error}", file=sys.stderr)
        return 1
    except WorkerError as error:
        print(error, file=sys.stderr)
        return 1
    report.end(record, found, wanted.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
