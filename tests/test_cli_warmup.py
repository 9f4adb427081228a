"""`mlp warmup`: compiles what is not there, says so, and fails where nothing can be kept."""

import re

import pytest
from cli import blobs, classifier, finish, good, mlp, start

from mlp_cli.kernels.cache import Cache

COMPILED = r"{}: compiled in \d+\.\d s"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache in which kernels take no time to compile: the scalar types that were compiled."""
    compiled = []

    def prepare(dtype, say):
        say(f"Compiling the {dtype} kernels")
        compiled.append(dtype)
        Cache(dtype).write(b"code")

    monkeypatch.setenv("MLP_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("mlp_cli.kernels.prepare.prepare", prepare)
    return compiled


def test_what_is_not_there_is_compiled(cache, tmp_path):
    done = good("warmup")
    assert cache == ["float32"]
    first, last = done.out.splitlines()
    assert re.fullmatch(COMPILED.format("float32"), first)
    assert last == f"Kept in {Cache('float32').folder}"
    assert Cache("float32").folder.parent == tmp_path
    assert done.err == "Compiling the float32 kernels\n"


def test_what_is_there_is_left_alone(cache):
    Cache("float32").write(b"code")
    done = good("warmup", "--dtype", "all")
    assert cache == ["float64"]
    first, second, _ = done.out.splitlines()
    assert first == "float32: already there"
    assert re.fullmatch(COMPILED.format("float64"), second)


def test_json_and_quiet(cache):
    done = good("warmup", "--dtype", "float64", "--json", "--quiet")
    assert done.err == ""
    found = done.json
    assert found["folder"] == str(Cache("float64").folder)
    assert [(each["dtype"], each["compiled"]) for each in found["kernels"]] == [("float64", True)]
    again = good("warmup", "--dtype", "float64", "--json").json
    assert again["kernels"] == [{"dtype": "float64", "compiled": False, "seconds": 0.0}]


def test_a_disk_that_filled_up_meanwhile_is_a_failure(cache, monkeypatch):
    monkeypatch.setattr("mlp_cli.kernels.prepare.prepare", lambda dtype, say: None)
    done = mlp("warmup", "--json")
    assert (done.code, done.out) == (5, "")
    assert done.err.splitlines()[-1] == (
        f"The float32 kernels were compiled, but could not be kept in {Cache('float32').folder}: look for free space "
        "there, or set MLP_CACHE_DIR to another folder"
    )


# In processes of their own, with the kernels of the product


def test_nothing_is_compiled_where_nothing_can_be_kept(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    done = finish(start("warmup", environment={"MLP_CACHE_DIR": str(tmp_path / "file")}))
    assert (done.code, done.out) == (5, "")
    assert done.err == (
        f"Nothing to warm up: compiled kernels cannot be kept, since the folder of MLP_CACHE_DIR, {tmp_path / 'file'}, "
        "cannot be written (Not a directory); make it writable or name another\n"
    )


def test_without_a_folder_of_the_users_the_remedy_is_named(tmp_path):
    (tmp_path / ".cache").write_bytes(b"")
    environment = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / ".cache"), "MLP_CACHE_DIR": ""}
    done = finish(start("warmup", environment=environment))
    assert done.code == 5
    assert done.err == (
        "Nothing to warm up: compiled kernels cannot be kept, since the user's cache folder cannot be written "
        "(Not a directory); make it writable or set MLP_CACHE_DIR to another\n"
    )


@pytest.mark.slow
def test_after_warming_up_no_run_compiles(tmp_path):
    cache = tmp_path / "cache"
    environment = {"MLP_CACHE_DIR": str(cache)}
    done = finish(start("warmup", environment=environment), timeout=600)
    assert done.code == 0, done.err
    assert re.fullmatch(COMPILED.format("float32"), done.out.splitlines()[0])

    def machine_code():
        return {path: path.stat().st_mtime_ns for path in cache.rglob("*.code")}

    before = machine_code()
    assert before
    config = classifier(tmp_path / "c.yaml", blobs(tmp_path / "trees.csv"))
    trained = finish(start("train", config, "--out", tmp_path / "run", environment=environment), timeout=600)
    assert trained.code == 0, trained.err
    assert "Compiling" not in trained.err
    assert finish(start("warmup", environment=environment)).out.startswith("float32: already there\n")
    assert machine_code() == before
