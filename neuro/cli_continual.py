"""`neuro continual`: one task after another, and how much is left of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from neuro.cli_options import Data, Json, Out, Quiet, console, emit, status

if TYPE_CHECKING:
    from rich.table import Table


def add(app: typer.Typer) -> None:
    """Registers the command."""
    app.command()(continual)


def continual(
    config: Annotated[str, typer.Argument(metavar="PRESET|CONFIG.toml", help="A network and a data set with classes.")],
    out: Out,
    per_task: Annotated[int, typer.Option("--per-task", min=1, help="Classes of each task, in order.")] = 2,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method", help="hlop, hlop-soft, gpm, ewc, replay, plain; may be repeated.", show_default="hlop"
        ),
    ] = None,
    rows: Annotated[
        list[str] | None,
        typer.Option(
            "--rows",
            metavar="LAYER=FIRST[,LATER]",
            help="Lateral neurons of hlop in the first task and in later ones, may be repeated.",
            show_default="a third of a layer's inputs, the rest shared",
        ),
    ] = None,
    softness: Annotated[
        float,
        typer.Option("--softness", help="Of hlop-soft: share of old inputs' energy at which a step is halved."),
    ] = 2e-4,
    rule: Annotated[
        str | None,
        typer.Option("--rule", help="Replaces the configuration's learning rule: bptt, sltt, ottt, dsr, ..."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Of each task.", show_default="the configuration's")
    ] = None,
    lr: Annotated[float, typer.Option("--lr", help="Rate of SGD.")] = 0.1,
    momentum: Annotated[float, typer.Option("--momentum", min=0.0, max=0.999, help="Of SGD.")] = 0.9,
    anneal: Annotated[
        float, typer.Option("--anneal", min=0.0, max=1.0, help="Last share of a task in which the rate falls to 0.")
    ] = 0.0,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Replaces the configuration's seed.", show_default=False)
    ] = None,
    data: Data = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train on a data set's classes a few at a time: accuracy in the end, what was forgotten, memory kept."""
    from neuro.train.config import load_config
    from neuro.train.task_run import FILE, Steps, run_tasks

    changes: dict[str, Any] = {"seed": seed, "data.path": data, "rule": None if rule is None else {"kind": rule}}
    changes = {name: value for name, value in changes.items() if value is not None}
    chosen = load_config(config)
    if changes:
        chosen = chosen.with_changes(**changes, **({"quantise": None} if rule is not None else {}))
    to = console(quiet or as_json)
    with status(to) as progress:
        table = run_tasks(
            chosen, out, per_task=per_task, methods=method or ["hlop"], rows=read_rows(rows or []) or None,
            softness=softness, steps=Steps(epochs, lr, momentum, anneal), progress=progress,
        )  # fmt: skip
    if as_json:
        emit(table)
        return
    if table["left_out"]:
        to.print(f"[yellow]left out[/] of the configuration: {', '.join(table['left_out'])}")
    to.print(_shown(table))
    to.print(f"The accuracy after each task, of each task, is in {out / FILE}.")


def read_rows(given: list[str]) -> dict[str, tuple[int, ...]]:
    """LAYER=FIRST[,LATER] each.

    Raises:
        BadConfig: all that do not read so.
    """
    from neuro.errors import BadConfig

    found: dict[str, tuple[int, ...]] = {}
    bad = []
    for text in given:
        name, _, counts = text.partition("=")
        parts = counts.split(",")
        if not name or not all(p.isdecimal() and int(p) for p in parts) or len(parts) > 2:
            bad.append(f"--rows {text}: LAYER=FIRST or LAYER=FIRST,LATER is expected, numbers from 1 on")
        else:
            found[name] = tuple(int(p) for p in parts)
    if bad:
        raise BadConfig("rows of lateral neurons", bad)
    return found


def _shown(table: dict[str, Any]) -> Table:
    from rich.table import Table

    shown = Table("method", "ACC", "BWT", "memory", *table["tasks"], title=f"{table['name']}: in the end, by task")
    for name, row in table["methods"].items():
        last = [f"{a:.3f}" for a in row["accuracy"][-1]]
        shown.add_row(name, f"{row['acc']:.3f}", f"{row['bwt']:+.3f}", f"{row['memory_bytes'] / 1e6:.2f} MB", *last)
    return shown
