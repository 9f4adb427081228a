"""Puts numeric columns on a common scale: (x - shift) / scale, or for quantile the rank among the training values.

Statistics are float64 and use only + - * / sqrt, sums and sorting, so they have the same bits on every processor.
"""

from dataclasses import dataclass

import numpy as np

from mlp_cli.data.reading import quoted
from mlp_cli.errors import DataError

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


def fit(name, by, blocks, names):
    """Fit a Scaling of that name to blocks (k, n) of columns as rows, float64 without NaN.

    standard: mean and population standard deviation; minmax: to [0, 1]; robust: median and interquartile range, or 1
    where that is 0; quantile: up to 1000 quantiles; divide: by the number `by`. As scikit-learn's StandardScaler,
    MinMaxScaler, RobustScaler and QuantileTransformer do, constant columns apart. DataError for numbers so large that
    their statistics overflow.
    """
    fitters = {"standard": _standard, "minmax": _minmax, "robust": _robust, "quantile": _quantile}
    shifts, scales, quantiles = [np.empty(0)], [np.empty(0)], []
    for block in blocks:
        count = len(block)
        if name in fitters:
            with np.errstate(over="ignore", invalid="ignore"):
                shift, scale, table = fitters[name](block)
            scale = np.where(block.min(axis=1) == block.max(axis=1), np.inf, scale)
        else:
            shift, scale, table = np.zeros(count), np.full(count, 1.0 if name == "none" else float(by)), None
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


def _standard(block):
    mean = np.mean(block, axis=1)
    deviation = block - mean[:, None]
    deviation *= deviation
    return mean, _usable(np.sqrt(np.mean(deviation, axis=1))), None


def _minmax(block):
    low = np.min(block, axis=1)
    return low, _usable(np.max(block, axis=1) - low), None


def _robust(block):
    ordered = in_order(block)
    spread = quantile(ordered, 3, 4) - quantile(ordered, 1, 4)
    return quantile(ordered, 1, 2), _usable(np.where(spread == 0.0, 1.0, spread)), None


def _quantile(block):
    ordered = in_order(block)
    count = min(QUANTILES, block.shape[1])
    table = np.stack([quantile(ordered, number, max(1, count - 1)) for number in range(count)], axis=1)
    return np.zeros(len(block)), np.ones(len(block)), table


def _usable(scale):
    """A deviation that overflowed is not usable (NaN), one that vanished in rounding means a constant column."""
    return np.where(np.isinf(scale), np.nan, np.where(scale == 0.0, np.inf, scale))


def in_order(block):
    """Each row of block (k, n) sorted; -0.0 becomes 0.0, so that equal numbers have equal bits."""
    return np.sort(block + 0.0, axis=1, kind="stable")


def quantile(ordered, part, parts):
    """The quantile part/parts of each row of ordered (k, n), between two values in proportion: (k,)."""
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
