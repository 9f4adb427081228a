"""Turns the columns of a table into the input matrix of a network, always as the training rows taught it.

Fitted once on training rows, stored in the checkpoint, applied to every other row: categories, what stands in for
missing numbers, and the scale of each column.
"""

from dataclasses import dataclass, field

import numpy as np

from mlp_cli.data import checks, sources, state, target
from mlp_cli.data.arrays import ArrayTable
from mlp_cli.data.columns import match
from mlp_cli.data.reading import Known, Reading
from mlp_cli.data.scaling import Scaling
from mlp_cli.data.stored import StoredRows
from mlp_cli.data.target import Task
from mlp_cli.errors import DataError, OptionError
from mlp_cli.kernels.layout import ELEMENTS
from mlp_cli.wording import listed, plain, plural, quoted

DESCRIBED_COLUMNS = 40


@dataclass
class Batch:
    """Rows of another file, ready for the network.

    x (m, d) as in Split; target (m,) int32 classes or (m, k) float64 numbers, or None; weight (m,) or None; kept: raw
    cells of the columns to keep, for all rows; dropped (rows,) bool: rows of the file that `missing: drop` leaves out
    of x; rows: how many the file has; notes: what is worth telling.
    """

    x: np.ndarray | StoredRows
    target: np.ndarray | None
    weight: np.ndarray | None
    kept: dict[str, list[str]]
    dropped: np.ndarray
    rows: int
    notes: list[str] = field(default_factory=list)


@dataclass
class Preprocessing:
    """What the training rows taught about each feature column; `known` names them all in their order.

    A column in `categories` is one-hot coded; a missing cell counts as `missing_word` if there is one, or has one more
    place where `missing_category` names the column. Every other column is numeric: `fill` stands in for missing
    values, `scale` does the scaling, and `indicators` have a 0/1 column more that says where a value was missing.
    """

    reading: Reading
    known: Known
    task: Task
    categories: dict[str, tuple[str, ...]]
    missing_category: tuple[str, ...]
    indicators: tuple[str, ...]
    missing: str
    missing_word: str | None
    unseen: str
    labels: dict[str, str]
    weight: str | None
    dtype: str
    fill: np.ndarray
    scale: Scaling

    # ---- what the inputs are

    @property
    def numeric(self):
        """Names of the numeric feature columns, in order."""
        return [name for name in self.known.features if name not in self.categories]

    def inputs(self):
        """Yield (input name, feature column, category or None): one for each of the d inputs."""
        for name in self.known.features:
            if name in self.categories:
                for category in self.categories[name]:
                    yield f"{name}={category}", name, category
                if name in self.missing_category:
                    yield f"{name} is missing", name, None
            else:
                yield name, name, None
                if name in self.indicators:
                    yield f"{name} is missing", name, None

    @property
    def feature_names(self):
        """The names of the d inputs."""
        return [name for name, _, _ in self.inputs()]

    def describe(self):
        """What happens to each feature column, a line each (the first forty)."""
        place = {name: number for number, name in enumerate(self.numeric)}
        lines = []
        for name in self.known.features[:DESCRIBED_COLUMNS]:
            if name in self.categories:
                words = list(self.categories[name]) + ["(missing)"] * (name in self.missing_category)
                lines.append(f"{plain(name)}: one-hot of {len(words)}: {listed(words, 6)}")
                continue
            line = f"{plain(name)}: {self.scale.describe(place[name])}"
            if self.missing in ("mean", "median", "constant", "indicator"):
                line += f"; missing becomes {float(self.fill[place[name]]):g}"
            lines.append(line + (" and sets an indicator" if name in self.indicators else ""))
        if len(self.known.features) > DESCRIBED_COLUMNS:
            lines.append(f"... and {len(self.known.features) - DESCRIBED_COLUMNS} more columns")
        return lines

    def matches(self, other):
        """Whether another one reads the same columns as the same inputs, targets and classes."""
        mine, theirs = self.task, other.task
        of_task = (mine.kind, mine.targets, mine.classes) == (theirs.kind, theirs.targets, theirs.classes)
        return of_task and self.feature_names == other.feature_names

    # ---- applied to rows

    def transform(self, source, need_target, keep=(), name=None):
        """Read another file and turn it into a Batch.

        `source` as for `sources.read`: a path, a pair (x, y), a config's source or a binary stream, called `name` in
        messages. Columns are found by name (others are ignored), or by position in a file without names. DataError for
        whatever does not fit what training saw.
        """
        table = sources.read(source, self.reading, self.known, name)
        match(table, self.known, need_target)
        return self.batch(table, need_target, keep)

    def batch(self, table, need_target, keep=(), memory="either"):
        """The rows of a table whose columns have the names of the training table; `memory` as for `inputs_of`."""
        for name in keep:
            if name not in table.names:
                raise DataError(f"{table.source}: has no column {quoted(name)} to keep (it has {listed(table.names)})")
        kept = {name: table.cells(name) for name in keep}
        targets = self.known.targets if need_target else ()
        weight = self.weight if need_target else None
        dropped = np.zeros(table.rows, bool)
        if self.missing == "drop":
            dropped = checks.rows_with_holes(table, self.known.features, self.categories, weight)
            dropped |= target.missing_cells(table, targets, self.labels)
            if need_target and dropped.all():
                raise DataError(f"{table.source}: every row has a missing value and is dropped; nothing is left")
        self.refuse_missing(table)
        rows = np.flatnonzero(~dropped)
        notes = []
        return Batch(
            x=self.inputs_of(table, rows, notes, memory),
            target=self.targets(table, rows) if need_target else None,
            weight=checks.weights(table, weight, rows),
            kept=kept,
            dropped=dropped,
            rows=table.rows,
            notes=notes,
        )

    def targets(self, table, rows):
        """The target of these rows, as Batch.target. DataError where it is missing or not what training had."""
        target.refuse_missing(table, self.known.targets, self.labels, rows)
        return target.encode(table, self.task, self.labels, rows, self.dtype)

    def inputs_of(self, table, rows, notes, memory):
        """The inputs of these rows: (m, d) of dtype, C-contiguous, or StoredRows of the same numbers.

        memory: load, map, which is refused with an OptionError for what cannot be mapped, or either: map what can be.
        """
        if memory != "load":
            obstacle = self._obstacle(table) or table.obstacle(self.numeric)
            if obstacle is None:
                return self._mapped(table, rows)
            if memory == "map":
                raise OptionError("data.memory", f"{table.source}: {obstacle}, or set data.memory: load")
        if self._obstacle(table) is None and table.x.dtype.itemsize < np.dtype(self.dtype).itemsize:
            return self._kept_as_stored(table, rows)
        return self.matrix(table, rows, notes)

    def _obstacle(self, table):
        """Why the inputs cannot stay as they are stored, and what to do; None where they can."""
        if not isinstance(table, ArrayTable):
            return "is a table of text, which cannot be mapped; save it as .npy"
        if self.categories:
            name = quoted(next(iter(self.categories)))
            return f"column {name} is categorical, which a mapped file cannot be; exclude it"
        if table.x.dtype.name not in ELEMENTS:
            return f"holds {table.x.dtype} numbers, which cannot be mapped; save it as float32"
        if self.scale.name == "quantile":
            return "data.numeric: quantile needs the data in memory; set data.numeric to another scale"
        if self.missing not in ("error", "drop") and any(table.holes(name) is not None for name in self.numeric):
            return "has missing values, which cannot be filled in a mapped file; fill them in the file"
        return None

    def _mapped(self, table, rows):
        """StoredRows of a file, in mapped memory."""
        self._refuse_bad_numbers(table, rows)
        columns, chosen = table.locate(self.numeric), as_slice(rows)
        stored, of_all = table.x.mapped()[:, columns], None
        if isinstance(chosen, slice):
            stored = stored[chosen]
        else:
            of_all = rows.astype(np.uint32)
        return StoredRows(stored, np.dtype(self.dtype), *self._affine(), rows=of_all, file=table.x)

    def _kept_as_stored(self, table, rows):
        """StoredRows in memory."""
        self._refuse_bad_numbers(table, rows)
        stored = table.as_stored(table.locate(self.numeric), as_slice(rows))
        return StoredRows(stored, np.dtype(self.dtype), *self._affine())

    def _affine(self):
        """(shift, scale) of all inputs, (None, None) where they are taken as they are."""
        return (None, None) if self.scale.name == "none" else (self.scale.shift, self.scale.scale)

    def _refuse_bad_numbers(self, table, rows):
        """DataError for what `matrix` would refuse, without making a matrix."""
        for _ in self._scaled_blocks(table, rows):
            pass

    def matrix(self, table, rows, notes):
        """The inputs of these rows, (m, d) of dtype, C-contiguous."""
        layout = list(self.inputs())
        x = checks.matrix_of_zeros(len(rows), len(layout), self.dtype, table.source)
        first = {}
        for place, (_, name, _) in enumerate(layout):
            first.setdefault(name, place)
        for name in self.categories:
            self._one_hot(table, name, rows, x, first[name], notes)
        if self.numeric:
            self._numbers(table, rows, x, np.array([first[name] for name in self.numeric]))
        return x

    def refuse_missing(self, table):
        """DataError when a feature has a missing cell, under `missing: error`."""
        if self.missing == "error":
            checks.refuse_holes(table, self.known.features, self.categories)

    def _one_hot(self, table, name, rows, x, first, notes):
        codes, words = table.words(name)
        known = {word: place for place, word in enumerate(self.categories[name])}
        missing_place = len(known) if name in self.missing_category else known.get(self.missing_word, -1)
        places = np.array([known.get(word, -1) for word in words] + [missing_place], np.int64)[codes[rows]]
        unseen = rows[places < 0]
        if unseen.size and self.unseen == "error":
            code = codes[unseen[0]]
            what = quoted(words[code]) if code >= 0 else "a missing value"
            advice = ", or exclude this column, which looks like free text" if 2 * len(known) > len(rows) > 50 else ""
            raise DataError(
                f"{table.where(unseen[0])}: column {quoted(name)}: {what} is in no training row (known: "
                f"{listed(known, 6)}); set data.unseen: ignore to code such values as all zeros{advice}"
            )
        if unseen.size:
            notes.append(
                f"{table.source}: column {plain(name)}: {plural(unseen.size, 'value')} unseen in training became all "
                "zeros"
            )
        seen = np.flatnonzero(places >= 0)
        x[seen, first + places[seen]] = 1.0

    def _numbers(self, table, rows, x, places):
        """Fill in the numeric columns of x."""
        columns = slice(None) if len(places) == x.shape[1] else places
        names = self.numeric
        indicated = np.array([number for number, name in enumerate(names) if name in self.indicators], np.int64)
        for start, block, missing in self._scaled_blocks(table, rows):
            stop = start + len(block)
            if missing is not None:
                x[start:stop, places[indicated] + 1] = missing[:, indicated]
            x[start:stop, columns] = block

    def _scaled_blocks(self, table, rows):
        """Yield (number of the first row, block (m, k), which were missing (m, k) or None) of the numeric columns.

        A few rows at a time, so that only a little is held in float64. DataError for numbers that are none, missing
        where they may not be, or too large for dtype.
        """
        names = self.numeric
        checks.refuse_words(table, names, rows)
        located = table.locate(names)
        step = max(1, max(table.chunk, self.scale.chunk) // len(names))
        buffer = np.empty((min(step, len(rows)), len(names)))
        for start in range(0, len(rows), step):
            some = rows[start : start + step]
            block = buffer[: len(some)]
            table.gather(located, as_slice(some), block)
            checks.refuse_overflow(table, names, some, block, self.dtype)
            missing = np.isnan(block)
            if missing.any():
                checks.refuse_word_as_number(table, names, some, missing, self.missing_word)
                np.copyto(block, self.fill, where=missing)
            else:
                missing = None
            with np.errstate(over="ignore"):
                self.scale.apply(block)
            checks.refuse_overflow(table, names, some, block, self.dtype, "once scaled, ")
            yield start, block, missing

    # ---- stored and restored

    def state(self):
        """(what JSON can hold, float64 arrays): all that `from_state` needs for the same bits."""
        facts = {
            "reading": self.reading.state(),
            "columns": list(self.known.columns),
            "features": list(self.known.features),
            "targets": list(self.known.targets),
            "named": self.known.named,
            "task": self.task.kind,
            "classes": None if self.task.classes is None else list(self.task.classes),
            "numeric_classes": self.task.numeric_classes,
            "reason": self.task.reason,
            "categories": {name: list(words) for name, words in self.categories.items()},
            "missing_category": list(self.missing_category),
            "indicators": list(self.indicators),
            "missing": self.missing,
            "missing_word": self.missing_word,
            "unseen": self.unseen,
            "labels": dict(self.labels),
            "weight": self.weight,
            "dtype": self.dtype,
            "scaling": self.scale.name,
        }
        arrays = {"fill": self.fill, "shift": self.scale.shift, "scale": self.scale.scale}
        if self.scale.quantiles is not None:
            arrays["quantiles"] = self.scale.quantiles
        if self.task.kind == "regression":
            arrays["target_shift"], arrays["target_scale"] = self.task.target_shift, self.task.target_scale
        return facts, arrays

    @classmethod
    def from_state(cls, facts, arrays):
        """The Preprocessing whose state this is. ValueError where it cannot be one."""
        state.check(facts, arrays)
        empty = np.zeros(0)
        task = Task(
            kind=facts["task"],
            classes=None if facts["classes"] is None else tuple(facts["classes"]),
            targets=tuple(facts["targets"]),
            reason=facts["reason"],
            target_shift=arrays.get("target_shift", empty),
            target_scale=arrays.get("target_scale", empty),
            numeric_classes=facts["numeric_classes"],
        )
        return cls(
            reading=Reading.from_state(facts["reading"]),
            known=Known(tuple(facts["columns"]), tuple(facts["features"]), tuple(facts["targets"]), facts["named"]),
            task=task,
            categories={name: tuple(words) for name, words in facts["categories"].items()},
            missing_category=tuple(facts["missing_category"]),
            indicators=tuple(facts["indicators"]),
            missing=facts["missing"],
            missing_word=facts["missing_word"],
            unseen=facts["unseen"],
            labels=dict(facts["labels"]),
            weight=facts["weight"],
            dtype=facts["dtype"],
            fill=arrays["fill"],
            scale=Scaling(facts["scaling"], arrays["shift"], arrays["scale"], arrays.get("quantiles")),
        )


def as_slice(rows):
    """Ascending rows as a slice where none is left out between them, for then nothing need be copied."""
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows):
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows
