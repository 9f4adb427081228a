"""What is told when a save fails, and what a run's directory shows while the run goes on."""

import errno
import signal
from shlex import quote

import numpy as np
import pytest
from cli import blobs, checkpoints, classifier, epochs, good, mlp, regressor, result, signal_at, slopes, summary
from faults import Dead, Killer, Refuser

from mlp_cli.errors import SystemFault
from mlp_cli.runs import checkpoint, files
from mlp_cli.runs.directory import RunDirectory
from mlp_cli.trainer import Trainer


@pytest.fixture
def trees(tmp_path):
    """A small classifier's config: 5 steps an epoch, 6 epochs, a checkpoint each."""
    return classifier(
        tmp_path / "trees.yaml",
        blobs(tmp_path / "trees.csv"),
        training={"epochs": 6, "batch_size": 8, "checkpoint": {"every_epochs": 1}},
    )


@pytest.fixture
def line(tmp_path):
    """A small regressor's config without validation rows: 6 steps an epoch, 3 epochs, a checkpoint each."""
    return regressor(
        tmp_path / "line.yaml",
        slopes(tmp_path / "line.csv"),
        training={"epochs": 3, "batch_size": 8, "checkpoint": {"every_epochs": 1}},
    )


@pytest.fixture
def door(monkeypatch):
    """`door(it)` puts a fault between the commands and the disk, `door(None)` takes it away."""
    original = files._call

    def put(it):
        monkeypatch.setattr(files, "_call", it or original)
        return it

    return put


def warnings(done):
    return [line.removeprefix("Warning: ") for line in done.err.splitlines() if line.startswith("Warning: ")]


# Saves that fail


def test_a_save_that_fails_is_told_and_tried_again(trees, tmp_path, door):
    trees = [trees, "training.checkpoint.keep=9"]
    good("train", *trees, "--out", tmp_path / "whole")
    out = tmp_path / "run"
    door(Refuser("step-0000000010", "step-0000000015"))
    done = good("train", *trees, "--out", out)
    path = out / "checkpoints" / "step-0000000010.safetensors"
    size = files.size_text(len(checkpoints(tmp_path / "whole")[path.name]))
    assert len(warnings(done)) == 2
    assert warnings(done)[0] == (
        f"{path}: cannot write it ({size} needed): no space left on device; free some space there. "
        "Training goes on, and the next checkpoint tries again"
    )
    assert result(out) == result(tmp_path / "whole")


def test_the_last_save_is_exit_5_and_says_how_to_go_on(trees, tmp_path, door):
    good("train", trees, "--out", tmp_path / "whole")
    out = tmp_path / "run"
    door(Refuser("step-0000000030", number=errno.EDQUOT))
    done = mlp("train", trees, "--out", out)
    assert done.code == 5
    assert done.err.splitlines()[-1].endswith(
        "needed): disk quota exceeded; free some of your quota, "
        f"then go on with: mlp train {quote(f'{out}/config.yaml')} --out {quote(str(out))} --resume"
    )
    assert RunDirectory(out).newest_valid().meta["position"]["step"] == 25
    assert not (out / "summary.json").exists()
    door(None)
    done = good("train", out / "config.yaml", "--out", out, "--resume")
    assert "Resuming at step 25 " in done.err
    assert result(out) == result(tmp_path / "whole")


def test_a_signal_whose_save_fails_is_exit_5(trees, tmp_path, door):
    good("train", trees, "--out", tmp_path / "whole")
    out = tmp_path / "run"
    door(Refuser("step-0000000010"))
    assert mlp("train", trees, "--out", out, when=signal_at("epoch 2 ")).code == 5
    door(None)
    assert "Resuming at step 5 " in good("train", trees, "--out", out, "--resume").err
    assert result(out) == result(tmp_path / "whole")


def test_a_signal_needs_no_more_than_a_checkpoint(trees, tmp_path, door):
    """The best epoch so far is for those who look at the run; resumption does not need it."""
    out = tmp_path / "run"
    door(Refuser("best"))
    done = mlp("train", trees, "--out", out, when=signal_at("epoch 2 "))
    assert done.code == 130
    assert any("best.safetensors: cannot write it" in text for text in warnings(done))


def test_no_memory_for_a_checkpoint_ends_no_run(trees, tmp_path, monkeypatch):
    good("train", trees, "--out", tmp_path / "whole")
    state = Trainer.state

    def short_of_memory(self):
        if self.progress.step == 10:
            raise MemoryError
        return state(self)

    monkeypatch.setattr(Trainer, "state", short_of_memory)
    done = good("train", trees, "--out", tmp_path / "run")
    assert warnings(done) == ["out of memory. Training goes on, and the next checkpoint tries again"]
    assert result(tmp_path / "run") == result(tmp_path / "whole")


def test_no_memory_for_the_state_that_a_rollback_would_return_to(line, tmp_path, monkeypatch):
    def no_memory(self):
        raise MemoryError

    monkeypatch.setattr(Trainer, "state", no_memory)
    rate = ("network.layers=[{}]", "optimizer=sgd", "learning_rate=1e38", "training.on_divergence=rollback")
    done = mlp("train", line, *rate, "--out", tmp_path / "run")
    assert done.code == 4
    assert done.err.splitlines()[-1].startswith("Diverged: ")


def test_a_checkpoint_that_cannot_be_deleted_is_told(trees, tmp_path, monkeypatch):
    remove = files.remove

    def refuse(path):
        if path.name == "step-0000000005.safetensors":
            raise SystemFault(f"{path}: cannot delete it: operation not permitted; check")
        remove(path)

    monkeypatch.setattr(files, "remove", refuse)
    done = good("train", trees, "--out", tmp_path / "run")
    assert len(warnings(done)) == 4
    assert "step-0000000005.safetensors" in checkpoints(tmp_path / "run")


# The diary


def test_lines_that_cannot_be_written_are_told_once_and_kept(trees, tmp_path, door):
    good("train", trees, "--out", tmp_path / "whole")
    out = tmp_path / "run"
    refuser = door(Refuser("metrics.jsonl"))

    def recover(text):
        if text.startswith("epoch 5 "):
            refuser.refuses = False

    done = good("train", trees, "training.checkpoint.every_epochs=100", "--out", out, when=recover)
    assert len(warnings(done)) == 1
    assert warnings(done)[0].startswith(f"{out}/metrics.jsonl: cannot add to it (")
    assert warnings(done)[0].endswith("Training goes on, and its lines are kept until they can be written")
    assert [record["epoch"] for record in epochs(out)] == [1, 2, 3, 4, 5, 6]
    assert result(out)[2] == result(tmp_path / "whole")[2]


def test_weights_are_saved_without_their_diary(trees, tmp_path, door):
    good("train", trees, "--out", tmp_path / "whole")
    out = tmp_path / "run"
    door(Refuser("metrics.jsonl", number=errno.EACCES))
    done = mlp("train", trees, "--out", out)
    assert done.code == 5
    assert done.err.splitlines()[-1].startswith(f"{out}/metrics.jsonl: cannot add to it (")
    door(None)
    done = good("train", trees, "--out", out, "--resume")
    assert warnings(done) == [f"{out}/metrics.jsonl: 6 lines are missing"]
    assert checkpoints(out) == checkpoints(tmp_path / "whole")


def test_a_run_that_never_saved_but_lines_begins_anew(trees, tmp_path, door):
    good("train", trees, "--out", tmp_path / "whole")
    out = tmp_path / "run"
    door(Refuser("step-", "best"))
    assert mlp("train", trees, "--out", out).code == 5
    assert len(epochs(out)) == 6
    door(None)
    good("train", trees, "--out", out, "--resume")
    assert result(out) == result(tmp_path / "whole")


# What a run that goes on shows


def killed_at_save(config, step, out, monkeypatch):
    """Resume a run and die right after the checkpoint of this step."""
    save = RunDirectory.save

    def deadly(self, at, tensors, meta):
        save(self, at, tensors, meta)
        if at == step:
            raise Dead

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "save", deadly)
        with pytest.raises(Dead):
            mlp("train", config, "--out", out, "--resume")


def loss_of(step, out):
    """The training loss with the parameters of a checkpoint."""
    return good("eval", RunDirectory(out).checkpoint_path(step), "--split", "train", "--json").json["metrics"]["loss"]


def test_a_finished_run_that_goes_on_shows_its_newest_state(line, tmp_path, monkeypatch):
    """Without validation rows the last state is the result: the one of the shorter run is no longer it."""
    out = tmp_path / "run"
    good("train", line, "training.epochs=1", "--out", out)
    killed_at_save(line, 12, out, monkeypatch)
    assert not (out / "summary.json").exists()
    shown = good("eval", out, "--split", "train", "--json").json["metrics"]["loss"]
    assert shown == loss_of(12, out) != loss_of(6, out)
    good("train", line, "--out", out, "--resume")
    good("train", line, "--out", tmp_path / "whole")
    assert result(out) == result(tmp_path / "whole")


def test_an_interrupted_run_that_goes_on_shows_its_newest_state(line, tmp_path, monkeypatch):
    out = tmp_path / "run"
    assert mlp("train", line, "--out", out, when=signal_at("epoch 1 ")).code == 130
    assert (out / "checkpoints" / "best.safetensors").exists()
    killed_at_save(line, 12, out, monkeypatch)
    assert good("eval", out, "--split", "train", "--json").json["metrics"]["loss"] == loss_of(12, out)


def test_the_best_epoch_stays_the_best_while_a_run_goes_on(trees, tmp_path, monkeypatch):
    out = tmp_path / "run"
    slow = ("learning_rate={schedule: multistep, initial: 0.05, milestones: [3], gamma: 1e6}",)
    good("train", trees, *slow, "training.epochs=3", "--out", out)
    before = checkpoints(out)["best.safetensors"]
    save = RunDirectory.save
    seen = []

    def look(self, at, tensors, meta):
        seen.append(checkpoints(out)["best.safetensors"])
        return save(self, at, tensors, meta)

    monkeypatch.setattr(RunDirectory, "save", look)
    good("train", trees, *slow, "--out", out, "--resume")
    tensors = [checkpoint.read(out / "checkpoints" / "best.safetensors").tensors]
    (tmp_path / "before").write_bytes(before)
    tensors.append(checkpoint.read(tmp_path / "before").tensors)
    assert summary(out)["best_epoch"] == 3
    np.testing.assert_array_equal(*(found["layers.0.weight"] for found in tensors))
    assert seen[0] == before


def test_a_finished_run_that_is_resumed_keeps_its_result_all_the_while(line, tmp_path):
    out = tmp_path / "run"
    good("train", line, "--out", out)
    before = result(out)

    class Watch(Killer):
        def perform(self, operation, *arguments):
            assert result(out) == before
            return super().perform(operation, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_call", Watch(10**6))
        good("train", line, "--out", out, "--resume")
    assert result(out) == before


def test_a_signal_while_the_result_of_a_run_cut_short_is_measured(trees, tmp_path, monkeypatch):
    """The checkpoint in the middle of the epoch must stay the state of that instant, not become the best epoch's."""
    short = (trees, "training.max_steps=13", "learning_rate=0.5")
    good("train", *short, "--out", tmp_path / "whole")
    out = tmp_path / "run"
    evaluate = Trainer.evaluate

    def interrupted(self, part):
        if self.is_over and not signals:
            signals.append(signal.raise_signal(signal.SIGINT))
        return evaluate(self, part)

    signals = []
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "evaluate", interrupted)
        done = mlp("train", *short, "--out", out)
    assert done.code == 130
    assert checkpoints(out) == checkpoints(tmp_path / "whole")
    good("train", *short, "--out", out, "--resume")
    assert result(out) == result(tmp_path / "whole")
    for run in (out, tmp_path / "whole"):
        good("train", trees, "learning_rate=0.5", "--out", run, "--resume")
    assert result(out) == result(tmp_path / "whole")


# What a run goes on from


def test_only_the_best_checkpoint_is_left(trees, tmp_path, monkeypatch):
    out = tmp_path / "run"
    good("train", trees, "learning_rate=0.5", "--out", out)
    assert summary(out)["best_epoch"] < 6
    for path in (out / "checkpoints").glob("step-*"):
        path.write_bytes(path.read_bytes()[:-1])
    done = good("train", trees, "learning_rate=0.5", "training.epochs=8", "--out", out, "--resume")
    assert "Resuming at step 30 from " in done.err
    assert warnings(done)[-1] == (
        "only the best checkpoint is left to go on from, at step 30: the result will not be that of an undisturbed run"
    )
    assert [record["epoch"] for record in epochs(out)] == [1, 2, 3, 4, 5, 6, 7, 8]
    # the damaged ones are superseded, and gone
    assert all(checkpoint.is_valid(path) for path in (out / "checkpoints").iterdir())


def test_the_best_checkpoint_of_a_run_without_validation_is_as_good_as_any(line, tmp_path):
    good("train", line, "training.epochs=5", "--out", tmp_path / "whole")
    out = tmp_path / "run"
    good("train", line, "--out", out)
    for path in (out / "checkpoints").glob("step-*"):
        path.unlink()
    done = good("train", line, "training.epochs=5", "--out", out, "--resume")
    assert warnings(done) == []
    assert result(out) == result(tmp_path / "whole")


def test_the_only_checkpoint_is_not_deleted_before_there_is_another(line, tmp_path, door):
    """Without validation rows a best checkpoint is outdated when the run goes on, but this one it goes on from."""
    out = tmp_path / "run"
    good("train", line, "--out", out)
    whole = result(out)
    for path in (out / "checkpoints").glob("step-*"):
        path.unlink()
    door(Refuser("step-"))
    assert mlp("train", line, "training.epochs=5", "--out", out, "--resume").code == 5
    assert list(checkpoints(out)) == ["best.safetensors"]
    door(None)
    good("train", line, "--out", out, "--resume")
    assert result(out) == whole


def test_checkpoints_beyond_keep_are_pruned_on_resumption(trees, tmp_path, monkeypatch):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "prune", lambda self, keep: None)
        good("train", trees, "--out", out)
    assert len(checkpoints(out)) == 8
    good("train", trees, "--out", out, "--resume")
    assert list(checkpoints(out)) == [
        "best.safetensors", "step-0000000025.safetensors", "step-0000000030.safetensors"
    ]  # fmt: skip


@pytest.mark.parametrize("lacks", ["training.totals", "optimizer.moment1.layers.0.bias", "layers.1.weight", "position"])
def test_a_checkpoint_of_ours_that_lacks_something(line, tmp_path, lacks):
    out = tmp_path / "run"
    good("train", line, "--out", out)
    for path in (out / "checkpoints").iterdir():
        found = checkpoint.read(path)
        found.tensors.pop(lacks, None)
        found.meta.pop(lacks, None)
        checkpoint.write(path, found.tensors, found.meta)
    done = mlp("train", line, "training.epochs=9", "--out", out, "--resume")
    assert done.code == 6, done.err
    sentence = done.err.splitlines()[-1]
    assert sentence.startswith(f"{out}/checkpoints/step-0000000018.safetensors: ")
    assert lacks in sentence


def test_a_checkpoint_of_ours_with_other_shapes(line, tmp_path):
    out = tmp_path / "run"
    good("train", line, "--out", out)
    for path in (out / "checkpoints").iterdir():
        found = checkpoint.read(path)
        checkpoint.write(path, {**found.tensors, "layers.0.weight": np.zeros((4, 3))}, found.meta)
    for command in (("train", line, "--out", out, "--resume"), ("eval", out), ("predict", out, tmp_path / "line.csv")):
        done = mlp(*command)
        assert done.code == 6
        assert "expected layers.0.weight of shape 4 x 2; got 4 x 3" in done.err.splitlines()[-1]


def test_a_change_of_many_values_is_shown_in_part(line, tmp_path):
    weights = [[0.5] * 2] * 4
    out = tmp_path / "run"
    good("train", line, f"network.layers.0.weights={weights}", "--out", out)
    weights = [[0.25] * 2] * 4
    done = mlp("train", line, f"network.layers.0.weights={weights}", "seed=9", "--out", out, "--resume")
    assert done.code == 2
    assert "network.layers.0.weights.0.0: 0.5 -> 0.25; " in done.err
    assert "; and 1 more); undo the change" in done.err
