"""Writes the folder tree of README.md from the first sentence of every module: `python scripts/readme_tree.py`.

With --check it only says whether the tree is current (exit 1 if not).
"""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- tree -->\n```text\n", "```\n<!-- end of tree -->"
OTHERS = {
    "benchmarks/": "programs that measure, each printing both sides of a comparison; LOG.md tells what was tried",
    "configs/": "configs to run and to learn from: lectures/ and published/ results",
    "data/": "small data sets, with origin and licence in docs/data.md",
    "docs/": "config.md (generated), runs.md (files, metrics), trust.md, hostile.md, batch.md, data.md, speed.json",
    "scripts/": "make_data.py, readme_tree.py",
    "tests/": "reference/ is the slow NumPy twin; test files are named after what they test",
}


def first_sentence(path: Path) -> str:
    """The first sentence of a module's docstring, without its full stop."""
    text = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split())
    return text.split(". ")[0].rstrip(".")


def tree() -> str:
    """One line a file, folders before their files."""
    lines = []
    modules = sorted((ROOT / "mlp_cli").rglob("*.py"), key=lambda p: (len(p.parts), str(p.parent), p.name))
    folder = None
    for path in modules:
        inside = path.relative_to(ROOT)
        if inside.parent != folder:
            folder = inside.parent
            about = first_sentence(path.parent / "__init__.py")
            lines.append(f"{folder}/".ljust(30) + about)
        if path.name != "__init__.py":
            lines.append(f"  {path.name}".ljust(30) + first_sentence(path))
    lines += [name.ljust(30) + about for name, about in OTHERS.items() if (ROOT / name).exists()]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the tree, or compare it."""
    readme = ROOT / "README.md"
    text = readme.read_text()
    start, stop = text.index(BEGIN) + len(BEGIN), text.index(END)
    if "--check" in sys.argv:
        if text[start:stop] == tree():
            return 0
        print("README.md: the folder tree is out of date; run python scripts/readme_tree.py")
        return 1
    readme.write_text(text[:start] + tree() + text[stop:])
    return 0


if __name__ == "__main__":
    sys.exit(main())
