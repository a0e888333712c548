"""Synapses drawn from rules, straight into rows by source: counted, then filled in. Compiled with neuro.jit.

A rule is a set of lines. A line is what one source sends (or, for a fixed in-degree, what one target receives); which
neurons are on it, and the weight and delay of the k-th of them, are Philox numbers named by (projection, line, k). The
same lines are drawn twice, once to count and once to fill, which takes less than keeping them would.

Where a projection keeps its synapses is `Rows`: per part of the targets a table of pointers, [source, bin]. Within a
bin synapses stand in the order of lines and of k. Threads own sources (or parts), so they never meet.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuro.engine.philox import HALF, LOW, TARGETS, VALUES, normal, philox, uniform
from neuro.jit import kernel

U = np.uintp
U8 = np.uint8
U32 = np.uint32
U64 = np.uint64
I64: Any = np.int64  # mypy takes indices to be int
PROBABILITY, IN_DEGREE, OUT_DEGREE, ONE_TO_ONE, PAIRS = 0, 1, 2, 3, 4  # rules
CONSTANT, UNIFORM, NORMAL, ARRAY = 0, 1, 2, 3  # where a value comes from


class Spec(NamedTuple):
    """A rule. sources, targets: sizes. number: of the projection. log_q: log(1 - probability). degree: in or out.
    alone: nobody is joined to itself. weight_*, delay_*: kind, two parameters, two bounds; delays in steps. whole:
    weights are rounded."""

    rule: int
    sources: int
    targets: int
    number: int
    log_q: float
    degree: int
    alone: bool
    weight: int
    weight_a: float
    weight_b: float
    weight_low: float
    weight_high: float
    delay: int
    delay_a: float
    delay_b: float
    delay_low: float
    delay_high: float
    whole: bool
    seed: int


class Table(NamedTuple):
    """Synapses that are given: int64[n] twice; values float64[n], or [0] where they are drawn."""

    sources: NDArray[np.int64]
    targets: NDArray[np.int64]
    weights: NDArray[np.float64]
    delays: NDArray[np.float64]


class Rows(NamedTuple):
    """Where one projection's synapses are in the pools. width: targets of a part. bins: delays told apart by the
    pointers, from ``least`` steps on; 1 where each synapse keeps its delay. *_at: int64[parts], -1: not kept."""

    width: int
    bins: int
    least: int
    pointer_at: NDArray[np.int64]
    synapse_at: NDArray[np.int64]
    weight_at: NDArray[np.int64]
    delay_at: NDArray[np.int64]


class Pools(NamedTuple):
    """Synapses of all projections. pointer: uint32. target: uint16 or uint32, within a part. weight: float32, or int16
    of a chip. delay: uint8, steps."""

    pointer: NDArray[np.uint32]
    target: NDArray[Any]
    weight: NDArray[Any]
    delay: NDArray[np.uint8]


@kernel
def _on_line(spec: Spec, line: int, other: NDArray[np.uint32]) -> int:
    """Who is on a line, into ``other``; how many."""
    if spec.rule == ONE_TO_ONE:
        other[0] = line
        return 1
    here, what, key = U64(line), U64(spec.number), U64(spec.seed)
    size = spec.sources if spec.rule == IN_DEGREE else spec.targets
    if spec.rule == PROBABILITY:
        n, at, k = 0, I64(-1), 0
        if spec.log_q == 0.0:
            return 0
        a = b = c = d = U64(0)
        while True:
            if k & 3 == 0:
                a, b, c, d = philox(U64(k >> 2), here, what, U64(TARGETS), key & LOW, key >> HALF)
            word, a, b, c = a, b, c, d
            k += 1
            skip = math.log(uniform(word)) / spec.log_q  # geometric: how many are passed over
            if skip >= size - 1 - at:
                return n
            at += 1 + I64(skip)
            if not (spec.alone and at == line):
                other[n] = at
                n += 1
    choices = U64(size - 1 if spec.alone else size)
    a = b = c = d = U64(0)
    for k in range(spec.degree):
        if k & 3 == 0:
            a, b, c, d = philox(U64(k >> 2), here, what, U64(TARGETS), key & LOW, key >> HALF)
        chosen = I64(U64(a * choices) >> HALF)
        a, b, c = b, c, d
        other[k] = chosen + 1 if spec.alone and chosen >= line else chosen
    return spec.degree


@kernel
def _value(kind: int, a: float, b: float, low: float, high: float, x: np.uint64, y: np.uint64) -> float:
    if kind == CONSTANT:
        return a
    if kind == UNIFORM:
        return a + (b - a) * uniform(x)
    return min(max(a + b * normal(x, y), low), high)


@kernel
def _keep(
    spec: Spec, rows: Rows, pools: Pools, fill: bool, source: int, target: int, weight: float, delay: float,
    first_part: int, last_part: int,
) -> None:  # fmt: skip
    """Count a synapse, or write it down, if its part is asked for."""
    part = target // rows.width
    if part < first_part or part >= last_part:
        return
    steps = I64(math.floor(delay + 0.5))
    bin = I64(0) if rows.delay_at[part] >= 0 else steps - rows.least
    at = U(rows.pointer_at[part] + I64(source) * rows.bins + bin)
    if not fill:
        pools.pointer[at + U(1)] += U32(1)
        return
    place = U(pools.pointer[at])
    pools.pointer[at] += U32(1)
    pools.target[U(rows.synapse_at[part]) + place] = target - part * rows.width
    if rows.weight_at[part] >= 0:
        pools.weight[U(rows.weight_at[part]) + place] = math.floor(weight + 0.5) if spec.whole else weight
    if rows.delay_at[part] >= 0:
        pools.delay[U(rows.delay_at[part]) + place] = U8(steps)


@kernel
def wire_lines(
    spec: Spec, rows: Rows, pools: Pools, fill: bool, first: int, last: int, parts: int, other: NDArray[np.uint32]
) -> None:
    """Count or fill what lines first..last-1 hold."""
    key = U64(spec.seed)
    drawn = spec.weight > CONSTANT or spec.delay > CONSTANT
    for line in range(first, last):
        n = _on_line(spec, line, other)
        for k in range(n):
            a = b = c = d = U64(0)
            if drawn:
                a, b, c, d = philox(U64(k), U64(line), U64(spec.number), U64(VALUES), key & LOW, key >> HALF)
            weight = _value(spec.weight, spec.weight_a, spec.weight_b, spec.weight_low, spec.weight_high, a, b)
            delay = _value(spec.delay, spec.delay_a, spec.delay_b, spec.delay_low, spec.delay_high, c, d)
            there = I64(other[k])
            source, target = (there, I64(line)) if spec.rule == IN_DEGREE else (I64(line), there)
            _keep(spec, rows, pools, fill, source, target, weight, delay, 0, parts)


@kernel
def wire_table(spec: Spec, rows: Rows, pools: Pools, fill: bool, table: Table, first_part: int, last_part: int) -> None:
    """Count or fill the given synapses that end in parts first_part..last_part-1."""
    key = U64(spec.seed)
    drawn = UNIFORM <= spec.weight <= NORMAL or UNIFORM <= spec.delay <= NORMAL
    for k in range(table.sources.size):
        a = b = c = d = U64(0)
        if drawn:
            a, b, c, d = philox(U64(k), U64(k) >> HALF, U64(spec.number), U64(VALUES), key & LOW, key >> HALF)
        if spec.weight == ARRAY:
            weight = table.weights[k]
        else:
            weight = _value(spec.weight, spec.weight_a, spec.weight_b, spec.weight_low, spec.weight_high, a, b)
        if spec.delay == ARRAY:
            delay = table.delays[k]
        else:
            delay = _value(spec.delay, spec.delay_a, spec.delay_b, spec.delay_low, spec.delay_high, c, d)
        _keep(spec, rows, pools, fill, table.sources[k], table.targets[k], weight, delay, first_part, last_part)


@kernel
def add_up(pointer: NDArray[np.uint32], first: int, last: int) -> None:
    """Counts, each one place late, become where rows begin."""
    total = U32(0)
    for i in range(U(first), U(last)):
        total = U32(total + pointer[U(i)])
        pointer[U(i)] = total


@kernel
def step_back(pointer: NDArray[np.uint32], first: int, last: int) -> None:
    """After filling, each pointer stands where its row ends: put them back."""
    for i in range(last - 1, first, -1):
        pointer[U(i)] = pointer[U(i) - U(1)]
    pointer[U(first)] = U32(0)


@kernel
def draw_values(
    out: NDArray[np.float64],
    kind: int,
    a: float,
    b: float,
    low: float,
    high: float,
    stream: int,
    purpose: int,
    seed: int,
) -> None:
    """One value per neuron: of a uniform or a normal distribution."""
    key = U64(seed)
    for i in range(out.size):
        x, y, _, _ = philox(U64(i), U64(0), U64(stream), U64(purpose), key & LOW, key >> HALF)
        out[i] = _value(kind, a, b, low, high, x, y)
