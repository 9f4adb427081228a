"""From layers to a program: names, shapes and offsets of parameters, the layer table, and what does not fit."""

import re

import numpy as np
import pytest
from engine import DTYPES, Pair, configure, examples, padding
from reference.layers import shapes

from mlp_cli.errors import CheckpointError, ConfigError
from mlp_cli.kernels import layout
from mlp_cli.network.machine import memory_needed, threads_for
from mlp_cli.network.network import describe, load_initial
from mlp_cli.vocab import LAYERS

LAYER_OF_EACH_KIND = [
    {"units": 19, "activation": "tanh", "dropout": 0.1},
    {"kind": "residual", "layers": [{"units": 7}, {"kind": "residual", "layers": [{"units": 7}]}, {"units": 19}]},
    {"kind": "highway", "activation": "relu"},
    {"kind": "concat", "layers": [{"units": 5}, {"kind": "layer_norm"}]},
    {"kind": "batch_norm"},
    {"kind": "positional_encoding", "frequencies": 3},
    {"units": 3},
]
both_types = pytest.mark.parametrize("dtype", DTYPES)


def made(dtype="float64", layers=LAYER_OF_EACH_KIND, **sections):
    return Pair(configure(layers, dtype=dtype, **sections), examples(9, 4, 3))


@both_types
def test_tensors_have_the_names_and_shapes_of_a_checkpoint(dtype):
    with made(dtype) as pair:
        found = {name: value.shape for name, value in pair.network.tensors().items()}
        assert found == shapes(LAYER_OF_EACH_KIND, 4)[0]
        assert all(value.dtype == dtype for value in pair.network.tensors().values())
        assert all(value.flags.c_contiguous for value in pair.network.tensors().values())


@both_types
def test_load_is_the_inverse_of_tensors(dtype):
    random = np.random.default_rng(1)
    with made(dtype, optimizer="adam") as pair:
        network = pair.network
        given = {name: random.normal(size=value.shape).astype(dtype) for name, value in network.tensors().items()}
        network.load(given, "memory")
        for name, value in network.tensors().items():
            np.testing.assert_array_equal(value, given[name])
        moments = {n: random.normal(size=v.shape).astype(dtype) for n, v in network.optimizer_tensors().items()}
        network.load_optimizer(moments, "memory")
        for name, value in network.optimizer_tensors().items():
            np.testing.assert_array_equal(value, moments[name])
        outside = padding(network)
        assert not network.parameters[outside].any()
        assert not any(moment[outside].any() for moment in network.moments)


@both_types
def test_every_element_has_a_place_of_its_own(dtype):
    """`index` says where, and the parameters do not overlap."""
    with made(dtype) as pair:
        network = pair.network
        places = []
        for p in network.program.parameters:
            value = network.tensors()[p.name].reshape(p.units, p.inputs)
            for unit in range(p.units):
                for column in range(p.inputs):
                    place = network.index(p, unit, column)
                    assert p.offset <= place < p.offset + p.size
                    assert network.parameters[place] == value[unit, column]
                    places.append(place)
        assert len(set(places)) == len(places) == network.program.parameter_count


def test_training_and_evaluation_share_their_parameters():
    with made() as pair:
        trained, evaluated = pair.network.training_program, pair.network.program
        assert [vars(p) | {"layer": 0} for p in trained.parameters] == [
            vars(p) | {"layer": 0} for p in evaluated.parameters
        ]
        assert trained.parameter_size == evaluated.parameter_size
        assert len(trained.ops) == len(evaluated.ops) + 1  # dropout


def test_the_layer_table():
    with made() as pair:
        lines = describe(pair.network.program)
    of_layers = [(line["layer"], line["kind"], line["inputs"], line["units"], line["parameters"]) for line in lines]
    assert of_layers == [
        ("layers.0", "dense", 4, 19, 95),
        ("layers.1", "residual", 19, 19, 0),
        ("layers.1.layers.0", "dense", 19, 7, 140),
        ("layers.1.layers.1", "residual", 7, 7, 0),
        ("layers.1.layers.1.layers.0", "dense", 7, 7, 56),
        ("layers.1.layers.2", "dense", 7, 19, 152),
        ("layers.2", "highway", 19, 19, 760),
        ("layers.3", "concat", 19, 24, 0),
        ("layers.3.layers.0", "dense", 19, 5, 100),
        ("layers.3.layers.1", "layer_norm", 5, 5, 10),
        ("layers.4", "batch_norm", 24, 24, 48),
        ("layers.5", "positional_encoding", 24, 144, 0),
        ("layers.6", "dense", 144, 3, 435),
    ]
    assert {line["kind"] for line in lines} == set(LAYERS)
    assert sum(line["parameters"] for line in lines) == pair.network.program.parameter_count
    assert lines[0]["multiply_adds"] == 4 * 19
    assert lines[6]["multiply_adds"] == 2 * 19 * 19


def test_a_residual_of_another_width_than_the_data_is_refused():
    layers = [{"kind": "residual", "layers": [{"units": 6}]}, {}]
    message = (
        "network.layers.0: a residual block adds its input to its result, but 4 columns come in and 6 come out; "
        "give its last layer units: 4"
    )
    with pytest.raises(ConfigError, match=re.escape(message)):
        made(layers=layers)


def test_tensors_of_another_network_are_refused():
    with made() as pair:
        network, good = pair.network, pair.network.tensors()
        missing = {name: value for name, value in good.items() if name != "layers.2.gate.weight"}
        with pytest.raises(CheckpointError, match=r"^file: the tensor layers\.2\.gate\.weight is missing"):
            network.load(missing, "file")
        wrong = good | {"layers.0.weight": np.zeros((4, 19))}
        message = "file: expected layers.0.weight of shape 19 x 4; got 4 x 19"
        with pytest.raises(CheckpointError, match=re.escape(message)):
            network.load(wrong, "file")
        with pytest.raises(CheckpointError, match=r"running_var"):
            network.load(good | {"layers.4.running_var": np.zeros(3)}, "file")
        with pytest.raises(ConfigError, match=r"network\.initial: file: the tensor"):
            load_initial(network, missing, "file")


@both_types
def test_memory_needed_is_what_a_machine_takes(dtype):
    """At most, that is: where the rows of a batch are copied."""
    config = configure(LAYER_OF_EACH_KIND, dtype=dtype, optimizer={"name": "adam", "clip_norm": 1.0})
    with Pair(config, examples(9, 4, 3), copied=True) as pair:
        machine, network = pair.machine, pair.network
        taken = [machine._kept["workspace"], machine.gradient, network.parameters, *network.moments]
        assert memory_needed(network, pair.batch_size) == sum(array.nbytes for array in taken)


def test_small_steps_stay_on_one_thread():
    assert threads_for(10, 8) == 1
    assert threads_for(10**12, 8) == 8
    assert threads_for(10**12, 1) == 1


def test_rows_of_the_workspace_are_whole_tiles_apart():
    """Every buffer begins on a vector and has room for whole tiles of rows."""
    with Pair(configure(LAYER_OF_EACH_KIND, dtype="float32"), examples(9, 4, 3), copied=True) as pair:
        placed = pair.machine._placed
        assert placed.rows % 8 == 0
        assert pair.machine._kept["workspace"].ctypes.data % layout.VECTOR_BYTES == 0
        for start, stride in zip(placed.values, placed.strides, strict=True):
            assert start % layout.lane_count("float32") == 0
            assert stride % layout.lane_count("float32") == 0


@both_types
def test_rows_used_where_they_lie_take_an_address_of_the_workspace(dtype):
    with made(dtype) as pair:
        placed = pair.machine._placed
        assert placed.inputs_elsewhere
        assert placed.strides[0] * np.dtype(dtype).itemsize == layout.ADDRESS_BYTES
        assert all(start % layout.lane_count(dtype) == 0 for start in placed.values)
