"""Pair STDP with deferred updates as the sPyNNaker 7.4.1 kernels do it, bit for bit: the compiled loops (neuro.jit).

A weight is looked at only when a spike arrives from before the synapse; what its target did in the meantime is kept
in a short history. Traces are int16 with 11 fraction bits; LUT[dt] is exp(-dt/tau); (a b) >> 11 multiplies.

    post spike at t       trace = ((last trace LUT-[t - its time]) >> 11) + 2048, wrapped to int16; 16 entries are
                          kept, of which the first is a placeholder at time 0 that no spike made
    pre spike at t        per synapse, with d its delay (0 without back-propagated delays), last the row's last time:
      for each post time p in (last - d, t - d]     W up by   g = ((pre trace LUT+[p + d - last]) >> 11) << 4
      once, for the latest post time p <= t - d     W down by g = ((its trace LUT-[t - p - d]) >> 11) << 4
      the new W goes into the ring buffer, d steps ahead
    then                  pre trace = ((old LUT+[t - last]) >> 11) + 2048, last = t

    additive              W = min(W + A+ g, w_max);         W = max(W - A- g, w_min)       products as s16.15
    multiplicative        W += ((w_max - W) A+) g;          W -= ((W - w_min) A-) g        no clamp

A difference of times is unsigned: a negative one is beyond the table, which counts as 0. A delay field of 0 means
no delay here, and the weight of such a synapse changes but is never added to the ring: the machine skips it.
Row memory is kept in the machine's own words, see stdp.py.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.spinnaker1.fixed import Integer, mul, wrap32
from neuro.hardware.spinnaker1.neurons import Constants, State, update_exp
from neuro.hardware.spinnaker1.ring import add
from neuro.jit import kernel

Int64 = NDArray[np.int64]
Words = NDArray[np.uint32]
Ring = NDArray[np.uint16]
U = np.uintp
U32 = np.uint32
ADDITIVE, MULTIPLICATIVE = 0, 1
PLUS, MINUS = 0, 1
HISTORY = 16  # entries, the placeholder included
W_MIN, W_MAX, A_PLUS, A_MINUS = 0, 1, 2, 3
SATURATED, SKIPPED, LOST = 0, 1, 2  # places in ``counts``


class Rules(NamedTuple):
    """Learning rules by number. kind, backprop: [rules]. lut: [2, rules, longest], size and shift: [2, rules],
    first of LUT+, then of LUT-. limits: [rules, types, 4], w_min, w_max, A+, A- in s16.15."""

    kind: Int64
    backprop: Int64
    lut: Int64
    size: Int64
    shift: Int64
    limits: Int64


class Cores(NamedTuple):
    """Per core. first: [cores + 1], its first neuron. index_bits, ring: width of the index in its words, first of
    its ring buffers. shift: [cores, 2], of the exc and inh ring buffers. rule: number of its rule, or -1."""

    first: Int64
    index_bits: Int64
    ring: Int64
    shift: Int64
    rule: Int64
    delay_bits: int


class Fan(NamedTuple):
    """Rows of synapses by source: those of source s are pointer[s]..pointer[s + 1] - 1. Sources are numbered inputs
    first, then neurons. at: where the row begins in memory. core: whose it is. plastic: 1 if it learns."""

    pointer: Int64
    at: Int64
    core: Int64
    plastic: Int64


class Learning(NamedTuple):
    """What changes beside the neurons. time, trace: [neurons, HISTORY]; entries: [neurons], how many of them are in
    use; dropped: [neurons], time of the last that gave way. memory: all rows. fired: room for one step.
    counts: sums that saturated, weights that were skipped, and weights that missed a post spike because the
    history was full before they were looked at (the machine does not notice)."""

    ring: Ring
    time: Int64
    trace: Int64
    entries: Int64
    dropped: Int64
    memory: Words
    counts: Int64
    fired: NDArray[np.int32]


@kernel
def look(rules: Rules, sign: Integer, rule: Integer, dt: Integer) -> Any:
    """LUT[dt], dt taken as an unsigned 32-bit number; 0 beyond the table."""
    index = (np.int64(dt) & 4294967295) >> rules.shift[sign, rule]
    return rules.lut[sign, rule, index] if index < rules.size[sign, rule] else np.int64(0)


@kernel
def int16(x: Integer) -> Any:
    """The low 16 bits as a signed number."""
    return ((np.int64(x) + 32768) & 65535) - 32768


@kernel
def up(rules: Rules, rule: Integer, kind: Integer, weight: Integer, r: Integer) -> Any:
    """A weight (s16.15) after a potentiation by trace r."""
    g = wrap32(np.int64(r) << 4)
    w, high = np.int64(weight), rules.limits[rule, kind, W_MAX]
    if rules.kind[rule] == ADDITIVE:
        return min(wrap32(w + mul(rules.limits[rule, kind, A_PLUS], g)), high)
    return wrap32(w + mul(mul(wrap32(high - w), rules.limits[rule, kind, A_PLUS]), g))


@kernel
def down(rules: Rules, rule: Integer, kind: Integer, weight: Integer, o: Integer) -> Any:
    """A weight (s16.15) after a depression by trace o."""
    g = wrap32(np.int64(o) << 4)
    w, low = np.int64(weight), rules.limits[rule, kind, W_MIN]
    if rules.kind[rule] == ADDITIVE:
        return max(wrap32(w - mul(rules.limits[rule, kind, A_MINUS], g)), low)
    return wrap32(w - mul(mul(wrap32(w - low), rules.limits[rule, kind, A_MINUS]), g))


@kernel
def post_spike(state: Learning, i: Integer, t: Integer, rules: Rules, rule: Integer) -> None:
    """Neuron i fires in step t: one more entry in its history."""
    last = state.entries[i] - 1
    before = (state.trace[i, last] * look(rules, MINUS, rule, t - state.time[i, last])) >> 11
    if state.entries[i] == HISTORY:
        state.dropped[i] = state.time[i, 1]
        for k in range(1, HISTORY - 1):
            state.time[i, k] = state.time[i, k + 1]
            state.trace[i, k] = state.trace[i, k + 1]
        state.entries[i] -= 1
    state.time[i, state.entries[i]] = t
    state.trace[i, state.entries[i]] = int16(before + 2048)
    state.entries[i] += 1


@kernel
def learned(
    state: Learning, i: Integer, kind: Integer, weight: Integer, dd: Integer, last: Integer, trace: Integer,
    t: Integer, rules: Rules, rule: Integer,
) -> Any:  # fmt: skip
    """The weight (s16.15) onto neuron i when its source, which fired at ``last`` before, fires in step t."""
    w = np.int64(weight)
    begin, end = max(np.int64(last) - dd, 0), max(np.int64(t) - dd, 0)
    latest = 0
    if state.dropped[i] > begin:
        state.counts[LOST] += 1
    for k in range(1, state.entries[i]):
        p = state.time[i, k]
        if p > end:
            break
        latest = k
        if p > begin:
            w = up(rules, rule, kind, w, (trace * look(rules, PLUS, rule, p + dd - last)) >> 11)
    if latest > 0:
        p = state.time[i, latest]
        w = down(rules, rule, kind, w, (state.trace[i, latest] * look(rules, MINUS, rule, t - (p + dd))) >> 11)
    return w


@kernel
def plastic_row(state: Learning, at: Integer, t: Integer, cores: Cores, core: Integer, rules: Rules) -> None:
    """A spike arrives in step t on the plastic row that begins at memory[at]: learn, then deliver."""
    memory, rule, bits = state.memory, cores.rule[core], cores.index_bits[core]
    weights = at + 3
    fixed = at + 1 + np.int64(memory[at])
    last, trace = np.int64(memory[at + 1]), int16(np.int64(memory[at + 2]))
    controls = fixed + 2 + np.int64(memory[fixed])
    mask = (np.int64(1) << (bits + 1 + cores.delay_bits)) - 1
    later = np.int64(t) << (bits + 1)
    for k in range(np.int64(memory[fixed + 1])):
        half = 16 * (k & 1)
        control = (np.int64(memory[controls + (k >> 1)]) >> half) & 65535
        index, kind = control & ((np.int64(1) << bits) - 1), (control >> bits) & 1
        delay = (control >> (bits + 1)) & ((np.int64(1) << cores.delay_bits) - 1)
        word = np.int64(memory[weights + (k >> 1)])
        shift = cores.shift[core, kind]
        dd = delay if rules.backprop[rule] != 0 else np.int64(0)
        full = wrap32(((word >> half) & 65535) << shift)
        new = learned(state, cores.first[core] + index, kind, full, dd, last, trace, t, rules, rule)
        weight = (new >> shift) & 65535
        memory[weights + (k >> 1)] = U32((word & ~(np.int64(65535) << half)) | (weight << half))
        if delay == 0:
            state.counts[SKIPPED] += 1
        else:
            place = cores.ring[core] + ((control + later) & mask)
            state.counts[SATURATED] += add(state.ring, U(place), weight)
    fresh = int16(((trace * look(rules, PLUS, rule, t - last)) >> 11) + 2048)
    memory[at + 1] = U32(t)
    memory[at + 2] = U32((np.int64(memory[at + 2]) & 4294901760) | (fresh & 65535))


@kernel
def static_row(state: Learning, at: Integer, t: Integer, cores: Cores, core: Integer) -> None:
    """A spike arrives in step t on the row [number of words, words] at memory[at]."""
    bits = cores.index_bits[core]
    mask = (np.int64(1) << (bits + 1 + cores.delay_bits)) - 1
    later = np.int64(t) << (bits + 1)
    for k in range(np.int64(state.memory[at])):
        word = np.int64(state.memory[at + 1 + k])
        state.counts[SATURATED] += add(state.ring, U(cores.ring[core] + ((word + later) & mask)), word >> 16)


@kernel
def neurons(
    c: Constants, s: State, state: Learning, cores: Cores, core: Integer, rules: Rules, t: Integer,
    spikes: NDArray[np.uint8], k: Integer,
) -> None:  # fmt: skip
    """Step t of a core: take and clear its slot, update its neurons, note in spikes[k] those that fire."""
    bits, lo = cores.index_bits[core], cores.first[core]
    slot = np.int64(t) & ((np.int64(1) << cores.delay_bits) - 1)
    base = cores.ring[core] + (slot << (bits + 1))
    e, h = cores.shift[core, 0], cores.shift[core, 1]
    nothing = state.fired[:0]
    hi: Any = cores.first[core + 1]
    inh_at: Any = base + (np.int64(1) << bits)
    n = update_exp(c, s, lo, hi, state.ring, base, inh_at, e, h, nothing, state.fired, 0)
    for f in range(n):
        i = lo + np.int64(state.fired[f])
        spikes[k, i] = 1
        if cores.rule[core] >= 0:
            post_spike(state, i, t, rules, cores.rule[core])


@kernel
def arrive(state: Learning, fan: Fan, cores: Cores, rules: Rules, source: Integer, t: Integer) -> Any:
    """All rows of a source, in order; how many synapses they hold."""
    reached = np.int64(0)
    for row in range(fan.pointer[source], fan.pointer[source + 1]):
        at = fan.at[row]
        if fan.plastic[row] != 0:
            reached += np.int64(state.memory[at + 2 + np.int64(state.memory[at])])
            plastic_row(state, at, t, cores, fan.core[row], rules)
        else:
            reached += np.int64(state.memory[at])
            static_row(state, at, t, cores, fan.core[row])
    return reached


@kernel
def steps(
    c: Constants, s: State, state: Learning, cores: Cores, rules: Rules, fan: Fan, begin: Integer, events: Int64,
    event: Int64, spikes: NDArray[np.uint8], synapses: Int64, states: NDArray[np.int32], rows: Words
) -> None:  # fmt: skip
    """Steps begin, begin + 1, ... one for each row of ``spikes`` [steps, neurons], which is filled.

    event[events[k]:events[k + 1]]: inputs that send in the k-th of them, in the order of their arrival; they come
    before the neurons' own spikes. synapses: [steps], how many were reached. states: [steps, neurons, 5] after each
    step (v, timer, exc, inh, fired), rows: [steps, words], memory after it; filled unless empty."""
    inputs = fan.pointer.size - 1 - s.v.size
    for k in range(spikes.shape[0]):
        t = begin + k
        for core in range(cores.first.size - 1):
            neurons(c, s, state, cores, core, rules, t, spikes, k)
        for e in range(events[k], events[k + 1]):
            synapses[k] += arrive(state, fan, cores, rules, event[e], t)
        for i in range(s.v.size):
            if spikes[k, i] != 0:
                synapses[k] += arrive(state, fan, cores, rules, inputs + i, t)
        if states.size > 0:
            for i in range(s.v.size):
                states[k, i, 0] = s.v[i]
                states[k, i, 1] = s.refract[i]
                states[k, i, 2] = s.exc[i]
                states[k, i, 3] = s.inh[i]
                states[k, i, 4] = spikes[k, i]
        if rows.size > 0:
            for w in range(state.memory.size):
                rows[k, w] = state.memory[w]
