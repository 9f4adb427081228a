"""`mlp predict`: predictions for raw rows, from files and pipes, in whatever order their columns come."""

import csv
import io
import math
import os
import socket
import subprocess
import sys
import time

import pytest
from cli import blobs, classifier, finish, good, mlp, regressor, slopes, start, summary, write_config, write_csv

pytestmark = pytest.mark.smoke


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """A trained classifier of trees with its table."""
    folder = tmp_path_factory.mktemp("trees")
    data = blobs(folder / "trees.csv")
    config = classifier(folder / "c.yaml", data, training={"epochs": 20, "batch_size": 8})
    good("train", config, "--out", folder / "run")
    return folder / "run", data


def table(text):
    return list(csv.reader(io.StringIO(text)))


def test_the_output_is_a_header_and_a_line_per_row(trees):
    run, data = trees
    done = good("predict", run, data)
    header, *rows = table(done.out)
    assert done.err == ""
    assert header == ["prediction", "probability_ash", "probability_beech", "probability_cedar"]
    assert len(rows) == 60
    for row in rows:
        p = [float(cell) for cell in row[1:]]
        assert sum(p) == pytest.approx(1, abs=1e-6)
        assert row[0] == ("ash", "beech", "cedar")[p.index(max(p))]
        assert all(0 <= value <= 1 for value in p)


def test_predictions_agree_with_the_metrics(trees):
    run, data = trees
    rows = table(good("predict", run, data, "--keep", "tree").out)[1:]
    metrics = good("eval", run, data, "--json").json["metrics"]
    assert sum(row[0] == row[1] for row in rows) / len(rows) == pytest.approx(metrics["accuracy"])
    place = {"ash": 2, "beech": 3, "cedar": 4}
    loss = -sum(math.log(float(row[place[row[0]]])) for row in rows) / len(rows)
    assert loss == pytest.approx(metrics["log_loss"], rel=1e-5)


def test_to_a_file(trees, tmp_path):
    run, data = trees
    done = good("predict", run, data, "-o", tmp_path / "p.csv")
    assert (done.out, done.err) == ("", f"60 rows written to {tmp_path}/p.csv\n")
    assert (tmp_path / "p.csv").read_text() == good("predict", run, data).out
    assert good("predict", run, data, "-o", tmp_path / "p.csv", "--quiet").err == ""
    assert good("predict", run, data, "--output", "-").out == (tmp_path / "p.csv").read_text()


def test_from_standard_input(trees):
    run, data = trees
    done = good("predict", run, "-", "--keep", "tree", stdin=data.read_bytes())
    assert done.out == good("predict", run, data, "--keep", "tree").out


def test_from_a_checkpoint_file_and_from_a_run(trees):
    run, data = trees
    assert good("predict", run / "checkpoints" / "best.safetensors", data).out == good("predict", run, data).out
    # the file is enough by itself
    assert summary(run)["checkpoint"]["best"] == "checkpoints/best.safetensors"


def test_with_any_number_of_threads(trees):
    run, data = trees
    assert good("predict", run, data, "--threads", 3).out == good("predict", run, data, "--threads", 1).out


def test_columns_in_another_order_and_more_of_them(trees, tmp_path):
    run, data = trees
    rows = list(csv.DictReader(io.StringIO(data.read_text())))
    names = ["id", "tree", "x2", "x0", "note", "x1"]
    cells = [(i, row["tree"], row["x2"], row["x0"], "-", row["x1"]) for i, row in enumerate(rows)]
    other = write_csv(tmp_path / "other.csv", names, cells)
    assert good("predict", run, other).out == good("predict", run, data).out
    kept = table(good("predict", run, other, "--keep", "note", "--keep", "id").out)
    assert kept[0][:3] == ["note", "id", "prediction"]
    assert [row[:2] for row in kept[1:]] == [["-", str(i)] for i in range(60)]


def test_without_the_target(trees, tmp_path):
    run, data = trees
    plain = tmp_path / "plain.csv"
    plain.write_text("".join(line.rpartition(",")[0] + "\n" for line in data.read_text().splitlines()))
    assert good("predict", run, plain).out == good("predict", run, data).out


def test_a_missing_column_is_named(trees, tmp_path):
    run, _ = trees
    data = write_csv(tmp_path / "d.csv", ["x0", "x2"], [(1, 2)])
    done = mlp("predict", run, data)
    assert (done.code, done.out) == (3, "")
    assert done.err.startswith(f"{data}: ")
    assert "'x1'" in done.err


def test_a_kept_column_that_is_not_there_is_named(trees):
    run, data = trees
    done = mlp("predict", run, data, "--keep", "nope")
    assert (done.code, done.out) == (3, "")
    assert done.err == f"{data}: has no column 'nope' to keep (it has x0, x1, x2, tree)\n"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", "is empty"),
        ("x0,x1,x2\n", ""),
        ("x0,x1,x2\n1,2,many\n", "'x2'"),
        ("x0,x1,x2\n1,2\n", ""),
        ("x0,x1,x2\n1,,3\n", "'x1'"),
    ],
)
def test_rows_that_cannot_be_read(trees, tmp_path, content, what):
    run, _ = trees
    path = tmp_path / "rows.csv"
    path.write_text(content)
    done = mlp("predict", run, path)
    assert done.out in ("", "prediction,probability_ash,probability_beech,probability_cedar\n")
    assert done.code == 3
    assert str(path) in done.err
    assert what in done.err
    # and the same through a pipe
    piped = mlp("predict", run, "-", stdin=content.encode())
    assert piped.code == 3
    assert what in piped.err


# Missing values


def test_rows_with_holes_get_blank_lines(tmp_path):
    data = blobs(tmp_path / "trees.csv")
    config = classifier(tmp_path / "c.yaml", data, data={"path": str(data), "missing": "drop"})
    good("train", config, "--out", tmp_path / "run")
    rows = write_csv(
        tmp_path / "rows.csv", ["id", "x0", "x1", "x2"], [(1, 1, 2, 3), (2, 1, "", 3), (3, "?", 2, 3), (4, 3, 2, 1)]
    )
    lines = good("predict", tmp_path / "run", rows, "--keep", "id").out.splitlines()
    assert len(lines) == 5
    assert lines[2] == "2,,,,"
    assert lines[3] == "3,,,,"
    assert all(line.count(",") == 4 for line in lines)
    whole = write_csv(tmp_path / "whole.csv", ["id", "x0", "x1", "x2"], [(1, 1, 2, 3), (4, 3, 2, 1)])
    assert good("predict", tmp_path / "run", whole, "--keep", "id").out.splitlines() == [lines[0], lines[1], lines[4]]
    # a table in which every row has a hole
    holes = write_csv(tmp_path / "holes.csv", ["x0", "x1", "x2"], [("", 2, 3), (1, "NA", 3)])
    assert good("predict", tmp_path / "run", holes).out.splitlines()[1:] == [",,,", ",,,"]


@pytest.mark.parametrize("missing", ["mean", "median", {"name": "constant", "value": 2}, "indicator"])
def test_holes_that_are_filled(tmp_path, missing):
    data = blobs(tmp_path / "trees.csv")
    data.write_text(data.read_text() + "?,1,1,ash\n")
    config = classifier(tmp_path / "c.yaml", data, data={"path": str(data), "missing": missing})
    good("train", config, "--out", tmp_path / "run")
    rows = write_csv(tmp_path / "rows.csv", ["x0", "x1", "x2"], [(1, 2, 3), ("NA", 2, 3)])
    lines = table(good("predict", tmp_path / "run", rows).out)
    assert all(math.isfinite(float(cell)) for line in lines[1:] for cell in line[1:])


def test_categories_that_training_never_saw(tmp_path):
    rows = [("abc"[i % 3], i % 5, "yes" if i % 3 else "no") for i in range(30)]
    data = write_csv(tmp_path / "d.csv", ["letter", "x", "answer"], rows)
    new = write_csv(tmp_path / "new.csv", ["letter", "x"], [("a", 1), ("z", 2)])
    for unseen, code in (("error", 3), ("ignore", 0)):
        config = classifier(tmp_path / "c.yaml", data, data={"path": str(data), "unseen": unseen})
        good("train", config, "--out", tmp_path / unseen)
        done = mlp("predict", tmp_path / unseen, new)
        assert done.code == code
        if code:
            assert "'z'" in done.err
            assert f"{new}:3" in done.err
        else:
            assert len(done.out.splitlines()) == 3


# Names


def test_class_names_with_commas_quotes_and_all_the_letters_of_the_world(tmp_path):
    names = ['say "hi", twice', "Ås, på fjället", "木", "x" * 200, "line\nbreak"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["größe, cm", "what"])
    writer.writerows((i % 5, names[i % 5]) for i in range(50))
    (tmp_path / "d.csv").write_text(text.getvalue(), encoding="utf-8")
    config = classifier(
        tmp_path / "c.yaml",
        tmp_path / "d.csv",
        data={"path": str(tmp_path / "d.csv"), "columns": {"größe, cm": "categorical"}},
        training={"epochs": 60, "batch_size": 8},
        learning_rate=0.1,
    )
    done = good("train", config, "--out", tmp_path / "run")
    assert "木" in done.out
    header, *rows = table(good("predict", tmp_path / "run", tmp_path / "d.csv", "--keep", "what").out)
    assert header == ["what", "prediction", *(f"probability_{name}" for name in sorted(names))]
    assert all(row[0] == row[1] for row in rows)
    found = good("eval", tmp_path / "run", "--json").json
    assert found["confusion"]["classes"] == sorted(names)
    assert found["metrics"]["accuracy"] == 1


def test_escape_sequences_in_names_do_not_reach_the_terminal(tmp_path):
    rows = [(i % 2, "\x1b[31mred" if i % 2 else "plain") for i in range(20)]
    data = write_csv(tmp_path / "d.csv", ["x", "colour"], rows)
    config = classifier(tmp_path / "c.yaml", data, data={"path": str(data)})
    for command in (["train", config, "--out", tmp_path / "run"], ["eval", tmp_path / "run"]):
        done = good(*command)
        assert "\x1b" not in done.out + done.err
        assert "\\x1b[31mred" in done.out


def test_output_in_a_locale_without_those_letters(tmp_path):
    data = write_csv(tmp_path / "d.csv", ["x", "tree"], [(i % 2, "ålm" if i % 2 else "木") for i in range(20)])
    config = classifier(tmp_path / "c.yaml", data, data={"path": str(data)})
    good("train", config, "--out", tmp_path / "run")
    done = finish(start("predict", tmp_path / "run", data, environment={"PYTHONIOENCODING": "ascii"}, text=False))
    assert done.code == 0, done.err
    assert done.out.decode() == good("predict", tmp_path / "run", data).out
    done = finish(start("eval", tmp_path / "run", environment={"PYTHONIOENCODING": "ascii"}))
    assert done.code == 0, done.err
    assert "\\u6728" in done.out


# Regression


def test_regression(tmp_path):
    data = slopes(tmp_path / "d.csv")
    good("train", regressor(tmp_path / "c.yaml", data), "--out", tmp_path / "run")
    header, *rows = table(good("predict", tmp_path / "run", data).out)
    assert header == ["prediction"]
    assert len(rows) == 60
    assert all(math.isfinite(float(row[0])) for row in rows)


def test_numbers_read_back_as_they_were(tmp_path):
    # digits of a class are class names; predictions of float32 need no more than nine digits
    data = write_csv(tmp_path / "d.csv", ["x", "digit"], [(i / 7, i % 3) for i in range(30)])
    good("train", classifier(tmp_path / "c.yaml", data), "--out", tmp_path / "run")
    header, *rows = table(good("predict", tmp_path / "run", data).out)
    assert header == ["prediction", "probability_0", "probability_1", "probability_2"]
    assert {row[0] for row in rows} <= {"0", "1", "2"}
    assert max(len(cell) for row in rows for cell in row) <= 15


def test_files_without_a_header(tmp_path):
    data = tmp_path / "d.csv"
    data.write_text("".join(f"{i % 4},{i % 3},{'up' if i % 4 > 1 else 'down'}\n" for i in range(40)))
    config = write_config(
        tmp_path / "c.yaml",
        data={"path": str(data), "header": False},
        network={"layers": [{"activation": "softmax"}]},
        training={"epochs": 2},
    )
    good("train", config, "--out", tmp_path / "run")
    rows = tmp_path / "rows.csv"
    rows.write_text("0,1\n3,2\n")
    assert len(table(good("predict", tmp_path / "run", rows).out)) == 3
    assert len(table(good("predict", tmp_path / "run", data).out)) == 41


# Pipes


def test_pipes_that_do_not_wait(trees, tmp_path):
    """Whoever made them may have left them so (O_NONBLOCK): nothing is taken for the end, and nothing is dropped."""
    run, rows = trees
    header, *lines = rows.read_text().splitlines(keepends=True)
    expected = good("predict", run, "-", stdin="".join([header, *lines * 100]).encode()).out
    reader, theirs = os.pipe()
    ours, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    with start("predict", run, "-", stdin=reader, stdout=writer) as process:
        os.close(reader)
        os.close(writer)
        time.sleep(1)
        with os.fdopen(theirs, "w") as stdin:
            stdin.writelines([header, *lines * 100])
        time.sleep(0.5)
        with os.fdopen(ours) as stdout:
            assert stdout.read() == expected
        assert process.wait(timeout=30) == 0


def test_standard_output_by_its_name(trees, tmp_path):
    """A file, whose other lines must stay, and a socket, which cannot be opened by a name."""
    run, rows = trees
    expected = good("predict", run, rows).out
    with open(tmp_path / "out.csv", "w+") as file:
        file.write("# first\n")
        file.flush()
        assert finish(start("predict", run, rows, "-o", "/dev/stdout", stdout=file)).code == 0
        file.seek(0)
        assert file.read() == "# first\n" + expected
    assert (tmp_path / "out.csv").read_text() == "# first\n" + expected
    ours, theirs = socket.socketpair()
    with ours, theirs, start("predict", run, rows, "-o", "/dev/stdout", stdout=theirs) as process:
        theirs.close()
        with ours.makefile() as stdout:
            assert stdout.read() == expected
        assert process.wait(timeout=30) == 0


def test_what_nobody_reads(trees, tmp_path):
    """A closed stderr hides no result; whoever stops reading the output is no fault of the system."""
    run, rows = trees
    nowhere, unread = os.pipe()
    os.close(nowhere)
    done = finish(start("eval", run, stderr=unread))
    assert (done.code, "accuracy" in done.out) == (0, True)
    done = finish(start("predict", run, rows, "-o", "/dev/stdout", stdout=unread))
    assert (done.code, done.err) == (141, "")
    os.close(unread)


def test_a_closed_pipe_ends_it_silently(trees, tmp_path):
    run, data = trees
    many = tmp_path / "many.csv"
    head, *rows = data.read_text().splitlines()
    many.write_text("\n".join([head, *rows * 100]) + "\n")
    command = f"'{sys.executable}' -m mlp_cli predict '{run}' '{many}' | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = finish(subprocess.Popen(["bash", "-c", command], stdout=-1, stderr=-1, text=True))
    assert done.code == 141
    assert done.out == "prediction,probability_ash,probability_beech,probability_cedar\n"
    assert done.err == ""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /dev/full")
def test_a_full_disk(trees):
    run, data = trees
    with open("/dev/full", "w") as full:
        done = finish(start("predict", run, data, stdout=full))
    assert done.code == 5
    assert "space" in done.err
    assert "Traceback" not in done.err
