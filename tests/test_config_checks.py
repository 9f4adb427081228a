"""Options that make no sense together are refused before any data is read, each at its key."""

import pytest
import yaml

from mlp_cli import schedules
from mlp_cli.config import checks, from_resolved
from mlp_cli.errors import ConfigError
from mlp_cli.vocab import ACTIVATIONS, LOSSES


def problems(data="{path: x.csv}", layers=None, output="{}", **sections):
    """The lines of the ConfigError of a config, [] where it is sound."""
    text = f"data: {data}\nnetwork: {{layers: {layers or f'[{{units: 4, activation: relu}}, {output}]'}}}\n"
    text += "".join(f"{key}: {value}\n" for key, value in sections.items())
    try:
        from_resolved(yaml.safe_load(text))
    except ConfigError as error:
        return str(error).splitlines()
    return []


def test_which_losses_go_with_which_outputs():
    in_unit_interval = {"softmax", "sigmoid", "hard_sigmoid", "gaussian"}
    never_negative = in_unit_interval | {"hardmax", "threshold", "relu", "softplus", "exponential"}
    for activation in ACTIVATIONS:
        for loss in LOSSES:
            sound = {
                "binary_cross_entropy": activation in in_unit_interval,
                "cross_entropy": activation in in_unit_interval,
                "focal": activation in {"softmax", "sigmoid"},
                "poisson": activation in {"exponential", "softplus", "sigmoid", "relu"},
                "quantile": activation not in {"softmax", "hardmax"},
                "hinge": activation not in never_negative,
                "squared_hinge": activation not in never_negative,
            }.get(loss, True)
            found = problems(output=f"{{activation: {activation}}}", loss=loss)
            assert (found == []) == sound, (activation, loss)
            assert all(line.startswith(f"loss.name: {loss} ") for line in found)


def test_every_activation_has_a_default_loss_that_suits_it():
    for activation in ACTIVATIONS:
        assert problems(output=f"{{activation: {activation}}}") == []


def test_which_outputs_can_be_bipolar():
    sound = {"linear", "tanh", "leaky_relu", "elu", "selu", "gelu", "silu", "mish", "softsign", "hard_tanh", "sin"}
    for activation in ACTIVATIONS:
        found = problems("{path: x.csv, target_coding: bipolar}", output=f"{{activation: {activation}}}")
        assert (found == []) == (activation in sound), activation
        assert all(line.startswith("data.target_coding: ") for line in found)


BIPOLAR = "{path: x.csv, target_coding: bipolar}"
REGRESSION = "{path: x.csv, task: regression}"
CLASSES = "{path: x.csv, task: classification}"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            {"output": "{activation: softmax}", "loss": "quantile"},
            "loss.name: quantile makes no sense of softmax outputs; expected cross_entropy or another output "
            "activation",
        ),
        (
            {"loss": "poisson"},
            "loss.name: poisson needs one of exponential, softplus, sigmoid, relu as the output activation; got linear",
        ),
        (
            {"output": "{units: 1, activation: sigmoid}", "loss": "cross_entropy"},
            "loss.name: cross_entropy needs a unit for each class; use binary_cross_entropy with one unit",
        ),
        (
            {"data": BIPOLAR, "output": "{activation: threshold}"},
            "data.target_coding: bipolar targets are -1 and +1, but the output is 0 or 1: set its low to -1",
        ),
        ({"data": BIPOLAR, "output": "{activation: {name: threshold, low: -1}}"}, None),
        (
            {"data": BIPOLAR, "output": "{activation: sigmoid}"},
            "data.target_coding: bipolar targets are -1 and +1, but sigmoid outputs are never negative: use tanh, "
            "or binary",
        ),
        ({"data": BIPOLAR, "loss": "hinge"}, None),
        ({"loss": "hinge"}, None),
        (
            {"loss": "hinge", "output": "{activation: threshold}"},
            "loss.name: hinge learns -1 and +1, but the output is 0 or 1: set its low to -1",
        ),
        ({"loss": "hinge", "output": "{activation: {name: threshold, low: -1}}"}, None),
        (
            {"data": BIPOLAR, "loss": "squared_hinge", "output": "{activation: sigmoid}"},
            "loss.name: squared_hinge learns -1 and +1, but sigmoid outputs are never negative: use tanh or linear",
        ),
        (
            {"data": "{path: x.csv, task: regression, target_coding: bipolar}"},
            "data.target_coding: bipolar is a coding of classes, but data.task is regression",
        ),
        (
            {"data": CLASSES, "output": "{activation: {name: threshold, low: -1}}"},
            "network.layers.1.activation.low: binary targets are 0 and 1, but the output goes down to -1.0: set "
            "data.target_coding to bipolar",
        ),
        (
            {"output": "{activation: {name: threshold, low: 2}}"},
            "network.layers.1.activation.low: expected low < high; got low 2.0 and high 1.0",
        ),
        (
            {"output": "{units: 1, activation: softmax}"},
            "network.layers.1.units: softmax of one unit is always 1: give it two or more units, or use sigmoid",
        ),
        (
            {"output": "{dropout: 0.5}"},
            "network.layers.1.dropout: the output layer cannot drop its outputs: remove dropout here",
        ),
        (
            {"data": REGRESSION, "loss": "focal", "output": "{activation: sigmoid}"},
            "loss.name: focal learns classes, but data.task is regression",
        ),
        (
            {"data": REGRESSION, "loss": "{name: mse, class_weights: balanced}"},
            "loss.class_weights: there are no classes to weigh, for data.task is regression",
        ),
        (
            {
                "data": REGRESSION,
                "output": "{activation: sigmoid}",
                "loss": "{name: binary_cross_entropy, label_smoothing: 0.1}",
            },
            "loss.label_smoothing: there are no class labels to smooth, for data.task is regression",
        ),
        (
            {"data": "{path: x.csv, target: [a, b]}", "loss": "{name: mse, class_weights: balanced}"},
            "loss.class_weights: there are no classes to weigh, for data.target names 2 columns",
        ),
        (
            {"data": "{path: x.csv, target: [a, b], task: classification}"},
            "data.task: classification needs one target column; data.target names 2",
        ),
        (
            {"data": "{path: x.csv, target_scaling: minmax}", "output": "{activation: softmax}"},
            "data.target_scaling: classes are not scaled, and the output activation is softmax: remove it",
        ),
        (
            {"data": "{path: x.csv, target_scaling: minmax}", "loss": "hinge"},
            "data.target_scaling: classes are not scaled, and the loss is hinge: remove it",
        ),
        (
            {"data": "{path: x.csv, target_scaling: standard}", "output": "{activation: exponential}"},
            "data.target_scaling: standard makes some targets negative, which poisson cannot take: use minmax or none",
        ),
        ({"data": "{path: x.csv, target_scaling: standard}"}, None),
    ],
)
def test_outputs_losses_and_targets(config, expected):
    assert problems(**config) == ([expected] if expected else [])


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (
            "[{kind: residual, layers: [{units: 3}]}]",
            "0.kind: the last layer is the output layer and must be dense; got residual",
        ),
        ("[{}, {}]", "0.units: expected units; only the last layer may leave them to the data"),
        (
            "[{kind: concat, layers: [{}]}, {}]",
            "0.layers.0.units: expected units; only the last layer may leave them to the data",
        ),
        ("[{weights: [[1, 2], [3]]}]", "0.weights.1: expected a row as long as the first, 2; got 1"),
        ("[{weights: [[1, 2]], bias: [1, 2]}]", "0.bias: expected as many numbers as weights has rows, 1; got 2"),
        ("[{units: 3, weights: [[1, 2]]}]", "0.weights: expected as many rows as units, 3; got 1"),
        ("[{units: 3, bias: [1, 2]}]", "0.bias: expected as many numbers as units, 3; got 2"),
        ("[{weights: [[1]], init: zeros}]", "0.init: weights gives the numbers themselves: remove init or weights"),
        ("[{bias: [1], bias_init: zeros}]", "0.bias_init: bias gives the numbers themselves: remove bias_init or bias"),
        ("[{units: 3}, {weights: [[1, 2]]}]", "1.weights: expected rows as long as what comes in is wide, 3; got 2"),
        (
            "[{units: 3}, {kind: residual, layers: [{units: 5}, {units: 4}]}, {}]",
            "1.layers: f(x) must be as wide as x, to be added to it: x has 3 columns, f(x) 4",
        ),
        (
            "[{units: 3}, {kind: residual, layers: [{kind: positional_encoding, frequencies: 2}]}, {}]",
            "1.layers: f(x) must be as wide as x, to be added to it: x has 3 columns, f(x) 12",
        ),
        (
            "[{units: 3}, {kind: concat, layers: [{units: 2}]}, layer_norm, {kind: residual, layers: [{units: 3}]}, "
            "{}]",
            "3.layers: f(x) must be as wide as x, to be added to it: x has 5 columns, f(x) 3",
        ),
        (
            "[{kind: residual, layers: [{units: 5}]}, {weights: [[1, 2]]}]",
            "1.weights: expected rows as long as what comes in is wide, 5; got 2",
        ),
        (
            "[{kind: highway, activation: {name: threshold, high: -1}}, {}]",
            "0.activation.high: expected low < high; got low 0.0 and high -1.0",
        ),
    ],
)
def test_layers(layers, expected):
    assert problems(layers=layers) == [f"network.layers.{expected}"]


@pytest.mark.parametrize(
    "layers",
    [
        "[{kind: residual, layers: [{units: 5}]}, {}]",
        "[{units: 5}, {kind: residual, layers: [{units: 9}, batch_norm, {units: 5}]}, {}]",
        "[{weights: [[1, 2], [3, 4]]}, {weights: [[1, 1]], bias: [0]}]",
        "[positional_encoding, {units: 3}, {kind: highway}, {kind: concat, layers: [{units: 1}]}, {weights: [[1, 2, "
        "3, 4]]}]",
    ],
)
def test_sound_layers(layers):
    assert problems(layers=layers) == []


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("{}", ["data: expected path, one file with all rows, or train; got neither"]),
        ("{path: a, train: b}", ["data.train: path already holds all rows: remove path or train"]),
        ("{validation: b}", ["data: expected path, one file with all rows, or train; got neither"]),
        ("{train: {x: a, y: b}, target: c}", ["data.target: y already holds the targets: remove target"]),
        (
            "{train: a, test: b, split: {test: 0.1}}",
            ["data.split.test: data.test already gives these rows: remove one of the two"],
        ),
        ("{train: a, test: b, split: {validation: 0.1, test: 0}}", []),
        (
            "{path: a, split: {validation: 0.5, test: 0.6}}",
            ["data.split: expected validation and test to leave rows for training, a sum < 1; got 1.1"],
        ),
        (
            "{path: a, target: t, features: [a, t], exclude: [t]}",
            [
                "data.features.1: 't' is the target already: remove it here or there",
                "data.exclude.0: 't' is the target already: remove it here or there",
                "data.exclude.0: 't' is one of the features already: remove it here or there",
            ],
        ),
        (
            "{path: a, target: [t, 3], sample_weight: 3}",
            ["data.sample_weight: 3 is the target already: name another column"],
        ),
        (
            "{path: a, sample_weight: w, features: [w, b, b]}",
            [
                "data.features.0: 'w' is the sample weight already: remove it here or there",
                "data.features.2: expected different columns; 'b' stands twice",
            ],
        ),
        ("{path: a, names: [a, b, a]}", ["data.names.2: expected different columns; 'a' stands twice"]),
        (
            "{path: a, delimiter: ',', decimal: ','}",
            ["data.delimiter: expected another character than that of decimal; got ','"],
        ),
        (
            "{path: a, delimiter: '#', comment: '#'}",
            ["data.delimiter: expected another character than that of comment; got '#'"],
        ),
    ],
)
def test_data(data, expected):
    assert problems(data) == expected


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        (
            {"optimizer": "{name: sgd, nesterov: true}"},
            "optimizer.nesterov: nesterov looks ahead along the momentum, which is 0: give momentum, 0.9 for example",
        ),
        ({"optimizer": "{name: sgd, nesterov: true, momentum: 0.9}"}, None),
        ({"regularization": "{weight_decay: 0.1}"}, None),
        (
            {"learning_rate": "{schedule: multistep, milestones: [10, 5]}"},
            "learning_rate.milestones.1: expected milestones in rising order; 5 follows 10",
        ),
        (
            {"learning_rate": "{schedule: one_cycle, peak: 0.1, initial: 0.2}"},
            "learning_rate.peak: expected a peak >= initial, which is 0.2; got 0.1",
        ),
        (
            {"learning_rate": "{warmup_epochs: 11}", "training": "{epochs: 10}"},
            "learning_rate.warmup_epochs: expected at most training.epochs, which is 10; got 11",
        ),
        ({"learning_rate": "{warmup_epochs: 11}", "training": "{epochs: 0}"}, None),
        (
            {"learning_rate": "cosine", "training": "{max_time: 1h}"},
            "learning_rate.schedule: cosine needs the length of the run, which max_time does not tell: give "
            "training.epochs "
            "or training.max_steps, or use another schedule",
        ),
        ({"learning_rate": "cosine", "training": "{max_time: 1h, max_steps: 100}"}, None),
        ({"learning_rate": "{schedule: step, every: 3}", "training": "{max_time: 1h}"}, None),
        (
            {"training": "{restore_best: true}"},
            "training.restore_best: no validation rows tell which epoch is best: give data.split.validation or "
            "data.validation",
        ),
        ({"training": "{restore_best: true}", "data": "{path: a, split: {validation: 0.1}}"}, None),
        ({"training": "{restore_best: true}", "data": "{train: a, validation: b}"}, None),
        (
            {"training": "{batch_size: 1}", "layers": "[{kind: residual, layers: [batch_norm]}, {}]"},
            "training.batch_size: network.layers.0.layers.0 is a batch_norm, which needs batches of at least 2 "
            "samples; got 1",
        ),
        (
            {"training": "{early_stopping: {metric: rmse}}", "output": "{activation: softmax}"},
            "training.early_stopping.metric: 'rmse' is a metric of numbers, but the output activation is softmax; "
            "expected "
            "one of loss, accuracy, balanced_accuracy, top_5_accuracy, log_loss, roc_auc, f1_macro, mcc, brier",
        ),
        (
            {"training": "{early_stopping: {metric: mcc}}", "data": REGRESSION},
            "training.early_stopping.metric: 'mcc' is a metric of classes, but data.task is regression; expected "
            "one of loss, "
            "rmse, mae, r2",
        ),
        (
            {"learning_rate": "{schedule: plateau, metric: r2.c}", "data": "{path: x, target: [a, b]}"},
            "learning_rate.metric: expected r2 or one of r2.a, r2.b; got 'r2.c'",
        ),
        ({"learning_rate": "{schedule: plateau, metric: r2.a}", "data": "{path: x, target: [a, b]}"}, None),
        (
            {"learning_rate": "{schedule: plateau, metric: r2.a}", "data": "{path: x, target: a}"},
            "learning_rate.metric: there is only one target: write r2",
        ),
        ({"learning_rate": "plateau"}, None),
    ],
)
def test_steps_and_runs(sections, expected):
    assert problems(**sections) == ([expected] if expected else [])


def test_the_schedules_that_need_the_length_of_the_run_are_refused_by_schedules_too():
    options = {"one_cycle": "{schedule: one_cycle, peak: 0.1}"}
    for name in checks.NEED_TOTAL:
        rate = options.get(name, name)
        config = from_resolved(yaml.safe_load(f"data: {{path: a}}\nnetwork: {{layers: [{{}}]}}\nlearning_rate: {rate}"))
        with pytest.raises(ConfigError, match="needs the length of the run"):
            schedules.learning_rates(config.learning_rate, 1, 3, 10)
