"""`neuro report` and `neuro compare`: what was measured, as a page, and two of them side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neuro.cli_options import EXIT_DISPROVED, Json, Quiet, console, emit


def add(app: typer.Typer) -> None:
    """Registers the commands."""
    app.command()(report)
    app.command()(compare)


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What neuro train, deploy, sweep or demo wrote.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="The page to write.", show_default="DIR/report.html")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """One HTML page of all that DIR holds: accuracy, certificates, cost, pictures, and how to do it again."""
    from neuro.page import write

    path = write(folder, out)
    if as_json:
        emit({"page": str(path), "bytes": path.stat().st_size})
    else:
        console(quiet).print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, opens without a network")


def compare(
    one: Annotated[Path, typer.Argument(metavar="A", help="A run, or a folder with report.json.")],
    other: Annotated[Path, typer.Argument(metavar="B", help="Another.")],
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 where anything but times differs.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """What differs between two runs or deployments: settings, versions, figures."""
    from neuro.compare import compare as compare_folders
    from neuro.compare import table

    rows = compare_folders(one, other)
    if as_json:
        emit({"a": str(one), "b": str(other), "differences": rows})
    elif not rows:
        console(quiet).print("no difference")
    else:
        console(quiet).print(table(rows, str(one), str(other)))
    if strict and rows:
        raise typer.Exit(EXIT_DISPROVED)
