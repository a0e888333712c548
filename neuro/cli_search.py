"""`neuro search`: designs that are accurate, frugal, quick and small at once."""

from __future__ import annotations

from typing import Annotated

import typer

from neuro.cli_options import EXIT_CHIP, Json, Out, Quiet, console, emit, status


def add(app: typer.Typer) -> None:
    """Registers the command."""
    app.command()(search)


def search(
    out: Out,
    data: Annotated[
        str | None,
        typer.Option("--data", help="Images: a folder in MNIST's layout, or an .npz.", show_default="embedded digits"),
    ] = None,
    trials: Annotated[int, typer.Option("--trials", min=1, help="Designs to try.")] = 64,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that share the work.")] = 1,
    seed: Annotated[int, typer.Option("--seed", help="Of what is proposed; training has its own.")] = 0,
    sampler: Annotated[str, typer.Option("--sampler", help="evolve, tpe, or random to compare with.")] = "evolve",
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=V,V,...",
            help="Narrows the choice, may be repeated: width, depth, levels, weight_bits, sparsity, recipe, chip.",
            show_default=False,
        ),
    ] = None,
    objectives: Annotated[
        str, typer.Option("--objectives", help="Comma-separated: accuracy, energy_j, latency_s, cores.")
    ] = "accuracy,energy_j,latency_s,cores",
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Of training, before and again after pruning.")] = 4,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Search width, depth, levels, bits, sparsity, recipe and chip; resumes, and tests what nothing beats once."""
    from neuro.report import designs
    from neuro.search import search as run_search
    from neuro.search_convert import Converted
    from neuro.sweep_grid import read_grid

    to = console(quiet or as_json)
    with status(to) as progress:
        found = run_search(
            Converted(data=data, epochs=epochs),
            out=out,
            trials=trials,
            space=read_grid(values or []),
            objectives=tuple(objectives.split(",")),
            sampler=sampler,
            seed=seed,
            workers=workers,
            progress=progress,
        )
    if as_json:
        emit(found.to_json())
    else:
        if found.front:
            to.print(designs({"rows": list(found.front), "computed": found.computed, "reused": found.reused}))
            tested = ", ".join(f"{100 * row['accuracy']:.1f}" for row in found.tested)
            to.print(f"On test data, in this order (%): {tested}")
        refused = len(found.refused)
        to.print(f"{len(found.rows)} designs, {refused} refused or of unknown cost: {out / 'search.json'} says why.")
    if not found.front:
        raise typer.Exit(EXIT_CHIP)
