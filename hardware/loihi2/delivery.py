"""What spikes of one step send through an `Arc`: compiled, one loop per layout, sums modulo 2^32 in int32."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.integer import wrap
from neuro.hardware.loihi2.packed import Packed
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
def scatter_runs(net: Packed, arc: int, a: Int32, lo: int, events: Int32, begin: int, end: int) -> None:
    """For each event the runs of its site, shifted by its bases: a[target + k] += weight[run_weight + k]."""
    sites, pointers, targets = U(net.arc_site[arc]), U(net.arc_pointer[arc]), U(net.arc_target[arc])
    runs, lo_, w0 = U(net.arc_run[arc]), U(lo), U(net.arc_weight[arc])
    for e in range(U(begin), U(end)):
        i = sites + U(events[U(e)])
        at = pointers + U(net.site[i])
        to, of = lo_ + U(net.base_target[i]), w0 + U(net.base_weight[i])
        for q in range(U(net.pointer[at]), U(net.pointer[at + U(1)])):
            t, w = to + U(net.target[targets + U(q)]), of + U(net.run_weight[runs + U(q)])
            for k in range(U(net.run_length[runs + U(q)])):
                j = U(k)
                a[t + j] = I32(a[t + j] + net.weight[w + j])


@disjoint
def scatter_lists(net: Packed, arc: int, a: Int32, lo: int, events: Int32, begin: int, end: int) -> None:
    """For each event its list of synapses: a[target] += weight."""
    pointers, targets = U(net.arc_pointer[arc]), U(net.arc_target[arc])
    lo_, w0 = U(lo), U(net.arc_weight[arc])
    for e in range(U(begin), U(end)):
        i = pointers + U(events[U(e)])
        for q in range(U(net.pointer[i]), U(net.pointer[i + U(1)])):
            k = U(q)
            j = lo_ + U(net.target[targets + k])
            a[j] = I32(a[j] + net.weight[w0 + k])


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
    sites, pointers, targets = U(net.arc_site[arc]), U(net.arc_pointer[arc]), U(net.arc_target[arc])
    runs, lo_, w0 = U(net.arc_run[arc]), U(lo), U(net.arc_weight[arc])
    for e in range(U(begin), U(end)):
        i, factor = sites + U(events[U(e)]), payload[U(e)]
        at = pointers + U(net.site[i])
        to, of = lo_ + U(net.base_target[i]), w0 + U(net.base_weight[i])
        for q in range(U(net.pointer[at]), U(net.pointer[at + U(1)])):
            t, w = to + U(net.target[targets + U(q)]), of + U(net.run_weight[runs + U(q)])
            for k in range(U(net.run_length[runs + U(q)])):
                j = U(k)
                a[t + j] = I32(a[t + j] + I32(I32(net.weight[w + j]) * factor))


@kernel
def scatter_lists_graded(
    net: Packed, arc: int, a: Int32, lo: int, events: Int32, payload: Int32, begin: int, end: int
) -> None:
    """As `scatter_lists`, weights multiplied by the event's payload."""
    pointers, targets = U(net.arc_pointer[arc]), U(net.arc_target[arc])
    lo_, w0 = U(lo), U(net.arc_weight[arc])
    for e in range(U(begin), U(end)):
        i, factor = pointers + U(events[U(e)]), payload[U(e)]
        for q in range(U(net.pointer[i]), U(net.pointer[i + U(1)])):
            k = U(q)
            j = lo_ + U(net.target[targets + k])
            a[j] = I32(a[j] + I32(I32(net.weight[w0 + k]) * factor))


@kernel
def scatter_wide(
    net: Packed, arc: int, part: Int64, lo: int, hi: int, events: Int32, payload: Int32, begin: int, end: int
) -> None:
    """Rows or lists, int32 products added up in int64: Lava's DelayDense sums so, which its right shift shows."""
    n, lo_, w0 = U(hi - lo), U(lo), U(net.arc_weight[arc])
    pointers, targets = U(net.arc_pointer[arc]), U(net.arc_target[arc])
    for e in range(U(begin), U(end)):
        source, factor = U(events[U(e)]), payload[U(e)]
        if net.arc_layout[arc] == ROWS:
            row = w0 + source * n
            for k in range(n):
                part[lo_ + U(k)] += I64(I32(I32(net.weight[row + U(k)]) * factor))
        else:
            i = pointers + source
            for q in range(U(net.pointer[i]), U(net.pointer[i + U(1)])):
                j = lo_ + U(net.target[targets + U(q)])
                part[j] += I64(I32(I32(net.weight[w0 + U(q)]) * factor))


@kernel
def fold_wide(a: Int32, part: Int64, lo: int, hi: int, down: int) -> None:
    """a += part >> down (floor) over lo..hi-1; part is left zero."""
    for k in range(U(lo), U(hi)):
        i = U(k)
        a[i] = I32(a[i] + I32(part[i] >> I64(down)))
        part[i] = 0


@piece
def scatter_graded(
    net: Packed, arc: int, a: Int32, lo: int, hi: int, events: Int32, payload: Int32, begin: int, end: int
) -> None:
    """As `scatter`, weights multiplied by what was sent."""
    if net.arc_layout[arc] == ROWS:
        scatter_rows_graded(a, lo, hi, net.weight, net.arc_weight[arc], events, payload, begin, end)
    elif net.arc_layout[arc] == RUNS:
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
    down, wraps = net.arc_down[arc], net.arc_wrap[arc]
    if net.arc_wide[arc]:
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
    if net.arc_layout[arc] == ROWS:
        scatter_rows(a, lo, hi, net.weight, net.arc_weight[arc], events, begin, end)
    elif net.arc_layout[arc] == RUNS:
        scatter_runs(net, arc, a, lo, events, begin, end)
    else:
        scatter_lists(net, arc, a, lo, events, begin, end)


@piece
def deliver(
    net: Packed, arc: int, a: Int32, part: Int32, lo: int, hi: int, events: Int32, begin: int, end: int
) -> None:
    """What one step's spikes, events[begin:end], send through an arc, added to a[lo:hi]."""
    down, wraps = net.arc_down[arc], net.arc_wrap[arc]
    if down > 0 or wraps == WRAP_24:  # the sum of this arc and step needs work of its own
        scatter(net, arc, part, lo, hi, events, begin, end)
        fold(a, part, lo, hi, down, wraps)
    else:
        scatter(net, arc, a, lo, hi, events, begin, end)
