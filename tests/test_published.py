"""The published results, on the real files; a test is skipped where these are absent."""

from pathlib import Path

import pytest
from data_options import real_data

PUBLISHED = Path(__file__).parent.parent / "configs" / "published"


def mnist_files():
    """Overrides that say where MNIST is."""
    return [
        f"data.{part}.{axis}={real_data('mnist', f'{name}-{kind}-ubyte.gz')}"
        for part, name in (("train", "train"), ("test", "t10k"))
        for axis, kind in (("x", "images-idx3"), ("y", "labels-idx1"))
    ]


def test_scikit_learns_mnist_example(train):
    run = train(PUBLISHED / "mnist_sklearn.yaml", *mnist_files(), "seed=0")
    assert run.exit_code == 0
    assert run.epochs[-1]["train"]["loss"] == pytest.approx(0.0465, abs=0.006)
    assert run.metrics["test"]["accuracy"] == pytest.approx(0.970, abs=0.003)


@pytest.mark.slow
def test_keras_mnist_example(train):
    run = train(PUBLISHED / "mnist_keras.yaml", *mnist_files(), "seed=0")
    assert run.exit_code == 0
    assert run.metrics["test"]["accuracy"] == pytest.approx(0.984, abs=0.003)


def test_adult_from_its_raw_files(train):
    files = {"train": real_data("adult", "adult.data"), "test": real_data("adult", "adult.test")}
    run = train(PUBLISHED / "adult.yaml", *(f"data.{part}={path}" for part, path in files.items()))
    assert run.exit_code == 0
    assert run.metrics["test"]["accuracy"] >= 0.85
