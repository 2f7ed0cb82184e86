"""A sentence becomes a GLB file: python examples/01_sentence_to_glb.py [FILE]"""

from __future__ import annotations

import sys

import anyform

file = sys.argv[1] if len(sys.argv) > 1 else "chair.glb"
asset = anyform.generate(anyform.Text("a wooden chair"), seed=0, quality="draft")
print(asset.save(file), len(asset.mesh.faces), "faces")
