"""Opens plain files, and nothing that could make the process wait for ever or write where it should not.

Two doors: `regular` for files of our own, which may be no links, and `open_file` for what the user named, where links
are followed. A pipe may have no writer, a device no end, and what the system shows as files under /proc and /sys has no
true size and may block.
"""

import errno
import functools
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

SYSTEM_FOLDERS = ("/proc", "/sys")
SYSTEM_FILE = "a file of the system, which has no size of its own"

_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
# How long another process may take to give a file free (a lease, as servers of files hold them); the system takes it
# from one that does not after 45 seconds.
LEASE_SECONDS = 60
_LOOK_EVERY = 0.05


class NotAFile(OSError):
    """Something else than a plain file stands at a path: `found` is what, as in `a named pipe`.

    `strerror` says so in the middle of a sentence, and `remedy` what to do.
    """

    def __init__(self, path: str | os.PathLike, found: str, what: str = "", remedy: str = "move it out of the way"):
        super().__init__(errno.EINVAL, what or f"it is {found}, and a plain file is expected", os.fspath(path))
        self.found, self.remedy = found, remedy


def regular(
    path: Path,
    flags: int = os.O_RDONLY,
    mode: int = 0o666,
    unshared: bool = False,
    opened_by: Callable[[Path, int, int], int] = os.open,
) -> int:
    """The descriptor of a plain file. NotAFile for a link or anything else, at once; OSError as for `os.open`.

    With `unshared` a file with several names (hard links) is refused too: to write to it in place would change what
    the other names mean.
    """
    try:
        descriptor = _opened(path, flags | os.O_NOFOLLOW, mode, opened_by)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR, errno.EOPNOTSUPP):
            require_regular(path)
        raise
    return _checked(path, descriptor, unshared)


def read_own(path: Path) -> BinaryIO:
    """A file of our own to read: `regular`, as a stream of bytes."""
    return os.fdopen(regular(path), "rb")


def open_file(path: str | os.PathLike, pipes: bool = False) -> BinaryIO:
    """A plain file to read, or with `pipes` a named pipe too, once it has a writer. NotAFile for anything else.

    OSError where it cannot be opened, ValueError for a path that no system could have.
    """
    if pipes and stat.S_ISFIFO(os.stat(path).st_mode):
        return Path(path).open("rb")
    # what becomes a pipe between these two looks is refused by the second, and does not block the opening
    try:
        descriptor = _opened(path, os.O_RDONLY)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            raise NotAFile(path, kind(os.stat(path).st_mode)) from None
        raise
    return os.fdopen(_checked(path, descriptor), "rb")


def require_regular(path: Path, unshared: bool = False) -> None:
    """NotAFile where something else than a plain file has this name; nothing at all is fine."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    _check(path, found, unshared)


def require_folder(path: Path) -> None:
    """NotAFile where something else than a folder has this name, a link to a folder included; nothing is fine."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(found.st_mode):
        name = kind(found.st_mode)
        raise NotAFile(path, name, f"it is {name}, and a directory is expected")


def kind(mode: int) -> str:
    """What a file of this mode is, in words: a named pipe."""
    return _KINDS.get(stat.S_IFMT(mode), "a file")


def _opened(path: str | os.PathLike, flags: int, mode: int = 0o666, opened_by: Callable[..., int] = os.open) -> int:
    """A descriptor, without waiting for a pipe, but for whoever holds a lease on the file. OSError as for `os.open`."""
    end = time.monotonic() + LEASE_SECONDS
    while True:
        try:
            return opened_by(path, flags | _FLAGS, mode)
        except BlockingIOError:
            if time.monotonic() > end:
                raise
        time.sleep(_LOOK_EVERY)


def _checked(path: str | os.PathLike, descriptor: int, unshared: bool = False) -> int:
    """The descriptor of a plain file; any other is closed."""
    try:
        found = os.fstat(descriptor)
        _check(path, found, unshared)
        if found.st_dev in _system_devices() or (found.st_size == 0 and _holds_more_than_it_says(descriptor)):
            raise NotAFile(path, SYSTEM_FILE)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check(path: str | os.PathLike, found: os.stat_result, unshared: bool) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise NotAFile(path, kind(found.st_mode))
    if unshared and found.st_nlink > 1:
        names = f"it is one of {found.st_nlink} names (hard links) of a file"
        raise NotAFile(path, "a file of several names", names, "put a copy of its own in its place")


@functools.cache
def _system_devices() -> set[int]:
    """Where the system shows files that have no true size."""
    return {os.stat(folder).st_dev for folder in SYSTEM_FOLDERS if os.path.ismount(folder)}


def _holds_more_than_it_says(descriptor: int) -> bool:
    """Whether a file of no size gives bytes, or would if one waited; not one that is written to at this moment."""
    try:
        return bool(os.pread(descriptor, 1, 0)) and os.fstat(descriptor).st_size == 0
    except BlockingIOError:
        return True
    except OSError:  # opened to be written only, or a file in which there is no place
        return False
