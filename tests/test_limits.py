"""Limits of the process and of its control group: exit 5 and a sentence that names the limit, or a run that works.

A sample of them; with --run-slow every limit from 1 to the first that all commands work with.
"""

import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from cli import blobs, classifier, good, mlp, result

from mlp_cli import errors, limits
from mlp_cli.errors import shortage

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="other systems count otherwise")
# Below these Python itself cannot start.
FIRST_FILES = 5
# An identity that runs nothing else: the system counts the threads of a user, and none of root's.
NOBODY_ELSE = 64_321
GROUPS = Path("/sys/fs/cgroup/pids") if Path("/sys/fs/cgroup/pids").exists() else Path("/sys/fs/cgroup")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(config, table, run) in a folder that every user may write to, with the kernels compiled."""
    folder = tmp_path_factory.mktemp("limits")
    table = blobs(folder / "trees.csv")
    config = classifier(folder / "trees.yaml", table, training={"epochs": 1})
    good("train", config, "--out", folder / "run")
    return config, table, folder / "run"


def commands(trained, out):
    config, table, run = trained
    return [
        ["train", config, "--out", out, "--force", "--quiet"],
        ["eval", run, table, "--quiet"],
        ["predict", run, table, "-o", out.with_name("predictions.csv"), "--quiet"],
    ]


def limited(command, before=None, prefix=()):
    return subprocess.run(
        [*prefix, sys.executable, "-m", "mlp_cli", *map(str, command)], capture_output=True, text=True,
        preexec_fn=before, timeout=120,
    )  # fmt: skip


def assert_refused_or_done(done, *names):
    if done.returncode:
        assert done.returncode == 5, done
        sentences = [line for line in done.stderr.splitlines() if not line.startswith("Warning: ")]
        assert len(sentences) == 1, done
        assert any(name in done.stderr for name in names), done
    else:
        assert not done.stderr, done
    return done.returncode == 0


@LINUX
def test_open_files(trained, tmp_path, request):
    sample = range(FIRST_FILES, 24) if request.config.getoption("--run-slow") else (FIRST_FILES, 7, 9, 24)
    for files in sample:
        for command in commands(trained, tmp_path / "run")[: None if len(sample) > 4 else 1]:
            limit = lambda files=files: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))  # noqa: E731
            works = assert_refused_or_done(limited(command, limit), "ulimit -n")
    assert works


@pytest.fixture
def group():
    """A control group of our own for processes; skips where none can be made."""
    folder = GROUPS / f"mlp-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / "pids.max").write_text("100")
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        pytest.skip("no control group can be made here")
    yield folder
    for _ in range(100):
        try:
            folder.rmdir()
            break
        except OSError:
            time.sleep(0.05)


@LINUX
def test_processes_of_a_control_group(trained, tmp_path, request, group):
    sample = range(1, 14) if request.config.getoption("--run-slow") else (1, 4, 6, 7)
    join = ["sh", "-c", f'echo $$ > "{group}/cgroup.procs" && exec "$@"', "sh"]
    for count in sample:
        (group / "pids.max").write_text(str(count))
        for command in commands(trained, tmp_path / "run")[: None if len(sample) > 4 else 1]:
            works = assert_refused_or_done(limited(command, prefix=join), "ulimit -u, or pids.max")
            assert works == (count >= 7)


@LINUX
def test_processes_of_a_user(trained, tmp_path, request):
    if os.getuid() or not shutil.which("setpriv"):
        pytest.skip("needs root, to become a user who runs nothing else")
    other = ["setpriv", f"--reuid={NOBODY_ELSE}", "--clear-groups"]
    if limited(["--version"], prefix=other).returncode:
        pytest.skip("another user cannot run this Python")
    for count in range(1, 7):
        limit = lambda count=count: resource.setrlimit(resource.RLIMIT_NPROC, (count, count))  # noqa: E731
        assert not assert_refused_or_done(limited(["schema"], limit, other), "ulimit -u, or pids.max")


def test_a_reader_that_gets_no_threads_does_without(trained, tmp_path, monkeypatch):
    import pyarrow
    from pyarrow import csv

    config, _, run = trained
    read, before = csv.read_csv, pyarrow.cpu_count()

    def refuse(source, options, *rest):
        if options.use_threads or refusals:
            raise pyarrow.ArrowException("Unknown error: Failed to launch worker thread: no")
        return read(source, options, *rest)

    refusals = []
    monkeypatch.setattr(csv, "read_csv", refuse)
    try:
        good("train", config, "--out", tmp_path / "run")
        assert result(tmp_path / "run") == result(run)
        refusals.append(True)
        done = mlp("train", config, "--out", tmp_path / "other", "--quiet")
    finally:
        pyarrow.set_cpu_count(before)
    assert done.code == 5
    assert "trees.csv: no further process or thread can be started; raise the limit" in done.err


def test_a_limit_of_processor_time_saves_first(monkeypatch):
    for given, soft in ((3600, 3590), (4, 2), (1, 1)):
        set_to = []
        monkeypatch.setattr(resource, "getrlimit", lambda limit, given=given: (given, given))
        monkeypatch.setattr(resource, "setrlimit", lambda limit, values, set_to=set_to: set_to.append(values))
        limits._heed_time()
        assert set_to == [(soft, given)]
    monkeypatch.setattr(resource, "getrlimit", lambda limit: (100, 200))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: pytest.fail("the user has chosen"))
    limits._heed_time()


@LINUX
def test_a_run_whose_processor_time_is_over(trained, tmp_path):
    config, _, _ = trained

    def limit():
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CPU, (2, 30))

    command = ["train", config, "training.epochs=null", "training.max_time=1h", "--out", tmp_path / "run", "--quiet"]
    done = limited(command, limit)
    assert done.returncode == 75
    assert done.stderr.startswith("Stopped by SIGXCPU: saved at step ")


def test_threads_are_counted_and_gone():
    before = threading.active_count()
    assert limits.startable(3) == 3
    assert threading.active_count() == before


@pytest.mark.parametrize("number", errors._SHORTAGES)
def test_what_runs_out_is_no_mistake_of_a_file(number):
    fault = shortage(OSError(number, "message"), "x.csv")
    assert fault.exit_code == 5
    assert str(fault).startswith("x.csv: ")
    assert str(shortage(OSError(number, "message")))[0].isupper()


@pytest.mark.parametrize("error", [OSError(2, "Too many open files"), ValueError("can't start new thread"), OSError()])
def test_other_errors_are(error):
    assert shortage(error) is None
