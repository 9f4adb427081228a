"""The diary of a run: `metrics.jsonl`, one line of JSON for every epoch that came to its end."""

import json
from pathlib import Path

from mlp_cli.errors import CheckpointError, SystemFault
from mlp_cli.opening import open_file
from mlp_cli.runs import files
from mlp_cli.runs.records import to_json

# Bytes of lines that are kept in memory until they are durable; more are synced even if no checkpoint is due.
MOST_UNSYNCED = 1_000_000


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
        found = self._content()
        content = found if self._synced is None else found[: self._synced] + self._unsynced
        for line in content.splitlines(keepends=True):
            position += len(line)
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
        self._unsynced = bytearray(content[self._synced : end])
        # also where nothing is to be cut off: another process wrote these lines and may not have lived to sync them
        self._uncut = bool(found)
        self._cut()
        return kept

    def read(self) -> list[dict]:
        """The records of all epochs, an empty list where there is no file yet; a torn last line is left out.

        Raises CheckpointError for a damaged line elsewhere.
        """
        records = []
        lines = self._content().splitlines(keepends=True)
        for number, line in enumerate(lines, start=1):
            record = _parse(line)
            if record is not None:
                records.append(record)
            elif number < len(lines):
                raise CheckpointError(
                    f"{self.path}:{number}: expected the JSON record of an epoch; got {line[:40]!r}; delete this line"
                )
        return records

    def _write(self) -> None:
        """Writes what of the lines is not there yet."""
        if self._synced is None:
            self._synced = self._written = len(self._content())
        if rest := bytes(self._unsynced[self._written - self._synced :]):
            files.write_end(self.path, self._written, rest)
            self._written += len(rest)

    def _cut(self) -> None:
        if self._uncut:
            files.truncate(self.path, self._written)
            self._uncut = False

    def _content(self) -> bytes:
        try:
            with open_file(self.path) as file:
                return file.read()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise CheckpointError(
                f"{self.path}: cannot read it: {files.reason(error)}; check its permissions"
            ) from error


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
