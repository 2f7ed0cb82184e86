"""The ablations can be built, differ from the paper's model as their row says, and carry their published numbers."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from anyform.systems.wala import presets
from anyform.systems.wala.uvit import UVit
from anyform.systems.wala.vqvae import VQVAE, VQVAEConfig


def changed(preset: presets.Preset) -> dict[str, object]:
    """What the U-ViT or the training of a preset has different from the paper's."""
    paper = presets.paper()
    rows = {
        f.name: getattr(preset, f.name) for f in fields(preset) if f.name not in ("uvit", "published", "iterations")
    }
    rows |= {f.name: getattr(preset.uvit, f.name) for f in fields(preset.uvit)}
    reference = {f.name: getattr(paper, f.name) for f in fields(paper)}
    reference |= {f.name: getattr(paper.uvit, f.name) for f in fields(paper.uvit)}
    return {name: value for name, value in rows.items() if value != reference[name]}


@pytest.mark.parametrize(
    ("preset", "difference", "iou"),
    [
        (presets.paper(), {}, 0.8199),
        (presets.uvit_width(384), {"width": 384}, 0.8211),
        (presets.uvit_width(768), {"width": 768}, 0.7966),
        (presets.uvit_width(1152), {}, 0.8199),
        (presets.uvit_depth(8), {"depth": 8}, 0.8020),
        (presets.uvit_depth(16), {"depth": 16}, 0.8237),
        (presets.uvit_depth(32), {}, 0.8199),
        (presets.dit(), {"num_res_blocks": 0, "condition_channels": None}, 0.8145),
        (presets.post_quantisation(), {"latent": "post"}, 0.8176),
        (presets.vqvae_dense_loss(), {"loss": "dense", "balanced_per_dataset": 0}, 0.91597),
        (presets.vqvae_sampled_loss(converged=False), {"balanced_per_dataset": 0}, 0.92619),
        (presets.vqvae_sampled_loss(), {"balanced_per_dataset": 0}, 0.95479),
        (presets.vqvae_balanced(2500), {"balanced_per_dataset": 2500}, 0.95966),
        (presets.vqvae_balanced(5000), {"balanced_per_dataset": 5000}, 0.95873),
        (presets.vqvae_balanced(), {}, 0.95979),
        (presets.vqvae_balanced(20_000), {"balanced_per_dataset": 20_000}, 0.95707),
    ],
)
def test_a_preset_is_its_row(preset: presets.Preset, difference: dict, iou: float) -> None:
    assert changed(preset) == difference
    assert preset.published["iou"] == iou


def test_every_network_can_be_built() -> None:
    def parameters(preset: presets.Preset) -> int:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in UVit(preset.uvit).parameters())

    assert parameters(presets.paper()) == 956_482_692
    sizes = [
        parameters(p) for p in (presets.uvit_width(384), presets.uvit_width(768), presets.uvit_depth(8), presets.dit())
    ]
    assert sizes == sorted(set(sizes), key=sizes.index)
    assert all(size < 956_482_692 for size in sizes)
    # the DiT lacks exactly the convolutions' blocks and the pooled condition that multiplies them (specs/wala.md §4)
    assert parameters(presets.dit()) == 956_482_692 - 3_591_552 - 3_592_320 - 2_677_760


def test_pre_and_post_targets_differ_by_the_snap_to_the_codes() -> None:
    torch.manual_seed(0)
    vqvae = VQVAE(VQVAEConfig(packed_channels=8, packed_size=8, widths=(8, 8, 8), norm_groups=4)).eval()
    with torch.no_grad():
        vqvae.codebook.embedding.normal_()
        packed = torch.randn(1, 8, 8, 8, 8)
        before = presets.paper().diffusion_target(vqvae, packed)
        after = presets.post_quantisation().diffusion_target(vqvae, packed)
        assert torch.equal(before, vqvae.encode(packed))
    codes, cells = vqvae.codebook.embedding.detach(), after.movedim(1, -1).reshape(-1, 4)
    distances = (before.movedim(1, -1).reshape(-1, 1, 4) - codes).norm(dim=-1)
    assert torch.equal(cells, codes[distances.argmin(1)])
