"""Whole time of a recurrent layer in one call forwards and one backwards: the compiled loops of `neuro.nn.recurrent`.

A call works on batch rows of its own (neuro.jit): forwards the rows of W^T of those who fired are added up, backwards
rows go in blocks through `neuro.nn.tile`. Each sum is in one order, so a row does not depend on what is beside it:
neither on the batch nor on the number of threads. Arithmetic and coefficients are those of `neuro.nn.kernels`, a grid
too. Indices are unsigned: a signed one may count from the end, and a loop that has to ask runs without vectors.

Tables of weights are [sources + 1, n], source by target, and their last row is 0: lists of sources are filled up with
it to a multiple of four.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.jit import disjoint, piece
from neuro.nn.bits import lowest
from neuro.nn.kernels import ATAN, FAST_SIGMOID, PRECOMPUTED, TRIANGLE
from neuro.nn.tile import ROWS, tile

A = NDArray[Any]
U = np.uint64
ZERO, ONE, TWO, THREE, FOUR, WORD = U(0), U(1), U(2), U(3), U(4), U(64)
TALL = 32  # batch rows of a block: a panel of W is read from the first-level cache by all of them
WIDE = 256  # columns of a gradient at a time: those of a thousand sources lie in the second-level cache

# fmt: off


@piece
def listed(words: A, index: A, nobody: np.uint64) -> np.uint64:
    """index: the set bits of words, rising, filled up with ``nobody`` to a multiple of four; how many."""
    at = ZERO
    for w in range(U(words.size)):
        word = words[w]
        while word:
            index[at] = WORD * U(w) + U(lowest(word))
            at += ONE
            word &= word - ONE
    while at % FOUR:
        index[at] = nobody
        at += ONE
    return at


@piece
def add_rows(index: A, count: np.uint64, table: A, current: A) -> None:
    """current += the rows of table that the first ``count`` entries of index name."""
    e = ZERO
    while e < count:
        a, b = table[index[e]], table[index[e + ONE]]
        c, d = table[index[e + TWO]], table[index[e + THREE]]
        for k in range(U(current.size)):
            current[k] += (a[k] + b[k]) + (c[k] + d[k])
        e += FOUR


@piece
def above(m: A, theta: A, words: A) -> None:
    """words: the bits of m > theta."""
    n = U(m.size)
    whole = n // WORD
    for w in range(whole):
        word, first = ZERO, U(w) * WORD
        for k in range(WORD):
            word |= U(m[first + U(k)] > theta[first + U(k)]) << U(k)
        words[w] = word
    if whole * WORD < n:
        word = ZERO
        for k in range(whole * WORD, n):
            word |= U(m[k] > theta[k]) << (U(k) - whole * WORD)
        words[whole] = word


@piece
def fire(m: A, words: A, theta: A, v_reset: A, subtract: bool) -> None:
    """The bits of m > theta, and m after the reset."""
    above(m, theta, words)
    if subtract:
        for k in range(U(m.size)):
            m[k] = m[k] - theta[k] if m[k] > theta[k] else m[k]
    else:
        for k in range(U(m.size)):
            m[k] = v_reset[k] if m[k] > theta[k] else m[k]


@piece
def integrate(
    x: A, i: A, m: A, alpha: A, gain_syn: A, beta: A, gain: A, drive: A, grid: bool, fraction: float, limit: float,
) -> None:
    """One step of i and m; on a grid with its rounding, wrap and clip (`neuro.nn.kernels`)."""
    if grid:
        for k in range(U(m.size)):
            u = np.trunc(alpha[k] * i[k]) + np.rint(fraction * x[k])
            u = u - 2.0 * limit if u > limit else (u + 2.0 * limit if u <= -limit else u)
            i[k] = u
            m[k] = min(max(np.trunc(beta[k] * m[k]) + u + drive[k], 1.0 - limit), limit - 1.0)
    else:
        for k in range(U(m.size)):
            i[k] = alpha[k] * i[k] + gain_syn[k] * x[k]
            m[k] = beta[k] * m[k] + gain[k] * i[k] + drive[k]


@disjoint
def forward(
    first: int, last: int, x: A, entering: A, table_in: A, bias: A, table: A, before: A, i: A, m: A, v: A, words: A,
    i_out: A, room: A, index: A, alpha: A, gain_syn: A, beta: A, gain: A, drive: A, theta: A, v_reset: A,
    subtract: bool, keep_v: bool, keep_i: bool, grid: bool, unit: float, fraction: float, limit: float,
) -> None:
    """Rows first..last - 1 of the batch: the current is x[t] + W s[t-1]; words [time, batch, *] of bits are left
    behind, where kept v (before the reset) and i [time, batch, n].

    x: [time, batch, n], or [0, 0, 0]: then bias + the rows of table_in of who fires in ``entering`` [time, batch, *].
    before: bits [batch, *] of the spikes before step 0. i, m: [batch, n], read and left behind, m after the reset.
    Room: room [batch, n], index [batch, sources + inputs + 4].
    """
    n, inputs = U(m.shape[1]), U(table_in.shape[0] - 1)
    given = x.shape[0] > 0
    for row in range(U(first), U(last)):
        b = U(row)
        current, names = room[b], index[b]
        for t in range(U(words.shape[0])):
            if given:
                for k in range(n):
                    current[k] = x[t, b, k]
            else:
                for k in range(n):
                    current[k] = bias[k]
                add_rows(names, listed(entering[t, b], names, inputs), table_in, current)
            add_rows(names, listed(before[b] if t == 0 else words[U(t) - ONE, b], names, n), table, current)
            integrate(current, i[b], m[b], alpha, gain_syn, beta, gain, drive, grid, fraction, limit)
            if keep_v:
                for k in range(n):
                    v[t, b, k] = m[b, k] * unit
            if keep_i:
                for k in range(n):
                    i_out[t, b, k] = i[b, k]
            fire(m[b], words[t, b], theta, v_reset, subtract)


@disjoint
def scatter(first: int, last: int, before: A, words: A, d: A, total: A, index: A) -> None:
    """total [parts, sources + 1, columns] += spikes^T @ d, of parts first..last - 1; d [rows, n], its columns cut into
    the parts. The last source is nobody.

    The spikes of rows 0.. are ``before``, those of the rows behind it ``words`` from its start.
    Room: index [parts, sources + 4].
    """
    early, names, nobody, n = U(before.shape[0]), index[U(first)], U(total.shape[1] - 1), U(d.shape[1])
    for p in range(U(first), U(last)):
        mine, begin = total[p], U(p) * U(total.shape[2])
        for start in range(begin, min(begin + U(total.shape[2]), n), U(WIDE)):
            size = min(U(WIDE), min(begin + U(total.shape[2]), n) - U(start))
            for row in range(U(d.shape[0])):
                r = U(row)
                count = listed(before[r] if r < early else words[r - early], names, nobody)
                given = d[r, U(start):U(start) + size]
                e = ZERO
                while e < count:
                    sums = mine[names[e], U(start) - begin:U(start) - begin + size]
                    for k in range(size):
                        sums[k] += given[k]
                    e += ONE


@piece
def slope(kind: int, a: float, v: A, theta: A, h: A) -> None:
    """h(v - theta) of the surrogates that need no transcendental function, with steepness a."""
    one, half = h.dtype.type(1), h.dtype.type(0.5)
    if kind == FAST_SIGMOID:
        for k in range(U(h.size)):
            z = one + a * abs(v[k] - theta[k])
            h[k] = one / (z * z)
    elif kind == ATAN:
        c = h.dtype.type(0.5 * np.pi) * a
        for k in range(U(h.size)):
            z = c * (v[k] - theta[k])
            h[k] = half * a / (one + z * z)
    elif kind == TRIANGLE:
        for k in range(U(h.size)):
            h[k] = max(a * (one - a * abs(v[k] - theta[k])), h.dtype.type(0))
    else:
        for k in range(U(h.size)):
            h[k] = a


@piece
def unpack(words: A, s: A) -> None:
    """Bits to 0 and 1."""
    n = U(s.size)
    for w in range(n // WORD):
        word, first = words[w], U(w) * WORD
        for k in range(WORD):
            s[first + U(k)] = s.dtype.type((word >> U(k)) & ONE)
    for k in range(n // WORD * WORD, n):
        s[k] = s.dtype.type((words[n // WORD] >> (U(k) % WORD)) & ONE)


@piece
def adjoint(
    ds: A, h: A, v: A, s: A, du: A, dv: A, di: A, dx: A, alpha: A, gain_syn: A, beta: A, gain: A, c_s: float, c_h: A,
    c_uh: float,
) -> None:
    """A step back, see `neuro.nn.kernels`; dx becomes the gradient to the current."""
    one = s.dtype.type(1)
    for k in range(U(ds.size)):
        dv[k] = beta[k] * du[k]
        du[k] = ds[k] * h[k] + dv[k] * (one - c_s * s[k] + (c_h[k] + c_uh * v[k]) * h[k])
        di[k] = gain[k] * du[k] + alpha[k] * di[k]
        dx[k] = gain_syn[k] * di[k]


@piece
def learn_step(
    ds: A, h: A, v: A, s: A, i: A, m: A, du: A, dv: A, di: A, d_alpha: A, d_beta: A, d_theta: A, c_h: A, c_uh: float,
    subtract: bool,
) -> None:
    """Adds a step to the gradients of alpha, beta, v_threshold; i and m: the state before it (m after the reset)."""
    falls = s.dtype.type(1 if subtract else 0)
    for k in range(U(v.size)):
        d_theta[k] -= (ds[k] + dv[k] * (c_h[k] + c_uh * v[k])) * h[k] + falls * dv[k] * s[k]
        d_beta[k] += du[k] * m[k]
        d_alpha[k] += di[k] * i[k]


@disjoint
def backward(
    first: int, last: int, kind: int, a: float, g: A, g_u: A, h: A, v: A, words: A, i_seq: A, i_0: A, m_0: A, du: A,
    dv: A, di: A, dx: A, s: A, m: A, d_alpha: A, d_beta: A, d_theta: A, alpha: A, gain_syn: A, beta: A, gain: A,
    theta: A, v_reset: A, c_s: float, c_h: A, c_uh: float, subtract: bool, has_g: bool, has_u: bool, learn: bool,
    panels: A, ds: A, later: A,
) -> None:
    """Gradients to the currents (dx) and, where learn, to alpha, beta, v_threshold per batch row, [batch, n].

    first, last: in units of ROWS batch rows. g, g_u: gradient to s and to v, [time, batch, n]. h: the surrogate's
    derivative, [time, batch, n], if PRECOMPUTED, else room [1, batch, n]. i_0, m_0: [batch, n], the state before step
    0; i_seq: i. panels: `tile.panels` of W. State du, di and room dv, s, m: [batch, n]; ds [rows, whole panels], later
    [rows, n], with rows a multiple of ROWS; du, di, later 0 at the start.
    """
    steps, batch, n = U(v.shape[0]), v.shape[1], U(v.shape[2])
    wide = panels.shape[2]
    zero = ds.dtype.type(0)
    for block in range(first * ROWS, last * ROWS, TALL):
        end = min(block + TALL, last * ROWS)
        for back in range(steps):
            t = steps - ONE - U(back)
            for row in range(U(block), U(min(end, batch))):
                b = U(row)
                if has_g:
                    for k in range(n):
                        ds[b, k] = g[t, b, k]
                else:
                    for k in range(n):
                        ds[b, k] = zero
            if back > 0:
                for p in range(panels.shape[0]):
                    for high in range(block, end, ROWS):
                        tile(ds, later, panels[U(p)], high, p * wide)
            for row in range(U(block), U(min(end, batch))):
                b = U(row)
                d, bent = ds[b, :n], h[t if kind == PRECOMPUTED else ZERO, b]
                if kind > PRECOMPUTED:
                    slope(kind, a, v[t, b], theta, bent)
                unpack(words[t, b], s[b])
                adjoint(d, bent, v[t, b], s[b], du[b], dv[b], di[b], later[b], alpha, gain_syn, beta, gain, c_s, c_h,
                        c_uh)
                if has_u:
                    for k in range(n):
                        du[b, k] += g_u[t, b, k]
                        di[b, k] += gain[k] * g_u[t, b, k]
                        later[b, k] = gain_syn[k] * di[b, k]
                for k in range(n):
                    dx[t, b, k] = later[b, k]
                if learn:
                    if t > 0:
                        for k in range(n):
                            m[b, k] = v[t - ONE, b, k]
                        unpack(words[t - ONE, b], s[b])
                        for k in range(n):
                            after = m[b, k] - theta[k] if subtract else v_reset[k]
                            m[b, k] = after if s[b, k] != zero else m[b, k]
                        unpack(words[t, b], s[b])
                    else:
                        for k in range(n):
                            m[b, k] = m_0[b, k]
                    learn_step(
                        d, bent, v[t, b], s[b], i_seq[t - ONE, b] if t > 0 else i_0[b], m[b], du[b], dv[b], di[b],
                        d_alpha[b], d_beta[b], d_theta[b], c_h, c_uh, subtract,
                    )
