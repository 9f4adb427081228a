"""Elements of plain arrays whose address a kernel was given: float64 sums, int32 class numbers, uint32 rows."""

from llvmlite import ir

from mlp_cli.kernels.emit import INT32, INT64, Value
from mlp_cli.kernels.lanes import intrinsic

# The locality of llvm.prefetch: rows of a batch to come would crowd the first-level cache.


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


@intrinsic("i(u,i)", scalar="float64")
def uint32_at(e, address, index):
    """Element `index` of a uint32 array, as int64."""
    return Value(e, e.builder.zext(e.builder.load(_element(e, address, index, INT32, 4)), INT64))


@intrinsic("u(u,i,i)", scalar="float64")
def address_of(e, address, index, size):
    """The address of element `index` of an array whose elements are `size` bytes apart."""
    return address + index * size


@intrinsic("n(p,u)")
def store_address(e, pointer, address):
    """Store an address, of 8 bytes, where elements would be."""
    e.builder.store(address.llvm, e.builder.bitcast(pointer.llvm, INT64.as_pointer()), align=8)


@intrinsic("n(u,i)", scalar="float64")
def prefetch(e, address, offset):
    """Ask for the cache line at an address that need not even be valid, as far as the second level."""
    place = e.builder.inttoptr((address + offset).llvm, ir.IntType(8).as_pointer())
    to_read, second_level, data = (ir.Constant(INT32, n) for n in (0, 2, 1))
    e.call("llvm.prefetch.p0", ir.VoidType(), [place, to_read, second_level, data])


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
