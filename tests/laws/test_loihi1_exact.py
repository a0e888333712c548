"""Loihi 1: compiled kernel, the same code without the compiler, and unbounded integers give the same values."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from axon_loihi1 import program

from neuro.hardware.loihi1 import kernels, plain
from neuro.hardware.loihi1.contract import BRIAN2LOIHI, NENGO

PROBES = tuple((p, v) for p in "ab" for v in "uv")
PRESETS = {"nengo": NENGO, "brian2loihi": BRIAN2LOIHI}


def spikes(made, seed, steps, batch=1):
    rng = np.random.default_rng([seed, 7])
    n = made.populations["input"].size
    return (rng.random((steps, batch, n)) < rng.choice([0.05, 0.3, 1.0])).astype(np.uint8)


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


def test_the_same_without_the_compiler(tmp_path):
    """NUMBA_DISABLE_JIT=1 in a process of its own: a whole call graph as plain Python."""
    script = (
        "import sys; import numpy as np; sys.path.insert(0, sys.argv[1])\n"
        "from test_loihi1_exact import digest\n"
        "print(digest())\n"
    )
    here = Path(__file__).parent
    path = f"{here.parent}{os.pathsep}{here}"
    found = []
    for flag in ("0", "1"):
        environment = os.environ | {"NUMBA_DISABLE_JIT": flag, "PYTHONPATH": path}
        command = [sys.executable, "-c", script, str(here)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True)
        found.append(done.stdout)
    assert found[0] == found[1] != ""


def digest():
    import hashlib

    total = hashlib.sha256()
    for preset in PRESETS.values():
        for seed in range(4):
            made = program(seed, preset)
            ours = kernels.run(made, spikes(made, seed, 25, batch=2), PROBES)
            for key in PROBES:
                total.update(np.ascontiguousarray(ours.probes[key]).tobytes())
            total.update(ours.scores.tobytes() + ours.counters.synops.tobytes() + ours.counters.hops.tobytes())
    return total.hexdigest()


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
