"""From kernels to machine code: numba types and lowers each kernel, and LLVM optimises all of them together, once.

numba by itself compiles every caller together with copies of its callees, so that what lies deepest is optimised once
for every level above it.
"""

import contextlib
import gc
import importlib
import os
import pkgutil
import sys
import threading
from collections.abc import Iterable
from typing import ClassVar

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core.codegen import CPUCodeLibrary
from numba.core.compiler import Flags, compile_extra
from numba.core.registry import cpu_target

import mlp_cli.kernels
from mlp_cli.kernels import processor
from mlp_cli.kernels.dialect import callable_type, numba_type, signature_of
from mlp_cli.kernels.jit import ENTRIES, Kernel
from mlp_cli.kernels.library import PREFIX, MachineCode
from mlp_cli.kernels.signatures import array_of


class Collection(CPUCodeLibrary):
    """numba's library of a function, for many functions: they are gathered in one module and not yet optimised."""

    def _optimize_functions(self, module):
        pass

    def linked(self) -> llvm.ModuleRef:
        """All that was gathered, with numba's own functions that it calls."""
        for library in dict.fromkeys(self._linking_libraries):
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)
        return self._final_module


class Build:
    """Kernels on their way to machine code for one scalar type."""

    in_progress: ClassVar["Build"]

    def __init__(self, dtype: str):
        self.dtype = dtype
        self.typing, self.target = cpu_target.typing_context, cpu_target.target_context
        self.typing.refresh()
        self.target.refresh()
        self.collection = Collection(self.target.codegen(), f"kernels_{dtype}")
        self.types: dict[Kernel, object] = {}
        # kernels neither raise nor own memory, and only other kernels call them
        self.flags = Flags()
        self.flags.no_compile = self.flags.no_cpython_wrapper = self.flags.no_cfunc_wrapper = True
        self.flags.nrt = False
        self.flags.error_model = "numpy"

    def __enter__(self) -> "Build":
        Build.in_progress = self
        return self

    def __exit__(self, *_) -> None:
        del Build.in_progress
        for kernel in self.types:
            self.target.remove_user_function(kernel)

    def type_of(self, kernel: Kernel):
        """The numba type of a kernel's name. A kernel is lowered when the first caller mentions it."""
        if kernel not in self.types:
            signature = signature_of(kernel, self.dtype)
            self._lower(kernel, signature)
            self.types[kernel] = callable_type(kernel, lambda arguments: signature)
        return self.types[kernel]

    def _lower(self, kernel: Kernel, signature) -> None:
        """From Python to LLVM's language."""
        done = compile_extra(
            self.typing, self.target, kernel.function, signature.args, signature.return_type, self.flags, {},
            library=self.collection,
        )  # fmt: skip
        self.target.insert_user_function(kernel, done.fndesc)
        if kernel.entry:
            self._export(kernel, done.fndesc)

    def _export(self, kernel: Kernel, description) -> None:
        """A function for C: `status name(result *, arguments...)`; an array is an address and its lengths."""
        int64, context = ir.IntType(64), self.target
        module = self.collection.create_ir_module(f"export_{kernel.__name__}")
        letters = kernel.letters
        arrays = [array_of(letter, self.dtype) for letter in letters]
        parameters = []
        for letter, array in zip(letters, arrays, strict=True):
            if array:
                parameters += [int64] * (1 + array[1])
            else:
                parameters.append(context.get_value_type(numba_type(letter, self.dtype)))
        result_type = numba_type(kernel.result, self.dtype)
        result_pointer = context.get_data_type(result_type).as_pointer()
        function_type = ir.FunctionType(ir.IntType(32), [result_pointer, *parameters])
        function = ir.Function(module, function_type, PREFIX + kernel.__name__)
        builder = ir.IRBuilder(function.append_basic_block())
        values = iter(function.args[1:])
        arguments = [
            self._array(builder, numba_type(letter, self.dtype), values) if array else next(values)
            for letter, array in zip(letters, arrays, strict=True)
        ]
        callee = context.declare_function(module, description)
        status, result = context.call_conv.call_function(
            builder, callee, description.restype, description.argtypes, arguments
        )
        if kernel.result != "n":
            context.pack_value(builder, result_type, result, function.args[0])
        builder.ret(status.code)
        self.collection.add_ir_module(module)

    def _array(self, builder, array_type, values):
        """numba's form of a contiguous array, from the next of C's values: its address and lengths."""
        array = self.target.make_array(array_type)(self.target, builder)
        address = next(values)
        shape = [next(values) for _ in range(array_type.ndim)]
        size = self.target.get_abi_sizeof(self.target.get_data_type(array_type.dtype))
        strides = [ir.Constant(ir.IntType(64), size)]
        for length in reversed(shape[1:]):
            strides.insert(0, builder.mul(strides[0], length))
        data = builder.inttoptr(address, array.data.type)
        self.target.populate_array(array, data=data, shape=shape, strides=strides, itemsize=size, meminfo=None)
        return array._getvalue()


def optimized(kernels: Iterable[Kernel], dtype: str) -> llvm.ModuleRef:
    """Entry kernels and all that they call as one module of LLVM's language, optimised for the processor."""
    kernels = list(kernels)
    with Build(dtype) as build:
        for kernel in kernels:
            build.type_of(kernel)
        module = build.collection.linked()
    exported = {PREFIX + kernel.__name__ for kernel in kernels}
    for value in [*module.functions, *module.global_variables]:
        if not value.is_declaration and value.name not in exported:
            # nobody else can see it: LLVM may inline it and leave it out
            value.linkage = "internal"
    _optimize(module)
    return module


def _optimize(module: llvm.ModuleRef) -> None:
    """All of LLVM's passes but unrolling, which costs a quarter of the time and slows the smallest nets by a tenth."""
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization, options.slp_vectorization, options.loop_unrolling = True, False, False
    passes = llvm.create_pass_builder(processor.target_machine(), options)
    passes.getModulePassManager().run(module, passes)
    module.verify()
    missing = [
        function.name
        for function in module.functions
        if function.is_declaration
        and not function.name.startswith("llvm.")
        and not llvm.address_of_symbol(function.name)
    ]
    if missing:
        raise RuntimeError(f"kernels call what is neither theirs nor the C library's: {', '.join(missing)}")


def build(kernels: Iterable[Kernel], dtype: str) -> MachineCode:
    """The machine code of entry kernels, with all that they call, for a scalar type."""
    kernels = list(kernels)
    code = processor.target_machine().emit_object(optimized(kernels, dtype))
    return MachineCode({kernel.__name__: kernel.signature for kernel in kernels}, dtype, code)


def every_entry() -> list[Kernel]:
    """The entry kernels of all modules of this package."""
    for module in pkgutil.iter_modules(mlp_cli.kernels.__path__):
        importlib.import_module(f"{mlp_cli.kernels.__name__}.{module.name}")
    return ENTRIES


def machine_code(dtype: str) -> bytes:
    """All kernels for a scalar type, as `library` reads them."""
    return build(every_entry(), dtype).to_bytes()


def _end_with_stdin() -> None:
    os.read(0, 1)
    os._exit(1)


def main() -> None:
    """What the process of `prepare.compile_apart` runs: the machine code for the type in its argument, on stdout.

    Its stdin closes when the process that wants the code ends.
    """
    with contextlib.suppress(RuntimeError):  # no more threads are allowed
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    gc.disable()  # of what the compiler makes, little becomes garbage before it ends: a tenth of the time, for 80 MB
    try:
        code = machine_code(sys.argv[1])
    except Exception as error:
        if os.environ.get("MLP_DEBUG"):
            raise
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())}")
    sys.stdout.buffer.write(code)
    sys.stdout.flush()
    os._exit(0)  # to take apart what is left would take as long as the collector did
