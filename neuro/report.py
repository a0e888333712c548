"""Tables for the terminal, from report.json and its like, and only from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

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
    """What `neuro deploy` answers: does it fit, is it right and proven; what does it cost; and all that is to be said
    of it, each sentence once, with the chips it is about."""
    from rich import box
    from rich.console import Group
    from rich.table import Table

    chips: Mapping[str, Mapping[str, Any]] = report["chips"]
    size = f"{report['samples']} samples of {report['steps']} steps of {si(report['dt'], 's')}"
    title = f"{report['dataset']}: {size}, float {percent(report['float_accuracy'])}"
    answers = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", show_edge=False)
    for heading in ("chip", "fits", "accuracy", "as float", "cores, neurons, synapses", "certificate"):
        answers.add_column(heading, overflow="fold")
    costs = Table(box=box.SIMPLE_HEAD, title="per sample", title_justify="left", show_edge=False)
    for heading in ("chip", "event energy", "time", "regime", "synops"):
        costs.add_column(heading, overflow="fold")
    for name, c in chips.items():
        fits = "[green]yes[/]" if c["fits"] else "[red]no[/]"
        said = verdict(c["matches"]) if c["fits"] else "-"
        answers.add_row(
            name, fits, percent(c["accuracy"]), percent(c["agrees_with_float"]), _size(c["utilisation"]), said
        )
        if c["fits"]:
            counted = f"{c['counters'].get('synops', 0):,.0f}"
            regime = str(c["estimate"].get("regime", ""))
            cost = spread(c["energy_j"], "J"), spread(c["latency_s"], "s")
            costs.add_row(name, *cost, regime, counted)
    parts: list[Any] = [answers]
    if costs.row_count:
        parts += ["", costs]
    compared = _side_by_side(chips)
    if compared.row_count:
        parts += ["", compared]
    return Group(*parts, *_remarks(chips))


def _side_by_side(chips: Mapping[str, Mapping[str, Any]]) -> Table:
    """The spiking network and the ANN of the same shape: the literature's count, with memory, by each chip's table.

    The first two do not depend on the chip but for the operations it counted; those of the first chip are shown.
    """
    from rich import box
    from rich.table import Table

    table = Table(
        box=box.SIMPLE_HEAD,
        title="operations alone, per sample, beside an ANN of the same shape",
        title_justify="left",
        show_edge=False,
    )
    for heading in ("counted", "spiking", "ANN, one pass", "ANN, every step"):
        table.add_column(heading, overflow="fold")
    found = {name: c["baseline"]["rows"] for name, c in chips.items() if c.get("baseline")}
    for rows in list(found.values())[:1]:
        table.add_row("45 nm, the literature's", *(si(r["naive_j"]["nominal"], "J") for r in rows))
        table.add_row("45 nm, with memory", *(si(r["memory_j"]["nominal"], "J") for r in rows))
    for name, rows in found.items():
        table.add_row(f"table of {name}", *(si(r["chip_j"]["nominal"], "J") for r in rows))
    return table


def _remarks(chips: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Violations, approximations, warnings and what estimates rest on; a sentence said of several chips stands once."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, chip in chips.items():
        lines = [("red", _violation(violation).replace(f"{name} cannot", "the chip cannot"))
                 for violation in chip["violations"]]  # fmt: skip
        lines += [("yellow", line) for line in (*chip["substitutions"], *chip["warnings"])]
        if chip["matches"].get("title"):
            asked = " ".join(part for part in (chip["matches"]["title"], chip["matches"].get("version")) if part)
            lines.append(("dim", f"compared with: {asked}"))
        rests = chip["estimate"].get("rests_on", [])
        if rests:
            lines.append(("dim", f"the estimate rests on inferred or assumed constants: {', '.join(rests)}."))
        for line in lines:
            found.setdefault(line, []).append(name)
    told = [f"[{colour}]{', '.join(names)}[/]: {line}" for (colour, line), names in found.items()]
    if any(chip["fits"] for chip in chips.values()):
        told.append("[dim]Event energy is not the energy of an inference: report.json has all four boundaries.[/]")
    return told


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
    number = f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}"
    return number + ("" if unit == "1" else f" {unit}")


def designs(found: Mapping[str, Any]) -> Group:
    """What `neuro sweep` measured: one line per design, Pareto-optimal ones marked."""
    from rich import box
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    rows = found["rows"]
    varied = [n for n in rows[0]["point"] if len({repr(r["point"][n]) for r in rows}) > 1]
    title = f"{len(rows)} designs, {found['computed']} measured now, {found['reused']} before; * Pareto-optimal"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", show_edge=False)
    for heading in ("", *(n.partition(".")[2] or n for n in varied), "accuracy", "event energy", "latency", "cores"):
        table.add_column(escape(heading), overflow="fold")
    for row in rows:
        values = [str(row["point"][n]) for n in varied]
        if row["fits"]:
            cost = [spread(row["energy_j"] or {}, "J"), spread(row["latency_s"] or {}, "s"), str(row["cores"])]
            table.add_row("*" if row["pareto"] else "", *values, percent(row["accuracy"]), *cost)
        else:
            why = row["error"] or "; ".join(_refused(v) for v in row["violations"])
            table.add_row(
                "", *values, "[yellow]not measured[/]" if row["error"] else "does not fit", escape(why), "", ""
            )
    return Group(table)


def _refused(violation: Any) -> str:
    return _violation(violation) if isinstance(violation, Mapping) else str(violation)
