"""The lectures: every config is trained, and does what its opening comment says."""

import csv
import gzip
import importlib.util
import struct
from pathlib import Path

import numpy as np
import pytest

from mlp_cli import config as configs

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
ALL_CONFIGS = sorted(CONFIGS.rglob("*.yaml"))
DESCENTS = ("descent_batch", "descent_minibatch", "descent_stochastic")


@pytest.fixture
def lecture(train):
    """`lecture(name, *overrides)` trains a config of configs/lectures that is expected to succeed."""

    def run(name, *overrides):
        result = train(CONFIGS / "lectures" / f"{name}.yaml", *overrides)
        assert result.exit_code == 0
        return result

    return run


# Threshold logic: nothing is learned


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("mcculloch_pitts_and", 4),
        ("mcculloch_pitts_or", 4),
        ("mcculloch_pitts_not", 2),
        ("mcculloch_pitts_xor", 4),
        ("polygon", 500),
    ],
)
def test_given_weights_compute_the_function_exactly(lecture, name, rows):
    run = lecture(name)
    assert run.epochs == []
    assert run.metrics["train"]["accuracy"] == 1
    assert run.metrics["train"]["loss"] == 0
    layers = configs.load([CONFIGS / "lectures" / f"{name}.yaml"]).network.layers
    for i, layer in enumerate(layers):
        np.testing.assert_array_equal(run.tensors[f"layers.{i}.weight"], np.float32(layer.weights))
    assert len(read_table(f"{name.removeprefix('mcculloch_pitts_')}.csv")[1]) == rows


# The perceptron


@pytest.mark.parametrize("name", ["perceptron_and", "perceptron_and_bipolar"])
def test_perceptron_learns_and(lecture, name):
    run = lecture(name)
    losses = run.losses()
    assert losses[0] > 0
    assert losses[-1] == 0, "an epoch without a mistake: the weights stand still from there"
    assert run.metrics["train"]["accuracy"] == 1


@pytest.mark.parametrize("name", ["perceptron_xor", "perceptron_xor_bipolar"])
def test_perceptron_never_learns_xor(lecture, name):
    run = lecture(name)
    assert len(run.epochs) == 100
    assert min(run.losses()) > 0, "no epoch without a mistake"
    assert max(epoch["train"]["accuracy"] for epoch in run.epochs) < 1
    assert run.metrics["train"]["accuracy"] <= 0.75
    assert np.abs(run.tensors["layers.0.weight"]).max() <= 4, "it goes round in circles, it does not run away"


@pytest.mark.parametrize(
    "name", ["perceptron_and", "perceptron_and_bipolar", "perceptron_xor", "perceptron_xor_bipolar"]
)
def test_perceptron_follows_rosenblatts_rule_to_the_bit(lecture, name):
    run = lecture(name, "training.sampling=sequential", "training.epochs=7")
    bipolar = name.endswith("bipolar")
    low = -1 if bipolar else 0
    weight, bias = np.zeros(2), 0.0
    rows = np.array(read_table(f"{name.split('_')[1]}.csv")[1], dtype=float)
    if bipolar:
        rows = 2 * rows - 1
    for _ in range(7):
        for *x, target in rows:
            output = 1 if np.dot(weight, x) + bias >= 0 else low
            weight += (target - output) * np.array(x)
            bias += target - output
    np.testing.assert_array_equal(run.tensors["layers.0.weight"], [weight])
    np.testing.assert_array_equal(run.tensors["layers.0.bias"], [bias])


# Adaptive linear elements


def test_adaline_settles_near_least_squares(lecture):
    run = lecture("adaline")
    x, y = standardized("separable.csv")
    solution = least_squares(x, 2 * y - 1)
    found = [*run.tensors["layers.0.weight"][0], *run.tensors["layers.0.bias"]]
    np.testing.assert_allclose(found, solution, atol=0.02)
    assert run.metrics["train"]["accuracy"] >= 0.98


def test_madaline_learns_xor_with_a_fixed_or(lecture):
    run = lecture("madaline_xor")
    assert run.losses()[0] > 0
    assert run.losses()[-1] == 0
    assert run.metrics["train"]["accuracy"] == 1
    np.testing.assert_array_equal(run.tensors["layers.1.weight"], [[1, 1]])
    np.testing.assert_array_equal(run.tensors["layers.1.bias"], [1])


# One layer


def test_linear_regression_descends_to_the_normal_equations(lecture):
    run = lecture("linear_regression")
    losses = np.array(run.losses())
    assert (np.diff(losses) <= 1e-5 * losses[1:]).all(), "the error falls at every step"
    x, y = standardized("diabetes.csv")
    assert run.metrics["train"]["rmse"] == pytest.approx(residual_rmse(x, y), rel=1e-3)


def test_sigmoid_regression_fits_the_curve_that_a_line_cannot(lecture):
    run = lecture("sigmoid_regression")
    x, y = standardized("dose.csv")
    assert run.metrics["train"]["r2"] > 0.99
    assert run.metrics["train"]["rmse"] < residual_rmse(x, y) / 3
    line = np.c_[x, np.ones(len(x))] @ least_squares(x, y)
    assert line.min() < 0
    assert line.max() > 1


def test_sigmoid_classification(lecture):
    run = lecture("sigmoid_classification")
    assert run.metrics["train"]["accuracy"] >= 0.99
    assert run.losses()[-1] < run.losses()[0] / 10


def test_logistic_regression_arrives_from_every_start(lecture):
    losses = []
    for seed in (0, 1):
        run = lecture("logistic_regression", f"seed={seed}")
        assert run.metrics["train"]["accuracy"] >= 0.95
        losses.append(run.metrics["train"]["loss"])
    assert losses[0] == pytest.approx(losses[1], abs=0.01)


def test_softmax_regression(lecture):
    run = lecture("softmax_regression")
    assert run.tensors["layers.0.weight"].shape == (3, 4)
    assert run.metrics["train"]["accuracy"] >= 0.95
    assert run.metrics["train"]["loss"] < 0.15


def test_winner_takes_all(lecture):
    run = lecture("winner_takes_all")
    assert run.metrics["train"]["accuracy"] >= 0.93
    assert min(run.losses()) > 0, "two species overlap: mistakes never end"


# Hidden layers


def test_xor_tanh_solves_xor_with_three_units(lecture):
    run = lecture("xor_tanh")
    assert run.tensors["layers.0.weight"].shape == (2, 2)
    assert run.tensors["layers.1.weight"].shape == (1, 2)
    assert run.metrics["train"]["accuracy"] == 1
    assert run.metrics["train"]["loss"] < 0.05


def test_linear_hidden_layers_gain_nothing(lecture):
    deep = lecture("linear_hidden_layers")
    single = lecture("linear_hidden_layers", "network.layers=[{units: 1, activation: linear}]")
    for run in (deep, single):
        assert run.metrics["train"]["loss"] == pytest.approx(0.25, abs=1e-3)
        assert run.metrics["train"]["accuracy"] < 1
    w1, w2, w3 = (deep.tensors[f"layers.{i}.weight"] for i in range(3))
    np.testing.assert_allclose(w3 @ w2 @ w1, [[0, 0]], atol=0.05)


def test_two_layers_online_read_digits(lecture):
    run = lecture("two_layers_online")
    assert run.summary["metrics"]["test"]["accuracy"] >= 0.94
    steps = [epoch["step"] for epoch in run.epochs]
    assert np.diff(steps).tolist() == [steps[0]] * 19
    assert 1430 <= steps[0] <= 1445, "a step for every training row"


def test_many_layers_decaying_rate(lecture):
    run = lecture("many_layers_decaying_rate")
    assert run.metrics["test"]["accuracy"] >= 0.93
    for epoch in run.epochs:
        assert epoch["learning_rate"] == pytest.approx(200 / (epoch["step"] + 20000))
    start = lecture("many_layers_decaying_rate", "training.epochs=0").tensors
    for i, inputs in enumerate((64, 60, 40, 20)):
        assert start[f"layers.{i}.weight"].std() * inputs**0.5 == pytest.approx(1, abs=0.2)
    biases = np.concatenate([start[f"layers.{i}.bias"] for i in range(4)])
    assert biases.std() == pytest.approx(1, abs=0.25)


def test_function_approximation_ignores_the_noise(lecture):
    run = lecture("function_approximation")
    assert run.metrics["test"]["r2"] > 0.93
    assert run.metrics["test"]["rmse"] < 0.16, "the noise itself is 0.1"
    straight = lecture("function_approximation", "network.layers.0.activation=linear")
    assert straight.metrics["test"]["r2"] < 0.6


def test_image_by_coordinates_needs_the_high_frequencies(lecture):
    crisp = lecture("image_by_coordinates")
    assert crisp.metrics["train"]["rmse"] < 0.05
    blurred = lecture("image_by_coordinates", "network.layers.0.frequencies=1")
    assert blurred.metrics["train"]["rmse"] > 2 * crisp.metrics["train"]["rmse"]


# Descent


def test_smaller_batches_go_farther_in_as_many_epochs(lecture):
    batch, minibatch, stochastic = (lecture(f"descent_{kind}") for kind in ("batch", "minibatch", "stochastic"))
    rows = stochastic.epochs[0]["step"]
    assert 454 <= rows <= 457
    assert batch.epochs[0]["step"] == 1
    assert minibatch.epochs[0]["step"] == -(-rows // 16)
    losses = [run.metrics["train"]["loss"] for run in (batch, minibatch, stochastic)]
    assert losses[0] > 1.5 * losses[1]
    assert losses[1] > 1.2 * losses[2]
    assert (np.diff(batch.losses()) < 0).all(), "batch descent is smooth"


def test_a_rate_that_is_right_and_one_too_small(lecture):
    right, small = lecture("rate_right"), lecture("rate_too_small")
    x, y = standardized("diabetes.csv")
    best = residual_rmse(x, y)
    assert right.metrics["train"]["rmse"] == pytest.approx(best, rel=0.01)
    assert small.metrics["train"]["rmse"] > 1.1 * best
    for run in (right, small):
        losses = np.array(run.losses())
        assert (np.diff(losses) <= 1e-5 * losses[1:]).all()


def test_a_rate_too_large_diverges_and_stops(train):
    run = train(CONFIGS / "lectures" / "rate_too_large.yaml")
    assert run.exit_code == 4
    losses = run.losses()
    assert 10 < len(losses) < 500
    assert losses[9] > losses[0]


# Regularization


def test_l1_makes_weights_vanish(lecture):
    plain, lasso = lecture("l1", "regularization.l1=0"), lecture("l1")
    assert vanished(lasso) >= 10
    assert vanished(plain) <= 3
    assert lasso.metrics["test"]["accuracy"] >= 0.92


def test_l2_makes_weights_small_but_lets_none_vanish(lecture):
    plain, ridge = lecture("l2", "regularization.l2=0"), lecture("l2")
    assert length(ridge) < 0.6 * length(plain)
    assert vanished(ridge) <= 2
    assert ridge.metrics["test"]["accuracy"] >= 0.9


def test_elastic_net_does_both(lecture):
    elastic = lecture("elastic_net")
    lasso, ridge = lecture("elastic_net", "regularization.l2=0"), lecture("elastic_net", "regularization.l1=0")
    assert vanished(ridge) < 4 <= vanished(elastic) < vanished(lasso)
    assert length(elastic) < min(length(lasso), length(ridge))
    assert elastic.metrics["test"]["accuracy"] >= 0.88


def test_max_norm_bounds_every_unit(lecture):
    norms = unit_norms(lecture("max_norm"))
    assert norms.max() <= 0.8 * (1 + 1e-6)
    assert norms.max() >= 0.8 * (1 - 1e-3)
    assert unit_norms(lecture("max_norm", "regularization.max_norm=null")).max() > 1.5


def test_dropout_trains_with_units_missing(lecture):
    run = lecture("dropout")
    assert run.metrics["test"]["accuracy"] >= 0.95
    assert run.losses()[-1] > 2 * run.metrics["train"]["loss"], "as met with units missing, and with all of them"


# Depth


def test_deep_plain_chain_is_stuck_at_chance(lecture):
    assert lecture("deep_plain").metrics["train"]["accuracy"] < 0.7


@pytest.mark.parametrize("name", ["residual", "highway", "densely_connected"])
def test_shortcuts_make_depth_learn(lecture, name):
    run = lecture(name)
    assert run.metrics["train"]["accuracy"] >= 0.95
    assert run.losses()[-1] < run.losses()[0] / 4


# The configs at the top, and published results


def test_digits_are_read(train):
    run = train(CONFIGS / "digits.yaml")
    assert run.exit_code == 0
    assert run.metrics["test"]["accuracy"] >= 0.975


@pytest.mark.parametrize(("name", "split", "accuracy"), [("xor", "train", 1), ("iris", "test", 0.86)])
def test_first_configs(train, name, split, accuracy):
    run = train(CONFIGS / f"{name}.yaml")
    assert run.exit_code == 0
    assert run.metrics[split]["accuracy"] >= accuracy


def test_breast_cancer_keeps_the_best_epoch(train):
    run = train(CONFIGS / "breast_cancer.yaml")
    assert run.exit_code == 0
    assert run.metrics["test"]["accuracy"] >= 0.92
    best = min(epoch["validation"]["loss"] for epoch in run.epochs)
    assert run.metrics["validation"]["loss"] == pytest.approx(best)


@pytest.mark.parametrize(("name", "batch_size"), [("mnist_sklearn", 200), ("mnist_keras", 128)])
def test_published_configs_run_on_idx_files(train, tmp_path, name, batch_size):
    overrides = []
    for split, rows in (("train", 400), ("test", 50)):
        for part, array in zip("xy", stripes(rows), strict=True):
            write_idx(tmp_path / f"{split}-{part}.gz", array)
            overrides.append(f"data.{split}.{part}={tmp_path / f'{split}-{part}.gz'}")
    run = train(CONFIGS / "published" / f"{name}.yaml", *overrides)
    assert run.exit_code == 0
    assert run.epochs[0]["step"] == -(-400 // batch_size)
    assert run.metrics["test"]["accuracy"] >= 0.9


# The house rules of configs and data


@pytest.mark.parametrize("path", ALL_CONFIGS, ids=lambda path: path.stem)
def test_config_is_short_and_opens_with_what_it_shows(path):
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# ")
    assert len(lines) < 30
    assert configs.load([path]).name == path.stem
    if path.parent.name == "lectures":
        assert f"`{path.stem}`" in (CONFIGS / "README.md").read_text()
    if path.parent.name != "published":
        tests = Path(__file__).read_text()
        assert f'"{path.stem}"' in tests or f"{path.stem}.yaml" in tests or path.stem in DESCENTS, "untested"


def test_data_is_what_the_script_makes():
    script = make_data()
    files = sorted(path.name for path in (ROOT / "data").iterdir() if path.is_file())
    assert files == sorted(script.TABLES)
    for name in files:
        assert read_text(name) == script.text(name), name


def test_data_is_small_and_its_origin_told():
    page = (ROOT / "docs" / "data.md").read_text()
    files = [path for path in (ROOT / "data").iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 400_000
    for path in files:
        assert f"`{path.name}`" in page


# Helpers


def read_text(name: str) -> str:
    """The text of a file of data/, decompressed."""
    content = (ROOT / "data" / name).read_bytes()
    return (gzip.decompress(content) if name.endswith(".gz") else content).decode()


def read_table(name: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a file of data/."""
    header, *rows = csv.reader(read_text(name).splitlines())
    return header, rows


def standardized(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (n, d) of mean 0 and variance 1, and the last column (n,), of an all-numeric file of data/."""
    table = np.array(read_table(name)[1], dtype=float)
    x = table[:, :-1]
    return (x - x.mean(axis=0)) / x.std(axis=0), table[:, -1]


def least_squares(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Weights and, last, the bias that minimize the squared error of a linear unit."""
    return np.linalg.lstsq(np.c_[x, np.ones(len(x))], y, rcond=None)[0]


def residual_rmse(x: np.ndarray, y: np.ndarray) -> float:
    """The error that no linear unit can go below."""
    return float(np.sqrt(np.mean((np.c_[x, np.ones(len(x))] @ least_squares(x, y) - y) ** 2)))


def vanished(run) -> int:
    """How many weights of the first layer are as good as zero."""
    return int((np.abs(run.tensors["layers.0.weight"]) < 2e-3).sum())


def length(run) -> float:
    """The Euclidean length of the first layer's weights."""
    return float(np.sqrt((run.tensors["layers.0.weight"] ** 2).sum()))


def unit_norms(run) -> np.ndarray:
    """The lengths of all units' incoming weight vectors."""
    weights = [run.tensors[f"layers.{i}.weight"].astype(np.float64) for i in range(2)]
    return np.concatenate([np.sqrt((weight**2).sum(axis=1)) for weight in weights])


def make_data():
    """scripts/make_data.py as a module."""
    spec = importlib.util.spec_from_file_location("make_data", ROOT / "scripts" / "make_data.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stripes(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of 28x28 bytes with one bright stripe, whose place is the class 0..9."""
    y = np.arange(rows, dtype=np.uint8) % 10
    x = np.zeros((rows, 28, 28), dtype=np.uint8)
    for image, label in zip(x, y, strict=True):
        image[2 * label + 2 : 2 * label + 4] = 255
    return x, y


def write_idx(path: Path, array: np.ndarray) -> None:
    """A gzip-compressed IDX file of unsigned bytes."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))
