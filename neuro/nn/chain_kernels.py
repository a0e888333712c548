"""The gradients of several layers of Linear and neurons, a few samples at a time, so that what passes between two
layers stays in the cache and is never stored.

A task is a part of the batch. Of a group of its samples the last layer comes first: the membrane of a block of neurons
is computed again from the events, the adjoint runs back over it, and what reaches the current in a step is at once
added to the rows of the weight gradient that the events of this step name. The matrix product with the weights
(`neuro.nn.tile`) makes of it the gradient to the spikes of the layer before, which comes next. Parts, not threads, own
sums of weight gradients. Blocks, lists and ``work``: see `neuro.nn.dense_kernels` (compiled by neuro.jit).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.jit import disjoint, piece, wide
from neuro.nn.dense_kernels import (
    BIAS,
    C_H,
    COEFFICIENTS,
    D_BIAS,
    DI,
    DU,
    ONE,
    SILENT,
    SYN,
    THETA,
    V_RESET,
    WIDE,
    ZERO,
    G,
    H,
    M,
    X,
    _adjoint,
    _gather,
    _integrate,
    _reset,
    _slope,
)  # fmt: skip
from neuro.nn.tile import TALL, tall

A = NDArray[Any]
N = Any
U = np.uint64

# columns of ``layout``: sizes, then where the layer begins in arrays that all layers share, then its rule
FAN_IN, SIZE, TABLE, PANELS, LISTS, PADDED, KIND, SUBTRACT, PLAIN, FIELDS = range(10)
STEEPNESS, ATTACHED, REALS = range(3)  # columns of ``reals``

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


@piece
def _scatter(index: A, begin: N, end: N, work: A, table: A, base: N, nobody: N) -> None:
    """work[X] is added to the rows of a table that a list names, counted from row ``base``; up to ``nobody``."""
    for e in range(begin, end):
        found = U(index[e])
        if found == nobody:
            break
        for j in range(WIDE):
            table[base + found, j] += work[X + j]


@disjoint
def backward(
    first: int, last: int, batch: int, group: int, layout: A, reals: A, p: A, tables: A, panels: A, start: A,
    index: A, g: A, d_x: A, d_tables: A, d_bias: A, sent: A, delta: A, rows: A, work: A,
) -> None:
    """Parts first..last - 1 of the batch, ``group`` samples at a time.

    layout int64[layers, FIELDS], reals [layers, REALS]. p [8, all blocks * WIDE]: coefficients. tables [rows, WIDE]:
    weights as `pack` has them, layer after layer. panels [rows, lanes]: weights as `tile.panels` has them, of layers
    whose input has a gradient. start, index: the lists of all layers. g: gradient to the last output, [time, batch, n]
    or, the same in all steps, [1, batch, n]. Left behind: d_x [time, batch, in] (empty: not wanted); d_tables [parts,
    rows, WIDE] as ``tables``; d_bias [parts, all blocks * WIDE]. Room: sent, delta [rows of a group up to a multiple
    of TALL, widest layer], rows [time, WIDE], work.
    """
    wide()
    steps, layers, parts = U(rows.shape[0]), U(layout.shape[0]), U(d_tables.shape[0])
    many = ONE if g.shape[0] > 1 else ZERO
    input_too = d_x.shape[0] > 0
    unknown = U(rows.shape[1])  # WIDE, but unknown to the compiler, which unrolls copies of known length into scalars
    zero = work.dtype.type(0)
    for part in range(U(first), U(last)):
        for row in range(U(d_tables.shape[1])):
            for j in range(WIDE):
                d_tables[part, row, j] = 0
        for j in range(U(d_bias.shape[1])):
            d_bias[part, j] = 0
        d_table = d_tables[part]
        end = U(batch) * (part + ONE) // parts
        b_0 = U(batch) * part // parts
        while b_0 < end:
            b_1 = min(b_0 + U(group), end)
            for back in range(layers):
                layer = layers - ONE - U(back)
                inputs, n = U(layout[layer, FAN_IN]), U(layout[layer, SIZE])
                lists, padded = U(layout[layer, LISTS]), U(layout[layer, PADDED])
                kind, subtract, plain = layout[layer, KIND], layout[layer, SUBTRACT] > 0, layout[layer, PLAIN] > 0
                a, attached = reals[layer, STEEPNESS], reals[layer, ATTACHED]
                c_k = work.dtype.type(1) if subtract else zero
                c_uh = zero if subtract else -attached
                onwards = layer > ZERO or input_too
                for block in range((n + WIDE - ONE) // WIDE):
                    o = U(block) * WIDE
                    width = min(WIDE, n - o)
                    base = U(layout[layer, TABLE]) + U(block) * (inputs + ONE)
                    for c in range(COEFFICIENTS):
                        for j in range(WIDE):
                            work[U(c) * WIDE + j] = p[c, padded + o + j]
                    for j in range(WIDE):
                        work[C_H + j] = -attached * work[THETA + j] if subtract else attached * work[V_RESET + j]
                        if kind == SILENT:
                            work[C_H + j] = 0
                        work[D_BIAS + j] = 0
                        work[G + j] = 0
                        work[H + j] = 0
                    for b in range(b_0, b_1):
                        for j in range(WIDE):
                            work[SYN + j] = 0
                            work[M + j] = 0
                            work[DU + j] = 0
                            work[DI + j] = 0
                        for t in range(steps):
                            for j in range(WIDE):
                                work[X + j] = work[BIAS + j]
                            r = lists + U(t) * U(batch) + U(b)
                            _gather(index, U(start[r]), U(start[r + ONE]), tables, base, work)
                            _integrate(work, plain)
                            for j in range(unknown):
                                rows[t, j] = work[M + j]
                            _reset(work, subtract)
                        local = (U(b) - b_0) * steps
                        for back_step in range(steps):
                            now = steps - ONE - U(back_step)
                            if back == ZERO:
                                for j in range(width):
                                    work[G + j] = g[now * many, b, o + j]
                            else:
                                for j in range(unknown):
                                    work[G + j] = sent[local + now, o + j]
                            for j in range(unknown):
                                work[M + j] = rows[now, j]
                            _slope(kind, a, work)
                            _adjoint(work, kind, plain, c_k, c_uh)
                            for j in range(WIDE):
                                work[D_BIAS + j] += work[X + j]
                            r = lists + now * U(batch) + U(b)
                            _scatter(index, U(start[r]), U(start[r + ONE]), work, d_table, base, inputs)
                            if onwards:
                                for j in range(unknown):
                                    delta[local + now, o + j] = work[X + j]
                    for j in range(WIDE):
                        d_bias[part, padded + o + j] += work[D_BIAS + j]
                if onwards:
                    used = np.int64((b_1 - b_0) * steps)
                    begin = layout[layer, PANELS]
                    size = np.int64(n)
                    for panel in range((np.int64(inputs) + panels.shape[1] - 1) // panels.shape[1]):
                        w = panels[begin + panel * size : begin + (panel + 1) * size]
                        for row in range(0, used, TALL):
                            tall(sent, delta, w, row, panel * panels.shape[1])
            if input_too:
                inputs = U(d_x.shape[2])
                for b in range(b_0, b_1):
                    for t in range(steps):
                        local = (U(b) - b_0) * steps + U(t)
                        for k in range(inputs):
                            d_x[t, b, k] = sent[local, k]
            b_0 = b_1
