"""Good and nearly good files of every kind, from which the fuzzer starts."""

import gzip
import io
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import targets

ROOT = Path(__file__).resolve().parents[2]
TABLES = (
    b"a,b,y\n1,2,x\n3,4,z\n5,6,x\n",
    b"a;b;y\n1,5;2;x\n3,25;4;z\n",
    b'a\tb\ty\n1\t"x, ""q"""\t2\n3\tw\t4\n',
    b"# remark\n\n a , b , y \n1, NA ,x\r\n?,4,z\r\n",
    b"1,2,3\n4,5,6\n7,8,9\n",
    "a,b,y\n1,é,x\n2,ü,z\n".encode("latin-1"),
    "a,b,y\n1,2,x\n2,3,z\n".encode("utf-16"),
    b"\xef\xbb\xbfa,b,y\n1,2,0\n2,3,1\n",
)


def seeds(target: str) -> Iterator[bytes]:
    """The files from which a target starts, those that were found before among them."""
    yield from {"config": _configs, "table": _tables, "arrays": _arrays, "checkpoint": _checkpoints,
                "description": _changes}[target]()  # fmt: skip
    for path in sorted((Path(__file__).parent / "cases" / target).glob("*")):
        yield path.read_bytes()


def _configs() -> Iterator[bytes]:
    for path in sorted((ROOT / "configs").rglob("*.yaml")):
        yield path.read_bytes()


def _tables() -> Iterator[bytes]:
    for number, content in enumerate(TABLES):
        for way in range(number % 4, 32, 4):
            yield bytes([way]) + content
    yield b"\x00" + gzip.compress(TABLES[0])


def _arrays() -> Iterator[bytes]:
    for dtype in ("<f4", ">f8", "|u1", "<i8", "|b1", "<U2"):
        file = io.BytesIO()
        np.save(file, np.arange(12).reshape(4, 3).astype(dtype))
        yield b"\x01" + file.getvalue()
        yield b"\x00" + gzip.compress(file.getvalue())
    file = io.BytesIO()
    np.savez(file, x=np.arange(6.0).reshape(3, 2), y=np.array(["a", "b", "a"]))
    yield b"\x01" + file.getvalue()
    x = bytes([0, 0, 8, 3]) + struct.pack(">III", 30, 2, 2) + bytes(range(120))
    yield b"\x00" + x
    yield bytes([len(x)]) + x + bytes([0, 0, 8, 1]) + struct.pack(">I", 30) + bytes([0, 1, 2] * 10)


def _checkpoints() -> Iterator[bytes]:
    from mlp_cli.runs import checkpoint

    path = targets.FOLDER / "seed.safetensors"
    checkpoint.write(path, {"a": np.arange(3.0)}, {"config": {}})
    yield path.read_bytes()
    tensors, meta = targets._good_checkpoint()
    checkpoint.write(path, tensors, meta)
    yield path.read_bytes()


def _changes() -> Iterator[bytes]:
    yield b""
    for how in range(4):
        yield from (bytes([where, (7 * where + how) % 256, how, where]) for where in range(0, 256, 16))
