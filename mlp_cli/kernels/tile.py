"""The register tile that every matrix product is made of: C = start + A B for a few rows and one or two vectors.

The accumulators are stack slots that LLVM promotes to registers. B is loaded along its rows; A is broadcast with any
two strides, so that the gradient AᵀD is the same tile with A's strides exchanged, or from rows that lie anywhere. Each
element of C is one chain of fused multiply-adds over k, whatever the tile: the same bits for every shape of tile and
every processor.
"""

from mlp_cli.kernels import processor
from mlp_cli.kernels.emit import INT64, Value
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


# --- where the numbers of A are -------------------------------------------------------------------------------------


def _strided(e, a, a_row, a_k, first, rows):
    """A[i, k] is element i a_row + k a_k from a."""

    def column(k):
        start = e.at(a, first * a_row + k * a_k)
        return [e.at(start, a_row * i) for i in range(rows)]

    return column


def _row_at(e, cell):
    """The row whose address lies in a cell."""
    address = e.builder.load(e.builder.bitcast(cell.llvm, INT64.as_pointer()), align=8)
    return Value(e, e.builder.inttoptr(address, cell.type))


def _rows_elsewhere(e, a, a_row, a_k, first, rows):
    """A[i, k] is number k of the row whose address lies i a_row elements from a."""
    starts = [_row_at(e, e.at(a, (first + i) * a_row)) for i in range(rows)]
    return lambda k: [e.at(start, k) for start in starts]


def _columns_elsewhere(e, a, column, a_k, first, rows):
    """A[i, k] is number column + i of the row whose address lies k a_k elements from a."""

    def of(k):
        start = e.at(_row_at(e, e.at(a, k * a_k)), column + first)
        return [e.at(start, i) for i in range(rows)]

    return of


# --- tiles ----------------------------------------------------------------------------------------------------------


def _tile(source, rows: int, vectors: int):
    """The tile of `rows` x `vectors`, from row `first` of C and A, which it reads from one of the sources above.

    c, c_row: C and its row stride. a, a_row, a_k: A. b, b_k: B and its stride along k. depth: the length of the chains.
    start, start_row: the accumulators' first values. mode, alpha, pull: see above.
    """

    @intrinsic("n(i,p,i,p,i,i,p,i,i,p,i,i,f,f)")
    def tile(e, first, c, c_row, a, a_row, a_k, b, b_k, depth, start, start_row, mode, alpha, pull):
        c, start = e.at(c, first * c_row), e.at(start, first * start_row)
        sums = [
            [e.variable(e.load(e.at(start, start_row * i + e.lanes * j))) for j in range(vectors)] for i in range(rows)
        ]
        a_column = source(e, a, a_row, a_k, first, rows)

        def step(k):
            b_row = e.at(b, k * b_k)
            b_values = [e.load(e.at(b_row, e.lanes * j)) for j in range(vectors)]
            for i, place in enumerate(a_column(k)):
                a_value = e.splat(e.load_scalar(place))
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


def _panel_product(source):
    """The kernel that computes C = start + A B, or what `mode` makes of that, for any number of rows and a panel of 1
    or 2 vectors of columns.

    Rows are taken four at a time at the end: C and A must have room for rows rounded up to 4, unless there is one.
    """
    tall_2, tall_1 = _tile(source, TALL_ROWS, 2), _tile(source, TALL_ROWS, 1)
    four_2, four_1 = _tile(source, 4, 2), _tile(source, 4, 1)
    one_2, one_1 = _tile(source, 1, 2), _tile(source, 1, 1)

    @kernel("n(p,i,p,i,i,p,i,i,p,i,i,f,f,i)")
    def product_of_one_vector(c, c_row, a, a_row, a_k, b, b_k, depth, start, start_row, mode, alpha, pull, rows):
        i = 0
        while i + TALL_STEP <= rows:
            tall_1(i, c, c_row, a, a_row, a_k, b, b_k, depth, start, start_row, mode, alpha, pull)
            if TALL_STEP > TALL_ROWS:
                tall_1(i + TALL_ROWS, c, c_row, a, a_row, a_k, b, b_k, depth, start, start_row, mode, alpha, pull)
            i += TALL_STEP
        if rows - i == 1:
            one_1(i, c, c_row, a, a_row, a_k, b, b_k, depth, start, start_row, mode, alpha, pull)
            i += 1
        while i < rows:
            four_1(i, c, c_row, a, a_row, a_k, b, b_k, depth, start, start_row, mode, alpha, pull)
            i += 4

    @kernel("n(p,i,p,i,i,p,i,i,p,i,i,f,f,i,i)")
    def product(c, c_row, a, a_row, a_k, b, b_k, depth, start, start_row, mode, alpha, pull, rows, vectors):
        if WIDE and vectors == 2:
            i = 0
            while i + TALL_STEP <= rows:
                tall_2(i, c, c_row, a, a_row, a_k, b, b_k, depth, start, start_row, mode, alpha, pull)
                i += TALL_STEP
            if rows - i == 1:
                one_2(i, c, c_row, a, a_row, a_k, b, b_k, depth, start, start_row, mode, alpha, pull)
                i += 1
            while i < rows:
                four_2(i, c, c_row, a, a_row, a_k, b, b_k, depth, start, start_row, mode, alpha, pull)
                i += 4
        else:
            lanes = lanes_of(c)
            for j in range(vectors):
                product_of_one_vector(at(c, j * lanes), c_row, a, a_row, a_k, at(b, j * lanes), b_k, depth,
                                      at(start, j * lanes), start_row, mode, alpha, pull, rows)  # fmt: skip

    return product


# A in memory with two strides; the rows of a batch where the data has them; their columns, for the gradient.
panel_product = _panel_product(_strided)
product_of_rows = _panel_product(_rows_elsewhere)
product_of_columns = _panel_product(_columns_elsewhere)


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
