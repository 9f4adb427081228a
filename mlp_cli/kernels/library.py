"""Machine code as a library of functions: `library.train_steps(parameters, jobs, ...)`. numba is not needed for it."""

import ctypes
import json
from dataclasses import dataclass

import llvmlite.binding as llvm
import numpy as np

from mlp_cli.kernels import processor
from mlp_cli.kernels.signatures import array_of, parse

# What names of functions begin with in machine code, so that none is mistaken for one of the C library.
PREFIX = "mlp_"

_C_TYPES = {"i": ctypes.c_int64, "u": ctypes.c_uint64, "f": ctypes.c_double}
_PYTHON_TYPES = {"i": int, "u": int, "f": float}


@dataclass(frozen=True)
class MachineCode:
    """An object file of functions with these signatures, compiled for `dtype`."""

    signatures: dict[str, str]
    dtype: str
    object_file: bytes

    def to_bytes(self) -> bytes:
        """A line of JSON, and the object file."""
        head = {"signatures": self.signatures, "dtype": self.dtype}
        return json.dumps(head).encode() + b"\n" + self.object_file

    @classmethod
    def from_bytes(cls, content: bytes) -> "MachineCode":
        """What `to_bytes` wrote."""
        head, _, object_file = content.partition(b"\n")
        return cls(object_file=object_file, **json.loads(head))


class Library:
    """The functions of machine code as attributes."""

    def __init__(self, code: MachineCode):
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), processor.target_machine())
        engine.add_object_file(llvm.ObjectFileRef.from_data(code.object_file))
        engine.finalize_object()
        for name, signature in code.signatures.items():
            setattr(self, name, Function(name, signature, code.dtype, engine))


class Function:
    """An entry kernel. Calling it lets other threads run meanwhile."""

    def __init__(self, name: str, signature: str, dtype: str, engine: llvm.ExecutionEngine):
        self.name = name
        self._engine = engine  # the machine code lives as long as this
        self.result, self.letters = parse(signature)
        self.arrays = [array_of(letter, dtype) for letter in self.letters]
        types = [ctypes.c_void_p]
        for letter, array in zip(self.letters, self.arrays, strict=True):
            types += [ctypes.c_int64] * (1 + array[1]) if array else [_C_TYPES[letter]]
        self._call = ctypes.CFUNCTYPE(ctypes.c_int32, *types)(engine.get_function_address(PREFIX + name))

    def __call__(self, *arguments):
        """Arrays must have the type of the signature and be contiguous (TypeError); they are not copied."""
        passed = []
        for letter, array, argument in zip(self.letters, self.arrays, arguments, strict=True):
            if array:
                passed += self._address_and_lengths(argument, *array)
            else:
                passed.append(_PYTHON_TYPES[letter](argument))
        result = _C_TYPES.get(self.result, ctypes.c_int64)()
        status = self._call(ctypes.addressof(result), *passed)
        if status:
            raise RuntimeError(f"the kernel {self.name} ended with status {status}")
        return None if self.result == "n" else result.value

    def _address_and_lengths(self, array: np.ndarray, dtype: np.dtype, dimensions: int) -> tuple[int, ...]:
        if array.dtype != dtype or array.ndim != dimensions or not array.flags.c_contiguous:
            raise TypeError(
                f"{self.name}: expected a contiguous array of {dtype} in {dimensions} dimensions; "
                f"got {array.dtype} in {array.ndim}"
            )
        return array.ctypes.data, *array.shape
