"""Text encoders of diffusers folders, through transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from anyform.encoders.transformers_folder import library
from anyform.errors import WeightsError
from anyform.systems.tunemv3d.foundation import Caption

TOKENS = 77  # of CLIP, and of the T5 states that DeepFloyd-IF was trained with


def text_reader(folder: Path, pipeline: str, device: str) -> tuple[int, Callable[[Sequence[str]], Caption]]:
    """(width of the tokens, texts -> Caption) of a pipeline's own text encoder: T5 for IFPipeline, else CLIP.

    States of all `TOKENS` places, padding included, as the pipelines feed them.
    """
    transformers = library()
    model_type = transformers.T5EncoderModel if pipeline == "IFPipeline" else transformers.CLIPTextModel
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        model = model_type.from_pretrained(folder / "text_encoder", local_files_only=True, use_safetensors=True)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise WeightsError(f"the text encoder of {folder.name} cannot be read: {reason}") from error
    model = model.eval().requires_grad_(False).to(device)
    is_masked = pipeline == "IFPipeline"

    @torch.no_grad()
    def captions(texts: Sequence[str]) -> Caption:
        read = tokenizer(list(texts), padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt").to(
            device
        )
        mask = {"attention_mask": read.attention_mask} if is_masked else {}
        return Caption(model(read.input_ids, **mask).last_hidden_state.float())

    width = model.config.d_model if is_masked else model.config.hidden_size
    return int(width), captions
