"""The machine and its team: progress, stops, and exceptions that arrive while threads are at work."""

import threading
import time

import numpy as np
import pytest
from engine import Pair, configure, examples

from mlp_cli.kernels import layout
from mlp_cli.kernels.team import Team
from mlp_cli.network import machine
from mlp_cli.network.machine import Halted, Rows

LAYERS = [{"units": 400, "activation": "tanh"}, {"units": 400, "activation": "tanh"}, {"activation": "softmax"}]


def long_work(threads=2):
    """A net whose epoch takes longer than the first look, on any machine."""
    config = configure(LAYERS, "cross_entropy", dtype="float32", rate=0.01)
    pair = Pair(config, examples(2000, 40, 3, "cross_entropy"), batch_size=8, threads=threads)
    pair.order = np.resize(pair.order, 400_000)
    pair.steps = len(pair.order) // 8
    return pair


def train(pair, look, first=0):
    table = np.zeros((pair.steps - first, 10))
    table[:, 0], table[:, 1] = 0.01, 1.0
    return pair.machine.train(pair.order, 1, table, first, look)


class Enough(Exception):
    """What `look` raises here."""


# --- the team ---------------------------------------------------------------------------------------------------


def test_every_worker_gets_its_number():
    team, seen = Team(3), []
    for threads in (3, 1, 2):
        seen.clear()
        team.run(lambda word, number: seen.append((word, number)), "go", threads=threads)
        assert sorted(seen) == [("go", number) for number in range(threads)]
    team.close()


def test_an_error_in_a_worker_reaches_the_caller():
    team = Team(2)

    def fail(number):
        if number == 1:
            raise ValueError("in a thread")

    with pytest.raises(ValueError, match="in a thread"):
        team.run(fail)
    team.run(lambda number: None)
    team.close()


def test_an_error_of_look_waits_for_the_workers():
    """They use memory that the caller's exception would set free."""
    team, stopped, back = Team(2), threading.Event(), []

    def work(number):
        assert stopped.wait(10)
        time.sleep(0.02)
        back.append(number)

    def look():
        raise Enough

    with pytest.raises(Enough):
        team.run(work, look=look, stop=stopped.set, every=0.01)
    assert sorted(back) == [0, 1]
    back.clear()
    team.run(lambda number: back.append(number))
    assert sorted(back) == [0, 1]
    team.close()


def test_closed_threads_end():
    before = set(threading.enumerate())
    team = Team(4)
    workers = set(threading.enumerate()) - before
    assert len(workers) == 4
    team.close()
    for worker in workers:
        worker.join(10)
        assert not worker.is_alive()


# --- the machine ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
def test_progress_is_seen_and_a_stop_is_heeded(threads):
    with long_work(threads) as pair:
        seen = []

        def look():
            seen.append((pair.machine.progress, pair.machine.totals[layout.TOTAL_ROWS]))
            if pair.machine.progress > 0:
                pair.machine.stop()

        outcome = train(pair, look)
        assert 0 < outcome.next_step < pair.steps
        assert outcome.finite
        assert pair.machine.totals[layout.TOTAL_ROWS] == 8 * outcome.next_step
        assert [step for step, _ in seen] == sorted(step for step, _ in seen)
        # and it goes on from there
        first = outcome.next_step
        again = train(pair, look, first)
        assert again.next_step > first


def test_an_error_while_training_leaves_a_machine_that_can_go_on():
    with long_work() as pair:

        def look():
            raise Enough

        with pytest.raises(Enough):
            train(pair, look)
        done = pair.machine.progress
        assert 0 < done < pair.steps
        outcome = train(pair, lambda: pair.machine.stop(), done)
        assert outcome.next_step > done


@pytest.mark.parametrize("threads", [1, 3])
def test_rows_are_evaluated_some_at_a_time_to_the_same_bits(monkeypatch, threads):
    with long_work(threads) as pair:
        rows = pair.rows.rows("float32")
        outputs, losses = pair.machine.evaluate(rows)
        monkeypatch.setattr(machine, "EVALUATED_ROWS", 3 * layout.ROW_BLOCK)
        in_parts = pair.machine.evaluate(rows)
        assert pair.machine.progress == len(rows) == 2000
    assert outputs.any()
    assert losses.all()
    assert in_parts[0].tobytes() == outputs.tobytes()
    assert in_parts[1].tobytes() == losses.tobytes()


def test_a_stop_between_parts_of_an_evaluation_ends_it(monkeypatch):
    monkeypatch.setattr(machine, "EVALUATED_ROWS", layout.ROW_BLOCK)
    with long_work(1) as pair:
        rows, run = pair.rows.rows("float32"), machine.Machine._run

        def run_and_stop(*arguments, **given):
            run(*arguments, **given)
            if pair.machine.progress == 3 * layout.ROW_BLOCK:
                pair.machine.stop()

        monkeypatch.setattr(machine.Machine, "_run", run_and_stop)
        with pytest.raises(Halted):
            pair.machine.evaluate(rows)
        assert pair.machine.progress == 3 * layout.ROW_BLOCK
        monkeypatch.undo()
        assert pair.outputs().shape == (2000, 3)


def test_a_stopped_evaluation_has_no_result():
    with long_work(1) as pair:
        rows = Rows(np.resize(pair.rows.rows("float32").x, (300_000, 40)))
        with pytest.raises(Halted):
            pair.machine.evaluate(rows, look=pair.machine.stop)
        assert pair.machine.progress < 300_000
        assert pair.outputs().shape == (2000, 3)


def test_an_evaluation_without_targets_has_outputs_alone():
    config = configure([{"activation": "tanh"}])
    with Pair(config, examples(200, 3, 2)) as pair:
        rows = pair.rows.rows("float64")
        with_targets, losses = pair.machine.evaluate(rows)
        assert losses.all()
        rows.values = None
        outputs, losses = pair.machine.evaluate(rows)
        np.testing.assert_array_equal(outputs, with_targets)
        assert not losses.any()


def test_no_rows_have_no_outputs():
    with Pair(configure([{}]), examples(4, 3, 2)) as pair:
        rows = pair.rows.rows("float64")
        rows = Rows(rows.x[:0], values=rows.values[:0])
        outputs, losses = pair.machine.evaluate(rows)
        assert outputs.shape == (0, 2)
        assert losses.shape == (0,)


def test_many_classes_have_no_confusion_matrix():
    rows = examples(600, 3, 300, "cross_entropy")
    with Pair(configure([{"activation": "softmax"}], "cross_entropy"), rows, batch_size=100) as pair:
        pair.rate = 0.0
        pair.train()
        assert len(pair.machine.totals) == layout.TOTALS_HEAD
        right = (pair.coding.predicted(pair.outputs()) == rows.classes).sum()
        assert pair.machine.totals[layout.TOTAL_CORRECT] == right
