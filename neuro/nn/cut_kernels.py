"""Currents of spikes through a Linear, event by event: the compiled loop under `neuro.nn.cut` (neuro.jit)."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from neuro.jit import disjoint
from neuro.nn.recurrent_kernels import U, add_rows, listed

A = NDArray[Any]


@disjoint
def gather(first: int, last: int, words: A, table: A, bias: A, y: A, index: A) -> None:
    """y[row] = bias + the rows of table that fire, rows first..last - 1. words: bits [rows, *]; table
    [sources + 1, n], its last row 0; y [rows, n]. Room: index [rows of this call's own, sources + 4]."""
    names, nobody = index[U(first)], U(table.shape[0] - 1)
    for row in range(U(first), U(last)):
        r = U(row)
        now = y[r]
        for k in range(U(now.size)):
            now[k] = bias[k]
        add_rows(names, listed(words[r], names, nobody), table, now)
