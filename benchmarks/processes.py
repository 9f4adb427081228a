"""Whole `mlp train` processes: rows in files, a config beside them, the command that trains on them, and its time."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.worker import ROOT
from mlp_cli.benchmark import Net, random_rows


def save_rows(folder: Path, net: Net, rows: int, name: str = "rows") -> None:
    """So many random float32 rows for a net, as name-x.npy and name-y.npy."""
    part = random_rows(rows, net.sizes[0], net.sizes[-1], "float32")
    np.save(folder / f"{name}-x.npy", part.x)
    np.save(folder / f"{name}-y.npy", part.target)


def training(folder: Path, sizes: Sequence[int], batch: int, epochs: int, name: str = "rows", run: str = "run"):
    """The command that trains a net of these sizes on name-x.npy and name-y.npy in a folder, into its folder `run`."""
    config = {
        "data": {"train": {part: str(folder / f"{name}-{part}.npy") for part in "xy"}},
        "network": {"layers": [*({"units": n, "activation": "relu"} for n in sizes[1:-1]), {"activation": "softmax"}]},
        "training": {"epochs": epochs, "batch_size": batch},
    }
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    return [sys.executable, "-m", "mlp_cli", "train", str(path), "--out", str(folder / run), "--force"]


def at_once(commands: list[list[str]], **variables: str) -> list[float]:
    """Seconds until each of some processes ended, which are started together, with these environment variables.

    CalledProcessError if one fails.
    """
    began = time.perf_counter()

    def ended(process: subprocess.Popen) -> float:
        process.wait()
        return time.perf_counter() - began

    with contextlib.ExitStack() as stack:
        said = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in commands]
        running = [
            stack.enter_context(
                subprocess.Popen(command, cwd=ROOT, env=os.environ | variables, stdout=subprocess.DEVNULL, stderr=file)
            )
            for command, file in zip(commands, said, strict=True)
        ]
        # a thread sleeps for each: whoever looked at them in turns would take part of a core from them
        seconds = list(stack.enter_context(ThreadPoolExecutor(len(running))).map(ended, running))
        for process, file in zip(running, said, strict=True):
            if process.returncode:
                file.seek(0)
                raise subprocess.CalledProcessError(process.returncode, process.args, stderr=file.read())
    return seconds
