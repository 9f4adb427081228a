"""What a rollback returns to: the same states whether a disk took them or not."""

import errno

import pytest
from faults import Failer

from mlp_cli.errors import SystemFault
from mlp_cli.rollbacks import Snapshots
from mlp_cli.runs import files
from mlp_cli.runs.directory import RunDirectory


@pytest.fixture
def run(tmp_path):
    with RunDirectory.create("run", tmp_path / "run") as run:
        yield run


@pytest.fixture
def save(run, monkeypatch):
    """`save(snapshots, step)` as training does it; with `fails` the disk does not take it."""

    def save(snapshots, step, fails=False):
        meta = {"position": {"step": step}}
        snapshots.take((meta, {}))
        if fails:
            with monkeypatch.context() as patch:
                patch.setattr(files, "_call", Failer(1, errno.ENOSPC))
                with pytest.raises(SystemFault):
                    run.save(step, {}, meta)
            return
        run.save(step, {}, meta)
        snapshots.written()
        run.prune(snapshots.keep)

    return save


def steps_back(snapshots):
    """The steps of the states that one after the other is gone back to."""
    steps = [snapshots.last[0]["position"]["step"]]
    while snapshots.step_back():
        snapshots.run.forget(steps[-1])
        steps.append(snapshots.last[0]["position"]["step"])
    return steps


@pytest.mark.parametrize("failures", [(), (30,), (20,), (20, 30), (10, 20, 30)])
def test_a_save_that_fails_does_not_show(run, save, failures):
    warnings = []
    snapshots = Snapshots(run, 3, warnings.append)
    for step in (0, 10, 20, 30):
        save(snapshots, step, fails=step in failures)
    assert snapshots.is_written == (30 not in failures)
    # of the four states the oldest is not kept, even where it is still on the disk
    assert steps_back(snapshots) == [30, 20, 10]
    assert warnings == []


def test_with_one_checkpoint_there_is_no_way_back(run, save):
    snapshots = Snapshots(run, 1, print)
    save(snapshots, 10)
    save(snapshots, 20, fails=True)
    assert steps_back(snapshots) == [20]


def test_states_that_lie_ahead_are_forgotten(run, save):
    snapshots = Snapshots(run, 2, print)
    save(snapshots, 10)
    save(snapshots, 20, fails=True)
    assert steps_back(snapshots) == [20, 10]
    save(snapshots, 15)
    save(snapshots, 25)
    assert steps_back(snapshots) == [25, 15]


def test_a_resumed_run_goes_back_as_far_as_one_that_was_not_interrupted(run, save):
    snapshots = Snapshots(run, 3, print)
    for step in (0, 10, 20, 30):
        save(snapshots, step)
    resumed = Snapshots(run, 3, print)
    found = run.valid_at(20)
    resumed.resume((found.meta, found.tensors))
    assert resumed.is_written
    assert steps_back(resumed) == [20, 10]


def test_a_damaged_checkpoint_is_passed_over(run, save):
    warnings = []
    snapshots = Snapshots(run, 3, warnings.append)
    for step in (10, 20, 30):
        save(snapshots, step)
    run.checkpoint_path(20).write_bytes(b"")
    assert steps_back(snapshots) == [30, 10]
    assert str(run.checkpoint_path(20)) in warnings[0]
