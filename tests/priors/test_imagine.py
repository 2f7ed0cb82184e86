"""Ranking of candidates, and reference views from tiny priors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from anyform.errors import BadInput
from anyform.nn.int8 import quantise
from anyform.priors import embedded, reference_view
from anyform.priors.embedded import PriorConfig, PriorNetwork
from anyform.priors.imagine import foreground_score, object_mask, ranked
from anyform.priors.reference_view import GUIDANCE, Imagination
from anyform.priors.sampling import contact_sheet, sample, start_noise
from anyform.types.prompt import Image, Prompt, Text

TINY = {"image_size": 16, "widths": (16, 32), "attends": (False, True), "heads": (1, 2), "token_width": 12}


def disc(radius: float, centre: tuple[int, int] = (20, 20)) -> NDArray[np.bool_]:
    row, column = np.mgrid[:40, :40]
    return (row - centre[0]) ** 2 + (column - centre[1]) ** 2 < radius**2


def test_one_whole_object_in_the_middle_scores_best() -> None:
    good = foreground_score(disc(12))
    two = foreground_score(disc(8, (10, 10)) | disc(8, (30, 30)))
    assert good == 1.0 and 0.4 < two < 0.6
    assert foreground_score(disc(2)) < 0.1 and foreground_score(disc(40)) == 0.0
    assert 0.5 < foreground_score(disc(12, (4, 20))) < 0.95  # cut by the border
    assert foreground_score(np.zeros((8, 8), bool)) == 0.0


def test_the_object_is_what_differs_from_the_border() -> None:
    picture = np.full((40, 40, 3), (240, 250, 255), np.uint8)
    picture[disc(10)] = (200, 20, 20)
    picture[0, 0] = 0
    assert np.array_equal(object_mask(picture), disc(10) | np.eye(40, dtype=bool) & disc(1.1, (0, 0)))


def test_ranking_weighs_both_and_keeps_equals_in_order() -> None:
    pictures = np.full((4, 40, 40, 3), 255, np.uint8)
    for k, radius in enumerate((12, 2, 12, 12)):
        pictures[k][disc(radius)] = (10 + k, 0, 0)
    alike = {10: 0.2, 11: 0.9, 12: 0.6, 13: 0.2}
    made = ranked(pictures, [5, 6, 7, 8], lambda picture: alike[int(picture[20, 20, 0])])
    assert made.seeds == (7, 5, 8, 6)
    assert made.similarity.tolist() == [0.6, 0.2, 0.2, 0.9] and (np.diff(made.score) <= 0).all()


def test_a_sheet_lays_pictures_row_by_row() -> None:
    pictures = np.stack([np.full((4, 6, 3), k, np.uint8) for k in range(5)])
    sheet = contact_sheet(pictures, 3, gap=1)
    assert sheet.shape == (9, 20, 3)
    assert sheet[0, 0, 0] == 0 and sheet[3, 8, 0] == 1 and sheet[8, 0, 0] == 3 and sheet[8, 7, 0] == 4
    assert (sheet[4] == 255).all() and (sheet[5:, 14:] == 255).all()


class Joint:
    """Pictures by their mean colour, texts by their length."""

    def embed(self, prompt: Prompt) -> Tensor:
        if isinstance(prompt, Image):
            mean = prompt.rgba[..., :3].mean((0, 1)) / 255
            return torch.tensor([*mean, *[0.0] * 5]).float() * 3
        assert isinstance(prompt, Text)
        return torch.tensor([1.0, *[0.0] * 6, len(prompt.text) / 10])


@pytest.fixture
def imagination() -> Imagination:
    torch.manual_seed(0)
    network = PriorNetwork(PriorConfig(text_width=10, joint=8, **TINY)).eval().requires_grad_(False)  # type: ignore[arg-type]
    prior = embedded.foundation_of(network, lambda text: torch.ones(3, 10) * len(text))
    encoder = Joint()
    return Imagination(prior, encoder, encoder.embed, GUIDANCE["embedded"])


def test_candidates_hang_on_their_own_seed(imagination: Imagination) -> None:
    four = imagination.candidates(Text("a mug"), count=4, seed=10, num_inference_steps=3)
    two = imagination.candidates(Text("a mug"), count=2, seed=12, num_inference_steps=3)
    assert four.pictures.shape == (4, 16, 16, 3) and sorted(four.seeds) == [10, 11, 12, 13]
    for k, seed in enumerate(two.seeds):
        assert np.abs(two.pictures[k].astype(int) - four.pictures[four.seeds.index(seed)]).max() <= 1
    assert not np.array_equal(four.pictures[0], four.pictures[1])
    with pytest.raises(BadInput, match="0 candidates"):
        imagination.candidates(Text("a mug"), count=0)


def test_a_mix_reads_the_words_and_all_embeddings(imagination: Imagination) -> None:
    image = Image(np.full((8, 8, 4), 255, np.uint8) - np.eye(8, dtype=np.uint8)[..., None])
    mixed = imagination.condition([(Text("a mug"), 1.0), (image, 3.0)])
    alone = imagination.condition([(Text("a mug"), 1.0)])
    assert torch.equal(mixed.tokens, alone.tokens)  # type: ignore[arg-type]
    assert not torch.allclose(mixed.labels, alone.labels)  # type: ignore[arg-type]
    assert torch.equal(mixed.labels, imagination.condition([(Text("a mug"), 2.0), (image, 6.0)]).labels)  # type: ignore[arg-type]


def test_similarity_is_a_cosine_and_an_empty_picture_is_like_nothing(imagination: Imagination) -> None:
    cosine = imagination.similarity([(Image(np.eye(8, dtype=np.uint8)[..., None] * np.full(4, 255, np.uint8)), 1.0)])
    grey = np.full((8, 8, 3), 90, np.uint8)
    assert cosine(grey) == -1.0
    grey[0, 0] = 91
    assert cosine(grey) == pytest.approx(1.0, abs=1e-3)


def test_noise_is_a_function_of_each_seed(imagination: Imagination) -> None:
    noise = start_noise(imagination.prior, [3, 4])
    assert torch.equal(noise[1], start_noise(imagination.prior, [4])[0])
    steps: list[int] = []
    sample(imagination.prior, imagination.prior.condition(), [1], num_inference_steps=4, on_step=steps.append)
    assert steps == [1, 2, 3, 4]


def test_the_embedded_foundation_takes_no_other_encoder(tmp_path: Path) -> None:
    network = PriorNetwork(PriorConfig(text_width=10, joint=8, **TINY))  # type: ignore[arg-type]
    path = tmp_path / "foundation.safetensors"
    save_file(quantise(network.state_dict()), path, {"config": network.config.to_json()})
    with pytest.raises(BadInput, match="the embedded encoder alone"):
        reference_view.load(path, encoder="imagebind_huge.pth")
