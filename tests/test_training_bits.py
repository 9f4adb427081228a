"""One config, one result: twice, with any number of threads, from any format, and again by `mlp eval`."""

import gzip
import shutil
import struct

import numpy as np
import pytest
from cli import (
    blobs,
    classifier,
    epochs,
    good,
    regressor,
    result,
    slopes,
    start,
    summary,
    timeless,
    write_config,
    write_csv,
)
from cli import finish as wait

pytestmark = pytest.mark.smoke

CONFIGS = {
    "plain": {},
    "wide enough to share": {
        "network": {"layers": [{"units": 300, "activation": "relu"}, {"units": 300}, {"activation": "softmax"}]},
        "training": {"epochs": 1, "batch_size": "full"},
    },
    "dropout, noise and batch_norm": {
        "network": {
            "input": {"dropout": 0.2, "noise": 0.1},
            "layers": [{"units": 130, "activation": "gelu"}, {"kind": "batch_norm"}, {"activation": "softmax"}],
        }
    },
    "blocks": {
        "network": {
            "layers": [
                {"units": 80, "activation": "tanh"},
                {"kind": "residual", "layers": [{"kind": "layer_norm"}, {"units": 80, "activation": "silu"}]},
                {"kind": "highway", "activation": "relu"},
                {"kind": "concat", "layers": [{"units": 7, "activation": "sin"}]},
                {"activation": "softmax"},
            ]
        },
        "optimizer": {"name": "adamw", "clip_norm": 0.5},
        "regularization": {"l1": 1e-4, "l2": 1e-3, "max_norm": 2.0},
    },
    "samples one by one": {"optimizer": {"name": "sgd", "momentum": 0.9}, "training": {"epochs": 2, "batch_size": 1}},
    "float64": {"dtype": "float64", "optimizer": "nadam"},
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_same_bits_twice_and_with_any_number_of_threads(tmp_path, name):
    data = blobs(tmp_path / "trees.csv", rows=400, features=5)
    config = classifier(tmp_path / "c.yaml", data, **CONFIGS[name])
    for threads in (1, 1, 2, 4):
        out = tmp_path / f"{threads}-threads"
        good("train", config, "--out", out, "--threads", threads, "--force")
        found = result(out)
        assert found == result(tmp_path / "1-threads")
    # more than one thread has really worked
    if name == "wide enough to share":
        assert summary(out)["threads"] > 1


def test_same_bits_in_another_process(tmp_path):
    config = classifier(tmp_path / "c.yaml", blobs(tmp_path / "trees.csv"), **CONFIGS["blocks"])
    good("train", config, "--out", tmp_path / "here")
    there = wait(start("train", config, "--out", tmp_path / "there", "--quiet", environment={"PYTHONHASHSEED": "7"}))
    assert (there.code, there.err) == (0, "")
    assert result(tmp_path / "here") == result(tmp_path / "there")


def test_the_seed_changes_everything(tmp_path):
    config = classifier(tmp_path / "c.yaml", blobs(tmp_path / "trees.csv"))
    good("train", config, "--out", tmp_path / "a")
    good("train", config, "seed=4", "--out", tmp_path / "b")
    assert summary(tmp_path / "a")["metrics"] != summary(tmp_path / "b")["metrics"]


# Formats


def idx(path, array):
    """An IDX file: unsigned bytes or big-endian floats."""
    code, kind = (8, ">u1") if array.dtype == np.uint8 else (13, ">f4")
    head = struct.pack(">HBB", 0, code, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    content = head + array.astype(kind).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.fixture
def numbers(tmp_path):
    """40 small images of 3 x 2 bytes, and which of three classes each is."""
    chance = np.random.default_rng(1)
    y = (np.arange(40) % 3).astype(np.uint8)
    x = (chance.integers(0, 120, (40, 3, 2)) + 60 * y[:, None, None]).astype(np.uint8)
    return x, y


def data_of(format, tmp_path, x, y):
    """The `data` section for the numbers in some format."""
    flat = x.reshape(len(x), -1)
    if format in ("idx", "idx.gz"):
        suffix = ".gz" if format.endswith("gz") else ""
        pair = idx(tmp_path / f"x-idx3-ubyte{suffix}", x), idx(tmp_path / f"y-idx1-ubyte{suffix}", y)
        return {"train": {"x": str(pair[0]), "y": str(pair[1])}}
    if format == "npy":
        np.save(tmp_path / "x.npy", flat)
        np.save(tmp_path / "y.npy", y)
        return {"train": {"x": str(tmp_path / "x.npy"), "y": str(tmp_path / "y.npy")}}
    if format == "npz":
        np.savez(tmp_path / "both.npz", x=flat, y=y)
        return {"path": str(tmp_path / "both.npz")}
    path = tmp_path / f"table.{format.removesuffix('.gz')}"
    separator = "\t" if "tsv" in format else ","
    lines = [[f"p{i}" for i in range(6)] + ["kind"], *([*row, label] for row, label in zip(flat, y, strict=True))]
    path.write_text("\n".join(separator.join(map(str, line)) for line in lines) + "\n")
    if format.endswith("gz"):
        with open(path, "rb") as plain, gzip.open(f"{path}.gz", "wb") as packed:
            shutil.copyfileobj(plain, packed)
        path = tmp_path / f"{path.name}.gz"
    return {"path": str(path)}


@pytest.mark.parametrize("format", ["csv", "csv.gz", "tsv", "npy", "npz", "idx", "idx.gz"])
def test_every_format_gives_the_same_result_and_eval_repeats_it(tmp_path, numbers, format):
    metrics = []
    for kind in ("csv", format):
        config = write_config(
            tmp_path / f"{kind}.yaml",
            data=data_of(kind, tmp_path, *numbers) | {"split": {"test": 0.3, "validation": 0.2}},
            network={"layers": [{"units": 5, "activation": "relu"}, {"activation": "softmax"}]},
            training={"epochs": 2, "batch_size": 4},
        )
        out = tmp_path / f"run-{kind}"
        if not out.exists():
            good("train", config, "--out", out)
        metrics.append((timeless(epochs(out)), summary(out)["metrics"]))
        eval_repeats(out)
    assert metrics[0] == metrics[1]


def eval_repeats(run):
    """`mlp eval` gives the floats of summary.json for every split, with any number of threads."""
    found = summary(run)["metrics"]
    assert found
    for split, metrics in found.items():
        for threads in (1, 3):
            done = good("eval", run, "--split", split, "--json", "--threads", threads)
            assert done.json["metrics"] == metrics
            assert done.json["split"] == split
    return found


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_eval_repeats_a_classifier(tmp_path, dtype):
    data = blobs(tmp_path / "trees.csv", rows=80, classes=tuple("abcdefg"))
    config = classifier(tmp_path / "c.yaml", data, dtype=dtype, loss={"name": "focal", "label_smoothing": 0.1})
    good("train", config, "--out", tmp_path / "run")
    found = eval_repeats(tmp_path / "run")
    assert "top_5_accuracy" in found["test"]


@pytest.mark.parametrize("scaling", ["none", "standard", "minmax"])
@pytest.mark.parametrize("targets", [1, 2])
def test_eval_repeats_a_regression(tmp_path, targets, scaling):
    data = slopes(tmp_path / "d.csv", targets=targets)
    names = ["y"] if targets == 1 else ["y0", "y1"]
    section = {"path": str(data), "target": names, "target_scaling": scaling, "split": {"validation": 0.2, "test": 0.2}}
    config = regressor(tmp_path / "c.yaml", data, data=section, loss="huber")
    good("train", config, "--out", tmp_path / "run")
    found = eval_repeats(tmp_path / "run")
    assert set(found["test"]) == {"loss", "rmse", "mae", "r2"} | (
        {f"{metric}.{name}" for metric in ("rmse", "mae", "r2") for name in names} if targets > 1 else set()
    )


def test_eval_repeats_with_weights_noise_and_dropped_rows(tmp_path):
    rows = [
        (f"{i % 7}" if i % 9 else "?", "abc"[i % 3] if i % 11 else "", f"{0.5 + i % 2}", "yes" if i % 7 > 2 else "no")
        for i in range(70)
    ]
    data = write_csv(tmp_path / "d.csv", ["number", "letter", "weight", "answer"], rows)
    config = write_config(
        tmp_path / "c.yaml",
        data={
            "path": str(data),
            "missing": "drop",
            "sample_weight": "weight",
            "split": {"validation": 0.2, "test": 0.2},
        },
        network={
            "input": {"dropout": 0.1, "noise": 0.1},
            "layers": [{"units": 4, "dropout": 0.2}, {"kind": "batch_norm"}, {"activation": "sigmoid"}],
        },
        loss={"name": "binary_cross_entropy", "class_weights": "balanced"},
        training={"epochs": 2},
    )  # fmt: skip
    good("train", config, "--out", tmp_path / "run")
    eval_repeats(tmp_path / "run")


def test_eval_of_the_training_file_is_that_of_its_rows(tmp_path):
    data = blobs(tmp_path / "trees.csv")
    config = classifier(tmp_path / "c.yaml", data, data={"path": str(data)})
    good("train", config, "--out", tmp_path / "run")
    assert (
        good("eval", tmp_path / "run", data, "--json").json["metrics"] == summary(tmp_path / "run")["metrics"]["train"]
    )
