"""Spikes that arrive late, event by event: the compiled loops under `neuro.nn.delay_events` (neuro.jit).

A synapse with real delay d has k = floor(d) and f = d - k; a spike sent at t adds near = (1 - f) w at t + k and
far = f w at t + k + 1. Targets are worked on in blocks of ``width`` (a power of two) and time in tiles: what a block
receives in a tile, and the weights and delays of one source, stay in the first-level cache.

Layout. near, far, place: [blocks, sources, width], place = k width + lane: where in a block's steps a spike sent at
its step 0 lands. The spikes of source i in tile j of sample b are numbers start[q]..start[q + 1] - 1, rising in time,
q = (b tiles + j) sources + i; when: their step within the tile times ``width``; size: their value, empty where all
are 1. Every sum has one owner and one order, whatever the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.jit import disjoint, kernel
from neuro.nn.bits import lowest

A = NDArray[Any]


@kernel
def tally(first: int, last: int, words: A, batch: int, tile: int, n: int, start: A) -> None:
    """start[q + 1] = spikes of q, for samples first..last - 1. words: uint64[steps batch, *]; start zeroed."""
    steps = words.shape[0] // batch
    tiles = (steps + tile - 1) // tile
    for b in range(first, last):
        for t in range(steps):
            base = (b * tiles + t // tile) * n + 1
            for w in range(words.shape[1]):
                word = words[t * batch + b, w]
                while word:
                    start[base + w * 64 + lowest(word)] += 1
                    word &= word - np.uint64(1)


@kernel
def sort(
    first: int, last: int, words: A, batch: int, tile: int, n: int, width: int, at: A, when: A, x: A, size: A
) -> None:
    """Fill ``when``, and ``size`` from x [steps batch, n] unless it is empty. at: a copy of start, moved on."""
    steps = words.shape[0] // batch
    tiles = (steps + tile - 1) // tile
    for b in range(first, last):
        for t in range(steps):
            base = (b * tiles + t // tile) * n
            offset = np.uint32(t % tile * width)
            for w in range(words.shape[1]):
                word = words[t * batch + b, w]
                while word:
                    q = base + w * 64 + lowest(word)
                    when[at[q]] = offset
                    if size.size:
                        size[at[q]] = x[t * batch + b, w * 64 + lowest(word)]
                    at[q] += 1
                    word &= word - np.uint64(1)


@disjoint
def lay_out(first: int, last: int, weight: A, delay: A, near: A, far: A, place: A) -> None:
    """weight, delay [out, in] -> the layout above, sources first..last - 1. Lanes beyond the last target weigh 0."""
    blocks, _, width = near.shape
    one, zero = near.dtype.type(1), near.dtype.type(0)
    for c in range(blocks):
        for i in range(first, last):
            for lane in range(width):
                o = c * width + lane
                if o < weight.shape[0]:
                    k = np.floor(delay[o, i])
                    f = delay[o, i] - k
                    near[c, i, lane] = (one - f) * weight[o, i]
                    far[c, i, lane] = f * weight[o, i]
                    place[c, i, lane] = np.uint32(np.int64(k) * width + lane)
                else:
                    near[c, i, lane] = zero
                    far[c, i, lane] = zero
                    place[c, i, lane] = np.uint32(lane)


@disjoint
def push(
    first: int, last: int, tile: int, start: A, when: A, size: A, near: A, far: A, place: A, both: bool, sums: A, y: A
) -> None:
    """y[t, b, o] for samples first..last - 1. both: False where all far are 0. sums: [(tile + reach) width], room."""
    steps, _, outs = y.shape
    blocks, n, width = near.shape
    tiles = (steps + tile - 1) // tile
    wide = np.uint32(width)
    graded = size.size > 0
    zero = y.dtype.type(0)
    for c in range(blocks):
        real = min(width, outs - c * width)
        for b in range(first, last):
            sums[:] = zero
            for j in range(tiles):
                for i in range(n):
                    q = (b * tiles + j) * n + i
                    e, end = start[q], start[q + 1]
                    if e == end:
                        continue
                    w1, w2, at = near[c, i], far[c, i], place[c, i]
                    if graded:
                        while e < end:
                            t0, a0 = when[e], size[e]
                            for lane in range(width):
                                sums[at[lane] + t0] += a0 * w1[lane]
                                sums[at[lane] + t0 + wide] += a0 * w2[lane]
                            e += 1
                    elif both:
                        while e + 1 < end:
                            t0, t1 = when[e], when[e + 1]
                            for lane in range(width):
                                p, u, v = at[lane], w1[lane], w2[lane]
                                sums[p + t0] += u
                                sums[p + t0 + wide] += v
                                sums[p + t1] += u
                                sums[p + t1 + wide] += v
                            e += 2
                        while e < end:
                            t0 = when[e]
                            for lane in range(width):
                                p = at[lane] + t0
                                sums[p] += w1[lane]
                                sums[p + wide] += w2[lane]
                            e += 1
                    else:
                        while e + 1 < end:
                            t0, t1 = when[e], when[e + 1]
                            for lane in range(width):
                                p, u = at[lane], w1[lane]
                                sums[p + t0] += u
                                sums[p + t1] += u
                            e += 2
                        while e < end:
                            t0 = when[e]
                            for lane in range(width):
                                sums[at[lane] + t0] += w1[lane]
                            e += 1
                here = min(tile, steps - j * tile)
                for r in range(here):
                    row, kept = y[j * tile + r, b, c * width : c * width + real], sums[r * width : r * width + real]
                    for lane in range(real):
                        row[lane] = kept[lane]
                if j + 1 < tiles:  # what is still on its way comes to the front
                    ahead = sums.size - tile * width
                    for r in range(ahead):
                        sums[r] = sums[tile * width + r]
                    sums[ahead:] = zero


@disjoint
def pull(
    first: int, last: int, tile: int, start: A, when: A, size: A, g: A, place: A, both: bool, room: A, s1: A, s2: A
) -> None:
    """What arrived with k, and with k + 1, steps of delay, weighed by the gradient g [steps, batch, out] of y there:
    s1, s2 [blocks, sources, width] of sources first..last - 1. room: as ``sums`` of `push`."""
    steps, batch, outs = g.shape
    blocks, n, width = place.shape
    tiles = (steps + tile - 1) // tile
    wide = np.uint32(width)
    graded = size.size > 0
    zero = g.dtype.type(0)
    high = room.size // width
    for c in range(blocks):
        real = min(width, outs - c * width)
        room[:] = zero
        for i in range(first, last):
            for lane in range(width):
                s1[c, i, lane] = zero
                s2[c, i, lane] = zero
        for b in range(batch):
            for j in range(tiles):
                for r in range(high):
                    t = j * tile + r
                    kept = room[r * width : r * width + real]
                    if t < steps:
                        row = g[t, b, c * width : c * width + real]
                        for lane in range(real):
                            kept[lane] = row[lane]
                    else:
                        kept[:] = zero
                for i in range(first, last):
                    q = (b * tiles + j) * n + i
                    e, end = start[q], start[q + 1]
                    if e == end:
                        continue
                    a1, a2, at = s1[c, i], s2[c, i], place[c, i]
                    if graded:
                        while e < end:
                            t0, a0 = when[e], size[e]
                            for lane in range(width):
                                a1[lane] += a0 * room[at[lane] + t0]
                                a2[lane] += a0 * room[at[lane] + t0 + wide]
                            e += 1
                    elif both:
                        while e + 3 < end:
                            t0, t1, t2, t3 = when[e], when[e + 1], when[e + 2], when[e + 3]
                            for lane in range(width):
                                p = at[lane]
                                a1[lane] += (room[p + t0] + room[p + t1]) + (room[p + t2] + room[p + t3])
                                p += wide
                                a2[lane] += (room[p + t0] + room[p + t1]) + (room[p + t2] + room[p + t3])
                            e += 4
                        while e + 1 < end:
                            t0, t1 = when[e], when[e + 1]
                            for lane in range(width):
                                p = at[lane]
                                a1[lane] += room[p + t0] + room[p + t1]
                                a2[lane] += room[p + t0 + wide] + room[p + t1 + wide]
                            e += 2
                        while e < end:
                            t0 = when[e]
                            for lane in range(width):
                                p = at[lane] + t0
                                a1[lane] += room[p]
                                a2[lane] += room[p + wide]
                            e += 1
                    else:
                        while e + 1 < end:
                            t0, t1 = when[e], when[e + 1]
                            for lane in range(width):
                                p = at[lane]
                                a1[lane] += room[p + t0] + room[p + t1]
                            e += 2
                        while e < end:
                            t0 = when[e]
                            for lane in range(width):
                                a1[lane] += room[at[lane] + t0]
                            e += 1


@disjoint
def gradients(first: int, last: int, s1: A, s2: A, weight: A, delay: A, d_weight: A, d_delay: A) -> None:
    """dE/dw = (1 - f) s1 + f s2, dE/dd = w (s2 - s1) for targets first..last - 1."""
    width = s1.shape[2]
    one = weight.dtype.type(1)
    for o in range(first, last):
        c, lane = o // width, o % width
        for i in range(weight.shape[1]):
            a, z = s1[c, i, lane], s2[c, i, lane]
            f = delay[o, i] - np.floor(delay[o, i])
            d_weight[o, i] = (one - f) * a + f * z
            if d_delay.size:
                d_delay[o, i] = weight[o, i] * (z - a)


@disjoint
def slide(
    first: int, last: int, tile: int, g: A, near: A, far: A, place: A, both: bool, room: A, rows: A, d_x: A
) -> None:
    """d_x[t, b, i] = sum_o near g[t + k, b, o] + far g[t + k + 1, b, o] for samples first..last - 1.

    room: [width, tile + reach]; rows: [sources, tile]."""
    steps, _, outs = g.shape
    blocks, n, width = near.shape
    tiles = (steps + tile - 1) // tile
    shift = np.uint32(0)
    while (1 << shift) < width:
        shift += np.uint32(1)
    zero = g.dtype.type(0)
    for b in range(first, last):
        for j in range(tiles):
            here = min(tile, steps - j * tile)
            rows[:, :here] = zero
            for c in range(blocks):
                for lane in range(width):
                    o = c * width + lane
                    kept = room[lane]
                    for r in range(room.shape[1]):
                        t = j * tile + r
                        kept[r] = g[t, b, o] if t < steps and o < outs else zero
                for i in range(n):
                    w1, w2, at, row = near[c, i], far[c, i], place[c, i], rows[i, :here]
                    for lane in range(0, width, 4):
                        l1, l2, l3 = lane + 1, lane + 2, lane + 3
                        k0, k1, k2, k3 = at[lane] >> shift, at[l1] >> shift, at[l2] >> shift, at[l3] >> shift
                        x0, x1 = room[lane, k0 : k0 + here + 1], room[l1, k1 : k1 + here + 1]
                        x2, x3 = room[l2, k2 : k2 + here + 1], room[l3, k3 : k3 + here + 1]
                        u0, u1, u2, u3 = w1[lane], w1[l1], w1[l2], w1[l3]
                        if both:
                            v0, v1, v2, v3 = w2[lane], w2[l1], w2[l2], w2[l3]
                            for t in range(here):
                                row[t] += ((u0 * x0[t] + v0 * x0[t + 1]) + (u1 * x1[t] + v1 * x1[t + 1])) + (
                                    (u2 * x2[t] + v2 * x2[t + 1]) + (u3 * x3[t] + v3 * x3[t + 1])
                                )
                        else:
                            for t in range(here):
                                row[t] += (u0 * x0[t] + u1 * x1[t]) + (u2 * x2[t] + u3 * x3[t])
            for r in range(here):
                for i in range(n):
                    d_x[j * tile + r, b, i] = rows[i, r]
