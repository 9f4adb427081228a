"""Cells of text become numbers, words and holes; a whole column at a time, with pyarrow."""

import re
from dataclasses import dataclass

import numpy as np

NUMBER = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
NOT_FINITE = r"^[+-]?(?i:nan|inf|infinity)$"
NUMBER_OR_NOT_FINITE = f"{NUMBER}|{NOT_FINITE}"
DECIMAL_COMMA = r"^[+-]?[0-9]*,[0-9]+(?:[eE][+-]?[0-9]+)?$"
WIDEST_SHORT_NUMBER = 1e16  # from here on a whole number is written with an exponent


@dataclass(frozen=True)
class Numbers:
    """A column read as numbers: float64 with NaN in its holes, and the rows whose cell is no number at all."""

    values: np.ndarray
    bad: np.ndarray


def number_name(value):
    """The one way to write a number as a class or category: `3` for 3.0, the shortest exact decimals otherwise."""
    if value == int(value) and abs(value) < WIDEST_SHORT_NUMBER:
        return str(int(value))
    return repr(float(value))


def is_number(cell, decimal="."):
    """Whether one cell reads as a number, the way a whole column is read."""
    if decimal != ".":
        cell = cell.replace(".", "x").replace(decimal, ".")
    return re.fullmatch(NUMBER_OR_NOT_FINITE, cell) is not None


def trimmed(cells):
    """The cells without white space at both ends."""
    import pyarrow.compute as compute

    return compute.utf8_trim_whitespace(cells)


def holes(cells, missing_values):
    """Which cells are one of the words for a missing value, bool (n,)."""
    import pyarrow as pa
    import pyarrow.compute as compute

    mask = compute.is_in(cells, value_set=pa.array(missing_values, pa.string()))
    return mask.to_numpy(zero_copy_only=False)


def numbers(cells, decimal, missing_values):
    """Read a column of trimmed cells as Numbers; a hole and a cell `nan` both give NaN.

    Arrow rounds decimal text correctly, so the bits are those of Python's float().
    """
    import pyarrow as pa
    import pyarrow.compute as compute

    if decimal == "." and not any(is_number(word) and word.lower() != "nan" for word in missing_values):
        try:  # the usual case: no word for a missing value is a number, so a cell that reads as one is one
            return Numbers(_as_float64(cells), np.empty(0, np.int64))
        except pa.ArrowInvalid:
            pass
    missing = holes(cells, missing_values)
    plain = cells
    if decimal != ".":
        plain = compute.replace_substring(compute.replace_substring(cells, ".", "x"), decimal, ".")
    reads = compute.match_substring_regex(plain, NUMBER_OR_NOT_FINITE).to_numpy(zero_copy_only=False)
    usable = pa.array(reads & ~missing)
    values = _as_float64(compute.if_else(usable, plain, pa.scalar(None, pa.string())))
    return Numbers(values, np.flatnonzero(~reads & ~missing))


def have_decimal_commas(cells, rows):
    """Whether every one of these cells is a whole number or one with a decimal comma, and some have a comma."""
    import pyarrow.compute as compute

    some = cells.take(rows)
    comma = compute.match_substring_regex(some, DECIMAL_COMMA).to_numpy(zero_copy_only=False)
    whole = compute.match_substring_regex(some, r"^[+-]?[0-9]+$").to_numpy(zero_copy_only=False)
    return bool(comma.any() and (comma | whole).all())


def words(cells, missing_values):
    """Number the different words of a column: (codes int64 (n,), sorted list of words); a hole has the code -1."""
    import pyarrow as pa
    import pyarrow.compute as compute

    present = compute.if_else(pa.array(~holes(cells, missing_values)), cells, pa.scalar(None, pa.string()))
    encoded = compute.dictionary_encode(present)
    codes = compute.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return in_order(codes, encoded.dictionary.to_pylist())


def in_order(codes, found):
    """Renumber codes so that their words are sorted, and equal words share a number: (codes, sorted words)."""
    ordered = sorted(set(found))
    number = {word: code for code, word in enumerate(ordered)}
    renumber = np.array([number[word] for word in found] + [-1], np.int64)  # the last entry keeps -1 as it is
    return renumber[codes], ordered


def _as_float64(cells):
    import pyarrow as pa
    import pyarrow.compute as compute

    values = compute.cast(cells, pa.float64())
    # Nulls become NaN here by our own hand, for what stands under a null is not defined.
    return compute.fill_null(values, float("nan")).to_numpy(zero_copy_only=False)
