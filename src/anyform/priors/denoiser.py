"""The one denoiser of all image priors: a U-Net under its schedule, reading its output as the prior says."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from anyform.diffusion.prediction import Prediction, Reading
from anyform.diffusion.prior import Condition
from anyform.diffusion.schedule import NoiseSchedule
from anyform.nn.unet2d import UNet2D


@dataclass(frozen=True, slots=True, eq=False)
class UNetDenoiser:
    """x_t (B, C, h, w), t one timestep or (B,), condition of 1 or B samples -> Prediction.

    `condition.image_latent`, where there is one, is laid beside x_t along the channels. The network runs in its own
    dtype and on its own device; the prediction comes back in those of x_t.
    """

    unet: UNet2D
    schedule: NoiseSchedule
    reading: Reading

    def __call__(self, x_t: Tensor, t: int | Tensor, condition: Condition) -> Prediction:
        weight = self.unet.conv_in.weight
        condition = condition.expanded(len(x_t))
        times = torch.as_tensor(t, device=weight.device).expand(len(x_t))
        if condition.tokens is None:
            raise ValueError("this prior's condition has tokens: make it with prior.condition(...)")
        tokens, labels = condition.tokens.to(weight), condition.labels
        x = x_t.to(weight)
        if condition.image_latent is not None:
            x = torch.cat([x, condition.image_latent.to(weight)], 1)
        value = self.unet(x, times, tokens, None if labels is None else labels.to(weight))
        alpha, sigma = self.schedule.alpha_sigma(t)
        return Prediction(self.reading, value.to(x_t), x_t, alpha, sigma)
