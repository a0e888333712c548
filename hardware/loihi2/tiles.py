"""A layer of LIF neurons behind dense matrices, 64 neurons at a time over all steps: compiled (neuro.jit).

Where nothing comes back to a layer within a sample, its neurons need not wait for each other. So 64 of them, a tile,
go through all steps before the next 64 begin, and what they need stays near: their 64 weights of every source
(`Packed.tiles`: [tile][source][64], int16), and u, v and the registers, in `lanes`. Weights are added up in 16 bits,
twice as many at a time as in 32, for as long as their largest cannot leave them. The arithmetic is that of
`neurons.update` and `delivery.scatter_rows`; integers add up to the same in whatever order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.integer import decay, saturate, wrap_once
from neuro.hardware.loihi2.neurons import LIMIT
from neuro.hardware.loihi2.packed import (
    ARC,
    BIAS,
    BLOCK,
    BRIEF,
    CORE,
    FIRST,
    KEEP_U,
    KEEP_V,
    LAG,
    MOST,
    SILENT,
    SOURCE,
    THRESHOLD,
    TILE,
    TILES,
    Packed,
)
from neuro.hardware.loihi2.record import (
    A_ROW,
    AHEAD,
    BEGIN,
    COUNT,
    END,
    SPIKES,
    TOO_SHORT,
    U_ROW,
    V_ROW,
    Out,
    Work,
    score,
    sends,
    settle,
    write,
)
from neuro.hardware.loihi2.stream import BLOCK as LINE
from neuro.hardware.loihi2.stream import send
from neuro.hardware.spikes import collect
from neuro.jit import disjoint, kernel, ones, piece, set_bytes, wide

I16 = np.int16
I32 = np.int32
I64: Any = np.int64  # what it makes is an int to mypy
U = np.uintp  # an index that cannot be negative: the compiler drops Python's wrap-around and vectorises
HOLDS = 32767  # int16
GROUP = 8  # rows that `add_groups` takes at a time
# where each variable and register of a tile stands in `lanes`; what arrives stands first
IN_U, IN_V, KEEP_U_AT, KEEP_V_AT, BIAS_AT, THRESHOLD_AT, LANES = (U(k * TILE) for k in range(1, 8))

Int16 = NDArray[np.int16]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Bytes = NDArray[np.uint8]


@piece
def add_rows(sums: Int16, tiles: Int16, base: int, events: Int32, begin: int, end: int) -> None:
    """sums[j] += tiles[base + 64 i + j] for each event i of events[begin:end], j < 64. The compiler keeps sums in
    registers: taking several rows at a time gains nothing (measured)."""
    of, six = U(base), U(6)
    for e in range(U(begin), U(end)):
        row = of + (U(events[U(e)]) << six)
        for k in range(TILE):
            j = U(k)
            sums[j] = I16(sums[j] + tiles[row + j])


@piece
def add_groups(sums: Int16, tiles: Int16, base: int, events: Int32, begin: int, end: int, nothing: int) -> None:
    """`add_rows`, eight at a time; behind the last event come rows ``nothing``, of zeros: a loop over single
    rows ends where no processor expects it, which costs more than to add nothing a few times. events: may be read up to
    7 places behind end."""
    of, six, last, none = U(base), U(6), U(end), U(nothing)
    e = U(begin)
    while e < last:
        r0 = of + (U(events[e]) << six)
        r1 = of + ((U(events[e + U(1)]) if e + U(1) < last else none) << six)
        r2 = of + ((U(events[e + U(2)]) if e + U(2) < last else none) << six)
        r3 = of + ((U(events[e + U(3)]) if e + U(3) < last else none) << six)
        r4 = of + ((U(events[e + U(4)]) if e + U(4) < last else none) << six)
        r5 = of + ((U(events[e + U(5)]) if e + U(5) < last else none) << six)
        r6 = of + ((U(events[e + U(6)]) if e + U(6) < last else none) << six)
        r7 = of + ((U(events[e + U(7)]) if e + U(7) < last else none) << six)
        for k in range(TILE):
            j = U(k)
            low = I16(I16(tiles[r0 + j] + tiles[r1 + j]) + I16(tiles[r2 + j] + tiles[r3 + j]))
            high = I16(I16(tiles[r4 + j] + tiles[r5 + j]) + I16(tiles[r6 + j] + tiles[r7 + j]))
            sums[j] = I16(sums[j] + I16(low + high))
        e += U(GROUP)


@piece
def flush(lanes: Int32, sums: Int16) -> None:
    """Make room in 16 bits."""
    for k in range(TILE):
        j = U(k)
        lanes[j] = I32(lanes[j] + I32(sums[j]))
        sums[j] = I16(0)


@piece
def fire(lanes: Int32, sums: Int16, raster: Bytes, at: int) -> None:
    """`neurons.update` of a tile; raster[at + j]: neuron j spikes."""
    for k in range(TILE):
        j = U(k)
        arrived = I32(lanes[j] + I32(sums[j]))
        current = wrap_once(I32(decay(lanes[IN_U + j], lanes[KEEP_U_AT + j]) + I32(arrived << 6)))
        drift = I32(decay(lanes[IN_V + j], lanes[KEEP_V_AT + j]) + current)
        membrane = saturate(I32(drift + lanes[BIAS_AT + j]), -LIMIT, LIMIT)
        spike = membrane > lanes[THRESHOLD_AT + j]
        lanes[IN_U + j] = current
        lanes[IN_V + j] = I32(0) if spike else membrane
        raster[U(at) + j] = spike
        lanes[j] = I32(0)
        sums[j] = I16(0)


@piece
def fire_brief(lanes: Int32, sums: Int16, raster: Bytes, at: int) -> None:
    """The same where nothing of u is left after a step, its sum cannot leave 24 bits, and nobody reads it."""
    for k in range(TILE):
        j = U(k)
        current = I32(I32(lanes[j] + I32(sums[j])) << 6)
        drift = I32(decay(lanes[IN_V + j], lanes[KEEP_V_AT + j]) + current)
        membrane = saturate(I32(drift + lanes[BIAS_AT + j]), -LIMIT, LIMIT)
        spike = membrane > lanes[THRESHOLD_AT + j]
        lanes[IN_V + j] = I32(0) if spike else membrane
        raster[U(at) + j] = spike
        lanes[j] = I32(0)
        sums[j] = I16(0)


@piece
def fire_sums(lanes: Int32, sums: Int16, raster: Bytes, at: int) -> None:
    """`fire_brief` of what has arrived in 16 bits alone; the sums stay."""
    for k in range(TILE):
        j = U(k)
        drift = I32(decay(lanes[IN_V + j], lanes[KEEP_V_AT + j]) + I32(I32(sums[j]) << 6))
        membrane = saturate(I32(drift + lanes[BIAS_AT + j]), -LIMIT, LIMIT)
        spike = membrane > lanes[THRESHOLD_AT + j]
        lanes[IN_V + j] = I32(0) if spike else membrane
        raster[U(at) + j] = spike


@disjoint
def run_simple(
    lanes: Int32,
    sums: Int16,
    tiles: Int16,
    base: int,
    nothing: int,
    span: Int64,
    lag: int,
    most: int,
    events: Int32,
    raster: Bytes,
    here: int,
    pitch: int,
    brief: bool,
) -> None:
    """All steps of a tile that one projection leads to and of which nothing is asked but its spikes. span: of its
    source; nothing: the row of zeros. The rest as in `run_tile`."""
    wide()
    for t in range(span.shape[0]):
        for k in range(TILE):
            sums[U(k)] = I16(0)
        begin, end = I64(0), I64(0)
        if t >= lag:
            begin, end = span[U(t - lag), BEGIN], span[U(t - lag), END]
        many = (end - begin) * most <= HOLDS
        while not many and begin < end:
            until = min(end, begin + HOLDS // most)
            add_groups(sums, tiles, base, events, begin, until, nothing)
            flush(lanes, sums)
            begin = until
        add_groups(sums, tiles, base, events, begin, end, nothing)
        if not brief:
            fire(lanes, sums, raster, t * pitch + here)
        elif many:
            fire_sums(lanes, sums, raster, t * pitch + here)
        else:
            fire_brief(lanes, sums, raster, t * pitch + here)


@disjoint
def run_tile(
    lanes: Int32,
    sums: Int16,
    tiles: Int16,
    here: int,
    many: int,
    populations: Int64,
    arcs: Int64,
    neurons: Int32,
    p: int,
    span: Int64,
    events: Int32,
    raster: Bytes,
    pitch: int,
    probes: Int32,
    columns: Int64,
    readout: int,
    depth: int,
    scores: Int64,
    b: int,
) -> None:
    """All steps of a tile of population p, whose first neuron is ``here`` there, ``many`` of them real. pitch: bytes of
    the raster from step to step. readout: as in `record`, or COUNT where this is not the output."""
    wide()
    arc_begin, arc_end = populations[ARC, p], populations[ARC, p + 1]
    a_column, u_column, v_column = columns[A_ROW, p], columns[U_ROW, p], columns[V_ROW, p]
    probed = a_column >= 0 or u_column >= 0 or v_column >= 0
    brief, lo = populations[BRIEF, p] == 1 and not probed, populations[FIRST, p] + here
    at_a, at_u, at_v = I64(0), I64(IN_U), I64(IN_V)
    for t in range(span.shape[1]):
        taken = I64(0)  # of what 16 bits hold
        for k in range(arc_begin, arc_end):
            arc = U(k)
            source, then, most = U(arcs[SOURCE, arc]), t - arcs[LAG, arc], arcs[MOST, arc]
            if then < 0:
                continue
            base = arcs[TILES, arc] + here * (populations[FIRST, source + U(1)] - populations[FIRST, source] + 1)
            begin, end = span[source, U(then), BEGIN], span[source, U(then), END]
            while begin < end:
                until = end
                if taken + (end - begin) * most > HOLDS:
                    flush(lanes, sums)
                    taken, until = I64(0), min(end, begin + HOLDS // most)
                add_rows(sums, tiles, base, events, begin, until)
                taken += (until - begin) * most
                begin = until
        if probed:
            flush(lanes, sums)
            write(neurons, lo, many, lanes, at_a, probes, t, b, a_column)
        if brief:
            fire_brief(lanes, sums, raster, t * pitch + here)
        else:
            fire(lanes, sums, raster, t * pitch + here)
        if probed:
            write(neurons, lo, many, lanes, at_u, probes, t, b, u_column)
            write(neurons, lo, many, lanes, at_v, probes, t, b, v_column)
        if readout != COUNT and t >= depth:
            score(readout, neurons, lo, many, lanes, at_v, t - depth, scores, b)


@kernel
def load(registers: Int32, lanes: Int32, begin: int, end: int) -> None:
    """Neurons begin..end-1 at rest into the first lanes; the others never fire."""
    for k in range(LANES):
        lanes[k] = 0
    for k in range(TILE):
        lanes[THRESHOLD_AT + U(k)] = I32(2147483647)
    for k in range(end - begin):
        i, j = U(begin + k), U(k)
        lanes[KEEP_U_AT + j] = registers[KEEP_U, i]
        lanes[KEEP_V_AT + j] = registers[KEEP_V, i]
        lanes[BIAS_AT + j] = registers[BIAS, i]
        lanes[THRESHOLD_AT + j] = registers[THRESHOLD, i]


@disjoint
def copy_rows(raster: Bytes, pitch: int, spikes: Bytes, b: int, first: int, many: int) -> None:
    """The raster of a population as recorded spikes, from neuron ``first`` on."""
    if sends(spikes, U(first) | U(many)):
        begin = U(b) * U(spikes.shape[1]) * U(spikes.shape[2]) + U(first)
        for t in range(U(spikes.shape[1])):
            for k in range(0, U(many), LINE):
                send(spikes, begin + U(t) * U(spikes.shape[2]) + U(k), raster, U(t) * U(pitch) + U(k))
        return
    for t in range(spikes.shape[1]):
        for k in range(U(many)):
            spikes[b, t, U(first) + U(k)] = raster[U(t) * U(pitch) + U(k)]


@disjoint
def count(
    sums: Int16, raster: Bytes, at: int, pitch: int, since: int, steps: int, scores: Int64, b: int, n: int
) -> None:
    """Spikes of a tile, whose first neuron is ``at``, in steps since..steps-1, added to scores[at : at + n]."""
    wide()
    begin = since
    while begin < steps:
        until = min(steps, begin + HOLDS)
        for t in range(U(begin), U(until)):
            for k in range(TILE):
                sums[U(k)] = I16(sums[U(k)] + I16(raster[U(t) * U(pitch) + U(at) + U(k)]))
        for k in range(U(n)):
            scores[b, U(at) + U(k)] += I64(sums[U(k)])
        for k in range(TILE):
            sums[U(k)] = I16(0)
        begin = until


@piece
def run_layer(net: Packed, work: Work, out: Out, p: int, b: int, used: int, depth: int) -> int:
    """All steps of population p of sample b; events go to work.events from ``used`` on, whose new end it returns, or
    TOO_SHORT. Of a silent one nothing is listed, only counted."""
    populations, lanes, raster, rows, span = net.populations, work.lanes, work.raster, work.rows, work.span
    lo, hi, steps = populations[FIRST, p], populations[FIRST, p + 1], span.shape[1]
    blocks = populations[BLOCK, p + 1] - populations[BLOCK, p]
    pitch, is_output, silent = TILE * blocks, p == net.output, populations[SILENT, p] == 1
    readout = net.readout if is_output else COUNT
    arc, columns = populations[ARC, p], out.columns
    source = net.arcs[SOURCE, arc] if populations[ARC, p + 1] > arc else p
    probed = columns[A_ROW, p] >= 0 or columns[U_ROW, p] >= 0 or columns[V_ROW, p] >= 0
    simple = populations[ARC, p + 1] == arc + 1 and not probed and readout == COUNT
    sources = populations[FIRST, source + 1] - populations[FIRST, source]
    for tile in range(blocks):
        here = TILE * tile
        many = min(TILE, hi - lo - here)
        load(net.registers, lanes, lo + here, lo + here + many)
        if simple:
            base = net.arcs[TILES, arc] + here * (sources + 1)
            lag, most, brief = net.arcs[LAG, arc], net.arcs[MOST, arc], populations[BRIEF, p] == 1
            fixed = sources, span[source], lag, most, work.events, raster, here, pitch, brief
            run_simple(lanes, work.sums, net.tiles, base, *fixed)
        else:
            run_tile(
                *(lanes, work.sums, net.tiles, here, many, populations, net.arcs, net.neurons, p, span, work.events),
                *(raster, pitch, out.probes, columns, readout, depth, out.scores, b),
            )
        if silent and is_output and readout == COUNT:
            for k in range(TILE):
                work.sums[U(k)] = I16(0)
            count(work.sums, raster, here, pitch, depth, steps, out.scores, b, many)
    if out.spikes.size > 0:
        copy_rows(raster, pitch, out.spikes, b, lo - populations[FIRST, 1], hi - lo)
    if silent:
        core = net.neurons[CORE, lo]
        for t in range(steps):
            many = I64(0)
            for block in range(t * blocks, (t + 1) * blocks):
                many += I64(ones(set_bytes(rows, U(8 * block))))
            out.booked[SPIKES, b, t, core] += many
        return used
    for t in range(steps):
        if used + hi - lo > work.events.size - AHEAD:
            return TOO_SHORT
        begin = used
        used = collect(rows, t * blocks, (t + 1) * blocks, work.events, used)
        span[p, t, BEGIN], span[p, t, END] = begin, used
    since = depth if is_output and readout == COUNT else steps
    everything = out.booked, out.spikes, out.scores, since, b
    settle(work.events, span, p, populations, net.neurons, net.fan, net.fans, *everything)
    return used
