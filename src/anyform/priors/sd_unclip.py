"""SD-2.1-unCLIP: pictures from an embedding of any modality, by a diffusers folder.

The network predicts v on 96² latents. Its class labels are the noised embedding beside the sinusoid of the noise level
(Ramesh et al., "Hierarchical Text-Conditional Image Generation with CLIP Latents", as released in Stable unCLIP); its
null is zeros for the labels, as in training, and the tokens of "". Embeddings come unnormalised: a vision or text head
as it is, sound with its gain (specs/xbind.md §0.5).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from anyform.diffusion.prediction import Reading
from anyform.diffusion.prior import Condition, Prior
from anyform.diffusion.schedule import NoiseSchedule, cosine, scaled_linear
from anyform.encoders.clip_towers import TextTower
from anyform.errors import BadInput, BadSetting, WeightsError
from anyform.nn.unet2d import sinusoid
from anyform.priors.denoiser import UNetDenoiser
from anyform.priors.folders import component_file, load_autoencoder, load_tower, load_unet, read_json
from anyform.priors.latent_codec import LatentCodec
from anyform.weights import open_tensors

LICENCE = "Stable unCLIP 2.1: CreativeML OpenRAIL++-M"
CLIP_VOCABULARY = 49408
_READINGS: dict[str, Reading] = {"v_prediction": "v", "epsilon": "eps", "sample": "x0"}


def class_labels(
    embedding: Float[Tensor, "b d"],
    noise_level: int = 0,
    *,
    noise: Tensor | None = None,
    mean: Tensor | None = None,
    std: Tensor | None = None,
    schedule: NoiseSchedule | None = None,
) -> Float[Tensor, "b p"]:
    """(B, D) -> (B, 2D): unscale(√ᾱ scale(e) + √(1 − ᾱ) n) beside cos, sin of the level, scale(e) = (e − mean) / std.

    noise_level: a timestep of `schedule` (cosine, 1000 steps); level 0 adds a little noise too. noise: n, like the
    embedding; None draws it by `torch.randn_like`, so give it where one draw has to serve a whole run. mean, std: (D,)
    or (1, D), the released normaliser's (0 and 1 for the H checkpoint). Raises BadSetting for another level.
    """
    schedule = schedule or cosine(1000)
    if not 0 <= noise_level < schedule.num_timesteps:
        raise BadSetting(f"the noise level is {noise_level}: it lies between 0 and {schedule.num_timesteps - 1}")
    shift = torch.zeros_like(embedding) if mean is None else mean.to(embedding)
    scale = torch.ones_like(embedding) if std is None else std.to(embedding)
    drawn = torch.randn_like(embedding) if noise is None else noise.to(embedding)
    level = torch.full((len(embedding),), noise_level, device=embedding.device)
    noised = schedule.add_noise((embedding - shift) / scale, drawn, noise_level) * scale + shift
    return torch.cat([noised, sinusoid(level, embedding.shape[1]).to(embedding)], -1)


def load(folder: str | Path, *, device: str = "cpu") -> Prior:
    """A Stable unCLIP folder -> its prior. `condition(text="", embedding=None, noise_level=0, noise=None)`.

    embedding: (D,) or (1, D), the output of the encoder's head as `class_labels` describes it; None = zeros. noise: the
    one draw of a run, (1, D); None draws it anew. Latents are the scaled mode, images 8 times as large. Raises
    WeightsError for folders of other models, BadInput for an embedding of another width.
    """
    folder = Path(folder)
    unet, vae = load_unet(folder, device), load_autoencoder(folder, device)
    tower = load_tower(folder / "text_encoder", device, vision=False)
    assert isinstance(tower, TextTower)
    if unet.config.labels % 2 or not unet.config.labels or unet.config.token_width != tower.config.width:
        raise WeightsError(
            f"the U-Net of {folder.name} reads {unet.config.labels} class labels and tokens {unet.config.token_width} "
            f"wide, its text encoder gives {tower.config.width}: it is no Stable unCLIP"
        )
    table = read_json(folder / "scheduler" / "scheduler_config.json")
    reading = _READINGS.get(table.get("prediction_type", "epsilon"))
    if reading is None or table.get("beta_schedule", "scaled_linear") != "scaled_linear":
        raise WeightsError(f"the scheduler of {folder.name} is none of Stable Diffusion's: {table}")
    noise_schedule = scaled_linear(
        table.get("beta_start", 0.00085), table.get("beta_end", 0.012), table.get("num_train_timesteps", 1000)
    )
    width, tokenise = unet.config.labels // 2, tokeniser(folder, tower)
    mean, std = _normaliser(folder, width)

    def tokens(text: str) -> Tensor:
        return tower(tokenise(text).to(device))

    def condition(
        text: str = "", embedding: Tensor | None = None, noise_level: int = 0, noise: Tensor | None = None
    ) -> Condition:
        if embedding is None:
            return Condition(tokens=tokens(text), labels=torch.zeros(1, 2 * width, device=device))
        rows = embedding.reshape(-1, embedding.shape[-1]).float().to(device)
        if rows.shape[1] != width:
            raise BadInput(f"the embedding has {rows.shape[1]} dimensions, {folder.name} reads {width}")
        return Condition(
            tokens=tokens(text), labels=class_labels(rows, noise_level, noise=noise, mean=mean, std=std)
        ).expanded(len(rows))

    def null(condition: Condition) -> Condition:
        assert condition.tokens is not None and condition.labels is not None
        blank = torch.zeros_like(condition.labels)
        return Condition(tokens=tokens("").expand(len(condition.tokens), -1, -1), labels=blank)

    size = int(read_json(folder / "unet" / "config.json").get("sample_size", 96))
    return Prior(
        denoiser=UNetDenoiser(unet, noise_schedule, reading),
        codec=LatentCodec(vae),
        schedule=noise_schedule,
        condition=condition,
        null=null,
        licence=LICENCE,
        image_size=size * 2 ** (len(vae.config.widths) - 1),
        latent_shape=(unet.config.channels_out, size, size),
    )


def tokeniser(folder: Path, tower: TextTower) -> Callable[[str], Tensor]:
    """A sentence -> ids (1, length) of a folder's text encoder: start, pieces, end, padding; the end mark is kept.

    CLIP's own vocabulary is built in; another one is read from `tokenizer/vocab.json` and `merges.txt`.
    """
    if tower.config.vocabulary == CLIP_VOCABULARY:
        from anyform.encoders.clip_tokens import tokenise

        return lambda text: torch.from_numpy(tokenise([text]))[:, : tower.config.length]
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

    vocabulary = read_json(folder / "tokenizer" / "vocab.json")
    try:
        lines = (folder / "tokenizer" / "merges.txt").read_text(encoding="utf-8").splitlines()
        merges = [(first, second) for first, second in (line.split() for line in lines[1:] if line)]
        start, end = vocabulary["<|startoftext|>"], vocabulary["<|endoftext|>"]
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(f"tokenizer of {folder.name} holds no vocabulary of CLIP's kind: {error!r}") from error
    strange = next((a + b for a, b in merges if not {a, b, a + b} <= vocabulary.keys()), None)
    if strange is not None:
        raise WeightsError(f"the merges of {folder.name} make {strange!r}, which is no piece of its vocabulary")
    pieces = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, end_of_word_suffix="</w>", unk_token="<|endoftext|>")
    )
    pieces.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    words = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    pieces.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )

    def read(text: str) -> Tensor:
        ids = [start, *pieces.encode(text).ids[: tower.config.length - 2], end]
        return torch.tensor([ids + [vocabulary.get("!", end)] * (tower.config.length - len(ids))])

    return read


def _normaliser(folder: Path, width: int) -> tuple[Tensor, Tensor]:
    """The mean and deviation (D,) of the embeddings that the network was trained on."""
    tensors = open_tensors(component_file(folder / "image_normalizer"))
    if set(tensors) != {"mean", "std"} or tensors.shape("mean")[-1] != width:
        raise WeightsError(f"image_normalizer of {folder.name} holds no mean and std of {width} numbers")
    return tensors.read("mean").reshape(-1), tensors.read("std").reshape(-1)
