"""Order of evaluation, late edges, and shapes of every node type."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from neuro import ir
from neuro.errors import CyclicWithoutDelay, NetworkError, ShapeMismatch
from neuro.shapes import input_shape, sends_spikes

IMAGE = (2, 7, 6)


def after(node: ir.Node, shape: tuple[int, ...] = IMAGE) -> tuple[int, ...]:
    """Shape of what a node sends when a step of ``shape`` enters it."""
    net = ir.chain({"i": ir.Input(shape), "n": node, "o": ir.Output("sum")}, 1e-3)
    assert input_shape(net, "n") == shape
    assert net.shapes["o"] == net.shapes["n"]
    return net.shapes["n"]


@pytest.mark.parametrize(
    ("node", "shape"),
    [
        (ir.Conv2d(np.ones((3, 2, 3, 2))), (3, 5, 5)),
        (ir.Conv2d(np.ones((4, 1, 3, 3)), groups=2, padding=1), (4, 7, 6)),
        (ir.Conv2d(np.ones((1, 2, 3, 3)), stride=(2, 3), dilation=(2, 1), padding=(1, 0)), (1, 3, 2)),
        (ir.SumPool2d(2, 2), (2, 3, 3)),
        (ir.AvgPool2d((3, 2), (1, 2), (1, 0)), (2, 7, 3)),
        (ir.Flatten(), (84,)),
        (ir.Scale(2.0), IMAGE),
        (ir.Scale(np.ones((2, 1, 1))), IMAGE),
        (ir.Delay(3), IMAGE),
        (ir.Delay(np.zeros(IMAGE)), IMAGE),
        (ir.IF(1.0), IMAGE),
        (ir.LI(np.ones((2, 1, 1))), IMAGE),
    ],
)
def test_shape_of_node(node: ir.Node, shape: tuple[int, ...]) -> None:
    assert after(node) == shape


def test_conv_and_pool_shapes_are_torchs() -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    for stride, padding, dilation in itertools.product((1, 2), (0, 1, 2), (1, 2)):
        node = ir.Conv2d(np.ones((3, 2, 3, 2)), stride, padding, dilation)
        y = torch.nn.functional.conv2d(torch.zeros(1, *IMAGE), torch.ones(3, 2, 3, 2), None, stride, padding, dilation)
        assert after(node) == tuple(y.shape[1:])


@pytest.mark.parametrize(
    ("node", "shape", "says"),
    [
        (ir.Linear(np.ones((3, 84))), IMAGE, "put a Flatten in front"),
        (ir.Linear(np.ones((3, 5))), (4,), r"wants input \(5,\), got \(4,\)$"),
        (ir.Conv2d(np.ones((3, 2, 3, 3))), (4,), "wants input .channel, height, width., got"),
        (ir.Conv2d(np.ones((3, 1, 3, 3))), IMAGE, "wants 1 input channels, got 2"),
        (ir.Conv2d(np.ones((3, 2, 9, 3))), IMAGE, "larger than input"),
        (ir.SumPool2d(8, 1), IMAGE, "larger than input"),
        (ir.AvgPool2d(2, 2), (4,), "wants input .channel"),
        (ir.Scale(np.ones(2)), (3,), r"scale has shape \(2,\), input has \(3,\)"),
        (ir.Delay([1, 2]), (3,), r"steps has shape \(2,\)"),
        (ir.IF(np.ones(2)), (3,), r"parameters have shape \(2,\)"),
    ],
)
def test_shape_is_refused(node: ir.Node, shape: tuple[int, ...], says: str) -> None:
    with pytest.raises(ShapeMismatch, match=says) as caught:
        after(node, shape)
    assert "'n'" in str(caught.value)


def net(nodes: dict[str, ir.Node], edges: str) -> ir.Network:
    return ir.Network(nodes, tuple((pair[0], pair[1]) for pair in edges.split()), 1e-3)


NODES: dict[str, ir.Node] = {"i": ir.Input((2,)), "n": ir.IF(1.0), "o": ir.Output()}


@pytest.mark.parametrize(
    ("nodes", "edges", "says"),
    [
        ({"n": ir.IF(1.0), "o": ir.Output()}, "no", "no Input"),
        ({"i": ir.Input((2,)), "n": ir.IF(1.0)}, "in", "no Output"),
        (NODES, "in no ni", "nothing may feed an input"),
        ({**NODES, "j": ir.Input((2,))}, "ij in no", "nothing may feed an input"),
        (NODES, "in no on", "nothing may follow an output"),
        ({**NODES, "x": ir.IF(1.0)}, "in no", "reaches 'x'"),
        ({**NODES, "x": ir.IF(1.0), "y": ir.IF(1.0)}, "in no xy yx xn", "reaches 'x', 'y'"),
    ],
)
def test_graph_is_refused(nodes: dict[str, ir.Node], edges: str, says: str) -> None:
    with pytest.raises(NetworkError, match=says):
        net(nodes, edges)


def test_all_problems_of_the_graph_come_at_once() -> None:
    with pytest.raises(NetworkError) as caught:
        net({**NODES, "x": ir.IF(1.0)}, "in no ni on")
    assert len(caught.value.violations) == 3


def test_one_wrong_shape_is_reported_once_and_others_too() -> None:
    nodes = {
        "i": ir.Input((2,)),
        "a": ir.Linear(np.ones((3, 5))),
        "b": ir.IF(1.0),
        "c": ir.Scale(np.ones(7)),
        "o": ir.Output("sum"),
    }
    with pytest.raises(ShapeMismatch) as caught:
        net(nodes, "ia ab bo ic co")
    assert sorted(str(v).split("'")[1] for v in caught.value.violations) == ["a", "c"]


def test_sources_of_different_shapes_do_not_add_up() -> None:
    nodes = {**NODES, "a": ir.Linear(np.ones((3, 2)))}
    with pytest.raises(ShapeMismatch, match=r"adds up sources of different shapes: 'i'.*'a'"):
        net(nodes, "ia in an no")


def test_late_edge_of_another_shape_is_refused_beside_other_problems() -> None:
    nodes = {**NODES, "r": ir.Linear(np.ones((3, 2))), "c": ir.Scale(np.ones(7)), "p": ir.Output("sum")}
    with pytest.raises(ShapeMismatch) as caught:
        net(nodes, "in no nr rn ic cp")
    assert len(caught.value.violations) == 2
    assert "feedback 'r' (3,) -> 'n'" in str(caught.value)


def test_feed_forward_order_and_loops() -> None:
    nodes = {**NODES, "r": ir.Linear(np.ones((2, 2)))}
    looped = net(nodes, "rn no nr in")
    assert looped.order[:2] == ("i", "n")
    assert looped.order[-1] in ("o", "r")
    assert looped.feedback == {("r", "n")}
    self_loop = net({**NODES}, "in nn no")
    assert self_loop.feedback == {("n", "n")}


def test_order_keeps_inputs_as_declared() -> None:
    nodes = {"a": ir.Input((2,)), "b": ir.Input((2,)), "n": ir.IF(1.0), "o": ir.Output()}
    assert net(nodes, "an bn no").order == ("a", "b", "n", "o")


def test_every_source_comes_first_but_for_late_edges() -> None:
    nodes = {**NODES, **{k: ir.IF(1.0) for k in "abcdef"}}
    found = net(nodes, "ia ib ac bc cd da ce ed ef fb fn nn no")
    place = {name: k for k, name in enumerate(found.order)}
    for source, target in found.edges:
        assert (place[source] < place[target]) != ((source, target) in found.feedback)


@pytest.mark.parametrize("edges", ["is st ts tn no", "is st ts sn no", "is st ss tn no"])
def test_loop_without_state_is_refused(edges: str) -> None:
    nodes = {**NODES, "s": ir.Scale(0.5), "t": ir.Scale(0.5)}
    with pytest.raises(CyclicWithoutDelay) as caught:
        net(nodes, edges)
    assert len(caught.value.violations) == 1


def test_loop_closed_by_two_late_edges_needs_state_as_well() -> None:
    """Depth first: i a n b m c, and c -> b, b -> a are late. The loop a c b a has both and no neuron."""
    scales = {name: ir.Scale(0.5) for name in "abc"}
    with pytest.raises(CyclicWithoutDelay, match="b -> a"):
        net({**NODES, **scales, "m": ir.IF(1.0)}, "ia an nb bm mc ac cb ba mo")


@pytest.mark.parametrize("state", [ir.IF(1.0), ir.LI(1e-3), ir.Delay(1)])
def test_loop_with_state_is_fine(state: ir.Node) -> None:
    nodes = {**NODES, "s": ir.Scale(0.5), "t": state}
    assert net(nodes, "is st ts sn no").feedback == {("t", "s")}


@pytest.mark.parametrize(
    ("between", "spikes"),
    [
        ({}, True),
        ({"a": ir.Flatten()}, True),
        ({"a": ir.Delay(2), "b": ir.Flatten()}, True),
        ({"a": ir.Scale(1.0)}, False),
        ({"a": ir.LI(1e-3)}, False),
    ],
)
def test_only_spikes_are_counted(between: dict[str, ir.Node], spikes: bool) -> None:
    nodes = {"i": ir.Input((2,)), "n": ir.IF(1.0), **between, "o": ir.Output("sum")}
    found = ir.chain(nodes, 1e-3)
    assert sends_spikes(found, list(nodes)[-2]) is spikes
    if spikes:
        found.replace_nodes({"o": ir.Output("count")})
    else:
        with pytest.raises(ShapeMismatch, match="sends none"):
            found.replace_nodes({"o": ir.Output("count")})


def test_input_is_not_counted() -> None:
    with pytest.raises(ShapeMismatch, match="'i' sends none"):
        ir.chain({"i": ir.Input((2,)), "o": ir.Output()}, 1e-3)


def test_deep_networks_do_not_recurse() -> None:
    nodes: dict[str, ir.Node] = {"i": ir.Input((2,)), "n": ir.IF(1.0), **{f"f{k}": ir.Flatten() for k in range(3000)}}
    found = ir.chain({**nodes, "o": ir.Output()}, 1e-3)
    assert len(found.order) == 3003
