"""`neuro join`: trained networks side by side as one, whose scores are the sums of theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neuro.cli_options import Json, Out, Quiet, console, emit


def add(app: typer.Typer) -> None:
    """Registers the command."""
    app.command()(join)


def join(
    subjects: Annotated[list[Path], typer.Argument(metavar="RUN|NET.nir...", help="Run folders or NIR files.")],
    out: Out,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Networks of one shape become one that adds up their scores, for chips and files as any other."""
    from neuro import nir
    from neuro.errors import BadConfig
    from neuro.join import join as join_networks
    from neuro.workflow import open_subject

    if out.suffix != ".nir":
        raise BadConfig(f"--out {out}: a network is written as .nir")
    network = join_networks([open_subject(path).network for path in subjects])
    nir.save(network, out)
    if as_json:
        emit({"path": str(out), "members": [str(path) for path in subjects], "nodes": len(network.nodes)})
    else:
        console(quiet).print(f"wrote {out}: {len(subjects)} networks side by side")
