"""How near training comes to the limit of the machine: nets to train on random rows in memory, and the limit itself.

A `Workload` takes the steps that `mlp train` takes, through the same `Trainer`; only files are left out. Whatever is
compared is measured in turns (`alternate`), so that a slow minute of the machine slows down both sides.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from mlp_cli import config as configs
from mlp_cli.data import Dataset, Split, Task
from mlp_cli.interrupts import Interrupts
from mlp_cli.kernels import layout, limit
from mlp_cli.kernels.prepare import prepare
from mlp_cli.kernels.team import Team
from mlp_cli.model import Model
from mlp_cli.trainer import EpochClock, Listener, Trainer

# One try at the limit takes so long, and a measurement is the best of some: short, since a try that shares the
# processor with another process counts for nothing; but longer for a team, whose start takes up to a tenth of a
# millisecond.
TRY_SECONDS, TEAM_TRY_SECONDS = 0.002, 0.01
TRIES = 5
# Rounds of an alternation, whatever the time: a median of fewer says little.
LEAST_ROUNDS = 3


@dataclass(frozen=True)
class Net:
    """A net to measure: inputs, units of each hidden layer and classes; rows of a batch; rows of an epoch."""

    sizes: tuple[int, ...]
    batch: int
    rows: int

    @property
    def name(self) -> str:
        """784-128-10, for example."""
        return "-".join(map(str, self.sizes))


# From the smallest net to the largest; an epoch of each takes some tens of milliseconds on one core with AVX-512.
NETS = (
    Net((8, 16, 2), 1, 50_000),
    Net((8, 16, 2), 32, 320_000),
    Net((30, 64, 64, 2), 32, 48_000),
    Net((784, 128, 10), 1, 3_000),
    Net((784, 128, 10), 32, 6_400),
    Net((784, 128, 10), 128, 6_400),
    Net((784, 512, 512, 10), 128, 2_560),
    Net((784, 512, 512, 10), 1024, 3_072),
    Net((784, 300, 100, 10), 50, 4_000),
    Net((1000, 1000, 1000, 16), 100, 1_000),
)
# The net whose evaluation, the forward pass alone, is measured as well.
EVALUATED = (Net((784, 512, 512, 10), 128, 3_840),)


# --- counting ---------------------------------------------------------------------------------------------------


def training_flops(sizes: Sequence[int]) -> int:
    """Floating-point operations of the matrix products that train one sample.

    Each weight takes part in three products, two operations each: the forward pass, the gradient of the weights and
    the gradient of the layer's inputs, which nobody needs in the first layer.
    """
    return 3 * evaluation_flops(sizes) - 2 * sizes[0] * sizes[1]


def evaluation_flops(sizes: Sequence[int]) -> int:
    """Floating-point operations of the matrix products of one sample's forward pass."""
    return 2 * sum(inputs * units for inputs, units in pairwise(sizes))


# --- what is measured -------------------------------------------------------------------------------------------


class Workload:
    """A net, random rows and a machine: `epoch` trains on them as `mlp train` does, `evaluate` is the forward pass.

    sizes, batch, rows: see `Net`. threads: how many there may be; `training_threads` are used. The classifier has a
    softmax output and cross-entropy. Hidden layers are dense with `activation` and `dropout`, each followed by a layer
    of kind `norm` if that is given (layer_norm, batch_norm); with `residual`, a layer as wide as the one before it is a
    residual block. Optimizer and regularization are written as in a config. Equal arguments train to equal bits.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        batch: int,
        rows: int,
        threads: int = 1,
        dtype: str = "float32",
        *,
        activation: str | dict = "relu",
        optimizer: str | dict = "sgd",
        learning_rate: float = 0.01,
        dropout: float = 0.0,
        norm: str | None = None,
        residual: bool = False,
        regularization: dict | None = None,
        seed: int = 0,
    ):
        self.sizes, self.rows = tuple(sizes), rows
        self.flops = training_flops(sizes)
        self.evaluation_flops = evaluation_flops(sizes)
        config = configs.from_resolved(
            {
                "seed": seed,
                "dtype": dtype,
                "data": {"path": "random", "task": "classification"},
                "network": {"layers": _layers(sizes, activation, dropout, norm, residual)},
                "loss": "cross_entropy",
                "optimizer": optimizer,
                "learning_rate": learning_rate,
                "regularization": regularization or {},
                # checkpoints at the end of an epoch only, which never comes here: there is no run directory
                "training": {"batch_size": batch, "checkpoint": {"every_epochs": 1}},
            }
        )
        classes = tuple(map(str, range(sizes[-1])))
        task = Task("classification", classes, ("class",), "the rows are random")
        part = random_rows(rows, sizes[0], sizes[-1], dtype, seed)
        dataset = Dataset(part, None, None, preprocessing=None, task=task, fingerprint="")
        model = Model.new(config, dataset)
        self.machine = model.machine(threads)
        self.trainer = Trainer(model, dataset, self.machine, None, Listener(), Interrupts())
        self.machine.prepare_training(self.trainer.rows, batch)
        # the mean loss over the samples of the last epoch, as they were met
        self.loss: float | None = None

    @property
    def x(self) -> np.ndarray:
        """The inputs (rows, sizes[0])."""
        return self.trainer.rows.x

    @property
    def classes(self) -> np.ndarray:
        """The class of each row, int32 (rows,)."""
        return self.trainer.rows.classes

    @property
    def training_threads(self) -> int:
        """Threads that share a step: one where a step is too little work to share."""
        return self.machine.training_threads

    def epoch(self) -> float:
        """Train for an epoch; the seconds that its steps took, from which `mlp train` computes samples_per_second.

        The rows are shuffled before the clock starts.
        """
        trainer, progress = self.trainer, self.trainer.progress
        order = self.machine.draws(trainer.config.training.sampling, progress.epoch + 1)
        trainer.clock = EpochClock()
        trainer.run_steps(order, trainer.steps_per_epoch)
        self.loss = float(self.machine.totals[layout.TOTAL_LOSS]) / self.rows
        progress.epoch += 1
        progress.epoch_step = 0
        self.machine.totals[:] = 0.0
        return trainer.clock.step_seconds

    def evaluate(self) -> float:
        """Outputs and losses of all rows, which `mlp eval` and `mlp predict` begin with; the seconds it took."""
        began = time.perf_counter()
        self.machine.evaluate(self.trainer.rows)
        return time.perf_counter() - began

    def close(self) -> None:
        """Send the threads home."""
        self.machine.close()


def _layers(sizes: Sequence[int], activation, dropout: float, norm: str | None, residual: bool) -> list[dict]:
    """The config's list of layers."""
    layers = []
    for inputs, units in pairwise(sizes[:-1]):
        layer = {"units": units, "activation": activation, "dropout": dropout}
        layers.append({"kind": "residual", "layers": [layer]} if residual and inputs == units else layer)
        if norm is not None:
            layers.append({"kind": norm})
    return [*layers, {"activation": "softmax"}]


def random_rows(n: int, features: int, classes: int, dtype: str, seed: int = 0) -> Split:
    """n rows with something to learn in them: numbers between -1 and 1, every second row around its class's centre."""
    random = np.random.default_rng(seed)
    target = random.integers(0, classes, n).astype(np.int32)
    x = 2 * random.random((n, features), dtype) - 1
    centres = 2 * random.random((classes, features), dtype) - 1
    x[::2] = (x[::2] + centres[target[::2]]) / 2
    return Split(x, target, None, np.arange(n))


class Limit:
    """Fused multiply-adds of registers alone, in `threads` threads at once: nothing that computes can be faster.

    `run` takes the time of `flops` floating-point operations.
    """

    def __init__(self, dtype: str, threads: int):
        self.kernels = prepare(dtype)
        self.team = Team(threads) if threads > 1 else None
        self.values = np.ones(threads * limit.CHAINS * layout.lane_count(dtype), dtype)
        wanted = TEAM_TRY_SECONDS if self.team else TRY_SECONDS
        self.repetitions = 1000
        while (seconds := self._try()) < wanted / 2:
            self.repetitions *= 2
        self.repetitions = max(1, round(self.repetitions * wanted / seconds))

    @property
    def flops(self) -> int:
        """A multiplication and an addition for each value, each time."""
        return 2 * self.values.size * self.repetitions

    def run(self) -> float:
        """Do them, some times; the seconds of the best try."""
        return min(self._try() for _ in range(TRIES))

    def _try(self) -> float:
        # 1 = 1/2 1 + 1/2: numbers that neither grow nor vanish
        arguments = (self.values, 0.5, 0.5, self.repetitions)
        began = time.perf_counter()
        if self.team:
            self.team.run(self.kernels.iterate, *arguments)
        else:
            self.kernels.iterate(*arguments, 0)
        return time.perf_counter() - began

    def close(self) -> None:
        """Send the threads home."""
        if self.team:
            self.team.close()


def fma_limit(dtype: str = "float32", threads: int = 1, runs: int = 5) -> float:
    """The floating-point operations a second that so many threads reach together: the best of some measurements."""
    measured = Limit(dtype, threads)
    try:
        return measured.flops / min(measured.run() for _ in range(runs))
    finally:
        measured.close()


# --- measuring --------------------------------------------------------------------------------------------------


def alternate(tasks: Sequence[Callable[[], float]], seconds: float, least: int = LEAST_ROUNDS) -> list[list[float]]:
    """Call every task once a round, for so many seconds and at least so many rounds.

    A task returns the time that it took; the result holds, for each task, what it returned in each round. An unmeasured
    round comes first: it fills caches and touches memory for the first time.
    """
    for task in tasks:
        task()
    times: list[list[float]] = [[] for _ in tasks]
    began = now = time.perf_counter()
    longest = 0.0
    while len(times[0]) < least or now - began + longest <= seconds:
        for task, found in zip(tasks, times, strict=True):
            found.append(task())
        round_began, now = now, time.perf_counter()
        longest = max(longest, now - round_began)
    return times


@dataclass(frozen=True)
class Speed:
    """How fast a net was in `threads` threads: the median time of an epoch, or of an evaluation, of all its rows."""

    net: Net
    task: str  # train or evaluate
    threads: int
    seconds: float
    flops: int  # of one sample
    limit: float  # floating-point operations a second that so many threads could do

    @property
    def samples_per_second(self) -> float:
        """Rows a second."""
        return self.net.rows / self.seconds

    @property
    def flops_per_second(self) -> float:
        """Floating-point operations of the matrix products a second."""
        return self.flops * self.samples_per_second

    @property
    def share_of_limit(self) -> float:
        """What part of the limit that is."""
        return self.flops_per_second / self.limit


@dataclass(frozen=True)
class Benchmark:
    """Limits (floating-point operations a second) by number of threads, speeds, and the rounds they were taken from."""

    dtype: str
    limits: dict[int, float]
    speeds: list[Speed]
    rounds: int


@dataclass(frozen=True)
class _Case:
    """A task of the alternation."""

    net: Net
    task: str
    workload: Workload
    threads: int

    @property
    def run(self) -> Callable[[], float]:
        return self.workload.epoch if self.task == "train" else self.workload.evaluate

    @property
    def flops(self) -> int:
        return self.workload.flops if self.task == "train" else self.workload.evaluation_flops


def run(
    dtype: str,
    threads: Sequence[int],
    seconds: float,
    nets: Sequence[Net] = NETS,
    evaluated: Sequence[Net] = EVALUATED,
) -> Benchmark:
    """Measure the training of `nets` and the evaluation of `evaluated`, with each of these numbers of threads, and the
    limit beside them, for about so many seconds.

    A net whose steps are too small to share is measured on one thread only, whatever is asked for.
    """
    cases = [*_training_cases(dtype, threads, nets), *_evaluation_cases(dtype, threads, evaluated)]
    limits = {count: Limit(dtype, count) for count in sorted({*threads, *(case.threads for case in cases)})}
    try:
        times = alternate([*(measured.run for measured in limits.values()), *(case.run for case in cases)], seconds)
    finally:
        for measured in (*limits.values(), *(case.workload for case in cases)):
            measured.close()
    reached = {
        count: measured.flops / min(found)
        for (count, measured), found in zip(limits.items(), times[: len(limits)], strict=True)
    }
    speeds = [
        Speed(case.net, case.task, case.threads, statistics.median(found), case.flops, reached[case.threads])
        for case, found in zip(cases, times[len(limits) :], strict=True)
    ]
    return Benchmark(dtype, reached, speeds, len(times[0]))


def _training_cases(dtype: str, threads: Sequence[int], nets: Sequence[Net]) -> list[_Case]:
    cases = []
    for net in nets:
        used = set()
        for count in threads:
            workload = Workload(net.sizes, net.batch, net.rows, count, dtype)
            if workload.training_threads in used:
                workload.close()
                continue
            used.add(workload.training_threads)
            cases.append(_Case(net, "train", workload, workload.training_threads))
    return cases


def _evaluation_cases(dtype: str, threads: Sequence[int], nets: Sequence[Net]) -> list[_Case]:
    return [
        _Case(net, "evaluate", Workload(net.sizes, net.batch, net.rows, count, dtype), count)
        for net in nets
        for count in threads
    ]
