"""Reading .npy, .npz and IDX files."""

import gzip
import struct
import tracemalloc

import numpy as np
import pytest
from data_options import data_options

from mlp_cli.data import load
from mlp_cli.data.fitting import WHOLE_BYTES
from mlp_cli.errors import DataError

pytestmark = pytest.mark.smoke

IDX_CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx(array):
    """The bytes of an IDX file."""
    code = IDX_CODES[array.dtype.str[1:]]
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, code, array.ndim]) + sizes + array.astype(array.dtype.newbyteorder(">")).tobytes()


def save(path, array, how):
    """Write an array as .npy, .npy.gz, IDX or gzipped IDX."""
    if how.startswith("npy"):
        np.save(path.with_suffix(".npy"), array)
        content = path.with_suffix(".npy").read_bytes()
    else:
        content = idx(array)
    path.write_bytes(gzip.compress(content, compresslevel=1) if how.endswith("gz") else content)
    return str(path)


def message(path=None, numbers_are_classes=False, **options):
    with pytest.raises(DataError) as caught:
        load(data_options(path, **options), 0, "float32", numbers_are_classes)
    return str(caught.value)


@pytest.mark.parametrize("how", ["npy", "npy.gz", "idx", "idx.gz"])
@pytest.mark.parametrize("dtype", IDX_CODES)
def test_pairs_of_arrays(how, dtype, tmp_path):
    x = (np.arange(24).reshape(4, 3, 2) * 5).astype(dtype)
    y = np.array([2, 0, 1, 2], "u1")
    train = save(tmp_path / "x", x, how), save(tmp_path / "y", y, how)
    dataset = load(data_options(train=train, numeric="none"), 0, "float32", True)
    assert dataset.train.x.dtype == np.float32
    assert np.asarray(dataset.train.x).tolist() == x.reshape(4, 6).tolist()
    assert dataset.train.target.tolist() == [2, 0, 1, 2]
    assert dataset.train.target.dtype == np.int32
    assert dataset.task.classes == ("0", "1", "2")
    assert dataset.task.targets == ("y",)
    assert dataset.preprocessing.feature_names == ["0", "1", "2", "3", "4", "5"]


def test_bytes_are_divided_exactly(tmp_path):
    x = np.arange(256, dtype="u1").reshape(128, 2)
    train = save(tmp_path / "x", x, "idx"), save(tmp_path / "y", np.arange(128, dtype="u1"), "idx")
    dataset = load(data_options(train=train, numeric={"name": "divide", "by": 255.0}), 0, "float32", False)
    assert np.array_equal(dataset.train.x, (x.astype(np.float64) / 255.0).astype(np.float32))


def test_npz(tmp_path):
    path = tmp_path / "data.npz"
    x, y = np.arange(6.0).reshape(3, 2), np.array([[1.0, 2], [3, 4], [5, 6]])
    np.savez(path, x=x, y=y)
    dataset = load(data_options(path, numeric="none"), 0, "float64", False)
    assert dataset.train.x.tolist() == x.tolist()
    assert dataset.train.target.tolist() == y.tolist()
    assert dataset.task.targets == ("y0", "y1")
    np.savez_compressed(path, x=x, y=np.array(["b", "a", "b"]))
    dataset = load(data_options(path), 0, "float64", False)
    assert dataset.task.classes == ("a", "b")
    assert dataset.train.target.tolist() == [1, 0, 1]


def test_a_matrix_is_a_table_without_header(tmp_path):
    path = tmp_path / "table.npy"
    np.save(path, np.asfortranarray([[1, 2, 3], [4, 5, 6.0]]))
    dataset = load(data_options(path, numeric="none"), 0, "float64", False)
    assert dataset.train.x.tolist() == [[1, 2], [4, 5]]
    assert dataset.train.target.tolist() == [[3], [6]]
    dataset = load(data_options(path, numeric="none", target=0, exclude=["2"]), 0, "float64", False)
    assert dataset.train.x.tolist() == [[2], [5]]
    dataset = load(data_options(path, numeric="none", names=["u", "v", "w"], target="v"), 0, "float64", False)
    assert dataset.preprocessing.feature_names == ["u", "w"]
    assert dataset.train.x.tolist() == [[1, 3], [4, 6]]
    assert "has 3 columns, data.names 2" in message(path, names=["u", "v"])


def test_byte_order_and_memory_order_make_no_difference(tmp_path):
    x = np.arange(12).reshape(4, 3)
    y = np.arange(4)
    found = []
    for dtype, order in (("<f8", "C"), (">f8", "F"), ("<i4", "F"), (">u2", "C"), ("<f2", "C")):
        np.save(tmp_path / "x.npy", np.array(x, dtype, order=order))
        np.save(tmp_path / "y.npy", y)
        dataset = load(data_options(train=(tmp_path / "x.npy", tmp_path / "y.npy")), 0, "float64", False)
        found.append(np.asarray(dataset.train.x).tobytes())
    assert len(set(found)) == 1


def test_booleans(tmp_path):
    x, y = np.array([[True, False], [False, True], [True, True]]), np.array([True, False, True])
    np.savez(tmp_path / "b.npz", x=x, y=y)
    dataset = load(data_options(tmp_path / "b.npz", numeric="none"), 0, "float32", False)
    assert np.asarray(dataset.train.x).tolist() == [[1, 0], [0, 1], [1, 1]]
    assert dataset.task.classes == ("false", "true")
    assert dataset.train.target.tolist() == [1, 0, 1]
    assert "words" in dataset.task.reason


def test_missing_numbers(tmp_path):
    x = np.array([[1, np.nan], [3, 4], [np.nan, 8], [-1, 0]])
    np.savez(tmp_path / "a.npz", x=x, y=np.arange(4))
    path = str(tmp_path / "a.npz")
    assert message(path).startswith(f"{path}[2]: column '0' is missing here; missing cells in all: 0 (1), 1 (1);")
    dataset = load(data_options(path, missing="mean", numeric="none"), 0, "float64", False)
    assert dataset.train.x.tolist() == [[1, 4], [3, 4], [1, 8], [-1, 0]]
    dataset = load(data_options(path, missing="drop", numeric="none"), 0, "float64", False)
    assert dataset.train.rows.tolist() == [1, 3]
    assert dataset.notes == [f"{path}: 2 rows of 4 dropped for missing values"]
    options = data_options(path, missing="median", numeric="none", missing_values=["", "-1"])
    assert load(options, 0, "float64", False).train.x.tolist() == [[1, 4], [3, 4], [2, 8], [2, 0]]


def test_infinities_and_what_float32_cannot_hold(tmp_path):
    path = str(tmp_path / "a.npz")
    for value in (np.inf, -np.inf, 1e39):
        np.savez(path, x=np.array([[1.0, 2], [3, value]]), y=np.arange(2))
        for numeric in ("none", "standard"):
            assert message(path, numeric=numeric).startswith(f"{path}[1]: column '1': expected a finite number")
    np.savez(path, x=np.array([[1.0, 2], [3, 4]]), y=np.array([1, np.inf]))
    assert message(path).startswith(f"{path}[1]: column 'y': expected a finite number")
    assert message(path, numbers_are_classes=True).startswith(f"{path}[1]: column 'y': expected a finite number")


def test_columns_of_numbers_can_be_categories(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([[1.0, 10], [3, 2], [1, 2.5]]), y=np.arange(3))
    options = data_options(tmp_path / "a.npz", columns={"1": "categorical"}, numeric="none")
    dataset = load(options, 0, "float64", False)
    assert dataset.preprocessing.feature_names == ["0", "1=10", "1=2", "1=2.5"]
    assert dataset.train.x.tolist() == [[1, 1, 0, 0], [3, 0, 1, 0], [1, 0, 0, 1]]


def test_pairs_that_do_not_fit(tmp_path):
    x = save(tmp_path / "x", np.zeros((4, 2)), "npy")
    y = save(tmp_path / "y", np.zeros(3), "npy")
    assert "x has 4 rows, y has 3; expected as many" in message(train=(x, y))
    assert "leave data.target out" in message(train=(x, save(tmp_path / "z", np.arange(4), "npy")), target=0)
    assert "holds images without labels" in message(save(tmp_path / "i", np.zeros((4, 2, 2), "u1"), "idx"))
    assert "y has the shape 4 x 2 x 2" in message(train=(x, save(tmp_path / "i", np.zeros((4, 2, 2), "u1"), "idx")))
    text = tmp_path / "t.csv"
    text.write_text("1\n2\n3\n4\n")
    assert "expected a .npy or IDX file" in message(train=(x, text))
    assert "expected a .npy or IDX file" in message(train=(text, x))


def peak_of_loading(options, dtype="float32"):
    """(bytes that were held at once while loading, the data set)."""
    load(options, 0, dtype, True)
    tracemalloc.start()
    dataset = load(options, 0, dtype, True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak, dataset


@pytest.mark.parametrize(
    ("dtype", "order", "numeric"),
    [
        ("f4", "C", "none"), ("f4", "C", "standard"), ("f4", "C", "robust"), ("f4", "F", "standard"),
        ("f8", "C", "minmax"), ("i8", "C", "none"), ("u1", "C", "standard"),
    ],
)  # fmt: skip
def test_memory_is_the_result_and_a_little(dtype, order, numeric, tmp_path):
    x = np.asarray(np.random.default_rng(0).integers(0, 256, (40000, 200)), dtype, order=order)
    train = save(tmp_path / "x", x, "npy"), save(tmp_path / "y", (np.arange(40000) % 3).astype("u1"), "npy")
    options = data_options(train=train, split={"test": 0.2}, numeric=numeric)
    peak, dataset = peak_of_loading(options)
    result = x.size * (1 if dtype == "u1" else 4)
    assert dataset.train.x.shape == (32000, 200)
    # robust holds whole columns before there is a matrix
    assert peak < max(result, WHOLE_BYTES if numeric == "robust" else 0) + 25e6


def test_memory_of_a_packed_file_is_the_result_and_the_source(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (20000, 200)).astype("f4")
    train = save(tmp_path / "x", x, "npy.gz"), save(tmp_path / "y", (np.arange(20000) % 3).astype("u1"), "npy")
    peak, _ = peak_of_loading(data_options(train=train, split={"test": 0.2}))
    assert peak < 2.2 * x.nbytes + 20e6
