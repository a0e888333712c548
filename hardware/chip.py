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

The top-level [energy], [time] and [power] are the default constants; ``default_constants`` names them. Other sets
stand beside them: [constants.NAME.energy.synop] and so on; a group that a set has replaces the default's whole group,
so that figures of two authors are never mixed. ``regime`` says how the chip runs unless told otherwise ("free-running",
"real-time", "host-driven"). A figure that is quoted often but must not be used as such a constant is kept under
[refused.NAME], with the quantity it is mistaken for: it is then refused by name, not silently absent.
A file of your own may bring sources that references.bib does not have: [sources], key = "text".
"""

from __future__ import annotations

import math
import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from neuro.errors import BadChipFile

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

GRADES = ("published", "measured", "inferred", "assumed")
REGIMES = ("free-running", "real-time", "host-driven")  # see `neuro.hardware.estimate`
CHIP_FOLDER = Path(__file__).parent / "chips"
REFERENCES = Path(__file__).parent / "references.bib"


@dataclass(frozen=True)
class Quantity:
    """A number with a range, a unit, a source and a grade. low <= value <= high.

    includes: other quantities that were not told apart when it was measured: "spike" of the same group, or
    "energy.spike" of another.
    """

    value: float
    low: float
    high: float
    unit: str
    source: str
    grade: str
    note: str = ""
    includes: tuple[str, ...] = ()


Groups = Mapping[str, Mapping[str, Quantity]]


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
class Assumed:
    """Limits, by (chip, name), that hold in place of a chip's own; and which limits were asked for meanwhile."""

    limits: Mapping[tuple[str, str], int]
    read: set[tuple[str, str]] = field(default_factory=set)


_ASSUMED: ContextVar[Assumed | None] = ContextVar("assumed limits", default=None)


@contextmanager
def assuming(chip: str, **limits: int) -> Iterator[Assumed]:
    """Within it, these limits of a chip hold: "would it fit if a core had twice the memory". For exploration.

    Only what asks `Chip.limit` while it works follows; what a module has read when it was imported does not, see
    ``Assumed.read``.
    """
    assumed = Assumed({(chip, name): value for name, value in limits.items()})
    token = _ASSUMED.set(assumed)
    try:
        yield assumed
    finally:
        _ASSUMED.reset(token)


@dataclass(frozen=True)
class Chip:
    """Everything known about one chip. Groups: limits, energy, time, power -> name -> `Quantity`.

    regime: how it runs by default. default_constants: name of the set that energy, time and power are.
    constants: other sets, name -> group -> name -> quantity. refused: name -> (dotted quantity, why and how large).
    """

    name: str
    title: str
    limits: Mapping[str, Quantity]
    energy: Mapping[str, Quantity]
    time: Mapping[str, Quantity]
    power: Mapping[str, Quantity]
    formats: Mapping[str, NumberFormat]
    not_modelled: tuple[str, ...]
    regime: str = "free-running"
    default_constants: str = "default"
    constants: Mapping[str, Groups] = field(default_factory=dict)
    refused: Mapping[str, tuple[str, Quantity]] = field(default_factory=dict)

    def limit(self, name: str) -> int:
        """An integer limit by name, or what it is assumed to be here (`assuming`)."""
        changed = _ASSUMED.get()
        if changed is not None:
            changed.read.add((self.name, name))
            if (self.name, name) in changed.limits:
                return changed.limits[self.name, name]
        return int(self.limits[name].value)

    @property
    def constant_sets(self) -> tuple[str, ...]:
        """Names of all sets of constants, the default first."""
        return (self.default_constants, *self.constants)

    def quantities(self, constants: str | None = None) -> dict[str, Quantity]:
        """Dotted name -> quantity, of all groups, with the default constants or those of a named set."""
        groups: dict[str, Mapping[str, Quantity]] = {
            "limits": self.limits,
            "energy": self.energy,
            "time": self.time,
            "power": self.power,
        }
        if constants is not None and constants != self.default_constants:
            groups.update(self.constants[constants])
        return {f"{g}.{n}": q for g, table in groups.items() for n, q in table.items()}


def _quantity(where: str, table: Any, known_sources: frozenset[str], bad: list[str]) -> Quantity | None:
    if not isinstance(table, dict):
        bad.append(f"{where} must be a table with value, unit, source, grade")
        return None
    missing = [k for k in ("value", "unit", "source", "grade") if k not in table]
    unknown = [k for k in table if k not in ("value", "low", "high", "unit", "source", "grade", "note", "includes")]
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
    includes = tuple(table.get("includes", ()))
    return Quantity(value, low, high, table["unit"], table["source"], grade, table.get("note", ""), includes)


def _group(where: str, table: Any, keys: frozenset[str], bad: list[str]) -> Mapping[str, Quantity]:
    """One table of quantities."""
    if not isinstance(table, dict):
        bad.append(f"{where} must be a table of quantities")
        return types.MappingProxyType({})
    rows = {n: _quantity(f"{where}.{n}", row, keys, bad) for n, row in table.items()}
    return types.MappingProxyType({n: q for n, q in rows.items() if q is not None})


def _sets(tables: Any, keys: frozenset[str], bad: list[str]) -> Mapping[str, Groups]:
    found: dict[str, Groups] = {}
    for name, groups in tables.items() if isinstance(tables, dict) else ():
        if not isinstance(groups, dict) or set(groups) - {"energy", "time", "power"}:
            bad.append(f"constants.{name} must hold tables energy, time or power")
            continue
        found[name] = types.MappingProxyType(
            {g: _group(f"constants.{name}.{g}", t, keys, bad) for g, t in groups.items()}
        )
    return types.MappingProxyType(found)


def _refused(tables: Any, keys: frozenset[str], bad: list[str]) -> Mapping[str, tuple[str, Quantity]]:
    found = {}
    for name, row in tables.items() if isinstance(tables, dict) else ():
        rest = {k: v for k, v in row.items() if k != "quantity"}
        q = _quantity(f"refused.{name}", rest, keys, bad)
        if "quantity" not in row:
            bad.append(f"refused.{name} must say which quantity it is mistaken for")
        elif q is not None:
            found[name] = (str(row["quantity"]), q)
    return types.MappingProxyType(found)


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
    own = data.get("sources", {})
    if not isinstance(own, dict) or not all(isinstance(text, str) for text in own.values()):
        bad.append("sources must be a table of keys and texts")
        own = {}
    keys = frozenset(bibliography()) | frozenset(own)
    groups = {g: _group(g, data.get(g, {}), keys, bad) for g in ("limits", "energy", "time", "power")}
    sets = _sets(data.get("constants", {}), keys, bad)
    refused = _refused(data.get("refused", {}), keys, bad)
    regime = data.get("regime", "free-running")
    if regime not in REGIMES:
        bad.append(f"regime '{regime}' is not one of {', '.join(REGIMES)}")
    default = data.get("default_constants", "default")
    if not isinstance(default, str) or default in sets:
        bad.append(f"default_constants must be a name that no other set has, got {default!r}")
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
        regime=regime,
        default_constants=default,
        constants=sets,
        refused=refused,
        **groups,
    )
