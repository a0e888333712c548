"""One step of plastic synapses, compiled with neuro.jit: traces, spikes of both sides, reward, scaling.

Synapses stand sorted by source and by how late its spikes arrive, and a second list has them by target likewise: so a
step touches those synapses only on which something arrives. All in float64; one thread, so one order.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuro.jit import kernel

Ints = NDArray[np.int64]
Reals = NDArray[np.float64]
POST_FIRST, PRE_FIRST, BOTH, NEITHER = 0, 1, 2, 3
BEFORE, AFTER = 0, 1  # the spike of this step
FAST, SLOW = 0, 1  # traces of a neuron


class Law(NamedTuple):
    """A rule in steps. decay_*: factors of x1, x2, y1, y2 in a step. kind: 1 multiplicative. nearest, order.
    eligible: 1 where changes wait for reward; keep: -dt / tau_eligibility, decay_reward. scales: steps between two
    scalings, 0 for none; decay_rate, per_spike (hertz), speed (per scaling), rate (hertz)."""

    decay_x1: float
    decay_x2: float
    decay_y1: float
    decay_y2: float
    a2_plus: float
    a2_minus: float
    a3_plus: float
    a3_minus: float
    w_min: float
    w_max: float
    low: float
    high: float
    kind: int
    nearest: int
    order: int
    eligible: int
    keep: float
    decay_reward: float
    scales: int
    decay_rate: float
    per_spike: float
    speed: float
    rate: float


class Synapses(NamedTuple):
    """target: [n]. late_pre, late_post: [n], steps from a spike to its arrival. travel: [n], steps from there to the
    neuron that takes it. by_source: [sources * bins_pre + 1], rows of (source, late_pre); by_target: likewise, into
    ``turned``, numbers of synapses. pre, post: sources and targets."""

    pre: int
    post: int
    source: Ints
    target: Ints
    late_pre: Ints
    late_post: Ints
    travel: Ints
    low_pre: int
    bins_pre: int
    by_source: Ints
    low_post: int
    bins_post: int
    by_target: Ints
    turned: Ints


class Memory(NamedTuple):
    """What changes. weight, eligible: [n]; since: [n], step of ``eligible``. x: [2, 2, late + 1, sources], FAST and
    SLOW traces BEFORE and AFTER the spikes of the last steps; y: of targets. fired_*: [late + 1, neurons], lists,
    count_* how long. rate: [targets], hertz. reward: [1]."""

    weight: Reals
    eligible: Reals
    since: Ints
    x: Reals
    y: Reals
    fired_pre: Ints
    count_pre: Ints
    fired_post: Ints
    count_post: Ints
    rate: Reals
    reward: Reals


@kernel
def _trace(
    trace: Reals, lists: Ints, counts: Ints, fast: float, slow: float, nearest: int, t: int, fired: Ints, lo: int,
    hi: int,
) -> None:  # fmt: skip
    """Traces of step t, and who of fired[lo:hi] made them."""
    slots, n = trace.shape[2], trace.shape[3]
    now, last = t % slots, (t + slots - 1) % slots
    for i in range(n):
        a, b = trace[FAST, AFTER, last, i] * fast, trace[SLOW, AFTER, last, i] * slow
        trace[FAST, BEFORE, now, i] = a
        trace[FAST, AFTER, now, i] = a
        trace[SLOW, BEFORE, now, i] = b
        trace[SLOW, AFTER, now, i] = b
    for e in range(lo, hi):
        i = fired[e]
        lists[now, e - lo] = i
        trace[FAST, AFTER, now, i] = 1.0 if nearest else trace[FAST, AFTER, now, i] + 1.0
        trace[SLOW, AFTER, now, i] = 1.0 if nearest else trace[SLOW, AFTER, now, i] + 1.0
    counts[now] = hi - lo


@kernel
def _change(law: Law, m: Memory, s: int, t: int, up: bool, amount: float) -> None:
    """Raise or lower synapse s, or remember to."""
    w = m.weight[s]
    if up:
        amount = amount * (law.w_max - w) if law.kind else amount
    else:
        amount = -(amount * (w - law.w_min) if law.kind else amount)
    if law.eligible:
        m.eligible[s] = m.eligible[s] * math.exp(law.keep * (t - m.since[s])) + amount
        m.since[s] = t
    else:
        m.weight[s] = min(max(w + amount, law.low), law.high)


@kernel
def _raise(law: Law, syn: Synapses, m: Memory, t: int, which: int) -> None:
    """Spikes of targets that arrive in step t; which: trace x1 BEFORE or AFTER what arrives with them."""
    slots, pre_slots = m.y.shape[2], m.x.shape[2]
    for b in range(syn.bins_post):
        late = syn.low_post + b
        slot = (t + slots - late) % slots
        if late > t:
            continue
        for e in range(m.count_post[slot]):
            j = m.fired_post[slot, e]
            amount = law.a2_plus + law.a3_plus * m.y[SLOW, BEFORE, slot, j]
            row = j * syn.bins_post + b
            for k in range(syn.by_target[row], syn.by_target[row + 1]):
                s = syn.turned[k]
                there = (t + pre_slots - syn.late_pre[s]) % pre_slots
                _change(law, m, s, t, True, amount * m.x[FAST, which, there, syn.source[s]])


@kernel
def _lower(law: Law, syn: Synapses, m: Memory, t: int, which: int) -> None:
    """Spikes of sources that arrive in step t; which: trace y1 BEFORE or AFTER what arrives with them."""
    slots, post_slots = m.x.shape[2], m.y.shape[2]
    for b in range(syn.bins_pre):
        late = syn.low_pre + b
        slot = (t + slots - late) % slots
        if late > t:
            continue
        for e in range(m.count_pre[slot]):
            i = m.fired_pre[slot, e]
            amount = law.a2_minus + law.a3_minus * m.x[SLOW, BEFORE, slot, i]
            row = i * syn.bins_pre + b
            for s in range(syn.by_source[row], syn.by_source[row + 1]):
                there = (t + post_slots - syn.late_post[s]) % post_slots
                _change(law, m, s, t, False, amount * m.y[FAST, which, there, syn.target[s]])


@kernel
def learn(
    law: Law, syn: Synapses, m: Memory, t: int, reward: float, pre: Ints, pre_lo: int, pre_hi: int, post: Ints,
    post_lo: int, post_hi: int,
) -> None:  # fmt: skip
    """Step t, in which sources pre[pre_lo:pre_hi] and targets post[post_lo:post_hi] fire."""
    _trace(m.x, m.fired_pre, m.count_pre, law.decay_x1, law.decay_x2, law.nearest, t, pre, pre_lo, pre_hi)
    _trace(m.y, m.fired_post, m.count_post, law.decay_y1, law.decay_y2, law.nearest, t, post, post_lo, post_hi)
    if law.order == POST_FIRST:
        _raise(law, syn, m, t, BEFORE)
        _lower(law, syn, m, t, AFTER)
    else:
        _lower(law, syn, m, t, AFTER if law.order == BOTH else BEFORE)
        _raise(law, syn, m, t, BEFORE if law.order == NEITHER else AFTER)
    if law.eligible:
        m.reward[0] = m.reward[0] * law.decay_reward + reward
        if m.reward[0] != 0.0:
            for s in range(m.weight.size):
                c = m.eligible[s] * math.exp(law.keep * (t - m.since[s]))
                m.eligible[s] = c
                m.since[s] = t
                m.weight[s] = min(max(m.weight[s] + m.reward[0] * c, law.low), law.high)
    if law.scales > 0:
        for j in range(m.rate.size):
            m.rate[j] *= law.decay_rate
        for e in range(post_lo, post_hi):
            m.rate[post[e]] += law.per_spike
        if (t + 1) % law.scales == 0:
            for s in range(m.weight.size):
                w = m.weight[s] * (1.0 + law.speed * (law.rate - m.rate[syn.target[s]]) / law.rate)
                m.weight[s] = min(max(w, law.low), law.high)


@kernel
def send(syn: Synapses, m: Memory, t: int, ring: Reals) -> None:
    """Spikes of sources that arrive in step t, with what the step has learnt, into ring[step % slots, target], where
    neurons will take them."""
    slots, rings = m.x.shape[2], ring.shape[0]
    for b in range(syn.bins_pre):
        late = syn.low_pre + b
        slot = (t + slots - late) % slots
        if late > t:
            continue
        for e in range(m.count_pre[slot]):
            row = m.fired_pre[slot, e] * syn.bins_pre + b
            for s in range(syn.by_source[row], syn.by_source[row + 1]):
                ring[(t + syn.travel[s]) % rings, syn.target[s]] += m.weight[s]


@kernel
def follow_steps(
    law: Law, syn: Synapses, m: Memory, begin: int, reward: Reals, pre_at: Ints, pre: Ints, post_at: Ints, post: Ints,
    every: int, kept: Reals,
) -> None:  # fmt: skip
    """Steps begin, begin + 1, ... one for each of ``reward``; in the k-th pre[pre_at[k]:pre_at[k + 1]] fire, post
    likewise. kept[q]: weights after step (q + 1) every - 1 of these; not kept if every is 0."""
    for k in range(reward.size):
        learn(law, syn, m, begin + k, reward[k], pre, pre_at[k], pre_at[k + 1], post, post_at[k], post_at[k + 1])
        if every > 0 and (k + 1) % every == 0:
            q = (k + 1) // every - 1
            for s in range(m.weight.size):
                kept[q, s] = m.weight[s]
