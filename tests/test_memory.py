"""Memory: how much there is, how much a run will take, and one sentence with both figures where it does not fit."""

import os
import sys
import threading

import numpy as np
import pytest
from cli import blobs, classifier, good, measured, mlp, result, write_config

from mlp_cli import config as configs
from mlp_cli import memory
from mlp_cli.errors import SystemFault
from mlp_cli.model import Model, load_data
from mlp_cli.network import footprint

GIGABYTE = 10**9
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not enforce the limit")


# How much there is


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A machine with 8 GiB available and no limits; returns a function that writes a file below its root."""
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda limit: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def put(path, text):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
        return tmp_path

    put("proc/meminfo", "MemTotal:       16000000 kB\nMemFree:         1000000 kB\nMemAvailable:    8388608 kB\n")
    return put


def left(size):
    return size - memory.RESERVE


def test_what_the_machine_leaves(system):
    root = system("proc/self/cgroup", "0::/\n")
    assert memory.available(root) == left(8 << 30)


def test_version_2_groups_count_at_every_level(system):
    root = system("proc/self/cgroup", "0::/user/job\n")
    system("sys/fs/cgroup/user/job/memory.max", "max\n")
    system("sys/fs/cgroup/user/job/memory.current", "123\n")
    assert memory.available(root) == left(8 << 30)
    system("sys/fs/cgroup/user/memory.max", "3000000000\n")
    system("sys/fs/cgroup/user/memory.current", "2500000000\n")
    # files that are kept in memory give way
    system("sys/fs/cgroup/user/memory.stat", "anon 100\ninactive_file 900000000\nactive_file 600000000\n")
    assert memory.available(root) == left(2_000_000_000)


def test_version_1_groups_in_a_container(system):
    root = system("proc/self/cgroup", "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/\n")
    system("sys/fs/cgroup/memory/memory.limit_in_bytes", "1000000000\n")
    system("sys/fs/cgroup/memory/memory.usage_in_bytes", "400000000\n")
    system("sys/fs/cgroup/memory/memory.stat", "cache 1\ntotal_inactive_file 50000000\ntotal_active_file 50000000\n")
    assert memory.available(root) == left(700_000_000)
    system("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    assert memory.available(root) == left(8 << 30)


def test_the_limits_of_the_process(system, monkeypatch):
    import resource

    limits = {resource.RLIMIT_AS: 2 * GIGABYTE, resource.RLIMIT_DATA: 3 * GIGABYTE}
    monkeypatch.setattr(resource, "getrlimit", lambda limit: (limits.get(limit, resource.RLIM_INFINITY),) * 2)
    page = os.sysconf("SC_PAGE_SIZE")
    root = system("proc/self/statm", "1000 2 3 4 0 500 0\n")
    assert memory.available(root) == left(2 * GIGABYTE - 1000 * page)
    limits[resource.RLIMIT_DATA] = GIGABYTE
    assert memory.available(root) == left(GIGABYTE - 500 * page)
    limits[resource.RLIMIT_DATA] = 10
    assert memory.available(root) == 0


def test_where_nothing_is_known(tmp_path, monkeypatch):
    assert memory.available(tmp_path) > 0
    monkeypatch.setattr(os, "sysconf_names", {})
    assert memory.available(tmp_path) > 0


def test_what_fits_and_what_does_not(monkeypatch):
    monkeypatch.setattr(memory, "SMALL", 0)
    monkeypatch.setattr(memory, "available", lambda: 1000)
    memory.require(1000, "x.csv: its 9 cells need", "use less")
    with pytest.raises(SystemFault) as refused:
        memory.require(1500, "x.csv: its 9 cells need", "use less")
    assert str(refused.value) == "x.csv: its 9 cells need 1.5 kB of memory, and 1.0 kB are available; use less"


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (2_000_000, "2.0 MB"), (3 * 10**15, "3000.0 TB")],
)
def test_sizes_for_people(size, text):
    assert memory.size_text(size) == text


# How much a run takes


def large(folder, **sections):
    """A config whose network has 2.3 million parameters."""
    data = blobs(folder / "trees.csv")
    layers = [{"units": 1500, "activation": "relu"}, {"units": 1500, "activation": "relu"}, {"activation": "softmax"}]
    return classifier(folder / "large.yaml", data, **({"network": {"layers": layers}} | sections))


def many_rows(folder):
    """A config of 400,000 rows and ten classes."""
    rows = np.arange(400_000)
    np.savez(folder / "rows.npz", x=np.stack([rows % 10, rows % 7], axis=1).astype(np.float32), y=rows % 10)
    return write_config(
        folder / "many.yaml",
        data={"path": str(folder / "rows.npz")},
        network={"layers": [{"units": 2}, {"activation": "softmax"}]},
        training={"epochs": 1, "batch_size": 4096},
    )


def estimate(config, *overrides):
    """What `mlp train` expects to take besides the data."""
    config = configs.load([config], overrides)
    dataset = load_data(config)
    return Model.new(config, dataset).memory_to_train(dataset, threads=1)


@LINUX
@pytest.mark.parametrize(
    ("make", "overrides"),
    [
        (large, ["optimizer=adam", "training.on_divergence=rollback"]),
        (large, ["optimizer=sgd", "data.split=null", "dtype=float64"]),
        (many_rows, []),
    ],
    ids=["best kept, rollback", "plain float64", "many rows"],
)
def test_the_estimate_is_near_what_is_taken(make, overrides, tmp_path):
    config = make(tmp_path)
    overrides = [*overrides, "training.epochs=1"]
    small = "network.layers=[{units: 1}, {activation: softmax}]" if make is large else "training.epochs=0"
    inspected = measured("inspect", config, *overrides, small)  # the program and the data, without the training
    done = measured("train", config, *overrides, "--out", tmp_path / "run", "--quiet", "--threads", 1)
    assert (inspected.code, done.code) == (0, 0), done.err
    taken = done.peak - inspected.peak
    expected = estimate(config, *overrides)
    assert expected / 1.5 < taken < expected + memory.RESERVE


def test_a_run_that_does_not_fit_is_refused_before_it_begins(tmp_path, monkeypatch):
    config = large(tmp_path)
    needed = estimate(config)
    monkeypatch.setattr(memory, "available", lambda: needed - 1)
    done = mlp("train", config, "--out", tmp_path / "run", "--threads", 1)
    assert (done.code, done.out) == (5, "")
    size = memory.size_text(needed)
    assert done.err == (
        f"Besides the data, training 2,262,003 parameters takes {size} of memory, and {size} are "
        "available; use fewer units, a smaller training.batch_size or leave the data on the disk (.npy files and "
        "data.memory: map)\n"
    )
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(memory, "available", lambda: needed)
    good("train", config, "training.epochs=0", "--out", tmp_path / "run", "--threads", 1)


def test_a_remedy_is_none_that_was_followed_already(tmp_path, monkeypatch):
    for part, numbers in (("x", np.arange(40, dtype=np.float32).reshape(20, 2)), ("y", np.arange(20) % 2)):
        np.save(tmp_path / f"{part}.npy", numbers)
    data = {"train": {part: str(tmp_path / f"{part}.npy") for part in "xy"}, "memory": "map"}
    config = write_config(
        tmp_path / "c.yaml", data=data, network={"layers": [{"units": 9000}, {"activation": "softmax"}]}
    )
    monkeypatch.setattr(memory, "available", lambda: 1_500_000)
    done = mlp("train", config, "--out", tmp_path / "run")
    assert done.code == 5
    assert done.err.endswith("; use fewer units or a smaller training.batch_size\n")
    monkeypatch.setattr(memory, "available", lambda: 2_500_000)
    done = mlp("train", config, "dtype=float64", "--out", tmp_path / "run")
    assert done.err.endswith("; use fewer units, a smaller training.batch_size or dtype: float32\n")


@LINUX
def test_a_run_that_does_not_fit_into_its_limit(tmp_path):
    """4 GB of parameters alone: refused with the figures, and without taking them."""
    config = large(tmp_path)
    layers = "network.layers=[{units: 32000}, {units: 32000}, {activation: softmax}]"
    done = measured("train", config, layers, "--out", tmp_path / "run", limit=2 * GIGABYTE)
    assert done.code == 5
    assert done.err.startswith("The network's 1,024,256,003 parameters need 4.1 GB of memory, and ")
    assert done.peak < 0.5 * GIGABYTE


@LINUX
def test_limits_of_every_size_end_in_a_sentence(tmp_path):
    """Where the estimate is too low, or libraries want memory of their own, it is still no traceback and no abort."""
    config = classifier(tmp_path / "c.yaml", blobs(tmp_path / "trees.csv"))
    codes = []
    for megabytes in (100, 899, 900, 1000, 2000):
        done = measured(
            "train", config, "--out", tmp_path / f"run-{megabytes}", "--quiet", "--threads", 2, limit=megabytes * 10**6
        )
        assert done.code in (0, 5), done
        assert "Traceback" not in done.err
        assert len(done.err.splitlines()) == (done.code == 5), done
        codes.append(done.code)
    assert codes[:2] == [5, 5]
    assert codes[-1] == 0


def test_limits_that_leave_no_room_for_libraries(monkeypatch):
    """Below them OpenBLAS, Arrow and its allocator end the process in ways of their own."""
    resource = pytest.importorskip("resource")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("OMP_NUM_THREADS")
    limits = {resource.RLIMIT_AS: 800_000_000, resource.RLIMIT_DATA: resource.RLIM_INFINITY}
    monkeypatch.setattr(resource, "getrlimit", lambda limit: (limits.get(limit, resource.RLIM_INFINITY),) * 2)
    done = mlp("schema")
    assert (done.code, done.out) == (5, "")
    assert done.err == (
        "The limit of this process, 800.0 MB (ulimit -v), is less than the 900.0 MB that mlp sets aside for its "
        "libraries; raise it\n"
    )
    limits[resource.RLIMIT_AS] = resource.RLIM_INFINITY
    good("schema")
    assert "OMP_NUM_THREADS" not in os.environ
    limits[resource.RLIMIT_DATA] = GIGABYTE
    good("schema")
    assert os.environ["OMP_NUM_THREADS"] == "1"
    limits[resource.RLIMIT_DATA] = 200_000_000
    assert "200.0 MB (ulimit -d)" in mlp("schema").err


def test_outputs_that_do_not_fit(tmp_path, monkeypatch):
    config = classifier(tmp_path / "c.yaml", blobs(tmp_path / "trees.csv"), training={"epochs": 1})
    good("train", config, "--out", tmp_path / "run", "--quiet")
    require = footprint.memory.require

    def counted(needed, what, remedy):
        monkeypatch.setattr(memory, "SMALL", 0)
        monkeypatch.setattr(memory, "available", lambda: 1000 if what.startswith("The outputs") else GIGABYTE)
        require(needed, what, remedy)

    monkeypatch.setattr(memory, "require", counted)
    for command in (
        ["eval", tmp_path / "run", tmp_path / "trees.csv"],
        ["predict", tmp_path / "run", tmp_path / "trees.csv"],
    ):
        done = mlp(*command)
        assert (done.code, done.out) == (5, "")
        assert done.err == (
            "The outputs for 60 rows take 3.6 kB of memory, and 1.0 kB are available; split the rows between several "
            "files\n"
        )


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("mlp_cli.data.sources", "_whole"),
        ("mlp_cli.data.table", "_read_strings"),
        ("mlp_cli.data.cells", "numbers"),
        ("mlp_cli.data.preprocess", "as_slice"),
        ("mlp_cli.network.network", "initial_value"),
        ("mlp_cli.trainer", "evaluate"),
        ("mlp_cli.metrics", "classification"),
    ],
)
@pytest.mark.parametrize("error", ["MemoryError", "pyarrow"])
def test_no_memory_anywhere_is_a_sentence(module, name, error, tmp_path, monkeypatch):
    import importlib

    import pyarrow

    config = classifier(tmp_path / "c.yaml", blobs(tmp_path / "trees.csv"))
    raised = MemoryError if error == "MemoryError" else pyarrow.ArrowMemoryError

    def full(*arguments, **options):
        raise raised("malloc of size 64 failed")

    monkeypatch.setattr(importlib.import_module(module), name, full)
    done = mlp("train", config, "--out", tmp_path / "run", "--quiet")
    assert (done.code, done.out) == (5, ""), done
    assert len(done.err.splitlines()) == 1
    assert "memory" in done.err


def test_a_library_that_there_is_no_room_for(tmp_path, monkeypatch):
    config = classifier(tmp_path / "c.yaml", blobs(tmp_path / "trees.csv"))
    said = "numbers.so: failed to map segment from shared object"

    def full(*arguments, **options):
        raise ImportError(said)

    monkeypatch.setattr("mlp_cli.trainer.evaluate", full)
    done = mlp("train", config, "--out", tmp_path / "run", "--quiet")
    assert (done.code, done.out) == (5, ""), done
    assert done.err.startswith("There is no memory left, so a library cannot be loaded; ")
    said = "cannot import name 'numbers'"
    assert mlp("train", config, "--out", tmp_path / "other", "--quiet").code == 1


def refused_threads(monkeypatch, names):
    """No thread can be started that runs a function of such a name, but for so many."""
    start = threading.Thread.start

    def refuse(self):
        name = self._target.__name__
        if names.get(name) == 0:
            raise RuntimeError("can't start new thread")
        names[name] = names.get(name, 99) - 1
        start(self)

    monkeypatch.setattr(threading.Thread, "start", refuse)


def test_fewer_threads_do_where_the_system_allows_no_more(tmp_path, monkeypatch):
    config = classifier(tmp_path / "c.yaml", blobs(tmp_path / "trees.csv"), training={"epochs": 1})
    good("train", config, "--out", tmp_path / "whole", "--threads", 3)
    refused_threads(monkeypatch, {"_serve": 1})
    good("train", config, "--out", tmp_path / "run", "--threads", 3)
    assert result(tmp_path / "run") == result(tmp_path / "whole")


def test_threads_that_cannot_be_started(tmp_path, monkeypatch):
    config = classifier(tmp_path / "c.yaml", blobs(tmp_path / "trees.csv"), training={"epochs": 1})
    refused_threads(monkeypatch, {"_serve": 0})
    done = mlp("train", config, "--out", tmp_path / "run", "--quiet", "--threads", 3)
    assert done.code == 5
    assert done.err == (
        "No further process or thread can be started; raise the limit of processes (ulimit -u, or pids.max of the "
        "control group)\n"
    )
