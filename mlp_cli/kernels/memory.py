"""Elements of plain arrays whose address a kernel was given: float64 sums and weights, int32 class numbers."""

from llvmlite import ir

from mlp_cli.kernels.emit import INT32, INT64, Value
from mlp_cli.kernels.lanes import intrinsic


def _element(e, address: Value, index: Value, of_type, size: int):
    return e.builder.inttoptr((address + index * size).llvm, of_type.as_pointer())


@intrinsic("f(u,i)", scalar="float64")
def double_at(e, address, index):
    """Element `index` of a float64 array."""
    return Value(e, e.builder.load(_element(e, address, index, ir.DoubleType(), 8)))


@intrinsic("n(u,i,f)", scalar="float64")
def set_double_at(e, address, index, x):
    """Store element `index` of a float64 array."""
    e.builder.store(x.llvm, _element(e, address, index, ir.DoubleType(), 8))


@intrinsic("n(u,i,f)", scalar="float64")
def add_double_at(e, address, index, x):
    """Add to element `index` of a float64 array; for one thread at a time."""
    place = _element(e, address, index, ir.DoubleType(), 8)
    e.builder.store((Value(e, e.builder.load(place)) + x).llvm, place)


@intrinsic("i(u,i)", scalar="float64")
def int32_at(e, address, index):
    """Element `index` of an int32 array, as int64."""
    return Value(e, e.builder.sext(e.builder.load(_element(e, address, index, INT32, 4)), INT64))


@intrinsic("n(u,i,i)", scalar="float64")
def set_int32_at(e, address, index, x):
    """Store element `index` of an int32 array."""
    e.builder.store(e.builder.trunc(x.llvm, INT32), _element(e, address, index, INT32, 4))
