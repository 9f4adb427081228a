"""A team of plain threads that run a kernel together, outside the GIL, while the main thread looks on."""

import queue
import threading
import weakref


class Team:
    """At most `threads` workers; `run` hands the same call to each and returns when all are back.

    There are fewer where the system allows no more; RuntimeError where it allows none. They end when the team is
    closed, or when nobody holds it any more.
    """

    def __init__(self, threads: int):
        self._work: list[queue.SimpleQueue] = []
        # of the queues alone: what a worker holds is never let go
        self.close = weakref.finalize(self, _send_home, self._work)
        for number in range(threads):
            work = queue.SimpleQueue()
            try:
                # daemons: a second Ctrl-C must be able to leave while a kernel runs
                threading.Thread(target=_serve, args=(number, work), daemon=True).start()
            except RuntimeError:
                if number == 0:
                    raise
                break
            self._work.append(work)
        self.threads = len(self._work)

    def run(self, function, *arguments, threads: int | None = None, look=None, stop=None, every: float = 0.1) -> None:
        """Run function(*arguments, number) in the first `threads` workers; call `look` every so many seconds.

        The workers use the caller's memory: when the wait is interrupted (by an error of `look`), `stop` is
        called and the exception goes on only after all are back.
        """
        threads = threads or self.threads
        returned: list[BaseException | None] = []
        wake = queue.SimpleQueue()
        for work in self._work[:threads]:
            work.put((function, arguments, returned, wake))
        try:
            _wait(returned, wake, threads, look, every)
        except BaseException:
            if stop:
                stop()
            _wait(returned, wake, threads, None, every)
            raise
        for error in returned:
            if error is not None:
                raise error


def _serve(number: int, work: queue.SimpleQueue) -> None:
    """What a worker does all day."""
    while (task := work.get()) is not None:
        function, arguments, returned, wake = task
        error = _attempt(function, arguments, number)
        # the arrays of a call may be large: they must not live until the next one
        task = function = arguments = None
        returned.append(error)
        wake.put(None)
        returned = wake = error = None


def _attempt(function, arguments, number: int) -> BaseException | None:
    """Call function(*arguments, number); what it raises is handed to the main thread, whatever it is."""
    try:
        function(*arguments, number)
    except BaseException as raised:
        return raised


def _wait(returned: list, wake: queue.SimpleQueue, threads: int, look, every: float) -> None:
    """Until so many have returned. The list counts: an exception in this thread may lose a word of the queue."""
    while len(returned) < threads:
        try:
            wake.get(timeout=every)
        except queue.Empty:
            if look:
                look()


def _send_home(works: list[queue.SimpleQueue]) -> None:
    for work in works:
        work.put(None)
