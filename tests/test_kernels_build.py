"""Compiling: signatures, calls between kernels and from Python, and what must not get into machine code."""

import gc

import numpy as np
import pytest
from engine import DTYPES, Pair, configure, entry, examples
from llvmlite import ir

from mlp_cli.kernels import build, prepare
from mlp_cli.kernels.jit import ENTRIES, kernel
from mlp_cli.kernels.lanes import intrinsic, lanes_of, load, pointer_to, vload, vmul, vstore
from mlp_cli.kernels.library import Library

both_types = pytest.mark.parametrize("dtype", DTYPES)


@kernel("n(p)")
def square_vector(p):
    vstore(p, vmul(vload(p), vload(p)))


@kernel("f(p,f)")
def above(p, x):
    return load(p) + x


@entry("n(s[:])")
def fourth_power(x):
    square_vector(pointer_to(x))
    square_vector(pointer_to(x))


@entry("f(s[:],i)")
def increased(x, by):
    return above(pointer_to(x), by)


@entry("i(s[:])")
def lanes(x):
    return lanes_of(pointer_to(x))


@entry("f(s[:],table,f[:],i[:],rows)")
def corners(x, table, floats, ints, rows):
    return x[-1] + table[0, -1] + table[-1, 0] + floats[-1] + ints[-1] + rows[-1] + x.size + table.size


@entry("i(s[:],i)")
def trips(x, step):
    count = 0
    for _ in range(0, 6, step):
        count += 1
    return count


@both_types
def test_kernels_call_kernels(dtype):
    x = np.arange(1, 17, dtype=dtype)
    fourth_power(dtype, x)
    np.testing.assert_array_equal(x[: lanes(dtype, x)], np.arange(1, 1 + lanes(dtype, x)) ** 4.0)
    np.testing.assert_array_equal(x[lanes(dtype, x) :], np.arange(1 + lanes(dtype, x), 17))


@both_types
def test_an_argument_is_converted_to_the_declared_type(dtype):
    """No variant is compiled for an integer where the signature says a float."""
    assert increased(dtype, np.full(1, 0.5, dtype), 3) == 3.5


@both_types
def test_arrays_of_every_kind_arrive_whole(dtype):
    x = np.array([1, 2], dtype)
    table = np.array([[0, 0, 10], [20, 0, 0]], np.float64)
    floats, ints, rows = np.array([100.5]), np.array([0, 1000]), np.array([7, 3000], np.uint32)
    assert corners(dtype, x, table, floats, ints, rows) == 2 + 10 + 20 + 100.5 + 1000 + 3000 + 2 + 6


@pytest.mark.parametrize(
    "wrong",
    [np.zeros(4, np.float32), np.zeros(8)[::2], np.zeros((2, 2)), np.zeros(4, ">f8")],
    ids=["type", "strides", "dimensions", "byte order"],
)
def test_an_array_that_the_signature_does_not_name_is_refused(wrong):
    with pytest.raises(TypeError, match="expected a contiguous array of float64 in 1 dimensions"):
        increased("float64", wrong, 1)


def test_the_number_of_arguments_is_checked():
    with pytest.raises(ValueError, match="argument"):
        increased("float64", np.zeros(1))


def test_a_kernel_that_fails_is_noticed():
    """None should; numba's range refuses a step of 0."""
    assert trips("float64", np.zeros(1), 2) == 3
    with pytest.raises(RuntimeError, match="the kernel trips ended with status"):
        trips("float64", np.zeros(1), 0)


@intrinsic("n(p)")
def call_a_stranger(e, p):
    """A function that is neither ours nor of the C library."""
    e.call("mlp_test_no_such_function", ir.VoidType(), [])


@entry("n(s[:])")
def strange(x):
    call_a_stranger(pointer_to(x))


def test_what_would_not_load_is_not_built():
    """LLVM ends the process when a function is missing at the time of loading."""
    with pytest.raises(RuntimeError, match="C library's: mlp_test_no_such_function"):
        strange("float64", np.zeros(1))


@entry("n(s[:],i)")
def count_up(x, n):
    repeated(pointer_to(x), n)


@intrinsic("n(p,i)")
def repeated(e, p, n):
    """Every number of trips, whatever the unrolling."""

    def body(i):
        place = e.at(p, i)
        e.builder.store((e.load_scalar(place) + 1.0).llvm, place.llvm)

    for unroll in (1, 2, 4):
        e.repeat(n, unroll, body)


@pytest.mark.parametrize("n", range(10))
def test_an_unrolled_loop_makes_every_trip_once(n):
    x = np.zeros(12)
    count_up("float64", x, n)
    assert x.tolist() == [3.0] * n + [0.0] * (12 - n)


@both_types
def test_each_kernel_is_compiled_once_and_holds_no_python(dtype):
    """One copy of each kernel that was not inlined; no reference counts, no exceptions of Python."""
    with build.Build(dtype) as process:
        for declared in build.every_entry():
            process.type_of(declared)
        module = process.collection.linked()
    names = [function.name for function in module.functions if not function.is_declaration]
    kernels = [declared.__name__ for declared in process.types]
    for name in kernels:
        assert sum(f"{len(name)}{name}B" in mangled for mangled in names) == kernels.count(name), name
    assert not [function.name for function in module.functions if function.name.startswith(("NRT_", "Py", "numba_"))]


def test_the_entries_are_those_of_the_engine():
    assert {declared.__name__ for declared in build.every_entry()} >= {
        "train_steps", "evaluate_rows", "shuffle_rows", "draw_rows",
    }  # fmt: skip
    assert len({declared.__name__ for declared in ENTRIES}) == len(ENTRIES)


def test_nothing_is_compiled_twice(monkeypatch):
    """Whatever runs, however often: the kernels of a type are made ready once."""
    for dtype in DTYPES:
        prepare.prepare(dtype)

    def refuse(*_):
        raise AssertionError("compiled or read again")

    monkeypatch.setattr(prepare, "compile_apart", refuse)
    monkeypatch.setattr(prepare.Cache, "read", refuse)
    for dtype in DTYPES:
        for layers in ([{"activation": "softmax"}], [{"kind": "batch_norm"}, {"units": 3}, {}]):
            for optimizer in ("sgd", {"name": "adam", "clip_norm": 1.0}):
                loss = "cross_entropy" if len(layers) == 1 else "mse"
                config = configure(layers, loss, dtype=dtype, optimizer=optimizer)
                with Pair(config, examples(20, 3, 2, loss), batch_size=8, threads=2) as pair:
                    pair.machine.draws(config.training.sampling, 1)
                    pair.train()
                    pair.outputs()


def test_machine_code_lives_as_long_as_its_functions():
    code = build.build([fourth_power.kernel], "float64")
    function = Library(code).fourth_power
    gc.collect()
    x = np.full(8, 2.0)
    function(x)
    assert x.tolist() == [16.0] * 8
