"""The reference view: the one picture that says what the object looks like from the front, with its mask.

It is the user's own picture, or one that the 2D prior imagines from the joint embedding, the best of a few; where a
shape is given already, the prior repaints that shape's front view, so that picture and shape agree.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anyform.diffusion.prior import Condition, Prior, guided
from anyform.diffusion.samplers import ddim, spaced_timesteps
from anyform.encoders.cutout import cut_out
from anyform.priors.sampling import sample, start_noise, to_bytes
from anyform.systems.xbind.augmentation import plain
from anyform.types.framing import frame
from anyform.types.progress import Progress, Report
from anyform.types.prompt import Image

SIZE, FILLS = 256, 0.78  # pixels an edge; share of it that the object's longest side takes
REPAINTED = 0.7  # of the chain: how much of a given shape's look is replaced
SAMPLING_GUIDANCE = 3.0  # of the embedded prior (priors/sampling.py); unCLIP is recommended with 10
SMALLEST, LARGEST = 0.10, 0.70  # share of a picture that a good object covers


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReferenceView:
    """picture (1, 3, S, S) in [0, 1] over white, mask (1, 1, S, S) in [0, 1]; candidates (K, H, W, 3) uint8 or None."""

    picture: Tensor
    mask: Tensor
    candidates: NDArray[np.uint8] | None = None

    def as_image(self) -> Image:
        """The same as a prompt."""
        rgba = torch.cat([self.picture, self.mask], 1)[0].permute(1, 2, 0)
        return Image.from_rgba(rgba.clamp(0, 1).cpu().numpy())


Embed = Callable[[Tensor], Tensor]


def of_image(image: Image) -> ReferenceView:
    """The user's picture: cut out, centred, over white."""
    return _framed(_cut(image).rgba)


def imagined(
    prior: Prior,
    condition: Condition,
    vector: Tensor,
    embed: tuple[Embed, int],
    *,
    candidates: int,
    steps: int,
    seed: int,
    report: Report,
) -> ReferenceView:
    """The best of `candidates` pictures of the 2D prior.

    Ranked by the cosine of picture and prompt times how much a picture looks like one whole object: covering 10 to
    70 %, in one piece, not touching the border. vector (D,); embed: (pictures -> (B, D), their size).
    """
    seeds = [seed + k for k in range(candidates)]

    def told(done: int) -> None:
        report(Progress("reference", done, steps))

    pictures = sample(
        prior, condition, seeds, num_inference_steps=steps, guidance_scale=SAMPLING_GUIDANCE, on_step=told
    )
    shown = to_bytes(pictures)
    with torch.inference_mode():
        cosine = torch.nn.functional.cosine_similarity(embed[0](plain(pictures, embed[1])).cpu(), vector.cpu()[None])
    cut = [_cut(Image.from_rgba(picture)) if picture.std() > 1 else None for picture in shown]
    scores = [
        -1.0 if image is None else float(near) * wholeness(image.rgba[..., 3])
        for image, near in zip(cut, cosine, strict=True)
    ]
    best = cut[int(np.argmax(scores))]
    if best is None:  # every candidate is of one colour: the picture as it is, all of it the object
        best = _opaque(shown[0])
    view = _framed(best.rgba)
    return ReferenceView(picture=view.picture, mask=view.mask, candidates=shown)


@torch.inference_mode()
def repainted(
    prior: Prior, condition: Condition, shape: ReferenceView, *, steps: int, seed: int, report: Report
) -> ReferenceView:
    """A shape's front view as the prior would paint it: noised to `REPAINTED` of the chain, then denoised.

    The mask stays the shape's own.
    """
    timesteps = spaced_timesteps(max(2, steps), prior.schedule.num_timesteps)
    timesteps = timesteps[: max(2, round(len(timesteps) * REPAINTED))]
    latent = prior.codec.encode(plain(shape.picture, prior.image_size))
    noisy = prior.schedule.add_noise(latent, start_noise(prior, [seed]).to(latent), timesteps[-1])
    total = len(timesteps)
    clean = ddim(
        guided(prior, condition, SAMPLING_GUIDANCE), noisy, prior.schedule, timesteps,
        on_step=lambda done: report(Progress("reference", done, total)),
    )  # fmt: skip
    painted = plain(prior.codec.decode(clean).float().clamp(0, 1), shape.picture.shape[-1])
    return ReferenceView(picture=shape.mask * painted.to(shape.picture) + (1 - shape.mask), mask=shape.mask)


def wholeness(alpha: NDArray[np.uint8]) -> float:
    """How much a mask (H, W) looks like one whole object, in [0.1, 1]."""
    from scipy.ndimage import label

    inside = alpha > 127
    covered = float(inside.mean())
    score = 1.0 if SMALLEST <= covered <= LARGEST else 0.5
    pieces = cast(tuple[Any, int], label(inside))[1]
    if pieces != 1:
        score *= 0.6
    border = np.concatenate([inside[0], inside[-1], inside[:, 0], inside[:, -1]])
    return max(0.1, score * (1 - float(border.mean())))


def _cut(image: Image) -> Image:
    """The object in alpha; where none stands out the whole picture is it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return cut_out(image)


def _opaque(picture: NDArray[np.uint8]) -> Image:
    """A picture of one colour with a disc as its object, which alone can be looked at."""
    along = (np.arange(len(picture)) + 0.5) * 2 / len(picture) - 1
    disc = (along[:, None] ** 2 + along**2 < FILLS**2)[..., None]
    return Image(np.concatenate([picture, disc.astype(np.uint8) * 255], -1))


def _framed(rgba: NDArray[np.uint8]) -> ReferenceView:
    framed = torch.from_numpy(frame(rgba, SIZE, FILLS).astype(np.float32) / 255).permute(2, 0, 1)[None]
    color, alpha = framed[:, :3], framed[:, 3:]
    return ReferenceView(picture=color * alpha + (1 - alpha), mask=alpha)
