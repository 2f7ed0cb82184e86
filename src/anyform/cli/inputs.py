"""From the arguments of `generate` to a prompt, and to the settings of a run that is to be repeated."""

from __future__ import annotations

import argparse
import json
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from anyform import configuration
from anyform.cli.terminal import clean, say
from anyform.errors import BadInput

if TYPE_CHECKING:
    from anyform.types.prompt import Image

_MAX_STDIN = 1_000_000
_MAX_CONFIG = 1_000_000
FILES = ("image", "sketch", "points", "voxels", "views", "depths", "audio")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a finished file says about the run that made it; empty where there is none."""

    system: str | None = None
    seed: int | None = None
    quality: str | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    export: Mapping[str, Any] = field(default_factory=dict)  # {"millimetres", "print"} after --size or --print
    text: str | None = None
    prompt: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None


def read_recipe(path: Path) -> Recipe:
    """A JSON file of provenance, or the provenance inside a GLB or 3MF made by anyform. Raises BadInput."""
    data = read_provenance(path)
    prompt, settings = data.get("prompt", {}), data.get("settings", {})
    if not isinstance(prompt, dict) or not isinstance(settings, dict):
        raise BadInput(f"{path.name!r} holds no settings of anyform: its prompt or settings are not tables")
    settings = dict(settings)
    export = settings.pop("export", {})
    return Recipe(
        system=_typed(data, "system", str, path),
        seed=_typed(data, "seed", int, path),
        quality=_typed(data, "quality", str, path),
        settings=settings,
        export=export if isinstance(export, dict) else {},
        text=_typed(prompt, "text", str, path),
        prompt=prompt,
        weights=_weights_of(data, path),
    )


def read_provenance(path: Path) -> dict[str, Any]:
    """The table `extras.anyform` of a GLB or 3MF, or the content of a JSON file of the same keys. Raises BadInput."""
    from anyform.geometry.formats import read_extras
    from anyform.geometry.formats.files import read_limited

    if path.is_dir():
        path = path / "provenance.json"
    if path.suffix.lower() != ".json":
        made = read_extras(path)
        if not made:
            raise BadInput(f"{path.name!r} carries no provenance: it was not made by anyform")
        return made
    try:
        data = json.loads(read_limited(path, _MAX_CONFIG).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path.name!r} is no JSON: {type(error).__name__}") from error
    if not isinstance(data, dict):
        raise BadInput(f"{path.name!r} holds no table of settings")
    return data


def read_prompt(arguments: argparse.Namespace, recipe: Recipe) -> Any:
    """The prompt that the arguments name, or the text of the recipe. Raises BadInput for none or a broken one."""
    from anyform.types.prompt import Audio, Image, Points, Sketch, Text, Views, Voxels

    if arguments.mask and not arguments.image:
        raise BadInput("--mask says what of an --image is the object: give --image too")
    prompts: list[Any] = []
    with _warnings_said():
        if arguments.text is not None:
            prompts.append(Text(_text(arguments.text)))
        if arguments.image:
            prompts.append(_cut_out(Image.open(arguments.image, arguments.mask), arguments.background))
        for given, reader in (
            (arguments.sketch, Sketch.open),
            (arguments.points, Points.open),
            (arguments.voxels, Voxels.open),
            (arguments.views, lambda folder: Views.open(folder, kind="rgb")),
            (arguments.depths, lambda folder: Views.open(folder, kind="depth")),
            (arguments.audio, Audio.open),
        ):
            if given:
                prompts.append(reader(given))
    if not prompts and recipe.text is not None:
        return Text(recipe.text)
    if not prompts and recipe.prompt:
        kind = clean(str(recipe.prompt.get("kind", "prompt")), 20)
        raise BadInput(
            f"the config was made from a file of kind {kind!r}, which it does not hold: give that file again"
        )
    if not prompts:
        raise BadInput("there is no prompt: give a sentence, or one of " + ", ".join(f"--{name}" for name in FILES))
    return prompts[0] if len(prompts) == 1 else [(prompt, 1.0) for prompt in prompts]


def read_start(path: Path, prompt: Any) -> Any:
    """The mesh of a file to begin with, brought to the size of the reference view, and the prompt that says where to.

    Its weights and sources come along where anyform made it; else its licence is unknown, which `cite` will say.
    """
    import hashlib

    import numpy as np

    from anyform import __version__
    from anyform.geometry.asset import Asset, Provenance, Source, Start, WeightsRecord
    from anyform.geometry.formats import read_extras, read_mesh
    from anyform.geometry.sdf import normalise

    mesh = read_mesh(path)
    _, centre, scale = normalise(mesh.vertices, mesh.faces)
    fitted = mesh.moved(scale, -centre * scale)
    made = read_extras(path) if path.suffix.lower() in {".glb", ".3mf"} else {}
    weights = tuple(
        WeightsRecord(*(str(row.get(key, "unknown")) for key in ("id", "sha256", "licence", "commercial_use")))
        for row in made.get("weights", ())
        if isinstance(row, dict)
    )
    sources = tuple(
        Source(*(str(row.get(key, "unknown")) for key in ("title", "author", "licence", "id")), share=1.0)
        for row in made.get("sources", ())
        if isinstance(row, dict)
    )
    digest = hashlib.sha256(np.ascontiguousarray(mesh.vertices).tobytes()).hexdigest()
    unknown = Source(title=clean(path.name, 80), author="unknown", licence="unknown", id=digest, share=1.0)
    provenance = Provenance(
        system="file", version=__version__, seed=0, quality="", weights=weights,
        sources=sources if weights or sources else (unknown,),
    )  # fmt: skip
    return Start(Asset(fitted, provenance), prompt)


def settings_of(arguments: argparse.Namespace, recipe: Recipe) -> dict[str, object]:
    """Dotted settings: the recipe's, then the named options, then --set; a later one wins."""
    settings = configuration.flatten(recipe.settings)
    keeps = arguments.keep_geometry or None
    for name, value in (
        ("faces", arguments.faces),
        ("texture_size", arguments.texture_size),
        ("variation", arguments.variation),
        ("paint", False if arguments.no_texture else None),
        ("from_scratch", arguments.from_scratch or None),
        ("keep_geometry" if arguments.refine is None else f"{arguments.refine}.keep_geometry", keeps),
    ):
        if value is not None:
            settings[name] = value
    settings.update(configuration.parse(assignment) for assignment in arguments.set)
    return settings


def _text(given: str) -> str:
    """The sentence; "-" reads standard input. Undecodable bytes become the replacement character."""
    if given == "-":
        data = sys.stdin.buffer.read(_MAX_STDIN + 1)
        if len(data) > _MAX_STDIN:
            raise BadInput(f"standard input holds over {_MAX_STDIN} bytes: a prompt is one sentence")
        try:
            return data.decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            raise BadInput(f"standard input is no UTF-8 text: byte {error.start} does not fit") from error
    # A plain "C" locale hides the bytes of an argument in lone surrogates (PEP 383); other lone ones mean nothing.
    hidden = re.sub("[\ud800-\udc7f\udd00-\udfff]", "\ufffd", given)
    return hidden.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _cut_out(image: Image, background: Literal["auto", "keep"]) -> Image:
    """The picture with its object in alpha; a picture that is kept, or has a mask, needs no network loaded."""
    if background == "keep" or image.has_mask:
        return image
    from anyform.encoders.cutout import cut_out

    return cut_out(image, background)


@contextmanager
def _warnings_said() -> Iterator[None]:
    """What a reader converted or guessed is said in one line each."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for warning in caught:
        if warning.category is UserWarning:
            say(f"anyform: note: {clean(str(warning.message))}")


def _typed(data: Mapping[str, Any], key: str, kind: type, path: Path) -> Any:
    value = data.get(key)
    if value is not None and type(value) is not kind:
        raise BadInput(f"{path.name!r} holds no settings of anyform: {key!r} should be {kind.__name__}")
    return value


def _weights_of(data: Mapping[str, Any], path: Path) -> str | None:
    """The released id that made the file; None for embedded weights. Raises BadInput for weights of elsewhere."""
    from anyform.weights import EMBEDDED, RELEASED

    rows = data.get("weights", ())
    ids = [str(row.get("id", "")) for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    for name in ids:
        if name in RELEASED:
            return name
        if name.rpartition("/")[2] not in EMBEDDED:
            raise BadInput(f"{path.name!r} was made with the weights {clean(name, 80)!r}: give them with --weights")
    return None
