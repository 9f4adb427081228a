"""Damaged and hostile files: each gives data or one sentence, never a traceback and never a terabyte of memory."""

import gzip
import io
import random
import struct
import zipfile

import numpy as np
import pytest
from data_options import data_options

from mlp_cli.data import Dataset, load
from mlp_cli.errors import DataError

ROWS = [
    "39,State-gov,77516.5,Male,<=50K",
    '50,"Self-emp, not inc",83311,Male,<=50K',
    '38,"Pri""vate",215646,Female,>50K',
    "28,Private,1e3,Female,<=50K",
    "37, Private ,-284582,?,>50K",
    "49,State-gov,160187,Female,<=50K",
]
GOOD = ("age,workclass,weight,sex,income\n" + "\n".join(ROWS * 4) + "\n").encode()
DIRT = [
    b"\0", b"\xff", b"\xff\xfe", b'"', b'""', b",", b";", b"\t", b"\n", b"\r", b"\r\n", b" ", b"inf", b"nan", b"1e999",
    b"-", b"'", b"#", b"\xef\xbb\xbf", b"\xc3\xa9", b"\xe2\x80\xa8", b"NA", b"?", b"x" * 3000, b"9" * 500, b",,,,\n",
]  # fmt: skip
ENCODINGS = ["latin-1", "utf-16", "utf-16-le", "utf-32", "cp037"]


def mutated(number):
    """The good table with some damage, the same for the same number."""
    dice = random.Random(number)
    text = bytearray(GOOD)
    for _ in range(dice.randint(1, 4)):
        kind = dice.randrange(6)
        place = dice.randrange(len(text) + 1)
        if kind == 0:
            text[place:place] = dice.choice(DIRT)
        elif kind == 1:
            del text[place : place + dice.choice([1, 5, 200])]
        elif kind == 2:
            text = bytearray(bytes(text).replace(dice.choice([b",", b"\n", b'"', b"5"]), dice.choice(DIRT), 3))
        elif kind == 3:
            text = text[:place]
        elif kind == 4:
            text[place : place + 20] = text[dice.randrange(len(text) + 1) :][:60]
        else:
            text[place : place + 1] = bytes([dice.randrange(256)])
    if dice.random() < 0.1:
        text = bytearray(bytes(text).decode("latin-1").encode(dice.choice(ENCODINGS[1:]), "replace"))
    packed = bytes(text)
    if dice.random() < 0.1:
        packed = gzip.compress(packed)[: dice.choice([3, 15, 60, None, None])]
    return packed


def options_for(number, path):
    dice = random.Random(-number - 1)
    return data_options(
        path,
        target=dice.choice([None, "income", 0, ["age", "weight"]]),
        missing=dice.choice(["error", "mean", "drop", "indicator"]),
        comment=dice.choice([None, "#"]),
        numeric=dice.choice(["standard", "robust", "quantile", "none"]),
        unseen=dice.choice(["error", "ignore"]),
        split=dice.choice([{}, {"validation": 0.3, "test": 0.1}]),
    )


@pytest.mark.parametrize("number", range(100))
def test_a_hundred_bad_tables_give_data_or_one_sentence(number, tmp_path):
    path = tmp_path / "bad.csv"
    path.write_bytes(mutated(number))
    message = None
    try:
        dataset = load(options_for(number, path), 0, "float32", False)
    except DataError as error:
        message = str(error)
    if message is not None:
        assert "\n" not in message
        assert len(message) < 800
        return
    assert isinstance(dataset, Dataset)
    for part in (dataset.train, dataset.validation, dataset.test):
        if part is not None:
            assert np.isfinite(part.x).all()
            assert np.isfinite(part.target).all()


def refused(path, **options):
    with pytest.raises(DataError) as caught:
        load(data_options(path, **options), 0, "float32", True)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_files_that_are_none(tmp_path):
    assert "no such file" in refused(tmp_path / "absent.csv")
    assert "is a directory" in refused(tmp_path)
    assert "device" in refused("/dev/zero")
    assert "not a path" in refused("a\0b.csv")
    assert "cannot be read" in refused(tmp_path / ("x" * 5000))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n\n\n", "is empty"),
        (b"   \n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"a,b\n", "a header but no rows"),
        (b"a,b", "a header but no rows"),
        (b"y\n1\n2\n", "no column is left to learn from"),
        (b"PAR1\0\0", "Parquet"),
        (b"\x89HDF\r\n", "HDF5"),
        (b"PK\x03\x04 not really a zip", "is damaged or not an .npz file"),
        (b"\x1f\x8bgarbage, not gzip", "damaged or cut-off gzip"),
        (gzip.compress(GOOD)[:40], "damaged or cut-off gzip"),
        (gzip.compress(GOOD)[:-8] + b"\0" * 8, "damaged or cut-off gzip"),
        (gzip.compress(b""), "is empty"),
        (b"\x7fELF\0\0\0\0", "NUL byte"),
    ],
)
def test_contents_that_are_no_table(content, words, tmp_path):
    path = tmp_path / "file.csv"
    path.write_bytes(content)
    assert words in refused(path)


def npy(header, data=b""):
    text = header.encode("latin-1")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000, 1000), }\n"), "0 bytes follow"),
        (npy("{'descr': '<f8', 'fortran_order': True, 'shape': (3, 2), }\n", b"\0" * 40), "40 bytes follow"),
        (npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1, 2), }\n", b"\0" * 17), "more bytes follow"),
        (npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 2), }\n"), "claims the shape"),
        (npy("{'descr': '<f8', 'fortran_order': False, 'shape': (0, 2), }\n"), "no numbers"),
        (npy("{'descr': '<f8', 'fortran_order': False, 'shape': (), }\n", b"\0" * 8), "a single number"),
        (npy("{'descr': '|O', 'fortran_order': False, 'shape': (2, 2), }\n", b"\0" * 32), "Python objects"),
        (npy("{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,), }\n", b"\0" * 8), "records"),
        (npy("{'descr': '<c16', 'fortran_order': False, 'shape': (1, 2), }\n", b"\0" * 32), "complex128"),
        (npy("{'descr': '<U2', 'fortran_order': False, 'shape': (1, 1), }\n", b"\xff" * 8), "not Unicode"),
        (npy("{'descr': '<U2', 'fortran_order': False, 'shape': (1, 1), }\n", b"a\0\0\0b\0\0\0"), "array of numbers"),
        (npy("__import__('os').abort()\n"), "header cannot be read"),
        (npy("((((((((\n"), "header cannot be read"),
        (npy("(" * 9000), "header cannot be read"),
        (b"\x93NUMPY\x07\x00", "header cannot be read"),
        (b"\x93NUMPY", "header cannot be read"),
        (bytes([0, 0, 8, 3]) + struct.pack(">III", 2**32 - 1, 2**32 - 1, 2**32 - 1), "0 bytes follow"),
        (bytes([0, 0, 8, 3]) + struct.pack(">I", 2), "cut off within its IDX header"),
        (bytes([0, 0, 8, 1]) + struct.pack(">I", 3) + b"ab", "2 bytes follow"),
        (bytes([0, 0, 8, 1]) + struct.pack(">I", 1) + b"ab", "more bytes follow"),
        (bytes([0, 0, 0x0E, 2]) + struct.pack(">II", 0, 5), "no numbers"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_forged_array_headers(content, words, packed, tmp_path):
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(content) if packed else content)
    assert words in refused(path)


def test_npz_files_that_hold_something_else(tmp_path):
    path = tmp_path / "file.npz"
    np.savez(path, x_train=np.ones(2), y_train=np.ones(2))
    assert "holds the arrays x_train, y_train; expected x and" in refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<a/>")
    assert "holds no arrays at all" in refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", "PK")
    assert "header cannot be read" in refused(path)
    whole = io.BytesIO()
    np.savez_compressed(whole, x=np.arange(6.0).reshape(3, 2), y=np.arange(3))
    data = bytearray(whole.getvalue())
    data[60:80] = bytes(20)
    path.write_bytes(data)
    assert "file.npz" in refused(path)


def test_pickles_are_never_opened(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.array([{"a": 1}, None], dtype=object), allow_pickle=True)
    assert "Python objects" in refused(path)
