"""What cameras see of a representation. `Array` is the array type of whoever rendered it: torch tensors with gradients.

Pictures are (V, H, W, ·) with row 0 at the top, colours sRGB in [0, 1], normals in world axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Array = TypeVar("Array")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Samples(Generic[Array]):
    """Quadrature along the rays of a render, packed: ray r owns the samples start[r] .. start[r + 1] − 1.

    Rays run over views, rows, columns, the last fastest: R = V · H · W. start (R + 1,) int64. t (S,): distance from the
    ray's origin in world units, ascending along a ray. ray_weights (S,): what each sample adds to its pixel, in [0, 1];
    their sum over a ray is its alpha.
    """

    start: Array
    t: Array
    ray_weights: Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Render(Generic[Array]):
    """V pictures.

    rgb (V, H, W, 3): over the background asked for. alpha (V, H, W, 1): soft coverage in [0, 1]. normal (V, H, W, 3):
    unit outward normal times alpha, 0 where nothing is seen. depth (V, H, W, 1): Σ ray_weights · t, so depth / alpha is
    the mean distance along the ray. A part that was not asked for or that the representation has not is None.
    """

    rgb: Array
    alpha: Array
    normal: Array | None = None
    depth: Array | None = None
    samples: Samples[Array] | None = None


def normal_picture(render: Render[Any]) -> Any:
    """(V, H, W, 3) in [0, 1]: (n + 1) / 2 of the unit normal over black, as priors are shown geometry.

    Raises ValueError for a render without normals.
    """
    if render.normal is None:
        raise ValueError("this render was made without normals: ask render(..., normal=True)")
    return (render.normal + render.alpha) / 2
