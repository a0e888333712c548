"""Input events as packets: which axons a step of input makes active, and when. No random numbers, no state."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.program import Program

IntArray = NDArray[np.int64]


def packets_of(program: Program, dense: NDArray[np.uint8], steps: int) -> tuple[IntArray, IntArray]:
    """All packets of a batch, sorted by sample and tick.

    program.image["inject"]: int[k, 3], (input channel, core A + axon, ticks until it is consumed). An input event of
    step t makes the axon active in tick t + that many ticks. Beyond the last channel is one of the host's own, which
    has its only event in step 0: what it takes to hold biases back until the sample arrives.

    Returns first int64[batch, steps + 1] and packets int64[n]: those that tick t of sample b consumes are
    packets[first[b, t]:first[b, t + 1]].
    """
    table = np.asarray(program.image["inject"], np.int64)
    table = table[np.argsort(table[:, 0], kind="stable")]
    dense = with_host(table, dense)
    begin = np.searchsorted(table[:, 0], np.arange(dense.shape[2] + 1))
    sample, step, channel = np.nonzero(dense.transpose(1, 0, 2))
    fan = (begin[1:] - begin[:-1])[channel]
    entry = np.repeat(begin[channel] - np.concatenate([[0], np.cumsum(fan)[:-1]]), fan) + np.arange(fan.sum())
    tick, sample = np.repeat(step, fan) + table[entry, 2], np.repeat(sample, fan)
    within = tick < steps
    key = sample[within] * steps + tick[within]
    order = np.argsort(key, kind="stable")
    batch = dense.shape[1]
    edges = np.searchsorted(key[order], np.arange(batch * steps + 1))
    first = np.concatenate([edges[:-1].reshape(batch, steps), edges[steps::steps].reshape(batch, 1)], axis=1)
    return first.astype(np.int64), np.ascontiguousarray(table[entry, 1][within][order])


def with_host(table: IntArray, dense: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Input events and, where the table asks for it, the host's own channel."""
    if table.shape[0] == 0 or int(table[:, 0].max()) < dense.shape[2]:
        return dense
    own = np.zeros((*dense.shape[:2], 1), dense.dtype)
    own[0] = 1
    return np.concatenate([dense, own], axis=2)
