"""Two-factor STDP, compiled: see learning.py for the equations. Integers only; random numbers are drawn before."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neuro.hardware.integer import saturate
from neuro.hardware.loihi2.learning import FRACTION, TRACES, WEIGHTS, decay_table
from neuro.hardware.loihi2.synapses import Order, effective_weights
from neuro.hardware.program import Projection
from neuro.jit import kernel

I32 = np.int32
I64 = np.int64
LOW, HIGH = np.int64(-(1 << 15) - 1), np.int64((1 << 15) - 1)  # of the accumulator
TOP = TRACES - 1
PART = 7  # bits of a weight behind the point
UNIT = 46  # 2^-53 per 2^-7
# columns of `Rules.rule`
EPOCH, INTO, IMP_X, FRAC_X, IMP_Y, FRAC_Y, PRE, PRE_EXP, POST, POST_EXP, MIN, MAX, SHIFT = range(13)

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


class Rules(NamedTuple):
    """Plastic projections of a program, in order. rule: int64[k, 13], columns as above (INTO: target population).
    source: population. weight: where its weights [source, target] begin; pre, post: where its traces do. start: the
    weights all samples start from. floor, chance: int64[k, 2, 128], decay of x1 and y1. flat_pre, flat_post: place ->
    row-major neuron."""

    rule: Int64
    source: Int64
    weight: Int64
    pre: Int64
    post: Int64
    start: Int32
    floor: Int64
    chance: Int64
    flat_pre: Int64
    flat_post: Int64


class Learned(NamedTuple):
    """State of a sample: weights as in `Rules.start`; x, tx, y, ty: traces, and step of the last spike in the epoch, 0
    for none; history: int64[epochs' longest + 1, pre or post], of all rules side by side."""

    weights: Int32
    x: Int64
    tx: Int64
    y: Int64
    ty: Int64
    history_x: Int64
    history_y: Int64


def rules_of(found: list[tuple[Projection, int, int, Order, Order]]) -> Rules:
    """found: (projection, source, target, order of the source, of the target) of each plastic projection."""
    rule, start, tables = [], [], []
    for p, _, target, source_order, target_order in found:
        q = {name: int(p.params[name]) for name in p.params if p.params[name].shape == ()}
        low, high = WEIGHTS[q["sign_mode"]]
        x, y = q["x1_impulse"], q["y1_impulse"]
        impulses = [x // FRACTION, x % FRACTION, y // FRACTION, y % FRACTION]
        factors = [q["pre_mantissa"], q["pre_exponent"] + 7, q["post_mantissa"], q["post_exponent"] + 7]
        rule.append([q["t_epoch"], target, *impulses, *factors, low, high, q["weight_exp"]])
        weights = effective_weights(p.weight_q, q["num_weight_bits"], q["sign_mode"])
        start.append(weights[np.ix_(target_order.flat, source_order.flat)].T.ravel())
        tables.append([decay_table(q["x1_tau"]), decay_table(q["y1_tau"])])
    pre, post = ([o.flat for o in orders] for orders in ([f[3] for f in found], [f[4] for f in found]))
    table = np.array(tables, np.int64).reshape(len(found), 2, 2, TRACES)
    return Rules(
        rule=np.array(rule, np.int64).reshape(len(found), 13),
        source=np.array([f[1] for f in found], np.int64),
        weight=_offsets(start),
        pre=_offsets(pre),
        post=_offsets(post),
        start=_joined(start).astype(np.int32),
        floor=np.ascontiguousarray(table[:, :, 0]),
        chance=np.ascontiguousarray(table[:, :, 1]),
        flat_pre=_joined(pre),
        flat_post=_joined(post),
    )


def _offsets(parts: list[Any]) -> Int64:
    return np.concatenate([[0], np.cumsum([p.size for p in parts], dtype=np.int64)]).astype(np.int64)


def _joined(parts: list[Any]) -> Int64:
    return np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.int64)


def learned_of(rules: Rules) -> Learned:
    """Room for one sample."""
    pre, post = int(rules.pre[-1]), int(rules.post[-1])
    longest = int(rules.rule[:, EPOCH].max(initial=0)) + 1
    x, tx, y, ty = (np.zeros(n, np.int64) for n in (pre, pre, post, post))
    histories = np.zeros((longest, pre), np.int64), np.zeros((longest, post), np.int64)
    return Learned(rules.start.copy(), x, tx, y, ty, *histories)


@kernel
def reset(rules: Rules, state: Learned) -> None:
    """As before the first step."""
    for i in range(state.weights.size):
        state.weights[i] = rules.start[i]
    for i in range(state.x.size):
        state.x[i], state.tx[i] = 0, 0
    for j in range(state.y.size):
        state.y[j], state.ty[j] = 0, 0


@kernel
def deliver_plastic(
    rules: Rules, state: Learned, k: int, a: Int32, lo: int, hi: int, events: Int32, begin: int, end: int
) -> None:
    """What spikes events[begin:end] send through plastic projection k, added to a[lo:hi]."""
    n, shift = hi - lo, rules.rule[k, SHIFT]
    for j in range(n):
        total = I64(0)
        for e in range(begin, end):
            total += state.weights[rules.weight[k] + events[e] * n + j]
        total = total << shift if shift > 0 else total >> -shift
        a[lo + j] = I32(a[lo + j] + I32(total))


@kernel
def add_impulse(trace: np.int64, impulse: np.int64, fraction: np.int64, draw: np.int64) -> np.int64:
    """A trace after a spike; draw: 0..127."""
    return I64(saturate(trace + impulse + I64(draw < fraction), I64(0), I64(TOP)))


@kernel
def follow(
    lo: int,
    hi: int,
    trace: Int64,
    last: Int64,
    history: Int64,
    floor: Int64,
    chance: Int64,
    epoch: int,
    impulse: np.int64,
    fraction: np.int64,
    decay_draw: np.int64,
    impulse_draw: np.int64,
) -> None:
    """Traces lo..hi-1 through an epoch: history[q] after its step q, history[0] as they were."""
    for i in range(lo, hi):
        value = trace[i]
        history[0, i] = value
        for q in range(1, epoch + 1):
            value = floor[value] + I64(decay_draw < chance[value])
            if last[i] == q:
                value = add_impulse(value, impulse, fraction, impulse_draw)
            history[q, i] = value
        trace[i] = value


@kernel
def learn(
    rules: Rules,
    state: Learned,
    draws: Int64,
    k: int,
    step: int,
    pre: Int32,
    pre_begin: int,
    pre_end: int,
    post: Int32,
    post_begin: int,
    post_end: int,
) -> None:
    """Step ``step``, counted from 1, of rule k, in which pre[pre_begin:pre_end] and post[...] have spiked."""
    epoch, impulse_x, fraction_x = rules.rule[k, EPOCH], rules.rule[k, IMP_X], rules.rule[k, FRAC_X]
    impulse_y, fraction_y = rules.rule[k, IMP_Y], rules.rule[k, FRAC_Y]
    x0, x1, y0, y1 = rules.pre[k], rules.pre[k + 1], rules.post[k], rules.post[k + 1]
    now = (step - 1) % epoch + 1
    for e in range(pre_begin, pre_end):
        i = x0 + pre[e]
        if state.tx[i] > 0:
            state.x[i] = add_impulse(state.x[i], impulse_x, fraction_x, I64(0))
        state.tx[i] = now
    for e in range(post_begin, post_end):
        j = y0 + post[e]
        if state.ty[j] > 0:
            state.y[j] = add_impulse(state.y[j], impulse_y, fraction_y, draws[k, 3, 2 * step - 1])
        state.ty[j] = now
    if step % epoch != 0:
        return
    hx, hy = state.history_x, state.history_y
    dx, dy = draws[k, 0, 2 * step], draws[k, 2, 2 * step]
    ix, iy = draws[k, 1, 2 * step], draws[k, 3, 2 * step]
    floor, chance = rules.floor[k], rules.chance[k]
    follow(x0, x1, state.x, state.tx, hx, floor[0], chance[0], epoch, impulse_x, fraction_x, dx, ix)
    follow(y0, y1, state.y, state.ty, hy, floor[1], chance[1], epoch, impulse_y, fraction_y, dy, iy)
    r, low, high = draws[k, 4, step // epoch], rules.rule[k, MIN], rules.rule[k, MAX]
    w = rules.weight[k]
    for i in range(x0, x1):
        for j in range(y0, y1):
            total = I64(state.weights[w]) << PART
            change = I64(0)
            if state.tx[i] > 0:
                change = (hy[state.tx[i], j] * rules.rule[k, PRE]) << rules.rule[k, PRE_EXP]
            total = I64(saturate(total + saturate(change, LOW, HIGH), LOW, HIGH))
            change = I64(0)
            if state.ty[j] > 0:
                change = (hx[state.ty[j], i] * rules.rule[k, POST]) << rules.rule[k, POST_EXP]
            total = I64(saturate(total + saturate(change, LOW, HIGH), LOW, HIGH))
            if low == 0:
                total = max(total, I64(0))
            elif high == 0:
                total = min(total, I64(0))
            part = total & I64((1 << PART) - 1)
            whole = (total >> PART) + I64(r < (part << UNIT))
            state.weights[w] = I32(saturate(whole, low, high))
            w += 1
    for i in range(x0, x1):
        state.tx[i] = 0
    for j in range(y0, y1):
        state.ty[j] = 0


@kernel
def write_learned(rules: Rules, state: Learned, k: int, columns: Int64, probes: Int32, t: int, b: int) -> None:
    """Weights, x1 and y1 of rule k into columns[0:3] of step t, where asked for, in row-major order."""
    x0, x1, y0, y1 = rules.pre[k], rules.pre[k + 1], rules.post[k], rules.post[k + 1]
    if columns[0] >= 0:
        w = rules.weight[k]
        for i in range(x0, x1):
            for j in range(y0, y1):
                at = rules.flat_post[j] * (x1 - x0) + rules.flat_pre[i]
                probes[t, b, columns[0] + at] = state.weights[w]
                w += 1
    if columns[1] >= 0:
        for i in range(x0, x1):
            probes[t, b, columns[1] + rules.flat_pre[i]] = I32(state.x[i])
    if columns[2] >= 0:
        for j in range(y0, y1):
            probes[t, b, columns[2] + rules.flat_post[j]] = I32(state.y[j])
