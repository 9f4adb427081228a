"""The targets of the fuzzer, on the files from which it starts and on what it found (`fuzz/run.py`)."""

import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parent / "fuzz"
sys.path.insert(0, str(FUZZ))

import targets  # noqa: E402
from seeds import seeds  # noqa: E402


@pytest.mark.parametrize("name", targets.ALL)
def test_seeds_and_findings(name):
    for content in seeds(name):
        targets.ALL[name](content)


def test_every_finding_belongs_to_a_target():
    folders = {path.name for path in (FUZZ / "cases").iterdir()}
    assert folders <= set(targets.ALL)
    assert all(any(path.iterdir()) for path in (FUZZ / "cases").iterdir())
