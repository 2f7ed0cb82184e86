"""The embedded encoder: what a fresh machine uses to read prompts, offline, on a CPU.

Text goes through MiniLM-L6 (`encoders/minilm.py`); its weights and word pieces ship with the package in
`anyform/embedded/`. The int8 matrices are brought back to fp32 when loaded, about 0.1 s once a process.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from anyform.encoders.minilm import MiniLM, sentence_vectors
from anyform.errors import BadInput
from anyform.nn.int8 import dequantise
from anyform.weights import embedded_file, read_safetensors

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from anyform.types.prompt import Prompt

MAX_TOKENS = 64
BATCH = 64  # sentences a forward pass; bounds the memory of a long list


@dataclass(frozen=True)
class EmbeddedEncoder:
    """Text -> a unit sentence vector (384) and the token states (L, 384). Loaded once by `load`."""

    model: MiniLM
    tokenizer: Tokenizer

    @torch.inference_mode()
    def text(self, strings: list[str]) -> tuple[Tensor, Tensor, Tensor]:
        """B sentences -> vectors (B, 384) of unit length, tokens (B, L, 384) float32 and mask (B, L) bool.

        L is the longest sentence of the list in word pieces, start and end marks included, cut at `MAX_TOKENS`; tokens
        beyond a sentence's end are zero and False in the mask. "" is a sentence of two marks: the null prompt.
        Raises BadInput for an empty list.
        """
        if not strings:
            raise BadInput("there is no text to encode: give at least one sentence")
        encoded = self.tokenizer.encode_batch(strings)
        ids = torch.tensor([e.ids for e in encoded])
        mask = torch.tensor([e.attention_mask for e in encoded], dtype=torch.bool)
        tokens = torch.cat([self.model(i, m) for i, m in zip(ids.split(BATCH), mask.split(BATCH), strict=True)])
        return sentence_vectors(tokens, mask), tokens * mask.unsqueeze(-1), mask

    def embed(self, prompt: Prompt) -> Tensor:
        """A text prompt -> its unit vector (384,). Raises BadInput for prompts that are not text."""
        from anyform.types.prompt import Text

        if not isinstance(prompt, Text):
            raise BadInput(
                f"the embedded encoder embeds text only so far, not {type(prompt).__name__}: pass a Text prompt,"
                " or use the system's own condition for other modalities"
            )
        return self.text([prompt.text])[0][0]


@cache
def load() -> EmbeddedEncoder:
    """The shipped text encoder, read once a process. Raises WeightsError when its file is damaged."""
    from tokenizers import Tokenizer

    model = MiniLM()  # not on the meta device: its first use in a process costs over a second
    model.load_state_dict(dequantise(read_safetensors(embedded_file("text"))[0]), assign=True)
    tokenizer = Tokenizer.from_file(str(embedded_file("text").with_name("tokenizer.json")))
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.enable_padding()
    return EmbeddedEncoder(model.eval().requires_grad_(False), tokenizer)
