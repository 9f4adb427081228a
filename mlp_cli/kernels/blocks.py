"""Ops without weight matrices: residual sums, highway mixtures, concatenation, positional encoding, dropout, noise.

Each is a pair `x_forward` / `x_backward` on rows start … start + n - 1. Where an op's source receives gradients from
several readers, `source_write` says whether this one is the first to write.
"""

import math

from mlp_cli.kernels import elementary as math_of
from mlp_cli.kernels.jit import kernel
from mlp_cli.kernels.lanes import (
    at,
    lanes_of,
    vadd,
    vfirst,
    vfma,
    vfull,
    vload,
    vmul,
    vstore,
    vstore_first,
    vsub,
)
from mlp_cli.kernels.layout import ACCUMULATE, NO_GRADIENT
from mlp_cli.kernels.random import DROPOUT_STREAM, NOISE_STREAM, dropout_row, noise_row


@kernel("n(p,p,i,i)")
def give_row(out, x, columns, write):
    """out = x, or out + x where the op is not the first writer; columns beyond `columns` become zero."""
    lanes = lanes_of(x)
    for j in range(0, columns, lanes):
        value = vfirst(vload(at(x, j)), columns - j, 0.0)
        if write == ACCUMULATE:
            value = vadd(vload(at(out, j)), value)
        vstore(at(out, j), value)


@kernel("n(op,p,p,p,i,i)")
def add_forward(op, parameters, base, scratch, start, n):
    """y = x + f."""
    lanes = lanes_of(base)
    for i in range(start, start + n):
        x = at(base, op.source + i * op.source_stride)
        f = at(base, op.second + i * op.second_stride)
        y = at(base, op.result + i * op.result_stride)
        for j in range(0, op.units, lanes):
            vstore(at(y, j), vadd(vload(at(x, j)), vload(at(f, j))))


@kernel("n(op,p,p,p,i,i)")
def add_backward(op, parameters, base, scratch, start, n):
    """dx = dy. f's gradient is the result's own buffer: nothing to do for it."""
    if op.source_write == NO_GRADIENT:
        return
    for i in range(start, start + n):
        dx = at(base, op.source_gradient + i * op.source_stride)
        give_row(dx, at(base, op.result_gradient + i * op.result_stride), op.units, op.source_write)


@kernel("n(op,p,p,p,i,i)")
def highway_forward(op, parameters, base, scratch, start, n):
    """y = T f + (1 - T) x = x + T (f - x) (Srivastava, Greff & Schmidhuber 2015)."""
    lanes = lanes_of(base)
    for i in range(start, start + n):
        x = at(base, op.source + i * op.source_stride)
        f = at(base, op.second + i * op.second_stride)
        gate = at(base, op.gate + i * op.gate_stride)
        y = at(base, op.result + i * op.result_stride)
        for j in range(0, op.units, lanes):
            x_j = vload(at(x, j))
            vstore(at(y, j), vfma(vload(at(gate, j)), vsub(vload(at(f, j)), x_j), x_j))


@kernel("n(op,p,p,p,i,i)")
def highway_backward(op, parameters, base, scratch, start, n):
    """df = T dy, dT = (f - x) dy, dx = (1 - T) dy."""
    lanes = lanes_of(base)
    one = vfull(base, 1.0)
    for i in range(start, start + n):
        x = at(base, op.source + i * op.source_stride)
        f = at(base, op.second + i * op.second_stride)
        gate = at(base, op.gate + i * op.gate_stride)
        d = at(base, op.result_gradient + i * op.result_stride)
        df = at(base, op.second_gradient + i * op.second_stride)
        d_gate = at(base, op.gate_gradient + i * op.gate_stride)
        dx = at(base, op.source_gradient + i * op.source_stride)
        for j in range(0, op.units, lanes):
            d_j, gate_j = vload(at(d, j)), vload(at(gate, j))
            vstore(at(df, j), vmul(gate_j, d_j))
            vstore(at(d_gate, j), vmul(vsub(vload(at(f, j)), vload(at(x, j))), d_j))
            if op.source_write != NO_GRADIENT:
                value = vmul(vsub(one, gate_j), d_j)
                if op.source_write == ACCUMULATE:
                    value = vadd(vload(at(dx, j)), value)
                vstore(at(dx, j), value)


@kernel("n(op,p,p,p,i,i)")
def concat_forward(op, parameters, base, scratch, start, n):
    """y = [x, f]. x's last vector may reach into f's columns: f is written after it."""
    lanes = lanes_of(base)
    columns = op.units - op.inputs
    for i in range(start, start + n):
        y = at(base, op.result + i * op.result_stride)
        give_row(y, at(base, op.source + i * op.source_stride), op.inputs, 0)
        f = at(base, op.second + i * op.second_stride)
        for j in range(0, columns, lanes):
            # up to the end of the padded row: its last columns become zero
            room = (op.units + lanes - 1) // lanes * lanes - op.inputs - j
            value = vfirst(vload(at(f, j)), columns - j, 0.0)
            vstore_first(at(y, op.inputs + j), value, room)


@kernel("n(op,p,p,p,i,i)")
def concat_backward(op, parameters, base, scratch, start, n):
    """dx and df are the two parts of dy."""
    for i in range(start, start + n):
        d = at(base, op.result_gradient + i * op.result_stride)
        give_row(at(base, op.second_gradient + i * op.second_stride), at(d, op.inputs), op.units - op.inputs, 0)
        if op.source_write != NO_GRADIENT:
            give_row(at(base, op.source_gradient + i * op.source_stride), d, op.inputs, op.source_write)


@kernel("n(op,p,p,p,i,i)")
def positional_forward(op, parameters, base, scratch, start, n):
    """y = sin(2^k pi x) of all inputs for k = 0, 1, …, then the cosines (Mildenhall et al. 2020). 2^k x is exact."""
    lanes = lanes_of(base)
    frequencies = int(op.a)
    room = (op.units + lanes - 1) // lanes * lanes
    for i in range(start, start + n):
        x = at(base, op.source + i * op.source_stride)
        y = at(base, op.result + i * op.result_stride)
        vstore(at(y, room - lanes), vfull(y, 0.0))
        factor = 1.0
        for k in range(frequencies):
            for j in range(0, op.inputs, lanes):
                angle = vmul(vfull(y, factor), vload(at(x, j)))
                place = k * op.inputs + j
                vstore_first(at(y, place), math_of.vsinpi(angle), op.inputs - j)
                place += frequencies * op.inputs
                vstore_first(at(y, place), math_of.vcospi(angle), op.inputs - j)
            factor *= 2.0


@kernel("n(op,p,p,p,i,i)")
def positional_backward(op, parameters, base, scratch, start, n):
    """dx = Σ_k 2^k pi (cos(2^k pi x) d_sin - sin(2^k pi x) d_cos), added in order of k."""
    if op.source_write == NO_GRADIENT:
        return
    lanes = lanes_of(base)
    frequencies = int(op.a)
    for i in range(start, start + n):
        x = at(base, op.source + i * op.source_stride)
        d = at(base, op.result_gradient + i * op.result_stride)
        dx = at(base, op.source_gradient + i * op.source_stride)
        for j in range(0, op.inputs, lanes):
            total = vfull(dx, 0.0)
            if op.source_write == ACCUMULATE:
                total = vload(at(dx, j))
            factor = 1.0
            for k in range(frequencies):
                angle = vmul(vfull(dx, factor), vload(at(x, j)))
                place = k * op.inputs + j
                d_sin, d_cos = vload(at(d, place)), vload(at(d, place + frequencies * op.inputs))
                slope = vsub(vmul(math_of.vcospi(angle), d_sin), vmul(math_of.vsinpi(angle), d_cos))
                total = vfma(vfull(dx, factor * math.pi), slope, total)
                factor *= 2.0
            vstore(at(dx, j), vfirst(total, op.inputs - j, 0.0))


@kernel("n(op,p,i,i,i,i,u)")
def dropout_forward(op, base, start, n, first_draw, epoch, seed):
    """y = x with units dropped at the rate op.a; row i of the batch is draw first_draw + i of the epoch."""
    for i in range(start, start + n):
        x = at(base, op.source + i * op.source_stride)
        y = at(base, op.result + i * op.result_stride)
        dropout_row(y, x, op.units, op.a, first_draw + i, DROPOUT_STREAM | op.stream << 8, epoch, seed)


@kernel("n(op,p,i,i,i,i,u)")
def dropout_backward(op, base, start, n, first_draw, epoch, seed):
    """dx = dy through the same units: the random numbers are computed again. Dropout is its source's only reader.

    op.b says that the slope of what was dropped, which comes next, is zero for dropped units anyway.
    """
    if op.source_write == NO_GRADIENT:
        return
    lanes = lanes_of(base)
    for i in range(start, start + n):
        d = at(base, op.result_gradient + i * op.result_stride)
        dx = at(base, op.source_gradient + i * op.source_stride)
        if op.b > 0.0:
            kept = vfull(d, 1.0 / (1.0 - op.a))
            for j in range(0, op.units, lanes):
                vstore(at(dx, j), vmul(vload(at(d, j)), kept))
            continue
        dropout_row(dx, d, op.units, op.a, first_draw + i, DROPOUT_STREAM | op.stream << 8, epoch, seed)


@kernel("n(op,p,i,i,i,i,u)")
def noise_forward(op, base, start, n, first_draw, epoch, seed):
    """y = x plus normal noise of standard deviation op.a. It stands at the input: nothing flows back through it."""
    for i in range(start, start + n):
        x = at(base, op.source + i * op.source_stride)
        y = at(base, op.result + i * op.result_stride)
        noise_row(y, x, op.units, op.a, first_draw + i, NOISE_STREAM | op.stream << 8, epoch, seed)
