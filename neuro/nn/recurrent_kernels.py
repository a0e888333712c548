"""Whole time of a recurrent layer in one call forwards and one backwards: the compiled loops of `neuro.nn.recurrent`.

A call works on batch rows of its own (neuro.jit): forwards the rows of W^T of those who fired are added up, backwards
rows go in blocks through `neuro.nn.tile`. Each sum is in one order, so a row does not depend on what is beside it:
neither on the batch nor on the number of threads. Arithmetic and coefficients are those of `neuro.nn.kernels`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.jit import kernel, piece
from neuro.nn.bits import lowest
from neuro.nn.kernels import (
    PRECOMPUTED,
    _adjoint,
    _adjoint_with_v,
    _fire,
    _integrate,
    _integrate_grid,
    _learn,
    _reset,
    _slope,
    _unpack,
)
from neuro.nn.tile import ROWS, tile

A = NDArray[Any]
TALL = 32  # batch rows of a block: a panel of W is read from the first-level cache by all of them
WIDE = 256  # columns of a gradient at a time: those of a thousand sources lie in the second-level cache

# fmt: off


@piece
def add_rows(words: A, w_t: A, current: A) -> None:
    """current += the rows of w_t [sources, n] of the sources whose bits are set, in rising order."""
    for w in range(words.size):
        word, first = words[w], np.uint64(64) * np.uint64(w)
        while word:
            row = w_t[first + np.uint64(lowest(word))]
            word &= word - np.uint64(1)
            for k in range(current.size):
                current[k] += row[k]


@kernel
def gather(first: int, last: int, words: A, w_t: A, bias: A, out: A) -> None:
    """Rows first..last - 1 of out [rows, n] = bias + spikes @ w_t, the spikes as words [rows, *]."""
    for r in range(first, last):
        current = out[r]
        for k in range(current.size):
            current[k] = bias[k]
        add_rows(words[r], w_t, current)


@kernel
def scatter(first: int, last: int, before: A, words: A, d: A, d_w_t: A) -> None:
    """d_w_t [sources, n] += spikes^T @ d, columns first..last - 1 only; d [rows, n].

    The spikes of rows 0.. are ``before``, those of the rows behind it ``words`` from its start.
    """
    early = before.shape[0]
    for start in range(first, last, WIDE):
        stop = min(start + WIDE, last)
        for r in range(d.shape[0]):
            row = before[r] if r < early else words[r - early]
            given = d[r, start:stop]
            for w in range(row.size):
                word, at = row[w], np.uint64(64) * np.uint64(w)
                while word:
                    total = d_w_t[at + np.uint64(lowest(word)), start:stop]
                    word &= word - np.uint64(1)
                    for k in range(given.size):
                        total[k] += given[k]


@kernel
def forward(
    first: int, last: int, x: A, w_t: A, before: A, i: A, m: A, v: A, words: A, i_out: A, room: A, alpha: A,
    gain_syn: A, beta: A, gain: A, drive: A, theta: A, v_reset: A, subtract: bool, keep_v: bool, keep_i: bool,
    grid: bool, unit: float, fraction: float, limit: float,
) -> None:
    """`kernels.forward` with x[t] + W s[t-1] for a current; w_t is W^T.

    before: bits [batch, *] of the spikes before step 0. room: [batch, n].
    """
    for b in range(first, last):
        current = room[b]
        for t in range(x.shape[0]):
            for k in range(current.size):
                current[k] = x[t, b, k]
            add_rows(before[b] if t == 0 else words[t - 1, b], w_t, current)
            if grid:
                _integrate_grid(current, i[b], m[b], alpha, beta, drive, fraction, limit)
            else:
                _integrate(current, i[b], m[b], alpha, gain_syn, beta, gain, drive)
            if keep_v:
                for k in range(current.size):
                    v[t, b, k] = m[b, k] * unit
            if keep_i:
                for k in range(current.size):
                    i_out[t, b, k] = i[b, k]
            _fire(m[b], words[t, b], theta, v_reset, subtract)


@kernel
def backward(
    first: int, last: int, kind: int, a: float, g: A, g_u: A, h: A, v: A, words: A, i_seq: A, i_0: A, m_0: A, du: A,
    dv: A, di: A, dx: A, s: A, m: A, d_alpha: A, d_beta: A, d_theta: A, alpha: A, gain_syn: A, beta: A, gain: A,
    theta: A, v_reset: A, c_s: float, c_h: A, c_uh: float, subtract: bool, has_g: bool, has_u: bool, learn: bool,
    panels: A, ds: A, later: A,
) -> None:
    """`kernels.backward` with ds[t] = g[t] + dx[t+1] W; panels: `tile.panels` of W.

    first, last: in units of ROWS batch rows. Room: ds [rows, whole panels], later [rows, n], with rows a multiple of
    ROWS and later 0 at the start.
    """
    steps, batch, n = v.shape
    wide = panels.shape[2]
    for block in range(first * ROWS, last * ROWS, TALL):
        end = min(block + TALL, last * ROWS)
        for t in range(steps - 1, -1, -1):
            for b in range(block, min(end, batch)):
                for k in range(n):
                    ds[b, k] = g[t, b, k] if has_g else ds.dtype.type(0)
            if t + 1 < steps:
                for p in range(panels.shape[0]):
                    for b in range(block, end, ROWS):
                        tile(ds, later, panels[p], b, p * wide)
            for b in range(block, min(end, batch)):
                back = ds[b, :n]
                slope = h[t, b] if kind == PRECOMPUTED else h[0, b]
                if kind > PRECOMPUTED:
                    _slope(kind, a, v[t, b], theta, slope)
                _unpack(words[t, b], s[b])
                if has_u:
                    _adjoint_with_v(
                        back, g_u[t, b], slope, v[t, b], s[b], du[b], dv[b], di[b], later[b], alpha, gain_syn, beta,
                        gain, c_s, c_h, c_uh,
                    )
                else:
                    _adjoint(
                        back, slope, v[t, b], s[b], du[b], dv[b], di[b], later[b], alpha, gain_syn, beta, gain, c_s,
                        c_h, c_uh,
                    )
                for k in range(n):
                    dx[t, b, k] = later[b, k]
                if learn:
                    if t > 0:
                        _reset(v[t - 1, b], words[t - 1, b], m[b], theta, v_reset, subtract)
                    _learn(
                        back, slope, v[t, b], s[b], i_seq[t - 1, b] if t > 0 else i_0[b], m[b] if t > 0 else m_0[b],
                        du[b], dv[b], di[b], d_alpha[b], d_beta[b], d_theta[b], theta, c_h, c_uh, subtract,
                    )
