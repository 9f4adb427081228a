"""Defaults, and the resolved form: every default written out, and read back to an equal config."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlp_cli.config import checks, dump, from_resolved, load
from mlp_cli.config.schema_learning import INITIAL_RATES, METRICS
from mlp_cli.config.tree import Source, to_plain
from mlp_cli.config.writer import dump as write
from mlp_cli.config.yaml_loader import parse
from mlp_cli.vocab import ACTIVATIONS, INITIALIZERS, LOSSES, OPTIMIZERS, SCHEDULES

CONFIGS = sorted((Path(__file__).parent.parent / "configs").rglob("*.yaml"))

CONTRACT_EXAMPLE = """\
seed: 7
dtype: float32
data:
  path: ../data/digits.csv
  target: digit
  split: {validation: 0.15, test: 0.2, stratify: true}
  numeric: standard
  categorical: one_hot
  missing: mean
network:
  input: {dropout: 0.0, noise: 0.0}
  layers:
    - {units: 64, activation: relu, dropout: 0.1}
    - {units: 32, activation: tanh, init: glorot_uniform}
    - {activation: softmax}
loss: cross_entropy
optimizer: {name: adam, beta2: 0.999, clip_norm: 5.0}
learning_rate: {schedule: cosine, initial: 2.0e-3, warmup_epochs: 1}
regularization: {l2: 1.0e-4}
training:
  epochs: 60
  batch_size: 32
  early_stopping: {metric: loss, patience: 10}
  checkpoint: {every_seconds: 30, keep: 2}
"""

RESOLVED_EXAMPLE = """\
seed: 7
dtype: float32
data:
  path: /data/digits.csv
  train: null
  validation: null
  test: null
  target: digit
  split: {validation: 0.15, test: 0.2, stratify: true}
  numeric: standard
  categorical: one_hot
  missing: mean
  memory: load
  header: null
  names: null
  delimiter: null
  decimal: .
  encoding: null
  comment: null
  missing_values: ['', NA, NaN, '?']
  features: null
  exclude: []
  columns: {}
  labels: {}
  sample_weight: null
  unseen: error
  target_scaling: none
  task: null
  target_coding: binary
network:
  input: {dropout: 0.0, noise: 0.0}
  layers:
    - {kind: dense, units: 64, activation: relu, dropout: 0.1, init: uniform, bias_init: uniform, freeze: false}
    - {kind: dense, units: 32, activation: tanh, dropout: 0.0, init: glorot_uniform, bias_init: uniform, freeze: false}
    - {kind: dense, units: null, activation: {name: softmax, alpha: 1.0}, dropout: 0.0, init: uniform, bias_init: uniform,
      freeze: false}
  initial: null
loss: {name: cross_entropy, label_smoothing: 0.0, reduction: mean, class_weights: null}
optimizer: {name: adam, beta1: 0.9, beta2: 0.999, epsilon: 1.0e-08, clip_norm: 5.0, clip_value: null}
learning_rate: {schedule: cosine, initial: 0.002, final: 0.0, warmup_epochs: 1.0}
regularization: {l1: 0.0, l2: 0.0001, weight_decay: 0.0, max_norm: null}
training:
  epochs: 60
  max_steps: null
  max_time: null
  batch_size: 32
  sampling: shuffle
  early_stopping: {metric: loss, patience: 10, min_delta: 0.0}
  restore_best: true
  checkpoint: {every_epochs: null, every_steps: null, every_seconds: 30.0, keep: 2}
  on_divergence: stop
"""  # noqa: E501


def config_of(output=None, **sections):
    """A small config; `output` are the options of its output layer."""
    layers = [{"units": 3, "activation": "relu"}, output or {}]
    return from_resolved({"data": {"path": "/rows.csv"}, "network": {"layers": layers}} | sections)


def test_the_example_of_the_contract(tmp_path):
    (tmp_path / "example.yaml").write_text(CONTRACT_EXAMPLE)
    config = load([tmp_path / "example.yaml"])
    assert config.name == "example"
    assert dump(config).replace(str(tmp_path.parent), "") == RESOLVED_EXAMPLE


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_is_sound_and_survives_the_round_trip(path, tmp_path):
    config = load([path])
    (tmp_path / "config.yaml").write_text(dump(config))
    assert load([tmp_path / "config.yaml"]) == config
    assert from_resolved(config.resolved()) == config


def test_defaults_of_the_loss_follow_the_output():
    expected = {"softmax": "cross_entropy", "sigmoid": "binary_cross_entropy", "exponential": "poisson"}
    for activation in ACTIVATIONS:
        assert config_of({"activation": activation}).loss.name == expected.get(activation, "mse")


def test_defaults_of_the_rate_and_decay_follow_the_optimizer():
    for name in OPTIMIZERS:
        config = config_of(optimizer=name)
        assert config.learning_rate.schedule == "constant"
        assert config.learning_rate.initial == INITIAL_RATES[name]
        assert config.regularization.weight_decay == (0.01 if name == "adamw" else 0.0)
    assert config_of(optimizer="adamw", regularization={"weight_decay": 0}).regularization.weight_decay == 0.0
    assert set(INITIAL_RATES) == set(OPTIMIZERS)


def test_one_cycle_starts_and_ends_below_its_peak():
    rate = config_of(learning_rate={"schedule": "one_cycle", "peak": 0.5}).learning_rate
    assert (rate.initial, rate.final) == (0.5 / 25, 0.5 / 25 / 1e4)


@pytest.mark.parametrize(
    ("training", "epochs"),
    [
        ({}, 100),
        ({"max_steps": 5}, None),
        ({"max_time": "90s"}, None),
        ({"max_steps": 5, "epochs": 2}, 2),
        ({"epochs": 0}, 0),
    ],
)
def test_epochs_unless_something_else_ends_the_run(training, epochs):
    assert config_of(training=training).training.epochs == epochs


@pytest.mark.parametrize(
    ("checkpoint", "every"),
    [({}, 30), ({"every_seconds": 3}, 3), ({"every_steps": 3}, None), ({"every_epochs": 2}, None)],
)
def test_a_checkpoint_every_half_minute_unless_another_interval_is_given(checkpoint, every):
    assert config_of(training={"checkpoint": checkpoint}).training.checkpoint.every_seconds == every


def test_the_best_epoch_is_restored_where_there_is_validation():
    assert config_of().training.restore_best is False
    assert config_of(data={"path": "/a", "split": {"validation": 0.1}}).training.restore_best is True
    assert config_of(data={"train": "/a", "validation": "/b"}).training.restore_best is True
    assert config_of(data={"path": "/a", "split": {"validation": 0}}).training.restore_best is False


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90.0), ("30m", 1800.0), ("2h", 7200.0), ("0.1s", 0.1), ("1.5h", 5400.0)]
)
def test_times(text, seconds):
    config = config_of(training={"max_time": text})
    assert config.training.max_time == seconds
    assert config.resolved()["training"]["max_time"] == f"{seconds:g}s"


def test_units_follow_from_given_numbers():
    layers = [{"weights": [[1, 2], [3, 4]], "bias": [0, 1]}, {"bias": [5]}]
    first, last = config_of(network={"layers": layers}).network.layers
    assert (first.units, last.units) == (2, 1)
    assert (first.weights, first.bias) == ([[1.0, 2.0], [3.0, 4.0]], [0.0, 1.0])


def test_what_others_rely_on():
    """Attribute names of the plan that the other parts of the program are written against."""
    config = config_of(
        {"activation": {"name": "softmax", "alpha": 2}},
        network={
            "layers": [
                {"units": 3, "activation": {"name": "threshold", "low": -1}, "init": {"name": "normal", "std": 2}},
                {"kind": "residual", "layers": [{"units": 3}]},
                {"kind": "concat", "layers": ["layer_norm"]},
                {"kind": "highway", "activation": "tanh"},
                "batch_norm",
                {"kind": "positional_encoding", "frequencies": 3},
                {"activation": {"name": "softmax", "alpha": 2}},
            ]
        },
        data={"path": "/a", "numeric": {"name": "divide", "by": 255}, "missing": {"name": "constant", "value": -1}},
    )
    threshold, residual, concat, highway, batch_norm, encoding, output = config.network.layers
    assert (threshold.kind, threshold.activation.low, threshold.activation.high) == ("dense", -1.0, 1.0)
    assert (threshold.init.std, threshold.bias_init.name, threshold.bias_init.limit) == (2.0, "uniform", None)
    assert (threshold.weights, threshold.bias, threshold.freeze, threshold.dropout) == (None, None, False, 0.0)
    assert (residual.layers[0].units, concat.layers[0].epsilon) == (3, 1e-5)
    assert (highway.gate_bias, highway.activation.name, highway.init.name) == (-1.0, "tanh", "uniform")
    assert (batch_norm.epsilon, batch_norm.momentum, encoding.frequencies) == (1e-5, 0.1, 3)
    assert (output.units, output.activation.alpha) == (None, 2.0)
    assert (config.data.numeric.by, config.data.missing.value, config.data.categorical) == (255.0, -1.0, "one_hot")
    assert (config.network.input.dropout, config.network.input.noise, config.network.initial) == (0.0, 0.0, None)
    assert (config.loss.reduction, config.loss.class_weights, config.loss.label_smoothing) == ("mean", None, 0.0)
    assert (config.training.batch_size, config.training.sampling.name) == (None, "shuffle")
    assert (config.training.sampling.block_rows, config.training.early_stopping) == (None, None)
    assert (config.training.checkpoint.keep, config.training.on_divergence) == (2, "stop")


def test_nothing_heavy_is_imported():
    code = (
        "import sys, mlp_cli.config; assert 'pydantic' not in sys.modules; mlp_cli.config.json_schema()\n"
        "try: mlp_cli.config.load(['/none.yaml'])\n"
        "except mlp_cli.errors.ConfigError: pass\n"
        "print(sorted({'numba', 'numpy', 'click', 'pyarrow'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


# Generated configs: every word of the vocabulary, with options, put together so that they make sense.

NUMBERS = st.floats(1e-12, 1e12, allow_nan=False) | st.integers(1, 10**6)
PARTS = st.floats(0, 0.99)
WORDS = st.text(min_size=1, max_size=8).filter(lambda text: "\0" not in text)


def maybe(**options):
    """A mapping with any of these options."""
    return st.fixed_dictionaries({}, optional=options)


def named(word, key="name", required=(), **options):
    """A word, bare where nothing is required, or with any of its options."""
    needed = {key: st.just(word)} | {name: options.pop(name) for name in required}
    mapping = st.fixed_dictionaries(needed, optional=options)
    return mapping if required else mapping | st.just(word)


ACTIVATION_OPTIONS = {
    "threshold": {"low": st.floats(-5, 0.5), "high": st.floats(1, 5)},
    "leaky_relu": {"alpha": NUMBERS},
    "elu": {"alpha": NUMBERS},
    "softmax": {"alpha": NUMBERS},
}
INIT_OPTIONS = {
    "constant": {"value": st.floats(-9, 9)},
    "normal": {"std": NUMBERS},
    "truncated_normal": {"std": NUMBERS},
    "uniform": {"limit": NUMBERS | st.none()},
}
LOSS_OPTIONS = {
    "huber": {"delta": NUMBERS},
    "quantile": {"q": st.floats(0.01, 0.99)},
    "focal": {"gamma": NUMBERS, "label_smoothing": PARTS},
    "cross_entropy": {"label_smoothing": PARTS},
    "binary_cross_entropy": {"label_smoothing": PARTS},
}
BETAS = {"beta1": PARTS, "beta2": PARTS, "epsilon": NUMBERS}
OPTIMIZER_OPTIONS = {
    "sgd": {"momentum": st.floats(0.1, 0.9), "nesterov": st.just(False)},
    "adagrad": {"epsilon": NUMBERS},
    "adadelta": {"rho": PARTS, "epsilon": NUMBERS},
    "rmsprop": {"rho": PARTS, "epsilon": NUMBERS, "momentum": PARTS},
    "lion": {"beta1": PARTS, "beta2": PARTS},
    "rprop": {},
}
RATE_OPTIONS = {
    "step": {"every": NUMBERS, "gamma": NUMBERS},
    "multistep": {"milestones": st.sets(st.integers(1, 1000), min_size=1, max_size=5).map(sorted), "gamma": NUMBERS},
    "exponential": {"gamma": NUMBERS},
    "polynomial": {"power": NUMBERS, "final": PARTS},
    "cosine": {"final": PARTS},
    "flat_cosine": {"final": PARTS},
    "cosine_restarts": {"period": NUMBERS, "factor": st.floats(1, 9), "final": PARTS},
    "one_cycle": {"peak": st.floats(1, 100), "initial": st.floats(0.01, 0.9), "final": PARTS},
    "coslog": {"cycles": st.integers(1, 50)},
    "plateau": {"metric": st.just("loss"), "factor": st.floats(0.1, 0.9), "patience": st.integers(0, 9)},
    "inverse_time": {"c1": NUMBERS, "c2": PARTS, "per": st.sampled_from(["step", "epoch"])},
    "inverse_scaling": {"power": NUMBERS, "per": st.sampled_from(["step", "epoch"])},
}
REQUIRED = {
    "step": ["every"],
    "multistep": ["milestones"],
    "exponential": ["gamma"],
    "cosine_restarts": ["period"],
    "one_cycle": ["peak"],
    "inverse_time": ["c1"],
}

activations = st.sampled_from(list(ACTIVATIONS)).flatmap(lambda word: named(word, **ACTIVATION_OPTIONS.get(word, {})))
inits = st.sampled_from(INITIALIZERS).flatmap(
    lambda word: named(word, required=["value"] * (word == "constant"), **INIT_OPTIONS.get(word, {}))
)
optimizers = st.sampled_from(list(OPTIMIZERS)).flatmap(
    lambda word: named(word, **OPTIMIZER_OPTIONS.get(word, BETAS), clip_norm=NUMBERS, clip_value=NUMBERS)
)
rates = st.floats(1e-6, 1) | st.sampled_from(SCHEDULES).flatmap(
    lambda word: named(
        word,
        "schedule",
        REQUIRED.get(word, ()),
        **({} if word in ("inverse_time", "one_cycle") else {"initial": NUMBERS}),
        **RATE_OPTIONS.get(word, {}),
        warmup_epochs=st.floats(0, 1),
    )
)


def blocks(layers):
    """Blocks around layers; a residual one takes its width along."""
    inner = st.lists(layers, min_size=1, max_size=2)
    units = st.integers(1, 9)
    return st.fixed_dictionaries({"kind": st.just("concat"), "layers": inner}) | units.map(
        lambda width: {
            "kind": "concat",
            "layers": [{"units": width}, {"kind": "residual", "layers": [{"units": width}]}],
        }
    )


dense = st.fixed_dictionaries(
    {"units": st.integers(2, 2000)},
    optional={
        "kind": st.just("dense"),
        "activation": activations,
        "dropout": PARTS,
        "init": inits,
        "bias_init": inits,
        "freeze": st.booleans(),
    },
)
others = (
    st.sampled_from(["highway", "layer_norm", "batch_norm", "positional_encoding"])
    | maybe(activation=activations, init=inits, gate_bias=st.floats(-3, 3)).map(lambda o: {"kind": "highway", **o})
    | maybe(epsilon=NUMBERS, momentum=st.floats(0.1, 1)).map(lambda o: {"kind": "batch_norm", **o})
)
hidden = st.recursive(dense | others, blocks, max_leaves=4)
columns = st.integers(0, 99) | WORDS
data = maybe(
    target=columns,
    numeric=st.sampled_from(["none", "standard", "minmax", "robust", "quantile", {"name": "divide", "by": 255}]),
    missing=st.sampled_from(["error", "mean", "median", "indicator", "drop", {"name": "constant", "value": 1.5}]),
    header=st.booleans(),
    missing_values=st.lists(st.text(max_size=5) | st.integers()),
    labels=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    columns=st.dictionaries(WORDS, st.sampled_from(["numeric", "categorical"]), max_size=3),
    split=maybe(validation=st.floats(0, 0.4), test=st.floats(0, 0.4), stratify=st.booleans()) | st.none(),
    unseen=st.sampled_from(["error", "ignore"]),
    encoding=st.sampled_from(["utf-8", "latin-1"]),
    comment=st.sampled_from(["#", "%", None]),
    delimiter=st.sampled_from([";", "\t", None]),
).map(lambda options: {"path": "/data/rows.csv", **options})
training = maybe(
    epochs=st.integers(1, 10**9),
    max_steps=st.integers(1, 10**9),
    max_time=st.sampled_from(["90s", "1.5m", "0.3h"]),
    batch_size=st.integers(2, 10**6) | st.just("full") | st.none(),
    sampling=st.sampled_from(["shuffle", "sequential", "with_replacement", {"block_rows": 7}]),
    early_stopping=maybe(metric=st.just("loss"), patience=st.integers(1, 99), min_delta=PARTS) | st.none(),
    checkpoint=maybe(every_epochs=st.integers(1, 9), every_steps=st.integers(1, 9), every_seconds=NUMBERS),
    on_divergence=st.sampled_from(["stop", "rollback"]),
)


@st.composite
def configs(draw):
    """A config that is sound."""
    layers = [*draw(st.lists(hidden, max_size=3)), draw(dense.filter(lambda layer: not layer.get("dropout")))]
    output = layers[-1].get("activation", "linear")
    output = output if isinstance(output, str) else output["name"]
    config = {"data": draw(data), "network": {"layers": layers}}
    loss = draw(st.sampled_from([None, *LOSSES]))
    allowed = checks.OUTPUTS_OF.get(loss, ACTIVATIONS)
    one_winner = output in checks.ONE_WINNER and loss in checks.NOT_OF_ONE_WINNER
    never_there = loss in checks.OF_BIPOLAR_TARGETS and output in (*checks.NEVER_NEGATIVE, "threshold")
    if loss and output in allowed and not one_winner and not never_there:
        weights = st.just("balanced") | st.dictionaries(WORDS, NUMBERS, min_size=1, max_size=3)
        common = {"reduction": st.sampled_from(["mean", "sum"]), "class_weights": weights}
        config["loss"] = draw(named(loss, **LOSS_OPTIONS.get(loss, {}), **common))
    sections = {
        "seed": st.integers(0, 2**63 - 1),
        "dtype": st.sampled_from(["float32", "float64"]),
        "optimizer": optimizers,
        "learning_rate": rates,
        "regularization": maybe(l1=NUMBERS, l2=NUMBERS, weight_decay=NUMBERS, max_norm=NUMBERS),
        "training": training.filter(lambda options: "max_time" not in options or "max_steps" in options),
    }
    return config | draw(st.fixed_dictionaries({}, optional=sections))


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(written=configs())
def test_the_resolved_form_reads_back_to_an_equal_config(tmp_path_factory, written):
    path = tmp_path_factory.getbasetemp() / "generated.yaml"
    path.write_text(write(written))
    config = load([path])
    resolved = config.resolved()
    untouched = copy.deepcopy(resolved)
    again = from_resolved(resolved)
    assert resolved == untouched
    assert from_resolved(json.loads(json.dumps(resolved))) == config
    assert again == config
    assert again.resolved() == resolved
    path.write_text(dump(config))
    assert load([path]) == config
    assert dump(load([path])) == dump(config)


def test_a_column_or_class_called_name_is_no_bare_word(tmp_path):
    written = {
        "data": {"path": "a.csv", "columns": {"name": "categorical"}, "labels": {"name": "adam"}},
        "network": {"layers": [{"units": 2, "activation": "softmax"}]},
        "loss": {"name": "cross_entropy", "class_weights": {"name": 2.0}},
    }
    path = tmp_path / "c.yaml"
    path.write_text(write(written))
    config = load([path])
    path.write_text(dump(config))
    assert load([path]) == config
    assert config.data.columns == {"name": "categorical"}


@given(
    texts=st.dictionaries(
        st.text(), st.text() | st.floats(allow_nan=False) | st.integers(-(10**15), 10**15) | st.booleans()
    )
)
def test_the_writer_quotes_what_would_be_read_as_something_else(texts):
    problems = []
    assert to_plain(parse(write({"labels": texts}), Source(0, "c.yaml", "/"), problems))["labels"] == texts
    assert problems == []


def test_the_metrics_are_those_of_the_contract():
    assert METRICS == (
        "loss", "accuracy", "balanced_accuracy", "top_5_accuracy", "log_loss", "roc_auc", "f1_macro", "mcc", "brier",
        "rmse", "mae", "r2",
    )  # fmt: skip
