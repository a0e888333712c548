"""Lowering: what the network computes is what the graph computes, bit for bit where the form says so."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuro import ir, reference
from neuro.convert.graph import Graph
from neuro.convert.lower import Lowered, to_network
from neuro.convert.ops import (
    Add,
    Affine,
    AvgPool,
    Concat,
    Conv,
    Function,
    Input,
    Linear,
    MaxPool,
    Op,
    Quantise,
    Reshape,
    Softmax,
)
from neuro.convert.quantise import quantise
from neuro.errors import ConversionError

RNG = torch.Generator().manual_seed(7)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=RNG, dtype=torch.float64)


def images(n: int = 40, channels: int = 1, side: int = 8) -> Tensor:
    return torch.rand(n, channels, side, side, generator=RNG, dtype=torch.float64)


def chain(*pairs: tuple[str, Op]) -> Graph:
    names = [name for name, _ in pairs]
    takes = {name: (before,) for before, name in itertools.pairwise(names)}
    return Graph(dict(pairs), takes, names[-1])


def cnn() -> Graph:
    """A rectifier in front of a max-pool, one behind, padding, an average pool."""
    return chain(
        ("x", Input((1, 8, 8))),
        ("c1", Conv(0.5 * normal(4, 1, 3, 3), 0.3 * normal(4), (1, 1), (1, 1))),
        ("p1", MaxPool((2, 2), (2, 2))),
        ("r1", Function("relu")),
        ("c2", Conv(0.3 * normal(6, 2, 3, 3), 0.3 * normal(6), (1, 1), (1, 1), groups=2)),
        ("r2", Function("relu")),
        ("p2", MaxPool((3, 3), (2, 2), (1, 1))),
        ("a", AvgPool((2, 2), (1, 1))),
        ("f", Reshape((-1,))),
        ("l1", Linear(0.4 * normal(12, 6), normal(12))),
        ("r3", Function("relu")),
        ("l2", Linear(0.4 * normal(5, 12), normal(5))),
    )


def residual() -> Graph:
    """Two ways into one population, a concatenation, a factor, a mean over the image."""
    ops: dict[str, Op] = {
        "x": Input((2, 6, 6)),
        "c0": Conv(0.4 * normal(4, 2, 3, 3), normal(4), (1, 1), (1, 1)),
        "r0": Function("relu"),
        "c1": Conv(0.3 * normal(4, 4, 3, 3), normal(4), (1, 1), (1, 1)),
        "sum": Add((1, -1)),
        "r1": Function("relu"),
        "both": Concat(1),
        "scaled": Affine(torch.tensor([0.5, 1, 2, 1, 1, 0.25, 1, 1], dtype=torch.float64).reshape(8, 1, 1)),
        "c2": Conv(0.3 * normal(5, 8, 1, 1), None, (1, 1), (0, 0)),
        "r2": Function("relu"),
        "l": Reshape((-1,)),
        "fc": Linear(0.2 * normal(3, 180)),
    }
    takes = {
        "c0": ("x",),
        "r0": ("c0",),
        "c1": ("r0",),
        "sum": ("c1", "r0"),
        "r1": ("sum",),
        "both": ("r0", "r1"),
        "scaled": ("both",),
        "c2": ("scaled",),
        "r2": ("c2",),
        "l": ("r2",),
        "fc": ("l",),
    }
    return Graph(ops, takes, "fc")


def run(net: Lowered, x: Tensor) -> tuple[NDArray[np.float64], reference.Record]:
    record = reference.run(net.network, net.encode(x))
    return net.decode(reference.scores(net.network, record)), record


def sent(net: Lowered, record: reference.Record, name: str) -> NDArray[np.float64]:
    node = net.node[name]
    table = record.spikes if node in record.spikes else record.sent
    last: NDArray[np.float64] = table[node][0]
    return last.reshape(len(last), -1)


@pytest.mark.parametrize("neuron", ["LIF", "IF"])
@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("binary", [True, False])
def test_thermometer_equals_the_quantised_graph(neuron: str, levels: int, binary: bool) -> None:
    x = images()
    graph = quantise(cnn(), x, levels=levels, weight_bits=4, input_levels=3)
    net = to_network(graph, neuron=neuron, binary_input=binary)
    found, record = run(net, x)
    assert net.exact
    assert net.weight_bits <= 4
    assert np.array_equal(found, graph.run(x).numpy())
    values = net.graph.values(x)
    assert set(net.codes) == {"x.events", "r1", "r2", "r3", "p1", "p2"}
    for name in set(net.codes) - {net.source}:
        assert np.array_equal(net.values(name, sent(net, record, name)), values[name].numpy()), name
        assert len(np.unique(values[name].numpy())) > 1, name  # not vacuous


def test_mirrored_units_are_used() -> None:
    """Somewhere a level is reached at rest, so that silence must mean it."""
    x = images()
    net = to_network(quantise(cnn(), x, levels=3, weight_bits=4, input_levels=3))
    assert any((code.sign < 0).any() for code in net.codes.values())
    assert all((node.v_threshold > 0).all() for node in net.network.nodes.values() if isinstance(node, ir.LIF))


def test_residuals_and_concatenation_on_common_steps() -> None:
    x = images(40, 2, 6)
    graph = quantise(residual(), x, levels=3, weight_bits=3, input_levels=2)
    one = torch.tensor(0.25, dtype=torch.float64)
    graph = graph.replace({n: Quantise(one, 0, 3) for n in graph.neurons})
    graph = graph.replace({n: _rounded(graph.ops[n], 0.125) for n in ("c0", "c1")})
    found, record = run(net := to_network(graph), x)
    assert net.exact
    assert np.array_equal(found, graph.run(x).numpy())
    values = net.graph.values(x)
    for name in set(net.codes) - {net.source}:
        assert np.array_equal(net.values(name, sent(net, record, name)), values[name].numpy()), name


def _rounded(operation: Op, unit: float) -> Op:
    assert isinstance(operation, Conv)
    weight = torch.round(operation.weight / unit).clamp(-3, 3) * unit
    return Conv(weight, operation.bias, operation.stride, operation.padding)


def test_incommensurate_sums_are_refused_by_name() -> None:
    x = images(40, 2, 6)
    graph = quantise(residual(), x, levels=3, weight_bits=3, input_levels=2)
    graph = graph.replace({"r0": Quantise(torch.tensor(0.3141592653589793, dtype=torch.float64), 0, 3)})
    with pytest.raises(ConversionError, match=r"'r2' adds sums whose units .* have no common measure"):
        to_network(graph)


def test_answer_of_neurons_and_on_the_host() -> None:
    x = images()
    graph = quantise(cnn(), x, levels=2, weight_bits="ternary", input_levels=1)
    host = to_network(graph, readout="spikes")
    assert np.allclose(run(host, x)[0], graph.run(x).numpy(), rtol=0, atol=1e-12)
    assert "host" in host.claim
    ends = quantise(cnn(), x, levels=2, weight_bits="ternary", input_levels=1).insert(
        "l2", "out", Quantise(torch.tensor(0.5, dtype=torch.float64), -3, 3)
    )
    net = to_network(ends)
    assert isinstance(net.network.nodes[net.network.output], ir.Output)
    assert np.array_equal(run(net, x)[0], ends.run(x).numpy())


def test_levels_send_the_quantised_values() -> None:
    x = images()
    graph = quantise(cnn(), x, levels=15, weight_bits=4, input_levels=15)
    net = to_network(graph, "levels")
    found, _ = run(net, x)
    assert np.abs(found - graph.run(x).numpy()).max() < 1e-12
    assert np.abs(run(to_network(graph, "levels", bias="decode"), x)[0] - found).max() < 1e-12
    assert not any(isinstance(n, ir.Neuron) for n in net.network.nodes.values())


def whole(*shape: int, most: int = 1) -> Tensor:
    return torch.randint(-most, most + 1, shape, generator=RNG).to(torch.float64)


def rectifiers() -> Graph:
    return chain(
        ("x", Input((1, 8, 8))),
        ("c1", Conv(whole(4, 1, 3, 3), whole(4, most=3), (2, 2), (1, 1))),
        ("r1", Function("relu")),
        ("c2", Conv(0.5 * whole(6, 4, 3, 3), None, (2, 2), (1, 1))),
        ("r2", Function("relu")),
        ("f", Reshape((-1,))),
        ("fc", Linear(whole(5, 24), whole(5))),
    )


def test_graded_equals_rectifiers_without_levels() -> None:
    x, graph = 3 * images(), rectifiers()
    net = to_network(graph, "graded", input_levels=3, input_high=3.0)
    found, _ = run(net, x)
    assert np.array_equal(found, net.graph.run(x).numpy())
    assert np.array_equal(found, graph.run(torch.floor(x + 0.5).clamp(0, 3)).numpy())


def test_rate_comes_closer_with_time() -> None:
    x = images()
    graph = quantise(rectifiers(), x, levels=4, weight_bits=8, input_levels=4)
    fine = {n: Quantise(graph.ops[n].step / 256, 0, 1024) for n in graph.neurons if n != "x.events"}  # type: ignore[attr-defined]
    wanted = graph.replace(fine).run(x).numpy()  # what rates tend to: cut at the top, but without levels
    off = [np.abs(run(to_network(graph, "rate", steps=t), x)[0] - wanted).mean() for t in (4, 256)]
    assert off[1] < 0.3 * off[0]
    assert not to_network(graph, "rate").exact


@pytest.mark.parametrize("binary", [True, False])
def test_unfolded_spikes_are_the_levels(binary: bool) -> None:
    x = images(20, 2, 6)
    graph = quantise(residual(), x, levels=3, weight_bits=3, input_levels=2)
    one = torch.tensor(0.25, dtype=torch.float64)
    graph = graph.replace({n: Quantise(one, 0, 3) for n in graph.neurons if n != "x.events"})
    graph = graph.replace({n: _rounded(graph.ops[n], 0.125) for n in ("c0", "c1")})
    net = to_network(graph, "unfold", binary_input=binary)
    assert net.steps == 3 * 3
    found, record = run(net, x)
    assert np.abs(found - graph.run(x).numpy()).max() < 1e-12
    values = net.graph.values(x)
    for name in set(net.codes) - {net.source}:
        counts = record.spikes[net.node[name]].sum(0).reshape(len(x), -1)
        assert np.abs(net.values(name, counts) - values[name].numpy()).max() < 1e-12, name


def test_unfolded_vectors() -> None:
    graph = chain(
        ("x", Input((6,))),
        ("a", Linear(normal(8, 6), normal(8))),
        ("r", Function("relu")),
        ("b", Linear(normal(5, 8), normal(5))),
        ("s", Function("relu")),
        ("c", Linear(normal(3, 5), normal(3))),
    )
    x = torch.rand(30, 6, generator=RNG, dtype=torch.float64)
    graph = quantise(graph, x, levels=4, weight_bits=4, input_levels=4)
    net = to_network(graph, "unfold")
    assert np.abs(run(net, x)[0] - graph.run(x).numpy()).max() < 1e-12
    with pytest.raises(ConversionError, match="one number of levels"):
        to_network(graph.replace({"s": Quantise(torch.ones((), dtype=torch.float64), 0, 5)}), "unfold")
    with pytest.raises(ConversionError, match=r"'p1' \(MaxPool\) has no counterpart in form 'unfold'"):
        to_network(quantise(cnn(), images(), levels=2, input_levels=2), "unfold")


def test_real_weights_are_said_not_to_be_exact() -> None:
    x = images()
    net = to_network(quantise(cnn(), x, levels=3, input_levels=3))
    assert not net.exact
    assert "24 bits" in net.claim
    assert np.abs(run(net, x)[0] - net.graph.run(x).numpy()).max() < 0.1


def test_everything_refused_is_said_at_once() -> None:
    graph = chain(
        ("x", Input((1, 8, 8))),
        ("c", Conv(normal(2, 1, 3, 3))),
        ("g", Function("gelu")),
        ("f", Reshape((-1,))),
        ("l", Linear(normal(3, 72))),
        ("s", Softmax()),
    )
    with pytest.raises(ConversionError) as caught:
        to_network(graph, input_levels=3)
    assert "'g' (Function gelu)" in str(caught.value)
    assert "'s' (Softmax)" in str(caught.value)
    with pytest.raises(ConversionError, match="the input is real"):
        to_network(graph)
    with pytest.raises(ConversionError, match="Did you mean 'levels'"):
        to_network(graph, "level")
    with pytest.raises(ConversionError) as caught:
        to_network(graph, readout="x", neuron="y", bias="z", steps=3, input_levels=0)
    assert len(caught.value.violations) == 5


def test_samples_of_another_shape_are_refused() -> None:
    net = to_network(quantise(cnn(), images(), levels=2, weight_bits=4, input_levels=2))
    with pytest.raises(ConversionError, match="samples must be"):
        net.encode(np.zeros((3, 8, 8)))


def test_each_mistake_is_seen() -> None:
    """A threshold of 1.1 times, a weight of another sign: values differ."""
    x = images()
    graph = quantise(cnn(), x, levels=3, weight_bits=4, input_levels=3)
    net = to_network(graph)
    node = net.network.nodes["r2"]
    assert isinstance(node, ir.LIF)
    high = ir.LIF(node.tau_mem, 1.1 * node.v_threshold)
    weights = net.network.nodes["r2.weights"]
    assert isinstance(weights, ir.Conv2d)
    flipped = np.array(weights.weight)
    place = np.unravel_index(np.abs(flipped).argmax(), flipped.shape)
    flipped[place] *= -1
    other = ir.Conv2d(flipped, weights.stride, weights.padding, weights.dilation, weights.groups, weights.bias)
    for name, broken in (("r2", high), ("r2.weights", other)):
        record = reference.run(net.network.replace_nodes({name: broken}), net.encode(x))
        wrong = net.values("r2", record.spikes["r2"][0].reshape(len(x), -1))
        assert not np.array_equal(wrong, net.graph.values(x)["r2"].numpy()), name
