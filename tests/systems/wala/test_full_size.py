"""The eight released 3D models at full size, without memory: names and shapes as published, nothing missing or left."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from anyform.systems.wala import checkpoint
from anyform.systems.wala.loading import recommended
from anyform.systems.wala.released_keys import CONDITION_KEYS, IGNORED, UVIT_KEYS, VQVAE_KEYS, released_names
from anyform.systems.wala.released_shapes import infer
from anyform.weights import RELEASED, InMemory
from anyform.weights.filling import check_complete
from anyform.weights.released import WALA_WORKING_BYTES

# id -> kind of condition, guidance, steps (specs/wala.md §6.2)
MODELS = {
    "SV-1B": ("image", 1.8, 5), "SK-1B": ("image", 1.8, 5), "VX16-1B": ("voxels", 1.5, 5), "PC-1B": ("points", 1.3, 8),
    "DM1-1B": ("depth", 1.8, 5), "DM4-1B": ("depths4", 1.3, 5), "DM6-1B": ("depths", 1.5, 10),
    "RGB4-1B": ("views", 1.3, 5),
}  # fmt: skip


@pytest.fixture(scope="module")
def full_size(miniature) -> ModuleType:
    """full_size.py with a generator of tensors that have no values."""
    path = Path(__file__).with_name("full_size.py")
    spec = importlib.util.spec_from_file_location("full_size", path)
    assert spec is not None and spec.loader is not None and sys.modules["released_miniature"] is miniature
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def _empty(miniature, monkeypatch: pytest.MonkeyPatch) -> None:
    def tensor(self, name: str, *shape: int, scale: float = 0.3, offset: float = 0.0) -> None:
        self.state[name] = torch.empty(shape, device="meta")

    monkeypatch.setattr(miniature.Random, "tensor", tensor)


@pytest.mark.usefixtures("_empty")
@pytest.mark.parametrize("name", MODELS)
def test_names_shapes_and_counts(full_size: ModuleType, name: str) -> None:
    kind, guidance, steps = MODELS[name]
    tensors = InMemory(full_size.state_of(kind, 0))
    config = infer(tensors, {"resolution": 256, **full_size.CONDITIONS[kind]})
    model = checkpoint._empty(config, checkpoint.PLAIN)
    parts = model.parts()
    names = {
        **released_names(parts["vq"], VQVAE_KEYS, "autoencoder."),
        **{f"net.{a}": b for a, b in released_names(parts["net"], UVIT_KEYS, "network.").items()},
        **{f"cond.{a}": b for a, b in released_names(parts["cond"], CONDITION_KEYS[config.condition.kind], "").items()},
    }
    check_complete(names.values(), tensors, ignored=IGNORED, what=name)
    own = {part: module.state_dict() for part, module in parts.items()}
    for ours, theirs in names.items():
        part, _, rest = ours.partition(".")
        part, rest = (part, rest) if part in ("net", "cond") else ("vq", ours)
        assert tuple(own[part][rest].shape) == tensors.shape(theirs), theirs
    counts = {part: sum(p.numel() for p in module.parameters()) for part, module in parts.items()}
    assert counts["vq"] == 12_872_004 and counts["net"] == 956_482_692
    assert sum(counts.values()) == RELEASED[f"ADSKAILab/WaLa-{name}"].parameters
    if kind == "voxels":
        assert counts["cond"] == 8_855_040 + 512 * 1024
    best = recommended(config)
    assert (best.guidance_scale, best.num_inference_steps, best.variance) == (guidance, steps, "fixed_small")


@pytest.mark.usefixtures("_empty")
def test_half_the_numbers_in_half_the_memory(full_size: ModuleType) -> None:
    """What the early refusal counts with: bfloat16 where matrices are large, float32 elsewhere."""
    tensors = InMemory(full_size.state_of("image", 0))
    config = infer(tensors, {"resolution": 256})
    plain, fast = (
        checkpoint.needed_bytes(checkpoint._empty(config, checkpoint.Plan("cpu", is_fast))) - WALA_WORKING_BYTES
        for is_fast in (False, True)
    )
    assert plain == 4 * RELEASED["ADSKAILab/WaLa-SV-1B"].parameters
    assert 0.5 < fast / plain < 0.53
