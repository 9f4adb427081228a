"""Checkpoints: the same content gives the same bytes, and a damaged file is never anything but a sentence."""

import hashlib
import json
import os
import random
import re
import struct
import subprocess
import sys

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from mlp_cli.errors import CheckpointError, SystemFault
from mlp_cli.runs import checkpoint

pytestmark = pytest.mark.smoke

META = {
    "epoch": 3,
    "best": {"score": 0.1, "epoch": 2},
    "classes": ["ä", '"sha256":"' + "0" * 64 + '"', "\udc80", "x\n"],
    "config": {"sha256": "f" * 64, "rate": 1e-3, "none": None},
}


def tensors():
    rng = np.random.default_rng(0)
    return {
        "layers.0.weight": rng.normal(size=(3, 4)).astype(np.float32),
        "layers.0.bias": rng.normal(size=4),
        "half": np.array([1.5, -2.0], np.float16),
        "optimizer.step": np.array(7, np.int64),
        "classes": np.arange(6, dtype=np.int32).reshape(2, 3),
        "bytes": np.array([0, 255], np.uint8),
        "seen": np.array([True, False]),
        "empty": np.zeros((0, 5), np.float64),
        "special": np.array([np.nan, np.inf, -0.0, 5e-324]),
    }


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.safetensors"
    checkpoint.write(path, {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(5)}, {"step": 12})
    return path


def forge(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def seal(path, meta, table=None, data=b""):
    """A file with a true digest, whatever else is wrong with it."""

    def content(digest):
        mlp = json.dumps({**meta, "sha256": digest}, sort_keys=True, separators=(",", ":"))
        text = json.dumps({"__metadata__": {"mlp": mlp}, **(table or {})}, separators=(",", ":")).encode()
        return struct.pack("<Q", len(text)) + text + data

    path.write_bytes(content(hashlib.sha256(content("0" * 64)).hexdigest()))


def refused(path, match):
    with pytest.raises(CheckpointError, match=match) as caught:
        checkpoint.read(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_everything_comes_back(tmp_path):
    path = tmp_path / "a.safetensors"
    digest = checkpoint.write(path, tensors(), META)
    found = checkpoint.read(path)
    assert (found.meta, found.sha256, found.path) == (META, digest, path)
    assert list(found.tensors) == sorted(tensors())
    for name, array in tensors().items():
        assert found.tensors[name].dtype == array.dtype
        assert found.tensors[name].shape == array.shape
        assert found.tensors[name].tobytes() == array.tobytes()
        assert found.tensors[name].flags.writeable
        assert found.tensors[name].flags.c_contiguous
    assert checkpoint.is_valid(path)


def test_other_programs_can_read_it(tmp_path):
    path = tmp_path / "a.safetensors"
    digest = checkpoint.write(path, tensors(), META)
    theirs = load_file(path)
    assert theirs.keys() == tensors().keys()
    assert all(theirs[name].tobytes() == array.tobytes() for name, array in tensors().items())
    with safe_open(path, "np") as file:
        metadata = file.metadata()
    assert list(metadata) == ["mlp"]
    assert metadata["mlp"] == json.dumps(json.loads(metadata["mlp"]), sort_keys=True, separators=(",", ":"))
    assert json.loads(metadata["mlp"]) == {**META, "format_version": 1, "sha256": digest}
    content = path.read_bytes()
    assert content.count(digest.encode()) == 1
    assert hashlib.sha256(content.replace(digest.encode(), b"0" * 64)).hexdigest() == digest


def test_the_same_content_gives_the_same_bytes(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    checkpoint.write(one, tensors(), META)
    backwards = dict(reversed(tensors().items()))
    checkpoint.write(two, backwards, dict(reversed(META.items())))
    assert one.read_bytes() == two.read_bytes()
    found = checkpoint.read(one)
    checkpoint.write(two, found.tensors, found.meta)
    assert one.read_bytes() == two.read_bytes()


def test_any_memory_order_is_saved_in_row_order(tmp_path):
    matrix = np.arange(12, dtype=np.float64).reshape(3, 4)
    views = {"t": matrix.T, "strided": matrix[:, ::2], "backwards": matrix[::-1], "big": matrix.astype(">f8")}
    checkpoint.write(tmp_path / "a", views, {})
    found = checkpoint.read(tmp_path / "a").tensors
    for name, view in views.items():
        np.testing.assert_array_equal(found[name], view)


def test_metadata_that_is_not_json_is_the_caller_s_mistake(tmp_path):
    path = tmp_path / "a"
    for meta in ({"loss": float("nan")}, {"sha256": "0"}, {"format_version": 2}):
        with pytest.raises(ValueError, match=r"JSON|metadata"):
            checkpoint.write(path, {}, meta)
    assert not path.exists()


def test_no_truncation_passes(small):
    whole = small.read_bytes()
    for length in range(len(whole)):
        small.write_bytes(whole[:length])
        refused(small, "not a checkpoint, or a damaged one")
    for longer in (b"\0", b"\0" * 100):
        small.write_bytes(whole + longer)
        refused(small, "its arrays should take")


def test_no_flipped_bit_passes(small):
    whole = small.read_bytes()
    choose = random.Random(0)
    for bit in choose.sample(range(8 * len(whole)), 300):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        small.write_bytes(damaged)
        refused(small, "checkpoint")


def test_files_of_others_are_refused(tmp_path):
    path = tmp_path / "x"
    save_file({"w": np.zeros(3)}, path)
    refused(path, "a safetensors file, but not a checkpoint of mlp")
    save_file({"w": np.zeros(3)}, path, {"format": "pt"})
    refused(path, "a safetensors file, but not a checkpoint of mlp")
    for content in (b"", b"epochs: 10\n", b"PK\3\4" * 50, os.urandom(1000), b"\0" * 1000):
        path.write_bytes(content)
        refused(path, "not a checkpoint")
    refused(tmp_path, "expected a checkpoint file; this is a directory")
    refused(tmp_path / "none", "cannot read this checkpoint: no such file or directory")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "this is a named pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    refused(tmp_path / "loop", "this is a symbolic link")
    with pytest.raises(CheckpointError, match="null byte"):
        checkpoint.read("a\0b")


def test_a_newer_format_is_refused(tmp_path):
    path = tmp_path / "x"
    seal(path, {"format_version": 2})
    refused(path, re.escape("written by a newer mlp (checkpoint format 2, this mlp reads up to 1); upgrade mlp"))
    for version in (0, "1", None, 1.5, True):
        seal(path, {"format_version": version})
        refused(path, "its format version is missing")
    seal(path, {"format_version": 1, "step": 4})
    assert checkpoint.read(path).meta == {"step": 4}


def test_forged_headers_allocate_nothing(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(struct.pack("<Q", 2**63) + b"{}")
    refused(path, "hold no safetensors header")
    forge(path, b"[" * 100_000)
    refused(path, "is not JSON")
    forge(path, b"[]")
    refused(path, "is not a JSON object")
    huge = {"dtype": "F64", "shape": [2**40], "data_offsets": [0, 2**43]}
    seal(path, {"format_version": 1}, {"w": huge})
    refused(path, "its arrays should take 8796093022208 bytes and 0 are there")
    with open(path, "r+b") as file:
        file.truncate(2**42)
    refused(path, "its arrays should take")
    for entry in (5, {}, {"dtype": "F64", "shape": [1], "data_offsets": [8, 0]}, {"dtype": 3, "data_offsets": [0, 8]}):
        forge(path, {"w": entry}, b"\0" * 8)
        refused(path, "entry for 'w' makes no sense")
    seal(path, {"format_version": 1}, {"w": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]}}, b"\0" * 8)
    refused(path, "type 'BF16'")
    for shape in ([2], [-1], [2**63, 2**63], "x"):
        seal(path, {"format_version": 1}, {"w": {"dtype": "F64", "shape": shape, "data_offsets": [0, 8]}}, b"\0" * 8)
        refused(path, "safetensors says")


def test_forged_metadata_is_refused(tmp_path):
    path = tmp_path / "x"
    for mlp in ("", "{", "[]", "7", '{"sha256":1}', '{"sha256":"0"}', "[" * 100_000, "9" * 5000):
        forge(path, {"__metadata__": {"mlp": mlp}})
        refused(path, "damaged")
    for metadata in (None, [], {"mlp": 3}):
        forge(path, {"__metadata__": metadata})
        refused(path, "not a checkpoint of mlp")
    for digest in ("0" * 64, "A" * 64):
        forge(path, {"__metadata__": {"mlp": json.dumps({"sha256": digest, "format_version": 1})}})
        refused(path, "digest")


def test_no_memory_is_a_sentence(small, monkeypatch):
    def no_memory(path, content):
        raise MemoryError

    monkeypatch.setattr(checkpoint, "_arrays", no_memory)
    with pytest.raises(SystemFault, match="not enough memory to read this checkpoint"):
        checkpoint.read(small)


def test_safetensors_is_imported_on_demand():
    code = "import sys, mlp_cli.runs.directory; sys.exit('safetensors' in sys.modules or 'numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
