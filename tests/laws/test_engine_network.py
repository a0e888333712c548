"""`neuro.simulate` of a Network computes what `neuro.reference` does: every spike, and in float64 every bit."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
from axon_strategies import LAW, inputs, networks
from hypothesis import given
from hypothesis import strategies as st

import neuro
from neuro import ir, reference
from neuro.engine import network_run
from neuro.engine.network_run import Plan
from neuro.errors import NetworkError, SimulationError
from neuro.events import Events

EVERYTHING = ("spikes", "v", "i", "sent")


def assert_same(found: reference.Record, expected: reference.Record) -> None:
    for kind in (*EVERYTHING, "answers"):
        ours, theirs = getattr(found, kind), getattr(expected, kind)
        assert set(ours) == set(theirs), kind
        for name, values in theirs.items():
            np.testing.assert_array_equal(ours[name], values, err_msg=f"{kind} of '{name}'")
            assert ours[name].dtype == values.dtype


@LAW
@given(st.data())
def test_every_bit_is_the_references(data: st.DataObject) -> None:
    network = data.draw(networks())
    x = data.draw(inputs(network, steps=12))
    assert_same(neuro.simulate(network, x, record=EVERYTHING), reference.run(network, x, record=EVERYTHING))


@LAW
@given(st.data())
def test_weights_that_round_are_added_in_the_same_order(data: st.DataObject) -> None:
    """Dyadic weights add up exactly in any order; these do not."""
    network = data.draw(networks(elements=st.floats(-0.75, 2, width=64)))
    x = data.draw(inputs(network, steps=12))
    assert_same(neuro.simulate(network, x, record=EVERYTHING), reference.run(network, x, record=EVERYTHING))


@LAW
@given(st.data())
def test_numbers_of_any_size_and_unstable_networks(data: st.DataObject) -> None:
    network = data.draw(networks(elements=st.floats(-1e60, 1e60)))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    x = rng.normal(size=(5, 2, *network.shapes["input"])) * (rng.random((5, 2, *network.shapes["input"])) < 0.5)
    try:
        expected = reference.run(network, x, record=EVERYTHING)
    except NetworkError:
        return  # the end of such a sample may look sane again; ours does not watch each step
    assert_same(neuro.simulate(network, x, record=EVERYTHING), expected)


def graph(*edges: tuple[str, str], **nodes: Any) -> ir.Network:
    return ir.Network({"input": ir.Input((4,)), **nodes, "output": ir.Output("sum")}, edges, 1e-3)


def noise(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape)


def lif(n: int, **options: Any) -> ir.LIF:
    return ir.LIF(**({"tau_mem": np.full(n, 5e-3), "v_threshold": 0.1} | options))


LEVELS = {"input": ir.Input((2, 5, 6), 7)}
CASES = {
    "levels, a rectangle, groups, dilation": ir.chain(
        LEVELS
        | {
            "conv": ir.Conv2d(noise(6, 1, 3, 2), (2, 1), (1, 2), (1, 2), 2, bias=noise(6)),
            "relu": ir.QuantisedReLU(0.3, 7),
            "max": ir.MaxPool2d((2, 3), (1, 2), (1, 1)),
            "scale": ir.Scale(noise(6, 1, 1)),
            "avg": ir.AvgPool2d((2, 2), (1, 3), (1, 0)),
            "flat": ir.Flatten(),
            "lif": ir.LIF(tau_mem=2e-3, v_threshold=0.2),
            "output": ir.Output("count"),
        },
        1e-3,
    ),
    "late edges out of nodes without state": graph(
        ("input", "fc"), ("fc", "lif"), ("lif", "back"), ("back", "scale"), ("scale", "fc"), ("lif", "output"),
        fc=ir.Affine(noise(4, 4), bias=noise(4, seed=1)), lif=lif(4), back=ir.Affine(noise(4, 4), bias=noise(4)),
        scale=ir.Scale(0.5),
    ),
    "a flatten in a loop": graph(
        ("input", "a"), ("a", "lif"), ("lif", "flat"), ("flat", "b"), ("b", "lif"), ("flat", "output"),
        a=ir.Linear(noise(5, 4)), lif=lif(5), flat=ir.Flatten(), b=ir.Linear(noise(5, 5)),
    ),
    "a neuron that feeds itself": graph(
        ("input", "lif"), ("lif", "lif"), ("lif", "output"), lif=lif(4, r=3.0, reset="subtract")
    ),
    "delays longer than the sample, and all kinds together": graph(
        ("input", "fc"), ("input", "slow"), ("slow", "late"), ("late", "lif"), ("fc", "lif"), ("lif", "output"),
        ("late", "output"),
        fc=ir.Affine(noise(3, 4), np.array([[0, 1, 2, 99], [3, 0, 1, 0], [7, 7, 0, 5]]), bias=noise(3)),
        slow=ir.Delay(np.array([0, 3, 1, 200])), late=ir.Linear(noise(3, 4)),
        lif=lif(3, v_leak=0.3, v_reset=-0.2),
    ),
    "graded input to synapses with delays": graph(
        ("input", "li"), ("li", "fc"), ("fc", "lif"), ("lif", "output"),
        li=ir.CubaLI(tau_syn=2e-3, tau_mem=4e-3, r=np.ones(4)),
        fc=ir.Linear(noise(3, 4), np.array([[0, 1, 2, 1], [3, 0, 1, 0], [4, 2, 0, 2]])), lif=lif(3),
    ),
    "an output that adds membranes and numbers": graph(
        ("input", "fc"), ("fc", "li"), ("fc", "output"), ("li", "output"),
        fc=ir.Linear(noise(3, 4)), li=ir.LI(tau_mem=np.full(3, 3e-3)),
    ),
    "nothing between": graph(("input", "output")),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("form", ["uint8", "bool", "float"])
def test_corners(name: str, form: str) -> None:
    network = CASES[name]
    rng = np.random.default_rng(3)
    shape = (13, 3, *network.shapes["input"])
    spikes = rng.random(shape) < 0.4
    x = {
        "uint8": spikes * rng.integers(1, 8, shape, np.uint8),
        "bool": spikes,
        "float": spikes * rng.normal(size=shape),
    }
    expected = reference.run(network, x[form], record=EVERYTHING)
    assert_same(neuro.simulate(network, x[form], record=EVERYTHING), expected)
    assert any(values.any() for values in expected.answers.values())


def wide(seed: int = 0) -> ir.Network:
    rng = np.random.default_rng(seed)
    nodes: dict[str, ir.Node] = {"input": ir.Input((70,))}
    for k, (m, n) in enumerate([(70, 33), (33, 40), (40, 5)]):
        delays = rng.integers(0, 6, (n, m)) if k == 1 else None
        nodes[f"fc{k}"] = ir.Affine(rng.normal(size=(n, m)) * 0.4, delays, bias=0.1 * rng.normal(size=n))
        kind = ir.CubaLIF if k == 0 else ir.LIF
        extra = {"tau_syn": 3e-3, "w_in": 2.0} if k == 0 else {}
        nodes[f"lif{k}"] = kind(tau_mem=np.full(n, 8e-3), v_threshold=0.3, r=3.0, **extra)
    return ir.chain(nodes | {"output": ir.Output("count")}, 1e-3)


def some(network: ir.Network, steps: int = 50, batch: int = 5, rate: float = 0.1, seed: int = 0) -> Any:
    shape = (steps, batch, *network.shapes[network.input])
    return (np.random.default_rng(seed).random(shape) < rate).astype(np.uint8)


def test_batches_and_threads_change_nothing() -> None:
    network, plan = wide(), Plan(wide())
    x = some(network)
    whole = reference.run(network, x, record=EVERYTHING)
    assert whole.spikes["lif2"].any()
    assert_same(plan.run(x, record=EVERYTHING, threads=1), whole)
    assert_same(plan.run(x, record=EVERYTHING, threads=3), whole)
    for b in range(5):
        alone = neuro.simulate(plan, x[:, b], record="v")
        for name, v in alone.v.items():
            np.testing.assert_array_equal(v[:, 0], whole.v[name][:, b])


def test_single_precision_is_close() -> None:
    network = wide()
    x = some(network, steps=20)
    found, exact = (neuro.simulate(network, x, dtype=d, record=("v", "i")) for d in (np.float32, np.float64))
    assert found.v["lif0"].dtype == np.float32
    # only where nothing fell on the other side of a threshold; the first layer listens to the input alone
    np.testing.assert_allclose(found.i["lif0"], exact.i["lif0"], atol=1e-5)


def test_events_are_an_input() -> None:
    network = wide()
    samples = [Events.from_dense(some(network, seed=k)[:, 0], 1e-3) for k in range(3)]
    x = np.stack([e.to_dense() for e in samples], 1)
    expected = reference.run(network, x)
    for given_, batch in ((samples, slice(None)), (samples[1], slice(1, 2))):
        found = neuro.simulate(network, given_)
        np.testing.assert_array_equal(found.answers["output"], expected.answers["output"][:, batch])


def test_several_inputs() -> None:
    nodes = {"a": ir.Input((3,)), "b": ir.Input((2,)), "fa": ir.Linear(noise(4, 3)), "fb": ir.Linear(noise(4, 2)),
             "lif": lif(4), "o": ir.Output("count"), "p": ir.Output("max")}  # fmt: skip
    edges = (("a", "fa"), ("b", "fb"), ("fa", "lif"), ("fb", "lif"), ("lif", "o"), ("lif", "p"))
    network = ir.Network(nodes, edges, 1e-3)
    rng = np.random.default_rng(0)
    x = {"b": rng.normal(size=(9, 4, 2)), "a": (rng.random((9, 4, 3)) < 0.5).astype(np.uint8)}
    assert_same(neuro.simulate(network, x, record=EVERYTHING), reference.run(network, x, record=EVERYTHING))


def test_scores_and_classes_are_read_as_ever() -> None:
    network = wide()
    x = some(network)
    found, expected = neuro.simulate(network, x, record=()), reference.run(network, x)
    np.testing.assert_array_equal(reference.scores(network, found), reference.scores(network, expected))
    np.testing.assert_array_equal(reference.classify(network, found), reference.classify(network, expected))
    assert not found.spikes
    assert not found.v


def test_a_plan_is_kept_as_long_as_its_network() -> None:
    network = wide()
    x = some(network, steps=3)
    neuro.simulate(network, x)
    plan = network_run.plan_of(network, np.float64)
    neuro.simulate(network, x)
    assert network_run.plan_of(network, np.float64) is plan
    kept = weakref.ref(network)
    del network, plan
    gc.collect()
    assert kept() is None


def test_weights_that_single_precision_holds_are_kept_so() -> None:
    """Half of the memory, the same bits; and one weight that it does not hold keeps all of them whole."""
    rng = np.random.default_rng(0)
    for width, odd in ((np.float32, 0.0), (np.float64, 1e-12)):
        weight = rng.normal(size=(20, 30)).astype(np.float32).astype(float)
        weight[3, 4] += odd
        conv = ir.Conv2d(rng.normal(size=(2, 1, 2, 2)).astype(np.float32))
        nodes = {"input": ir.Input((1, 6, 7)), "conv": conv, "flat": ir.Flatten(), "slow": ir.Linear(
            rng.integers(-9, 9, (30, 60)) / 8, rng.integers(0, 3, (30, 60))), "fc": ir.Linear(weight),
            "lif": lif(20), "output": ir.Output("count")}  # fmt: skip
        network = ir.chain(nodes, 1e-3)
        x = some(network, rate=0.3)
        assert_same(neuro.simulate(network, x, record=EVERYTHING), reference.run(network, x, record=EVERYTHING))
        assert network_run.plan_of(network, np.float64).packed.weights.dtype == width


def test_samples_of_many_lengths() -> None:
    network, plan = wide(), Plan(wide())
    for steps in (*range(1, 12), 3, 1):
        x = some(network, steps=steps, rate=0.5)
        assert_same(plan.run(x, record=EVERYTHING), reference.run(network, x, record=EVERYTHING))


def test_a_chip_instead_of_floats() -> None:
    from neuro.hardware import compile as compile_network
    from neuro.hardware import simulate as on_chip

    neuron = ir.LIF(tau_mem=np.full(3, 5e-3), v_threshold=1.0, r=5.0)
    nodes = {"input": ir.Input((4,)), "fc": ir.Linear(noise(3, 4)), "lif": neuron, "output": ir.Output("count")}
    network = ir.chain(nodes, 1e-3)
    x = some(network)
    program = compile_network(network, "loihi2")
    expected = on_chip(program, x)
    for found in (neuro.simulate(network, x, chip="loihi2"), neuro.simulate(program, x)):
        np.testing.assert_array_equal(found.scores, expected.scores)
        for name, spikes in expected.spikes.items():
            np.testing.assert_array_equal(found.spikes[name], spikes)


def test_what_cannot_be_run_is_named() -> None:
    delta = ir.chain(
        {"input": ir.Input((2,)), "d": ir.Delta(np.full(2, 0.1)), "i": ir.I(np.ones(2)), "output": ir.Output("last")},
        1e-3,
    )
    with pytest.raises(SimulationError, match=r"(?s)'d' is a Delta.*'i' is a I"):
        neuro.simulate(delta, np.zeros((2, 1, 2)))
    with pytest.raises(SimulationError, match="float32 or float64"):
        Plan(wide(), np.int32)
    with pytest.raises(SimulationError, match="a dict cannot be simulated"):
        neuro.simulate({}, np.zeros((2, 1, 2)))
    with pytest.raises(SimulationError, match="chip= takes a Network"):
        neuro.simulate({}, np.zeros((2, 1, 2)), chip="loihi2")
    with pytest.raises(SimulationError, match="record may hold"):
        neuro.simulate(wide(), some(wide()), record=("u",))


@pytest.mark.parametrize(("x", "word"), [
    (np.zeros((3, 2, 69), np.uint8), "must be"), (np.zeros((0, 2, 70), np.uint8), "must be"),
    (np.full((3, 2, 70), np.nan), "NaN"), (np.zeros((3, 2, 70), complex), "real numbers"),
    ({"other": np.zeros((3, 2, 70))}, "given for"), ([[1], [1, 2]], "array"),
    (Events(np.zeros(1, int), np.zeros(1, int), (70,), 5, 1e-2), "dt"),
    (Events(np.zeros(1, int), np.zeros(1, int), (71,), 5, 1e-3), "shape"),
])  # fmt: skip
def test_input_that_does_not_fit(x: Any, word: str) -> None:
    with pytest.raises(SimulationError, match=word):
        neuro.simulate(wide(), x)


def test_a_state_beyond_the_numbers_is_an_error() -> None:
    network = graph(
        ("input", "li"),
        ("li", "back"),
        ("back", "li"),
        ("li", "output"),
        li=ir.LI(tau_mem=np.ones(4)),
        back=ir.Scale(1e200),
    )
    with pytest.raises(NetworkError, match="unstable"):
        neuro.simulate(network, np.ones((9, 1, 4), np.uint8))
