"""Makes the kernels of a scalar type ready: from the cache, or else from the compiler.

The compiler runs in a process of its own: this one never loads numba, which takes longer than all else that a warm
start does.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import mlp_cli
from mlp_cli.errors import MlpError, SystemFault, shortage
from mlp_cli.kernels.cache import Cache, Damaged
from mlp_cli.kernels.library import Library, MachineCode
from mlp_cli.kernels.trust import Untrusted

_ready: dict[str, Library] = {}


def _nothing(text: str) -> None:
    """Said to nobody."""


def prepare(dtype: str, say: Callable[[str], None] = _nothing, warn: Callable[[str], None] = _nothing) -> Library:
    """The kernels for `dtype`. `say` hears when they are compiled, `warn` when they were damaged or cannot be kept."""
    if dtype not in _ready:
        _ready[dtype] = Library(MachineCode.from_bytes(_machine_code(Cache(dtype), dtype, say, warn)))
    return _ready[dtype]


def _machine_code(cache: Cache, dtype: str, say, warn) -> bytes:
    try:
        cache.require_trusted()
    except Untrusted as reason:
        warn(f"{reason}; the kernels are compiled for this run alone: {reason.remedy}")
        return _compiled(dtype, say)
    except OSError:  # which then shows in `write` as well
        pass
    if found := _kept(cache, warn):
        return found
    with cache.lock(lambda: say(f"Another process is compiling the {dtype} kernels: waiting for it …")):
        if found := _kept(cache, _nothing):
            return found
        code = _compiled(dtype, say)
        try:
            cache.write(code)
        except (OSError, Untrusted) as error:
            why = getattr(error, "strerror", error)
            warn(
                f"{cache.folder}: cannot keep the compiled kernels ({why}), so the next run compiles them again; "
                "MLP_CACHE_DIR names another folder"
            )
    cache.prune()
    return code


def _compiled(dtype: str, say) -> bytes:
    say(f"Compiling the {dtype} kernels: about ten seconds, once for this machine and version of mlp …")
    began = time.monotonic()
    code = compile_apart(dtype)
    say(f"Compiled in {time.monotonic() - began:.0f} s")
    return code


def _kept(cache: Cache, warn) -> bytes | None:
    try:
        return cache.read()
    except Damaged:
        warn(f"{cache.path}: the compiled kernels are damaged; compiling them again")
    except Untrusted:  # made so this very moment: not used
        pass
    return None


def compile_apart(dtype: str) -> bytes:
    """The machine code of all kernels, from a compiler in a process of its own, which ends when this one does.

    Raises SystemFault where it was killed (out of memory, most likely) and MlpError where it failed.
    """
    # -P: a file of the user's directory that is called numba.py is not numba
    command = [sys.executable, "-P", "-c", "from mlp_cli.kernels.build import main; main()", dtype]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with _pipe_of_ours() as lifeline:
        try:
            # a session of its own: Ctrl-C is for this process, whose end is then the compiler's
            compiler = subprocess.Popen(command, env=_environment(), start_new_session=True, stdin=lifeline, **pipes)
        except OSError:  # no more processes are allowed: do it here
            from mlp_cli.kernels import build

            return build.machine_code(dtype)
        with compiler:
            try:
                code, complaint = compiler.communicate()
            except BaseException:
                compiler.kill()
                raise
    if compiler.returncode < 0:
        name = signal.Signals(-compiler.returncode).name
        raise SystemFault(f"The compiler of the kernels was ended by {name}; is there enough memory?")
    if compiler.returncode > 0:
        text = complaint.decode(errors="replace").strip()
        if fault := shortage(RuntimeError(text)):
            raise fault
        reason = text if os.environ.get("MLP_DEBUG") else text.rpartition("\n")[2]
        raise MlpError(f"The kernels could not be compiled: {reason}. This is a fault of mlp: please report it")
    return code


@contextmanager
def _pipe_of_ours() -> Iterator[int]:
    """The end to read of a pipe whose other end this process alone holds: it closes when this process ends, however."""
    reader, writer = os.pipe()
    try:
        yield reader
    finally:
        os.close(reader)
        os.close(writer)


def _environment() -> dict[str, str]:
    """The compiler finds this very package, and none of the user's settings for numba but the processor."""
    ours = ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_") or name in ours}
    paths = [str(Path(mlp_cli.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
