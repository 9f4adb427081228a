"""What happens to rows of a batch: once gathered, they walk through the ops, meet the loss, and walk back.

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
from mlp_cli.kernels.gather import write_class
from mlp_cli.kernels.jit import kernel
from mlp_cli.kernels.lanes import at, lanes_of, load, store, vfull, vload, vone_hot, vstore, vstore_first
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
    SCRATCH_LOSS,
)
from mlp_cli.kernels.losses import (
    FUSED_BASE,
    SOFTMAX_CROSS_ENTROPY,
    loss_row,
    softmax_cross_entropy_columns,
    softmax_cross_entropy_vector,
)
from mlp_cli.kernels.memory import (
    double_at,
    int32_at,
    set_double_at,
    set_doubles_at,
    set_int32_at,
    set_int32s_at,
)
from mlp_cli.kernels.norms import batch_norm_backward, batch_norm_forward, layer_norm_backward, layer_norm_forward
from mlp_cli.kernels.tile import transpose_square


@kernel("n(p,p,i)")
def copy_out(out, x, columns):
    """out = x, and nothing written beyond `columns`."""
    lanes = lanes_of(x)
    for j in range(0, columns, lanes):
        vstore_first(at(out, j), vload(at(x, j)), columns - j)


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
            dense_backward(job, op, parameters, base, scratch, start, n)
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


@kernel("f(job,i,i)")
def loss_weight(job, row, batch):
    """What a row's gradient is multiplied by: that of the batch's mean unless the loss is a sum."""
    weight = 1.0 if job.loss_weights == 0 else double_at(job.loss_weights, row)
    return weight if job.sum_reduction else weight / batch


@kernel("b(job,p)")
def is_narrow_softmax(job, base):
    """Whether a row's logits of classes fit in a vector, for which there are faster ways."""
    return job.loss == SOFTMAX_CROSS_ENTROPY and job.target_classes != 0 and job.outputs_count <= lanes_of(base)


@kernel("n(job,p,rows,i,i,i,i)")
def meet_loss_of_row(job, base, rows, first_draw, i, first_result, batch):
    """Loss, gradient and predicted class of row i of a batch."""
    row = int(rows[first_draw + i])
    y = at(base, job.output + i * job.output_stride)
    t = at(base, job.target + i * job.target_stride)
    d = at(base, job.output_gradient + i * job.output_stride)
    scale = loss_weight(job, row, batch)
    if is_narrow_softmax(job, base):
        label = vone_hot(y, int32_at(job.target_classes, row), job.outputs_count, job.low, job.high)
        loss = softmax_cross_entropy_vector(job.output_a, d, y, label, job.outputs_count, scale * job.output_a)
    else:
        if job.target_classes != 0:
            write_class(job, t, int32_at(job.target_classes, row))
        loss = loss_row(job.loss, job.loss_option, job.output_a, d, y, t, job.outputs_count, scale)
    if job.loss_weights != 0:
        loss *= double_at(job.loss_weights, row)
    set_double_at(job.row_losses, first_result + i, loss)
    if job.classes > 0:
        predicted = int(load(y) > job.middle)
        if job.single_unit == 0:
            predicted = row_winner(y, job.outputs_count)
        set_int32_at(job.row_predictions, first_result + i, predicted)


@kernel("n(job,p,p,rows,i,i,i,i)")
def meet_softmax_of_square(job, base, scratch, rows, first_draw, start, first_result, batch):
    """`meet_loss_of_row` for as many rows from `start` on as a vector has lanes: one class after the other, all rows at
    once, to the same bits."""
    lanes = lanes_of(base)
    z = at(scratch, SCRATCH_LOSS)
    label, factor, winner = at(z, lanes * lanes), at(z, lanes * (lanes + 1)), at(z, lanes * (lanes + 2))
    for i in range(lanes):
        row = int(rows[first_draw + start + i])
        store(at(label, i), int32_at(job.target_classes, row))
        store(at(factor, i), loss_weight(job, row, batch) * job.output_a)
    transpose_square(z, lanes, at(base, job.output + start * job.output_stride), job.output_stride)
    losses = softmax_cross_entropy_columns(job.output_a, z, job.outputs_count, label, factor, job.low, job.high, winner)
    for k in range(job.outputs_count, lanes):
        vstore(at(z, k * lanes), vfull(z, 0.0))
    transpose_square(at(base, job.output_gradient + start * job.output_stride), job.output_stride, z, lanes)
    set_doubles_at(job.row_losses, first_result + start, losses)
    set_int32s_at(job.row_predictions, first_result + start, vload(winner))
    if job.loss_weights != 0:
        for i in range(start, start + lanes):
            weight = double_at(job.loss_weights, int(rows[first_draw + i]))
            set_double_at(job.row_losses, first_result + i, weight * double_at(job.row_losses, first_result + i))


@kernel("n(job,p,p,rows,i,i,i,i,i)")
def meet_loss(job, base, scratch, rows, first_draw, start, n, first_result, batch):
    """Loss, gradient and predicted class of n rows; their results go to first_result + start on."""
    i, end = start, start + n
    lanes = lanes_of(base)
    if is_narrow_softmax(job, base):
        while i + lanes <= end:
            meet_softmax_of_square(job, base, scratch, rows, first_draw, i, first_result, batch)
            i += lanes
    while i < end:
        meet_loss_of_row(job, base, rows, first_draw, i, first_result, batch)
        i += 1


@kernel("n(job,p,i,i)")
def finish_outputs(job, base, start, n):
    """Where the loss was computed from pre-activations, turn these into outputs, in place."""
    if job.loss >= FUSED_BASE:
        y = at(base, job.output + start * job.output_stride)
        activate(job.output_activation, job.output_a, job.output_b, y, job.output_stride, y, job.output_stride,
                 n, job.outputs_count)  # fmt: skip
