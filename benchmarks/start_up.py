"""How long whole processes take, from the shell's point of view: python -m benchmarks.start_up

Trains XOR for one epoch with `mlp train` and with a script that does the same with scikit-learn, in turns; and
measures how long the compiled kernels take to be ready after numba is imported. `--cold` compiles them as well, with
an empty cache, and starts eight `mlp train` at once with another one.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from benchmarks import report
from benchmarks.comparison import Comparison, compare, take_turns
from benchmarks.peers import sklearn_mlp
from benchmarks.processes import at_once
from benchmarks.worker import ROOT

ROUNDS = 11
READY, COLD = 0.35, 20.0
TOGETHER = 8

# What configs/xor.yaml says, for one epoch: read the rows, train, tell how good the net is, keep it.
SCRIPT = """
import pickle, sys
import numpy as np
from sklearn.neural_network import MLPClassifier

data, kept = sys.argv[1:]
rows = np.loadtxt(data, delimiter=",", skiprows=1)
x, y = rows[:, :-1], rows[:, -1].astype(int)
model = MLPClassifier((8,), activation="tanh", solver="adam", learning_rate_init=0.05, batch_size=len(x), max_iter=1)
model.fit(x, y)
print("accuracy", model.score(x, y), "loss", model.loss_)
with open(kept, "wb") as file:
    pickle.dump(model, file)
"""
# Seconds until every kernel of a type can be called, numba's own import aside.
PREPARE = """
import sys, time
began = time.perf_counter()
from mlp_cli.network import machine
machine.prepare(sys.argv[1])
print(time.perf_counter() - began)
"""


def python(*arguments, **variables) -> str:
    """What a Python process prints; CalledProcessError if it fails."""
    command = [sys.executable, *map(str, arguments)]
    environment = os.environ | variables
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout


def timed(*arguments) -> float:
    """Seconds from the start of a Python process to its end."""
    began = time.perf_counter()
    python(*arguments)
    return time.perf_counter() - began


def whole_processes(folder: Path, rounds: int) -> Iterator[Comparison]:
    """One epoch of XOR: mlp against scikit-learn."""
    if sklearn_mlp.available() is None:
        report.note("scikit-learn is absent: nothing to compare the whole process with")
        return
    numbers = count()
    train = ("-m", "mlp_cli", "train", ROOT / "configs/xor.yaml", "training.epochs=1", "--out")
    script = ("-W", "ignore", "-c", SCRIPT, ROOT / "data/xor.csv", folder / "model.pickle")
    times = take_turns(
        {"mlp": lambda: timed(*train, folder / f"run-{next(numbers)}"), "scikit-learn": lambda: timed(*script)}, rounds
    )
    ours, theirs = times["mlp"], times["scikit-learn"]
    yield compare("xor.yaml, one epoch", "whole process", "scikit-learn", 1, ours, theirs, least=1.0)


def ready(rounds: int) -> Iterator[Comparison]:
    """Warm kernels after numba's import, against what is allowed."""
    for dtype in ("float32", "float64"):
        times = take_turns({dtype: lambda dtype=dtype: float(python("-c", PREPARE, dtype))}, rounds)[dtype]
        yield compare("kernels ready", f"{dtype}, warm", "allowed", 1, times, [READY] * rounds, least=1.0)


def cold() -> Iterator[Comparison]:
    """All kernels compiled, against what is allowed."""
    for dtype in ("float32", "float64"):
        with tempfile.TemporaryDirectory() as folder:
            seconds = float(python("-c", PREPARE, dtype, MLP_CACHE_DIR=folder))
        yield compare("kernels ready", f"{dtype}, compiled", "allowed", 1, [seconds], [COLD], least=1.0)


def cold_together(folder: Path) -> Iterator[Comparison]:
    """Trainings that start at once with an empty cache: the last one's end, against the first one's.

    One of them compiles and all must succeed; nothing is demanded of their times, which they share cores for.
    """
    train = [sys.executable, "-m", "mlp_cli", "train", str(ROOT / "configs/xor.yaml"), "training.epochs=1", "--out"]
    commands = [[*train, str(folder / f"run-{number}")] for number in range(TOGETHER)]
    seconds = at_once(commands, MLP_CACHE_DIR=str(folder / "cache"))
    yield compare(f"{TOGETHER} trainings at once", "cold, the last", "the first", 1, [max(seconds)], [min(seconds)])


def main() -> int:
    """Measure and print."""
    parser = report.options("start_up", __doc__, ROUNDS)
    parser.add_argument("--cold", action="store_true", help="also compile everything, once for each type")
    wanted = parser.parse_args()
    record = report.begin(wanted.rounds)
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = [*whole_processes(Path(folder), wanted.rounds), *ready(wanted.rounds)]
        if wanted.cold:
            found += cold()
            with tempfile.TemporaryDirectory() as folder:
                found += cold_together(Path(folder))
    except subprocess.CalledProcessError as error:
        print(f"{error.stderr}{error}", file=sys.stderr)
        return 1
    report.end(record, found, wanted.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
