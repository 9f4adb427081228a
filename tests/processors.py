"""Other processors on this one: what the environment of a process says, so that kernels, NumPy, OpenBLAS, Arrow and the
C library choose the code that they would have there.
"""

import platform

import pytest
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

of_x86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the other processors are x86")


def numpy_without(*beginnings):
    """NumPy without those of its variants that this processor has and whose names begin so."""
    # it warns of variants that are not there
    here = [name for name in __cpu_dispatch__ if __cpu_features__[name] and name.startswith(beginnings)]
    return {"NPY_DISABLE_CPU_FEATURES": " ".join(here)} if here else {}


# LLVM's name alone keeps this processor's AVX-512
HASWELL = "+avx,+avx2,+fma,+bmi,+bmi2,+sse4.2,+popcnt,-avx512f,-avx512dq,-avx512bw,-avx512vl,-avx512cd"
PROCESSORS = {
    "AVX2": {
        "NUMBA_CPU_NAME": "haswell",
        "NUMBA_CPU_FEATURES": HASWELL,
        "OPENBLAS_CORETYPE": "Haswell",
        "ARROW_USER_SIMD_LEVEL": "AVX2",
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX512DQ",
        **numpy_without("AVX512", "X86_V4"),
    },
    # no fused multiply-add: LLVM calls the C library's instead, and that one computes it from integers
    "plain x86-64": {
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": "",
        "OPENBLAS_CORETYPE": "Nehalem",
        "ARROW_USER_SIMD_LEVEL": "NONE",
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX,-AVX2,-FMA,-FMA4,-AVX512F,-AVX512VL,-AVX512BW,-AVX512DQ",
        **numpy_without(""),
    },
}
