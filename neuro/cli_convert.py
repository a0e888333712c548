"""`neuro convert`: a trained network becomes spikes, with its certificate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from neuro.cli_options import EXIT_DISPROVED, Json, Out, Quiet, console, emit, status
from neuro.errors import BadConfig


def add(app: typer.Typer) -> None:
    """Registers the command."""
    app.command()(convert)


def convert(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help=".onnx, a graph in .safetensors, or weights with --architecture.")
    ],
    data: Annotated[
        str,
        typer.Option(
            "--data", help="An .npz with x and y, a folder of IDX files, or a data set's name; mnist is embedded."
        ),
    ],
    out: Out,
    recipe: Annotated[str, typer.Option("--recipe", help="auto, st_bif, qcfs, graded, srp, ...")] = "auto",
    levels: Annotated[int, typer.Option("--levels", min=1, help="Of each population.")] = 4,
    steps: Annotated[int, typer.Option("--steps", min=1, help="T of the certificate.")] = 16,
    chip: Annotated[
        list[str] | None,
        typer.Option("--chip", help="Certify in this chip's integers; may be repeated.", show_default=False),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--form", help="thermometer, levels, graded, rate.", show_default="that of the chip, else thermometer"
        ),
    ] = None,
    weight_bits: Annotated[
        str | None,
        typer.Option("--weight-bits", help="2..16, or ternary.", show_default="what the chip holds, else real weights"),
    ] = None,
    input_levels: Annotated[
        int | None, typer.Option("--input-levels", min=1, help="Levels of the input.", show_default="as --levels")
    ] = None,
    epochs: Annotated[int, typer.Option("--epochs", min=0, help="Train the quantised network for so many.")] = 0,
    architecture: Annotated[
        str | None, typer.Option("--architecture", help="mlp, lenet5, vgg_small, resnet_small.", show_default=False)
    ] = None,
    shape: Annotated[
        str | None, typer.Option("--shape", help="Of one sample, e.g. 1,28,28.", show_default="that of the data")
    ] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", min=1, help="Certify on the first so many.", show_default="all")
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", help="Folder for certificate, picture and graph.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of training.")] = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Convert a trained network (ONNX, weights) to spikes, and certify how far they are from it, layer by layer.

    OUT: .nir, a network for chips; or .safetensors, the quantised graph, for operations that NIR has no node for.
    """
    from neuro.conversion import convert_model

    if out.suffix not in (".nir", ".safetensors"):
        raise BadConfig(f"--out {out}: a network is written as .nir or .safetensors")
    to = console(quiet or as_json)
    with status(to) as progress:
        progress(f"convert {model}")
        found = convert_model(
            model,
            data,
            levels=levels,
            steps=steps,
            recipe=recipe,
            chip=chip,
            form=form,
            weight_bits=_bits(weight_bits),
            input_levels=input_levels,
            epochs=epochs,
            architecture=architecture,
            shape=_shape(shape),
            test_samples=samples,
            seed=seed,
        )
    if report is not None:
        found.save(report)
    found.write(out)
    if as_json:
        emit({"out": str(out), **found.to_json()})
    else:
        to.print(found.table())
        to.print(f"wrote {out}" + (f" and {report}" if report is not None else ""))
    if not found.holds:
        typer.echo("the certificate fails: an equality that was claimed was not found", err=True)
        raise typer.Exit(EXIT_DISPROVED)


def _bits(text: str | None) -> int | Literal["ternary"] | None:
    if text is None or text == "ternary":
        return "ternary" if text else None
    if not text.isdigit():
        raise BadConfig(f"--weight-bits must be 2..16 or ternary, got {text!r}")
    return int(text)


def _shape(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = text.split(",")
    if not all(p.strip().isdigit() and int(p) > 0 for p in parts):
        raise BadConfig(f"--shape must be positive whole numbers with commas, got {text!r}")
    return tuple(int(p) for p in parts)
