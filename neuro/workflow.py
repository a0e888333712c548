"""What the commands do: open a run or a NIR file, find recordings for it, call the public functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neuro.errors import (
    BadConfig,
    BadEventFile,
    ChipError,
    DoesNotFit,
    FormatError,
    RunError,
    SimulationError,
    UnsupportedNode,
)
from neuro.events import EventSet
from neuro.ir import Network
from neuro.loading import load

if TYPE_CHECKING:
    from rich.console import Console

    from neuro.deployment import Report
    from neuro.results import Run
    from neuro.train.config import Config

Progress = Callable[[str], None]
DEMO_PRESET = "braille"
SIMULATING = ("neuro.hardware.compile", "neuro.hardware.simulate", "neuro.jit", "neuro.deployment")


@dataclass(frozen=True, eq=False)
class Subject:
    """A network and what is known of where it comes from."""

    network: Network
    path: Path
    run: Run | None = None

    @property
    def dataset(self) -> str | None:
        """Name of the data set that it was trained on."""
        return None if self.run is None else str(self.run.config["data"]["dataset"])

    @property
    def steps(self) -> int | None:
        return None if self.run is None else int(self.run.summary["steps"])

    @property
    def seed(self) -> int | None:
        return None if self.run is None else self.run.seed


def open_subject(path: Path | str, *, dt: float | None = None, reset: str | None = None) -> Subject:
    """A run folder, or a NIR file. dt and reset: for NIR files that do not say.

    Raises:
        RunError, ChecksumMismatch: no finished run. FormatError: no NIR file; dt or reset given for a run.
    """
    path = Path(path)
    if path.is_dir():
        from neuro.results import Run

        if dt is not None or reset is not None:
            raise FormatError(f"{path} is a run, which knows its dt and reset; --dt and --reset are for NIR files")
        run = Run.open(path)
        return Subject(run.network, path, run)
    from neuro.nir import load

    return Subject(load(path, dt=dt, reset=reset), path)


def open_data(subject: Subject, data: str | None, dataset: str | None = None) -> EventSet:
    """Recordings that the subject has not been trained on.

    data: None for the run's own validation split; a registered name; or a path to files.
    dataset: which loader reads the path; default the run's own, else the one that can.

    Raises:
        RunError: the run has seen every recording there is. BadConfig: nothing says which recordings.
        BadEventFile: no loader can read the path.
    """
    from neuro.datasets.source import source, sources

    if data is None and subject.run is None:
        raise BadConfig(
            f"{subject.path} does not say what it was trained on; give --data: {', '.join(sources())}, or a path"
        )
    options = _options(subject)
    if data is None or (data == subject.dataset and not Path(data).exists()):
        assert subject.run is not None
        held = subject.run.config["data"]
        if held["train_on"] == "all":
            raise RunError(
                f"{subject.path} was trained on every recording of '{subject.dataset}', nothing unseen is left. "
                "Give --data PATH with other recordings, or train with --holdout"
            )
        return source(held["dataset"]).load("valid", held.get("path"), **options)
    if data in sources() and not Path(data).exists():
        return source(data).load("all")
    if dataset is not None or subject.dataset is not None:
        name = dataset or str(subject.dataset)
        return source(name).load(None, data, **(options if name == subject.dataset else {}))
    return _recognised(Path(data))


def _options(subject: Subject) -> dict[str, Any]:
    return {} if subject.run is None else dict(subject.run.config["data"]["options"])


def _recognised(path: Path) -> EventSet:
    """Read a path with the one embedded loader that can."""
    from neuro.datasets.source import source, sources

    if not path.exists():
        raise BadEventFile(f"{path} does not exist, and is no data set's name. Known: {', '.join(sources())}")
    refusals = []
    for name in (n for n in sources() if source(n).embedded):
        try:
            return source(name).load(None, path)
        except BadEventFile as refusal:
            refusals.append(f"{name}: {refusal}")
    raise BadEventFile(f"{path} is in no layout that is recognised by itself; name the loader with --dataset", refusals)


def train(
    config: str | Config,
    out: Path | str,
    *,
    seed: int | None = None,
    epochs: int | None = None,
    holdout: bool = False,
    data: str | None = None,
    rule: str | None = None,
    processes: int = 1,
    console: Console | None = None,
) -> dict[str, Any]:
    """Train into a run folder; what was asked for replaces what the configuration says."""
    from neuro.learn.rule import RULES
    from neuro.learn.rule import rule as learning_rule
    from neuro.train.config import Config, load_config
    from neuro.train.distributed import fit_in_processes
    from neuro.train.loop import fit

    chosen = config if isinstance(config, Config) else load_config(config)
    changes: dict[str, Any] = {}
    if seed is not None:
        changes["seed"] = seed
    if epochs is not None:
        changes["train.epochs"] = epochs
    if holdout:
        changes["data.train_on"] = "train"
    if data is not None:
        changes["data.path"] = data
    if rule is not None and rule != chosen.rule.get("kind", "bptt"):  # another kind has other options
        changes["rule"] = {"kind": rule}
        if chosen.quantise is not None and rule in RULES and not learning_rule(rule).integers:
            changes["quantise"] = None
            if console is not None:
                console.print(f"{rule} trains real weights: without the integers that {chosen.name} ends with")
    chosen = chosen.with_changes(**changes) if changes else chosen
    if processes > 1:
        fit_in_processes(chosen.to_table(), Path(out), processes, show=console is not None and not console.quiet)
    run = fit(chosen, out, progress=console)  # finished already by the processes
    return {
        "run": str(out),
        "seed": run.seed,
        "epochs": len(run.metrics),
        "metrics": dict(run.metrics[-1]),
        "summary": dict(run.summary),
        "versions": dict(run.versions),
    }


def evaluate(
    subject: Subject,
    data: str | None = None,
    *,
    chip: str | None = None,
    dataset: str | None = None,
    steps: int | None = None,
    progress: Progress = lambda _: None,
) -> dict[str, Any]:
    """Float accuracy, and that of a chip's integers, on unseen recordings.

    chip: a name, or "all": then a chip that cannot hold the network has "refused", the reason, for an answer.
    """
    load(*SIMULATING, "neuro.train.evaluate")
    from neuro.deployment import chip_names, run_program, steps_of
    from neuro.hardware import compile as compile_network
    from neuro.train.evaluate import evaluate as evaluate_float

    events = open_data(subject, data, dataset)
    steps = steps or subject.steps or steps_of(subject.network, events)
    progress(f"float: {len(events)} samples")
    result = evaluate_float(subject.network, events, steps=steps)
    chips: dict[str, Any] = {}
    for name in () if chip is None else chip_names(chip):
        progress(f"{name}: {len(events)} samples")
        try:
            program = compile_network(subject.network, name, max_steps=steps)
        except (DoesNotFit, UnsupportedNode) as refusal:
            if chip != "all":
                raise
            chips[name] = {"refused": str(refusal), "violations": [str(v) for v in refusal.violations]}
            continue
        answers = run_program(program, events, steps)
        chips[name] = {
            "accuracy": float((answers.decision == events.labels).mean()),
            "agrees_with_float": float((answers.decision == result.decided).mean()),
            "substitutions": list(program.substitutions),
            "warnings": list(answers.warnings),
            "counters": dict(answers.counters),
        }
    return {
        "subject": str(subject.path),
        "dataset": events.name,
        "seed": subject.seed,
        "steps": steps,
        "dt": subject.network.dt,
        "samples": len(events),
        "float_accuracy": result.accuracy,
        "float": result.to_json(),
        "chips": chips,
    }


def deploy(
    subject: Subject,
    data: str | None,
    out: Path | str,
    *,
    chip: str | Sequence[str] = "loihi2",
    dataset: str | None = None,
    steps: int | None = None,
    certify_samples: int = 20,
    timeout_s: float = 600.0,
    strict: bool = False,
    progress: Progress = lambda _: None,
) -> Report:
    """`neuro.deploy` on a run or a NIR file."""
    from neuro.drawing import beside

    with beside() as draw:
        load(*SIMULATING)
        from neuro.deployment import deploy as deploy_network

        return deploy_network(
            subject.network,
            open_data(subject, data, dataset),
            chips=chip,
            out=out,
            steps=steps or subject.steps,
            certify_samples=certify_samples,
            timeout_s=timeout_s,
            strict=strict,
            seed=subject.seed,
            progress=progress,
            draw=draw,
        )


def demo(out: Path | str, *, console: Console) -> Report:
    """Train on embedded events with a split held out, then deploy to every chip and certify on what was held out."""
    out = Path(out)
    console.print("[bold]1. train[/] on embedded tactile events (Braille), a fifth of the repetitions held out")
    trained = train(DEMO_PRESET, out / "run", holdout=True, console=console)
    said = ", ".join(f"{k} {v:.4g}" for k, v in trained["metrics"].items() if k in ("loss", "valid_accuracy"))
    console.print(f"   {trained['epochs']} epochs: {said}")
    console.print("[bold]2. deploy[/] to every chip, on the repetitions held out")
    subject = open_subject(out / "run")
    told = partial(_dimly, console)
    return deploy(subject, None, out / "deploy", chip="all", progress=told)


def _dimly(console: Console, text: str) -> None:
    console.print(f"   [dim]{text} ...[/]")


def simulate(
    subject: Subject,
    events: Path | str,
    out: Path | str,
    *,
    chip: str = "loihi2",
    probes: Sequence[str] = (),
    progress: Progress = lambda _: None,
) -> dict[str, Any]:
    """Run EVENTS.npz through a chip's integers and write TRACE.npz.

    TRACE.npz: decision int64[n], scores int64[n, classes], spikes.NODE uint8[steps, n, neurons] of every
    population, probe.NODE.u or .v int32 likewise, skew.NODE (steps that the population lags), counters.NAME
    int64[n, steps, cores], dt.

    Raises:
        BadEventFile: no such file, or not in its layout. SimulationError: samples that do not suit the network.
    """
    load(*SIMULATING)
    from neuro.datasets.npz import load_events_npz, write_npz
    from neuro.hardware import compile as compile_network
    from neuro.hardware import simulate as run

    samples, labels = load_events_npz(events)
    program = compile_network(subject.network, chip, max_steps=samples[0].steps)
    pairs = tuple(_probe(text) for text in probes)
    progress(f"{chip}: {len(samples)} samples")
    trace = run(program, samples, probes=pairs)
    arrays: dict[str, Any] = {"decision": trace.decision, "scores": trace.scores, "dt": np.array(trace.dt)}
    arrays |= {f"spikes.{name}": values for name, values in trace.spikes.items()}
    arrays |= {f"probe.{name}.{variable}": values for (name, variable), values in trace.probes.items()}
    arrays |= {f"skew.{name}": np.array(late) for name, late in program.skew.items()}
    counters = dataclasses.asdict(trace.counters)
    arrays |= {f"counters.{name}": values for name, values in counters.items()}
    write_npz(out, arrays)
    summary: dict[str, Any] = {
        "out": str(out),
        "chip": chip,
        "samples": len(samples),
        "steps": trace.steps,
        "decision": trace.decision.tolist(),
        "counters": trace.counters.totals(),
        "substitutions": list(program.substitutions),
    }
    if labels is not None:
        summary["accuracy"] = float((trace.decision == labels).mean())
    return summary


def _probe(text: str) -> tuple[str, str]:
    node, _, variable = text.rpartition(".")
    if not node:
        raise SimulationError(f"--probe {text}: write NODE.u or NODE.v, e.g. hidden.v")
    return node, variable


def export(subject: Subject, out: Path | str, *, to: str, chip: str | None = None) -> Mapping[str, Any]:
    """Write a network (nir) or its integers on a chip (lava, netx, pynn, ranc) for another tool.

    chip: whose integers; by default those that the format is for.

    Raises:
        ChipError: the format does not hold programs of that chip. As the exporter and the compiler.
    """
    from neuro.hardware import compile as compile_network
    from neuro.hardware.export import load_exporter

    exporter = load_exporter(to)
    item: Any = subject.network
    substitutions: list[str] = []
    if exporter.takes == "program":
        chip = chip or exporter.chips[0]
        if chip not in exporter.chips:
            raise ChipError(f"format '{to}' holds programs of {', '.join(exporter.chips)}, not of {chip}")
        item = compile_network(subject.network, chip, max_steps=subject.steps, **exporter.compile_options)
        substitutions = list(item.substitutions)
    written = exporter.write(item, Path(out))
    return {"path": str(written), "format": exporter.name, "title": exporter.title, "substitutions": substitutions}
