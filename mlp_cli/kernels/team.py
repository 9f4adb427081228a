"""A team of plain threads that run a kernel together, outside the GIL, while the main thread looks on."""

import queue
import threading


class Team:
    """`threads` workers; `run` hands the same call to each and returns when all are back."""

    def __init__(self, threads: int):
        self.threads = threads
        self._results = queue.SimpleQueue()
        self._work = [queue.SimpleQueue() for _ in range(threads)]
        for number in range(threads):
            # daemons: a second Ctrl-C must be able to leave while a kernel runs
            threading.Thread(target=self._serve, args=(number,), daemon=True).start()

    def _serve(self, number: int) -> None:
        while (task := self._work[number].get()) is not None:
            function, arguments = task
            try:
                function(*arguments, number)
                self._results.put(None)
            except BaseException as error:  # handed to the main thread, whatever it is
                self._results.put(error)

    def run(self, function, *arguments, threads: int | None = None, look=None, every: float = 0.1) -> None:
        """Run function(*arguments, number) in the first `threads` workers; call `look` every so many seconds."""
        threads = threads or self.threads
        for work in self._work[:threads]:
            work.put((function, arguments))
        errors = []
        for _ in range(threads):
            while True:
                try:
                    errors.append(self._results.get(timeout=every if look else None))
                    break
                except queue.Empty:
                    look()
        for error in errors:
            if error is not None:
                raise error

    def close(self) -> None:
        for work in self._work:
            work.put(None)
