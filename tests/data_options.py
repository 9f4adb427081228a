"""Options of the data section as `load` takes them, with the defaults of the config, for the tests of mlp_cli.data."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest


def named(value, /, **defaults):
    """`"mean"` or `{"name": "constant", "value": 3}` as an object with attributes."""
    given = {"name": value} if isinstance(value, str) else value
    return SimpleNamespace(**{**defaults, **given})


def source(value):
    """A path, or a pair (x, y), as the config's source."""
    if value is None:
        return None
    if isinstance(value, tuple):
        return SimpleNamespace(path=None, x=str(value[0]), y=str(value[1]))
    return SimpleNamespace(path=str(value), x=None, y=None)


def data_options(path=None, **given):
    """A stand-in for `cfg.data`: the defaults, and what is given."""
    options = {
        "memory": "load",
        "header": None,
        "names": None,
        "delimiter": None,
        "decimal": ".",
        "encoding": "utf-8",
        "comment": None,
        "missing_values": ["", "NA", "NaN", "?"],
        "target": None,
        "features": None,
        "exclude": None,
        "columns": {},
        "labels": {},
        "sample_weight": None,
        "unseen": "error",
        "target_scaling": "none",
        "task": None,
        **given,
    }
    for part in ("train", "validation", "test"):
        options[part] = source(given.get(part))
    options["path"] = None if path is None else str(path)
    options["numeric"] = named(given.get("numeric", "standard"), by=None)
    options["missing"] = named(given.get("missing", "error"), value=None)
    split = {"validation": None, "test": None, "stratify": True, **given.get("split", {})}
    options["split"] = SimpleNamespace(**split) if "split" in given else None
    return SimpleNamespace(**options)


def real_data(*parts):
    """A file of the real data sets, in $MLP_DATA or beside the repository; the test is skipped where it is absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    path = Path(os.environ.get("MLP_DATA") or beside).joinpath(*parts)
    if not path.exists():
        pytest.skip(f"{path} is absent; MLP_DATA can name the folder")
    return path
