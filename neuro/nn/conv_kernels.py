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
def _by_bucket(
    words: A, order: A, first: Any, last: Any, base: Any, width: Any, bucket: A, origin: A, spikes: A, rows: A, many: A,
) -> None:
    """Spikes of rows order[first:last], sorted: bucket k's end before many[k], those of the one before at many[k - 1].

    rows of each: (row - base) * width + origin[neuron]. spikes [2 n]: room; many [buckets + 1].
    """
    total = U(0)
    for k in range(many.size):
        many[k] = U(0)
    for p in range(U(first), U(last)):
        r = U(order[p])
        for w in range(U(words.shape[1])):
            word, bit = words[r, w], U(64) * U(w)
            while word:
                neuron = bit + lowest(word)
                word &= word - U(1)
                which = bucket[neuron]
                spikes[total] = which
                spikes[total + U(1)] = np.uint32((r - U(base)) * U(width) + U(origin[neuron]))
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


@piece
def _none(sums: A) -> None:
    for j in range(sums.shape[1]):
        sums[0, j] = 0.0
        sums[1, j] = 0.0


@piece
def _add_moments(row: A, room: A, sums: A) -> None:
    moments_of(row, room[0], room[1])
    for j in range(sums.shape[1]):
        sums[0, j] += room[0, j]
        sums[1, j] += room[1, j]


@disjoint
def forward(
    first: Any, last: Any, rows: A, spikes: A, many: A, words: A, weight: A, kind: A, start: A, place: A, tap: A,
    count: A, taps: Any, out: Any, each: Any, inputs: Any, bias: A, current: A, room: A, sums: A,
) -> None:
    """Rows rows[first:last]: current [rows, places * out] = bias + weights of the spikes in words [rows, *].

    Pixel p of any channel reaches, for k in start[p]:start[p + 1], the count[k] places from place[k] on through the
    taps from tap[k] on. out: channels in all, each: of a group, inputs: input channels of a group. sums
    [2, out]: sum and sum of squares per channel over these rows, float64; room [2, out]. spikes, many: room for
    `_sorted`.
    """
    _none(sums)
    pixels, places = U(start.size - 1), U(current.shape[1] // out)
    n, m, size, members = U(out), U(each), U(taps * each), U(inputs)
    for at in range(first, last):
        r = rows[at]
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
        _add_moments(row, room, sums)


@disjoint
def forward_by_place(
    first: Any, last: Any, rows: A, spikes: A, found: A, many: A, words: A, weight: A, bias: A, pixel: A, origin: A,
    start: A, begin: A, end: A, shift: A, current: A, room: A, sums: A,
) -> None:
    """`forward` where many channels meet in a place: they add up in registers (a third of the time, measured).

    pixel [n] of each neuron, in C order, and origin [n]: where the weights of its channel are for the tap of that
    number; weight [in * tap * out], taps in C order. Place p is reached, for j in start[p]:start[p + 1], by the pixels
    begin[j] up to end[j], through taps as many numbers away from theirs as shift[j] says. Room: spikes [2 n], found
    [n], many [pixels + 1].
    """
    _none(sums)
    for at in range(U(first), U(last)):
        r = U(rows[at])
        many[0] = U(0)
        _by_bucket(words, rows, at, at + U(1), U(0), U(0), pixel, origin, spikes, found, many[1:])
        sum_places(current[r], bias, weight, found, many, start, begin, end, shift)
        _add_moments(current[r], room, sums)


@disjoint
def moments(first: Any, last: Any, rows: A, current: A, room: A, sums: A) -> None:
    """The sums of `forward` for currents that are there already."""
    _none(sums)
    for at in range(first, last):
        _add_moments(current[rows[at]], room, sums)


@disjoint
def unscale(first: int, last: int, d_y: A, current: A, a: A, b: A, c: A) -> None:
    """Rows first..last - 1 of d_y [rows, n] become a d_y + b current + c: the gradient through a norm."""
    for r in range(first, last):
        to, x = d_y[r], current[r]
        for j in range(to.size):
            to[j] = a[j] * to[j] + b[j] * x[j] + c[j]


@piece
def _weights(
    first: Any, last: Any, order: A, spikes: A, rows: A, many: A, words: A, d_y: A, flat: A, bucket: A, origin: A,
    model: A, start: A, place: A, tap: A, count: A, taps: Any, out: Any, each: Any, d_weight: A,
) -> None:
    """d_weight [in channel * tap * each] += gradients of the currents where spikes added them, rows order[first:last].

    Spikes of one input channel whose pixels reach the same taps lie in one bucket, bucket [n] of each neuron; what
    they add to those taps adds up in registers. origin [n]: of the first place that a neuron reaches; model [groups]:
    a pixel of each group.
    """
    n, m, size, groups, width = U(out), U(each), U(taps * each), U(model.size), U(d_y.shape[1])
    lowest_row = U(order[first])
    for p in range(first, last):
        lowest_row = min(lowest_row, U(order[p]))
    _by_bucket(words, order, first, last, lowest_row, width, bucket, origin, spikes, rows, many)
    base, begin = lowest_row * width, U(0)
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
    first: Any, last: Any, order: A, spikes: A, rows: A, many: A, words: A, d_y: A, current: A, a: A, b: A, c: A,
    normed: Any, bucket: A, origin: A, model: A, start: A, place: A, tap: A, count: A, taps: Any, out: Any, each: Any,
    chunk: Any, partial: A,
) -> None:
    """Rows order[first:last], ``chunk`` at a time, which stay in cache.

    Where normed, d_y [rows, places * out] becomes the gradient of the currents first, as in `unscale`. Then partial
    [weights], where it is not empty, is set to the sum of `_weights`.
    """
    flat = d_y.reshape(d_y.size)
    for k in range(partial.size):
        partial[k] = 0
    for r in range(first, last, chunk):
        end = min(r + chunk, last)
        if normed:
            for at in range(r, end):
                row, x = d_y[order[at]], current[order[at]]
                for j in range(row.size):
                    row[j] = a[j] * row[j] + b[j] * x[j] + c[j]
        if partial.size > 0:
            _weights(
                r, end, order, spikes, rows, many, words, d_y, flat, bucket, origin, model, start, place, tap, count,
                taps, out, each, partial,
            )


@disjoint
def inputs(first: Any, last: Any, order: A, d_y: A, out: Any, taps: Any, reach: A, matrix: A, d_x: A) -> None:
    """Rows order[first:last]: d_x [rows, pixels * in], the gradient of the input. reach [runs, 4]: the place and the
    first tap of a run, its pixel and how many taps go on to pixels side by side; matrix [out, tap * in]."""
    members = matrix.shape[1] // taps
    for at in range(first, last):
        to = d_x[order[at]]
        for j in range(to.size):
            to[j] = 0
    for k in range(reach.shape[0]):
        place, pixel = np.int64(reach[k, 0]), np.int64(reach[k, 2])
        begin, size = np.int64(reach[k, 1]), np.int64(reach[k, 3])
        add_product(
            d_x, pixel * members, d_y, place * out, matrix, begin * members, order, first, last, size * members
        )


@disjoint
def turned(row: Any, wide: A, deep: A) -> None:
    """deep [rows, n, m] = wide [rows, m, n], one row."""
    r = U(row)
    for j in range(U(deep.shape[1])):
        for k in range(U(deep.shape[2])):
            deep[r, j, k] = wide[r, k, j]


@piece
def pack(member: Any, weight: A, factor: Any, order: A, table: A) -> None:
    """table [group, in, tap, out of a group] = factor weight [group, out of a group, in, order[tap]], of input channel
    number ``member`` of all."""
    g, i = U(member) // U(table.shape[1]), U(member) % U(table.shape[1])
    for t in range(U(table.shape[2])):
        tap = U(order[t])
        for o in range(U(table.shape[3])):
            table[g, i, t, o] = factor * weight[g, o, i, tap]


@piece
def unpack(member: Any, partial: A, factor: Any, order: A, weight: A) -> None:
    """weight [group, out, in, order[tap]] = factor times the sum over the parts of partial [parts, group, in, tap,
    out], in their order, of input channel number ``member`` of all; partial is overwritten."""
    g, i = U(member) // U(partial.shape[2]), U(member) % U(partial.shape[2])
    for t in range(U(partial.shape[3])):
        tap, to = U(order[t]), partial[U(0), g, i, t]
        for part in range(U(1), U(partial.shape[0])):
            add = partial[part, g, i, t]
            for o in range(to.size):
                to[o] += add[o]
        for o in range(U(to.size)):
            weight[g, o, i, tap] = factor * to[o]
