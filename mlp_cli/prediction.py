"""Predictions for raw rows: one record for each input row, blank where the row was dropped."""

from collections.abc import Iterator

import numpy as np

from mlp_cli.data import Batch
from mlp_cli.model import Model
from mlp_cli.network.machine import Machine

BLOCK_ROWS = 4096


def predict(machine: Machine, model: Model, batch: Batch, look=None) -> tuple[list[str], Iterator[list[str]]]:
    """(header, lines): kept columns, then `prediction` and `probability_<class>`, or `prediction_<target>` for several.

    Numbers are written with as many digits as it takes to read the same number again.
    """
    outputs, _ = machine.evaluate(model.rows(batch), look)
    if model.coding.classes:
        names = ["prediction", *(f"probability_{name}" for name in model.task.classes)]
    else:
        targets = model.task.targets
        names = ["prediction"] if len(targets) == 1 else [f"prediction_{name}" for name in targets]
    return [*batch.kept, *names], _lines(model, batch, outputs, len(names))


def _cells(model: Model, outputs: np.ndarray) -> list[list[str]]:
    """The cells of predicted rows, from their outputs (n, units)."""
    if not model.coding.classes:
        values = outputs if model.is_unscaled else model.unscaled(outputs)
        return [[str(value) for value in row] for row in values]
    labels = [model.task.classes[number] for number in model.coding.predicted(outputs)]
    # in the network's own precision: more digits would be noise
    probabilities = model.coding.probabilities(outputs).astype(model.network.dtype)
    return [[label, *map(str, row)] for label, row in zip(labels, probabilities, strict=True)]


def _lines(model: Model, batch: Batch, outputs: np.ndarray, width: int) -> Iterator[list[str]]:
    """A line for every input row, written in blocks so that millions of rows need no memory for their text."""
    kept = list(batch.kept.values())
    place = 0
    for start in range(0, batch.rows, BLOCK_ROWS):
        dropped = batch.dropped[start : start + BLOCK_ROWS]
        here = int(np.sum(~dropped))
        cells = iter(_cells(model, outputs[place : place + here]))
        place += here
        for row, is_dropped in enumerate(dropped, start):
            yield [column[row] for column in kept] + ([""] * width if is_dropped else next(cells))
