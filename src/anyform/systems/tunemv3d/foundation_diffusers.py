"""Networks of diffusers as foundations: every UNet2DConditionModel, and isotropic transformers like PixArt.

Nothing is patched: a U-Net takes residuals through its own arguments, a transformer through forward hooks that live for
one call. The trainable copy is a deep copy without its second half, because ControlNetModel drops parts of DeepFloyd-IF
(specs/tunemv3d.md §0.1).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from anyform.diffusion.prior import Codec
from anyform.errors import WeightsError
from anyform.systems.tunemv3d.foundation import Caption, Hook, Trunk

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

_ADDED = ("text_embeds", "time_ids")  # what SDXL takes beside tokens


def _arguments(caption: Caption) -> dict[str, Any]:
    """What a diffusers U-Net calls the parts of a caption."""
    added = {name: caption.vectors[name] for name in _ADDED if name in caption.vectors}
    return {"class_labels": caption.vectors.get("class_labels"), "added_cond_kwargs": added}


class DiffusersTrunk(Trunk):
    """The first half of a diffusers U-Net of any block type."""

    def __init__(self, network: UNet2DConditionModel) -> None:
        super().__init__()
        own: Any = copy.deepcopy(network)
        own.up_blocks = nn.ModuleList()
        own.conv_norm_out = own.conv_act = None
        own.conv_out = nn.Identity()
        self.network = own.requires_grad_(True)

    def stem(self, x: Tensor) -> Tensor:
        return self.network.conv_in(x)

    def forward(self, start: Tensor, t: Tensor, caption: Caption, hook: Hook) -> list[Tensor]:
        network, x, residuals = self.network, start, [start]
        named = _arguments(caption)
        embedding = self._embedding(start, t, caption.tokens, named)
        tokens = network.process_encoder_hidden_states(caption.tokens, named["added_cond_kwargs"])
        for number, block in enumerate(network.down_blocks):
            more = {"encoder_hidden_states": tokens} if getattr(block, "has_cross_attention", False) else {}
            x, found = block(hidden_states=x, temb=embedding, **more)
            x = hook(number, x)
            residuals += [*found[:-1], x]
        middle = network.mid_block
        if middle is not None:
            more = {"encoder_hidden_states": tokens} if getattr(middle, "has_cross_attention", False) else {}
            x = middle(x, embedding, **more)
        return [*residuals, hook(len(network.down_blocks), x)]

    def _embedding(self, start: Tensor, t: Tensor, tokens: Tensor, named: Mapping[str, Any]) -> Tensor:
        """The time embedding with class, text and size embeddings added, as UNet2DConditionModel.forward does."""
        network = self.network
        embedding = network.time_embedding(network.get_time_embed(start, t))
        labels = network.get_class_embed(start, named["class_labels"])
        if labels is not None:
            concatenated = network.config.class_embeddings_concat
            embedding = torch.cat([embedding, labels], -1) if concatenated else embedding + labels
        added = network.get_aug_embed(
            emb=embedding, encoder_hidden_states=tokens, added_cond_kwargs=named["added_cond_kwargs"]
        )
        embedding = embedding if added is None else embedding + added
        return embedding if network.time_embed_act is None else network.time_embed_act(embedding)


class DiffusersBackbone:
    """A frozen diffusers U-Net."""

    def __init__(self, network: UNet2DConditionModel) -> None:
        self.network: Any = network.eval().requires_grad_(False)

    def predict(self, x: Tensor, t: Tensor, caption: Caption, residuals: Sequence[Tensor] | None) -> Tensor:
        """(B, C, s, s) -> the network's own reading, its learned variance too where it has one."""
        named = _arguments(caption)
        if residuals is not None:
            named["down_block_additional_residuals"] = tuple(residuals[:-1])
            named["mid_block_additional_residual"] = residuals[-1]
        return self.network(x, t, caption.tokens, return_dict=False, **named)[0]

    def trunk(self) -> DiffusersTrunk:
        """A fresh trainable copy of the first half."""
        return DiffusersTrunk(self.network)

    def config(self) -> Mapping[str, Any]:
        """What decides the structure."""
        return _stable(self.network.config)


class TransformerTrunk(Trunk):
    """The first `depth` blocks of an isotropic transformer; a residual's source is (B, L, D) tokens."""

    def __init__(self, network: nn.Module, depth: int) -> None:
        super().__init__()
        own: Any = copy.deepcopy(network)
        own.transformer_blocks = own.transformer_blocks[:depth]
        self.network = own.requires_grad_(True)
        for unused in (own.proj_out, own.norm_out):
            unused.requires_grad_(False)
        own.scale_shift_table.requires_grad_(False)

    def stem(self, x: Tensor) -> Tensor:
        """(B, C, s, s) -> (B, D, h, w): the patch embedding as a map."""
        tokens = self.network.pos_embed(x)
        height = x.shape[-2] // self.network.config.patch_size
        return tokens.transpose(1, 2).unflatten(2, (height, -1))

    def forward(self, start: Tensor, t: Tensor, caption: Caption, hook: Hook) -> list[Tensor]:
        size, found = start.shape[-2:], []

        def enter(*_: object) -> Tensor:
            return start.flatten(2).transpose(1, 2)

        def leave(_: nn.Module, __: object, tokens: Tensor) -> Tensor:
            picture = hook(len(found), tokens.transpose(1, 2).unflatten(2, tuple(size)))
            found.append(picture.flatten(2).transpose(1, 2))
            return found[-1]

        handles = [self.network.pos_embed.register_forward_hook(enter)]
        handles += [block.register_forward_hook(leave) for block in self.network.transformer_blocks]
        edge = size[0] * self.network.config.patch_size
        try:
            blank = start.new_zeros(len(start), self.network.config.in_channels, edge, edge)
            self.network(blank, caption.tokens, timestep=t, added_cond_kwargs=_sizes(caption), return_dict=False)
        finally:
            for handle in handles:
                handle.remove()
        return found


class TransformerBackbone:
    """A frozen isotropic transformer; `depth` of its blocks are copied and answered with residuals (§7.3)."""

    def __init__(self, network: nn.Module, depth: int) -> None:
        self.network: Any = network.eval().requires_grad_(False)
        self.depth = depth

    def predict(self, x: Tensor, t: Tensor, caption: Caption, residuals: Sequence[Tensor] | None) -> Tensor:
        """(B, C, s, s) -> the network's own reading, its learned variance too where it has one."""
        handles = []
        answered = self.network.transformer_blocks[: self.depth] if residuals else ()
        for block, residual in zip(answered, residuals or (), strict=True):
            handles.append(block.register_forward_hook(lambda _, __, out, residual=residual: out + residual))
        try:
            named = {"timestep": t, "added_cond_kwargs": _sizes(caption), "return_dict": False}
            return self.network(x, caption.tokens, **named)[0]
        finally:
            for handle in handles:
                handle.remove()

    def trunk(self) -> TransformerTrunk:
        """A fresh trainable copy of the first half."""
        return TransformerTrunk(self.network, self.depth)

    def config(self) -> Mapping[str, Any]:
        """What decides the structure."""
        return {"depth": self.depth, **_stable(self.network.config)}


def _sizes(caption: Caption) -> dict[str, Tensor | None]:
    """PixArt's micro-conditions; None where the model has none."""
    return {name: caption.vectors.get(name) for name in ("resolution", "aspect_ratio")}


def _stable(config: Mapping[str, Any]) -> dict[str, Any]:
    """A diffusers config without what changes with the library or the path it was read from."""
    return {key: value for key, value in config.items() if not key.startswith("_")}


def load_unet(folder: Path) -> Any:
    """The frozen U-Net of a folder, from safetensors only."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    kind: Any = UNet2DConditionModel
    try:
        return kind.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise WeightsError(f"the network in {folder.name} cannot be read: {reason}") from error


class AutoencoderCodec:
    """A diffusers AutoencoderKL: pictures in [0, 1] <-> scaled latents, by the mode and never a draw."""

    def __init__(self, network: Any) -> None:
        self.network = network.eval().requires_grad_(False)
        self.scale = float(network.config.scaling_factor)

    @property
    def factor(self) -> int:
        """Pixels a latent sample."""
        return 2 ** (len(self.network.config.block_out_channels) - 1)

    def encode(self, sample: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, C, S / factor, S / factor)."""
        return self.network.encode(sample * 2 - 1).latent_dist.mode() * self.scale

    def decode(self, latent: Tensor) -> Tensor:
        """Inverse of `encode`, as far as the network goes, cut to [0, 1]."""
        return ((self.network.decode(latent / self.scale).sample + 1) / 2).clamp(0, 1)


def latent_codec(folder: Path, device: str) -> tuple[Codec, tuple[float, ...], int]:
    """The autoencoder of a folder, white in its latents, and its pixels a sample."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    kind: Any = AutoencoderKL
    try:
        network = kind.from_pretrained(folder / "vae", local_files_only=True, use_safetensors=True)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise WeightsError(f"the autoencoder of {folder.name} cannot be read: {reason}") from error
    codec = AutoencoderCodec(network.to(device))
    edge = 8 * codec.factor
    with torch.no_grad():
        white = codec.encode(torch.ones(1, 3, edge, edge, device=device))
    return codec, tuple(white.mean((0, 2, 3)).tolist()), codec.factor
