"""Random numbers of the kernels: the same words as `mlp_cli.rng`, dropout and noise by counter, orders of rows."""

import numpy as np
import pytest
from engine import DTYPES, Pair, configure, entry, examples, kept, noise, padded_rows, random_words

from mlp_cli import rng
from mlp_cli.kernels import layout
from mlp_cli.kernels import random as kernels
from mlp_cli.kernels.lanes import pointer_to
from mlp_cli.kernels.prepare import prepare
from mlp_cli.vocab import STREAMS

SEED = 0xDEADBEEF12345678
UNITS = (1, 7, 8, 16, 17, 48, 63, 64, 65, 100, 200)
both_types = pytest.mark.parametrize("dtype", DTYPES)


@entry("n(s[:],s[:],i,f,i,i,i,u)")
def dropout(out, x, units, rate, draw, stream, epoch, seed):
    kernels.dropout_row(pointer_to(out), pointer_to(x), units, rate, draw, stream, epoch, seed)


@entry("n(s[:],s[:],i,f,i,i,i,u)")
def add_noise(out, x, units, deviation, draw, stream, epoch, seed):
    kernels.noise_row(pointer_to(out), pointer_to(x), units, deviation, draw, stream, epoch, seed)


def stream(name, number):
    return STREAMS[name] | number << 8


# --- dropout ----------------------------------------------------------------------------------------------------


@both_types
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.999])
def test_dropout_keeps_the_units_that_the_counter_says(rate, dtype):
    for units in UNITS:
        for draw, number, epoch in ((0, 1, 1), (123_456_789, 300, 4_000_000_000)):
            x = np.random.default_rng(units).normal(size=(1, units)).astype(dtype)
            source, _, _ = padded_rows(x, dtype, np.nan)
            out = np.full_like(source, np.nan)
            dropout(dtype, out, source, units, rate, draw, stream("dropout", number), epoch, SEED)
            factor = np.dtype(dtype).type(1.0 / (1.0 - rate))
            expected = np.where(kept(number, rate, [draw], units, epoch, SEED), x * factor, 0)[0]
            np.testing.assert_array_equal(out[:units], expected)
            assert not out[units : layout.padded(units, dtype)].any()


def test_words_are_those_of_the_module_of_random_numbers():
    """The documented mapping, written out once without any array."""
    words = random_words("dropout", 7, [5], 130, 9, SEED)[0]
    for u in (0, 1, 15, 16, 63, 64, 81, 129):
        four = rng.philox(u // 64 * 16 + u % 16, 5, STREAMS["dropout"] | 7 << 8, 9, SEED)
        assert words[u] == four[u % 64 // 16]


def test_dropout_drops_its_share():
    words = kept(1, 0.3, np.arange(2000), 100)
    assert abs(words.mean() - 0.7) < 4 * (0.21 / words.size) ** 0.5
    assert np.abs(words.mean(axis=0) - 0.7).max() < 5 * (0.21 / 2000) ** 0.5


@both_types
def test_every_layer_draw_and_epoch_has_units_of_its_own(dtype):
    masks = [kept(number, 0.5, [draw], 500, epoch) for number in (1, 2) for draw in (0, 1) for epoch in (1, 2)]
    masks.append(kept(1, 0.5, [0], 500, 1, seed=1))
    for i, mask in enumerate(masks):
        for other in masks[:i]:
            assert 0.4 < (mask == other).mean() < 0.6


# --- noise ------------------------------------------------------------------------------------------------------


@both_types
def test_noise_is_what_the_counter_says(dtype):
    for units in UNITS:
        x = np.random.default_rng(units).normal(size=(1, units)).astype(dtype)
        source, _, _ = padded_rows(x, dtype, np.nan)
        out = np.full_like(source, np.nan)
        add_noise(dtype, out, source, units, 0.3, 17, stream("noise", 1), 3, SEED)
        expected = x + noise(1, 0.3, [17], units, 3, SEED)
        np.testing.assert_allclose(out[:units], expected[0], rtol=0, atol={"float32": 1e-6, "float64": 1e-15}[dtype])
        assert not out[units : layout.padded(units, dtype)].any()


def test_noise_is_standard_normal():
    numbers = noise(1, 1.0, np.arange(500), 200).ravel()
    n = numbers.size
    assert abs(numbers.mean()) < 4 / n**0.5
    assert abs((numbers**2).mean() - 1) < 4 * (2 / n) ** 0.5
    assert abs((numbers**3).mean()) < 4 * (15 / n) ** 0.5
    assert abs((numbers**4).mean() - 3) < 4 * (96 / n) ** 0.5
    assert abs((numbers > 1.96).mean() - 0.025) < 4 * (0.025 / n) ** 0.5


# --- orders of rows ---------------------------------------------------------------------------------------------


def uniform(name, index, epoch, seed):
    """A number in [0, 1): the first two words of counter `index`."""
    first, second, _, _ = rng.philox(index, 0, STREAMS[name], epoch, seed)
    return ((int(first) << 32 | int(second)) >> 11) * 2.0**-53


def fisher_yates(rows, first_number, epoch, seed):
    """Exchange row i, from the last down to the second, with one of the rows up to i."""
    for i in range(len(rows) - 1, 0, -1):
        j = int(uniform("shuffle", first_number + i, epoch, seed) * (i + 1))
        rows[i], rows[j] = rows[j], rows[i]
    return rows


def shuffled(n, block, epoch, seed, dtype="float64"):
    rows = np.arange(n, dtype=np.uint32)
    blocks = np.empty(-(-n // block) if block else 0, np.uint32)
    prepare(dtype).shuffle_rows(np.zeros(1, dtype), rows, blocks, block, epoch, seed)
    return rows


@pytest.mark.parametrize("n", [1, 2, 3, 97, 1000])
def test_shuffle_is_fisher_yates(n):
    rows = shuffled(n, 0, 5, SEED)
    assert rows.tolist() == fisher_yates(list(range(n)), 0, 5, SEED)
    assert sorted(rows) == list(range(n))


@pytest.mark.parametrize(("n", "block"), [(10, 3), (100, 7), (100, 10), (100, 99), (64, 1), (5, 5), (5, 9)])
def test_shuffle_of_blocks_keeps_their_rows_together(n, block):
    rows = shuffled(n, block, 2, SEED).tolist()
    assert sorted(rows) == list(range(n))
    if block >= n:
        assert rows == fisher_yates(list(range(n)), 0, 2, SEED)
        return
    order = fisher_yates(list(range(-(-n // block))), n, 2, SEED)
    expected = []
    for number in order:
        inside = list(range(number * block, min((number + 1) * block, n)))
        expected += fisher_yates(inside, len(expected), 2, SEED)
    assert rows == expected


@pytest.mark.parametrize("n", [1, 2, 1000])
def test_draws_with_replacement_are_in_range(n):
    rows = np.full(n, 77, np.uint32)
    prepare("float64").draw_rows(np.zeros(1), rows, 3, SEED)
    assert rows.tolist() == [int(uniform("draw", i, 3, SEED) * n) for i in range(n)]
    assert (rows < n).all()
    if n == 1000:  # the share of rows that are met at all tends to 1 - 1/e
        assert abs(len(set(rows.tolist())) / n - 0.632) < 0.05


def test_shuffle_is_fair():
    """Each place gets each row equally often: 4 rows, 4000 epochs."""
    counts = np.zeros((4, 4))
    for epoch in range(4000):
        counts[np.arange(4), shuffled(4, 0, epoch, 1)] += 1
    assert np.abs(counts - 1000).max() < 5 * (4000 * 3 / 16) ** 0.5


@pytest.mark.parametrize(
    "sampling", ["shuffle", {"name": "shuffle", "block_rows": 8}, "sequential", "with_replacement"], ids=str
)
def test_a_machine_draws_the_same_rows_in_both_types(sampling):
    orders = {}
    for dtype in DTYPES:
        config = configure([{}], dtype=dtype, seed=4, training={"sampling": sampling})
        with Pair(config, examples(50, 2, 1), batch_size=4) as pair:
            orders[dtype] = [pair.machine.draws(config.training.sampling, epoch).tolist() for epoch in (1, 2, 1)]
    assert orders["float32"] == orders["float64"]
    first, second, again = orders["float32"]
    assert first == again
    assert (first == second) == (sampling == "sequential")
    if sampling != "with_replacement":
        assert sorted(first) == list(range(50))


def test_any_seed_of_the_config_is_taken():
    for seed in (0, 1, 2**32, 2**63 - 1):
        with Pair(configure([{}], seed=seed), examples(9, 2, 1)) as pair:
            rows = pair.machine.draws(pair.config.training.sampling, 1)
            assert rows.tolist() == fisher_yates(list(range(9)), 0, 1, seed)
