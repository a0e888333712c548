"""Two runs or deployments side by side: everything that differs, flat, from their files alone."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuro.errors import RunError
from neuro.results import MANIFEST, Run

if TYPE_CHECKING:
    from rich.table import Table

TIMES = ("seconds", "oracle_seconds")  # differ from run to run and say nothing


def compare(one: Path | str, other: Path | str) -> list[dict[str, Any]]:
    """Rows {"what", "a", "b", "change"}, change being b / a - 1 where both are numbers and a is not 0.

    Raises:
        RunError: a folder that holds neither a run nor a deployment; two of different kinds.
    """
    a, b = _facts(Path(one)), _facts(Path(other))
    kinds = a.pop("kind"), b.pop("kind")
    if kinds[0] != kinds[1]:
        raise RunError(f"{one} is a {kinds[0]}, {other} a {kinds[1]}; compare two of one kind")
    rows = []
    for what in dict.fromkeys((*a, *b)):
        before, after = a.get(what), b.get(what)
        if before == after and (what in a) == (what in b):
            continue
        numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in (before, after))
        change = after / before - 1 if numbers and before else None
        rows.append({"what": what, "a": before, "b": after, "change": change})
    return rows


def _facts(folder: Path) -> dict[str, Any]:
    if (folder / MANIFEST).is_file():
        run = Run.open(folder)
        last = {"epochs": len(run.metrics), **run.metrics[-1]} if run.metrics else {}
        parts = {"config": run.config, "last epoch": last, "summary": run.summary, "versions": run.versions}
        return {"kind": "run", **dict(_flat("", parts))}
    report = folder / "report.json"
    if not report.is_file():
        raise RunError(f"{folder} holds neither a finished run nor a deployment's report.json")
    try:
        table = json.loads(report.read_text(encoding="utf-8"))
    except ValueError as cause:
        raise RunError(f"{report} cannot be read: {cause}") from cause
    return {"kind": "deployment", **dict(_flat("", table))}


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key not in TIMES:
                yield from _flat(f"{prefix}.{key}" if prefix else str(key), inner)
    elif isinstance(value, (list, tuple)):
        for k, inner in enumerate(value):
            yield from _flat(f"{prefix}[{k}]", inner)
    elif not (isinstance(value, float) and math.isnan(value)):
        yield prefix, value


def table(rows: list[dict[str, Any]], one: str, other: str) -> Table:
    """For the terminal."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    shown = Table(box=box.SIMPLE_HEAD, title=f"{len(rows)} differences", title_justify="left", show_edge=False)
    for heading in ("", one, other, "change"):
        shown.add_column(escape(heading), overflow="fold")
    for row in rows:
        change = "" if row["change"] is None else f"{100 * row['change']:+.2f} %"
        shown.add_row(escape(row["what"]), _text(row["a"]), _text(row["b"]), change)
    return shown


def _text(value: Any) -> str:
    from rich.markup import escape

    return "-" if value is None else f"{value:.6g}" if isinstance(value, float) else escape(str(value))
