"""Whether a sample costs more among many rows, or in a mapped file: python -m benchmarks.scale

Among ten million rows in memory against ten thousand; and whole `mlp train` with the inputs left in a .npy file that
fits the system's cache of files, against the same with the inputs read into memory.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks import report
from benchmarks.comparison import Comparison, compare, take_turns
from benchmarks.ours import whole_epoch
from benchmarks.processes import save_rows, training
from benchmarks.worker import ROOT, SECONDS, cores, measure
from mlp_cli.benchmark import Net, Workload

ROUNDS = 5
ROWS = (10_000, 100_000, 1_000_000, 10_000_000)
NETS = (Net((8, 16, 2), 32, 0), Net((30, 64, 64, 2), 32, 0), Net((784, 128, 10), 128, 0))
# Inputs of more bytes are left out: building them takes twice their size for a moment.
MOST_BYTES = 4 << 30
LEAST = 1 / 1.3
# Nets that do little with a row, so that fetching it counts; with the default scale, so that it is also converted.
MAPPED_NETS = (Net((8, 16, 2), 32, 3_000_000), Net((784, 16, 10), 128, 200_000))
MAPPED_EPOCHS, MAPPED_LEAST = 4, 0.8


def in_memory(net: Net, most: int, rounds: int) -> Iterator[Comparison]:
    """The cost of a sample by the number of rows, which lie in memory, against that among the fewest rows.

    Once for the steps alone, which gather their rows at random, and once with the order of the rows to be drawn.
    """
    counts = [rows for rows in ROWS if rows <= most and 4 * rows * net.sizes[0] <= MOST_BYTES]
    if len(counts) < 2:
        return
    contenders = {}
    for rows in counts:
        work = Workload(net.sizes, net.batch, rows)
        contenders["steps", rows] = partial(measure, work.epoch, rows, SECONDS)
        contenders["epoch", rows] = partial(measure, partial(whole_epoch, work), rows, SECONDS)
    times = take_turns(contenders, rounds)
    fewest = counts[0]
    for what in ("steps", "epoch"):
        for rows in counts[1:]:
            title = f"{report.title(net)}, {rows:,} rows"
            both = times[what, rows], times[what, fewest]
            yield compare(title, f"in memory, {what}", f"{fewest:,} rows", 1, *both, least=LEAST, share=True)


def mapped(net: Net, most: int, rounds: int) -> Iterator[Comparison]:
    """The cost of a sample in `mlp train` whose inputs stay in their file, against that of inputs in memory.

    The steps alone, as the run itself says, over all epochs: in the first one the file's pages are mapped. And the
    whole process, in which the mapped run need not make a matrix.
    """
    rows = min(net.rows, most)
    with tempfile.TemporaryDirectory() as folder:
        save_rows(Path(folder), net, rows)
        command = training(Path(folder), net.sizes, net.batch, MAPPED_EPOCHS)
        seen: dict[str, list[tuple[float, float]]] = {"map": [], "load": []}
        take_turns({memory: partial(_remember, so_far, command, memory) for memory, so_far in seen.items()}, rounds)
    found = {memory: measured[1:] for memory, measured in seen.items()}  # the first round does not count
    title = f"{report.title(net)}, {rows:,} rows"
    for number, (what, least) in enumerate((("steps", MAPPED_LEAST), ("whole process", None))):
        both = ([each[number] for each in found[memory]] for memory in ("map", "load"))
        yield compare(title, f"mapped, {what}", "in memory", 1, *both, least=least, share=True)


def _remember(found: list[tuple[float, float]], command: list[str], memory: str) -> float:
    """Train, and add (seconds a sample of the steps, of the whole process) to what was found."""
    began = time.perf_counter()
    command = [*command, f"data.memory={memory}", "--json", "--threads", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    whole = time.perf_counter() - began
    events = [json.loads(line) for line in done.stdout.splitlines()]
    steps = [1 / event["samples_per_second"] for event in events if event["event"] == "epoch"]
    rows = events[0]["rows"]["train"]
    found.append((statistics.fmean(steps), whole / (rows * len(steps))))
    return whole


def main() -> int:
    """Measure and print."""
    parser = report.options("scale", __doc__, ROUNDS)
    about = f"leave out longer ones; default: {ROWS[-1]}"
    parser.add_argument("--most", type=report.at_least_one, default=ROWS[-1], metavar="ROWS", help=about)
    wanted = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores()[:1])
    record = report.begin(wanted.rounds)
    found: list[Comparison] = []
    try:
        for part, nets in ((in_memory, NETS), (mapped, MAPPED_NETS)):
            for net in nets:
                report.note(f"{report.title(net)}: {part.__doc__.splitlines()[0]}")
                found += part(net, wanted.most, wanted.rounds)
    except subprocess.CalledProcessError as error:
        print(f"{error.stderr}{error}", file=sys.stderr)
        return 1
    report.end(record, found, wanted.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
