"""Random small configs over the whole vocabulary: each trains, or is refused or diverges in one sentence."""

import json
import math
import random

import pytest
from cli import blobs, checkpoints, epochs, good, mlp, slopes, summary, timeless, write_config, write_csv

from mlp_cli import vocab

ACTIVATIONS = sorted(vocab.ACTIVATIONS)
LOSSES = sorted(vocab.LOSSES)
OPTIMIZERS = sorted(vocab.OPTIMIZERS)
INITIALIZERS = sorted(vocab.INITIALIZERS)

INIT_OPTIONS = {"constant": {"value": 0.1}, "normal": {"std": 0.3}, "truncated_normal": {"std": 0.5}}
SCHEDULES = {
    "constant": {"initial": 0.01},
    "step": {"initial": 0.01, "every": 1, "gamma": 0.5},
    "multistep": {"initial": 0.01, "milestones": [0.5, 1], "gamma": 0.5},
    "exponential": {"initial": 0.01, "gamma": 0.9},
    "polynomial": {"initial": 0.01, "power": 2},
    "cosine": {"initial": 0.01, "final": 0.001},
    "cosine_restarts": {"initial": 0.01, "period": 1},
    "one_cycle": {"peak": 0.02},
    "flat_cosine": {"initial": 0.01},
    "coslog": {"initial": 0.01, "cycles": 2},
    "plateau": {"initial": 0.01},
    "inverse_time": {"c1": 0.5, "c2": 50},
    "inverse_scaling": {"initial": 0.01, "power": 0.5},
}


def mixed(path, classes):
    """40 rows of numbers with holes and words, a weight, two numeric targets, and one of `classes`."""
    chance = random.Random(7)
    rows = []
    for i in range(40):
        a, b = chance.gauss(0, 1), chance.uniform(0, 10)
        label = f"c{(a > 0) + 2 * (b > 5) * (classes > 2)}"
        hole = "" if i % 13 == 5 else f"{a:.3f}"
        rows.append(
            (hole, f"{b:.2f}", chance.choice(["red", "green", "blue"]), 1 + i % 3, f"{a + b:.3f}", f"{b:.3f}", label)
        )
    return write_csv(path, ["a", "b", "colour", "w", "y", "z", "label"], rows)


def activation(chance):
    name = chance.choice(ACTIVATIONS)
    if name in ("softmax", "leaky_relu", "elu") and chance.random() < 0.5:
        return {"name": name, "alpha": 0.5}
    return name


def init(chance):
    name = chance.choice(INITIALIZERS)
    return {"name": name, **INIT_OPTIONS.get(name, {})}


def dense(chance, units):
    layer = {"units": units, "activation": activation(chance), "init": init(chance), "bias_init": init(chance)}
    if chance.random() < 0.2:
        layer["dropout"] = 0.25
    if chance.random() < 0.1:
        layer["freeze"] = True
    return layer


def layers(chance, depth=0):
    """Up to three layers, blocks among them, which keep or change the width."""
    made = []
    for _ in range(chance.randint(1, 2 if depth else 3)):
        kind = chance.choice(vocab.LAYERS)
        width = chance.choice([1, 3, 6, 17])
        if kind == "dense":
            made.append(dense(chance, width))
        elif kind == "residual":
            made += [dense(chance, 5), {"kind": kind, "layers": [dense(chance, width), dense(chance, 5)]}]
        elif kind == "concat":
            made.append({"kind": kind, "layers": layers(chance, depth + 1) if depth < 2 else [dense(chance, 2)]})
        elif kind == "highway":
            made.append({"kind": kind, "activation": activation(chance), "init": init(chance)})
        elif kind == "positional_encoding":
            made.append({"kind": kind, "frequencies": 2})
        else:
            made.append({"kind": kind})
    return made


# Losses with the output activations that go with them; and any pair in one config of four.
REGRESSION = ["quadratic", "half_quadratic", "mse", "mae", "huber", "log_cosh", "quantile", "poisson"]
CLASSES = [
    ("softmax", "cross_entropy"),
    ("softmax", "focal"),
    ("sigmoid", "binary_cross_entropy"),
    ("sigmoid", "focal"),
    ("linear", "hinge"),
    ("tanh", "squared_hinge"),
    ("softmax", "quadratic"),
    ("hardmax", "half_quadratic"),
    ("threshold", "half_quadratic"),
    ("hard_sigmoid", "mse"),
]


def random_config(seed, folder):
    """A config that may or may not make sense."""
    chance = random.Random(seed)
    data = {"path": str(mixed(folder / "d.csv", chance.choice([2, 4])))}
    data["missing"] = chance.choice(["mean", "median", "indicator", "drop", {"name": "constant", "value": 0}])
    data["numeric"] = chance.choice(["standard", "minmax", "robust", "quantile", {"name": "divide", "by": 10}])
    if chance.random() < 0.5:
        data["split"] = {"validation": 0.2, "test": 0.2}
    if chance.random() < 0.3:
        data["sample_weight"] = "w"
    classes = chance.random() < 0.6
    if classes:
        data |= {"target": "label", "exclude": ["y", "z"]}
        output, loss = chance.choice(CLASSES)
        if loss in ("hinge", "squared_hinge"):
            data["target_coding"] = "bipolar"
    else:
        data |= {"target": chance.choice(["y", ["y", "z"]]), "exclude": ["label"]}
        if isinstance(data["target"], str):
            data["exclude"].append("z")
        data["target_scaling"] = chance.choice(["none", "standard", "minmax"])
        loss = chance.choice(REGRESSION)
        output = "exponential" if loss == "poisson" else "linear"
        if loss == "poisson":
            data["target_scaling"] = "none"
    if chance.random() < 0.25:
        output, loss = chance.choice(ACTIVATIONS), chance.choice(LOSSES)
    schedule = chance.choice(sorted(SCHEDULES))
    rate = {"schedule": schedule, **SCHEDULES[schedule]}
    if chance.random() < 0.3:
        rate["warmup_epochs"] = 0.5
    optimizer = {"name": chance.choice(OPTIMIZERS)}
    if chance.random() < 0.3:
        optimizer["clip_norm"] = 1.0
    if chance.random() < 0.2:
        optimizer["clip_value"] = 0.5
    return {
        "seed": seed,
        "dtype": chance.choice(["float32", "float32", "float64"]),
        "data": data,
        "network": {
            "input": {"dropout": chance.choice([0, 0, 0.2]), "noise": chance.choice([0, 0, 0.1])},
            "layers": [*layers(chance), {"activation": output, "init": init(chance)}],
        },
        "loss": {"name": loss, "reduction": chance.choice(["mean", "mean", "sum"])},
        "optimizer": optimizer,
        "learning_rate": rate,
        "regularization": {
            "l1": chance.choice([0, 1e-3]),
            "l2": chance.choice([0, 1e-3]),
            "max_norm": chance.choice([None, 1.0]),
        },
        "training": {
            "epochs": 2,
            "batch_size": chance.choice([1, 5, 8, "full"]),
            "sampling": chance.choice(
                ["shuffle", "sequential", "with_replacement", {"name": "shuffle", "block_rows": 4}]
            ),
            "on_divergence": chance.choice(["stop", "rollback"]),
        },
    }


@pytest.mark.parametrize("seed", range(60))
def test_random_config(tmp_path, seed):
    sections = random_config(seed, tmp_path)
    config = write_config(tmp_path / "c.yaml", **sections)
    out = tmp_path / "run"
    done = mlp("train", config, "--out", out, "--quiet")
    assert done.code in (0, 2, 4), (done.err, json.dumps(sections))
    assert "Internal error" not in done.err
    assert "Traceback" not in done.err
    if done.code:
        assert done.out == ""
        assert done.err.startswith(f"{config}:" if done.code == 2 else "Diverged: "), done.err
        return
    metrics = summary(out)["metrics"]
    for split in metrics.values():
        assert all(value is not None and math.isfinite(value) for value in split.values()), json.dumps(sections)
    # again with threads, from its own config; and its own measurements
    good("train", out / "config.yaml", "--out", tmp_path / "again", "--threads", 3)
    assert checkpoints(tmp_path / "again") == checkpoints(out)
    assert timeless(epochs(tmp_path / "again")) == timeless(epochs(out))
    split = list(metrics)[-1]
    assert good("eval", out, "--split", split, "--json").json["metrics"] == metrics[split]
    lines = good("predict", out, tmp_path / "d.csv").out.splitlines()
    assert len(lines) == 41
    assert "nan" not in "".join(lines[1:])


def test_most_random_configs_make_sense(tmp_path):
    refused = 0
    for seed in range(60):
        config = write_config(tmp_path / "c.yaml", **random_config(seed, tmp_path))
        refused += mlp("inspect", config).code != 0
    assert refused < 20


@pytest.mark.parametrize("seed", range(12))
def test_the_gradients_of_random_configs(tmp_path, seed):
    config = write_config(tmp_path / "c.yaml", **random_config(1000 + seed, tmp_path))
    done = mlp("check", config)
    assert done.code in (0, 2), done.out + done.err


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_learns_something(tmp_path, name):
    data = blobs(tmp_path / "d.csv")
    config = write_config(
        tmp_path / "c.yaml",
        data={"path": str(data)},
        network={"layers": [{"units": 8, "activation": name}, {"activation": "softmax"}]},
        learning_rate=0.05,
        training={"epochs": 30, "batch_size": 10},
    )
    good("train", config, "--out", tmp_path / "run")
    assert summary(tmp_path / "run")["metrics"]["train"]["accuracy"] > 0.6


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_lowers_the_loss_at_its_default_rate(tmp_path, name):
    data = slopes(tmp_path / "d.csv")
    config = write_config(
        tmp_path / "c.yaml",
        data={"path": str(data), "target_scaling": "standard"},
        network={"layers": [{"units": 6, "activation": "tanh"}, {}]},
        optimizer=name,
        training={"epochs": 40, "batch_size": "full" if name == "rprop" else 5},
    )
    good("train", config, "--out", tmp_path / "run")
    records = epochs(tmp_path / "run")
    assert records[-1]["train"]["loss"] < records[0]["train"]["loss"]
