"""May I sell this? Yes only where every weight and every source says yes."""

from __future__ import annotations

from typing import Any

import pytest

from anyform.licensing import allows_sale, commercial_use
from anyform.weights import RELEASED

FREE = {"id": "wala", "licence": "Apache-2.0", "commercial_use": "yes"}
CLOSED = {"id": "WaLa-SV-1B", "licence": "Autodesk Non-Commercial", "commercial_use": "no"}
UNSTATED = {"id": "mine"}


def source(licence: str) -> dict[str, str]:
    return {"title": "Chair", "author": "A. Author", "licence": licence}


@pytest.mark.parametrize(
    "licence, answer",
    [
        ("CC0", "yes"),
        ("CC0-1.0", "yes"),
        ("Public Domain", "yes"),
        ("CC-BY-4.0", "yes"),
        ("CC BY-SA 3.0", "yes"),
        ("MIT", "yes"),
        ("CC-BY-NC-4.0", "no"),
        ("CC BY-ND 4.0", "no"),
        ("CC BY-NC-SA 4.0", "no"),
        ("Autodesk Non-Commercial (3D Generative) v1.0", "no"),
        ("All rights reserved", "no"),
        ("", "unknown"),
        ("ask the author", "unknown"),
        ("GRAND", "unknown"),
    ],
)
def test_licences_of_sources(licence: str, answer: str) -> None:
    assert allows_sale(licence) == answer


@pytest.mark.parametrize(
    "weights, sources, answer",
    [
        ([FREE], [], "yes"),
        ([FREE, FREE], [source("CC0")], "yes"),
        ([FREE], [source("CC-BY-4.0")], "yes"),
        ([FREE], [source("CC-BY-NC")], "no"),
        ([FREE], [source("")], "unknown"),
        ([FREE, CLOSED], [source("")], "no"),
        ([UNSTATED, FREE], [], "unknown"),
        ([{"id": "x", "commercial_use": "sure"}], [], "unknown"),
        ([], [], "unknown"),
    ],
)
def test_verdicts(weights: list[Any], sources: list[Any], answer: str) -> None:
    verdict = commercial_use({"weights": weights, "sources": sources})
    assert verdict.answer == answer and verdict.reasons
    assert len(verdict.reasons) >= len(weights) + len(sources)


def test_credits_are_owed_for_all_but_free_works() -> None:
    verdict = commercial_use(
        {"weights": [FREE], "sources": [source("CC0"), source("CC-BY-4.0"), source("CC BY-SA 4.0")]}
    )
    assert verdict.credits == ("Chair by A. Author (CC-BY-4.0)", "Chair by A. Author (CC BY-SA 4.0)")
    assert any("same licence" in reason for reason in verdict.reasons)


@pytest.mark.parametrize("damaged", [{}, {"weights": 3, "sources": "x"}, {"weights": [1, None], "sources": [[]]}])
def test_damaged_provenance_is_unknown(damaged: dict[str, Any]) -> None:
    assert commercial_use(damaged).answer == "unknown"


def test_released_wala_covers_what_is_made_with_it() -> None:
    row = RELEASED["ADSKAILab/WaLa-MVDream-DM6"]
    weights = [{"id": one.id, "licence": one.licence, "commercial_use": one.commercial_use}
               for one in (RELEASED[row.needs[0]], row)]  # fmt: skip
    verdict = commercial_use(
        {"weights": [*weights, {"id": "anyform/paint", "licence": "CC0", "commercial_use": "yes"}]}
    )
    assert verdict.answer == "no" and len(verdict.reasons) == 3
    assert all("covers outputs" in reason for reason in verdict.reasons[:2])
