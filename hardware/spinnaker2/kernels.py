"""SpiNNaker 2 programs in float32: the compiled loops and `run`. The arithmetic is that of contract.py (neuro.jit).

All neurons of the chip are updated in every step, then the spikes of the step are sent; a synapse adds its integer
weight to a sum that the target takes 1 + delay steps later. Sums are integers and exact, so nothing depends on the
order of spikes or the number of threads.

Counters. What a spike causes is booked in the step in which it is sent: synapses per target core (for inputs too), one
packet per spike that goes anywhere (the fabric is multicast). Inputs send no packets, they are ``injected``. memory:
16 bits per synapse.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuro.errors import SimulationError
from neuro.extend import did_you_mean
from neuro.hardware.program import Program
from neuro.hardware.spinnaker2.contract import CHIP, SLOTS, VARIABLES
from neuro.hardware.spinnaker2.packed import Packed, names_of, pack
from neuro.hardware.threads import available as _threads
from neuro.hardware.threads import over_pieces
from neuro.hardware.trace import Counters, Trace
from neuro.jit import kernel

Bytes = NDArray[np.uint8]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
F32 = np.float32
COUNT, SUM, MAX, LAST = 0, 1, 2, 3  # neuro.ir.READOUTS
MOST = 2147483647.0


class Work(NamedTuple):
    """Room for one sample: v, exc, inh [neurons] and the same memory as int32; ring [slots, 2, neurons]; fired:
    [neurons], who fires in this step."""

    v: Float32
    exc: Float32
    inh: Float32
    v_bits: Int32
    exc_bits: Int32
    inh_bits: Int32
    ring: Int32
    fired: Int32


class Out(NamedTuple):
    """What a batch fills, zero before. columns: [populations, variables], where each goes in probes, or -1. spikes:
    [steps, batch, neurons without inputs] or empty. probes: [steps, batch, columns]. scores: [batch, n]. booked:
    [3, batch, steps, cores], synapses, spikes, packets. injected: [batch, steps]."""

    columns: Int64
    spikes: Bytes
    probes: Int32
    scores: Int64
    booked: Int64
    injected: Int64


@kernel
def whole(v: np.float32, value: float) -> Any:
    """v as a whole number of units, kept within int32; what is no number is the highest."""
    x = np.rint(np.float64(v) * value)
    if not x < MOST:
        return np.int64(2147483647)
    return np.int64(max(x, -MOST))


@kernel
def update(net: Packed, work: Work, t: int) -> Any:
    """Step t of every neuron; returns how many fire."""
    inputs, n = net.first[1], net.alpha.size
    slot = t % SLOTS
    count = 0
    for i in range(inputs, n):
        e, h = F32(work.ring[slot, 0, i]), F32(work.ring[slot, 1, i])
        work.ring[slot, 0, i] = 0
        work.ring[slot, 1, i] = 0
        if net.current[i] != 0:
            e = F32(F32(net.keep_exc[i] * work.exc[i]) + e)
            h = F32(F32(net.keep_inh[i] * work.inh[i]) + h)
            work.exc[i] = e
            work.inh[i] = h
        v = F32(F32(F32(net.alpha[i] * work.v[i]) + net.offset[i]) + F32(e - h))
        if v > net.threshold[i]:
            v = F32(v - net.threshold[i]) if net.subtract[i] != 0 else net.reset[i]
            work.fired[count] = i
            count += 1
        work.v[i] = v
    return count


@kernel
def send(net: Packed, work: Work, out: Out, i: int, t: int, b: int) -> None:
    """A spike of neuron i in step t: its synapses, and what it costs."""
    for q in range(net.fan[i], net.fan[i + 1]):
        w = net.weight[q]
        slot = (t + 1 + net.delay[q]) % SLOTS
        if w > 0:
            work.ring[slot, 0, net.target[q]] += w
        else:
            work.ring[slot, 1, net.target[q]] -= w
    for f in range(net.load[i], net.load[i + 1]):
        out.booked[0, b, t, net.load_core[f]] += net.load_synapses[f]
    if net.core[i] >= 0:
        out.booked[1, b, t, net.core[i]] += 1
        if net.load[i + 1] > net.load[i]:
            out.booked[2, b, t, net.core[i]] += 1


@kernel
def note(net: Packed, work: Work, out: Out, p: int, t: int, b: int) -> None:
    """Probes of population p after step t."""
    for k in range(4):
        column = out.columns[p, k]
        if column < 0:
            continue
        for i in range(net.first[p], net.first[p + 1]):
            if k == 0:
                x = np.int32(whole(work.v[i], net.value[i]))
            elif k == 1:
                x = work.v_bits[i]
            elif k == 2:
                x = work.exc_bits[i]
            else:
                x = work.inh_bits[i]
            out.probes[t, b, column + i - net.first[p]] = x


@kernel
def score(net: Packed, work: Work, out: Out, t: int, b: int, count: int, since: int) -> None:
    """One step of the readout. since: steps since its window began."""
    lo, hi = net.first[net.output], net.first[net.output + 1]
    if net.readout == COUNT:
        for f in range(count):
            if lo <= work.fired[f] < hi:
                out.scores[b, work.fired[f] - lo] += 1
        return
    for i in range(lo, hi):
        x = whole(work.v[i], net.value[i])
        if net.readout == SUM:
            out.scores[b, i - lo] += x
        elif net.readout == LAST or since == 0:
            out.scores[b, i - lo] = x
        else:
            out.scores[b, i - lo] = max(out.scores[b, i - lo], x)


@kernel
def simulate_samples(net: Packed, work: Work, out: Out, dense: Bytes, steps: int, depth: int, lo: int, hi: int) -> None:
    """Samples lo..hi-1 of dense [steps, batch, inputs], each from the start, for ``steps`` steps."""
    inputs = net.first[1]
    for b in range(lo, hi):
        for i in range(net.alpha.size):
            work.v[i], work.exc[i], work.inh[i] = net.init[i], F32(0), F32(0)
            for slot in range(SLOTS):
                work.ring[slot, 0, i] = 0
                work.ring[slot, 1, i] = 0
        for t in range(steps):
            count = update(net, work, t)
            if t < dense.shape[0]:
                for i in range(inputs):
                    if dense[t, b, i] != 0:
                        out.injected[b, t] += 1
                        send(net, work, out, i, t, b)
            for f in range(count):
                i = np.int64(work.fired[f])  # type: ignore[assignment]  # to a kernel an int is an int64
                if out.spikes.size > 0:
                    out.spikes[t, b, i - inputs] = 1
                send(net, work, out, i, t, b)
            for p in range(1, net.first.size - 1):
                note(net, work, out, p, t, b)
            if t >= depth:
                score(net, work, out, t, b, count, t - depth)


def work_of(net: Packed) -> Work:
    """Zeroed room for one sample."""
    n = net.alpha.size
    v, exc, inh = (np.zeros(n, np.float32) for _ in range(3))
    return Work(v, exc, inh, v.view(np.int32), exc.view(np.int32), inh.view(np.int32),
                np.zeros((SLOTS, 2, n), np.int32), np.zeros(n, np.int32))  # fmt: skip


def run(
    program: Program,
    dense: Bytes,
    probes: tuple[tuple[str, str], ...] = (),
    record_spikes: bool = True,
) -> Trace:
    """Simulate a batch, samples in parallel threads (NUMBA_NUM_THREADS, default: the processors at hand).

    dense: uint8[steps, batch, inputs] of 0 and 1; runs for steps + program.depth steps, silent at the end.
    probes: (population, variable), variables as in contract.py.

    Raises:
        SimulationError: the program breaks the contract, dense is not that, or a probe does not exist.
    """
    net = pack(program)
    names = names_of(program)
    _check_dense(dense, program.populations[program.input].size)
    columns = np.full((len(names), len(VARIABLES)), -1, np.int64)
    width = 0
    asked = tuple(dict.fromkeys(probes))
    for name, variable in asked:
        columns[_probe(program, name, variable)] = width
        width += program.populations[name].size
    length, batch, inputs = dense.shape
    steps, neurons = length + program.depth, int(net.first[-1]) - inputs
    out = Out(
        columns=columns,
        spikes=np.zeros((steps, batch, neurons) if record_spikes else (0, 0, 0), np.uint8),
        probes=np.zeros((steps, batch, width), np.int32),
        scores=np.zeros((batch, program.populations[program.output].size), np.int64),
        booked=np.zeros((3, batch, steps, program.placement.cores), np.int64),
        injected=np.zeros((batch, steps), np.int64),
    )
    _simulate(net, out, np.ascontiguousarray(dense, np.uint8), steps, program.depth)
    spikes = {}
    if record_spikes:
        entered = np.zeros((steps, batch, inputs), np.uint8)
        entered[:length] = dense
        spikes[program.input] = entered
        for i, name in enumerate(names[1:], 1):
            spikes[name] = out.spikes[:, :, net.first[i] - inputs : net.first[i + 1] - inputs]
    values = {}
    for name, variable in asked:
        column = int(columns[_probe(program, name, variable)])
        values[name, variable] = out.probes[:, :, column : column + program.populations[name].size]
    synops, sent, packets = out.booked
    memory = synops * (CHIP.limit("synapse_word") // 8)
    updates = np.broadcast_to(net.updates, synops.shape)
    counters = Counters(synops, updates, sent, packets, np.zeros_like(synops), memory, out.injected)
    return Trace(program.chip, program.dt, spikes, values, counters, out.scores)


def _simulate(net: Packed, out: Out, dense: Bytes, steps: int, depth: int) -> None:
    """Every thread takes pieces of the batch as it gets on, in a room of its own."""
    batch = dense.shape[1]

    def work(todo: Iterator[tuple[int, int]]) -> None:
        room = work_of(net)
        for lo, hi in todo:
            simulate_samples(net, room, out, dense, steps, depth, lo, hi)

    over_pieces(min(_threads(), batch), batch, work)


def _check_dense(dense: Bytes, inputs: int) -> None:
    if dense.ndim != 3 or dense.shape[2] != inputs or 0 in dense.shape:
        raise SimulationError(f"dense must be [steps, batch, {inputs}], none of them 0, got shape {dense.shape}")
    if dense.dtype.kind not in "bui" or int(dense.min()) < 0 or int(dense.max()) > 1:
        raise SimulationError(f"dense must hold integers 0 and 1, got {dense.dtype} {dense.min()}..{dense.max()}")


def _probe(program: Program, name: str, variable: str) -> tuple[int, int]:
    """(row, column) of a probe in ``columns``."""
    stateful = [n for n, p in program.populations.items() if p.model != "input"]
    if name not in stateful:
        raise SimulationError(f"no population '{name}' with a state to probe. {did_you_mean(name, stateful)}")
    if variable not in VARIABLES:
        raise SimulationError(f"cannot probe '{variable}' of '{name}'; a SpiNNaker 2 neuron has {', '.join(VARIABLES)}")
    return names_of(program).index(name), VARIABLES.index(variable)
