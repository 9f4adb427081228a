"""The elementary functions against more exact ones, at the edges of the number line, and on other processors.

Run as a program it prints a digest of the bits of every function, and whether 512-bit registers were used.
"""

import decimal
import hashlib
import math
import os
import subprocess
import sys
from decimal import Decimal
from functools import cache

import numpy as np
import pytest
from engine import entry, vector_code
from processors import PROCESSORS, of_x86

from mlp_cli.kernels import elementary, lanes
from mlp_cli.kernels.lanes import at, lanes_of, pointer_to, vload, vstore

WIDE = np.longdouble
PI = WIDE("3.14159265358979323846264338327950288")
NAN, INF = math.nan, math.inf

# The bounds that the module's docstring promises, in units in the last place.
ULPS = {
    "exp": 1.1,
    "expm1": 2.1,
    "log": 1,
    "log1p": 1.5,
    "tanh": 2.5,
    "sigmoid": 2.3,
    "erf": 1.5,
    "normal_cdf": 4.5,
    "normal_pdf": 1.5,
    "softplus": 2,
    "sin": 1.6,
    "cos": 1.6,
    "sinpi": 1.6,
    "cospi": 1.6,
}

both_types = pytest.mark.parametrize("dtype", ["float32", "float64"])


@cache
def over_arrays(name):
    """A loop over arrays whose length is a multiple of the vector's."""
    generator = getattr(elementary, name)
    of_vector = getattr(elementary, f"v{name}", None) or lanes.intrinsic("v(v)")(lambda e, x: generator(e, x))

    @entry("n(s[:],s[:],i)")
    def loop(x, y, n):
        source, target = pointer_to(x), pointer_to(y)
        for i in range(0, n, lanes_of(source)):
            vstore(at(target, i), of_vector(vload(at(source, i))))

    return loop


def evaluate(name, x):
    padded = np.zeros(-(-x.size // 16) * 16, x.dtype)
    padded[: x.size] = x
    result = np.empty_like(padded)
    over_arrays(name)(x.dtype.name, padded, result, padded.size)
    return result[: x.size]


# --- references -------------------------------------------------------------------------------------------------


def normal_cdf(x):
    """Φ in 60 digits: a series of positive terms in the middle, Laplace's continued fraction in the tails."""
    with decimal.localcontext(prec=60):
        a = abs(Decimal(float(x)))
        density = (-a * a / 2).exp() / Decimal("6.28318530717958647692528676655900576839433879875021").sqrt()
        if a > 4:
            fraction = a
            for k in range(300, 0, -1):
                fraction = a + k / fraction
            tail = density / fraction
        else:
            total = term = a
            for k in range(3, 300, 2):
                term = term * a * a / k
                total += term
            tail = Decimal("0.5") - density * total
        return WIDE(str(1 - tail if x > 0 else tail))


def erf(x):
    """2 (Φ(√2 x) - ½) in 60 digits."""
    with decimal.localcontext(prec=60):
        a = Decimal(float(x))
        total = term = a
        for k in range(1, 300):
            term = -term * a * a / k
            total += term / (2 * k + 1)
        return WIDE(str(2 * total / Decimal("3.14159265358979323846264338327950288419716939937511").sqrt()))


def quadrant(x):
    """π x, modulo 2π, as an integer number of right angles and a rest; all exact but for the last product."""
    x = np.fmod(x, WIDE(2))
    quarters = np.round(2 * x)
    return quarters.astype(int) % 4, PI * (x - quarters / 2)


def sinpi(x):
    q, r = quadrant(x)
    return np.choose(q, [np.sin(r), np.cos(r), -np.sin(r), -np.cos(r)])


def cospi(x):
    q, r = quadrant(x)
    return np.choose(q, [np.cos(r), -np.sin(r), -np.cos(r), np.sin(r)])


REFERENCES = {
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "erf": np.vectorize(erf, otypes=[WIDE]),
    "normal_cdf": np.vectorize(normal_cdf, otypes=[WIDE]),
    "normal_pdf": lambda x: np.exp(-x * x / 2) / np.sqrt(2 * PI),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "sin": np.sin,
    "cos": np.cos,
    "sinpi": sinpi,
    "cospi": cospi,
}


def arguments(name, dtype):
    """Finite numbers of the function's domain: around 0 and 1, of every size, and where it ends."""
    rng = np.random.default_rng(2024)
    kind = np.finfo(dtype)
    few = 200 if name in ("erf", "normal_cdf") else 4000
    every_size = np.exp2(rng.uniform(kind.minexp - kind.nmant, 0, few)) * rng.choice([-1, 1], few)
    middle = np.concatenate([rng.normal(0, 1, few), rng.normal(0, 5, few), every_size])
    tails = {
        "exp": 1.02 * math.log(kind.smallest_subnormal),
        "log": 0.0,
        "log1p": 0.0,
        "tanh": 30.0,
        "erf": 4.0,
        "normal_cdf": -14.2 if dtype == "float32" else -38.5,
        "sin": 1e5,
        "cos": 1e5,
        "sinpi": 2.0**30,
        "cospi": 2.0**30,
    }
    end = tails.get(name, tails["exp"])
    x = np.concatenate([middle, rng.uniform(min(end, -end / 3), max(end, -end / 3), few)])
    if name in ("log", "log1p"):
        x = np.concatenate([np.abs(x), 1 + every_size, np.exp2(rng.uniform(kind.minexp, kind.maxexp, few))])
        if name == "log1p":
            x = np.concatenate([x, -np.abs(every_size)])
    elif name == "erf":
        x = np.clip(x, -7.0, 7.0)
    elif name in ("sin", "cos"):
        x = np.concatenate([x, np.arange(-1000, 1000) * (math.pi / 2)])
    x = x.astype(dtype)
    return x[(x > 0) | (name != "log")] if name != "log1p" else x[x > -1]


def ulps(y, exact):
    with np.errstate(over="ignore", under="ignore"):
        nearest = np.abs(exact).astype(y.dtype)
    finite = np.isfinite(nearest)
    assert np.array_equal(np.abs(y[~finite]), nearest[~finite])
    return np.abs(y[finite].astype(WIDE) - exact[finite]) / np.spacing(nearest[finite])


@both_types
@pytest.mark.parametrize("name", REFERENCES)
def test_error_stays_within_the_documented_bound(name, dtype):
    if dtype == "float64" and np.finfo(WIDE).nmant < 60:
        pytest.skip("long double is no wider than float64 here")
    x = arguments(name, dtype)
    with np.errstate(over="ignore", under="ignore"):
        exact = REFERENCES[name](x.astype(WIDE))
    errors = ulps(evaluate(name, x), exact)
    assert errors.max() <= ULPS[name], f"{errors.max()} ulp at {x[errors.argmax()]!r}"


# --- the edges --------------------------------------------------------------------------------------------------

# pairs of argument and result
SPECIAL_VALUES = {
    "exp": [(-INF, 0.0), (-1e4, 0.0), (-0.0, 1.0), (0.0, 1.0), (1e4, INF), (INF, INF)],
    "expm1": [(-INF, -1.0), (-1e4, -1.0), (-0.0, -0.0), (0.0, 0.0), (1e4, INF), (INF, INF)],
    "log": [(-INF, NAN), (-1.0, NAN), (-1e-40, NAN), (-0.0, -INF), (0.0, -INF), (1.0, 0.0), (INF, INF)],
    "log1p": [(-INF, NAN), (-1.5, NAN), (-1.0, -INF), (-0.0, -0.0), (0.0, 0.0), (INF, INF)],
    "tanh": [(-INF, -1.0), (-100.0, -1.0), (-0.0, -0.0), (0.0, 0.0), (100.0, 1.0), (INF, 1.0)],
    "sigmoid": [(-INF, 0.0), (-1e4, 0.0), (-0.0, 0.5), (0.0, 0.5), (1e4, 1.0), (INF, 1.0)],
    "erf": [(-INF, -1.0), (-1e30, -1.0), (-0.0, -0.0), (0.0, 0.0), (1e30, 1.0), (INF, 1.0)],
    "normal_cdf": [(-INF, 0.0), (-1e30, 0.0), (-0.0, 0.5), (0.0, 0.5), (1e30, 1.0), (INF, 1.0)],
    "normal_pdf": [(-INF, 0.0), (-1e30, 0.0), (1e30, 0.0), (INF, 0.0)],
    "softplus": [(-INF, 0.0), (-1e4, 0.0), (1e30, 1e30), (INF, INF)],
    "sin": [(-INF, NAN), (-0.0, -0.0), (0.0, 0.0), (1e30, 0.0), (INF, NAN)],
    "cos": [(-INF, NAN), (-0.0, 1.0), (0.0, 1.0), (1e30, 1.0), (INF, NAN)],
    "sinpi": [
        (-INF, NAN),
        (-1.0, -0.0),
        (-0.5, -1.0),
        (-0.0, -0.0),
        (0.0, 0.0),
        (0.5, 1.0),
        (1.0, 0.0),
        (1e30, 0.0),
        (INF, NAN),
    ],
    "cospi": [
        (-INF, NAN),
        (-1.0, -1.0),
        (0.0, 1.0),
        (0.5, 0.0),
        (1.0, -1.0),
        (1.5, 0.0),
        (3e5 + 1, -1.0),
        (1e30, 1.0),
        (INF, NAN),
    ],
}


@both_types
@pytest.mark.parametrize("name", SPECIAL_VALUES)
def test_special_values_are_exact(name, dtype):
    x, expected = np.array([(NAN, NAN), *SPECIAL_VALUES[name]], dtype).T
    y = evaluate(name, x)
    np.testing.assert_array_equal(y, expected)
    if name != "cospi":  # whose zeros may have either sign
        known = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(y[known]), np.signbit(expected[known]))


@both_types
@pytest.mark.parametrize("name", ["expm1", "log1p", "tanh", "sin"])
def test_subnormal_arguments_come_back_unchanged(name, dtype):
    smallest = np.finfo(dtype).smallest_subnormal
    x = smallest * np.array([1, 2, 3, 5, 1000, -1, -7], dtype)
    np.testing.assert_array_equal(evaluate(name, x), x)


@both_types
@pytest.mark.parametrize("name", ["tanh", "erf", "sin", "sinpi"])
def test_odd_functions_are_odd_to_the_bit(name, dtype):
    x = arguments(name, dtype)
    np.testing.assert_array_equal(evaluate(name, -x), -evaluate(name, x))


# --- the same bits ----------------------------------------------------------------------------------------------


def digest():
    """A hash of the results of every function for arguments of all sizes, NaNs made alike."""
    rng = np.random.default_rng(7)
    digest = hashlib.sha256()
    uses_zmm = False
    for dtype, integers in (("float32", np.uint32), ("float64", np.uint64)):
        any_bits = rng.integers(0, 2 ** (8 * np.dtype(dtype).itemsize), 4096, integers).view(dtype)
        x = np.concatenate([any_bits, rng.uniform(-20, 20, 4096).astype(dtype)])
        for name in REFERENCES:
            y = evaluate(name, x)
            y[np.isnan(y)] = NAN
            digest.update(y.tobytes())
            uses_zmm |= "zmm" in vector_code([over_arrays(name).kernel], dtype)
    return digest.hexdigest(), uses_zmm


@of_x86
@pytest.mark.parametrize("processor", PROCESSORS)
def test_other_processors_give_the_same_bits(processor):
    program = [sys.executable, __file__]
    run = subprocess.run(program, env=os.environ | PROCESSORS[processor], capture_output=True, text=True, check=True)
    here, _ = digest()
    assert run.stdout.split() == [here, "False"]


if __name__ == "__main__":
    print(*digest())
