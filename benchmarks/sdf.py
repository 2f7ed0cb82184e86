"""Mesh to SDF against the coarse grid + libigl band it replaced: speed, error in the band, Chamfer of the surfaces.

    python benchmarks/sdf.py [--corpus ../shared/data/corpus] [--objects 24] [--size 64] [--rounds 3] [--json]

Both sides run in this process on one thread, every object in turn, rounds interleaved; a side's time for an object is
its best round. The band: unsigned distance by libigl on a 32³ grid, exact again by libigl within 0.06 of the cube's
edge plus half a coarse diagonal, trilinear elsewhere. Bars: at least 4 times faster, error in the 3-cell band under
1e-4 cell, Chamfer no worse. "whole" adds the sign, which both sides share.
"""

from __future__ import annotations

import os

# Read once, when the libraries are loaded below.
os.environ.update(OMP_NUM_THREADS="1", IGL_NUM_THREADS="1", NUMBA_NUM_THREADS="1")

import argparse
import datetime
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import igl
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from anyform.data.corpus import Catalogue, Collection, Shape, open_collection
from anyform.data.views import surface_points
from anyform.geometry import sdf
from anyform.geometry.marching_cubes import surface

COARSE, BAND_EDGE = 32, 0.06
FIXTURES = Path(__file__).parents[1] / "fixtures" / "meshes"
SAMPLES = 20_000


def igl_band(vertices: NDArray[np.float64], faces: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    """The baseline: (N, N, N) unsigned distance in world units (the cube's edge is 2)."""

    def exact(index: NDArray[np.int64], cells: int) -> NDArray[np.float64]:
        points = np.ascontiguousarray(-1 + (2 * index + 1) / cells)
        return np.sqrt(igl.point_mesh_squared_distance(points, vertices, faces)[0])

    shape = (COARSE,) * 3
    coarse = exact(np.stack(np.unravel_index(np.arange(COARSE**3), shape), -1), COARSE).reshape(shape)
    factor = size // COARSE
    line = (np.arange(size) + 0.5) / factor - 0.5
    fine = ndimage.map_coordinates(coarse, np.meshgrid(line, line, line, indexing="ij"), order=1, mode="nearest")
    near = coarse < 2 * (BAND_EDGE + np.sqrt(3) / 2 / COARSE)
    chosen = np.argwhere(np.kron(near, np.ones((factor,) * 3, bool)))
    fine[tuple(chosen.T)] = exact(chosen, size)
    return fine


def signed(shape: Shape, exact: NDArray[np.float64]) -> NDArray[np.float32]:
    """The sign of the product on any distance."""
    distance = exact.astype(np.float32)
    return sdf._with_thin_sheets(distance, sdf._inside(shape.vertices, shape.faces, distance))


def best(rounds: int, sides: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of every side: the best of `rounds`, sides taking turns."""
    seconds = dict.fromkeys(sides, np.inf)
    for _ in range(rounds):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


def chamfer(shape: Shape, grid: NDArray[np.float32]) -> float:
    """Mean of both directions between the mesh and the grid's surface, in 1/1000 of the cube's edge."""
    size = len(grid)
    mesh = surface(grid, -1 + 1 / size, 2 / size)
    made = Shape(mesh.vertices.astype(float), mesh.faces.astype(np.int64), np.zeros((len(mesh.faces), 3), np.uint8))
    a, b = (surface_points(s, SAMPLES, np.random.default_rng(0))[0] for s in (shape, made))
    there, back = cKDTree(b).query(a)[0].mean(), cKDTree(a).query(b)[0].mean()
    return float(there + back) / 2 / 2 * 1000


def is_open(shape: Shape) -> bool:
    """Whether some edge has other than two faces."""
    edges = np.sort(shape.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), 1)
    return bool((np.unique(edges, axis=0, return_counts=True)[1] != 2).any())


def pick(collection: Collection, count: int) -> list[Shape]:
    """The first `count` open objects of a seeded shuffle, normalised."""
    shapes: list[Shape] = []
    for index in np.random.default_rng(0).permutation(len(collection.items)):
        shape = collection.read(collection.items[index])
        if len(shapes) < count and is_open(shape):
            vertices, _, _ = sdf.normalise(shape.vertices, shape.faces)
            shapes.append(Shape(vertices, np.ascontiguousarray(shape.faces), shape.face_rgb))
        if len(shapes) == count:
            break
    return shapes


def measure(shapes: list[Shape], size: int, rounds: int) -> dict[str, float]:
    """Sums over objects as ratios baseline / ours, and the worst error and mean Chamfers."""
    total = dict.fromkeys(("igl", "ours", "igl whole", "ours whole"), 0.0)
    worst, chamfers = 0.0, []
    for shape in shapes:
        mesh = shape.vertices, shape.faces, size
        sides: dict[str, Callable[[], object]] = {
            "igl": lambda mesh=mesh: igl_band(*mesh),
            "ours": lambda mesh=mesh: sdf.unsigned_distance(*mesh),
            "igl whole": lambda mesh=mesh, shape=shape: signed(shape, igl_band(*mesh)),
            "ours whole": lambda mesh=mesh: sdf.mesh_to_sdf(*mesh),
        }
        for name, seconds in best(rounds, sides).items():
            total[name] += seconds
        theirs, ours = igl_band(*mesh), sdf.unsigned_distance(*mesh)
        # The coarse band is wider than three cells, so the baseline is exact where the error is read.
        near = theirs < 3 * 2 / size
        worst = max(worst, float(np.abs(ours - theirs)[near].max()) * size / 2)
        chamfers.append((chamfer(shape, sdf.mesh_to_sdf(*mesh)), chamfer(shape, signed(shape, theirs))))
    ours_chamfer, igl_chamfer = np.mean(chamfers, 0).tolist()
    return {
        "objects": len(shapes),
        "size": size,
        "distance_ratio": total["igl"] / total["ours"],
        "whole_ratio": total["igl whole"] / total["ours whole"],
        "seconds_an_object": total["ours whole"] / len(shapes),
        "band_error_cells": worst,
        "chamfer_ours": ours_chamfer,
        "chamfer_igl": igl_chamfer,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Mesh to SDF against the coarse grid + libigl band.")
    parser.add_argument("--corpus", type=Path, default=Path("../shared/data/corpus"))
    parser.add_argument("--objects", type=int, default=24)
    parser.add_argument("--size", type=int, default=64, choices=(32, 64, 128, 256))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON line instead of the table")
    arguments = parser.parse_args()
    collection = open_collection(arguments.corpus if arguments.corpus.is_dir() else FIXTURES)
    shapes = pick(collection, arguments.objects)
    sdf.mesh_to_sdf(shapes[0].vertices, shapes[0].faces, arguments.size)  # compiled before the clock starts
    result = measure(shapes, arguments.size, arguments.rounds)
    where = {
        "objects_from": "corpus" if isinstance(collection, Catalogue) else "fixtures",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    if arguments.json:
        print(json.dumps({**where, **result}))
        return
    print(
        f"mesh to SDF {result['size']}³, {result['objects']} open meshes ({where['objects_from']}), 1 thread,"
        f" {where['machine']}, {where['date']}"
    )
    print(f"  distance: {result['distance_ratio']:.2f}x the coarse grid + libigl band (bar: 4x)")
    print(f"  whole, with the sign both share: {result['whole_ratio']:.2f}x, {result['seconds_an_object']:.3f} s each")
    print(f"  largest difference to libigl within 3 cells: {result['band_error_cells']:.1e} cell (bar: 1e-4)")
    print(f"  Chamfer, 1/1000 of the edge: {result['chamfer_ours']:.3f} against {result['chamfer_igl']:.3f}")


if __name__ == "__main__":
    main()
