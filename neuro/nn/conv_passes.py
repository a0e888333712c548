"""A convolution, a norm and neurons as one compiled call per thread, forwards and backwards (neuro.jit).

Each phase needs what all threads did in the one before (`neuro.nn.deals`): weights in the order of the kernels; the
currents of some rows and their sums; the norm's factors, which every thread makes of all sums for itself, in one order;
the spikes of a sample. Backwards: the gradient of a sample's currents and its sums; the gradients of the input and, in
parts, of the weights, of some rows; the sum over the parts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.jit import disjoint, piece
from neuro.nn import conv_kernels, conv_scan
from neuro.nn.deals import take, tell, wait

A = NDArray[Any]
GRAIN = 8  # rows of a piece: some ten microseconds
INPUTS = 16  # rows of a piece whose inputs' gradients are products: a hundred or two
GIVEN, BATCH, SCALE = range(3)  # norms: factor and shift are known; batch norm; `ScaleNorm`, both of this batch
TOTAL, SQUARE, MEAN, VARIANCE, RSTD, FACTOR, SHIFT, STATISTICS = range(8)  # rows of ``held``, float64
ONE, TWO, A_, B_, C_, GRADIENTS = range(6)  # and of what a backward pass holds
WEIGHTS, ROWS, SAMPLES, TOWARDS, PHASES = range(5)

# Pieces of the kernels below, under names of their own
_pack, _unpack, _moments, _turned = conv_kernels.pack, conv_kernels.unpack, conv_kernels.moments, conv_kernels.turned
_by_spike, _by_place = conv_kernels.forward, conv_kernels.forward_by_place
_weights, _inputs = conv_kernels.backward, conv_kernels.inputs
_fire, _unfire = conv_scan.forward, conv_scan.backward

# fmt: off


@piece
def _packed(state: A, me: Any, weight: A, scale: Any, order: A, table: A) -> None:
    members = table.shape[0] * table.shape[1]
    k = take(state, WEIGHTS, me, members)
    while k < members:
        _pack(k, weight, scale, order, table)
        tell(state, WEIGHTS)
        k = take(state, WEIGHTS, me, members)
    wait(state, WEIGHTS, members)


@piece
def _normalised(sums: A, kind: Any, affine: A, eps: Any, count: Any, held: A, spread: A) -> None:
    """held [STATISTICS, channels] of sums [pieces, 2, channels] over ``count`` values; spread [2, places * channels],
    factor and shift as currents lie in memory. affine [2, channels]: weight and bias of the norm, or the same."""
    channels = held.shape[1]
    for j in range(channels):
        held[TOTAL, j] = 0.0
        held[SQUARE, j] = 0.0
    for k in range(sums.shape[0]):
        for j in range(channels):
            held[TOTAL, j] += sums[k, 0, j]
            held[SQUARE, j] += sums[k, 1, j]
    for j in range(channels):
        mean, square = held[TOTAL, j] / count, held[SQUARE, j] / count
        if kind == BATCH:
            square = max(square - mean * mean, 0.0)
        else:
            mean = 0.0
        rstd = 1.0 / np.sqrt(square + eps)
        held[MEAN, j], held[VARIANCE, j], held[RSTD, j] = mean, square, rstd
        held[FACTOR, j] = affine[0, j] if kind == GIVEN else affine[0, j] * rstd
        held[SHIFT, j] = affine[1, j] - held[FACTOR, j] * mean
    for p in range(0, spread.shape[1], channels):
        for j in range(channels):
            spread[0, p + j] = held[FACTOR, j]
            spread[1, p + j] = held[SHIFT, j]


@piece
def _fired(
    state: A, me: Any, held: A, spread: A, room: A, i: A, m: A, current: A, sums: A, norm: Any, affine: A, eps: Any,
    fires: Any, order: A, words: A, carried: Any, plain: Any, alpha: Any, gain_syn: Any, beta: Any, gain: Any,
    drive: Any, theta: Any, v_reset: Any, subtract: Any,
) -> None:
    wait(state, ROWS, sums.shape[0])
    if fires:
        rows, n = current.shape
        batch = words.shape[1]
        _normalised(sums, norm, affine, eps, float(rows) * (n // held.shape[1]), held, spread)
        b = take(state, SAMPLES, me, batch)
        while b < batch:
            _fire(
                b, current, spread, order, words, i, m, room, carried, plain, alpha, gain_syn, beta, gain, drive,
                theta, v_reset, subtract,
            )
            tell(state, SAMPLES)
            b = take(state, SAMPLES, me, batch)
        wait(state, SAMPLES, batch)


@disjoint
def by_spike(
    state: A, me: int, spikes: A, many: A, moment: A, held: A, spread: A, room: A, i: A, m: A, weight: A, scale: Any,
    order: A, table: A, listed: A, words: A, kind: A, start: A, place: A, tap: A, count: A, taps: int, out: int,
    each: int, inputs: int, bias: A, current: A, sums: A, norm: int, affine: A, eps: float, fires: bool,
    bit: A, fired: A, carried: bool, plain: bool, alpha: float, gain_syn: float, beta: float, gain: float,
    drive: float, theta: float, v_reset: float, subtract: bool,
) -> None:
    """`conv_kernels.forward` of all rows; where ``fires`` the norm and `conv_scan.forward` behind it.

    Room: spikes..m. weight [group, out, in, tap] -> table [group, in, tap, out], scale times. Left behind: current
    [rows, places * out]; sums [rows / GRAIN, 2, out]; fired [time, batch, *]."""
    _packed(state, me, weight, scale, order, table)
    flat = table.reshape(table.size)
    rows = current.shape[0]
    k = take(state, ROWS, me, sums.shape[0])
    while k < sums.shape[0]:
        _by_spike(
            k * GRAIN, min((k + 1) * GRAIN, rows), listed, spikes, many, words, flat, kind, start, place, tap, count,
            taps, out, each, inputs, bias, current, moment, sums[k],
        )
        tell(state, ROWS)
        k = take(state, ROWS, me, sums.shape[0])
    _fired(
        state, me, held, spread, room, i, m, current, sums, norm, affine, eps, fires, bit, fired, carried, plain,
        alpha, gain_syn, beta, gain, drive, theta, v_reset, subtract,
    )


@disjoint
def by_place(
    state: A, me: int, spikes: A, found: A, many: A, moment: A, held: A, spread: A, room: A, i: A, m: A, weight: A,
    scale: Any, order: A, table: A, listed: A, words: A, pixel: A, origin: A, start: A, begin: A, end: A, away: A,
    bias: A, current: A, sums: A, norm: int, affine: A, eps: float, fires: bool, bit: A, fired: A,
    carried: bool, plain: bool, alpha: float, gain_syn: float, beta: float, gain: float, drive: float, theta: float,
    v_reset: float, subtract: bool,
) -> None:
    """`by_spike` with `conv_kernels.forward_by_place`."""
    _packed(state, me, weight, scale, order, table)
    flat = table.reshape(table.size)
    rows = current.shape[0]
    k = take(state, ROWS, me, sums.shape[0])
    while k < sums.shape[0]:
        _by_place(
            k * GRAIN, min((k + 1) * GRAIN, rows), listed, spikes, found, many, words, flat, bias, pixel, origin, start,
            begin, end, away, current, moment, sums[k],
        )
        tell(state, ROWS)
        k = take(state, ROWS, me, sums.shape[0])
    _fired(
        state, me, held, spread, room, i, m, current, sums, norm, affine, eps, fires, bit, fired, carried, plain,
        alpha, gain_syn, beta, gain, drive, theta, v_reset, subtract,
    )


@disjoint
def fire(
    state: A, me: int, moment: A, held: A, spread: A, room: A, i: A, m: A, listed: A, current: A, sums: A, norm: int,
    affine: A, eps: float, fires: bool, bit: A, fired: A, carried: bool, plain: bool, alpha: float, gain_syn: float,
    beta: float, gain: float, drive: float, theta: float, v_reset: float, subtract: bool,
) -> None:
    """The same where somebody else computed the currents."""
    rows = current.shape[0]
    k = take(state, ROWS, me, sums.shape[0])
    while k < sums.shape[0]:
        _moments(k * GRAIN, min((k + 1) * GRAIN, rows), listed, current, moment, sums[k])
        tell(state, ROWS)
        k = take(state, ROWS, me, sums.shape[0])
    _fired(
        state, me, held, spread, room, i, m, current, sums, norm, affine, eps, fires, bit, fired, carried, plain,
        alpha, gain_syn, beta, gain, drive, theta, v_reset, subtract,
    )


@piece
def _norm_gradients(sums: A, norm: Any, known: A, count: Any, held: A, a: A, b: A, c: A) -> None:
    """held [GRADIENTS, channels] of sums [batch, 2, channels], and a, b, c of `neuro.nn.conv_norm` for every neuron.
    known [STATISTICS, channels]: what the forward pass held."""
    channels = held.shape[1]
    for j in range(channels):
        held[ONE, j] = 0.0
        held[TWO, j] = 0.0
    for k in range(sums.shape[0]):
        for j in range(channels):
            held[ONE, j] += sums[k, 0, j]
            held[TWO, j] += sums[k, 1, j]
    for j in range(channels):
        factor, mean, rstd = known[FACTOR, j], known[MEAN, j], known[RSTD, j]
        held[A_, j], held[B_, j], held[C_, j] = factor, 0.0, 0.0
        if norm != GIVEN:
            held[B_, j] = -factor * rstd * rstd * (held[TWO, j] - mean * held[ONE, j]) / count
        if norm == BATCH:
            held[C_, j] = -factor * held[ONE, j] / count - held[B_, j] * mean
    for p in range(0, a.size, channels):
        for j in range(channels):
            a[p + j] = held[A_, j]
            b[p + j] = held[B_, j]
            c[p + j] = held[C_, j]


@disjoint
def backward(
    state: A, me: int, spikes: A, rows: A, many: A, v: A, room: A, pair: A, held: A, a: A, b: A, c: A, fires: bool,
    g: A, wide_g: A, current: A, spread: A, i_0: A, m_0: A, carried: bool, plain: bool, d_y: A, sums: A, kind: int,
    steepness: float, alpha: float, gain_syn: float, beta: float,
    gain: float, drive: float, theta: float, v_reset: float, subtract: bool, c_s: float, c_h: float, c_uh: float,
    norm: int, known: A, onwards: bool, normed: bool, ends: A, listed: A, words: A, bucket: A, origin: A, model: A,
    start: A, place: A, tap: A, count: A, taps: int, out: int, each: int, chunk: int, partial: A, reach: A, matrix: A,
    d_x: A, scale: Any, order: A, weight: A,
) -> None:
    """Where ``fires`` d_y [rows, n] is set to the gradient of what the neurons read, g [time, batch, n] to that of
    their spikes; wide_g [rows, channels, places], where it has rows, is g as torch has it, and g is room. Where
    ``onwards`` `conv_kernels.backward` of all parts of the rows, ends [parts + 1], follows, and weight [group, out, in,
    tap] is set to scale times the sum of partial [parts, group, in, tap, out].

    Room: spikes..c. v [time, WIDE], room and pair [2, WIDE] of `conv_scan.backward`. held, known: see
    `_norm_gradients`.
    """
    if fires:
        steps, batch, n = g.shape
        above = g.reshape((steps * batch, n))
        deep = g.reshape((steps * batch, n // held.shape[1], held.shape[1]))
        k = take(state, SAMPLES, me, batch)
        while k < batch:
            if wide_g.shape[0] > 0:
                for t in range(steps):
                    _turned(t * batch + k, wide_g, deep)
            _unfire(
                k, current, spread, above, d_y, i_0, m_0, v, room, pair, carried, plain, sums[k], kind, steepness,
                alpha, gain_syn, beta, gain, drive, theta, v_reset, subtract, c_s, c_h, c_uh,
            )
            tell(state, SAMPLES)
            k = take(state, SAMPLES, me, batch)
        wait(state, SAMPLES, batch)
        _norm_gradients(sums, norm, known, float(steps * batch) * (n // held.shape[1]), held, a, b, c)
    if onwards:
        parts, some = ends.size - 1, (d_x.shape[0] + INPUTS - 1) // INPUTS
        k = take(state, ROWS, me, parts)
        while k < parts:
            _weights(
                ends[k], ends[k + 1], listed, spikes, rows, many, words, d_y, current, a, b, c, normed, bucket, origin,
                model, start, place, tap, count, taps, out, each, chunk, partial[k],
            )
            tell(state, PHASES + k)
            k = take(state, ROWS, me, parts)
        k = take(state, TOWARDS, me, some)
        while k < some:
            first = k * INPUTS
            last = min(first + INPUTS, d_x.shape[0])
            for part in range(parts):
                if ends[part] < last and ends[part + 1] > first:
                    wait(state, PHASES + part, 1)
            _inputs(first, last, listed, d_y, out, taps, reach, matrix, d_x)
            tell(state, TOWARDS)
            k = take(state, TOWARDS, me, some)
        for part in range(parts):
            wait(state, PHASES + part, 1)
        if partial.shape[1] > 0:
            shape = (parts, weight.shape[0], weight.shape[2], weight.shape[3], weight.shape[1])
            found, members = partial.reshape(shape), weight.shape[0] * weight.shape[2]
            k = take(state, WEIGHTS, me, members)
            while k < members:
                _unpack(k, found, scale, order, weight)
                tell(state, WEIGHTS)
                k = take(state, WEIGHTS, me, members)
            wait(state, WEIGHTS, members)
        wait(state, TOWARDS, some)
