"""What `anyform train wala` trains and how: a plan is one frozen dataclass, a preset is a function that returns one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Literal

from anyform import configuration
from anyform.systems.wala import presets
from anyform.systems.wala.codec import CodecConfig, embedded
from anyform.systems.wala.conditions import PromptEncoderConfig
from anyform.systems.wala.training_codec import SurfaceRecipe
from anyform.systems.wala.training_coefficients import CoefficientRecipe
from anyform.systems.wala.training_denoiser import DenoiserRecipe, default_recipe, embedded_uvit
from anyform.systems.wala.uvit import UVitConfig
from anyform.systems.wala.vqvae import VQVAEConfig
from anyform.training.loop import TrainConfig

PHASES = ("first", "second", "denoiser")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingPlan:
    """Networks, batches and optimisation of a whole run.

    Stage 1 has two phases. `loss="surface"` (embedded): a continuous latent first, then the decoder on fitted codes.
    `loss="coefficients"` (released shape): all data first, then fine-tuning with every data set weighted the same.
    """

    codec: CodecConfig
    prompts: PromptEncoderConfig = field(default_factory=PromptEncoderConfig)
    uvit: UVitConfig
    loss: Literal["surface", "coefficients"] = "surface"
    surface: SurfaceRecipe = field(default_factory=SurfaceRecipe)
    coefficients: CoefficientRecipe = field(default_factory=CoefficientRecipe)
    batch: DenoiserRecipe = field(default_factory=default_recipe)
    first: TrainConfig = field(default_factory=TrainConfig)
    second: TrainConfig = field(default_factory=TrainConfig)
    denoiser: TrainConfig = field(default_factory=TrainConfig)
    validation: int = 48  # held-out objects a score in training is taken on


def embedded_plan() -> TrainingPlan:
    """The model that comes with the package (specs/embedded.md §6): about 8 hours on two cores."""
    stage_1 = TrainConfig(
        steps=20_000, learning_rate=1.5e-3, betas=(0.9, 0.99), weight_decay=1e-4, clip=0.5, ema_decay=0.998, bf16=True,
        decay_part=0.5, checkpoint_every=250, evaluate_every=500,
    )  # fmt: skip
    stage_2 = TrainConfig(
        steps=6000, learning_rate=7e-4, betas=(0.9, 0.98), weight_decay=0.01, warmup=60, clip=1.0, ema_decay=0.995,
        bf16=True, decay_part=0.4, checkpoint_every=200, evaluate_every=400,
    )  # fmt: skip
    prompts = PromptEncoderConfig(encoded_lift=True, picture_channels=24)
    return TrainingPlan(
        codec=embedded(), prompts=prompts, uvit=embedded_uvit(prompts), first=stage_1,
        second=replace(stage_1, steps=5000, learning_rate=7e-4), denoiser=stage_2,
    )  # fmt: skip


def smoke() -> TrainingPlan:
    """The same chain with networks and batches so small that it ends in seconds; its shapes are noise."""
    prompts = PromptEncoderConfig(
        width=48, heads=3, image_blocks=1, lift_channels=4, encoded_lift=True, picture_channels=2
    )
    vqvae = VQVAEConfig(
        packed_size=16, widths=(8, 16), encoder_blocks=(1, 1), decoder_blocks=(1, 1), latent_channels=16, norm_groups=0
    )
    short = TrainConfig(steps=8, learning_rate=1e-3, warmup=2, ema_decay=0.9, log_every=2, checkpoint_every=2)
    return TrainingPlan(
        codec=replace(embedded(), refine_width=4, vqvae=vqvae),
        prompts=prompts,
        uvit=replace(embedded_uvit(prompts), depth=2, channels=8, condition_channels=8, norm_groups=4),
        surface=SurfaceRecipe(crop_batch=2, whole_batch=1),
        batch=replace(default_recipe(), shares=dict.fromkeys(default_recipe().shares, 1)),
        first=short,
        second=short,
        denoiser=short,
        validation=1,
    )


def from_paper(preset: presets.Preset) -> TrainingPlan:
    """A row of the supplement's tables: AdamW at 1e-4, moving average of .9999. Our grids are cell-centred."""
    common = TrainConfig(steps=preset.iterations or 400_000, learning_rate=1e-4, ema_decay=0.9999, decay_part=0.0)
    return TrainingPlan(
        codec=replace(preset.codec, grid="cell"),
        uvit=preset.uvit,
        loss="coefficients",
        coefficients=CoefficientRecipe(variant=preset.loss, balanced_per_dataset=preset.balanced_per_dataset),
        first=common,
        second=replace(common, steps=100_000),
        denoiser=common,
    )


PLANS: dict[str, Callable[[], TrainingPlan]] = {
    "embedded": embedded_plan,
    "smoke": smoke,
    "paper": lambda: from_paper(presets.paper()),
    "vqvae-dense-loss": lambda: from_paper(presets.vqvae_dense_loss()),
    "vqvae-sampled-loss": lambda: from_paper(presets.vqvae_sampled_loss()),
    "vqvae-balanced-2500": lambda: from_paper(presets.vqvae_balanced(2500)),
    "vqvae-balanced-5000": lambda: from_paper(presets.vqvae_balanced(5000)),
    "vqvae-balanced-20000": lambda: from_paper(presets.vqvae_balanced(20_000)),
}
_SHARED = {each.name for each in fields(TrainConfig)}


def changed(plan: TrainingPlan, assignments: list[str]) -> TrainingPlan:
    """`plan` with "path=value" settings; a bare field of TrainConfig ("steps=100") goes to every phase.

    Raises BadSetting for unknown names and values that do not fit.
    """
    for assignment in assignments:
        path, value = configuration.parse(assignment)
        for each in [f"{phase}.{path}" for phase in PHASES] if path in _SHARED else [path]:
            plan = configuration.override(plan, each, value)
    return plan
