"""The whole of training on one screen: forward, loss, backward, update."""

import numpy as np

from . import layers, losses
from .activations import named
from .optimizers import Optimizer


class Trainer:
    """A network that learns batch by batch.

    `weights` maps every checkpoint name to its array, running statistics included. `w` are sample weights with class
    weights already multiplied in. `masks` says which units stay, as 0/1 by layer name ("input" for the network's
    input, "layers.0", "layers.1.layers.0", ...); `noise` is added to x as it is, before the input's dropout.
    """

    def __init__(self, specs, loss, optimizer="sgd", regularization=None, weights=None, input_dropout=0.0):
        self.network = layers.Sequence(specs, "layers")
        self.output = self.network.layers[-1]
        if not isinstance(self.output, layers.Dense) or self.output.rate:
            raise ValueError("the last layer is dense and has no dropout")
        self.loss_spec, self.input_dropout = loss, input_dropout
        self.reduction = named(loss)[1].get("reduction", "mean")
        self.optimizer = Optimizer(optimizer, regularization)
        self.frozen = layers.frozen_names(specs)
        arrays = {name: np.array(value, dtype=np.float64) for name, value in weights.items()}
        self._statistics = {name: value for name, value in arrays.items() if ".running_" in name}
        self._parameters = {name: value for name, value in arrays.items() if ".running_" not in name}

    def parameters(self):
        """{checkpoint name: array}, frozen ones included; a step puts new arrays in their place."""
        return dict(self._parameters)

    def statistics(self):
        """{name: array} of the batch norms' running_mean and running_var."""
        return dict(self._statistics)

    def _run(self, x, training, masks, noise):
        run = layers.Pass(self._parameters, self._statistics, training, masks or {})
        x = np.asarray(x, dtype=np.float64) + (0.0 if noise is None else noise)
        return run, self.network.forward(x * layers.dropout_factor(self.input_dropout, "input", run), run)

    def forward(self, x, training=False, masks=None, noise=None):
        """The outputs y (n, k): as in prediction, or as a training step would see them."""
        return self._run(x, training, masks, noise)[1]

    def _learn(self, x, t, w, masks, noise):
        run, y = self._run(x, True, masks, noise)
        cost, dz = losses.of_preactivations(self.loss_spec, self.output.activation, self.output.z, t)
        factors = losses.sample_factors(len(y), w, self.reduction)
        dx = self.network.backward_from_z(dz * factors[:, None], run)
        run.dx = dx * layers.dropout_factor(self.input_dropout, "input", run)
        if set(run.gradients) != set(self._parameters):
            raise ValueError(f"weights {sorted(self._parameters)} are not the layers' {sorted(run.gradients)}")
        return (cost * factors).sum(), run

    def loss(self, x, t, w=None, masks=None, noise=None):
        """The batch's loss in training, penalties excluded; nothing changes."""
        return self._learn(x, t, w, masks, noise)[0]

    def gradients(self, x, t, w=None, masks=None, noise=None):
        """{name: gradient of that loss}, neither clipped nor penalised, frozen parameters included."""
        return self._learn(x, t, w, masks, noise)[1].gradients

    def input_gradient(self, x, t, w=None, masks=None, noise=None):
        """Gradient of that loss in x (n, d)."""
        return self._learn(x, t, w, masks, noise)[1].dx

    def step(self, x, t, w=None, lr=0.01, masks=None, noise=None):
        """One update; returns the loss before it. Frozen layers take no part, not even in clip_norm."""
        loss, run = self._learn(x, t, w, masks, noise)
        live = {name: g for name, g in run.gradients.items() if not name.startswith(self.frozen)}
        self._parameters |= self.optimizer.step(self._parameters, live, lr)
        self._statistics |= run.new_statistics
        return loss


def encode(classes, outputs, coding="binary"):
    """Class numbers (n,) -> targets (n, outputs): one-hot, or the class itself for one unit; 0/1, or bipolar -1/+1."""
    classes = np.asarray(classes)
    t = classes[:, None] == (np.array([1]) if outputs == 1 else np.arange(outputs))
    return t.astype(np.float64) if coding == "binary" else np.where(t, 1.0, -1.0)


def random_weights(specs, inputs, seed=0, scale=0.5):
    """Normal numbers for every parameter (norm scales around 1), running statistics at rest: mean 0, variance 1."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in layers.shapes(specs, inputs)[0].items():
        weights[name] = scale * rng.normal(size=shape)
        if name.endswith(".running_mean"):
            weights[name] = np.zeros(shape)
        elif name.endswith(".running_var"):
            weights[name] = np.ones(shape)
        elif name.endswith(".weight") and len(shape) == 1:
            weights[name] += 1
    return weights
