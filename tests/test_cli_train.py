"""`mlp train`: where a run lies, what it writes, what it says on stdout and stderr."""

import json
import os
import pty
import re
import select
import subprocess
import sys
from shlex import quote

import pytest
from cli import (
    TIMES,
    blobs,
    checkpoints,
    classifier,
    epochs,
    finish,
    good,
    mlp,
    regressor,
    result,
    signal_at,
    slopes,
    start,
    summary,
    timeless,
    write_config,
)

from mlp_cli import config as configs

pytestmark = pytest.mark.smoke


@pytest.fixture
def trees(tmp_path, monkeypatch):
    """A small classifier's config in an empty working directory."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return classifier(tmp_path / "trees.yaml", blobs(tmp_path / "trees.csv"))


def folders(path):
    return sorted(entry.name for entry in path.iterdir())


# Where a run lies


def test_runs_are_numbered(trees, tmp_path):
    for _ in range(3):
        good("train", trees, "training.epochs=1")
    assert folders(tmp_path / "work" / "runs") == ["trees-001", "trees-002", "trees-003"]
    assert folders(tmp_path / "work" / "runs" / "trees-002" / "checkpoints") == [
        "best.safetensors",
        "step-0000000000.safetensors",
        "step-0000000005.safetensors",
    ]


def test_a_run_is_named_after_the_last_config(trees, tmp_path):
    write_config(tmp_path / "quick.yaml", training={"epochs": 1})
    good("train", trees, tmp_path / "quick.yaml", "seed=9")
    assert folders(tmp_path / "work" / "runs") == ["quick-001"]
    resolved = configs.load([tmp_path / "work" / "runs" / "quick-001" / "config.yaml"])
    # mappings merge by key, overrides last
    assert (resolved.training.epochs, resolved.training.batch_size, resolved.seed) == (1, 8, 9)


def test_a_number_is_never_used_again(trees, tmp_path):
    (tmp_path / "work" / "runs" / "trees-007").mkdir(parents=True)
    good("train", trees, "training.epochs=1")
    assert folders(tmp_path / "work" / "runs") == ["trees-007", "trees-008"]


def test_out_makes_its_folders(trees, tmp_path):
    good("train", trees, "training.epochs=1", "--out", tmp_path / "a" / "b")
    assert {"config.yaml", "metrics.jsonl", "checkpoints", "summary.json"} <= set(folders(tmp_path / "a" / "b"))
    assert folders(tmp_path / "work") == []


def test_an_equals_sign_in_a_path_is_no_override(trees, tmp_path):
    folder = tmp_path / "work" / "lr=0.1"
    folder.mkdir()
    config = classifier(folder / "c.yaml", tmp_path / "trees.csv")
    good("train", f"./lr=0.1/{config.name}", "training.epochs=1")
    assert folders(tmp_path / "work" / "runs") == ["c-001"]


def test_a_directory_with_a_run_is_refused(trees, tmp_path):
    out = tmp_path / "run"
    good("train", trees, "--out", out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name != "lock"}
    done = mlp("train", trees, "--out", out)
    assert done.code == 2
    assert done.err == (
        f"{out}: holds a run already; go on with it by --resume, replace it by --force, "
        "or choose another directory with --out\n"
    )
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name != "lock"}


def test_force_replaces_the_run(trees, tmp_path):
    out = tmp_path / "run"
    good("train", trees, "--out", out)
    done = good("train", trees, "training.epochs=1", "--out", out, "--force")
    assert f"The run that is there stays until this one, which is trained in {out}/replacement, is finished" in done.err
    assert f"Checkpoint: {out}/checkpoints/best.safetensors" in done.err
    good("train", trees, "training.epochs=1", "--out", tmp_path / "other")
    assert result(out) == result(tmp_path / "other")
    assert checkpoints(out) == checkpoints(tmp_path / "other")
    assert folders(out) == folders(tmp_path / "other")
    assert len(epochs(out)) == 1
    assert folders(out / "checkpoints") == [
        "best.safetensors",
        "step-0000000000.safetensors",
        "step-0000000005.safetensors",
    ]


def test_the_old_run_stays_until_the_new_one_is_finished(trees, tmp_path):
    """A run with --force that is interrupted, or diverges, costs nothing; --resume goes on with it."""
    out = tmp_path / "a run"
    good("train", trees, "--out", out)
    before = result(out)
    shorter = ("train", trees, "training.epochs=2")
    done = mlp(*shorter, "--out", out, "--force", when=signal_at("epoch 1"))
    assert done.code == 130
    assert done.err.splitlines()[-1].endswith(
        f"go on with: mlp train '{out}/replacement/config.yaml' --out '{out}' --resume"
    )
    assert result(out) == before
    good("eval", out)
    done = good(*shorter, "--out", out, "--resume")
    assert "Resuming at step" in done.err
    good(*shorter, "--out", tmp_path / "other")
    assert result(out) == result(tmp_path / "other")
    before = result(out)
    diverging = ("learning_rate=1e30", "optimizer=sgd", "network.layers.0.activation=linear")
    done = mlp("train", trees, *diverging, "--out", out, "--force")
    assert done.code == 4, done.err
    assert result(out) == before


@pytest.mark.parametrize("flags", [[], ["--force"], ["--resume"]], ids=str)
def test_a_directory_of_somebody_else_is_refused(trees, tmp_path, flags):
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter1.tex").write_text("It was a dark and stormy night")
    done = mlp("train", trees, "--out", out, *flags)
    assert done.code == 2
    assert done.err == (f"{out}: is not empty and holds no run of mlp; choose a new or an empty directory with --out\n")
    assert folders(out) == ["chapter1.tex"]


def test_resume_and_force_contradict_each_other(trees, tmp_path):
    done = mlp("train", trees, "--out", tmp_path / "run", "--resume", "--force")
    assert done.code == 2
    assert "give only one of them" in done.err
    assert not (tmp_path / "run").exists()


def test_resume_starts_a_run_where_there_is_none(trees, tmp_path):
    good("train", trees, "--out", tmp_path / "a")
    good("train", trees, "--out", tmp_path / "b", "--resume")
    assert result(tmp_path / "a") == result(tmp_path / "b")


def test_resume_without_out_takes_the_newest_run_of_that_name(trees, tmp_path):
    good("train", trees, "training.epochs=1")
    good("train", trees, "training.epochs=2")
    good("train", trees, "training.epochs=4", "--resume")
    runs = tmp_path / "work" / "runs"
    assert folders(runs) == ["trees-001", "trees-002"]
    assert [len(epochs(runs / name)) for name in folders(runs)] == [1, 4]
    # and what was added is what a run of that length from the start does
    good("train", trees, "training.epochs=4", "--out", tmp_path / "whole")
    assert result(runs / "trees-002") == result(tmp_path / "whole")


def test_resume_of_a_finished_run_changes_nothing(trees, tmp_path):
    out = tmp_path / "run"
    good("train", trees, "--out", out)
    before = checkpoints(out), epochs(out), summary(out)["metrics"]
    good("train", trees, "--out", out, "--resume")
    assert (checkpoints(out), epochs(out), summary(out)["metrics"]) == before


def test_resume_refuses_another_config_and_says_what_differs(trees, tmp_path):
    out = tmp_path / "run"
    good("train", trees, "--out", out)
    before = checkpoints(out), epochs(out), (out / "config.yaml").read_bytes()
    done = mlp("train", trees, "seed=4", "network.layers.0.units=5", "--out", out, "--resume", "--quiet")
    assert done.code == 2
    assert done.err == (
        f"{out}/checkpoints/step-0000000015.safetensors: the run was begun with another config "
        "(network.layers.0.units: 4 -> 5; seed: 3 -> 4); undo the change, or start afresh in another directory or "
        "with --force\n"
    )
    assert (checkpoints(out), epochs(out), (out / "config.yaml").read_bytes()) == before


def test_resume_refuses_other_data(trees, tmp_path):
    out = tmp_path / "run"
    good("train", trees, "--out", out)
    blobs(tmp_path / "trees.csv", seed=2)
    done = mlp("train", trees, "--out", out, "--resume", "--quiet")
    assert done.code == 2
    assert "the data are not those that the run was begun with" in done.err


# What a run leaves behind


def test_metrics_jsonl_is_as_the_contract_says(trees, tmp_path):
    good("train", trees, "--out", tmp_path / "run")
    records = epochs(tmp_path / "run")
    assert [record["epoch"] for record in records] == [1, 2, 3]
    assert [record["step"] for record in records] == [5, 10, 15]
    for record in records:
        assert list(record) == ["epoch", "step", "learning_rate", "train", "validation", *TIMES]
        assert record["learning_rate"] == 0.02
        assert {"loss", "accuracy", "balanced_accuracy", "f1_macro", "mcc"} <= record["train"].keys()
        assert list(record["validation"]) == [
            "loss",
            "accuracy",
            "balanced_accuracy",
            "log_loss",
            "roc_auc",
            "f1_macro",
            "mcc",
            "brier",
        ]
        assert isinstance(record["epoch"], int)
        assert isinstance(record["step"], int)
        numbers = [*record["train"].values(), *record["validation"].values(), record["seconds"]]
        assert all(isinstance(value, float) for value in [*numbers, record["learning_rate"]])
        assert record["seconds"] > 0
        assert record["samples_per_second"] > 0


def test_metrics_of_a_regression_without_validation(tmp_path):
    config = regressor(tmp_path / "c.yaml", slopes(tmp_path / "d.csv"))
    good("train", config, "--out", tmp_path / "run")
    for record in epochs(tmp_path / "run"):
        assert list(record) == ["epoch", "step", "learning_rate", "train", *TIMES]
        assert list(record["train"]) == ["loss", "rmse", "mae", "r2"]
    assert list(summary(tmp_path / "run")["metrics"]) == ["train", "test"]


def test_the_train_loss_is_that_of_the_samples_as_they_were_met(tmp_path):
    # one full batch: the loss of the first epoch is that of the initial weights
    config = regressor(tmp_path / "c.yaml", slopes(tmp_path / "d.csv"))
    good("train", config, "training.batch_size=full", "training.epochs=1", "--out", tmp_path / "one")
    good("train", config, "training.epochs=0", "--out", tmp_path / "zero")
    met, initial = epochs(tmp_path / "one")[0]["train"], summary(tmp_path / "zero")["metrics"]["train"]
    assert met == pytest.approx(initial, rel=1e-5)
    assert summary(tmp_path / "one")["metrics"]["train"]["loss"] < met["loss"]


def test_summary_is_as_the_contract_says(trees, tmp_path):
    out = tmp_path / "run"
    good("train", trees, "--out", out)
    found = summary(out)
    assert list(found["metrics"]) == ["train", "validation", "test"]
    assert found["metrics"]["validation"].keys() == found["metrics"]["train"].keys()
    assert found["checkpoint"] == {
        "last": "checkpoints/step-0000000015.safetensors",
        "best": "checkpoints/best.safetensors",
    }
    assert (out / found["checkpoint"]["best"]).is_file()
    assert {"versions", "processor", "threads", "fingerprint", "git"} <= found.keys()
    assert {"mlp", "python", "numpy", "numba"} <= found["versions"].keys()
    # the best epoch's validation metrics are the result
    best = min(epochs(out), key=lambda record: record["validation"]["loss"])
    assert found["best_epoch"] == best["epoch"]
    assert found["metrics"]["validation"] == best["validation"]


def test_config_yaml_trains_to_the_same_bits(trees, tmp_path):
    good("train", trees, "network.layers.0.dropout=0.1", "seed=12", "--out", tmp_path / "a")
    good("train", tmp_path / "a" / "config.yaml", "--out", tmp_path / "b")
    assert result(tmp_path / "a") == result(tmp_path / "b")
    assert (tmp_path / "a" / "config.yaml").read_bytes() == (tmp_path / "b" / "config.yaml").read_bytes()


def test_relative_paths_follow_the_file_that_wrote_them(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    (tmp_path / "data").mkdir()
    blobs(tmp_path / "data" / "trees.csv", seed=1)
    config = classifier(tmp_path / "configs" / "c.yaml", "../data/trees.csv")
    monkeypatch.chdir(tmp_path)
    good("train", config, "--out", "a")
    # in an override, the current directory
    blobs(tmp_path / "other.csv", seed=2)
    good("train", config, "data.path=other.csv", "--out", "b")
    assert configs.load(["a/config.yaml"]).data.path == str(tmp_path / "data" / "trees.csv")
    assert configs.load(["b/config.yaml"]).data.path == str(tmp_path / "other.csv")


# What it says


def test_stdout_has_the_result_and_stderr_the_progress(trees, tmp_path):
    out = tmp_path / "run"
    place = re.escape(quote(str(out)))
    done = good("train", trees, "--out", out)
    progress = re.sub(r"rate 0.02  [\d,]+ samples/s", "rate 0.02  N samples/s", done.err)
    progress = re.sub(r"in \d+\.\d s", "in T s", progress)
    numbers = r"loss \d\.\d+, accuracy \d(\.\d+)?"
    expected = f"""\
Task: classification \\(.*'tree'.*3 classes\\)
Rows: train 36, validation 12, test 12; 3 inputs
  layer     kind   activation   shape  parameters  multiply-adds
  layers.0  dense  tanh        3 -> 4          16             12
  layers.1  dense  softmax     4 -> 3          15             12
  total                                        31             24
Run directory: {re.escape(str(out))}
1 thread, 8 rows a step
epoch 1  train: {numbers}  validation: {numbers}  rate 0.02  N samples/s
epoch 2  train: {numbers}  validation: {numbers}  rate 0.02  N samples/s
epoch 3  train: {numbers}  validation: {numbers}  rate 0.02  N samples/s
Done: all 3 epochs are done, 15 steps in T s
(The best epoch on the validation rows is \\d; its parameters are the result
)?
Checkpoint: {re.escape(str(out))}/checkpoints/best.safetensors
Next: mlp eval {place}    or    mlp predict {place} FILE
"""
    assert re.fullmatch(expected, progress), progress
    lines = done.out.splitlines()
    assert lines[0].split() == ["train", "validation", "test"]
    assert [line.split()[0] for line in lines[1:9]] == [
        "loss", "accuracy", "balanced_accuracy", "log_loss", "roc_auc", "f1_macro", "mcc", "brier"
    ]  # fmt: skip
    found = summary(out)["metrics"]
    for line in lines[1:9]:
        name, *values = line.split()
        assert [float(value) for value in values] == [float(f"{found[split][name]:.5g}") for split in found]
    assert lines[10].split() == ["true", "\\", "predicted", "ash", "beech", "cedar"]
    assert "(test rows)" in lines[-1]
    assert sum(int(number) for line in lines[11:] for number in re.findall(r"\b\d+\b", line)) == 12


def test_quiet_leaves_only_errors_on_stderr(trees, tmp_path):
    loud = good("train", trees, "--out", tmp_path / "a")
    quiet = good("train", trees, "--out", tmp_path / "b", "--quiet")
    assert (quiet.out, quiet.err) == (loud.out, "")
    wrong = mlp("train", trees, "seed=-1", "--out", tmp_path / "c", "--quiet")
    assert wrong.code == 2
    assert "seed" in wrong.err


def test_json_is_one_event_a_line(trees, tmp_path):
    out = tmp_path / "run"
    done = good("train", trees, "--out", out, "--json", "--quiet")
    assert done.err == ""
    events = done.events
    assert [event["event"] for event in events] == ["start", "epoch", "epoch", "epoch", "end"]
    assert events[0]["run"] == events[-1]["run"] == str(out)
    assert events[0]["rows"] == {"train": 36, "validation": 12, "test": 12}
    assert [{key: value for key, value in event.items() if key != "event"} for event in events[1:-1]] == epochs(out)
    assert {key: value for key, value in events[-1].items() if key not in ("event", "run")} == summary(out)


def test_json_does_not_change_the_progress(trees, tmp_path):
    plain = good("train", trees, "--out", tmp_path / "a")
    as_json = good("train", trees, "--out", tmp_path / "b", "--json")

    def shape(text):
        return re.sub(r"[\d.,]+ samples/s|in [\d.]+ s", "", text).replace("/a", "/b")

    assert shape(as_json.err) == shape(plain.err)


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal")
def test_a_bar_on_a_terminal_but_not_under_no_color(trees, tmp_path):
    shown = on_terminal("train", trees, "--out", tmp_path / "a")
    plain = on_terminal("train", trees, "--out", tmp_path / "b", NO_COLOR="1")
    assert "█" in shown or "#" in shown
    assert "epoch 3/3" in shown
    assert "samples/s" in shown
    assert "█" not in plain
    assert "\x1b" not in plain
    assert "\r" not in plain.replace("\r\n", "")
    assert plain.count("\nepoch ") == 3
    assert result(tmp_path / "a") == result(tmp_path / "b")


def on_terminal(*arguments, **environment) -> str:
    """What `mlp arguments...` shows on a terminal of 120 columns."""
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    environment = {"TERM": "xterm", **os.environ, **environment}
    command = [sys.executable, "-m", "mlp_cli", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=theirs, env=environment)
    os.close(theirs)
    shown = b""
    while select.select([ours], [], [], 60)[0]:
        try:
            found = os.read(ours, 65536)
        except OSError:
            break
        if not found:
            break
        shown += found
    os.close(ours)
    assert process.wait(60) == 0, shown.decode()
    return shown.decode()


# Streams that close


def test_training_goes_on_when_stdout_closes(trees, tmp_path):
    process = start("train", trees, "training.epochs=300", "--json", "--out", tmp_path / "run", text=False)
    assert json.loads(process.stdout.readline())["event"] == "start"
    process.stdout.close()
    process.stdout = None
    done = process.communicate(timeout=60)
    assert process.returncode == 0, done
    assert len(epochs(tmp_path / "run")) == 300


@pytest.mark.parametrize("streams", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_training_with_streams_closed_from_the_start(trees, tmp_path, streams):
    command = f"exec '{sys.executable}' -m mlp_cli train '{trees}' --out '{tmp_path}/run' {streams}"
    done = finish(subprocess.Popen(["sh", "-c", command], stdout=-1, stderr=-1, text=True))
    assert done.code == 0, done.err
    assert "rror" not in done.err
    good("train", trees, "--out", tmp_path / "open")
    assert timeless(epochs(tmp_path / "run")) == timeless(epochs(tmp_path / "open"))
    assert checkpoints(tmp_path / "run") == checkpoints(tmp_path / "open")
