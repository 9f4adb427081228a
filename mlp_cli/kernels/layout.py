"""How networks lie in memory: the records that Python fills and kernels read, and the padded form of a matrix.

Letters used in the kernels: N rows (samples), D inputs, K units, L lanes of a vector, P = 2 L columns of a panel.

- A row of activations is padded to whole vectors; rows are an odd number of vectors apart (no power-of-two strides).
- A weight matrix (inputs x units) is cut into panels of P columns, each contiguous: panel, input, column. A layer of
  at most L units has one panel of L columns.
- Padding holds zeros, in activations, parameters, gradients and moments alike.
"""

import contextlib
import itertools
import mmap

import numpy as np

VECTOR_BYTES = 64

# The size of the large pages of x86-64 and ARM, and of arrays that are worth one.
LARGE_PAGE, LARGE_PAGES_FROM = 2 << 20, 128 << 10
_arrays = itertools.count()

# Kinds of ops.
DENSE, ADD, HIGHWAY, CONCAT, LAYER_NORM, BATCH_NORM, POSITIONAL, DROPOUT, NOISE = range(9)

# How an op hands the gradient to its source: not at all, as the first writer, or on top of what is there.
NO_GRADIENT, STORE, ACCUMULATE = -1, 0, 1

# A training step is a list of phases with a barrier after each.
ROWS, STATISTICS_FORWARD, STATISTICS_BACKWARD, GRADIENT, NORM, UPDATE, MAX_NORM = range(7)

# How the inputs of the data are stored: as the network takes them, or, counted from 1, as elements of these types.
AS_THEY_ARE = 0
ELEMENTS = ("float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool")
CACHE_LINE = 64
ADDRESS_BYTES = 8

# Rows that one trip over the ops takes at a time, and the rows of one chain of a gradient's or a loss's sums.
# Batches go through the workspace in chunks of whole blocks.
ROW_BLOCK = 128
# Elements of one partial sum of squares of the gradient's norm.
NORM_BLOCK = 1024

# Vectors of a gradient that an optimizer's step takes at a time: they and theirs stay in the first-level cache.
NEAR_VECTORS = 64

# Parameters and moments beyond this do not stay in the second-level cache: they are asked for in time.
FAR_BYTES = 512 * 1024

# A thread's scratch memory, in elements: zeros, the step's coefficients, a block of gradient, what the losses of a
# square of rows and classes need, a transposed panel.
SCRATCH_ZEROS, SCRATCH_COEFFICIENTS, SCRATCH_GRADIENT, SCRATCH_LOSS, SCRATCH_TRANSPOSED = 0, 32, 64, 1088, 1408

# Words of the control block, each on a cache line of its own (8 int64).
STOP, DONE, PROGRESS, STATUS, HALT, NEXT, CLAIMS = (8 * i for i in range(7))
# Values of the STATUS word: all is well; a loss was not finite; a long step was begun and given up.
RUNNING, NOT_FINITE, GIVEN_UP = 0, 1, 2
# Values of the STOP word: go on; end after this step; give a long step up.
GO_ON, STOP_AFTER_STEP, STOP_NOW = 0, 1, 2

# The running sums of an epoch: Σ w loss, rows, Σ metric weights, Σ weights of right answers, then a confusion matrix
# (class, prediction) or, for each target, Σ w e², Σ w |e|, Σ w t, Σ w t².
TOTAL_LOSS, TOTAL_ROWS, TOTAL_WEIGHT, TOTAL_CORRECT, TOTALS_HEAD = range(5)
SQUARED_ERROR, ABSOLUTE_ERROR, TARGET_SUM, TARGET_SQUARES, TARGET_TOTALS = range(5)

_INT, _FLOAT, _ADDRESS = np.int64, np.float64, np.uint64


def _fields(ints: str, floats: str = "", addresses: str = "") -> np.dtype:
    pairs = [(name, _ADDRESS) for name in addresses.split()]
    pairs += [(name, _INT) for name in ints.split()]
    pairs += [(name, _FLOAT) for name in floats.split()]
    return np.dtype(pairs)


# One op. Buffers are offsets into the workspace: row i of a buffer begins at offset + i * stride. `before` is what
# the derivative of the activation is computed from: the pre-activations, or the result itself. `second` is the other
# operand of add, highway and concat. `elsewhere` says that the source holds the addresses of rows in place of the rows.
# `weight`, `bias` and `state` are offsets into the flat vectors.
OP = _fields(
    ints="""kind inputs units
        source source_stride source_gradient source_write elsewhere
        result result_stride result_gradient
        before before_stride
        second second_stride second_gradient
        gate gate_stride gate_gradient
        weight bias state auxiliary
        activation stream learns passes""",
    floats="a b",
)

# One parameter: a dense weight matrix (inputs x units), or a vector (one row of units).
BLOCK = _fields(ints="offset inputs padded_inputs units matrix learns")

PHASE = _fields(ints="kind op forward_from forward_to gather loss backward_from backward_to account last")

JOB = _fields(
    addresses="""x x_rows x_shift x_scale target_classes target_values loss_weights metric_weights
        gradient moment1 moment2 state workspace scratch row_losses row_predictions partials control totals
        totals_before state_before outputs
        seed""",
    ints="""features outputs_count row_count
        x_stride x_bytes x_element in_place target_bytes ahead
        input input_stride output output_stride output_gradient target target_stride
        workspace_size scratch_size
        loss output_activation single_unit sum_reduction
        optimizer direct keep_gradient
        batch_size chunk_rows first_step end_step epoch tasks spin
        classes confusion partial_count parameter_count totals_size state_size training
        far_parameters by_sample""",
    floats="low high middle loss_option output_a output_b l1 l2 clip_value clip_norm max_norm",
)


def lane_count(dtype) -> int:
    """Lanes of a vector: 16 for float32, 8 for float64."""
    return VECTOR_BYTES // np.dtype(dtype).itemsize


def padded(n: int, dtype) -> int:
    """n rounded up to whole vectors."""
    lanes = lane_count(dtype)
    return -(-n // lanes) * lanes


def row_stride(n: int, dtype) -> int:
    """Elements from one row of n activations to the next: whole vectors, an odd number of them beyond three."""
    lanes = lane_count(dtype)
    vectors = -(-n // lanes)
    if vectors > 3 and vectors % 2 == 0:
        vectors += 1
    return vectors * lanes


def panel_width(units: int, dtype) -> int:
    """Columns of a panel of a weight matrix with this many units."""
    lanes = lane_count(dtype)
    return 2 * lanes if units > lanes else lanes


def matrix_size(inputs: int, units: int, dtype) -> int:
    """Elements of a padded matrix."""
    width = panel_width(units, dtype)
    return -(-units // width) * width * padded(inputs, dtype)


def pack_matrix(matrix: np.ndarray, out: np.ndarray) -> None:
    """Write a plain matrix (inputs, units) in panels into the flat vector `out`."""
    inputs, units = matrix.shape
    width = panel_width(units, out.dtype)
    panels = -(-units // width)
    full = np.zeros((padded(inputs, out.dtype), panels * width), out.dtype)
    full[:inputs, :units] = matrix
    out[: full.size] = full.reshape(full.shape[0], panels, width).transpose(1, 0, 2).reshape(-1)


def unpack_matrix(flat: np.ndarray, inputs: int, units: int) -> np.ndarray:
    """The plain matrix (inputs, units) that lies in panels at the start of `flat`."""
    width = panel_width(units, flat.dtype)
    panels = -(-units // width)
    rows = padded(inputs, flat.dtype)
    full = flat[: panels * rows * width].reshape(panels, rows, width).transpose(1, 0, 2)
    return np.ascontiguousarray(full.reshape(rows, panels * width)[:inputs, :units])


def aligned_zeros(n: int, dtype) -> np.ndarray:
    """n zeros that begin on a vector boundary, in large pages where that is worth it.

    Processors do not fetch ahead across the end of a page, and small pages of a network's memory do not all fit in
    the first table of addresses: 784-128-10 trains 10 % faster in large ones.
    """
    dtype = np.dtype(dtype)
    size = n * dtype.itemsize
    if size >= LARGE_PAGES_FROM:
        return _in_large_pages(size)[:size].view(dtype)
    raw = np.zeros(n + lane_count(dtype), dtype)
    skip = (-raw.ctypes.data % VECTOR_BYTES) // dtype.itemsize
    return raw[skip : skip + n]


def _in_large_pages(size: int) -> np.ndarray:
    """So many zero bytes, in an anonymous mapping for which the system may use large pages."""
    # arrays that began at the same place of a page would compete for the same lines of the caches
    stagger = next(_arrays) % 16 * 65 * VECTOR_BYTES
    length = -(-(size + stagger) // LARGE_PAGE) * LARGE_PAGE
    try:
        # private: mappings are shared by default, and those get no large pages where files in memory get none
        area = mmap.mmap(-1, length + LARGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError) as error:
        raise MemoryError from error
    raw = np.frombuffer(area, np.uint8)
    start = -raw.ctypes.data % LARGE_PAGE
    with contextlib.suppress(AttributeError, OSError):  # no such pages on this system
        area.madvise(mmap.MADV_HUGEPAGE, start, length)
    return raw[start + stagger : start + stagger + size]
