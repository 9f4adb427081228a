"""Our own side: what `mlp train` and `mlp eval` execute, and the limit, in the form in which peers are measured."""

import time

import mlp_cli
from mlp_cli import benchmark
from mlp_cli.network.machine import Rows

NAME = "mlp"
INTERPRETED = False
LIMIT_NAME = "FMA limit"


def available() -> str | None:
    """Our own version."""
    return mlp_cli.__version__


def environment(threads: int) -> dict[str, str]:
    """Nothing: threads are an argument."""
    return {}


def takes(batch: int, threads: int) -> bool:
    """Any batch, any number of threads."""
    return True


def whole_epoch(work: benchmark.Workload) -> float:
    """Train for an epoch; the seconds it took, of which drawing the order of the rows is a part."""
    began = time.perf_counter()
    work.epoch()
    return time.perf_counter() - began


class Peer:
    """A net in training; `options` are those of `mlp_cli.benchmark.Workload`, which trains as `mlp train` does."""

    def __init__(self, sizes, batch, x, y, threads, **options):
        self.work = benchmark.Workload(sizes, batch, len(x), threads, **options)
        self.work.x[:], self.work.classes[:] = x, y

    def epoch(self) -> float:
        """Train on all rows once; the seconds it took, the shuffling among them."""
        return whole_epoch(self.work)

    def close(self) -> None:
        """Send the threads home."""
        self.work.close()


class Eval(Peer):
    """The same net, evaluated: outputs and losses of all rows."""

    def epoch(self) -> float:
        """Evaluate all rows once; the seconds it took."""
        return self.work.evaluate()


class Predict(Peer):
    """The same net, predicting: outputs of rows without targets."""

    def epoch(self) -> float:
        """Predict all rows once; the seconds it took."""
        rows = Rows(self.work.x)
        began = time.perf_counter()
        self.work.machine.evaluate(rows)
        return time.perf_counter() - began


class Limit(benchmark.Limit):
    """Fused multiply-adds alone."""

    def epoch(self) -> float:
        """Do `flops` floating-point operations; the seconds it took."""
        return self.run()
