"""`run`: a batch of samples, each from the initial state, in parallel threads. Long runs are in machine.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuro.errors import SimulationError
from neuro.hardware.program import Program
from neuro.hardware.spinnaker1 import kernels
from neuro.hardware.spinnaker1.kernels import VARIABLES, Out
from neuro.hardware.spinnaker1.machine import probe_place, restart, work_of
from neuro.hardware.spinnaker1.packed import pack, quick
from neuro.hardware.spinnaker1.traffic import names_of
from neuro.hardware.threads import available as threads
from neuro.hardware.threads import over_pieces
from neuro.hardware.trace import Counters, Trace

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Bytes = NDArray[np.uint8]


class _Batch(NamedTuple):
    """Records of a batch, sample first, so that each sample's is one piece of memory."""

    booked: Int64  # [batch, 6, steps, cores]
    spikes: Bytes  # [batch, steps, neurons] or [batch, 0, 0]
    probes: Int32  # [batch, steps, columns]
    scores: Int64  # [batch, n]
    injected: Int64  # [batch, steps]


def run(program: Program, dense: Bytes, probes: tuple[tuple[str, str], ...] = (), record_spikes: bool = True) -> Trace:
    """Simulate a batch from its initial state, samples in parallel threads (NUMBA_NUM_THREADS).

    dense: uint8[steps, batch, inputs] of 0 and 1; runs for steps + program.depth steps, silent at the end.
    probes: (population, "v" | "refract" | "exc" | "inh"), after the step's update; exc and inh after their decay.

    Raises:
        SimulationError: the program breaks the contract, dense is not that, or a probe does not exist.
    """
    batch, columns = _simulate(program, dense, probes, record_spikes)
    net, _ = pack(program)
    names = names_of(program)
    length, count, inputs = dense.shape
    spikes: dict[str, NDArray[np.uint8] | Int32] = {}
    if record_spikes:
        entered = np.zeros((length + program.depth, count, inputs), np.uint8)
        entered[:length] = dense
        spikes[program.input] = entered
        for k, name in enumerate(names[1:], 1):
            sent = batch.spikes[:, :, net.first[k] : net.first[k] + net.size[k]]
            spikes[name] = np.ascontiguousarray(sent.transpose(1, 0, 2))
    values = {}
    for name, variable in dict.fromkeys(probes):
        column = columns[VARIABLES.index(variable), names.index(name)]
        part = batch.probes[:, :, column : column + program.populations[name].size]
        values[name, variable] = np.ascontiguousarray(part.transpose(1, 0, 2))
    booked = batch.booked
    updates = np.broadcast_to(net.core_hi - net.core_lo, booked[:, 0].shape)
    return Trace(
        chip=program.chip,
        dt=program.dt,
        spikes=spikes,
        probes=values,
        counters=Counters(
            synops=booked[:, kernels.SYNOPS],
            updates=updates,
            spikes=booked[:, kernels.SPIKES],
            packets=booked[:, kernels.PACKETS],
            hops=booked[:, kernels.HOPS],
            memory=booked[:, kernels.MEMORY],
            injected=batch.injected,
        ),
        scores=batch.scores,
    )


def saturations(program: Program, dense: Bytes) -> Int64:
    """int64[batch]: additions to ring buffers that ran over 16 bits, of each sample of a batch as `run` takes it."""
    batch, _ = _simulate(program, dense, (), False)
    total: Int64 = batch.booked[:, kernels.SATURATED].sum(axis=(1, 2))
    return total


def _simulate(
    program: Program, dense: Bytes, probes: tuple[tuple[str, str], ...], record_spikes: bool
) -> tuple[_Batch, Int64]:
    net, initial = pack(program)
    names = names_of(program)
    _check_dense(dense, program.populations[program.input].size)
    columns = np.full((len(VARIABLES), len(names)), -1, np.int64)
    width = 0
    for name, variable in dict.fromkeys(probes):
        columns[probe_place(program, name, variable)] = width
        width += program.populations[name].size
    length, count, inputs = dense.shape
    steps, neurons = length + program.depth, int(net.first[-1])
    batch = _Batch(
        booked=np.zeros((count, 6, steps, program.placement.cores), np.int64),
        spikes=np.zeros((count, steps, neurons) if record_spikes else (count, 0, 0), np.uint8),
        probes=np.zeros((count, steps, width), np.int32),
        scores=np.zeros((count, program.populations[program.output].size), np.int64),
        injected=np.zeros((count, steps), np.int64),
    )
    fast, depth, nothing = quick(program), program.depth, np.zeros(0, np.int32)

    def some(pieces: Iterator[tuple[int, int]]) -> None:
        work = work_of(net, initial, inputs)
        entered = np.zeros((steps, inputs), np.uint8)
        for begin, end in pieces:
            for b in range(begin, end):
                restart(work, initial)
                entered[:length] = dense[:, b]
                out = _record(batch, b, columns)
                kernels.run_sample(net, fast, work, out, entered, nothing, depth)

    over_pieces(min(threads(), count), count, some)
    return batch, columns


def _record(batch: _Batch, b: int, columns: Int64) -> Out:
    """Where sample b is written."""
    none = np.zeros(0, np.int64)
    return Out(
        batch.booked[b], batch.spikes[b], batch.probes[b], columns, batch.scores[b], batch.injected[b], none, none
    )


def _check_dense(dense: Bytes, inputs: int) -> None:
    if dense.ndim != 3 or dense.shape[2] != inputs or 0 in dense.shape:
        raise SimulationError(f"dense must be [steps, batch, {inputs}], none of them 0, got shape {dense.shape}")
    if dense.dtype.kind not in "bui" or int(dense.min()) < 0 or int(dense.max()) > 1:
        raise SimulationError(f"dense must hold integers 0 and 1, got {dense.dtype} {dense.min()}..{dense.max()}")
