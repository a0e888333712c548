"""Circuits in Loihi 2's integers: bit for bit what the chip's own simulator computes."""

from __future__ import annotations

import numpy as np
import pytest
from axon_circuits import dense as dense_of

from neuro.engine.chips import circuit_of
from neuro.engine.circuit import (
    Circuit,
    Drive,
    FixedInDegree,
    FixedProbability,
    Loihi2LIF,
    Poisson,
    Population,
    Projection,
    Uniform,
)
from neuro.engine.simulation import Simulation
from neuro.errors import SimulationError
from neuro.hardware import simulate
from neuro.hardware.program import Placement, Program
from neuro.hardware.program import Population as ChipPopulation
from neuro.hardware.program import Projection as ChipProjection

STEPS, INPUTS, N = 120, 30, 70


def program(seed: int, wild: bool) -> Program:
    """Two populations with loops and delays; registers of all sizes, weights that make u wrap where ``wild``."""
    rng = np.random.default_rng(seed)

    def cells(name: str) -> ChipPopulation:
        params = {
            "du": rng.integers(0, 4096, N),
            "dv": rng.integers(0, 4097, N),
            "vth": rng.integers(1, 131_072 if wild else 400, N),
            "bias_mant": rng.integers(-4096, 4096, N) if wild else rng.integers(-20, 300, N),
            "bias_exp": rng.integers(0, 8, N) if wild else np.zeros(N, np.int64),
        }
        return ChipPopulation(name, name, "lif", (N,), params)

    populations = {"in": ChipPopulation("in", "in", "input", (INPUTS,)), "a": cells("a"), "b": cells("b")}
    projections = []
    for source, target in (("in", "a"), ("a", "a"), ("a", "b"), ("b", "a"), ("b", "b")):
        shape = (populations[target].size, populations[source].size)
        weight = rng.integers(-250, 256, shape) * (rng.random(shape) < 0.2)
        params = {"weight_exp": 7 if wild else 0, "num_weight_bits": 8, "sign_mode": 1}
        params["delay_steps"] = rng.integers(0, 9, shape)
        name = f"{source} to {target}"
        projections.append(ChipProjection(name, name, source, target, "dense", weight, params))
    core = Placement({name: np.zeros(N, np.int64) for name in "ab"}, np.zeros((1, 2), np.int64))
    skew = {"in": 0, "a": 1, "b": 2}
    return Program("loihi2", 1e-3, populations, tuple(projections), "in", "b", skew, {}, "count", core)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("wild", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_as_the_chip(seed: int, wild: bool, threads: int) -> None:
    chip = program(seed, wild)
    given = (np.random.default_rng(seed).random((STEPS, INPUTS)) < 0.2).astype(np.uint8)
    want = simulate(chip, given[:, None], probes=[("a", "v"), ("a", "u"), ("b", "v")])
    made = Simulation(circuit_of(chip, given), threads=threads)
    got = made.run(STEPS, probes={key: np.arange(N) for key in want.probes})
    for name in ("in", "a", "b"):
        np.testing.assert_array_equal(dense_of(got, name), want.spikes[name][:STEPS, 0])
    for key, values in want.probes.items():
        np.testing.assert_array_equal(got.probes[key], values[:STEPS, 0])
    assert got.counts["b"] > 50
    if wild:
        assert max(np.abs(p).max() for p in got.probes.values()) > 8_000_000  # registers were full


def test_what_a_circuit_cannot_hold() -> None:
    chip = program(0, False)
    with pytest.raises(SimulationError, match="dense must be"):
        circuit_of(chip, np.zeros((5, INPUTS + 1)))
    bad = [
        ChipProjection(p.name, p.node, p.source, p.target, p.kind, p.weight_q, dict(p.params) | {"weight_exp": -1})
        for p in chip.projections
    ]
    shifted = Program("loihi2", 1e-3, chip.populations, tuple(bad), "in", "b", chip.skew, {}, "count", chip.placement)
    with pytest.raises(SimulationError, match="5 problems"):
        circuit_of(shifted, np.zeros((5, INPUTS)))


def test_integers_at_scale_do_not_depend_on_threads() -> None:
    n = 30_000
    cell = Loihi2LIF(du=400, dv=200, vth=900, bias=np.arange(n) % 3)
    circuit = Circuit(
        {"p": Population(500, Poisson(30.0)), "c": Population(n, cell)},
        [
            Projection("p", "c", FixedProbability(0.02), 60, 1e-3),
            Projection("c", "c", FixedInDegree(40), Uniform(-12.0, 14.0), Uniform(0.0, 20e-3)),
        ],
        [Drive("c", 100.0, 25, 4)],
        dt=1e-3,
        arithmetic="loihi2",
        seed=1,
    )
    runs = [Simulation(circuit, threads=k).run(100) for k in (1, 2)]
    assert runs[0].counts["c"] > 20_000
    for name in ("p", "c"):
        for a, b in zip(runs[0].spikes[name], runs[1].spikes[name], strict=True):
            np.testing.assert_array_equal(a, b)
