"""Sphinx configuration. Pages under _generated/ are made here, from the chip files and result files."""

from __future__ import annotations

import json
from importlib.metadata import version as _version
from pathlib import Path

from neuro.hardware.chip import CHIP_FOLDER, bibliography, read_chip

project = "axonport"
author = "The axonport developers"
copyright = "2026, The axonport developers"
release = version = _version("axonport")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
html_theme = "furo"
exclude_patterns = ["_build", "results/README.md"]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
suppress_warnings = ["autodoc.mocked_object", "ref.python"]

HERE = Path(__file__).parent


def _range(q: object) -> str:
    low, high = q.low, q.high  # type: ignore[attr-defined]
    return f"{low:g} .. {high:g}" if low != high else ""


def _chip_page(path: Path) -> str:
    chip, sources = read_chip(path), bibliography()
    lines = [f"# {chip.title}", "", "Generated from the chip file: what the estimator and the compiler use.", ""]
    for group in ("limits", "energy", "time", "power"):
        table = getattr(chip, group)
        if not table:
            continue
        lines += [
            f"## {group.capitalize()}",
            "",
            "| name | value | range | unit | grade | source | note |",
            "|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| `{n}` | {q.value:g} | {_range(q)} | {q.unit} | {q.grade} "
            f"| {sources.get(q.source, q.source)} | {q.note} |"
            for n, q in table.items()
        ]
        lines.append("")
    lines += ["## Not modelled", ""] + [f"- {line}" for line in chip.not_modelled] + [""]
    return "\n".join(lines)


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
    for path in sorted(CHIP_FOLDER.glob("*.toml")):
        (folder / f"{path.stem}.md").write_text(_chip_page(path), encoding="utf-8")
    (folder / "results.md").write_text(_results_page(), encoding="utf-8")


_generate()
