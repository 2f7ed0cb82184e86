"""The U-ViT against the published formulas in float64, its fast forms against itself, and its size."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from anyform.diffusion.prior import Condition
from anyform.diffusion.samplers import spaced_timesteps
from anyform.diffusion.schedule import cosine
from anyform.systems.wala.denoiser import UVitDenoiser
from anyform.systems.wala.released_keys import UVIT_KEYS, released_names
from anyform.systems.wala.uvit import UVit, UVitConfig, fixed_positions, time_features
from anyform.weights import InMemory
from anyform.weights.filling import fill

SMALL = UVitConfig(
    grid=6, width=48, heads=4, depth=2, channels=32, num_res_blocks=2, condition_width=40, condition_channels=32
)


def randomised(config: UVitConfig, dtype: torch.dtype = torch.float64) -> UVit:
    """A network in which nothing is zero, unlike a fresh one."""
    torch.manual_seed(0)
    network = UVit(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.to(dtype).eval().requires_grad_(False)


def inputs(batch: int = 2, tokens: int = 5, dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, 4, 6, 6, 6, generator=generator, dtype=dtype)
    condition = Condition(tokens=torch.randn(batch, tokens, 40, generator=generator, dtype=dtype))
    return x, torch.tensor([17, 803][:batch]), condition


def test_parameter_counts_of_the_released_models() -> None:
    def count(config: UVitConfig) -> int:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in UVit(config).parameters())

    assert count(UVitConfig()) == 956_482_692
    assert count(UVitConfig(depth=30)) == 898_045_188
    one_block = count(UVitConfig(depth=1)) - count(UVitConfig(depth=0))
    assert one_block == 29_218_752


@pytest.mark.parametrize(
    ("config", "options"),
    [
        (SMALL, {}),
        (dataclasses.replace(SMALL, patch=2), {"patch": 2}),
        (dataclasses.replace(SMALL, registers=3), {"registers": 3}),
        (dataclasses.replace(SMALL, learnable_skip=4), {"reduction": 4}),
        (dataclasses.replace(SMALL, condition_channels=None), {"factor": 0}),
        (dataclasses.replace(SMALL, pooled_modulation=False), {"pooled": False}),
        (dataclasses.replace(SMALL, block="dit"), {"cross": False}),
        (
            dataclasses.replace(SMALL, condition_width=0, condition_channels=None, block="dit"),
            {"cross": False, "pooled": False, "factor": 0},
        ),
    ],
    ids=["plain", "patch", "registers", "learnable-skip", "no-factor", "no-pool", "dit", "unconditional"],
)
def test_the_network_is_the_published_formula(miniature, config: UVitConfig, options: dict) -> None:
    state = {name: value.double() for name, value in miniature.uvit_state(3, **options).items()}
    with torch.device("meta"):
        network = UVit(config).double()
    names = released_names(network, UVIT_KEYS, "network.")
    assert sorted(names.values()) == sorted(state)
    fill(network, InMemory(state), names, what="a U-ViT")
    x, t, condition = inputs()
    tokens = condition.tokens if config.condition_width else None
    with torch.no_grad():
        found = network(x, t, Condition(tokens=tokens))
    expected = miniature.uvit_oracle(state, x, t, tokens, patch=config.patch)
    # time features are float32 in the network, as in the public code: an angle of 800 carries 3e-5
    assert torch.allclose(found, expected, atol=1e-4 * expected.abs().max().item(), rtol=0)
    assert expected.std() > 0.1


def test_prepared_steps_equal_the_plain_forward() -> None:
    network = randomised(SMALL)
    x, _, condition = inputs()
    timesteps = spaced_timesteps(5)
    prepared = network.prepare(condition, torch.tensor(timesteps)[:, None])
    for index, t in enumerate(timesteps):
        plain = network(x, torch.full((2,), t), condition)
        assert torch.allclose(network.step(x, index, prepared), plain, atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 1.8, 3.0])
@pytest.mark.parametrize("prediction", ["x0", "v"])
def test_guided_denoising_equals_two_plain_calls(scale: float, prediction: str) -> None:
    network = randomised(dataclasses.replace(SMALL, prediction=prediction))
    denoiser = UVitDenoiser(network, cosine())
    x, _, condition = inputs()
    null = Condition(tokens=torch.zeros(1, 5, 40, dtype=torch.float64))
    denoise = denoiser.guided(condition, null, spaced_timesteps(5), scale)
    for t in (999, 250, 0):
        with_condition = denoiser(x, t, condition)
        without = denoiser(x, torch.tensor([t, t]), Condition(tokens=null.tokens.expand(2, -1, -1)))
        expected = without.x0 + scale * (with_condition.x0 - without.x0)
        assert torch.allclose(denoise(x, t).x0, expected, atol=1e-9)
        assert denoise(x, t).reading == prediction


def test_bfloat16_is_close_and_keeps_the_original() -> None:
    network = randomised(SMALL, torch.float32)
    x, t, condition = inputs(dtype=torch.float32)
    exact = network(x, t, condition)
    fast = network.in_bfloat16()
    found = fast(x, t, condition)
    assert found.dtype == torch.float32
    assert ((found - exact).norm() / exact.norm()).item() < 0.025
    assert torch.equal(network(x, t, condition), exact)
    assert fast.blocks[0].mlp.first.weight.dtype == torch.bfloat16
    assert fast.blocks[0].self_attention.q_norm.norm.weight.dtype == fast.positions.dtype == torch.float32


def test_a_grid_condition_enters_beside_x_t() -> None:
    network = randomised(dataclasses.replace(SMALL, grid_condition_channels=3))
    x, t, condition = inputs()
    grid = torch.randn(2, 3, 6, 6, 6, dtype=torch.float64)
    found = network(x, t, Condition(tokens=condition.tokens, grid=grid))
    assert not torch.allclose(found, network(x, t, Condition(tokens=condition.tokens, grid=-grid)), atol=1e-3)
    plain = randomised(SMALL)
    own = network.state_dict()
    own["stem.weight"] = own["stem.weight"][:, :4]
    plain.load_state_dict(own)
    silent = network(x, t, Condition(tokens=condition.tokens, grid=torch.zeros_like(grid)))
    assert torch.allclose(plain(x, t, condition), silent, atol=1e-12)
    with pytest.raises(ValueError, match="3 grid condition channels, got 0"):
        network(x, t, condition)
    with pytest.raises(ValueError, match="width 40, got none"):
        network(x, t, Condition(grid=grid))


def test_a_fresh_network_predicts_zero_and_learns() -> None:
    network = UVit(SMALL)
    x, t, condition = inputs(dtype=torch.float32)
    output = network(x, t, condition)
    assert torch.equal(output, torch.zeros_like(output))
    ((output - 1) ** 2).mean().backward()
    assert network.head.weight.grad.abs().max() > 0
    trained = randomised(SMALL, torch.float32).requires_grad_(True)
    trained(x, t, condition).square().mean().backward()
    silent = [name for name, p in trained.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert silent == []


def test_samples_of_a_batch_do_not_mix() -> None:
    network = randomised(SMALL)
    x, t, condition = inputs()
    both = network(x, t, condition)
    alone = network(x[1:], t[1:], Condition(tokens=condition.tokens[1:]))
    assert torch.allclose(both[1:], alone, atol=1e-12)


def test_order_of_condition_tokens_does_not_matter_without_positions() -> None:
    network = randomised(SMALL)
    x, t, condition = inputs()
    turned = Condition(tokens=condition.tokens.flip(1))
    assert torch.allclose(network(x, t, condition), network(x, t, turned), atol=1e-12)


def test_time_features_have_cosines_first() -> None:
    features = time_features(torch.tensor([0, 1]))
    assert torch.equal(features[0], torch.cat([torch.ones(128), torch.zeros(128)]))
    assert features[1, 0].item() == pytest.approx(0.5403023, abs=1e-6)
    assert features[1, 128].item() == pytest.approx(0.8414710, abs=1e-6)
    assert features[1, 255].item() == pytest.approx(10000 ** (-127 / 128), rel=1e-4)


def test_fixed_positions_give_each_axis_its_third() -> None:
    table = fixed_positions(3, 12)[0].reshape(3, 3, 3, 12)
    thirds = table.split(4, -1)
    for third, axis in zip(thirds, (1, 0, 2), strict=True):  # y, x, z
        for other in {0, 1, 2} - {axis}:
            assert torch.equal(third.select(other, 0), third.select(other, 2))
        assert torch.allclose(third.movedim(axis, 0)[1, 0, 0], torch.tensor([1.0, 0.01, 1.0, 0.01]).mul(
            torch.tensor([0.8414710, 0.9999833, 0.5403023, 99.995])), atol=1e-4)  # fmt: skip
    with pytest.raises(ValueError, match="divisible by 6, not 16"):
        fixed_positions(3, 16)
    network = UVit(dataclasses.replace(SMALL, fixed_positions=True))
    assert "positions" in network.state_dict()
    assert "positions" not in dict(network.named_parameters())
