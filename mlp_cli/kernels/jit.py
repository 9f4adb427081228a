"""The one way a kernel is compiled: explicit signatures, no GIL, and a cache of our own.

numba's cache looks at the file of a function only: an edit in a callee leaves stale machine code in its caller. Here
the cache lies in a folder named by a hash of every kernel source and of the versions that matter, so it is either
right or not there. It survives an install that cannot be written to; without a writable place, kernels are compiled
for this process alone.
"""

import contextlib
import hashlib
import os
import pickle
import platform
import sys
import tempfile
from pathlib import Path

import llvmlite.binding
import numba
import numpy as np
from numba import types
from numba.core.caching import IndexDataCacheFile

from mlp_cli.errors import MlpError
from mlp_cli.kernels.lanes import POINTERS, VECTORS
from mlp_cli.kernels.layout import BLOCK, JOB, OP, PHASE

SCALARS = {"float32": types.float32, "float64": types.float64}


def _source_hash() -> str:
    """A digest of every kernel source and of the versions that compiled code depends on."""
    digest = hashlib.sha256()
    versions = (numba.__version__, llvmlite.__version__, np.__version__, sys.version, platform.machine())
    digest.update(repr(versions).encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()[:20]


def _cache_root() -> Path:
    if chosen := os.environ.get("MLP_CACHE_DIR"):
        return Path(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "mlp"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlp"


def _writable_folder() -> Path | None:
    """The cache folder of this version, made if need be; None where nothing can be written."""
    try:
        folder = _cache_root() / f"kernels-{_source_hash()}"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"x" * 4096)
    except (OSError, RuntimeError):
        return None
    return folder


CACHE_FOLDER = _writable_folder()
if CACHE_FOLDER:
    # nobody else in this program uses numba: the folder may be set for the whole process
    numba.config.CACHE_DIR = str(CACHE_FOLDER)


def _type_folder(dtype: str) -> Path:
    """Where the kernels of one scalar type for one processor lie: machines may share a home directory."""
    name = os.environ.get("NUMBA_CPU_NAME") or llvmlite.binding.get_host_cpu_name()
    features = os.environ.get("NUMBA_CPU_FEATURES") or llvmlite.binding.get_host_cpu_features().flatten()
    return CACHE_FOLDER / f"{dtype}-{hashlib.sha256(f'{name} {features}'.encode()).hexdigest()[:12]}"


class CacheFiles(IndexDataCacheFile):
    """numba's two cache files of a kernel, each with a digest of itself at its end.

    Left to itself, numba loads damaged machine code, which crashes; gives two files the same name when one process
    compiles for float32 and another for float64; and distrusts a source that was only touched.
    """

    def __init__(self, dispatcher, dtype: str):
        folder = _type_folder(dtype)
        folder.mkdir(parents=True, exist_ok=True)
        stamp = _digest(Path(dispatcher.py_func.__code__.co_filename).read_bytes())
        super().__init__(str(folder), dispatcher._cache._impl.filename_base, stamp)

    def _load_index(self):
        try:
            stamp, files = self._read(self._index_path)
        except OSError:
            return {}
        return files if stamp == self._source_stamp else {}

    def _save_index(self, files):
        self._write(self._index_path, (self._source_stamp, files))

    def _load_data(self, name):
        return self._read(self._data_path(name))

    def _save_data(self, name, data):
        self._write(self._data_path(name), data)

    def _read(self, path):
        """What a file holds. OSError where it is damaged or absent: to numba, a kernel that is not cached."""
        content = Path(path).read_bytes()
        if not _ends_in_its_digest(content):
            raise OSError(f"{path} is damaged")
        return pickle.loads(content[:-DIGEST_BYTES])

    def _write(self, path, what):
        content = self._dump(what)
        with self._open_for_write(path) as file:
            file.write(content + _digest(content))


DIGEST_BYTES = 32


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def _ends_in_its_digest(content: bytes) -> bool:
    return _digest(content[:-DIGEST_BYTES]) == content[-DIGEST_BYTES:]


def _is_intact(file: Path) -> bool:
    try:
        return _ends_in_its_digest(file.read_bytes())
    except OSError:
        return False


class Kernel:
    """A numba function that is compiled for one scalar type at a time, when that type is first needed."""

    def __init__(self, function, signature: str, entry: bool):
        options = {"error_model": "numpy", "nogil": True, "boundscheck": False, "cache": CACHE_FOLDER is not None}
        self.dispatcher = numba.njit(**options)(function)
        self.signature = signature
        self.entry = entry
        self.cached = CACHE_FOLDER is not None

    def compile(self, dtype: str) -> None:
        """Compile for `dtype`, or take the machine code from the cache."""
        scalar = SCALARS[dtype]
        result, _, arguments = self.signature.rstrip(")").partition("(")
        kinds = [kind.strip() for kind in arguments.split(",") if kind.strip()]
        signature = _numba_type(result, scalar)(*(_numba_type(kind, scalar) for kind in kinds))
        if self.cached:
            self.dispatcher._cache._cache_file = CacheFiles(self.dispatcher, dtype)
        self.dispatcher.disable_compile(False)
        self.dispatcher.compile(signature)
        # a call with other types is converted to these; without this, numba would compile a variant for each
        self.dispatcher.disable_compile()

    def leave_cache(self) -> None:
        """Compile for this process alone from now on."""
        if self.cached:
            self.dispatcher._cache.disable()
        self.cached = False


def _record(dtype: np.dtype):
    return numba.from_dtype(dtype)


FIXED = {
    "n": types.none,
    "i": types.int64,
    "u": types.uint64,
    "f": types.float64,
    "b": types.boolean,
    "f[:]": types.float64[::1],
    "table": types.float64[:, ::1],
    "i[:]": types.int64[::1],
    "rows": types.uint32[::1],
    "job": _record(JOB),
    "jobs": _record(JOB)[::1],
    "op": _record(OP),
    "ops": _record(OP)[::1],
    "block": _record(BLOCK),
    "blocks": _record(BLOCK)[::1],
    "phase": _record(PHASE),
    "phases": _record(PHASE)[::1],
}


def _numba_type(kind: str, scalar):
    if kind in "pv":
        return POINTERS[scalar] if kind == "p" else VECTORS[scalar]
    if kind == "s[:]":
        return scalar[::1]
    return FIXED[kind]


KERNELS: list[Kernel] = []


def kernel(signature: str, entry: bool = False):
    """Declare a kernel, `@kernel("n(p,i)")`: result and arguments in the letters of `FIXED`, p a pointer to the scalar,
    v a vector of it.

    Callees must be declared before their callers. Entry kernels are the ones that Python calls.
    """

    def decorate(function):
        declared = Kernel(function, signature, entry)
        KERNELS.append(declared)
        return declared.dispatcher

    return decorate


def _marker(dtype: str) -> Path:
    return _type_folder(dtype) / "complete"


def is_cached(dtype: str) -> bool:
    """Whether all kernels of this scalar type were compiled on this machine before, and lie there undamaged."""
    if CACHE_FOLDER is None or not _marker(dtype).exists():
        return False
    return all(_is_intact(file) for file in _type_folder(dtype).glob("*.nb?"))


_ready: set[str] = set()


def prepare(dtype: str) -> None:
    """Make all kernels of a scalar type ready: from the cache, or by compiling them.

    An entry kernel's cache file holds its callees as well, so a warm start loads the entries alone; a cold one
    compiles in the order of declaration, so that every callee has its declared signature.
    """
    if dtype in _ready:
        return
    cached = is_cached(dtype)
    try:
        _compile_all(dtype, [declared for declared in KERNELS if declared.entry or not cached])
    except MlpError:  # a signal arrived meanwhile
        raise
    except Exception:  # a cache that cannot be read or written can fail in any way; the sources cannot
        if CACHE_FOLDER is None:
            raise
        for declared in KERNELS:
            declared.leave_cache()
        _compile_all(dtype, KERNELS)
    else:
        if CACHE_FOLDER is not None:
            # a cache that cannot be marked is a cache that is not used: no reason to stop
            with contextlib.suppress(OSError):
                _marker(dtype).touch()
    _ready.add(dtype)


def _compile_all(dtype: str, kernels: list[Kernel]) -> None:
    for declared in kernels:
        declared.compile(dtype)
