"""How long work tells the outside where it is: one callable, one event type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Progress:
    """One report. `stage` is shown to people; `step` of `total` (total 0 = unknown); `preview` is a picture on disk."""

    stage: str
    step: int = 0
    total: int = 0
    message: str = ""
    preview: Path | None = None


Report = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """The default report: says nothing."""
