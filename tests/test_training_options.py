"""What options of data, network and loss do to a run, seen from outside."""

import csv
import io
import math

import numpy as np
import pytest
from cli import (
    blobs,
    checkpoints,
    classifier,
    epochs,
    good,
    mlp,
    regressor,
    slopes,
    summary,
    tensors,
    write_config,
    write_csv,
)


def best(run):
    """The arrays of a run's best checkpoint."""
    return tensors(run / "checkpoints" / "best.safetensors")


def predictions(run, data, *options):
    """`mlp predict` as a list of rows by column."""
    return list(csv.DictReader(io.StringIO(good("predict", run, data, *options).out)))


@pytest.fixture
def trees(tmp_path):
    return classifier(tmp_path / "trees.yaml", blobs(tmp_path / "trees.csv"))


# Initial weights


def test_given_weights_are_the_initial_ones(tmp_path):
    data = slopes(tmp_path / "d.csv")
    weights, bias = [[0.5, -0.25], [1.5, 2.0]], [0.125, -1.0]
    config = regressor(
        tmp_path / "c.yaml",
        data,
        network={"layers": [{"weights": weights, "bias": bias}, {"weights": [[1, -1]]}]},
        training={"epochs": 0},
    )
    good("train", config, "--out", tmp_path / "run")
    found = best(tmp_path / "run")
    np.testing.assert_array_equal(found["layers.0.weight"], np.float32(weights))
    np.testing.assert_array_equal(found["layers.0.bias"], np.float32(bias))
    np.testing.assert_array_equal(found["layers.1.weight"], np.float32([[1, -1]]))


@pytest.mark.parametrize(
    ("layer", "what"),
    [
        (
            {"weights": [[1, 2, 3]]},
            "network.layers.0.weights: expected numbers of shape (1, 2) (units, inputs); got shape (1, 3)",
        ),
        (
            {"units": 2, "weights": [[1, 2], [3, 4]], "bias": [1]},
            "network.layers.0.bias: expected as many numbers as weights has rows, 2; got 1",
        ),
        ({"units": 3, "weights": [[1, 2], [3, 4]]}, "network.layers.0"),
    ],
)
def test_given_weights_of_a_wrong_shape(tmp_path, layer, what):
    config = regressor(tmp_path / "c.yaml", slopes(tmp_path / "d.csv"), network={"layers": [layer, {}]})
    done = mlp("train", config, "--out", tmp_path / "run")
    assert done.code == 2
    assert what in done.err
    assert not (tmp_path / "run").exists()


def test_network_initial_starts_from_another_checkpoint(trees, tmp_path):
    good("train", trees, "--out", tmp_path / "first")
    start = tmp_path / "first" / "checkpoints" / "best.safetensors"
    good("train", trees, f"network.initial={start}", "training.epochs=0", "--out", tmp_path / "second")
    before, after = best(tmp_path / "first"), best(tmp_path / "second")
    for name in ("layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"):
        np.testing.assert_array_equal(after[name], before[name])
    assert summary(tmp_path / "second")["metrics"] == summary(tmp_path / "first")["metrics"]


def test_network_initial_takes_a_run_directory_or_says_what_it_wants(trees, tmp_path):
    good("train", trees, "--out", tmp_path / "first")
    done = mlp("train", trees, f"network.initial={tmp_path}/nowhere", "--out", tmp_path / "second")
    assert done.code in (2, 6)
    assert f"{tmp_path}/nowhere" in done.err


def test_network_initial_of_another_shape(trees, tmp_path):
    good("train", trees, "--out", tmp_path / "first")
    start = tmp_path / "first" / "checkpoints" / "best.safetensors"
    done = mlp("train", trees, "network.layers.0.units=5", f"network.initial={start}", "--out", tmp_path / "second")
    assert done.code in (2, 6)
    assert str(start) in done.err
    assert "layers.0" in done.err


def test_frozen_layers_keep_their_weights(trees, tmp_path):
    overrides = ["network.layers.0.freeze=true", "optimizer=adamw", "regularization={l2: 0.1, max_norm: 0.1}"]
    good("train", trees, *overrides, "--out", tmp_path / "run")
    good("train", trees, *overrides, "training.epochs=0", "--out", tmp_path / "initial")
    before, after = best(tmp_path / "initial"), best(tmp_path / "run")
    for name in ("layers.0.weight", "layers.0.bias"):
        np.testing.assert_array_equal(after[name], before[name])
    assert (after["layers.1.weight"] != before["layers.1.weight"]).all()


# Targets


def test_target_scaling_is_undone_in_predictions_and_metrics(tmp_path):
    data = slopes(tmp_path / "d.csv")
    for scaling in ("none", "standard", "minmax"):
        section = {"path": str(data), "target_scaling": scaling}
        training = {"epochs": 150, "batch_size": 10}
        config = regressor(tmp_path / "c.yaml", data, data=section, network={"layers": [{}]}, training=training)
        out = tmp_path / scaling
        good("train", config, "learning_rate=0.3", "--out", out)
        found = summary(out)["metrics"]["train"]
        assert found["rmse"] < 3
        rows = predictions(out, data, "--keep", "y")
        error = [float(row["prediction"]) - float(row["y"]) for row in rows]
        assert math.sqrt(sum(e * e for e in error) / len(error)) == pytest.approx(found["rmse"], rel=1e-6)
        # the last epoch's training error, in the user's units too
        assert 0.3 < epochs(out)[-1]["train"]["rmse"] < 3


def test_several_targets(tmp_path):
    data = slopes(tmp_path / "d.csv", targets=3)
    section = {"path": str(data), "target": ["y2", "y0"], "exclude": ["y1"]}
    config = regressor(tmp_path / "c.yaml", data, data=section)
    good("train", config, "--out", tmp_path / "run")
    found = summary(tmp_path / "run")["metrics"]["train"]
    for metric in ("rmse", "mae", "r2"):
        each = [found[f"{metric}.y2"], found[f"{metric}.y0"]]
        assert found[metric] == pytest.approx(sum(each) / 2)
    rows = predictions(tmp_path / "run", data)
    assert list(rows[0]) == ["prediction_y2", "prediction_y0"]
    record = epochs(tmp_path / "run")[0]["train"]
    assert list(record) == ["loss", "rmse", "mae", "r2"] + [
        f"{metric}.{target}" for target in ("y2", "y0") for metric in ("rmse", "mae", "r2")
    ]


@pytest.mark.parametrize("coding", ["binary", "bipolar"])
@pytest.mark.parametrize("units", [1, 2])
def test_two_classes_need_only_one_unit(tmp_path, coding, units):
    data = blobs(tmp_path / "d.csv", classes=("no", "yes"))
    activation = "sigmoid" if coding == "binary" else "tanh"
    config = classifier(
        tmp_path / "c.yaml",
        data,
        data={"path": str(data), "target_coding": coding},
        network={"layers": [{"units": units, "activation": activation}]},
        loss="mse",
        learning_rate=0.1,
        training={"epochs": 20, "batch_size": 8},
    )
    out = tmp_path / "run"
    good("train", config, "--out", out)
    assert best(out)["layers.0.weight"].shape == (units, 3)
    assert summary(out)["metrics"]["train"]["accuracy"] > 0.75
    rows = predictions(out, data, "--keep", "tree")
    assert list(rows[0]) == ["tree", "prediction", "probability_no", "probability_yes"]
    for row in rows:
        p = float(row["probability_no"]), float(row["probability_yes"])
        assert sum(p) == pytest.approx(1, abs=1e-6)
        # the second class above the middle of the coding
        assert row["prediction"] == ("yes" if p[1] > p[0] else "no")
    right = sum(row["tree"] == row["prediction"] for row in rows) / len(rows)
    assert right == pytest.approx(summary(out)["metrics"]["train"]["accuracy"])


def test_two_classes_under_softmax(tmp_path):
    data = blobs(tmp_path / "d.csv", classes=("no", "yes"))
    config = classifier(tmp_path / "c.yaml", data)
    good("train", config, "--out", tmp_path / "run")
    assert best(tmp_path / "run")["layers.1.weight"].shape == (2, 4)


@pytest.mark.parametrize(
    ("network", "units", "what"),
    [
        ([{"units": 4, "activation": "softmax"}], 4, "expected 3 for the 3 classes of 'tree'; got 4"),
        ([{"units": 1, "activation": "sigmoid"}], 1, "got 1"),
    ],
)
def test_units_that_contradict_the_target(tmp_path, network, units, what):
    config = classifier(tmp_path / "c.yaml", blobs(tmp_path / "d.csv"), network={"layers": network})
    done = mlp("train", config, "--out", tmp_path / "run")
    line = next(number for number, text in enumerate(config.read_text().splitlines(), 1) if '"units"' in text)
    assert done.code == 2
    assert done.err.startswith(f"{config}:{line}:")
    assert "network.layers.0.units: " in done.err
    assert what in done.err
    assert not (tmp_path / "run").exists()


def test_the_task_is_printed_with_its_reason(tmp_path):
    words = blobs(tmp_path / "words.csv")
    numbers = slopes(tmp_path / "numbers.csv")
    labels = write_csv(tmp_path / "labels.csv", ["x", "digit"], [(i / 10, i % 3) for i in range(30)])
    cases = [
        (classifier(tmp_path / "a.yaml", words), "classification (the target 'tree' holds words"),
        (regressor(tmp_path / "b.yaml", numbers), "regression (the target 'y' holds numbers"),
        (classifier(tmp_path / "c.yaml", labels), "classification (the target 'digit' holds numbers, which output"),
        (
            regressor(
                tmp_path / "d.yaml",
                labels,
                data={"path": str(labels), "task": "classification"},
                network={"layers": [{"activation": "sigmoid"}]},
                loss="mse",
            ),
            "classification (data.task",
        ),
        (regressor(tmp_path / "e.yaml", labels, data={"path": str(labels)}), "regression (the target 'digit' holds"),
    ]
    for config, task in cases:
        done = good("train", config, "training.epochs=0", "--out", tmp_path / config.stem)
        assert done.err.startswith(f"Task: {task}"), done.err


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        (["network.layers.1.activation=linear", "loss=poisson"], "poisson"),
        (["loss=quantile"], "quantile"),
        (["network.layers.1.activation=threshold", "loss=mse", "data.target_coding=bipolar"], "bipolar"),
        (["data.target_scaling=standard"], "target_scaling"),
    ],
    ids=str,
)
def test_contradictions_between_task_and_network(trees, tmp_path, overrides, what):
    done = mlp("train", trees, *overrides, "--out", tmp_path / "run")
    assert done.code == 2, done.err
    assert what in done.err
    assert not (tmp_path / "run").exists()


# Weights of samples and classes


def weighted(tmp_path, weights):
    """A table of 60 rows in which every third has its own weight."""
    rows = blobs(tmp_path / "plain.csv").read_text().splitlines()[1:]
    cells = [(*row.split(",")[:3], weights[i % 3], row.split(",")[3]) for i, row in enumerate(rows)]
    return write_csv(tmp_path / "weighted.csv", ["x0", "x1", "x2", "w", "tree"], cells)


def test_sample_weights(tmp_path):
    found = {}
    for name, weights in {"equal": (1, 1, 1), "tripled": (3, 3, 3), "unequal": (1, 4, 1)}.items():
        data = weighted(tmp_path, weights)
        section = {"path": str(data), "sample_weight": "w"}
        config = classifier(tmp_path / "c.yaml", data, data=section, training={"epochs": 3, "batch_size": "full"})
        good("train", config, "--out", tmp_path / name)
        found[name] = summary(tmp_path / name)["metrics"]["train"]
        # the weight is no input
        assert best(tmp_path / name)["layers.0.weight"].shape == (4, 3)
    config = classifier(
        tmp_path / "c.yaml",
        tmp_path / "plain.csv",
        data={"path": str(tmp_path / "plain.csv")},
        training={"epochs": 3, "batch_size": "full"},
    )
    good("train", config, "--out", tmp_path / "none")
    none = summary(tmp_path / "none")["metrics"]["train"]
    assert found["equal"] == pytest.approx(none, rel=1e-6)
    # a weighted loss is divided by rows, not by weights (a factor that Adam does not see)
    assert found["tripled"]["loss"] == pytest.approx(3 * none["loss"], rel=1e-3)
    assert found["tripled"]["accuracy"] == pytest.approx(none["accuracy"])
    assert found["unequal"] != none


def test_a_sample_of_weight_zero_does_not_count(tmp_path):
    data = weighted(tmp_path, (1, 0, 1))
    config = classifier(
        tmp_path / "c.yaml",
        data,
        data={"path": str(data), "sample_weight": "w"},
        network={"layers": [{"activation": "softmax"}]},
        training={"epochs": 100, "batch_size": "full"},
        learning_rate=0.1,
    )
    good("train", config, "--out", tmp_path / "run")
    assert not any(row["prediction"] == "beech" for row in predictions(tmp_path / "run", data))


@pytest.mark.parametrize("bad", ["-1", "heavy", ""])
def test_sample_weights_that_are_none(tmp_path, bad):
    data = weighted(tmp_path, (1, bad, 1))
    config = classifier(tmp_path / "c.yaml", data, data={"path": str(data), "sample_weight": "w"})
    done = mlp("train", config, "--out", tmp_path / "run")
    assert done.code == 3
    assert "'w'" in done.err


def test_class_weights(tmp_path):
    rows = blobs(tmp_path / "all.csv", rows=90, seed=4).read_text().splitlines()
    few = [row for i, row in enumerate(rows) if "cedar" not in row or i % 5 == 0]
    data = tmp_path / "few.csv"
    data.write_text("\n".join(few) + "\n")

    def recall(name, **loss):
        config = classifier(
            tmp_path / "c.yaml",
            data,
            data={"path": str(data)},
            network={"layers": [{"activation": "softmax"}]},
            loss={"name": "cross_entropy", **loss},
            training={"epochs": 15, "batch_size": 8},
        )
        good("train", config, "--out", tmp_path / name)
        return good("eval", tmp_path / name, "--json").json["per_class"]["cedar"]["recall"]

    plain = recall("plain")
    assert recall("balanced", class_weights="balanced") > plain
    assert recall("given", class_weights={"cedar": 50}) > plain
    assert recall("none", class_weights={"cedar": 1, "ash": 1, "beech": 1.0}) == plain
    counts = {name: sum(name in row for row in few) for name in ("ash", "beech", "cedar")}
    # balanced is rows / (classes x rows of the class)
    given = {name: sum(counts.values()) / (3 * n) for name, n in counts.items()}
    recall("spelt out", class_weights=given)
    for key in ("loss", "accuracy", "log_loss"):
        one, other = (summary(tmp_path / name)["metrics"]["train"][key] for name in ("balanced", "spelt out"))
        assert one == pytest.approx(other, rel=1e-5)


def test_class_weights_of_an_unknown_class(trees, tmp_path):
    done = mlp("train", trees, "loss={name: cross_entropy, class_weights: {oak: 2}}", "--out", tmp_path / "run")
    assert done.code == 2
    assert "oak" in done.err
    assert "ash, beech, cedar" in done.err


def test_label_smoothing_keeps_probabilities_from_the_ends(tmp_path):
    data = write_csv(tmp_path / "d.csv", ["x", "side"], [(i, "left" if i < 10 else "right") for i in range(20)])
    largest = []
    for smoothing in (0, 0.2):
        config = classifier(
            tmp_path / "c.yaml",
            data,
            data={"path": str(data)},
            network={"layers": [{"activation": "softmax"}]},
            loss={"name": "cross_entropy", "label_smoothing": smoothing},
            learning_rate=0.3,
            training={"epochs": 200, "batch_size": "full"},
        )
        out = tmp_path / f"{smoothing}"
        good("train", config, "--out", out)
        largest.append(max(float(row["probability_left"]) for row in predictions(out, data)))
    assert largest[0] > 0.999
    assert largest[1] < 0.98


def test_the_reported_loss_excludes_penalties(trees, tmp_path):
    for name, penalty in (("a", "{}"), ("b", "{l1: 100, l2: 100}")):
        good("train", trees, f"regularization={penalty}", "training.epochs=0", "--out", tmp_path / name)
    assert summary(tmp_path / "a")["metrics"] == summary(tmp_path / "b")["metrics"]


def test_reduction_sum_scales_the_step_and_not_the_report(trees, tmp_path):
    common = ["optimizer=sgd", "data.split=null", "training.batch_size=full", "training.epochs=2"]
    good("train", trees, *common, "learning_rate=0.6", "--out", tmp_path / "mean")
    good(
        "train", trees, *common, "learning_rate=0.01", "loss={name: cross_entropy, reduction: sum}",
        "--out", tmp_path / "sum",
    )  # fmt: skip
    mean, total = best(tmp_path / "mean"), best(tmp_path / "sum")
    for name in ("layers.0.weight", "layers.1.bias"):
        np.testing.assert_allclose(mean[name], total[name], rtol=1e-4)
    a, b = (epochs(tmp_path / name)[0]["train"]["loss"] for name in ("mean", "sum"))
    assert a == pytest.approx(b, rel=1e-6)


def test_max_norm_bounds_every_unit(trees, tmp_path):
    good("train", trees, "regularization.max_norm=0.4", "learning_rate=0.3", "--out", tmp_path / "run")
    for name, value in best(tmp_path / "run").items():
        if name in ("layers.0.weight", "layers.1.weight"):
            assert (np.sqrt((value**2).sum(axis=1)) <= 0.4 * (1 + 1e-5)).all()


def test_clip_value_and_clip_norm_bound_the_step(trees, tmp_path):
    common = ["optimizer.name=sgd", "learning_rate=1", "training.batch_size=full", "training.epochs=1"]
    good("train", trees, *common, "training.epochs=0", "--out", tmp_path / "start")
    before = best(tmp_path / "start")
    names = ("layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias")
    good("train", trees, *common, "optimizer.clip_value=0.001", "--out", tmp_path / "value")
    after = best(tmp_path / "value")
    assert max(np.abs(after[name] - before[name]).max() for name in names) == pytest.approx(0.001, rel=1e-3)
    good("train", trees, *common, "optimizer.clip_norm=0.001", "--out", tmp_path / "norm")
    after = best(tmp_path / "norm")
    step = math.sqrt(sum(((after[name] - before[name]) ** 2).sum() for name in names))
    assert step == pytest.approx(0.001, rel=1e-3)


def test_the_tensors_of_a_checkpoint_have_the_names_of_the_contract(tmp_path):
    config = classifier(
        tmp_path / "c.yaml",
        blobs(tmp_path / "d.csv"),
        network={
            "layers": [
                {"units": 6},
                {"kind": "residual", "layers": [{"units": 5}, {"units": 6}]},
                {"kind": "highway", "activation": "relu"},
                {"activation": "softmax"},
            ]
        },
    )
    good("train", config, "--out", tmp_path / "run")
    found = {name: array.shape for name, array in best(tmp_path / "run").items() if name.startswith("layers.")}
    expected = {
        "layers.0.weight": (6, 3),
        "layers.0.bias": (6,),
        "layers.1.layers.0.weight": (5, 6),
        "layers.1.layers.0.bias": (5,),
        "layers.1.layers.1.weight": (6, 5),
        "layers.1.layers.1.bias": (6,),
        "layers.2.weight": (6, 6),
        "layers.2.bias": (6,),
        "layers.2.gate.weight": (6, 6),
        "layers.2.gate.bias": (6,),
        "layers.3.weight": (3, 6),
        "layers.3.bias": (3,),
    }
    assert expected.items() <= found.items()


def test_a_checkpoint_has_one_metadata_key_and_proves_itself(trees, tmp_path):
    import hashlib
    import json

    good("train", trees, "--out", tmp_path / "run")
    for content in checkpoints(tmp_path / "run").values():
        size = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + size])["__metadata__"]
        assert list(metadata) == ["mlp"]
        described = json.loads(metadata["mlp"])
        assert json.dumps(described, sort_keys=True, separators=(",", ":")) == metadata["mlp"]
        digest = described["sha256"]
        assert hashlib.sha256(content.replace(digest.encode(), b"0" * 64)).hexdigest() == digest
        # no time, host, thread count or path of the run
        assert str(tmp_path / "run") not in metadata["mlp"]


def test_a_config_with_a_positional_encoding_learns_an_image(tmp_path):
    rows = [(x / 8, y / 8, (x + y) % 2) for x in range(8) for y in range(8)]
    data = write_csv(tmp_path / "d.csv", ["x", "y", "v"], rows)
    config = write_config(
        tmp_path / "c.yaml",
        data={"path": str(data), "numeric": "none"},
        network={"layers": [{"kind": "positional_encoding", "frequencies": 4}, {"units": 16, "activation": "elu"}, {}]},
        training={"epochs": 200, "batch_size": 8},
        learning_rate=0.01,
    )
    good("train", config, "--out", tmp_path / "run")
    assert summary(tmp_path / "run")["metrics"]["train"]["r2"] > 0.9
    assert best(tmp_path / "run")["layers.1.weight"].shape == (16, 16)
