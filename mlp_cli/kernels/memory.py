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


@intrinsic("n(u,i,v)")
def set_doubles_at(e, address, index, x):
    """Store a vector as elements index, index + 1, … of a float64 array."""
    doubles = ir.VectorType(ir.DoubleType(), e.lanes)
    wide = x.llvm if e.bits == 64 else e.builder.fpext(x.llvm, doubles)
    e.builder.store(wide, _element(e, address, index, doubles, 8), align=8)


@intrinsic("n(u,i,v)")
def set_int32s_at(e, address, index, x):
    """Store a vector of whole numbers as elements index, index + 1, … of an int32 array."""
    integers = ir.VectorType(INT32, e.lanes)
    e.builder.store(e.builder.fptosi(x.llvm, integers), _element(e, address, index, integers, 4), align=4)
