"""The history: one line an epoch, cut back on resume, torn lines forgotten."""

import json

import numpy as np
import pytest

from mlp_cli.errors import CheckpointError
from mlp_cli.runs.history import History


def record(epoch):
    return {"epoch": epoch, "step": 10 * epoch, "train": {"loss": 1 / (3 * epoch)}}


@pytest.fixture
def history(tmp_path):
    history = History(tmp_path / "metrics.jsonl")
    for epoch in (1, 2, 3):
        history.append(record(epoch))
    history.sync()
    return history


def test_a_line_an_epoch(history):
    assert history.path.read_text().splitlines()[0] == '{"epoch": 1, "step": 10, "train": {"loss": 0.3333333333333333}}'
    assert history.read() == [record(1), record(2), record(3)]


def test_no_file_yet(tmp_path):
    history = History(tmp_path / "metrics.jsonl")
    history.sync()
    assert history.read() == []
    assert history.truncate_after(5) == 0
    assert not history.path.exists()


def test_what_json_cannot_say_becomes_null(tmp_path):
    history = History(tmp_path / "metrics.jsonl")
    history.append(
        {
            "epoch": np.int64(1),
            "z": float("nan"),
            "a": [np.float32(0.5), -np.inf],
            "größe\udc80": np.arange(2),
            3: (True,),
        }
    )
    line = history.path.read_text(encoding="utf-8")
    assert line == '{"epoch": 1, "z": null, "a": [0.5, null], "größe\\udc80": [0, 1], "3": [true]}\n'
    assert history.read() == [json.loads(line)]


@pytest.mark.parametrize("epoch", range(5))
def test_truncate_after_an_epoch(history, epoch):
    kept = min(epoch, 3)
    assert history.truncate_after(epoch) == kept
    assert history.read() == [record(1), record(2), record(3)][:kept]
    history.append(record(kept + 1))
    assert history.read()[-1] == record(kept + 1)


def test_a_torn_last_line_is_repaired_wherever_it_is_torn(history):
    whole = history.path.read_bytes()
    second = whole.index(b"\n", whole.index(b"\n") + 1) + 1
    for length in range(second, len(whole)):
        history.path.write_bytes(whole[:length])
        assert history.read() == [record(1), record(2)]
        assert history.truncate_after(3) == 2
        assert history.path.read_bytes() == whole[:second]


def test_zeros_and_noise_after_a_power_cut_are_dropped(history):
    whole = history.path.read_bytes()
    history.path.write_bytes(whole + b"\0" * 50 + b"\n\xff\xfe\n[1]\n" + b"[" * 100_000)
    assert history.truncate_after(9) == 3
    assert history.path.read_bytes() == whole


def test_a_damaged_line_in_the_middle_is_named(history):
    lines = history.path.read_text().splitlines(keepends=True)
    history.path.write_text(lines[0] + "what?\n" + lines[2])
    with pytest.raises(CheckpointError, match=r"metrics.jsonl:2: expected the JSON record of an epoch; got b'what"):
        history.read()
    assert history.truncate_after(3) == 2
    assert len(history.path.read_text().splitlines()) == 3
    history.path.unlink()
    history.path.mkdir()
    with pytest.raises(CheckpointError, match="cannot read it: is a directory"):
        history.read()
