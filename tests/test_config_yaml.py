"""The YAML reader: no traps, no references, no way to keep it busy; every value knows its place."""

import pytest
import yaml

from mlp_cli.config import load, yaml_loader
from mlp_cli.config.tree import UNREADABLE, Source, to_plain
from mlp_cli.errors import ConfigError

pytestmark = pytest.mark.smoke


def read(text):
    """(plain values, problem lines) of YAML text."""
    problems = []
    node = yaml_loader.parse(text, Source(0, "c.yaml", "/folder"), problems)
    return to_plain(node), [str(problem) for problem in problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1.0e-3", 0.001),
        ("-2E+2", -200.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("+7", 7),
        ("0", 0),
        ("-0.0", 0.0),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("off", "off"),
        ("n", "n"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("0x10", "0x10"),
        ("0o17", "0o17"),
        ("1_000", "1_000"),
        ("12:30:00", "12:30:00"),
        ("2024-01-01", "2024-01-01"),
        ("1.2.3", "1.2.3"),
        ("nan", "nan"),
        ("'5'", "5"),
        ('"true"', "true"),
        ("12345678901234567890123", 12345678901234567890123),
        ("1" + "0" * 305, 1e305),
    ],
)
def test_scalars(text, value):
    plain, problems = read(f"a: {text}")
    assert plain == {"a": value}
    assert type(plain["a"]) is type(value)
    assert problems == []


def test_infinity_and_nan_have_a_dot():
    assert read("[.inf, -.INF]")[0] == [float("inf"), float("-inf")]
    assert str(read(".nan")[0]) == "nan"


def test_a_key_is_text_as_it_stands():
    assert read("{no: 1, 1: 2, 010: 3, true: 4, '': 5}")[0] == {"no": 1, "1": 2, "010": 3, "true": 4, "": 5}


def test_a_leading_zero_is_refused():
    plain, problems = read("a: [1, -010]\nb: 007")
    assert plain == {"a": [1, UNREADABLE], "b": UNREADABLE}
    assert problems == [
        "c.yaml:1:8 a.1: -010 is octal for some readers: write -10, or '-010' in quotes if it is text",
        "c.yaml:2:4 b: 007 is octal for some readers: write 7, or '007' in quotes if it is text",
    ]


def test_every_value_and_key_knows_its_place():
    node = yaml_loader.parse("seed: 7\ndata:\n  labels: {a: b, c:   d}", Source(0, "c.yaml", "/folder"), [])
    labels = node.child("data").child("labels")
    assert str(node.child("seed").mark) == "c.yaml:1:7"
    assert str(node.child("data").key_mark) == "c.yaml:2:1"
    assert (str(labels.key_mark), str(labels.mark)) == ("c.yaml:3:3", "c.yaml:3:11")
    assert (str(labels.child("c").key_mark), str(labels.child("c").mark)) == ("c.yaml:3:18", "c.yaml:3:23")


def test_what_refers_elsewhere_is_refused():
    text = "a: &x 1\nb: *x\n<<: {c: 2}\nd: !!str 3\n? [e, f]\n: 4\na: 5"
    assert read(text)[1] == [
        "c.yaml:1:4: the anchor &x is refused: write the value out where it is used",
        "c.yaml:2:4: the alias *x is refused: write the value out",
        "c.yaml:3:1: the merge key << is refused: write the values out",
        "c.yaml:4:4: the tag 'tag:yaml.org,2002:str' is refused: a config holds plain values",
        "c.yaml:5:3: expected a word as key; got a mapping or list",
        "c.yaml:7:1 a: duplicate key, in lines 1 and 7",
    ]


def test_duplicate_keys_name_their_path():
    assert read("n: {layers: [{}, {units: 1, units: 2}]}")[1] == [
        "c.yaml:1:29 n.layers.1.units: duplicate key, in line 1, twice"
    ]


def message(path):
    with pytest.raises(ConfigError) as error:
        load([path])
    return str(error.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a: 1\n---\nb: 2", "c.yaml:2:1: expected one document; a second one starts here"),
        (b"a:\n\tb: 1", "c.yaml:2:1: not valid YAML: found character"),
        (b"a: [1, 2\nb: 3", "c.yaml:2:2: not valid YAML: "),
        (b"a: \x07", "c.yaml:1:4: expected text; got the control character U+0007"),
        (b"- 1", "c.yaml:1:1: expected keys and values, as in `seed: 7`; got a list"),
        (b"seed", "c.yaml:1:1: expected keys and values, as in `seed: 7`; got 'seed'"),
        (b"seed: \xe9\n", "c.yaml:1:7: expected UTF-8 text; got the byte 0xe9: save the file as UTF-8"),
        ("seed: 7".encode("utf-16"), "c.yaml: expected UTF-8 text; this file is UTF-16: save it as UTF-8"),
        (bytes(range(256)), "c.yaml: expected UTF-8 text; this is a binary file"),
        (b"a: " + b"[" * 10_000, "c.yaml:1:67: nested more than 64 levels deep"),
        (b"{a: " * 10_000, "c.yaml:1:257: nested more than 64 levels deep"),
        (b"- " * 400_000, "c.yaml:1:129: nested more than 64 levels deep"),
        (b"#" * 1_000_001, "c.yaml: expected a config of at most 1000000 bytes; this file is larger"),
        (b"a: [" + b"1," * 200_000 + b"]", "c.yaml:1:60001: expected at most 30000 values; many weights"),
        (b"".join(b"k%d:\n" % i for i in range(20_000)), "c.yaml:10001:1: expected at most 10000 keys in a config"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, monkeypatch, content, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_bytes(content)
    assert message("c.yaml").startswith(expected)
    assert "\n" not in message("c.yaml")


class Shallow(yaml.SafeLoader):
    """A parser with a low limit of its own on the depth, met while it looks ahead."""

    error = yaml.scanner.ScannerError("while increasing flow level", None, "exceeded maximum nesting depth", None)

    def fetch_flow_collection_start(self, token):
        super().fetch_flow_collection_start(token)
        if self.flow_level > 66:
            raise self.error


class Recursive(Shallow):
    """A parser that recurses."""

    error = RecursionError("maximum recursion depth exceeded")


@pytest.mark.parametrize("parser", [yaml_loader.PARSER, yaml.SafeLoader, Shallow, Recursive], ids=lambda p: p.__name__)
@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: " + "[" * 10_000, "1:67"),
        ("a: 1\nb: ['[[', # [[[\n" + "[" * 3000 + "]" * 3000, "3:63"),
        ('[{"[": ' + "[" * 3000, "1:70"),
        ("{a: " * 10_000, "1:257"),
        ("- " * 5000, "1:129"),
    ],
)
def test_the_depth_is_ours_to_refuse_whatever_limit_the_parser_has(monkeypatch, parser, text, place):
    monkeypatch.setattr(yaml_loader, "PARSER", parser)
    with pytest.raises(yaml_loader.Fatal) as caught:
        read(text)
    assert str(caught.value.problem) == f"c.yaml:{place}: nested more than 64 levels deep"


def test_no_file_and_no_place_for_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.yaml").mkdir()
    assert message("none.yaml") == "none.yaml: no such file"
    assert message("folder.yaml") == "folder.yaml: expected a config file; this is a directory"
    assert message("none.yaml/c.yaml") == "none.yaml/c.yaml: no such file"


def test_an_empty_file_lacks_everything(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text("# nothing\n")
    assert message("c.yaml").splitlines() == [
        "c.yaml:1:1 data: expected a mapping; got nothing",
        "c.yaml:1:1 network: expected a mapping; got nothing",
    ]


def test_a_byte_order_mark_and_windows_lines_are_fine(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_bytes(b"\xef\xbb\xbfseed: 7\r\ndata: {path: x.csv}\r\nnetwork: {layers: [{}]}\r\n")
    assert load([path]).seed == 7
