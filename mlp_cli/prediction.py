"""Predictions for raw rows: one record for each input row, blank where the row was dropped."""

from collections.abc import Iterator

import numpy as np

from mlp_cli.data import Batch
from mlp_cli.model import Model
from mlp_cli.network.machine import Machine


def predict(machine: Machine, model: Model, batch: Batch, look=None) -> tuple[list[str], Iterator[list[str]]]:
    """(header, lines): kept columns, then `prediction` and `probability_<class>`, or `prediction_<target>` for several.

    Numbers are written with as many digits as it takes to read the same number again.
    """
    outputs, _ = machine.evaluate(model.rows(batch), look)
    if model.coding.classes:
        names = ["prediction", *(f"probability_{name}" for name in model.task.classes)]
        columns = _class_columns(model, outputs)
    else:
        targets = model.task.targets
        names = ["prediction"] if len(targets) == 1 else [f"prediction_{name}" for name in targets]
        columns = [_numbers(column, np.float64) for column in model.unscaled(outputs).T]
    return [*batch.kept, *names], _lines(batch, columns, len(names))


def _class_columns(model: Model, outputs: np.ndarray) -> list[list[str]]:
    predicted = model.coding.predicted(outputs)
    labels = [model.task.classes[number] for number in predicted]
    dtype = model.network.dtype
    return [labels, *(_numbers(column, dtype) for column in model.coding.probabilities(outputs).T)]


def _numbers(column: np.ndarray, dtype) -> list[str]:
    """The shortest decimals that read back as the same numbers of this type."""
    return [str(value) for value in column.astype(dtype)]


def _lines(batch: Batch, columns: list[list[str]], width: int) -> Iterator[list[str]]:
    kept = list(batch.kept.values())
    place = 0
    for row in range(batch.rows):
        before = [cells[row] for cells in kept]
        if batch.dropped[row]:
            yield before + [""] * width
        else:
            yield before + [column[place] for column in columns]
            place += 1
