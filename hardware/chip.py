"""`Chip`: limits, number formats, energies and timings of one chip, read from TOML; no behaviour.

Every constant is a table with value, unit, source and grade::

    [energy.synop]
    value = 23.6e-12
    low = 20e-12          # low and high may be left out for grade "published" and "measured"
    high = 30e-12
    unit = "J"
    source = "davies2018" # a key of hardware/references.bib
    note = "page, table, or how it was derived"
    grade = "published"   # published | measured | inferred | assumed

Limits are `Limit` tables of the same form with an integer value and unit "1".
"""

from __future__ import annotations

import math
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from neuro.errors import BadChipFile

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

GRADES = ("published", "measured", "inferred", "assumed")
CHIP_FOLDER = Path(__file__).parent / "chips"
REFERENCES = Path(__file__).parent / "references.bib"


@dataclass(frozen=True)
class Quantity:
    """A number with a range, a unit, a source and a grade. low <= value <= high."""

    value: float
    low: float
    high: float
    unit: str
    source: str
    grade: str
    note: str = ""


@dataclass(frozen=True)
class NumberFormat:
    """Integers low..high in multiples of ``step``, stored in ``bits`` bits.

    What quantisation-aware training needs to know of a chip, and all it may know.
    """

    bits: int
    signed: bool
    low: int
    high: int
    step: int = 1


@dataclass(frozen=True)
class Chip:
    """Everything known about one chip. Groups: limits, energy, time, power -> name -> `Quantity`."""

    name: str
    title: str
    limits: Mapping[str, Quantity]
    energy: Mapping[str, Quantity]
    time: Mapping[str, Quantity]
    power: Mapping[str, Quantity]
    formats: Mapping[str, NumberFormat]
    not_modelled: tuple[str, ...]

    def limit(self, name: str) -> int:
        """An integer limit by name."""
        return int(self.limits[name].value)

    def quantities(self) -> dict[str, Quantity]:
        """Dotted name -> quantity, of all groups."""
        groups = {"limits": self.limits, "energy": self.energy, "time": self.time, "power": self.power}
        return {f"{g}.{n}": q for g, table in groups.items() for n, q in table.items()}


def _quantity(where: str, table: Any, known_sources: frozenset[str], bad: list[str]) -> Quantity | None:
    if not isinstance(table, dict):
        bad.append(f"{where} must be a table with value, unit, source, grade")
        return None
    missing = [k for k in ("value", "unit", "source", "grade") if k not in table]
    unknown = [k for k in table if k not in ("value", "low", "high", "unit", "source", "grade", "note")]
    if missing or unknown:
        bad.append(f"{where}: missing {missing}, unknown {unknown}")
        return None
    grade = table["grade"]
    given = [table["value"], table.get("low", table["value"]), table.get("high", table["value"])]
    if not all(isinstance(v, (int, float)) and math.isfinite(v) for v in given):
        bad.append(f"{where}: value, low and high must be finite numbers")
        return None
    value, low, high = (float(v) for v in given)
    if not low <= value <= high:
        bad.append(f"{where}: low {low} <= value {value} <= high {high} does not hold")
    if grade not in GRADES:
        bad.append(f"{where}: grade '{grade}' is not one of {', '.join(GRADES)}")
    if grade in ("inferred", "assumed") and "limits" not in where and not low < high:
        bad.append(f"{where}: grade '{grade}' needs a range, low < high")
    if table["source"] not in known_sources:
        bad.append(f"{where}: source '{table['source']}' is not in references.bib")
    return Quantity(value, low, high, table["unit"], table["source"], grade, table.get("note", ""))


def bibliography(path: Path = REFERENCES) -> dict[str, str]:
    """Source key -> its title (or note), read from the BibTeX file."""
    import re

    text = path.read_text(encoding="utf-8")
    found: dict[str, str] = {}
    for key, body in re.findall(r"@\w+\{([^,\s]+),(.*?)\n\}", text, flags=re.S):
        title = re.search(r"title\s*=\s*\{(.*?)\},?\s*\n", body, flags=re.S)
        found[key] = re.sub(r"\s+", " ", title.group(1)).replace("{", "").replace("}", "") if title else key
    return found


@cache
def read_chip(path: Path) -> Chip:
    """Read a chip file.

    Raises:
        BadChipFile: not TOML, or constants without value, unit, source, grade; all of them at once.
    """
    try:
        data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as cause:
        raise BadChipFile(f"{path}: {cause}") from cause
    bad: list[str] = []
    keys = frozenset(bibliography())
    groups: dict[str, Mapping[str, Quantity]] = {}
    for group in ("limits", "energy", "time", "power"):
        table = data.get(group, {})
        if not isinstance(table, dict):
            bad.append(f"{group} must be a table of quantities")
            table = {}
        rows = {n: _quantity(f"{group}.{n}", row, keys, bad) for n, row in table.items()}
        groups[group] = types.MappingProxyType({n: q for n, q in rows.items() if q is not None})
    formats = {}
    for name, row in data.get("formats", {}).items():
        try:
            formats[name] = NumberFormat(**row)
        except TypeError as cause:
            bad.append(f"formats.{name}: {cause}")
    for key in ("name", "title", "not_modelled"):
        if key not in data:
            bad.append(f"missing '{key}'")
    if bad:
        raise BadChipFile(f"{path} cannot be used", bad)
    return Chip(
        name=data["name"],
        title=data["title"],
        formats=types.MappingProxyType(formats),
        not_modelled=tuple(data["not_modelled"]),
        **groups,
    )
