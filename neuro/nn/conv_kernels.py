"""Convolution of spikes, event by event: the compiled loops under `neuro.nn.conv` (neuro.jit).

Channels lie innermost: currents are rows [place, out channel] of one step of one sample, weights are
[in channel, tap, out channel of its group], taps in the order of `neuro.nn.conv.Geometry`, in which the weights of a
pixel for places side by side lie side by side too. So a spike adds a few long runs of weights to the row, and the
gradient of the weights walks the same runs.

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
from neuro.nn.conv_vectors import add_run

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


@disjoint
def weights(
    first: int, last: int, spikes: A, many: A, words: A, d_y: A, current: A, a: A, b: A, c: A, normed: bool, kind: A,
    start: A, place: A, tap: A, count: A, taps: int, out: int, each: int, inputs: int, d_weight: A,
) -> None:
    """d_weight [in channel * tap * each] += gradients of the currents where spikes added them, rows first..last - 1.
    Where normed, d_y becomes the gradient of the currents first, as in `unscale`."""
    pixels, n, m, size, members = U(start.size - 1), U(out), U(each), U(taps * each), U(inputs)
    for r in range(first, last):
        row = d_y[r]
        if normed:
            x = current[r]
            for j in range(row.size):
                row[j] = a[j] * row[j] + b[j] * x[j] + c[j]
        _sorted(words[r], kind, spikes, many)
        for which in range(many.size - 1):
            for e in range(many[which]):
                neuron = U(spikes[which, e])
                channel = neuron // pixels
                pixel, origin = neuron - channel * pixels, channel * size
                group = channel // members * m
                for k in range(U(start[pixel]), U(start[pixel + U(1)])):
                    add_run(d_weight, origin + U(tap[k]) * m, row, U(place[k]) * n + group, U(count[k]) * m)


@disjoint
def inputs(columns: A, pixels: int, reach: A, taps: int, d_x: A) -> None:
    """d_x [rows, pixel * in] = the sum of columns [rows, (place * taps + tap) * in] over what reaches each pixel.

    reach [runs, 4]: the place and the first tap of a run, its pixel and how many taps go on to pixels side by side.
    """
    n, k_taps = U(d_x.shape[1]) // U(pixels), U(taps)
    for r in range(d_x.shape[0]):
        to, add = d_x[r], columns[r]
        for k in range(to.size):
            to[k] = 0
        for k in range(reach.shape[0]):
            begin = (U(reach[k, 0]) * k_taps + U(reach[k, 1])) * n
            add_run(to, U(reach[k, 2]) * n, add, begin, U(reach[k, 3]) * n)
