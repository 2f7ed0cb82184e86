"""The child process of `uv.unwrap`: reads a mesh from standard input, writes xatlas' charts to standard output.

`python -m anyform.geometry.uv_xatlas TEXTURE_SIZE MAX_ITERATIONS`. Input: an NPZ with vertices (V, 3) float32 and faces
(F, 3) int32; output: an NPZ with origin (V',), faces (F, 3) and uv (V', 2) float32, v up.
"""

from __future__ import annotations

import io
import sys

import numpy as np


def main() -> None:
    """Unwrap the mesh on standard input with the size and effort named in argv."""
    import xatlas

    size, iterations = (int(argument) for argument in sys.argv[1:3])
    with np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False) as mesh:
        vertices, faces = mesh["vertices"], mesh["faces"].astype(np.uint32)
    charts, packing = xatlas.ChartOptions(), xatlas.PackOptions()
    charts.max_iterations = iterations
    packing.resolution, packing.padding, packing.bilinear = size, 2, True
    atlas = xatlas.Atlas()
    atlas.add_mesh(vertices, faces)
    atlas.generate(charts, packing)
    origin, indices, uv = atlas[0]
    answer = io.BytesIO()
    np.savez(answer, origin=origin.astype(np.int64), faces=indices.astype(np.int32), uv=uv.astype(np.float32))
    sys.stdout.buffer.write(answer.getvalue())


if __name__ == "__main__":
    main()
