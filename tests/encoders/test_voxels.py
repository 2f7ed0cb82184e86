"""The voxel encoder: size, order of axes, and the published formula by hand."""

from __future__ import annotations

import torch
from torch.nn import functional

from anyform.encoders.voxels import VoxelEncoder, VoxelEncoderConfig

SMALL = VoxelEncoderConfig(resolution=6, stem=32, hidden=64, context_width=10)


def build(seed: int = 0) -> VoxelEncoder:
    torch.manual_seed(seed)
    return VoxelEncoder(SMALL).double().eval().requires_grad_(False)


def test_parameter_count_of_the_released_model() -> None:
    with torch.device("meta"):
        encoder = VoxelEncoder(VoxelEncoderConfig())
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 8_855_040
    assert encoder.config.num_tokens == 512


def test_layers_follow_the_table() -> None:
    """Layer by layer with functional calls; the pool is written as a convolution that counts padded zeros."""
    encoder = build()
    s = encoder.state_dict()
    grid = (torch.rand(2, 6, 6, 6) < 0.4).double()

    def residual(x: torch.Tensor, name: str) -> torch.Tensor:
        h = functional.group_norm(x, 32, s[name + ".norm1.weight"], s[name + ".norm1.bias"])
        h = functional.conv3d(h * torch.sigmoid(h), s[name + ".conv1.weight"], s[name + ".conv1.bias"], padding=1)
        h = functional.group_norm(h, 32, s[name + ".norm2.weight"], s[name + ".norm2.bias"])
        h = functional.conv3d(h * torch.sigmoid(h), s[name + ".conv2.weight"], s[name + ".conv2.bias"], padding=1)
        if name + ".skip.weight" in s:
            assert s[name + ".skip.weight"].shape[2:] == (3, 3, 3)
            x = functional.conv3d(x, s[name + ".skip.weight"], s[name + ".skip.bias"], padding=1)
        return x + h

    h = functional.conv3d(grid[:, None], s["stem.weight"], s["stem.bias"], padding=1)
    for n in range(3):
        h = residual(h, f"fine.{n}")
    box = torch.zeros(64, 1, 3, 3, 3, dtype=torch.float64) + 1 / 27
    h = functional.conv3d(h, box, stride=2, padding=1, groups=64)
    for n in range(3):
        h = residual(h, f"coarse.{n}")
    h = functional.group_norm(h, 32, s["head_norm.weight"], s["head_norm.bias"])
    h = functional.conv3d(h * torch.sigmoid(h), s["head.weight"], s["head.bias"], padding=1)
    found = encoder(grid)
    assert found.shape == (2, 27, 10)
    for x in range(3):
        for y in range(3):
            for z in range(3):  # tokens: z fastest
                assert torch.allclose(found[:, (x * 3 + y) * 3 + z], h[:, :, x, y, z], atol=1e-12)
