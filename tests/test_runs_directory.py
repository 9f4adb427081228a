"""Run directories: numbered, resumed, replaced, pruned, and never at the cost of somebody else's files."""

import contextlib
import errno
import itertools
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from faults import Dead, Door, Failer, Killer

from mlp_cli.errors import CheckpointError, ConfigError, RunInUse, SystemFault
from mlp_cli.runs import checkpoint, files, replacement
from mlp_cli.runs.directory import RunDirectory, find_model


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def begin(out=None, name="digits", **options):
    with RunDirectory.create(name, out, **options) as run:
        return run


def trained(out=None, steps=(10, 20, 30), best=False, **options):
    with RunDirectory.create("digits", out, **options) as run:
        run.save_config("seed: 0\n")
        for step in steps:
            run.history.append({"epoch": step // 10, "step": step})
            run.save(step, {"w": np.full(3, step)}, {"step": step})
        if best:
            run.save_best({"w": np.full(3, 20)}, {"step": 20})
        run.write_summary({"metrics": {"train": {"loss": float("nan")}}})
        return run


def damage(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def all_names(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))


def test_numbers_go_up():
    assert begin().path == Path("runs/digits-001")
    assert begin().path == Path("runs/digits-002")
    assert begin(name="xor").path == Path("runs/xor-001")
    Path("runs/digits-009").mkdir()
    Path("runs/digits-10").mkdir()
    Path("runs/digits-002-012").mkdir()
    assert begin().path == Path("runs/digits-010")
    Path("runs/digits-1233").touch()
    assert begin().path == Path("runs/digits-1234")
    assert begin(name="digits-002").path == Path("runs/digits-002-013")
    assert begin(name="a.b+c [1]").path == Path("runs/a.b+c [1]-001")
    assert begin(base=Path("deep/er")).path == Path("deep/er/digits-001")


def test_a_number_taken_meanwhile_is_passed_over(monkeypatch):
    make_directory = files.make_directory

    def raced(path, parents=False):
        if path.name == "digits-001":
            path.mkdir()
        return make_directory(path, parents)

    monkeypatch.setattr(files, "make_directory", raced)
    assert begin().path == Path("runs/digits-002")


def test_the_files_of_a_run():
    run = trained(best=True)
    assert all_names(run.path) == [
        "checkpoints",
        "checkpoints/best.safetensors",
        "checkpoints/step-0000000010.safetensors",
        "checkpoints/step-0000000020.safetensors",
        "checkpoints/step-0000000030.safetensors",
        "config.yaml",
        "lock",
        "metrics.jsonl",
        "summary.json",
    ]
    assert run.config_path.read_text() == "seed: 0\n"
    assert json.loads(run.summary_path.read_text()) == {"metrics": {"train": {"loss": None}}}
    assert [step for step, _ in run.step_checkpoints()] == [10, 20, 30]
    assert run.step_checkpoints()[0][1] == run.checkpoint_path(10)
    assert RunDirectory.is_run(run.path)


def test_steps_are_sorted_as_numbers():
    with RunDirectory.create("digits") as run:
        for step in (99_999_999_999, 3, 10_000_000_000):
            run.save(step, {}, {"step": step})
        assert [step for step, _ in run.step_checkpoints()] == [3, 10_000_000_000, 99_999_999_999]


def test_out_may_be_new_or_empty():
    assert begin("a/b/c").path == Path("a/b/c")
    assert begin("a/b/c").path == Path("a/b/c")  # nothing has been written yet
    Path("empty").mkdir()
    begin("empty")
    Path("link").symlink_to("empty")
    begin("link")


def test_a_directory_with_a_run_is_refused():
    run = trained("out")
    before = all_names("out")
    with pytest.raises(ConfigError) as caught:
        begin("out")
    assert caught.value.exit_code == 2
    assert str(caught.value) == (
        "out: holds a run already; go on with it by --resume, replace it by --force, "
        "or choose another directory with --out"
    )
    assert all_names("out") == before
    run.lock_path.unlink()
    with pytest.raises(ConfigError, match="holds a run already"):
        begin("out")
    assert not run.lock_path.exists()


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"force": True}])
def test_a_directory_of_somebody_else_is_refused(options):
    project = Path("project")
    (project / "checkpoints").mkdir(parents=True)
    (project / "config.yaml").write_text("mine")
    (project / "checkpoints" / "model.safetensors").write_text("mine")
    (project / "lock").write_text("4711\n")
    before = all_names(project)
    with pytest.raises(ConfigError, match="is not empty and holds no run of mlp"):
        begin(project, **options)
    assert all_names(project) == before
    assert (project / "lock").read_text() == "4711\n"
    Path("file").touch()
    with pytest.raises(ConfigError, match="file: expected a directory for the run"):
        begin("file", **options)


def left_by_a_killed_write(path):
    path = files.temporary_path(path)
    path.write_text("torn")
    return path


def replaced(out, steps=(5, 10), **options):
    """A run that replaces another one, up to its end."""
    with RunDirectory.create("digits", out, force=True, **options) as run:
        run.save_config("seed: 1\n")
        for step in steps:
            run.history.append({"epoch": step // 5, "step": step})
            run.save(step, {"w": np.full(3, -step)}, {"step": step})
        run.history.sync()
        run.save_best({"w": np.full(3, -5)}, {"step": 5})
        run.write_summary({"new": True})
        run.take_place()
        return run


def test_force_replaces_the_run_at_its_end_and_nothing_else():
    run = trained("out", best=True)
    (run.path / "notes.txt").write_text("mine")
    (run.checkpoints_path / "averaged.safetensors").write_text("mine")
    left_by_a_killed_write(run.checkpoint_path(40))
    left_by_a_killed_write(run.summary_path)
    before = all_names("out")
    with RunDirectory.create("digits", "out", force=True) as new:
        assert (new.home, new.path) == (Path("out"), Path("out/replacement"))
        assert [name for name in all_names("out") if not name.startswith("replacement")] == before
    assert replaced("out").path == Path("out")
    assert all_names("out") == [
        "checkpoints",
        "checkpoints/averaged.safetensors",
        "checkpoints/best.safetensors",
        "checkpoints/step-0000000005.safetensors",
        "checkpoints/step-0000000010.safetensors",
        "config.yaml",
        "lock",
        "metrics.jsonl",
        "notes.txt",
        "summary.json",
    ]
    assert run.config_path.read_text() == "seed: 1\n"
    assert run.read_summary() == {"new": True}
    assert checkpoint.read(run.best_path).tensors["w"].tolist() == [-5, -5, -5]


def test_the_directory_itself_may_be_a_link():
    trained("elsewhere")
    Path("out").symlink_to("elsewhere")
    assert replaced("out").read_summary() == {"new": True}
    assert Path("out").is_symlink()
    assert RunDirectory("elsewhere").read_summary() == {"new": True}


def test_force_has_nothing_to_replace_where_no_run_has_written_anything():
    for out in ("fresh", "fresh"):
        with RunDirectory.create("digits", out, force=True) as run:
            assert run.path == Path(out)
    assert begin(force=True).path == Path("runs/digits-001")
    assert begin(force=True).path == Path("runs/digits-002")


def test_resume_goes_on_with_the_run_that_is_to_replace_another_and_force_begins_it_anew():
    trained("out")
    with RunDirectory.create("digits", "out", force=True) as run:
        run.save(7, {}, {"step": 7})
    with RunDirectory.create("digits", "out", resume=True) as run:
        assert run.path == Path("out/replacement")
        assert run.newest_valid().meta == {"step": 7}
    assert begin("out", force=True).newest_valid() is None
    assert RunDirectory(Path("out")).newest_valid().meta == {"step": 30}


def test_a_run_that_replaces_another_has_a_lock_of_its_own_too():
    trained("out")
    with RunDirectory.create("digits", "out", force=True):
        for out in ("out", "out/replacement"):
            with pytest.raises(RunInUse):
                begin(out, resume=True)
    begin("out/replacement", resume=True)


def test_an_exchange_that_is_cut_short_anywhere_is_completed_by_the_next(monkeypatch):
    """Whatever call is the last: the model in DIR is the old one or the new one, and a summary is never the other's."""
    finish, whole = replacement.finish, None
    monkeypatch.setattr(files, "_call", Door())  # which syncs nothing
    for n in itertools.count(1):
        shutil.rmtree("out", ignore_errors=True)
        trained("out", steps=(10, 20), best=True)

        def dies(old, n=n):
            with monkeypatch.context() as patch:
                patch.setattr(files, "_call", Killer(n))
                finish(old)

        monkeypatch.setattr(replacement, "finish", dies)
        with contextlib.suppress(Dead):
            replaced("out")
            whole = all_names("out")
        model = checkpoint.read(find_model("out")).tensors["w"][0]
        assert model in (20, -5)
        summary = RunDirectory("out").read_summary()
        assert summary is None or ("new" in summary) == (model == -5)
        with RunDirectory.create("digits", "out", resume=True) as run:
            if n == 1:
                assert run.path == Path("out/replacement")
            elif whole is None:
                assert run.newest_valid().meta == {"step": 10}
                assert run.history.read()[-1] == {"epoch": 2, "step": 10}
                assert checkpoint.read(run.best_path).tensors["w"][0] == -5
        if whole is not None:
            break
    assert n > 30
    assert all_names("out") == whole


def test_a_disk_that_fails_during_an_exchange_leaves_it_to_the_next(monkeypatch):
    trained("out")
    finish = replacement.finish

    def fails(old):
        with monkeypatch.context() as patch:
            patch.setattr(files, "_call", Failer(30, errno.EIO, 99))
            finish(old)

    monkeypatch.setattr(replacement, "finish", fails)
    with pytest.raises(SystemFault, match="input/output error"):
        replaced("out")
    assert begin("out", resume=True).read_summary() == {"new": True}
    assert "out/replacement-finished" not in all_names("out")


def test_what_is_in_the_way_of_a_replacement_is_said_at_its_beginning():
    run = trained("out")
    (run.path / "replacement-finished").mkdir()
    (run.path / "replacement-finished" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="replacement-finished: holds files that are not mlp's"):
        begin("out", force=True)
    shutil.rmtree(run.path / "replacement-finished")
    (run.path / "replacement").mkdir()
    (run.path / "replacement" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="replacement: is not empty and holds no run of mlp"):
        begin("out", force=True)


def test_resume_takes_the_newest_run_or_begins_one():
    assert begin(resume=True).path == Path("runs/digits-001")
    trained()
    trained()
    Path("runs/digits-004").mkdir()
    Path("runs/digits-004/notes.txt").touch()
    Path("runs/digits-005").touch()
    with RunDirectory.create("digits", resume=True) as run:
        assert run.path == Path("runs/digits-003")
        assert run.newest_valid().meta == {"step": 30}
    Path("runs/digits-006").mkdir()  # killed right after mkdir
    assert begin(resume=True).path == Path("runs/digits-006")
    assert begin("out", resume=True).newest_valid() is None
    trained("out")
    assert begin("out", resume=True).newest_valid().meta == {"step": 30}
    with pytest.raises(ConfigError, match="give only one"):
        begin("out", resume=True, force=True)


def test_leftovers_of_a_killed_save_are_cleared_on_resume():
    run = trained("out")
    before = all_names("out")
    for path in (run.config_path, run.summary_path, run.best_path, run.checkpoint_path(40)):
        left_by_a_killed_write(path)
    others = [left_by_a_killed_write(run.path / name) for name in ("notes.txt", "step-0000000040.safetensors")]
    begin("out", resume=True)
    assert all_names("out") == sorted([*before, *(path.name for path in others)])


@pytest.mark.parametrize("options", [{"resume": True}, {"force": True}])
def test_one_writer_at_a_time(options):
    trained("out")
    with RunDirectory.create("digits", "out", resume=True) as run:
        before = all_names("out")
        with pytest.raises(RunInUse, match=f"out: in use by process {os.getpid()} on"):
            begin("out", **options)
        assert all_names("out") == before
        run.save(40, {}, {"step": 40})
    begin("out", **options)


def test_a_refused_run_is_not_left_locked(monkeypatch):
    trained("out")
    with monkeypatch.context() as patch:
        patch.setattr(files, "make_directory", lambda path, parents=False: 1 / (path.name != "checkpoints"))
        with pytest.raises(ZeroDivisionError):
            begin("out", resume=True)
    begin("out", resume=True)


def test_the_newest_valid_checkpoint_wins():
    run = trained(best=True)
    warnings = []
    assert run.newest_valid(warnings.append).tensors["w"].tolist() == [30, 30, 30]
    assert warnings == []
    damage(run.checkpoint_path(30))
    run.checkpoint_path(20).write_bytes(b"")
    assert run.newest_valid(warnings.append).meta == {"step": 10}
    assert [str(run.checkpoint_path(step)) in text for step, text in zip((30, 20), warnings, strict=True)] == [
        True,
        True,
    ]
    damage(run.checkpoint_path(10))
    assert run.newest_valid().path == run.best_path
    damage(run.best_path)
    with pytest.raises(CheckpointError, match="digits-001: none of its 4 checkpoints can be used") as caught:
        run.newest_valid()
    assert caught.value.exit_code == 6


def test_order_is_by_step_and_not_by_date():
    run = trained()
    os.utime(run.checkpoint_path(10), (2_000_000_000, 2_000_000_000))
    assert run.newest_valid().meta == {"step": 30}


def test_prune_keeps_the_newest_and_the_best():
    run = trained(steps=(10, 20, 30, 40), best=True)
    run.prune(2)
    run.prune(2)
    assert [step for step, _ in run.step_checkpoints()] == [30, 40]
    assert run.best_path.exists()
    run.prune(0)
    assert [step for step, _ in run.step_checkpoints()] == [40]


def test_prune_spares_the_only_valid_one():
    path = trained(steps=(10, 20, 30, 40)).path
    run = RunDirectory(path)  # one that did not write them, and knows nothing of them
    for step in (30, 40):
        damage(run.checkpoint_path(step))
    run.prune(2)
    assert [step for step, _ in run.step_checkpoints()] == [20, 30, 40]
    damage(run.checkpoint_path(20))
    run.prune(1)
    assert [step for step, _ in run.step_checkpoints()] == [40]


def test_prune_does_not_read_what_was_just_written(monkeypatch):
    with RunDirectory.create("digits") as run:
        run.save(10, {}, {})
        run.save(20, {}, {})
        monkeypatch.setattr(checkpoint, "read", lambda path: 1 / 0)
        run.prune(1)
        assert [step for step, _ in run.step_checkpoints()] == [20]


def test_a_failed_save_leaves_the_old_checkpoints(monkeypatch):
    with RunDirectory.create("digits") as run:
        run.save(10, {}, {"step": 10})

        def call(operation, *arguments):
            if operation is os.replace:
                raise OSError(28, "No space left on device")
            return operation(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(files, "_call", call)
            with pytest.raises(SystemFault, match=r"step-0000000020.safetensors: cannot write it \(\d+ bytes needed\)"):
                run.save(20, {}, {"step": 20})
        assert run.newest_valid().meta == {"step": 10}
        assert os.listdir(run.checkpoints_path) == ["step-0000000010.safetensors"]


def test_what_a_failed_save_leaves_is_deleted_with_the_next(monkeypatch):
    with RunDirectory.create("digits") as run:
        with monkeypatch.context() as patch:
            patch.setattr(files, "_call", Failer(2, errno.EIO, 99))
            with pytest.raises(SystemFault):
                run.save(10, {}, {"step": 10})
        (name,) = os.listdir(run.checkpoints_path)
        assert files.final_name(name) == "step-0000000010.safetensors"
        run.save(20, {}, {"step": 20})
        run.prune(1)
        assert os.listdir(run.checkpoints_path) == ["step-0000000020.safetensors"]


def test_a_refused_checkpoint_is_not_counted_and_goes_with_the_old_ones():
    trained("out", steps=(10, 20, 30))
    with RunDirectory.create("digits", "out", resume=True) as run:
        damage(run.checkpoint_path(30))
        assert run.newest_valid().meta == {"step": 20}
        run.save(25, {}, {"step": 25})
        run.prune(2)
        assert [step for step, _ in run.step_checkpoints()] == [20, 25, 30]
        run.save(40, {}, {"step": 40})
        run.prune(2)
        assert [step for step, _ in run.step_checkpoints()] == [25, 40]


def test_a_refused_checkpoint_that_is_written_anew_counts():
    trained("out", steps=(10, 20, 30))
    with RunDirectory.create("digits", "out", resume=True) as run:
        damage(run.checkpoint_path(30))
        run.newest_valid()
        run.save(30, {}, {"step": 30})
        run.prune(2)
        assert [step for step, _ in run.step_checkpoints()] == [20, 30]


def test_the_checkpoint_of_a_step():
    run = trained()
    assert run.valid_at(20).meta == {"step": 20}
    assert run.valid_at(25) is None
    damage(run.checkpoint_path(20))
    warnings = []
    assert run.valid_at(20, warnings.append) is None
    assert str(run.checkpoint_path(20)) in warnings[0]


def test_a_run_that_goes_on_has_no_result():
    run = trained(best=True)
    run.outdate(best=False)
    assert not run.summary_path.exists()
    assert run.best_path.exists()
    run.outdate(best=True)
    run.outdate(best=True)
    assert not run.best_path.exists()
    assert len(run.step_checkpoints()) == 3


@pytest.mark.parametrize("content", [b"", bytes(128)])
def test_a_directory_in_which_only_a_lock_without_a_name_was_made_is_free(content):
    Path("out").mkdir()
    Path("out/lock").write_bytes(content)
    assert begin("out").path == Path("out")
    assert RunDirectory.is_run(Path("out"))


def test_find_model():
    run = trained()
    assert find_model(run.checkpoint_path(10)) == run.checkpoint_path(10)
    assert find_model(run.path) == run.checkpoint_path(30)
    run.best_path.write_bytes(run.checkpoint_path(20).read_bytes())
    assert find_model(str(run.path)) == run.best_path
    with pytest.raises(CheckpointError, match="there is nothing of that name"):
        find_model("runs/digits-999")
    with pytest.raises(CheckpointError, match="there is nothing of that name"):
        find_model("a\0b")
    Path("other").mkdir()
    with pytest.raises(CheckpointError, match="this folder holds no run of mlp"):
        find_model("other")
    begin("other")
    with pytest.raises(CheckpointError, match="has saved no checkpoint yet; go on with it by mlp train --resume"):
        find_model("other")
    assert not RunDirectory.is_run("nowhere")
