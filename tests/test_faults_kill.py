"""Real processes, killed with SIGKILL at random instants, and resumed until they come to their end.

A dozen of them; `pytest tests/test_faults_kill.py --soak 5000` kills so many.
"""

import random
import shutil
import signal
import time

import pytest
from cli import blobs, classifier, finish, good, result, start

KILLS = 12


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A run that saves some twenty-five checkpoints in a fraction of a second, in the middle of epochs too."""
    folder = tmp_path_factory.mktemp("kill")
    return classifier(
        folder / "c.yaml", blobs(folder / "d.csv"),
        network={"layers": [{"units": 6, "activation": "relu", "dropout": 0.2}, {"activation": "softmax"}]},
        training={
            "epochs": 40, "batch_size": 8, "checkpoint": {"every_steps": 8}, "early_stopping": {"patience": 40},
        },
    )  # fmt: skip


def begin(config, out, threads=1):
    return start("train", config, "--out", out, "--resume", "--threads", threads)


def test_processes_killed_at_random_instants(config, tmp_path, soak):
    chance = random.Random(None if soak else 0)
    began = time.monotonic()
    assert finish(begin(config, tmp_path / "whole")).code == 0
    whole, seconds = result(tmp_path / "whole"), time.monotonic() - began
    kills = 0
    while kills < (soak or KILLS):
        out = tmp_path / "run"
        shutil.rmtree(out, ignore_errors=True)
        done = None
        while done is None:
            process = begin(config, out, threads=chance.choice((1, 2)))
            if chance.random() < 0.8:
                # not while it imports: from where its directory is taken until it would be done
                next((line for line in process.stderr if line.startswith("Run directory")), None)
                time.sleep(chance.uniform(0, seconds / 2))
            else:
                time.sleep(chance.uniform(0, seconds))
            process.kill()
            outcome = finish(process)
            assert outcome.code in (0, -signal.SIGKILL), outcome.err
            assert "Warning" not in outcome.err
            kills += outcome.code != 0
            if outcome.code == 0 or kills == (soak or KILLS):
                done = outcome if outcome.code == 0 else finish(begin(config, out))
        assert done.code == 0, done.err
        assert result(out) == whole


def test_a_run_is_there_however_the_one_that_replaces_it_is_killed(config, tmp_path, soak):
    """With --force: eval finds a model at every instant, and --resume brings the new run to its end."""
    chance = random.Random(None if soak else 1)
    out = tmp_path / "run"
    whole = {}
    for name, overrides in (("old", ("training.epochs=2",)), ("new", ())):
        good("train", config, *overrides, "--out", tmp_path / name)
        whole[name] = result(tmp_path / name)
    for _ in range(soak // 10 or 4):
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(tmp_path / "old", out)
        process = start("train", config, "--out", out, "--force")
        next((line for line in process.stderr if line.startswith("The run that is there stays")), None)
        time.sleep(chance.uniform(0, 0.6))
        process.kill()
        finish(process)
        good("eval", out, "--quiet")
        if (out / "replacement").exists():
            assert result(out) == whole["old"]
        good("train", config, "--out", out, "--resume")
        assert result(out) == whole["new"]
        assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in (tmp_path / "new").iterdir())
