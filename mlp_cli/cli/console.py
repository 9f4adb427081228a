"""What the commands say: results on stdout, everything else on stderr, tables and bars that know their terminal."""

import os
import re
import sys
import unicodedata

from mlp_cli.wording import bounded

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def harmless(text: str) -> str:
    """Text from files without terminal escapes: control characters become their \\x.. spelling."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def _harmless_json(text: str) -> str:
    """JSON in which the control characters beyond ASCII, escapes to some terminals, are spelled out as the others."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def complain(text: str) -> None:
    """A line on stderr, or nowhere if that is closed."""
    try:
        sys.stderr.write(harmless(bounded(text)) + "\n")
        sys.stderr.flush()
    except OSError:
        pass


def discard(stream) -> None:
    """Point a stream at nothing, so that what Python still holds of it can be flushed."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, stream.fileno())
    os.close(nothing)


class Console:
    """`quiet` leaves only warnings and errors on stderr, and all results; `as_json` keeps stdout for JSON."""

    def __init__(self, quiet: bool = False, as_json: bool = False):
        self.quiet, self.as_json = quiet, as_json
        self.stdout_is_open = True

    @property
    def is_terminal(self) -> bool:
        """Whether somebody looks at stderr."""
        return sys.stderr.isatty()

    @property
    def has_colour(self) -> bool:
        """Whether colour may be used there."""
        return self.is_terminal and not os.environ.get("NO_COLOR")

    @property
    def has_bars(self) -> bool:
        """Whether a live bar may be drawn there."""
        return self.has_colour and not self.quiet

    def say(self, text: str = "") -> None:
        """Progress, on stderr."""
        if not self.quiet:
            self._write(sys.stderr, harmless(bounded(text)) + "\n")

    def warn(self, text: str) -> None:
        """A warning, on stderr: without it a result would be taken for another one, so `quiet` does not hide it."""
        word = "\x1b[33mWarning:\x1b[0m" if self.has_colour else "Warning:"
        self._write(sys.stderr, f"{word} {harmless(bounded(text))}\n")

    def result(self, text: str) -> None:
        """The answer, on stdout; under --json it is said there by `emit` instead."""
        if not self.as_json:
            self._write(sys.stdout, harmless(text) + "\n")

    def emit(self, record: dict) -> None:
        """One JSON object on a line of stdout, under --json."""
        if self.as_json:
            from mlp_cli.runs.records import to_json

            self._write(sys.stdout, _harmless_json(to_json(record)) + "\n")

    def _write(self, stream, text: str) -> None:
        try:
            stream.write(text)
            stream.flush()
        except OSError:
            if stream is sys.stdout:
                raise
            discard(stream)  # what nobody can read of stderr is no reason to leave out the result


class TrainingConsole(Console):
    """A training run goes on when nobody reads its stdout or stderr any more."""

    def _write(self, stream, text: str) -> None:
        try:
            stream.write(text)
            stream.flush()
        except OSError:
            discard(stream)  # a closed pipe or a full disk


def width(text: str) -> int:
    """Columns that a text takes on a terminal."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def table(rows: list[list[str]], header: list[str] | None = None, left: int = 1) -> str:
    """Columns in line, the first `left` of them to the left and the others to the right."""
    lines = ([header] if header else []) + rows
    widths = [max(width(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = []
    for line in lines:
        cells = []
        for i, cell in enumerate(line):
            space = " " * (widths[i] - width(cell))
            cells.append(cell + space if i < left else space + cell)
        text.append(("  " + "  ".join(cells)).rstrip())
    return "\n".join(text)


def count(n: int) -> str:
    """12345 as 12,345."""
    return f"{n:,}"


def metric(value: float | None) -> str:
    """A metric in five significant digits."""
    return "-" if value is None else f"{value:.5g}"


def metrics_table(by_split: dict[str, dict[str, float]]) -> str:
    """Metrics down, splits across."""
    names = list(dict.fromkeys(name for found in by_split.values() for name in found))
    rows = [[name, *(metric(found.get(name)) for found in by_split.values())] for name in names]
    return table(rows, header=["", *by_split])


def confusion_table(counts, classes) -> str:
    """True classes down, predictions across."""
    rows = [[name, *(f"{int(n)}" if float(n).is_integer() else f"{n:.3g}" for n in line)]
            for name, line in zip(classes, counts, strict=True)]  # fmt: skip
    return table(rows, header=["true \\ predicted", *classes])


def per_class_table(counts, classes) -> str:
    """Precision, recall, F1 and support of each class."""
    from mlp_cli.metrics import per_class

    found = per_class(counts)
    rows = [
        [name, metric(found["precision"][i]), metric(found["recall"][i]), metric(found["f1"][i]),
         f"{found['support'][i]:g}"]
        for i, name in enumerate(classes)
    ]  # fmt: skip
    return table(rows, header=["class", "precision", "recall", "f1", "support"])


def layer_table(lines: list[dict]) -> str:
    """Layers down; shapes, parameters and multiply-adds across."""
    rows = [
        [line["layer"], line["kind"], line["activation"], f"{line['inputs']} -> {line['units']}",
         count(line["parameters"]), count(line["multiply_adds"])]
        for line in lines
    ]  # fmt: skip
    total = ["total", "", "", "", count(sum(line["parameters"] for line in lines)),
             count(sum(line["multiply_adds"] for line in lines))]  # fmt: skip
    header = ["layer", "kind", "activation", "shape", "parameters", "multiply-adds"]
    return table([*rows, total], header=header, left=3)
