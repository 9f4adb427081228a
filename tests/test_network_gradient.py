"""The engine's gradient against central differences of its own loss, for every word of the vocabulary, in float64.

Activations that pass the gradient straight through have another derivative than they say; they are compared with the
twin, which does the same.
"""

import numpy as np
import pytest
from engine import Pair, configure, examples, sensible_pairs, unpacked
from reference.activations import STRAIGHT_THROUGH

from mlp_cli.vocab import ACTIVATIONS, FUSED, LAYERS, LOSSES

PAIRS = sensible_pairs()
SMOOTH = [name for name in ACTIVATIONS if name not in STRAIGHT_THROUGH]
# A layer of each kind for 6 columns. A new kind needs its line here.
OF_KIND = {
    "dense": {"units": 6, "activation": "tanh"},
    "residual": {"kind": "residual", "layers": [{"units": 4, "activation": "silu"}, {"units": 6}]},
    "highway": {"kind": "highway", "activation": "tanh", "gate_bias": 0.5},
    "concat": {"kind": "concat", "layers": [{"units": 5, "activation": "gelu"}]},
    "layer_norm": {"kind": "layer_norm"},
    "batch_norm": {"kind": "batch_norm"},
    "positional_encoding": {"kind": "positional_encoding", "frequencies": 2},
}
HIDDEN = {"units": 6, "activation": "tanh"}
LOSSES_WITH_OPTIONS = [
    ("linear", {"name": "huber", "delta": 0.3}),
    ("tanh", {"name": "quantile", "q": 0.9}),
    ("linear", {"name": "mse", "reduction": "sum"}),
    ("sigmoid", {"name": "binary_cross_entropy", "label_smoothing": 0.2, "reduction": "sum"}),
    ("hard_sigmoid", {"name": "binary_cross_entropy", "label_smoothing": 0.1}),
    ("softmax", {"name": "cross_entropy", "label_smoothing": 0.2}),
    ({"name": "softmax", "alpha": 2.5}, "cross_entropy"),
    ({"name": "softmax", "alpha": 0.4}, "quadratic"),
    ({"name": "softmax", "alpha": 1.5}, {"name": "focal", "gamma": 0.5, "label_smoothing": 0.1}),
    ("softmax", {"name": "focal", "gamma": 0.0}),
    ("sigmoid", {"name": "focal", "gamma": 3.5, "label_smoothing": 0.1}),
    ({"name": "leaky_relu", "alpha": 0.3}, "half_quadratic"),
    ({"name": "elu", "alpha": 0.5}, "log_cosh"),
]

BIASES = {("relu", "poisson"): 2.0, ("gaussian", "cross_entropy"): 1.0, ("gaussian", "binary_cross_entropy"): 1.0}


def label(value):
    return value if isinstance(value, str) else "-".join(map(str, value.values()))


def central_differences(pair, step=1e-5):
    """{name: gradient} of the first batch's loss in every parameter, from two losses each."""
    network, machine = pair.network, pair.machine
    slopes = np.zeros_like(network.parameters)
    for p in network.program.parameters:
        for unit in range(p.units):
            for column in range(p.inputs):
                i = network.index(p, unit, column)
                middle = network.parameters[i]
                losses = []
                for moved in (middle - step, middle + step):
                    network.parameters[i] = moved
                    losses.append(machine.loss_of_batch(pair.order, gradient=False))
                network.parameters[i] = middle
                slopes[i] = (losses[1] - losses[0]) / (2 * step)
    return unpacked(network, slopes)


def assert_gradient(layers, loss, n=6, features=6, outputs=3, weighted=False):
    rows = examples(n, features, outputs, loss, weighted, seed=1)
    with Pair(configure(layers, loss, seed=2), rows, check=True) as pair:
        ours, expected = pair.gradients(), central_differences(pair)
        theirs = pair.twin.gradients(*pair.batch(0))
    for name, gradient in ours.items():
        scale = max(1.0, np.abs(expected[name]).max())
        np.testing.assert_allclose(gradient, expected[name], rtol=0, atol=2e-8 * scale, err_msg=name)
        # the twin's clamps are others: PyTorch's 1e-8 in the logarithm of poisson
        np.testing.assert_allclose(gradient, theirs[name], rtol=1e-6, atol=1e-11 * scale, err_msg=name)
    assert any(np.abs(gradient).max() > 1e-4 for gradient in ours.values())


def test_the_sensible_pairs_reach_every_word():
    assert {activation for activation, _ in PAIRS} == set(ACTIVATIONS)
    assert {loss for _, loss in PAIRS} == set(LOSSES)
    assert set(PAIRS) >= FUSED
    assert set(OF_KIND) == set(LAYERS)


@pytest.mark.parametrize(("activation", "loss"), [pair for pair in PAIRS if pair[0] in SMOOTH])
def test_output_activation_and_loss(activation, loss):
    # biases that keep z away from 0, where a relu under poisson and a gaussian under a logarithm have their poles
    output = {"activation": activation, "bias_init": {"name": "constant", "value": BIASES.get((activation, loss), 0.0)}}
    assert_gradient([HIDDEN, output], loss)


@pytest.mark.parametrize(("activation", "loss"), LOSSES_WITH_OPTIONS, ids=label)
def test_options_of_output_activation_and_loss(activation, loss):
    assert_gradient([HIDDEN, {"activation": activation}], loss, weighted=True)


@pytest.mark.parametrize("activation", SMOOTH)
def test_hidden_activation(activation):
    hidden = {"units": 5, "activation": activation}
    assert_gradient([hidden, hidden, {"activation": "linear"}], "half_quadratic")


@pytest.mark.parametrize("inner", LAYERS)
@pytest.mark.parametrize("outer", [None, "residual", "concat"])
def test_layer_kind_by_itself_and_in_blocks(outer, inner):
    layer = OF_KIND[inner]
    if outer == "residual":
        layer = {"kind": "residual", "layers": [layer, {"units": 6, "activation": "sin"}]}
    elif outer == "concat":
        layer = {"kind": "concat", "layers": [{"units": 6, "activation": "mish"}, layer]}
    # in front of everything, where no gradient goes further, and behind a layer that wants one
    assert_gradient([layer, {"activation": "softmax"}], "cross_entropy")
    assert_gradient([HIDDEN, layer, {"activation": "softmax"}], "cross_entropy", weighted=True)


def test_a_buffer_with_many_readers_gathers_all_their_gradients():
    deep = {"kind": "residual", "layers": [{"kind": "residual", "layers": [OF_KIND["highway"]]}]}
    block = {"kind": "residual", "layers": [{"kind": "highway", "activation": "sin"}, {"kind": "layer_norm"}]}
    concat = {"kind": "concat", "layers": [{"kind": "batch_norm"}, {"kind": "concat", "layers": [HIDDEN]}]}
    assert_gradient([HIDDEN, deep, block, concat, {"activation": "linear"}], "half_quadratic")


@pytest.mark.parametrize("activation", STRAIGHT_THROUGH)
@pytest.mark.parametrize("place", ["hidden", "output"])
def test_straight_through_units_agree_with_the_twin(activation, place):
    layers = [HIDDEN, {"units": 3, "activation": activation}, {"units": 3}]
    layers = layers if place == "hidden" else layers[:2]
    rows = examples(9, 4, 3, seed=3)
    with Pair(configure(layers, "half_quadratic"), rows, check=True) as pair:
        ours, theirs = pair.gradients(), pair.twin.gradients(*pair.batch(0))
    for name, gradient in ours.items():
        np.testing.assert_allclose(gradient, theirs[name], rtol=0, atol=1e-14)
        assert np.abs(gradient).max() > 0


@pytest.mark.parametrize("loss", ["mae", "quantile", "huber", "hinge", "squared_hinge"])
def test_kinks_of_a_loss_have_the_twins_slope(loss):
    """Outputs that hit their targets, or a margin of exactly 1: zero weights, biases at the kink."""
    rows = examples(4, 2, 1, loss)
    bias = [1.0] if rows.classes is not None else [0.0]
    if rows.classes is None:
        rows.values[:] = 0.0
    else:
        rows.classes[:] = 1
    with Pair(configure([{"units": 1, "weights": [[0.0, 0.0]], "bias": bias}], loss), rows, check=True) as pair:
        ours, theirs = pair.gradients(), pair.twin.gradients(*pair.batch(0))
    for name, gradient in ours.items():
        np.testing.assert_array_equal(gradient, theirs[name])


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "elu", "selu", "hard_sigmoid", "hard_tanh", "softsign"])
def test_kinks_of_an_activation_have_the_twins_slope(activation):
    """Pre-activations of exactly 0, ±1 and ±3."""
    rows = examples(5, 1, 1)
    rows.x[:, 0] = [0.0, 1.0, -1.0, 3.0, -3.0]
    rows.values[:] = 10.0
    layers = [{"units": 1, "weights": [[1.0]], "bias": [0.0], "activation": activation}]
    with Pair(configure(layers), rows, check=True) as pair:
        ours, theirs = pair.gradients(), pair.twin.gradients(*pair.batch(0))
    for name, gradient in ours.items():
        np.testing.assert_allclose(gradient, theirs[name], rtol=1e-15)


@pytest.mark.parametrize("optimizer", ["sgd", {"name": "adam", "clip_norm": 1e-3, "clip_value": 1e-3}])
def test_a_check_neither_clips_nor_penalises_nor_updates(optimizer):
    penalties = {"l1": 0.1, "l2": 0.1, "weight_decay": 0.1, "max_norm": 0.1}
    rows = examples(8, 3, 2)
    config = configure([HIDDEN, {}], optimizer=optimizer, regularization=penalties)
    with Pair(config, rows, check=True) as pair:
        before = pair.network.parameters.copy()
        ours, theirs = pair.gradients(), pair.twin.gradients(*pair.batch(0))
        np.testing.assert_array_equal(pair.network.parameters, before)
    for name, gradient in ours.items():
        np.testing.assert_allclose(gradient, theirs[name], rtol=1e-12, atol=1e-15)
