"""The page: whole, self-contained, harmless whatever the data says; curves and plots at the right places."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anyform.errors import BadInput
from anyform.evaluation.circumstances import circumstances, processor, revision
from anyform.evaluation.curves import MAX_POINTS, dot_plot, line_chart, read_log, thinned
from anyform.evaluation.protocol import CONDITIONS, evaluate_wala
from anyform.evaluation.reference import Reference
from anyform.evaluation.report import sheet, write_report

EVIL = '<script>alert("x")</script><td onclick=1>'


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails on tags that are not closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.words = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in {"src", "href", "action", "data"}]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture
def result(known: Any, targets: Any, reference: Reference) -> dict[str, Any]:
    known.error = lambda condition, seed: None if condition == "depth" else seed
    return {**circumstances(), **evaluate_wala(known, targets, reference)}


def test_the_page_says_everything_and_asks_for_nothing(result: dict[str, Any], tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    rows = [json.dumps({"step": i, "seconds": i, "loss": 1 / (i + 1)}) for i in range(50)]
    log.write_text("\n".join(rows), "utf-8")
    path = write_report(result, tmp_path / "out.html", {"a sheet": Image.new("RGB", (40, 30), "red")}, {"stage 1": log})
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    for condition in CONDITIONS:
        assert condition in page.words
    for words in (
        "known",
        result["date"],
        result["machine"],
        "not reached",
        "Training: stage 1",
        "a sheet",
        "0" * 64,
        "voxels IoU mean",
    ):
        assert words in page.words
    assert page.tags.count("polyline") == 1
    assert [link[:23] for link in page.links] == ["data:image/webp;base64,"]
    assert "script" not in page.tags
    assert not re.search(r"https?://|@import|url\(", text)
    assert "prefers-color-scheme:dark" in text
    assert [entry.name for entry in tmp_path.iterdir() if "partial" in entry.name] == []


def test_hostile_names_stay_text(result: dict[str, Any], tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(json.dumps({"step": 0, EVIL: 1}) + "\n" + json.dumps({"step": 1, EVIL: 2}) + "\n", "utf-8")
    result["subject"] = {"name": EVIL, "weights": {EVIL: EVIL}, EVIL: EVIL}
    result["machine"], result["split"] = EVIL, EVIL
    result["generation"][EVIL] = result["generation"].pop("voxels")
    result["generation"]["text"]["category"][EVIL] = 0.5
    result["bars"][0]["what"] = EVIL
    path = write_report(result, tmp_path / "x.html", {EVIL: Image.new("RGB", (8, 8))}, {EVIL: log})
    page = Page(path.read_text("utf-8"))
    assert "script" not in page.tags
    assert page.words.count("alert") > 8


def test_a_page_of_nothing_is_still_a_page(tmp_path: Path) -> None:
    assert "a system" in Page(write_report({}, tmp_path / "empty.html").read_text("utf-8")).words


def test_a_page_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"the report 'out.html' cannot be written"):
        write_report({}, tmp_path / "missing" / "out.html")


def test_the_sheet_has_a_cell_for_every_object_and_condition(known: Any, targets: Any) -> None:
    known.error = lambda condition, seed: None if condition == "voxels" else 0
    whole = np.asarray(sheet(known, targets, conditions=("voxels", "sketch", "text")))
    one = np.asarray(sheet(known, targets, conditions=("voxels", "sketch", "text"), count=1))
    assert whole.shape[0] > one.shape[0]
    assert whole.shape[1] == one.shape[1] == 110 + 6 * 100 + 4
    # the voxels column (third) stays empty, the object column does not
    body = whole[40:]
    assert (body[:, 110 + 205 : 110 + 295] == 255).all()
    assert (body[:, 110 + 5 : 110 + 95] < 240).any()
    np.testing.assert_array_equal(whole, np.asarray(sheet(known, targets, conditions=("voxels", "sketch", "text"))))


def test_logs_are_read_even_when_a_kill_cut_them(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    rows = ['{"step": 1, "loss": 2.0, "rate": 1}', '{"step": 3, "loss": 1, "iou": 0.5, "note": "x"}', '{"step": 4, "lo']
    log.write_text("\n".join(rows), "utf-8")
    assert read_log(log) == {"loss": [(1.0, 2.0), (3.0, 1.0)], "iou": [(3.0, 0.5)]}
    log.write_text('{"step": 1}\nno json\n{"step": 2}\n', "utf-8")
    with pytest.raises(BadInput, match=r"line 2 of log.jsonl"):
        read_log(log)


def test_a_chart_draws_its_points_in_order_and_in_the_frame() -> None:
    points = [(10.0, 3.0), (0.0, 1.0), (5.0, 2.0)]
    chart = line_chart("a < b", points)
    assert "a &lt; b" in chart
    pairs = re.findall(r'points="([^"]+)"', chart)[0].split()
    drawn = np.array([[float(value) for value in pair.split(",")] for pair in pairs])
    assert (np.diff(drawn[:, 0]) > 0).all()
    assert (np.diff(drawn[:, 1]) < 0).all()
    assert np.isclose(drawn[1], (drawn[0] + drawn[2]) / 2, atol=0.1).all()
    assert drawn.min() >= 0
    assert drawn[:, 0].max() <= 300
    assert "(log)" not in chart
    assert "(log)" in line_chart("loss", [(0, 1), (1, 1e-4)])
    assert "nan" not in line_chart("flat", [(0, 0.0), (1, 0.0)])


def test_thinning_keeps_the_mean() -> None:
    points = [(float(i), float(i % 7)) for i in range(5600)]
    few = thinned(points)
    assert len(few) == MAX_POINTS
    assert np.mean([y for _, y in few]) == pytest.approx(np.mean([y for _, y in points]))
    assert thinned(points[:5]) == points[:5]


def test_bars_of_a_dot_plot_are_as_long_as_their_values() -> None:
    rows = [("half", 0.5, (0.4, 0.6), {"oracle": 0.7}), ("whole", 1.0, (1.0, 1.0), {"random": 0.1})]
    widths = [float(w) for w in re.findall(r'width="([\d.]+)" height="14"', dot_plot(rows))]
    assert widths[0] / widths[1] == pytest.approx(0.5)
    assert "oracle 0.70" in dot_plot(rows)


def test_circumstances_name_no_person_and_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))  # the suite's own folder lies in a checkout
    facts = circumstances()
    assert json.loads(json.dumps(facts)) == facts
    assert "cores" in facts["machine"]
    assert str(Path.home()) not in json.dumps(facts)
    assert revision(tmp_path) == ""
    info = tmp_path / "cpuinfo"
    info.write_text("processor : 0\nmodel name\t: Fast CPU @ 9 GHz\n", "utf-8")
    assert processor(info) == "Fast CPU @ 9 GHz"
