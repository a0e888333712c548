"""Learning in a closed loop: the engine's neurons, the rule's weights, delivered when and as the rule says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from neuro.engine.circuit import (
    LIF,
    Circuit,
    Exponential,
    FixedProbability,
    Given,
    Loihi2LIF,
    Pairs,
    Poisson,
    Population,
    Projection,
    Uniform,
)
from neuro.engine.simulation import simulate
from neuro.errors import NetworkError, SimulationError
from neuro.plasticity import Homeostasis, PairSTDP, RewardSTDP, TripletSTDP
from neuro.plasticity.follow import follow
from neuro.plasticity.rules import DELAYS
from neuro.plasticity.simulation import Plastic

DT = 1e-3
GRID = 2.0**-6  # sums of its multiples are exact in float32, in any order
CELL = LIF(tau_mem=10e-3, v_threshold=1.0, refractory=2e-3, receptors={"fast": Exponential(3e-3)}, r_mem=2.0)


def circuit(weight, delay=2e-3, **options):
    """Poisson sources drive neurons, which drive each other."""
    projections = (
        Projection("in", "out", FixedProbability(0.5), weight, delay, "fast"),
        Projection("out", "out", FixedProbability(0.3, False), GRID, 1e-3, "fast"),
    )
    return Circuit({"in": Population(20, Poisson(80.0)), "out": Population(12, CELL)}, projections, dt=DT, **options)


RULE = PairSTDP(10e-3, 15e-3, 0.02, 0.015, 0.0, 1.0)


@pytest.mark.parametrize("delay", [0.0, 2e-3, Uniform(0.0, 6e-3)], ids=["none", "one", "many"])
@pytest.mark.parametrize("delays", DELAYS)
def test_a_rule_that_does_nothing_is_the_engine(delay, delays):
    still = replace(RULE, a_plus=0.0, a_minus=0.0, delays=delays)
    made = circuit(20 * GRID, delay)
    wanted = simulate(made, 150)
    got = Plastic(made, {0: still, 1: still}).run(150)
    assert wanted.counts["out"] > 30
    for name, (steps, neurons) in wanted.spikes.items():
        assert np.array_equal(got.spikes[name][0], steps)
        assert np.array_equal(got.spikes[name][1], neurons)
    assert got.events == wanted.events


@pytest.mark.parametrize("rule", [RULE, TripletSTDP(w_max=1.0), Homeostasis(20.0, RULE, speed=1.0)], ids=str)
def test_weights_are_what_the_rule_makes_of_the_spikes(rule):
    made = circuit(Uniform(0.2, 0.7), Uniform(0.0, 5e-3))
    net = Plastic(made, {0: rule})
    source, target, start, delay = net.connections(0)
    done = net.run(200, every=50)
    given = (done.dense("in"), done.dense("out"), start)
    wanted = follow(rule, *given, dt=DT, delay=delay, synapses=(source, target), every=50)
    assert done.spikes["out"][0].size > 30
    assert np.array_equal(net.connections(0)[2], wanted.weights)
    assert np.array_equal(done.weights[0], wanted.kept)
    assert (wanted.weights != start).mean() > 0.9


def test_neither_threads_nor_interruptions_matter():
    made = circuit(Uniform(0.2, 0.7), Uniform(0.0, 5e-3))
    one, two = Plastic(made, {0: RULE, 1: RULE}), Plastic(made, {0: RULE, 1: RULE}, threads=2)
    first, second, whole = one.run(30), one.run(50), two.run(80)
    for name in ("in", "out"):
        for column in (0, 1):
            parts = np.concatenate([first.spikes[name][column], second.spikes[name][column]])
            assert np.array_equal(parts, whole.spikes[name][column])
    assert np.array_equal(np.sort(one.connections(0)[2]), np.sort(two.connections(0)[2]))


@pytest.mark.parametrize("delays", DELAYS)
def test_a_spike_brings_the_weight_of_its_arrival(delays):
    """One synapse, delay 3. The target is made to fire in step 12; the source fires in 10, 13 and 20. Jumps of the
    membrane are the weight after the learning of the step of each arrival at the synapse."""
    rule = replace(RULE, delays=delays, a_plus=0.125, a_minus=0.0625)
    cell = LIF(tau_mem=1e9, v_threshold=50.0)
    fire = Given([10, 13, 20], [0, 0, 0])
    populations = {"a": Population(1, fire), "b": Population(1, cell), "kick": Population(1, Given([11], [0]))}
    projections = (
        Projection("a", "b", Pairs([0], [0]), np.array([0.5]), 3e-3),
        Projection("kick", "b", Pairs([0], [0]), 100.0),
    )
    net = Plastic(Circuit(populations, projections, dt=DT), {0: rule})
    done = net.run(40, every=1, probes={("b", "v"): [0]})
    assert done.spikes["b"][0].tolist() == [12]
    v, kept = done.probes["b", "v"][:, 0], done.weights[0][:, 0]
    jumps = {int(t): v[t] - v[t - 1] for t in np.flatnonzero(np.abs(np.diff(v)) > 1e-6) + 1}
    reached = [s + (3 if delays == "axonal" else 0) for s in (10, 13, 20)]
    assert set(jumps) == {14, 17, 24}
    for s, at in zip((10, 13, 20), reached, strict=True):
        assert jumps[s + 4] == pytest.approx(kept[at], rel=1e-6)
    assert len({round(float(kept[at]), 9) for at in reached}) >= 2


def test_reward_from_inside_the_loop():
    """A function of the spikes is the same as its values."""
    rule = RewardSTDP(RULE, tau_eligibility=50e-3)
    made = circuit(Uniform(0.2, 0.7))
    paid = []

    def reward(step, fired):
        paid.append(0.5 * fired["out"].size - 0.1 * (step % 3))
        return paid[-1]

    inside, outside = Plastic(made, {0: rule}), Plastic(made, {0: rule})
    start = inside.connections(0)[2]
    inside.run(100, reward=reward)
    outside.run(100, reward=paid)
    assert np.array_equal(inside.connections(0)[2], outside.connections(0)[2])
    assert (inside.connections(0)[2] != start).any()


def test_scaling_brings_neurons_to_their_rate():
    cell = LIF(tau_mem=10e-3, v_threshold=1.0)
    made = Circuit(
        {"in": Population(40, Poisson(50.0)), "out": Population(10, cell)},
        (Projection("in", "out", FixedProbability(0.5), Uniform(0.05, 0.3)),),
        dt=DT,
    )
    net = Plastic(made, {0: Homeostasis(20.0, tau_rate=0.3, speed=2.0, interval=10e-3, w_max=5.0)})
    before = net.run(seconds=0.5).rate_hz("out")
    net.run(seconds=2.0)
    after = net.run(seconds=1.0).rate_hz("out")
    assert abs(before - 20) > 15
    assert abs(after - 20) < 5


def test_what_cannot_run_is_named():
    made = circuit(0.5)
    with pytest.raises(NetworkError, match="no projection"):
        Plastic(made, {2: RULE})
    with pytest.raises(NetworkError, match="must start in"):
        Plastic(circuit(1.5), {0: RULE})
    with pytest.raises(SimulationError, match="no rule takes it"):
        Plastic(made, {0: RULE}).run(3, reward=1.0)
    with pytest.raises(SimulationError, match="reward must be finite"):
        Plastic(made, {0: RewardSTDP(RULE)}).run(3, reward=[1.0, 2.0])
    chip = Circuit(
        {"a": Population(1, Given([0], [0])), "b": Population(1, Loihi2LIF(0, 0, 1))},
        (Projection("a", "b", Pairs([0], [0]), 1),),
        dt=DT,
        arithmetic="loihi2",
    )
    with pytest.raises(NetworkError, match="integers of 'loihi2'"):
        Plastic(chip, {0: RULE})


def test_it_goes_through_the_one_door() -> None:
    """`neuro.simulate` takes it, and goes on from where it stands."""
    from neuro.simulate import simulate as door

    made = circuit(20 * GRID)
    one, other = Plastic(made, {0: RULE}), Plastic(made, {0: RULE})
    door(one, 40)
    found = door(one, steps=60, every=60)
    other.run(40)
    wanted = other.run(60, every=60)
    assert found.start == 40
    assert np.array_equal(found.weights[0], wanted.weights[0])
    assert not np.array_equal(found.weights[0][-1], np.full_like(found.weights[0][-1], 20 * GRID))
    with pytest.raises(SimulationError, match="steps"):
        door(one)
