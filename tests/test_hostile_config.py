"""Config files made to take long, to take memory, or to run something: exit 2, and a report that people can read."""

import subprocess

import pytest
from cli import measured, mlp

pytestmark = pytest.mark.smoke

SOUND = "data: {path: rows.csv}\nnetwork: {layers: [{units: 3}, {}]}\n"
# Imports included; the promise is 200 MB.
MOST_MEMORY = 200e6
MOST_LINES = 51


def alias_bomb() -> bytes:
    """Thirty lists of nine aliases each of the list before: 9**30 elements, for whoever follows them."""
    bomb = [b"a0: &a0 [" + b"x," * 9 + b"]"]
    bomb += [b"a%d: &a%d [" % (i, i) + b"*a%d," % (i - 1) * 9 + b"]" for i in range(1, 30)]
    return b"\n".join(bomb)


HEAD = b"data: {path: a}\nnetwork: {layers: ["
# What a file holds, and how a line of the report ends or goes on.
HOSTILE = {
    "alias bomb": (alias_bomb(), "the alias *a0 is refused: write the value out"),
    "aliases": (b"a: &a 1\nb: [" + b"*a," * 250_000 + b"]", "the alias *a is refused: write the value out"),
    "merge keys": (b"a: &a {x: 1}\n<<: *a\n", "the merge key << is refused: write the values out"),
    "nested lists": (b"a: " + b"[" * 10_000, "1:67: nested more than 64 levels deep"),
    "nested maps": (b"{a: " * 10_000, "1:257: nested more than 64 levels deep"),
    "nested and closed": (b"a: " + b"[" * 10_000 + b"]" * 10_000, "1:67: nested more than 64 levels deep"),
    "nested blocks": (b"- " * 400_000, "1:129: nested more than 64 levels deep"),
    "a function": (b"!!python/object/apply:os.abort []\n", "python/object/apply:os.abort' is refused"),
    "a name": (b"seed: !!python/name:os.abort\n", "python/name:os.abort' is refused"),
    "many mistakes": (HEAD + b"x," * 29_000 + b"]}", "and 28950 more problems"),
    "unknown options": (HEAD + b"{x: 1}," * 9_000 + b"]}", "and 8950 more problems"),
    "words for numbers": (HEAD + b"{weights: [[" + b"x," * 29_000 + b"]]}]}", "and 28950 more problems"),
    "repeated keys": (b"a: 1\n" * 190_000, "a: duplicate key, in lines 1 and 2"),
    "too many keys": (b"".join(b"k%d:\n" % i for i in range(20_000)), "expected at most 10000 keys in a config"),
    "a long number": (b"seed: " + b"9" * 900_000, "seed: expected an integer in [0, 9223372036854775807]; got .inf"),
    "control characters": (SOUND.encode() + b"seed: \x1b[31m7\n", "expected text; got the control character U+001B"),
    "binary": (bytes(range(256)) * 100, "expected UTF-8 text; this is a binary file"),
    "latin-1": ("data: {path: caf\xe9.csv}".encode("latin-1"), "expected UTF-8 text; got the byte 0xe9"),
    "UTF-16": (SOUND.encode("utf-16"), "expected UTF-8 text; this file is UTF-16: save it as UTF-8"),
    "UTF-16 without its mark": (SOUND.encode("utf-16-le"), "expected UTF-8 text; this is a binary file"),
    "UTF-32": (SOUND.encode("utf-32"), "expected UTF-8 text; this file is UTF-32: save it as UTF-8"),
}
# Those that were the slowest or the largest, when measured, run as processes.
MEASURED = ("alias bomb", "nested maps", "words for numbers", "many mistakes", "binary")


def check(done, sentence):
    assert (done.code, done.out) == (2, ""), done
    assert "Traceback" not in done.err
    lines = done.err.splitlines()
    assert len(lines) <= MOST_LINES
    assert any(sentence in line for line in lines), done.err[:1000]
    assert done.err.replace("\n", "").isprintable()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_configs(name, tmp_path):
    content, sentence = HOSTILE[name]
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    check(mlp("train", path, "--out", tmp_path / "run"), sentence)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", MEASURED)
def test_hostile_configs_take_no_memory(name, tmp_path):
    content, sentence = HOSTILE[name]
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    done = measured("train", path)
    check(done, sentence)
    assert done.peak < MOST_MEMORY


def test_a_config_of_100_megabytes_is_not_read(tmp_path):
    path = tmp_path / "c.yaml"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    done = measured("train", path)
    check(done, "expected a config of at most 1000000 bytes; this file is larger")
    assert done.peak < 100e6


def test_configs_that_are_no_files(tmp_path):
    loop = tmp_path / "loop.yaml"
    loop.symlink_to(loop)
    check(mlp("train", loop), f"{loop}: cannot be read: Too many levels of symbolic links")
    check(mlp("train", "/dev/zero"), "/dev/zero: expected a config file; this is a device")
    check(mlp("train", tmp_path), f"{tmp_path}: expected a config file; this is a directory")


def test_a_config_may_come_through_a_pipe(tmp_path):
    reader = subprocess.Popen(["printf", "%s", "seed: x\n" + SOUND], stdout=subprocess.PIPE)
    with reader:
        done = measured("train", "/dev/stdin", stdin=reader.stdout)
    check(done, "/dev/stdin:1:7 seed: expected an integer")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("network.layers=" + "[" * 10_000, "nested more than 64 levels deep"),
        ("a." * 10_000 + "a=1", "expected KEY=VALUE with a key such as training.epochs"),
        ("network.layers.99999999999.units=1", "network.layers is a list with elements 0 to 1"),
        ("seed=&a 1", "the anchor &a is refused"),
        ("seed=!!python/name:os.abort", "is refused: a config holds plain values"),
    ],
)
def test_hostile_overrides(override, sentence, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(SOUND)
    check(mlp("train", path, override), sentence)
