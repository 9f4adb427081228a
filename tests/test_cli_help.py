"""Help, version, mistakes on the command line, and what is imported on the way there."""

import json
import subprocess
import sys

import pytest
from cli import blobs, classifier, mlp

pytestmark = pytest.mark.smoke

COMMANDS = ("train", "eval", "predict", "inspect", "check", "schema", "bench", "warmup")
LATER = ("init", "plot", "export")

GROUP_HELP = """\
Usage: mlp [OPTIONS] COMMAND [ARGS]...

  Train multilayer perceptrons from YAML configs.

  mlp train configs/digits.yaml            train, and see where the result lies
  mlp eval runs/digits-001                 measure it on its test rows
  mlp predict runs/digits-001 rows.csv     predict for raw rows

Options:
  --version   Show the version and exit.
  -h, --help  Show this message and exit.

Commands:
  train    Train a network.
  eval     Measure a trained network on a split or a file.
  predict  Predict for raw rows.
  inspect  Show a network: layers, preprocessing, provenance.
  check    Check a config, its data and its gradients; train nothing.
  schema   Print the JSON Schema of the config.
  bench    Measure how near training comes to the limit of this machine.
  warmup   Compile the kernels now instead of at the first run.
"""

# What each command must offer, as the contract spells it.
OPTIONS = {
    "train": ("--out", "--resume", "--force", "--threads", "--json", "--quiet"),
    "eval": ("--split", "--require", "--json", "--quiet"),
    "predict": ("-o", "--keep", "--quiet"),
    "inspect": ("--json", "--quiet"),
    "check": ("--json", "--quiet"),
    "schema": (),
    "bench": ("--threads", "--dtype", "--seconds", "--json", "--quiet"),
    "warmup": ("--dtype", "--json", "--quiet", "MLP_CACHE_DIR"),
}


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_of_the_group(flag):
    done = mlp(flag)
    assert (done.code, done.out, done.err) == (0, GROUP_HELP, "")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command(command):
    done = mlp(command, "--help")
    assert done.code == 0
    assert done.err == ""
    assert done.out.startswith(f"Usage: mlp {command} ")
    for option in (*OPTIONS[command], "-h, --help"):
        assert option in done.out
    # with an example that can be typed
    assert f"\n  mlp {command} " in done.out
    assert mlp(command, "-h").out == done.out


def test_version():
    from mlp_cli import __version__

    done = mlp("--version")
    assert (done.code, done.out, done.err) == (0, f"mlp, version {__version__}\n", "")


def test_no_command_shows_the_help():
    done = mlp()
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("Usage: mlp [OPTIONS] COMMAND [ARGS]...")


MISTAKES = {
    ("tran",): f"expected a command ({', '.join(COMMANDS)}); got 'tran'. Did you mean train?",
    ("frobnicate",): f"expected a command ({', '.join(COMMANDS)}); got 'frobnicate'.",
    ("train",): "Missing argument 'CONFIG... [key=value ...]'.",
    ("train", "--threads", "0", "c.yaml"): "Invalid value for '--threads': 0 is not in the range 1<=x<=1024.",
    ("train", "--threads", "two", "c.yaml"): "Invalid value for '--threads': 'two' is not a valid integer range.",
    ("train", "seed=1"): "expected at least one config file, as in `mlp train configs/digits.yaml`",
    ("eval",): "Missing argument 'MODEL'.",
    ("eval", "m", "a.csv", "--split", "test"): (
        "--split names rows of the run, and DATA is another file: give only one of them"
    ),
    ("eval", "m", "--split", "tests"): (
        "Invalid value for '--split': 'tests' is not one of 'train', 'validation', 'test'."
    ),
    ("eval", "m", "--require", "accuracy"): (
        "--require: expected a metric, one of >= <= > <, and a number, as in 'accuracy>=0.97'; got 'accuracy'"
    ),
    ("eval", "m", "--require", "accuracy>=high"): (
        "--require: expected a metric, one of >= <= > <, and a number, as in 'accuracy>=0.97'; got 'accuracy>=high'"
    ),
    ("predict", "m"): "Missing argument 'DATA'.",
    ("check",): "Missing argument 'CONFIG... [key=value ...]'.",
    ("inspect",): "Missing argument 'MODEL|CONFIG [key=value ...]'.",
    ("inspect", "a", "b"): "expected one run directory or checkpoint, or configs that end in .yaml or .yml",
    ("schema", "extra"): "Got unexpected extra argument (extra)",
    ("bench", "configs/xor.yaml"): "Got unexpected extra argument (configs/xor.yaml)",
    ("bench", "--threads", "0"): "Invalid value for '--threads': 0 is not in the range 1<=x<=1024.",
    ("bench", "--seconds", "0"): "Invalid value for '--seconds': 0.0 is not in the range 0<x<=3600.",
    ("bench", "--dtype", "float16"): "Invalid value for '--dtype': 'float16' is not one of 'float32', 'float64'.",
    ("warmup", "--dtype", "both"): ("Invalid value for '--dtype': 'both' is not one of 'float32', 'float64', 'all'."),
}


@pytest.mark.parametrize("arguments", MISTAKES, ids=" ".join)
def test_mistakes_on_the_command_line(arguments):
    done = mlp(*arguments)
    command = f" {arguments[0]}" if arguments[0] in COMMANDS else ""
    assert done.err == f"Error: {MISTAKES[arguments]}\nSee `mlp{command} --help`.\n"
    assert (done.code, done.out) == (2, "")


@pytest.mark.parametrize("arguments", [["train", "--outt", "x", "c.yaml"], ["train", "c.yaml", "--out"]], ids=" ".join)
def test_mistakes_in_options_name_the_option(arguments):
    done = mlp(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("Error: ")
    assert "--out" in done.err.partition("\n")[0].replace("--outt", "")


@pytest.mark.parametrize("command", LATER)
def test_commands_of_later_days_are_absent(command):
    assert mlp(command).code == 2
    assert command not in mlp("--help").out.split("Commands:")[1]


def test_schema_is_a_json_schema_of_the_config():
    done = mlp("schema")
    schema = done.json
    assert (done.code, done.err) == (0, "")
    assert schema["type"] == "object"
    assert {"seed", "dtype", "data", "network", "loss", "optimizer", "learning_rate", "regularization", "training"} <= (
        schema["properties"].keys()
    )


# Imports


def imported(*arguments) -> tuple[int, set[str]]:
    """Exit code of a command in a fresh interpreter, and the top-level modules that it imported."""
    code = (
        "import sys, os, json\n"
        "from mlp_cli.cli.main import main\n"
        f"code = main({[str(argument) for argument in arguments]!r})\n"
        "modules = sorted({name.partition('.')[0] for name in sys.modules})\n"
        "print('\\n' + json.dumps([code, modules]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return found[0], set(found[1])


HEAVY = {"numba", "llvmlite", "numpy", "pydantic", "pyarrow", "safetensors", "yaml", "tqdm"}


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["tran"]], ids=" ".join)
def test_help_imports_nothing_heavy(arguments):
    _, modules = imported(*arguments)
    assert modules & HEAVY == set()


def test_an_error_in_the_config_imports_no_kernels_and_reads_no_data(tmp_path):
    config = classifier(tmp_path / "c.yaml", blobs(tmp_path / "trees.csv"), optimiser="sgd")
    code, modules = imported("train", config, "--out", tmp_path / "run")
    assert code == 2
    assert modules & {"numba", "llvmlite", "pyarrow"} == set()
    assert not (tmp_path / "run").exists()
