"""The naive twin checks itself: slopes against central differences, values against sums done by hand.

Its optimizers are tested in `reference/test_optimizers.py`, and all of it in `reference/test_against_torch.py` where
PyTorch is installed.
"""

from math import exp, log, sqrt

import numpy as np
import pytest
from reference import Trainer, activations, encode, layers, losses, random_weights

RNG_SEED = 4
SMOOTH = [name for name in activations.NAMES if name not in activations.STRAIGHT_THROUGH]
WITH_OPTIONS = [
    {"name": "leaky_relu", "alpha": 0.3},
    {"name": "elu", "alpha": 0.5},
    {"name": "softmax", "alpha": 2.5},
]
LOSSES_WITH_OPTIONS = [
    {"name": "huber", "delta": 0.2},
    {"name": "quantile", "q": 0.9},
    {"name": "focal", "gamma": 0.5, "label_smoothing": 0.1},
    {"name": "focal", "gamma": 0.0},
    {"name": "cross_entropy", "label_smoothing": 0.2},
    {"name": "binary_cross_entropy", "label_smoothing": 0.2},
    {"name": "mse", "reduction": "sum"},
]
POSITIVE = ("sigmoid", "softmax", "hard_sigmoid", "gaussian", "exponential", "softplus")
PROBABILITIES = ("sigmoid", "softmax", "hard_sigmoid", "gaussian")
NEEDS = {
    "poisson": POSITIVE,
    "cross_entropy": POSITIVE,
    "binary_cross_entropy": PROBABILITIES,
    "focal": PROBABILITIES,
}


def word(spec):
    return activations.named(spec)[0]


def label(spec):
    return "-".join(map(str, spec.values())) if isinstance(spec, dict) else str(spec)


def central_differences(f, a, step=1e-6):
    """df/da of a scalar f, element by element; a is an array that f reads."""
    slope = np.empty_like(a)
    for i in np.ndindex(*a.shape):
        middle = a[i]
        a[i] = middle + step
        above = f()
        a[i] = middle - step
        slope[i] = (above - f()) / (2 * step)
        a[i] = middle
    return slope


def targets(loss, n, k):
    rng = np.random.default_rng(RNG_SEED)
    if word(loss) in ("cross_entropy", "focal"):
        return encode(rng.integers(k, size=n), k)
    if word(loss) in ("binary_cross_entropy", "hinge", "squared_hinge"):
        return rng.integers(2, size=(n, k)).astype(float)
    if word(loss) == "poisson":
        return rng.integers(4, size=(n, k)).astype(float)
    return rng.normal(size=(n, k))


def assert_gradients(specs, loss, x, t, weights, w=None, options=None, **dropped):
    """Every parameter and every input of a network against central differences of its loss."""
    trainer = Trainer(specs, loss, weights=weights, **(options or {}))
    gradients = {**trainer.gradients(x, t, w, **dropped), "x": trainer.input_gradient(x, t, w, **dropped)}
    for name, values in {**trainer.parameters(), "x": x}.items():
        expected = central_differences(lambda: trainer.loss(x, t, w, **dropped), values)
        np.testing.assert_allclose(gradients[name], expected, rtol=1e-5, atol=1e-8, err_msg=name)


# ---------------------------------------------------------------------------------------------- activations


@pytest.mark.parametrize("activation", [*SMOOTH, *WITH_OPTIONS], ids=label)
def test_activation_pullback_is_the_derivative(activation):
    rng = np.random.default_rng(RNG_SEED)
    z, dy = 2 * rng.normal(size=(6, 5)), rng.normal(size=(6, 5))
    expected = central_differences(lambda: (activations.value(activation, z) * dy).sum(), z)
    np.testing.assert_allclose(activations.pullback(activation, z, dy), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("activation", "z", "slope"),
    [
        ("relu", 0.0, 0.0),
        ("leaky_relu", 0.0, 0.01),
        ({"name": "leaky_relu", "alpha": 0.2}, 0.0, 0.2),
        ("elu", 0.0, 1.0),
        ({"name": "elu", "alpha": 0.5}, 0.0, 0.5),
        ("selu", 0.0, 1.0507009873554805 * 1.6732632423543772),
        ("hard_tanh", 1.0, 0.0),
        ("hard_tanh", -1.0, 0.0),
        ("hard_sigmoid", 3.0, 0.0),
        ("hard_sigmoid", -3.0, 0.0),
        ("softsign", 0.0, 1.0),
        ({"name": "threshold", "low": -1.0}, 0.0, 1.0),
        ({"name": "threshold", "low": -1.0}, 7.0, 1.0),
    ],
    ids=label,
)
def test_slope_at_a_kink(activation, z, slope):
    assert activations.slope(activation, np.array([z])) == slope


@pytest.mark.parametrize(
    ("activation", "z", "y"),
    [
        ("threshold", 0.0, 1.0),
        ("threshold", -1e-300, 0.0),
        ({"name": "threshold", "low": -1.0, "high": 2.0}, -0.5, -1.0),
        ("sigmoid", log(3), 0.75),
        ("elu", -1.0, exp(-1) - 1),
        ("selu", 2.0, 2.1014019747109609),
        ("gelu", 1.0, 0.8413447460685429),
        ("silu", log(3), 0.75 * log(3)),
        ("mish", log(3), log(3) * 15 / 17),  # tanh(log 4) = (16 - 1) / (16 + 1)
        ("softplus", log(3), log(4)),
        ("softsign", -3.0, -0.75),
        ("hard_sigmoid", 1.5, 0.75),
        ("gaussian", 2.0, exp(-4)),
    ],
    ids=label,
)
def test_value_by_hand(activation, z, y):
    np.testing.assert_allclose(activations.value(activation, np.array([z])), [y], rtol=1e-15)


def test_softmax_and_hardmax_by_hand():
    z = np.array([[0.0, log(2), log(5)], [1.0, 3.0, 3.0]])
    np.testing.assert_allclose(activations.value("softmax", z)[0], [1 / 8, 2 / 8, 5 / 8])
    cooler = activations.value({"name": "softmax", "alpha": 2.0}, z)[0]
    np.testing.assert_allclose(cooler, [1 / 30, 4 / 30, 25 / 30])
    np.testing.assert_array_equal(activations.value("hardmax", z), [[0, 0, 1], [0, 1, 0]])
    np.testing.assert_array_equal(activations.pullback("hardmax", z, z), z)


@pytest.mark.parametrize("name", [name for name in SMOOTH if name != "exponential"])
def test_activations_are_finite_far_out(name):
    z = np.array([[-1000.0, 1000.0, 0.0, -40.0, 40.0]])
    assert np.isfinite(activations.value(name, z)).all()
    assert np.isfinite(activations.pullback(name, z, np.ones_like(z))).all()


# --------------------------------------------------------------------------------------------------- losses


def test_losses_by_hand():
    y, t = np.array([[0.5, 2.0]]), np.array([[1.0, 0.0]])
    cost = {name: losses.of_outputs(name, y, t)[0][0] for name in losses.NAMES if name not in NEEDS}
    assert cost["quadratic"] == 4.25
    assert cost["half_quadratic"] == 2.125
    assert cost["mse"] == 2.125
    assert cost["mae"] == 1.25
    assert cost["huber"] == (0.125 + 1.5) / 2
    assert cost["quantile"] == (0.25 + 1.0) / 2
    assert cost["hinge"] == (0.5 + 3.0) / 2  # targets +1 and -1
    assert cost["squared_hinge"] == (0.25 + 9.0) / 2
    expected = (log((exp(0.5) + exp(-0.5)) / 2) + log((exp(2) + exp(-2)) / 2)) / 2
    np.testing.assert_allclose(cost["log_cosh"], expected)
    assert losses.of_outputs({"name": "quantile", "q": 0.9}, y, t)[0][0] == pytest.approx((0.45 + 0.2) / 2)


def test_losses_of_probabilities_by_hand():
    y, t = np.array([[0.25, 0.75]]), np.array([[1.0, 0.0]])
    assert losses.of_outputs("cross_entropy", y, t)[0][0] == pytest.approx(log(4))
    assert losses.of_outputs("binary_cross_entropy", y, t)[0][0] == pytest.approx(2 * log(4))
    assert losses.of_outputs("poisson", y, t)[0][0] == pytest.approx((0.25 + log(4) + 0.75) / 2)
    focal = losses.of_outputs("focal", y, t, "softmax")[0][0]
    assert focal == pytest.approx(0.75**2 * log(4))
    assert losses.of_outputs("focal", y, t, "sigmoid")[0][0] == pytest.approx(2 * focal)
    smooth = losses.of_outputs({"name": "cross_entropy", "label_smoothing": 0.2}, y, t)[0][0]
    assert smooth == pytest.approx(0.9 * log(4) + 0.1 * log(4 / 3))


@pytest.mark.parametrize(
    ("loss", "t", "slope"),
    [
        ("mae", 2.0, 0.0),
        ({"name": "quantile", "q": 0.9}, 2.0, 0.0),
        ("huber", 1.0, 1.0),
        ("hinge", 1.0, 0.0),
    ],
    ids=label,
)
def test_loss_slope_at_a_kink(loss, t, slope):
    y = np.array([[1.0 if word(loss) == "hinge" else 2.0]])
    assert losses.of_outputs(loss, y, np.array([[t]]))[1] == slope


@pytest.mark.parametrize("name", ["hinge", "squared_hinge"])
def test_hinge_reads_binary_and_bipolar_codes_alike(name):
    y = np.array([[0.3], [-2.0]])
    for binary, bipolar in zip(
        losses.of_outputs(name, y, [[0], [1]]), losses.of_outputs(name, y, [[-1], [1]]), strict=True
    ):
        np.testing.assert_array_equal(binary, bipolar)


@pytest.mark.parametrize(
    ("activation", "loss"),
    [
        ({"name": "softmax", "alpha": 1.7}, {"name": "cross_entropy", "label_smoothing": 0.1}),
        ("sigmoid", {"name": "binary_cross_entropy", "label_smoothing": 0.1}),
        ("exponential", "poisson"),
        ({"name": "softmax", "alpha": 1.7}, {"name": "focal", "gamma": 1.5}),
        ("sigmoid", {"name": "focal", "gamma": 1.5, "label_smoothing": 0.3}),
    ],
    ids=label,
)
def test_fused_pair_agrees_with_the_chain(activation, loss):
    z, t = np.random.default_rng(RNG_SEED).normal(size=(5, 3)), targets(loss, 5, 3)
    cost, dz = losses.of_preactivations(loss, activation, z, t)
    plain_cost, dy = losses.of_outputs(loss, activations.value(activation, z), t, activation)
    np.testing.assert_allclose(cost, plain_cost, rtol=1e-12)
    np.testing.assert_allclose(dz, activations.pullback(activation, z, dy), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_fused_pairs_are_finite_for_any_logits(activation, gamma):
    z = np.array([[1000.0, -1000.0], [-1000.0, 1000.0], [0.0, 1000.0], [30.0, -30.0]])
    t = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    plain = "cross_entropy" if activation == "softmax" else "binary_cross_entropy"
    for loss in (plain, {"name": "focal", "gamma": gamma}):
        cost, dz = losses.of_preactivations(loss, activation, z, t)
        assert np.isfinite(cost).all()
        assert np.isfinite(dz).all()
    assert losses.of_preactivations(plain, activation, z, t)[0][0] == 2000


# ------------------------------------------------------------------------------------------- whole networks


def pairs():
    """Every activation with a derivative and every loss whose domain holds its outputs."""
    for loss in [*losses.NAMES, *LOSSES_WITH_OPTIONS]:
        for activation in [*SMOOTH, *WITH_OPTIONS]:
            if word(activation) in NEEDS.get(word(loss), SMOOTH):
                yield activation, loss


@pytest.mark.parametrize(("activation", "loss"), list(pairs()), ids=label)
def test_gradient_of_activation_and_loss(activation, loss):
    rng = np.random.default_rng(RNG_SEED)
    specs = [{"kind": "dense", "units": 3, "activation": activation}]
    x, t = rng.normal(size=(4, 2)), targets(loss, 4, 3)
    assert_gradients(specs, loss, x, t, random_weights(specs, 2, seed=1), w=rng.uniform(0.5, 2, size=4))


DENSE = {"kind": "dense", "units": 3, "activation": "tanh"}
BLOCKS = {
    "dense": [{"kind": "dense", "units": 4, "activation": "silu"}],
    "residual": [{"kind": "residual", "layers": [{"units": 5, "activation": "tanh"}, DENSE]}],
    "highway": [{"kind": "highway", "activation": "softplus"}],
    "concat": [{"kind": "concat", "layers": [DENSE]}, {"kind": "concat", "layers": [{**DENSE, "units": 2}]}],
    "layer_norm": [{"kind": "layer_norm", "epsilon": 1e-2}],
    "batch_norm": [{"kind": "batch_norm", "epsilon": 1e-2}],
    "positional_encoding": [{"kind": "positional_encoding", "frequencies": 3}],
    "nested": [
        {"kind": "residual", "layers": [{"kind": "batch_norm"}, {"kind": "concat", "layers": [DENSE]}, DENSE]},
        {"kind": "concat", "layers": [{"kind": "highway", "activation": {"name": "elu"}}, {"kind": "layer_norm"}]},
    ],
}


@pytest.mark.parametrize("block", BLOCKS)
def test_gradient_of_layers(block):
    rng = np.random.default_rng(RNG_SEED)
    specs = [DENSE, *BLOCKS[block], {"kind": "dense", "units": 2, "activation": "softmax"}]
    if block == "positional_encoding":
        specs = specs[1:]
    x, t = rng.normal(size=(5, 3)), targets("cross_entropy", 5, 2)
    assert_gradients(specs, "cross_entropy", x, t, random_weights(specs, 3, seed=2))


def test_gradient_with_dropout_and_noise():
    rng = np.random.default_rng(RNG_SEED)
    specs = [{**DENSE, "dropout": 0.5}, {"kind": "highway", "activation": "tanh", "dropout": 0.25}, {"units": 2}]
    masks = {name: rng.integers(2, size=(5, 3)) for name in ("input", "layers.0", "layers.1")}
    x, t, noise = rng.normal(size=(5, 3)), rng.normal(size=(5, 2)), rng.normal(size=(5, 3))
    options = {"input_dropout": 0.2}
    assert_gradients(specs, "mse", x, t, random_weights(specs, 3), masks=masks, noise=noise, options=options)


def test_dropout_is_inverted_and_rests_outside_training():
    specs = [{"kind": "dense", "units": 2, "dropout": 0.75}, {"kind": "dense", "units": 1}]
    weights = {"layers.0.weight": [[1.0, 0.0], [0.0, 1.0]], "layers.0.bias": [0.0, 0.0]}
    weights |= {"layers.1.weight": [[1.0, 1.0]], "layers.1.bias": [0.0]}
    trainer = Trainer(specs, "mse", weights=weights, input_dropout=0.5)
    masks = {"input": [[1, 1]], "layers.0": [[1, 0]]}
    assert trainer.forward([[1.0, 5.0]], training=True, masks=masks) == 1 * 2 * 4
    assert trainer.forward([[1.0, 5.0]], masks=masks) == 6


def test_batch_norm_by_hand():
    """Column (1, 3): mean 2, biased variance 1, unbiased 2; running 0 -> 0.2 and 1 -> 0.9 + 0.2."""
    specs = [{"kind": "batch_norm", "epsilon": 3.0}, {"kind": "dense", "units": 1}]
    weights = {"layers.0.weight": [2.0], "layers.0.bias": [5.0], "layers.1.weight": [[1.0]], "layers.1.bias": [0.0]}
    weights |= {"layers.0.running_mean": [0.0], "layers.0.running_var": [1.0]}
    trainer = Trainer(specs, "mse", weights=weights)
    x = np.array([[1.0], [3.0]])
    np.testing.assert_array_equal(trainer.forward(x, training=True), [[4.0], [6.0]])
    assert trainer.statistics()["layers.0.running_mean"] == 0
    trainer.step(x, x, None, 0.0)
    assert trainer.statistics()["layers.0.running_mean"] == pytest.approx(0.2)
    assert trainer.statistics()["layers.0.running_var"] == pytest.approx(1.1)
    np.testing.assert_allclose(trainer.forward(x), 5 + 2 * (x - 0.2) / sqrt(4.1))
    trainer.step(x[:1], x[:1], None, 0.0)
    assert trainer.statistics()["layers.0.running_mean"] == pytest.approx(0.28)
    assert trainer.statistics()["layers.0.running_var"] == pytest.approx(1.1)


def test_positional_encoding_puts_sines_of_all_frequencies_first():
    layer = layers.PositionalEncoding({"frequencies": 2}, "layers.0")
    y = layer.forward(np.array([[0.5, -0.25]]), None)
    s = sqrt(0.5)
    np.testing.assert_allclose(y, [[1, -s, 0, -1, 0, s, -1, 0]], atol=1e-15)


def test_sample_weights_count_over_n():
    cost = np.array([1.0, 2.0, 4.0])
    assert losses.sample_factors(3, [1, 0, 2]) @ cost == 3
    assert losses.sample_factors(3, [1, 0, 2], "sum") @ cost == 9


def test_encode():
    np.testing.assert_array_equal(encode([0, 2], 3), [[1, 0, 0], [0, 0, 1]])
    np.testing.assert_array_equal(encode([0, 1], 1, "bipolar"), [[-1], [1]])


def test_perceptron_rule():
    """Threshold, half_quadratic, sgd: w <- w + rate x (t - y)."""
    specs = [{"units": 1, "activation": "threshold"}]
    weights = {"layers.0.weight": [[0.0, 0.0]], "layers.0.bias": [0.0]}
    trainer = Trainer(specs, "half_quadratic", "sgd", weights=weights)
    assert trainer.step([[1.0, 2.0]], [[0.0]], None, 0.5) == 0.5  # says 1 at z = 0
    np.testing.assert_array_equal(trainer.parameters()["layers.0.weight"], [[-0.5, -1.0]])
    assert trainer.parameters()["layers.0.bias"] == -0.5
    assert trainer.step([[1.0, 2.0]], [[0.0]], None, 0.5) == 0


def test_3_2_1_net_worked_by_hand():
    """x = (1, 2, -1), hidden relu: z1 = 1 + 2 + 1 = 4, z2 = -2 - 1 + 1 = -2 -> h = (4, 0).
    y = 2 * 4 + 3 * 0 - 1 = 7, t = 5, loss (7 - 5)^2 / 2 = 2, dy = 2.
    Output: dV = dy h = (8, 0), dc = 2. Hidden: dh = dy V = (4, 6), dz = (4, 0), dW = ((4, 8, -4), (0, 0, 0)).
    At rate 1/4: V = (2, 3) - (2, 0), c = -1 - 0.5, W = ((1, 1, -1) - (1, 2, -1), ...), b = (0, 1) - (1, 0).
    """
    specs = [{"kind": "dense", "units": 2, "activation": "relu"}, {"kind": "dense", "units": 1}]
    weights = {
        "layers.0.weight": [[1.0, 1.0, -1.0], [-2.0, -0.5, 0.0]],
        "layers.0.bias": [0.0, 1.0],
        "layers.1.weight": [[2.0, 3.0]],
        "layers.1.bias": [-1.0],
    }
    trainer = Trainer(specs, "half_quadratic", "sgd", weights=weights)
    assert trainer.step([[1.0, 2.0, -1.0]], [[5.0]], None, 0.25) == 2
    expected = {
        "layers.0.weight": [[0.0, -1.0, 0.0], [-2.0, -0.5, 0.0]],
        "layers.0.bias": [-1.0, 1.0],
        "layers.1.weight": [[0.0, 3.0]],
        "layers.1.bias": [-1.5],
    }
    for name, value in expected.items():
        np.testing.assert_array_equal(trainer.parameters()[name], value)
