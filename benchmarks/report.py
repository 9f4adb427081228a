"""What was measured, as a table for people and as JSON for programs."""

import argparse
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from benchmarks.comparison import Comparison
from mlp_cli.benchmark import Net
from mlp_cli.cli.console import table
from mlp_cli.runs.provenance import provenance

HEADER = ["what", "how", "threads", "ours", "against", "theirs", "our speed", "quartiles", "at least", ""]
# A load average from which other work disturbs the measuring.
BUSY = 0.5
VERDICTS = {None: "", True: "holds", False: "MISSED"}


def options(command: str, description: str, rounds: int | None) -> argparse.ArgumentParser:
    """What all commands here understand; a command is described by the first line of its docstring.

    rounds: how many turns it takes if nothing else is said, None for a command that takes none.
    """
    first = description.splitlines()[0].partition(": python")[0]
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{command}", description=first)
    if rounds is not None:
        about = f"turns of everyone; default: {rounds}"
        parser.add_argument("--rounds", type=at_least_one, default=rounds, metavar="N", help=about)
    parser.add_argument("--json", metavar="FILE", help="write everything that was measured")
    return parser


def at_least_one(text: str) -> int:
    """A number of rounds, threads or rows."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 up; got {text}")
    return value


def note(text: str) -> None:
    """Says on stderr how far a measurement is."""
    print(text, file=sys.stderr, flush=True)


def title(net: Net) -> str:
    """784-128-10, batch 32."""
    return f"{net.name}, batch {net.batch}"


def count(n: int, noun: str) -> str:
    """1 thread, 2 threads."""
    return f"{n} {noun}" + ("" if n == 1 else "s")


def begin(rounds: int = 1, versions: dict[str, str | None] | None = None) -> dict:
    """A record of where and with what the measuring begins; says so if the machine is busy."""
    where = provenance()
    load = os.getloadavg()[0]
    if load > BUSY:
        note(f"Warning: the load of this machine is {load:.1f}; what is measured now says little, above all of limits")
    return {
        "processor": where["processor"],
        "cores": where["threads_available"],
        "load": round(load, 2),
        "operating_system": where["operating_system"],
        "date": where["date"],
        "commit": where["git"],
        "versions": where["versions"] | (versions or {}),
        "rounds": rounds,
    }


def end(record: dict, found: Iterable[Comparison], path: str | None = None) -> dict:
    """The record with everything that was found; prints it, and writes it to `path` if there is one."""
    done = record | {"comparisons": [asdict(each) | {"holds": each.holds} for each in found]}
    show(done)
    if path:
        write(done, path)
    return done


def show(record: dict) -> None:
    """Prints a record."""
    where = f"{record['processor']}, {count(record['cores'], 'core')}, load {record['load']}"
    print(f"{where}; {record['date']}; {record['rounds']} rounds")
    print(", ".join(f"{name} {version or 'absent'}" for name, version in record["versions"].items()))
    print()
    print(table([_line(each) for each in record["comparisons"]], header=HEADER, left=2))
    demanded = [each for each in record["comparisons"] if each["holds"] is not None]
    print(f"\n{sum(each['holds'] for each in demanded)} of {len(demanded)} hold")


def write(record: dict, path: str) -> None:
    """Writes a record as JSON."""
    Path(path).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def read(path: str) -> dict:
    """A record that was written."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def _line(each: dict) -> list[str]:
    low, high, least = (speed(value, each["share"]) for value in (*each["quartiles"], each["least"]))
    return [
        each["title"], each["variant"], str(each["threads"]), seconds(each["ours"]), each["against"],
        seconds(each["theirs"]), speed(each["speed"], each["share"]), f"{low} … {high}",
        least, VERDICTS[each["holds"]],
    ]  # fmt: skip


def speed(value: float | None, share: bool) -> str:
    """7.91 ×, or as a share 93.4 %; nothing for None."""
    if value is None:
        return ""
    return f"{100 * value:.1f} %" if share else f"{value:.3g} ×"


def seconds(value: float) -> str:
    """A time in the unit that suits it, three digits."""
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"
