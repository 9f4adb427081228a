"""How good a model is: metrics of rows, from the outputs of the network or from the sums that training kept."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mlp_cli import metrics
from mlp_cli.data import Batch, Split
from mlp_cli.kernels import layout
from mlp_cli.model import Model
from mlp_cli.network.machine import Machine


def _nothing() -> None:
    """Nobody looks."""


@dataclass
class Evaluation:
    """Metrics by name, loss first; a confusion matrix (class, prediction) for classes."""

    rows: int
    metrics: dict[str, float]
    confusion: np.ndarray | None = None


def evaluate(machine: Machine, model: Model, part: Split | Batch, look: Callable[[], None] = _nothing) -> Evaluation:
    """All metrics of a part of the data. The loss is Σ w loss / n, whether or not the config's loss is a sum.

    `look` is called every so often; what it raises ends the evaluation.
    """
    look()
    rows = model.rows(part)
    outputs, losses = machine.evaluate(rows, look)
    look()
    # pairwise over float64 (n,): the order of the sum follows from the number of rows
    found = {"loss": float(np.sum(losses)) / max(len(rows), 1)}
    del losses
    if not model.coding.classes:
        predicted = model.unscaled(outputs)
        found |= metrics.regression(part.target, predicted, part.weight, model.task.targets, look)
        look()
        return Evaluation(len(rows), _plain(found))
    predicted = model.coding.predicted(outputs)
    found |= metrics.classification(rows.classes, predicted, model.coding.probabilities(outputs), part.weight, look)
    counts = metrics.confusion(rows.classes, predicted, model.coding.classes, part.weight)
    look()
    return Evaluation(len(rows), _plain(found), counts)


def training_metrics(totals: np.ndarray, model: Model) -> dict[str, float]:
    """The metrics of an epoch's samples as they were met, from the running sums of the kernels (`layout`).

    Those that need all outputs at once (roc_auc, log_loss, brier, top_5_accuracy) are not among them.
    """
    rows = max(totals[layout.TOTAL_ROWS], 1.0)
    weight = totals[layout.TOTAL_WEIGHT] or 1.0
    found = {"loss": totals[layout.TOTAL_LOSS] / rows}
    if not model.coding.classes:
        return _plain(found | _regression_totals(totals[layout.TOTALS_HEAD :], weight, model))
    counts = totals[layout.TOTALS_HEAD :]
    if counts.size and weight > 0:
        return _plain(found | metrics.from_confusion(counts.reshape(model.coding.classes, -1)))
    # too many classes for a confusion matrix
    found["accuracy"] = totals[layout.TOTAL_CORRECT] / weight
    return _plain(found)


def _regression_totals(sums: np.ndarray, weight: float, model: Model) -> dict[str, float]:
    """rmse, mae and r2 (their means over targets, and each target's) from the sums of each target."""
    sums = sums.reshape(-1, layout.TARGET_TOTALS)
    scale = np.abs(model.task.target_scale)
    squared = sums[:, layout.SQUARED_ERROR]
    spread = sums[:, layout.TARGET_SQUARES] - sums[:, layout.TARGET_SUM] ** 2 / weight
    each = {
        "rmse": np.sqrt(squared / weight) * scale,
        "mae": sums[:, layout.ABSOLUTE_ERROR] / weight * scale,
        # as scikit-learn: targets without spread count as 1 if met exactly, else 0
        "r2": np.where(spread > 0, 1.0 - squared / np.where(spread > 0, spread, 1.0), (squared == 0).astype(float)),
    }
    found = {name: np.mean(values) for name, values in each.items()}
    if len(model.task.targets) > 1:
        for number, target in enumerate(model.task.targets):
            found |= {f"{name}.{target}": values[number] for name, values in each.items()}
    return found


def _plain(found: dict) -> dict[str, float]:
    return {name: float(value) for name, value in found.items()}
