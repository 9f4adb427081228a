"""A run directory: everything about one training run, under names that never change.

runs/digits-001/
    config.yaml                               resolved and re-runnable
    metrics.jsonl                             a line per epoch
    checkpoints/step-0000012345.safetensors   the newest few
    checkpoints/best.safetensors              the result: the best on the validation split, else the last
    summary.json                              written at the end
    state.json                                how it ended: finished, interrupted, diverged or failed (`ending`)
    lock                                      who is writing
    replacement/                              a run begun with --force, until it is finished (see `replacement`)

None of these may be a link, nor anything else but a file or a folder; the directory itself may.
"""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mlp_cli import opening
from mlp_cli.errors import CheckpointError, ConfigError, SystemFault
from mlp_cli.runs import checkpoint, files, replacement
from mlp_cli.runs.history import History
from mlp_cli.runs.lock import Lock, holder, is_blank
from mlp_cli.runs.records import to_json

_STEP_NAME = re.compile(r"step-(\d{10,})\.safetensors")
_CHECKPOINT_NAME = re.compile(r"(step-\d{10,}|best)\.safetensors")
_LARGEST_SUMMARY = 1 << 24  # bytes


def _silent(message: str) -> None:
    """Warns nobody."""


class RunDirectory:
    """The paths of a run and what may be done with them.

    `RunDirectory(path)` looks at a run; `RunDirectory.create(...)` begins or resumes one and holds its lock until
    `close`, or to the end of a `with` block. `home` is the directory that the user named; `path` is where the files
    lie, which is below it while the run is to replace another one.
    """

    def __init__(self, path: Path):
        self.home = Path(path)
        self._locks: list[Lock] = []
        self._lie_in(self.home)

    def _lie_in(self, path: Path) -> None:
        self.path = path
        self.config_path = self.path / "config.yaml"
        self.metrics_path = self.path / "metrics.jsonl"
        self.checkpoints_path = self.path / "checkpoints"
        self.best_path = self.checkpoints_path / "best.safetensors"
        self.summary_path = self.path / "summary.json"
        self.state_path = self.path / "state.json"
        self.lock_path = self.path / "lock"
        self.history = History(self.metrics_path)
        self._proven: set[Path] = set()  # checkpoints that this process wrote or verified
        self._refused: set[Path] = set()  # and those that it found to be invalid

    @classmethod
    def create(
        cls,
        name: str,
        out: Path | None = None,
        base: Path = Path("runs"),
        resume: bool = False,
        force: bool = False,
        warn: Callable[[str], None] = _silent,
    ) -> "RunDirectory":
        """Makes or finds the directory of a run, locks it, and leaves it ready to be written to.

        Without `out` it is `<base>/<name>-001` and so on, one more than the highest there is; with `resume` the highest
        there is, or a new one; `force` has nothing to replace there. A directory `out` may be new or empty. When it
        holds a run, `resume` goes on with that, or with the run that is to replace it if one was begun; `force` begins
        such a run (`replacement`). A file that is not the run's is never deleted.

        Raises ConfigError for a directory that holds a run (with neither flag) or something else, RunInUse when
        another process writes to it, SystemFault when it cannot be written.
        """
        if resume and force:
            raise ConfigError("--resume goes on with a run and --force replaces it: give only one of them")
        base = Path(base)
        if out is not None:
            path = Path(out)
            files.make_directory(path, parents=True)
        else:
            path = (_newest(base, name) if resume else None) or _make_numbered(base, name)
        run = cls(path)
        run._claim(resume, force, warn)
        return run

    @staticmethod
    def is_run(path: Path) -> bool:
        """Whether a run was begun in this directory: a lock or a checkpoint of ours is there.

        A config.yaml or a folder named checkpoints alone could be anybody's.
        """
        path = Path(path)
        if holder(path / "lock") is not None:
            return True
        return any(_CHECKPOINT_NAME.fullmatch(name) for name in _own_names(path / "checkpoints"))

    def close(self) -> None:
        """Lets other processes write to this run."""
        while self._locks:
            self._locks.pop().release()

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def save_config(self, text: str) -> None:
        """Writes config.yaml. Raises SystemFault."""
        files.write_atomically(self.config_path, text.encode("utf-8"))

    def write_summary(self, summary: dict) -> None:
        """Writes summary.json, keys in the order given, a NaN as null. Raises SystemFault."""
        text = to_json(summary, indent=2) + "\n"
        files.write_atomically(self.summary_path, text.encode("utf-8", "backslashreplace"))

    def read_summary(self) -> object:
        """What summary.json says, which anybody may have edited; None where it says nothing. Raises CheckpointError for
        a link or anything else but a file in its place."""
        try:
            with opening.read_own(self.summary_path) as file:
                return json.loads(file.read(_LARGEST_SUMMARY))
        except opening.NotAFile as error:
            raise CheckpointError(f"{self.summary_path}: cannot read it: {error.strerror}; {error.remedy}") from error
        except (OSError, ValueError, RecursionError):
            return None

    def take_place(self) -> None:
        """Puts a finished run that lies in `replacement` in the place of the one it replaces; any other stays where it
        is. Raises SystemFault; `create` with `resume` then does what is left to do."""
        if self.path == self.home:
            return
        try:
            replacement.finish(RunDirectory(self.home))
        except SystemFault:
            # wherever the config now lies, for the command to go on with
            places = [self.home / replacement.BEGUN, self.home / replacement.FINISHED, self.home]
            self._lie_in(next((path for path in places if (path / "config.yaml").exists()), self.home))
            raise
        self._lie_in(self.home)

    def save(self, step: int, tensors: dict[str, np.ndarray], meta: dict) -> Path:
        """Writes the checkpoint of a step. Raises SystemFault; all older checkpoints are then as they were."""
        return self._save(self.checkpoint_path(step), tensors, meta)

    def save_best(self, tensors: dict[str, np.ndarray], meta: dict) -> Path:
        """Writes or replaces the best checkpoint. Raises SystemFault; the former best is then still there."""
        return self._save(self.best_path, tensors, meta)

    def checkpoint_path(self, step: int) -> Path:
        """Where the checkpoint of a step is or will be; names sort like steps."""
        return self.checkpoints_path / f"step-{step:010d}.safetensors"

    def step_checkpoints(self) -> list[tuple[int, Path]]:
        """Step and path of the checkpoints that are there, the oldest first, by step and never by date."""
        matches = (_STEP_NAME.fullmatch(name) for name in _own_names(self.checkpoints_path))
        return sorted((int(match[1]), self.checkpoints_path / match[0]) for match in matches if match)

    def newest_valid(self, warn: Callable[[str], None] = _silent) -> checkpoint.Checkpoint | None:
        """The newest checkpoint that can be read, None where there is none at all.

        Each one that cannot be read is named to `warn` and skipped; the best one is the last resort. Raises
        CheckpointError when there are checkpoints and none is valid.
        """
        candidates = [path for _, path in reversed(self.step_checkpoints())]
        if os.path.lexists(self.best_path):
            candidates.append(self.best_path)
        found = self._first_valid(candidates, warn)
        if candidates and found is None:
            raise CheckpointError(
                f"{self.path}: none of its {len(candidates)} checkpoints can be used, as the warnings say; "
                "--force begins again"
            )
        return found

    def valid_at(self, step: int, warn: Callable[[str], None] = _silent) -> checkpoint.Checkpoint | None:
        """The checkpoint of a step, None where there is none or `warn` is told that it cannot be read."""
        path = self.checkpoint_path(step)
        return self._first_valid([path] if os.path.lexists(path) else [], warn)

    def forget(self, step: int) -> None:
        """Deletes the checkpoint of a step from which the run cannot go on, durably. Raises SystemFault."""
        self._remove(self.checkpoint_path(step))
        # it must not come back after a power cut when the lines of its epochs do not
        files.sync_folder(self.checkpoints_path)

    def outdate(self, best: bool) -> None:
        """Deletes the summary of a run that is not over any more and, if it is no longer the best, the best checkpoint.

        Raises SystemFault.
        """
        for path in (self.summary_path, self.best_path) if best else (self.summary_path,):
            if os.path.lexists(path):
                self._remove(path)

    def prune(self, keep: int) -> None:
        """Deletes all but the newest `keep` checkpoints (one at least), never the best and never the only valid one.

        One that `newest_valid` refused does not count; it stays as long as it is newer than all others. What failed
        saves have left is deleted too. Raises SystemFault.
        """
        for path in self.leftovers():
            self._remove(path)
        checkpoints = [path for _, path in self.step_checkpoints()]
        recent = [path for path in checkpoints if path not in self._refused][-max(keep, 1) :]
        older = checkpoints[: checkpoints.index(recent[-1])] if recent else []
        old = [path for path in older if path not in recent]
        if not old:
            return
        spared = None
        if not any(self._is_valid(path) for path in reversed(recent)):
            spared = next((path for path in reversed(old) if self._is_valid(path)), None)
        for path in old:
            if path != spared:
                self._remove(path)

    def _save(self, path: Path, tensors: dict[str, np.ndarray], meta: dict) -> Path:
        checkpoint.write(path, tensors, meta)
        self._proven.add(path)
        self._refused.discard(path)
        return path

    def _first_valid(self, paths: list[Path], warn: Callable[[str], None]) -> checkpoint.Checkpoint | None:
        for path in paths:
            try:
                found = checkpoint.read(path)
            except CheckpointError as error:
                warn(f"skipped a checkpoint that cannot be used: {error}")
                self._refused.add(path)
            else:
                self._proven.add(path)
                return found
        return None

    def _remove(self, path: Path) -> None:
        files.remove(path)
        self._proven.discard(path)
        self._refused.discard(path)

    def _is_valid(self, path: Path) -> bool:
        return path in self._proven or checkpoint.is_valid(path)

    def _claim(self, resume: bool, force: bool, warn: Callable[[str], None]) -> None:
        # Before locking, so that no lock file is put into somebody else's folder, and again after it, since another
        # process may have begun and ended a run here in between.
        self._refuse_unless_free(resume or force)
        self._acquire(warn)
        try:
            self._refuse_unless_free(resume or force)
            replacement.settle(self)
            self.refuse_links()
            if (force and self.run_files()) or ((force or resume) and replacement.is_begun(self.home)):
                self._lie_in(replacement.place(self.home))
                self._refuse_unless_free(True)
                self._acquire(warn)
                if resume:
                    warn(
                        f"{self.home}: going on with the run that is to replace the one there; to go on with that one "
                        f"instead, delete {self.path} first"
                    )
            if force:
                self._delete_run()
            self.delete(self.leftovers())
            files.make_directory(self.checkpoints_path)
        except BaseException:
            self.close()
            raise

    def _acquire(self, warn: Callable[[str], None]) -> None:
        lock = Lock(self.lock_path)
        lock.acquire(warn)
        self._locks.append(lock)

    def _refuse_unless_free(self, run_is_welcome: bool) -> None:
        if not self.path.is_dir():
            raise ConfigError(f"{self.path}: expected a directory for the run; a file of that name is in the way")
        if not self._is_vacant() and not self.is_run(self.path):
            raise ConfigError(
                f"{self.path}: is not empty and holds no run of mlp; choose a new or an empty directory with --out"
            )
        if not self._is_vacant() and not run_is_welcome:
            raise ConfigError(
                f"{self.path}: holds a run already; go on with it by --resume, replace it by --force, "
                "or choose another directory with --out"
            )
        self.refuse_links()

    def refuse_links(self) -> None:
        """What is read and written under the names of a run must be its own: a link could lead to any file.

        Raises SystemFault.
        """
        try:
            for path in (self.lock_path, self.metrics_path):  # written to in place
                opening.require_regular(path, unshared=True)
            for path in (self.config_path, self.summary_path, self.state_path):
                opening.require_regular(path)
            opening.require_folder(self.checkpoints_path)
        except opening.NotAFile as error:
            raise SystemFault(f"{error.filename}: cannot write to it: {error.strerror}; {error.remedy}") from error

    def _is_vacant(self) -> bool:
        """Whether nothing would be lost: the directory is empty, or its run was stopped before it wrote anything."""
        names = set(_names(self.path))
        if "lock" in names and not _is_ours(self.lock_path):
            return False
        return names <= {"lock", "checkpoints"} and not _own_names(self.checkpoints_path)

    def checkpoint_files(self) -> list[Path]:
        """The checkpoints that are there, the best one first."""
        names = [name for name in _own_names(self.checkpoints_path) if _CHECKPOINT_NAME.fullmatch(name)]
        return [self.checkpoints_path / name for name in sorted(names)]

    def run_files(self) -> list[Path]:
        """The files of the run that are there, but for the lock and what failed saves have left."""
        others = [self.summary_path, self.state_path, self.metrics_path, self.config_path]
        return self.checkpoint_files() + [path for path in others if os.path.lexists(path)]

    def _delete_run(self) -> None:
        """Deletes the run. What is left where that is cut short is a whole run still, or an empty one: the best
        checkpoint alone would pass for the last state, and the others need the diary."""
        self.delete([self.best_path])
        self.delete(self.checkpoint_files())
        self.delete(self.run_files())

    def leftovers(self) -> list[Path]:
        """Temporary files that a killed process, or one whose disk failed, did not come to rename or delete."""
        found = []
        for folder, is_final in ((self.path, self._is_final), (self.checkpoints_path, _CHECKPOINT_NAME.fullmatch)):
            finals = ((name, files.final_name(name)) for name in _own_names(folder))
            found += [folder / name for name, final in finals if final and is_final(final)]
        return found

    def _is_final(self, name: str) -> bool:
        return name in (self.config_path.name, self.summary_path.name, self.state_path.name)

    def delete(self, paths: list[Path]) -> None:
        """Deletes files, durably, in this order. Raises SystemFault."""
        present = [path for path in paths if os.path.lexists(path)]
        for path in present:
            files.remove(path)
        # A checkpoint of the old run that a power cut brought back would be taken for one of the new run.
        for folder in sorted({path.parent for path in present}):
            files.sync_folder(folder)


def find_model(path: Path) -> Path:
    """The checkpoint file that MODEL means: itself, or the best one of a run directory.

    That is `best.safetensors`, which a run has at its end, or as soon as it knows a best epoch, and the newest
    checkpoint before. Whether it is valid is for `checkpoint.read` to say. A link is followed where the user names it,
    and nowhere within a run. Raises CheckpointError when there is none.
    """
    path = Path(path)
    if os.path.isfile(path):
        return Path(os.path.realpath(path)) if path.is_symlink() else path
    if not os.path.isdir(path):
        found = "this is something else" if os.path.lexists(path) else "there is nothing of that name"
        raise CheckpointError(f"{path}: expected a checkpoint file or a run directory; {found}")
    run = RunDirectory(path)
    try:
        opening.require_folder(run.checkpoints_path)
    except OSError as error:
        remedy = getattr(error, "remedy", "check its permissions")
        raise CheckpointError(f"{run.checkpoints_path}: cannot read it: {files.reason(error)}; {remedy}") from error
    if os.path.lexists(run.best_path):
        return run.best_path
    steps = run.step_checkpoints()
    if steps:
        return steps[-1][1]
    if RunDirectory.is_run(path):
        raise CheckpointError(f"{path}: this run has saved no checkpoint yet; go on with it by mlp train --resume")
    raise CheckpointError(f"{path}: expected a checkpoint file or a run directory; this folder holds no run of mlp")


def _numbered(base: Path, name: str) -> list[tuple[int, Path]]:
    """Number and path of what is called `<name>-<number>`, the lowest first."""
    pattern = re.compile(re.escape(name) + r"-(\d{3,})")
    matches = (pattern.fullmatch(entry) for entry in _names(base))
    return sorted((int(match[1]), base / match[0]) for match in matches if match)


def _newest(base: Path, name: str) -> Path | None:
    # An empty directory is a run that was stopped right at its beginning.
    runs = [
        path for _, path in _numbered(base, name) if path.is_dir() and (RunDirectory.is_run(path) or not _names(path))
    ]
    return runs[-1] if runs else None


def _make_numbered(base: Path, name: str) -> Path:
    files.make_directory(base, parents=True)
    existing = _numbered(base, name)
    number = existing[-1][0] + 1 if existing else 1
    # Another process may take a number between the look and the mkdir; only one of them is told True.
    while not files.make_directory(base / f"{name}-{number:03d}"):
        number += 1
    return base / f"{name}-{number:03d}"


def _own_names(folder: Path) -> list[str]:
    """As `_names`; none in a folder that is a link to another one."""
    return [] if folder.is_symlink() else _names(folder)


def _is_ours(lock_path: Path) -> bool:
    return holder(lock_path) is not None or is_blank(lock_path)


def _names(folder: Path) -> list[str]:
    """The names in a folder, in alphabetical order; none where there is no such folder."""
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise SystemFault(f"{folder}: cannot look into it: {files.reason(error)}; check its permissions") from error
