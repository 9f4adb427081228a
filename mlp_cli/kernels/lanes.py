"""Vectors in kernels: the intrinsics that load, store and combine them.

A vector is 64 bytes: 16 float32 or 8 float64. LLVM splits it where the machine's registers are narrower, so one
source serves every processor and gives the same bits on each. Memory is reached through typed pointers; `at(p, n)`
moves one by n elements. `@intrinsic("v(p,i)")` turns a code generator (see `emit`) into a function for kernels.
"""

import math
from collections.abc import Callable

from llvmlite import ir

from mlp_cli.kernels.emit import INT32, INT64, Value
from mlp_cli.kernels.signatures import parse


class Intrinsic:
    """A code generator that kernels call like a function. The letters of its signature are those of `signatures`."""

    def __init__(self, emit: Callable, signature: str, scalar: str | None):
        self.emit, self.scalar = emit, scalar
        self.result, self.letters = parse(signature)
        self.__name__, self.__doc__ = emit.__name__, emit.__doc__

    @property
    def _numba_type_(self):
        """What numba makes of the name where a kernel mentions it."""
        from mlp_cli.kernels.dialect import intrinsic_type

        return intrinsic_type(self)


def intrinsic(signature: str, scalar: str | None = None):
    """Make a code generator `emit(e, *values)` callable from kernels, `@intrinsic("v(p,i)")`.

    The scalar type is that of the first v, p or a among the arguments unless it is given. Of an array (a) the
    generator receives the address of the first element.
    """
    return lambda emit: Intrinsic(emit, signature, scalar)


# Pointers


@intrinsic("p(p,i)")
def at(e, pointer, n):
    """The address n elements on."""
    return e.at(pointer, n)


@intrinsic("p(p,u)")
def like(e, pointer, address):
    """An address as a pointer of the same type."""
    return Value(e, e.builder.inttoptr(address.llvm, pointer.type))


@intrinsic("f(p)")
def load(e, pointer):
    """One element, as float64."""
    return e.to_double(e.load_scalar(pointer))


@intrinsic("n(p,f)")
def store(e, pointer, x):
    """Round a float64 to the element's type and store it."""
    e.builder.store(e.from_double(x).llvm, pointer.llvm, align=e.bits // 8)


# Vectors


@intrinsic("v(p)")
def vload(e, pointer):
    """A vector from memory."""
    return e.load(pointer)


@intrinsic("n(p,v)")
def vstore(e, pointer, x):
    """A vector to memory."""
    e.store(pointer, x)


@intrinsic("v(p,i)")
def vload_first(e, pointer, n):
    """The first n elements, and zeros in the other lanes; nothing beyond them is read."""
    return e.load_first(pointer, n)


@intrinsic("n(p,v,i)")
def vstore_first(e, pointer, x, n):
    """Store the first n lanes only."""
    e.store_first(pointer, x, n)


@intrinsic("n(p,i)")
def prefetch_vectors(e, pointer, n):
    """Ask for the cache lines of n vectors that will be used at once, as far as the first level."""
    with e.loop(n) as i:
        _prefetch(e, e.at(pointer, i * e.lanes), 3)


@intrinsic("n(a,i)", scalar="float64")
def prefetch_element(e, address, n):
    """Ask for the cache line of element n of an array, as far as the first level."""
    _prefetch(e, e.at(address, n), 3)


def _prefetch(e, pointer, level):
    to_read, level, data = (ir.Constant(INT32, i) for i in (0, level, 1))
    e.call("llvm.prefetch.p0", ir.VoidType(), [pointer.llvm, to_read, level, data])


@intrinsic("v(p)")
def vbroadcast(e, pointer):
    """One element in every lane."""
    return e.splat(e.load_scalar(pointer))


@intrinsic("v(p,f)")
def vfull(e, pointer, x):
    """A number, rounded to the pointer's element type, in every lane."""
    return e.splat_double(x)


@intrinsic("v(v,v,v)")
def vfma(e, a, b, c):
    """a b + c, rounded once."""
    return e.fma(a, b, c)


@intrinsic("v(v,v)")
def vadd(e, a, b):
    """a + b."""
    return a + b


@intrinsic("v(v,v)")
def vsub(e, a, b):
    """a - b."""
    return a - b


@intrinsic("v(v,v)")
def vmul(e, a, b):
    """a b."""
    return a * b


@intrinsic("v(v,v)")
def vdiv(e, a, b):
    """a / b."""
    return a / b


@intrinsic("v(v)")
def vsqrt(e, a):
    """The square root of every lane."""
    return e.sqrt(a)


@intrinsic("v(v,v)")
def vmax(e, a, b):
    """The larger of each two lanes (`Emit.maximum`)."""
    return e.maximum(a, b)


@intrinsic("v(v,v)")
def vmin(e, a, b):
    """The smaller of each two lanes (`Emit.minimum`)."""
    return e.minimum(a, b)


@intrinsic("v(v,i,f)")
def vfirst(e, x, n, rest):
    """The first n lanes of x, and the number `rest` in the others."""
    return e.where(e.first_lanes(n), x, e.splat_double(rest))


@intrinsic("f(v)")
def vsum(e, x):
    """The sum of all lanes, in one tree."""
    return e.to_double(e.lane(e.reduce(x, lambda a, b: a + b), 0))


@intrinsic("v(v,i)")
def vsum_in_order(e, x, n):
    """The sum of the first n lanes, one after the other, in every lane; lanes beyond n must be zeros."""
    return _chain(e, n, [x], lambda total, x_k: total + x_k)


@intrinsic("v(v,v,i)")
def vdot_in_order(e, x, y, n):
    """The sum of x y over the first n lanes, one chain of fused steps, in every lane; beyond n they must be zeros."""
    return _chain(e, n, [x, y], lambda total, x_k, y_k: e.fma(x_k, y_k, total))


def _chain(e, n, vectors, combine):
    total = e.variable(e.constant(0.0, e.float))
    # in registers: a load of one lane from a vector that was just stored would wait for the store
    for first, here in e.in_fours(n):
        with here:
            for k in range(first, first + 4):
                total.set(combine(total.get(), *(e.lane(x, k) for x in vectors)))
    return e.splat(total.get())


@intrinsic("v(p,i,i,f,f)")
def vone_hot(e, pointer, place, n, low, high):
    """`high` in lane `place` and `low` in the others of the first n lanes, zeros beyond, for the pointer's type."""
    low, high = e.splat_double(low), e.splat_double(high)
    chosen = e.lane_numbers().equals(e.splat_int(place))
    return e.where(e.first_lanes(n), e.where(chosen, high, low), 0.0)


@intrinsic("i(v,i)")
def vwinner(e, x, n):
    """The number of the largest of the first n lanes, the lowest of equals; -1 where one of them is NaN."""
    inside = e.first_lanes(n)
    largest = e.reduce(e.where(inside, x, -math.inf), e.maximum)
    first = Value(e, e.builder.cttz(_lane_bits(e, e.both(x.equals(largest), inside)), ir.Constant(ir.IntType(1), 0)))
    nans = Value(e, _lane_bits(e, e.both(x.is_nan(), inside)))
    return e.where(nans.equals(0), first, -1)


def _lane_bits(e, mask):
    """A mask as an integer, a bit for each lane."""
    return e.builder.zext(e.builder.bitcast(mask.llvm, ir.IntType(e.lanes)), INT64)


@intrinsic("f(v)")
def vmaximum(e, x):
    """The largest lane."""
    return e.to_double(e.lane(e.reduce(x, e.maximum), 0))


@intrinsic("f(v)")
def vlane(e, x):
    """The first lane, of a vector whose lanes are all equal for example."""
    return e.to_double(e.lane(x, 0))


@intrinsic("i(p)")
def lanes_of(e, pointer):
    """How many lanes a vector has that is loaded from this pointer."""
    return Value(e, ir.Constant(INT64, e.lanes))


@intrinsic("p(a)")
def pointer_to(e, address):
    """The address of an array's first element."""
    return address
