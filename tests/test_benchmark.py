"""What `mlp bench` measures: the right number of operations, on nets that are really trained, beside a true limit."""

import math

import numpy as np
import pytest
from engine import DTYPES

from mlp_cli import benchmark
from mlp_cli.benchmark import Limit, Net, Workload, alternate, fma_limit
from mlp_cli.kernels import layout, limit
from mlp_cli.kernels.prepare import prepare
from mlp_cli.network import machine

both_types = pytest.mark.parametrize("dtype", DTYPES)

# --- counting ---------------------------------------------------------------------------------------------------


def test_operations_by_hand():
    # 8-16-2 has 128 and 32 weights, 3-4-5-6 has 12, 20 and 30; a product is 2 operations a weight
    assert benchmark.evaluation_flops((8, 16, 2)) == 256 + 64
    assert benchmark.training_flops((8, 16, 2)) == (256 + 64) + (256 + 64) + 64
    assert benchmark.training_flops((3, 4, 5, 6)) == (24 + 40 + 60) + (24 + 40 + 60) + (40 + 60)


def test_the_nets_are_those_of_the_published_table():
    assert [(net.name, net.batch) for net in benchmark.NETS] == [
        ("8-16-2", 1),
        ("8-16-2", 32),
        ("30-64-64-2", 32),
        ("784-128-10", 1),
        ("784-128-10", 32),
        ("784-128-10", 128),
        ("784-512-512-10", 128),
        ("784-512-512-10", 1024),
        ("784-300-100-10", 50),
        ("1000-1000-1000-16", 100),
    ]
    assert [net.name for net in benchmark.NETS if net.rows % net.batch] == []


# --- workloads --------------------------------------------------------------------------------------------------


def workload(sizes=(6, 10, 10, 3), batch=8, rows=100, **options):
    return Workload(sizes, batch, rows, **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dtype": "float64"},
        {"threads": 2},
        {"activation": "tanh"},
        {"optimizer": {"name": "adam", "clip_norm": 1.0}, "dropout": 0.1},
        {"optimizer": {"name": "sgd", "momentum": 0.9}, "regularization": {"l2": 1e-4}},
        {"norm": "layer_norm"},
        {"norm": "batch_norm"},
        {"residual": True},
    ],
    ids=str,
)
def test_the_net_is_really_trained(options):
    trained = workload(learning_rate=0.1, **options)
    before = trained.trainer.model.network.parameters.copy()
    losses = []
    for _ in range(20):
        assert trained.epoch() > 0
        losses.append(trained.loss)
    assert all(map(math.isfinite, losses))
    assert losses[-1] < 0.95 * losses[0]
    assert not np.array_equal(trained.trainer.model.network.parameters, before)
    assert trained.trainer.progress.step == 20 * 13
    trained.close()


def test_the_options_are_in_the_network():
    def kinds(**options):
        made = workload(**options)
        made.close()
        return [layer.kind for layer in made.trainer.config.network.layers], made.trainer.config

    assert kinds()[0] == ["dense", "dense", "dense"]
    assert kinds(norm="batch_norm")[0] == ["dense", "batch_norm", "dense", "batch_norm", "dense"]
    # 6 -> 10 cannot be added to its input, 10 -> 10 can
    assert kinds(residual=True)[0] == ["dense", "residual", "dense"]
    config = kinds(activation="gelu", dropout=0.2, optimizer="lion", learning_rate=0.5, regularization={"l1": 0.1})[1]
    assert [layer.activation.name for layer in config.network.layers] == ["gelu", "gelu", "softmax"]
    assert [layer.dropout for layer in config.network.layers] == [0.2, 0.2, 0.0]
    assert (config.optimizer.name, config.learning_rate.initial, config.regularization.l1) == ("lion", 0.5, 0.1)


def test_nothing_would_be_saved_in_a_long_epoch():
    made = workload()
    made.close()
    assert made.trainer.config.training.checkpoint.every_seconds is None
    assert made.trainer.config.training.max_time is None


def test_rows_are_those_that_were_asked_for():
    made = workload(rows=50, dtype="float64", seed=3)
    made.close()
    assert (made.x.shape, made.x.dtype) == ((50, 6), np.float64)
    assert (made.classes.shape, made.classes.dtype) == ((50,), np.int32)
    assert set(made.classes) == {0, 1, 2}
    assert (made.flops, made.evaluation_flops) == (2 * 3 * (60 + 100 + 30) - 120, 2 * (60 + 100 + 30))


def test_equal_arguments_train_to_equal_bits_and_evaluations_do_not_disturb():
    def weights(look):
        trained = workload(seed=2)
        for _ in range(3):
            trained.epoch()
            if look:
                assert trained.evaluate() > 0
        trained.close()
        return trained.trainer.model.network.parameters.tobytes(), trained.loss

    assert weights(look=False) == weights(look=True)


# --- the limit --------------------------------------------------------------------------------------------------


@both_types
def test_the_limit_computes_what_it_says(dtype):
    share = limit.CHAINS * layout.lane_count(dtype)
    values = np.arange(3 * share, dtype=dtype)
    expected = values.copy()
    # ten times v = 2 v + 1, in whole numbers that both types hold exactly; the other threads' shares stay
    expected[share : 2 * share] = 1024 * values[share : 2 * share] + 1023
    prepare(dtype).iterate(values, 2.0, 1.0, 10, 1)
    np.testing.assert_array_equal(values, expected)


def test_the_limit_is_fused():
    """v = a v + b rounded once is not what two roundings give."""
    values = np.full(limit.CHAINS * 8, 1.0 + 2.0**-30)
    prepare("float64").iterate(values, 1.0 + 2.0**-30, -1.0, 1, 0)
    assert set(values) == {2.0**-29 + 2.0**-60}


@both_types
@pytest.mark.parametrize("threads", [1, 3])
def test_every_thread_does_its_share_of_the_operations_counted(dtype, threads):
    measured = Limit(dtype, threads)
    lanes = layout.lane_count(dtype)
    assert measured.flops == 2 * threads * limit.CHAINS * lanes * measured.repetitions
    measured.values[:] = 5.0
    assert measured.run() > 0
    measured.close()
    # all values have moved towards the fixed point
    assert set(measured.values) == {1.0}


@both_types
def test_the_limit_is_a_number_of_this_world(dtype):
    found = fma_limit(dtype, runs=3)
    # from emulated multiply-adds on a slow machine to eight times the widest units of today
    assert 1e7 < found < 4e12


# --- measuring --------------------------------------------------------------------------------------------------


class Clock:
    """Time that only passes when it is told to."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(benchmark.time, "perf_counter", lambda: self.now)

    def task(self, seconds, name, log):
        def run():
            self.now += seconds
            log.append(name)
            return seconds

        return run


def test_tasks_take_turns_as_long_as_there_is_time(monkeypatch):
    clock, log = Clock(monkeypatch), []
    tasks = [clock.task(1.0, "a", log), clock.task(2.0, "b", log)]
    # the first round is not measured; of the rounds of 3 s, three fit into 10 s
    assert alternate(tasks, 10.0, least=1) == [[1.0] * 3, [2.0] * 3]
    assert log == ["a", "b"] * 4


def test_some_rounds_are_measured_however_little_time_there_is(monkeypatch):
    clock = Clock(monkeypatch)
    assert alternate([clock.task(5.0, "a", [])], 0.0, least=2) == [[5.0, 5.0]]


SMALL = Net((6, 10, 3), 8, 400)


def test_a_benchmark_relates_speeds_to_the_limit():
    found = benchmark.run("float32", [1], 0.0, nets=[SMALL], evaluated=[SMALL])
    assert found.rounds >= benchmark.LEAST_ROUNDS
    assert list(found.limits) == [1]
    train, evaluate = found.speeds
    assert (train.task, train.flops, evaluate.task, evaluate.flops) == ("train", 6 * 90 - 120, "evaluate", 2 * 90)
    for speed in found.speeds:
        assert speed.net == SMALL
        assert speed.threads == 1
        assert speed.samples_per_second == 400 / speed.seconds
        assert speed.flops_per_second == pytest.approx(speed.flops * 400 / speed.seconds)
        assert speed.share_of_limit == speed.flops_per_second / found.limits[1]
        assert 0 < speed.share_of_limit < 1.5


def test_a_net_too_small_to_share_is_measured_once(monkeypatch):
    def threads():
        found = benchmark.run("float32", [1, 2], 0.0, nets=[SMALL], evaluated=[])
        assert list(found.limits) == [1, 2]
        return [speed.threads for speed in found.speeds]

    assert threads() == [1]
    monkeypatch.setattr(machine, "WORK_PER_THREAD", 1)
    assert threads() == [1, 2]
