"""What is refused in the cells of a table: missing values, words among numbers, numbers too large, bad weights."""

import numpy as np

from mlp_cli import memory
from mlp_cli.data.reading import FLOAT32_MAX, FLOAT64_MAX
from mlp_cli.errors import DataError
from mlp_cli.kernels.layout import aligned_zeros
from mlp_cli.wording import listed, plain, quoted

FEWER_INPUTS = f"exclude columns with many categories (data.exclude), {memory.LESS_DATA}"


def rows_with_holes(table, features, categorical, weight=None):
    """Which rows miss a feature or the weight, bool (n,)."""
    found = np.zeros(table.rows, bool)
    for name in [*features, *([weight] if weight else [])]:
        mask = table.holes(name, name in categorical)
        if mask is not None:
            found |= mask
    return found


def refuse_holes(table, features, categorical):
    """DataError when features have missing cells: which, how many, and the first of them."""
    counts, first = {}, None
    for name in features:
        mask = table.holes(name, name in categorical)
        if mask is not None:
            counts[name] = int(mask.sum())
            first = (int(mask.argmax()), name) if first is None else first
    if counts:
        row, name = first
        several = [f"{plain(other)} ({count})" for other, count in counts.items()]
        raise DataError(
            f"{table.where(row)}: column {quoted(name)} is missing here; missing cells in all: {listed(several)}; "
            "set data.missing to mean, median, constant, indicator or drop, or exclude the column"
        )


def refuse_empty(table, name, mask, rows):
    """DataError when a feature is missing in each of the training rows."""
    if mask is not None and mask[rows].all():
        raise DataError(
            f"{table.source}: column {quoted(name)} has no value in any training row; exclude it (data.exclude)"
        )


def words_among(table, name, rows):
    """Which of these rows hold neither a number nor a missing cell in a column."""
    bad = table.bad(name)
    return np.intersect1d(bad, rows) if bad.size else bad


def refuse_words(table, names, rows):
    """DataError when a numeric column holds a word in one of these rows."""
    for name in names:
        bad = words_among(table, name, rows)
        if bad.size:
            raise DataError(
                f"{table.where(bad[0])}: column {quoted(name)}: expected a number; found "
                f"{quoted(table.cell(name, bad[0]))}{_remedy_for_words(table, name)}"
            )


def _remedy_for_words(table, name):
    if table.has_decimal_commas(name):
        return '; for decimal commas set data.decimal: ","'
    return "; words for missing values belong in data.missing_values, columns of words in data.columns as categorical"


def refuse_decimal_commas(table, name):
    """DataError when a column would be words only because its numbers have decimal commas."""
    if table.has_decimal_commas(name):
        row = table.bad(name)[0]
        raise DataError(
            f"{table.where(row)}: column {quoted(name)}: {quoted(table.cell(name, row))} looks like a number with a "
            f'decimal comma; set data.decimal: ",", or data.columns: {{{plain(name)}: categorical}} if these are words'
        )


def refuse_overflow(table, names, rows, block, dtype, when=""):
    """DataError when block (m, k), the numbers of these rows and columns, holds one that dtype cannot."""
    limit = FLOAT32_MAX if dtype == "float32" else FLOAT64_MAX
    if not block.size or max(block.max(), -block.min()) <= limit:
        return
    too_large = np.abs(block) > limit  # False for NaN, a missing value
    if too_large.any():
        row, column = (int(place) for place in np.argwhere(too_large)[0])
        value = block[row, column]
        what = f"{when}{value:g}" if when else quoted(table.cell(names[column], rows[row]))
        raise DataError(
            f"{table.where(rows[row])}: column {quoted(names[column])}: expected a finite number that {dtype} can "
            f"hold (at most {limit:.3g}); found {what}"
        )


def refuse_word_as_number(table, names, rows, missing, word):
    """DataError when numbers are missing, as missing (m, k) says, and only a word is there to stand in for them."""
    if word is not None:
        row, column = (int(place) for place in np.argwhere(missing)[0])
        raise DataError(
            f"{table.where(rows[row])}: column {quoted(names[column])} is numeric and missing here; data.missing: "
            f"expected a number for value, got {quoted(word)}"
        )


def weights(table, name, rows):
    """The sample weights of these rows, float64 (m,), or None without such a column.

    DataError unless they are all there, finite and not negative, and one is positive.
    """
    if name is None:
        return None
    if name not in table.names:
        raise DataError(f"{table.source}: has no column {quoted(name)}, the sample weight")
    refuse_words(table, [name], rows)
    found = table.numbers(name).values[rows]
    wrong = rows[~((found >= 0.0) & (found <= FLOAT64_MAX))]
    if wrong.size:
        raise DataError(
            f"{table.where(wrong[0])}: column {quoted(name)}: expected a sample weight, a number from 0 up; found "
            f"{quoted(table.cell(name, wrong[0]))}"
        )
    if len(rows) and not found.any():
        raise DataError(
            f"{table.source}: column {quoted(name)}: the sample weight is 0 in every row; expected a positive one"
        )
    return found


def matrix_of_zeros(rows, columns, dtype, source):
    """Zeros (rows, columns) that begin on a line of the cache; SystemFault where memory has no room for them."""
    memory.require(
        rows * columns * np.dtype(dtype).itemsize, f"{source}: {rows:,} rows of {columns:,} inputs need", FEWER_INPUTS
    )
    return aligned_zeros(rows * columns, dtype).reshape(rows, columns)
