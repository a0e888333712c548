"""Synapses of a `Circuit`: counted, memory allotted once, filled in."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.engine import wiring
from neuro.engine.circuit import (
    Circuit,
    FixedInDegree,
    FixedOutDegree,
    FixedProbability,
    Normal,
    OneToOne,
    Pairs,
    Projection,
    Uniform,
)
from neuro.engine.lanes import LANES, repeats
from neuro.engine.wiring import Pools, Rows, Spec, Table

SMALL_PART = 1 << 16  # targets of a part, so that they are numbered in 16 bits: 256 kB of inbox
# Mean synapses per row and lag from which pulling beats pushing, measured at 1e4 and 1e5 neurons and 16 delays
WORTH_PULLING = 24.0
RULES = {
    FixedProbability: wiring.PROBABILITY,
    FixedInDegree: wiring.IN_DEGREE,
    FixedOutDegree: wiring.OUT_DEGREE,
    OneToOne: wiring.ONE_TO_ONE,
    Pairs: wiring.PAIRS,
}
Ints = NDArray[np.int64]


def lags_of(circuit: Circuit, projection: Projection) -> tuple[int, int]:
    """Least and greatest lag: delay in steps, plus the step in which a spike is taken."""
    delay = projection.delay
    if isinstance(delay, (Uniform, Normal)):
        low, high = delay.low, delay.high
    else:
        array = np.asarray(delay, float)
        low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    return math.floor(low / circuit.dt + 0.5) + 1, math.floor(high / circuit.dt + 0.5) + 1


def degree_of(circuit: Circuit, projection: Projection) -> float:
    """Mean number of synapses of a source."""
    source, target = (circuit.populations[n].size for n in (projection.source, projection.target))
    rule = projection.rule
    if isinstance(rule, FixedProbability):
        return rule.probability * target
    if isinstance(rule, FixedInDegree):
        return rule.count * target / source
    if isinstance(rule, FixedOutDegree):
        return float(rule.count)
    return 1.0 if isinstance(rule, OneToOne) else np.asarray(rule.sources).size / source


def signed(seed: int) -> int:
    """The same 64 bits as an int64."""
    return seed - (1 << 64) if seed >> 63 else seed


def constant(value: Any) -> bool:
    return not isinstance(value, (Uniform, Normal)) and np.ndim(value) == 0


def number(value: Any) -> float:
    return float(value) if constant(value) else 0.0


def pulls(circuit: Circuit, projection: Projection) -> bool:
    """One lag, or rows long enough per lag."""
    low, high = lags_of(circuit, projection)
    return low == high or degree_of(circuit, projection) / (high - low + 1) >= WORTH_PULLING


def distribution(value: Any) -> tuple[int, float, float, float, float]:
    if isinstance(value, Uniform):
        return wiring.UNIFORM, value.low, value.high, value.low, value.high
    if isinstance(value, Normal):
        return wiring.NORMAL, value.mean, value.sd, value.low, value.high
    return (wiring.CONSTANT if constant(value) else wiring.ARRAY), number(value), 0.0, 0.0, 0.0


def _spec(circuit: Circuit, k: int, projection: Projection) -> Spec:
    rule = projection.rule
    source, target = (circuit.populations[n].size for n in (projection.source, projection.target))
    p = rule.probability if isinstance(rule, FixedProbability) else 0.0
    weight: tuple[Any, ...] = distribution(projection.weight)
    delay: tuple[Any, ...] = distribution(projection.delay)
    made: tuple[Any, ...] = (
        RULES[type(rule)],
        source,
        target,
        k,
        -math.inf if p == 1 else math.log1p(-p),
        int(getattr(rule, "count", 1)),
        getattr(rule, "self_connections", True) is False,
        *weight,
        delay[0],
        *(float(d) / circuit.dt for d in delay[1:]),
        circuit.arithmetic == "loihi2",
        signed(circuit.seed),
    )
    return Spec._make(made)


def wire(
    circuit: Circuit, names: list[str], parts: int, width: Ints, threads: int, progress: Callable[[str], None]
) -> tuple[Pools, list[Rows], tuple[int, ...]]:
    """Count all projections, allot memory, fill it."""
    chip = circuit.arithmetic == "loihi2"
    small = int(width.max()) <= SMALL_PART
    table: list[Rows] = []
    place = 0
    for projection in circuit.projections:
        low, high = lags_of(circuit, projection)
        bins = high - low + 1 if pulls(circuit, projection) else 1
        own = circuit.populations[projection.source].size * bins + 1
        kept, none = np.zeros(parts, np.int64), np.full(parts, -1, np.int64)
        table.append(
            Rows(
                int(width[names.index(projection.target)]),
                bins,
                low - 1,
                place + own * np.arange(parts),
                kept,
                none if constant(projection.weight) else kept.copy(),
                none.copy() if pulls(circuit, projection) else kept.copy(),
            )
        )
        place += own * parts
    target: Any = np.uint16 if small else np.uint32
    weight: Any = np.int16 if chip else np.float32
    pools = Pools(np.zeros(place, np.uint32), np.zeros(0, target), np.zeros(0, weight), np.zeros(0, np.uint8))
    sizes = [0, 0, 0]
    synapses = []
    for k, (projection, rows) in enumerate(zip(circuit.projections, table, strict=True)):
        progress(f"counting projection {k + 1} of {len(table)}")
        _draw(circuit, k, projection, rows, pools, False, parts, threads)
        own, total = _pointers(circuit, projection, rows), 0
        for part, a in enumerate(rows.pointer_at.tolist()):
            wiring.add_up(pools.pointer, a, a + own)
            count = int(pools.pointer[a + own - 1])
            for column, at in enumerate((rows.synapse_at, rows.weight_at, rows.delay_at)):
                if at[part] >= 0:
                    at[part] = sizes[column]
                    sizes[column] += count
            total += count
        synapses.append(total)
    room = [n + LANES for n in sizes]  # the last lanes of a row are read, if not used
    pools = Pools(pools.pointer, np.zeros(room[0], target), np.zeros(room[1], weight), np.zeros(room[2], np.uint8))
    for k, (projection, rows) in enumerate(zip(circuit.projections, table, strict=True)):
        progress(f"filling projection {k + 1} of {len(table)}")
        _draw(circuit, k, projection, rows, pools, True, parts, threads)
        own = _pointers(circuit, projection, rows)
        for a in rows.pointer_at.tolist():
            wiring.step_back(pools.pointer, a, a + own)
    return pools, table, tuple(synapses)


def apart(circuit: Circuit, table: list[Rows], pools: Pools) -> Ints:
    """Per projection: whether LANES synapses at a time have different targets. So it is by the rules that join two
    neurons at most once; the others are looked at."""
    found = np.ones(len(table), np.int64)
    for k, (projection, rows) in enumerate(zip(circuit.projections, table, strict=True)):
        if pulls(circuit, projection) and not isinstance(projection.rule, (FixedProbability, OneToOne)):
            own = _pointers(circuit, projection, rows) - 1
            at = zip(rows.pointer_at.tolist(), rows.synapse_at.tolist(), strict=True)
            found[k] = not any(repeats(pools.pointer, p, own, pools.target, s) for p, s in at)
    return found


def _pointers(circuit: Circuit, projection: Projection, rows: Rows) -> int:
    """Length of the table of one part."""
    return circuit.populations[projection.source].size * rows.bins + 1


def _draw(
    circuit: Circuit, k: int, projection: Projection, rows: Rows, pools: Pools, fill: bool, parts: int, threads: int
) -> None:
    """One projection, lines shared out so that no two threads touch one row of a part."""
    spec, rule = _spec(circuit, k, projection), projection.rule
    jobs: list[tuple[Any, ...]]
    if isinstance(rule, Pairs):
        values = [
            np.zeros(0) if isinstance(v, (Uniform, Normal)) or constant(v) else np.asarray(v, np.float64)
            for v in (projection.weight, projection.delay)
        ]
        given = Table(
            np.ascontiguousarray(rule.sources, np.int64),
            np.ascontiguousarray(rule.targets, np.int64),
            np.ascontiguousarray(values[0]),
            np.ascontiguousarray(values[1] / circuit.dt),
        )
        cuts = [parts * i // threads for i in range(threads + 1)]
        jobs = [(wiring.wire_table, spec, rows, pools, fill, given, a, b) for a, b in itertools.pairwise(cuts)]
    else:
        lines = spec.targets if spec.rule == wiring.IN_DEGREE else spec.sources
        cuts = [min(lines, rows.width * (parts * i // threads)) for i in range(threads + 1)]
        if spec.rule != wiring.IN_DEGREE:
            cuts = [lines * i // threads for i in range(threads + 1)]
        longest = max(spec.targets if spec.rule == wiring.PROBABILITY else spec.degree, 1)
        jobs = [
            (wiring.wire_lines, spec, rows, pools, fill, a, b, parts, np.zeros(longest, np.uint32))
            for a, b in itertools.pairwise(cuts)
        ]
    if threads == 1:
        jobs[0][0](*jobs[0][1:])
        return
    with ThreadPoolExecutor(threads) as pool:
        for job in [pool.submit(*job) for job in jobs]:
            job.result()
