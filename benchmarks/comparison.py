"""A comparison: how fast we are relative to something measured in turns with us, beside what must be reached."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from mlp_cli.benchmark import alternate


@dataclass(frozen=True)
class Comparison:
    """`ours` and `theirs` in seconds (a sample, or whatever the title says); `speed` is our speed relative to theirs.

    quartiles: of the speed over the rounds. least: the speed that must be reached, None where nothing is demanded.
    share: whether the speed is a share of something that can hardly be exceeded, to be read in percent.
    """

    title: str
    variant: str
    against: str
    threads: int
    ours: float
    theirs: float
    speed: float
    quartiles: tuple[float, float]
    least: float | None = None
    share: bool = False

    @property
    def holds(self) -> bool | None:
        """Whether what must be reached is; None where nothing is demanded."""
        return None if self.least is None else self.speed >= self.least


def take_turns(contenders: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each contender measured in each round, after a round that does not count."""
    times = alternate(list(contenders.values()), 0.0, rounds)
    return dict(zip(contenders, times, strict=True))


def compare(
    title: str,
    variant: str,
    against: str,
    threads: int,
    ours: list[float],
    theirs: list[float],
    *,
    least: float | None = None,
    share: bool = False,
) -> Comparison:
    """Both sides of the same rounds. The speed is the median of each round's theirs / ours, not a ratio of medians."""
    speeds = [their / our for our, their in zip(ours, theirs, strict=True)]
    low, _, high = statistics.quantiles(speeds, n=4, method="inclusive") if len(speeds) > 1 else speeds * 3
    return Comparison(
        title, variant, against, threads, statistics.median(ours), statistics.median(theirs),
        statistics.median(speeds), (low, high), least, share,
    )  # fmt: skip


def share_of_limit(
    title: str,
    variant: str,
    limit: str,
    threads: int,
    ours: list[float],
    seconds_per_flop: list[float],
    flops: int,
    least: float | None,
) -> Comparison:
    """What part of a limit is reached, where `ours` are the seconds of a sample of so many flops."""
    bound = [flops * seconds for seconds in seconds_per_flop]
    return compare(title, variant, limit, threads, ours, bound, least=least, share=True)
