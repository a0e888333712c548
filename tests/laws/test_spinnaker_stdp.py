"""Laws of pair STDP on SpiNNaker 1: compiled loops, the same without compiler, and plain integers agree everywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from axon_spinnaker_stdp import digest, random_core, replay
from axon_vectors import differences

from neuro.errors import NetworkError
from neuro.hardware.spinnaker1 import stdp_plain as plain
from neuro.hardware.spinnaker1.stdp import PairSTDP, decay_table, rule_words, rules_of

TESTS = Path(__file__).parents[1]
NAMES = ("state", "row_mem", "synapses")


def compare(seeds: range) -> dict[str, int]:
    """Compiled loops against plain integers; how much was updated, and what the cores reached."""
    names = ("updates", "spikes", "saturated", "skipped", "lost", "weights", "full", "wrapped", "ends")
    seen = dict.fromkeys(names, 0)
    for seed in seeds:
        core = random_core(seed)
        ours, theirs = replay(core), plain.replay(core)
        for name in NAMES:
            assert not differences(f"seed {seed} {name}", ours[name].astype(np.int64), theirs[name].astype(np.int64))
        assert all(ours[name] == theirs[name] for name in ("sat", "skipped", "lost")), seed
        states = ours["state"]
        seen["updates"] += states[:, :, 0].size
        seen["spikes"] += int(states[:, :, 4].sum())
        seen["saturated"] += int(ours["sat"])
        seen["skipped"] += int(ours["skipped"])
        seen["lost"] += int(ours["lost"])
        seen["weights"] += int((ours["row_mem"][0] != ours["row_mem"][-1]).sum())
        seen["full"] += int((states[:, :, 4].sum(axis=0) > 15).sum())
        seen["wrapped"] += int((np.abs(np.diff(states[:, :, 0].astype(np.int64), axis=0)) > 1 << 31).sum())
        seen["ends"] += int((np.abs(states[:, :, 0].astype(np.int64)) >= (1 << 31) - 1).sum())
    return seen


def test_compiled_is_plain() -> None:
    seen = compare(range(40))
    assert all(seen.values()), seen


@pytest.mark.slow
def test_compiled_is_plain_on_a_million_updates() -> None:
    seen = compare(range(100, 100 + 1600))
    assert seen["updates"] >= 1_000_000
    assert all(seen.values()), seen


def _without_compiler(seeds: range) -> dict[int, str]:
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(TESTS)}
    command = [sys.executable, str(TESTS / "axon_spinnaker_stdp.py"), *map(str, seeds)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    return {int(line.split()[0]): line.split()[1] for line in done.stdout.splitlines()}


def test_compiled_is_interpreted() -> None:
    seeds = range(6)
    assert _without_compiler(seeds) == {seed: digest(replay(random_core(seed))) for seed in seeds}


@pytest.mark.slow
def test_compiled_is_interpreted_on_a_million_updates() -> None:
    seeds = range(100, 100 + 1600)
    assert _without_compiler(seeds) == {seed: digest(replay(random_core(seed))) for seed in seeds}


@pytest.mark.slow
def test_without_the_compiler_the_vectors_are_met_as_well() -> None:
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    path = TESTS / "oracle" / "test_spinnaker_stdp.py"
    command = [sys.executable, "-m", "pytest", "-q", str(path), "-k", "row_memory", "-p", "no:cacheprovider"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, cwd=TESTS.parent)
    assert done.returncode == 0, done.stdout[-2000:]
    assert " passed" in done.stdout


def test_the_table_is_the_published_one() -> None:
    """floor(exp(-i/tau) 2048) while it is at least 1, an even number of entries."""
    for tau in (1.0, 3.0, 16.7, 20.0):
        lut = decay_table(tau, 1.0)
        assert lut.size % 2 == 0
        assert lut[0] == 2048
        assert (lut == [int(2048 * np.exp(-i / tau)) for i in range(lut.size)]).all()
        assert 2048 * np.exp(-lut.size / tau) < 1


def test_a_rule_survives_its_words() -> None:
    rule = PairSTDP(3.0, 7.0, 6.0, 5.5, 0.25, 6.0, "multiplicative", backprop_delay=False)
    rules = rules_of([(rule_words(rule, 1.0), rule.weight_dependence)])
    assert rules.backprop[0] == 0
    assert rules.kind[0] == 1
    assert rules.limits[0].tolist() == [[8192, 196608, 196608, 180224]] * 2
    assert rules.lut[0, 0, : rules.size[0, 0]].tolist() == decay_table(3.0, 1.0).tolist()
    assert rules.lut[1, 0, : rules.size[1, 0]].tolist() == decay_table(7.0, 1.0).tolist()


def test_a_rule_out_of_range_names_everything() -> None:
    with pytest.raises(NetworkError) as caught:
        PairSTDP(tau_plus=0.0, tau_minus=float("nan"), w_min=2.0, w_max=1.0, weight_dependence="triplet", a_plus=1e6)
    assert len(caught.value.violations) == 5
