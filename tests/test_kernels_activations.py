"""Each activation and its derivative against the twin, in both types, with odd numbers of units and special values."""

import math

import numpy as np
import pytest
from engine import DTYPES, entry, padded_rows
from reference import activations as reference

from mlp_cli.kernels import activations, layout
from mlp_cli.kernels.lanes import pointer_to
from mlp_cli.vocab import ACTIVATIONS

# a and b of the kernels: alpha, or low and high
OPTIONS = {
    "threshold": [{}, {"low": -1.0, "high": 2.0}],
    "leaky_relu": [{}, {"alpha": 0.3}],
    "elu": [{}, {"alpha": 0.5}],
    "softmax": [{}, {"alpha": 2.5}],
}
CASES = [(name, options) for name in ACTIVATIONS for options in OPTIONS.get(name, [{}])]
# Largest errors relative to the largest of result and 1: the functions' own few ulps.
TOLERANCE = {"float32": 2e-6, "float64": 4e-15}
UNITS = (1, 5, 8, 16, 17, 33)

both_types = pytest.mark.parametrize("dtype", DTYPES)
every_case = pytest.mark.parametrize(
    ("name", "options"), CASES, ids=lambda part: "-".join(map(str, part.values())) if isinstance(part, dict) else part
)


@entry("n(i,f,f,s[:],i,s[:],i,i,i)")
def forward(code, a, b, y, y_row, z, z_row, rows, units):
    activations.activate(code, a, b, pointer_to(y), y_row, pointer_to(z), z_row, rows, units)


@entry("n(i,f,f,s[:],i,s[:],i,i,i)")
def backward(code, a, b, d, d_row, x, x_row, rows, units):
    activations.activate_backward(code, a, b, pointer_to(d), d_row, pointer_to(x), x_row, rows, units)


def kernel_options(name, options):
    default = activations.default_options(name)
    if name == "threshold":
        return options.get("low", default[0]), options.get("high", default[1])
    return options.get("alpha", default[0]), default[1]


def inputs(n, units, dtype):
    """Pre-activations of every size up to 40, exact for the type."""
    random = np.random.default_rng(units)
    z = random.normal(size=(n, units)) * 10.0 ** random.uniform(-3, 1.2, (n, units))
    return np.clip(z, -40, 40).astype(dtype).astype(np.float64)


def of_kernel(name, options, z, dtype, fill=math.nan):
    """y = f(z), and that everything beyond the units is zero, whatever was there."""
    n, units = z.shape
    flat_z, z_row, _ = padded_rows(z, dtype, fill)
    flat_y, y_row, rows = padded_rows(np.full_like(z, math.nan), dtype, math.nan)
    forward(dtype, ACTIVATIONS[name], *kernel_options(name, options), flat_y, y_row, flat_z, z_row, n, units)
    sound = ~np.isnan(z).any(axis=1)
    assert not rows[:n][sound, units : layout.padded(units, dtype)].any()
    return rows[:n, :units].copy()


def slope_of_kernel(name, options, z, y, dy, dtype):
    """dz from dy; the derivative is computed from z or y, whichever the table says."""
    n, units = z.shape
    of = z if activations.needs_input(name) else y
    flat_x, x_row, _ = padded_rows(of, dtype)
    flat_d, d_row, rows = padded_rows(dy, dtype)
    backward(dtype, ACTIVATIONS[name], *kernel_options(name, options), flat_d, d_row, flat_x, x_row, n, units)
    assert not rows[:n, units:].any()
    return rows[:n, :units].copy()


def spec(name, options):
    return {"name": name} | options


@both_types
@every_case
def test_value(name, options, dtype):
    if name in activations.ELEMENTWISE:
        assert name not in ("softmax", "hardmax")
    for units in UNITS:
        z = inputs(9, units, dtype)
        y, expected = of_kernel(name, options, z, dtype), reference.value(spec(name, options), z)
        assert (np.abs(y - expected) <= TOLERANCE[dtype] * np.maximum(1.0, np.abs(expected))).all()


@both_types
@every_case
def test_derivative(name, options, dtype):
    for units in UNITS:
        z = inputs(9, units, dtype)
        dy = np.random.default_rng(1).normal(size=z.shape).astype(dtype).astype(np.float64)
        y = of_kernel(name, options, z, dtype)
        dz = slope_of_kernel(name, options, z, y, dy, dtype)
        expected = reference.pullback(spec(name, options), z, dy)
        assert (np.abs(dz - expected) <= 4 * TOLERANCE[dtype] * np.maximum(1.0, np.abs(expected))).all()


@both_types
@every_case
def test_result_may_take_the_place_of_its_argument(name, options, dtype):
    z = inputs(3, 21, dtype)
    z[2, 3] = math.nan
    expected = of_kernel(name, options, z, dtype)
    flat, row, rows = padded_rows(z, dtype)
    forward(dtype, ACTIVATIONS[name], *kernel_options(name, options), flat, row, flat, row, 3, 21)
    np.testing.assert_array_equal(rows[:3, :21], expected)


@both_types
@every_case
def test_nan_comes_out_as_nan(name, options, dtype):
    """The loss must not be finite when an input is not."""
    z = np.zeros((3, 5))
    z[0, 0] = z[1, 2] = z[2, 4] = math.nan
    y = of_kernel(name, options, z, dtype)
    assert np.isnan(y).any(axis=1).all()
    if name in activations.ELEMENTWISE:
        np.testing.assert_array_equal(np.isnan(y), np.isnan(z))


@both_types
@every_case
def test_huge_arguments_stay_finite_or_follow_the_twin(name, options, dtype):
    for size in (50.0, 1000.0, 1e30):
        z = np.array([[size, -size, 0.0], [-size, -size, -size], [size, size, 1.0]])
        z = z.astype(dtype).astype(np.float64)
        if name == "sin" and size > 1000:
            continue  # beyond the range that sin promises
        with np.errstate(over="ignore"):
            expected = reference.value(spec(name, options), z).astype(dtype)
        y = of_kernel(name, options, z, dtype)
        np.testing.assert_allclose(y, expected, rtol=4 * TOLERANCE[dtype], atol=TOLERANCE[dtype])
        dz = slope_of_kernel(name, options, z, y, np.ones_like(z), dtype)
        if name != "exponential":
            assert np.isfinite(dz).all()


@both_types
def test_softmax_of_logits_a_thousand_apart(dtype):
    z = np.array([[1000.0, -1000.0, 0.0], [1000.0, 1000.0, -1000.0], [-1000.0, -1000.0, -1000.0]])
    y = of_kernel("softmax", {}, z, dtype)
    third = np.dtype(dtype).type(1) / np.dtype(dtype).type(3)
    np.testing.assert_array_equal(y, np.array([[1, 0, 0], [0.5, 0.5, 0], [third] * 3], dtype))


@both_types
def test_softmax_sums_to_one(dtype):
    for units in (2, 7, 16, 50):
        y = of_kernel("softmax", {}, inputs(20, units, dtype), dtype)
        np.testing.assert_allclose(y.astype(np.float64).sum(axis=1), 1.0, rtol=8 * np.finfo(dtype).eps)


@both_types
def test_hardmax_gives_ties_to_the_lowest(dtype):
    z = np.zeros((3, 37))
    z[1, [5, 20, 36]] = 3.0
    z[2] = -math.inf
    y = of_kernel("hardmax", {}, z, dtype)
    np.testing.assert_array_equal(y.argmax(axis=1), [0, 5, 0])
    np.testing.assert_array_equal(y.sum(axis=1), 1.0)


@both_types
def test_the_threshold_includes_zero(dtype):
    z = np.array([[-0.0, 0.0, -np.finfo(dtype).smallest_subnormal, np.finfo(dtype).smallest_subnormal]])
    np.testing.assert_array_equal(of_kernel("threshold", {}, z, dtype), [[1, 1, 0, 1]])


@both_types
@every_case
def test_rows_do_not_see_each_other(name, options, dtype):
    z = inputs(7, 19, dtype)
    whole = of_kernel(name, options, z, dtype)
    for i in range(7):
        np.testing.assert_array_equal(of_kernel(name, options, z[i : i + 1], dtype), whole[i : i + 1])


def test_the_table_is_the_vocabularys():
    assert set(activations.ELEMENTWISE) | {"softmax", "hardmax"} == set(ACTIVATIONS)
    assert set(reference.NAMES) == set(ACTIVATIONS)
