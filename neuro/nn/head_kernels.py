"""A Linear of few outputs and the integrators behind it, straight from the bits of spikes: the compiled loops under
`neuro.nn.head` (neuro.jit).

All outputs of a step are one or two vectors of `LINE` numbers. Forwards that is the sum of the matrix's columns whose
inputs fire; backwards the gradient of a column is the sum of the vectors of those steps, and that of the inputs a
product with as many terms as there are outputs. Who fires is read from the bits both times: lists of events would take
as long to make as all the rest.

Rows of activity are step * batch + sample. Sums are in rising order of inputs, then of samples and steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.jit import disjoint, lowest, ones, piece
from neuro.nn.conv_products import add_product
from neuro.nn.conv_vectors import add_run, sum_runs
from neuro.nn.deals import take, tell, wait

A = NDArray[Any]
U = np.uint64
LINE = 16  # numbers of a line of the cache in float32
MOST = 2 * LINE  # outputs
TILE = 64  # inputs whose columns are turned round at a time
PACK, RUN, SUM, PHASES = range(4)
ALPHA, GAIN_SYN, BETA, GAIN, DRIVE, BIAS, COEFFICIENTS = range(7)  # rows of the coefficients ``p``

# fmt: off


@piece
def _firing(words: A, at: A, wide: Any) -> Any:
    """How many bits of a row are set; at [n + 4]: ``wide`` times the number of each, rising. Four at a time, whether
    there or not: how many there are is no secret for the processor to guess."""
    count = U(0)
    for w in range(U(words.size)):
        word, base = words[w], U(64) * U(w)
        many = ones(word)
        for k in range(U(0), many, U(4)):
            for j in range(4):
                at[count + U(k) + U(j)] = np.uint32((base + lowest(word)) * U(wide))
                word &= word - U(1)
        count += many
    return count


@disjoint
def forward(
    state: A, me: int, at: A, x: A, words: A, weight: A, p: A, table: A, i: A, m: A, v: A,
) -> None:
    """v [time, batch, n] for the spikes in words [time * batch, *]; i, m [batch, wide] read and left behind.

    weight [n, in] -> table [in * wide], transposed, zeros behind; wide: n up to a multiple of `LINE`. p [COEFFICIENTS,
    wide]. Room: at [in + 4], x [wide].
    """
    wide = p.shape[1]
    steps, batch, n, inputs = v.shape[0], v.shape[1], v.shape[2], weight.shape[1]
    tiles = (inputs + TILE - 1) // TILE
    k = take(state, PACK, me, tiles)
    while k < tiles:
        for j in range(k * TILE, min((k + 1) * TILE, inputs)):
            for o in range(wide):
                table[j * wide + o] = weight[o, j] if o < n else 0
        tell(state, PACK)
        k = take(state, PACK, me, tiles)
    wait(state, PACK, tiles)
    b = take(state, RUN, me, batch)
    while b < batch:
        syn, u = i[b], m[b]
        for t in range(steps):
            count = _firing(words[t * batch + b], at, wide)
            for o in range(wide):
                x[o] = p[BIAS, o]
            sum_runs(x, 0, table, at, 0, count, 0, wide)
            for o in range(wide):
                syn[o] = p[ALPHA, o] * syn[o] + p[GAIN_SYN, o] * x[o]
                u[o] = p[BETA, o] * u[o] + p[GAIN, o] * syn[o] + p[DRIVE, o]
            for o in range(n):
                v[t, b, o] = u[o]
        tell(state, RUN)
        b = take(state, RUN, me, batch)
    wait(state, RUN, batch)


@disjoint
def backward(
    state: A, me: int, at: A, du: A, di: A, listed: A, words: A, weight: A, p: A, g: A, delta: A, tables: A,
    biases: A, d_x: A, d_weight: A,
) -> None:
    """From g, the gradient of v [time, batch, n], or [1, batch, n] where it is the same in all steps.

    listed: the rows, sample by sample. Left behind: delta [time * batch, wide], the gradient of the currents; biases
    [parts, wide], their sums over a part's samples; where it has rows d_x [time * batch, in]; where it has rows
    d_weight [n, in], from tables [parts, in * wide]. Room: at [in + 4], du, di [wide].
    """
    wide = p.shape[1]
    batch, n, inputs, parts = g.shape[1], g.shape[2], weight.shape[1], biases.shape[0]
    steps = listed.size // batch
    flat = delta.reshape(delta.size)
    k = take(state, RUN, me, parts)
    while k < parts:
        bias, first, last = biases[k], batch * k // parts, batch * (k + 1) // parts
        bias[:] = 0
        if d_weight.shape[0] > 0:
            tables[k, :] = 0
        for b in range(first, last):
            du[:] = 0
            di[:] = 0
            for back in range(steps):
                t = steps - 1 - back
                r, now = t * batch + b, min(t, g.shape[0] - 1)
                for o in range(wide):
                    du[o] = (g[now, b, o] if o < n else 0) + p[BETA, o] * du[o]
                    di[o] = p[GAIN, o] * du[o] + p[ALPHA, o] * di[o]
                    delta[r, o] = p[GAIN_SYN, o] * di[o]
                    bias[o] += delta[r, o]
            if d_weight.shape[0] > 0:
                for t in range(steps):
                    r = t * batch + b
                    count = _firing(words[r], at, wide)
                    for e in range(count):
                        add_run(tables[k], at[e], flat, r * wide, wide)
        if d_x.shape[0] > 0:  # of all samples at once: rows are added up eight at a time
            for row in range(first * steps, last * steps):
                d_x[listed[row], :] = 0
            add_product(d_x, 0, delta, 0, weight, 0, listed, first * steps, last * steps, inputs)
        tell(state, RUN)
        k = take(state, RUN, me, parts)
    wait(state, RUN, parts)
    if d_weight.shape[0] > 0:
        tiles = (inputs + TILE - 1) // TILE
        k = take(state, SUM, me, tiles)
        while k < tiles:
            first, last = k * TILE, min((k + 1) * TILE, inputs)
            for part in range(1, parts):
                add_run(tables[0], first * wide, tables[part], first * wide, (last - first) * wide)
            for o in range(n):
                for j in range(first, last):
                    d_weight[o, j] = tables[0, j * wide + o]
            tell(state, SUM)
            k = take(state, SUM, me, tiles)
        wait(state, SUM, tiles)
