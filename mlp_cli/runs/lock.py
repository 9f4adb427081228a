"""One writer for each run directory: a lock that the system itself lets go of when its holder dies."""

import errno
import fcntl
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path

from mlp_cli import opening
from mlp_cli.errors import RunInUse, SystemFault
from mlp_cli.runs import files

# Holders' names of any length are padded to one: a power cut while the next one's is written over the last one's then
# leaves either of them, and not half of one.
_LENGTH = 127
_MOST_READ = 4096
_NO_LOCKS_HERE = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}


class Lock:
    """An exclusive `flock` on a file that names its holder; `with Lock(path):` or acquire and release.

    The file itself stays when the lock is released: to delete it would let two processes lock two files of one name.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self._descriptor: int | None = None

    def acquire(self, warn: Callable[[str], None] = lambda message: None) -> None:
        """Takes the lock or raises RunInUse with pid and host of the holder; a dead holder holds nothing.

        On a file system that knows no locks (some clusters mount theirs so) it tells `warn` and goes on without.
        Raises SystemFault when the file cannot be made.
        """
        descriptor = files.open_for_update(self.path)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunInUse(_in_use(self.path)) from error
            except OSError as error:
                if error.errno not in _NO_LOCKS_HERE:
                    raise SystemFault(
                        f"{self.path}: cannot lock it: {files.reason(error)}; choose another file system with --out"
                    ) from error
                warn(f"{self.path}: this file system has no locks, so make sure that no other process uses this run")
            holder = json.dumps({"host": platform.node(), "pid": os.getpid()})
            files.overwrite(descriptor, self.path, (holder.ljust(_LENGTH) + "\n").encode("utf-8"))
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def release(self) -> None:
        """Lets go of the lock; once is enough and twice does no harm."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> "Lock":
        if self._descriptor is None:
            self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def holder(path: Path) -> tuple[int, str] | None:
    """Pid and host that a lock file names, of a living process or a dead one; None for anything else."""
    try:
        content = json.loads(_beginning(path).partition(b"\n")[0])
        return int(content["pid"]), str(content["host"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def is_blank(path: Path) -> bool:
    """Whether a lock file was made and the name of its holder got lost: it is empty, or a power cut left zeros."""
    try:
        return not _beginning(path).strip(b"\0")
    except OSError:
        return False


def _beginning(path: Path) -> bytes:
    with opening.read_own(path) as file:
        return file.read(_MOST_READ)


def _in_use(path: Path) -> str:
    found = holder(path)
    who = f"process {found[0]} on {found[1]}" if found else "another process"
    return f"{path.parent}: in use by {who}; wait for it to end, or choose another directory with --out"
