"""The embedded encoder on real words: meaning orders the vectors, limits hold, and nothing heavy is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from anyform.encoders.embedded import MAX_TOKENS, load
from anyform.errors import BadInput


def test_meaning_orders_the_vectors() -> None:
    vectors, _, _ = load().text(["a chair", "an armchair", "a sports car", "an automobile", "a bowl of soup"])
    similarity = vectors @ vectors.T
    torch.testing.assert_close(similarity.diagonal(), torch.ones(5))
    similarity.fill_diagonal_(-1)
    assert similarity.argmax(1)[:4].tolist() == [1, 0, 3, 2]


def test_known_cosines_of_the_released_model() -> None:
    vectors = load().text(["armchair", "chair", "car", "automobile", "pizza"])[0]
    expected = [0.73, 0.26, 0.28, 0.25]  # the fp32 model, to two digits
    torch.testing.assert_close(vectors[1:] @ vectors[0], torch.tensor(expected), atol=0.011, rtol=0)


def test_shapes_mask_and_padding() -> None:
    encoder = load()
    vectors, tokens, mask = encoder.text(["", "a red mug", "a tall lamp with a green shade"])
    assert vectors.shape == (3, 384) and tokens.shape == (*mask.shape, 384)
    assert vectors.dtype == tokens.dtype == torch.float32 and mask.dtype == torch.bool
    assert mask.sum(1).tolist() == [2, 5, 9]  # start and end marks included
    assert tokens[~mask].abs().max() == 0 and tokens[mask].isfinite().all()
    torch.testing.assert_close(encoder.text(["a red mug"])[0][0], vectors[1], atol=2e-5, rtol=0)


def test_a_long_prompt_is_cut_and_a_long_list_is_batched() -> None:
    encoder = load()
    _, tokens, _ = encoder.text(["chair " * 500])
    assert tokens.shape == (1, MAX_TOKENS, 384)
    names = [f"chair number {i}" for i in range(70)]
    torch.testing.assert_close(encoder.text(names)[0][66], encoder.text(names[66:67])[0][0], atol=2e-5, rtol=0)


def test_no_text_is_refused() -> None:
    with pytest.raises(BadInput, match="no text"):
        load().text([])


def test_load_is_cached_and_frozen() -> None:
    assert load() is load()
    assert not any(p.requires_grad for p in load().model.parameters()) and not load().model.training


def test_no_transformers_is_loaded() -> None:
    code = "import sys; from anyform.encoders.embedded import load; load(); print('transformers' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "False"
