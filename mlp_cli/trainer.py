"""A run in progress: where it stands, and the verbs of the training loop.

Everything that the future of a run depends on is in `Progress` and in the network's vectors, and all of it goes into
every checkpoint: a run that is interrupted anywhere and resumed ends with the same bits.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import numpy as np

from mlp_cli import metrics, optimizers, schedules
from mlp_cli.data import Dataset, Split
from mlp_cli.errors import Diverged, SystemFault
from mlp_cli.evaluation import Evaluation, evaluate, training_metrics
from mlp_cli.interrupts import Interrupts
from mlp_cli.kernels import layout
from mlp_cli.model import Model
from mlp_cli.network.machine import Machine
from mlp_cli.network.network import find
from mlp_cli.progress import MAX_ROLLBACKS, Progress
from mlp_cli.rollbacks import Snapshots
from mlp_cli.runs.directory import RunDirectory
from mlp_cli.saved import BEST, TOTALS
from mlp_cli.schedules import Plateau

# Steps that the kernels do in one go: what belongs to each of them takes about 200 bytes.
MOST_STEPS = 1 << 17


@dataclass
class Listener:
    """What the caller wants to hear; each is called in the main thread."""

    epoch: Callable[[dict], None] = lambda record: None
    moving: Callable[[int, int, int, int, float], None] = lambda epoch, step, steps, samples, loss: None
    warn: Callable[[str], None] = lambda message: None
    saved: Callable[[str], None] = lambda path: None


class NotFinite(Exception):
    """A loss or a weight is not finite; the text says which and where."""


class EpochClock:
    """The seconds of an epoch, and those of its training steps alone."""

    def __init__(self):
        self.began = time.monotonic()
        self.step_seconds, self.samples = 0.0, 0

    def count(self, seconds: float, samples: int) -> None:
        """Take note of steps."""
        self.step_seconds += seconds
        self.samples += samples

    @property
    def seconds(self) -> float:
        """Seconds since the epoch began."""
        return time.monotonic() - self.began

    @property
    def samples_per_second(self) -> float:
        """The speed of the training steps alone."""
        return self.samples / self.step_seconds if self.step_seconds > 0 else 0.0


@dataclass
class Trainer:
    """A run in progress: model, data, machine, run directory, and where it stands."""

    model: Model
    dataset: Dataset
    machine: Machine
    run: RunDirectory
    listener: Listener
    interrupts: Interrupts
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self):
        self.config = self.model.config
        self.rows = self.model.rows(self.dataset.train)
        self.batch_size = batch_size(self.config, len(self.rows))
        self.steps_per_epoch = -(-len(self.rows) // self.batch_size)
        self.total_steps = total_steps(self.config, self.steps_per_epoch)
        stopping = self.config.training.early_stopping
        self.watched = stopping.metric if stopping else "loss"
        self.best: dict[str, np.ndarray] | None = None
        self.began = self.saved_at = time.monotonic()
        self.saved_position: tuple[int, int] | None = None
        self.saved_best: int | None = None
        self.out_of_time = False
        self.log_is_behind = False
        self.is_over = False  # trained and saved: nothing is left that an interruption would have to save
        self.snapshots = None
        if self.config.training.on_divergence == "rollback":
            self.snapshots = Snapshots(self.run, self.config.training.checkpoint.keep, self.listener.warn)
        self.clock = EpochClock()
        self.plateau = None
        schedule = self.config.learning_rate
        if schedule.schedule == "plateau":
            higher = metrics.HIGHER_IS_BETTER[schedule.metric.partition(".")[0]]
            self.plateau = Plateau(schedule.factor, schedule.patience, higher)
            self.progress.plateau = self.plateau.state()
        self.model.network.start_optimizer()

    # --- what the run is ------------------------------------------------------------------------------------

    @property
    def keeps_best(self) -> bool:
        """Whether the best epoch is the result: with validation rows, unless the config says no."""
        return self.dataset.validation is not None and self.config.training.restore_best is not False

    def limit(self) -> str | None:
        """Why the run is over, or None; an epoch whose steps are all done is first brought to its end."""
        training, progress = self.config.training, self.progress
        if progress.epoch_step == self.steps_per_epoch:
            return None
        # first the steps: they may end an epoch before its time, and it counts nevertheless
        if training.max_steps is not None and progress.step >= training.max_steps:
            return f"all {training.max_steps} steps are done"
        if training.epochs is not None and progress.epoch >= training.epochs:
            return f"all {training.epochs} epochs are done"
        stopping = training.early_stopping
        if stopping and progress.epochs_without_improvement >= stopping.patience:
            return f"no improvement of {self.watched} in {stopping.patience} epochs"
        if self.out_of_time:
            return f"training.max_time ({training.max_time:g} s) is over"
        return None

    # --- steps ----------------------------------------------------------------------------------------------

    def stretch(self) -> int:
        """Steps until the epoch, the run or the next checkpoint by steps ends, but no more than have their coefficients
        in a few megabytes."""
        progress, training = self.progress, self.config.training
        steps = min(self.steps_per_epoch - progress.epoch_step, MOST_STEPS)
        if training.max_steps is not None:
            steps = min(steps, training.max_steps - progress.step)
        every = training.checkpoint.every_steps
        return min(steps, every - progress.step % every) if every else steps

    def coefficients(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Learning rates of the next steps and the optimizer's coefficients."""
        first = self.progress.step + 1
        scale = self.progress.rate_scale * (self.plateau.scale if self.plateau else 1.0)
        rates = schedules.learning_rates(
            self.config.learning_rate, first, count, self.steps_per_epoch, self.total_steps, scale
        )
        return rates, optimizers.step_coefficients(self.config, rates, first)

    def run_steps(self, order: np.ndarray, count: int) -> None:
        """Do `count` steps of the epoch whose draws are `order`, or as many as there is time for.

        NotFinite where a loss is not finite, or a weight in the end.
        """
        began, met = time.monotonic(), self.samples
        progress, first = self.progress, self.progress.epoch_step
        rates, coefficients = self.coefficients(count)
        outcome = self.machine.train(order, progress.epoch + 1, coefficients, first, self.look)
        done = outcome.next_step - first
        if done:
            progress.last_rate = float(rates[done - 1])
        trouble = None if outcome.finite else "the loss is not finite"
        network = self.model.network
        if outcome.finite and not (np.isfinite(network.parameters).all() and np.isfinite(network.state).all()):
            trouble = "a weight is not finite"
        good = max(done - 1, 0) if trouble else done
        progress.step += good
        progress.epoch_step += good
        if trouble:
            raise NotFinite(f"{trouble} in epoch {progress.epoch + 1}, step {progress.step + 1}")
        self.clock.count(time.monotonic() - began, self.samples - met)
        self.out_of_time = self.time_is_over()

    @property
    def samples(self) -> int:
        """The samples that this epoch's steps have met."""
        return int(self.machine.totals[layout.TOTAL_ROWS])

    def look(self) -> None:
        """While the machine works: move the bar, mind the clock."""
        samples = self.samples
        loss = self.machine.totals[layout.TOTAL_LOSS] / max(samples, 1)
        self.listener.moving(self.progress.epoch + 1, self.machine.progress, self.steps_per_epoch, samples, loss)
        if self.time_is_over():
            self.machine.stop()
        elif self.save_is_due(None, 0):
            self.machine.stop_after_step()

    def time_is_over(self) -> bool:
        """Whether `training.max_time` has passed."""
        limit = self.config.training.max_time
        return limit is not None and time.monotonic() - self.began >= limit

    def save_is_due(self, every: int | None, now: int) -> bool:
        """Whether to save: by the clock, or because `now` is a multiple of `every`."""
        seconds = self.config.training.checkpoint.every_seconds
        if seconds is not None and time.monotonic() - self.saved_at >= seconds:
            return True
        return every is not None and now % every == 0

    # --- epochs ---------------------------------------------------------------------------------------------

    def end_epoch(self) -> None:
        """Measure the epoch, judge it, log it. NotFinite where the validation loss is not."""
        progress = self.progress
        record = {
            "epoch": progress.epoch + 1,
            "step": progress.step,
            "learning_rate": progress.last_rate,
            "train": training_metrics(self.machine.totals, self.model),
        }
        if self.dataset.validation is not None:
            record["validation"] = self.evaluate(self.dataset.validation).metrics
            if not math.isfinite(record["validation"]["loss"]):
                raise NotFinite(
                    f"the validation loss is not finite in epoch {progress.epoch + 1}, step {progress.step}"
                )
        record["seconds"] = self.clock.seconds
        record["samples_per_second"] = self.clock.samples_per_second
        progress.epoch += 1
        progress.epoch_step = 0
        self.machine.totals[:] = 0.0
        self.judge(record.get("validation", record["train"]))
        self.log(record)
        self.listener.epoch(record)

    def evaluate(self, part: Split) -> Evaluation:
        """Measure a part of the data. Raises Signalled or Halted where a signal arrives meanwhile: what was measured so
        far is given up, for it can be measured again."""
        return evaluate(self.machine, self.model, part, self.interrupts.heed)

    def judge(self, found: dict[str, float]) -> None:
        """Early stopping, the best epoch and the plateau all look at an epoch's metrics."""
        progress, stopping = self.progress, self.config.training.early_stopping
        if self.plateau:
            # a metric that is not defined on these rows (one class among them) is no improvement
            self.plateau.update(found.get(self.config.learning_rate.metric, math.nan))
            progress.plateau = self.plateau.state()
        score = found.get(self.watched, math.nan)
        if self.keeps_best and metrics.better(self.watched, score, progress.best_score):
            self.best = self.model.network.tensors()
        min_delta = stopping.min_delta if stopping else 0.0
        if metrics.better(self.watched, score, progress.patience_score, min_delta):
            progress.epochs_without_improvement = 0
            progress.patience_score = score
        else:
            progress.epochs_without_improvement += 1
        if metrics.better(self.watched, score, progress.best_score):
            progress.best_score = score
            progress.best_epoch = progress.epoch if self.keeps_best else None

    # --- checkpoints ----------------------------------------------------------------------------------------

    def state(self) -> tuple[dict, dict]:
        """(JSON part, tensors) of a checkpoint from which the run goes on exactly."""
        meta, tensors = self.model.state()
        meta["position"] = asdict(self.progress)
        meta["fingerprint"] = self.dataset.fingerprint
        tensors |= self.model.network.optimizer_tensors()
        tensors[TOTALS] = self.machine.totals.copy()
        if self.best is not None and (self.progress.best_epoch != self.progress.epoch or self.progress.epoch_step):
            # the best epoch lies behind: the checkpoint must be enough by itself to come back to it
            tensors |= {f"{BEST}{name}": value for name, value in self.best.items()}
        return meta, tensors

    def save(self) -> None:
        """Write a checkpoint of this step, unless that is done. SystemFault where it cannot be written; all older
        ones are then as they were.

        What belongs to it may fail: the diary before it, the best epoch so far after it, and what is to be deleted. All
        of that can be done later.
        """
        # the end of an epoch changes the state without a step: its measurements are in it
        position = (self.progress.step, self.progress.epoch)
        if self.saved_position != position:
            meta, tensors = self.state()
            if self.snapshots:
                self.snapshots.take((meta, tensors))
            if self.saved_position is not None:
                # a run that was over, or interrupted, goes on: its last state then is not its last any more
                self.attempt(self.run.outdate, self.best is None)
            # a checkpoint should not survive a power cut that the lines of its epochs do not
            self.attempt(self.run.history.sync)
            path = self.run.save(self.progress.step, tensors, meta)
            if self.snapshots:
                self.snapshots.written()
            self.saved_position = position
            self.listener.saved(str(path))
            self.attempt(self.run.prune, self.config.training.checkpoint.keep)
            if self.best is not None and self.saved_best != self.progress.best_epoch:
                # whoever looks at a run that is not over finds its best epoch so far
                self.attempt(self.save_result)
        self.saved_at = time.monotonic()

    def save_result(self) -> None:
        """Write the best checkpoint: the best epoch's parameters, or the last ones. SystemFault as for `save`."""
        meta, tensors = self.state()
        if self.best is not None:
            tensors = {name: value for name, value in tensors.items() if not name.startswith(BEST)} | self.best
        self.run.save_best(tensors, meta)
        self.saved_best = self.progress.best_epoch

    def attempt(self, write: Callable, *arguments) -> None:
        """Write something whose failure must not end a healthy run: it is told, and the next save tries again."""
        try:
            write(*arguments)
        except (SystemFault, MemoryError) as fault:
            # a save that failed has its next turn when another would have
            self.saved_at = time.monotonic()
            what = str(fault) or "out of memory"
            self.listener.warn(f"{what}. Training goes on, and the next checkpoint tries again")

    def log(self, record: dict) -> None:
        """Add the line of an epoch to the diary. A line that cannot be written now is written as soon as one can."""
        try:
            self.run.history.append(record)
            self.log_is_behind = False
        except SystemFault as fault:
            if not self.log_is_behind:
                self.listener.warn(f"{fault}. Training goes on, and its lines are kept until they can be written")
            self.log_is_behind = True

    def restore(self, meta: dict, tensors: dict[str, np.ndarray], source: str) -> None:
        """Go on from a checkpoint's state, which holds together."""
        network = self.model.network
        network.load(tensors, source)
        network.load_optimizer(tensors, source)
        self.progress = Progress(**meta["position"])
        if self.plateau:
            self.plateau.restore(self.progress.plateau)
        self.best = None
        if self.keeps_best and self.progress.best_epoch is not None:
            prefix = BEST if any(name.startswith(BEST) for name in tensors) else ""
            self.best = {
                name: find(tensors, f"{prefix}{name}", value.shape, source) for name, value in network.tensors().items()
            }
        self.machine.prepare_training(self.rows, self.batch_size)
        self.machine.totals[:] = find(tensors, TOTALS, self.machine.totals.shape, source)

    def roll_back(self, trouble: str) -> None:
        """Go back to the last checkpoint and halve the rate, if the config says so. Diverged if it does not, or if
        that was done too often."""
        if self.snapshots is None or self.snapshots.last is None or self.progress.rollbacks >= MAX_ROLLBACKS:
            raise self.divergence(trouble)
        rate = self.progress.last_rate
        rollbacks, scale = self.progress.rollbacks + 1, self.progress.rate_scale / 2
        step, (meta, _) = self.progress.step, self.snapshots.last
        if meta["position"]["step"] == step and self.snapshots.step_back():
            # not one step leads on from the last checkpoint, so the rate is not to blame: to the one before
            self.attempt(self.run.forget, step)
        self.restore(*self.snapshots.last, "the last checkpoint")
        self.saved_position = (self.progress.step, self.progress.epoch) if self.snapshots.is_written else None
        self.saved_best = None
        self.progress.rollbacks, self.progress.rate_scale = rollbacks, scale
        self.attempt(self.run.history.truncate_after, self.progress.epoch)
        self.listener.warn(
            f"{trouble}, at learning rate {rate:g}; going back to step {self.progress.step} "
            f"with the learning rate times {scale:g}"
        )

    def divergence(self, trouble: str) -> Diverged:
        """The sentence for a run that diverged: where, at which rate, what is left, what to try."""
        where = f"{trouble}, at learning rate {self.progress.last_rate or 0:g}"
        if self.progress.rollbacks >= MAX_ROLLBACKS:
            return Diverged(
                f"Diverged: {where}, after {MAX_ROLLBACKS} rollbacks that each halved the rate. "
                "Look for outliers in the data, or choose another loss or activation",
                where,
            )
        kept = f"; the last good checkpoint stays in {self.run.path}" if self.run.step_checkpoints() else ""
        return Diverged(
            f"Diverged: {where}{kept}. Try a lower learning_rate.initial, optimizer.clip_norm: 1.0, "
            "or look for outliers in the data",
            where,
        )


def batch_size(config, rows: int) -> int:
    """The batch size in rows. ConfigError where it is larger than the training set."""
    stated = config.training.batch_size
    if stated is None:
        return min(32, rows)
    if stated == "full":
        return rows
    if stated > rows:
        raise config.error(
            "training.batch_size",
            f"expected at most the {rows} training rows; got {stated}. Use `full` for the whole set",
        )
    return stated


def total_steps(config, steps_per_epoch: int) -> int | None:
    """Steps of the whole run; None where only time bounds it."""
    training = config.training
    limits = [training.max_steps] if training.max_steps is not None else []
    if training.epochs is not None:
        limits.append(training.epochs * steps_per_epoch)
    return min(limits) if limits else None
