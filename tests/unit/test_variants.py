"""Fewer bits, fewer synapses, another step: each as its equation says, and nothing else touched."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from axon_strategies import networks
from hypothesis import given, settings
from hypothesis import strategies as st

from neuro import chain, reference
from neuro.errors import NetworkError
from neuro.ir import IF, LIF, Affine, Delay, Input, Linear, Network, Output
from neuro.variants import WEIGHTED, pruned, quantised, variant


@given(st.integers(0, 10**6), st.integers(2, 12))
def test_rounding_is_to_the_nearest_of_an_even_grid(seed: int, bits: int) -> None:
    weight = np.random.default_rng(seed).normal(size=(5, 7))
    found = quantised(weight, bits)
    levels = np.arange(-(2 ** (bits - 1)) + 1, 2 ** (bits - 1)) * np.abs(weight).max() / (2 ** (bits - 1) - 1)
    distance = np.abs(weight[..., None] - levels)
    assert np.allclose(np.abs(found - weight), distance.min(axis=-1), atol=1e-12)
    assert np.abs(found).max() == pytest.approx(np.abs(weight).max())
    assert np.allclose(quantised(found, bits), found)  # a second time changes nothing


@given(st.integers(0, 10**6), st.floats(0, 0.99))
def test_pruning_takes_the_smallest(seed: int, fraction: float) -> None:
    weight = np.random.default_rng(seed).integers(1, 20, (6, 4)) * 1.0  # with equal ones among them
    found = pruned(weight, fraction)
    gone = found == 0
    assert gone.sum() == int(fraction * 24 + 1e-9)
    assert np.array_equal(found[~gone], weight[~gone])
    if gone.any() and not gone.all():
        assert weight[gone].max() <= weight[~gone].min()


@given(networks())
@settings(max_examples=30, deadline=None)
def test_only_weights_change(network: Network) -> None:
    found = variant(network, weight_bits=4, sparsity=0.3)
    assert found.edges == network.edges
    assert found.dt == network.dt
    for name, node in network.nodes.items():
        other = found.nodes[name]
        assert type(other) is type(node)
        for field in dataclasses.fields(node):
            if isinstance(node, WEIGHTED) and field.name == "weight":
                assert np.array_equal(other.weight, quantised(pruned(node.weight, 0.3), 4))
            else:
                assert np.array_equal(getattr(node, field.name), getattr(other, field.name))


def test_zero_weights_stay_zero() -> None:
    assert not quantised(np.zeros((2, 2)), 3).any()


def test_another_step_keeps_the_seconds() -> None:
    nodes = {
        "in": Input((1,)),
        "d": Delay(np.array([6])),
        "w": Affine(np.eye(1), delay_steps=np.array([[4]]), bias=np.zeros(1)),
        "n": LIF(tau_mem=0.02, v_threshold=10.0),
        "m": Linear(np.eye(1)),
        "k": IF(v_threshold=10.0),
        "out": Output("count"),
    }
    network = chain(nodes, dt=1e-3)
    fine, coarse = variant(network, dt=5e-4), variant(network, dt=2e-3)
    assert (fine.dt, coarse.dt) == (5e-4, 2e-3)
    assert fine.nodes["d"].steps.tolist() == [12]
    assert coarse.nodes["d"].steps.tolist() == [3]
    assert fine.nodes["w"].delay_steps.tolist() == [[8]]
    assert fine.nodes["n"].tau_mem == network.nodes["n"].tau_mem
    spike = np.zeros((40, 1, 1))
    spike[0] = 1
    peaks = {}
    for net in (network, fine):
        v = reference.run(net, spike).v["n"].reshape(-1)
        peaks[net.dt] = int(np.argmax(v != 0)) * net.dt
    assert peaks[1e-3] == pytest.approx(peaks[5e-4])  # the input arrives after the same 10 ms


def test_impossible_values_are_refused_together() -> None:
    network = chain({"in": Input((1,)), "n": IF(v_threshold=1.0), "out": Output("count")}, dt=1e-3)
    with pytest.raises(NetworkError) as caught:
        variant(network, weight_bits=1, sparsity=1.0, dt=0.0)
    assert len(caught.value.violations) == 3
