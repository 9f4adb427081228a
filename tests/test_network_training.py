"""Training as a whole: a net worked by hand, random nets step by step beside the twin, and an epoch's running sums."""

import itertools
import math

import numpy as np
import pytest
from engine import DTYPES, Pair, configure, examples, named, sensible_pairs
from reference.activations import STRAIGHT_THROUGH

from mlp_cli.kernels import layout
from mlp_cli.vocab import ACTIVATIONS, FUSED, OPTIMIZERS

pytestmark = pytest.mark.smoke

# --- by hand ----------------------------------------------------------------------------------------------------

# Three inputs, two sigmoid units, one output:
#
#   x = (1, 2, -1)      W1 = [[0.5, -0.5, -0.5],     b1 = (0, ln 3)      W2 = [[2, 4]]      b2 = -1
#                             [0.5, 0.25, 1.0]]
#
#   z1 = 0.5 - 1.0 + 0.5 + 0            = 0         h1 = sigmoid(0)    = 1/2
#   z2 = 0.5 + 0.5 - 1.0 + ln 3         = ln 3      h2 = sigmoid(ln 3) = 3/4
#   z  = 2/2 + 4 * 3/4 - 1              = 3
X = [1.0, 2.0, -1.0]
HIDDEN = {
    "units": 2,
    "activation": "sigmoid",
    "weights": [[0.5, -0.5, -0.5], [0.5, 0.25, 1.0]],
    "bias": [0.0, math.log(3)],
}
OUTPUT = {"units": 1, "weights": [[2.0, 4.0]], "bias": [-1.0]}


def one_step(layers, loss, t, dtype, optimizer="sgd"):
    """The loss of the one sample, and all numbers after one step at rate 0.1."""
    rows = examples(1, 3, 1, loss)
    rows.x[0] = X
    if rows.classes is None:
        rows.values[0] = t
    else:
        rows.classes[0] = t
    with Pair(configure(layers, loss, rate=0.1, dtype=dtype, optimizer=optimizer), rows) as pair:
        outputs = pair.outputs()
        pair.train()
        return outputs[0, 0], pair.machine.totals[layout.TOTAL_LOSS], pair.network.tensors()


def assert_numbers(tensors, expected, dtype):
    for name, value in expected.items():
        bound = 2e-7 if dtype == "float32" else 5e-16
        np.testing.assert_allclose(tensors[name], value, rtol=0, atol=bound, err_msg=name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_net_by_hand_with_half_the_squared_error(dtype):
    # loss = (3 - 1)^2 / 2            = 2           dz  = 3 - 1             = 2
    # dW2 = dz h = (2/2, 2 * 3/4)     = (1, 1.5)    db2 = dz                = 2
    # dh  = dz W2                     = (4, 8)      dz1 = dh h (1 - h)      = (4/4, 8 * 3/16) = (1, 1.5)
    # dW1 = dz1 x = [[1, 2, -1], [1.5, 3, -1.5]]    db1 = (1, 1.5)
    y, loss, after = one_step([HIDDEN, OUTPUT], "half_quadratic", 1.0, dtype)
    assert y == pytest.approx(3.0, rel=1e-6)
    assert loss == pytest.approx(2.0, rel=1e-6)
    by_hand = {
        "layers.1.weight": [[2 - 0.1, 4 - 0.15]],
        "layers.1.bias": [-1 - 0.2],
        "layers.0.weight": [[0.5 - 0.1, -0.5 - 0.2, -0.5 + 0.1], [0.5 - 0.15, 0.25 - 0.3, 1 + 0.15]],
        "layers.0.bias": [-0.1, math.log(3) - 0.15],
    }
    assert_numbers(after, by_hand, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_net_by_hand_with_a_sigmoid_output_and_cross_entropy(dtype):
    # with b2 = ln 3 - 4:  z = 4 + ln 3 - 4 = ln 3      y  = 3/4
    # loss for class 1 = -ln(3/4)                       dz = 3/4 - 1 = -1/4
    # dW2 = (-1/8, -3/16)     db2 = -1/4                dh = (-1/2, -1)     dz1 = (-1/8, -3/16)
    output = OUTPUT | {"activation": "sigmoid", "bias": [math.log(3) - 4]}
    y, loss, after = one_step([HIDDEN, output], "binary_cross_entropy", 1, dtype)
    assert y == pytest.approx(0.75, rel=1e-6)
    assert loss == pytest.approx(-math.log(0.75), rel=1e-6)
    by_hand = {
        "layers.1.weight": [[2 + 0.1 / 8, 4 + 0.3 / 16]],
        "layers.1.bias": [math.log(3) - 4 + 0.1 / 4],
        "layers.0.weight": [
            [0.5 + 0.1 / 8, -0.5 + 0.2 / 8, -0.5 - 0.1 / 8],
            [0.5 + 0.3 / 16, 0.25 + 0.6 / 16, 1 - 0.3 / 16],
        ],
        "layers.0.bias": [0.1 / 8, math.log(3) + 0.3 / 16],
    }
    assert_numbers(after, by_hand, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_perceptron_by_hand(dtype):
    # threshold, half the squared error, batches of one: w <- w + 0.1 x (t - y), Rosenblatt's rule
    # z = 1 * 1 + 1 * 2 + 1 * (-1) - 3 = -1, so y = 0 and t - y = 1
    layers = [{"units": 1, "activation": "threshold", "weights": [[1.0, 1.0, 1.0]], "bias": [-3.0]}]
    y, loss, after = one_step(layers, "half_quadratic", 1.0, dtype)
    assert (y, loss) == (0.0, 0.5)
    assert_numbers(after, {"layers.0.weight": [[1.1, 1.2, 0.9]], "layers.0.bias": [-2.9]}, dtype)


# --- random nets beside the twin --------------------------------------------------------------------------------

SMOOTH = [name for name in ACTIVATIONS if name not in (*STRAIGHT_THROUGH, "linear", "exponential")]
OPTIONS = {
    "sgd": {"momentum": 0.8, "nesterov": True},
    "rmsprop": {"momentum": 0.3, "rho": 0.9},
    "adam": {"beta1": 0.8, "beta2": 0.99},
}


class Maker:
    """A random config; `width` follows the columns through the layers."""

    def __init__(self, seed):
        self.random, self.seed = np.random.default_rng(seed), seed

    def one_of(self, *choices):
        return choices[self.random.integers(len(choices))]

    def dense(self, units=None):
        rate = self.one_of(0.0, 0.0, 0.3)
        self.width = units or int(self.random.integers(3, 40))
        return {"units": self.width, "activation": self.one_of(*SMOOTH), "dropout": rate}

    def layer(self, depth):
        kind = self.one_of("dense", "residual", "highway", "concat", "layer_norm", "batch_norm", "positional_encoding")
        width = self.width
        if kind == "residual" and depth < 3:
            return {"kind": kind, "layers": [*self.layers(depth + 1), self.dense(width)]}
        if kind == "concat" and depth < 3:
            made = {"kind": kind, "layers": self.layers(depth + 1)}
            self.width += width
            return made
        if kind == "highway":
            return {"kind": kind, "activation": self.one_of(*SMOOTH), "dropout": self.one_of(0.0, 0.2)}
        if kind == "layer_norm":
            return {"kind": kind, "epsilon": 1e-3}
        if kind == "batch_norm":
            # behind units that bend: a shift of what it reads would have the gradient 0, and its sign be chance
            return {"kind": "residual", "layers": [self.dense(width), {"kind": kind, "epsilon": 0.1}]}
        if kind == "positional_encoding" and depth == 1 and width < 12:
            self.width *= 4
            return {"kind": kind, "frequencies": 2}
        return self.dense()

    def layers(self, depth):
        return [self.layer(depth) for _ in range(self.random.integers(1, 4))]

    def config(self):
        """(config, examples, batch size, threads)"""
        self.width = features = int(self.random.integers(2, 20))
        hidden = [*self.layers(1), self.dense()]
        # the twin's logarithms have no clamps: probabilities go to their own losses
        probable = ("poisson", "binary_cross_entropy", "cross_entropy", "focal")
        others = [pair for pair in sensible_pairs() if pair[0] in [*SMOOTH, "linear"] and pair[1] not in probable]
        activation, loss = self.one_of(*others, *(2 * sorted(FUSED)))
        spec = {"name": loss, "reduction": self.one_of("mean", "mean", "sum")}
        if loss in ("binary_cross_entropy", "cross_entropy", "focal"):
            spec["label_smoothing"] = self.one_of(0.0, 0.1)
        name = list(OPTIMIZERS)[self.seed % len(OPTIMIZERS)]
        clip = self.one_of({}, {"clip_norm": 0.5}, {"clip_value": 0.05})
        regularization = self.one_of({}, {"l2": 0.01}, {"l1": 0.003, "max_norm": 1.5}, {"weight_decay": 0.05})
        inputs = self.one_of({}, {"dropout": 0.2}, {"noise": 0.3}, {"dropout": 0.1, "noise": 0.1})
        config = configure(
            [*hidden, {"activation": activation}],
            spec,
            optimizer={"name": name, **OPTIONS.get(name, {}), **clip},
            regularization=regularization,
            inputs=inputs,
            rate=0.003,
            seed=self.seed,
        )
        rows = examples(60, features, int(self.random.integers(2, 20)), loss, self.one_of(False, True), self.seed)
        return config, rows, self.one_of(7, 16, 60), self.one_of(1, 2, 3, 5)


@pytest.mark.parametrize("seed", range(22))
def test_a_random_net_agrees_with_the_twin_step_by_step(seed):
    config, rows, batch_size, threads = Maker(seed).config()
    with Pair(config, rows, batch_size, threads) as pair:
        for epoch in (1, 2):
            pair.machine.totals[:] = total = 0.0
            for step in range(pair.steps):
                assert pair.train(step, 1, epoch).finite
                loss = pair.twin_step(step, epoch)
                total += loss * (len(pair.batch(step)[0]) if config.loss.reduction == "mean" else 1)
                assert pair.machine.totals[layout.TOTAL_LOSS] == pytest.approx(total, rel=1e-9)
                assert pair.difference() < 1e-9
        np.testing.assert_allclose(pair.outputs(), pair.twin.forward(rows.x), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("optimizer", ["sgd", {"name": "adam", "clip_norm": 0.1}], ids=named)
def test_batches_that_pass_through_the_workspace_in_chunks(optimizer, dtype):
    """A batch larger than the workspace gathers its gradient over several trips; dropout and weights go on counting."""
    layers = [{"units": 20, "activation": "tanh", "dropout": 0.2}, {"kind": "layer_norm"}, {"activation": "softmax"}]
    rows = examples(2700, 6, 4, "cross_entropy", weighted=True)
    config = configure(layers, "cross_entropy", optimizer=optimizer, dtype=dtype, rate=0.01)
    with Pair(config, rows, batch_size=1300, threads=3) as pair:
        pair.train()
        total = sum(pair.twin_step(step) * len(pair.batch(step)[0]) for step in range(pair.steps))
        assert pair.difference() < (1e-5 if dtype == "float32" else 1e-13)
        assert pair.machine.totals[layout.TOTAL_LOSS] == pytest.approx(total, rel=1e-5 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ["relu", "linear", "leaky_relu", "gelu", "tanh", "sigmoid", "selu"])
def test_dropout_after_every_kind_of_slope(activation, dtype):
    """Where the slope allows, units are dropped in place; after relu, the way back sees them by their zeros."""
    layers = [{"units": 70, "activation": activation, "dropout": 0.4}] * 2 + [{"activation": "softmax"}]
    rows = examples(90, 12, 5, "cross_entropy")
    with Pair(configure(layers, "cross_entropy", dtype=dtype, rate=0.1), rows, batch_size=30) as pair:
        pair.train()
        for step in range(pair.steps):
            pair.twin_step(step)
        assert pair.difference() < (1e-5 if dtype == "float32" else 1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("optimizer", ["sgd", {"name": "sgd", "momentum": 0.5}], ids=["by sample", "in general"])
def test_one_sample_a_step(optimizer, dtype):
    """Plain descent has a path of its own, which delays the first layer's step; the twin does not."""
    layers = [{"units": 37, "activation": "tanh"}, {"units": 18, "activation": "relu"}, {"activation": "softmax"}]
    rows = examples(40, 21, 3, "cross_entropy", weighted=True)
    with Pair(configure(layers, "cross_entropy", optimizer=optimizer, dtype=dtype), rows, batch_size=1) as pair:
        assert pair.machine._training["by_sample"][0] == (optimizer == "sgd")
        pair.train(0, 17)
        pair.train(17)
        for step in range(pair.steps):
            pair.twin_step(step)
        assert pair.difference() < (2e-6 if dtype == "float32" else 1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", ["cross_entropy", "half_quadratic"])
def test_one_sample_a_step_has_the_bits_of_the_general_path(loss, dtype):
    output = {"activation": "softmax"} if loss == "cross_entropy" else {"units": 2}
    layers = [{"units": 37, "activation": "tanh"}, {"units": 18, "activation": "gelu"}, output]
    digests = set()
    for by_sample, copied in itertools.product((1, 0), (True, False)):
        rows = examples(60, 24, 2, loss, weighted=True)
        with Pair(configure(layers, loss, dtype=dtype), rows, batch_size=1, copied=copied) as pair:
            assert pair.machine._training["by_sample"][0] == 1
            assert pair.machine._training["in_place"][0] == (not copied)
            pair.machine._training["by_sample"] = by_sample
            pair.train(0, 11)
            pair.train(11)
            digests.add(pair.digest())
    assert len(digests) == 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("units", [3, 16, 33, 70])
@pytest.mark.parametrize(("n", "batch_size"), [(45, 15), (70, 64), (300, 300), (515, 257)])
def test_rows_used_where_they_lie_give_the_bits_of_copied_ones(n, batch_size, units, dtype):
    """Batches of whole tiles and of broken ones, with a gradient that is used at once or gathered over chunks."""
    layers = [{"units": units, "activation": "tanh"}, {"activation": "softmax"}]
    digests, outputs = set(), set()
    for copied, threads in itertools.product((True, False), (1, 2)):
        rows = examples(n, 12, 3, "cross_entropy", weighted=True)
        config = configure(layers, "cross_entropy", dtype=dtype, rate=0.1)
        with Pair(config, rows, batch_size, threads=threads, copied=copied) as pair:
            assert pair.machine._training["in_place"][0] == (not copied)
            pair.order = pair.order[::-1].copy()
            pair.train()
            digests.add(pair.digest())
            found, losses = pair.machine.evaluate(rows.rows(dtype, copied))
            outputs.add(found.tobytes() + losses.tobytes())
    assert len(digests) == len(outputs) == 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("penalty", [{}, {"l2": 0.01}], ids=["plain", "l2"])
def test_a_step_from_registers_has_the_bits_of_one_from_memory(penalty, dtype):
    """Plain descent uses a gradient before it is ever stored; other optimizers store a few rows of it first."""
    layers = [{"units": 37, "activation": "tanh"}, {"units": 18, "activation": "gelu"}, {"activation": "softmax"}]
    digests = set()
    for direct in (1, 0):
        rows = examples(60, 21, 3, "cross_entropy", weighted=True)
        config = configure(layers, "cross_entropy", dtype=dtype, rate=0.1, regularization=penalty)
        with Pair(config, rows, batch_size=20) as pair:
            assert pair.machine._training["direct"][0] == 1
            pair.machine._training["direct"] = direct
            pair.train()
            digests.add(pair.digest())
    assert len(digests) == 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("outputs", [2, 3, 5, 8, 10, 16, 17, 40])
def test_a_softmax_has_the_same_bits_in_a_square_of_rows_and_alone(outputs, dtype):
    """Rows that fill a vector are computed one class after the other, the rest of a batch row by row."""
    rows = examples(48, 7, outputs, "cross_entropy", weighted=True)
    config = configure([{"units": 9}, {"activation": {"name": "softmax", "alpha": 1.3}}], "cross_entropy", dtype=dtype)
    with Pair(config, rows, check=True) as pair:
        pair.machine.loss_of_batch(pair.order, gradient=False)
        losses = pair.machine._kept["row_losses"][:48].copy()
        for row in range(48):
            pair.machine.loss_of_batch(pair.order[row : row + 1], gradient=False)
            assert pair.machine._kept["row_losses"][0] == losses[row]


@pytest.mark.parametrize("dtype", DTYPES)
def test_wide_layers_and_long_columns(dtype):
    """Sums over more inputs, units and rows than any block of the kernels holds."""
    layers = [{"units": 150, "activation": "tanh"}, {"units": 301, "activation": "softsign"}, {"activation": "softmax"}]
    rows = examples(410, 333, 5, "cross_entropy")
    rows.x *= 0.1
    config = configure(
        layers,
        "cross_entropy",
        optimizer={"name": "sgd", "momentum": 0.9, "clip_norm": 0.05},
        regularization={"max_norm": 0.55, "l2": 0.01},
        dtype=dtype,
        rate=0.5,
    )
    with Pair(config, rows, batch_size=200, threads=2) as pair:
        before = pair.network.tensors()["layers.0.weight"]
        assert (np.sqrt((before**2).sum(axis=1)) > 0.55).any()  # the bound is felt
        pair.train()
        for step in range(pair.steps):
            pair.twin_step(step)
        assert pair.difference() < (2e-6 if dtype == "float32" else 1e-14)


# --- what an epoch leaves in the totals --------------------------------------------------------------------------


@pytest.mark.parametrize("outputs", ["softmax", "one sigmoid", "two sigmoids"])
def test_totals_of_classes(outputs):
    """Rows, weights, right answers and the confusion matrix, with metric weights that are not the loss's."""
    count = 4 if outputs == "softmax" else 2
    output = {"activation": "softmax"} if outputs == "softmax" else {"activation": "sigmoid"}
    output |= {"units": 1} if outputs == "one sigmoid" else {}
    loss = "cross_entropy" if outputs == "softmax" else "binary_cross_entropy"
    if outputs == "two sigmoids":
        output["units"] = 2
    examples_of_classes = examples(500, 3, count, loss)
    with Pair(configure([{"units": 5, "activation": "tanh"}, output], loss, rate=1e-30), examples_of_classes) as pair:
        rows = examples_of_classes.rows("float64")
        rows.metric_weights = np.random.default_rng(5).uniform(0.5, 2.0, 500)
        pair.machine.prepare_training(rows, 64)
        pair.train(0, 8)
        predicted = pair.coding.predicted(pair.outputs())
        totals, w = pair.machine.totals, rows.metric_weights
    right = predicted == rows.classes
    confusion = np.zeros((count, count))
    np.add.at(confusion, (rows.classes, predicted), w)
    assert totals[layout.TOTAL_ROWS] == 500
    np.testing.assert_allclose(totals[layout.TOTAL_WEIGHT], w.sum(), rtol=1e-13)
    np.testing.assert_allclose(totals[layout.TOTAL_CORRECT], w[right].sum(), rtol=1e-13)
    np.testing.assert_allclose(totals[layout.TOTALS_HEAD :].reshape(count, count), confusion, rtol=1e-12)


@pytest.mark.parametrize(("activation", "loss"), [("tanh", "mse"), ("exponential", "poisson")])
def test_totals_of_numbers(activation, loss):
    """Squared and absolute errors and the targets' sums of each output, from outputs even where the loss is fused."""
    made = examples(300, 3, 2, loss, weighted=True)
    with Pair(configure([{"activation": activation}], loss, rate=1e-30), made) as pair:
        rows = made.rows("float64")
        rows.metric_weights = made.w
        pair.machine.prepare_training(rows, 64)
        pair.train(0, 5)
        error = pair.outputs() - made.values
        per_target = pair.machine.totals[layout.TOTALS_HEAD :].reshape(2, layout.TARGET_TOTALS)
    expected = [error**2, np.abs(error), made.values, made.values**2]
    for column, quantity in enumerate(expected):
        np.testing.assert_allclose(per_target[:, column], (made.w[:, None] * quantity).sum(axis=0), rtol=1e-12)
