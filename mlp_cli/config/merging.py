"""Several configs and overrides become one tree.

Mappings merge by key and anything else replaces; a changed name, schedule or kind replaces its whole mapping, for the
options of adam mean nothing to sgd. A bare word counts as the mapping that names it.
"""

import os
import re

from mlp_cli.config import places
from mlp_cli.config.leaves import FilePath, show
from mlp_cli.config.named import NAMING_KEYS
from mlp_cli.config.schema_data import Source as DataSource
from mlp_cli.config.tree import Mark, Node, Problem, Source, dotted, keys
from mlp_cli.config.yaml_loader import MAX_DEPTH, Fatal, parse
from mlp_cli.wording import cut

OVERRIDE = re.compile(r"([A-Za-z_][\w.]*)=(.*)", re.DOTALL)


def merge(old, new, place=places.ROOT):
    """The tree of two configs, the later one winning."""
    if family := places.family(place):
        old, new = _named(old, family), _named(new, family)
        if _changes_word(old, new, family):
            return new
    if new.value is None and old.is_mapping and places.is_section(place):
        return old
    if not (old.is_mapping and new.is_mapping):
        return new
    merged = dict(old.value)
    for key, child in new.value.items():
        merged[key] = merge(merged[key], child, places.descend(place, key)) if key in merged else child
    return Node(merged, old.mark, old.key_mark)


def _named(node, family):
    """The mapping form of a bare word or number."""
    if isinstance(node.value, str):
        return Node({family.key: Node(node.value, node.mark, node.key_mark)}, node.mark, node.key_mark)
    if family.number and type(node.value) in (int, float):
        content = {family.key: Node(family.default, node.mark), family.number: Node(node.value, node.mark)}
        return Node(content, node.mark, node.key_mark)
    return node


def _changes_word(old, new, family):
    """Whether the new mapping names another word than the old one, which means the default if it names none."""
    before, after = old.child(family.key), new.child(family.key)
    was = family.default if before is None else before.value
    return after is not None and was is not None and after.value != was


def read_overrides(texts, first_order, problems):
    """[(path, Node)] of key=value arguments, from the outside in.

    Sorted so that `optimizer=sgd` comes before `optimizer.momentum=0.9` whichever was written first; of two for the
    same key the later one wins.
    """
    found = []
    for number, text in enumerate(texts):
        source = Source(first_order + number, _label(text), os.getcwd(), is_file=False)
        try:
            found.append(_read_override(text, source, problems))
        except Fatal as fatal:
            problems.append(fatal.problem)
    return sorted(found, key=lambda override: _rank(override[0]))


def _read_override(text, source, problems):
    match = OVERRIDE.fullmatch(text)
    path = keys(match[1]) if match else ()
    if not path or "" in path or len(path) > MAX_DEPTH:
        raise Fatal(Problem((), "expected KEY=VALUE with a key such as training.epochs", Mark(source)))
    within = []
    node = parse(match[2], source, within)
    node.key_mark = node.mark
    for problem in within:
        problem.path = (*path, *problem.path)
    problems += within
    return path, node


def _label(text):
    return f"override {cut(text, 80)!r}"


def _rank(path):
    return len(path) - 1 if path[-1] in NAMING_KEYS else len(path)


def apply(root, path, new):
    """The tree with a value put at a path. Raises Fatal where the path leads nowhere."""
    return _put(root, path, new, places.ROOT, ())


def _put(node, rest, new, place, done):
    if not rest:
        return merge(node, new, place) if node else new
    part = rest[0]
    if node is None or node.value is None:
        node = Node({}, new.mark, new.key_mark)
    elif family := places.family(place):
        node = _named(node, family)
    if node.is_list:
        return _put_into_list(node, rest, new, place, done)
    if not node.is_mapping:
        message = f"{dotted(done)} is {show(node.value)}, which has no key {part}"
        raise Fatal(Problem((*done, *rest), message, new.mark))
    key = str(part)
    child = _put(node.child(key), rest[1:], new, places.descend(place, part), (*done, part))
    if len(rest) == 1 and (family := places.family(place)) and key == family.key:
        return merge(node, Node({key: child}, node.mark, node.key_mark), place)
    return Node({**node.value, key: child}, node.mark, node.key_mark)


def _put_into_list(node, rest, new, place, done):
    index = rest[0]
    if not isinstance(index, int) or index >= len(node.value):
        count = len(node.value)
        numbers = f"elements 0 to {count - 1}" if count else "no elements"
        raise Fatal(Problem((*done, *rest), f"{dotted(done)} is a list with {numbers}", new.mark))
    elements = list(node.value)
    elements[index] = _put(elements[index], rest[1:], new, places.descend(place, index), (*done, index))
    return Node(elements, node.mark, node.key_mark)


def make_paths_absolute(node, place=places.ROOT):
    """Every path starts at the folder of the file that wrote it. No list of the schema holds paths."""
    if isinstance(node.value, str) and node.value and "\0" not in node.value and _is_path(place):
        node.value = os.path.abspath(os.path.join(node.mark.source.directory, os.path.expanduser(node.value)))
    elif node.is_mapping:
        for key, child in node.value.items():
            make_paths_absolute(child, places.descend(place, key))


def _is_path(place):
    return isinstance(places.leaf(place), FilePath) or DataSource in places.models(place)
