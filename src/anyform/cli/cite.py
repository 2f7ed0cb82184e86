"""`anyform cite FILE`: papers, licences, credits, and "may I sell this?"."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from anyform.cli.terminal import clean, print_out


def run(arguments: argparse.Namespace) -> int:
    """The verb. Raises BadInput for a file without provenance of ours; returns 0 whatever the answer is."""
    from anyform.cli.inputs import read_provenance
    from anyform.errors import BadInput
    from anyform.licensing import commercial_use

    path = Path(arguments.file)
    made = read_provenance(path)
    if not made.get("system"):
        raise BadInput(f"{path.name!r} carries no provenance: only GLB and 3MF files made by anyform do")
    verdict = commercial_use(made)
    if arguments.json:
        keys = ("system", "version", "seed", "quality", "weights", "sources", "citations", "digital_source_type")
        print(json.dumps({"ok": True, **verdict.to_json(), **{key: made.get(key) for key in keys}}), flush=True)
        return 0
    for line in _lines(made):
        print_out(clean(line))
    print_out(f"May I sell this? {verdict.answer}")
    for reason in verdict.reasons:
        print_out(clean(f"  {reason}"))
    for line in verdict.credits:
        print_out(clean(f"  name with it: {line}"))
    return 0


def _lines(made: dict[str, Any]) -> list[str]:
    """Who made it, and the papers to cite."""
    lines = [f"made by anyform {made.get('version')}, system {made.get('system')}, seed {made.get('seed')}"]
    citations = made.get("citations")
    return lines + [f"cite: {line}" for line in citations] if isinstance(citations, list) else lines
