"""Rows fetched from wherever they are stored, against NumPy: every type, ragged widths, scales, and choices of rows."""

import numpy as np
import pytest
from engine import DTYPES, entry

from mlp_cli.data.stored import StoredRows
from mlp_cli.kernels import gather, layout
from mlp_cli.kernels.lanes import pointer_to
from mlp_cli.network.machine import Rows

WIDTHS = (1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100)
both_types = pytest.mark.parametrize("dtype", DTYPES)


@entry("n(jobs,s[:],rows,i,i,i)")
def fetch(jobs, workspace, rows, first_draw, start, n):
    gather.gather(jobs[0], pointer_to(workspace), rows, first_draw, start, n)


def job_for(rows, dtype, **fields):
    """(job for these rows, workspace of 40 rows of inputs and then 40 of targets, views of both)."""
    width, outputs = rows.x.shape[1], fields.get("outputs_count", 1)
    stride, target_stride = layout.row_stride(width, dtype), layout.row_stride(outputs, dtype)
    workspace = layout.aligned_zeros(40 * (stride + target_stride), dtype)
    workspace[:] = 77.0
    jobs = np.zeros(1, layout.JOB)
    job = jobs[0]
    rows.describe_inputs(job, np.dtype(dtype))
    job["features"], job["input"], job["input_stride"] = width, 0, stride
    job["target"], job["target_stride"], job["outputs_count"] = 40 * stride, target_stride, outputs
    for name, value in fields.items():
        job[name] = value
    inputs, targets = workspace[: 40 * stride].reshape(40, stride), workspace[40 * stride :].reshape(40, target_stride)
    return jobs, workspace, inputs, targets


def numbers(name, n, width, seed=0):
    """Any numbers of a type, its extremes among them."""
    random = np.random.default_rng(seed)
    element = np.dtype(name)
    if element.kind == "f":
        x = (random.normal(size=(n, width)) * 10.0 ** random.integers(-3, 4, (n, width))).astype(element)
        x[0, 0], x[-1, -1] = -0.0, np.finfo(element).tiny / 4
        return x
    if element.kind == "b":
        return random.random((n, width)) < 0.5
    limits = np.iinfo(element)
    x = random.integers(limits.min, limits.max, (n, width), element, endpoint=True)
    x[0, 0], x[-1, -1] = limits.min, limits.max
    return x


def expected(x, shift, scale, dtype):
    return ((x.astype(np.float64) - shift) / scale).astype(dtype)


@both_types
@pytest.mark.parametrize("name", layout.ELEMENTS)
def test_every_type_becomes_what_numpy_makes_of_it(name, dtype):
    order = np.random.default_rng(1).permutation(50).astype(np.uint32)
    for width in WIDTHS:
        x = numbers(name, 50, width)
        random = np.random.default_rng(width)
        shift, scale = random.normal(size=width), random.lognormal(0, 2, width)
        scale[0] = np.inf  # a column that was constant in training
        for given in ((None, None), (np.zeros(width), np.full(width, 255.0)), (shift, scale)):
            rows = Rows(StoredRows(x, np.dtype(dtype), *given))
            jobs, workspace, inputs, _ = job_for(rows, dtype)
            fetch(dtype, jobs, workspace, order, 7, 3, 30)
            plain = (np.zeros(width), np.ones(width)) if given[0] is None else given
            wanted = expected(x[order[10:40]], *plain, dtype)
            assert inputs[3:33, :width].tobytes() == wanted.tobytes(), (width, given)
            assert not inputs[3:33, width : layout.padded(width, dtype)].any()
            assert (inputs[:3] == 77.0).all()
            assert (inputs[33:] == 77.0).all()
            np.testing.assert_array_equal(wanted, np.asarray(rows.x)[order[10:40]])


@both_types
def test_the_network_s_own_numbers_are_copied(dtype):
    for width in WIDTHS:
        x = numbers(dtype, 40, width)
        jobs, workspace, inputs, _ = job_for(Rows(x), dtype)
        assert jobs[0]["x_element"] == layout.AS_THEY_ARE
        fetch(dtype, jobs, workspace, np.arange(40, dtype=np.uint32)[::-1].copy(), 0, 0, 40)
        assert inputs[:, :width].tobytes() == x[::-1].tobytes()
        assert not inputs[:, width : layout.padded(width, dtype)].any()


@both_types
@pytest.mark.parametrize("name", ["float32", "float64", "uint8"])
def test_rows_lie_apart_begin_anywhere_and_are_chosen(name, dtype):
    """A column range of a wider matrix that begins at an odd byte, of which a split has some rows."""
    whole = numbers(name, 90, 23)
    space = np.zeros(whole.nbytes + 1, np.uint8)[1:]
    space[:] = whole.reshape(-1).view(np.uint8)
    stored = space.view(name).reshape(90, 23)[:, 3:20]
    chosen = np.sort(np.random.default_rng(2).permutation(90)[:40]).astype(np.uint32)
    order = np.random.default_rng(3).permutation(40).astype(np.uint32)
    jobs, workspace, inputs, _ = job_for(Rows(StoredRows(stored, np.dtype(dtype), rows=chosen)), dtype)
    fetch(dtype, jobs, workspace, order, 0, 0, 40)
    wanted = whole[:, 3:20][chosen][order].astype(np.float64).astype(dtype)
    assert inputs[:, :17].tobytes() == wanted.tobytes()


@both_types
def test_nothing_beyond_the_last_row_is_read(dtype):
    """The last row ends with the last byte of a mapped page; what lies behind may not be touched."""
    import mmap

    page = mmap.mmap(-1, 2 * mmap.PAGESIZE)
    memory = np.frombuffer(page, np.uint8)
    guard = memory.ctypes.data + mmap.PAGESIZE
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(guard), mmap.PAGESIZE, 0) == 0
    try:
        for name in layout.ELEMENTS:
            for width in (1, 5, 17):
                size = 3 * width * np.dtype(name).itemsize
                x = memory[mmap.PAGESIZE - size : mmap.PAGESIZE].view(name).reshape(3, width)
                jobs, workspace, inputs, _ = job_for(Rows(StoredRows(x, np.dtype(dtype))), dtype)
                fetch(dtype, jobs, workspace, np.arange(3, dtype=np.uint32), 0, 0, 3)
                assert not inputs[:3, :width].any()
    finally:
        libc.mprotect(ctypes.c_void_p(guard), mmap.PAGESIZE, 3)


@both_types
def test_targets_come_with_their_rows(dtype):
    order = np.random.default_rng(1).permutation(40).astype(np.uint32)
    x = numbers(dtype, 40, 5)
    values = numbers(dtype, 40, 3)
    jobs, workspace, _, targets = job_for(
        Rows(x), dtype, outputs_count=3, target_values=values.ctypes.data, target_bytes=values.strides[0]
    )
    fetch(dtype, jobs, workspace, order, 0, 0, 40)
    np.testing.assert_array_equal(targets[:, :3], values[order])
    assert not targets[:, 3 : layout.padded(3, dtype)].any()
