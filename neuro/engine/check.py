"""Everything that can be wrong with a `Circuit`, all at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from neuro.engine.circuit import (
    ARITHMETICS,
    LIF,
    MAX_DELAY_STEPS,
    METHODS,
    Circuit,
    Conductance,
    Delta,
    Drive,
    FixedInDegree,
    FixedOutDegree,
    FixedProbability,
    Given,
    Loihi2LIF,
    Normal,
    OneToOne,
    Pairs,
    Poisson,
    Population,
    Projection,
    Uniform,
    unknown,
)

MAX_NEURONS = 1 << 31
REGISTERS = {"du": (-1, 4095), "dv": (0, 4096), "vth": (0, (1 << 17) - 1), "bias": (-(1 << 23), 1 << 23)}


def problems(circuit: Circuit) -> list[str]:
    """One sentence for each."""
    bad: list[str] = []
    if not (isinstance(circuit.dt, (int, float)) and 0 < circuit.dt < math.inf):
        return [f"dt must be positive and finite, got {circuit.dt!r} s"]
    if circuit.method not in METHODS:
        bad.append(f"method must be one of {METHODS}, got {circuit.method!r}")
    if circuit.arithmetic not in ARITHMETICS:
        bad.append(f"arithmetic must be one of {ARITHMETICS}, got {circuit.arithmetic!r}")
    if not 0 <= circuit.seed < 1 << 64:
        bad.append(f"seed must lie in 0..2^64-1, got {circuit.seed}")
    if not circuit.populations:
        bad.append("there are no populations")
    for name, population in circuit.populations.items():
        bad += [f"population '{name}': {p}" for p in _of_population(circuit, population)]
    if bad:
        return bad
    for k, projection in enumerate(circuit.projections):
        here = f"projection {k} ('{projection.source}' to '{projection.target}')"
        bad += [f"{here}: {p}" for p in _of_projection(circuit, projection)]
    for k, drive in enumerate(circuit.drives):
        bad += [f"drive {k} (of '{drive.target}'): {p}" for p in _of_drive(circuit, drive)]
    return bad


def _of_population(circuit: Circuit, population: Population) -> Iterator[str]:
    size, model = population.size, population.model
    if not 0 < size < MAX_NEURONS:
        yield f"size must be 1 to 2^31 - 1, got {size}"
        return
    if isinstance(model, LIF):
        yield from _of_lif(circuit, size, model)
        if circuit.arithmetic != "float32":
            yield f"a LIF computes in float32, not in '{circuit.arithmetic}': use Loihi2LIF"
    elif isinstance(model, Loihi2LIF):
        if circuit.arithmetic != "loihi2":
            yield "Loihi2LIF needs arithmetic='loihi2'"
        for name, (low, high) in REGISTERS.items():
            yield from _integers(name, getattr(model, name), size, low, high)
        if not all(isinstance(r, Delta) for r in model.receptors.values()) or len(model.receptors) != 1:
            yield "Loihi2LIF has one receptor, Delta(): its current u is part of the neuron"
    elif isinstance(model, Poisson):
        if not 0 <= model.rate * circuit.dt <= 1:
            yield f"rate dt is a probability, got {model.rate} Hz x {circuit.dt} s"
    elif isinstance(model, Given):
        steps, neurons = np.asarray(model.steps), np.asarray(model.neurons)
        if steps.ndim != 1 or steps.shape != neurons.shape or {steps.dtype.kind, neurons.dtype.kind} - set("iu"):
            yield "given spikes are two integer arrays of one length, steps and neurons"
        elif steps.size and ((np.diff(steps.astype(np.int64)) < 0).any() or steps[0] < 0):
            yield "given spikes must be in the order of their steps, from 0"
        elif steps.size and not (neurons.min() >= 0 and neurons.max() < size):
            yield f"given spikes are of neurons 0..{size - 1}, got {neurons.min()}..{neurons.max()}"
        elif np.unique(np.stack([steps, neurons]), axis=1).shape[1] != steps.size:
            yield "given spikes: one is listed twice"
    else:
        yield f"model is a {type(model).__name__}, not LIF, Loihi2LIF, Poisson or Given"


def _of_lif(circuit: Circuit, size: int, model: LIF) -> Iterator[str]:
    if not (math.isfinite(model.tau_mem) and model.tau_mem > 0):
        yield f"tau_mem must be positive and finite, got {model.tau_mem!r} s"
    if not model.v_reset <= model.v_threshold:
        yield f"v_reset {model.v_reset} V lies above v_threshold {model.v_threshold} V"
    if not 0 <= model.refractory < math.inf:
        yield f"refractory must be 0 s or more, got {model.refractory!r}"
    yield from _numbers("i_ext", model.i_ext, size)
    if model.v_start is not None:
        yield from _value("v_start", model.v_start, size)
    if circuit.method == "euler" and model.tau_mem <= circuit.dt:
        yield f"tau_mem {model.tau_mem} s is not longer than dt: Euler's step overshoots"
    for name, receptor in model.receptors.items():
        if isinstance(receptor, Delta):
            continue
        if not receptor.tau > 0:
            yield f"receptor '{name}': tau must be positive, got {receptor.tau!r} s"
        elif circuit.method == "euler" and receptor.tau <= circuit.dt:
            yield f"receptor '{name}': tau {receptor.tau} s is not longer than dt: Euler's step overshoots"
        if isinstance(receptor, Conductance) and circuit.method != "euler":
            yield f"receptor '{name}' is a conductance, which has no exact step: use method='euler'"


def _of_projection(circuit: Circuit, projection: Projection) -> Iterator[str]:
    for end in (projection.source, projection.target):
        if end not in circuit.populations:
            yield unknown(end, circuit.populations)
            return
    receptors = circuit.receptors(projection.target)
    if projection.receptor not in receptors:
        yield f"'{projection.target}' has no receptor '{projection.receptor}'; it has {', '.join(receptors) or 'none'}"
    sizes = circuit.populations[projection.source].size, circuit.populations[projection.target].size
    rule, count = projection.rule, -1
    if isinstance(rule, FixedProbability):
        if not 0 <= rule.probability <= 1:
            yield f"probability must lie in 0..1, got {rule.probability}"
    elif isinstance(rule, (FixedInDegree, FixedOutDegree)):
        if not 0 <= rule.count < 1 << 31:
            yield f"count must be 0 or more, got {rule.count}"
    elif isinstance(rule, OneToOne):
        if sizes[0] != sizes[1]:
            yield f"one to one joins populations of one size, got {sizes[0]} and {sizes[1]}"
    elif isinstance(rule, Pairs):
        source, target = np.asarray(rule.sources), np.asarray(rule.targets)
        count = source.size
        if source.ndim != 1 or source.shape != target.shape or {source.dtype.kind, target.dtype.kind} - set("iu"):
            yield "pairs are two integer arrays of one length"
            return
        for what, index, size in (("sources", source, sizes[0]), ("targets", target, sizes[1])):
            if count and not (index.min() >= 0 and index.max() < size):
                yield f"{what} must lie in 0..{size - 1}, got {index.min()}..{index.max()}"
    else:
        yield f"rule is a {type(rule).__name__}, not a connection rule"
    if getattr(rule, "self_connections", True) is False and (sizes[0] != sizes[1] or sizes[0] < 2):
        yield "self_connections=False is for a population of two or more joined to one of its size"
    yield from _value("weight", projection.weight, count)
    yield from _value("delay", projection.delay, count)
    low, high = _range(projection.delay)
    if not (round(low / circuit.dt) >= 0 and high / circuit.dt < MAX_DELAY_STEPS + 0.5):
        yield f"delays must be 0 to {MAX_DELAY_STEPS} steps of {circuit.dt} s, got {low} to {high} s"
    if circuit.arithmetic == "loihi2":
        weights = np.asarray(projection.weight) if not isinstance(projection.weight, (Uniform, Normal)) else None
        if weights is not None and not (np.rint(weights) == weights).all():
            yield "weights are integers on Loihi 2"
        low, high = _range(projection.weight)
        if not -(1 << 15) <= low <= high < 1 << 15:
            yield f"weights must lie in -2^15..2^15-1, got {low}..{high}; a normal distribution needs its bounds"


def _of_drive(circuit: Circuit, drive: Drive) -> Iterator[str]:
    if drive.target not in circuit.populations:
        yield unknown(drive.target, circuit.populations)
    elif drive.receptor not in circuit.receptors(drive.target):
        receptors = circuit.receptors(drive.target)
        yield f"'{drive.target}' has no receptor '{drive.receptor}'; it has {', '.join(receptors) or 'none'}"
    if not 0 <= drive.rate * circuit.dt <= 1:
        yield f"rate dt is a probability, got {drive.rate} Hz x {circuit.dt} s; more sources take a higher rate in all"
    if not 0 < drive.sources < 1 << 31:
        yield f"sources must be 1 or more, got {drive.sources}"
    if not math.isfinite(drive.weight):
        yield f"weight must be finite, got {drive.weight}"
    if circuit.arithmetic == "loihi2" and drive.weight != round(drive.weight):
        yield "weights are integers on Loihi 2"


def _range(value: Any) -> tuple[float, float]:
    """Least and largest value that can come out."""
    if isinstance(value, Uniform):
        return value.low, value.high
    if isinstance(value, Normal):
        return value.low, value.high
    array = np.asarray(value)
    return (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)


def _value(name: str, value: Any, count: int) -> Iterator[str]:
    if isinstance(value, Uniform):
        if not -math.inf < value.low <= value.high < math.inf:
            yield f"{name}: Uniform needs low <= high, got {value}"
    elif isinstance(value, Normal):
        if not (math.isfinite(value.mean) and 0 <= value.sd < math.inf and value.low <= value.high):
            yield f"{name}: Normal needs sd >= 0 and low <= high, got {value}"
    else:
        yield from _numbers(name, value, count)


def _numbers(name: str, value: Any, count: int) -> Iterator[str]:
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        yield f"{name} must be numbers, got {array.dtype}"
    elif array.ndim and array.shape != (count,):
        wanted = "a number" if count < 0 else f"a number or {count} of them"
        yield f"{name} must be {wanted}, got shape {array.shape}"
    elif not np.isfinite(array).all():
        yield f"{name} must be finite"


def _integers(name: str, value: Any, count: int, low: int, high: int) -> Iterator[str]:
    array = np.asarray(value)
    if array.dtype.kind not in "iu" or (array.ndim and array.shape != (count,)):
        yield f"{name} must be an integer, or one per neuron, got {array.dtype}{list(array.shape)}"
    elif not low <= array.min() <= array.max() <= high:
        yield f"{name} must lie in {low}..{high}, got {array.min()}..{array.max()}"
