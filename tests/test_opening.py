"""Nothing that is named as a file makes a command wait for ever, and no advice leads nowhere."""

import codecs
import csv
import errno
import fcntl
import io
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from cli import finish, good, mlp, start

from mlp_cli.data.table import _count_cells
from mlp_cli.data.text import Lines
from mlp_cli.errors import shortage
from mlp_cli.opening import NotAFile, open_file, regular

CONFIG = "data: {{path: {path}}}\nnetwork: {{layers: [{{activation: linear}}]}}\n"
SYSTEM_FILES = ("/proc/kmsg", "/proc/kcore", "/proc/version", "/sys/kernel/uevent_seqnum")


def test_plain_files_and_nothing_else(tmp_path):
    (tmp_path / "plain").write_bytes(b"abc")
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    with open_file(tmp_path / "plain") as file:
        assert file.read() == b"abc"
    with open_file(tmp_path / "empty", pipes=True) as file:
        assert file.read() == b""
    for path, what in ((tmp_path, "a directory"), (tmp_path / "pipe", "a named pipe"), ("/dev/zero", "a device")):
        with pytest.raises(NotAFile) as caught:
            open_file(path)
        assert caught.value.found == what


@pytest.mark.parametrize("path", SYSTEM_FILES)
def test_files_of_the_system_are_refused_before_they_can_block(path, tmp_path):
    if not os.access(path, os.R_OK) or not os.path.isfile(path):
        pytest.skip("is not there, or needs root")
    with pytest.raises(NotAFile, match="a file of the system"):
        open_file(path)
    (tmp_path / "c.yaml").write_text(CONFIG.format(path=path))
    pair = CONFIG.format(path="rows.csv").replace("path: rows.csv", f"train: {{x: {path}, y: {path}}}")
    (tmp_path / "pair.yaml").write_text(pair)
    (tmp_path / "rows.csv").write_text("a,y\n1,2\n2,3\n")
    (tmp_path / "good.yaml").write_text(CONFIG.format(path="rows.csv"))
    for command, code in (
        (("check", tmp_path / "c.yaml"), 3),
        (("check", tmp_path / "pair.yaml"), 3),
        (("train", path), 2),
        (("inspect", path), 6),
        (("check", tmp_path / "good.yaml", f"network.initial={path}"), 6),
    ):
        done = finish(start(*command), timeout=30)
        assert done.code == code, (command, done.err)
        assert "a file of the system" in done.err


def test_a_file_that_is_written_to_while_it_is_opened(tmp_path, monkeypatch):
    """As a new lock is, whose holder's name comes a moment after it."""
    path, pread = tmp_path / "lock", os.pread
    path.touch()

    def late(descriptor, *arguments):
        path.write_text("somebody")
        return pread(descriptor, *arguments)

    monkeypatch.setattr(os, "pread", late)
    with open_file(path) as file:
        assert file.read() == b"somebody"


HOLDER = """
import fcntl, os, signal, sys, time
descriptor = os.open(sys.argv[1], os.O_RDWR)
signal.signal(signal.SIGIO, lambda *_: (time.sleep(0.3), fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)))
fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(fcntl, "F_SETLEASE"), reason="Linux alone has leases")
@pytest.mark.parametrize("opening", [open_file, lambda path: os.fdopen(regular(path), "rb")])
def test_a_file_that_another_process_has_a_lease_on(opening, tmp_path):
    """As a file server has for its clients, and gives back when somebody asks."""
    path = tmp_path / "rows.csv"
    path.write_text("rows")
    with subprocess.Popen([sys.executable, "-S", "-c", HOLDER, path], stdout=subprocess.PIPE, text=True) as holder:
        try:
            if holder.stdout.readline() != "held\n":
                pytest.skip("this file system has no leases")
            with opening(path) as file:
                assert file.read() == b"rows"
        finally:
            holder.kill()


def test_a_file_that_is_held_is_no_want_of_processes():
    error = BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
    assert "further process" in str(shortage(error))
    assert str(shortage(error, "rows.csv")) == (
        "rows.csv: another process does not give it free; end that one, or copy the file"
    )


@pytest.mark.skipif(signal.getsignal(signal.SIGINT) == signal.SIG_IGN, reason="SIGINT is ignored, as under nohup")
def test_a_config_may_come_through_a_pipe_and_the_wait_for_it_can_be_ended(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    process = start("train", pipe)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert finish(process, timeout=20).code == 130
    (tmp_path / "rows.csv").write_text("a,y\n1,2\n2,3\n")
    text = CONFIG.format(path=tmp_path / "rows.csv")
    writer = subprocess.Popen(["sh", "-c", 'printf "%s" "$1" > "$2"', "sh", text, pipe])
    good("check", pipe)
    assert writer.wait(timeout=10) == 0


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le"])
def test_a_mark_of_utf_8_before_wide_text(encoding, tmp_path):
    table = tmp_path / "rows.csv"
    table.write_bytes(codecs.BOM_UTF8 + "a,y\n1,2\n3,4\n".encode(encoding))
    (tmp_path / "c.yaml").write_text(CONFIG.format(path="rows.csv"))
    done = mlp("check", tmp_path / "c.yaml")
    assert done.code == 3
    assert "goes on as UTF-16 or UTF-32, so no encoding reads it; save it as UTF-8" in done.err
    (tmp_path / "c.yaml").write_bytes(codecs.BOM_UTF8 + "seed: 1\n".encode(encoding))
    done = mlp("check", tmp_path / "c.yaml")
    assert done.code == 2
    assert "begins as UTF-8 and goes on as UTF-16 or UTF-32: save it as UTF-8" in done.err


def test_records_with_cells_of_many_lines():
    text = b'a,b\n\n1,"' + b"x\n" * 300_000 + b'"\n# "no\n2, "y""\n", "z"\n'
    found = [(line, len(record), closed) for line, record, closed in Lines(text, ",", "#").records()]
    assert found == [(1, 4, True), (3, 600_005, True), (300_005, 15, True)]
    (*_, last) = Lines(b'a\n"b\nc\n', ",").records()
    assert last == (2, b'"b\nc\n', False)


def test_cells_are_counted_as_csv_does():
    chance = random.Random(0)
    for _ in range(3000):
        text = "".join(chance.choice('a",;\n" ') for _ in range(chance.randrange(1, 12))) + "\n"
        for mark in ",;":
            rows = list(csv.reader(io.StringIO(text), delimiter=mark, skipinitialspace=True))
            assert _count_cells(text.encode(), mark) == (len(rows[0]) if len(rows) == 1 else 0), (text, mark)


def test_a_wide_table(tmp_path):
    header = ",".join(f"c{i}" for i in range(20_000))
    np.savetxt(tmp_path / "rows.csv", np.arange(60_000).reshape(3, -1), "%d", ",", header=header, comments="")
    names = ", ".join(f"c{i}" for i in range(9000))
    (tmp_path / "c.yaml").write_text(CONFIG.format(path=f"rows.csv, task: regression, features: [{names}]"))
    assert "9,000" in good("inspect", tmp_path / "c.yaml").out
