"""What README.md says of files and commands is so."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_folder_tree_is_current():
    done = subprocess.run([sys.executable, ROOT / "scripts/readme_tree.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_links_lead_to_files():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_command_is_shown():
    from mlp_cli.cli.main import COMMANDS

    assert [name for name in COMMANDS if f"mlp {name} " not in README] == []


def test_the_exit_codes_are_those_of_the_errors():
    from mlp_cli import errors

    codes = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type)}
    section = README.split("## Exit codes")[1].split("##")[0]
    assert codes <= {int(code) for code in re.findall(r"\b(\d+) [a-zA-Z`]", section)}
