"""Opens data files of any kind, plain or gzip, and makes tables of them; the content decides what a file is.

Whatever a file does wrong, down to a terabyte promised by ten bytes or packed into a megabyte, becomes one sentence.
"""

import gzip
import io
import os
import stat
import zlib
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

from mlp_cli import memory
from mlp_cli.data.arrays import array_table, is_idx, read_idx, read_npy, read_npz
from mlp_cli.data.reading import READ_BYTES, bytes_that_follow
from mlp_cli.data.table import read_table
from mlp_cli.data.text import clean
from mlp_cli.errors import DataError, OptionError, SystemFault, shortage
from mlp_cli.opening import NotAFile, open_file
from mlp_cli.wording import quoted

GZIP = b"\x1f\x8b"
NPY = b"\x93NUMPY"
ZIP = (b"PK\x03\x04", b"PK\x05\x06")
HEAD_BYTES = 4096
UNMAPPABLE = {"text": "is a table of text", "npz": "is an archive of arrays"}
OTHER_FORMATS = {
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstandard",
    b"SQLite format 3": "an SQLite database",
    b"\x89HDF": "an HDF5 file",
    b"%PDF": "a PDF document",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word file",
}


def read(source, reading, known=None, name=None, must_map=False, again=False):
    """Read a source as a table; of a plain .npy or IDX file, x stays in the file.

    `source` is a path, a pair of paths (x, y), an object with .path or .x and .y as in the config, or a binary stream;
    `name` is what messages call it; `known` are the columns of the training table, if there is one. With `must_map`,
    what cannot be mapped into memory is refused before it is read: OptionError. `again` says that it will be read
    another time, which a pipe cannot be. SystemFault for more than memory holds.
    """
    x, y = _parts(source)
    names = reading.names if known is None else None  # another file's arrays are matched by position
    label = name or display(x)
    with opened(x, label, again) as (stream, kind, descriptor):
        if must_map and (kind not in ("npy", "idx") or descriptor is None):
            raise OptionError(
                "data.memory",
                f"{label}: {UNMAPPABLE.get(kind, 'is compressed or a stream')}, which cannot be mapped; save it as a "
                "plain .npy file, or set data.memory: load",
            )
        if kind == "npz":
            if y is not None:
                raise DataError(f"{label}: an .npz file holds x and y by itself; give it as path")
            if bytes_that_follow(stream) is None:  # a zip archive is read from its end
                stream = io.BytesIO(_whole(stream, label))
            return array_table(*read_npz(stream, label), label, reading, names)
        if kind == "text" and y is None and not _has_parts(source):
            head = stream.peek(HEAD_BYTES)
            if reading.encoding is None and b"\0" in head:
                clean(head, label)  # refuses it: no need to read gigabytes of what cannot be a table
            return read_table(_whole(stream, label), label, reading, known)
        array = _read_array(stream, kind, label, descriptor)
    labels = None
    if y is not None:
        label_of_y = display(y)
        with opened(y, label_of_y, again) as (stream, kind, _):
            labels = _read_array(stream, kind, label_of_y)
    return array_table(array, labels, label, reading, names)


def _whole(stream, label):
    """All bytes of a stream. SystemFault where they, and the cells that are made of them, would not fit into memory."""
    size = bytes_that_follow(stream)
    if size is not None:
        memory.require(2 * size, f"{label}: to read its {memory.size_text(size)} takes", memory.LESS_DATA)
        return stream.read()
    room = memory.available() // 2
    whole = io.BytesIO()
    while part := stream.read(READ_BYTES):
        if whole.tell() + len(part) > room:
            raise SystemFault(
                f"{label}: holds more than {memory.size_text(room)} once unpacked, too much for the "
                f"{memory.size_text(2 * room)} of memory that are available; {memory.LESS_DATA}"
            )
        whole.write(part)
    return whole.getvalue()


def display(path):
    """A path as a person would write it: relative to the current directory where it lies in there."""
    if not isinstance(path, str | os.PathLike):
        return getattr(path, "name", None) if isinstance(getattr(path, "name", None), str) else "stdin"
    text = os.fspath(path)
    inside = os.path.relpath(text) if os.path.isabs(text) else text
    shown = text if inside.startswith(os.pardir) else inside
    return shown if shown.isprintable() else quoted(shown)


def _has_parts(source):
    return getattr(source, "x", None) is not None


def _parts(source):
    """(x or the whole table, y or None) of whatever names a source."""
    if isinstance(source, str | os.PathLike) or hasattr(source, "read"):
        return source, None
    if isinstance(source, Sequence) and 1 <= len(source) <= 2:
        return source[0], source[1] if len(source) == 2 else None
    if _has_parts(source):
        return source.x, source.y
    return source.path, None


def _read_array(stream, kind, label, descriptor=None):
    if kind == "npy":
        return read_npy(stream, label, descriptor)
    if kind == "idx":
        return read_idx(stream, label, descriptor)
    raise DataError(f"{label}: expected a .npy or IDX file for x and y; give a table as path")


@contextmanager
def opened(source, label, again=False):
    """Open a path or a binary stream as (stream of the unpacked bytes, "text" | "npy" | "npz" | "idx", descriptor).

    The descriptor is that of a plain file of known length, else None. Damage that shows while the stream is read
    becomes a DataError too. DataError for a pipe that is to be read `again`.
    """
    with _system_errors(label):
        owned = not hasattr(source, "read")
        raw = _open_file(source, label, again) if owned else source
        try:
            stream = _peekable(raw)
            descriptor = raw.fileno() if owned and stat.S_ISREG(os.fstat(raw.fileno()).st_mode) else None
            if stream.peek(2)[:2] == GZIP:
                stream, descriptor = io.BufferedReader(gzip.GzipFile(fileobj=stream)), None
            yield stream, _kind(stream, label), descriptor
        finally:
            if owned:
                raw.close()


@contextmanager
def _system_errors(label):
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{label}: there is no such file") from None
    except PermissionError:
        raise DataError(f"{label}: may not be read; check its permissions") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{label}: is a damaged or cut-off gzip file ({error})") from None
    except MemoryError:
        raise SystemFault(f"{label}: does not fit into memory; {memory.LESS_DATA}") from None
    except OSError as error:
        if fault := shortage(error, label):
            raise fault from None
        raise DataError(f"{label}: cannot be read: {error.strerror or error}") from None


def _open_file(path, label, again):
    try:
        mode = os.stat(path).st_mode
    except ValueError:  # a NUL in the path
        raise DataError(f"{label!r}: is not a path") from None
    if again and stat.S_ISFIFO(mode):
        raise DataError(
            f"{label}: is a pipe, which can be read only once, and the training data are read again by --resume and "
            "mlp eval; write them to a file first"
        )
    if os.fspath(path) == "/dev/stdin" and not again:
        return Path(path).open("rb")
    try:
        return open_file(path, pipes=not again)
    except NotAFile as error:
        raise DataError(f"{label}: is {error.found}; expected a file") from None


def _peekable(raw):
    if hasattr(raw, "peek"):
        return raw
    return io.BufferedReader(raw) if isinstance(raw, io.RawIOBase) else io.BufferedReader(io.BytesIO(raw.read()))


def _kind(stream, label):
    head = stream.peek(HEAD_BYTES)[:HEAD_BYTES]
    if head.startswith(NPY):
        return "npy"
    if head.startswith(ZIP):
        return "npz"
    if is_idx(head):
        return "idx"
    for magic, what in OTHER_FORMATS.items():
        if head.startswith(magic):
            raise DataError(f"{label}: is {what}; expected CSV, TSV, .npy, .npz or IDX, plain or gzip")
    return "text"
