"""The dense layer: y = f(x W + b), its deltas, and the gradient of its weights, used while it is still in the cache.

N rows of the batch, D inputs, K units. W lies in panels (see `layout`), and every product is made of `panel_product`s:
each number is one chain, over the inputs for y, over the units for dx, and for dW over the rows of a batch, by blocks
of ROW_BLOCK rows that are added in order.
"""

import math

from mlp_cli.kernels.activations import LINEAR, activate, activate_backward
from mlp_cli.kernels.jit import kernel
from mlp_cli.kernels.lanes import at, lanes_of, like, load, prefetch_vectors, vadd, vfull, vload, vmul, vstore
from mlp_cli.kernels.layout import (
    ACCUMULATE,
    NEAR_VECTORS,
    NO_GRADIENT,
    ROW_BLOCK,
    SCRATCH_COEFFICIENTS,
    SCRATCH_GRADIENT,
    SCRATCH_TRANSPOSED,
    SCRATCH_ZEROS,
)
from mlp_cli.kernels.optimizers import CLIP_FACTOR, DECAY, RATE, optimizer_step, shape_gradient
from mlp_cli.kernels.tile import (
    ADD_PULLED,
    ADD_SCALED,
    GRADIENT_ROWS,
    REPLACE,
    TALL_STEP,
    UPDATE_ROWS,
    panel_product,
    product_of_columns,
    product_of_rows,
    transpose_square,
)


@kernel("i(p,i)")
def panel_columns(p, units):
    """Columns of a panel of a weight matrix with this many units (`layout.panel_width`)."""
    lanes = lanes_of(p)
    return 2 * lanes if units > lanes else lanes


@kernel("i(p,i)")
def whole_vectors(p, n):
    """n elements rounded up to whole vectors (`layout.padded`)."""
    lanes = lanes_of(p)
    return (n + lanes - 1) // lanes * lanes


@kernel("i(i,i,i,i)")
def share_start(total, unit, task, tasks):
    """Where the share of `task` begins when `total` is dealt out in multiples of `unit`."""
    units = (total + unit - 1) // unit
    return min(units * task // tasks * unit, total)


@kernel("n(op,p,p,p,i,i)")
def dense_forward(op, parameters, base, scratch, start, n):
    """y = f(x W + b) for rows start … start + n - 1. The bias is where the products' sums begin."""
    x = at(base, op.source + start * op.source_stride)
    z = at(base, op.before + start * op.before_stride)
    width = panel_columns(x, op.units)
    panel = width * whole_vectors(x, op.inputs)
    weight, bias = at(parameters, op.weight), at(parameters, op.bias)
    for j in range(0, op.units, width):
        vectors = whole_vectors(x, min(width, op.units - j)) // lanes_of(x)
        if op.elsewhere:
            product_of_rows(at(z, j), op.before_stride, x, op.source_stride, 1, weight, width, op.inputs,
                            at(bias, j), 0, REPLACE, 1.0, 0.0, n, vectors)  # fmt: skip
        else:
            panel_product(at(z, j), op.before_stride, x, op.source_stride, 1, weight, width, op.inputs,
                          at(bias, j), 0, REPLACE, 1.0, 0.0, n, vectors)  # fmt: skip
        weight = at(weight, panel)
    if op.activation != LINEAR:
        y = at(base, op.result + start * op.result_stride)
        activate(op.activation, op.a, op.b, y, op.result_stride, z, op.before_stride, n, op.units)


@kernel("n(op,p,p,i,i)")
def transpose_stripe(op, parameters, transposed, i, columns):
    """The weights of `columns` inputs from i, as rows of the units: 2 L numbers apart."""
    lanes = lanes_of(parameters)
    width = panel_columns(parameters, op.units)
    panel = width * whole_vectors(parameters, op.inputs)
    for k in range(0, op.units, lanes):
        source = at(parameters, op.weight + k // width * panel + k % width + i * width)
        for q in range(0, columns, lanes):
            transpose_square(at(transposed, k * 2 * lanes + q), 2 * lanes, at(source, q * width), width)


@kernel("n(op,p,i,i,i)")
def prefetch_stripe(op, parameters, i, part, parts):
    """Ask for a part of the weights that `transpose_stripe` will read for inputs from i."""
    width = panel_columns(parameters, op.units)
    panel = width * whole_vectors(parameters, op.inputs)
    panels = (op.units + width - 1) // width
    for number in range(panels * part // parts, panels * (part + 1) // parts):
        prefetch_vectors(at(parameters, op.weight + number * panel + i * width), 2 * width)


@kernel("n(job,op,p,p,p,i,i)")
def dense_backward(job, op, parameters, base, scratch, start, n):
    """dz = dy f'(z) in place of dy, then dx = dz Wᵀ; W is transposed one panel of dx at a time."""
    d = at(base, op.result_gradient + start * op.result_stride)
    z = at(base, op.before + start * op.before_stride)
    activate_backward(op.activation, op.a, op.b, d, op.result_stride, z, op.before_stride, n, op.units)
    if op.source_write == NO_GRADIENT:
        return
    lanes = lanes_of(d)
    dx = at(base, op.source_gradient + start * op.source_stride)
    transposed, zeros = at(scratch, SCRATCH_TRANSPOSED), at(scratch, SCRATCH_ZEROS)
    mode = ADD_SCALED if op.source_write == ACCUMULATE else REPLACE
    padded_inputs = whole_vectors(d, op.inputs)
    # weights that are far are asked for a stripe ahead, between the tiles of this one
    height = TALL_STEP if job.far_parameters else n
    tiles = (n + height - 1) // height
    for i in range(0, padded_inputs, 2 * lanes):
        columns = min(2 * lanes, padded_inputs - i)
        transpose_stripe(op, parameters, transposed, i, columns)
        for tile in range(tiles):
            row = tile * height
            if job.far_parameters and i + 2 * lanes < padded_inputs:
                prefetch_stripe(op, parameters, i + 2 * lanes, tile, tiles)
            panel_product(at(dx, row * op.source_stride + i), op.source_stride, at(d, row * op.result_stride),
                          op.result_stride, 1, transposed, 2 * lanes, op.units, zeros, 0, mode, 1.0, 0.0,
                          min(height, n - row), columns // lanes)  # fmt: skip


@kernel("n(job,p,p,p,i,i,i)")
def update_stretch(job, parameters, scratch, g, offset, vectors, matrix):
    """One optimizer step on whole vectors from `offset`; g is their gradient. Penalties act on matrices alone.

    A gradient that is clipped or penalised is changed first, in place, a few vectors at a time.
    """
    c = at(scratch, SCRATCH_COEFFICIENTS)
    l1, l2, decay = 0.0, 0.0, 1.0
    if matrix:
        l1, l2, decay = job.l1, job.l2, load(at(c, DECAY))
    # the factor that clips the gradient's norm is 1 unless the phase before computed another
    scale = load(at(c, CLIP_FACTOR))
    shaped = scale != 1.0 or job.clip_value < math.inf or l1 != 0.0 or l2 != 0.0
    w, m, v = at(parameters, offset), at(like(g, job.moment1), offset), at(like(g, job.moment2), offset)
    lanes = lanes_of(g)
    for first in range(0, vectors, NEAR_VECTORS):
        count = min(NEAR_VECTORS, vectors - first)
        j = first * lanes
        if shaped:
            shape_gradient(at(g, j), at(w, j), count, scale, job.clip_value, l1, l2)
        optimizer_step(job.optimizer, at(w, j), at(g, j), at(m, j), at(v, j), count, c, decay)


@kernel("n(job,p,i,i)")
def prefetch_parameters(job, parameters, offset, vectors):
    """Ask for what an optimizer's step on these vectors will need: it comes while the gradient is computed."""
    prefetch_vectors(at(parameters, offset), vectors)
    if job.moment1:
        prefetch_vectors(at(like(parameters, job.moment1), offset), vectors)
    if job.moment2:
        prefetch_vectors(at(like(parameters, job.moment2), offset), vectors)


@kernel("b(job,i)")
def is_direct(job, n):
    """Whether a gradient is never in memory: descent on one chain is w - rate * sum, rounded once, as `optimizer_step`
    does it, and an L2 penalty adds l2 * w to the sum."""
    return job.direct and not job.keep_gradient and n <= ROW_BLOCK


@kernel("n(op,p,p,p,p,i,i,i,i,f,f,i,i)")
def product_with_inputs(op, c, base, d, zeros, i, k, depth, mode, alpha, pull, rows, vectors):
    """C = xᵀ d, or what `mode` makes of that: `rows` inputs from i of `depth` rows from k of the batch."""
    width = panel_columns(c, op.units)
    x, d = at(base, op.source + k * op.source_stride), at(d, k * op.result_stride)
    if op.elsewhere:
        product_of_columns(c, width, x, i, op.source_stride, d, op.result_stride, depth, zeros, 0,
                           mode, alpha, pull, rows, vectors)  # fmt: skip
    else:
        panel_product(c, width, at(x, i), 1, op.source_stride, d, op.result_stride, depth, zeros, 0,
                      mode, alpha, pull, rows, vectors)  # fmt: skip


@kernel("n(job,op,p,p,p,i,i,i,i,i,i)")
def weight_block(job, op, parameters, base, scratch, n, first_chunk, i, rows, j, vectors):
    """dW = xᵀ dz for `rows` inputs from i and one panel of units from j, and the step on it unless it is kept."""
    d = at(base, op.result_gradient + j)
    lanes = lanes_of(d)
    width = panel_columns(d, op.units)
    offset = op.weight + j * whole_vectors(d, op.inputs) + i * width
    zeros = at(scratch, SCRATCH_ZEROS)
    if is_direct(job, n):
        if job.far_parameters:
            prefetch_vectors(at(parameters, offset), rows * width // lanes)
        rate = load(at(scratch, SCRATCH_COEFFICIENTS + RATE))
        mode = ADD_SCALED if job.l2 == 0.0 else ADD_PULLED
        product_with_inputs(op, at(parameters, offset), base, d, zeros, i, 0, n, mode, -rate, job.l2, rows, vectors)
        return
    g = at(like(d, job.gradient), offset) if job.keep_gradient else at(scratch, SCRATCH_GRADIENT)
    if job.far_parameters and job.keep_gradient:
        prefetch_vectors(g, rows * width // lanes)
    elif job.far_parameters:
        prefetch_parameters(job, parameters, offset, rows * width // lanes)
    for k in range(0, n, ROW_BLOCK):
        mode = REPLACE if k == 0 and (first_chunk or not job.keep_gradient) else ADD_SCALED
        depth = min(ROW_BLOCK, n - k)
        product_with_inputs(op, g, base, d, zeros, i, k, depth, mode, 1.0, 0.0, rows, vectors)
    if not job.keep_gradient:
        if vectors * lanes < width:
            for row in range(rows):
                vstore(at(g, row * width + lanes), vfull(g, 0.0))
        update_stretch(job, parameters, scratch, g, offset, rows * width // lanes, 1)


@kernel("n(p,p,p,i,i,i,i)")
def column_sums(out, d, factor, d_row, n, add, multiply):
    """One vector of columns: out = Σ d over n rows (times `factor`, a buffer with the same stride), or out + that.

    Blocks of ROW_BLOCK rows are summed on their own, down the rows, and added in order.
    """
    for k in range(0, n, ROW_BLOCK):
        total = vfull(d, 0.0)
        for i in range(k, min(k + ROW_BLOCK, n)):
            value = vload(at(d, i * d_row))
            if multiply:
                value = vmul(value, vload(at(factor, i * d_row)))
            total = vadd(total, value)
        if k > 0 or add:
            total = vadd(vload(out), total)
        vstore(out, total)


@kernel("n(p,p,i,i,i)")
def two_column_sums(out, d, d_row, n, add):
    """`column_sums` of two vectors of columns: two chains that do not wait for each other."""
    lanes = lanes_of(d)
    for k in range(0, n, ROW_BLOCK):
        total_0, total_1 = vfull(d, 0.0), vfull(d, 0.0)
        for i in range(k, min(k + ROW_BLOCK, n)):
            row = at(d, i * d_row)
            total_0 = vadd(total_0, vload(row))
            total_1 = vadd(total_1, vload(at(row, lanes)))
        if k > 0 or add:
            total_0 = vadd(vload(out), total_0)
            total_1 = vadd(vload(at(out, lanes)), total_1)
        vstore(out, total_0)
        vstore(at(out, lanes), total_1)


@kernel("n(job,op,p,p,p,i,i,i,i)")
def bias_gradient(job, op, parameters, base, scratch, n, first_chunk, j, vectors):
    """db = Σ dz for one panel of units from j, and the step on it unless it is kept."""
    d = at(base, op.result_gradient + j)
    offset = op.bias + j
    g = at(like(d, job.gradient), offset) if job.keep_gradient else at(scratch, SCRATCH_GRADIENT)
    add = job.keep_gradient and not first_chunk
    if vectors == 2:
        two_column_sums(g, d, op.result_stride, n, add)
    else:
        column_sums(g, d, d, op.result_stride, n, add, 0)
    if not job.keep_gradient:
        update_stretch(job, parameters, scratch, g, offset, vectors, 0)


@kernel("n(job,op,p,p,p,i,i,i,i)")
def dense_gradient(job, op, parameters, base, scratch, n, first_chunk, task, tasks):
    """A task's share of dW = xᵀ dz and db = Σ dz over n rows, and the step on it unless the gradient is kept.

    Each element is a chain over 128 rows; the chains are added in order of rows, whoever computes them. A task has its
    rows of dW, for one panel of units after the other, and its panels of db, which follow while dz is still near.
    """
    lanes = lanes_of(base)
    width = panel_columns(base, op.units)
    begin, end = share_start(op.inputs, 8, task, tasks), share_start(op.inputs, 8, task + 1, tasks)
    bias_begin, bias_end = share_start(op.units, width, task, tasks), share_start(op.units, width, task + 1, tasks)
    in_place = job.keep_gradient or is_direct(job, n)
    height = UPDATE_ROWS
    if in_place:
        # stripes only where they are asked for ahead: whole panels suit the processor's own prefetching better
        height = GRADIENT_ROWS if job.far_parameters else max(end - begin, 1)
    for j in range(0, op.units, width):
        vectors = whole_vectors(base, min(width, op.units - j)) // lanes
        for i in range(begin, end, height):
            weight_block(job, op, parameters, base, scratch, n, first_chunk, i, min(height, end - i), j, vectors)
        if bias_begin <= j < bias_end:
            bias_gradient(job, op, parameters, base, scratch, n, first_chunk, j, vectors)
