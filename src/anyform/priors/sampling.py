"""Pictures from a prior: noise, DDIM under classifier-free guidance, decoded; the same for every prior."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from anyform.diffusion.prior import Condition, Prior, guided
from anyform.diffusion.samplers import ddim, spaced_timesteps


def start_noise(prior: Prior, seeds: Sequence[int]) -> Float[Tensor, "b c h w"]:
    """Noise of which each sample hangs on its own seed, whatever it is sampled with; made on the CPU."""
    draws = [torch.randn(prior.latent_shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(draws)


@torch.inference_mode()
def sample(
    prior: Prior,
    condition: Condition,
    seeds: Sequence[int],
    *,
    num_inference_steps: int = 30,
    guidance_scale: float = 3.0,
    device: str | torch.device = "cpu",
    on_step: Callable[[int], None] | None = None,
) -> Float[Tensor, "b 3 s s"]:
    """One picture (3, S, S) in [0, 1] a seed, float32 on the CPU. condition: of 1 sample or of as many as seeds."""
    timesteps = spaced_timesteps(num_inference_steps, prior.schedule.num_timesteps)
    denoise = guided(prior, condition.expanded(len(seeds)), guidance_scale)
    latent = ddim(denoise, start_noise(prior, seeds).to(device), prior.schedule, timesteps, on_step=on_step)
    return prior.codec.decode(latent).float().cpu()


def to_bytes(pictures: Tensor) -> NDArray[np.uint8]:
    """(B, 3, H, W) in [0, 1] -> (B, H, W, 3) uint8."""
    return (pictures.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def contact_sheet(pictures: NDArray[np.uint8], columns: int, gap: int = 2) -> NDArray[np.uint8]:
    """(N, H, W, 3) row by row -> one picture with white gaps; the last row may be short."""
    count, height, width, _ = pictures.shape
    rows = -(-count // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for index, picture in enumerate(pictures):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        sheet[top : top + height, left : left + width] = picture
    return sheet
