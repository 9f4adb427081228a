"""Broken and hostile data files, as train, predict and eval meet them: the exit code, and one sentence that helps.

`test_data_hostile.py` has more of them for the readers alone.
"""

import contextlib
import gzip
import io
import os
import struct
import subprocess
import sys
import threading
import zipfile

import numpy as np
import pytest
from cli import blobs, classifier, good, measured, mlp

from mlp_cli import memory

HEADER = b"x0,x1,x2,tree\n"
ROWS = b"1,2,3,ash\n4,5,6,beech\n7,8,9,cedar\n" * 20
TABLE = HEADER + ROWS
# Bytes of addresses that a process gets where it is shown to take no more; the program alone takes half a gigabyte.
LIMIT = 1_000_000_000


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run with its config."""
    folder = tmp_path_factory.mktemp("trained")
    config = classifier(folder / "trees.yaml", blobs(folder / "trees.csv"), training={"epochs": 1})
    good("train", config, "--out", folder / "run", "--quiet")
    return folder / "run", config


def commands(run, path, out):
    """train, predict and eval of a file."""
    directory, config = run
    return (
        ["train", config, f"data.path={path}", "--out", out, "--quiet"],
        ["predict", directory, path],
        ["eval", directory, path],
    )


def refused(done, code, sentence):
    assert done.code == code, done
    assert sentence in done.err
    assert len(done.err.splitlines()) == 1
    assert done.out == ""


# Tables


REFUSED = {
    "a short row": (TABLE + b"1,2,3\n", ":62: expected 4 cells, found 3"),
    "a long row": (TABLE + b"1,2,3,ash,5\n" + ROWS, ":62: expected 4 cells, found 5"),
    "latin-1": (TABLE + b"1,2,3,ch\xeane\n", ":62: the byte 0xea is not UTF-8; set data.encoding"),
    "UTF-16": (TABLE.decode().encode("utf-16"), ": is UTF-16 text; set data.encoding: utf-16"),
    "UTF-16 without its mark": (TABLE.decode().encode("utf-16-le"), ": looks like UTF-16 text; set data.encoding"),
    "UTF-32": (TABLE.decode().encode("utf-32"), ": is UTF-32 text; set data.encoding: utf-32"),
    "a NUL byte": (TABLE + b"1,2\0,3,ash\n", ":62: holds a NUL byte"),
    "an open quote": (TABLE + b'1,2,3,"ash\n' + ROWS, ':62: a quote (") opens here and is never closed'),
    "one name twice": (b"x0,x0,x2,tree\n" + ROWS, ":1: columns 1 and 2 are both called 'x0'"),
    "an empty name": (b"x0,,x2,tree\n" + ROWS, ":1: column 2 has no name"),
    "infinity": (TABLE + b"inf,2,3,ash\n", ":62: column 'x0': expected a finite number"),
    "minus infinity": (TABLE + b"1,2,-Infinity,ash\n", ":62: column 'x2': expected a finite number"),
    "a number beyond float32": (TABLE + b"1,1e39,3,ash\n", ":62: column 'x1': expected a finite number that float32"),
    "a number beyond float64": (TABLE + b"1,1e999,3,ash\n", ":62: column 'x1': expected a finite number"),
    "nothing": (b"", ": is empty"),
    "only blank lines": (b"\n \n\n", ": is empty"),
    "only a header": (HEADER, ": holds a header but no rows"),
    "a compressed cut-off table": (gzip.compress(TABLE)[:60], ": is a damaged or cut-off gzip file"),
    "columns without end": (b"," * 2_000_000 + b"\n", ": has 2000001 columns, more than the 100000 that can be read"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_tables_that_are_refused(name, run, tmp_path):
    content, sentence = REFUSED[name]
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    for command in commands(run, path, tmp_path / "run"):
        refused(mlp(*command), 3, f"{path}{sentence}")
    assert not (tmp_path / "run").exists()


LEARNT = {
    "text among numbers": (TABLE + b"1,two,3,ash\n", ":62: column 'x1': expected a number; found 'two'"),
    "decimal commas": (
        (HEADER + ROWS.replace(b"1,2,", b"1.5,2,")).replace(b",", b";").replace(b".", b","),
        ":2: column 'x0': expected a number; found '1,5'; for decimal commas set data.decimal",
    ),
    "a missing column": (b"x0,x1,tree\n1,2,ash\n", ": has no column 'x2', which the model needs (it has x0, x1, tree)"),
    "a hole": (TABLE + b"1,,3,ash\n", ":62: column 'x1' is missing here"),
}


@pytest.mark.parametrize("name", LEARNT)
def test_tables_that_are_not_what_was_learnt_from(name, run, tmp_path):
    content, sentence = LEARNT[name]
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    for command in commands(run, path, tmp_path / "run")[1:]:
        refused(mlp(*command), 3, f"{path}{sentence}")


def test_decimal_commas_in_training(run, tmp_path):
    path = tmp_path / "bad.csv"
    path.write_bytes(LEARNT["decimal commas"][0])
    refused(mlp(*commands(run, path, tmp_path / "run")[0]), 3, "'1,5' looks like a number with a decimal comma")


def test_a_label_that_training_did_not_have(run, tmp_path):
    path = tmp_path / "new.csv"
    path.write_bytes(TABLE + b"1,2,3,oak\n")
    _, predict, evaluate = commands(run, path, tmp_path / "run")
    refused(mlp(*evaluate), 3, f"{path}:62: the label 'oak' in column 'tree' is none of the classes of training")
    assert len(good(*predict).out.splitlines()) == 62  # which need no labels


def test_a_category_that_training_did_not_have(run, tmp_path):
    path = tmp_path / "words.csv"
    path.write_bytes(b"x0,colour,tree\n" + b"1,red,ash\n2,green,oak\n" * 20)
    directory = tmp_path / "run"
    good("train", run[1], f"data.path={path}", "data.split=null", "--out", directory, "--quiet")
    path.write_bytes(b"x0,colour,tree\n1,red,ash\n2,blue,oak\n")
    for command in ("predict", "eval"):
        refused(mlp(command, directory, path), 3, f"{path}:3: column 'colour': 'blue' is in no training row")


# What is written in other ways, and means the same.
EQUAL = {
    "a byte order mark": b"\xef\xbb\xbf" + TABLE,
    "Windows line ends": TABLE.replace(b"\n", b"\r\n"),
    "old Mac line ends": TABLE.replace(b"\n", b"\r"),
    "no line end at the end": TABLE[:-1],
    "quotes": TABLE.replace(b"ash", b'"ash"').replace(b"x0", b'"x0"').replace(b"\n7", b'\n"7"'),
    "spaces": TABLE.replace(b",", b" , "),
    "blank lines": TABLE.replace(b"4,5", b"\n\n4,5"),
    "semicolons": TABLE.replace(b",", b";"),
    "tabs": TABLE.replace(b",", b"\t"),
    "gzip": gzip.compress(TABLE),
    "more columns": TABLE.replace(b"\n", b",9\n").replace(b"tree,9", b'tree,"a ""note"""'),
    "another order of columns": b"tree,x2,x0,x1\n" + b"ash,3,1,2\nbeech,6,4,5\ncedar,9,7,8\n" * 20,
    "line ends within quotes": TABLE.replace(b"\n", b',"two\nlines, and a "" quote"\n').replace(
        b'tree,"two\nlines, and a "" quote"', b"tree,note"
    ),
}


@pytest.mark.parametrize("name", EQUAL)
def test_tables_that_mean_the_same(name, run, tmp_path):
    plain, path = tmp_path / "plain.csv", tmp_path / "other.csv"
    plain.write_bytes(TABLE)
    path.write_bytes(EQUAL[name])
    for command in ("predict", "eval"):
        assert good(command, run[0], path).out.replace("other", "plain") == good(command, run[0], plain).out


def test_a_line_is_named_as_people_count_it(run, tmp_path):
    path = tmp_path / "bad.csv"
    path.write_bytes(b'x0,x1,x2,tree,note\n\n1,2,3,ash,"a\nb\nc"\n\n4,5,six,beech,d\n')
    refused(mlp("predict", run[0], path), 3, f"{path}:7: column 'x2': expected a number; found 'six'")


# Headers that promise more than there is, or than fits


def npy(header: str, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data


def packed(header: str, megabytes: int) -> bytes:
    """A gzip file of a .npy header and so many million zeros, made without unpacking it."""
    return gzip.compress(npy(header)) + gzip.compress(bytes(1_000_000)) * megabytes


def zipped(header: str, megabytes: int) -> bytes:
    """An .npz file whose x is a header and so many million zeros."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive, archive.open("x.npy", "w") as x:
        x.write(npy(header))
        for _ in range(megabytes):
            x.write(bytes(1_000_000))
    return file.getvalue()


MANY = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 3), }\n"
GIGABYTE = "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 1000), }\n"
WIDE = "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 5000000), }\n"
FORGED = {
    "npy": (npy(MANY, bytes(100)), 3, ": the header says 1000000000000 x 3 numbers of float32"),
    "npy, packed": (gzip.compress(npy(MANY, bytes(100))), 3, "12000000000000 bytes; 100 bytes follow"),
    "npy with a large header": (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{", 3, ": the .npy header cannot be read"),
    "npy with an expression": (npy("__import__('os').abort()\n"), 3, ": the .npy header cannot be read"),
    "npy with objects": (npy("{'descr': '|O', 'fortran_order': False, 'shape': (1, 3), }\n", bytes(24)), 3, "objects"),
    "npy with many columns": (npy(WIDE, bytes(5_000_000)), 3, ": has 5000000 columns, more than the 1000000"),
    "IDX": (bytes([0, 0, 8, 3]) + b"\xff" * 12, 3, ": the header says 4294967295 x 4294967295 x 4294967295 numbers"),
    "safetensors": (struct.pack("<Q", 2**40) + b"{}", 3, ": holds a NUL byte"),
    "a bomb of text": (gzip.compress(b"1,2,3,ash\n" * 100_000) * 1000, 5, ": holds more than "),
    "a bomb of numbers": (
        packed(GIGABYTE, 1000),
        5,
        ": 1000000 x 1000 numbers of uint8 take 1.0 GB, too much for the ",
    ),
    "an .npz bomb": (zipped(GIGABYTE, 80), 5, "(x): 1000000 x 1000 numbers of uint8 take 1.0 GB, too much for the "),
}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not enforce the limit")
@pytest.mark.parametrize("name", FORGED)
def test_no_memory_is_taken_on_the_word_of_a_header(name, run, tmp_path):
    content, code, sentence = FORGED[name]
    path = tmp_path / "bad"
    path.write_bytes(content)
    done = measured("predict", run[0], path, limit=LIMIT)
    refused(done, code, sentence)
    assert f"{path}" in done.err
    assert done.peak < LIMIT / 2
    if code == 5:
        assert "data.memory: map" in done.err


def test_forged_headers_in_training_and_evaluation(run, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 100_000_000)
    path = tmp_path / "bad"
    for content, code, sentence in FORGED.values():
        path.write_bytes(content)
        for command in commands(run, path, tmp_path / "run"):
            refused(mlp(*command), code, sentence)


def test_a_forged_checkpoint(run, tmp_path):
    path = tmp_path / "best.safetensors"
    header = b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    done = measured("predict", path, tmp_path / "rows.csv")
    refused(done, 6, f"{path}: not a checkpoint, or a damaged one: its arrays should take 4000000000000 bytes and 0")
    assert done.peak < LIMIT / 2


def test_a_table_that_is_larger_than_memory_is_not_read(run, tmp_path, monkeypatch):
    path = tmp_path / "large.csv"
    with path.open("wb") as file:
        file.truncate(10_000_000)  # zeros: to read them would be another error
        file.seek(0)
        file.write(TABLE * 10)
    monkeypatch.setattr(memory, "available", lambda: 1_000_000)
    for command in commands(run, path, tmp_path / "run"):
        refused(mlp(*command), 5, f"{path}: to read its 10.0 MB takes 20.0 MB of memory, and 1.0 MB are available; use")


def test_cells_and_inputs_are_counted_before_memory_is_taken(run, tmp_path, monkeypatch):
    path = tmp_path / "cells.csv"
    path.write_bytes(HEADER + b"1,2,3,ash\n" * 1000 + ROWS)
    monkeypatch.setattr(memory, "SMALL", 0)
    monkeypatch.setattr(memory, "available", lambda: 50_000)
    for command in commands(run, path, tmp_path / "run"):
        refused(mlp(*command), 5, f"{path}: its 4,244 cells need 165.3 kB of memory, and 50.0 kB are available; use")
    path.write_bytes(b"word,tree\n" + b"".join(b"w%d,%s\n" % (i % 900, (b"ash", b"oak")[i % 2]) for i in range(1800)))
    # split, so that only the words of the training rows are inputs
    monkeypatch.setattr(memory, "available", lambda: 1_000_000)
    train = mlp(*commands(run, path, tmp_path / "run")[0])
    refused(train, 5, "rows of 757 inputs need 1.1 MB of memory, and 1.0 MB are available; exclude columns")


# Things that are no files


def test_directories_devices_and_loops(run, tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path, sentence in (
        (tmp_path, "is a directory; expected a file"),
        (loop, "cannot be read: Too many levels of symbolic links"),
        ("/dev/zero", "/dev/zero: is a device; expected a file"),
        ("/dev/full", "/dev/full: is a device; expected a file"),
        ("/dev/null", "/dev/null: is a device; expected a file"),
    ):
        for command in commands(run, path, tmp_path / "run"):
            refused(mlp(*command), 3, sentence)
        refused(mlp("predict", path, tmp_path / "rows.csv"), 6, f"{path}: ")


def test_output_to_devices_and_loops(run, tmp_path):
    rows, loop = tmp_path / "rows.csv", tmp_path / "loop"
    rows.write_bytes(TABLE)
    loop.symlink_to(loop)
    refused(mlp("predict", run[0], rows, "-o", "/dev/full"), 5, "/dev/full: cannot write to it: no space left")
    refused(mlp("predict", run[0], rows, "-o", loop), 5, f"{loop}: cannot write to it: too many levels of symbolic")
    good("predict", run[0], rows, "-o", "/dev/null")
    assert loop.is_symlink()
    assert os.path.exists("/dev/null")
    refused(mlp("train", run[1], "--out", loop), 2, f"{loop}: expected a directory for the run")
    refused(mlp("train", run[1], "--out", "/dev/null"), 2, "/dev/null: expected a directory for the run")


@contextlib.contextmanager
def pipe(path, content):
    """A named pipe into which a thread writes."""
    os.mkfifo(path)

    def write():
        with contextlib.suppress(BrokenPipeError):
            path.write_bytes(content)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    yield path
    thread.join(60)
    assert not thread.is_alive()


def test_predict_and_eval_read_pipes(run, tmp_path):
    rows = tmp_path / "rows.csv"
    file, pair = io.BytesIO(), tmp_path / "pair.npz"
    numbers = np.arange(180, dtype=np.float64).reshape(60, 3)
    np.savez(file, x=numbers, y=np.array(["ash", "beech", "cedar"] * 20))
    pair.write_bytes(file.getvalue())
    rows.write_bytes(TABLE)
    for number, (plain, content) in enumerate(
        ((rows, TABLE), (rows, gzip.compress(TABLE)), (pair, file.getvalue()), (pair, gzip.compress(file.getvalue())))
    ):
        for command, *options in (["predict"], ["eval", "--json"]):
            with pipe(tmp_path / f"{command}-{number}", content) as path:
                done = good(command, run[0], path, *options)
            assert done.out == good(command, run[0], plain, *options).out


def test_training_refuses_pipes(run, tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)  # that nobody writes into: to open it would be to wait for ever
    advice = f"{path}: is a pipe, which can be read only once, and the training data are read again by --resume and "
    for arguments in (
        ["train", run[1], f"data.path={path}"],
        ["train", run[1], "data.split=null", f"data.validation={path}"],
        ["train", run[1], "data.path=null", f"data.train={{x: {path}, y: {path}}}"],
        ["check", run[1], f"data.path={path}"],
    ):
        refused(mlp(*arguments), 3, advice + "mlp eval; write them to a file first")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not enforce the limit")
def test_a_stream_without_end(run):
    with open("/dev/zero", "rb") as zeros:
        refused(measured("predict", run[0], "-", stdin=zeros), 3, "<stdin>:1: holds a NUL byte")
    with subprocess.Popen(["yes", "1,2,3,ash"], stdout=subprocess.PIPE) as endless:
        done = measured("predict", run[0], "-", stdin=endless.stdout, limit=LIMIT)
        endless.kill()
    refused(done, 5, "<stdin>: holds more than ")
    assert done.peak < LIMIT


def test_one_pipe_after_another(run, tmp_path):
    """A shell's <(...), read while its writer still writes."""
    rows = tmp_path / "rows.csv"
    rows.write_bytes(TABLE)
    script = f"'{sys.executable}' -m mlp_cli predict '{run[0]}' <(head -2 '{rows}'; sleep 0.2; tail -2 '{rows}')"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=300, check=True)
    assert len(done.stdout.splitlines()) == 4
