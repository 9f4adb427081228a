"""Where a run stands, as every checkpoint keeps it, and whether what a file says of it can be true."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

# How often on_divergence: rollback halves the rate before it gives up.
MAX_ROLLBACKS = 10
# Beyond this, float64 no longer tells two steps apart.
MOST_STEPS = 1 << 53


@dataclass
class Progress:
    """Where a run stands. `epoch` counts finished ones; step those of the whole run, epoch_step those of this epoch."""

    epoch: int = 0
    step: int = 0
    epoch_step: int = 0
    best_epoch: int | None = None
    best_score: float | None = None
    patience_score: float | None = None  # the score that the next one must beat by min_delta
    epochs_without_improvement: int = 0
    plateau: dict | None = None
    rate_scale: float = 1.0
    rollbacks: int = 0
    last_rate: float | None = None


Count = Annotated[int, Field(ge=0, le=MOST_STEPS)]


class _Facts(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class _PlateauFacts(_Facts):
    """As `Plateau.state` writes it."""

    scale: Annotated[float, Field(ge=0, le=1)]
    best: float | None
    bad_epochs: Count


class _Position(_Facts):
    """A `Progress` in a checkpoint."""

    epoch: Count
    step: Count
    epoch_step: Count
    best_epoch: Annotated[int, Field(ge=1, le=MOST_STEPS)] | None
    best_score: float | None
    patience_score: float | None
    epochs_without_improvement: Count
    plateau: _PlateauFacts | None
    rate_scale: Annotated[float, Field(gt=0, le=1)]
    rollbacks: Annotated[int, Field(ge=0, le=MAX_ROLLBACKS)]
    last_rate: Annotated[float, Field(ge=0)] | None


def read(position: object, config) -> Progress:
    """The position that a checkpoint of a run with this config keeps. ValueError, in one sentence, where a run cannot
    stand there."""
    try:
        found = _Position.model_validate(position)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ValueError(f"{'.'.join(map(str, ('position', *first['loc'])))}: {first['msg']}") from None
    for wrong, sentence in _contradictions(found, config):
        if wrong:
            raise ValueError(f"position: {sentence}")
    return Progress(**found.model_dump())


def _contradictions(at: _Position, config) -> Iterator[tuple[bool, str]]:
    """(whether it is so, sentence) for what cannot be true of one run."""
    # an epoch has a step at least, and counts as finished where a limit cut it short
    yield at.step < at.epoch + at.epoch_step, f"{at.step} steps are too few for epoch {at.epoch}, step {at.epoch_step}"
    yield at.step > 0 and at.epoch + at.epoch_step == 0, f"step {at.step} lies in no epoch"
    yield (at.last_rate is None) != (at.step == 0), "last_rate does not fit step"
    yield (at.best_epoch or 0) > at.epoch, f"best_epoch {at.best_epoch} is after epoch {at.epoch}"
    yield at.best_epoch is not None and at.best_score is None, "best_epoch has no best_score"
    yield (at.best_score is None) != (at.patience_score is None), "best_score does not fit patience_score"
    without = at.epochs_without_improvement
    yield without > at.epoch, f"epochs_without_improvement {without} is more than epoch {at.epoch}"
    yield (at.best_score is None) != (without == at.epoch), "best_score does not fit epochs_without_improvement"
    restores = config.training.restore_best is not False
    yield at.best_epoch is not None and not restores, "best_epoch does not fit training.restore_best"
    yield at.rate_scale != 0.5**at.rollbacks, f"rate_scale {at.rate_scale:g} does not fit {at.rollbacks} rollbacks"
    returns = config.training.on_divergence == "rollback"
    yield at.rollbacks > 0 and not returns, "rollbacks does not fit training.on_divergence"
    schedule, plateau = config.learning_rate, at.plateau
    yield (
        (plateau is None) == (schedule.schedule == "plateau"),
        f"plateau does not fit the {schedule.schedule} schedule",
    )
    if plateau is not None:
        bad = plateau.bad_epochs
        yield bad > min(schedule.patience, at.epoch), f"plateau.bad_epochs {bad} is more than can be"
        fresh = plateau.scale == 1.0 and plateau.best is None
        yield at.epoch == 0 and not fresh, "plateau has seen an epoch before the first has ended"
