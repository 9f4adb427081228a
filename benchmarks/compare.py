"""Compares training with every library that is installed, with the processor's limit, and with its own variants.

    python -m benchmarks.compare --json docs/speed.json --figure docs/speed.svg

Needs some minutes. Libraries that are absent are named as absent; see README.md in this folder for what is compared.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence

from benchmarks import figure, ours, peers, report, targets, variants
from benchmarks.comparison import Comparison, compare, share_of_limit, take_turns
from benchmarks.worker import Work, WorkerError, Workers
from mlp_cli.benchmark import NETS, Net, training_flops

ROUNDS = 15


def against_peers(workers: Workers, net: Net, threads: int, chosen: Sequence[str], rounds: int) -> Iterator[Comparison]:
    """One net: plain gradient descent against each of the chosen libraries and the limit, all in turns."""
    work = Work(net.sizes, net.batch, net.rows)
    modules = [peers.module(name) for name in chosen]
    modules = [module for module in modules if module.takes(net.batch, threads)]
    contenders = {module.NAME: workers.get(module, threads).net(work) for module in (ours, *modules)}
    contenders[ours.LIMIT_NAME] = workers.get(ours, threads).limit()
    times = take_turns(contenders, rounds)
    workers.drop()
    common = (report.title(net), variants.PLAIN)
    mine = times[ours.NAME]
    for module in modules:
        least = targets.against_peer(module.NAME, net, threads)
        yield compare(*common, module.NAME, threads, mine, times[module.NAME], least=least)
    least = targets.against_limit(net, threads)
    limit = times[ours.LIMIT_NAME]
    yield share_of_limit(*common, ours.LIMIT_NAME, threads, mine, limit, training_flops(net.sizes), least)


def everything(wanted: argparse.Namespace, present: Sequence[str]) -> Iterator[Comparison]:
    """All that the command line asks for, with the libraries that are present."""
    with Workers() as workers:
        for threads in wanted.threads:
            if threads > len(workers.cores):
                report.note(f"{threads} threads are left out: there are {len(workers.cores)} cores for them")
                continue
            for net in wanted.nets:
                report.note(f"{report.title(net)}, {report.count(threads, 'thread')}")
                yield from against_peers(workers, net, threads, present, wanted.rounds)
        yield from variants.run(workers, wanted.nets, wanted.threads, wanted.rounds)


def chosen_nets(text: str) -> list[Net]:
    """The nets that `--nets` names: 784-128-10 with every batch, 784-128-10@32 with one."""
    words = text.split(",")
    found = [net for net in NETS if net.name in words or f"{net.name}@{net.batch}" in words]
    known = {name for net in NETS for name in (net.name, f"{net.name}@{net.batch}")}
    if unknown := [word for word in words if word not in known]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not among {', '.join(sorted(known))}")
    return found


def chosen_peers(text: str) -> list[str]:
    """The libraries that `--peers` names; an empty text names none."""
    words = [word for word in text.split(",") if word]
    if unknown := [word for word in words if word not in peers.PEERS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not among {', '.join(peers.PEERS)}")
    return words


def thread_counts(text: str) -> list[int]:
    """The numbers that `--threads` lists."""
    return [report.at_least_one(word) for word in text.split(",")]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = report.options("compare", __doc__, ROUNDS)
    parser.add_argument("--nets", type=chosen_nets, metavar="NET,...", default=list(NETS),
                        help="such as 8-16-2, or 784-128-10@32 for batch 32; default: all")  # fmt: skip
    parser.add_argument("--threads", type=thread_counts, default=[1, 2], metavar="N,...", help="default: 1,2")
    parser.add_argument("--peers", type=chosen_peers, metavar="NAME,...", default=list(peers.PEERS),
                        help=f"default: {','.join(peers.PEERS)}; '' for none")  # fmt: skip
    parser.add_argument("--figure", metavar="FILE", help="draw it (needs matplotlib)")
    wanted = parser.parse_args()
    if wanted.figure and not figure.available():
        parser.error("--figure needs matplotlib: pip install matplotlib")
    return wanted


def main() -> int:
    """Measure, print, write, draw."""
    wanted = arguments()
    versions = {peers.module(name).NAME: peers.module(name).available() for name in wanted.peers}
    present = [name for name in wanted.peers if versions[peers.module(name).NAME]]
    record = report.begin(wanted.rounds, versions)
    try:
        found = list(everything(wanted, present))
    except WorkerError as error:
        print(error, file=sys.stderr)
        return 1
    record = report.end(record, found, wanted.json)
    if wanted.figure and not figure.draw(record, wanted.figure):
        report.note(f"{wanted.figure} is not drawn: there is no library to compare with")
    return 0


if __name__ == "__main__":
    sys.exit(main())
