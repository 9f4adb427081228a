"""What a user reads after a mistake: whole messages, all of them at once, in the order of the file."""

import pytest

from mlp_cli.config import from_resolved, load
from mlp_cli.errors import ConfigError

pytestmark = pytest.mark.smoke


@pytest.fixture
def problems(tmp_path, monkeypatch):
    """`problems(text)`: the lines of the ConfigError of that config, c.yaml."""
    monkeypatch.chdir(tmp_path)

    def find(text):
        (tmp_path / "c.yaml").write_text(text)
        with pytest.raises(ConfigError) as error:
            load(["c.yaml"])
        return str(error.value).splitlines()

    return find


def test_a_file_full_of_mistakes(problems):
    text = """\
seed: "5"
dtipe: float32
data:
  path: x.csv
  split: {validation: 0.5, test: 0.5}
  numeric: {name: divide}
network:
  layers:
    - {units: 64.0, activation: rellu, dropout: yes}
    - {kind: residual, layers: [{units: 64, dropouts: 3}, {kind: concat, layers: []}]}
    - {activation: {name: softmax, alpha: .inf, beta: 1}}
loss: quantile
optimizer: {name: adam, momentum: 0.9, learning_rate: 0.01}
epochs: 10
learning_rate: {schedule: multistep, milestones: [3, 2, 5, 5]}
regularization:
training:
  restore_best: True
  max_time: 90
  batch_sise: 3
"""
    assert problems(text) == [
        "c.yaml:1:7 seed: expected an integer in [0, 9223372036854775807]; got '5', which is text: write it without "
        "quotes",
        "c.yaml:2:1 dtipe: unknown key; a config has seed, dtype, data, network, loss, optimizer, learning_rate, "
        "regularization, training. Did you mean dtype?",
        "c.yaml:5:3 data.split: expected validation and test to leave rows for training, a sum < 1; got 1",
        "c.yaml:6:3 data.numeric: divide needs by, a number > 0; got nothing",
        "c.yaml:9:15 network.layers.0.units: expected an integer in [1, 16777216]; got 64.0: write 64",
        "c.yaml:9:33 network.layers.0.activation: expected one of linear, threshold, sigmoid, tanh, relu, leaky_relu, "
        "elu, selu, gelu, silu, mish, softplus, softsign, hard_sigmoid, hard_tanh, sin, gaussian, exponential, "
        "softmax, "
        "hardmax; got 'rellu'. Did you mean relu?",
        "c.yaml:9:49 network.layers.0.dropout: expected a number in [0, 1); got 'yes'",
        "c.yaml:10:45 network.layers.1.layers.0.dropouts: dense has no option dropouts, only units, activation, "
        "dropout, "
        "init, bias_init, weights, bias, freeze. Did you mean dropout?",
        "c.yaml:10:74 network.layers.1.layers.1.layers: expected a list of at least one element; got an empty list",
        "c.yaml:11:43 network.layers.2.activation.alpha: expected a number > 0; got .inf",
        "c.yaml:11:49 network.layers.2.activation.beta: softmax has no option beta, only alpha",
        "c.yaml:13:25 optimizer.momentum: adam has no option momentum, only beta1, beta2, epsilon, clip_norm, "
        "clip_value; sgd and rmsprop have momentum",
        "c.yaml:13:40 optimizer.learning_rate: adam has no option learning_rate, only beta1, beta2, epsilon, "
        "clip_norm, "
        "clip_value. Did you mean learning_rate at the top level?",
        "c.yaml:14:1 epochs: unknown key; a config has seed, dtype, data, network, loss, optimizer, learning_rate, "
        "regularization, training. Did you mean training.epochs?",
        "c.yaml:15:54 learning_rate.milestones.1: expected milestones in rising order; 2 follows 3",
        "c.yaml:15:60 learning_rate.milestones.3: expected milestones in rising order; 5 follows 5",
        "c.yaml:19:13 training.max_time: expected a time such as 90s, 30m or 2h; got 90: write 90s for seconds",
        "c.yaml:20:3 training.batch_sise: unknown key; training has epochs, max_steps, max_time, batch_size, sampling, "
        "early_stopping, restore_best, checkpoint, on_divergence. Did you mean batch_size?",
    ]


VALID = "data: {path: x.csv}\nnetwork: {layers: [{units: 3, activation: relu}, {}]}\n"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("seed: -1", "3:7 seed: expected an integer in [0, 9223372036854775807]; got -1"),
        ("seed: true", "3:7 seed: expected an integer in [0, 9223372036854775807]; got true"),
        ("seed:", "3:6 seed: expected an integer in [0, 9223372036854775807]; got null"),
        ("dtype: [float32]", "3:1 dtype: expected one of float32, float64; got a list"),
        ("dtype: float", "3:8 dtype: expected one of float32, float64; got 'float'. Did you mean float32?"),
        (
            "loss: 5",
            "3:7 loss: expected one of quadratic, half_quadratic, mse, mae, huber, log_cosh, quantile, poisson, "
            "binary_cross_entropy, cross_entropy, focal, hinge, squared_hinge or a mapping with name; got 5",
        ),
        (
            "loss: {q: 0.2}",
            "3:1 loss.name: expected one of quadratic, half_quadratic, mse, mae, huber, log_cosh, "
            "quantile, poisson, binary_cross_entropy, cross_entropy, focal, hinge, squared_hinge; got nothing",
        ),
        (
            "loss: {name: huber, q: 0.2}",
            "3:21 loss.q: huber has no option q, only delta, reduction, class_weights; quantile has q",
        ),
        ("loss: {name: mse, class_weights: {a: 1, b: 0}}", "3:44 loss.class_weights.b: expected a number > 0; got 0"),
        (
            "loss: {name: mse, class_weights: ballanced}",
            "3:34 loss.class_weights: expected balanced, or a mapping of classes to numbers > 0; got 'ballanced'",
        ),
        (
            "optimizer: Adam",
            "3:12 optimizer: expected one of sgd, adagrad, adadelta, rmsprop, adam, adamw, adamax, nadam, "
            "radam, lion, rprop; got 'Adam'. Did you mean adam?",
        ),
        ("optimizer: {beta1: 1}", "3:20 optimizer.beta1: expected a number in [0, 1); got 1"),
        (
            "optimizer: {name: rprop, epsilon: 1}",
            "3:26 optimizer.epsilon: rprop has no option epsilon, only clip_norm, "
            "clip_value; adagrad, adadelta, rmsprop, adam, adamw, adamax, nadam and radam have epsilon",
        ),
        ("learning_rate: 0", "3:16 learning_rate: expected a number > 0; got 0"),
        (
            "learning_rate: {schedule: inverse_time, initial: 1, c1: 2}",
            "3:41 learning_rate.initial: inverse_time has no "
            "option initial, only c1, c2, per, warmup_epochs; constant, step, multistep, exponential, polynomial, "
            "cosine, "
            "cosine_restarts, one_cycle, flat_cosine, coslog, plateau and inverse_scaling have initial",
        ),
        ("learning_rate: inverse_time", "3:16 learning_rate: inverse_time needs c1, a number > 0; got nothing"),
        (
            "regularization: {l2: 1.0e-4, weightdecay: 1}",
            "3:30 regularization.weightdecay: unknown key; regularization "
            "has l1, l2, weight_decay, max_norm. Did you mean weight_decay?",
        ),
        (
            "training: 5",
            "3:11 training: expected a mapping with epochs, max_steps, max_time, batch_size, sampling, "
            "early_stopping, restore_best, checkpoint, on_divergence; got 5",
        ),
        ("training: {batch_size: all}", "3:24 training.batch_size: expected an integer >= 1 or full; got 'all'"),
        ("training: {batch_size: 0}", "3:24 training.batch_size: expected an integer >= 1 or full; got 0"),
        (
            "training: {batch_size: fulll}",
            "3:24 training.batch_size: expected an integer >= 1 or full; got 'fulll'. Did you mean full?",
        ),
        ("training: {max_time: 2 h}", "3:22 training.max_time: expected a time such as 90s, 30m or 2h; got '2 h'"),
        ("training: {max_steps: 1e3}", "3:23 training.max_steps: expected an integer >= 1; got 1000.0: write 1000"),
        (
            "training: {restore_best: yes}",
            "3:26 training.restore_best: expected true or false; got 'yes'. Did you mean true?",
        ),
        (
            "training: {early_stopping: {metric: acc}}",
            "3:37 training.early_stopping.metric: expected one of loss, "
            "accuracy, balanced_accuracy, top_5_accuracy, log_loss, roc_auc, f1_macro, mcc, brier, rmse, mae, r2, or "
            "rmse.TARGET, mae.TARGET, r2.TARGET; got 'acc'. Did you mean accuracy?",
        ),
        (
            "training: {sampling: {name: sequential, block_rows: 5}}",
            "3:41 training.sampling.block_rows: sequential has no options; shuffle has block_rows",
        ),
    ],
)
def test_one_mistake(problems, line, expected):
    assert problems(VALID + line) == [f"c.yaml:{expected}"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            "{pth: x.csv}",
            [
                "1:8 data.pth: unknown key; data has path, train, validation, test, target, split, numeric, "
                "categorical, missing, memory, header, names, delimiter, decimal, encoding, comment, missing_values, "
                "features, exclude, columns, labels, sample_weight, unseen, target_scaling, task, target_coding. "
                "Did you mean path?",
            ],
        ),
        ("{path: 5}", ["1:14 data.path: expected a path; got 5"]),
        (
            "{train: {x: a.npy}}",
            ["1:8 data.train: expected a path, or {x: PATH, y: PATH} for a pair of files; got only x"],
        ),
        (
            "{train: {path: a, x: b, y: c}}",
            ["1:8 data.train: expected a path, or {x: PATH, y: PATH} for a pair of files; got path and x and y"],
        ),
        ("{train: [a, b]}", ["1:8 data.train: expected a path, or {x: PATH, y: PATH} for a pair of files; got a list"]),
        (
            "{path: a, target: [b, b]}",
            ["1:17 data.target: expected a column name or an integer >= 0, or a list of different ones; got a list"],
        ),
        (
            "{path: a, target: -1}",
            ["1:25 data.target: expected a column name or an integer >= 0, or a list of different ones; got -1"],
        ),
        ("{path: a, split: 0.2}", ["1:24 data.split: expected a mapping with validation, test, stratify; got 0.2"]),
        (
            "{path: a, delimiter: tab}",
            ["1:28 data.delimiter: expected one character; got 'tab': write \"\\t\" in double quotes"],
        ),
        ("{path: a, decimal: ';'}", ["1:26 data.decimal: expected one of '.', ','; got ';'"]),
        (
            "{path: a, encoding: utf-99}",
            ["1:27 data.encoding: expected an encoding that Python knows, such as utf-8 or latin-1; got 'utf-99'"],
        ),
        (
            "{path: a, missing_values: [true]}",
            ["1:34 data.missing_values.0: expected text; got true: write it in quotes"],
        ),
        (
            "{path: a, missing_values: [-99, 0.50]}",
            ["1:39 data.missing_values.1: expected text; got 0.5: write it in quotes"],
        ),
        (
            "{path: a, columns: {zip: text}}",
            ["1:32 data.columns.zip: expected one of numeric, categorical; got 'text'"],
        ),
        (
            "{path: a, missing: {name: mean, value: 3}}",
            ["1:39 data.missing.value: mean has no options; constant has value"],
        ),
        (
            "{path: a, numeric: Standard}",
            [
                "1:26 data.numeric: expected one of none, standard, minmax, robust, quantile, divide; got 'Standard'. "
                "Did you mean standard?"
            ],
        ),
    ],
)
def test_mistakes_in_data(problems, data, expected):
    assert problems(f"data: {data}\nnetwork: {{layers: [{{}}]}}") == [f"c.yaml:{line}" for line in expected]


def test_a_key_of_another_section_is_recognised(problems):
    text = VALID + "training: {weight_decay: 0.1, dropout: 0.2, momentum: 3, patience: 5}\nlr: 1\nepoch: 3"
    assert [line.split(". ")[-1] for line in problems(text)] == [
        "Did you mean regularization.weight_decay?",
        "Did you mean network.input.dropout?",
        "Did you mean optimizer.momentum?",
        "Did you mean training.early_stopping.patience?",
        "c.yaml:4:1 lr: unknown key; a config has seed, dtype, data, network, loss, optimizer, learning_rate, "
        "regularization, training",
        "Did you mean training.epochs?",
    ]


def test_strange_keys_and_values_are_shown_escaped(problems):
    assert problems(VALID + '"\\e[31m": 1\n"a b": 2\nseed: "\\e[0m"') == [
        "c.yaml:3:1 '\\x1b[31m': unknown key; a config has seed, dtype, data, network, loss, optimizer, learning_rate, "
        "regularization, training",
        "c.yaml:4:1 'a b': unknown key; a config has seed, dtype, data, network, loss, optimizer, learning_rate, "
        "regularization, training",
        "c.yaml:5:7 seed: expected an integer in [0, 9223372036854775807]; got '\\x1b[0m'",
    ]


def test_mistakes_of_the_reader_and_of_the_schema_come_together(problems):
    text = VALID + "seed: 010\ndtype: &a float32\ntraining: {epochs: -1, epochs: 3, max_steps: *a}"
    assert problems(text) == [
        "c.yaml:3:7 seed: 010 is octal for some readers: write 10, or '010' in quotes if it is text",
        "c.yaml:4:8: the anchor &a is refused: write the value out where it is used",
        "c.yaml:5:20 training.epochs: expected an integer >= 0; got -1",
        "c.yaml:5:24 training.epochs: duplicate key, in line 5, twice",
        "c.yaml:5:46: the alias *a is refused: write the value out",
    ]


def test_a_wrong_value_hides_no_other_mistake_and_causes_none(problems):
    text = """\
data: {path: 5, task: regression, target_scaling: standart}
network: {layers: [{units: x}, {activation: sofmax}]}
loss: {name: hinge, class_weights: balanced}
optimizer: {name: sgd, nesterov: true, momentun: 0.9}
training: {restore_best: true, epochs: x}
"""
    assert [line.split(": ")[0] for line in problems(text)] == [
        "c.yaml:1:14 data.path",
        "c.yaml:1:51 data.target_scaling",
        "c.yaml:2:28 network.layers.0.units",
        "c.yaml:2:45 network.layers.1.activation",
        "c.yaml:3:14 loss.name",
        "c.yaml:3:36 loss.class_weights",
        "c.yaml:4:40 optimizer.momentun",
        "c.yaml:5:26 training.restore_best",
        "c.yaml:5:40 training.epochs",
    ]


def test_a_section_beyond_repair_leaves_the_others_checked(problems):
    text = "network: 5\noptimizer: {name: sgd, nesterov: true}\ntraining: {restore_best: true}"
    assert [line.split(": ")[0] for line in problems(text)] == [
        "c.yaml:1:1 data",
        "c.yaml:1:10 network",
        "c.yaml:2:34 optimizer.nesterov",
    ]


def test_no_more_than_fifty_are_shown(problems):
    lines = problems(VALID + "".join(f"k{n}: 1\n" for n in range(300)))
    assert len(lines) == 51
    assert lines[-1] == "and 250 more problems"


def test_a_config_tells_where_its_values_stand(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(VALID + "loss: mae\n")
    config = load(["c.yaml"], ["training.epochs=3"])
    assert config.where("network.layers.0.units") == "c.yaml:2:28 network.layers.0.units"
    assert config.where("network.layers.1.units") == "c.yaml:2:50 network.layers.1.units"
    assert config.where("loss.name") == "c.yaml:3:7 loss"
    assert config.where("training.batch_size") == "override 'training.epochs=3' training.batch_size"
    assert config.where("optimizer.name") == "c.yaml:1:1 optimizer.name"
    error = config.error("network.layers.1.units", "expected 3, one for each class; got 4")
    assert isinstance(error, ConfigError)
    assert str(error) == "c.yaml:2:50 network.layers.1.units: expected 3, one for each class; got 4"
    assert from_resolved(config.resolved()).where("loss.name") == "loss.name"


def test_mistakes_in_a_resolved_config_have_no_place(tmp_path):
    (tmp_path / "c.yaml").write_text(VALID)
    values = load([tmp_path / "c.yaml"]).resolved()
    values["seed"], values["optimizer"]["beta3"] = -1, 0.5
    with pytest.raises(ConfigError) as error:
        from_resolved(values)
    assert str(error.value).splitlines() == [
        "seed: expected an integer in [0, 9223372036854775807]; got -1",
        "optimizer.beta3: adam has no option beta3, only beta1, beta2, epsilon, clip_norm, clip_value. Did you mean "
        "beta2?",
    ]
    with pytest.raises(ConfigError, match="expected a mapping; got an empty list"):
        from_resolved([])
    deep = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(ConfigError, match="nested too deeply"):
        from_resolved({"network": deep})
