"""Whether a sample costs more among ten million rows than among ten thousand: python -m benchmarks.scale"""

import os
import sys
from collections.abc import Iterator
from functools import partial

from benchmarks import report
from benchmarks.comparison import Comparison, compare, take_turns
from benchmarks.ours import whole_epoch
from benchmarks.worker import SECONDS, cores, measure
from mlp_cli.benchmark import Net, Workload

ROUNDS = 5
ROWS = (10_000, 100_000, 1_000_000, 10_000_000)
NETS = (Net((8, 16, 2), 32, 0), Net((30, 64, 64, 2), 32, 0), Net((784, 128, 10), 128, 0))
# Inputs of more bytes are left out: building them takes twice their size for a moment.
MOST_BYTES = 4 << 30
LEAST = 1 / 1.3


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
    for net in NETS:
        report.note(report.title(net))
        found += in_memory(net, wanted.most, wanted.rounds)
    report.end(record, found, wanted.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
