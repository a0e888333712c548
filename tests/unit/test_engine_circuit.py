"""The event engine against its equations, and that threads, layouts and interruptions change no bit."""

from __future__ import annotations

import numpy as np
import pytest
from axon_circuits import dense, everything, stepped

import neuro.engine.synapses
from neuro.engine import simulation as module
from neuro.engine.circuit import (
    LIF,
    Alpha,
    Circuit,
    Conductance,
    Delta,
    Exponential,
    FixedInDegree,
    FixedProbability,
    Given,
    OneToOne,
    Pairs,
    Population,
    Projection,
    Uniform,
)
from neuro.engine.simulation import Simulation, simulate
from neuro.errors import FormatError, NetworkError, RunError, SimulationError

RNG = np.random.default_rng(5)
BITS = ("values", "held", "inbox")


def given(size: int, steps: int, count: int) -> Given:
    chosen = np.sort(RNG.choice(size * steps, count, replace=False))
    return Given(chosen // size, chosen % size)


def fed(method: str, receptors: dict, delays, n: int = 90) -> Circuit:
    """Given spikes through every receptor, and recurrent synapses; no two neurons alike."""
    cell = LIF(15e-3, 1.0, 0.1, 0.05, 2e-3, 2.0, RNG.uniform(0.4, 0.56, n), RNG.uniform(0, 1, n), receptors)
    into = [
        Projection("in", "cells", FixedProbability(0.3), Uniform(0.0, 0.2), delays, receptor) for receptor in receptors
    ]
    back = [
        Projection("cells", "cells", FixedInDegree(8), Uniform(-0.05, 0.08), delays, receptor) for receptor in receptors
    ]
    populations = {"in": Population(40, given(40, 300, 500)), "cells": Population(n, cell)}
    return Circuit(populations, into + back, dt=5e-4, method=method, seed=3)


@pytest.mark.parametrize("delays", [0.0, Uniform(0.0, 9e-3)], ids=["at once", "spread"])
@pytest.mark.parametrize(
    ("method", "receptors"),
    [
        ("exact", {"d": Delta(), "e": Exponential(4e-3), "same": Exponential(15e-3), "a": Alpha(3e-3)}),
        ("euler", {"d": Delta(), "e": Exponential(4e-3), "a": Alpha(3e-3), "g": Conductance(6e-3, 1.5)}),
    ],
)
def test_as_its_equations(method: str, receptors: dict, delays) -> None:
    made = Simulation(fed(method, receptors, delays), threads=1)
    want = stepped(made, 300)
    got = made.run(300, probes={("cells", "v"): np.arange(90)})
    assert want["cells"].sum() > 500
    np.testing.assert_array_equal(dense(got, "cells"), want["cells"])
    np.testing.assert_allclose(got.probes["cells", "v"], want["cells", "v"], atol=2e-5)


def all_of(recording) -> list[np.ndarray]:
    return [a for name in recording.spikes for a in recording.spikes[name]]


def assert_same(a, b) -> None:
    for x, y in zip(all_of(a), all_of(b), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_no_bit(threads: int, monkeypatch) -> None:
    monkeypatch.setattr(module, "MOST_STEPS", 97)
    one, other = (Simulation(everything(1), threads=k) for k in (1, threads))
    a, b = one.run(500), other.run(500)
    assert all(count > 200 for count in a.counts.values())
    assert_same(a, b)
    for name in BITS:
        np.testing.assert_array_equal(getattr(one._state, name), getattr(other._state, name))
    assert a.events == b.events


def test_pushing_and_pulling_change_no_bit(monkeypatch) -> None:
    circuit = everything(2, n=120)
    monkeypatch.setattr(neuro.engine.synapses, "WORTH_PULLING", 0.0)
    pulled = Simulation(circuit, threads=1)
    monkeypatch.setattr(neuro.engine.synapses, "WORTH_PULLING", 1e9)
    pushed = Simulation(circuit, threads=2)
    assert not pulled.built.pushes
    assert pushed.built.pushes
    a, b = pulled.run(400), pushed.run(400)
    assert 10_000 < a.events < b.events  # counted when they arrive, and when they are sent
    # rings are added to before the one lag of other projections: the same numbers in another order
    for name in a.counts:
        assert abs(a.counts[name] - b.counts[name]) <= 0.02 * a.counts[name]


def test_one_projection_pushed_or_pulled_is_the_same_bits(monkeypatch) -> None:
    cell = LIF(10e-3, 1.0, i_ext=1.3, v_start=Uniform(0.0, 1.0))
    rule = Projection("a", "a", FixedProbability(0.1), Uniform(-0.1, 0.1), Uniform(0.0, 4e-3))
    circuit = Circuit({"a": Population(300, cell)}, [rule], dt=1e-3, seed=4)
    runs = []
    for worth in (0.0, 1e9):
        monkeypatch.setattr(neuro.engine.synapses, "WORTH_PULLING", worth)
        made = Simulation(circuit, threads=2)
        runs.append((made.run(200), made._state.values.copy()))
    assert_same(runs[0][0], runs[1][0])
    np.testing.assert_array_equal(runs[0][1], runs[1][1])


def test_interrupted_runs_go_on(tmp_path) -> None:
    whole = Simulation(everything(6), threads=2).run(400)
    first = Simulation(everything(6), threads=2)
    head = first.run(171)
    first.save(tmp_path / "state.npz")
    later = Simulation(everything(6), threads=1)
    later.load(tmp_path / "state.npz")
    tail = later.run(229)
    for name, (step, neuron) in whole.spikes.items():
        parts = [head.spikes[name], tail.spikes[name]]
        np.testing.assert_array_equal(step, np.concatenate([p[0] for p in parts]))
        np.testing.assert_array_equal(neuron, np.concatenate([p[1] for p in parts]))
    assert head.events + tail.events == whole.events


def test_states_that_cannot_be_used(tmp_path) -> None:
    made = Simulation(everything(6), threads=1)
    made.run(50, record=False)
    path = tmp_path / "state.npz"
    made.save(path)
    before = [getattr(made._state, name).copy() for name in BITS]
    with pytest.raises(RunError, match="another circuit"):
        Simulation(everything(7), threads=1).load(path)
    with pytest.raises(FormatError, match="there is no file"):
        made.load(tmp_path / "none.npz")
    with np.load(path) as file:
        held = dict(file)
    for change in ({"spike_neuron": held["spike_neuron"] + 10**6}, {"values": held["values"][1:]}, {"version": 9}):
        np.savez(tmp_path / "bad.npz", **(held | change))
        with pytest.raises(FormatError):
            made.load(tmp_path / "bad.npz")
    for cut in (0, 30, path.stat().st_size // 2):
        (tmp_path / "cut.npz").write_bytes(path.read_bytes()[:cut])
        with pytest.raises(FormatError):
            made.load(tmp_path / "cut.npz")
    np.savez(tmp_path / "pickled.npz", **(held | {"values": np.array([{}], object)}))
    with pytest.raises(FormatError):
        made.load(tmp_path / "pickled.npz")
    for name, array in zip(BITS, before, strict=True):
        np.testing.assert_array_equal(getattr(made._state, name), array)


def test_one_door(tmp_path) -> None:
    from neuro.simulate import simulate as door

    said = []
    a = door(everything(8), 60, threads=2, save=tmp_path / "s.npz", progress=lambda done, of: said.append((done, of)))
    assert_same(a, simulate(everything(8), seconds=60 * 2e-4, threads=1))
    b = door(everything(8), 40, resume=tmp_path / "s.npz", record=("a",))
    assert b.start == 60
    assert list(b.spikes) == ["a"]
    assert said[-1] == (60, 60)


def test_trains_and_rates() -> None:
    got = simulate(everything(9), 200, threads=1)
    trains = got.trains("a")
    assert [len(t) for t in trains] == np.bincount(got.spikes["a"][1], minlength=150).tolist()
    assert all((np.diff(t) > 0).all() for t in trains)
    assert got.rate_hz("a") == pytest.approx(sum(map(len, trains)) / 150 / (200 * 2e-4))


def test_probes_are_of_the_neurons_asked_for() -> None:
    made = Simulation(everything(9), threads=3)
    asked = {("b", "v"): [300, 0, 17], ("a", "slow"): 3, ("b", "slow"): np.arange(307)}
    got = made.run(30, probes=asked)
    ends = {key: made._state.values[made.built.places[key] + np.atleast_1d(k)] for key, k in asked.items()}
    np.testing.assert_allclose(got.probes["b", "v"][-1], ends["b", "v"] - 60e-3)
    for key in (("a", "slow"), ("b", "slow")):
        np.testing.assert_array_equal(got.probes[key][-1], ends[key])


@pytest.mark.parametrize(
    ("asked", "what"),
    [
        ({"probes": {("a", "w"): 0}}, "cannot probe"),
        ({"probes": {("a", "v"): 150}}, "neurons 0..149"),
        ({"record": ("c",)}, "no 'c'"),
        ({"steps": -1}, "whole number"),
        ({"steps": 3, "seconds": 1.0}, "one of them"),
        ({"threads": 0}, "threads must be"),
    ],
)
def test_questions_without_an_answer(asked: dict, what: str) -> None:
    with pytest.raises(SimulationError, match=what):
        simulate(everything(), **({"steps": 1} | asked))


def test_every_problem_at_once() -> None:
    cell = LIF(tau_mem=0.0, v_threshold=1.0, v_reset=2.0, receptors={"g": Conductance(1e-3, 0.0)})
    with pytest.raises(NetworkError) as caught:
        Circuit({"a": Population(3, cell), "b": Population(0, Given([1, 0], [5, 0]))})
    assert len(caught.value.violations) == 4
    ok = {"a": Population(3, LIF(1e-2, 1.0)), "b": Population(4, LIF(1e-2, 1.0))}
    bad = [
        Projection("a", "c", OneToOne(), 1.0),
        Projection("a", "b", OneToOne(), 1.0),
        Projection("a", "b", FixedProbability(1.5), float("nan"), 1.0, "ampa"),
        Projection("a", "b", Pairs([0, 3], [0, 1]), [1.0, 2.0, 3.0]),
    ]
    with pytest.raises(NetworkError) as caught:
        Circuit(ok, bad)
    assert len(caught.value.violations) == 8
