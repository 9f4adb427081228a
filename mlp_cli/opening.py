"""Opens files to read without being made to wait for ever.

A pipe may have no writer, a device no end, and what the system shows as files under /proc and /sys has no true size and
may block.
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

SYSTEM_FOLDERS = ("/proc", "/sys")


class NotAFile(OSError):
    """Something else than a plain file; `what` says what, as in `a pipe`."""

    def __init__(self, what: str):
        super().__init__(errno.EINVAL, f"it is {what}")
        self.what = what


def open_file(path: str | os.PathLike, pipes: bool = False) -> BinaryIO:
    """A plain file, or with `pipes` a named pipe too, once it has a writer. NotAFile for anything else.

    OSError where it cannot be opened, ValueError for a path that no system could have.
    """
    if pipes and stat.S_ISFIFO(os.stat(path).st_mode):
        return Path(path).open("rb")
    # what becomes a pipe between these two looks is refused by the second, and does not block the opening
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if what := _other_kind(descriptor):
            raise NotAFile(what)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _other_kind(descriptor: int) -> str | None:
    """What an open file is if it is not a plain one."""
    found = os.fstat(descriptor)
    if stat.S_ISDIR(found.st_mode):
        return "a directory"
    if stat.S_ISFIFO(found.st_mode):
        return "a pipe"
    if not stat.S_ISREG(found.st_mode):
        return "a device"
    devices = {os.stat(folder).st_dev for folder in SYSTEM_FOLDERS if os.path.ismount(folder)}
    if found.st_dev in devices or (found.st_size == 0 and _holds_something(descriptor)):
        return "a file of the system, which has no size of its own"
    return None


def _holds_something(descriptor: int) -> bool:
    """Whether a file of no size gives bytes, or would if one waited."""
    try:
        return bool(os.read(descriptor, 1))
    except BlockingIOError:
        return True
