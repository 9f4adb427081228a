"""YAML without its traps: `1e-3` is a number, `no` is a word, `010` is refused, and nothing refers to anything else.

PyYAML's parser delivers events; the tree is built from them with a stack, so a hostile file is stopped at the first
event too many, before anything slow or deep has happened.
"""

import os
import re
import stat

import yaml

from mlp_cli.config.tree import UNREADABLE, Mark, Node, Problem, Source
from mlp_cli.errors import shortage
from mlp_cli.opening import NotAFile, open_file

MAX_BYTES = 1_000_000
MAX_DEPTH = 64
MAX_VALUES = 30_000  # of many more, each one wrong, no report could be made in a second
MAX_KEYS = 10_000
MAX_PROBLEMS = 1000
TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"
MAX_DIGITS = 300  # longer integers are floats: Python takes quadratic time to read them

PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# Those of UTF-32 begin as those of UTF-16 do.
BYTE_ORDER_MARKS = (
    (b"\xff\xfe\0\0", "UTF-32"),
    (b"\0\0\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)

UTF8_MARK = b"\xef\xbb\xbf"

NULLS = {"", "~", "null", "Null", "NULL"}
TRUE = {"true", "True", "TRUE"}
FALSE = {"false", "False", "FALSE"}
INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)", re.ASCII)
FLOAT = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?", re.ASCII)
SPECIAL_FLOAT = re.compile(r"[-+]?\.(inf|Inf|INF|nan|NaN|NAN)")
NON_PRINTABLE = yaml.reader.Reader.NON_PRINTABLE
# What opens or closes a level within brackets; what only looks like it, in quotes or a comment, is passed over.
FLOW_TOKEN = re.compile(r"""'(?:[^']|'')*'|"(?:[^"\\]|\\.)*"|(?:^|(?<=\s))\#[^\n]*|[][{}]""", re.MULTILINE | re.DOTALL)
LEADING_ZERO = re.compile(r"[-+]?0[0-9]+", re.ASCII)


class Fatal(Exception):
    """A source that cannot be read any further; holds the Problem."""

    def __init__(self, problem):
        super().__init__(str(problem))
        self.problem = problem


def load_file(path, order, problems):
    """Reads a config file into a tree; None if it cannot be read. Adds to `problems`."""
    path = os.fspath(path)
    source = Source(order, path, os.path.dirname(os.path.abspath(path)))
    try:
        text, is_regular = _read(path, source)
        if not is_regular:  # a pipe has no folder of its own
            source = Source(order, path, os.getcwd())
        return parse(text, source, problems)
    except Fatal as fatal:
        problems.append(fatal.problem)
        return None


def parse(text, source, problems):
    """YAML text -> Node. Adds to `problems` what can be skipped, raises Fatal for what cannot."""
    if strange := NON_PRINTABLE.search(text):
        message = f"expected text; got the control character U+{ord(strange[0]):04X}"
        raise Fatal(_problem_at(strange.start(), message, text, source))
    builder = _Builder(source, problems)
    try:
        for event in yaml.parse(text, Loader=PARSER):
            builder.take(event)
    except (yaml.YAMLError, RecursionError) as error:
        raise Fatal(_depth_problem(error, text, builder) or _syntax_problem(error, source)) from None
    return builder.root or Node(None, Mark(source))


def _read(path, source):
    """(the text of a file of bounded size, whether it is a regular file)."""

    def fail(message):
        raise Fatal(Problem((), message, _FileMark(source)))

    try:
        with open_file(path, pipes=True) as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(MAX_BYTES + 1)
    except NotAFile as error:
        fail(f"expected a config file; this is {error.found}")
    except FileNotFoundError:
        fail("no such file")
    except (OSError, ValueError) as error:
        if fault := shortage(error, str(path)):
            raise fault from None
        fail(f"cannot be read: {getattr(error, 'strerror', None) or error}")
    if len(content) > MAX_BYTES:
        fail(f"expected a config of at most {MAX_BYTES} bytes; this file is larger")
    for mark, encoding in BYTE_ORDER_MARKS:
        if content.startswith(mark):
            fail(f"expected UTF-8 text; this file is {encoding}: save it as UTF-8")
    if b"\0" in content:
        mixed = content.startswith(UTF8_MARK) and content.count(b"\0") * 3 > len(content)
        if mixed:
            fail("expected UTF-8 text; this file begins as UTF-8 and goes on as UTF-16 or UTF-32: save it as UTF-8")
        fail("expected UTF-8 text; this is a binary file")
    try:
        return content.decode("utf-8-sig"), stat.S_ISREG(mode)
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        column = error.start - error.object.rfind(b"\n", 0, error.start)
        message = f"expected UTF-8 text; got the byte 0x{error.object[error.start]:02x}: save the file as UTF-8"
        raise Fatal(Problem((), message, Mark(source, line, column))) from None


class _FileMark(Mark):
    """The file as a whole."""

    def __str__(self):
        return self.source.name


class _Frame:
    """A mapping or list whose end has not come yet."""

    def __init__(self, node, part):
        self.node = node
        self.part = part  # its key or index in its parent
        self.key = None  # of the value that comes next: (text, mark), or False for a key that was refused


class _Builder:
    """Builds the tree from parser events."""

    def __init__(self, source, problems):
        self.source = source
        self.problems = problems
        self.root = None
        self.frames = []
        self.values = 0
        self.keys = 0
        self.read = 0  # characters up to the end of the last event

    def take(self, event):
        self.read = event.end_mark.index
        if isinstance(event, yaml.DocumentStartEvent):
            if self.root is not None:
                self.fail(event, "expected one document; a second one starts here")
        elif isinstance(event, yaml.AliasEvent):
            self.complain(event, f"the alias *{event.anchor} is refused: write the value out")
            self.place(event, Node(UNREADABLE, self.mark(event)))
        elif isinstance(event, yaml.ScalarEvent):
            self.refuse_extras(event)
            if self.expects_key():
                self.take_key(event)
            else:
                self.place(event, Node(self.scalar(event), self.mark(event)))
        elif isinstance(event, yaml.MappingStartEvent):
            self.open(event, {})
        elif isinstance(event, yaml.SequenceStartEvent):
            self.open(event, [])
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            self.frames.pop()

    def open(self, event, empty):
        if len(self.frames) >= MAX_DEPTH:
            self.fail(event, TOO_DEEP)
        self.refuse_extras(event)
        if self.expects_key():
            self.complain(event, "expected a word as key; got a mapping or list")
        node = Node(empty, self.mark(event))
        part = self.place(event, node)
        self.frames.append(_Frame(node, part))

    def expects_key(self):
        return bool(self.frames) and self.frames[-1].node.is_mapping and self.frames[-1].key is None

    def take_key(self, event):
        """A key is the text as it stands: `no`, `1` and `010` are words here."""
        self.keys += 1
        if self.keys > MAX_KEYS:
            self.fail(event, f"expected at most {MAX_KEYS} keys in a config")
        frame = self.frames[-1]
        key, mark = event.value, self.mark(event)
        if key == "<<" and event.implicit[0]:
            self.complain(event, "the merge key << is refused: write the values out")
            frame.key = False
        elif key in frame.node.value:
            first = frame.node.value[key].key_mark
            path = (*self.path(), key)
            lines = f"lines {first.line} and {mark.line}" if first.line != mark.line else f"line {mark.line}, twice"
            message = f"duplicate key, in {lines}" if self.source.is_file else "duplicate key"
            self.complain(event, message, path)
            frame.key = False
        else:
            frame.key = (key, mark)

    def place(self, event, node):
        """Hangs a node into the innermost container; returns its key or index there."""
        self.values += 1
        if self.values > MAX_VALUES:
            self.fail(
                event,
                f"expected at most {MAX_VALUES} values; many weights belong in a checkpoint, named by network.initial",
            )
        if not self.frames:
            self.root = node
            return None
        frame = self.frames[-1]
        if frame.node.is_list:
            frame.node.value.append(node)
            return len(frame.node.value) - 1
        if frame.key is None:  # an alias or a container in place of a key
            frame.key = False
            return "?"
        key, frame.key = frame.key, None
        if not key:
            return "?"
        text, node.key_mark = key
        frame.node.value[text] = node
        return text

    def scalar(self, event):
        """null, true, false, a number, or else text."""
        text = event.value
        if not event.implicit[0]:  # quoted, a block, or tagged
            return text
        if text in NULLS:
            return None
        if text in TRUE:
            return True
        if text in FALSE:
            return False
        if text[0] not in "+-.0123456789":
            return text
        if LEADING_ZERO.fullmatch(text):
            sign, digits = text.rstrip("0123456789"), text.lstrip("+-").lstrip("0") or "0"
            message = f"{text} is octal for some readers: write {sign}{digits}, or '{text}' in quotes if it is text"
            self.complain(event, message, self.path(value=True))
            return UNREADABLE
        if INTEGER.fullmatch(text):
            return int(text) if len(text) <= MAX_DIGITS else float(text)
        if FLOAT.fullmatch(text):
            return float(text)
        if SPECIAL_FLOAT.fullmatch(text):
            return float(text.replace(".", "", 1))
        return text

    def refuse_extras(self, event):
        if event.anchor is not None:
            self.complain(event, f"the anchor &{event.anchor} is refused: write the value out where it is used")
        if event.tag is not None:
            self.complain(event, f"the tag {event.tag!r} is refused: a config holds plain values")

    def mark(self, event):
        if not self.source.is_file:
            return Mark(self.source)
        return Mark(self.source, event.start_mark.line + 1, event.start_mark.column + 1)

    def path(self, value=False):
        """The keys that lead to the innermost container, or to the value that comes next in it."""
        parts = [frame.part for frame in self.frames if frame.part is not None]
        if value and self.frames:
            frame = self.frames[-1]
            parts.append(len(frame.node.value) if frame.node.is_list else frame.key[0] if frame.key else "?")
        return tuple(parts)

    def complain(self, event, message, path=()):
        if len(self.problems) > MAX_PROBLEMS:
            raise Fatal(Problem(path, message, self.mark(event)))
        self.problems.append(Problem(path, message, self.mark(event)))

    def fail(self, event, message):
        raise Fatal(Problem((), message, self.mark(event)))


def _problem_at(position, message, text, source):
    """A Problem at a character of the text."""
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    return Problem((), message, Mark(source, line, column) if source.is_file else Mark(source))


def _depth_problem(error, text, builder):
    """The Problem where the parser gave up because of the depth, or None.

    Parsers look ahead of the events they deliver, and some have a limit of their own on the depth (libyaml 0.2.6).
    The place that goes too deep by our limit then lies in the text that no event has covered yet.
    """
    said = str(error).lower()
    if not isinstance(error, RecursionError) and "nesting" not in said and "depth" not in said:
        return None
    depth, position = len(builder.frames), builder.read
    for token in FLOW_TOKEN.finditer(text, builder.read):
        depth += (token[0] in "[{") - (token[0] in "]}")
        position = token.start()
        if depth > MAX_DEPTH:
            break
    return _problem_at(position, TOO_DEEP, text, builder.source)


def _syntax_problem(error, source):
    problem = " ".join(str(getattr(error, "problem", None) or error).split())
    context = getattr(error, "context", None)
    message = f"not valid YAML: {problem}" + (f" ({context})" if context else "")
    if "cannot start any token" in message:
        message += "; indent with spaces, not tabs, and quote text that begins with a special character"
    place = getattr(error, "problem_mark", None)
    if place is None or not source.is_file:
        return Problem((), message, _FileMark(source))
    return Problem((), message, Mark(source, place.line + 1, place.column + 1))
