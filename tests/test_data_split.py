"""Random splits: stratified, complete, reproducible by seed alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlp_cli.data.split import largest_remainders, split
from mlp_cli.errors import DataError


def whole(parts):
    return np.sort(np.concatenate(list(parts.values())), kind="stable")


def test_parts_are_disjoint_complete_and_in_order():
    parts = split(1000, {"validation": 0.15, "test": 0.2}, None, 7)
    assert {part: len(rows) for part, rows in parts.items()} == {"test": 200, "validation": 150, "train": 650}
    assert np.array_equal(whole(parts), np.arange(1000))
    for rows in parts.values():
        assert (np.diff(rows) > 0).all()
        assert abs(rows.mean() - 500) < 60  # they come from everywhere


def test_the_seed_alone_decides():
    classes = np.arange(300) % 7
    for given_classes in (None, classes):
        one = split(300, {"validation": 0.1, "test": 0.2}, given_classes, 3)
        again = split(300, {"test": 0.2, "validation": 0.1}, given_classes, 3)
        other = split(300, {"validation": 0.1, "test": 0.2}, given_classes, 4)
        assert all(np.array_equal(one[part], again[part]) for part in one)
        assert not np.array_equal(one["test"], other["test"])
        wider = split(300, {"validation": 0.3, "test": 0.2}, given_classes, 3)
        assert np.array_equal(one["test"], wider["test"])  # another validation fraction leaves the test rows alone


def test_these_very_rows_for_ever():
    assert split(12, {"test": 0.25}, None, 0)["test"].tolist() == [1, 6, 11]
    assert split(12, {"test": 0.5}, np.array([0, 1] * 6), 1)["test"].tolist() == [0, 1, 5, 8, 10, 11]


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    validation=st.sampled_from([None, 0.1, 0.25, 0.5]),
    test=st.sampled_from([None, 0.05, 0.3]),
    seed=st.integers(0, 2**32),
)
def test_strata_have_their_share(sizes, validation, test, seed):
    classes = np.repeat(np.arange(len(sizes)), sizes)
    rows = len(classes)
    try:
        parts = split(rows, {"validation": validation, "test": test}, classes, seed)
    except DataError:
        assert rows * min(fraction for fraction in (validation, test) if fraction) < 1 or min(sizes) <= 3
        return
    assert np.array_equal(whole(parts), np.arange(rows))
    for number, size in enumerate(sizes):
        assert (classes[parts["train"]] == number).any()
        for part, fraction in (("validation", validation), ("test", test)):
            if fraction and size > 10:
                assert abs((classes[parts[part]] == number).sum() - size * fraction) <= 2 + len(sizes)


def test_exact_shares():
    classes = np.repeat([0, 1, 2], [50, 30, 20])
    parts = split(100, {"validation": 0.1, "test": 0.2}, classes, 5)
    assert np.bincount(classes[parts["test"]]).tolist() == [10, 6, 4]
    assert np.bincount(classes[parts["validation"]]).tolist() == [5, 3, 2]


@pytest.mark.parametrize(
    ("quotas", "count", "spare", "shares"),
    [
        ([1.2, 2.5, 0.3], 4, [9, 9, 9], [1, 3, 0]),
        ([0.5, 0.5, 0.5], 2, [9, 9, 9], [1, 1, 0]),
        ([2.5, 0.5], 3, [1, 9], [1, 2]),
        ([2.5, 0.5], 3, [0, 0], [0, 0]),
    ],
)
def test_largest_remainders(quotas, count, spare, shares):
    assert largest_remainders(np.array(quotas), count, np.array(spare)).tolist() == shares


def test_parts_without_rows_are_refused():
    with pytest.raises(DataError, match=r"data\.split\.test: 0\.01 of 20 rows leaves no row for test; expected"):
        split(20, {"test": 0.01})
    with pytest.raises(DataError, match="leaves no row for test beside one of each class for training"):
        split(3, {"test": 0.5}, np.arange(3))
    with pytest.raises(DataError, match=r"0\.5 of 1 row leaves no row"):
        split(1, {"validation": 0.5})


def test_a_class_of_one_row_stays_for_training():
    classes = np.array([0] * 20 + [1])
    for seed in range(20):
        assert 20 in split(21, {"test": 0.5}, classes, seed)["train"]


def test_no_split_asked_for():
    assert split(3, {"validation": None, "test": None})["train"].tolist() == [0, 1, 2]
