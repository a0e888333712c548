"""One thread's share of some steps: what arrives, what neurons do, who fires. Compiled with neuro.jit.

Parts own targets, threads own parts. In a window of as many steps as the least lag nobody needs what others do in it,
so threads meet once per window. What reaches a target is added in one order, whatever the parts: by the step of the
spike, then the projection, then the source; so float32 sums have the same bits with any number of threads.

A spike of step t of delay d is taken by the update of step t + lag, lag = d + 1. Two ways to bring it there:

- pull: in each step the rows (source, lag) of the spikes of that many steps ago are added to one inbox, which stays in
  the cache;
- push: right after its window a whole row is added to a ring of inboxes. For rows of few synapses per lag.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuro.engine.deliver import pull, push
from neuro.engine.neurons import update_lif, update_loihi2
from neuro.engine.philox import BLOCK, draw_block
from neuro.engine.processor import meet
from neuro.engine.wiring import Pools
from neuro.jit import kernel

U = np.uintp
U32 = np.uint32
U64 = np.uint64
I64: Any = np.int64  # mypy takes indices to be int
SPIKING, POISSON, GIVEN = 0, 1, 2  # kinds of populations

Ints = NDArray[np.int64]


class Net(NamedTuple):
    """What does not change. Everything int64 unless said.

    parts; window and slots: steps between meetings, steps of spikes that are kept. rings: inboxes.
    kind, size, width, first: per population; width: neurons of a part, first: number of its first neuron.
    Per projection: source, inbox (of the receptor in the target), target (population), weighs (1: a weight each),
    weight (else), apart (1: as `neuro.engine.lanes` wants it), pulled, low, high (lags), bins; and [projection, part]:
    pointer_at, synapse_at, weight_at, delay_at.
    Per drive: drive_target, drive_inbox, drive_weight, drive_least, drive_first (in chance, uint32, one more of them).
    rate: per population, of Poisson sources, 0..2^32. given_first: per population and one more, into given_step and
    given_neuron. probe_place: in the state, sorted by part; probe_first: int64[parts + 1].
    """

    parts: int
    window: int
    slots: int
    rings: int
    seed: int
    kind: Ints
    size: Ints
    width: Ints
    first: Ints
    source: Ints
    target: Ints
    inbox: Ints
    weighs: Ints
    weight: NDArray[Any]
    apart: Ints
    pulled: Ints
    low: Ints
    high: Ints
    bins: Ints
    pointer_at: Ints
    synapse_at: Ints
    weight_at: Ints
    delay_at: Ints
    drive_target: Ints
    drive_inbox: Ints
    drive_weight: NDArray[Any]
    drive_least: Ints
    drive_first: Ints
    chance: NDArray[np.uint32]
    rate: Ints
    given_first: Ints
    given_step: Ints
    given_neuron: Ints
    probe_place: Ints
    probe_first: Ints


class State(NamedTuple):
    """What changes. values: float32 (int32 of a chip), membranes of all neurons and then what receptors keep. held:
    int32, steps that a neuron is still refractory. inbox: [rings, receptors x neurons]. fired: uint32[slots, neurons],
    those of a part from its first neuron on. counted: int64[parts, slots, populations], so that
    threads write to lines of their own."""

    values: NDArray[Any]
    held: NDArray[np.int32]
    inbox: NDArray[Any]
    fired: NDArray[np.uint32]
    counted: Ints


class Work(NamedTuple):
    """One thread's own. current, jump: like values. flags: uint8 and flag_words: uint64, the same memory. numbers:
    uint32[64]. counts: like values, [64]. unit: 0 and 1, like values. events: int64[8], synapses served."""

    current: NDArray[Any]
    jump: NDArray[Any]
    flags: NDArray[np.uint8]
    flag_words: NDArray[np.uint64]
    numbers: NDArray[np.uint32]
    counts: NDArray[Any]
    unit: NDArray[Any]
    events: Ints


@kernel
def _serve(net: Net, pools: Pools, state: State, j: int, part: int, of: int, step: int, pulls: bool) -> Any:
    """Bring the spikes of step ``of`` through projection j to a part: into the inbox of ``step``, or (not pulls) into
    those of all their lags. Synapses served."""
    events = I64(0)
    source, target = net.source[j], net.target[j]
    slot = of % net.slots
    to = net.inbox[j] + part * net.width[target]
    w_at = net.weight_at[j, part] if net.weighs[j] else I64(-1)
    for q in range(net.parts):
        n = state.counted[q, slot, source]
        if n == 0:
            continue
        begin = net.first[source] + q * net.width[source]
        if pulls:
            events += pull(
                pools.pointer, net.pointer_at[j, part], net.size[source], net.bins[j], step - of - net.low[j],
                state.fired[slot], begin, n, pools.target, net.synapse_at[j, part], pools.weight, w_at, net.weight[j],
                net.apart[j] != 0, state.inbox[step % net.rings], to,
            )  # fmt: skip
        else:
            events += push(
                pools.pointer, net.pointer_at[j, part], net.size[source], state.fired[slot], begin, n, pools.target,
                net.synapse_at[j, part], pools.weight, w_at, net.weight[j], pools.delay, net.delay_at[j, part],
                state.inbox, of + 1, to,
            )  # fmt: skip
    return events


@kernel
def _take(net: Net, pools: Pools, state: State, part: int, step: int, longest: int) -> Any:
    """Pull what arrives at a part in a step: earlier spikes first."""
    events = I64(0)
    for back in range(longest):
        lag = longest - back
        if lag > step:
            continue
        for j in range(net.source.size):
            if net.pulled[j] and net.low[j] <= lag and lag <= net.high[j]:
                events += _serve(net, pools, state, j, part, step - lag, step, True)
    return events


@kernel
def _drive(net: Net, state: State, work: Work, part: int, step: int) -> None:
    """Spikes from outside, into the inbox of this step."""
    row = state.inbox[step % net.rings]
    for k in range(net.drive_target.size):
        p = net.drive_target[k]
        lo = part * net.width[p]
        hi = min(lo + net.width[p], net.size[p])
        for begin in range(lo, hi, BLOCK):
            draw_block(work.numbers, begin // BLOCK, step, 2 * k + 1, net.seed)
            zero, one = work.unit[0], work.unit[1]
            for i in range(U(BLOCK)):
                work.counts[U(i)] = zero
            for c in range(net.drive_first[k], net.drive_first[k + 1]):
                chance = net.chance[c]
                for i in range(U(BLOCK)):
                    work.counts[U(i)] += one if work.numbers[U(i)] >= chance else zero
            at, weight, least = U(net.drive_inbox[k] + begin), net.drive_weight[k], net.drive_least[k] * one
            for i in range(U(min(BLOCK, hi - begin))):
                row[at + U(i)] += (work.counts[U(i)] + least) * weight


@kernel
def _sources(net: Net, state: State, work: Work, p: int, part: int, step: int) -> Any:
    """Who of a part of a population without state fires."""
    lo = part * net.width[p]
    hi = min(lo + net.width[p], net.size[p])
    row, n = state.fired[step % net.slots], U(net.first[p] + lo)
    begin = n
    if net.kind[p] == POISSON:
        for block in range(lo, hi, BLOCK):
            draw_block(work.numbers, block // BLOCK, step, 2 * p, net.seed)
            for i in range(U(min(BLOCK, hi - block))):
                if I64(work.numbers[U(i)]) < net.rate[p]:
                    row[n] = U32(block + I64(i))
                    n += U(1)
    else:
        low, high = net.given_first[p], net.given_first[p + 1]
        last = high
        while low < high:  # the first given spike that is not before this step
            middle = (low + high) // 2
            if net.given_step[middle] < step:
                low = middle + 1
            else:
                high = middle
        while low < last and net.given_step[low] == step:
            i = net.given_neuron[low]
            if lo <= i < hi:
                row[n] = U32(i)
                n += U(1)
            low += 1
    return I64(n - begin)


@kernel
def _after(net: Net, pools: Pools, state: State, first: int, last: int, thread: int, threads: int, pushes: bool) -> Any:
    """Push the spikes of steps first..last-1 to the parts of a thread."""
    events = I64(0)
    if pushes:
        for part in range(thread, net.parts, threads):
            for step in range(first, last):
                for j in range(net.source.size):
                    if not net.pulled[j]:
                        events += _serve(net, pools, state, j, part, step, 0, False)
    return events


@kernel
def _probe(net: Net, state: State, out: NDArray[Any], row: int, part: int) -> None:
    for m in range(net.probe_first[part], net.probe_first[part + 1]):
        out[row, m] = state.values[net.probe_place[m]]


@kernel
def advance(
    net: Net, pools: Pools, state: State, work: Work, lif: Any, meeting: Ints, thread: int, threads: int, start: int,
    steps: int, longest: int, pushes: bool, probes: NDArray[Any],
) -> None:  # fmt: skip
    """Steps start..start+steps-1 of the parts thread, thread + threads, ... longest: lag of what is pulled."""
    t, end, met = I64(start), I64(start + steps), 0
    while t < end:
        stop = min(t + net.window, end)
        for step in range(t, stop):
            for part in range(thread, net.parts, threads):
                work.events[0] += _take(net, pools, state, part, step, longest)
                _drive(net, state, work, part, step)
                for p in range(net.kind.size):
                    lo = part * net.width[p]
                    hi = min(lo + net.width[p], net.size[p])
                    if lo >= hi:
                        continue
                    if net.kind[p] == SPIKING:
                        n = update_lif(
                            lif, p, lo, hi, net.first[p], state.values, state.held, state.inbox[step % net.rings],
                            work.current, work.jump, work.flags, work.flag_words, state.fired[step % net.slots],
                        )  # fmt: skip
                    else:
                        n = _sources(net, state, work, p, part, step)
                    state.counted[part, step % net.slots, p] = n
                _probe(net, state, probes, step - start, part)
        if threads > 1:
            met += threads
            meet(meeting, met)
        work.events[0] += _after(net, pools, state, t, stop, thread, threads, pushes)
        t = stop


@kernel
def advance_loihi2(
    net: Net, pools: Pools, state: State, work: Work, cuba: Any, meeting: Ints, thread: int, threads: int, start: int,
    steps: int, longest: int, pushes: bool, probes: NDArray[Any],
) -> None:  # fmt: skip
    """`advance` in Loihi 2's integers."""
    t, end, met = I64(start), I64(start + steps), 0
    while t < end:
        stop = min(t + net.window, end)
        for step in range(t, stop):
            for part in range(thread, net.parts, threads):
                work.events[0] += _take(net, pools, state, part, step, longest)
                _drive(net, state, work, part, step)
                for p in range(net.kind.size):
                    lo = part * net.width[p]
                    hi = min(lo + net.width[p], net.size[p])
                    if lo >= hi:
                        continue
                    if net.kind[p] == SPIKING:
                        n = update_loihi2(
                            cuba, p, lo, hi, net.first[p], state.values, state.inbox[step % net.rings], work.flags,
                            work.flag_words, state.fired[step % net.slots],
                        )  # fmt: skip
                    else:
                        n = _sources(net, state, work, p, part, step)
                    state.counted[part, step % net.slots, p] = n
                _probe(net, state, probes, step - start, part)
        if threads > 1:
            met += threads
            meet(meeting, met)
        work.events[0] += _after(net, pools, state, t, stop, thread, threads, pushes)
        t = stop
