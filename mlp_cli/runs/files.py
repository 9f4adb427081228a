"""The one door to the disk: whatever a run writes, flushes, renames or deletes goes through here.

Each function leaves the disk in the old state or in the new one, and a failure is a `SystemFault`: path, reason and
remedy in one sentence. No file is written through a link, and nothing but a regular file is opened; `write_output`
alone goes where the user says.
"""

import errno
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mlp_cli import opening
from mlp_cli.errors import SystemFault
from mlp_cli.interrupts import unfinished
from mlp_cli.memory import size_text

# How long a named pipe is given to find a reader.
READER_SECONDS = 60
_LOOK_EVERY = 0.05
_MOST_LINKS = 40

# As many letters of the final name as leave room for the rest, whatever their bytes.
_SHOWN_LETTERS = 50
_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{16}\.tmp")

_REMEDIES = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some of your quota",
    errno.EROFS: "choose a folder you may write to",
    errno.EACCES: "choose a folder you may write to",
    errno.EPERM: "choose a folder you may write to",
    errno.ENOENT: "create the folder that should hold it first",
    errno.EEXIST: "move what has that name out of the way",
    errno.EISDIR: "move the folder of that name out of the way",
    errno.ENOTDIR: "a file stands where a folder is expected, choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOTEMPTY: "move the folder of that name out of the way",
    errno.ELOOP: "remove the link that leads to itself",
    errno.ENXIO: "start a program that reads from this pipe first, or name a file",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close other programs, the system can open no more files",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f), or choose another disk",
}

# Some network and user-space file systems cannot fsync a folder, and one that may be written but not read cannot be
# opened for it; there is nothing more to be done about it there.
_FOLDER_SYNC_UNSUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES}


def temporary_path(path: Path) -> Path:
    """A new name beside `path` for what is to take its place: hidden, and nobody can know it beforehand."""
    return path.with_name(f".{path.name[:_SHOWN_LETTERS]}.{os.urandom(8).hex()}.tmp")


def final_name(name: str) -> str | None:
    """The name that a temporary file of ours was to have, cut at 50 letters; None for any other file."""
    match = _TEMPORARY.fullmatch(name)
    return match[1] if match else None


def write_atomically(path: Path, *parts: bytes | memoryview) -> None:
    """Writes the parts, one after the other, to `path`: all of them durably, or none and the old file stays.

    The new file is made under a temporary name in the same folder and then renamed; it has the permissions of the old
    one and, where the system lets us, its owner. A process that is killed leaves the temporary file behind:
    `final_name` knows it. Raises SystemFault.
    """
    path = Path(path)
    temporary = temporary_path(path)
    with _told(path, f"write it ({_size_of(parts)} needed)"):
        old = _old_file(path)
        mode = stat.S_IMODE(old.st_mode) & 0o777 if old else 0o666
        try:
            with unfinished(temporary):
                with _opened(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode) as descriptor:
                    if old:
                        _resemble(descriptor, old)
                    _write(descriptor, *parts)
                    _call(os.fsync, descriptor)
                _call(os.replace, temporary, path)
        except FileExistsError:  # what has the temporary name is not ours to delete
            raise
        except OSError:
            _discard(temporary)
            raise
        _sync_folder(path.parent)


def write_output(path: Path, *parts: bytes | memoryview) -> None:
    """Writes what the user asked for to where the user said: like `write_atomically`, but through a symbolic link,
    and into a pipe or a device that stands there instead of in its place (`/dev/null` must stay what it is).

    A link must be the user's own or the system's: in a folder where others may write, theirs could lead anywhere. A
    pipe must have a reader within a minute. What this process has open (`/dev/stdout`) is written to where it stands.
    Raises SystemFault.
    """
    path = Path(path)
    with _told(path, "write to it"):
        if (descriptor := _open_already(path)) is not None:
            _write(descriptor, *parts)
            return
        if not _is_stream(path):
            path = _followed(path)
    if not _is_stream(path):
        write_atomically(path, *parts)
        return
    with _told(path, "write to it"), _opened_stream(path) as descriptor:
        _write(descriptor, *parts)


def write_end(path: Path, at: int, data: bytes) -> None:
    """Puts `data` behind the first `at` bytes of a file, whole or not at all, and cuts off whatever follows them.

    A process that is killed later does not take it along, but it is not synced to the disk, which would cost more
    than an epoch of a small net: call `sync` before anything that relies on it. Raises SystemFault.
    """
    path = Path(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    with _told(path, f"add to it ({_size_of([data])} needed)"), _opened(path, flags, unshared=True) as descriptor:
        before = min(os.fstat(descriptor).st_size, at)
        _cut(descriptor, before)
        try:
            _write(descriptor, data)
        except OSError:
            # the first failure is the one to report, and the next call cuts off what this one cannot
            with suppress(OSError):
                _cut(descriptor, before)
            raise


def open_for_update(path: Path) -> int:
    """Descriptor of a file opened to read and write, made empty where there is none. Raises SystemFault."""
    with _told(path, "open it"):
        return _open(path, os.O_RDWR | os.O_CREAT, unshared=True)


def overwrite(descriptor: int, path: Path, data: bytes) -> None:
    """Replaces the content of an open file in place, for one that must keep its inode. Raises SystemFault.

    The new content is written before what is left of a longer old one is cut off: there is no instant at which the
    file is empty.
    """
    with _told(path, "write it"):
        os.lseek(descriptor, 0, os.SEEK_SET)
        _write(descriptor, data)
        _cut(descriptor, len(data))
        _call(os.fsync, descriptor)


def sync(path: Path) -> None:
    """Makes what was appended to a file survive a power cut; a file that is not there is fine. Raises SystemFault."""
    with _told(path, "sync it"), suppress(FileNotFoundError), _opened(path, os.O_RDONLY) as descriptor:
        _call(os.fsync, descriptor)


def truncate(path: Path, size: int) -> None:
    """Cuts a file back to `size` bytes where it is longer, durably. Raises SystemFault."""
    with _told(path, "shorten it"), _opened(path, os.O_WRONLY, unshared=True) as descriptor:
        _cut(descriptor, size)
        _call(os.fsync, descriptor)


def remove(path: Path) -> None:
    """Deletes a file; one that is already gone is fine. Raises SystemFault."""
    with _told(path, "delete it"), suppress(FileNotFoundError):
        _call(os.unlink, path)


def rename(source: Path, target: Path) -> None:
    """Gives a file or a folder another name, at once, in the place of a file that has it already.

    Another folder is synced before the one that it leaves. Raises SystemFault.
    """
    with _told(target, f"put {source} in its place"):
        _call(os.replace, source, target)
        for folder in dict.fromkeys((target.parent, source.parent)):
            _sync_folder(folder)


def remove_folder(path: Path) -> None:
    """Deletes an empty folder; one that is already gone is fine. Raises SystemFault."""
    with _told(path, "delete it"), suppress(FileNotFoundError):
        _call(os.rmdir, path)


def sync_folder(path: Path) -> None:
    """Makes the names in a folder, new or deleted, survive a power cut. Raises SystemFault."""
    with _told(path, "sync it"):
        _sync_folder(path)


def make_directory(path: Path, parents: bool = False) -> bool:
    """Makes a folder, with the missing ones above it on demand; False where something has that name already.

    Exactly one of several processes that try at once is told True, and each may rely on the name. Raises SystemFault.
    """
    path = Path(path)
    with _told(path, "make this folder"):
        try:
            _call(os.mkdir, path)
            made = True
        except FileExistsError:
            made = False
        except FileNotFoundError:
            if not parents or path == path.parent:
                raise
            make_directory(path.parent, parents=True)
            return make_directory(path)
        # also where it was there: whoever made it may have been killed before this
        _sync_folder(path.parent)
        return made


def reason(error: Exception) -> str:
    """What the system says about an error, in the middle of a sentence: no space left on device."""
    text = getattr(error, "strerror", None) or str(error)
    return text[:1].lower() + text[1:]


def _call(operation, *arguments):
    # Every system call that changes the disk, or makes a change durable, passes this point, so that tests can number
    # them and let the n-th one fail, or let the process or the power end there. No buffer of ours lies behind it.
    return operation(*arguments)


def _open(path: Path, flags: int, mode: int = 0o666, unshared: bool = False) -> int:
    return opening.regular(path, flags, mode, unshared, opened_by=lambda *given: _call(os.open, *given))


@contextmanager
def _opened(path: Path, flags: int, mode: int = 0o666, unshared: bool = False) -> Iterator[int]:
    descriptor = _open(path, flags, mode, unshared)
    try:
        yield descriptor
    finally:
        # some network file systems say only now that a quota was exceeded
        _call(os.close, descriptor)


def _old_file(path: Path) -> os.stat_result | None:
    with suppress(FileNotFoundError):
        found = os.lstat(path)
        return found if stat.S_ISREG(found.st_mode) else None


def _resemble(descriptor: int, old: os.stat_result) -> None:
    """Gives a new file owner and permissions of the one whose place it is to take."""
    new = os.fstat(descriptor)
    if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
        with suppress(PermissionError):  # only the superuser may give files away
            _call(os.fchown, descriptor, old.st_uid, old.st_gid)
    mode = stat.S_IMODE(old.st_mode) & 0o777
    if stat.S_IMODE(new.st_mode) != mode:
        _call(os.fchmod, descriptor, mode)


def _is_stream(path: Path) -> bool:
    """Whether a path leads to a pipe, a device or a socket."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _open_already(path: Path) -> int | None:
    """The descriptor of this process that a path like `/dev/stdout` or `/dev/fd/3` names, itself or through links."""
    ours = {os.path.realpath(folder) for folder in ("/dev/fd", "/proc/self/fd")}
    for _ in range(_MOST_LINKS):
        if path.name.isdecimal() and os.path.realpath(path.parent) in ours:
            return int(path.name)
        if not os.path.islink(path) or not _is_trusted_link(path):
            return None
        path = path.parent / os.readlink(path)
    return None


def _followed(path: Path) -> Path:
    """The path that the links of a path lead to."""
    for _ in range(_MOST_LINKS):
        if not os.path.islink(path):
            return Path(os.path.realpath(path))
        if not _is_trusted_link(path):
            # the path itself would lose its first capital in `reason`
            what = f"the symbolic link {path} is another user's"
            raise opening.NotAFile(path, "a symbolic link", what, "name the file itself")
        path = path.parent / os.readlink(path)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _is_trusted_link(path: Path) -> bool:
    return os.lstat(path).st_uid in (0, os.geteuid())


@contextmanager
def _opened_stream(path: Path) -> Iterator[int]:
    """A pipe or a device, opened to be written to."""
    end = time.monotonic() + READER_SECONDS
    while True:
        try:
            descriptor = _call(os.open, path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            break
        except OSError as error:
            if error.errno != errno.ENXIO or time.monotonic() > end:
                raise
        time.sleep(_LOOK_EVERY)
    try:
        os.set_blocking(descriptor, True)
        yield descriptor
    finally:
        _call(os.close, descriptor)


def _write(descriptor: int, *parts: bytes | memoryview) -> None:
    for part in parts:
        rest = memoryview(part).cast("B")
        while rest:
            written = _call(os.write, descriptor, rest)
            if not written:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            rest = rest[written:]


def _cut(descriptor: int, size: int) -> None:
    if os.fstat(descriptor).st_size > size:
        _call(os.ftruncate, descriptor, size)


def _sync_folder(folder: Path) -> None:
    # Without this a power cut may forget the rename itself, though the file's content is safe.
    try:
        descriptor = _call(os.open, folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, 0o666)
        try:
            _call(os.fsync, descriptor)
        finally:
            _call(os.close, descriptor)
    except OSError as error:
        if error.errno not in _FOLDER_SYNC_UNSUPPORTED:
            raise


def _discard(temporary: Path) -> None:
    # The first failure is the one to report; a leftover does no harm.
    with suppress(OSError):
        _call(os.unlink, temporary)


def _size_of(parts: Iterable[bytes | memoryview]) -> str:
    return size_text(sum(memoryview(part).nbytes for part in parts))


@contextmanager
def _told(path: Path, intent: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # nobody reads any more: no fault of the system
        raise
    except OSError as error:
        remedy = getattr(error, "remedy", None) or _REMEDIES.get(error.errno, "check the disk, or choose another place")
        raise SystemFault(f"{path}: cannot {intent}: {reason(error)}; {remedy}") from error
