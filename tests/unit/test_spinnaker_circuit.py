"""Circuits on SpiNNaker 1: words, delays, learning, cores, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from neuro.errors import DoesNotFit, NetworkError, SimulationError
from neuro.hardware.spinnaker1 import stdp_plain as plain
from neuro.hardware.spinnaker1.circuit import (
    Circuit,
    IFCurrExp,
    PairSTDP,
    Population,
    Projection,
    all_to_all,
    from_list,
    one_to_one,
)
from neuro.hardware.spinnaker1.ring import Layout, synapses_of
from neuro.hardware.spinnaker1.session import Session, load, ring_shift

QUICK = IFCurrExp(cm=0.27, tau_m=3.0, tau_refrac=1.0, tau_syn_E=0.3, tau_syn_I=0.3, v_rest=-60.0, v_reset=-60.0,
                  v_thresh=-57.0)  # fmt: skip


def spikes_at(steps: int, *when: int, n: int = 1) -> np.ndarray:
    dense = np.zeros((steps, n), np.uint8)
    dense[list(when)] = 1
    return dense


@pytest.mark.parametrize("delay", [1, 2, 7, 16])
def test_a_spike_arrives_after_its_delay(delay: int) -> None:
    circuit = Circuit(
        {"in": Population(1), "out": Population(1, QUICK)}, (Projection("in", "out", one_to_one(1, 6.0, delay)),)
    )
    fired = Session(circuit).run({"in": spikes_at(40, 3)})["out"]
    assert np.flatnonzero(fired[:, 0]).tolist() == [3 + delay]


def test_runs_continue_one_another() -> None:
    circuit = learning(PairSTDP(3.0, 3.0, 6.0, 6.0, 0.0, 6.0))
    rng = np.random.default_rng(0)
    dense = {"a": (rng.random((60, 4)) < 0.2).astype(np.uint8), "b": (rng.random((60, 300)) < 0.1).astype(np.uint8)}
    whole, pieces = Session(circuit), Session(circuit)
    once = whole.run(dense)
    parts = [pieces.run({k: v[a:b] for k, v in dense.items()}) for a, b in ((0, 1), (1, 23), (23, 60))]
    for name in once:
        assert np.array_equal(once[name], np.concatenate([p[name] for p in parts]))
        assert once[name].any()
    assert np.array_equal(whole.weights(1), pieces.weights(1))
    assert pieces.time == 60


def learning(rule: PairSTDP) -> Circuit:
    """300 neurons, so two cores, with static and plastic synapses, loops, both signs, several delays."""
    rng = np.random.default_rng(3)
    n = 300
    recurrent = [
        (int(a), int(b), float(w), int(d))
        for a, b, w, d in zip(
            rng.integers(0, n, 900), rng.integers(0, n, 900), rng.uniform(0, 2, 900), rng.integers(1, 9, 900),
            strict=True,
        )
    ]  # fmt: skip
    return Circuit(
        {"a": Population(4), "b": Population(n), "x": Population(n, QUICK), "y": Population(5, QUICK)},
        (
            Projection("b", "x", one_to_one(n, 5.0, 1)),
            Projection("a", "x", all_to_all(4, n, 1.0, 3), stdp=rule),
            Projection("x", "x", from_list(recurrent)),
            Projection("x", "x", all_to_all(n, n, 0.01, 2, allow_self=False), "inhibitory"),
            Projection("x", "y", all_to_all(n, 5, 0.5, 2), stdp=rule),
        ),
    )


@pytest.mark.parametrize("dependence", ["additive", "multiplicative"])
def test_equals_plain_integers(dependence: str) -> None:
    """Two cores, every word of memory and every state."""
    a = 0.4 if dependence == "multiplicative" else 1.5
    session = Session(learning(PairSTDP(5.0, 3.0, a, a, 0.1, 4.0, dependence)))
    machine = plain.Machine(*session.loaded[:6])
    rng = np.random.default_rng(1)
    dense = (rng.random((50, 304)) < 0.08).astype(np.uint8)
    fired = session.run({"a": dense[:, :4], "b": dense[:, 4:]})
    ours = np.concatenate([fired["x"], fired["y"]], axis=1)
    synapses = []
    for t, row in enumerate(dense):
        theirs, reached = machine.step(t, [int(i) for i in np.flatnonzero(row)])
        assert np.flatnonzero(ours[t]).tolist() == theirs
        synapses.append(reached)
    state, learnt = session.state
    assert np.array_equal(machine.words(), learnt.memory)
    assert (machine.words() != session.loaded.learning.memory).any()
    assert session.synapses.tolist() == synapses
    assert [tuple(map(int, of)) for of in zip(*state, strict=True)] == machine.states()
    assert ours.sum() > 100


def test_words_hold_what_was_asked() -> None:
    c = from_list([(0, 1, 1.5, 3), (0, 0, 0.25, 16), (1, 2, 2.0, 1)])
    circuit = Circuit({"in": Population(2), "out": Population(3, QUICK)}, (Projection("in", "out", c, "inhibitory"),))
    loaded = load(circuit)
    layout = Layout(int(loaded.cores.index_bits[0]), 1, loaded.cores.delay_bits)
    memory, at = loaded.learning.memory, int(loaded.fan.at[0])
    found = synapses_of(layout, memory[at + 1 : at + 1 + int(memory[at])])
    unit = 2.0 ** (ring_shift(circuit, "out", "inhibitory") - 15)
    assert (found.weight * unit).tolist() == [1.5, 0.25]
    assert found.delay.tolist() == [3, 16]
    assert found.kind.tolist() == [1, 1]
    assert found.neuron.tolist() == [1, 0]
    weights = Session(circuit).weights(0)
    assert weights[0, :2].tolist() == [0.25, 1.5]
    assert np.isnan(weights[0, 2])


def test_ring_buffers_hold_all_weights_at_once() -> None:
    """2^shift is above the sum of the weights onto the most connected neuron, and half of it is not."""
    for total, shift in ((0.3, 0), (0.99, 0), (1.0, 1), (1.01, 1), (6.0, 3), (8.0, 4), (1134.0, 11)):
        circuit = Circuit(
            {"in": Population(2), "out": Population(1, QUICK)},
            (Projection("in", "out", all_to_all(2, 1, total / 2, 1)),),
        )
        assert ring_shift(circuit, "out", "excitatory") == shift
        assert ring_shift(circuit, "out", "inhibitory") == 0


def test_one_pairing_saturates_and_is_written_late() -> None:
    """Pre one step before post: nothing changes in memory until the source fires again."""
    rule = PairSTDP(3.0, 3.0, 12.0, 12.0, 0.0, 6.0)
    circuit = Circuit(
        {"pre": Population(1), "teach": Population(1), "out": Population(1, QUICK)},
        (Projection("teach", "out", one_to_one(1, 6.0, 1)), Projection("pre", "out", one_to_one(1, 0.0, 1), stdp=rule)),
    )
    session = Session(circuit)
    session.run({"pre": spikes_at(30, 5), "teach": spikes_at(30, 5)})
    assert session.weights(1)[0, 0] == 0.0
    fired = session.run({"pre": spikes_at(10, 2)})["out"]
    assert session.weights(1)[0, 0] == 6.0
    assert np.flatnonzero(fired[:, 0]).tolist() == [3]


def test_a_full_history_is_counted() -> None:
    rule = PairSTDP(3.0, 3.0, 1.0, 1.0, 0.0, 6.0)
    circuit = Circuit(
        {"pre": Population(1), "teach": Population(1), "out": Population(1, QUICK)},
        (Projection("teach", "out", one_to_one(1, 6.0, 1)), Projection("pre", "out", one_to_one(1, 0.0, 1), stdp=rule)),
    )
    for posts, lost in ((15, 0), (16, 1)):
        session = Session(circuit)
        teach = spikes_at(100, *range(5, 5 + 3 * posts, 3))
        fired = session.run({"pre": spikes_at(100, 1, 90), "teach": teach})["out"]
        assert fired.sum() == posts
        assert session.lost == lost


def test_refusals_name_everything() -> None:
    with pytest.raises(NetworkError) as caught:
        Circuit(
            {"in": Population(2), "out": Population(3, IFCurrExp(cm=0.0, tau_refrac=-1.0)), "none": Population(0)},
            (
                Projection("in", "outt", one_to_one(2, 1.0, 1)),
                Projection("in", "out", one_to_one(4, -1.0, 0)),
                Projection("out", "in", one_to_one(2, 1.0, 1), "modulatory"),
                Projection("in", "out", one_to_one(2, 7.0, 1), stdp=PairSTDP(w_max=6.0)),
                Projection("in", "out", one_to_one(2, 1.0, 1), stdp=PairSTDP(w_max=5.0)),
            ),
        )
    text = str(caught.value)
    for said in ("cm must be", "tau_refrac must", "at least one neuron", "'outt'", "Did you mean 'out'", "pre must lie",
                 "post must lie", "excitatory weight is -1", "a delay is 0", "source of spikes", "receptor must",
                 "above w_max 6", "2 learning rules"):  # fmt: skip
        assert said in text, said


def test_delays_beyond_the_ring_buffers() -> None:
    """8 + 1 bits of index and type leave 5 for the delay on a full core; a plastic delay of all slots would be lost."""
    cells = {"in": Population(1), "out": Population(256, QUICK)}
    rule = PairSTDP()

    def circuit(delay: int, stdp: PairSTDP | None) -> Circuit:
        return Circuit(cells, (Projection("in", "out", all_to_all(1, 256, 0.5, delay), stdp=stdp),))

    load(circuit(32, None))
    load(circuit(31, rule))
    for delay, stdp, allowed in ((33, None, 32), (32, rule, 31)):
        with pytest.raises(DoesNotFit) as caught:
            load(circuit(delay, stdp))
        (violation,) = caught.value.violations
        assert (violation.wanted, violation.allowed) == (delay, allowed)


def test_inputs_are_checked() -> None:
    session = Session(Circuit({"in": Population(2), "out": Population(1, QUICK)}, ()))
    for inputs in (
        {},
        {"in": np.zeros((3, 1), np.uint8)},
        {"in": np.full((3, 2), 2)},
        {"on": np.zeros((3, 2), np.uint8)},
        {"in": np.zeros((0, 2), np.uint8)},
    ):
        with pytest.raises(SimulationError):
            session.run(inputs)
    with pytest.raises(NetworkError):
        from_list([(0, 0, 1.0, 1.5)])  # type: ignore[list-item]


def test_the_example_of_the_docs() -> None:
    text = (Path(__file__).parents[2] / "docs" / "ca3.md").read_text(encoding="utf-8")
    found: dict[str, object] = {}
    exec(re.search(r"```python\n(.*?)```", text, re.S)[1], found)  # type: ignore[index]
    answer = found["answer"]
    assert isinstance(answer, np.ndarray)
    assert np.flatnonzero(answer.any(axis=1)).tolist() == [6]
