"""Puts numeric columns on a common scale: (x - shift) / scale, or for quantile the rank among the training values.

Statistics are float64 and use only + - * / sqrt, sums and sorting, so they have the same bits on every processor.
The order of a sum follows from the number of rows alone (`Columns.sum`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mlp_cli.errors import DataError
from mlp_cli.wording import quoted

QUANTILES = 1000


@dataclass
class Scaling:
    """One shift and scale, or one row of ascending quantiles, for each of k numeric columns.

    A column that is constant in training has an infinite scale: it says nothing, and becomes 0 whatever comes later.
    """

    name: str
    shift: np.ndarray  # (k,)
    scale: np.ndarray  # (k,)
    quantiles: np.ndarray | None = None  # (k, q), only for quantile

    def apply(self, block):
        """Scale block (m, k), float64, in place."""
        if self.name == "none":
            return
        if self.name == "quantile":
            for place, quantiles in enumerate(self.quantiles):
                block[:, place] = rank(block[:, place], quantiles)
            block[:, np.isinf(self.scale)] = 0.0
            return
        np.subtract(block, self.shift, out=block)
        np.divide(block, self.scale, out=block)

    @property
    def chunk(self):
        """How many numbers to scale at a time at least: for quantile each column of a chunk costs several calls."""
        return 1 << 21 if self.name == "quantile" else 1

    @property
    def constant(self):
        """Which columns become 0 as they were constant in training, bool (k,)."""
        return np.isinf(self.scale)

    def describe(self, place):
        """What happens to column number `place`, in a few words."""
        if self.constant[place]:
            return "constant in training, becomes 0"
        if self.name == "none":
            return "as it is"
        if self.name == "quantile":
            return f"rank among {len(self.quantiles[place])} quantiles, 0 to 1"
        shift, scale = float(self.shift[place]), float(self.scale[place])
        if self.name == "divide":
            return f"x / {scale:g}"
        return (
            f"{self.name}, (x - {shift:g}) / {scale:g}" if shift >= 0 else f"{self.name}, (x + {-shift:g}) / {scale:g}"
        )


@dataclass(frozen=True)
class Columns:
    """Some columns of n numbers, float64 without NaN; `read(a, b)` gives rows a … b - 1 of them as an array (k, b - a).

    `step` is how many rows to read at a time, 128 or more. robust and quantile need all rows at once, and reorder them.
    """

    count: int
    rows: int
    step: int
    read: Callable[[int, int], np.ndarray]

    @classmethod
    def of(cls, block):
        """Columns that are in memory already, as rows (k, n)."""
        return cls(*block.shape, max(128, block.shape[1]), lambda start, stop: block[:, start:stop])

    def all(self):
        """All numbers, (k, n)."""
        return self.read(0, self.rows)

    def sum(self, of=lambda block: block, start=0, stop=None):
        """The sum of each column of of(block), (k,).

        It is made of halves, and halves of halves, cut where NumPy's own pairwise sum of a whole column is cut. So the
        bits do not depend on how many rows are read at a time, and are those of np.sum.
        """
        stop = self.rows if stop is None else stop
        if stop - start <= self.step:
            return np.add.reduce(of(self.read(start, stop)), axis=1)
        half = (stop - start) // 2
        half -= half % 8
        return self.sum(of, start, start + half) + self.sum(of, start + half, stop)

    def survey(self):
        """(sum, smallest, largest) of each column, each (k,); no zero among them is negative."""
        low, high = np.full(self.count, np.inf), np.full(self.count, -np.inf)

        def look(block):
            np.minimum(low, block.min(axis=1), out=low)
            np.maximum(high, block.max(axis=1), out=high)
            return block

        return self.sum(look), low + 0.0, high + 0.0


def fit(name, by, groups, names):
    """Fit a Scaling of that name to groups of columns, each a Columns or an array (k, n) of columns as rows.

    standard: mean and population standard deviation; minmax: to [0, 1]; robust: median and interquartile range, or 1
    where that is 0; quantile: up to 1000 quantiles; divide: by the number `by`. As scikit-learn's StandardScaler,
    MinMaxScaler, RobustScaler and QuantileTransformer do, constant columns apart. DataError for numbers so large that
    their statistics overflow.
    """
    fitters = {"standard": _standard, "minmax": _minmax, "robust": _robust, "quantile": _quantile}
    shifts, scales, quantiles = [np.empty(0)], [np.empty(0)], []
    for group in groups:
        columns = group if isinstance(group, Columns) else Columns.of(group)
        if name in fitters:
            with np.errstate(over="ignore", invalid="ignore"):
                shift, scale, table = fitters[name](columns)
        else:
            value = 1.0 if name == "none" else float(by)
            shift, scale, table = np.zeros(columns.count), np.full(columns.count, value), None
        shifts.append(shift)
        scales.append(scale)
        if table is not None:
            quantiles.append(table)
    scaling = Scaling(name, np.concatenate(shifts), np.concatenate(scales))
    if name == "quantile":
        scaling.quantiles = np.concatenate(quantiles) if quantiles else np.empty((0, QUANTILES))
    _refuse_overflow(scaling, names)
    return scaling


def _refuse_overflow(scaling, names):
    for name, shift, scale in zip(names, scaling.shift, scaling.scale, strict=True):
        if not np.isfinite(shift) or np.isnan(scale):
            raise DataError(f"column {quoted(name)}: holds numbers too large for its statistics; rescale or exclude it")


def _standard(columns):
    total, low, high = columns.survey()
    mean = total / columns.rows

    def squares(block):
        deviation = block - mean[:, None]
        deviation *= deviation
        return deviation

    return mean, _constant(low, high, _usable(np.sqrt(columns.sum(squares) / columns.rows))), None


def _minmax(columns):
    _, low, high = columns.survey()
    return low, _constant(low, high, _usable(high - low)), None


def _robust(columns):
    block, last = columns.all(), columns.rows - 1
    block += 0.0  # as in in_order
    whole = [part * last // 4 for part in (1, 2, 3)]
    block.partition(sorted({*whole, *(min(place + 1, last) for place in whole)}), axis=1)
    spread = quantile(block, 3, 4) - quantile(block, 1, 4)
    scale = _usable(np.where(spread == 0.0, 1.0, spread))
    return quantile(block, 1, 2), _constant(block.min(axis=1), block.max(axis=1), scale), None


def _quantile(columns):
    block = columns.all()
    block += 0.0
    block.sort(axis=1)
    count = min(QUANTILES, columns.rows)
    table = np.stack([quantile(block, number, max(1, count - 1)) for number in range(count)], axis=1)
    return np.zeros(columns.count), _constant(block[:, 0], block[:, -1], np.ones(columns.count)), table


def _constant(low, high, scale):
    """The scale, infinite for columns whose numbers are all the same."""
    return np.where(low == high, np.inf, scale)


def _usable(scale):
    """A deviation that overflowed is not usable (NaN), one that vanished in rounding means a constant column."""
    return np.where(np.isinf(scale), np.nan, np.where(scale == 0.0, np.inf, scale))


def in_order(block):
    """Each row of block (k, n) sorted; -0.0 becomes 0.0: equal numbers have equal bits, however they are sorted."""
    return np.sort(block + 0.0, axis=1)


def quantile(ordered, part, parts):
    """The quantile part/parts of each row of ordered (k, n), between two values in proportion: (k,).

    Only these two values need be where sorting puts them.
    """
    whole, rest = divmod(part * (ordered.shape[1] - 1), parts)
    low = ordered[:, whole]
    if rest == 0:
        return low.copy()
    high = ordered[:, whole + 1]
    return np.minimum(low + (high - low) * (rest / parts), high)


def rank(values, quantiles):
    """Where values (m,) lie among ascending quantiles (q,), from 0 to 1; the middle of its places for a repeated one.

    The average of interpolating from below and from above, as QuantileTransformer does.
    """
    last = len(quantiles) - 1
    lower = np.searchsorted(quantiles, values, side="left")
    upper = np.searchsorted(quantiles, values, side="right")
    before, after = np.clip(lower - 1, 0, last), np.clip(lower, 0, last)
    gap = quantiles[after] - quantiles[before]
    between = before + (values - quantiles[before]) / np.where(gap > 0.0, gap, 1.0)
    middle = (lower + upper - 1) / 2.0
    place = np.where(upper > lower, middle, between) / max(1, last)
    return np.where(values <= quantiles[0], 0.0, np.where(values >= quantiles[-1], 1.0, place))
