"""Numbers of any size in the options of schedules and optimizers: no warning of NumPy's, and no rate that is none."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from cli import mlp
from pydantic import TypeAdapter

from mlp_cli.config.schema_learning import LEARNING_RATE, OPTIMIZER
from mlp_cli.optimizers import step_coefficients
from mlp_cli.schedules import learning_rates
from mlp_cli.vocab import OPTIMIZERS

EXTREMES = (5e-324, 1e-300, 1.0, 1.0000001, 7.0, 1e300, 1.7e308)
OPTIONS = {
    "constant": ("initial",),
    "step": ("initial", "every", "gamma"),
    "multistep": ("initial", "gamma"),
    "exponential": ("initial", "gamma"),
    "polynomial": ("initial", "power", "final"),
    "cosine": ("initial", "final"),
    "flat_cosine": ("initial", "final"),
    "cosine_restarts": ("initial", "period", "factor", "final"),
    "one_cycle": ("peak", "initial", "final"),
    "coslog": ("initial",),
    "plateau": ("initial",),
    "inverse_time": ("c1", "c2"),
    "inverse_scaling": ("initial", "power"),
}


@pytest.mark.parametrize("schedule", OPTIONS)
def test_rates_of_extreme_options_are_finite_and_never_negative(schedule):
    """Warnings are errors in the tests, those of NumPy included."""
    adapter, tried = TypeAdapter(LEARNING_RATE.annotation()), 0
    for values in itertools.product(EXTREMES, repeat=len(OPTIONS[schedule])):
        for warmup in (0.0, 5e-324, 1e300):
            options = dict(zip(OPTIONS[schedule], values, strict=True)) | {"warmup_epochs": warmup}
            if schedule == "multistep":
                options["milestones"] = [values[0], 2.0, values[1]]
            if options.get("factor", 1.0) < 1.0:
                continue
            config = adapter.validate_python({"schedule": schedule, **options})
            rates = learning_rates(config, 1 + tried, 5, 7, 10_000)
            assert np.isfinite(rates).all(), options
            assert (rates >= 0.0).all(), options
            tried += 1
    assert tried >= 3 * len(EXTREMES)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_coefficients_of_extreme_options_give_no_warning(optimizer):
    adapter = TypeAdapter(OPTIMIZER.annotation())
    decays = (0.0, 5e-324, 0.6, 1.0 - 2.0**-53)
    options = {"momentum", "beta1", "beta2", "rho"} & {
        key for model in OPTIMIZER.words.values() for key in model.model_fields if model is OPTIMIZER.words[optimizer]
    }
    for decay in decays:
        found = adapter.validate_python({"name": optimizer} | dict.fromkeys(options, decay))
        for rate, weight_decay in itertools.product(EXTREMES, (None, 0.0, 1e300)):
            config = SimpleNamespace(
                optimizer=found,
                regularization=SimpleNamespace(weight_decay=weight_decay),
                learning_rate=SimpleNamespace(initial=rate),
            )
            for first in (1, 100_000):
                assert len(step_coefficients(config, np.full(3, rate), first)) == 3


@pytest.mark.parametrize("options", ["schedule: cosine_restarts, period: 1e-300", "schedule: step, every: 1e-300"])
def test_training_with_a_length_below_a_step(options, tmp_path):
    (tmp_path / "rows.csv").write_text("a,y\n" + "".join(f"{i},{i % 3}\n" for i in range(20)))
    (tmp_path / "c.yaml").write_text(
        "data: {path: rows.csv}\nnetwork: {layers: [{activation: linear}]}\ntraining: {epochs: 2}\n"
        f"learning_rate: {{{options}}}\n"
    )
    done = mlp("train", tmp_path / "c.yaml", "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert "nan" not in done.err
    assert "Warning" not in done.err
