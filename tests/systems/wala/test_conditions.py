"""The prompt encoder and the stage-2 batches: what is absent stays unread, what is present changes the condition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from anyform.systems.wala.codec import ShapeCodec, embedded
from anyform.systems.wala.conditions import (
    KINDS,
    Features,
    PromptEncoder,
    PromptEncoderConfig,
    empty_features,
    stack_features,
    with_encoded,
)
from anyform.systems.wala.training_denoiser import (
    Arrays,
    Denoiser,
    DenoiserLoss,
    DenoiserRecipe,
    FeatureMaker,
    embedded_uvit,
    image_input,
    recolour,
    sketch_input,
)

CONFIG = PromptEncoderConfig(width=32, heads=2, image_blocks=1, lift_channels=4, encoded_lift=True, picture_channels=3)
CODEC = replace(embedded(), refine_width=0, vqvae=replace(embedded().vqvae, widths=(8, 16)))
SHARES = {"text": 1, "image": 2, "sketch": 1, "points": 1, "voxels": 1, "depth": 1, "views": 1}


@pytest.fixture(scope="module")
def encoder() -> PromptEncoder:
    torch.manual_seed(0)
    return PromptEncoder(CONFIG).eval()


def full(batch: int) -> Features:
    """Every part present, random."""
    generator = torch.Generator().manual_seed(5)
    values = empty_features(CONFIG, batch)
    for name, value in values.items():
        if value.dtype == torch.bool:
            values[name] = torch.ones(batch, dtype=torch.bool)
        elif value.is_floating_point():
            values[name] = torch.randn(value.shape, generator=generator)
    return Features(**{**values, "kind": torch.full((batch,), KINDS.index("image"))})


def test_shapes_and_channels(encoder):
    condition = encoder(full(3))
    assert condition.tokens.shape == (3, 1 + 4 + 64, 32)
    assert condition.grid.shape == (3, CONFIG.grid_channels, 8, 8, 8)


def test_the_null_condition_reads_nothing(encoder):
    features = full(2).keep(torch.tensor([True, False]))
    null = encoder(Features(**empty_features(CONFIG, 1)))
    condition = encoder(features)
    torch.testing.assert_close(condition.tokens[1:], null.tokens)
    torch.testing.assert_close(condition.grid[1:], null.grid)
    assert not null.grid.any()
    assert (condition.tokens[0] - null.tokens[0]).abs().max() > 0.01


@pytest.mark.parametrize(
    ("part", "tokens", "grid"),
    [("text", True, False), ("image", True, True), ("lifted", False, True), ("retrieved", False, True)],
)
def test_each_part_reaches_its_own_place(encoder, part, tokens, grid):
    features = full(1)
    without = replace(features, **{f"has_{part}": torch.tensor([False])})
    before, after = encoder(features), encoder(without)
    changed = [not torch.equal(before.tokens, after.tokens), not torch.equal(before.grid, after.grid)]
    assert changed == [tokens, grid]


def test_lifting_is_local_to_the_latent_cell(encoder):
    features = full(1)
    moved = features.lifted.clone()
    moved[0, 8:16, 0:8, 56:64] += 1.0  # cell (1, 0, 7)
    difference = (encoder(replace(features, lifted=moved)).grid - encoder(features).grid).abs().sum(1)[0]
    assert difference[1, 0, 7] > 0
    difference[1, 0, 7] = 0
    assert not difference.any()


def test_a_picture_fills_the_depth_behind_what_it_shows(encoder):
    tokens = torch.randn(1, 64, 32, generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[0, 5] += 1.0  # top row, sixth of eight columns
    features = full(1)
    moved = (encoder._deep(features, changed) - encoder._deep(features, tokens))[0].abs().sum(0)
    assert moved[5, 7].min() > 0 and bool((moved[5, 7] == moved[5, 7, 0]).all())  # every depth alike
    moved[5, 7] = 0
    assert not moved.any()
    absent = replace(features, has_image=torch.tensor([False]))
    assert not encoder._deep(absent, tokens).any()


def test_geometry_is_told_the_codecs_latent_too_and_pictures_are_not(encoder):
    features = replace(full(3), encoded=torch.zeros(3, 16, 8, 8, 8), kind=torch.tensor([KINDS.index("points"), 2, 0]))
    features = replace(features, has_lifted=torch.tensor([True, True, False]))
    told = with_encoded(features, lambda fields: fields.reshape(-1, 16, 8, 8, 8, 32).mean(-1))
    expected = features.lifted[0].reshape(16, 8, 8, 8, 32).mean(-1)
    torch.testing.assert_close(told.encoded[0], expected)
    assert not told.encoded[1:].any()
    grid = encoder(told).grid
    torch.testing.assert_close(grid[0, 7:23], expected)
    assert torch.equal(grid[1:], encoder(features).grid[1:])


def test_an_empty_input_asks_for_the_shape_itself(folder):
    recipe = DenoiserRecipe(shares=SHARES, drop=0.0, empty_share=1.0)
    loss, seen = DenoiserLoss(folder, np.arange(6), CONFIG, recipe, CODEC), {}

    class Perfect(Denoiser):
        def forward(self, x_t, t, features):
            seen["x_t"], seen["t"], seen["kinds"] = x_t, t, features.kind
            _, clean = loss.batch(np.random.default_rng(2))
            return -clean / float(loss.schedule.alpha_sigma(999)[1])  # x0 = αx − σv with x = 0

    torch.manual_seed(0)
    value, _ = loss(Perfect(replace(embedded_uvit(CONFIG), depth=1, channels=32), CONFIG), np.random.default_rng(2))
    assert float(value) < 1e-6
    assert float(seen["x_t"].abs().max()) < 1e-4 and bool((seen["t"] == 999).all())


def test_stacking_keeps_rows(encoder):
    one, two = full(1), full(2)
    joined = stack_features([one, two])
    torch.testing.assert_close(encoder(joined).tokens[1:], encoder(two).tokens)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A training folder of six objects with arrays of the documented shapes."""
    path, rng, count = tmp_path_factory.mktemp("train"), np.random.default_rng(0), 6
    field = rng.integers(-127, 128, (count, 64, 64, 64)).astype(np.int8)
    arrays = {
        "latent": rng.standard_normal((count, 4, 16, 8, 8, 8)).astype(np.float16),
        "field": field,
        "points_field": np.stack([field, field], 1),
        "depth_field": np.stack([field] * 3, 1),
        "hull_field": field,
        "framed": rng.integers(0, 256, (count, 12, 64, 64, 4)).astype(np.uint8),
        "sketch": rng.integers(0, 256, (count, 12, 64, 64)).astype(np.uint8),
        "outline": rng.integers(0, 256, (count, 12, 64, 64)).astype(np.uint8),
        "text": rng.standard_normal((count, 4, 384)).astype(np.float16),
        "near_text": np.tile(np.array([5, 4, 3, 2, 1, 0, 5, 4], np.int32), (count, 1)),
        "near_view": np.full((count, 4, 8), 5 * 4 + 2, np.int32),
    }
    for name, value in arrays.items():
        np.save(path / f"{name}.npy", value)
    torch.manual_seed(0)
    save_file(ShapeCodec(CODEC).state_dict(), path / "codec.safetensors")
    return path


def test_a_batch_has_its_shares_and_is_a_function_of_the_seed(folder):
    loss = DenoiserLoss(folder, np.arange(6), CONFIG, DenoiserRecipe(shares=SHARES, drop=0.0), CODEC)
    features, latents = loss.batch(np.random.default_rng(1))
    again, same = loss.batch(np.random.default_rng(1))
    assert [KINDS[k] for k in features.kind] == [
        "text",
        "image",
        "image",
        "sketch",
        "points",
        "voxels",
        "depth",
        "views",
    ]
    assert torch.equal(latents, same)
    assert torch.equal(features.lifted, again.lifted)
    assert features.has_text.tolist() == [True] + [False] * 7
    assert features.has_image.tolist() == [False, True, True, True] + [False] * 4
    assert features.has_lifted[4:].all()
    assert not features.has_retrieved[4:].any()


def test_everything_is_dropped_when_asked(folder):
    loss = DenoiserLoss(folder, np.arange(6), CONFIG, DenoiserRecipe(shares=SHARES, drop=1.0), CODEC)
    features, _ = loss.batch(np.random.default_rng(0))
    assert not features.kind.any()
    assert not (features.has_text | features.has_image | features.has_lifted | features.has_retrieved).any()


def test_evaluation_rows_use_the_nearest_neighbour_and_the_turned_field(folder):
    arrays = Arrays.open(folder)
    maker = FeatureMaker(arrays, CONFIG, DenoiserRecipe(shares=SHARES))
    text = maker.rows("text", np.array([0]), np.array([0]), None)
    np.testing.assert_array_equal(text.retrieved[0].numpy(), arrays.latent[5, 0].astype(np.float32))
    image = maker.rows("image", np.array([0]), np.array([1]), None)
    np.testing.assert_array_equal(image.retrieved[0].numpy(), arrays.latent[5, 2].astype(np.float32))
    views = maker.rows("views", np.array([2]), np.array([1]), None)
    expected = np.flip(arrays.hull_field[2].swapaxes(0, 2), 0).astype(np.float32) / 127
    np.testing.assert_allclose(views.lifted[0].numpy(), expected, atol=1e-6)


def test_one_training_step_moves_every_part(folder):
    torch.manual_seed(0)
    model = Denoiser(replace(embedded_uvit(CONFIG), depth=1, channels=32), CONFIG)
    for module in (
        model.uvit.head,
        *[b.modulation for b in model.uvit.blocks],
    ):  # zero at the start: nothing would pass
        torch.nn.init.normal_(module.weight, std=0.05)
    loss = DenoiserLoss(folder, np.arange(6), CONFIG, DenoiserRecipe(shares=SHARES, drop=0.2), CODEC)
    value, logs = loss(model, np.random.default_rng(3))
    value.backward()
    assert set(logs) <= set(KINDS)
    for name in ("lift", "text", "picture", "kind"):
        gradients = [p.grad for p in getattr(model.prompts, name).parameters()]
        assert any(g is not None and g.abs().sum() > 0 for g in gradients), name


def test_pictures_outside_the_object_are_nothing():
    rgba = np.random.default_rng(0).random((64, 64, 4)).astype(np.float32)
    rgba[:32, :, 3] = 0
    assert not image_input(rgba)[:, :32].any()
    body = sketch_input(np.zeros((64, 64), np.float32), np.ones((64, 64), np.float32))
    np.testing.assert_array_equal(body, np.ones((4, 64, 64)))
    changed = recolour(rgba, np.random.default_rng(4))
    np.testing.assert_array_equal(changed[..., 3], rgba[..., 3])
    assert changed.min() >= 0
    assert changed.max() <= 1
