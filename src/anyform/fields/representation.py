"""What every 3D representation can do. Final classes fulfil it; conversions between them are named functions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from anyform.geometry.mesh import Mesh
from anyform.types.camera import Cameras
from anyform.types.render import Render


@runtime_checkable
class Representation(Protocol):
    """A differentiable picture of an object in [-1, 1]³, +y up.

    `train()` and `eval()` of nn.Module say whether sampling is jittered (from torch's global generator, so a seeded
    generator gives the same render) or fixed.
    """

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """What an optimiser may change."""
        ...

    def render(self, cameras: Cameras, background: Tensor, *, color: bool = True, normal: bool = False) -> Render:
        """Pictures of all cameras, differentiable in the parameters.

        background: sRGB in [0, 1], (3,), (V, 3) or (V, H, W, 3). Without `color`, rgb is the background with black over
        it (alpha alone carries the shape) and nothing is spent on colours; normals are made only where asked for.
        """
        ...

    def to_mesh(self, resolution: int) -> Mesh:
        """The surface as triangles with vertex colours where there are colours; GateFailed where it is empty."""
        ...
