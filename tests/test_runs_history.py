"""The history: one line an epoch, cut back on resume, torn lines forgotten."""

import errno
import json
import os
import tracemalloc

import numpy as np
import pytest
from faults import Failer

from mlp_cli.errors import CheckpointError, SystemFault
from mlp_cli.runs import files
from mlp_cli.runs import history as module
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
    with pytest.raises(CheckpointError, match="cannot read it: it is a directory, and a plain file is expected"):
        history.read()


def failing(monkeypatch, n, length=1):
    """The n-th call from now on fails, and those after it up to `length`."""
    monkeypatch.setattr(files, "_call", Failer(n, errno.ENOSPC, length))


def test_a_line_that_cannot_be_written_is_written_with_the_next(history, monkeypatch):
    with monkeypatch.context() as patch:
        failing(patch, 1, 99)
        for epoch in (4, 5):
            with pytest.raises(SystemFault, match=r"metrics.jsonl: cannot add to it \(\d+ bytes needed\): no space"):
                history.append(record(epoch))
    assert history.read() == [record(1), record(2), record(3)]
    history.append(record(6))
    assert history.read() == [record(epoch) for epoch in range(1, 7)]


def test_a_line_that_cannot_be_written_is_written_by_sync(history, monkeypatch):
    with monkeypatch.context() as patch:
        failing(patch, 2)
        with pytest.raises(SystemFault, match="no space left"):
            history.append(record(4))
    history.sync()
    assert history.read() == [record(epoch) for epoch in range(1, 5)]


def test_after_a_failed_sync_all_since_the_last_one_is_written_again(history, monkeypatch):
    """The system may drop what it failed to write, call it clean, and sync the gap without complaint."""
    safe = history.path.read_bytes()
    history.append(record(4))
    written = []

    def call(operation, *arguments):
        if operation is os.fsync and not written:
            history.path.write_bytes(safe)
            written.append(b"")
            raise OSError(errno.EIO, "Input/output error")
        if operation is os.write:
            written.append(bytes(arguments[1]))
        return operation(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(files, "_call", call)
        with pytest.raises(SystemFault, match="cannot sync it: input/output error"):
            history.sync()
        assert history.read() == [record(1), record(2), record(3)]
        history.append(record(5))
    assert history.read() == [record(epoch) for epoch in range(1, 6)]
    assert written == [b"", history.path.read_bytes()[len(safe) :]]


def test_lines_that_cannot_be_cut_off_are_cut_off_by_the_next(history, monkeypatch):
    for then in (lambda: history.append(record(2)), history.sync):
        with monkeypatch.context() as patch:
            failing(patch, 1, 99)
            with pytest.raises(SystemFault, match="cannot shorten it"):
                history.truncate_after(1)
        assert len(history.read()) > 1
        then()
        assert history.read() == [record(1), record(2)][: len(history.read())]
    assert history.read() == [record(1)]


def test_lines_in_memory_are_cut_off_too(history, monkeypatch):
    history.append(record(4))
    with monkeypatch.context() as patch:
        failing(patch, 1, 99)
        with pytest.raises(SystemFault):
            history.append(record(5))
        with pytest.raises(SystemFault):
            history.append(record(6))
        with pytest.raises(SystemFault):
            history.truncate_after(5)
    assert history.truncate_after(5) == 5
    history.append(record(6) | {"new": True})
    history.sync()
    assert history.read() == [*(record(epoch) for epoch in range(1, 6)), record(6) | {"new": True}]


def test_what_is_kept_in_memory_is_bounded(history, monkeypatch):
    synced = []
    monkeypatch.setattr(module, "MOST_UNSYNCED", 300)
    monkeypatch.setattr(files, "sync", synced.append)
    for epoch in range(4, 40):
        history.append(record(epoch))
    assert 3 < len(synced) < 20
    assert history.read() == [record(epoch) for epoch in range(1, 40)]


def test_a_file_that_somebody_else_cut_or_deleted_goes_on(history):
    history.path.unlink()
    history.append(record(4))
    history.append(record(5))
    assert history.read() == [record(4), record(5)]


def test_a_line_longer_than_any_record_is_damaged_and_never_in_memory(history, monkeypatch):
    monkeypatch.setattr(module, "LONGEST_LINE", 1000)
    whole = history.path.read_bytes()
    for noise in (b"x" * 5000, b"x" * 200_000 + b"\n", b'{"epoch": 4, "x": "' + b"x" * 1000 + b'"}\n'):
        history.path.write_bytes(whole + noise)
        assert history.truncate_after(9) == 3
        assert history.path.read_bytes() == whole
    history.path.write_bytes(b"x" * 200_000 + b"\n" + whole)
    with pytest.raises(CheckpointError, match=r"metrics.jsonl:1: expected the JSON record of an epoch; got b'xxx"):
        history.read()


def test_a_file_larger_than_memory_is_read_in_pieces(history):
    """A line that is a hole of 256 MiB: no more is kept of it than the longest line may have."""
    whole = history.path.read_bytes()
    os.truncate(history.path, len(whole) + (1 << 28))
    tracemalloc.start()
    try:
        assert History(history.path).truncate_after(9) == 3
        assert tracemalloc.get_traced_memory()[1] < 40e6
    finally:
        tracemalloc.stop()
    assert history.path.read_bytes() == whole


@pytest.mark.parametrize("ending", [b"\r\n", b"\n"])
def test_lines_end_where_they_always_did(tmp_path, ending):
    path = tmp_path / "metrics.jsonl"
    lines = [b'{"epoch": %d}' % epoch for epoch in range(1, 20_000)]
    path.write_bytes(ending.join(lines) + ending)
    history = History(path)
    assert [record["epoch"] for record in history.read()] == list(range(1, 20_000))
    assert history.truncate_after(12_345) == 12_345
    assert path.read_bytes() == ending.join(lines[:12_345]) + ending


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_no_other_file_is_written_to_through_a_link(history, tmp_path, link):
    victim = tmp_path / "victim"
    os.replace(history.path, victim)
    link(victim, history.path)
    before = victim.read_bytes()
    again = History(history.path)
    for write in (
        lambda: history.append(record(4)),
        lambda: history.truncate_after(1),
        lambda: again.append(record(4)),
    ):
        with pytest.raises((SystemFault, CheckpointError), match=r"symbolic link|hard links"):
            write()
        assert victim.read_bytes() == before
