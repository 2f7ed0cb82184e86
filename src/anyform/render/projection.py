"""World points to the clip coordinates that rasterisers take, with gradients."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from anyform.types.camera import Cameras


def clip(vertices: Tensor, cameras: Cameras, view: int) -> Tensor:
    """World points (V, 3) -> clip positions (V, 4) of one camera; W = depth along its axis, y upwards.

    The near and far planes enclose what is in front of the camera and are constants of the gradient.
    """
    pose = torch.as_tensor(cameras.camera_to_world[view], dtype=vertices.dtype, device=vertices.device)
    local = (vertices - pose[:3, 3]) @ pose[:3, :3]
    depth = -local[:, 2]
    ahead = depth.detach()[depth.detach() > 0]
    low, high = (float(ahead.min()), float(ahead.max())) if len(ahead) else (1.0, 1.0)
    near, far = max(low * 0.99, high * 1e-5), high * 1.01
    focal = 1 / float(np.tan(cameras.fov_y[view] / 2))
    x, y = local[:, 0] * (focal * cameras.height / cameras.width), local[:, 1] * focal
    z = ((far + near) * depth - 2 * far * near) / (far - near)
    return torch.stack([x, y, z, depth], 1)
