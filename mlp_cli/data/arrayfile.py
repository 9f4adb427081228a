"""Numbers that stay in their file: read some rows at a time, or mapped into memory where kernels find them.

Reading by rows holds a few megabytes however long the file is, and a file that shrinks meanwhile is a short read, never
a crash. A map that kernels walk over can be hurt by that: `check` is to be called before they do, and after, for the
rest of a page that the file's end lies in reads as zeros; what lies beyond raises SIGBUS, and `map_error` says why.
"""

import math
import mmap
import os
import weakref

import numpy as np

from mlp_cli.errors import DataError, shortage
from mlp_cli.wording import plural, sizes

_mapped: "weakref.WeakSet[ArrayFile]" = weakref.WeakSet()


class ArrayFile:
    """A matrix (n, d) of numbers in an open file; images are rows, flattened.

    `x[a:b]` reads rows a … b - 1 as a new array, `column(j)` a whole column; `mapped()` is the matrix in mapped memory.
    """

    def __init__(self, descriptor, source, offset, shape, dtype, columns_first=False):
        """The array of this shape and type that begins at byte `offset` of an open file, which is kept open.

        columns_first: it is a matrix in Fortran's order. DataError where the file does not hold as many bytes.
        """
        self.source, self.dtype, self.columns_first = source, dtype, columns_first
        self.shape, self.flattened = (shape[0], math.prod(shape[1:])), len(shape) > 2
        self._offset = offset
        self._file = os.fdopen(os.dup(descriptor), "rb", buffering=0)
        self._map = self._matrix = None
        found = os.fstat(descriptor)
        self._seen = found.st_size, found.st_mtime_ns
        refuse_size(found.st_size - offset, shape, dtype, source)

    def __del__(self):
        if hasattr(self, "_file"):
            self._file.close()

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        start, stop, _ = rows.indices(len(self))
        height, width = stop - start, self.shape[1]
        if not self.columns_first:
            values = np.empty((height, width), self.dtype)
            self._fill(values, start * width)
        else:
            values = np.empty((width, height), self.dtype)
            for number, column in enumerate(values):
                self._fill(column, number * len(self) + start)
            values = values.T
        if self.dtype.kind == "b":
            return values.view(np.uint8) != 0  # a file may hold booleans beyond 0 and 1
        return values

    def column(self, number, step):
        """Column `number` (n,), read `step` rows at a time."""
        values = np.empty(len(self), self.dtype)
        for start in range(0, len(self), step):
            values[start : start + step] = self[start : start + step][:, number]
        return values

    def _fill(self, values, first):
        """Read elements from number `first` on into a contiguous array."""
        left = memoryview(values.reshape(-1).view(np.uint8))
        try:
            self._file.seek(self._offset + first * self.dtype.itemsize)
            while left and (count := self._file.readinto(left)):
                left = left[count:]
        except OSError as error:
            if fault := shortage(error, self.source):
                raise fault from None
            raise DataError(f"{self.source}: cannot be read: {error.strerror or error}") from None
        if left:
            raise DataError(f"{self.source}: has shrunk while it was read; restore it and run the command again")

    def mapped(self):
        """The matrix in mapped memory, read-only; for matrices whose rows are contiguous."""
        if self._matrix is None:
            self.check()
            numbers = math.prod(self.shape)
            length = self._offset + numbers * self.dtype.itemsize
            self._map = mmap.mmap(self._file.fileno(), length, access=mmap.ACCESS_READ)
            _mapped.add(self)
            self._matrix = np.frombuffer(self._map, self.dtype, numbers, self._offset).reshape(self.shape)
        return self._matrix

    def expect(self, random):
        """Tell the system whether rows of the map will be met at random, so that it reads ahead only where it helps."""
        if hasattr(mmap, "MADV_RANDOM"):
            self._map.madvise(mmap.MADV_RANDOM if random else mmap.MADV_NORMAL)

    def check(self):
        """DataError where the file is no longer the one that was opened: touching what it lost kills the process."""
        found = os.fstat(self._file.fileno())
        size, modified = self._seen
        if found.st_size < size:
            lost = f"has shrunk from {size} to {plural(found.st_size, 'byte')}"
        elif found.st_mtime_ns != modified:
            lost = "was written to"
        else:
            return
        raise DataError(
            f"{self.source}: {lost} while it was mapped into memory; restore it and run the command again (training "
            "goes on from the last checkpoint with --resume)"
        )


def map_error():
    """The DataError for mapped memory that turned out not to be there."""
    for file in list(_mapped):
        try:
            file.check()
        except DataError as error:
            return error
    names = ", ".join(sorted({file.source for file in _mapped})) or "a file"
    return DataError(f"{names}: is mapped into memory and cannot be read there; is its disk in order?")


def refuse_size(found, shape, dtype, source):
    """DataError unless exactly the bytes of an array of this shape and type follow its header, and there are any."""
    expected = math.prod(shape) * dtype.itemsize
    if found != expected:
        follow = f"{max(found, 0)} bytes follow" if found < expected else "more bytes follow"
        raise DataError(f"{source}: the header says {sizes(shape)} numbers of {dtype}, {expected} bytes; {follow}")
    if expected == 0:
        raise DataError(f"{source}: holds no numbers")
