"""Input events as packets: which axons a step of input makes active, and when. No random numbers, no state. Compiled
(neuro.jit)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.program import Program
from neuro.jit import kernel

IntArray = NDArray[np.int64]
Bytes = NDArray[np.uint8]
U = np.uintp  # an index that needs no look at its sign


def packets_of(program: Program, dense: NDArray[np.uint8], steps: int) -> tuple[IntArray, IntArray]:
    """All packets of a batch, sorted by sample and tick.

    program.image["inject"]: int[k, 3], (input channel, core A + axon, ticks until it is consumed). An input event of
    step t makes the axon active in tick t + that many ticks. Beyond the last channel is one of the host's own, which
    has its only event in step 0: what it takes to hold biases back until the sample arrives.

    Returns first int64[batch, steps + 1] and packets int64[n]: those that tick t of sample b consumes are
    packets[first[b, t]:first[b, t + 1]].
    """
    table = np.asarray(program.image["inject"], np.int64)
    table = np.ascontiguousarray(table[np.argsort(table[:, 0], kind="stable")])
    dense = np.ascontiguousarray(with_host(table, dense), np.uint8)
    begin = np.searchsorted(table[:, 0], np.arange(dense.shape[2] + 1))
    first = np.zeros((dense.shape[1], steps + 1), np.int64)
    count_packets(dense, table, begin, first)
    ends = np.cumsum(first[:, 1:]).reshape(-1, steps)
    first[:, 1:] = ends
    first[1:, 0] = ends[:-1, -1]
    packets = np.zeros(int(ends[-1, -1]), np.int64)
    list_packets(dense, table, begin, first[:, :-1].copy(), packets)
    return first, packets


@kernel
def count_packets(dense: Bytes, table: IntArray, begin: IntArray, first: IntArray) -> None:
    """first[b, t + 1] += packets that tick t of sample b consumes."""
    steps = first.shape[1] - 1
    for t in range(dense.shape[0]):
        for b in range(dense.shape[1]):
            for i in range(U(dense.shape[2])):
                if dense[U(t), U(b), U(i)] != 0:
                    for k in range(begin[U(i)], begin[U(i) + U(1)]):
                        tick = t + table[k, 2]
                        if tick < steps:
                            first[b, tick + 1] += 1


@kernel
def list_packets(dense: Bytes, table: IntArray, begin: IntArray, at: IntArray, packets: IntArray) -> None:
    """The packets themselves. at: int64[batch, steps], where the next of a tick goes."""
    steps = at.shape[1]
    for t in range(dense.shape[0]):
        for b in range(dense.shape[1]):
            for i in range(U(dense.shape[2])):
                if dense[U(t), U(b), U(i)] != 0:
                    for k in range(begin[U(i)], begin[U(i) + U(1)]):
                        tick = t + table[k, 2]
                        if tick < steps:
                            packets[at[b, tick]] = table[k, 1]
                            at[b, tick] += 1


def with_host(table: IntArray, dense: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Input events and, where the table asks for it, the host's own channel."""
    if table.shape[0] == 0 or int(table[:, 0].max()) < dense.shape[2]:
        return dense
    own = np.zeros((*dense.shape[:2], 1), dense.dtype)
    own[0] = 1
    return np.concatenate([dense, own], axis=2)
