"""The processor that code is made for: this one, or the one that NUMBA_CPU_NAME and NUMBA_CPU_FEATURES describe."""

import os
import platform

import llvmlite.binding as llvm


def name() -> str:
    """LLVM's name of the processor."""
    return os.environ.get("NUMBA_CPU_NAME") or llvm.get_host_cpu_name()


def features() -> str:
    """What it can do, as LLVM writes it: `+avx2,-avx512f,...`. Nothing special if it is `generic`."""
    if name() == "generic":
        return os.environ.get("NUMBA_CPU_FEATURES", "")
    return os.environ.get("NUMBA_CPU_FEATURES") or llvm.get_host_cpu_features().flatten()


def target_machine() -> llvm.TargetMachine:
    """LLVM's code generator for this processor."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    # code that is loaded anywhere in memory needs absolute addresses on x86, as numba has found
    relocation = "static" if platform.machine() in ("x86_64", "AMD64") else "default"
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(
        cpu=name(), features=features(), opt=3, reloc=relocation, codemodel="jitdefault", jit=True
    )
