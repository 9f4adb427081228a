"""The `training` section: for how long, in which batches, and what is kept."""

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import field_serializer

from mlp_cli.config.leaves import Duration, Either, Flag, Integer, Words
from mlp_cli.config.named import Family, Options, option
from mlp_cli.config.schema_learning import Metric
from mlp_cli.config.schema_network import NonNegative, Positive

DEFAULT_EPOCHS = 100
DEFAULT_SECONDS = 30.0

AtLeastOne = Annotated[int, Integer(at_least=1)]


class Shuffle(Options):
    """Every row once an epoch, in a new order each time."""

    name: Literal["shuffle"] = "shuffle"
    block_rows: AtLeastOne | None = option(
        None, "Shuffles blocks of so many rows, for files larger than memory; null shuffles rows."
    )


class PlainSampling(Options):
    """Rows in their order, or drawn with replacement."""

    name: Literal["sequential", "with_replacement"]


SAMPLING = Family((Shuffle, PlainSampling), default="shuffle")


class EarlyStopping(Options):
    """An end before the last epoch."""

    metric: Annotated[str, Metric()] = option("loss", "The metric to watch; the best checkpoint is chosen by it too.")
    patience: AtLeastOne = option(10, "Epochs without improvement after which training ends.")
    min_delta: NonNegative = option(0.0, "The least change that counts as an improvement.")


class Checkpoint(Options):
    """When the state of the run is saved."""

    every_epochs: AtLeastOne | None = option(
        None, "Saves after so many epochs; null is 1 under on_divergence: rollback where nothing else is said."
    )
    every_steps: AtLeastOne | None = option(None, "Saves after so many steps.")
    every_seconds: Positive | None = option(
        None, f"Saves after so many seconds; null is {DEFAULT_SECONDS:g} where nothing else is said, else never."
    )
    keep: AtLeastOne = option(2, "How many checkpoints are kept, the best not counted.")


class Training(Options):
    """The run."""

    epochs: Annotated[int, Integer(at_least=0)] | None = option(
        None,
        f"Passes over the training rows, 0 only initialises; null is {DEFAULT_EPOCHS} where nothing else ends the run.",
    )
    max_steps: AtLeastOne | None = option(None, "Ends the run after so many updates.")
    max_time: Annotated[float, Duration()] | None = option(None, "Ends the run after 90s, 30m or 2h.")
    batch_size: Annotated[int | str, Either((Integer(at_least=1), Words(("full",))))] | None = option(
        None, "Samples per update, or full for the whole set; null is min(32, rows)."
    )
    sampling: SAMPLING.annotation() = option(Shuffle, "The order in which rows are met.")
    early_stopping: EarlyStopping | None = option(None, "When to stop before the end; null never does.")
    restore_best: Annotated[bool, Flag()] | None = option(
        None, "Whether the best epoch is the result rather than the last; null is true with a validation split."
    )
    checkpoint: Checkpoint = option(Checkpoint, "When the state of the run is saved.")
    on_divergence: Annotated[str, Words(("stop", "rollback"))] = option(
        "stop",
        "What happens when the loss is no longer finite: stop, or go back to the last checkpoint and halve the rate.",
    )

    @field_serializer("max_time")
    def _with_its_unit(self, seconds):
        """90.0 -> 90s, to the last digit."""
        if seconds is None:
            return None
        digits = format(Decimal(repr(seconds)), "f")
        return f"{digits.removesuffix('.0')}s"
