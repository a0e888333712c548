"""A layer of LIF neurons behind dense matrices, 64 neurons at a time over all steps: compiled (neuro.jit).

Where nothing comes back to a layer within a sample, its neurons need not wait for each other. So 64 of them, a tile,
go through all steps before the next 64 begin, and what they need stays near: their 64 weights of every source
(`Packed.tiles`: [tile][source][64], int16), and u, v and the registers, in `lanes`. Weights are added up in 16 bits,
twice as many at a time as in 32, for as long as their largest cannot leave them. The arithmetic is that of
`neurons.update` and `delivery.scatter_rows`; integers add up to the same in whatever order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.integer import decay, saturate, wrap_once
from neuro.hardware.loihi2.neurons import LIMIT
from neuro.hardware.loihi2.packed import TILE, Packed
from neuro.hardware.loihi2.record import (
    A_ROW,
    AHEAD,
    COUNT,
    LAST,
    SUM,
    U_ROW,
    V_ROW,
    Out,
    Work,
    book_population,
    collect,
    settle,
)
from neuro.jit import disjoint, kernel, piece, wide

I16 = np.int16
I32 = np.int32
U = np.uintp  # an index that cannot be negative: the compiler drops Python's wrap-around and vectorises
HOLDS = 32767  # int16
# where each variable and register of a tile stands in `lanes`; what arrives stands first
IN_U, IN_V, KEEP_U, KEEP_V, BIAS, THRESHOLD, LANES = (U(k * TILE) for k in range(1, 8))

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
        current = wrap_once(I32(decay(lanes[IN_U + j], lanes[KEEP_U + j]) + I32(arrived << 6)))
        drift = I32(decay(lanes[IN_V + j], lanes[KEEP_V + j]) + current)
        membrane = saturate(I32(drift + lanes[BIAS + j]), -LIMIT, LIMIT)
        spike = membrane > lanes[THRESHOLD + j]
        lanes[IN_U + j] = current
        lanes[IN_V + j] = I32(0) if spike else membrane
        raster[U(at) + j] = spike
        lanes[j] = I32(0)
        sums[j] = I16(0)


@piece
def fire_brief(lanes: Int32, sums: Int16, raster: Bytes, at: int) -> None:
    """The same where nothing of u is left after a step and its sum cannot leave 24 bits."""
    for k in range(TILE):
        j = U(k)
        current = I32(I32(lanes[j] + I32(sums[j])) << 6)
        drift = I32(decay(lanes[IN_V + j], lanes[KEEP_V + j]) + current)
        membrane = saturate(I32(drift + lanes[BIAS + j]), -LIMIT, LIMIT)
        spike = membrane > lanes[THRESHOLD + j]
        lanes[IN_U + j] = current
        lanes[IN_V + j] = I32(0) if spike else membrane
        raster[U(at) + j] = spike
        lanes[j] = I32(0)
        sums[j] = I16(0)


@piece
def note(lanes: Int32, first: np.uintp, probes: Int32, t: int, b: int, column: int, many: int) -> None:
    """A probe's values of one step, from column on; column < 0: not asked for."""
    if column >= 0:
        for j in range(many):
            probes[t, b, column + j] = lanes[first + U(j)]


@piece
def tally(lanes: Int32, readout: int, since: int, scores: Int64, b: int, first: int, many: int) -> None:
    """`record.score` for readouts that read the membrane."""
    for j in range(many):
        value = np.int64(lanes[IN_V + U(j)])
        if readout == SUM:
            scores[b, first + j] += value
        elif readout == LAST or since == 0:
            scores[b, first + j] = value
        else:
            scores[b, first + j] = max(scores[b, first + j], value)


@disjoint
def run_tile(
    lanes: Int32,
    sums: Int16,
    tiles: Int16,
    tile: int,
    many: int,
    arc_begin: int,
    arc_end: int,
    arc_source: Int64,
    arc_lag: Int64,
    arc_tiles: Int64,
    arc_most: Int64,
    first: Int64,
    start: Int64,
    stop: Int64,
    events: Int32,
    brief: bool,
    raster: Bytes,
    pitch: int,
    probes: Int32,
    columns: Int64,
    p: int,
    readout: int,
    depth: int,
    scores: Int64,
    b: int,
) -> None:
    """All steps of a tile of population p, ``many`` neurons of it real. pitch: bytes of the raster from step to step.
    readout: as in `record`, or COUNT where this is not the output."""
    wide()
    here = TILE * tile
    a_column, u_column, v_column = columns[A_ROW, p], columns[U_ROW, p], columns[V_ROW, p]
    probed = a_column >= 0 or u_column >= 0 or v_column >= 0
    for t in range(start.shape[1]):
        taken = 0  # of what 16 bits hold
        for arc in range(arc_begin, arc_end):
            source, then, most = arc_source[arc], t - arc_lag[arc], arc_most[arc]
            if then < 0:
                continue
            base = arc_tiles[arc] + here * (first[source + 1] - first[source])
            begin, end = start[source, then], stop[source, then]
            while begin < end:
                until = end
                if taken + (end - begin) * most > HOLDS:
                    flush(lanes, sums)
                    taken, until = 0, min(end, begin + HOLDS // most)
                add_rows(sums, tiles, base, events, begin, until)
                taken += (until - begin) * most
                begin = until
        if probed:
            flush(lanes, sums)
            note(lanes, U(0), probes, t, b, a_column + here if a_column >= 0 else a_column, many)
        if brief:
            fire_brief(lanes, sums, raster, t * pitch + here)
        else:
            fire(lanes, sums, raster, t * pitch + here)
        if probed:
            note(lanes, IN_U, probes, t, b, u_column + here if u_column >= 0 else u_column, many)
            note(lanes, IN_V, probes, t, b, v_column + here if v_column >= 0 else v_column, many)
        if readout != COUNT and t >= depth:
            tally(lanes, readout, t - depth, scores, b, here, many)


@kernel
def load(net: Packed, lanes: Int32, begin: int, end: int) -> None:
    """Neurons begin..end-1 at rest into the first lanes; the others never fire."""
    for k in range(LANES):
        lanes[k] = 0
    for k in range(TILE):
        lanes[THRESHOLD + U(k)] = I32(2147483647)
    for k in range(end - begin):
        i, j = begin + k, U(k)
        lanes[KEEP_U + j] = net.keep_u[i]
        lanes[KEEP_V + j] = net.keep_v[i]
        lanes[BIAS + j] = net.bias[i]
        lanes[THRESHOLD + j] = net.threshold[i]


@disjoint
def copy_rows(raster: Bytes, pitch: int, spikes: Bytes, b: int, first: int, many: int) -> None:
    """The raster of a population as recorded spikes, from neuron ``first`` on."""
    for t in range(spikes.shape[0]):
        for k in range(U(many)):
            spikes[t, b, U(first) + U(k)] = raster[U(t) * U(pitch) + U(k)]


@piece
def run_layer(net: Packed, work: Work, out: Out, p: int, b: int, used: int, depth: int) -> int:
    """All steps of population p of sample b; events go to work.events from ``used`` on, whose new end it returns, or
    -1: too short."""
    lo, hi, blocks = net.first[p], net.first[p + 1], net.block[p + 1] - net.block[p]
    readout = net.readout if p == net.output else COUNT
    for tile in range(blocks):
        begin = lo + TILE * tile
        end = min(begin + TILE, hi)
        load(net, work.lanes, begin, end)
        run_tile(
            work.lanes,
            work.sums,
            net.tiles,
            tile,
            end - begin,
            net.arc[p],
            net.arc[p + 1],
            net.arc_source,
            net.arc_lag,
            net.arc_tiles,
            net.arc_most,
            net.first,
            work.start,
            work.stop,
            work.events,
            net.brief[p] == 1,
            work.raster,
            TILE * blocks,
            out.probes,
            out.columns,
            p,
            readout,
            depth,
            out.scores,
            b,
        )
    if out.spikes.size > 0:
        copy_rows(work.raster, TILE * blocks, out.spikes, b, lo - net.first[1], hi - lo)
    for t in range(work.start.shape[1]):
        if used + hi - lo > work.events.size - AHEAD:
            return -1
        begin = used
        used = collect(work.rows, t * blocks, (t + 1) * blocks, work.events, used)
        settle(net, work, out, p, b, t, begin, used, t - depth, True)
    book_population(net, work, out, p, b, 0, work.start.shape[1])
    return used
