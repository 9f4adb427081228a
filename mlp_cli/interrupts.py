"""Signals that end a run with a checkpoint: Ctrl-C, and SIGTERM, SIGHUP, SIGUSR1 from schedulers.

While a machine works, a signal only asks it to stop; the loop then saves and raises. Before there is anything to
save, it raises at once. A signal that was ignored at the start (nohup, background jobs) stays ignored.
"""

import os
import signal
import threading

from mlp_cli.errors import Interrupted, MlpError, Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class Interrupts:
    """A context in which signals are noted in `received` and passed to `stop`, while that is set.

    Otherwise they end the run at once with the sentence `so_far`.
    """

    def __init__(self):
        self.received: signal.Signals | None = None
        self.stop = None
        self.so_far = "nothing was trained yet"
        self._before: dict = {}

    def __enter__(self) -> "Interrupts":
        # only the main thread may set handlers; elsewhere (in a test, say) signals are left alone
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, frame) -> None:
        if self.received == signal.SIGINT and number == signal.SIGINT:
            # the second Ctrl-C: leave at once; checkpoints are renamed into place, so the last one is whole
            os._exit(Interrupted.exit_code)
        self.received = signal.Signals(number)
        if self.stop is None:
            raise self.error(self.so_far)
        self.stop()

    def error(self, what: str) -> MlpError:
        """The exception that belongs to the signal received; `what` says what was saved and how to go on."""
        if self.received == signal.SIGINT:
            return Interrupted(f"Interrupted: {what}")
        return Stopped(f"Stopped by {self.received.name}: {what}")
