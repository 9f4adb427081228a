"""`mlp eval`: metrics of a trained network on a split of its run, or on another file."""

import math
import re
from contextlib import closing

import click

from mlp_cli.cli import options
from mlp_cli.cli.console import Console, confusion_table, metric, metrics_table, per_class_table

SPLITS = ("train", "validation", "test")
REQUIREMENT = re.compile(r"^\s*([\w.]+)\s*(>=|<=|>|<)\s*(\S+)\s*$")
COMPARE = {
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
}
SHOWN_CLASSES = 30


@click.command("eval", short_help="Measure a trained network on a split or a file.")
@click.argument("model", type=click.Path())
@click.argument("data", nargs=-1, metavar="[DATA]")
@click.option("--split", type=click.Choice(SPLITS), help="Default: test, else validation, else train.")
@click.option("--require", multiple=True, metavar="'accuracy>=0.97'", help="Exit with 8 where this does not hold.")
@options.threads
@options.as_json
@options.quiet
def command(model, data, split, require, threads, as_json, quiet):
    """Metrics of MODEL (a run directory or a checkpoint) on a split of its run, or on DATA.

    DATA is a table with the target column, or two files x and y.

    \b
    mlp eval runs/digits-001
    mlp eval runs/digits-001 --split validation --json
    mlp eval runs/adult-001 adult.test --require 'accuracy>=0.85'
    """
    requirements = [_requirement(text) for text in require]
    if data and split:
        raise click.UsageError("--split names rows of the run, and DATA is another file: give only one of them")

    from pathlib import Path

    from mlp_cli.evaluation import evaluate
    from mlp_cli.model import Model
    from mlp_cli.network.footprint import require_to_measure
    from mlp_cli.runs import checkpoint
    from mlp_cli.runs.ending import chosen_model

    console = Console(quiet, as_json)
    path, remark = chosen_model(Path(model))
    saved = checkpoint.read(path)
    network = Model.from_checkpoint(saved)
    options.tell_of_checkpoint(console, saved, remark)
    if data:
        source = options.data_source(data, "DATA")
        part, name = network.preprocessing.transform(source, need_target=True), None
        for note in part.notes:
            console.warn(note)
    else:
        part, name = _split_of_run(network, saved, split, path)
    options.prepare_kernels(console, network.config.dtype)
    require_to_measure(network.network, len(part.x))
    with closing(network.machine(options.thread_count(threads))) as machine:
        found = evaluate(machine, network, part)
    console.emit({"rows": found.rows, "split": name, "metrics": found.metrics, **_class_record(found, network)})
    console.result(metrics_table({name or str(data[0]): found.metrics}))
    console.result(f"  rows  {found.rows}")
    if found.confusion is not None and len(found.confusion) <= SHOWN_CLASSES:
        console.result("\n" + confusion_table(found.confusion, network.task.classes))
        console.result("\n" + per_class_table(found.confusion, network.task.classes))
    _insist(requirements, found.metrics)


def _class_record(found, network):
    """The confusion matrix and the per-class table, for --json."""
    if found.confusion is None:
        return {}
    from mlp_cli.metrics import per_class

    table = per_class(found.confusion)
    return {
        "confusion": {"classes": list(network.task.classes), "counts": found.confusion.tolist()},
        "per_class": {
            label: {name: float(values[number]) for name, values in table.items()}
            for number, label in enumerate(network.task.classes)
        },
    }


def _split_of_run(network, saved, split, path):
    """The rows of a split, cut from the run's data exactly as training did."""
    from mlp_cli.errors import CheckpointError, ConfigError, DataError
    from mlp_cli.model import load_data

    dataset = load_data(network.config, memory="either")
    if dataset.fingerprint != saved.meta.get("fingerprint"):
        raise DataError(
            f"{path}: the data files have changed since training, so its splits are no longer the same rows; "
            "restore them, or name the file to evaluate"
        )
    if not network.preprocessing.matches(dataset.preprocessing):
        raise CheckpointError(
            f"{path}: its config and its preprocessing do not read the same columns; use another checkpoint of the run"
        )
    parts = {name: getattr(dataset, name) for name in SPLITS}
    if split is None:
        split = next(name for name in ("test", "validation", "train") if parts[name] is not None)
    if parts[split] is None:
        there = ", ".join(name for name, part in parts.items() if part is not None)
        raise ConfigError(f"--split {split}: this run has no {split} rows; it has {there}")
    return parts[split], split


def _requirement(text):
    """(metric, comparison, number, text) of --require."""
    match = REQUIREMENT.match(text)
    try:
        number = float(match[3])
        if math.isnan(number):
            raise ValueError("never met")
        return match[1], match[2], number, text
    except (TypeError, ValueError):
        raise click.UsageError(
            f"--require: expected a metric, one of >= <= > <, and a number, as in 'accuracy>=0.97'; got {text!r}"
        ) from None


def _insist(requirements, metrics):
    from mlp_cli.errors import ConfigError, RequirementNotMet
    from mlp_cli.wording import listed, quoted

    failed = []
    for name, comparison, number, text in requirements:
        if name not in metrics:
            raise ConfigError(
                f"--require {quoted(text)}: there is no metric {quoted(name)}; there are {listed(metrics, 24)}"
            )
        if not COMPARE[comparison](metrics[name], number):
            failed.append(f"{name} is {metric(metrics[name])}, required is {comparison} {number:g}")
    if failed:
        raise RequirementNotMet("Not met: " + "; ".join(failed))
