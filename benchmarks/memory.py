"""How much memory whole trainings take: python -m benchmarks.memory

In memory, from a .npy file: the peak (VmHWM) of `mlp train` against that of the same command on four rows, and the
inputs once. Mapped, from a file larger than the memory there is: anonymous memory, against a bound that the number of
rows sets and their length does not.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks import report
from benchmarks.processes import training
from benchmarks.worker import ROOT
from mlp_cli.cli.console import table

MEGABYTE, GIGABYTE = 1_000_000, 1_000_000_000
HEADER = ["what", "stored as", "rows", "inputs", "on disk", "peak", "4 rows", "at most", "seconds", ""]
# Between two looks at a process: what lasts for a shorter time is not seen, but for VmHWM, which the system keeps.
LOOK_SECONDS = 0.005
# What may come on top of what is counted.
SPARE = 200 * MEGABYTE
FEW_ROWS, BATCH, CLASSES, UNITS = 4, 128, 2, 16
WIDE, NARROW = 784, 64
ELEMENTS = ("float32", "float64", "uint8")
# What docs/config.md says of a mapped run under softmax, of which this net's parameters are no part worth counting.
MAPPED_BYTES, MAPPED_ROW_BYTES = 100 * MEGABYTE, max(60, 28 + 4 * CLASSES)
BLOCK_BYTES = 1 << 24
# A file that does not fit is as much larger than memory.
LARGER = 1.1
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True)
class Peak:
    """What a training took, in bytes: its peak, that of the same command on a few rows, and what is allowed.

    what: in memory, or mapped. stored: bytes of the inputs in their file.
    """

    what: str
    element: str
    rows: int
    inputs: int
    stored: int
    peak: int
    few: int
    most: int
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether it took no more than is allowed."""
        return self.peak <= self.most


# --- files ------------------------------------------------------------------------------------------------------


def write_inputs(path: Path, rows: int, inputs: int, element: str) -> None:
    """A .npy file of small whole numbers, written a few megabytes at a time."""
    random = np.random.default_rng(0)
    step = max(1, BLOCK_BYTES // (inputs * np.dtype(element).itemsize))
    with path.open("wb") as file:
        _write_header(file, rows, inputs, element)
        for start in range(0, rows, step):
            size = min(step, rows - start), inputs
            file.write(random.integers(0, 256, size, dtype=np.uint8).astype(element).tobytes())


def sparse_inputs(path: Path, rows: int, inputs: int, element: str) -> None:
    """A .npy file of zeros that takes no room on the disk; where it is read, its pages take memory like others."""
    with path.open("wb") as file:
        _write_header(file, rows, inputs, element)
        file.truncate(file.tell() + rows * inputs * np.dtype(element).itemsize)


def _write_header(file, rows: int, inputs: int, element: str) -> None:
    described = {"descr": np.dtype(element).str, "fortran_order": False, "shape": (rows, inputs)}
    np.lib.format.write_array_header_1_0(file, described)


def write_classes(path: Path, rows: int) -> None:
    """The class of each row."""
    np.save(path, (np.arange(rows) % CLASSES).astype(np.uint8))


# --- processes --------------------------------------------------------------------------------------------------


def command(folder: Path, name: str, inputs: int, *overrides: str) -> list[str]:
    """Train a small net for an epoch on name-x.npy and name-y.npy."""
    batch = FEW_ROWS if name == "few" else BATCH
    return [*training(folder, (inputs, UNITS, CLASSES), batch, 1, name), *overrides]


def watch(arguments: list[str]) -> tuple[dict[str, int], float]:
    """(the most that each kind of memory took, in bytes; seconds) of a process.

    peak: everything, pages of files among it. own: pages of no file, shared ones among them, which is how large arrays
    are allocated. CalledProcessError if the process fails.
    """
    began, seen = time.monotonic(), {"peak": 0, "own": 0}
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=said)
        try:
            while process.poll() is None:
                for kind, value in _memory(process.pid).items():
                    seen[kind] = max(seen[kind], value)
                time.sleep(LOOK_SECONDS)
        finally:
            process.kill()
            process.wait()
        if process.returncode:
            said.seek(0)
            raise subprocess.CalledProcessError(process.returncode, arguments, stderr=said.read())
    return seen, time.monotonic() - began


def _memory(pid: int) -> dict[str, int]:
    """Its memory now, nothing of a process that has ended."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    size = {name: 1024 * int(number) for name, number in re.findall(r"^(\w+):\s+(\d+) kB$", status, re.MULTILINE)}
    if "VmHWM" not in size:
        return {}
    return {"peak": size["VmHWM"], "own": size["RssAnon"] + size["RssShmem"]}


# --- what is measured -------------------------------------------------------------------------------------------


def in_memory(folder: Path, rows: int, inputs: int, element: str) -> Peak:
    """Inputs read into memory: they take what they would as float32, once."""
    few = _of_few_rows(folder, inputs, element)["peak"]
    write_inputs(folder / "all-x.npy", rows, inputs, element)
    write_classes(folder / "all-y.npy", rows)
    seen, seconds = watch(command(folder, "all", inputs))
    stored = rows * inputs * np.dtype(element).itemsize
    return Peak("in memory", element, rows, inputs, stored, seen["peak"], few, few + 4 * rows * inputs + SPARE, seconds)


def mapped(folder: Path, rows: int, inputs: int, element: str) -> Peak:
    """Inputs left in their file, a sparse one: what is no page of a file takes so many bytes a row, however long."""
    few = _of_few_rows(folder, inputs, element, "data.memory=map")["own"]
    sparse_inputs(folder / "all-x.npy", rows, inputs, element)
    write_classes(folder / "all-y.npy", rows)
    seen, seconds = watch(command(folder, "all", inputs, "data.memory=map"))
    stored, most = rows * inputs * np.dtype(element).itemsize, MAPPED_BYTES + MAPPED_ROW_BYTES * rows
    return Peak("mapped", element, rows, inputs, stored, seen["own"], few, most, seconds)


def _of_few_rows(folder: Path, inputs: int, element: str, *overrides: str) -> dict[str, int]:
    """What the same command takes on a few rows."""
    write_inputs(folder / "few-x.npy", FEW_ROWS, inputs, element)
    write_classes(folder / "few-y.npy", FEW_ROWS)
    return watch(command(folder, "few", inputs, *overrides))[0]


def memory_limit() -> int:
    """Bytes that this process may use: those of the machine, or fewer in a control group."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in map(Path, CGROUP_LIMITS):
        if path.exists() and (text := path.read_text().strip()).isdigit():
            found.append(int(text))
    return min(found)


def measure(folder: Path, size: int, mapped_size: int) -> Iterator[Peak]:
    """Every case: inputs that take `size` bytes as float32 in memory; a mapped file of `mapped_size`, none for 0."""
    for inputs in (WIDE, NARROW):
        rows = max(FEW_ROWS, size // (4 * inputs))
        for element in ELEMENTS:
            report.note(f"In memory: {rows:,} rows of {inputs} {element} numbers")
            yield in_memory(folder, rows, inputs, element)
    if mapped_size:
        rows = max(FEW_ROWS, mapped_size // (4 * WIDE))
        report.note(f"Mapped: {rows:,} rows of {WIDE} float32 numbers")
        yield mapped(folder, rows, WIDE, "float32")


# --- the command ------------------------------------------------------------------------------------------------


def line(peak: Peak) -> list[str]:
    """A line of the table."""
    sizes = [f"{value / MEGABYTE:,.0f} MB" for value in (peak.stored, peak.peak, peak.few, peak.most)]
    verdict = report.VERDICTS[peak.holds]
    return [
        peak.what, peak.element, f"{peak.rows:,}", f"{peak.inputs}", *sizes, f"{peak.seconds:.1f}", verdict
    ]  # fmt: skip


def show(record: dict, found: list[Peak]) -> None:
    """Prints the record of a machine and what was found on it."""
    print(f"{record['processor']}, {memory_limit() / GIGABYTE:.1f} GB of memory; {record['date']}")
    print()
    print(table([line(peak) for peak in found], header=HEADER, left=2))
    print(f"\n{sum(peak.holds for peak in found)} of {len(found)} hold")


def main() -> int:
    """Measure and print."""
    parser = report.options("memory", __doc__, None)
    about = "gigabytes that the inputs take in memory, as float32; default: 1.5"
    parser.add_argument("--size", type=gigabytes, default=gigabytes("1.5"), metavar="GB", help=about)
    about = f"gigabytes of the mapped file, 0 for none; default: {LARGER} times the memory there is"
    parser.add_argument("--mapped", type=gigabytes, default=int(LARGER * memory_limit()), metavar="GB", help=about)
    about = "where the files are written for a while; default: the system's folder for such"
    parser.add_argument("--folder", metavar="DIR", help=about)
    wanted = parser.parse_args()
    if not Path("/proc/self/status").exists():
        print("This system has no /proc, from which the memory of a process is read", file=sys.stderr)
        return 1
    record, found = report.begin(), []
    try:
        with tempfile.TemporaryDirectory(dir=wanted.folder) as folder:
            for peak in measure(Path(folder), wanted.size, wanted.mapped):
                report.note("  ".join(line(peak)))
                found.append(peak)
    except subprocess.CalledProcessError as error:
        print(f"{error.stderr}{error}", file=sys.stderr)
        return 1
    show(record, found)
    if wanted.json:
        report.write(record | {"peaks": [asdict(peak) | {"holds": peak.holds} for peak in found]}, wanted.json)
    return 0


def gigabytes(text: str) -> int:
    """A size in bytes."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected gigabytes from 0 up; got {text}")
    return int(value * GIGABYTE)


if __name__ == "__main__":
    sys.exit(main())
