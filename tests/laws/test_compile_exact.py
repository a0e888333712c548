"""Where every number lies on the chip's grid, the compiled integers spike exactly like the float reference."""

from __future__ import annotations

import numpy as np
import pytest
from compile_networks import compare, dense_graph, events, image_graph, in_float, on_chip
from hypothesis import given, settings
from hypothesis import strategies as st

from neuro import ir
from neuro.errors import DoesNotFit
from neuro.hardware import compile as compile_network

seeds = st.integers(0, 2**32 - 1)
quick = settings(deadline=None, max_examples=25)


@quick
@given(seeds)
def test_graphs_with_skips_loops_and_delays(seed: int) -> None:
    """Every path, however long, delivers in the step the Network says: skew and delays align exactly."""
    network = dense_graph(seed)
    program = compare(network, events(seed, network))
    assert program.substitutions == ()


@quick
@given(seeds)
def test_images(seed: int) -> None:
    """Pools fold into kernels or matrices, strides, padding and groups included."""
    network = image_graph(seed)
    assert compare(network, events(seed, network)).substitutions == ()


@quick
@given(seeds, st.floats(1e-3, 1e3))
def test_scale_of_the_network_is_nothing_to_the_chip(seed: int, factor: float) -> None:
    """Weights and thresholds times any real factor: the grid is found, the spikes are the same."""
    network = dense_graph(seed)
    scaled = {}
    for name, node in network.nodes.items():
        if isinstance(node, ir.Linear):
            scaled[name] = ir.Linear(node.weight * factor, node.delay_steps)
        elif isinstance(node, ir.IF):
            scaled[name] = ir.IF(v_threshold=node.v_threshold * factor)
    dense = events(seed, network)
    program = compile_network(network.replace_nodes(scaled))
    chip, wanted = on_chip(program, dense), in_float(network, dense)
    np.testing.assert_array_equal(chip[program.output], wanted[program.output])


@quick
@given(seeds, st.integers(1, 3))
def test_leaks_the_chip_can_hold_exactly(seed: int, halvings: int) -> None:
    """beta = 2**-h: a few steps lose no bit, so a leaky network is exact for as long."""
    rng = np.random.default_rng(seed)
    beta = 2.0**-halvings
    lif = ir.LIF(tau_mem=np.full(5, 1.0), v_threshold=np.full(5, float(rng.integers(20, 90)) / 64), r=1 / (1 - beta))
    network = ir.chain(
        [
            ("in", ir.Input((4,))),
            ("w", ir.Linear(rng.integers(-100, 101, (5, 4)) / 64)),
            ("p", lif),
            ("out", ir.Output()),
        ],
        dt=1.0 - beta,
        discretisation="euler",
    )
    program = compare(network, events(seed, network, steps=6 // halvings))
    assert int(program.populations["p"].params["dv"]) == 4096 - 4096 // 2**halvings


def test_feedback_across_layers_is_exact_with_enough_delay() -> None:
    """A loop of two projections with one more step of delay fits; without it, it is named as late."""
    rng = np.random.default_rng(5)

    def looped(extra: int) -> ir.Network:
        nodes = {
            "in": ir.Input((4,)),
            "w0": ir.Linear(rng.integers(-60, 90, (5, 4)) / 64),
            "a": ir.IF(v_threshold=np.full(5, 1.0)),
            "w1": ir.Linear(rng.integers(-60, 90, (3, 5)) / 64),
            "b": ir.IF(v_threshold=np.full(3, 0.7)),
            "back": ir.Linear(rng.integers(-60, 90, (5, 3)) / 64),
            "late": ir.Delay(np.full(5, extra)),
            "out": ir.Output(),
        }
        edges = [
            ("in", "w0"),
            ("w0", "a"),
            ("a", "w1"),
            ("w1", "b"),
            ("b", "out"),
            ("b", "back"),
            ("back", "late"),
            ("late", "a"),
        ]
        return ir.Network(nodes, tuple(edges), dt=1e-3)

    exact = looped(1)
    assert compare(exact, events(1, exact)).substitutions == ()
    tight = looped(0)
    late = compile_network(tight)
    dense = events(1, tight)
    slower = in_float(tight.replace_nodes({"late": ir.Delay(np.ones(5, int))}), dense)
    np.testing.assert_array_equal(on_chip(late, dense)["b"], slower["b"])  # late by exactly what it says
    assert len(late.substitutions) == 1
    assert "1 step(s) late" in late.substitutions[0]


def test_one_pair_of_neurons_with_synapses_of_different_delay() -> None:
    nodes = {
        "in": ir.Input((2,)),
        "now": ir.Linear(np.eye(2) / 2),
        "then": ir.Linear(np.array([[0.5, 0.25], [0.25, 0.5]])),
        "d": ir.Delay(np.array([3, 1])),
        "sum": ir.Scale(np.ones(2)),
        "p": ir.IF(v_threshold=np.full(2, 0.6)),
        "out": ir.Output(),
    }
    edges = [("in", "now"), ("in", "then"), ("then", "d"), ("now", "sum"), ("d", "sum"), ("sum", "p"), ("p", "out")]
    network = ir.Network(nodes, tuple(edges), dt=1e-3)
    compare(network, events(3, network))


def test_two_matrices_with_delays_in_a_row() -> None:
    """Between one pair of neurons run ways of several lengths; the chip holds one synapse per pair and projection."""
    rng = np.random.default_rng(8)
    first = ir.Linear(rng.integers(1, 4, (3, 2)) * 1.0, rng.integers(0, 4, (3, 2)))
    second = ir.Linear(rng.integers(1, 4, (2, 3)) * 1.0, rng.integers(0, 4, (2, 3)))
    nodes = {"in": ir.Input((2,)), "w": first, "v": second, "p": ir.IF(v_threshold=np.full(2, 9.0)), "out": ir.Output()}
    network = ir.chain(nodes, dt=1e-3)
    program = compare(network, events(3, network))
    assert len(program.projections) > 1
    for p in program.projections:
        pairs = list(zip(p.params["row"].tolist(), p.params["col"].tolist(), strict=True))
        assert len(pairs) == len(set(pairs))


@pytest.mark.parametrize("steps", [61, 62])
def test_the_longest_delay_fits_and_arrives(steps: int) -> None:
    network = ir.chain(
        [
            ("in", ir.Input((1,))),
            ("d", ir.Delay(np.array([steps]))),
            ("w", ir.Linear(np.ones((1, 1)))),
            ("p", ir.IF(v_threshold=np.array([0.5]))),
            ("out", ir.Output()),
        ],
        dt=1e-3,
    )
    compare(network, events(3, network, steps=80))


def test_one_step_more_does_not_fit() -> None:
    network = ir.chain(
        [
            ("in", ir.Input((1,))),
            ("d", ir.Delay(np.array([63]))),
            ("w", ir.Linear(np.ones((1, 1)))),
            ("p", ir.IF(v_threshold=np.array([0.5]))),
            ("out", ir.Output()),
        ],
        dt=1e-3,
    )
    with pytest.raises(DoesNotFit, match="is 63, allowed 62"):
        compile_network(network)
