"""Plain descent one sample a step, on a chain of dense layers: the fastest path for batches of one.

A step of one sample does two operations for each weight it loads, so the trips over the weights are what it costs. The
first layer, usually the largest, makes one trip: its update waits until the next sample is there, and then each weight
is changed and used while it is in a register. The other layers make two: forward, and backward with the update. Every
number is computed as in `dense`, in the order of its chains, to the same bits.
"""

from mlp_cli.kernels.accounting import account, end_step
from mlp_cli.kernels.activations import LINEAR, activate, activate_backward
from mlp_cli.kernels.dense import dense_forward, panel_columns, whole_vectors
from mlp_cli.kernels.emit import Value
from mlp_cli.kernels.gather import fetch_inputs, fetch_target, place_of, prefetch_row
from mlp_cli.kernels.jit import kernel
from mlp_cli.kernels.lanes import at, intrinsic, lanes_of, like, load, vfma, vfull, vload, vstore
from mlp_cli.kernels.layout import HALT, SCRATCH_COEFFICIENTS
from mlp_cli.kernels.optimizers import RATE, take_coefficients
from mlp_cli.kernels.rows import finish_outputs, meet_loss_of_row
from mlp_cli.kernels.threads import atomic_load
from mlp_cli.kernels.tile import WIDE, emit_transposed


def _emit_update_and_product(vectors: int):
    """A generator for a panel of one or two vectors, or two panels: W - rate x_oldᵀ d in place, and z = (b - rate d) +
    x W of that. Two panels are four chains, of which each waits for itself only.

    width: columns of a panel. panel: elements from one to the next. depth: inputs.
    """

    def emit(e, z, w, width, panel, bias, x_old, d, rate, x, depth):
        rate = e.splat_double(-rate)
        places = [e.lanes * j for j in range(vectors)]
        columns = [e.at(w, panel * (j // 2) + e.lanes * (j % 2)) for j in range(vectors)]
        slopes = [e.load(e.at(d, place)) for place in places]
        starts = [e.fma(slope, rate, e.load(e.at(bias, place))) for slope, place in zip(slopes, places, strict=True)]
        for place, start in zip(places, starts, strict=True):
            e.store(e.at(bias, place), start)
        sums = [e.variable(start) for start in starts]
        with e.loop(depth) as k:
            before, now = (e.splat(e.load_scalar(e.at(source, k))) for source in (x_old, x))
            for column, slope, total in zip(columns, slopes, sums, strict=True):
                place = e.at(column, k * width)
                # product and step are rounded apart, as where the gradient of a batch is summed first
                gradient = e.fma(before, slope, 0.0)
                weight = e.fma(gradient, rate, e.load(place))
                e.store(place, weight)
                total.set(e.fma(now, weight, total.get()))
        for place, total in zip(places, sums, strict=True):
            e.store(e.at(z, place), total.get())

    return emit


update_and_product_1 = intrinsic("n(p,p,i,i,p,p,p,f,p,i)")(_emit_update_and_product(1))
update_and_product_2 = intrinsic("n(p,p,i,i,p,p,p,f,p,i)")(_emit_update_and_product(2))
update_and_product_4 = intrinsic("n(p,p,i,i,p,p,p,f,p,i)")(_emit_update_and_product(4))


@intrinsic("n(p,p,i,i,i,p,p,f)")
def backward_of_inputs(e, dx, w, width, panel, units, d, x, rate):
    """dx = d Wᵀ for as many inputs as a vector has lanes, and W - rate xᵀ d in place.

    w: the weights of the first of these inputs. width, panel: columns of a panel, and elements from one to the next.
    Units beyond `units` have weights and slopes of zero and change nothing.
    """
    rate = e.splat_double(-rate)
    shift = e.lanes.bit_length() - 1
    in_a_panel = width >> e.constant(shift, width.type)
    vectors = (units + (e.lanes - 1)) >> e.constant(shift, units.type)
    x_rows = [e.splat(e.load_scalar(e.at(x, i))) for i in range(e.lanes)]
    total = e.variable(e.constant(0.0))
    with e.loop(vectors) as v:
        number = Value(e, e.builder.udiv(v.llvm, in_a_panel.llvm))
        square = e.at(w, number * panel + (v - number * in_a_panel) * e.lanes)
        places = [e.at(square, width * i) for i in range(e.lanes)]
        rows = [e.load(place) for place in places]
        slope = e.at(d, v * e.lanes)
        slopes = e.load(slope)
        for first, here in e.in_fours(units - v * e.lanes):
            with here:
                four = range(first, first + 4)
                for k, column in zip(four, emit_transposed(e, rows, four), strict=True):
                    total.set(e.fma(e.splat(e.lane(slopes, k)), column, total.get()))
        for place, row, x_i in zip(places, rows, x_rows, strict=True):
            e.store(place, e.fma(e.fma(x_i, slopes, 0.0), rate, row))
    e.store(dx, total.get())


@kernel("n(op,p,p,p,f,p)")
def update_and_forward(op, parameters, base, x_old, rate, x):
    """The step of the last sample, whose inputs are x_old and whose slopes are still there; then y = f(x W + b)."""
    z, d = at(base, op.before), at(base, op.result_gradient)
    lanes = lanes_of(base)
    width = panel_columns(base, op.units)
    panel = width * whole_vectors(base, op.inputs)
    j = 0
    while j < op.units:
        weight, bias = at(parameters, op.weight + j // width * panel), at(parameters, op.bias + j)
        vectors = whole_vectors(base, op.units - j) // lanes
        if WIDE and vectors >= 4:
            vectors = 4
            update_and_product_4(at(z, j), weight, width, panel, bias, x_old, at(d, j), rate, x, op.inputs)
        elif vectors >= 2:
            vectors = 2
            update_and_product_2(at(z, j), weight, width, panel, bias, x_old, at(d, j), rate, x, op.inputs)
        else:
            update_and_product_1(at(z, j), weight, width, panel, bias, x_old, at(d, j), rate, x, op.inputs)
        j += vectors * lanes
    if op.activation != LINEAR:
        y = at(base, op.result)
        activate(op.activation, op.a, op.b, y, op.result_stride, z, op.before_stride, 1, op.units)


@kernel("n(op,p)")
def slopes_of_sample(op, base):
    """dz = dy f'(z), in place of dy."""
    d, z = at(base, op.result_gradient), at(base, op.before)
    activate_backward(op.activation, op.a, op.b, d, op.result_stride, z, op.before_stride, 1, op.units)


@kernel("n(op,p,p,f)")
def backward_and_update(op, parameters, base, rate):
    """dx = dz Wᵀ and the step on W and b, from a sample's dz."""
    x, dx, d = at(base, op.source), at(base, op.source_gradient), at(base, op.result_gradient)
    lanes = lanes_of(base)
    width = panel_columns(base, op.units)
    panel = width * whole_vectors(base, op.inputs)
    for i in range(0, op.inputs, lanes):
        weight = at(parameters, op.weight + i * width)
        backward_of_inputs(at(dx, i), weight, width, panel, op.units, d, at(x, i), rate)
    bias = at(parameters, op.bias)
    for j in range(0, op.units, lanes):
        vstore(at(bias, j), vfma(vload(at(d, j)), vfull(base, -rate), vload(at(bias, j))))


@kernel("p(job,p,rows,i)")
def sample_at(job, base, rows, step):
    """The inputs of a step's sample: where they are stored if they can be used there, else fetched to one of two rows,
    in turns, since those of the sample before are still needed. Its targets are fetched."""
    prefetch_row(job, rows, step)
    row = int(rows[step])
    fetch_target(job, base, row, 0)
    if job.in_place:
        return like(base, place_of(job, row))
    inputs = at(base, job.input + (step & 1) * job.input_stride)
    fetch_inputs(job, base, inputs, row)
    return inputs


@kernel("n(job,ops,p,p,p,rows,i,f,p,p)")
def train_sample(job, ops, parameters, base, scratch, rows, step, rate, x_old, x):
    """A sample, of inputs x, through the network and back. The first layer makes the step of the sample before, at its
    `rate`; that of this sample waits."""
    update_and_forward(ops[0], parameters, base, x_old, rate, x)
    for number in range(1, ops.shape[0]):
        dense_forward(ops[number], parameters, base, scratch, 0, 1)
    meet_loss_of_row(job, base, rows, step, 0, 0, 1)
    if job.classes == 0:
        finish_outputs(job, base, 0, 1)
    for number in range(ops.shape[0] - 1, -1, -1):
        slopes_of_sample(ops[number], base)
        if number > 0:
            backward_and_update(ops[number], parameters, base, load(at(scratch, SCRATCH_COEFFICIENTS + RATE)))


@kernel("n(job,ops,p,p,p,rows,table)")
def train_samples(job, ops, parameters, base, scratch, rows, coefficients):
    """`engine.train_steps` for one sample a step; by one thread."""
    first = ops[0]
    # no step waits at the beginning
    for j in range(0, first.units, lanes_of(base)):
        vstore(at(base, first.result_gradient + j), vfull(base, 0.0))
    rate = 0.0
    x = sample_at(job, base, rows, job.first_step)
    for step in range(job.first_step, job.end_step):
        if atomic_load(job.control, HALT) <= step:
            break
        take_coefficients(coefficients, step - job.first_step, scratch)
        x_old, x = x, sample_at(job, base, rows, step)
        train_sample(job, ops, parameters, base, scratch, rows, step, rate, x_old, x)
        rate = load(at(scratch, SCRATCH_COEFFICIENTS + RATE))
        account(job, base, rows, step, 1, step)
        end_step(job, step)
    update_and_forward(first, parameters, base, x, rate, x)
