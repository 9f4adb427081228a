"""Inputs that stay as they are stored and become the network's numbers when rows are met.

Bytes in memory take a quarter of the float32 that they become; in a mapped file the inputs take no memory of their own.
The numbers are the same to the bit as those of the matrix that would be made of them.
"""

from dataclasses import dataclass

import numpy as np

from mlp_cli.data.arrayfile import ArrayFile


@dataclass
class StoredRows:
    """Rows of inputs, (n, d): each is (stored[row] - shift) / scale in float64, rounded to `dtype`.

    stored (N, d): numbers of one of the types of `kernels.layout.ELEMENTS`, those of a row side by side. rows uint32
    (n,): which of them are meant, None for all. shift and scale float64 (d,), or None where the numbers are taken as
    they are. file: where `stored` is mapped from, None for memory.
    """

    stored: np.ndarray
    dtype: np.dtype
    shift: np.ndarray | None = None
    scale: np.ndarray | None = None
    rows: np.ndarray | None = None
    file: ArrayFile | None = None

    def __len__(self):
        return len(self.stored) if self.rows is None else len(self.rows)

    @property
    def shape(self):
        """(n, d)."""
        return len(self), self.stored.shape[1]

    def __array__(self, dtype=None, copy=None):
        """The matrix of the network's numbers, (n, d)."""
        x = (self.stored if self.rows is None else self.stored[self.rows]).astype(np.float64)
        if self.shift is not None:
            x -= self.shift
            x /= self.scale
        return x.astype(self.dtype).astype(dtype or self.dtype, copy=False)

    def check(self):
        """DataError where the file they are mapped from is no longer what it was."""
        if self.file is not None:
            self.file.check()

    def expect(self, random):
        """Tell the system whether rows of a mapped file will be met at random or one after the other."""
        if self.file is not None:
            self.file.expect(random)
