"""Differentiable pictures of triangles: visibility, interpolation and antialiasing behind one interface.

Three backends with the same results: "numba" (CPU, float32 and float64), "torch" (any device, the definition) and
"nvdiffrast" (CUDA, opt-in: its licence is non-commercial). "auto" takes numba on a CPU and torch elsewhere, never one
whose licence restricts the user. Conventions as in `raster`: row 0 is y = −1, no face is culled, ties fall to the lower
face id. The visibility and the list of silhouette pairs are constants of every gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from anyform.errors import BadInput, BadSetting
from anyform.render import raster_torch, silhouette
from anyform.render.raster import MIN_W

Backend = Literal["auto", "numba", "torch", "nvdiffrast"]


@dataclass(frozen=True, slots=True, eq=False)
class Visible:
    """uv (H, W, 2): weights of a face's first two corners; z (H, W), 1 = nothing; face (H, W) int64, −1 = nothing.

    native: what the backend itself wants back.
    """

    uv: Tensor
    z: Tensor
    face: Tensor
    native: Any = None


class Rasteriser(Protocol):
    """position (V, 4): clip coordinates, W = depth along the camera's axis. faces (F, 3) int64."""

    def rasterise(self, position: Tensor, faces: Tensor, height: int, width: int) -> Visible:
        """What each pixel sees; not differentiable."""
        ...

    def interpolate(self, attributes: Tensor, position: Tensor, faces: Tensor, visible: Visible) -> Tensor:
        """Attributes (V, C) at the pixels, (H, W, C), 0 where nothing is; gradients to attributes and position."""
        ...

    def antialias(self, color: Tensor, position: Tensor, faces: Tensor, visible: Visible) -> Tensor:
        """Colours (H, W, C) blended across silhouettes; gradients to color and position."""
        ...


def rasteriser(device: torch.device | str, backend: Backend = "auto") -> Rasteriser:
    """The backend for tensors on `device`; BadSetting where it cannot serve them."""
    kind = torch.device(device).type
    chosen = ("numba" if kind == "cpu" else "torch") if backend == "auto" else backend
    if (chosen == "numba" and kind != "cpu") or (chosen == "nvdiffrast" and kind != "cuda"):
        raise BadSetting(f"the {chosen} rasteriser does not work on {kind}; take backend 'torch'")
    if chosen == "numba":
        return Compiled()
    if chosen == "torch":
        return Definition()
    if chosen == "nvdiffrast":
        from anyform.render import raster_nvdiffrast

        return raster_nvdiffrast.Nvdiffrast(device)
    raise BadSetting(f"a rasteriser is auto, numba, torch or nvdiffrast, not {chosen!r}")


def check(position: Tensor, faces: Tensor) -> None:
    """BadInput unless positions are finite, faces are triangles over them and at least one lies before the camera."""
    if position.dim() != 2 or position.shape[1] != 4 or faces.dim() != 2 or faces.shape[1] != 3:
        raise BadInput(
            f"positions (V, 4) and faces (F, 3) are needed, not {tuple(position.shape)}, {tuple(faces.shape)}"
        )
    if faces.dtype != torch.int64:
        raise BadInput(f"faces must be int64, not {faces.dtype}")
    if not len(faces):
        return
    low, high = int(faces.min()), int(faces.max())
    if low < 0 or high >= len(position):
        raise BadInput(f"a face names vertex {low if low < 0 else high}, but there are only 0 to {len(position) - 1}")
    if not bool(torch.isfinite(position).all()):
        bad = int((~torch.isfinite(position)).any(1).sum())
        raise BadInput(f"{bad} of {len(position)} vertices are not finite; the step before has diverged")
    if not bool((position.detach()[:, 3][faces] > MIN_W).all(1).any()):
        raise BadInput(f"all {len(faces)} triangles reach behind the camera: move it back")


class Definition:
    """`raster_torch` and `silhouette`."""

    def rasterise(self, position: Tensor, faces: Tensor, height: int, width: int) -> Visible:
        """See `Rasteriser`."""
        check(position, faces)
        uv, z, face = raster_torch.rasterise(position, faces, height, width)
        return Visible(uv, z, face)

    def interpolate(self, attributes: Tensor, position: Tensor, faces: Tensor, visible: Visible) -> Tensor:
        """See `Rasteriser`."""
        return raster_torch.interpolate(attributes, position, faces, visible.face)

    def antialias(self, color: Tensor, position: Tensor, faces: Tensor, visible: Visible) -> Tensor:
        """See `Rasteriser`."""
        listed = silhouette.pairs(position.detach().double(), faces, visible.face, visible.z)
        return silhouette.blend(color, position, listed)


class Compiled:
    """`raster_numba` and `silhouette_numba`, in float64 whatever the tensors are. Keeps the last mesh's neighbours."""

    def __init__(self) -> None:
        self._known: tuple[Tensor, Any] | None = None

    def rasterise(self, position: Tensor, faces: Tensor, height: int, width: int) -> Visible:
        """See `Rasteriser`."""
        from anyform.render import raster_numba

        check(position, faces)
        found = raster_numba.rasterise(_exact(position), _indices(faces), height, width)
        return Visible(
            torch.from_numpy(found.uv), torch.from_numpy(found.z), torch.from_numpy(found.face).long(), found
        )

    def interpolate(self, attributes: Tensor, position: Tensor, faces: Tensor, visible: Visible) -> Tensor:
        """See `Rasteriser`."""
        return _Interpolate.apply(attributes, position, faces, visible)

    def antialias(self, color: Tensor, position: Tensor, faces: Tensor, visible: Visible) -> Tensor:
        """See `Rasteriser`."""
        from anyform.render import silhouette_numba

        if self._known is None or self._known[0] is not faces:
            self._known = faces, silhouette_numba.neighbours(_indices(faces), len(position))
        opposite, seen = self._known[1], visible.native
        listed = silhouette_numba.pairs(_exact(position), _indices(faces), opposite, seen.face, seen.z)
        return _Blend.apply(color, position, listed)


def _exact(values: Tensor) -> Any:
    return values.detach().double().contiguous().numpy()


def _indices(faces: Tensor) -> Any:
    return faces.int().contiguous().numpy()


class _Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, attributes: Tensor, position: Tensor, faces: Tensor, visible: Visible) -> Tensor:
        from anyform.render import raster_numba

        ctx.save_for_backward(attributes, position, faces)
        ctx.seen = visible.native
        values = raster_numba.interpolate(_exact(attributes), _indices(faces), ctx.seen.uv, ctx.seen.face)
        return torch.from_numpy(values).to(attributes.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        from anyform.render import raster_numba

        attributes, position, faces = ctx.saved_tensors
        g_position, g_attributes = raster_numba.interpolate_backward(
            _exact(position), _exact(attributes), _indices(faces), ctx.seen.uv, ctx.seen.face, _exact(gradient)
        )
        return torch.from_numpy(g_attributes).to(attributes), torch.from_numpy(g_position).to(position), None, None


class _Blend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, color: Tensor, position: Tensor, listed: Any) -> Tensor:
        from anyform.render import silhouette_numba

        ctx.save_for_backward(color, position)
        ctx.listed = listed
        return torch.from_numpy(silhouette_numba.blend(listed, _exact(position), _exact(color))).to(color.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        from anyform.render import silhouette_numba

        color, position = ctx.saved_tensors
        g_position, g_color = silhouette_numba.blend_backward(
            ctx.listed, _exact(position), _exact(color), _exact(gradient)
        )
        return torch.from_numpy(g_color).to(color), torch.from_numpy(g_position).to(position), None
