"""What a checkpoint says of its run, checked before anything is made of it: a digest proves no good will.

Whoever reads a checkpoint, to look at it, to predict or to go on, checks all that follows from the file alone here.
What only the training rows can tell is checked when a run goes on (`starting.resume`).
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from mlp_cli import progress
from mlp_cli.errors import CheckpointError, ConfigError, DataError
from mlp_cli.kernels import layout
from mlp_cli.network.coding import Coding, class_weights
from mlp_cli.network.network import MOMENTS, Network, find
from mlp_cli.optimizers import SQUARES
from mlp_cli.progress import Progress
from mlp_cli.wording import cut, quoted

PREPROCESSING = "preprocessing."
OPTIMIZER = "optimizer."
BEST = "best."
TOTALS = "training.totals"
FACTS = ("class_weights", "classes", "config", "fingerprint", "position", "preprocessing")


@contextmanager
def refused(source: str) -> Iterator[None]:
    """Whatever a description that does not hold together leads to is a CheckpointError naming `source`."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, ConfigError, DataError) as error:
        # whoever wrote it is known by the digest, but not which version of mlp that was
        what = cut("; ".join(str(error).splitlines()), 500)
        raise CheckpointError(
            f"{source}: its description does not hold together ({what}); was it written by another version of mlp?"
        ) from None


def check_names(meta: dict) -> None:
    """ValueError unless these are the facts that every checkpoint has."""
    for name in FACTS:
        if name not in meta:
            raise ValueError(f"{name} is missing")
    if unknown := sorted(meta.keys() - set(FACTS)):
        raise ValueError(f"{quoted(unknown[0])} is unknown")


def check_facts(meta: dict, config, task) -> Progress:
    """The position. ValueError, in one sentence, where it, the classes or the fingerprint cannot be this model's."""
    if meta["classes"] != (None if task.classes is None else list(task.classes)):
        raise ValueError("classes are not those of the preprocessing")
    if not isinstance(meta["fingerprint"], str) or not re.fullmatch("[0-9a-f]{64}", meta["fingerprint"]):
        raise ValueError("fingerprint is no sha256 digest")
    return progress.read(meta["position"], config)


def read_class_weights(stated: object, config, task, coding: Coding) -> np.ndarray | None:
    """The weights of the classes. ValueError where they are not one for each class, or not what the config asks for."""
    asked = config.loss.class_weights
    if stated is None or asked is None or not coding.classes:
        if stated is not None or (asked is not None and coding.classes):
            raise ValueError("class_weights do not fit loss.class_weights")
        return None
    is_list = isinstance(stated, list) and len(stated) == coding.classes
    if not is_list or not all(type(weight) in (int, float) and 0 <= weight < np.inf for weight in stated):
        raise ValueError("class_weights are not one for each class")
    found = np.array(stated, np.float64)
    # balanced ones come from the training rows
    if asked != "balanced" and not np.array_equal(found, class_weights(config, task, np.zeros(0, np.int32))):
        raise ValueError("class_weights do not fit loss.class_weights")
    return found


def check_tensors(tensors: dict[str, np.ndarray], network: Network, at: Progress, source: str) -> None:
    """CheckpointError naming `source`, or ValueError, where these are not the arrays of such a network at such a
    position. The network needs no memory for it."""
    weights = {parameter.name: parameter.shape for parameter in network.program.parameters}
    states = {state.name: (state.units,) for state in network.program.states}
    moments = {
        f"{OPTIMIZER}{moment}.{name}": shape
        for moment in MOMENTS[: network.moment_count]
        for name, shape in weights.items()
    }
    best = {f"{BEST}{name}": shape for name, shape in (weights | states).items()}
    if at.best_epoch is None or not any(name.startswith(BEST) for name in tensors):
        best = {}
    floats = weights | states | moments | best
    for name, shape in floats.items():
        _check_type(find(tensors, name, shape, source), network.dtype, name)
    totals = find(tensors, TOTALS, (network.coding.totals_size,), source)
    _check_type(totals, np.dtype(np.float64), TOTALS)
    known = floats.keys() | {TOTALS}
    if unknown := [name for name in tensors if name not in known and not name.startswith(PREPROCESSING)]:
        raise ValueError(f"the tensor {quoted(unknown[0])} is unknown")
    for name in floats:
        if name in moments:
            _check_moment(tensors[name], name, network.config.optimizer.name)
        elif not np.isfinite(tensors[name]).all():
            raise ValueError(f"{name} is not finite")
        elif name.endswith("running_var") and (tensors[name] < 0).any():
            raise ValueError(f"{name} has a negative variance")
    _check_totals(totals, at, network.coding)


def _check_type(found: np.ndarray, dtype: np.dtype, name: str) -> None:
    if found.dtype != dtype:
        raise ValueError(f"{name} holds {found.dtype}, expected {dtype}")


def _check_moment(found: np.ndarray, name: str, optimizer: str) -> None:
    """Squares may have overflowed to infinity in a run whose weights are finite; NaN would have spread to them."""
    if np.isnan(found).any():
        raise ValueError(f"{name} is not a number")
    moment = name.removeprefix(OPTIMIZER).partition(".")[0]
    if moment in SQUARES.get(optimizer, ()) and (found < 0).any():
        raise ValueError(f"{name} is negative, which {optimizer} cannot have left")


def _check_totals(totals: np.ndarray, at: Progress, coding: Coding) -> None:
    """The sums of an epoch that has not begun are 0, those of one that has are of a row at least."""
    if np.isnan(totals).any() or not np.isfinite(totals[: layout.TOTALS_HEAD]).all():
        raise ValueError(f"{TOTALS} are not finite")
    rows, weight = totals[layout.TOTAL_ROWS], totals[layout.TOTAL_WEIGHT]
    if at.epoch_step == 0 and totals.any():
        raise ValueError(f"{TOTALS} are those of an epoch that has not begun")
    if rows < at.epoch_step or rows != np.floor(rows) or weight < 0:
        raise ValueError(f"{TOTALS} are not those of {at.epoch_step} steps")
    body = totals[layout.TOTALS_HEAD :]
    sums = body if coding.classes else np.delete(body.reshape(-1, layout.TARGET_TOTALS), layout.TARGET_SUM, axis=1)
    correct = totals[layout.TOTAL_CORRECT]
    if (sums < 0).any() or not 0 <= correct <= weight:
        raise ValueError(f"{TOTALS} hold a negative sum")
