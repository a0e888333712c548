"""Linear and the neurons behind it in one loop: currents are sums of weight rows picked by events, never stored.

A task is `WIDE` neurons (a block) of some samples of the batch. Its part of the matrix, transposed to [in, WIDE], stays
in the second-level cache while all samples and steps pass by; state and coefficients of the block are slots of one
small array ``work``, whose constant offsets let the compiler use vectors. Lists of events are padded to multiples of 4
with the index of a row of zeros: four rows are added at a time. Backwards the membrane of a block is computed again
the same way, the adjoint runs back over it in place, and the gradient of a weight column is the sum of the adjoint
over the steps in which its input fired: the same loop over the transposed lists.

Rows of activity are step * batch + sample. Arithmetic is that of `neuro.nn.kernels` (compiled by neuro.jit).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.jit import disjoint, kernel, lowest, ones, piece, wide

A = NDArray[Any]
N = Any  # np.uint64: an index that cannot be negative costs no test, and int64 times uint64 would be a float
U = np.uint64
WIDE = U(64)  # neurons of a block: one word of bits, four lines of the cache in float32
TILE = U(16)  # columns that are transposed together: a line of the cache
PAD = 4
ZERO, ONE, TWO, THREE, FOUR = U(0), U(1), U(2), U(3), U(4)

# slots of ``work``
ALPHA, GAIN_SYN, BETA, GAIN, DRIVE, THETA, V_RESET, BIAS = (U(64 * k) for k in range(8))
SYN, M, X, G, H, DU, DV, DI, C_H = (U(64 * k) for k in range(8, 17))
D_ALPHA, D_BETA, D_THETA, D_BIAS, I_0, M_0 = (U(64 * k) for k in range(17, 23))
COEFFICIENTS, LEARNT = U(8), U(4)
WORK, TILES = 64 * 23, 64 * 16  # sizes of work and tile

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
            while word:
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
def _gather(index: A, begin: N, end: N, table: A, base: N, work: A) -> None:
    """work[X] += the rows of a table that a padded list names, counted from row ``base``."""
    e = begin
    while e < end:
        a, b = base + U(index[e]), base + U(index[e + ONE])
        c, d = base + U(index[e + TWO]), base + U(index[e + THREE])
        for j in range(WIDE):
            work[X + j] += (table[a, j] + table[b, j]) + (table[c, j] + table[d, j])
        e += FOUR


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
def _read(a: A, t: N, b: N, o: N, width: N, out: A, at: N) -> None:
    """out[at..] = a[t, b, o..]."""
    for j in range(width):
        out[at + j] = a[t, b, o + j]


@piece
def _write(work: A, at: N, a: A, t: N, b: N, o: N, width: N) -> None:
    """a[t, b, o..] = work[at..]."""
    for j in range(width):
        a[t, b, o + j] = work[at + j]


@piece
def _integrate(work: A, plain: bool) -> None:
    """One step of i and v. plain: alpha, gain_syn, gain, drive are 0, 1, 1, 0."""
    if plain:
        for j in range(WIDE):
            work[M + j] = work[BETA + j] * work[M + j] + work[X + j]
    else:
        for j in range(WIDE):
            i = work[ALPHA + j] * work[SYN + j] + work[GAIN_SYN + j] * work[X + j]
            work[SYN + j] = i
            work[M + j] = work[BETA + j] * work[M + j] + work[GAIN + j] * i + work[DRIVE + j]


@piece
def _word(work: A) -> N:
    word = ZERO
    for j in range(WIDE):
        word |= U(work[M + j] > work[THETA + j]) << U(j)
    return word


@piece
def _reset(work: A, subtract: bool) -> None:
    if subtract:
        for j in range(WIDE):
            u = work[M + j]
            work[M + j] = u - work[THETA + j] if u > work[THETA + j] else u
    else:
        for j in range(WIDE):
            u = work[M + j]
            work[M + j] = work[V_RESET + j] if u > work[THETA + j] else u


@piece
def _begin(p: A, i: A, m: A, b: N, o: N, width: N, work: A) -> None:
    """Coefficients and the state of sample b."""
    for j in range(WIDE):
        work[SYN + j] = 0
        work[M + j] = 0
    for j in range(width):
        work[SYN + j] = i[b, o + j]
        work[M + j] = m[b, o + j]


@disjoint
def forward(
    first: int, last: int, parts: int, given: bool, start: A, index: A, weight: A, p: A, i: A, m: A, words: A, v: A,
    i_out: A, table: A, work: A, subtract: bool, plain: bool, keep_v: bool, keep_i: bool,
) -> None:
    """Tasks first..last - 1 of blocks * parts: words [time, batch, blocks]; where kept v (before the reset), i.

    The currents lie in v [time, batch, n] where given, else they are sums over the lists. p: the coefficients
    [8, blocks * WIDE]. State i and m (after the reset): [batch, n], read and left behind.
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
        for c in range(COEFFICIENTS):
            for j in range(WIDE):
                work[U(c) * WIDE + j] = p[c, o + j]
        for b in range(batch * part // U(parts), batch * (part + ONE) // U(parts)):
            _begin(p, i, m, b, o, width, work)
            for t in range(steps):
                if given:
                    _read(v, t, b, o, width, work, X)
                    for j in range(WIDE):
                        work[X + j] += work[BIAS + j]
                else:
                    for j in range(WIDE):
                        work[X + j] = work[BIAS + j]
                    r = t * batch + b
                    _gather(index, U(start[r]), U(start[r + ONE]), table, ZERO, work)
                _integrate(work, plain)
                if keep_v:
                    _write(work, M, v, t, b, o, width)
                if keep_i:
                    _write(work, SYN, i_out, t, b, o, width)
                words[t, b, block] = _word(work)
                _reset(work, subtract)
            for j in range(width):
                i[b, o + j] = work[SYN + j]
                m[b, o + j] = work[M + j]


@piece
def _slope(kind: int, a: float, work: A) -> None:
    """work[H]: the surrogate's derivative at work[M]."""
    one = work.dtype.type(1)
    if kind == FAST_SIGMOID:
        for j in range(WIDE):
            z = one + a * abs(work[M + j] - work[THETA + j])
            work[H + j] = one / (z * z)
    elif kind == ATAN:
        c = work.dtype.type(0.5 * np.pi) * a
        half = work.dtype.type(0.5) * a
        for j in range(WIDE):
            z = c * (work[M + j] - work[THETA + j])
            work[H + j] = half / (one + z * z)
    elif kind == TRIANGLE:
        for j in range(WIDE):
            work[H + j] = max(a * (one - a * abs(work[M + j] - work[THETA + j])), work.dtype.type(0))
    elif kind == STRAIGHT_THROUGH:
        for j in range(WIDE):
            work[H + j] = a


@piece
def _adjoint(work: A, kind: int, plain: bool, c_k: float, c_uh: float) -> None:
    """One step back: work[X] becomes the gradient to the current. c_k: what of v a spike leaves, 0 or 1."""
    one = work.dtype.type(1)
    if kind == SILENT:
        for j in range(WIDE):
            work[DV + j] = work[BETA + j] * work[DU + j]
            work[DU + j] = work[G + j] + work[DV + j]
    else:
        for j in range(WIDE):
            u, h = work[M + j], work[H + j]
            kept = c_k if u > work[THETA + j] else one
            dv = work[BETA + j] * work[DU + j]
            work[DV + j] = dv
            work[DU + j] = work[G + j] * h + dv * (kept + (work[C_H + j] + c_uh * u) * h)
    if plain:
        for j in range(WIDE):
            work[X + j] = work[DU + j]
    else:
        for j in range(WIDE):
            di = work[GAIN + j] * work[DU + j] + work[ALPHA + j] * work[DI + j]
            work[DI + j] = di
            work[X + j] = work[GAIN_SYN + j] * di


@piece
def _learn(work: A, subtract: bool, spiking: bool, c_uh: float) -> None:
    """Adds a step to the gradients of alpha, beta, v_threshold; I_0 and M_0: the state before it, M after reset."""
    for j in range(WIDE):
        work[D_BETA + j] += work[DU + j] * work[M_0 + j]
        work[D_ALPHA + j] += work[DI + j] * work[I_0 + j]
    if spiking:
        for j in range(WIDE):
            u, dv = work[M + j], work[DV + j]
            work[D_THETA + j] -= (work[G + j] + dv * (work[C_H + j] + c_uh * u)) * work[H + j]
            if subtract:
                work[D_THETA + j] -= dv if u > work[THETA + j] else work.dtype.type(0)


@disjoint
def backward(
    first: int, last: int, parts: int, bounds: A, start: A, index: A, col: A, when: A, weight: A, p: A, i_0: A,
    m_0: A, v: A, i_seq: A, h: A, g: A, delta: A, d_weight: A, d_p: A, table: A, rows: A, currents: A, tile: A,
    work: A, time: int, kind: int, a: float, attached: float, subtract: bool, plain: bool, again: bool, store: bool,
    learn: bool, keep_i: bool,
) -> None:
    """Tasks first..last - 1 of blocks * parts; a part is a run of the groups of samples in ``bounds``. time: steps.

    again: the membrane is computed again from the lists; else it is v (and i_seq where keep_i), [time, batch, n].
    kind, a: surrogate and steepness; h [time, batch, n] where PRECOMPUTED. g: gradient to the output, [time, batch, n]
    or, the same in all steps, [1, batch, n]. Left behind: delta [time, batch, n], gradient to the currents, where
    store; d_weight [parts, n, in] where ``col`` has lists; d_p [parts, 4, blocks * WIDE] of alpha, beta, v_threshold
    (where learn) and the bias. Room: table [in + 1, WIDE], rows [most rows of a group + 1, WIDE], currents (the same
    where keep_i), tile, work.
    """
    wide()
    steps, n = U(time), U(g.shape[2])
    many = ONE if g.shape[0] > 1 else ZERO
    groups, inputs = U(bounds.size - 1), U(d_weight.shape[2])
    by_lists = col.shape[0] > 0
    last_row = U(rows.shape[0] - 1)
    unknown = U(rows.shape[1])  # WIDE, but unknown to the compiler, which unrolls copies of known length into scalars
    zero = work.dtype.type(0)
    c_k = work.dtype.type(1) if subtract else zero
    c_uh = zero if subtract else -attached
    packed = n
    for j in range(WIDE):
        rows[last_row, j] = 0
    for task in range(U(first), U(last)):
        block, part = U(task) // U(parts), U(task) % U(parts)
        o = block * WIDE
        width = min(WIDE, n - o)
        if again and o != packed:
            _pack(weight, o, width, table)
            packed = o
        for c in range(COEFFICIENTS):
            for j in range(WIDE):
                work[U(c) * WIDE + j] = p[c, o + j]
        for j in range(WIDE):
            work[C_H + j] = -attached * work[THETA + j] if subtract else attached * work[V_RESET + j]
            if kind == SILENT:
                work[C_H + j] = 0
            work[D_ALPHA + j] = 0
            work[D_BETA + j] = 0
            work[D_THETA + j] = 0
            work[D_BIAS + j] = 0
            work[H + j] = 0
            work[M + j] = 0
        for j in range(width, WIDE):
            for k in range(TILE):
                tile[U(k) * WIDE + j] = 0
        begin = groups * part // U(parts)
        for group in range(begin, groups * (part + ONE) // U(parts)):
            b_0 = U(bounds[group])
            for b in range(b_0, U(bounds[U(group) + ONE])):
                base = (U(b) - b_0) * steps
                if again:
                    _begin(p, i_0, m_0, b, o, width, work)
                    for t in range(steps):
                        for j in range(WIDE):
                            work[X + j] = work[BIAS + j]
                        r = U(t) * U(g.shape[1]) + U(b)
                        _gather(index, U(start[r]), U(start[r + ONE]), table, ZERO, work)
                        _integrate(work, plain)
                        for j in range(unknown):
                            rows[base + t, j] = work[M + j]
                        if keep_i:
                            for j in range(unknown):
                                currents[base + t, j] = work[SYN + j]
                        _reset(work, subtract)
                else:
                    for t in range(steps):
                        _read(v, t, b, o, width, work, M)
                        for j in range(unknown):
                            rows[base + t, j] = work[M + j]
                        if keep_i:
                            for j in range(width):
                                currents[base + t, j] = i_seq[t, b, o + j]
                for j in range(WIDE):
                    work[DU + j] = 0
                    work[DI + j] = 0
                    work[I_0 + j] = 0
                for back in range(steps):
                    now = steps - ONE - U(back)
                    row = base + now
                    if U(back) % TILE == ZERO:  # rows that lie far apart in memory: many at once hide their latency
                        for k in range(min(TILE, now + ONE)):
                            _read(g, (now - U(k)) * many, b, o, width, tile, U(k) * WIDE)
                    at = U(back) % TILE * WIDE
                    for j in range(unknown):
                        work[G + j] = tile[at + j]
                    for j in range(unknown):
                        work[M + j] = rows[row, j]
                    if kind == PRECOMPUTED:
                        _read(h, now, b, o, width, work, H)
                    else:
                        _slope(kind, a, work)
                    _adjoint(work, kind, plain, c_k, c_uh)
                    if learn:
                        if now > ZERO:
                            for j in range(WIDE):
                                u = rows[row - ONE, j]
                                after = u - work[THETA + j] if subtract else work[V_RESET + j]
                                work[M_0 + j] = after if u > work[THETA + j] else u
                            if keep_i:
                                for j in range(unknown):
                                    work[I_0 + j] = currents[row - ONE, j]
                        else:
                            for j in range(width):
                                work[M_0 + j] = m_0[b, o + j]
                                work[I_0 + j] = i_0[b, o + j]
                        _learn(work, subtract, kind != SILENT, c_uh)
                    for j in range(WIDE):
                        work[D_BIAS + j] += work[X + j]
                    for j in range(unknown):
                        rows[row, j] = work[X + j]
                    if store:
                        _write(work, X, delta, now, b, o, width)
            if by_lists:
                for k0 in range(ZERO, inputs, TILE):
                    size = min(TILE, inputs - U(k0))
                    for k in range(size):
                        for j in range(WIDE):
                            work[X + j] = 0
                        e = col[group, U(k0) + k]
                        _gather(when, U(e), U(col[group, U(k0) + U(k) + ONE]), rows, ZERO, work)
                        for j in range(unknown):
                            tile[U(k) * WIDE + j] = work[X + j]
                    for j in range(width):
                        for k in range(size):
                            if group == begin:
                                d_weight[part, o + j, U(k0) + k] = tile[U(k) * WIDE + j]
                            else:
                                d_weight[part, o + j, U(k0) + k] += tile[U(k) * WIDE + j]
        for j in range(WIDE):
            d_p[part, 0, o + j] = work[D_ALPHA + j]
            d_p[part, 1, o + j] = work[D_BETA + j]
            d_p[part, 2, o + j] = work[D_THETA + j]
            d_p[part, 3, o + j] = work[D_BIAS + j]
