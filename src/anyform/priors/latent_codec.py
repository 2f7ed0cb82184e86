"""Between pictures and the scaled latents of an autoencoder; the mode is taken, not a sample."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from anyform.nn.autoencoder_kl import AutoencoderKL


@dataclass(frozen=True, slots=True, eq=False)
class LatentCodec:
    """Pictures (B, 3, S, S) in [0, 1] <-> latents (B, 4, S/8, S/8) times the autoencoder's scaling."""

    vae: AutoencoderKL

    def encode(self, sample: Tensor) -> Tensor:
        """The scaled mode."""
        return self.mode(sample) * self.vae.config.scaling

    def mode(self, sample: Tensor) -> Tensor:
        """The mode itself, unscaled: what Zero-1-to-3 lays beside x_t."""
        return self.vae.moments(sample.to(self.vae.quant_conv.weight) * 2 - 1)[0].to(sample)

    def decode(self, latent: Tensor) -> Tensor:
        """Scaled latents to pictures, cut to [0, 1]."""
        picture = self.vae.decode((latent / self.vae.config.scaling).to(self.vae.quant_conv.weight))
        return ((picture + 1) / 2).clamp(0, 1).to(latent)
