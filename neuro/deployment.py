"""`deploy`: one network, some labelled events, and for each chip the four answers.

Does it fit, what does it answer bit for bit (certified against an oracle), what does it cost, and where
are the files to run it. Everything is measured here on the given events; nothing is quoted.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, is_dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuro import reference
from neuro.drawing import Here
from neuro.errors import DoesNotFit, RunError, SimulationError, UnsupportedNode
from neuro.events import EventSet
from neuro.files import write_json
from neuro.ir import Network
from neuro.loading import load
from neuro.views import raster, view

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from neuro.hardware.estimate import Estimate
    from neuro.hardware.program import Program

Progress = Callable[[str], None]
BATCH_VALUES = 1 << 26  # dense input values held at once: 64 MB


@dataclass(frozen=True)
class ChipReport:
    """What one chip answered; the fields of one entry of report.json."""

    chip: str
    fits: bool
    violations: tuple[Mapping[str, Any], ...] = ()
    substitutions: tuple[str, ...] = ()
    accuracy: float | None = None
    samples: int = 0
    agrees_with_float: float | None = None
    matches: Mapping[str, Any] = field(default_factory=dict)
    energy_j: Mapping[str, Any] = field(default_factory=dict)
    latency_s: Mapping[str, Any] = field(default_factory=dict)
    estimate: Mapping[str, Any] = field(default_factory=dict)
    baseline: Mapping[str, Any] = field(default_factory=dict)
    utilisation: Mapping[str, Any] = field(default_factory=dict)
    counters: Mapping[str, float] = field(default_factory=dict)
    quantisation: tuple[Mapping[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()
    not_modelled: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """Everything `deploy` found; ``to_json`` is the content of report.json."""

    dataset: str
    samples: int
    steps: int
    dt: float
    seed: int | None
    versions: Mapping[str, str]
    float_accuracy: float
    chips: Mapping[str, ChipReport]

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary without NaN, keys in reading order."""
        table = asdict(self)
        return json.loads(json.dumps(table))  # type: ignore[no-any-return]  # tuples to lists, as a reader sees it

    def _repr_html_(self) -> str:
        from neuro.html_tables import report

        return report(self)

    def plot(self, what: str = "energy", ax: Axes | None = None) -> Axes:
        """One row per chip, "energy", "latency" or "accuracy", on matplotlib axes (``ax``, or new ones)."""
        from neuro.object_plots import report

        return report(self, what, ax)

    @property
    def proven(self) -> bool:
        """Whether every chip holds the network and every certificate passed."""
        return all(c.fits and c.matches.get("status") == "passed" for c in self.chips.values())


def versions() -> dict[str, str]:
    """Versions of everything that had a part in a result."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": sys.version.split()[0]}
    for name in ("axonport", "numpy", "numba", "torch", "nir", "h5py", "lava-nc"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def batches(data: EventSet, steps: int, dt: float, n_inputs: int, high: int = 1) -> Iterator[NDArray[np.uint8]]:
    """Dense uint8[steps, batch, ...] slices of a data set in order, each small enough to hold. high: of a channel."""
    size = int(np.clip(BATCH_VALUES // (steps * n_inputs), 1, 256))
    for start in range(0, len(data), size):
        yield data.batch(range(start, min(start + size, len(data))), dt, steps, high)


def chip_names(chips: Sequence[str] | str) -> tuple[str, ...]:
    """Registered chips by name, or "all".

    Raises:
        UnknownChip: no such chip, with the nearest known name.
    """
    from neuro.hardware.target import load_target, targets

    names = targets() if chips == "all" else (chips,) if isinstance(chips, str) else tuple(chips)
    for name in names:
        load_target(name)
    return names


def steps_of(network: Network, data: EventSet) -> int:
    """Steps that cover a recording."""
    return max(1, math.ceil(data.duration / network.dt - 1e-9))


def spread_over_classes(labels: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Indices of ``count`` samples that visit the classes in turn, the earliest of each first."""
    order = np.lexsort((np.arange(len(labels)), _rank_within_class(labels)))
    return np.sort(order[:count])


def _rank_within_class(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    rank = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        where = np.flatnonzero(labels == label)
        rank[where] = np.arange(len(where))
    return rank


def check_data(network: Network, data: EventSet) -> None:
    """Raise SimulationError where the events do not fit the network."""
    wanted = network.shapes[network.input]
    bad = []
    if len(data) == 0:
        bad.append("the data set holds no recording")
    if data.shape != wanted:
        bad.append(f"a step of '{data.name}' has shape {data.shape}, the network's input wants {wanted}")
    classes = int(np.prod(network.shapes[network.output]))
    if len(data) and int(data.labels.max()) >= classes:
        bad.append(f"labels go up to {int(data.labels.max())}, the network has {classes} outputs")
    if bad:
        raise SimulationError("these events cannot be given to this network", bad)


def deploy(
    model: Any,
    data: Any,
    *,
    chips: Sequence[str] | str = ("loihi2",),
    out: Path | str | None = None,
    steps: int | None = None,
    certify_samples: int = 20,
    timeout_s: float = 600.0,
    strict: bool = False,
    seed: int | None = None,
    float_accuracy: float | None = None,
    progress: Progress = lambda _: None,
    dt: float = 1e-3,
    door: Mapping[str, Any] | None = None,
    draw: Here | None = None,
) -> Report:
    """Compile to each chip, simulate every sample, certify some, estimate, export.

    Args:
        model: a `Network` with one input and one output; or a torch module of a framework with a door (snnTorch, Norse,
            SpikingJelly, sinabs), a trained module of ours, or a file (.nir, .net), see `neuro.doors.choose`.
        data: labelled events of the input's shape, or a pair (x, labels), x [time, sample, ...] of 0 and 1 or counts.
        chips: names, or "all". out: folder for report.json, pictures and exports; None writes nothing.
        steps: per sample; default: the data's duration over the network's dt.
        certify_samples: how many whole samples the oracle runs, spread over the classes; 0 for none.
        timeout_s: for the oracle's process. strict: refuse approximations (PrecisionLoss).
        float_accuracy: if the caller has measured it on these events already.
        dt: seconds per step, of a module or of arrays that do not say. door: arguments for the door, e.g. axes.
        draw: who draws the pictures (`neuro.drawing`); default: this process.

    Raises:
        SimulationError: the events do not suit the network. ConversionError: the model cannot become one.
        PrecisionLoss: strict, and the chip needs an approximation.
        UnknownChip: no such chip. RunError: another process writes to ``out``.
    """
    names = chip_names(chips)
    network, data = _taken(model, data, dt, door)
    check_data(network, data)
    steps = steps or steps_of(network, data)
    folder = None if out is None else Path(out)
    with _claimed(folder):
        draw = draw or Here()
        decided = cache(partial(_float_decisions, network, data, steps, progress))
        results = {}
        for name in names:
            results[name] = _on_chip(
                name, network, data, steps, decided, folder, certify_samples, timeout_s, strict, progress, draw
            )
        report = Report(
            dataset=data.name,
            samples=len(data),
            steps=steps,
            dt=network.dt,
            seed=seed,
            versions=versions(),
            float_accuracy=float((decided() == data.labels).mean()) if float_accuracy is None else float_accuracy,
            chips=results,
        )
        draw.finish()
        if folder is not None:
            write_json(folder / "report.json", report.to_json())  # last: its presence means the folder is whole
    return report


def _taken(model: Any, data: Any, dt: float, door: Mapping[str, Any] | None) -> tuple[Network, EventSet]:
    """What `deploy` was given, as a network and recordings."""
    from neuro.arrays import as_event_set

    if isinstance(model, Network):
        return model, as_event_set(data, model.dt)
    from neuro.doors.choose import network_of

    events = as_event_set(data, dt)
    steps = max(1, math.ceil(events.duration / dt - 1e-9))
    options = dict(door or {})
    network = network_of(
        model, events.batch(range(min(2, len(events))), dt, steps, options.get("high", 1)), dt, **options
    )
    return network, events


@contextmanager
def _claimed(folder: Path | None) -> Iterator[None]:
    """Hold a lock on the folder and take away an older report, so that no stale one stands for this run."""
    if folder is None:
        yield
        return
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".deploy.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as cause:
        raise RunError(f"{folder}: another process deploys into it; wait for it or choose another --out") from cause
    try:
        for stale in (*folder.rglob(".*.part"), folder / "report.json"):  # a killed deploy's, at any depth
            stale.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def _float_decisions(network: Network, data: EventSet, steps: int, progress: Progress) -> NDArray[np.int64]:
    """Decision of the float network on every sample: with torch where it is there, else the reference."""
    progress("float reference")
    load("neuro.train.evaluate")
    from neuro.train.evaluate import decisions

    return decisions(network, data, steps=steps)


def _on_chip(
    chip: str,
    network: Network,
    data: EventSet,
    steps: int,
    decided: Callable[[], NDArray[np.int64]],
    folder: Path | None,
    certify_samples: int,
    timeout_s: float,
    strict: bool,
    progress: Progress,
    draw: Here,
) -> ChipReport:
    """decided: what the float network does, asked for when the pictures are being drawn."""
    from neuro.hardware import compile as compile_network
    from neuro.hardware.baseline import table as baseline
    from neuro.hardware.target import load_target

    target = load_target(chip)
    progress(f"{chip}: compile")
    try:
        program = compile_network(network, chip, strict=strict, max_steps=steps)
    except (DoesNotFit, UnsupportedNode) as refusal:
        rows = tuple(
            asdict(v) if is_dataclass(v) and not isinstance(v, type) else {"message": str(v)}
            for v in refusal.violations
        )
        return ChipReport(
            chip, False, violations=rows or ({"message": str(refusal)},), not_modelled=target.chip.not_modelled
        )
    progress(f"{chip}: simulate {len(data)} samples")
    answers = run_program(program, data, steps)
    files: dict[str, str] = {}
    not_written: tuple[str, ...] = ()
    if folder is not None:
        progress(f"{chip}: export and draw")
        files, not_written, shown = _write(network, program, data, steps, folder, draw)
        write_json(folder / chip / "view.json", view(data.classes, data.labels, answers.decision, decided(), shown))
        files["view"] = f"{chip}/view.json"
    chosen = spread_over_classes(data.labels, certify_samples)
    matches: Mapping[str, Any] = {
        "status": "not run",
        "reason": "no sample was to be certified",
        "oracle": "",
        "compared": 0,
        "mismatches": 0,
    }
    if len(chosen):
        progress(f"{chip}: certify {len(chosen)} samples")
        written = [files[name] for name in target.exporters[:1] if name in files]
        exported = folder / written[0] if folder is not None and written else None
        matches = _certificate(program, data.batch(chosen, network.dt, steps, program.high), timeout_s, exported)
    if folder is not None:
        write_json(folder / chip / "certificate.json", matches)
        files["certificate"] = f"{chip}/certificate.json"
    table = answers.estimate.to_json()
    return ChipReport(
        chip=chip,
        fits=True,
        substitutions=program.substitutions,
        accuracy=float((answers.decision == data.labels).mean()),
        samples=len(data),
        agrees_with_float=float((answers.decision == decided()).mean()),
        matches=matches,
        energy_j=table.pop("energy_j"),
        latency_s=table.pop("latency_s"),
        estimate=table,
        baseline=baseline(network, answers.counters, answers.estimate.steps, answers.estimate.energy_j, target.chip),
        utilisation=utilisation(program),
        counters=answers.counters,
        quantisation=tuple(asdict(row) for row in program.budget),
        warnings=(*answers.warnings, *not_written),
        not_modelled=target.chip.not_modelled,
        files=files,
    )


@dataclass(frozen=True, eq=False)
class Answers:
    """What a program answered on a data set. counters: means per sample. warnings: what a user must know."""

    decision: NDArray[np.int64]
    estimate: Estimate
    counters: Mapping[str, float]
    warnings: tuple[str, ...]


def run_program(program: Program, data: EventSet, steps: int) -> Answers:
    """Simulate every recording of a data set, batch by batch, and add up."""
    from neuro.hardware import estimate as estimate_cost
    from neuro.hardware import simulate
    from neuro.hardware.estimate import merge

    decisions, estimates, fired = [], [], 0
    totals: dict[str, float] = {}
    size = program.populations[program.input].size
    spiking_readout = program.readout == "count"
    for dense in batches(data, steps, program.dt, size, program.high):
        trace = simulate(program, dense, record_spikes=not spiking_readout)
        decisions.append(trace.decision)
        estimates.append(estimate_cost(trace, program))
        share = dense.shape[1] / len(data)
        for name, value in trace.counters.totals().items():
            totals[name] = totals.get(name, 0.0) + share * value
        if not spiking_readout and trace.spikes[program.output].dtype == np.uint8:  # others send values, not spikes
            fired += int(trace.spikes[program.output].sum())
    warnings: tuple[str, ...] = ()
    if fired:
        warnings = (
            f"the readout '{program.output}' fired {fired} times: its membrane ran out of range and was reset, as "
            "it would be on the chip; compile with readout_headroom=1.0",
        )
    return Answers(np.concatenate(decisions), merge(estimates), totals, warnings)


def utilisation(program: Program) -> dict[str, Any]:
    """Cores, neurons and stored synapses of a program, and the largest share of each limit on any core.

    sequence_bytes: of a chip that loads a model in parts, the bytes of each part.
    """
    shares: dict[str, float] = {}
    for core in program.placement.utilisation:
        for limit, share in core.items():
            shares[limit] = max(shares.get(limit, 0.0), float(share))
    return {
        "cores": program.placement.cores,
        "neurons": program.neurons,
        "synapses": int(sum(np.count_nonzero(p.weight_q) for p in program.projections)),
        "fullest_core": shares,
        **({"sequence_bytes": program.image["sequence_bytes"].tolist()} if "sequence_bytes" in program.image else {}),
    }


def _certificate(program: Program, dense: NDArray[np.uint8], timeout_s: float, exported: Path | None) -> dict[str, Any]:
    from neuro.hardware.certify import certify

    flat = dense.reshape(*dense.shape[:2], -1)
    return certify(program, flat, timeout_s=timeout_s, folder=exported).to_json()


def _write(
    network: Network, program: Program, data: EventSet, steps: int, folder: Path, draw: Here
) -> tuple[dict[str, str], tuple[str, ...], dict[str, Any]]:
    """Exports and pictures of one chip: kind -> path inside the folder; why a format could not be written; and the
    spikes of the recording that was drawn."""
    from neuro.hardware import export
    from neuro.hardware.export import load_exporter
    from neuro.hardware.target import load_target

    chip = program.chip
    (folder / chip).mkdir(parents=True, exist_ok=True)
    files = {"nir": f"{chip}/network.nir"}
    export(network, folder / files["nir"], to="nir")
    refused = []
    for name in load_target(chip).exporters:
        path = f"{chip}/{name}{load_exporter(name).suffix}"
        try:
            export(program, folder / path, to=name)
            files[name] = path
        except (UnsupportedNode, DoesNotFit) as refusal:
            refused.append(f"no file for {name}: {refusal}")
    pictures, shown = _draw(network, program, data, steps, folder, draw)
    return files | pictures, tuple(refused), shown


def _draw(
    network: Network, program: Program, data: EventSet, steps: int, folder: Path, draw: Here
) -> tuple[dict[str, str], dict[str, Any]]:
    """One recording as a raster, its load on cores and links, and the membrane of the readout beside the float
    network's where there is one."""
    from neuro import plots
    from neuro.hardware import simulate
    from neuro.hardware.floorplan import floorplan
    from neuro.hardware.target import load_target

    chip, membrane = program.chip, load_target(program.chip).membrane
    shown = int(spread_over_classes(data.labels, 1)[0])
    dense = data.batch([shown], network.dt, steps, program.high)
    probes = ((program.output, membrane),) if membrane else ()
    trace = simulate(program, dense, probes=probes)
    label = int(data.labels[shown])
    title = f"{data.name}, recording {shown} (class {data.classes[label]}) on {chip}"
    silent = set() if program.readout == "count" else {program.output}  # a membrane readout has no spikes to show
    named = set(network.nodes) - silent  # not the compiler's own helpers
    layers = {name: trace.spikes[name][:, 0] for name in program.populations if name in named}
    sent = {"input": dense[:, 0], **layers}
    spikes = raster(sent, program.dt, shown, label, int(trace.decision[0]))
    files = {"raster": f"{chip}_raster.png"}
    draw(folder / files["raster"], plots.raster, layers, program.dt, title)
    files["floorplan"] = f"{chip}_floorplan.png"
    draw(folder / files["floorplan"], floorplan, program, trace, title)
    if probes and program.output in program.scale:
        late = program.skew[program.output]
        chip_v = trace.probes[probes[0]][late : late + steps, 0] * program.scale[program.output]
        float_v = reference.run(network, dense).v[program.output].reshape(steps, -1)
        files["membrane"] = f"{chip}_membrane.png"
        draw(folder / files["membrane"], plots.membrane, chip_v, float_v, program.dt, title, data.classes, label)
    return files, spikes
