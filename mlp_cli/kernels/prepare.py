"""Makes the kernels of a scalar type ready: from the cache, or else from the compiler.

The compiler runs in a process of its own. This one stays free to answer signals at once, waits for nobody else's
compiler longer than it lives, and never loads numba.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import mlp_cli
from mlp_cli.errors import MlpError, SystemFault
from mlp_cli.kernels.cache import Cache
from mlp_cli.kernels.library import Library, MachineCode

_ready: dict[str, Library] = {}


def _nothing(text: str) -> None:
    """Said to nobody."""


def prepare(dtype: str, say: Callable[[str], None] = _nothing, warn: Callable[[str], None] = _nothing) -> Library:
    """The kernels for `dtype`. `say` hears that they are compiled, `warn` that they cannot be kept or found."""
    if dtype not in _ready:
        _ready[dtype] = Library(MachineCode.from_bytes(_machine_code(Cache(dtype), dtype, say, warn)))
    return _ready[dtype]


def _machine_code(cache: Cache, dtype: str, say, warn) -> bytes:
    if found := _kept(cache, warn):
        return found
    with cache.lock(lambda: say(f"Another process is compiling the {dtype} kernels: waiting for it …")):
        if found := _kept(cache, _nothing):
            return found
        say(f"Compiling the {dtype} kernels for this processor, once for this machine and version of mlp …")
        began = time.monotonic()
        code = compile_apart(dtype)
        say(f"Compiled in {time.monotonic() - began:.0f} s")
        try:
            cache.write(code)
        except OSError as error:
            warn(
                f"{cache.folder}: cannot keep the compiled kernels ({error.strerror}), so the next run compiles them "
                "again; MLP_CACHE_DIR names another folder"
            )
    cache.prune()
    return code


def _kept(cache: Cache, warn) -> bytes | None:
    try:
        return cache.read()
    except ValueError as error:
        warn(f"{cache.path}: the compiled kernels cannot be read ({error}); compiling them again")
        return None


def compile_apart(dtype: str) -> bytes:
    """The machine code of all kernels, from a compiler in a process of its own, which dies with a signal to this one.

    Raises SystemFault where it was killed (out of memory, most likely) and MlpError where it failed.
    """
    # -P: a file of the user's directory that is called numba.py is not numba
    command = [sys.executable, "-P", "-c", "from mlp_cli.kernels.build import main; main()", dtype]
    paths = [str(Path(mlp_cli.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    # a session of its own: Ctrl-C is for this process, which then ends the compiler itself
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, start_new_session=True, check=False
    )
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise SystemFault(f"The compiler of the kernels was ended by {name}; is there enough memory?")
    if done.returncode > 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise MlpError(f"The kernels could not be compiled: {lines[-1] if lines else 'no reason given'}")
    return done.stdout
