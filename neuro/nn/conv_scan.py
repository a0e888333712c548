"""Neurons behind a convolution over whole time, channels innermost: the compiled loops under `neuro.nn.conv`
(neuro.jit).

The equations are those of `neuro.nn.kernels`, with one number per coefficient and a norm's factor and shift on the
currents. Nothing is kept but the currents: the backward pass runs the membrane again, a block of neurons over all
steps in cache, and gets the same bits since the arithmetic is the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.jit import disjoint, lowest, piece, wide
from neuro.nn.conv_vectors import above, fetch
from neuro.nn.kernels import ATAN, FAST_SIGMOID, TRIANGLE

A = NDArray[Any]

# fmt: off


@piece
def _integrate(
    x: A, factor: A, shift: A, i: A, m: A, alpha: Any, gain_syn: Any, beta: Any, gain: Any, drive: Any,
) -> None:
    for j in range(x.size):
        i[j] = alpha * i[j] + gain_syn * (factor[j] * x[j] + shift[j])
        m[j] = beta * m[j] + gain * i[j] + drive


@piece
def _reset(m: A, theta: Any, v_reset: Any, subtract: Any) -> None:
    if subtract:
        for j in range(m.size):
            u = m[j]
            m[j] = u - theta if u > theta else u
    else:
        for j in range(m.size):
            u = m[j]
            m[j] = v_reset if u > theta else u


@disjoint
def forward(
    b: Any, block: Any, x: A, factor: A, shift: A, order: A, words: A, i: A, m: A, carried: Any, alpha: Any,
    gain_syn: Any, beta: Any, gain: Any, drive: Any, theta: Any, v_reset: Any, subtract: Any,
) -> None:
    """Sample b: currents x [time, batch, n] -> words [time, batch, *], bits in the order of channels.

    Neuron j of x is bit order[j]. State i and m (after the reset): where carried [batch, n], read and left behind, else
    room [1, n]. block: neurons at a time, a multiple of 64.
    """
    wide()
    steps, n, own = x.shape[0], x.shape[2], b if carried else 0
    for t in range(steps):
        words[t, b, :] = np.uint64(0)
    for begin in range(0, n, block):
        p = slice(begin, min(begin + block, n))
        size = np.uint64(p.stop - p.start)
        now, current, places = m[own, p], i[own, p], order[p]
        if not carried:
            now[:] = 0
            current[:] = 0
        for t in range(steps):
            fetch(x[t, b], p.stop, block)
            _integrate(x[t, b, p], factor[p], shift[p], current, now, alpha, gain_syn, beta, gain, drive)
            row = words[t, b]
            for base in range(np.uint64(0), size, np.uint64(64)):
                word = np.uint64(0)
                if base + np.uint64(64) <= size:
                    word = above(now, base, theta)
                else:
                    for k in range(size - base):
                        word |= np.uint64(now[base + k] > theta) << k
                while word:
                    bit = np.uint64(places[base + lowest(word)])
                    row[bit >> np.uint64(6)] |= np.uint64(1) << (bit & np.uint64(63))
                    word &= word - np.uint64(1)
            _reset(now, theta, v_reset, subtract)


@piece
def _slope(kind: Any, a: Any, v: A, theta: Any, h: A) -> None:
    """As `neuro.nn.kernels._slope`, with one threshold for all."""
    one = h.dtype.type(1)
    if kind == FAST_SIGMOID:
        for j in range(h.size):
            z = one + a * abs(v[j] - theta)
            h[j] = one / (z * z)
    elif kind == ATAN:
        c = h.dtype.type(0.5 * np.pi) * a
        for j in range(h.size):
            z = c * (v[j] - theta)
            h[j] = h.dtype.type(0.5) * a / (one + z * z)
    elif kind == TRIANGLE:
        for j in range(h.size):
            h[j] = max(a * (one - a * abs(v[j] - theta)), h.dtype.type(0))
    else:
        for j in range(h.size):
            h[j] = a


@disjoint
def backward(
    b: Any, state: A, membrane: A, slope: A, du: A, di: A, one: A, two: A, v: A, x: A, factor: A, shift: A, g: A,
    dy: A, i_0: A, m_0: A, carried: Any, sums: A, kind: Any, a: Any, alpha: Any, gain_syn: Any, beta: Any, gain: Any,
    drive: Any, theta: Any, v_reset: Any, subtract: Any, c_s: Any, c_h: Any, c_uh: Any,
) -> None:
    """Sample b: g, the gradient of the spikes [time, batch, n] -> dy, that of factor x + shift.

    i_0, m_0: the state at the start, [batch, n], where carried. state..two: [block], v: [time, block], overwritten.
    sums [2, channels], float64: those of dy and of dy x over time and places.
    """
    wide()
    steps, n = x.shape[0], x.shape[2]
    channels, block = sums.shape[1], one.size
    zero, unity = v.dtype.type(0), v.dtype.type(1)
    for j in range(channels):
        sums[0, j] = 0.0
        sums[1, j] = 0.0
    channel = 0
    for begin in range(0, n, block):
        p = slice(begin, min(begin + block, n))
        size = p.stop - p.start
        i, m, h = state[:size], membrane[:size], slope[:size]
        if carried:
            for j in range(size):
                i[j] = i_0[b, begin + j]
                m[j] = m_0[b, begin + j]
        else:
            i[:] = 0
            m[:] = 0
        for t in range(steps):
            fetch(x[t, b], p.stop, block)
            _integrate(x[t, b, p], factor[p], shift[p], i, m, alpha, gain_syn, beta, gain, drive)
            u = v[t, :size]
            for j in range(size):
                u[j] = m[j]
                m[j] = (u[j] - theta if subtract else v_reset) if u[j] > theta else u[j]
        du[:] = 0
        di[:] = 0
        one[:] = 0
        two[:] = 0
        for t in range(steps - 1, -1, -1):
            u, xs, gs, to = v[t, :size], x[t, b, p], g[t, b, p], dy[t, b, p]
            fetch(g[t, b], p.stop, block)
            fetch(dy[t, b], p.stop, block)
            _slope(kind, a, u, theta, h)
            for j in range(size):
                fired = c_s if u[j] > theta else zero
                d = gs[j] * h[j] + beta * du[j] * (unity - fired + (c_h + c_uh * u[j]) * h[j])
                e = gain * d + alpha * di[j]
                du[j] = d
                di[j] = e
                e = gain_syn * e
                to[j] = e
                one[j] += e
                two[j] += e * xs[j]
        for j in range(size):
            sums[0, channel] += one[j]
            sums[1, channel] += two[j]
            channel += 1
            channel = 0 if channel == channels else channel
