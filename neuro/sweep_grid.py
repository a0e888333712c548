"""The grid of a sweep: every combination of its values, or every problem with its names and values."""

from __future__ import annotations

import inspect
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from neuro import variants
from neuro.errors import BadConfig
from neuro.extend import did_you_mean

Point = Mapping[str, Any]
NETWORK = ("weight_bits", "sparsity", "dt")
CONSTANTS = ("energy", "time", "power")


def read_grid(texts: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """ "NAME=V,V,..." as a grid; a value is a number, true or false where it reads as one, else text.

    Raises:
        BadConfig: texts of another form, or a name given twice; all of them.
    """
    grid: dict[str, tuple[Any, ...]] = {}
    bad = []
    for text in texts:
        name, equals, values = text.partition("=")
        if not (equals and name and all(values.split(","))):
            bad.append(f"'{text}': write NAME=VALUE,VALUE")
        elif name in grid:
            bad.append(f"'{name}' is given twice; list its values with commas")
        else:
            grid[name] = tuple(_value(v) for v in values.split(","))
    if bad:
        raise BadConfig("no grid can be read from that", bad)
    return grid


def _value(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, (int, float, bool)) else text


def with_chips(grid: Mapping[str, Sequence[Any]], chip: str | Sequence[str]) -> dict[str, tuple[Any, ...]]:
    from neuro.deployment import chip_names

    listed = {
        name: tuple(v) if isinstance(v, Sequence) and not isinstance(v, str) else (v,) for name, v in grid.items()
    }
    names = listed.get("chip", (chip,) if isinstance(chip, str) else tuple(chip))
    listed["chip"] = chip_names(names[0] if len(names) == 1 else names)
    return {"chip": listed.pop("chip"), **listed}


def check_grid(grid: Mapping[str, Sequence[Any]]) -> list[Point]:
    """Every combination of a grid's values, or every problem with its names and values.

    Raises:
        BadConfig: all problems at once. UnknownChip: no such chip.
    """
    from neuro.hardware.target import load_target

    bad = [f"'{name}' has no values" for name, values in grid.items() if not len(values)]
    for chip in grid["chip"]:
        known = _parameters(load_target(chip))
        for name, values in grid.items():
            if name not in known:
                bad.append(f"{chip} has no parameter '{name}'. {did_you_mean(name, known)}")
                continue
            bad += [f"{line} ({chip})" for value in values for line in _problems(name, value)]
    if bad:
        raise BadConfig("this grid cannot be swept", list(dict.fromkeys(bad)))
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def _parameters(target: Any) -> list[str]:
    options = [
        f"compile.{p.name}"
        for p in inspect.signature(target.compile).parameters.values()
        if p.kind is inspect.Parameter.KEYWORD_ONLY and p.name != "max_steps"
    ]
    return ["chip", "steps", *(f"network.{n}" for n in NETWORK), *options, *target.chip.quantities()]


def _problems(name: str, value: Any) -> list[str]:
    group, _, rest = name.partition(".")
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if group == "network":
        return variants.problems(rest, value)
    if (group == "limits" or name == "steps") and not (isinstance(value, int) and number and value >= 1):
        return [f"{name} must be an integer of at least 1, got {value!r}"]
    if group in CONSTANTS and not (number and value >= 0):
        return [f"{name} must be a number of at least 0, got {value!r}"]
    return []


def label(point: Point) -> str:
    """A point in one line."""
    return ", ".join(f"{n} {v:g}" if isinstance(v, float) else f"{n} {v}" for n, v in point.items())
