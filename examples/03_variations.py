"""Load once, make several: python examples/03_variations.py [FOLDER]"""

from __future__ import annotations

import sys
from pathlib import Path

import anyform
from anyform.types.progress import silent

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "variations")
folder.mkdir(exist_ok=True)
wala = anyform.load("wala")
for seed in range(3):
    asset = wala.generate(anyform.Text("a round table"), seed=seed, report=silent)
    started_from = ", ".join(source.title for source in asset.provenance.sources) or "noise"
    print(asset.save(folder / f"table-{seed}.glb"), "started from", started_from)
