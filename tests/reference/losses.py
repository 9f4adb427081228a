"""Losses: what a sample's outputs cost, given its targets.

`of_outputs` holds the formulas of the contract on the outputs y, `of_preactivations` the five pairs that are computed
from z because the detour over y would lose digits. All return (cost of each sample (n,), gradient (n, k)).
A product whose target factor is 0 counts as 0, even against log 0; other than that nothing is clamped, so that y
outside a loss's domain costs inf or nan.
"""

import numpy as np

from . import activations
from .activations import log_softmax, named, sigmoid, softplus


def mean_of_outputs(cost, dy):
    """Cost and slope of each output -> of the sample, by the mean over its k outputs."""
    return cost.mean(axis=1), dy / cost.shape[1]


def product(t, factor):
    """t * factor, and 0 where t is 0 whatever the factor."""
    return np.where(t == 0, 0.0, t * np.where(t == 0, 0.0, factor))


def log(y):
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(y)


def divide(a, b):
    """a / b, and 0 where a is 0 whatever b."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(a == 0, 0.0, a / b)


def quadratic(y, t):
    return ((y - t) ** 2).sum(axis=1), 2 * (y - t)


def half_quadratic(y, t):
    return ((y - t) ** 2).sum(axis=1) / 2, y - t


def mse(y, t):
    return mean_of_outputs((y - t) ** 2, 2 * (y - t))


def mae(y, t):
    """Slope 0 where y hits t."""
    return mean_of_outputs(np.abs(y - t), np.sign(y - t))


def huber(y, t, delta=1.0):
    """r^2 / 2 up to |r| = delta, then delta (|r| - delta / 2)."""
    r = y - t
    small = np.abs(r) <= delta
    cost = np.where(small, r * r / 2, delta * (np.abs(r) - delta / 2))
    return mean_of_outputs(cost, np.where(small, r, delta * np.sign(r)))


def log_cosh(y, t):
    """log cosh r = |r| + log(1 + exp(-2|r|)) - log 2, which does not overflow."""
    r = np.abs(y - t)
    return mean_of_outputs(r + np.log1p(np.exp(-2 * r)) - np.log(2), np.tanh(y - t))


def quantile(y, t, q=0.5):
    """q (t - y) where the output is too low, (1 - q) (y - t) where too high; slope 0 where it hits (as mae)."""
    cost = np.maximum(q * (t - y), (1 - q) * (y - t))
    return mean_of_outputs(cost, np.where(y < t, -q, np.where(y > t, 1 - q, 0.0)))


def poisson(y, t):
    """y - t log y, mean over outputs as in PyTorch and Keras (without PyTorch's 1e-8 inside the logarithm)."""
    return mean_of_outputs(y - product(t, log(y)), 1 - divide(t, y))


def binary_cross_entropy(y, t):
    """-t log y - (1 - t) log(1 - y), summed over outputs."""
    cost = -product(t, log(y)) - product(1 - t, log(1 - y))
    return cost.sum(axis=1), -divide(t, y) + divide(1 - t, 1 - y)


def cross_entropy(y, t):
    """- sum_k t_k log y_k."""
    return -product(t, log(y)).sum(axis=1), -divide(t, y)


def power(a, exponent):
    """a ** exponent for a >= 0, silent about 0 ** negative = inf."""
    with np.errstate(divide="ignore"):
        return a**exponent


def focal_term(y, gamma):
    """(1 - y)^gamma log y, the cost of a whole unit of target, and its slope in y."""
    rest = 1 - y
    steep = product(gamma * log(y), power(rest, gamma - 1))
    return rest**gamma * log(y), -steep + divide(power(rest, gamma), y)


def categorical_focal(y, t, gamma=2.0):
    """- sum_k t_k (1 - y_k)^gamma log y_k (Lin et al. 2017, its alpha left to class weights)."""
    cost, slope = focal_term(y, gamma)
    return -product(t, cost).sum(axis=1), -product(t, slope)


def binary_focal(y, t, gamma=2.0):
    """Each output a class and its complement: - t (1 - y)^gamma log y - (1 - t) y^gamma log(1 - y), summed."""
    cost, slope = focal_term(y, gamma)
    cost_not, slope_not = focal_term(1 - y, gamma)
    total = -product(t, cost) - product(1 - t, cost_not)
    return total.sum(axis=1), -product(t, slope) + product(1 - t, slope_not)


def sign_targets(t):
    """Binary targets 0/1 and bipolar targets -1/+1 alike -> -1/+1."""
    return np.where(t > 0, 1.0, -1.0)


def hinge(y, t):
    """max(0, 1 - s y) with s = -1 or +1; slope 0 at the kink."""
    s = sign_targets(t)
    return mean_of_outputs(np.maximum(0, 1 - s * y), np.where(s * y < 1, -s, 0.0))


def squared_hinge(y, t):
    s = sign_targets(t)
    gap = np.maximum(0, 1 - s * y)
    return mean_of_outputs(gap * gap, -2 * s * gap)


OF_OUTPUTS = {
    "quadratic": quadratic,
    "half_quadratic": half_quadratic,
    "mse": mse,
    "mae": mae,
    "huber": huber,
    "log_cosh": log_cosh,
    "quantile": quantile,
    "poisson": poisson,
    "binary_cross_entropy": binary_cross_entropy,
    "cross_entropy": cross_entropy,
    "categorical_focal": categorical_focal,
    "binary_focal": binary_focal,
    "hinge": hinge,
    "squared_hinge": squared_hinge,
}

NAMES = (
    "quadratic",
    "half_quadratic",
    "mse",
    "mae",
    "huber",
    "log_cosh",
    "quantile",
    "poisson",
    "binary_cross_entropy",
    "cross_entropy",
    "focal",
    "hinge",
    "squared_hinge",
)


def softmax_cross_entropy(z, t, alpha=1.0):
    """With p = softmax(alpha z): dz = alpha (p sum(t) - t)."""
    log_p = log_softmax(z, alpha)
    return -(t * log_p).sum(axis=1), alpha * (np.exp(log_p) * t.sum(axis=1, keepdims=True) - t)


def sigmoid_binary_cross_entropy(z, t):
    """-t log sigmoid(z) - (1 - t) log sigmoid(-z); dz = sigmoid(z) - t."""
    return (t * softplus(-z) + (1 - t) * softplus(z)).sum(axis=1), sigmoid(z) - t


def exponential_poisson(z, t):
    """exp(z) - t z; dz = exp(z) - t."""
    y = activations.exponential(z)
    return mean_of_outputs(y - t * z, y - t)


def softmax_focal(z, t, alpha=1.0, gamma=2.0):
    """With p = softmax(alpha z) and h_k = p_k dL/dp_k: dz_k = alpha (h_k - p_k sum(h)).

    1 - p is taken as -expm1(log p), exact where p rounds to 1.
    """
    log_p = log_softmax(z, alpha)
    p, rest = np.exp(log_p), -np.expm1(log_p)
    steep = product(gamma * p * log_p, power(rest, gamma - 1))
    h = t * (steep - rest**gamma)
    return -(t * rest**gamma * log_p).sum(axis=1), alpha * (h - p * h.sum(axis=1, keepdims=True))


def sigmoid_focal(z, t, gamma=2.0):
    """With p = sigmoid(z), q = 1 - p: d(q^gamma log p)/dz = q^(gamma+1) - gamma p q^gamma log p, and its mirror."""
    p, q, log_p, log_q = sigmoid(z), sigmoid(-z), -softplus(-z), -softplus(z)
    cost = -t * q**gamma * log_p - (1 - t) * p**gamma * log_q
    rise = q ** (gamma + 1) - gamma * p * q**gamma * log_p
    fall = p ** (gamma + 1) - gamma * q * p**gamma * log_q
    return cost.sum(axis=1), -t * rise + (1 - t) * fall


OF_PREACTIVATIONS = {
    ("softmax", "cross_entropy"): softmax_cross_entropy,
    ("sigmoid", "binary_cross_entropy"): sigmoid_binary_cross_entropy,
    ("exponential", "poisson"): exponential_poisson,
    ("softmax", "categorical_focal"): softmax_focal,
    ("sigmoid", "binary_focal"): sigmoid_focal,
}


def smoothed(name, t, epsilon):
    """Label smoothing: t (1 - e) + e / K among K classes, t (1 - e) + e / 2 for a class and its complement."""
    if epsilon == 0:
        return t
    if name in ("cross_entropy", "categorical_focal"):
        return t * (1 - epsilon) + epsilon / t.shape[1]
    if name in ("binary_cross_entropy", "binary_focal"):
        return t * (1 - epsilon) + epsilon / 2
    raise ValueError(f"{name} has no label smoothing")


def resolved(loss, activation):
    """(name, options, label smoothing): focal is one of k under softmax, and yes or no per output elsewhere."""
    name, options = named(loss)
    options = {key: value for key, value in options.items() if key not in ("reduction", "class_weights")}
    epsilon = options.pop("label_smoothing", 0.0) or 0.0
    if name == "focal":
        name = "categorical_focal" if named(activation)[0] == "softmax" else "binary_focal"
    return name, options, epsilon


def of_outputs(loss, y, t, activation="linear"):
    """Costs (n,) and their gradients dy (n, k) by the plain formula; the activation only tells the two focals apart."""
    name, options, epsilon = resolved(loss, activation)
    y, t = np.asarray(y, dtype=np.float64), np.asarray(t, dtype=np.float64)
    return OF_OUTPUTS[name](y, smoothed(name, t, epsilon), **options)


def of_preactivations(loss, activation, z, t):
    """Costs (n,) and dz (n, k): in one where the pair is fused, else through the chain y = f(z), dz = J^T dy."""
    name, options, epsilon = resolved(loss, activation)
    activation_name, activation_options = named(activation)
    z, t = np.asarray(z, dtype=np.float64), np.asarray(t, dtype=np.float64)
    fused = OF_PREACTIVATIONS.get((activation_name, name))
    if fused:
        return fused(z, smoothed(name, t, epsilon), **activation_options, **options)
    cost, dy = of_outputs(loss, activations.value(activation, z), t, activation)
    return cost, activations.pullback(activation, z, dy)


def sample_factors(n, w=None, reduction="mean"):
    """What each sample's cost counts in the batch: w / n for the mean (not w / sum(w)), w for the sum."""
    w = np.ones(n) if w is None else np.asarray(w, dtype=np.float64)
    return w / n if reduction == "mean" else w
