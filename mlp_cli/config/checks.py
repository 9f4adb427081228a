"""Options that make no sense together, found before any data is read.

Each check is a generator of Problems. A Problem names the other keys it rests on, so that a key which is itself
wrong does not lead to further complaints.
"""

from mlp_cli.config.checks_network import LAYERS, ONE_WINNER, network_problems, walk
from mlp_cli.config.leaves import show
from mlp_cli.config.schema import has_validation
from mlp_cli.config.schema_data import Source
from mlp_cli.config.schema_learning import CLASS_METRICS, NUMBER_METRICS
from mlp_cli.config.tree import Problem
from mlp_cli.vocab import CLASS_ACTIVATIONS, CLASS_LOSSES, NEED_TOTAL
from mlp_cli.wording import listed

OUTPUTS_OF = {
    "binary_cross_entropy": ("softmax", "sigmoid", "hard_sigmoid", "gaussian"),
    "cross_entropy": ("softmax", "sigmoid", "hard_sigmoid", "gaussian"),
    "focal": ("softmax", "sigmoid"),
    "poisson": ("exponential", "softplus", "sigmoid", "relu"),
}
NOT_OF_ONE_WINNER = ("quantile", "hinge", "squared_hinge")
NEVER_NEGATIVE = ("sigmoid", "relu", "softplus", "hard_sigmoid", "gaussian", "exponential", "softmax", "hardmax")
OF_BIPOLAR_TARGETS = ("hinge", "squared_hinge")
OF_BINARY_TARGETS = ("binary_cross_entropy", "cross_entropy", "focal")
OF_CLASSES_ONLY = ("focal", "hinge", "squared_hinge")
OF_TARGETS_FROM_ZERO = ("poisson", "binary_cross_entropy", "cross_entropy")

LOSS = ("loss", "name")
TASK = ("data", "task")
TARGET = ("data", "target")
CODING = ("data", "target_coding")
SCALING = ("data", "target_scaling")


def problems(config):
    """Every Problem of a config whose values are right one by one."""
    yield from data_problems(config.data)
    yield from network_problems(config)
    if config.network.layers[-1].kind == "dense":
        yield from loss_problems(config)
        if known_task(config)[0] != "regression":
            yield from coding_problems(config)
    yield from task_problems(config)
    yield from metric_problems(config)
    yield from optimizer_problems(config.optimizer)
    yield from rate_problems(config.learning_rate, config.training)
    yield from training_problems(config)


def data_problems(data):
    """What does not fit together in `data`."""
    if data.path is not None and data.train is not None:
        yield Problem(
            ("data", "train"), "path already holds all rows: remove path or train", involves=(("data", "path"),)
        )
    if data.path is None and data.train is None:
        yield Problem(("data",), "expected path, one file with all rows, or train; got neither")
    if isinstance(data.train, Source) and data.train.x is not None and data.target is not None:
        message = "y already holds the targets: remove target"
        yield Problem(("data", "target"), message, involves=(("data", "train"),))
    if data.memory == "map":
        yield from _mapping_problems(data)
    yield from _split_problems(data)
    yield from _column_problems(data)
    if data.delimiter is not None and data.delimiter in (data.decimal, data.comment):
        other = "decimal" if data.delimiter == data.decimal else "comment"
        message = f"expected another character than that of {other}; got {data.delimiter!r}"
        yield Problem(("data", "delimiter"), message, involves=(("data", other),))


def _mapping_problems(data):
    """What cannot be done to numbers that stay in their file."""
    memory = ("data", "memory")
    if data.missing.name != "error":
        message = f"{data.missing.name} needs the data in memory: use error, or set data.memory to load"
        yield Problem(("data", "missing"), message, involves=(memory,))
    if data.numeric.name == "quantile":
        message = "quantile needs the data in memory: use another scale, or set data.memory to load"
        yield Problem(("data", "numeric"), message, involves=(memory,))


def _split_problems(data):
    split = data.split
    if split is None:
        return
    for part in ("validation", "test"):
        if getattr(split, part) is not None and getattr(data, part) is not None:
            message = f"data.{part} already gives these rows: remove one of the two"
            yield Problem(("data", "split", part), message, involves=(("data", part),))
    cut = (split.validation or 0.0) + (split.test or 0.0)
    if cut >= 1:
        message = f"expected validation and test to leave rows for training, a sum < 1; got {cut:g}"
        yield Problem(("data", "split"), message, involves=(("data", "split"),))


def _column_problems(data):
    """A column has one role: target, weight, feature, or none."""
    targets = data.target if isinstance(data.target, list) else [] if data.target is None else [data.target]
    weight = [] if data.sample_weight is None else [data.sample_weight]
    roles = (
        ("features", data.features or [], "the target", targets, "target"),
        ("features", data.features or [], "the sample weight", weight, "sample_weight"),
        ("exclude", data.exclude, "the target", targets, "target"),
        ("exclude", data.exclude, "the sample weight", weight, "sample_weight"),
        ("exclude", data.exclude, "one of the features", data.features or [], "features"),
    )
    for key, columns, role, taken, other in roles:
        taken = set(taken)
        for index, column in enumerate(columns):
            if column in taken:
                message = f"{column!r} is {role} already: remove it here or there"
                yield Problem(("data", key, index), message, involves=(("data", other),))
    if weight and weight[0] in targets:
        message = f"{weight[0]!r} is the target already: name another column"
        yield Problem(("data", "sample_weight"), message, involves=(("data", "target"),))
    for key in ("features", "names"):
        seen = set()
        for index, column in enumerate(getattr(data, key) or []):
            if column in seen:
                yield Problem(("data", key, index), f"expected different columns; {column!r} stands twice")
            seen.add(column)


def loss_problems(config):
    """Outputs that the loss is not made for."""
    loss, output, path = _output(config)
    activation = output.activation.name
    where = (path, (*path, "activation"))
    if loss in OUTPUTS_OF and activation not in OUTPUTS_OF[loss]:
        listed = ", ".join(OUTPUTS_OF[loss])
        message = f"{loss} needs one of {listed} as the output activation; got {activation}"
        yield Problem(LOSS, message, involves=where)
    elif activation in ONE_WINNER and loss in NOT_OF_ONE_WINNER:
        message = f"{loss} makes no sense of {activation} outputs; expected cross_entropy or another output activation"
        yield Problem(LOSS, message, involves=where)
    elif loss == "cross_entropy" and output.units == 1 and activation not in ONE_WINNER:
        message = "cross_entropy needs a unit for each class; use binary_cross_entropy with one unit"
        yield Problem(LOSS, message, involves=(*where, (*path, "units")))


def coding_problems(config):
    """Targets of -1 and +1, which the hinge losses learn whatever the coding, need outputs that go there."""
    loss, output, path = _output(config)
    activation = output.activation
    involved = ((*path, "activation"), LOSS, TASK)
    low = getattr(activation, "low", None)
    hinge = loss in OF_BIPOLAR_TARGETS
    if activation.name in ONE_WINNER and hinge:
        return  # refused already, whatever the coding
    key, targets = (LOSS, f"{loss} learns") if hinge else (CODING, "bipolar targets are")
    if config.data.target_coding == "binary" and not hinge:
        if low is not None and low < 0 and config.data.task == "classification":
            message = (
                f"binary targets are 0 and 1, but the output goes down to {low}: set data.target_coding to bipolar"
            )
            yield Problem((*path, "activation", "low"), message, involves=(CODING, TASK))
    elif low is not None and low >= 0:
        message = f"{targets} -1 and +1, but the output is {low:g} or {activation.high:g}: set its low to -1"
        yield Problem(key, message, involves=involved)
    elif activation.name in NEVER_NEGATIVE:
        remedy = "tanh or linear" if hinge else "tanh, or binary"
        message = f"{targets} -1 and +1, but {activation.name} outputs are never negative: use {remedy}"
        yield Problem(key, message, involves=involved)
    elif loss in OF_BINARY_TARGETS:
        yield Problem(CODING, f"bipolar targets are -1 and +1, but {loss} needs 0 and 1: use binary", involves=involved)


def task_problems(config):
    """What only classes or only numbers can have."""
    loss, data = config.loss, config.data
    task, reason, involved = known_task(config)
    if data.task == "classification" and isinstance(data.target, list) and len(data.target) > 1:
        message = f"classification needs one target column; data.target names {len(data.target)}"
        yield Problem(TASK, message, involves=(TARGET,))
    if task == "regression":
        if loss.name in OF_CLASSES_ONLY:
            yield Problem(LOSS, f"{loss.name} learns classes, but {reason}", involves=involved)
        if loss.class_weights is not None:
            yield Problem(("loss", "class_weights"), f"there are no classes to weigh, for {reason}", involves=involved)
        if getattr(loss, "label_smoothing", 0.0) > 0:
            message = f"there are no class labels to smooth, for {reason}"
            yield Problem(("loss", "label_smoothing"), message, involves=involved)
        if data.target_coding == "bipolar":
            yield Problem(CODING, f"bipolar is a coding of classes, but {reason}", involves=involved)
    if data.target_scaling != "none" and task == "classification":
        yield Problem(SCALING, f"classes are not scaled, and {reason}: remove it", involves=involved)
    elif data.target_scaling == "standard" and loss.name in OF_TARGETS_FROM_ZERO:
        message = f"standard makes some targets negative, which {loss.name} cannot take: use minmax or none"
        yield Problem(SCALING, message, involves=(*involved, LOSS))


def metric_problems(config):
    """Metrics that this task does not have."""
    watched = []
    if config.training.early_stopping is not None:
        watched.append((("training", "early_stopping", "metric"), config.training.early_stopping.metric))
    if config.learning_rate.schedule == "plateau":
        watched.append((("learning_rate", "metric"), config.learning_rate.metric))
    for path, metric in watched:
        if message := _wrong_metric(config, metric):
            yield Problem(path, message, involves=(TARGET, *known_task(config)[2]))


def _wrong_metric(config, metric):
    name, _, target = metric.partition(".")
    targets = config.data.target
    task, reason, _ = known_task(config)
    if name in CLASS_METRICS and task == "regression":
        choices = ", ".join(("loss", *NUMBER_METRICS))
        return f"{show(metric)} is a metric of classes, but {reason}; expected one of {choices}"
    if name in NUMBER_METRICS and task == "classification":
        choices = ", ".join(("loss", *CLASS_METRICS))
        return f"{show(metric)} is a metric of numbers, but {reason}; expected one of {choices}"
    if target and isinstance(targets, str | int):
        return f"there is only one target: write {name}"
    if target and isinstance(targets, list) and not _names(targets, target):
        return f"expected {name} or one of {listed(f'{name}.{column}' for column in targets)}; got {show(metric)}"
    return None


def known_task(config):
    """(classification or regression, why, the keys that say so), or None and nothing where the config does not tell."""
    data, output = config.data, config.network.layers[-1]
    if data.task is not None:
        return data.task, f"data.task is {data.task}", (TASK,)
    if isinstance(data.target, list) and len(data.target) > 1:
        return "regression", f"data.target names {len(data.target)} columns", (TASK, TARGET)
    if output.kind == "dense" and output.activation.name in CLASS_ACTIVATIONS:
        return "classification", f"the output activation is {output.activation.name}", (TASK, TARGET, LAYERS)
    if config.loss.name in CLASS_LOSSES:
        return "classification", f"the loss is {config.loss.name}", (TASK, TARGET, LOSS)
    return None, None, ()


def _names(targets, target):
    return target in targets or any(isinstance(column, int) for column in targets)


def optimizer_problems(optimizer):
    """What does not fit together in `optimizer`."""
    if getattr(optimizer, "nesterov", False) and optimizer.momentum == 0:
        message = "nesterov looks ahead along the momentum, which is 0: give momentum, 0.9 for example"
        yield Problem(("optimizer", "nesterov"), message, involves=(("optimizer", "momentum"),))


def rate_problems(rate, training):
    """What does not fit together in `learning_rate`."""
    if rate.schedule == "multistep":
        for index in range(1, len(rate.milestones)):
            before, after = rate.milestones[index - 1 : index + 1]
            if after <= before:
                message = f"expected milestones in rising order; {after:g} follows {before:g}"
                yield Problem(("learning_rate", "milestones", index), message)
    if rate.schedule == "one_cycle" and rate.peak < rate.initial:
        message = f"expected a peak >= initial, which is {rate.initial:g}; got {rate.peak:g}"
        yield Problem(("learning_rate", "peak"), message, involves=(("learning_rate", "initial"),))
    if rate.schedule in NEED_TOTAL and training.epochs is None and training.max_steps is None:
        message = (
            f"{rate.schedule} needs the length of the run, which max_time does not tell: "
            "give training.epochs or training.max_steps, or use another schedule"
        )
        yield Problem(("learning_rate", "schedule"), message, involves=(("training",),))
    if training.epochs and rate.warmup_epochs > training.epochs:
        message = f"expected at most training.epochs, which is {training.epochs}; got {rate.warmup_epochs:g}"
        yield Problem(("learning_rate", "warmup_epochs"), message, involves=(("training", "epochs"),))


def training_problems(config):
    """What does not fit together in `training`."""
    training = config.training
    if training.restore_best and not has_validation(config.data):
        message = "no validation rows tell which epoch is best: give data.split.validation or data.validation"
        involved = (("data", "split"), ("data", "validation"))
        yield Problem(("training", "restore_best"), message, involves=involved)
    if training.batch_size == 1:
        for path, layer in walk(config.network.layers, LAYERS):
            if layer.kind == "batch_norm":
                message = (
                    f"{'.'.join(map(str, path))} is a batch_norm, which needs batches of at least 2 samples; got 1"
                )
                yield Problem(("training", "batch_size"), message, involves=(path,))
                return


def _output(config):
    """(loss, output layer, its path)"""
    layers = config.network.layers
    return config.loss.name, layers[-1], (*LAYERS, len(layers) - 1)
