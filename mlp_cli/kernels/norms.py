"""Layer normalisation (over the units of a row) and batch normalisation (over the rows of a batch).

xhat = (x - mean) / sqrt(variance + epsilon), y = gamma xhat + beta, with the biased variance. Sums over a row go lane
by lane and then through one tree; sums over a batch run down the rows, by blocks of ROW_BLOCK that are added in order.
"""

import math

from mlp_cli.kernels.dense import column_sums, share_start, update_stretch, whole_vectors
from mlp_cli.kernels.jit import kernel
from mlp_cli.kernels.lanes import (
    at,
    lanes_of,
    like,
    load,
    store,
    vadd,
    vdiv,
    vfirst,
    vfma,
    vfull,
    vload,
    vmul,
    vsqrt,
    vstore,
    vsub,
    vsum,
)
from mlp_cli.kernels.layout import ACCUMULATE, NO_GRADIENT, ROW_BLOCK, SCRATCH_GRADIENT

# --- layer_norm: op.a is epsilon; the auxiliary buffer holds mean and 1 / deviation of each row --------------------


@kernel("n(op,p,p,p,i,i)")
def layer_norm_forward(op, parameters, base, scratch, start, n):
    """y = gamma (x - mean) / sqrt(variance + epsilon) + beta (Ba, Kiros & Hinton 2016)."""
    lanes = lanes_of(base)
    gamma, beta = at(parameters, op.weight), at(parameters, op.bias)
    for i in range(start, start + n):
        x = at(base, op.source + i * op.source_stride)
        y = at(base, op.result + i * op.result_stride)
        total = vfull(base, 0.0)
        for j in range(0, op.units, lanes):
            total = vadd(total, vload(at(x, j)))
        mean = vsum(total) / op.units
        squares = vfull(base, 0.0)
        for j in range(0, op.units, lanes):
            distance = vfirst(vsub(vload(at(x, j)), vfull(base, mean)), op.units - j, 0.0)
            squares = vfma(distance, distance, squares)
        inverse = 1.0 / math.sqrt(vsum(squares) / op.units + op.a)
        saved = at(base, op.auxiliary + i * lanes)
        store(saved, mean)
        store(at(saved, 1), inverse)
        for j in range(0, op.units, lanes):
            xhat = vmul(vsub(vload(at(x, j)), vfull(base, mean)), vfull(base, inverse))
            vstore(at(y, j), vfma(xhat, vload(at(gamma, j)), vload(at(beta, j))))


@kernel("n(op,p,p,p,i,i)")
def layer_norm_backward(op, parameters, base, scratch, start, n):
    """dx = (g - mean(g) - xhat mean(g xhat)) / deviation with g = gamma dy."""
    if op.source_write == NO_GRADIENT:
        return
    lanes = lanes_of(base)
    gamma = at(parameters, op.weight)
    for i in range(start, start + n):
        x = at(base, op.source + i * op.source_stride)
        d = at(base, op.result_gradient + i * op.result_stride)
        dx = at(base, op.source_gradient + i * op.source_stride)
        saved = at(base, op.auxiliary + i * lanes)
        mean, inverse = vfull(base, load(saved)), vfull(base, load(at(saved, 1)))
        total, products = vfull(base, 0.0), vfull(base, 0.0)
        for j in range(0, op.units, lanes):
            # gamma is zero in padded columns, so they add nothing
            g = vmul(vload(at(gamma, j)), vload(at(d, j)))
            xhat = vmul(vsub(vload(at(x, j)), mean), inverse)
            total = vadd(total, g)
            products = vfma(g, xhat, products)
        mean_g, mean_product = vfull(base, vsum(total) / op.units), vfull(base, vsum(products) / op.units)
        for j in range(0, op.units, lanes):
            g = vmul(vload(at(gamma, j)), vload(at(d, j)))
            xhat = vmul(vsub(vload(at(x, j)), mean), inverse)
            value = vmul(vsub(vsub(g, mean_g), vmul(xhat, mean_product)), inverse)
            value = vfirst(value, op.units - j, 0.0)
            if op.source_write == ACCUMULATE:
                value = vadd(vload(at(dx, j)), value)
            vstore(at(dx, j), value)


@kernel("n(op,p,p,i,i,b)")
def layer_norm_column(op, out, base, n, column, add):
    """One vector of columns of dgamma = Σ dy xhat."""
    lanes = lanes_of(base)
    for k in range(0, n, ROW_BLOCK):
        total = vfull(base, 0.0)
        for i in range(k, min(k + ROW_BLOCK, n)):
            saved = at(base, op.auxiliary + i * lanes)
            mean, inverse = vfull(base, load(saved)), vfull(base, load(at(saved, 1)))
            x = vload(at(base, op.source + i * op.source_stride + column))
            xhat = vmul(vsub(x, mean), inverse)
            total = vfma(vload(at(base, op.result_gradient + i * op.result_stride + column)), xhat, total)
        total = vfirst(total, op.units - column, 0.0)
        if k > 0 or add:
            total = vadd(vload(out), total)
        vstore(out, total)


@kernel("n(job,op,p,p,p,i,i,i,i)")
def layer_norm_gradient(job, op, parameters, base, scratch, n, first_chunk, task, tasks):
    """A task's columns of dgamma = Σ dy xhat and dbeta = Σ dy, and the step on them unless the gradient is kept."""
    lanes = lanes_of(base)
    begin, end = share_start(op.units, lanes, task, tasks), share_start(op.units, lanes, task + 1, tasks)
    add = job.keep_gradient != 0 and first_chunk == 0
    for j in range(begin, end, lanes):
        g = at(like(base, job.gradient), op.weight + j) if job.keep_gradient else at(scratch, SCRATCH_GRADIENT)
        layer_norm_column(op, g, base, n, j, add)
        if not job.keep_gradient:
            update_stretch(job, parameters, scratch, g, op.weight + j, 1, 0)
        d = at(base, op.result_gradient + j)
        g = at(like(base, job.gradient), op.bias + j) if job.keep_gradient else at(scratch, SCRATCH_GRADIENT)
        column_sums(g, d, d, op.result_stride, n, add, 0)
        if not job.keep_gradient:
            update_stretch(job, parameters, scratch, g, op.bias + j, 1, 0)


# --- batch_norm: op.a is epsilon, op.b momentum; the auxiliary memory holds, one vector of columns after the other,
# mean, 1 / deviation, Σ dy and Σ dy xhat, each as long as the padded units ------------------------------------------


@kernel("n(job,op,p,i,i,i)")
def batch_norm_statistics(job, op, base, n, task, tasks):
    """A task's columns of the batch's mean and variance; the running ones follow (Ioffe & Szegedy 2015).

    running = (1 - momentum) running + momentum * batch, with the unbiased variance, as PyTorch does.
    """
    lanes = lanes_of(base)
    padded = whole_vectors(base, op.units)
    state = at(like(base, job.state), op.state)
    begin, end = share_start(op.units, lanes, task, tasks), share_start(op.units, lanes, task + 1, tasks)
    for j in range(begin, end, lanes):
        x = at(base, op.source + j)
        saved = at(base, op.auxiliary + j)
        column_sums(saved, x, x, op.source_stride, n, 0, 0)
        count = vfull(base, n)
        mean = vdiv(vload(saved), count)
        squares = vfull(base, 0.0)
        for k in range(0, n, ROW_BLOCK):
            part = vfull(base, 0.0)
            for i in range(k, min(k + ROW_BLOCK, n)):
                distance = vsub(vload(at(x, i * op.source_stride)), mean)
                part = vfma(distance, distance, part)
            squares = vadd(squares, part)
        variance = vdiv(squares, count)
        vstore(saved, mean)
        deviation = vsqrt(vadd(variance, vfull(base, op.a)))
        vstore(at(saved, padded), vdiv(vfull(base, 1.0), deviation))
        if job.training:
            rest, share = vfull(base, 1.0 - op.b), vfull(base, op.b)
            running_mean, running_variance = at(state, j), at(state, padded + j)
            vstore(running_mean, vfma(rest, vload(running_mean), vmul(share, mean)))
            if n > 1:  # one row has no variance
                unbiased = vdiv(squares, vfull(base, n - 1))
                vstore(running_variance, vfma(rest, vload(running_variance), vmul(share, unbiased)))


@kernel("n(job,op,p,p,i,i)")
def batch_norm_forward(job, op, parameters, base, start, n):
    """y = gamma xhat + beta, with the batch's statistics in training and the running ones afterwards."""
    lanes = lanes_of(base)
    padded = whole_vectors(base, op.units)
    state = at(like(base, job.state), op.state)
    for j in range(0, op.units, lanes):
        saved = at(base, op.auxiliary + j)
        if job.training:
            mean, inverse = vload(saved), vload(at(saved, padded))
        else:
            mean = vload(at(state, j))
            deviation = vsqrt(vadd(vload(at(state, padded + j)), vfull(base, op.a)))
            inverse = vdiv(vfull(base, 1.0), deviation)
        gamma, beta = vload(at(parameters, op.weight + j)), vload(at(parameters, op.bias + j))
        for i in range(start, start + n):
            xhat = vmul(vsub(vload(at(base, op.source + i * op.source_stride + j)), mean), inverse)
            vstore(at(base, op.result + i * op.result_stride + j), vfma(xhat, gamma, beta))


@kernel("n(op,p,i,i,i)")
def batch_norm_sums(op, base, n, task, tasks):
    """A task's columns of Σ dy and Σ dy xhat: the gradients of beta and gamma, which dx needs as well."""
    lanes = lanes_of(base)
    padded = whole_vectors(base, op.units)
    begin, end = share_start(op.units, lanes, task, tasks), share_start(op.units, lanes, task + 1, tasks)
    for j in range(begin, end, lanes):
        d = at(base, op.result_gradient + j)
        saved = at(base, op.auxiliary + j)
        mean, inverse = vload(saved), vload(at(saved, padded))
        column_sums(at(saved, 2 * padded), d, d, op.result_stride, n, 0, 0)
        total = vfull(base, 0.0)
        for k in range(0, n, ROW_BLOCK):
            part = vfull(base, 0.0)
            for i in range(k, min(k + ROW_BLOCK, n)):
                xhat = vmul(vsub(vload(at(base, op.source + i * op.source_stride + j)), mean), inverse)
                part = vfma(vload(at(d, i * op.result_stride)), xhat, part)
            total = vadd(total, part)
        vstore(at(saved, 3 * padded), total)


@kernel("n(op,p,p,i,i,i)")
def batch_norm_backward(op, parameters, base, start, n, batch):
    """dx = gamma / deviation (dy - mean(dy) - xhat mean(dy xhat)), means over the `batch` rows."""
    if op.source_write == NO_GRADIENT:
        return
    lanes = lanes_of(base)
    padded = whole_vectors(base, op.units)
    for j in range(0, op.units, lanes):
        saved = at(base, op.auxiliary + j)
        mean, inverse = vload(saved), vload(at(saved, padded))
        mean_d = vdiv(vload(at(saved, 2 * padded)), vfull(base, batch))
        mean_product = vdiv(vload(at(saved, 3 * padded)), vfull(base, batch))
        factor = vmul(vload(at(parameters, op.weight + j)), inverse)
        for i in range(start, start + n):
            xhat = vmul(vsub(vload(at(base, op.source + i * op.source_stride + j)), mean), inverse)
            d = vload(at(base, op.result_gradient + i * op.result_stride + j))
            value = vmul(factor, vsub(vsub(d, mean_d), vmul(xhat, mean_product)))
            dx = at(base, op.source_gradient + i * op.source_stride + j)
            if op.source_write == ACCUMULATE:
                value = vadd(vload(dx), value)
            vstore(dx, value)


@kernel("n(job,op,p,p,p,i,i)")
def batch_norm_gradient(job, op, parameters, base, scratch, task, tasks):
    """A task's columns of the gradients of gamma and beta, which `batch_norm_sums` left in the auxiliary memory."""
    lanes = lanes_of(base)
    padded = whole_vectors(base, op.units)
    begin, end = share_start(op.units, lanes, task, tasks), share_start(op.units, lanes, task + 1, tasks)
    for j in range(begin, end, lanes):
        for which in range(2):
            g = at(base, op.auxiliary + (3 - which) * padded + j)
            offset = (op.weight if which == 0 else op.bias) + j
            if job.keep_gradient:
                vstore(at(like(base, job.gradient), offset), vload(g))
            else:
                update_stretch(job, parameters, scratch, g, offset, 1, 0)
