"""Numbers that are none: whatever becomes NaN or infinite in training is found before it is kept anywhere."""

import math

import numpy as np
import pytest
from cli import blobs, checkpoints, classifier, epochs, good, mlp, regressor, slopes, tensors, write_csv

from mlp_cli.network.machine import Machine

STEPS = "training.checkpoint={every_steps: 1, keep: 99}"


def arrays_are_finite(run):
    """Every number of every checkpoint that is left."""
    for name in checkpoints(run):
        for array in tensors(run / "checkpoints" / name).values():
            assert np.isfinite(array).all(), name


@pytest.fixture
def poison(monkeypatch):
    """`poison(step, what)` makes a number of the network NaN when that step of the run is done."""

    def arrange(step, what, value=math.nan):
        train, done = Machine.train, []

        def poisoned(self, *arguments, **options):
            outcome = train(self, *arguments, **options)
            done.append(outcome)
            if len(done) == step:
                what(self.network)[3] = value
            return outcome

        monkeypatch.setattr(Machine, "train", poisoned)

    return arrange


NETWORKS = {
    "parameters": ("[{units: 4, activation: tanh}, {activation: softmax}]", lambda network: network.parameters),
    "hidden by a threshold": (
        "[{units: 4, activation: threshold}, {activation: softmax}]",
        lambda network: network.parameters,
    ),
    "running statistics": (
        "[{units: 4}, {kind: batch_norm}, {activation: softmax}]",
        lambda network: network.state,
    ),
}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_number_that_is_none_is_found_at_its_step_and_kept_nowhere(tmp_path, poison, name, value):
    layers, what = NETWORKS[name]
    config = classifier(tmp_path / "c.yaml", blobs(tmp_path / "d.csv"))
    out = tmp_path / "run"
    poison(8, what, value)
    done = mlp("train", config, f"network.layers={layers}", STEPS, "--out", out, "--quiet")
    assert done.code == 4
    assert done.err.startswith("Diverged: a weight is not finite in epoch 2, step 8, at learning rate 0.02; the last ")
    assert [name for name in checkpoints(out) if "step" in name][-1] == "step-0000000007.safetensors"
    arrays_are_finite(out)
    # the best epoch so far is still there, and measures as it did
    (first,) = epochs(out)
    best = out / "checkpoints" / "best.safetensors"
    assert good("eval", best, "--split", "validation", "--json").json["metrics"] == first["validation"]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_rollback_recovers_from_it(tmp_path, poison, name):
    layers, what = NETWORKS[name]
    config = classifier(tmp_path / "c.yaml", blobs(tmp_path / "d.csv"))
    poison(8, what)
    rollback = "training.on_divergence=rollback"
    done = good("train", config, f"network.layers={layers}", STEPS, rollback, "--out", tmp_path / "run")
    assert "; going back to step 6 with the learning rate times 0.5" in done.err
    assert [record["epoch"] for record in epochs(tmp_path / "run")] == [1, 2, 3]
    arrays_are_finite(tmp_path / "run")


@pytest.mark.parametrize("rate", ["40", "1e10", "1e37"])
def test_no_checkpoint_of_a_run_that_diverges_by_itself_holds_one(tmp_path, rate):
    config = regressor(tmp_path / "c.yaml", slopes(tmp_path / "d.csv"))
    out = tmp_path / "run"
    done = mlp(
        "train", config, "network.layers=[{}]", "optimizer=sgd", f"learning_rate={rate}", "training.epochs=100", STEPS,
        "--out", out, "--quiet",
    )  # fmt: skip
    assert done.code == 4
    arrays_are_finite(out)


def test_validation_rows_that_the_loss_cannot_hold(tmp_path):
    """Good steps, and a validation loss that is infinite in float32: no best epoch, and no checkpoint of that epoch."""
    config = regressor(tmp_path / "c.yaml", slopes(tmp_path / "d.csv"))
    large = write_csv(tmp_path / "large.csv", ["a", "b", "y"], [(0.5, 0.5, 3e38), (0.1, 0.2, -3e38)])
    out = tmp_path / "run"
    done = mlp(
        "train", config, "data.path=null", f"data.train={tmp_path}/d.csv", f"data.validation={large}",
        "data.split=null", "training.checkpoint.every_epochs=1", "--out", out, "--quiet",
    )  # fmt: skip
    assert done.code == 4
    assert done.err.startswith("Diverged: the validation loss is not finite in epoch 1, step 8, at learning rate 0.02")
    assert list(checkpoints(out)) == ["step-0000000000.safetensors"]
    assert epochs(out) == []


def test_rollbacks_end(tmp_path, monkeypatch):
    """Where every step diverges, whatever the rate."""
    config = classifier(tmp_path / "c.yaml", blobs(tmp_path / "d.csv"))
    train = Machine.train

    def poisoned(self, *arguments, **options):
        outcome = train(self, *arguments, **options)
        self.network.parameters[3] = math.nan
        return outcome

    monkeypatch.setattr(Machine, "train", poisoned)
    done = mlp("train", config, "training.on_divergence=rollback", STEPS, "--out", tmp_path / "run")
    assert done.code == 4
    assert done.err.count("; going back to step 0 with the learning rate times ") == 10
    assert "after 10 rollbacks that each halved the rate" in done.err.splitlines()[-1]
    arrays_are_finite(tmp_path / "run")
