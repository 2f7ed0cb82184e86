"""Points from anywhere, as an array, become a closed surface: python examples/02_points_from_numpy.py [FILE]"""

from __future__ import annotations

import sys

import numpy as np

import anyform

file = sys.argv[1] if len(sys.argv) > 1 else "bowl.glb"
rng = np.random.default_rng(0)
angle, height = rng.uniform(0, 2 * np.pi, 4000), rng.uniform(0, 0.6, 4000)
radius = 0.3 + 0.6 * np.sqrt(height)  # a bowl, +y up
points = np.stack([radius * np.sin(angle), height, radius * np.cos(angle)], -1)
asset = anyform.generate(anyform.Points(points), seed=0, quality="draft")
print(asset.save(file), "from", len(points), "points")
