"""Fits a Preprocessing to the training rows: types of columns, categories, stand-ins for missing values, scales."""

from functools import partial

import numpy as np

from mlp_cli.data import checks, columns, scaling
from mlp_cli.data.preprocess import Preprocessing, as_slice
from mlp_cli.errors import DataError
from mlp_cli.wording import listed, plain, quoted

MAX_CATEGORIES = 1000
FREE_TEXT_CATEGORIES = 50
FEW_WORDS = 10  # at most one cell in ten is a word
# Columns fitted together: as many as make blocks of rows of this size, or, where they are needed whole, as fit in it.
MOST_COLUMNS, MOST_WHOLE_COLUMNS = 1 << 15, 32
STRETCH_NUMBERS, LEAST_ROWS = 1 << 18, 128
WHOLE_BYTES = 64 << 20


def fit(table, rows, roles, options, reading, task, dtype):
    """A Preprocessing fitted to these rows of the training table, and notes: (Preprocessing, list of sentences)."""
    categories, missing_category, notes = {}, [], []
    rule, overrides = options.missing.name, options.columns or {}
    word = options.missing.value if rule == "constant" and isinstance(options.missing.value, str) else None
    for name in roles.features:
        categorical = is_categorical(table, name, rows, overrides)
        checks.refuse_empty(table, name, table.holes(name, categorical), rows)
        if categorical:
            few = _few_words(table, name, rows) if name not in overrides else ""
            words, any_missing = _categories(table, name, rows, few)
            if any_missing and word is not None:
                words = tuple(sorted({*words, word}))
            elif any_missing and rule not in ("error", "drop"):
                missing_category.append(name)
            categories[name] = words
            notes += [few] if few else _notes_on_words(table, name, words, len(rows))
    numeric = [name for name in roles.features if name not in categories]
    checks.refuse_words(table, numeric, rows)
    fill, scale = _fit_numbers(table, numeric, rows, options, dtype)
    constant = [name for name, is_constant in zip(numeric, scale.constant, strict=True) if is_constant]
    if constant:
        notes.append(f"{table.source}: constant in training, so they become 0: {listed(constant)}")
    indicators = ()
    if rule == "indicator":
        holes = {name: table.holes(name) for name in numeric}
        indicators = tuple(name for name in numeric if holes[name] is not None and holes[name][rows].any())
    preprocessing = Preprocessing(
        reading=reading,
        known=columns.known(table, roles),
        task=task,
        categories=categories,
        missing_category=tuple(missing_category),
        indicators=indicators,
        missing=rule,
        missing_word=word,
        unseen=options.unseen,
        labels=dict(options.labels or {}),
        weight=roles.weight,
        dtype=dtype,
        fill=fill,
        scale=scale,
    )
    return preprocessing, notes


def is_categorical(table, name, rows, overrides):
    """Whether a feature is one of words: data.columns says so, or a cell of these rows is no number."""
    if name in overrides:
        return overrides[name] == "categorical"
    if not checks.words_among(table, name, rows).size:
        return False
    checks.refuse_decimal_commas(table, name)
    return True


def _few_words(table, name, rows):
    """A note on a column that counts as words though nearly all of its cells are numbers, else an empty string."""
    bad = checks.words_among(table, name, rows)
    if len(bad) * FEW_WORDS > len(rows):
        return ""
    return (
        f"{table.where(bad[0])}: column {plain(name)} counts as words because of {quoted(table.cell(name, bad[0]))}, "
        f"though {len(rows) - len(bad)} of {len(rows)} cells are numbers or missing; if that means missing, add it to "
        "data.missing_values"
    )


def _categories(table, name, rows, few):
    """(the different words of these rows, sorted; whether some are missing)."""
    codes, words = table.words(name)
    present = np.unique(codes[rows])
    if len(present) > MAX_CATEGORIES and few:
        raise DataError(few)
    if len(present) > MAX_CATEGORIES:
        raise DataError(
            f"{table.source}: column {quoted(name)} has {len(present)} different values in {len(rows)} training rows, "
            f"more than {MAX_CATEGORIES} and hardly categories; exclude it (data.exclude: [{plain(name)}])"
        )
    return tuple(words[code] for code in present if code >= 0), bool(present[0] < 0)


def _notes_on_words(table, name, words, rows):
    if len(words) == 1:
        return [f"{table.source}: column {plain(name)} is {quoted(words[0])} in every training row and says nothing"]
    if len(words) > FREE_TEXT_CATEGORIES and 2 * len(words) > rows:
        return [
            f"{table.source}: column {plain(name)} has {len(words)} different values in {rows} training rows and looks "
            "like free text; consider data.exclude"
        ]
    return []


def _fit_numbers(table, names, rows, options, dtype):
    """(what stands in for a missing value (k,), the Scaling) of the numeric columns."""
    rule = options.missing.name
    fill = np.zeros(len(names))
    if rule == "constant" and isinstance(options.missing.value, int | float):
        fill[:] = options.missing.value
    by = getattr(options.numeric, "by", None)
    if rule in ("mean", "median", "indicator") or options.numeric.name in ("robust", "quantile"):
        groups = _whole_columns(table, names, rows, rule, fill, dtype)
    elif options.numeric.name in ("standard", "minmax"):
        groups = _long_columns(table, names, rows, fill, dtype)
    else:  # nothing to learn
        groups = [np.zeros((len(names), 1))]
    return fill, scaling.fit(options.numeric.name, by, groups, names)


def _long_columns(table, names, rows, fill, dtype):
    """Yield the training values of columns as scaling.Columns, of which some rows at a time are in memory."""
    for first in range(0, len(names), MOST_COLUMNS):
        some = names[first : first + MOST_COLUMNS]
        read = partial(_read_stretch, table, some, table.locate(some), rows, fill[first : first + MOST_COLUMNS], dtype)
        yield scaling.Columns(len(some), len(rows), max(LEAST_ROWS, STRETCH_NUMBERS // len(some)), read)


def _read_stretch(table, names, located, rows, fill, dtype, start, stop):
    """Numbers start … stop - 1 of columns, as rows (k, stop - start)."""
    chosen = rows[start:stop]
    block = np.empty((len(chosen), len(names)))
    table.gather(located, as_slice(chosen), block)
    checks.refuse_overflow(table, names, chosen, block, dtype)
    missing = np.isnan(block)
    if missing.any():
        np.copyto(block, fill, where=missing)
    return np.ascontiguousarray(block.T)


def _whole_columns(table, names, rows, rule, fill, dtype):
    """Yield all training values of some columns at a time, as rows (k, n), and set their `fill` on the way."""
    chosen = as_slice(rows)
    width = max(1, min(MOST_WHOLE_COLUMNS, WHOLE_BYTES // (8 * len(rows))))
    for first in range(0, len(names), width):
        some = names[first : first + width]
        block = np.empty((len(some), len(rows)))
        table.gather(table.locate(some), chosen, block.T)
        checks.refuse_overflow(table, some, rows, block.T, dtype)
        for number, column in enumerate(block):
            missing = np.isnan(column)
            if rule in ("mean", "median", "indicator"):
                fill[first + number] = _stand_in(column[~missing] if missing.any() else column, rule)
            column[missing] = fill[first + number]
        yield block


def _stand_in(values, rule):
    """Median or mean of contiguous (n,): NumPy's pairwise sum, whose order follows from their number alone."""
    if rule == "median":
        return scaling.quantile(scaling.in_order(values[None, :]), 1, 2)[0]
    return np.mean(values)
