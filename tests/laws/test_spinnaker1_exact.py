"""Laws: the compiled machine, the same code without the compiler, and Python integers agree to the bit."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from axon_interpreted import interpreted
from axon_spinnaker1 import compiled_results, digest, plain_results, probes_of, random_program
from axon_vectors import differences

from neuro.hardware.spinnaker1 import plain
from neuro.hardware.spinnaker1.machine import Machine


def assert_equal_to_integers(program, dense):
    ours, theirs = compiled_results(program, dense), plain_results(program, dense)
    for key, values in theirs.items():
        assert not differences(key, ours[key].astype(np.int64), values)
    return ours


@pytest.mark.parametrize("seed", range(30))
def test_any_program_equals_python_integers(seed):
    assert_equal_to_integers(*random_program(seed))


@pytest.mark.slow
def test_a_million_updates_reach_every_end_of_a_register(monkeypatch):
    seen, updates, spikes, seed = Counter(), 0, 0, 1000
    signed = plain._signed

    def watched(x):
        found = signed(x)
        seen["wrapped"] += int(np.sum(found != x))
        return found

    monkeypatch.setattr(plain, "_signed", watched)
    while updates < 1_000_000:
        ours = assert_equal_to_integers(*random_program(seed))
        updates, spikes, seed = updates + int(ours["updates"].sum()), spikes + int(ours["spikes"].sum()), seed + 1
        seen["saturated"] += int(ours["saturated"].sum())
        seen["refractory"] += sum(int((v > 0).sum()) for k, v in ours.items() if k.endswith(".refract"))
        seen["negative timer"] += sum(int((v < 0).sum()) for k, v in ours.items() if k.endswith(".refract"))
        seen["ends of v"] += sum(
            int((np.abs(v.astype(np.int64)) > 2**31 - 3).sum()) for k, v in ours.items() if k.endswith(".v")
        )
    print(f"{seed - 1000} programs, {updates} updates, {spikes} spikes, {dict(seen)}")
    assert spikes > 10_000
    for what in ("wrapped", "saturated", "refractory", "negative timer", "ends of v"):
        assert seen[what] > 1000, f"the fuzz never saw {what}"


def test_the_compiler_changes_nothing():
    """Every kernel of the call graph as plain Python, in a process of its own."""
    seeds = (1, 4, 6, 9, 12)
    compiled = [f"{seed} {digest(compiled_results(*random_program(seed)))}" for seed in seeds]
    assert interpreted("axon_spinnaker1.py", *seeds) == compiled


@pytest.mark.slow
def test_the_compiler_changes_nothing_in_a_million_updates():
    """The programs of test_a_million_updates_reach_every_end_of_a_register."""
    updates, spikes, saturated, seed, compiled = 0, 0, 0, 1000, []
    while updates < 1_000_000:
        ours = compiled_results(*random_program(seed))
        compiled.append(f"{seed} {digest(ours)}")
        updates, spikes, seed = updates + int(ours["updates"].sum()), spikes + int(ours["spikes"].sum()), seed + 1
        saturated += int(ours["saturated"].sum())
    print(f"{seed - 1000} programs, {updates} updates, {spikes} spikes, {saturated} saturated")
    assert min(spikes, saturated) > 10_000
    assert interpreted("axon_spinnaker1.py", *range(1000, seed)) == compiled


@pytest.mark.parametrize("seed", range(8))
def test_threads_and_pieces_change_nothing(seed):
    program, dense = random_program(seed)
    found = []
    for threads, cuts in ((1, [0, len(dense)]), (3, [0, len(dense) // 2, len(dense)])):
        machine = Machine(program, threads_used=threads)
        t, x = np.nonzero(dense[:, 0])
        ends = np.searchsorted(t, np.arange(len(dense) + 1))
        parts = [
            machine.advance(b - a, x, ends[a : b + 1], probes=probes_of(program)) for a, b in itertools.pairwise(cuts)
        ]
        found.append(
            {f"{k}": np.concatenate([p.probes[k] for p in parts]) for k in probes_of(program)}
            | {k: np.concatenate([p.counters[k] for p in parts]) for k in parts[0].counters}
            | {"spikes": np.concatenate([p.spikes for p in parts])}
        )
    for key, values in found[0].items():
        assert not differences(key, values, found[1][key])
