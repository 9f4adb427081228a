"""Every schedule against a written-out list; five epochs of two steps unless said otherwise."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from mlp_cli import vocab
from mlp_cli.errors import ConfigError
from mlp_cli.schedules import SCHEDULES, Plateau, learning_rates

NEED_TOTAL = ["polynomial", "cosine", "one_cycle", "flat_cosine", "coslog"]
OPTIONS = {
    "constant": {},
    "step": {"every": 2, "gamma": 0.5},
    "multistep": {"milestones": [1, 3.5], "gamma": 0.1},
    "exponential": {"gamma": 0.25},
    "polynomial": {"power": 1.0, "final": 0.0},
    "cosine": {"final": 0.0},
    "cosine_restarts": {"period": 2, "factor": 1.0, "final": 0.0},
    "one_cycle": {"peak": 1.0, "final": None},
    "flat_cosine": {"final": 0.0},
    "coslog": {"cycles": 4},
    "plateau": {"metric": "loss", "factor": 0.1, "patience": 10},
    "inverse_time": {"c1": 6.0, "c2": 2.0, "per": "step"},
    "inverse_scaling": {"power": 0.5, "per": "step"},
}


def rate(schedule, **options):
    """A learning_rate section with the schedule's defaults."""
    values = {"initial": 1.0, "warmup_epochs": 0.0, **OPTIONS[schedule], **options}
    return SimpleNamespace(schedule=schedule, **values)


def rates(schedule, count=10, first=1, steps_per_epoch=2, total_steps=10, scale=1.0, **options):
    return learning_rates(rate(schedule, **options), first, count, steps_per_epoch, total_steps, scale)


def assert_rates(result, expected):
    np.testing.assert_allclose(result, expected, rtol=1e-13, atol=1e-15)


def test_every_word_has_its_schedule():
    assert tuple(SCHEDULES) == vocab.SCHEDULES
    assert set(OPTIONS) == set(vocab.SCHEDULES)


def test_constant():
    assert_rates(rates("constant", initial=0.3), [0.3] * 10)


def test_step():
    assert_rates(rates("step"), [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25])
    assert_rates(rates("step", every=0.5), [2.0**-k for k in range(10)])


def test_step_falls_on_the_step_that_the_decimals_mean():
    """1.1 epochs of 10 steps are 11 steps, although 1.1 * 10 > 11 in float64."""
    result = rates("step", every=1.1, steps_per_epoch=10, count=34, total_steps=50)
    assert_rates(result, [1] * 11 + [0.5] * 11 + [0.25] * 11 + [0.125])


def test_multistep():
    assert_rates(rates("multistep"), [1, 1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01])
    assert_rates(rates("multistep", milestones=[]), [1] * 10)


def test_exponential():
    assert_rates(rates("exponential"), [2.0**-k for k in range(10)])


def test_polynomial():
    assert_rates(rates("polynomial"), [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    expected = [0.1 + 0.9 * (1 - k / 10) ** 2 for k in range(10)]
    assert_rates(rates("polynomial", power=2.0, final=0.1), expected)


def test_cosine():
    expected = [0.1 + 0.9 * (1 + math.cos(math.pi * k / 10)) / 2 for k in range(10)]
    assert_rates(rates("cosine", final=0.1), expected)
    assert_rates(rates("cosine", total_steps=4, count=4), [1, 0.8535533905932737, 0.5, 0.1464466094067262])


def test_cosine_restarts():
    wave = [1, 0.8535533905932737, 0.5, 0.1464466094067262]
    assert_rates(rates("cosine_restarts"), [*wave, *wave, *wave[:2]])


def test_cosine_restarts_with_growing_periods():
    result = rates("cosine_restarts", period=1, factor=2.0, final=0.5, count=15)
    expected = [0.5 + 0.5 * (1 + math.cos(math.pi * i / n)) / 2 for n in (2, 4, 8) for i in range(n)]
    assert_rates(result, [*expected, 1])


def test_cosine_restarts_where_the_period_is_not_a_whole_number_of_steps():
    result = rates("cosine_restarts", period=1.25, count=6)
    assert_rates(result, [(1 + math.cos(math.pi * phase / 2.5)) / 2 for phase in (0, 1, 2, 0.5, 1.5, 0)])
    assert_rates(
        rates("cosine_restarts", period=0.1, steps_per_epoch=30, count=10),
        rates("cosine_restarts", period=3, steps_per_epoch=1),
    )


def test_one_cycle():
    """Three steps up, seven down, as PyTorch's OneCycleLR(max_lr=1, total_steps=10) gives them."""
    expected = [
        0.04,
        0.52,
        1.0,
        0.9504846320134737,
        0.8117456539497631,
        0.6112620219362893,
        0.38874197806371067,
        0.18825834605023688,
        0.04951936798652637,
        4e-06,
    ]
    assert_rates(rates("one_cycle", initial=None), expected)


def test_one_cycle_from_and_to_given_rates():
    result = rates("one_cycle", initial=0.2, final=0.1, peak=0.8)
    assert_rates(result[[0, 1, 2, 9]], [0.2, 0.5, 0.8, 0.1])


@pytest.mark.parametrize("total", [1, 2, 3, 4])
def test_one_cycle_of_a_very_short_run_ends_at_final(total):
    result = rates("one_cycle", initial=0.2, final=0.1, total_steps=total, count=total)
    assert np.all((result >= 0.1 - 1e-12) & (result <= 1))
    assert result[-1] == pytest.approx(0.1)


def test_flat_cosine():
    falling = [(1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)]
    assert_rates(rates("flat_cosine", total_steps=16, count=16), [1] * 12 + falling)


def test_coslog():
    """Four waves over 15 steps, each twice as long as the one before: they end at p = 1/15, 3/15, 7/15, 1."""
    result = rates("coslog", total_steps=15, count=16)
    assert_rates(result[[0, 1, 3, 7, 15]], [0] * 5)
    assert_rates(result, [(1 - math.cos(2 * math.pi * math.log2(1 + k))) / 2 for k in range(16)])


def test_inverse_time():
    assert_rates(rates("inverse_time", count=4), [2, 1.5, 1.2, 1])
    assert_rates(rates("inverse_time", count=5, per="epoch"), [2, 2, 1.5, 1.5, 1.2])


def test_inverse_scaling():
    assert_rates(rates("inverse_scaling", count=4), [1, 2**-0.5, 3**-0.5, 0.5])
    assert_rates(rates("inverse_scaling", count=5, power=1.0, per="epoch"), [1, 1, 1 / 2, 1 / 2, 1 / 3])


def test_warmup_climbs_before_the_schedule():
    assert_rates(rates("constant", warmup_epochs=2), [0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1])
    assert_rates(rates("constant", warmup_epochs=0.75, count=3), [1 / 1.5, 1, 1])
    assert_rates(rates("constant", warmup_epochs=9), [k / 18 for k in range(1, 11)])


def test_schedules_of_the_whole_run_start_after_the_warmup():
    assert_rates(rates("polynomial", warmup_epochs=1), [0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])
    plain = rates("one_cycle", initial=None, total_steps=8, count=8)
    assert_rates(rates("one_cycle", initial=None, warmup_epochs=1), [0.02, 0.04, *plain])


def test_the_others_count_from_the_start():
    assert_rates(rates("step", warmup_epochs=2, every=1), [0.25, 0.5, 0.375, 0.5, *rates("step", every=1)[4:]])


@pytest.mark.parametrize("schedule", NEED_TOTAL)
def test_beyond_the_end_the_rate_stays(schedule):
    result = rates(schedule, count=14)
    assert np.isfinite(result).all()
    assert_rates(result[11:], [result[10]] * 3)


@pytest.mark.parametrize("schedule", NEED_TOTAL)
def test_a_run_bounded_by_time_alone_cannot_have_them(schedule):
    with pytest.raises(ConfigError, match=f"{schedule} needs the length of the run"):
        rates(schedule, total_steps=None)


@pytest.mark.parametrize("schedule", sorted(set(SCHEDULES) - set(NEED_TOTAL)))
def test_the_others_do_without_the_total(schedule):
    assert np.array_equal(rates(schedule, total_steps=None), rates(schedule))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("options", [{}, {"warmup_epochs": 0.7}])
def test_all_at_once_is_one_by_one(schedule, options):
    together = rates(schedule, count=10, **options)
    alone = [rates(schedule, first=k, count=1, **options)[0] for k in range(1, 11)]
    assert np.array_equal(together, alone)
    assert together.dtype == np.float64
    assert rates(schedule, count=0, **options).shape == (0,)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_scale_multiplies_every_rate(schedule):
    assert_rates(rates(schedule, scale=0.5), 0.5 * rates(schedule))


def test_plateau_falls_after_more_than_patience_bad_epochs():
    plateau = Plateau(factor=0.1, patience=2, higher_is_better=False)
    losses = [1.0, 0.9, 0.95, 0.9, 0.89999, 0.95, 0.5, 0.6, 0.6, 0.6, 0.6]
    falls = [plateau.update(loss) for loss in losses]
    assert [i for i, fell in enumerate(falls) if fell] == [4, 9]
    assert plateau.scale == pytest.approx(0.01)
    assert_rates(rates("plateau", scale=plateau.scale), [0.01] * 10)


def test_plateau_of_a_metric_that_should_rise():
    plateau = Plateau(factor=0.5, patience=0, higher_is_better=True)
    assert [plateau.update(value) for value in (-2.0, -1.0, -1.5, -0.5, 0.2, 0.2)] == [
        False,
        False,
        True,
        False,
        False,
        True,
    ]


def test_plateau_takes_nan_and_infinity_for_bad_epochs():
    plateau = Plateau(factor=0.5, patience=1, higher_is_better=False)
    assert [plateau.update(value) for value in (math.nan, math.inf, 3.0, math.nan, 2.0)] == [
        False,
        True,
        False,
        False,
        False,
    ]
    assert plateau.best == 2.0


def test_plateau_goes_on_from_its_state():
    losses = [3.0, 2.0, 2.0, 2.1, 1.0, 1.0, 1.0, 1.0, 1.0]
    whole = Plateau(0.3, 1, higher_is_better=False)
    expected = [whole.update(loss) for loss in losses]
    for cut in range(len(losses)):
        first, second = (Plateau(0.3, 1, higher_is_better=False) for _ in range(2))
        falls = [first.update(loss) for loss in losses[:cut]]
        second.restore(json.loads(json.dumps(first.state())))
        assert falls + [second.update(loss) for loss in losses[cut:]] == expected
        assert second.state() == whole.state()
