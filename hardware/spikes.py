"""What every simulated chip does with spikes, whatever its arithmetic: find them, and add what they send to sums of
integers. Compiled, for kernels of any chip (neuro.jit).

Synapses stand by source neuron in `Blocks`: where a spike reaches at least `FEW` of 16 neurons that stand side by side,
their 16 weights are added at once, zeros among them; the rest are added one by one. So a dense matrix costs a sixteenth
of what its synapses would one at a time, a sparse one no more than before, and time falls with the number of spikes in
both. Which way a synapse goes depends on its neighbours alone, never on a clock; integers add up to the same in
whatever order, so both ways give the same bits.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.vectors import BLOCK, add_block, add_four
from neuro.jit import disjoint, ones, places, set_bytes

I64: Any = np.int64  # what it makes is an int to mypy
U = np.uintp  # an index that cannot be negative: the compiler drops Python's wrap-around and vectorises
U64 = np.uint64
FEW = 3  # synapses of a block from which it costs less than they do (measured, bench_chips.py)
AHEAD = 64  # places behind the last event that `collect` may write

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Words = NDArray[np.uint64]


class Blocks(NamedTuple):
    """Synapses by source. first: int64[sources + 1] into at, int32, and by sixteen into weight, int16 where all weights
    fit, else int32 or int64. pattern: int32[sources], equal where sources have the same blocks and nothing else, else
    -1; four of those are added up at a time. alone: int64[sources + 1] into to, int32, and single, as weight. at, to:
    place in a ring of sums, delay * width + neuron (of a block its first)."""

    first: Int64
    pattern: Int32
    at: Int32
    weight: NDArray[Any]
    alone: Int64
    to: Int32
    single: NDArray[Any]


def width_of(neurons: int) -> int:
    """Places of so many sums: a block that begins at the last of them fits."""
    return BLOCK * -(-neurons // BLOCK) + BLOCK


def blocks_of(source: Int64, late: Int64, target: Int64, weight: Int64, sources: int, parts: Int64) -> Blocks:
    """Lay out synapses; the first four are int64[synapses], pairs may repeat. late: delay beyond a step, in steps.
    parts: where each population of targets begins, and the end; blocks begin with each, so that in a dense layer all
    sources have the same."""
    width, many = width_of(int(parts[-1])), int(late.max(initial=0)) + 1
    begins = _begins(-(-np.diff(parts) // BLOCK))  # blocks before each population
    places = np.repeat(parts[:-1] - begins[:-1] * BLOCK, np.diff(begins)) + np.arange(begins[-1]) * BLOCK
    part = np.searchsorted(parts, target, side="right") - 1
    column = late * begins[-1] + begins[part] + (target - parts[part]) // BLOCK
    columns = many * int(begins[-1])
    key, which, count = np.unique(source * columns + column, return_inverse=True, return_counts=True)
    which = which.reshape(-1)
    reached = key % max(1, columns)
    usual = np.bincount(reached, count, columns) >= FEW * np.bincount(reached, minlength=columns)
    whole = (count >= FEW) | usual[reached]  # the last few neurons of a dense layer are no exception
    inside = whole[which]
    rows = np.zeros((int(whole.sum()), BLOCK), np.int64)
    np.add.at(rows, ((np.cumsum(whole) - 1)[which[inside]], (target - parts[part])[inside] % BLOCK), weight[inside])
    order = np.argsort(source[~inside], kind="stable")
    left = [a[~inside][order] for a in (source, late, target, weight)]
    kind, alone = _kind(rows, left[3]), _begins(np.bincount(left[0], minlength=sources))
    first = _begins(np.bincount(key[whole] // max(1, columns), minlength=sources))
    delay, block = np.divmod(reached[whole], max(1, int(begins[-1])))
    at = delay * width + places[block]
    return Blocks(
        first=first,
        pattern=_patterns(first, at, alone),
        at=at.astype(np.int32),
        weight=rows.reshape(-1).astype(kind),
        alone=alone,
        to=(left[1] * width + left[2]).astype(np.int32),
        single=left[3].astype(kind),
    )


def order_of(shape: tuple[int, ...], source: Int64, late: Int64, target: Int64) -> Int64:
    """The order in which neurons of a population should stand, as row-major indices: of an image channels last where
    that needs fewer blocks, which it does behind a convolution. target: row-major index in the population."""
    flat: Int64 = np.arange(math.prod(shape), dtype=np.int64)
    if len(shape) != 3 or shape[0] == 1 or not target.size:
        return flat
    last = np.ascontiguousarray(flat.reshape(shape).transpose(1, 2, 0)).reshape(-1)
    place = np.argsort(last)

    def cost(at: Int64) -> int:
        many = int(late.max()) + 1
        spot = (source * many + late) * (flat.size // BLOCK + 1) + at // BLOCK
        count = np.unique(spot, return_counts=True)[1]
        return int(np.minimum(count, FEW).sum())

    return last if cost(place[target]) < cost(target) else flat


def _patterns(first: Int64, at: Int64, alone: Int64) -> Int32:
    """`Blocks.pattern`."""
    seen: dict[bytes, int] = {}
    found = np.full(first.size - 1, -1, np.int32)
    for i in np.flatnonzero((np.diff(first) > 0) & (np.diff(alone) == 0)).tolist():
        found[i] = seen.setdefault(at[first[i] : first[i + 1]].tobytes(), len(seen))
    return found


def _begins(count: Int64) -> Int64:
    return np.concatenate([[0], np.cumsum(count)]).astype(np.int64)


def _kind(*arrays: Int64) -> type[np.signedinteger[Any]]:
    most = max(int(np.abs(a).max(initial=0)) for a in arrays)
    return np.int16 if most < 1 << 15 else np.int32 if most < 1 << 31 else np.int64


@disjoint
def collect(flags: Words, first: int, last: int, events: Int32, end: int) -> int:
    """Append to events[end:] the places of the ones in the bytes (0 or 1) of blocks first..last-1; the new end.
    A block is 64 neurons, eight words."""
    e = U(end)
    for block in range(U(first), U(last)):
        mask = set_bytes(flags, U(block) << U(3))
        if mask != U64(0):
            places(mask, I64((block - U(first)) << U(6)), events, e)
            e += U(ones(mask))
    return np.int64(e)  # type: ignore[return-value]  # to a kernel an int is an int64


@disjoint
def enter(dense: Bytes, t: int, b: int, fired: Bytes) -> None:
    """The input of step t of sample b, dense [length, batch, inputs], into the first bytes of fired; then silence."""
    n = U(dense.shape[2])
    if t >= dense.shape[0]:
        for k in range(n):
            fired[U(k)] = 0
        return
    for k in range(n):
        fired[U(k)] = dense[U(t), U(b), U(k)]


class Costs(NamedTuple):
    """What a spike of each neuron causes. fan: int64[neurons + 1] into core and synapses, int64: cores that it reaches.
    own: int64[neurons], where it is sent from, -1 for an input, whose spikes are ``injected``; packets, hops: alike."""

    fan: Int64
    core: Int64
    synapses: Int64
    own: Int64
    packets: Int64
    hops: Int64


def costs_of(source: Int64, target: Int64, own: Int64, cores: int, xy: Int64 | None = None) -> Costs:
    """From synapses, int64[synapses] source and target. Packets: one per core that is reached, and hops on the mesh
    from core to core; without ``xy`` one for all of them, which a multicast fabric needs, and no hops."""
    n = own.size
    pairs, synapses = np.unique(source * max(cores, 1) + own[target], return_counts=True)
    spiking, there = np.divmod(pairs, max(cores, 1))
    fan = np.searchsorted(spiking, np.arange(n + 1)).astype(np.int64)
    packets, hops = np.diff(fan) * (own >= 0), np.zeros(n, np.int64)
    if xy is None:
        packets = np.minimum(packets, 1)
    else:
        links = np.abs(xy[own[spiking]] - xy[there]).sum(axis=1) if there.size else np.zeros(0, np.int64)
        hops = np.bincount(spiking, links, n).astype(np.int64) * (own >= 0)
    return Costs(fan, there.astype(np.int64), synapses.astype(np.int64), own, packets, hops)


@disjoint
def book(
    costs: Costs,
    events: Int32,
    end: int,
    synops: Int64,
    spikes: Int64,
    packets: Int64,
    hops: Int64,
    at: int,
    first: int,
) -> int:
    """Add what the spikes events[:end] of a step, ascending, cause to flat counters, those of core c at ``at`` + c; how
    many of them are inputs: of neurons before ``first``."""
    fan, core, synapses, own = costs.fan, costs.core, costs.synapses, costs.own
    from_, injected = U(at), 0
    for e in range(U(end)):
        i = U(events[U(e)])
        for f in range(U(fan[i]), U(fan[i + U(1)])):
            synops[from_ + U(core[U(f)])] += synapses[U(f)]
        if events[U(e)] < first:
            injected += 1
            continue
        here = from_ + U(own[i])
        spikes[here] += 1
        packets[here] += costs.packets[i]
        hops[here] += costs.hops[i]
    return injected


@disjoint
def spread(sums: NDArray[Any], room: int, now: int, events: Int32, begin: int, end: int, blocks: Blocks) -> None:
    """Add what the spikes of neurons events[begin:end] send to a ring of sums, flat [slots * width], from place ``now``
    of it on, a multiple of its width. room: places of the ring, behind which there may be more in the array."""
    first, pattern, at, weight = blocks.first, blocks.pattern, blocks.at, blocks.weight
    alone, to, single = blocks.alone, blocks.to, blocks.single
    ring, start, four = U(room), U(now), U(4)
    e, last = U(begin), U(end)
    while e < last:
        i = U(events[e])
        of, many, alike = U(first[i]), U(first[i + U(1)]), pattern[i]
        together = e + U(3) < last
        if together:
            i1, i2, i3 = U(events[e + U(1)]), U(events[e + U(2)]), U(events[e + U(3)])
            together = (alike >= 0) & (pattern[i1] == alike) & (pattern[i2] == alike) & (pattern[i3] == alike)
        if together:
            w1, w2, w3 = U(first[i1]) << four, U(first[i2]) << four, U(first[i3]) << four
            for q in range(of, many):
                place, ahead = start + U(at[U(q)]), (U(q) - of) << four
                place = place - ring if place >= ring else place
                add_four(sums, place, weight, U(q) << four, w1 + ahead, w2 + ahead, w3 + ahead)
            e += U(4)
            continue
        for q in range(of, many):
            place = start + U(at[U(q)])
            place = place - ring if place >= ring else place
            add_block(sums, place, weight, U(q) << four)
        for q in range(U(alone[i]), U(alone[i + U(1)])):
            place = start + U(to[U(q)])
            place = place - ring if place >= ring else place
            sums[place] += single[U(q)]
        e += U(1)
