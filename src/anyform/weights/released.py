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

    files: on the hub; none = it is on no hub, so a user gives the file. parameters: of all networks in it, 0 = not
    counted. working_bytes: what a run holds besides the weights. measured_peak: precision -> resident bytes of a whole
    `anyform generate` on a CPU, with random weights (tests/systems/wala/full_size.py). gated: the hub asks for an
    account that was granted access. needs: ids of other released checkpoints without which this one makes no asset.
    """

    id: str
    system: str
    prompt: str
    licence: str
    licence_url: str
    commercial_use: str
    files: tuple[str, ...]
    parameters: int = 0
    working_bytes: int = 0
    measured_peak: Mapping[str, int] = field(default_factory=dict)
    gated: bool = False
    needs: tuple[str, ...] = ()
    sha256: Mapping[str, str] = field(default_factory=dict)

    def peak_bytes(self, precision: str) -> int:
        """Peak memory in "float32" or "bfloat16": measured, else computed from the parameters; 0 = unknown."""
        if precision in self.measured_peak or not self.parameters:
            return self.measured_peak.get(precision, 0)
        each = 4.0 if precision == "float32" else _BYTES_IN_BFLOAT16
        return round(self.parameters * each) + self.working_bytes


WALA_WORKING_BYTES = 1_100_000_000  # of a generation at 256³, torch itself included
_BYTES_IN_BFLOAT16 = 2.06  # a parameter: normalisations and small layers stay float32
_AUTODESK = "Autodesk Non-Commercial (3D Generative) v1.0, covers outputs"
_AUTODESK_URL = "https://github.com/AutodeskAILab/WaLa/blob/main/LICENSE.md"
# VQ-VAE and U-ViT of every 3D model; then DINOv2 with the positions of one view, which cameras come on top of.
_WALA = 12_872_004 + 956_482_692
_IMAGES = 304_371_712 + 256 * 1024
_MVDREAM = 867_572_164 + 83_653_863 + 352_984_064  # U-Net with its camera layers, autoencoder, text tower


def _wala(
    name: str,
    prompt: str,
    parameters: int,
    *files: str,
    needs: tuple[str, ...] = (),
    peak: Mapping[str, int] | None = None,
) -> Released:
    return Released(
        id=f"ADSKAILab/WaLa-{name}",
        system="wala",
        prompt=prompt,
        licence=_AUTODESK,
        licence_url=_AUTODESK_URL,
        commercial_use="no",
        files=files or ("checkpoint.ckpt", "args.json"),
        parameters=parameters,
        working_bytes=WALA_WORKING_BYTES,
        measured_peak=peak or {},
        needs=needs,
    )


_MVDREAM_DM6, _MVDREAM_RGB4 = "MVDream-DM6", "MVDream-RGB4"

RELEASED: dict[str, Released] = {
    entry.id: entry
    for entry in (
        _wala("SV-1B", "image", _WALA + _IMAGES),
        _wala("SK-1B", "sketch", _WALA + _IMAGES),
        _wala("VX16-1B", "voxels 16³", _WALA + 9_379_328, peak={"bfloat16": 3_040_440_320}),
        _wala("PC-1B", "points", _WALA + 64_808_320),
        _wala("DM1-1B", "1 depth map", _WALA + _IMAGES),
        _wala("DM4-1B", "4 depth maps", _WALA + _IMAGES + 4 * 1024),
        _wala("DM6-1B", "6 depth maps", _WALA + _IMAGES + 6 * 1024),
        _wala("RGB4-1B", "4 views", _WALA + _IMAGES + 4 * 1024),
        _wala(_MVDREAM_DM6, "text to 6 depth maps", _MVDREAM, "checkpoint.ckpt", needs=("ADSKAILab/WaLa-DM6-1B",)),
        _wala(_MVDREAM_RGB4, "text to 4 views", _MVDREAM, "checkpoint.ckpt", needs=("ADSKAILab/WaLa-RGB4-1B",)),
        Released(
            id="imagebind",
            system="xbind",
            prompt="joint embedding of six modalities (imagebind_huge.pth)",
            licence="CC BY-NC-SA 4.0",
            licence_url="https://github.com/facebookresearch/ImageBind/blob/main/LICENSE",
            commercial_use="no",
            files=(),
        ),
    )
}
