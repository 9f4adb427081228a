"""The versions of the libraries: those that the tests passed with, and the oldest that pyproject.toml admits.

python scripts/versions.py tested > constraints.txt    # all that is installed here, in the form of pip's constraints
python scripts/versions.py oldest                      # the lower bounds of pyproject.toml, in the same form
python scripts/versions.py unlisted                    # what is installed here and not in constraints.txt; exit 1
"""

import re
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).parent.parent
# What every environment has, ours and the installer.
NOT_LISTED = {"mlp-cli", "pip", "setuptools", "wheel"}
HEADER = """\
# Versions that the tests passed with, for `pip install -c constraints.txt .`: a release of a library then breaks
# nobody's first minute. Made by `python scripts/versions.py tested`; docs/dependencies.md says when and how.
"""


def normal(name: str) -> str:
    """The name of a package as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed() -> dict[str, str]:
    """Version by package, of all that this environment holds but what every one does."""
    found = {normal(each.metadata["Name"]): each.version for each in distributions()}
    return {name: version for name, version in sorted(found.items()) if name not in NOT_LISTED}


def oldest() -> dict[str, str]:
    """The lower bound of each requirement of pyproject.toml, for use and for the tests."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    pattern = re.compile(r"([\w.-]+)>=([\w.]+)")
    return {match[1]: match[2] for match in map(pattern.match, requirements) if match}


def listed() -> dict[str, str]:
    """Version by package, as constraints.txt has them."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def as_constraints(versions: dict[str, str]) -> str:
    """A line a package."""
    return "".join(f"{name}=={version}\n" for name, version in versions.items())


def main() -> None:
    """What the argument asks for, on stdout."""
    match sys.argv[1:]:
        case ["tested"]:
            sys.stdout.write(HEADER + as_constraints(installed()))
        case ["oldest"]:
            sys.stdout.write(as_constraints(oldest()))
        case ["unlisted"]:
            known = listed()
            unlisted = {name: version for name, version in installed().items() if known.get(name) != version}
            sys.stdout.write(as_constraints(unlisted))
            sys.exit(bool(unlisted))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
