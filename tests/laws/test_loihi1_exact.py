"""Loihi 1: compiled kernel, the same code without the compiler, and unbounded integers give the same values."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from axon_interpreted import interpreted
from axon_loihi1 import LIMIT, PROBES, digest, program, spikes

from neuro.hardware.loihi1 import kernels, plain
from neuro.hardware.loihi1.contract import BRIAN2LOIHI, NENGO

PRESETS = {"nengo": NENGO, "brian2loihi": BRIAN2LOIHI}


def assert_plain_agrees(seed, preset, steps):
    made = program(seed, preset)
    dense = spikes(made, seed, steps)
    ours = kernels.run(made, dense, PROBES)
    theirs = plain.simulate(made, dense[:, 0], preset == NENGO)
    for key in PROBES:
        assert np.array_equal(ours.probes[key][:, 0], theirs[key]), key
    for name in "ab":
        assert np.array_equal(ours.spikes[name][:, 0], theirs[name, "s"])
    return sum(made.populations[n].size for n in "ab") * ours.steps, ours


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_fuzz(preset):
    fired = overflowed = 0
    for seed in range(25):
        _, ours = assert_plain_agrees(seed, preset, 60)
        fired += int(ours.counters.spikes.sum())
        overflowed += any(np.abs(ours.probes[p, "u"]).max() > 1 << 22 for p in "ab")
    assert fired > 500
    if preset == NENGO:
        assert overflowed > 3, "the fuzz must reach the ends of u"


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_a_million_neuron_updates(preset):
    updates = seed = 0
    while updates < 1_000_000:
        updates += assert_plain_agrees(1000 + seed, preset, 400)[0]
        seed += 1


def compiled(seed, preset, steps, batch=1):
    made = program(seed, preset)
    return kernels.run(made, spikes(made, seed, steps, batch), PROBES)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_the_same_without_the_compiler(preset):
    """NUMBA_DISABLE_JIT=1 in a process of its own: a whole call graph as plain Python."""
    wanted = [f"{seed} {digest(compiled(seed, preset, 25, 2))}" for seed in range(4)]
    assert interpreted("axon_loihi1.py", preset, 25, 2, *range(4)) == wanted


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_a_million_updates_without_the_compiler(preset):
    """The programs of test_a_million_neuron_updates."""
    seen, seed, wanted = Counter(), 1000, []
    while seen["updates"] < 1_000_000:
        ours = compiled(seed, preset, 400)
        wanted.append(f"{seed} {digest(ours)}")
        seen["updates"] += int(ours.counters.updates.sum())
        seen["spikes"] += int(ours.counters.spikes.sum())
        for name in "ab":
            u, v = (ours.probes[name, x].astype(np.int64) for x in "uv")
            seen["u wrapped"] += int((np.abs(np.diff(u, axis=0)) > LIMIT).sum())
            seen["v at an end"] += int((np.abs(v) == LIMIT).sum())
        seed += 1
    print(f"{seed - 1000} programs, {dict(seen)}")
    assert seen["spikes"] > 10_000
    if preset == NENGO:  # the other has no ends
        assert min(seen["u wrapped"], seen["v at an end"]) > 1000
    assert interpreted("axon_loihi1.py", preset, 400, 1, *range(1000, seed)) == wanted


def test_samples_do_not_depend_on_each_other_or_on_threads(monkeypatch):
    made = program(3, NENGO)
    dense = spikes(made, 3, 50, batch=5)
    whole = kernels.run(made, dense, PROBES)
    monkeypatch.setattr(kernels, "_threads", lambda: 3)
    threaded = kernels.run(made, dense, PROBES)
    for key in PROBES:
        alone = [kernels.run(made, dense[:, k : k + 1], PROBES).probes[key] for k in range(5)]
        assert np.array_equal(whole.probes[key], np.concatenate(alone, axis=1))
        assert np.array_equal(whole.probes[key], threaded.probes[key])


def test_counters_are_what_they_say():
    made = program(5, NENGO)
    dense = spikes(made, 5, 40)
    ours = kernels.run(made, dense)
    c = ours.counters
    fan_out = {n: np.zeros(p.size, np.int64) for n, p in made.populations.items()}
    cores = {n: [set() for _ in range(p.size)] for n, p in made.populations.items()}
    for p in made.projections:
        np.add.at(fan_out[p.source], p.params["col"], 1)
        for col, row in zip(p.params["col"], p.params["row"], strict=True):
            cores[p.source][col].add(int(made.placement.core_of[p.target][row]))
    assert c.synops.sum() == sum(int((ours.spikes[n][:, 0] * fan_out[n]).sum()) for n in fan_out)
    assert c.spikes.sum() == sum(int(ours.spikes[n].sum()) for n in "ab")
    assert c.injected.sum() == dense.sum()
    assert c.packets.sum() == sum(
        int(ours.spikes[n][:, 0, i].sum()) * len(cores[n][i]) for n in "ab" for i in range(len(cores[n]))
    )
    xy = made.placement.xy
    hops = 0
    for n in "ab":
        for i, reached in enumerate(cores[n]):
            own = xy[made.placement.core_of[n][i]]
            hops += int(ours.spikes[n][:, 0, i].sum()) * sum(int(np.abs(own - xy[k]).sum()) for k in reached)
    assert c.hops.sum() == hops
    assert np.array_equal(c.memory, 3 * c.synops)
