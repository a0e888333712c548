"""Design exploration: one network on every combination of chip and network parameters, and the Pareto set of it.

Parameters by dotted name::

    chip                    a registered chip
    limits.NAME             a limit of the chip, which then decides what fits
    energy.NAME time.NAME power.NAME   a constant of the chip; its range moves with it
    compile.NAME            an option of the chip's compiler: placement, readout_headroom, ...
    network.weight_bits network.sparsity network.dt    see `neuro.variants`
    steps                   steps per sample

Every point is compiled, simulated bit for bit on every sample, and estimated, nothing is interpolated. Points run in
processes of Dask distributed, on this machine or a cluster. A row is on disk when its point is done; a sweep that
was interrupted, or is widened, computes only what it lacks.

A point is Pareto-optimal if no other that fits is at least as accurate, as frugal (nominal event energy) and as
quick (nominal latency), and better in one of them. Energy and latency count where every point that fits has them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neuro import variants
from neuro.errors import BadConfig, ChipError, DoesNotFit, NeuroError, RunError, UnsupportedNode
from neuro.events import EventSet
from neuro.extend import did_you_mean, require
from neuro.files import write_json
from neuro.ir import Network

if TYPE_CHECKING:
    from neuro.hardware.chip import Chip, Quantity
    from neuro.hardware.program import Program

Point = Mapping[str, Any]
Row = dict[str, Any]
Progress = Callable[[str], None]

FORMAT = 1
ROWS, RESULT, PICTURE = "rows.jsonl", "sweep.json", "pareto.png"
NETWORK = ("weight_bits", "sparsity", "dt")
CONSTANTS = ("energy", "time", "power")
DEFAULT_CHIP = "loihi2"
SYNC = "sync"


@dataclass(frozen=True)
class Sweep:
    """rows: one per point of the grid, in its order, as in sweep.json. computed, reused: how many were new, and not."""

    rows: tuple[Row, ...]
    computed: int
    reused: int

    @property
    def pareto(self) -> tuple[Row, ...]:
        """The Pareto-optimal rows, most accurate first."""
        return tuple(sorted((r for r in self.rows if r["pareto"]), key=lambda r: -r["accuracy"]))

    @property
    def errors(self) -> tuple[str, ...]:
        """Points that could be neither measured nor refused, and why."""
        return tuple(f"{label(r['point'])}: {r['error']}" for r in self.rows if r["error"])

    def to_json(self) -> dict[str, Any]:
        return {"rows": list(self.rows), "computed": self.computed, "reused": self.reused}


@dataclass(frozen=True, eq=False)
class Subject:
    """What every point shares; sent to the workers once."""

    network: Network
    data: EventSet
    steps: int | None
    digest: str


def sweep(
    network: Network,
    data: EventSet,
    grid: Mapping[str, Sequence[Any]],
    *,
    out: Path | str | None = None,
    chip: str | Sequence[str] = DEFAULT_CHIP,
    steps: int | None = None,
    scheduler: str | None = None,
    workers: int | None = None,
    progress: Progress = lambda _: None,
) -> Sweep:
    """Measure a network at every point of a grid.

    Args:
        grid: parameter -> values, see the module. chip: where the grid has no "chip"; a name, several, or "all".
        out: folder for rows.jsonl (resumed), sweep.json and pareto.png; None keeps nothing.
        steps: per sample, where the grid has none; default: the data's duration over dt.
        scheduler: None for processes of this machine, the address of a Dask cluster ("tcp://host:8786"), or "sync" for
            this process, without Dask. workers: processes on this machine; default one per processor. As with any
            processes in Python, a script calls this under ``if __name__ == "__main__"``.

    Raises:
        BadConfig: unknown parameters or impossible values, all of them. SimulationError: data that do not suit the
        network. UnknownChip: no such chip. MissingExtra: Dask is not installed; pip install 'axonport[sweep]'.
        RunError: ``out`` holds a sweep of another network or data, or is in use; a worker died.
    """
    from neuro.deployment import check_data

    grid = _with_chips(grid, chip)
    points = check_grid(grid)
    check_data(network, data)
    subject = Subject(network, data, steps, digest(network, data))
    if out is None:
        rows = {key_of(p, subject): r for p, r in _computed(points, subject, scheduler, workers, progress)}
        return Sweep(_marked([rows[key_of(p, subject)] for p in points]), len(points), 0)
    from neuro.results import locked

    folder = Path(out)
    with locked(folder):
        held = _held(folder / ROWS, subject)
        todo = [p for p in points if key_of(p, subject) not in held]
        progress(f"{len(points)} points, {len(points) - len(todo)} of them measured before")
        with open(folder / ROWS, "a", encoding="utf-8") as file:
            for point, row in _computed(todo, subject, scheduler, workers, progress):
                held[key_of(point, subject)] = row
                file.write(json.dumps({"key": key_of(point, subject), "row": row}, allow_nan=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
        found = Sweep(_marked([held[key_of(p, subject)] for p in points]), len(todo), len(points) - len(todo))
        _write(found, subject, grid, folder)
    return found


def read_grid(texts: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """ "NAME=V,V,..." as a grid; a value is a number, true or false where it reads as one, else text.

    Raises:
        BadConfig: texts of another form, or a name given twice; all of them.
    """
    grid: dict[str, tuple[Any, ...]] = {}
    bad = []
    for text in texts:
        name, equals, values = text.partition("=")
        if not (equals and name and all(values.split(","))):
            bad.append(f"'{text}': write NAME=VALUE,VALUE")
        elif name in grid:
            bad.append(f"'{name}' is given twice; list its values with commas")
        else:
            grid[name] = tuple(_value(v) for v in values.split(","))
    if bad:
        raise BadConfig("no grid can be read from that", bad)
    return grid


def _value(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, (int, float, bool)) else text


def _with_chips(grid: Mapping[str, Sequence[Any]], chip: str | Sequence[str]) -> dict[str, tuple[Any, ...]]:
    from neuro.deployment import chip_names

    listed = {
        name: tuple(v) if isinstance(v, Sequence) and not isinstance(v, str) else (v,) for name, v in grid.items()
    }
    names = listed.get("chip", (chip,) if isinstance(chip, str) else tuple(chip))
    listed["chip"] = chip_names(names[0] if len(names) == 1 else names)
    return {"chip": listed.pop("chip"), **listed}


def check_grid(grid: Mapping[str, Sequence[Any]]) -> list[Point]:
    """Every combination of a grid's values, or every problem with its names and values.

    Raises:
        BadConfig: all problems at once. UnknownChip: no such chip.
    """
    from neuro.hardware.target import load_target

    bad = [f"'{name}' has no values" for name, values in grid.items() if not len(values)]
    for chip in grid["chip"]:
        known = _parameters(load_target(chip))
        for name, values in grid.items():
            if name not in known:
                bad.append(f"{chip} has no parameter '{name}'. {did_you_mean(name, known)}")
                continue
            bad += [f"{line} ({chip})" for value in values for line in _problems(name, value)]
    if bad:
        raise BadConfig("this grid cannot be swept", list(dict.fromkeys(bad)))
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def _parameters(target: Any) -> list[str]:
    import inspect

    options = [
        f"compile.{p.name}"
        for p in inspect.signature(target.compile).parameters.values()
        if p.kind is inspect.Parameter.KEYWORD_ONLY and p.name != "max_steps"
    ]
    return ["chip", "steps", *(f"network.{n}" for n in NETWORK), *options, *target.chip.quantities()]


def _problems(name: str, value: Any) -> list[str]:
    group, _, rest = name.partition(".")
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if group == "network":
        return variants.problems(rest, value)
    if (group == "limits" or name == "steps") and not (isinstance(value, int) and number and value >= 1):
        return [f"{name} must be an integer of at least 1, got {value!r}"]
    if group in CONSTANTS and not (number and value >= 0):
        return [f"{name} must be a number of at least 0, got {value!r}"]
    return []


def digest(network: Network, data: EventSet) -> str:
    """A name for a network and its data that changes with any value in them."""
    found = hashlib.sha256()

    def feed(value: Any) -> None:
        if isinstance(value, np.ndarray):
            found.update(f"{value.dtype}{value.shape}".encode())
            found.update(np.ascontiguousarray(value).tobytes())
        else:
            found.update(repr(value).encode())

    for name, node in network.nodes.items():
        feed((name, type(node).__name__))
        for field in sorted(vars(node)):
            feed(field)
            feed(getattr(node, field))
    for value in (network.edges, network.dt, network.discretisation):
        feed(value)
    for column in ("times", "channels", "offsets", "labels", "shape", "duration"):
        feed(getattr(data, column))
    return found.hexdigest()


def key_of(point: Point, subject: Subject) -> str:
    """A name for one measurement: the point, what it is done to, and the chip's constants and our version."""
    from importlib.metadata import version

    from neuro.hardware.target import load_target

    chip = load_target(point["chip"]).chip
    parts = [sorted(point.items()), subject.digest, subject.steps, sorted(chip.quantities().items()), chip.regime]
    return hashlib.sha256(repr([*parts, version("axonport")]).encode()).hexdigest()


def _held(path: Path, subject: Subject) -> dict[str, Row]:
    """Rows on disk, by key; a last line that a killed process left unfinished is cut off."""
    header = {"format": FORMAT, "digest": subject.digest, "data": subject.data.name}
    if not path.exists():
        path.write_text(json.dumps(header) + "\n", encoding="utf-8")
        return {}
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    try:
        lines = [json.loads(line) for line in whole.splitlines()]
    except ValueError as cause:
        raise RunError(f"{path} cannot be read ({cause}); choose another --out") from cause
    if lines and lines[0] != header:
        raise RunError(f"{path.parent} holds a sweep of another network, other data or format; choose another --out")
    if whole != text or not lines:
        path.write_text(whole or json.dumps(header) + "\n", encoding="utf-8")
    return {line["key"]: line["row"] for line in lines[1:] if not line["row"]["error"]}


def _computed(
    points: Sequence[Point], subject: Subject, scheduler: str | None, workers: int | None, progress: Progress
) -> Iterator[tuple[Point, Row]]:
    """(point, row) as they are done."""
    if scheduler == SYNC or not points:
        for k, point in enumerate(points, 1):
            progress(f"{k}/{len(points)} {label(point)}")
            yield point, measure(subject, point)
        return
    distributed = require("distributed", extra="sweep")
    with _client(distributed, scheduler, workers, len(points)) as client:
        shared = client.scatter(subject, broadcast=True, hash=False)
        tasks = {client.submit(measure, shared, point, pure=False, retries=1): point for point in points}
        try:
            for k, task in enumerate(distributed.as_completed(tasks), 1):
                progress(f"{k}/{len(points)} {label(tasks[task])}")
                yield tasks[task], task.result()
        except distributed.KilledWorker as cause:
            raise RunError(f"a worker died twice over one point, perhaps of too little memory: {cause}") from cause


def _client(distributed: Any, scheduler: str | None, workers: int | None, points: int) -> Any:
    if scheduler is not None:
        try:
            return distributed.Client(scheduler, timeout="20s")
        except (OSError, TimeoutError, ValueError) as cause:
            raise RunError(f"no Dask scheduler answers at {scheduler}: {cause}") from cause
    one = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}  # processes share the processors, not threads
    cluster = distributed.LocalCluster(
        n_workers=min(points, workers or os.cpu_count() or 1),
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        env=one,
        silence_logs=50,
    )
    return _Owned(distributed.Client(cluster), cluster)


class _Owned:
    """A client that takes its cluster down with it."""

    def __init__(self, client: Any, cluster: Any) -> None:
        self.client, self.cluster = client, cluster

    def __enter__(self) -> Any:
        return self.client

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.cluster.close()


def measure(subject: Subject, point: Point) -> Row:
    """One row. Refusals of the chip are results; any other error is kept in the row and tried again next time."""
    from neuro.deployment import steps_of

    row: Row = {"point": dict(point), "fits": False, "error": "", "violations": [], "pareto": False}
    row |= {"accuracy": None, "energy_j": None, "latency_s": None, "cores": None}
    try:
        changes = {n: point[f"network.{n}"] for n in NETWORK if f"network.{n}" in point}
        network = variants.variant(subject.network, **changes)
        steps = int(point.get("steps") or subject.steps or steps_of(network, subject.data))
        program = _compiled(network, point, steps)
        return row | _measured(program, subject.data, steps, point)
    except (DoesNotFit, UnsupportedNode) as refusal:
        told = [asdict(v) if is_dataclass(v) and not isinstance(v, type) else str(v) for v in refusal.violations]
        return row | {"violations": told or [str(refusal)]}
    except NeuroError as problem:
        return row | {"error": str(problem)}


def _compiled(network: Network, point: Point, steps: int) -> Program:
    """Compile with the point's limits and options.

    Raises:
        ChipError: a limit that this network's compilation does not ask for, or that changes the integers: the
            simulator has such a number compiled in, so a result would be wrong.
    """
    from neuro.hardware import compile as compile_network
    from neuro.hardware.chip import assuming

    chip = point["chip"]
    options = {n.partition(".")[2]: v for n, v in point.items() if n.startswith("compile.")}
    limits = {n.partition(".")[2]: v for n, v in point.items() if n.startswith("limits.")}
    if not limits:
        return compile_network(network, chip, max_steps=steps, **options)
    with assuming(chip, **limits) as assumed:
        program = compile_network(network, chip, max_steps=steps, **options)
    unread = sorted(n for n in limits if (chip, n) not in assumed.read)
    if unread:
        raise ChipError(f"compiling this for {chip} does not ask for limits.{', limits.'.join(unread)}")
    try:
        plain = compile_network(network, chip, max_steps=steps, **options)
    except DoesNotFit:
        with assuming(chip, **{n: 2 * v for n, v in limits.items()}):
            plain = compile_network(network, chip, max_steps=steps, **options)
    arithmetic = [] if _same_integers(program, plain) else sorted(limits)
    for name in limits:  # a limit that decides only what fits refuses, or changes nothing, even at its least
        with assuming(chip, **{**limits, name: 1}):
            try:
                least = compile_network(network, chip, max_steps=steps, **options)
            except DoesNotFit:
                continue
            except (NeuroError, ArithmeticError, ValueError, AssertionError):  # it is computed with, and 1 is absurd
                arithmetic.append(name)
                continue
        if not _same_integers(least, plain):
            arithmetic.append(name)
    if arithmetic:
        raise ChipError(
            f"limits.{', limits.'.join(dict.fromkeys(arithmetic))} changes the integers of this program on {chip}, and "
            "its simulator has the chip's own compiled in; only limits that decide what fits can be swept"
        )
    return program


def _same_integers(a: Program, b: Program) -> bool:
    def arrays(program: Program) -> dict[str, Any]:
        found = {f"image.{n}": v for n, v in program.image.items()}
        for p in program.populations.values():
            found |= {f"{p.name}.{n}": v for n, v in p.params.items()}
        for q in program.projections:
            found |= {f"{q.name}.{n}": v for n, v in q.params.items()} | {f"{q.name}.weight_q": q.weight_q}
        return found

    if dict(a.scale) != dict(b.scale) or dict(a.skew) != dict(b.skew):
        return False
    one, two = arrays(a), arrays(b)
    return one.keys() == two.keys() and all(np.array_equal(one[n], two[n]) for n in one)


def _measured(program: Program, data: EventSet, steps: int, point: Point) -> Row:
    """Run every sample and add up."""
    from neuro.deployment import batches
    from neuro.hardware import estimate, simulate
    from neuro.hardware.estimate import merge
    from neuro.hardware.target import load_target

    constants = _constants(load_target(program.chip).chip, point)
    right, estimates = 0, []
    totals: dict[str, float] = {}
    begin = 0
    for dense in batches(data, steps, program.dt, program.populations[program.input].size, program.high):
        trace = simulate(program, dense, record_spikes=False)
        count = dense.shape[1]
        right += int((trace.decision == data.labels[begin : begin + count]).sum())
        estimates.append(estimate(trace, program, constants=constants or None))
        for name, value in trace.counters.totals().items():
            totals[name] = totals.get(name, 0.0) + value * count / len(data)
        begin += count
    cost = merge(estimates)
    return {
        "fits": True,
        "accuracy": right / len(data),
        "energy_j": None if cost.energy_j is None else cost.energy_j.to_json(),
        "latency_s": None if cost.latency_s is None else cost.latency_s.to_json(),
        "regime": cost.regime,
        "cores": program.placement.cores,
        "neurons": program.neurons,
        "synapses": int(sum(np.count_nonzero(p.weight_q) for p in program.projections)),
        "counters": totals,
        "samples": len(data),
        "steps": steps,
        "substitutions": len(program.substitutions),
    }


def _constants(chip: Chip, point: Point) -> dict[str, Quantity]:
    """The constants a point changes, low and high in the same proportion as before."""
    found = {}
    quantities = chip.quantities()
    for name, value in point.items():
        if name.partition(".")[0] in CONSTANTS:
            q = quantities[name]
            low, high = (value * q.low / q.value, value * q.high / q.value) if q.value else (value, value)
            found[name] = replace(q, value=float(value), low=low, high=high, source="the sweep", grade="assumed")
    return found


def pareto(rows: Sequence[Row]) -> list[bool]:
    """Whether each row is Pareto-optimal among those that fit, see the module."""
    fitting = [k for k, r in enumerate(rows) if r["fits"]]
    known = [n for n in ("energy_j", "latency_s") if all(rows[k][n] is not None for k in fitting)]
    cost = np.array([[-rows[k]["accuracy"], *(rows[k][n]["nominal"] for n in known)] for k in fitting])
    found = [False] * len(rows)
    for k, own in zip(fitting, cost, strict=True):
        better = (cost <= own).all(axis=1) & (cost < own).any(axis=1)
        found[k] = not bool(better.any())
    return found


def _marked(rows: Sequence[Row]) -> tuple[Row, ...]:
    return tuple({**r, "pareto": best} for r, best in zip(rows, pareto(rows), strict=True))


def label(point: Point) -> str:
    """A point in one line."""
    return ", ".join(f"{n} {v:g}" if isinstance(v, float) else f"{n} {v}" for n, v in point.items())


def _write(found: Sweep, subject: Subject, grid: Mapping[str, Sequence[Any]], folder: Path) -> None:
    from neuro import plots
    from neuro.deployment import versions

    if any(r["fits"] and r["energy_j"] for r in found.rows):
        title = f"{subject.data.name}: {len(found.rows)} designs, {len(found.pareto)} of them Pareto-optimal"
        varied = [n for n, values in grid.items() if len(values) > 1]
        plots.save(plots.pareto(found.rows, varied, title), folder / PICTURE)
    table = {"data": subject.data.name, "digest": subject.digest, "grid": {n: list(v) for n, v in grid.items()}}
    write_json(folder / RESULT, {**table, "versions": versions(), "rows": list(found.rows)})
