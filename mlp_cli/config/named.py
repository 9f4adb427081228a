"""Things that are a bare word or a mapping that names them: `adam` or `{name: adam, beta2: 0.99}`.

A family is a few models, each for one word or several with the same options. The word picks the model, and the model
knows which options there are, so an option of another word is refused.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Union, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from mlp_cli.config.leaves import did_you_mean, refused, show

NAMING_KEYS = ("name", "schedule", "kind")
TAG = re.compile(r"<(name|schedule|kind)=[a-z0-9_]+>")


class Options(BaseModel):
    """A mapping of the config; null stands for an empty one."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _empty_for_null(cls, value):
        return {} if value is None else value


def option(default, description):
    """A field with its default and the sentence about it; `...` has no default."""
    if isinstance(default, (dict, list)) or callable(default):
        make = default if callable(default) else default.copy
        return Field(default_factory=make, description=description)
    return Field(default, description=description)


def about(description):
    """The sentence about an option that several models share, each with its own default."""
    return Field(description=description)


def words_of(model, key):
    """The words that a model of a family stands for."""
    return get_args(model.model_fields[key].annotation)


@dataclass(frozen=True)
class Family:
    """The models of a family, the key that names one, and the word that is meant where none is written."""

    models: tuple[type[Options], ...]
    key: str = "name"
    default: str | None = None
    number: str | None = None  # a bare number is this option of the default word
    order: tuple[str, ...] = ()  # in which messages and the reference list the words

    @cached_property
    def words(self):
        """{word: model}"""
        models = {word: model for model in self.models for word in words_of(model, self.key)}
        return {word: models[word] for word in self.order or models}

    def expectation(self):
        listed = ", ".join(self.words)
        return f"one of {listed}" + (", or a number" if self.number else "")

    def normalise(self, value):
        """The mapping form, with its word checked."""
        if isinstance(value, Options):
            return value
        if isinstance(value, str) or value is None:
            value = {} if value is None else {self.key: value}
            at = ()
        elif self.number and type(value) in (int, float):
            value, at = {self.key: self.default, self.number: value}, ()
        elif isinstance(value, dict):
            at = (self.key,)
        else:
            raise refused(f"expected {self.expectation()} or a mapping with {self.key}; got {show(value)}")
        word = value.get(self.key)
        if word is None:
            word = self.default
        if word is None:
            raise refused(f"expected {self.expectation()}; got nothing", at=at)
        if not isinstance(word, str) or word not in self.words:
            hint = did_you_mean(word, self.words)
            raise refused(f"expected {self.expectation()}; got {show(word)}{hint}", at=at)
        return {self.key: word} | value | {self.key: word}

    def tag(self, value):
        """The label of the model in pydantic's error locations: recognisable, so that messages can leave it out."""
        word = getattr(value, self.key, None) or value[self.key]
        return tag_of(self.words[word], self.key)

    def annotation(self):
        """The type of a field that holds one of this family."""
        union = Union[tuple(Annotated[model, Tag(tag_of(model, self.key))] for model in self.models)]  # noqa: UP007
        return Annotated[union, Discriminator(self.tag), BeforeValidator(self.normalise), self]

    def __get_pydantic_json_schema__(self, schema, handler):
        """Bare words where no option is required, else a mapping."""
        bare = [word for word, model in self.words.items() if not required(model, self.key)]
        choices = [{"enum": bare}] if bare else []
        choices += [{"type": "number"}] if self.number else []
        return {"anyOf": choices + handler(schema)["oneOf"]}


def required(model, key="name"):
    """The options of a model that have no default."""
    return [name for name, field in model.model_fields.items() if field.is_required() and name != key]


def tag_of(model, key):
    """<name=adam>"""
    return f"<{key}={words_of(model, key)[0]}>"


def is_tag(part):
    """Whether a part of an error location is the label of a model rather than a key."""
    return isinstance(part, str) and TAG.fullmatch(part) is not None


def family_of(annotation: Any, metadata=()) -> Family | None:
    """The family that a field's type belongs to."""
    for piece in (*metadata, *getattr(annotation, "__metadata__", ())):
        if isinstance(piece, Family):
            return piece
    return next((found for inner in get_args(annotation) if (found := family_of(inner))), None)
