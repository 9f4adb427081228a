"""How a run ended: `state.json`, the one record of it, whether the end was a good one or not.

A run that has not ended has none: it goes on right now, or its process was killed.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from mlp_cli import opening
from mlp_cli.errors import Diverged, Interrupted, Stopped, SystemFault
from mlp_cli.runs import files
from mlp_cli.runs.directory import RunDirectory, find_model
from mlp_cli.runs.records import to_json
from mlp_cli.wording import cut

STATES = ("finished", "interrupted", "diverged", "failed")
LONGEST_REASON = 300
MOST_BYTES = 10_000


@dataclass
class Ending:
    """The state in which a run ended, after so many whole epochs and steps, and why, in a few words."""

    state: str = "failed"
    epoch: int = 0
    step: int = 0
    reason: str = ""


@contextmanager
def recorded(run: RunDirectory, warn: Callable[[str], None]) -> Iterator[Ending]:
    """Write down how this block ends, with the epoch, the step and, if it ends well, the reason that it leaves there.

    SystemFault where the record of a good end cannot be written. That of another one must not hide what ended the run,
    and that of an earlier end, which is deleted first, must not keep it from going on: these are warnings.
    """
    if os.path.lexists(run.state_path):
        try:
            files.remove(run.state_path)
        except SystemFault as fault:
            warn(f"{fault}. Training goes on; until its end, the end before is on record")
    ending = Ending()
    try:
        yield ending
    except BaseException as error:
        ending.state, ending.reason = _meaning(error)
        try:
            _write(run, ending)
        except SystemFault as fault:
            warn(f"{fault}. How the run ended is not on record")
        raise
    ending.state = "finished"
    _write(run, ending)


def read(path: Path) -> Ending | None:
    """The record of a run directory; None where there is none, or it is not one that `recorded` wrote."""
    try:
        with opening.read_own(RunDirectory(path).state_path) as file:
            found = Ending(**json.loads(file.read(MOST_BYTES)))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    whole = all(type(number) is int and number >= 0 for number in (found.epoch, found.step))
    return found if whole and found.state in STATES and isinstance(found.reason, str) else None


def chosen_model(path: Path) -> tuple[Path, str]:
    """The checkpoint file that MODEL means (`find_model`), and what has to be said of a run that has not finished.

    Raises Diverged for the directory of a run that diverged: its last good checkpoint is no result, and serves only
    where it is named itself. CheckpointError where there is no checkpoint.
    """
    found = find_model(path)
    if not os.path.isdir(path):  # the checkpoint itself, or a link to it
        return found, ""
    ending = read(path)
    if ending is None:
        if os.path.lexists(RunDirectory(path).summary_path):  # a run of an earlier version of mlp
            return found, ""
        return found, f"{path}: this run has not ended; what is used is its checkpoint so far, {found.name}"
    if ending.state == "diverged":
        raise Diverged(
            f"{path}: this run diverged ({cut(ending.reason, LONGEST_REASON)}) and has no result; train it again with "
            f"a lower learning rate, or name its last good checkpoint, {found}"
        )
    if ending.state == "finished":
        return found, ""
    where = f"at step {ending.step}, in epoch {ending.epoch + 1}"
    reason = f" ({cut(ending.reason, LONGEST_REASON)})" if ending.state == "failed" else ""
    verb = "was interrupted" if ending.state == "interrupted" else ending.state
    return found, f"{path}: this run {verb} {where}{reason}; what is used is its checkpoint so far, {found.name}"


def _meaning(error: BaseException) -> tuple[str, str]:
    """(state, reason) of a run that ends by this exception."""
    text = str(error)
    if isinstance(error, Diverged):
        return "diverged", error.reason
    if isinstance(error, Interrupted | Stopped):
        return "interrupted", text.partition(":")[0]
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", "Interrupted"
    return "failed", text or type(error).__name__


def _write(run: RunDirectory, ending: Ending) -> None:
    ending.reason = cut(ending.reason, LONGEST_REASON)
    files.write_atomically(run.state_path, (to_json(asdict(ending)) + "\n").encode("utf-8", "backslashreplace"))
