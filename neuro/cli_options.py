"""What the commands share: options, where output goes, exit codes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

EXIT_DISPROVED, EXIT_INPUT, EXIT_CHIP, EXIT_EXTRA, EXIT_INTERRUPTED = 1, 3, 4, 5, 130

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no tables.")]
Out = Annotated[Path, typer.Option("--out", help="Where to write.", show_default=False)]
Data = Annotated[
    str | None,
    typer.Option("--data", help="A data set's name, or a path to files in its layout.", show_default=False),
]
Dataset = Annotated[
    str | None,
    typer.Option(
        "--dataset", help="Which loader reads --data PATH, where the path alone does not tell.", show_default=False
    ),
]
Steps = Annotated[
    int | None, typer.Option("--steps", min=1, help="Steps per sample.", show_default="the run's, or the data's")
]
Dt = Annotated[
    float | None,
    typer.Option("--dt", help="Seconds per step, for NIR files that do not say.", show_default="the file's, else 1e-3"),
]
Reset = Annotated[
    str | None,
    typer.Option(
        "--reset", help="hard or subtract, for NIR files that do not say.", show_default="hard, as NIR defines"
    ),
]
Chip = Annotated[str, typer.Option("--chip", help="A chip's name, or all.")]


def console(quiet: bool) -> Console:
    """Progress and tables go to standard error where standard output carries JSON."""
    from rich.console import Console

    return Console(quiet=quiet, highlight=False)


@contextmanager
def status(to: Console) -> Iterator[Any]:
    """A spinner on a terminal, one line per stage elsewhere."""
    if to.is_terminal and not to.quiet:
        with to.status("") as spinner:
            yield lambda text: spinner.update(f"{text} ...")
    else:
        yield lambda text: to.print(f"[dim]{text} ...[/]")


def emit(table: Mapping[str, Any]) -> None:
    """One JSON object on standard output."""
    typer.echo(json.dumps(table, indent=2, allow_nan=False))
