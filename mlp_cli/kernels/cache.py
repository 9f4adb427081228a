"""Machine code kept on disk: once for each machine, version of the kernels and scalar type.

numba's own cache looks at the file of a function only: an edit in a callee leaves stale machine code in its caller.
Here a file lies in a folder named by a hash of every kernel source and of the versions that matter, begins with a
digest of itself, and is renamed into place: it is either right or not there. Folders that were not used for a month
are removed.

The digest tells damage, not intent: whoever may write here decides what this process executes. So a cache is used only
where nobody but this user and root may write (see `trust`).
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mlp_cli import opening, vocab
from mlp_cli.errors import shortage
from mlp_cli.kernels import processor
from mlp_cli.kernels.trust import Untrusted, require_trusted, require_trusted_folder

# How long a folder of another version is kept after its last use, and how often a use is noted.
UNUSED_SECONDS = 30 * 24 * 3600
USE_NOTED_EVERY = 24 * 3600
# How often a process that waits for another one's compiler looks whether it is done.
LOOK_EVERY = 0.05
# How long it waits for another process that compiles: ten times as long as that takes, for that one may be stopped.
LOCK_SECONDS = 120

FOLDER = re.compile(r"kernels-[0-9a-f]{20}")
DIGEST_BYTES = 32


class Damaged(Exception):
    """A file of the cache that is not what was written."""


def root() -> Path:
    """Where the folders of all versions lie."""
    if chosen := os.environ.get("MLP_CACHE_DIR"):
        return Path(chosen)
    try:
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "mlp"
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlp"
    except RuntimeError:  # no home directory: a place where nothing can be kept
        return Path(os.devnull) / "mlp"


def version() -> str:
    """A digest of everything that machine code follows from, the processor aside: sources and versions."""
    digest = hashlib.sha256(repr((sys.version, platform.machine())).encode())
    sources = [*sorted(Path(__file__).parent.glob("*.py")), Path(vocab.__file__)]
    # read rather than imported: numba takes longer to import than all else that a warm start does
    compilers = [Path(importlib.util.find_spec(name).origin).parent / "_version.py" for name in ("numba", "llvmlite")]
    for source in sources + compilers:
        digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()[:20]


class Cache:
    """The file of one scalar type for this processor (machines may share a home directory)."""

    def __init__(self, dtype: str, folder: Path | None = None):
        self.folder = folder or root() / f"kernels-{version()}"
        processor_digest = hashlib.sha256(f"{processor.name()} {processor.features()}".encode()).hexdigest()[:12]
        self.path = self.folder / f"{dtype}-{processor_digest}.code"

    def require_trusted(self) -> None:
        """Untrusted where somebody else may write to the folder, to one above it, or to the file."""
        require_trusted_folder(self.folder)
        with contextlib.suppress(FileNotFoundError):
            found = os.lstat(self.path)
            if stat.S_ISREG(found.st_mode):  # anything else is not read, and gives way to a file
                require_trusted(self.path, found)

    def read(self) -> bytes | None:
        """What was written, or None where nothing can be read.

        Damaged where it is not what was written, Untrusted where somebody else may have written it.
        """
        try:
            require_trusted_folder(self.folder)
            with opening.read_own(self.path) as file:
                require_trusted(self.path, os.fstat(file.fileno()))
                content = file.read()
                self._note_use(file.fileno())
        except OSError as error:
            if fault := shortage(error, str(self.path)):
                raise fault from None
            return None
        written, code = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if self._digest(code) != written:
            raise Damaged
        return code

    def is_there(self) -> bool:
        """Whether `read` finds machine code."""
        try:
            return self.read() is not None
        except (Damaged, Untrusted):
            return False

    def try_to_write(self) -> None:
        """OSError where nothing can be kept, Untrusted where nothing that is kept would be used."""
        self.require_trusted()
        self._write(b"x" * 4096, None)

    def write(self, code: bytes) -> None:
        """Keep machine code, for every user to read; OSError where that is impossible, Untrusted where it would not be
        used."""
        self._write(self._digest(code) + code, self.path)

    def _write(self, content: bytes, path: Path | None) -> None:
        """A new file of the folder, which then takes this path, or none."""
        self._make_folder()
        temporary = self.folder / f".{self.path.name}.{os.urandom(8).hex()}.tmp"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(temporary, flags, 0o644), "wb") as file:
                file.write(content)
            if path is not None:
                os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(temporary)

    def _make_folder(self) -> None:
        """The folder, and those above it, for nobody else to write to, whatever the umask. Untrusted, OSError."""
        require_trusted_folder(self.folder)
        missing = []
        for folder in (self.folder, *self.folder.parents):
            if folder.exists():
                break
            missing.append(folder)
        for folder in reversed(missing):
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder, 0o755)
        require_trusted_folder(self.folder)

    @contextlib.contextmanager
    def lock(self, waiting: Callable[[], None]) -> Iterator[None]:
        """One process at a time; `waiting` is called before a wait.

        The system itself takes the lock from a process that dies. Where none can be had (nothing can be written, the
        file system knows no locks, or its holder does not come to an end) it goes on without one: then several
        processes may compile the same.
        """
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError, Untrusted):
                self._make_folder()
                path = self.path.with_suffix(".lock")
                descriptor = opening.regular(path, os.O_RDWR | os.O_CREAT, 0o600)
                stack.callback(os.close, descriptor)
                require_trusted(path, os.fstat(descriptor))
                if not _is_locked(descriptor):
                    waiting()
                    end = time.monotonic() + LOCK_SECONDS
                    while not _is_locked(descriptor) and time.monotonic() < end:
                        time.sleep(LOOK_EVERY)
            yield

    def prune(self) -> None:
        """Remove the folders of other versions that were not used for long; what cannot be removed stays."""
        with contextlib.suppress(OSError):
            for folder in self.folder.parent.iterdir():
                # the user may have chosen a folder in which other things lie
                ours = FOLDER.fullmatch(folder.name) and folder != self.folder and _is_own(folder)
                if ours and _last_use(folder) < time.time() - UNUSED_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)  # which follows no links

    def _digest(self, code: bytes) -> bytes:
        # with the name, so that a file under another one's name is foreign
        return hashlib.sha256(f"{self.folder.name}/{self.path.name}".encode() + code).digest()

    def _note_use(self, descriptor: int) -> None:
        """The file's time of change tells when it was last used."""
        with contextlib.suppress(OSError):
            if os.fstat(descriptor).st_mtime < time.time() - USE_NOTED_EVERY:
                os.utime(descriptor)


def _is_locked(descriptor: int) -> bool:
    """Whether the lock is ours, now or already; OSError where there are no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _last_use(folder: Path) -> float:
    return max(path.lstat().st_mtime for path in [folder, *folder.iterdir()])


def _is_own(folder: Path) -> bool:
    """Whether it is a folder, no link to one, and this user's."""
    found = os.lstat(folder)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
