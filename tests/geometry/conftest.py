"""The "L": a solid whose six sides differ in place and colour, so that a swapped or mirrored axis cannot hide."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from anyform.geometry.asset import Asset, Provenance, Source, WeightsRecord
from anyform.geometry.mesh import Material, Mesh

# sRGB of the sides that face +x, −x, +y, −y, +z (the front), −z; none of them a fixed point of the sRGB curve.
SIDE_COLORS = np.array([[204, 51, 26], [26, 153, 77], [51, 77, 204], [230, 204, 51], [128, 38, 153], [89, 89, 89]])
SIDES = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])


def l_solid() -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Corners (72, 3), faces (F, 3) and the side (F,) of each face, of an L drawn in x and y and 0.5 deep in z.

    Foot: x 0..1.2, y 0..0.4. Post: x 0..0.4, y 0..1.6. One vertex per corner and side.
    """
    outline = np.array([[0, 0], [1.2, 0], [1.2, 0.4], [0.4, 0.4], [0.4, 1.6], [0, 1.6]])
    front = np.c_[outline, np.full(6, 0.5)]
    back = np.c_[outline, np.zeros(6)]
    cap = np.array([[0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, 5]])
    corners, faces, sides = [front, back], [cap, cap[:, ::-1] + 6], [np.full(4, 4), np.full(4, 5)]
    for i in range(6):
        j = (i + 1) % 6
        normal = np.array([outline[j, 1] - outline[i, 1], outline[i, 0] - outline[j, 0], 0])
        side = int(np.argmax(SIDES @ normal))
        start = 12 + 4 * i
        corners.append(np.stack([front[i], back[i], back[j], front[j]]))
        faces.append(np.array([[0, 1, 2], [0, 2, 3]]) + start)
        sides.append(np.full(2, side))
    return np.concatenate(corners), np.concatenate(faces), np.concatenate(sides)


@pytest.fixture
def provenance() -> Provenance:
    return Provenance(
        system="wala",
        version="0.1.0",
        seed=7,
        quality="draft",
        settings={"guidance_scale": 1.5, "faces": None},
        prompt={"kind": "text", "text": 'an "L" <b>&amp;</b> größer 🪑 \\ end'},
        weights=(WeightsRecord("embedded/wala", "ab" * 32, "Apache-2.0", "yes"),),
        sources=(Source("Chair & Co", "Łukasz", "CC0-1.0", "x/1", 0.4),),
        citations=("WaLa",),
    )


@pytest.fixture
def painted_l(provenance: Provenance) -> Asset:
    """The L with vertex colours, 0.25 m long, away from the origin."""
    corners, faces, sides = l_solid()
    color = np.zeros((len(corners), 3), np.float32)
    color[faces.ravel()] = (SIDE_COLORS[np.repeat(sides, 3)] / 255).astype(np.float32)
    return Asset(Mesh(corners - 0.3, faces, vertex_color=color), provenance, metres=0.25)


@pytest.fixture
def textured_l(painted_l: Asset) -> Asset:
    """The L with a texture of six flat patches, one a side, and uv in the middle of each patch."""
    corners, faces, sides = l_solid()
    texture = np.repeat(np.repeat(SIDE_COLORS.astype(np.uint8).reshape(2, 3, 3), 8, 0), 8, 1)
    texture = np.concatenate([texture, np.full((16, 24, 1), 255, np.uint8)], 2)
    side = np.zeros(len(corners), np.int64)
    side[faces.ravel()] = np.repeat(sides, 3)
    wiggle = np.random.default_rng(0).uniform(-0.05, 0.05, (len(corners), 2))
    uv = np.stack([(side % 3 + 0.5) / 3, 1 - (side // 3 + 0.5) / 2], 1) + wiggle
    mesh = replace(painted_l.mesh, vertex_color=None, uv=uv.astype(np.float32), material=Material(base_color=texture))
    return replace(painted_l, mesh=mesh)
