"""Initial numbers: their distribution, their fans, and that a parameter's depend on nothing but seed and place."""

import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
from engine import DTYPES, Pair, configure, examples
from hypothesis import given, settings
from hypothesis import strategies as some

from mlp_cli import rng
from mlp_cli.errors import ConfigError
from mlp_cli.network.initial import draw
from mlp_cli.vocab import INITIALIZERS

INPUTS, UNITS = 300, 200
# the standard deviation of a normal distribution that is cut at two of them
CUT = 0.8796256610342398
# name: (options, standard deviation, largest size or None)
DISTRIBUTIONS = {
    "normal": ({"std": 0.3}, 0.3, None),
    "uniform": ({"limit": 0.25}, 0.25 / math.sqrt(3), 0.25),
    "truncated_normal": ({"std": 0.3}, 0.3 * CUT, 0.6),
    "glorot_normal": ({}, math.sqrt(2 / (INPUTS + UNITS)), None),
    "glorot_uniform": ({}, math.sqrt(2 / (INPUTS + UNITS)), math.sqrt(6 / (INPUTS + UNITS))),
    "he_normal": ({}, math.sqrt(2 / INPUTS), None),
    "he_uniform": ({}, math.sqrt(2 / INPUTS), math.sqrt(6 / INPUTS)),
    "lecun_normal": ({}, math.sqrt(1 / INPUTS), None),
    "lecun_uniform": ({}, math.sqrt(1 / INPUTS), math.sqrt(3 / INPUTS)),
}
OTHERS = ("zeros", "constant", "orthogonal")
OPTIONS = {"constant": {"value": 0.7}, "normal": {"std": 0.1}, "truncated_normal": {"std": 0.1}}


def numbers(name, shape=(UNITS, INPUTS), fans=(INPUTS, UNITS), seed=1, number=0, **options):
    return draw(SimpleNamespace(name=name, **options), shape, fans, seed, number)


def spec(name):
    return {"name": name} | OPTIONS.get(name, {})


def test_every_initialiser_is_tested():
    assert {*DISTRIBUTIONS, *OTHERS} == set(INITIALIZERS)


# --- distributions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_moments_and_bounds(name):
    options, std, largest = DISTRIBUTIONS[name]
    x = numbers(name, **options).ravel() / std
    n = x.size
    kurtosis = 3.0 if largest is None else 1.8 if "uniform" in name else 2.37
    assert abs(x.mean()) < 4 / math.sqrt(n)
    assert abs((x**2).mean() - 1) < 4 * math.sqrt((kurtosis - 1) / n)
    assert abs((x**4).mean() - kurtosis) < 0.06
    assert abs((x > 0).mean() - 0.5) < 2 / math.sqrt(n)
    if largest is None:
        assert np.abs(x).max() > 3.5
    else:
        assert 0.999 * largest < np.abs(x).max() * std <= largest
    # neighbours, along rows and along columns, know nothing of each other
    matrix = x.reshape(UNITS, INPUTS)
    assert abs((matrix[:, 1:] * matrix[:, :-1]).mean()) < 4 / math.sqrt(n)
    assert abs((matrix[1:] * matrix[:-1]).mean()) < 4 / math.sqrt(n)


def test_a_truncated_normal_is_drawn_again_rather_than_cut():
    x = np.abs(numbers("truncated_normal", std=1.0))
    assert (x == 2.0).sum() == 0
    assert (x > 1.9).mean() == pytest.approx(0.0126, abs=0.002)


def test_numbers_are_those_of_the_init_stream():
    """Parameter number n has substream n, and its elements go row by row, unit by unit."""
    u = rng.uniform(9, "init", 12, substream=4).reshape(3, 4)
    np.testing.assert_array_equal(numbers("uniform", (3, 4), (4, 3), 9, 4, limit=0.5), 0.5 * (2 * u - 1))
    z = rng.normal(9, "init", 12, substream=4).reshape(3, 4)
    np.testing.assert_array_equal(numbers("normal", (3, 4), (4, 3), 9, 4, std=0.5), 0.5 * z)


def test_a_uniform_without_a_limit_is_pytorchs_linear():
    x = numbers("uniform", limit=None)
    assert 0.999 / math.sqrt(INPUTS) < np.abs(x).max() <= 1 / math.sqrt(INPUTS)


@settings(deadline=None)
@given(rows=some.integers(1, 24), columns=some.integers(1, 24), seed=some.integers(0, 2**32))
def test_orthogonal_matrices_are_orthogonal(rows, columns, seed):
    w = numbers("orthogonal", (rows, columns), (columns, rows), seed)
    assert w.shape == (rows, columns)
    product = w @ w.T if rows <= columns else w.T @ w
    np.testing.assert_allclose(product, np.eye(min(rows, columns)), rtol=0, atol=1e-12)


def test_orthogonal_matrices_point_everywhere():
    first = np.array([numbers("orthogonal", (3, 3), (3, 3), seed)[2] for seed in range(2000)])
    assert np.abs(first.mean(axis=0)).max() < 4 * math.sqrt(1 / 3 / 2000)
    np.testing.assert_allclose(first.T @ first / 2000, np.eye(3) / 3, rtol=0, atol=0.03)


def test_an_orthogonal_vector_has_length_one():
    np.testing.assert_allclose((numbers("orthogonal", (7,), (3, 7)) ** 2).sum(), 1.0, rtol=1e-14)


# --- in a network -----------------------------------------------------------------------------------------------


def tensors(layers, seed=3, dtype="float64", inputs=5, outputs=3):
    with Pair(configure(layers, seed=seed, dtype=dtype), examples(2, inputs, outputs)) as pair:
        return pair.network.tensors()


@pytest.mark.parametrize("name", INITIALIZERS)
@pytest.mark.parametrize("units", [1, 9])
def test_every_initialiser_fills_weights_and_biases(name, units):
    made = tensors([{"units": units, "init": spec(name), "bias_init": spec(name)}, {}])
    weight, bias = made["layers.0.weight"], made["layers.0.bias"]
    fans = (5, units)
    options = OPTIONS.get(name, {"limit": None})
    np.testing.assert_array_equal(weight, numbers(name, (units, 5), fans, 3, 0, **options))
    np.testing.assert_array_equal(bias, numbers(name, (units,), fans, 3, 1, **options))


def test_a_bias_uses_its_layers_fans():
    made = tensors([{"units": 4000, "bias_init": "he_uniform"}, {}])
    largest = np.abs(made["layers.0.bias"]).max()
    assert 0.99 * math.sqrt(6 / 5) < largest <= math.sqrt(6 / 5)


def test_the_default_is_uniform_by_fan_in():
    made = tensors([{"units": 800}, {}])
    for name in ("layers.0.weight", "layers.0.bias"):
        assert 0.99 / math.sqrt(5) < np.abs(made[name]).max() <= 1 / math.sqrt(5)
    assert np.abs(made["layers.1.bias"]).max() <= 1 / math.sqrt(800)


def test_a_highway_begins_by_letting_x_pass():
    made = tensors([{"kind": "highway", "activation": "relu", "gate_bias": -2.5, "bias_init": "zeros"}, {}])
    np.testing.assert_array_equal(made["layers.0.gate.bias"], -2.5)
    np.testing.assert_array_equal(made["layers.0.bias"], 0.0)
    assert not np.array_equal(made["layers.0.gate.weight"], made["layers.0.weight"])


def test_norms_begin_as_identities():
    made = tensors([{"kind": "batch_norm"}, {"kind": "layer_norm"}, {}])
    for layer in (0, 1):
        np.testing.assert_array_equal(made[f"layers.{layer}.weight"], 1.0)
        np.testing.assert_array_equal(made[f"layers.{layer}.bias"], 0.0)
    np.testing.assert_array_equal(made["layers.0.running_mean"], 0.0)
    np.testing.assert_array_equal(made["layers.0.running_var"], 1.0)


def test_one_seed_one_network():
    layers = [{"units": 7, "init": "orthogonal"}, {"kind": "highway", "activation": "tanh"}, {}]
    first, again, other = (tensors(layers, seed) for seed in (1, 1, 2))
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
        assert np.array_equal(value, other[name]) == ("gate.bias" in name)


def test_float32_is_float64_rounded():
    layers = [{"units": 33, "init": "glorot_normal"}, {"kind": "concat", "layers": [{"units": 2}]}, {}]
    wide, narrow = tensors(layers, dtype="float64"), tensors(layers, dtype="float32")
    for name, value in wide.items():
        np.testing.assert_array_equal(narrow[name], value.astype(np.float32))


def test_a_layer_does_not_depend_on_its_neighbours():
    """Other units, activations, initialisers or a freeze elsewhere leave a layer's numbers alone."""
    last = {"units": 6, "init": "he_normal"}
    plain = tensors([{"units": 4}, {"units": 8}, last], outputs=6)["layers.2.weight"]
    for first in (
        {"units": 4, "init": "zeros", "bias_init": {"name": "constant", "value": 1.0}},
        {"units": 4, "init": "truncated_normal", "activation": "relu", "dropout": 0.5},
        {"units": 31, "freeze": True},
        {"units": 2, "weights": [[1.0] * 5] * 2, "bias": [0.0, 0.0]},
    ):
        other = tensors([first, {"units": 8}, last], outputs=6)["layers.2.weight"]
        np.testing.assert_array_equal(other, plain)


@pytest.mark.parametrize("dtype", DTYPES)
def test_given_numbers_are_taken_as_they_are(dtype):
    weights, bias = [[1.5, -2.0, 0.25], [0.0, 3.0, -1.0]], [0.5, -0.5]
    made = tensors([{"weights": weights, "bias": bias, "units": 2}], inputs=3, outputs=2, dtype=dtype)
    np.testing.assert_array_equal(made["layers.0.weight"], weights)
    np.testing.assert_array_equal(made["layers.0.bias"], bias)


def test_given_numbers_that_do_not_fit_the_data_are_refused():
    message = "network.layers.0.weights: expected numbers of shape (2, 3) (units, inputs); got shape (2, 2)"
    with pytest.raises(ConfigError, match=re.escape(message)):
        tensors([{"weights": [[1.0, 2.0], [3.0, 4.0]], "units": 2}], inputs=3, outputs=2)
