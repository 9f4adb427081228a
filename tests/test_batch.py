"""The scripts of docs/batch, run as they are, with a Slurm that only takes note."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cli import blobs, classifier, finish, good, result, summary, wait_for

SCRIPTS = Path(__file__).parents[1] / "docs" / "batch"
JOB = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "trees", "SLURM_CPUS_PER_TASK": "1"}


def command(path, *lines):
    """A command of that name."""
    path.write_text("\n".join(["#!/bin/bash", *lines]) + "\n")
    path.chmod(0o755)


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A folder with a config of some hundred epochs, where `mlp` is this package and `scontrol` notes its arguments."""
    programs = tmp_path / "bin"
    programs.mkdir()
    command(programs / "mlp", f'exec "{sys.executable}" -m mlp_cli "$@"')
    command(programs / "scontrol", 'echo "$@" >> scontrol.log')
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    classifier(tmp_path / "c.yaml", blobs(tmp_path / "trees.csv"), training={"epochs": 1000, "batch_size": 8})
    return tmp_path


def submit(*arguments):
    """Start the job script, as Slurm does; it leads a group of its own, for the tests to clean up."""
    return subprocess.Popen(
        [SCRIPTS / "slurm.sh", *arguments],
        env=os.environ | JOB, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


RUN = Path("runs/trees-4711")


def test_a_job_whose_time_is_over_requeues_itself_and_goes_on(world):
    good("train", "c.yaml", "--out", "whole")
    job = submit("c.yaml")
    wait_for(RUN / "metrics.jsonl")
    job.send_signal(signal.SIGUSR1)  # to the script alone, as B: says
    done = finish(job)
    assert done.code == 75, done.err
    assert "Stopped by SIGUSR1: saved at step " in done.err
    assert Path("scontrol.log").read_text() == "requeue 4711\n"
    assert not (RUN / "summary.json").exists()

    done = finish(submit("c.yaml"))
    assert done.code == 0, done.err
    assert "Resuming at step " in done.err
    assert result(RUN) == result(Path("whole"))
    assert Path("scontrol.log").read_text() == "requeue 4711\n"


def test_a_job_that_is_cancelled_is_saved_and_not_requeued(world):
    job = submit("c.yaml")
    wait_for(RUN / "metrics.jsonl")
    job.send_signal(signal.SIGTERM)
    done = finish(job)
    assert done.code == 75
    assert "Stopped by SIGTERM: saved at step " in done.err
    assert not Path("scontrol.log").exists()


@pytest.mark.parametrize(("override", "code"), [("training.epochs=3", 0), ("optimizer=adum", 2)])
def test_a_job_that_comes_to_its_end_is_not_requeued(world, override, code):
    done = finish(submit("c.yaml", override))
    assert done.code == code, done.err
    assert not Path("scontrol.log").exists()


def test_what_is_asked_of_slurm():
    """Lines that begin with #SBATCH count until the first command."""
    lines = (SCRIPTS / "slurm.sh").read_text().splitlines()
    head = lines[: next(i for i, line in enumerate(lines) if line and not line.startswith("#"))]
    options = {line.removeprefix("#SBATCH --").strip() for line in head if line.startswith("#SBATCH ")}
    assert {"requeue", "signal=B:USR1@60", "open-mode=append"} <= options
    assert sum("#SBATCH" in line for line in lines) == len(options)


# GNU parallel

with_parallel = pytest.mark.skipif(shutil.which("parallel") is None, reason="needs GNU parallel")
NETS = [f"rate-{rate}-seed-{seed}" for rate in ("0.01", "0.003", "0.001") for seed in (0, 1, 2)]


def sweep(*arguments, **environment):
    return subprocess.Popen(
        [SCRIPTS / "sweep.sh", *arguments],
        env=os.environ | {"JOBS": "2"} | environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


@with_parallel
def test_a_sweep_that_is_stopped_goes_on(world):
    classifier(world / "c.yaml", world / "trees.csv", training={"epochs": 300, "batch_size": 8})
    first = Path("runs/sweep") / NETS[0]
    process = sweep("c.yaml")
    wait_for(first / "metrics.jsonl")
    os.killpg(process.pid, signal.SIGINT)
    done = finish(process)
    assert done.code != 0
    # it was given the time to save
    assert any(first.glob("checkpoints/step-*[1-9]*"))

    done = finish(sweep("c.yaml"), timeout=300)
    assert done.code == 0, done.err
    assert [line.split()[0] for line in done.out.splitlines()] == [f"runs/sweep/{name}/" for name in sorted(NETS)]
    for name in NETS:
        assert summary(Path("runs/sweep") / name)["threads"] == 1
    good("train", "c.yaml", "learning_rate=0.01", "--out", "whole", "seed=0")
    assert result(first) == result(Path("whole"))


@with_parallel
def test_a_sweep_leaves_alone_what_is_done(world):
    classifier(world / "c.yaml", world / "trees.csv", training={"epochs": 2})
    assert finish(sweep("c.yaml"), timeout=300).code == 0
    times = [(Path("runs/sweep") / name / "summary.json").stat().st_mtime_ns for name in NETS]
    assert finish(sweep("c.yaml")).code == 0
    assert [(Path("runs/sweep") / name / "summary.json").stat().st_mtime_ns for name in NETS] == times


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck")
def test_the_scripts_are_clean():
    done = subprocess.run(["shellcheck", *SCRIPTS.glob("*.sh")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
