"""The target: classes or numbers and why, class order and names, contradictions, scaling."""

import numpy as np
import pytest
from data_options import data_options

from mlp_cli.data import load, split
from mlp_cli.errors import DataError


@pytest.fixture
def task_of(tmp_path, monkeypatch):
    """Load a table with one feature and this target column, under a loss for numbers or for classes."""
    monkeypatch.chdir(tmp_path)

    def task_of(cells, numbers_are_classes=False, **options):
        rows = "".join(f"{number},{cell}\n" for number, cell in enumerate(cells))
        (tmp_path / "data.csv").write_text("a,y\n" + rows)
        return load(data_options("data.csv", **options), 0, "float32", numbers_are_classes)

    return task_of


def refusal(task_of, *given, **options):
    with pytest.raises(DataError) as caught:
        task_of(*given, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("cells", "numbers_are_classes", "options", "kind", "classes", "reason"),
    [
        ("ba", False, {}, "classification", ("a", "b"), "the target 'y' holds words: classification into 2 classes"),
        ("ba", True, {}, "classification", ("a", "b"), "the target 'y' holds words: classification into 2 classes"),
        (["true", "false"], False, {}, "classification", ("false", "true"),
         "the target 'y' holds words: classification into 2 classes"),
        ("310", False, {}, "regression", None, "the target 'y' holds numbers: regression"),
        ("310", True, {}, "classification", ("0", "1", "3"), "the target 'y' holds numbers, which output or loss take "
                                                             "as classes: classification into 3 classes"),
        ("310", False, {"task": "classification"}, "classification", ("0", "1", "3"),
         "data.task says so: classification into 3 classes"),
        ("310", True, {"task": "regression"}, "regression", None, "data.task says so: regression"),
        (["10", "9", "-1", "1e1", "2.50"], True, {}, "classification", ("-1", "2.5", "9", "10"), None),
        (["10", "9", "1x"], True, {}, "classification", ("10", "1x", "9"), None),
        (["1", "2", "3"], False, {"columns": {"y": "categorical"}}, "classification", ("1", "2", "3"), None),
        (["-0.0", "0", "1"], True, {}, "classification", ("0", "1"), None),
        (["1e300", "1e16", "12345678901"], True, {}, "classification", ("12345678901", "1e+16", "1e+300"), None),
    ],
)  # fmt: skip
def test_task(task_of, cells, numbers_are_classes, options, kind, classes, reason):
    task = task_of(cells, numbers_are_classes, **options).task
    assert (task.kind, task.classes, task.targets) == (kind, classes, ("y",))
    assert reason is None or task.reason == reason


def test_class_numbers_and_regression_values(task_of):
    dataset = task_of(["10", "9", "9.0"], True)
    assert dataset.train.target.tolist() == [1, 0, 0]
    assert dataset.train.target.dtype == np.int32
    dataset = task_of(["10", "9", "9.5"])
    assert dataset.train.target.tolist() == [[10], [9], [9.5]]
    assert dataset.train.target.dtype == np.float64
    assert dataset.task.target_shift.tolist() == [0]
    assert dataset.task.target_scale.tolist() == [1]


def test_labels_are_renamed(task_of):
    dataset = task_of(["no", "yes", "no.", "yes"], labels={"no.": "no", "never": "no"})
    assert dataset.task.classes == ("no", "yes")
    assert dataset.train.target.tolist() == [0, 1, 0, 1]
    assert task_of("010", labels={"0": "no", "1": "yes"}).task.classes == ("no", "yes")
    assert task_of(["no", "yes"], labels={"no": "0", "yes": "1"}).train.target.tolist() == [[0], [1]]
    assert task_of(["a", "b", "bad"], labels={"bad": "7"}).task.classes == ("7", "a", "b")


def test_contradictions_are_refused(task_of):
    assert refusal(task_of, ["1", "x", "2"], task="regression") == (
        "data.csv:3: column 'y': expected a number, as data.task is regression; found 'x'"
    )
    assert refusal(task_of, ["1", "x", "2"], columns={"y": "numeric"}) == (
        "data.csv:3: column 'y': expected a number, as data.columns says numeric; found 'x'"
    )
    fractions = [str(number / 4) for number in range(60)]
    assert refusal(task_of, fractions, task="classification") == (
        "data.csv: the target 'y' holds 60 different numbers with fractions (0 to 14.75), which are hardly classes; "
        "set data.task: regression with a linear output and loss: mse, or name another data.target"
    )
    assert len(task_of([str(number / 4) for number in range(50)], True).task.classes) == 50
    assert "has 1001 different values in 1001 rows" in refusal(task_of, range(1001), True)
    assert "has no meaning for classes" in refusal(task_of, "ab", target_scaling="standard")


def test_one_class_is_refused(task_of):
    expected = "data.csv: the target 'y' is '{}' in every row; expected two classes or more"
    assert refusal(task_of, "aaa") == expected.format("a")
    assert refusal(task_of, "111", True) == expected.format("1")
    assert task_of("111").notes == ["train: the target y is the same in every row"]


def test_missing_targets(task_of):
    for cells in (["a", "?", "b", "?"], ["1", "?", "2", "nan"]):
        for missing in ("error", "mean", "indicator"):
            assert refusal(task_of, cells, missing=missing) == (
                "data.csv:3: the target 'y' is missing (in 2 rows in all); fill it in, or set data.missing: drop"
            )
    assert task_of(["a", "?", "b", "?"], missing="drop").train.rows.tolist() == [0, 2]
    assert task_of(["1", "?", "2", "nan"], missing="drop").train.target.tolist() == [[1], [2]]


def test_several_targets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.csv").write_text("a,b,c\n1,2,3\n4,5,7\n")
    options = data_options("data.csv", target=["c", "b"], target_scaling="minmax")
    dataset = load(options, 0, "float32", False)
    assert dataset.task.targets == ("c", "b")
    assert dataset.task.reason == "2 target columns: regression"
    assert dataset.train.target.tolist() == [[3, 2], [7, 5]]
    assert dataset.task.target_shift.tolist() == [3, 2]
    assert dataset.task.target_scale.tolist() == [4, 3]
    with pytest.raises(DataError, match=r"^data\.task: classification needs one target column"):
        load(data_options("data.csv", target=["b", "c"], task="classification"), 0, "float32", False)
    (tmp_path / "data.csv").write_text("a,b,c\n1,2,x\n4,5,y\n")
    with pytest.raises(DataError, match="expected a number, as there are several targets; found 'x'"):
        load(data_options("data.csv", target=["b", "c"]), 0, "float32", False)


def test_target_scaling_is_fitted_on_training_rows(task_of):
    values = [number * number for number in range(20)]
    dataset = task_of(values, target_scaling="standard", split={"test": 0.3})
    training = dataset.train.target[:, 0]
    assert dataset.task.target_shift[0] == training.mean()
    assert dataset.task.target_scale[0] == pytest.approx(training.std(), rel=1e-15)
    assert dataset.test.target[:, 0].tolist() == [row * row for row in dataset.test.rows]
    assert dataset.preprocessing.task is dataset.task


def test_splits_by_class(task_of):
    dataset = task_of("ab" * 20 + "c", split={"validation": 0.2, "test": 0.2})
    assert np.bincount(dataset.test.target, minlength=3).tolist() == [4, 4, 0]
    assert dataset.notes == ["validation: no row of class c", "test: no row of class c"]
    cells = list("ab" * 20)
    cells[split(40, {"test": 0.5}, None, 0)["test"][0]] = "c"
    assert refusal(task_of, cells, split={"test": 0.5, "stratify": False}) == (
        "data.csv: the split leaves no training row of class c; set data.split.stratify: true"
    )


def test_a_label_that_training_did_not_have(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.csv").write_text("a,y\n1,u\n2,v\n")
    (tmp_path / "test.csv").write_text("a,y\n1,u\n\n2,w\n")
    with pytest.raises(DataError) as caught:
        load(data_options(train="train.csv", test="test.csv"), 0, "float32", False)
    assert str(caught.value) == (
        "test.csv:4: the label 'w' in column 'y' is none of the classes of training (u, v); data.labels can rename it"
    )
    (tmp_path / "train.csv").write_text("a,y\n1,1\n2,2\n")
    (tmp_path / "test.csv").write_text("a,y\n1,1.0\n2,2.5\n")
    with pytest.raises(DataError, match=r"test\.csv:3: the label '2\.5'"):
        load(data_options(train="train.csv", test="test.csv"), 0, "float32", True)
    (tmp_path / "test.csv").write_text("a,y\n1,1.0\n2,x\n")
    with pytest.raises(DataError, match=r"test\.csv:3: the label 'x'"):
        load(data_options(train="train.csv", test="test.csv"), 0, "float32", True)
