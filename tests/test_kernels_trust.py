"""Whose compiled kernels are executed: this user's and root's, where nobody else may write. Nothing makes it wait."""

import os
import shutil
import stat
import time

import pytest
from cli import Outcome, as_user, mlp, open_to_all

from mlp_cli.kernels import cache, prepare
from mlp_cli.kernels.cache import Cache
from mlp_cli.kernels.trust import Untrusted, require_trusted_folder

ANOTHER_USER = 54321
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of other users")


class Run:
    """What a run does to get its kernels, with a compiler that takes no time."""

    def __init__(self, monkeypatch):
        self.compiled, self.said, self.warned = 0, [], []
        monkeypatch.setattr(prepare, "compile_apart", self.compile)
        self.code = prepare._machine_code(Cache("float64"), "float64", self.said.append, self.warned.append)

    def compile(self, dtype):
        self.compiled += 1
        return b"good code"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function that starts such runs on one cache folder, which holds good code."""
    monkeypatch.setenv("MLP_CACHE_DIR", str(tmp_path / "shared" / "cache"))
    before = os.umask(0o022)
    (tmp_path / "shared").mkdir()
    assert Run(monkeypatch).compiled == 1
    again = Run(monkeypatch)
    assert (again.compiled, again.warned) == (0, [])
    yield lambda: Run(monkeypatch)
    os.umask(before)


def plant():
    """What an attacker writes: a file with a true digest."""
    here = Cache("float64")
    here.path.write_bytes(here._digest(b"evil code") + b"evil code")


def refused(run, path, what, remedy):
    """The planted code is not executed, the warning is one sentence, and nothing is written there."""
    plant()
    before = Cache("float64").path.read_bytes()
    done = run()
    assert done.code == b"good code"
    assert done.warned == [f"{path}: {what}; the kernels are compiled for this run alone: {remedy}"]
    assert Cache("float64").path.read_bytes() == before


def places():
    here = Cache("float64")
    return {"file": here.path, "folder": here.folder, "root": here.folder.parent, "parent": here.folder.parents[1]}


@as_root
@pytest.mark.parametrize("place", ["file", "folder", "root", "parent"])
def test_what_belongs_to_another_user_is_not_executed(run, place):
    os.chown(places()[place], ANOTHER_USER, -1)
    what = f"belongs to user {ANOTHER_USER}, who could have this process execute anything"
    refused(run, places()[place], what, "set MLP_CACHE_DIR to a folder of your own")


@pytest.mark.parametrize("mode", [0o775, 0o757])
@pytest.mark.parametrize("place", ["file", "folder", "root", "parent"])
def test_what_others_may_write_to_is_not_executed(run, place, mode):
    path = places()[place]
    path.chmod(mode)
    what = "others than its owner may write to it, and so have this process execute anything"
    refused(run, path, what, f"chmod go-w {path}, or set MLP_CACHE_DIR to a folder of your own")


def test_a_sticky_folder_above_is_as_good_as_a_private_one(run):
    """MLP_CACHE_DIR=/tmp/mlp: nobody but its owner can rename or delete it."""
    places()["parent"].chmod(0o1777)
    assert (run().compiled, run().warned) == (0, [])
    places()["root"].chmod(0o1777)
    assert run().compiled == 0
    places()["folder"].chmod(0o1777)
    assert run().compiled == 1


@as_root
def test_a_sticky_folder_of_another_user_is_not(run):
    places()["parent"].chmod(0o1777)
    os.chown(places()["parent"], ANOTHER_USER, -1)
    with pytest.raises(Untrusted, match="shared: belongs to user"):
        require_trusted_folder(Cache("float64").folder)


def test_links_are_looked_through(run, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to("shared/cache")
    monkeypatch.setenv("MLP_CACHE_DIR", str(tmp_path / "link"))
    assert run().compiled == 0
    places()["parent"].chmod(0o755)
    (tmp_path / "shared").chmod(0o777)
    assert run().warned[0].startswith(f"{tmp_path / 'shared'}: others than its owner")


@pytest.mark.parametrize("mask", [0o002, 0o000, 0o022, 0o077])
def test_a_loose_umask_locks_nobody_out_of_his_own_cache(run, mask):
    shutil.rmtree(places()["root"])
    os.umask(mask)
    assert run().compiled == 1
    done = run()
    assert (done.compiled, done.warned) == (0, [])
    modes = {name: stat.S_IMODE(path.stat().st_mode) for name, path in places().items() if name != "parent"}
    assert modes == {"file": 0o644 & ~mask, "folder": 0o755 & ~mask, "root": 0o755 & ~mask}


def test_warming_up_where_nothing_will_be_used_is_refused(run):
    folder = places()["root"]
    folder.chmod(0o777)
    done = mlp("warmup")
    assert (done.code, done.out) == (5, "")
    assert done.err == (
        f"Nothing to warm up: {folder}: others than its owner may write to it, and so have this process execute "
        f"anything; chmod go-w {folder}, or set MLP_CACHE_DIR to a folder of your own\n"
    )


@as_root
def test_other_users_may_use_what_root_has_compiled(run, tmp_path):
    """`MLP_CACHE_DIR=/opt/mlp mlp warmup` in a container image."""
    open_to_all(tmp_path)

    def work():
        done = run()
        return Outcome(done.compiled, done.code.decode(), "".join(done.warned))

    assert as_user(ANOTHER_USER, work) == Outcome(0, "good code", "")


def loop(path):
    path.symlink_to(path)


def device(path):
    path.symlink_to(os.devnull)


@pytest.mark.parametrize("make", [os.mkfifo, loop, device])
@pytest.mark.parametrize("suffix", [".code", ".lock"])
def test_no_pipe_or_link_in_place_of_a_file_is_opened(run, make, suffix):
    path = Cache("float64").path.with_suffix(suffix)
    path.unlink(missing_ok=True)
    Cache("float64").path.unlink(missing_ok=True)
    make(path)
    done = run()
    assert (done.code, done.compiled, done.warned) == (b"good code", 1, [])
    assert run().compiled == 0


def test_a_lock_is_not_written_through_a_link(run, tmp_path):
    victim = tmp_path / "victim"
    Cache("float64").path.unlink()
    lock = Cache("float64").path.with_suffix(".lock")
    lock.unlink()
    lock.symlink_to(victim)
    assert run().compiled == 1
    assert not victim.exists()


def test_a_holder_of_the_lock_that_does_not_come_to_an_end_is_not_waited_for(run, monkeypatch):
    monkeypatch.setattr(cache, "LOCK_SECONDS", 0.1)
    Cache("float64").path.unlink()
    with Cache("float64").lock(lambda: None):
        done = run()
    assert (done.code, done.compiled) == (b"good code", 1)
    assert "Another process is compiling" in done.said[0]


def aged(folder):
    folder.mkdir()
    (folder / "float32-x.code").touch()
    for path in (folder / "float32-x.code", folder):
        os.utime(path, (0, 0), follow_symlinks=False)
    return folder


def test_old_folders_are_removed_and_not_what_links_lead_to(run, tmp_path):
    root = places()["root"]
    victim = aged(tmp_path / "victim")
    (root / f"kernels-{'a' * 20}").symlink_to(victim)
    old = aged(root / f"kernels-{'b' * 20}")
    (old / "link").symlink_to(victim / "float32-x.code")
    os.utime(old / "link", (0, 0), follow_symlinks=False)
    os.utime(old, (0, 0))
    Cache("float64").prune()
    assert not old.exists()
    assert os.listdir(victim) == ["float32-x.code"]
    assert (victim / "float32-x.code").stat().st_mtime < time.time() - cache.UNUSED_SECONDS


@as_root
def test_old_folders_of_other_users_stay(run):
    root = places()["root"]
    root.chmod(0o1777)
    theirs = aged(root / f"kernels-{'c' * 20}")
    os.chown(theirs, ANOTHER_USER, -1)
    Cache("float64").prune()
    assert theirs.exists()
