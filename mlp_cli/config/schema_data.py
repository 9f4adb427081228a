"""The `data` section: where the rows are, what is to be learnt from them, and how they become numbers."""

from typing import Annotated, Literal

from pydantic import Field, model_serializer, model_validator

from mlp_cli.config.leaves import (
    Character,
    Either,
    Encoding,
    FilePath,
    Flag,
    Integer,
    Number,
    OneOrMany,
    Share,
    Text,
    Words,
    refused,
    show,
)
from mlp_cli.config.named import Family, Options, option

EXPECTED_SOURCE = "expected a path, or {x: PATH, y: PATH} for a pair of files"
COLUMN = Either((Text("a column name"), Integer(at_least=0)))

Path = Annotated[str, FilePath()]
Column = Annotated[str | int, COLUMN]
Label = Annotated[str, Text(numbers=True, may_be_empty=True)]


class PlainNumeric(Options):
    """Scaling that has no options."""

    name: Literal["none", "standard", "minmax", "robust", "quantile"] = "standard"


class Divide(Options):
    """Division by a fixed number, 255 for pixels."""

    name: Literal["divide"]
    by: Annotated[float, Number(above=0)] = option(..., "The number that every value is divided by.")


class PlainMissing(Options):
    """What becomes of empty cells, where that has no options."""

    name: Literal["error", "mean", "median", "indicator", "drop"] = "error"


class ConstantMissing(Options):
    """A fixed value for empty cells."""

    name: Literal["constant"]
    value: Annotated[float, Number()] = option(0.0, "What an empty cell of a numeric column counts as.")


NUMERIC = Family((PlainNumeric, Divide), default="standard")
MISSING = Family((PlainMissing, ConstantMissing), default="error")


class Source(Options):
    """Rows: one file, or a pair of files for inputs and targets."""

    path: Path | None = option(None, "A table, or an .npz file that holds the arrays x and y.")
    x: Path | None = option(None, "An .npy or IDX file of inputs.")
    y: Path | None = option(None, "An .npy or IDX file of targets, row by row those of x.")

    @model_validator(mode="before")
    @classmethod
    def _path_or_pair(cls, value):
        if isinstance(value, str):
            return {"path": value}
        if not isinstance(value, (dict, Source)):
            raise refused(f"{EXPECTED_SOURCE}; got {show(value)}")
        if isinstance(value, dict) and set(value) <= {"path", "x", "y"}:
            given = {key for key, path in value.items() if path is not None}
            if given not in ({"path"}, {"x", "y"}):
                listed = " and ".join(sorted(given)) or "nothing"
                raise refused(f"{EXPECTED_SOURCE}; got {'only ' if len(given) == 1 else ''}{listed}")
        return value

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema, handler):
        mapping = handler.resolve_ref_schema(handler(core_schema))
        return {"anyOf": [{"type": "string", "minLength": 1}, mapping]}

    @model_serializer(mode="plain")
    def _only_what_is_given(self):
        given = {"path": self.path, "x": self.x, "y": self.y}
        return {key: path for key, path in given.items() if path is not None}


class Split(Options):
    """Parts that are cut out of the training rows."""

    validation: Annotated[float, Share()] | None = option(None, "The part of the training rows that validates.")
    test: Annotated[float, Share()] | None = option(None, "The part of the training rows that is kept for the test.")
    stratify: Annotated[bool, Flag()] = option(True, "Whether every part gets its share of each class.")


class Data(Options):
    """The rows and how they become inputs and targets."""

    path: Path | None = option(None, "One file with all rows.")
    train: Source | None = option(None, "The training rows where each part has files of its own.")
    validation: Source | None = option(None, "The validation rows.")
    test: Source | None = option(None, "The test rows.")
    target: Annotated[str | int | list, OneOrMany(COLUMN)] | None = option(
        None, "The column to learn, by name or index from 0, or a list of them; null is the last column."
    )
    split: Split | None = option(None, "Parts to cut out of the training rows; null trains on all of them.")
    numeric: NUMERIC.annotation() = option(PlainNumeric, "How numeric columns are scaled, fitted on the training rows.")
    categorical: Annotated[str, Words(("one_hot",))] = option("one_hot", "How categorical columns are coded.")
    missing: MISSING.annotation() = option(PlainMissing, "What becomes of empty cells.")
    memory: Annotated[str, Words(("load", "map"))] = option(
        "load",
        "Where the inputs are: load reads them into memory, map leaves them in their file, a plain .npy file or an "
        "IDX file of bytes, which may be larger than memory.",
    )
    header: Annotated[bool, Flag()] | None = option(
        None, "Whether the first line holds the column names; null looks at the file."
    )
    names: Annotated[list[Annotated[str, Text("a column name", numbers=True)]], Field(min_length=1)] | None = option(
        None, "The column names, for files without a header."
    )
    delimiter: Annotated[str, Character()] | None = option(None, "What stands between cells; null looks at the file.")
    decimal: Annotated[str, Words((".", ","))] = option(".", "What stands before the decimals of a number.")
    encoding: Annotated[str, Encoding()] | None = option(None, "The text encoding of the files; null is UTF-8.")
    comment: Annotated[str, Character()] | None = option(
        None, "Lines that begin with this are skipped; null skips none."
    )
    missing_values: list[Label] = option(["", "NA", "NaN", "?"], "The spellings of an empty cell, spaces trimmed.")
    features: Annotated[list[Column], Field(min_length=1)] | None = option(
        None, "The columns to learn from; null is all but the target, the sample weight and the excluded ones."
    )
    exclude: list[Column] = option([], "Columns to leave out.")
    columns: dict[str, Annotated[str, Words(("numeric", "categorical"))]] = option(
        {}, "Column types by column name, where the inferred one is wrong."
    )
    labels: dict[str, Label] = option({}, "New names for classes, as in {'<=50K.': '<=50K'}.")
    sample_weight: Column | None = option(None, "The column that says how much each row counts.")
    unseen: Annotated[str, Words(("error", "ignore"))] = option(
        "error", "What becomes of a category that the training rows lack: refuse it, or code it as all zeros."
    )
    target_scaling: Annotated[str, Words(("none", "standard", "minmax"))] = option(
        "none", "How numeric targets are scaled for training; undone in predictions and metrics."
    )
    task: Annotated[str, Words(("classification", "regression"))] | None = option(
        None, "What is learnt; null decides by target, output activation and loss."
    )
    target_coding: Annotated[str, Words(("binary", "bipolar"))] = option(
        "binary", "Whether class targets are coded 0 and 1 or -1 and +1, under an output other than softmax."
    )
