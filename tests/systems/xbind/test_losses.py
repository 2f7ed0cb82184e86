from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from anyform.diffusion.distillation import sds
from anyform.diffusion.prediction import Prediction
from anyform.diffusion.schedule import scaled_linear
from anyform.systems.xbind import losses
from anyform.systems.xbind.losses import modality_similarity, ray_moments, reference, stereo, z_variance

SCHEDULE = scaled_linear(0.00085, 0.012, 1000)


def test_similarity_counts_angles_not_lengths() -> None:
    c = torch.tensor([2.0, 0.0])
    e = torch.tensor([[[5.0, 0.0], [0.0, 3.0]], [[-1.0, 0.0], [-4.0, 0.0]]])  # cosines 1, 0 and −1, −1
    assert float(modality_similarity(c, e)) == pytest.approx(0.5 + 2.0)
    assert float(modality_similarity(c[None], e, weights=[2.0, 0.5])) == pytest.approx(2 * 0.5 + 0.5 * 2)


def test_minimising_the_similarity_term_turns_towards_the_prompt() -> None:
    e = torch.tensor([[[0.0, 1.0]]], requires_grad=True)
    modality_similarity(torch.tensor([1.0, 0.0]), e).backward()
    assert e.grad is not None
    assert (-e.grad)[0, 0].tolist() == pytest.approx([1.0, 0.0])


def test_ray_moments_are_those_of_a_distribution() -> None:
    rng = np.random.default_rng(0)
    w, t = rng.random((5, 9)), np.sort(rng.random((5, 9)) * 3, 1)
    mean, variance, total = ray_moments(torch.tensor(w), torch.tensor(t))
    for r in range(5):
        m = np.average(t[r], weights=w[r])
        assert float(mean[r]) == pytest.approx(m)
        assert float(variance[r]) == pytest.approx(np.average((t[r] - m) ** 2, weights=w[r]))
    assert torch.allclose(total, torch.tensor(w.sum(1)))


def test_packed_rays_are_like_dense_ones() -> None:
    w, t = torch.rand(4, 6, dtype=torch.float64), torch.rand(4, 6, dtype=torch.float64).sort(1).values
    start = torch.arange(0, 25, 6)
    for dense, packed in zip(ray_moments(w, t), ray_moments(w.reshape(-1), t.reshape(-1), start), strict=True):
        assert torch.allclose(dense, packed)
    assert torch.allclose(z_variance(w, t), z_variance(w.reshape(-1), t.reshape(-1), start))


def test_z_variance_of_two_surfaces_is_a_quarter_of_their_distance_squared() -> None:
    w = torch.tensor([[0.5, 0.5], [0.1, 0.1]])  # the second ray sees too little to count
    t = torch.tensor([[1.0, 3.0], [0.0, 100.0]])
    assert float(z_variance(w, t)) == pytest.approx(1.0)


def test_z_variance_without_any_seen_ray_is_zero_and_harmless() -> None:
    w = torch.full((3, 4), 0.05, requires_grad=True)
    loss = z_variance(w, torch.rand(3, 4))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert w.grad is not None and torch.equal(w.grad, torch.zeros(3, 4))
    assert float(z_variance(torch.zeros(0), torch.zeros(0), torch.zeros(6, dtype=torch.int64))) == 0.0


def test_stereo_hands_the_prior_s_gradient_to_the_latent() -> None:
    def denoise(x_t: Tensor, t: int | Tensor) -> Prediction:
        return Prediction.from_x0(torch.full_like(x_t, 0.7), x_t, *SCHEDULE.alpha_sigma(t))

    z = torch.randn(2, 4, 3, 3, requires_grad=True)
    noise = torch.randn(2, 4, 3, 3)
    (found,) = torch.autograd.grad(stereo(denoise, z, 300, noise, SCHEDULE), z)
    assert torch.allclose(found, sds(denoise, z, 300, noise, SCHEDULE) / 2, atol=1e-6)


def test_the_reference_term_is_its_formula() -> None:
    wanted, picture = torch.ones(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    mask = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    alpha = torch.full((1, 1, 2, 2), 0.5)
    assert float(reference(picture, alpha, wanted, mask, (1000.0, 100.0))) == pytest.approx(1000 / 4 + 100 / 4)
    entropy = float(reference(picture, alpha, wanted, mask, (0.0, 1.0), "bce"))
    assert entropy == pytest.approx(np.log(2), rel=1e-5)


def test_outside_the_mask_colours_are_free() -> None:
    picture = torch.rand(1, 3, 2, 2, requires_grad=True)
    mask = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    reference(picture, mask, torch.zeros(1, 3, 2, 2), mask).backward()
    assert picture.grad is not None
    assert torch.equal(picture.grad[..., 1, :], torch.zeros(1, 3, 2)) and (picture.grad[0, :, 0, 0] > 0).all()


def test_normals_of_a_ramp_vary_by_their_slope() -> None:
    ramp = torch.linspace(0, 1, 11).expand(1, 3, 11, 11)
    assert float(losses.normal_variation(ramp)) == pytest.approx(0.01, rel=1e-4)
    assert float(losses.normal_variation(torch.ones(1, 3, 11, 11), "blur9")) == pytest.approx(0, abs=1e-10)
    spike = torch.zeros(1, 3, 21, 21)
    spike[..., 10, 10] = 1
    assert float(losses.normal_variation(spike, "blur9")) > 0


OCTAHEDRON = (
    torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]]),
    torch.tensor([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]]),
)


def test_an_octahedron_in_closed_form() -> None:
    """Twelve edges; vertex normals are the vertices, at right angles along every edge; each vertex has 4 neighbours
    whose sum is 0, so its Laplacian is 4 v."""
    v, f = OCTAHEDRON
    assert len(losses.edges_of(f)) == 12
    assert float(losses.normal_consistency(v, f)) == pytest.approx(1.0)
    assert float(losses.laplacian(v, f)) == pytest.approx(4.0)


def test_a_flat_mesh_is_consistent_and_an_empty_one_costs_nothing() -> None:
    v = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], requires_grad=True)
    f = torch.tensor([[0, 1, 2], [0, 2, 3]])
    assert float(losses.normal_consistency(v, f).detach()) == pytest.approx(0, abs=1e-6)
    none = torch.zeros(0, 3, dtype=torch.int64)
    loss = losses.normal_consistency(v, none) + losses.laplacian(v, none)
    loss.backward()
    assert float(loss.detach()) == 0.0


def test_sparsity_and_opacity() -> None:
    assert float(losses.sparsity(torch.zeros(2, 2))) == pytest.approx(0.1)
    grey, sure = losses.opaque(torch.full((2, 2), 0.5)), losses.opaque(torch.tensor([0.0, 1.0]))
    assert float(grey) == pytest.approx(np.log(2), rel=1e-5)
    assert float(sure) < 0.01
