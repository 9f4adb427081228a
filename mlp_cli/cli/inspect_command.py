"""`mlp inspect`: what a checkpoint, a run or a config is made of."""

from pathlib import Path

import click

from mlp_cli.cli import options
from mlp_cli.cli.console import Console, count, layer_table, metric, table
from mlp_cli.wording import listed, plural

# The rows of a full batch where only a checkpoint is at hand.
ASSUMED_ROWS = 1024
ENDED = {"finished": "finished", "interrupted": "was interrupted", "diverged": "diverged", "failed": "failed"}


@click.command("inspect", short_help="Show a network: layers, preprocessing, provenance.")
@click.argument("arguments", metavar="MODEL|CONFIG [key=value ...]", nargs=-1, required=True)
@options.as_json
@options.quiet
def command(arguments, as_json, quiet):
    """Layers with shapes, parameters, multiply-adds and memory; preprocessing; provenance; a run's checkpoints.

    \b
    mlp inspect runs/digits-001
    mlp inspect runs/digits-001/checkpoints/best.safetensors --json
    mlp inspect configs/digits.yaml
    """
    console = Console(quiet, as_json)
    paths, overrides = options.split_arguments(arguments)
    if _is_config(paths):
        model, facts = _from_config(paths, overrides, options.tell_of_merging(console, "inspect"))
    else:
        if len(paths) > 1 or overrides:
            raise click.UsageError("expected one run directory or checkpoint, or configs that end in .yaml or .yml")
        model, facts = _from_model(Path(paths[0]))
    facts = {**facts, **_network_facts(model, facts.get("rows", {}).get("train"))}
    console.emit(facts)
    console.result(_report(facts))


def _is_config(paths):
    return all(Path(path).suffix in (".yaml", ".yml") for path in paths)


def _from_config(paths, overrides, tell):
    from mlp_cli import config as config_package
    from mlp_cli.model import Model, load_data

    config = config_package.load(paths, overrides, tell)
    dataset = load_data(config)
    parts = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    rows = {name: len(part.x) for name, part in parts.items() if part is not None}
    return Model.new(config, dataset), {"config": paths[-1], "rows": rows}


def _from_model(path):
    from dataclasses import asdict

    from mlp_cli.model import Model
    from mlp_cli.runs import checkpoint, ending
    from mlp_cli.runs.directory import RunDirectory, find_model

    found = find_model(path)
    saved = checkpoint.read(found)
    facts = {"checkpoint": str(found), "sha256": saved.sha256, "position": saved.meta.get("position")}
    if path.is_dir():
        run = RunDirectory(path)
        facts["checkpoints"] = [
            {"step": step, "path": str(at), "valid": checkpoint.is_valid(at)} for step, at in run.step_checkpoints()
        ]
        ended = ending.read(path)
        facts["ending"] = None if ended is None else asdict(ended)
        facts["summary"] = run.read_summary()
    return Model.from_checkpoint(saved), facts


def _network_facts(model, rows):
    """What follows from the network itself; `rows` of training data, where they are known, tell a full batch."""
    from mlp_cli.network.machine import memory_needed
    from mlp_cli.network.network import describe

    program = model.network.program
    batch = model.config.training.batch_size
    if batch == "full":
        batch = rows or ASSUMED_ROWS
    elif batch is None:
        batch = min(32, rows or 32)
    return {
        "task": model.task.kind,
        "targets": list(model.task.targets),
        "classes": None if model.task.classes is None else list(model.task.classes),
        "loss": model.config.loss.name,
        "optimizer": model.config.optimizer.name,
        "dtype": model.config.dtype,
        "layers": describe(program),
        "parameters": program.parameter_count,
        "multiply_adds": program.multiply_adds,
        "parameter_bytes": program.parameter_count * model.network.dtype.itemsize,
        "training_bytes": memory_needed(model.network, batch),
        "training_batch": batch,
        "batch_is_assumed": model.config.training.batch_size == "full" and not rows,
        "preprocessing": model.preprocessing.describe(),
    }


def _report(facts):
    lines = []
    if "checkpoint" in facts:
        lines.append(f"Checkpoint {facts['checkpoint']} (sha256 {facts['sha256'][:16]}…)")
    position = facts.get("position")
    if position:
        lines.append(f"  after {count(position['epoch'])} epochs, {count(position['step'])} steps"
                     + (f"; best epoch {position['best_epoch']}" if position["best_epoch"] else ""))  # fmt: skip
    if facts.get("ending"):
        ended = facts["ending"]
        where = f"after {plural(ended['epoch'], 'epoch')}, {plural(ended['step'], 'step')}"
        lines.append(f"  the run {ENDED[ended['state']]} {where}: {ended['reason']}")
    elif "checkpoints" in facts and not facts["summary"]:
        lines.append("  the run has not ended: it goes on right now, or its process was killed")
    target = listed(facts["targets"])
    classes = f" of {len(facts['classes'])} classes: {listed(facts['classes'])}" if facts["classes"] else ""
    lines.append(f"{facts['task'].capitalize()} of {target}{classes}")
    lines.append(f"  loss {facts['loss']}, optimizer {facts['optimizer']}, {facts['dtype']}")
    if "rows" in facts:
        lines.append("  rows: " + ", ".join(f"{name} {count(n)}" for name, n in facts["rows"].items()))
    lines += ["", layer_table(facts["layers"])]
    batch = f"{facts['training_batch']}" + (" (assumed for `full`)" if facts["batch_is_assumed"] else "")
    lines.append(
        f"  parameters {_bytes(facts['parameter_bytes'])}; training in batches of {batch} "
        f"takes {_bytes(facts['training_bytes'])} besides the data"
    )
    lines += ["", "Preprocessing:", *(f"  {line}" for line in facts["preprocessing"])]
    if facts.get("summary"):
        try:
            lines += _result(facts["summary"])
        except (KeyError, TypeError, ValueError, AttributeError):
            lines += ["", "Result: the summary of this run is damaged; mlp train --resume writes it anew"]
    if facts.get("checkpoints"):
        rows = [[c["path"], count(c["step"]), "valid" if c["valid"] else "damaged"] for c in facts["checkpoints"]]
        lines += ["", table(rows, header=["checkpoints", "step", ""])]
    return "\n".join(lines)


def _result(summary):
    """Metrics and provenance, from summary.json, which anybody may have edited."""
    lines = ["", "Result:"]
    for split, found in summary["metrics"].items():
        lines.append(f"  {split}: " + ", ".join(f"{name} {metric(value)}" for name, value in found.items()))
    versions = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    lines += ["", "Provenance:", f"  {summary['date']}, {summary['processor']}", f"  {versions}"]
    if summary.get("git"):
        dirty = " with uncommitted changes" if summary["git"]["dirty"] else ""
        lines.append(f"  commit {summary['git']['commit']}{dirty}")
    return lines


def _bytes(n):
    from mlp_cli.memory import size_text

    return size_text(n)
