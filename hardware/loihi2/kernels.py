"""Loihi 2 as Lava 0.10.0 computes it, bit for bit: the compiled loops and `run`.

One step of a population, with a the sum of what its projections deliver: neurons.py. A projection delivers in step
t + 1 (+ delay) for what was sent in step t, s being 1 for a spike or, where messages are graded, their value:

    dense, sparse   sum of weight s << weight_exp, or the whole sum >> -weight_exp (floor), per delay
    conv            sum of weight s, wrapped to 24 bits in two's complement

All of it modulo 2^32 in int32, as NumPy does it inside Lava (sums of a DelayDense with graded messages: int64 until
they are shifted). What the parameters are: contract.py.

Counters. A spike is a message that is not zero. Everything it causes is booked in the step in which it is sent:
synapses reached, per target core (for inputs too); one packet per core with such a synapse, its own core included;
the links from core to core, Manhattan distance on the mesh, none to its own. Inputs send no packets, they are
``injected``. Every neuron is updated in every step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuro.errors import SimulationError
from neuro.extend import did_you_mean
from neuro.hardware.loihi2 import learning
from neuro.hardware.loihi2.delivery import deliver
from neuro.hardware.loihi2.layers import CHIP
from neuro.hardware.loihi2.models import VARIABLES, input_range
from neuro.hardware.loihi2.neurons import update
from neuro.hardware.loihi2.others import run_others, start_others, step
from neuro.hardware.loihi2.packed import (
    ARC,
    BIAS,
    BLOCK,
    FIRST,
    KEEP_U,
    KEEP_V,
    LAG,
    SOURCE,
    STAGE,
    THRESHOLD,
    TILE,
    TILED,
    WIDE,
    Packed,
    aligned,
    names_of,
    pack,
    plastic_of,
)
from neuro.hardware.loihi2.plastic import learned_of
from neuro.hardware.loihi2.record import (
    A_ROW,
    AHEAD,
    B_ROW,
    BEGIN,
    COUNT,
    END,
    NOT_BINARY,
    TOO_SHORT,
    U_ROW,
    V_ROW,
    W_ROW,
    X_ROW,
    Messages,
    Others,
    Out,
    Work,
    enter,
    score,
    settle,
    write,
)
from neuro.hardware.loihi2.stream import room
from neuro.hardware.loihi2.tiles import run_layer
from neuro.hardware.program import Program
from neuro.hardware.spikes import collect
from neuro.hardware.threads import available as _threads
from neuro.hardware.threads import over_pieces
from neuro.hardware.trace import Counters, Trace
from neuro.jit import kernel, piece

__all__ = ["ROW", "collect", "run", "simulate_samples", "step", "update", "work_of"]
MEMBRANE = "v"  # of any model, by whatever name: what a readout reads
ROW = {"u": U_ROW, "v": V_ROW, "a": A_ROW, "sigma": U_ROW, "act": V_ROW, "residue": W_ROW, "error": X_ROW}
ROW |= {"imag": U_ROW, "real": V_ROW, "a_imag": B_ROW}

I64: Any = np.int64  # what it makes is an int to mypy
U = np.uintp  # as in delivery.py
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Bytes = NDArray[np.uint8]


@piece
def start(net: Packed, work: Work, out: Out, dense: Bytes, b: int, depth: int) -> int:
    """Everything at rest, and the input of sample b as events; how many, or TOO_SHORT, or NOT_BINARY."""
    table, u, v, a, span, events = net.populations, work.u, work.v, work.a, work.span, work.events
    for i in range(u.size):
        u[i], v[i], a[i] = 0, 0, 0
    for k in range(out.scores.shape[1]):
        out.scores[b, U(k)] = 0
    for row in range(out.booked.shape[0]):
        for t in range(out.booked.shape[2]):
            for core in range(out.booked.shape[3]):
                out.booked[U(row), b, U(t), U(core)] = 0
    used = enter(dense, b, work.fired, work.flags, out.entered, events, span, out.injected)
    if used >= 0:
        since = depth if net.output == 0 else span.shape[1]
        everything = out.booked, out.spikes, out.scores, since, b
        settle(events, span, I64(0), table, net.neurons, net.fan, net.fans, *everything)
    return used


@piece
def run_stage(net: Packed, work: Work, out: Out, stage: int, b: int, used: int, depth: int) -> int:
    """All steps of the populations of a stage of sample b, step by step; events go to work.events from ``used`` on,
    whose new end it returns, or TOO_SHORT."""
    table, arcs, neurons, span, events = net.populations, net.arcs, net.neurons, work.span, work.events
    u, v, a, registers, columns, probes = work.u, work.v, work.a, net.registers, out.columns, out.probes
    keep_u, keep_v, bias, threshold = registers[KEEP_U], registers[KEEP_V], registers[BIAS], registers[THRESHOLD]
    for t in range(span.shape[1]):
        for p in range(table[STAGE, stage], table[STAGE, stage + 1]):
            lo, hi = table[FIRST, p], table[FIRST, p + 1]
            for arc in range(table[ARC, p], table[ARC, p + 1]):
                source, then = arcs[SOURCE, arc], t - arcs[LAG, arc]
                if then >= 0 and span[source, then, END] > span[source, then, BEGIN]:
                    begin, end = span[source, then, BEGIN], span[source, then, END]
                    deliver(net, arc, a, work.part, lo, hi, events, begin, end)
            n = hi - lo
            write(neurons, lo, n, a, lo, probes, t, b, columns[A_ROW, p])
            update(lo, hi, u, v, a, keep_u, keep_v, bias, threshold, work.fired, 64 * table[BLOCK, p])
            write(neurons, lo, n, u, lo, probes, t, b, columns[U_ROW, p])
            write(neurons, lo, n, v, lo, probes, t, b, columns[V_ROW, p])
            if used + n > events.size - AHEAD:
                return TOO_SHORT
            span[p, t, BEGIN] = used
            used = collect(work.flags, table[BLOCK, p], table[BLOCK, p + 1], events, used)
            span[p, t, END] = used
            if p == net.output and net.readout != COUNT and t >= depth:
                score(net.readout, neurons, lo, n, v, lo, t - depth, out.scores, b)
    for p in range(table[STAGE, stage], table[STAGE, stage + 1]):
        since = depth if p == net.output and net.readout == COUNT else span.shape[1]
        everything = out.booked, out.spikes, out.scores, since, b
        settle(events, span, p, table, neurons, net.fan, net.fans, *everything)
    return used


@kernel
def simulate_samples(
    net: Packed, work: Work, out: Out, dense: Bytes, values: Int32 | None, depth: int, begin: int, end: int
) -> int:
    """Samples begin..end-1 of a batch from rest; returns the first that work.events is too short for, or end, or
    NOT_BINARY. dense: [length, batch, inputs] of 0 and 1. values: None where there is nothing but LIF and spikes, and
    the compiler then leaves out all the rest; else [length, batch, inputs], what a graded input carries, or empty."""
    for b in range(begin, end):
        used = start(net, work, out, dense, b, depth)
        if values is not None and used >= 0:
            start_others(net, work, values, b)
        for stage in range(net.stages):
            if used < 0:
                break
            if values is not None:
                used = run_others(net, work, out, stage, b, used, depth)
            elif net.populations[TILED, net.populations[STAGE, stage]] == 1:
                used = run_layer(net, work, out, net.populations[STAGE, stage], b, used, depth)
            else:
                used = run_stage(net, work, out, stage, b, used, depth)
        if used < 0:
            return b if used == TOO_SHORT else used
    return end


def work_of(net: Packed, steps: int, capacity: int) -> Work:
    """Room for samples of so many steps, with space for ``capacity`` spikes."""
    neurons = int(net.first[-1])
    span = np.zeros((net.first.size - 1, steps, 2), np.int64)
    flags = np.zeros(8 * int(net.block[-1]), np.uint64)
    widest = int((np.diff(net.block) * net.tiled).max())  # blocks
    rows = np.zeros(8 * widest * steps, np.uint64)
    others = None
    if net.rules is not None:
        payload = np.zeros(capacity if net.graded.any() else 0, np.int32)
        wide = np.zeros(neurons if net.arcs[WIDE].any() else 0, np.int64)
        a, b, c, d = (np.zeros(neurons, np.int32) for _ in range(4))
        others = Others(payload, a, b, c, d, wide, learned_of(net.rules))
    a, b, c, d = (np.zeros(neurons, np.int32) for _ in range(4))
    lanes, short = aligned(np.zeros(7 * TILE, np.int32)), aligned(np.zeros(TILE, np.int16))
    fired = np.empty(capacity + AHEAD, np.int32)
    return Work(span, fired, a, b, c, d, flags.view(np.uint8), flags, lanes, short, rows.view(np.uint8), rows, others)


def _simulate(
    net: Packed, out: Out, dense: Bytes, values: Int32 | None, depth: int, pieces: Iterator[tuple[int, int]]
) -> None:
    """Samples begin..end-1 of each piece, until none is left; with more room where there was too little.

    Raises:
        SimulationError: dense holds anything but 0 and 1.
    """
    steps = out.injected.shape[1]
    work = work_of(net, steps, max(1 << 16, 4 * int(net.first[-1])) + 1)
    for piece_begin, end in pieces:
        begin = piece_begin
        while begin < end:
            begin = simulate_samples(net, work, out, dense, values, depth, begin, end)
            if begin == NOT_BINARY:
                _check_dense(dense, 0, 1)
            if begin < end:
                if out.others is not None:
                    out.others.messages[:, begin : begin + 1] = 0  # what the broken-off sample has left there
                work = work_of(net, steps, 2 * (work.events.size - AHEAD))


def _check_shape(dense: NDArray[Any], inputs: int) -> None:
    """Kernels trust what they are given."""
    if dense.ndim != 3 or dense.shape[2] != inputs or 0 in dense.shape:
        raise SimulationError(f"dense must be [steps, batch, {inputs}], none of them 0, got shape {dense.shape}")


def _check_dense(dense: NDArray[Any], low: int, high: int) -> None:
    if dense.dtype.kind not in "bui" or int(dense.min()) < low or int(dense.max()) > high:
        held = "0 and 1" if (low, high) == (0, 1) else f"{low}..{high}"
        raise SimulationError(f"dense must hold integers {held}, got {dense.dtype} {dense.min()}..{dense.max()}")


def run(
    program: Program,
    dense: NDArray[Any],
    probes: tuple[tuple[str, str], ...] = (),
    record_spikes: bool = True,
) -> Trace:
    """Simulate a batch, samples in parallel threads (NUMBA_NUM_THREADS, default: the processors at hand).

    dense: integers [steps, batch, inputs], 0 and 1 or of the input's range; runs for steps + program.depth steps,
    silent at the end. probes: (population, variable), variables as in `models.VARIABLES`, a being what arrives
    before it is shifted, and "v" of any model what a readout reads of it; (plastic projection, variable of
    `learning.VARIABLES`). Without ``record_spikes`` the trace has no spikes, only counters, scores and probes; those
    of a population that sends graded messages are int32.

    Raises:
        SimulationError: the program breaks the contract, dense is not that, or a probe does not exist.
    """
    net = pack(program)
    names = names_of(program)
    low, high = input_range(program.populations[program.input])
    _check_shape(dense, program.populations[program.input].size)
    if net.graded[0] or dense.dtype not in (np.uint8, np.bool_):  # else `enter` sees to it, in every thread
        _check_dense(dense, low, high)
    columns = np.full((len(set(ROW.values())), len(names)), -1, np.int64)
    teachable = plastic_of(program)
    learned = np.full((len(teachable), len(learning.VARIABLES)), -1, np.int64)
    width, found = 0, {}
    for name, variable in dict.fromkeys(probes):
        table, at, size = _probe(program, name, variable)
        (learned if table else columns)[at] = width
        found[name, variable] = (width, width + size)
        width += size
    sent = [bool(g) and n != program.input for n, g in zip(names, net.graded, strict=True)]
    sizes = [program.populations[n].size * s for n, s in zip(names, sent, strict=True)]
    column = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    length, batch, inputs = dense.shape
    steps, neurons = length + program.depth, int(net.first[-1]) - inputs
    others = None
    if net.rules is not None:
        drawn = [learning.draws(p, steps) for p in teachable]
        draws = np.stack(drawn) if drawn else np.zeros((0, 5, 0), np.int64)
        shape = (steps, batch, int(column[-1])) if record_spikes else (0, 0, 0)
        others = Messages(column, learned, draws, np.zeros(shape, np.int32))
    out = Out(
        columns=columns,
        spikes=room((batch, steps, neurons) if record_spikes else (0, 0, 0)),
        entered=room((batch, steps, inputs) if record_spikes and not net.graded[0] else (0, 0, 0)),
        probes=np.zeros((steps, batch, width), np.int32),
        scores=np.empty((batch, program.populations[program.output].size), np.int64),
        booked=np.empty((4, batch, steps, program.placement.cores), np.int64),
        injected=np.empty((batch, steps), np.int64),
        others=others,
    )
    values = None if net.rules is None else np.zeros((0, 0, 0), np.int32)
    if net.graded[0]:
        values = np.ascontiguousarray(dense, np.int32)
        dense = dense != 0
    entered = np.ascontiguousarray(dense).astype(np.uint8, copy=False)
    depth = program.depth
    over_pieces(min(_threads(), batch), batch, lambda pieces: _simulate(net, out, entered, values, depth, pieces))

    spikes: dict[str, NDArray[Any]] = {}
    if record_spikes:
        spikes[program.input] = out.entered.transpose(1, 0, 2)
        if values is not None and net.graded[0]:
            spikes[program.input] = np.zeros((steps, batch, inputs), np.int32)
            spikes[program.input][:length] = values
        for i, name in enumerate(names[1:], 1):
            if net.graded[i] and others is not None:
                spikes[name] = others.messages[:, :, column[i] : column[i + 1]]
            else:
                spikes[name] = out.spikes[:, :, net.first[i] - inputs : net.first[i + 1] - inputs].transpose(1, 0, 2)
    probed = {key: out.probes[:, :, begin:end] for key, (begin, end) in found.items()}
    updates = np.broadcast_to(net.updates, out.booked.shape[1:])
    synops, sent, packets, hops = out.booked
    entry = CHIP.limit("synapse_entry")  # bits
    read = synops if entry == 8 else synops * entry // 8  # bytes
    return Trace(
        chip=program.chip,
        dt=program.dt,
        spikes=spikes,
        probes=probed,
        counters=Counters(synops, updates, sent, packets, hops, read, out.injected),
        scores=out.scores,
    )


def _probe(program: Program, name: str, variable: str) -> tuple[bool, tuple[int, int], int]:
    """Where a probe's column is written: (of a projection, (row, column) of ``learned`` or ``columns``, its size)."""
    teachable = {p.name: k for k, p in enumerate(plastic_of(program))}
    stateful = [n for n, p in program.populations.items() if p.model != "input"]
    if name in teachable and name not in stateful:
        weight = plastic_of(program)[teachable[name]].weight_q
        sizes = dict(zip(learning.VARIABLES, (weight.size, weight.shape[1], weight.shape[0]), strict=True))
        if variable not in sizes:
            raise SimulationError(f"cannot probe '{variable}' of '{name}'; a projection has {', '.join(sizes)}")
        return True, (teachable[name], learning.VARIABLES.index(variable)), sizes[variable]
    if name not in stateful:
        raise SimulationError(f"no population '{name}' with a state to probe. {did_you_mean(name, stateful)}")
    known = VARIABLES[program.populations[name].model]
    if variable not in (*known, MEMBRANE):
        held = ", ".join(known)
        raise SimulationError(f"cannot probe '{variable}' of '{name}'; a Loihi 2 neuron of its kind has {held}")
    return False, (ROW[variable], names_of(program).index(name)), program.populations[name].size
