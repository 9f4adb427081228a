"""Signals that end a run with a checkpoint: Ctrl-C, and SIGTERM, SIGHUP, SIGUSR1 from schedulers.

While a machine works, a signal only asks it to stop; the loop then saves and raises. Where there is nothing to save,
and while a result is measured that can be measured again, it raises at once. A signal that was ignored at the start
(nohup, background jobs) stays ignored.

Python runs a handler when the main thread comes back from what it calls, which can take long: a column of ten million
rows to sort, a gigabyte to decode. So a thread is told of signals as well, and sees to them in time.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from mlp_cli.errors import Interrupted, MlpError, Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
# How long the main thread may take to notice a signal before the process ends without it.
GRACE_SECONDS = 1.0


class Signalled(Exception):
    """A signal arrived."""


class Interrupts:
    """A context in which signals are noted in `received` and passed to `stop`, while that is set.

    Otherwise they end the run at once with the sentence `so_far`; where the main thread cannot be reached, `tell` is
    called with it and the process exits.
    """

    def __init__(self, tell: Callable[[str], None] = lambda text: None):
        self.received: signal.Signals | None = None
        self.stop = None
        self.so_far = "nothing was trained yet"
        self.tell = tell
        self._at_once = False
        self._over = False
        self._before: dict = {}
        self._watcher: _Watcher | None = None
        self._seen: int | None = None  # by the watcher, perhaps before the main thread
        self._patience: threading.Timer | None = None

    def __enter__(self) -> "Interrupts":
        # only the main thread may set handlers; elsewhere (in a test, say) signals are left alone
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
            self._watcher = _Watcher(self._see_to)
        return self

    def __exit__(self, *_) -> None:
        # a signal that comes now finds the work done; raising here would leave the other handlers as they are
        self._over = True
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._watcher:
            self._watcher.close()
        if self._patience:
            self._patience.cancel()

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """A computation that may be given up anywhere: a signal raises Signalled in it, one that came before too."""
        self._at_once = True
        try:
            if self.received:
                raise Signalled
            yield
        finally:
            self._at_once = False

    def error(self, what: str) -> MlpError:
        """The exception that belongs to the signal received; `what` says what was saved and how to go on."""
        return _error(self.received, what)

    def _note(self, number, frame) -> None:
        """In the main thread, between two of its instructions."""
        if self._over:
            return
        if self.received == signal.SIGINT and number == signal.SIGINT:
            _leave_at_once()
        self.received = signal.Signals(number)
        if self.stop is None:
            raise self.error(self.so_far)
        if self._at_once:
            raise Signalled
        self.stop()

    def _see_to(self, number: int) -> None:
        """In the watcher's thread, whatever the main thread does."""
        if self._over or number not in self._before:
            return
        if number == signal.SIGINT and self._seen == signal.SIGINT:
            _leave_at_once()
        self._seen = number
        if self._patience is None:
            self._patience = threading.Timer(GRACE_SECONDS, self._insist, [signal.Signals(number)])
            self._patience.daemon = True
            self._patience.start()

    def _insist(self, number: signal.Signals) -> None:
        """The main thread has had its time."""
        if self.received or self._over:
            return
        if self.stop is not None:
            self.stop()
            return
        error = _error(number, self.so_far)
        self.tell(str(error))
        os._exit(error.exit_code)


@contextmanager
def bus_errors(tell: Callable[[str], None], error: Callable[[], MlpError]) -> Iterator[None]:
    """Within it, whoever touches mapped memory that is no longer there (its file has shrunk, or its disk fails) ends
    the process with the sentence and the exit code of `error()`, not by SIGBUS. `tell` is called with the sentence.

    The handler returns to the instruction that failed, which fails again, and so on until the watcher has ended the
    process. It could not if whoever touches the memory held Python's lock: kernels do not.
    """
    if (
        not hasattr(signal, "SIGBUS")
        or threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGBUS) != signal.SIG_DFL
    ):
        yield
        return

    def end(number: int) -> None:
        if number == signal.SIGBUS:
            found = error()
            tell(str(found))
            os._exit(found.exit_code)

    watcher = _Watcher(end)
    signal.signal(signal.SIGBUS, lambda number, frame: None)  # the watcher is told only if there is a handler
    try:
        yield
    finally:
        signal.signal(signal.SIGBUS, signal.SIG_DFL)
        watcher.close()


class _Watcher:
    """A thread that calls `see_to` with a signal's number as soon as it arrives, and tells an earlier watcher."""

    def __init__(self, see_to: Callable[[int], None]):
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._watch, args=(see_to,), daemon=True)
        self._thread.start()

    def _watch(self, see_to: Callable[[int], None]) -> None:
        while number := os.read(self._reader, 1):
            see_to(number[0])
            if self._before != -1:
                with suppress(BlockingIOError):
                    os.write(self._before, number)

    def close(self) -> None:
        """End the thread."""
        signal.set_wakeup_fd(self._before)
        os.close(self._writer)
        self._thread.join()
        os.close(self._reader)


def _error(number: signal.Signals, what: str) -> MlpError:
    if number == signal.SIGINT:
        return Interrupted(f"Interrupted: {what}")
    return Stopped(f"Stopped by {number.name}: {what}")


def _leave_at_once() -> None:
    # the second Ctrl-C; checkpoints are renamed into place, so the last one is whole
    os._exit(Interrupted.exit_code)
