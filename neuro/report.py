"""Tables for the terminal, from report.json and its like, and only from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Group

_PREFIXES = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"), (1e-15, "f"))


def si(value: float | None, unit: str) -> str:
    """0.00123, "J" -> "1.23 mJ"."""
    if value is None:
        return "-"
    if value == 0 or not math.isfinite(value):
        return f"{value:g} {unit}"
    for factor, prefix in _PREFIXES:
        if abs(value) >= factor * 0.9995:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def spread(range_: Mapping[str, Any], unit: str) -> str:
    """{"low", "nominal", "high"} -> "1.2 mJ (0.8 mJ .. 2 mJ)"; a named reason where there is no number."""
    if not range_ or range_.get("nominal") is None:
        return str(range_.get("reason", "not predicted")) if range_ else "-"
    return f"{si(range_['nominal'], unit)} ({si(range_['low'], unit)} .. {si(range_['high'], unit)})"


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"


def verdict(matches: Mapping[str, Any]) -> str:
    """One line on a certificate; what was not run is never called passed."""
    status = matches.get("status", "not run")
    if status == "not run":
        return f"[yellow]not run[/]: {matches.get('reason', 'certification was not asked for')}"
    colour = "green" if status == "passed" else "red"
    return (
        f"[{colour}]mismatches: {matches['mismatches']:,}[/] of {matches['compared']:,} values vs {matches['oracle']}"
    )


def deployment(report: Mapping[str, Any]) -> Group:
    """The table of `neuro deploy`: one column per chip, one row per answer."""
    from rich import box
    from rich.console import Group
    from rich.table import Table

    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"{report['dataset']}: {report['samples']} samples of {report['steps']} steps of {si(report['dt'], 's')}",
        title_justify="left",
        show_edge=False,
    )
    table.add_column("")
    chips = report["chips"]
    for name in chips:
        table.add_column(name, overflow="fold")
    rows: list[tuple[str, Callable[[Mapping[str, Any]], str]]] = [
        ("fits", lambda c: "[green]yes[/]" if c["fits"] else "[red]no[/]"),
        ("accuracy on chip", lambda c: percent(c["accuracy"])),
        ("  float", lambda c: percent(report["float_accuracy"])),
        ("  same decision as float", lambda c: percent(c["agrees_with_float"])),
        ("certificate", lambda c: verdict(c["matches"])),
        ("event energy per sample", lambda c: spread(c["energy_j"], "J")),
        ("time per sample, free-running", lambda c: spread(c["latency_s"], "s")),
        ("cores, neurons, synapses", lambda c: _size(c["utilisation"])),
        (
            "synaptic operations per sample",
            lambda c: f"{c['counters'].get('synops', 0):,.0f}" if c["counters"] else "-",
        ),
    ]
    for title, cell in rows:
        table.add_row(title, *(cell(c) for c in chips.values()))
    parts: list[Any] = [table]
    for name, chip in chips.items():
        for violation in chip["violations"]:
            parts.append(f"[red]{name}[/]: {_violation(violation)}")
        parts += [f"[yellow]{name}[/]: {line}" for line in (*chip["substitutions"], *chip["warnings"])]
        rests = chip["estimate"].get("rests_on", [])
        if rests:
            parts.append(
                f"[dim]{name}: the estimate rests on inferred or assumed constants: {', '.join(rests)}. It is "
                "the energy of events, not of an inference; report.json has all four boundaries.[/]"
            )
    return Group(*parts)


def _size(utilisation: Mapping[str, Any]) -> str:
    if not utilisation:
        return "-"
    return f"{utilisation['cores']:,}, {utilisation['neurons']:,}, {utilisation['synapses']:,}"


def _violation(row: Mapping[str, Any]) -> str:
    if "message" in row:
        return str(row["message"])
    return f"'{row['node']}': {row['limit']} is {row['wanted']}, allowed {row['allowed']}. {row['remedy']}"


def quantisation(rows: list[Mapping[str, Any]]) -> Group:
    """The error budget: what integers cost, per node and quantity, relative to its largest magnitude."""
    from rich import box
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    notes = list(dict.fromkeys(row["note"] for row in rows if row.get("note")))
    table = Table(box=box.SIMPLE_HEAD, title="error budget of the quantisation", title_justify="left", show_edge=False)
    for column in ("node", "quantity", "step", "largest error", "rms error", ""):
        number = column in ("step", "largest error", "rms error")
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(
            row["node"],
            row["quantity"],
            f"{row['scale']:.3g}",
            f"{row['max_error']:.2e}",
            f"{row['rms_error']:.2e}",
            f"({notes.index(row['note']) + 1})" if row.get("note") else "",
        )
    return Group(table, *(f"({k}) {escape(note)}" for k, note in enumerate(notes, 1)))


def chip(name: str, title: str, groups: Mapping[str, Mapping[str, Any]], not_modelled: list[str]) -> Group:
    """`neuro chips NAME`: every constant with its range, source and grade."""
    from rich import box
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        box=box.SIMPLE_HEAD, title=f"{name}: {title}", title_justify="left", show_edge=False, padding=(0, 1, 0, 0)
    )
    table.add_column("constant", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("range", no_wrap=True)
    table.add_column("grade", no_wrap=True)
    table.add_column("source", overflow="fold")
    for group, rows in groups.items():
        table.add_row(f"[bold]{group}[/]")
        for key, q in rows.items():
            wide = q["low"] != q["high"]
            span = f"{_constant(q['low'], q['unit'])} .. {_constant(q['high'], q['unit'])}" if wide else ""
            table.add_row(key, _constant(q["value"], q["unit"]), span, q["grade"], q["source"])
    return Group(table, "Not modelled:", *(f"  - {escape(line)}" for line in not_modelled))


def _constant(value: float, unit: str) -> str:
    if unit in ("J", "s", "W"):
        return si(value, unit)
    return f"{value:,.0f}" + ("" if unit == "1" else f" {unit}")
