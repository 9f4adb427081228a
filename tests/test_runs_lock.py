"""One writer per run directory, and no lock outlives its holder."""

import errno
import fcntl
import os
import platform
import signal
import subprocess
import sys

import pytest

from mlp_cli.errors import RunInUse, SystemFault
from mlp_cli.runs import files
from mlp_cli.runs.lock import Lock, holder, is_blank

HOLD = """
import sys, time
from pathlib import Path
from mlp_cli.runs.lock import Lock
Lock(Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_writer_is_told_who_is_first(tmp_path):
    path = tmp_path / "lock"
    with Lock(path):
        assert holder(path) == (os.getpid(), platform.node())
        with pytest.raises(RunInUse) as caught:
            Lock(path).acquire()
        assert caught.value.exit_code == 7
        assert str(caught.value) == (
            f"{tmp_path}: in use by process {os.getpid()} on {platform.node()}; "
            "wait for it to end, or choose another directory with --out"
        )
        path.write_bytes(b"")
        with pytest.raises(RunInUse, match="in use by another process"):
            Lock(path).acquire()
    with Lock(path):
        assert holder(path) == (os.getpid(), platform.node())


def test_release_twice_and_acquire_again(tmp_path):
    lock = Lock(tmp_path / "lock")
    lock.release()
    lock.acquire()
    with lock:
        pass
    lock.release()
    lock.acquire()
    lock.release()
    assert (tmp_path / "lock").exists()


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path):
    path = tmp_path / "lock"
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(RunInUse, match=f"process {process.pid} on"):
            Lock(path).acquire()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert holder(path)[0] == process.pid
    with Lock(path):
        assert holder(path)[0] == os.getpid()


def test_the_holder_is_known_while_another_takes_over(tmp_path, monkeypatch):
    """Whoever dies between two of these calls leaves a lock that still marks the directory as a run."""
    path = tmp_path / "lock"
    path.write_text('{"host": "a-host-with-a-longer-name", "pid": 4711}' + " " * 200 + "\n")
    seen = []

    def call(operation, *arguments):
        seen.append(holder(path))
        return operation(*arguments)

    monkeypatch.setattr(files, "_call", call)
    with Lock(path):
        assert holder(path) == (os.getpid(), platform.node())
    assert len(seen) == 4
    assert set(seen) == {(4711, "a-host-with-a-longer-name"), (os.getpid(), platform.node())}


def test_a_lock_whose_holder_got_lost(tmp_path):
    path = tmp_path / "lock"
    assert not is_blank(path)
    for content, blank in ((b"", True), (bytes(128), True), (b"4711", False), (b"\0x", False)):
        path.write_bytes(content)
        assert is_blank(path) is blank
    path.unlink()
    os.mkfifo(path)
    assert not is_blank(path)


def test_a_file_system_without_locks_gets_a_warning(tmp_path, monkeypatch):
    def flock(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    number = errno.ENOSYS
    warnings = []
    lock = Lock(tmp_path / "lock")
    lock.acquire(warnings.append)
    lock.release()
    assert len(warnings) == 1
    assert "this file system has no locks" in warnings[0]
    number = errno.EIO
    with pytest.raises(SystemFault, match="cannot lock it"):
        lock.acquire()


def test_what_is_no_lock_of_ours_names_nobody(tmp_path):
    path = tmp_path / "lock"
    assert holder(path) is None
    for content in (b"", b"4711\n", b"{}", b"\xff", b'{"pid": "x", "host": 1}', b"[" * 4096):
        path.write_bytes(content)
        assert holder(path) is None
    path.unlink()
    os.mkfifo(path)
    assert holder(path) is None


def test_a_folder_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(SystemFault, match="cannot open it: no such file or directory"):
        Lock(tmp_path / "none" / "lock").acquire()
