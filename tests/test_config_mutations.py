"""A thousand bad configs: each becomes a Config or a ConfigError, and never anything else."""

import copy
import random
from pathlib import Path

from mlp_cli.config import dump, load
from mlp_cli.config.writer import dump as write
from mlp_cli.errors import ConfigError

CONFIGS = sorted((Path(__file__).parent.parent / "configs").rglob("*.yaml"))

VALUES = (
    None, True, 0, -1, 1, 3, 10**30, 0.5, -0.0, 1e308, float("inf"), float("nan"), "", "x", "relu", "softmax", "adam",
    "5", "no", "\t", "é\x1b", "a" * 5000, [], {}, [[]], [None], {"": None}, {"name": None}, {"name": "adam"},
    {"schedule": []}, {"kind": "residual"}, {"kind": "residual", "layers": [[]]}, [1, [2]], {"x": "a"}, {"name": {}},
)  # fmt: skip
KEYS = (
    "", "name", "kind", "schedule", "x", "path", "layers", "units", "<a=b>", "loss", "momentum", "0", "a b", "é",
)  # fmt: skip
LINES = (
    "  bad indent", "\t", "- a", "? [a]", "a: &a b", "*a", "<<: *a", "!!int 3", "a: 010", "}", "]", "'", '"', "%", "@",
    "---", "{a: [", "seed: 1", "data:", "\ufeff", "a: |", ": :",
)  # fmt: skip
JARGON = ("pydantic", "Input should", "<name=", "<kind=", "<schedule=", "object at", "dict[")


def containers(value):
    """Every mapping and list within a value."""
    if isinstance(value, dict | list):
        yield value
        for child in value.values() if isinstance(value, dict) else value:
            yield from containers(child)


def misspelt(word, rng):
    """The word with a letter lost, doubled or exchanged."""
    place = rng.randrange(len(word) + 1)
    return word[:place] + rng.choice(["", word[place : place + 1] * 2, "q"]) + word[place + 1 :]


def mutated(config, rng):
    """The config with something deleted, misspelt, replaced, moved or added."""
    target = rng.choice(list(containers(config)))
    if isinstance(target, list):
        place = rng.randrange(len(target) + 1)
        target[place : place + rng.randrange(2)] = rng.choice([[], [copy.deepcopy(rng.choice(VALUES))], target[:1]])
    elif not target or rng.random() < 0.2:
        target[rng.choice(KEYS)] = copy.deepcopy(rng.choice(VALUES))
    else:
        key = rng.choice(list(target))
        value = target.pop(key)
        change = rng.randrange(4)
        if change == 0:
            target[misspelt(key, rng)] = value
        elif change == 1:
            target[key] = copy.deepcopy(rng.choice(VALUES))
        elif change == 2:
            target[key] = misspelt(value, rng) if isinstance(value, str) else [value]
    return config


def mutated_text(text, rng):
    """The text with a line or a few letters deleted, repeated or added."""
    lines = text.splitlines()
    place = rng.randrange(len(lines))
    lines[place : place + rng.randrange(2)] = rng.choice([[], [rng.choice(LINES)], [lines[place]] * 2])
    text = "\n".join(lines)
    place = rng.randrange(len(text))
    return text[:place] + rng.choice(["", "\n", " ", "{", "]", ":", "&a ", "*a", "\x00", "\ud7ff"]) + text[place + 1 :]


def test_a_thousand_bad_configs(tmp_path):
    sound = [load([path]).resolved() for path in CONFIGS]
    path, sound_after_all = tmp_path / "c.yaml", 0
    for number in range(1000):
        rng = random.Random(number)  # one of its own: a misspelt path, long or short, shifts no later draw
        config = copy.deepcopy(rng.choice(sound))
        for _ in range(rng.randint(1, 4)):
            mutated(config, rng)
        text = write(config)
        if number % 3 == 0:
            text = mutated_text(text, rng)
        path.write_text(text, encoding="utf-8")
        overrides = [f"{rng.choice(KEYS)}.{rng.choice(KEYS)}={rng.choice(LINES)}"] if number % 10 == 0 else []
        try:
            config = load([path], overrides)
        except ConfigError as error:
            check_report(str(error), str(path))
        else:
            sound_after_all += 1
            path.write_text(dump(config))
            assert load([path]) == config
    assert 10 < sound_after_all < 800  # both ways out of load are met, however long the paths are


def check_report(text, path):
    """One sentence a line, with its place, in words for a person."""
    lines = text.splitlines()
    assert lines
    assert len(lines) == len(set(lines))
    for line in lines:
        assert line.startswith((path, "override ", "and ")), line
        assert line.isprintable()
        assert not any(jargon in line for jargon in JARGON), line
