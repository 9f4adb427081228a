"""One seed, one result: whole runs of `everything`, with any number of threads, on any processor, from any file,
interrupted or not, end with the same checkpoints, diary, metrics and predictions, byte by byte.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from cli import epochs, finish, good, mlp, start, summary, tensors
from everything import RUNS, SINGLE, left_by, train, write_runs
from processors import PROCESSORS, of_x86

from mlp_cli.interrupts import SIGNALS
from mlp_cli.runs.directory import RunDirectory
from mlp_cli.vocab import ACTIVATIONS, INITIALIZERS, LAYERS, LOSSES, OPTIMIZERS, SCHEDULES

SAMPLINGS = ("shuffle", "sequential", "with_replacement")
SCALERS = ("none", "standard", "minmax", "robust", "quantile", "divide")
# Enough for every kind of step where a fused multiply-add takes a hundred times as long as elsewhere.
SHORT = "training.max_steps=6"
FLEXIBLE = tuple(name for name in RUNS if RUNS[name]["data"].get("numeric") not in ("robust", "quantile"))
every_run = pytest.mark.parametrize("name", RUNS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_runs(tmp_path_factory.mktemp("everything"))


@pytest.fixture(scope="module")
def in_a_process(folder):
    """`in_a_process(world, names, *arguments, **environment)`: what runs leave behind that a process of their own
    trains in FOLDER/WORLD; once for each world."""
    known = {}

    def run(world, names=tuple(RUNS), *arguments, environment=None):
        if world not in known:
            program = [sys.executable, Path(__file__).with_name("everything.py"), folder, world, ",".join(names)]
            environment = os.environ | (environment or {})
            done = subprocess.run([*program, *arguments], env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            known[world] = json.loads(done.stdout)
        return known[world]

    return run


@pytest.fixture(scope="module")
def undisturbed(in_a_process):
    """What all runs leave behind: one thread, data in memory, this processor."""
    return in_a_process("undisturbed", tuple(RUNS), "--threads", "1")


def make_signals_harmless():
    return {number: signal.signal(number, lambda *_: None) for number in SIGNALS}


@pytest.fixture
def harmless_signals():
    """A signal that comes too late, when `mlp` has ended, does not end the tests; and `mlp` ignores none where the
    tests were started in the background."""
    before = make_signals_harmless()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def ending(parts):
    """What a run leaves behind but for checkpoints on the way: an interruption has left others."""
    *earlier, _ = sorted(part for part in parts if part.startswith("step-"))
    return {part: digest for part, digest in parts.items() if part not in earlier}


def assert_same(found, expected):
    """Every file of every run, named where it differs."""
    assert [
        (name, part)
        for name in found
        for part in found[name].keys() | expected[name].keys()
        if found[name].get(part) != expected[name].get(part)
    ] == []


def words(config):
    """All texts in a config."""
    if isinstance(config, dict):
        config = list(config.values())
    if isinstance(config, list):
        return set().union(*map(words, config))
    return {config} if isinstance(config, str) else set()


def test_the_runs_leave_out_no_word():
    assert {*ACTIVATIONS, *INITIALIZERS, *LAYERS, *LOSSES, *OPTIMIZERS, *SCHEDULES} <= words(list(RUNS.values()))
    assert words(list(RUNS.values())) >= {*SAMPLINGS, *SCALERS, "float64"} - {"shuffle", "standard"}


def test_the_runs_meet_an_early_stop_and_a_plateau(undisturbed, folder):
    assert summary(folder / "undisturbed" / "adam")["reason"] == "no improvement of accuracy in 2 epochs"
    rates = {line["learning_rate"] for line in epochs(folder / "undisturbed" / "lion")}
    assert len(rates) > 1


# --- threads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 8])
def test_any_number_of_threads_and_once_more(in_a_process, undisturbed, folder, threads):
    world = f"{threads} threads"
    assert_same(in_a_process(world, tuple(RUNS), "--threads", str(threads)), undisturbed)
    used = {name: summary(folder / world / name)["threads"] for name in RUNS}
    assert used == {name: 1 if name in SINGLE else threads for name in RUNS}


# --- processors -------------------------------------------------------------------------------------------------------

# float64 kernels take another ten seconds to compile for each processor
FLOAT32 = tuple(name for name in RUNS if name != "float64")


@of_x86
@pytest.mark.parametrize("processor", PROCESSORS)
def test_another_processor(in_a_process, processor):
    """Its code in the kernels, in NumPy, in Arrow and in the C library."""
    found = in_a_process(processor, FLOAT32, SHORT, "--threads", "2", environment=PROCESSORS[processor])
    assert_same(found, in_a_process("short", FLOAT32, SHORT, "--threads", "1"))


@of_x86
@pytest.mark.slow
@pytest.mark.parametrize("processor", PROCESSORS)
def test_another_processor_at_length(in_a_process, undisturbed, processor):
    found = in_a_process(f"{processor} at length", tuple(RUNS), environment=PROCESSORS[processor])
    assert_same(found, undisturbed)


@of_x86
def test_a_run_that_moves_between_processors(undisturbed, folder, harmless_signals):
    """Stopped by another signal and resumed on another processor with another number of threads each time."""
    out, steps = folder / "moved", [0]
    journey = [("AVX2", signal.SIGTERM), ("plain x86-64", signal.SIGHUP), (None, signal.SIGUSR1), ("AVX2", None)]
    for threads, (processor, number) in enumerate(journey, 1):
        arguments = (f"data.path={folder}/table.npy", "--out", out, "--resume", "--threads", threads)
        process = start("train", folder / "adam.yaml", *arguments, environment=PROCESSORS.get(processor))
        if number is not None:
            next(line for line in process.stderr if line.startswith(f"epoch {threads} "))
            process.send_signal(number)
            done = finish(process)
            assert done.code == 75, done.err
            steps.append(int(re.search(r"saved at step (\d+)", done.err)[1]))
    assert finish(process).code == 0
    assert steps == sorted(set(steps))
    assert ending(left_by(out, folder / "table.npy")) == ending(undisturbed["adam"])


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FLEXIBLE)
def test_data_that_stay_in_their_file(undisturbed, folder, tmp_path, name):
    train(folder, name, tmp_path / "run", "data.memory=map", "--threads", 3)
    assert left_by(tmp_path / "run", folder / "table.npy") == undisturbed[name]


@every_run
def test_the_same_numbers_as_text(undisturbed, folder, tmp_path, name):
    """Only the fingerprint of the data, and how they are read, tell the runs apart."""
    train(folder, name, tmp_path / "run", f"data.path={folder}/table.csv", "data.header=false", "--threads", 2)
    found = left_by(tmp_path / "run", folder / "table.csv")
    for part in ("metrics.jsonl", "metrics", "predictions"):
        assert found[part] == undisturbed[name][part], part
    checkpoints = tmp_path / "run" / "checkpoints"
    for path in checkpoints.iterdir():
        ours, theirs = tensors(path), tensors(folder / "undisturbed" / name / "checkpoints" / path.name)
        assert ours.keys() == theirs.keys()
        assert all(ours[tensor].tobytes() == theirs[tensor].tobytes() for tensor in ours)


# --- interruptions ----------------------------------------------------------------------------------------------------


class Alarm(threading.Thread):
    """Sends this process a signal, some time after training began: a `when` for `mlp`."""

    def __init__(self, seconds, number):
        super().__init__()
        self.seconds, self.number = seconds, number

    def __call__(self, text):
        if "rows a step" in text:
            self.start()

    def run(self):
        time.sleep(self.seconds)
        os.kill(os.getpid(), self.number)


# a signal that meets `mlp` while it starts a process (git, for its summary) leaves pipes behind
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@every_run
def test_stopped_at_random_instants(undisturbed, folder, tmp_path, harmless_signals, soak, name):
    chance, out = random.Random(name), tmp_path / "run"
    arguments = (folder / f"{name}.yaml", f"data.path={folder}/table.npy", "--out", out, "--resume")
    for number in [*SIGNALS, *chance.choices(SIGNALS, k=soak)]:
        how = (f"data.memory={chance.choice(['load', 'map'])}",) if name in FLEXIBLE else ()
        alarm = Alarm(chance.uniform(0, 0.02), number)
        done = mlp("train", *arguments, *how, "--threads", chance.choice((1, 2, 8)), when=alarm)
        # a signal that meets `mlp` at its very end may leave handlers behind, which a process would take with it
        make_signals_harmless()
        assert done.code in (0, 130 if number == signal.SIGINT else 75), done.err
        alarm.join()
    good("train", *arguments)
    assert ending(left_by(out, folder / "table.npy")) == ending(undisturbed[name])


@pytest.mark.parametrize("name", [name for name in RUNS if name not in SINGLE])
def test_stopped_after_every_step(folder, tmp_path, monkeypatch, harmless_signals, name):
    arguments = ("training.checkpoint.every_steps=1", "training.epochs=3")
    train(folder, name, tmp_path / "whole", *arguments)
    out, stopped = tmp_path / "run", []
    save = RunDirectory.save

    def stop_when_saved(self, step, tensors, meta):
        path = save(self, step, tensors, meta)
        if step not in stopped:
            stopped.append(step)
            signal.raise_signal(signal.SIGINT)
        return path

    with monkeypatch.context() as patched:
        patched.setattr(RunDirectory, "save", stop_when_saved)
        config = (folder / f"{name}.yaml", f"data.path={folder}/table.npy", *arguments)
        while mlp("train", *config, "--out", out, "--resume").code == 130:
            pass
    assert stopped == list(range(summary(out)["steps"] + 1))
    assert left_by(out, folder / "table.npy") == left_by(tmp_path / "whole", folder / "table.npy")
