"""What commands touch: they write to the run directory, the kernel cache and the file of -o, and run nobody's code."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

from cli import blobs, classifier, good

import mlp_cli
from mlp_cli.kernels import cache
from mlp_cli.runs.files import final_name

PACKAGE = Path(mlp_cli.__file__).parent
CACHE = cache.root()

# Runs the commands in one process, in which a hook of Python's own writes down everything that changes a file,
# starts a program or calls what a pickle names.
WATCHED = """
import json, os, sys
events = []

def hook(name, arguments):
    if name == "open":
        path, mode, flags = arguments
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        if writes and isinstance(path, (str, bytes, os.PathLike)):
            events.append(["write", os.path.abspath(os.fsdecode(path))])
    elif name in ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate", "os.chmod", "os.link", "os.symlink"):
        paths = [path for path in arguments if isinstance(path, (str, bytes, os.PathLike))]
        events.extend(["write", os.path.abspath(os.fsdecode(path))] for path in paths)
    elif name in ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system", "os.fork"):
        events.append(["start", os.path.basename(str(arguments[0] if arguments else name))])
    elif name == "pickle.find_class":
        frame, files = sys._getframe(1), set()
        while frame:
            files.add(frame.f_code.co_filename)
            frame = frame.f_back
        events.append(["pickle", sorted(files)])
    elif name.startswith("socket.") and name != "socket.gethostname":
        events.append(["network", name])

sys.addaudithook(hook)
from mlp_cli.cli.main import main

codes = [main(arguments) for arguments in json.loads(sys.argv[1])]
print(json.dumps([codes, events]), file=sys.__stderr__)
"""


def test_commands_write_where_they_should_and_run_nothing(tmp_path):
    good("warmup", "--dtype", "all")
    for name in ("in", "work", "home", "temporary"):
        (tmp_path / name).mkdir()
    data = blobs(tmp_path / "in" / "trees.csv")
    config = classifier(tmp_path / "in" / "trees.yaml", data)
    run, output = tmp_path / "work" / "run", tmp_path / "work" / "out.csv"
    commands = [
        ["train", config, "--out", run],
        ["train", config, "training.epochs=5", "--out", run, "--resume"],
        ["eval", run],
        ["predict", run, data, "-o", output],
        ["predict", run, data],
        ["inspect", run, "--json"],
        ["inspect", config],
        ["check", config],
        ["schema"],
    ]
    environment = {
        **os.environ,
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "temporary"),
        "MLP_CACHE_DIR": str(CACHE),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, json.dumps([[str(word) for word in command] for command in commands])],
        capture_output=True, text=True, env=environment, cwd=tmp_path / "work", timeout=600, check=True,
    )  # fmt: skip
    codes, events = json.loads(done.stderr.splitlines()[-1])
    assert codes == [0] * len(commands), done.stderr
    kinds = {kind for kind, _ in events}
    assert kinds <= {"write", "start", "pickle"}
    # git tells the commit for summary.json, uname (which Python's `platform` calls) the operating system
    assert {program for kind, program in events if kind == "start"} <= {"git", "uname"}
    # the compiler's cache is the only pickle, in a folder of our own, each file under a digest
    for kind, files in events:
        assert kind != "pickle" or any("numba" in file or "mlp_cli/kernels" in file for file in files), files
    written = {Path(path) for kind, path in events if kind == "write"}
    # a temporary file counts as the one that it becomes
    written = {path.with_name(final_name(path.name) or path.name) for path in written}
    allowed = (run, output, CACHE, Path(os.devnull))
    outside = [path for path in written if not any(path == place or place in path.parents for place in allowed)]
    assert outside == []
    # what a hook of Python's does not see, machine code, leaves nothing behind either
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["out.csv", "run"]
    assert [*(tmp_path / "home").iterdir(), *(tmp_path / "temporary").iterdir()] == []
    assert sorted(path.name for path in (tmp_path / "in").iterdir()) == ["trees.csv", "trees.yaml"]


UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "runpy", "code"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__"}
UNSAFE_FUNCTIONS = {"np.load", "numpy.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "os.system", "os.popen"}


def test_no_source_unpickles_or_evaluates():
    """Outside the kernels, whose compiler keeps its cache as pickles and whose code is generated."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.parent.name == "kernels":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            found += [(path.name, name) for name in names if name.partition(".")[0] in UNSAFE_MODULES]
            if isinstance(node, ast.Call):
                function = node.func
                if isinstance(function, ast.Name) and function.id in UNSAFE_CALLS:
                    found.append((path.name, function.id))
                unsafe = ast.unparse(function) in UNSAFE_FUNCTIONS
                if unsafe or any(word.arg in ("allow_pickle", "shell") for word in node.keywords):
                    found.append((path.name, ast.unparse(node)))
    assert found == []
