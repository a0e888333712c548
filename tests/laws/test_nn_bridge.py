"""Laws of the bridge: module = Network = module again, and of running modules over time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nn_strategies import clear_of_thresholds, modules, spikes_for

from neuro import ir, reference
from neuro.nn.bridge import to_module, to_network
from neuro.nn.network import OUTPUT, SpikingNetwork

LIGHT = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def answers(network: ir.Network, dense: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    record = reference.run(network, dense)
    return record.answers[network.output], dict(record.spikes)


@LIGHT
@given(st.data())
def test_module_is_network_is_module(data: st.DataObject) -> None:
    """The reference interpreter and a module made from the network send what the module sends."""
    module = data.draw(modules())
    dense = data.draw(spikes_for(module.input_shape))
    network = to_network(module)
    if not clear_of_thresholds(network, dense):
        return
    x = torch.from_numpy(dense)
    with torch.no_grad():
        spikes: dict[str, torch.Tensor] = {}
        out = module(x, spikes)
        again = to_module(network, torch.float64)
        spikes_again: dict[str, torch.Tensor] = {}
        out_again = again(x, spikes_again)
    expected, expected_spikes = answers(network, dense)
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(out_again.numpy(), expected, rtol=1e-9, atol=1e-9)
    assert set(spikes) == set(expected_spikes) == set(spikes_again)
    for name, s in expected_spikes.items():
        np.testing.assert_array_equal(spikes[name].numpy(), s, err_msg=name)
        np.testing.assert_array_equal(spikes_again[name].numpy(), s, err_msg=name)
    np.testing.assert_allclose(
        module.scores(out).numpy(), reference.scores(network, reference.run(network, dense)), 1e-9
    )


@LIGHT
@given(modules())
def test_network_survives_the_way_there_and_back(module: SpikingNetwork) -> None:
    """Network -> module -> Network: the same graph, shapes, weights and coefficients."""
    first = to_network(module)
    second = to_network(to_module(first, torch.float64))
    assert first.edges == second.edges
    assert dict(first.shapes) == dict(second.shapes)
    assert (first.dt, first.discretisation) == (second.dt, second.discretisation)
    for name, node in first.nodes.items():
        other = second.nodes[name]
        assert type(node) is type(other)
        for field, value in vars(node).items():
            if isinstance(value, np.ndarray):
                np.testing.assert_allclose(
                    getattr(other, field), value, rtol=1e-9, atol=1e-12, err_msg=f"{name}.{field}"
                )
            elif not field.startswith("_"):
                assert getattr(other, field) == value, f"{name}.{field}"


@LIGHT
@given(st.data())
def test_samples_of_a_batch_do_not_meet(data: st.DataObject) -> None:
    module = data.draw(modules())
    x = torch.from_numpy(data.draw(spikes_for(module.input_shape, batch=(2, 4))))
    with torch.no_grad():
        whole = module(x)
        parts = torch.cat([module(x[:, b : b + 1]) for b in range(x.shape[1])], 1)
    torch.testing.assert_close(whole, parts, rtol=1e-9, atol=1e-9)


@LIGHT
@given(st.data())
def test_the_future_does_not_change_the_past(data: st.DataObject) -> None:
    module = data.draw(modules())
    x = torch.from_numpy(data.draw(spikes_for(module.input_shape, steps=(2, 10))))
    cut = data.draw(st.integers(1, len(x)))
    with torch.no_grad():
        torch.testing.assert_close(module(x)[:cut], module(x[:cut]), rtol=1e-9, atol=1e-9)


@st.composite
def loops(draw) -> ir.Network:
    """Networks with loops over several layers, biases and delays inside, and a skip over everything."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    w = lambda o, i: rng.normal(size=(o, i)) * 0.8  # noqa: E731
    hidden = ir.LIF(rng.uniform(0.002, 0.02, 3), np.full(3, 0.4), reset=draw(st.sampled_from(ir.RESETS)))
    nodes: dict[str, ir.Node] = {
        "x": ir.Input((2,)),
        "a": ir.Linear(w(3, 2)),
        "input": hidden,  # a name that the ends of a SpikingNetwork use
        "b": ir.Affine(w(4, 3), bias=rng.normal(size=4) * 0.1),
        "c": ir.CubaLIF(np.full(4, 0.004), np.full(4, 0.01), np.full(4, 0.2), w_in=3.0),
        "back": draw(
            st.sampled_from(
                [ir.Affine(w(3, 4), bias=rng.normal(size=3)), ir.Linear(w(3, 4), rng.integers(0, 3, (3, 4)))]
            )
        ),
        "self": ir.Linear(w(3, 3)),
        "late": ir.Delay(rng.integers(0, 3, 4)),
        "skip": ir.Linear(w(4, 2)),
        "out": ir.Output(draw(st.sampled_from(["count", "sum"]))),
    }
    edges = [("x", "a"), ("a", "input"), ("input", "b"), ("b", "c"), ("c", "out")]
    if draw(st.booleans()):
        edges += [("c", "back"), ("back", "input")]
    else:
        nodes.pop("back")
    if draw(st.booleans()):
        edges += [("input", "self"), ("self", "input")]
    else:
        nodes.pop("self")
    if draw(st.booleans()):
        edges += [("x", "skip"), ("skip", "c")]
    else:
        nodes.pop("skip")
    if draw(st.booleans()):
        edges += [("c", "late"), ("late", "c")]
    else:
        nodes.pop("late")
    if draw(st.booleans()):
        edges += [("input", "input")]
    return ir.Network(nodes, tuple(edges), 1e-3)


@LIGHT
@given(st.data())
def test_loops_of_any_kind(data: st.DataObject) -> None:
    network = data.draw(loops())
    dense = data.draw(spikes_for((2,), steps=(4, 15)))
    if not clear_of_thresholds(network, dense):
        return
    expected, spikes = answers(network, dense)
    module = to_module(network, torch.float64)
    found: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        out = module(torch.from_numpy(dense), found)
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-9, atol=1e-9)
    rename = {"input": "input_layer"}
    for name, s in spikes.items():
        np.testing.assert_array_equal(found[rename.get(name, name)].numpy(), s)
    back = to_network(module)
    np.testing.assert_allclose(answers(back, dense)[0], expected, rtol=1e-9, atol=1e-9)


@LIGHT
@given(st.data())
def test_gradients_reach_every_weight(data: st.DataObject) -> None:
    """Training works on whatever the bridge makes: each weight of a spiking path gets a finite gradient."""
    module = to_module(data.draw(loops()), torch.float64, surrogate="atan")
    out = module(torch.from_numpy(np.ones((8, 2, 2), np.uint8)))
    out.sum().backward()
    for name, p in module.named_parameters():
        assert p.grad is not None, name
        assert torch.isfinite(p.grad).all()
    assert any((p.grad != 0).any() for p in module.parameters())


def test_output_name_is_reserved() -> None:
    with pytest.raises(ValueError, match="rename"):
        SpikingNetwork({OUTPUT: torch.nn.Identity()}, [("input", OUTPUT)], input_shape=(1,), dt=1e-3)
