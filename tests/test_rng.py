"""Random numbers: the published Philox vectors, and the i-th number whatever n is."""

import numpy as np
import pytest

from mlp_cli import rng

# kat_vectors of Random123: counter, key, expected
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
DRAWS = [rng.words, rng.long_words, rng.uniform, rng.normal]


def numbers(text):
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(counter, key, expected):
    low, high = numbers(key)
    result = rng.philox(*numbers(counter), seed=low | high << 32)
    assert [int(word) for word in result] == numbers(expected)
    assert all(word.dtype == np.uint32 for word in result)


def test_philox_broadcasts_its_counters():
    first, *_ = rng.philox(np.arange(5)[:, None], np.arange(3), 7, 9, seed=11)
    assert first.shape == (5, 3)
    for i in range(5):
        for j in range(3):
            assert first[i, j] == rng.philox(i, j, 7, 9, seed=11)[0]


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_outside_64_bits_is_refused(seed):
    with pytest.raises(ValueError, match="seed must be from 0"):
        rng.words(seed, "init", 1)


def test_words_come_from_the_documented_counter():
    words = rng.words(5, "dropout", 11, epoch=4, substream=3, draw=2)
    for i, word in enumerate(words):
        assert word == rng.philox(i // 4, 2, 5 | 3 << 8, 4, seed=5)[i % 4]


@pytest.mark.parametrize("draw", DRAWS)
def test_the_ith_number_does_not_depend_on_n(draw):
    many = draw(1, "noise", 101, epoch=2)
    for n in (0, 1, 2, 3, 4, 5, 7, 100):
        assert np.array_equal(draw(1, "noise", n, epoch=2), many[:n])


@pytest.mark.parametrize("draw", [*DRAWS, rng.permutation])
def test_each_part_of_the_key_gives_other_numbers(draw):
    ways = [
        draw(1, "init", 50),
        draw(2, "init", 50),
        draw(1 + 2**32, "init", 50),
        draw(1, "split", 50),
        draw(1, "init", 50, epoch=1),
        draw(1, "init", 50, substream=1),
        draw(1, "init", 50, draw=1),
    ]
    assert len({way.tobytes() for way in ways}) == len(ways)


def test_uniform_numbers_lie_evenly_in_the_unit_interval():
    u = rng.uniform(0, "draw", 100_000)
    assert u.dtype == np.float64
    assert u.min() >= 0
    assert u.max() < 1
    assert np.abs(np.bincount((u * 20).astype(int), minlength=20) - 5000).max() < 300
    assert abs(np.mean(u[:-1] * u[1:]) - 0.25) < 0.005


def test_uniform_uses_53_bits_of_two_words():
    high, low = rng.words(3, "draw", 2)
    assert rng.uniform(3, "draw", 1)[0] == ((int(high) << 32 | int(low)) >> 11) / 2**53


def test_normal_numbers_have_the_moments_of_the_normal_distribution():
    z = rng.normal(0, "init", 100_000)
    assert abs(z.mean()) < 0.015
    assert abs(z.std() - 1) < 0.01
    assert abs(np.mean(z**3)) < 0.04
    assert abs(np.mean(z**4) - 3) < 0.1
    assert abs(np.mean(z[0::2] * z[1::2])) < 0.02
    assert abs(np.mean(np.abs(z) < 1) - 0.6827) < 0.006


def test_normal_is_box_and_mullers():
    u, v = rng.uniform(9, "init", 2)
    radius = np.sqrt(-2 * np.log(1 - u))
    expected = [radius * np.cos(2 * np.pi * v), radius * np.sin(2 * np.pi * v)]
    np.testing.assert_allclose(rng.normal(9, "init", 2), expected, rtol=1e-13)


@pytest.mark.parametrize("n", [0, 1, 2, 1000])
def test_a_permutation_holds_every_number_once(n):
    order = rng.permutation(4, "shuffle", n, epoch=1)
    assert order.dtype == np.int64
    assert np.array_equal(np.sort(order), np.arange(n))


def test_every_permutation_of_three_is_equally_likely():
    seen = {}
    for epoch in range(1200):
        order = tuple(rng.permutation(0, "shuffle", 3, epoch=epoch))
        seen[order] = seen.get(order, 0) + 1
    assert len(seen) == 6
    assert max(abs(count - 200) for count in seen.values()) < 60


def test_the_numbers_stay_what_they_are():
    """Checkpoints resume by these numbers: a change here breaks every run that exists."""
    assert rng.words(7, "shuffle", 3, epoch=2).tolist() == [3034624474, 3706749452, 3274046058]
    assert [x.hex() for x in rng.normal(7, "init", 3).tolist()] == [
        "-0x1.e487812929e78p+0",
        "0x1.73ecdedaf5107p+0",
        "0x1.071012b6a67a4p+1",
    ]
    assert rng.permutation(7, "shuffle", 8, epoch=1).tolist() == [5, 7, 1, 6, 4, 2, 3, 0]
