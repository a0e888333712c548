"""SpiNNaker 2: compiled loops, the same without the compiler, and NumPy agree in every bit; laws of its compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from axon_spinnaker2 import digest, random_program, results
from axon_vectors import differences

from neuro import ir, reference
from neuro.hardware import compile as compile_network
from neuro.hardware import simulate
from neuro.hardware.spinnaker2 import plain

TESTS = Path(__file__).parents[1]


def compare(seeds: range) -> dict[str, int]:
    seen = {"updates": 0, "spikes": 0, "conv": 0, "dense": 0, "sparse": 0, "delayed": 0, "infinite": 0, "denormal": 0}
    for seed in seeds:
        program, dense = random_program(seed)
        ours = results(seed)
        for k in range(dense.shape[1]):
            for key, theirs in plain.simulate(program, dense[:, k]).items():
                assert not differences(f"seed {seed} {key}", ours[key][:, k].astype(np.int64), theirs.astype(np.int64))
        for p in program.projections:
            seen[p.kind] += 1
            seen["delayed"] += int("delay_steps" in p.params)
        for (_, variable), values in ours.items():
            if variable == "v_bits":
                v = values.view(np.float32)
                seen["updates"] += v.size
                seen["infinite"] += int(np.isinf(v).sum())
                seen["denormal"] += int(((v != 0) & (np.abs(v) < np.finfo(np.float32).tiny)).sum())
            seen["spikes"] += int(values.sum()) if variable == "s" else 0
    return seen


def test_compiled_is_plain() -> None:
    seen = compare(range(60))
    assert all(seen.values()), seen


@pytest.mark.slow
def test_compiled_is_plain_on_a_million_updates() -> None:
    seen = compare(range(1000, 1000 + 950))
    assert seen["updates"] >= 1_000_000
    assert all(seen.values()), seen


def _without_compiler(seeds: range) -> dict[int, str]:
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(TESTS)}
    command = [sys.executable, str(TESTS / "axon_spinnaker2.py"), *map(str, seeds)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-2000:]
    return {int(line.split()[0]): line.split()[1] for line in done.stdout.splitlines()}


def test_compiled_is_interpreted() -> None:
    assert _without_compiler(range(8)) == {seed: digest(results(seed)) for seed in range(8)}


@pytest.mark.slow
def test_compiled_is_interpreted_on_a_million_updates() -> None:
    seeds = range(1000, 1000 + 950)
    assert _without_compiler(seeds) == {seed: digest(results(seed)) for seed in seeds}


def test_counters_count_what_happens() -> None:
    """Spikes times fan-out, by core; packets of neurons that reach anybody; every neuron updated in every step."""
    for seed in range(20):
        program, dense = random_program(seed)
        ours = results(seed)
        sent = {n: ours[n, "s"].astype(np.int64) for n, p in program.populations.items() if p.model != "input"}
        steps = next(iter(sent.values())).shape[0]
        sent["in"] = np.zeros((steps, *dense.shape[1:]), np.int64)
        sent["in"][: len(dense)] = dense
        synops = np.zeros_like(ours["", "synops"])
        for p in program.projections:
            source, target = program.populations[p.source], program.populations[p.target]
            if p.kind == "sparse":
                counts = np.zeros((target.size, source.size), np.int64)
                np.add.at(counts, (p.params["row"], p.params["col"]), p.weight_q != 0)
            else:
                counts = sum((m > 0).astype(np.int64) for m in plain.matrices(p, source, target).values())
                counts = np.broadcast_to(counts, (target.size, source.size))
            for core in range(program.placement.cores):
                here = program.placement.core_of[p.target] == core
                synops[:, :, core] += (sent[p.source] @ counts[here].sum(axis=0)).T
        assert np.array_equal(synops, ours["", "synops"])
        neurons = sum(p.size for p in program.populations.values() if p.model != "input")
        assert (ours["", "updates"].sum(axis=2) == neurons).all()
        assert ours["", "spikes"].sum() == sum(int(s.sum()) for n, s in sent.items() if n != "in")
        assert (ours["", "packets"] <= ours["", "spikes"]).all()


def exact_chain(reset: str, seed: int) -> ir.Network:
    """Numbers that float32 and 8-bit weights hold exactly: whole multiples of 1/64, beta = 1 - dt/tau = 3/4."""
    rng = np.random.default_rng([5, seed])
    nodes = {
        "input": ir.Input((2, 8, 8)),
        "pool": ir.SumPool2d((2, 2), (2, 2)),
        "k": ir.Conv2d(rng.integers(-20, 40, (3, 2, 2, 2)) / 64, bias=rng.integers(-8, 8, 3) / 64),
        "a": ir.IF(v_threshold=np.full((3, 3, 3), 1.0), v_reset=np.full((3, 3, 3), -0.25), reset=reset),
        "flat": ir.Flatten(),
        "w": ir.Affine(rng.integers(-60, 90, (9, 27)) / 64, bias=rng.integers(-8, 8, 9) / 64),
        "b": ir.LIF(tau_mem=np.full(9, 4e-3), v_threshold=np.full(9, 0.75), r=np.full(9, 4.0), reset=reset),
        "w2": ir.Linear(rng.integers(-60, 90, (4, 9)) / 64),
        "c": ir.CubaLIF(
            tau_mem=np.full(4, 4e-3),
            tau_syn=np.full(4, 2e-3),
            v_threshold=np.full(4, 0.5),
            r=np.full(4, 4.0),
            reset=reset,
        ),
        "output": ir.Output(),
    }
    return ir.chain(nodes, dt=1e-3, discretisation="euler")


@pytest.mark.parametrize("reset", ["hard", "subtract"])
@pytest.mark.parametrize("seed", range(3))
def test_what_float32_holds_exactly_loses_nothing(reset: str, seed: int) -> None:
    network = exact_chain(reset, seed)
    program = compile_network(network, "spinnaker2", strict=True)
    assert max(row.max_error for row in program.budget) < 1e-12
    dense = (np.random.default_rng(seed).random((60, 2, 128)) < 0.06).astype(np.uint8)
    trace, float64 = simulate(program, dense), reference.run(network, dense.reshape(60, 2, 2, 8, 8))
    for name in ("a", "b", "c"):
        late = program.skew[name]
        theirs = float64.spikes[name].reshape(60, 2, -1)
        assert np.array_equal(trace.spikes[name][late : late + 60], theirs), name
        assert theirs.any()


@pytest.mark.parametrize("seed", range(4))
def test_delays_and_skips_arrive_when_they_should(seed: int) -> None:
    """A delayed population has 4-bit weights; on that grid it is exact, too."""
    rng = np.random.default_rng(seed)
    nodes = {
        "input": ir.Input((6,)),
        "w": ir.Linear(rng.integers(-5, 15, (8, 6)) / 16, delay_steps=rng.integers(0, 7, (8, 6))),
        "a": ir.IF(v_threshold=np.full(8, 1.0), reset="subtract"),
        "w2": ir.Linear(rng.integers(-5, 15, (3, 8)) / 16),
        "skip": ir.Linear(rng.integers(0, 15, (3, 6)) / 16),
        "late": ir.Delay(np.array(3)),
        "b": ir.IF(v_threshold=np.full(3, 1.0), reset="subtract"),
        "back": ir.Linear(-np.eye(3) / 16),
        "hold": ir.Delay(np.array(2)),
        "output": ir.Output(),
    }
    edges = [("input", "w"), ("w", "a"), ("a", "w2"), ("w2", "b"), ("input", "skip"), ("skip", "late"), ("late", "b"),
             ("b", "hold"), ("hold", "back"), ("back", "b"), ("b", "output")]  # fmt: skip
    network = ir.Network(nodes, tuple(edges), dt=1e-3)
    program = compile_network(network, "spinnaker2", strict=True)
    assert {program.populations[n].model for n in "ab"} == {"lif"}
    dense = (rng.random((50, 2, 6)) < 0.2).astype(np.uint8)
    trace, float64 = simulate(program, dense), reference.run(network, dense)
    for name in "ab":
        late = program.skew[name]
        assert np.array_equal(trace.spikes[name][late : late + 50], float64.spikes[name].reshape(50, 2, -1))
        assert float64.spikes[name].any()
