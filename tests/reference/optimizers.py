"""Optimizers: the step each paper takes, in PyTorch's form where there are several.

A rule is `rule(w, g, s, lr, options) -> new w` for one parameter array, its gradient and its own state s, a dict that
starts empty and holds the step number s["t"], counted from 1. sign(0) is 0.
"""

import math

import numpy as np

from .activations import named


def sgd(w, g, s, lr, o):
    """v <- momentum v + g; w <- w - lr v, with Nesterov w <- w - lr (g + momentum v)."""
    if o["momentum"] == 0:
        return w - lr * g
    s["v"] = o["momentum"] * s.get("v", 0.0) + g
    return w - lr * (g + o["momentum"] * s["v"] if o["nesterov"] else s["v"])


def adagrad(w, g, s, lr, o):
    """The sum of squares starts at 0; epsilon stands outside the root."""
    s["sum"] = s.get("sum", 0.0) + g * g
    return w - lr * g / (np.sqrt(s["sum"]) + o["epsilon"])


def adadelta(w, g, s, lr, o):
    """Epsilon stands inside both roots."""
    s["square"] = o["rho"] * s.get("square", 0.0) + (1 - o["rho"]) * g * g
    delta = np.sqrt(s.get("delta", 0.0) + o["epsilon"]) / np.sqrt(s["square"] + o["epsilon"]) * g
    s["delta"] = o["rho"] * s.get("delta", 0.0) + (1 - o["rho"]) * delta * delta
    return w - lr * delta


def rmsprop(w, g, s, lr, o):
    """Epsilon stands outside the root; momentum collects the scaled steps."""
    s["square"] = o["rho"] * s.get("square", 0.0) + (1 - o["rho"]) * g * g
    step = g / (np.sqrt(s["square"]) + o["epsilon"])
    s["v"] = o["momentum"] * s.get("v", 0.0) + step
    return w - lr * s["v"]


def moments(g, s, o):
    """The running means of g and of g squared that the family of Adam shares."""
    s["m"] = o["beta1"] * s.get("m", 0.0) + (1 - o["beta1"]) * g
    s["v"] = o["beta2"] * s.get("v", 0.0) + (1 - o["beta2"]) * g * g


def adam(w, g, s, lr, o):
    """Algorithm 1 of Kingma and Ba: w <- w - lr m^ / (sqrt(v^) + epsilon)."""
    moments(g, s, o)
    m_hat = s["m"] / (1 - o["beta1"] ** s["t"])
    v_hat = s["v"] / (1 - o["beta2"] ** s["t"])
    return w - lr * m_hat / (np.sqrt(v_hat) + o["epsilon"])


def adamax(w, g, s, lr, o):
    """u <- max(beta2 u, |g| + epsilon)."""
    s["m"] = o["beta1"] * s.get("m", 0.0) + (1 - o["beta1"]) * g
    s["u"] = np.maximum(o["beta2"] * s.get("u", 0.0), np.abs(g) + o["epsilon"])
    return w - lr / (1 - o["beta1"] ** s["t"]) * s["m"] / s["u"]


MOMENTUM_DECAY = 4e-3


def nadam(w, g, s, lr, o):
    """Dozat 2016, with mu_t = beta1 (1 - 0.96^(t 4e-3) / 2) and the running product of the mu."""
    moments(g, s, o)
    mu = o["beta1"] * (1 - 0.5 * 0.96 ** (s["t"] * MOMENTUM_DECAY))
    mu_next = o["beta1"] * (1 - 0.5 * 0.96 ** ((s["t"] + 1) * MOMENTUM_DECAY))
    s["mu_product"] = s.get("mu_product", 1.0) * mu
    m_hat = mu_next * s["m"] / (1 - s["mu_product"] * mu_next) + (1 - mu) * g / (1 - s["mu_product"])
    v_hat = s["v"] / (1 - o["beta2"] ** s["t"])
    return w - lr * m_hat / (np.sqrt(v_hat) + o["epsilon"])


def radam(w, g, s, lr, o):
    """Liu et al. 2020: plain momentum until the variance can be trusted (rho > 5), epsilon beside sqrt(v)."""
    moments(g, s, o)
    t, beta2 = s["t"], o["beta2"]
    m_hat = s["m"] / (1 - o["beta1"] ** t)
    rho_inf = 2 / (1 - beta2) - 1
    rho = rho_inf - 2 * t * beta2**t / (1 - beta2**t)
    if rho <= 5:
        return w - lr * m_hat
    rectified = math.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
    return w - lr * m_hat * rectified * math.sqrt(1 - beta2**t) / (np.sqrt(s["v"]) + o["epsilon"])


def lion(w, g, s, lr, o):
    """Chen et al. 2023: the sign of a blend of momentum and gradient, then another blend is kept."""
    m = s.get("m", np.zeros_like(w))
    s["m"] = o["beta2"] * m + (1 - o["beta2"]) * g
    return w - lr * np.sign(o["beta1"] * m + (1 - o["beta1"]) * g)


def rprop(w, g, s, lr, o):
    """Each weight has a step of its own: x 1.2 while the gradient keeps its sign, x 0.5 when it turns.

    The first step size is the first learning rate; later rates change nothing. After a turn the gradient counts as
    0: the weight rests for this step, and the next one neither grows nor shrinks.
    """
    step, previous = s.get("step", np.full_like(w, lr)), s.get("g", np.zeros_like(w))
    same, turned = g * previous > 0, g * previous < 0
    s["step"] = np.clip(np.where(same, 1.2 * step, np.where(turned, 0.5 * step, step)), 1e-6, 50.0)
    s["g"] = np.where(turned, 0.0, g)
    return w - np.sign(s["g"]) * s["step"]


ADAM_DEFAULTS = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}

RULES = {
    "sgd": (sgd, {"momentum": 0.0, "nesterov": False}),
    "adagrad": (adagrad, {"epsilon": 1e-10}),
    "adadelta": (adadelta, {"rho": 0.9, "epsilon": 1e-6}),
    "rmsprop": (rmsprop, {"rho": 0.99, "epsilon": 1e-8, "momentum": 0.0}),
    "adam": (adam, ADAM_DEFAULTS),
    "adamw": (adam, ADAM_DEFAULTS),  # with weight_decay 0.01, below
    "adamax": (adamax, ADAM_DEFAULTS),
    "nadam": (nadam, ADAM_DEFAULTS),
    "radam": (radam, ADAM_DEFAULTS),
    "lion": (lion, {"beta1": 0.9, "beta2": 0.99}),
    "rprop": (rprop, {}),
}

NAMES = tuple(RULES)


def clipped(gradients, clip_value=None, clip_norm=None):
    """Each element into [-clip_value, clip_value], then all of them together to length clip_norm if longer."""
    if clip_value is not None:
        gradients = {name: np.clip(g, -clip_value, clip_value) for name, g in gradients.items()}
    if clip_norm is not None:
        norm = math.sqrt(sum(float((g * g).sum()) for g in gradients.values()))
        factor = min(clip_norm / (norm + 1e-6), 1.0)
        gradients = {name: factor * g for name, g in gradients.items()}
    return gradients


def is_penalised(name, parameters):
    """Weight matrices, a highway's two included; never biases or the scales of a norm (vectors, these)."""
    return name.endswith(".weight") and parameters[name].ndim == 2


def bounded(w, max_norm):
    """Each row, a unit's incoming weights, scaled down to length max_norm if longer."""
    length = np.sqrt((w * w).sum(axis=1, keepdims=True))
    return np.where(length > max_norm, w * (max_norm / np.where(length == 0, 1.0, length)), w)


class Optimizer:
    """clip -> add the penalties' gradient -> decay the weights -> the rule's step -> max_norm."""

    def __init__(self, optimizer, regularization=None):
        self.name, options = named(optimizer)
        self.rule, defaults = RULES[self.name]
        self.clip = {key: options.pop(key, None) for key in ("clip_value", "clip_norm")}
        if unknown := set(options) - set(defaults):
            raise ValueError(f"{self.name} has no option {', '.join(sorted(unknown))}")
        self.options = {**defaults, **options}
        regularization = regularization or {}
        self.l1, self.l2 = regularization.get("l1") or 0.0, regularization.get("l2") or 0.0
        self.max_norm = regularization.get("max_norm")
        self.weight_decay = regularization.get("weight_decay")
        if self.weight_decay is None:
            self.weight_decay = 0.01 if self.name == "adamw" else 0.0
        self.state = {}

    def step(self, parameters, gradients, lr):
        """{name: new value} for each gradient given: these are the trainable parameters."""
        stepped = {}
        for name, g in clipped(gradients, **self.clip).items():
            w = parameters[name]
            penalised = is_penalised(name, parameters)
            if penalised:
                g = g + self.l2 * w + self.l1 * np.sign(w)
                w = w * (1 - lr * self.weight_decay)
            state = self.state.setdefault(name, {"t": 0})
            state["t"] += 1
            w = self.rule(w, g, state, lr, self.options)
            if penalised and self.max_norm is not None:
                w = bounded(w, self.max_norm)
            stepped[name] = w
        return stepped
