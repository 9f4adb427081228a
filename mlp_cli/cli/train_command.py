"""`mlp train`: read config and data, show what will happen, train, show what came out."""

import math
import shlex
import time
from contextlib import ExitStack, closing

import click

from mlp_cli.cli import options
from mlp_cli.cli.console import (
    TrainingConsole,
    confusion_table,
    count,
    layer_table,
    metric,
    metrics_table,
)

# A confusion matrix of more classes is no longer read by people.
SHOWN_CLASSES = 12
# Metrics of an epoch that its line and the bar show, if the task has them.
SHORT_METRICS = ("loss", "accuracy", "rmse")


@click.command("train", short_help="Train a network.")
@click.argument("arguments", metavar="CONFIG... [key=value ...]", nargs=-1, required=True)
@click.option("--out", type=click.Path(), metavar="DIR", help="Run directory; default: runs/<config>-001 and so on.")
@click.option("--resume", is_flag=True, help="Go on from the newest checkpoint; start a run where there is none.")
@click.option("--force", is_flag=True, help="Replace the run in --out when the new one is finished.")
@options.threads
@options.as_json
@options.quiet
@click.pass_obj
def command(interrupts, arguments, out, resume, force, threads, as_json, quiet):
    """Train a network from one or more configs, merged left to right, overrides last.

    \b
    mlp train configs/digits.yaml
    mlp train configs/digits.yaml training.epochs=5 network.layers.0.units=64
    mlp train configs/digits.yaml --out runs/a --resume
    """
    interrupts.so_far = "nothing was trained yet"
    configs, overrides = options.split_arguments(arguments)
    console = TrainingConsole(quiet, as_json)
    _train(configs, overrides, out, resume, force, threads, console, interrupts)


def _train(configs, overrides, out, resume, force, threads, console, interrupts):
    from mlp_cli import config as config_package

    config = config_package.load(configs, overrides, options.tell_of_merging(console, "train"))

    from mlp_cli.model import Model, load_data
    from mlp_cli.runs.directory import RunDirectory
    from mlp_cli.runs.ending import recorded
    from mlp_cli.starting import begin, check, take_initial
    from mlp_cli.starting import resume as resume_run
    from mlp_cli.trainer import Listener, Trainer
    from mlp_cli.training import fit, resumable

    threads = options.thread_count(threads)
    dataset = load_data(config)
    model = Model.new(config, dataset, threads)
    check(model, dataset)
    if not resume:
        # a mistake here must not leave an empty run behind
        take_initial(model, console.warn)

    with ExitStack() as stack:
        run = RunDirectory.create(config.name, out=out, resume=resume, force=force, warn=console.warn)
        stack.enter_context(run)
        _introduce(console, dataset, model, run)
        options.prepare_kernels(console, config.dtype)
        machine = stack.enter_context(closing(model.machine(threads)))
        progress = _Bar(console)
        listener = Listener(epoch=progress.epoch, moving=progress.moving, warn=progress.warn)
        trainer = Trainer(model, dataset, machine, run, listener, interrupts)
        if trainer.total_steps is not None:
            progress.epochs = trainer.total_steps / trainer.steps_per_epoch
        if checkpoint := run.newest_valid(console.warn) if resume else None:
            resume_run(trainer, checkpoint)
            console.say(f"Resuming at step {trainer.progress.step} from {checkpoint.path}")
            del checkpoint  # as large as the network and its moments
        else:
            if resume:
                take_initial(model, console.warn)
            begin(trainer)
        run.save_config(config_package.dump(config))
        console.say(f"{_plural(trainer.machine.training_threads, 'thread')}, {trainer.batch_size} rows a step")
        console.emit(_start_event(config, dataset, model, run, trainer))
        with resumable(run), recorded(run, progress.warn) as ending:
            try:
                result = fit(trainer)
            finally:
                progress.close()
                ending.epoch, ending.step = trainer.progress.epoch, trainer.progress.step
            summary = _summary(dataset, model, trainer, result)
            run.write_summary(summary)
            ending.reason = result.reason
        with resumable(run):
            run.take_place()
        interrupts.over(exit_code=0)
        _conclude(console, model, run, result)
        console.emit({"event": "end", "run": str(run.home), **summary})


def _plural(n, noun):
    return f"{count(n)} {noun}" + ("" if n == 1 else "s")


def _introduce(console, dataset, model, run):
    """Before the first epoch: the task, the rows, the layers."""
    from mlp_cli.network.network import describe

    console.say(f"Task: {dataset.task.kind} ({dataset.task.reason})")
    parts = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    rows = ", ".join(f"{name} {count(len(part.x))}" for name, part in parts.items() if part is not None)
    console.say(f"Rows: {rows}; {_plural(dataset.train.x.shape[1], 'input')}")
    for note in dataset.notes:
        console.warn(note)
    console.say(layer_table(describe(model.network.program)))
    console.say(f"Run directory: {run.home}")
    if run.path != run.home:
        console.say(f"The run that is there stays until this one, which is trained in {run.path}, is finished")


def _start_event(config, dataset, model, run, trainer):
    parts = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    return {
        "event": "start",
        "run": str(run.home),
        "task": dataset.task.kind,
        "rows": {name: len(part.x) for name, part in parts.items() if part is not None},
        "inputs": dataset.train.x.shape[1],
        "parameters": model.network.program.parameter_count,
        "batch_size": trainer.batch_size,
        "threads": trainer.machine.training_threads,
        "step": trainer.progress.step,
    }


def _summary(dataset, model, trainer, result):
    """summary.json: metrics, checkpoints, and where the result came from."""
    from mlp_cli.runs.provenance import provenance

    return {
        "metrics": {name: found.metrics for name, found in result.evaluations.items()},
        "checkpoint": result.checkpoints,
        "epochs": result.progress.epoch,
        "steps": result.progress.step,
        "best_epoch": result.progress.best_epoch if trainer.keeps_best else None,
        "reason": result.reason,
        "task": dataset.task.kind,
        "parameters": model.network.program.parameter_count,
        "threads": trainer.machine.training_threads,
        "seconds": result.seconds,
        "fingerprint": dataset.fingerprint,
        **provenance(),
    }


def _conclude(console, model, run, result):
    """After the last epoch: metrics of every split, confusion matrix, the checkpoint, what to type next."""
    progress = result.progress
    console.say(f"Done: {result.reason}, {count(progress.step)} steps in {result.seconds:.1f} s")
    if progress.best_epoch is not None and progress.best_epoch != progress.epoch and "validation" in result.evaluations:
        console.say(f"The best epoch on the validation rows is {progress.best_epoch}; its parameters are the result")
    console.result(metrics_table({name: found.metrics for name, found in result.evaluations.items()}))
    name = next(name for name in ("test", "validation", "train") if name in result.evaluations)
    counts = result.evaluations[name].confusion
    if counts is not None and len(counts) <= SHOWN_CLASSES:
        console.result(f"\n{confusion_table(counts, model.task.classes)}    ({name} rows)")
    console.say(f"\nCheckpoint: {run.path / result.checkpoints['best']}")
    place = shlex.quote(str(run.path))
    console.say(f"Next: mlp eval {place}    or    mlp predict {place} FILE")


class _Bar:
    """The live bar on a terminal, a plain line an epoch elsewhere, an event an epoch under --json."""

    def __init__(self, console):
        self.console = console
        self.epochs = None  # how many the run takes, the last one perhaps in part; None where only time bounds it
        self.bar = None
        self.judged = ""  # the main metric of the epoch before
        self.speed = Speed()

    def moving(self, epoch, done, steps, samples, loss):
        """Within an epoch: the bar counts epochs in fractions."""
        if self.console.has_bars:
            speed = self.speed.of(epoch, samples)
            self._show(epoch, epoch - 1 + done / steps, loss, speed)

    def epoch(self, record):
        """At an epoch's end."""
        self.console.emit({"event": "epoch", **record})
        if self.console.has_bars:
            self.judged = _main_metric(record)
            self._show(record["epoch"], record["epoch"], record["train"]["loss"], record["samples_per_second"])
        else:
            self.console.say(
                f"epoch {record['epoch']}  {_short(record)}  rate {record['learning_rate']:.3g}  "
                f"{record['samples_per_second']:,.0f} samples/s"
            )

    def warn(self, text):
        """A warning, below the bar."""
        self.close()
        self.console.warn(text)

    def close(self):
        """Take the bar away."""
        if self.bar is not None:
            self.bar.refresh()
            self.bar.close()
            self.bar = None

    def _show(self, epoch, place, loss, speed):
        if self.bar is None:
            from tqdm import tqdm

            # without `initial` a resumed run would seem to have done all its epochs in a second
            self.bar = tqdm(
                total=self.epochs,
                initial=place,
                bar_format="{desc} " + ("|{bar}| {elapsed}<{remaining}" if self.epochs else "{elapsed}") + "{postfix}",
                dynamic_ncols=True,
            )
        self.bar.n = min(place, self.epochs or place)
        of = f"/{math.ceil(self.epochs)}" if self.epochs else ""
        self.bar.set_description_str(f"epoch {epoch}{of}", refresh=False)
        parts = [f"loss {loss:.3g}", self.judged, f"{speed:,.0f} samples/s" if speed else ""]
        self.bar.set_postfix_str(", ".join(part for part in parts if part), refresh=False)
        # tqdm itself refreshes no more than ten times a second
        self.bar.update(0)


class Speed:
    """Samples a second within an epoch, from how many of it were met when."""

    def __init__(self):
        self.epoch = None

    def of(self, epoch, samples):
        now = time.monotonic()
        if epoch != self.epoch or samples < self.first:
            self.epoch, self.began, self.first = epoch, now, samples
        return (samples - self.first) / (now - self.began) if now > self.began else 0.0


def _main_metric(record):
    """The validation rows' accuracy or error, or that of the training rows where there are none."""
    name, found = ("val ", record["validation"]) if "validation" in record else ("", record["train"])
    shown = next((metric for metric in SHORT_METRICS[1:] if metric in found), "loss")
    return f"{name}{shown} {found[shown]:.3g}"


def _short(record):
    """loss and the main metric, training and validation."""
    parts = []
    for split in ("train", "validation"):
        found = record.get(split)
        if found:
            shown = [f"{name} {metric(found[name])}" for name in SHORT_METRICS if name in found]
            parts.append(f"{split}: {', '.join(shown)}")
    return "  ".join(parts)
