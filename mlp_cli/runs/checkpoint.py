"""A checkpoint is one safetensors file that proves itself: plain arrays, and one line of JSON with a digest of it all.

The JSON stands under the metadata key `mlp`; its `sha256` is the digest of the whole file with those 64 digits set to
0. The same content gives the same bytes, and a file with a single wrong bit is refused.
"""

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mlp_cli import opening
from mlp_cli.errors import CheckpointError, SystemFault, shortage
from mlp_cli.runs import files
from mlp_cli.wording import quoted

FORMAT_VERSION = 1

_RESERVED = ("format_version", "sha256")
_NO_DIGEST = "0" * 64
_LENGTH_BYTES = 8  # a safetensors file opens with the length of its JSON header, little-endian
_LONGEST_HEADER = 100_000_000  # the safetensors library's own limit
_DTYPES = {"F64", "F32", "F16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"}


@dataclass(frozen=True)
class Checkpoint:
    """What `read` found: the arrays by name in alphabetical order, writable, and the metadata they came with."""

    tensors: dict[str, np.ndarray]
    meta: dict
    path: Path
    sha256: str


def write(path: Path, tensors: dict[str, np.ndarray], meta: dict) -> str:
    """Writes a checkpoint atomically and returns its digest, 64 hexadecimal digits.

    `tensors` are arrays of any shape and memory order, of booleans, integers or floats. `meta` is plain JSON data with
    string keys and finite numbers; `format_version` and `sha256` are added here. Raises SystemFault when the disk or
    the memory is full, and ValueError or TypeError for what JSON or safetensors cannot hold.
    """
    from safetensors.numpy import save

    if clash := [key for key in _RESERVED if key in meta]:
        raise ValueError(f"the metadata of a checkpoint must not hold {clash[0]!r} itself")
    text = _canonical({**meta, "format_version": FORMAT_VERSION, "sha256": _NO_DIGEST})
    try:
        # safetensors takes the memory as it lies, so anything but C order would be saved with its values in disorder.
        content = save({name: np.asarray(array, order="C") for name, array in tensors.items()}, {"mlp": text})
    except MemoryError as error:
        size = files.size_text(sum(array.nbytes for array in tensors.values()))
        raise SystemFault(
            f"{path}: not enough memory to write this checkpoint ({size}); close other programs or train a smaller net"
        ) from error
    header_end = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
    at = _digest_position(content[:header_end], _NO_DIGEST)
    if at is None:
        raise ValueError("the place of the digest in this checkpoint is ambiguous")
    digest = hashlib.sha256(content).hexdigest()
    view = memoryview(content)
    files.write_atomically(path, view[:at], digest.encode("ascii"), view[at + len(digest) :])
    return digest


def read(path: Path) -> Checkpoint:
    """Reads and verifies a checkpoint.

    Nothing in the file is trusted before it is checked: no length is allocated that the file does not have, and no
    array is looked at before the digest agrees. Raises CheckpointError with the path for a file that is unreadable,
    damaged, foreign or from a newer mlp, and SystemFault when it does not fit in memory.
    """
    path = Path(path)
    try:
        header, content = _load(path)
        meta = _metadata(path, header)
        digest = _verified_digest(path, header, content, meta)
        _check_version(path, meta)
        tensors = _arrays(path, content)
    except MemoryError as error:
        raise SystemFault(
            f"{path}: not enough memory to read this checkpoint; close other programs or use a larger machine"
        ) from error
    meta = {key: value for key, value in meta.items() if key not in _RESERVED}
    return Checkpoint(tensors=tensors, meta=meta, path=path, sha256=digest)


def is_valid(path: Path) -> bool:
    """Whether `read` would succeed. Raises SystemFault when the file does not fit in memory."""
    try:
        read(path)
    except CheckpointError:
        return False
    return True


def _canonical(meta: dict) -> str:
    return json.dumps(meta, sort_keys=True, allow_nan=False, separators=(",", ":"))


def _digest_position(header: bytes, digest: str) -> int | None:
    # The metadata stands in the header as a JSON string, its quotes escaped. Text inside the metadata is escaped twice
    # and so never looks like this; a nested key of the same name holds other digits.
    opening = b'\\"sha256\\":\\"'
    pattern = opening + digest.encode("ascii") + b'\\"'
    if header.count(pattern) != 1:
        return None
    return header.index(pattern) + len(opening)


def _load(path: Path) -> tuple[bytes, bytes]:
    """The first bytes of the file up to the end of its header, and all of them."""
    try:
        with opening.read_own(path) as file:
            size = os.fstat(file.fileno()).st_size
            header = _load_header(path, file, size)
            file.seek(0)
            content = file.read(size)
    except opening.NotAFile as error:
        raise CheckpointError(
            f"{path}: expected a checkpoint file; this is {error.found}; give a checkpoint file or a run directory"
        ) from None
    except (OSError, ValueError) as error:  # ValueError: the path itself is impossible, with a NUL in it
        if fault := shortage(error, str(path)):
            raise fault from error
        raise CheckpointError(
            f"{path}: cannot read this checkpoint: {files.reason(error)}; give a checkpoint file or a run directory"
        ) from error
    if len(content) != size or not content.startswith(header):
        raise _damaged(path, "it changed while it was read")
    return header, content


def _load_header(path: Path, file: BinaryIO, size: int) -> bytes:
    start = file.read(_LENGTH_BYTES)
    length = int.from_bytes(start, "little")
    if len(start) < _LENGTH_BYTES or length > min(size - _LENGTH_BYTES, _LONGEST_HEADER):
        raise _damaged(path, f"its {files.size_text(size)} hold no safetensors header")
    header = start + file.read(length)
    end = max((entry["data_offsets"][1] for entry in _tensor_table(path, header).values()), default=0)
    if end != size - len(header):
        raise _damaged(path, f"its arrays should take {end} bytes and {size - len(header)} are there")
    return header


def _tensor_table(path: Path, header: bytes) -> dict[str, dict]:
    """The header's entries for arrays, by name, each with a dtype we know and two plausible offsets."""
    table = {name: entry for name, entry in _parse_header(path, header).items() if name != "__metadata__"}
    for name, entry in table.items():
        match entry:
            case {"dtype": str(dtype), "data_offsets": [int(begin), int(end)]} if 0 <= begin <= end:
                if dtype not in _DTYPES:
                    raise CheckpointError(
                        f"{path}: the array {quoted(name)} has type {quoted(dtype)}, which no checkpoint of mlp holds; "
                        "give a file that mlp train wrote"
                    )
            case _:
                raise _damaged(path, f"the header's entry for {quoted(name)} makes no sense")
    return table


def _parse_header(path: Path, header: bytes) -> dict:
    return _parse_object(path, header[_LENGTH_BYTES:], "its safetensors header")


def _metadata(path: Path, header: bytes) -> dict:
    metadata = _parse_header(path, header).get("__metadata__")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("mlp"), str):
        raise CheckpointError(
            f"{path}: a safetensors file, but not a checkpoint of mlp (it has no metadata key 'mlp'); "
            "give a file that mlp train wrote"
        )
    return _parse_object(path, metadata["mlp"].encode("utf-8", "surrogatepass"), "its metadata")


def _parse_object(path: Path, text: bytes, what: str) -> dict:
    try:
        value = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"{what} is not JSON") from error
    if not isinstance(value, dict):
        raise _damaged(path, f"{what} is not a JSON object")
    return value


def _verified_digest(path: Path, header: bytes, content: bytes, meta: dict) -> str:
    digest = meta.get("sha256")
    if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
        raise _damaged(path, "its digest is missing")
    at = _digest_position(header, digest)
    if at is None:
        raise _damaged(path, "its digest is not where it should be")
    view = memoryview(content)
    actual = hashlib.sha256(view[:at])
    actual.update(_NO_DIGEST.encode("ascii"))
    actual.update(view[at + len(digest) :])
    if actual.hexdigest() != digest:
        raise _damaged(path, "its sha256 digest does not agree with its content")
    return digest


def _check_version(path: Path, meta: dict) -> None:
    version = meta.get("format_version")
    if type(version) is not int or version < 1:
        raise _damaged(path, "its format version is missing")
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: written by a newer mlp (checkpoint format {version}, this mlp reads up to {FORMAT_VERSION}); "
            "upgrade mlp to use it"
        )


def _arrays(path: Path, content: bytes) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(content)
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise _damaged(path, f"safetensors says: {quoted(error)}") from error
    # The library returns them in an order that changes from call to call.
    return {name: tensors[name] for name in sorted(tensors)}


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path}: not a checkpoint, or a damaged one: {what}; use another checkpoint of the run")
