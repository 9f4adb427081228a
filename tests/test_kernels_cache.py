"""Compiling: once for each type, found again by the next process, and never spoilt by what lies on the disk."""

import itertools

import numba
import numpy as np
import pytest
from engine import DTYPES, Pair, configure, examples

from mlp_cli.kernels import jit
from mlp_cli.kernels.lanes import pointer_to, vload, vmul, vstore

# --- two kernels in a cache of their own ------------------------------------------------------------------------


def square_vector(p):
    vstore(p, vmul(vload(p), vload(p)))


def fourth_power(x):
    square(pointer_to(x))
    square(pointer_to(x))


square = None  # the dispatcher of `square_vector`, as the next process would make it


class Process:
    """What a new process does: declare the kernels, prepare them, call one."""

    def __init__(self, monkeypatch):
        global square
        monkeypatch.setattr(jit, "KERNELS", [])
        monkeypatch.setattr(jit, "_ready", set())
        square = jit.kernel("n(p)")(square_vector)
        self.fourth = jit.kernel("n(s[:])", entry=True)(fourth_power)
        self.square = square

    def prepare(self, dtype="float64"):
        jit.prepare(dtype)
        x = np.arange(16, dtype=dtype)
        self.fourth(x)
        lanes = 64 // x.itemsize
        np.testing.assert_array_equal(x[:lanes], np.arange(lanes) ** 4.0)
        return self

    @property
    def compiled(self):
        """How many kernels were compiled, rather than found."""
        return sum(sum(dispatcher.stats.cache_misses.values()) for dispatcher in (self.square, self.fourth))

    @property
    def found(self):
        return sum(sum(dispatcher.stats.cache_hits.values()) for dispatcher in (self.square, self.fourth))


@pytest.fixture
def process(tmp_path, monkeypatch):
    """A function that starts such processes on one empty cache folder."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setattr(jit, "CACHE_FOLDER", folder)
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(folder))
    return lambda: Process(monkeypatch)


def files(ending):
    return sorted(jit.CACHE_FOLDER.rglob(f"*.{ending}"))


def test_the_next_process_finds_what_this_one_compiled(process):
    assert not jit.is_cached("float64")
    assert process().prepare().compiled == 2
    assert jit.is_cached("float64")
    later = process().prepare()
    assert (later.compiled, later.found) == (0, 1)  # the entry's machine code holds the callee


def test_each_type_is_compiled_by_itself(process):
    process().prepare("float64")
    assert not jit.is_cached("float32")
    assert process().prepare("float32").compiled == 2
    assert jit.is_cached("float32")
    both = process().prepare("float32").prepare("float64")
    assert (both.compiled, both.found) == (0, 2)
    assert len(files("nbc")) == 4


def test_another_processor_has_files_of_its_own(process, monkeypatch):
    process().prepare()
    monkeypatch.setenv("NUMBA_CPU_NAME", "haswell")
    assert not jit.is_cached("float64")


def truncate(content):
    return content[: len(content) // 2]


def empty(content):
    return b""


def change_a_bit(content):
    middle = len(content) * 2 // 3
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def replace(content):
    return b"\x80\x05 not what was here" * 40


DAMAGES = (truncate, empty, change_a_bit, replace)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("ending", ["nbc", "nbi"])
@pytest.mark.parametrize("complete", [True, False], ids=["complete", "interrupted"])
def test_a_damaged_file_is_compiled_again(process, damage, ending, complete):
    process().prepare()
    for file in files(ending):
        file.write_bytes(damage(file.read_bytes()))
    if not complete:
        next(jit.CACHE_FOLDER.rglob("complete")).unlink()
    assert not jit.is_cached("float64")
    assert process().prepare().compiled == 2
    assert jit.is_cached("float64")
    assert process().prepare().compiled == 0


def test_no_changed_bit_is_loaded(process):
    """Machine code with a wrong bit crashes when it is loaded, or worse, computes."""
    process().prepare()
    file = next(file for file in files("nbc") if "fourth" in file.name)
    content = file.read_bytes()
    for place in np.linspace(0, len(content) - 1, 50).astype(int):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        file.write_bytes(changed)
        assert not jit.is_cached("float64")
    file.write_bytes(content)
    assert jit.is_cached("float64")


def test_a_missing_file_is_compiled_again(process):
    process().prepare()
    for file in files("nbc"):
        file.unlink()
    assert process().prepare().compiled > 0


def test_a_source_that_was_only_touched_is_still_known(process, monkeypatch):
    """A checkout or a new install gives the sources other times, and the same content."""
    process().prepare()
    stamps = iter(itertools.count())
    monkeypatch.setattr(
        numba.core.caching._SourceFileBackedLocatorMixin, "get_source_stamp", lambda self: (next(stamps), 0)
    )
    assert process().prepare().compiled == 0


def test_a_disk_without_room_is_no_reason_to_stop(process, monkeypatch):
    def no_room(self, path, what):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(jit.CacheFiles, "_write", no_room)
    process().prepare("float32").prepare("float64")
    assert not jit.is_cached("float32")


def test_a_folder_that_vanished_is_no_reason_to_stop(process, monkeypatch):
    started = process()
    monkeypatch.setattr(jit, "CACHE_FOLDER", jit.CACHE_FOLDER / "file" / "below")
    (jit.CACHE_FOLDER.parent).write_bytes(b"")
    started.prepare()


def test_without_a_writable_place_kernels_are_compiled_for_this_process(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("MLP_CACHE_DIR", str(tmp_path / "file"))
    assert jit._writable_folder() is None
    monkeypatch.setattr(jit, "CACHE_FOLDER", None)
    assert not jit.is_cached("float64")
    assert Process(monkeypatch).prepare().found == 0


@pytest.mark.parametrize("variable", ["MLP_CACHE_DIR", "XDG_CACHE_HOME"])
def test_the_cache_lies_where_the_environment_says(tmp_path, monkeypatch, variable):
    monkeypatch.delenv("MLP_CACHE_DIR", raising=False)
    monkeypatch.setattr(jit.sys, "platform", "linux")
    monkeypatch.setenv(variable, str(tmp_path))
    folder = jit._writable_folder()
    assert folder.is_dir()
    assert folder.is_relative_to(tmp_path)


# --- the engine -------------------------------------------------------------------------------------------------


def test_nothing_is_compiled_twice():
    """One signature of every entry kernel for each type, whatever runs."""
    entries = [declared.dispatcher for declared in jit.KERNELS if declared.entry]
    for again in range(2):
        for dtype in DTYPES:
            for layers in ([{"activation": "softmax"}], [{"kind": "batch_norm"}, {"units": 3}, {}]):
                for optimizer in ("sgd", {"name": "adam", "clip_norm": 1.0}):
                    loss = "cross_entropy" if len(layers) == 1 else "mse"
                    config = configure(layers, loss, dtype=dtype, optimizer=optimizer)
                    with Pair(config, examples(20, 3, 2, loss), batch_size=8, threads=1 + again) as pair:
                        pair.machine.draws(config.training.sampling, 1)
                        pair.train()
                        pair.outputs()
    signatures = {dispatcher.py_func.__name__: len(dispatcher.signatures) for dispatcher in entries}
    assert set(signatures) == {"train_steps", "evaluate_rows", "shuffle_rows", "draw_rows", "iterate"}
    assert set(signatures.values()) == {2}


def test_every_kernel_declares_a_signature_and_lets_other_threads_run():
    for declared in jit.KERNELS:
        options = declared.dispatcher.targetoptions
        assert options["nogil"]
        assert options["error_model"] == "numpy"
        assert not options.get("fastmath")
