"""How many threads share the steps of training: all there may be, or one for as long as one is faster.

Threads meet several times a step, so a small step pays for them only while nobody else wants the cores, and while the
cores are near each other: virtual ones move. The number of threads never shows in the results, so the clock may choose.
"""

import math

# The choice is made by trials of both, in turns; for so many seconds each, of many time slices of the system.
TRIAL_SECONDS = 0.02
TRIALS = 2
# Seconds from the start to the first choice, and from one to the next: twice as many each time that it comes out as
# before.
EARLY, FIRST_WAIT, LONGEST_WAIT = 0.05, 0.5, 16.0
# Steps of so many seconds pay for their threads whatever the machine does.
LONG_STEP = 0.005
# All threads are kept unless one is faster by more than this: it costs little to be wrong about less.
TOLERANCE = 0.97


class Pace:
    """Chooses threads for one stretch of steps after another: `stretch`, then `took`, and so on.

    threads: how many there may be. step_seconds: what a step is thought to take until it is known.
    """

    def __init__(self, threads: int, step_seconds: float):
        self.all, self.chosen = threads, threads
        self.step_seconds = dict.fromkeys((1, threads), step_seconds)
        self.wait, self.left = FIRST_WAIT, EARLY
        self.trials: list[int] = []
        self.found: dict[int, list[float]] = {}

    def stretch(self) -> tuple[int, float]:
        """Threads for the next stretch, and the steps that it may have."""
        if self.all == 1 or self.step_seconds[self.all] > LONG_STEP:
            return self.all, math.inf
        if self.left <= 0 and not self.trials:
            self.trials = [1, self.all] * TRIALS
            self.found = {1: [], self.all: []}
        threads, seconds = (self.trials[0], TRIAL_SECONDS) if self.trials else (self.chosen, self.left)
        return threads, max(1, round(seconds / self.step_seconds[threads]))

    def took(self, threads: int, steps: int, seconds: float) -> None:
        """So many steps, by so many threads, took so long."""
        if steps < 1 or seconds <= 0:
            return
        self.step_seconds[threads] = seconds / steps
        if not self.trials:
            self.left -= seconds
            return
        self.found[self.trials.pop(0)].append(seconds / steps)
        if not self.trials:
            self._choose()

    def _choose(self) -> None:
        alone, together = sum(self.found[1]), sum(self.found[self.all])
        chosen = 1 if alone < TOLERANCE * together else self.all
        self.wait = min(2 * self.wait, LONGEST_WAIT) if chosen == self.chosen else FIRST_WAIT
        self.chosen, self.left = chosen, self.wait
