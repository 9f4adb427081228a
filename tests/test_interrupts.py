"""Signals, wherever they arrive: what is saved, how the command ends, and that the main thread need not be free."""

import os
import pty
import queue
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from contextlib import suppress

import pytest
from cli import (
    blobs,
    checkpoints,
    classifier,
    epochs,
    finish,
    good,
    mlp,
    result,
    start,
    summary,
    write_csv,
)

from mlp_cli import metrics
from mlp_cli.errors import DataError
from mlp_cli.interrupts import AGAIN_SECONDS, SIGNALS, Interrupts, Signalled, unfinished
from mlp_cli.runs import files
from mlp_cli.runs.directory import RunDirectory

# The main thread goes into machine code for hours, without the lock of Python's, and no handler of Python's runs.
BUSY = "hashlib.pbkdf2_hmac('sha256', b'', b'', 2_000_000_000)"
SCRIPT = """
import hashlib, pathlib, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which tests in the background do not have
from mlp_cli.__main__ import run
{patch}
run(sys.argv[1:])
"""


@pytest.fixture
def trees(tmp_path):
    """A small classifier's config: 36 training rows, 5 steps an epoch."""
    return classifier(tmp_path / "trees.yaml", blobs(tmp_path / "trees.csv"))


def patched(patch, *arguments, stderr=subprocess.PIPE):
    """`mlp arguments...` in a process of its own, in which a line of Python was run before."""
    command = [sys.executable, "-c", SCRIPT.format(patch=patch), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)


# In machine code that takes long


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"])
def test_a_signal_while_data_are_read_in_machine_code(trees, tmp_path, number, code):
    patch = f"import mlp_cli.data.sources as s; s.read = lambda *a, **k: print('reading', flush=True) or {BUSY}"
    process = patched(patch, "train", trees, "--out", tmp_path / "run")
    assert process.stdout.readline() == "reading\n"
    process.send_signal(number)
    done = finish(process, timeout=120)
    assert done.code == code
    assert done.err in ("Stopped by SIGTERM: nothing was trained yet\n", "Interrupted: nothing was trained yet\n")
    assert not (tmp_path / "run").exists()


def test_a_second_ctrl_c_leaves_at_once_with_the_last_checkpoint_intact(trees, tmp_path):
    good("train", trees, "--out", tmp_path / "whole")
    out = tmp_path / "run"
    patch = (
        "from mlp_cli.runs.directory import RunDirectory as R; save = R.save; "
        f"R.save = lambda self, step, *rest: save(self, step, *rest) if step < 10 else "
        f"print('saving', flush=True) or {BUSY}"
    )
    process = patched(patch, "train", trees, "training.checkpoint.every_steps=5", "--out", out)
    assert process.stdout.readline() == "saving\n"
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)  # or the system makes one of two
    process.send_signal(signal.SIGINT)
    done = finish(process, timeout=120)
    assert done.code == 130
    assert "Traceback" not in done.err
    assert [name for name in checkpoints(out) if "0005" in name]
    good("train", trees, "--out", out, "--resume")
    assert result(out) == result(tmp_path / "whole")


# In the middle of measuring and saving


@pytest.mark.parametrize("nth", [1, 3, 4, 5, 6], ids=["epoch 1", "epoch 3", "train", "validation", "test"])
def test_a_signal_while_rows_are_measured(trees, tmp_path, monkeypatch, nth):
    good("train", trees, "--out", tmp_path / "whole")
    out, classification, calls = tmp_path / "run", metrics.classification, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == nth:
            signal.raise_signal(signal.SIGTERM)
            classification(*arguments)
            pytest.fail("the measuring went on")
        return classification(*arguments)

    monkeypatch.setattr(metrics, "classification", interrupted)
    done = mlp("train", trees, "--out", out)
    assert done.code == 75, done.err
    assert done.err.splitlines()[-1].startswith(f"Stopped by SIGTERM: saved at step {5 * min(nth, 3)}, in epoch ")
    monkeypatch.undo()
    good("train", trees, "--out", out, "--resume")
    assert result(out) == result(tmp_path / "whole")


def test_a_signal_while_the_result_of_a_shortened_epoch_is_measured(trees, tmp_path, monkeypatch):
    """The best epoch's parameters are in the network then, and must not be taken for those of the last step."""
    trees = [trees, "seed=2", "learning_rate=0.5"]
    good("train", *trees, "--out", tmp_path / "whole")
    assert summary(tmp_path / "whole")["best_epoch"] < 3
    out, classification, calls = tmp_path / "run", metrics.classification, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            signal.raise_signal(signal.SIGTERM)
        return classification(*arguments)

    monkeypatch.setattr(metrics, "classification", interrupted)
    assert mlp("train", *trees, "training.max_steps=13", "--out", out).code == 75
    monkeypatch.undo()
    good("train", *trees, "--out", out, "--resume")
    assert result(out) == result(tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_in_the_middle_of_a_save(trees, tmp_path, monkeypatch, number):
    good("train", trees, "--out", tmp_path / "whole")
    out, replace, signals = tmp_path / "run", files.os.replace, []

    def interrupted(source, target):
        if "0000000010" in str(target) and not signals:
            signals.append(signal.raise_signal(number))
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", interrupted)
    done = mlp("train", trees, "training.checkpoint.every_steps=5", "--out", out)
    monkeypatch.undo()
    assert done.code == {signal.SIGTERM: 75, signal.SIGINT: 130}[number]
    assert "saved at step 10, in epoch " in done.err.splitlines()[-1]
    good("train", trees, "--out", out, "--resume")
    assert result(out) == result(tmp_path / "whole")


def test_a_signal_to_a_resumed_run_that_has_not_begun(trees, tmp_path, monkeypatch):
    out = tmp_path / "run"
    good("train", trees, "training.epochs=1", "--out", out)
    before = checkpoints(out)
    save_config = RunDirectory.save_config

    def interrupted(self, text):
        save_config(self, text)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(RunDirectory, "save_config", interrupted)
    done = mlp("train", trees, "--out", out, "--resume")
    monkeypatch.undo()
    assert done.code == 75
    assert done.err.splitlines()[-1] == "Stopped by SIGTERM: the run stays at step 5; go on with --resume"
    assert checkpoints(out) == before


# The phases


@pytest.fixture
def no_trace():
    """Nothing of the signals' handling is left behind."""
    handlers = [signal.getsignal(number) for number in SIGNALS]
    threads, descriptors = set(threading.enumerate()), os.listdir("/dev/fd")
    yield
    for thread in set(threading.enumerate()) - threads:
        thread.join(60)
        assert not thread.is_alive()
    assert [signal.getsignal(number) for number in SIGNALS] == handlers
    assert os.listdir("/dev/fd") == descriptors
    assert signal.set_wakeup_fd(-1) == -1


class Process:
    """Signals of a process that tells and leaves, in that it says so."""

    def __init__(self):
        self.events = queue.Queue()
        self.interrupts = Interrupts(self.events.put, self.events.put, lambda: DataError("x.npy: has shrunk"))

    def next(self):
        return self.events.get(timeout=60)

    def ended(self):
        return [self.next(), self.next()]


@pytest.fixture
def process(no_trace, monkeypatch):
    """Its handlers are set, and none of the signals is ignored, as it would be under nohup."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS}
    found = Process()
    found.interrupts.install()
    yield found
    found.interrupts.restore()
    for number, handler in before.items():
        signal.signal(number, handler)


def sentence(number, rest):
    return f"Interrupted{rest}" if number == signal.SIGINT else f"Stopped by {number.name}{rest}"


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_before_there_is_anything_to_save(process, number):
    signal.raise_signal(number)
    assert process.ended() == [sentence(number, "."), 130 if number == signal.SIGINT else 75]


def test_the_sentence_says_what_there_is(process):
    process.interrupts.so_far = "nothing was trained yet"
    signal.raise_signal(signal.SIGHUP)
    assert process.ended() == ["Stopped by SIGHUP: nothing was trained yet", 75]


def test_while_a_machine_works(process):
    process.interrupts.working(lambda: process.events.put("stop"))
    process.interrupts.heed()
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGUSR1)
    assert process.ended() == ["stop", "stop"]
    assert process.interrupts.received == signal.SIGTERM  # the first one
    with pytest.raises(Signalled):
        process.interrupts.heed()
    assert str(process.interrupts.error("saved")) == "Stopped by SIGTERM: saved"
    assert process.events.empty()


def test_a_signal_that_the_work_did_not_heed_any_more(process):
    process.interrupts.working(lambda: None)
    signal.raise_signal(signal.SIGTERM)
    process.interrupts.idle("all is saved")
    assert process.ended() == ["Stopped by SIGTERM: all is saved", 75]


@pytest.mark.parametrize(("given", "code"), [({}, 130), ({"exit_code": 0}, 0)], ids=["an error", "a result"])
def test_when_all_is_said_nothing_changes_any_more(process, given, code):
    process.interrupts.over(**given)
    process.interrupts.over()  # the first one counts
    for number in SIGNALS:
        signal.raise_signal(number)
    assert process.interrupts.received is None
    assert process.events.empty()
    time.sleep(2 * AGAIN_SECONDS)
    signal.raise_signal(signal.SIGINT)
    assert process.next() == code


def test_a_second_ctrl_c(process):
    process.interrupts.working(lambda: None)
    signal.raise_signal(signal.SIGINT)
    assert process.events.empty()
    time.sleep(2 * AGAIN_SECONDS)
    signal.raise_signal(signal.SIGINT)
    assert process.next() == 130


def test_a_thread_does_the_same(process):
    process.interrupts.watch()
    process.interrupts.working(lambda: process.events.put("stop"))
    signal.raise_signal(signal.SIGTERM)
    assert process.ended() == ["stop", "stop"]  # of the handler and of the thread


def test_nothing_is_said_to_be_done_while_somebody_leaves():
    telling, told, done = threading.Event(), threading.Event(), []

    def tell(text):
        telling.set()
        assert told.wait(60)

    interrupts = Interrupts(done.append, tell)
    interrupts.received = signal.SIGTERM
    leaving = threading.Thread(target=interrupts.idle, args=("all is saved",))
    leaving.start()
    assert telling.wait(60)
    command = threading.Thread(target=lambda: [interrupts.over(0), done.append("Done")])
    command.start()
    command.join(0.05)
    assert not done
    told.set()
    leaving.join(60)
    command.join(60)
    assert done == [75, "Done"]


def test_what_was_not_finished_is_removed(process, tmp_path):
    temporary, other = tmp_path / "out.csv.tmp", tmp_path / "other.csv.tmp"
    for path in (temporary, other):
        path.write_text("half")
    with unfinished(other):
        pass
    with unfinished(temporary):
        signal.raise_signal(signal.SIGTERM)
        assert not temporary.exists()
    assert other.exists()


@pytest.mark.usefixtures("no_trace")
def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    process = Process()
    try:
        process.interrupts.install()
        process.interrupts.watch()
        signal.raise_signal(signal.SIGHUP)
    finally:
        process.interrupts.restore()
        signal.signal(signal.SIGHUP, before)
    assert process.interrupts.received is None
    assert process.events.empty()


@pytest.mark.skipif(not hasattr(signal, "SIGBUS"), reason="a system without this signal")
def test_a_bus_error_is_told_by_the_thread(process):
    before = signal.getsignal(signal.SIGBUS)
    process.interrupts.watch()
    signal.raise_signal(signal.SIGBUS)
    assert process.ended() == ["x.npy: has shrunk", 3]
    process.interrupts.restore()
    assert signal.getsignal(signal.SIGBUS) == before


def test_a_sentence_that_nobody_reads_does_not_keep_the_process(trees, tmp_path):
    """Its stderr is a pipe that is full."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    patch = f"import mlp_cli.data.sources as s; s.read = lambda *a, **k: print('reading', flush=True) or {BUSY}"
    running = patched(patch, "train", trees, "--out", tmp_path / "run", stderr=writer)
    assert running.stdout.readline() == "reading\n"
    running.send_signal(signal.SIGTERM)
    assert finish(running).code == 75
    os.close(reader)
    os.close(writer)


# Terminals that go away, and disks that are full


def read_until(descriptor, text, seconds=120):
    """What a terminal shows until a text appears."""
    seen, end = b"", time.monotonic() + seconds
    while text not in seen:
        assert time.monotonic() < end, seen
        if select.select([descriptor], [], [], 1)[0]:
            seen += os.read(descriptor, 65536)
    return seen


def test_a_terminal_that_goes_away_does_not_end_a_run_under_nohup(trees, tmp_path):
    out = tmp_path / "run"
    terminal, other_end = pty.openpty()
    termios.tcsetwinsize(other_end, (24, 120))
    process = start(
        "train", trees, "training.epochs=null", "training.max_time=3s", "--out", out,
        stdout=other_end, stderr=other_end, environment={"NO_COLOR": ""},
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN), start_new_session=True,
    )  # fmt: skip
    os.close(other_end)
    read_until(terminal, b"epoch 2")
    os.close(terminal)
    assert process.wait(timeout=120) == 0
    assert summary(out)["reason"] == "training.max_time (3 s) is over"
    assert len(epochs(out)) > 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_behind_stdout(trees, tmp_path):
    out = tmp_path / "run"
    with open("/dev/full", "w") as full:
        done = finish(start("train", trees, "--json", "--out", out, stdout=full))
        assert (done.code, len(epochs(out))) == (0, 3)
        assert "Traceback" not in done.err
        for arguments in (["eval", out], ["schema"], ["--help"]):
            done = finish(start(*arguments, stdout=full))
            assert done.code == 5
            assert done.err.splitlines() == [
                "System error: standard output cannot be written, [Errno 28] No space left on device. "
                "Check free space and permissions"
            ]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_behind_stderr(trees, tmp_path):
    with open("/dev/full", "w") as full:
        done = finish(start("train", trees, "--out", tmp_path / "run", stderr=full))
    assert done.code == 0
    assert len(epochs(tmp_path / "run")) == 3
    assert "accuracy" in done.out


# Escapes


def test_control_characters_reach_no_terminal(tmp_path):
    """Whatever names a file holds: escape sequences of one byte and of two, a bell, and the delete key."""
    evil = ["\x1b[31mred", "be\x07ll", "c\x9b2Jone", "de\x7fl"]
    header = [f"{name}{number}" for number, name in enumerate(evil)] + ["target\x1b]0;x"]
    rows = [[i % 3, i % 5, evil[i % 4], i, evil[i % 2]] for i in range(40)]
    table = write_csv(tmp_path / "evil.csv", header, rows)
    config = classifier(tmp_path / "c.yaml", table, data={"path": str(table), "split": {"test": 0.3}})
    run = tmp_path / "run"
    worse = write_csv(tmp_path / "worse.csv", header, [*rows, [1, 2, "new\x1b[0m", 3, "other\x9b"]])
    commands = [["train", config, "--out", run], ["train", config, "--json", "--out", tmp_path / "json"]]
    commands += [[name, run, *more] for name in ("eval", "inspect") for more in ([], ["--json"])]
    commands += [["check", config], ["inspect", config], ["eval", run, worse], ["predict", run, worse]]
    commands += [["predict", run, table, "--keep", "\x1b[2J"], ["eval", run, tmp_path / "no\x1b[31m.csv"]]
    commands += [["train", config, "data.target=\x1b[31m"], ["train", config, "seed=\x9b1"]]
    for arguments in commands:
        done = mlp(*arguments)
        assert "Internal error" not in done.err
        assert not [c for c in done.out + done.err if not c.isprintable() and c != "\n"], arguments
    # and JSON says the same names as before
    assert set(good("eval", run, "--json").json["confusion"]["classes"]) == set(evil[:2])


def test_a_doubled_ctrl_c_is_one(trees, tmp_path):
    """Programs that pass Ctrl-C on to their children send it a second time: it still saves."""
    process = start("train", trees, "training.epochs=100000", "--out", tmp_path / "run")
    next(line for line in process.stderr if line.startswith("epoch 2 "))
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert done.code == 130
    assert done.err.splitlines()[-1].startswith("Interrupted: saved at step ")
