"""The chunked attention has the values and the gradients of its readable twin, for any way it is cut."""

from __future__ import annotations

import pytest
import torch

from anyform.nn.attention import attention, attention_chunked, attention_reference, join_heads, split_heads


def inputs(batch: int, heads: int, rows: int, keys: int, width: int, dtype: torch.dtype):
    generator = torch.Generator().manual_seed(rows)
    shapes = [(batch, heads, rows, width), (batch, heads, keys, width), (batch, heads, keys, width)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("budget", [1, 7, 40, 130, 10_000])
@pytest.mark.parametrize("shape", [(2, 3, 10, 13, 4), (1, 1, 1, 5, 8), (3, 2, 17, 1, 2)])
def test_chunks_equal_the_formula_with_gradients(shape, budget) -> None:
    plain, cut = inputs(*shape, torch.float64), inputs(*shape, torch.float64)
    expected, found = attention_reference(*plain), attention_chunked(*cut, scores_in_cache=budget)
    assert torch.allclose(found, expected, atol=1e-12)
    weight = torch.randn_like(expected)
    (expected * weight).sum().backward()
    (found * weight).sum().backward()
    for a, b in zip(plain, cut, strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_public_form_equals_the_formula(dtype) -> None:
    q, k, v = inputs(2, 4, 21, 33, 8, dtype)
    assert torch.allclose(attention(q, k, v), attention_reference(q, k, v), atol=1e-5)


def test_bfloat16_stays_within_its_rounding() -> None:
    exact = inputs(1, 4, 65, 70, 16, torch.float64)
    rounded = [x.detach().bfloat16() for x in exact]
    found = attention(*rounded)
    expected = attention_reference(*exact)
    assert found.dtype == torch.bfloat16
    assert ((found.double() - expected).norm() / expected.norm()).item() < 0.02


def test_a_constant_value_is_returned_whatever_the_scores() -> None:
    q, k, _ = inputs(1, 2, 5, 9, 4, torch.float32)
    v = torch.full((1, 2, 9, 4), 3.0)
    assert torch.allclose(attention_chunked(q, k, v, scores_in_cache=11), torch.full((1, 2, 5, 4), 3.0))


def test_heads_split_contiguously_and_join_back() -> None:
    x = torch.arange(2 * 3 * 8.0).reshape(2, 3, 8)
    heads = split_heads(x, 4)
    assert torch.equal(heads[1, 2, 0], x[1, 0, 4:6])
    assert torch.equal(join_heads(heads), x)
