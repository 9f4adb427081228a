"""Signals that end a command: Ctrl-C; SIGTERM, SIGHUP and SIGUSR1 from schedulers; SIGXCPU from a limit on time.

What a signal does follows from the phase that the command is in. While nothing is there to save, the process says a
sentence and leaves at once. While a network is trained, the signal is noted and the machine asked to stop; the loop
then saves and ends. Once the result is saved, or an error is about to be told, signals change nothing any more. A
second Ctrl-C leaves at once in every phase. A signal that was ignored at the start (nohup, background jobs) stays
ignored.

No handler raises: an exception out of nowhere does harm in whatever code it meets, in an import or in the start of a
thread. Python runs a handler when the main thread comes back from what it calls, which can take long: a column of ten
million rows to sort, a gigabyte to decode. So a thread hears of signals as well, and does the same.
"""

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum

from mlp_cli.errors import Interrupted, MlpError, Stopped

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGXCPU")
SIGNALS = tuple(signal.Signals[name] for name in NAMES if hasattr(signal, name))
# How long after a Ctrl-C another one is a second one: programs that pass it on to their children double it.
AGAIN_SECONDS = 0.1
# How long a terminal or a pipe may take to accept the last sentence.
PATIENCE_SECONDS = 1.0

# Files that are written at this moment, not yet under their own names.
_unfinished: set[str] = set()


class Phase(Enum):
    """What there is to do before the process may leave."""

    IDLE = "nothing: leave at once"
    WORKING = "stop the machine and save"
    OVER = "nothing any more: the process is about to end by itself"


class Signalled(Exception):
    """A signal has arrived; raised by `heed`, never by a handler."""


def say(text: str) -> None:
    """A line on stderr, from any thread and any handler: past Python's buffers, which may be in use."""
    try:
        if select.select([], [2], [], PATIENCE_SECONDS)[1]:
            os.write(2, f"{text}\n".encode(errors="backslashreplace"))
    except (OSError, ValueError):
        pass


@contextmanager
def unfinished(path: str | os.PathLike) -> Iterator[None]:
    """A temporary file that is deleted should a signal end the process within this block."""
    name = os.fspath(path)
    _unfinished.add(name)
    try:
        yield
    finally:
        _unfinished.discard(name)


class Interrupts:
    """The signals of this process, from `install` on; without it nothing ever arrives.

    `so_far` is what the sentence says while nothing is there to save. `leave` ends the process with an exit code.
    `bus_error` gives the error for mapped memory that is no longer there.
    """

    def __init__(
        self,
        leave: Callable[[int], None] = os._exit,
        tell: Callable[[str], None] = say,
        bus_error: Callable[[], MlpError] | None = None,
    ):
        self.received: signal.Signals | None = None
        self.so_far = ""
        self._leave, self._tell, self._bus_error = leave, tell, bus_error
        self._phase = Phase.IDLE
        self._stop: Callable[[], None] | None = None
        self._exit_code = Interrupted.exit_code  # of a second Ctrl-C
        # held by whoever leaves, so that the command does not go on to say that it is done, and during a change of
        # phase, which for a moment makes a signal wait for the next look at `received`
        self._leaving = threading.Lock()
        self._heard: dict[int, float] = {}  # by the handler, in the main thread: when it was heard first
        self._watcher: _Watcher | None = None
        self._before: dict = {}

    def install(self) -> None:
        """Set the handlers; to be called in the main thread."""
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, lambda number, frame: self._act(number, self._heard))

    def watch(self) -> None:
        """Start the thread that hears of signals whatever the main thread does, and of memory that is gone.

        RuntimeError where no thread can be started.
        """
        heard: dict[int, float] = {}

        def see_to(number: int) -> None:
            if number in self._before and number in SIGNALS:
                self._act(number, heard)
            elif self._bus_error and number == signal.SIGBUS:
                found = self._bus_error()
                self._end(str(found), found.exit_code)

        self._watcher = _Watcher(see_to)
        if self._bus_error and hasattr(signal, "SIGBUS") and signal.getsignal(signal.SIGBUS) == signal.SIG_DFL:
            # Whoever touches mapped memory that is no longer there (its file has shrunk, or its disk fails) returns
            # from this handler to the instruction that failed, which fails again, and so on until the watcher has
            # ended the process. It could not if whoever touches the memory held Python's lock: kernels do not.
            self._before[signal.SIGBUS] = signal.signal(signal.SIGBUS, lambda number, frame: None)

    def restore(self) -> None:
        """Undo `install` and `watch`."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
        if self._watcher:
            self._watcher.close()
            self._watcher = None

    def working(self, stop: Callable[[], None]) -> None:
        """From now on a signal calls `stop`, from any thread, and the caller looks at `received`, saves and ends."""
        with self._leaving:
            self._stop, self._phase = stop, Phase.WORKING

    def idle(self, so_far: str) -> None:
        """From now on there is nothing to save: a signal, one that came before too, ends the process."""
        with self._leaving:
            self.so_far, self._phase = so_far, Phase.IDLE
        if self.received:
            self._depart()

    def over(self, exit_code: int = Interrupted.exit_code) -> None:
        """From now on signals change nothing; a second Ctrl-C leaves with this exit code."""
        with self._leaving:
            if self._phase is not Phase.OVER:
                self._phase, self._exit_code = Phase.OVER, exit_code

    def heed(self) -> None:
        """Raise Signalled if a signal has arrived."""
        if self.received:
            raise Signalled

    def error(self, what: str) -> MlpError:
        """The exception that belongs to the signal received; `what` says what was saved and how to go on."""
        rest = f": {what}" if what else "."
        if self.received == signal.SIGINT:
            return Interrupted(f"Interrupted{rest}")
        return Stopped(f"Stopped by {self.received.name}{rest}")

    def _act(self, number: int, heard: dict[int, float]) -> None:
        """What a signal does, in the main thread's handler or in the watcher: whoever comes second finds it done."""
        now = time.monotonic()
        again = number == signal.SIGINT and now - heard.setdefault(number, now) >= AGAIN_SECONDS
        if again:
            self._leave(self._exit_code)  # checkpoints are renamed into place, so the last one is whole
        if self._phase is Phase.OVER:
            return
        self.received = self.received or signal.Signals(number)
        if self._phase is Phase.WORKING:
            self._stop()
        else:
            self._depart()

    def _depart(self) -> None:
        error = self.error(self.so_far)
        self._end(str(error), error.exit_code)

    def _end(self, text: str, exit_code: int) -> None:
        if not self._leaving.acquire(blocking=False):
            return
        try:
            for path in list(_unfinished):
                with suppress(OSError):
                    os.unlink(path)
            self._tell(text)
            self._leave(exit_code)
        finally:
            self._leaving.release()


class _Watcher:
    """A thread that calls `see_to` with a signal's number as soon as it arrives."""

    def __init__(self, see_to: Callable[[int], None]):
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._thread = threading.Thread(target=self._watch, args=(see_to,), daemon=True)
        self._thread.start()
        self._before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    def _watch(self, see_to: Callable[[int], None]) -> None:
        while number := os.read(self._reader, 1):
            see_to(number[0])

    def close(self) -> None:
        """End the thread."""
        signal.set_wakeup_fd(self._before)
        os.close(self._writer)
        self._thread.join()
        os.close(self._reader)
