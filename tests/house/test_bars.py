"""Two numbers that keep the code honest: how much of it occurs twice, and how much test stands behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

WINDOW = 6
MAX_DUPLICATED = 0.05
MIN_TEST_LINES = 0.5


def code_lines(text: str) -> list[str]:
    """Lines that carry code: stripped, without blanks, comments, imports and the quotes of docstrings."""
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if len(line) > 3 and not line.startswith(("#", "import ", "from ", '"""', "'''"))]


def duplicated_share(texts: Iterable[str]) -> tuple[float, list[str]]:
    """(share of code lines inside a 6-line window that occurs twice or more, the windows by how often)."""
    files = [code_lines(text) for text in texts]
    windows = [[tuple(lines[i : i + WINDOW]) for i in range(len(lines) - WINDOW + 1)] for lines in files]
    count = Counter(window for file in windows for window in file)
    covered = 0
    for lines, file in zip(files, windows, strict=True):
        marked = {i + j for i, window in enumerate(file) if count[window] > 1 for j in range(WINDOW)}
        covered += len(marked & set(range(len(lines))))
    total = sum(map(len, files))
    return covered / max(total, 1), [f"{n} × {w[0]}" for w, n in count.most_common(12) if n > 1]


def test_little_occurs_twice(package: Any) -> None:
    share, windows = duplicated_share(source.text for source in package)
    assert share <= MAX_DUPLICATED, f"{share:.1%} of the code stands twice: " + "; ".join(windows)


def test_the_measure_sees_a_copy() -> None:
    once = "\n".join(f"value_{i} = {i}" for i in range(10))
    assert duplicated_share([once])[0] == 0
    assert duplicated_share([once, once])[0] == 1
    half = "\n".join(f"other_{i} = {i}" for i in range(20))
    assert duplicated_share([once + "\n" + half, once])[0] == 20 / 40


def test_half_a_line_of_test_for_every_line_of_source(package: Any, tests: Any) -> None:
    source, test = (sum(one.text.count("\n") for one in group) for group in (package, tests))
    assert test >= MIN_TEST_LINES * source, f"{test} lines of tests for {source} lines of source"
