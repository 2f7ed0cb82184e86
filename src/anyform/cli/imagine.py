"""`anyform imagine`: pictures of what a prompt asks for, ranked; the best, or the one picked, is saved."""

from __future__ import annotations

import argparse
import io
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from anyform.cli.terminal import Reporter, clean, print_out, say
from anyform.errors import BadInput, BadSetting

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def add_arguments(verb: argparse.ArgumentParser) -> None:
    """Everything but the prompt."""
    result = verb.add_argument_group("result")
    result.add_argument(
        "-o", "--output", metavar="FILE", required=True, help="PNG of the best candidate, or the picked"
    )
    result.add_argument("--sheet", metavar="FILE", help="PNG of all candidates, best first, row by row")
    result.add_argument("--pick", type=int, default=1, metavar="N", help="which candidate, 1 = best (default)")
    result.add_argument("--force", action="store_true", help="overwrite")
    how = verb.add_argument_group("how")
    how.add_argument("--candidates", type=int, default=4, metavar="K", help="how many are made, 1 to 64 (default 4)")
    how.add_argument("--seed", metavar="N", help="0..4294967295 of the first candidate; default random, printed")
    how.add_argument("--steps", type=int, default=30, metavar="N", help="denoising steps (default 30)")
    how.add_argument(
        "--prior", metavar="P", help="a trained foundation file or a Stable unCLIP folder; default embedded"
    )
    how.add_argument("--encoder", metavar="FILE", help="ImageBind's file, for a Stable unCLIP folder")
    how.add_argument("--memory", metavar="AMOUNT", help="what the device may spend on the prior, such as 6GB")
    how.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")


def run(arguments: argparse.Namespace) -> int:
    """The verb. Returns 0; every failure is an exception."""
    with Reporter() as report:
        return _run(arguments, report)


def _run(arguments: argparse.Namespace, report: Reporter) -> int:
    from anyform import api
    from anyform.cli.inputs import Recipe, read_prompt
    from anyform.geometry.formats.files import write_files
    from anyform.priors.sampling import contact_sheet

    force = arguments.force
    target = _target(arguments.output, force)
    sheet = None if arguments.sheet is None else _target(arguments.sheet, force)
    if not 1 <= arguments.pick <= arguments.candidates:
        raise BadInput(f"--pick {arguments.pick} is none of the {arguments.candidates} candidates: 1 is the best")
    if arguments.seed is not None and not re.fullmatch(r"[0-9]{1,10}", arguments.seed):
        raise BadSetting(f"the seed must be a whole number from 0 to 4294967295, got {clean(arguments.seed, 40)!r}")
    seed = api.check_seed(None if arguments.seed is None else int(arguments.seed))
    prompt = read_prompt(arguments, Recipe())
    made = api.imagine(
        prompt,
        seed=seed,
        report=report,
        candidates=arguments.candidates,
        prior=arguments.prior,
        encoder=arguments.encoder,
        device=arguments.device,
        memory=arguments.memory,
        num_inference_steps=arguments.steps,
    )
    chosen = arguments.pick - 1
    write_files(target, lambda: {target.name: _png(made.pictures[chosen])}, force=force)
    if sheet is not None:
        columns = min(len(made.pictures), 4)
        write_files(sheet, lambda: {sheet.name: _png(contact_sheet(made.pictures, columns))}, force=force)
    say(
        f"anyform: saved {clean(str(target))}  candidate {arguments.pick} of {len(made.pictures)}  "
        f"seed {made.seeds[chosen]}  score {made.score[chosen]:.3f}  {report.seconds:.1f} s"
    )
    if not arguments.json:
        print_out(clean(str(target)))
        return 0
    rows = [
        {"seed": made.seeds[k], "score": round(float(made.score[k]), 4),
         "similarity": round(float(made.similarity[k]), 4), "foreground": round(float(made.foreground[k]), 4)}
        for k in range(len(made.pictures))
    ]  # fmt: skip
    record = {"ok": True, "file": str(target), "sheet": None if sheet is None else str(sheet), "seed": seed}
    print(json.dumps({**record, "picked": arguments.pick, "candidates": rows}), flush=True)
    return 0


def _target(given: str, force: bool) -> Path:
    """A PNG's path that can be written. Raises BadInput, before any work."""
    from anyform.geometry.formats.files import check_target

    path = Path(given)
    if "\0" in given or path.suffix.lower() != ".png":
        raise BadInput(f"pictures are written as PNG: give a name that ends in .png, not {clean(given, 80)!r}")
    try:
        check_target(path, force)
    except OSError as error:
        raise BadInput(f"cannot write {clean(path.name, 80)!r}: {error.strerror}") from error
    return path


def _png(picture: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG")
    return out.getvalue()
