"""Where a process begins and ends: `mlp`, and `python -m mlp_cli`, which is the same.

Signals are seen to before anything large is imported. Python's own start, some 15 ms, lies before any code of ours.
"""

import os
import sys
from contextlib import suppress
from typing import NoReturn

from mlp_cli.errors import MlpError, shortage
from mlp_cli.interrupts import Interrupts, say


def run(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line, and end the process with its exit code.

    The interpreter is not shut down, which takes time, and in which a signal could still change the exit code or find
    threads in the middle of something.
    """
    interrupts = Interrupts(bus_error=_map_error)
    interrupts.install()
    fill_closed_streams()
    await_streams()
    code = _run(arguments, interrupts)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _run(arguments: list[str] | None, interrupts: Interrupts) -> int:
    try:
        interrupts.watch()
        # libraries start threads as they are loaded, each of which takes memory; ours shares its work in other ways
        os.environ["OPENBLAS_NUM_THREADS"] = "1"
        from mlp_cli.cli.main import main
    except (OSError, ImportError, RuntimeError, MemoryError) as error:
        fault = shortage(error)
        if fault is None:
            raise
        say(str(fault))
        return fault.exit_code
    return main(arguments, interrupts)


def fill_closed_streams() -> None:
    """Open what was closed before we began (`mlp ... >&-`): stdout as a pipe that nobody reads, the others as nothing.

    Python leaves None in their place, and the next file to be opened would get their number.
    """
    if sys.stdin is None:
        _move(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdin = os.fdopen(0, closefd=False)
    if sys.stdout is None:
        reader, writer = os.pipe()
        _move(writer, 1)
        if reader != 1:
            os.close(reader)
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        _move(os.open(os.devnull, os.O_WRONLY), 2)
        sys.stderr = os.fdopen(2, "w", closefd=False)


def await_streams() -> None:
    """Have reading and writing of the standard streams wait, which another program may have switched off (O_NONBLOCK).

    Python would take a pipe that has nothing yet for an empty one, and drop what a full one cannot take at once.
    """
    for descriptor in range(3):
        with suppress(OSError):
            if not os.get_blocking(descriptor):
                os.set_blocking(descriptor, True)


def _move(descriptor: int, number: int) -> None:
    """Give an open file this number."""
    if descriptor != number:
        os.dup2(descriptor, number)
        os.close(descriptor)


def _map_error() -> MlpError:
    from mlp_cli.data.arrayfile import map_error

    return map_error()


if __name__ == "__main__":
    run()
