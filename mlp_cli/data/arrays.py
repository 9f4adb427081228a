"""Arrays from .npy, .npz and IDX files (the format of MNIST) as a table of numbered columns.

A header is only believed as far as bytes really follow it: nothing is allocated on its word. No pickle is ever opened.
"""

import math
import warnings
import zipfile
import zlib

import numpy as np

from mlp_cli import memory
from mlp_cli.data.arrayfile import ArrayFile
from mlp_cli.data.cells import Numbers, in_order, is_number, number_name
from mlp_cli.data.reading import FLOAT64_MAX, READ_BYTES, bytes_that_follow, refuse_many_columns, refuse_repeats
from mlp_cli.errors import DataError, SystemFault, shortage
from mlp_cli.wording import cut, listed, plural, quoted, sizes

IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
IDX_DIMENSIONS = 8
PROBED_BYTES = 64 << 20
MAX_COLUMNS = 1_000_000  # each takes some hundred bytes for its name and its statistics
SCAN_NUMBERS = 1 << 16
HASHED_BYTES = 1 << 22
FILE_NUMBERS = 1 << 18  # to read from a file at a time
COLUMN_NUMBERS = 1 << 20  # where it holds columns, each of which takes a call
KEPT_COLUMNS = 8
MOST_ROWS = 2**32 - 1  # what the number of a row may be in the kernels


class ArrayTable:
    """The columns of x (n, d), and of y (n,) or (n, k) where there is one, behind the same methods as TextTable's.

    x is in memory, or an ArrayFile, of which some rows are in memory at a time. Columns of x are called 0, 1, ...,
    those of y are y or y0, y1, ...; none of these names mean anything unless data.names gave them.
    """

    def __init__(self, source, x, y, reading, names=None):
        self.source, self.rows = source, len(x)
        self.y = None if y is None else y.reshape(len(y), -1)
        self.flattened = x.flattened if isinstance(x, ArrayFile) else x.ndim > 2
        self.x = x if isinstance(x, ArrayFile) else x.reshape(len(x), math.prod(x.shape[1:]))
        self.labels = [] if y is None else ["y"] if self.y.shape[1] == 1 else _numbered("y", self.y.shape[1])
        self.names, self.named = _numbered("", self.x.shape[1]) + self.labels, False
        self._index()
        if names is not None:
            if len(names) not in (len(self.names), self.x.shape[1]):
                raise DataError(f"{source}: has {plural(self.x.shape[1], 'column')}, data.names {len(names)}")
            self.rename([*names, *self.labels][: len(self.names)])
        tokens = [float(word) for word in reading.missing_values if is_number(word)]
        self._tokens = [token for token in tokens if abs(token) <= FLOAT64_MAX]
        self._with_holes = None
        self._kept = {}
        # numbers to gather at a time: they stay in the cache, or make reading worth a call
        self.chunk = SCAN_NUMBERS
        if isinstance(x, ArrayFile):
            self.chunk = COLUMN_NUMBERS if x.columns_first else FILE_NUMBERS

    def rename(self, names):
        """The same columns under other names; for a table that is matched by position."""
        refuse_repeats(names, self.source)
        self.names, self.named = list(names), True
        self.labels = self.names[self.x.shape[1] :]
        self._index()

    def _index(self):
        self._place = {name: place for place, name in enumerate(self.names)}

    def _step(self):
        """Rows to gather at a time."""
        return max(1, self.chunk // max(1, self.x.shape[1]))

    def _kind(self, name):
        """The kind of numbers in a column, as in NumPy's dtype.kind."""
        return (self.x if self._place[name] < self.x.shape[1] else self.y).dtype.kind

    def _column(self, name):
        place = self._place[name]
        if place >= self.x.shape[1]:
            return self.y[:, place - self.x.shape[1]]
        if not isinstance(self.x, ArrayFile):
            return self.x[:, place]
        if place not in self._kept:  # each time it is read is a trip over the whole file
            if len(self._kept) == KEPT_COLUMNS:
                self._kept.pop(next(iter(self._kept)))
            self._kept[place] = self.x.column(place, self._step())
        return self._kept[place]

    def numbers(self, name):
        """The column as Numbers: NaN where missing; no row of a column of strings is a number."""
        column = self._column(name)
        if column.dtype.kind == "U":
            return Numbers(np.full(self.rows, np.nan), np.arange(self.rows))
        values = column.astype(np.float64)
        for token in self._tokens:
            values[values == token] = np.nan
        return Numbers(values, np.empty(0, np.int64))

    def bad(self, name):
        """The rows that are no number: all of a column of strings, none otherwise."""
        return np.arange(self.rows if self._kind(name) == "U" else 0)

    def words(self, name):
        """(codes int64 (n,), sorted words) of a column; the code -1 is a missing cell."""
        column = self._column(name)
        if column.dtype.kind == "U":
            found, codes = np.unique(column, return_inverse=True)
            return in_order(codes.reshape(-1), [word.strip() for word in found.tolist()])
        values = self.numbers(name).values
        missing = np.isnan(values)
        found, codes = np.unique(np.where(missing, 0.0, values), return_inverse=True)
        codes = np.where(missing, -1, codes.reshape(-1))
        if column.dtype.kind == "b":
            names = ["true" if value else "false" for value in found.tolist()]
        else:
            names = [_any_number_name(value) for value in found.tolist()]
        return in_order(codes, names)

    def holes(self, name, as_words=False):
        """Which cells are missing, bool (n,), or None where none is."""
        if self._with_holes is None:
            self._with_holes = self._columns_with_holes()
        if name in self._with_holes or name in self.labels:
            mask = np.isnan(self.numbers(name).values) & (self._kind(name) != "U")
            return mask if mask.any() else None
        return None

    def _columns_with_holes(self):
        if self.x.dtype.kind != "f" and not self._tokens:
            return set()
        found = np.zeros(self.x.shape[1], bool)
        for first in range(0, self.rows, self._step()):
            block = self.x[first : first + self._step()].astype(np.float64)
            found |= np.isnan(block).any(axis=0)
            for token in self._tokens:
                found |= (block == token).any(axis=0)
        return {self.names[place] for place in np.flatnonzero(found)}

    def holds_words(self, name):
        """Whether the column holds strings or booleans rather than numbers."""
        return self._kind(name) in "Ub"

    def as_number(self, word):
        """What a word stands for where it was a number, None for strings and booleans."""
        return float(word) if is_number(word) else None

    def has_decimal_commas(self, name):
        """Never: these are numbers already."""
        return False

    def cell(self, name, row):
        """One number or word as text."""
        place, row = self._place[name], int(row)
        in_x = place < self.x.shape[1]
        value = self.x[row : row + 1][0, place] if in_x else self.y[row, place - self.x.shape[1]]
        return self._text(value)

    def _text(self, value):
        if value.dtype.kind in "Ub":
            return str(value).strip() if value.dtype.kind == "U" else str(bool(value)).lower()
        return _any_number_name(float(value))

    def cells(self, name):
        """A whole column as text: list of n strings."""
        return [self._text(value) for value in self._column(name)]

    def where(self, row):
        """`file[row]`, counted from 0 as NumPy does, for messages."""
        return f"{self.source}[{int(row)}]"

    def locate(self, names):
        """What `gather` needs to find these numeric columns again: a slice of x where they lie side by side."""
        places = [self._place[name] for name in names]
        if places and places == list(range(places[0], places[0] + len(places))):
            return slice(places[0], places[0] + len(places))
        return np.array(places, np.int64)

    def gather(self, located, rows, out):
        """Copy the numbers of these rows, a slice or ascending, into out (m, k), float64; missing ones are NaN."""
        for place, numbers in self._pieces(located, rows):
            out[place] = numbers
        for token in self._tokens:
            out[out == token] = np.nan

    def as_stored(self, located, rows):
        """The numbers of these rows, a slice or ascending, as they are stored, (m, k); in this machine's byte order."""
        count = rows.stop - rows.start if isinstance(rows, slice) else len(rows)
        width = located.stop - located.start if isinstance(located, slice) else len(located)
        out = np.empty((count, width), self.x.dtype.newbyteorder("="))
        for place, numbers in self._pieces(located, rows):
            out[place] = numbers
        return out

    def obstacle(self, names):
        """Why these numeric columns cannot be used where they lie in a file, and what to do; None where they can."""
        x = self.x
        if not isinstance(x, ArrayFile):
            return (
                "is compressed, an archive or a stream, which cannot be mapped; unpack it to a plain .npy or IDX file"
            )
        if x.columns_first:
            return "is in Fortran's order, column by column; save it again as numpy.ascontiguousarray(x)"
        if not x.dtype.isnative:
            return f"holds {x.dtype.str} numbers in another byte order; save them as .npy in this machine's"
        if not isinstance(self.locate(names), slice):
            return "has columns left out between those to learn from; save it without them"
        return None

    def _pieces(self, located, rows):
        """Yield (slice of the result, numbers) for some of these rows after the other."""
        if not isinstance(self.x, ArrayFile):
            yield slice(None), _picked(self.x, rows, located)
            return
        if isinstance(rows, slice):
            for start in range(rows.start, rows.stop, self._step()):
                stop = min(start + self._step(), rows.stop)
                yield slice(start - rows.start, stop - rows.start), self.x[start:stop][:, located]
            return
        done = 0
        while done < len(rows):
            first = rows[done]
            here = done + np.searchsorted(rows[done:], first + self._step())
            block = self.x[first : rows[here - 1] + 1]
            yield slice(done, here), _picked(block, rows[done:here] - first, located)
            done = here

    def digest_into(self, digest):
        """Add names, shapes and numbers, as they are stored, to a hash."""
        for part in (self.x, self.y):
            if part is not None:
                digest.update(repr(("array", self.names, part.dtype.str, part.shape)).encode())
                step = max(1, HASHED_BYTES // max(1, part.shape[1] * part.dtype.itemsize))
                for start in range(0, len(part), step):
                    digest.update(memoryview(np.ascontiguousarray(part[start : start + step])).cast("B"))


def _picked(x, rows, located):
    """The numbers in these rows and columns of x, each a slice or numbers."""
    if isinstance(rows, slice):
        return x[rows][:, located]
    if isinstance(located, slice):
        return x[:, located][rows]  # columns first, a view, so that only what is wanted is copied
    return x[rows[:, None], located]


def _numbered(prefix, count):
    return [f"{prefix}{number}" for number in range(count)]


def _any_number_name(value):
    return number_name(value) if abs(value) <= FLOAT64_MAX else str(value)


def array_table(x, y, source, reading, names=None):
    """Put x and y (or None) together. DataError unless they have as many rows and types that a table can hold."""
    if len(x.shape) == 0 or x.dtype.kind not in "fiub":
        kind = "a single number" if len(x.shape) == 0 else f"{x.dtype} values"
        raise DataError(f"{source}: x holds {kind}; expected an array of numbers with a row for each sample")
    if len(x) == 0:
        raise DataError(f"{source}: holds no rows")
    if len(x) > MOST_ROWS:
        raise DataError(f"{source}: holds {len(x)} rows; expected at most {MOST_ROWS}")
    refuse_many_columns(math.prod(x.shape[1:]) + (0 if y is None else math.prod(y.shape[1:])), MAX_COLUMNS, source)
    if y is not None:
        if y.ndim not in (1, 2) or y.dtype.kind not in "fiubU" or 0 in y.shape[1:]:
            raise DataError(
                f"{source}: y has the shape {sizes(y.shape)} and the type {cut(str(y.dtype))}; expected a label or a "
                "row of numbers for each sample"
            )
        if len(x) != len(y):
            raise DataError(f"{source}: x has {plural(len(x), 'row')}, y has {len(y)}; expected as many")
    return ArrayTable(source, x, y, reading, names)


# ---- IDX


def read_idx(stream, source, descriptor=None):
    """Read an IDX file: 0, 0, type, dimensions; then the sizes as 4 bytes each, big-endian; then the numbers.

    With the descriptor of a plain file its numbers stay there: an ArrayFile.
    """
    magic = stream.read(4)
    dtype = np.dtype(IDX_TYPES[magic[2]])
    sizes = stream.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise DataError(f"{source}: is cut off within its IDX header")
    shape = tuple(int(size) for size in np.frombuffer(sizes, ">u4"))
    if descriptor is not None:
        return ArrayFile(descriptor, source, stream.tell(), shape, dtype)
    return _read_array(stream, shape, dtype, source)


def is_idx(head):
    """Whether a file that begins with these bytes is an IDX file."""
    return len(head) >= 4 and head[:2] == b"\0\0" and head[2] in IDX_TYPES and 1 <= head[3] <= IDX_DIMENSIONS


def _read_array(stream, shape, dtype, source):
    count = math.prod(shape)
    buffer = _exactly(stream, count * dtype.itemsize, f"{sizes(shape)} numbers of {dtype}", source)
    if count == 0:
        raise DataError(f"{source}: holds no numbers")
    return _checked(np.frombuffer(buffer, dtype).reshape(shape), source)


def _exactly(stream, expected, what, source):
    """All bytes of a stream. DataError unless it has as many as expected, SystemFault where memory has no room.

    Of what is packed and has no room, only so much is unpacked as shows that it is not a mere claim.
    """
    follow = bytes_that_follow(stream)
    if follow is not None and follow != expected:
        raise _wrong_size(source, what, expected, follow)
    there = memory.available()
    room = there if follow is not None else there // 2  # its size being known only now, the rest may be larger still
    limit = expected if expected <= room else PROBED_BYTES
    buffer = bytearray()
    while len(buffer) <= limit and (part := stream.read(min(limit + 1 - len(buffer), READ_BYTES))):
        buffer += part  # one byte more than expected, to notice that more follows
    if len(buffer) == expected:
        return buffer
    if limit < len(buffer) < expected:
        raise SystemFault(
            f"{source}: {what} take {memory.size_text(expected)}, too much for the {memory.size_text(there)} of memory "
            f"that are available; {memory.LESS_DATA}"
        )
    raise _wrong_size(source, what, expected, len(buffer))


def _wrong_size(source, what, expected, found):
    follow = f"{found} bytes follow" if found < expected else "more bytes follow"
    return DataError(f"{source}: the header says {what}, {expected} bytes; {follow}")


def _checked(values, source):
    """Refuse strings that are no Unicode; repair booleans that are neither 0 nor 1."""
    if values.dtype.kind == "U":
        points = values.view(np.dtype("u4").newbyteorder(values.dtype.byteorder))
        if ((points > 0x10FFFF) | ((points >= 0xD800) & (points < 0xE000))).any():
            raise DataError(f"{source}: holds strings that are not Unicode")
    if values.dtype.kind == "b":
        return values.view(np.uint8) != 0
    return values


# ---- NumPy


def read_npy(stream, source, descriptor=None):
    """Read a .npy file without pickle. DataError for objects, records, and headers that promise more than follows.

    With the descriptor of a plain file its numbers stay there, as an ArrayFile, unless no row lies in one piece.
    """
    shape, fortran_order, dtype = _npy_header(stream, source)
    if dtype.kind == "f" and dtype.itemsize > 8:
        raise DataError(f"{source}: holds {dtype} values; save them as float64")
    if dtype.hasobject or dtype.fields is not None or dtype.kind not in "fiubUS" or not dtype.itemsize:
        raise DataError(
            f"{source}: holds {_type_name(dtype)}; expected numbers or strings (save them with .astype first)"
        )
    if descriptor is not None and dtype.kind in "fiub" and shape and not (fortran_order and len(shape) > 2):
        return ArrayFile(descriptor, source, stream.tell(), shape, dtype, fortran_order and len(shape) == 2)
    if fortran_order:
        values = _read_array(stream, shape[::-1], dtype, source).transpose()
    else:
        values = _read_array(stream, shape, dtype, source)
    if dtype.kind == "S":
        try:
            values = np.char.decode(values, "utf-8")
        except UnicodeDecodeError:
            raise DataError(f"{source}: holds bytes that are not UTF-8; save strings as str") from None
    return values


def _npy_header(stream, source):
    from numpy.lib import format as npy

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            version = npy.read_magic(stream)
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran_order, dtype = read(stream)
    except OSError:  # no fault of the header
        raise
    except Exception:  # NumPy evaluates the header as Python literals: a forged one can fail in any way
        raise DataError(f"{source}: the .npy header cannot be read; save the array again with numpy.save") from None
    if not all(0 <= size < 2**62 for size in shape):
        raise DataError(f"{source}: the .npy header claims the shape {quoted(shape)}")
    return shape, fortran_order, dtype


def _type_name(dtype):
    return "Python objects" if dtype.hasobject else "records" if dtype.fields is not None else f"{dtype} values"


def read_npz(stream, source):
    """Read the arrays x and y (or None) of an .npz file."""
    try:
        with zipfile.ZipFile(stream) as archive:
            members = archive.namelist()
            if "x.npy" not in members:
                arrays = [name.removesuffix(".npy") for name in members if name.endswith(".npy")]
                what = f"the arrays {listed(arrays)}" if arrays else "no arrays at all"
                raise DataError(
                    f"{source}: holds {what}; expected x and, for training, y (numpy.savez(file, x=..., y=...))"
                )
            found = []
            for member in ("x.npy", "y.npy"):
                if member in members:
                    with archive.open(member) as part:
                        found.append(read_npy(part, f"{source}({member.removesuffix('.npy')})"))
            return found[0], found[1] if len(found) == 2 else None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError) as error:
        if fault := shortage(error, source):
            raise fault from None
        raise DataError(f"{source}: is damaged or not an .npz file ({error})") from None
