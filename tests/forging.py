"""Checkpoints that say what no run has left, under a true digest."""

import copy
import json
import math

import numpy as np

from mlp_cli.runs import checkpoint

MISSING, EXTRA = object(), object()
# What a value of the description is replaced by: another type, nothing, a number that cannot be.
VALUES = (
    None, True, False, "", "7", "x", -1, 0, 1, 2, 7, 2.5, -0.5, 1e-300, 1e308, math.nan, math.inf, -math.inf, 100_000,
    2**53, 2**63, 10**30, [], [0], ["a", "a"], {}, {"x": 1}, [[]], MISSING, EXTRA,
)  # fmt: skip
# What an array becomes; a whole one of them, or its first element.
CHANGES = {
    "missing": lambda array: None,
    "nan": lambda array: _with_first(array, np.nan),
    "infinite": lambda array: _with_first(array, np.inf),
    "negative": lambda array: _with_first(array, -1.0),
    "huge": lambda array: _with_first(array, 1e30),
    "shorter": lambda array: array[:-1],
    "empty": lambda array: array[:0],
    "deeper": lambda array: array[None],
    "half": lambda array: array.astype(np.float16),
    "whole numbers": lambda array: array.astype(np.int32),
    "booleans": lambda array: array.astype(bool),
    "other float": lambda array: array.astype(np.float64 if array.dtype == np.float32 else np.float32),
}


def write(path, tensors, meta, monkeypatch):
    """A checkpoint of whatever JSON can spell, numbers that are not finite included."""
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_canonical", lambda meta: json.dumps(meta, sort_keys=True, separators=(",", ":")))
        checkpoint.write(path, tensors, meta)


def descriptions(meta, within=()):
    """(name, changed copy) for each place in the description and each value."""
    for place in places(meta):
        if place[: len(within)] != within:
            continue
        for value in VALUES:
            changed = put(meta, place, value)
            if changed is not None and changed != meta:
                yield f"{'.'.join(map(str, place))}={_spelled(value)}", changed


def arrays(tensors):
    """(name, changed copy) for each array and each change, and one with an array too many."""
    for name in sorted(tensors):
        for change, make in CHANGES.items():
            with np.errstate(all="ignore"):
                array = make(tensors[name])
            others = {other: kept for other, kept in tensors.items() if other != name}
            if array is None:
                yield f"{name}: {change}", others
            elif array.shape != tensors[name].shape or array.tobytes() != tensors[name].tobytes():
                yield f"{name}: {change}", others | {name: array}
    yield "extra", tensors | {"layers.99.weight": np.zeros(1, np.float32)}


def places(value, before=()):
    """The path of everything within a value."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield (*before, key)
        if isinstance(value[key], dict | list):
            yield from places(value[key], (*before, key))


def put(meta, place, value):
    """A copy with `value` at a place; None where that cannot be."""
    changed = copy.deepcopy(meta)
    holder = changed
    for key in place[:-1]:
        holder = holder[key]
    if value is MISSING:
        del holder[place[-1]]
    elif value is not EXTRA:
        holder[place[-1]] = value
    elif isinstance(holder, dict):
        holder["extra"] = 1
    else:
        return None
    return changed


def _with_first(array, value):
    changed = array.copy()
    changed.reshape(-1)[:1] = value
    return changed


def _spelled(value):
    return {id(MISSING): "missing", id(EXTRA): "extra"}.get(id(value), repr(value))
