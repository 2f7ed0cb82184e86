"""The learned half of variational distillation: a low-rank copy of the 2D prior that follows the renders.

The copy is the prior itself with a trainable low-rank addition on the query, key, value and output projections of every
attention (Hu et al., LoRA), switched off whenever the prior speaks for itself, so no second network is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from anyform.diffusion.distillation import Denoise, vsd, vsd_loss
from anyform.diffusion.prediction import Prediction
from anyform.diffusion.prior import Condition, Prior
from anyform.errors import BadSetting

RANK, RATE = 4, 1e-4


class LowRankCopy:
    """`prior` with additions of rank RANK on the attention projections of `network`, trained with AdamW at RATE."""

    def __init__(self, prior: Prior, condition: Condition, network: nn.Module, seed: int = 0) -> None:
        self.prior, self.condition = prior, condition
        self.active = False
        generator = torch.Generator().manual_seed(seed)
        self.downs, self.ups = nn.ParameterList(), nn.ParameterList()
        for module in projections(network):
            down = torch.randn(RANK, module.in_features, generator=generator) / module.in_features**0.5
            place = module.weight.device
            self.downs.append(nn.Parameter(down.to(place)))
            self.ups.append(nn.Parameter(torch.zeros(module.out_features, RANK, device=place)))
            module.register_forward_hook(self._hook(len(self.downs) - 1))
        if not len(self.downs):
            raise BadSetting("the 2D prior has no attention projections, which variational distillation adapts")
        self.optimiser = torch.optim.AdamW([*self.downs, *self.ups], lr=RATE)

    def gradient(self, denoise: Denoise, latent: Tensor, timestep: int, noise: Tensor, weighting: str) -> Tensor:
        """`vsd` of the prior against the copy as it is."""
        return vsd(denoise, self, latent, timestep, noise, self.prior.schedule, weighting)

    def __call__(self, x_t: Tensor, t: int | Tensor) -> Prediction:
        with self._on():
            return self.prior.denoiser(x_t, t, self.condition)

    def learn(self, latent: Tensor, timestep: int, noise: Tensor) -> float:
        """One step of denoising the renders' latents; returns the loss before it."""
        loss = vsd_loss(self, latent, timestep, noise, self.prior.schedule)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return float(loss.detach())

    def state_dict(self) -> dict[str, Any]:
        """Additions and optimiser, for a checkpoint."""
        return {
            "downs": self.downs.state_dict(),
            "ups": self.ups.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What `state_dict` gave."""
        self.downs.load_state_dict(state["downs"])
        self.ups.load_state_dict(state["ups"])
        self.optimiser.load_state_dict(state["optimiser"])

    def _hook(self, index: int) -> Any:
        def add(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if not self.active:
                return output
            return output + inputs[0] @ self.downs[index].T @ self.ups[index].T

        return add

    @contextmanager
    def _on(self) -> Iterator[None]:
        self.active = True
        try:
            yield
        finally:
            self.active = False


def projections(network: nn.Module) -> list[nn.Linear]:
    """The linear layers named to_q, to_k, to_v and to_out (or to_out.0) of a network, in its own order."""
    found = []
    for name, module in network.named_modules():
        last = name.removesuffix(".0").rpartition(".")[2]
        if isinstance(module, nn.Linear) and last in {"to_q", "to_k", "to_v", "to_out"}:
            found.append(module)
    return found
