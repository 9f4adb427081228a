"""The one door to the disk: whatever a run writes, flushes, renames or deletes goes through here.

Each function leaves the disk in the old state or in the new one, and a failure is a `SystemFault`: path, reason and
remedy in one sentence.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlp_cli.errors import SystemFault

TEMPORARY_SUFFIX = ".tmp"

_REMEDIES = {
    errno.ENOSPC: "free some space there and run again",
    errno.EDQUOT: "free some of your quota and run again",
    errno.EROFS: "choose a folder you may write to",
    errno.EACCES: "choose a folder you may write to",
    errno.EPERM: "choose a folder you may write to",
    errno.ENOENT: "create the folder that should hold it first",
    errno.EEXIST: "move what has that name out of the way",
    errno.EISDIR: "move the folder of that name out of the way",
    errno.ENOTDIR: "a file stands where a folder is expected, choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "allow more open files (ulimit -n)",
}

# Some network and user-space file systems cannot fsync a folder; there is nothing more to be done about it there.
_FOLDER_SYNC_UNSUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.EBADF}


def write_atomically(path: Path, *parts: bytes | memoryview) -> None:
    """Writes the parts, one after the other, to `path`: all of them durably, or none and the old file stays.

    The temporary file is `<name>.tmp` in the same folder, always the same name: what a killed process leaves behind
    is overwritten by the next attempt instead of filling the disk. Raises SystemFault.
    """
    path = Path(path)
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    size = sum(memoryview(part).nbytes for part in parts)
    with _told(path, f"write it ({size_text(size)} needed)"):
        try:
            with _call(open, temporary, "wb") as file:
                for part in parts:
                    _call(file.write, part)
                _call(file.flush)
                _call(os.fsync, file.fileno())
            _call(os.replace, temporary, path)
        except OSError:
            _discard(temporary)
            raise
        _sync_folder(path.parent)


def write_output(path: Path, *parts: bytes | memoryview) -> None:
    """Writes what the user asked for to where the user said: like `write_atomically`, but through a symbolic link,
    and into a pipe or a device that stands there instead of in its place (`/dev/null` must stay what it is).

    Raises SystemFault.
    """
    path = Path(os.path.realpath(path))
    if path.is_dir() or path.is_file() or not path.exists():
        write_atomically(path, *parts)
        return
    with _told(path, "write to it"), _call(open, path, "wb") as file:
        for part in parts:
            _call(file.write, part)


def append_line(path: Path, line: str) -> None:
    """Adds one line to a text file, whole or not at all; a process that is killed later does not take it along.

    Its content is not synced to the disk, which would cost more than an epoch of a small net: call `sync` before
    anything that relies on it. Raises SystemFault.
    """
    data = (line + "\n").encode("utf-8", "backslashreplace")
    path = Path(path)
    with _told(path, f"add a line to it ({size_text(len(data))} needed)"), _call(open, path, "ab", 0) as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            _sync_folder(path.parent)
        try:
            written = _call(file.write, data)
            if written != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            _call(file.truncate, size)
            raise


def open_for_update(path: Path) -> int:
    """Descriptor of a file opened to read and write, made empty where there is none. Raises SystemFault."""
    with _told(path, "open it"):
        return _call(os.open, path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)


def overwrite(descriptor: int, path: Path, data: bytes) -> None:
    """Replaces the content of an open file in place, for one that must keep its inode. Raises SystemFault."""
    with _told(path, "write it"):
        _call(os.ftruncate, descriptor, 0)
        _call(os.pwrite, descriptor, data, 0)
        _call(os.fsync, descriptor)


def sync(path: Path) -> None:
    """Makes what was appended to a file survive a power cut; a file that is not there is fine. Raises SystemFault."""
    with _told(path, "sync it"):
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return
        try:
            _call(os.fsync, descriptor)
        finally:
            os.close(descriptor)


def truncate(path: Path, size: int) -> None:
    """Cuts a file back to `size` bytes, durably. Raises SystemFault."""
    with _told(path, "shorten it"), _call(open, path, "r+b") as file:
        _call(file.truncate, size)
        _call(os.fsync, file.fileno())


def remove(path: Path) -> None:
    """Deletes a file; one that is already gone is fine. Raises SystemFault."""
    with _told(path, "delete it"):
        try:
            _call(os.unlink, path)
        except FileNotFoundError:
            return


def sync_folder(path: Path) -> None:
    """Makes the names in a folder, new or deleted, survive a power cut. Raises SystemFault."""
    with _told(path, "sync it"):
        _sync_folder(path)


def make_directory(path: Path, parents: bool = False) -> bool:
    """Makes a folder, with the missing ones above it on demand; False where something has that name already.

    Exactly one of several processes that try at once is told True. Raises SystemFault.
    """
    path = Path(path)
    with _told(path, "make this folder"):
        try:
            _call(os.mkdir, path)
        except FileExistsError:
            return False
        except FileNotFoundError:
            if not parents or path == path.parent:
                raise
            make_directory(path.parent, parents=True)
            return make_directory(path)
        _sync_folder(path.parent)
        return True


def size_text(size: int) -> str:
    """A number of bytes for people: 812 bytes, 1.5 MB."""
    if size < 1000:
        return f"{size} bytes"
    value, unit = size / 1000, "kB"
    for larger in ("MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.1f} {unit}"


def reason(error: Exception) -> str:
    """What the system says about an error, in the middle of a sentence: no space left on device."""
    text = getattr(error, "strerror", None) or str(error)
    return text[:1].lower() + text[1:]


def _call(operation, *arguments):
    # Everything that changes the disk passes this point, so a test can number the calls and let the n-th one fail.
    return operation(*arguments)


def _sync_folder(folder: Path) -> None:
    # Without this a power cut may forget the rename itself, though the file's content is safe.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _call(os.fsync, descriptor)
    except OSError as error:
        if error.errno not in _FOLDER_SYNC_UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)


def _discard(temporary: Path) -> None:
    # The first failure is the one to report; a leftover does no harm.
    try:
        _call(os.unlink, temporary)
    except OSError:
        return


@contextmanager
def _told(path: Path, intent: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno, "check the disk, or choose another place")
        raise SystemFault(f"{path}: cannot {intent}: {reason(error)}; {remedy}") from error
