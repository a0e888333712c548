"""Laws: the compiled kernel, the same code without the compiler, and unbounded Python integers agree to the bit."""

from __future__ import annotations

import axon_pyint_loihi2 as unbounded
import pytest
from axon_interpreted import interpreted
from axon_loihi2_programs import from_seed, programs
from axon_loihi2_results import digest, results
from axon_strategies import LAW
from axon_vectors import differences
from hypothesis import given

OTHERS = ("reset in time", "negative spike", "relu", "held back", "message floor", "resonance")


def assert_equal_to_integers(program, dense):
    ours, theirs = results(program, dense), unbounded.simulate(program, dense)
    for key, values in ours.items():
        assert not differences(str(key), values, theirs[key])
    return theirs


@LAW
@given(programs(most=12))
def test_any_program_equals_unbounded_integers(case):
    assert_equal_to_integers(*case)


@pytest.mark.parametrize("seed", range(25))
def test_larger_programs_equal_unbounded_integers(seed):
    assert_equal_to_integers(*from_seed(seed))


@pytest.mark.slow
def test_a_million_updates_reach_every_end_of_a_register():
    unbounded.SEEN.clear()
    updates, spikes, seed = 0, 0, 1000
    while updates < 1_000_000:
        found = assert_equal_to_integers(*from_seed(seed, most=100))
        updates, spikes, seed = updates + int(found["updates"].sum()), spikes + int(found["spikes"].sum()), seed + 1
    print(f"{seed - 1000} programs, {updates} updates, {spikes} spikes, {dict(unbounded.SEEN)}")
    assert spikes > 10_000
    for what in ("toward zero", "floor", "u above", "u below", "u at an end", "clip", "wrap24", "int32", *OTHERS):
        assert unbounded.SEEN[what] > 50, f"the fuzz never saw {what}"


def test_the_compiler_changes_nothing():
    """Every kernel of the call graph as plain Python, in a process of its own."""
    seeds = (2, 3, 4, 9, 16, 17, 21, 28)
    compiled = [f"{seed} {digest(results(*from_seed(seed)))}" for seed in seeds]
    assert interpreted("axon_loihi2_results.py", 30, *seeds) == compiled


@pytest.mark.slow
def test_the_compiler_changes_nothing_in_a_million_updates():
    """The programs of test_a_million_updates_reach_every_end_of_a_register."""
    updates, spikes, seed, compiled = 0, 0, 1000, []
    while updates < 1_000_000:
        found = results(*from_seed(seed, most=100))
        compiled.append(f"{seed} {digest(found)}")
        updates, spikes, seed = updates + int(found["updates"].sum()), spikes + int(found["spikes"].sum()), seed + 1
    print(f"{seed - 1000} programs, {updates} updates, {spikes} spikes")
    assert spikes > 10_000
    assert interpreted("axon_loihi2_results.py", 100, *range(1000, seed)) == compiled
