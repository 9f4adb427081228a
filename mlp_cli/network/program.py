"""The layers of a config become a program: a list of ops over buffers, and a table of parameters.

The program names its buffers by number; `Program.place` gives them addresses for a certain number of rows. Adding a
kind of layer is one builder here, one pair of kernels, and a word in the vocabulary.
"""

import itertools
from dataclasses import dataclass, field

import numpy as np

from mlp_cli.kernels import layout
from mlp_cli.kernels.activations import ZERO_HAS_NO_SLOPE, default_options, needs_input, needs_output
from mlp_cli.vocab import ACTIVATIONS

# Rows of a buffer are a multiple of the tile's rows.
ROW_MULTIPLE = 8


@dataclass
class Parameter:
    """A weight matrix (inputs x units) or, with inputs = 1 and matrix False, a vector of units."""

    name: str
    inputs: int
    units: int
    matrix: bool
    learns: bool
    offset: int
    size: int
    role: str  # weight, bias, gamma or beta
    layer: object  # the config's layer, for its initialiser
    fans: tuple[int, int]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in a checkpoint: (out, in) for a matrix."""
        return (self.units, self.inputs) if self.matrix else (self.units,)

    @property
    def count(self) -> int:
        """Numbers without padding."""
        return self.inputs * self.units


@dataclass
class State:
    """A running mean or variance of batch normalisation."""

    name: str
    units: int
    offset: int


@dataclass
class Op:
    """One op; `fields` are columns of `layout.OP` that do not depend on where buffers lie."""

    kind: int
    source: int
    result: int
    second: int | None = None
    gate: int | None = None
    before: int | None = None
    auxiliary_rows: int | None = None  # a buffer with a vector for each row
    auxiliary_columns: int | None = None  # batch_norm: four vectors as long as the units
    fields: dict = field(default_factory=dict)


@dataclass
class Line:
    """A line of the layer table that `mlp train` and `mlp inspect` print."""

    name: str
    kind: str
    inputs: int
    units: int
    activation: str
    parameters: int
    multiply_adds: int


class Program:
    """What `build` makes: ops, buffers (their columns), parameters, states."""

    def __init__(self, dtype: str, training: bool):
        self.dtype = np.dtype(dtype)
        self.training = training
        self.ops: list[Op] = []
        self.buffers: list[int] = []
        self.aliases: dict[int, int] = {}  # a buffer whose gradient is another's
        self.parameters: list[Parameter] = []
        self.states: list[State] = []
        self.lines: list[Line] = []
        self.parameter_size = 0
        self.state_size = 0
        self.output = 0

    # --- building ------------------------------------------------------------------------------------------

    def buffer(self, columns: int) -> int:
        """A new buffer of so many columns; its number."""
        self.buffers.append(columns)
        return len(self.buffers) - 1

    def parameter(self, name, inputs, units, matrix, learns, role, layer, fans) -> Parameter:
        """A new parameter, behind those there are."""
        size = layout.matrix_size(inputs, units, self.dtype) if matrix else layout.padded(units, self.dtype)
        made = Parameter(name, inputs, units, matrix, learns, self.parameter_size, size, role, layer, fans)
        self.parameter_size += size
        self.parameters.append(made)
        return made

    def state(self, name: str, units: int) -> State:
        """New running statistics, behind those there are."""
        made = State(name, units, self.state_size)
        self.state_size += layout.padded(units, self.dtype)
        self.states.append(made)
        return made

    @property
    def has_batch_norm(self) -> bool:
        """Whether rows depend on each other."""
        return any(op.kind == layout.BATCH_NORM for op in self.ops)

    @property
    def is_chain(self) -> bool:
        """Whether this is dense layers alone, one after the other, that all learn."""
        follows = all(op.source == before.result for before, op in itertools.pairwise(self.ops))
        return follows and all(op.kind == layout.DENSE and op.fields["learns"] for op in self.ops)

    @property
    def reads_input_once(self) -> bool:
        """Whether a dense layer comes first, and nothing else reads the inputs."""
        first, *others = self.ops
        read = {buffer for op in others for buffer in (op.source, op.second, op.gate)}
        return first.kind == layout.DENSE and first.source not in read

    @property
    def first_units(self) -> int:
        """Columns of the first op's result."""
        return self.buffers[self.ops[0].result]

    @property
    def parameter_count(self) -> int:
        """Parameters without padding."""
        return sum(parameter.count for parameter in self.parameters)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of a forward pass, a sample."""
        return sum(line.multiply_adds for line in self.lines)

    # --- placing -------------------------------------------------------------------------------------------

    def place(self, rows: int, inputs_elsewhere: bool = False) -> "Placed":
        """Give every buffer its place in a workspace for `rows` rows; that of the inputs holds their addresses alone if
        they are used where they lie."""
        return Placed(self, rows, inputs_elsewhere)

    def blocks(self) -> np.ndarray:
        """The table of parameters for the kernels (`layout.BLOCK`)."""
        table = np.zeros(len(self.parameters), layout.BLOCK)
        for record, parameter in zip(table, self.parameters, strict=True):
            record["offset"], record["inputs"], record["units"] = parameter.offset, parameter.inputs, parameter.units
            record["padded_inputs"] = layout.padded(parameter.inputs, self.dtype)
            record["matrix"], record["learns"] = parameter.matrix, parameter.learns
        return table

    def phases(self, gradient: bool = True, norm: bool = False, update: bool = False, max_norm: bool = False):
        """The phases of a step (`layout.PHASE`): rows, cut at every batch_norm, then gradient and update.

        With `gradient` False the loss alone is computed.
        """
        cuts = [i for i, op in enumerate(self.ops) if op.kind == layout.BATCH_NORM]
        bounds = [0, *cuts, len(self.ops)]
        phases = []
        for number, (begin, end) in enumerate(itertools.pairwise(bounds)):
            if number:
                phases.append({"kind": layout.STATISTICS_FORWARD, "op": begin})
            phases.append({"kind": layout.ROWS, "forward_from": begin, "forward_to": end, "gather": number == 0})
        phases[-1]["loss"] = True
        if gradient:
            # the last rows phase goes straight back to the last cut; the cut's own op needs its column sums first
            upper = len(self.ops)
            for number, cut in enumerate([*reversed(cuts), -1]):
                lower = cut + 1 if cut >= 0 else 0
                if number == 0:
                    phases[-1]["backward_from"], phases[-1]["backward_to"] = lower, upper
                else:
                    phases.append({"kind": layout.ROWS, "backward_from": lower, "backward_to": upper})
                if cut >= 0:
                    phases.append({"kind": layout.STATISTICS_BACKWARD, "op": cut})
                upper = lower
            phases.append({"kind": layout.GRADIENT, "account": True})
        else:
            # a phase of no rows, in which the losses are added up
            phases.append({"kind": layout.ROWS, "account": True})
        if norm:
            phases.append({"kind": layout.NORM})
        if update:
            phases.append({"kind": layout.UPDATE})
        if max_norm:
            phases.append({"kind": layout.MAX_NORM})
        phases[-1]["last"] = True
        table = np.zeros(len(phases), layout.PHASE)
        for record, phase in zip(table, phases, strict=True):
            for name, value in phase.items():
                record[name] = value
        return table


class Placed:
    """A program with addresses: `ops` (`layout.OP`), the workspace's size, and where input and output lie."""

    def __init__(self, program: Program, rows: int, inputs_elsewhere: bool = False):
        self.program = program
        self.rows = -(-rows // ROW_MULTIPLE) * ROW_MULTIPLE
        dtype = program.dtype
        self.size = 0
        self.strides = [layout.row_stride(columns, dtype) for columns in program.buffers]
        self.inputs_elsewhere = inputs_elsewhere
        if inputs_elsewhere:
            self.strides[0] = layout.ADDRESS_BYTES // dtype.itemsize
        self.values = [self._take(stride) for stride in self.strides]
        self.gradients = {}
        if program.training:
            for number, stride in enumerate(self.strides):
                if number not in program.aliases:
                    self.gradients[number] = self._take(stride)
        else:
            # evaluation computes the loss with the training kernel, which writes the output's gradient
            self.gradients[program.output] = self._take(self.strides[program.output])
        self.target_stride = self.strides[program.output]
        self.target = self._take(self.target_stride)
        self.ops = self._table()
        # kernels may read a vector beyond the last row
        self.size += 4 * layout.lane_count(dtype)

    def _take(self, stride: int) -> int:
        offset = self.size
        self.size += stride * self.rows
        return offset

    def gradient(self, buffer: int) -> int:
        """Where a buffer's gradient lies, aliases followed; 0 where it has none."""
        while buffer in self.program.aliases:
            buffer = self.program.aliases[buffer]
        return self.gradients.get(buffer, 0)

    def _table(self) -> np.ndarray:
        program = self.program
        table = np.zeros(len(program.ops), layout.OP)
        for record, op in zip(table, program.ops, strict=True):
            record["kind"] = op.kind
            for role, buffer in (
                ("source", op.source),
                ("result", op.result),
                ("second", op.second),
                ("gate", op.gate),
            ):
                if buffer is None:
                    continue
                record[role], record[f"{role}_stride"] = self.values[buffer], self.strides[buffer]
                record[f"{role}_gradient"] = self.gradient(buffer)
            before = op.result if op.before is None else op.before
            record["before"], record["before_stride"] = self.values[before], self.strides[before]
            record["inputs"], record["units"] = program.buffers[op.source], program.buffers[op.result]
            lanes = layout.lane_count(program.dtype)
            if op.auxiliary_rows is not None:
                record["auxiliary"] = self._take(lanes)
            if op.auxiliary_columns is not None:
                record["auxiliary"] = self.size
                self.size += 4 * layout.padded(op.auxiliary_columns, program.dtype)
            for name, value in op.fields.items():
                record[name] = value
        table["elsewhere"][0] = self.inputs_elsewhere
        self._mark_gradients(table)
        return table

    def _mark_gradients(self, table: np.ndarray) -> None:
        """Which ops take part in the backward pass, and which is the first to write a buffer's gradient."""
        program = self.program
        needed = [False] * len(program.buffers)
        for op in program.ops:
            inside = [buffer for buffer in (op.source, op.second, op.gate) if buffer is not None]
            needed[op.result] = bool(op.fields.get("learns", 0)) or any(needed[buffer] for buffer in inside)
        written = set()
        for record, op in zip(table[::-1], reversed(program.ops), strict=True):
            record["passes"] = needed[op.result]
            if not needed[op.source]:
                record["source_write"] = layout.NO_GRADIENT
            elif op.source in written:
                record["source_write"] = layout.ACCUMULATE
            else:
                record["source_write"] = layout.STORE
                written.add(op.source)


def build(config, inputs: int, outputs: int, fused: bool, training: bool) -> Program:
    """Compile a config's network for `inputs` features and `outputs` output units.

    With `fused`, the output layer stops at its pre-activations, which the loss starts from. Without `training`,
    dropout and noise are left out. Parameters are the same in both. ConfigError where widths do not fit.
    """
    return _Builder(config, inputs, outputs, fused, training).program


class _Builder:
    def __init__(self, config, inputs, outputs, fused, training):
        network = config.network
        self.config = config
        self.program = Program(config.dtype, training)
        self.outputs, self.fused, self.training = outputs, fused, training
        self.streams = 0
        buffer = self.program.buffer(inputs)
        buffer = self.random_op(layout.NOISE, buffer, network.input.noise)
        buffer = self.random_op(layout.DROPOUT, buffer, network.input.dropout)
        last = len(network.layers) - 1
        for number, layer in enumerate(network.layers):
            buffer = self.layer(layer, buffer, f"layers.{number}", output=number == last)
        self.program.output = buffer

    def layer(self, layer, source: int, name: str, output: bool = False) -> int:
        """Build a layer of any kind; the number of its result buffer."""
        builders = {
            "dense": self.dense,
            "residual": self.residual,
            "highway": self.highway,
            "concat": self.concat,
            "layer_norm": self.layer_norm,
            "batch_norm": self.batch_norm,
            "positional_encoding": self.positional_encoding,
        }
        return builders[layer.kind](layer, source, name, output)

    def random_op(self, kind: int, source: int, amount: float, activation: str | None = None) -> int:
        """Dropout or noise; each has a random stream of its own, numbered in the order of the config.

        `activation` is that of the dense layer whose result is dropped, in place where its slope allows.
        """
        self.streams += 1
        if not amount or not self.training:
            return source
        fields = {"stream": self.streams, "a": amount, "b": float(activation in ZERO_HAS_NO_SLOPE)}
        in_place = activation is not None and not needs_output(activation)
        result = source if in_place else self.program.buffer(self.program.buffers[source])
        self.program.ops.append(Op(kind, source, result, fields=fields))
        return result

    def product(self, layer, source: int, units: int, name: str, activation: str, options) -> int:
        """A dense op with weights `name`.weight and `name`.bias."""
        program = self.program
        inputs = program.buffers[source]
        learns = not layer.freeze
        fans = (inputs, units)
        weight = program.parameter(f"{name}.weight", inputs, units, True, learns, "weight", layer, fans)
        bias = program.parameter(f"{name}.bias", 1, units, False, learns, "bias", layer, fans)
        result = program.buffer(units)
        before = program.buffer(units) if needs_input(activation) else None
        fields = {
            "weight": weight.offset,
            "bias": bias.offset,
            "learns": learns,
            "activation": ACTIVATIONS[activation],
            "a": options[0],
            "b": options[1],
        }
        program.ops.append(Op(layout.DENSE, source, result, before=before, fields=fields))
        return result

    def dense(self, layer, source, name, output):
        """y = f(x W + b), then dropout."""
        units = self.outputs if output else layer.units
        inputs = self.program.buffers[source]
        activation = layer.activation.name
        self.line(name, "dense", inputs, units, activation, inputs * units + units, inputs * units)
        computed = "linear" if output and self.fused else activation
        result = self.product(layer, source, units, name, computed, activation_options(layer.activation))
        return self.random_op(layout.DROPOUT, result, layer.dropout, computed)

    def residual(self, layer, source, name, output):
        """x + f(x)."""
        columns = self.program.buffers[source]
        self.line(name, "residual", columns, columns, "", 0, 0)
        inner = self.inner(layer, source, name)
        if self.program.buffers[inner] != columns:
            raise self.config.error(
                f"network.{name}",
                f"a residual block adds its input to its result, but {columns} columns come in and "
                f"{self.program.buffers[inner]} come out; give its last layer units: {columns}",
            )
        result = self.program.buffer(columns)
        # the gradient of the inner result is that of the sum
        self.program.aliases[inner] = result
        self.program.ops.append(Op(layout.ADD, source, result, second=inner))
        return result

    def inner(self, layer, source, name):
        """The layers of a block, one after the other."""
        for number, part in enumerate(layer.layers):
            source = self.layer(part, source, f"{name}.layers.{number}")
        return source

    def highway(self, layer, source, name, output):
        """T f(x) + (1 - T) x, then dropout."""
        columns = self.program.buffers[source]
        activation = layer.activation.name
        parameters = 2 * (columns * columns + columns)
        self.line(name, "highway", columns, columns, activation, parameters, 2 * columns * columns)
        options = activation_options(layer.activation)
        inner = self.product(layer, source, columns, name, activation, options)
        gate = self.product(layer, source, columns, f"{name}.gate", "sigmoid", (0.0, 0.0))
        result = self.program.buffer(columns)
        self.program.ops.append(Op(layout.HIGHWAY, source, result, second=inner, gate=gate))
        return self.random_op(layout.DROPOUT, result, layer.dropout)

    def concat(self, layer, source, name, output):
        """[x, f(x)]."""
        columns = self.program.buffers[source]
        line = self.line(name, "concat", columns, 0, "", 0, 0)
        inner = self.inner(layer, source, name)
        line.units = columns + self.program.buffers[inner]
        result = self.program.buffer(line.units)
        self.program.ops.append(Op(layout.CONCAT, source, result, second=inner))
        return result

    def norm(self, layer, source, name, kind, word, **fields):
        """What both normalisations have: gamma, beta and epsilon."""
        columns = self.program.buffers[source]
        self.line(name, word, columns, columns, "", 2 * columns, 0)
        fans = (columns, columns)
        gamma = self.program.parameter(f"{name}.weight", 1, columns, False, True, "gamma", layer, fans)
        beta = self.program.parameter(f"{name}.bias", 1, columns, False, True, "beta", layer, fans)
        fields |= {"weight": gamma.offset, "bias": beta.offset, "learns": True, "a": layer.epsilon}
        op = Op(kind, source, self.program.buffer(columns), fields=fields)
        self.program.ops.append(op)
        return op

    def layer_norm(self, layer, source, name, output):
        """Normalisation over the units of a row."""
        op = self.norm(layer, source, name, layout.LAYER_NORM, "layer_norm")
        op.auxiliary_rows = 1
        return op.result

    def batch_norm(self, layer, source, name, output):
        """Normalisation over the rows of a batch."""
        columns = self.program.buffers[source]
        mean = self.program.state(f"{name}.running_mean", columns)
        self.program.state(f"{name}.running_var", columns)
        op = self.norm(layer, source, name, layout.BATCH_NORM, "batch_norm", state=mean.offset, b=layer.momentum)
        op.auxiliary_columns = columns
        return op.result

    def positional_encoding(self, layer, source, name, output):
        """Sines and cosines of 2^k pi x."""
        columns = self.program.buffers[source]
        units = 2 * layer.frequencies * columns
        self.line(name, "positional_encoding", columns, units, "", 0, 0)
        result = self.program.buffer(units)
        self.program.ops.append(Op(layout.POSITIONAL, source, result, fields={"a": float(layer.frequencies)}))
        return result

    def line(self, name, kind, inputs, units, activation, parameters, multiply_adds) -> Line:
        """A new line of the layer table."""
        made = Line(name, kind, inputs, units, activation, parameters, multiply_adds)
        self.program.lines.append(made)
        return made


def activation_options(activation) -> tuple[float, float]:
    """An activation's options (a, b) for the kernels: alpha, or low and high."""
    default = default_options(activation.name)
    if activation.name == "threshold":
        return float(activation.low), float(activation.high)
    alpha = getattr(activation, "alpha", None)
    return (default[0] if alpha is None else float(alpha), default[1])
