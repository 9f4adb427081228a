"""The diary of a run: `metrics.jsonl`, one line of JSON for every epoch that came to its end."""

import json
from pathlib import Path

from mlp_cli.errors import CheckpointError
from mlp_cli.runs import files
from mlp_cli.runs.records import to_json


class History:
    """Appends to, reads and cuts back one `metrics.jsonl`; the file appears with its first line."""

    def __init__(self, path: Path):
        self.path = Path(path)

    def append(self, record: dict) -> None:
        """Adds the line of one epoch, keys in the order given, a NaN as null.

        It survives the death of this process at once, and a power cut after `sync`. Raises SystemFault; the file then
        ends with the line before.
        """
        files.append_line(self.path, to_json(record))

    def sync(self) -> None:
        """Makes the lines so far durable. A checkpoint must not reach the disk before the lines of its epochs do."""
        files.sync(self.path)

    def truncate_after(self, epoch: int) -> int:
        """Drops what follows the line of `epoch`, torn lines included, and returns how many lines of epochs are left.

        Fewer than `epoch` means that the file was damaged or edited. Raises SystemFault, and CheckpointError when the
        file cannot be read.
        """
        end = kept = position = 0
        content = self._content()
        for line in content.splitlines(keepends=True):
            position += len(line)
            record = _parse(line)
            if record is None:
                continue
            if record["epoch"] > epoch:
                break
            kept += 1
            end = position
        if end < len(content):
            files.truncate(self.path, end)
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

    def _content(self) -> bytes:
        try:
            return self.path.read_bytes()
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
