"""The states to which `on_divergence: rollback` returns: those of the checkpoints, even where the disk refused them."""

from collections.abc import Callable

import numpy as np

from mlp_cli.runs.directory import RunDirectory

State = tuple[dict, dict[str, np.ndarray]]  # (JSON part, tensors) of a checkpoint


class Snapshots:
    """The state saved last, in memory, and the `keep - 1` before it: on the disk, or in memory where that failed.

    A rollback must not depend on what the disk did, for the bits of the run depend on the rollback.
    """

    def __init__(self, run: RunDirectory, keep: int, warn: Callable[[str], None]):
        self.run, self.keep, self.warn = run, keep, warn
        self.last: State | None = None
        self._steps: list[int] = []  # of the last state, which is at the end, and of those before it
        self._unwritten: dict[int, State] = {}

    def resume(self, state: State) -> None:
        """Begin with a state that was read from the disk."""
        earlier = [step for step, _ in self.run.step_checkpoints() if step < _step(state)]
        self._steps = [*earlier, _step(state)][-self.keep :]
        self.last = state

    def take(self, state: State) -> None:
        """Remember a state that is about to be written."""
        step = _step(state)
        self._steps = [*(earlier for earlier in self._steps if earlier < step), step][-self.keep :]
        self._unwritten = {kept: self._unwritten[kept] for kept in self._steps if kept in self._unwritten}
        self._unwritten[step] = self.last = state

    def written(self) -> None:
        """Take note that the last state is on the disk."""
        del self._unwritten[_step(self.last)]

    @property
    def is_written(self) -> bool:
        """Whether the last state is on the disk."""
        return _step(self.last) not in self._unwritten

    def step_back(self) -> bool:
        """Make the state before the last one the last one; False where there is none."""
        for place in range(len(self._steps) - 2, -1, -1):
            if state := self._read(self._steps[place]):
                self.last = state
                self._steps = self._steps[: place + 1]
                return True
        return False

    def _read(self, step: int) -> State | None:
        if step in self._unwritten:
            return self._unwritten[step]
        found = self.run.valid_at(step, self.warn)
        return None if found is None else (found.meta, found.tensors)


def _step(state: State) -> int:
    return state[0]["position"]["step"]
