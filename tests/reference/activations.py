"""Activations: what a unit says to the sum of its inputs, and how steeply.

Every function takes the pre-activations z of any shape (softmax and hardmax: rows (n, k)) and the activation's
options. Where a slope does not exist, the convention is PyTorch's: at a kink the flat or left-hand side.
"""

import math

import numpy as np

SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


def named(spec):
    """A bare word or a mapping with `name` -> (word, options)."""
    if isinstance(spec, str):
        return spec, {}
    return spec["name"], {key: value for key, value in spec.items() if key != "name"}


def linear(z):
    return z


def linear_slope(z):
    return np.ones_like(z)


def threshold(z, low=0.0, high=1.0):
    return np.where(z >= 0, high, low)


def threshold_slope(z, low=0.0, high=1.0):
    """Straight through: 1 whatever the step's height, which makes the perceptron rule of it."""
    return np.ones_like(z)


def sigmoid(z):
    """1 / (1 + exp(-z)), with only the exponential that cannot overflow."""
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1 / (1 + e), e / (1 + e))


def sigmoid_slope(z):
    return sigmoid(z) * sigmoid(-z)


def tanh(z):
    return np.tanh(z)


def tanh_slope(z):
    return 1 - np.tanh(z) ** 2


def relu(z):
    return np.where(z > 0, z, 0.0)


def relu_slope(z):
    return np.where(z > 0, 1.0, 0.0)


def leaky_relu(z, alpha=0.01):
    return np.where(z > 0, z, alpha * z)


def leaky_relu_slope(z, alpha=0.01):
    return np.where(z > 0, 1.0, alpha)


def elu(z, alpha=1.0):
    return np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0)))


def elu_slope(z, alpha=1.0):
    """alpha at 0, which is 1 for the usual alpha."""
    return np.where(z > 0, 1.0, alpha * np.exp(np.minimum(z, 0)))


def selu(z):
    return SELU_SCALE * elu(z, SELU_ALPHA)


def selu_slope(z):
    return SELU_SCALE * elu_slope(z, SELU_ALPHA)


def normal_distribution(z):
    """The probability that a standard normal number is below z."""
    return np.vectorize(lambda v: 0.5 * math.erfc(-v / math.sqrt(2)), otypes=[float])(z)


def gelu(z):
    return z * normal_distribution(z)


def gelu_slope(z):
    return normal_distribution(z) + z * np.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def silu(z):
    return z * sigmoid(z)


def silu_slope(z):
    return sigmoid(z) + z * sigmoid_slope(z)


def mish(z):
    return z * np.tanh(softplus(z))


def mish_slope(z):
    return np.tanh(softplus(z)) + z * (1 - np.tanh(softplus(z)) ** 2) * sigmoid(z)


def softplus(z):
    """log(1 + exp(z)) exactly; PyTorch's switches to z itself above 20, 2e-9 away."""
    return np.logaddexp(0, z)


def softplus_slope(z):
    return sigmoid(z)


def softsign(z):
    return z / (1 + np.abs(z))


def softsign_slope(z):
    return 1 / (1 + np.abs(z)) ** 2


def hard_sigmoid(z):
    return np.clip(z / 6 + 0.5, 0, 1)


def hard_sigmoid_slope(z):
    return np.where((z > -3) & (z < 3), 1 / 6, 0.0)


def hard_tanh(z):
    return np.clip(z, -1, 1)


def hard_tanh_slope(z):
    return np.where((z > -1) & (z < 1), 1.0, 0.0)


def sin(z):
    return np.sin(z)


def sin_slope(z):
    return np.cos(z)


def gaussian(z):
    return np.exp(-z * z)


def gaussian_slope(z):
    return -2 * z * np.exp(-z * z)


def exponential(z):
    with np.errstate(over="ignore"):
        return np.exp(z)


def exponential_slope(z):
    return exponential(z)


def softmax(z, alpha=1.0):
    """exp(alpha z_i) / sum_j exp(alpha z_j) in each row; alpha is an inverse temperature."""
    return np.exp(log_softmax(z, alpha))


def log_softmax(z, alpha=1.0):
    a = alpha * z
    a = a - a.max(axis=1, keepdims=True)
    return a - np.log(np.exp(a).sum(axis=1, keepdims=True))


def softmax_pullback(z, dy, alpha=1.0):
    """dz = J^T dy row by row, with the Jacobian J_ij = alpha y_i (delta_ij - y_j) written out."""
    dz = np.empty_like(z)
    for row, y in enumerate(softmax(z, alpha)):
        jacobian = alpha * (np.diag(y) - np.outer(y, y))
        dz[row] = jacobian.T @ dy[row]
    return dz


def hardmax(z):
    """1 for the largest of the row (of equals, the first), 0 for the rest; its gradient goes straight through."""
    y = np.zeros_like(z)
    y[np.arange(len(z)), z.argmax(axis=1)] = 1
    return y


ELEMENTWISE = {
    "linear": (linear, linear_slope),
    "threshold": (threshold, threshold_slope),
    "sigmoid": (sigmoid, sigmoid_slope),
    "tanh": (tanh, tanh_slope),
    "relu": (relu, relu_slope),
    "leaky_relu": (leaky_relu, leaky_relu_slope),
    "elu": (elu, elu_slope),
    "selu": (selu, selu_slope),
    "gelu": (gelu, gelu_slope),
    "silu": (silu, silu_slope),
    "mish": (mish, mish_slope),
    "softplus": (softplus, softplus_slope),
    "softsign": (softsign, softsign_slope),
    "hard_sigmoid": (hard_sigmoid, hard_sigmoid_slope),
    "hard_tanh": (hard_tanh, hard_tanh_slope),
    "sin": (sin, sin_slope),
    "gaussian": (gaussian, gaussian_slope),
    "exponential": (exponential, exponential_slope),
}

ROWWISE = ("softmax", "hardmax")
STRAIGHT_THROUGH = ("threshold", "hardmax")
NAMES = (*ELEMENTWISE, *ROWWISE)


def value(activation, z):
    """y = f(z) for a bare word or a mapping such as {"name": "elu", "alpha": 0.5}."""
    name, options = named(activation)
    z = np.asarray(z, dtype=np.float64)
    if name == "softmax":
        return softmax(z, **options)
    if name == "hardmax":
        return hardmax(z)
    return ELEMENTWISE[name][0](z, **options)


def slope(activation, z):
    """f'(z) of an element-wise activation."""
    name, options = named(activation)
    return ELEMENTWISE[name][1](np.asarray(z, dtype=np.float64), **options)


def pullback(activation, z, dy):
    """dz from dy, for every activation: f'(z) dy, or the rows' Jacobian-vector product."""
    name, options = named(activation)
    z = np.asarray(z, dtype=np.float64)
    if name == "softmax":
        return softmax_pullback(z, dy, **options)
    if name == "hardmax":
        return dy.copy()
    return ELEMENTWISE[name][1](z, **options) * dy
