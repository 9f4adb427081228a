"""Activations as pairs: the function of the pre-activation z, and its derivative.

The derivative is computed from the result y where that is possible, and from z where it is not. Adding one is a word
in `vocab.ACTIVATIONS` and a pair here. Softmax and hardmax couple the units of a row and have kernels of their own.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from mlp_cli.kernels import elementary as math_of
from mlp_cli.kernels.jit import kernel
from mlp_cli.kernels.lanes import (
    at,
    intrinsic,
    lanes_of,
    load,
    store,
    vadd,
    vdiv,
    vfirst,
    vfma,
    vfull,
    vload,
    vmax,
    vmaximum,
    vmul,
    vstore,
    vsub,
    vsum,
    vwinner,
)
from mlp_cli.vocab import ACTIVATIONS

# Klambauer et al. 2017, "Self-normalizing neural networks"; the digits are PyTorch's.
SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


@dataclass(frozen=True)
class Activation:
    """`value(e, z, a, b)` and `slope(e, x, a, b)`, where x is y, or z if `slope_of_input`. a and b are options."""

    value: Callable
    slope: Callable
    slope_of_input: bool = False


def _one(e):
    return e.constant(1.0)


def _gelu_slope(e, z, a, b):
    return e.fma(z, math_of.normal_pdf(e, z), math_of.normal_cdf(e, z))


def _silu_slope(e, z, a, b):
    s = math_of.sigmoid(e, z)
    return s * e.fma(z, 1.0 - s, 1.0)


def _mish_slope(e, z, a, b):
    t = math_of.tanh(e, math_of.softplus(e, z))
    return e.fma(z * (1.0 - t * t), math_of.sigmoid(e, z), t)


def _elu(e, z, a, b):
    return e.where(z < 0.0, a * math_of.expm1(e, e.minimum(z, 0.0)), z)


def _selu(e, z, a, b):
    negative = (SELU_SCALE * SELU_ALPHA) * math_of.expm1(e, e.minimum(z, 0.0))
    return e.where(z < 0.0, negative, SELU_SCALE * z)


# A comparison with NaN is false: each `where` is turned so that NaN comes out as NaN, never as a number.
ELEMENTWISE = {
    "linear": Activation(lambda e, z, a, b: z, lambda e, y, a, b: _one(e)),
    # straight-through: the gradient passes as if the unit were linear
    "threshold": Activation(
        lambda e, z, a, b: e.where(z.is_nan(), z, e.where(z >= 0.0, b, a)), lambda e, y, a, b: _one(e)
    ),
    "sigmoid": Activation(lambda e, z, a, b: math_of.sigmoid(e, z), lambda e, y, a, b: y * (1.0 - y)),
    "tanh": Activation(lambda e, z, a, b: math_of.tanh(e, z), lambda e, y, a, b: 1.0 - y * y),
    "relu": Activation(lambda e, z, a, b: e.where(z < 0.0, 0.0, z), lambda e, y, a, b: e.where(y > 0.0, _one(e), 0.0)),
    "leaky_relu": Activation(
        lambda e, z, a, b: e.where(z < 0.0, a * z, z),
        lambda e, z, a, b: e.where(z > 0.0, _one(e), a),
        slope_of_input=True,
    ),
    # for z <= 0, y + alpha = alpha exp(z)
    "elu": Activation(_elu, lambda e, y, a, b: e.where(y > 0.0, _one(e), y + a)),
    "selu": Activation(_selu, lambda e, y, a, b: e.where(y > 0.0, e.constant(SELU_SCALE), y + SELU_SCALE * SELU_ALPHA)),
    "gelu": Activation(lambda e, z, a, b: z * math_of.normal_cdf(e, z), _gelu_slope, slope_of_input=True),
    "silu": Activation(lambda e, z, a, b: z * math_of.sigmoid(e, z), _silu_slope, slope_of_input=True),
    "mish": Activation(
        lambda e, z, a, b: z * math_of.tanh(e, math_of.softplus(e, z)), _mish_slope, slope_of_input=True
    ),
    "softplus": Activation(
        lambda e, z, a, b: math_of.softplus(e, z), lambda e, z, a, b: math_of.sigmoid(e, z), slope_of_input=True
    ),
    "softsign": Activation(
        lambda e, z, a, b: z / (1.0 + e.abs(z)),
        lambda e, y, a, b: (1.0 - e.abs(y)) * (1.0 - e.abs(y)),
    ),
    "hard_sigmoid": Activation(
        lambda e, z, a, b: e.where(z >= 3.0, 1.0, e.where(z <= -3.0, 0.0, e.fma(z, 1.0 / 6.0, 0.5))),
        lambda e, z, a, b: e.where(e.abs(z) < 3.0, e.constant(1.0 / 6.0), 0.0),
        slope_of_input=True,
    ),
    "hard_tanh": Activation(
        lambda e, z, a, b: e.where(z >= 1.0, 1.0, e.where(z <= -1.0, -1.0, z)),
        lambda e, z, a, b: e.where(e.abs(z) < 1.0, _one(e), 0.0),
        slope_of_input=True,
    ),
    "sin": Activation(lambda e, z, a, b: math_of.sin(e, z), lambda e, z, a, b: math_of.cos(e, z), slope_of_input=True),
    "gaussian": Activation(
        lambda e, z, a, b: math_of.exp(e, -(z * z)),
        lambda e, z, a, b: -2.0 * z * math_of.exp(e, -(z * z)),
        slope_of_input=True,
    ),
    "exponential": Activation(lambda e, z, a, b: math_of.exp(e, z), lambda e, y, a, b: y),
}

LINEAR, SOFTMAX, HARDMAX = ACTIVATIONS["linear"], ACTIVATIONS["softmax"], ACTIVATIONS["hardmax"]


def needs_input(name: str) -> bool:
    """Whether the derivative is computed from the pre-activations, which must then be kept."""
    return name in ELEMENTWISE and ELEMENTWISE[name].slope_of_input


# Activations whose slope is the same wherever they give, and zero where they give zero: those of dropped units as well.
ZERO_HAS_NO_SLOPE = ("relu",)


def needs_output(name: str) -> bool:
    """Whether the derivative is computed from the very results, which must then be kept as they are."""
    return not needs_input(name) and name not in ("linear", "threshold", *ZERO_HAS_NO_SLOPE)


def default_options(name: str) -> tuple[float, float]:
    """The options (a, b) of an activation whose config states none."""
    return {"threshold": (0.0, 1.0), "leaky_relu": (0.01, 0.0), "elu": (1.0, 0.0), "softmax": (1.0, 0.0)}.get(
        name, (math.nan, math.nan)
    )


def _over_rows(body):
    """A generator that runs `body(x vectors…) -> vector` over rows x columns; padded columns become zero."""

    def emit(e, code, a, b, out, out_row, x, x_row, rows, columns):
        a, b = e.splat_double(a), e.splat_double(b)
        vectors = (columns + (e.lanes - 1)).shift_signed(e.lanes.bit_length() - 1)

        def case(activation):
            def run():
                with e.loop(rows) as i:
                    out_i, x_i = e.at(out, i * out_row), e.at(x, i * x_row)
                    with e.loop(vectors) as j:
                        start = j * e.lanes
                        place = e.at(out_i, start)
                        result = body(e, activation, place, e.load(e.at(x_i, start)), a, b)
                        e.store(place, e.where(e.first_lanes(columns - start), result, 0.0))

            return run

        e.switch(code, {ACTIVATIONS[name]: case(activation) for name, activation in ELEMENTWISE.items()})

    return emit


_value_over_rows = intrinsic("n(i,f,f,p,i,p,i,i,i)")(
    _over_rows(lambda e, activation, place, x, a, b: activation.value(e, x, a, b))
)
_slope_over_rows = intrinsic("n(i,f,f,p,i,p,i,i,i)")(
    _over_rows(lambda e, activation, place, x, a, b: e.load(place) * activation.slope(e, x, a, b))
)


@kernel("i(p,i)")
def row_winner(z, units):
    """The index of the largest of `units` elements, the lowest of equals. NaN counts as the largest, as in NumPy."""
    if units <= lanes_of(z):
        winner = vwinner(vload(z), units)
        if winner >= 0:
            return winner
    winner = 0
    largest = load(z)
    for j in range(1, units):
        value = load(at(z, j))
        if value > largest or (math.isnan(value) and not math.isnan(largest)):
            largest = value
            winner = j
    return winner


@kernel("f(f,p,i)")
def row_maximum(alpha, z, units):
    """The largest of alpha z over `units` elements."""
    lanes = lanes_of(z)
    highest = vfull(z, -math.inf)
    for j in range(0, units, lanes):
        highest = vmax(vfirst(vmul(vload(at(z, j)), vfull(z, alpha)), units - j, -math.inf), highest)
    return vmaximum(highest)


@kernel("n(f,p,i,p,i,i,i)")
def softmax_forward(alpha, y, y_row, z, z_row, rows, units):
    """y = exp(alpha z) / Σ exp(alpha z) row by row, from z less its largest element: finite for any finite z.

    A row is summed lane by lane, then through one tree.
    """
    lanes = lanes_of(y)
    for i in range(rows):
        z_i, y_i = at(z, i * z_row), at(y, i * y_row)
        largest = row_maximum(alpha, z_i, units)
        sums = vfull(y, 0.0)
        for j in range(0, units, lanes):
            # not fused: the residue of alpha z, which `largest` does not have, would overflow for huge z
            shifted = vsub(vmul(vfull(y, alpha), vload(at(z_i, j))), vfull(y, largest))
            part = vfirst(math_of.vexp(shifted), units - j, 0.0)
            vstore(at(y_i, j), part)
            sums = vadd(sums, part)
        total = vfull(y, vsum(sums))
        for j in range(0, units, lanes):
            vstore(at(y_i, j), vdiv(vload(at(y_i, j)), total))


@kernel("n(f,p,i,p,i,i,i)")
def softmax_backward(alpha, d, d_row, y, y_row, rows, units):
    """dz = alpha y (dy - Σ dy y), in place; columns beyond `units` stay zero since y is zero there.

    A row is summed lane by lane, then through one tree.
    """
    lanes = lanes_of(y)
    for i in range(rows):
        d_i, y_i = at(d, i * d_row), at(y, i * y_row)
        products = vfull(y, 0.0)
        for j in range(0, units, lanes):
            products = vfma(vload(at(d_i, j)), vload(at(y_i, j)), products)
        mean = vfull(y, vsum(products))
        for j in range(0, units, lanes):
            scaled = vmul(vfull(y, alpha), vload(at(y_i, j)))
            vstore(at(d_i, j), vmul(scaled, vsub(vload(at(d_i, j)), mean)))


@kernel("n(p,i,p,i,i,i)")
def hardmax_forward(y, y_row, z, z_row, rows, units):
    """1 for the largest unit of a row, the first one of equals, and 0 for the others; a NaN stays one."""
    lanes = lanes_of(y)
    for i in range(rows):
        z_i, y_i = at(z, i * z_row), at(y, i * y_row)
        winner = row_winner(z_i, units)
        # read before y, which may be z, is written
        largest = load(at(z_i, winner))
        for j in range(0, units, lanes):
            vstore(at(y_i, j), vfull(y, 0.0))
        store(at(y_i, winner), largest if math.isnan(largest) else 1.0)


@kernel("n(i,f,f,p,i,p,i,i,i)")
def activate(code, a, b, y, y_row, z, z_row, rows, units):
    """y = f(z) for rows x units; y may be z."""
    if code == SOFTMAX:
        softmax_forward(a, y, y_row, z, z_row, rows, units)
    elif code == HARDMAX:
        hardmax_forward(y, y_row, z, z_row, rows, units)
    else:
        _value_over_rows(code, a, b, y, y_row, z, z_row, rows, units)


@kernel("n(i,f,f,p,i,p,i,i,i)")
def activate_backward(code, a, b, d, d_row, x, x_row, rows, units):
    """d = d f'(x) in place, where x is y or z, whichever the activation's slope is computed from."""
    if code == SOFTMAX:
        softmax_backward(a, d, d_row, x, x_row, rows, units)
    elif code != LINEAR and code != HARDMAX:
        _slope_over_rows(code, a, b, d, d_row, x, x_row, rows, units)
