"""Every term of XBind by its equation, as pure functions on tensors (specs/xbind.md §3).

Pictures are (B, 3, H, W) in [0, 1], masks and alphas (B, 1, H, W); rays are packed as in `render.rays`. Terms on
latents are summed over the latent and averaged over the batch, all others are means: the published weights assume that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from anyform.diffusion.distillation import Denoise, sds, surrogate
from anyform.diffusion.schedule import NoiseSchedule
from anyform.fields.dmtet import vertex_normals


def modality_similarity(condition: Tensor, embeddings: Tensor, weights: Sequence[float] | None = None) -> Tensor:
    """Σᵢ Wᵢ (1 − mean_B cos(C_m, eᵢ)): how far renders are from the prompt in the joint space.

    condition: C_m (D,) or (1, D), of any length; embeddings: eᵢ (n, B, D) of n augmentations of B renders; weights: Wᵢ,
    all 1 where not given. The global, local and plain augmentations are three calls, weighted by ω_g, ω_l, ω_z.
    Implements: XBind Eq. 2
    Differs: printed without a sign; what is minimised is the distance 1 − cos, as the public code of the same authors
    does (specs/xbind.md §0.2).
    """
    cosine = functional.cosine_similarity(embeddings, condition.reshape(1, 1, -1), dim=-1).mean(1)
    scale = cosine.new_ones(len(cosine)) if weights is None else cosine.new_tensor(list(weights))
    return (scale * (1 - cosine)).sum()


def ray_moments(ray_weights: Tensor, t: Tensor, start: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Where a ray sees the object, and how spread out: (mean d, variance v, Σw), each (R,).

    With ŵᵢ = wᵢ / max(Σw, 1e-5): d = Σ ŵᵢ tᵢ and v = Σ ŵᵢ (tᵢ − d)². ray_weights, t: (R, S), or packed (S,) with start
    (R + 1,) int64.
    Implements: XBind Eq. 6
    """
    if start is None:
        total = ray_weights.sum(-1)
        share = ray_weights / total.clamp(min=1e-5)[..., None]
        mean = (share * t).sum(-1)
        return mean, (share * (t - mean[..., None]).square()).sum(-1), total
    ray = torch.repeat_interleave(torch.diff(start))
    empty = ray_weights.new_zeros(len(start) - 1)
    total = empty.index_add(0, ray, ray_weights)
    share = ray_weights / total.clamp(min=1e-5)[ray]
    mean = empty.index_add(0, ray, share * t)
    return mean, empty.index_add(0, ray, share * (t - mean[ray]).square()), total


def z_variance(ray_weights: Tensor, t: Tensor, start: Tensor | None = None) -> Tensor:
    """Mean variance of depth over the rays that see something (Σw > 0.5): thin surfaces instead of fog.

    0, with a gradient of 0, where no ray does: a mean over nothing would be NaN. Arguments as in `ray_moments`.
    Implements: XBind Eq. 7
    """
    _, variance, total = ray_moments(ray_weights, t, start)
    seen = (total > 0.5).detach()
    return (variance * seen).sum() / seen.sum().clamp(min=1)


def stereo(
    denoise: Denoise,
    latent: Tensor,
    timestep: int | Tensor,
    noise: Tensor,
    schedule: NoiseSchedule,
    weighting: str = "one_minus_sqrt_abar",
) -> Tensor:
    """Distillation of the 3D-aware prior, which was told the reference view and this view's camera.

    latent (B, ...): of the render over white, with its graph. The score rule is `sds`; the value is ½‖g‖²/B.
    Implements: XBind Eq. 10
    """
    return surrogate(latent, sds(denoise, latent, timestep, noise, schedule, weighting))


def reference(
    picture: Tensor,
    alpha: Tensor,
    wanted: Tensor,
    mask: Tensor,
    weights: tuple[float, float] = (1000.0, 100.0),
    mask_loss: Literal["l2", "bce"] = "l2",
) -> Tensor:
    """ω_rgb mean (m ⊙ (x_r − x̂_r))² + ω_mask mean (m − M̂)² at the reference camera.

    picture, wanted (B, 3, H, W); alpha, mask (B, 1, H, W); mask_loss "bce" is threestudio's cross entropy instead.
    Implements: XBind Eq. 11
    """
    colour = (mask * (wanted - picture)).square().mean()
    if mask_loss == "bce":
        shape = functional.binary_cross_entropy(alpha.clamp(1e-5, 1 - 1e-5), mask)
    else:
        shape = (mask - alpha).square().mean()
    return weights[0] * colour + weights[1] * shape


def normal_variation(normal: Tensor, form: Literal["tv", "blur9"] = "tv") -> Tensor:
    """Smoothness of normal pictures (B, 3, H, W) in [0, 1].

    "tv" is threestudio's mean (∂_y N)² + mean (∂_x N)²; "blur9" RealFusion's mean (N − blur₉(N))² with a fixed blur.
    """
    if form == "tv":
        return normal.diff(dim=2).square().mean() + normal.diff(dim=3).square().mean()
    along = torch.arange(-4.0, 5.0, device=normal.device, dtype=normal.dtype)
    kernel = torch.exp(-0.5 * (along / 1.7).square())
    kernel = (kernel / kernel.sum()).repeat(3, 1)
    padded = functional.pad(normal.detach(), (4, 4, 4, 4), mode="replicate")
    blurred = functional.conv2d(padded, kernel[:, None, :, None], groups=3)
    blurred = functional.conv2d(blurred, kernel[:, None, None, :], groups=3)
    return (normal - blurred).square().mean()


def edges_of(faces: Tensor) -> Tensor:
    """The unique undirected edges (E, 2) of triangles (F, 3), smaller vertex first."""
    pairs = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    return torch.unique(pairs.sort(1).values, dim=0)


def normal_consistency(vertices: Tensor, faces: Tensor) -> Tensor:
    """Mean of 1 − cos over the mesh's edges of the normals of their two vertices; 0 for an empty mesh."""
    edges = edges_of(faces)
    if not len(edges):
        return vertices.sum() * 0
    normal = vertex_normals(vertices, faces)[edges]
    return (1 - (normal[:, 0] * normal[:, 1]).sum(-1)).mean()


def laplacian(vertices: Tensor, faces: Tensor) -> Tensor:
    """Mean length of the uniform Laplacian Σ_neighbours (v − v_j), not divided by the degree; 0 for an empty mesh."""
    edges = edges_of(faces)
    if not len(edges):
        return vertices.sum() * 0
    difference = vertices[edges[:, 0]] - vertices[edges[:, 1]]
    moved = torch.zeros_like(vertices).index_add(0, edges[:, 0], difference).index_add(0, edges[:, 1], -difference)
    return (moved.square().sum(1) + 1e-20).sqrt().mean()


def sparsity(alpha: Tensor) -> Tensor:
    """Mean √(alpha² + 0.01): little of the picture covered; of baselines without a reference view."""
    return (alpha.square() + 0.01).sqrt().mean()


def opaque(alpha: Tensor) -> Tensor:
    """Mean cross entropy of alpha with itself: nothing half transparent."""
    kept = alpha.clamp(1e-3, 1 - 1e-3)
    return functional.binary_cross_entropy(kept, kept)
