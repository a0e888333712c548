"""Convolution of spikes, event by event: the compiled loops under `neuro.nn.conv` (neuro.jit).

Channels lie innermost: currents are rows [place, out channel] of one step of one sample, weights are
[in channel, tap, out channel of its group], taps in the order of `neuro.nn.conv.Geometry`, in which the weights of a
pixel for places side by side lie side by side too. So a spike adds a few long runs of weights to the row, and the
gradient of the weights walks the same runs. Spikes are read in rising order, rows in order of time: sums have one
order whatever the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.jit import disjoint, piece
from neuro.nn.bits import lowest

A = NDArray[Any]

# fmt: off


@piece
def _add(to: A, a: Any, add: A, b: Any, n: Any) -> None:
    """to[a:a + n] += add[b:b + n]."""
    for k in range(n):
        to[a + k] += add[b + k]


@piece
def _moments(row: A, one: A, two: A) -> None:
    """one, two [out] = sum and sum of squares of row [places * out] per channel."""
    one[:] = 0.0
    two[:] = 0.0
    for p in range(0, row.size, one.size):
        here = row[p:p + one.size]
        for k in range(here.size):
            x = np.float64(here[k])
            one[k] += x
            two[k] += x * x


@disjoint
def forward(
    first: int, last: int, words: A, weight: A, start: A, place: A, tap: A, count: A, taps: int, out: int, each: int,
    inputs: int, bias: A, current: A, sums: A,
) -> None:
    """Rows first..last - 1: current [rows, places * out] = bias + weights of the spikes in words [rows, *].

    Pixel p of any channel reaches, for k in start[p]:start[p + 1], the count[k] places from place[k] on through the
    taps from tap[k] on. out: channels in all, each: of a group, inputs: input channels of a group. sums
    [rows, 2, out]: sum and sum of squares per channel, float64.
    """
    pixels, places = np.uint64(start.size - 1), np.uint64(current.shape[1] // out)
    n, m, size = np.uint64(out), np.uint64(each), np.uint64(taps * each)
    for r in range(first, last):
        row = current[r]
        for p in range(places):
            for k in range(n):
                row[p * n + k] = bias[k]
        origin, begin, group, since = np.uint64(0), np.uint64(0), np.uint64(0), 0
        for w in range(words.shape[1]):
            word = words[r, w]
            while word:
                event = np.uint64(64) * np.uint64(w) + np.uint64(lowest(word))
                word &= word - np.uint64(1)
                while event - begin >= pixels:
                    begin += pixels
                    origin += size
                    since += 1
                    if since == inputs:
                        since = 0
                        group += m
                pixel = event - begin
                for k in range(np.uint64(start[pixel]), np.uint64(start[pixel + np.uint64(1)])):
                    _add(
                        row, np.uint64(place[k]) * n + group, weight, origin + np.uint64(tap[k]) * m,
                        np.uint64(count[k]) * m,
                    )
        _moments(row, sums[r, 0], sums[r, 1])


@disjoint
def moments(first: int, last: int, current: A, sums: A) -> None:
    """The sums of `forward` for currents that are there already."""
    for r in range(first, last):
        _moments(current[r], sums[r, 0], sums[r, 1])


@disjoint
def unscale(first: int, last: int, d_y: A, current: A, a: A, b: A, c: A) -> None:
    """Rows first..last - 1 of d_y [rows, n] become a d_y + b current + c: the gradient through a norm."""
    for r in range(first, last):
        to, x = d_y[r], current[r]
        for j in range(to.size):
            to[j] = a[j] * to[j] + b[j] * x[j] + c[j]


@disjoint
def weights(
    first: int, last: int, words: A, d_y: A, current: A, a: A, b: A, c: A, normed: bool, start: A, place: A, tap: A,
    count: A, taps: int, out: int, each: int, inputs: int, d_weight: A,
) -> None:
    """d_weight [in channel * tap * each] += gradients of the currents where spikes added them, rows first..last - 1.
    Where normed, d_y becomes the gradient of the currents first, as in `unscale`."""
    pixels, n, m, size = np.uint64(start.size - 1), np.uint64(out), np.uint64(each), np.uint64(taps * each)
    for r in range(first, last):
        row = d_y[r]
        if normed:
            x = current[r]
            for j in range(row.size):
                row[j] = a[j] * row[j] + b[j] * x[j] + c[j]
        origin, begin, group, since = np.uint64(0), np.uint64(0), np.uint64(0), 0
        for w in range(words.shape[1]):
            word = words[r, w]
            while word:
                event = np.uint64(64) * np.uint64(w) + np.uint64(lowest(word))
                word &= word - np.uint64(1)
                while event - begin >= pixels:
                    begin += pixels
                    origin += size
                    since += 1
                    if since == inputs:
                        since = 0
                        group += m
                p = event - begin
                for k in range(np.uint64(start[p]), np.uint64(start[p + np.uint64(1)])):
                    _add(
                        d_weight, origin + np.uint64(tap[k]) * m, row, np.uint64(place[k]) * n + group,
                        np.uint64(count[k]) * m,
                    )


@disjoint
def inputs(columns: A, start: A, place: A, tap: A, count: A, taps: int, d_x: A) -> None:
    """d_x [rows, pixel * in] = the sum of columns [rows, (place * taps + tap) * in] over what each pixel reaches."""
    pixels, k_taps = np.uint64(start.size - 1), np.uint64(taps)
    n = np.uint64(d_x.shape[1]) // pixels
    for r in range(d_x.shape[0]):
        to, add = d_x[r], columns[r]
        for k in range(to.size):
            to[k] = 0
        for p in range(pixels):
            for k in range(np.uint64(start[p]), np.uint64(start[p + np.uint64(1)])):
                first = (np.uint64(place[k]) * k_taps + np.uint64(tap[k])) * n
                for i in range(np.uint64(count[k])):
                    _add(to, p * n, add, first + i * (k_taps + np.uint64(1)) * n, n)
