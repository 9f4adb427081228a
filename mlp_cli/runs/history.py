"""The diary of a run: `metrics.jsonl`, one line of JSON for every epoch that came to its end."""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from mlp_cli import opening
from mlp_cli.errors import CheckpointError, SystemFault, shortage
from mlp_cli.runs import files
from mlp_cli.runs.records import to_json

# Bytes of lines that are kept in memory until they are durable; more are synced even if no checkpoint is due.
MOST_UNSYNCED = 1_000_000
# The longest line that is taken for a record; a longer one counts as damaged, and is never in memory as a whole.
LONGEST_LINE = 1 << 24
_CHUNK = 1 << 16


class History:
    """Appends to, reads and cuts back one `metrics.jsonl`; the file appears with its first line.

    A line is kept in memory until it is known to be durable. What could not be written is written with the next line
    or by the next `sync`; so is everything since the last `sync` after one that failed, since the system then counts
    as written what it has dropped.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self._synced: int | None = None  # bytes of the file that are durable; None: not looked at yet
        self._unsynced = bytearray()  # the lines that follow them
        self._written = 0  # bytes of the file that are there, durable or not
        self._named = False  # whether the file's name is durable as well
        self._uncut = False  # whether lines that were dropped may still be in the file

    def append(self, record: dict) -> None:
        """Adds the line of one epoch, keys in the order given, a NaN as null.

        It survives the death of this process at once, and a power cut after `sync`. Raises SystemFault when it cannot
        be written now; the file then ends with the line before.
        """
        self._unsynced += (to_json(record) + "\n").encode("utf-8", "backslashreplace")
        if len(self._unsynced) > MOST_UNSYNCED:
            self.sync()
        else:
            self._write()

    def sync(self) -> None:
        """Makes the lines so far durable. A checkpoint must not reach the disk before the lines of its epochs do.

        Raises SystemFault; no line is lost then, and the next call tries again.
        """
        self._cut()
        if not self._unsynced:
            return
        self._write()
        try:
            files.sync(self.path)
        except SystemFault:
            self._written = self._synced
            raise
        if not self._named:
            files.sync_folder(self.path.parent)
            self._named = True
        self._synced = self._written
        self._unsynced.clear()

    def truncate_after(self, epoch: int) -> int:
        """Drops what follows the line of `epoch`, torn lines included, and returns how many lines of epochs are left.

        Fewer than `epoch` means that the file was damaged or edited. Raises SystemFault, and CheckpointError when the
        file cannot be read; what could not be cut off is cut off by the next `append` or `sync`.
        """
        end = kept = position = 0
        size = self._size()
        in_file = size if self._synced is None else min(size, self._synced)
        in_memory = [] if self._synced is None else [bytes(self._unsynced)]
        for length, line in _lines(chain(self._chunks(in_file), in_memory)):
            position += length
            record = _parse(line)
            if record is None:
                continue
            if record["epoch"] > epoch:
                break
            kept += 1
            end = position
        if self._synced is None:
            self._synced = self._written = end
        self._synced, self._written = min(self._synced, end), min(self._written, end)
        self._unsynced = self._unsynced[self._synced - in_file : end - in_file] if end > in_file else bytearray()
        # also where nothing is to be cut off: another process wrote these lines and may not have lived to sync them
        self._uncut = size > 0
        self._cut()
        return kept

    def read(self) -> list[dict]:
        """The records of all epochs, an empty list where there is no file yet; a torn last line is left out.

        Raises CheckpointError for a damaged line elsewhere.
        """
        records, damaged = [], None
        for number, (_, line) in enumerate(_lines(self._chunks(self._size())), start=1):
            if damaged is not None:
                raise CheckpointError(f"{damaged}; delete this line")
            record = _parse(line)
            if record is not None:
                records.append(record)
            else:
                damaged = f"{self.path}:{number}: expected the JSON record of an epoch; got {line[:40]!r}"
        return records

    def _write(self) -> None:
        """Writes what of the lines is not there yet."""
        if self._synced is None:
            self._synced = self._written = self._size()
        if rest := bytes(self._unsynced[self._written - self._synced :]):
            files.write_end(self.path, self._written, rest)
            self._written += len(rest)

    def _cut(self) -> None:
        if self._uncut:
            files.truncate(self.path, self._written)
            self._uncut = False

    def _size(self) -> int:
        with self._reading() as file:
            return os.fstat(file.fileno()).st_size if file else 0

    def _chunks(self, in_file: int) -> Iterator[bytes]:
        """The first bytes of the file, in pieces."""
        with self._reading() as file:
            while file and in_file > 0 and (chunk := file.read(min(in_file, _CHUNK))):
                in_file -= len(chunk)
                yield chunk

    @contextmanager
    def _reading(self) -> Iterator[BinaryIO | None]:
        try:
            file = opening.read_own(self.path)
        except FileNotFoundError:
            yield None
            return
        except OSError as error:
            if fault := shortage(error, str(self.path)):
                raise fault from error
            remedy = getattr(error, "remedy", "check its permissions")
            raise CheckpointError(f"{self.path}: cannot read it: {files.reason(error)}; {remedy}") from error
        with file:
            yield file


def _lines(chunks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Length and bytes of each line, its newline included. Of a line that is too long only the beginning is kept, and
    no newline."""
    line, length = bytearray(), 0
    for chunk in chunks:
        for piece in chunk.splitlines(keepends=True):
            length += len(piece)
            line += piece[: LONGEST_LINE - len(line)]
            if piece.endswith(b"\n"):
                yield length, bytes(line if length <= LONGEST_LINE else line[:40])
                line, length = bytearray(), 0
    if length:
        yield length, bytes(line)


def _parse(line: bytes) -> dict | None:
    # A line without its newline was torn, even where its JSON happens to be complete.
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if isinstance(record, dict) and isinstance(record.get("epoch"), int):
        return record
    return None
