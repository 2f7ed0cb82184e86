"""The embedded encoder: what a fresh machine uses to read prompts, offline, on a CPU.

Text goes through MiniLM-L6 (`encoders/minilm.py`); its weights and word pieces ship with the package in
`anyform/embedded/`. The int8 matrices are brought back to fp32 when loaded, about 0.1 s once a process. `embed` puts
text, pictures, sketches, points and speech on one sphere of 256 dimensions (`encoders/joint.py`), read at first use.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from anyform.encoders import joint_inputs
from anyform.encoders.joint import PICTURE, Joint, JointConfig, heard
from anyform.encoders.minilm import MiniLM, sentence_vectors
from anyform.errors import BadInput, WeightsError
from anyform.nn.int8 import dequantise
from anyform.types.prompt import Audio, Image, Points, Sketch, Text
from anyform.weights import embedded_file, embedded_path, read_safetensors

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from anyform.types.prompt import Prompt

MAX_TOKENS = 64
BATCH = 64  # sentences a forward pass; bounds the memory of a long list


NO_SPEECH = "recognised no speech; sounds need --encoder imagebind"


@dataclass(frozen=True)
class EmbeddedEncoder:
    """Sentences -> vectors and tokens (`text`), prompts -> unit vectors of the joint space (`embed`). See `load`."""

    model: MiniLM
    tokenizer: Tokenizer
    joint_file: Path

    @property
    def joint(self) -> Joint:
        """The joint network, read once a process. Raises WeightsError where its file is missing or damaged."""
        return _read_joint(self.joint_file)

    @property
    def dim(self) -> int:
        """Length of a vector of `embed`."""
        return self.joint.config.dim

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

    @torch.inference_mode()
    def embed(self, prompt: Prompt) -> Tensor:
        """Text, Image, Sketch, Points or spoken Audio -> (dim,) of unit length.

        Raises BadInput with `NO_SPEECH` for sounds in which nothing was said, and for prompts of other types.
        """
        if isinstance(prompt, Text):
            return self.joint.text(self.text([prompt.text])[0])[0]
        if isinstance(prompt, Image):
            return self.joint.image(torch.from_numpy(joint_inputs.picture(prompt))[None])[0]
        if isinstance(prompt, Sketch):
            return self.joint.sketch(torch.from_numpy(joint_inputs.sketch(prompt))[None])[0]
        if isinstance(prompt, Points):
            return self.joint.points(torch.from_numpy(joint_inputs.points(prompt))[None])[0]
        if isinstance(prompt, Audio):
            return self._speech(prompt)[0]
        raise BadInput(
            "the embedded encoder embeds Text, Image, Sketch, Points and spoken Audio, "
            f"not {type(prompt).__name__}: give one of those"
        )

    @torch.inference_mode()
    def words(self, prompt: Audio, at_least: float = 0.5) -> list[str]:
        """The words recognised in speech with that probability, likeliest first. Raises BadInput as `embed` does."""
        chances = self._speech(prompt)[1].sigmoid()
        order = chances.argsort(descending=True)
        return [self.joint.config.words[at] for at in order.tolist() if chances[at] >= at_least]

    def images(self, pictures: Tensor) -> Tensor:
        """Square renders (B, 3, H, H) in [0, 1] on any background -> unit vectors (B, dim), differentiable."""
        if pictures.shape[-1] != PICTURE:
            pictures = functional.interpolate(pictures, (PICTURE, PICTURE), mode="bilinear", antialias=True)
        return self.joint.image(pictures)

    def _speech(self, prompt: Audio) -> tuple[Tensor, Tensor]:
        """(vector (dim,), logits of words (W,)) of the window that sounds most like speech."""
        mel = torch.from_numpy(joint_inputs.speech(prompt))
        parts = [self.joint.speech(part) for part in mel.split(BATCH)]
        vectors, spoken, words = (torch.cat(column) for column in zip(*parts, strict=True))
        best = int(spoken.argmax())
        if not heard(spoken[best : best + 1], words[best : best + 1]).item():
            raise BadInput(NO_SPEECH)
        return vectors[best], words[best]


def load(joint: str | Path | None = None) -> EmbeddedEncoder:
    """The shipped encoders, read once a process; joint: another file of the joint network than the shipped one.

    Raises WeightsError when a file is damaged; a missing joint network is noticed at its first use.
    """
    return _load(embedded_path("joint") if joint is None else Path(joint))


@cache
def _load(joint: Path) -> EmbeddedEncoder:
    from tokenizers import Tokenizer

    model = MiniLM()  # not on the meta device: its first use in a process costs over a second
    model.load_state_dict(dequantise(read_safetensors(embedded_file("text"))[0]), assign=True)
    tokenizer = Tokenizer.from_file(str(embedded_file("text").with_name("tokenizer.json")))
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.enable_padding()
    return EmbeddedEncoder(model.eval().requires_grad_(False), tokenizer, joint)


@cache
def _read_joint(path: Path) -> Joint:
    if not path.is_file():
        raise WeightsError(
            f"the joint space {path.name!r} is not there: train it with runs/embedded_joint.py, or take"
            " --encoder imagebind"
        )
    stored, metadata = read_safetensors(path)
    model = Joint(JointConfig.from_json(metadata.get("config", "")))
    try:
        model.load_state_dict(dequantise(stored), assign=True)
    except RuntimeError as error:
        raise WeightsError(f"{path.name!r} does not hold the joint network that its config describes") from error
    return model.eval().requires_grad_(False)
