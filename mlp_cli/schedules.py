"""The learning rate of every update, as a pure function of its number.

Training asks for a whole epoch of rates at once. Only plateau remembers anything, and what it remembers is a few
numbers that go into the checkpoint.
"""

import math
from dataclasses import dataclass

import numpy as np

from mlp_cli import numerics
from mlp_cli.errors import ConfigError

ONE_CYCLE_RISE = 0.3  # part of the run in which one_cycle climbs to its peak
FLAT_PART = 0.75  # part of the run in which flat_cosine stays where it is
LARGEST = float(np.finfo(np.float64).max)
PLATEAU_THRESHOLD = 1e-4  # an improvement by less than this part does not count
ALMOST = 1e-9  # 1.1 epochs of 10 steps are 11 steps, although 1.1 * 10 > 11 in float64


def learning_rates(config, first, count, steps_per_epoch, total_steps=None, scale=1.0):
    """Rates of the updates first, ..., first + count - 1, counted from 1: float64 (count,).

    `config` is the learning_rate section. `total_steps` is the length of the run, None where only time bounds it.
    Every rate is multiplied by `scale`, a Plateau's for example, and in the W = warmup_epochs * steps_per_epoch
    updates of the warm-up by k / W. ConfigError where the schedule needs the length of the run and there is none.
    """
    update = np.arange(first, first + count, dtype=np.float64)
    warmup = _steps(config.warmup_epochs, steps_per_epoch)
    clock = Clock(config.schedule, update, steps_per_epoch, warmup, total_steps)
    # options may be of any size: what overflows is the largest number there is, and the run says that it diverged
    with np.errstate(over="ignore", under="ignore"):
        rates = np.clip(SCHEDULES[config.schedule](config, clock) * np.ones(count), 0.0, LARGEST)
        if warmup > 0:
            rates = rates * np.minimum(update / warmup, 1.0)
        return rates * scale


@dataclass(frozen=True)
class Clock:
    """Where in the run some updates stand."""

    schedule: str
    update: np.ndarray  # k = 1, 2, ...
    steps_per_epoch: int
    warmup: float  # in steps
    total_steps: int | None

    @property
    def step(self):
        """Completed steps s = k - 1."""
        return self.update - 1.0

    @property
    def after_warmup(self):
        """(steps since the end of the warm-up, at least 0; length of the run from there on)."""
        if self.total_steps is None:
            raise ConfigError(
                f"learning_rate.schedule: {self.schedule} needs the length of the run, which max_time alone "
                "does not tell; give training.epochs or training.max_steps, or choose another schedule"
            )
        return np.maximum(self.step - self.warmup, 0.0), max(self.total_steps - self.warmup, 1.0)

    @property
    def progress(self):
        """p = (s - W) / (T - W) within [0, 1]: 0 until the warm-up ends, 1 at the end of the run."""
        step, length = self.after_warmup
        return np.minimum(step / length, 1.0)

    def steps(self, epochs):
        """A length in epochs, given in steps: one at least, for nothing happens within a step."""
        return min(max(_steps(epochs, self.steps_per_epoch), 1.0), LARGEST)


def constant(config, clock):
    """initial"""
    return config.initial


def polynomial(config, clock):
    """final + (initial - final) (1 - p)^power; a straight line for power 1."""
    falling = numerics.power(1.0 - clock.progress, config.power)
    return config.final + (config.initial - config.final) * falling


def cosine(config, clock):
    """Half a cosine from initial to final (Loshchilov and Hutter, 2017, without restarts)."""
    return _half_cosine(clock.progress, config.initial, config.final)


def flat_cosine(config, clock):
    """initial for three quarters of the run, then half a cosine to final."""
    falling = np.maximum((clock.progress - FLAT_PART) / (1.0 - FLAT_PART), 0.0)
    return _half_cosine(falling, config.initial, config.final)


def cosine_restarts(config, clock):
    """SGDR: a half cosine over `period` epochs, again and again, each `factor` times as long as the one before."""
    length = clock.steps(config.period)
    if config.factor == 1.0:
        phase = clock.step - _completed(clock.step, length) * length
        return _half_cosine(np.maximum(phase, 0.0) / length, config.initial, config.final)
    starts, lengths = [0.0], [length]
    while clock.update.size and starts[-1] + lengths[-1] <= clock.update[-1]:
        starts.append(starts[-1] + lengths[-1])
        lengths.append(lengths[-1] * config.factor)
    starts, lengths = np.array(starts), np.array(lengths)
    cycle = np.searchsorted(starts, clock.step * (1.0 + ALMOST), side="right") - 1
    phase = np.maximum(clock.step - starts[cycle], 0.0)
    return _half_cosine(np.minimum(phase / lengths[cycle], 1.0), config.initial, config.final)


def one_cycle(config, clock):
    """Half a cosine from initial up to peak in 30 % of the run, another down to final (Smith and Topin, 2018).

    Steps fall as in PyTorch's OneCycleLR: the first update takes initial, the last one final; by default initial is
    peak / 25 and final initial / 10000.
    """
    initial = config.peak / 25.0 if config.initial is None else config.initial
    final = initial / 1e4 if config.final is None else config.final
    step, length = clock.after_warmup
    top = ONE_CYCLE_RISE * length - 1.0
    falling = np.clip((step - top) / (length - 1.0 - top), 0.0, 1.0)
    down = _half_cosine(falling, config.peak, final)
    if top <= 0.0:
        return down
    up = _half_cosine(np.minimum(step / top, 1.0), initial, config.peak)
    return np.where(step <= top, up, down)


def coslog(config, clock):
    """initial (1 - cos(2 pi log2(1 + (2^cycles - 1) p))) / 2: waves ever longer (RealMLP, Holzmueller et al. 2024)."""
    waves = numerics.log(1.0 + (numerics.power(2.0, config.cycles) - 1.0) * clock.progress) / numerics.LN2
    return config.initial * (0.5 * (1.0 - numerics.cospi(2.0 * waves)))


def exponential(config, clock):
    """initial gamma^e at e epochs, falling with every step."""
    return config.initial * numerics.power(config.gamma, clock.step / clock.steps_per_epoch)


def step(config, clock):
    """initial gamma^j after j times `every` epochs."""
    falls = _completed(clock.step, clock.steps(config.every))
    return config.initial * numerics.power(config.gamma, falls)


def multistep(config, clock):
    """initial gamma^j from the j-th milestone on, milestones in epochs."""
    milestones = np.array(sorted(clock.steps(milestone) for milestone in config.milestones), dtype=np.float64)
    falls = np.searchsorted(milestones, clock.step, side="right")
    return config.initial * numerics.integer_power(config.gamma, falls)


def inverse_scaling(config, clock):
    """initial / k^power at update (or epoch) k."""
    return config.initial / numerics.power(_count(config, clock), config.power)


def inverse_time(config, clock):
    """c1 / (k + c2) at update (or epoch) k."""
    return config.c1 / (_count(config, clock) + config.c2)


SCHEDULES = {
    "constant": constant,
    "step": step,
    "multistep": multistep,
    "exponential": exponential,
    "polynomial": polynomial,
    "cosine": cosine,
    "cosine_restarts": cosine_restarts,
    "one_cycle": one_cycle,
    "flat_cosine": flat_cosine,
    "coslog": coslog,
    "plateau": constant,  # times the scale of a Plateau
    "inverse_time": inverse_time,
    "inverse_scaling": inverse_scaling,
}


class Plateau:
    """Multiplies `scale` by `factor` when a metric has not improved for more than `patience` epochs.

    PyTorch's ReduceLROnPlateau with its relative threshold of 1e-4, but measured from |best|, so that it also asks for
    an improvement where the metric is negative. NaN and infinity are no improvement.
    """

    def __init__(self, factor, patience, higher_is_better):
        self.factor = factor
        self.patience = patience
        self.higher_is_better = higher_is_better
        self.scale = 1.0
        self.best = None
        self.bad_epochs = 0

    def update(self, value):
        """Takes note of an epoch's metric; true if the rate falls now."""
        if self._improves(value):
            self.best = float(value)
            self.bad_epochs = 0
            return False
        self.bad_epochs += 1
        if self.bad_epochs <= self.patience:
            return False
        self.scale *= self.factor
        self.bad_epochs = 0
        return True

    def _improves(self, value):
        if not math.isfinite(value):
            return False
        if self.best is None:
            return True
        margin = PLATEAU_THRESHOLD * abs(self.best)
        return value > self.best + margin if self.higher_is_better else value < self.best - margin

    def state(self):
        """What a checkpoint must keep, as JSON can hold it."""
        return {"scale": self.scale, "best": self.best, "bad_epochs": self.bad_epochs}

    def restore(self, state):
        """Goes on from a `state()`."""
        self.scale, self.best, self.bad_epochs = state["scale"], state["best"], state["bad_epochs"]


def _half_cosine(p, start, end):
    """start at p = 0, end at p = 1, level at both."""
    return end + (start - end) * (0.5 * (1.0 + numerics.cospi(p)))


def _count(config, clock):
    """k = 1, 2, ...: updates or, with per: epoch, epochs."""
    if config.per == "epoch":
        return _completed(clock.step, clock.steps_per_epoch) + 1.0
    return clock.update


def _completed(step, length):
    """How many whole lengths fit into so many steps."""
    return np.floor(step / length + ALMOST)


def _steps(epochs, steps_per_epoch):
    """A length in epochs, in steps: a whole number where rounding alone keeps it from being one."""
    steps = epochs * float(steps_per_epoch)
    nearest = float(np.rint(steps))
    return nearest if abs(steps - nearest) <= ALMOST * max(steps, 1.0) else steps
