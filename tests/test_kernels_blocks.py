"""The ops that networks are made of against the twin: every kind at odd widths and batches, and on dirty memory."""

import numpy as np
import pytest
from engine import DTYPES, Pair, configure, examples

from mlp_cli.vocab import LAYERS

pytestmark = pytest.mark.smoke

WIDTHS = (1, 7, 8, 9, 16, 17, 33, 70)
BATCHES = (1, 3, 7, 129, 1030)
TOLERANCE = {"float32": 2e-4, "float64": 2e-11}
both_types = pytest.mark.parametrize("dtype", DTYPES)


def of_kind(kind, width):
    """A layer of this kind for `width` columns. A new kind needs its line here."""
    inner = [{"units": 5, "activation": "silu"}, {"units": width, "activation": "tanh"}]
    return {
        "dense": {"units": width, "activation": "tanh"},
        "residual": {"kind": "residual", "layers": inner},
        "highway": {"kind": "highway", "activation": "tanh", "gate_bias": 0.3},
        "concat": {"kind": "concat", "layers": [{"units": 13, "activation": "gelu"}]},
        "layer_norm": {"kind": "layer_norm", "epsilon": 1e-2},
        "batch_norm": {"kind": "batch_norm", "epsilon": 1e-2},
        "positional_encoding": {"kind": "positional_encoding", "frequencies": 3},
    }[kind]


def network(kind, width):
    """The kind in front of all, where no gradient goes further, and between two layers."""
    layer = of_kind(kind, width)
    if kind == "positional_encoding":
        return [layer, {"units": 3, "activation": "tanh"}, layer | {"frequencies": 2}, {}]
    return [layer, {"units": width, "activation": "sin"}, layer, {"units": 3}]


@both_types
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", LAYERS)
def test_gradients_and_outputs_agree_with_the_twin(kind, width, dtype):
    for n in BATCHES:
        rows = examples(n, width, 3, weighted=True, seed=width)
        rows.x, rows.values = (part.astype(dtype).astype(np.float64) for part in (rows.x, rows.values))
        with Pair(configure(network(kind, width), dtype=dtype), rows, check=True) as pair:
            theirs = pair.twin.gradients(*pair.batch(0))
            for name, gradient in pair.gradients().items():
                bound = TOLERANCE[dtype] * max(1.0, np.abs(theirs[name]).max())
                np.testing.assert_allclose(gradient, theirs[name], rtol=0, atol=bound, err_msg=f"{name}, {n} rows")
            # with running statistics in place of the batch's, which the check has not moved in the twin
            twin = pair.make_twin()
            np.testing.assert_allclose(pair.outputs(), twin.forward(rows.x), rtol=0, atol=10 * TOLERANCE[dtype])


@pytest.mark.parametrize("kind", LAYERS)
def test_training_in_float64_follows_the_twin(kind):
    """Parameters and running statistics after two epochs with a last batch of one row."""
    config = configure(network(kind, 9), rate=0.05, optimizer={"name": "sgd", "momentum": 0.9})
    with Pair(config, examples(29, 9, 3), batch_size=7, threads=2) as pair:
        for epoch in (1, 2):
            pair.train(epoch=epoch)
            for step in range(pair.steps):
                pair.twin_step(step)
        assert pair.difference() < 1e-11
        np.testing.assert_allclose(pair.outputs(), pair.twin.forward(pair.rows.x), rtol=0, atol=1e-10)


EVERYTHING = [
    # dropout in place, by the counter or by zeros on the way back; and beside results that the slope needs
    {"units": 19, "activation": "softplus", "dropout": 0.2},
    {"units": 23, "activation": "relu", "dropout": 0.3},
    {"units": 19, "activation": "tanh", "dropout": 0.2},
    {"kind": "concat", "layers": [{"kind": "highway", "activation": "sigmoid", "dropout": 0.1}, {"units": 35}]},
    {"kind": "batch_norm"},
    {"kind": "residual", "layers": [{"kind": "layer_norm"}, {"units": 54, "activation": "gaussian"}]},
    {"kind": "residual", "layers": [{"kind": "residual", "layers": [{"units": 54, "activation": "softmax"}]}]},
    {"kind": "positional_encoding", "frequencies": 1},
    {"units": 21, "activation": "hardmax"},
    {"activation": "softmax"},
]


@both_types
@pytest.mark.parametrize("optimizer", ["sgd", {"name": "adam", "clip_norm": 0.1}], ids=["sgd", "adam"])
def test_nothing_depends_on_what_lay_in_memory_before(optimizer, dtype):
    """Workspace and scratch full of NaN: every op must write its padded columns before anyone reads them."""
    config = configure(
        EVERYTHING, "cross_entropy", optimizer=optimizer, dtype=dtype, inputs={"noise": 0.1, "dropout": 0.1}
    )
    digests = set()
    for dirt in (0.0, np.nan, np.inf, -1e30):
        with Pair(config, examples(71, 5, 3, "cross_entropy"), batch_size=32) as pair:
            for name in ("workspace", "scratch"):
                pair.machine._kept[name][:] = dirt
            assert pair.train().finite
            digests.add(pair.digest())
    assert len(digests) == 1


@both_types
def test_wide_rows_of_every_kind_fill_their_padding_with_zeros(dtype):
    """After a step, columns beyond the units are zero in every buffer of values and of gradients."""
    config = configure(EVERYTHING, "cross_entropy", dtype=dtype)
    with Pair(config, examples(24, 5, 3, "cross_entropy")) as pair:
        memory = pair.machine._kept["workspace"]
        memory[:] = 7.0
        pair.train()
        placed, lanes = pair.machine._placed, 64 // memory.itemsize
        for number, columns in enumerate(pair.network.training_program.buffers):
            stride = placed.strides[number]
            read = -(-columns // lanes) * lanes
            starts = {placed.values[number], placed.gradients.get(number, placed.values[number])}
            for start in starts:
                view = memory[start : start + 24 * stride].reshape(24, stride)
                untouched = start and (view == 7.0).all()  # gradients of inputs, which nobody asks for
                assert untouched or not view[:, columns:read].any(), f"buffer {number}"


def test_a_batch_of_one_row_has_no_variance_to_remember():
    """The last batch of an epoch may be one row: the running mean follows, the running variance stays."""
    config = configure([{"kind": "batch_norm", "momentum": 0.5}, {}])
    rows = examples(4, 3, 2)
    with Pair(config, rows, batch_size=3) as pair:
        pair.train(0, 1)
        mean, variance = (pair.network.tensors()[f"layers.0.running_{which}"] for which in ("mean", "var"))
        np.testing.assert_allclose(mean, 0.5 * rows.x[:3].mean(axis=0), rtol=1e-14)
        np.testing.assert_allclose(variance, 0.5 + 0.5 * rows.x[:3].var(axis=0, ddof=1), rtol=1e-14)
        pair.train(1, 1)
        after = pair.network.tensors()
        np.testing.assert_allclose(after["layers.0.running_mean"], 0.5 * mean + 0.5 * rows.x[3], rtol=1e-14)
        np.testing.assert_array_equal(after["layers.0.running_var"], variance)


@both_types
def test_positional_encoding_is_exact_for_huge_frequencies(dtype):
    """2^k x loses nothing, so that sin(2^k pi x) is a matter of x alone: whole and half numbers give 0 and ±1."""
    config = configure([{"kind": "positional_encoding", "frequencies": 20}, {"init": "zeros", "bias_init": "zeros"}],
                       dtype=dtype)  # fmt: skip
    rows = examples(3, 2, 1)
    rows.x[:] = [[0.0, 1.0], [0.5, -0.5], [2.0**-19, 3.0]]
    with Pair(config, rows) as pair:
        pair.train()
        placed, program = pair.machine._placed, pair.network.training_program
        start, stride = placed.values[program.ops[0].result], placed.strides[program.ops[0].result]
        encoded = pair.machine._kept["workspace"][start : start + 3 * stride].reshape(3, stride)[:, :80]
    k = 2.0 ** np.arange(20)[:, None]
    turns = np.fmod(k * rows.x[:, None, :], 2.0)
    expected = np.concatenate([np.sin(np.pi * turns), np.cos(np.pi * turns)], axis=1).reshape(3, 80)
    np.testing.assert_allclose(encoded, expected, rtol=0, atol=1e-6 if dtype == "float32" else 1e-15)
