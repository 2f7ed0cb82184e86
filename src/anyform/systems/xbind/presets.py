"""The presets of XBind: the paper's numbers, the three CPU qualities, the paper's baselines and ablations.

Each is a plain function; `PRESETS` is the table by name. The CPU sizes follow measurements of specs/xbind.md §14.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from anyform.systems.xbind.config import (
    FieldSettings,
    PhaseSettings,
    PlanarSettings,
    Quality,
    ReferenceSettings,
    RegulariserSettings,
    SimilaritySettings,
    StereoSettings,
    ViewSettings,
    XBindSettings,
)
from anyform.training.ramp import Ramp

CLOSE_UPS = ViewSettings(  # C3D, and the paper's §V-A
    distance=(1.5, 2.0),
    fov_y_deg=(30.0, 45.0),
    elevation_deg=(-10.0, 45.0),
    azimuth_deg=(-135.0, 225.0),
    sectors=4,
    widened_at=0.0,
    framing="whole",
)
CONSISTENCY = PlanarSettings(  # C3D consistency-refine
    rule="cds",
    weight=1.0,
    image_weight=0.0,
    guidance=Ramp(start=101.0, end=31.0),  # its ε_c + s (ε_c − ε_u) is the usual scale s + 1
    timesteps=(0.02, 0.5),
    annealed=Ramp(start=300.0, end=20.0, shape="sqrt"),
    weighting="one_minus_abar",
    clamp=Ramp(start=2.0, end=8.0),
    subject="mixed",
)
FOGGY = RegulariserSettings(z_variance=Ramp(start=0.0, end=100.0, finish=0.5), normal_variation=1000.0)
SMOOTH = RegulariserSettings(normal_consistency=100.0, laplacian=100.0)  # C3D
TEXTURE_VIEWS = ViewSettings(widened_at=0.0)
NO_PLANAR, NO_STEREO = PlanarSettings(rule="none", weight=0.0), StereoSettings(weight=0.0)
NO_SIMILARITY, NO_REFERENCE = SimilaritySettings(ratio=0.0), ReferenceSettings(rgb=0.0, mask=0.0)


def paper() -> XBindSettings:
    """The published run, for a GPU with 24 GB; numbers the paper leaves open from the configurations it copies."""
    return XBindSettings(
        quality="high",
        shape=PhaseSettings(regularisers=FOGGY),
        geometry=PhaseSettings(
            steps=3000,
            size=512,
            views=4,  # C3D 8; accumulated view by view
            sampling=CLOSE_UPS,
            optimiser="adan",
            network_rate=0.01,
            planar=CONSISTENCY,
            similarity=SimilaritySettings(ratio=0.1, area=(0.1, 0.4), subject="mixed"),
            regularisers=SMOOTH,
        ),
        texture=PhaseSettings(
            size=512,
            sampling=TEXTURE_VIEWS,
            learning_rate=0.001,
            planar=PlanarSettings(timesteps=(0.05, 0.5)),
            similarity=SimilaritySettings(area=(0.1, 0.4)),
        ),
        reference="generated",
        caption=False,
    )


def _small(
    settings: XBindSettings, quality: Quality, steps: tuple[int, int, int], size: int, tets: int
) -> XBindSettings:
    """The paper's run at the size of the embedded priors and a CPU; steps and tets decide how long it takes."""
    one_look = {"num_global": 1, "num_local": 1, "num_plain": 1}
    shape, geometry, texture = settings.shape, settings.geometry, settings.texture
    guided = {"guidance": 7.5}
    return replace(
        settings,
        quality=quality,
        reference="auto",
        caption=True,
        shape=replace(
            shape,
            steps=steps[0],
            size=48,
            learning_rate=0.02,
            network_rate=0.002,
            planar=replace(shape.planar, **guided),
            similarity=replace(shape.similarity, **one_look),
        ),
        geometry=replace(
            geometry,
            steps=steps[1],
            size=size,
            views=2,
            learning_rate=0.002,
            network_rate=0.002,
            sampling=replace(CLOSE_UPS, sectors=None),
            planar=replace(geometry.planar, guidance=Ramp(start=10.0, end=5.0)),
            similarity=replace(geometry.similarity, **one_look),
        ),
        texture=replace(
            texture,
            steps=steps[2],
            size=size,
            learning_rate=0.005,
            network_rate=0.005,
            planar=replace(texture.planar, **guided),
            similarity=replace(texture.similarity, **one_look),
        ),
        fields=FieldSettings(encoding="dense", width=32, layers=1, samples=64, occupancy=16, tets=tets),
    )


def standard() -> XBindSettings:
    """All three phases from a ball, in minutes on two cores."""
    return _small(paper(), "standard", (300, 150, 150), 96, 24)


def draft() -> XBindSettings:
    """A short pass over the fastest system's shape."""
    return replace(_small(paper(), "draft", (60, 60, 80), 64, 24), init="draft", texture_size=512, preview_every=20)


def high() -> XBindSettings:
    """`standard` with more steps, finer tets and a larger texture."""
    return replace(_small(paper(), "high", (600, 300, 400), 128, 32), texture_size=2048, faces=40_000)


def smoke() -> XBindSettings:
    """Every line of code in seconds; the result is no picture of anything."""
    # the networks it is run with know nothing: at a real rate they would wipe the object out within its few steps
    small = every_phase(_small(paper(), "draft", (4, 3, 3), 24, 8), learning_rate=1e-4, network_rate=1e-4)
    return replace(
        small,
        shape=replace(small.shape, size=16),
        fields=FieldSettings(
            encoding="dense",
            resolutions=(8, 8),
            width=16,
            layers=1,
            samples=24,
            occupancy=8,
            tets=8,
            blob_density=20.0,  # what little training there is leaves the first ball, which must reach the threshold
        ),
        candidates=2,
        reference_steps=2,
        mesh_resolution=16,
        texture_size=64,
        checkpoint_every=2,
        preview_every=3,
        turntable=False,
    )


# --- baselines of the paper's Tables I and II, and systems it builds on (specs/xbind.md §10) ---------------


def every_phase(settings: XBindSettings, **changes: object) -> XBindSettings:
    """The settings with the same fields changed in all three phases."""
    phases = {name: replace(getattr(settings, name), **changes) for name in ("shape", "geometry", "texture")}
    return replace(settings, **phases)


def zero_stable_cds(start: XBindSettings | None = None) -> XBindSettings:
    """ZeroStableCDS-3D: consistency distillation in all phases, with the 3D-aware prior; no similarity term."""
    settings = every_phase(start or paper(), similarity=NO_SIMILARITY)
    coarse = replace(
        settings.geometry.planar,
        subject="rgb",
        timesteps=(0.1, 0.98),
        annealed=Ramp(start=700.0, end=100.0, shape="sqrt"),
        weighting="uniform",
    )
    fine = replace(coarse, timesteps=(0.02, 0.5), annealed=Ramp(start=500.0, end=20.0, shape="sqrt"))
    return replace(
        settings, shape=replace(settings.shape, planar=coarse), texture=replace(settings.texture, planar=fine)
    )


def stable_sds(start: XBindSettings | None = None) -> XBindSettings:
    """StableSDS-3D: score distillation of the 2D prior alone in all phases; no reference view."""
    planar = PlanarSettings(weight=1.0, image_weight=0.0, timesteps=(0.02, 0.98))
    settings = every_phase(
        start or paper(), planar=planar, stereo=NO_STEREO, similarity=NO_SIMILARITY, reference=NO_REFERENCE
    )
    return replace(settings, geometry=replace(settings.geometry, planar=replace(planar, subject="normal")))


def zero_sds(start: XBindSettings | None = None) -> XBindSettings:
    """ZeroSDS-3D: score distillation of the 3D-aware prior alone, with the reference view."""
    return every_phase(start or paper(), planar=NO_PLANAR, similarity=NO_SIMILARITY)


def dreamfusion(start: XBindSettings | None = None) -> XBindSettings:
    """DreamFusion: text prior, one NeRF phase at 64² (threestudio's dreamfusion-sd)."""
    settings = stable_sds(start)
    text = PlanarSettings(prompt="text", weight=1.0, image_weight=0.0, guidance=100.0, timesteps=(0.02, 0.98))
    sampling = ViewSettings(distance=(1.5, 2.0), fov_y_deg=(40.0, 70.0), elevation_deg=(-10.0, 45.0), widened_at=0.0)
    shape = replace(
        settings.shape, size=64, planar=text, sampling=sampling, regularisers=RegulariserSettings(sparsity=1.0)
    )
    return replace(
        settings,
        shape=shape,
        geometry=replace(settings.geometry, steps=0),
        texture=replace(settings.texture, steps=0),
    )


def magic3d(start: XBindSettings | None = None) -> XBindSettings:
    """Magic3D: DreamFusion's phase, then a DMTet under the same prior at 512² with strong normal consistency."""
    settings = dreamfusion(start)
    planar = replace(settings.shape.planar, timesteps=(0.02, 0.5))
    full = start or paper()
    geometry = replace(
        full.geometry,
        steps=full.geometry.steps * 5 // 3,
        planar=planar,
        stereo=NO_STEREO,
        similarity=NO_SIMILARITY,
        reference=NO_REFERENCE,
        regularisers=RegulariserSettings(normal_consistency=10_000.0),
    )
    return replace(settings, geometry=geometry)


def fantasia3d(start: XBindSettings | None = None) -> XBindSettings:
    """Fantasia3D: geometry from normals under the text prior, then colours; begins with a ball, without a NeRF."""
    settings = stable_sds(start)
    text = PlanarSettings(
        prompt="text",
        weight=1.0,
        image_weight=0.0,
        guidance=100.0,
        timesteps=(0.02, 0.5),
        weighting="sqrt_abar",
        subject="normal",
    )
    return replace(
        settings,
        shape=replace(settings.shape, steps=0),
        geometry=replace(settings.geometry, planar=text, regularisers=RegulariserSettings(normal_consistency=1000.0)),
        texture=replace(settings.texture, planar=replace(text, subject="rgb", weighting="one_minus_abar")),
    )


def prolificdreamer(start: XBindSettings | None = None) -> XBindSettings:
    """ProlificDreamer: variational distillation against a low-rank copy, geometry by score distillation."""
    settings = stable_sds(start)
    vsd = PlanarSettings(
        rule="vsd",
        prompt="text",
        weight=1.0,
        image_weight=0.0,
        guidance=7.5,
        timesteps=(0.02, 0.98),
        weighting="one_minus_abar",
    )
    fog = RegulariserSettings(sparsity=10.0, opaque=Ramp(start=0.0, end=1000.0, finish=0.4))
    normals = replace(vsd, rule="sds", guidance=100.0, subject="normal", timesteps=(0.02, 0.5))
    solid = RegulariserSettings(normal_consistency=10_000.0, laplacian=10_000.0)
    return replace(
        settings,
        shape=replace(settings.shape, planar=vsd, regularisers=fog),
        geometry=replace(settings.geometry, planar=normals, regularisers=solid),
        texture=replace(settings.texture, planar=vsd),
    )


# --- ablations of the paper's Fig. 7, and each phase left out ---------------------------------------------------------


def without_stereo(start: XBindSettings | None = None) -> XBindSettings:
    """No 3D-aware prior and no reference view."""
    return every_phase(start or paper(), stereo=NO_STEREO, reference=NO_REFERENCE)


def without_planar(start: XBindSettings | None = None) -> XBindSettings:
    """No 2D prior; the similarity term keeps a fixed weight, since there is nothing to balance it with."""
    settings = every_phase(start or paper(), planar=NO_PLANAR)
    return every_phase(settings, similarity=replace(settings.shape.similarity, weight=10.0))


def without_similarity(start: XBindSettings | None = None) -> XBindSettings:
    """No modality similarity term."""
    return every_phase(start or paper(), similarity=NO_SIMILARITY)


def without_phases(start: XBindSettings | None = None) -> XBindSettings:
    """The NeRF phase alone, meshed."""
    settings = start or paper()
    return replace(settings, geometry=replace(settings.geometry, steps=0), texture=replace(settings.texture, steps=0))


def without_geometry(start: XBindSettings | None = None) -> XBindSettings:
    """Without phase II: colours on the NeRF's surface."""
    settings = start or paper()
    return replace(settings, geometry=replace(settings.geometry, steps=0))


def without_texture(start: XBindSettings | None = None) -> XBindSettings:
    """Without phase III: the colours are the NeRF's."""
    settings = start or paper()
    return replace(settings, texture=replace(settings.texture, steps=0))


QUALITIES: dict[str, Callable[[], XBindSettings]] = {"draft": draft, "standard": standard, "high": high}
VARIANTS: dict[str, Callable[[XBindSettings | None], XBindSettings]] = {
    "zero-stable-cds": zero_stable_cds,
    "stable-sds": stable_sds,
    "zero-sds": zero_sds,
    "dreamfusion": dreamfusion,
    "magic3d": magic3d,
    "fantasia3d": fantasia3d,
    "prolificdreamer": prolificdreamer,
    "without-stereo": without_stereo,
    "without-planar": without_planar,
    "without-similarity": without_similarity,
    "without-phases": without_phases,
    "without-geometry": without_geometry,
    "without-texture": without_texture,
}
