"""docs/trust.md: what may come from anybody and what acts for the user; each line names a test that is there."""

import ast
import hashlib
import re
from pathlib import Path

import pytest
from cli import blobs, classifier, good, mlp

from mlp_cli.runs import checkpoint

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "trust.md").read_text(encoding="utf-8")


def test_every_line_names_a_test_that_is_there():
    named = re.findall(r"`(tests/\w+\.py)::(\w+)`", PAGE)
    for path, test in named:
        functions = {
            node.name for node in ast.parse((ROOT / path).read_text()).body if isinstance(node, ast.FunctionDef)
        }
        assert test in functions, (path, test)
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| what |")]
    assert len(rows) > 10
    assert [row for row in rows if "`tests/" not in row] == []


@pytest.mark.parametrize("command", [("train",), ("train", "--force"), ("check",), ("inspect",)], ids=" ".join)
def test_the_data_of_a_config_is_read_and_never_written(tmp_path, command):
    secret = tmp_path / "secret.txt"
    secret.write_text("a line that is no table\n" * 3)
    secret.chmod(0o600)
    before = secret.stat()
    config = classifier(tmp_path / "c.yaml", secret, network={"initial": str(secret), "layers": [{}]})
    name, *flags = command
    done = mlp(name, config, *flags, *(("--out", tmp_path / "run") if name == "train" else ()))
    assert done.code in (2, 3), done.err
    assert "Traceback" not in done.err
    after = secret.stat()
    assert (after.st_mtime_ns, after.st_mode, after.st_ino) == (before.st_mtime_ns, before.st_mode, before.st_ino)
    assert not (tmp_path / "run").exists()


def test_a_digest_proves_no_author(tmp_path):
    """Anybody can change a checkpoint and seal it again."""
    data = blobs(tmp_path / "d.csv")
    config = classifier(tmp_path / "c.yaml", data, training={"epochs": 1})
    good("train", config, "--out", tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "best.safetensors"
    content = path.read_bytes()
    true = checkpoint.read(path).sha256.encode()
    changed = content.replace(true, b"0" * 64)[:-1] + bytes([content[-1] ^ 1])
    path.write_bytes(changed.replace(b"0" * 64, hashlib.sha256(changed).hexdigest().encode()))
    good("predict", tmp_path / "run", data)
