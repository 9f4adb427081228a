"""Configs and tables that nobody would think of, through the commands: an expected exit code, and one sentence.

`pytest --hypothesis-profile=soak` tries many more of them.
"""

import copy
import csv
import gzip
import io
import json

import pytest
from cli import good, mlp, write_config
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mlp_cli import memory

WORDS = ("ash", "beech", "cedar")
SOUND = [
    {
        "network": {"layers": [{"units": 3, "activation": "tanh", "dropout": 0.1}, {"activation": "softmax"}]},
        "data": {"target": "tree", "split": {"validation": 0.2, "test": 0.1}, "missing": "mean", "unseen": "ignore"},
        "learning_rate": {"schedule": "cosine", "initial": 0.01, "warmup_epochs": 1},
        "training": {"epochs": 2, "batch_size": 4, "early_stopping": {"metric": "accuracy", "patience": 3}},
    },
    {
        "network": {
            "input": {"noise": 0.1},
            "layers": [
                {"kind": "positional_encoding", "frequencies": 2},
                {"units": 4, "activation": {"name": "leaky_relu", "alpha": 0.2}, "init": "he_normal"},
                {"kind": "residual", "layers": [{"units": 4, "activation": "relu"}, {"kind": "layer_norm"}]},
                {"kind": "highway", "activation": "relu"},
                {"kind": "concat", "layers": [{"units": 2}]},
                {"kind": "batch_norm"},
                {"units": 1},
            ],
        },
        "data": {"target": "size", "exclude": ["tree"], "numeric": {"name": "divide", "by": 10}, "missing": "drop"},
        "loss": {"name": "huber", "delta": 2.0},
        "optimizer": {"name": "adam", "beta2": 0.99, "clip_norm": 1.0},
        "regularization": {"l2": 0.001, "max_norm": 3.0},
        "training": {"max_steps": 3, "batch_size": "full", "checkpoint": {"every_steps": 1, "keep": 1}},
    },
    {
        "dtype": "float64",
        "network": {"layers": [{"weights": [[1, 0, -1, 0, 1]] * 3, "units": 3, "bias": [0, 0, 1]}, {"units": 2}]},
        "data": {
            "target": ["size", "count"],
            "features": ["age", 1, 3],
            "missing": "indicator",
            "target_scaling": "minmax",
        },
        "optimizer": {"name": "rprop"},
        "learning_rate": {"schedule": "plateau", "initial": 0.1, "metric": "rmse.size"},
        "training": {"epochs": 1, "sampling": {"name": "shuffle", "block_rows": 3}},
    },
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a table, a config and a finished run."""
    place = tmp_path_factory.mktemp("random")
    rows = [
        [i % 5, i % 3 + 0.5, f"{(i * 7) % 11}", ["red", "green", ""][i % 3], i * 0.25, WORDS[i % 3]] for i in range(30)
    ]
    with (place / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["age", "weight", "count", "colour", "size", "tree"], *rows])
    config = {**SOUND[0], "data": {**SOUND[0]["data"], "path": str(place / "rows.csv")}}
    write_config(place / "good.yaml", **config)
    good("train", place / "good.yaml", "--out", place / "run", "--quiet")
    return place


@pytest.fixture(autouse=True)
def little_memory():
    """100 MB, so that a net of a thousand million weights is refused, which would be possible and take long."""
    before = memory.available
    memory.available = lambda: 100_000_000
    yield
    memory.available = before


SOAKS = settings.default.max_examples > 1000


def tried(examples):
    """So many examples, the same every time, or many more and others under the profile."""
    unhealthy = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(
        deadline=None,
        suppress_health_check=unhealthy,
        derandomize=not SOAKS,
        max_examples=settings.default.max_examples if SOAKS else examples,
    )


def check(done, *codes):
    """The command ended as one of these, and said one sentence a line, unless all was well."""
    assert done.code in codes, done
    lines = done.err.splitlines()
    assert "Traceback" not in done.err
    assert "Internal error" not in done.err
    assert all(line.strip() and line.isprintable() for line in lines), lines
    if done.code:
        assert done.out == ""
        assert lines
        assert len(lines) == 1 or done.code == 2


# Configs

KEYS = st.sampled_from(["name", "kind", "units", "layers", "schedule", "path", "x", "", "loss", "epochs", "momentum"])
NUMBERS = st.one_of(
    st.integers(-3, 40), st.sampled_from([2**31, 2**63, 10**30, 10**400]), st.floats(), st.sampled_from([1e308, -0.0])
)
TEXTS = st.one_of(
    st.sampled_from(["relu", "softmax", "adam", "rmse", "mean", "full", "tree", "size", "1h", "standard", "\x1b[31m"]),
    st.text(max_size=8),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=6,
)


def places(value):
    """(container, key) of everything within a value."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])


@st.composite
def configs(draw):
    """A sound config, or one with up to three things replaced, lost, renamed or added."""
    config = copy.deepcopy(draw(st.sampled_from(SOUND)))
    for _ in range(draw(st.integers(0, 3))):
        holder, key = draw(st.sampled_from(list(places(config))))
        change = draw(st.sampled_from(["replace", "replace", "lose", "rename", "add"]))
        if change == "replace":
            holder[key] = draw(VALUES)
        elif change == "add" and isinstance(holder, dict):
            holder[draw(KEYS)] = draw(VALUES)
        elif change == "rename" and isinstance(holder, dict):
            holder[draw(KEYS)] = holder.pop(key)
        else:
            del holder[key]
        if not config:
            break
    return config


@tried(200)
@given(config=configs())
@example(config=SOUND[1])
@example(config=SOUND[2])
def test_random_configs(folder, config):
    path = folder / "random.yaml"
    if isinstance(config.get("data"), dict):
        config["data"].setdefault("path", str(folder / "rows.csv"))
    path.write_text(json.dumps(config))
    check(mlp("inspect", path), 0, 2, 3, 5)
    if config in SOUND:
        check(mlp("inspect", path), 0)


@tried(60)
@given(key=st.one_of(st.from_regex(r"[a-z_]{1,8}(\.[a-z0-9]{1,6}){0,3}", fullmatch=True), TEXTS), value=TEXTS | NUMBERS)
def test_random_overrides(folder, key, value):
    check(mlp("inspect", folder / "good.yaml", f"{key}={value}".replace("\0", "")), 0, 2, 3, 5, 6)


# Tables

CELLS = st.one_of(
    st.integers(-9, 99).map(str),
    st.sampled_from(
        ["red", "green", "ash", "beech", "cedar", "", "NA", "?", "nan", "inf", "1e39", "1e999", "1,5", "-", "."]
    ),
    st.sampled_from(['"', '""', "a b", " x ", "é", "\u2028", "\x1b[31m", "0x10", "1_0", "١", "9" * 30, '"q"', "#"]),
    st.text(max_size=5),
)
HEADERS = st.sampled_from(
    [
        ["age", "weight", "count", "colour", "size", "tree"],
        ["tree", "size", "colour", "count", "weight", "age"],
        ["age", "weight", "count", "colour", "size", "tree", "more"],
        ["age", "weight", "colour"],
        [],
    ]
)


@st.composite
def tables(draw):
    """The bytes of a text table, or of something like one."""
    header = draw(HEADERS)
    width = len(header) or draw(st.integers(1, 7))
    rows = draw(st.lists(st.lists(CELLS, min_size=width, max_size=width), max_size=6))
    file = io.StringIO()
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    ends = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    delimiter = draw(st.sampled_from([",", ";", "\t"]))
    csv.writer(file, delimiter=delimiter, lineterminator=ends, quoting=quoting).writerows(
        [header] * bool(header) + rows
    )
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "latin-1", "utf-16"]))
    content = bytearray(file.getvalue().encode(encoding, "replace"))
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(content)))
        content[place : place + draw(st.integers(0, 3))] = draw(
            st.sampled_from([b'"', b",", b"\n", b"\0", b"\xff", b"", b' "', b"\r", b"\n\n", b"\xc3", b"#"])
        )
    packed = gzip.compress(bytes(content)) if draw(st.integers(0, 9)) == 0 else bytes(content)
    return packed[: draw(st.integers(0, len(packed)))] if draw(st.integers(0, 9)) == 0 else packed


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "target": st.sampled_from(["tree", "size", 0, -1, ["age", "size"], "nobody"]),
        "missing": st.sampled_from(["error", "mean", "median", "indicator", "drop", {"name": "constant", "value": 1}]),
        "numeric": st.sampled_from(["none", "standard", "minmax", "robust", "quantile"]),
        "encoding": st.sampled_from(["utf-8", "latin-1", "utf-16"]),
        "header": st.booleans(),
        "comment": st.just("#"),
        "decimal": st.just(","),
        "delimiter": st.sampled_from([",", ";", "x"]),
        "split": st.sampled_from([{"validation": 0.3}, {"validation": 0.5, "test": 0.4}]),
        "columns": st.just({"colour": "numeric", "age": "categorical"}),
        "sample_weight": st.sampled_from(["weight", "colour"]),
    },
)


@tried(200)
@given(content=tables(), options=OPTIONS, softmax=st.booleans())
def test_random_tables(folder, content, options, softmax):
    path = folder / "random.csv"
    path.write_bytes(content)
    last = {"activation": "softmax"} if softmax else {}
    config = write_config(
        folder / "table.yaml", data={"path": str(path), **options}, network={"layers": [{"units": 2}, last]}
    )
    check(mlp("inspect", config), 0, 2, 3, 5)
    check(mlp("predict", folder / "run", path, "--quiet"), 0, 3)
    check(mlp("eval", folder / "run", path, "--quiet"), 0, 3)
