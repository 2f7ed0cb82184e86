"""Line charts and dot plots as inline SVG, drawn here so that a report needs no library and no network.

Colours come from the page (`currentColor` and CSS variables), so charts follow its light or dark scheme.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

from anyform.errors import BadInput

MAX_POINTS = 400  # of a line; more are averaged in blocks
WIDTH, HEIGHT, MARGIN = 300, 150, 34
_NOT_CURVES = ("step", "seconds", "rate")

Series = list[tuple[float, float]]


def read_log(path: Path) -> dict[str, Series]:
    """Curves (step, value) by name of a training log with one JSON object a line; rows lack what they did not measure.

    A last line cut by a kill is left out. Raises BadInput for any other line that is no JSON object.
    """
    curves: dict[str, Series] = {}
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row: dict[str, Any] = dict(json.loads(line))
        except (ValueError, TypeError) as error:
            if number == len(lines):
                break
            raise BadInput(f"line {number} of {path.name} is no JSON object: is it a training log?") from error
        for name, value in row.items():
            if name not in _NOT_CURVES and type(value) in (int, float) and math.isfinite(value):
                curves.setdefault(name, []).append((float(row.get("step", number)), float(value)))
    return curves


def line_chart(title: str, points: Series) -> str:
    """One curve. The value axis is logarithmic where all values are positive and span more than a factor of 20."""
    points = thinned(sorted(points))
    values = [value for _, value in points]
    is_log = min(values) > 0 and max(values) / min(values) > 20
    heights = [math.log10(value) if is_log else value for value in values]
    low, high = min(heights), max(heights)
    pad = (high - low or abs(high) or 1.0) * 0.06
    low, high = low - pad, high + pad
    first, last = points[0][0], points[-1][0]
    right, bottom = WIDTH - 8, HEIGHT - 22

    def place(step: float, height: float) -> str:
        x = MARGIN + (step - first) / (last - first or 1) * (right - MARGIN)
        return f"{x:.1f},{bottom - (height - low) / (high - low) * (bottom - 22):.1f}"

    line = " ".join(place(step, height) for (step, _), height in zip(points, heights, strict=True))
    ticks = "".join(
        f'<line x1="{MARGIN}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>'
        f'<text x="{MARGIN - 4}" y="{y + 3:.1f}" text-anchor="end">{short(10**level if is_log else level)}</text>'
        for level in (low + pad, (low + high) / 2, high - pad)
        for y in [bottom - (level - low) / (high - low) * (bottom - 22)]
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f'<text x="{MARGIN}" y="12" class="name">{escape(title)}{" (log)" if is_log else ""}</text>{ticks}'
        f'<text x="{MARGIN}" y="{HEIGHT - 6}">{short(first)}</text>'
        f'<text x="{right}" y="{HEIGHT - 6}" text-anchor="end">step {short(last)}</text>'
        f'<polyline points="{line}" class="curve"/></svg>'
    )


def dot_plot(rows: Sequence[tuple[str, float, tuple[float, float], Mapping[str, float]]]) -> str:
    """One bar a row on [0, 1] with its interval, and named marks beside it: (label, value, (low, high), marks)."""
    left, right, row_height = 78, 620, 26
    marks = sorted({name for *_, others in rows for name in others})
    top = 26
    height = top + row_height * len(rows) + 20

    def x(value: float) -> float:
        return left + min(max(value, 0.0), 1.0) * (right - left)

    parts = [
        f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{top - 4}" y2="{height - 18}" class="grid"/>'
        f'<text x="{x(tick):.1f}" y="{height - 4}" text-anchor="middle">{tick:g}</text>'
        for tick in (0, 0.2, 0.4, 0.6, 0.8, 1)
    ]
    for i, (label, value, (low, high), others) in enumerate(rows):
        y = top + i * row_height + row_height / 2
        parts.append(
            f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(label)}</text>'
            f'<rect x="{left}" y="{y - 7:.1f}" width="{x(value) - left:.1f}" height="14" rx="2" class="bar"/>'
            f'<line x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y:.1f}" y2="{y:.1f}" class="interval"/>'
            f'<text x="{right + 34}" y="{y + 4:.1f}" text-anchor="end" class="name">{value:.2f}</text>'
        )
        parts += [_mark(x(number), y, marks.index(name), f"{name} {number:.2f}") for name, number in others.items()]
    legend = "".join(
        _mark(left + 8 + 110 * k, 10, k, name) + f'<text x="{left + 18 + 110 * k}" y="14">{escape(name)}</text>'
        for k, name in enumerate(marks)
    )
    head = f'<svg viewBox="0 0 680 {height}" class="wide" role="img" aria-label="IoU by prompt">'
    return f"{head}{legend}{''.join(parts)}</svg>"


def thinned(points: Series, most: int = MAX_POINTS) -> Series:
    """At most `most` points: means of equal blocks."""
    if len(points) <= most:
        return points
    edges = [round(k * len(points) / most) for k in range(most + 1)]
    blocks = [points[a:b] for a, b in pairwise(edges)]
    return [(sum(x for x, _ in b) / len(b), sum(y for _, y in b) / len(b)) for b in blocks]


def short(value: float) -> str:
    """A number for an axis: 12k, 0.031, 3e-05."""
    if abs(value) >= 10_000:
        return f"{value / 1000:.4g}k"
    return f"{value:.3g}"


def _mark(x: float, y: float, kind: int, title: str) -> str:
    """One of four shapes around (x, y)."""
    shapes = (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>',
        f'<path d="M{x:.1f} {y - 5.5:.1f}l5.5 5.5l-5.5 5.5l-5.5 -5.5z"/>',
        f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"/>',
        f'<path d="M{x:.1f} {y - 5:.1f}l5 9h-10z"/>',
    )
    return f'<g class="mark m{kind % 4}"><title>{escape(title)}</title>{shapes[kind % 4]}</g>'
