"""What spikes add to their targets: the loops in which a large network spends its time. Compiled with neuro.jit.

Rows of spikes to come are fetched while earlier ones are added; without that a row of 100 synapses waits longer for
memory than it takes to add (2.5 times, measured at 1e5 neurons).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.engine.lanes import LANES, add_lanes
from neuro.engine.processor import prefetch
from neuro.jit import kernel, piece

U = np.uintp
I64: Any = np.int64  # mypy takes indices to be int
AHEAD = np.uintp(6)  # rows; 4 to 8 were equally good from 1e4 to 1e6 neurons, 2 and 16 worse
FAR = np.uintp(12)  # pointers
LIST = np.uintp(48)  # spikes, which another core has just written
LINE = np.uintp(64)  # bytes that are fetched together
MOST_LINES = np.uintp(12)


@piece
def _lines(pointer: NDArray[np.uint32], table: Any, rows: Any, size: Any) -> Any:
    """Cache lines of a row of mean length. As many are fetched of every row: a count that changes from row to row
    cannot be foretold by the processor, which cost more than the lines (measured); a long row fetches itself."""
    mean = U(pointer[table + U(rows)]) // U(rows)
    return min(mean * U(size) // LINE + U(2), MOST_LINES)  # it may begin in the middle of a line


@piece
def _fetch(array: NDArray[Any], place: Any, lines: Any) -> None:
    for line in range(U(lines)):
        prefetch(array, place + U(line) * (LINE // U(array.itemsize)))


@kernel
def pull(
    pointer: NDArray[np.uint32], pointer_at: int, sources: int, bins: int, bin: int, fired: NDArray[np.uint32],
    begin: int, count: int, target: NDArray[Any], synapse_at: int, weight: NDArray[Any], weight_at: int,
    constant: Any, apart: bool, inbox: NDArray[Any], to: int,
) -> Any:  # fmt: skip
    """inbox[to + target] += weight for the rows (source, bin) of fired[begin:begin + count]; how many that were.
    weight_at < 0: all weigh ``constant``. apart: LANES synapses at a time have different targets."""
    table, stride, s, i0 = U(pointer_at) + U(bin), U(bins), U(synapse_at), U(to)
    weighs = weight_at >= 0
    w = U(weight_at) if weighs else U(0)
    rows = U(sources) * stride
    target_lines = _lines(pointer, U(pointer_at), rows, target.itemsize)
    weight_lines = _lines(pointer, U(pointer_at), rows, weight.itemsize) if weighs else U(0)
    e, last = U(begin), U(begin + count)
    events = U(0)
    for k in range(min(U(count), AHEAD)):  # all at once, where the first ones would wait one after the other
        early = U(pointer[table + U(fired[e + U(k)]) * stride])
        _fetch(target, s + early, target_lines)
        _fetch(weight, w + early, weight_lines)
    while e < last:
        prefetch(fired, e + LIST)
        if e + FAR < last:
            prefetch(pointer, table + U(fired[e + FAR]) * stride)
        if e + AHEAD < last:
            ahead = U(pointer[table + U(fired[e + AHEAD]) * stride])
            _fetch(target, s + ahead, target_lines)
            _fetch(weight, w + ahead, weight_lines)
        row = table + U(fired[e]) * stride
        a, b = U(pointer[row]), U(pointer[row + U(1)])
        events += b - a
        if apart:
            while a < b:
                some = min(b - a, U(LANES))
                if weighs:
                    add_lanes(inbox, i0, target, s + a, weight, w + a, some)
                else:
                    add_lanes(inbox, i0, target, s + a, constant, U(0), some)
                a += U(LANES)
        elif weighs:
            for k in range(a, b):
                inbox[i0 + U(target[s + U(k)])] += weight[w + U(k)]
        else:
            for k in range(a, b):
                inbox[i0 + U(target[s + U(k)])] += constant
        e += U(1)
    return I64(events)


@kernel
def push(
    pointer: NDArray[np.uint32], pointer_at: int, sources: int, fired: NDArray[np.uint32], begin: int, count: int,
    target: NDArray[Any], synapse_at: int, weight: NDArray[Any], weight_at: int, constant: Any,
    delay: NDArray[np.uint8], delay_at: int, inbox: NDArray[Any], step: int, to: int,
) -> Any:  # fmt: skip
    """inbox[(step + delay) % rings, to + target] += weight for the rows of fired[begin:begin + count]."""
    table, s, d0, i0 = U(pointer_at), U(synapse_at), U(delay_at), U(to)
    weighs = weight_at >= 0
    w = U(weight_at) if weighs else U(0)
    rings = U(inbox.shape[0])
    now = U(step) % rings
    target_lines = _lines(pointer, table, U(sources), target.itemsize)
    weight_lines = _lines(pointer, table, U(sources), weight.itemsize) if weighs else U(0)
    delay_lines = _lines(pointer, table, U(sources), delay.itemsize)
    e, last = U(begin), U(begin + count)
    events = U(0)
    for k in range(min(U(count), AHEAD)):  # all at once, where the first ones would wait one after the other
        early = U(pointer[table + U(fired[e + U(k)])])
        _fetch(target, s + early, target_lines)
        _fetch(weight, w + early, weight_lines)
        _fetch(delay, d0 + early, delay_lines)
    while e < last:
        prefetch(fired, e + LIST)
        if e + FAR < last:
            prefetch(pointer, table + U(fired[e + FAR]))
        if e + AHEAD < last:
            ahead = U(pointer[table + U(fired[e + AHEAD])])
            _fetch(target, s + ahead, target_lines)
            _fetch(weight, w + ahead, weight_lines)
            _fetch(delay, d0 + ahead, delay_lines)
        row = table + U(fired[e])
        a, b = U(pointer[row]), U(pointer[row + U(1)])
        events += b - a
        for k in range(a, b):
            ring = now + U(delay[d0 + U(k)])
            if ring >= rings:
                ring -= rings
            inbox[ring, i0 + U(target[s + U(k)])] += weight[w + U(k)] if weighs else constant
        e += U(1)
    return I64(events)
