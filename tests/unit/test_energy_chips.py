"""Every chip's file can be priced, says how it runs, and refuses what it must; the figures of the specification."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import numpy as np
import pytest

from neuro.errors import BadChipFile, ChipError
from neuro.hardware import baseline, costs, latency, predict
from neuro.hardware.chip import CHIP_FOLDER, bibliography, read_chip
from neuro.hardware.predict import Stage

CHIPS = sorted(p.stem for p in CHIP_FOLDER.glob("*.toml"))
DOCS = Path(__file__).parents[2] / "docs"
PAGES = [p for p in sorted(DOCS.glob("*.md")) if any(name.startswith(p.stem) for name in CHIPS)]  # akida.md is of two
KERNELS = {"conv1x1": 0.386, "conv3x3": 0.648, "sepconv3x3": 0.646, "conv5x5": 2.24, "conv7x7": 9.269}
COUNTS = {"synops": 1e6, "updates": 1e4, "spikes": 1e3, "packets": 1e3, "injected": 100.0}


def nominal(e: object, name: str) -> float:
    r = e.boundaries[name]  # type: ignore[attr-defined]
    assert r is not None
    return float(r.nominal)


@pytest.mark.parametrize("name", CHIPS)
def test_every_set_of_every_chip_predicts_or_says_why_not(name: str) -> None:
    chip = read_chip(CHIP_FOLDER / f"{name}.toml")
    for constants in chip.constant_sets:
        e = predict(name, COUNTS, steps=10, time_s=0.01, constants=constants, cores=2)
        assert e.constants == constants
        for boundary, r in e.boundaries.items():
            if r is None:
                assert e.reasons[boundary]
            else:
                assert 0 <= r.low <= r.nominal <= r.high
                assert r.high > 0
        assert e.energy_j is not None or any("energy." in line for line in e.not_modelled)
        known = bibliography()
        assert all(s.source in known for s in e.sources)
    for refused in chip.refused:
        with pytest.raises(ChipError, match="refused"):
            predict(name, COUNTS, constants=refused)


def test_no_chip_is_named_where_prices_are_summed() -> None:
    for module in (costs, latency, baseline, inspect.getmodule(predict)):
        assert module is not None
        code = re.sub(r'""".*?"""', "", inspect.getsource(module), flags=re.S).lower()
        assert not [name for name in CHIPS if name in code], module.__name__


def test_loihi1_keeps_both_tables_and_never_mixes_them() -> None:
    counts = {"synops": 1e6, "updates": 5120.0, "spikes": 512.0}
    davies = predict("loihi1", counts, time_s=1.0, constants="davies2018")
    assert nominal(davies, "events") == pytest.approx(1e6 * 23.6e-12 + 5120 * 81e-12)
    assert any(line.startswith("energy.spike") for line in davies.not_modelled)
    table = predict("loihi1", counts, time_s=1.0, constants="sanafe")
    assert nominal(table, "events") == pytest.approx(1e6 * 35.5e-12 + 5120 * 72.8e-12 + 512 * 69.3e-12)
    conv = predict("loihi1", {"synops_conv": 1e6}, time_s=1.0, constants="sanafe")
    assert nominal(conv, "events") == pytest.approx(24e-6)
    idle = predict("loihi1", {}, time_s=1.0)
    assert nominal(idle, "above_boot_idle") == pytest.approx(66.7e-3)
    assert nominal(idle, "total") == pytest.approx(96.3e-3)


def test_the_barrier_grows_with_the_tiles_in_use() -> None:
    def barrier(cores: int) -> float:
        return predict("loihi1", {}, steps=1, cores=cores).time_causes["barrier"].nominal

    assert [barrier(n) for n in (1, 4, 5, 8, 12, 16, 115, 128)] == pytest.approx(
        [0.6e-6, 0.6e-6, 1.0e-6, 1.0e-6, 1.0e-6, 1.4e-6, 1.8e-6, 1.8e-6]
    )


@pytest.mark.skipif("truenorth" not in CHIPS, reason="needs hardware/chips/truenorth.toml")
def test_truenorth_is_affine_and_refuses_its_own_average() -> None:
    events = 1048576 * 128
    for rate, watts in ((11.58, 68e-3), (95.93, 94e-3)):
        e = predict("truenorth", {"synops": events * rate}, steps=1000, time_s=1.0)
        assert nominal(e, "total") == pytest.approx(watts, rel=0.002)
    assert predict("truenorth", {"synops": 1e6}, steps=1000).latency_s.nominal == pytest.approx(1.0)  # type: ignore[union-attr]
    with pytest.raises(ChipError, match=r"incremental cost of an event is 2\.30 pJ"):
        predict("truenorth", {"synops": 1.0}, constants={"energy.synop": 26e-12})


@pytest.mark.skipif("spinnaker1" not in CHIPS, reason="needs hardware/chips/spinnaker1.toml")
def test_spinnaker_boards_are_idle_plus_increment() -> None:
    assert nominal(predict("spinnaker1", {}, time_s=1.0, boards=1), "total") == pytest.approx(22.0)
    e = predict("spinnaker1", {"synops": 1.8e9}, time_s=1.0, boards=1)
    assert nominal(e, "total") / 1.8e9 == pytest.approx(20e-9, rel=0.02)
    assert nominal(predict("spinnaker1", {}, time_s=1.0, chips=49), "total") == pytest.approx(44.0)
    four = {"synops": 1e6, "updates": 1e4 * 1000}
    old = predict("spinnaker1", four, time_s=1.0, chips=4, constants="sharp2012")
    assert nominal(old, "events") == pytest.approx(43e-9 * 1e6 + 100e-9 * 1e7)
    assert nominal(old, "total") == pytest.approx(nominal(old, "events") + 4 * 0.35)
    cores = predict("spinnaker1", {"synops": 1e9}, time_s=1.0, boards=2, cores=100, constants="spinnmachine")
    assert nominal(cores, "total") == pytest.approx(2 * 26.84 + 100 * 0.034)


@pytest.mark.skipif("akida1" not in CHIPS, reason="needs hardware/chips/akida1.toml")
@pytest.mark.parametrize(
    ("kind", "c"),
    [("conv1x1", 0.386), ("conv3x3", 0.648), ("sepconv3x3", 0.646), ("conv5x5", 2.24), ("conv7x7", 9.269)],
)
def test_akida_layers_take_the_published_clocks(kind: str, c: float) -> None:
    e = predict("akida1", {}, stages={"layer": Stage(kind, np.array([12345]), 64, 5)})
    assert e.latency_s is not None
    assert e.latency_s.nominal * 400e6 == pytest.approx(25577 + c * 12345 * 64 / 5)
    assert e.boundaries["total"] is not None
    assert e.energy_j is not None
    assert e.energy_j.high > 5 * e.energy_j.nominal  # assumed: a wide range


def test_a_chip_file_with_unsound_constants_is_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "bad.toml"
    path.write_text(
        'name = "bad"\ntitle = "bad"\nnot_modelled = []\nregime = "sometimes"\ndefault_constants = "other"\n'
        "[constants.other.energy.synop]\nvalue = 1e-12\n[constants.third]\nspeed = 3\n"
        '[refused.x]\nvalue = 1\nunit = "J"\nsource = "axonport"\ngrade = "published"\n'
    )
    with pytest.raises(BadChipFile) as error:
        read_chip(path)
    text = str(error.value)
    for part in (
        "regime 'sometimes'",
        "default_constants",
        "constants.other.energy.synop",
        "constants.third",
        "refused.x",
    ):
        assert part in text


@pytest.mark.parametrize("page", PAGES, ids=[p.stem for p in PAGES])
def test_every_page_of_a_chip_ends_with_what_is_not_modelled(page: Path) -> None:
    headings = re.findall(r"^## (.*)$", page.read_text(encoding="utf-8"), flags=re.M)
    assert headings[-1] == "Not modelled"
