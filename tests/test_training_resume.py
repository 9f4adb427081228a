"""A run that is stopped, anywhere and however often, and resumed ends with the bits of an undisturbed one."""

import os
import signal
import subprocess
import sys
from shlex import quote

import numpy as np
import pytest
from cli import (
    blobs,
    checkpoints,
    classifier,
    epochs,
    finish,
    good,
    mlp,
    regressor,
    result,
    signal_after,
    signal_at,
    slopes,
    start,
    summary,
    wait_for,
    write_config,
)

from mlp_cli.runs import checkpoint
from mlp_cli.runs.directory import RunDirectory

pytestmark = pytest.mark.smoke


class Killed(BaseException):
    """Stands for kill -9: nothing of ours catches it."""


@pytest.fixture
def at_save(monkeypatch):
    """`at_save(step, do, before=False)` calls `do()` when the checkpoint of that step was, or is about to be, saved."""

    def arrange(step, do, before=False):
        save = RunDirectory.save

        def watched(self, at, tensors, meta):
            if at == step and before:
                do()
            path = save(self, at, tensors, meta)
            if at == step and not before:
                do()
            return path

        monkeypatch.setattr(RunDirectory, "save", watched)

    yield arrange
    monkeypatch.undo()


def interrupt():
    signal.raise_signal(signal.SIGINT)


def kill():
    raise Killed


NETWORKS = {
    "dropout and noise": {
        "network": {
            "input": {"dropout": 0.1, "noise": 0.2},
            "layers": [{"units": 6, "activation": "relu", "dropout": 0.4}, {"activation": "softmax"}],
        }
    },
    "batch_norm": {
        "network": {
            "layers": [{"units": 5}, {"kind": "batch_norm"}, {"units": 3}, {"activation": "softmax"}]
        }
    },
    "momentum": {"optimizer": {"name": "sgd", "momentum": 0.9, "nesterov": True}, "learning_rate": 0.05},
    "adamw, clipped": {"optimizer": {"name": "adamw", "clip_norm": 0.5}},
    "radam in float64": {"optimizer": "radam", "dtype": "float64"},
    "rprop on full batches": {"optimizer": "rprop", "training": {"epochs": 6, "batch_size": "full"}},
    "plateau": {
        "learning_rate": {"schedule": "plateau", "initial": 0.2, "factor": 0.5, "patience": 1, "metric": "accuracy"}
    },
    "one_cycle": {"learning_rate": {"schedule": "one_cycle", "peak": 0.1}},
    "inverse_time": {"optimizer": "sgd", "learning_rate": {"schedule": "inverse_time", "c1": 5, "c2": 20}},
    "with_replacement": {"training": {"epochs": 6, "batch_size": 8, "sampling": "with_replacement"}},
    "block shuffle": {"training": {"epochs": 6, "batch_size": 7, "sampling": {"name": "shuffle", "block_rows": 5}}},
    "the best epoch comes early": {"seed": 2, "learning_rate": 0.5},
    "early stopping": {
        "learning_rate": 0.3,
        "training": {"epochs": 40, "batch_size": 8, "early_stopping": {"metric": "accuracy", "patience": 3}},
    },
    "no validation split": {"restore": None},
}  # fmt: skip


def config_of(name, tmp_path):
    """A run of about six epochs of 5 steps, which saves a checkpoint every 3 steps."""
    sections = {"training": {"epochs": 6, "batch_size": 8}} | NETWORKS[name]
    split = {"validation": 0.2, "test": 0.2}
    if sections.pop("restore", split) is None:
        split = {"test": 0.2}
    sections["training"] = sections["training"] | {"checkpoint": {"every_steps": 3}}
    data = blobs(tmp_path / "trees.csv")
    return classifier(tmp_path / "c.yaml", data, data={"path": str(data), "split": split}, **sections)


@pytest.mark.parametrize("name", NETWORKS)
def test_interrupted_run_ends_with_the_same_bits(name, tmp_path, at_save, monkeypatch):
    config = config_of(name, tmp_path)
    good("train", config, "--out", tmp_path / "whole")
    whole = result(tmp_path / "whole")
    steps = summary(tmp_path / "whole")["steps"]
    out = tmp_path / "run"
    # steps within the second, fourth and other epochs, and the end of an epoch
    stops = [step for step in (3, 6, 9, 15, 18) if step < steps]
    for step in stops:
        at_save(step, interrupt)
        done = mlp("train", config, "--out", out, "--resume")
        monkeypatch.undo()
        assert done.code == 130, done.err
        assert done.err.splitlines()[-1].startswith(f"Interrupted: saved at step {step}, in epoch ")
        assert f"step-{step:010d}.safetensors" in checkpoints(out)
    done = good("train", config, "--out", out, "--resume")
    assert f"Resuming at step {stops[-1]} from " in done.err
    assert result(out) == whole


def test_the_tests_above_meet_an_early_best_epoch_and_an_early_stop(tmp_path):
    for name in ("the best epoch comes early", "early stopping"):
        config = config_of(name, tmp_path)
        good("train", config, "--out", tmp_path / name)
        found = summary(tmp_path / name)
        if name == "early stopping":
            assert 3 < found["epochs"] < 40
            assert found["reason"] == "no improvement of accuracy in 3 epochs"
        else:
            assert found["best_epoch"] < 4


@pytest.mark.parametrize("before", [False, True], ids=["after the save", "before the save"])
@pytest.mark.parametrize("name", ["dropout and noise", "plateau", "the best epoch comes early", "no validation split"])
def test_killed_run_ends_with_the_same_bits(name, before, tmp_path, at_save, monkeypatch):
    config = config_of(name, tmp_path)
    good("train", config, "--out", tmp_path / "whole")
    out = tmp_path / "run"
    for step in (0, 12, 15, 27):
        at_save(step, kill, before)
        with pytest.raises(Killed):
            mlp("train", config, "--out", out, "--resume")
        monkeypatch.undo()
    good("train", config, "--out", out, "--resume")
    assert result(out) == result(tmp_path / "whole")


def test_interruption_at_the_end_of_an_epoch(tmp_path):
    config = config_of("momentum", tmp_path)
    good("train", config, "--out", tmp_path / "whole")
    out = tmp_path / "run"
    done = mlp("train", config, "--out", out, when=signal_at("epoch 2 "))
    assert done.code == 130
    assert done.err.splitlines()[-1] == (
        "Interrupted: saved at step 10, in epoch 3; "
        f"go on with: mlp train {quote(f'{out}/config.yaml')} --out {quote(str(out))} --resume"
    )
    assert "epoch 2 " in done.err
    assert len(epochs(out)) == 2
    # what it says can be typed
    good("train", f"{out}/config.yaml", "--out", out, "--resume")
    assert result(out) == result(tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1], ids=lambda n: n.name)
def test_signals_of_schedulers(tmp_path, number):
    config = config_of("momentum", tmp_path)
    good("train", config, "--out", tmp_path / "whole")
    out = tmp_path / "run"
    done = mlp("train", config, "--out", out, when=signal_at("epoch 3 ", number))
    assert done.code == 75
    assert done.err.splitlines()[-1].startswith(f"Stopped by {number.name}: saved at step 15, in epoch 4; go on with: ")
    good("train", config, "--out", out, "--resume")
    assert result(out) == result(tmp_path / "whole")


def test_a_signal_before_the_training_leaves_nothing_half_done(tmp_path):
    config = config_of("momentum", tmp_path)
    done = mlp("train", config, "--out", tmp_path / "run", when=signal_at("Task: "))
    assert done.code == 130
    assert done.err.splitlines()[-1] == "Interrupted: nothing was trained yet"
    good("train", config, "--out", tmp_path / "run")


def test_a_signal_while_the_result_is_measured(tmp_path, monkeypatch):
    config = config_of("the best epoch comes early", tmp_path)
    good("train", config, "--out", tmp_path / "whole")
    out = tmp_path / "run"
    save_best = RunDirectory.save_best

    def watched(self, tensors, meta):
        save_best(self, tensors, meta)
        if meta["position"]["step"] == 30 and not signals:
            signals.append(interrupt())

    signals = []
    monkeypatch.setattr(RunDirectory, "save_best", watched)
    assert mlp("train", config, "--out", out).code == 130
    monkeypatch.undo()
    good("train", config, "--out", out, "--resume")
    assert result(out) == result(tmp_path / "whole")


def test_a_signal_after_the_training(tmp_path):
    config = config_of("momentum", tmp_path)
    good("train", config, "--out", tmp_path / "whole")
    out = tmp_path / "run"
    done = mlp("train", config, "--out", out, when=signal_at("Done: ", signal.SIGTERM))
    assert done.code == 0
    assert "Stopped" not in done.err
    assert done.err.splitlines()[-1].startswith("Next: ")
    assert result(out) == result(tmp_path / "whole")


def test_a_signal_before_the_result_is_summed_up(tmp_path, monkeypatch):
    config = config_of("momentum", tmp_path)
    good("train", config, "--out", tmp_path / "whole")
    out = tmp_path / "run"
    monkeypatch.setattr(RunDirectory, "write_summary", lambda *_: signal.raise_signal(signal.SIGTERM))
    done = mlp("train", config, "--out", out)
    monkeypatch.undo()
    assert done.code == 75
    assert done.err.splitlines()[-1] == (
        "Stopped by SIGTERM: the run is trained and saved; with --resume it is summed up again"
    )
    good("train", config, "--out", out, "--resume")
    assert result(out) == result(tmp_path / "whole")


@pytest.mark.parametrize("threads", [(1, 2), (4, 1)], ids=str)
def test_resumption_with_another_number_of_threads(tmp_path, threads, at_save, monkeypatch):
    config = config_of("batch_norm", tmp_path)
    good("train", config, "--out", tmp_path / "whole")
    at_save(12, interrupt)
    assert mlp("train", config, "--out", tmp_path / "run", "--threads", threads[0]).code == 130
    monkeypatch.undo()
    good("train", config, "--out", tmp_path / "run", "--resume", "--threads", threads[1])
    assert result(tmp_path / "run") == result(tmp_path / "whole")


def test_a_torn_line_and_a_line_too_many_in_the_diary_are_mended(tmp_path, at_save, monkeypatch):
    config = config_of("momentum", tmp_path)
    good("train", config, "--out", tmp_path / "whole")
    out = tmp_path / "run"
    at_save(9, kill)
    with pytest.raises(Killed):
        mlp("train", config, "--out", out)
    monkeypatch.undo()
    diary = out / "metrics.jsonl"
    diary.write_text(diary.read_text() + '{"epoch": 2, "step": 10, "lea')
    good("train", config, "--out", out, "--resume")
    assert result(out) == result(tmp_path / "whole")


def test_a_damaged_newest_checkpoint_costs_only_its_work(tmp_path, at_save, monkeypatch):
    config = config_of("the best epoch comes early", tmp_path)
    good("train", config, "--out", tmp_path / "whole")
    out = tmp_path / "run"
    at_save(18, kill)
    with pytest.raises(Killed):
        mlp("train", config, "--out", out)
    monkeypatch.undo()
    newest = out / "checkpoints" / "step-0000000018.safetensors"
    content = bytearray(newest.read_bytes())
    content[-3] ^= 1
    newest.write_bytes(content)
    done = good("train", config, "--out", out, "--resume")
    assert "Warning: " in done.err
    assert str(newest) in done.err
    assert "Resuming at step 15 from " in done.err
    assert result(out) == result(tmp_path / "whole")


def test_no_checkpoint_that_can_be_used(tmp_path):
    config = config_of("momentum", tmp_path)
    out = tmp_path / "run"
    good("train", config, "--out", out)
    for path in (out / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-7])
    done = mlp("train", config, "--out", out, "--resume")
    assert done.code == 6
    assert done.err.splitlines()[-1] == (
        f"{out}: none of its 3 checkpoints can be used, as the warnings say; --force begins again"
    )


def test_a_run_of_a_newer_mlp_is_left_as_it_is(tmp_path, monkeypatch):
    config = config_of("momentum", tmp_path)
    out = tmp_path / "run"
    monkeypatch.setattr(checkpoint, "FORMAT_VERSION", 99)
    good("train", config, "--out", out)
    monkeypatch.undo()
    before = checkpoints(out)
    done = mlp("train", config, "training.epochs=9", "--out", out, "--resume")
    assert done.code == 6
    assert done.err.count("written by a newer mlp (checkpoint format 99, this mlp reads up to 1); upgrade mlp") == 3
    assert checkpoints(out) == before


def test_a_longer_run_goes_on_where_the_shorter_one_ended(tmp_path):
    config = config_of("the best epoch comes early", tmp_path)
    good("train", config, "--out", tmp_path / "whole")
    good("train", config, "training.epochs=2", "--out", tmp_path / "run")
    good("train", config, "--out", tmp_path / "run", "--resume")
    assert result(tmp_path / "run") == result(tmp_path / "whole")


def test_a_larger_patience_goes_on_where_the_smaller_one_stopped(tmp_path):
    config = config_of("early stopping", tmp_path)
    out = tmp_path / "run"
    good("train", config, "training.early_stopping.patience=1", "--out", out)
    good("train", config, "--out", tmp_path / "whole")
    assert len(epochs(out)) < len(epochs(tmp_path / "whole"))
    good("train", config, "--out", out, "--resume")
    assert result(out) == result(tmp_path / "whole")


def test_a_schedule_over_the_whole_run_warns_when_the_run_gets_longer(tmp_path):
    config = config_of("one_cycle", tmp_path)
    good("train", config, "training.epochs=2", "--out", tmp_path / "run")
    done = good("train", config, "--out", tmp_path / "run", "--resume")
    assert "Warning: the length of the run has changed: from step 10 on, the one_cycle schedule follows" in done.err


def test_keep_counts_checkpoints_without_the_best(tmp_path):
    config = config_of("momentum", tmp_path)
    for keep in (1, 3):
        out = tmp_path / f"keep-{keep}"
        good("train", config, "--out", out, f"training.checkpoint.keep={keep}")
        assert [name for name in checkpoints(out) if name != "best.safetensors"] == [
            f"step-{step:010d}.safetensors" for step in (24, 27, 30)[-keep:]
        ]


def test_eval_of_an_interrupted_run(tmp_path):
    config = config_of("the best epoch comes early", tmp_path)
    out = tmp_path / "run"
    assert mlp("train", config, "--out", out, when=signal_at("epoch 5 ")).code == 130
    records = epochs(out)
    best = min(records, key=lambda record: record["validation"]["loss"])
    assert best["epoch"] < 5
    # a run directory means its best checkpoint
    assert good("eval", out, "--split", "validation", "--json").json["metrics"] == best["validation"]


def test_resumption_where_run_and_data_have_moved(tmp_path):
    config = config_of("momentum", tmp_path)
    good("train", config, "--out", tmp_path / "whole")
    assert mlp("train", config, "--out", tmp_path / "run", when=signal_at("epoch 3 ")).code == 130
    (tmp_path / "moved").mkdir()
    (tmp_path / "run").rename(tmp_path / "moved" / "run")
    (tmp_path / "trees.csv").rename(tmp_path / "moved" / "trees.csv")
    run = tmp_path / "moved" / "run"
    place = f"data.path={tmp_path}/moved/trees.csv"
    assert mlp("train", run / "config.yaml", "--out", run, "--resume").code == 3
    good("train", run / "config.yaml", place, "--out", run, "--resume")
    assert result(run)[2:] == result(tmp_path / "whole")[2:]
    assert good("eval", run, "--json").json["metrics"] == summary(tmp_path / "whole")["metrics"]["test"]


# In processes of their own, in the middle of an epoch


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """A config whose epochs take about a second, and its undisturbed run."""
    folder = tmp_path_factory.mktemp("long")
    chance = np.random.default_rng(5)
    x = chance.normal(size=(20_000, 16)).astype(np.float32)
    np.savez(folder / "data.npz", x=x, y=(x[:, 0] * x[:, 1] > 0).astype(np.int64) + (x[:, 2] > 1))
    config = write_config(
        folder / "long.yaml",
        data={"path": "data.npz", "split": {"validation": 0.1}},
        network={
            "layers": [
                {"units": 224, "activation": "relu", "dropout": 0.1},
                {"units": 224, "activation": "tanh"},
                {"activation": "softmax"},
            ]
        },
        learning_rate={"schedule": "cosine", "initial": 0.003},
        training={"epochs": 2, "batch_size": 1},
    )
    good("train", config, "--out", folder / "whole")
    return config, result(folder / "whole")


def test_interruption_in_the_middle_of_an_epoch(long, tmp_path):
    config, whole = long
    out = tmp_path / "run"
    with signal_after(out / "checkpoints" / "step-0000000000.safetensors", 0.15):
        assert mlp("train", config, "--out", out).code == 130
    (newest,) = [path for path in (out / "checkpoints").glob("step-*") if "0000000000" not in path.name]
    position = checkpoint.read(newest).meta["position"]
    assert position["epoch"] == 0
    assert 0 < position["epoch_step"] < 18_000
    with signal_after(out / "config.yaml", 0.25, signal.SIGTERM):
        assert mlp("train", config, "--out", out, "--resume").code in (75, 0)
    good("train", config, "--out", out, "--resume")
    assert result(out) == whole


def test_ctrl_c_and_kill_in_processes_of_their_own(long, tmp_path):
    config, whole = long
    out = tmp_path / "run"
    process = start("train", config, "training.checkpoint.every_steps=100", "--out", out)
    wait_for(out / "checkpoints" / "step-0000000200.safetensors")
    process.send_signal(signal.SIGKILL)
    assert finish(process).code == -signal.SIGKILL

    process = start("train", config, "--out", out, "--resume")
    assert next(line for line in process.stderr if line.startswith("Resuming"))
    next(line for line in process.stderr if "rows a step" in line)
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert done.code == 130
    assert done.out == ""
    assert "Traceback" not in done.err
    # keep: 2 holds after the kill as well, but for one that it came too early to delete; and what the interruption
    # saved is not older than what the kill left
    steps = sorted((out / "checkpoints").glob("step-*"))
    assert 2 <= len(steps) <= 3
    assert steps[-1].name >= "step-0000000200.safetensors"

    good("train", config, "--out", out, "--resume")
    assert result(out) == whole


def test_a_run_directory_in_use(long, tmp_path):
    config, _ = long
    out = tmp_path / "run"
    process = start("train", config, "--out", out)
    try:
        wait_for(out / "checkpoints" / "step-0000000000.safetensors")
        for flag in ("--resume", "--force"):
            done = mlp("train", config, "--out", out, flag)
            assert done.code == 7, done.err
            assert str(process.pid) in done.err
    finally:
        process.send_signal(signal.SIGINT)
    assert finish(process).code == 130
    # and what the other process said was right
    assert (out / "checkpoints" / "step-0000000000.safetensors").exists()


@pytest.mark.skipif(not hasattr(os, "setsid"), reason="POSIX only")
def test_an_ignored_hangup_stays_ignored(tmp_path):
    config = config_of("momentum", tmp_path)
    script = (
        f"trap '' HUP; '{sys.executable}' -m mlp_cli train '{config}' training.max_time=1s training.epochs=100000 "
        f"--out '{tmp_path}/run' --quiet & child=$!; "
        f"while [ ! -e '{tmp_path}/run/metrics.jsonl' ]; do sleep 0.02; done; kill -HUP $child; wait $child"
    )
    done = finish(subprocess.Popen(["bash", "-c", script], stdout=-1, stderr=-1, text=True))
    assert done.code == 0, done.err
    assert summary(tmp_path / "run")["reason"] == "training.max_time (1 s) is over"


def test_regression_resumes_too(tmp_path):
    data = slopes(tmp_path / "d.csv", targets=2)
    sections = {
        "data": {"path": str(data), "target": ["y0", "y1"], "target_scaling": "standard", "split": {"validation": 0.2}},
        "training": {"epochs": 5, "batch_size": 16, "early_stopping": {"metric": "rmse.y1", "patience": 9}},
    }
    config = regressor(tmp_path / "c.yaml", data, **sections)
    good("train", config, "--out", tmp_path / "whole")
    assert mlp("train", config, "--out", tmp_path / "run", when=signal_at("epoch 3 ")).code == 130
    good("train", config, "--out", tmp_path / "run", "--resume")
    assert result(tmp_path / "run") == result(tmp_path / "whole")
