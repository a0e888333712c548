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
from neuro.hardware.spikes import AHEAD, book, collect, enter, spread
from neuro.hardware.spinnaker2.contract import CHIP, VARIABLES
from neuro.hardware.spinnaker2.packed import Packed, names_of, pack
from neuro.hardware.threads import available as _threads
from neuro.hardware.threads import over_pieces
from neuro.hardware.trace import Counters, Trace
from neuro.jit import disjoint, kernel, wide

Bytes = NDArray[np.uint8]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
Words = NDArray[np.uint64]
F32 = np.float32
I64: Any = np.int64  # what it makes is an int to mypy
U = np.uintp  # an index that needs no look at its sign
COUNT, SUM, MAX, LAST = 0, 1, 2, 3  # neuro.ir.READOUTS
MOST = 2147483647.0


class Work(NamedTuple):
    """Room for one sample: v, exc, inh [neurons] and the same memory as int32; sums: the ring of `Packed.blocks`;
    words, fired: a byte per neuron, 1 where it fires in this step, as words and as bytes; events: who does."""

    v: Float32
    exc: Float32
    inh: Float32
    v_bits: Int32
    exc_bits: Int32
    inh_bits: Int32
    sums: Int32
    words: Words
    fired: Bytes
    events: Int32


class Out(NamedTuple):
    """What a batch fills, zero before. columns: [populations, variables], where each goes in probes, or -1. spikes:
    [steps, batch, neurons without inputs] or empty. probes: [steps, batch, columns]. scores: [batch, n]. booked:
    [4, batch, steps, cores], synapses, spikes, packets, hops. injected: [batch, steps]."""

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


@disjoint
def update(
    first: int,
    last: int,
    v: Float32,
    exc: Float32,
    inh: Float32,
    sums: Int32,
    at: int,
    alpha: Float32,
    offset: Float32,
    threshold: Float32,
    reset: Float32,
    keep_exc: Float32,
    keep_inh: Float32,
    subtract: Bytes,
    current: Bytes,
    fired: Bytes,
) -> None:
    """One step of neurons first..last-1; takes and clears their sums at ``at`` and, inhibitory, behind those of all."""
    wide()
    behind = U(at) + U(v.size)
    for k in range(U(first), U(last)):
        i = U(k)
        e, h = F32(sums[U(at) + i]), F32(sums[behind + i])
        sums[U(at) + i] = 0
        sums[behind + i] = 0
        held = current[i] != 0
        with_e, with_h = F32(F32(keep_exc[i] * exc[i]) + e), F32(F32(keep_inh[i] * inh[i]) + h)
        e, h = with_e if held else e, with_h if held else h
        exc[i], inh[i] = e if held else exc[i], h if held else inh[i]
        x = F32(F32(F32(alpha[i] * v[i]) + offset[i]) + F32(e - h))
        spike = x > threshold[i]
        back = F32(x - threshold[i]) if subtract[i] != 0 else reset[i]
        v[i] = back if spike else x
        fired[i] = spike


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
            out.probes[t, b, column + net.flat[i] - net.first[p]] = x


@kernel
def score(net: Packed, work: Work, out: Out, t: int, b: int, count: int, since: int) -> None:
    """One step of the readout. since: steps since its window began."""
    lo, hi = net.first[net.output], net.first[net.output + 1]
    if net.readout == COUNT:
        for e in range(count):
            if lo <= work.events[e] < hi:
                out.scores[b, net.flat[work.events[e]] - lo] += 1
        return
    for i in range(lo, hi):
        x, o = whole(work.v[i], net.value[i]), net.flat[i] - lo
        if net.readout == SUM:
            out.scores[b, o] += x
        elif net.readout == LAST or since == 0:
            out.scores[b, o] = x
        else:
            out.scores[b, o] = max(out.scores[b, o], x)


@kernel
def simulate_samples(net: Packed, work: Work, out: Out, dense: Bytes, steps: int, depth: int, lo: int, hi: int) -> None:
    """Samples lo..hi-1 of dense [steps, batch, inputs], each from the start, for ``steps`` steps."""
    inputs, n, none = net.first[1], net.alpha.size, I64(0)
    synops, sent = out.booked[0].reshape(-1), out.booked[1].reshape(-1)
    packets, hops = out.booked[2].reshape(-1), out.booked[3].reshape(-1)
    for b in range(lo, hi):
        for i in range(n):
            work.v[i], work.exc[i], work.inh[i] = net.init[i], F32(0), F32(0)
        for i in range(work.sums.size):
            work.sums[i] = 0
        for t in range(steps):
            update(
                *(inputs, n, work.v, work.exc, work.inh, work.sums, t % net.slots * net.width, net.alpha),
                *(net.offset, net.threshold, net.reset, net.keep_exc, net.keep_inh, net.subtract, net.current),
                work.fired,
            )
            enter(dense, t, b, work.fired)
            count = collect(work.words, none, I64(work.words.size // 8), work.events, none)
            now = (t + 1) % net.slots * net.width
            spread(work.sums, net.slots * net.width, now, work.events, none, count, net.blocks)
            at = (b * steps + t) * out.booked.shape[3]
            entered = book(net.costs, work.events, count, synops, sent, packets, hops, at, inputs)
            out.injected[b, t] = entered
            if out.spikes.size > 0:
                for e in range(U(entered), U(count)):
                    out.spikes[t, b, net.flat[work.events[U(e)]] - inputs] = 1
            for p in range(1, net.first.size - 1):
                note(net, work, out, p, t, b)
            if t >= depth:
                score(net, work, out, t, b, count, t - depth)


def work_of(net: Packed) -> Work:
    """Zeroed room for one sample."""
    n = net.alpha.size
    v, exc, inh = (np.zeros(n, np.float32) for _ in range(3))
    words = np.zeros(-(-n // 64) * 8, np.uint64)
    return Work(v, exc, inh, v.view(np.int32), exc.view(np.int32), inh.view(np.int32),
                np.zeros(net.slots * net.width, np.int32), words, words.view(np.uint8),
                np.zeros(n + AHEAD, np.int32))  # fmt: skip


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
        booked=np.zeros((4, batch, steps, program.placement.cores), np.int64),
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
    synops, sent, packets, hops = out.booked
    memory = synops * (CHIP.limit("synapse_word") // 8)
    updates = np.broadcast_to(net.updates, synops.shape)
    counters = Counters(synops, updates, sent, packets, hops, memory, out.injected)
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
