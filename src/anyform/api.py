"""Prompt in, asset out: pick a system, run it, retry smaller when memory ends, gate the result.

`SYSTEMS` is the whole table of systems, fastest first; its entries import their system inside the function that needs
it, so that looking at the table costs nothing.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from anyform import configuration
from anyform.device import is_out_of_memory
from anyform.errors import BadInput, BadSetting, GateFailed, OutOfMemory
from anyform.geometry.asset import Asset, Start
from anyform.geometry.gate import MIN_COVERAGE, gate
from anyform.prompts import as_prompt
from anyform.types.progress import Progress, Report, silent
from anyform.types.prompt import Audio, Image, Points, Sketch, Text, Views, Voxels

if TYPE_CHECKING:
    from anyform.priors.imagine import Candidates

QUALITIES = ("draft", "standard", "high")
MAX_SEED = 2**32 - 1


class System(Protocol):
    """What turns a prompt into an asset. `settings`, a frozen dataclass, says how and is stored with the asset."""

    @property
    def accepts(self) -> tuple[type, ...]:
        """The prompt types it takes; `Asset` among them if it refines."""
        ...

    @property
    def settings(self) -> Any:
        """The frozen settings it was built with."""
        ...

    def generate(self, prompt: Any, *, seed: int, report: Report) -> Asset:
        """An asset in world units with its provenance. The same seed gives the same bytes on the same machine."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row of SYSTEMS.

    load: (weights, device, settings) -> System. settings: quality -> the frozen settings of that quality.
    smaller: settings -> the same with less memory, or None where nothing is left to save.
    accepts: prompt types of its embedded weights, so that choosing loads no network. unfinished: (prompt, settings) ->
    the seed of an interrupted run that `resume` would continue; None for systems that run in one go.
    """

    load: Callable[[str | Path | None, str, Any], System]
    settings: Callable[[str], Any]
    smaller: Callable[[Any], Any | None]
    accepts: tuple[type, ...]
    unfinished: Callable[[Any, Any], int | None] | None = None


def _load_wala(weights: str | Path | None, device: str, settings: Any) -> System:
    from anyform.systems.wala.system import load

    return load(weights, device, settings)


def _wala_settings(quality: str) -> Any:
    from anyform.systems.wala.config import WalaSettings

    return configuration.override(WalaSettings(), "quality", quality)


def _smaller_wala(settings: Any) -> Any | None:
    """Half the resolution that is meshed, down to 64."""
    if settings.mesh_resolution <= 64:
        return None
    return dataclasses.replace(settings, resolution=max(64, settings.mesh_resolution // 2))


def _load_tunemv3d(weights: str | Path | None, device: str, settings: Any) -> System:
    from anyform.systems.tunemv3d.system import load

    return load(weights, device, settings)


def _tunemv3d_settings(quality: str) -> Any:
    from anyform.systems.tunemv3d.config import TuneMV3DSettings

    return configuration.override(TuneMV3DSettings(), "quality", quality)


def _smaller_tunemv3d(settings: Any) -> Any | None:
    from anyform.systems.tunemv3d.system import smaller

    return smaller(settings)


def _load_xbind(weights: str | Path | None, device: str, settings: Any) -> System:
    from anyform.systems.xbind.system import load

    def draft(prompt: Any, seed: int, report: Report) -> Asset:
        able = [key for key, entry in SYSTEMS.items() if key != "xbind" and _accepts(entry.accepts, prompt)]
        if not able:
            raise BadInput(f"no other system makes a draft of {type(prompt).__name__}")
        return generate(prompt, system=able[0], quality="draft", seed=seed, device=device, report=report)

    return load(weights, device, settings, draft)


def _xbind_settings(quality: str) -> Any:
    from anyform.systems.xbind.system import settings_of

    return settings_of(quality)


def _smaller_xbind(settings: Any) -> Any | None:
    from anyform.systems.xbind.system import smaller

    return smaller(settings)


def _unfinished_xbind(prompt: Any, settings: Any) -> int | None:
    from anyform.systems.xbind.system import unfinished

    return unfinished(prompt, settings)


SYSTEMS: dict[str, Entry] = {
    "wala": Entry(
        load=_load_wala,
        settings=_wala_settings,
        smaller=_smaller_wala,
        accepts=(Text, Image, Sketch, Points, Voxels, Views),
    ),
    "tunemv3d": Entry(
        load=_load_tunemv3d,
        settings=_tunemv3d_settings,
        smaller=_smaller_tunemv3d,
        accepts=(Text, Image, Views, list),
    ),
    "xbind": Entry(
        load=_load_xbind,
        settings=_xbind_settings,
        smaller=_smaller_xbind,
        accepts=(Text, Image, Audio, Sketch, Points, Asset, Start, list),
        unfinished=_unfinished_xbind,
    ),
}


def load(name: str, *, weights: str | Path | None = None, device: str = "auto", settings: Any = None) -> System:
    """A system, ready to generate.

    name: a key of SYSTEMS. weights: None = embedded, else a hub id, folder or file. device: "auto", "cpu", "cuda",
    "cuda:N", "mps". settings: its frozen settings, or a mapping of dotted names; None = its standard quality.
    Raises BadInput, BadSetting, WeightsError, DeviceUnavailable.
    """
    return _entry(name).load(weights, device, _settings(name, "standard", settings))


def from_pretrained(name: str, *, device: str = "auto", settings: Any = None) -> System:
    """`load` under the name that fingers type: a system's name, or a released id such as "ADSKAILab/WaLa-SV-1B"."""
    from anyform.weights import RELEASED

    if name in RELEASED:
        return load(RELEASED[name].system, weights=name, device=device, settings=settings)
    return load(name, device=device, settings=settings)


def generate(
    prompt: object,
    *,
    system: str | System | None = None,
    refine: str | System | None = None,
    quality: str = "standard",
    seed: int | None = None,
    device: str = "auto",
    settings: Any = None,
    report: Report | None = None,
    weights: str | Path | None = None,
) -> Asset:
    """Turn a prompt into a checked asset.

    prompt: a prompt type, or what `as_prompt` understands; a list of (prompt, weight) is a mix.
    system: a name of SYSTEMS, a loaded system, or None = the fastest that accepts the prompt. refine: the system that
    continues from the asset. quality: draft, standard or high. seed: 0..2³²−1; None = random, stored with the asset.
    settings: the system's frozen settings or a mapping {"guidance_scale": 2.0} laid over those of the quality; names
    that the refining system's own leads, such as "xbind.keep_geometry", are that one's.
    Raises GateFailed where the mesh is not finite, closed and filled; OutOfMemory after one retry with less.
    """
    report = report or silent
    prompt, seed = as_prompt(prompt), check_seed(seed)
    settings, later = _split(settings, refine)
    name = system if isinstance(system, str) or system is None else type(system).__name__
    if isinstance(system, str) or system is None:
        name = pick(prompt, system)
        chosen = _settings(name, quality, settings)
        asset = _generate_named(name, prompt, chosen, seed, report, (weights, device))
    else:
        if settings is not None or weights is not None:
            raise BadInput("a loaded system keeps its weights and settings: give them to anyform.load instead")
        asset = _guarded(lambda: system, prompt, seed, report)
    check(asset, str(name))
    if refine is None:
        return asset
    return _refine(asset, prompt, refine, _Chain(quality, seed, device, report, later))


def imagine(prompt: object, *, seed: int | None = None, report: Report | None = None, **settings: Any) -> Candidates:
    """Pictures of what a prompt asks for, best first: the reference views that XBind starts from.

    prompt: as for `generate`. Candidate k is made from seed + k. settings: those of `priors.reference_view.imagined`
    (candidates, prior, encoder, device, memory, num_inference_steps). Raises BadInput, WeightsError, OutOfMemory.
    """
    from anyform.priors.reference_view import imagined

    given = as_prompt(prompt)
    if isinstance(given, Asset | Start):
        raise BadInput("an asset is no prompt for pictures: give text, a picture, a sketch, points or sound")
    return imagined(given, seed=check_seed(seed), report=report or silent, **settings)


def check(asset: Asset, name: str) -> None:
    """Raise GateFailed unless the asset's mesh is finite, closed, consistently wound and filled; parts are fine.

    A mesh that the user gave and wanted kept as it is (`keep_geometry`) only has to be finite and covered with colour.
    """
    verdict = gate(asset.mesh, allow_parts=True)
    is_covered = verdict.texture_coverage is None or verdict.texture_coverage >= MIN_COVERAGE
    if asset.provenance.settings.get("keep_geometry") is True and verdict.finite and verdict.faces and is_covered:
        return
    if not verdict.ok:
        reasons = "; ".join(verdict.failures)
        raise GateFailed(f"the result of {name} is not good enough to save: {reasons}; try another seed")


def check_seed(seed: object) -> int:
    """A seed in 0..2³²−1; None = a random one. Raises BadSetting for anything else, bool and float included."""
    if seed is None:
        return secrets.randbelow(MAX_SEED + 1)
    if isinstance(seed, np.integer):
        seed = int(seed)
    if type(seed) is not int or not 0 <= seed <= MAX_SEED:
        raise BadSetting(f"the seed must be a whole number from 0 to {MAX_SEED}, got {str(seed)[:40]!r}")
    return seed


def pick(prompt: object, name: str | None = None) -> str:
    """The system for a prompt: `name` if it accepts it, else the first of SYSTEMS that does. Raises BadInput."""
    if name is not None and _accepts(_entry(name).accepts, prompt):
        return name
    able = [key for key, entry in SYSTEMS.items() if _accepts(entry.accepts, prompt)]
    if name is None and able:
        return able[0]
    what = "a mix of prompts" if isinstance(prompt, list) else f"the prompt type {type(prompt).__name__}"
    who = "no system" if name is None else f"the system {name!r}"
    raise BadInput(f"{who} accepts {what}; systems that do: {', '.join(able) or 'none yet'}")


def unfinished(prompt: object, system: str | None, quality: str, settings: Any) -> int | None:
    """The seed of an interrupted run of the same prompt and settings, None where `resume` has nothing to continue."""
    name = pick(as_prompt(prompt), system)
    entry = _entry(name)
    if entry.unfinished is None:
        return None
    return entry.unfinished(as_prompt(prompt), _settings(name, quality, settings))


def resumes(prompt: object, system: str | None) -> bool:
    """Whether the system for a prompt keeps checkpoints, so that it has the setting `resume`."""
    return _entry(pick(as_prompt(prompt), system)).unfinished is not None


def _generate_named(
    name: str, prompt: Any, settings: Any, seed: int, report: Report, place: tuple[str | Path | None, str]
) -> Asset:
    """Load and run; where memory ends, once more with the entry's smaller settings, noted in the provenance."""
    entry = _entry(name)
    report(Progress(f"loading {name}"))
    try:
        return _guarded(lambda: entry.load(*place, settings), prompt, seed, report)
    except OutOfMemory as error:
        smaller = entry.smaller(settings)
        if smaller is None:
            raise
        report(Progress(f"loading {name}", message=f"out of memory ({error}); once more with less"))
    asset = _guarded(lambda: entry.load(*place, smaller), prompt, seed, report)
    before, after = dataclasses.asdict(settings), dataclasses.asdict(smaller)
    changed = ", ".join(f"{key} {before[key]} -> {after[key]}" for key in after if before[key] != after[key])
    note = f"memory ran out, so it was made smaller: {changed}"
    notes = (*asset.provenance.notes, note)
    return dataclasses.replace(asset, provenance=dataclasses.replace(asset.provenance, notes=notes))


def _guarded(make: Callable[[], System], prompt: Any, seed: int, report: Report) -> Asset:
    """Make a system and run it; refuse a prompt it does not take; any memory exhaustion becomes OutOfMemory."""
    try:
        system = make()
        if not _accepts(system.accepts, prompt):
            kinds = ", ".join(kind.__name__ for kind in system.accepts)
            kind = "a mix of prompts" if isinstance(prompt, list) else type(prompt).__name__
            raise BadInput(f"{type(system).__name__} with these weights accepts {kinds}, not {kind}")
        return system.generate(prompt, seed=seed, report=report)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            "the work does not fit into memory: lower --quality, --texture-size or --set resolution=…, "
            "close other programs, or use a machine with more"
        ) from error


@dataclass(frozen=True, slots=True)
class _Chain:
    """How a second system continues: its own settings are those whose names it leads."""

    quality: str
    seed: int
    device: str
    report: Report
    settings: Mapping[str, object] | None


def _split(settings: Any, refine: str | System | None) -> tuple[Any, Mapping[str, object] | None]:
    """A mapping of settings -> those of the first system (None without any), and those that `refine.` leads."""
    if not isinstance(settings, Mapping) or not isinstance(refine, str):
        return settings, None
    flat = configuration.flatten(settings)
    later = {key: flat[key] for key in flat if key.startswith(f"{refine}.")}
    return {key: flat[key] for key in flat if key not in later}, later


def _refine(asset: Asset, prompt: Any, refine: str | System, chain: _Chain) -> Asset:
    """What the second system makes of the asset; it is told the prompt where it listens to one."""
    accepts = _entry(refine).accepts if isinstance(refine, str) else refine.accepts
    goes_on = Start in accepts and not isinstance(prompt, Asset | Start)
    start: Any = Start(asset, prompt) if goes_on else asset
    if isinstance(refine, str):
        settings = _settings(pick(start, refine), chain.quality, chain.settings)
        asset = _generate_named(refine, start, settings, chain.seed, chain.report, (None, chain.device))
    else:
        asset = _guarded(lambda: refine, start, chain.seed, chain.report)
    check(asset, refine if isinstance(refine, str) else type(refine).__name__)
    return asset


def _entry(name: str) -> Entry:
    if name not in SYSTEMS:
        raise BadInput(f"there is no system {name[:80]!r}; there are {', '.join(SYSTEMS)}")
    return SYSTEMS[name]


def _settings(name: str, quality: str, settings: Any) -> Any:
    """The frozen settings of a system: those of the quality, under a mapping of names that "wala." may lead."""
    entry = _entry(name)
    if quality not in QUALITIES:
        raise BadSetting(f"there is no quality {str(quality)[:80]!r}; there are {', '.join(QUALITIES)}")
    if settings is not None and not isinstance(settings, Mapping):
        return settings
    flat = configuration.flatten(settings or {})
    return configuration.apply(entry.settings(quality), {key.removeprefix(f"{name}."): flat[key] for key in flat})


def _accepts(kinds: Sequence[type], prompt: object) -> bool:
    return isinstance(prompt, tuple(kinds))
