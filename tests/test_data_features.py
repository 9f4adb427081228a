"""Feature columns: types, scales (against scikit-learn), missing values, categories; all fitted on training rows."""

import json
import math

import numpy as np
import pytest
from data_options import data_options
from sklearn import preprocessing as sk

from mlp_cli.data import load, scaling
from mlp_cli.errors import DataError

pytestmark = pytest.mark.smoke


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a table into the current directory and name it."""
    monkeypatch.chdir(tmp_path)

    def write(text, name="data.csv"):
        (tmp_path / name).write_text(text)
        return name

    return write


def fit(path, dtype="float64", **options):
    return load(data_options(path, **options), 0, dtype, False)


def message(path, **options):
    with pytest.raises(DataError) as caught:
        fit(path, **options)
    return str(caught.value)


# ---- scales

TWINS = {
    "standard": sk.StandardScaler(),
    "minmax": sk.MinMaxScaler(),
    "robust": sk.RobustScaler(),
    "quantile": sk.QuantileTransformer(n_quantiles=1000, subsample=None),
}


def columns_to_scale(rows):
    random = np.random.default_rng(rows)
    return np.stack(
        [
            random.normal(3, 10, rows),
            random.integers(0, 5, rows).astype(float),
            np.where(random.random(rows) < 0.6, 0.0, random.lognormal(3, 2, rows)),
            1e6 + random.random(rows),
            np.r_[-5.0, np.zeros(rows - 1)],
            np.full(rows, 0.1),
        ],
        axis=1,
    )


@pytest.mark.parametrize("rows", [2, 7, 500, 2500])
@pytest.mark.parametrize("name", TWINS)
def test_scales_are_those_of_scikit_learn(name, rows):
    x = columns_to_scale(rows)
    later = np.concatenate([x, x[:1] + 0.05, x[:1] - 7, x[-1:] + 100])
    twin = TWINS[name]
    scale = scaling.fit(name, None, [np.ascontiguousarray(x[:, :4].T), np.ascontiguousarray(x[:, 4:].T)], "abcdef")
    if name == "quantile":
        twin.set_params(n_quantiles=min(rows, 1000)).fit(x)
        assert scale.quantiles == pytest.approx(twin.quantiles_.T, rel=1e-9)
        twin.quantiles_ = scale.quantiles.T  # rounding in its own would tell equal values apart
    else:
        twin.fit(x)
    found = later.copy()
    scale.apply(found)
    assert scale.constant.tolist() == [False] * 5 + [True]
    assert (found[:, 5] == 0).all()
    assert found[:, :5] == pytest.approx(twin.transform(later)[:, :5], rel=1e-9, abs=1e-8)


def test_statistics_are_exact_to_rounding():
    column = 1e6 + np.random.default_rng(0).random(5000)
    scale = scaling.fit("standard", None, [column[None, :]], "a")
    mean = math.fsum(column) / 5000
    assert scale.shift[0] == pytest.approx(mean, rel=3e-16)
    assert scale.scale[0] == pytest.approx(math.sqrt(math.fsum((column - mean) ** 2) / 5000), rel=1e-14)


def test_none_and_divide(write):
    path = write("a,b,y\n1,7,1\n2,7,2\n4,7,3\n")
    assert fit(path, numeric="none").train.x.tolist() == [[1, 7], [2, 7], [4, 7]]
    assert fit(path, numeric={"name": "divide", "by": 4}).train.x.tolist() == [[0.25, 1.75], [0.5, 1.75], [1, 1.75]]
    assert fit(path, numeric="none").notes == []


def test_constant_columns_become_zero_whatever_comes_later(write):
    path = write("a,b,y\n1,0.1,1\n2,0.1,2\n4,0.1,3\n")
    other = write("a,b\n1,0.1\n2,5\n", "other.csv")
    for numeric in ("standard", "minmax", "robust", "quantile"):
        dataset = fit(path, numeric=numeric)
        assert dataset.train.x[:, 1].tolist() == [0, 0, 0]
        assert dataset.notes == ["data.csv: constant in training, so they become 0: b"]
        assert dataset.preprocessing.transform(other, False).x[:, 1].tolist() == [0, 0]
        assert "b: constant in training, becomes 0" in dataset.preprocessing.describe()


def test_one_row(write):
    dataset = fit(write("a,b,y\n3,x,5\n"), target_scaling="standard")
    assert dataset.train.x.tolist() == [[0, 1]]
    assert dataset.train.target.tolist() == [[5]]
    assert dataset.task.target_scale.tolist() == [1]


def test_scales_are_fitted_on_training_rows_only(write):
    rows = "".join(f"{number * number},{number}\n" for number in range(40))
    dataset = fit(write("a,y\n" + rows), split={"validation": 0.25, "test": 0.25})
    training = dataset.train.rows.astype(float) ** 2
    assert dataset.preprocessing.scale.shift[0] == np.mean(training)
    everything = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    for part in everything.values():
        expected = (part.rows.astype(float) ** 2 - np.mean(training)) / training.std()
        assert part.x[:, 0] == pytest.approx(expected, rel=1e-12)
    assert fit("data.csv", split={"validation": 0.25, "test": 0.25}).train.x.tobytes() == dataset.train.x.tobytes()


def test_numbers_that_overflow_when_scaled(write):
    path = write("a,y\n0,1\n1e-30,2\n")
    other = write("a\n1e20\n", "other.csv")
    dataset = fit(path, "float32", numeric="minmax")
    with pytest.raises(DataError, match=r"other\.csv:2: column 'a': .* found once scaled, 1e\+50"):
        dataset.preprocessing.transform(other, False)
    assert "too large for its statistics" in message(write("a,y\n-1e308,1\n1e308,2\n"))
    assert np.isfinite(fit(write("a,y\n0,1\n5e-324,2\n")).train.x).all()


# ---- missing values

HOLES = "a,b,y\n1,x,1\n,?,2\n4,NA,3\n7,z,4\n"


@pytest.mark.parametrize(
    ("missing", "a"),
    [
        ("mean", [[1], [4], [4], [7]]),
        ("median", [[1], [4], [4], [7]]),
        ({"name": "constant", "value": -1}, [[1], [-1], [4], [7]]),
        ({"name": "constant", "value": 0.0}, [[1], [0], [4], [7]]),
        ("indicator", [[1, 0], [4, 1], [4, 0], [7, 0]]),
    ],
)
def test_stand_ins_for_missing_values(write, missing, a):
    dataset = fit(write(HOLES), missing=missing, numeric="none")
    words = [[1, 0, 0], [0, 0, 1], [0, 0, 1], [0, 1, 0]]
    assert dataset.train.x.tolist() == [[*one, *other] for one, other in zip(a, words, strict=True)]
    assert dataset.preprocessing.feature_names[-3:] == ["b=x", "b=z", "b is missing"]


def test_median_and_mean_differ(write):
    path = write("a,y\n1,1\n,2\n2,3\n30,4\n4,5\n")
    assert fit(path, missing="mean", numeric="none").train.x[1, 0] == 37 / 4
    assert fit(path, missing="median", numeric="none").train.x[1, 0] == 3


def test_missing_values_stand_still_in_scaling(write):
    dataset = fit(write(HOLES), missing="mean")
    column = np.array([1, 4, 4, 7.0])
    assert dataset.train.x[:, 0] == pytest.approx((column - 4) / column.std())


def test_missing_is_an_error_unless_told_otherwise(write):
    assert message(write(HOLES)) == (
        "data.csv:3: column 'a' is missing here; missing cells in all: a (1), b (2); set data.missing to mean, median, "
        "constant, indicator or drop, or exclude the column"
    )
    assert fit("data.csv", exclude=["a"], features=["b"], missing="drop").train.rows.tolist() == [0, 3]


def test_drop_leaves_rows_out_and_says_so(write):
    dataset = fit(write(HOLES), missing="drop", numeric="none")
    assert dataset.train.x.tolist() == [[1, 1, 0], [7, 0, 1]]
    assert dataset.train.target.tolist() == [[1], [4]]
    assert dataset.train.rows.tolist() == [0, 3]
    assert dataset.notes == ["data.csv: 2 rows of 4 dropped for missing values"]
    assert message(write("a,y\n?,1\n?,2\n"), missing="drop") == (
        "data.csv: every row has a missing value and is dropped; nothing is left"
    )


def test_a_word_can_stand_for_missing_words(write):
    missing = {"name": "constant", "value": "none"}
    dataset = fit(write("b,y\nx,1\n?,2\nnone,3\n"), missing=missing)
    assert dataset.preprocessing.feature_names == ["b=none", "b=x"]
    assert dataset.train.x.tolist() == [[0, 1], [1, 0], [1, 0]]
    assert message(write(HOLES), missing=missing) == (
        "data.csv:3: column 'a' is numeric and missing here; data.missing: expected a number for value, got 'none'"
    )


def test_a_column_without_any_value(write):
    for kind in ({}, {"a": "categorical"}, {"a": "numeric"}):
        assert message(write("a,b,y\n,1,2\n?,2,3\n"), missing="mean", columns=kind) == (
            "data.csv: column 'a' has no value in any training row; exclude it (data.exclude)"
        )


def test_indicators_are_fitted_on_training_rows(write):
    train = write("a,b,y\n1,1,1\n?,2,2\n3,3,3\n")
    other = write("a,b\n1,?\n?,2\n", "other.csv")
    preprocessing = fit(train, missing="indicator", numeric="none").preprocessing
    assert preprocessing.feature_names == ["a", "a is missing", "b"]
    assert preprocessing.transform(other, False).x.tolist() == [[1, 0, 2], [2, 1, 2]]


# ---- categories


def test_two_valued_and_sorted_categories(write):
    dataset = fit(write("sex,n,y\nmale,1,1\nfemale,2,2\nmale,3,3\n"), numeric="none")
    assert dataset.preprocessing.feature_names == ["sex=female", "sex=male", "n"]
    assert dataset.train.x.tolist() == [[0, 1, 1], [1, 0, 2], [0, 1, 3]]
    assert dataset.preprocessing.describe() == ["sex: one-hot of 2: female, male", "n: as it is"]


def test_overridden_types(write):
    path = write("zip,y\n01,1\n1,2\n01,3\n")
    assert fit(path, columns={"zip": "categorical"}).preprocessing.categories == {"zip": ("01", "1")}
    path = write("a,y\n1,1\nx,2\n")
    assert message(path, columns={"a": "numeric"}) == (
        "data.csv:3: column 'a': expected a number; found 'x'; words for missing values belong in data.missing_values, "
        "columns of words in data.columns as categorical"
    )
    assert message(path, columns={"b": "numeric"}).startswith("data.columns: expected a column of data.csv (a, y)")


def test_types_are_decided_by_the_training_rows(write):
    train, test = write("a,y\n1,1\n2,2\n"), write("a,y\n1,1\nx,2\n", "test.csv")
    assert message(None, train=train, test=test).startswith("test.csv:3: column 'a': expected a number; found 'x'")
    train, test = write("a,y\n1,1\nx,2\n"), write("a,y\n1,1\n1,2\n", "test.csv")
    assert fit(None, train=train, test=test).test.x.tolist() == [[1, 0], [1, 0]]


def test_unseen_categories(write):
    train, test = write("a,y\nu,1\nv,2\n"), write("a,y\nu,1\n\nw,2\n?,3\n", "test.csv")
    assert message(None, train=train, test=test, missing="mean") == (
        "test.csv:4: column 'a': 'w' is in no training row (known: u, v); set data.unseen: ignore to code such values "
        "as all zeros"
    )
    dataset = fit(None, train=train, test=test, missing="mean", unseen="ignore")
    assert dataset.test.x.tolist() == [[1, 0], [0, 0], [0, 0]]
    assert dataset.notes == ["test.csv: column a: 2 values unseen in training became all zeros"]


def test_free_text(write):
    rows = [f"word{number},{number}" for number in range(1200)]
    path = write("a,y\n" + "\n".join(rows) + "\n")
    assert message(path) == (
        "data.csv: column 'a' has 1200 different values in 1200 training rows, more than 1000 and hardly categories; "
        "exclude it (data.exclude: [a])"
    )
    path = write("a,y\n" + "\n".join(rows[:100]) + "\n")
    assert fit(path).notes == [
        "data.csv: column a has 100 different values in 100 training rows and looks like free text; consider "
        "data.exclude"
    ]
    rows[3] = "?,3"
    numbers = "a,y\n" + "".join(f"{number}.5,{number}\n" for number in range(1200)) + "n/a,3\n"
    assert "data.csv:1202: column a counts as words because of 'n/a'" in message(write(numbers))


# ---- which columns


def test_features_exclude_and_target(write):
    path = write("a,b,c,d\n1,2,3,4\n5,6,7,8\n")

    def names(**options):
        preprocessing = fit(path, numeric="none", **options).preprocessing
        return "".join(preprocessing.feature_names) + ">" + "".join(preprocessing.task.targets)

    assert names() == "abc>d"
    assert names(target="b") == "acd>b"
    assert names(target=0) == "bcd>a"
    assert names(target=["b", 3]) == "ac>bd"
    assert names(exclude=["a", 1]) == "c>d"
    assert names(exclude=["d"]) == "ab>c"
    assert names(features=["c", "a"]) == "ac>d"
    assert names(features=["d"], target="a") == "d>a"
    assert names(sample_weight="b") == "ac>d"
    assert names(sample_weight="d") == "ab>c"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"target": "e"}, "data.target: expected a column of data.csv (alpha, beta, c, d); got 'e'"),
        ({"target": "alhpa"}, "data.target: expected a column of data.csv (alpha, beta, c, d); got 'alhpa'. "
                              "Did you mean alpha?"),
        ({"target": 4}, "data.target: expected a column of data.csv by name or by number from 0 to 3; got 4"),
        ({"target": ["c", 2]}, "data.target: names 'c' twice"),
        ({"target": "c", "exclude": ["c"]}, "data.exclude: names 'c', which is the target; take it out of one of them"),
        ({"features": ["c"], "exclude": ["c"]}, "data.exclude: names c, which data.features names too"),
        ({"target": "c", "sample_weight": "c"}, "data.sample_weight: 'c' is the target too; name another column"),
        ({"exclude": ["alpha", "beta", "c"]}, "data.csv: no column is left to learn from (columns: alpha, beta, c, d; "
                                              "target: d); if the cells are not separated by what they seem, set "
                                              "data.delimiter"),
        ({"features": ["alpha", "beta", "c", "d"]}, "data.csv: no column is left to be the target; name it in "
                                                    "data.target"),
    ],
)  # fmt: skip
def test_columns_that_are_not_there(write, options, expected):
    assert message(write("alpha,beta,c,d\n1,2,3,4\n5,6,7,8\n"), **options) == expected


def test_sample_weights(write):
    dataset = fit(write("a,w,y\n1,2,3\n4,0,6\n"), sample_weight="w", numeric="none")
    assert dataset.train.weight.tolist() == [2, 0]
    assert dataset.train.weight.dtype == np.float64
    assert fit("data.csv").train.weight is None
    for bad in ("-1", "inf", "nan", "?"):
        found = message(write(f"a,w,y\n1,2,3\n4,{bad},6\n"), sample_weight="w")
        assert found == f"data.csv:3: column 'w': expected a sample weight, a number from 0 up; found '{bad}'"
    assert "expected a number; found 'x'" in message(write("a,w,y\n1,2,3\n4,x,6\n"), sample_weight="w")
    assert "is 0 in every row" in message(write("a,w,y\n1,0,3\n4,0,6\n"), sample_weight="w")
    assert fit(write("a,w,y\n1,2,3\n4,?,6\n"), sample_weight="w", missing="drop").train.rows.tolist() == [0]


def test_everything_in_the_state_is_json_or_float64(write):
    facts, arrays = fit(write(HOLES), missing="indicator", numeric="quantile").preprocessing.state()
    assert json.loads(json.dumps(facts, sort_keys=True, allow_nan=False)) == facts
    assert all(array.dtype == np.float64 for array in arrays.values())
