"""Other files for a fitted Preprocessing: matched by name or position, stored and restored to the bit."""

import gzip
import io
import json

import numpy as np
import pytest
from data_options import data_options
from safetensors.numpy import load as from_safetensors
from safetensors.numpy import save as to_safetensors

from mlp_cli.data import Preprocessing, load
from mlp_cli.errors import DataError

TRAIN = "id,age,sex,pay,income\n" + "".join(
    f"r{number},{20 + number},{'mf'[number % 2]},{number * 1.5},{'hi' if number % 3 else 'lo'}\n"
    for number in range(12)
)


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a table into the current directory and name it."""
    monkeypatch.chdir(tmp_path)

    def write(text, name="new.csv"):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return name

    return write


@pytest.fixture
def fitted(write):
    return load(data_options(write(TRAIN, "train.csv"), exclude=["id"], missing="mean"), 0, "float32", False)


def message(preprocessing, source, need_target=False, **given):
    with pytest.raises(DataError) as caught:
        preprocessing.transform(source, need_target, **given)
    return str(caught.value)


def test_the_training_file_again(fitted):
    batch = fitted.preprocessing.transform("train.csv", True)
    assert batch.x.tobytes() == fitted.train.x.tobytes()
    assert batch.target.tobytes() == fitted.train.target.tobytes()
    assert batch.weight is None
    assert batch.rows == 12
    assert not batch.dropped.any()


@pytest.mark.parametrize(
    "text",
    [
        TRAIN,
        TRAIN.replace(",", ";"),
        TRAIN.replace("\n", "\r\n"),
        TRAIN.partition("\n")[2],  # no header: by position
        "\n".join(",".join(line.split(",")[:4]) for line in TRAIN.splitlines()),  # no target
        "\n".join(",".join(line.split(",")[:4]) for line in TRAIN.splitlines()[1:]),  # neither
        "\n".join(",".join(line.split(",")[1:4]) for line in TRAIN.splitlines()[1:]),  # features alone
        "\n".join(",".join([*line.split(",")[::-1], "x"]) for line in TRAIN.splitlines()),  # reordered, one more
    ],
)
def test_columns_are_matched(fitted, write, text):
    batch = fitted.preprocessing.transform(write(text), False)
    assert batch.x.tobytes() == fitted.train.x.tobytes()
    assert batch.target is None


def test_columns_that_are_missing(fitted, write):
    preprocessing = fitted.preprocessing
    assert message(preprocessing, write("age,pay,income\n1,2,hi\n")) == (
        "new.csv: has no column 'sex', which the model needs (it has age, pay, income)"
    )
    assert message(preprocessing, write("age,sex,pay\n1,m,2\n"), True) == "new.csv: has no column 'income', the target"
    assert message(preprocessing, write("1,m\n")) == (
        "new.csv: has 2 columns; expected 5, or 4 without target, in the order of the training data"
    )
    assert message(preprocessing, write("1,m\n"), True) == (
        "new.csv: has 2 columns; expected 5, in the order of the training data"
    )
    assert message(preprocessing, "train.csv", keep=["name"]) == (
        "train.csv: has no column 'name' to keep (it has id, age, sex, pay, income)"
    )


def test_cells_that_do_not_fit(fitted, write):
    preprocessing = fitted.preprocessing
    assert message(preprocessing, write("age,sex,pay\n1,m,2\n\n2,m,much\n")) == (
        "new.csv:4: column 'pay': expected a number; found 'much'; words for missing values belong in "
        "data.missing_values, columns of words in data.columns as categorical"
    )
    assert message(preprocessing, write("age,sex,pay\n1,m,2\n2,x,3\n")).startswith(
        "new.csv:3: column 'sex': 'x' is in no training row (known: f, m); set data.unseen: ignore"
    )
    assert message(preprocessing, write("age,sex,pay\n1,m,2\n2,?,3\n")).startswith(
        "new.csv:3: column 'sex': a missing value is in no training row"
    )
    assert message(preprocessing, write("age,sex,pay,income\n1,m,2,hi\n2,m,3,mid\n"), True).startswith(
        "new.csv:3: the label 'mid' in column 'income' is none of the classes of training (hi, lo)"
    )
    assert message(preprocessing, write("age,sex,pay,income\n1,m,2,?\n"), True).startswith(
        "new.csv:2: the target 'income' is missing"
    )
    assert preprocessing.transform(write("age,sex,pay,income\n1,m,2,?\n"), False).x.shape == (1, 4)


def test_one_row_of_words_is_no_header(write):
    dataset = load(data_options(write("a,b,y\nu,v,p\nw,x,q\n", "train.csv")), 0, "float32", False)
    assert dataset.preprocessing.transform(write("w,v\n"), False).x.tolist() == [[0, 1, 1, 0]]
    assert dataset.preprocessing.transform(write("a,b\nw,v\n"), False).x.tolist() == [[0, 1, 1, 0]]


def test_kept_columns_and_dropped_rows(write):
    path = write("id,a,b,y\n007,1,x,1\n008,?,x,2\n009,3,?,3\n010,4,y,5\n", "train.csv")
    preprocessing = load(data_options(path, exclude=["id"], missing="drop"), 0, "float32", False).preprocessing
    batch = preprocessing.transform(path, False, keep=["id", "a"])
    assert batch.kept == {"id": ["007", "008", "009", "010"], "a": ["1", "?", "3", "4"]}
    assert batch.dropped.tolist() == [False, True, True, False]
    assert batch.x.shape == (2, 4 - 1)
    assert batch.rows == 4
    assert preprocessing.transform(path, True).target.tolist() == [[1], [5]]
    batch = preprocessing.transform(write("id,a,b\n1,?,x\n"), False)
    assert batch.x.shape == (0, 3)
    assert message(preprocessing, write("id,a,b,y\n1,?,x,1\n"), True).startswith("new.csv: every row has a missing")


def test_streams(fitted, write):
    for content in (TRAIN.encode(), gzip.compress(TRAIN.encode())):
        batch = fitted.preprocessing.transform(io.BytesIO(content), True)
        assert batch.x.tobytes() == fitted.train.x.tobytes()
    assert message(fitted.preprocessing, io.BytesIO(b"age,sex,pay\n1,m\n")) == "stdin:2: expected 3 cells, found 2"
    assert message(fitted.preprocessing, io.BytesIO(b""), name="-").startswith("-: is empty")
    with open(write(TRAIN), "rb") as stream:
        assert fitted.preprocessing.transform(stream, False).rows == 12


def test_files_without_names_and_arrays_go_by_position(write, tmp_path):
    rows = np.arange(12.0).reshape(4, 3)
    table = "\n".join(",".join(map(str, row)) for row in rows)
    dataset = load(data_options(write(table, "train.csv"), target=0), 0, "float64", False)
    assert dataset.preprocessing.feature_names == ["1", "2"]
    np.save("full.npy", rows)
    np.save("x.npy", rows[:, 1:])
    np.save("y.npy", rows[:, 0])
    np.savez("both.npz", x=rows[:, 1:], y=rows[:, 0])
    for source in ("train.csv", "full.npy", ("x.npy", "y.npy"), "both.npz"):
        batch = dataset.preprocessing.transform(source, True)
        assert np.asarray(batch.x).tobytes() == dataset.train.x.tobytes()
        assert batch.target.tolist() == dataset.train.target.tolist()
    for source in ("x.npy", ("x.npy",), ("x.npy", None), write("1,2\n4,5\n7,8\n10,11\n")):
        found = np.asarray(dataset.preprocessing.transform(source, False).x)
        assert found.tobytes() == dataset.train.x.tobytes()
    assert "expected 3, in the order" in message(dataset.preprocessing, "x.npy", True)
    np.save("wide.npy", np.ones((4, 5)))
    assert message(dataset.preprocessing, ("wide.npy", "y.npy"), True) == (
        "wide.npy: has 5 columns of inputs and 1 of targets; expected 2 and 1"
    )
    named = write("u,v,w\n" + table)
    assert dataset.preprocessing.transform(named, True).x.tobytes() == dataset.train.x.tobytes()
    arrays = load(data_options(train=("x.npy", "y.npy")), 0, "float64", False)
    assert arrays.train.x.tobytes() == dataset.train.x.tobytes()
    swapped = write("\n".join(",".join(map(str, row)) for row in rows[:, [1, 2, 0]]))
    assert arrays.preprocessing.transform(swapped, True).target.tolist() == arrays.train.target.tolist()


def test_names_from_the_config_serve_other_files(write):
    names = ["a", "b", "y"]
    rows = "1,x,5\n2,z,6\n4,x,9\n"
    dataset = load(data_options(write(rows, "train.csv"), names=names), 0, "float32", False)
    for text in (rows, "a,b,y\n" + rows, "y,b,a\n5,x,1\n6,z,2\n9,x,4\n", "1,x\n2,z\n4,x\n"):
        assert dataset.preprocessing.transform(write(text), False).x.tobytes() == dataset.train.x.tobytes(), text


def test_sample_weights_in_other_files(write):
    path = write("a,w,y\n1,2,3\n4,1,6\n", "train.csv")
    preprocessing = load(data_options(path, sample_weight="w"), 0, "float32", False).preprocessing
    assert preprocessing.transform(path, True).weight.tolist() == [2, 1]
    assert preprocessing.transform(write("a\n1\n"), False).weight is None
    assert message(preprocessing, write("a,y\n1,2\n"), True) == "new.csv: has no column 'w', the sample weight"


@pytest.mark.parametrize("numeric", ["none", "standard", "minmax", "robust", "quantile", {"name": "divide", "by": 3}])
@pytest.mark.parametrize("missing", ["mean", "indicator", "median", {"name": "constant", "value": 2.5}])
def test_stored_and_restored_to_the_bit(write, numeric, missing):
    rows = "".join(
        f"{'?' if number % 7 == 3 else number * 0.1},{'?' if number % 5 == 4 else 'uvw'[number % 3]},{number / 3}\n"
        for number in range(40)
    )
    path = write("a,b,y\n" + rows, "train.csv")
    options = data_options(path, numeric=numeric, missing=missing, target_scaling="standard", split={"test": 0.2})
    dataset = load(options, 1, "float32", False)
    facts, arrays = dataset.preprocessing.state()
    facts = json.loads(json.dumps(facts, sort_keys=True))
    restored = Preprocessing.from_state(facts, from_safetensors(to_safetensors(arrays)))
    assert restored.state()[0] == dataset.preprocessing.state()[0]
    one, other = dataset.preprocessing.transform(path, True), restored.transform(path, True)
    assert one.x.tobytes() == other.x.tobytes()
    assert one.x[dataset.test.rows].tobytes() == dataset.test.x.tobytes()
    assert one.target.tobytes() == other.target.tobytes()
    assert restored.task.target_shift.tobytes() == dataset.task.target_shift.tobytes()
    assert restored.describe() == dataset.preprocessing.describe()
    assert restored.feature_names == dataset.preprocessing.feature_names


def test_reading_options_are_stored(write):
    text = "#c\n1,5;x;0,5\n2,5;-;1,5\n"
    options = data_options(
        write(text, "train.csv"), decimal=",", comment="#", missing_values=["-"], missing="mean", names=["a", "b", "y"]
    )
    preprocessing = load(options, 0, "float64", False).preprocessing
    restored = Preprocessing.from_state(*preprocessing.state())
    assert restored.transform("train.csv", True).target.tolist() == [[0.5], [1.5]]
    assert restored.feature_names == ["a", "b=x", "b is missing"]
