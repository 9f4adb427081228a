"""A network with its numbers: flat padded vectors below, plain matrices with names above."""

import numpy as np

from mlp_cli import memory
from mlp_cli.errors import CheckpointError
from mlp_cli.kernels import layout
from mlp_cli.kernels import losses as loss_kernels
from mlp_cli.kernels import optimizers as optimizer_kernels
from mlp_cli.network.coding import Coding
from mlp_cli.network.initial import initial_value
from mlp_cli.network.program import Parameter, Program, build
from mlp_cli.optimizers import kernel_code, rprop_initial
from mlp_cli.wording import sizes

MOMENTS = ("moment1", "moment2")


class Network:
    """A config's network for so many features: programs, parameters, optimizer moments, running statistics.

    All vectors are flat, padded and of the config's dtype; `tensors` and `load` speak in checkpoint names and shapes.
    """

    def __init__(self, config, features: int, coding: Coding, allocate: bool = True):
        """Without `allocate`, it is known what the network is made of, but it has no numbers until `allocate()`.

        SystemFault where memory has no room for them.
        """
        self.config, self.features, self.coding = config, features, coding
        self.dtype = np.dtype(config.dtype)
        last = config.network.layers[-1].activation.name
        self.loss_code = loss_kernels.code(last, config.loss.name)
        fused = loss_kernels.is_fused(self.loss_code)
        arguments = (config, features, coding.outputs, fused)
        self.training_program = build(*arguments, training=True)
        self.program = build(*arguments, training=False)
        self.optimizer_code = kernel_code(config.optimizer, optimizer_kernels.PLAIN_SGD)
        self.moment_count = optimizer_kernels.moments_of(self.optimizer_code)
        if allocate:
            self.allocate()

    def allocate(self) -> None:
        """Make room for the parameters and the running statistics. SystemFault where memory has none."""
        memory.require(
            self.program.parameter_size * self.dtype.itemsize,
            f"The network's {self.program.parameter_count:,} parameters need",
            "use fewer units",
        )
        self.parameters = layout.aligned_zeros(self.program.parameter_size, self.dtype)
        self.state = layout.aligned_zeros(self.program.state_size, self.dtype)
        self.moments: list[np.ndarray] = []

    # --- numbers -------------------------------------------------------------------------------------------

    def initialize(self, seed: int) -> None:
        """Give every parameter its first value, and running statistics theirs (mean 0, variance 1)."""
        for number, parameter in enumerate(self.program.parameters):
            self._put(self.parameters, parameter, initial_value(self.config, parameter, number, seed))
        for state in self.program.states:
            value = 1.0 if state.name.endswith("running_var") else 0.0
            self.state[state.offset : state.offset + state.units] = value

    def start_optimizer(self) -> None:
        """Moments before the first step: zeros, but rprop's second holds the first step size."""
        size = self.program.parameter_size
        self.moments = [layout.aligned_zeros(size, self.dtype) for _ in range(self.moment_count)]
        if self.config.optimizer.name == "rprop":
            self.moments[1][:] = rprop_initial(self.config)

    def tensors(self) -> dict[str, np.ndarray]:
        """Parameters and running statistics in checkpoint names and shapes."""
        named = {p.name: self._get(self.parameters, p) for p in self.program.parameters}
        for state in self.program.states:
            named[state.name] = self.state[state.offset : state.offset + state.units].copy()
        return named

    def optimizer_tensors(self) -> dict[str, np.ndarray]:
        """Moments as `optimizer.moment1.<parameter>`."""
        return {
            f"optimizer.{name}.{p.name}": self._get(moment, p)
            for name, moment in zip(MOMENTS, self.moments, strict=False)
            for p in self.program.parameters
        }

    def load(self, tensors: dict[str, np.ndarray], source: str) -> None:
        """Take parameters and running statistics; CheckpointError naming `source` where one is missing or misshapen."""
        for parameter in self.program.parameters:
            self._put(self.parameters, parameter, find(tensors, parameter.name, parameter.shape, source))
        for state in self.program.states:
            value = find(tensors, state.name, (state.units,), source)
            self.state[state.offset : state.offset + state.units] = value

    def load_optimizer(self, tensors: dict[str, np.ndarray], source: str) -> None:
        """Take the moments."""
        self.start_optimizer()
        for name, moment in zip(MOMENTS, self.moments, strict=False):
            for parameter in self.program.parameters:
                found = find(tensors, f"optimizer.{name}.{parameter.name}", parameter.shape, source)
                self._put(moment, parameter, found)

    def index(self, parameter: Parameter, unit: int, column: int) -> int:
        """Where weight (unit, input column) of a parameter lies in the flat vector; column is 0 for a vector."""
        if not parameter.matrix:
            return parameter.offset + unit
        width = layout.panel_width(parameter.units, self.dtype)
        rows = layout.padded(parameter.inputs, self.dtype)
        return parameter.offset + unit // width * width * rows + column * width + unit % width

    def _put(self, flat: np.ndarray, parameter: Parameter, value: np.ndarray) -> None:
        place = flat[parameter.offset : parameter.offset + parameter.size]
        if parameter.matrix:
            layout.pack_matrix(np.asarray(value).T.astype(self.dtype), place)
        else:
            place[: parameter.units] = value

    def _get(self, flat: np.ndarray, parameter: Parameter) -> np.ndarray:
        place = flat[parameter.offset : parameter.offset + parameter.size]
        if parameter.matrix:
            return np.ascontiguousarray(layout.unpack_matrix(place, parameter.inputs, parameter.units).T)
        return place[: parameter.units].copy()


def find(tensors: dict, name: str, shape: tuple, source: str) -> np.ndarray:
    """A tensor of a checkpoint; CheckpointError naming `source` where it is missing or of another shape."""
    if name not in tensors:
        raise CheckpointError(f"{source}: the tensor {name} is missing; the checkpoint is of another network")
    if tensors[name].shape != shape:
        raise CheckpointError(
            f"{source}: expected {name} of shape {sizes(shape)}; got {sizes(tensors[name].shape)}. "
            "The checkpoint is of another network"
        )
    return tensors[name]


def load_initial(network: Network, tensors: dict[str, np.ndarray], source: str) -> None:
    """Start from another checkpoint (`network.initial`): ConfigError where it does not fit this network."""
    try:
        network.load(tensors, source)
    except CheckpointError as error:
        raise network.config.error("network.initial", str(error)) from None


def describe(program: Program) -> list[dict]:
    """The layer table as dictionaries, for printing and for --json."""
    return [
        {
            "layer": line.name,
            "kind": line.kind,
            "inputs": line.inputs,
            "units": line.units,
            "activation": line.activation,
            "parameters": line.parameters,
            "multiply_adds": line.multiply_adds,
        }
        for line in program.lines
    ]
