"""Cuts rows into training, validation and test parts at random, the same way for the same seed."""

import numpy as np

from mlp_cli import rng
from mlp_cli.errors import OptionError
from mlp_cli.wording import plural

ORDER = ("test", "validation")  # the test rows come first, so that another validation fraction leaves them alone


def split(rows, fractions, classes=None, seed=0):
    """Cut 0..rows-1 into {"train": ..., "validation": ..., "test": ...} of ascending int64 row numbers.

    `fractions` maps "validation" and "test" to a fraction of all rows (None or 0: no such part). With `classes`, class
    numbers (rows,), each part has every class in its proportion, by largest remainders, and at least one row of each
    class stays for training. It all depends on seed, sizes and classes alone. OptionError for a part without rows.
    """
    wanted = {part: fractions[part] for part in ORDER if fractions.get(part)}
    order = rng.permutation(seed, "split", rows)
    if classes is None:
        groups = [order]
    else:
        by_class = order[np.argsort(classes[order], kind="stable")]
        sizes = np.bincount(classes)
        groups = np.split(by_class, np.cumsum(sizes)[:-1])
    taken = np.zeros(len(groups), np.int64)
    sizes = np.array([len(group) for group in groups], np.int64)
    parts = {}
    for part, fraction in wanted.items():
        count = int(rows * fraction + 0.5)
        spare = np.maximum(sizes - taken - 1, 0)
        shares = largest_remainders(sizes * fraction, count, spare)
        if not shares.any():
            raise OptionError(
                f"data.split.{part}",
                f"{fraction:g} of {plural(rows, 'row')} leaves no row for {part}"
                f"{' beside one of each class for training' if classes is not None else ''}; expected a larger "
                "fraction or more data",
            )
        chosen = [group[first : first + share] for group, first, share in zip(groups, taken, shares, strict=True)]
        parts[part] = np.sort(np.concatenate(chosen), kind="stable")
        taken += shares
    rest = [group[first:] for group, first in zip(groups, taken, strict=True)]
    parts["train"] = np.sort(np.concatenate(rest), kind="stable")
    return parts


def largest_remainders(quotas, count, spare):
    """Share `count` among groups by their quotas, whole parts first, then by the largest remainders, ties to the first.

    No group gives more than its spare; what it cannot give, the next ones do. int64, of the length of quotas.
    """
    shares = np.minimum(np.floor(quotas).astype(np.int64), spare)
    by_remainder = np.argsort(-(quotas - np.floor(quotas)), kind="stable")
    left = count - int(shares.sum())
    while left > 0 and (shares < spare).any():
        for group in by_remainder:
            if left > 0 and shares[group] < spare[group]:
                shares[group] += 1
                left -= 1
    return shares
