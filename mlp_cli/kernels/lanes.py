"""A vector type for numba, and the intrinsics that load, store and combine vectors.

A vector is 64 bytes: 16 float32 or 8 float64. LLVM splits it where the machine's registers are narrower, so one
source serves every processor and gives the same bits on each. Memory is reached through typed pointers; `at(p, n)`
moves one by n elements. `@intrinsic("v(p,i)")` turns a code generator (see `emit`) into a function for numba code.
"""

import inspect
import math

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic as numba_intrinsic
from numba.extending import models, register_model

from mlp_cli.kernels.emit import FLOATS, INT32, INT64, Emit, Value
from mlp_cli.kernels.layout import lane_count


class Vector(types.Type):
    """The numba type of a vector of `scalar`s."""

    def __init__(self, scalar):
        self.scalar = scalar
        super().__init__(name=f"vector_{scalar}")


VECTORS = {scalar: Vector(scalar) for scalar in FLOATS}
POINTERS = {scalar: types.CPointer(scalar) for scalar in VECTORS}


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    """How numba passes vectors: as LLVM vectors."""

    def __init__(self, manager, vector):
        lanes = lane_count(str(vector.scalar))
        super().__init__(manager, vector, ir.VectorType(FLOATS[vector.scalar], lanes))


# --- from generators to functions that numba code can call ----------------------------------------------------

FIXED = {"i": types.int64, "f": types.float64, "b": types.boolean, "u": types.uint64, "n": types.none}


def intrinsic(signature: str, scalar=None):
    """Make a code generator `emit(e, *values)` callable from numba code.

    signature: "v(p,i)" is the result and the arguments: v vector, p pointer, i int64, u uint64 (an address), f float64,
    b boolean, n nothing. The scalar type comes from the first v or p among the arguments unless it is given.
    """
    result, _, arguments = signature.rstrip(")").partition("(")
    kinds = [kind for kind in arguments.split(",") if kind]

    def decorate(emit):
        def numba_type(kind, scalar):
            return {"v": VECTORS[scalar], "p": POINTERS[scalar]}.get(kind) or FIXED[kind]

        def define(typing_context, *found):
            generic = (
                t.scalar if isinstance(t, Vector) else t.dtype
                for t, kind in zip(found, kinds, strict=True)
                if kind in "vp" and isinstance(t, Vector | types.CPointer)
            )
            of_type = scalar or next(generic)

            def generate(context, builder, _, values):
                e = Emit(builder, of_type)
                value = emit(e, *(Value(e, v) for v in values))
                return value.llvm if value is not None else context.get_dummy_value()

            typed = numba_type(result, of_type)(*(numba_type(kind, of_type) for kind in kinds))
            return typed, generate

        # numba looks at the signature to match arguments: give it the generator's own, less the emitter
        parameters = list(inspect.signature(emit).parameters.values())[1 : 1 + len(kinds)]
        context = inspect.Parameter("typing_context", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        define.__signature__ = inspect.Signature([context, *parameters])
        define.__name__ = emit.__name__
        define.__doc__ = emit.__doc__
        return numba_intrinsic(define)

    return decorate


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


@intrinsic("n(p)")
def prefetch(e, pointer):
    """Ask for the cache line of an address that will be read soon, as far as the second level; no address is wrong."""
    _prefetch(e, pointer, 2)


@intrinsic("n(p,i)")
def prefetch_vectors(e, pointer, n):
    """Ask for the cache lines of n vectors that will be used at once, as far as the first level."""
    with e.loop(n) as i:
        _prefetch(e, e.at(pointer, i * e.lanes), 3)


def _prefetch(e, pointer, level):
    signature = ir.FunctionType(ir.VoidType(), [pointer.type, INT32, INT32, INT32])
    function = cgutils.get_or_insert_function(e.builder.module, signature, "llvm.prefetch.p0")
    to_read, level, data = (ir.Constant(INT32, i) for i in (0, level, 1))
    e.builder.call(function, [pointer.llvm, to_read, level, data])


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


@numba_intrinsic
def pointer_to(typing_context, array):
    """The address of an array's first element."""

    def generate(context, builder, signature, values):
        return context.make_array(signature.args[0])(context, builder, values[0]).data

    return POINTERS[array.dtype](array), generate
