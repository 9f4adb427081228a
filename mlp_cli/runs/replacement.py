"""A run that replaces another one: trained in a folder of its directory, and put in its place when it is finished.

    DIR/                        the old run, whole
    DIR/replacement/            the new one, a run directory of its own
    DIR/replacement-finished/   the same after its end, on the way to DIR

The new run is finished at one instant: when its folder gets the other name. Until then the old run is as it was. Then
its files are exchanged for the new ones, the best checkpoint first and in one rename: at every instant a model is in
DIR, the old one or the new one. A process that dies in between, or a disk that fails, leaves the rest in
`replacement-finished`, and whoever claims the directory next completes the exchange: until config.yaml has moved,
files of the old run may be there, and after that only files of the new one.

Everything happens within one directory, so that it may be a link or a mount point, with a parent that nobody may write
to. Files in it that are not the run's are not touched.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mlp_cli import opening
from mlp_cli.errors import ConfigError, SystemFault
from mlp_cli.runs import files

if TYPE_CHECKING:
    from mlp_cli.runs.directory import RunDirectory

BEGUN = "replacement"
FINISHED = "replacement-finished"


def is_begun(home: Path) -> bool:
    """Whether a run to replace that of this directory was begun."""
    return os.path.lexists(home / BEGUN)


def place(home: Path) -> Path:
    """The folder in which a run to replace that of this directory is trained, made where it is not there yet.

    SystemFault where it cannot be made or is a link, ConfigError where a file of the user's would be in the way in the
    end.
    """
    if os.path.lexists(home / FINISHED):
        raise ConfigError(
            f"{home / FINISHED}: holds files that are not mlp's, and a run that replaces another needs this name; "
            "move them out of the way"
        )
    _require_folder(home / BEGUN)
    files.make_directory(home / BEGUN)
    return home / BEGUN


def finish(old: "RunDirectory") -> None:
    """Puts the finished run in the place of the old one. Raises SystemFault; `settle` then does the rest."""
    files.rename(old.home / BEGUN, old.home / FINISHED)
    settle(old)


def settle(old: "RunDirectory") -> None:
    """Completes an exchange that was begun, if there is one. Raises SystemFault."""
    new = type(old)(old.home / FINISHED)
    _require_folder(new.home)
    if not new.home.exists():
        return
    new.refuse_links()
    files.make_directory(old.checkpoints_path)
    if os.path.lexists(new.config_path):
        old.delete([old.summary_path, old.state_path])  # which would speak of another checkpoint
        _move(new.best_path, old.best_path)
        old.delete([path for path in old.run_files() if path not in (old.best_path, old.config_path)])
        old.delete(old.leftovers())
        _move(new.config_path, old.config_path)
    for path in new.checkpoint_files():
        _move(path, old.checkpoints_path / path.name)
    _move(new.metrics_path, old.metrics_path)
    _move(new.summary_path, old.summary_path)
    _move(new.state_path, old.state_path)
    old.delete([*new.leftovers(), new.lock_path])
    for folder in (new.checkpoints_path, new.home):
        if folder.is_dir() and not any(folder.iterdir()):  # the user may have put something there
            files.remove_folder(folder)
    files.sync_folder(old.home)


def _move(source: Path, target: Path) -> None:
    if os.path.lexists(source):
        files.rename(source, target)


def _require_folder(path: Path) -> None:
    try:
        opening.require_folder(path)
    except opening.NotAFile as error:
        raise SystemFault(f"{path}: cannot write to it: {error.strerror}; {error.remedy}") from error
