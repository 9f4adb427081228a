"""Every write of a run at every point where it can fail or be cut short: the old state or the new one, nothing else."""

import errno
import os
import stat
import threading

import pytest
from cli import Outcome, as_user, open_to_all

from mlp_cli.errors import SystemFault
from mlp_cli.runs import files


class Killed(BaseException):
    """The process is gone at this instant."""


class Fault:
    """Numbers the calls that change the disk and lets the n-th one fail, or all from the n-th on be gone."""

    def __init__(self, monkeypatch, n, error):
        self.n, self.error, self.calls = n, error, 0
        monkeypatch.setattr(files, "_call", self)

    def __call__(self, operation, *arguments):
        self.calls += 1
        if isinstance(self.error, Killed) and self.calls >= self.n:
            raise self.error
        if self.calls == self.n:
            raise self.error
        return operation(*arguments)


def full_disk():
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_write_atomically_writes_all_parts(tmp_path):
    path = tmp_path / "a.bin"
    files.write_atomically(path, b"one", memoryview(b"two"))
    assert path.read_bytes() == b"onetwo"
    files.write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("n", range(1, 9))
def test_a_failing_write_keeps_a_whole_file_and_leaves_no_litter(tmp_path, monkeypatch, n):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    fault = Fault(monkeypatch, n, full_disk())
    with pytest.raises(SystemFault) as caught:
        files.write_atomically(path, b"new" * 1000)
    assert fault.calls >= n
    # The last three calls open, sync and close the folder, after the rename.
    assert path.read_bytes() == (b"new" * 1000 if n > 5 else b"old")
    assert os.listdir(tmp_path) == ["a.bin"]
    assert str(caught.value) == (
        f"{path}: cannot write it (3.0 kB needed): no space left on device; free some space there"
    )


def test_the_write_takes_exactly_the_calls_walked_above(tmp_path, monkeypatch):
    fault = Fault(monkeypatch, 0, full_disk())
    files.write_atomically(tmp_path / "a.bin", b"new")
    assert fault.calls == 8


@pytest.mark.parametrize("n", range(1, 9))
def test_a_killed_write_leaves_a_file_that_is_known_by_its_name(tmp_path, monkeypatch, n):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with monkeypatch.context() as patch:
        Fault(patch, n, Killed())
        with pytest.raises(Killed):
            files.write_atomically(path, b"new")
    assert path.read_bytes() in (b"old", b"new")
    files.write_atomically(path, b"newer")
    assert path.read_bytes() == b"newer"
    others = [name for name in os.listdir(tmp_path) if name != "a.bin"]
    assert [files.final_name(name) for name in others] == ["a.bin"] * (1 < n < 6)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_an_end_is_written_whole_or_not_at_all(tmp_path, monkeypatch, n):
    path = tmp_path / "a.jsonl"
    files.write_end(path, 0, b"first\n")
    with monkeypatch.context() as patch:
        Fault(patch, n, full_disk())
        with pytest.raises(SystemFault, match=r"cannot add to it \(7 bytes needed\): no space left"):
            files.write_end(path, 6, b"second\n")
    files.write_end(path, 6, b"third\n")
    assert path.read_text() == "first\nthird\n"


def test_what_follows_the_place_of_an_end_is_cut_off(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"first\nsecond\nthi")
    files.write_end(path, 6, b"2nd\n")
    assert path.read_bytes() == b"first\n2nd\n"
    # somebody else made the file shorter: no hole is left
    path.write_bytes(b"fi")
    files.write_end(path, 6, b"2nd\n")
    assert path.read_bytes() == b"fi2nd\n"


def test_half_an_end_is_taken_back(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    files.write_end(path, 0, b"first\n")
    writes = []

    def half_written(operation, *arguments):
        if operation is os.write:
            writes.append(bytes(arguments[1]))
            # what the system calls a short write, and then what it says when asked for the rest
            return operation(arguments[0], arguments[1][:3]) if len(writes) == 1 else 0
        return operation(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(files, "_call", half_written)
        with pytest.raises(SystemFault, match="no space left"):
            files.write_end(path, 6, b"second\n")
    assert writes == [b"second\n", b"ond\n"]
    assert path.read_text() == "first\n"


def test_short_writes_are_completed(tmp_path, monkeypatch):
    def a_byte_at_a_time(operation, *arguments):
        if operation is os.write:
            return operation(arguments[0], arguments[1][:1])
        return operation(*arguments)

    monkeypatch.setattr(files, "_call", a_byte_at_a_time)
    files.write_atomically(tmp_path / "a", b"one", b"", memoryview(b"two"))
    assert (tmp_path / "a").read_bytes() == b"onetwo"


def test_an_open_file_is_overwritten_without_an_instant_of_emptiness(tmp_path, monkeypatch):
    path = tmp_path / "a"
    seen = []

    def call(operation, *arguments):
        seen.append(path.read_bytes())
        return operation(*arguments)

    for old, new in ((b"old old\n", b"new\n"), (b"old\n", b"new new\n"), (b"", b"new\n")):
        path.write_bytes(old)
        descriptor = files.open_for_update(path)
        with monkeypatch.context() as patch:
            patch.setattr(files, "_call", call)
            files.overwrite(descriptor, path, new)
        os.close(descriptor)
        assert path.read_bytes() == new
        assert all(content[:4] in (old[:4], new[:4]) for content in seen)
        seen.clear()


def test_truncate_remove_and_sync(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    files.truncate(path, 4)
    files.sync(path)
    assert path.read_bytes() == b"0123"
    files.remove(path)
    files.remove(path)
    files.sync(path)
    files.sync_folder(tmp_path)
    assert os.listdir(tmp_path) == []
    with pytest.raises(SystemFault, match="cannot shorten it: no such file"):
        files.truncate(path, 0)


def test_truncate_never_makes_a_file_longer(tmp_path):
    (tmp_path / "a").write_bytes(b"0123")
    files.truncate(tmp_path / "a", 100)
    assert (tmp_path / "a").read_bytes() == b"0123"


def test_make_directory_tells_one_caller_true(tmp_path):
    path = tmp_path / "a" / "b" / "c"
    with pytest.raises(SystemFault, match="create the folder that should hold it first"):
        files.make_directory(path)
    assert files.make_directory(path, parents=True)
    assert not files.make_directory(path, parents=True)


def test_a_folder_is_durable_even_where_another_process_made_it(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(files, "_sync_folder", synced.append)
    (tmp_path / "a").mkdir()
    assert not files.make_directory(tmp_path / "a")
    assert files.make_directory(tmp_path / "a" / "b")
    assert synced == [tmp_path, tmp_path / "a"]


def test_what_is_in_the_way_of_a_folder(tmp_path):
    path = tmp_path / "a" / "b" / "c"
    files.make_directory(path, parents=True)
    (tmp_path / "file").touch()
    with pytest.raises(SystemFault, match="a file stands where a folder is expected"):
        files.make_directory(tmp_path / "file" / "x" / "y", parents=True)


def test_a_missing_folder_and_a_long_name_are_sentences(tmp_path):
    with pytest.raises(SystemFault, match="create the folder that should hold it first"):
        files.write_atomically(tmp_path / "none" / "a", b"")
    with pytest.raises(SystemFault, match="choose a shorter name"):
        files.write_atomically(tmp_path / ("x" * 300), b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(SystemFault, match="move the folder of that name out of the way"):
        files.write_atomically(tmp_path / "folder", b"")


def test_a_folder_that_cannot_be_synced_is_no_fault(tmp_path, monkeypatch):
    def call(operation, *arguments):
        if operation is os.fsync and os.path.isdir(f"/proc/self/fd/{arguments[0]}"):
            raise OSError(errno.EINVAL, "Invalid argument")
        return operation(*arguments)

    monkeypatch.setattr(files, "_call", call)
    files.write_atomically(tmp_path / "a", b"x")
    assert (tmp_path / "a").read_bytes() == b"x"


def test_output_goes_through_links_and_into_pipes(tmp_path):
    """`mlp predict -o /dev/null` must not put a file in the place of the device."""
    plain, link, pipe = tmp_path / "plain.csv", tmp_path / "link.csv", tmp_path / "pipe"
    link.symlink_to(plain)
    files.write_output(link, b"one", b"two")
    assert link.is_symlink()
    assert plain.read_bytes() == b"onetwo"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    files.write_output(pipe, b"rows")
    assert os.read(reader, 10) == b"rows"
    assert pipe.is_fifo()
    os.close(reader)
    with pytest.raises(SystemFault, match="move the folder"):
        files.write_output(tmp_path, b"")


def test_what_others_call_temporary_is_left_alone(tmp_path):
    """A name beside the output that somebody planted, or the user's own file."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "a.csv.tmp").symlink_to(victim)
    files.write_output(tmp_path / "a.csv", b"rows")
    assert victim.read_text() == "precious"
    assert (tmp_path / "a.csv.tmp").is_symlink()
    assert (tmp_path / "a.csv").read_bytes() == b"rows"


def test_a_temporary_name_that_exists_is_not_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "urandom", bytes)
    planted = tmp_path / ".a.csv.0000000000000000.tmp"
    planted.symlink_to(tmp_path / "victim")
    with pytest.raises(SystemFault, match="move what has that name out of the way"):
        files.write_output(tmp_path / "a.csv", b"rows")
    assert [path.name for path in tmp_path.iterdir()] == [planted.name]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o444])
def test_permissions_stay(tmp_path, mode):
    path = tmp_path / "a.csv"
    path.write_bytes(b"old")
    path.chmod(mode)
    files.write_output(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_secret_file_is_secret_while_it_is_written(tmp_path, monkeypatch):
    path = tmp_path / "a.csv"
    path.write_bytes(b"old")
    path.chmod(0o600)
    modes = []

    def call(operation, *arguments):
        modes.extend(stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir() if each.is_file())
        return operation(*arguments)

    monkeypatch.setattr(files, "_call", call)
    files.write_output(path, b"new")
    assert set(modes) == {0o600}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of other users")
def test_root_leaves_a_file_to_its_owner(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"old")
    os.chown(path, 54321, 54321)
    files.write_output(path, b"new")
    assert (path.stat().st_uid, path.stat().st_gid) == (54321, 54321)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make links of other users")
def test_a_link_of_another_user_is_not_followed(tmp_path):
    victim, link = tmp_path / "victim", tmp_path / "a.csv"
    victim.write_text("precious")
    link.symlink_to(victim)
    os.chown(link, 54321, -1, follow_symlinks=False)
    with pytest.raises(SystemFault, match="is another user's; name the file itself"):
        files.write_output(link, b"rows")
    # nor on the way to what this process has open
    link.unlink()
    link.symlink_to("/dev/fd/1")
    os.chown(link, 54321, -1, follow_symlinks=False)
    with pytest.raises(SystemFault, match="is another user's; name the file itself"):
        files.write_output(link, b"rows")
    assert victim.read_text() == "precious"


def test_a_pipe_is_given_time_to_find_a_reader_and_no_more(tmp_path, monkeypatch):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Timer(0.1, lambda: read.append(pipe.read_bytes()))
    reader.start()
    files.write_output(pipe, b"rows" * 100_000)
    reader.join()
    assert read == [b"rows" * 100_000]
    monkeypatch.setattr(files, "READER_SECONDS", 0.1)
    with pytest.raises(SystemFault, match="start a program that reads from this pipe first"):
        files.write_output(pipe, b"rows")


def test_output_goes_into_pipes_without_a_name(tmp_path):
    """As `-o >(gzip > a.gz)` does."""
    reader, writer = os.pipe()
    files.write_output(f"/dev/fd/{writer}", b"rows")
    assert os.read(reader, 10) == b"rows"
    os.close(reader)
    os.close(writer)


def test_the_longest_names_can_be_written(tmp_path):
    for name in ("x" * 255, "é" * 127):
        files.write_output(tmp_path / name, b"rows")
        assert (tmp_path / name).read_bytes() == b"rows"


@pytest.mark.parametrize("mode", [0o755, 0o1777])
def test_where_no_file_can_take_the_place_of_the_old_one_it_stays(tmp_path, mode):
    """In a folder that may not be written to, and where the sticky bit keeps the names of others."""
    if os.geteuid() != 0:
        pytest.skip("only root can make files of other users")
    path = tmp_path / "folder" / "a.csv"
    path.parent.mkdir()
    path.write_bytes(b"old")
    path.chmod(0o666)
    path.parent.chmod(mode)
    open_to_all(path.parent)

    def work():
        try:
            files.write_output(path, b"new")
        except SystemFault as fault:
            return Outcome(fault.exit_code, "", str(fault))

    done = as_user(54321, work)
    assert done.code == 5
    assert done.err.endswith("; choose a folder you may write to")
    assert os.listdir(path.parent) == ["a.csv"]
    assert path.read_bytes() == b"old"
