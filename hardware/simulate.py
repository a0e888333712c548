"""`simulate`: run a compiled program on events. Knows no chip; the program's target does the work."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.errors import SimulationError
from neuro.events import Events, count_events
from neuro.extend import did_you_mean
from neuro.hardware.program import Program
from neuro.hardware.target import load_target
from neuro.hardware.trace import Counters, Trace

MAX_HIGH = 255  # what a byte holds
ROOM = 256 << 20  # bytes of input and record that are held at a time, unless ``batch`` says how many samples
DT_TOLERANCE = 1e-6  # relative; a step read from a file may have been rounded

Probe = tuple[str, str]
Inputs = Events | Sequence[Events] | NDArray[Any]


def simulate(
    program: Program,
    inputs: Inputs,
    *,
    probes: Iterable[Probe] = (),
    record_spikes: bool = True,
    batch: int | None = None,
) -> Trace:
    """Run a program, each sample from rest, for the steps of the samples plus ``program.depth``.

    inputs: one `Events`; a sequence of `Events` of equal steps; or a dense array of 0 and 1 (bool or integer),
    [steps, *shape], [steps, batch, *shape] or [steps, batch, n], shape being that of the program's input.
    probes: (population, variable) pairs to record, variables as the chip names them ("u", "v", "a" on Loihi 2).
    record_spikes: False saves memory; scores, decision, counters and probes are there all the same.
    batch: samples simulated at a time; by default as many as fit in 256 MB.

    Raises:
        SimulationError: inputs of a wrong shape, dtype, value or dt, or an unknown probe; all problems at once.
        UnknownChip: no target of the program's name is registered.
    """
    target = load_target(program.chip)
    asked = tuple(dict.fromkeys(tuple(p) if isinstance(p, (tuple, list)) else p for p in probes))
    bad = [*_probe_problems(program, asked), *_batch_problems(batch)]
    samples = _Dense(inputs) if isinstance(inputs, np.ndarray) else _Recordings(inputs)
    bad += samples.problems(program)
    if bad:
        raise SimulationError(f"'{program.input}' of this program cannot take that", bad)
    step = batch or max(1, ROOM // _bytes_per_sample(program, samples.steps, asked, record_spikes))
    count = samples.count(program)
    traces = [
        target.run(program, samples.dense(program, k, min(k + step, count)), asked, record_spikes)  # type: ignore[arg-type]
        for k in range(0, count, step)
    ]
    return traces[0] if len(traces) == 1 else _joined(traces)


def check_dense(program: Program, dense: NDArray[Any]) -> None:
    """Refuse an array that `simulate` would refuse, or one without an axis for samples.

    Raises:
        SimulationError: every problem.
    """
    bad = _Dense(dense).problems(program)
    if dense.ndim < 3:
        bad.append(f"dense must be [steps, batch, ...], got shape {dense.shape}")
    if bad:
        raise SimulationError(f"'{program.input}' of this program cannot take that", bad)


def _probe_problems(program: Program, probes: Iterable[object]) -> list[str]:
    names = [n for n, p in program.populations.items() if p.model != "input"]
    named = {*names, *(p.name for p in program.projections)}  # a projection that learns has a state too
    bad = []
    for probe in probes:
        if not (isinstance(probe, tuple) and len(probe) == 2 and all(isinstance(part, str) for part in probe)):
            bad.append(f"a probe is a pair (population, variable), got {probe!r}")
        elif probe[0] not in named:
            bad.append(f"no population '{probe[0]}' with a state to probe. {did_you_mean(probe[0], names)}")
    return bad


def _batch_problems(batch: object) -> list[str]:
    if batch is None or (isinstance(batch, (int, np.integer)) and not isinstance(batch, bool) and batch > 0):
        return []
    return [f"batch must be a positive number of samples or None, got {batch!r}"]


class _Dense:
    """Samples in one array."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array
        self.steps = array.shape[0] if array.ndim else 0

    def _batched(self, program: Program) -> tuple[int, int, int] | None:
        """[steps, batch, n] as the array means it, or None if it fits no reading."""
        shape = program.populations[program.input].shape
        n = math.prod(shape)
        given = self.array.shape
        if given[1:] == shape or given[1:] == (n,):
            return given[0], 1, n
        if len(given) > 2 and (given[2:] == shape or given[2:] == (n,)):
            return given[0], given[1], n
        return None

    def problems(self, program: Program) -> list[str]:
        shape = program.populations[program.input].shape
        bad = []
        if self._batched(program) is None:
            bad.append(
                f"a dense array must be [steps, {_listed(shape)}] or [steps, batch, {_listed(shape)}], "
                f"got shape {self.array.shape}"
            )
        if 0 in self.array.shape:
            bad.append(f"the array is empty (shape {self.array.shape}); give at least one step and one sample")
        if self.array.dtype.kind not in "bui":
            bad.append(f"a dense array must be bool or integer, got {self.array.dtype}; spikes are 0 or 1")
        elif self.array.size and self.array.dtype.kind != "b" and not _within(self.array, program):
            bad.append(
                f"spikes are 0 or 1, found values {self.array.min()}..{self.array.max()}; "
                "events counted per step become spikes by array > 0"
                if (program.low, program.high) == (0, 1)
                else f"values must lie in {program.low}..{program.high}, found {self.array.min()}..{self.array.max()}"
            )
        return bad

    def count(self, program: Program) -> int:
        batched = self._batched(program)
        assert batched is not None
        return batched[1]

    def dense(self, program: Program, begin: int, end: int) -> NDArray[np.uint8]:
        batched = self._batched(program)
        assert batched is not None
        narrow = program.low >= 0 and program.high <= MAX_HIGH
        chosen = self.array.reshape(batched)[:, begin:end]
        return np.ascontiguousarray(chosen, dtype=np.uint8 if narrow else np.int32)


class _Recordings:
    """Samples as events; a dense copy exists of a few at a time only."""

    def __init__(self, inputs: object) -> None:
        self.given = inputs
        self.events: list[Any] = [inputs] if isinstance(inputs, Events) else _as_list(inputs)
        self.steps = self.events[0].steps if self.events and isinstance(self.events[0], Events) else 0

    def problems(self, program: Program) -> list[str]:
        foreign = [e for e in self.events if not isinstance(e, Events)]
        if foreign or not self.events:
            what = type(foreign[0]).__name__ if foreign else f"{type(self.given).__name__} of nothing"
            return [f"inputs must be Events, a sequence of Events or a NumPy array, got {what}"]
        shape = program.populations[program.input].shape
        bad = []
        for name, want, values in (
            ("shape", shape, {e.shape for e in self.events}),
            ("steps", self.steps, {e.steps for e in self.events}),
        ):
            wrong = sorted(v for v in values if v != want)
            if wrong:
                bad.append(f"{name} of all samples must be {want}, found {', '.join(map(str, wrong[:3]))}")
        wrong_dt = sorted({e.dt for e in self.events if not math.isclose(e.dt, program.dt, rel_tol=DT_TOLERANCE)})
        if wrong_dt:
            found = ", ".join(f"{dt:g}" for dt in wrong_dt[:3])
            bad.append(f"dt of the samples is {found} s, the program's step is {program.dt:g} s; bin them afresh")
        return bad

    def count(self, program: Program) -> int:
        return len(self.events)

    def dense(self, program: Program, begin: int, end: int) -> NDArray[np.uint8]:
        n = program.populations[program.input].size
        dense = np.zeros((self.steps, end - begin, n), np.uint8)
        for column, events in enumerate(self.events[begin:end]):
            count_events(dense[:, column], events.t, events.x, program.high)
        return dense


def _as_list(inputs: object) -> list[Any]:
    return list(inputs) if isinstance(inputs, Sequence) and not isinstance(inputs, (str, bytes)) else [inputs]


def _listed(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))


def _within(array: NDArray[Any], program: Program) -> bool:
    return int(array.min()) >= program.low and int(array.max()) <= program.high


def _bytes_per_sample(program: Program, steps: int, probes: tuple[Any, ...], record_spikes: bool) -> int:
    sizes = {name: p.size for name, p in program.populations.items()}
    per_step = 2 * sizes[program.input]
    if record_spikes:
        per_step += sum(sizes.values())
    weights = {p.name: p.weight_q.size for p in program.projections}
    per_step += 4 * sum(sizes.get(name, weights.get(name, 0)) for name, _ in probes)
    per_step += 8 * len(Counters.NAMES) * program.placement.cores
    return (steps + program.depth) * per_step + 1


def _joined(traces: Sequence[Trace]) -> Trace:
    """Traces of consecutive samples as one."""
    first = traces[0]
    counters = {
        name: np.concatenate([getattr(t.counters, name) for t in traces]) for name in (*Counters.NAMES, "injected")
    }
    return Trace(
        chip=first.chip,
        dt=first.dt,
        spikes={n: np.concatenate([t.spikes[n] for t in traces], axis=1) for n in first.spikes},
        probes={p: np.concatenate([t.probes[p] for t in traces], axis=1) for p in first.probes},
        counters=Counters(**counters),
        scores=np.concatenate([t.scores for t in traces]),
        stages={
            name: replace(s, events=np.concatenate([np.atleast_1d(t.stages[name].events) for t in traces]))
            for name, s in first.stages.items()
        },
    )
