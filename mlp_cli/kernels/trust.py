"""Whose files may be executed: those of this user and of root that nobody else may write to."""

import errno
import os
import pwd
import stat
from pathlib import Path

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class Untrusted(Exception):
    """Somebody else may write here. `remedy` says what to do."""

    def __init__(self, path: Path, what: str, remedy: str):
        super().__init__(f"{path}: {what}")
        self.remedy = remedy


def require_trusted(path: Path, found: os.stat_result) -> None:
    """Untrusted unless a file or folder of this status belongs to this user or root and nobody else may write to it."""
    if found.st_uid not in (0, os.geteuid()):
        raise Untrusted(
            path,
            f"belongs to {_name(found.st_uid)}, who could have this process execute anything",
            "set MLP_CACHE_DIR to a folder of your own",
        )
    if found.st_mode & _OTHERS_WRITE:
        raise Untrusted(
            path,
            "others than its owner may write to it, and so have this process execute anything",
            f"chmod go-w {path}, or set MLP_CACHE_DIR to a folder of your own",
        )


def require_trusted_folder(folder: Path) -> None:
    """Untrusted unless only this user and root may change what lies in a folder, and what its path means.

    The folder, or some above it, need not be there yet. OSError where that cannot be found out.
    """
    real = Path(os.path.realpath(folder))
    for path in (real, *real.parents):
        try:
            found = os.stat(path, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if not stat.S_ISDIR(found.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
        # in a sticky folder, /tmp for one, everybody has names, and nobody may change those of others
        is_shared = path != real and found.st_mode & stat.S_ISVTX
        if not (is_shared and found.st_uid in (0, os.geteuid())):
            require_trusted(path, found)


def _name(user: int) -> str:
    try:
        return f"user {pwd.getpwuid(user).pw_name}"
    except KeyError:
        return f"user {user}"
