"""Small runs that together use every word of the vocabulary; as a program, it trains them and predicts with them.

`python everything.py FOLDER WORLD NAMES [--threads N] [key=value ...]` trains those of FOLDER in the process' world, as
FOLDER/WORLD/NAME, and prints what each left behind.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
from cli import epochs, good, summary, timeless, write_config

ROWS, INPUTS = 400, 12
WEIGHT, KIND, FIRST, SECOND = range(INPUTS, INPUTS + 4)  # the columns behind the inputs
COLUMNS = {
    "classes": {"target": KIND},
    "weighed classes": {"target": KIND, "sample_weight": WEIGHT},
    "counts": {"target": KIND, "task": "regression"},
    "numbers": {"target": FIRST},
    "two numbers": {"target": [FIRST, SECOND], "sample_weight": WEIGHT, "target_scaling": "standard"},
}


def run(columns, layers, loss, optimizer, rate, *, data=None, inputs=None, penalty=None, **rest):
    """The sections of a config: layers of about 10 000 weights and batches of 60 rows, for eight threads."""
    training = {"epochs": 4, "batch_size": 60, "checkpoint": {"every_steps": 5}} | rest.pop("training", {})
    return {
        "data": COLUMNS[columns] | {"features": list(range(INPUTS)), "split": {"validation": 0.2, "test": 0.2}}
        | (data or {}),
        "network": {"layers": layers, "input": inputs or {}},
        "loss": loss,
        "optimizer": optimizer,
        "learning_rate": rate,
        "regularization": penalty or {},
        "training": training,
        **rest,
    }  # fmt: skip


RUNS = {
    "sgd": run(
        "classes",
        [
            {"kind": "dense", "units": 100, "activation": "relu", "dropout": 0.2, "init": "he_normal"},
            {"units": 80, "activation": "tanh", "init": "glorot_uniform", "bias_init": "zeros"},
            {"activation": "softmax"},
        ],
        {"name": "cross_entropy", "label_smoothing": 0.1},
        {"name": "sgd", "momentum": 0.9, "nesterov": True, "clip_norm": 1.0},
        {"schedule": "step", "initial": 0.1, "every": 1, "gamma": 0.7},
        penalty={"l2": 1e-3},
        training={"sampling": "sequential"},
    ),
    "adagrad": run(
        "weighed classes",
        [
            {"units": 96, "activation": "gelu", "init": "he_uniform"},
            {"kind": "residual", "layers": [{"kind": "layer_norm"}, {"units": 96, "init": "orthogonal"}]},
            {"activation": "softmax", "init": {"name": "normal", "std": 0.1}},
        ],
        {"name": "focal", "gamma": 1.5},
        "adagrad",
        {"schedule": "multistep", "initial": 0.05, "milestones": [1, 3], "gamma": 0.5},
        inputs={"noise": 0.3},
        data={"numeric": "minmax"},
        training={"sampling": "with_replacement"},
    ),
    "adadelta": run(
        "classes",
        [
            {"units": 72, "activation": "selu", "init": "lecun_normal"},
            {"kind": "highway", "activation": "elu", "dropout": 0.1},
            {"activation": "sigmoid", "init": "lecun_uniform"},
        ],
        {"name": "binary_cross_entropy", "class_weights": "balanced"},
        {"name": "adadelta", "clip_value": 0.01},
        {"schedule": "exponential", "initial": 1.0, "gamma": 0.9},
        data={"numeric": "robust"},
    ),
    "rmsprop": run(
        "classes",
        [
            {"units": 80, "activation": "mish", "init": {"name": "truncated_normal", "std": 0.2}},
            {"kind": "concat", "layers": [{"units": 70, "activation": "leaky_relu"}, {"units": 70}]},
            {"kind": "batch_norm"},
            {"activation": "tanh"},
        ],
        "hinge",
        {"name": "rmsprop", "momentum": 0.5},
        {"schedule": "polynomial", "initial": 0.003, "power": 1.5, "final": 1e-4},
        data={"target_coding": "bipolar"},
        penalty={"l1": 1e-4},
    ),
    "adam": run(
        "classes",
        [
            {"units": 24, "activation": "silu"},
            {"kind": "positional_encoding", "frequencies": 2},
            {"units": 60, "activation": "softplus", "init": "glorot_normal"},
            {"kind": "batch_norm"},
            {"units": 60, "activation": "sigmoid", "dropout": 0.3},
            {"activation": "softmax"},
        ],
        "cross_entropy",
        {"name": "adam", "clip_norm": 0.5},
        {"schedule": "one_cycle", "peak": 0.05},
        inputs={"dropout": 0.2, "noise": 0.1},
        penalty={"max_norm": 1.5},
        training={"epochs": 9, "early_stopping": {"metric": "accuracy", "patience": 2}},
    ),
    "adamw": run(
        "two numbers",
        [{"units": 100, "activation": "softsign"}, {"units": 80, "activation": "hard_sigmoid"}, {}],
        "mse",
        "adamw",
        {"schedule": "cosine", "initial": 0.02, "warmup_epochs": 1},
    ),
    "adamax": run(
        "two numbers",
        [{"units": 100, "activation": "sin"}, {"units": 80, "activation": "gaussian"}, {}],
        {"name": "huber", "delta": 0.5, "reduction": "sum"},
        "adamax",
        {"schedule": "cosine_restarts", "initial": 0.002, "period": 1, "factor": 2},
        penalty={"weight_decay": 0.01},
    ),
    "nadam": run(
        "numbers",
        [{"units": 100, "activation": "hard_tanh", "dropout": 0.1}, {"units": 80, "activation": "tanh"}, {}],
        "log_cosh",
        "nadam",
        {"schedule": "flat_cosine", "initial": 0.01},
        data={"numeric": {"name": "divide", "by": 3}, "target_scaling": "minmax"},
    ),
    "radam": run(
        "counts",
        [{"units": 100, "activation": "exponential", "bias_init": {"name": "constant", "value": -1.0}}, {"units": 80},
         {"activation": "exponential"}],
        "poisson",
        "radam",
        {"schedule": "coslog", "initial": 0.005, "cycles": 2},
        data={"numeric": "quantile"},
    ),
    "lion": run(
        "numbers",
        [{"units": 100, "activation": "leaky_relu"}, {"units": 80, "activation": "linear"}, {}],
        {"name": "quantile", "q": 0.7},
        "lion",
        {"schedule": "plateau", "initial": 0.02, "factor": 0.5, "patience": 0, "metric": "rmse"},
        training={"epochs": 6, "sampling": {"name": "shuffle", "block_rows": 16}},
    ),
    "rprop": run(
        "two numbers",
        [{"units": 100, "activation": "tanh"}, {"units": 30, "activation": "relu"}, {}],
        "mae",
        "rprop",
        {"schedule": "constant", "initial": 0.001},
        training={"epochs": 8, "batch_size": "full"},
    ),
    "one by one": run(
        "classes",
        [{"units": 9, "activation": "tanh", "init": "uniform"}, {"activation": "sigmoid"}],
        "half_quadratic",
        "sgd",
        {"schedule": "inverse_time", "c1": 5, "c2": 20},
        training={"epochs": 2, "batch_size": 1, "checkpoint": {"every_steps": 100}},
    ),
    "winner takes all": run(
        "weighed classes",
        [{"units": 8, "activation": "threshold"}, {"units": 4, "activation": "softmax"}, {"activation": "hardmax"}],
        "quadratic",
        "adam",
        {"schedule": "inverse_scaling", "initial": 0.05, "power": 0.3},
        training={"epochs": 2, "batch_size": 1, "checkpoint": {"every_steps": 100}},
        data={"numeric": "none"},
    ),
    "float64": run(
        "classes",
        [
            {"units": 64, "activation": "gelu", "dropout": 0.1},
            {"kind": "highway", "activation": "mish"},
            {"kind": "layer_norm"},
            {"activation": "linear"},
        ],
        "squared_hinge",
        {"name": "adam", "clip_norm": 2.0},
        {"schedule": "cosine", "initial": 0.01},
        inputs={"noise": 0.1},
        training={"epochs": 4, "early_stopping": {"patience": 3}},
        dtype="float64",
    ),
}  # fmt: skip
SINGLE = ("one by one", "winner takes all")  # steps of one row, which threads do not share


def write_runs(folder: Path) -> Path:
    """The configs and the same numbers as table.npy and as table.csv."""
    random = np.random.default_rng(8)
    kind = np.arange(ROWS) % 3
    x = random.normal(size=(ROWS, INPUTS)) * np.linspace(0.1, 40, INPUTS) + 0.7 * kind[:, None]
    y = np.stack([x[:, 0] * 30 + x[:, 1] + 5, 1e4 * np.tanh(x[:, 2]) + random.normal(size=ROWS)], axis=1)
    table = np.column_stack([x, random.uniform(0.1, 3, ROWS), kind, y])
    np.save(folder / "table.npy", table)
    (folder / "table.csv").write_text("".join(",".join(map(repr, row)) + "\n" for row in table.tolist()))
    for name, sections in RUNS.items():
        write_config(folder / f"{name}.yaml", **sections)
    return folder


def train(folder: Path, name: str, out: Path, *arguments) -> None:
    """`mlp train` of one of the runs on table.npy, unless the arguments say otherwise."""
    good("train", folder / f"{name}.yaml", f"data.path={folder}/table.npy", *arguments, "--out", out, "--resume")


def left_by(run: Path, *rows) -> dict[str, str]:
    """Digests of all that two equal runs have in common: every checkpoint, diary, metrics, predictions."""
    found = {path.name: path.read_bytes() for path in sorted((run / "checkpoints").iterdir())}
    found["metrics.jsonl"] = json.dumps(timeless(epochs(run))).encode()
    found["metrics"] = json.dumps(summary(run)["metrics"]).encode()
    found["predictions"] = good("predict", run, *rows).out.encode()
    return {part: hashlib.sha256(content).hexdigest() for part, content in found.items()}


def main(folder, world, names, *arguments):
    """Train some of them, all in this process."""
    folder, found = Path(folder), {}
    for name in names.split(","):
        out = folder / world / name
        train(folder, name, out, *arguments)
        found[name] = left_by(out, folder / "table.npy")
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
