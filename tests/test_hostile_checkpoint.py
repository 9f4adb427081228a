"""Checkpoints that were edited and signed again: whatever is read from one is checked, or it is one sentence, exit 6.

Each value of the description and each array is replaced in turn. A sample of all that is tried here; `--run-slow` tries
everything.
"""

import json
import math
import os
import random
import shutil

import pytest
from cli import finish, good, mlp, start
from forging import MISSING, arrays, descriptions, places, put, write

from mlp_cli.errors import CheckpointError
from mlp_cli.model import Model
from mlp_cli.runs import checkpoint

ROWS = "".join(f"{i % 7},{'uvw'[i % 3]},{'xz'[i * i % 3 % 2]}\n" for i in range(60))
# A run that a limit has cut short in an epoch, with its best epoch behind it; and one whose result is its last state.
CONFIGS = {
    "classes": """
data: {path: rows.csv, split: {validation: 0.2}}
network: {layers: [{units: 3, activation: relu}, {kind: batch_norm}, {activation: softmax}]}
loss: {name: cross_entropy, class_weights: balanced}
learning_rate: {schedule: plateau, initial: 0.01, patience: 1}
training: {batch_size: 8, max_steps: 27, early_stopping: {patience: 5}, on_divergence: rollback}
""",
    "numbers": """
data: {path: rows.csv, target: a, numeric: quantile, task: regression}
network: {layers: [{units: 2, activation: tanh}, {activation: linear}]}
loss: mse
optimizer: rprop
training: {batch_size: full, epochs: 3}
""",
}
# What another run may have left there: the score of an epoch is any number, a step of any size.
FREE = ("best_score", "patience_score", "last_rate", "plateau.best", "plateau.scale")
# And what follows from scores and rows.
POSSIBLE = {
    "classes": {
        "position.best_epoch=1", "position.best_epoch=2", "position.epochs_without_improvement=1",
        "position.epochs_without_improvement=2", "position.plateau.bad_epochs=1",
        "position.plateau.best=None",
    },
    "numbers": {"position.epochs_without_improvement=1", "position.epochs_without_improvement=2"},
}  # fmt: skip


@pytest.fixture(scope="module", params=CONFIGS)
def trained(request, tmp_path_factory):
    """(name, config, run): a run with a single checkpoint."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "rows.csv").write_text("a,b,y\n" + ROWS)
    config = folder / "config.yaml"
    config.write_text(CONFIGS[request.param])
    good("train", config, "--out", folder / "run", "--quiet")
    *others, _ = sorted((folder / "run" / "checkpoints").glob("step-*"))
    for path in [*others, folder / "run" / "checkpoints" / "best.safetensors"]:
        path.unlink()
    return request.param, config, folder / "run"


@pytest.fixture
def run(trained, tmp_path):
    """(name, config, a copy of the run, its checkpoint's path, the checkpoint as it should be)."""
    name, config, original = trained
    shutil.copytree(original, tmp_path / "run")
    (newest,) = (tmp_path / "run" / "checkpoints").iterdir()
    return name, config, tmp_path / "run", newest, checkpoint.read(newest)


def is_possible(name, case):
    """Whether a changed position is one that another run with this config may have left."""
    key, _, value = case.removeprefix("position.").rpartition("=")
    if key not in FREE or case in POSSIBLE[name]:
        return case in POSSIBLE[name]
    try:
        number = json.loads(value)
    except ValueError:
        return False
    is_number = type(number) in (int, float) and math.isfinite(number)
    return is_number and (key != "last_rate" or number >= 0) and (key != "plateau.scale" or 0 <= number <= 1)


def refusal(path):
    """The sentence with which a checkpoint is refused, or nothing."""
    try:
        Model.described(checkpoint.read(path))
    except CheckpointError as error:
        found = str(error)
    else:
        return ""
    assert found.startswith(f"{path}: ")
    assert "\n" not in found
    return found


def outcomes(config, run):
    """Exit codes and sentences of all that reads a checkpoint; a refusal is one sentence."""
    found = {}
    resume = ("train", config, "--out", run, "--resume", "--quiet")
    for command in (("inspect", run), ("inspect", run, "--json"), ("predict", run, config.parent / "rows.csv"), resume):
        done = mlp(*command)
        assert done.code in (0, 2, 3, 4, 6), (command, done.err)
        assert "Internal error" not in done.err
        if done.code == 6:
            *_, sentence = done.err.splitlines()
            assert ".safetensors: " in sentence
            assert len(sentence) < 2000
        found["json" if "--json" in command else command[0]] = done.code
    return found


def some(cases, request, count):
    """A sample that the name of the test fixes, or with --run-slow all of them."""
    cases = list(cases)
    if request.config.getoption("--run-slow"):
        return cases
    return random.Random(request.node.name).sample(cases, count)


def test_every_value_of_the_position(run, monkeypatch, request):
    name, _, _, newest, saved = run
    for case, meta in some(descriptions(saved.meta, within=("position",)), request, 60):
        write(newest, saved.tensors, meta, monkeypatch)
        sentence = refusal(newest)
        # a step or an epoch that only the rows can tell to be wrong
        needs_rows = case.startswith(("position.step=", "position.epoch=", "position.epoch_step="))
        assert needs_rows or bool(sentence) != is_possible(name, case), (case, sentence)


def test_every_array(run, monkeypatch, request):
    _, _, _, newest, saved = run
    for case, tensors in some(arrays(saved.tensors), request, 60):
        write(newest, tensors, saved.meta, monkeypatch)
        if refusal(newest):
            continue
        array, _, change = case.partition(": ")
        # weights may be any number; squares may have overflowed; a constant column has an infinite scale
        overflown = change == "infinite" and (".moment" in array or array.endswith("scale"))
        assert overflown or change in ("negative", "huge"), case
        assert change != "negative" or not array.startswith("optimizer.moment2."), case


def test_commands_refuse_what_cannot_be(run, monkeypatch):
    name, config, directory, newest, saved = run
    chance = random.Random(name)
    cases = [*descriptions(saved.meta)]
    for case, meta in chance.sample(cases, 6):
        write(newest, saved.tensors, meta, monkeypatch)
        kept = newest.read_bytes()
        found = outcomes(config, directory)
        is_sound = case.startswith(("config.", "preprocessing.")) or is_possible(name, case)
        steps = case.startswith(("position.step=", "position.epoch=", "position.epoch_step=", "class_weights."))
        assert found["inspect"] == found["json"]
        assert found["inspect"] == 6 or is_sound or steps, case
        if found["inspect"] == 6:
            assert set(found.values()) == {6}, (case, found)
        _restore(directory, newest, kept)


@pytest.mark.slow
def test_commands_refuse_all_that_cannot_be(run, monkeypatch):
    _, config, directory, newest, saved = run
    cases = [(case, saved.tensors, meta) for case, meta in descriptions(saved.meta)]
    cases += [(case, tensors, saved.meta) for case, tensors in arrays(saved.tensors)]
    for case, tensors, meta in cases:
        write(newest, tensors, meta, monkeypatch)
        kept = newest.read_bytes()
        found = outcomes(config, directory)
        if found["inspect"] == 6:
            assert set(found.values()) == {6}, (case, found)
        _restore(directory, newest, kept)


def _restore(directory, newest, content):
    """The run with its single checkpoint again, and no record of an end."""
    (directory / "state.json").unlink(missing_ok=True)
    for path in (directory / "checkpoints").iterdir():
        path.unlink()
    newest.write_bytes(content)


@pytest.mark.parametrize(
    ("key", "value"), [("epoch_step", 100_000), ("epoch_step", 7), ("step", 2**53), ("epoch", 2**40), ("step", 26)]
)
@pytest.mark.parametrize("trained", ["classes"], indirect=True)
def test_what_only_the_rows_tell(run, monkeypatch, key, value):
    _, config, directory, newest, saved = run
    write(newest, saved.tensors, put(saved.meta, ("position", key), value), monkeypatch)
    done = mlp("train", config, "--out", directory, "--resume", "training.max_steps=40")
    assert done.code == 6
    assert "its description does not hold together" in done.err


def test_the_name_of_a_checkpoint_is_its_step(run):
    _, config, directory, newest, _ = run
    newest.rename(newest.with_name("step-0000099999.safetensors"))
    done = mlp("train", config, "--out", directory, "--resume", "--quiet")
    assert done.code == 6
    assert "is not that of its name" in done.err


def test_a_config_that_reads_other_columns(run, monkeypatch):
    name, _, directory, newest, saved = run
    target = {"classes": 1, "numbers": None}[name]
    write(newest, saved.tensors, put(saved.meta, ("config", "data", "target"), target), monkeypatch)
    done = mlp("eval", directory, "--quiet")
    assert done.code in (3, 6)
    assert "Internal error" not in done.err


def test_edited_files_of_a_run_never_end_in_an_internal_error(run, request):
    _, config, directory, newest, _ = run
    kept = newest.read_bytes()
    good("train", config, "--out", directory, "--resume", "--quiet")
    summary = json.loads((directory / "summary.json").read_text())
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    values = (
        None,
        True,
        "",
        "\ud800\x1b[31m",
        -1,
        2.5,
        math.nan,
        math.inf,
        10**30,
        [],
        [[]],
        {},
        {"x": {"y": 1}},
        MISSING,
    )
    chance = random.Random(1)
    for place in some(places(summary), request, 12):
        changed = put(summary, place, chance.choice(values))
        (directory / "summary.json").write_text(json.dumps(changed))
        good("inspect", directory, *chance.choice([(), ("--json",)]))
    for place in some(places(lines), request, 8):
        _restore(directory, newest, kept)
        changed = put(lines, place, chance.choice(values))
        (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in changed))
        good("train", config, "--out", directory, "--resume", "--quiet")


@pytest.mark.parametrize("name", ["summary.json", "metrics.jsonl"])
def test_pipes_in_the_place_of_files_do_not_hang(run, name):
    _, config, directory, _, _ = run
    (directory / name).unlink()
    os.mkfifo(directory / name)
    if name == "summary.json":
        done, code = finish(start("inspect", directory), timeout=20), 6
    else:
        done, code = finish(start("train", config, "--out", directory, "--resume"), timeout=20), 5
    assert done.code == code
    assert f"{name}: " in done.err
