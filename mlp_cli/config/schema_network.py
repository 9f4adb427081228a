"""The `network` section: the layers and what they are made of."""

from typing import Annotated, Literal

from pydantic import Field, model_serializer

from mlp_cli.config.leaves import FilePath, Flag, Integer, Number
from mlp_cli.config.named import Family, Options, about, option
from mlp_cli.vocab import ACTIVATIONS, INITIALIZERS, LAYERS

Positive = Annotated[float, Number(above=0)]
NonNegative = Annotated[float, Number(at_least=0)]
AnyNumber = Annotated[float, Number()]
Dropout = Annotated[float, Number(at_least=0, below=1)]
Std = Annotated[float, Number(above=0), about("The standard deviation.")]

ACTIVATIONS_WITH_OPTIONS = ("threshold", "leaky_relu", "elu", "softmax")
INITIALIZERS_WITH_OPTIONS = ("constant", "normal", "uniform", "truncated_normal")


class PlainActivation(Options):
    """An activation without options."""

    name: Literal[tuple(word for word in ACTIVATIONS if word not in ACTIVATIONS_WITH_OPTIONS)]


class Threshold(Options):
    """high for z >= 0, else low."""

    name: Literal["threshold"]
    low: AnyNumber = option(0.0, "The output below the threshold.")
    high: AnyNumber = option(1.0, "The output from the threshold on.")


class LeakyRelu(Options):
    """A ReLU that lets some of the negative side through."""

    name: Literal["leaky_relu"]
    alpha: NonNegative = option(0.01, "The slope of the negative side.")


class Elu(Options):
    """A ReLU with an exponential negative side."""

    name: Literal["elu"]
    alpha: NonNegative = option(1.0, "The value that the negative side tends to, but for its sign.")


class Softmax(Options):
    """Probabilities that sum to 1."""

    name: Literal["softmax"]
    alpha: Positive = option(1.0, "An inverse temperature: large values come near to winner takes all.")


ACTIVATION = Family((PlainActivation, Threshold, LeakyRelu, Elu, Softmax), order=tuple(ACTIVATIONS))


class PlainInit(Options):
    """Initial numbers that follow from the layer's shape alone."""

    name: Literal[tuple(word for word in INITIALIZERS if word not in INITIALIZERS_WITH_OPTIONS)]


class ConstantInit(Options):
    """The same number everywhere."""

    name: Literal["constant"]
    value: AnyNumber = option(..., "The number.")


class NormalInit(Options):
    """Normally distributed around 0, truncated_normal within two standard deviations."""

    name: Literal["normal", "truncated_normal"]
    std: Std = 1.0


class UniformInit(Options):
    """Evenly distributed in [-limit, limit]."""

    name: Literal["uniform"]
    limit: Positive | None = option(None, "The largest size of a number; null is 1/sqrt(fan_in), as in PyTorch.")


INIT = Family((PlainInit, ConstantInit, NormalInit, UniformInit), order=INITIALIZERS)


def pytorch_linear():
    """The initial weights and biases of PyTorch's Linear."""
    return UniformInit(name="uniform")


def linear():
    """The activation of a layer that names none."""
    return PlainActivation(name="linear")


Activation = Annotated[ACTIVATION.annotation(), about("What is applied to the layer's sums.")]
Init = Annotated[INIT.annotation(), about("Where the weights start.")]
BiasInit = Annotated[INIT.annotation(), about("Where the biases start; fans are those of the layer.")]
Freeze = Annotated[bool, Flag(), about("Whether the layer keeps its initial weights and biases.")]
Epsilon = Annotated[float, Number(above=0), about("Added to the variance.")]
LayerDropout = Annotated[Dropout, about("The part of the outputs that is zeroed in training.")]


class Dense(Options):
    """activation(W x + b)."""

    kind: Literal["dense"] = "dense"
    units: Annotated[int, Integer(at_least=1, at_most=2**24)] | None = option(
        None, "How many outputs; follows from given weights, and in the last layer from the data."
    )
    activation: Activation = Field(default_factory=linear)
    dropout: LayerDropout = 0.0
    init: Init = Field(default_factory=pytorch_linear)
    bias_init: BiasInit = Field(default_factory=pytorch_linear)
    weights: Annotated[list[Annotated[list[AnyNumber], Field(min_length=1)]], Field(min_length=1)] | None = option(
        None, "The initial weights as numbers: a row for each unit, a column for each input."
    )
    bias: Annotated[list[AnyNumber], Field(min_length=1)] | None = option(
        None, "The initial biases as numbers, one for each unit."
    )
    freeze: Freeze = False

    @model_serializer(mode="wrap")
    def _numbers_or_init(self, to_dict):
        """Numbers take the place of an initialiser: to name both is refused, so only one of them is written."""
        written = to_dict(self)
        del written["weights" if self.weights is None else "init"]
        del written["bias" if self.bias is None else "bias_init"]
        return written


class Highway(Options):
    """T f(x) + (1 - T) x, with the gate T = sigmoid(W_T x + b_T)."""

    kind: Literal["highway"]
    activation: Activation = Field(default_factory=linear)
    dropout: LayerDropout = 0.0
    init: Init = Field(default_factory=pytorch_linear)
    bias_init: BiasInit = Field(default_factory=pytorch_linear)
    gate_bias: AnyNumber = option(-1.0, "Where the biases of the gate start; negative lets x pass at first.")
    freeze: Freeze = False


class Residual(Options):
    """x + f(x)."""

    kind: Literal["residual"]
    layers: "Layers" = option(..., "The layers of f; it ends in the width of x.")


class Concat(Options):
    """[x, f(x)]."""

    kind: Literal["concat"]
    layers: "Layers" = option(..., "The layers of f.")


class LayerNorm(Options):
    """Every row scaled to mean 0 and variance 1, then by learnt scales and shifts."""

    kind: Literal["layer_norm"]
    epsilon: Epsilon = 1e-5


class BatchNorm(Options):
    """Every column of the batch scaled to mean 0 and variance 1, then by learnt scales and shifts."""

    kind: Literal["batch_norm"]
    epsilon: Epsilon = 1e-5
    momentum: Annotated[float, Number(above=0, at_most=1)] = option(
        0.1, "How much of each batch goes into the running mean and variance."
    )


class PositionalEncoding(Options):
    """sin(2^k pi x) for k = 0, 1, ..., then the cosines."""

    kind: Literal["positional_encoding"]
    frequencies: Annotated[int, Integer(at_least=1, at_most=64)] = option(8, "How many powers of two.")


LAYER = Family(
    (Dense, Residual, Highway, Concat, LayerNorm, BatchNorm, PositionalEncoding),
    key="kind",
    default="dense",
    order=LAYERS,
)
Layers = Annotated[list[LAYER.annotation()], Field(min_length=1)]
Residual.model_rebuild()
Concat.model_rebuild()


class Input(Options):
    """What happens to the inputs in training."""

    dropout: Annotated[Dropout, about("The part of the inputs that is zeroed.")] = 0.0
    noise: NonNegative = option(0.0, "The standard deviation of gaussian noise that is added to the scaled inputs.")


class Network(Options):
    """The layers, from the inputs to the outputs."""

    input: Input = option(Input, "What happens to the inputs in training.")
    layers: Layers = option(..., "The layers in order; the last one is the output layer.")
    initial: Annotated[str, FilePath()] | None = option(None, "A checkpoint or a run to take the initial weights from.")
