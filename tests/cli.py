"""Runs `mlp` as its users do, in this process or in one of its own, and reads back what a run left behind."""

import contextlib
import io
import json
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# What differs between two equal runs, and must not be compared.
TIMES = ("seconds", "samples_per_second")


@dataclass
class Outcome:
    """What a command did: exit code, stdout and stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        """The one JSON document on stdout."""
        return json.loads(self.out)

    @property
    def events(self) -> list[dict]:
        """The JSON objects on stdout, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass
class Measured(Outcome):
    """What a process did, and the bytes of memory it had at most."""

    peak: int


class Screen(io.TextIOWrapper):
    """A stream that remembers, and calls `when(text)` before each write."""

    def __init__(self, when=None):
        super().__init__(io.BytesIO(), encoding="utf-8", newline="", write_through=True)
        self.when = when

    def write(self, text):
        if self.when:
            self.when(text)
        return super().write(text)

    def text(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode()


class Left(BaseException):
    """In place of the end of the process: raised where a signal would have ended it at once."""


def leave(code: int):
    raise Left(code)


def mlp(*arguments, stdin: bytes = b"", when=None) -> Outcome:
    """`mlp arguments...` in this process. `when(text)` hears what is about to be written to stderr."""
    from mlp_cli.cli.console import complain
    from mlp_cli.cli.main import main
    from mlp_cli.interrupts import Interrupts

    interrupts = Interrupts(leave, complain)
    out, err = Screen(), Screen(when)
    before, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(stdin))
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            if threading.current_thread() is threading.main_thread():
                interrupts.install()
            code = main([str(argument) for argument in arguments], interrupts)
    except Left as left:
        code = left.args[0]
    finally:
        interrupts.restore()
        sys.stdin = before
    return Outcome(code, out.text(), err.text())


def good(*arguments, **given) -> Outcome:
    """`mlp arguments...`, which is expected to succeed."""
    done = mlp(*arguments, **given)
    assert done.code == 0, done.err
    return done


def start(*arguments, environment=None, **given) -> subprocess.Popen:
    """`mlp arguments...` in a process of its own, its output in pipes."""
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | given
    command = [sys.executable, "-m", "mlp_cli", *map(str, arguments)]
    return subprocess.Popen(command, env={**os.environ, **(environment or {})}, **given)


def finish(process: subprocess.Popen, timeout: float = 60) -> Outcome:
    """Wait for a process of `start`; one that hangs is killed."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return Outcome(process.returncode, out or "", err or "")


def as_user(user: int, work: Callable[[], Outcome], seconds: float = 60) -> Outcome:
    """What `work` does in a copy of this process that belongs to another user; a hang ends it. For root only.

    Such a user may not be able to read Python's own files: what `work` needs must be loaded already.
    """
    reader, writer = os.pipe()
    with warnings.catch_warnings(action="ignore"):  # of threads, which the copy does not have
        child = os.fork()
    if child == 0:
        try:
            signal.alarm(int(seconds))
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            done = work()
            os.write(writer, json.dumps([done.code, done.out, done.err]).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return Outcome(*json.loads(answer)) if answer else Outcome(status, "", "no answer")


def open_to_all(folder: Path) -> None:
    """Let other users pass to a folder of the tests."""
    while folder.parent != folder:
        if not folder.stat().st_mode & stat.S_IXOTH:
            folder.chmod(folder.stat().st_mode | stat.S_IXOTH)
        folder = folder.parent


# Between the tests and the process to be measured stands a small one: a process begins as a copy of its parent, and
# the system counts the parent's memory as the child's.
LAUNCHER = """
import json, os, resource, subprocess, sys, tempfile
limit, command = json.loads(sys.argv[1])
restrict = lambda: limit and resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
    process = subprocess.Popen(command, stdout=out, stderr=err, preexec_fn=restrict)
    _, status, usage = os.wait4(process.pid, 0)
    code = process.returncode = os.waitstatus_to_exitcode(status)
    texts = [(file.seek(0), file.read().decode())[1] for file in (out, err)]
print(json.dumps([code, *texts, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)]))
"""


def measured(*arguments, limit: int | None = None, stdin=subprocess.DEVNULL, seconds: float = 300) -> Measured:
    """`mlp arguments...` in a process of its own, with so many bytes of addresses; one that hangs is killed."""
    command = [sys.executable, "-m", "mlp_cli", *map(str, arguments)]
    launcher = [sys.executable, "-S", "-c", LAUNCHER, json.dumps([limit, command])]
    process = subprocess.Popen(launcher, stdin=stdin, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        return Measured(*json.loads(process.communicate(timeout=seconds)[0]))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def wait_for(path: Path, seconds: float = 30) -> None:
    """Until a file is there."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.005)


@contextlib.contextmanager
def signal_after(path: Path, seconds: float, number=signal.SIGINT):
    """Send this process a signal, some time after a file has appeared, unless the block has ended by then."""
    over = threading.Event()

    def send():
        while not path.exists():
            if over.wait(0.005):
                return
        if not over.wait(seconds):
            os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def signal_at(text: str, number=signal.SIGINT):
    """A `when` for `mlp`: the signal arrives when a line that begins like this is about to be written."""

    def look(written):
        if written.startswith(text):
            signal.raise_signal(number)

    return look


# Runs


def epochs(run: Path) -> list[dict]:
    """The lines of metrics.jsonl."""
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def timeless(records: list[dict]) -> list[dict]:
    """Lines of metrics.jsonl without their times."""
    return [{key: value for key, value in record.items() if key not in TIMES} for record in records]


def summary(run: Path) -> dict:
    return json.loads((run / "summary.json").read_text())


def checkpoints(run: Path) -> dict[str, bytes]:
    """The checkpoint files by name, whole."""
    return {path.name: path.read_bytes() for path in sorted((run / "checkpoints").iterdir())}


def result(run: Path) -> tuple[bytes, bytes, list[dict], dict]:
    """What two equal runs have in common: both final checkpoints, the diary, the metrics."""
    found = summary(run)
    last, best = (run / found["checkpoint"][name] for name in ("last", "best"))
    return last.read_bytes(), best.read_bytes(), timeless(epochs(run)), found["metrics"]


def tensors(path: Path) -> dict:
    from safetensors.numpy import load_file

    return load_file(path)


# Configs and data


def write_config(path: Path, **sections) -> Path:
    """A config file: JSON is YAML."""
    path.write_text(json.dumps(sections, indent=1))
    return path


def write_csv(path: Path, header: list[str], rows) -> Path:
    lines = [",".join(header), *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def blobs(path: Path, rows: int = 60, classes=("ash", "beech", "cedar"), features: int = 3, seed: int = 1) -> Path:
    """A table of points around one centre a class; the class is the last column, `tree`."""
    chance = random.Random(seed)
    lines = []
    for i in range(rows):
        number = i % len(classes)
        point = [f"{chance.gauss(number * (1 + j) / 2, 0.8):.4f}" for j in range(features)]
        lines.append([*point, classes[number]])
    return write_csv(path, [*(f"x{j}" for j in range(features)), "tree"], lines)


def slopes(path: Path, rows: int = 60, targets: int = 1, seed: int = 1) -> Path:
    """A table of two inputs and noisy linear targets y or y0, y1, ..."""
    chance = random.Random(seed)
    names = ["y"] if targets == 1 else [f"y{j}" for j in range(targets)]
    lines = []
    for _ in range(rows):
        a, b = chance.uniform(-1, 1), chance.uniform(-1, 1)
        found = [100 + 10 * (j + 1) * a - 5 * b + chance.gauss(0, 0.5) for j in range(targets)]
        lines.append([f"{value:.4f}" for value in (a, b, *found)])
    return write_csv(path, ["a", "b", *names], lines)


def classifier(path: Path, table: Path, /, **sections) -> Path:
    """A small classifier of `blobs` with a validation and a test split; `sections` replace its own."""
    return write_config(
        path,
        **{
            "seed": 3,
            "data": {"path": str(table), "split": {"validation": 0.2, "test": 0.2}},
            "network": {"layers": [{"units": 4, "activation": "tanh"}, {"activation": "softmax"}]},
            "learning_rate": 0.02,
            "training": {"epochs": 3, "batch_size": 8},
        }
        | sections,
    )


def regressor(path: Path, table: Path, /, **sections) -> Path:
    """A small regressor of `slopes` with a test split; `sections` replace its own."""
    return write_config(
        path,
        **{
            "data": {"path": str(table), "target": "y", "split": {"test": 0.25}},
            "network": {"layers": [{"units": 4, "activation": "tanh"}, {}]},
            "learning_rate": 0.02,
            "training": {"epochs": 3, "batch_size": 8},
        }
        | sections,
    )
