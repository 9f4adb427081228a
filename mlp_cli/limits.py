"""Limits of the process (ulimit) and of its control groups, heeded before a library meets them in its own way.

A library that finds too little of what it wants ends the process, blames a file, or sends it a signal.
"""

import functools
import os
import threading
from contextlib import suppress

from mlp_cli import memory
from mlp_cli.errors import MORE_PROCESSES, SystemFault

# What the libraries set aside as they are loaded, most of it never used: addresses, and memory that could be written.
# With less, some of them end the process in ways of their own.
LEAST_BYTES = {"v": 900_000_000, "d": 300_000_000}
# Threads that there must be room for: three of Arrow and its allocator, one that reads, one that computes. Without
# them Arrow ends the process. With a few more, it may start as many as there are processors.
LEAST_THREADS, ENOUGH_THREADS = 5, 8
# Seconds of processor time that are kept for a last checkpoint, where the limit is larger.
LAST_SECONDS = 10


def heed() -> None:
    """Make the best of the limits, before any library is loaded that starts threads.

    SystemFault where one is lower than what the libraries need.
    """
    _heed_bytes()
    _heed_threads()
    _heed_time()


def startable(most: int) -> int:
    """How many threads the system lets this process have besides those that it has, at most so many."""
    gate, threads = threading.Event(), []
    try:
        for _ in range(most):
            thread = threading.Thread(target=gate.wait, daemon=True)
            thread.start()
            threads.append(thread)
    except RuntimeError:  # these are all
        pass
    finally:
        gate.set()
        for thread in threads:
            thread.join()
    return len(threads)


def _heed_bytes() -> None:
    for option, limit in memory.limits().items():
        least = LEAST_BYTES[option]
        if limit < least:
            raise SystemFault(
                f"The limit of this process, {memory.size_text(limit)} (ulimit -{option}), is less than the "
                f"{memory.size_text(least)} that mlp sets aside for its libraries; raise it"
            )
        _keep_libraries_small()
        _share_arenas()


@functools.cache  # once for a process: libraries that are loaded have their threads
def _heed_threads() -> None:
    found = startable(ENOUGH_THREADS)
    if found < LEAST_THREADS:
        raise SystemFault(
            f"This process can start {found} more threads, and mlp needs {LEAST_THREADS}; {MORE_PROCESSES}"
        )
    if found < ENOUGH_THREADS:
        _keep_libraries_small()


def _keep_libraries_small() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def _share_arenas() -> None:
    """Let threads allocate from one arena: glibc sets 64 MB of addresses aside for each thread's own."""
    import ctypes

    arena_max = -8
    with suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).mallopt(arena_max, 1)


def _heed_time() -> None:
    """Be told some seconds before a limit of processor time (ulimit -t) kills the process: the signal SIGXCPU."""
    try:
        import resource
    except ImportError:  # no POSIX
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
    if hard != resource.RLIM_INFINITY and soft == hard:
        resource.setrlimit(resource.RLIMIT_CPU, (max(hard - LAST_SECONDS, hard // 2, 1), hard))
