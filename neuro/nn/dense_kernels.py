"""Linear and the neurons behind it in one loop: currents are sums of weight rows picked by events, never stored.

A task is `WIDE` neurons (a block) of some samples of the batch. Its part of the matrix, transposed to [in, WIDE], stays
in the second-level cache while all samples and steps pass by; its state and coefficients are `neuro.nn.lanes`. Lists of
events are padded to multiples of 4 with the index of a row of zeros: four rows are added at a time. Backwards the
membrane of a block is computed again the same way, the adjoint runs back over it in place, and the gradient of a weight
column is the sum of the adjoint over the steps in which its input fired: the same loop over the transposed lists.

Rows of activity are step * batch + sample. Arithmetic is that of `neuro.nn.kernels` (compiled by neuro.jit).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.jit import disjoint, kernel, lowest, ones, piece, wide
from neuro.nn.lanes import alike, lanes, larger, over, pick, put, size_of, word

A = NDArray[Any]
N = Any  # np.uint64: an index that cannot be negative costs no test, and int64 times uint64 would be a float
U = np.uint64
WIDE = U(64)  # neurons of a block: one word of bits, four lines of the cache in float32
TILE = U(16)  # columns that are transposed together: a line of the cache
PAD = 4
ZERO, ONE, TWO, THREE, FOUR = U(0), U(1), U(2), U(3), U(4)

# rows of the coefficients ``p``
ALPHA, GAIN_SYN, BETA, GAIN, DRIVE, THETA, V_RESET, BIAS = (U(k) for k in range(8))

SILENT, PRECOMPUTED, FAST_SIGMOID, ATAN, TRIANGLE, STRAIGHT_THROUGH = range(6)

# fmt: off


@kernel
def starts(words: A, start: A) -> None:
    """start [rows + 1]: where the padded list of each row begins."""
    total = np.int64(0)
    for r in range(words.shape[0]):
        start[r] = total
        found = np.int64(0)
        for w in range(words.shape[1]):
            found += np.int64(ones(words[r, w]))
        total += (found + np.int64(PAD - 1)) // np.int64(PAD) * np.int64(PAD)
    start[words.shape[0]] = total


@kernel
def lists(first: int, last: int, words: A, start: A, nobody: int, index: A) -> None:
    """index: who fires in rows first..last - 1, rising, each list padded with ``nobody``."""
    for r in range(first, last):
        at = start[r]
        for w in range(words.shape[1]):
            word = words[r, w]
            while word:  # four at a time, whether there or not: what is too much is written over next, as long as it
                if at + 4 <= start[last]:  # is ours, and how many there are is no secret for the processor to guess
                    found = min(np.int64(ones(word)), 4)
                    for k in range(4):
                        index[at + k] = np.int64(64) * w + np.int64(lowest(word))
                        word &= word - ONE
                    at += found
                else:
                    index[at] = np.int64(64) * w + np.int64(lowest(word))
                    at += 1
                    word &= word - ONE
        while at < start[r + 1]:
            index[at] = nobody
            at += 1


@kernel
def columns(
    first: int, last: int, bounds: A, start: A, index: A, steps: int, batch: int, nobody: int, col: A, when: A,
) -> None:
    """The lists turned round, for groups of samples bounds[g]..bounds[g + 1] - 1.

    when[col[g, k]:col[g, k + 1]]: the local rows, (sample - bounds[g]) * steps + step, in which input k fires,
    rising, padded with ``nobody``. col[g, 0] is given.
    """
    inputs = col.shape[1] - 1
    for g in range(first, last):
        here = col[g]
        origin = here[0]
        for k in range(1, inputs + 1):
            here[k] = 0
        for b in range(bounds[g], bounds[g + 1]):
            for t in range(steps):
                for e in range(start[t * batch + b], start[t * batch + b + 1]):
                    found = np.int64(index[e])
                    if found < inputs:
                        here[found + 1] += 1
        at = origin
        for k in range(1, inputs + 1):
            size = (here[k] + np.int64(PAD - 1)) // np.int64(PAD) * np.int64(PAD)
            here[k] = at  # where the list of k - 1 begins, and is filled next
            at += size
        for b in range(bounds[g], bounds[g + 1]):
            local = (b - bounds[g]) * steps
            for t in range(steps):
                for e in range(start[t * batch + b], start[t * batch + b + 1]):
                    found = np.int64(index[e])
                    if found < inputs:
                        when[here[found + 1]] = local + t
                        here[found + 1] += 1
        for k in range(1, inputs + 1):
            while (here[k] - origin) % np.int64(PAD):
                when[here[k]] = nobody
                here[k] += 1


@piece
def _gather(index: A, begin: N, end: N, table: A, base: N, x: N) -> N:
    """x + the rows of a table that a padded list names, counted from row ``base``."""
    e = begin
    while e < end:
        a, b = base + U(index[e]), base + U(index[e + ONE])
        c, d = base + U(index[e + TWO]), base + U(index[e + THREE])
        x = x + ((lanes(table, a, ZERO) + lanes(table, b, ZERO)) + (lanes(table, c, ZERO) + lanes(table, d, ZERO)))
        e += FOUR
    return x


@piece
def _pack(weight: A, o: N, width: N, table: A) -> None:
    """table [in + 1, WIDE]: rows o.. of the matrix, transposed; zeros behind them and in the last row."""
    inputs = U(weight.shape[1])
    for k0 in range(ZERO, inputs, TILE):
        k1 = min(U(k0) + TILE, inputs)
        for j in range(width):
            for k in range(U(k0), k1):
                table[k, j] = weight[o + j, k]
        for j in range(width, WIDE):
            for k in range(U(k0), k1):
                table[k, j] = 0
    for j in range(WIDE):
        table[inputs, j] = 0


@piece
def _take(a: A, row: N, o: N, width: N, room: A) -> N:
    """a[row, o : o + width], zeros behind it. room: [2, WIDE]; its first row is 0 before a task."""
    if width == WIDE:
        return lanes(a, row, o)
    for j in range(width):
        room[0, j] = a[row, o + j]
    return lanes(room, ZERO, ZERO)


@piece
def _give(value: N, a: A, row: N, o: N, width: N, room: A) -> None:
    """a[row, o : o + width] = value."""
    if width == WIDE:
        put(a, row, o, value)
    else:
        put(room, ONE, ZERO, value)
        for j in range(width):
            a[row, o + j] = room[1, j]


@disjoint
def forward(
    first: int, last: int, parts: int, given: bool, start: A, index: A, weight: A, p: A, i: A, m: A, words: A, v: A,
    i_out: A, table: A, room: A, subtract: bool, plain: bool, keep_v: bool, keep_i: bool,
) -> None:
    """Tasks first..last - 1 of blocks * parts: words [time, batch, blocks]; where kept v (before the reset), i.

    The currents lie in v [time * batch, n] where given, else they are sums over the lists. p: the coefficients
    [8, blocks * WIDE]; plain: alpha, gain_syn, gain, drive are 0, 1, 1, 0. State i and m (after the reset):
    [batch, n], read and left behind. Room: table [in + 1, WIDE], room [2, WIDE].
    """
    wide()
    steps, batch, n = U(words.shape[0]), U(words.shape[1]), U(m.shape[1])
    packed = U(m.shape[1])
    for task in range(U(first), U(last)):
        block, part = U(task) // U(parts), U(task) % U(parts)
        o = block * WIDE
        width = min(WIDE, n - o)
        if not given and o != packed:
            _pack(weight, o, width, table)
            packed = o
        alpha, gain_syn, beta, gain = lanes(p, ALPHA, o), lanes(p, GAIN_SYN, o), lanes(p, BETA, o), lanes(p, GAIN, o)
        drive, theta, v_reset, bias = lanes(p, DRIVE, o), lanes(p, THETA, o), lanes(p, V_RESET, o), lanes(p, BIAS, o)
        put(room, ZERO, ZERO, alike(0, bias))
        for b in range(batch * part // U(parts), batch * (part + ONE) // U(parts)):
            syn, u = _take(i, U(b), o, width, room), _take(m, U(b), o, width, room)
            for t in range(steps):
                r = U(t) * batch + U(b)
                if given:
                    x = _take(v, r, o, width, room) + bias
                else:
                    x = _gather(index, U(start[r]), U(start[r + ONE]), table, ZERO, bias)
                if plain:
                    u = beta * u + x
                else:
                    syn = alpha * syn + gain_syn * x
                    u = beta * u + gain * syn + drive
                if keep_v:
                    _give(u, v, r, o, width, room)
                if keep_i:
                    _give(syn, i_out, r, o, width, room)
                fired = over(u, theta)
                words[t, b, block] = word(fired)
                u = pick(fired, u - theta if subtract else v_reset, u)
            _give(syn, i, U(b), o, width, room)
            _give(u, m, U(b), o, width, room)


@piece
def _slope(kind: int, a: float, e: N) -> N:
    """The surrogate's derivative at e = v - theta."""
    one = alike(1, e)
    steep = alike(a, e)
    if kind == FAST_SIGMOID:
        z = one + steep * size_of(e)
        return one / (z * z)
    if kind == ATAN:
        z = alike(0.5 * np.pi, e) * steep * e
        return alike(0.5, e) * steep / (one + z * z)
    if kind == TRIANGLE:
        return larger(steep * (one - steep * size_of(e)), alike(0, e))
    return steep


@disjoint
def backward(
    first: int, last: int, parts: int, bounds: A, start: A, index: A, col: A, when: A, weight: A, p: A, i_0: A,
    m_0: A, v: A, i_seq: A, h: A, g: A, delta: A, d_weight: A, d_p: A, table: A, rows: A, currents: A, tile: A,
    room: A, time: int, kind: int, a: float, attached: float, subtract: bool, plain: bool, again: bool, store: bool,
    learn: bool, keep_i: bool,
) -> None:
    """Tasks first..last - 1 of blocks * parts; a part is a run of the groups of samples in ``bounds``. time: steps.

    again: the membrane is computed again from the lists; else it is v (and i_seq where keep_i), [time * batch, n].
    kind, a: surrogate and steepness; h [time * batch, n] where PRECOMPUTED. g: gradient to the output, [time * batch,
    n] or, the same in all steps, [batch, n]. Left behind: delta [time * batch, n], gradient to the currents, where
    store; d_weight [parts, n, in] where ``col`` has lists; d_p [parts, 4, blocks * WIDE] of alpha, beta, v_threshold
    (where learn) and the bias. Room: table [in + 1, WIDE], rows [most rows of a group + 1, WIDE], currents (the same
    where keep_i), tile [16, WIDE], room [2, WIDE].
    """
    wide()
    steps, batch, n = U(time), U(i_0.shape[0]), U(g.shape[1])
    many = batch if U(g.shape[0]) > batch else ZERO
    groups, inputs = U(bounds.size - 1), U(d_weight.shape[2])
    by_lists = col.shape[0] > 0
    last_row = U(rows.shape[0] - 1)
    packed = n
    nothing = alike(0, lanes(p, ZERO, ZERO))
    one = alike(1, nothing)
    left = one if subtract else nothing  # what of v a spike leaves
    bent = nothing if subtract else alike(-attached, nothing)
    put(rows, last_row, ZERO, nothing)
    for task in range(U(first), U(last)):
        block, part = U(task) // U(parts), U(task) % U(parts)
        o = block * WIDE
        width = min(WIDE, n - o)
        if again and o != packed:
            _pack(weight, o, width, table)
            packed = o
        alpha, gain_syn, beta, gain = lanes(p, ALPHA, o), lanes(p, GAIN_SYN, o), lanes(p, BETA, o), lanes(p, GAIN, o)
        drive, theta, v_reset, bias = lanes(p, DRIVE, o), lanes(p, THETA, o), lanes(p, V_RESET, o), lanes(p, BIAS, o)
        level = alike(-attached, nothing) * theta if subtract else alike(attached, nothing) * v_reset
        d_alpha, d_beta, d_theta, d_bias = nothing, nothing, nothing, nothing
        put(room, ZERO, ZERO, nothing)
        begin = groups * part // U(parts)
        for group in range(begin, groups * (part + ONE) // U(parts)):
            b_0 = U(bounds[group])
            for b in range(b_0, U(bounds[U(group) + ONE])):
                base = (U(b) - b_0) * steps
                if again:
                    syn, u = _take(i_0, U(b), o, width, room), _take(m_0, U(b), o, width, room)
                    for t in range(steps):
                        r = U(t) * batch + U(b)
                        x = _gather(index, U(start[r]), U(start[r + ONE]), table, ZERO, bias)
                        if plain:
                            u = beta * u + x
                        else:
                            syn = alpha * syn + gain_syn * x
                            u = beta * u + gain * syn + drive
                        put(rows, base + U(t), ZERO, u)
                        if keep_i:
                            put(currents, base + U(t), ZERO, syn)
                        u = pick(over(u, theta), u - theta if subtract else v_reset, u)
                else:
                    for t in range(steps):
                        r = U(t) * batch + U(b)
                        put(rows, base + U(t), ZERO, _take(v, r, o, width, room))
                        if keep_i:
                            put(currents, base + U(t), ZERO, _take(i_seq, r, o, width, room))
                du, di = nothing, nothing
                for back in range(steps):
                    now = steps - ONE - U(back)
                    row = base + now
                    above = _take(g, now * many + U(b), o, width, room)
                    u = lanes(rows, row, ZERO)
                    dv = beta * du
                    if kind == SILENT:
                        slope = nothing
                        du = above + dv
                    else:
                        if kind == PRECOMPUTED:
                            slope = _take(h, now * batch + U(b), o, width, room)
                        else:
                            slope = _slope(kind, a, u - theta)
                        kept = pick(over(u, theta), left, one)
                        du = above * slope + dv * (kept + (level + bent * u) * slope)
                    if plain:
                        x = du
                    else:
                        di = gain * du + alpha * di
                        x = gain_syn * di
                    if learn:
                        if now > ZERO:
                            before = lanes(rows, row - ONE, ZERO)
                            before = pick(over(before, theta), before - theta if subtract else v_reset, before)
                            synapse = lanes(currents, row - ONE, ZERO) if keep_i else nothing
                        else:
                            before = _take(m_0, U(b), o, width, room)
                            synapse = _take(i_0, U(b), o, width, room)
                        d_beta = d_beta + du * before
                        d_alpha = d_alpha + di * synapse
                        if kind != SILENT:
                            d_theta = d_theta - (above + dv * (level + bent * u)) * slope
                            if subtract:
                                d_theta = d_theta - pick(over(u, theta), dv, nothing)
                    d_bias = d_bias + x
                    put(rows, row, ZERO, x)
                    if store:
                        _give(x, delta, now * batch + U(b), o, width, room)
            if by_lists:
                for k0 in range(ZERO, inputs, TILE):
                    size = min(TILE, inputs - U(k0))
                    for k in range(size):
                        e = col[group, U(k0) + k]
                        x = _gather(when, U(e), U(col[group, U(k0) + U(k) + ONE]), rows, ZERO, nothing)
                        put(tile, U(k), ZERO, x)
                    for j in range(width):
                        for k in range(size):
                            if group == begin:
                                d_weight[part, o + j, U(k0) + k] = tile[U(k), j]
                            else:
                                d_weight[part, o + j, U(k0) + k] += tile[U(k), j]
        d_part = d_p[part]
        put(d_part, ZERO, o, d_alpha)
        put(d_part, ONE, o, d_beta)
        put(d_part, TWO, o, d_theta)
        put(d_part, THREE, o, d_bias)
