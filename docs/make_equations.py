"""Write docs/equations.md from the `Implements:` lines of the source; `--check` only says whether it is current."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "equations.md"
LINE = re.compile(r"^\s*Implements: (.+)$", re.MULTILINE)
DIFFERS = re.compile(r"^\s*Differs: (.+?)(?=\n\s*\n|\Z)", re.MULTILINE | re.DOTALL)
# numbered equations of the papers, and named passages of the WaLa supplement or paper, which numbers none
TAG = re.compile(
    r"(?:XBind|TuneMV3D|TuneMV3D-supp) Eq\. \d+"
    r"|WaLa-supp (?:[A-F](?:\.\d)?|table \d) [a-z][\w -]*"
    r"|WaLa §[\d.]+ [a-z][\w -]*"
)
NUMBER = re.compile(r"(\d+)")
HEAD = """# Where each equation lives

Made by `make docs` from the `Implements:` lines in the docstrings; a test keeps it true. One equation, one place; every
function named here is named by a test too.

| equation | where | what | differs |
|---|---|---|---|
"""


def index() -> Iterator[tuple[str, str, str, str]]:
    """(tag, path of the file, name of the function or class, in what it departs from the paper) for every tag."""
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                text = ast.get_docstring(node) or ""
                differs = " ".join(" ".join(DIFFERS.findall(text)).split()).replace("|", "\\|")
                for tags in LINE.findall(text):
                    for tag in tags.split("; "):
                        yield tag.strip(), path.relative_to(ROOT).as_posix(), node.name, differs


def page() -> str:
    """The whole page."""
    in_order = sorted(index(), key=lambda row: [int(part) if part.isdigit() else part for part in NUMBER.split(row[0])])
    rows = (f"| {tag} | [`{path}`](../{path}) | `{name}` | {differs} |\n" for tag, path, name, differs in in_order)
    return HEAD + "".join(rows)


def main() -> int:
    """Write the page, or with `--check` return 1 where it would change."""
    if "--check" in sys.argv:
        return int(not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page())
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
