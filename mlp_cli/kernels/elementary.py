"""exp, log, tanh, erf, sin and their relatives from + - * / and fused multiply-add alone.

No libm and no branches: a vector of sixteen goes through at once, and its bits are the same on every processor.
Each function is a code generator `f(e, x)` for vectors of float32 or float64; those at the end, `vexp` and so on,
can be called from numba code. NaN in gives NaN out; infinities, signed zeros and subnormal numbers are honoured.

Bounds on the error in units in the last place, a little above the largest seen (a test asserts them):

    exp 1.1  expm1 2.1  log 1  log1p 1.5  tanh 2.5  sigmoid 2.3  softplus 2  erf 1.5  normal_cdf 4.5  normal_pdf 1.5
    sin cos sinpi cospi 1.6

The method is everywhere the same (Muller, Elementary Functions, chapter 11): bring the argument into a small
interval by steps that are exact, evaluate a polynomial there, put the exponent back. The polynomials minimise the
largest relative error; Remez's algorithm in 50 digits found them. The logarithm's form is that of fdlibm.
"""

from dataclasses import dataclass

from mlp_cli.kernels.emit import Emit, Value
from mlp_cli.kernels.lanes import intrinsic

INFINITY = float("inf")
NAN = float("nan")


@dataclass(frozen=True)
class Table:
    """What depends on the precision. Polynomials have the coefficient of the highest power first."""

    mantissa_bits: int
    bias: int
    one: int  # 1 as an integer, bit by bit
    root_half: int  # √½ likewise
    smallest_normal: float
    to_integer: float  # 1.5·2^mantissa_bits: adding it rounds to an integer and leaves that in the low bits

    log2_e: float
    ln_2: tuple  # the number and what its rounding lost
    two_over_pi: float
    half_pi: tuple
    pi: tuple

    exp_low: float  # below, exp is 0
    exp_high: float  # above, exp is infinite
    expm1_low: float  # below, expm1 is -1
    tanh_high: float  # above, tanh(x/2) is 1
    normal_high: float  # above, the upper tail of the normal distribution is 0
    cody_waite_high: float  # up to here sin and cos are accurate

    exp: tuple  # (e^r - 1 - r) / r² in r, |r| ≤ ln(2)/2
    log: tuple  # (log((1+s)/(1-s)) - 2s) / s³ in s², |s| ≤ 1/3
    sin: tuple  # (sin(r) - r) / r³ in r², |r| ≤ π/4
    cos: tuple  # (cos(r) - 1 + r²/2) / r⁴ in r², |r| ≤ π/4
    erf: tuple  # erf(x)/x - 1 in x², |x| ≤ 1
    tail_numerator: tuple  # Φ(-a) e^(a²/2), the ratio of two polynomials in a without negative coefficients
    tail_denominator: tuple


FLOAT32 = Table(
    mantissa_bits=23,
    bias=127,
    one=0x3F800000,
    root_half=0x3F3504F3,
    smallest_normal=2.0**-126,
    to_integer=1.5 * 2.0**23,
    log2_e=1.442695,
    ln_2=(0.6931472, -1.9046542e-09),
    two_over_pi=0.63661975,
    half_pi=(1.5707964, -4.371139e-08, -1.7151245e-15),
    pi=(3.1415927, -8.742278e-08),
    exp_low=-104.0,
    exp_high=89.0,
    expm1_low=-18.0,
    tanh_high=20.0,
    normal_high=15.0,
    cody_waite_high=2.0**20,
    exp=(0.0013940743, 0.008366556, 0.041666403, 0.16666543, 0.5),
    log=(0.280251, 0.27999023, 0.40021706, 0.6666641),
    sin=(-0.00019516658, 0.008332173, -0.16666655),
    cos=(2.4437757e-05, -0.0013887362, 0.041666646),
    erf=(7.853863e-05, -0.0008010194, 0.0051883277, -0.026853813, 0.112835854, -0.37612626, 0.12837917),
    tail_numerator=(0.39894706, 3.9427834, 17.795383, 42.59713, 48.639755),
    tail_denominator=(1.0, 9.883733, 45.591618, 116.855835, 162.81212, 97.27951),
)

FLOAT64 = Table(
    mantissa_bits=52,
    bias=1023,
    one=0x3FF0000000000000,
    root_half=0x3FE6A09E667F3BCD,
    smallest_normal=2.0**-1022,
    to_integer=1.5 * 2.0**52,
    log2_e=1.4426950408889634,
    ln_2=(0.6931471805599453, 2.3190468138462996e-17),
    two_over_pi=0.6366197723675814,
    half_pi=(1.5707963267948966, 6.123233995736766e-17, -1.4973849048591698e-33),
    pi=(3.141592653589793, 1.2246467991473532e-16),
    exp_low=-746.0,
    exp_high=710.0,
    expm1_low=-40.0,
    tanh_high=40.0,
    normal_high=39.0,
    cody_waite_high=2.0**30,
    exp=(
        2.5112493948860444e-08,
        2.762253972517899e-07,
        2.7557234806331425e-06,
        2.4801515645023535e-05,
        0.00019841269894583968,
        0.0013888888920995206,
        0.008333333333318904,
        0.04166666666661898,
        0.1666666666666668,
        0.5,
    ),
    log=(
        0.1701959109861776,
        0.08339569288178515,
        0.12106204157018935,
        0.13300959222886954,
        0.15386560970627142,
        0.18181743878294182,
        0.22222223970966135,
        0.2857142854783589,
        0.40000000000157365,
        0.6666666666666631,
    ),
    sin=(
        1.5896505658664002e-10,
        -2.5050753277430797e-08,
        2.755731366214954e-06,
        -0.00019841269829725533,
        0.008333333333322316,
        -0.16666666666666632,
    ),
    cos=(
        -1.1359449851697497e-11,
        2.0875719583177972e-09,
        -2.755731432622892e-07,
        2.48015872893957e-05,
        -0.0013888888888873992,
        0.0416666666666666,
    ),
    erf=(
        5.945254923277616e-11,
        -1.1365661644367267e-09,
        1.4657878650325638e-08,
        -1.6350025034086767e-07,
        1.646097279815068e-06,
        -1.4925593505645053e-05,
        0.000120553310368449,
        -0.0008548326978740622,
        0.005223977624780838,
        -0.026866170645072893,
        0.11283791670954857,
        -0.3761263890318375,
        0.1283791670955126,
    ),
    tail_numerator=(
        0.3989422804015282,
        12.420977769552355,
        189.84655293922026,
        1852.896795700203,
        12698.537365521104,
        63609.59942039359,
        235564.7375074418,
        637681.2385287781,
        1213120.4710193458,
        1478313.9970905208,
        893083.141387881,
    ),
    tail_denominator=(
        1.0,
        31.134774075778378,
        476.87473743284005,
        4675.658272526263,
        32304.387527787665,
        164027.87492795417,
        621361.9817384853,
        1748897.9988753363,
        3572335.0424158787,
        5029314.401596749,
        4381782.494234467,
        1786166.282775762,
    ),
)


def table(e: Emit) -> Table:
    """The coefficients for the generator's scalar type."""
    return FLOAT32 if e.bits == 32 else FLOAT64


# --- exponentials -------------------------------------------------------------------------------------------------


def _clip(e: Emit, x: Value, low: float, high: float) -> Value:
    """x within [low, high], and NaN as it is."""
    return e.maximum(e.constant(low), e.minimum(e.constant(high), x))


def _reduced_exp(e: Emit, x: Value, low: Value | None = None) -> tuple[Value, Value]:
    """p and the integer k of e^(x + low) = 2^k (1 + p), for moderate x and tiny low."""
    c = table(e)
    shifted = e.fma(x, c.log2_e, c.to_integer)
    k = shifted - c.to_integer
    # the first step is exact: k ln(2) and x are multiples of one power of two, and their difference is small
    r = e.fma(k, -c.ln_2[0], x)
    r = e.fma(k, -c.ln_2[1], r)
    if low is not None:
        r = r + low
    p = e.fma(e.polynomial(r, c.exp), r * r, r)
    return p, e.as_int(shifted) - e.as_int(e.constant(c.to_integer))


def _scaled_exp(e: Emit, factor, x: Value, low: Value | None = None) -> Value:
    """factor e^(x + low), for moderate factors; low is what the rounding of x lost."""
    c = table(e)
    p, k = _reduced_exp(e, _clip(e, x, c.exp_low, c.exp_high), low)
    # 2^k in two factors: the result may be infinite or subnormal, neither factor is, and one rounding is left
    k = k + 2 * c.bias
    half = k >> 1
    y = e.fma(factor, p, factor)
    return y * e.as_float(half << c.mantissa_bits) * e.as_float((k - half) << c.mantissa_bits)


def exp(e: Emit, x: Value) -> Value:
    """e^x"""
    return _scaled_exp(e, 1.0, x)


def _half_expm1(e: Emit, x: Value) -> Value:
    """(e^x - 1) / 2, for x not far below 0."""
    c = table(e)
    p, k = _reduced_exp(e, x)
    half = e.as_float((k + (c.bias - 1)) << c.mantissa_bits)
    return e.fma(p, half, half - 0.5)


def expm1(e: Emit, x: Value) -> Value:
    """e^x - 1, accurate near 0."""
    c = table(e)
    y = _half_expm1(e, _clip(e, x, c.expm1_low, c.exp_high))
    # a tiny x is its own result, sign of zero and last bit of a subnormal number included
    return e.where(e.abs(x) < 2.0 ** -(c.mantissa_bits + 2), x, y + y)


def tanh(e: Emit, x: Value) -> Value:
    """The hyperbolic tangent."""
    a = e.abs(x)
    h = _half_expm1(e, e.minimum(e.constant(table(e).tanh_high), a + a))
    return e.copysign(h / (h + 1.0), x)


def sigmoid(e: Emit, x: Value) -> Value:
    """1 / (1 + e^-x), accurate in both tails."""
    t = exp(e, -e.abs(x))
    return e.where(x < 0.0, t, 1.0) / (t + 1.0)


# --- logarithms ---------------------------------------------------------------------------------------------------


def _exponent_and_fraction(e: Emit, u: Value) -> tuple[Value, Value]:
    """The integer k + bias and m of u = 2^k m, m from √½ to √2, for positive normal u."""
    c = table(e)
    b = e.as_int(u) + (c.one - c.root_half)
    m = e.as_float((b & ((1 << c.mantissa_bits) - 1)) + c.root_half)
    return b >> c.mantissa_bits, m


def _log1p_less(e: Emit, f: Value, rest) -> Value:
    """log(1 + f) - f + rest for f from √½ - 1 to 1: with s = f / (2 + f), log(1 + f) = 2s + sR and 2s = f - sf."""
    s = f / (f + 2.0)
    z = s * s
    return e.fma(-s, f - z * e.polynomial(z, table(e).log), rest)


def _log_of_parts(e: Emit, k: Value, f: Value, offset) -> Value:
    """log(2^(k - offset) (1 + f))"""
    c = table(e)
    # an integer below 2^mantissa_bits put in the mantissa of 2^mantissa_bits is that sum as a float
    power = 2.0**c.mantissa_bits
    k = e.as_float(k | e.as_int(e.constant(power))) - (power + offset)
    return e.fma(k, c.ln_2[0], f + _log1p_less(e, f, k * c.ln_2[1]))


def _log_at_the_ends(e: Emit, u: Value, y: Value) -> Value:
    """y, the logarithm of u, with its values at zero, infinity and NaN and for negative u."""
    y = e.where(u > 0.0, y, e.where(u.equals(0.0), e.constant(-INFINITY), NAN))
    return e.where(u < INFINITY, y, u)


def log(e: Emit, x: Value) -> Value:
    """The natural logarithm."""
    c = table(e)
    subnormal = x < c.smallest_normal
    u = e.where(subnormal, x * 2.0**c.mantissa_bits, x)
    offset = e.where(subnormal, e.constant(c.bias + c.mantissa_bits), c.bias)
    k, m = _exponent_and_fraction(e, u)
    return _log_at_the_ends(e, x, _log_of_parts(e, k, m - 1.0, offset))


def log1p(e: Emit, x: Value) -> Value:
    """log(1 + x), accurate near 0."""
    c = table(e)
    u = x + 1.0
    back = u - 1.0
    lost = (1.0 - (u - back)) + (x - back)
    k, m = _exponent_and_fraction(e, u)
    # 2^-k, or 0 where its exponent field overflows: nothing is lost there
    scale = e.maximum(e.as_float((2 * c.bias - k) << c.mantissa_bits), 0.0)
    y = _log_at_the_ends(e, u, _log_of_parts(e, k, (m - 1.0) + lost * scale, c.bias))
    return e.where(u.equals(1.0), x, y)


def softplus(e: Emit, x: Value) -> Value:
    """log(1 + e^x)"""
    t = exp(e, -e.abs(x))  # at most 1, so that its logarithm needs no reduction
    return e.maximum(x, 0.0) + (t + _log1p_less(e, t, 0.0))


# --- the normal distribution --------------------------------------------------------------------------------------


def _bounded_size(e: Emit, x: Value) -> Value:
    """|x|, but not beyond where the tail of the normal distribution is 0."""
    return e.minimum(e.constant(table(e).normal_high), e.abs(x))


def _gaussian(e: Emit, factor, a: Value) -> Value:
    """factor e^(-a²/2), with the rounding error of a² carried along: it would be multiplied by a²."""
    square = a * a
    lost = e.fma(a, a, -square)
    return _scaled_exp(e, factor, square * -0.5, lost * -0.5)


def _upper_tail(e: Emit, a: Value) -> Value:
    """1 - Φ(a) = Φ(-a) for a of bounded size, to a relative accuracy."""
    c = table(e)
    ratio = _by_halves(e, a, c.tail_numerator) / _by_halves(e, a, c.tail_denominator)
    return _gaussian(e, ratio, a)


def _by_halves(e: Emit, x: Value, coefficients) -> Value:
    """A polynomial as even part plus odd part: for large x half the rounding errors of Horner's rule."""
    square = x * x
    last, last_but_one = coefficients[-1::-2], coefficients[-2::-2]
    return e.fma(e.polynomial(square, last_but_one[::-1]), x, e.polynomial(square, last[::-1]))


def normal_cdf(e: Emit, x: Value) -> Value:
    """Φ(x) = (1 + erf(x/√2)) / 2, to a relative accuracy in the far left tail too."""
    tail = _upper_tail(e, _bounded_size(e, x))
    return e.where(x > 0.0, 1.0 - tail, tail)


def normal_pdf(e: Emit, x: Value) -> Value:
    """e^(-x²/2) / √(2π)"""
    return _gaussian(e, 0.3989422804014327, _bounded_size(e, x))


def erf(e: Emit, x: Value) -> Value:
    """The error function."""
    a = e.abs(x)
    near = e.fma(x, e.polynomial(x * x, table(e).erf), x)
    tail = _upper_tail(e, _bounded_size(e, x * 2.0**0.5))
    return e.where(a < 1.0, near, e.copysign(1.0 - (tail + tail), x))


# --- sine and cosine ----------------------------------------------------------------------------------------------


def _reduce_radians(e: Emit, x: Value) -> tuple[Value, Value]:
    """An integer q and r of |x| = q π/2 + r, |r| ≤ π/4, by Cody and Waite; 0 for finite x too large for it."""
    c = table(e)
    a = e.abs(x)
    a = e.where(a <= c.cody_waite_high, a, a - a)
    shifted = e.fma(a, c.two_over_pi, c.to_integer)
    q = shifted - c.to_integer
    r = a
    for part in c.half_pi:  # the first step is exact
        r = e.fma(q, -part, r)
    return e.as_int(shifted), r


def _reduce_half_turns(e: Emit, x: Value) -> tuple[Value, Value]:
    """An integer q and r of π |x| = q π/2 + r modulo 2π, |r| ≤ π/4; all steps but the last are exact."""
    c = table(e)
    a = e.abs(x)
    power = 2.0 ** (c.mantissa_bits + 1)  # from here on all floats are even
    a = e.where(a < power, a, a - a)
    a = a - ((a + power) - power)
    shifted = a * 2.0 + c.to_integer
    z = e.fma(shifted - c.to_integer, -0.5, a)
    return e.as_int(shifted), e.fma(z, c.pi[0], z * c.pi[1])


def _sine_in_quadrant(e: Emit, q: Value, r: Value) -> Value:
    """sin(q π/2 + r)"""
    c = table(e)
    z = r * r
    sine = e.fma(r * z, e.polynomial(z, c.sin), r)
    cosine = e.fma(z * z, e.polynomial(z, c.cos), e.fma(z, -0.5, 1.0))
    y = e.where((q & 1).equals(0), sine, cosine)
    return e.as_float(e.as_int(y) ^ ((q & 2) << (e.bits - 2)))


def _odd(e: Emit, x: Value, y: Value) -> Value:
    """y, computed from |x|, with the sign of x turned into it; + 0 keeps the sign of x when y is -0."""
    sign = e.as_int(x) & (1 << (e.bits - 1))
    return e.as_float(e.as_int(y + 0.0) ^ sign)


def sin(e: Emit, x: Value) -> Value:
    """The sine, accurate up to 2^20 (float32) and 2^30 (float64); beyond, 0."""
    return _odd(e, x, _sine_in_quadrant(e, *_reduce_radians(e, x)))


def cos(e: Emit, x: Value) -> Value:
    """The cosine, accurate up to 2^20 (float32) and 2^30 (float64); beyond, 1."""
    q, r = _reduce_radians(e, x)
    return _sine_in_quadrant(e, q + 1, r)


def sinpi(e: Emit, x: Value) -> Value:
    """sin(π x), accurate for every finite x."""
    return _odd(e, x, _sine_in_quadrant(e, *_reduce_half_turns(e, x)))


def cospi(e: Emit, x: Value) -> Value:
    """cos(π x), accurate for every finite x."""
    q, r = _reduce_half_turns(e, x)
    return _sine_in_quadrant(e, q + 1, r)


# --- for numba code -----------------------------------------------------------------------------------------------


vexp, vlog, vsinpi, vcospi = (intrinsic("v(v)")(generator) for generator in (exp, log, sinpi, cospi))
