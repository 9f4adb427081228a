"""Opens what must be a regular file: follows no symbolic link, and waits for no pipe, device or socket."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class NotOurs(OSError):
    """Something else than a file of our own stands at a path. `strerror` says what it is, `remedy` what to do."""

    def __init__(self, path: Path, what: str, remedy: str):
        super().__init__(errno.EINVAL, what, str(path))
        self.what, self.remedy = what, remedy


def regular(
    path: Path,
    flags: int = os.O_RDONLY,
    mode: int = 0o666,
    unshared: bool = False,
    opened_by: Callable[[Path, int, int], int] = os.open,
) -> int:
    """The descriptor of a regular file. NotOurs for a link or anything else, at once; OSError as for `os.open`.

    With `unshared` a file with several names (hard links) is NotOurs too: to write to it in place would change what
    the other names mean.
    """
    try:
        descriptor = opened_by(path, flags | _FLAGS, mode)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR, errno.EOPNOTSUPP):
            require_regular(path)
        raise
    try:
        _check(path, os.fstat(descriptor), unshared)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def require_regular(path: Path, unshared: bool = False) -> None:
    """NotOurs where something else than a regular file has this name; nothing at all is fine."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    _check(path, found, unshared)


def require_folder(path: Path) -> None:
    """NotOurs where something else than a folder has this name, a link to a folder included; nothing is fine."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(found.st_mode):
        raise NotOurs(path, f"it is {kind(found.st_mode)}, and a folder is expected", "move it out of the way")


def kind(mode: int) -> str:
    """What a file of this mode is, in words: a named pipe."""
    return _KINDS.get(stat.S_IFMT(mode), "a file")


def _check(path: Path, found: os.stat_result, unshared: bool) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise NotOurs(path, f"it is {kind(found.st_mode)}, and a plain file is expected", "move it out of the way")
    if unshared and found.st_nlink > 1:
        raise NotOurs(
            path, f"it is one of {found.st_nlink} names (hard links) of a file", "put a copy of its own in its place"
        )
