"""The contrastive loss against its formula, recall and its chance level by counting."""

from __future__ import annotations

import math

import pytest
import torch

from anyform.training.contrastive import chance_at, info_nce, recall_at


def unit(*shape: int) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.nn.functional.normalize(torch.randn(*shape, dtype=torch.float64), dim=-1)


def test_the_formula() -> None:
    a, b = unit(2, 5, 8)
    both = 0.0
    for x, y in ((a, b), (b, a)):
        for i in range(5):
            terms = [math.exp(7 * float(x[i] @ y[j])) for j in range(5)]
            both -= math.log(terms[i] / sum(terms)) / 5 / 2
    assert float(info_nce(a, b, 7.0, torch.eye(5, dtype=torch.bool))) == pytest.approx(both)


def test_what_means_the_same_is_not_held_against_it() -> None:
    a = unit(4, 8)
    a[1] = a[0]
    same = torch.eye(4, dtype=torch.bool)
    strict = info_nce(a, a, 20.0, same)
    same[0, 1] = same[1, 0] = True
    assert info_nce(a, a, 20.0, same) < strict - 0.2
    rows = [0, 2, 3]
    alone = info_nce(a[rows], a[rows], 20.0, torch.eye(3, dtype=torch.bool))
    assert torch.isfinite(alone) and info_nce(a, a, 20.0, same) < alone + 0.1


def test_a_perfect_and_a_random_match() -> None:
    a = torch.eye(6)
    assert float(info_nce(a, a, 50.0, torch.eye(6, dtype=torch.bool))) < 1e-6
    assert float(info_nce(a, a.roll(1, 0), 50.0, torch.eye(6, dtype=torch.bool))) > 40
    flat = torch.ones(6, 6) / 6**0.5
    assert float(info_nce(flat, flat, 50.0, torch.eye(6, dtype=torch.bool))) == pytest.approx(math.log(6), rel=1e-5)


def test_recall_counts_any_own_among_the_nearest() -> None:
    gallery = torch.eye(4)
    query = torch.tensor([[1.0, 0.5, 0, 0], [0, 1.0, 0.5, 0]])
    truth = torch.tensor([[False, True, False, False], [False, True, False, True]])
    assert recall_at(query, gallery, truth, 1) == 0.5
    assert recall_at(query, gallery, truth, 2) == 1.0
    assert recall_at(query, gallery, truth, 99) == 1.0


def test_chance_is_what_random_orders_give() -> None:
    truth = torch.zeros(2, 10, dtype=torch.bool)
    truth[0, 0] = truth[1, :3] = True
    assert chance_at(truth, 1) == pytest.approx((0.1 + 0.3) / 2)
    expected = (0.5 + 1 - math.comb(7, 5) / math.comb(10, 5)) / 2
    assert chance_at(truth, 5) == pytest.approx(expected)
    assert chance_at(truth, 10) == 1.0
    torch.manual_seed(1)
    found = [recall_at(torch.randn(2, 4), torch.randn(10, 4), truth, 5) for _ in range(800)]
    assert sum(found) / len(found) == pytest.approx(expected, abs=0.05)
