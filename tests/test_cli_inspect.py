"""`mlp inspect` and `mlp check`: what a network is, and whether its gradients are right."""

import pytest
from cli import blobs, checkpoints, classifier, good, mlp, regressor, slopes, summary, write_config, write_csv


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """A trained classifier of trees with its config."""
    folder = tmp_path_factory.mktemp("trees")
    data = blobs(folder / "trees.csv")
    config = classifier(folder / "trees.yaml", data)
    good("train", config, "--out", folder / "run")
    return folder / "run", config


# inspect

LAYERS = """\
  layer     kind   activation   shape  parameters  multiply-adds
  layers.0  dense  tanh        3 -> 4          16             12
  layers.1  dense  softmax     4 -> 3          15             12
  total                                        31             24
"""


def test_inspect_a_run(trees):
    run, _ = trees
    done = good("inspect", run)
    assert done.err == ""
    assert done.out.startswith(f"Checkpoint {run}/checkpoints/best.safetensors (sha256 ")
    assert "Classification of tree of 3 classes: ash, beech, cedar\n" in done.out
    assert LAYERS in done.out
    for text in ("after 3 epochs, 15 steps", "Preprocessing:", "  x0: standard, ", "Result:", "Provenance:"):
        assert text in done.out
    for name in checkpoints(run):
        assert name in done.out


def test_inspect_a_run_as_json(trees):
    run, _ = trees
    found = good("inspect", run, "--json").json
    assert found["parameters"] == 31
    assert found["multiply_adds"] == 24
    assert found["classes"] == ["ash", "beech", "cedar"]
    assert found["position"]["epoch"] == 3
    assert found["summary"] == summary(run)
    assert [entry["step"] for entry in found["checkpoints"]] == [0, 15]
    assert all(entry["valid"] for entry in found["checkpoints"])


def test_inspect_a_checkpoint_and_a_config_show_the_same_network(trees):
    run, config = trees
    for what in (run / "checkpoints" / "step-0000000015.safetensors", config):
        assert LAYERS in good("inspect", what).out
    wide = good("inspect", config, "network.layers.0.units=40", "--json").json
    assert wide["parameters"] == 4 * 40 + 41 * 3
    assert wide["rows"] == {"train": 36, "validation": 12, "test": 12}


def test_inspect_counts_blocks(tmp_path):
    config = classifier(
        tmp_path / "c.yaml",
        blobs(tmp_path / "d.csv"),
        network={
            "layers": [
                {"units": 5},
                {"kind": "residual", "layers": [{"units": 7}, {"units": 5}]},
                {"kind": "concat", "layers": [{"units": 2}]},
                {"kind": "batch_norm"},
                {"kind": "highway", "activation": "relu"},
                {"activation": "softmax"},
            ]
        },
    )
    expected = (3 * 5 + 5) + (5 * 7 + 7 + 7 * 5 + 5) + (5 * 2 + 2) + 2 * 7 + 2 * (7 * 7 + 7) + (7 * 3 + 3)
    assert good("inspect", config, "--json").json["parameters"] == expected


def test_inspect_shows_damage(tmp_path):
    config = classifier(tmp_path / "c.yaml", blobs(tmp_path / "d.csv"))
    good("train", config, "--out", tmp_path / "run")
    newest = tmp_path / "run" / "checkpoints" / "step-0000000015.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    assert good("inspect", tmp_path / "run", "--json").json["checkpoints"][1]["valid"] is False
    assert "damaged" in good("inspect", tmp_path / "run").out


@pytest.mark.parametrize("make", ["nothing", "empty folder", "text file", "text.safetensors"])
def test_inspect_of_something_else(tmp_path, make):
    path = tmp_path / make
    if make == "empty folder":
        path.mkdir()
    elif make != "nothing":
        path.write_text("Call me Ishmael.")
    done = mlp("inspect", path)
    assert (done.code, done.out) == (6, "")
    assert done.err.startswith(f"{path}: ")
    assert len(done.err.splitlines()) == 1


# check

# What comes before an output layer of softmax, and the loss.
NETWORKS = {
    "plain": ([{"units": 4, "activation": "tanh"}], "cross_entropy"),
    "kinks": ([{"units": 6, "activation": "relu"}, {"units": 5, "activation": "hard_tanh"}], "cross_entropy"),
    "dropout": ([{"units": 6, "activation": "gelu", "dropout": 0.5}], "cross_entropy"),
    "batch_norm": ([{"units": 5}, {"kind": "batch_norm"}, {"units": 4, "activation": "silu"}], "cross_entropy"),
    "layer_norm": ([{"units": 5}, {"kind": "layer_norm"}], "focal"),
    "highway": ([{"units": 5}, {"kind": "highway", "activation": "tanh"}], "cross_entropy"),
    "residual": ([{"kind": "residual", "layers": [{"units": 3, "activation": "mish"}]}], "cross_entropy"),
    "concat": ([{"kind": "concat", "layers": [{"units": 3, "activation": "elu"}]}], "cross_entropy"),
    "encoding": ([{"kind": "positional_encoding", "frequencies": 2}, {"units": 3}], "cross_entropy"),
    "general chain": ([{"units": 4}], "quadratic"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_check_passes(tmp_path, name):
    layers, loss = NETWORKS[name]
    network = {"layers": [*layers, {"activation": "softmax"}]}
    config = classifier(tmp_path / "c.yaml", blobs(tmp_path / "d.csv"), network=network, loss=loss)
    found = good("check", config, "--json").json
    assert found["passed"] is True
    assert found["task"] == "classification"
    assert f"layers.{len(layers)}.weight" in {block["name"] for block in found["blocks"]}
    assert all(block["relative_error"] <= found["tolerance"] for block in found["blocks"])


@pytest.mark.parametrize(("activation", "loss"), [("sigmoid", "binary_cross_entropy"), ("linear", "hinge")])
def test_check_passes_for_other_outputs(tmp_path, activation, loss):
    config = classifier(
        tmp_path / "c.yaml",
        blobs(tmp_path / "d.csv"),
        data={"path": str(tmp_path / "d.csv"), "target_coding": "bipolar" if loss == "hinge" else "binary"},
        network={"layers": [{"units": 4, "activation": "sin"}, {"activation": activation}]},
        loss=loss,
    )
    assert good("check", config, "--json").json["passed"] is True


def test_check_shows_a_block_a_line(trees, tmp_path):
    done = good("check", trees[1])
    lines = done.out.splitlines()
    assert lines[0].split() == ["parameter", "shape", "compared", "relative", "error", "verdict"]
    assert [line.split()[0] for line in lines[1:5]] == [
        "layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"
    ]  # fmt: skip
    assert all(line.endswith("agrees") for line in lines[1:5])
    assert lines[5] == (
        "Config and data are good; 31 derivatives, in 4 of 4 parameters, agree with central differences to 1e-05."
    )
    assert done.err.startswith("Task: classification ")


def test_check_trains_nothing_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = classifier(tmp_path / "c.yaml", blobs(tmp_path / "d.csv"))
    good("check", config)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.yaml", "d.csv"]


def test_kinks_are_named(tmp_path):
    # zero weights and biases: every ReLU sits at its kink
    config = regressor(
        tmp_path / "c.yaml",
        slopes(tmp_path / "d.csv"),
        network={"layers": [{"units": 3, "activation": "relu", "init": "zeros", "bias_init": "zeros"}, {}]},
    )
    done = good("check", config)
    assert "kink" in done.out


def test_straight_through_units_are_named(tmp_path):
    config = classifier(
        tmp_path / "c.yaml",
        blobs(tmp_path / "d.csv", classes=("no", "yes")),
        network={"layers": [{"units": 3, "activation": "threshold"}, {"activation": "sigmoid"}]},
    )
    done = good("check", config)
    lines = {line.split()[0]: line for line in done.out.splitlines() if line.startswith("  layers")}
    assert "straight-through" in lines["layers.0.weight"]
    assert lines["layers.1.weight"].endswith("agrees")


def test_frozen_layers_are_named(trees):
    done = good("check", trees[1], "network.layers.0.freeze=true")
    assert "frozen" in next(line for line in done.out.splitlines() if "layers.0.weight" in line)


def test_check_finds_what_training_would_refuse(tmp_path):
    data = blobs(tmp_path / "d.csv")
    config = classifier(tmp_path / "c.yaml", data)
    for override, code, what in [
        ("optimizer=sdg", 2, "Did you mean sgd?"),
        ("training.batch_size=50", 2, "expected at most the 36 training rows; got 50"),
        ("network.layers.1.units=7", 2, "expected 3 for the 3 classes of 'tree'; got 7"),
        ("data.target=oak", 2, "oak"),
        (f"data.path={tmp_path}/none.csv", 3, f"{tmp_path}/none.csv"),
        ("data.split.validation=null training.early_stopping={metric: roc_auc}", 2, "roc_auc"),
        ("loss={name: cross_entropy, class_weights: {elm: 2}}", 2, "elm"),
    ]:
        overrides = override.split(" ", 1) if override.startswith("data.split") else [override]
        for command in ("check", "train"):
            done = mlp(command, config, *overrides, *(["--out", tmp_path / "run"] if command == "train" else []))
            assert (done.code, done.out) == (code, ""), done.err
            assert what in done.err
            assert not (tmp_path / "run").exists()


def test_check_of_a_regression_with_weights(tmp_path):
    rows = [(i / 9, i % 4, 1 + i % 3, i**2 / 50) for i in range(40)]
    data = write_csv(tmp_path / "d.csv", ["a", "b", "w", "y"], rows)
    config = write_config(
        tmp_path / "c.yaml",
        data={"path": str(data), "sample_weight": "w", "target_scaling": "standard"},
        network={"input": {"noise": 0.1}, "layers": [{"units": 4, "activation": "softplus"}, {}]},
        loss="log_cosh",
        regularization={"l1": 0.01, "l2": 0.1},
    )
    assert good("check", config, "--json").json["passed"]
