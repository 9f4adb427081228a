"""Runs a network: fills the job that the kernels read, and starts the team of threads on it."""

import time
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from mlp_cli.data.stored import StoredRows
from mlp_cli.errors import shortage
from mlp_cli.kernels import layout
from mlp_cli.kernels.prepare import prepare
from mlp_cli.kernels.random import EXCHANGES
from mlp_cli.kernels.team import Team
from mlp_cli.network.network import Network
from mlp_cli.network.pace import Pace
from mlp_cli.vocab import ACTIVATIONS

# Multiply-adds of a step (forward, backward, gradient) from which another thread pays for its barriers.
WORK_PER_THREAD = 200_000
# How often a waiting thread looks before it gives its processor away.
SPIN = 200
# Multiply-adds that one thread does in a few milliseconds: shorter than a signal needs to wait, so the main thread
# does them itself and saves the hand-over, which would take longer than an epoch of the smallest nets.
SHORT_WORK = 5_000_000
# What a core does, more or less; steps that were made are known better.
MULTIPLY_ADDS_A_SECOND = 2e10
# Rows whose memory is asked for before they are met, as long as the second-level cache has room for them.
AHEAD_ROWS, AHEAD_BYTES = 32, 128 << 10
# Rows to evaluate in one go: what is only needed on the way takes some megabytes, however many there are.
EVALUATED_ROWS = 1 << 20
FAR = np.iinfo(np.int64).max
# Products take rows of their first factor four at a time: in a gradient, these are inputs.
PRODUCT_ROWS = 4
# Units of a first layer up to which training uses rows where they lie. Each panel of its weights meets the rows again,
# so for wide layers a copy, which lies in few pages, pays (784 inputs: 6 % slower with 128 units, 1 % faster with 512).
IN_PLACE_UNITS = 384


@dataclass
class Rows:
    """Rows for the kernels: x (n, features), of the network's type or stored as something else; classes int32 (n,) or
    values (n, outputs); weights float64 (n,)."""

    x: np.ndarray | StoredRows
    classes: np.ndarray | None = None
    values: np.ndarray | None = None
    loss_weights: np.ndarray | None = None
    metric_weights: np.ndarray | None = None

    def __post_init__(self):
        self.stored = self.x if isinstance(self.x, StoredRows) else StoredRows(self.x, self.x.dtype)
        self._affine: list[np.ndarray] = []

    def __len__(self) -> int:
        return len(self.x)

    def usable_in_place(self, dtype: np.dtype) -> bool:
        """Whether the inputs lie in memory or in a file just as a network of this type takes them."""
        matrix = self.stored.stored
        aligned = not matrix.strides[0] % dtype.itemsize and not matrix.ctypes.data % dtype.itemsize
        return matrix.dtype == dtype and self.stored.shift is None and aligned

    def describe_inputs(self, record, dtype: np.dtype) -> None:
        """Say in a job where the inputs are stored and how they become numbers of the network's type."""
        stored, matrix = self.stored, self.stored.stored
        record["x"], record["x_stride"] = matrix.ctypes.data, matrix.strides[0]
        record["x_bytes"] = matrix.shape[1] * matrix.itemsize
        record["ahead"] = max(1, min(AHEAD_ROWS, AHEAD_BYTES // int(record["x_bytes"])))
        record["x_rows"] = 0 if stored.rows is None else stored.rows.ctypes.data
        if stored.shift is None and matrix.dtype == dtype:
            record["x_element"] = layout.AS_THEY_ARE
            return
        record["x_element"] = 1 + layout.ELEMENTS.index(matrix.dtype.name)
        if not self._affine:  # jobs hold their addresses: they are made once
            size = layout.padded(matrix.shape[1], dtype)
            self._affine = [np.zeros(size), np.ones(size)]
            if stored.shift is not None:
                for whole, given in zip(self._affine, (stored.shift, stored.scale), strict=True):
                    whole[: len(given)] = given
        record["x_shift"], record["x_scale"] = (array.ctypes.data for array in self._affine)


@dataclass
class Outcome:
    """How a stretch of steps ended: the step (of the epoch) that comes next, and whether a loss was not finite."""

    next_step: int
    finite: bool


class Halted(Exception):
    """`stop` was called during an evaluation, which has no result then."""


def threads_for(work: int, available: int) -> int:
    """Threads for so many multiply-adds between barriers."""
    return max(1, min(available, work // WORK_PER_THREAD))


class Machine:
    """A network at work on this computer. Threads never show in the results, only in the time."""

    def __init__(self, network: Network, threads: int):
        self.kernels = prepare(network.config.dtype)
        self.network = network
        self.team = _team(threads)
        self.threads = threads = self.team.threads
        self.control = layout.aligned_zeros(layout.CLAIMS + 8 * threads, np.int64)
        self.totals = np.zeros(0)
        self._kept: dict[str, np.ndarray] = {}
        self._training: np.ndarray | None = None

    def close(self) -> None:
        """Send the threads home."""
        self.team.close()

    def stop(self) -> None:
        """Ask the threads to stop: after the step they are at, or in it if it is long; safe in a signal handler."""
        self.control[layout.STOP] = layout.STOP_NOW

    def stop_after_step(self) -> None:
        """Ask the threads to stop after the step they are at, however long it is."""
        self.control[layout.STOP] = layout.STOP_AFTER_STEP

    @property
    def progress(self) -> int:
        """Steps of the epoch that are done, or rows that are evaluated."""
        return int(self.control[layout.PROGRESS])

    # --- training ------------------------------------------------------------------------------------------

    def prepare_training(self, rows: Rows, batch_size: int, check: bool = False) -> None:
        """Lay out workspace and job for training on `rows`. With `check` the gradient is kept and nothing updated."""
        network, config = self.network, self.network.config
        program = network.training_program
        self.training_threads = training_threads(network, batch_size, self.threads)
        chunk = chunk_rows(program, batch_size, self.training_threads)
        clip = config.optimizer.clip_norm is not None and not check
        keep = check or clip or chunk < batch_size
        max_norm = config.regularization.max_norm
        direct = is_direct(network)
        by_sample = batch_size == 1 and direct and not keep and max_norm is None and not config.regularization.l2
        by_sample = by_sample and program.is_chain
        placed = program.place(chunk, uses_rows_in_place(network, rows, by_sample))
        self.batch_size, self.training_rows = batch_size, rows
        self.phases = program.phases(update=keep and not check, norm=clip, max_norm=max_norm is not None and not check)
        self.loss_phases = program.phases(gradient=False)
        self.blocks = program.blocks()
        job = self._job(placed, rows, self.threads)
        record = job[0]
        record["l1"], record["l2"] = config.regularization.l1, config.regularization.l2
        record["max_norm"] = max_norm or 0.0
        record["clip_value"] = np.inf if config.optimizer.clip_value is None or check else config.optimizer.clip_value
        record["clip_norm"] = config.optimizer.clip_norm if clip else 0.0
        record["optimizer"], record["direct"], record["by_sample"] = network.optimizer_code, direct, by_sample
        record["keep_gradient"] = keep
        record["batch_size"], record["chunk_rows"], record["training"] = batch_size, chunk, 1
        record["parameter_count"] = program.parameter_size
        held = program.parameter_size * (1 + network.moment_count) * network.dtype.itemsize
        record["far_parameters"] = held > layout.FAR_BYTES
        record["partial_count"] = -(-program.parameter_size // layout.NORM_BLOCK)
        self.gradient = self._keep(record, "gradient", program.parameter_size if keep else 0, network.dtype)
        self._keep(record, "partials", int(record["partial_count"]), np.float64)
        self._keep(record, "row_losses", placed.rows, np.float64)
        self._keep(record, "row_predictions", placed.rows, np.int32)
        self._keep(record, "workspace", placed.size, network.dtype)
        self._keep(record, "scratch", int(record["scratch_size"]) * self.threads, network.dtype)
        for name, moment in zip(("moment1", "moment2"), network.moments, strict=False):
            record[name] = moment.ctypes.data
        self.totals = np.zeros(network.coding.totals_size)
        record["totals"], record["totals_size"] = self.totals.ctypes.data, self.totals.size
        self._totals_before = self._keep(record, "totals_before", self.totals.size, np.float64)
        self._state_before = self._keep(record, "state_before", network.state.size, network.dtype)
        record["state_size"] = network.state.nbytes // 4
        record["tasks"] = self.training_threads
        self._training, self._placed = job, placed
        multiply_adds = 3 * program.multiply_adds * batch_size
        self.pace = Pace(self.training_threads, multiply_adds / MULTIPLY_ADDS_A_SECOND / self.training_threads)

    def draws(self, sampling, epoch: int) -> np.ndarray:
        """The rows of an epoch in the order in which they are met, uint32 (n,)."""
        order = np.arange(len(self.training_rows), dtype=np.uint32)
        seed = self.network.config.seed
        if sampling.name == "with_replacement":
            self.kernels.draw_rows(self.network.parameters, order, epoch, seed)
        elif sampling.name == "shuffle":
            block = getattr(sampling, "block_rows", None) or 0
            blocks = np.empty(-(-len(order) // block) if block else 0, np.uint32)
            places = np.empty(EXCHANGES, np.uint32)
            self.kernels.shuffle_rows(self.network.parameters, order, blocks, places, block, epoch, seed)
        at_random = sampling.name != "sequential" and not getattr(sampling, "block_rows", None)
        self.training_rows.stored.expect(at_random)
        return order

    def train(self, rows: np.ndarray, epoch: int, coefficients: np.ndarray, first: int, look=None) -> Outcome:
        """Do the steps first, first + 1, … of an epoch, one for each row of `coefficients`.

        `rows` are the epoch's draws. Stops early when a stop was asked for or a loss is not finite; of a long step
        that was given up nothing remains. `look` is called every tenth of a second. DataError where the rows lie in
        a mapped file that has changed.
        """
        rows_a_step = min(self.batch_size, len(rows))
        coefficients = np.ascontiguousarray(coefficients)
        step, end = first, first + len(coefficients)
        self._training[0]["epoch"] = epoch
        self.control[layout.STATUS] = layout.RUNNING
        with self._stoppable():
            while step < end:
                threads, most = self.pace.stretch()
                last = int(min(step + most, end))
                began = time.perf_counter()
                self._train(rows, step, last, coefficients[step - first :], threads, rows_a_step, look)
                self.pace.took(threads, self.progress - step, time.perf_counter() - began)
                step = self.progress
                if step < last or self.control[layout.STATUS] != layout.RUNNING or self.control[layout.STOP]:
                    break
                if look and step < end:
                    look()
        if self.control[layout.STATUS] == layout.GIVEN_UP:
            self.totals[:], self.network.state[:] = self._totals_before, self._state_before
        return Outcome(step, int(self.control[layout.STATUS]) != layout.NOT_FINITE)

    def _train(self, rows, first: int, end: int, coefficients, threads: int, rows_a_step: int, look) -> None:
        """Steps first … end - 1 by so many threads."""
        self.training_rows.stored.check()
        record = self._training[0]
        record["first_step"], record["end_step"], record["tasks"] = first, end, threads
        work = 3 * self.network.training_program.multiply_adds * (end - first) * rows_a_step
        self._run(
            work, threads, self.kernels.train_steps, self.network.parameters, self._training, self._placed.ops,
            self.blocks, self.phases, rows, coefficients, look=look, progress=first,
        )  # fmt: skip
        self.training_rows.stored.check()

    def loss_of_batch(self, rows: np.ndarray, gradient: bool) -> float:
        """The loss of one batch, as the optimizer sees it; with `gradient`, its gradient is left in `self.gradient`."""
        record = self._training[0]
        record["epoch"], record["first_step"], record["end_step"] = 1, 0, 1
        self.totals[:] = 0.0
        phases = self.phases if gradient else self.loss_phases
        with self._stoppable():
            self._run(
                0, 1, self.kernels.train_steps, self.network.parameters, self._training, self._placed.ops, self.blocks,
                phases, rows, np.zeros((1, 10)),
            )  # fmt: skip
        total = float(self.totals[layout.TOTAL_LOSS])
        return total if record["sum_reduction"] else total / len(rows)

    # --- evaluation ----------------------------------------------------------------------------------------

    def evaluate(self, rows: Rows, look=None) -> tuple[np.ndarray, np.ndarray]:
        """Outputs (n, outputs) and weighted losses (n,) of rows; the losses are zeros where no targets are given.

        DataError where the rows lie in a mapped file that has changed.
        """
        rows.stored.check()
        rows.stored.expect(random=False)
        network = self.network
        threads = threads_for(network.program.multiply_adds * len(rows) // 4, self.threads)
        in_place = network.program.reads_input_once and rows.usable_in_place(network.dtype)
        placed = network.program.place(layout.ROW_BLOCK, in_place)
        job = self._job(placed, rows, threads)
        record = job[0]
        outputs = np.zeros((len(rows), network.coding.outputs), network.dtype)
        losses = np.zeros(len(rows))
        predictions = np.zeros(min(len(rows), EVALUATED_ROWS), np.int32)
        record["row_predictions"], record["workspace_size"] = predictions.ctypes.data, placed.size
        # memory of its own: what the training job points to must stay
        for name, size in (("workspace", placed.size), ("scratch", int(record["scratch_size"]))):
            record[name] = self._evaluation_memory(name, size * threads).ctypes.data
        with self._stoppable():
            for start in range(0, len(rows), EVALUATED_ROWS):
                order = np.arange(start, min(start + EVALUATED_ROWS, len(rows)), dtype=np.uint32)
                record["outputs"], record["row_losses"] = outputs[start:].ctypes.data, losses[start:].ctypes.data
                work = network.program.multiply_adds * len(order)
                self._run(
                    work, threads, self.kernels.evaluate_rows, network.parameters, job, placed.ops, order, look=look,
                    progress=start,
                )  # fmt: skip
                rows.stored.check()
                if self.progress < start + len(order):
                    raise Halted
        return outputs, losses

    # --- inside --------------------------------------------------------------------------------------------

    def _job(self, placed, rows: Rows, threads: int) -> np.ndarray:
        """What training and evaluation have in common."""
        network, config, coding = self.network, self.network.config, self.network.coding
        program = placed.program
        job = np.zeros(1, layout.JOB)
        record = job[0]
        self._rows = rows  # the kernels hold addresses: the arrays must live
        rows.describe_inputs(record, network.dtype)
        for name, array in (
            ("target_classes", rows.classes),
            ("target_values", rows.values),
            ("loss_weights", rows.loss_weights),
            ("metric_weights", rows.metric_weights),
        ):
            record[name] = 0 if array is None else array.ctypes.data
        record["target_bytes"] = coding.outputs * network.dtype.itemsize
        record["state"], record["control"] = network.state.ctypes.data, self.control.ctypes.data
        record["seed"] = config.seed
        record["features"], record["outputs_count"], record["row_count"] = network.features, coding.outputs, len(rows)
        record["in_place"] = placed.inputs_elsewhere
        record["input"], record["input_stride"] = placed.values[0], placed.strides[0]
        output = program.output
        record["output"], record["output_stride"] = placed.values[output], placed.strides[output]
        record["output_gradient"] = placed.gradient(output)
        record["target"], record["target_stride"] = placed.target, placed.target_stride
        scratch = layout.SCRATCH_TRANSPOSED + 2 * layout.lane_count(network.dtype) * max(
            layout.padded(columns, network.dtype) for columns in program.buffers
        )
        record["scratch_size"] = scratch
        activation = config.network.layers[-1].activation
        record["loss"], record["output_activation"] = network.loss_code, ACTIVATIONS[activation.name]
        record["output_a"] = getattr(activation, "alpha", None) or 1.0
        record["loss_option"] = _loss_option(config.loss)
        record["sum_reduction"] = config.loss.reduction == "sum"
        record["classes"], record["single_unit"] = coding.classes, coding.single
        record["confusion"] = coding.keeps_confusion
        record["low"], record["high"] = coding.target_low, coding.target_high
        record["middle"] = coding.middle
        record["spin"] = SPIN
        record["tasks"] = threads
        return job

    def _keep(self, record, name: str, size: int, dtype) -> np.ndarray:
        """Memory that a job points to, as long as the machine lives."""
        array = layout.aligned_zeros(size, dtype)
        self._kept[name] = array
        record[name] = array.ctypes.data if size else 0
        return array

    def _evaluation_memory(self, name: str, size: int) -> np.ndarray:
        """Memory for an evaluation, kept for the next one: to ask for it takes as long as to evaluate 50 rows."""
        kept = self._kept.get(f"evaluation {name}")
        if kept is None or len(kept) < size:
            kept = self._kept[f"evaluation {name}"] = layout.aligned_zeros(size, self.network.dtype)
        return kept

    def _run(self, work: int, threads: int, function, *arguments, look=None, progress: int = 0) -> None:
        """Run a kernel of so many multiply-adds: here if that is little, else in the team."""
        self.control[layout.DONE] = self.control[layout.NEXT] = self.control[layout.STATUS] = 0
        self.control[layout.CLAIMS :] = 0
        self.control[layout.PROGRESS] = progress
        self.control[layout.HALT] = FAR
        if threads == 1 and work < SHORT_WORK:
            function(*arguments, 0)
        else:
            self.team.run(function, *arguments, threads=threads, look=look, stop=self.stop)

    @contextmanager
    def _stoppable(self):
        """Calls of kernels that a stop ends together.

        One that comes too late is not meant for the calls after them: whoever asked for it looks at a flag of its own.
        """
        try:
            yield
        finally:
            self.control[layout.STOP] = 0


def _loss_option(loss) -> float:
    for name in ("delta", "q", "gamma"):
        if hasattr(loss, name):
            return float(getattr(loss, name))
    return 0.0


def _team(threads: int) -> Team:
    """The threads, fewer where the system allows no more; SystemFault where it allows none."""
    try:
        return Team(threads)
    except RuntimeError as error:
        raise shortage(error) or error from None


def is_direct(network: Network) -> bool:
    """Whether a step is -rate * (gradient + l2 * weights) and nothing else, which needs no gradient in memory."""
    penalty, optimizer = network.config.regularization, network.config.optimizer
    changed = penalty.l1 or penalty.weight_decay or optimizer.clip_value is not None
    return network.moment_count == 0 and not changed


def uses_rows_in_place(network: Network, rows: Rows, by_sample: bool) -> bool:
    """Whether training reads inputs where they lie instead of a copy of each batch."""
    program = network.training_program
    if not (program.reads_input_once and rows.usable_in_place(network.dtype)):
        return False
    return by_sample or (network.features % PRODUCT_ROWS == 0 and program.first_units <= IN_PLACE_UNITS)


def training_threads(network: Network, batch_size: int, available: int) -> int:
    """Threads that share a step, or a chunk of a larger batch."""
    rows = min(batch_size, layout.ROW_BLOCK * available)
    return threads_for(3 * network.training_program.multiply_adds * rows, available)


def chunk_rows(program, batch_size: int, threads: int) -> int:
    """Rows of a batch that go through the workspace at a time: what each thread's cache holds, so many threads.

    The gradient is gathered over chunks in blocks of ROW_BLOCK rows, whatever the chunk: the bits are the same.
    (784-512-512-10, batch 1024, 1 thread: 27 µs a sample in chunks of 128 rows, 34 in one of 1024.) Batch
    normalisation needs all rows at once.
    """
    return batch_size if program.has_batch_norm else min(batch_size, layout.ROW_BLOCK * threads)


def memory_needed(network: Network, batch_size: int, threads: int = 1) -> int:
    """Bytes of workspace, parameters, gradient and moments for training in batches of `batch_size`."""
    program = network.training_program
    chunk = chunk_rows(program, batch_size, threads)
    elements = program.place(chunk).size + program.parameter_size * (2 + network.moment_count)
    return elements * network.dtype.itemsize
