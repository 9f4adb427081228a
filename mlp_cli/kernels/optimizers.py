"""Optimizers: one step on a stretch of the flat parameter vector. None of them has heard of layers.

A step receives parameters w, gradient g, up to two moments m and v, and the step's coefficients c, which
`mlp_cli.optimizers` computes in float64: the names beside each function say what they are. The formulas are PyTorch's.
"""

from collections.abc import Callable
from dataclasses import dataclass

from mlp_cli.kernels.jit import kernel
from mlp_cli.kernels.lanes import at, intrinsic, store
from mlp_cli.kernels.layout import SCRATCH_COEFFICIENTS
from mlp_cli.vocab import OPTIMIZERS

# Coefficients of a step: the first two are common to all.
RATE, DECAY = 0, 1
COEFFICIENTS = 10
# Behind them the kernels put the factor by which the gradient's norm is clipped.
CLIP_FACTOR = 10

# Plain gradient descent keeps no moments and is the fastest path: a code of its own.
PLAIN_SGD = 50

# Riedmiller & Braun 1993, with PyTorch's bounds.
RPROP_SHRINK, RPROP_GROW, RPROP_SMALLEST, RPROP_LARGEST = 0.5, 1.2, 1e-6, 50.0


@dataclass(frozen=True)
class Optimizer:
    """`step(e, w, g, m, v, c) -> (w, m, v)`; the first `moments` of m and v exist."""

    step: Callable
    moments: int


def _sign(e, x):
    return e.where(x > 0.0, e.constant(1.0), e.where(x < 0.0, e.constant(-1.0), 0.0))


def _plain_sgd(e, w, g, m, v, c):
    return e.fma(-c[RATE], g, w), m, v


def _sgd(e, w, g, m, v, c):
    """c: rate, decay, momentum, 1 for Nesterov's form."""
    m = e.fma(c[2], m, g)
    direction = e.where(c[3] > 0.0, e.fma(c[2], m, g), m)
    return e.fma(-c[RATE], direction, w), m, v


def _adagrad(e, w, g, m, v, c):
    """c: rate, decay, epsilon. m is the sum of squares."""
    m = e.fma(g, g, m)
    return e.fma(-c[RATE], g / (e.sqrt(m) + c[2]), w), m, v


def _adadelta(e, w, g, m, v, c):
    """c: rate, decay, rho, 1 - rho, epsilon. m averages squared gradients, v squared steps."""
    m = e.fma(c[2], m, c[3] * (g * g))
    step = e.sqrt(v + c[4]) / e.sqrt(m + c[4]) * g
    v = e.fma(c[2], v, c[3] * (step * step))
    return e.fma(-c[RATE], step, w), m, v


def _rmsprop(e, w, g, m, v, c):
    """c: rate, decay, rho, 1 - rho, epsilon, momentum. m averages squares, v is the momentum."""
    m = e.fma(c[2], m, c[3] * (g * g))
    v = e.fma(c[5], v, g / (e.sqrt(m) + c[4]))
    return e.fma(-c[RATE], v, w), m, v


def _moments(e, g, m, v, c):
    """c[2:6]: beta1, 1 - beta1, beta2, 1 - beta2."""
    return e.fma(c[2], m, c[3] * g), e.fma(c[4], v, c[5] * (g * g))


def _adam(e, w, g, m, v, c):
    """c: rate, decay, betas, epsilon, rate / (1 - beta1^t), 1 / sqrt(1 - beta2^t)."""
    m, v = _moments(e, g, m, v, c)
    return e.fma(-c[7], m / e.fma(e.sqrt(v), c[8], c[6]), w), m, v


def _adamax(e, w, g, m, v, c):
    """c: rate, decay, betas, epsilon, rate / (1 - beta1^t). v is the largest gradient, decayed."""
    m = e.fma(c[2], m, c[3] * g)
    v = e.maximum(c[4] * v, e.abs(g) + c[6])
    return e.fma(-c[7], m / v, w), m, v


def _nadam(e, w, g, m, v, c):
    """c: rate, decay, betas, epsilon, factor of g, 1 / sqrt(1 - beta2^t), factor of m."""
    m, v = _moments(e, g, m, v, c)
    direction = e.fma(c[9], m, c[7] * g)
    return w - direction / e.fma(e.sqrt(v), c[8], c[6]), m, v


def _radam(e, w, g, m, v, c):
    """c: rate, decay, betas, epsilon, rate / (1 - beta1^t) with the rectification, 1 where that is defined."""
    m, v = _moments(e, g, m, v, c)
    denominator = e.where(c[8] > 0.0, e.sqrt(v) + c[6], e.constant(1.0))
    return e.fma(-c[7], m / denominator, w), m, v


def _lion(e, w, g, m, v, c):
    """c: rate, decay, betas (Chen et al. 2023)."""
    direction = _sign(e, e.fma(c[2], m, c[3] * g))
    return e.fma(-c[RATE], direction, w), e.fma(c[4], m, c[5] * g), v


def _rprop(e, w, g, m, v, c):
    """c: rate, decay, rate relative to the first one. m is the last gradient, v the step size of each parameter."""
    agreement = g * m
    factor = e.where(agreement > 0.0, e.constant(RPROP_GROW), e.where(agreement < 0.0, e.constant(RPROP_SHRINK), 1.0))
    v = e.minimum(e.maximum(v * factor, RPROP_SMALLEST), RPROP_LARGEST)
    g = e.where(agreement < 0.0, 0.0, g)
    return e.fma(-(c[2] * v), _sign(e, g), w), g, v


BY_CODE = {
    PLAIN_SGD: Optimizer(_plain_sgd, 0),
    OPTIMIZERS["sgd"]: Optimizer(_sgd, 1),
    OPTIMIZERS["adagrad"]: Optimizer(_adagrad, 1),
    OPTIMIZERS["adadelta"]: Optimizer(_adadelta, 2),
    OPTIMIZERS["rmsprop"]: Optimizer(_rmsprop, 2),
    OPTIMIZERS["adam"]: Optimizer(_adam, 2),
    OPTIMIZERS["adamw"]: Optimizer(_adam, 2),
    OPTIMIZERS["adamax"]: Optimizer(_adamax, 2),
    OPTIMIZERS["nadam"]: Optimizer(_nadam, 2),
    OPTIMIZERS["radam"]: Optimizer(_radam, 2),
    OPTIMIZERS["lion"]: Optimizer(_lion, 1),
    OPTIMIZERS["rprop"]: Optimizer(_rprop, 2),
}


def moments_of(code: int) -> int:
    """How many moments an optimizer keeps for each parameter."""
    return BY_CODE[code].moments


@intrinsic("n(p,p,i,f,f,f,f)")
def shape_gradient(e, g, w, vectors, scale, clip, l1, l2):
    """Clip a stretch of the gradient to ±clip, multiply it by `scale` (clipping by norm), add the penalties' own."""
    scale, clip, l1, l2 = (e.splat_double(x) for x in (scale, clip, l1, l2))
    with e.loop(vectors) as i:
        place = e.at(g, i * e.lanes)
        g_i, w_i = e.load(place), e.load(e.at(w, i * e.lanes))
        g_i = e.where(g_i > clip, clip, e.where(g_i < -clip, -clip, g_i)) * scale
        e.store(place, e.fma(l2, w_i, e.fma(l1, _sign(e, w_i), g_i)))


@intrinsic("n(i,p,p,p,p,i,p,f)")
def optimizer_step(e, code, w, g, m, v, vectors, c, decay):
    """Update a stretch of whole vectors. c points at the coefficients, already in the scalar type."""
    decay = e.splat_double(decay)
    c = [e.splat(e.load_scalar(e.at(c, i))) for i in range(COEFFICIENTS)]

    def case(optimizer):
        def run():
            with e.loop(vectors) as i:
                start = i * e.lanes
                places = [e.at(p, start) for p in (w, m, v)]
                w_i, g_i = e.load(places[0]), e.load(e.at(g, start))
                m_i = e.load(places[1]) if optimizer.moments > 0 else None
                v_i = e.load(places[2]) if optimizer.moments > 1 else None
                new = optimizer.step(e, w_i * decay, g_i, m_i, v_i, c)
                for place, value in zip(places[: 1 + optimizer.moments], new, strict=False):
                    e.store(place, value)

        return run

    e.switch(code, {number: case(optimizer) for number, optimizer in BY_CODE.items()})


@intrinsic("f(p,i,f)")
def sum_of_squares(e, g, vectors, clip):
    """The sum of squares of a stretch, clipped to ±clip: lane by lane down the stretch, then one tree."""
    clip = e.splat_double(clip)
    total = e.variable(e.constant(0.0))
    with e.loop(vectors) as i:
        g_i = e.load(e.at(g, i * e.lanes))
        g_i = e.where(g_i > clip, clip, e.where(g_i < -clip, -clip, g_i))
        total.set(e.fma(g_i, g_i, total.get()))
    return e.to_double(e.lane(e.reduce(total.get(), lambda a, b: a + b), 0))


@kernel("n(table,i,p)")
def take_coefficients(coefficients, step, scratch):
    """The step's coefficients, rounded to the scalar type, where `update_stretch` finds them."""
    for i in range(coefficients.shape[1]):
        store(at(scratch, SCRATCH_COEFFICIENTS + i), coefficients[step, i])
    store(at(scratch, SCRATCH_COEFFICIENTS + CLIP_FACTOR), 1.0)
