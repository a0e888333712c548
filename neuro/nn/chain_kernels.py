"""The gradients of several layers of Linear and neurons, a few samples at a time, so that what passes between two
layers stays in the cache and is never stored.

A task is a part of the batch. Of a group of its samples the last layer comes first: the membrane of a block of neurons
is computed again from the events, the adjoint runs back over it, and what reaches the current in a step is at once
added to the rows of the weight gradient that the events of this step name. The matrix product with the weights
(`neuro.nn.tile`) makes of it the gradient to the spikes of the layer before, which comes next. Parts, not threads, own
sums of weight gradients. Blocks and lists: see `neuro.nn.dense_kernels` (compiled by neuro.jit).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.jit import disjoint, piece, wide
from neuro.nn.dense_kernels import (
    ALPHA,
    BETA,
    BIAS,
    DRIVE,
    GAIN,
    GAIN_SYN,
    ONE,
    SILENT,
    THETA,
    V_RESET,
    WIDE,
    ZERO,
    _gather,
    _slope,
    _take,
)
from neuro.nn.lanes import alike, lanes, over, pick, put
from neuro.nn.tile import TALL, tall

A = NDArray[Any]
N = Any
U = np.uint64

# columns of ``layout``: sizes, then where the layer begins in arrays that all layers share, then its rule
FAN_IN, SIZE, TABLE, PANELS, LISTS, PADDED, KIND, SUBTRACT, PLAIN, FIELDS = range(10)
STEEPNESS, ATTACHED, REALS = range(3)  # columns of ``reals``
CHUNK = 64  # rows of activity that meet all weights before the next ones do, a multiple of TALL

# fmt: off


@disjoint
def pack(first: int, last: int, weight: A, table: A) -> None:
    """table [blocks, in + 1, WIDE]: for blocks first..last - 1 the rows of weight [out, in], transposed; zeros behind
    them and in the last row."""
    n, inputs = U(weight.shape[0]), U(weight.shape[1])
    for block in range(U(first), U(last)):
        o = U(block) * WIDE
        width = min(WIDE, n - o)
        for k0 in range(ZERO, inputs, U(16)):  # a line of the cache
            k1 = min(U(k0) + U(16), inputs)
            for j in range(width):
                for k in range(U(k0), k1):
                    table[block, k, j] = weight[o + j, k]
            for j in range(width, WIDE):
                for k in range(U(k0), k1):
                    table[block, k, j] = 0
        for j in range(WIDE):
            table[block, inputs, j] = 0


@disjoint
def finish(first: int, last: int, d_tables: A, at: int, weight: A, tile: A) -> None:
    """weight [out, in]: for blocks first..last - 1 the sum over the parts of d_tables [parts, rows, WIDE], in their
    order, turned back; the layer begins at row ``at``. Room: tile [16, WIDE]."""
    n, inputs = U(weight.shape[0]), U(weight.shape[1])
    for block in range(U(first), U(last)):
        o = U(block) * WIDE
        width, base = min(WIDE, n - o), U(at) + U(block) * (inputs + ONE)
        for k0 in range(ZERO, inputs, U(16)):
            size = min(U(16), inputs - U(k0))
            for k in range(size):
                row = base + U(k0) + U(k)
                x = lanes(d_tables[0], row, ZERO)
                for part in range(ONE, U(d_tables.shape[0])):
                    x = x + lanes(d_tables[part], row, ZERO)
                put(tile, U(k), ZERO, x)
            for j in range(width):
                for k in range(size):
                    weight[o + j, U(k0) + U(k)] = tile[k, j]


@piece
def _scatter(index: A, begin: N, end: N, x: N, table: A, base: N, nobody: N) -> None:
    """x is added to the rows of a table that a list names, counted from row ``base``; up to ``nobody``."""
    for e in range(begin, end):
        found = U(index[e])
        if found == nobody:
            break
        put(table, base + found, ZERO, lanes(table, base + found, ZERO) + x)


@disjoint
def backward(
    first: int, last: int, batch: int, group: int, layout: A, reals: A, p: A, tables: A, panels: A, start: A,
    index: A, g: A, d_x: A, d_tables: A, d_bias: A, sent: A, delta: A, rows: A, room: A,
) -> None:
    """Parts first..last - 1 of the batch, ``group`` samples at a time.

    layout int64[layers, FIELDS], reals [layers, REALS]. p [8, all blocks * WIDE]: coefficients. tables [rows, WIDE]:
    weights as `pack` has them, layer after layer. panels [rows, lanes]: weights as `tile.panels` has them, of layers
    whose input has a gradient. start, index: the lists of all layers. g: gradient to the last output, [time * batch,
    n] or, the same in all steps, [batch, n]. Left behind: d_x [time * batch, in] (empty: not wanted); d_tables [parts,
    rows, WIDE] as ``tables``; d_bias [parts, all blocks * WIDE]. Room: sent, delta [rows of a group up to a multiple
    of TALL, widest layer], rows [time, WIDE], room [2, WIDE].
    """
    wide()
    steps, layers, parts = U(rows.shape[0]), U(layout.shape[0]), U(d_tables.shape[0])
    many = U(batch) if U(g.shape[0]) > U(batch) else ZERO
    input_too = d_x.shape[0] > 0
    nothing = alike(0, lanes(p, ZERO, ZERO))
    one = alike(1, nothing)
    for part in range(U(first), U(last)):
        d_table, d_biases = d_tables[part], d_bias[part : part + ONE]
        for row in range(U(d_table.shape[0])):
            put(d_table, U(row), ZERO, nothing)
        for j in range(U(d_bias.shape[1])):
            d_bias[part, j] = 0
        end = U(batch) * (part + ONE) // parts
        b_0 = U(batch) * part // parts
        while b_0 < end:
            b_1 = min(b_0 + U(group), end)
            for back in range(layers):
                layer = layers - ONE - U(back)
                inputs, n = U(layout[layer, FAN_IN]), U(layout[layer, SIZE])
                lists, padded = U(layout[layer, LISTS]), U(layout[layer, PADDED])
                kind, subtract, plain = layout[layer, KIND], layout[layer, SUBTRACT] > 0, layout[layer, PLAIN] > 0
                a, attached = reals[layer, STEEPNESS], alike(reals[layer, ATTACHED], nothing)
                left = one if subtract else nothing  # what of v a spike leaves
                bent = nothing if subtract else nothing - attached
                onwards = layer > ZERO or input_too
                for block in range((n + WIDE - ONE) // WIDE):
                    o = U(block) * WIDE
                    at, width = padded + o, min(WIDE, n - o)
                    base = U(layout[layer, TABLE]) + U(block) * (inputs + ONE)
                    alpha, gain_syn, beta = lanes(p, ALPHA, at), lanes(p, GAIN_SYN, at), lanes(p, BETA, at)
                    gain, drive, theta = lanes(p, GAIN, at), lanes(p, DRIVE, at), lanes(p, THETA, at)
                    v_reset, bias = lanes(p, V_RESET, at), lanes(p, BIAS, at)
                    level = nothing - attached * theta if subtract else attached * v_reset
                    total = nothing
                    put(room, ZERO, ZERO, nothing)
                    for b in range(b_0, b_1):
                        if kind != SILENT:
                            syn, u = nothing, nothing
                            for t in range(steps):
                                r = lists + U(t) * U(batch) + U(b)
                                x = _gather(index, U(start[r]), U(start[r + ONE]), tables, base, bias)
                                if plain:
                                    u = beta * u + x
                                else:
                                    syn = alpha * syn + gain_syn * x
                                    u = beta * u + gain * syn + drive
                                put(rows, U(t), ZERO, u)
                                u = pick(over(u, theta), u - theta if subtract else v_reset, u)
                        local = (U(b) - b_0) * steps
                        du, di = nothing, nothing
                        for back_step in range(steps):
                            now = steps - ONE - U(back_step)
                            if back == ZERO:
                                above = _take(g, now * many + U(b), o, width, room)
                            else:
                                above = lanes(sent, local + now, o)
                            dv = beta * du
                            if kind == SILENT:
                                du = above + dv
                            else:
                                u = lanes(rows, now, ZERO)
                                h = _slope(kind, a, u - theta)
                                kept = pick(over(u, theta), left, one)
                                du = above * h + dv * (kept + (level + bent * u) * h)
                            if plain:
                                x = du
                            else:
                                di = gain * du + alpha * di
                                x = gain_syn * di
                            total = total + x
                            r = lists + now * U(batch) + U(b)
                            _scatter(index, U(start[r]), U(start[r + ONE]), x, d_table, base, inputs)
                            if onwards:
                                put(delta, local + now, o, x)
                    put(d_biases, ZERO, at, lanes(d_biases, ZERO, at) + total)
                if onwards:
                    used = np.int64((b_1 - b_0) * steps)
                    begin = layout[layer, PANELS]
                    size = np.int64(n)
                    across = panels.shape[1]
                    for chunk in range(0, used, CHUNK):
                        for panel in range((np.int64(inputs) + across - 1) // across):
                            w = panels[begin + panel * size : begin + (panel + 1) * size]
                            for row in range(chunk, min(np.int64(chunk + CHUNK), used), TALL):
                                tall(sent, delta, w, row, panel * across)
            if input_too:
                inputs = U(d_x.shape[1])
                for b in range(b_0, b_1):
                    for t in range(steps):
                        local = (U(b) - b_0) * steps + U(t)
                        for k in range(inputs):
                            d_x[U(t) * U(batch) + U(b), k] = sent[local, k]
            b_0 = b_1
