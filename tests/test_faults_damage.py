"""Files of a run that are cut short, flipped or zeroed: a sentence or the very content, no garbage and no traceback."""

import contextlib
import json
import random
import shutil

import numpy as np
import pytest
from cli import blobs, checkpoints, classifier, epochs, good, mlp, result, summary

from mlp_cli.errors import CheckpointError
from mlp_cli.model import Model
from mlp_cli.runs import checkpoint

FLIPS = 1000
SECTOR = 512


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The config and the directory of a finished run whose best epoch lies behind; both are to be left as they are."""
    folder = tmp_path_factory.mktemp("damage")
    config = classifier(
        folder / "c.yaml", blobs(folder / "d.csv"), learning_rate=0.5,
        training={"epochs": 6, "batch_size": 8, "checkpoint": {"every_epochs": 1}},
    )  # fmt: skip
    good("train", config, "--out", folder / "run")
    assert summary(folder / "run")["best_epoch"] < 6
    return config, folder / "run"


@pytest.fixture
def run(trained, tmp_path):
    """A copy of that run to be damaged."""
    return shutil.copytree(trained[1], tmp_path / "run")


@pytest.fixture
def newest(run):
    """Its newest checkpoint."""
    return run / "checkpoints" / "step-0000000030.safetensors"


def refused(path):
    with pytest.raises(CheckpointError) as caught:
        checkpoint.read(path)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path}: ")
    assert "\n" not in sentence


def flipped(content, bits):
    damaged = bytearray(content)
    for bit in bits:
        damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def test_a_checkpoint_cut_short_anywhere(newest):
    whole = newest.read_bytes()
    assert len(whole) > 5000
    for length in range(len(whole) - 1, -1, -1):
        with open(newest, "r+b") as file:
            file.truncate(length)
        refused(newest)


def test_a_checkpoint_with_a_flipped_bit(newest, soak):
    whole = newest.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    chance = random.Random(0)
    # half of them where structure is, half of them where numbers are
    bits = [chance.randrange(8 * header) for _ in range(FLIPS // 2)]
    bits += [chance.randrange(8 * header, 8 * len(whole)) for _ in range(FLIPS // 2)]
    for bit in range(8 * len(whole)) if soak else bits:
        newest.write_bytes(flipped(whole, [bit]))
        refused(newest)


def test_a_checkpoint_with_lost_sectors(newest):
    whole = newest.read_bytes()
    chance = random.Random(0)
    for start in range(0, len(whole), SECTOR):
        end = min(start + SECTOR, len(whole))
        others = chance.randbytes(end - start), bytes(end - start), whole[:SECTOR][: end - start]
        for sector in others:
            damaged = whole[:start] + sector + whole[end:]
            newest.write_bytes(damaged)
            if damaged == whole:
                assert checkpoint.is_valid(newest)
            else:
                refused(newest)


def test_damage_that_commands_meet(trained, run, newest):
    config, _ = trained
    whole, undisturbed = newest.read_bytes(), result(run)
    chance = random.Random(0)
    best = run / "checkpoints" / "best.safetensors"
    damages = [flipped(whole, [chance.randrange(8 * len(whole))]) for _ in range(6)]
    damages += [whole[: chance.randrange(len(whole))] for _ in range(6)]
    for damaged in damages:
        newest.write_bytes(damaged)
        for command in (("eval", newest), ("predict", newest, config.with_name("d.csv")), ("inspect", newest)):
            done = mlp(*command)
            assert done.code == 6, done.err
            assert done.err.startswith(f"{newest}: ")
            assert done.err.count("\n") == 1
            assert done.out == ""
        assert "damaged" in good("inspect", run).out
        # training goes on from the one before
        done = good("train", config, "--out", run, "--resume")
        assert f"Warning: skipped a checkpoint that cannot be used: {newest}: " in done.err
        assert "Resuming at step 25 " in done.err
        assert result(run) == undisturbed
        assert checkpoint.is_valid(best)


@pytest.mark.parametrize("name", ["metrics.jsonl", "config.yaml", "summary.json", "lock"])
def test_other_files_of_a_run_that_are_damaged(trained, run, name):
    config, _ = trained
    undisturbed, lines = checkpoints(run), epochs(run)
    whole = (run / name).read_bytes()
    chance = random.Random(name)
    damages = [whole[: chance.randrange(len(whole))] for _ in range(10)]
    damages += [flipped(whole, [chance.randrange(8 * len(whole)) for _ in range(3)]) for _ in range(10)]
    damages += [b"", bytes(len(whole)), chance.randbytes(len(whole)), b"[" * 10_000, b"null\n", b"{}\n"]
    for damaged in damages:
        (run / name).write_bytes(damaged)
        good("inspect", run)
        done = good("train", config, "--out", run, "--resume")
        assert checkpoints(run) == undisturbed
        if name != "metrics.jsonl":
            assert epochs(run) == lines
        elif missing := len(lines) - len(readable(run / name)):
            assert f"metrics.jsonl: {missing} lines are missing" in done.err


def readable(path):
    """The lines of a diary that are still records."""
    records = []
    for line in path.read_bytes().splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            records.append(json.loads(line))
    return [record for record in records if isinstance(record, dict) and "epoch" in record]


def test_contents_that_do_not_hold_together(newest):
    """A digest proves who wrote a file, not that its writer is of this version: what is in it may still be anything."""
    found = checkpoint.read(newest)
    chance = random.Random(0)
    sentences = []
    for _ in range(400):
        key = chance.choice(sorted(found.meta))
        meta = {**found.meta, key: meta_changed(found.meta[key], chance)}
        checkpoint.write(newest, tensors_changed(found.tensors, chance), meta)
        try:
            Model.open(newest)
        except CheckpointError as error:
            sentences.append(str(error))
    assert 10 < len(sentences) < 390
    assert all(sentence.startswith(f"{newest}: ") and "\n" not in sentence for sentence in sentences)


def meta_changed(meta, chance):
    """The metadata with one value somewhere in it replaced or left out."""
    if isinstance(meta, dict) and meta and chance.random() < 0.9:
        key = chance.choice(sorted(meta))
        if chance.random() < 0.2:
            return {name: value for name, value in meta.items() if name != key}
        return {**meta, key: meta_changed(meta[key], chance)}
    if isinstance(meta, list) and meta and chance.random() < 0.9:
        at = chance.randrange(len(meta))
        return [*meta[:at], meta_changed(meta[at], chance), *meta[at + 1 :]]
    return chance.choice([None, True, 0, -1, 3, 10**30, 0.5, "", "relu", [], [1], {}, {"name": "x"}])


def tensors_changed(tensors, chance):
    """The arrays with one of them left out, or of another shape or type."""
    if chance.random() < 0.7:
        return tensors
    name = chance.choice(sorted(tensors))
    others = {other: array for other, array in tensors.items() if other != name}
    array = tensors[name]
    change = chance.choice([None, array[:0], array.reshape(-1), array.astype(np.int8), np.zeros((2, 2))])
    return others if change is None else others | {name: change}
