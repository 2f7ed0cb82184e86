"""The checkpoints that others published and anyform reads: files, licence, commercial use, and what they cost here.

Nothing of them is shipped. `sha256` holds the hashes that are known for certain; files without one are recorded at
their first use (`weights.hub`). Parameters are counted on our modules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """A checkpoint that others published. commercial_use: "yes", "no" or "unknown", about what is made with it.

    parameters: of all networks in it, 0 = not counted. gated: the hub asks for an account that was granted access.
    needs: ids of other released checkpoints without which this one makes no asset.
    """

    id: str
    system: str
    prompt: str
    licence: str
    licence_url: str
    commercial_use: str
    files: tuple[str, ...]
    parameters: int = 0
    gated: bool = False
    needs: tuple[str, ...] = ()
    sha256: Mapping[str, str] = field(default_factory=dict)


_AUTODESK = "Autodesk Non-Commercial (3D Generative) v1.0, covers outputs"
_AUTODESK_URL = "https://github.com/AutodeskAILab/WaLa/blob/main/LICENSE.md"
# VQ-VAE and U-ViT of every 3D model, with positions of one view; encoders and cameras come on top.
_WALA = 12_872_004 + 956_744_836
_DINOV2 = 304_372_736


def _wala(name: str, prompt: str, parameters: int, *files: str, needs: tuple[str, ...] = ()) -> Released:
    return Released(
        id=f"ADSKAILab/WaLa-{name}",
        system="wala",
        prompt=prompt,
        licence=_AUTODESK,
        licence_url=_AUTODESK_URL,
        commercial_use="no",
        files=files or ("checkpoint.ckpt", "args.json"),
        parameters=parameters,
        needs=needs,
    )


_MVDREAM_DM6, _MVDREAM_RGB4 = "MVDream-DM6", "MVDream-RGB4"

RELEASED: dict[str, Released] = {
    entry.id: entry
    for entry in (
        _wala("SV-1B", "image", _WALA + _DINOV2),
        _wala("SK-1B", "sketch", _WALA + _DINOV2),
        _wala("VX16-1B", "voxels 16³", 0),
        _wala("PC-1B", "points", 0),
        _wala("DM1-1B", "1 depth map", _WALA + _DINOV2),
        _wala("DM4-1B", "4 depth maps", _WALA + _DINOV2 + 4 * 1024),
        _wala("DM6-1B", "6 depth maps", _WALA + _DINOV2 + 6 * 1024),
        _wala("RGB4-1B", "4 views", _WALA + _DINOV2 + 4 * 1024),
        _wala(_MVDREAM_DM6, "text to 6 depth maps", 0, "checkpoint.ckpt", needs=("ADSKAILab/WaLa-DM6-1B",)),
        _wala(_MVDREAM_RGB4, "text to 4 views", 0, "checkpoint.ckpt", needs=("ADSKAILab/WaLa-RGB4-1B",)),
    )
}
