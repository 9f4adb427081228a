"""The entry kernels: training steps, and the forward pass over many rows.

Every thread of the team runs the same function. A step is a list of phases with a barrier after each; a phase is cut
into tasks that the threads claim. Sums that cross tasks have one fixed order, so the number of threads and of tasks
never shows in the bits.
"""

import math

from mlp_cli.kernels.accounting import account, end_step
from mlp_cli.kernels.dense import dense_gradient, panel_columns, share_start, update_stretch
from mlp_cli.kernels.gather import gather
from mlp_cli.kernels.jit import kernel
from mlp_cli.kernels.lanes import (
    at,
    lanes_of,
    like,
    pointer_to,
    store,
    vadd,
    vdiv,
    vfma,
    vfull,
    vload,
    vmin,
    vmul,
    vsqrt,
    vstore,
)
from mlp_cli.kernels.layout import (
    BATCH_NORM,
    DENSE,
    DONE,
    GIVEN_UP,
    GRADIENT,
    HALT,
    LAYER_NORM,
    MAX_NORM,
    NEXT,
    NORM,
    NORM_BLOCK,
    PROGRESS,
    ROW_BLOCK,
    ROWS,
    SCRATCH_COEFFICIENTS,
    SCRATCH_ZEROS,
    STATISTICS_BACKWARD,
    STATISTICS_FORWARD,
    STATUS,
    STOP,
    STOP_NOW,
    UPDATE,
)
from mlp_cli.kernels.memory import double_at, int32_at, set_double_at, set_int32_at
from mlp_cli.kernels.norms import batch_norm_gradient, batch_norm_statistics, batch_norm_sums, layer_norm_gradient
from mlp_cli.kernels.optimizers import CLIP_FACTOR, sum_of_squares, take_coefficients
from mlp_cli.kernels.rows import backward, copy_out, finish_outputs, forward, meet_loss
from mlp_cli.kernels.samples import train_samples
from mlp_cli.kernels.threads import atomic_add, atomic_load, atomic_store, claim, wait_until_done

# PyTorch's clip_grad_norm_: the factor is clip_norm / (norm + 1e-6), at most 1.
CLIP_EPSILON = 1e-6


@kernel("b(job,i,i)")
def gives_up(job, batch, step):
    """Whether a step is to be given up: one of more rows than the threads take at a time may last for minutes.

    Nothing has changed the weights before its last chunk's gradient; sums and running statistics can be put back.
    """
    if batch <= ROW_BLOCK * job.tasks or atomic_load(job.control, STOP) != STOP_NOW:
        return False
    atomic_store(job.control, STATUS, GIVEN_UP)
    atomic_store(job.control, HALT, step)
    return True


@kernel("n(job)")
def remember_sums(job):
    """Keep what `Machine.train` puts back when a step is given up."""
    for i in range(job.totals_size):
        set_double_at(job.totals_before, i, double_at(job.totals, i))
    for i in range(job.state_size):
        set_int32_at(job.state_before, i, int32_at(job.state, i))


@kernel("n(job,ops,p,p,p,rows,phase,i,i,i,i,i,i)")
def rows_task(job, ops, parameters, base, scratch, rows, phase, first_draw, n, batch, step, task, tasks):
    """A task's rows of a chunk through the phase's ops: forward, loss, backward."""
    begin, end = share_start(n, 8, task, tasks), share_start(n, 8, task + 1, tasks)
    for start in range(begin, end, ROW_BLOCK):
        if gives_up(job, batch, step):
            break
        count = min(ROW_BLOCK, end - start)
        if phase.gather:
            gather(job, base, rows, first_draw, start, count)
        forward(job, ops, parameters, base, scratch, phase.forward_from, phase.forward_to, start, count, first_draw)
        if phase.loss:
            meet_loss(job, base, scratch, rows, first_draw, start, count, 0, batch)
            if job.classes == 0:
                finish_outputs(job, base, start, count)
        backward(job, ops, parameters, base, scratch, phase.backward_from, phase.backward_to, start, count,
                 first_draw, batch)  # fmt: skip


@kernel("n(job,ops,p,p,p,i,i,i,i)")
def gradient_task(job, ops, parameters, base, scratch, n, first_chunk, task, tasks):
    """A task's share of every parameter's gradient, and the step on it unless the gradient is kept."""
    for number in range(ops.shape[0] - 1, -1, -1):
        op = ops[number]
        if op.learns:
            if op.kind == DENSE:
                dense_gradient(job, op, parameters, base, scratch, n, first_chunk, task, tasks)
            elif op.kind == LAYER_NORM:
                layer_norm_gradient(job, op, parameters, base, scratch, n, first_chunk, task, tasks)
            elif op.kind == BATCH_NORM:
                batch_norm_gradient(job, op, parameters, base, scratch, task, tasks)


@kernel("n(job,p,i,i)")
def norm_task(job, base, task, tasks):
    """A task's partial sums of squares of the kept gradient, by fixed blocks of NORM_BLOCK elements."""
    gradient = like(base, job.gradient)
    for block in range(
        share_start(job.partial_count, 1, task, tasks), share_start(job.partial_count, 1, task + 1, tasks)
    ):
        size = min(NORM_BLOCK, job.parameter_count - block * NORM_BLOCK)
        squares = sum_of_squares(at(gradient, block * NORM_BLOCK), size // lanes_of(base), job.clip_value)
        set_double_at(job.partials, block, squares)


@kernel("n(job,p)")
def set_clip_factor(job, scratch):
    """min(1, clip_norm / (norm + 1e-6)) from the partial sums, added in order."""
    squares = 0.0
    for block in range(job.partial_count):
        squares += double_at(job.partials, block)
    factor = job.clip_norm / (math.sqrt(squares) + CLIP_EPSILON)
    # written so that a NaN norm gives NaN and the run is stopped, rather than a factor of 1
    store(at(scratch, SCRATCH_COEFFICIENTS + CLIP_FACTOR), 1.0 if factor >= 1.0 else factor)


@kernel("n(job,blocks,p,p,i,i)")
def update_task(job, blocks, parameters, scratch, task, tasks):
    """A task's share of the optimizer's step from the kept gradient."""
    lanes = lanes_of(parameters)
    gradient = like(parameters, job.gradient)
    if job.clip_norm > 0.0:
        set_clip_factor(job, scratch)
    for number in range(blocks.shape[0]):
        block = blocks[number]
        if block.learns == 0:
            continue
        if block.matrix == 0:
            begin, end = share_start(block.units, lanes, task, tasks), share_start(block.units, lanes, task + 1, tasks)
            vectors = (end - begin + lanes - 1) // lanes
            offset = block.offset + begin
            update_stretch(job, parameters, scratch, at(gradient, offset), offset, vectors, 0)
            continue
        width = panel_columns(parameters, block.units)
        begin, end = share_start(block.inputs, 8, task, tasks), share_start(block.inputs, 8, task + 1, tasks)
        for panel in range((block.units + width - 1) // width):
            offset = block.offset + panel * width * block.padded_inputs + begin * width
            vectors = (end - begin) * width // lanes
            update_stretch(job, parameters, scratch, at(gradient, offset), offset, vectors, 1)


@kernel("n(job,blocks,p,i,i)")
def max_norm_task(job, blocks, parameters, task, tasks):
    """Scale down each unit's incoming weights to length max_norm where they are longer; a task's share of the units."""
    lanes = lanes_of(parameters)
    for number in range(blocks.shape[0]):
        block = blocks[number]
        if block.learns == 0 or block.matrix == 0:
            continue
        width = panel_columns(parameters, block.units)
        begin, end = share_start(block.units, lanes, task, tasks), share_start(block.units, lanes, task + 1, tasks)
        for j in range(begin, end, lanes):
            column = at(parameters, block.offset + j // width * width * block.padded_inputs + j % width)
            squares = vfull(column, 0.0)
            for k in range(0, block.inputs, ROW_BLOCK):
                part = vfull(column, 0.0)
                for i in range(k, min(k + ROW_BLOCK, block.inputs)):
                    w = vload(at(column, i * width))
                    part = vfma(w, w, part)
                squares = vadd(squares, part)
            # a column of zeros gives infinity here, and then 1
            factor = vmin(vdiv(vfull(column, job.max_norm), vsqrt(squares)), vfull(column, 1.0))
            for i in range(block.inputs):
                vstore(at(column, i * width), vmul(vload(at(column, i * width)), factor))


@kernel("n(p)")
def clear_zeros(scratch):
    """Make the zeros from which products start."""
    for i in range(SCRATCH_ZEROS, SCRATCH_COEFFICIENTS):
        store(at(scratch, i), 0.0)


@kernel("n(job,ops,blocks,p,p,p,rows,phase,i,i,i,i,i,i,i)")
def run_task(
    job, ops, blocks, parameters, base, scratch, rows, phase, first_draw, n, batch, step, first_chunk, task, tasks
):
    """One task of one phase."""
    kind = phase.kind
    if kind == ROWS:
        rows_task(job, ops, parameters, base, scratch, rows, phase, first_draw, n, batch, step, task, tasks)
    elif kind == GRADIENT:
        gradient_task(job, ops, parameters, base, scratch, n, first_chunk, task, tasks)
    elif kind == STATISTICS_FORWARD:
        batch_norm_statistics(job, ops[phase.op], base, n, task, tasks)
    elif kind == STATISTICS_BACKWARD:
        batch_norm_sums(ops[phase.op], base, n, task, tasks)
    elif kind == NORM:
        norm_task(job, base, task, tasks)
    elif kind == UPDATE:
        update_task(job, blocks, parameters, scratch, task, tasks)
    elif kind == MAX_NORM:
        max_norm_task(job, blocks, parameters, task, tasks)


@kernel("n(s[:],jobs,ops,blocks,phases,rows,table,i)", entry=True)
def train_steps(parameters, jobs, ops, blocks, phases, rows, coefficients, thread):
    """Steps first_step … end_step - 1 of an epoch whose draws are `rows`; row s of `coefficients` belongs to step
    first_step + s. HALT holds the step before which to stop: beyond the end unless a flag or a bad loss says so."""
    job = jobs[0]
    p = pointer_to(parameters)
    base = like(p, job.workspace)
    scratch = at(like(p, job.scratch), thread * job.scratch_size)
    clear_zeros(scratch)
    if job.by_sample:
        train_samples(job, ops, p, base, scratch, rows, coefficients)
        return
    tasks = job.tasks
    generation = 0
    for step in range(job.first_step, job.end_step):
        if atomic_load(job.control, HALT) <= step:
            break
        take_coefficients(coefficients, step - job.first_step, scratch)
        first = step * job.batch_size
        batch = min(job.batch_size, rows.shape[0] - first)
        for chunk in range(0, batch, job.chunk_rows):
            n = min(job.chunk_rows, batch - chunk)
            first_chunk, last_chunk = int(chunk == 0), chunk + n == batch
            for number in range(phases.shape[0]):
                phase = phases[number]
                if phase.kind >= NORM and not last_chunk:
                    continue
                finished = (generation + 1) * tasks
                for turn in range(tasks):
                    task = (thread + turn) % tasks
                    if tasks == 1 or claim(job.control, task, generation):
                        if task == 0 and number == 0 and first_chunk and batch > ROW_BLOCK * tasks:
                            remember_sums(job)
                        run_task(job, ops, blocks, p, base, scratch, rows, phase, first + chunk, n, batch, step,
                                 first_chunk, task, tasks)  # fmt: skip
                        if task == 0:
                            if phase.account:
                                account(job, base, rows, first + chunk, n, step)
                            if phase.last and last_chunk:
                                end_step(job, step)
                        if tasks > 1:
                            atomic_add(job.control, DONE, 1)
                if tasks > 1:
                    wait_until_done(job.control, finished, job.spin)
                generation += 1
                if atomic_load(job.control, HALT) <= step:
                    return


@kernel("n(s[:],jobs,ops,rows,i)", entry=True)
def evaluate_rows(parameters, jobs, ops, rows, thread):
    """Outputs, losses and predicted classes of all `rows`, which threads claim in blocks of ROW_BLOCK."""
    job = jobs[0]
    p = pointer_to(parameters)
    base = at(like(p, job.workspace), thread * job.workspace_size)
    scratch = at(like(p, job.scratch), thread * job.scratch_size)
    clear_zeros(scratch)
    outputs = like(p, job.outputs)
    total = rows.shape[0]
    while atomic_load(job.control, STOP) == 0:
        first = atomic_add(job.control, NEXT, 1) * ROW_BLOCK
        if first >= total:
            break
        n = min(ROW_BLOCK, total - first)
        gather(job, base, rows, first, 0, n)
        forward(job, ops, p, base, scratch, 0, ops.shape[0], 0, n, first)
        if job.target_classes != 0 or job.target_values != 0:
            meet_loss(job, base, scratch, rows, first, 0, n, first, n)
        finish_outputs(job, base, 0, n)
        for i in range(n):
            y = at(base, job.output + i * job.output_stride)
            copy_out(at(outputs, (first + i) * job.outputs_count), y, job.outputs_count)
        atomic_add(job.control, PROGRESS, n)
