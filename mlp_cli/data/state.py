"""What a checkpoint says of its preprocessing, checked before anything is made of it: a digest proves no good will."""

from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from mlp_cli.config.leaves import Character, Encoding, Words
from mlp_cli.wording import sizes

Names = list[str]


class _Facts(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class ReadingFacts(_Facts):
    """As `Reading.state` writes it."""

    header: bool | None
    names: Names | None
    delimiter: Annotated[str, Character()] | None
    decimal: Annotated[str, Words((".", ","))]
    encoding: Annotated[str, Encoding()] | None
    comment: Annotated[str, Character()] | None
    missing_values: Names


class PreprocessingFacts(_Facts):
    """As `Preprocessing.state` writes it."""

    reading: ReadingFacts
    columns: Names
    features: Names
    targets: Names
    named: bool
    task: Literal["classification", "regression"]
    classes: Names | None
    numeric_classes: bool
    reason: str
    categories: dict[str, Names]
    missing_category: Names
    indicators: Names
    missing: Literal["error", "mean", "median", "constant", "indicator", "drop"]
    missing_word: str | None
    unseen: Literal["error", "ignore"]
    labels: dict[str, str]
    weight: str | None
    dtype: Literal["float32", "float64"]
    scaling: Literal["none", "standard", "minmax", "robust", "quantile", "divide"]


def check(facts: dict, arrays: dict[str, np.ndarray]) -> None:
    """ValueError, in one sentence, unless these are facts and arrays that a Preprocessing can have written."""
    try:
        found = PreprocessingFacts.model_validate(facts)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, ("preprocessing", *first["loc"])))
        raise ValueError(f"{place}: {first['msg'].splitlines()[0]}") from None
    for wrong, sentence in _contradictions(found):
        if wrong:
            raise ValueError(sentence)
    _check_arrays(found, arrays)


def _contradictions(facts: PreprocessingFacts):
    """(whether it is so, sentence) for everything that cannot be true of one table."""
    features, categories = set(facts.features), set(facts.categories)
    for name in ("columns", "features", "targets", "classes", "missing_category", "indicators"):
        names = getattr(facts, name) or []
        yield len(set(names)) < len(names), f"preprocessing.{name} has one twice"
    for name, words in facts.categories.items():
        yield len(set(words)) < len(words), f"preprocessing.categories.{name!r} has one twice"
    known = {*facts.targets, *([facts.weight] if facts.weight is not None else [])}
    yield not features or not facts.targets, "preprocessing knows no features or no target"
    yield not (features | known) <= set(facts.columns), "preprocessing.columns lacks some of its columns"
    yield bool(features & known), "preprocessing has a feature that is a target or the weight"
    yield not categories <= features, "preprocessing.categories has one that is no feature"
    yield not set(facts.missing_category) <= categories, "preprocessing.missing_category has one that is no category"
    yield not set(facts.indicators) <= features - categories, "preprocessing.indicators has one that is no number"
    classes = facts.classes or []
    if facts.task == "classification":
        yield len(classes) < 2 or len(facts.targets) > 1, "preprocessing describes no classification"
    else:
        yield facts.classes is not None, "preprocessing describes a regression with classes"


def _check_arrays(facts: PreprocessingFacts, arrays: dict[str, np.ndarray]) -> None:
    numeric = len(facts.features) - len(facts.categories)
    expected = {"fill": (numeric,), "shift": (numeric,), "scale": (numeric,)}
    if facts.task == "regression":
        expected |= {"target_shift": (len(facts.targets),), "target_scale": (len(facts.targets),)}
    if facts.scaling == "quantile":
        quantiles = arrays.get("quantiles", np.zeros((0, 0))).shape
        expected["quantiles"] = (numeric, *(quantiles[1:2] if quantiles[1:] > (0,) else (1,)))
    for name in sorted(expected.keys() | arrays.keys()):
        array = arrays.get(name)
        if name not in expected or array is None or array.shape != expected[name] or array.dtype != np.float64:
            there = "is not there" if array is None else f"is {array.dtype} of shape {sizes(array.shape)}"
            raise ValueError(f"preprocessing.{name} {there}, expected float64 of shape {sizes(expected.get(name, ()))}")
        # an infinite scale marks a column that was constant in training
        if np.isnan(array).any() or (name != "scale" and np.isinf(array).any()):
            raise ValueError(f"preprocessing.{name} is not finite")
        if name in ("scale", "target_scale") and not (array > 0).all():
            raise ValueError(f"preprocessing.{name} is not positive")
        if name == "quantiles" and (np.diff(array, axis=1) < 0).any():
            raise ValueError("preprocessing.quantiles do not rise")
