"""What is summed up while samples are met: losses, right answers, the confusion matrix, errors of numbers.

The sums are float64, added in order of rows and of steps; losses by blocks of ROW_BLOCK rows.
"""

import math

from mlp_cli.kernels.jit import kernel
from mlp_cli.kernels.lanes import at, load
from mlp_cli.kernels.layout import (
    ABSOLUTE_ERROR,
    HALT,
    NOT_FINITE,
    PROGRESS,
    ROW_BLOCK,
    SQUARED_ERROR,
    STATUS,
    STOP,
    TARGET_SQUARES,
    TARGET_SUM,
    TARGET_TOTALS,
    TOTAL_CORRECT,
    TOTAL_LOSS,
    TOTAL_ROWS,
    TOTAL_WEIGHT,
    TOTALS_HEAD,
)
from mlp_cli.kernels.memory import add_double_at, double_at, int32_at, set_double_at
from mlp_cli.kernels.threads import atomic_load, atomic_store


@kernel("f(job,i)")
def account_losses(job, n):
    """Add n rows' losses to the epoch's sum; returns their own.

    By blocks of ROW_BLOCK rows, since the length of a chunk depends on the number of threads.
    """
    loss = 0.0
    for k in range(0, n, ROW_BLOCK):
        part = 0.0
        for i in range(k, min(k + ROW_BLOCK, n)):
            part += double_at(job.row_losses, i)
        add_double_at(job.totals, TOTAL_LOSS, part)
        loss += part
    add_double_at(job.totals, TOTAL_ROWS, n)
    return loss


@kernel("f(job,i)")
def metric_weight(job, row):
    """What a row counts in metrics."""
    return 1.0 if job.metric_weights == 0 else double_at(job.metric_weights, row)


@kernel("n(job,rows,i,i)")
def account_classes(job, rows, first_draw, n):
    """Add n rows' right answers, and their cells of the confusion matrix, to the epoch's sums in order of rows."""
    # in registers: a sum in memory would wait for its own last store at every row
    total, correct = double_at(job.totals, TOTAL_WEIGHT), double_at(job.totals, TOTAL_CORRECT)
    for i in range(n):
        row = int(rows[first_draw + i])
        weight = metric_weight(job, row)
        total += weight
        truth, predicted = int32_at(job.target_classes, row), int32_at(job.row_predictions, i)
        # a product, since a branch would be guessed wrong as often as the network is
        correct += weight * (truth == predicted)
        if job.confusion:
            add_double_at(job.totals, TOTALS_HEAD + truth * job.classes + predicted, weight)
    set_double_at(job.totals, TOTAL_WEIGHT, total)
    set_double_at(job.totals, TOTAL_CORRECT, correct)


@kernel("n(job,p,rows,i,i)")
def account_numbers(job, base, rows, first_draw, n):
    """Add n rows' errors and targets to the epoch's sums of each target, in order of rows."""
    for i in range(n):
        weight = metric_weight(job, int(rows[first_draw + i]))
        add_double_at(job.totals, TOTAL_WEIGHT, weight)
        y = at(base, job.output + i * job.output_stride)
        t = at(base, job.target + i * job.target_stride)
        for j in range(job.outputs_count):
            target = load(at(t, j))
            error = load(at(y, j)) - target
            place = TOTALS_HEAD + j * TARGET_TOTALS
            add_double_at(job.totals, place + SQUARED_ERROR, weight * error * error)
            add_double_at(job.totals, place + ABSOLUTE_ERROR, weight * abs(error))
            add_double_at(job.totals, place + TARGET_SUM, weight * target)
            add_double_at(job.totals, place + TARGET_SQUARES, weight * target * target)


@kernel("n(job,p,rows,i,i,i)")
def account(job, base, rows, first_draw, n, step):
    """Add a chunk to the epoch's sums, and stop the run where its loss is not finite."""
    if not math.isfinite(account_losses(job, n)):
        atomic_store(job.control, STATUS, NOT_FINITE)
        atomic_store(job.control, HALT, step + 1)
    if job.classes > 0:
        account_classes(job, rows, first_draw, n)
    else:
        account_numbers(job, base, rows, first_draw, n)


@kernel("n(job,i)")
def end_step(job, step):
    """Tell the main thread how far training is, and whether to go on."""
    atomic_store(job.control, PROGRESS, step + 1)
    if atomic_load(job.control, STOP) != 0:
        atomic_store(job.control, HALT, step + 1)
