"""Writes docs/config.md from the schema: `python -m mlp_cli.config.reference > docs/config.md`."""

from typing import get_origin

from mlp_cli.config import formulas, places
from mlp_cli.config.leaves import show
from mlp_cli.config.named import Family
from mlp_cli.config.schema import Config
from mlp_cli.config.schema_data import MISSING, NUMERIC, Data, Source, Split
from mlp_cli.config.schema_learning import INITIAL_RATES, LEARNING_RATE, LOSS, OPTIMIZER, Regularization
from mlp_cli.config.schema_network import ACTIVATION, INIT, LAYER, Input, Network
from mlp_cli.config.schema_training import SAMPLING, Checkpoint, EarlyStopping, Training
from mlp_cli.config.yaml_loader import MAX_BYTES, MAX_DEPTH, MAX_KEYS, MAX_VALUES

INTRODUCTION = f"""# The config

*Written by `python -m mlp_cli.config.reference > docs/config.md` from the schema; a test keeps it current.*

```yaml
seed: 7
data:
  path: ../data/digits.csv
  target: digit
  split: {{validation: 0.15, test: 0.2}}
network:
  layers:
    - {{units: 64, activation: relu, dropout: 0.1}}
    - {{activation: softmax}}             # the output layer; its units follow from the data
optimizer: {{name: adam, clip_norm: 5.0}}
learning_rate: {{schedule: cosine, initial: 2.0e-3, warmup_epochs: 1}}
training: {{epochs: 60, batch_size: 32}}
```

`data` with `path` or `train`, and `network` with `layers`, must be there; everything else has a default. `mlp schema`
prints this page's content as JSON Schema for editors.

## How it is read

- **Words and mappings.** Anything with options is a bare word, `optimizer: adam`, or a mapping that names it,
  `optimizer: {{name: adam, beta2: 0.99}}`. The key is `name`, for the learning rate `schedule` and for layers `kind`.
  `learning_rate: 0.01` is the constant schedule. An option that the chosen word does not have is refused.
- **null** is the default of an option that may be null, and stands for an empty section.
- **YAML** without its traps: `1e-3` is a number; `yes`, `no`, `on` and `off` are words and only `true` and `false` are
  booleans; `010`, which is 8 for some readers, 10 for others and a postal code for people, is refused: write `10`, or
  `'010'` in quotes. A key is always text. Duplicate keys, anchors, aliases, tags and merge keys are refused,
  and so are files over {MAX_BYTES} bytes, nesting deeper than {MAX_DEPTH} levels, more than {MAX_KEYS} keys or
  {MAX_VALUES} values, and anything but UTF-8.
- **Types are strict**: the text `"5"` is no integer, `64.0` neither, `true` is not 1, and no number is NaN or infinite.
- **Several configs** merge from left to right: mappings by key, and anything else, lists too, replaces. A changed
  `name`, `schedule` or `kind` replaces its whole mapping, since its options would mean nothing to the new one. A bare
  word counts as the mapping that names it; unwritten, the word is the default in the earlier config and unchanged in
  the later one.
- **Overrides**, `training.epochs=5` or `network.layers.0.units=64`, come last. Their values are read by the same rules
  (`'data.comment="#"'` needs its quotes, and `key=` is null). They apply from the outside in, so that
  `optimizer.momentum=0.9 optimizer=sgd` means the same in either order; of two for one key the later one wins.
- **Paths** are relative to the folder of the file that wrote them, in an override to the current directory; `~` is
  your home. The `config.yaml` of a run holds them absolute, and every default filled in.
- **Mistakes** are reported all at once, in the order in which they were written:

```text
xor.yaml:7:21 network.layers.1.activation: expected one of linear, threshold, ...; got 'rellu'. Did you mean relu?
```
"""

TASK = """
**The task.** Strings and booleans are classes; numbers are classes under a softmax output or one of the losses
cross_entropy, binary_cross_entropy, focal, hinge and squared_hinge; otherwise it is a regression, unless `task` says
so. Under an output other than softmax, classes are coded as one output each, 0 and 1 or with `target_coding: bipolar`
-1 and +1; two classes need only one unit, which says the second class above the middle of the coding.
"""

MEMORY = """
**Where the inputs are.** Under `memory: load` they are in memory once, as numbers of `dtype`, or as they are stored
where those are shorter: bytes of images stay bytes. Under `memory: map` they stay in their file, and rows become
numbers of `dtype` as they are met, with the same bits. The process then takes 100 MB for itself; parameters, moments
and workspace; and for each row 60 bytes, or with softmax over k classes 28 + 4k if that is more. How many inputs a row
has makes no difference. The file is read from end to end several times before training begins, for its checks, its
scale and its fingerprint. A shuffled epoch meets rows all over the file: where that is larger than memory,
`training: {sampling: {name: shuffle, block_rows: N}}` reads it in stretches. A file that is written to or cut short
ends the run (exit 3), and once it is restored `--resume` goes on; so it does where the system was faster and killed the
process because it read what was no longer there.
"""

WIDTHS = """
The last layer is dense, and only it may leave `units` out. Blocks nest. `freeze: true` keeps a layer as it starts.
"""

RATES = f"""
e is the time in epochs, with fractions; p runs from 0 at the end of the warm-up to 1 at the end of the run; k = 1, 2,
... counts updates, or epochs with `per: epoch`. Lengths are in epochs. `initial` defaults to PyTorch's rate for the
optimizer: {", ".join(f"{name} {rate:g}" for name, rate in INITIAL_RATES.items())}.
"""

TOGETHER = """
## What does not go together

Refused before any data is read:

- softmax or hardmax outputs with quantile, poisson, hinge or squared_hinge;
- cross_entropy or binary_cross_entropy under outputs other than softmax, sigmoid, hard_sigmoid, gaussian; focal under
  others than softmax and sigmoid; poisson under others than exponential, softplus, sigmoid, relu;
- softmax or hardmax of one unit, and cross_entropy with one;
- `target_coding: bipolar`, hinge or squared_hinge under an output that is never negative (a threshold with `low` >= 0
  among them); bipolar with cross_entropy, binary_cross_entropy or focal; binary classes under a threshold with
  `low` < 0;
- class_weights, label_smoothing, bipolar coding, focal, hinge, squared_hinge or a class metric in a regression;
  target_scaling or rmse, mae, r2 with classes; `target_scaling: standard` with poisson or a cross-entropy;
- polynomial, cosine, flat_cosine, one_cycle and coslog where only max_time ends the run; milestones out of order; a
  peak below initial; warmup_epochs beyond epochs;
- nesterov without momentum; batch_norm with batches of one sample; restore_best without validation rows;
- weights together with init, or bias with bias_init; rows of different lengths; a residual block that changes the
  width; dropout on the output layer;
- `memory: map` with quantile scaling, or with a `missing` other than error;
- path together with train; a part that is both a file and a split; a split that leaves nothing to train on; a column
  with two roles.
"""


def reference():
    """The text of docs/config.md."""
    parts = [
        INTRODUCTION,
        "\n## Top level\n\n",
        _table(Config),
        *_section("data", Data),
        TASK,
        MEMORY,
        *_section("data.split", Split, 3),
        *_section("data.train, data.validation, data.test", Source, 3),
        *_family("data.numeric", NUMERIC, formulas.NUMERIC, "becomes"),
        *_family("data.missing", MISSING, formulas.MISSING, "an empty cell of a numeric column"),
        "\nAn empty cell of a categorical column is a category of its own, unless `missing` is error or drop.\n",
        *_section("network", Network),
        *_section("network.input", Input, 3),
        *_family("network.layers", LAYER, formulas.LAYERS, "computes"),
        WIDTHS,
        *_family("activation", ACTIVATION, formulas.ACTIVATIONS, "of the pre-activation z"),
        *_family("init, bias_init", INIT, formulas.INITIALIZERS, "numbers, for fans m in and n out"),
        *_family("loss", LOSS, formulas.LOSSES, "of a sample: outputs z, targets t, r = z - t", 2),
        "\nA batch's loss is the mean over its samples, with sample weights sum(weight * loss) / n, or with\n"
        "`reduction: sum` the sum. softmax with cross_entropy or focal, sigmoid with binary_cross_entropy or focal,\n"
        "and exponential with poisson are computed from the pre-activations, stable for any finite input.\n",
        *_family("optimizer", OPTIMIZER, formulas.OPTIMIZERS, "step, for gradient g at update t", 2),
        "\nFirst clip_value, then clip_norm, then the penalties' gradients, then weight_decay, then the step, then\n"
        "max_norm.\n",
        *_family("learning_rate", LEARNING_RATE, formulas.SCHEDULES, "rate", 2),
        RATES,
        *_section("regularization", Regularization),
        "\nAll of them act on weight matrices only, never on biases or the scales of norms.\n",
        *_section("training", Training),
        *_family("training.sampling", SAMPLING, formulas.SAMPLING, "rows of an epoch"),
        *_section("training.early_stopping", EarlyStopping, 3),
        *_section("training.checkpoint", Checkpoint, 3),
        TOGETHER,
    ]
    return "".join(parts)


def _section(title, model, level=2):
    return f"\n{'#' * level} {title}\n\n{model.__doc__.splitlines()[0]}\n\n", _table(model)


def _table(model):
    """One line for each key of a section."""
    lines = ["| key | value | default | |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        default = "**required**" if field.is_required() else f"`{_yaml(places.default_of(field))}`"
        lines.append(f"| `{name}` | {_value(field)} | {default} | {field.description} |")
    return "\n".join(lines) + "\n"


def _family(title, family: Family, formula, heading, level=3):
    """A line for each word, then a line for each option of the words."""
    default = f"; default {family.default}" if family.default else ""
    yield f"\n{'#' * level} {title}\n\n`{family.key}` is one of these{default}.\n\n"
    yield f"| {family.key} | {heading} | options and their defaults |\n|---|---|---|\n"
    options = {}
    for word, model in family.words.items():
        written = []
        for name, field in model.model_fields.items():
            if name != family.key:
                value = "required" if field.is_required() else _yaml(places.default_of(field))
                written.append(f"`{name}` {value}")
                options.setdefault((name, _value(field), field.description), []).append(word)
        yield f"| `{word}` | {formula[word]} | {', '.join(written)} |\n"
    if options:
        yield "\n| option | value | |\n|---|---|---|\n"
    for (name, value, description), words in options.items():
        several = sum(name == other for other, _, _ in options) > 1
        owners = f" ({', '.join(words)})" if several else ""
        yield f"| `{name}`{owners} | {value} | {description} |\n"


def _value(field):
    """What a key accepts, in a few words."""
    place = places.of_field(field)
    return _accepted(place) + (", or null" if any(kind is type(None) for kind, _ in place) else "")


def _accepted(place):
    if family := places.family(place):
        number = " a number," if family.number else ""
        return f"a word,{number} or a mapping with `{family.key}`"
    if leaf := places.leaf(place):
        return leaf.expectation()
    if Source in places.models(place):
        return "a path, or `{x: PATH, y: PATH}`"
    container = next((get_origin(kind) for kind, _ in place if get_origin(kind) in (list, dict)), None)
    if container is None:
        return "a mapping"
    element = places.descend(place, 0)
    if places.family(element):
        return "a list of layers"
    return f"{'a list' if container is list else 'a mapping'}, each {_accepted(element)}"


def _yaml(value):
    """A default as one would write it in YAML."""
    if value == {}:
        return "{}"
    if isinstance(value, list):
        return "[" + ", ".join(_yaml(item) for item in value) + "]"
    if isinstance(value, str):
        return value if value.replace("_", "").isalnum() else f'"{value}"'
    return show(value)


if __name__ == "__main__":
    print(reference(), end="")
