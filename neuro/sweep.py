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
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuro.errors import RunError
from neuro.events import EventSet
from neuro.extend import require
from neuro.files import write_json
from neuro.ir import Network
from neuro.sweep_grid import Point, check_grid, label, read_grid, with_chips
from neuro.sweep_point import Row, Subject, measure

Progress = Callable[[str], None]

FORMAT = 1
ROWS, RESULT, PICTURE = "rows.jsonl", "sweep.json", "pareto.png"
DEFAULT_CHIP = "loihi2"
SYNC = "sync"

__all__ = ["Row", "Sweep", "pareto", "read_grid", "sweep"]


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

    grid = with_chips(grid, chip)
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


def _write(found: Sweep, subject: Subject, grid: Mapping[str, Sequence[Any]], folder: Path) -> None:
    from neuro import plots
    from neuro.deployment import versions

    if any(r["fits"] and r["energy_j"] for r in found.rows):
        title = f"{subject.data.name}: {len(found.rows)} designs, {len(found.pareto)} of them Pareto-optimal"
        varied = [n for n, values in grid.items() if len(values) > 1]
        plots.save(plots.pareto(found.rows, varied, title), folder / PICTURE)
    table = {"data": subject.data.name, "digest": subject.digest, "grid": {n: list(v) for n, v in grid.items()}}
    write_json(folder / RESULT, {**table, "versions": versions(), "rows": list(found.rows)})
