"""`neuro sweep`: accuracy, energy and latency over parameters of chip and network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neuro.cli_options import (
    EXIT_CHIP,
    Chip,
    Data,
    Dataset,
    Dt,
    Json,
    Out,
    Quiet,
    Reset,
    Steps,
    emit,
    status,
)
from neuro.cli_options import console as console_of


def add(app: typer.Typer) -> None:
    """Registers the command."""
    app.command()(sweep)


def sweep(
    subject: Annotated[Path, typer.Argument(metavar="RUN|NET.nir", help="A run folder or a NIR file.")],
    out: Out,
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=V,V,...",
            help="A parameter and its values, may be repeated: network.weight_bits=2,4,8, limits.cores=64,128, "
            "energy.synop=10e-12,20e-12, compile.placement=contiguous,traffic, steps=50,100, chip=loihi1,loihi2.",
            show_default=False,
        ),
    ] = None,
    chip: Chip = "loihi2",
    data: Data = None,
    dataset: Dataset = None,
    steps: Steps = None,
    dt: Dt = None,
    reset: Reset = None,
    samples: Annotated[
        int | None, typer.Option("--samples", min=1, help="Recordings to use, spread over the classes.")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler",
            help="Address of a Dask cluster, or sync for this process alone.",
            show_default="processes of this machine",
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes on this machine.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Accuracy, energy and latency over chip and network parameters; resumes, and marks the Pareto set."""
    from neuro.report import designs
    from neuro.sweep import read_grid
    from neuro.sweep import sweep as run_sweep
    from neuro.workflow import open_data, open_subject

    console = console_of(quiet or as_json)
    opened = open_subject(subject, dt=dt, reset=reset)
    events = open_data(opened, data, dataset)
    if samples is not None:
        from neuro.deployment import spread_over_classes

        events = events.subset(spread_over_classes(events.labels, samples))
    with status(console) as progress:
        found = run_sweep(
            opened.network,
            events,
            read_grid(values or []),
            out=out,
            chip=chip,
            steps=steps or opened.steps,
            scheduler=scheduler,
            workers=workers,
            progress=progress,
        )
    if as_json:
        emit(found.to_json())
    else:
        console.print(designs(found.to_json()))
        for line in found.errors:
            console.print(f"[red]not measured[/]: {line}", markup=True)
        console.print(f"\nAll rows are in {out / 'sweep.json'}, the picture is {out / 'pareto.png'}.")
    if found.errors:
        raise typer.Exit(EXIT_CHIP)
