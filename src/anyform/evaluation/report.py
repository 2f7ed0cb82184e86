"""An evaluation as one HTML page: everything inline, readable offline, in light and dark. And the sheet of pictures.

Every text that comes from data is escaped; the page has no script and asks for nothing.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anyform.errors import AnyformError, BadInput
from anyform.evaluation.curves import dot_plot, line_chart, read_log
from anyform.evaluation.protocol import CONDITIONS, FREE, Subject, Target
from anyform.render.shading import Picture, contact_sheet, picture
from anyform.types.camera import Cameras
from anyform.types.prompt import Image, Sketch

if TYPE_CHECKING:
    from PIL import Image as PillowImage

OBJECTS = 26
_STYLE = """
:root{color-scheme:light dark;--ink:#1c2024;--soft:#5b6570;--paper:#fff;--card:#f5f6f8;--line:#d9dde2;--accent:#2563c9;
--good:#13753c;--bad:#b3261e;--m0:#b45309;--m1:#7c3aed;--m2:#0f766e;--m3:#9d174d}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ee;--soft:#9aa5b1;--paper:#14171b;--card:#1d2126;--line:#343a42;
--accent:#7aa7f7;--good:#6bd08f;--bad:#ff8f86;--m0:#fbbf24;--m1:#c4b5fd;--m2:#5eead4;--m3:#f9a8d4}}
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1180px;margin:0 auto;padding:28px 20px 60px}h1{font-size:26px;margin:0 0 4px}
h2{font-size:18px;margin:36px 0 10px}p.soft,.soft{color:var(--soft)}.scroll{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:14px;margin-top:10px}
th,td{padding:4px 10px 4px 0;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th{font-weight:600;color:var(--soft)}th:first-child,td:first-child{text-align:left}
td.ok{color:var(--good);text-align:left}td.no{color:var(--bad);text-align:left;font-weight:600}
figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:8px;padding:10px}
figcaption{color:var(--soft);font-size:13px;margin-top:6px}img{max-width:100%;display:block;border-radius:4px}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(280px,1fr));gap:12px}
svg{width:100%;display:block}
svg.wide{max-width:760px}svg text{font:11px system-ui,sans-serif;fill:var(--soft)}
svg .name{fill:var(--ink);font-size:12px}
.grid{stroke:var(--line)}.curve{fill:none;stroke:var(--accent);stroke-width:1.6}.bar{fill:var(--accent)}
.interval{stroke:var(--ink);stroke-width:1.5}.mark{stroke:var(--paper);stroke-width:1}.m0{fill:var(--m0)}
.m1{fill:var(--m1)}.m2{fill:var(--m2)}.m3{fill:var(--m3)}
td.words{text-align:left;white-space:normal}
td.code{font:12px ui-monospace,monospace;overflow-wrap:anywhere}
"""


def sheet(
    subject: Subject,
    targets: Sequence[Target],
    seed: int = 0,
    conditions: Sequence[str] = CONDITIONS,
    count: int = OBJECTS,
) -> PillowImage.Image:
    """`count` random targets (by seed, not by hand) × truth, codec, every condition, and the pictures that were given.

    The truth stands in the object's own front; results of pictures and sketches face the way their prompt shows them.
    An empty cell is a generation that made nothing.
    """
    chosen = np.sort(np.random.default_rng(seed).permutation(len(targets))[:count])
    titles = ["object", "codec"]
    for condition in conditions:
        titles += [f"{condition} prompt", condition] if condition in ("image", "sketch") else [condition]
    rows = []
    for target in (targets[i] for i in chosen):
        cells: list[Picture | None] = [_view(subject, target.sdf), _view(subject, subject.reconstruct(target.sdf))]
        for condition in conditions:
            prompt = target.prompts[condition]
            if isinstance(prompt, Image):
                cells.append(prompt.rgba)
            elif isinstance(prompt, Sketch):
                cells.append(np.repeat(np.rint(255 * (1 - prompt.ink))[..., None], 3, -1).astype(np.uint8))
            cells.append(_generated(subject, target, condition, seed))
        rows.append((target.caption, cells))
    return contact_sheet(rows, titles)


def _generated(subject: Subject, target: Target, condition: str, seed: int) -> Picture | None:
    try:
        return _view(subject, subject.generate(target.prompts[condition], seed, None))
    except AnyformError:
        return None


def _view(subject: Subject, sdf: NDArray[np.float32]) -> Picture | None:
    """A field from half right above, 192 pixels; None where it has no surface."""
    cameras = Cameras.orbit(np.array([0.55]), np.array(0.4), 4.4, np.radians(32), 192)
    try:
        return picture(subject.mesh(sdf), cameras)[0]
    except AnyformError:
        return None


def write_report(
    result: Mapping[str, Any],
    path: str | Path,
    sheets: Mapping[str, PillowImage.Image] | None = None,
    curves: Mapping[str, Path] | None = None,
) -> Path:
    """Write the page of an `evaluate_wala` result (with `circumstances`), whole or not at all.

    sheets: caption -> picture. curves: name of a run -> its training log. Raises BadInput where it cannot be written.
    """
    path = Path(path)
    name = str(result.get("subject", {}).get("name", "a system"))
    sections = [
        _header(name, result),
        _section("What was asked, and what was reached", _bars(result.get("bars", []))),
        _section("From each kind of prompt", _generation(result)),
        _section("Codec", _reconstruction(result)),
        *(_section(caption, _figure(caption, image)) for caption, image in (sheets or {}).items()),
        *(_section(f"Training: {run}", _curves(log)) for run, log in (curves or {}).items()),
        _section("How it was measured", _circumstances(result)),
    ]
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(name)}: evaluation</title><style>{_STYLE}</style></head><body><main>{''.join(sections)}</main>"
        f"</body></html>\n"
    )
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_text(page, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise BadInput(f"the report {path.name[:80]!r} cannot be written: {error.strerror}") from error
    return path


def _header(name: str, result: Mapping[str, Any]) -> str:
    facts = [f"{result.get('objects', 0)} objects of the {result.get('split', '?')} split"]
    facts += [str(result[key]) for key in ("date", "machine") if result.get(key)]
    return f'<h1>{escape(name)}</h1><p class="soft">{escape(" · ".join(facts))}</p>'


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str | tuple[str, str]]]) -> str:
    """Cells are text, or (class of the page's style, text); all of it is escaped."""
    if not rows:
        return ""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(cell: str | tuple[str, str]) -> str:
    if isinstance(cell, str):
        return f"<td>{escape(cell)}</td>"
    return f'<td class="{escape(cell[0])}">{escape(cell[1])}</td>'


def _bars(bars: Sequence[Mapping[str, Any]]) -> str:
    rows: list[list[str | tuple[str, str]]] = [
        [
            _words(str(row["what"])),
            _number(row["value"]),
            f"{row['sense']} {_number(row['bar'])}",
            ("ok", "✓ reached") if row["ok"] else ("no", "✗ not reached"),
        ]
        for row in bars
    ]
    return _table(("figure", "value", "bar", ""), rows)


def _generation(result: Mapping[str, Any]) -> str:
    generation, shared = result.get("generation", {}), result.get("baselines", {})
    plotted, rows = [], []
    for condition, measured in generation.items():
        iou = measured["iou"]
        own = {name: part["mean"] for name, part in measured["baselines"].items()}
        others = {**own, **{name: shared[name]["mean"] for name in ("oracle", "random") if name in shared}}
        plotted.append((condition, iou["mean"], (iou["low"], iou["high"]), others))
        interval = f"[{_number(iou['low'])}, {_number(iou['high'])}]"
        row = [condition, f"{_number(iou['mean'])} {interval}", _number(iou["median"])]
        row += [_number(measured[key].get("mean")) for key in ("f1", "chamfer_e3", "f_score_002")]
        row += [_number(others.get(key)) for key in ("prompt", "retrieval", "oracle", "random")]
        row += [_number(measured["between_seeds"]["mean"]) if condition in FREE else ""]
        rows.append([*row, f"{100 * measured['passes_check']:.1f} %", str(len(measured["failures"]))])
    if not rows:
        return ""
    head = (
        *("prompt", "IoU mean [90 %]", "median", "F1 at a voxel", "Chamfer ×10³", "F at 0.02", "prompt itself"),
        *("retrieval", "oracle", "random", "between seeds", "pass check", "failures"),
    )
    category = generation.get("text", {}).get("category")
    words = ""
    if category:
        words = '<p class="soft">Category accuracy of text: ' + escape(
            ", ".join(f"{name} {100 * share:.1f} %" for name, share in category.items())
        )
        words += "</p>"
    failures = [[condition, ("words", said)] for condition, part in generation.items() for said in part["failures"]]
    return f"<figure>{dot_plot(plotted)}</figure>{_table(head, rows)}{words}{_table(('prompt', 'failure'), failures)}"


def _reconstruction(result: Mapping[str, Any]) -> str:
    names = {"iou": "IoU", "iou_filled": "IoU, objects that fill over 3 %", "f1": "F1 at a voxel"}
    keys = ("mean", "median", "p10", "low", "high", "n")
    rows = [
        [names.get(name, name), *(_number(part.get(key)) for key in keys)]
        for name, part in result.get("reconstruction", {}).items()
    ]
    return _table(("", "mean", "median", "worst tenth below", "90 % from", "to", "objects"), rows)


def _circumstances(result: Mapping[str, Any]) -> str:
    skip = {"bars", "generation", "reconstruction", "baselines", "subject"}
    facts = {key: value for key, value in result.items() if key not in skip}
    facts |= {key: value for key, value in result.get("subject", {}).items() if key != "weights"}
    rows: list[list[str | tuple[str, str]]] = [[str(key), ("words", _plain(value))] for key, value in facts.items()]
    for file, digest in result.get("subject", {}).get("weights", {}).items():
        rows.append([f"weights {file}", ("words code", str(digest))])
    return _table(("", ""), rows)


def _figure(caption: str, image: PillowImage.Image) -> str:
    content = io.BytesIO()
    image.convert("RGB").save(content, "WEBP", quality=86, method=4)
    data = base64.b64encode(content.getvalue()).decode("ascii")
    source = f"data:image/webp;base64,{data}"
    note = "Chosen by a random number, not by hand. Empty cell: nothing was made."
    return f'<figure><img alt="{escape(caption)}" src="{source}"><figcaption>{note}</figcaption></figure>'


def _curves(log: Path) -> str:
    charts = [line_chart(name, points) for name, points in read_log(log).items() if len(points) > 1]
    return f'<div class="charts">{"".join(f"<figure>{chart}</figure>" for chart in charts)}</div>' if charts else ""


def _words(path: str) -> str:
    """A path in a result as people say it: "generation.voxels.iou.mean" -> "voxels IoU mean"."""
    words = {"generation": "", "iou": "IoU", "iou_filled": "IoU of objects filled over 3 %", "f1": "F1 at a voxel"}
    return " ".join(filter(None, (words.get(part, part) for part in path.split("."))))


def _number(value: float | int | None) -> str:
    if value is None:
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(part)}" for key, part in value.items()) or "–"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
