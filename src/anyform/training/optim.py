"""Optimisers that torch does not have."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from anyform.errors import BadSetting


class Adan(Optimizer):
    """Adaptive Nesterov momentum (Xie et al., "Adan", 2022, Algorithm 1) as threestudio runs it.

    With gradient g, its change Δ = g − g_previous (0 at the first step) and the three averages
    m = β₁ m + (1−β₁) g, d = β₂ d + (1−β₂) Δ, n = β₃ n + (1−β₃)(g + β₂ Δ)²:
    p ← (p − lr m/((1−β₁ᵏ) den) − lr β₂ d/((1−β₂ᵏ) den)) / (1 + lr·weight_decay), den = √n/√(1−β₃ᵏ) + eps.
    Gradients are first scaled down to a norm of `max_grad_norm` over everything (0 = never). Raises BadSetting.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float, float] = (0.98, 0.92, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        max_grad_norm: float = 0.0,
    ) -> None:
        if lr < 0 or eps < 0 or weight_decay < 0 or max_grad_norm < 0 or not all(0 <= beta < 1 for beta in betas):
            raise BadSetting(
                f"Adan needs lr, eps, weight_decay, max_grad_norm >= 0 and betas in [0, 1), not lr {lr}, eps {eps}, "
                f"weight_decay {weight_decay}, max_grad_norm {max_grad_norm}, betas {betas}"
            )
        self.max_grad_norm = max_grad_norm
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update of every parameter that has a gradient; `closure`, if given, makes the gradients first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        scale = self._scale()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad * scale, group)
        return loss

    def _scale(self) -> float | Tensor:
        """min(1, max_grad_norm / norm of all gradients)."""
        if not self.max_grad_norm:
            return 1.0
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        return (self.max_grad_norm / (norm + 1e-8)).clamp(max=1.0)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2, beta3) = self.state[parameter], group["betas"]
        if not state:
            state["step"] = 0
            for name in ("mean", "change", "square"):
                state[name] = torch.zeros_like(parameter)
            state["previous"] = gradient.clone()
        state["step"] += 1
        k, change = state["step"], gradient - state["previous"]
        state["mean"].lerp_(gradient, 1 - beta1)
        state["change"].lerp_(change, 1 - beta2)
        state["square"].mul_(beta3).add_((gradient + beta2 * change).square(), alpha=1 - beta3)
        state["previous"].copy_(gradient)
        den = state["square"].sqrt().div_((1 - beta3**k) ** 0.5).add_(group["eps"])
        parameter.addcdiv_(state["mean"], den, value=-group["lr"] / (1 - beta1**k))
        parameter.addcdiv_(state["change"], den, value=-group["lr"] * beta2 / (1 - beta2**k))
        parameter.div_(1 + group["lr"] * group["weight_decay"])
