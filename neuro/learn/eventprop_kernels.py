"""Reverse time on a grid, spike by spike: the compiled loops under `neuro.learn.eventprop` (neuro.jit).

A tile is a stretch of steps t0..t1 - 1; row r of its events is step t0 + r // batch of sample r % batch, and the
spikes of row r are index[start[r]:start[r + 1]] (`neuro.nn.spikes.Events`). ``dx`` holds the gradient to the currents
of a layer, [batch, steps of a tile + reach, width]: the tile first, behind it the steps that delays reach into.
``width`` is the layer's size filled up with zeros to a multiple of `LANES`. Each sum has one owner and one order,
whatever the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.jit import disjoint, piece

A = NDArray[Any]
LANES = 16  # partial sums of a dot product: a vector of float32 on machines with AVX-512
U = np.uint64


@disjoint
def arrive(first: int, last: int, start: A, index: A, table: A, current: A) -> None:
    """current [rows, n] += the rows of table [in, n] whose sources fire, rows first..last - 1."""
    n = U(current.shape[1])
    for r in range(first, last):
        total = current[r]
        for e in range(start[r], start[r + 1]):
            row = table[np.intp(index[e])]
            for k in range(n):
                total[k] += row[k]


@disjoint
def rises(
    first: int, last: int, t0: int, start: A, index: A, v: A, beta: A, theta: A, v_reset: A, subtract: bool, before: A,
    rise: A, best: A, peak: A, fired: A,
) -> None:  # fmt: skip
    """rise [spikes] = gain i + drive at each spike, which is u[t] - beta v[t - 1]; of samples first..last - 1.

    v: u, the membrane before the reset, [steps, batch, n]. before: v after the reset of the step before, replaced.
    best, peak, fired: largest u so far, its step, and whether the neuron has fired; all [batch, n].
    """
    steps, batch, n = v.shape
    for t in range(steps):
        for b in range(first, last):
            begin, end = start[t * batch + b], start[t * batch + b + 1]
            u, m, top, when = v[t, b], before[b], best[b], peak[b]
            for e in range(begin, end):
                j = np.intp(index[e])
                rise[e] = u[j] - beta[j] * m[j]
            for k in range(U(n)):
                when[k] = np.int32(t0 + t) if u[k] > top[k] else when[k]
                top[k] = max(u[k], top[k])
                m[k] = u[k]
            for e in range(begin, end):
                j = np.intp(index[e])
                m[j] = u[j] - theta[j] if subtract else v_reset[j]
                fired[b, j] = np.uint8(1)


@piece
def dot(a: A, b: A, part: A) -> Any:
    """a . b in `LANES` partial sums; part: room for them."""
    for j in range(U(LANES)):
        part[j] = 0
    for k in range(U(0), U(a.size), U(LANES)):
        for j in range(U(LANES)):
            part[j] += a[k + j] * b[k + j]
    total = part[0]
    for j in range(U(1), U(LANES)):
        total += part[j]
    return total


@disjoint
def neurons(
    first: int, last: int, t0: int, t1: int, batch: int, start: A, index: A, rise: A, shift: A, back: A, g: A, count: A,
    peak: A, least: float, alpha: A, gain_syn: A, beta: A, gain: A, theta: A, v_reset: A, mu: A, more: A, di: A,
    d_bias: A, dx: A, room: A, part: A,
) -> None:  # fmt: skip
    """Steps t1 - 1 down to t0 of a layer, samples first..last - 1: dx, and at each spike the jump of mu.

    mu, more, di [batch, width]: gradient to the membrane, that of the penalty, and to the current; state, carried on.
    g: gradient to v [steps, batch, n] of a readout, or empty. shift [spikes]: dL/dt of each spike, that through
    ``back`` (W^T [n, width] of neurons that listen to themselves, or empty) is added here. count [batch, n]: gradient
    to the number of spikes, or empty; it enters at spikes, and at step peak [batch, n], -1 for those that fire.
    """
    n = alpha.size
    for b in range(first, last):
        for t in range(t1 - 1, t0 - 1, -1):
            r, at = (t - t0) * batch + b, t - t0
            begin, end = start[r], start[r + 1]
            m, extra, j = mu[b], more[b], di[b]
            for k in range(U(n)):
                m[k] *= beta[k]
            if g.size:
                for k in range(U(n)):
                    m[k] += g[t, b, k]
            if count.size:
                for k in range(U(n)):
                    silent = count[b, k] / (theta[k] - v_reset[k]) if peak[b, k] == t else beta[k] * extra[k]
                    extra[k] = silent
            if back.size and end > begin:
                for k in range(U(room.shape[1])):
                    room[b, k] = dx[b, at + 2, k] - dx[b, at + 1, k]
            for e in range(begin, end):
                i = np.intp(index[e])
                if back.size:
                    shift[e] += dot(back[i], room[b], part[b])
                leak = beta.dtype.type(1) - beta[i]
                up = rise[e] - leak * theta[i]  # per step, at the threshold
                after = rise[e] - leak * v_reset[i]
                up = max(up, least * (theta[i] - v_reset[i]))
                m[i] = (m[i] * after - shift[e]) / up
                if count.size:
                    extra[i] = count[b, i] / (theta[i] - v_reset[i])
            row = dx[b, at]
            for k in range(U(n)):
                j[k] = alpha[k] * j[k] + gain[k] * (m[k] + extra[k])
                row[k] = gain_syn[k] * j[k]
            if d_bias.size:
                for k in range(U(n)):
                    d_bias[b, k] += row[k]


@disjoint
def synapses(
    first: int, last: int, bounds: A, t0: int, t1: int, batch: int, start: A, index: A, lead: int, dx: A, weight: A,
    sums: A, shift: A, room: A, part: A,
) -> None:  # fmt: skip
    """What arrives ``lead`` steps after its spike, for groups of samples bounds[g]..bounds[g + 1] - 1.

    sums [groups, in, width] += dx there. shift [spikes], unless empty: weight . (dx one step later - dx), dL/dt of
    the spike. weight: W^T, [in, width].
    """
    width = U(sums.shape[2])
    for g in range(first, last):
        for t in range(t0, t1):
            for b in range(bounds[g], bounds[g + 1]):
                r = (t - t0) * batch + b
                begin, end = start[r], start[r + 1]
                if begin == end:
                    continue
                now, then = dx[b, t - t0 + lead], dx[b, t - t0 + lead + 1]
                if shift.size:
                    for k in range(width):
                        room[g, k] = then[k] - now[k]
                for e in range(begin, end):
                    source = np.intp(index[e])
                    total = sums[g, source]
                    for k in range(width):
                        total[k] += now[k]
                    if shift.size:
                        shift[e] = dot(weight[source], room[g], part[g])


@disjoint
def delayed(
    first: int, last: int, bounds: A, t0: int, t1: int, batch: int, start: A, index: A, dx: A, weight: A, place: A,
    near: A, far: A, shift: A, part: A,
) -> None:  # fmt: skip
    """`synapses` where synapse (i, o) has a delay, k whole steps of it: place [in, width] = k width + o.

    near, far [groups, in, width] += dx k and k + 1 steps after the spike.
    """
    width = U(near.shape[2])
    for g in range(first, last):
        for t in range(t0, t1):
            for b in range(bounds[g], bounds[g + 1]):
                r = (t - t0) * batch + b
                ahead = dx[b].reshape(-1)[np.intp(t - t0) * np.intp(width) :]
                for e in range(start[r], start[r + 1]):
                    source = np.intp(index[e])
                    w, at, s1, s2, p = weight[source], place[source], near[g, source], far[g, source], part[g]
                    for j in range(U(LANES)):
                        p[j] = 0
                    for k in range(U(0), width, U(LANES)):
                        for j in range(U(LANES)):
                            x = ahead[at[k + j]]
                            y = ahead[at[k + j] + width]
                            s1[k + j] += x
                            s2[k + j] += y
                            p[j] += w[k + j] * (y - x)
                    if shift.size:
                        total = p[0]
                        for j in range(U(1), U(LANES)):
                            total += p[j]
                        shift[e] = total
