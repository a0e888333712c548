"""The page of `neuro report`: self-contained, says what the files say, escapes what it did not write."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from axon_page import folder

from neuro.compare import compare
from neuro.errors import RunError
from neuro.page import write
from neuro.page.charts import COLOURS
from neuro.page.gather import gather
from neuro.views import MAX_SHOWN, confusion, raster

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Outline(HTMLParser):
    """Every tag closed in its order; what is fetched from elsewhere; text by tag."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.scripts = 0
        self.tabs: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.scripts += tag == "script"
        self.tabs += [str(given["data-tab"])] if "data-tab" in given else []
        for name in ("src", "href", "xlink:href", "srcset", "action"):
            if given.get(name) and not str(given[name]).startswith("data:"):
                self.fetched.append(str(given[name]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> in {self.open}"


@pytest.fixture
def page(tmp_path: Path) -> str:
    return write(folder(tmp_path)).read_text(encoding="utf-8")


def test_it_is_well_formed_and_fetches_nothing(page: str) -> None:
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    assert outline.fetched == []
    assert "url(" not in page
    assert "@import" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert outline.tabs == ["Chips", "loihi2", "spinnaker1", "Designs", "Again"]


def test_it_says_what_the_files_say(page: str) -> None:
    for said in ("92.00 %", "90.00 %", "0 of 123,456 values differ", "somebody2020", "the weather", "Split it."):
        assert said in page, said
    assert "1 µJ (500 nJ .. 3 µJ)" in page


def test_what_others_wrote_is_text_not_markup(page: str) -> None:
    outline = Outline()
    outline.feed(page)
    assert outline.scripts == 1  # ours
    assert "<script>alert" not in page
    assert "<b>note</b>" not in page
    assert "a &amp; b" in page


def test_every_spike_that_is_kept_is_drawn(tmp_path: Path) -> None:
    train = np.zeros((30, 9), bool)
    train[[3, 4, 29], [0, 8, 5]] = True
    shown = raster({"layer": train}, 1e-3, 0, 0, 0)
    page = folder(tmp_path)
    path = page / "deploy" / "loihi2" / "view.json"
    table = json.loads(path.read_text())
    table["raster"] = shown
    path.write_text(json.dumps(table))
    text = write(page).read_text(encoding="utf-8")
    assert "M3 8h.9M4 0h.9M29 3h.9" in text  # neuron 0 is at the bottom


def test_long_recordings_are_thinned_and_say_so() -> None:
    shown = raster({"layer": np.ones((300, 100), bool)}, 1e-3, 0, 0, 0)["layers"][0]
    assert shown["spikes"] == 30000
    assert len(shown["steps"]) == MAX_SHOWN


def test_confusion_counts() -> None:
    assert confusion(np.array([0, 0, 2]), np.array([0, 1, 2]), 3) == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]


def test_a_folder_without_anything_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no run"):
        write(tmp_path)
    with pytest.raises(RunError, match="not a folder"):
        write(tmp_path / "none")
    assert not (tmp_path / "report.html").exists()


def test_damaged_files_are_named_all_at_once(tmp_path: Path) -> None:
    place = folder(tmp_path)
    (place / "deploy" / "report.json").write_text("{")
    (place / "sweep" / "sweep.json").write_text("[]")
    with pytest.raises(RunError) as problem:
        gather(place)
    assert "deploy" in str(problem.value)
    assert "sweep" in str(problem.value)


def test_pictures_outside_of_the_folder_are_not_read(tmp_path: Path) -> None:
    place = folder(tmp_path / "in")
    (tmp_path / "secret.png").write_bytes(b"secret")
    path = place / "deploy" / "report.json"
    table = json.loads(path.read_text())
    table["chips"]["loihi2"]["files"]["floorplan"] = "../../secret.png"
    path.write_text(json.dumps(table))
    assert "floorplan" not in gather(place).deployments[0].chips[0].pictures


def test_colours_are_told_apart() -> None:
    assert len(set(COLOURS)) == len(COLOURS)
    assert all(re.fullmatch("#[0-9a-fA-F]{6}", c) for c in COLOURS)


def test_compare_lists_what_differs_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    a, b = folder(tmp_path / "a", 0) / "deploy", folder(tmp_path / "b", 1) / "deploy"
    assert compare(a, a) == []
    rows = {row["what"]: row for row in compare(a, b)}
    assert rows["seed"] == {"what": "seed", "a": 0, "b": 1, "change": None}
    assert rows["chips.loihi2.energy_j.nominal"]["change"] == pytest.approx(1.0)
    assert not any("spinnaker1" in what for what in rows)
    with pytest.raises(RunError, match="neither"):
        compare(a, tmp_path)
