"""WaLa's U-ViT as a denoiser: the network beside its schedule, and the guided form a sampler walks with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anyform.diffusion.guidance import classifier_free
from anyform.diffusion.prediction import Prediction
from anyform.diffusion.prior import Condition
from anyform.diffusion.samplers import Denoise
from anyform.diffusion.schedule import NoiseSchedule
from anyform.systems.wala.uvit import UVit


@dataclass(frozen=True, slots=True, eq=False)
class UVitDenoiser:
    """`denoiser(x_t, t, condition) -> Prediction`, with the reading the network was trained for."""

    network: UVit
    schedule: NoiseSchedule

    def __call__(self, x_t: Tensor, t: int | Tensor, condition: Condition) -> Prediction:
        """x_t: (B, C, g, g, g); t: one original timestep or (B,)."""
        timesteps = torch.as_tensor(t, device=x_t.device).expand(len(x_t))
        return self._read(self.network(x_t, timesteps, condition), x_t, t)

    def guided(self, condition: Condition, null: Condition, timesteps: Sequence[int], guidance_scale: float) -> Denoise:
        """Classifier-free guidance for the samplers, with all work that does not depend on x_t done here, once.

        `denoise(x_t, t)` accepts t of `timesteps` only. Null and condition run as one batch, null first; a scale of 1
        needs the condition alone. condition and null: the same shapes, or null with B = 1.
        """
        rows = {t: row for row, t in enumerate(timesteps)}
        with_null = guidance_scale != 1
        both = _concatenate(null, condition) if with_null else condition
        steps = torch.tensor(list(timesteps), device=self.network.head.weight.device)[:, None]
        prepared = self.network.prepare(both, steps)

        def denoise(x_t: Tensor, t: int) -> Prediction:
            if not with_null:
                return self._read(self.network.step(x_t, rows[t], prepared), x_t, t)
            output = self.network.step(torch.cat([x_t, x_t]), rows[t], prepared)
            without, with_condition = output.chunk(2)
            return self._read(classifier_free(with_condition, without, guidance_scale), x_t, t)

        return denoise

    def _read(self, output: Tensor, x_t: Tensor, t: int | Tensor) -> Prediction:
        read = Prediction.from_x0 if self.network.config.prediction == "x0" else Prediction.from_v
        return read(output, x_t, *self.schedule.alpha_sigma(t))


def _concatenate(null: Condition, condition: Condition) -> Condition:
    """Both conditions as one batch, null first; a null of one sample is repeated for the others."""

    def pair(absent: Tensor | None, present: Tensor | None) -> Tensor | None:
        if absent is None or present is None:
            return None
        return torch.cat([absent.expand_as(present), present])

    return Condition(tokens=pair(null.tokens, condition.tokens), grid=pair(null.grid, condition.grid))
