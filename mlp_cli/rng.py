"""Random numbers without a state: each is a pure function of seed, stream, epoch and its own index.

The generator is Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel Random Numbers: As Easy as 1, 2, 3, SC 2011), a
cipher that turns a counter of four 32-bit words into four random ones. The counter is (index, draw,
stream | substream << 8, epoch), the key is the seed. So the i-th number never depends on how many are asked for, and
resuming in mid-epoch is arithmetic.
"""

import numpy as np

from mlp_cli import numerics
from mlp_cli.vocab import STREAMS

ROUNDS = 10
MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
MASK = 0xFFFFFFFF
LOW_WORD = np.uint64(MASK)
WORD_BITS = np.uint64(32)
BLOCK = 1 << 15  # counters at a time: what lies between them and the words stays in the cache


def philox(c0, c1, c2, c3, seed):
    """Philox4x32-10 of the counter words c0..c3 (integers below 2**32 or arrays of them, broadcast together).

    Gives four uint32 arrays of the common shape. ValueError unless 0 <= seed < 2**64.
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must be from 0 to 2**64 - 1, not {seed}")
    key0, key1 = int(seed) & MASK, int(seed) >> 32
    c0, c1, c2, c3 = np.broadcast_arrays(*(np.asarray(word, dtype=np.uint64) for word in (c0, c1, c2, c3)))
    for _ in range(ROUNDS):
        product0 = MULTIPLIERS[0] * c0
        product1 = MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (
            (product1 >> WORD_BITS) ^ c1 ^ np.uint64(key0),
            product1 & LOW_WORD,
            (product0 >> WORD_BITS) ^ c3 ^ np.uint64(key1),
            product0 & LOW_WORD,
        )
        key0 = (key0 + KEY_STEPS[0]) & MASK
        key1 = (key1 + KEY_STEPS[1]) & MASK
    return tuple(word.astype(np.uint32) for word in (c0, c1, c2, c3))


def words(seed, stream, n, epoch=0, substream=0, draw=0):
    """The first n random 32-bit words, uint32 (n,): word i is word i % 4 of counter i // 4.

    `stream` is a name of vocab.STREAMS, `substream` tells users of one stream apart (the number of a layer, say),
    `draw` repeated draws for the same thing (a rejected number, a pass over the data).
    """
    found = np.empty(((n + 3) // 4, 4), np.uint32)
    for first in range(0, len(found), BLOCK):
        counters = np.arange(first, min(first + BLOCK, len(found)), dtype=np.uint64)
        four = philox(counters, draw, STREAMS[stream] | substream << 8, epoch, seed)
        found[first : first + BLOCK] = np.stack(four, axis=-1)
    return found.reshape(-1)[:n]


def long_words(seed, stream, n, epoch=0, substream=0, draw=0):
    """The first n random 64-bit words, uint64 (n,): number i is word 2i (the upper half) and word 2i + 1."""
    halves = words(seed, stream, 2 * n, epoch, substream, draw)
    long = halves[0::2].astype(np.uint64)
    long <<= WORD_BITS
    long |= halves[1::2]
    return long


def uniform(seed, stream, n, epoch=0, substream=0, draw=0):
    """The first n uniform numbers in [0, 1), float64 (n,): the upper 53 bits of the i-th 64-bit word / 2**53."""
    found = long_words(seed, stream, n, epoch, substream, draw)
    found >>= np.uint64(11)
    numbers = found.view(np.float64)
    np.multiply(found, 2.0**-53, out=numbers)
    return numbers


def normal(seed, stream, n, epoch=0, substream=0, draw=0):
    """The first n standard normal numbers, float64 (n,), by Box and Muller.

    From the uniform numbers u = 2j, v = 2j + 1: number 2j is sqrt(-2 log(1 - u)) cos(2 pi v), 2j + 1 the same with sin.
    """
    numbers = uniform(seed, stream, n + n % 2, epoch, substream, draw)
    for first in range(0, len(numbers), BLOCK):
        pairs = numbers[first : first + BLOCK].reshape(-1, 2)
        radius = np.sqrt(-2.0 * numerics.log(1.0 - pairs[:, 0]))
        turn = 2.0 * pairs[:, 1]
        pairs[:, 0] = radius * numerics.cospi(turn)
        pairs[:, 1] = radius * numerics.sinpi(turn)
    return numbers[:n]


def permutation(seed, stream, n, epoch=0, substream=0, draw=0):
    """The numbers 0..n-1 in random order, int64 (n,): sorted by their 64-bit words, equal words by number."""
    keys = long_words(seed, stream, n, epoch, substream, draw)
    return np.argsort(keys, kind="stable").astype(np.int64, copy=False)
