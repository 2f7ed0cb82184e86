"""Miniature checkpoints in exactly the published layout, and the published networks' formulas in plain float64.

Written from specs/wala.md alone: names of §3.6, §4.5 and §9, formulas of §4 and §5; nothing here imports anyform.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]


class Random:
    """Adds tensors of a layer under its published name."""

    def __init__(self, seed: int) -> None:
        self.state: State = {}
        self._generator = torch.Generator().manual_seed(seed)

    def tensor(self, name: str, *shape: int, scale: float = 0.3, offset: float = 0.0) -> None:
        self.state[name] = offset + scale * torch.randn(*shape, generator=self._generator)

    def linear(self, name: str, inputs: int, outputs: int, bias: bool = True) -> None:
        self.tensor(f"{name}.weight", outputs, inputs, scale=inputs**-0.5)
        if bias:
            self.tensor(f"{name}.bias", outputs)

    def conv(self, name: str, inputs: int, outputs: int, kernel: int = 3, dims: int = 3) -> None:
        self.tensor(f"{name}.weight", outputs, inputs, *[kernel] * dims, scale=(inputs * kernel**dims) ** -0.5)
        self.tensor(f"{name}.bias", outputs)

    def norm(self, name: str, width: int) -> None:
        self.tensor(f"{name}.weight", width, offset=1.0)
        self.tensor(f"{name}.bias", width)


@dataclass(frozen=True)
class Sizes:
    """A miniature U-ViT; `factor` and `reduction` 0 leave out the multiplier and the learned skip."""

    width: int = 48
    heads: int = 4
    depth: int = 2
    channels: int = 32
    res: int = 2
    grid: int = 6
    patch: int = 1
    context: int = 40
    factor: int = 32
    registers: int = 0
    reduction: int = 0
    cross: bool = True
    pooled: bool = True


def uvit_state(seed: int, **sizes: int | bool) -> State:
    """Tensors of a U-ViT of `Sizes(**sizes)`."""
    o = Sizes(**sizes)
    width, channels, context, patch = o.width, o.channels, o.context, o.patch
    r, p = Random(seed), "network.unet."
    r.linear(p + "t_embedder.mlp.0", 256, width)
    r.linear(p + "t_embedder.mlp.2", width, width)
    pools = {"res_cond_proj_layer": o.factor, "global_proj": width if o.pooled else 0}
    for name, out in pools.items():
        if out:
            r.linear(p + name + ".proj_layer.0", context, width)
            r.norm(p + name + ".proj_layer.1", width)
            r.linear(p + name + ".proj_layer.3", width, width)
            r.norm(p + name + ".proj_layer.4", width)
            r.linear(p + name + ".mlp.0", width, out)
            r.linear(p + name + ".mlp.2", out, out)
    if o.cross:
        r.linear(p + "context_mlp.0", context, width)
        r.linear(p + "context_mlp.2", width, width)
    r.conv(p + "conv_in", 4, channels)
    for side in ("input", "output"):
        for n in range(o.res):
            block = f"{p}{side}_blocks.{n}."
            r.norm(block + "in_norm", channels)
            r.conv(block + "in_conv", channels, channels)
            r.linear(block + "emb_layers.1", width, 2 * channels)
            r.norm(block + "out_layers.0", channels)
            r.conv(block + "out_layers.3", channels, channels)
            if o.factor:
                r.linear(block + "linear_res_emb", o.factor, channels)
            if side == "output":
                r.norm(block + "skip_norm", channels)
                if o.reduction:
                    r.linear(block + "skip_learn_f.0", channels, channels // o.reduction)
                    r.linear(block + "skip_learn_f.2", channels // o.reduction, channels)
    r.norm(p + "to_patch_att_embedding_input.1", channels * patch**3)
    r.linear(p + "to_patch_att_embedding_input.2", channels * patch**3, width)
    r.tensor(p + "pos_emb", 1, (o.grid // patch) ** 3, width)
    if o.registers:
        r.tensor(p + "register_emb", o.registers, width)
    for n in range(o.depth):
        block = f"{p}blocks.{n}."
        r.linear(block + "adaLN_modulation.1", width, 6 * width)
        r.linear(block + "attn.qkv", width, 3 * width)
        r.linear(block + "attn.proj", width, width)
        attentions = ["attn"]
        if o.cross:
            r.linear(block + "cross_attn.q", width, width)
            r.linear(block + "cross_attn.kv", width, 2 * width)
            r.linear(block + "cross_attn.proj", width, width)
            attentions.append("cross_attn")
        for attention in attentions:
            r.norm(block + attention + ".q_norm", width // o.heads)
            r.norm(block + attention + ".k_norm", width // o.heads)
        r.linear(block + "mlp.fc1", width, 4 * width)
        r.linear(block + "mlp.fc2", 4 * width, width)
    r.norm(p + "to_patch_att_embedding_output.0", width)
    r.linear(p + "to_patch_att_embedding_output.1", width, channels * patch**3)
    r.norm(p + "out.0", channels)
    r.conv(p + "out.2", channels, 4)
    return r.state


def vq_state(seed: int, hidden: int = 32, token_blocks: int = 0, grid: int = 6, codes: int = 16) -> State:
    r = Random(seed)
    names = {
        "encoder": ("res_1", "res_1_1", "res_2", "res_2_1", "res_3", "res_3_1", "res_out"),
        "decoder": ("res_in", "res_1", "res_1_1", "res_2", "res_2_1", "res_3", "res_3_1"),
    }
    for side, inputs, outputs in (("encoder", 64, 4), ("decoder", 4, 64)):
        p = f"autoencoder.{side}."
        r.conv(p + "in_conv", inputs, hidden)
        for name in names[side]:
            r.norm(f"{p}{name}.in_norm", hidden)
            r.conv(f"{p}{name}.in_conv", hidden, hidden)
            r.norm(f"{p}{name}.out_layers.0", hidden)
            r.conv(f"{p}{name}.out_layers.3", hidden, hidden)
        if token_blocks:
            r.tensor(p + "pos_emb", 1, grid**3, hidden)
        for n in range(token_blocks):
            block = f"{p}t_blocks.{n}."
            r.norm(block + "mlp.norm", hidden)
            r.linear(block + "mlp.dense1", hidden, 4 * hidden)
            r.linear(block + "mlp.out", 4 * hidden, hidden)
            for part in "qkv":
                r.linear(f"{block}att.to_{part}.1", hidden, 256)
            r.norm(block + "att.norm_q", 256)
            r.norm(block + "att.norm_k", 256)
            r.linear(block + "att.to_out.1", 256, hidden)
        r.norm(p + "out_conv.0", hidden)
        r.conv(p + "out_conv.2", hidden, outputs)
    r.tensor("autoencoder.quantize.embedding.weight", codes, 4, scale=1.0)
    for prefix in ("autoencoder.", ""):  # filter buffers that no loader needs
        for bank, taps in (("dwt_sparse_composer", ("h0", "h1", "g0", "g1")), ("dwt_inverse_3d", ("g0", "g1"))):
            for tap in taps:
                for axis in ("dep", "col", "row"):
                    r.tensor(f"{prefix}{bank}.{tap}_{axis}", 1, 1, 18)
    return r.state


def voxel_state(seed: int, width: int = 40, hidden: int = 32, stem: int = 32) -> State:
    r = Random(seed)
    r.conv("encoder.in_conv", 1, stem)
    for n in range(1, 7):
        inputs = stem if n == 1 else hidden
        r.norm(f"encoder.res_{n}.in_norm", inputs)
        r.conv(f"encoder.res_{n}.in_conv", inputs, hidden)
        r.norm(f"encoder.res_{n}.out_layers.0", hidden)
        r.conv(f"encoder.res_{n}.out_layers.3", hidden, hidden)
        if inputs != hidden:
            r.conv(f"encoder.res_{n}.skip_connection", inputs, hidden)
    r.norm("encoder.out_conv.0", hidden)
    r.conv("encoder.out_conv.2", hidden, width)
    r.tensor("network.cond_pos_emb", 1, 8**3, width)
    return r.state


def pointnet_state(
    seed: int,
    width: int = 40,
    simple: bool = False,
    heads: int = 4,
    depth: int = 2,
    points: tuple[int, ...] = (8, 12, 16, 32),
    queries: int = 9,
) -> State:
    r, inner = Random(seed), points[-1]
    for n, (a, b) in enumerate(zip((3, *points), points, strict=False), 1):
        r.linear(f"encoder.linear{n}", a, b)
        r.norm(f"encoder.ln{n}", b)
    r.tensor("encoder.pooling.I", 1, queries, inner)
    r.linear("encoder.pooling.mab0.q", inner, inner, bias=not simple)
    r.linear("encoder.pooling.mab0.kv", inner, 2 * inner, bias=not simple)
    r.linear("encoder.pooling.mab0.proj", inner, inner)
    r.norm("encoder.pooling.mab0.q_norm", inner // heads)
    r.norm("encoder.pooling.mab0.k_norm", inner // heads)
    if simple:
        for n in (1, 2, 3):
            r.linear(f"encoder.linear_f{n}", inner if n == 1 else width, width)
        r.norm("encoder.ln_f1", width)
        r.norm("encoder.ln_f2", width)
    else:
        r.linear("encoder.pooling.mlp.fc1", inner, 4 * inner)
        r.linear("encoder.pooling.mlp.fc2", 4 * inner, width)
        for n in range(depth):
            block = f"encoder.t_blocks.{n}."
            r.linear(block + "attn.qkv", width, 3 * width, bias=False)
            r.linear(block + "attn.proj", width, width)
            r.norm(block + "attn.q_norm", width // heads)
            r.norm(block + "attn.k_norm", width // heads)
            r.linear(block + "mlp.fc1", width, 4 * width)
            r.linear(block + "mlp.fc2", 4 * width, width)
    r.tensor("network.cond_pos_emb", 1, queries, width)
    return r.state


def dino_state(
    seed: int, views: int = 0, mapping: int = 0, width: int = 64, depth: int = 2, trained: int = 5, cells: int = 3
) -> State:
    """ViT of patch 14, trained at 5 cells, of which 3 × 3 are used here; heads are 64 wide."""
    r, p = Random(seed), "clip_model.dinov2."
    r.tensor(p + "cls_token", 1, 1, width)
    r.tensor(p + "pos_embed", 1, 1 + trained**2, width)
    r.tensor(p + "register_tokens", 1, 4, width)
    r.tensor(p + "mask_token", 1, width)
    r.conv(p + "patch_embed.proj", 3, width, 14, dims=2)
    for n in range(depth):
        block = f"{p}blocks.{n}."
        r.norm(block + "norm1", width)
        r.linear(block + "attn.qkv", width, 3 * width)
        r.linear(block + "attn.proj", width, width)
        r.tensor(block + "ls1.gamma", width)
        r.norm(block + "norm2", width)
        r.linear(block + "mlp.fc1", width, 4 * width)
        r.linear(block + "mlp.fc2", 4 * width, width)
        r.tensor(block + "ls2.gamma", width)
    r.norm(p + "norm", width)
    r.tensor("network.cond_pos_emb", 1, cells**2, width)
    for n in range(mapping):
        r.linear(f"network.cond_mapping_network.{n}.0", width, width)
    if views:
        r.tensor("network.camera_emb.weight", views, width)
    return r.state


def write(folder: Path, state: State, args: dict, *, ema: State | None = None) -> Path:
    """`checkpoint.ckpt` as Lightning writes it and `args.json`, for SDFs of 64³ (latent 6³)."""
    folder.mkdir(parents=True, exist_ok=True)
    content: dict = {"epoch": 3, "global_step": 100, "pytorch-lightning_version": "2.0.0", "state_dict": state}
    if ema is not None:
        content["state_dict_ema"] = {f"module.{name}": value for name, value in ema.items()}
    torch.save(content, folder / "checkpoint.ckpt")
    known = {
        "resolution": 64,
        "wavelet": "bior6.8",
        "padding_mode": "constant",
        "max_depth": 3,
        "max_training_level": 2,
    }
    (folder / "args.json").write_text(json.dumps({**known, **args}), encoding="utf-8")
    return folder


def _linear(s: State, name: str, x: Tensor) -> Tensor:
    return x @ s[name + ".weight"].T + s.get(name + ".bias", torch.zeros((), dtype=x.dtype))


def _norm(s: State, name: str, x: Tensor) -> Tensor:
    return _plain_norm(x, 1e-5) * s[name + ".weight"] + s[name + ".bias"]


def _plain_norm(x: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()


def _group_norm(s: State, name: str, x: Tensor) -> Tensor:
    grouped = _plain_norm(x.reshape(len(x), 32, -1), 1e-5).reshape(x.shape)
    return grouped * s[name + ".weight"][:, None, None, None] + s[name + ".bias"][:, None, None, None]


def _conv(s: State, name: str, x: Tensor) -> Tensor:
    """A 3³ convolution as 27 shifted matrix products."""
    weight, edge = s[name + ".weight"], x.shape[-1]
    padded = F.pad(x, (1,) * 6)
    out = s[name + ".bias"][:, None, None, None]
    for i in range(3):
        for j in range(3):
            for k in range(3):
                shifted = padded[:, :, i : i + edge, j : j + edge, k : k + edge]
                out = out + torch.einsum("oc,bcxyz->boxyz", weight[:, :, i, j, k], shifted)
    return out


def _silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def _tanh_gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _attention(s: State, block: str, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Head by head, with the LayerNorm of q and k; q, k, v: (B, L, W)."""
    outputs, size = [], q.shape[-1] // heads
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        a, b = _norm(s, block + "q_norm", q[..., part]), _norm(s, block + "k_norm", k[..., part])
        scores = torch.exp(a @ b.transpose(1, 2) / math.sqrt(size))
        outputs.append(scores / scores.sum(-1, keepdim=True) @ v[..., part])
    return _linear(s, block + "proj", torch.cat(outputs, -1))


def _pool(s: State, name: str, tokens: Tensor) -> Tensor:
    h = _silu(_norm(s, name + ".proj_layer.1", _linear(s, name + ".proj_layer.0", tokens)))
    h = _silu(_norm(s, name + ".proj_layer.4", _linear(s, name + ".proj_layer.3", h))).mean(1)
    return _linear(s, name + ".mlp.2", _silu(_linear(s, name + ".mlp.0", h)))


def _residual(s: State, block: str, x: Tensor, te: Tensor, r: Tensor | None, skip: Tensor | None) -> Tensor:
    h = _group_norm(s, block + "in_norm", x)
    if skip is not None:
        skip = _group_norm(s, block + "skip_norm", skip)
        if block + "skip_learn_f.0.weight" in s:
            squeezed = torch.relu(_linear(s, block + "skip_learn_f.0", skip.mean((2, 3, 4))))
            h = h + torch.sigmoid(_linear(s, block + "skip_learn_f.2", squeezed))[:, :, None, None, None] * skip
        else:
            h = (h + skip) / 2**0.5
    h = _group_norm(s, block + "out_layers.0", _conv(s, block + "in_conv", _silu(h)))
    scale, shift = _linear(s, block + "emb_layers.1", _silu(te)).chunk(2, 1)
    h = h * (1 + scale[:, :, None, None, None]) + shift[:, :, None, None, None]
    if r is not None:
        h = h * _linear(s, block + "linear_res_emb", r)[:, :, None, None, None]
    return x + _conv(s, block + "out_layers.3", _silu(h))


def uvit_oracle(state: State, x: Tensor, t: Tensor, tokens: Tensor | None, *, heads: int = 4, patch: int = 1) -> Tensor:
    """The published U-ViT, token by token loops where they are cheap; everything in float64."""
    s = {name.removeprefix("network.unet."): value.double() for name, value in state.items()}
    x, grid = x.double(), x.shape[-1]
    frequency = torch.tensor([math.exp(-math.log(10000) * i / 128) for i in range(128)], dtype=torch.float64)
    angle = t.double()[:, None] * frequency
    te = _linear(s, "t_embedder.mlp.2", _silu(_linear(s, "t_embedder.mlp.0", torch.cat([angle.cos(), angle.sin()], 1))))
    a, r = te, None
    if tokens is not None:
        tokens = tokens.double()
        if "global_proj.mlp.0.weight" in s:
            a = te + _pool(s, "global_proj", tokens)
        if "res_cond_proj_layer.mlp.0.weight" in s:
            r = _pool(s, "res_cond_proj_layer", tokens)
    num_res = len({name.split(".")[1] for name in s if name.startswith("input_blocks")})
    depth = len({name.split(".")[1] for name in s if name.startswith("blocks.")})
    h, skips = _conv(s, "conv_in", x), []
    for n in range(num_res):
        h = _residual(s, f"input_blocks.{n}.", h, te, r, None)
        skips.append(h)
    cells = grid // patch
    flat = torch.stack(
        [
            h[:, :, i * patch : (i + 1) * patch, j * patch : (j + 1) * patch, k * patch : (k + 1) * patch]
            .permute(0, 2, 3, 4, 1)
            .reshape(len(h), -1)
            for i in range(cells)
            for j in range(cells)
            for k in range(cells)
        ],
        1,
    )
    y = _linear(s, "to_patch_att_embedding_input.2", _norm(s, "to_patch_att_embedding_input.1", flat)) + s["pos_emb"]
    count = y.shape[1]
    if "register_emb" in s:
        y = torch.cat([y, s["register_emb"].expand(len(y), -1, -1)], 1)
    for n in range(depth):
        block = f"blocks.{n}."
        b1, s1, g1, b2, s2, g2 = (
            part[:, None] for part in _linear(s, block + "adaLN_modulation.1", _silu(a)).chunk(6, 1)
        )
        q, k, v = _linear(s, block + "attn.qkv", _plain_norm(y, 1e-6) * (1 + s1) + b1).chunk(3, -1)
        y = y + g1 * _attention(s, block + "attn.", q, k, v, heads)
        if block + "cross_attn.q.weight" in s:
            context = _linear(s, "context_mlp.2", _silu(_linear(s, "context_mlp.0", tokens)))
            k, v = _linear(s, block + "cross_attn.kv", context).chunk(2, -1)
            y = y + _attention(s, block + "cross_attn.", _linear(s, block + "cross_attn.q", y), k, v, heads)
        h1 = _tanh_gelu(_linear(s, block + "mlp.fc1", _plain_norm(y, 1e-6) * (1 + s2) + b2))
        y = y + g2 * _linear(s, block + "mlp.fc2", h1)
    out_norm, out = "to_patch_att_embedding_output.0", "to_patch_att_embedding_output.1"
    y = _linear(s, out, _norm(s, out_norm, y[:, :count]))
    h = torch.zeros(len(y), y.shape[-1] // patch**3, grid, grid, grid, dtype=torch.float64)
    for token in range(count):
        i, j, k = token // cells**2, token // cells % cells, token % cells
        cube = y[:, token].reshape(len(y), patch, patch, patch, -1).permute(0, 4, 1, 2, 3)
        h[:, :, i * patch : (i + 1) * patch, j * patch : (j + 1) * patch, k * patch : (k + 1) * patch] = cube
    for n in range(num_res):
        h = _residual(s, f"output_blocks.{n}.", h, te, r, skips[-1 - n])
    return _conv(s, "out.2", _silu(_group_norm(s, "out.0", h)))
