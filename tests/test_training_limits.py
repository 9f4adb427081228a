"""When a run ends, which epoch is its result, what its learning rates were, and what happens when it diverges."""

import math
import signal

import numpy as np
import pytest
from cli import (
    blobs,
    checkpoints,
    classifier,
    epochs,
    good,
    mlp,
    regressor,
    result,
    slopes,
    summary,
    tensors,
    timeless,
    write_csv,
)

from mlp_cli import config as configs
from mlp_cli import schedules
from mlp_cli.runs.directory import RunDirectory


@pytest.fixture
def trees(tmp_path):
    """A small classifier's config: 36 training rows, 5 steps an epoch."""
    return classifier(tmp_path / "trees.yaml", blobs(tmp_path / "trees.csv"))


@pytest.fixture
def line(tmp_path):
    """A small regressor's config: 45 training rows."""
    return regressor(tmp_path / "line.yaml", slopes(tmp_path / "line.csv"))


# Limits


def test_no_epochs_only_initialise_evaluate_and_save(trees, tmp_path):
    out = tmp_path / "run"
    good("train", trees, "training.epochs=0", "--out", out)
    assert epochs(out) == []
    found = summary(out)
    assert list(found["metrics"]) == ["train", "validation", "test"]
    assert (found["epochs"], found["steps"]) == (0, 0)
    assert list(checkpoints(out)) == ["best.safetensors", "step-0000000000.safetensors"]
    # and the weights are those from which training starts
    again = tmp_path / "again"
    good("train", trees, "training.checkpoint.keep=9", "--out", again)
    first = tensors(again / "checkpoints" / "step-0000000000.safetensors")
    for name, value in tensors(out / "checkpoints" / "best.safetensors").items():
        np.testing.assert_array_equal(value, first[name])


@pytest.mark.parametrize(("steps", "expected"), [(1, [1]), (5, [5]), (7, [5, 7]), (11, [5, 10, 11])])
def test_max_steps(trees, tmp_path, steps, expected):
    good("train", trees, f"training.max_steps={steps}", "--out", tmp_path / "run")
    assert [record["step"] for record in epochs(tmp_path / "run")] == expected
    assert summary(tmp_path / "run")["steps"] == steps
    assert summary(tmp_path / "run")["reason"] == f"all {steps} steps are done"


def test_max_steps_alone_knows_no_epochs(trees, tmp_path):
    good("train", trees, "training.epochs=null", "training.max_steps=520", "--out", tmp_path / "run")
    assert len(epochs(tmp_path / "run")) == 104


def test_epochs_end_a_run_before_max_steps(trees, tmp_path):
    good("train", trees, "training.max_steps=1000", "--out", tmp_path / "run")
    assert summary(tmp_path / "run")["reason"] == "all 3 epochs are done"


def test_max_time(trees, tmp_path):
    good("train", trees, "training.max_time=0.4s", "training.epochs=1000000", "--out", tmp_path / "run")
    found = summary(tmp_path / "run")
    assert found["reason"] == "training.max_time (0.4 s) is over"
    assert 0.4 <= found["seconds"] < 3
    assert found["steps"] == epochs(tmp_path / "run")[-1]["step"]


def test_max_time_alone_refuses_a_schedule_that_needs_the_total(trees, tmp_path):
    done = mlp(
        "train", trees, "learning_rate.schedule=cosine", "training.epochs=null", "training.max_time=1m",
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert done.code == 2
    assert "learning_rate" in done.err
    assert "max_time" in done.err
    assert not (tmp_path / "run").exists()


def test_batch_sizes(trees, tmp_path):
    for size, steps in ((1, 36), (36, 1), ("full", 1), (35, 2), (7, 6)):
        out = tmp_path / f"of-{size}"
        good("train", trees, f"training.batch_size={size}", "training.epochs=1", "--out", out)
        assert [record["step"] for record in epochs(out)] == [steps]
    # the whole set by either name
    same = [tensors(tmp_path / f"of-{size}" / "checkpoints" / "best.safetensors") for size in (36, "full")]
    assert same[0].keys() == same[1].keys()
    for name, value in same[0].items():
        np.testing.assert_array_equal(value, same[1][name])


def test_a_batch_larger_than_the_training_set_is_refused(trees, tmp_path):
    done = mlp("train", trees, "training.batch_size=37", "--out", tmp_path / "run")
    assert done.code == 2
    assert done.err == (
        "override 'training.batch_size=37' training.batch_size: expected at most the 36 training rows; got 37. "
        "Use `full` for the whole set\n"
    )
    assert not (tmp_path / "run").exists()


def test_a_batch_larger_than_the_training_set_is_refused_where_it_is_written(tmp_path):
    config = classifier(tmp_path / "c.yaml", blobs(tmp_path / "d.csv"), training={"batch_size": 37})
    done = mlp("train", config, "--out", tmp_path / "run")
    line = next(number for number, text in enumerate(config.read_text().splitlines(), 1) if "batch_size" in text)
    assert done.code == 2
    assert done.err.startswith(f"{config}:{line}:")
    assert "training.batch_size: expected at most the 36 training rows; got 37" in done.err


# Early stopping and the best epoch


def test_early_stopping_by_accuracy(trees, tmp_path):
    out = tmp_path / "run"
    stopping = "training.early_stopping={metric: accuracy, patience: 3}"
    good("train", trees, stopping, "training.epochs=500", "learning_rate=0.1", "--out", out)
    scores = [record["validation"]["accuracy"] for record in epochs(out)]
    best = scores.index(max(scores))
    assert len(scores) == best + 1 + 3
    found = summary(out)
    assert found["best_epoch"] == best + 1
    assert found["reason"] == "no improvement of accuracy in 3 epochs"
    assert found["metrics"]["validation"] == epochs(out)[best]["validation"]


def test_early_stopping_by_loss_is_the_default(trees, tmp_path):
    out = tmp_path / "run"
    good(
        "train",
        trees,
        "training.early_stopping={patience: 2}",
        "training.epochs=500",
        "learning_rate=0.5",
        "--out",
        out,
    )
    losses = [record["validation"]["loss"] for record in epochs(out)]
    best = losses.index(min(losses))
    assert len(losses) == best + 1 + 2
    assert summary(out)["best_epoch"] == best + 1


def test_min_delta_asks_for_more_than_any_improvement(trees, tmp_path):
    out = tmp_path / "run"
    stopping = "training.early_stopping={patience: 2, min_delta: 1000}"
    good("train", trees, stopping, "training.epochs=500", "--out", out)
    # the first epoch improves on nothing, the next two not by 1000; the result is nevertheless the best
    assert len(epochs(out)) == 3
    losses = [record["validation"]["loss"] for record in epochs(out)]
    assert summary(out)["best_epoch"] == losses.index(min(losses)) + 1


def test_early_stopping_without_validation_looks_at_the_training_rows(trees, tmp_path):
    out = tmp_path / "run"
    good(
        "train", trees, "data.split.validation=null", "training.early_stopping={metric: f1_macro, patience: 2}",
        "training.epochs=500", "learning_rate=0.2", "--out", out,
    )  # fmt: skip
    scores = [record["train"]["f1_macro"] for record in epochs(out)]
    assert len(scores) == scores.index(max(scores)) + 1 + 2


@pytest.mark.parametrize("metric", ["roc_auc", "log_loss", "brier", "mcc", "balanced_accuracy"])
def test_early_stopping_by_each_metric(trees, tmp_path, metric):
    out = tmp_path / "run"
    stopping = f"training.early_stopping={{metric: {metric}, patience: 1}}"
    good("train", trees, stopping, "training.epochs=300", "learning_rate=0.3", "--out", out)
    scores = [record["validation"][metric] for record in epochs(out)]
    best = min(scores) if metric in ("log_loss", "brier") else max(scores)
    assert summary(out)["best_epoch"] == scores.index(best) + 1


def test_a_metric_that_is_not_measured_is_refused(trees, tmp_path):
    done = mlp(
        "train", trees, "data.split.validation=null", "training.early_stopping={metric: roc_auc}",
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert done.code == 2
    assert "training.early_stopping.metric: a classification without validation rows has no 'roc_auc'" in done.err
    assert "data.split.validation" in done.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "override",
    [
        "learning_rate={schedule: plateau, initial: 0.1, metric: roc_auc}",
        "training.early_stopping={metric: roc_auc, patience: 2}",
    ],
)
def test_a_metric_that_is_not_defined_on_the_validation_rows_is_no_improvement(trees, tmp_path, override):
    one_class = write_csv(tmp_path / "one.csv", ["x0", "x1", "x2", "tree"], [(1, 2, 3, "ash"), (2, 1, 0, "ash")])
    good(
        "train", trees, "data.split=null", "data.path=null", f"data.train={tmp_path}/trees.csv",
        f"data.validation={one_class}", override, "training.epochs=5", "--out", tmp_path / "run",
    )  # fmt: skip
    assert all("NaN" not in str(record) for record in epochs(tmp_path / "run"))


def test_restore_best(trees, tmp_path):
    overrides = ["learning_rate=0.5", "training.epochs=8", "seed=2"]
    good("train", trees, *overrides, "--out", tmp_path / "best")
    good("train", trees, *overrides, "training.restore_best=false", "--out", tmp_path / "last")
    records = epochs(tmp_path / "best")
    losses = [record["validation"]["loss"] for record in records]
    assert losses.index(min(losses)) < 7
    assert summary(tmp_path / "best")["metrics"]["validation"]["loss"] == min(losses)
    assert summary(tmp_path / "last")["metrics"]["validation"]["loss"] == losses[-1]
    # eval agrees with either
    for name, loss in (("best", min(losses)), ("last", losses[-1])):
        done = good("eval", tmp_path / name, "--split", "validation", "--json")
        assert done.json["metrics"]["loss"] == loss


def test_ties_go_to_the_earlier_epoch(trees, tmp_path):
    stopping = "training.early_stopping={metric: accuracy, patience: 99}"
    good("train", trees, "optimizer=sgd", "learning_rate=1e-12", stopping, "--out", tmp_path / "run")
    scores = [record["validation"]["accuracy"] for record in epochs(tmp_path / "run")]
    assert len(set(scores)) == 1
    assert summary(tmp_path / "run")["best_epoch"] == 1


# Learning rates


RATES = [
    {"schedule": "constant", "initial": 0.03, "warmup_epochs": 1.5},
    {"schedule": "step", "initial": 0.1, "every": 2, "gamma": 0.5},
    {"schedule": "multistep", "initial": 0.1, "milestones": [1, 2.5], "gamma": 0.1},
    {"schedule": "exponential", "initial": 0.1, "gamma": 0.9},
    {"schedule": "polynomial", "initial": 0.1, "power": 2, "final": 0.01},
    {"schedule": "cosine", "initial": 0.1, "warmup_epochs": 1},
    {"schedule": "cosine_restarts", "initial": 0.1, "period": 2, "factor": 2},
    {"schedule": "one_cycle", "peak": 0.2},
    {"schedule": "flat_cosine", "initial": 0.1},
    {"schedule": "coslog", "initial": 0.1, "cycles": 2},
    {"schedule": "inverse_time", "c1": 3, "c2": 40},
    {"schedule": "inverse_scaling", "initial": 0.1, "power": 0.5, "per": "epoch"},
]


@pytest.mark.parametrize("rate", RATES, ids=lambda rate: rate["schedule"])
def test_the_rate_in_the_diary_is_that_of_the_schedule(tmp_path, rate):
    config = classifier(
        tmp_path / "c.yaml", blobs(tmp_path / "d.csv"), learning_rate=rate, training={"epochs": 6, "batch_size": 8}
    )
    good("train", config, "--out", tmp_path / "run")
    expected = schedules.learning_rates(configs.load([config]).learning_rate, 1, 30, 5, 30)
    assert [record["learning_rate"] for record in epochs(tmp_path / "run")] == list(expected[4::5])


def test_the_rate_in_the_diary_written_out(trees, tmp_path):
    good(
        "train", trees, "training.epochs=4", "learning_rate={schedule: step, initial: 0.1, every: 2, gamma: 0.5}",
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert [record["learning_rate"] for record in epochs(tmp_path / "run")] == [0.1, 0.1, 0.05, 0.05]


def test_plateau_lowers_the_rate_when_the_metric_stands_still(trees, tmp_path):
    good(
        "train", trees, "training.epochs=7", "optimizer=sgd",
        "learning_rate={schedule: plateau, initial: 1e-12, factor: 0.5, patience: 1, metric: accuracy}",
        "--out", tmp_path / "run",
    )  # fmt: skip
    # epoch 1 is the best; 2 and 3 stand still, which is more than patience
    assert [record["learning_rate"] for record in epochs(tmp_path / "run")] == [
        1e-12, 1e-12, 1e-12, 0.5e-12, 0.5e-12, 0.25e-12, 0.25e-12
    ]  # fmt: skip


# Divergence


def test_divergence_names_epoch_step_rate_and_remedy(line, tmp_path):
    out = tmp_path / "run"
    done = mlp(
        "train", line, "network.layers=[{}]", "optimizer=sgd", "learning_rate=40", "training.epochs=100",
        "training.checkpoint.every_epochs=1", "--out", out, "--quiet",
    )  # fmt: skip
    assert done.code == 4
    steps = 6 * len(epochs(out))
    message, remedy = done.err.split(". Try ")
    where = message.removeprefix(f"Diverged: the loss is not finite in epoch {len(epochs(out)) + 1}, step ")
    step, rest = where.split(", at learning rate ")
    assert steps < int(step) <= steps + 6
    assert rest == f"40; the last good checkpoint stays in {out}"
    assert "learning_rate.initial" in remedy
    assert done.out == ""
    # which can be read where it is named; the run itself has no result
    (*_, last) = good("inspect", out, "--json").json["checkpoints"]
    assert last["valid"]
    assert good("eval", last["path"], "--json").json["rows"] == 15
    assert mlp("eval", out).code == 4
    assert not (out / "summary.json").exists()


def test_a_weight_that_is_not_finite_is_divergence_too(line, tmp_path):
    out = tmp_path / "run"
    done = mlp(
        "train", line, "network.layers=[{}]", "optimizer=sgd", "learning_rate=1e38", "training.batch_size=full",
        "training.epochs=1", "--out", out, "--quiet",
    )  # fmt: skip
    assert done.code == 4
    assert done.err.startswith(
        f"Diverged: a weight is not finite in epoch 1, step 1, at learning rate 1e+38; "
        f"the last good checkpoint stays in {out}. Try "
    )
    assert epochs(out) == []
    assert list(checkpoints(out)) == ["step-0000000000.safetensors"]


def test_rollback_recovers(line, tmp_path):
    out = tmp_path / "run"
    overrides = ["network.layers=[{}]", "optimizer=sgd", "learning_rate=40", "training.epochs=100"]
    done = good("train", line, *overrides, "training.on_divergence=rollback", "--out", out)
    assert "Warning: the loss is not finite in epoch " in done.err
    assert "with the learning rate times 0.5" in done.err
    records = epochs(out)
    assert [record["epoch"] for record in records] == list(range(1, 101))
    assert [record["step"] for record in records] == list(range(6, 601, 6))
    rates = [record["learning_rate"] for record in records]
    assert rates[-1] < 2
    assert math.log2(40 / rates[-1]).is_integer()
    assert records[-1]["train"]["r2"] > 0.9
    # the same again
    good("train", line, *overrides, "training.on_divergence=rollback", "--out", tmp_path / "again")
    assert result(out) == result(tmp_path / "again")


@pytest.mark.parametrize("saving", ["{every_steps: 1}", "{every_steps: 4}", "{every_epochs: 3}", "{every_epochs: 1}"])
@pytest.mark.parametrize("batch", ["8", "full"])
def test_rollback_recovers_from_checkpoints_that_lead_nowhere(line, tmp_path, saving, batch):
    # the last checkpoint before the divergence has a loss that is not finite itself
    done = good(
        "train", line, "network.layers=[{}]", "optimizer=sgd", "learning_rate=40", "training.epochs=60",
        f"training.batch_size={batch}", "training.on_divergence=rollback", f"training.checkpoint={saving}",
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert "going back to step " in done.err
    records = epochs(tmp_path / "run")
    assert [record["epoch"] for record in records] == list(range(1, 61))
    losses = [record["train"]["loss"] for record in records]
    assert losses[-1] < max(losses) / 1e6
    steps = [int(name[5:15]) for name in checkpoints(tmp_path / "run") if name.startswith("step")]
    assert max(steps) == records[-1]["step"] == summary(tmp_path / "run")["steps"]


@pytest.mark.parametrize("step", [8, 50, 120, 200])
def test_rollback_of_a_run_that_was_interrupted(line, tmp_path, monkeypatch, step):
    config = ["network.layers=[{}]", "optimizer=sgd", "learning_rate=40", "training.epochs=40"]
    config = [line, *config, "training.on_divergence=rollback", "training.checkpoint.every_steps=1"]
    good("train", *config, "--out", tmp_path / "whole")
    save, stops = RunDirectory.save, []

    def watched(self, at, arrays, meta):
        path = save(self, at, arrays, meta)
        if at == step and not stops:
            stops.append(signal.raise_signal(signal.SIGINT))
        return path

    monkeypatch.setattr(RunDirectory, "save", watched)
    assert mlp("train", *config, "--out", tmp_path / "run").code == 130
    monkeypatch.undo()
    good("train", *config, "--out", tmp_path / "run", "--resume")
    assert result(tmp_path / "run") == result(tmp_path / "whole")


def test_rollback_from_a_weight_that_is_not_finite(line, tmp_path):
    done = mlp(
        "train", line, "network.layers=[{}]", "optimizer=sgd", "learning_rate=1e37", "training.batch_size=full",
        "training.on_divergence=rollback", "training.epochs=1", "--out", tmp_path / "run",
    )  # fmt: skip
    # the weights are finite then, and the loss that they give is found not to be when the result is measured
    assert done.code == 4
    assert "Diverged: the loss of the result on the train rows is not finite" in done.err
    assert (
        "Warning: a weight is not finite in epoch 1, step 1, at learning rate 1e+37; going back to step 0" in done.err
    )
    assert np.isfinite(tensors(tmp_path / "run" / "checkpoints" / "best.safetensors")["layers.0.weight"]).all()


def test_rollback_ends_in_the_end(line, tmp_path):
    path = tmp_path / "line.csv"
    text = path.read_text().splitlines()
    path.write_text("\n".join([text[0], *(row.rpartition(",")[0] + ",1e300" for row in text[1:])]) + "\n")
    done = mlp(
        "train", line, "training.on_divergence=rollback", "dtype=float64", "data.split=null", "--out", tmp_path / "run"
    )
    assert done.code == 4
    assert done.err.count("; going back to step 0 with the learning rate times ") == 10
    assert "after 10 rollbacks that each halved the rate" in done.err.splitlines()[-1]


def test_a_longer_run_goes_on_in_the_middle_of_the_epoch_that_a_limit_cut_short(trees, tmp_path):
    """Limits may change on resumption, and the bits are those of a run that had the new one from the beginning."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    good("train", trees, "training.max_steps=13", "--out", whole)
    good("train", trees, "training.max_steps=3", "--out", parts)
    short = checkpoints(parts), timeless(epochs(parts))
    assert [record["step"] for record in epochs(parts)] == [3]
    good("train", trees, "training.max_steps=3", "--out", parts, "--resume")
    assert (checkpoints(parts), timeless(epochs(parts))) == short
    good("train", trees, "training.max_steps=9", "--out", parts, "--resume")
    assert [record["step"] for record in epochs(parts)] == [5, 9]
    good("train", trees, "training.max_steps=13", "--out", parts, "--resume")
    for name in ("best.safetensors", "step-0000000013.safetensors"):
        assert checkpoints(parts)[name] == checkpoints(whole)[name]
    assert timeless(epochs(parts)) == timeless(epochs(whole))


def test_a_result_whose_loss_is_not_finite_is_a_divergence(line, tmp_path):
    done = mlp(
        "train", line, "network.layers=[{}]", "optimizer=sgd", "learning_rate=1e30", "training.batch_size=full",
        "training.epochs=1", "--out", tmp_path / "run",
    )  # fmt: skip
    assert done.code == 4
    assert "is not finite" in done.err
