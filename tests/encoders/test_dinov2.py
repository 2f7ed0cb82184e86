"""DINOv2 with registers against transformers' own, and its position resize against a bicubic kernel written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from anyform.encoders.dinov2 import Dinov2, Dinov2Config

SMALL = Dinov2Config(width=32, depth=2, heads=4, patch=4, trained_cells=7, registers=4)


def randomised(config: Dinov2Config = SMALL) -> Dinov2:
    torch.manual_seed(0)
    encoder = Dinov2(config).eval().requires_grad_(False)
    for parameter in encoder.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return encoder


def test_parameter_count_of_the_released_model() -> None:
    with torch.device("meta"):
        encoder = Dinov2(Dinov2Config())
    # transformers' Dinov2WithRegisters has 304,372,736 including a mask token of 1,024 that inference never reads
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 304_371_712


def test_transformers_agrees_at_the_trained_size() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.Dinov2WithRegistersConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, patch_size=4, image_size=28, num_register_tokens=4
    )
    other = transformers.Dinov2WithRegistersModel(config).eval()
    encoder = randomised()
    ours = encoder.state_dict()
    theirs = {
        "embeddings.cls_token": ours["class_token"],
        "embeddings.register_tokens": ours["registers"],
        "embeddings.position_embeddings": ours["positions"],
        "embeddings.mask_token": torch.zeros(1, 32),
        "embeddings.patch_embeddings.projection.weight": ours["patch.weight"],
        "embeddings.patch_embeddings.projection.bias": ours["patch.bias"],
        "layernorm.weight": ours["norm.weight"],
        "layernorm.bias": ours["norm.bias"],
    }
    for n in range(2):
        own, block = f"blocks.{n}.", f"encoder.layer.{n}."
        for kind in ("weight", "bias"):
            qkv = ours[f"{own}attention.qkv.{kind}"].chunk(3)
            for part, value in zip(("query", "key", "value"), qkv, strict=True):
                theirs[f"{block}attention.attention.{part}.{kind}"] = value
            theirs[f"{block}attention.output.dense.{kind}"] = ours[f"{own}attention.out.{kind}"]
            for norm in ("norm1", "norm2"):
                theirs[f"{block}{norm}.{kind}"] = ours[f"{own}{norm}.{kind}"]
            theirs[f"{block}mlp.fc1.{kind}"] = ours[f"{own}mlp.first.{kind}"]
            theirs[f"{block}mlp.fc2.{kind}"] = ours[f"{own}mlp.second.{kind}"]
        theirs[f"{block}layer_scale1.lambda1"] = ours[f"{own}scale1"]
        theirs[f"{block}layer_scale2.lambda1"] = ours[f"{own}scale2"]
    other.load_state_dict(theirs)
    image = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        expected = other(image).last_hidden_state[:, 5:]
    assert torch.allclose(encoder(image), expected, atol=1e-5)


def bicubic_row(position: float, cells: int) -> np.ndarray:
    """Weights over `cells` samples of the cubic kernel with a = −0.75, edges repeated."""
    start = math.floor(position)
    weights = np.zeros(cells)
    for tap in range(start - 1, start + 3):
        d = abs(position - tap)
        a = -0.75
        value = (a + 2) * d**3 - (a + 3) * d**2 + 1 if d <= 1 else a * (d**3 - 5 * d**2 + 8 * d - 4)
        weights[min(max(tap, 0), cells - 1)] += value
    return weights


def test_positions_are_resized_by_the_scale_factor_with_its_offset() -> None:
    encoder = randomised()
    found = encoder.patch_positions(3, 4)[0].reshape(3, 4, 32).numpy()
    trained = encoder.positions[0, 1:].reshape(7, 7, 32).double().numpy()

    def rows(cells: int, offset: float) -> np.ndarray:
        step = 7 / (cells + offset)
        return np.stack([bicubic_row((i + 0.5) * step - 0.5, 7) for i in range(cells)])

    expected = np.einsum("ra,cb,abd->rcd", rows(3, 0.1), rows(4, 0.1), trained)
    assert np.abs(found - expected).max() < 1e-5
    to_size = np.einsum("ra,cb,abd->rcd", rows(3, 0.0), rows(4, 0.0), trained)
    assert np.abs(found - to_size).max() > 1e-3  # a resize to the output size samples elsewhere


def test_positions_at_the_trained_size_are_untouched() -> None:
    encoder = randomised()
    assert torch.equal(encoder.patch_positions(7, 7), encoder.positions[:, 1:])


def test_tokens_are_rows_first_and_count_patches_only() -> None:
    encoder = randomised()
    image = torch.zeros(1, 3, 16, 16)
    tokens = encoder(image)
    assert tokens.shape == (1, 16, 32)
    changed = image.clone()
    changed[..., 0:4, 8:12] = 3.0  # first row, third column
    assert (encoder(changed) - tokens).norm(dim=-1).argmax().item() == 2
