"""What every test may use: `train`, which runs the command in this process, and the switches --run-slow and --soak.

What every test must do: leave no thread and no process behind.
"""

import ctypes
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from mlp_cli.runs.provenance import available_processors

# `--hypothesis-profile=soak` looks for new failures, and takes its time
settings.register_profile("soak", max_examples=20_000, deadline=None)

# benchmarks/ is not installed: it is found behind everything that is
sys.path.append(str(Path(__file__).parent.parent))


# How long threads and processes that a test has sent home may take to end, and how long until those are sought that
# only the garbage collector finds.
SECONDS_TO_END, SECONDS_TO_COLLECT = 10, 1


@dataclass
class Run:
    """A finished training run, read back from the files that it left."""

    exit_code: int
    directory: Path

    @property
    def epochs(self) -> list[dict]:
        """The lines of metrics.jsonl, one an epoch; none when nothing was trained."""
        path = self.directory / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def summary(self) -> dict:
        """The contents of summary.json."""
        return json.loads((self.directory / "summary.json").read_text())

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Final metrics by split: `run.metrics["test"]["accuracy"]`."""
        return self.summary["metrics"]

    @property
    def tensors(self) -> dict[str, np.ndarray]:
        """Every array of the best checkpoint: `run.tensors["layers.0.weight"]`."""
        from safetensors.numpy import load_file

        return load_file(self.directory / self.summary["checkpoint"]["best"])

    def losses(self) -> list[float]:
        """The training loss of each epoch."""
        return [epoch["train"]["loss"] for epoch in self.epochs]


@pytest.fixture
def train(tmp_path):
    """`train(config, "key=value", ...)`: `mlp train` with these arguments, in a run directory of its own."""
    runs = 0

    def run(config, *overrides: str) -> Run:
        from mlp_cli.cli.main import main

        nonlocal runs
        runs += 1
        directory = tmp_path / f"run-{runs}"
        code = main(["train", str(config), *overrides, "--out", str(directory), "--quiet"])
        return Run(code, directory)

    return run


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """Fails a test whose threads or processes outlive it: they would disturb the tests after it."""
    before = _alive()
    yield
    # the threads of a network end when nobody holds it any more
    if left := _left(before, SECONDS_TO_COLLECT):
        gc.collect()
        left = _left(before, SECONDS_TO_END)
    if left:
        pytest.fail(f"left behind: {', '.join(map(str, left))}", pytrace=False)


def _left(before: set, seconds: float) -> set:
    """What is still alive beyond what was there before, after so long at most."""
    end = time.monotonic() + seconds
    while (left := _alive() - before) and time.monotonic() < end:
        time.sleep(0.001)
    return left


def _alive() -> set:
    """The threads of this process, and its children as (number, command)."""
    threads = {thread for thread in threading.enumerate() if not isinstance(thread, threading._DummyThread)}
    return threads | set(_children())


def _children():
    """Processes that this one, or one of its children that has ended since, has started; Linux alone tells."""
    for task in Path("/proc/self/task").glob("*/children"):
        try:
            numbers = task.read_text().split()
        except OSError:  # a thread that has just ended
            continue
        for number in numbers:
            try:
                state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
                command = Path(f"/proc/{number}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if state != "Z":
                yield int(number), command


def pytest_configure(config):
    """A process that runs tests sees what becomes of theirs, and receives signals even as a job in the background."""
    if sys.platform == "linux":
        # processes whose parent has ended become children of this one
        set_child_subreaper = 36
        ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0)
    if not hasattr(config, "workerinput"):
        _keep_bytecode(config)
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        # what is ignored here would be ignored by each `mlp` that the tests start; a hang-up still ends no tests
        handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: lambda *_: None}
        for number, handler in handlers.items():
            if signal.getsignal(number) == signal.SIG_IGN:
                signal.signal(number, handler)


def pytest_xdist_auto_num_workers(config) -> int:
    """For `-n auto`: one more than there are processors, for many tests wait for processes."""
    return available_processors() + 1


def _keep_bytecode(config):
    """The hundreds of processes that tests start compile each module once, outside of this folder."""
    folder = tempfile.TemporaryDirectory()
    config.add_cleanup(folder.cleanup)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = folder.name


@pytest.fixture(scope="session", autouse=True)
def compiled_kernels(request):
    """The kernels of both types, each worker beginning with another: otherwise one would wait for the other."""
    worker = getattr(request.config, "workerinput", {}).get("workerid", "gw0")
    dtypes = ("float32", "float64") if int(worker.removeprefix("gw")) % 2 == 0 else ("float64", "float32")
    for dtype in dtypes:
        subprocess.run([sys.executable, "-m", "mlp_cli", "warmup", "--dtype", dtype], check=True, capture_output=True)


@pytest.fixture(scope="session")
def soak(request) -> int:
    """How many processes --soak asks to kill; 0 without it."""
    return request.config.getoption("--soak")


def pytest_addoption(parser):
    """--run-slow: also the tests that need minutes. --soak N: for hours."""
    parser.addoption("--run-slow", action="store_true", help="also run the tests marked slow")
    parser.addoption(
        "--soak", type=int, default=0, metavar="N", help="kill N processes, and inject faults in all combinations"
    )


def pytest_collection_modifyitems(config, items):
    """Leave out the slow tests unless they are asked for."""
    if not config.getoption("--run-slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs minutes: --run-slow"))
