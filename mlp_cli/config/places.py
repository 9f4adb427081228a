"""What the schema expects at a key: the possible types there, found by walking down from the top.

Merging, messages and the reference page all ask here, so that none of them keeps a list of keys of its own.
"""

from types import UnionType
from typing import Annotated, Union, get_args, get_origin

from mlp_cli.config.leaves import Leaf
from mlp_cli.config.named import NAMING_KEYS, Family, Options, is_tag, tag_of
from mlp_cli.config.schema import Config

ROOT = ((Config, ()),)  # a place: (type, what annotates it), for each type that may stand there


def place_at(path):
    """The place that a path of keys, indices and pydantic's tags leads to; empty where the schema has nothing."""
    place = ROOT
    for part in path:
        place = descend(place, part)
    return place


def descend(place, part):
    """The place one key or index further down; a tag picks one model of a family."""
    found = []
    for kind, metadata in place:
        if is_tag(part):
            family = _first(Family, metadata)
            if family and is_model(kind) and tag_of(kind, family.key) == part:
                found.append((kind, metadata))
        elif is_model(kind):
            if part in kind.model_fields:
                found += of_field(kind.model_fields[part])
        elif get_origin(kind) is list and isinstance(part, int):
            found += _alternatives(get_args(kind)[0])
        elif get_origin(kind) is dict:
            found += _alternatives(get_args(kind)[1])
    return tuple(found)


def of_field(field):
    """The place that a field of a model is."""
    return tuple(_alternatives(field.annotation, tuple(field.metadata)))


def is_model(kind):
    """Whether a type is a mapping with keys of its own."""
    return isinstance(kind, type) and issubclass(kind, Options)


def models(place):
    """The mappings that may stand there."""
    return [kind for kind, _ in place if is_model(kind)]


def is_section(place):
    """Whether a mapping without a word stands there, of which null is an empty one."""
    return bool(models(place)) and family(place) is None and not any(kind is type(None) for kind, _ in place)


def all_models():
    """Every mapping of the schema, from the top down."""
    found, waiting = [], [Config]
    while waiting:
        model = waiting.pop(0)
        if model not in found:
            found.append(model)
            for field in model.model_fields.values():
                place = of_field(field)
                waiting += models(place) + models(descend(place, 0))
    return found


def family(place):
    """The family of which something stands there, or None."""
    return next((found for _, metadata in place if (found := _first(Family, metadata))), None)


def leaf(place):
    """The kind of single value that stands there, or None."""
    return next((found for _, metadata in place if (found := _first(Leaf, metadata))), None)


def default_of(field):
    """The default of a field as one would write it: the bare word of a family, {} for a section of defaults."""
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Options):
        return next((getattr(value, key) for key in NAMING_KEYS if hasattr(value, key)), {})
    return value


def expectation(place):
    """What stands there, as a phrase."""
    if named := family(place):
        return named.expectation()
    if value := leaf(place):
        return value.expectation()
    if found := models(place):
        return f"a mapping with {', '.join(found[0].model_fields)}"
    return "a list" if any(get_origin(kind) is list for kind, _ in place) else "a mapping"


def _alternatives(annotation, metadata=()):
    """Takes unions and Annotated apart, keeping what annotates each member."""
    if get_origin(annotation) is Annotated:
        inner, *extra = get_args(annotation)
        yield from _alternatives(inner, (*metadata, *extra))
    elif get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            yield from _alternatives(member, metadata)
    else:
        yield annotation, metadata


def _first(kind, metadata):
    return next((piece for piece in metadata if isinstance(piece, kind)), None)
