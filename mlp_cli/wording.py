"""What comes out of files and arguments, as messages quote it: on one line, and of bounded length whatever it is."""

import itertools
from collections.abc import Iterable

LONGEST = 60  # characters of a quoted value
MOST_LISTED = 12
LONGEST_LINE = 2000  # of a message as a whole, however many of its parts are long
LONGEST_COMPARED = 100  # characters of a word that was perhaps meant to be another one
MOST_COMPARED = 5000  # others that it may have been meant to be
KEPT_END = 500  # of them the last, where the remedy stands


def cut(text: str, longest: int = LONGEST) -> str:
    """A text, its end replaced by `...` where it is longer than that."""
    return text if len(text) <= longest else text[: longest - 3] + "..."


def quoted(value: object) -> str:
    """A cell or name: in quotes, on one line, cut where it is long."""
    # of a long text the beginning is enough; to escape all of it could take a gigabyte
    text = repr(str(value)[: LONGEST + 1])
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..." + text[0]


def plain(name: object) -> str:
    """A name as it stands, in quotes where it is long or holds what cannot be printed, a line end say."""
    text = str(name)
    return text if text.isprintable() and len(text) <= LONGEST else quoted(text)


def listed(names: Iterable[object], limit: int = MOST_LISTED) -> str:
    """Names: `a, b, c and 7 more`."""
    names = list(names)
    shown = ", ".join(map(plain, names[:limit]))
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def nearest(word: object, choices: Iterable[str]) -> str | None:
    """The choice that a word was most likely meant to be, or None; neither long words nor many choices are compared."""
    if not isinstance(word, str) or len(word) > LONGEST_COMPARED:
        return None
    import difflib

    some = itertools.islice(choices, MOST_COMPARED)
    by_spelling = {choice.lower(): choice for choice in some if len(choice) <= LONGEST_COMPARED}
    beginnings = [choice for choice in by_spelling if len(word) > 2 and choice.startswith(word.lower())]
    found = beginnings or difflib.get_close_matches(word.lower(), by_spelling, n=1, cutoff=0.6)
    return by_spelling[found[0]] if found else None


def plural(count: int, noun: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def sizes(shape: Iterable[int]) -> str:
    """The shape of an array: `3 x 28 x 28`, a number for one without dimensions."""
    shape = tuple(shape)
    shown = " x ".join(cut(str(size), 20) for size in shape[:MOST_LISTED]) or "1"
    return shown if len(shape) <= MOST_LISTED else f"{shown} x ... ({len(shape)} dimensions)"


def bounded(message: str) -> str:
    """A message whose lines are cut in the middle where they are too long to be read."""
    return "\n".join(map(_bounded_line, message.split("\n")))


def _bounded_line(line: str) -> str:
    if len(line) <= LONGEST_LINE:
        return line
    return f"{line[: LONGEST_LINE - KEPT_END - 5]} ... {line[-KEPT_END:]}"
