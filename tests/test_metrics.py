"""Metrics against scikit-learn, and sound answers where scikit-learn has none."""

import math
import time
from types import SimpleNamespace

import numpy as np
import pytest
import sklearn.metrics as sk

from mlp_cli import metrics


def scores(k, n=300, seed=0, coarse=False):
    """Class numbers, probabilities that know something of them, and weights; coarse ones have many ties."""
    random = np.random.default_rng(seed)
    target = random.integers(k, size=n).astype(np.int32)
    logits = random.normal(size=(n, k)) + 1.5 * np.eye(k)[target]
    if coarse:
        logits = np.round(logits)
    probabilities = np.exp(logits)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return target, probabilities, random.integers(1, 4, size=n) * 0.7


def of_sklearn(target, p, weight):
    """The same metrics by scikit-learn."""
    k, predicted = p.shape[1], np.argmax(p, axis=1)
    result = {
        "accuracy": sk.accuracy_score(target, predicted, sample_weight=weight),
        "balanced_accuracy": sk.balanced_accuracy_score(target, predicted, sample_weight=weight),
        "log_loss": sk.log_loss(target, p, sample_weight=weight, labels=range(k)),
        "f1_macro": sk.f1_score(target, predicted, average="macro", sample_weight=weight),
        "mcc": sk.matthews_corrcoef(target, predicted, sample_weight=weight),
    }
    if k == 2:
        result["roc_auc"] = sk.roc_auc_score(target, p[:, 1], sample_weight=weight)
        result["brier"] = sk.brier_score_loss(target, p[:, 1], sample_weight=weight)
    else:
        ones = np.eye(k)[target]
        result["roc_auc"] = sk.roc_auc_score(ones, p, average="macro", sample_weight=weight)
        result["brier"] = np.average(((p - ones) ** 2).sum(axis=1), weights=weight)
    if k > 5:
        result["top_5_accuracy"] = sk.top_k_accuracy_score(target, p, k=5, sample_weight=weight, labels=range(k))
    return result


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("k", [2, 3, 5, 6, 10])
def test_classification_is_scikit_learns(k, weighted):
    target, probabilities, weight = scores(k)
    weight = weight if weighted else None
    result = metrics.classification(target, np.argmax(probabilities, axis=1), probabilities, weight)
    expected = of_sklearn(target, probabilities, weight)
    assert list(result) == [name for name in metrics.CLASSIFICATION if name in expected]
    assert result == pytest.approx(expected, rel=1e-12)
    assert all(type(value) is float for value in result.values())


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("k", [2, 4])
def test_ties_count_half_in_the_area_under_the_curve(k, weighted):
    target, probabilities, weight = scores(k, coarse=True)
    weight = weight if weighted else None
    result = metrics.classification(target, np.argmax(probabilities, axis=1), probabilities, weight)
    assert len(np.unique(probabilities)) < 200
    assert result["roc_auc"] == pytest.approx(of_sklearn(target, probabilities, weight)["roc_auc"], rel=1e-12)


def test_multiclass_brier_is_scikit_learns_where_it_has_one():
    target, probabilities, _ = scores(3)
    try:
        expected = sk.brier_score_loss(target, probabilities)
    except ValueError:
        pytest.skip("scikit-learn before 1.7 knows two classes only")
    assert metrics.classification(target, target, probabilities)["brier"] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_probabilities_of_0_and_1_give_a_finite_log_loss(dtype):
    target, probabilities = np.array([0, 1, 1]), np.array([[1, 0], [1, 0], [0, 1]], dtype=dtype)
    result = metrics.classification(target, [0, 0, 1], probabilities)
    assert result["log_loss"] == pytest.approx(-math.log(2.0**-52) / 3)
    assert result["log_loss"] == pytest.approx(sk.log_loss(target, probabilities.astype(np.float64)))


def test_one_class_alone_has_no_area_under_the_curve():
    result = metrics.classification([1, 1, 1], [1, 0, 1], np.array([[0.2, 0.8], [0.6, 0.4], [0.1, 0.9]]))
    assert "roc_auc" not in result
    assert result["mcc"] == 0
    assert result["accuracy"] == result["balanced_accuracy"] == pytest.approx(2 / 3)
    assert result["f1_macro"] == pytest.approx(0.4)


@pytest.mark.parametrize("weight", [None, [0.3]])
def test_one_row(weight):
    result = metrics.classification([2], [2], np.array([[0.1, 0.2, 0.7]]), weight)
    assert result == pytest.approx(
        {"accuracy": 1, "balanced_accuracy": 1, "log_loss": -math.log(0.7), "f1_macro": 1, "mcc": 0, "brier": 0.14}
    )


def test_a_class_missing_from_the_rows_is_left_out_of_the_averages():
    target, probabilities, _ = scores(3)
    seen = target != 1
    target, probabilities = target[seen], probabilities[seen]
    result = metrics.classification(target, np.argmax(probabilities[:, ::2], axis=1) * 2, probabilities)
    areas = [sk.roc_auc_score(target == j, probabilities[:, j]) for j in (0, 2)]
    assert result["roc_auc"] == pytest.approx(np.mean(areas))
    recalls = [np.mean(np.argmax(probabilities[target == j][:, ::2], axis=1) * 2 == j) for j in (0, 2)]
    assert result["balanced_accuracy"] == pytest.approx(np.mean(recalls))


def test_no_rows_no_metrics():
    assert metrics.classification([], [], np.empty((0, 3))) == {}
    assert metrics.classification([0, 1], [0, 1], np.eye(2), [0.0, 0.0]) == {}
    assert metrics.regression(np.empty((0, 2)), np.empty((0, 2)), names=("a", "b")) == {}
    assert metrics.regression([1.0], [2.0], [0.0]) == {}


def test_without_probabilities_the_class_metrics_remain():
    result = metrics.classification([0, 1, 1, 2], [0, 1, 2, 2])
    assert list(result) == ["accuracy", "balanced_accuracy", "f1_macro", "mcc"]


@pytest.mark.parametrize("k", [2, 7])
def test_rows_of_weight_0_count_as_absent(k):
    target, probabilities, weight = scores(k, n=80)
    weight[::3] = 0
    kept = weight > 0
    predicted = np.argmax(probabilities, axis=1)
    assert metrics.classification(target, predicted, probabilities, weight) == metrics.classification(
        target[kept], predicted[kept], probabilities[kept], weight[kept]
    )


def test_equal_outputs_give_the_lowest_class():
    predicted = metrics.predicted_classes(np.array([[1.0, 2.0, 2.0], [0.0, 0.0, 0.0]]))
    assert predicted.tolist() == [1, 0]
    equal = np.full((7, 7), 1 / 7)
    assert metrics.classification(np.arange(7), np.zeros(7, int), equal)["top_5_accuracy"] == pytest.approx(5 / 7)


def test_a_constant_weighted_prediction_has_no_correlation():
    weight = np.full(10, 0.1)
    assert metrics.classification([0, 1] * 5, [1] * 10, None, weight)["mcc"] == 0
    assert metrics.classification([0, 1] * 5, [0, 1] * 5, None, weight)["mcc"] == pytest.approx(1)


def test_confusion_and_the_table_per_class():
    target, probabilities, weight = scores(4)
    predicted = metrics.predicted_classes(probabilities)
    for sample_weight in (None, weight):
        counts = metrics.confusion(target, predicted, 4, sample_weight)
        np.testing.assert_allclose(counts, sk.confusion_matrix(target, predicted, sample_weight=sample_weight))
        table = metrics.per_class(counts)
        expected = sk.precision_recall_fscore_support(target, predicted, sample_weight=sample_weight)
        for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
            np.testing.assert_allclose(table[name], values, err_msg=name)
    assert metrics.confusion([0, 1], [1, 1], 3).tolist() == [[0, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert metrics.confusion([0], [0], 1).dtype == np.int64


def test_a_class_without_rows_has_zeros_in_its_table():
    table = metrics.per_class(metrics.confusion([0, 0], [0, 0], 2))
    assert {name: values.tolist() for name, values in table.items()} == {
        "precision": [1, 0],
        "recall": [1, 0],
        "f1": [1, 0],
        "support": [2, 0],
    }


@pytest.mark.parametrize("weighted", [False, True])
def test_regression_is_scikit_learns(weighted):
    random = np.random.default_rng(0)
    target = random.normal(size=(200, 3)) * [1, 10, 0.1] + 5
    predicted = target + random.normal(size=(200, 3)) * [0.3, 9, 0.2]
    weight = random.uniform(size=200) if weighted else None
    result = metrics.regression(target, predicted, weight, names=("a", "b.c", "d"))

    def expected(name, **average):
        function = {"rmse": root_mean_squared_error, "mae": sk.mean_absolute_error, "r2": sk.r2_score}[name]
        return function(target, predicted, sample_weight=weight, **average)

    for name in metrics.REGRESSION:
        assert result[name] == pytest.approx(expected(name), rel=1e-12)
        each = expected(name, multioutput="raw_values")
        assert [result[f"{name}.{column}"] for column in ("a", "b.c", "d")] == pytest.approx(each, rel=1e-12)
    alone = metrics.regression(target[:, 0], predicted[:, :1], weight)
    assert alone == {name: result[f"{name}.a"] for name in metrics.REGRESSION}


def root_mean_squared_error(target, predicted, sample_weight, multioutput="uniform_average"):
    """scikit-learn's since 1.4, written out."""
    square = sk.mean_squared_error(target, predicted, sample_weight=sample_weight, multioutput="raw_values")
    return np.sqrt(square) if multioutput == "raw_values" else np.mean(np.sqrt(square))


@pytest.mark.parametrize("weight", [None, [0.1, 0.2, 0.3]])
def test_r2_of_a_target_that_does_not_vary(weight):
    constant = [0.1, 0.1, 0.1]
    assert metrics.regression(constant, constant, weight) == {"rmse": 0, "mae": 0, "r2": 1}
    assert metrics.regression(constant, [0.1, 0.1, 0.2], weight)["r2"] == 0
    assert metrics.regression([3.0], [4.0]) == {"rmse": 1, "mae": 1, "r2": 0}


def test_regression_does_not_depend_on_the_memory_layout():
    random = np.random.default_rng(1)
    target, predicted = random.normal(size=(2, 1000, 3))
    columns = np.asfortranarray
    assert metrics.regression(target, predicted, names="abc") == metrics.regression(
        columns(target), columns(predicted), names="abc"
    )


def test_a_diverged_model_has_metrics_without_a_warning():
    assert metrics.regression([1.0, 2.0], [1e200, 1.0]) == {"rmse": math.inf, "mae": 5e199, "r2": -math.inf}
    result = metrics.classification([0, 1], [0, 0], np.array([[math.nan, 0.5], [0.5, 0.5]]))
    assert math.isnan(result["log_loss"])
    assert math.isnan(result["roc_auc"])
    assert result["accuracy"] == 0.5


def test_better():
    assert metrics.better("loss", 0.4, 0.5)
    assert not metrics.better("loss", 0.5, 0.5)
    assert not metrics.better("loss", 0.45, 0.5, min_delta=0.1)
    assert metrics.better("accuracy", 0.6, 0.5)
    assert not metrics.better("accuracy", 0.6, 0.5, min_delta=0.2)
    assert metrics.better("r2.price", 0.6, 0.5)
    assert metrics.better("rmse.a.b", 0.4, 0.5)
    assert metrics.better("mae", 7, None)
    assert metrics.better("mae", 7, math.nan)
    assert not metrics.better("mae", math.nan, 7)
    assert not metrics.better("mae", math.nan, None)
    assert not metrics.better("mae", None, 7)


def test_names_are_those_of_the_results():
    random = np.random.default_rng(2)
    for k in (2, 5, 6):
        task = SimpleNamespace(kind="classification", classes=tuple("abcdefg"[:k]), targets=("y",))
        target, probabilities, _ = scores(k)
        result = metrics.classification(target, target, probabilities)
        assert metrics.names(task) == ("loss", *result)
    for m in (1, 3):
        task = SimpleNamespace(kind="regression", classes=None, targets=tuple("xyz"[:m]))
        target = random.normal(size=(9, m))
        assert metrics.names(task) == ("loss", *metrics.regression(target, target, names=task.targets))
    assert {name.partition(".")[0] for name in metrics.names(task)} <= set(metrics.HIGHER_IS_BETTER)


def test_a_hundred_thousand_rows_take_a_moment():
    target, probabilities, _ = scores(10, n=100_000)
    predicted = metrics.predicted_classes(probabilities)
    metrics.classification(target, predicted, probabilities)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        metrics.classification(target, predicted, probabilities)
        times.append(time.perf_counter() - start)
    assert min(times) < 1.0  # a sixth of it on a quiet machine; a loop over rows would take many
