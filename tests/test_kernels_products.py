"""Matrices in panels, the register tile, and the dense layer made of them, for shapes that fit no vector."""

import numpy as np
import pytest
from engine import DTYPES, Pair, configure, entry, examples

from mlp_cli.kernels import layout, tile
from mlp_cli.kernels.lanes import at, pointer_to

BATCHES = (1, 3, 7, 129, 1030)
EDGES = (1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 70)
both_types = pytest.mark.parametrize("dtype", DTYPES)


@entry("n(s[:],i,s[:],i,i,s[:],i,i,s[:],i,i,f,f,i,i)")
def product(c, c_row, a, a_row, a_k, b, b_k, depth, start, start_row, mode, alpha, pull, rows, vectors):
    tile.panel_product(
        pointer_to(c), c_row, pointer_to(a), a_row, a_k, pointer_to(b), b_k, depth,
        pointer_to(start), start_row, mode, alpha, pull, rows, vectors,
    )  # fmt: skip


@entry("n(s[:],i,s[:],i)")
def transpose(out, out_row, source, source_row):
    tile.transpose_square(at(pointer_to(out), 0), out_row, at(pointer_to(source), 0), source_row)


def bound(a, b, dtype):
    """How far sums of products may lie from the exact ones: half an ulp a step, of the sums of sizes."""
    return np.finfo(dtype).eps * (a.shape[1] + 1) * (np.abs(a) @ np.abs(b)) + np.finfo(dtype).eps


# --- matrices in memory -----------------------------------------------------------------------------------------


@both_types
def test_pack_and_unpack_are_inverse_and_pad_with_zeros(dtype):
    random = np.random.default_rng(0)
    for inputs in EDGES:
        for units in EDGES:
            matrix = random.normal(size=(inputs, units)).astype(dtype)
            flat = np.full(layout.matrix_size(inputs, units, dtype) + 5, 7.0, dtype)
            layout.pack_matrix(matrix, flat)
            np.testing.assert_array_equal(layout.unpack_matrix(flat, inputs, units), matrix)
            assert np.count_nonzero(flat[:-5]) == np.count_nonzero(matrix)
            assert (flat[-5:] == 7.0).all()


def test_panels_are_contiguous_columns():
    """The documented place: panel, input, column."""
    matrix = np.arange(3 * 20, dtype=np.float64).reshape(3, 20)
    flat = np.zeros(layout.matrix_size(3, 20, "float64"))
    layout.pack_matrix(matrix, flat)
    width, rows = 16, 8
    assert flat.size == 2 * rows * width
    for i in range(3):
        for j in range(20):
            assert flat[j // width * rows * width + i * width + j % width] == matrix[i, j]


@both_types
@pytest.mark.parametrize("n", [1, 8, 1000, 100_003])
def test_memory_begins_on_a_vector(n, dtype):
    array = layout.aligned_zeros(n, dtype)
    assert array.size == n
    assert array.dtype == dtype
    assert array.ctypes.data % layout.VECTOR_BYTES == 0
    assert not array.any()


@both_types
def test_rows_are_whole_vectors_and_no_power_of_two_apart(dtype):
    lanes = layout.lane_count(dtype)
    for n in range(1, 600):
        stride = layout.row_stride(n, dtype)
        assert stride % lanes == 0
        assert n <= stride < n + 2 * lanes
        assert stride <= 3 * lanes or stride // lanes % 2 == 1


# --- the tile ---------------------------------------------------------------------------------------------------


@both_types
def test_every_shape_of_product(dtype):
    """C = start + A B for all depths and columns of 1 … 70, one or two vectors of columns, all batches in turn."""
    random = np.random.default_rng(1)
    lanes = layout.lane_count(dtype)
    for depth in range(1, 71):
        n = BATCHES[depth % len(BATCHES)]
        rows = -(-n // 4) * 4
        vectors = 1 + depth // len(BATCHES) % 2
        a = random.normal(size=(rows, depth)).astype(dtype)
        b = random.normal(size=(depth, vectors * lanes)).astype(dtype)
        start = random.normal(size=vectors * lanes).astype(dtype)
        c = np.full((rows, vectors * lanes), np.nan, dtype)
        expected = start + a.astype(np.float64) @ b
        product(dtype, c.ravel(), c.shape[1], a.ravel(), depth, 1, b.ravel(), vectors * lanes, depth, start, 0,
                tile.REPLACE, 1.0, 0.0, n, vectors)  # fmt: skip
        assert (np.abs(c[:n] - expected[:n]) <= bound(a, b, dtype)[:n] + np.finfo(dtype).eps * np.abs(start)).all()
        # A's strides exchanged: the same chains, so the same bits
        again = np.full_like(c, np.nan)
        turned = np.ascontiguousarray(a.T)
        product(dtype, again.ravel(), c.shape[1], turned.ravel(), 1, rows, b.ravel(), vectors * lanes, depth, start, 0,
                tile.REPLACE, 1.0, 0.0, n, vectors)  # fmt: skip
        np.testing.assert_array_equal(again[:n], c[:n])


@both_types
def test_a_row_has_the_same_bits_in_every_tile(dtype):
    """One chain an element, whether a row is computed alone, in fours or in a tall tile."""
    random = np.random.default_rng(2)
    lanes = layout.lane_count(dtype)
    a = random.normal(size=(64, 37)).astype(dtype)
    b = random.normal(size=(37, 2 * lanes)).astype(dtype)
    start = random.normal(size=2 * lanes).astype(dtype)

    def rows(first, n, vectors=2):
        c = np.zeros((68, 2 * lanes), dtype)
        place = a[first:].ravel()
        product(dtype, c.ravel(), 2 * lanes, place, 37, 1, b.ravel(), 2 * lanes, 37, start, 0, tile.REPLACE, 1.0, 0.0,
                n, vectors)  # fmt: skip
        return c[:n, : vectors * lanes]

    whole = rows(0, 64)
    for first in range(0, 56, 5):
        for n in (1, 2, 3, 5, 8):
            np.testing.assert_array_equal(rows(first, n), whole[first : first + n])
            np.testing.assert_array_equal(rows(first, n, 1), whole[first : first + n, :lanes])


@both_types
def test_add_scaled_rounds_once(dtype):
    """C + alpha (A B) with a B of one row, in exact arithmetic rounded once."""
    random = np.random.default_rng(3)
    lanes = layout.lane_count(dtype)
    a, b = random.normal(size=(8, 1)).astype(dtype), random.normal(size=(1, lanes)).astype(dtype)
    c = random.normal(size=(8, lanes)).astype(dtype)
    before, zeros = c.copy(), np.zeros(lanes, dtype)
    product(dtype, c.ravel(), lanes, a.ravel(), 1, 1, b.ravel(), lanes, 1, zeros, 0, tile.ADD_SCALED, -0.1, 0.0, 8, 1)
    rounded = (a * b).astype(np.longdouble)
    expected = before.astype(np.longdouble) + np.dtype(dtype).type(-0.1).astype(np.longdouble) * rounded
    if dtype == "float32" or np.finfo(np.longdouble).nmant > 60:
        error = np.abs(c.astype(np.longdouble) - expected)
        assert (error <= 0.501 * np.spacing(np.abs(c))).all()


@both_types
@pytest.mark.parametrize("rows", [1, 3, 8, 21])
def test_add_pulled_is_the_step_from_a_penalised_gradient(dtype, rows):
    """C + alpha (A B + pull C) to the bits of three fused operations apart: the sum, the penalty's part, the step."""
    random = np.random.default_rng(4)
    lanes = layout.lane_count(dtype)
    a, b = random.normal(size=(rows + 3, 37)).astype(dtype), random.normal(size=(37, 2 * lanes)).astype(dtype)
    before = random.normal(size=(rows + 3, 2 * lanes)).astype(dtype)
    zeros = np.zeros(2 * lanes, dtype)

    def run(mode, c, alpha, pull, factor=a, other=b):
        shape = 2 * lanes, factor.ravel(), factor.shape[1], 1, other.ravel(), 2 * lanes, factor.shape[1], zeros, 0
        product(dtype, c.ravel(), *shape, mode, alpha, pull, rows, 2)
        return c

    gradient = run(tile.REPLACE, np.zeros_like(before), 1.0, 0.0)
    # fma(0.01, C, sum), then fma(-0.1, that, C): as products of one column with a row of nothing but C
    one, penalised, expected = np.ones((rows + 3, 1), dtype), gradient.copy(), before.copy()
    for i in range(rows):
        product(dtype, penalised[i], 2 * lanes, one.ravel(), 1, 1, before[i], 2 * lanes, 1, zeros, 0,
                tile.ADD_SCALED, 0.01, 0.0, 1, 2)  # fmt: skip
        product(dtype, expected[i], 2 * lanes, one.ravel(), 1, 1, penalised[i], 2 * lanes, 1, zeros, 0,
                tile.ADD_SCALED, -0.1, 0.0, 1, 2)  # fmt: skip
    np.testing.assert_array_equal(run(tile.ADD_PULLED, before.copy(), -0.1, 0.01)[:rows], expected[:rows])


@both_types
def test_a_square_of_lanes_is_transposed(dtype):
    lanes = layout.lane_count(dtype)
    source = np.arange(lanes * (lanes + 3), dtype=dtype).reshape(lanes, lanes + 3)
    out = np.zeros((lanes, lanes + 5), dtype)
    transpose(dtype, out.ravel(), lanes + 5, source.ravel(), lanes + 3)
    np.testing.assert_array_equal(out[:, :lanes], source[:, :lanes].T)
    assert not out[:, lanes:].any()


# --- the dense layer --------------------------------------------------------------------------------------------


def shapes():
    """(inputs, units, batch): every number of inputs and of units from 1 to 70, and the edges with each other."""
    units = np.random.default_rng(4).permutation(np.arange(1, 71))
    pairs = [(int(i), int(k)) for i, k in zip(range(1, 71), units, strict=True)]
    pairs += [(EDGES[i], EDGES[-1 - i]) for i in range(len(EDGES))] + [(n, n) for n in EDGES]
    return [(i, k, BATCHES[number % len(BATCHES)]) for number, (i, k) in enumerate(pairs)]


def assert_agrees(ours, theirs, dtype, label):
    """Equal to a few roundings of the largest element."""
    tolerance = {"float64": 1e-13, "float32": 4e-6}[dtype]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * max(1.0, np.abs(theirs).max()), err_msg=label)


@both_types
def test_dense_layers_of_odd_shapes_agree_with_the_twin(dtype):
    """Outputs, and gradients of both layers (the first one's needs dx of the second)."""
    for inputs, units, n in shapes():
        layers = [{"units": units, "activation": "tanh"}, {"activation": "tanh"}]
        rows = examples(n, inputs, 1 + inputs % 19, seed=inputs)
        rows.x = rows.x.astype(dtype).astype(np.float64)
        rows.values = rows.values.astype(dtype).astype(np.float64)
        label = f"{inputs} inputs, {units} units, {n} rows"
        with Pair(configure(layers, dtype=dtype), rows, check=True) as pair:
            ours, theirs = pair.gradients(), pair.twin.gradients(*pair.batch(0))
            for name, gradient in ours.items():
                assert_agrees(gradient, theirs[name], dtype, f"{name}, {label}")
            assert_agrees(pair.outputs(), pair.twin.forward(rows.x), dtype, label)


@both_types
def test_a_step_does_not_depend_on_whether_the_gradient_is_kept(dtype):
    """Plain descent straight from the tile, in the cache, or through a kept gradient: the same bits."""
    for n in (5, 128, 129, 700):
        rows = examples(n, 19, 3)
        digests = []
        # a norm beyond reach keeps the gradient, a value beyond reach takes the general update
        for clip in ({}, {"clip_value": 1e9}, {"clip_norm": 1e9}):
            config = configure([{"units": 37, "activation": "sin"}, {}], dtype=dtype, optimizer={"name": "sgd"} | clip)
            with Pair(config, rows) as pair:
                pair.train()
                digests.append(pair.digest())
        assert len(set(digests)) == 1, n
