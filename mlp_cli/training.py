"""Training: the loop. What its verbs mean is in `trainer`, how a run begins in `starting`."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from shlex import quote

from mlp_cli.errors import SystemFault
from mlp_cli.evaluation import Evaluation
from mlp_cli.interrupts import Signalled
from mlp_cli.network.machine import Halted
from mlp_cli.progress import Progress
from mlp_cli.runs.directory import RunDirectory
from mlp_cli.trainer import EpochClock, NotFinite, Trainer


@dataclass
class Result:
    """How a run ended: the evaluation of every split by the best parameters, and the progress."""

    evaluations: dict[str, Evaluation]
    progress: Progress
    checkpoints: dict[str, str]
    reason: str
    seconds: float = 0.0


def fit(trainer: Trainer) -> Result:
    """Train until a limit is reached.

    Raises Interrupted or Stopped after a signal, with everything saved, Diverged when the loss is not finite, and
    SystemFault when the last checkpoint cannot be written: until then a run does not end because a disk is full.
    """
    trainer.interrupts.working(trainer.machine.stop)
    try:
        if trainer.saved_position is None:
            trainer.attempt(trainer.save)
        while (reason := trainer.limit()) is None:
            try:
                fit_epoch(trainer)
            except NotFinite as trouble:
                trainer.roll_back(str(trouble))
        result = finish(trainer, reason)
        trainer.interrupts.idle("the run is trained and saved; with --resume it is summed up again")
        return result
    except NotFinite as trouble:
        raise trainer.divergence(str(trouble)) from None
    except (Halted, Signalled):
        if not trainer.is_over:
            trainer.save()
            trainer.attempt(trainer.save_result)
        raise trainer.interrupts.error(
            f"saved at step {trainer.progress.step}, in epoch {trainer.progress.epoch + 1}; "
            f"go on with: {resumption(trainer.run)}"
        ) from None


@contextmanager
def resumable(run: RunDirectory) -> Iterator[None]:
    """A system fault in this block says how the run goes on once the cause is removed."""
    try:
        yield
    except SystemFault as fault:
        raise SystemFault(f"{fault}, then go on with: {resumption(run)}") from fault


def resumption(run: RunDirectory) -> str:
    """The command that goes on with a run."""
    return f"mlp train {quote(str(run.config_path))} --out {quote(str(run.home))} --resume"


def fit_epoch(trainer: Trainer) -> None:
    """An epoch, or the rest of it, or as much of it as the limits of the run allow."""
    progress, checkpoint = trainer.progress, trainer.config.training.checkpoint
    trainer.clock = EpochClock()

    # the order of its rows
    order = trainer.machine.draws(trainer.config.training.sampling, progress.epoch + 1)

    # its steps, with checkpoints in between
    while (count := trainer.stretch()) > 0 and not trainer.out_of_time:
        trainer.interrupts.heed()
        trainer.run_steps(order, count)
        if trainer.save_is_due(checkpoint.every_steps, progress.step):
            trainer.attempt(trainer.save)
    trainer.interrupts.heed()

    # measure, judge, log, save
    if progress.epoch_step == trainer.steps_per_epoch:
        trainer.end_epoch()
        if trainer.save_is_due(checkpoint.every_epochs, progress.epoch):
            trainer.attempt(trainer.save)


def finish(trainer: Trainer, reason: str) -> Result:
    """Write the last and the best checkpoint, and measure every split with the best parameters."""
    trainer.save()
    if trainer.progress.epoch_step:
        # an epoch that a limit cut short has a line too; the checkpoint stays in its middle, where a longer run goes on
        trainer.end_epoch()
    trainer.save_result()
    trainer.run.history.sync()
    trainer.is_over = True
    if trainer.best is not None:
        trainer.model.network.load(trainer.best, "the best epoch")
    parts = {"train": trainer.dataset.train, "validation": trainer.dataset.validation, "test": trainer.dataset.test}
    evaluations = {name: trainer.evaluate(part) for name, part in parts.items() if part is not None}
    for name, found in evaluations.items():
        if not math.isfinite(found.metrics["loss"]):
            raise NotFinite(f"the loss of the result on the {name} rows is not finite")
    paths = {
        "last": str(trainer.run.checkpoint_path(trainer.progress.step).relative_to(trainer.run.path)),
        "best": str(trainer.run.best_path.relative_to(trainer.run.path)),
    }
    return Result(evaluations, trainer.progress, paths, reason, time.monotonic() - trainer.began)
