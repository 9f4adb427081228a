"""The same bits: for any number of threads, after any interruption, and on any processor with fused multiply-adds.

Run as a program with a type it prints a digest of trained networks, or what vector code its kernels are made of.
"""

import hashlib
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from engine import DTYPES, Pair, configure, entry, examples, vector_code
from processors import PROCESSORS, of_x86

from mlp_cli.kernels import build, tile
from mlp_cli.kernels.lanes import pointer_to
from mlp_cli.network.machine import Rows

BLOCKS = [
    {"units": 19, "activation": "gelu", "dropout": 0.2},
    {"kind": "concat", "layers": [{"kind": "highway", "activation": "elu", "dropout": 0.1}, {"units": 35}]},
    {"kind": "batch_norm"},
    {"kind": "residual", "layers": [{"kind": "layer_norm"}, {"units": 54, "activation": "mish"}]},
    {"kind": "positional_encoding", "frequencies": 1},
    {"units": 20, "activation": "softmax"},
]
WIDE = [{"units": 70, "activation": "relu"}, {"units": 33, "activation": "tanh"}]
# name: (layers, loss, rows, batch size, what else the config says)
NETS = {
    "plain": ([*WIDE, {"activation": "softmax"}], "cross_entropy", 100, 32, {}),
    "blocks": (
        [*BLOCKS, {"activation": "softmax"}],
        "cross_entropy",
        150,
        67,
        {"optimizer": {"name": "adam", "clip_norm": 0.1}, "inputs": {"noise": 0.2, "dropout": 0.1}},
    ),
    "chunks": (
        [{"units": 24, "activation": "sin", "dropout": 0.3}, {"activation": "sigmoid"}],
        "binary_cross_entropy",
        2500,
        2100,
        {"optimizer": {"name": "rmsprop", "momentum": 0.5}, "regularization": {"l1": 1e-3, "weight_decay": 0.1}},
    ),
    "bounded": (
        [*WIDE, {"kind": "batch_norm"}, {"activation": "linear"}],
        {"name": "huber", "reduction": "sum"},
        700,
        650,
        {"optimizer": {"name": "nadam", "clip_value": 0.5}, "regularization": {"max_norm": 0.7, "l2": 0.01}},
    ),
    "single": ([{"units": 17, "activation": "softplus"}, {}], "log_cosh", 40, 1, {"optimizer": "lion"}),
    "rprop": ([{"units": 9, "activation": "silu"}, {}], "mse", 300, 300, {"optimizer": "rprop"}),
}
every_net = pytest.mark.parametrize("name", NETS)
both_types = pytest.mark.parametrize("dtype", DTYPES)


def pair_of(name, dtype, threads=1):
    layers, loss, n, batch_size, sections = NETS[name]
    config = configure(layers, loss, dtype=dtype, rate=0.01, **sections)
    return Pair(config, examples(n, 11, 5, loss, weighted=True), batch_size, threads)


def shuffled(pair, epoch):
    return pair.machine.draws(pair.config.training.sampling, epoch)


def trained(name, dtype, threads=1, epochs=2):
    """A digest of parameters, moments, statistics, sums and outputs after shuffled epochs."""
    with pair_of(name, dtype, threads) as pair:
        for epoch in range(1, epochs + 1):
            pair.order = shuffled(pair, epoch)
            assert pair.train(epoch=epoch).finite
        assert pair.machine.training_threads == threads
        return hashlib.sha256(pair.digest().encode() + pair.outputs().tobytes()).hexdigest()


# --- threads ----------------------------------------------------------------------------------------------------


@both_types
@every_net
def test_any_number_of_threads(name, dtype):
    alone = trained(name, dtype)
    for threads in (2, 3, 4, 8):
        assert trained(name, dtype, threads) == alone, f"{threads} threads"


@every_net
def test_another_seed_gives_other_bits(name):
    """The digest sees something."""
    layers, loss, n, batch_size, sections = NETS[name]
    digests = set()
    for seed in (1, 2):
        config = configure(layers, loss, rate=0.01, seed=seed, **sections)
        with Pair(config, examples(n, 11, 5, loss), batch_size) as pair:
            pair.train(0, 1)
            digests.add(pair.digest())
    assert len(digests) == 2


def test_threads_beside_busy_neighbours():
    """Threads that the machine puts aside hold nobody up and change nothing."""
    alone, stop = trained("blocks", "float32"), threading.Event()

    def spin():
        while not stop.is_set():
            sum(range(1000))

    neighbours = [threading.Thread(target=spin) for _ in range(3)]
    for neighbour in neighbours:
        neighbour.start()
    try:
        assert trained("blocks", "float32", 4) == alone
    finally:
        stop.set()
        for neighbour in neighbours:
            neighbour.join()


# --- interruptions ----------------------------------------------------------------------------------------------


@both_types
@every_net
def test_an_epoch_in_pieces_is_an_epoch(name, dtype):
    whole = trained(name, dtype, 2)
    with pair_of(name, dtype, 3) as pair:
        for epoch in (1, 2):
            pair.order = shuffled(pair, epoch)
            cut = pair.steps // 2
            assert pair.train(0, cut, epoch).next_step == cut
            pair.outputs()  # an evaluation in between, with memory of its own
            assert pair.train(cut, None, epoch).next_step == pair.steps
        assert hashlib.sha256(pair.digest().encode() + pair.outputs().tobytes()).hexdigest() == whole


def test_a_stop_ends_after_a_step_and_training_goes_on_where_it_was():
    whole = trained("single", "float64", 2)
    with pair_of("single", "float64", 2) as pair:
        for epoch in (1, 2):
            pair.order = shuffled(pair, epoch)
            for step in range(7):
                pair.machine.stop()
                assert pair.train(step, None, epoch).next_step == step + 1
            assert pair.train(7, None, epoch).next_step == pair.steps
        assert hashlib.sha256(pair.digest().encode() + pair.outputs().tobytes()).hexdigest() == whole


@both_types
@every_net
def test_a_network_restored_from_its_tensors_goes_on_with_the_same_bits(name, dtype):
    """What a checkpoint holds is enough: plain matrices of parameters, statistics and moments."""
    with pair_of(name, dtype) as pair, pair_of(name, dtype, 2) as other:
        pair.train(epoch=1)
        other.network.initialize(99)
        other.network.load(pair.network.tensors(), "memory")
        other.network.load_optimizer(pair.network.optimizer_tensors(), "memory")
        other.machine.prepare_training(other.rows.rows(dtype), other.batch_size)
        other.machine.totals[:] = pair.machine.totals
        for each in (pair, other):
            each.train(epoch=2)
        theirs = other.network.tensors() | other.network.optimizer_tensors()
        for tensor, value in (pair.network.tensors() | pair.network.optimizer_tensors()).items():
            np.testing.assert_array_equal(value, theirs[tensor], err_msg=tensor)
        np.testing.assert_array_equal(other.machine.totals, pair.machine.totals)


def test_an_evaluation_leaves_the_memory_of_the_training_job_alone():
    with pair_of("blocks", "float32", 2) as pair:
        names = ("workspace", "scratch", "row_losses", "row_predictions", "gradient", "partials")
        before = {name: int(pair.machine._training[0][name]) for name in names}
        pair.outputs()
        kept = {name: pair.machine._kept[name].ctypes.data for name in names}
        assert kept == before
        assert {name: int(pair.machine._training[0][name]) for name in names} == before


# --- rows -------------------------------------------------------------------------------------------------------


@both_types
def test_a_row_has_the_same_output_in_any_company(dtype):
    with pair_of("plain", dtype) as pair:
        whole, rows = pair.outputs(), pair.rows
        for chosen in (slice(0, 1), slice(5, 8), slice(37, 100)):
            rows_alone = Rows(np.ascontiguousarray(rows.x[chosen], dtype), rows.classes[chosen].copy())
            outputs, _ = pair.machine.evaluate(rows_alone)
            np.testing.assert_array_equal(outputs, whole[chosen])


# --- processors -------------------------------------------------------------------------------------------------


def digest(dtype):
    return hashlib.sha256("".join(trained(name, dtype, 2) for name in NETS).encode()).hexdigest()


@entry("n(s[:],i)")
def tile_alone(x, rows):
    """The heart of every product: if any kernel has wide registers, this one has."""
    p = pointer_to(x)
    tile.panel_product(p, 32, p, 1, 1, p, 32, 1, p, 0, tile.REPLACE, 1.0, 0.0, rows, 2)


def on_another_processor(processor, *arguments):
    program = [sys.executable, __file__, *arguments]
    environment = os.environ | PROCESSORS[processor]
    return subprocess.run(program, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()


# Whether numbers are multiplied and added in one instruction, and the registers.
CODE = {"AVX2": "vfmadd ymm", "plain x86-64": ""}


@of_x86
@pytest.mark.parametrize("processor", CODE)
def test_the_code_of_another_processor(processor):
    assert on_another_processor(processor, "float32", "tile") == [CODE[processor]]


@of_x86
def test_a_processor_without_512_bits():
    """In a process of its own; its kernels lie in the cache beside this processor's."""
    assert on_another_processor("AVX2", "float32", "digest") == [digest("float32")]


@of_x86
@pytest.mark.slow
@both_types
@pytest.mark.parametrize("processor", CODE)
def test_no_kernel_of_another_processor_uses_what_it_has_not(processor, dtype):
    assert on_another_processor(processor, dtype, "digest", "all") == [digest(dtype), CODE[processor]]


if __name__ == "__main__":
    dtype, *wanted = sys.argv[1:]
    shown = {
        "digest": lambda: digest(dtype),
        "tile": lambda: " ".join(sorted(vector_code([tile_alone.kernel], dtype))),
        "all": lambda: " ".join(sorted(vector_code(build.every_entry(), dtype))),
    }
    for what in wanted:
        print(shown[what]())
