"""A team of plain threads that run a kernel together, outside the GIL, while the main thread looks on."""

import queue
import threading


class Team:
    """At most `threads` workers; `run` hands the same call to each and returns when all are back.

    There are fewer where the system allows no more. RuntimeError where it allows none.
    """

    def __init__(self, threads: int):
        self._returned: list[BaseException | None] = []
        self._wake = queue.SimpleQueue()
        self._work: list[queue.SimpleQueue] = []
        for number in range(threads):
            work = queue.SimpleQueue()
            try:
                threading.Thread(target=self._serve, args=(number, work), daemon=True).start()
            except RuntimeError:
                if number == 0:
                    raise
                break
            self._work.append(work)
        self.threads = len(self._work)

    def _serve(self, number: int, work: queue.SimpleQueue) -> None:
        while (task := work.get()) is not None:
            error = _attempt(*task, number)
            task = None  # the arrays of a call may be large: they must not live until the next one
            self._returned.append(error)
            self._wake.put(None)

    def run(self, function, *arguments, threads: int | None = None, look=None, stop=None, every: float = 0.1) -> None:
        """Run function(*arguments, number) in the first `threads` workers; call `look` every so many seconds.

        The workers use the caller's memory: when the wait is interrupted (by an error of `look`), `stop` is
        called and the exception goes on only after all are back.
        """
        threads = threads or self.threads
        self._returned, self._wake = [], queue.SimpleQueue()
        for work in self._work[:threads]:
            work.put((function, arguments))
        try:
            self._wait(threads, look, every)
        except BaseException:
            if stop:
                stop()
            self._wait(threads, None, every)
            raise
        for error in self._returned:
            if error is not None:
                raise error

    def _wait(self, threads: int, look, every: float) -> None:
        while len(self._returned) < threads:
            try:
                self._wake.get(timeout=every)
            except queue.Empty:
                if look:
                    look()

    def close(self) -> None:
        """Send the threads home."""
        for work in self._work:
            work.put(None)


def _attempt(function, arguments, number: int) -> BaseException | None:
    """Call function(*arguments, number); what it raises is handed to the main thread, whatever it is."""
    try:
        function(*arguments, number)
    except BaseException as raised:
        return raised
