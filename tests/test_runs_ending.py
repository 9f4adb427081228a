"""How a run ended is on record, and whoever uses a run that has no result is told so."""

import contextlib
import json
import os
import signal

import pytest
from cli import good, mlp
from faults import Refuser

from mlp_cli.errors import Diverged, Interrupted, Stopped, SystemFault
from mlp_cli.runs import ending, files
from mlp_cli.runs.directory import RunDirectory

CONFIG = """
data: {path: rows.csv, split: {validation: 0.2}}
network: {layers: [{units: 3, activation: relu}, {activation: softmax}]}
optimizer: sgd
training: {batch_size: 4, epochs: 3}
"""


@pytest.fixture
def config(tmp_path):
    (tmp_path / "rows.csv").write_text("a,b,y\n" + "".join(f"{i},{i % 5},{'uv'[i % 2]}\n" for i in range(40)))
    path = tmp_path / "c.yaml"
    path.write_text(CONFIG)
    return path


def state(run):
    return json.loads((run / "state.json").read_text())


def test_a_run_that_finished(config, tmp_path):
    run = tmp_path / "run"
    done = good("train", config, "--out", run, "--quiet")
    assert done.err == ""
    assert state(run) == {"state": "finished", "epoch": 3, "step": 24, "reason": "all 3 epochs are done"}
    for command in (("eval", run), ("predict", run, tmp_path / "rows.csv"), ("inspect", run)):
        assert good(*command, "--quiet").err == ""
    assert "the run finished after 3 epochs, 24 steps: all 3 epochs are done" in good("inspect", run).out
    assert good("inspect", run, "--json").json["ending"] == state(run)


def test_a_run_that_diverged_has_no_result(config, tmp_path):
    run = tmp_path / "run"
    assert mlp("train", config, "--out", run, "learning_rate=1e30", "--quiet").code == 4
    found = state(run)
    assert found["state"] == "diverged"
    assert "is not finite in epoch 1, step " in found["reason"]
    checkpoint = run / "checkpoints" / "step-0000000000.safetensors"
    for command in (("eval", run), ("predict", run, tmp_path / "rows.csv")):
        done = mlp(*command)
        assert (done.code, done.out) == (4, "")
        assert done.err.startswith(f"{run}: this run diverged ({found['reason']}) and has no result")
        assert str(checkpoint) in done.err
    done = good("eval", checkpoint, "--quiet")
    assert done.err == f"Warning: {checkpoint}: holds an untrained network, as it was initialised\n"
    assert f"the run diverged after 0 epochs, {found['step']} step" in good("inspect", run).out
    done = mlp("train", config, "--out", tmp_path / "other", f"network.initial={run}")
    assert done.code == 4
    assert "network.initial" in done.err
    assert not (tmp_path / "other").exists()


def test_a_run_that_goes_on_has_another_end(config, tmp_path):
    run = tmp_path / "run"
    mlp("train", config, "--out", run, "learning_rate=1e30", "--quiet")
    good("train", config, "--out", run, "--force", "--quiet")
    assert state(run)["state"] == "finished"
    good("train", config, "--out", run, "--resume", "training.epochs=4", "--quiet")
    assert state(run)["epoch"] == 4


@pytest.mark.skipif(signal.getsignal(signal.SIGINT) == signal.SIG_IGN, reason="SIGINT is ignored, as under nohup")
def test_a_run_that_was_interrupted(config, tmp_path):
    run = tmp_path / "run"

    def interrupt(text):
        if text.startswith("epoch 2"):
            os.kill(os.getpid(), signal.SIGINT)

    done = mlp("train", config, "--out", run, "training.epochs=500", when=interrupt)
    assert done.code == 130
    found = state(run)
    assert (found["state"], found["reason"]) == ("interrupted", "Interrupted")
    done = good("eval", run, "--quiet")
    where = f"at step {found['step']}, in epoch {found['epoch'] + 1}"
    assert done.err.startswith(
        f"Warning: {run}: this run was interrupted {where}; what is used is its checkpoint so far"
    )


def test_a_run_that_was_killed_has_no_record(config, tmp_path):
    run = tmp_path / "run"
    good("train", config, "--out", run, "--quiet")
    (run / "state.json").unlink()
    assert good("eval", run, "--quiet").err == ""  # its summary shows that it finished
    (run / "summary.json").unlink()
    done = good("eval", run, "--quiet")
    assert "this run has not ended; what is used is its checkpoint so far, best.safetensors, of step 24" in done.err
    assert "the run has not ended" in good("inspect", run).out
    for command in (("train", config, "--out", tmp_path / "other"), ("check", config)):
        done = good(*command, f"network.initial={run}", "--quiet")
        assert f"network.initial: {run}: this run has not ended; what is used is its checkpoint so far" in done.err


def test_a_checkpoint_that_is_named_itself_stands_for_no_run(config, tmp_path):
    run, link = tmp_path / "run", tmp_path / "link.safetensors"
    good("train", config, "--out", run, "--quiet")
    (run / "state.json").unlink()
    (run / "summary.json").unlink()
    link.symlink_to(run / "checkpoints" / "best.safetensors")
    for path in (link, link.resolve()):
        assert good("eval", path, "--quiet").err == ""


EDITED = (
    "", "[]", "[" * 9999, "9" * 9999, '{"state": 3}', '{"state": "x"}', '{"state": "failed", "step": "7"}',
    '{"state": "failed", "step": true}', '{"state": "diverged", "reason": {}}', '{"state": "diverged", "extra": 1}',
)  # fmt: skip


@pytest.mark.parametrize("text", EDITED)
def test_a_record_that_was_edited_counts_as_none(text, tmp_path):
    (tmp_path / "state.json").write_text(text)
    assert ending.read(tmp_path) is None


@pytest.mark.parametrize(
    ("error", "name", "reason"),
    [
        (Diverged("Diverged: x; try y", "x"), "diverged", "x"),
        (Interrupted("Interrupted: saved at step 3"), "interrupted", "Interrupted"),
        (Stopped("Stopped by SIGTERM: saved at step 3"), "interrupted", "Stopped by SIGTERM"),
        (KeyboardInterrupt(), "interrupted", "Interrupted"),
        (SystemFault("the disk is full"), "failed", "the disk is full"),
        (MemoryError(), "failed", "MemoryError"),
        (RuntimeError("x" * 1000), "failed", "x" * 297 + "..."),
    ],
)
def test_every_end_is_recorded(error, name, reason, tmp_path):
    with contextlib.suppress(type(error)), ending.recorded(RunDirectory(tmp_path), pytest.fail) as found:
        found.epoch, found.step = 2, 7
        raise error
    assert ending.read(tmp_path) == ending.Ending(name, 2, 7, reason)


def test_a_record_that_cannot_be_written_does_not_hide_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_call", Refuser("state.json"))
    warnings = []
    with contextlib.suppress(Diverged), ending.recorded(RunDirectory(tmp_path), warnings.append):
        raise Diverged("x")
    (warning,) = warnings
    assert "state.json" in warning
    assert warning.endswith("How the run ended is not on record")
    with pytest.raises(SystemFault, match=r"state\.json"), ending.recorded(RunDirectory(tmp_path), pytest.fail):
        pass
