"""One closed body, 80 mm, for a 3D printer: python examples/04_print.py [FILE]"""

from __future__ import annotations

import dataclasses
import sys

import anyform
from anyform.geometry.printing import prepare_for_print

file = sys.argv[1] if len(sys.argv) > 1 else "mug.3mf"
asset = anyform.generate(anyform.Text("a red mug"), seed=0, quality="draft")
mesh, report = prepare_for_print(asset.mesh, 80.0)
print(dataclasses.replace(asset, mesh=mesh, metres=0.08).save(file), report.to_json())
