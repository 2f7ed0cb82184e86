"""From settings to the loss terms of a phase: which prior looks at what, with which timesteps, guidance and weights.

Terms on latents are sums over the latent, and their published weights were tuned on 4 × 64 × 64 values (pictures of
3 × 512 × 512 for the picture half): other sizes are scaled to that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from anyform.diffusion.distillation import cds, sds, sds_pair, surrogate
from anyform.diffusion.prior import Condition, Prior, guided
from anyform.errors import BadSetting
from anyform.systems.xbind import augmentation, losses
from anyform.systems.xbind.config import PhaseSettings, PlanarSettings, RegulariserSettings, SimilaritySettings
from anyform.systems.xbind.looks import Look
from anyform.systems.xbind.phases import LossTerm
from anyform.systems.xbind.variational import LowRankCopy
from anyform.training.ramp import value_at

TUNED_LATENT, TUNED_PICTURE = 4 * 64 * 64, 3 * 512 * 512
RGB_EVERY = 4  # "mixed": normals, and colours at every fourth step


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Guides:
    """Everything frozen that tells a phase what to make; parts that no term uses are None.

    planar, stereo: the 2D and the 3D-aware prior; planar_condition: what the 2D prior is asked for. picture
    (1, 3, S, S) over white and mask (1, 1, S, S): the reference view. embed: pictures (B, 3, E, E) in [0, 1] ->
    (B, D), E = embed_size, differentiable; vector (D,): the prompt in the same space. seed: of the noise that a whole
    run shares. copy: the low-rank copy that variational distillation trains.
    """

    vector: Tensor
    embed: Callable[[Tensor], Tensor]
    embed_size: int
    planar: Prior | None = None
    planar_condition: Condition | None = None
    stereo: Prior | None = None
    picture: Tensor | None = None
    mask: Tensor | None = None
    seed: int = 0
    copy: LowRankCopy | None = None


def planar_sds_terms(phase: PhaseSettings, guides: Guides) -> list[LossTerm]:
    """ω_ms L_MS + λ (L_SDS + ω_img L_img) + ω_nz L_nz: what the picture alone says in phases I and III.

    Implements: XBind Eq. 8
    """
    rays = phase.regularisers.z_variance
    terms = [_planar(phase.planar, guides, _score), _similarity(phase, guides)]
    if rays != 0:
        terms.append(LossTerm(name="z variance", weight=rays, loss=_z_variance, on="rays"))
    return [term for term in terms if term is not None]


def planar_cds_terms(phase: PhaseSettings, guides: Guides) -> list[LossTerm]:
    """ω_ms L_MS + ω_cds L_CDS: what the picture alone says in phase II.

    Implements: XBind Eq. 9
    """
    terms = [_planar(phase.planar, guides, _consistency), _similarity(phase, guides)]
    return [term for term in terms if term is not None]


def stereo_terms(phase: PhaseSettings, guides: Guides) -> list[LossTerm]:
    """λ_3d L_3D + L_ref: what the reference view and the 3D-aware prior say.

    Implements: XBind Eq. 12
    """
    terms = []
    if phase.stereo.weight:
        if guides.stereo is None or guides.picture is None:
            raise BadSetting("stereo.weight is above 0, but there is no 3D-aware prior with a reference view")
        normal = phase.stereo.subject == "normal"
        terms.append(LossTerm(name="3d", weight=phase.stereo.weight, loss=_stereo(phase, guides), normal=normal))
    if phase.reference.rgb or phase.reference.mask:
        terms.append(LossTerm(name="reference", weight=1.0, loss=_reference(phase, guides), on="reference"))
    return terms


def phase_terms(phase: PhaseSettings, guides: Guides) -> list[LossTerm]:
    """The whole sum of a phase: planar + stereo + regularisers.

    Implements: XBind Eq. 13
    """
    planar = planar_cds_terms if phase.planar.rule == "cds" else planar_sds_terms
    terms = [*planar(phase, guides), *stereo_terms(phase, guides), *_regularisers(phase.regularisers)]
    if not terms:
        raise BadSetting("every term of a phase is switched off: nothing would be optimised")
    return terms


def _planar(
    planar: PlanarSettings, guides: Guides, rule: Callable[[PlanarSettings, Guides], Callable[[Look], Tensor]]
) -> LossTerm | None:
    if planar.rule == "none" or not planar.weight:
        return None
    if guides.planar is None or guides.planar_condition is None:
        raise BadSetting(f"planar.rule is {planar.rule!r}, but there is no 2D prior with a condition")
    chosen = _variational if planar.rule == "vsd" else rule
    return LossTerm(name="2d", weight=planar.weight, loss=chosen(planar, guides), normal=planar.subject != "rgb")


def _score(planar: PlanarSettings, guides: Guides) -> Callable[[Look], Tensor]:
    """Score distillation on the latent and, with an image weight, on the picture."""
    prior, condition = _need(guides)

    def loss(look: Look) -> Tensor:
        picture, latent = _encoded(prior, planar.subject, look)
        t, noise = _draw_timestep(planar.timesteps, prior, look), look.noise(latent)
        denoise = guided(prior, condition, value_at(planar.guidance, look.part))
        if not planar.image_weight:
            g = sds(denoise, latent, t, noise, prior.schedule, planar.weighting)
            return _scaled(latent, g, TUNED_LATENT)
        g, of_picture = sds_pair(denoise, latent, picture, prior.codec, t, noise, prior.schedule, planar.weighting)
        image_term = _scaled(picture, of_picture, TUNED_PICTURE)
        return _scaled(latent, g, TUNED_LATENT) + planar.image_weight * image_term

    return loss


def _consistency(planar: PlanarSettings, guides: Guides) -> Callable[[Look], Tensor]:
    """Consistency distillation between two points of one trajectory."""
    prior, condition = _need(guides)
    total = prior.schedule.num_timesteps
    low, high = (int(share * total) for share in planar.timesteps)
    annealed = planar.annealed
    if annealed is None:
        raise BadSetting("planar.rule 'cds' needs planar.annealed, the cleaner timestep over the phase")

    def loss(look: Look) -> Tensor:
        _, latent = _encoded(prior, planar.subject, look)
        t2 = min(max(int(annealed.at(look.part) * total / 1000), low), high - total // 10)
        t1 = min(t2 + int(look.rng.integers(total // 10, total // 5)), high)
        noise = look.noise(latent)
        if planar.noise == "fixed":
            noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(guides.seed)).to(latent)
        clamp = None if planar.clamp is None else value_at(planar.clamp, look.part)
        denoise = guided(prior, condition, value_at(planar.guidance, look.part))
        return _scaled(latent, cds(denoise, latent, t1, t2, noise, prior.schedule, clamp), TUNED_LATENT)

    return loss


def _variational(planar: PlanarSettings, guides: Guides) -> Callable[[Look], Tensor]:
    """Variational distillation; the copy takes its own step on every render."""
    prior, condition = _need(guides)
    copy = guides.copy
    if copy is None:
        raise BadSetting("planar.rule 'vsd' needs a low-rank copy of the 2D prior")

    def loss(look: Look) -> Tensor:
        _, latent = _encoded(prior, planar.subject, look)
        t, noise = _draw_timestep(planar.timesteps, prior, look), look.noise(latent)
        denoise = guided(prior, condition, value_at(planar.guidance, look.part))
        g = copy.gradient(denoise, latent, t, noise, planar.weighting)
        copy.learn(latent, int(look.rng.integers(prior.schedule.num_timesteps)), look.noise(latent))
        return _scaled(latent, g, TUNED_LATENT)

    return loss


def _stereo(phase: PhaseSettings, guides: Guides) -> Callable[[Look], Tensor]:
    stereo, prior, picture = phase.stereo, guides.stereo, guides.picture
    if prior is None or picture is None:
        raise BadSetting("the stereo term needs a 3D-aware prior and a reference view")
    shown = augmentation.plain(picture, prior.image_size)

    def loss(look: Look) -> Tensor:
        condition = prior.condition(shown, look.told[None].to(shown))
        seen = look.normal if stereo.subject == "normal" and look.normal is not None else look.rgb
        latent = prior.codec.encode(augmentation.plain(seen, prior.image_size))
        t = _draw_timestep(stereo.timesteps, prior, look)
        denoise = guided(prior, condition, stereo.guidance)
        scale = TUNED_LATENT / 4 / latent[0].numel()  # its published latent is 4 × 32 × 32
        return scale * losses.stereo(denoise, latent, t, look.noise(latent), prior.schedule, stereo.weighting)

    return loss


def _reference(phase: PhaseSettings, guides: Guides) -> Callable[[Look], Tensor]:
    if guides.picture is None or guides.mask is None:
        raise BadSetting("the reference term needs a reference view with its mask")
    picture = augmentation.plain(guides.picture, phase.size)
    mask = augmentation.plain(guides.mask, phase.size).clamp(0, 1)
    settings = phase.reference

    def loss(look: Look) -> Tensor:
        return losses.reference(look.rgb, look.alpha, picture, mask, (settings.rgb, settings.mask), settings.mask_loss)

    return loss


def _similarity(phase: PhaseSettings, guides: Guides) -> LossTerm | None:
    settings = phase.similarity
    if not settings.weight and not settings.ratio:
        return None
    balance = None if settings.weight is not None else ("2d", settings.ratio)
    if balance is not None and phase.planar.rule == "none":
        return None  # nothing to balance with: a fixed weight is needed to keep the term
    return LossTerm(
        name="similarity",
        weight=settings.weight or 0.0,
        loss=similarity_loss(settings, guides),
        balance=balance,
        normal=settings.subject != "rgb",
    )


def similarity_loss(settings: SimilaritySettings, guides: Guides) -> Callable[[Look], Tensor]:
    """L_MS of one view: the three kinds of augmentation, each its own `modality_similarity`."""

    def loss(look: Look) -> Tensor:
        picture, behind, size = _subject(settings.subject, look), look.background, guides.embed_size
        if picture is look.normal:
            behind = torch.zeros_like(behind)
        shown = [
            [augmentation.whole(picture, size, behind, look.rng) for _ in range(settings.num_global)],
            [augmentation.part(picture, size, behind, look.rng, settings.area) for _ in range(settings.num_local)],
            [augmentation.plain(picture, size)] * settings.num_plain,
        ]
        embedded = guides.embed(torch.cat([one for kind in shown for one in kind]))
        kinds = embedded[:, None].split([len(kind) for kind in shown])
        parts = [losses.modality_similarity(guides.vector, kind) for kind in kinds if len(kind)]
        return torch.stack(parts).sum()

    return loss


def _regularisers(weights: RegulariserSettings) -> list[LossTerm]:
    def variation(look: Look) -> Tensor:
        return losses.normal_variation(_normal(look), weights.normal_form)

    def of_surface(rule: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Any], Tensor]:
        return lambda representation: rule(*representation.surface())

    rows: list[tuple[str, Any, Callable[..., Tensor], Any]] = [
        ("normal variation", weights.normal_variation, variation, "views"),
        ("normal consistency", weights.normal_consistency, of_surface(losses.normal_consistency), "object"),
        ("laplacian", weights.laplacian, of_surface(losses.laplacian), "object"),
        ("sparsity", weights.sparsity, lambda look: losses.sparsity(look.alpha), "views"),
        ("opaque", weights.opaque, lambda look: losses.opaque(look.alpha), "views"),
    ]
    return [
        LossTerm(name=name, weight=weight, loss=loss, on=on, normal=name == "normal variation")
        for name, weight, loss, on in rows
        if weight != 0
    ]


def _z_variance(ray_weights: Tensor, t: Tensor, start: Tensor) -> Tensor:
    return losses.z_variance(ray_weights, t, start)


def _need(guides: Guides) -> tuple[Prior, Condition]:
    if guides.planar is None or guides.planar_condition is None:
        raise BadSetting("the planar term needs a 2D prior and its condition")
    return guides.planar, guides.planar_condition


def _normal(look: Look) -> Tensor:
    if look.normal is None:
        raise BadSetting("a term looks at normals, which this representation does not render")
    return look.normal


def _subject(subject: str, look: Look) -> Tensor:
    """The picture a term looks at in this step, colours over the step's background."""
    if subject == "normal" or (subject == "mixed" and look.step % RGB_EVERY != RGB_EVERY - 1):
        return _normal(look)
    return look.over_background()


def _encoded(prior: Prior, subject: str, look: Look) -> tuple[Tensor, Tensor]:
    """(picture at the prior's size, its latent), both with their graph."""
    picture = augmentation.plain(_subject(subject, look), prior.image_size)
    return picture, prior.codec.encode(picture)


def _draw_timestep(shares: tuple[float, float], prior: Prior, look: Look) -> int:
    total = prior.schedule.num_timesteps
    return int(look.rng.integers(int(shares[0] * total), int(shares[1] * total) + 1))


def _scaled(value: Tensor, gradient: Tensor, tuned: int) -> Tensor:
    """The surrogate, as if `value` had the size that the weights were tuned with."""
    return surrogate(value, gradient) * (tuned / value[0].numel())
