"""What a Loihi 2 sample leaves behind: spikes, counters, probes and scores, written while it runs; and its room.

Compiled (neuro.jit). A spike of a step is found as a byte, turned into an event, booked and recorded.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.loihi2.packed import (
    ALIKE,
    CORE,
    FIRST,
    FLAT,
    GRADED,
    HOPS,
    PACKETS,
    SYNAPSES,
    TILED,
    TO_CORE,
)
from neuro.hardware.loihi2.plastic import Learned
from neuro.hardware.loihi2.stream import BLOCK as LINE
from neuro.hardware.loihi2.stream import WORTH, begins, send
from neuro.hardware.spikes import collect
from neuro.jit import disjoint, kernel, piece

I32 = np.int32
I64: Any = np.int64  # what it makes is an int to mypy
U = np.uintp  # as in delivery.py
AHEAD = 8  # places behind the last event that `tiles.add_groups` may read
SOON = np.uintp(8)  # steps that `take_row` looks ahead
BEGIN, END = 0, 1  # of `Work.span`
SYNOPS, SPIKES, SENT, LINKS = 0, 1, 2, 3  # rows of `Out.booked`
TOO_SHORT, NOT_BINARY = -1, -2  # instead of a number of events
COUNT, SUM, MAX, LAST = 0, 1, 2, 3  # neuro.ir.READOUTS
U_ROW, V_ROW, A_ROW, W_ROW, X_ROW, B_ROW = 0, 1, 2, 3, 4, 5  # of `Out.columns`, variables as they stand in `Work`

Int16 = NDArray[np.int16]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Words = NDArray[np.uint64]


@piece
def sends(record: Bytes, places: np.uintp) -> bool:
    """Whether `stream.send` may write a record: it is large, and whole lines are written. places: of its last axis,
    all that rows begin and end at, as bits."""
    return record.size >= WORTH and (begins(record) | U(record.shape[2]) | places) % U(LINE) == U(0)


@disjoint
def take_row(dense: Bytes, b: int, t: int, fired: Bytes, entered: Bytes) -> int:
    """The inputs of a step into the first bytes of ``fired``, in whole blocks, and on record: all their bits, where
    they are more than 0 and 1."""
    n, found, later = U(dense.shape[2]), np.uint8(0), min(U(t) + SOON, U(dense.shape[0] - 1))
    for k in range(0, n, LINE):  # a sample's rows lie far apart, each would be waited for
        found |= dense[later, b, U(k)]
    for k in range(n):
        x = dense[t, b, U(k)]
        fired[U(k)] = x
        found |= x
    if sends(entered, n):
        begin = (U(b) * U(entered.shape[1]) + U(t)) * n
        for k in range(0, n, LINE):
            send(entered, begin + U(k), fired, U(k))
    elif entered.size > 0:
        for k in range(n):
            entered[b, t, U(k)] = dense[t, b, U(k)]
    return np.int64(found)  # type: ignore[return-value]


@kernel
def enter(
    dense: Bytes, b: int, fired: Bytes, flags: Words, entered: Bytes, events: Int32, span: Int64, injected: Int64
) -> int:
    """The input of sample b as events and on record; how many, or TOO_SHORT, or NOT_BINARY."""
    inputs, used, found = dense.shape[2], I64(0), I64(0)
    none, blocks = I64(0), (inputs + 63) // 64
    for t in range(injected.shape[1]):
        begin = used
        if t < dense.shape[0]:
            if used + inputs > events.size - AHEAD:
                return TOO_SHORT
            found |= take_row(dense, b, t, fired, entered)
            used = collect(flags, none, blocks, events, used)
        elif entered.size > 0:
            for k in range(inputs):
                entered[b, t, k] = 0
        span[0, t, BEGIN], span[0, t, END], injected[b, t] = begin, used, used - begin
    return used if found < 2 else NOT_BINARY


@disjoint
def settle(
    events: Int32,
    span: Int64,
    p: int,
    populations: Int64,
    neurons: Int32,
    fan: Int64,
    fans: Int32,
    booked: Int64,
    spikes: Bytes,
    scores: Int64,
    since: int,
    b: int,
) -> None:
    """Write down what population p of sample b did in all steps: its spikes, where nothing else records them, in
    scores those of steps since.., and what they cause. Where all of its neurons send to the same cores (ALIKE), the
    first of a step stands for all but in synapses."""
    first, alike = U(populations[FIRST, p]), populations[ALIKE, p] == 1
    from_, to = U(populations[FIRST, p] - populations[FIRST, 1]), U(populations[FIRST, p + 1] - populations[FIRST, 1])
    records = spikes.size > 0 and p > 0 and populations[TILED, p] == 0 and populations[GRADED, p] == 0
    for t in range(span.shape[1]):
        begin, end = U(span[p, t, BEGIN]), U(span[p, t, END])
        if records:
            for k in range(from_, to):
                spikes[b, t, U(k)] = 0
            for e in range(begin, end):
                spikes[b, t, from_ + U(neurons[FLAT, first + U(events[U(e)])])] = 1
        if begin == end:
            continue
        if t >= since:
            for e in range(begin, end):
                scores[b, neurons[FLAT, first + U(events[U(e)])]] += 1
        if alike:
            neuron = first + U(events[begin])
            many, width = I64(end - begin), U(fan[neuron + U(1)] - fan[neuron])
            for f in range(width):
                total = I64(0)
                for e in range(begin, end):
                    total += I64(fans[SYNAPSES, U(fan[first]) + U(events[U(e)]) * width + U(f)])
                booked[SYNOPS, b, t, U(fans[TO_CORE, U(fan[neuron]) + U(f)])] += total
            if neurons[CORE, neuron] >= 0:  # inputs sit on no core
                at = U(neurons[CORE, neuron])
                booked[SPIKES, b, t, at] += many
                booked[SENT, b, t, at] += many * neurons[PACKETS, neuron]
                booked[LINKS, b, t, at] += many * neurons[HOPS, neuron]
            continue
        for e in range(begin, end):
            neuron = first + U(events[U(e)])
            for f in range(U(fan[neuron]), U(fan[neuron + U(1)])):
                booked[SYNOPS, b, t, U(fans[TO_CORE, U(f)])] += fans[SYNAPSES, U(f)]
            if neurons[CORE, neuron] >= 0:
                at = U(neurons[CORE, neuron])
                booked[SPIKES, b, t, at] += 1
                booked[SENT, b, t, at] += neurons[PACKETS, neuron]
                booked[LINKS, b, t, at] += neurons[HOPS, neuron]


@kernel
def score(
    readout: int, neurons: Int32, lo: int, n: int, values: Int32, at: int, since: int, scores: Int64, b: int
) -> None:
    """One step of a readout that reads membranes: neurons lo..lo+n-1, which stand in values[at : at + n]. since: steps
    since its window began."""
    for k in range(U(n)):
        place, value = neurons[FLAT, U(lo) + U(k)], I64(values[U(at) + U(k)])
        if readout == SUM:
            scores[b, place] += value
        elif readout == LAST or since == 0:
            scores[b, place] = value
        else:
            scores[b, place] = max(scores[b, place], value)


@kernel
def write(neurons: Int32, lo: int, n: int, values: Int32, at: int, probes: Int32, t: int, b: int, column: int) -> None:
    """A probe's values of one step, as in `score`, in row-major order, from column on; column < 0: not asked for."""
    if column >= 0:
        for k in range(U(n)):
            probes[t, b, column + neurons[FLAT, U(lo) + U(k)]] = values[U(at) + U(k)]


class Others(NamedTuple):
    """Room for what only some models have. payload: what events carry, of populations that send anything but 0 and 1.
    w, x: state; b: what arrives at the imaginary port; sent: messages of a step; wide: sums on their way; one entry
    per neuron (wide: none where nobody needs it). learned: plastic weights and traces."""

    payload: Int32
    w: Int32
    x: Int32
    b: Int32
    sent: Int32
    wide: Int64
    learned: Learned


class Work(NamedTuple):
    """Room for one sample. events: spikes of all populations and steps, as places within the population;
    those of population p in step t are events[span[p, t, BEGIN]:span[p, t, END]]. u, v: state; a: what arrives; part:
    sums on their way; one entry per neuron.
    fired: one byte per neuron, whole blocks of 64 per population, and flags the same memory as words.
    lanes, sums: a tile of `tiles`; raster: the bytes of a whole layer in all steps, and rows the same as words.
    others: None where the program is `packed.plain`."""

    span: Int64
    events: Int32
    u: Int32
    v: Int32
    a: Int32
    part: Int32
    fired: Bytes
    flags: Words
    lanes: Int32
    sums: Int16
    raster: Bytes
    rows: Words
    others: Any  # `Others`, or None

    @property
    def w(self) -> Any:
        """`Others.w`, likewise the next three."""
        return self.others and self.others.w

    @property
    def x(self) -> Any:
        return self.others and self.others.x

    @property
    def b(self) -> Any:
        return self.others and self.others.b

    @property
    def sent(self) -> Any:
        return self.others and self.others.sent


class Messages(NamedTuple):
    """What a batch that is not `packed.plain` fills besides. messages: [steps, batch, neurons], what graded populations
    send, from column[p] on. learned: [3, plastic projections], as `Out.columns`. draws: random numbers of each, see
    `learning.draws`."""

    column: Int64
    learned: Int64
    draws: Int64
    messages: Int32


class Out(NamedTuple):
    """What a batch fills. columns: [6, populations], where a variable of each (its `ROW`) goes in probes, or -1.

    spikes: [batch, steps, neurons without inputs], or empty: not recorded. entered: [batch, steps, inputs] likewise.
    probes: [steps, batch, columns], which with ``others`` is zero before; all the rest need not be.
    scores: [batch, n]. booked: [4, batch, steps, cores], synops, spikes, packets, hops. injected: [batch, steps].
    """

    columns: Int64
    spikes: Bytes
    entered: Bytes
    probes: Int32
    scores: Int64
    booked: Int64
    injected: Int64
    others: Any  # `Messages`, or None
