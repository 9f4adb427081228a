"""Losses: the loss of each sample and its gradient with respect to the output layer.

A loss that meets its own output activation (`vocab.FUSED`) is computed from the pre-activations z, exactly and stably;
every other pair from the outputs y, and the activation's derivative follows in the backward pass. t are the targets.

A sample's sums over its outputs go lane by lane and then through one tree. Cross-entropy of so few classes that they
fit in a vector adds one class after the other, whichever of its two ways a row takes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from mlp_cli.kernels import elementary as math_of
from mlp_cli.kernels.activations import row_maximum
from mlp_cli.kernels.jit import kernel
from mlp_cli.kernels.lanes import (
    at,
    intrinsic,
    lanes_of,
    vadd,
    vdiv,
    vdot_in_order,
    vfirst,
    vfma,
    vfull,
    vlane,
    vload,
    vmaximum,
    vmul,
    vstore,
    vsub,
    vsum,
    vsum_in_order,
)
from mlp_cli.vocab import LOSSES

# Codes beyond the vocabulary's, for the pairs that are computed from pre-activations.
FUSED_BASE = 100
FUSED_CODES = {
    ("sigmoid", "binary_cross_entropy"): FUSED_BASE,
    ("exponential", "poisson"): FUSED_BASE + 1,
    ("sigmoid", "focal"): FUSED_BASE + 2,
    ("softmax", "cross_entropy"): FUSED_BASE + 3,
    ("softmax", "focal"): FUSED_BASE + 4,
}
SOFTMAX_CROSS_ENTROPY = FUSED_CODES["softmax", "cross_entropy"]
SOFTMAX_FOCAL = FUSED_CODES["softmax", "focal"]

# PyTorch's bounds in binary_cross_entropy (logarithms no lower than -100, y (1 - y) no smaller than 1e-12)
# and in poisson_nll_loss (log(y + 1e-8)).
LOWEST_LOG, SMALLEST_VARIANCE, POISSON_EPSILON = -100.0, 1e-12, 1e-8
LN_2 = math.log(2.0)


def code(activation: str, loss: str) -> int:
    """The code of the kernel for this output activation and loss."""
    return FUSED_CODES.get((activation, loss), LOSSES[loss])


def is_fused(loss_code: int) -> bool:
    """Whether the loss is computed from pre-activations."""
    return loss_code >= FUSED_BASE


@dataclass(frozen=True)
class Loss:
    """`terms(e, y, t, option) -> (loss, derivative)` of one output; a sample's loss is their sum or their mean."""

    terms: Callable
    mean: bool = False


def _sign(e, x):
    return e.where(x > 0.0, e.constant(1.0), e.where(x < 0.0, e.constant(-1.0), 0.0))


def _quadratic(e, y, t, _):
    return (y - t) * (y - t), 2.0 * (y - t)


def _half_quadratic(e, y, t, _):
    return 0.5 * ((y - t) * (y - t)), y - t


def _mae(e, y, t, _):
    return e.abs(y - t), _sign(e, y - t)


def _huber(e, y, t, delta):
    """½ r² up to |r| = delta, then delta (|r| - ½ delta)."""
    r = y - t
    size = e.abs(r)
    outside = size > delta
    return (
        e.where(outside, delta * (size - 0.5 * delta), 0.5 * (r * r)),
        e.where(outside, e.copysign(delta, r), r),
    )


def _log_cosh(e, y, t, _):
    """log cosh r = |r| + softplus(-2|r|) - log 2, which does not overflow."""
    r = y - t
    size = e.abs(r)
    return size + math_of.softplus(e, -2.0 * size) - LN_2, math_of.tanh(e, r)


def _quantile(e, y, t, q):
    """q (t - y) where y is below t, (1 - q)(y - t) above: the pinball loss."""
    r = y - t
    loss = e.where(r > 0.0, (1.0 - q) * r, -(q * r))
    return loss, e.where(r > 0.0, 1.0 - q, e.where(r < 0.0, -q, 0.0))


def _poisson(e, y, t, _):
    """y - t log(y + 1e-8), as PyTorch's poisson_nll_loss(log_input=False)."""
    shifted = y + POISSON_EPSILON
    return y - t * math_of.log(e, shifted), 1.0 - t / shifted


def _poisson_from_log(e, z, t, _):
    """exp(z) - t z."""
    y = math_of.exp(e, z)
    return y - t * z, y - t


def _clamped_log(e, y):
    log_y = math_of.log(e, y)
    # turned so that NaN stays NaN and stops the run
    return e.where(log_y < LOWEST_LOG, LOWEST_LOG, log_y)


def _binary_cross_entropy(e, y, t, _):
    loss = -(t * _clamped_log(e, y) + (1.0 - t) * _clamped_log(e, 1.0 - y))
    return loss, (y - t) / e.maximum(y * (1.0 - y), SMALLEST_VARIANCE)


def _binary_cross_entropy_from_logit(e, z, t, _):
    """max(z, 0) - z t + log(1 + exp(-|z|))."""
    return math_of.softplus(e, z) - z * t, math_of.sigmoid(e, z) - t


def _cross_entropy(e, y, t, _):
    return -(t * _clamped_log(e, y)), -(t / e.maximum(y, SMALLEST_VARIANCE))


def _focal_from_logit(e, z, t, gamma):
    """-t (1-p)^gamma log p - (1-t) p^gamma log(1-p) with p = sigmoid(z) (Lin et al. 2017).

    Powers from logarithms: (1-p)^gamma = exp(-gamma softplus(z)), and log p = -softplus(-z).
    """
    p, q = math_of.sigmoid(e, z), math_of.sigmoid(e, -z)
    loss_of_one, loss_of_zero = math_of.softplus(e, -z), math_of.softplus(e, z)
    weight_of_one = math_of.exp(e, -(gamma * loss_of_zero))
    weight_of_zero = math_of.exp(e, -(gamma * loss_of_one))
    loss = t * weight_of_one * loss_of_one + (1.0 - t) * weight_of_zero * loss_of_zero
    slope_of_one = -(weight_of_one * e.fma(gamma * p, loss_of_one, q))
    slope_of_zero = weight_of_zero * e.fma(gamma * q, loss_of_zero, p)
    return loss, t * slope_of_one + (1.0 - t) * slope_of_zero


def _hinge(e, y, t, _):
    margin = 1.0 - t * y
    return e.where(margin < 0.0, 0.0, margin), e.where(margin > 0.0, -t, 0.0)


def _squared_hinge(e, y, t, _):
    margin = 1.0 - t * y
    active = e.where(margin < 0.0, 0.0, margin)
    return active * active, -2.0 * (active * t)


ELEMENTWISE = {
    LOSSES["quadratic"]: Loss(_quadratic),
    LOSSES["half_quadratic"]: Loss(_half_quadratic),
    LOSSES["mse"]: Loss(_quadratic, mean=True),
    LOSSES["mae"]: Loss(_mae, mean=True),
    LOSSES["huber"]: Loss(_huber, mean=True),
    LOSSES["log_cosh"]: Loss(_log_cosh, mean=True),
    LOSSES["quantile"]: Loss(_quantile, mean=True),
    LOSSES["poisson"]: Loss(_poisson, mean=True),
    LOSSES["binary_cross_entropy"]: Loss(_binary_cross_entropy),
    LOSSES["cross_entropy"]: Loss(_cross_entropy),
    LOSSES["hinge"]: Loss(_hinge, mean=True),
    LOSSES["squared_hinge"]: Loss(_squared_hinge, mean=True),
    FUSED_CODES["sigmoid", "binary_cross_entropy"]: Loss(_binary_cross_entropy_from_logit),
    FUSED_CODES["exponential", "poisson"]: Loss(_poisson_from_log, mean=True),
    FUSED_CODES["sigmoid", "focal"]: Loss(_focal_from_logit),
}


@intrinsic("f(i,f,p,p,p,i,f)")
def elementwise_row(e, code, option, d, y, t, outputs, scale):
    """One sample: d = scale * its gradient, zero in padded columns; returns its loss."""
    option = e.splat_double(option)
    count = e.splat_double(e.double_of_int(outputs))
    vectors = (outputs + (e.lanes - 1)).shift_signed(e.lanes.bit_length() - 1)
    total = e.variable(e.constant(0.0))
    scale = e.splat_double(scale)

    def case(loss):
        def run():
            factor = scale / count if loss.mean else scale
            with e.loop(vectors) as j:
                start = j * e.lanes
                inside = e.first_lanes(outputs - start)
                # padded columns see y = t = 1/2, where no loss has a pole, and are then masked
                y_j = e.where(inside, e.load(e.at(y, start)), 0.5)
                t_j = e.where(inside, e.load(e.at(t, start)), 0.5)
                terms, slopes = loss.terms(e, y_j, t_j, option)
                e.store(e.at(d, start), e.where(inside, factor * slopes, 0.0))
                total.set(total.get() + e.where(inside, terms, 0.0))
            if loss.mean:
                total.set(total.get() / count)

        return run

    e.switch(code, {number: case(loss) for number, loss in ELEMENTWISE.items()})
    return e.to_double(e.lane(e.reduce(total.get(), lambda a, b: a + b), 0))


@kernel("f(f,p,p,v,i,f)")
def softmax_cross_entropy_vector(alpha, d, z, t, outputs, factor):
    """`softmax_cross_entropy_row` for outputs that fit in a vector, and t in a register.

    They are added up one after the other, as `softmax_cross_entropy_columns` does it.
    """
    scaled = vfirst(vmul(vfull(z, alpha), vload(z)), outputs, -math.inf)
    shifted = vfirst(vsub(scaled, vfull(z, vmaximum(scaled))), outputs, 0.0)
    part = vfirst(math_of.vexp(shifted), outputs, 0.0)
    total, mass = vsum_in_order(part, outputs), vsum_in_order(t, outputs)
    gap = vsub(vmul(vdiv(part, total), mass), t)
    vstore(d, vfirst(vmul(vfull(z, factor), gap), outputs, 0.0))
    return vlane(vsub(vmul(mass, math_of.vlog(total)), vdot_in_order(shifted, t, outputs)))


@kernel("f(f,p,p,p,i,f)")
def softmax_cross_entropy_row(alpha, d, z, t, outputs, factor):
    """loss = Σt log Σexp(alpha z) - Σ t alpha z; d = factor (p Σt - t)."""
    lanes = lanes_of(z)
    if outputs <= lanes:
        return softmax_cross_entropy_vector(alpha, d, z, vload(t), outputs, factor)
    largest = row_maximum(alpha, z, outputs)
    sums, products, targets = vfull(z, 0.0), vfull(z, 0.0), vfull(z, 0.0)
    for j in range(0, outputs, lanes):
        shifted = vsub(vmul(vfull(z, alpha), vload(at(z, j))), vfull(z, largest))
        shifted = vfirst(shifted, outputs - j, 0.0)
        part = vfirst(math_of.vexp(shifted), outputs - j, 0.0)
        t_j = vload(at(t, j))
        vstore(at(d, j), part)
        sums = vadd(sums, part)
        products = vfma(shifted, t_j, products)
        targets = vadd(targets, t_j)
    total, mass = vfull(z, vsum(sums)), vfull(z, vsum(targets))
    for j in range(0, outputs, lanes):
        p = vdiv(vload(at(d, j)), total)
        vstore(at(d, j), vmul(vfull(z, factor), vsub(vmul(p, mass), vload(at(t, j)))))
    return vlane(vmul(mass, math_of.vlog(total))) - vsum(products)


@intrinsic("v(f,p,i,p,p,f,f,p)")
def softmax_cross_entropy_columns(e, alpha, z, outputs, label, factor, low, high, winner):
    """`softmax_cross_entropy_row` for as many rows as a vector has lanes, which hold a row each; returns their losses.

    z: `outputs` vectors, one a class, which become the gradients. label, factor: a number a row. low, high: the coding
    of the targets. winner: receives the predicted classes.
    """
    alpha, low, high = (e.splat_double(x) for x in (alpha, low, high))
    label, factor = e.load(label), e.load(factor)
    place = lambda k: e.at(z, k * e.lanes)  # noqa: E731
    target = lambda k: e.where(label.equals(e.int_to_float(e.splat_int(k))), high, low)  # noqa: E731

    largest, best, which = (e.variable(e.constant(x)) for x in (-math.inf, -math.inf, 0.0))
    with e.loop(outputs) as k:
        z_k = e.load(place(k))
        largest.set(e.maximum(alpha * z_k, largest.get()))
        # NaN counts as the largest, the lowest of equals wins
        first_nan = e.both(z_k.is_nan(), best.get().equals(best.get()))
        wins = e.either(z_k > best.get(), first_nan)
        which.set(e.where(wins, e.int_to_float(e.splat_int(k)), which.get()))
        best.set(e.where(wins, z_k, best.get()))
    e.store(winner, which.get())

    total, products, mass = (e.variable(e.constant(0.0)) for _ in range(3))
    with e.loop(outputs) as k:
        shifted = alpha * e.load(place(k)) - largest.get()
        part = math_of.exp(e, shifted)
        e.store(place(k), part)
        total.set(total.get() + part)
        products.set(e.fma(shifted, target(k), products.get()))
        mass.set(mass.get() + target(k))
    with e.loop(outputs) as k:
        p = e.load(place(k)) / total.get()
        e.store(place(k), factor * (p * mass.get() - target(k)))
    return mass.get() * math_of.log(e, total.get()) - products.get()


@intrinsic("v(v,v,v,f,v)")
def _focal_weight_and_slope(e, p, log_p, t, gamma, slope):
    """-t (1-p)^gamma log p where slope is 0; else its derivative with respect to log p."""
    gamma = e.splat_double(gamma)
    q = e.where(p < 1.0, 1.0 - p, 0.0)
    log_q = math_of.log1p(e, -p)
    weight = e.where(gamma > 0.0, math_of.exp(e, gamma * log_q), e.constant(1.0))
    # p log p / (1 - p) tends to -1 as p tends to 1
    ratio = e.where(q > 0.0, log_p * p / q, e.constant(-1.0))
    derivative = t * weight * e.where(gamma > 0.0, e.fma(gamma, ratio, -1.0), e.constant(-1.0))
    return e.where(slope > 0.0, derivative, -(t * weight * log_p))


@kernel("f(f,f,p,p,p,i,f)")
def softmax_focal_row(alpha, gamma, d, z, t, outputs, scale):
    """loss = -Σ t (1-p)^gamma log p with p = softmax(alpha z); d = scale alpha (u - p Σu), u = dloss/dlog p."""
    lanes = lanes_of(z)
    largest = row_maximum(alpha, z, outputs)
    zero, one = vfull(z, 0.0), vfull(z, 1.0)
    sums = zero
    for j in range(0, outputs, lanes):
        shifted = vsub(vmul(vfull(z, alpha), vload(at(z, j))), vfull(z, largest))
        sums = vadd(sums, vfirst(math_of.vexp(shifted), outputs - j, 0.0))
    log_total = math_of.vlog(vfull(z, vsum(sums)))
    losses, slopes = zero, zero
    for j in range(0, outputs, lanes):
        shifted = vsub(vmul(vfull(z, alpha), vload(at(z, j))), vfull(z, largest))
        log_p = vfirst(vsub(shifted, log_total), outputs - j, -1.0)
        p = math_of.vexp(log_p)
        t_j = vload(at(t, j))
        losses = vadd(losses, _focal_weight_and_slope(p, log_p, t_j, gamma, zero))
        slope = _focal_weight_and_slope(p, log_p, t_j, gamma, one)
        slopes = vadd(slopes, slope)
        vstore(at(d, j), slope)
    total_slope = vfull(z, vsum(slopes))
    factor = vfull(z, scale * alpha)
    for j in range(0, outputs, lanes):
        shifted = vsub(vmul(vfull(z, alpha), vload(at(z, j))), vfull(z, largest))
        p = math_of.vexp(vsub(shifted, log_total))
        slope = vsub(vload(at(d, j)), vmul(p, total_slope))
        vstore(at(d, j), vfirst(vmul(factor, slope), outputs - j, 0.0))
    return vsum(losses)


@kernel("f(i,f,f,p,p,p,i,f)")
def loss_row(code, option, alpha, d, y, t, outputs, scale):
    """The loss of one sample; d becomes scale times its gradient. y are pre-activations where the code is a fused one.

    alpha is the inverse temperature of a softmax output.
    """
    if code == SOFTMAX_CROSS_ENTROPY:
        return softmax_cross_entropy_row(alpha, d, y, t, outputs, scale * alpha)
    if code == SOFTMAX_FOCAL:
        return softmax_focal_row(alpha, option, d, y, t, outputs, scale)
    return elementwise_row(code, option, d, y, t, outputs, scale)
