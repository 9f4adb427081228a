"""Layers: forward keeps what backward will need, backward turns dy into dx and leaves the parameters' gradients.

A network is a list of layers as the config's normal form writes it: mappings with `kind`, `units`, `activation`,
`dropout`, `layers`, ... Parameters live in one dict under their checkpoint names: layers.0.weight (out, in),
layers.0.bias, layers.1.layers.0.weight, layers.2.gate.weight; a norm's scale and shift are its weight and bias.
"""

from dataclasses import dataclass, field

import numpy as np

from . import activations
from .activations import sigmoid


@dataclass
class Pass:
    """One trip through the network: what it reads (above) and what it leaves behind (below)."""

    parameters: dict
    statistics: dict  # running_mean and running_var of the batch norms
    training: bool = False
    masks: dict = field(default_factory=dict)  # kept units as 0/1 by layer name, for every layer with dropout

    gradients: dict = field(default_factory=dict)
    dx: np.ndarray | None = None
    new_statistics: dict = field(default_factory=dict)


def dropout_factor(rate, name, run):
    """Inverted dropout: 0 where dropped, 1 / (1 - rate) where kept, plain 1 outside training."""
    if not run.training or not rate:
        return 1.0
    return np.asarray(run.masks[name], dtype=np.float64) / (1 - rate)


class Affine:
    """z = x W^T + b."""

    def __init__(self, name):
        self.name = name

    def forward(self, x, run):
        self.x = x
        return x @ run.parameters[f"{self.name}.weight"].T + run.parameters[f"{self.name}.bias"]

    def backward(self, dz, run):
        run.gradients[f"{self.name}.weight"] = dz.T @ self.x
        run.gradients[f"{self.name}.bias"] = dz.sum(axis=0)
        return dz @ run.parameters[f"{self.name}.weight"]


class Dense:
    """y = f(x W^T + b), dropped out after the activation."""

    def __init__(self, spec, name):
        self.name, self.affine = name, Affine(name)
        self.activation = spec.get("activation") or "linear"
        self.rate = spec.get("dropout", 0.0)

    def forward(self, x, run):
        self.z = self.affine.forward(x, run)
        self.kept = dropout_factor(self.rate, self.name, run)
        return activations.value(self.activation, self.z) * self.kept

    def backward(self, dy, run):
        return self.backward_from_z(activations.pullback(self.activation, self.z, dy * self.kept), run)

    def backward_from_z(self, dz, run):
        return self.affine.backward(dz, run)


class Highway:
    """y = T f(x) + (1 - T) x with f(x) = activation(x W^T + b) and the gate T = sigmoid(x W_T^T + b_T).

    Dropout falls on y, as everywhere on what the layer hands on.
    """

    def __init__(self, spec, name):
        self.name, self.affine, self.gate = name, Affine(name), Affine(f"{name}.gate")
        self.activation = spec.get("activation") or "relu"
        self.rate = spec.get("dropout", 0.0)

    def forward(self, x, run):
        self.x = x
        self.z, self.gate_z = self.affine.forward(x, run), self.gate.forward(x, run)
        self.f, self.t = activations.value(self.activation, self.z), sigmoid(self.gate_z)
        self.kept = dropout_factor(self.rate, self.name, run)
        return (self.t * self.f + (1 - self.t) * x) * self.kept

    def backward(self, dy, run):
        dy = dy * self.kept
        dz = activations.pullback(self.activation, self.z, dy * self.t)
        dgate_z = activations.pullback("sigmoid", self.gate_z, dy * (self.f - self.x))
        return self.affine.backward(dz, run) + self.gate.backward(dgate_z, run) + dy * (1 - self.t)


class Residual:
    """y = x + f(x)."""

    def __init__(self, spec, name):
        self.inner = Sequence(spec["layers"], f"{name}.layers")

    def forward(self, x, run):
        return x + self.inner.forward(x, run)

    def backward(self, dy, run):
        return dy + self.inner.backward(dy, run)


class Concat:
    """y = [x, f(x)]."""

    def __init__(self, spec, name):
        self.inner = Sequence(spec["layers"], f"{name}.layers")

    def forward(self, x, run):
        self.width = x.shape[1]
        return np.concatenate([x, self.inner.forward(x, run)], axis=1)

    def backward(self, dy, run):
        return dy[:, : self.width] + self.inner.backward(dy[:, self.width :], run)


class LayerNorm:
    """y = scale (x - mean) / sqrt(var + epsilon) + shift, mean and biased variance over each row."""

    def __init__(self, spec, name):
        self.name, self.epsilon = name, spec.get("epsilon", 1e-5)

    def forward(self, x, run):
        self.std = np.sqrt(x.var(axis=1, keepdims=True) + self.epsilon)
        self.normal = (x - x.mean(axis=1, keepdims=True)) / self.std
        return run.parameters[f"{self.name}.weight"] * self.normal + run.parameters[f"{self.name}.bias"]

    def backward(self, dy, run):
        run.gradients[f"{self.name}.weight"] = (dy * self.normal).sum(axis=0)
        run.gradients[f"{self.name}.bias"] = dy.sum(axis=0)
        return normalised_backward(dy * run.parameters[f"{self.name}.weight"], self.normal, self.std, axis=1)


class BatchNorm:
    """As LayerNorm, but down each column: over the batch in training, by the running statistics otherwise.

    Biased variance normalises; running <- (1 - momentum) running + momentum (mean, unbiased variance), as PyTorch.
    A batch of one row has no unbiased variance (PyTorch refuses it): running_var then stays as it is.
    """

    def __init__(self, spec, name):
        self.name, self.epsilon = name, spec.get("epsilon", 1e-5)
        self.momentum = spec.get("momentum", 0.1)

    def forward(self, x, run):
        mean, var = f"{self.name}.running_mean", f"{self.name}.running_var"
        self.trained = run.training
        if run.training:
            batch_mean, batch_var = x.mean(axis=0), x.var(axis=0)
            run.new_statistics[mean] = (1 - self.momentum) * run.statistics[mean] + self.momentum * batch_mean
            run.new_statistics[var] = run.statistics[var]
            if len(x) > 1:
                unbiased = x.var(axis=0, ddof=1)
                run.new_statistics[var] = (1 - self.momentum) * run.statistics[var] + self.momentum * unbiased
        else:
            batch_mean, batch_var = run.statistics[mean], run.statistics[var]
        self.std = np.sqrt(batch_var + self.epsilon)
        self.normal = (x - batch_mean) / self.std
        return run.parameters[f"{self.name}.weight"] * self.normal + run.parameters[f"{self.name}.bias"]

    def backward(self, dy, run):
        run.gradients[f"{self.name}.weight"] = (dy * self.normal).sum(axis=0)
        run.gradients[f"{self.name}.bias"] = dy.sum(axis=0)
        dnormal = dy * run.parameters[f"{self.name}.weight"]
        if not self.trained:
            return dnormal / self.std
        return normalised_backward(dnormal, self.normal, self.std, axis=0)


def normalised_backward(dnormal, normal, std, axis):
    """dx of normal = (x - mean(x)) / std(x): what is left of dnormal without its mean and its part along normal."""
    mean = dnormal.mean(axis=axis, keepdims=True)
    along = (dnormal * normal).mean(axis=axis, keepdims=True)
    return (dnormal - mean - normal * along) / std


class PositionalEncoding:
    """For k = 0 .. F-1 every coordinate's sin(2^k pi x), then the same with cos: width 2 F d, x not included.

    2^k x is exact and the period is 2, so it is brought below 2 before pi, which is not exact, comes in.
    """

    def __init__(self, spec, name):
        self.frequencies = spec["frequencies"]

    def forward(self, x, run):
        self.angles = [np.pi * np.fmod(2.0**k * x, 2.0) for k in range(self.frequencies)]
        return np.concatenate([np.sin(a) for a in self.angles] + [np.cos(a) for a in self.angles], axis=1)

    def backward(self, dy, run):
        pieces = np.split(dy, 2 * self.frequencies, axis=1)
        dx = np.zeros_like(pieces[0])
        for k, angle in enumerate(self.angles):
            dsin, dcos = pieces[k], pieces[self.frequencies + k]
            dx += 2.0**k * np.pi * (np.cos(angle) * dsin - np.sin(angle) * dcos)
        return dx


class Sequence:
    """Layer after layer, and back."""

    def __init__(self, specs, name):
        self.layers = [KINDS[spec.get("kind", "dense")](spec, f"{name}.{i}") for i, spec in enumerate(specs)]

    def forward(self, x, run):
        for layer in self.layers:
            x = layer.forward(x, run)
        return x

    def backward(self, dy, run):
        for layer in reversed(self.layers):
            dy = layer.backward(dy, run)
        return dy

    def backward_from_z(self, dz, run):
        """Backward from the pre-activations of the last layer, a dense one."""
        dy = self.layers[-1].backward_from_z(dz, run)
        for layer in reversed(self.layers[:-1]):
            dy = layer.backward(dy, run)
        return dy


KINDS = {
    "dense": Dense,
    "residual": Residual,
    "highway": Highway,
    "concat": Concat,
    "layer_norm": LayerNorm,
    "batch_norm": BatchNorm,
    "positional_encoding": PositionalEncoding,
}


def shapes(specs, inputs, name="layers"):
    """({parameter or statistic: its shape}, width of the output) of a list of layers; every dense has its units."""
    found, width = {}, inputs
    for i, spec in enumerate(specs):
        prefix, kind = f"{name}.{i}", spec.get("kind", "dense")
        if kind == "dense":
            found |= {f"{prefix}.weight": (spec["units"], width), f"{prefix}.bias": (spec["units"],)}
            width = spec["units"]
        elif kind == "highway":
            for part in (prefix, f"{prefix}.gate"):
                found |= {f"{part}.weight": (width, width), f"{part}.bias": (width,)}
        elif kind in ("layer_norm", "batch_norm"):
            names = ["weight", "bias"] + (["running_mean", "running_var"] if kind == "batch_norm" else [])
            found |= {f"{prefix}.{part}": (width,) for part in names}
        elif kind == "positional_encoding":
            width *= 2 * spec["frequencies"]
        else:
            inner, inner_width = shapes(spec["layers"], width, f"{prefix}.layers")
            found |= inner
            width = width + inner_width if kind == "concat" else inner_width
    return found, width


def frozen_names(specs, name="layers"):
    """Prefixes of the names of the layers with `freeze: true`."""
    frozen = []
    for i, spec in enumerate(specs):
        if spec.get("freeze"):
            frozen.append(f"{name}.{i}.")
        frozen += frozen_names(spec.get("layers") or [], f"{name}.{i}.layers")
    return tuple(frozen)
