"""Chip files: every constant has value, unit, source and grade; a bad file names every fault."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from neuro.errors import BadChipFile
from neuro.hardware import load_chip
from neuro.hardware.chip import CHIP_FOLDER, GRADES, REFERENCES, bibliography, read_chip
from neuro.hardware.target import targets

FILES = sorted(CHIP_FOLDER.glob("*.toml"))


@pytest.mark.parametrize("path", FILES, ids=[p.stem for p in FILES])
def test_every_constant_has_a_source_a_grade_and_a_range(path: Path) -> None:
    chip = read_chip(path)
    sources = bibliography()
    assert chip.name == path.stem
    assert chip.not_modelled
    assert {"time", "limits"} <= {name.split(".")[0] for name in chip.quantities()}
    for group in ("energy", "power"):
        assert getattr(chip, group) or any(group in line for line in chip.not_modelled), group
    for name, q in [pair for constants in chip.constant_sets for pair in chip.quantities(constants).items()]:
        assert q.source in sources, name
        assert q.grade in GRADES, name
        assert q.low <= q.value <= q.high, name
        assert q.unit in ("1", "B", "bit", "clock", "J", "s", "W"), name
        if q.grade in ("inferred", "assumed"):
            assert q.note, f"{name}: an {q.grade} number says how it came about"
            assert name.startswith("limits.") or q.low < q.high


def test_every_source_is_used_or_says_why_it_is_there() -> None:
    used = {q.source for path in FILES for q in read_chip(path).quantities().values()}
    text = REFERENCES.read_text(encoding="utf-8") + "".join(p.read_text(encoding="utf-8") for p in FILES)
    for key in bibliography():
        assert key in used or re.search(rf"{key}.*?note = ", text, flags=re.S), key


def test_every_registered_chip_has_its_file() -> None:
    assert [load_chip(name).name for name in targets()] == list(targets())
    assert "loihi2" in targets()


def test_loihi2_publishes_no_energy_or_time_per_operation() -> None:
    chip = load_chip("loihi2")
    assert {q.grade for q in (*chip.energy.values(), *chip.time.values())} == {"inferred"}


def test_formats_of_loihi2_are_those_of_lava() -> None:
    """lava.proc.lif documents 12-bit decays, 13-bit signed bias mantissas, 17-bit thresholds."""
    formats = load_chip("loihi2").formats
    ranges = {name: (f.low, f.high, f.step) for name, f in formats.items()}
    assert ranges["decay"] == (0, 2**12 - 1, 1)
    assert ranges["bias"] == (-(2**12), 2**12 - 1, 1)
    assert ranges["threshold"] == (0, 2**17 - 1, 1)
    assert ranges["weight_mixed"] == (-256, 254, 2)
    assert ranges["weight_conv"] == (-128, 127, 1)
    for f in formats.values():
        assert len(range(f.low, f.high + 1, f.step)) <= 2**f.bits


def test_a_bad_file_names_every_fault(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(
        'name = "bad"\n'
        '[energy.synop]\nvalue = 1.0\nunit = "J"\nsource = "nobody1999"\ngrade = "guessed"\n'
        '[energy.update]\nvalue = 1.0\nunit = "J"\n'
        '[time.hop]\nvalue = 1.0\nlow = 2.0\nunit = "s"\nsource = "davies2018"\ngrade = "published"\n'
        '[power.idle]\nvalue = 1.0\nunit = "W"\nsource = "davies2018"\ngrade = "assumed"\n',
        encoding="utf-8",
    )
    with pytest.raises(BadChipFile) as caught:
        read_chip(path)
    text = str(caught.value)
    for fault in (
        "nobody1999",
        "guessed",
        "energy.update: missing",
        "low 2.0",
        "needs a range",
        "missing 'title'",
        "'not_modelled'",
    ):
        assert fault in text
    path.write_text("not toml at all [", encoding="utf-8")
    with pytest.raises(BadChipFile):
        read_chip(path.with_name("absent.toml"))
