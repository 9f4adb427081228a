"""scikit-learn's multilayer perceptrons from the same weights on the same batches, in float64.

Its squared error has the factor 1/2, its alpha is divided by the batch's rows, and its Adam adds epsilon to the
uncorrected root; so here half_quadratic, l2 = alpha / rows, and an epsilon too small to matter.
"""

import numpy as np
import pytest
from engine import Pair, configure, examples
from sklearn.neural_network import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.smoke

ROWS, BATCH = 96, 16
ALPHA = 0.3
RATE = 0.02
EPSILON = 1e-30
NAMES = {"identity": "linear", "logistic": "sigmoid", "tanh": "tanh", "relu": "relu"}
SOLVERS = {
    "sgd": ({"solver": "sgd", "momentum": 0.0}, {"name": "sgd"}),
    "momentum": (
        {"solver": "sgd", "momentum": 0.9, "nesterovs_momentum": False},
        {"name": "sgd", "momentum": 0.9},
    ),
    "nesterov": (
        {"solver": "sgd", "momentum": 0.9, "nesterovs_momentum": True},
        {"name": "sgd", "momentum": 0.9, "nesterov": True},
    ),
    "adam": ({"solver": "adam", "epsilon": EPSILON}, {"name": "adam", "epsilon": EPSILON}),
}


def theirs_from(kind, options, activation, hidden, network, x, y, classes):
    """scikit-learn's model with our initial weights: one call makes its shapes, then it starts afresh."""
    model = kind(
        hidden_layer_sizes=hidden,
        activation=activation,
        alpha=ALPHA,
        batch_size=BATCH,
        learning_rate_init=RATE,
        learning_rate="constant",
        shuffle=False,
        random_state=0,
        **options,
    )
    arguments = {"classes": classes} if classes is not None else {}
    model.partial_fit(x[:BATCH], y[:BATCH], **arguments)
    del model._optimizer
    tensors = network.tensors()
    for layer in range(len(hidden) + 1):
        model.coefs_[layer][...] = tensors[f"layers.{layer}.weight"].T
        model.intercepts_[layer][...] = tensors[f"layers.{layer}.bias"]
    return model


def assert_same_training(pair, model, y):
    """Two epochs, batch by batch, and then the outputs for all rows."""
    x = pair.rows.x
    layers = len(model.coefs_)
    for epoch in (1, 2):
        for step in range(pair.steps):
            pair.train(step, 1, epoch)
            batch = slice(step * BATCH, (step + 1) * BATCH)
            model.partial_fit(x[batch], y[batch])
            ours = pair.network.tensors()
            for layer in range(layers):
                weight, bias = ours[f"layers.{layer}.weight"], ours[f"layers.{layer}.bias"]
                np.testing.assert_allclose(weight, model.coefs_[layer].T, rtol=0, atol=1e-10)
                np.testing.assert_allclose(bias, model.intercepts_[layer], rtol=0, atol=1e-10)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("activation", NAMES)
@pytest.mark.parametrize("classes", [2, 4])
def test_classifier(solver, activation, classes):
    options, optimizer = SOLVERS[solver]
    hidden = (13, 9)
    layers = [{"units": units, "activation": NAMES[activation]} for units in hidden]
    # scikit-learn gives two classes one sigmoid unit
    loss = "binary_cross_entropy" if classes == 2 else "cross_entropy"
    layers.append({"units": 1, "activation": "sigmoid"} if classes == 2 else {"activation": "softmax"})
    rows = examples(ROWS, 7, classes, loss, seed=classes)
    config = configure(layers, loss, optimizer=optimizer, rate=RATE, regularization={"l2": ALPHA / BATCH})
    with Pair(config, rows, BATCH, threads=2) as pair:
        known = np.arange(classes)
        model = theirs_from(MLPClassifier, options, activation, hidden, pair.network, rows.x, rows.classes, known)
        assert_same_training(pair, model, rows.classes)
        outputs = pair.outputs()
        probabilities = pair.coding.probabilities(outputs)
        np.testing.assert_allclose(probabilities, model.predict_proba(rows.x), rtol=0, atol=1e-10)
        np.testing.assert_array_equal(pair.coding.predicted(outputs), model.predict(rows.x))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("activation", NAMES)
@pytest.mark.parametrize("targets", [1, 3])
def test_regressor(solver, activation, targets):
    options, optimizer = SOLVERS[solver]
    hidden = (11,)
    layers = [{"units": 11, "activation": NAMES[activation]}, {"activation": "linear"}]
    rows = examples(ROWS, 5, targets, seed=targets)
    config = configure(layers, "half_quadratic", optimizer=optimizer, rate=RATE, regularization={"l2": ALPHA / BATCH})
    with Pair(config, rows, BATCH, threads=2) as pair:
        y = rows.values[:, 0] if targets == 1 else rows.values
        model = theirs_from(MLPRegressor, options, activation, hidden, pair.network, rows.x, y, None)
        assert_same_training(pair, model, y)
        predicted = model.predict(rows.x).reshape(ROWS, targets)
        np.testing.assert_allclose(pair.outputs(), predicted, rtol=0, atol=1e-10)
