"""May an asset be sold? That follows from its provenance: the weights that made it and the works it began from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Licences of source works, as their catalogues write them. NC is looked for first: "CC-BY-NC" also says BY.
_FORBIDS = re.compile(r"\bNC\b|non.?commercial|\bND\b|no.?deriv|all rights reserved|research only", re.IGNORECASE)
_FREE = re.compile(r"\bCC0\b|CC.?ZERO|public.?domain|\bPDM\b|unlicense", re.IGNORECASE)
_CREDIT = re.compile(r"\bCC.?BY\b|\bMIT\b|apache|\bBSD\b|\bISC\b|\bzlib\b|\bOFL\b", re.IGNORECASE)
_SHARE_ALIKE = re.compile(r"\bBY.?SA\b|\bGPL\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Verdict:
    """answer: "yes", "no" or "unknown". reasons: one sentence each. credits: lines that must accompany the asset."""

    answer: str
    reasons: tuple[str, ...]
    credits: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {"commercial_use": self.answer, "reasons": list(self.reasons), "credits": list(self.credits)}


def allows_sale(licence: str) -> str:
    """ "yes", "no" or "unknown" for the licence of a source work."""
    if _FORBIDS.search(licence):
        return "no"
    return "yes" if _FREE.search(licence) or _CREDIT.search(licence) or _SHARE_ALIKE.search(licence) else "unknown"


def commercial_use(provenance: Mapping[str, Any]) -> Verdict:
    """Judge `asset.extras.anyform` (or `Provenance.to_json()`).

    "yes" only where every set of weights says yes and every source's licence allows it; one "no" decides; anything
    unstated is "unknown".
    """
    weights, sources = _rows(provenance, "weights"), _rows(provenance, "sources")
    answers, reasons, owed = [], [], []
    for row in weights:
        answer = row.get("commercial_use")
        answer = answer if answer in {"yes", "no"} else "unknown"
        answers.append(answer)
        reasons.append(f"weights {row.get('id', '?')}: {answer} ({row.get('licence') or 'licence not stated'})")
    for row in sources:
        licence = str(row.get("licence") or "")
        answers.append(allows_sale(licence))
        work = f"{row.get('title') or 'untitled'} by {row.get('author') or 'unknown'}"
        reasons.append(f"it started from {work}: {answers[-1]} ({licence or 'licence not stated'})")
        if not _FREE.search(licence):
            owed.append(f"{work} ({licence or 'licence not stated'})")
        if _SHARE_ALIKE.search(licence):
            reasons.append(f"{licence} asks that what is made from it carries the same licence")
    if not weights:
        answers.append("unknown")
        reasons.append("no weights are recorded")
    order = ("no", "unknown", "yes")
    return Verdict(min(answers, key=order.index), tuple(reasons), tuple(owed))


def _rows(provenance: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    rows = provenance.get(key, ())
    return [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, Sequence) else []
