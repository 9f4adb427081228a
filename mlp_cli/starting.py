"""How a run begins: what is checked once the data is read, initial weights, and going on from a checkpoint."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from mlp_cli import metrics, saved
from mlp_cli.data import Dataset
from mlp_cli.errors import CheckpointError, ConfigError, Diverged
from mlp_cli.evaluation import training_metrics
from mlp_cli.kernels import layout
from mlp_cli.model import Model
from mlp_cli.network.network import load_initial
from mlp_cli.progress import Progress
from mlp_cli.runs import checkpoint as checkpoints
from mlp_cli.runs.ending import chosen_model
from mlp_cli.trainer import Trainer, batch_size
from mlp_cli.vocab import NEED_TOTAL
from mlp_cli.wording import cut, listed, quoted

# What may differ between a run and its resumption; a schedule that needs the total follows the new one.
MAY_CHANGE = ("epochs", "max_steps", "max_time", "checkpoint", "early_stopping.patience")
# Weights may be given as numbers, and a sentence is not the place for a thousand of them.
SHOWN_CHANGES = 8


def check(model: Model, dataset: Dataset) -> None:
    """What can only be checked once the data is read. ConfigError where the config asks for what cannot be."""
    config = model.config
    batch_size(config, len(dataset.train.x))
    if config.training.early_stopping is not None:
        _check_metric(model, dataset, config.training.early_stopping.metric, "training.early_stopping.metric")
    if config.learning_rate.schedule == "plateau":
        _check_metric(model, dataset, config.learning_rate.metric, "learning_rate.metric")


def _check_metric(model: Model, dataset: Dataset, metric: str, key: str) -> None:
    """Refuse a metric that this task, or the training rows as they are met, does not have."""
    if dataset.validation is not None:
        known, where, remedy = list(metrics.names(model.task)), "with these validation rows", ""
    else:
        known = list(training_metrics(_no_totals(model), model))
        where, remedy = "without validation rows", ", or set data.split.validation"
    if metric not in known:
        raise model.config.error(
            key, f"a {model.task.kind} {where} has no {quoted(metric)}; choose among {listed(known, 24)}{remedy}"
        )


def begin(trainer: Trainer) -> None:
    """Start at the model's initial parameters."""
    trainer.machine.prepare_training(trainer.rows, trainer.batch_size)
    # a run may have been killed before it could save anything but these lines
    trainer.run.history.truncate_after(0)


def take_initial(model: Model, warn: Callable[[str], None]) -> None:
    """Give a new model the parameters of `network.initial`, if the config names a checkpoint or a run there.

    `warn` hears of a run that has not finished. CheckpointError where it cannot be read, Diverged where that run has
    no result, ConfigError where it is of another network.
    """
    initial = model.config.network.initial
    if initial is None:
        return
    where = model.config.where("network.initial")
    try:
        path, remark = chosen_model(Path(initial))
        tensors = checkpoints.read(path).tensors
    except (CheckpointError, Diverged) as error:
        raise type(error)(f"{where}: {error}") from None
    load_initial(model.network, tensors, str(path))
    if remark:
        warn(f"{where}: {remark}")


def resume(trainer: Trainer, checkpoint: checkpoints.Checkpoint) -> None:
    """Go on from a checkpoint of this run: same data, and a config that differs in nothing that shapes the past.

    ConfigError where either differs, with the difference. CheckpointError where the checkpoint does not hold together.
    """
    meta, source = checkpoint.meta, str(checkpoint.path)
    _, position = Model.described(checkpoint)
    if meta["fingerprint"] != trainer.dataset.fingerprint:
        raise ConfigError(
            f"{source}: the data are not those that the run was begun with; restore them, "
            "or start afresh in another directory or with --force"
        )
    changes = differences(_shaping(meta["config"]), _shaping(trainer.config.resolved()))
    if changes:
        raise ConfigError(
            f"{source}: the run was begun with another config ({_shortened(changes)}); undo the change, "
            "or start afresh in another directory or with --force"
        )
    with saved.refused(source):
        _check_against_data(trainer, checkpoint, position)
    trainer.restore(meta, checkpoint.tensors, source)
    _warn_of_new_total(trainer, meta["config"])
    if trainer.snapshots:
        trainer.snapshots.resume((meta, checkpoint.tensors))
    if checkpoint.path == trainer.run.best_path:
        _warn_of_best(trainer)
    else:
        trainer.saved_position = (trainer.progress.step, trainer.progress.epoch)
        # the run may have been killed between its last save and this
        trainer.attempt(trainer.run.prune, trainer.config.training.checkpoint.keep)
    kept = trainer.run.history.truncate_after(trainer.progress.epoch)
    if kept < trainer.progress.epoch:
        trainer.listener.warn(f"{trainer.run.metrics_path}: {trainer.progress.epoch - kept} lines are missing")
    trainer.interrupts.so_far = f"the run stays at step {trainer.progress.step}; go on with --resume"


def _check_against_data(trainer: Trainer, checkpoint: checkpoints.Checkpoint, position: Progress) -> None:
    """ValueError where a run on these rows cannot have left such a checkpoint under this name."""
    epochs, rest, steps = position.epoch, position.epoch_step, trainer.steps_per_epoch
    # fewer steps than that are those of epochs that a limit cut short
    if rest > steps or position.step > epochs * steps + rest:
        raise ValueError(f"position: with {steps} steps an epoch, step {position.step} is not in epoch {epochs + 1}")
    if checkpoint.tensors[saved.TOTALS][layout.TOTAL_ROWS] != min(rest * trainer.batch_size, len(trainer.rows)):
        raise ValueError(f"{saved.TOTALS} are not those of {rest} steps")
    if (position.best_epoch is not None) != (trainer.keeps_best and position.best_score is not None):
        raise ValueError("position: best_epoch does not fit the validation rows")
    if checkpoint.path not in (trainer.run.best_path, trainer.run.checkpoint_path(position.step)):
        raise ValueError(f"position: step {position.step} is not that of its name")


def _warn_of_best(trainer: Trainer) -> None:
    """The best checkpoint, where it is all that is left, need not be a state that the run was in: it joins the best
    epoch's parameters to the last position, and an epoch that a limit cut short has ended there."""
    progress = trainer.progress
    is_best_epoch = trainer.best is None or (progress.best_epoch, 0) == (progress.epoch, progress.epoch_step)
    if not is_best_epoch or progress.step != progress.epoch * trainer.steps_per_epoch + progress.epoch_step:
        trainer.listener.warn(
            f"only the best checkpoint is left to go on from, at step {progress.step}: "
            "the result will not be that of an undisturbed run"
        )


def _warn_of_new_total(trainer: Trainer, before: dict) -> None:
    """A schedule that runs to the end of the run follows the new end."""
    now, then = trainer.config.training, before["training"]
    same = (now.epochs, now.max_steps) == (then.get("epochs"), then.get("max_steps"))
    schedule = trainer.config.learning_rate.schedule
    if not same and schedule in NEED_TOTAL:
        trainer.listener.warn(
            f"the length of the run has changed: from step {trainer.progress.step} on, the {schedule} schedule follows "
            "the new length"
        )


def _shaping(config: dict) -> dict:
    """A resolved config as flat `a.b.c` keys, without those that may change on resumption and where files lie."""
    flat = {}

    def walk(value, key):
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(inner, f"{key}.{name}" if key else str(name))
        elif isinstance(value, list):
            for number, inner in enumerate(value):
                walk(inner, f"{key}.{number}")
        else:
            flat[key] = value

    walk(config, "")
    places = ("data.path", "data.train", "data.validation", "data.test", "data.memory")
    allowed = (*(f"training.{name}" for name in MAY_CHANGE), *places)
    return {
        key: value
        for key, value in flat.items()
        if not any(key == name or key.startswith(f"{name}.") for name in allowed)
    }


def _shortened(changes: list[str]) -> str:
    more = len(changes) - SHOWN_CHANGES
    return "; ".join(changes[:SHOWN_CHANGES]) + (f"; and {more} more" if more > 0 else "")


def differences(before: dict, after: dict) -> list[str]:
    """Lines `key: before -> after` for what differs."""
    keys = sorted(before.keys() | after.keys())
    changed = [key for key in keys if before.get(key) != after.get(key)]
    return [f"{cut(key)}: {cut(str(before.get(key)))} -> {cut(str(after.get(key)))}" for key in changed]


def _no_totals(model: Model) -> np.ndarray:
    """Running sums of no rows, to see which metrics they give."""
    totals = np.zeros(model.coding.totals_size)
    totals[layout.TOTALS_HEAD :] = 1.0
    return totals
