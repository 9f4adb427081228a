"""A config as it was written: plain values, each with the place it came from.

The loader builds such a tree, merging and overrides combine trees, and every message takes its place from one.
"""

import re
from dataclasses import dataclass

from mlp_cli.wording import cut

INDEX = re.compile(r"0|[1-9][0-9]{0,8}", re.ASCII)
MOST_SHOWN = 50  # a file of ten thousand mistakes is not explained by ten thousand lines


@dataclass(frozen=True, slots=True)
class Source:
    """One config file or override, in the order of the command line."""

    order: int
    name: str  # as shown: the path as it was given, or override 'a.b=c'
    directory: str  # relative paths start here
    is_file: bool = True


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a source; line and column count from 1."""

    source: Source
    line: int = 1
    column: int = 1

    def __str__(self):
        return f"{self.source.name}:{self.line}:{self.column}" if self.source.is_file else self.source.name

    @property
    def order(self):
        """The key that sorts places as they were written."""
        return self.source.order, self.line, self.column


class Unreadable:
    """The value of a node that the loader could not read and has already complained about."""


UNREADABLE = Unreadable()


@dataclass(slots=True)
class Node:
    """A value: a scalar, a dict of nodes or a list of nodes."""

    value: object
    mark: Mark
    key_mark: Mark | None = None  # where its key stands, for values of a mapping

    @property
    def is_mapping(self):
        """Whether this is a mapping."""
        return isinstance(self.value, dict)

    @property
    def is_list(self):
        """Whether this is a list."""
        return isinstance(self.value, list)

    def child(self, part):
        """The node under a key or index, or None."""
        if self.is_mapping:
            return self.value.get(part)
        if self.is_list and isinstance(part, int) and 0 <= part < len(self.value):
            return self.value[part]
        return None


@dataclass(slots=True)
class Problem:
    """One mistake: the dotted key, as a tuple of keys and indices, what is wrong, and where."""

    path: tuple
    message: str
    mark: Mark | None = None
    involves: tuple = ()  # other keys that the complaint rests on
    of_key: bool = False  # the key itself is wrong, not its value

    def __str__(self):
        place = [str(self.mark)] if self.mark else []
        key = [dotted(self.path)] if self.path else []
        return f"{' '.join(place + key)}: {self.message}" if place or key else self.message


def keys(text):
    """The path of a dotted key: network.layers.0.units -> ("network", "layers", 0, "units")."""
    return tuple(int(part) if INDEX.fullmatch(part) else part for part in text.split("."))


def dotted(path):
    """network.layers.0.units, with anything unprintable in a key shown escaped."""
    return ".".join(shown_key(str(part)) for part in path)


def shown_key(key):
    """A key as a message shows it: a word as it is, anything stranger quoted and escaped."""
    return cut(key if key.isprintable() and key and " " not in key else repr(key))


def to_plain(node):
    """The bare dicts, lists and scalars of a tree."""
    if node.is_mapping:
        return {key: to_plain(child) for key, child in node.value.items()}
    if node.is_list:
        return [to_plain(child) for child in node.value]
    return node.value


def deepest(node, path):
    """(the deepest existing node on the way down `path`, how many parts of the path led to it)."""
    for depth, part in enumerate(path):
        child = node.child(part)
        if child is None:
            return node, depth
        node = child
    return node, len(path)


def locate(root, path):
    """(mark, path) of a key: a container is found at its key, a missing key at what holds it.

    Where a bare word stands for a mapping, what is said of the mapping's keys is said of the word.
    """
    node, depth = deepest(root, path)
    if node.is_mapping or node.is_list:
        return node.key_mark or node.mark, path
    return node.mark, path[:depth]


def report(problems, uncounted=0):
    """The text of a ConfigError: one line a problem, in the order in which they were written, so many at most.

    `uncounted` further problems are only mentioned.
    """
    placed = sorted(problems, key=lambda problem: problem.mark.order if problem.mark else (-1, 0, 0))
    lines = list(dict.fromkeys(str(problem) for problem in placed))
    uncounted += len(lines[MOST_SHOWN:])
    if uncounted:
        lines[MOST_SHOWN:] = [f"and {uncounted} more problems"]
    return "\n".join(lines)
