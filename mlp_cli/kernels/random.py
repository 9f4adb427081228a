"""Counter-based random numbers in the kernels: Philox4x32-10, the same numbers as `mlp_cli.rng`.

Every number is a function of seed, stream, epoch and logical index alone; nothing is stored, and any thread can
compute any number. Units are numbered in groups of 64: unit u of a row takes word (u % 64) // 16 of the counter block
(u // 64) * 16 + u % 16, so that a vector of units is a vector of counters, whatever the vector's width.
"""

from llvmlite import ir

from mlp_cli.kernels import elementary as math_of
from mlp_cli.kernels.emit import INT32, INT64, Value
from mlp_cli.kernels.jit import kernel
from mlp_cli.kernels.lanes import intrinsic, pointer_to, prefetch_element
from mlp_cli.kernels.layout import lane_count
from mlp_cli.vocab import STREAMS

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
WORD = 0xFFFFFFFF
GROUP, COLUMN = 64, 16

DROPOUT_STREAM, NOISE_STREAM = STREAMS["dropout"], STREAMS["noise"]
# Exchanges of a shuffle that are drawn at a time, and in one vector.
EXCHANGES, DRAWS = 64, lane_count("float64")

SHUFFLE_STREAM, DRAW_STREAM = STREAMS["shuffle"], STREAMS["draw"]


def _emit_philox(e, counter: list[Value], seed: Value) -> list[Value]:
    """Ten rounds on 32-bit words held in 64-bit lanes (Salmon et al. 2011, "Parallel random numbers")."""
    c0, c1, c2, c3 = counter
    for step in range(ROUNDS):
        keys = []
        for word, increment in ((seed & WORD, KEY_STEPS[0]), (seed >> 32, KEY_STEPS[1])):
            keys.append(e.splat((word + (increment * step & WORD)) & WORD))
        product0, product1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1 = (product1 >> 32) ^ c1 ^ keys[0], product1 & WORD
        c2, c3 = (product0 >> 32) ^ c3 ^ keys[1], product0 & WORD
    return [c0, c1, c2, c3]


def _each_group(e, units: Value, draw: Value, stream: Value, epoch: Value, seed: Value, body) -> None:
    """Call `body(first unit, four vectors of random words)` for every column of lanes of a row."""
    wide = ir.VectorType(INT64, e.lanes)
    numbers = Value(e, ir.Constant(wide, list(range(e.lanes))))
    groups = (units + (GROUP - 1)) >> 6
    with e.loop(groups) as group:
        for half in range(0, COLUMN, e.lanes):
            index = e.splat(group * COLUMN + half) + numbers
            words = _emit_philox(e, [index, e.splat(draw), e.splat(stream), e.splat(epoch)], seed)
            body(group * GROUP + half, words)


def _store_inside(e, out, start, units, x) -> None:
    """Store a vector at column `start` if any of it lies among the (padded) units; zeros in padded columns."""
    with e.builder.if_then((start < units).llvm):
        e.store(e.at(out, start), e.where(e.first_lanes(units - start), x, 0.0))


@intrinsic("n(p,p,i,f,i,i,i,u)")
def dropout_row(e, out, x, units, rate, draw, stream, epoch, seed):
    """out = x / (1 - rate) where a random word is not below rate 2³², else 0 (inverted dropout)."""
    kept = e.splat_double(e.constant(1.0, rate.type) / (1.0 - rate))
    threshold = Value(e, e.builder.fptosi((rate * 4294967296.0).llvm, INT64))
    dropped = e.splat(threshold)

    def body(first, words):
        for number, word in enumerate(words):
            start = first + number * COLUMN
            with e.builder.if_then((start < units).llvm):
                x_i = e.load(e.at(x, start))
                _store_inside(e, out, start, units, e.where(word < dropped, 0.0, x_i * kept))

    _each_group(e, units, draw, stream, epoch, seed, body)


@intrinsic("n(p,p,i,f,i,i,i,u)")
def noise_row(e, out, x, units, deviation, draw, stream, epoch, seed):
    """out = x + deviation n, n standard normal by Box and Muller's transform of two pairs of words."""
    deviation = e.splat_double(deviation)

    def uniform(word):
        return e.float_of_wide(word) * 2.0**-32 + 2.0**-33

    def body(first, words):
        normals = []
        for pair in (0, 2):
            radius = e.sqrt(-2.0 * math_of.log(e, uniform(words[pair])))
            angle = 2.0 * uniform(words[pair + 1])
            normals += [radius * math_of.cospi(e, angle), radius * math_of.sinpi(e, angle)]
        for number, normal in enumerate(normals):
            start = first + number * COLUMN
            with e.builder.if_then((start < units).llvm):
                _store_inside(e, out, start, units, e.fma(deviation, normal, e.load(e.at(x, start))))

    _each_group(e, units, draw, stream, epoch, seed, body)


@intrinsic("f(p,i,i,i,u)")
def uniform_of(e, p, index, stream, epoch, seed):
    """A number in [0, 1) with 53 bits from the first two words of counter block `index`. (p only fixes the type.)"""
    one = e.constant(1, INT64)
    zero = one - one
    scalar = _ScalarEmit(e)
    words = _emit_philox(scalar, [index & WORD, zero, stream, epoch], seed)
    bits = ((words[0] << 32) | words[1]) >> 11
    return Value(e, e.builder.sitofp(bits.llvm, ir.DoubleType())) * 2.0**-53


class _ScalarEmit:
    """The part of `Emit` that Philox uses, for one counter instead of a vector of them."""

    def __init__(self, emit):
        self.emit = emit

    def splat(self, x):
        """A scalar is what it is."""
        return x


@intrinsic("n(a,i,i,i,i,i,u)", scalar="float64")
def draw_exchanges(e, places, first, row, begin, stream, epoch, seed):
    """Fill a vector of `places` from number `first` on: with which row `row`, the one below it, … change places.

    For a shuffle of rows from `begin` on, by Fisher and Yates: with any row from `begin` up to itself.
    """
    rows = e.splat(row) - e.lane_numbers()
    words = _emit_philox(e, [rows & WORD, e.splat(row - row), e.splat(stream), e.splat(epoch)], seed)
    uniform = e.int_to_float(((words[0] << 32) | words[1]) >> 11) * 2.0**-53
    chosen = e.builder.fptosi((uniform * e.int_to_float(rows - e.splat(begin) + 1)).llvm, e.int_vector)
    numbers = ir.VectorType(INT32, e.lanes)
    place = e.builder.bitcast(e.at(places, first).llvm, numbers.as_pointer())
    e.builder.store(e.builder.trunc((e.splat(begin) + Value(e, chosen)).llvm, numbers), place, align=4)


@kernel("n(rows,rows,i,i,i,u)")
def exchange(rows, places, begin, end, epoch, seed):
    """Fisher and Yates's shuffle of rows begin … end - 1; place i is exchanged by number i of the epoch's stream.

    With what rows change places is known before any does: the draws are vectors, and far rows are asked for in time.
    """
    row = end - 1
    while row > begin:
        count = min(EXCHANGES, row - begin)
        for k in range(0, count, DRAWS):
            draw_exchanges(places, k, row - k, begin, SHUFFLE_STREAM, epoch, seed)
        for k in range(count):
            prefetch_element(rows, int(places[k]))
        for k in range(count):
            other = places[k]
            rows[row - k], rows[other] = rows[other], rows[row - k]
        row -= count


@kernel("n(s[:],rows,rows,rows,i,i,u)", entry=True)
def shuffle_rows(parameters, rows, order, places, block, epoch, seed):
    """Shuffle all rows or, with `block` > 0, the order of blocks of so many rows and the rows inside each.

    `order` is memory with room for one number a block, `places` for EXCHANGES. (The parameters only say for which
    scalar type this is compiled.)
    """
    p = pointer_to(parameters)
    total = rows.shape[0]
    if block <= 0 or block >= total:
        exchange(rows, places, 0, total, epoch, seed)
        return
    blocks = (total + block - 1) // block
    for b in range(blocks):
        order[b] = b
    # the blocks' exchanges use numbers beyond those of the rows
    for b in range(blocks - 1, 0, -1):
        c = int(uniform_of(p, total + b, SHUFFLE_STREAM, epoch, seed) * (b + 1))
        order[b], order[c] = order[c], order[b]
    place = 0
    for b in range(blocks):
        begin = int(order[b]) * block
        size = min(block, total - begin)
        for i in range(size):
            rows[place + i] = begin + i
        exchange(rows, places, place, place + size, epoch, seed)
        place += size


@kernel("n(s[:],rows,i,u)", entry=True)
def draw_rows(parameters, rows, epoch, seed):
    """Fill `rows` with draws with replacement from 0 … len(rows) - 1."""
    p = pointer_to(parameters)
    n = rows.shape[0]
    for i in range(n):
        rows[i] = int(uniform_of(p, i, DRAW_STREAM, epoch, seed) * n)
