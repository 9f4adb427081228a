"""The sections `loss`, `optimizer`, `learning_rate` and `regularization`: what is made small, and by which steps."""

from typing import Annotated, Literal

from pydantic import Field

from mlp_cli.config.leaves import Flag, Integer, Leaf, Number, Words, did_you_mean, refused, show
from mlp_cli.config.named import Family, Options, about, option
from mlp_cli.config.schema_network import NonNegative, Positive
from mlp_cli.vocab import LOSSES, OPTIMIZERS, SCHEDULES

CLASS_METRICS = (
    "accuracy",
    "balanced_accuracy",
    "top_5_accuracy",
    "log_loss",
    "roc_auc",
    "f1_macro",
    "mcc",
    "brier",
)
NUMBER_METRICS = ("rmse", "mae", "r2")
METRICS = ("loss", *CLASS_METRICS, *NUMBER_METRICS)


class Metric(Leaf):
    """A metric's name, or that of one target as in rmse.price."""

    def expectation(self):
        return f"one of {', '.join(METRICS)}, or rmse.TARGET, mae.TARGET, r2.TARGET"

    def accepts(self, value):
        if not isinstance(value, str):
            return False
        name, dot, target = value.partition(".")
        return value in METRICS or bool(dot and target and name in NUMBER_METRICS)

    def hint(self, value):
        return did_you_mean(value, METRICS)

    def json_schema(self):
        return {"anyOf": [{"enum": list(METRICS)}, {"type": "string", "pattern": "^(rmse|mae|r2)[.]."}]}


class ClassWeights(Leaf):
    """balanced, or a weight for each class."""

    weight = Number(above=0)

    def expectation(self):
        return "balanced, or a mapping of classes to numbers > 0"

    def accepts(self, value):
        if isinstance(value, dict):
            return bool(value) and all(self.weight.accepts(number) for number in value.values())
        return value == "balanced"

    def convert(self, value):
        return {name: float(number) for name, number in value.items()} if isinstance(value, dict) else value

    def check(self, value):
        if isinstance(value, dict):
            for name, number in value.items():
                if not self.weight.accepts(number):
                    raise refused(f"expected {self.weight.expectation()}; got {show(number)}", at=(name,))
        return super().check(value)

    def json_schema(self):
        weights = {"type": "object", "minProperties": 1, "additionalProperties": self.weight.json_schema()}
        return {"anyOf": [{"enum": ["balanced"]}, weights]}


Reduction = Annotated[
    str, Words(("mean", "sum")), about("Whether a batch's loss is the mean or the sum over its samples.")
]
Smoothing = Annotated[
    float,
    Number(at_least=0, below=1),
    about("The part of each target spread evenly: over all classes under softmax, else over a unit's two values."),
]
Weights = Annotated[
    Annotated[str | dict[str, float], ClassWeights()] | None,
    about("How much each class counts; balanced is rows / (classes x rows of the class)."),
]
LOSSES_WITH_OPTIONS = ("huber", "quantile", "binary_cross_entropy", "cross_entropy", "focal")


class PlainLoss(Options):
    """A loss without options of its own."""

    name: Literal[tuple(word for word in LOSSES if word not in LOSSES_WITH_OPTIONS)]
    reduction: Reduction = "mean"
    class_weights: Weights = None


class Huber(Options):
    """Quadratic near 0, linear far from it."""

    name: Literal["huber"]
    delta: Positive = option(1.0, "The error from which on the loss is linear.")
    reduction: Reduction = "mean"
    class_weights: Weights = None


class Quantile(Options):
    """The pinball loss, whose minimum is a quantile."""

    name: Literal["quantile"]
    q: Annotated[float, Number(above=0, below=1)] = option(0.5, "The quantile to learn.")
    reduction: Reduction = "mean"
    class_weights: Weights = None


class CrossEntropy(Options):
    """The surprise at the right class."""

    name: Literal["binary_cross_entropy", "cross_entropy"]
    label_smoothing: Smoothing = 0.0
    reduction: Reduction = "mean"
    class_weights: Weights = None


class Focal(Options):
    """Cross-entropy that cares less for what is already right."""

    name: Literal["focal"]
    gamma: NonNegative = option(2.0, "How fast the care fades; 0 is cross-entropy.")
    label_smoothing: Smoothing = 0.0
    reduction: Reduction = "mean"
    class_weights: Weights = None


LOSS = Family((PlainLoss, Huber, Quantile, CrossEntropy, Focal), order=tuple(LOSSES))

Decay = Number(at_least=0, below=1)
Momentum = Annotated[float, Decay, about("How much of the last step goes into the next.")]
Beta1 = Annotated[float, Decay, about("The decay of the running mean of gradients.")]
Beta2 = Annotated[float, Decay, about("The decay of the second running mean.")]
Rho = Annotated[float, Decay, about("The decay of the running mean of squared gradients.")]
# The bound keeps it from becoming 0, and 0/0, in float32.
Epsilon = Annotated[float, Number(at_least=1e-30), about("Added to the denominator.")]
ClipNorm = Annotated[Positive | None, about("The largest length of the whole gradient; null does not clip.")]
ClipValue = Annotated[Positive | None, about("The largest size of a gradient's element; null does not clip.")]


class Sgd(Options):
    """Plain descent, with momentum if asked for."""

    name: Literal["sgd"]
    momentum: Momentum = 0.0
    nesterov: Annotated[bool, Flag()] = option(False, "Whether the gradient is taken where momentum leads.")
    clip_norm: ClipNorm = None
    clip_value: ClipValue = None


class Adagrad(Options):
    """Steps divided by the root of the sum of squared gradients."""

    name: Literal["adagrad"]
    epsilon: Epsilon = 1e-10
    clip_norm: ClipNorm = None
    clip_value: ClipValue = None


class Adadelta(Options):
    """Steps in the units of the weights."""

    name: Literal["adadelta"]
    rho: Rho = 0.9
    epsilon: Epsilon = 1e-6
    clip_norm: ClipNorm = None
    clip_value: ClipValue = None


class RmsProp(Options):
    """Steps divided by the root of the running mean of squared gradients."""

    name: Literal["rmsprop"]
    rho: Rho = 0.99
    epsilon: Epsilon = 1e-8
    momentum: Momentum = 0.0
    clip_norm: ClipNorm = None
    clip_value: ClipValue = None


class Adam(Options):
    """Adam and its relatives: running means of gradients and of their squares (adamax: sizes)."""

    name: Literal["adam", "adamw", "adamax", "nadam", "radam"] = "adam"
    beta1: Beta1 = 0.9
    beta2: Beta2 = 0.999
    epsilon: Epsilon = 1e-8
    clip_norm: ClipNorm = None
    clip_value: ClipValue = None


class Lion(Options):
    """Steps by the sign of a running mean."""

    name: Literal["lion"]
    beta1: Beta1 = 0.9
    beta2: Beta2 = 0.99
    clip_norm: ClipNorm = None
    clip_value: ClipValue = None


class Rprop(Options):
    """A step size for each weight, led by the signs of the gradient alone; meant for full batches."""

    name: Literal["rprop"]
    clip_norm: ClipNorm = None
    clip_value: ClipValue = None


OPTIMIZER = Family((Sgd, Adagrad, Adadelta, RmsProp, Adam, Lion, Rprop), default="adam", order=tuple(OPTIMIZERS))

INITIAL_RATES = {
    "sgd": 1e-3,
    "adagrad": 1e-2,
    "adadelta": 1.0,
    "rmsprop": 1e-2,
    "adam": 1e-3,
    "adamw": 1e-3,
    "adamax": 2e-3,
    "nadam": 2e-3,
    "radam": 1e-3,
    "lion": 1e-4,
    "rprop": 1e-2,
}

Initial = Annotated[Positive | None, about("The rate at the start; null is PyTorch's for the optimizer.")]
Final = Annotated[NonNegative, about("The rate at the end.")]
Warmup = Annotated[NonNegative, about("Epochs in which the rate rises to its scheduled value.")]
Gamma = Annotated[Positive, about("The factor of each fall.")]
Per = Annotated[str, Words(("step", "epoch")), about("Whether k counts updates or epochs.")]


class Constant(Options):
    """The same rate throughout."""

    schedule: Literal["constant"] = "constant"
    initial: Initial = None
    warmup_epochs: Warmup = 0.0


class Step(Options):
    """A fall at regular intervals."""

    schedule: Literal["step"]
    initial: Initial = None
    every: Positive = option(..., "Epochs between falls.")
    gamma: Gamma = 0.1
    warmup_epochs: Warmup = 0.0


class Multistep(Options):
    """A fall at each milestone."""

    schedule: Literal["multistep"]
    initial: Initial = None
    milestones: Annotated[list[Positive], Field(min_length=1)] = option(..., "Epochs of the falls, in rising order.")
    gamma: Gamma = 0.1
    warmup_epochs: Warmup = 0.0


class Exponential(Options):
    """A steady fall by a factor per epoch."""

    schedule: Literal["exponential"]
    initial: Initial = None
    gamma: Annotated[Positive, about("The factor of an epoch.")]
    warmup_epochs: Warmup = 0.0


class Polynomial(Options):
    """From initial to final along a power."""

    schedule: Literal["polynomial"]
    initial: Initial = None
    power: Positive = option(1.0, "1 is a straight line.")
    final: Final = 0.0
    warmup_epochs: Warmup = 0.0


class Cosine(Options):
    """From initial to final along half a cosine, flat_cosine only in the last quarter."""

    schedule: Literal["cosine", "flat_cosine"]
    initial: Initial = None
    final: Final = 0.0
    warmup_epochs: Warmup = 0.0


class CosineRestarts(Options):
    """Half a cosine, again and again."""

    schedule: Literal["cosine_restarts"]
    initial: Initial = None
    period: Positive = option(..., "Epochs of the first cosine.")
    factor: Annotated[float, Number(at_least=1)] = option(1.0, "How much longer each cosine is than the last.")
    final: Final = 0.0
    warmup_epochs: Warmup = 0.0


class OneCycle(Options):
    """Up to a peak and down again."""

    schedule: Literal["one_cycle"]
    initial: Positive | None = option(None, "The rate at the start; null is peak/25, as in PyTorch.")
    peak: Positive = option(..., "The highest rate, reached after 30 % of the run.")
    final: NonNegative | None = option(None, "The rate at the end; null is initial/10000, as in PyTorch.")
    warmup_epochs: Warmup = 0.0


class Coslog(Options):
    """Waves that lengthen."""

    schedule: Literal["coslog"]
    initial: Initial = None
    cycles: Annotated[int, Integer(at_least=1, at_most=50)] = option(4, "How many waves.")
    warmup_epochs: Warmup = 0.0


class Plateau(Options):
    """A fall whenever a metric no longer improves."""

    schedule: Literal["plateau"]
    initial: Initial = None
    metric: Annotated[str, Metric()] = option("loss", "The metric to watch, on the validation rows if there are any.")
    factor: Annotated[float, Number(above=0, below=1)] = option(0.1, "The factor of each fall.")
    patience: Annotated[int, Integer(at_least=0)] = option(10, "Epochs without improvement that are tolerated.")
    warmup_epochs: Warmup = 0.0


class InverseTime(Options):
    """c1/(k + c2)."""

    schedule: Literal["inverse_time"]
    c1: Positive = option(..., "The numerator.")
    c2: NonNegative = option(0.0, "What is added to k.")
    per: Per = "step"
    warmup_epochs: Warmup = 0.0


class InverseScaling(Options):
    """initial/k^power."""

    schedule: Literal["inverse_scaling"]
    initial: Initial = None
    power: Positive = option(0.5, "The power of k.")
    per: Per = "step"
    warmup_epochs: Warmup = 0.0


LEARNING_RATE = Family(
    (
        Constant,
        Step,
        Multistep,
        Exponential,
        Polynomial,
        Cosine,
        CosineRestarts,
        OneCycle,
        Coslog,
        Plateau,
        InverseTime,
        InverseScaling,
    ),
    key="schedule",
    default="constant",
    number="initial",
    order=SCHEDULES,
)


class Regularization(Options):
    """Penalties and bounds on the weight matrices of dense and highway layers."""

    l1: NonNegative = option(0.0, "Adds l1 * sum abs(W) to what is minimised.")
    l2: NonNegative = option(0.0, "Adds l2/2 * sum W^2 to what is minimised.")
    weight_decay: NonNegative | None = option(
        None, "Shrinks W by this times the learning rate at every step; null is 0.01 for adamw, else 0."
    )
    max_norm: Positive | None = option(None, "The largest length of a unit's incoming weights; null sets no bound.")
