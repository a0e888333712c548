"""`neuro run`: live events, or a recording as if it were, through a chip's integers."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from neuro.cli_options import Dt, Json, Quiet, Reset, Steps, console


def add(app: typer.Typer) -> None:
    """Registers the command."""
    app.command()(run)


def run(
    subject: Annotated[Path, typer.Argument(metavar="RUN|NET.nir", help="A run folder or a NIR file.")],
    source: Annotated[
        str, typer.Option("--source", metavar="udp://127.0.0.1:PORT|FILE", help="Where events come from.")
    ],
    chip: Annotated[str, typer.Option("--chip", help="A chip's name.")] = "loihi2",
    steps: Steps = None,
    windows: Annotated[
        int | None, typer.Option("--windows", min=1, help="Stop after so many decisions.", show_default=False)
    ] = None,
    idle: Annotated[
        float | None, typer.Option("--idle", help="Stop after so many seconds without a packet.", show_default=False)
    ] = None,
    remote: Annotated[bool, typer.Option("--remote", help="Let other machines send.")] = False,
    dt: Dt = None,
    reset: Reset = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Events through a chip's simulator as they come: a decision and its latency for every window."""
    from neuro.errors import BadConfig
    from neuro.hardware import compile as compile_network
    from neuro.live import Udp, decisions
    from neuro.live import source as open_source
    from neuro.workflow import open_subject

    opened = open_subject(subject, dt=dt, reset=reset)
    steps = steps or opened.steps
    if steps is None:
        raise BadConfig(f"{subject} does not say how long a sample is; give --steps")
    program = compile_network(opened.network, chip, max_steps=steps)
    from_ = open_source(source, remote=remote, idle_s=idle)
    to = console(quiet or as_json)
    where = f"udp://{from_.address}:{from_.port}" if isinstance(from_, Udp) else source
    to.print(f"{chip}: windows of {steps} steps of {program.dt:g} s from {where}")
    try:
        for made in itertools.islice(decisions(program, from_, steps), windows):
            if as_json:
                typer.echo(json.dumps({**asdict(made), "scores": made.scores.tolist()}))
            else:
                to.print(
                    f"  {made.begin:9.3f} s  {made.events:7,} events  class {made.decided}  {made.latency * 1e3:.2f} ms"
                )
    finally:
        from_.close()
        counts = asdict(from_.counts)
        if as_json:
            typer.echo(json.dumps({"counts": counts}))
        else:
            to.print(", ".join(f"{name} {value:,}" for name, value in counts.items()))
