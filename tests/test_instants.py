"""A signal at any instant of a command's life: the exit code says what happened, and nothing is lost or left behind.

A dozen instants; `pytest tests/test_instants.py --soak 500` meets each signal at so many.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli import blobs, classifier, finish, good, result

from mlp_cli.interrupts import SIGNALS

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc to look into")

SCRIPT = Path(sys.executable).with_name("mlp")
ENTRIES = {"module": [sys.executable, "-m", "mlp_cli"]} | ({"script": [str(SCRIPT)]} if SCRIPT.exists() else {})
INSTANTS = 8
# What `mlp train` says when a signal ends it, by what there is to save.
SENTENCES = (
    ".",
    ": nothing was trained yet",
    ": saved at step ",
    ": the run stays at step ",
    ": the run is trained and saved; with --resume it is summed up again",
)


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """A config whose run of about a second saves often, the run that nothing disturbed, and its table."""
    folder = tmp_path_factory.mktemp("größe und so")
    table = blobs(folder / "trees.csv")
    training = {"epochs": 40, "batch_size": 8, "checkpoint": {"every_steps": 7}}
    config = classifier(folder / "trees.yaml", table, training=training)
    good("train", config, "--out", folder / "whole")
    return config, folder / "whole", table


def hears(process, number) -> bool:
    """Whether a process has a handler for a signal; a handler that it has already had counts, should it be gone."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return True
    mask = next((line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")), None)
    return mask is None or bool(int(mask, 16) >> (number - 1) & 1)


def attacked(entry, arguments, number, seconds, environment=None, on_time=False):
    """The outcome of a command that gets a signal so long after it set its handlers; with `on_time`, after its start.

    Python itself handles SIGINT before that, so SIGTERM's handler tells.
    """
    process = subprocess.Popen(
        [*ENTRIES[entry], *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **(environment or {})},
        preexec_fn=lambda: [signal.signal(each, signal.SIG_DFL) for each in SIGNALS],
    )  # fmt: skip
    while not on_time and process.poll() is None and not hears(process, signal.SIGUSR1):
        time.sleep(0.0005)
    time.sleep(seconds)
    process.send_signal(number)
    return finish(process, timeout=120)


def code_of(number) -> int:
    return 130 if number == signal.SIGINT else 75


def assert_proper(done, number, said):
    """Exit code 0 where the result was said, else that of the signal, with one sentence."""
    name = "Interrupted" if number == signal.SIGINT else f"Stopped by {number.name}"
    told = [line for line in done.err.splitlines() if line.startswith(name)]
    if done.code == 0:
        assert said(done), done
        assert not told, done
    else:
        assert done.code == code_of(number), done
        assert len(told) == 1, done
        assert told[0].removeprefix(name).startswith(SENTENCES), done
        assert told[0] == done.err.splitlines()[-1], done
    assert "Traceback" not in done.err, done
    assert "rror" not in done.err, done


def instants(soak, longest, seed):
    """(signal, seconds) of each attack."""
    if soak:
        return [(number, longest * place / soak) for place in range(soak) for number in SIGNALS]
    chance = random.Random(seed)
    return [(chance.choice(SIGNALS), chance.uniform(0, longest)) for _ in range(INSTANTS)]


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("quiet", [False, True], ids=["", "quiet"])
def test_training(trees, tmp_path, soak, entry, quiet):
    config, whole, _ = trees
    out, resumed = tmp_path / "run", 0
    arguments = ["train", config, "--out", out, *(["--quiet"] if quiet else [])]
    for number, seconds in instants(soak, 1.2, f"{entry} {quiet}")[:: 1 if soak else 2]:
        shutil.rmtree(out, ignore_errors=True)
        done = attacked(entry, arguments, number, seconds)
        assert_proper(done, number, lambda done: "accuracy" in done.out and (out / "summary.json").exists())
        if done.code and resumed < max(2, soak // 10):
            resumed += 1
            good("train", config, "--out", out, "--resume")
            assert result(out) == result(whole)


@pytest.mark.parametrize("command", ["eval", "predict"])
def test_commands_that_save_nothing(trees, tmp_path, soak, command):
    _, run, table = trees
    output = tmp_path / "predictions.csv"
    whole = good("predict", run, table).out
    arguments = {"eval": ["eval", run, table], "predict": ["predict", run, table, "-o", output]}[command]
    said = {"eval": lambda done: "accuracy" in done.out, "predict": lambda done: output.read_text() == whole}[command]
    for number, seconds in instants(soak, 0.6, command)[:: 1 if soak else 2]:
        output.write_text("old")
        done = attacked("module", arguments, number, seconds)
        assert_proper(done, number, said)
        assert os.listdir(tmp_path) == [output.name]
        assert output.read_text() in ("old", whole)


def of_mark(mark) -> list[str]:
    """The command lines of the processes that have this in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


@pytest.mark.parametrize("number", [*SIGNALS, signal.SIGKILL], ids=lambda number: number.name)
def test_no_compiler_stays_behind(trees, tmp_path, number):
    """Nor does what it was about to write."""
    config, _, _ = trees
    mark = f"MLP_TEST_MARK={tmp_path.name}-{os.getpid()}"
    environment = dict([mark.split("=")], MLP_CACHE_DIR=str(tmp_path / "cache"))
    process = subprocess.Popen(
        [*ENTRIES["module"], "train", str(config), "--out", str(tmp_path / "run")], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | environment,
        preexec_fn=lambda: [signal.signal(each, signal.SIG_DFL) for each in SIGNALS],
    )  # fmt: skip
    next(line for line in process.stderr if line.startswith("Compiling"))
    end = time.monotonic() + 60
    while len(of_mark(mark)) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(number)
    done = finish(process)
    assert done.code == (-number if number == signal.SIGKILL else code_of(number)), done
    while (left := of_mark(mark)) and time.monotonic() < end:
        time.sleep(0.01)
    assert not left
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".lock"]
