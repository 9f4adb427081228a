"""What is fuzzed: each target reads bytes as a hostile file and lets nothing pass but a result or one sentence.

`run.py` lets a coverage-guided fuzzer loose on a target; `tests/test_fuzz_cases.py` gives each the cases that were
kept.
"""

import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

from mlp_cli.config.schema_data import Data
from mlp_cli.errors import CheckpointError, ConfigError, DataError, MlpError, SystemFault

FOLDER = Path(tempfile.mkdtemp(prefix="mlp-fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
LONGEST_SENTENCE = 2000

# What the first byte of a data file chooses.
TARGETS = (None, "y", 0, ["a", "b"])
OPTIONS = (
    {},
    {"comment": "#", "missing": "drop", "split": {"validation": 0.3}},
    {"missing": "mean", "numeric": "robust", "unseen": "ignore"},
    {"header": True, "missing": "indicator", "numeric": "quantile"},
    {"header": False, "decimal": ",", "delimiter": ";"},
    {"encoding": "latin-1", "missing": "median", "numeric": "minmax"},
    {"encoding": "utf-16", "missing": "drop"},
    {"names": ["a", "b", "y"], "sample_weight": "a", "task": "regression", "target_scaling": "standard"},
)

# What a value of a checkpoint's description is replaced by.
VALUES = (
    None, True, False, 0, -1, 1, 2, 7, 10**9, 2**63, 10**30, 0.5, -0.0, 1e308, "", "x", "relu", "softmax", "float64",
    "numeric", "\x1b[31m", [], {}, [[]], [None], [0], ["a"], ["a", "a"], {"": None}, {"name": "x"}, {"name": None},
)  # fmt: skip


def config(content: bytes) -> None:
    """A config file. What is accepted must come back the same when it is written and read again."""
    from mlp_cli.config import dump, load

    path = FOLDER / "config.yaml"
    path.write_bytes(content)
    try:
        found = load([path])
    except ConfigError as error:
        _check_sentences(error)
        return
    path.write_text(dump(found), encoding="utf-8")
    assert load([path]) == found


def table(content: bytes) -> None:
    """A text table, behind a byte that chooses how it is to be read."""
    _load(content[1:], content[:1], "table.csv")


def arrays(content: bytes) -> None:
    """A .npy, .npz or IDX file, or a pair of them where the first byte says how long the first is."""
    _load(content[1:], content[:1], "arrays.npy")


def checkpoint(content: bytes) -> None:
    """A checkpoint file, byte for byte."""
    from mlp_cli.runs.checkpoint import read

    path = FOLDER / "raw.safetensors"
    path.write_bytes(content)
    try:
        read(path)
    except (CheckpointError, SystemFault) as error:
        _check_sentences(error)


def description(content: bytes) -> None:
    """A checkpoint whose digest is right and whose description or arrays are not: `content` chooses the changes.

    Four bytes for each: where, what with, how, and which array.
    """
    from mlp_cli.evaluation import evaluate
    from mlp_cli.model import Model
    from mlp_cli.prediction import predict
    from mlp_cli.runs import checkpoint as checkpoints

    path = FOLDER / "described.safetensors"
    tensors, meta = _good_checkpoint()
    for start in range(0, min(len(content), 16) - 3, 4):
        where, what, how, which = content[start : start + 4]
        if how % 4 == 3:
            _change_array(tensors, which, what)
        else:
            _change_value(meta, where + 256 * which, what, how % 4)
    try:
        checkpoints.write(path, tensors, meta)
    except ValueError:  # what no checkpoint can hold
        return
    try:
        model = Model.open(path)
        batch = model.preprocessing.transform(_good_rows(), need_target=True)
        machine = model.machine(1)
        try:
            evaluate(machine, model, batch)
            list(predict(machine, model, batch)[1])
        finally:
            machine.close()
    except MlpError as error:
        _check_sentences(error)


ALL = {function.__name__: function for function in (config, table, arrays, checkpoint, description)}


def _load(content: bytes, first: bytes, name: str) -> None:
    """Data as training reads them. What comes out is finite, and can be read again by what was learnt."""
    from mlp_cli import data
    from mlp_cli.data import sources

    number = first[0] if first else 0
    path = source = FOLDER / name
    if not name.startswith("arrays"):
        options = {"target": TARGETS[number % 4], **OPTIONS[number // 4 % 8]}
    else:
        options = {"missing": "drop", "split": {"validation": 0.5}} if number % 2 else {"missing": "mean"}
    if name.startswith("arrays") and number > 128:
        source = path.with_suffix(".x"), path.with_suffix(".y")
        for part, bytes_of_it in zip(source, (content[:number], content[number:]), strict=True):
            part.write_bytes(bytes_of_it)
        options["train"] = {"x": str(source[0]), "y": str(source[1])}
    else:
        path.write_bytes(content)
        options["path"] = str(path)
    options = Data.model_validate(options)
    try:
        rows = sources.read(source, data.Reading.of(options))
        assert rows.where(0)
        assert rows.where(rows.rows - 1)
        found = data.load(options, 0, "float32", bool(number % 3))
        for part in (found.train, found.validation):
            if part is not None:
                assert np.isfinite(part.x).all()
                assert np.isfinite(part.target).all()
                if found.task.classes:
                    assert part.target.min() >= 0
                    assert part.target.max() < len(found.task.classes)
        facts, numbers = found.preprocessing.state()
        again = data.Preprocessing.from_state(json.loads(json.dumps(facts)), numbers)
        batch = again.transform(source, need_target=True)
        assert np.isfinite(batch.x).all()
    except (DataError, SystemFault) as error:
        _check_sentences(error)


def _check_sentences(error: MlpError) -> None:
    lines = str(error).split("\n")
    assert len(lines) == 1 or isinstance(error, ConfigError), lines
    assert all(line.strip() and len(line) < LONGEST_SENTENCE for line in lines), lines


_good: list = []


def _good_rows() -> Path:
    path = FOLDER / "rows.csv"
    if not path.exists():
        words = ("red", "green", "blue")
        lines = [f"{i % 5},{words[i % 3]},{'' if i % 7 == 3 else i / 2},{'ash' if i % 2 else 'oak'}" for i in range(24)]
        path.write_text("\n".join(["a,b,c,y", *lines]) + "\n")
    return path


def _good_checkpoint() -> tuple[dict, dict]:
    """Arrays and description of a small network's checkpoint, copies that may be spoilt."""
    if not _good:
        from mlp_cli.config import load
        from mlp_cli.model import Model, load_data
        from mlp_cli.progress import Progress
        from mlp_cli.saved import TOTALS

        path = FOLDER / "good.yaml"
        layers = "[{units: 3, activation: relu}, {kind: batch_norm}, {activation: softmax}]"
        path.write_text(f"data: {{path: {_good_rows()}, missing: indicator}}\nnetwork: {{layers: {layers}}}\n")
        config = load([path])
        dataset = load_data(config)
        model = Model.new(config, dataset)
        model.network.start_optimizer()
        meta, tensors = model.state()
        tensors |= model.network.optimizer_tensors() | {TOTALS: np.zeros(model.coding.totals_size)}
        _good.append((meta | {"position": asdict(Progress()), "fingerprint": dataset.fingerprint}, tensors))
    meta, tensors = _good[0]
    return {name: array.copy() for name, array in tensors.items()}, json.loads(json.dumps(meta))


def _change_array(tensors: dict, which: int, what: int) -> None:
    name = sorted(tensors)[which % len(tensors)]
    array = tensors[name]
    with np.errstate(invalid="ignore"):
        changed = (
            None, array[:-1], array.astype(np.float64), array.astype(np.int32), array.reshape(-1), array[None],
            array * np.nan, array * np.inf, np.zeros((0,), array.dtype),
        )[what % 9]  # fmt: skip
    if changed is None:
        del tensors[name]
    else:
        tensors[name] = changed


def _change_value(meta: dict, where: int, what: int, how: int) -> None:
    """Replace, delete or add at one of all places in the description."""
    places = list(_places(meta))
    holder, key = places[where % len(places)]
    value = json.loads(json.dumps(VALUES[what % len(VALUES)]))
    if how == 0:
        holder[key] = value
    elif how == 1:
        del holder[key]
    elif isinstance(holder, dict):
        holder[str(value)] = value
    else:
        holder.append(value)


def _places(value):
    """(container, key) of everything within a value."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])
