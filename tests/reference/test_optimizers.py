"""The twin's optimizers against steps worked by hand."""

from math import sqrt

import numpy as np
import pytest

from . import Trainer, optimizers, random_weights


def two_steps(optimizer, regularization=None):
    """From w = 1 at rate 0.1 with gradients 0.5 and -0.2: w after each."""
    rule, w = optimizers.Optimizer(optimizer, regularization), {"layers.0.weight": np.array([[1.0]])}
    seen = []
    for g in (0.5, -0.2):
        w = rule.step(w, {"layers.0.weight": np.array([[g]])}, 0.1)
        seen.append(w["layers.0.weight"].item())
    return seen


def adadelta_by_hand():
    delta1 = sqrt(1e-6) / sqrt(0.025 + 1e-6) * 0.5
    delta2 = sqrt(0.1 * delta1**2 + 1e-6) / sqrt(0.9 * 0.025 + 0.1 * 0.04 + 1e-6) * 0.2
    return 1 - 0.1 * delta1, 1 - 0.1 * delta1 + 0.1 * delta2


M1, M2 = 0.05, 0.9 * 0.05 - 0.02  # running mean of g, beta1 0.9: 0.05, 0.025
V1, V2 = 0.00025, 0.999 * 0.00025 + 0.001 * 0.04  # of g^2, beta2 0.999: 0.00025, 0.00028975
ADAM_1 = 1 - 0.1 * 0.5 / (0.5 + 1e-8)
ADAM_STEP_2 = 0.1 * (M2 / 0.19) / (sqrt(V2 / 0.001999) + 1e-8)
RMS_1, RMS_2 = 0.5 / (sqrt(0.0025) + 1e-8), -0.2 / (sqrt(0.99 * 0.0025 + 0.01 * 0.04) + 1e-8)
MU = [0.9 * (1 - 0.5 * 0.96 ** (0.004 * t)) for t in (0, 1, 2, 3)]
NADAM_1 = 1 - 0.1 * (MU[2] * M1 / (1 - MU[1] * MU[2]) + 0.5) / (0.5 + 1e-8)
NADAM_STEP_2 = (MU[3] * M2 / (1 - MU[1] * MU[2] * MU[3]) - (1 - MU[2]) * 0.2 / (1 - MU[1] * MU[2])) / (
    sqrt(V2 / 0.001999) + 1e-8
)


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        ("sgd", (0.95, 0.97)),
        ({"name": "sgd", "momentum": 0.9}, (0.95, 0.925)),  # velocity 0.5, then 0.45 - 0.2
        ({"name": "sgd", "momentum": 0.9, "nesterov": True}, (0.905, 0.9025)),  # 0.5 + 0.45; -0.2 + 0.225
        ("adagrad", (0.9, 0.9 + 0.02 / sqrt(0.29))),
        ("adadelta", adadelta_by_hand()),
        ("rmsprop", (1 - 0.1 * RMS_1, 1 - 0.1 * RMS_1 - 0.1 * RMS_2)),
        ({"name": "rmsprop", "momentum": 0.5}, (1 - 0.1 * RMS_1, 1 - 0.15 * RMS_1 - 0.1 * RMS_2)),
        ("adam", (ADAM_1, ADAM_1 - ADAM_STEP_2)),
        ("adamw", (ADAM_1 - 0.001, (ADAM_1 - 0.001) * 0.999 - ADAM_STEP_2)),
        ("adamax", (ADAM_1, ADAM_1 - 0.1 / 0.19 * M2 / (0.999 * (0.5 + 1e-8)))),
        ("nadam", (NADAM_1, NADAM_1 - 0.1 * NADAM_STEP_2)),
        ("radam", (0.95, 0.95 - 0.1 * M2 / 0.19)),
        ("lion", (0.9, 0.8 + 0.2)),  # blends 0.05, then 0.9 * 0.005 - 0.02 < 0
        ("rprop", (0.9, 0.9)),  # turned: rests
    ],
    ids=str,
)
def test_two_steps_by_hand(optimizer, expected):
    np.testing.assert_allclose(two_steps(optimizer), expected, rtol=1e-9, atol=1e-12)


def test_rprop_rests_after_a_turn_then_goes_on_with_half_the_step():
    rule, w, seen = optimizers.Optimizer("rprop"), {"v": np.array([0.0])}, []
    for g in (1.0, 2.0, -1.0, -3.0, -1.0):  # steps 0.1, 0.12, rest (0.06), 0.06, 0.072
        w = rule.step(w, {"v": np.array([g])}, 0.1)
        seen.append(w["v"].item())
    np.testing.assert_allclose(seen, [-0.1, -0.22, -0.22, -0.16, -0.088])


def test_radam_rectifies_from_the_sixth_step_on():
    """With g = 1 throughout, m^ = v^ = 1: the step is lr, then lr times the rectification."""
    rule, w, steps = optimizers.Optimizer("radam"), {"v": np.array([0.0])}, []
    for _ in range(6):
        new = rule.step(w, {"v": np.array([1.0])}, 0.1)
        steps.append((w["v"] - new["v"]).item())
        w = new
    rho = 1999 - 12 * 0.999**6 / (1 - 0.999**6)
    rectified = sqrt((rho - 4) * (rho - 2) * 1999 / (1995 * 1997 * rho))
    np.testing.assert_allclose(steps, [0.1] * 5 + [0.1 * rectified], rtol=1e-6)


def test_clipping():
    gradients = {"a": np.array([[3.0, -0.1]]), "b": np.array([-4.0])}
    by_value = optimizers.clipped(gradients, clip_value=0.5)
    np.testing.assert_array_equal(by_value["a"], [[0.5, -0.1]])
    short = optimizers.clipped(gradients, clip_norm=6.0)
    np.testing.assert_array_equal(short["a"], gradients["a"])
    length = sqrt(9 + 0.01 + 16)
    by_norm = optimizers.clipped(gradients, clip_norm=1.0)
    np.testing.assert_allclose(by_norm["b"], [-4 / (length + 1e-6)])


def test_penalties_touch_weight_matrices_only():
    parameters = {
        "layers.0.weight": np.array([[3.0, -4.0], [0.0, 0.1]]),
        "layers.0.bias": np.array([2.0, 2.0]),
        "layers.1.weight": np.array([5.0, 5.0]),
    }
    nothing = {name: np.zeros_like(value) for name, value in parameters.items()}
    cases = {
        "l1": (0.5, [[2.95, -3.95], [0.0, 0.05]]),
        "l2": (0.5, [[2.85, -3.8], [0.0, 0.095]]),
        "weight_decay": (0.5, [[2.85, -3.8], [0.0, 0.095]]),
        "max_norm": (1.0, [[0.6, -0.8], [0.0, 0.1]]),
    }
    for key, (amount, expected) in cases.items():
        stepped = optimizers.Optimizer({"name": "sgd", "clip_norm": 1e-3}, {key: amount}).step(parameters, nothing, 0.1)
        np.testing.assert_allclose(stepped["layers.0.weight"], expected)
        for name in ("layers.0.bias", "layers.1.weight"):
            np.testing.assert_array_equal(stepped[name], parameters[name])


def test_weight_decay_is_adamws_default_alone_and_can_be_given():
    plain, given = two_steps("adam"), two_steps("adamw", {"weight_decay": 0.0})
    assert plain == given
    assert two_steps("adam", {"weight_decay": 0.01}) == two_steps("adamw")


def test_frozen_layers_stay_and_do_not_count_in_the_norm():
    specs = [{"kind": "dense", "units": 3, "activation": "tanh", "freeze": True}, {"kind": "dense", "units": 1}]
    weights = random_weights(specs, 3)
    trainer = Trainer(specs, "mse", {"name": "sgd", "clip_norm": 0.01}, {"l2": 0.0}, weights)
    trainer.step(np.ones((2, 3)), np.zeros((2, 1)), None, 1.0)
    np.testing.assert_array_equal(trainer.parameters()["layers.0.weight"], weights["layers.0.weight"])
    moved = sum(((trainer.parameters()[n] - weights[n]) ** 2).sum() for n in ("layers.1.weight", "layers.1.bias"))
    assert sqrt(moved) == pytest.approx(0.01, rel=1e-3)
