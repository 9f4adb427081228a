"""How a data file is to be read: what the user said about it, and what is known of its columns from training."""

import io
import os
import stat
from dataclasses import asdict, dataclass

from mlp_cli.errors import DataError
from mlp_cli.wording import quoted

FLOAT32_MAX = 3.4028234663852886e38
FLOAT64_MAX = 1.7976931348623157e308
READ_BYTES = 16 << 20  # of a stream at a time
UTF8 = ("utf-8", "utf8", "utf_8")  # read the same whether said or not, with advice where it is not that


@dataclass(frozen=True)
class Reading:
    """The options that say how text becomes cells; None means: find out from the file."""

    header: bool | None = None
    names: tuple[str, ...] | None = None
    delimiter: str | None = None
    decimal: str = "."
    encoding: str | None = None
    comment: str | None = None
    missing_values: tuple[str, ...] = ("", "NA", "NaN", "?")

    @classmethod
    def of(cls, options):
        """Take the reading options out of `cfg.data`. DataError for names that are not all different."""
        names = None if options.names is None else tuple(options.names)
        if names is not None:
            refuse_repeats(names, "data.names")
        return cls(
            header=options.header,
            names=names,
            delimiter=options.delimiter,
            decimal=options.decimal or ".",
            encoding=None if str(options.encoding or "utf-8").lower() in UTF8 else options.encoding,
            comment=options.comment,
            missing_values=tuple(options.missing_values),
        )

    def state(self):
        """What `from_state` needs, in lists, strings, booleans and None."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_state(cls, state):
        """The reading that `state` described."""
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in state.items()})


@dataclass(frozen=True)
class Known:
    """The columns of the training table, which another file is matched against.

    `columns` are all of them in their order, `named` says whether the names mean anything (a file without header has
    numbers for names, and such a table can only be matched by position).
    """

    columns: tuple[str, ...]
    features: tuple[str, ...]
    targets: tuple[str, ...]
    named: bool


def refuse_repeats(names, where):
    """DataError for an empty or a repeated column name."""
    seen = {}
    for number, name in enumerate(names, 1):
        if not name:
            raise DataError(
                f"{where}: column {number} has no name; name it in the file, or say all names in data.names "
                "together with header: true"
            )
        if name in seen:
            raise DataError(
                f"{where}: columns {seen[name]} and {number} are both called {quoted(name)}; rename one, or say "
                "all names in data.names together with header: true"
            )
        seen[name] = number


def bytes_that_follow(stream):
    """How many bytes a stream still has, where that can be known without reading them, in a plain file; else None."""
    file = getattr(stream, "raw", stream)
    if not isinstance(file, io.FileIO):
        return None
    status = os.fstat(file.fileno())
    return max(status.st_size - stream.tell(), 0) if stat.S_ISREG(status.st_mode) else None


def refuse_many_columns(count, most, where):
    """DataError for more columns than can be handled in reasonable time and memory."""
    if count > most:
        raise DataError(
            f"{where}: has {count} columns, more than the {most} that can be read; is it transposed, or separated by "
            "something else (data.delimiter)?"
        )
