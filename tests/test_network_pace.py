"""The choice of threads by the clock, with times that are made up, and that training does not show it."""

import math

import pytest
from engine import DTYPES, Pair, configure, examples

from mlp_cli.network import pace
from mlp_cli.network.pace import FIRST_WAIT, LONG_STEP, LONGEST_WAIT, Pace


def history(chooser, seconds_of, stretches):
    """What was chosen for so many stretches whose steps take seconds_of[threads], and the seconds of each stretch."""
    found = []
    for _ in range(stretches):
        threads, steps = chooser.stretch()
        chooser.took(threads, steps, steps * seconds_of[threads])
        found.append((threads, steps * seconds_of[threads]))
    return found


def test_one_thread_has_no_choice():
    assert Pace(1, 1e-5).stretch() == (1, math.inf)


def test_long_steps_keep_their_threads():
    chooser = Pace(4, 1e-5)
    history(chooser, {1: 4 * LONG_STEP, 4: 1.1 * LONG_STEP}, 1)
    assert chooser.stretch() == (4, math.inf)


def test_all_threads_while_they_are_faster_and_ever_fewer_trials():
    found = history(Pace(2, 1e-5), {1: 2e-5, 2: 1e-5}, 200)
    total = sum(seconds for _, seconds in found)
    alone = sum(seconds for threads, seconds in found if threads == 1)
    assert total > 20 * LONGEST_WAIT
    assert alone < 0.005 * total


def test_one_thread_while_that_is_faster():
    found = history(Pace(2, 1e-5), {1: 1e-5, 2: 1.4e-5}, 200)
    total = sum(seconds for _, seconds in found)
    assert sum(seconds for threads, seconds in found if threads == 2) < 0.005 * total + 2 * FIRST_WAIT


def test_the_choice_follows_the_machine():
    chooser = Pace(2, 1e-5)
    history(chooser, {1: 1e-5, 2: 1.4e-5}, 40)
    assert chooser.chosen == 1
    history(chooser, {1: 2e-5, 2: 1e-5}, 40)
    assert chooser.chosen == 2


def test_steps_that_were_not_made_say_nothing():
    chooser = Pace(2, 1e-5)
    before = vars(chooser).copy()
    chooser.stretch()
    chooser.took(2, 0, 1.0)
    assert vars(chooser) == before


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch_size", [16, 300])
def test_a_change_of_threads_within_an_epoch_does_not_show(batch_size, dtype, monkeypatch):
    """Trials of a step or two all the time, against one thread throughout."""
    config = configure(
        [{"units": 40, "activation": "tanh", "dropout": 0.2}, {"kind": "batch_norm"}, {"activation": "softmax"}],
        "cross_entropy", dtype=dtype, optimizer="adam", rate=0.01,
    )  # fmt: skip
    digests, used = set(), []
    for name in ("EARLY", "FIRST_WAIT", "LONGEST_WAIT"):
        monkeypatch.setattr(pace, name, 1e-5)
    monkeypatch.setattr(pace, "TRIAL_SECONDS", 0.0)
    monkeypatch.setattr(pace, "LONG_STEP", 1e9)
    for threads in (1, 3):
        with Pair(config, examples(900, 20, 3, "cross_entropy", weighted=True), batch_size, threads=threads) as pair:
            took = pair.machine.pace.took

            def noted(threads, steps, seconds, took=took):
                used.append(threads)
                took(threads, steps, seconds)

            pair.machine.pace.took = noted
            for epoch in (1, 2, 3, 4):
                pair.train(epoch=epoch)
            digests.add(pair.digest())
    assert {1, 3} <= set(used)
    assert len(digests) == 1
