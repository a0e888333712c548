"""Time loops of `neuro.nn.neurons` as compiled kernels: one pass over memory forwards, one backwards.

Arrays are [time, batch, n]; parameters are [n]. One call may run all steps, or one step of a
recurrent layer, whose matrix product lies between two calls (`neuro.nn.fused`). A call works on the
batch rows first..last - 1 and releases the interpreter lock: `over_rows` gives each thread its rows,
so the result cannot depend on the number of threads (and no OpenMP runtime is started that a later
fork would trip over). No fastmath: arithmetic is in the order of `neurons.li_step`. A leaky
integrator is a neuron with v_threshold = +inf; it never fires.

With ``grid`` the state lives on a chip's integers, held exactly in float64: currents are weight
integers, ``fraction`` = 64 state units each; decays round towards zero, i wraps and v clips at
``limit`` (Lava 0.10, proc/lif/models.py; Loihi 2); ``unit`` turns state units into reals. Otherwise
unit = 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.jit import kernel
from neuro.nn.pool import pool

A = NDArray[Any]
BLOCK = 1024  # neurons at a time: parameters and state of a block stay in the first-level cache
WORTH_A_THREAD = 100_000  # array elements; below this a thread costs more than it saves


def over_rows(function: Callable[..., None], threads: int, batch: int, size: int, *arguments: Any) -> None:
    """function(first, last, *arguments) over batch rows, in up to ``threads`` threads. size: elements in all."""
    parts = max(1, min(threads, batch, size // WORTH_A_THREAD))
    if parts == 1:
        function(0, batch, *arguments)
        return
    (_, end), *others = itertools.pairwise(batch * k // parts for k in range(parts + 1))
    jobs = [pool(threads).submit(function, a, b, *arguments) for a, b in others]
    try:
        function(0, end, *arguments)  # the caller works too
    finally:
        for job in jobs:
            job.result()


# fmt: off
# Rows of one step are taken as slices: an index that cannot be negative lets the compiler use vectors.


@kernel
def _integrate(
    x: A, i: A, m: A, alpha: A, gain_syn: A, beta: A, gain: A, drive: A,
) -> None:
    for j in range(x.size):
        i[j] = alpha[j] * i[j] + gain_syn[j] * x[j]
        m[j] = beta[j] * m[j] + gain[j] * i[j] + drive[j]


@kernel
def _integrate_grid(
    x: A, i: A, m: A, alpha: A, beta: A, drive: A, fraction: float, limit: float,
) -> None:
    """i = tz(alpha i) + round(fraction x), wrapped; m = tz(beta m) + i + drive, clipped; whole numbers."""
    for j in range(x.size):
        u = np.trunc(alpha[j] * i[j]) + np.rint(fraction * x[j])
        u = u - 2.0 * limit if u > limit else (u + 2.0 * limit if u <= -limit else u)
        i[j] = u
        m[j] = min(max(np.trunc(beta[j] * m[j]) + u + drive[j], 1.0 - limit), limit - 1.0)


@kernel
def _fire(m: A, words: A, theta: A, v_reset: A, subtract: bool) -> None:
    """The bits of m > theta, and m after the reset."""
    n = m.size
    for w in range(words.size):
        first, word = np.uint64(64 * w), np.uint64(0)
        for k in range(first, min(first + np.uint64(64), np.uint64(n))):
            word |= np.uint64(m[k] > theta[k]) << (k - first)
        words[w] = word
    for j in range(n):
        u = m[j]
        after = u - theta[j] if subtract else v_reset[j]
        m[j] = after if u > theta[j] else u


@kernel
def forward(
    first: int, last: int, begin: int, end: int, x: A, i: A, m: A, v: A, words: A, i_out: A, alpha: A,
    gain_syn: A, beta: A, gain: A, drive: A, theta: A, v_reset: A, subtract: bool, keep_v: bool, keep_i: bool,
    grid: bool, unit: float, fraction: float, limit: float,
) -> None:
    """Steps begin..end - 1: currents x -> bits of the spikes (`neuro.nn.bits`, words [time, batch, *]), where keep_v
    v (before the reset; may be x itself), where keep_i i too.

    State i and m (membrane after the reset): [batch, n], read and left behind.
    """
    n = x.shape[2]
    for b in range(first, last):
        for start in range(0, n, BLOCK):
            p = slice(start, min(start + BLOCK, n))
            q = slice(start // 64, (p.stop + 63) // 64)
            current, membrane, leak_i, leak_m, pull = i[b, p], m[b, p], alpha[p], beta[p], drive[p]
            for t in range(begin, end):
                given = x[t, b, p]
                if grid:
                    _integrate_grid(given, current, membrane, leak_i, leak_m, pull, fraction, limit)
                else:
                    _integrate(given, current, membrane, leak_i, gain_syn[p], leak_m, gain[p], pull)
                if keep_v:
                    for k in range(p.start, p.stop):
                        v[t, b, k] = m[b, k] * unit
                if keep_i:
                    for k in range(p.start, p.stop):
                        i_out[t, b, k] = i[b, k]
                _fire(membrane, words[t, b, q], theta[p], v_reset[p], subtract)


# Backwards. With u the membrane before and v after the reset, D* the gradient of the loss to *:
#   Ds = g (+ W^T Dx[t+1]);  Dv = beta Du[t+1];  Du = g_u + Ds h + Dv dv/du;  Di = gain Du + alpha Di[t+1]
#   dv/du = 1 - s + attached (v_reset - u) h    (hard)        attached = 0 where the reset is detached
#   dv/du = 1 - attached v_threshold h          (subtract)
# Both are 1 - c_s s + (c_h + c_uh u) h, so no branch is left in the loop.


# Surrogates whose derivative a kernel computes on the way; `neuro.nn.surrogate` computes the others beforehand.
SILENT, PRECOMPUTED, FAST_SIGMOID, ATAN, TRIANGLE, STRAIGHT_THROUGH = range(6)


@kernel
def _slope(kind: int, a: float, v: A, theta: A, h: A) -> None:
    """h(v - theta) of the surrogates that need no transcendental function, with steepness a."""
    one = h.dtype.type(1)
    if kind == FAST_SIGMOID:
        for j in range(h.size):
            z = one + a * abs(v[j] - theta[j])
            h[j] = one / (z * z)
    elif kind == ATAN:
        c = h.dtype.type(0.5 * np.pi) * a
        for j in range(h.size):
            z = c * (v[j] - theta[j])
            h[j] = h.dtype.type(0.5) * a / (one + z * z)
    elif kind == TRIANGLE:
        for j in range(h.size):
            h[j] = max(a * (one - a * abs(v[j] - theta[j])), h.dtype.type(0))
    else:
        for j in range(h.size):
            h[j] = a


@kernel
def _adjoint(
    ds: A, h: A, v: A, s: A, du: A, dv: A, di: A, dx: A, alpha: A, gain_syn: A, beta: A, gain: A, c_s: float,
    c_h: A, c_uh: float,
) -> None:
    for j in range(ds.size):
        dv[j] = beta[j] * du[j]
        du[j] = ds[j] * h[j] + dv[j] * (1 - c_s * s[j] + (c_h[j] + c_uh * v[j]) * h[j])
        di[j] = gain[j] * du[j] + alpha[j] * di[j]
        dx[j] = gain_syn[j] * di[j]


@kernel
def _adjoint_with_v(
    ds: A, g_u: A, h: A, v: A, s: A, du: A, dv: A, di: A, dx: A, alpha: A, gain_syn: A, beta: A, gain: A,
    c_s: float, c_h: A, c_uh: float,
) -> None:
    """`_adjoint` where the loss sees v too."""
    for j in range(ds.size):
        dv[j] = beta[j] * du[j]
        du[j] = g_u[j] + ds[j] * h[j] + dv[j] * (1 - c_s * s[j] + (c_h[j] + c_uh * v[j]) * h[j])
        di[j] = gain[j] * du[j] + alpha[j] * di[j]
        dx[j] = gain_syn[j] * di[j]


@kernel
def _unpack(words: A, s: A) -> None:
    """Bits to 0 and 1."""
    one, zero = s.dtype.type(1), s.dtype.type(0)
    for w in range(words.size):
        first, word = np.uint64(64 * w), words[w]
        for k in range(first, min(first + np.uint64(64), np.uint64(s.size))):
            s[k] = one if (word >> (k - first)) & np.uint64(1) else zero


@kernel
def _learn(
    g: A, h: A, v: A, s: A, i: A, m: A, du: A, dv: A, di: A, d_alpha: A, d_beta: A, d_theta: A, theta: A, c_h: A,
    c_uh: float, subtract: bool,
) -> None:
    """Adds one step to the gradients of the parameters; i and m: the state before it (m after the reset)."""
    for k in range(v.size):
        d_theta[k] -= (g[k] + dv[k] * (c_h[k] + c_uh * v[k])) * h[k]
        if subtract:
            d_theta[k] -= dv[k] * s[k]
        d_beta[k] += du[k] * m[k]
        d_alpha[k] += di[k] * i[k]


@kernel
def _reset(v: A, words: A, m: A, theta: A, v_reset: A, subtract: bool) -> None:
    """m: the membrane after the reset."""
    for w in range(words.size):
        first, word = np.uint64(64 * w), words[w]
        for k in range(first, min(first + np.uint64(64), np.uint64(v.size))):
            after = v[k] - theta[k] if subtract else v_reset[k]
            m[k] = after if (word >> (k - first)) & np.uint64(1) else v[k]


@kernel
def backward(
    first: int, last: int, begin: int, end: int, kind: int, a: float, g: A, g_u: A, h: A, v: A, words: A, i_seq: A,
    i_0: A, m_0: A, du: A, dv: A, di: A, dx: A, s: A, m: A, d_alpha: A, d_beta: A, d_theta: A, alpha: A,
    gain_syn: A, beta: A, gain: A, theta: A, v_reset: A, c_s: float, c_h: A, c_uh: float, subtract: bool,
    has_g: bool, has_u: bool, learn: bool,
) -> None:
    """Steps end - 1 down to begin: gradients to the currents (dx) and, where learn, to alpha, beta, v_threshold.

    g, g_u: gradient to s and to v, [time, batch, n]. kind, a: the surrogate and its steepness. h: its
    derivative, [time, batch, n], if PRECOMPUTED; else [1, batch, n], zero if SILENT (nothing fires), room
    for one step otherwise. State du, dv, di: [batch, n], read and left behind. i_0, m_0: [batch, n], the state
    before step 0. s, m: room [batch, n]. Gradients of parameters add up per batch row, [batch, n].
    """
    n = v.shape[2]
    for b in range(first, last):
        for start in range(0, n, BLOCK):
            p = slice(start, min(start + BLOCK, n))
            q = slice(start // 64, (p.stop + 63) // 64)
            spikes, bent, level, reset_to = s[b, p], c_h[p], theta[p], v_reset[p]
            d_u, d_v, d_i = du[b, p], dv[b, p], di[b, p]
            keep_i, in_i, keep_m, in_m = alpha[p], gain_syn[p], beta[p], gain[p]
            for t in range(end - 1, begin - 1, -1):
                slope, above, d_s = h[t if kind == PRECOMPUTED else 0, b, p], v[t, b, p], g[t if has_g else 0, b, p]
                if kind > PRECOMPUTED:
                    _slope(kind, a, above, level, slope)
                _unpack(words[t, b, q], spikes)
                if has_u:
                    _adjoint_with_v(
                        d_s, g_u[t, b, p], slope, above, spikes, d_u, d_v, d_i, dx[t, b, p], keep_i, in_i, keep_m, in_m,
                        c_s, bent, c_uh,
                    )
                else:
                    _adjoint(
                        d_s, slope, above, spikes, d_u, d_v, d_i, dx[t, b, p], keep_i, in_i, keep_m, in_m, c_s, bent,
                        c_uh,
                    )
                if learn:
                    if t > 0:
                        _reset(v[t - 1, b, p], words[t - 1, b, q], m[b, p], level, reset_to, subtract)
                    before = m if t > 0 else m_0
                    _learn(
                        d_s, slope, above, spikes, i_seq[t - 1, b, p] if t > 0 else i_0[b, p], before[b, p], d_u, d_v,
                        d_i, d_alpha[b, p], d_beta[b, p], d_theta[b, p], level, bent, c_uh, subtract,
                    )
