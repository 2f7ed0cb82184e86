"""MiniLM: equal to the reference BERT, blind to padding, and small on disk without losing the sentence."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open

from anyform.encoders.minilm import MiniLM, MiniLMConfig, from_released, sentence_vectors
from anyform.weights import embedded_file

TINY = MiniLMConfig(vocabulary=50, width=24, num_layers=2, num_heads=4, mlp_width=40, num_positions=16)


def tiny_inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    mask = torch.arange(9) < torch.tensor([9, 5, 1])[:, None]
    return torch.randint(1, 50, (3, 9), generator=generator) * mask, mask


def test_equals_the_reference_bert() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    reference = transformers.BertModel(
        transformers.BertConfig(
            vocab_size=50, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=40,
            max_position_embeddings=32, hidden_act="gelu", layer_norm_eps=1e-12, initializer_range=0.4,
        ),
        add_pooling_layer=False,
    ).eval()  # fmt: skip
    ours = MiniLM(TINY).eval()
    ours.load_state_dict(from_released(dict(reference.state_dict()), TINY))
    ids, mask = tiny_inputs()
    expected = reference(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(ours(ids, mask)[mask], expected[mask], rtol=1e-4, atol=1e-5)


def test_padding_does_not_change_a_sentence() -> None:
    torch.manual_seed(0)
    model = MiniLM(TINY).eval()
    ids, mask = tiny_inputs()
    together = sentence_vectors(model(ids, mask), mask)
    for row, length in enumerate((9, 5, 1)):
        alone = model(ids[row : row + 1, :length], mask[row : row + 1, :length])
        vector = sentence_vectors(alone, mask[row : row + 1, :length])[0]
        torch.testing.assert_close(together[row], vector, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))


def test_sentence_vector_is_the_mean_of_the_real_tokens() -> None:
    tokens = torch.tensor([[[3.0, 0.0], [0.0, 4.0], [99.0, 99.0]]])
    mask = torch.tensor([[True, True, False]])
    torch.testing.assert_close(sentence_vectors(tokens, mask), torch.tensor([[0.6, 0.8]]))


def test_the_shipped_file_says_what_it_is_and_what_int8_cost() -> None:
    path = embedded_file("text")
    with safe_open(path, "pt") as file:
        metadata, names = file.metadata(), set(file.keys())
        assert file.get_slice("words.int8").get_shape() == [30522, 384]
    assert float(metadata["int8_cosine_min_of_50"]) > 0.999
    assert float(metadata["max_difference_to_bertmodel"]) < 1e-4
    assert metadata["licence"] == "Apache-2.0" and metadata["source_sha256"].startswith("53aa51172d142c89")
    assert not any("pooler" in name for name in names)
    assert path.stat().st_size < 24e6
    assert json.loads(path.with_name("tokenizer.json").read_text(encoding="utf-8"))["truncation"] is None
