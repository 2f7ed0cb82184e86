"""SD-2.1-unCLIP: pictures from an embedding of any modality, by a diffusers folder.

The network predicts v on 96² latents. Its class labels are the noised embedding beside the sinusoid of the noise level
(Ramesh et al., "Hierarchical Text-Conditional Image Generation with CLIP Latents", as released in Stable unCLIP); its
null is zeros for the labels, as in training, and the tokens of "". Embeddings come unnormalised: a vision or text head
as it is, sound with its gain (specs/xbind.md §0.5).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from anyform.diffusion.schedule import NoiseSchedule, cosine
from anyform.errors import BadSetting
from anyform.nn.unet2d import sinusoid


def class_labels(
    embedding: Float[Tensor, "b d"],
    noise_level: int = 0,
    *,
    noise: Tensor | None = None,
    mean: Tensor | None = None,
    std: Tensor | None = None,
    schedule: NoiseSchedule | None = None,
) -> Float[Tensor, "b p"]:
    """(B, D) -> (B, 2D): unscale(√ᾱ scale(e) + √(1 − ᾱ) n) beside cos, sin of the level, scale(e) = (e − mean) / std.

    noise_level: a timestep of `schedule` (cosine, 1000 steps); level 0 adds a little noise too. noise: n, like the
    embedding; None draws it by `torch.randn_like`, so give it where one draw has to serve a whole run. mean, std: (D,)
    or (1, D), the released normaliser's (0 and 1 for the H checkpoint). Raises BadSetting for another level.
    """
    schedule = schedule or cosine(1000)
    if not 0 <= noise_level < schedule.num_timesteps:
        raise BadSetting(f"the noise level is {noise_level}: it lies between 0 and {schedule.num_timesteps - 1}")
    shift = torch.zeros_like(embedding) if mean is None else mean.to(embedding)
    scale = torch.ones_like(embedding) if std is None else std.to(embedding)
    drawn = torch.randn_like(embedding) if noise is None else noise.to(embedding)
    level = torch.full((len(embedding),), noise_level, device=embedding.device)
    noised = schedule.add_noise((embedding - shift) / scale, drawn, noise_level) * scale + shift
    return torch.cat([noised, sinusoid(level, embedding.shape[1]).to(embedding)], -1)
