"""Data that stay in their files: the same bits as in memory, bounded memory, a sentence for what cannot be mapped."""

import gzip
import os
import signal
import struct
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
from cli import checkpoints, epochs, good, mlp, result, signal_at, summary, timeless, write_config

from benchmarks.memory import MAPPED_BYTES, MAPPED_ROW_BYTES, sparse_inputs, watch
from mlp_cli.data import arrayfile
from mlp_cli.network.machine import Machine

SCALERS = {
    "none": "none",
    "standard": "standard",
    "minmax": "minmax",
    "robust": "robust",
    "divide": {"name": "divide", "by": 255},
}
TYPES = ("float32", "float64", "uint8", "int16", "uint32", "int64", "bool")
IDX_BYTES = 0x08


def arrays(element="float32", rows=90, width=11, classes=3, seed=0):
    """(x, y): classes that the columns tell apart, one column that says nothing."""
    random = np.random.default_rng(seed)
    y = (np.arange(rows) % classes).astype(np.uint8)
    x = random.normal(size=(rows, width)) * 20 + 40 * y[:, None] + 60
    x[:, 3] = 5
    if element == "bool":
        return x > 100, y
    if np.dtype(element).kind != "f":
        x = np.clip(np.rint(x), 0, 255)
    return x.astype(element), y


def save(folder, x, y, name=""):
    """The pair as the config names it."""
    paths = {part: str(folder / f"{name}{part}.npy") for part in "xy"}
    np.save(paths["x"], x)
    np.save(paths["y"], y)
    return paths


def config_for(folder, source, **sections):
    """A small classifier with a validation and a test split; `data` extends its own."""
    data = {"train": source, "split": {"validation": 0.2, "test": 0.2}} | sections.pop("data", {})
    return write_config(
        folder / "c.yaml",
        **{
            "seed": 5,
            "data": data,
            "network": {"layers": [{"units": 12, "activation": "relu", "dropout": 0.2}, {"activation": "softmax"}]},
            "training": {"epochs": 3, "batch_size": 8},
        }
        | sections,
    )


def both(folder, config, *overrides):
    """Train in memory and mapped; the run that was mapped."""
    for memory, threads in (("load", 1), ("map", 1), ("map", 3)):
        out = folder / f"{memory}-{threads}"
        good("train", config, f"data.memory={memory}", *overrides, "--out", out, "--threads", threads, "--force")
        assert result(out) == result(folder / "load-1"), (memory, threads)
    return out


# --- the same bits ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("numeric", SCALERS)
@pytest.mark.parametrize("element", TYPES)
def test_every_type_and_scale(tmp_path, element, numeric):
    config = config_for(tmp_path, save(tmp_path, *arrays(element)), data={"numeric": SCALERS[numeric]})
    run = both(tmp_path, config)
    assert set(summary(run)["metrics"]) == {"train", "validation", "test"}


@pytest.mark.parametrize(
    "sections",
    [
        {"dtype": "float64"},
        {"training": {"epochs": 2, "batch_size": 7, "sampling": {"name": "shuffle", "block_rows": 10}}},
        {"training": {"epochs": 2, "batch_size": 1, "sampling": "sequential"}},
        {"training": {"epochs": 2, "batch_size": "full", "sampling": "with_replacement"}},
        {"data": {"split": None}},
        {"data": {"features": [3, 4, 5, 6]}},
        {"data": {"exclude": [0, 10]}},
        {"loss": {"name": "cross_entropy", "class_weights": "balanced"}},
    ],
    ids=str,
)
def test_every_way_to_meet_the_rows(tmp_path, sections):
    both(tmp_path, config_for(tmp_path, save(tmp_path, *arrays()), **sections))


def test_a_wide_net_that_threads_share(tmp_path):
    layers = [{"units": 300, "activation": "relu"}, {"units": 300}, {"activation": "softmax"}]
    sections = {"network": {"layers": layers}, "training": {"epochs": 1, "batch_size": "full"}}
    run = both(tmp_path, config_for(tmp_path, save(tmp_path, *arrays("uint8", rows=700)), **sections))
    assert summary(run)["threads"] > 1


def test_files_for_each_part(tmp_path):
    train = save(tmp_path, *arrays(), "train-")
    other = save(tmp_path, *arrays(rows=30, seed=1), "other-")
    both(tmp_path, config_for(tmp_path, train, data={"split": None, "validation": other, "test": other}))


def test_a_table_whose_last_column_is_the_target(tmp_path):
    x, y = arrays("float64")
    np.save(tmp_path / "table.npy", np.column_stack([x, y]))
    both(tmp_path, config_for(tmp_path, None, data={"train": None, "path": str(tmp_path / "table.npy")}))


def test_a_regression_with_weights(tmp_path):
    x, y = arrays("float64")
    np.save(tmp_path / "table.npy", np.column_stack([x, 0.5 + y, x[:, 0] * 3 + x[:, 1]]))
    section = {"train": None, "path": str(tmp_path / "table.npy"), "sample_weight": 11, "target_scaling": "standard"}
    both(tmp_path, config_for(tmp_path, None, data=section, network={"layers": [{"units": 5}, {}]}))


def idx(path, array):
    header = bytes([0, 0, IDX_BYTES, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(header + array.tobytes())
    return str(path)


def test_images_in_idx_files(tmp_path):
    x, y = arrays("uint8", width=12)
    source = {"x": idx(tmp_path / "x", x.reshape(90, 4, 3)), "y": idx(tmp_path / "y", y)}
    run = both(tmp_path, config_for(tmp_path, source, data={"numeric": SCALERS["divide"]}))
    plain = save(tmp_path, x, y)
    good("train", config_for(tmp_path, plain, data={"numeric": SCALERS["divide"]}), "--out", tmp_path / "npy")
    assert timeless(epochs(run)) == timeless(epochs(tmp_path / "npy"))


def test_a_mapped_file_and_the_same_numbers_as_text(tmp_path):
    x, y = arrays("float64")
    lines = [",".join([*map(repr, row), str(label)]) for row, label in zip(x.tolist(), y, strict=True)]
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    section = {"train": None, "path": str(tmp_path / "table.csv"), "header": False}
    good("train", config_for(tmp_path, None, data=section), "--out", tmp_path / "csv")
    mapped = config_for(tmp_path, save(tmp_path, x, y), data={"memory": "map"})
    good("train", mapped, "--out", tmp_path / "map")
    assert timeless(epochs(tmp_path / "csv")) == timeless(epochs(tmp_path / "map"))


# --- the other commands -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", ["load", "map"])
def test_a_run_goes_on_in_memory_or_mapped(tmp_path, memory):
    config = config_for(tmp_path, save(tmp_path, *arrays()))
    good("train", config, "--out", tmp_path / "whole")
    out = tmp_path / "run"
    stopped = mlp("train", config, f"data.memory={memory}", "--out", out, when=signal_at("epoch 2"))
    assert stopped.code == 130, stopped.err
    other = {"load": "map", "map": "load"}[memory]
    good("train", config, f"data.memory={other}", "--out", out, "--resume")
    assert result(out) == result(tmp_path / "whole")


def test_eval_and_predict_repeat_what_they_say_of_data_in_memory(tmp_path):
    x, y = arrays("float32")
    source = save(tmp_path, x, y)
    run = both(tmp_path, config_for(tmp_path, source))
    for split, metrics in summary(run)["metrics"].items():
        for threads in (1, 3):
            done = good("eval", run, "--split", split, "--json", "--threads", threads)
            assert done.json["metrics"] == metrics
    for place in ("x", "y"):
        with open(source[place], "rb") as plain, gzip.open(tmp_path / f"{place}.npy.gz", "wb") as packed:
            packed.write(plain.read())
    mapped, loaded = ([str(tmp_path / f"{place}.npy{end}") for place in "xy"] for end in ("", ".gz"))
    assert good("eval", run, *mapped, "--json").json == good("eval", run, *loaded, "--json").json
    assert good("predict", run, mapped[0], "--keep", "3").out == good("predict", run, loaded[0], "--keep", "3").out


def test_check_and_inspect_take_mapped_data(tmp_path):
    config = config_for(tmp_path, save(tmp_path, *arrays("uint8")), data={"memory": "map"})
    assert "agree with central differences" in good("check", config).out
    assert good("inspect", config, "--json").json["rows"] == {"train": 54, "validation": 18, "test": 18}


def test_what_a_run_keeps(tmp_path):
    """The config file says that the data were mapped; no checkpoint does."""
    config = config_for(tmp_path, save(tmp_path, *arrays()), data={"memory": "map"})
    good("train", config, "--out", tmp_path / "run")
    assert "memory: map" in (tmp_path / "run" / "config.yaml").read_text()
    assert all(b'"memory"' not in content for content in checkpoints(tmp_path / "run").values())


# --- what cannot be mapped ----------------------------------------------------------------------------------------


def refused(folder, source, *overrides, code=2, **sections):
    section = {"memory": "map"} | sections.pop("data", {})
    done = mlp("train", config_for(folder, source, data=section, **sections), *overrides, "--out", folder / "run")
    assert done.code == code, done.err
    assert "Traceback" not in done.err
    assert not (folder / "run").exists()
    return done.err.strip()


def test_kinds_of_files_that_cannot_be_mapped(tmp_path):
    x, y = arrays()
    source = save(tmp_path, x, y)
    packed = tmp_path / "x.npy.gz"
    packed.write_bytes(gzip.compress((tmp_path / "x.npy").read_bytes()))
    message = refused(tmp_path, source | {"x": str(packed)})
    assert "data.memory: " in message
    assert "x.npy.gz: is compressed or a stream, which cannot be mapped; save it as a plain .npy file" in message
    assert "set data.memory: load" in message
    np.savez(tmp_path / "both.npz", x=x, y=y)
    assert "is an archive of arrays" in refused(tmp_path, str(tmp_path / "both.npz"))
    (tmp_path / "table.csv").write_text("a,b\n1,2\n3,4\n")
    assert "is a table of text" in refused(tmp_path, str(tmp_path / "table.csv"))


def test_kinds_of_numbers_that_cannot_be_mapped(tmp_path):
    x, y = arrays()

    def message(x, **data):
        return refused(tmp_path, save(tmp_path, x, y), data=data)

    assert "is in Fortran's order" in message(np.asfortranarray(x))
    assert "in another byte order" in message(x.astype(">f4"))
    assert "holds float16 numbers" in message(x.astype("f2"))
    assert "has columns left out between those to learn from" in message(x, exclude=[4])
    assert "column '2' is categorical" in message(np.rint(x / 40), columns={"2": "categorical"})
    assert "quantile needs the data in memory" in message(x, numeric="quantile")
    assert "mean needs the data in memory" in message(x, missing="mean")


def test_numbers_that_are_refused_in_memory_are_refused_in_a_file(tmp_path):
    for value, words in ((np.nan, "is missing here"), (np.inf, "expected a finite number")):
        x, y = arrays()
        x[17, 2] = value
        message = refused(tmp_path, save(tmp_path, x, y), code=3)
        assert "x.npy[17]: column '2'" in message
        assert words in message
    x, y = arrays("uint8")
    scale = {"name": "divide", "by": 1e-40}
    assert "found once scaled, " in refused(tmp_path, save(tmp_path, x, y), code=3, data={"numeric": scale})
    assert "found once scaled, " in refused(
        tmp_path, save(tmp_path, x, y), code=3, data={"numeric": scale, "memory": "load"}
    )


# --- files that change --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["shrink", "write"])
def test_a_file_that_changes_ends_the_run_and_keeps_the_checkpoint(tmp_path, change):
    source = save(tmp_path, *arrays())
    content = (tmp_path / "x.npy").read_bytes()
    sections = {"data": {"memory": "map"}, "training": {"epochs": 5, "checkpoint": {"every_epochs": 1}}}
    config = config_for(tmp_path, source, **sections)

    def spoil(text):
        if text.startswith("epoch 2"):
            if change == "shrink":
                os.truncate(source["x"], 1000)
            else:
                (tmp_path / "x.npy").write_bytes(content)

    done = mlp("train", config, "--out", tmp_path / "run", when=spoil)
    assert done.code == 3
    said = f"has shrunk from {len(content)} to 1000 bytes" if change == "shrink" else "was written to"
    assert f"x.npy: {said} while it was mapped into memory; restore it" in done.err
    assert len(epochs(tmp_path / "run")) == 2
    (tmp_path / "x.npy").write_bytes(content)
    good("train", config, "--out", tmp_path / "run", "--resume")
    good("train", config, "--out", tmp_path / "whole")
    assert result(tmp_path / "run") == result(tmp_path / "whole")


# The file is cut off when it has just been looked at, and the kernels meet pages that are not there.
CUT_OFF = """
import os, sys
from mlp_cli.__main__ import run
from mlp_cli.data.arrayfile import ArrayFile
check, looks = ArrayFile.check, []
def look(self):
    check(self)
    looks.append(self)
    if len(looks) == int(sys.argv[1]):
        os.truncate(sys.argv[2], 0)
ArrayFile.check = look
run(sys.argv[3:])
"""


def cut_off(nth, path, *arguments):
    """`mlp arguments...` in a process of its own, in which the file is emptied after it was looked at n times."""
    command = [sys.executable, "-c", CUT_OFF, str(nth), str(path), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.skipif(not hasattr(signal, "SIGBUS"), reason="a system without this signal")
@pytest.mark.parametrize("threads", [1, 3])
def test_pages_that_are_gone_end_a_run_in_a_sentence(tmp_path, threads):
    source = save(tmp_path, *arrays(rows=4000))
    content = (tmp_path / "x.npy").read_bytes()
    sections = {"data": {"memory": "map"}, "training": {"epochs": 3, "checkpoint": {"every_epochs": 1}}}
    config = config_for(tmp_path, source, **sections)
    out = tmp_path / "run"
    done = cut_off(6, source["x"], "train", config, "--out", out, "--quiet", "--threads", threads)
    assert (done.returncode, done.stdout) == (3, ""), done
    said = f"x.npy: has shrunk from {len(content)} to 0 bytes while it was mapped into memory; restore it"
    assert said in done.stderr
    assert len([line for line in done.stderr.splitlines() if not line.startswith("Warning: ")]) == 1
    assert checkpoints(out)
    (tmp_path / "x.npy").write_bytes(content)
    good("train", config, "--out", out, "--resume")
    good("train", config, "--out", tmp_path / "whole")
    assert result(out) == result(tmp_path / "whole")


@pytest.mark.skipif(not hasattr(signal, "SIGBUS"), reason="a system without this signal")
def test_pages_that_are_gone_end_an_evaluation_in_a_sentence(tmp_path):
    source = save(tmp_path, *arrays(rows=4000))
    config = config_for(tmp_path, source, data={"memory": "map"}, training={"epochs": 1})
    good("train", config, "--out", tmp_path / "run", "--quiet")
    content = (tmp_path / "x.npy").read_bytes()
    done = cut_off(2, source["x"], "eval", tmp_path / "run", "--quiet")
    assert (done.returncode, done.stdout) == (3, ""), done
    assert f"x.npy: has shrunk from {len(content)} to 0 bytes" in done.stderr


def test_a_disk_that_fails_beneath_a_map(tmp_path, monkeypatch):
    monkeypatch.setattr(arrayfile, "_mapped", weakref.WeakSet())
    save(tmp_path, *arrays())
    with (tmp_path / "x.npy").open("rb") as file:
        offset = os.fstat(file.fileno()).st_size - 90 * 11 * 4
        mapped = arrayfile.ArrayFile(file.fileno(), "x.npy", offset, (90, 11), np.dtype(np.float32))
    mapped.mapped()
    assert str(arrayfile.map_error()) == "x.npy: is mapped into memory and cannot be read there; is its disk in order?"


def test_rows_that_were_lost_while_they_were_met_reach_no_checkpoint(tmp_path, monkeypatch):
    """Within its last page a file that shrinks reads as zeros, and nobody is told: so it is looked at afterwards."""
    source = save(tmp_path, *arrays())
    sections = {"data": {"memory": "map"}, "training": {"epochs": 5, "checkpoint": {"every_epochs": 1}}}
    config = config_for(tmp_path, source, **sections)
    train, calls = Machine.train, []

    def shrinking(self, *arguments, **options):
        calls.append(self)
        if len(calls) == 3:
            stamp = os.stat(source["x"])
            run = self._run

            def shrink(*arguments, **options):
                os.truncate(source["x"], stamp.st_size - 40)
                run(*arguments, **options)

            self._run = shrink
        return train(self, *arguments, **options)

    content = (tmp_path / "x.npy").read_bytes()
    monkeypatch.setattr(Machine, "train", shrinking)
    done = mlp("train", config, "--out", tmp_path / "run")
    assert done.code == 3
    assert "x.npy: has shrunk" in done.err
    monkeypatch.undo()
    (tmp_path / "x.npy").write_bytes(content)
    good("train", config, "--out", tmp_path / "run", "--resume")
    good("train", config, "--out", tmp_path / "whole")
    assert result(tmp_path / "run") == result(tmp_path / "whole")


# --- memory -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc to look into")
@pytest.mark.parametrize("element", ["float32", "float64", "uint8"])
def test_a_mapped_run_takes_memory_for_its_rows_and_none_for_their_inputs(tmp_path, element):
    rows, allowed = 20_000, MAPPED_BYTES + 20_000 * MAPPED_ROW_BYTES
    inputs = 2 * allowed // (rows * np.dtype(element).itemsize)
    sparse_inputs(tmp_path / "x.npy", rows, inputs, element)
    np.save(tmp_path / "y.npy", (np.arange(rows) % 2).astype(np.uint8))
    source = {part: str(tmp_path / f"{part}.npy") for part in "xy"}
    training = {"epochs": 1, "batch_size": 100}
    config = config_for(tmp_path, source, data={"memory": "map"}, training=training)
    command = [sys.executable, "-m", "mlp_cli", "train", str(config), "--out", str(tmp_path / "run")]
    seen, _ = watch(command)
    assert seen["own"] < allowed
