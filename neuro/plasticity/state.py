"""Rules, synapses and their memory as the kernels read them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from neuro.errors import NetworkError
from neuro.plasticity.kernels import Ints, Law, Memory, Synapses
from neuro.plasticity.rules import SIMULTANEOUS, PairSTDP, Rule, TripletSTDP, bounds_of, parts_of

Reals = NDArray[np.float64]
WHOLE = ("kind", "nearest", "order", "eligible", "scales")  # of a Law


def law_of(rule: Rule, dt: float) -> Law:
    """A rule for steps of dt seconds.

    Raises:
        NetworkError: it is no rule, or an interval of less than a step.
    """
    spikes, reward, scaling = parts_of(rule)
    low, high = bounds_of(rule)
    scales = round(scaling.interval / dt) if scaling is not None else 0
    if scaling is not None and scales < 1:
        raise NetworkError(f"interval of a Homeostasis must be a step ({dt:g} s) or more, got {scaling.interval:g} s")

    def keep(tau: float) -> float:
        return math.exp(-dt / tau)

    triplet = spikes if isinstance(spikes, TripletSTDP) else None
    pair = spikes if isinstance(spikes, PairSTDP) else None
    timed = triplet or pair
    law = Law(
        decay_x1=keep(timed.tau_plus) if timed else 0.0,
        decay_x2=keep(triplet.tau_x) if triplet else 0.0,
        decay_y1=keep(timed.tau_minus) if timed else 0.0,
        decay_y2=keep(triplet.tau_y) if triplet else 0.0,
        a2_plus=triplet.a2_plus if triplet else pair.a_plus if pair else 0.0,
        a2_minus=triplet.a2_minus if triplet else pair.a_minus if pair else 0.0,
        a3_plus=triplet.a3_plus if triplet else 0.0,
        a3_minus=triplet.a3_minus if triplet else 0.0,
        w_min=timed.w_min if timed else low,
        w_max=timed.w_max if timed else high,
        low=low,
        high=high,
        kind=int(timed is not None and timed.weight_dependence == "multiplicative"),
        nearest=int(timed is not None and timed.pairing == "nearest"),
        order=SIMULTANEOUS.index(timed.simultaneous) if timed else 0,
        eligible=int(reward is not None),
        keep=-dt / reward.tau_eligibility if reward else 0.0,
        decay_reward=keep(reward.tau_reward) if reward and reward.tau_reward > 0 else 0.0,
        scales=scales,
        decay_rate=keep(scaling.tau_rate) if scaling else 0.0,
        per_spike=1 / scaling.tau_rate if scaling else 0.0,
        speed=scaling.speed * scales * dt if scaling else 0.0,
        rate=scaling.rate if scaling else 1.0,
    )
    # one signature of the kernels, whatever numbers a rule was given
    return Law._make(int(value) if name in WHOLE else float(value) for name, value in law._asdict().items())


def synapses_of(rule: Rule, pre: int, post: int, source: Ints, target: Ints, delay: Ints) -> tuple[Synapses, Ints]:
    """Synapses [n] in the order of the kernels, and their places in the order given. delay: steps, 0 or more.

    Raises:
        NetworkError: a neuron that is not there, or a negative delay.
    """
    bad = [
        f"{what} must lie in 0..{size - 1}, found {index.min()}..{index.max()}"
        for what, index, size in (("sources", source, pre), ("targets", target, post))
        if index.size and not (index.min() >= 0 and index.max() < size)
    ]
    bad += [f"delays are 0 steps or more, found {delay.min()}"] if delay.size and delay.min() < 0 else []
    if bad:
        raise NetworkError("plastic synapses cannot be built", bad)
    spikes, _, _ = parts_of(rule)
    where = spikes.delays if spikes is not None else "ignored"
    none = np.zeros_like(delay)
    late_pre = delay if where == "axonal" else none
    late_post = delay if where == "dendritic" else none
    order = np.lexsort((np.arange(source.size), target, late_pre, source))
    source, target, late_pre, late_post = source[order], target[order], late_pre[order], late_post[order]
    turned = np.lexsort((np.arange(source.size), late_post, target))
    low_pre, bins_pre, by_source = _rows(source, late_pre, pre)
    low_post, bins_post, by_target = _rows(target[turned], late_post[turned], post)
    return Synapses(
        pre=pre,
        post=post,
        source=source,
        target=target,
        late_pre=late_pre,
        late_post=late_post,
        travel=delay[order] - late_pre + 1,
        low_pre=low_pre,
        bins_pre=bins_pre,
        by_source=by_source,
        low_post=low_post,
        bins_post=bins_post,
        by_target=by_target,
        turned=turned.astype(np.int64),
    ), order.astype(np.int64)


def _rows(owner: Ints, late: Ints, size: int) -> tuple[int, int, Ints]:
    """Least lateness, how many there are, and where the row of each (owner, lateness) begins."""
    low = int(late.min(initial=1 << 30)) if late.size else 0
    bins = int(late.max(initial=0)) - low + 1 if late.size else 1
    number = owner * bins + late - low
    return low, bins, np.searchsorted(number, np.arange(size * bins + 1)).astype(np.int64)


def memory_of(rule: Rule, syn: Synapses, weight: Reals) -> Memory:
    """Before step 0. weight: [n], in the order of the kernels.

    Raises:
        NetworkError: a weight outside of the rule's bounds.
    """
    low, high = bounds_of(rule)
    if weight.size and not (weight.min() >= low and weight.max() <= high):
        raise NetworkError(f"weights must start in {low:g}..{high:g}, found {weight.min():g}..{weight.max():g}")
    _, _, scaling = parts_of(rule)
    slots_pre, slots_post = (int(late.max(initial=0)) + 1 for late in (syn.late_pre, syn.late_post))
    return Memory(
        weight=weight.astype(np.float64),
        eligible=np.zeros(weight.size),
        since=np.zeros(weight.size, np.int64),
        x=np.zeros((2, 2, slots_pre, syn.pre)),
        y=np.zeros((2, 2, slots_post, syn.post)),
        fired_pre=np.zeros((slots_pre, max(syn.pre, 1)), np.int64),
        count_pre=np.zeros(slots_pre, np.int64),
        fired_post=np.zeros((slots_post, max(syn.post, 1)), np.int64),
        count_post=np.zeros(slots_post, np.int64),
        rate=np.full(syn.post, scaling.rate if scaling is not None else 0.0),
        reward=np.zeros(1),
    )
