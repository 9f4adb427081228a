"""What happens to rows of a batch: they are gathered, walk through the ops, meet the loss, and walk back.

Rows are independent of each other here, so that any cut of a batch among threads gives the same bits.
"""

from mlp_cli.kernels.activations import activate, row_winner
from mlp_cli.kernels.blocks import (
    add_backward,
    add_forward,
    concat_backward,
    concat_forward,
    dropout_backward,
    dropout_forward,
    highway_backward,
    highway_forward,
    noise_forward,
    positional_backward,
    positional_forward,
)
from mlp_cli.kernels.dense import dense_backward, dense_forward
from mlp_cli.kernels.jit import kernel
from mlp_cli.kernels.lanes import at, lanes_of, like, load, store, vfull, vload, vload_first, vstore, vstore_first
from mlp_cli.kernels.layout import (
    ADD,
    BATCH_NORM,
    CONCAT,
    DENSE,
    DROPOUT,
    HIGHWAY,
    LAYER_NORM,
    NOISE,
    POSITIONAL,
)
from mlp_cli.kernels.losses import FUSED_BASE, loss_row
from mlp_cli.kernels.memory import double_at, int32_at, set_double_at, set_int32_at
from mlp_cli.kernels.norms import batch_norm_backward, batch_norm_forward, layer_norm_backward, layer_norm_forward


@kernel("n(p,p,i)")
def copy_row(out, x, columns):
    """out = x; padded columns become zero."""
    lanes = lanes_of(x)
    whole = columns // lanes * lanes
    for j in range(0, whole, lanes):
        vstore(at(out, j), vload(at(x, j)))
    if whole < columns:
        vstore(at(out, whole), vload_first(at(x, whole), columns - whole))


@kernel("n(p,p,i)")
def copy_out(out, x, columns):
    """out = x, and nothing written beyond `columns`."""
    lanes = lanes_of(x)
    for j in range(0, columns, lanes):
        vstore_first(at(out, j), vload(at(x, j)), columns - j)


@kernel("n(job,p,i)")
def write_class(job, target, number):
    """A class in the output layer's coding: high for its unit and low for the others, or one unit for two classes."""
    lanes = lanes_of(target)
    for j in range(0, job.outputs_count, lanes):
        vstore(at(target, j), vfull(target, 0.0))
        vstore_first(at(target, j), vfull(target, job.low), job.outputs_count - j)
    if job.single_unit == 0:
        store(at(target, number), job.high)
    elif number == 1:
        store(target, job.high)


@kernel("n(job,p,rows,i,i,i)")
def gather(job, base, rows, first_draw, start, n):
    """Inputs and targets of the batch's rows start … start + n - 1, which are the epoch's draws from first_draw on."""
    x = like(base, job.x)
    for i in range(start, start + n):
        row = int(rows[first_draw + i])
        copy_row(at(base, job.input + i * job.input_stride), at(x, row * job.features), job.features)
        target = at(base, job.target + i * job.target_stride)
        if job.target_classes != 0:
            write_class(job, target, int32_at(job.target_classes, row))
        elif job.target_values != 0:
            values = like(base, job.target_values)
            copy_row(target, at(values, row * job.outputs_count), job.outputs_count)


@kernel("n(job,ops,p,p,p,i,i,i,i,i)")
def forward(job, ops, parameters, base, scratch, begin, end, start, n, first_draw):
    """Ops begin … end - 1 on n rows."""
    for number in range(begin, end):
        op = ops[number]
        if op.kind == DENSE:
            dense_forward(op, parameters, base, scratch, start, n)
        elif op.kind == ADD:
            add_forward(op, parameters, base, scratch, start, n)
        elif op.kind == HIGHWAY:
            highway_forward(op, parameters, base, scratch, start, n)
        elif op.kind == CONCAT:
            concat_forward(op, parameters, base, scratch, start, n)
        elif op.kind == LAYER_NORM:
            layer_norm_forward(op, parameters, base, scratch, start, n)
        elif op.kind == BATCH_NORM:
            batch_norm_forward(job, op, parameters, base, start, n)
        elif op.kind == POSITIONAL:
            positional_forward(op, parameters, base, scratch, start, n)
        elif op.kind == DROPOUT:
            dropout_forward(op, base, start, n, first_draw, job.epoch, job.seed)
        elif op.kind == NOISE:
            noise_forward(op, base, start, n, first_draw, job.epoch, job.seed)


@kernel("n(job,ops,p,p,p,i,i,i,i,i,i)")
def backward(job, ops, parameters, base, scratch, begin, end, start, n, first_draw, batch):
    """Ops end - 1 … begin, in descending order, on n rows of a batch of `batch` rows."""
    for number in range(end - 1, begin - 1, -1):
        op = ops[number]
        if op.passes == 0:
            continue
        if op.kind == DENSE:
            dense_backward(op, parameters, base, scratch, start, n)
        elif op.kind == ADD:
            add_backward(op, parameters, base, scratch, start, n)
        elif op.kind == HIGHWAY:
            highway_backward(op, parameters, base, scratch, start, n)
        elif op.kind == CONCAT:
            concat_backward(op, parameters, base, scratch, start, n)
        elif op.kind == LAYER_NORM:
            layer_norm_backward(op, parameters, base, scratch, start, n)
        elif op.kind == BATCH_NORM:
            batch_norm_backward(op, parameters, base, start, n, batch)
        elif op.kind == POSITIONAL:
            positional_backward(op, parameters, base, scratch, start, n)
        elif op.kind == DROPOUT:
            dropout_backward(op, base, start, n, first_draw, job.epoch, job.seed)


@kernel("n(job,p,rows,i,i,i,i,i)")
def meet_loss(job, base, rows, first_draw, start, n, first_result, batch):
    """Loss, gradient and predicted class of n rows; their results go to first_result + start on.

    A row's loss and gradient are weighted; the gradient is that of the batch's mean unless the loss is a sum.
    """
    for i in range(start, start + n):
        weight = 1.0
        if job.loss_weights != 0:
            weight = double_at(job.loss_weights, int(rows[first_draw + i]))
        scale = weight
        if job.sum_reduction == 0:
            scale = weight / batch
        y = at(base, job.output + i * job.output_stride)
        t = at(base, job.target + i * job.target_stride)
        d = at(base, job.output_gradient + i * job.output_stride)
        loss = loss_row(job.loss, job.loss_option, job.output_a, d, y, t, job.outputs_count, scale)
        set_double_at(job.row_losses, first_result + i, weight * loss)
        if job.classes > 0:
            predicted = int(load(y) > job.middle)
            if job.single_unit == 0:
                predicted = row_winner(y, job.outputs_count)
            set_int32_at(job.row_predictions, first_result + i, predicted)


@kernel("n(job,p,i,i)")
def finish_outputs(job, base, start, n):
    """Where the loss was computed from pre-activations, turn these into outputs, in place."""
    if job.loss >= FUSED_BASE:
        y = at(base, job.output + start * job.output_stride)
        activate(job.output_activation, job.output_a, job.output_b, y, job.output_stride, y, job.output_stride,
                 n, job.outputs_count)  # fmt: skip
