"""Adult, Titanic, California housing and MNIST from their raw files; skipped where these are absent."""

import csv

import numpy as np
import pytest
from data_options import data_options, real_data

from mlp_cli.data import Preprocessing, load

ADULT = [
    "age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation", "relationship", "race",
    "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country", "income",
]  # fmt: skip


@pytest.mark.parametrize("first_line", [b"", b"|1x3 Cross validator\n"])
def test_adult(first_line, tmp_path):
    test = tmp_path / "adult.test"
    test.write_bytes(first_line + real_data("adult", "adult.test").read_bytes())
    options = data_options(
        train=real_data("adult", "adult.data"),
        test=test,
        names=ADULT,
        comment="|",
        labels={"<=50K.": "<=50K", ">50K.": ">50K"},
        missing="mean",
    )
    dataset = load(options, 0, "float32", False)
    assert dataset.train.x.shape == (32561, 108)
    assert dataset.test.x.shape == (16281, 108)
    assert dataset.task.classes == ("<=50K", ">50K")
    assert np.bincount(dataset.train.target).tolist() == [24720, 7841]
    assert np.bincount(dataset.test.target).tolist() == [12435, 3846]
    assert "workclass is missing" in dataset.preprocessing.feature_names
    again = Preprocessing.from_state(*dataset.preprocessing.state()).transform(test, True, keep=["age"])
    assert again.x.tobytes() == dataset.test.x.tobytes()
    assert again.kept["age"][:2] == ["25", "38"]


def test_titanic():
    path = real_data("titanic", "titanic_raw.csv")
    options = data_options(path, target="survived", exclude=["name", "ticket", "cabin"], missing="median",
                           split={"test": 0.2})  # fmt: skip
    dataset = load(options, 0, "float32", True)
    assert dataset.task.classes == ("0", "1")
    assert len(dataset.train.x) + len(dataset.test.x) == 891
    assert dataset.notes == []
    with path.open(newline="", encoding="utf-8") as lines:
        names = [row["name"].strip() for row in csv.DictReader(lines)]
    assert dataset.preprocessing.transform(path, True, keep=["name"]).kept["name"] == names


def test_housing():
    options = data_options(real_data("housing", "housing.csv"), target="median_house_value", missing="indicator",
                           target_scaling="standard", split={"validation": 0.1, "test": 0.2})  # fmt: skip
    dataset = load(options, 0, "float64", False)
    assert dataset.task.kind == "regression"
    assert [len(part.x) for part in (dataset.train, dataset.validation, dataset.test)] == [14448, 2064, 4128]
    assert "total_bedrooms is missing" in dataset.preprocessing.feature_names
    scaled = (dataset.train.target - dataset.task.target_shift) / dataset.task.target_scale
    assert scaled.mean() == pytest.approx(0, abs=1e-10)
    assert scaled.std() == pytest.approx(1)


def test_mnist():
    def pair(part):
        files = f"{part}-images-idx3-ubyte.gz", f"{part}-labels-idx1-ubyte.gz"
        return tuple(real_data("mnist", name) for name in files)

    options = data_options(train=pair("train"), test=pair("t10k"), numeric={"name": "divide", "by": 255.0})
    dataset = load(options, 0, "float32", True)
    assert dataset.train.x.shape == (60000, 784)
    assert dataset.test.x.shape == (10000, 784)
    assert dataset.train.target[:5].tolist() == [5, 0, 4, 1, 9]
    assert np.asarray(dataset.train.x).max() == 1
    assert dataset.task.classes == tuple("0123456789")
