"""The register tile that every matrix product is made of: C = start + A B for a few rows and one or two vectors.

The accumulators are stack slots that LLVM promotes to registers. B is loaded along its rows; A is broadcast with any
two strides, so that the gradient AᵀD is the same tile with A's strides exchanged. Each element of C is one chain of
fused multiply-adds over k, whatever the tile: the same bits for every shape of tile and every processor.
"""

from mlp_cli.kernels import processor
from mlp_cli.kernels.jit import kernel
from mlp_cli.kernels.lanes import at, intrinsic, lanes_of

# What happens to C, where R = start + A B: replaced by R; C + alpha R, rounded once; or C + alpha (R + pull C), which
# is gradient descent with an L2 penalty, in the operations of `optimizers.shape_gradient` and `optimizer_step`.
REPLACE, ADD_SCALED, ADD_PULLED = 0, 1, 2

# 8 x 2 vectors hold 16 accumulators: fine with 32 registers; with 16 they spill (44 % of the limit instead of 90 %).
# NEON has 32 registers too, but of 4 floats: the small tile fits better there.
WIDE = "+avx512f" in processor.features()
TALL_ROWS = 8 if WIDE else 6
# Tall tiles are used as long as what remains is a multiple of 4 rows.
TALL_STEP = 8 if WIDE else 12

# Rows of a weight matrix whose gradient is computed in one go, where that goes by stripes; fewer where an optimizer's
# step on them follows, whose divisions then overlap with the next rows' products (adam on 784-512-512-10: 8 % faster
# with 8 rows than with 32).
GRADIENT_ROWS, UPDATE_ROWS = (32, 8) if WIDE else (24, 12)


def _emit_tile(rows: int, vectors: int):
    """A generator for the tile of `rows` x `vectors`.

    c, c_row: C and its row stride. a, a_row, a_k: A, its stride from row to row and along k. b, b_k: B and its stride
    along k. depth: the length of the chains. start, start_row: the accumulators' first values. mode, alpha, pull: see above.
    """

    def tile(e, c, c_row, a, a_row, a_k, b, b_k, depth, start, start_row, mode, alpha, pull):
        sums = [
            [e.variable(e.load(e.at(start, start_row * i + e.lanes * j))) for j in range(vectors)] for i in range(rows)
        ]

        def step(k):
            b_row = e.at(b, k * b_k)
            b_values = [e.load(e.at(b_row, e.lanes * j)) for j in range(vectors)]
            a_column = e.at(a, k * a_k)
            for i in range(rows):
                a_value = e.splat(e.load_scalar(e.at(a_column, a_row * i)))
                for j in range(vectors):
                    sums[i][j].set(e.fma(a_value, b_values[j], sums[i][j].get()))

        e.repeat(depth, 2 if rows * vectors >= 8 else 4, step)
        results = [[sums[i][j].get() for j in range(vectors)] for i in range(rows)]
        places = [[e.at(c, c_row * i + e.lanes * j) for j in range(vectors)] for i in range(rows)]

        def replace():
            for i in range(rows):
                for j in range(vectors):
                    e.store(places[i][j], results[i][j])

        def add_scaled():
            factor = e.splat_double(alpha)
            for i in range(rows):
                for j in range(vectors):
                    e.store(places[i][j], e.fma(results[i][j], factor, e.load(places[i][j])))

        def add_pulled():
            factor, of_c = e.splat_double(alpha), e.splat_double(pull)
            for i in range(rows):
                for j in range(vectors):
                    before = e.load(places[i][j])
                    e.store(places[i][j], e.fma(e.fma(of_c, before, results[i][j]), factor, before))

        e.switch(mode, {REPLACE: replace, ADD_SCALED: add_scaled, ADD_PULLED: add_pulled})

    return tile


def _tile(rows, vectors):
    return intrinsic("n(p,i,p,i,i,p,i,i,p,i,i,f,f)")(_emit_tile(rows, vectors))


tall_2, tall_1 = _tile(TALL_ROWS, 2), _tile(TALL_ROWS, 1)
four_2, four_1 = _tile(4, 2), _tile(4, 1)
one_2, one_1 = _tile(1, 2), _tile(1, 1)


@kernel("n(p,i,p,i,i,p,i,i,p,i,i,f,f,i)")
def panel_product_1(c, c_row, a, a_row, a_k, b, b_k, depth, start, start_row, mode, alpha, pull, rows):
    """`panel_product` for one vector of columns."""
    i = 0
    while i + TALL_STEP <= rows:
        tall_1(at(c, i * c_row), c_row, at(a, i * a_row), a_row, a_k, b, b_k, depth,
               at(start, i * start_row), start_row, mode, alpha, pull)  # fmt: skip
        if TALL_STEP > TALL_ROWS:
            h = i + TALL_ROWS
            tall_1(at(c, h * c_row), c_row, at(a, h * a_row), a_row, a_k, b, b_k, depth,
                   at(start, h * start_row), start_row, mode, alpha, pull)  # fmt: skip
        i += TALL_STEP
    if rows - i == 1:
        one_1(at(c, i * c_row), c_row, at(a, i * a_row), a_row, a_k, b, b_k, depth,
              at(start, i * start_row), start_row, mode, alpha, pull)  # fmt: skip
        i += 1
    while i < rows:
        four_1(at(c, i * c_row), c_row, at(a, i * a_row), a_row, a_k, b, b_k, depth,
               at(start, i * start_row), start_row, mode, alpha, pull)  # fmt: skip
        i += 4


@kernel("n(p,i,p,i,i,p,i,i,p,i,i,f,f,i,i)")
def panel_product(c, c_row, a, a_row, a_k, b, b_k, depth, start, start_row, mode, alpha, pull, rows, vectors):
    """C = start + A B (or what `mode` makes of that) for any number of rows and a panel of 1 or 2 vectors of columns.

    Rows are taken four at a time at the end: C and A must have room for rows rounded up to 4, unless there is one.
    """
    i = 0
    if WIDE and vectors == 2:
        while i + TALL_STEP <= rows:
            tall_2(at(c, i * c_row), c_row, at(a, i * a_row), a_row, a_k, b, b_k, depth,
                   at(start, i * start_row), start_row, mode, alpha, pull)  # fmt: skip
            i += TALL_STEP
        if rows - i == 1:
            one_2(at(c, i * c_row), c_row, at(a, i * a_row), a_row, a_k, b, b_k, depth,
                  at(start, i * start_row), start_row, mode, alpha, pull)  # fmt: skip
            i += 1
        while i < rows:
            four_2(at(c, i * c_row), c_row, at(a, i * a_row), a_row, a_k, b, b_k, depth,
                   at(start, i * start_row), start_row, mode, alpha, pull)  # fmt: skip
            i += 4
    else:
        lanes = lanes_of(c)
        for j in range(vectors):
            panel_product_1(at(c, j * lanes), c_row, a, a_row, a_k, at(b, j * lanes), b_k, depth,
                            at(start, j * lanes), start_row, mode, alpha, pull, rows)  # fmt: skip


def emit_transposed(e, rows, wanted=None):
    """The columns with the numbers `wanted`, or all, of a square that lies in L vectors.

    Ever smaller squares of it are exchanged; four columns take 20 exchanges of 16 rows, all of them 64.
    """
    n = e.lanes
    made = {(n, i): row for i, row in enumerate(rows)}

    def vector(step, i):
        """Vector i after squares of `step` x `step`, and all larger ones, were exchanged."""
        if (step, i) not in made:
            x, y = vector(2 * step, i & ~step), vector(2 * step, i | step)
            # the lanes of x and y that become this vector
            lanes = [j + (i & step) if not j & step else n + j - step + (i & step) for j in range(n)]
            made[step, i] = e.shuffle(x, y, lanes)
        return made[step, i]

    return [vector(1, i) for i in (range(n) if wanted is None else wanted)]


@intrinsic("n(p,i,p,i)")
def transpose_square(e, out, out_row, source, source_row):
    """Transpose a square of L x L elements in registers."""
    columns = emit_transposed(e, [e.load(e.at(source, source_row * i)) for i in range(e.lanes)])
    for i, column in enumerate(columns):
        e.store(e.at(out, out_row * i), column)
