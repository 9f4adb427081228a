"""Each loss of a sample and its gradient against the twin; smoothing, weights, and extremes that must stay finite."""

import math

import numpy as np
import pytest
from engine import DTYPES, Pair, configure, entry, examples, sensible_pairs
from reference import losses as reference

from mlp_cli.kernels import layout, losses
from mlp_cli.kernels.lanes import pointer_to
from mlp_cli.vocab import CLASS_LOSSES, FUSED, LOSSES

OUTPUTS = (1, 3, 8, 16, 17, 40)
TOLERANCE = {"float32": 4e-6, "float64": 1e-14}
OPTIONS = {
    "huber": [{"delta": 1.0}, {"delta": 0.2}],
    "quantile": [{"q": 0.5}, {"q": 0.9}],
    "focal": [{"gamma": 2.0}, {"gamma": 0.0}, {"gamma": 0.5}],
}
# (the activation whose pre-activations the loss starts from, or None; loss; its options)
CASES = [(None, loss, options) for loss in LOSSES if loss != "focal" for options in OPTIONS.get(loss, [{}])]
CASES += [(activation, loss, options) for activation, loss in sorted(FUSED) for options in OPTIONS.get(loss, [{}])]
STABLE = [("softmax", "cross_entropy"), ("sigmoid", "binary_cross_entropy"), ("softmax", "focal"), ("sigmoid", "focal")]


def label(part):
    return "-".join(map(str, part.values())) if isinstance(part, dict) else str(part)


both_types = pytest.mark.parametrize("dtype", DTYPES)
every_case = pytest.mark.parametrize(("activation", "loss", "options"), CASES, ids=label)


@entry("f(i,f,f,s[:],s[:],s[:],i,f)")
def row(code, option, alpha, d, y, t, outputs, scale):
    return losses.loss_row(code, option, alpha, pointer_to(d), pointer_to(y), pointer_to(t), outputs, scale)


def of_kernel(activation, loss, options, y, t, dtype, scale=1.0, alpha=1.0):
    """(loss, gradient) of one sample y, t (k,). Outputs beyond k are NaN here: they must not matter."""
    k, size = len(y), layout.padded(len(y), dtype)
    vectors = [np.full(size, fill, dtype) for fill in (math.nan, math.nan, 0.0)]
    d, padded_y, padded_t = vectors
    padded_y[:k], padded_t[:k] = y, t
    option = next(iter(options.values()), 0.0)
    cost = row(dtype, losses.code(activation, loss), option, alpha, d, padded_y, padded_t, k, scale)
    assert np.isnan(y).any() or not d[k:].any()
    return cost, d[:k].copy()


def of_twin(activation, loss, options, y, t, alpha=1.0):
    spec = {"name": loss} | options
    if activation:
        output = {"name": activation, "alpha": alpha} if activation == "softmax" else activation
        cost, slope = reference.of_preactivations(spec, output, y[None], t[None])
    elif loss == "poisson":  # PyTorch's epsilon within the logarithm
        cost, slope = reference.of_outputs(spec, y[None] + 1e-8, t[None])
        cost = cost - 1e-8
    else:
        cost, slope = reference.of_outputs(spec, y[None], t[None])
    return cost[0], slope[0]


def sample(activation, loss, k, dtype, seed):
    """Outputs (or pre-activations) and targets that the loss is made for, exact for the type."""
    random = np.random.default_rng(seed)
    if loss == "poisson":
        y, t = random.uniform(0.1, 5.0, k), random.integers(0, 6, k).astype(np.float64)
    elif loss in ("hinge", "squared_hinge"):
        y, t = random.normal(size=k), random.choice([-1.0, 1.0], k)
    elif loss in CLASS_LOSSES:
        y, t = random.uniform(0.05, 0.95, k), random.choice([0.0, 1.0, 0.1, 0.9], k)
    else:
        y, t = random.normal(size=k), random.normal(size=k)
    if activation:
        y = 3.0 * random.normal(size=k)
    return y.astype(dtype).astype(np.float64), t.astype(dtype).astype(np.float64)


@both_types
@every_case
def test_loss_and_gradient_of_a_sample(activation, loss, options, dtype):
    for k in OUTPUTS:
        for seed in range(3):
            y, t = sample(activation, loss, k, dtype, seed)
            cost, slope = of_kernel(activation, loss, options, y, t, dtype)
            expected, expected_slope = of_twin(activation, loss, options, y, t)
            assert abs(cost - expected) <= TOLERANCE[dtype] * max(1.0, abs(expected))
            scale = np.maximum(1.0, np.abs(expected_slope))
            assert (np.abs(slope - expected_slope) <= 4 * TOLERANCE[dtype] * scale).all()


@both_types
@every_case
def test_the_scale_is_the_gradients_alone(activation, loss, options, dtype):
    y, t = sample(activation, loss, 5, dtype, 7)
    cost, slope = of_kernel(activation, loss, options, y, t, dtype)
    again, scaled = of_kernel(activation, loss, options, y, t, dtype, scale=0.25)
    assert again == cost
    np.testing.assert_allclose(scaled, 0.25 * slope, rtol=TOLERANCE[dtype])


@both_types
@every_case
def test_nan_makes_the_loss_nan(activation, loss, options, dtype):
    """A run is stopped when its loss is not finite: a NaN must not be clamped away."""
    y, t = sample(activation, loss, 9, dtype, 8)
    for place in (0, 8):
        bad = y.copy()
        bad[place] = math.nan
        assert math.isnan(of_kernel(activation, loss, options, bad, np.where(t == 0, 0.5, t), dtype)[0])


@both_types
@pytest.mark.parametrize("alpha", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("loss", ["cross_entropy", "focal"])
def test_softmax_with_an_inverse_temperature(loss, alpha, dtype):
    options = {"gamma": 1.5} if loss == "focal" else {}
    for k in OUTPUTS:
        z, t = sample("softmax", loss, k, dtype, k)
        cost, slope = of_kernel("softmax", loss, options, z, t, dtype, alpha=np.dtype(dtype).type(alpha))
        expected, expected_slope = of_twin("softmax", loss, options, z, t, float(np.dtype(dtype).type(alpha)))
        assert abs(cost - expected) <= 2 * TOLERANCE[dtype] * max(1.0, abs(expected))
        scale = np.maximum(1.0, np.abs(expected_slope))
        assert (np.abs(slope - expected_slope) <= 8 * TOLERANCE[dtype] * scale).all()


@both_types
@pytest.mark.parametrize(("activation", "loss"), STABLE)
@pytest.mark.parametrize("size", [30.0, 1000.0, 1e9])
def test_extreme_logits_give_finite_losses_and_gradients(activation, loss, size, dtype):
    for t in (np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), np.array([0.9, 0.05, 0.05])):
        for z in ([size, -size, 0.0], [-size, size, size], [-size, -size, -size], [size, size, size]):
            for options in OPTIONS.get(loss, [{}]):
                for alpha in (1.0, 2.5) if activation == "softmax" else (1.0,):
                    z = np.array(z)
                    cost, slope = of_kernel(activation, loss, options, z, t, dtype, alpha=alpha)
                    expected, expected_slope = of_twin(activation, loss, options, z, t, alpha)
                    assert np.isfinite(expected)
                    np.testing.assert_allclose(cost, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
                    np.testing.assert_allclose(slope, expected_slope, rtol=0, atol=8 * TOLERANCE[dtype])


@both_types
def test_logits_of_a_thousand_in_a_whole_network(dtype):
    """A right and a wrong answer, each as sure as can be: losses 0 and 2000, or 0 and 1000 for a unit."""
    rows = examples(2, 1, 2, "cross_entropy")
    rows.x[:, 0], rows.classes[:] = [1.0, -1.0], [0, 0]
    for activation, loss, units, wrong in (
        ("softmax", "cross_entropy", 2, 2000.0),
        ("sigmoid", "binary_cross_entropy", 2, 2000.0),
        ("sigmoid", "binary_cross_entropy", 1, 1000.0),
    ):
        weights = [[1000.0], [-1000.0]] if units == 2 else [[-1000.0]]
        layers = [{"units": units, "weights": weights, "bias": [0.0] * units, "activation": activation}]
        with Pair(configure(layers, loss, dtype=dtype), rows, check=True) as pair:
            assert pair.machine.loss_of_batch(pair.order, gradient=False) == wrong / 2
            for gradient in pair.gradients().values():
                assert np.isfinite(gradient).all()
            assert pair.gradients()["layers.0.bias"][0] == (-0.5 if units == 2 else 0.5)
        with Pair(configure(layers, loss, dtype=dtype), rows) as pair:
            assert pair.train().finite
            assert np.isfinite(pair.network.parameters).all()


@both_types
@pytest.mark.parametrize(("activation", "loss"), sensible_pairs())
def test_nan_in_the_input_stops_training(activation, loss, dtype):
    rows = examples(8, 3, 3, loss)
    rows.x[5, 1] = math.nan
    layers = [{"units": 4, "activation": "tanh"}, {"activation": activation}]
    with Pair(configure(layers, loss, dtype=dtype), rows, batch_size=2) as pair:
        outcome = pair.train()
    assert not outcome.finite
    assert outcome.next_step == 3  # rows 4 and 5 are the third batch


# --- from the config to the kernel ------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("activation", "loss", "outputs"),
    [
        ("softmax", "cross_entropy", 4),
        ("softmax", "focal", 3),
        ("sigmoid", "binary_cross_entropy", 2),
        ("sigmoid", "binary_cross_entropy", 5),
        ("sigmoid", "focal", 3),
        ("hard_sigmoid", "binary_cross_entropy", 3),
    ],
)
def test_smoothing_weights_and_reduction_of_a_batch(activation, loss, outputs, reduction, smoothing, weighted):
    spec = {"name": loss, "label_smoothing": smoothing, "reduction": reduction}
    rows = examples(30, 4, outputs, loss, weighted)
    config = configure([{"units": 5, "activation": "tanh"}, {"activation": activation}], spec)
    with Pair(config, rows, check=True) as pair:
        x, t, w = pair.batch(0)
        ours, theirs = pair.machine.loss_of_batch(pair.order, gradient=False), pair.twin.loss(x, t, w)
        np.testing.assert_allclose(ours, theirs, rtol=1e-13)
        gradients = pair.twin.gradients(x, t, w)
        for name, gradient in pair.gradients().items():
            np.testing.assert_allclose(gradient, gradients[name], rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("loss", LOSSES)
def test_evaluation_gives_the_loss_of_every_row(loss):
    activation = next(activation for activation, of in sensible_pairs() if of == loss)
    rows = examples(300, 4, 3, loss, weighted=True)
    bias = {"name": "constant", "value": 1.0}
    config = configure([{"units": 5, "activation": "tanh"}, {"activation": activation, "bias_init": bias}], loss)
    with Pair(config, rows) as pair:
        outputs, costs = pair.machine.evaluate(rows.rows("float64"))
        x, t, w = pair.batch(0)
        expected = [pair.twin.loss(x[i : i + 1], t[i : i + 1], w[i : i + 1]) for i in range(len(x))]
        np.testing.assert_allclose(outputs, pair.twin.forward(x), rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(costs, expected, rtol=1e-7 if loss == "poisson" else 1e-12, atol=1e-14)


def test_the_fused_pairs_are_the_vocabularys():
    assert set(losses.FUSED_CODES) == FUSED
    assert not set(losses.FUSED_CODES.values()) & set(LOSSES.values())
