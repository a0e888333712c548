"""`estimate`: counters times constants. Joules and seconds as ranges, by cause, by boundary, with every source.

Event energy is not the energy of an inference: published figures hold mostly power that is there when nothing
happens, times time. Four boundaries are therefore kept apart (E the sum of count * energy per operation)::

    events               E
    above_loaded_idle    E + power.host_busy   * time of host input and output
    above_boot_idle        + power.loaded_idle * time      a network is loaded
    total                  + power.boot_idle   * time      the chip is on

Static power is multiplied by the chips or boards that are on, ``power.core_active`` by the cores in use. Where only the
sum of both idle powers is known (``power.static``), the third boundary is not predicted and the fourth is.
`neuro.hardware.latency` says what time is. Knows no chip: a constant that a chip's file does not have is not modelled,
and listed as such. `neuro.hardware.predict.predict` does the same from plain numbers.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from neuro.errors import ChipError
from neuro.extend import did_you_mean
from neuro.hardware.chip import REGIMES, Chip
from neuro.hardware.costs import COUNTED, Constants, Machine, Prices, Source, counts_of, joules, machine_of, static
from neuro.hardware.latency import HOST_BOUND, Seconds, Steps, seconds
from neuro.hardware.program import Program
from neuro.hardware.target import load_target
from neuro.hardware.trace import Trace
from neuro.ir import Array

BOUNDARIES = ("events", "above_loaded_idle", "above_boot_idle", "total")
NOTHING_COUNTED = "no energy per operation in the chip's file for anything that was counted"
WITHIN_POWER = "the energy of operations is part of a power in the chip's file, see what is not modelled"


@dataclass(frozen=True)
class Range:
    """A number and how far it may be off: low <= nominal <= high."""

    low: float
    nominal: float
    high: float

    def to_json(self) -> dict[str, float]:
        return {"low": self.low, "nominal": self.nominal, "high": self.high}


@dataclass(frozen=True, eq=False)
class Estimate:
    """What a simulated run costs, per sample (means over the batch).

    constants: name of the set used. regime: how the chip runs. time: "predicted", or "given" by the caller.
    energy_j: event energy, the boundary "events". latency_s: of one sample. boundaries: the four of the module's
    docstring. Each of these is None where it is not predicted; ``reasons`` (by "latency" and boundary) says why.
    causes, populations: event energy split by operation, and by the population whose cores spent it (where the
    program was given). time_causes: latency split into "slowest core", "fabric", "barrier", "injection", "host",
    "waiting" (for a real-time tick), or "layers" and "work". stages: seconds of each layer, on chips that go by layers.
    late: share of steps that take longer than the tick. reason: of latency.
    joules: cause -> float64[batch, 3], seconds: cause -> float64[batch, 3]; per sample, columns low, nominal, high.
    rests_on: inferred or assumed constants among ``sources``. not_modelled: what is missing from the sums.
    """

    chip: str
    constants: str
    regime: str
    time: str
    reason: str
    samples: int
    steps: int
    energy_j: Range | None
    latency_s: Range | None
    boundaries: Mapping[str, Range | None]
    reasons: Mapping[str, str]
    causes: Mapping[str, Range]
    populations: Mapping[str, Range]
    time_causes: Mapping[str, Range]
    stages: Mapping[str, Range]
    late: float | None
    joules: Mapping[str, Array]
    seconds: Mapping[str, Array]
    sources: tuple[Source, ...]
    rests_on: tuple[str, ...]
    not_modelled: tuple[str, ...]

    def _repr_html_(self) -> str:
        from neuro.html_tables import estimate

        return estimate(self)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary without the per-sample arrays."""

        def told(r: Range | None, name: str) -> dict[str, Any]:
            reason = self.reasons.get(name, "")
            return r.to_json() if r is not None else {"low": None, "nominal": None, "high": None, "reason": reason}

        return {
            "chip": self.chip,
            "constants": self.constants,
            "regime": self.regime,
            "samples": self.samples,
            "steps": self.steps,
            "energy_j": {"what": "event energy", **told(self.energy_j, "events")},
            "latency_s": {"what": f"time of a sample, {self.time}, {self.regime}", **told(self.latency_s, "latency")},
            "boundaries": {name: told(r, name) for name, r in self.boundaries.items()},
            "causes": {name: r.to_json() for name, r in self.causes.items()},
            "populations": {name: r.to_json() for name, r in self.populations.items()},
            "time_causes": {name: r.to_json() for name, r in self.time_causes.items()},
            "stages": {name: r.to_json() for name, r in self.stages.items()},
            "late": self.late,
            "sources": [vars(s) for s in self.sources],
            "rests_on": list(self.rests_on),
            "not_modelled": list(self.not_modelled),
        }


def estimate(
    trace: Trace,
    program: Program | None = None,
    *,
    regime: str | None = None,
    chip: Chip | None = None,
    constants: Constants = None,
    time_s: float | None = None,
    chips: int | None = None,
    boards: int | None = None,
    host_io_s: float | None = None,
) -> Estimate:
    """Joules and seconds of a simulated batch.

    Args:
        program: the program that ran, to split the energy by population, and synaptic operations by kind.
        regime: "free-running": steps follow each other as fast as they can. "real-time": a step waits for the tick
            of trace.dt. "host-driven": a host starts each step. Default: what the chip's file says.
        chip: another chip's constants than those of the chip that ran it.
        constants: name of a set of the chip ("davies2018"), or values that replace single constants.
        time_s: measured seconds of a sample, instead of predicted ones.
        chips, boards: what is switched on; default: as many as the program needs. host_io_s: see the boundaries.

    Raises:
        ChipError: no such regime or constants, or a figure that is refused by name.
        UnknownChip: the trace names a chip that is not registered.
    """
    chip = chip or load_target(trace.chip).chip
    regime = checked_regime(regime, chip)
    prices = Prices(chip, constants)
    c = trace.counters
    counts = counts_of(trace, program, prices)
    machine = machine_of(program, prices, cores=c.synops.shape[2], chips=chips, boards=boards, host_io_s=host_io_s)
    per_step = {n: getattr(c, n) for n in COUNTED.values() if getattr(getattr(c, n, None), "ndim", 0) == 3}
    steps = Steps(per_step, c.injected.sum(axis=1).astype(np.float64), c.synops.shape[2])
    took = _measured(time_s) if time_s is not None else seconds(steps, trace.stages, machine, prices, regime, trace.dt)
    energy = event_joules(counts, took, prices)
    populations = _by_population(trace, program, prices) if program is not None else {}
    return assemble(trace.steps, energy, populations, took, machine, prices, regime, time_s is not None)


def checked_regime(regime: str | None, chip: Chip) -> str:
    """A regime by name, the chip's own by default. Raises ChipError."""
    if regime is not None and regime not in REGIMES:
        raise ChipError(f"unknown regime '{regime}'. {did_you_mean(regime, REGIMES)}")
    return regime or chip.regime


def event_joules(counts: Mapping[str, Array], took: Seconds, prices: Prices) -> dict[str, Array]:
    """Event energy by cause, of what was counted and of processors at work where a chip goes by layers."""
    found = joules(counts, prices)
    if took.work is not None and prices.has("energy.work"):
        price = prices.take("energy.work", "")
        assert price is not None
        found["work"] = np.atleast_2d(took.work[:, None] * price)
    return found


def _measured(time_s: float) -> Seconds:
    return Seconds({"measured": np.full((1, 3), float(time_s))})


def merge(estimates: Sequence[Estimate]) -> Estimate:
    """One estimate over all samples of several batches of one program.

    Raises:
        ChipError: none given, or of different chips, constants, regimes or lengths.
    """
    kinds = {(e.chip, e.constants, e.regime, e.steps) for e in estimates}
    if len(kinds) != 1:
        raise ChipError(f"estimates of one chip, constants, regime and length can be merged, got {sorted(kinds)}")
    shares = np.array([e.samples for e in estimates], dtype=np.float64)

    def mean(ranges: Sequence[Range | None]) -> Range | None:
        rows = [(r.low, r.nominal, r.high) for r in ranges if r is not None]
        if len(rows) < len(ranges):
            return None
        return Range(*(float(x) for x in np.average(rows, axis=0, weights=shares)))

    def table(name: str) -> Mapping[str, Any]:
        tables = [getattr(e, name) for e in estimates]
        keys = dict.fromkeys(key for t in tables for key in t)
        zero = Range(0.0, 0.0, 0.0)  # a batch in which nothing of that kind happened
        return types.MappingProxyType({key: mean([t.get(key, zero) for t in tables]) for key in keys})

    def stacked(name: str) -> Mapping[str, Array]:
        tables = [getattr(e, name) for e in estimates]
        keys = dict.fromkeys(key for t in tables for key in t)
        blank = [np.zeros((e.samples, 3)) for e in estimates]
        return types.MappingProxyType(
            {k: np.concatenate([t.get(k, b) for t, b in zip(tables, blank, strict=True)]) for k in keys}
        )

    late = [e.late for e in estimates if e.late is not None]
    sources = tuple({s.quantity: s for e in estimates for s in e.sources}.values())
    return replace(
        estimates[0],
        samples=int(shares.sum()),
        energy_j=mean([e.energy_j for e in estimates]),
        latency_s=mean([e.latency_s for e in estimates]),
        boundaries=table("boundaries"),
        causes=table("causes"),
        populations=table("populations"),
        time_causes=table("time_causes"),
        stages=table("stages"),
        late=float(np.average(late, weights=shares)) if len(late) == len(estimates) else None,
        joules=stacked("joules"),
        seconds=stacked("seconds"),
        sources=sources,
        rests_on=_weak(sources),
        not_modelled=tuple(dict.fromkeys(line for e in estimates for line in e.not_modelled)),
    )


def _by_population(trace: Trace, program: Program, prices: Prices) -> dict[str, Array]:
    """Mean event energy of the cores of each population, [1, 3]; input events are in none."""
    found = {}
    for name, cores in program.placement.core_of.items():
        split = joules(counts_of(trace, program, prices, np.unique(cores)), prices)
        found[name] = np.atleast_2d(sum(split.values(), np.zeros(3))).mean(axis=0)[None]
    return found


def assemble(
    steps: int,
    energy: Mapping[str, Array],
    populations: Mapping[str, Array],
    took: Seconds,
    machine: Machine,
    prices: Prices,
    regime: str,
    given: bool,
) -> Estimate:
    """Boundaries, ranges and sources of what was summed."""
    events = np.atleast_2d(sum(energy.values(), np.zeros(3))) if energy else None
    known = np.zeros((1, 3)) if events is None and prices.within_power else events
    time = np.atleast_2d(sum(took.causes.values(), np.zeros(3))) if took.causes else None
    power = static(prices, machine)
    busy = _host_busy(prices, machine)
    boundaries: dict[str, Range | None] = dict.fromkeys(BOUNDARIES)
    unpriced = WITHIN_POWER if prices.within_power else NOTHING_COUNTED
    reasons = dict.fromkeys(BOUNDARIES, unpriced if events is None else "")
    if events is not None:
        boundaries["events"] = _mean(events)
        boundaries["above_loaded_idle"] = _mean(events + busy)
    if known is not None:
        for name, watts in (("above_boot_idle", power["loaded_idle"]), ("total", power["static"])):
            if watts is None:
                missing = "boot idle and plateau" if name == "above_boot_idle" and power["static"] is not None else name
                reasons[name] = (
                    "not predicted: boot idle and plateau are not told apart in the chip's file"
                    if missing != name
                    else "not in the chip's file"
                )
            elif time is None:
                reasons[name] = took.reason
            else:
                boundaries[name] = _mean(known + busy + watts * time)
                reasons[name] = ""
    if time is None:
        reasons["latency"] = took.reason
    sources = tuple(prices.sources.values())
    return Estimate(
        chip=prices.chip.name,
        constants=prices.name,
        regime=regime,
        time="given" if given else "predicted",
        reason=took.reason,
        samples=1 if events is None else len(events),
        steps=steps,
        energy_j=boundaries["events"],
        latency_s=None if time is None else _mean(time),
        boundaries=types.MappingProxyType(boundaries),
        reasons=types.MappingProxyType({k: v for k, v in reasons.items() if v}),
        causes=_means(energy),
        populations=_means(populations),
        time_causes=_means(took.causes),
        stages=_means(took.stages or {}),
        late=took.late,
        joules=types.MappingProxyType(dict(energy)),
        seconds=types.MappingProxyType(dict(took.causes)),
        sources=sources,
        rests_on=_weak(sources),
        not_modelled=tuple(prices.missing),
    )


def _host_busy(prices: Prices, machine: Machine) -> Array:
    """Joules of a host that reads and writes; nothing, and said so, where either factor is unknown."""
    if machine.host_io_s is None:
        prices.missing["host input and output: no energy, as its time (host_io_s) is not given"] = None
        return np.zeros(3)
    watts = prices.take("power.host_busy", "the power of a busy host is unknown")
    return np.zeros(3) if watts is None else watts * machine.host_io_s


def _weak(sources: Sequence[Source]) -> tuple[str, ...]:
    return tuple(s.quantity for s in sources if s.grade in ("inferred", "assumed"))


def _means(table: Mapping[str, Array]) -> Mapping[str, Range]:
    return types.MappingProxyType({name: _mean(a) for name, a in table.items()})


def _mean(per_sample: Array) -> Range:
    """Over the samples. Waiting is longest where the rest is shortest, hence the sorting."""
    low, nominal, high = (float(x) for x in np.atleast_2d(per_sample).mean(axis=0))
    return Range(min(low, nominal, high), nominal, max(low, nominal, high))


__all__ = ["BOUNDARIES", "HOST_BOUND", "REGIMES", "Estimate", "Range", "Source", "estimate", "merge"]
