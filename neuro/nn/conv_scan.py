"""Neurons behind a convolution over whole time, channels innermost: the compiled loops under `neuro.nn.conv`
(neuro.jit).

The equations are those of `neuro.nn.kernels`, with one number per coefficient and a norm's factor and shift on the
currents. Nothing is kept but the currents: the backward pass runs the membrane again, some neurons over all steps in
cache, and gets the same bits since the arithmetic is the same. 64 neurons are one value (`neuro.nn.lanes`): their state
stays in registers from step to step.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from neuro.jit import disjoint, lowest, piece, wide
from neuro.nn.conv_vectors import fetch
from neuro.nn.dense_kernels import ONE, WIDE, ZERO, U, _give, _slope, _take
from neuro.nn.lanes import alike, lanes, over, pick, put, word

A = NDArray[Any]
N = Any
ALL = U(0xFFFFFFFFFFFFFFFF)

# fmt: off


@piece
def _next(
    y: N, syn: N, u: N, plain: Any, alpha: Any, gain_syn: Any, beta: Any, gain: Any, drive: Any,
) -> N:
    """(i, membrane before the reset) a step later. plain: alpha, gain_syn, gain, drive are 0, 1, 1, 0."""
    if plain:
        return syn, alike(beta, u) * u + y
    syn = alike(alpha, u) * syn + alike(gain_syn, u) * y
    return syn, alike(beta, u) * u + alike(gain, u) * syn + alike(drive, u)


@disjoint
def forward(
    b: Any, x: A, spread: A, order: A, words: A, i: A, m: A, room: A, carried: Any, plain: Any, alpha: Any,
    gain_syn: Any, beta: Any, gain: Any, drive: Any, theta: Any, v_reset: Any, subtract: Any,
) -> None:
    """Sample b: currents x [time * batch, n] -> words [time, batch, *], bits in the order of channels.

    spread [2, n]: factor and shift of each neuron. Neuron j of x is bit order[j]. State i and m (after the reset)
    [batch, n]: read and left behind where carried, else not used. plain: see `_next`. Room: room [2, WIDE].
    """
    wide()
    steps, batch, n, own = U(words.shape[0]), U(words.shape[1]), U(x.shape[1]), U(b)
    nothing = alike(0, lanes(room, ZERO, ZERO))
    level, rest = alike(theta, nothing), alike(v_reset, nothing)
    put(room, ZERO, ZERO, nothing)
    for t in range(steps):
        words[t, own, :] = U(0)
    for begin in range(ZERO, n, WIDE):
        width = min(WIDE, n - U(begin))
        factor, shift = _take(spread, ZERO, U(begin), width, room), _take(spread, ONE, U(begin), width, room)
        syn, u = nothing, nothing
        if carried:
            syn, u = _take(i, own, U(begin), width, room), _take(m, own, U(begin), width, room)
        for t in range(steps):
            r = U(t) * batch + own
            fetch(x[r], U(begin) + WIDE, WIDE)
            y = factor * _take(x, r, U(begin), width, room) + shift
            syn, u = _next(y, syn, u, plain, alpha, gain_syn, beta, gain, drive)
            fired = over(u, level)
            left, row = word(fired) & (ALL >> (WIDE - width)), words[t, own]
            while left:
                bit = U(order[U(begin) + lowest(left)])
                row[bit >> U(6)] |= ONE << (bit & U(63))
                left &= left - ONE
            u = pick(fired, u - level if subtract else rest, u)
        if carried:
            _give(syn, i, own, U(begin), width, room)
            _give(u, m, own, U(begin), width, room)


@disjoint
def backward(
    b: Any, x: A, spread: A, g: A, dy: A, i_0: A, m_0: A, v: A, room: A, pair: A, carried: Any, plain: Any, sums: A,
    kind: Any, a: Any, alpha: Any, gain_syn: Any, beta: Any, gain: Any, drive: Any, theta: Any, v_reset: Any,
    subtract: Any, c_s: Any, c_h: Any, c_uh: Any,
) -> None:
    """Sample b: g, the gradient of the spikes [time * batch, n] -> dy, that of factor x + shift.

    i_0, m_0: the state at the start, [batch, n], where carried. sums [2, channels], float64: those of dy and of dy x
    over time and places. The derivative of the reset is 1 - c_s s + (c_h + c_uh u) h. Room: v [time, WIDE], room, pair
    [2, WIDE].
    """
    wide()
    steps, batch, n, own = U(v.shape[0]), U(x.shape[0]) // U(v.shape[0]), U(x.shape[1]), U(b)
    nothing = alike(0, lanes(room, ZERO, ZERO))
    level, rest, one = alike(theta, nothing), alike(v_reset, nothing), alike(1, nothing)
    silent, bent, tilted = one - alike(c_s, nothing), alike(c_h, nothing), alike(c_uh, nothing)
    put(room, ZERO, ZERO, nothing)
    channel, channels = U(0), U(sums.shape[1])
    for j in range(channels):
        sums[0, j] = 0.0
        sums[1, j] = 0.0
    for begin in range(ZERO, n, WIDE):
        width = min(WIDE, n - U(begin))
        factor, shift = _take(spread, ZERO, U(begin), width, room), _take(spread, ONE, U(begin), width, room)
        syn, u = nothing, nothing
        if carried:
            syn, u = _take(i_0, own, U(begin), width, room), _take(m_0, own, U(begin), width, room)
        for t in range(steps):
            r = U(t) * batch + own
            fetch(x[r], U(begin) + WIDE, WIDE)
            y = factor * _take(x, r, U(begin), width, room) + shift
            syn, u = _next(y, syn, u, plain, alpha, gain_syn, beta, gain, drive)
            put(v, U(t), ZERO, u)
            u = pick(over(u, level), u - level if subtract else rest, u)
        du, di, total, product = nothing, nothing, nothing, nothing
        for back in range(steps):
            now = steps - ONE - U(back)
            r = now * batch + own
            fetch(g[r], U(begin) + WIDE, WIDE)
            fetch(dy[r], U(begin) + WIDE, WIDE)
            u = lanes(v, now, ZERO)
            h = _slope(kind, a, u - level)
            kept = pick(over(u, level), silent, one)
            du = _take(g, r, U(begin), width, room) * h + alike(beta, u) * du * (kept + (bent + tilted * u) * h)
            if plain:
                e = du
            else:
                di = alike(gain, u) * du + alike(alpha, u) * di
                e = alike(gain_syn, u) * di
            _give(e, dy, r, U(begin), width, room)
            total = total + e
            product = product + e * _take(x, r, U(begin), width, room)
        put(pair, ZERO, ZERO, total)
        put(pair, ONE, ZERO, product)
        for j in range(width):
            sums[0, channel] += pair[0, j]
            sums[1, channel] += pair[1, j]
            channel += ONE
            channel = U(0) if channel == channels else channel
