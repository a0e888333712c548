"""What a Loihi 2 sample leaves behind: spikes, counters, probes and scores, written while it runs; and its room.

Compiled (neuro.jit). A spike of a step is found as a byte, turned into an event, booked and recorded.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.loihi2.packed import Packed
from neuro.hardware.loihi2.plastic import Learned
from neuro.jit import disjoint, lowest, ones, piece, set_bytes

I32 = np.int32
U = np.uintp  # as in delivery.py
U64 = np.uint64
AHEAD = 4  # places behind the last event that `collect` may overwrite
COUNT, SUM, MAX, LAST = 0, 1, 2, 3  # neuro.ir.READOUTS
U_ROW, V_ROW, A_ROW, W_ROW, X_ROW, B_ROW = 0, 1, 2, 3, 4, 5  # of `Out.columns`, variables as they stand in `Work`

Int16 = NDArray[np.int16]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Words = NDArray[np.uint64]


@disjoint
def collect(flags: Words, first: int, last: int, events: Int32, end: int) -> int:
    """Append to events[end:] the places of the ones in the bytes (0 or 1) of blocks first..last-1; the new end.

    A block is 64 neurons, eight words. The first `AHEAD` events of a block are written whether they are there or not,
    and overwritten by the next: a loop over so few as there mostly are ends where no processor expects it.
    """
    e = U(end)
    for block in range(U(first), U(last)):
        mask = set_bytes(flags, U(block) << U(3))
        if mask == U64(0):
            continue
        place = (U(block) - U(first)) << U(6)
        after = e + U(ones(mask))
        for k in range(AHEAD):
            events[e + U(k)] = I32(place + U(lowest(mask)))
            mask &= mask - U64(mask != U64(0))
        e += U(AHEAD)
        while mask != U64(0):
            events[e] = I32(place + U(lowest(mask)))
            e += U(1)
            mask &= mask - U64(1)
        e = after
    return np.int64(e)  # type: ignore[return-value]  # to a kernel an int is an int64


@disjoint
def take_row(dense: Bytes, t: int, b: int, fired: Bytes, entered: Bytes) -> None:
    """The inputs of a step into the first bytes of ``fired``, in whole blocks, and on record."""
    n = U(dense.shape[2])
    for k in range(n):
        fired[U(k)] = dense[t, b, U(k)]
    if entered.size > 0:
        for k in range(n):
            entered[t, b, U(k)] = dense[t, b, U(k)]


@disjoint
def clear(tiled: Int64, first: Int64, spikes: Bytes, entered: Bytes, length: int, b: int) -> None:
    """No recorded spikes of a sample but in layers that `tiles` writes whole, and none that enter after its end."""
    for t in range(length, entered.shape[0]):
        for k in range(U(first[1])):
            entered[t, b, U(k)] = 0
    for t in range(spikes.shape[0]):
        for p in range(1, tiled.size):
            if tiled[p] == 0:
                for k in range(U(first[p] - first[1]), U(first[p + 1] - first[1])):
                    spikes[t, b, U(k)] = 0


@disjoint
def book(
    events: Int32,
    start: Int64,
    stop: Int64,
    p: int,
    t: int,
    until: int,
    lo: int,
    alike: bool,
    fan: Int64,
    fan_core: Int32,
    fan_synapses: Int32,
    core: Int32,
    packets: Int32,
    hops: Int32,
    booked: Int64,
    b: int,
) -> None:
    """Count what the spikes of population p cause, whose first neuron is lo, in steps t..until-1. Where all of its
    neurons send to the same cores (``alike``), the first of a step stands for all but in synapses."""
    first = U(lo)
    for step in range(t, until):
        begin, end = U(start[p, step]), U(stop[p, step])
        if begin == end:
            continue
        synops, spikes, sent, links = booked[0, b, step], booked[1, b, step], booked[2, b, step], booked[3, b, step]
        if alike:
            neuron = first + U(events[begin])
            many, width = np.int64(end - begin), U(fan[neuron + U(1)] - fan[neuron])
            for f in range(width):
                total = np.int64(0)
                for e in range(begin, end):
                    total += np.int64(fan_synapses[U(fan[first]) + U(events[U(e)]) * width + U(f)])
                synops[U(fan_core[U(fan[neuron]) + U(f)])] += total
            if core[neuron] >= 0:  # inputs sit on no core
                at = U(core[neuron])
                spikes[at] += many
                sent[at] += many * packets[neuron]
                links[at] += many * hops[neuron]
            continue
        for e in range(begin, end):
            neuron = first + U(events[U(e)])
            for f in range(U(fan[neuron]), U(fan[neuron + U(1)])):
                synops[U(fan_core[U(f)])] += fan_synapses[U(f)]
            if core[neuron] >= 0:
                at = U(core[neuron])
                spikes[at] += 1
                sent[at] += packets[neuron]
                links[at] += hops[neuron]


@piece
def score(
    net: Packed, lo: int, hi: int, v: Int32, events: Int32, begin: int, end: int, since: int, scores: Int64, b: int
) -> None:
    """One step of the readout. since: steps since its window began."""
    if net.readout == COUNT:
        for e in range(begin, end):
            scores[b, net.flat[lo + events[e]]] += 1
        return
    for i in range(lo, hi):
        at = net.flat[i]
        if net.readout == SUM:
            scores[b, at] += v[i]
        elif net.readout == LAST or since == 0:
            scores[b, at] = v[i]
        else:
            scores[b, at] = max(scores[b, at], np.int64(v[i]))


@piece
def write(net: Packed, lo: int, hi: int, values: Int32, probes: Int32, t: int, b: int, column: int) -> None:
    """A probe's values of one step in row-major order, from column on; column < 0: not asked for."""
    if column >= 0:
        for i in range(lo, hi):
            probes[t, b, column + net.flat[i]] = values[i]


class Work(NamedTuple):
    """Room for one sample. events: spikes of all populations and steps, as places within the population;
    those of population p in step t are events[start[p, t]:stop[p, t]]. payload: what they carry, of populations that
    send anything but 0 and 1. u, v, w, x: state; a, b: what arrives, b at the imaginary port; part, wide: sums on
    their way; sent: messages of a step; one entry per neuron (w, x, b, wide, sent: none where nobody needs them).
    learned: plastic weights and traces.
    fired: one byte per neuron, whole blocks of 64 per population, and flags the same memory as words.
    lanes, sums: a tile of `tiles`; raster: the bytes of a whole layer in all steps, and rows the same as words."""

    start: Int64
    stop: Int64
    events: Int32
    payload: Int32
    u: Int32
    v: Int32
    a: Int32
    part: Int32
    w: Int32
    x: Int32
    b: Int32
    sent: Int32
    wide: Int64
    fired: Bytes
    flags: Words
    learned: Learned
    lanes: Int32
    sums: Int16
    raster: Bytes
    rows: Words


class Out(NamedTuple):
    """What a batch fills, zero before. columns: [6, populations], where a variable of each (its `ROW`) goes in probes,
    or -1. messages: [steps, batch, neurons], what graded populations send, from column[p] on.

    spikes: [steps, batch, neurons without inputs], or empty: not recorded. entered: [steps, batch, inputs] likewise;
    neither need be zero before. probes: [steps, batch, columns].
    learned: [3, plastic projections], as columns. draws: random numbers of each, see `learning.draws`.
    scores: [batch, n]. booked: [4, batch, steps, cores], synops, spikes, packets, hops. injected: [batch, steps].
    """

    columns: Int64
    column: Int64
    learned: Int64
    draws: Int64
    spikes: Bytes
    entered: Bytes
    messages: Int32
    probes: Int32
    scores: Int64
    booked: Int64
    injected: Int64


@piece
def book_population(net: Packed, work: Work, out: Out, p: int, b: int, t: int, until: int) -> None:
    """`book` of steps t..until-1 of a population, which stand in work.events."""
    spikes = work.events, work.start, work.stop, p, t, until, net.first[p], net.alike[p] == 1
    each = net.fan, net.fan_core, net.fan_synapses, net.core, net.packets, net.hops
    book(*spikes, *each, out.booked, b)


@piece
def settle(
    net: Packed, work: Work, out: Out, p: int, b: int, t: int, begin: int, end: int, since: int, recorded: bool
) -> None:
    """Write down step t of population p, whose spikes are events[begin:end]. since: as in `score`. recorded: its
    spikes are already, and its membranes have been read."""
    lo, hi, inputs = net.first[p], net.first[p + 1], net.first[1]
    work.start[p, t] = begin
    work.stop[p, t] = end
    if out.spikes.size > 0 and p > 0 and not recorded:
        if net.graded[p] == 1:
            for e in range(begin, end):
                out.messages[t, b, out.column[p] + net.flat[lo + work.events[e]]] = work.payload[e]
        else:
            for e in range(begin, end):
                out.spikes[t, b, lo - inputs + net.flat[lo + work.events[e]]] = 1
    if p == net.output and since >= 0 and (net.readout == COUNT or not recorded):
        score(net, lo, hi, work.v, work.events, begin, end, since, out.scores, b)
