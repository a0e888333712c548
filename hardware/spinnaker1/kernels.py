"""One step of the machine, compiled: update cores, collect their spikes, process rows (neuro.jit).

In step t every core takes its ring buffers of the slot and updates its neurons (`neurons`); then the rows of all
spikes of step t are added to ring buffers, source population by population, neurons ascending, late blocks with the
spikes of earlier steps. Cores touch nothing of each other in either phase, so they may run in any threads.

Counters. Row work is booked in the step in which the rows are processed; packets, hops and spikes in the step of the
spike, on the core that sends them (a delay extension's packets too).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.spikes import Blocks, spread
from neuro.hardware.spinnaker1.fixed import Integer
from neuro.hardware.spinnaker1.neurons import DELTA, State, update_delta, update_exp
from neuro.hardware.spinnaker1.packed import Packed, Quick
from neuro.hardware.spinnaker1.ring import Ring, add_row
from neuro.jit import kernel, piece

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Bytes = NDArray[np.uint8]
I64: Any = np.int64  # what it makes is an int to mypy
COUNT, SUM, MAX, LAST = 0, 1, 2, 3  # neuro.ir.READOUTS
SYNOPS, SPIKES, PACKETS, HOPS, MEMORY, SATURATED = range(6)
VARIABLES = ("v", "refract", "exc", "inh")


class Work(NamedTuple):
    """Room for one run. fired: per neuron, spikes of a core from its first neuron on; fired_count: [cores].

    history: spikes of each population in its last steps; those of population p in step t are
    history[at[p] + (t mod depth[p]) * room[p]:][:counted[p, t mod depth[p]]]. rows: room for those of one of them."""

    state: State
    ring: Ring
    fired: Int32
    fired_count: Int64
    history: Int32
    at: Int64
    room: Int64
    counted: Int64
    rows: Int32


class Out(NamedTuple):
    """What one run fills. booked: [6, steps, cores]. spikes: [steps, neurons] or empty. probes: [steps, columns];
    columns: [4, populations] where v, refract, exc, inh of each go, or -1. scores: [n of the output].
    injected: [steps]. events: (population << 32 | neuron) of all spikes in order, ends: [steps] where each step's
    end; both empty unless asked for."""

    booked: Int64
    spikes: Bytes
    probes: Int32
    columns: Int64
    scores: Int64
    injected: Int64
    events: Int64
    ends: Int64


@piece
def update_cores(net: Packed, work: Work, begin: Integer, end: Integer, t: Integer, injected: Int32) -> None:
    """Take the ring buffers of slot t and update the neurons of cores begin..end-1."""
    for c in range(begin, end):
        lo, hi = net.core_lo[c], net.core_hi[c]
        if lo == hi:
            continue
        exc_at = net.core_ring[c] + ((t << net.core_shift[c]) & net.core_mask[c])
        inh_at = exc_at + net.core_type[c]
        if net.core_model[c] == DELTA:
            count = update_delta(
                net.constants, work.state, lo, hi, work.ring, exc_at, inh_at, net.core_exc[c], net.core_inh[c],
                injected, work.fired, lo,
            )  # fmt: skip
        else:
            count = update_exp(
                net.constants, work.state, lo, hi, work.ring, exc_at, inh_at, net.core_exc[c], net.core_inh[c],
                injected, work.fired, lo,
            )  # fmt: skip
        work.fired_count[c] = count


@piece
def collect_spikes(net: Packed, work: Work, out: Out, t: Integer, row: Integer) -> None:
    """Join the spikes of cores to those of populations, and book them as step ``row`` of ``out``."""
    for p in range(1, net.size.size):
        work.counted[p, t % net.depth[p]] = 0
    for c in range(net.core_lo.size):
        if net.core_lo[c] == net.core_hi[c]:
            continue
        p = net.core_pop[c]
        slot = t % net.depth[p]
        at = work.at[p] + slot * work.room[p] + work.counted[p, slot]
        lo, ahead = net.core_lo[c], net.core_lo[c] - net.first[p]
        for e in range(work.fired_count[c]):
            neuron = ahead + work.fired[lo + e]
            work.history[at + e] = neuron
            unit = net.unit[p] + neuron
            if net.relay[unit] >= 0:
                _book_relay(net, out, unit, row)
            if out.spikes.size > 0:
                out.spikes[row, net.first[p] + neuron] = 1
        count = work.fired_count[c]
        work.counted[p, slot] += count
        out.booked[SPIKES, row, c] += count
        out.booked[PACKETS, row, c] += count * net.packets[c]
        out.booked[HOPS, row, c] += count * net.hops[c]


@kernel
def _book_relay(net: Packed, out: Out, unit: Integer, row: Integer) -> None:
    relay = net.relay[unit]
    out.booked[PACKETS, row, relay] += net.relay_packets[unit]
    out.booked[HOPS, row, relay] += net.relay_packets[unit] * net.hops[relay]


@kernel
def deliver_rows(net: Packed, work: Work, out: Out, begin: Integer, end: Integer, t: Integer, row: Integer) -> None:
    """Process the rows of the spikes of step t on cores begin..end-1."""
    for c in range(begin, end):
        synops, fetched, saturated = np.int64(0), np.int64(0), np.int64(0)
        ring, shift, mask = net.core_ring[c], net.core_shift[c], net.core_mask[c]
        for b in range(net.block[c], net.block[c + 1]):
            p, then = net.block_pop[b], t - net.block_lag[b]
            if then < 0:
                continue
            slot = then % net.depth[p]
            first, word = np.uintp(net.block_row[b]), np.int64(net.block_word[b])
            events = work.at[p] + slot * work.room[p]
            for e in range(np.uintp(events), np.uintp(events + work.counted[p, slot])):
                k = first + np.uintp(work.history[np.uintp(e)])
                start, stop = word + np.int64(net.row_start[k]), word + np.int64(net.row_start[k + np.uintp(1)])
                if start < stop:
                    saturated += add_row(work.ring, ring, net.words, start, stop, t, shift, mask)
                    synops += stop - start
                    fetched += net.block_bytes[b]
        out.booked[SYNOPS, row, c] += synops
        out.booked[MEMORY, row, c] += fetched
        out.booked[SATURATED, row, c] += saturated


@piece
def deliver_quick(net: Packed, blocks: Blocks, work: Work, out: Out, c: Integer, t: Integer, row: Integer) -> None:
    """`deliver_rows` of one core whose ring buffers cannot run over: the same sums, in another order. No source has
    spiked twice in a step."""
    none, synops, fetched = I64(0), np.int64(0), np.int64(0)
    ring = work.ring[net.core_ring[c] :]
    now = (t << net.core_shift[c]) & net.core_mask[c]
    for b in range(net.block[c], net.block[c + 1]):
        p, then = net.block_pop[b], t - net.block_lag[b]
        if then < 0:
            continue
        slot, first, count = then % net.depth[p], net.block_row[b], I64(0)
        events = work.at[p] + slot * work.room[p]
        for e in range(np.uintp(events), np.uintp(events + work.counted[p, slot])):
            k = np.uintp(first) + np.uintp(work.history[np.uintp(e)])
            many = np.int64(net.row_start[k + np.uintp(1)]) - np.int64(net.row_start[k])
            if many > 0:
                work.rows[np.uintp(count)] = np.int32(k)
                count += 1
                synops += many
        spread(ring, net.core_mask[c] + 1, now, work.rows, none, count, blocks)
        fetched += count * net.block_bytes[b]
    out.booked[SYNOPS, row, c] += synops
    out.booked[MEMORY, row, c] += fetched


@piece
def enter_dense(net: Packed, work: Work, out: Out, dense: Bytes, t: Integer, row: Integer) -> None:
    """dense: [n_inputs] of 0 and 1: the input's spikes of step t."""
    slot = t % net.depth[0]
    at = work.at[0] + slot * work.room[0]
    count = np.int64(0)
    for i in range(dense.size):
        if dense[i] != 0:
            work.history[at + count] = i
            count += 1
    _entered(net, work, out, slot, at, count, row)


@kernel
def enter_events(
    net: Packed, work: Work, out: Out, events: Int32, begin: Integer, end: Integer, t: Integer, row: Integer
) -> None:
    """events[begin:end]: the input's spikes of step t, in the order in which they are processed; some may repeat."""
    slot = t % net.depth[0]
    at = work.at[0] + slot * work.room[0]
    for e in range(begin, end):
        work.history[at + e - begin] = events[e]
    _entered(net, work, out, slot, at, end - begin, row)


@kernel
def _entered(net: Packed, work: Work, out: Out, slot: Integer, at: Any, count: Integer, row: Integer) -> None:
    work.counted[0, slot] = count
    out.injected[row] = count
    for e in range(at, at + count):
        unit = np.int64(work.history[e])
        if net.relay[unit] >= 0:
            _book_relay(net, out, unit, row)


@piece
def note(net: Packed, work: Work, out: Out, t: Integer, row: Integer, since: Integer) -> None:
    """Probes, events and scores of step t. since: steps since the readout's window began."""
    s = work.state
    for p in range(1, net.size.size):
        lo = net.first[p]
        for k in range(4):
            column = out.columns[k, p]
            if column >= 0:
                for i in range(net.size[p]):
                    if k == 0:
                        out.probes[row, column + i] = s.v[lo + i]
                    elif k == 1:
                        out.probes[row, column + i] = s.refract[lo + i]
                    elif k == 2:
                        out.probes[row, column + i] = s.exc[lo + i]
                    else:
                        out.probes[row, column + i] = s.inh[lo + i]
    if out.ends.size > 0:
        _list_events(net, work, out, t, row)
    if since >= 0 and out.scores.size > 0:
        _score(net, work, out, t, since)


@kernel
def _list_events(net: Packed, work: Work, out: Out, t: Integer, row: Integer) -> None:
    end = out.ends[row - 1] if row > 0 else np.int64(0)
    for p in range(1, net.size.size):
        slot = t % net.depth[p]
        at = work.at[p] + slot * work.room[p]
        for e in range(at, at + work.counted[p, slot]):
            out.events[end] = (p << 32) | np.int64(work.history[e])
            end += 1
    out.ends[row] = end


@kernel
def _score(net: Packed, work: Work, out: Out, t: Integer, since: Integer) -> None:
    p = net.output
    if net.readout == COUNT:
        slot = t % net.depth[p]
        at = work.at[p] + slot * work.room[p]
        for e in range(at, at + work.counted[p, slot]):
            out.scores[work.history[e]] += 1
        return
    for i in range(net.size[p]):
        v = np.int64(work.state.v[net.first[p] + i])
        if net.readout == SUM:
            out.scores[i] += v
        elif net.readout == LAST or since == 0 or v > out.scores[i]:
            out.scores[i] = v


@kernel
def run_sample(net: Packed, quick: Quick, work: Work, out: Out, dense: Bytes, nothing: Int32, depth: Integer) -> None:
    """One sample from the state in ``work``: dense [steps, n_inputs], steps as ``out`` has."""
    cores = net.core_lo.size
    for t in range(out.injected.size):
        enter_dense(net, work, out, dense[t], t, t)
        update_cores(net, work, 0, cores, t, nothing)
        collect_spikes(net, work, out, t, t)
        note(net, work, out, t, t, t - depth)
        for c in range(cores):
            if quick.cores[c]:
                deliver_quick(net, quick.blocks, work, out, c, t, t)
            else:
                deliver_rows(net, work, out, c, c + 1, t, t)


@kernel
def run_events(net: Packed, work: Work, out: Out, events: Int32, ends: Int64, injected: Int32, t0: Integer) -> None:
    """Steps t0.. of a long run in one thread: events of step k are events[ends[k]:ends[k + 1]].

    injected: s16.15 [steps, neurons], or [steps, 0] for none."""
    cores = net.core_lo.size
    for k in range(out.injected.size):
        t = t0 + k
        enter_events(net, work, out, events, ends[k], ends[k + 1], t, k)
        update_cores(net, work, 0, cores, t, injected[k])
        collect_spikes(net, work, out, t, k)
        note(net, work, out, t, k, -1)
        deliver_rows(net, work, out, 0, cores, t, k)
