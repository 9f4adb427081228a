"""What messages quote is of bounded length, whatever it is."""

import numpy as np
import pytest
from cli import mlp

from mlp_cli import wording

LONG = "x" * 100_000


def test_each_part_is_bounded():
    for made in (wording.quoted, wording.plain, wording.cut):
        assert len(made(LONG)) <= 61  # with the closing quote
        assert made("as it is").strip("'") == "as it is"
    assert wording.quoted("\x00" * 1_000_000).endswith("...'")
    assert wording.listed(range(5000)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 4988 more"
    assert len(wording.listed([LONG] * 5000)) < 1000
    assert (wording.sizes((3, 28)), wording.sizes(())) == ("3 x 28", "1")
    assert wording.sizes((1,) * 3000).endswith("1 x ... (3000 dimensions)")


def test_the_remedy_stays_where_a_line_is_cut():
    message = wording.bounded(f"one line\n{LONG}; do this")
    assert message.startswith("one line\nxxx")
    assert message.endswith("x; do this")
    assert max(map(len, message.split("\n"))) == wording.LONGEST_LINE
    assert wording.bounded("short\nlines") == "short\nlines"


def npy(shape, data=b""):
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (63 - (10 + len(header)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


@pytest.mark.parametrize(
    "case", ["shape", "column names", "a column name", "a class", "targets", "a key", "a word", "an argument", "a path"]
)
def test_no_message_is_longer_than_its_cause_deserves(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [f"column_{number}_{'x' * 40}" for number in range(3000)]
    body = {"path": "rows.csv"}
    layer, overrides = "{activation: linear}", []
    (tmp_path / "rows.csv").write_text("a,b\n" + "1,2\n" * 9)
    if case == "shape":
        body["path"] = "rows.npy"
        (tmp_path / "rows.npy").write_bytes(npy((1,) * 3000, bytes(48)))
    elif case == "column names":
        (tmp_path / "rows.csv").write_text(",".join(names) + "\n" + ",".join("1" * 3000) + "\n")
        body["target"] = "missing"
    elif case == "a column name":
        (tmp_path / "rows.csv").write_text(f"{LONG},b\n1,2\n,2\n")
    elif case == "a class":
        (tmp_path / "rows.csv").write_text("a,b\n" + "".join(f"{i},{LONG[:50]}{i}\n" for i in range(900)))
        layer = "{units: 7, activation: softmax}"
    elif case == "targets":
        np.savetxt("rows.csv", np.zeros((3, 3000)), "%g", ",", header=",".join(names), comments="")
        body["target"] = names[:2000]
        layer = "{units: 7, activation: linear}"
    elif case == "a key":
        overrides = [f"data.{LONG}=1"]
    elif case == "a word":
        overrides = [f"optimizer={LONG}"]
    elif case == "an argument":
        overrides = [f"data.path={LONG[:200]}\n{LONG}"]
    else:
        body["path"] = "/".join(["x" * 200] * 15)
    lines = [f"  {key}: {value}" for key, value in body.items()]
    (tmp_path / "c.yaml").write_text("\n".join(["data:", *lines, "network:", f"  layers: [{layer}]"]))
    done = mlp("check", "c.yaml", *overrides)
    assert done.code in (2, 3), done
    longest = 4000 if case == "a path" else 2001
    assert all(len(line) < longest for line in done.err.splitlines())
    assert len(done.err) < 2 * longest
