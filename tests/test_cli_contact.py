"""What a new user is told before a mistake costs a run."""

import pytest
from cli import good, mlp

LAYERS = "network: {layers: [{units: 2, activation: relu}, {activation: linear}]}\n"


@pytest.fixture
def whole(tmp_path, monkeypatch):
    """Three configs that are whole by themselves, and one that is not."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text("a,y\n" + "".join(f"{i},{i * i}\n" for i in range(20)))
    for name in ("one.yaml", "two.yaml", "it's.yaml"):
        (tmp_path / name).write_text(f"data: {{path: rows.csv}}\n{LAYERS}training: {{epochs: 1}}\n")
    (tmp_path / "part.yaml").write_text("seed: 3\n")


@pytest.mark.parametrize("command", ["train", "check", "inspect"])
def test_configs_that_become_one_run(command, whole):
    done = good(command, "one.yaml", "part.yaml")
    assert "One run of 2 configs, merged in this order: one.yaml, part.yaml\n" in done.err
    assert "Warning" not in done.err
    done = good(command, "one.yaml", "two.yaml", "it's.yaml", "part.yaml", "--quiet")
    files = "one.yaml two.yaml 'it'\"'\"'s.yaml'"
    assert done.err == (
        "Warning: one.yaml, two.yaml, it's.yaml each have data and a network of their own, and are merged into ONE "
        f"run, in which the last one wins; to {command} each of them: for config in {files}; do mlp {command} "
        '"$config"; done\n'
    )
    assert "configs" not in good(command, "one.yaml", "seed=4").err


def test_the_warning_comes_before_what_merging_breaks(whole, tmp_path):
    (tmp_path / "two.yaml").write_text(f"data: {{path: rows.csv}}\n{LAYERS}loss: hinge\ndtype: float16\n")
    done = mlp("train", "one.yaml", "two.yaml")
    assert done.code == 2
    assert "merged into ONE run" in done.err


def test_a_check_that_compares_nothing_does_not_claim_to_have_passed(whole, tmp_path):
    (tmp_path / "step.yaml").write_text(
        "data: {path: rows.csv, target: y, task: classification}\n"
        "network: {layers: [{units: 2, activation: relu}, {activation: hardmax}]}\nloss: mse\n"
    )
    (tmp_path / "rows.csv").write_text("a,y\n" + "".join(f"{i},{i % 2}\n" for i in range(20)))
    done = good("check", "step.yaml")
    assert "no gradient could be compared with central differences (straight-through:" in done.out
    assert "agree" not in done.out
    found = good("check", "step.yaml", "--json").json
    assert (found["passed"], found["compared"], found["kinks"]) == (None, 0, 0)


def test_a_check_counts_what_it_compares(whole):
    done = good("check", "one.yaml")
    found = good("check", "one.yaml", "--json").json
    assert found["passed"] is True
    assert found["compared"] == sum(block["compared"] for block in found["blocks"]) > 0
    assert f"{found['compared']} derivatives, in 4 of 4 parameters, agree with central differences to 1e-05" in done.out


def test_quiet_keeps_warnings_and_nothing_else(whole, tmp_path):
    assert good("train", "one.yaml", "--quiet").err == ""
    (tmp_path / "rows.csv").write_text("a,y\n" + "".join(f"{i},7\n" for i in range(20)))
    loud, quiet = good("check", "one.yaml"), good("check", "one.yaml", "--quiet")
    warnings = [line for line in loud.err.splitlines() if line.startswith("Warning: ")]
    assert warnings
    assert quiet.err.splitlines() == warnings
    assert "Only warnings and errors on stderr." in good("check", "--help").out
