"""Sphinx configuration. Pages under _generated/ are made here, from the chip files and result files."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from importlib.metadata import version as _version
from pathlib import Path

from neuro.hardware.chip import CHIP_FOLDER, Quantity, bibliography, read_chip

project = "axonport"
author = "The axonport developers"
copyright = "2026, The axonport developers"
release = version = _version("axonport")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
html_theme = "furo"
exclude_patterns = ["_build", "_generated/parts", "results/README.md"]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
suppress_warnings = ["autodoc.mocked_object", "ref.python"]

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import generated  # noqa: E402


def _range(q: Quantity) -> str:
    low, high = q.low, q.high
    return f"{low:g} .. {high:g}" if low != high else ""


def _quantities(table: Mapping[str, Quantity]) -> list[str]:
    lines = ["| name | value | range | unit | grade | source | note |", "|---|---|---|---|---|---|---|"]
    for n, q in table.items():
        note = "; ".join(part for part in (q.note, f"includes {', '.join(q.includes)}" if q.includes else "") if part)
        lines.append(f"| `{n}` | {q.value:g} | {_range(q)} | {q.unit} | {q.grade} | {q.source} | {note} |")
    return [*lines, ""]


def _chip_page(path: Path) -> str:
    chip, sources = read_chip(path), bibliography()
    lines = [f"# {chip.title}", "", "Generated from the chip file: what the estimator and the compiler use.", ""]
    lines += [f"Runs {chip.regime} unless told otherwise; constants are called `{chip.default_constants}`.", ""]
    for group in ("limits", "energy", "time", "power"):
        if getattr(chip, group):
            lines += [f"## {group.capitalize()}", "", *_quantities(getattr(chip, group))]
    for name, groups in chip.constants.items():
        lines += [f"## Constants `{name}`", "", "Each of these tables stands in place of the one above.", ""]
        for group, table in groups.items():
            lines += [f"### {group.capitalize()} of `{name}`", "", *_quantities(table)]
    if chip.refused:
        lines += ["## Refused", ""]
        lines += [f"- `{name}` as `{quantity}`: {q.note}" for name, (quantity, q) in chip.refused.items()] + [""]
    used = dict.fromkeys(q.source for s in chip.constant_sets for q in chip.quantities(s).values())
    lines += ["## Sources", ""] + [f"- {key}: {sources.get(key, key)}" for key in used] + [""]
    lines += ["## Not modelled", ""] + [f"- {line}" for line in chip.not_modelled] + [""]
    return "\n".join(lines)


def _validation_table() -> str:
    """Predicted, measured, error, reason, of every row of the proof's result."""
    path = HERE / "results" / "energy_validation.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    lines = [
        "| run | what | predicted (low .. high) | measured | error | kind | reason |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in data["table"]:
        unit = "" if r["unit"] == "1" else f" {r['unit']}"
        span = f"{r['predicted']:.3g}{unit} ({r['low']:.3g} .. {r['high']:.3g})"
        measured = f"{r['measured']:.3g}{unit} ({r['source']})"
        kind = f"{r['kind']}; judged as {r['judged_as']}" if r["judged_as"] != "shown" else f"{r['kind']}; shown"
        lines.append(f"| {r['run']} | {r['what']} | {span} | {measured} | {r['error']:+.1%} | {kind} | {r['reason']} |")
    for r in data["same_traffic"]["rows"]:
        what = f"layers {'-'.join(map(str, r['layers']))} on {r['cores']} cores, event energy"
        figures = f"{r['joules']:.4g} J | {r['joules_sanafe']:.4g} J (sanafe2025) | {r['error']:+.2%}"
        equal = "every counter equal" if not r["unequal"] else f"unequal: {', '.join(r['unequal'])}"
        lines.append(f"| SANA-FE 2.2.9, same traffic | {what} | {figures} | same constants | {equal} |")
    return "\n".join([*lines, ""])


def _results_page() -> str:
    lines = ["# Measured results", "", "Written by the proofs in `tests/proofs`, each run by `make proofs`.", ""]
    for path in sorted((HERE / "results").glob("*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        body = json.dumps(data, indent=2)
        if len(body) > 6000:
            body = body[:6000] + "\n... (the whole file lies in docs/results)"
        lines += [f"## {path.stem}", "", "```text", body, "```", ""]
    return "\n".join(lines)


def _generate() -> None:
    folder = HERE / "_generated"
    folder.mkdir(exist_ok=True)
    (folder / "parts").mkdir(exist_ok=True)
    for path in sorted(CHIP_FOLDER.glob("*.toml")):
        (folder / f"{path.stem}.md").write_text(_chip_page(path), encoding="utf-8")
        missing = "\n".join(f"- {line}" for line in read_chip(path).not_modelled)
        (folder / "parts" / f"not_modelled_{path.stem}.md").write_text(missing + "\n", encoding="utf-8")
    (folder / "parts" / "validation.md").write_text(_validation_table(), encoding="utf-8")
    generated.write(folder)
    (folder / "results.md").write_text(_results_page(), encoding="utf-8")


_generate()
