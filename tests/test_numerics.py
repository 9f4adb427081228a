"""Elementary functions against 60 digits of the decimal module, in units of the last place."""

import hashlib
import math
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest

from mlp_cli import numerics, rng

INF, NAN = np.inf, np.nan
TINY = 5e-324  # the smallest subnormal
LARGEST = np.finfo(np.float64).max
PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459")


@pytest.fixture(autouse=True)
def sixty_digits():
    with localcontext(prec=60, Emax=10**9, Emin=-(10**9)):
        yield


def spread(low, high, n=400, draw=0):
    return low + (high - low) * rng.uniform(0, "check", n, draw=draw)


def magnitudes(n=400, draw=0):
    """Positive float64 of every exponent, subnormals included."""
    return np.ldexp(spread(0.5, 1, n, draw), np.linspace(-1073, 1024, n).astype(np.int32))


def assert_within(ulps, results, references):
    for result, reference in zip(results.tolist(), references, strict=True):
        off = abs(Decimal(result) - reference) / Decimal(math.ulp(result))
        assert off <= ulps, f"{result!r} is {off:.3g} ulp from {reference}"


def assert_same(results, expected):
    """Equal, with nan equal to nan and -0.0 different from 0.0."""
    results, expected = np.asarray(results), np.asarray(expected, dtype=np.float64)
    np.testing.assert_array_equal(results, expected)
    number = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(results)[number], np.signbit(expected)[number])


def cos_of_turn(x):
    """cos(pi x) to some 50 digits, by its series after an exact reduction."""
    t = Fraction(x) % 2
    if t.denominator == 2:
        return Decimal(0)
    angle = PI * Decimal(t.numerator) / Decimal(t.denominator)
    total = term = Decimal(1)
    for k in range(1, 60):
        term *= -angle * angle / ((2 * k - 1) * (2 * k))
        total += term
    return total


def sin_of_turn(x):
    """sin(pi x) likewise."""
    t = Fraction(x) - 2 * round(Fraction(x) / 2)
    if t.denominator == 1:
        return Decimal(0)
    angle = PI * Decimal(t.numerator) / Decimal(t.denominator)
    total = term = angle
    for k in range(1, 60):
        term *= -angle * angle / ((2 * k) * (2 * k + 1))
        total += term
    return total


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (-745, 709.7), (-1e-9, 1e-9), (-745.1, -708)])
def test_exp(low, high):
    x = spread(low, high)
    assert_within(2, numerics.exp(x), [Decimal(value).exp() for value in x.tolist()])


def test_exp_at_the_edges():
    x = [0.0, -0.0, INF, -INF, NAN, 709.782712893384, 709.782712893385, -745.13, -745.14, 1e300, -1e300, TINY]
    expected = [1, 1, INF, 0, NAN, 1.7976931348622732e308, INF, TINY, 0, INF, 0, 1]
    assert_same(numerics.exp(x), expected)


def test_log():
    x = np.concatenate([magnitudes(), spread(0.5, 2), 1 + spread(-1e-7, 1e-7)])
    assert_within(2, numerics.log(x), [Decimal(value).ln() for value in x.tolist()])


def test_log_at_the_edges():
    assert_same(numerics.log([1, 0, -0.0, -1, INF, -INF, NAN]), [0, -INF, -INF, NAN, INF, NAN, NAN])
    assert_within(2, numerics.log([TINY, LARGEST]), [Decimal(TINY).ln(), Decimal(LARGEST).ln()])


def test_sinpi_and_cospi():
    x = np.concatenate([spread(-1, 1, 300), spread(-1000, 1000, 100), np.ldexp(1.0, np.arange(-60, 0))])
    x = np.concatenate([x, 0.5 + spread(-1e-8, 1e-8, 50), 2.0**40 + spread(-2, 2, 50)])
    assert_within(2, numerics.sinpi(x), [sin_of_turn(value) for value in x.tolist()])
    assert_within(2, numerics.cospi(x), [cos_of_turn(value) for value in x.tolist()])


def test_sinpi_and_cospi_at_the_edges():
    x = [0.0, -0.0, 0.5, -0.5, 1, -1, 1.5, 2, -2, 2.5, 2.0**53, 2.0**53 - 1, -1e300, INF, -INF, NAN]
    sines = [0.0, -0.0, 1, -1, 0.0, -0.0, -1, 0.0, -0.0, 1, 0.0, 0.0, -0.0, NAN, NAN, NAN]
    cosines = [1, 1, 0.0, 0.0, -1, -1, 0.0, 1, 1, 0.0, 1, -1, 1, NAN, NAN, NAN]
    assert_same(numerics.sinpi(x), sines)
    assert_same(numerics.cospi(x), cosines)


@pytest.mark.parametrize("base", [0.999, 0.9, 1.0001, 2.0, -1.5, 1e-3, 0.1, 1e200, 1e-200, 3e-320])
def test_integer_power(base):
    n = np.array([-1000, -307, -64, -3, -1, 0, 1, 2, 3, 10, 63, 500, 1000, 10**5, 10**6])
    references = [Decimal(base) ** int(k) for k in n]
    results = numerics.integer_power(base, n)
    finite = np.isfinite(results)
    assert all(abs(references[i]) > Decimal(LARGEST) for i in np.flatnonzero(~finite))
    assert_within(1, results[finite], [references[i] for i in np.flatnonzero(finite)])


def test_integer_power_at_the_edges():
    n = np.array([-3, -2, 0, 2, 3])
    assert_same(numerics.integer_power(0.0, n), [INF, INF, 1, 0, 0])
    assert_same(numerics.integer_power(-0.0, n), [-INF, INF, 1, 0, -0.0])
    assert_same(numerics.integer_power(INF, n), [0, 0, 1, INF, INF])
    assert_same(numerics.integer_power(-INF, n), [-0.0, 0, 1, INF, -INF])
    assert_same(numerics.integer_power(NAN, n), [NAN, NAN, 1, NAN, NAN])
    assert_same(numerics.integer_power([2.0, -2.0], [1023, 1024]), [2.0**1023, INF])
    assert_same(numerics.integer_power([2.0, 2.0, -2.0], [-1074, -1076, -1077]), [TINY, 0, -0.0])
    assert_same(numerics.integer_power([0.5, 2, 1, -1], 2**62), [0, INF, 1, 1])


@pytest.mark.parametrize("p", [0.25, 1 / 3, -0.5, 0.7, 1.5, 2.7, -3.3, 10.123, 123.456])
def test_power(p):
    x = np.concatenate([spread(0, 20, 60), magnitudes(60), 1 + spread(-1e-3, 1e-3, 20)])
    results = numerics.power(x, p)
    references = [(Decimal(value).ln() * Decimal(p)).exp() for value in x.tolist()]
    finite = np.flatnonzero(np.isfinite(results))
    assert len(finite) > 50
    assert_within(2, results[finite], [references[i] for i in finite])


def test_power_where_it_is_exact():
    x = np.concatenate([[0.0], magnitudes(50), spread(0, 9, 50)])
    assert_same(numerics.power(x, 0), np.ones(101))
    assert_same(numerics.power(x, 0.5), np.sqrt(x))
    assert_same(numerics.power(x, 1), x)
    assert_same(numerics.power(x, -7), numerics.integer_power(x, -7))
    assert_same(numerics.power(10.0, np.arange(23)), [float(10**k) for k in range(23)])


def test_power_follows_ieee_754_at_the_edges():
    values = [0.0, -0.0, 1.0, -1.0, 0.3, 7.0, -7.0, INF, -INF, NAN, LARGEST, TINY, 1 - 2**-53, 1 + 2**-52]
    for x in values:
        for p in [0.0, 0.5, -0.5, 1.5, -1.5, 2.0, 3.0, -3.0, 1e9 + 0.5, 1e300, -1e300, INF, -INF, NAN]:
            with np.errstate(all="ignore"):
                expected = np.power(np.full(2, x), np.full(2, p))
            np.testing.assert_allclose(numerics.power(x, p), expected, rtol=1e-13, err_msg=f"{x} ** {p}")


@pytest.mark.parametrize("function", [numerics.exp, numerics.log, numerics.sinpi, numerics.cospi])
def test_numbers_arrays_and_views_agree(function):
    x = np.linspace(0.1, 3, 24)
    grid = function(x.reshape(4, 6))
    assert grid.shape == (4, 6)
    assert grid.dtype == np.float64
    one_by_one = [function(value) for value in x]
    assert all(np.ndim(value) == 0 for value in one_by_one)
    assert np.array_equal(grid.ravel(), one_by_one)
    assert np.array_equal(function(x[::-3]), function(x)[::-3])
    assert function(np.empty(0)).shape == (0,)
    assert function(np.int64(2)) == function(2.0)


def test_power_broadcasts():
    base, n = np.array([[2.0], [3.0]]), np.arange(4)
    assert np.array_equal(numerics.integer_power(base, n), [[1, 2, 4, 8], [1, 3, 9, 27]])
    assert np.array_equal(numerics.power(base, n), [[1, 2, 4, 8], [1, 3, 9, 27]])
    assert numerics.power(base, np.empty(0)).shape == (2, 0)


def test_the_bits_are_fixed():
    """The same on every processor: this digest was written down once."""
    x = spread(0, 30, 1000)
    results = [
        numerics.exp(-x),
        numerics.log(x),
        numerics.sinpi(x),
        numerics.cospi(x),
        numerics.integer_power(0.999, np.arange(1000)),
        numerics.power(x, 1.7),
    ]
    assert hashlib.sha256(np.stack(results).astype("<f8").tobytes()).hexdigest() == (
        "0276b6dfb989fc57fb5d47061a1534c0032590bc7ee0b763a71fb9ac5b3b3431"
    )
