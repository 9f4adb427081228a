"""How good predictions are: the numbers of scikit-learn, in float64, with the same bits on every processor.

A metric that the rows at hand do not define (the area under the ROC curve where there is one class only) is left out
of the result, never NaN. Rows of weight 0 count as absent. A missing class is no reason to fail: averages over
classes go over those that occur.

Sums over rows are NumPy's, pairwise: halves of halves, cut where the number of rows says. Weights in the confusion
matrix are added in order of rows, by blocks of BLOCK_ROWS. There are no dot products: their order is the processor's.
"""

import math

import numpy as np

from mlp_cli import numerics

HIGHER_IS_BETTER = {
    "loss": False,
    "accuracy": True,
    "balanced_accuracy": True,
    "top_5_accuracy": True,
    "log_loss": False,
    "roc_auc": True,
    "f1_macro": True,
    "mcc": True,
    "brier": False,
    "rmse": False,
    "mae": False,
    "r2": True,
}
CLASSIFICATION = ("accuracy", "balanced_accuracy", "top_5_accuracy", "log_loss", "roc_auc", "f1_macro", "mcc", "brier")
REGRESSION = ("rmse", "mae", "r2")
TOP = 5
BLOCK_ROWS = 1 << 16  # rows at a time: what is held besides a few numbers a row is a few megabytes
EPSILON = float(np.finfo(np.float64).eps)  # log_loss keeps probabilities this far from 0 and 1


def names(task):
    """The metrics that a data.Task can have, loss first; per target ("rmse.price") where there are several."""
    if task.kind == "classification":
        few = len(task.classes) <= TOP
        return ("loss", *(name for name in CLASSIFICATION if not (few and name == "top_5_accuracy")))
    each = task.targets if len(task.targets) > 1 else ()
    return ("loss", *REGRESSION, *(f"{name}.{target}" for target in each for name in REGRESSION))


def better(metric, new, best, min_delta=0.0):
    """Whether `new` improves on `best` by more than `min_delta`; NaN never does, and any number improves on None."""
    if new is None or math.isnan(new):
        return False
    if best is None or math.isnan(best):
        return True
    if HIGHER_IS_BETTER[metric.partition(".")[0]]:
        return new > best + min_delta
    return new < best - min_delta


def predicted_classes(outputs):
    """The class of the largest output, int32 (n,); ties go to the lowest class. Outputs (n, k)."""
    return np.argmax(outputs, axis=1).astype(np.int32)


def classification(target, predicted, probabilities=None, weight=None, look=lambda: None):
    """All metrics of class predictions, as a dict of floats; empty without rows.

    Class numbers `target` and `predicted` (n,), `probabilities` (n, k) or None (log_loss, roc_auc, brier and
    top_5_accuracy are then left out), `weight` (n,) or None. `look` is called between stretches of work that take long.
    """
    target, predicted = np.asarray(target), np.asarray(predicted)
    probabilities = None if probabilities is None else np.asarray(probabilities)
    if weight is not None:
        weight = np.asarray(weight, dtype=np.float64)
        kept = weight > 0.0
        target, predicted, weight = target[kept], predicted[kept], weight[kept]
        probabilities = None if probabilities is None else probabilities[kept]
    if len(target) == 0:
        return {}

    counts = confusion(target, predicted, int(max(target.max(), predicted.max())) + 1, weight)
    result = from_confusion(counts)
    if probabilities is not None:
        if probabilities.shape[1] > TOP:
            result["top_5_accuracy"] = _weighted_mean(_by_rows(_among_top, target, probabilities, look), weight)
        result["log_loss"] = _weighted_mean(_by_rows(_log_loss, target, probabilities, look), weight)
        result["brier"] = _weighted_mean(_by_rows(_brier, target, probabilities, look), weight)
        area = _roc_auc(target, probabilities, weight, look)
        if area is not None:
            result["roc_auc"] = area
    return {name: float(result[name]) for name in CLASSIFICATION if name in result}


def from_confusion(counts):
    """The metrics that a confusion matrix alone tells; averages go over the classes that occur."""
    support = counts.sum(axis=1)
    table = per_class(counts)
    return {
        "accuracy": float(np.sum(np.diagonal(counts)) / np.sum(support)),
        "balanced_accuracy": float(np.mean(table["recall"][support > 0])),
        "f1_macro": float(np.mean(table["f1"][(support > 0) | (counts.sum(axis=0) > 0)])),
        "mcc": float(_matthews_correlation(counts)),
    }


def regression(target, predicted, weight=None, names=("target",), look=lambda: None):
    """rmse, mae and r2 as means over the targets, and for several also each alone; empty without rows.

    `target` and `predicted` (n, m) or (n,), `weight` (n,) or None, `names` of the m targets. r2 of a target that does
    not vary is 1 where every prediction is right and else 0. `look` is called between targets.
    """
    target, predicted = _as_columns(target), _as_columns(predicted)
    if weight is not None:
        weight = np.asarray(weight, dtype=np.float64)
        kept = weight > 0.0
        target, predicted, weight = target[kept], predicted[kept], weight[kept]
    if len(target) == 0:
        return {}

    with np.errstate(over="ignore", invalid="ignore"):  # a diverged model's infinities are its own message
        single = []
        for j in range(target.shape[1]):
            look()
            single.append(_single_target(target[:, j], predicted[:, j], weight))
    result = {name: float(np.mean([scores[name] for scores in single])) for name in REGRESSION}
    if len(single) > 1:
        for column, scores in zip(names, single, strict=True):
            result.update({f"{name}.{column}": float(score) for name, score in scores.items()})
    return result


def confusion(target, predicted, k, weight=None):
    """Rows by true class (down) and predicted class (across), (k, k): int64, or float64 sums of weights."""
    target, predicted = np.asarray(target), np.asarray(predicted)
    counts = np.zeros(k * k, np.int64 if weight is None else np.float64)
    for start in range(0, len(target), BLOCK_ROWS):
        some = slice(start, start + BLOCK_ROWS)
        cell = target[some].astype(np.int64) * k + predicted[some]
        counts += np.bincount(cell, weights=None if weight is None else weight[some], minlength=k * k)
    return counts.reshape(k, k)


def per_class(counts):
    """precision, recall, f1 and support of each class from its confusion matrix, four arrays (k,); 0/0 is 0."""
    hits = np.diagonal(counts).astype(np.float64)
    support, called = counts.sum(axis=1), counts.sum(axis=0)
    return {
        "precision": _ratio(hits, called),
        "recall": _ratio(hits, support),
        "f1": _ratio(2.0 * hits, support + called),
        "support": support,
    }


def _as_columns(values):
    """Float64 (n, m); a vector is one column."""
    values = np.asarray(values, dtype=np.float64)
    return values[:, None] if values.ndim == 1 else values


def _ratio(part, whole):
    """part / whole, 0 where there is no whole."""
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


def _weighted_mean(values, weight):
    """sum w v / sum w; the plain mean without weights. Both are contiguous (n,), so that NumPy adds them pairwise."""
    return np.mean(values) if weight is None else np.sum(weight * values) / np.sum(weight)


def _matthews_correlation(counts):
    """Correlation of true and predicted class (Gorodkin 2004), 0 where either is constant."""
    true, called = counts.sum(axis=1).astype(np.float64), counts.sum(axis=0).astype(np.float64)
    # counted, not read off a variance of 0: with weights the variance is 0 up to rounding only
    if np.count_nonzero(true) < 2 or np.count_nonzero(called) < 2:
        return 0.0
    n = np.sum(true)
    true, called, hits = true / n, called / n, np.sum(np.diagonal(counts)) / n
    covariance = hits - np.sum(true * called)
    return min(1.0, max(-1.0, covariance / np.sqrt((1.0 - np.sum(true * true)) * (1.0 - np.sum(called * called)))))


def _by_rows(score, target, probabilities, look):
    """score(target, probabilities) of each row, float64 (n,); the probabilities are float64 when it sees them."""
    found = np.empty(len(target))
    for start in range(0, len(found), BLOCK_ROWS):
        look()
        some = slice(start, start + BLOCK_ROWS)
        found[some] = score(target[some], np.ascontiguousarray(probabilities[some], dtype=np.float64))
    return found


def _among_top(target, probabilities):
    """Whether fewer than five classes stand before the true one; of equal ones the lower class does."""
    true = np.take_along_axis(probabilities, target[:, None].astype(np.int64), axis=1)
    before = np.arange(probabilities.shape[1]) < target[:, None]
    return np.count_nonzero((probabilities > true) | ((probabilities == true) & before), axis=1) < TOP


def _log_loss(target, probabilities):
    """-log of the true class's probability."""
    true = probabilities[np.arange(len(target)), target]
    return -numerics.log(np.clip(true, EPSILON, 1.0 - EPSILON))


def _brier(target, probabilities):
    """(p - y)^2 of the second class where there are two, else summed over the classes."""
    if probabilities.shape[1] <= 2:
        off = probabilities[:, -1] - (target == probabilities.shape[1] - 1)
        return off * off
    off = probabilities.copy()
    off[np.arange(len(target)), target] -= 1.0
    return np.sum(off * off, axis=1)


def _roc_auc(target, probabilities, weight, look):
    """Area under the ROC curve of the second class, or the mean over each class against the rest.

    None where one class alone occurs. A class that does not occur is left out of the mean.
    """
    k = probabilities.shape[1]
    present = np.flatnonzero(np.bincount(target, minlength=k))
    if len(present) < 2:
        return None
    blocks = range(0, len(probabilities), BLOCK_ROWS)
    if not all(np.isfinite(probabilities[start : start + BLOCK_ROWS]).all() for start in blocks):
        return math.nan
    judged = (1,) if k == 2 else present
    areas = []
    for j in judged:
        look()
        areas.append(_area(probabilities[:, j], target == j, weight))
    return np.mean(areas)


def _area(score, positive, weight):
    """Probability that a positive's score is above a negative's, ties half (Mann and Whitney's U)."""
    negatives, positives = score[~positive], score[positive]
    if weight is None:
        negatives.sort()  # values alone: however ties are ordered, the result is the same
        below_and_upto = 0
        for start in range(0, len(positives), BLOCK_ROWS):
            some = positives[start : start + BLOCK_ROWS]
            for side in ("left", "right"):
                below_and_upto += int(np.sum(np.searchsorted(negatives, some, side=side)))
        return 0.5 * below_and_upto / (float(len(negatives)) * len(positives))
    order = np.argsort(negatives, kind="stable")
    negatives = negatives[order]
    sums = np.concatenate(([0.0], np.cumsum(weight[~positive][order])))
    below = sums[np.searchsorted(negatives, positives, side="left")]
    upto = sums[np.searchsorted(negatives, positives, side="right")]
    shares = (below + upto) / (2.0 * sums[-1])
    return _weighted_mean(shares, weight[positive])


def _single_target(target, predicted, weight):
    """rmse, mae and r2 of one target, (n,)."""
    off = predicted - target
    absolute = _weighted_mean(np.abs(off), weight)
    off *= off
    mean_square = _weighted_mean(off, weight)
    if target.min() == target.max():  # its variance would be rounding noise
        r2 = 1.0 if mean_square == 0.0 else 0.0
    else:
        np.subtract(target, _weighted_mean(np.ascontiguousarray(target), weight), out=off)
        off *= off
        r2 = 1.0 - mean_square / _weighted_mean(off, weight)
    return {"rmse": np.sqrt(mean_square), "mae": absolute, "r2": r2}
