"""What numba has to learn to compile kernels: the vector type, the letters of signatures, and calls of what we declare.

A declared function, kernel or intrinsic, is called with the argument types that its signature names: numba converts
what it is given, and never compiles a variant for other types.
"""

import numba
from llvmlite import ir
from numba import types
from numba.core.typing.templates import AbstractTemplate
from numba.extending import lower_builtin, models, register_model

from mlp_cli.kernels.emit import FLOATS, Emit, Value
from mlp_cli.kernels.lanes import Intrinsic
from mlp_cli.kernels.layout import lane_count
from mlp_cli.kernels.signatures import RECORDS, array_of

SCALARS = {"float32": types.float32, "float64": types.float64}


class Vector(types.Type):
    """The numba type of a vector of scalars."""

    def __init__(self, scalar: str):
        self.scalar = scalar
        super().__init__(name=f"vector_{scalar}")


VECTORS = {scalar: Vector(scalar) for scalar in SCALARS}
POINTERS = {scalar: types.CPointer(SCALARS[scalar]) for scalar in SCALARS}
PLAIN = {"n": types.none, "i": types.int64, "u": types.uint64, "f": types.float64, "b": types.boolean}


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    """How numba passes vectors: as LLVM vectors."""

    def __init__(self, manager, vector):
        super().__init__(manager, vector, ir.VectorType(FLOATS[vector.scalar], lane_count(vector.scalar)))


def numba_type(letter: str, scalar: str):
    """The type that a letter of a signature means for a scalar type."""
    if array := array_of(letter, scalar):
        element, dimensions = array
        return types.Array(numba.from_dtype(element), dimensions, "C")
    if letter in RECORDS:
        return numba.from_dtype(RECORDS[letter])
    return {"p": POINTERS[scalar], "v": VECTORS[scalar]}.get(letter) or PLAIN[letter]


def signature_of(declared, scalar: str):
    """The signature of a kernel for a scalar type, as numba writes it."""
    return numba_type(declared.result, scalar)(*(numba_type(letter, scalar) for letter in declared.letters))


def callable_type(declared, choose):
    """The type of a name that stands for a declared function; `choose(argument types)` is the signature of a call."""

    class Template(AbstractTemplate):
        key = declared

        def generic(self, arguments, keywords):
            if keywords or len(arguments) != len(declared.letters):
                return None
            return choose(arguments)

    return types.Function(Template)


# --- intrinsics ---------------------------------------------------------------------------------------------------

_intrinsics: dict[Intrinsic, types.Function] = {}


def intrinsic_type(intrinsic: Intrinsic):
    """The type of an intrinsic's name; what it generates is registered when it is first mentioned."""
    if intrinsic not in _intrinsics:
        _intrinsics[intrinsic] = _register(intrinsic)
    return _intrinsics[intrinsic]


def _register(intrinsic: Intrinsic):
    def choose(arguments):
        scalar = _scalar_of(intrinsic, arguments)
        given = [
            found if letter == "a" else numba_type(letter, scalar)
            for found, letter in zip(arguments, intrinsic.letters, strict=True)
        ]
        return numba_type(intrinsic.result, scalar)(*given)

    def lower(context, builder, signature, values):
        e = Emit(builder, _scalar_of(intrinsic, signature.args))
        pairs = zip(signature.args, values, strict=True)
        result = intrinsic.emit(e, *(Value(e, _plain(context, builder, found, value)) for found, value in pairs))
        return context.get_dummy_value() if result is None else result.llvm

    for scalar in [intrinsic.scalar] if intrinsic.scalar else SCALARS:
        known = [types.Array if letter == "a" else numba_type(letter, scalar) for letter in intrinsic.letters]
        lower_builtin(intrinsic, *known)(lower)
    return callable_type(intrinsic, choose)


def _scalar_of(intrinsic: Intrinsic, arguments) -> str:
    """The scalar type that an intrinsic was given or that its arguments tell."""
    if intrinsic.scalar:
        return intrinsic.scalar
    telling = (found for found, letter in zip(arguments, intrinsic.letters, strict=True) if letter in "vpa")
    return next(found.scalar if isinstance(found, Vector) else str(found.dtype) for found in telling)


def _plain(context, builder, found, value):
    """What a generator receives: of an array the address of its first element."""
    return context.make_array(found)(context, builder, value).data if isinstance(found, types.Array) else value
