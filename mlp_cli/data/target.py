"""What is to be learned: classes or numbers, how that was decided, and the target column turned into either."""

from dataclasses import dataclass, field

import numpy as np

from mlp_cli.data import checks
from mlp_cli.data.cells import in_order, number_name
from mlp_cli.data.reading import FLOAT32_MAX, FLOAT64_MAX
from mlp_cli.errors import DataError, OptionError
from mlp_cli.wording import listed, plural, quoted

MAX_FRACTIONAL_CLASSES = 50
MAX_CLASSES = 1000
MIN_ROWS_PER_CLASS = 10  # of more than MAX_CLASSES classes
BLOCK_ROWS = 1 << 18  # to look at together: a few megabytes, however many rows there are


@dataclass(frozen=True)
class Task:
    """Classification into `classes`, or regression of `targets` (in their units: network output * scale + shift)."""

    kind: str
    classes: tuple[str, ...] | None
    targets: tuple[str, ...]
    reason: str
    target_shift: np.ndarray = field(default_factory=lambda: np.zeros(0))
    target_scale: np.ndarray = field(default_factory=lambda: np.zeros(0))
    numeric_classes: bool = False


@dataclass(frozen=True)
class _Column:
    """A target column with its labels renamed: numbers, or codes of words, and which cells are missing."""

    missing: np.ndarray
    numbers: np.ndarray | None = None
    codes: np.ndarray | None = None
    words: tuple[str, ...] = ()


def _read(table, name, labels, as_words=False):
    """Read a target column; it holds numbers iff every cell, once renamed, is a number or missing."""
    if not labels and not as_words and not table.holds_words(name):
        values = table.numbers(name).values
        return _Column(np.isnan(values), numbers=values)
    codes, words = table.words(name)
    codes, words = in_order(codes, [labels.get(word, word) for word in words])
    missing = codes < 0
    numbers = [table.as_number(word) for word in words]
    if not as_words and words and None not in numbers:
        values = np.array([*numbers, np.nan])[codes]
        return _Column(missing | np.isnan(values), numbers=values)
    return _Column(missing, codes=codes, words=tuple(words))


def missing_cells(table, names, labels):
    """Rows in which some target is missing, bool (n,)."""
    missing = np.zeros(table.rows, bool)
    for name in names:
        missing |= _read(table, name, labels).missing
    return missing


def refuse_missing(table, names, labels, rows):
    """DataError when one of these rows has no target."""
    for name in names:
        missing = _read(table, name, labels).missing
        empty = rows[missing[rows]] if missing.any() else rows[:0]
        if empty.size:
            raise DataError(
                f"{table.where(empty[0])}: the target {quoted(name)} is missing (in {plural(empty.size, 'row')} in "
                "all); fill it in, or set data.missing: drop"
            )


def decide(table, targets, options, numbers_are_classes, rows):
    """Decide on a Task from the target columns in these rows; its target scaling is fitted later.

    Strings and booleans are classes; numbers are classes if `numbers_are_classes` (softmax, cross_entropy and the
    like); data.task overrules for a single numeric column. Several columns are regression of numbers. DataError for
    contradictions and for a single class.
    """
    said = options.task
    labels, overrides = options.labels or {}, options.columns or {}
    if len(targets) > 1:
        if said == "classification":
            raise DataError(
                f"data.task: classification needs one target column, data.target names {len(targets)} "
                f"({listed(targets)}); name one"
            )
        for name in targets:
            _refuse_words(table, name, _read(table, name, labels), rows, "there are several targets")
        return Task("regression", None, tuple(targets), f"{len(targets)} target columns: regression")
    name = targets[0]
    column = _read(table, name, labels, overrides.get(name) == "categorical")
    if column.numbers is None:
        if overrides.get(name) == "numeric":
            _refuse_words(table, name, column, rows, "data.columns says numeric")
        if said == "regression":
            _refuse_words(table, name, column, rows, "data.task is regression")
        if name not in overrides:
            checks.refuse_decimal_commas(table, name)
        reason = f"the target {quoted(name)} holds words: classification"
        return _classification(table, name, _words_in(column, rows), len(rows), reason, False)
    if said == "regression" or (said is None and not numbers_are_classes):
        why = "data.task says so" if said else f"the target {quoted(name)} holds numbers"
        return Task("regression", None, (name,), f"{why}: regression")
    why = (
        "data.task says so"
        if said
        else f"the target {quoted(name)} holds numbers, which output or loss take as classes"
    )
    values = _different(column.numbers, rows)
    _refuse_infinite(table, name, column.numbers, rows, FLOAT64_MAX)
    if len(values) > MAX_FRACTIONAL_CLASSES and (values != np.floor(values)).any():
        raise DataError(
            f"{table.source}: the target {quoted(name)} holds {len(values)} different numbers with fractions "
            f"({number_name(values[0])} to {number_name(values[-1])}), which are hardly classes; set data.task: "
            "regression with a linear output and loss: mse, or name another data.target"
        )
    names = [number_name(value) for value in values]
    return _classification(table, name, names, len(rows), f"{why}: classification", True)


def _words_in(column, rows):
    present = np.unique(column.codes[rows])
    return [column.words[code] for code in present if code >= 0]


def _classification(table, name, classes, rows, reason, numeric):
    if len(classes) == 1:
        raise DataError(
            f"{table.source}: the target {quoted(name)} is {quoted(classes[0])} in every row; expected two classes "
            "or more"
        )
    if len(classes) > MAX_CLASSES and rows < MIN_ROWS_PER_CLASS * len(classes):
        raise DataError(
            f"{table.source}: the target {quoted(name)} has {len(classes)} different values in {rows} rows, which are "
            "hardly classes; name another column in data.target, or set data.task: regression for numbers"
        )
    return Task(
        "classification", tuple(classes), (name,), f"{reason} into {len(classes)} classes", numeric_classes=numeric
    )


def _refuse_words(table, name, column, rows, why):
    if column.numbers is None:
        words = [word for word in _words_in(column, rows) if table.as_number(word) is None] or _words_in(column, rows)
        word = words[0] if words else ""
        present = rows[column.codes[rows] == column.words.index(word)] if words else rows
        raise DataError(
            f"{table.where(present[0])}: column {quoted(name)}: expected a number, as {why}; found {quoted(word)}"
        )


def _refuse_infinite(table, name, values, rows, limit):
    too_large = [
        some[np.abs(values[some]) > limit]
        for some in (rows[start : start + BLOCK_ROWS] for start in range(0, len(rows), BLOCK_ROWS))
    ]
    too_large = np.concatenate(too_large) if too_large else rows
    if too_large.size:
        raise DataError(
            f"{table.where(too_large[0])}: column {quoted(name)}: expected a finite number of at most {limit:.3g}; "
            f"found {table.cell(name, too_large[0])}"
        )


def encode(table, task, labels, rows, dtype):
    """The targets of these rows: class numbers int32 (m,), or numbers float64 (m, k) in their own units.

    DataError for a label that training did not have, a word where a number is expected, or a number beyond dtype.
    """
    if task.kind == "regression":
        return np.stack([_numbers(table, name, labels, rows, dtype) for name in task.targets], axis=1)
    name = task.targets[0]
    column = _read(table, name, labels, as_words=not task.numeric_classes)
    number = {word: code for code, word in enumerate(task.classes)}
    if column.numbers is None:
        spelled = [_as_class(word, table, task) for word in column.words]
        codes = np.array([number.get(word, -1) for word in spelled] + [-1])[column.codes[rows]]
    else:
        values = _different(column.numbers, rows)
        names = [number_name(value) if abs(value) <= FLOAT64_MAX else str(value) for value in values]
        class_of = np.array([number.get(word, -1) for word in names], np.int32)
        codes = np.empty(len(rows), np.int32)
        for start in range(0, len(rows), BLOCK_ROWS):
            some = slice(start, start + BLOCK_ROWS)
            codes[some] = class_of[np.searchsorted(values, column.numbers[rows[some]])]
    unseen = rows[codes < 0]
    if unseen.size:
        raise DataError(
            f"{table.where(unseen[0])}: the label {quoted(table.cell(name, unseen[0]))} in column {quoted(name)} "
            f"is none of the classes of training ({listed(task.classes)}); data.labels can rename it"
        )
    return codes.astype(np.int32, copy=False)


def _different(numbers, rows):
    """The different numbers in these rows, ascending; no zero is negative."""
    found = [np.unique(numbers[rows[start : start + BLOCK_ROWS]] + 0.0) for start in range(0, len(rows), BLOCK_ROWS)]
    return np.unique(np.concatenate(found)) if found else np.empty(0)


def _as_class(word, table, task):
    value = table.as_number(word) if task.numeric_classes else None
    return word if value is None or not abs(value) <= FLOAT64_MAX else number_name(value)


def _numbers(table, name, labels, rows, dtype):
    column = _read(table, name, labels)
    _refuse_words(table, name, column, rows, "the task is regression")
    _refuse_infinite(table, name, column.numbers, rows, FLOAT32_MAX if dtype == "float32" else FLOAT64_MAX)
    return column.numbers[rows]


def scaled(task, method, target):
    """The task with its target scaling fitted to target (n, k): none, standard or minmax."""
    if task.kind == "classification":
        if method != "none":
            raise OptionError(
                "data.target_scaling",
                f"{method} has no meaning for classes, and the target {quoted(task.targets[0])} has such; leave it out",
            )
        return task
    shift, scale = np.zeros(len(task.targets)), np.ones(len(task.targets))
    for place in range(len(task.targets)):
        # contiguous, so that the means are NumPy's pairwise sums, whose order follows from the number of rows
        column = np.ascontiguousarray(target[:, place])
        if method == "standard":
            shift[place] = np.mean(column)
            deviation = column - shift[place]
            scale[place] = np.sqrt(np.mean(deviation * deviation))
        elif method == "minmax":
            shift[place] = np.min(column)
            scale[place] = np.max(column) - shift[place]
        if column.min() == column.max():
            shift[place], scale[place] = (column[0], 1.0) if method != "none" else (0.0, 1.0)
    return Task(task.kind, None, task.targets, task.reason, shift, np.where(scale == 0.0, 1.0, scale))
