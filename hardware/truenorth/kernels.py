"""TrueNorth, tick by tick: the compiled loops, see neuro.jit. What they compute is said in bank.py.

A tick of a core walks its active axons only; a row of the crossbar is read as words of 64 neurons. A core without
chance and leak reversal is updated by `settle_plain`, eight or more neurons at a time; every other core neuron by
neuron, by `settle_any`, in the order in which random numbers are drawn. A plain core that nothing reaches and that
cannot change by itself is left alone.

Spikes go straight into the ring of the thread that found them, so threads share nothing; whoever consumes a slot
takes all rings together. The result does not depend on how cores are shared out.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.truenorth.prng import draw
from neuro.hardware.vectors import add_where
from neuro.jit import disjoint, kernel, piece

I32 = np.int32
I64 = np.int64
U8 = np.uint8
U = np.uintp  # an index that needs no look at its sign
U64 = np.uint64
ONE = U64(1)
DE_BRUIJN = U64(0x03F79D71B4CB0A89)  # every six bits of it differ from every other six
POSITION = np.zeros(64, np.uint8)  # times the lowest bit of a word, its top six bits tell that bit's number
POSITION[[((int(DE_BRUIJN) << k) % (1 << 64)) >> 58 for k in range(64)]] = np.arange(64)
SYNOPS, UPDATES, SPIKES, PACKETS, HOPS, MEMORY = range(6)  # rows of `Out.booked`, trace.Counters.NAMES
OUTSIDE = -2  # bank.OUTSIDE
LEAK_BIT = 4  # bank.LEAK_BIT

Integer = int | np.signedinteger[Any]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Words = NDArray[np.uint64]


class Net(NamedTuple):
    """A bank as the loops read it. C cores, A axons, P neurons (N and silent ones up to whole words of 64).

    weight: [C, 4, P]. lanes: int32[C, A, P / 32], the crossbar as halves of its words. synapses: [C, A], bits of
    each row. chance: [C], 1 where `settle_any` must be used. still: [C], 1 where no neuron leaks. hops: [C, P] to
    the target. keep, half, low, high: how V is brought into its range, see `fit`; keep32, half32 the same as int32.
    Others as in `Bank`, [C, P].
    """

    crossbar: Words
    lanes: Int32
    synapses: Int32
    axon_type: Bytes
    weight: Int32
    leak: Int32
    alpha: Int32
    negative: Int32
    reset: Int32
    gamma: Bytes
    kappa: Bytes
    epsilon: Bytes
    stochastic: Bytes
    mask: Int32
    target: Int32
    axon: Int32
    delay: Bytes
    hops: Int32
    neurons: Int32
    chance: Bytes
    still: Bytes
    draws: NDArray[np.uint32]
    keep: int
    half: int
    low: int
    high: int
    keep32: np.int32
    half32: np.int32
    inclusive: int
    zero_cross: int
    generator: int


class State(NamedTuple):
    """What changes. v: int32[C, P]. ring: uint64[threads, 16, C, words of A], active axons by arrival tick mod 16.

    register, place: of the generators. calm: [C], 1 where the last tick left a plain core as it would stay.
    tick: int64[1], the next tick. Room of each thread: sums int32[threads, P], active int32[threads, A],
    flags uint8[threads, P] and the same memory as words.
    """

    v: Int32
    ring: Words
    register: NDArray[np.uint32]
    place: Int64
    calm: Bytes
    tick: Int64
    sums: Int32
    active: Int32
    flags: Bytes
    flag_words: Words


class Out(NamedTuple):
    """What is written down. column, scored: int32[C, P], where a neuron's spikes go, -1 for nowhere.

    spikes: uint8[steps, batch, columns] or empty. probed: int64[k] flat places (core P + neuron); probes:
    int32[steps, batch, k]. lines: uint8[steps, batch, output lines] or empty. scores: int64[batch, n].
    booked: int64[6, batch, steps, C].
    """

    column: Int32
    scored: Int32
    probed: Int64
    spikes: Bytes
    probes: Int32
    lines: Bytes
    scores: Int64
    booked: Int64


@kernel
def fit(x: Integer, keep: int, half: int, low: int, high: int) -> Integer:
    """Into the range of V: wrap (half = 2^(bits - 1), keep = 2^bits - 1), then clip to low..high."""
    return min(max(((x + half) & keep) - half, low), high)


@piece
def listen(state: State, thread: int, slot: int, c: int) -> int:
    """Gather and clear the active axons of core c: ascending in state.active[thread]; how many."""
    found = 0
    for w in range(state.ring.shape[3]):
        word = U64(0)
        for k in range(state.ring.shape[0]):
            word |= state.ring[k, slot, c, w]
            state.ring[k, slot, c, w] = U64(0)
        while word != U64(0):
            lowest = word & (~word + ONE)
            state.active[thread, found] = I32(64 * w + POSITION[U((lowest * DE_BRUIJN) >> U64(58))])
            found += 1
            word ^= lowest
    return found


@disjoint
def integrate(sums: Int32, lanes: Int32, weight: Int32, axon_type: Bytes, active: Int32, count: int) -> None:
    """sums [P] = what the first ``count`` active axons of a core send, modulo 2^32; four axons at a time. lanes:
    [A, P / 32], weight: [4, P]."""
    words, padded, last, none = U(lanes.shape[1]), U(sums.size), U(count), I32(0)
    rows, weights = lanes.reshape(-1), weight.reshape(-1)
    for k in range(padded):
        sums[U(k)] = I32(0)
    e = U(0)
    while e < last:
        two, three, four = e + U(1) < last, e + U(2) < last, e + U(3) < last
        a = U(active[e])
        b, c = U(active[e + U(1)]) if two else a, U(active[e + U(2)]) if three else a
        d = U(active[e + U(3)]) if four else a
        wa, wb = U(axon_type[a]) * padded, U(axon_type[b]) * padded
        wc, wd = U(axon_type[c]) * padded, U(axon_type[d]) * padded
        for w in range(words):
            word, o = U(w), U(w) << U(5)
            q = rows[b * words + word] if two else none
            r = rows[c * words + word] if three else none
            s = rows[d * words + word] if four else none
            p, at_a, at_b, at_c, at_d = rows[a * words + word], wa + o, wb + o, wc + o, wd + o
            add_where(sums, o, weights, at_a, p, at_b, q, at_c, r, at_d, s)
        e += U(4)


@piece
def settle_plain(net: Net, state: State, sums: Int32, flags: Bytes, words: Words, c: int) -> int:
    """Leak, thresholds and resets of a core without chance. flags: 1 spike, 2 lower reset; how many of both."""
    keep, half, low, high = net.keep32, net.half32, I32(net.low), I32(net.high)
    inclusive = net.inclusive != 0
    used = (net.neurons[c] + 63) >> 6 << 6
    for n in range(used):
        x = I32(state.v[c, n] + sums[n])
        x = min(max(I32(I32(I32(x + half) & keep) - half), low), high)
        x = I32(x + net.leak[c, n])
        x = min(max(I32(I32(I32(x + half) & keep) - half), low), high)
        up = x >= net.alpha[c, n]
        down = (x < net.negative[c, n]) | (inclusive & (x == net.negative[c, n]))
        state.v[c, n] = x
        flags[n] = U8(1) if up else (U8(2) if down else U8(0))
    changed = 0
    for w in range(used >> 3):
        if words[w] == U64(0):
            continue
        for n in range(8 * w, min(8 * w + 8, net.neurons[c])):
            if flags[n] == 0:
                continue
            changed += 1
            x64, gamma = I64(state.v[c, n]), net.gamma[c, n]
            if flags[n] == 1:
                if gamma == 0:
                    x64 = I64(net.reset[c, n])
                elif gamma == 1:
                    x64 -= net.alpha[c, n]
            elif net.kappa[c, n]:
                x64 = I64(net.negative[c, n])
            elif gamma == 0:
                x64 = -I64(net.reset[c, n])
            elif gamma == 1:
                x64 -= net.negative[c, n]
            state.v[c, n] = I32(fit(x64, net.keep, net.half, net.low, net.high))
    return changed


@piece
def threshold(net: Net, state: State, c: int, n: int, v: Integer, flags: Bytes) -> None:
    """Thresholds and reset of one neuron at v; draws for its mask."""
    eta = I64(0)
    if net.mask[c, n] != 0:
        eta = draw(net.generator, state.register, state.place, net.draws, c) & net.mask[c, n]
    alpha = net.alpha[c, n] + eta
    negative = I64(net.negative[c, n])
    lower = negative if net.kappa[c, n] else negative - eta
    gamma = net.gamma[c, n]
    if v >= alpha:
        flags[n] = U8(1)
        if gamma == 0:
            v = I64(net.reset[c, n])
        elif gamma == 1:
            v -= alpha
    elif v < lower or (net.inclusive and v == lower):
        flags[n] = U8(2)
        if net.kappa[c, n]:
            v = negative
        elif gamma == 0:
            v = -I64(net.reset[c, n])
        elif gamma == 1:
            v -= lower
    state.v[c, n] = I32(fit(v, net.keep, net.half, net.low, net.high))


@piece
def settle_any(net: Net, state: State, active: Int32, count: int, flags: Bytes, c: int) -> None:
    """A whole tick of a core neuron by neuron, drawing as bank.py says."""
    for n in range(net.neurons[c]):
        flags[n] = U8(0)
        v, chance = I64(state.v[c, n]), net.stochastic[c, n]
        total = I64(0)
        for k in range(count):
            a = active[k]
            if (net.crossbar[c, a, n >> 6] >> U64(n & 63)) & ONE:
                g = net.axon_type[c, a]
                s = I64(net.weight[c, g, n])
                if (chance >> g) & 1:
                    rho = draw(net.generator, state.register, state.place, net.draws, c) & 255
                    total += (1 if s > 0 else -1) if s != 0 and abs(s) >= rho else 0
                else:
                    total += s
        v = I64(fit(v + total, net.keep, net.half, net.low, net.high))
        leak = I64(net.leak[c, n])
        if (chance >> LEAK_BIT) & 1:
            rho = draw(net.generator, state.register, state.place, net.draws, c) & 255
            leak = I64((1 if leak > 0 else -1) if leak != 0 and abs(leak) >= rho else 0)
        if net.epsilon[c, n]:
            moved = v + (leak if v > 0 else (-leak if v < 0 else 0))
            crossed = (v > 0 and moved < 0) or (v < 0 and moved > 0)
            v = I64(0) if crossed and net.zero_cross else moved
        else:
            v += leak
        v = I64(fit(v, net.keep, net.half, net.low, net.high))
        threshold(net, state, c, n, v, flags)


@piece
def send(
    net: Net, state: State, out: Out, thread: int, tick: int, c: int, flags: Bytes, b: int, t: int, count: int
) -> None:
    """Deliver and book the spikes of core c. count: whether the readout's window is open."""
    words = state.flag_words[thread]
    for w in range((net.neurons[c] + 7) >> 3):
        if words[w] == U64(0):
            continue
        for n in range(8 * w, min(8 * w + 8, net.neurons[c])):
            if flags[n] != 1:
                continue
            out.booked[SPIKES, b, t, c] += 1
            there, a = net.target[c, n], net.axon[c, n]
            if there >= 0:
                slot = (tick + net.delay[c, n]) & 15
                state.ring[thread, slot, there, a >> 6] |= ONE << U64(a & 63)
                out.booked[PACKETS, b, t, c] += 1
                out.booked[HOPS, b, t, c] += net.hops[c, n]
            elif there == OUTSIDE:
                out.booked[PACKETS, b, t, c] += 1
                if t + 1 < out.lines.shape[0]:
                    out.lines[t + 1, b, a] = 1
            if out.spikes.shape[0] > 0 and out.column[c, n] >= 0:
                out.spikes[t, b, out.column[c, n]] = 1
            if count and out.scored[c, n] >= 0:
                out.scores[b, out.scored[c, n]] += 1


@piece
def advance(
    net: Net, state: State, out: Out, thread: int, tick: int, c0: int, c1: int, b: int, t: int, count: int
) -> None:
    """One tick of cores c0..c1-1, booked as step t of sample b."""
    slot = tick & 15
    sums, flags, words = state.sums[thread], state.flags[thread], state.flag_words[thread]
    row_bytes = (net.alpha.shape[1]) >> 3
    for c in range(c0, c1):
        found = listen(state, thread, slot, c)
        reached = 0
        for k in range(found):
            reached += net.synapses[c, state.active[thread, k]]
        out.booked[SYNOPS, b, t, c] += reached
        out.booked[UPDATES, b, t, c] += net.neurons[c]
        out.booked[MEMORY, b, t, c] += found * row_bytes
        if net.chance[c]:
            settle_any(net, state, state.active[thread], found, flags, c)
            for n in range(net.neurons[c], (net.neurons[c] + 7) >> 3 << 3):
                flags[n] = U8(0)
        elif reached == 0 and state.calm[c]:
            continue
        else:
            integrate(sums, net.lanes[c], net.weight[c], net.axon_type[c], state.active[thread], found)
            changed = settle_plain(net, state, sums, flags, words, c)
            state.calm[c] = 1 if changed == 0 and net.still[c] else 0
            if changed == 0:
                continue
        send(net, state, out, thread, tick, c, flags, b, t, count)


@kernel
def advance_cores(net: Net, state: State, out: Out, thread: int, c0: int, c1: int, t: int) -> None:
    """Cores c0..c1-1 through the tick that is due (state.tick, which the caller moves on), booked in row t."""
    advance(net, state, out, thread, state.tick[0], c0, c1, 0, t, 0)


@kernel
def inject(state: State, tick: int, packets: Int64, begin: int, end: int, axons: int) -> None:
    """Make the axons packets[begin:end] (core A + axon) active in a tick."""
    for p in range(begin, end):
        c, a = packets[p] // axons, packets[p] % axons
        state.ring[0, tick & 15, c, a >> 6] |= ONE << U64(a & 63)


@kernel
def run_ticks(net: Net, state: State, out: Out, first: Int64, packets: Int64, steps: int) -> None:
    """``steps`` ticks of all cores in one thread, booked in rows 0.. of sample 0. Packets of step t:
    packets[first[t]:first[t + 1]]."""
    for t in range(steps):
        tick = state.tick[0]
        inject(state, tick, packets, first[t], first[t + 1], net.crossbar.shape[1])
        advance(net, state, out, 0, tick, 0, net.crossbar.shape[0], 0, t, 0)
        state.tick[0] = tick + 1


@kernel
def run_samples(
    net: Net,
    state: State,
    out: Out,
    v0: Int32,
    seed: NDArray[np.uint32],
    first: Int64,
    packets: Int64,
    depth: int,
    b0: int,
    b1: int,
) -> None:
    """Samples b0..b1-1, each from rest. first: [batch, steps + 1], as in `run_ticks`."""
    steps = out.booked.shape[2]
    for b in range(b0, b1):
        for c in range(v0.shape[0]):
            for n in range(v0.shape[1]):
                state.v[c, n] = v0[c, n]
            state.register[c], state.place[c], state.calm[c] = seed[c], 0, 0
        for slot in range(16):
            for c in range(v0.shape[0]):
                for w in range(state.ring.shape[3]):
                    state.ring[0, slot, c, w] = U64(0)
        for t in range(steps):
            inject(state, t, packets, first[b, t], first[b, t + 1], net.crossbar.shape[1])
            advance(net, state, out, 0, t, 0, v0.shape[0], b, t, 1 if t >= depth else 0)
            for k in range(out.probed.size):
                c, n = out.probed[k] // v0.shape[1], out.probed[k] % v0.shape[1]
                out.probes[t, b, k] = state.v[c, n]
