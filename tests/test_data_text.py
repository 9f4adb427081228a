"""Reading CSV and TSV: delimiters, headers, encodings, quotes, comments, and messages that name the right line."""

import gzip

import numpy as np
import pytest
from data_options import data_options

from mlp_cli.data import load
from mlp_cli.data.text import Lines
from mlp_cli.errors import DataError

pytestmark = pytest.mark.smoke


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a file into the current directory and name it."""
    monkeypatch.chdir(tmp_path)

    def write(content, name="data.csv"):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return name

    return write


def regress(path, **options):
    options.setdefault("numeric", "none")
    return load(data_options(path, **options), 0, "float64", False)


def message(path, **options):
    with pytest.raises(DataError) as caught:
        regress(path, **options)
    return str(caught.value)


PLAIN = "a,b,y\n1,2,3\n4,5,6\n"


def packed(text):
    """As gzip, without the time: parallel workers must name their tests alike."""
    return gzip.compress(text.encode(), mtime=0)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (PLAIN, "data.csv"),
        (PLAIN.replace(",", "\t"), "data.tsv"),
        (PLAIN.replace(",", "\t"), "data.csv"),
        (PLAIN.replace(",", ";"), "data.csv"),
        (PLAIN.replace(",", " , "), "data.csv"),
        (PLAIN.replace("\n", "\r\n"), "data.csv"),
        (PLAIN.replace("\n", "\r"), "data.csv"),
        (PLAIN.rstrip(), "data.csv"),
        (PLAIN + "\n\n", "data.csv"),
        (PLAIN.replace("\n", "\n\n  \n"), "data.csv"),
        ("\ufeff" + PLAIN, "data.csv"),
        (PLAIN.replace("1", '"1"').replace("5", '  "5" '), "data.csv"),
        (packed(PLAIN), "data.csv.gz"),
        (packed(PLAIN), "no-ending"),
        (packed(PLAIN[:8]) + packed(PLAIN[8:]), "two.gz"),
        ("\xa0a,b,y\n1,\u20032,3\n4,5,6\n", "data.csv"),
    ],
)
def test_the_same_table_in_many_spellings(write, content, name):
    dataset = regress(write(content, name))
    assert dataset.preprocessing.feature_names == ["a", "b"]
    assert dataset.train.x.tolist() == [[1, 2], [4, 5]]
    assert dataset.train.target.tolist() == [[3], [6]]
    assert list(dataset.train.rows) == [0, 1]
    assert dataset.fingerprint == regress(write(PLAIN, "plain.csv")).fingerprint


def test_decimal_commas(write):
    path = write("a;b;y\n1,5;2;3,25\n-4,5e1;,5;6\n")
    dataset = regress(path, decimal=",")
    assert dataset.train.x.tolist() == [[1.5, 2], [-45, 0.5]]
    assert dataset.train.target.tolist() == [[3.25], [6]]
    assert message(path) == (
        "data.csv:2: column 'y': '3,25' looks like a number with a decimal comma; set data.decimal: \",\", or "
        "data.columns: {y: categorical} if these are words"
    )
    assert "column 'a': '1,5' looks like" in message(write("a;y\n2;3\n1,5;4\n"))
    assert regress(path, columns={"a": "categorical"}).preprocessing.categories == {"a": ("1,5", "2")}


def test_a_thousands_point_is_no_decimal_point_under_decimal_commas(write):
    dataset = regress(write("a;y\n1.234;2\n3;4\n"), decimal=",")
    assert dataset.preprocessing.categories == {"a": ("1.234", "3")}


@pytest.mark.parametrize(
    ("content", "header", "names"),
    [
        ("1,2\n3,4\n", None, ["0", "1"]),
        ("a,2\n3,4\n", None, ["a", "2"]),
        ("a,b\n3,x\n4,y\n", None, ["a", "b"]),
        ("39,x\n3,x\n4,y\n", None, ["0", "1"]),
        ("p,q\nx,u\ny,v\n", None, ["p", "q"]),
        ("p,q\nx,u\ny,v\n", False, ["0", "1"]),
        ("1,2\n3,4\n5,6\n", True, ["1", "2"]),
        ("?,b\n1,2\n3,4\n", None, ["?", "b"]),
    ],
)
def test_whether_the_first_row_is_a_header(write, content, header, names):
    path = write(content)
    preprocessing = load(data_options(path, header=header), 0, "float32", False).preprocessing
    assert list(preprocessing.known.columns) == names


def test_names_stand_in_for_a_header(write):
    path = write("1,2,3\n4,5,6\n")
    dataset = regress(path, names=["u", "v", "w"], target="u")
    assert dataset.preprocessing.feature_names == ["v", "w"]
    assert message(path, names=["u", "v"]) == (
        "data.csv:1: expected 2 cells, one for each of data.names; found 3: 1, 2, 3"
    )
    assert message(write("u,v\n1,2\n"), names=["u", "v"]) == "data.csv:1: repeats data.names; set data.header: true"
    assert "both called 'u'" in message(path, names=["u", "u", "v"])
    dataset = regress(write("a,b,c\n1,2,3\n"), names=["u", "v", "w"], header=True)
    assert dataset.preprocessing.feature_names == ["u", "v"]


def test_headers_that_are_refused(write):
    assert message(write("\na,b,a\n1,2,3\n")) == (
        "data.csv:2: columns 1 and 3 are both called 'a'; rename one, or say all names in data.names together with "
        "header: true"
    )
    assert message(write(",b,c\n1,2,3\n")) == (
        "data.csv:1: column 1 has no name; name it in the file, or say all names in data.names together with "
        "header: true"
    )
    names = ["id", "b", "c"]
    assert regress(write(",b,c\n1,2,3\n"), names=names, header=True).preprocessing.feature_names == ["id", "b"]


def test_comments_and_blank_lines(write):
    path = write('|1x3 Cross validator\na,y\n1,2\n  |note, with "quote\n\n3,4\n\n|\n5,x|6\n')
    dataset = load(data_options(path, comment="|"), 0, "float64", True)
    assert dataset.train.x[:, 0].tolist() != []
    assert dataset.task.classes == ("2", "4", "x|6")
    path = write("# c\na,y\n\n1,2\n# d\n3,x\n4,5\n")
    assert "data.csv:6: column 'y': expected a number" in message(path, comment="#", task="regression")


@pytest.mark.parametrize(
    ("content", "options", "expected"),
    [
        ("a,b\n1,2\n3\n", {}, "data.csv:3: expected 2 cells, found 1"),
        ("a,b\n1,2\n\n\n3,4,5\n", {}, "data.csv:5: expected 2 cells, found 3"),
        ("#\na,b\n1,2\n#\n3,4,5\n", {"comment": "#"}, "data.csv:5: expected 2 cells, found 3"),
        ('a,b\n1,"2\n\n2"\n3,4,5\n', {}, "data.csv:5: expected 2 cells, found 3"),
        ('a,b\n"1\n#\n",2\n#\n3,4,5\n', {"comment": "#"}, "data.csv:6: expected 2 cells, found 3"),
        ('a,b\n1,"x"y"z,w"\n', {}, "data.csv:2: expected 2 cells, found 3"),
        ('a,b\n1,"2\n3,4\n5,6\n', {}, 'data.csv:2: a quote (") opens here and is never closed'),
        ('a,b\n"1,2\n3,4\n5,6\n', {}, 'data.csv:2: a quote (") opens here and is never closed'),
        ('"a,b\n1,2\n', {}, 'data.csv:1: a quote (") opens here and is never closed'),
        ("a;b\n1;2\n3,4\n", {"delimiter": ","}, "data.csv:3: expected 1 cell, found 2"),
        ("a,b\n1,2\n3,\0\n", {}, "data.csv:3: holds a NUL byte, so it is not a text table; expected CSV or TSV text"),
    ],
)
def test_ragged_rows_and_open_quotes_are_named_by_line(write, content, options, expected):
    assert message(write(content), **options) == expected


def test_a_ragged_row_deep_in_a_long_file(write):
    rows = [f'{number},"{number}\n",{number}' for number in range(30000)]
    rows[20000] = "1,2"
    assert message(write("a,b,c\n" + "\n".join(rows) + "\n")) == "data.csv:40002: expected 3 cells, found 2"


def test_a_row_longer_than_a_block(write):
    words = ",".join(str(number % 7) for number in range(1_200_000))
    header = ",".join(f"c{number}" for number in range(3))
    path = write(f"{header}\n1,{'x' * 9_000_000},3\n1,y,4\n")
    assert regress(path).train.x.shape == (2, 3)
    assert "found 1200000" in message(write(f"{header}\n{words}\n1,2,3\n"))


def test_quotes_spaces_and_embedded_line_ends(write):
    path = write('a , b,y\n"x, ""1""\nz",  "p, q" ,1\n u ,v,2\n')
    preprocessing = regress(path).preprocessing
    assert preprocessing.categories == {"a": ("u", 'x, "1"\nz'), "b": ("p, q", "v")}


def test_encodings(write):
    text = "größe,y\n1,süß\n2,größer\n"
    path = write(text.encode("latin-1"))
    assert message(path) == (
        "data.csv:1: the byte 0xf6 is not UTF-8; set data.encoding, to latin-1 or cp1252 for example, or save the file "
        "as UTF-8"
    )
    dataset = regress(path, encoding="latin-1")
    assert dataset.task.classes == ("größer", "süß")
    for encoding in ("utf-16", "utf-16-le", "utf-32"):
        path = write(text.encode(encoding))
        assert "UTF-" in message(path)
        assert f"set data.encoding: {encoding}" in message(path)
        assert regress(path, encoding=encoding).fingerprint == dataset.fingerprint
    assert message(path, encoding="klingon") == (
        "data.encoding: expected a text encoding such as utf-8, latin-1 or cp1252; got 'klingon'"
    )
    path = write("a,y\n1,2\n3,ü\n".encode())
    assert message(path, encoding="ascii") == "data.csv:3: is not ascii text; set data.encoding to what it is"
    for encoding in ("base64", "rot13", "punycode", "undefined"):
        assert "encoding" in message(path, encoding=encoding)


@pytest.mark.parametrize("cell", ["inf", "-Infinity", "1e400", "1e39"])
def test_numbers_beyond_the_type_are_refused(write, cell):
    path = write(f"a,y\n1,2\n3,4\n{cell},5\n")
    with pytest.raises(DataError, match=r"data\.csv:4: column 'a': expected a finite number that float32 can hold"):
        load(data_options(path), 0, "float32", False)
    path = write(f"a,y\n1,2\n3,4\n5,{cell}\n")
    with pytest.raises(DataError, match=r"data\.csv:4: column 'y': expected a finite number"):
        load(data_options(path), 0, "float32", False)
    assert regress(write("a,y\n1e39,2\n3,4\n")).train.x[0, 0] == 1e39


def test_numbers_are_those_of_python(write):
    words = ["1", "+2", "-3.50", ".5", "5.", "1e3", "1E-3", "00012", "0.1", "1e-400", "123456789012345678901", "2.5e+2"]
    dataset = regress(write("y,a\n" + "".join(f"1,{word}\n" for word in words)), target="y")
    assert dataset.train.x[:, 0].tolist() == [float(word) for word in words]
    for word in ("1_0", "0x10", "1d", "١", "1 000", "e5", "."):
        dataset = regress(write(f"y,a\n1,2\n2,{word}\n"), target="y")
        assert list(dataset.preprocessing.categories) == ["a"], word


def test_nan_is_a_missing_number(write):
    path = write("a,y\nnan,2\n3,4\n")
    assert "data.csv:2: column 'a' is missing here; missing cells in all: a (1)" in message(path)
    assert regress(path, missing="mean").train.x.tolist() == [[3], [3]]


def test_missing_values_of_ones_own(write):
    path = write("a,b,y\n-999,x,2\n3,none,4\n5,z,6\n")
    dataset = regress(path, missing="mean", missing_values=["-999", "none"])
    assert dataset.train.x.tolist() == [[4, 1, 0, 0], [3, 0, 0, 1], [5, 0, 1, 0]]
    assert dataset.preprocessing.feature_names == ["a", "b=x", "b=z", "b is missing"]


def test_one_stray_word_among_numbers_is_told(write):
    rows = "".join(f"{number},{number}\n" for number in range(30))
    dataset = regress(write("a,y\n" + rows + "-,7\n"))
    assert dataset.notes == [
        "data.csv:32: column a counts as words because of '-', though 30 of 31 cells are numbers or missing; if that "
        "means missing, add it to data.missing_values"
    ]


def test_fingerprint_is_of_the_content(write):
    one = regress(write(PLAIN, "one.csv")).fingerprint
    assert regress(write(PLAIN, "two.csv")).fingerprint == one
    assert regress(write(PLAIN.replace("5", "7"))).fingerprint != one
    assert regress(write(PLAIN.replace("b", "c"))).fingerprint != one
    assert regress(write("a,b,y\n12,,3\n4,5,6\n"), missing="mean").fingerprint != one
    both = regress(None, train=write(PLAIN, "one.csv"), test=write(PLAIN, "two.csv")).fingerprint
    assert both != one
    assert len(both) == 64


@pytest.mark.parametrize("quoted", [False, True])
def test_records_and_their_lines(quoted):
    text = b'a,b\n\n  \n#x\n1,"2\n#\n3"\n4,5\n' if quoted else b"a,b\n\n  \n#x\n1,2\n\n\n4,5\n"
    lines = Lines(text, ",", "#")
    assert [line for line, _, _ in lines.records()] == [1, 5, 8]
    assert [lines.line_of(record) for record in range(3)] == [1, 5, 8]
    assert b"#x" not in lines.body()
    assert np.all([closed for _, _, closed in lines.records()])
