"""Convolution of spikes, event by event: the compiled loops under `neuro.nn.conv` (neuro.jit).

Channels lie innermost: currents are rows [place, out channel] of one step of one sample, weights are
[in channel, tap, out channel of its group], taps in the order of `neuro.nn.conv.Geometry`, in which the weights of a
pixel for places side by side lie side by side too. So a spike adds a few long runs of weights to the row. The
gradient of the weights takes the same runs of some rows at a time, those that end in the same weights together: they
add up in registers, where one spike after the other would wait for what the last one wrote (a third of the time,
measured).

How many runs a spike has and how long they are depends on where in the stride and how near to an edge its pixel is.
Taken as they come, each spike has the processor guess that wrong, which takes longer than to add its runs (measured).
So the spikes of a row are sorted by the kind of their pixel first; within a kind they rise. Rows are in order of time:
sums have one order whatever the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.jit import disjoint, lowest, ones, piece
from neuro.nn import conv_vectors
from neuro.nn.conv_products import add_product
from neuro.nn.conv_vectors import add_run, sum_places, sum_runs

A = NDArray[Any]
U = np.uint64
moments_of = conv_vectors.moments

# fmt: off


@piece
def _sorted(words: A, kind: A, spikes: A, many: A) -> None:
    """spikes [kinds, n]: the set bits of a row, many [kinds] of each kind; kind [n + 1] of each neuron and, the last,
    of nobody. Four at a time, whether there or not: how many there are is no secret to guess."""
    for k in range(many.size):
        many[k] = U(0)
    nobody = U(kind.size - 1)
    for w in range(U(words.size)):
        word, base = words[w], U(64) * U(w)
        for _ in range((ones(word) + U(3)) >> U(2)):
            for _ in range(4):
                neuron = base + lowest(word) if word else nobody
                word &= word - U(1)
                which = U(kind[neuron])
                spikes[which, many[which]] = np.uint32(neuron)
                many[which] += U(1)


@piece
def _by_bucket(words: A, first: Any, last: Any, width: Any, bucket: A, origin: A, spikes: A, rows: A, many: A) -> None:
    """Spikes of rows first..last - 1, sorted: bucket k's end before many[k], those of the one before at many[k - 1].

    rows of each: (row - first) * width + origin[neuron]. spikes [2 n]: room; many [buckets + 1].
    """
    total = U(0)
    for k in range(many.size):
        many[k] = U(0)
    for r in range(U(first), U(last)):
        for w in range(U(words.shape[1])):
            word, base = words[r, w], U(64) * U(w)
            while word:
                neuron = base + lowest(word)
                word &= word - U(1)
                which = bucket[neuron]
                spikes[total] = which
                spikes[total + U(1)] = np.uint32((r - U(first)) * U(width) + U(origin[neuron]))
                total += U(2)
                many[which] += U(1)
    begin = U(0)
    for k in range(many.size):
        begin += many[k]
        many[k] = begin - many[k]
    for e in range(U(0), total, U(2)):
        which = spikes[e]
        rows[many[which]] = spikes[e + U(1)]
        many[which] += U(1)


@disjoint
def forward(
    first: int, last: int, spikes: A, many: A, words: A, weight: A, kind: A, start: A, place: A, tap: A, count: A,
    taps: int, out: int, each: int, inputs: int, bias: A, current: A, sums: A,
) -> None:
    """Rows first..last - 1: current [rows, places * out] = bias + weights of the spikes in words [rows, *].

    Pixel p of any channel reaches, for k in start[p]:start[p + 1], the count[k] places from place[k] on through the
    taps from tap[k] on. out: channels in all, each: of a group, inputs: input channels of a group. sums
    [rows, 2, out]: sum and sum of squares per channel, float64. spikes, many: room for `_sorted`.
    """
    pixels, places = U(start.size - 1), U(current.shape[1] // out)
    n, m, size, members = U(out), U(each), U(taps * each), U(inputs)
    for r in range(first, last):
        row = current[r]
        for p in range(places):
            for k in range(n):
                row[p * n + k] = bias[k]
        _sorted(words[r], kind, spikes, many)
        for which in range(many.size - 1):
            for e in range(many[which]):
                neuron = U(spikes[which, e])
                channel = neuron // pixels
                pixel, origin = neuron - channel * pixels, channel * size
                group = channel // members * m
                for k in range(U(start[pixel]), U(start[pixel + U(1)])):
                    add_run(row, U(place[k]) * n + group, weight, origin + U(tap[k]) * m, U(count[k]) * m)
        moments_of(row, sums[r, 0], sums[r, 1])


@disjoint
def forward_by_place(
    first: int, last: int, spikes: A, found: A, many: A, words: A, weight: A, bias: A, pixel: A, origin: A, start: A,
    begin: A, end: A, shift: A, current: A, sums: A,
) -> None:
    """`forward` where many channels meet in a place: they add up in registers (a third of the time, measured).

    pixel [n] of each neuron, in C order, and origin [n]: where the weights of its channel are for the tap of that
    number; weight [in * tap * out], taps in C order. Place p is reached, for j in start[p]:start[p + 1], by the pixels
    begin[j] up to end[j], through taps as many numbers away from theirs as shift[j] says. Room: spikes [2 n], found
    [n], many [pixels + 1].
    """
    for r in range(U(first), U(last)):
        many[0] = U(0)
        _by_bucket(words, r, r + U(1), U(0), pixel, origin, spikes, found, many[1:])
        sum_places(current[r], bias, weight, found, many, start, begin, end, shift)
        moments_of(current[r], sums[r, 0], sums[r, 1])


@disjoint
def moments(first: int, last: int, current: A, sums: A) -> None:
    """The sums of `forward` for currents that are there already."""
    for r in range(first, last):
        moments_of(current[r], sums[r, 0], sums[r, 1])


@disjoint
def unscale(first: int, last: int, d_y: A, current: A, a: A, b: A, c: A) -> None:
    """Rows first..last - 1 of d_y [rows, n] become a d_y + b current + c: the gradient through a norm."""
    for r in range(first, last):
        to, x = d_y[r], current[r]
        for j in range(to.size):
            to[j] = a[j] * to[j] + b[j] * x[j] + c[j]


@piece
def _weights(
    first: Any, last: Any, spikes: A, rows: A, many: A, words: A, d_y: A, flat: A, bucket: A, origin: A, model: A,
    start: A, place: A, tap: A, count: A, taps: Any, out: Any, each: Any, d_weight: A,
) -> None:
    """d_weight [in channel * tap * each] += gradients of the currents where spikes added them, rows first..last - 1.

    Spikes of one input channel whose pixels reach the same taps lie in one bucket, bucket [n] of each neuron; what
    they add to those taps adds up in registers. origin [n]: of the first place that a neuron reaches; model [groups]:
    a pixel of each group.
    """
    n, m, size, groups, width = U(out), U(each), U(taps * each), U(model.size), U(d_y.shape[1])
    _by_bucket(words, first, last, width, bucket, origin, spikes, rows, many)
    base, begin = U(first) * width, U(0)
    for k in range(U(many.size)):
        stop = many[k]
        if stop > begin:
            pixel, at = U(model[k % groups]), (k // groups) * size
            zero = U(place[start[pixel]]) if start[pixel] < start[pixel + U(1)] else U(0)
            for j in range(U(start[pixel]), U(start[pixel + U(1)])):
                shift = base + (U(place[j]) - zero) * n
                sum_runs(d_weight, at + U(tap[j]) * m, flat, rows, begin, stop, shift, U(count[j]) * m)
        begin = stop


@disjoint
def backward(
    first: int, last: int, spikes: A, rows: A, many: A, ends: A, words: A, d_y: A, current: A, a: A, b: A, c: A,
    normed: bool, bucket: A, origin: A, model: A, start: A, place: A, tap: A, count: A, taps: int, out: int, each: int,
    chunk: int, partial: A, reach: A, matrix: A, d_x: A,
) -> None:
    """Parts first..last - 1 of the rows, ends [parts + 1]; ``chunk`` rows at a time, which stay in cache.

    Where normed, d_y [rows, places * out] becomes the gradient of the currents first, as in `unscale`. Then partial
    [parts, weights], where it has columns, is set to the sum of `_weights`, and d_x [rows, pixels * in], where it has
    rows, to the gradient of the input: reach [runs, 4], the place and the first tap of a run, its pixel and how many
    taps go on to pixels side by side; matrix [out, tap * in].
    """
    flat, members = d_y.reshape(d_y.size), matrix.shape[1] // taps
    for part in range(first, last):
        for k in range(partial.shape[1]):
            partial[part, k] = 0
        for r in range(ends[part], ends[part + 1], chunk):
            end = min(r + chunk, ends[part + 1])
            if normed:
                for s in range(r, end):
                    row, x = d_y[s], current[s]
                    for j in range(row.size):
                        row[j] = a[j] * row[j] + b[j] * x[j] + c[j]
            if partial.shape[1] > 0:
                _weights(
                    r, end, spikes, rows, many, words, d_y, flat, bucket, origin, model, start, place, tap, count,
                    taps, out, each, partial[part],
                )
            if d_x.shape[0] > 0:
                for s in range(r, end):
                    to = d_x[s]
                    for j in range(to.size):
                        to[j] = 0
                for k in range(reach.shape[0]):
                    at, pixel = np.int64(reach[k, 0]), np.int64(reach[k, 2])
                    begin, size = np.int64(reach[k, 1]), np.int64(reach[k, 3])
                    add_product(
                        d_x, pixel * members, d_y, at * out, matrix, begin * members, r, end, size * members
                    )


@disjoint
def turned(first: int, last: int, wide: A, deep: A) -> None:
    """Rows first..last - 1: deep [rows, n, m] = wide [rows, m, n], each row turned."""
    for r in range(U(first), U(last)):
        for j in range(U(deep.shape[1])):
            for k in range(U(deep.shape[2])):
                deep[r, j, k] = wide[r, k, j]


@disjoint
def pack(weight: A, factor: Any, order: A, table: A) -> None:
    """table [group, in, tap, out of a group] = factor weight [group, out of a group, in, order[tap]]."""
    for g in range(U(table.shape[0])):
        for i in range(U(table.shape[1])):
            for t in range(U(table.shape[2])):
                tap = U(order[t])
                for o in range(U(table.shape[3])):
                    table[g, i, t, o] = factor * weight[g, o, i, tap]


@disjoint
def unpack(partial: A, factor: Any, order: A, weight: A) -> None:
    """weight [group, out, in, order[tap]] = factor times the sum over the parts of partial [parts, group, in, tap,
    out], in their order; partial is overwritten."""
    parts = U(partial.shape[0])
    for g in range(U(partial.shape[1])):
        for i in range(U(partial.shape[2])):
            for t in range(U(partial.shape[3])):
                tap, to = U(order[t]), partial[U(0), g, i, t]
                for part in range(U(1), parts):
                    add = partial[part, g, i, t]
                    for o in range(to.size):
                        to[o] += add[o]
                for o in range(U(to.size)):
                    weight[g, o, i, tap] = factor * to[o]
