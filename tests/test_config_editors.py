"""The JSON Schema accepts what `load` accepts, and explains it."""

import json
import re
from pathlib import Path

import pytest
import yaml

from mlp_cli.config import json_schema, load
from mlp_cli.config.places import all_models
from mlp_cli.config.yaml_loader import FLOAT
from mlp_cli.vocab import ACTIVATIONS, LAYERS, LOSSES, OPTIMIZERS, SCHEDULES

SCHEMA = json_schema()
CONFIGS = sorted((Path(__file__).parent.parent / "configs").rglob("*.yaml"))

TYPES = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: type(value) is int,
    "number": lambda value: type(value) in (int, float),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}
KEYWORDS = {
    "enum": lambda value, words: value in words,
    "const": lambda value, word: value == word,
    "minimum": lambda value, bound: value >= bound,
    "maximum": lambda value, bound: value <= bound,
    "exclusiveMinimum": lambda value, bound: value > bound,
    "exclusiveMaximum": lambda value, bound: value < bound,
    "minLength": lambda value, bound: not isinstance(value, str) or len(value) >= bound,
    "maxLength": lambda value, bound: len(value) <= bound,
    "minItems": lambda value, bound: len(value) >= bound,
    "minProperties": lambda value, bound: len(value) >= bound,
    "uniqueItems": lambda value, wanted: not wanted or len(value) == len({json.dumps(item) for item in value}),
    "pattern": lambda value, pattern: re.search(pattern, value) is not None,
    "required": lambda value, keys: all(key in value for key in keys),
    "type": lambda value, types: any(TYPES[name](value) for name in ([types] if isinstance(types, str) else types)),
}
ANNOTATIONS = {"description", "default", "title", "$schema", "$defs"}
STRUCTURE = {"$ref", "anyOf", "items", "properties", "additionalProperties"}


def fits(value, schema=SCHEMA):
    """A JSON Schema validator, for the keywords that occur."""
    assert set(schema) <= ANNOTATIONS | STRUCTURE | set(KEYWORDS)
    if "$ref" in schema:
        return fits(value, SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")])
    if "anyOf" in schema:
        return any(fits(value, choice) for choice in schema["anyOf"])
    checked = ["type", *(key for key in schema if key in KEYWORDS and key != "type")]
    if not all(KEYWORDS[key](value, schema[key]) for key in checked if key in schema):
        return False
    if isinstance(value, list):
        return all(fits(item, schema.get("items", {})) for item in value)
    if isinstance(value, dict):
        properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        return all(
            fits(item, properties[key]) if key in properties else others is True or (others and fits(item, others))
            for key, item in value.items()
        )
    return True


class Reader(yaml.SafeLoader):
    """YAML 1.2 numbers, as editors read them."""


Reader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"(?:{FLOAT.pattern})$"), list("-+0123456789."))


def plain(text):
    return yaml.load(text, Reader)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_fit(path):
    assert fits(plain(path.read_text()))
    assert fits(load([path]).resolved())


@pytest.mark.parametrize(
    ("section", "sound"),
    [
        ("optimizer: adam", True),
        ("optimizer: {beta2: 0.9}", True),
        ("optimizer: {name: sgd, momentum: 0.9, nesterov: true}", True),
        ("optimizer: {name: adam, momentum: 0.9}", False),
        ("optimizer: {momentum: 0.9}", False),
        ("optimizer: Adam", False),
        ("learning_rate: 0.1", True),
        ("learning_rate: cosine", True),
        ("learning_rate: step", False),
        ("learning_rate: {schedule: step, every: 3}", True),
        ("learning_rate: {schedule: step}", False),
        ("loss: {name: huber, delta: 0}", False),
        ("loss: {name: mse, class_weights: {a: 2}}", True),
        ("training: {max_time: 90s, batch_size: full}", True),
        ("training: {max_time: 90}", False),
        ("training: {early_stopping: {metric: rmse.price}}", True),
        ("training: {early_stopping: {metric: acc}}", False),
        ("seed: -1", False),
        ("sed: 1", False),
    ],
)
def test_words_mappings_and_numbers(section, sound):
    base = (
        "data: {train: {x: a.npy, y: b.npy}, test: c.csv}\n"
        "network: {layers: [layer_norm, {kind: residual, layers: [{units: 3}]}, {}]}\n"
    )
    assert fits(plain(base + section)) == sound


def test_every_key_is_described_and_has_its_default():
    definitions = {"Config": SCHEMA} | SCHEMA["$defs"]
    for model in all_models():
        definition = definitions[model.__name__]
        properties = definition.get("properties") or definition["anyOf"][1]["properties"]
        assert set(properties) == set(model.model_fields)
        for name, field in model.model_fields.items():
            if name not in ("name", "kind", "schedule"):
                assert field.description.endswith("."), (model, name)
                assert "description" in properties[name] or "$ref" in properties[name], (model, name)
                assert field.is_required() or "default" in properties[name], (model, name)


def test_defaults_are_written_as_one_would_write_them():
    assert SCHEMA["properties"]["optimizer"]["default"] == "adam"
    assert SCHEMA["properties"]["learning_rate"]["default"] == "constant"
    assert SCHEMA["properties"]["training"]["default"] == {}
    assert SCHEMA["$defs"]["Dense"]["properties"]["activation"]["default"] == "linear"
    assert SCHEMA["$defs"]["Data"]["properties"]["missing_values"]["default"] == ["", "NA", "NaN", "?"]


def test_an_editor_can_offer_every_word():
    text = json.dumps(SCHEMA)
    for word in (*ACTIVATIONS, *LOSSES, *OPTIMIZERS, *SCHEDULES, *LAYERS):
        assert f'"{word}"' in text
