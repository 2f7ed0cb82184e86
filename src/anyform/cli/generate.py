"""`anyform generate`: check everything that can be checked first, make the asset, save it, say where it is."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anyform.cli.terminal import Reporter, clean, print_out, say
from anyform.errors import BadInput, BadSetting

if TYPE_CHECKING:
    from anyform.cli.inputs import Recipe
    from anyform.geometry.asset import Asset
    from anyform.types.progress import Report

_METRES = {"mm": 0.001, "cm": 0.01, "m": 1.0, "in": 0.0254}
PRINT_METRES = 0.08


def run(arguments: argparse.Namespace) -> int:
    """The verb. Returns 0; every failure is an exception."""
    with Reporter() as report:
        say("anyform: starting")
        return _run(arguments, report)


def _run(arguments: argparse.Namespace, report: Reporter) -> int:
    from anyform import api
    from anyform.cli import output
    from anyform.cli.inputs import Recipe, read_prompt, read_recipe, read_start, settings_of

    recipe = read_recipe(Path(arguments.config)) if arguments.config else Recipe()
    metres, for_print = _size(arguments, recipe)
    seed = api.check_seed(_seed(arguments.seed, recipe))
    if arguments.refine is not None:
        _check_refine(arguments.refine)
    if arguments.accept_licence:
        from anyform.weights import accept_licence

        accept_licence(arguments.accept_licence)
    prompt, settings = read_prompt(arguments, recipe), settings_of(arguments, recipe)
    inputs = _inputs(arguments, prompt)
    if arguments.init:
        prompt = read_start(Path(arguments.init), prompt)
    seed = _resumed(arguments, recipe, prompt, settings, seed)
    files = [path for path in inputs.values() if isinstance(path, Path)]
    name = f"{_name(inputs)}-{seed}"
    target = output.settle(arguments.output, name, force=arguments.force, inputs=files, exists_ok=arguments.resume)
    if arguments.views_out:
        from anyform.types.view_folder import check_view_folder

        check_view_folder(Path(arguments.views_out), force=arguments.force)
    if arguments.resume and _finished(target.file, prompt, arguments.seed, seed):
        return _announce(arguments, target, None, {"resumed": True}, report)
    asset = api.generate(
        prompt,
        system=arguments.system or recipe.system,
        refine=arguments.refine,
        quality=arguments.quality or recipe.quality or "standard",
        seed=seed,
        device=arguments.device,
        settings=settings,
        report=report,
        weights=arguments.weights or recipe.weights,
    )
    asset, facts = finish(asset, metres, for_print, report)
    if arguments.no_prompt_in_file:
        kind = {"kind": asset.provenance.prompt.get("kind", "unknown")}
        asset = dataclasses.replace(asset, provenance=dataclasses.replace(asset.provenance, prompt=kind))
        inputs = {}
    host = {"seconds": round(report.seconds, 2), **host_facts(arguments.device)}
    output.write(target, asset, log=report.lines, host=host, inputs=inputs)
    if asset.provenance.settings.get("turntable"):
        output.write_turntable(target, asset)
    if arguments.views_out:
        output.write_views(asset, Path(arguments.views_out), force=arguments.force)
    return _announce(arguments, target, asset, facts, report)


def _resumed(arguments: argparse.Namespace, recipe: Recipe, prompt: Any, settings: dict[str, object], seed: int) -> int:
    """The seed to go on with: of the interrupted run where `--resume` names none. Asks the system to continue it."""
    from anyform import api

    system = arguments.system or recipe.system
    if arguments.resume and arguments.refine is not None and api.SYSTEMS[arguments.refine].unfinished is not None:
        settings[f"{arguments.refine}.resume"] = True
    if not arguments.resume or not api.resumes(prompt, system):
        return seed
    if arguments.seed is None:
        quality = arguments.quality or recipe.quality or "standard"
        found = api.unfinished(prompt, system, quality, settings)
        seed = seed if found is None else found
    settings["resume"] = True
    return seed


def parse_length(text: str) -> float:
    """ "80mm", "8 cm", "0.5m", "3in" -> metres, between 1 mm and 100 m. Raises BadSetting."""
    found = re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,9})?|\.\d{1,9})\s*(mm|cm|m|in)\s*", text.lower())
    if not found:
        raise BadSetting(f"{clean(text, 40)!r} is no length: write a number and mm, cm, m or in, such as 80mm")
    metres = float(found.group(1)) * _METRES[found.group(2)]
    if not 0.001 <= metres <= 100:
        raise BadSetting(f"{clean(text, 40)!r} is {metres:g} m: a size lies between 1 mm and 100 m")
    return metres


def _size(arguments: argparse.Namespace, recipe: Recipe) -> tuple[float | None, bool]:
    """(metres of the longest side or None for the default, whether to prepare for printing)."""
    for_print = arguments.for_print or recipe.export.get("print") is True
    if arguments.size is not None:
        return parse_length(arguments.size), for_print
    if "millimetres" in recipe.export:
        return parse_length(f"{recipe.export['millimetres']}mm"), for_print
    return (PRINT_METRES if for_print else None), for_print


def _seed(given: str | None, recipe: Recipe) -> int | None:
    if given is None:
        return recipe.seed
    if not re.fullmatch(r"[0-9]{1,10}", given):
        raise BadSetting(f"the seed must be a whole number from 0 to 4294967295, got {clean(given, 40)!r}")
    return int(given)


def _check_refine(name: str) -> None:
    from anyform.api import SYSTEMS
    from anyform.geometry.asset import Asset

    able = [key for key, entry in SYSTEMS.items() if Asset in entry.accepts]
    if name not in able:
        raise BadInput(
            f"{clean(name, 40)!r} cannot refine an asset; systems that can: {', '.join(able) or 'none yet'} "
            f"(systems here: {', '.join(SYSTEMS)})"
        )


def _inputs(arguments: argparse.Namespace, prompt: Any) -> dict[str, Any]:
    """{"input": the text or the path}; with several prompts the names say which is which."""
    from anyform.cli.inputs import FILES
    from anyform.types.prompt import Text

    parts = [part for part, _ in prompt] if isinstance(prompt, list) else [prompt]
    texts = [part.text for part in parts if isinstance(part, Text)]
    given: dict[str, Any] = {"text": texts[0]} if texts else {}
    given.update({name: Path(getattr(arguments, name)) for name in FILES if getattr(arguments, name)})
    if arguments.mask:
        given["mask"] = Path(arguments.mask)
    return {("input" if i == 0 else f"input-{name}"): value for i, (name, value) in enumerate(given.items())}


def _name(inputs: dict[str, Any]) -> str:
    from anyform.cli.output import slug

    first = next(iter(inputs.values()))
    return slug(first if isinstance(first, str) else first.stem)


def finish(asset: Asset, metres: float | None, for_print: bool, report: Report) -> tuple[Asset, dict[str, Any]]:
    """The asset at its size, made printable if asked; what that measured goes into the record."""
    if metres is None:
        return asset, {}
    settings = dict(asset.provenance.settings)
    settings["export"] = {"millimetres": round(metres * 1000, 6), "print": for_print}
    provenance = dataclasses.replace(asset.provenance, settings=settings)
    asset = dataclasses.replace(asset, metres=metres, provenance=provenance)
    if not for_print:
        return asset, {}
    from anyform.geometry.gate import gate
    from anyform.geometry.printing import prepare_for_print
    from anyform.types.progress import Progress

    report(Progress("preparing for print"))
    mesh, printing = prepare_for_print(asset.mesh, metres * 1000)
    gate(mesh).require()
    for note in printing.notes:
        report(Progress("preparing for print", message=note))
    return dataclasses.replace(asset, mesh=mesh), {"print": printing.to_json()}


def _finished(file: Path, prompt: Any, given_seed: str | None, seed: int) -> bool:
    """Whether the file already is the result of this prompt and, where one was given, this seed."""
    from anyform.cli.inputs import read_provenance
    from anyform.types.prompt import describe

    if not file.is_file():
        return False
    made = read_provenance(file)
    same = not isinstance(prompt, list) and made.get("prompt") == describe(prompt)
    if not same or (given_seed is not None and made.get("seed") != seed):
        raise BadInput(f"{file.name!r} is the result of another prompt or seed: choose another -o, or --force")
    return True


def host_facts(device: str) -> dict[str, Any]:
    """Facts for the sidecar: never names of the machine or its user."""
    import datetime
    import platform

    import torch

    from anyform.device import choose

    chosen = choose(device)
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": chosen.name,
        "device_reason": chosen.reason,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
    }


def _announce(
    arguments: argparse.Namespace, target: Any, asset: Asset | None, facts: dict[str, Any], report: Reporter
) -> int:
    """Where the asset is: one sentence on stderr, or the record on stdout."""
    from anyform.cli.inputs import read_provenance
    from anyform.licensing import commercial_use
    from anyform.weights import sha256

    shown = target.folder or target.file
    provenance = read_provenance(target.file) if asset is None else asset.provenance.to_json()
    verdict = commercial_use(provenance)
    notes = [clean(str(note)) for note in provenance.get("notes", ())]
    for note in notes:
        say(f"anyform: note: {note}")
    say(
        f"anyform: {'kept' if asset is None else 'saved'} {clean(str(shown))}  seed {provenance.get('seed')}  "
        f"commercial use: {verdict.answer}  {report.seconds:.1f} s"
    )
    if not arguments.json:
        print_out(clean(str(shown)))
        return 0
    record = {
        "ok": True,
        "file": str(target.file),
        "sha256": sha256(target.file),
        **{key: provenance.get(key) for key in ("system", "version", "seed", "quality", "settings", "prompt")},
        **verdict.to_json(),
        "notes": notes,
        "seconds": round(report.seconds, 3),
        **({} if asset is None else shape_facts(asset)),
        **facts,
    }
    print(json.dumps(record), flush=True)
    return 0


def shape_facts(asset: Asset) -> dict[str, Any]:
    """How many vertices and faces, and the sides in millimetres at the size it is saved at."""
    low, high = asset.mesh.bounds
    scale = asset.metres / float((high - low).max())
    millimetres = [round(float(side) * scale * 1000, 3) for side in high - low]
    return {"vertices": len(asset.mesh.vertices), "faces": len(asset.mesh.faces), "size_mm": millimetres}
