"""Every way to fail: its exit code, one sentence on stderr, nothing on stdout, never a traceback."""

import os

import pytest
from cli import blobs, checkpoints, classifier, epochs, good, mlp

pytestmark = pytest.mark.smoke


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run with its config and table."""
    folder = tmp_path_factory.mktemp("trained")
    data = blobs(folder / "trees.csv")
    config = classifier(folder / "trees.yaml", data)
    good("train", config, "--out", folder / "run")
    return folder / "run", config, data


def fails(code, *arguments, lines=1):
    """stderr of a command that is expected to fail with this code."""
    done = mlp(*arguments)
    assert (done.code, done.out) == (code, ""), done
    assert len(done.err.splitlines()) == lines, done.err
    assert "Traceback" not in done.err
    assert "Internal error" not in done.err
    return done.err


# 2: usage and config


def test_no_config(tmp_path):
    for command in ("train", "check"):
        assert fails(2, command, tmp_path / "no.yaml").startswith(f"{tmp_path}/no.yaml: ")
        assert fails(2, command, tmp_path).startswith(f"{tmp_path}: ")


def test_all_mistakes_of_a_config_at_once(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("""\
data: {path: d.csv}
network:
  layers:
    - {units: 8, activation: rellu}
    - {units: -1}
    - {activation: softmax}
optimizer: {name: adam, momentum: 0.9}
learning_rate: fast
training: {epoch: 3}
""")
    done = fails(2, "train", config, lines=5)
    places = [line.removeprefix(f"{config}:").split(" ")[:2] for line in done.splitlines()]
    assert [(place.partition(":")[0], key) for place, key in places] == [
        ("4", "network.layers.0.activation:"),
        ("5", "network.layers.1.units:"),
        ("7", "optimizer.momentum:"),
        ("8", "learning_rate:"),
        ("9", "training.epoch:"),
    ]
    assert "Did you mean relu?" in done
    assert "Did you mean epochs?" in done


def test_an_override_is_pointed_at(trained, tmp_path):
    _, config, _ = trained
    for override, key in [
        ("training.epochs=many", "training.epochs"),
        ("network.layers.7.units=3", "network.layers.7"),
        ("seed=1.5", "seed"),
        ("nonsense=1", "nonsense"),
    ]:
        assert fails(2, "train", config, override).startswith(f"override '{override}' {key}")


# 3: data


@pytest.mark.parametrize(
    "content",
    [b"", b"x0,x1,x2,tree\n", b"x0,x1,x2,tree\n1,2,3\n", b"\x00\x01\x02", b"x0,x0,x2,tree\n1,2,3,ash\n4,5,6,oak\n"],
)
def test_data_that_cannot_be_used(trained, tmp_path, content):
    run, config, _ = trained
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    assert str(path) in fails(3, "train", config, f"data.path={path}", "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert str(path) in fails(3, "predict", run, path)
    assert str(path) in fails(3, "eval", run, path)


def test_data_that_is_not_there(trained, tmp_path):
    run, config, _ = trained
    for arguments in (
        ["train", config, f"data.path={tmp_path}/none.csv"],
        ["check", config, f"data.path={tmp_path}/none.csv"],
        ["inspect", config, f"data.path={tmp_path}/none.csv"],
        ["eval", run, tmp_path / "none.csv"],
        ["predict", run, tmp_path / "none.csv"],
    ):
        assert f"{tmp_path}/none.csv" in fails(3, *arguments)


# 5: the system


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(trained, tmp_path):
    run, config, data = trained
    (tmp_path / "sealed").mkdir()
    (tmp_path / "sealed").chmod(0o500)
    assert str(tmp_path / "sealed") in fails(5, "train", config, "--out", tmp_path / "sealed" / "run")
    assert str(tmp_path / "sealed") in fails(5, "predict", run, data, "-o", tmp_path / "sealed" / "p.csv")


def test_a_file_in_the_way(trained, tmp_path):
    run, config, data = trained
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file") in fails(2, "train", config, "--out", tmp_path / "file")
    assert str(tmp_path / "file") in fails(5, "train", config, "--out", tmp_path / "file" / "run")
    assert str(tmp_path) in fails(5, "predict", run, data, "-o", tmp_path)
    assert str(tmp_path / "none") in fails(5, "predict", run, data, "-o", tmp_path / "none" / "p.csv")


def test_a_network_that_does_not_fit_into_memory(trained, tmp_path):
    _, config, _ = trained
    layers = "network.layers=[{units: 16777216}, {units: 16777216}, {units: 16777216}, {activation: softmax}]"
    for command in (["train", config, "--out", tmp_path / "run"], ["check", config], ["inspect", config]):
        assert fails(5, *command, layers).startswith("The network's 562,950,104,416,259 parameters need ")
    assert not (tmp_path / "run").exists()


def test_a_disk_that_fills_up_in_the_run(trained, tmp_path, monkeypatch):
    import errno

    from mlp_cli.runs import files

    _, config, _ = trained
    good("train", config, "--out", tmp_path / "whole", "training.checkpoint.every_epochs=1")
    fsync = os.fsync

    def full(descriptor):
        if (tmp_path / "run" / "checkpoints" / "step-0000000005.safetensors").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", full)
    done = mlp("train", config, "training.checkpoint.every_epochs=1", "--out", tmp_path / "run")
    monkeypatch.undo()
    assert done.code == 5
    assert "space" in done.err.splitlines()[-1]
    assert "Traceback" not in done.err
    # with room again it goes on
    good("train", config, "training.checkpoint.every_epochs=1", "--out", tmp_path / "run", "--resume")
    assert checkpoints(tmp_path / "run")["best.safetensors"] == checkpoints(tmp_path / "whole")["best.safetensors"]


# 6: checkpoints

DAMAGE = {
    "cut short": lambda content: content[:-10],
    "cut in the head": lambda content: content[:100],
    "empty": lambda content: b"",
    "longer": lambda content: content + b"\0",
    "a bit in the arrays": lambda content: content[:-5] + bytes([content[-5] ^ 1]) + content[-4:],
    "a bit in the metadata": lambda content: content.replace(b"beech", b"peech", 1),
    "an absurd length": lambda content: b"\xff" * 8 + content[8:],
    "another file": lambda content: b"PK\x03\x04" + content[4:],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_checkpoints(trained, tmp_path, damage):
    run, _, data = trained
    path = tmp_path / "best.safetensors"
    path.write_bytes(DAMAGE[damage](checkpoints(run)["best.safetensors"]))
    for arguments in (["eval", path], ["predict", path, data], ["inspect", path]):
        assert fails(6, *arguments).startswith(f"{path}: ")


def test_a_safetensors_file_of_somebody_else(trained, tmp_path):
    import numpy as np
    from safetensors.numpy import save_file

    _, _, data = trained
    path = tmp_path / "model.safetensors"
    save_file({"layers.0.weight": np.zeros((4, 3), np.float32)}, path, metadata={"format": "pt"})
    for arguments in (["eval", path], ["predict", path, data], ["inspect", path]):
        assert fails(6, *arguments).startswith(f"{path}: ")


def test_no_checkpoint(trained, tmp_path):
    _, _, data = trained
    for path in (tmp_path / "none", tmp_path):
        for arguments in (["eval", path], ["predict", path, data], ["inspect", path]):
            assert fails(6, *arguments).startswith(f"{path}: ")


# 1: our own faults


def test_a_fault_of_ours_is_one_sentence(trained, tmp_path, monkeypatch):
    import mlp_cli.config

    _, config, _ = trained

    def broken(*arguments):
        raise RuntimeError("cogito ergo sum")

    monkeypatch.setattr(mlp_cli.config, "load", broken)
    done = mlp("train", config)
    assert done.code == 1
    assert done.err == (
        "Internal error (RuntimeError: cogito ergo sum). This is a fault of mlp: please report it; "
        "MLP_DEBUG=1 shows where it happened.\n"
    )
    monkeypatch.setenv("MLP_DEBUG", "1")
    with pytest.raises(RuntimeError, match="cogito"):
        mlp("train", config)


def test_a_gradient_that_does_not_agree_is_a_fault_of_ours(trained, monkeypatch):
    from mlp_cli.network.machine import Machine

    _, config, _ = trained
    loss_of_batch = Machine.loss_of_batch

    def wrong(self, rows, gradient):
        loss = loss_of_batch(self, rows, gradient)
        self.gradient *= 1 + 1e-4
        return loss

    monkeypatch.setattr(Machine, "loss_of_batch", wrong)
    done = mlp("check", config)
    assert done.code == 1
    assert done.out.count("DIFFERS") == 4
    assert done.err.splitlines()[-1] == (
        "The gradient check failed for layers.0.weight, layers.0.bias, layers.1.weight, layers.1.bias: relative errors "
        "above 1e-05. This is a fault of mlp: please report it with the config"
    )


def test_nothing_is_left_in_the_folder_of_a_failed_start(trained, tmp_path, monkeypatch):
    _, config, _ = trained
    monkeypatch.chdir(tmp_path)
    for override in ("seed=x", "data.path=none.csv", "training.batch_size=99", "network.layers.1.units=9"):
        assert mlp("train", config, override).code in (2, 3)
    assert list(tmp_path.iterdir()) == []
    assert epochs(tmp_path) == []
