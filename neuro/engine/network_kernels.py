"""One sample of a `Network`, step by step, in one compiled call (neuro.jit).

`neuro.engine.network_plan` turns a network into a table: a row per node, in order of evaluation. What a node sends is
a stretch of ``f`` (state, one sample's), and, where the next one goes by events, a list of the places that are not
zero, in ``q``: their number, then the places, rising. Sums run in the order of `neuro.reference`, so that float64
gives its bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.jit import disjoint, piece

A = NDArray[Any]

INPUT, OUTPUT, LINEAR, LATE, CONV, SUM, MAX, SCALE, DELAY, LEVELS, NEURON = range(11)
# columns of a row; A..H: what a kind needs besides
KIND, N_IN, N_OUT, FROM, TO, X, Y, LIST_X, LIST_Y, PA, PB, PC, PD, PE, PF, PG, PH = range(17)
COLUMNS = 17
# flags of a neuron; ALIKE: all of a population have the same coefficients; COPY: i is a stretch of its own, not x
SYNAPSE, SPIKES, SUBTRACT, ALIKE, COPY = 1, 2, 4, 8, 16
WINDOW = 12  # numbers that describe a convolution or a pool, in ``ints``


@piece
def _lowest(word: np.uint64) -> np.int64:
    """The place of the lowest set bit."""
    w = (word & (~word + np.uint64(1))) - np.uint64(1)
    w = w - ((w >> np.uint64(1)) & np.uint64(0x5555555555555555))
    w = (w & np.uint64(0x3333333333333333)) + ((w >> np.uint64(2)) & np.uint64(0x3333333333333333))
    w = (w + (w >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((w * np.uint64(0x0101010101010101)) >> np.uint64(56))


@disjoint
def list_bytes(words: A, n: int, start: A, index: A, value: A, busy: A) -> None:
    """The bytes that are not zero of one sample, rows of n: start [rows + 1], index, value. busy [words]: room."""
    some = np.int64(0)
    for w in range(words.size):  # without a branch: which words hold any
        busy[some] = w
        some += np.int64(words[w] != 0)
    at, row, end = 0, 0, n
    start[0] = 0
    for k in range(some):
        place = np.int64(busy[k]) * 8
        word = words[busy[k]]
        while word:
            skip = _lowest(word) // 8
            word >>= np.uint64(8 * skip)
            place += skip
            while place >= end:
                row += 1
                start[row] = at
                end += n
            index[at] = place - (end - n)
            value[at] = word & np.uint64(255)
            at += 1
            word &= ~np.uint64(255)
    for r in range(row + 1, start.size):
        start[r] = at


@piece
def _total(f: A, sources: A, begin: int, end: int, x: A) -> None:
    """x = the sum of the stretches of f, one after the other."""
    n = x.size
    part = f[sources[begin] : sources[begin] + n]
    for k in range(n):
        x[k] = part[k]
    for s in range(begin + 1, end):
        part = f[sources[s] : sources[s] + n]
        for k in range(n):
            x[k] += part[k]


@piece
def _list(x: A, found: A) -> None:
    """found = how many of x are not zero, then where."""
    c = np.uint32(1)
    for k in range(x.size):
        found[c] = k
        c += np.uint32(x[k] != 0)
    found[0] = c - np.uint32(1)


@piece
def _rows(found: A, x: A, weight: A, y: A) -> None:
    """y += sum of x[i] weight[i] over the listed i, in their order; four rows are read in one go."""
    n = y.size
    count = found[0]
    e = np.uint32(1)
    while e + np.uint32(3) <= count:
        i0, i1 = np.uint64(found[e]), np.uint64(found[e + np.uint32(1)])
        i2, i3 = np.uint64(found[e + np.uint32(2)]), np.uint64(found[e + np.uint32(3)])
        w0, w1, w2, w3 = weight[i0], weight[i1], weight[i2], weight[i3]
        a0, a1, a2, a3 = x[i0], x[i1], x[i2], x[i3]
        if a0 == 1 and a1 == 1 and a2 == 1 and a3 == 1:
            for k in range(n):
                y[k] = (((y[k] + w0[k]) + w1[k]) + w2[k]) + w3[k]
        else:
            for k in range(n):
                y[k] = (((y[k] + a0 * w0[k]) + a1 * w1[k]) + a2 * w2[k]) + a3 * w3[k]
        e += np.uint32(4)
    while e <= count:
        i0 = np.uint64(found[e])
        w0, a0 = weight[i0], x[i0]
        for k in range(n):
            y[k] += a0 * w0[k]
        e += np.uint32(1)


@piece
def _late(
    t: int, ring: int, x: A, past: A, found: A, lists: A, delays: A, start: A, target: A, weight: A, part: A, y: A
) -> None:
    """y += for each delay, rising, the sum over what was sent that long ago. past [ring, in], lists [ring, 1 + in]:
    what came in at t stands in row t % ring. start [delays, in + 1]: synapses of a source with a delay."""
    n_in, n = x.size, y.size
    row = past[t % ring * n_in : t % ring * n_in + n_in]
    kept = lists[t % ring * (n_in + 1) : t % ring * (n_in + 1) + n_in + 1]
    for k in range(n_in):
        row[k] = x[k]
    for k in range(np.int64(found[0]) + 1):
        kept[k] = found[k]
    for d in range(delays.size):
        if delays[d] > t or delays[d] >= ring:
            break
        slot = (t - delays[d]) % ring
        then = past[slot * n_in : slot * n_in + n_in]
        who = lists[slot * (n_in + 1) : slot * (n_in + 1) + n_in + 1]
        if who[0] == 0:
            continue
        part[:] = 0
        for e in range(1, np.int64(who[0]) + 1):
            i = np.int64(who[e])
            a = then[i]
            for s in range(start[d * (n_in + 1) + i], start[d * (n_in + 1) + i + 1]):
                part[target[s]] += a * weight[s]
        for k in range(n):
            y[k] += part[k]


@piece
def _reach(at: int, tap: int, dilation: int, padding: int, stride: int, size: int) -> int:
    """The output that sees input ``at`` through a tap of its window, or -1."""
    o = at + padding - tap * dilation
    if o < 0 or o % stride:
        return -1
    o //= stride
    return o if o < size else -1


@piece
def _window(g: A, found: A, x: A, weight: A, bias: A, room: A, y: A) -> None:
    """A convolution: tap by tap, and within it event by event, each to all channels of its group.

    g: in height, in width, out height, out width, kernel (2), stride (2), padding (2), dilation (2), in channels of a
    group, out channels of a group. weight [tap, in channel, out channels of the group]; room [place, out channel].
    """
    h, w, oh, ow = g[0], g[1], g[2], g[3]
    group_in, group_out = g[12], g[13]
    outs = bias.size
    places = oh * ow
    for p in range(places):
        row = room[p * outs : p * outs + outs]
        for c in range(outs):
            row[c] = bias[c]
    ins = x.size // (h * w)
    for r in range(g[4]):
        for s in range(g[5]):
            tap = (r * g[5] + s) * ins
            for e in range(1, np.int64(found[0]) + 1):
                i = np.int64(found[e])
                channel = i // (h * w)
                at = i - channel * (h * w)
                yy = _reach(at // w, r, g[10], g[8], g[6], oh)
                xx = _reach(at % w, s, g[11], g[9], g[7], ow)
                if yy >= 0 and xx >= 0:
                    a = x[i]
                    first = (yy * ow + xx) * outs + channel // group_in * group_out
                    row = room[first : first + group_out]
                    some = weight[(tap + channel) * group_out : (tap + channel) * group_out + group_out]
                    for c in range(group_out):
                        row[c] += a * some[c]
    for c in range(outs):
        for p in range(places):
            y[c * places + p] = room[p * outs + c]


@piece
def _pool(g: A, found: A, x: A, area: Any, y: A) -> None:
    """A sum over windows, each channel by itself, divided by ``area``. g: as of `_window`."""
    h, w, oh, ow = g[0], g[1], g[2], g[3]
    y[:] = 0
    for r in range(g[4]):
        for s in range(g[5]):
            for e in range(1, np.int64(found[0]) + 1):
                i = np.int64(found[e])
                channel = i // (h * w)
                at = i - channel * (h * w)
                yy = _reach(at // w, r, 1, g[8], g[6], oh)
                xx = _reach(at % w, s, 1, g[9], g[7], ow)
                if yy >= 0 and xx >= 0:
                    y[(channel * oh + yy) * ow + xx] += x[i]
    if area != 1:
        for k in range(y.size):
            y[k] = y[k] / area


@piece
def _largest(g: A, x: A, y: A) -> None:
    """The largest of each window; what lies outside never wins."""
    h, w, oh, ow = g[0], g[1], g[2], g[3]
    for k in range(y.size):
        c, yy, xx = k // (oh * ow), k // ow % oh, k % ow
        top, left = yy * g[6] - g[8], xx * g[7] - g[9]
        first_row, first_column = max(top, 0), max(left, 0)
        best = x[(c * h + first_row) * w + first_column]
        for r in range(first_row, min(top + g[4], h)):
            for s in range(first_column, min(left + g[5], w)):
                best = max(best, x[(c * h + r) * w + s])
        y[k] = best


@piece
def _neurons(flags: int, x: A, p: A, i: A, v: A, y: A, fired: A) -> None:
    """`neuro.reference.neuron_step`. p: alpha, gain_syn, beta, gain_mem, drive, v_threshold, v_reset."""
    n = x.size
    beta, gain, drive = p[2 * n : 3 * n], p[3 * n : 4 * n], p[4 * n : 5 * n]
    if flags & SYNAPSE:
        alpha, gain_syn = p[:n], p[n : 2 * n]
        for k in range(n):
            i[k] = alpha[k] * i[k] + gain_syn[k] * x[k]
    elif flags & COPY:
        for k in range(n):
            i[k] = x[k]
    theta, v_reset = p[5 * n : 6 * n], p[6 * n : 7 * n]
    one, zero = y.dtype.type(1), y.dtype.type(0)
    subtract = flags & SUBTRACT != 0
    if not flags & SPIKES:
        for k in range(n):
            v[k] = beta[k] * v[k] + gain[k] * i[k] + drive[k]
            y[k] = v[k]
    elif flags & ALIKE:
        b0, g0, d0, t0, r0 = beta[0], gain[0], drive[0], theta[0], v_reset[0]
        for k in range(n):
            u = b0 * v[k] + g0 * i[k] + d0
            spike = u > t0
            after = u - t0 if subtract else r0
            v[k] = after if spike else u
            y[k] = one if spike else zero
            fired[k] = np.uint8(spike)
    else:
        for k in range(n):
            u = beta[k] * v[k] + gain[k] * i[k] + drive[k]
            spike = u > theta[k]
            after = u - theta[k] if subtract else v_reset[k]
            v[k] = after if spike else u
            y[k] = one if spike else zero
            fired[k] = np.uint8(spike)


@piece
def _list_fired(n: int, fired: A, found: A) -> None:
    """As `_list`, from bytes, eight at a time; those beyond n are 0."""
    words = fired.view(np.uint64)
    c = np.uint32(1)
    for w in range((n + 7) // 8):
        word = words[w]
        while word:
            found[c] = w * 8 + _lowest(word) // 8
            c += np.uint32(1)
            word &= word - np.uint64(1)
    found[0] = c - np.uint32(1)


@disjoint
def run(
    b: int, steps: int, code: A, sources: A, ints: A, links: A, p: A, weights: A, start: A, index: A, value: A,
    taken: A, taken_spikes: A, f: A, q: A, fired: A, room: A, out: A, spikes: A,
) -> None:  # fmt: skip
    """Sample b of a batch.

    ints, links: geometry, delays and their synapses. p: coefficients; weights. start [inputs, steps + 1], index,
    value: what comes in. f, q: the state, before step 0 when called. taken, taken_spikes [stretches, 2]: (from,
    length) of f to write to out [time, batch, *] and to spikes uint8, one after the other. fired, room: work space.
    """
    for t in range(steps):
        for op in range(code.shape[0]):
            c = code[op]
            kind, n_in, n_out = c[KIND], c[N_IN], c[N_OUT]
            y = f[c[Y] : c[Y] + n_out]
            if kind == INPUT:
                begin, end = start[c[PA], t], start[c[PA], t + 1]
                found = q[c[LIST_Y] : c[LIST_Y] + n_out + 1]
                for e in range(1, np.int64(found[0]) + 1):
                    y[np.uint64(found[e])] = 0
                for e in range(end - begin):
                    found[e + 1] = index[begin + e]
                    y[np.uint64(index[begin + e])] = value[begin + e]
                found[0] = end - begin
                continue
            x = f[c[X] : c[X] + n_in]
            if c[TO] - c[FROM] > 1:
                _total(f, sources, c[FROM], c[TO], x)
                if c[LIST_X] >= 0:
                    _list(x, q[c[LIST_X] : c[LIST_X] + n_in + 1])
            listed = q[c[LIST_X] : c[LIST_X] + n_in + 1] if c[LIST_X] >= 0 else q[:0]
            if kind == NEURON:
                flags = c[PB]
                i, v = f[c[PC] : c[PC] + n_out], f[c[PD] : c[PD] + n_out]
                _neurons(flags, x, p[c[PA] : c[PA] + 7 * n_out], i, v, y, fired)
                if c[LIST_Y] >= 0 and flags & SPIKES:
                    fired[n_out : (n_out + 7) // 8 * 8] = 0
                    _list_fired(n_out, fired, q[c[LIST_Y] : c[LIST_Y] + n_out + 1])
                    continue
            elif kind in (LINEAR, LATE):
                y[:] = 0
                if kind == LINEAR:
                    _rows(listed, x, weights[c[PA] : c[PA] + n_in * n_out].reshape(n_in, n_out), y)
                else:
                    ring, delays = c[PC], ints[c[PD] : c[PD] + c[PE]]
                    past = f[c[PF] : c[PF] + ring * n_in]
                    lists = q[c[PG] : c[PG] + ring * (n_in + 1)]
                    ends = ints[c[PD] + c[PE] : c[PD] + c[PE] + c[PE] * (n_in + 1)]
                    target, weight = links[c[PH] :], weights[c[PA] :]
                    _late(t, ring, x, past, listed, lists, delays, ends, target, weight, room[:n_out], y)
                if c[PB] >= 0:
                    bias = p[c[PB] : c[PB] + n_out]
                    for k in range(n_out):
                        y[k] += bias[k]
            elif kind == CONV:
                bias = p[c[PB] : c[PB] + c[PC]]
                _window(ints[c[PD] : c[PD] + 14], listed, x, weights[c[PA] :], bias, room[:n_out], y)
            elif kind == SUM:
                _pool(ints[c[PD] : c[PD] + 14], listed, x, p[c[PA]], y)
            elif kind == MAX:
                _largest(ints[c[PD] : c[PD] + 14], x, y)
            elif kind == SCALE:
                scale = p[c[PA] : c[PA] + n_out]
                for k in range(n_out):
                    y[k] = scale[k] * x[k]
            elif kind == DELAY:
                ring, delays = c[PC], ints[c[PD] : c[PD] + n_out]
                past = f[c[PF] : c[PF] + ring * n_out]
                row = past[t % ring * n_out : t % ring * n_out + n_out]
                for k in range(n_out):
                    row[k] = x[k]
                for k in range(n_out):
                    d = delays[k]
                    y[k] = past[(t - d) % ring * n_out + k] if d <= t and d < ring else 0
            elif kind == LEVELS:
                step = p[c[PA] : c[PA] + n_out]
                highest = p[c[PB]]
                for k in range(n_out):
                    level = np.floor(x[k] / step[k] + x.dtype.type(0.5))
                    y[k] = step[k] * min(max(level, x.dtype.type(0)), highest)
            else:  # OUTPUT
                for k in range(n_out):
                    y[k] = x[k]
            if c[LIST_Y] >= 0:
                _list(y, q[c[LIST_Y] : c[LIST_Y] + n_out + 1])
        at = 0
        for s in range(taken.shape[0]):
            part = f[taken[s, 0] : taken[s, 0] + taken[s, 1]]
            row = out[t, b, at : at + taken[s, 1]]
            for k in range(part.size):
                row[k] = part[k]
            at += taken[s, 1]
        at = 0
        for s in range(taken_spikes.shape[0]):
            part = f[taken_spikes[s, 0] : taken_spikes[s, 0] + taken_spikes[s, 1]]
            ones = spikes[t, b, at : at + taken_spikes[s, 1]]
            for k in range(part.size):
                ones[k] = np.uint8(part[k] != 0)
            at += taken_spikes[s, 1]
