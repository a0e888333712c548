"""STDP by its definition: plain loops over all spikes that arrived before, one synapse at a time, in Python numbers."""

from __future__ import annotations

import math

import numpy as np

from neuro.plasticity import RewardSTDP, TripletSTDP


def trains(seed, steps, n_pre=3, n_post=2, rate=0.25):
    rng = np.random.default_rng(seed)
    return ((rng.random((steps, n)) < rate).astype(np.uint8) for n in (n_pre, n_post))


def arrivals(rule, pre, post, delay):
    """Steps in which spikes reach a synapse, from 0 and 1 per step."""
    axon = delay if rule.delays == "axonal" else 0
    dendrite = delay if rule.delays == "dendritic" else 0
    return [int(t) + axon for t in np.flatnonzero(pre)], [int(t) + dendrite for t in np.flatnonzero(post)]


def trace(rule, times, now, tau, dt, include):
    """Of spikes before ``now``, and of one at ``now`` where it counts."""
    past = [t for t in times if t < now or (t == now and include)]
    if rule.pairing == "nearest":
        past = past[-1:]
    return sum(math.exp(-(now - t) * dt / tau) for t in past)


def changes(rule, pre, post, delay, dt, steps):
    """(step, up, amount before the dependence on the weight), in the order in which they happen."""
    found = []
    came, back = arrivals(rule, pre, post, delay)
    triplet = isinstance(rule, TripletSTDP)
    for t in range(steps):
        ups, downs = [], []
        if t in back:
            together = rule.simultaneous in ("pre_first", "both")
            a2, a3 = (rule.a2_plus, rule.a3_plus) if triplet else (rule.a_plus, 0.0)
            slow = trace(rule, back, t, rule.tau_y, dt, False) if triplet else 0.0
            ups = [(t, True, trace(rule, came, t, rule.tau_plus, dt, together) * (a2 + a3 * slow))]
        if t in came:
            together = rule.simultaneous in ("post_first", "both")
            a2, a3 = (rule.a2_minus, rule.a3_minus) if triplet else (rule.a_minus, 0.0)
            slow = trace(rule, came, t, rule.tau_x, dt, False) if triplet else 0.0
            downs = [(t, False, trace(rule, back, t, rule.tau_minus, dt, together) * (a2 + a3 * slow))]
        found += ups + downs if rule.simultaneous == "post_first" else downs + ups
    return found


def signed(rule, w, up, amount):
    if rule.weight_dependence == "multiplicative":
        return amount * (rule.w_max - w) if up else -amount * (w - rule.w_min)
    return amount if up else -amount


def weight_after(rule, pre, post, delay, w, dt, reward=None):
    """The weight of one synapse after all steps."""
    inner = rule.rule if isinstance(rule, RewardSTDP) else rule
    happens = changes(inner, pre, post, delay, dt, len(pre))
    if inner is rule:
        for _, up, amount in happens:
            w = min(max(w + signed(rule, w, up, amount), rule.w_min), rule.w_max)
        return w
    said = []  # (step, what the rule would have added)
    for t in range(len(pre)):
        said += [(t, signed(inner, w, up, amount)) for s, up, amount in happens if s == t]
        c = sum(x * math.exp(-(t - s) * dt / rule.tau_eligibility) for s, x in said)
        if rule.tau_reward > 0:
            d = sum(reward[s] * math.exp(-(t - s) * dt / rule.tau_reward) for s in range(t + 1))
        else:
            d = reward[t]
        w = min(max(w + d * c, inner.w_min), inner.w_max)
    return w
