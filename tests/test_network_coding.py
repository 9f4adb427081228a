"""Classes as targets, outputs as classes: the codings, their errors, and that training and evaluation agree on them."""

import contextlib
import re
from types import SimpleNamespace

import numpy as np
import pytest
from engine import Pair, configure, examples, sensible_pairs

from mlp_cli.errors import ConfigError
from mlp_cli.kernels import layout
from mlp_cli.network.coding import Coding, class_weights, code
from mlp_cli.vocab import FUSED


def task(classes=0, targets=1):
    if classes:
        return SimpleNamespace(kind="classification", classes=tuple("abcdefgh"[:classes]), targets=("y",))
    return SimpleNamespace(kind="regression", classes=None, targets=tuple(f"y{i}" for i in range(targets)))


def coding_of(activation, loss, classes, units=None, coding="binary"):
    output = {"activation": activation} | ({"units": units} if units else {})
    config = configure([output], loss, task="classification", data={"target_coding": coding})
    return code(config, task(classes))


# --- how many units, which targets ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("activation", "loss", "classes", "units", "expected"),
    [
        ("softmax", "cross_entropy", 2, None, (2, False, 0, 1)),
        ("softmax", "cross_entropy", 5, 5, (5, False, 0, 1)),
        ("hardmax", "quadratic", 2, None, (2, False, 0, 1)),
        ("sigmoid", "binary_cross_entropy", 2, None, (1, True, 0, 1)),
        ("sigmoid", "binary_cross_entropy", 2, 2, (2, False, 0, 1)),
        ("sigmoid", "mse", 3, None, (3, False, 0, 1)),
        ("linear", "hinge", 2, None, (1, True, -1, 1)),
        ("linear", "squared_hinge", 4, None, (4, False, -1, 1)),
    ],
)
def test_units_and_coding_of_classes(activation, loss, classes, units, expected):
    made = coding_of(activation, loss, classes, units)
    assert (made.outputs, made.single, made.low, made.high) == expected
    assert made.classes == classes


def test_bipolar_targets():
    made = coding_of("tanh", "mse", 3, coding="bipolar")
    assert (made.outputs, made.low, made.high, made.middle) == (3, -1, 1, 0)


def test_a_regression_has_a_unit_for_each_target():
    made = code(configure([{"units": 2}, {}], "mse"), task(targets=3))
    assert (made.outputs, made.classes) == (3, 0)


@pytest.mark.parametrize(
    ("layers", "loss", "kind", "message"),
    [
        (
            [{"units": 4}],
            "mse",
            task(targets=2),
            "network.layers.0.units: expected 2, one for each target (y0, y1); got 4",
        ),
        (
            [{"units": 3}, {"units": 4, "activation": "softmax"}],
            "cross_entropy",
            task(3),
            "network.layers.1.units: expected 3 for the 3 classes of 'y'; got 4",
        ),
        (
            [{"units": 3, "activation": "sigmoid"}],
            "binary_cross_entropy",
            task(2),
            "network.layers.0.units: expected 1 or 2 for the 2 classes of 'y'; got 3",
        ),
    ],
)
def test_units_that_contradict_the_target_are_refused(layers, loss, kind, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        code(configure(layers, loss, task=kind.kind), kind)


@pytest.mark.parametrize(
    ("smoothing", "softmax", "classes", "low", "high"),
    [(0.0, True, 4, 0, 1), (0.2, True, 4, 0.05, 0.85), (0.2, False, 4, 0.1, 0.9), (0.1, False, 2, 0.05, 0.95)],
)
def test_smoothed_targets(smoothing, softmax, classes, low, high):
    """t (1 - e) + e / K among classes, t (1 - e) + e / 2 for a unit that stands alone."""
    made = Coding(outputs=classes, classes=classes, smoothing=smoothing, softmax=softmax)
    assert made.target_low == pytest.approx(low, rel=1e-15)
    assert made.target_high == pytest.approx(high, rel=1e-15)


# --- outputs as classes -----------------------------------------------------------------------------------------


def test_probabilities_of_outputs_that_are_none_yet():
    several = Coding(outputs=3, classes=3)
    outputs = np.array([[0.2, 0.2, 0.6], [2.0, -1.0, 1.0], [0.0, 0.0, 0.0], [-3.0, -1.0, -2.0]])
    expected = [[0.2, 0.2, 0.6], [0.5, 0.0, 0.5], [1 / 3] * 3, [1 / 3] * 3]
    np.testing.assert_allclose(several.probabilities(outputs), expected, rtol=1e-15)


def test_probabilities_of_one_unit():
    binary, bipolar = Coding(1, 2, single=True), Coding(1, 2, single=True, low=-1.0, high=1.0)
    np.testing.assert_allclose(binary.probabilities([[0.3], [7.0]]), [[0.7, 0.3], [0, 1]])
    np.testing.assert_allclose(bipolar.probabilities([[0.5], [-7.0]]), [[0.25, 0.75], [1, 0]])


def test_the_largest_output_wins_and_the_first_of_equals():
    several = Coding(outputs=3, classes=3)
    np.testing.assert_array_equal(several.predicted(np.array([[1, 2, 3], [2, 2, 1], [0, 0, 0]])), [2, 0, 0])
    single = Coding(outputs=1, classes=2, single=True)
    np.testing.assert_array_equal(single.predicted(np.array([[0.5], [0.50001], [0.2]])), [0, 1, 0])


def classifiers():
    """Every output activation with classes, in one unit and in several: two plain losses, and the fused ones."""
    found = []
    for activation, loss in sensible_pairs():
        if loss not in ("mse", "hinge") and (activation, loss) not in FUSED:
            continue
        for count, units in ((2, 1), (3, 3)):
            with contextlib.suppress(ConfigError):
                configure([{"activation": activation, "units": units}], loss, task="classification")
                found.append((activation, loss, count, units))
    return found


@pytest.mark.parametrize(("activation", "loss", "count", "units"), classifiers())
def test_training_and_evaluation_predict_the_same_classes(activation, loss, count, units):
    """Training counts right answers from what the loss starts from, evaluation from outputs."""
    made = examples(300, 3, count, "cross_entropy")
    layers = [{"units": 5, "activation": "tanh"}, {"activation": activation, "units": units}]
    with Pair(configure(layers, loss, task="classification"), made) as pair:
        pair.rate = 0.0
        pair.train()
        predicted = pair.coding.predicted(pair.outputs())
        assert pair.machine.totals[layout.TOTAL_CORRECT] == (predicted == made.classes).sum()


# --- class weights ----------------------------------------------------------------------------------------------


def weights_of(stated, targets=None, classes=3):
    config = configure([{"activation": "softmax"}], {"name": "cross_entropy", "class_weights": stated})
    return class_weights(config, task(classes), np.array(targets if targets is not None else [0, 1, 2]))


def test_class_weights():
    assert weights_of(None) is None
    np.testing.assert_allclose(weights_of({"b": 2.5}), [1, 2.5, 1])
    # rows / (classes x rows of the class)
    np.testing.assert_allclose(weights_of("balanced", [0, 0, 0, 1, 1, 2]), [6 / 9, 6 / 6, 6 / 3])


def test_class_weights_of_a_class_without_rows_are_finite():
    assert np.isfinite(weights_of("balanced", [0, 0, 1])).all()


def test_weights_of_unknown_classes_are_refused():
    with pytest.raises(ConfigError, match=r"loss.class_weights: 'z' is not a class of 'y'; the classes are a, b, c"):
        weights_of({"z": 2.0})
