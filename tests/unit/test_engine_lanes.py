"""Sixteen synapses at a time add what one after the other would, and only where their targets differ."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from neuro.engine import build as building
from neuro.engine.circuit import (
    LIF,
    Circuit,
    FixedInDegree,
    FixedOutDegree,
    FixedProbability,
    OneToOne,
    Pairs,
    Population,
    Projection,
    Uniform,
)
from neuro.engine.lanes import LANES, add_lanes, repeats
from neuro.engine.simulation import Simulation

U = np.uintp


@njit  # not kept on disk: neuro.jit would not see a change of `add_lanes` from here
def added(inbox, to, target, s, weight, w, count):
    add_lanes(inbox, U(to), target, U(s), weight, U(w), U(count))


@pytest.mark.parametrize("index", [np.uint16, np.uint32])
@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("each", [True, False])
def test_as_one_after_the_other(index, real: bool, each: bool) -> None:
    rng = np.random.default_rng(0)
    place = 60_000 if index is np.uint16 else 200_000  # beyond 15 bits, beyond 17
    for count in range(LANES + 1):
        target = (place + rng.permutation(40)).astype(index)
        values = rng.normal(size=60) if real else rng.integers(-(1 << 15), 1 << 15, 60)
        weight = values.astype(np.float32 if real else np.int16)
        inbox = (rng.normal(size=place + 70) if real else rng.integers(-1000, 1000, place + 70)).astype(
            np.float32 if real else np.int32
        )
        want = inbox.copy()
        for k in range(count):
            want[7 + target[5 + k]] += weight[9 + k] if each else weight[3]
        added(inbox, 7, target, 5, weight if each else weight[3], 9, count)
        assert inbox.tobytes() == want.tobytes()


def test_repeats_are_seen_within_a_group_of_a_row() -> None:
    target = np.arange(100, dtype=np.uint16)
    pointer = np.array([99, 0, 20, 20, 60], np.uint32)  # rows 0..19, none, 20..59, from the second entry on
    assert not repeats(pointer, 1, 3, target, 3)
    for a, b, seen in ((0, 15, True), (15, 16, False), (0, 19, False), (20, 35, True), (19, 20, False), (52, 59, True)):
        twice = target.copy()
        twice[3 + a] = twice[3 + b]
        assert repeats(pointer, 1, 3, twice, 3) == seen


def circuit(rule, weight, delay=0.0) -> Circuit:
    cell = LIF(10e-3, 1.0, i_ext=2.0, v_start=Uniform(0.0, 1.0))
    return Circuit({"a": Population(300, cell)}, [Projection("a", "a", rule, weight, delay)], seed=3)


TWICE = Pairs(np.repeat(np.arange(300), 40), np.tile(np.r_[np.arange(39), 38], 300))
RULES = {
    "probability": (FixedProbability(0.3), True),
    "in": (FixedInDegree(100), False),  # some source meets some target twice
    "out": (FixedOutDegree(100), None),
    "one": (OneToOne(), True),
    "twice": (TWICE, False),
    "once": (Pairs(TWICE.sources, np.tile(np.arange(40), 300)), True),
}


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("weight", [0.01, Uniform(-0.05, 0.05)])
def test_same_bits_as_without(name: str, weight, monkeypatch) -> None:
    rule, expected = RULES[name]
    for threads in (1, 2):
        fast = Simulation(circuit(rule, weight), threads=threads)
        found = bool(fast._net.apart[0])
        assert expected is None or found == expected
        with monkeypatch.context() as without:
            without.setattr(building, "apart", lambda circuit, table, pools: np.zeros(len(table), np.int64))
            slow = Simulation(circuit(rule, weight), threads=threads)
        assert not slow._net.apart[0]
        got, want = (s.run(300, probes={("a", "v"): np.arange(300)}) for s in (fast, slow))
        assert got.counts["a"] > 500
        assert got.events == want.events
        assert got.probes["a", "v"].tobytes() == want.probes["a", "v"].tobytes()
        np.testing.assert_array_equal(got.spikes["a"], want.spikes["a"])
