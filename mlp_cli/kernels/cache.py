"""Machine code kept on disk: once for each machine, version of the kernels and scalar type.

numba's own cache looks at the file of a function only: an edit in a callee leaves stale machine code in its caller.
Here a file lies in a folder named by a hash of every kernel source and of the versions that matter, begins with a
digest of itself, and is renamed into place: it is either right or not there. Folders that were not used for a month
are removed.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mlp_cli import vocab
from mlp_cli.errors import shortage
from mlp_cli.kernels import processor

# How long a folder of another version is kept after its last use, and how often a use is noted.
UNUSED_SECONDS = 30 * 24 * 3600
USE_NOTED_EVERY = 24 * 3600
# How often a process that waits for another one's compiler looks whether it is done.
LOOK_EVERY = 0.05

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

    def read(self) -> bytes | None:
        """What was written, or None where nothing can be read. Damaged where it is not what was written."""
        try:
            content = self.path.read_bytes()
        except OSError as error:
            if fault := shortage(error, str(self.path)):
                raise fault from None
            return None
        written, code = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if self._digest(code) != written:
            raise Damaged
        self._note_use()
        return code

    def is_there(self) -> bool:
        """Whether `read` finds machine code."""
        try:
            return self.read() is not None
        except Damaged:
            return False

    def try_to_write(self) -> None:
        """OSError where nothing can be kept."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.folder) as probe:
            probe.write(b"x" * 4096)

    def write(self, code: bytes) -> None:
        """Keep machine code; OSError where that is impossible."""
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=self.folder, prefix=f"{self.path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(self._digest(code) + code)
            os.replace(name, self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise

    @contextlib.contextmanager
    def lock(self, waiting: Callable[[], None]) -> Iterator[None]:
        """One process at a time; `waiting` is called before a wait.

        The system itself takes the lock from a process that dies. Where none can be had (nothing can be written, or
        the file system knows no locks) it goes on without one: then several processes may compile the same.
        """
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                self.folder.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
                stack.callback(os.close, descriptor)
                if not _is_locked(descriptor):
                    waiting()
                    while not _is_locked(descriptor):
                        time.sleep(LOOK_EVERY)
            yield

    def prune(self) -> None:
        """Remove the folders of other versions that were not used for long; what cannot be removed stays."""
        with contextlib.suppress(OSError):
            for folder in self.folder.parent.iterdir():
                # the user may have chosen a folder in which other things lie
                ours = FOLDER.fullmatch(folder.name) and folder != self.folder
                if ours and _last_use(folder) < time.time() - UNUSED_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)

    def _digest(self, code: bytes) -> bytes:
        # with the name, so that a file under another one's name is foreign
        return hashlib.sha256(f"{self.folder.name}/{self.path.name}".encode() + code).digest()

    def _note_use(self) -> None:
        """The file's time of change tells when it was last used."""
        with contextlib.suppress(OSError):
            if self.path.stat().st_mtime < time.time() - USE_NOTED_EVERY:
                os.utime(self.path)


def _is_locked(descriptor: int) -> bool:
    """Whether the lock is ours, now or already; OSError where there are no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _last_use(folder: Path) -> float:
    return max(path.stat().st_mtime for path in [folder, *folder.iterdir()])
