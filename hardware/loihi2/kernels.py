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
from neuro.hardware.loihi2.delivery import deliver, deliver_graded
from neuro.hardware.loihi2.layers import CHIP
from neuro.hardware.loihi2.models import VARIABLES, input_range
from neuro.hardware.loihi2.neurons import (
    LIF,
    RF,
    RF_IZ,
    SIGMA,
    TERNARY,
    update,
    update_resonator,
    update_sigma,
    update_sigma_delta,
    update_ternary,
)
from neuro.hardware.loihi2.packed import PLAIN, PLASTIC, TILE, Packed, names_of, pack, plain, plastic_of
from neuro.hardware.loihi2.plastic import deliver_plastic, learn, learned_of, reset, write_learned
from neuro.hardware.loihi2.record import (
    A_ROW,
    AHEAD,
    B_ROW,
    U_ROW,
    V_ROW,
    W_ROW,
    X_ROW,
    Out,
    Work,
    book_population,
    clear,
    collect,
    settle,
    take_row,
    write,
)
from neuro.hardware.loihi2.tiles import run_layer
from neuro.hardware.program import Program
from neuro.hardware.threads import available as _threads
from neuro.hardware.threads import over_pieces
from neuro.hardware.trace import Counters, Trace
from neuro.jit import kernel, piece

MEMBRANE = "v"  # of any model, by whatever name: what a readout reads
ROW = {"u": U_ROW, "v": V_ROW, "a": A_ROW, "sigma": U_ROW, "act": V_ROW, "residue": W_ROW, "error": X_ROW}
ROW |= {"imag": U_ROW, "real": V_ROW, "a_imag": B_ROW}

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Bytes = NDArray[np.uint8]


@kernel
def step_other(net: Packed, work: Work, p: int) -> None:
    """One step of a population that is not LIF."""
    lo, hi, first, model = net.first[p], net.first[p + 1], 64 * net.block[p], net.model[p]
    u, v, a, sent, fired = work.u, work.v, work.a, work.sent, work.fired
    keep_u, keep_v, bias, threshold, extra = net.keep_u, net.keep_v, net.bias, net.threshold, net.extra
    if model == TERNARY:
        update_ternary(lo, hi, u, v, a, keep_u, keep_v, bias, threshold, extra, sent, fired, first)
    elif model == SIGMA:
        update_sigma(lo, hi, u, a, sent, fired, first)
        for i in range(lo, hi):
            v[i] = u[i]  # a readout reads v
    elif model == RF or model == RF_IZ:  # noqa: PLR1714, SIM109  # a kernel compares numbers
        resets = model == RF_IZ
        update_resonator(lo, hi, u, v, a, work.b, keep_u, keep_v, bias, threshold, extra, resets, fired, first)
    else:
        w, x = work.w, work.x
        update_sigma_delta(lo, hi, u, v, w, x, a, keep_u, keep_v, bias, threshold, extra, sent, fired, first)


@kernel
def step(net: Packed, work: Work, p: int, t: int) -> None:
    """Step t, counted from 0, of a population of any model, whose input stands in work.a (and work.b)."""
    lo, hi, first = net.first[p], net.first[p + 1], 64 * net.block[p]
    if net.model[p] == LIF:
        if net.period[p] > 0 and (t + 1) % net.period[p] == net.phase[p]:
            for i in range(lo, hi):
                work.u[i], work.v[i] = 0, 0
        registers = net.keep_u, net.keep_v, net.bias, net.threshold
        update(lo, hi, work.u, work.v, work.a, *registers, work.fired, first)
    else:
        step_other(net, work, p)


@kernel
def step_and_write(net: Packed, work: Work, out: Out, p: int, t: int, b: int) -> None:
    """`step`, and what only some models have into the probes."""
    lo, hi = net.first[p], net.first[p + 1]
    if work.w.size > 0:
        write(net, lo, hi, work.b, out.probes, t, b, out.columns[B_ROW, p])
    step(net, work, p, t)
    if work.w.size > 0:
        write(net, lo, hi, work.w, out.probes, t, b, out.columns[W_ROW, p])
        write(net, lo, hi, work.x, out.probes, t, b, out.columns[X_ROW, p])


@kernel
def reset_others(net: Packed, work: Work) -> None:
    """To rest what only some models have."""
    for i in range(work.w.size):
        work.w[i], work.x[i], work.b[i] = 0, 0, 0
    reset(net.rules, work.learned)


@kernel
def arrive_graded(net: Packed, work: Work, arc: int, lo: int, hi: int, begin: int, end: int) -> None:
    """What an arc brings that has payloads, or ends at an imaginary port."""
    into = work.b if net.arc_port[arc] == 1 else work.a
    if net.arc_graded[arc] == 1:
        deliver_graded(net, arc, into, work.part, work.wide, lo, hi, work.events, work.payload, begin, end)
    else:
        deliver(net, arc, into, work.part, lo, hi, work.events, begin, end)


@kernel
def arrive_plastic(net: Packed, work: Work, out: Out, arc: int, p: int, t: int, b: int, brings: bool) -> None:
    """What a plastic arc brings in step t of population p, then what step t - 1 has taught it."""
    k, source, then, lo, hi = net.arc_rule[arc], net.arc_source[arc], t - 1, net.first[p], net.first[p + 1]
    begin, end = work.start[source, then], work.stop[source, then]
    if brings:
        deliver_plastic(net.rules, work.learned, k, work.a, lo, hi, work.events, begin, end)
    post_begin, post_end = work.start[p, then], work.stop[p, then]
    events, learned = work.events, work.learned
    learn(net.rules, learned, out.draws, k, t, events, begin, end, events, post_begin, post_end)
    write_learned(net.rules, learned, k, out.learned[k], out.probes, then, b)


@kernel
def arrive_other(net: Packed, work: Work, out: Out, arc: int, p: int, t: int, b: int) -> None:
    """What an arc brings in step t that is not PLAIN."""
    source, then = net.arc_source[arc], t - net.arc_lag[arc]
    if then < 0:
        return
    begin, end = work.start[source, then], work.stop[source, then]
    if net.arc_kind[arc] == PLASTIC:
        arrive_plastic(net, work, out, arc, p, t, b, True)
    elif end > begin:
        arrive_graded(net, work, arc, net.first[p], net.first[p + 1], begin, end)


@piece
def simulate_sample(net: Packed, work: Work, out: Out, dense: Bytes, values: Int32 | None, depth: int, b: int) -> bool:
    """Sample b from rest. dense: [length, batch, inputs] of 0 and 1. values: None where there is nothing but
    LIF and spikes, and the compiler then leaves out all the rest; else [length, batch, inputs], what a graded input
    carries, or empty. False: work.events is too short for it."""
    steps, inputs = out.injected.shape[1], net.first[1]
    events, u, v, a = work.events, work.u, work.v, work.a
    for i in range(u.size):
        u[i], v[i], a[i] = 0, 0, 0
    if values is not None:
        reset_others(net, work)
    if out.spikes.size > 0:
        clear(net.tiled, net.first, out.spikes, out.entered, dense.shape[0], b)
    used = 0
    for t in range(steps):
        if used + inputs > events.size - AHEAD:
            return False
        begin = used
        if t < dense.shape[0]:
            take_row(dense, t, b, work.fired, out.entered)
            used = collect(work.flags, 0, net.block[1], events, used)
        if values is not None and values.size > 0:
            for e in range(begin, used):
                work.payload[e] = values[t, b, events[e]]
        out.injected[b, t] = used - begin
        settle(net, work, out, 0, b, t, begin, used, t - depth, False)
    book_population(net, work, out, 0, b, 0, steps)
    for s in range(net.stage.size - 1):
        if values is None and net.tiled[net.stage[s]] == 1:
            used = run_layer(net, work, out, net.stage[s], b, used, depth)
            if used < 0:
                return False
            continue
        for t in range(steps):
            for p in range(net.stage[s], net.stage[s + 1]):
                lo, hi = net.first[p], net.first[p + 1]
                for arc in range(net.arc[p], net.arc[p + 1]):
                    source, then = net.arc_source[arc], t - net.arc_lag[arc]
                    if values is not None and net.arc_kind[arc] != PLAIN:
                        arrive_other(net, work, out, arc, p, t, b)
                    elif then >= 0 and work.stop[source, then] > work.start[source, then]:
                        begin, end = work.start[source, then], work.stop[source, then]
                        deliver(net, arc, a, work.part, lo, hi, events, begin, end)
                write(net, lo, hi, a, out.probes, t, b, out.columns[A_ROW, p])
                if values is None:
                    registers = net.keep_u, net.keep_v, net.bias, net.threshold
                    update(lo, hi, u, v, a, *registers, work.fired, 64 * net.block[p])
                else:
                    step_and_write(net, work, out, p, t, b)
                write(net, lo, hi, u, out.probes, t, b, out.columns[U_ROW, p])
                write(net, lo, hi, v, out.probes, t, b, out.columns[V_ROW, p])
                if used + hi - lo > events.size - AHEAD:
                    return False
                begin = used
                used = collect(work.flags, net.block[p], net.block[p + 1], events, used)
                if values is not None and net.graded[p] == 1:
                    for e in range(begin, used):
                        work.payload[e] = work.sent[lo + events[e]]
                settle(net, work, out, p, b, t, begin, used, t - depth, False)
        for p in range(net.stage[s], net.stage[s + 1]):
            book_population(net, work, out, p, b, 0, steps)
        if values is not None:
            for p in range(net.stage[s], net.stage[s + 1]):
                for arc in range(net.arc[p], net.arc[p + 1]):
                    if net.arc_kind[arc] == PLASTIC:  # what the last step teaches
                        arrive_plastic(net, work, out, arc, p, steps, b, False)
    return True


@kernel
def simulate_samples(
    net: Packed, work: Work, out: Out, dense: Bytes, values: Int32 | None, depth: int, begin: int, end: int
) -> int:
    """Samples begin..end-1 of a batch; returns the first that work.events is too short for, or end."""
    for b in range(begin, end):
        if not simulate_sample(net, work, out, dense, values, depth, b):
            return b
    return end


def work_of(net: Packed, steps: int, capacity: int) -> Work:
    """Zeroed room for samples of so many steps, with space for ``capacity`` spikes."""
    populations, neurons = net.first.size - 1, int(net.first[-1])
    start, stop = (np.zeros((populations, steps), np.int64) for _ in range(2))
    u, v, a, part = (np.zeros(neurons, np.int32) for _ in range(4))
    others = neurons if net.graded.any() or (net.model != LIF).any() else 0
    w, x, b, sent = (np.zeros(others, np.int32) for _ in range(4))
    wide = np.zeros(neurons if net.arc_wide.any() else 0, np.int64)
    payload = np.zeros(capacity if net.graded.any() else 0, np.int32)
    flags = np.zeros(8 * int(net.block[-1]), np.uint64)
    widest = int((np.diff(net.block) * net.tiled).max())  # blocks
    rows = np.zeros(8 * widest * steps, np.uint64)
    lanes = np.zeros(7 * TILE, np.int32)
    events = np.zeros(capacity + AHEAD, np.int32)
    state = learned_of(net.rules)
    tiled = lanes, np.zeros(TILE, np.int16), rows.view(np.uint8), rows
    held = events, payload, u, v, a, part, w, x, b, sent, wide, flags.view(np.uint8), flags
    return Work(start, stop, *held, state, *tiled)


def _simulate(
    net: Packed, out: Out, dense: Bytes, values: Int32 | None, depth: int, pieces: Iterator[tuple[int, int]]
) -> None:
    """Samples begin..end-1 of each piece, until none is left; with more room where there was too little."""
    steps = out.injected.shape[1]
    work = work_of(net, steps, max(1 << 16, 4 * int(net.first[-1])) + 1)
    for piece_begin, end in pieces:
        begin = piece_begin
        while begin < end:
            begin = simulate_samples(net, work, out, dense, values, depth, begin, end)
            if begin < end:
                left: tuple[NDArray[Any], ...] = (out.spikes[:, begin : begin + 1], out.messages[:, begin : begin + 1])
                for counted in (*left, out.scores[begin], out.booked[:, begin]):
                    counted[...] = 0  # what the broken-off sample has left there
                work = work_of(net, steps, 2 * (work.events.size - AHEAD))


def _check_dense(dense: NDArray[Any], inputs: int, low: int, high: int) -> None:
    """Kernels trust what they are given."""
    if dense.ndim != 3 or dense.shape[2] != inputs or 0 in dense.shape:
        raise SimulationError(f"dense must be [steps, batch, {inputs}], none of them 0, got shape {dense.shape}")
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
    _check_dense(dense, program.populations[program.input].size, low, high)
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
    drawn = [learning.draws(p, steps) for p in teachable]
    out = Out(
        columns=columns,
        column=column,
        learned=learned,
        draws=np.stack(drawn) if drawn else np.zeros((0, 5, 0), np.int64),
        spikes=np.empty((steps, batch, neurons) if record_spikes else (0, 0, 0), np.uint8),
        entered=np.empty((steps, batch, inputs) if record_spikes and not net.graded[0] else (0, 0, 0), np.uint8),
        messages=np.zeros((steps, batch, int(column[-1])) if record_spikes else (0, 0, 0), np.int32),
        probes=np.zeros((steps, batch, width), np.int32),
        scores=np.zeros((batch, program.populations[program.output].size), np.int64),
        booked=np.zeros((4, batch, steps, program.placement.cores), np.int64),
        injected=np.zeros((batch, steps), np.int64),
    )
    values = None if plain(net) else np.zeros((0, 0, 0), np.int32)
    if net.graded[0]:
        values = np.ascontiguousarray(dense, np.int32)
        dense = dense != 0
    entered = np.ascontiguousarray(dense).astype(np.uint8, copy=False)
    depth = program.depth
    over_pieces(min(_threads(), batch), batch, lambda pieces: _simulate(net, out, entered, values, depth, pieces))

    spikes: dict[str, NDArray[Any]] = {}
    if record_spikes:
        spikes[program.input] = out.entered
        if values is not None and net.graded[0]:
            spikes[program.input] = np.zeros((steps, batch, inputs), np.int32)
            spikes[program.input][:length] = values
        for i, name in enumerate(names[1:], 1):
            if net.graded[i]:
                spikes[name] = out.messages[:, :, column[i] : column[i + 1]]
            else:
                spikes[name] = out.spikes[:, :, net.first[i] - inputs : net.first[i + 1] - inputs]
    probed = {key: out.probes[:, :, begin:end] for key, (begin, end) in found.items()}
    updates = np.broadcast_to(net.updates, out.booked.shape[1:])
    synops, sent, packets, hops = out.booked
    entry = CHIP.limit("synapse_entry")  # bits
    return Trace(
        chip=program.chip,
        dt=program.dt,
        spikes=spikes,
        probes=probed,
        counters=Counters(synops, updates, sent, packets, hops, synops * entry // 8, out.injected),
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
