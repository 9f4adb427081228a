"""The reference page is current, and lacks no word and no key."""

from pathlib import Path

import pytest

from mlp_cli.config import formulas
from mlp_cli.config.leaves import FilePath
from mlp_cli.config.merging import make_paths_absolute
from mlp_cli.config.named import Family
from mlp_cli.config.places import all_models, leaf, models, of_field
from mlp_cli.config.reference import reference
from mlp_cli.config.schema_data import MISSING, NUMERIC
from mlp_cli.config.schema_learning import LEARNING_RATE, LOSS, OPTIMIZER
from mlp_cli.config.schema_network import ACTIVATION, INIT, LAYER
from mlp_cli.config.schema_training import SAMPLING
from mlp_cli.config.tree import Mark, Node, Source, to_plain
from mlp_cli.vocab import ACTIVATIONS, INITIALIZERS, LAYERS, LOSSES, OPTIMIZERS, SCHEDULES

pytestmark = pytest.mark.smoke

PAGE = Path(__file__).parent.parent / "docs" / "config.md"


def test_the_page_is_current():
    assert PAGE.read_text() == reference(), "run: python -m mlp_cli.config.reference > docs/config.md"


def test_every_word_has_a_model_and_a_formula():
    families = {
        ACTIVATION: (ACTIVATIONS, formulas.ACTIVATIONS),
        LOSS: (LOSSES, formulas.LOSSES),
        OPTIMIZER: (OPTIMIZERS, formulas.OPTIMIZERS),
        LEARNING_RATE: (SCHEDULES, formulas.SCHEDULES),
        INIT: (INITIALIZERS, formulas.INITIALIZERS),
        LAYER: (LAYERS, formulas.LAYERS),
        NUMERIC: (NUMERIC.words, formulas.NUMERIC),
        MISSING: (MISSING.words, formulas.MISSING),
        SAMPLING: (SAMPLING.words, formulas.SAMPLING),
    }
    for family, (words, formula) in families.items():
        assert list(family.words) == list(words)
        assert set(formula) == set(words)
        named = Family(family.models, family.key).words
        assert set(named) == set(words), "a model for each word, and no model for any other"


def test_every_key_stands_in_the_page():
    page = PAGE.read_text()
    for model in all_models():
        for name in model.model_fields:
            assert f"`{name}`" in page, (model, name)


def test_no_table_is_torn_by_a_bar():
    for line in PAGE.read_text().splitlines():
        if line.startswith("|"):
            assert line.endswith("|")
            assert line.count("|") in (4, 5), line


def test_every_path_is_made_absolute():
    """No list of the schema holds paths, so a walk through its mappings finds all of them."""
    here = Mark(Source(0, "c.yaml", "/folder"))

    def tree(model):
        content = {}
        for name, field in model.model_fields.items():
            place = of_field(field)
            if isinstance(leaf(place), FilePath):
                content[name] = Node("file", here)
            elif models(place) and name not in ("layers", "name"):
                content[name] = tree(models(place)[0])
        return Node(content, here)

    root = tree(all_models()[0])
    make_paths_absolute(root)
    plain = to_plain(root)
    pair = {"path": "/folder/file", "x": "/folder/file", "y": "/folder/file"}
    data = {key: value for key, value in plain["data"].items() if value}
    assert {key: data[key] for key in ("path", "train", "validation", "test")} == {
        "path": "/folder/file",
        "train": pair,
        "validation": pair,
        "test": pair,
    }
    assert plain["network"]["initial"] == "/folder/file"
