"""Spikes that return late to the neurons that sent them, a step at a time (neuro.jit).

Layout. late: [batch, rows n], what arrives in each step; place[j, i] = base n + i, where base is the first step of
synapse j -> i that counts; table[m, j, i]: what it adds at step base + m. Backwards the same the other way round.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.jit import disjoint

A = NDArray[Any]


@disjoint
def send(first: int, last: int, row: int, spikes: A, table: A, place: A, late: A) -> None:
    """What the spikes [batch, n] of a step add to the rows from ``row`` on, for samples first..last - 1."""
    taps, sources, n = table.shape
    wide = np.uint32(n)
    for b in range(first, last):
        room = late[b]
        for j in range(sources):
            if spikes[b, j] == 0:
                continue
            at = place[j]
            t = np.uint32(row) * wide
            for m in range(taps):
                add = table[m, j]
                for i in range(n):
                    room[at[i] + t] += add[i]
                t += wide


@disjoint
def fetch(first: int, last: int, row: int, late: A, table: A, place: A, found: A) -> None:
    """found[b, j] = sum over m and i of table[m, i, j] late[b, (row + m) n + place[i, j]], samples first..last - 1."""
    taps, targets, n = table.shape
    wide = np.uint32(targets)
    zero = found.dtype.type(0)
    for b in range(first, last):
        room, sums = late[b], found[b]
        for j in range(n):
            sums[j] = zero
        for i in range(targets):
            at = place[i]
            t = np.uint32(row) * wide
            for m in range(taps):
                part = table[m, i]
                for j in range(n):
                    sums[j] += part[j] * room[at[j] + t]
                t += wide
