"""A network beside its naive twin: the few words in which the tests of kernels and networks are written."""

import functools
import hashlib
import itertools
from dataclasses import dataclass
from types import SimpleNamespace
from unittest import mock

import numpy as np
from reference import Trainer, encode

from mlp_cli import config as configs
from mlp_cli import optimizers, rng
from mlp_cli.data.stored import StoredRows
from mlp_cli.errors import ConfigError
from mlp_cli.kernels import build, jit, layout, processor
from mlp_cli.kernels.library import Library
from mlp_cli.network import coding, machine
from mlp_cli.network.machine import Machine, Rows
from mlp_cli.network.network import Network
from mlp_cli.vocab import ACTIVATIONS, CLASS_LOSSES, LOSSES, STREAMS

DTYPES = ("float32", "float64")

# --- configs and rows -------------------------------------------------------------------------------------------


def configure(
    layers, loss="half_quadratic", *, optimizer="sgd", rate=0.05, dtype="float64", inputs=None, task=None, **sections
):
    """The checked Config of a network; the task follows from the loss unless it is given."""
    task = task or ("classification" if named(loss) in CLASS_LOSSES else "regression")
    return configs.from_resolved(
        {
            "dtype": dtype,
            "data": {"path": "rows.csv", "task": task} | sections.pop("data", {}),
            "network": {"layers": layers, "input": inputs or {}},
            "loss": loss,
            "optimizer": optimizer,
            "learning_rate": rate,
            **sections,
        }
    )


def named(word):
    """The name of a bare word or of a mapping."""
    return word if isinstance(word, str) else word["name"]


@functools.cache
def sensible_pairs():
    """Every (output activation, loss) of the vocabulary that a config accepts."""
    pairs = []
    for activation, loss in itertools.product(ACTIVATIONS, LOSSES):
        try:
            configure([{"activation": activation}], loss)
        except ConfigError:
            continue
        pairs.append((activation, loss))
    return tuple(pairs)


@dataclass
class Examples:
    """Rows to learn from: x (n, d), and classes (n,) among `count` or values (n, k); w are sample weights or None."""

    x: np.ndarray
    classes: np.ndarray | None = None
    count: int = 0
    values: np.ndarray | None = None
    w: np.ndarray | None = None

    @property
    def task(self):
        if self.classes is None:
            targets = tuple(f"t{i}" for i in range(self.values.shape[1]))
            return SimpleNamespace(kind="regression", classes=None, targets=targets)
        return SimpleNamespace(kind="classification", classes=tuple(map(str, range(self.count))), targets=("t",))

    def rows(self, dtype, copied=False):
        """The same for the kernels; with `copied`, stored in a way that the kernels have to make numbers of."""
        values = None if self.values is None else np.ascontiguousarray(self.values, dtype)
        x = np.ascontiguousarray(self.x, dtype)
        if copied:
            x = StoredRows(x, x.dtype, shift=np.zeros(x.shape[1]), scale=np.ones(x.shape[1]))
        return Rows(x, self.classes, values, self.w)


def examples(n, features, outputs, loss="half_quadratic", weighted=False, seed=0):
    """Random examples that suit a loss: classes, counts, or real numbers."""
    random = np.random.default_rng(seed)
    made = Examples(random.normal(size=(n, features)), w=random.uniform(0.2, 2.0, n) if weighted else None)
    if named(loss) in CLASS_LOSSES:
        made.count = max(outputs, 2)
        made.classes = random.integers(0, made.count, n).astype(np.int32)
    elif named(loss) == "poisson":
        made.values = random.integers(0, 5, (n, outputs)).astype(np.float64)
    else:
        made.values = random.normal(size=(n, outputs))
    return made


# --- the pair ---------------------------------------------------------------------------------------------------


class Pair:
    """The product's network and its twin with the same initial numbers, to be trained on the same batches.

    `threads` is a number of threads that is really used, however small the net. With `copied` inputs, no row is used
    where it lies.
    """

    def __init__(self, config, rows: Examples, batch_size=None, threads=1, check=False, copied=False):
        self.config, self.rows = config, rows
        self.batch_size = batch_size or len(rows.x)
        self.steps = -(-len(rows.x) // self.batch_size)
        self.order = np.arange(len(rows.x), dtype=np.uint32)
        self.rate = config.learning_rate.initial
        self.coding = coding.code(config, rows.task)
        self.network = Network(config, rows.x.shape[1], self.coding)
        self.network.initialize(config.seed)
        self.network.start_optimizer()
        self.machine = Machine(self.network, threads)
        with mock.patch.object(machine, "WORK_PER_THREAD", 1):
            self.machine.prepare_training(rows.rows(config.dtype, copied), self.batch_size, check)
        self.twin = self.make_twin()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.machine.close()

    def make_twin(self):
        """A Trainer of the same layers that starts from the network's present numbers."""
        resolved = self.config.resolved()
        layers = resolved["network"]["layers"]
        layers[-1]["units"] = self.coding.outputs
        return Trainer(
            layers,
            resolved["loss"],
            resolved["optimizer"],
            resolved["regularization"],
            {name: value.astype(np.float64) for name, value in self.network.tensors().items()},
            input_dropout=self.config.network.input.dropout,
        )

    def train(self, first=0, count=None, epoch=1):
        """Steps first … first + count - 1 of an epoch (default: the rest of it)."""
        count = self.steps - first if count is None else count
        rates = np.full(count, self.rate)
        update = (epoch - 1) * self.steps + first + 1
        table = optimizers.step_coefficients(self.config, rates, update)
        return self.machine.train(self.order, epoch, table, first)

    def batch(self, step):
        """(x, t, w) of a step, as the twin takes them."""
        chosen = self.order[step * self.batch_size : (step + 1) * self.batch_size]
        w = None if self.rows.w is None else self.rows.w[chosen]
        return self.rows.x[chosen], self.targets()[chosen], w

    def targets(self):
        if self.rows.classes is None:
            return self.rows.values
        bipolar = self.coding.low == -1.0
        return encode(self.rows.classes, self.coding.outputs, "bipolar" if bipolar else "binary")

    def twin_step(self, step, epoch=1):
        """One step of the twin, with the masks and the noise that the product's documented counters give."""
        x, t, w = self.batch(step)
        draws = np.arange(len(x)) + step * self.batch_size
        masks, noise = random_parts(self.config, x.shape[1], draws, epoch)
        return self.twin.step(x, t, w, self.rate, masks, noise)

    def outputs(self):
        """The network's outputs for all rows."""
        with mock.patch.object(machine, "WORK_PER_THREAD", 1):
            return self.machine.evaluate(self.rows.rows(self.config.dtype))[0]

    def gradients(self):
        """{name: gradient} of the first batch's loss; the pair is made with check=True."""
        self.machine.loss_of_batch(self.order[: self.batch_size], gradient=True)
        return unpacked(self.network, self.machine.gradient)

    def difference(self):
        """The largest difference between the network's numbers and the twin's."""
        theirs = self.twin.parameters() | self.twin.statistics()
        ours = self.network.tensors()
        assert set(ours) == set(theirs)
        return max(np.abs(ours[name] - theirs[name]).max() for name in ours)

    def digest(self):
        """A hash of the bits of all that training has changed."""
        arrays = [self.network.parameters, self.network.state, *self.network.moments, self.machine.totals]
        return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def unpacked(network, flat):
    """A flat vector with the layout of the parameters, by name and in plain shapes."""
    return {p.name: network._get(flat, p) for p in network.program.parameters}


def padding(network):
    """A mask of the elements of the flat vectors that belong to no parameter."""
    inside = np.zeros(network.program.parameter_size, bool)
    for p in network.program.parameters:
        for unit, column in itertools.product(range(p.units), range(p.inputs)):
            inside[network.index(p, unit, column)] = True
    return ~inside


# --- random numbers by their documented counters ----------------------------------------------------------------


def random_words(stream, number, draws, units, epoch, seed):
    """Words (len(draws), units): unit u of draw r takes word (u % 64) // 16 of the counter
    ((u // 64) 16 + u % 16, r, stream | number << 8, epoch)."""
    u = np.arange(units)
    four = rng.philox((u // 64) * 16 + u % 16, np.asarray(draws)[:, None], STREAMS[stream] | number << 8, epoch, seed)
    return np.choose((u % 64) // 16, np.broadcast_arrays(*four))


def kept(number, rate, draws, units, epoch=1, seed=0):
    """Which units dropout keeps: those whose word is not below rate 2**32."""
    return random_words("dropout", number, draws, units, epoch, seed) >= np.uint64(rate * 2.0**32)


def noise(number, deviation, draws, units, epoch=1, seed=0):
    """Normal numbers by Box and Muller from the words of units u, u + 16 and u + 32, u + 48 of each group of 64."""
    whole = -(-units // 64) * 64
    words = random_words("noise", number, draws, whole, epoch, seed).reshape(len(draws), -1, 4, 16)
    uniform = words * 2.0**-32 + 2.0**-33
    radius, angle = np.sqrt(-2.0 * np.log(uniform[:, :, 0::2])), 2.0 * np.pi * uniform[:, :, 1::2]
    both = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=3)
    return deviation * both.reshape(len(draws), whole)[:, :units]


def random_parts(config, features, draws, epoch):
    """({layer: kept units}, noise or None) of a step. Streams are numbered in the order of the config: noise 1, input
    dropout 2, then every dense and highway layer, the ones within a block before what follows it."""
    seed, masks, streams = config.seed, {}, itertools.count(3)
    inputs = config.network.input
    added = noise(1, inputs.noise, draws, features, epoch, seed) if inputs.noise else None
    if inputs.dropout:
        masks["input"] = kept(2, inputs.dropout, draws, features, epoch, seed)

    def walk(layers, width, name):
        for i, layer in enumerate(layers):
            here = f"{name}.{i}"
            if layer.kind in ("dense", "highway"):
                width = layer.units if layer.kind == "dense" else width
                stream = next(streams)
                if layer.dropout:
                    masks[here] = kept(stream, layer.dropout, draws, width, epoch, seed)
            elif layer.kind in ("residual", "concat"):
                inner = walk(layer.layers, width, f"{here}.layers")
                width = width + inner if layer.kind == "concat" else inner
            elif layer.kind == "positional_encoding":
                width *= 2 * layer.frequencies
        return width

    walk(config.network.layers, features, "layers")
    return masks, added


# --- kernels by themselves --------------------------------------------------------------------------------------


class Entry:
    """A function of kernels that Python can call: `call(dtype, *arguments)`."""

    def __init__(self, function, signature):
        self.kernel = jit.Kernel(function, signature, entry=True)
        self.compiled = {}

    def __call__(self, dtype, *arguments):
        if dtype not in self.compiled:
            library = Library(build.build([self.kernel], dtype))
            self.compiled[dtype] = getattr(library, self.kernel.__name__)
        return self.compiled[dtype](*arguments)


def entry(signature):
    """Make an `Entry` of a function, in the letters of `jit.kernel`."""
    return lambda function: Entry(function, signature)


def vector_code(kernels, dtype):
    """What the machine code of entry kernels has of these: 512-bit and 256-bit registers, fused multiply-adds."""
    code = processor.target_machine().emit_assembly(build.optimized(kernels, dtype))
    return {word for word in ("zmm", "ymm", "vfmadd") if word in code}


def padded_rows(matrix, dtype, fill=0.0):
    """A matrix as rows of activations lie in memory: (flat vector, row stride, view of its rows)."""
    n, columns = matrix.shape
    stride = layout.row_stride(columns, dtype)
    rows = -(-n // 8) * 8
    flat = layout.aligned_zeros(rows * stride + 4 * layout.lane_count(dtype), dtype)
    view = flat[: rows * stride].reshape(rows, stride)
    view[:, columns:] = fill
    view[:n, :columns] = matrix
    return flat, stride, view
