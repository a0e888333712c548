"""What spikes of one step send through an `Arc`: compiled, one loop per layout, sums modulo 2^32 in int32."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.integer import wrap
from neuro.hardware.loihi2.packed import (
    AT,
    DOWN,
    FROM_SITE,
    FROM_TARGET,
    FROM_WEIGHT,
    LAYOUT,
    LENGTH,
    OF,
    POINTER,
    RUN,
    SITE,
    TARGET,
    WEIGHT,
    WIDE,
    WRAP,
    Packed,
)
from neuro.hardware.loihi2.synapses import ROWS, RUNS, WRAP_24
from neuro.jit import disjoint, kernel, piece

I32 = np.int32
I64 = np.int64
U = np.uintp  # an index that cannot be negative: the compiler drops Python's wrap-around and vectorises

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


@disjoint
def scatter_rows(
    a: Int32, lo: int, hi: int, weight: NDArray[Any], w0: int, events: Int32, begin: int, end: int
) -> None:
    """a[lo + j] += weight[w0 + i (hi - lo) + j] for each event i of events[begin:end], lo + j < hi.

    Four rows at a time: a is read and written once for them.
    """
    n, lo_, w0_, e, last = U(hi - lo), U(lo), U(w0), U(begin), U(end)
    while e + U(4) <= last:
        r0, r1 = w0_ + U(events[e]) * n, w0_ + U(events[e + U(1)]) * n
        r2, r3 = w0_ + U(events[e + U(2)]) * n, w0_ + U(events[e + U(3)]) * n
        for k in range(n):
            j = U(k)
            two = I32(I32(weight[r0 + j]) + weight[r1 + j])
            four = I32(I32(two + weight[r2 + j]) + weight[r3 + j])
            a[lo_ + j] = I32(a[lo_ + j] + four)
        e += U(4)
    while e < last:
        row = w0_ + U(events[e]) * n
        for k in range(n):
            j = U(k)
            a[lo_ + j] = I32(a[lo_ + j] + weight[row + j])
        e += U(1)


@disjoint
def scatter_runs(
    a: Int32,
    lo: int,
    sites: Int64,
    s0: int,
    pointer: Int64,
    p0: int,
    runs: Int32,
    r0: int,
    weight: NDArray[Any],
    w0: int,
    events: Int32,
    begin: int,
    end: int,
) -> None:
    """For each event the runs of its site, shifted by its bases: a[target + k] += weight[run's + k]. The arrays of the
    arc begin at s0, p0, r0 and w0."""
    lo_, s_, p_, r_, w_ = U(lo), U(s0), U(p0), U(r0), U(w0)
    for e in range(U(begin), U(end)):
        i = s_ + U(events[U(e)])
        at = p_ + U(sites[i, FROM_SITE])
        to, of = lo_ + U(sites[i, FROM_TARGET]), w_ + U(sites[i, FROM_WEIGHT])
        for q in range(r_ + U(pointer[at]), r_ + U(pointer[at + U(1)])):
            t, w = to + U(runs[U(q), AT]), of + U(runs[U(q), OF])
            for k in range(U(runs[U(q), LENGTH])):
                j = U(k)
                a[t + j] = I32(a[t + j] + weight[w + j])


@disjoint
def scatter_lists(
    a: Int32,
    lo: int,
    pointer: Int64,
    p0: int,
    target: Int32,
    t0: int,
    weight: NDArray[Any],
    w0: int,
    events: Int32,
    begin: int,
    end: int,
) -> None:
    """For each event its list of synapses: a[target] += weight. The arrays of the arc begin at p0, t0 and w0."""
    lo_, p_, t_, w_ = U(lo), U(p0), U(t0), U(w0)
    for e in range(U(begin), U(end)):
        i = p_ + U(events[U(e)])
        for q in range(U(pointer[i]), U(pointer[i + U(1)])):
            k = U(q)
            j = lo_ + U(target[t_ + k])
            a[j] = I32(a[j] + weight[w_ + k])


@disjoint
def fold(a: Int32, part: Int32, lo: int, hi: int, down: int, wraps: int) -> None:
    """a += part >> down (floor), or += part wrapped to 24 bits, over lo..hi-1; part is left zero."""
    for k in range(U(lo), U(hi)):
        i = U(k)
        value = I32(part[i] >> down)
        if wraps == WRAP_24:
            value = I32(wrap(value, 24))
        a[i] = I32(a[i] + value)
        part[i] = 0


@kernel
def scatter_rows_graded(
    a: Int32, lo: int, hi: int, weight: NDArray[Any], w0: int, events: Int32, payload: Int32, begin: int, end: int
) -> None:
    """As `scatter_rows`, each row multiplied by the event's payload."""
    n, lo_, w0_ = U(hi - lo), U(lo), U(w0)
    for e in range(U(begin), U(end)):
        row, factor = w0_ + U(events[U(e)]) * n, payload[U(e)]
        for k in range(n):
            j = U(k)
            a[lo_ + j] = I32(a[lo_ + j] + I32(I32(weight[row + j]) * factor))


@kernel
def scatter_runs_graded(
    net: Packed, arc: int, a: Int32, lo: int, events: Int32, payload: Int32, begin: int, end: int
) -> None:
    """As `scatter_runs`, weights multiplied by the event's payload."""
    arcs, sites, runs, pointer, weight = net.arcs, net.sites, net.runs, net.pointer, net.weight
    s_, p_, r_, w_, lo_ = U(arcs[SITE, arc]), U(arcs[POINTER, arc]), U(arcs[RUN, arc]), U(arcs[WEIGHT, arc]), U(lo)
    for e in range(U(begin), U(end)):
        i, factor = s_ + U(events[U(e)]), payload[U(e)]
        at = p_ + U(sites[i, FROM_SITE])
        to, of = lo_ + U(sites[i, FROM_TARGET]), w_ + U(sites[i, FROM_WEIGHT])
        for q in range(r_ + U(pointer[at]), r_ + U(pointer[at + U(1)])):
            t, w = to + U(runs[U(q), AT]), of + U(runs[U(q), OF])
            for k in range(U(runs[U(q), LENGTH])):
                j = U(k)
                a[t + j] = I32(a[t + j] + I32(I32(weight[w + j]) * factor))


@kernel
def scatter_lists_graded(
    net: Packed, arc: int, a: Int32, lo: int, events: Int32, payload: Int32, begin: int, end: int
) -> None:
    """As `scatter_lists`, weights multiplied by the event's payload."""
    arcs, target, pointer, weight = net.arcs, net.target, net.pointer, net.weight
    p_, t_, w_, lo_ = U(arcs[POINTER, arc]), U(arcs[TARGET, arc]), U(arcs[WEIGHT, arc]), U(lo)
    for e in range(U(begin), U(end)):
        i, factor = p_ + U(events[U(e)]), payload[U(e)]
        for q in range(U(pointer[i]), U(pointer[i + U(1)])):
            k = U(q)
            j = lo_ + U(target[t_ + k])
            a[j] = I32(a[j] + I32(I32(weight[w_ + k]) * factor))


@kernel
def scatter_wide(
    net: Packed, arc: int, part: Int64, lo: int, hi: int, events: Int32, payload: Int32, begin: int, end: int
) -> None:
    """Rows or lists, int32 products added up in int64: Lava's DelayDense sums so, which its right shift shows."""
    arcs, target, pointer, weight = net.arcs, net.target, net.pointer, net.weight
    n, lo_, w0 = U(hi - lo), U(lo), U(arcs[WEIGHT, arc])
    pointers, targets = U(arcs[POINTER, arc]), U(arcs[TARGET, arc])
    for e in range(U(begin), U(end)):
        source, factor = U(events[U(e)]), payload[U(e)]
        if arcs[LAYOUT, arc] == ROWS:
            row = w0 + source * n
            for k in range(n):
                part[lo_ + U(k)] += I64(I32(I32(weight[row + U(k)]) * factor))
        else:
            i = pointers + source
            for q in range(U(pointer[i]), U(pointer[i + U(1)])):
                j = lo_ + U(target[targets + U(q)])
                part[j] += I64(I32(I32(weight[w0 + U(q)]) * factor))


@kernel
def fold_wide(a: Int32, part: Int64, lo: int, hi: int, down: int) -> None:
    """a += part >> down (floor) over lo..hi-1; part is left zero."""
    for k in range(U(lo), U(hi)):
        i = U(k)
        a[i] = I32(a[i] + I32(part[i] >> I64(down)))
        part[i] = 0


@kernel
def scatter_graded(
    net: Packed, arc: int, a: Int32, lo: int, hi: int, events: Int32, payload: Int32, begin: int, end: int
) -> None:
    """As `scatter`, weights multiplied by what was sent."""
    if net.arcs[LAYOUT, arc] == ROWS:
        scatter_rows_graded(a, lo, hi, net.weight, net.arcs[WEIGHT, arc], events, payload, begin, end)
    elif net.arcs[LAYOUT, arc] == RUNS:
        scatter_runs_graded(net, arc, a, lo, events, payload, begin, end)
    else:
        scatter_lists_graded(net, arc, a, lo, events, payload, begin, end)


@kernel
def deliver_graded(
    net: Packed,
    arc: int,
    a: Int32,
    part: Int32,
    wide: Int64,
    lo: int,
    hi: int,
    events: Int32,
    payload: Int32,
    begin: int,
    end: int,
) -> None:
    """As `deliver`, for messages that are not just spikes: payload[e] belongs to events[e]."""
    down, wraps = net.arcs[DOWN, arc], net.arcs[WRAP, arc]
    if net.arcs[WIDE, arc] == 1:
        scatter_wide(net, arc, wide, lo, hi, events, payload, begin, end)
        fold_wide(a, wide, lo, hi, down)
    elif down > 0 or wraps == WRAP_24:
        scatter_graded(net, arc, part, lo, hi, events, payload, begin, end)
        fold(a, part, lo, hi, down, wraps)
    else:
        scatter_graded(net, arc, a, lo, hi, events, payload, begin, end)


@piece
def scatter(net: Packed, arc: int, a: Int32, lo: int, hi: int, events: Int32, begin: int, end: int) -> None:
    """Add the weights that events[begin:end] reach through an arc to a[lo:hi]."""
    arcs, sites, runs, pointer, target, weight = net.arcs, net.sites, net.runs, net.pointer, net.target, net.weight
    w0, p0 = arcs[WEIGHT, arc], arcs[POINTER, arc]
    if arcs[LAYOUT, arc] == ROWS:
        scatter_rows(a, lo, hi, weight, w0, events, begin, end)
    elif arcs[LAYOUT, arc] == RUNS:
        s0, r0 = arcs[SITE, arc], arcs[RUN, arc]
        scatter_runs(a, lo, sites, s0, pointer, p0, runs, r0, weight, w0, events, begin, end)
    else:
        scatter_lists(a, lo, pointer, p0, target, arcs[TARGET, arc], weight, w0, events, begin, end)


@piece
def deliver(
    net: Packed, arc: int, a: Int32, part: Int32, lo: int, hi: int, events: Int32, begin: int, end: int
) -> None:
    """What one step's spikes, events[begin:end], send through an arc, added to a[lo:hi]."""
    down, wraps = net.arcs[DOWN, arc], net.arcs[WRAP, arc]
    if down > 0 or wraps == WRAP_24:  # the sum of this arc and step needs work of its own
        scatter(net, arc, part, lo, hi, events, begin, end)
        fold(a, part, lo, hi, down, wraps)
    else:
        scatter(net, arc, a, lo, hi, events, begin, end)
