"""`neuro chips` and `neuro doctor`: every constant of a chip, and what is installed here."""

from __future__ import annotations

from typing import Annotated

import typer

from neuro.cli_options import EXIT_INPUT, Json, Quiet, emit
from neuro.cli_options import console as console_of


def add(app: typer.Typer) -> None:
    """Registers the commands."""
    app.command()(chips)
    app.command()(doctor)


def chips(
    name: Annotated[str | None, typer.Argument(help="One chip, with every constant.", show_default=False)] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """The chips, or every constant of one: value, range, unit, grade, source."""
    from dataclasses import asdict

    from neuro import report
    from neuro.hardware.chip import bibliography
    from neuro.hardware.target import load_target, targets

    console = console_of(quiet or as_json)
    if name is None:
        rows = {n: load_target(n).chip.title for n in targets()}
        if as_json:
            emit(rows)
        for key, title in rows.items():
            console.print(f"{key}: {title}")
        return
    target = load_target(name)
    chip = target.chip
    groups = {g: {k: asdict(q) for k, q in getattr(chip, g).items()} for g in ("limits", "energy", "time", "power")}
    others = {
        constants: {g: {k: asdict(q) for k, q in table.items()} for g, table in tables.items()}
        for constants, tables in chip.constants.items()
    }
    if as_json:
        used = {q.source for constants in chip.constant_sets for q in chip.quantities(constants).values()}
        emit(
            {
                "name": chip.name,
                "title": chip.title,
                "regime": chip.regime,
                "default_constants": chip.default_constants,
                **groups,
                "constants": others,
                "refused": {n: {"quantity": name, **asdict(q)} for n, (name, q) in chip.refused.items()},
                "nodes": {kind.__name__: how for kind, how in target.supports.items()},
                "not_modelled": list(chip.not_modelled),
                "sources": {key: title for key, title in bibliography().items() if key in used},
            }
        )
        return
    shown = groups | {f"{g}, constants {n}": table for n, tables in others.items() for g, table in tables.items()}
    console.print(report.chip(chip.name, chip.title, shown, list(chip.not_modelled)))
    console.print(f"Runs {chip.regime}; constants {', '.join(chip.constant_sets)}, the first unless another is named.")
    for refused, (quantity, q) in chip.refused.items():
        console.print(f"Refused: '{refused}' as {quantity}: {q.note}.", markup=False)


def doctor(as_json: Json = False, quiet: Quiet = False) -> None:
    """What is installed, what is missing and what to type, and whether the pieces work together."""
    from rich.markup import escape

    from neuro.doctor import examine

    console = console_of(quiet or as_json)
    checks = examine()
    if as_json:
        emit({"checks": [c.to_json() for c in checks], "ok": all(c.ok or c.optional for c in checks)})
    for check in checks:
        mark = "[green]ok[/]     " if check.ok else "[yellow]missing[/]" if check.optional else "[red]broken[/] "
        line = f"{check.name}: {check.found}" + ("" if check.ok else f"\n         {check.remedy}")
        console.print(f"{mark} {escape(line)}", soft_wrap=True)
    if not all(c.ok or c.optional for c in checks):
        raise typer.Exit(EXIT_INPUT)
