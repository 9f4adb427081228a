"""Each optimizer: one step against its published formula, twenty against the twin, and what happens around a step."""

import numpy as np
import pytest
from engine import DTYPES, Pair, configure, examples, padding, unpacked

from mlp_cli import optimizers
from mlp_cli.vocab import OPTIMIZERS

RATE = 0.03
NET = [{"units": 19, "activation": "tanh"}, {"units": 3}]
both_types = pytest.mark.parametrize("dtype", DTYPES)

# Every word, and the options that take another path.
VARIANTS = [
    *({"name": name} for name in OPTIMIZERS),
    {"name": "sgd", "momentum": 0.9},
    {"name": "sgd", "momentum": 0.9, "nesterov": True},
    {"name": "rmsprop", "momentum": 0.5},
    {"name": "adam", "beta1": 0.0, "epsilon": 1e-3},
    {"name": "radam", "beta2": 0.9},
]
AROUND = [
    ({}, {"l2": 0.02}),
    ({}, {"l1": 0.01, "l2": 0.02, "weight_decay": 0.1, "max_norm": 0.8}),
    ({"clip_value": 1e-3}, {"weight_decay": 0.3}),
    ({"clip_norm": 1e-2}, {"l2": 0.1}),
    ({"clip_norm": 5e-3, "clip_value": 1e-3}, {"max_norm": 0.5}),
]


def label(value):
    return "-".join(map(str, value.values())) if isinstance(value, dict) else str(value)


# --- one step by the formula ------------------------------------------------------------------------------------
# w, g: weights and gradient; m, v: the state before the step; t: the step's number; lr: the rate; o: the options


def sgd(w, g, m, v, t, lr, o):
    m = o["momentum"] * m + g
    return w - lr * (g + o["momentum"] * m if o["nesterov"] else m)


def adagrad(w, g, m, v, t, lr, o):  # Duchi, Hazan & Singer 2011
    return w - lr * g / (np.sqrt(m + g**2) + o["epsilon"])


def adadelta(w, g, m, v, t, lr, o):  # Zeiler 2012
    m = o["rho"] * m + (1 - o["rho"]) * g**2
    return w - lr * g * np.sqrt(v + o["epsilon"]) / np.sqrt(m + o["epsilon"])


def rmsprop(w, g, m, v, t, lr, o):  # Tieleman & Hinton 2012
    m = o["rho"] * m + (1 - o["rho"]) * g**2
    return w - lr * (o["momentum"] * v + g / (np.sqrt(m) + o["epsilon"]))


def adam(w, g, m, v, t, lr, o):  # Kingma & Ba 2015, algorithm 1; adamw: Loshchilov & Hutter 2019
    m_hat = (o["beta1"] * m + (1 - o["beta1"]) * g) / (1 - o["beta1"] ** t)
    v_hat = (o["beta2"] * v + (1 - o["beta2"]) * g**2) / (1 - o["beta2"] ** t)
    return w - lr * m_hat / (np.sqrt(v_hat) + o["epsilon"])


def adamax(w, g, m, v, t, lr, o):  # Kingma & Ba 2015, algorithm 2
    m = o["beta1"] * m + (1 - o["beta1"]) * g
    u = np.maximum(o["beta2"] * v, np.abs(g) + o["epsilon"])
    return w - lr / (1 - o["beta1"] ** t) * m / u


def nadam(w, g, m, v, t, lr, o):  # Dozat 2016
    mu = o["beta1"] * (1 - 0.5 * 0.96 ** (0.004 * np.arange(1, t + 2)))
    m, v_hat = adam_moments(g, m, v, t, o)
    m_hat = mu[t] * m / (1 - np.prod(mu)) + (1 - mu[t - 1]) * g / (1 - np.prod(mu[:t]))
    return w - lr * m_hat / (np.sqrt(v_hat) + o["epsilon"])


def radam(w, g, m, v, t, lr, o):  # Liu et al. 2020
    longest, beta2 = 2 / (1 - o["beta2"]) - 1, o["beta2"]
    rho = longest - 2 * t * beta2**t / (1 - beta2**t)
    m, v_hat = adam_moments(g, m, v, t, o)
    step = lr * m / (1 - o["beta1"] ** t)
    if rho <= 5:
        return w - step
    r = np.sqrt((rho - 4) * (rho - 2) * longest / ((longest - 4) * (longest - 2) * rho))
    return w - step * r * np.sqrt(1 - beta2**t) / (np.sqrt(v_hat * (1 - beta2**t)) + o["epsilon"])


def adam_moments(g, m, v, t, o):
    m = o["beta1"] * m + (1 - o["beta1"]) * g
    return m, (o["beta2"] * v + (1 - o["beta2"]) * g**2) / (1 - o["beta2"] ** t)


def lion(w, g, m, v, t, lr, o):  # Chen et al. 2023
    return w - lr * np.sign(o["beta1"] * m + (1 - o["beta1"]) * g)


def rprop(w, g, m, v, t, lr, o):  # Riedmiller & Braun 1993: v are the step sizes, m the gradient before
    size = np.clip(np.where(g * m > 0, 1.2 * v, np.where(g * m < 0, 0.5 * v, v)), 1e-6, 50)
    return w - np.sign(np.where(g * m < 0, 0, g)) * size


def adamw(w, g, m, v, t, lr, o):
    return adam(w, g, m, v, t, lr, o)


@both_types
@pytest.mark.parametrize("update", [1, 4, 7, 3000])
@pytest.mark.parametrize("optimizer", VARIANTS, ids=label)
def test_one_step_is_the_published_one(optimizer, update, dtype):
    """From weights, gradient and state of every size and sign, at several places of the run."""
    formula = globals()[optimizer["name"]]
    config = configure(NET, optimizer=optimizer, rate=RATE, dtype=dtype)
    rows = examples(11, 5, 3)
    with Pair(config, rows) as pair, Pair(config, rows, check=True) as same:
        network, random = pair.network, np.random.default_rng(update)
        moments = network.moments
        for number, moment in enumerate(moments):
            drawn = 10.0 ** random.uniform(-4, 0, moment.size)
            positive = number == 1 or optimizer["name"] in ("adagrad", "adadelta", "rmsprop")
            moment[:] = np.where(padding(network), 0, drawn if positive else drawn * random.choice([-1, 1], drawn.size))
        before = network.tensors()
        # an optimizer without a moment does not ask for it
        nothing = np.zeros_like(network.parameters)
        m, v = (unpacked(network, moment) for moment in (*moments, nothing, nothing)[:2])
        gradients = same.gradients()
        table = optimizers.step_coefficients(config, np.array([RATE]), update)
        pair.machine.train(pair.order, 1, table, 0)
        after = network.tensors()
    decay = config.regularization.weight_decay
    for name in before:
        w, g, m_0, v_0 = (part[name].astype(np.float64) for part in (before, gradients, m, v))
        kept = w * (1 - RATE * decay) if w.ndim == 2 else w
        expected = formula(kept, g, m_0, v_0, update, RATE, config.optimizer.model_dump())
        # a tolerance for the step itself, not for the weight: the step is what is tested
        error = np.abs((after[name].astype(np.float64) - w) - (expected - w))
        step = np.abs(expected - w)
        assert (error <= 1e-12 + 1e-10 * step if dtype == "float64" else error <= 2e-7 + 1e-4 * step).all(), name


@pytest.mark.parametrize("optimizer", VARIANTS, ids=label)
@pytest.mark.parametrize(("clip", "regularization"), [({}, {}), *AROUND], ids=label)
def test_twenty_steps_agree_with_the_twin(optimizer, clip, regularization):
    config = configure(
        NET, "half_quadratic", optimizer=optimizer | clip, regularization=regularization, rate=RATE, seed=5
    )
    with Pair(config, examples(33, 5, 3, weighted=True), batch_size=8, threads=2) as pair:
        for epoch in range(1, 5):
            pair.train(epoch=epoch)
            for step in range(pair.steps):
                pair.twin_step(step)
            # a small gradient over its own small root magnifies the last digit, and the twin's products are BLAS's
            assert pair.difference() < 1e-9


def test_the_formulas_are_the_vocabularys():
    assert all(callable(globals().get(name)) for name in OPTIMIZERS)
    assert {variant["name"] for variant in VARIANTS} == set(OPTIMIZERS)


def test_rprop_follows_a_schedule_relative_to_its_start():
    """With half the initial rate every step is half as long."""
    config = configure([{"bias": [0.0], "weights": [[0.0]], "units": 1}], optimizer="rprop", rate=0.1)
    rows = examples(1, 1, 1)
    rows.x[:], rows.values[:] = 1.0, 100.0
    with Pair(config, rows) as pair:
        pair.machine.train(pair.order, 1, optimizers.step_coefficients(config, np.array([0.05]), 1), 0)
        assert pair.network.tensors()["layers.0.bias"][0] == pytest.approx(0.05, rel=1e-15)


# --- around the step --------------------------------------------------------------------------------------------


@both_types
def test_max_norm_bounds_the_weights_of_each_unit(dtype):
    for units in (1, 7, 16, 17, 33, 70):
        layers = [
            {"units": units, "init": {"name": "normal", "std": 1.0}, "bias_init": {"name": "constant", "value": 9}}
        ]
        config = configure(layers, dtype=dtype, rate=1e-30, regularization={"max_norm": 1.5})
        with Pair(config, examples(4, 5, units), threads=3) as pair:
            before = pair.network.tensors()
            pair.train()
            after = pair.network.tensors()
        length = np.sqrt((before["layers.0.weight"].astype(np.float64) ** 2).sum(axis=1))
        assert (length > 1.5).any() or units == 1
        bounded = before["layers.0.weight"] * np.minimum(1.0, 1.5 / length)[:, None]
        np.testing.assert_allclose(after["layers.0.weight"], bounded, rtol=1e-6 if dtype == "float32" else 1e-7)
        np.testing.assert_allclose(after["layers.0.bias"], 9.0, rtol=1e-6)


@both_types
def test_max_norm_lets_zeros_be(dtype):
    config = configure([{"init": "zeros"}], dtype=dtype, rate=1e-30, regularization={"max_norm": 1.0})
    with Pair(config, examples(4, 5, 3)) as pair:
        pair.train()
        assert np.isfinite(pair.network.parameters).all()
        assert np.abs(pair.network.tensors()["layers.0.weight"]).max() < 1e-25


def test_penalties_act_on_weight_matrices_alone():
    """With a zero gradient, only matrices move: both of a highway's, no bias, no scale of a norm."""
    layers = [{"kind": "highway", "activation": "tanh"}, {"kind": "layer_norm"}, {"kind": "batch_norm"}, {}]
    regularization = {"l1": 0.1, "l2": 0.1, "weight_decay": 0.1}
    rows = examples(6, 4, 2)
    with Pair(configure(layers, regularization=regularization, rate=0.1), rows) as pair:
        rows_of_no_weight = rows.rows("float64")
        rows_of_no_weight.loss_weights = np.zeros(6)
        pair.machine.prepare_training(rows_of_no_weight, 6)
        before = {name: value.copy() for name, value in pair.network.tensors().items()}
        pair.train()
        for name, value in pair.network.tensors().items():
            if value.ndim == 2:
                expected = before[name] * (1 - 0.1 * 0.1) - 0.1 * (0.1 * before[name] + 0.1 * np.sign(before[name]))
                np.testing.assert_allclose(value, expected, rtol=1e-14, err_msg=name)
            elif "running" not in name:
                np.testing.assert_array_equal(value, before[name], err_msg=name)


@both_types
@pytest.mark.parametrize("optimizer", VARIANTS, ids=label)
def test_frozen_layers_stay_and_do_not_count_in_the_norm(optimizer, dtype):
    layers = [
        {"units": 6, "activation": "tanh", "freeze": True},
        {"kind": "highway", "activation": "sin", "freeze": True},
        {"units": 5, "activation": "tanh"},
        {"freeze": True},
    ]
    config = configure(
        layers,
        optimizer=optimizer | {"clip_norm": 1e-3},
        regularization={"l2": 0.1, "weight_decay": 0.1, "max_norm": 0.1},
        dtype=dtype,
    )
    with Pair(config, examples(12, 4, 3), batch_size=5) as pair:
        before = pair.network.tensors()
        pair.train()
        for step in range(pair.steps):
            pair.twin_step(step)
        after = pair.network.tensors()
        for name, value in before.items():
            assert np.array_equal(after[name], value) != name.startswith("layers.2.")
        if dtype == "float64":
            assert pair.difference() < 1e-12


@both_types
@pytest.mark.parametrize("optimizer", VARIANTS, ids=label)
def test_padding_stays_zero(optimizer, dtype):
    """What lies between the parameters takes part in every product: it must never become anything else."""
    layers = [
        {"units": 19, "activation": "softplus"},
        {"kind": "concat", "layers": [{"kind": "highway", "activation": "sigmoid"}, {"units": 35}]},
        {"kind": "batch_norm"},
        {"kind": "residual", "layers": [{"kind": "layer_norm"}, {"units": 54, "activation": "gaussian"}]},
        {"kind": "positional_encoding", "frequencies": 1},
        {},
    ]
    for clip in ({}, {"clip_norm": 0.1}):
        regularization = {"l1": 0.01, "l2": 0.01, "max_norm": 1.0}
        config = configure(layers, "mse", optimizer=optimizer | clip, regularization=regularization, dtype=dtype)
        with Pair(config, examples(30, 5, 3), batch_size=7, threads=2) as pair:
            pair.train()
            outside = padding(pair.network)
            assert outside.any()
            assert not pair.network.parameters[outside].any()
            if clip:
                assert not pair.machine.gradient[outside].any()
            assert all(np.isfinite(moment).all() for moment in pair.network.moments)


@both_types
def test_a_gradient_of_nothing_moves_nothing(dtype):
    """Dead units: 0 / 0 must not come up in any optimizer."""
    for optimizer in VARIANTS:
        bias = {"name": "constant", "value": -100.0}
        layers = [{"units": 5, "activation": "relu", "bias_init": bias}, {"init": "zeros"}]
        with Pair(configure(layers, optimizer=optimizer, dtype=dtype), examples(9, 3, 2), batch_size=4) as pair:
            before = pair.network.tensors()
            pair.train()
            after = pair.network.tensors()
        assert np.isfinite(pair.network.parameters).all()
        if optimizer["name"] != "adamw":
            np.testing.assert_array_equal(after["layers.0.weight"], before["layers.0.weight"], err_msg=label(optimizer))
