"""`estimate`: counters times constants. Joules and seconds as ranges, by cause, by boundary, with every source.

Event energy is not the energy of an inference: published figures hold mostly power that is there when nothing
happens, times time. Four boundaries are therefore kept apart (E the sum of count * energy per operation)::

    events               E
    above_loaded_idle    E + power.host_busy   * time of host input and output
    above_boot_idle        + power.loaded_idle * time      a network is loaded
    total                  + power.boot_idle   * time      the chip is on

A step takes as long as its slowest core (operations times time per operation), the flight of its last message
(hops per packet times time per hop) and the barrier. Knows no chip: a constant that a chip's file does not have
is not modelled, and listed as such.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from neuro.errors import ChipError
from neuro.extend import did_you_mean
from neuro.hardware.chip import Chip, Quantity
from neuro.hardware.program import Program
from neuro.hardware.target import load_target
from neuro.hardware.trace import Trace
from neuro.ir import Array

REGIMES = ("free-running", "real-time", "host-driven")
BOUNDARIES = ("events", "above_loaded_idle", "above_boot_idle", "total")
HOST_BOUND = "host-bound, not predicted"
# constant -> counter; the same names under [energy] and [time] of a chip
COUNTED = {
    "synop": "synops",
    "update": "updates",
    "spike": "spikes",
    "packet": "packets",
    "hop": "hops",
    "injection": "injected",
}
ON_CORE = ("synop", "update", "spike", "packet")  # what keeps a core busy; hops are flight


@dataclass(frozen=True)
class Range:
    """A number and how far it may be off: low <= nominal <= high."""

    low: float
    nominal: float
    high: float

    def to_json(self) -> dict[str, float]:
        return {"low": self.low, "nominal": self.nominal, "high": self.high}


@dataclass(frozen=True)
class Source:
    """One constant that an estimate used."""

    quantity: str
    value: float
    low: float
    high: float
    unit: str
    grade: str
    source: str


@dataclass(frozen=True, eq=False)
class Estimate:
    """What a simulated run costs, per sample (means over the batch).

    energy_j: event energy, the boundary "events". latency_s: of one sample, None where ``reason`` says why.
    boundaries: the four of the module's docstring, None where not predicted. causes, populations: event energy
    split by operation, and by the population whose cores spent it (where the program was given).
    time_causes: latency split into "slowest core", "fabric", "barrier" (and "waiting" for a real-time tick).
    joules: cause -> float64[batch, 3], seconds: cause -> float64[batch, 3]; per sample, columns low, nominal, high.
    rests_on: inferred or assumed constants among ``sources``. not_modelled: what is missing from the sums.
    """

    chip: str
    regime: str
    reason: str
    samples: int
    steps: int
    energy_j: Range
    latency_s: Range | None
    boundaries: Mapping[str, Range | None]
    causes: Mapping[str, Range]
    populations: Mapping[str, Range]
    time_causes: Mapping[str, Range]
    joules: Mapping[str, Array]
    seconds: Mapping[str, Array]
    sources: tuple[Source, ...]
    rests_on: tuple[str, ...]
    not_modelled: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary without the per-sample arrays."""

        def told(r: Range | None) -> dict[str, Any]:
            return r.to_json() if r is not None else {"low": None, "nominal": None, "high": None, "reason": self.reason}

        return {
            "chip": self.chip,
            "regime": self.regime,
            "samples": self.samples,
            "steps": self.steps,
            "energy_j": {"what": "event energy", **told(self.energy_j)},
            "latency_s": told(self.latency_s),
            "boundaries": {name: told(r) for name, r in self.boundaries.items()},
            "causes": {name: r.to_json() for name, r in self.causes.items()},
            "populations": {name: r.to_json() for name, r in self.populations.items()},
            "time_causes": {name: r.to_json() for name, r in self.time_causes.items()},
            "sources": [vars(s) for s in self.sources],
            "rests_on": list(self.rests_on),
            "not_modelled": list(self.not_modelled),
        }


def estimate(
    trace: Trace, program: Program | None = None, *, regime: str = "free-running", chip: Chip | None = None
) -> Estimate:
    """Joules and seconds of a simulated batch.

    Args:
        program: the program that ran, to split the energy by population. chip: other constants than those
            of the chip that ran it.
        regime: "free-running": steps follow each other as fast as they can. "real-time": a step waits for
            the tick of trace.dt. "host-driven": a host starts each step; its time is not predicted.

    Raises:
        ChipError: no such regime. UnknownChip: the trace names a chip that is not registered.
    """
    if regime not in REGIMES:
        raise ChipError(f"unknown regime '{regime}'. {did_you_mean(regime, REGIMES)}")
    chip = chip or load_target(trace.chip).chip
    used = _Used(chip)
    joules = _joules(trace, used)
    populations = _by_population(trace, program, used) if program is not None else {}
    seconds = {} if regime == "host-driven" else _seconds(trace, used, regime)
    return _assemble(trace.chip, regime, trace.steps, joules, populations, seconds, used)


def merge(estimates: Sequence[Estimate]) -> Estimate:
    """One estimate over all samples of several batches of one program.

    Raises:
        ChipError: none given, or of different chips, regimes or lengths.
    """
    kinds = {(e.chip, e.regime, e.steps) for e in estimates}
    if len(kinds) != 1:
        raise ChipError(f"estimates of one chip, regime and length can be merged, got {sorted(kinds)}")
    first = estimates[0]
    shares = np.array([e.samples for e in estimates], dtype=np.float64)

    def mean(ranges: Sequence[Range | None]) -> Range | None:
        rows = [_row(r) for r in ranges if r is not None]
        return (
            Range(*(float(x) for x in np.average(rows, axis=0, weights=shares))) if len(rows) == len(ranges) else None
        )

    def table(name: str) -> Mapping[str, Any]:
        tables = [getattr(e, name) for e in estimates]
        return types.MappingProxyType({key: mean([t[key] for t in tables]) for key in tables[0]})

    def stacked(name: str) -> Mapping[str, Array]:
        tables = [getattr(e, name) for e in estimates]
        return types.MappingProxyType({key: np.concatenate([t[key] for t in tables]) for key in tables[0]})

    energy = mean([e.energy_j for e in estimates])
    assert energy is not None
    return replace(
        first,
        samples=int(shares.sum()),
        energy_j=energy,
        latency_s=mean([e.latency_s for e in estimates]),
        boundaries=table("boundaries"),
        causes=table("causes"),
        populations=table("populations"),
        time_causes=table("time_causes"),
        joules=stacked("joules"),
        seconds=stacked("seconds"),
    )


def _row(r: Range) -> tuple[float, float, float]:
    return r.low, r.nominal, r.high


class _Used:
    """Constants of a chip, remembering what was used and what was missing."""

    def __init__(self, chip: Chip) -> None:
        self.chip = chip
        self.sources: dict[str, Source] = {}
        self.missing: dict[str, None] = {}
        self.quantities = chip.quantities()

    def take(self, name: str, missing: str) -> Array | None:
        """float64[3] low, nominal, high; None and a note where the chip's file lacks it."""
        q: Quantity | None = self.quantities.get(name)
        if q is None:
            self.missing[f"{name}: {missing}"] = None
            return None
        self.sources[name] = Source(name, q.value, q.low, q.high, q.unit, q.grade, q.source)
        return np.array([q.low, q.value, q.high])


def _joules(trace: Trace, used: _Used) -> dict[str, Array]:
    found = {}
    for name, counter in COUNTED.items():
        counts = getattr(trace.counters, counter)
        price = used.take(f"energy.{name}", f"not in the chip's file, {counter} cost nothing here")
        if price is not None:
            found[name] = counts.sum(axis=tuple(range(1, counts.ndim))).astype(np.float64)[:, None] * price
    return found


def _by_population(trace: Trace, program: Program, used: _Used) -> dict[str, Array]:
    """Mean event energy of the cores of each population, [1, 3]; input events are in none."""
    found = {}
    for name, cores in program.placement.core_of.items():
        own = np.unique(cores)
        total = np.zeros(3)
        for constant, counter in COUNTED.items():
            price = used.take(f"energy.{constant}", f"not in the chip's file, {counter} cost nothing here")
            counts = getattr(trace.counters, counter)
            if price is not None and counts.ndim == 3:
                total = total + counts[:, :, own].sum(axis=(1, 2)).mean() * price
        found[name] = total[None]
    return found


def _seconds(trace: Trace, used: _Used, regime: str) -> dict[str, Array]:
    """Per cause: float64[batch, 3]."""
    c = trace.counters
    prices = {n: used.take(f"time.{n}", f"not in the chip's file, {COUNTED[n]} take no time here") for n in ON_CORE}
    used.take("time.injection", "not in the chip's file, input events take no time here")
    flight = used.take("time.hop", "messages arrive at once")
    barrier = used.take("time.barrier", "steps follow each other without a barrier")
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.nan_to_num(c.hops / c.packets, posinf=0.0).max(
            axis=2, initial=0.0
        )  # of the farthest-sending core
    columns: dict[str, list[Array]] = {"slowest core": [], "fabric": [], "barrier": [], "waiting": []}
    for k in range(3):
        busy = np.zeros(c.synops.shape)
        for name, price in prices.items():
            if price is not None:
                busy += getattr(c, COUNTED[name]) * price[k]
        core = busy.max(axis=2, initial=0.0)
        fabric = distance * (flight[k] if flight is not None else 0.0)
        wait = np.full(core.shape, barrier[k] if barrier is not None else 0.0)
        columns["slowest core"].append(core.sum(axis=1))
        columns["fabric"].append(fabric.sum(axis=1))
        columns["barrier"].append(wait.sum(axis=1))
        if regime == "real-time":
            columns["waiting"].append(np.maximum(trace.dt - core - fabric - wait, 0.0).sum(axis=1))
    return {name: np.stack(values, axis=1) for name, values in columns.items() if values}


def _assemble(
    chip: str,
    regime: str,
    steps: int,
    joules: dict[str, Array],
    populations: dict[str, Array],
    seconds: dict[str, Array],
    used: _Used,
) -> Estimate:
    events = sum(joules.values(), np.zeros(3))
    time = sum(seconds.values(), np.zeros(3)) if seconds else None
    events = np.atleast_2d(events)
    if time is not None:
        used.missing["host input and output: no time and no energy"] = None
    loaded = used.take("power.loaded_idle", "the plateau of a loaded network is unknown")
    boot = used.take("power.boot_idle", "the idle power of the chip is unknown")
    boundaries: dict[str, Range | None] = dict.fromkeys(BOUNDARIES)
    boundaries["events"] = boundaries["above_loaded_idle"] = _mean(events)
    if time is not None and loaded is not None:
        boundaries["above_boot_idle"] = _mean(events + loaded * time)
        if boot is not None:
            boundaries["total"] = _mean(events + loaded * time + boot * time)
    sources = tuple(used.sources.values())
    return Estimate(
        chip=chip,
        regime=regime,
        reason=HOST_BOUND if time is None else "not in the chip's file",
        samples=len(events),
        steps=steps,
        energy_j=_mean(events),
        latency_s=None if time is None else _mean(np.atleast_2d(time)),
        boundaries=types.MappingProxyType(boundaries),
        causes=types.MappingProxyType({n: _mean(a) for n, a in joules.items()}),
        populations=types.MappingProxyType({n: _mean(a) for n, a in populations.items()}),
        time_causes=types.MappingProxyType({n: _mean(a) for n, a in seconds.items()}),
        joules=types.MappingProxyType(joules),
        seconds=types.MappingProxyType(seconds),
        sources=sources,
        rests_on=tuple(s.quantity for s in sources if s.grade in ("inferred", "assumed")),
        not_modelled=tuple(used.missing),
    )


def _mean(per_sample: Array) -> Range:
    """Over the samples. Waiting is longest where the rest is shortest, hence the sorting."""
    low, nominal, high = (float(x) for x in per_sample.mean(axis=0))
    return Range(min(low, high), nominal, max(low, high))
