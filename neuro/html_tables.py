"""Networks, reports, estimates and certificates as HTML tables, for notebooks: each `_repr_html_` calls one of these.

Plain tables without styles or scripts of their own but alignment; every text is escaped, none is taken for HTML.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

RANGE = "{:.3g} ({:.3g}..{:.3g})"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> str:
    """Rows under a head. Numbers go to the right; None is an empty cell."""
    cells = [f"<th>{escape(name)}</th>" for name in head]
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    title = f'<caption style="text-align:left">{escape(caption)}</caption>' if caption else ""
    return f"<table>{title}<thead><tr>{''.join(cells)}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    text = "" if value is None else f"{value:,}" if isinstance(value, int) and number else str(value)
    return f'<td style="text-align:{"right" if number else "left"}">{escape(text)}</td>'


def network(net: Any) -> str:
    """A node per row: name, type, shape of what it sends, parameters, sources; late edges as z^-1."""
    rows = []
    for name in net.order:
        node = net.nodes[name]
        into = [s + (" (z^-1)" if (s, name) in net.feedback else "") for s in net.sources(name)]
        size = sum(v.size for v in vars(node).values() if hasattr(v, "size"))
        rows.append((name, type(node).__name__, " x ".join(map(str, net.shapes[name])), int(size), ", ".join(into)))
    caption = f"Network: {len(net.nodes)} nodes, dt = {net.dt:g} s, {net.discretisation}"
    return table(("node", "type", "shape", "numbers", "from"), rows, caption)


def report(found: Any) -> str:
    """A chip per row: fit, accuracy, certificate, energy and latency with their ranges."""
    rows = []
    for name, chip in found.chips.items():
        why = "" if chip.fits else "; ".join(str(v.get("message", _violation(v))) for v in chip.violations)[:300]
        accuracy = None if chip.accuracy is None else f"{100 * chip.accuracy:.1f} %"
        rows.append(
            (
                name,
                "fits" if chip.fits else f"does not fit: {why}",
                accuracy,
                _matches(chip.matches),
                _range(chip.energy_j, 1e6),
                _range(chip.latency_s, 1e3),
            )
        )
    right = f"float accuracy {100 * found.float_accuracy:.1f} %"
    caption = f"{found.dataset}: {found.samples} samples of {found.steps} steps, {right}"
    return table(("chip", "fit", "accuracy", "certificate", "energy (uJ)", "latency (ms)"), rows, caption)


def _violation(row: Mapping[str, Any]) -> str:
    return f"{row.get('node', '')}: {row.get('limit', '')} is {row.get('wanted', '')}, allowed {row.get('allowed', '')}"


def _matches(row: Mapping[str, Any]) -> str | None:
    if not row:
        return None
    if row.get("status") == "not run":
        return f"not run: {row.get('reason', '')}"[:120]
    return f"{row['status']}: {row['mismatches']:,} of {row['compared']:,} values differ from {row['oracle']}"


def _range(row: Mapping[str, Any], factor: float) -> str | None:
    if not row or row.get("nominal") is None:
        return None
    return RANGE.format(*(factor * float(row[k]) for k in ("nominal", "low", "high")))


def estimate(found: Any) -> str:
    """Energy by cause and latency by cause, each with its range, and what is not in the sums."""
    data = found.to_json()
    rows = [("event energy", _range(data["energy_j"], 1e6), "uJ")]
    rows += [(f"energy: {name}", _range(r, 1e6), "uJ") for name, r in data["causes"].items()]
    rows += [("latency", _range(data["latency_s"], 1e3), "ms")]
    rows += [(f"time: {name}", _range(r, 1e3), "ms") for name, r in data["time_causes"].items()]
    rows += [("not modelled", "; ".join(data["not_modelled"]), "")]
    caption = f"{found.chip}, {found.constants}, {found.regime}: per sample, nominal (low..high)"
    return table(("what", "value", "unit"), rows, caption)


def certificate(found: Any) -> str:
    """What was compared with whom, and the first difference."""
    rows = [
        ("status", found.status),
        ("oracle", f"{found.title or found.oracle} {found.version}".strip()),
        ("values compared", found.compared),
        ("values that differ", found.mismatches),
        ("samples", found.samples),
        ("steps", found.steps),
        ("first difference", None if found.first is None else str(found.first)),
        ("reason", found.reason or None),
    ]
    return table(("certificate", ""), rows)
