"""The command ``neuro``. Each command is: parse, one public call, print or write.

Exit codes: 0 done; 1 something proven wrong (a certificate failed); 2 wrong usage; 3 bad input or a run that
cannot be used; 4 the chip cannot hold the network; 5 an optional package is missing; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from neuro import (
    cli_chips,
    cli_continual,
    cli_convert,
    cli_events,
    cli_join,
    cli_report,
    cli_run,
    cli_search,
    cli_sweep,
    interrupts,
)
from neuro.cli_options import (
    EXIT_CHIP,
    EXIT_DISPROVED,
    EXIT_EXTRA,
    EXIT_INPUT,
    EXIT_INTERRUPTED,
    Chip,
    Data,
    Dataset,
    Dt,
    Json,
    Out,
    Quiet,
    Reset,
    Steps,
)
from neuro.cli_options import console as _console
from neuro.cli_options import emit as _emit
from neuro.cli_options import status as _status
from neuro.errors import ChipError, MissingExtra, NeuroError

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    help="Train spiking networks, compile them to neuromorphic chips, prove every bit, say what it costs.",
    epilog="Exit codes: 0 done, 1 a certificate failed, 2 wrong usage, 3 bad input, "
    "4 the chip cannot hold the network, 5 an optional package is missing, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Where to write.")] = Path("runs/demo"),
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train on embedded tactile events, deploy to every chip, certify against real Lava, report."""
    from neuro.workflow import demo as run_demo

    console = _console(quiet or as_json)
    report = run_demo(out, console=console)
    _finish(report.to_json(), report.proven, as_json, console)
    console.print(
        f"\nEverything is in {out}: the run in {out / 'run'}, report.json, pictures and the Lava network in "
        f"{out / 'deploy'}. One page of all of it: neuro report {out}"
    )


@app.command()
def train(
    config: Annotated[
        str, typer.Argument(metavar="PRESET|CONFIG.toml", help="braille, nmnist, nmnist_akida, ... or your own file.")
    ],
    out: Out,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Replaces the configuration's seed.", show_default=False)
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Replaces the configuration's epochs.", show_default=False)
    ] = None,
    holdout: Annotated[
        bool,
        typer.Option("--holdout", help="Keep the validation split out of training, whatever the configuration says."),
    ] = False,
    rule: Annotated[
        str | None,
        typer.Option("--rule", help="Replaces the configuration's learning rule: bptt, sltt, ottt, eventprop, ..."),
    ] = None,
    processes: Annotated[
        int, typer.Option("--processes", min=1, help="Processes that share each batch (torch's DDP, gloo).")
    ] = 1,
    data: Data = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train; a run that was interrupted, or killed, goes on where it stopped and ends bit-identical."""
    from neuro.workflow import train as run_train

    console = _console(quiet or as_json)
    summary = run_train(
        config, out, seed=seed, epochs=epochs, holdout=holdout, data=data, rule=rule, processes=processes,
        console=console,
    )  # fmt: skip
    if as_json:
        _emit(summary)
    else:
        console.print(
            f"{out}: {summary['epochs']} epochs, "
            + ", ".join(f"{k} {v:.4g}" for k, v in summary["metrics"].items() if isinstance(v, float))
        )


@app.command()
def evaluate(
    subject: Annotated[Path, typer.Argument(metavar="RUN|NET.nir", help="A run folder or a NIR file.")],
    data: Data = None,
    chip: Annotated[
        str | None, typer.Option("--chip", help="Also run the integers of this chip, or all.", show_default=False)
    ] = None,
    dataset: Dataset = None,
    steps: Steps = None,
    dt: Dt = None,
    reset: Reset = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Accuracy of the float network, and of a chip's integers, on recordings it has not seen."""
    from neuro.report import percent
    from neuro.workflow import evaluate as run_evaluate
    from neuro.workflow import open_subject

    console = _console(quiet or as_json)
    with _status(console) as progress:
        result = run_evaluate(
            open_subject(subject, dt=dt, reset=reset), data, chip=chip, dataset=dataset, steps=steps, progress=progress
        )
    if as_json:
        _emit(result)
        return
    console.print(f"{result['dataset']}: {result['samples']} samples, float {percent(result['float_accuracy'])}")
    for name, row in result["chips"].items():
        if "refused" in row:
            console.print(f"  {name}: refused. {row['violations'][0]}")
            continue
        console.print(
            f"  {name}: {percent(row['accuracy'])}, same decision as float {percent(row['agrees_with_float'])}"
        )


@app.command()
def deploy(
    subject: Annotated[Path, typer.Argument(metavar="RUN|NET.nir", help="A run folder or a NIR file.")],
    out: Out,
    chip: Chip = "loihi2",
    data: Data = None,
    dataset: Dataset = None,
    steps: Steps = None,
    dt: Dt = None,
    reset: Reset = None,
    certify: Annotated[
        int, typer.Option("--certify", min=0, help="Whole samples to run in the oracle; 0 for none.")
    ] = 20,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds the oracle may take.")] = 600.0,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse every approximation but rounding.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Does it fit, what does it answer bit for bit, what does it cost, and the files to run it."""
    from neuro.workflow import deploy as run_deploy
    from neuro.workflow import open_subject

    console = _console(quiet or as_json)
    with _status(console) as progress:
        report = run_deploy(
            open_subject(subject, dt=dt, reset=reset),
            data,
            out,
            chip=chip,
            dataset=dataset,
            steps=steps,
            certify_samples=certify,
            timeout_s=timeout,
            strict=strict,
            progress=progress,
        )
    _finish(report.to_json(), report.proven, as_json, console)
    fits = [c.fits for c in report.chips.values()]
    if not (any(fits) if chip == "all" else all(fits)):  # asked of all chips, a refusal is an answer
        raise typer.Exit(EXIT_CHIP)


def _finish(report: Mapping[str, Any], proven: bool, as_json: bool, console: Console) -> None:
    from neuro.report import deployment, quantisation

    if as_json:
        _emit(report)
    else:
        console.print(deployment(report))
        chips = report["chips"].values()
        if len(chips) == 1:
            console.print(*(quantisation(chip["quantisation"]) for chip in chips if chip["quantisation"]))
        elif any(chip["quantisation"] for chip in chips):
            console.print("[dim]report.json has the error budget of each chip's quantisation.[/]")
    failed = [n for n, c in report["chips"].items() if c["matches"].get("status") == "failed"]
    if failed:
        raise typer.Exit(EXIT_DISPROVED)


@app.command()
def simulate(
    subject: Annotated[Path, typer.Argument(metavar="RUN|NET.nir", help="A run folder or a NIR file.")],
    events: Annotated[
        Path, typer.Argument(metavar="EVENTS.npz", help="Samples: t, x, shape, dt, steps, offsets, labels.")
    ],
    out: Out,
    chip: Annotated[str, typer.Option("--chip", help="A chip's name.")] = "loihi2",
    dt: Dt = None,
    reset: Reset = None,
    probe: Annotated[
        list[str] | None, typer.Option("--probe", help="NODE.u or NODE.v, may be repeated.", show_default=False)
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run samples through a chip's integers and write every spike, and membranes where asked."""
    from neuro.workflow import open_subject
    from neuro.workflow import simulate as run_simulate

    console = _console(quiet or as_json)
    with _status(console) as progress:
        summary = run_simulate(
            open_subject(subject, dt=dt, reset=reset), events, out, chip=chip, probes=probe or [], progress=progress
        )
    if as_json:
        _emit(summary)
    else:
        console.print(
            f"{out}: {summary['samples']} samples of {summary['steps']} steps, decisions {summary['decision'][:20]}"
            + (" ..." if summary["samples"] > 20 else "")
        )


@app.command()
def export(
    subject: Annotated[Path, typer.Argument(metavar="RUN|NET.nir", help="A run folder or a NIR file.")],
    out: Out,
    to: Annotated[
        str, typer.Option("--to", help="lava, netx, nir, pynn, ranc, or another registered exporter.")
    ] = "lava",
    chip: Annotated[
        str | None, typer.Option("--chip", help="Whose integers; by default the format's chip.", show_default=False)
    ] = None,
    dt: Dt = None,
    reset: Reset = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the network for another tool."""
    from neuro.workflow import export as run_export
    from neuro.workflow import open_subject

    console = _console(quiet or as_json)
    written = run_export(open_subject(subject, dt=dt, reset=reset), out, to=to, chip=chip)
    if as_json:
        _emit(written)
    else:
        console.print(f"wrote {written['path']} ({written['title']})")
        for line in written["substitutions"]:
            console.print(f"[yellow]approximated[/]: {line}")


# each a part of the commands, in a file of its own
for _commands in (
    *(cli_sweep, cli_chips, cli_report, cli_continual, cli_events),
    *(cli_convert, cli_search, cli_run, cli_join),
):
    _commands.add(app)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        from neuro import __version__

        typer.echo(f"axonport {__version__}")
        raise typer.Exit


def _interrupted() -> NoReturn:
    typer.echo("interrupted; what was finished is kept", err=True)
    sys.exit(EXIT_INTERRUPTED)


def main() -> None:
    """Entry point: errors raised on purpose become one message and an exit code, never a traceback."""
    interrupts.keep()
    # Idle torch threads wait instead of spinning: on a busy machine spinning costs many times the work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except KeyboardInterrupt:
        _interrupted()
    except SystemExit as end:  # typer ends a command that Ctrl-C reached without a word
        if end.code == EXIT_INTERRUPTED:
            _interrupted()
        raise
    except MissingExtra as problem:
        typer.echo(f"error: {problem}", err=True)
        sys.exit(EXIT_EXTRA)
    except ChipError as problem:
        typer.echo(f"error: {problem}", err=True)
        sys.exit(EXIT_CHIP)
    except NeuroError as problem:
        typer.echo(f"error: {problem}", err=True)
        sys.exit(EXIT_INPUT)
    except OSError as problem:  # a full disk, a read-only folder: the system's word is clear, a traceback is not
        typer.echo(f"error: {problem.filename or 'file'}: {problem.strerror or problem}", err=True)
        sys.exit(EXIT_INPUT)
