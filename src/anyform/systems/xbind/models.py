"""The frozen networks of XBind: a 2D prior, a 3D-aware prior and the joint space that both are asked in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from anyform import device as devices
from anyform.diffusion.prior import Prior
from anyform.errors import WeightsError
from anyform.geometry.asset import WeightsRecord
from anyform.priors import embedded as embedded_priors
from anyform.priors.denoiser import UNetDenoiser
from anyform.weights import embedded_index, read_header, sha256

PRIORS, JOINT = ("foundation", "view"), "joint.safetensors"


@runtime_checkable
class JointSpace(Protocol):
    """One space for every kind of prompt, and for renders with gradients."""

    def embed(self, prompt: Any) -> Tensor:
        """A prompt -> (D,) or (1, D), a unit vector. Raises BadInput for a kind that it does not know."""
        ...

    def images(self, pictures: Tensor) -> Tensor:
        """Square pictures (B, 3, H, H) in [0, 1] -> unit vectors (B, D), differentiable in the pictures."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Models:
    """What a run is guided by. picture_size: pixels an edge that the joint space looks at. network: the 2D prior's,
    which variational distillation adapts."""

    planar: Prior
    stereo: Prior
    space: JointSpace
    picture_size: int = 64
    network: Any = None
    weights: tuple[WeightsRecord, ...] = ()
    device: str = "cpu"


def load_models(weights: str | Path | None, device: str) -> Models:
    """The embedded networks (None), or those of a folder with foundation.safetensors and view.safetensors.

    A joint.safetensors in the folder is used too, else the shipped joint space. Raises WeightsError where a file is
    missing, damaged or of another model, naming the recipe that makes it.
    """
    chosen = devices.choose(device)
    paths: dict[str, Path | None] = dict.fromkeys(PRIORS)
    if weights is not None:
        folder = Path(weights)
        paths = {name: folder / f"{name}.safetensors" for name in PRIORS}
        missing = [path.name for path in paths.values() if path is not None and not path.is_file()]
        if missing:
            recipes = " and ".join(embedded_priors.RECIPES[name.partition(".")[0]] for name in missing)
            raise WeightsError(
                f"the folder {folder.name[:80]!r} holds no {' and no '.join(missing)}: {recipes} make them"
            )
    planar = embedded_priors.foundation(paths["foundation"], device=chosen.name)
    joint = None if weights is None else Path(weights) / JOINT
    space = embedded_space(joint if joint is not None and joint.is_file() else None)
    stereo = embedded_priors.view(paths["view"], device=chosen.name, embed=space.images)
    records = tuple(_record(name, path) for name, path in paths.items())
    return Models(
        planar=planar,
        stereo=stereo,
        space=space,
        network=planar.denoiser.unet if isinstance(planar.denoiser, UNetDenoiser) else None,
        weights=records,
        device=chosen.name,
    )


def embedded_space(joint: Path | None) -> JointSpace:
    """The embedded joint encoder, of another file than the shipped one where given.

    Raises WeightsError where it is not there, before anything has been computed with the priors.
    """
    from anyform.encoders import embedded

    encoder = embedded.load(joint)
    encoder.joint.eval()
    return encoder


def _record(name: str, path: Path | None) -> WeightsRecord:
    """Licence and hash of a network's file, as provenance carries it."""
    if path is None:
        entry = embedded_index()[name]
        return WeightsRecord(f"anyform/{name}", entry["sha256"], entry["licence"], entry["commercial_use"])
    metadata = read_header(path)[1]
    licence, sale = metadata.get("licence", "unknown: a local run"), metadata.get("commercial_use", "unknown")
    return WeightsRecord(f"local/{name}", sha256(path), licence, sale)
