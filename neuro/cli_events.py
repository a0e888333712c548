"""`neuro events`: what is in a recording, in another format, as a picture."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from neuro.cli_options import Json, Quiet, console, emit

File = Annotated[Path, typer.Argument(metavar="FILE", help="A recording; its format is told by its content.")]
Format = Annotated[
    str | None,
    typer.Option(
        "--format", help="evt2, evt3, aedat4, es, aedat2, dat, hdf5, npz, csv, bin.", show_default="told by content"
    ),
]


def add(app: typer.Typer) -> None:
    """Registers the commands."""
    group = typer.Typer(help="Event recordings: what is in one, in another format, as a picture.", no_args_is_help=True)
    group.command()(info)
    group.command()(convert)
    group.command()(plot)
    app.add_typer(group, name="events")


def info(file: File, format: Format = None, as_json: Json = False, quiet: Quiet = False) -> None:
    """Format, sensor, times, polarity and number of events; reads the whole file in constant memory."""
    from neuro.datasets.formats.detect import open_events
    from neuro.datasets.formats.recording import info as look

    found = look(open_events(file, format))
    if as_json:
        emit({"file": str(file), **asdict(found)})
        return
    known = "as the file says" if found.sensor_known else "at least; the file does not say"
    share = 100 * found.on / found.events if found.events else 0.0
    to = console(quiet)
    to.print(f"{file}: {found.format}, {found.events:,} events in {found.seconds:g} s")
    to.print(f"  sensor {found.sensor[0]} x {found.sensor[1]} ({known})")
    to.print(
        f"  times {found.first_us:,} .. {found.last_us:,} us (stored in {found.unit}), {found.unordered:,} out of order"
    )
    to.print(f"  polarity {found.polarity}; {share:.1f} % are 1")


def convert(
    file: File,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write: .npz, .csv, .h5 or .bin.")],
    format: Format = None,
    to: Annotated[
        str | None, typer.Option("--to", help="npz, csv, hdf5 or bin.", show_default="by OUT's ending")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """The same events in another format."""
    from neuro.datasets.formats.detect import open_events
    from neuro.datasets.formats.write import write

    written = write(open_events(file, format), out, to)
    if as_json:
        emit({"file": str(file), "out": str(written), "bytes": written.stat().st_size})
    else:
        console(quiet).print(f"wrote {written} ({written.stat().st_size:,} bytes)")


def plot(
    file: File,
    out: Annotated[Path, typer.Argument(metavar="OUT.png", help="The picture to write.")],
    format: Format = None,
    quiet: Quiet = False,
) -> None:
    """Where and when: events per pixel, and per time."""
    from neuro.datasets.formats.detect import open_events
    from neuro.event_plot import picture
    from neuro.plots import save

    save(picture(open_events(file, format)), out)
    console(quiet).print(f"wrote {out}")
