"""Data: files become columns, columns a matrix, the matrix training, validation and test rows.

`load` is the recipe; `Preprocessing.transform` does the same with other files for a network that is trained already.
"""

import hashlib
import os
from dataclasses import dataclass, field

import numpy as np

from mlp_cli.data import checks, columns, fitting, sources, target
from mlp_cli.data.preprocess import Batch, Preprocessing
from mlp_cli.data.reading import Reading
from mlp_cli.data.split import split
from mlp_cli.data.stored import StoredRows
from mlp_cli.data.target import Task
from mlp_cli.errors import DataError
from mlp_cli.wording import listed, plural

# pyarrow's allocator sets a gigabyte of addresses aside at once, in KiB; under `ulimit -v` it is nobody else's then
os.environ.setdefault("MIMALLOC_ARENA_RESERVE", "65536")

__all__ = ["Batch", "Dataset", "Preprocessing", "Reading", "Split", "StoredRows", "Task", "load", "split"]

PARTS = ("train", "validation", "test")


@dataclass
class Split:
    """Rows to train on or to judge by.

    x (n, d), C-contiguous, or StoredRows that become it; target int32 (n,) class numbers, or float64 (n, k) in the
    user's units; weight float64 (n,) or None; rows int64 (n,), where they stand in their file, from 0, or a range.
    """

    x: np.ndarray | StoredRows
    target: np.ndarray
    weight: np.ndarray | None
    rows: np.ndarray | range

    @property
    def is_mapped(self):
        """Whether the inputs stay in their file."""
        return isinstance(self.x, StoredRows) and self.x.file is not None


@dataclass
class Dataset:
    """What a run learns from; validation and test are None where there is no such part."""

    train: Split
    validation: Split | None
    test: Split | None
    preprocessing: Preprocessing
    task: Task
    fingerprint: str
    notes: list[str] = field(default_factory=list)


def load(options, seed, dtype, numbers_are_classes, memory=None):
    """Read the files of `cfg.data` and make a Dataset of them.

    `numbers_are_classes`: whether output or loss take a numeric target for class numbers. `memory`: load, map, or
    either, which maps what can be mapped; default data.memory. The same options, seed and file contents give the same
    bits, in memory or mapped. DataError, in one sentence, for whatever is wrong with the data.
    """
    # read
    memory = memory or options.memory
    reading = Reading.of(options)
    table = sources.read(_training_source(options), reading, must_map=memory == "map", again=True)
    roles = columns.choose(table, options)
    others = _read_others(options, reading, table, roles, memory == "map")

    # decide on the task, drop rows with holes, split
    rows, notes = _usable_rows(table, roles, options)
    target.refuse_missing(table, roles.targets, options.labels or {}, rows)
    task = target.decide(table, roles.targets, options, numbers_are_classes, rows)
    values = target.encode(table, task, options.labels or {}, rows, dtype)
    parts = _cut(rows, values, task, options, others, seed)

    # fit on the training rows
    task = _fitted(task, options, _of(values, rows, parts["train"]), table)
    preprocessing, more = fitting.fit(table, parts["train"], roles, options, reading, task, dtype)
    preprocessing.refuse_missing(table)
    notes += more

    # apply to all
    splits = dict.fromkeys(PARTS)
    for part, some in parts.items():
        splits[part] = Split(
            x=preprocessing.inputs_of(table, some, notes, memory),
            target=_of(values, rows, some),
            weight=checks.weights(table, roles.weight, some),
            rows=range(table.rows) if len(some) == table.rows else some,  # a range takes no memory
        )
    for part, other in others.items():
        batch = preprocessing.batch(other, need_target=True, memory=memory)
        splits[part] = Split(batch.x, batch.target, batch.weight, np.flatnonzero(~batch.dropped))
        notes += batch.notes
    notes += _notes_on_targets(task, splits)
    fingerprint = _fingerprint({"train": table, **others})
    return Dataset(*(splits[part] for part in PARTS), preprocessing, task, fingerprint, notes)


def _training_source(options):
    source = options.path if options.path is not None else options.train
    if source is None:
        raise DataError("data: names no file; expected data.path or data.train")
    return source


def _read_others(options, reading, table, roles, must_map):
    """The tables of data.validation and data.test, their columns matched to the training table."""
    known = columns.known(table, roles)
    others = {}
    for part in ("validation", "test"):
        source = getattr(options, part)
        if source is not None:
            others[part] = sources.read(source, reading, known, must_map=must_map, again=True)
            columns.match(others[part], known, need_target=True)
    return others


def _usable_rows(table, roles, options):
    """(rows of the training table that take part, notes): all, but for `missing: drop`."""
    if options.missing.name != "drop":
        return np.arange(table.rows), []
    categorical = [name for name, kind in (options.columns or {}).items() if kind == "categorical"]
    holes = checks.rows_with_holes(table, roles.features, categorical, roles.weight)
    holes |= target.missing_cells(table, roles.targets, options.labels or {})
    if holes.all():
        raise DataError(f"{table.source}: every row has a missing value and is dropped; nothing is left")
    dropped = int(holes.sum())
    notes = [f"{table.source}: {plural(dropped, 'row')} of {table.rows} dropped for missing values"] if dropped else []
    return np.flatnonzero(~holes), notes


def _cut(rows, values, task, options, others, seed):
    """Cut validation and test rows out of the training rows, where asked for and not given as files."""
    wanted = {part: getattr(options.split, part, None) for part in ("validation", "test") if part not in others}
    stratify = task.kind == "classification" and getattr(options.split, "stratify", True)
    if not any(wanted.values()):
        return {"train": rows}
    cut = split(len(rows), wanted, values if stratify else None, seed)
    return {part: rows[places] for part, places in cut.items()}


def _of(values, rows, some):
    """The values of some of the rows, both ascending; those of all rows without a copy, which may be large."""
    return values if some is rows else values[np.searchsorted(rows, some)]


def _fitted(task, options, chosen, table):
    """The task with target scaling fitted; DataError for a class without a training row."""
    if task.kind == "classification":
        missing = np.flatnonzero(np.bincount(chosen, minlength=len(task.classes)) == 0)
        if missing.size:
            names = listed(task.classes[place] for place in missing)
            raise DataError(
                f"{table.source}: the split leaves no training row of class {names}; set data.split.stratify: true"
            )
    return target.scaled(task, options.target_scaling, chosen)


def _notes_on_targets(task, splits):
    notes = []
    for part, some in splits.items():
        if some is None:
            continue
        if task.kind == "classification":
            missing = np.flatnonzero(np.bincount(some.target, minlength=len(task.classes)) == 0)
            if missing.size:
                notes.append(f"{part}: no row of class {listed(task.classes[place] for place in missing)}")
        else:
            constant = [name for name, column in zip(task.targets, some.target.T, strict=True) if np.ptp(column) == 0]
            if constant:
                notes.append(f"{part}: the target {listed(constant)} is the same in every row")
    return notes


def _fingerprint(tables):
    """sha256 over names and values of all tables, wherever they lie, as hexadecimal digits."""
    digest = hashlib.sha256()
    for part, table in tables.items():
        digest.update(part.encode())
        table.digest_into(digest)
    return digest.hexdigest()
