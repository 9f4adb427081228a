"""The compiled kernels on disk: compiled once for each machine, found again, and never spoilt by what happens there."""

import contextlib
import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from cli import start

from mlp_cli.errors import MlpError, SystemFault
from mlp_cli.kernels import cache, jit, prepare
from mlp_cli.kernels.build import build
from mlp_cli.kernels.cache import Cache
from mlp_cli.kernels.lanes import pointer_to, vload, vmul, vstore

# --- one kernel in a cache of its own ---------------------------------------------------------------------------


@jit.kernel("n(p)")
def square_vector(p):
    vstore(p, vmul(vload(p), vload(p)))


def fourth_power(x):
    square_vector(pointer_to(x))
    square_vector(pointer_to(x))


def compiled(dtype):
    """What the compiler gives in these tests: small machine code instead of all kernels."""
    return build([jit.Kernel(fourth_power, "n(s[:])", entry=True)], dtype).to_bytes()


CODE = {}


class Process:
    """What a new process does: make the kernels ready, call one. Remembers what was said and compiled."""

    def __init__(self, monkeypatch):
        self.compiled, self.said, self.warned = [], [], []
        self.waits = threading.Event()
        monkeypatch.setattr(prepare, "_ready", {})
        monkeypatch.setattr(prepare, "compile_apart", self.compile)

    def compile(self, dtype):
        self.compiled.append(dtype)
        if dtype not in CODE:
            CODE[dtype] = compiled(dtype)
        return CODE[dtype]

    def say(self, text):
        self.said.append(text)
        if "waiting" in text:
            self.waits.set()

    def prepare(self, dtype="float64"):
        library = prepare.prepare(dtype, self.say, self.warned.append)
        x = np.arange(16, dtype=dtype)
        library.fourth_power(x)
        lanes = 64 // x.itemsize
        np.testing.assert_array_equal(x[:lanes], np.arange(lanes) ** 4.0)
        return self


@pytest.fixture
def process(tmp_path, monkeypatch):
    """A function that starts such processes on one empty cache folder."""
    monkeypatch.setenv("MLP_CACHE_DIR", str(tmp_path / "cache"))
    before = os.umask(0o022)
    yield lambda: Process(monkeypatch)
    os.umask(before)


def test_the_next_process_finds_what_this_one_compiled(process):
    first = process().prepare()
    assert first.compiled == ["float64"]
    assert [text.split()[0] for text in first.said] == ["Compiling", "Compiled"]
    later = process().prepare()
    assert (later.compiled, later.said, later.warned) == ([], [], [])


def test_each_type_is_compiled_by_itself(process):
    process().prepare("float64")
    assert process().prepare("float32").compiled == ["float32"]
    assert process().prepare("float32").prepare("float64").compiled == []


def test_another_processor_has_files_of_its_own(process, monkeypatch):
    process().prepare()
    monkeypatch.setenv("NUMBA_CPU_NAME", "haswell")
    assert Cache("float64").read() is None
    monkeypatch.delenv("NUMBA_CPU_NAME")
    monkeypatch.setenv("NUMBA_CPU_FEATURES", "+avx2,-avx512f")
    assert Cache("float64").read() is None


def test_the_version_is_that_of_the_sources_not_of_their_times(tmp_path, monkeypatch):
    """A new install gives the sources other times; an edit of any, of a callee for example, another version."""
    version = cache.version()
    copy = tmp_path / "kernels"
    shutil.copytree(Path(cache.__file__).parent, copy, copy_function=shutil.copyfile)
    monkeypatch.setattr(cache, "__file__", str(copy / "cache.py"))
    assert cache.version() == version
    with open(copy / "memory.py", "a") as source:
        source.write("\n")
    assert cache.version() != version


# --- damage -----------------------------------------------------------------------------------------------------


def truncate(content):
    return content[: len(content) // 2]


def empty(content):
    return b""


def change_a_bit(content):
    middle = len(content) * 2 // 3
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def replace(content):
    return b"\x80\x05 not what was here" * 40


@pytest.mark.parametrize("damage", [truncate, empty, change_a_bit, replace])
def test_a_damaged_file_is_compiled_again_with_a_warning(process, damage):
    process().prepare()
    path = Cache("float64").path
    path.write_bytes(damage(path.read_bytes()))
    again = process().prepare()
    assert again.compiled == ["float64"]
    assert again.warned == [f"{path}: the compiled kernels are damaged; compiling them again"]
    later = process().prepare()
    assert (later.compiled, later.warned) == ([], [])


def test_no_changed_bit_is_loaded(process):
    """Machine code with a wrong bit crashes when it is loaded, or worse, computes."""
    process().prepare()
    path = Cache("float64").path
    content = path.read_bytes()
    for place in np.linspace(0, len(content) - 1, 100).astype(int):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises(cache.Damaged):
            Cache("float64").read()
    path.write_bytes(content)
    assert Cache("float64").read() == CODE["float64"]


def test_a_file_of_another_type_or_version_is_foreign(process, monkeypatch):
    process().prepare("float32").prepare("float64")
    here = Cache("float64")
    shutil.copy(Cache("float32").path, here.path)
    assert process().prepare().compiled == ["float64"]
    monkeypatch.setattr(cache, "version", lambda: "0" * 20)
    there = Cache("float64")
    there.folder.mkdir()
    shutil.copy(here.path, there.path)
    assert process().prepare().compiled == ["float64"]


def test_a_folder_in_place_of_the_file_is_no_reason_to_stop(process):
    Cache("float64").path.mkdir(parents=True)
    done = process().prepare()
    assert done.compiled == ["float64"]
    assert [text.partition(": ")[2] for text in done.warned] == [cannot_keep("Is a directory")]


# --- a cache that cannot be written -----------------------------------------------------------------------------


def cannot_keep(reason):
    return (
        f"cannot keep the compiled kernels ({reason}), so the next run compiles them again; "
        "MLP_CACHE_DIR names another folder"
    )


def leftovers():
    """Files of the cache that are neither a lock nor whole."""
    folder = Cache("float64").folder
    return [path for path in folder.iterdir() if path.suffix != ".lock"] if folder.exists() else []


@contextlib.contextmanager
def largest_file(size):
    """A disk on which no file can become larger."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [0, 100])
def test_a_disk_without_room_is_no_reason_to_stop(process, size):
    small = process()
    small.compile("float64")
    with largest_file(size):
        small.prepare()
    assert small.warned == [f"{Cache('float64').folder}: {cannot_keep('File too large')}"]
    assert leftovers() == []
    assert process().prepare().warned == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES])
@pytest.mark.parametrize("call", ["open", "replace"])
def test_no_refusal_of_the_disk_is_a_reason_to_stop(process, monkeypatch, number, call):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(cache.os, call, refuse)
        done = process().prepare()
    assert done.warned == [f"{Cache('float64').folder}: {cannot_keep(os.strerror(number))}"]
    assert leftovers() == []


def test_a_place_that_cannot_be_a_folder_is_no_reason_to_stop(process, tmp_path):
    (tmp_path / "cache").write_bytes(b"")
    done = process().prepare()
    assert [text.partition(": ")[2] for text in done.warned] == [cannot_keep("Not a directory")]
    assert len(process().prepare("float64").warned) == 1


def test_kernels_are_found_in_a_folder_that_cannot_be_written(process, monkeypatch):
    process().prepare()

    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for name in ("open", "mkdir", "utime", "replace"):
        monkeypatch.setattr(cache.os, name, refuse)
    monkeypatch.setattr(cache, "USE_NOTED_EVERY", -1)
    done = process().prepare()
    assert (done.compiled, done.warned) == ([], [])


def test_nobody_at_home_is_no_reason_to_stop(process, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("MLP_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(cache.Path, "home", homeless)
    done = process().prepare()
    assert done.compiled == ["float64"]
    assert len(done.warned) == 1


@pytest.mark.parametrize(
    ("platform", "variable", "place"),
    [
        ("linux", "MLP_CACHE_DIR", "."),
        ("darwin", "MLP_CACHE_DIR", "."),
        ("linux", "XDG_CACHE_HOME", "mlp"),
        ("linux", "HOME", ".cache/mlp"),
        ("darwin", "HOME", "Library/Caches/mlp"),
    ],
)
def test_the_cache_lies_where_the_environment_says(tmp_path, monkeypatch, platform, variable, place):
    for name in ("MLP_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cache.sys, "platform", platform)
    monkeypatch.setenv(variable, str(tmp_path))
    assert cache.root() == tmp_path / place


# --- old folders ------------------------------------------------------------------------------------------------

DAY = 24 * 3600


def aged(folder, days):
    """A folder with a file that was last used so many days ago."""
    folder.mkdir(parents=True)
    for path in (folder / "float32-x.code", folder):
        path.touch()
        os.utime(path, (time.time() - days * DAY,) * 2)
    return folder


def test_folders_unused_for_a_month_are_removed_when_kernels_are_compiled(process):
    root = cache.root()
    old, recent = aged(root / f"kernels-{'a' * 20}", 31), aged(root / f"kernels-{'b' * 20}", 29)
    others = [aged(root / name, 400) for name in ("kernels-of-mine", "kernels-" + "c" * 19, "notes")]
    process().prepare()
    assert not old.exists()
    assert all(folder.exists() for folder in (recent, *others))
    assert len(list(recent.iterdir())) == 1


def test_a_use_is_noted(process):
    process().prepare()
    path = Cache("float64").path
    long_ago = time.time() - 20 * DAY
    os.utime(path, (long_ago, long_ago))
    process().prepare()
    assert path.stat().st_mtime > time.time() - DAY


def test_the_folder_in_use_is_never_removed(process):
    process().prepare()
    here = Cache("float64")
    for path in (*here.folder.iterdir(), here.folder):
        os.utime(path, (0, 0))
    here.prune()
    assert here.path.exists()


def test_a_folder_that_cannot_be_removed_is_no_reason_to_stop(process, monkeypatch):
    old = aged(cache.root() / f"kernels-{'a' * 20}", 31)

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        for name in ("unlink", "rmdir"):
            patch.setattr(os, name, refuse)
        done = process().prepare()
    assert (done.compiled, done.warned) == (["float64"], [])
    assert old.exists()


# --- several processes ------------------------------------------------------------------------------------------

ONE_OF_MANY = """
import sys, time
sys.path.insert(0, sys.argv[1])
import test_kernels_cache
from mlp_cli.kernels import prepare
said = []

def compile_slowly(dtype):
    print("compiles", flush=True)
    return test_kernels_cache.compiled(dtype)

prepare.compile_apart = compile_slowly
sys.stdin.readline()  # all begin together
prepare.prepare("float64", said.append, said.append).fourth_power
print("waited" if any("waiting" in text for text in said) else "did not wait")
"""


def test_eight_processes_that_start_at_once_compile_once(process):
    command = [sys.executable, "-c", ONE_OF_MANY, str(Path(__file__).parent)]
    given = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **given) for _ in range(8)]
    for one in processes:
        one.stdin.write("go\n")
        one.stdin.flush()
    ends = [one.communicate(timeout=300) for one in processes]
    assert [one.returncode for one in processes] == [0] * 8, [err for _, err in ends]
    assert sum("compiles" in out for out, _ in ends) == 1


def begin(process):
    """A process of these tests in the background; to be joined."""
    thread = threading.Thread(target=process.prepare)
    thread.start()
    return thread


def test_a_process_waits_for_another_ones_compiler_and_takes_what_it_made(process):
    here, other = process(), Cache("float64")
    with other.lock(lambda: None):
        thread = begin(here)
        assert here.waits.wait(60)
        other.write(compiled("float64"))
    thread.join()
    assert here.said == ["Another process is compiling the float64 kernels: waiting for it …"]
    assert here.compiled == []


HOLD = """
import sys
from mlp_cli.kernels.cache import Cache
with Cache("float64").lock(lambda: None):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def holder():
    """A process that holds the lock, as one does that compiles."""
    command = [sys.executable, "-c", HOLD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"held\n"
            yield process
        finally:
            process.kill()


def test_the_work_of_a_process_that_died_is_taken_over(process):
    here = process()
    with holder() as other:
        thread = begin(here)
        assert here.waits.wait(60)
        other.send_signal(signal.SIGKILL)
        thread.join()
    assert here.compiled == ["float64"]
    assert process().prepare().compiled == []


def test_without_locks_each_process_compiles(process, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(cache.fcntl, "flock", no_locks)
    done = process().prepare()
    assert (done.compiled, done.warned) == (["float64"], [])
    assert process().prepare().compiled == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_ends_the_wait_for_another_process(tmp_path, monkeypatch, number):
    monkeypatch.setenv("MLP_CACHE_DIR", str(tmp_path / "cache"))
    with holder(), start("warmup", "--dtype", "float64") as waiting:
        next(line for line in waiting.stderr if "waiting for it" in line)
        waiting.send_signal(number)
        _, rest = waiting.communicate(timeout=120)
    assert waiting.returncode == (130 if number == signal.SIGINT else 75)
    assert rest == ("Interrupted.\n" if number == signal.SIGINT else f"Stopped by {signal.Signals(number).name}.\n")


# --- the compiler's process -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_training_stops_while_its_kernels_are_compiled(tmp_path, number):
    """The first run on a machine: there is nothing to save, and `--resume` begins afresh."""
    repository = Path(__file__).parents[1]
    arguments = ["train", repository / "configs" / "xor.yaml", "training.epochs=1", "--out", tmp_path / "run"]
    folder = tmp_path / "cache"
    with start(*arguments, environment={"MLP_CACHE_DIR": str(folder)}) as running:
        for line in running.stderr:
            if line.startswith("Compiling"):
                break
        running.send_signal(number)
        _, rest = running.communicate(timeout=120)
    assert running.returncode == (130 if number == signal.SIGINT else 75)
    assert rest.strip().endswith("nothing was trained yet")
    assert not list(folder.rglob("*.code")), "compilation was over before the signal"
    with start(*arguments, "--resume") as again:
        assert again.communicate(timeout=120)[1]
    assert again.returncode == 0


def interpreter(folder, monkeypatch, script):
    """A program in place of Python, so in place of the compiler."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(prepare.sys, "executable", str(path))


def test_a_compiler_that_was_killed_is_a_fault_of_the_system(tmp_path, monkeypatch):
    interpreter(tmp_path, monkeypatch, "kill -KILL $$")
    with pytest.raises(SystemFault, match="The compiler of the kernels was ended by SIGKILL"):
        prepare.compile_apart("float64")


def test_a_compiler_that_failed_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.delenv("MLP_DEBUG", raising=False)
    interpreter(tmp_path, monkeypatch, "echo a warning >&2; echo TypingError: no such type >&2; exit 1")
    with pytest.raises(MlpError, match="could not be compiled: TypingError: no such type") as e:
        prepare.compile_apart("float64")
    assert "a warning" not in str(e.value)
    monkeypatch.setenv("MLP_DEBUG", "1")
    with pytest.raises(MlpError, match="a warning"):
        prepare.compile_apart("float64")


def test_long_outputs_of_a_slow_compiler_arrive_whole(tmp_path, monkeypatch):
    interpreter(tmp_path, monkeypatch, "for i in 1 2 3 4; do head -c 200000 /dev/zero; sleep 0.1; done")
    assert prepare.compile_apart("float64") == bytes(800_000)


def test_a_failing_compiler_says_why_in_a_line():
    reader, writer = os.pipe()
    done = subprocess.run(
        [sys.executable, "-c", "from mlp_cli.kernels.build import main; main()", "float16"],
        capture_output=True, text=True, check=False, stdin=reader,
        env={name: value for name, value in os.environ.items() if name != "MLP_DEBUG"},
    )  # fmt: skip
    os.close(reader)
    os.close(writer)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "KeyError: 'float16'\n"


def test_where_no_process_can_be_started_this_one_compiles(monkeypatch):
    def no_more_processes(*_, **__):
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(prepare.subprocess, "Popen", no_more_processes)
    monkeypatch.setattr("mlp_cli.kernels.build.machine_code", lambda dtype: f"code for {dtype}".encode())
    assert prepare.compile_apart("float32") == b"code for float32"


def test_the_compiler_sees_our_package_and_only_the_settings_that_are_meant(tmp_path, monkeypatch):
    """A numba.py of the user's directory is not numba; NUMBA_DISABLE_JIT is meant for other programs."""
    (tmp_path / "numba.py").write_text("raise SystemExit('not numba')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    monkeypatch.setenv("NUMBA_CPU_NAME", "generic")
    environment = prepare._environment()
    assert "NUMBA_DISABLE_JIT" not in environment
    assert environment["NUMBA_CPU_NAME"] == "generic"
    code = "import numba, mlp_cli; print(numba.__version__, mlp_cli.__file__)"
    done = subprocess.run([sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.rstrip("\n").partition(" ")[2] == prepare.mlp_cli.__file__
