"""The first command on a machine says that it compiles; later ones start without a compiler."""

import subprocess
import sys

import pytest
from cli import blobs, classifier, good

from mlp_cli.kernels import prepare
from mlp_cli.kernels.cache import Cache


@pytest.fixture
def trained(tmp_path):
    """(config, table, run) of a small classifier."""
    table = blobs(tmp_path / "trees.csv")
    config = classifier(tmp_path / "trees.json", table)
    good("train", config, "--out", tmp_path / "run")
    return config, table, tmp_path / "run"


@pytest.fixture
def first_command(tmp_path, monkeypatch):
    """As on a new machine, but with a compiler that remembers what it once made."""
    codes = {}
    for dtype in ("float32", "float64"):
        prepare.prepare(dtype)
        codes[dtype] = Cache(dtype).read() or prepare.compile_apart(dtype)
    monkeypatch.setattr(prepare, "compile_apart", codes.get)
    monkeypatch.setattr(prepare, "_ready", {})
    monkeypatch.setenv("MLP_CACHE_DIR", str(tmp_path / "cache"))


def said(done):
    """What was said about compiling."""
    return [line for line in done.err.splitlines() if line.startswith("Compil")]


def arguments(command, trained):
    config, table, run = trained
    return {
        "train": ["train", config, "--out", run.parent / "new"],
        "eval": ["eval", run],
        "predict": ["predict", run, table],
        "check": ["check", config],
    }[command]


@pytest.mark.parametrize(
    ("command", "dtype"), [("train", "float32"), ("eval", "float32"), ("predict", "float32"), ("check", "float64")]
)
def test_the_first_command_says_that_it_compiles(trained, first_command, monkeypatch, command, dtype):
    before, after = said(good(*arguments(command, trained)))
    assert before == f"Compiling the {dtype} kernels: about ten seconds, once for this machine and version of mlp …"
    assert after.startswith("Compiled in ")
    monkeypatch.setattr(prepare, "_ready", {})
    assert said(good(*arguments(command, trained), *(["--force"] if command == "train" else []))) == []


def test_the_other_type_is_compiled_when_it_is_first_used(trained, first_command):
    config, _, run = trained
    assert len(said(good("train", config, "--out", run.parent / "a"))) == 2
    assert "float64" in said(good("train", config, "dtype=float64", "--out", run.parent / "b"))[0]
    assert said(good("check", config)) == []


@pytest.mark.parametrize("command", ["train", "eval", "predict", "check"])
def test_quiet_is_quiet_about_compiling(trained, first_command, command):
    assert good(*arguments(command, trained), "--quiet").err == ""


def test_a_command_with_compiled_kernels_loads_no_compiler(trained, tmp_path):
    """numba takes longer to import than all else that a small run does."""
    prepare.prepare("float64")
    code = (
        "import sys\n"
        "from mlp_cli.cli.main import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        "print([name for name in ('numba', 'scipy', 'pandas') if name in sys.modules], file=sys.stderr)"
    )
    for command in ("train", "eval", "predict", "check"):
        program = [sys.executable, "-c", code, *map(str, arguments(command, trained)), "--quiet"]
        done = subprocess.run(program, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.stderr == "[]\n", command
