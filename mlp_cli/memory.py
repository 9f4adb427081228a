"""How much memory this process may still take, and the sentence for what would not fit.

Linux promises memory that it does not have and kills whoever uses it, so what is large is asked for here first.
"""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from mlp_cli.control_groups import groups, text
from mlp_cli.errors import SystemFault

# What the program itself still takes: machine code, threads, tables of results.
RESERVE = 64_000_000
# Bytes that are taken without asking: to ask takes the system longer than to give them.
SMALL = 1_000_000

# The remedy for data that do not fit.
LESS_DATA = "use fewer rows or columns, or store the numbers as .npy and set data.memory: map"


def require(needed: int, what: str, remedy: str) -> None:
    """SystemFault unless so many more bytes fit: what needs them (`x.csv: its 9 cells need`), and what to do."""
    if needed < SMALL:
        return
    there = available()
    if needed > there:
        raise SystemFault(f"{what} {size_text(needed)} of memory, and {size_text(there)} are available; {remedy}")


def available(root: Path = Path("/")) -> int:
    """Bytes that this process may still take: the least that the machine, the control groups and the limits of the
    process (`ulimit -v`, `-d`) leave. `root` is where /proc and /sys are found."""
    left = min((*_by_machine(root), *_by_groups(root), *_by_process(root)), default=sys.maxsize)
    return max(left - RESERVE, 0)


def limits() -> dict[str, int]:
    """The limits in bytes that are set for this process, by their option of ulimit."""
    try:
        import resource
    except ImportError:  # no POSIX
        return {}
    known = {"v": resource.RLIMIT_AS, "d": resource.RLIMIT_DATA}
    found = {option: resource.getrlimit(limit)[0] for option, limit in known.items()}
    return {option: limit for option, limit in found.items() if limit != resource.RLIM_INFINITY}


def size_text(size: int) -> str:
    """A number of bytes for people: 812 bytes, 1.5 MB."""
    if size < 1000:
        return f"{size} bytes"
    value, unit = size / 1000, "kB"
    for larger in ("MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.1f} {unit}"


def _by_machine(root: Path) -> Iterator[int]:
    found = _number(text(root / "proc/meminfo"), "MemAvailable:")
    if found is not None:
        yield found * 1024
    elif "SC_PHYS_PAGES" in os.sysconf_names:
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _by_groups(root: Path) -> Iterator[int]:
    """What every control group above this process leaves; files that it keeps in memory give way, so they are free."""
    for version, folder in groups("memory", root):
        limit, used, prefix = ("memory.max", "memory.current", "") if version == 2 else (
            "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"
        )  # fmt: skip
        bounds = [_number(text(folder / name)) for name in (limit, used)]
        if None not in bounds:
            statistics = text(folder / "memory.stat")
            files = sum(_number(statistics, f"{prefix}{kind}_file") or 0 for kind in ("inactive", "active"))
            yield bounds[0] - max(bounds[1] - files, 0)


def _by_process(root: Path) -> Iterator[int]:
    pages = [int(count) for count in re.findall(r"\d+", text(root / "proc/self/statm"))]
    for option, limit in limits().items():
        place = 0 if option == "v" else 5
        used = pages[place] * os.sysconf("SC_PAGE_SIZE") if place < len(pages) else 0
        yield limit - used


def _number(content: str, name: str = "") -> int | None:
    """The first number on the line that begins with this name; None where there is none, as in `max`."""
    found = re.search(rf"^{re.escape(name)}\s*(\d+)", content, re.MULTILINE | re.ASCII)
    return int(found[1]) if found else None
