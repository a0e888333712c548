"""STDP rules in floats against their definitions: plain loops, closed forms, and the data they were made for."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from axon_plasticity import arrivals, trains, weight_after

from neuro.errors import NetworkError, SimulationError
from neuro.plasticity import Homeostasis, PairSTDP, RewardSTDP, TripletSTDP
from neuro.plasticity.follow import follow
from neuro.plasticity.rules import DELAYS, DEPENDENCES, PAIRINGS, SIMULTANEOUS

DT = 1e-3
PAIR = PairSTDP(8e-3, 12e-3, 0.11, 0.13, -0.2, 1.1)
TRIPLET = TripletSTDP(8e-3, 12e-3, 30e-3, 25e-3, 0.05, 0.06, 0.03, 0.02, -0.2, 1.1)
KINDS = list(itertools.product((PAIR, TRIPLET), PAIRINGS, SIMULTANEOUS, DEPENDENCES, DELAYS))


def of(base, pairing, simultaneous, dependence, delays):
    return replace(base, pairing=pairing, simultaneous=simultaneous, weight_dependence=dependence, delays=delays)


@pytest.mark.parametrize(("base", "dependence"), list(itertools.product((PAIR, TRIPLET), DEPENDENCES)))
def test_every_kind_equals_the_plain_loops(base, dependence):
    """Each pairing, order within a step and place of the delay; bounds are met on the way."""
    steps, moved, clipped = 60, 0, 0
    for number, kind in enumerate(k for k in KINDS if k[0] is base and k[3] == dependence):
        rule = of(*kind)
        pre, post = trains(number, steps)
        rng = np.random.default_rng([1, number])
        start, delay = rng.uniform(-0.2, 1.1, (3, 2)), rng.integers(0, 6, (3, 2))
        got = follow(rule, pre, post, start, dt=DT, delay=delay).weights
        for i, j in np.ndindex(3, 2):
            wanted = weight_after(rule, pre[:, i], post[:, j], int(delay[i, j]), start[i, j], DT)
            assert math.isclose(got[i, j], wanted, rel_tol=1e-12, abs_tol=1e-13), (kind, i, j)
            moved += abs(wanted - start[i, j]) > 1e-3
            clipped += wanted in (rule.w_min, rule.w_max)
    assert moved > 100
    assert clipped > 0 or dependence == "multiplicative"


@pytest.mark.parametrize("delays", DELAYS)
def test_without_bounds_the_change_is_a_sum_over_all_pairs(delays):
    rule = replace(PAIR, w_min=-math.inf, w_max=math.inf, simultaneous="neither", delays=delays)
    pre, post = trains(5, 200, 4, 3)
    delay = np.arange(12).reshape(4, 3)
    got = follow(rule, pre, post, np.zeros((4, 3)), dt=DT, delay=delay).weights
    for i, j in np.ndindex(4, 3):
        came, back = (
            np.array([t for t in a if t < 200]) for a in arrivals(rule, pre[:, i], post[:, j], int(delay[i, j]))
        )
        gap = (back[None, :] - came[:, None]) * DT
        wanted = rule.a_plus * np.exp(-gap[gap > 0] / rule.tau_plus).sum()
        wanted -= rule.a_minus * np.exp(gap[gap < 0] / rule.tau_minus).sum()
        assert math.isclose(got[i, j], wanted, rel_tol=1e-11)


def test_the_window_of_a_pair():
    """dw of one spike on each side, source at 50, target at 50 + gap."""
    for gap, order in itertools.product((-30, -1, 0, 1, 17), SIMULTANEOUS):
        pre, post = np.zeros((100, 1), np.uint8), np.zeros((100, 1), np.uint8)
        pre[50], post[50 + gap] = 1, 1
        rule = replace(PAIR, simultaneous=order)
        up = gap > 0 or (gap == 0 and order in ("pre_first", "both"))
        down = gap < 0 or (gap == 0 and order in ("post_first", "both"))
        wanted = 0.5 + up * 0.11 * math.exp(-abs(gap) / 8) - down * 0.13 * math.exp(-abs(gap) / 12)
        got = follow(rule, pre, post, [[0.5]], dt=DT).weights
        assert math.isclose(float(got[0, 0]), wanted, rel_tol=1e-13), (gap, order)


def test_synapses_in_a_list_and_the_steps_kept():
    pre, post = trains(9, 50, 4, 4)
    source, target = np.array([3, 0, 0, 2]), np.array([1, 1, 3, 0])
    start, delay = np.array([0.1, 0.5, 0.3, 0.9]), np.array([0, 2, 1, 4])
    some = follow(PAIR, pre, post, start, dt=DT, delay=delay, synapses=(source, target), every=10)
    dense_delay = np.zeros((4, 4), int)
    dense_delay[source, target] = delay
    dense = np.full((4, 4), 0.2)
    dense[source, target] = start
    whole = follow(PAIR, pre, post, dense, dt=DT, delay=dense_delay)
    assert np.array_equal(some.weights, whole.weights[source, target])
    assert some.kept.shape == (5, 4)
    assert np.array_equal(some.kept[-1], some.weights)
    early = follow(PAIR, pre[:20], post[:20], start, dt=DT, delay=delay, synapses=(source, target))
    assert np.array_equal(some.kept[1], early.weights)


@pytest.mark.parametrize("rule", [PAIR, replace(TRIPLET, weight_dependence="multiplicative")], ids=["pair", "triplet"])
@pytest.mark.parametrize("tau_reward", [0.0, 15e-3])
def test_reward_does_what_the_eligibility_remembers(rule, tau_reward):
    wrapped = RewardSTDP(rule, tau_eligibility=40e-3, tau_reward=tau_reward)
    pre, post = trains(3, 80)
    reward = np.zeros(80)
    reward[[30, 31, 55, 79]] = 0.7, -0.4, 1.0, -0.9
    start = np.random.default_rng(4).uniform(0, 1, (3, 2))
    got = follow(wrapped, pre, post, start, dt=DT, reward=reward)
    for i, j in np.ndindex(3, 2):
        wanted = weight_after(wrapped, pre[:, i], post[:, j], 0, start[i, j], DT, reward)
        assert math.isclose(got.weights[i, j], wanted, rel_tol=1e-11), (i, j)
        assert abs(wanted - start[i, j]) > 1e-4
    still = follow(wrapped, pre, post, start, dt=DT)
    assert np.array_equal(still.weights, start)
    assert (still.eligibility != 0).all()


def test_scaling_equals_the_plain_loop_and_ends_at_its_rate():
    rule = Homeostasis(50.0, tau_rate=20e-3, speed=4.0, interval=5e-3, w_max=3.0)
    pre, post = trains(7, 400, 2, 2, 0.03)
    post[:, 0] = np.arange(400) % 20 == 0  # its own rate: 50 Hz
    post[:, 1] = 1
    got = follow(rule, pre, post, np.full((2, 2), 1.0), dt=DT)
    for j in range(2):
        r, w = 50.0, 1.0
        for t in range(400):
            r = r * math.exp(-1 / 20) + post[t, j] / 20e-3
            if (t + 1) % 5 == 0:
                w = min(max(w * (1 + 4.0 * 5e-3 * (50 - r) / 50), 0.0), 3.0)
        assert np.allclose(got.weights[:, j], w, rtol=1e-12)
    assert 0.8 < got.weights[0, 0] < 1.2
    assert got.weights[0, 1] < 1e-3


def test_scaling_goes_with_a_rule():
    """Homeostasis around a rule is the rule, then scaling, step by step."""
    outer = Homeostasis(100.0, PAIR, tau_rate=30e-3, speed=2.0, interval=1e-3, w_min=0.0)
    pre, post = trains(8, 40, 1, 1)
    w, r = 0.6, 100.0
    for t in range(40):
        before = weight_after(PAIR, pre[:t, 0], post[:t, 0], 0, 0.6, DT)
        after = weight_after(PAIR, pre[: t + 1, 0], post[: t + 1, 0], 0, 0.6, DT)
        w = min(max(w + after - before, 0.0), 1.1)
        r = r * math.exp(-1 / 30) + post[t, 0] / 30e-3
        w = min(max(w * (1 + 2e-3 * (100 - r) / 100), 0.0), 1.1)
    got = follow(outer, pre, post, [[0.6]], dt=DT).weights[0, 0]
    assert 0.0 < w < 1.1
    assert math.isclose(got, w, rel_tol=1e-11)


def pairings(rule, hz, gap, count=75, dt=1e-4):
    """dw of so many pairs at a rate, target ``gap`` seconds after source."""
    every = round(1 / hz / dt)
    pre, post = np.zeros((2, every * count + 600, 1), np.uint8)
    at = 300 + every * np.arange(count)
    pre[at], post[at + round(gap / dt)] = 1, 1
    return float(follow(rule, pre, post, [[1.0]], dt=dt).weights[0, 0]) - 1


def test_triplets_meet_what_pairs_cannot():
    """Visual cortex, 60 pairings (Sjostrom et al. 2001, as Pfister & Gerstner 2006 fit them): source before target does
    little at 0.1 Hz and much at 50 Hz; the other way round the sign changes between 20 and 40 Hz. Of a pair rule
    neither is true of any constants."""
    triplet = replace(TripletSTDP(), w_max=10.0)
    found = {(hz, gap): pairings(triplet, hz, gap, 60) for hz in (1, 20, 50) for gap in (10e-3, -10e-3)}
    assert abs(found[1, 10e-3]) < 0.06
    assert found[50, 10e-3] > 0.4
    assert found[1, -10e-3] < -0.2
    assert found[20, -10e-3] < 0 < found[50, -10e-3]
    pair = PairSTDP(16.8e-3, 33.7e-3, 7e-3, 7e-3, 0.0, 10.0)
    assert pairings(pair, 1, 10e-3, 60) > 0.2
    assert pairings(pair, 50, -10e-3, 60) < 0


@pytest.mark.parametrize(
    ("make", "lines"),
    [
        (lambda: PairSTDP(0.0, math.nan, math.inf, w_min=2.0, pairing="some", delays="none"), 6),
        (lambda: TripletSTDP(tau_x=-1.0, simultaneous="first", w_max=math.inf, weight_dependence="multiplicative"), 3),
        (lambda: RewardSTDP(RewardSTDP(), 0.0, -1.0), 3),
        (lambda: Homeostasis(0.0, 3, speed=math.inf, w_min=1.0, w_max=0.0), 4),
    ],
)
def test_bad_rules_name_everything(make, lines):
    with pytest.raises(NetworkError) as caught:
        make()
    assert len(caught.value.violations) == lines, caught.value


def test_what_cannot_be_followed_is_named():
    pre, post = trains(1, 10)
    with pytest.raises(SimulationError) as caught:
        follow(PAIR, pre, post[:9], np.zeros((2, 2)), delay=0.5, reward=1.0, every=-1)
    assert len(caught.value.violations) == 5, caught.value
    with pytest.raises(NetworkError, match=r"must start in -0\.2\.\.1\.1"):
        follow(PAIR, pre, post, np.full((3, 2), 2.0))
    with pytest.raises(NetworkError, match=r"sources must lie in 0\.\.2"):
        follow(PAIR, pre, post, np.zeros(1), synapses=([3], [0]))
    with pytest.raises(NetworkError, match="a step"):
        follow(Homeostasis(1.0, interval=1e-4), pre, post, np.zeros((3, 2)))
    with pytest.raises(NetworkError, match="nothing between"):
        follow(Homeostasis(1.0, PAIR, w_min=2.0), pre, post, np.zeros((3, 2)))
    with pytest.raises(SimulationError, match="0 and 1"):
        follow(PAIR, pre * 2, post, np.zeros((3, 2)))
