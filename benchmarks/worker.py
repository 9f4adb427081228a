"""A process of its own for each contender, which stays alive and measures when it is asked to.

Thread pools of several libraries in one process get in each other's way; here each has a process, pinned to the same
cores as all others, and only the one that is asked computes. Requests and answers are lines of JSON over a pipe.
"""

import contextlib
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

ROOT = Path(__file__).parent.parent
# One measurement repeats epochs for so long: enough for a mean, short enough to take many turns.
SECONDS = 0.05
# Steps of a short epoch, for libraries where each passes through Python: a tenth of a second.
INTERPRETED_STEPS = 400
# What the libraries below the contenders look at.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Work:
    """A net to train, its batch and the rows of an epoch; how many of them depends on the contender."""

    sizes: tuple[int, ...]
    batch: int
    rows: int


def cores() -> list[int]:
    """The processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


# --- the parent's side ------------------------------------------------------------------------------------------


class WorkerError(Exception):
    """A worker could not do what it was asked to; the text says why."""


class Task:
    """Something that a worker can measure: each call is one measurement, in seconds a sample (or a flop)."""

    def __init__(self, worker: "Worker", number: int):
        self.worker, self.number = worker, number

    def __call__(self) -> float:
        self.begin()
        return self.end()

    def begin(self, seconds: float = SECONDS) -> None:
        """Start a measurement, for two workers to compute at the same time."""
        self.worker.send({"measure": self.number, "seconds": seconds})

    def end(self) -> float:
        """Its result."""
        return self.worker.receive()["seconds"]


class Worker:
    """The process of a contender's module, with so many threads, on these cores only."""

    def __init__(self, module: ModuleType, threads: int, on: list[int], environment: dict[str, str] | None = None):
        self.module = module
        variables = dict.fromkeys(THREAD_VARIABLES, str(threads)) | module.environment(threads) | (environment or {})
        places = ",".join(map(str, on))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", module.__name__, str(threads), places],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ | variables,
        )  # fmt: skip

    def net(self, work: Work, kind: str = "Peer", **options) -> Task:
        """Something of the module (`kind`) that trains or evaluates a net, warmed up by one epoch."""
        rows = min(work.rows, INTERPRETED_STEPS * work.batch) if self.module.INTERPRETED else work.rows
        work = Work(work.sizes, work.batch, rows)
        return self._make({"net": asdict(work), "kind": kind, "options": options})

    def limit(self, dtype: str = "float32") -> Task:
        """The limit of the processor, in the worker's number of threads."""
        return self._make({"limit": dtype})

    def drop(self) -> None:
        """Forget all tasks."""
        self.send({"drop": True})
        self.receive()

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def _make(self, request: dict) -> Task:
        self.send(request)
        return Task(self, self.receive()["task"])

    def send(self, request: dict) -> None:
        """Ask. WorkerError where nobody listens any more."""
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self._gone() from None

    def receive(self) -> dict:
        """The answer. WorkerError where there is none, or it says what went wrong."""
        line = self.process.stdout.readline()
        if not line:
            raise self._gone()
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(f"{self.module.NAME}: {answer['error']}")
        return answer

    def _gone(self) -> WorkerError:
        return WorkerError(f"{self.module.NAME}: its process ended with exit code {self.process.wait()}")


class Workers:
    """All workers of a command, each started when it is first needed."""

    def __init__(self):
        self.cores = cores()
        self._running: dict[tuple, Worker] = {}

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_) -> None:
        for worker in self._running.values():
            worker.close()

    def get(
        self, module: ModuleType, threads: int, environment: dict[str, str] | None = None, *, free: bool = False
    ) -> Worker:
        """The worker of a module: on the first `threads` cores, or `free` to run on any."""
        key = (module.__name__, threads, json.dumps(environment), free)
        if key not in self._running:
            on = self.cores if free else self.cores[:threads]
            self._running[key] = Worker(module, threads, on, environment)
        return self._running[key]

    def drop(self) -> None:
        """Let all workers forget their tasks."""
        for worker in self._running.values():
            worker.drop()


# --- the worker's side ------------------------------------------------------------------------------------------


def random_rows(work: Work) -> tuple[np.ndarray, np.ndarray]:
    """The rows that every contender gets: x float32 (rows, sizes[0]) between -1 and 1, classes int32 (rows,)."""
    random = np.random.default_rng(0)
    x = 2 * random.random((work.rows, work.sizes[0]), dtype=np.float32) - 1
    return x, random.integers(0, work.sizes[-1], work.rows).astype(np.int32)


def measure(epoch: Callable[[], float], units: int, seconds: float) -> float:
    """Seconds for each of the `units` of an epoch: the mean over as many epochs as begin within `seconds`."""
    end, found = time.perf_counter() + seconds, [epoch()]
    while time.perf_counter() < end:
        found.append(epoch())
    return statistics.fmean(found) / units


class Server:
    """Answers requests with the tasks of one module."""

    def __init__(self, module: ModuleType, threads: int):
        self.module, self.threads = module, threads
        self.tasks: list[tuple] = []  # (task, units of its epoch)

    def answer(self, request: dict) -> dict:
        """What was asked for, done."""
        if "measure" in request:
            task, units = self.tasks[request["measure"]]
            return {"seconds": measure(task.epoch, units, request["seconds"])}
        if "drop" in request:
            return self._drop()
        return self._limit(request["limit"]) if "limit" in request else self._net(**request)

    def _net(self, net: dict, kind: str, options: dict) -> dict:
        work = Work(**net)
        make = getattr(self.module, kind)
        task = make(work.sizes, work.batch, *random_rows(work), self.threads, **options)
        task.epoch()
        return self._keep(task, work.rows)

    def _limit(self, dtype: str) -> dict:
        task = self.module.Limit(dtype, self.threads)
        return self._keep(task, task.flops)

    def _keep(self, task, units: int) -> dict:
        self.tasks.append((task, units))
        return {"task": len(self.tasks) - 1}

    def _drop(self) -> dict:
        for task, _ in self.tasks:
            if hasattr(task, "close"):
                task.close()
        self.tasks.clear()
        return {}


def main() -> None:
    """Answer requests until there are no more: `python -m benchmarks.worker MODULE THREADS CORE,CORE,...`."""
    name, threads, places = sys.argv[1:]
    if hasattr(os, "sched_setaffinity"):
        # before anything counts the cores to make its threads
        os.sched_setaffinity(0, [int(place) for place in places.split(",")])
    # libraries may print: stdout is for answers alone
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    server = Server(importlib.import_module(name), int(threads))
    for line in sys.stdin:
        try:
            found = server.answer(json.loads(line))
        except Exception as error:  # whatever a library raises: the parent says it, with the library's name
            found = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main()
