"""What only some networks have, compiled where a program is not `packed.plain`: neurons beyond LIF, resets, messages
with values, learning."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.loihi2.delivery import deliver, deliver_graded
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
from neuro.hardware.loihi2.packed import (
    ARC,
    BIAS,
    BLOCK,
    CARRIES,
    EXTRA,
    FIRST,
    FLAT,
    GRADED,
    KEEP_U,
    KEEP_V,
    KIND,
    LAG,
    MODEL,
    PERIOD,
    PHASE,
    PLASTIC,
    PORT,
    RULE,
    SOURCE,
    STAGE,
    THRESHOLD,
    Packed,
)
from neuro.hardware.loihi2.plastic import deliver_plastic, learn, reset, write_learned
from neuro.hardware.loihi2.record import (
    A_ROW,
    AHEAD,
    B_ROW,
    BEGIN,
    COUNT,
    END,
    TOO_SHORT,
    U_ROW,
    V_ROW,
    W_ROW,
    X_ROW,
    Out,
    Work,
    score,
    settle,
    write,
)
from neuro.hardware.spikes import collect
from neuro.jit import kernel

U = np.uintp  # as in delivery.py
Int32 = NDArray[np.int32]


@kernel
def step(net: Packed, work: Work, p: int, t: int) -> None:
    """Step t, counted from 0, of a population of any model, whose input stands in work.a (and work.b)."""
    table, registers, others = net.populations, net.registers, work.others
    lo, hi, first, model = table[FIRST, p], table[FIRST, p + 1], 64 * table[BLOCK, p], table[MODEL, p]
    u, v, a, b, sent, fired = work.u, work.v, work.a, others.b, others.sent, work.fired
    keep_u, keep_v, bias = registers[KEEP_U], registers[KEEP_V], registers[BIAS]
    threshold, extra = registers[THRESHOLD], registers[EXTRA]
    if model == LIF:
        if table[PERIOD, p] > 0 and (t + 1) % table[PERIOD, p] == table[PHASE, p]:
            for i in range(lo, hi):
                u[i], v[i] = 0, 0
        update(lo, hi, u, v, a, keep_u, keep_v, bias, threshold, fired, first)
    elif model == TERNARY:
        update_ternary(lo, hi, u, v, a, keep_u, keep_v, bias, threshold, extra, sent, fired, first)
    elif model == SIGMA:
        update_sigma(lo, hi, u, a, sent, fired, first)
        for i in range(lo, hi):
            v[i] = u[i]  # a readout reads v
    elif model == RF or model == RF_IZ:  # noqa: PLR1714, SIM109  # a kernel compares numbers
        resets = model == RF_IZ
        update_resonator(lo, hi, u, v, a, b, keep_u, keep_v, bias, threshold, extra, resets, fired, first)
    else:
        w, x = others.w, others.x
        update_sigma_delta(lo, hi, u, v, w, x, a, keep_u, keep_v, bias, threshold, extra, sent, fired, first)


@kernel
def arrive_graded(net: Packed, work: Work, arc: int, lo: int, hi: int, begin: int, end: int) -> None:
    """What an arc brings that has payloads, or ends at an imaginary port."""
    others = work.others
    into = others.b if net.arcs[PORT, arc] == 1 else work.a
    if net.arcs[CARRIES, arc] == 1:
        payload = others.payload
        deliver_graded(net, arc, into, work.part, others.wide, lo, hi, work.events, payload, begin, end)
    else:
        deliver(net, arc, into, work.part, lo, hi, work.events, begin, end)


@kernel
def arrive_plastic(net: Packed, work: Work, out: Out, arc: int, p: int, t: int, b: int, brings: bool) -> None:
    """What a plastic arc brings in step t of population p, then what step t - 1 has taught it."""
    k, source, then = net.arcs[RULE, arc], net.arcs[SOURCE, arc], t - 1
    lo, hi, span, others = net.populations[FIRST, p], net.populations[FIRST, p + 1], work.span, out.others
    events, learned = work.events, work.others.learned
    begin, end = span[source, then, BEGIN], span[source, then, END]
    if brings:
        deliver_plastic(net.rules, learned, k, work.a, lo, hi, events, begin, end)
    post_begin, post_end = span[p, then, BEGIN], span[p, then, END]
    learn(net.rules, learned, others.draws, k, t, events, begin, end, events, post_begin, post_end)
    write_learned(net.rules, learned, k, others.learned[k], out.probes, then, b)


@kernel
def arrive(net: Packed, work: Work, out: Out, arc: int, p: int, t: int, b: int) -> None:
    """What an arc of any kind brings in step t of population p."""
    source, then = net.arcs[SOURCE, arc], t - net.arcs[LAG, arc]
    if then < 0:
        return
    begin, end = work.span[source, then, BEGIN], work.span[source, then, END]
    if net.arcs[KIND, arc] == PLASTIC:
        arrive_plastic(net, work, out, arc, p, t, b, True)
    elif end > begin:
        arrive_graded(net, work, arc, net.populations[FIRST, p], net.populations[FIRST, p + 1], begin, end)


@kernel
def start_others(net: Packed, work: Work, values: Int32, b: int) -> None:
    """To rest what only some models have; and what a graded input carries, values [length, batch, inputs] or empty."""
    others = work.others
    for i in range(others.w.size):
        others.w[i], others.x[i], others.b[i] = 0, 0, 0
    reset(net.rules, others.learned)
    if values.size > 0:
        for t in range(values.shape[0]):
            for e in range(work.span[0, t, BEGIN], work.span[0, t, END]):
                others.payload[e] = values[t, b, work.events[e]]


@kernel
def run_others(net: Packed, work: Work, out: Out, stage: int, b: int, used: int, depth: int) -> int:
    """`kernels.run_stage` of populations of any kind."""
    table, span, events, others, columns = net.populations, work.span, work.events, work.others, out.columns
    neurons, probes = net.neurons, out.probes
    for t in range(span.shape[1]):
        for p in range(table[STAGE, stage], table[STAGE, stage + 1]):
            lo, n = table[FIRST, p], table[FIRST, p + 1] - table[FIRST, p]
            for arc in range(table[ARC, p], table[ARC, p + 1]):
                arrive(net, work, out, arc, p, t, b)
            write(neurons, lo, n, work.a, lo, probes, t, b, columns[A_ROW, p])
            write(neurons, lo, n, others.b, lo, probes, t, b, columns[B_ROW, p])
            step(net, work, p, t)
            write(neurons, lo, n, work.u, lo, probes, t, b, columns[U_ROW, p])
            write(neurons, lo, n, work.v, lo, probes, t, b, columns[V_ROW, p])
            write(neurons, lo, n, others.w, lo, probes, t, b, columns[W_ROW, p])
            write(neurons, lo, n, others.x, lo, probes, t, b, columns[X_ROW, p])
            if used + n > events.size - AHEAD:
                return TOO_SHORT
            begin = used
            used = collect(work.flags, table[BLOCK, p], table[BLOCK, p + 1], events, used)
            span[p, t, BEGIN], span[p, t, END] = begin, used
            if table[GRADED, p] == 1:
                messages, column = out.others.messages, out.others.column[p]
                for e in range(begin, used):
                    others.payload[e] = others.sent[lo + events[e]]
                    if messages.size > 0:
                        messages[t, b, column + neurons[FLAT, lo + events[e]]] = others.payload[e]
            if p == net.output and net.readout != COUNT and t >= depth:
                score(net.readout, neurons, lo, n, work.v, lo, t - depth, out.scores, b)
    for p in range(table[STAGE, stage], table[STAGE, stage + 1]):
        since = depth if p == net.output and net.readout == COUNT else span.shape[1]
        everything = out.booked, out.spikes, out.scores, since, b
        settle(events, span, p, table, neurons, net.fan, net.fans, *everything)
        for arc in range(table[ARC, p], table[ARC, p + 1]):
            if net.arcs[KIND, arc] == PLASTIC:  # what the last step teaches
                arrive_plastic(net, work, out, arc, p, span.shape[1], b, False)
    return used
