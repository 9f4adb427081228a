"""From files and overrides to a Config, or to every mistake at once."""

import copy
from pathlib import Path

from pydantic import ValidationError

from mlp_cli.config import checks, messages, tree
from mlp_cli.config.leaves import show
from mlp_cli.config.merging import apply, make_paths_absolute, merge, read_overrides
from mlp_cli.config.schema import Config
from mlp_cli.config.tree import UNREADABLE, Problem, report
from mlp_cli.config.yaml_loader import Fatal, load_file
from mlp_cli.errors import ConfigError

# What stands in for a section that is missing or beyond repair, so that the others can still be checked together.
STAND_INS = {"data": {"path": "rows.csv"}, "network": {"layers": [{"units": 1}]}}

MOST_EXPLAINED = 200  # of pydantic's errors; a report shows fewer


def load(paths, overrides=(), tell=lambda paths, whole: None):
    """Reads configs, merges them left to right, applies overrides, and checks everything. Raises ConfigError.

    Once all are read, `tell` is called with their paths and with those that have data and a network of their own.
    """
    problems, whole = [], []
    root = _read_files(paths, problems, whole)
    tell(list(map(str, paths)), whole)
    for path, node in read_overrides(overrides, len(paths), problems):
        try:
            root = apply(root, path, node)
        except Fatal as fatal:
            problems.append(fatal.problem)
    if root is None:
        raise ConfigError(report(problems) or "expected a config file")
    make_paths_absolute(root)
    config = _validate(tree.to_plain(root), root, problems)
    config._name = Path(paths[-1]).stem if paths else "config"
    return config


def from_resolved(values):
    """The Config of a dict that `Config.resolved` made. Raises ConfigError, without places, if it is none."""
    if not isinstance(values, dict):
        raise ConfigError(f"expected a mapping; got {show(values)}")
    try:
        return _validate(copy.deepcopy(values), None, [])
    except RecursionError:
        raise ConfigError("the config is nested too deeply") from None


def _read_files(paths, problems, whole):
    """The merged tree; adds to `whole` the files that have data and a network.

    Raises ConfigError, with the mistakes so far, if any of the files cannot be read.
    """
    root, unreadable = None, False
    for order, path in enumerate(paths):
        node = load_file(path, order, problems)
        if node is None:
            unreadable = True
            continue
        if node.value is None:
            node.value = {}
        if not node.is_mapping:
            problems.append(
                Problem((), f"expected keys and values, as in `seed: 7`; got {show(node.value)}", node.mark)
            )
            unreadable = True
            continue
        if {"data", "network"} <= node.value.keys():
            whole.append(str(path))
        root = node if root is None else merge(root, node)
    if unreadable:
        raise ConfigError(report(problems))
    return root


def _validate(plain, root, problems):
    """The Config of plain values; raises ConfigError with all that is wrong, `problems` included."""
    found, config, uncounted = [], None, 0
    try:
        config = Config.model_validate(plain)
        found += checks.problems(config)
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False)[:MOST_EXPLAINED]
        uncounted = invalid.error_count() - len(errors)
        found = [messages.problem_of(error, plain) for error in errors]
        wrong = [problem.path for problem in found]
        repaired = _repaired(plain, errors, wrong)
        if repaired is not None:
            found += [problem for problem in checks.problems(repaired) if not _rests_on(problem, wrong)]
    problems = problems + [placed for problem in found if (placed := _placed(problem, root))]
    if problems:
        raise ConfigError(report(problems, uncounted))
    config._written = root
    return config


def _repaired(plain, errors, wrong):
    """A Config without the wrong values, so that what is left can be checked together; None if nothing helps.

    Adds to `wrong` what else the repair has touched.
    """
    plain, removed = copy.deepcopy(plain), []
    for error, path in zip(errors, list(wrong), strict=True):
        if error["type"] == "extra_forbidden" and (meant := messages.meant_key(path)):
            wrong.append(meant)
        if not any(path[: len(gone)] == gone for gone in removed):
            removed.append(_remove(plain, messages.keys_of(error)))
    wrong += removed
    try:
        return Config.model_validate(plain)
    except ValidationError as invalid:
        for section in dict.fromkeys(error["loc"][0] for error in invalid.errors(include_url=False)):
            wrong.append((section,))
            plain.pop(section, None)
            if section in STAND_INS:
                plain[section] = copy.deepcopy(STAND_INS[section])
    try:
        return Config.model_validate(plain)
    except ValidationError:
        return None


def _remove(plain, path):
    """Takes away the value at `path`, or what holds it where it is missing or part of a list; returns what it took."""
    parents, value = [], plain
    for depth, part in enumerate(path):
        if isinstance(value, dict) and part in value:
            parents.append((value, path[: depth + 1]))
            value = value[part]
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            break
    if not parents:
        return path
    mapping, taken = parents[-1]
    mapping.pop(taken[-1], None)
    return taken


def _rests_on(problem, wrong):
    """Whether a complaint is about keys that are wrong themselves."""
    keys = (problem.path, *problem.involves)
    return any(key[: len(path)] == path[: len(key)] for key in keys for path in wrong)


def _placed(problem, root):
    """The problem with its mark; None if it is about something that could not be read in the first place."""
    if root is None:
        return problem
    node, depth = tree.deepest(root, problem.path)
    is_unreadable = _has_unreadable(node) if depth == len(problem.path) else node.value is UNREADABLE
    if is_unreadable and not problem.of_key:
        return None
    problem.mark, problem.path = tree.locate(root, problem.path)
    if problem.of_key:
        problem.mark = node.key_mark or problem.mark
    return problem


def _has_unreadable(node):
    if node.is_mapping:
        return any(_has_unreadable(child) for child in node.value.values())
    if node.is_list:
        return any(_has_unreadable(child) for child in node.value)
    return node.value is UNREADABLE
