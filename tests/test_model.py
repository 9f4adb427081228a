"""What a model asks of its config and its data together."""

import re

import numpy as np
import pytest
from cli import blobs, classifier, good, mlp, tensors

from mlp_cli import config as configs
from mlp_cli.errors import ConfigError
from mlp_cli.model import Model, load_data

pytestmark = pytest.mark.smoke

CONFIG = """\
data:
  path: rows.csv
  {data}
network: {{layers: [{{}}]}}
"""


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("target: Y", "c.yaml:3:11 data.target: expected a column of {rows} (a, b, y); got 'Y'"),
        ("exclude: [c]", "c.yaml:3:13 data.exclude.0: expected a column of {rows} (a, b, y); got 'c'"),
        ("sample_weight: 7", "c.yaml:3:18 data.sample_weight: expected a column of {rows} by name or by number from 0"),
        ("split: {test: 0.01}", "c.yaml:3:17 data.split.test: 0.01 of 4 rows leaves no row for test"),
    ],
)
def test_options_that_the_data_do_not_bear_out_are_found_in_the_config(tmp_path, monkeypatch, data, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text("a,b,y\n1,2,3\n4,5,6\n7,8,9\n1,1,1\n")
    (tmp_path / "c.yaml").write_text(CONFIG.format(data=data))
    with pytest.raises(ConfigError, match="^" + re.escape(message.format(rows="rows.csv"))):
        load_data(configs.load(["c.yaml"], []))


def test_training_starts_from_a_checkpoint_or_from_a_run(tmp_path):
    """`network.initial`, of which `mlp check` sees too whether it is there."""
    config = classifier(tmp_path / "c.yaml", blobs(tmp_path / "rows.csv"), training={"epochs": 2})
    good("train", config, "--out", tmp_path / "first")
    before = tensors(tmp_path / "first/checkpoints/best.safetensors")
    for initial in ("first", "first/checkpoints/best.safetensors"):
        out = tmp_path / f"from-{initial.count('/')}"
        good("train", config, "seed=5", f"network.initial={tmp_path / initial}", "training.epochs=0", "--out", out)
        after = tensors(out / "checkpoints/best.safetensors")
        for name in before:
            if name.startswith("layers."):
                np.testing.assert_array_equal(after[name], before[name])
    assert mlp("check", config, f"network.initial={tmp_path / 'none'}").code == 6


@pytest.mark.parametrize(
    ("labels", "output", "message"),
    [
        ("01", "{}", "data.target_coding: bipolar codes classes, but the task is a regression"),
        (
            "ab",
            "{activation: {name: threshold, low: -1}}",
            "network.layers.0.activation.low: binary targets are 0 and 1",
        ),
    ],
)
def test_codings_that_do_not_suit_the_task_of_the_data(tmp_path, monkeypatch, labels, output, message):
    """The config alone does not tell whether there are classes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text("a,y\n" + "".join(f"{i},{labels[i % 2]}\n" for i in range(6)))
    coding = "bipolar" if labels == "01" else "binary"
    text = f"data: {{path: rows.csv, target_coding: {coding}}}\nnetwork: {{layers: [{output}]}}\nloss: quadratic\n"
    (tmp_path / "c.yaml").write_text(text)
    config = configs.load(["c.yaml"], [])
    with pytest.raises(ConfigError, match=re.escape(message)):
        Model.new(config, load_data(config))
