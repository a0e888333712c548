"""How long a sample takes. Knows no chip; three laws, chosen by the constants that a chip's file has.

By steps::

    t = sum over steps of (slowest core + fabric + barrier) + injected * time.injection + trips * time.host_round_trip

In real time each step waits for the tick, unless it is late. By layers, where the file has ``time.stage``::

    t = sum over layers of (stage * passes + work_KIND * input events * filters / units) * clock

Where a host starts each step, both host constants must be known; else nothing is predicted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuro.hardware.costs import COUNTED, ON_CORE, Machine, Prices
from neuro.hardware.trace import Stage
from neuro.ir import Array

HOST_BOUND = "host-bound, not predicted"


@dataclass(frozen=True, eq=False)
class Steps:
    """What each core counted in each step: counter -> float64[batch, steps, cores]; repeated ``times`` times.

    injected: float64[batch], in the whole sample.
    """

    counts: Mapping[str, Array]
    injected: Array
    cores: int
    times: int = 1


@dataclass(frozen=True, eq=False)
class Seconds:
    """causes: name -> float64[batch, 3], empty where not predicted for ``reason``. late: share of steps past the tick.

    stages: layer -> float64[batch, 3]. work: cycles of processors at work per sample, float64[batch], or None.
    """

    causes: Mapping[str, Array]
    reason: str = ""
    late: float | None = None
    stages: Mapping[str, Array] | None = None
    work: Array | None = None


def seconds(
    steps: Steps, stages: Mapping[str, Stage], machine: Machine, prices: Prices, regime: str, tick: float | None
) -> Seconds:
    """Time of each sample of a batch by cause."""
    by_layers = bool(stages) or prices.has("time.stage")
    layers = _by_layers(stages, prices) if by_layers else Seconds({})
    host = _host(steps, machine, prices, regime)
    if host is None:
        return Seconds({}, HOST_BOUND, work=layers.work)
    if by_layers:
        if not layers.causes:
            return Seconds({}, layers.reason, work=layers.work)
        return Seconds({**layers.causes, **host}, stages=layers.stages, work=layers.work)
    return _by_steps(steps, machine, prices, regime, tick, host)


def _host(steps: Steps, machine: Machine, prices: Prices, regime: str) -> dict[str, Array] | None:
    """What injecting and waiting for the host takes; None where a host drives and its time is unknown."""
    injection = (
        prices.take("time.injection", "not in the chip's file, input events take no time here")
        if steps.injected.any() or prices.has("time.injection")
        else None
    )
    found = {"injection": steps.injected[:, None] * injection} if injection is not None else {}
    if regime == "host-driven":
        trip = prices.take("time.host_round_trip", "the host's time per step is unknown")
        if trip is None:
            return None
        trips = machine.host_trips if machine.host_trips is not None else _length(steps)
        found["host"] = np.broadcast_to(trip * trips, (len(steps.injected), 3))
    return found


def _length(steps: Steps) -> int:
    return int(next(iter(steps.counts.values())).shape[1]) * steps.times


def _by_steps(
    steps: Steps, machine: Machine, prices: Prices, regime: str, tick: float | None, host: dict[str, Array]
) -> Seconds:
    costs = {}
    for name in ON_CORE:
        counts = steps.counts.get(COUNTED[name])
        if counts is not None and (counts.any() or prices.has(f"time.{name}")):
            costs[name] = prices.take(f"time.{name}", f"not in the chip's file, {COUNTED[name]} take no time here")
    hop = prices.take("time.hop", "messages arrive at once")
    barrier = prices.barrier(machine.cores or steps.cores)
    distance = _distance(steps)
    columns: dict[str, list[Array]] = {"slowest core": [], "fabric": [], "barrier": [], "waiting": []}
    late = None
    for k in range(3):
        busy = np.zeros(next(iter(steps.counts.values())).shape)
        for name, price in costs.items():
            if price is not None:
                busy = busy + steps.counts[COUNTED[name]] * price[k]
        core = busy.max(axis=2, initial=0.0)
        fabric = distance * (hop[k] if hop is not None else 0.0)
        wait = np.full(core.shape, barrier[k] if barrier is not None else 0.0)
        for name, part in (("slowest core", core), ("fabric", fabric), ("barrier", wait)):
            columns[name].append(part.sum(axis=1) * steps.times)
        if regime == "real-time" and tick is not None:
            spare = tick - core - fabric - wait
            columns["waiting"].append(np.maximum(spare, 0.0).sum(axis=1) * steps.times)
            late = float((spare < 0).mean()) if k == 1 else late
    if regime == "real-time" and tick is None:
        return Seconds({}, "the tick is not given (dt_s)")
    if not any(p is not None for p in costs.values()) and regime != "real-time":
        return Seconds({}, "no time per operation in the chip's file")
    causes = {name: np.stack(values, axis=1) for name, values in columns.items() if values}
    return Seconds({**causes, **host}, late=late)


def _distance(steps: Steps) -> Array:
    """[batch, steps]: links that a message of the farthest-sending core crosses on the mean."""
    hops, packets = (steps.counts.get(name) for name in ("hops", "packets"))
    if hops is None or packets is None:
        first = next(iter(steps.counts.values()))
        return np.zeros(first.shape[:2])
    with np.errstate(divide="ignore", invalid="ignore"):
        far: Array = np.nan_to_num(hops / packets, posinf=0.0).max(axis=2, initial=0.0)
    return far


def _by_layers(stages: Mapping[str, Stage], prices: Prices) -> Seconds:
    if not stages:
        return Seconds({}, "time goes by layers on this chip, and no layers were given (stages)")
    clock = prices.take("time.clock", "the clock is unknown")
    fixed = prices.take("time.stage", "the fixed time of a layer is unknown")
    per_layer: dict[str, Array] = {}
    overhead, work_time, cycles = np.zeros((1, 3)), np.zeros((1, 3)), np.zeros(1)
    for name, stage in stages.items():
        per = prices.take(f"time.work_{stage.kind}", f"no law for kernels '{stage.kind}'; '{name}' is not timed")
        if clock is None or fixed is None or per is None:
            return Seconds({}, f"no time law for layer '{name}' of kind '{stage.kind}'")
        work = np.atleast_1d(np.asarray(stage.events, dtype=np.float64)) * stage.filters
        share = work[:, None] * per / stage.units * clock
        per_layer[name] = share + fixed * clock * stage.passes
        overhead, work_time = overhead + fixed * clock * stage.passes, work_time + share
        cycles = cycles + work * per[1]
    overhead = np.broadcast_to(overhead, work_time.shape)
    return Seconds({"layers": overhead, "work": work_time}, stages=per_layer, work=cycles)


def spread(counts: Mapping[str, float], steps: int, cores: int, busiest: Mapping[str, float] | None) -> Steps:
    """Totals of a sample as `Steps`: one mean step, spread evenly over the cores unless the busiest core is given.

    busiest: counts of the slowest core, in the whole sample.
    """
    share: dict[str, Any] = dict(busiest) if busiest is not None else {n: v / max(1, cores) for n, v in counts.items()}
    merged: dict[str, float] = {}
    for name, value in share.items():
        plural = next((p for p in COUNTED.values() if name == p or name.startswith(f"{p}_")), name)
        merged[plural] = merged.get(plural, 0.0) + value
    arrays = {n: np.full((1, 1, 1), v / max(1, steps)) for n, v in merged.items() if n != "injected"}
    arrays.setdefault("updates", np.zeros((1, 1, 1)))
    return Steps(arrays, np.array([float(counts.get("injected", 0.0))]), cores, steps)
