"""Where a result came from: versions, processor, threads and commit, for `summary.json` and never for a checkpoint."""

import functools
import importlib.metadata
import math
import os
import platform
import re
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import mlp_cli
from mlp_cli.control_groups import groups, text

_GIT_SECONDS = 5  # on a sleepy network file system git may take for ever


def provenance() -> dict:
    """Versions, processor, operating system, threads available, git commit of the current directory, and the date.

    What cannot be found out is None.
    """
    return {
        "versions": {
            "mlp": mlp_cli.__version__,
            "python": platform.python_version(),
            **{package: _version(package) for package in ("numpy", "numba", "llvmlite")},
        },
        "processor": processor_name(),
        "operating_system": platform.platform(),
        "threads_available": available_processors(),
        "git": git_state(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def available_processors(root: Path = Path("/")) -> int:
    """How many processors this process may use, one at least: the smallest of what CPU affinity, the quotas of its
    control groups and SLURM_CPUS_PER_TASK allow. `root` is where /proc and /sys are found."""
    limits = [_processors_by_affinity(), *_processors_by_quota(root)]
    asked = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if re.fullmatch(r"\d{1,6}", asked, re.ASCII):
        limits.append(int(asked))
    return max(1, min(limits))


def processor_name(root: Path = Path("/")) -> str | None:
    """The name of the processor in its maker's words, or else its architecture."""
    for line in text(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    if platform.system() == "Darwin":
        name = _output(["sysctl", "-n", "machdep.cpu.brand_string"])
        if name:
            return name.strip()
    return platform.machine() or None


def git_state() -> dict | None:
    """Commit of the current directory and whether tracked files differ from it; None outside a repository."""
    commit = _output(["git", "rev-parse", "--verify", "HEAD"])
    if commit is None:
        return None
    # fsmonitor off: a repository's own settings must not make us run a program of its choice.
    changes = _output(["git", "-c", "core.fsmonitor=false", "status", "--porcelain", "--untracked-files=no"])
    return {"commit": commit.strip(), "dirty": None if changes is None else bool(changes.strip())}


def _processors_by_affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processors_by_quota(root: Path) -> Iterator[int]:
    """Quotas in processors, rounded up, of every control group above this process: the smallest one counts."""
    for version, folder in groups("cpu", root):
        if version == 2:
            yield from _quota(text(folder / "cpu.max"))
        else:
            quota, period = (text(folder / f"cpu.cfs_{part}_us") for part in ("quota", "period"))
            yield from _quota(f"{quota} {period}")


def _quota(line: str) -> Iterator[int]:
    # "200000 100000" is two processors; "max 100000" and "-1 100000" are no limit.
    if match := re.fullmatch(r"\s*(\d+)\s+(\d+)\s*", line, re.ASCII):
        quota, period = int(match[1]), int(match[2])
        if quota > 0 and period > 0:
            yield math.ceil(quota / period)


@functools.cache
def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _output(command: list[str]) -> str | None:
    # GIT_OPTIONAL_LOCKS: to ask for the status must not write to the user's repository.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        result = subprocess.run(
            command, capture_output=True, timeout=_GIT_SECONDS, env=environment, stdin=subprocess.DEVNULL, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.decode("utf-8", "replace") if result.returncode == 0 else None
