"""The wavelet tree of WaLa (supplement A; Make-a-Shape): an SDF as one coarse volume and seven detail bands a level.

Conventions, stated once
- Volumes are (B, N, N, N) with array axes x, y, z (called D, H, W below). Separable transform, edges by `padding`.
- Band b = 1..7 is 4·hi_W + 2·hi_H + 1·hi_D, b = 0 the running low; `details[level]` is (B, 7, s, s, s), coarsest
  level first.
- `padding="constant"` repeats the edge voxel (PyWavelets' "constant"), which released WaLa weights expect; "zero" pads
  zeros.
- One analysis level maps length N to O = (N + L − 1) // 2 (L filter taps); one synthesis level maps O to 2·O − L + 2.

Each one-dimensional step is a small dense matrix with the boundary folded in, so a level is three batched matrix
products: that is several times faster on a CPU than convolutions, and differentiable for free. `analyse_reference` and
`synthesise_reference` are the readable twins; PyWavelets is the oracle in the tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Padding = Literal["constant", "zero"]

_BLOCK = 64  # rows of a band matrix multiplied at once


@dataclass(frozen=True, slots=True)
class Wavelet:
    """Filter taps of a two-channel bank: analysis low and high, synthesis low and high; the same even length each."""

    analysis_low: tuple[float, ...]
    analysis_high: tuple[float, ...]
    synthesis_low: tuple[float, ...]
    synthesis_high: tuple[float, ...]

    @property
    def length(self) -> int:
        """Taps of each filter."""
        return len(self.analysis_low)


def _biorthogonal(analysis_low: tuple[float, ...], synthesis_low: tuple[float, ...]) -> Wavelet:
    """The bank whose high filters are the alternating-sign copies of the other side's low filters."""
    sign = [(-1.0) ** k for k in range(len(analysis_low))]
    analysis_high = tuple(-s * v for s, v in zip(sign, synthesis_low, strict=True))
    synthesis_high = tuple(s * v for s, v in zip(sign, analysis_low, strict=True))
    return Wavelet(analysis_low, analysis_high, synthesis_low, synthesis_high)


# fmt: off
BIOR_6_8 = _biorthogonal(
    analysis_low=(0.0, 0.0019088317364812906, -0.0019142861290887667, -0.016990639867602342, 0.01193456527972926,
                  0.04973290349094079, -0.07726317316720414, -0.09405920349573646, 0.4207962846098268,
                  0.8259229974584023, 0.4207962846098268, -0.09405920349573646, -0.07726317316720414,
                  0.04973290349094079, 0.01193456527972926, -0.016990639867602342, -0.0019142861290887667,
                  0.0019088317364812906),
    synthesis_low=(0.0, 0.0, 0.0, 0.014426282505624435, 0.014467504896790148, -0.07872200106262882,
                   -0.04036797903033992, 0.41784910915027457, 0.7589077294536541, 0.41784910915027457,
                   -0.04036797903033992, -0.07872200106262882, 0.014467504896790148, 0.014426282505624435, 0.0, 0.0,
                   0.0, 0.0),
)
# fmt: on
HAAR = _biorthogonal((0.5**0.5, 0.5**0.5), (0.5**0.5, 0.5**0.5))


@dataclass(frozen=True, slots=True)
class WaveletTree:
    """coarse (B, c, c, c); details: coarsest level first, each (B, 7, s, s, s).

    `finest_is_zero` says that the last entry of `details` is all zeros (an expanded view that costs no memory), so that
    `reconstruct` can skip it: released WaLa drops the finest level (supplement A).
    """

    coarse: Float[Tensor, "b c c c"]
    details: tuple[Tensor, ...]
    finest_is_zero: bool = False


def level_sizes(size: int, wavelet: Wavelet = BIOR_6_8, levels: int = 3) -> tuple[int, ...]:
    """Edge lengths from the volume down to the coarse level: 256 -> (256, 136, 76, 46) for bior6.8."""
    sizes = [size]
    for _ in range(levels):
        sizes.append((sizes[-1] + wavelet.length - 1) // 2)
    return tuple(sizes)


@lru_cache(maxsize=64)
def _analysis_matrix(wavelet: Wavelet, size: int, padding: Padding, dtype: torch.dtype) -> Tensor:
    """(2·O, N): rows k and O + k are y[k] = Σ_j h[j]·x[2k + 1 − j] for low and high filter, boundary folded in."""
    out = (size + wavelet.length - 1) // 2
    matrix = torch.zeros(2 * out, size, dtype=torch.float64)
    for k in range(out):
        for j in range(wavelet.length):
            source = 2 * k + 1 - j
            if not 0 <= source < size:
                if padding == "zero":
                    continue
                source = min(max(source, 0), size - 1)
            matrix[k, source] += wavelet.analysis_low[j]
            matrix[out + k, source] += wavelet.analysis_high[j]
    return matrix.to(dtype)


@lru_cache(maxsize=64)
def _synthesis_matrix(wavelet: Wavelet, size: int, dtype: torch.dtype) -> Tensor:
    """(2·O − L + 2, 2·O): x[m] = Σ_k g_lo[m + L − 2 − 2k]·lo[k] + g_hi[m + L − 2 − 2k]·hi[k]."""
    length = wavelet.length
    rows = 2 * size - length + 2
    matrix = torch.zeros(rows, 2 * size, dtype=torch.float64)
    for m in range(rows):
        for k in range(size):
            tap = m + length - 2 - 2 * k
            if 0 <= tap < length:
                matrix[m, k] = wavelet.synthesis_low[tap]
                matrix[m, size + k] = wavelet.synthesis_high[tap]
    return matrix.to(dtype)


def _on_every_axis(matrix: Tensor, volume: Float[Tensor, "b d h w"]) -> Tensor:
    """The same (M, N) matrix along the last, the middle and the first volume axis: (B, N, N, N) -> (B, M, M, M)."""
    batch, depth, *_ = volume.shape
    along_w = volume @ matrix.T
    along_h = _times(matrix, along_w)
    return _times(matrix, along_h.reshape(batch, depth, -1)).reshape(batch, len(matrix), *along_h.shape[2:])


def _times(matrix: Tensor, x: Float[Tensor, "*b n c"]) -> Float[Tensor, "*b m c"]:
    """matrix @ x; without gradients block of rows by block of rows where the matrix is a large band, mostly zeros."""
    if len(matrix) < 4 * _BLOCK or x.requires_grad:
        return matrix @ x
    out = x.new_empty(*x.shape[:-2], len(matrix), x.shape[-1])
    for start in range(0, len(matrix), _BLOCK):
        rows = matrix[start : start + _BLOCK]
        used = rows.any(0).nonzero()[:, 0]
        band = slice(int(used[0]), int(used[-1]) + 1)
        if len(x) == 1 and x.ndim == 3:  # straight into place: a copy would cost as much as the product
            torch.mm(rows[:, band], x[0, band], out=out[0, start : start + _BLOCK])
        else:
            out[..., start : start + _BLOCK, :] = rows[:, band] @ x[..., band, :]
    return out


def _split_bands(stacked: Tensor, size: int) -> Tensor:
    """(B, 2O, 2O, 2O), each axis low then high -> (B, 8, O, O, O) in band order 4·hi_W + 2·hi_H + hi_D."""
    batch = stacked.shape[0]
    parts = stacked.reshape(batch, 2, size, 2, size, 2, size)
    return parts.permute(0, 5, 3, 1, 2, 4, 6).reshape(batch, 8, size, size, size)


def _join_bands(bands: Tensor) -> Tensor:
    """Inverse of `_split_bands`."""
    batch, _, size = bands.shape[:3]
    parts = bands.reshape(batch, 2, 2, 2, size, size, size)
    return parts.permute(0, 3, 4, 2, 5, 1, 6).reshape(batch, 2 * size, 2 * size, 2 * size)


def decompose(
    sdf: Float[Tensor, "b n n n"],
    padding: Padding = "constant",
    wavelet: Wavelet = BIOR_6_8,
    levels: int = 3,
    with_finest: bool = True,
) -> WaveletTree:
    """The wavelet tree of cubic volumes. Exact against PyWavelets' `wavedecn(mode=padding)` (float64: 1e-10).

    `with_finest=False` leaves the finest details at zero and computes the first level's low band only: what training
    on packed coefficients needs.
    """
    low, details = sdf, []
    for level in range(levels):
        matrix = _analysis_matrix(wavelet, low.shape[-1], padding, low.dtype).to(low.device)
        size = len(matrix) // 2
        if level == 0 and not with_finest:
            low = _on_every_axis(matrix[:size], low)
            details.append(low.new_zeros(()).expand(len(sdf), 7, size, size, size))
        else:
            bands = _split_bands(_on_every_axis(matrix, low), size)
            low = bands[:, 0]
            details.append(bands[:, 1:])
    return WaveletTree(low, tuple(reversed(details)), finest_is_zero=not with_finest)


def reconstruct(tree: WaveletTree, size: int, wavelet: Wavelet = BIOR_6_8) -> Float[Tensor, "b n n n"]:
    """The volume of a tree, cropped to `size` a side."""
    low = tree.coarse
    for level, details in enumerate(tree.details):
        small = details.shape[-1]
        low = low[:, :small, :small, :small]  # odd sizes: the running low is one longer than the bands
        matrix = _synthesis_matrix(wavelet, small, low.dtype).to(low.device)
        if tree.finest_is_zero and level == len(tree.details) - 1:
            low = _on_every_axis(matrix[:, :small], low)
        else:
            low = _on_every_axis(matrix, _join_bands(torch.cat([low[:, None], details], 1)))
    return low[:, :size, :size, :size]


def pack(tree: WaveletTree) -> Float[Tensor, "b ch c c c"]:
    """The kept levels as channels on the coarse grid: [C0 | finer levels … | D0], 64 channels for two kept levels.

    Channel 1 + ((dx·7 + b − 1)·2 + dy)·2 + dz of a level twice as fine is band b at (2i + dx, 2j + dy, 2k + dz): the
    order that released weights depend on (specs/wala.md §2.4). Bands smaller than r·c are padded with zeros on all
    six faces.
    """
    kept = tree.details[:-1] if tree.finest_is_zero else tree.details
    batch, edge = len(tree.coarse), tree.coarse.shape[-1]
    parts = [tree.coarse[:, None]]
    for level in reversed(range(len(kept))):
        factor = 2**level
        margin = (factor * edge - kept[level].shape[-1]) // 2
        padded = torch.nn.functional.pad(kept[level], (margin,) * 6)
        blocks = padded.reshape(batch, 7, edge, factor, edge, factor, edge, factor)
        parts.append(blocks.permute(0, 3, 1, 5, 7, 2, 4, 6).reshape(batch, 7 * factor**3, edge, edge, edge))
    return torch.cat(parts, 1)


def unpack(packed: Float[Tensor, "b ch c c c"], size: int, wavelet: Wavelet = BIOR_6_8, levels: int = 3) -> WaveletTree:
    """Inverse of `pack` for volumes of edge `size`; levels that were not kept come back as zeros (the finest one)."""
    sizes = level_sizes(size, wavelet, levels)
    batch, channels, edge = packed.shape[:3]
    kept = round(torch.log2(torch.tensor(float(channels))).item() / 3)
    if 8**kept != channels or edge != sizes[-1] or not levels - 1 <= kept <= levels:
        raise ValueError(f"{channels} channels at {edge}³ are not {levels} packed levels of a {size}³ volume")
    details, start = [], 1
    for level in reversed(range(kept)):
        factor = 2**level
        count = 7 * factor**3
        blocks = packed[:, start : start + count].reshape(batch, factor, 7, factor, factor, edge, edge, edge)
        full = blocks.permute(0, 2, 5, 1, 6, 3, 7, 4).reshape(batch, 7, *(factor * edge,) * 3)
        margin = (factor * edge - sizes[-1 - level]) // 2 if level else 0
        inner = slice(margin, margin + (sizes[levels - level] if level else edge))
        details.append(full[:, :, inner, inner, inner])
        start += count
    details.reverse()
    if kept < levels:
        details.append(packed.new_zeros(()).expand(batch, 7, *(sizes[1],) * 3))
    return WaveletTree(packed[:, 0], tuple(details), finest_is_zero=kept < levels)


def analyse_reference(signal: Tensor, wavelet: Wavelet, padding: Padding) -> tuple[Tensor, Tensor]:
    """Readable twin of one analysis step along the last axis: the formula, one output at a time."""
    size, outputs = signal.shape[-1], (signal.shape[-1] + wavelet.length - 1) // 2

    def sample(index: int) -> Tensor:
        inside = 0 <= index < size
        value = signal[..., min(max(index, 0), size - 1)]
        return value if inside or padding == "constant" else torch.zeros_like(value)

    def filtered(taps: tuple[float, ...]) -> Tensor:
        zero = torch.zeros_like(signal[..., 0])
        each = [sum((h * sample(2 * k + 1 - j) for j, h in enumerate(taps)), zero) for k in range(outputs)]
        return torch.stack(each, -1)

    return filtered(wavelet.analysis_low), filtered(wavelet.analysis_high)


def synthesise_reference(low: Tensor, high: Tensor, wavelet: Wavelet) -> Tensor:
    """Readable twin of one synthesis step along the last axis."""
    length, size = wavelet.length, low.shape[-1]
    out = torch.zeros(*low.shape[:-1], 2 * size - length + 2, dtype=low.dtype)
    for m in range(out.shape[-1]):
        for k in range(size):
            tap = m + length - 2 - 2 * k
            if 0 <= tap < length:
                out[..., m] += wavelet.synthesis_low[tap] * low[..., k] + wavelet.synthesis_high[tap] * high[..., k]
    return out
