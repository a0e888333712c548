"""Nodes and networks: what is accepted, what is refused, and that nothing can be changed afterwards."""

from __future__ import annotations

import copy
import itertools
import pickle
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
from axon_strategies import assert_same_network

from neuro import ir
from neuro.errors import CyclicWithoutDelay, NetworkError, ShapeMismatch, UnknownNode

NAN, INF = float("nan"), float("inf")


class Explodes:
    """What a lazy or gradient-carrying tensor does when it is read as an array."""

    def __array__(self, *_: object, **__: object) -> Any:
        raise RuntimeError("cannot call numpy() on a tensor that requires grad")


def small(**changed: Any) -> ir.Network:
    nodes = {"in": ir.Input((2,)), "fc": ir.Linear(np.eye(2)), "lif": ir.LIF(2e-3, 1.0), "out": ir.Output()}
    given: dict[str, Any] = {"nodes": nodes, "edges": tuple(itertools.pairwise(nodes)), "dt": 1e-3, **changed}
    return ir.Network(**given)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (NAN, "1 value"),
        ([1.0, INF, -INF], "2 value"),
        ([], "empty"),
        (np.zeros((0, 3)), "empty"),
        (None, "real numbers"),
        ("1", "real numbers"),
        (1j, "real numbers"),
        ([[1.0], [1.0, 2.0]], "real numbers"),
        (10**400, "real numbers"),
        (np.array([1, None]), "real numbers"),
        (Explodes(), "requires grad"),
        (np.longdouble("1e4000"), "NaN or infinite"),
    ],
)
def test_arrays_must_be_finite_numbers(value: Any, says: str) -> None:
    with pytest.raises(NetworkError, match=says) as caught:
        ir.IF(value)
    assert "IF" in str(caught.value)
    assert "v_threshold" in str(caught.value)


@pytest.mark.parametrize("name", ["tau_mem", "tau_syn"])
@pytest.mark.parametrize("value", [0.0, -1e-3, [1e-3, 0.0]])
def test_time_constants_must_be_positive(name: str, value: Any) -> None:
    given = {"tau_syn": 1e-3, "tau_mem": 1e-3, "v_threshold": 1.0, name: value}
    with pytest.raises(NetworkError, match=f"{name} must be positive"):
        ir.CubaLIF(**given)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (-1, "before it was sent"),
        (ir.MAX_DELAY_STEPS + 1, "0..1048576"),
        (np.uint64(2**63 + 1), "0..1048576"),
        (1e300, "0..1048576"),
        (0.5, "fractional"),
        (NAN, "fractional, NaN"),
        (INF, "infinite"),
        ([], "empty"),
        ("1", "whole numbers"),
        (None, "whole numbers"),
        (Explodes(), "requires grad"),
    ],
)
def test_delays_must_be_whole_steps(value: Any, says: str) -> None:
    with pytest.raises(NetworkError, match=says):
        ir.Delay(value)


def test_delays_may_come_as_whole_floats() -> None:
    assert ir.Delay(np.array([0.0, 3.0])).steps.dtype == np.int64
    assert ir.Linear(np.eye(2), np.ones((2, 2), bool)).delay_steps is not None


@pytest.mark.parametrize("shape", [(), (0,), (-1,), (2.0,), (True,), [2], "2", None, (2, NAN), (2, "3")])
def test_input_shape_must_be_positive_integers(shape: Any) -> None:
    with pytest.raises(NetworkError, match="positive integers"):
        ir.Input(shape)


def test_huge_shapes_are_refused_before_they_are_allocated() -> None:
    with pytest.raises(NetworkError, match="at most 16777216"):
        ir.Input((10**6, 10**6))
    with pytest.raises(NetworkError, match="at most"):
        ir.Input((np.int64(2**62), np.int64(4)))  # would overflow int64 to 0
    with pytest.raises(NetworkError, match="at most"):
        ir.LIF(np.ones((10_000, 1)), np.ones((1, 10_000)))
    wide = ir.Conv2d(np.ones((1, 1, 1, 1)), padding=(4096, 4096))
    with pytest.raises(ShapeMismatch, match=r"'c'.*channels, at most"):
        ir.chain({"i": ir.Input((1, 4, 4)), "c": wide, "n": ir.IF(1.0), "o": ir.Output()}, 1e-3)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ir.Linear(np.ones(3)), r"weight must be \[out, in\]"),
        (lambda: ir.Linear(np.ones((2, 3)), np.ones((3, 2))), "weight's shape"),
        (lambda: ir.Affine(np.ones((2, 3)), bias=np.ones(3)), r"bias must be \[2\]"),
        (lambda: ir.Affine(np.ones((2, 3)), bias=1.0), r"bias must be \[2\]"),
        (lambda: ir.Conv2d(np.ones((2, 3))), r"weight must be \[out, in / groups"),
        (lambda: ir.Conv2d(np.ones((3, 1, 2, 2)), groups=2), "divisor of 3"),
        (lambda: ir.Conv2d(np.ones((3, 1, 2, 2)), groups=0), "divisor"),
        (lambda: ir.Conv2d(np.ones((3, 1, 2, 2)), groups=1.0), "divisor"),
        (lambda: ir.Conv2d(np.ones((3, 1, 2, 2)), bias=np.ones(2)), r"bias must be \[3\]"),
        (lambda: ir.Conv2d(np.ones((3, 1, 2, 2)), stride=0), "stride must be"),
        (lambda: ir.Conv2d(np.ones((3, 1, 2, 2)), padding=-1), "padding must be"),
        (lambda: ir.Conv2d(np.ones((3, 1, 2, 2)), dilation=(1, 2, 3)), "dilation must be"),
        (lambda: ir.Conv2d(np.ones((3, 1, 2, 2)), stride=1.5), "stride must be"),
        (lambda: ir.Conv2d(np.ones((3, 1, 2, 2)), stride=10**9), "1..4096"),
        (lambda: ir.Conv2d(np.ones((3, 1, 2, 2)), stride=Explodes()), "stride must be"),
        (lambda: ir.SumPool2d(0, 1), "kernel_size must be"),
        (lambda: ir.AvgPool2d(2, "2"), "stride must be"),
        (lambda: ir.AvgPool2d(2, 2, (1, -1)), "padding must be"),
        (lambda: ir.LIF(np.ones(3), np.ones(2)), "do not broadcast"),
        (lambda: ir.LIF(1e-3, 1.0, reset="soft"), "reset must be one of"),
        (lambda: ir.IF(1.0, reset=np.array(["hard", "soft"])), "reset must be one of"),
        (lambda: ir.Output("mean"), "readout must be one of"),
        (lambda: ir.Output(None), "readout must be one of"),
    ],
)
def test_node_refuses(make: Any, says: str) -> None:
    with pytest.raises(NetworkError, match=says):
        make()


def test_node_lists_all_problems_at_once() -> None:
    with pytest.raises(NetworkError) as caught:
        ir.Conv2d(np.ones((3, 1, 2, 2)), stride=0, padding=-1, groups=2, bias=np.ones(7))
    assert len(caught.value.violations) == 4


def test_arrays_are_copied_and_frozen() -> None:
    weight = np.eye(2)
    node = ir.Linear(weight)
    weight[0, 0] = 7.0
    assert node.weight[0, 0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        node.weight[0, 0] = 2.0
    with pytest.raises(FrozenInstanceError):
        node.weight = weight  # type: ignore[misc]


def test_ints_become_pairs_and_one_bias_becomes_many() -> None:
    node = ir.Conv2d(np.ones((3, 1, 2, 2)), stride=2, padding=np.array([1, 0]), bias=0.5)
    assert (node.stride, node.padding, node.dilation) == ((2, 2), (1, 0), (1, 1))
    np.testing.assert_array_equal(node.bias, [0.5, 0.5, 0.5])


def test_neuron_parameters_become_one_value_per_neuron() -> None:
    node = ir.LIF(np.full((2, 1, 1), 1e-3), np.ones((2, 3, 4)), v_leak=0.5)
    assert node.shape == (2, 3, 4)
    assert node.v_leak.shape == node.tau_mem.shape == (2, 3, 4)


@pytest.mark.parametrize("given", [(), (1,), (1, 1, 1), (2, 1, 1), (1, 3, 1), (2, 3, 4)])
def test_neuron_expands_to_its_input(given: tuple[int, ...]) -> None:
    node = ir.IF(np.full(given, 0.5), reset="subtract").expand((2, 3, 4))
    assert isinstance(node, ir.IF)
    assert node.v_threshold.shape == (2, 3, 4)
    assert node.reset == "subtract"


@pytest.mark.parametrize("given", [(4,), (2,), (3, 4), (2, 3), (2, 3, 3)])
def test_neuron_does_not_guess_axes(given: tuple[int, ...]) -> None:
    with pytest.raises(ShapeMismatch, match="parameters have shape"):
        ir.IF(np.ones(given)).expand((2, 3, 4))


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"dt": 0}, "dt must be positive"),
        ({"dt": -1.0}, "dt must be positive"),
        ({"dt": NAN}, "dt must be positive"),
        ({"dt": INF}, "dt must be positive"),
        ({"dt": 10**400}, "dt must be positive"),
        ({"dt": "1e-3"}, "dt must be a number"),
        ({"dt": True}, "dt must be a number"),
        ({"dt": None}, "dt must be a number"),
        ({"discretisation": "midpoint"}, "discretisation must be one of"),
        ({"discretisation": ["exact"]}, "discretisation must be one of"),
        ({"nodes": {}}, "no nodes"),
        ({"nodes": [ir.Input((1,))]}, "no nodes"),
        ({"nodes": {1: ir.Input((2,))}}, "non-empty string"),
        ({"nodes": {"": ir.Input((2,))}}, "non-empty string"),
        ({"nodes": {"a": "LIF"}}, "is a str"),
        ({"nodes": {"a": type("LIF", (ir.Node,), {})()}}, "is a LIF, not one of"),
        ({"nodes": {"a": ir.Neuron()}}, "is a Neuron"),
        ({"edges": None}, "pairs of node names"),
        ({"edges": (("in",),)}, "pairs of node names"),
        ({"edges": ("in",)}, "pairs of node names"),
        ({"edges": ((1, 2),)}, "pairs of node names"),
        ({"edges": (("in", "fc"), ("in", "fc"))}, "listed twice"),
        ({"metadata": {"a": 1}}, "metadata must map strings"),
        ({"metadata": None}, "metadata must map strings"),
        ({"metadata": ["a"]}, "metadata must map strings"),
    ],
)
def test_network_refuses(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(NetworkError, match=says):
        small(**changed)


def test_network_names_every_missing_node() -> None:
    with pytest.raises(UnknownNode) as caught:
        small(edges=(("in", "nowhere"), ("nobody", "out")))
    assert len(caught.value.violations) == 2


def test_network_is_frozen() -> None:
    net = small(metadata={"classes": "a b"})
    with pytest.raises(TypeError):
        net.nodes["in"] = ir.Input((3,))  # type: ignore[index]
    with pytest.raises(TypeError):
        net.metadata["classes"] = ""  # type: ignore[index]
    with pytest.raises(FrozenInstanceError):
        net.dt = 1.0  # type: ignore[misc]


def test_copies_are_equal_and_frozen() -> None:
    net = small(metadata={"classes": "a b"})
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net)), net.replace_nodes({})):
        assert_same_network(net, other)
        assert not other.nodes["fc"].weight.flags.writeable  # type: ignore[attr-defined]


def test_neighbours_and_types() -> None:
    net = small()
    assert net.sources("fc") == ("in",)
    assert net.targets("fc") == ("lif",)
    assert net.of(ir.Linear, ir.LIF) == ("fc", "lif")
    assert (net.input, net.output) == ("in", "out")
    assert repr(net).splitlines()[2] == "  fc: Linear (2,) <- in"


def test_one_input_is_asked_for_by_name() -> None:
    nodes = {"a": ir.Input((1,)), "b": ir.Input((1,)), "n": ir.IF(1.0), "o": ir.Output()}
    net = ir.Network(nodes, (("a", "n"), ("b", "n"), ("n", "o")), 1e-3)
    with pytest.raises(NetworkError, match="exactly one Input, this network has 2"):
        _ = net.input
    assert net.output == "o"


def test_replaced_nodes_are_checked_anew() -> None:
    with pytest.raises(ShapeMismatch):
        small().replace_nodes({"fc": ir.Linear(np.ones((2, 3)))})


def test_repr_marks_late_edges() -> None:
    nodes = {"i": ir.Input((1,)), "n": ir.IF(1.0), "r": ir.Linear(np.eye(1)), "o": ir.Output()}
    net = ir.Network(nodes, (("i", "n"), ("n", "r"), ("r", "n"), ("n", "o")), 1e-3)
    assert "n: IF (1,) <- i, r (z^-1)" in repr(net)


def test_chain_takes_mappings_and_pairs() -> None:
    pairs = [("i", ir.Input((1,))), ("n", ir.IF(1.0)), ("o", ir.Output())]
    assert_same_network(ir.chain(pairs, 1e-3), ir.chain(dict(pairs), 1e-3))


@pytest.mark.parametrize("nodes", [None, 3, [("i",)], [1, 2], [(["i"], ir.Input((1,)))]])
def test_chain_refuses_what_is_no_pairs(nodes: Any) -> None:
    with pytest.raises(NetworkError, match="names and nodes"):
        ir.chain(nodes, 1e-3)


def test_chain_refuses_a_name_twice() -> None:
    with pytest.raises(NetworkError, match="names must differ"):
        ir.chain([("i", ir.Input((1,))), ("i", ir.IF(1.0)), ("o", ir.Output())], 1e-3)


def test_a_loop_needs_state() -> None:
    nodes = {"i": ir.Input((1,)), "s": ir.Scale(1.0), "t": ir.Scale(1.0), "n": ir.IF(1.0), "o": ir.Output()}
    with pytest.raises(CyclicWithoutDelay, match="t -> s"):
        ir.Network(nodes, (("i", "s"), ("s", "t"), ("t", "s"), ("t", "n"), ("n", "o")), 1e-3)
