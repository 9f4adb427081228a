"""How threads behave on a machine that has other work, and beyond its cores: python -m benchmarks.busy

With every core busy with other processes, more threads must not be slower than one; idle, eight threads not slower
than as many as there are cores; and two trainings at once, one thread each, must not disturb each other.
"""

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator

from benchmarks import ours, report
from benchmarks.comparison import Comparison, compare, take_turns
from benchmarks.worker import Task, Work, Worker, WorkerError, Workers
from mlp_cli.benchmark import NETS, Net

ROUNDS = 7
# A measurement of many time slices, since the system gives cores to others in between.
SECONDS = 0.3
MANY = 8
BUSY, BEYOND, TOGETHER = 1 / 1.25, 1 / 1.2, 0.95
# Nets for two trainings at once: from cache to memory.
PAIRS = (("8-16-2", 32), ("784-128-10", 32), ("784-512-512-10", 128))


# Computes for as long as the process that started it lives, however that one ends.
NEIGHBOUR = """
import os
parent = os.getppid()
while os.getppid() == parent:
    sum(range(100_000))
"""


@contextlib.contextmanager
def neighbours(number: int):
    """So many other processes that do nothing but compute."""
    running = [subprocess.Popen([sys.executable, "-c", NEIGHBOUR]) for _ in range(number)]
    try:
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
    with neighbours(len(workers.cores)):
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


def together(net: Net, cores: list[int], rounds: int) -> Iterator[Comparison]:
    """Two trainings at once, one thread each, against either of them alone."""
    work = Work(net.sizes, net.batch, net.rows)
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(contextlib.closing(Worker(ours, 1, cores))) for _ in range(2)]
        pair = [worker.net(work) for worker in workers]
        found = [([long(task)() for task in pair], at_once(pair)) for _ in range(rounds)]
    least = TOGETHER if len(cores) > 1 else None
    for number, name in enumerate(("first", "second")):
        alone, both = ([each[side][number] for each in found] for side in (0, 1))
        yield compare(report.title(net), f"{name} of two", "alone", 1, both, alone, least=least, share=True)


def at_once(pair: list[Task]) -> list[float]:
    """What each of two tasks measures while the other computes too."""
    for task in pair:
        task.begin(SECONDS)
    return [task.end() for task in pair]


def measure(rounds: int) -> Iterator[Comparison]:
    """Everything above, for all nets."""
    with Workers() as workers:
        for net in NETS:
            for part in (among_neighbours, beyond_the_cores):
                report.note(f"{report.title(net)}: {part.__doc__}")
                yield from part(workers, net, rounds)
                workers.drop()
        for net in NETS:
            if (net.name, net.batch) in PAIRS:
                report.note(f"{report.title(net)}: {together.__doc__}")
                yield from together(net, workers.cores, rounds)


def main() -> int:
    """Measure and print."""
    wanted = report.options("busy", __doc__, ROUNDS).parse_args()
    record = report.begin(wanted.rounds)
    try:
        found = list(measure(wanted.rounds))
    except WorkerError as error:
        print(error, file=sys.stderr)
        return 1
    report.end(record, found, wanted.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
