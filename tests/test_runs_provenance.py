"""Provenance: what is known is right, what is not known is None, and nobody waits for it."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mlp_cli
from mlp_cli.runs import provenance as module
from mlp_cli.runs.provenance import available_processors, git_state, processor_name, provenance


@pytest.fixture
def system(tmp_path, monkeypatch):
    """An empty root folder, eight processors, no Slurm; returns a function that writes a file below the root."""
    monkeypatch.setattr(module, "_processors_by_affinity", lambda: 8)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)

    def put(path, text):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
        return tmp_path

    put("etc/nothing", "")
    return put


def test_provenance_is_plain_json():
    found = provenance()
    assert json.loads(json.dumps(found)) == found
    assert found["versions"]["mlp"] == mlp_cli.__version__
    assert found["versions"]["numpy"] == np.__version__
    assert found["versions"]["python"] == platform.python_version()
    assert set(found["versions"]) == {"mlp", "python", "numpy", "numba", "llvmlite"}
    assert found["processor"]
    assert found["threads_available"] >= 1
    assert found["date"].endswith("+00:00")


def test_nothing_heavy_is_imported():
    code = """
import sys
from mlp_cli.runs.provenance import provenance
provenance()
sys.exit(any(name in sys.modules for name in ("numpy", "numba", "safetensors", "click", "pydantic")))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_version_2_quotas_count_at_every_level(system):
    root = system("proc/self/cgroup", "0::/user/job\n")
    assert available_processors(root) == 8
    system("sys/fs/cgroup/user/job/cpu.max", "max 100000\n")
    assert available_processors(root) == 8
    system("sys/fs/cgroup/user/cpu.max", "250000 100000\n")
    assert available_processors(root) == 3
    system("sys/fs/cgroup/cpu.max", "10000 100000\n")
    assert available_processors(root) == 1


def test_version_1_quotas(system):
    root = system("proc/self/cgroup", "4:memory:/x\n3:cpu,cpuacct:/docker/abc\n")
    system("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n")
    system("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n")
    assert available_processors(root) == 8
    system("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "400000\n")
    assert available_processors(root) == 4
    system("sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us", "150000\n")
    system("sys/fs/cgroup/cpu/docker/abc/cpu.cfs_period_us", "100000\n")
    assert available_processors(root) == 2


@pytest.mark.parametrize(
    ("text", "expected"), [("2", 2), ("64", 8), ("0", 1), ("", 8), ("many", 8), ("-3", 8), ("²", 8)]
)
def test_slurm(system, monkeypatch, text, expected):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", text)
    assert available_processors(system("etc/nothing", "")) == expected


def test_affinity():
    assert 1 <= available_processors() <= os.cpu_count()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no CPU affinity")
def test_affinity_of_one():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "from mlp_cli.runs.provenance import available_processors; print(available_processors())"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout == b"1\n"


def test_without_affinity_or_count(monkeypatch, tmp_path):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert available_processors(tmp_path) == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_processors(tmp_path) == 1


def test_processor_name(system):
    root = system("proc/cpuinfo", "processor\t: 0\nmodel name\t: Fast One @ 3 GHz\n")
    assert processor_name(root) == "Fast One @ 3 GHz"
    if platform.system() == "Linux":
        assert processor_name(system("proc/cpuinfo", "Hardware\t: x\n")) == platform.machine()


def test_git(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state() is None

    def git(*arguments):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    assert git_state() is None  # no commit yet
    Path("a").write_text("1")
    git("add", "a")
    git("commit", "-q", "-m", "first")
    assert git_state() == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    Path("runs").write_text("untracked files do not count")
    assert git_state()["dirty"] is False
    Path("a").write_text("2")
    assert git_state()["dirty"] is True


def test_no_git_or_a_sleeping_one(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state() is None
    sleeper = tmp_path / "git"
    sleeper.write_text("#!/bin/sh\nexec /bin/sleep 30\n")
    sleeper.chmod(0o755)
    monkeypatch.setattr(module, "_GIT_SECONDS", 0.1)
    assert git_state() is None


def test_a_package_that_is_not_installed_has_no_version():
    assert module._version("surely-no-such-package") is None
