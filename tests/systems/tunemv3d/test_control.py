"""The branch on six families of foundations: nothing changes at the start, everything can learn, nothing else does."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import pytest
import torch
from torch import Tensor

from anyform.errors import WeightsError
from anyform.systems.tunemv3d.config import tiny
from anyform.systems.tunemv3d.control import ControlBranch, LightEncoder, ZeroProjection
from anyform.systems.tunemv3d.foundation import Caption, Foundation, fold, joined, require_same, unfold
from anyform.systems.tunemv3d.latent_neus import Rig

FAMILIES = ("ours", "stable-diffusion", "sdxl", "deepfloyd-if", "karlo", "transformer")


def branch_of(foundation: Foundation, **changes: object) -> ControlBranch:
    config = tiny()
    field = replace(config.field, channels=foundation.spec.channels, is_color=foundation.spec.channels == 3)
    torch.manual_seed(1)
    return ControlBranch(foundation, replace(config, field=field, **changes))


def inputs(foundation: Foundation, views: int = 4) -> tuple[Tensor, Tensor, Caption]:
    spec = foundation.spec
    x = torch.randn(views, spec.channels, spec.size, spec.size, generator=torch.Generator().manual_seed(2))
    return x, torch.tensor([700] * views), foundation.captions(["a chair"]).repeated(views)


def controlled(branch: ControlBranch, foundation: Foundation, rig: Rig) -> tuple[Tensor, list[Tensor]]:
    x, t, caption = inputs(foundation)
    seen = branch.perceive(x, t, t[:1], caption, rig)
    residuals = branch.residuals(seen.views, x, t, caption, branch.mass(seen, rig))
    return foundation.predict(x, t, caption, residuals).value, residuals


@pytest.mark.parametrize("family", FAMILIES)
def test_zero_convolutions_change_nothing_at_the_start_and_can_learn(family: str, tiny_foundation: ModuleType) -> None:
    foundation = tiny_foundation.ALL[family]()
    branch = branch_of(foundation)
    x, t, caption = inputs(foundation)
    plain = foundation.predict(x, t, caption).value
    assert plain.shape == x.shape  # a learned variance is cut off
    said, residuals = controlled(branch, foundation, Rig.of(tiny_foundation.orbit(), foundation.spec.size))
    assert (said - plain).abs().max().item() == 0.0
    assert all(not residual.any() for residual in residuals)
    (said - 1).square().mean().backward()
    for zero in branch.zeros:
        assert isinstance(zero, ZeroProjection)
        assert zero.layer.weight.grad is not None and zero.layer.weight.grad.abs().sum() > 0
    network = getattr(foundation.backbone, "network")  # noqa: B009
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_copy_is_the_foundation_s_encoder(family: str, tiny_foundation: ModuleType) -> None:
    """With identities for zero convolutions, adding twice the encoder's own answer must differ from adding none."""
    foundation = tiny_foundation.ALL[family]()
    branch = branch_of(foundation)
    x, t, caption = inputs(foundation)
    network = getattr(foundation.backbone, "network")  # noqa: B009
    own = dict(network.named_parameters())
    copied = {name: value for name, value in branch.trunk.named_parameters() if not name.startswith("network.pos")}
    assert copied
    for name, value in copied.items():
        assert torch.equal(value, own[name.removeprefix("network.")])
        assert value.data_ptr() != own[name.removeprefix("network.")].data_ptr()
    start = branch.trunk.stem(fold(x, foundation.spec.packing))
    sources = branch.trunk(start, t, caption, lambda _, x: x)
    assert len(sources) == len(branch.zeros)
    moved = foundation.predict(x, t, caption, [0.1 * source for source in sources]).value
    assert (moved - foundation.predict(x, t, caption).value).abs().max() > 1e-4


def test_our_trunk_says_what_encode_says(tiny_foundation: ModuleType) -> None:
    foundation = tiny_foundation.ours()
    branch = branch_of(foundation)
    x, t, caption = inputs(foundation)
    folded = fold(x, 2)
    network = foundation.backbone.network
    with torch.no_grad():
        encoded = network.encode(folded, network.embed(t, caption.vectors["labels"]), caption.tokens)
        sources = branch.trunk(branch.trunk.stem(folded), t, caption, lambda _, x: x)
    for mine, theirs in zip(sources, [*encoded.skips, encoded.middle], strict=True):
        assert torch.equal(mine, theirs)


def test_the_diffusers_trunk_matches_the_skips_of_its_own_forward(tiny_foundation: ModuleType) -> None:
    """Hooked residuals of the real forward pass, family by family: the pinned public methods mean what we think."""
    for family in tiny_foundation.FAMILIES:
        foundation = tiny_foundation.diffusers_unet(family)
        branch = branch_of(foundation, pairwise="none")
        x, t, caption = inputs(foundation)
        found = residuals_of_forward(foundation, x, t, caption)
        with torch.no_grad():
            sources = branch.trunk(branch.trunk.stem(x), t, caption, lambda _, x: x)
        assert len(found) == len(sources) - 1
        for mine, theirs in zip(sources[1:], found, strict=True):
            assert torch.allclose(mine, theirs, atol=1e-5), family


def residuals_of_forward(foundation: Foundation, x: Tensor, t: Tensor, caption: Caption) -> list[Tensor]:
    """What the blocks of a diffusers U-Net give out while it predicts."""
    network, found = foundation.backbone.network, []  # type: ignore[attr-defined]
    handles = [block.register_forward_hook(lambda _, __, out: found.extend(out[1])) for block in network.down_blocks]
    handles.append(network.mid_block.register_forward_hook(lambda _, __, out: found.append(out)))
    with torch.no_grad():
        foundation.predict(x, t, caption)
    for handle in handles:
        handle.remove()
    return found


def test_levels_of_the_asked_size_attend(tiny_foundation: ModuleType) -> None:
    foundation = tiny_foundation.ours()
    assert set(branch_of(foundation).pairs) == {"0", "1", "2"}  # 4 x 4 after the first level, and both at the bottom
    assert not len(branch_of(foundation, pairwise="none").pairs)
    rig = Rig.of(tiny_foundation.orbit(), foundation.spec.size)
    everywhere = branch_of(foundation, pairwise="global")
    x, t, caption = inputs(foundation)
    mass = everywhere.mass(everywhere.perceive(x, t, t[:1], caption, rig), rig)
    assert mass is not None and mass.shape == (1, 64, 64)
    assert mass[0, :16, :16].sum() == 0 and (mass[0, :16, 16:] == 1).all()


def test_views_permute(tiny_foundation: ModuleType) -> None:
    foundation = tiny_foundation.ours()
    branch = branch_of(foundation)
    with torch.no_grad():
        for part in (branch.zeros, branch.pairs):
            for parameter in part.parameters():
                parameter.normal_(0, 0.1)
    x, t, caption = inputs(foundation)
    rig, order = Rig.of(tiny_foundation.orbit(), foundation.spec.size), [2, 0, 3, 1]
    mixed_rig = Rig(rig.projection[order], rig.origins[order], rig.directions[order])
    with torch.no_grad():
        seen, mixed = (branch.perceive(a, t, t[:1], caption, r) for a, r in ((x, rig), (x[order], mixed_rig)))
        one = branch.residuals(seen.views, x, t, caption, branch.mass(seen, rig))
        two = branch.residuals(mixed.views, x[order], t, caption, branch.mass(mixed, mixed_rig))
    assert torch.allclose(seen.views[order], mixed.views, atol=1e-5)
    for a, b in zip(one, two, strict=True):
        assert torch.allclose(a[order], b, atol=1e-4)
    assert (one[-1][0] - one[-1][1]).abs().max() > 1e-3


def test_a_branch_refuses_another_foundation(tiny_foundation: ModuleType) -> None:
    foundation = tiny_foundation.ours()
    recorded = foundation.fingerprint()
    require_same(recorded, tiny_foundation.ours(seed=3))  # same id, revision, structure
    for other, word in (
        (tiny_foundation.ours(id="someone/else"), "model"),
        (tiny_foundation.ours(revision="1"), "revision"),
        (tiny_foundation.ours(reading="eps"), "structure"),
        (tiny_foundation.assembled(tiny_foundation.diffusers_unet("deepfloyd-if").backbone, width=32), "structure"),
    ):
        with pytest.raises(WeightsError, match=word):
            require_same(recorded, other)


def test_captions_join_and_repeat(tiny_foundation: ModuleType) -> None:
    foundation = tiny_foundation.ours()
    both = joined([foundation.captions(["a"]).repeated(3), foundation.captions([""]).repeated(2)])
    assert both.tokens.shape[0] == 5 and both.vectors["labels"].shape == (5, 8)
    assert torch.equal(both.tokens[0], both.tokens[2]) and not torch.equal(both.tokens[2], both.tokens[3])


def test_folding_is_exact_and_the_light_encoder_follows_the_stem() -> None:
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(unfold(fold(x, 2), 2), x) and fold(x, 2).shape == (2, 12, 4, 4)
    assert LightEncoder(4, 24, (8, 8), 2)(torch.randn(1, 4, 16, 16)).shape == (1, 24, 8, 8)
