"""What a team of threads needs: atomics, a pause, and tasks claimed by compare-and-swap.

Every phase of a step is cut into tasks. A thread claims what nobody has begun and then waits only for tasks that
others have begun: a thread that the machine has put aside holds nobody up. (Fixed shares behind barriers were measured
100 times slower on a busy machine.)
"""

import platform

from llvmlite import ir

from mlp_cli.kernels.emit import INT32, INT64, Value
from mlp_cli.kernels.jit import kernel
from mlp_cli.kernels.lanes import intrinsic
from mlp_cli.kernels.layout import CLAIMS, DONE

_WORD = 8  # bytes of an int64


def _word(e, address: Value, index: Value):
    """A pointer to int64 number `index` at `address`."""
    moved = address + index * _WORD
    return e.builder.inttoptr(moved.llvm, INT64.as_pointer())


@intrinsic("i(u,i)", scalar="float64")
def atomic_load(e, address, index):
    """Read a word, with all that was written before it."""
    return Value(e, e.builder.load_atomic(_word(e, address, index), "acquire", 8))


@intrinsic("n(u,i,i)", scalar="float64")
def atomic_store(e, address, index, value):
    """Write a word, after all that was written before."""
    e.builder.store_atomic(value.llvm, _word(e, address, index), "release", 8)


@intrinsic("i(u,i,i)", scalar="float64")
def atomic_add(e, address, index, value):
    """Add, and return what was there before."""
    return Value(e, e.builder.atomic_rmw("add", _word(e, address, index), value.llvm, "acq_rel"))


@intrinsic("b(u,i,i,i)", scalar="float64")
def atomic_replace(e, address, index, expected, value):
    """Store `value` if `expected` is there; whether it was."""
    pair = e.builder.cmpxchg(_word(e, address, index), expected.llvm, value.llvm, "acq_rel", "acquire")
    return Value(e, e.builder.extract_value(pair, 1))


@intrinsic("n()", scalar="float64")
def pause(e):
    """Tell the processor that this is a waiting loop."""
    if platform.machine() in ("x86_64", "AMD64"):
        name, arguments = "llvm.x86.sse2.pause", []
    elif platform.machine() in ("arm64", "aarch64"):
        name, arguments = "llvm.aarch64.hint", [ir.Constant(INT32, 1)]  # yield
    else:
        return
    e.call(name, ir.VoidType(), arguments)


@intrinsic("n()", scalar="float64")
def give_way(e):
    """Give the processor to another thread or process that can use it."""
    e.call("sched_yield", INT32, [])


@kernel("b(u,i,i)")
def claim(control, task, generation):
    """Whether this thread is the one to run `task` of the phase `generation`."""
    word = CLAIMS + 8 * task
    return atomic_load(control, word) == generation and atomic_replace(control, word, generation, generation + 1)


@kernel("n(u,i,i)")
def wait_until_done(control, finished, spin):
    """Wait until `finished` tasks are done: spin for a while, then give the processor away in turns."""
    turns = 0
    while atomic_load(control, DONE) < finished:
        if turns < spin:
            pause()
            turns += 1
        else:
            give_way()
