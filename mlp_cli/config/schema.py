"""The whole config: its sections, and the defaults that follow from other options."""

from typing import Annotated, Any

from pydantic import PrivateAttr, model_validator

from mlp_cli.config import tree
from mlp_cli.config.leaves import Integer, Words
from mlp_cli.config.named import Options, option
from mlp_cli.config.schema_data import Data
from mlp_cli.config.schema_learning import (
    INITIAL_RATES,
    LEARNING_RATE,
    LOSS,
    OPTIMIZER,
    Adam,
    Constant,
    CrossEntropy,
    PlainLoss,
    Regularization,
)
from mlp_cli.config.schema_network import Network
from mlp_cli.config.schema_training import DEFAULT_EPOCHS, DEFAULT_SECONDS, Training
from mlp_cli.errors import ConfigError


class Config(Options):
    """Everything that a run is made from. Made by `load` or `from_resolved`, which also check what goes together."""

    seed: Annotated[int, Integer(at_least=0, at_most=2**63 - 1)] = option(
        0, "Where all random numbers start: one seed, one result."
    )
    dtype: Annotated[str, Words(("float32", "float64"))] = option("float32", "The precision of the network.")
    data: Data = option(..., "Where the rows are and how they become numbers.")
    network: Network = option(..., "The layers.")
    loss: LOSS.annotation() | None = option(
        None,
        "What is made small; null is cross_entropy under a softmax output, binary_cross_entropy under sigmoid, "
        "poisson under exponential, else mse.",
    )
    optimizer: OPTIMIZER.annotation() = option(Adam, "How the gradient becomes a step.")
    learning_rate: LEARNING_RATE.annotation() = option(
        Constant, "The size of the steps; a bare number is the constant schedule."
    )
    regularization: Regularization = option(Regularization, "Penalties and bounds on the weights.")
    training: Training = option(Training, "For how long, in which batches, and what is kept.")

    _name: str = PrivateAttr(default="config")
    _written: Any = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _fill(self):
        fill_defaults(self)
        return self

    @property
    def name(self):
        """The name of the last config file without its ending: runs are called after it."""
        return self._name

    def resolved(self):
        """Plain dicts, lists and scalars with every default filled in; `from_resolved` reads it back."""
        return self.model_dump(mode="python")

    def where(self, key):
        """`file:line:column key` of a dotted key, or of what stands nearest above it; for messages."""
        if self._written is None:
            return key
        mark, path = tree.locate(self._written, tree.keys(key))
        return f"{mark} {tree.dotted(path)}"

    def error(self, key, message):
        """A ConfigError that points at a dotted key."""
        return ConfigError(f"{self.where(key)}: {message}")

    def __eq__(self, other):
        return isinstance(other, Config) and self.__dict__ == other.__dict__

    __hash__ = None


def fill_defaults(config):
    """Writes the defaults that follow from other options into a Config."""
    training = config.training
    for layer in dense_layers(config.network.layers):
        if layer.units is None:
            layer.units = len(layer.weights or layer.bias or ()) or None
    if config.loss is None:
        config.loss = default_loss(config.network.layers[-1])
    fill_rates(config.optimizer, config.learning_rate)
    if config.regularization.weight_decay is None:
        config.regularization.weight_decay = 0.01 if config.optimizer.name == "adamw" else 0.0
    if training.epochs is None and training.max_steps is None and training.max_time is None:
        training.epochs = DEFAULT_EPOCHS
    if training.restore_best is None:
        training.restore_best = has_validation(config.data)
    checkpoint = training.checkpoint
    if (checkpoint.every_epochs, checkpoint.every_steps, checkpoint.every_seconds) == (None, None, None):
        if training.on_divergence == "rollback":
            # what a rollback goes back to must not depend on the clock
            checkpoint.every_epochs = 1
        else:
            checkpoint.every_seconds = DEFAULT_SECONDS


def fill_rates(optimizer, rate):
    """The initial rate is the optimizer's; that of one_cycle follows from its peak."""
    if rate.schedule == "one_cycle":
        rate.initial = rate.peak / 25.0 if rate.initial is None else rate.initial
        rate.final = rate.initial / 1e4 if rate.final is None else rate.final
    elif rate.schedule != "inverse_time" and rate.initial is None:
        rate.initial = INITIAL_RATES[optimizer.name]


def default_loss(output):
    """The loss that suits the output layer."""
    activation = output.activation.name if output.kind == "dense" else "linear"
    if activation == "softmax":
        return CrossEntropy(name="cross_entropy")
    if activation == "sigmoid":
        return CrossEntropy(name="binary_cross_entropy")
    return PlainLoss(name="poisson" if activation == "exponential" else "mse")


def has_validation(data):
    """Whether some rows will validate."""
    return data.validation is not None or (data.split is not None and data.split.validation is not None)


def dense_layers(layers):
    """The dense layers of a list, those in blocks included."""
    for layer in layers:
        if layer.kind == "dense":
            yield layer
        yield from dense_layers(getattr(layer, "layers", ()))
