"""Elementary functions in plain float64 arithmetic, so that every processor and every NumPy gives the same bits.

NumPy picks its own vector code for exp, log, sin and power by processor, and the last bit moves with it. Here there are
only + - * / sqrt, comparisons and exact operations (frexp, ldexp, rint), each of them fixed by IEEE 754. All functions
take numbers or arrays, give float64, warn never, and are within 2 ulp of the true value (tests/test_numerics.py).
"""

import numpy as np

# The polynomials of exp, log, sin and cos are those of fdlibm:
# Copyright (C) 1993 by Sun Microsystems, Inc. All rights reserved.
# Developed at SunPro, a Sun Microsystems, Inc. business. Permission to use, copy, modify, and distribute this
# software is freely granted, provided that this notice is preserved.
LN2 = 6.93147180559945286227e-01
LN2_HIGH = 6.93147180369123816490e-01  # 33 trailing zero bits: times any exponent it is exact
LN2_LOW = 1.90821492927058770002e-10
LOG2_E = 1.44269504088896338700e00
SQRT_HALF = 7.07106781186547572737e-01
PI_HIGH = 3.14159265358979311600e00
PI_LOW = 1.22464679914735317636e-16

EXP_COEFFICIENTS = (
    1.66666666666666019037e-01,
    -2.77777777770155933842e-03,
    6.61375632143793436117e-05,
    -1.65339022054652515390e-06,
    4.13813679705723846039e-08,
)
LOG_COEFFICIENTS = (
    6.666666666666735130e-01,
    3.999999999940941908e-01,
    2.857142874366239149e-01,
    2.222219843214978396e-01,
    1.818357216161805012e-01,
    1.531383769920937332e-01,
    1.479819860511658591e-01,
)
SIN_COEFFICIENTS = (
    -1.66666666666666324348e-01,
    8.33333333332248946124e-03,
    -1.98412698298579493134e-04,
    2.75573137070700676789e-06,
    -2.50507602534068634195e-08,
    1.58969099521155010221e-10,
)
COS_COEFFICIENTS = (
    4.16666666666666019037e-02,
    -1.38888888888741095749e-03,
    2.48015872894767294178e-05,
    -2.75573143513906633035e-07,
    2.08757232129817482790e-09,
    -1.13596475577881948265e-11,
)

LARGEST_EXPONENT = 2**40  # far beyond any float64, far from overflowing int64
LARGEST_POWER = 2.0**63 - 1024  # with it even the neighbours of 1 have gone to 0 or infinity


def exp(x):
    """e^x = 2^k e^r with k = rint(x / ln 2) and |r| <= ln(2)/2; 0 below -745.14, inf above 709.78."""
    x = np.asarray(x, dtype=np.float64)
    with np.errstate(all="ignore"):
        inside = np.clip(x, -800.0, 800.0)
        k = np.rint(inside * LOG2_E)
        high = inside - k * LN2_HIGH
        low = k * LN2_LOW
        r = high - low
        c = r - r * r * _horner(EXP_COEFFICIENTS, r * r)
        y = 1.0 - ((low - (r * c) / (2.0 - c)) - high)
        result = _scale(np.where(np.isnan(x), 1.0, y), np.where(np.isnan(x), 0.0, k))
    return np.where(np.isnan(x), x, result)[()]


def log(x):
    """Natural logarithm: x = 2^k m with m in [sqrt(1/2), sqrt 2), log m from s = (m - 1)/(m + 1).

    -inf at 0, nan below.
    """
    x = np.asarray(x, dtype=np.float64)
    with np.errstate(all="ignore"):
        m, k = _mantissa(x)
        f = m - 1.0
        s = f / (2.0 + f)
        z = s * s
        half_square = 0.5 * f * f
        r = z * _horner(LOG_COEFFICIENTS, z)
        result = k * LN2_HIGH - ((half_square - (s * (half_square + r) + k * LN2_LOW)) - f)
        result = np.where(x > 0.0, result, np.where(x == 0.0, -np.inf, np.nan))
    return np.where(x == np.inf, np.inf, result)[()]


def sinpi(x):
    """sin(pi x), exact at every multiple of 1/2; at integers a zero of the sign of x; nan at infinity."""
    x = np.asarray(x, dtype=np.float64)
    with np.errstate(all="ignore"):
        quarter, sine, cosine = _quarter_turns(x)
        result = np.where(quarter == 1.0, cosine, np.where(quarter == -1.0, -cosine, sine))
        result = np.where(np.abs(quarter) == 2.0, -sine, result)
    return np.where(result == 0.0, np.copysign(0.0, x), result)[()]


def cospi(x):
    """cos(pi x), exact at every multiple of 1/2; nan at infinity."""
    x = np.asarray(x, dtype=np.float64)
    with np.errstate(all="ignore"):
        quarter, sine, cosine = _quarter_turns(x)
        result = np.where(quarter == 1.0, -sine, np.where(quarter == -1.0, sine, cosine))
        result = np.where(np.abs(quarter) == 2.0, -cosine, result)
    return (result + 0.0)[()]  # -0.0 + 0.0 is 0.0


def integer_power(base, n):
    """base^n for integers n, by squaring and multiplying in double-double arithmetic.

    In plain float64 each squaring doubles the relative error: 0.999^100000 would be off by some 10^5 ulp.
    """
    base = np.asarray(base, dtype=np.float64)
    n = np.asarray(n, dtype=np.int64)
    with np.errstate(all="ignore"):
        high, low, exponent = _integer_power_parts(base, n)
        return _with_special_bases(base, n, (n & 1) == 1, _scale(high + low, exponent))[()]


def power(x, p):
    """x^p for real p: x^i e^(f log x) with i = rint(p) and |f| <= 1/2; special values as IEEE 754 pow.

    Exact for p = 0 and 1 and as sqrt for p = 1/2; nan for a finite x < 0 and a fractional p.
    """
    x = np.asarray(x, dtype=np.float64)
    p = np.asarray(p, dtype=np.float64)
    with np.errstate(all="ignore"):
        clipped = np.where(np.isnan(p), 0.0, np.clip(p, -LARGEST_POWER, LARGEST_POWER))
        whole = np.rint(clipped)
        fraction = clipped - whole
        n = whole.astype(np.int64)
        high, low, exponent = _integer_power_parts(x, n)

        # x^f = 2^(kf) m^f, and kf = turns + rest holds exactly: the argument of exp stays below 0.53
        m, k = _mantissa(np.where((x != 0.0) & np.isfinite(x), np.abs(x), 1.0))
        product, error = _two_product(k, fraction)
        turns = np.rint(product)
        factor = exp(((product - turns) + error) * LN2 + fraction * log(m))

        result = _scale(high * factor + low * factor, exponent + turns)
        result = np.where((p == 0.5) & (x >= 0.0), np.sqrt(x) + 0.0, result)
        odd = (fraction == 0.0) & ((n & 1) == 1)
        result = _with_special_bases(x, clipped, odd, result)
        result = np.where((x < 0.0) & np.isfinite(x) & (fraction != 0.0), np.nan, result)
    return np.where(np.isnan(p) & (x != 1.0), np.nan, result)[()]


def _horner(coefficients, x):
    """c0 + x (c1 + x (c2 + ...))."""
    result = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        result = coefficient + x * result
    return result


def _mantissa(x):
    """(m, k) with x = m 2^k and m in [sqrt(1/2), sqrt 2), both float64; x positive and finite."""
    m, k = np.frexp(x)
    small = m < SQRT_HALF
    return np.where(small, 2.0 * m, m), np.where(small, k - 1.0, k * 1.0)


def _scale(x, exponent):
    """x 2^exponent, rounded once; the exponent may be of any size."""
    return np.ldexp(x, np.clip(exponent, -5000, 5000).astype(np.int32))


def _two_product(a, b):
    """(p, e) with p = a*b rounded and p + e = a*b exactly (Dekker 1971; there is no FMA in NumPy)."""
    a_high, a_low = _split(a)
    b_high, b_low = _split(b)
    p = a * b
    return p, ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low


def _split(a):
    """The upper 26 bits of a and the rest."""
    c = 134217729.0 * a
    high = c - (c - a)
    return high, a - high


def _quarter_turns(x):
    """x = 2j + quarter/2 + t with |t| <= 1/4: quarter in -2..2, sin(pi t), cos(pi t).

    Both reductions are exact. pi t is kept as a sum of two float64, since its rounding alone would cost an ulp.
    """
    turn = x - 2.0 * np.rint(0.5 * x)
    quarter = np.rint(2.0 * turn)
    t = turn - 0.5 * quarter
    angle, tail = _two_product(t, PI_HIGH)
    tail = tail + t * PI_LOW

    z = angle * angle
    cube = z * angle
    r = _horner(SIN_COEFFICIENTS[1:], z)
    sine = angle - ((z * (0.5 * tail - cube * r) - tail) - cube * SIN_COEFFICIENTS[0])

    r = z * _horner(COS_COEFFICIENTS, z)
    half = 0.5 * z
    w = 1.0 - half
    cosine = w + (((1.0 - w) - half) + (z * r - angle * tail))
    return quarter, sine, cosine


def _integer_power_parts(base, n):
    """(high, low, exponent): |base|^n with its sign is (high + low) 2^exponent, |high| in [1/2, 2].

    Zero, infinite and nan bases give 1. The mantissas are brought back to [1/2, 1) after every product, so that
    nothing overflows on the way.
    """
    regular = (base != 0.0) & np.isfinite(base)
    mantissa, exponent = np.frexp(np.where(regular, base, 1.0))
    square = (mantissa, np.zeros_like(mantissa), exponent.astype(np.int64))
    shape = np.broadcast_shapes(base.shape, n.shape)
    result = (np.ones(shape), np.zeros(shape), np.zeros(shape, dtype=np.int64))
    bits = np.abs(n)
    while True:
        product = _multiply_parts(result, square)
        odd = (bits & 1) == 1
        result = tuple(np.where(odd, new, old) for new, old in zip(product, result, strict=True))
        bits = bits >> 1
        if not bits.any():
            break
        square = _multiply_parts(square, square)

    high, low, exponent = result
    inverse = 1.0 / high
    product, error = _two_product(inverse, high)
    inverse_low = inverse * (((1.0 - product) - error) - low * inverse)
    negative = n < 0
    high, low = np.where(negative, inverse, high), np.where(negative, inverse_low, low)
    return high, low, np.where(negative, -exponent, exponent)


def _multiply_parts(a, b):
    """The product of two (high, low, exponent) with its mantissa back in [1/2, 1)."""
    high, low = _two_product(a[0], b[0])
    low = low + (a[0] * b[1] + a[1] * b[0])
    total = high + low
    low = low - (total - high)
    high, shift = np.frexp(total)
    exponent = np.clip(a[2] + b[2] + shift, -LARGEST_EXPONENT, LARGEST_EXPONENT)
    return high, np.ldexp(low, -shift), exponent


def _with_special_bases(x, p, odd, result):
    """`result` with x^p put in where x is 0, infinite or nan; `odd` tells where p is an odd integer."""
    grows = np.where(x == 0.0, p < 0, p > 0)
    magnitude = np.where(grows, np.inf, 0.0)
    special = np.where(odd, np.copysign(magnitude, x), magnitude)
    special = np.where(np.isnan(x), np.nan, special)
    special = np.where(p == 0, 1.0, special)
    return np.where((x != 0.0) & np.isfinite(x), result, special)
