"""Several configs and overrides become one."""

import os

import pytest

from mlp_cli.config import load
from mlp_cli.errors import ConfigError

BASE = """
data: {path: rows.csv, split: {validation: 0.1, test: 0.2}}
network:
  layers:
    - {units: 8, activation: relu}
    - {activation: softmax}
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """`write("a.yaml", text)` in a fresh current directory."""
    monkeypatch.chdir(tmp_path)

    def write_text(name, text=BASE):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return name

    return write_text


def problems(paths, *overrides):
    with pytest.raises(ConfigError) as error:
        load(paths, overrides)
    return str(error.value).splitlines()


def test_mappings_merge_and_lists_replace(write):
    write("a.yaml")
    write("b.yaml", "data: {split: {test: 0.3}, exclude: [a]}\nnetwork: {layers: [{units: 2}]}")
    write("c.yaml", "data: {exclude: [b]}")
    config = load(["a.yaml", "b.yaml", "c.yaml"])
    assert (config.data.split.validation, config.data.split.test) == (0.1, 0.3)
    assert config.data.exclude == ["b"]
    assert len(config.network.layers) == 1
    assert config.name == "c"


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("optimizer: {name: adam, beta2: 0.9}", "optimizer: {clip_norm: 1}", ("adam", 0.9, 1.0)),
        ("optimizer: {name: adam, beta2: 0.9}", "optimizer: adam", ("adam", 0.9, None)),
        ("optimizer: {name: adam, beta2: 0.9, clip_norm: 5}", "optimizer: nadam", ("nadam", 0.999, None)),
        ("optimizer: {name: adam, beta2: 0.9}", "optimizer: {name: adamw, clip_norm: 1}", ("adamw", 0.999, 1.0)),
        ("optimizer: nadam", "optimizer: {beta2: 0.9}", ("nadam", 0.9, None)),
        ("optimizer: {clip_norm: 5}", "optimizer: nadam", ("nadam", 0.999, None)),
        ("optimizer: {clip_norm: 5}", "optimizer: adam", ("adam", 0.999, 5.0)),
        ("optimizer: {name: nadam, beta2: 0.9}", "optimizer: null", ("adam", 0.999, None)),
    ],
)
def test_a_changed_name_replaces_its_mapping(write, first, second, expected):
    write("a.yaml", BASE + first)
    write("b.yaml", second)
    optimizer = load(["a.yaml", "b.yaml"]).optimizer
    assert (optimizer.name, optimizer.beta2, optimizer.clip_norm) == expected


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("0.01", "{warmup_epochs: 2}", ("constant", 0.01, 2.0)),
        ("{schedule: cosine, initial: 0.1}", "0.01", ("constant", 0.01, 0.0)),
        ("0.1", "cosine", ("cosine", 0.001, 0.0)),
        (
            "{schedule: cosine, initial: 0.1, warmup_epochs: 3}",
            "{schedule: cosine, initial: 0.2}",
            ("cosine", 0.2, 3.0),
        ),
        ("{initial: 0.1}", "cosine", ("cosine", 0.001, 0.0)),
    ],
)
def test_a_changed_schedule_replaces_its_mapping(write, first, second, expected):
    write("a.yaml", BASE + f"learning_rate: {first}")
    write("b.yaml", f"learning_rate: {second}")
    rate = load(["a.yaml", "b.yaml"]).learning_rate
    assert (rate.schedule, rate.initial, rate.warmup_epochs) == expected


def test_an_empty_section_says_nothing_and_null_says_none(write):
    write("a.yaml", BASE + "training: {epochs: 3, early_stopping: {patience: 4}}")
    write("b.yaml", "training:\n  # epochs: 5\ndata: {split: null}")
    config = load(["a.yaml", "b.yaml"])
    assert (config.training.epochs, config.training.early_stopping.patience, config.data.split) == (3, 4, None)
    assert load(["a.yaml"], ["training.early_stopping=null"]).training.early_stopping is None


def test_overrides_reach_into_lists_and_bare_words(write):
    write("a.yaml", BASE + "optimizer: sgd\nlearning_rate: 0.1")
    overrides = ["network.layers.0.units=64", "optimizer.momentum=0.9", "learning_rate.warmup_epochs=1e-1"]
    overrides += ["training.checkpoint.keep=3", "data.columns.zip=categorical", "training.early_stopping.patience=3"]
    config = load(["a.yaml"], [*overrides, "network.layers.0.activation.name=leaky_relu"])
    assert config.network.layers[0].units == 64
    assert config.network.layers[0].activation.name == "leaky_relu"
    assert config.optimizer.momentum == 0.9
    assert (config.learning_rate.initial, config.learning_rate.warmup_epochs) == (0.1, 0.1)
    assert config.training.checkpoint.keep == 3
    assert config.data.columns == {"zip": "categorical"}
    assert config.training.early_stopping.patience == 3


def test_a_changed_kind_replaces_the_layer(write):
    write("a.yaml")
    layer = load(["a.yaml"], ["network.layers.0={kind: highway, activation: tanh}"]).network.layers[0]
    assert (layer.kind, layer.activation.name) == ("highway", "tanh")
    layer = load(["a.yaml"], ["network.layers.0.kind=layer_norm"]).network.layers[0]
    assert layer.kind == "layer_norm"
    layer = load(["a.yaml"], ["network.layers.0={units: 3}"]).network.layers[0]
    assert (layer.units, layer.activation.name) == (3, "relu")


def test_overrides_apply_from_the_outside_in(write):
    write("a.yaml", BASE + "optimizer: {name: adam, beta1: 0.5}")
    for overrides in (["optimizer.momentum=0.9", "optimizer=sgd"], ["optimizer.momentum=0.9", "optimizer.name=sgd"]):
        for order in (overrides, overrides[::-1]):
            optimizer = load(["a.yaml"], order).optimizer
            assert (optimizer.name, optimizer.momentum) == ("sgd", 0.9)
    assert load(["a.yaml"], ["seed=1", "seed=2"]).seed == 2


def test_override_values_follow_the_rules_of_the_config(write):
    write("a.yaml")
    config = load(["a.yaml"], ["data.target=no", "data.comment='#'", "data.features=[a, 3]", "loss=", "seed=0"])
    assert config.data.target == "no"
    assert config.data.comment == "#"
    assert config.data.features == ["a", 3]
    assert config.loss.name == "cross_entropy"


def test_mistakes_point_at_the_override(write):
    write("a.yaml", BASE + "seed: 7")
    assert problems(
        ["a.yaml"],
        "network.layers.2.units=3",
        "network.layers.x=3",
        "seed.x=1",
        "trainin.epochs=3",
        "training.epochs='3'",
        "loss.name=mse2",
        "a..b=1",
        "a." + "9" * 5000 + "=1",
        "data.decimal=010",
        "training={epochs: 2, epochs: 3}",
    ) == [
        "override 'network.layers.2.units=3' network.layers.2.units: network.layers is a list with elements 0 to 1",
        "override 'network.layers.x=3' network.layers.x: network.layers is a list with elements 0 to 1",
        "override 'seed.x=1' seed.x: seed is 7, which has no key x",
        "override 'trainin.epochs=3' trainin: unknown key; a config has seed, dtype, data, network, loss, optimizer, "
        "learning_rate, regularization, training. Did you mean training?",
        "override \"training.epochs='3'\" training.epochs: expected an integer >= 0; got '3', which is text: "
        "write it without quotes",
        "override 'loss.name=mse2' loss.name: expected one of quadratic, half_quadratic, mse, mae, huber, log_cosh, "
        "quantile, poisson, binary_cross_entropy, cross_entropy, focal, hinge, squared_hinge; got 'mse2'. "
        "Did you mean mse?",
        "override 'a..b=1': expected KEY=VALUE with a key such as training.epochs",
        f"override 'a.{'9' * 75}...' a: unknown key; a config has seed, dtype, data, network, loss, optimizer, "
        "learning_rate, regularization, training",
        "override 'data.decimal=010' data.decimal: 010 is octal for some readers: write 10, or '010' in quotes if "
        "it is text",
        "override 'training={epochs: 2, epochs: 3}' training.epochs: duplicate key",
    ]


def test_an_override_that_is_no_yaml(write):
    write("a.yaml")
    (line,) = problems(["a.yaml"], "optimizer=[1")
    assert line.startswith("override 'optimizer=[1': not valid YAML: ")


def test_a_mistake_keeps_the_place_of_the_file_that_made_it(write):
    write("a.yaml", BASE + "optimizer: {name: sgd,\n  momentum: 2}\n")
    write("b.yaml", "optimizer: {nesterov: 1}")
    assert problems(["a.yaml", "b.yaml"], "optimizer.clip_norm=0") == [
        "a.yaml:8:13 optimizer.momentum: expected a number in [0, 1); got 2",
        "b.yaml:1:23 optimizer.nesterov: expected true or false; got 1",
        "override 'optimizer.clip_norm=0' optimizer.clip_norm: expected a number > 0; got 0",
    ]


def test_all_unreadable_files_are_named(write):
    write("a.yaml", "a: ]")
    assert [line.split(": ")[0] for line in problems(["a.yaml", "no.yaml"])] == ["a.yaml:1:4", "no.yaml"]


def test_paths_start_at_the_file_that_wrote_them(write, tmp_path):
    write("configs/a.yaml", BASE)
    write("other/b.yaml", "network: {initial: ../runs/best.safetensors}\ndata: {validation: v.csv, split: null}")
    config = load(["configs/a.yaml", "other/b.yaml"], ["data.test={x: t.npy, y: ./u.npy}"])
    assert config.data.path == str(tmp_path / "configs/rows.csv")
    assert config.data.validation.path == str(tmp_path / "other/v.csv")
    assert config.network.initial == str(tmp_path / "runs/best.safetensors")
    assert (config.data.test.x, config.data.test.y) == (str(tmp_path / "t.npy"), str(tmp_path / "u.npy"))
    assert load(["configs/a.yaml"], ["data.path=rows.csv"]).data.path == str(tmp_path / "rows.csv")
    assert load(["configs/a.yaml"], ["data.path=~/rows.csv"]).data.path == os.path.expanduser("~/rows.csv")


def test_one_file_or_a_pair_merges_by_key(write):
    write("a.yaml", "data: {train: a.csv}\nnetwork: {layers: [{}]}")
    write("b.yaml", "data: {train: {x: x.npy, y: y.npy}}")
    source = load(["a.yaml", "b.yaml"]).data.train
    assert (source.path, os.path.basename(source.x), os.path.basename(source.y)) == (None, "x.npy", "y.npy")
