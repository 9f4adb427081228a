"""The kinds of single values: what each accepts, what messages call it, and its JSON Schema.

Types are strict: the text "5" is no integer, true is not 1, and no option is NaN or infinite. Each kind has one
sentence for all its refusals, so a value that fits no branch of a choice is complained about once.
"""

import codecs
import math
import re
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from pydantic_core import PydanticCustomError, core_schema

from mlp_cli.config.yaml_loader import FLOAT
from mlp_cli.wording import cut, nearest

REFUSED = "refused"  # the type of our pydantic errors
DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smh])", re.ASCII)
MOST = 2**53  # what is counted: beyond it float64 no longer tells two neighbours apart
SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
HABITS = {"yes": "true", "on": "true", "no": "false", "off": "false"}  # the booleans of old YAML


def refused(message, *, at=()):
    """A pydantic error that holds a finished sentence; `at` is the rest of the way to the key that it is about."""
    return PydanticCustomError(REFUSED, "{message}", {"message": message, "at": at})


def show(value):
    """A value as a message quotes it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, (list, tuple)):
        return "a list" if value else "an empty list"
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    return cut(repr(value))


def did_you_mean(word, choices):
    """` Did you mean relu?`, or nothing."""
    suggestion = nearest(word, choices)
    return f". Did you mean {suggestion}?" if suggestion else ""


class Leaf(ABC):
    """A kind of value. Subclasses say what is expected, whether a value is it, and the JSON Schema."""

    @abstractmethod
    def expectation(self):
        """The phrase after `expected`, as in `a number > 0`."""

    @abstractmethod
    def accepts(self, value):
        """Whether this is such a value."""

    def convert(self, value):
        """The normal form of an accepted value."""
        return value

    def hint(self, value):
        """What follows the message for a refused value, as in `. Did you mean relu?`"""
        return ""

    @abstractmethod
    def json_schema(self):
        """The JSON Schema of what may be written."""

    def check(self, value):
        """The normal form, or the error that says what is expected."""
        if not self.accepts(value):
            raise refused(f"expected {self.expectation()}; got {show(value)}{self.hint(value)}")
        return self.convert(value)

    def __get_pydantic_core_schema__(self, source, handler):
        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(self, schema, handler):
        return self.json_schema()


@dataclass(frozen=True)
class Number(Leaf):
    """A finite number within bounds; integers are numbers too."""

    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    what = "a number"
    json_type = "number"

    def expectation(self):
        lower = self.above if self.at_least is None else self.at_least
        upper = self.below if self.at_most is None else self.at_most
        if lower is not None and upper is not None:
            left, right = "(["[self.at_least is not None], ")]"[self.at_most is not None]
            return f"{self.what} in {left}{lower}, {upper}{right}"
        if lower is not None:
            return f"{self.what} {'>' if self.at_least is None else '>='} {lower}"
        return self.what

    def accepts(self, value):
        return type(value) in (int, float) and abs(value) <= sys.float_info.max and self._within(value)

    def _within(self, value):
        return (
            (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.below is None or value < self.below)
            and (self.at_most is None or value <= self.at_most)
        )

    def convert(self, value):
        return float(value)

    def hint(self, value):
        if isinstance(value, str) and FLOAT.fullmatch(value):
            return ", which is text: write it without quotes"
        return ""

    def json_schema(self):
        bounds = {
            "exclusiveMinimum": self.above,
            "minimum": self.at_least,
            "exclusiveMaximum": self.below,
            "maximum": self.at_most,
        }
        return {"type": self.json_type} | {key: bound for key, bound in bounds.items() if bound is not None}


@dataclass(frozen=True)
class Integer(Number):
    """A whole number within bounds, written without a point."""

    what = "an integer"
    json_type = "integer"

    def accepts(self, value):
        return type(value) is int and abs(value) <= max(MOST, self.at_most or 0) and self._within(value)

    def convert(self, value):
        return value

    def hint(self, value):
        if type(value) is float and value.is_integer() and abs(value) < 1e15 and self._within(value):
            return f": write {int(value)}"
        if type(value) is int and value > MOST:
            return f", which is too large: at most {MOST}"
        return super().hint(value)


@dataclass(frozen=True)
class Share(Number):
    """A part of the rows; 0 means none and is normalised to null."""

    at_least: float | None = 0
    below: float | None = 1

    def convert(self, value):
        return float(value) or None


@dataclass(frozen=True)
class Words(Leaf):
    """One word of a few."""

    words: tuple

    def expectation(self):
        words = [word if word.isidentifier() else repr(word) for word in self.words]
        return words[0] if len(words) == 1 else f"one of {', '.join(words)}"

    def accepts(self, value):
        return isinstance(value, str) and value in self.words

    def hint(self, value):
        return did_you_mean(value, self.words)

    def json_schema(self):
        return {"enum": list(self.words)}


class Flag(Leaf):
    """true or false and nothing like it."""

    def expectation(self):
        return "true or false"

    def accepts(self, value):
        return isinstance(value, bool)

    def hint(self, value):
        meant = HABITS.get(value.lower()) if isinstance(value, str) else None
        return f". Did you mean {meant}?" if meant else ""

    def json_schema(self):
        return {"type": "boolean"}


@dataclass(frozen=True)
class Text(Leaf):
    """Text; where `numbers` may stand for their own spelling, an integer is text as well."""

    what: str = "text"
    numbers: bool = False
    may_be_empty: bool = False

    def expectation(self):
        return self.what

    def accepts(self, value):
        if isinstance(value, str):
            return self.may_be_empty or value != ""
        return self.numbers and type(value) is int

    def convert(self, value):
        return str(value)

    def hint(self, value):
        return ": write it in quotes" if type(value) in (int, float, bool) else ""

    def json_schema(self):
        kind = {"type": ["string", "integer"] if self.numbers else "string"}
        return kind if self.may_be_empty else kind | {"minLength": 1}


@dataclass(frozen=True)
class FilePath(Leaf):
    """The path of a file; relative ones have been made absolute by the time it is checked."""

    def expectation(self):
        return "a path"

    def accepts(self, value):
        return isinstance(value, str) and value != "" and "\0" not in value

    def json_schema(self):
        return {"type": "string", "minLength": 1}


class Character(Leaf):
    """One character."""

    def expectation(self):
        return "one character"

    def accepts(self, value):
        return isinstance(value, str) and len(value) == 1

    def hint(self, value):
        return ': write "\\t" in double quotes' if value in ("tab", "\\t") else ""

    def json_schema(self):
        return {"type": "string", "minLength": 1, "maxLength": 1}


class Encoding(Leaf):
    """The name of a text encoding."""

    def expectation(self):
        return "an encoding that Python knows, such as utf-8 or latin-1"

    def accepts(self, value):
        try:
            # decoded, for UTF-16 encodes nothing as a byte order mark; codecs for domain names take quadratic time
            known = isinstance(value, str) and len(value) <= 40 and b"".decode(value) == ""
            return known and codecs.lookup(value).name not in ("idna", "punycode")
        except (LookupError, ValueError):
            return False

    def json_schema(self):
        return {"type": "string"}


class Duration(Leaf):
    """A time such as 90s, 30m or 2h; its normal form is seconds."""

    def expectation(self):
        return "a time such as 90s, 30m or 2h"

    def accepts(self, value):
        match = DURATION.fullmatch(value) if isinstance(value, str) and len(value) <= 40 else None
        return match is not None and float(match[1]) > 0

    def convert(self, value):
        number, unit = DURATION.fullmatch(value).groups()
        return float(number) * SECONDS[unit]

    def hint(self, value):
        return f": write {value}s for seconds" if type(value) in (int, float) and value > 0 else ""

    def json_schema(self):
        return {"type": "string", "pattern": "^[0-9]+([.][0-9]+)?[smh]$"}


@dataclass(frozen=True)
class Either(Leaf):
    """A value of any of several kinds, tried in turn."""

    kinds: tuple = field(default=())

    def expectation(self):
        return " or ".join(kind.expectation() for kind in self.kinds)

    def accepts(self, value):
        return any(kind.accepts(value) for kind in self.kinds)

    def convert(self, value):
        return next(kind for kind in self.kinds if kind.accepts(value)).convert(value)

    def hint(self, value):
        return next((hint for kind in self.kinds if (hint := kind.hint(value))), "")

    def json_schema(self):
        return {"anyOf": [kind.json_schema() for kind in self.kinds]}


@dataclass(frozen=True)
class OneOrMany(Leaf):
    """A value of one kind, or a list of different ones."""

    kind: Leaf

    def expectation(self):
        return f"{self.kind.expectation()}, or a list of different ones"

    def accepts(self, value):
        if not isinstance(value, list):
            return self.kind.accepts(value)
        each_fits = all(self.kind.accepts(element) for element in value)
        return each_fits and 0 < len(value) == len({str(element) for element in value})

    def convert(self, value):
        if isinstance(value, list):
            return [self.kind.convert(element) for element in value]
        return self.kind.convert(value)

    def json_schema(self):
        one = self.kind.json_schema()
        return {"anyOf": [one, {"type": "array", "items": one, "minItems": 1, "uniqueItems": True}]}
