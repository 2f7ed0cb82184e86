"""`anyform imagine` as a user drives it, on a tiny prior."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pictures

from anyform.priors import reference_view
from anyform.priors.imagine import Candidates
from anyform.types.prompt import Text

Command = Callable[..., int]
Record = Callable[[], dict[str, Any]]


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, dict[str, Any]]]:
    """In place of the trained prior: candidate k is a picture of the grey 10 (k + 1)."""
    calls: list[tuple[Any, dict[str, Any]]] = []

    def imagined(prompt: Any, *, seed: int, report: Any, **settings: Any) -> Candidates:
        calls.append((prompt, {"seed": seed, **settings}))
        count = settings["candidates"]
        pictures = np.stack([np.full((8, 8, 3), 10 * (k + 1), np.uint8) for k in range(count)])
        return Candidates(pictures, tuple(range(seed, seed + count)), np.linspace(0.9, 0.1, count), np.ones(count))

    monkeypatch.setattr(reference_view, "imagined", imagined)
    return calls


def colour(path: str) -> int:
    with Pictures.open(path) as picture:
        return int(np.asarray(picture)[0, 0, 0])


def test_the_best_is_saved_and_all_are_listed(anyform: Command, record: Record, asked: list[Any]) -> None:
    assert anyform("imagine", "a red chair", "-o", "chair.png", "--seed", 7, "--sheet", "all.png", "--json") == 0
    made = record()
    assert colour("chair.png") == 10 and made["picked"] == 1 and made["seed"] == 7
    assert [row["seed"] for row in made["candidates"]] == [7, 8, 9, 10]
    assert made["candidates"][0]["score"] == pytest.approx(0.95)
    with Pictures.open("all.png") as sheet:
        assert sheet.size == (4 * 8 + 3 * 2, 8)
    prompt, settings = asked[0]
    assert prompt == Text("a red chair") and settings["candidates"] == 4 and settings["memory"] is None


def test_any_candidate_can_be_picked(anyform: Command) -> None:
    assert anyform("imagine", "a mug", "-o", "m.png", "--candidates", 3, "--pick", 3, "--seed", 1) == 0
    assert colour("m.png") == 30


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (("a mug", "-o", "m.jpg"), "written as PNG"),
        (("a mug", "-o", "m.png", "--pick", 5), "none of the 4 candidates"),
        (("a mug", "-o", "m.png", "--seed", "x"), "the seed must be a whole number"),
        (("-o", "m.png"), "there is no prompt"),
    ],
)
def test_what_cannot_work_is_said_before_any_work(
    anyform: Command, capsys: Any, asked: list[Any], wrong: tuple[Any, ...], sentence: str
) -> None:
    assert anyform("imagine", *wrong) == 2
    assert sentence in capsys.readouterr().err and asked == [] and not list(Path().iterdir())


def test_nothing_is_overwritten_without_force(anyform: Command, asked: list[Any]) -> None:
    Path("m.png").write_bytes(b"mine")
    assert anyform("imagine", "a mug", "-o", "m.png") == 2
    assert Path("m.png").read_bytes() == b"mine" and asked == []
    assert anyform("imagine", "a mug", "-o", "m.png", "--force") == 0
    assert colour("m.png") == 10
