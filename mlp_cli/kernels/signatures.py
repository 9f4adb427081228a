"""The letters in which the signatures of kernels are written: `"n(s[:],jobs,i)"` is the result and the arguments.

n nothing, i int64, u uint64 (an address), f float64, b boolean; p a pointer to scalars, v a vector of them; s[:] an
array of scalars, a any array. The scalar type is that for which a kernel is compiled. The other letters are below.
"""

import numpy as np

from mlp_cli.kernels.layout import BLOCK, JOB, OP, PHASE

# One element of an array of records, passed by its address.
RECORDS = {"job": JOB, "op": OP, "block": BLOCK, "phase": PHASE}

# Arrays: the type of their elements, and the number of their dimensions.
ARRAYS = {
    "f[:]": (np.dtype(np.float64), 1),
    "i[:]": (np.dtype(np.int64), 1),
    "rows": (np.dtype(np.uint32), 1),
    "table": (np.dtype(np.float64), 2),
    "jobs": (JOB, 1),
    "ops": (OP, 1),
    "blocks": (BLOCK, 1),
    "phases": (PHASE, 1),
}


def parse(signature: str) -> tuple[str, list[str]]:
    """The letters of the result and of the arguments."""
    result, _, arguments = signature.rstrip(")").partition("(")
    return result, [letter.strip() for letter in arguments.split(",") if letter.strip()]


def array_of(letter: str, dtype: str) -> tuple[np.dtype, int] | None:
    """Element type and dimensions of an array argument of a kernel that is compiled for `dtype`; None for others."""
    return (np.dtype(dtype), 1) if letter == "s[:]" else ARRAYS.get(letter)
