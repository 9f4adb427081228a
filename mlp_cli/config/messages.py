"""Pydantic's findings as sentences: where, what was expected, what was found, what was probably meant."""

from functools import cache
from itertools import takewhile

from mlp_cli.config import places
from mlp_cli.config.leaves import REFUSED, did_you_mean, show
from mlp_cli.config.named import NAMING_KEYS, is_tag
from mlp_cli.config.tree import Problem, dotted, shown_key
from mlp_cli.wording import nearest


def problem_of(error, plain):
    """A Problem for one of pydantic's errors. `plain` is the config it complains about."""
    location, path = error["loc"], keys_of(error)
    kind, value = error["type"], error["input"]
    if kind == REFUSED:
        return Problem(path + tuple(error["ctx"]["at"]), error["ctx"]["message"])
    if kind == "extra_forbidden":
        return Problem(path, _unknown_key(location, path, plain), of_key=True)
    place = places.place_at(location)
    expected = places.expectation(place)
    if kind == "missing":
        if family := places.family(places.place_at(location[:-1])):
            return Problem(path[:-1], f"{_word(path[:-1], family, plain)} needs {path[-1]}, {expected}; got nothing")
        return Problem(path, f"expected {'a mapping' if places.models(place) else expected}; got nothing")
    if kind == "too_short":
        expected = f"{expected} of at least one element"
    return Problem(path, f"expected {expected}; got {show(value)}")


def keys_of(error):
    """The path of keys and indices that one of pydantic's errors is about."""
    return tuple(part for part in error["loc"] if not is_tag(part))


def meant_key(problem_path):
    """The key that an unknown one was probably meant to be, as a path; or None."""
    siblings = [key for model in places.models(places.place_at(problem_path[:-1])) for key in model.model_fields]
    suggestion = nearest(problem_path[-1], siblings)
    return (*problem_path[:-1], suggestion) if suggestion else None


def _unknown_key(location, path, plain):
    key = path[-1]
    place = places.place_at(location[:-1])
    model = places.models(place)[0]
    family = places.family(place)
    if family is None:
        keys = list(model.model_fields)
        owner = path[-2] if len(path) > 1 else "a config"
        return f"unknown key; {owner} has {', '.join(keys)}{_hint(path, keys, alike_elsewhere=True)}"
    word = _word(path[:-1], family, plain)
    options = [name for name in model.model_fields if name != family.key]
    message = (
        f"{word} has no option {shown_key(key)}, only {', '.join(options)}" if options else f"{word} has no options"
    )
    others = [name for name, other in family.words.items() if key in other.model_fields]
    if others:
        return f"{message}; {_listed(others)} {'have' if len(others) > 1 else 'has'} {key}"
    return message + _hint(path, options, alike_elsewhere=False)


def _hint(path, keys, alike_elsewhere):
    """` Did you mean ...?`: a key of that very name elsewhere, else the most alike here, else, if wanted, elsewhere."""
    elsewhere, key = _keys_by_name(), path[-1]
    if key not in elsewhere:
        if hint := did_you_mean(key, keys):
            return hint
        key = nearest(key, elsewhere) if alike_elsewhere else None
    if key is None:
        return ""
    closest = max(elsewhere[key], key=lambda other: _shared(path, other))
    return f". Did you mean {dotted(closest)}{'' if len(closest) > 1 else ' at the top level'}?"


def _shared(path, other):
    """How many keys two paths have in common from the top."""
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(path, other, strict=False))))


def _listed(words):
    """a, b and c"""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _word(path, family, plain):
    """The word that stands at a path, written bare, in a mapping or not at all."""
    value = plain
    for part in path:
        value = value[part]
    if isinstance(value, dict):
        value = value.get(family.key)
    return value if isinstance(value, str) else family.default


@cache
def _keys_by_name():
    """{last key: every path of the schema that ends in it, the shortest first}, elements of lists left out."""
    found = {}
    level = [((), places.ROOT)]
    while level:
        below = []
        for path, place in level:
            for model in places.models(place):
                for key in model.model_fields:
                    if key not in NAMING_KEYS:
                        found.setdefault(key, []).append((*path, key))
                    below.append(((*path, key), places.descend(place, key)))
        level = below
    return found
