"""nvdiffrast as a `Rasteriser` on CUDA. Its licence allows non-commercial use only: never chosen unless asked for."""

from __future__ import annotations

import torch
from torch import Tensor

from anyform.errors import BadSetting
from anyform.render.rasteriser import Visible, check


class Nvdiffrast:
    """One CUDA context; triangles culled and gradients as nvdiffrast defines them."""

    def __init__(self, device: torch.device | str) -> None:
        try:
            import nvdiffrast.torch as native
        except ImportError as error:
            raise BadSetting(
                "nvdiffrast is not installed and in no package index: build it from NVIDIA's repository, mind its"
                " non-commercial licence, or take the rasteriser backend 'torch'"
            ) from error
        self._native = native
        self._context = native.RasterizeCudaContext(device=device)

    def rasterise(self, position: Tensor, faces: Tensor, height: int, width: int) -> Visible:
        """See `Rasteriser`."""
        check(position, faces)
        found, _ = self._native.rasterize(
            self._context, position.float()[None].contiguous(), faces.int().contiguous(), (height, width)
        )
        face = found[0, ..., 3].long() - 1
        return Visible(found[0, ..., :2], torch.where(face >= 0, found[0, ..., 2], 1.0), face, found)

    def interpolate(self, attributes: Tensor, position: Tensor, faces: Tensor, visible: Visible) -> Tensor:
        """See `Rasteriser`; the gradient to `position` goes through what `rasterise` returned."""
        check(position, faces)
        values, _ = self._native.interpolate(attributes.float()[None].contiguous(), visible.native, faces.int())
        return values[0].to(attributes.dtype)

    def antialias(self, color: Tensor, position: Tensor, faces: Tensor, visible: Visible) -> Tensor:
        """See `Rasteriser`."""
        blended = self._native.antialias(
            color.float()[None].contiguous(), visible.native, position.float()[None].contiguous(), faces.int()
        )
        return blended[0].to(color.dtype)
