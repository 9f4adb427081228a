"""What is declared is what is imported, and the tested versions lie within what is declared."""

import ast
import re
import runpy
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = {each.name: each for each in map(Requirement, PROJECT["dependencies"])}
# The modules of a package that is not called as they are.
PACKAGES = {"yaml": "pyyaml", "pydantic_core": "pydantic-core"}

pytestmark = pytest.mark.smoke


def imported(path):
    """The outermost names of all that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0]


@pytest.fixture(scope="module")
def versions():
    """The functions of scripts/versions.py."""
    return runpy.run_path(str(ROOT / "scripts" / "versions.py"))


def test_what_is_imported_is_declared_and_the_other_way_round():
    names = {name for path in (ROOT / "mlp_cli").rglob("*.py") for name in imported(path)}
    foreign = {PACKAGES.get(name, name) for name in names - sys.stdlib_module_names - {"mlp_cli"}}
    assert foreign == set(REQUIREMENTS)


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_every_library_has_a_lower_and_an_upper_bound(name):
    assert {each.operator for each in REQUIREMENTS[name].specifier} == {">=", "<"}


def test_the_tested_versions_are_admitted(versions):
    listed = versions["listed"]()
    assert set(REQUIREMENTS) <= set(listed)
    extras = [Requirement(each) for group in ("test", "dev") for each in PROJECT["optional-dependencies"][group]]
    for each in [*REQUIREMENTS.values(), *extras]:
        if each.name != "mlp-cli":
            assert listed[each.name] in each.specifier, each


def test_the_oldest_versions_are_the_lower_bounds(versions):
    oldest = versions["oldest"]()
    assert set(REQUIREMENTS) <= set(oldest)
    assert {f"{name}>={version}" for name, version in oldest.items()} <= set(
        re.findall(r"[\w.-]+>=[\w.]+", (ROOT / "pyproject.toml").read_text())
    )


def test_both_commands_of_the_readme_install_the_tested_versions():
    commands = re.findall(r"^python3 -m venv .*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(commands) == 2
    assert all("pip install -c constraints.txt " in command for command in commands)
