"""`mlp eval`: metrics on a split of the run or on another file, requirements, JSON."""

import re

import pytest
from cli import blobs, classifier, good, mlp, regressor, slopes, summary, write_config, write_csv

pytestmark = pytest.mark.smoke

CLASS_METRICS = ["loss", "accuracy", "balanced_accuracy", "log_loss", "roc_auc", "f1_macro", "mcc", "brier"]


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """A trained classifier of trees with its table."""
    folder = tmp_path_factory.mktemp("trees")
    data = blobs(folder / "trees.csv")
    config = classifier(folder / "c.yaml", data, training={"epochs": 20, "batch_size": 8})
    good("train", config, "--out", folder / "run")
    return folder / "run", data


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    """A trained regression without a test split."""
    folder = tmp_path_factory.mktemp("line")
    data = slopes(folder / "line.csv")
    good("train", regressor(folder / "c.yaml", data, data={"path": str(data)}), "--out", folder / "run")
    return folder / "run", data


def test_the_whole_output_for_classes(trees):
    run, _ = trees
    done = good("eval", run)
    found = good("eval", run, "--json").json
    assert done.err == ""
    counts = found["confusion"]["counts"]
    head, confusion, classes = done.out.split("\n\n")
    lines = [line.split() for line in head.splitlines()]
    assert lines == [
        ["test"],
        *([name, f"{found['metrics'][name]:.5g}"] for name in CLASS_METRICS),
        ["rows", "12"],
    ]
    assert [line.split() for line in confusion.splitlines()] == [
        ["true", "\\", "predicted", "ash", "beech", "cedar"],
        *([name, *map(str, row)] for name, row in zip(("ash", "beech", "cedar"), counts, strict=True)),
    ]
    assert [line.split()[0] for line in classes.splitlines()] == ["class", "ash", "beech", "cedar"]
    for number, line in enumerate(classes.splitlines()[1:]):
        precision, recall, f1, support = (float(cell) for cell in line.split()[1:])
        right, truly, said = counts[number][number], sum(counts[number]), sum(row[number] for row in counts)
        assert support == truly
        assert recall == pytest.approx(right / truly, abs=1e-5)
        assert precision == pytest.approx(right / said if said else 0, abs=1e-5)
        assert f1 == pytest.approx(2 * right / (truly + said), abs=1e-5)


def test_the_whole_output_for_numbers(line):
    run, _ = line
    found = summary(run)["metrics"]["train"]
    done = good("eval", run)
    assert [text.split() for text in done.out.splitlines()] == [
        ["train"],
        *([name, f"{found[name]:.5g}"] for name in ("loss", "rmse", "mae", "r2")),
        ["rows", "60"],
    ]


def test_json(trees, line):
    run, data = trees
    found = good("eval", run, "--json").json
    assert list(found)[:3] == ["rows", "split", "metrics"]
    assert (found["rows"], found["split"]) == (12, "test")
    assert list(found["metrics"]) == CLASS_METRICS
    found = good("eval", run, data, "--json").json
    assert (found["rows"], found["split"]) == (60, None)
    found = good("eval", line[0], "--json").json
    assert found == {"rows": 60, "split": "train", "metrics": summary(line[0])["metrics"]["train"]}


def test_the_default_split_is_test_else_validation_else_train(tmp_path, trees, line):
    assert good("eval", trees[0], "--json").json["split"] == "test"
    assert good("eval", line[0], "--json").json["split"] == "train"
    data = trees[1]
    config = classifier(tmp_path / "c.yaml", data, data={"path": str(data), "split": {"validation": 0.3}})
    good("train", config, "--out", tmp_path / "run")
    assert good("eval", tmp_path / "run", "--json").json["split"] == "validation"


def test_a_split_that_the_run_does_not_have(line):
    done = mlp("eval", line[0], "--split", "test")
    assert (done.code, done.out) == (2, "")
    assert done.err == "--split test: this run has no test rows; it has train\n"


def test_another_file(trees, tmp_path):
    run, data = trees
    rows = data.read_text().splitlines()
    some = tmp_path / "some.csv"
    some.write_text("\n".join([rows[0], *rows[1:10]]) + "\n")
    done = good("eval", run, some)
    assert done.out.splitlines()[0].strip() == str(some)
    assert "  rows  9" in re.sub(r" +(\d+)$", r"  \1", done.out, flags=re.MULTILINE)
    # a pipe, columns in another order, and a column more
    names = ["tree", "x2", "x1", "x0", "more"]
    cells = [(*reversed(row.split(",")), "?") for row in rows[1:10]]
    other = write_csv(tmp_path / "other.csv", names, cells)
    expected = good("eval", run, some, "--json").json
    assert good("eval", run, other, "--json").json == expected
    assert good("eval", run, "-", "--json", stdin=some.read_bytes()).json == expected


def test_a_file_without_the_target(trees, tmp_path):
    other = write_csv(tmp_path / "d.csv", ["x0", "x1", "x2"], [(1, 2, 3)])
    done = mlp("eval", trees[0], other)
    assert (done.code, done.out) == (3, "")
    assert done.err == f"{other}: has no column 'tree', the target\n"


def test_a_class_that_training_never_saw(trees, tmp_path):
    other = write_csv(tmp_path / "d.csv", ["x0", "x1", "x2", "tree"], [(1, 2, 3, "ash"), (1, 2, 3, "oak")])
    done = mlp("eval", trees[0], other)
    assert done.code == 3
    assert f"{other}:3" in done.err
    assert "'oak'" in done.err


def test_one_row_and_one_class(trees, tmp_path):
    other = write_csv(tmp_path / "d.csv", ["x0", "x1", "x2", "tree"], [(1, 2, 3, "ash")])
    done = good("eval", trees[0], other, "--json")
    assert done.json["rows"] == 1
    assert "NaN" not in done.out
    assert "nan" not in good("eval", trees[0], other).out


def test_pairs_of_files(tmp_path):
    import numpy as np

    x = np.arange(60, dtype=np.float32).reshape(20, 3) % 7
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", np.arange(20) % 2)
    config = write_config(
        tmp_path / "c.yaml",
        data={"train": {"x": "x.npy", "y": "y.npy"}},
        network={"layers": [{"activation": "softmax"}]},
        training={"epochs": 2},
    )
    good("train", config, "--out", tmp_path / "run")
    found = good("eval", tmp_path / "run", tmp_path / "x.npy", tmp_path / "y.npy", "--json").json
    assert found["metrics"] == summary(tmp_path / "run")["metrics"]["train"]
    assert len(good("predict", tmp_path / "run", tmp_path / "x.npy").out.splitlines()) == 21
    done = mlp("eval", tmp_path / "run", tmp_path / "x.npy")
    assert done.code in (2, 3)
    assert "y" in done.err
    assert mlp("eval", tmp_path / "run", "a", "b", "c").code == 2


def test_requirements(trees):
    run, _ = trees
    accuracy = good("eval", run, "--json").json["metrics"]["accuracy"]
    for text in ("accuracy>=0", "accuracy > -1", "loss<1e9", f"accuracy>={accuracy!r}", f"accuracy<={accuracy!r}"):
        assert good("eval", run, "--require", text).err == ""
    done = mlp("eval", run, "--require", "accuracy>=0.0", "--require", "accuracy>1", "--require", "loss<-1e3")
    loss = good("eval", run, "--json").json["metrics"]["loss"]
    assert done.code == 8
    assert (
        done.err == f"Not met: accuracy is {accuracy:.5g}, required is > 1; loss is {loss:.5g}, required is < -1000\n"
    )
    assert done.out == good("eval", run).out


def test_requirements_that_name_nothing(trees):
    done = mlp("eval", trees[0], "--require", "acuracy>=0.5")
    assert done.code == 2
    assert done.err == (
        f"--require 'acuracy>=0.5': there is no metric 'acuracy'; there are {', '.join(CLASS_METRICS)}\n"
    )


def test_requirements_per_target(tmp_path):
    data = slopes(tmp_path / "d.csv", targets=2)
    config = regressor(tmp_path / "c.yaml", data, data={"path": str(data), "target": ["y0", "y1"]})
    good("train", config, "--out", tmp_path / "run")
    assert mlp("eval", tmp_path / "run", "--require", "rmse.y1<1e9", "--quiet").code == 0
    assert mlp("eval", tmp_path / "run", "--require", "rmse.y1<0", "--quiet").code == 8


def test_quiet_keeps_the_result(trees):
    run, _ = trees
    assert good("eval", run, "--quiet").out == good("eval", run).out


def test_data_that_changed_since_training(tmp_path):
    data = blobs(tmp_path / "d.csv")
    good("train", classifier(tmp_path / "c.yaml", data), "--out", tmp_path / "run")
    blobs(data, seed=2)
    done = mlp("eval", tmp_path / "run")
    assert done.code == 3
    assert "have changed since training" in done.err
    # the file itself can still be evaluated
    assert good("eval", tmp_path / "run", data, "--json").json["rows"] == 60
    data.unlink()
    done = mlp("eval", tmp_path / "run")
    assert done.code == 3
    assert str(data) in done.err


def test_a_run_that_moved_still_knows_its_data(tmp_path):
    data = blobs(tmp_path / "d.csv")
    good("train", classifier(tmp_path / "c.yaml", data), "--out", tmp_path / "run")
    before = good("eval", tmp_path / "run", "--json").json
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    assert good("eval", tmp_path / "elsewhere", "--json").json == before
