"""Containers, delays, pools, norms and dropout: small cases by hand, and what the bridge refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from neuro import ir
from neuro.errors import NetworkError, UnsupportedLayer
from neuro.nn import (
    IF,
    LI,
    LIF,
    AvgPool2d,
    CubaLIF,
    Delay,
    DelayedLinear,
    Dropout,
    Recurrent,
    Scale,
    ScaleNorm,
    SpikingNetwork,
    SumPool2d,
    to_module,
    to_network,
)  # fmt: skip

D = torch.float64


def pulses(*rows: list[float]) -> torch.Tensor:
    """[time, 1, n]."""
    return torch.tensor(rows, dtype=D).unsqueeze(1)


# ---------------------------------------------------------------- delays


def test_delay_by_hand() -> None:
    x = pulses([1, 10], [2, 20], [3, 30])
    assert Delay(np.array([0, 2]))(x)[:, 0].tolist() == [[1, 0], [2, 0], [3, 10]]
    assert Delay(1)(x)[:, 0].tolist() == [[0, 0], [1, 10], [2, 20]]
    assert Delay(9)(x).abs().sum() == 0


def test_delayed_linear_by_hand() -> None:
    layer = DelayedLinear(np.array([[0, 2], [1, 5]]), bias=True).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        layer.bias.copy_(torch.tensor([0.5, 0.0]))
    y = layer(pulses([1, 1], [0, 0], [0, 0], [1, 0]))[:, 0]
    assert y.tolist() == [[1.5, 0], [0.5, 3], [2.5, 0], [1.5, 0]]


def test_delayed_linear_is_the_sum_over_synapses() -> None:
    rng = np.random.default_rng(0)
    steps, x = rng.integers(0, 6, (3, 4)), rng.normal(size=(9, 2, 4))
    layer = DelayedLinear(steps).double()
    weight = layer.weight.detach().numpy()
    expected = np.zeros((9, 2, 3))
    for t in range(9):
        for o in range(3):
            for i in range(4):
                if t >= steps[o, i]:
                    expected[t, :, o] += weight[o, i] * x[t - steps[o, i], :, i]
    np.testing.assert_allclose(layer(torch.from_numpy(x)).detach(), expected, atol=1e-12)


def test_delays_train() -> None:
    layer = DelayedLinear(np.array([[0, 2], [1, 3]])).double()
    x = torch.randn(5, 2, 2, dtype=D, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(layer, (x,))
    assert torch.autograd.gradcheck(Delay(np.array([1, 2])), (x,))


@pytest.mark.parametrize("steps", [[[-1]], [[0.5]], np.zeros((0, 2), int), [[True]]])
def test_bad_delays(steps: object) -> None:
    with pytest.raises(NetworkError, match="delays"):
        DelayedLinear(np.array(steps))
    with pytest.raises(NetworkError, match="delays"):
        Delay(np.array(steps))


def test_delays_per_synapse_are_a_matrix() -> None:
    with pytest.raises(NetworkError, match=r"\[out, in\]"):
        DelayedLinear(np.array([1, 2]))


# ---------------------------------------------------------------- stateless


def test_pools_by_hand() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert SumPool2d(2)(x).flatten().tolist() == [10, 18, 42, 50]
    assert AvgPool2d(2)(x).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    torch.testing.assert_close(AvgPool2d(3, 2, 1)(x), nn.AvgPool2d(3, 2, 1)(x))
    torch.testing.assert_close(SumPool2d((2, 1), (1, 2))(x), nn.AvgPool2d((2, 1), (1, 2))(x) * 2)
    wide = SumPool2d(2, 1, 2)(x)  # torch's own pools refuse padding beyond half a window
    assert wide.shape == (1, 1, 7, 7)
    assert wide.sum() == 4 * x.sum()


def test_scale_norm_by_hand() -> None:
    norm = ScaleNorm(2, start=3.0, momentum=0.5, eps=0.0)
    x = torch.tensor([[1.0, 2.0], [-1.0, 4.0]])
    y = norm(x)
    torch.testing.assert_close(y, x * 3.0 / torch.tensor([1.0, 10.0**0.5]))
    torch.testing.assert_close(norm.get_buffer("running_square"), torch.tensor([1.0, 5.5]))
    norm.eval()
    torch.testing.assert_close(norm(x), x * 3.0 / torch.tensor([1.0, 5.5**0.5]))
    norm.momentum = None
    norm.reset_running_stats()
    norm.train()
    norm(x)
    norm(2 * x)
    torch.testing.assert_close(norm.get_buffer("running_square"), torch.tensor([2.5, 25.0]))


def test_dropout_holds_still_over_time() -> None:
    layer = Dropout(0.5)
    layer.generator = torch.Generator().manual_seed(0)
    y = layer(torch.ones(6, 20, 30))
    assert (y == y[0]).all()
    assert set(y.unique().tolist()) == {0.0, 2.0}
    assert abs(float(y.mean()) - 1.0) < 0.15
    layer.generator.manual_seed(0)
    assert torch.equal(layer(torch.ones(6, 20, 30)), y)
    assert torch.equal(layer.eval()(torch.ones(2, 3, 4)), torch.ones(2, 3, 4))


def test_dropout_needs_a_generator() -> None:
    with pytest.raises(NetworkError, match="generator"):
        Dropout(0.5)(torch.ones(1, 1, 1))
    with pytest.raises(NetworkError, match="p must"):
        Dropout(1.0)


# ---------------------------------------------------------------- network


def test_edges_add_up_and_skip() -> None:
    layers = {"a": Scale(2.0), "b": Scale(10.0)}
    edges = [("input", "a"), ("a", "b"), ("input", "b"), ("b", "output"), ("a", "output")]
    module = SpikingNetwork(layers, edges, input_shape=(1,), dt=1e-3, readout="sum").double()
    assert module(pulses([1], [3])).flatten().tolist() == [32, 96]


def test_a_late_edge_is_one_step_late() -> None:
    """v = v + x + s[t-1]: one input spike goes round for ever."""
    edges = [("input", "n"), ("n", "n"), ("n", "output")]
    module = SpikingNetwork({"n": IF(0.5)}, edges, input_shape=(1,), dt=1e-3)
    record: dict[str, torch.Tensor] = {}
    out = module(pulses([0], [1], [0], [0]), record)
    assert out.flatten().tolist() == [0, 1, 1, 1]
    assert list(record) == ["n"]
    assert module.scores(out).tolist() == [[3.0]]


def test_names_may_be_anything() -> None:
    layers = {"0.conv": Scale(1.0), "keys": Scale(2.0), "a%b": Scale(3.0)}
    module = SpikingNetwork(layers, input_shape=(2,), dt=1e-3, readout="sum")
    assert module.names == tuple(layers)
    assert module(torch.ones(1, 1, 2)).flatten().tolist() == [6.0, 6.0]
    assert to_network(module).order == ("input", "0.conv", "keys", "a%b", "output")


@pytest.mark.parametrize(
    ("edges", "readout", "message"),
    [
        ([("input", "b")], "sum", "not a layer"),
        ([("input", "output")], "sum", "no path"),
        ([("input", "a"), ("a", "output")], "mean", "readout"),
    ],
)
def test_bad_networks(edges: list[tuple[str, str]], readout: str, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        SpikingNetwork({"a": Scale(1.0)}, edges, input_shape=(1,), dt=1e-3, readout=readout)


@pytest.mark.parametrize("x", [torch.zeros(3, 2), torch.zeros(3, 2, 4), torch.zeros(3, 2, 3, 1)])
def test_inputs_of_another_shape(x: torch.Tensor) -> None:
    with pytest.raises(NetworkError, match="input must be"):
        SpikingNetwork({"a": Scale(1.0)}, input_shape=(3,), dt=1e-3)(x)


def test_membrane_readouts_see_v_after_the_reset() -> None:
    module = SpikingNetwork({"n": LIF(0.5, 1.0)}, input_shape=(1,), dt=1e-3, readout="sum")
    assert module(pulses([0.75], [0.75], [0.75])).flatten().tolist() == [0.75, 0.0, 0.75]
    looped = SpikingNetwork(
        {"n": LIF(0.5, 1.0)}, [("input", "n"), ("n", "n"), ("n", "output")], input_shape=(1,), dt=1e-3, readout="last"
    )
    assert looped(pulses([0.75], [0.75], [0.0])).flatten().tolist() == [0.75, 0.0, 1.0]


# ---------------------------------------------------------------- bridge


def test_everything_unsupported_is_named_at_once() -> None:
    class Mine(nn.Module):
        pass

    module = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2, dilation=2), Mine(), nn.BatchNorm2d(2),
        nn.AvgPool2d(2, ceil_mode=True), nn.Flatten(0), IF(1.0, drive=0.5),
    )  # fmt: skip
    with pytest.raises(UnsupportedLayer) as caught:
        to_network(module, (1, 8, 8), 1e-3, readout="count")
    text = str(caught.value)
    assert len(caught.value.violations) == 8
    for word in ("'0' (Conv2d)", "ReLU", "MaxPool2d", "Mine", "'4' (BatchNorm2d)", "ceil_mode", "Flatten", "drive"):
        assert word in text
    assert "supported: Linear" in text


def test_sequential_needs_shape_and_step() -> None:
    with pytest.raises(NetworkError, match="input_shape"):
        to_network(nn.Sequential(nn.Linear(2, 3), LI(0.9)))
    network = to_network(nn.Sequential(nn.Sequential(nn.Linear(2, 3), nn.Identity()), LIF(0.9)), (2,), 1e-3, "count")
    assert [type(network.nodes[n]).__name__ for n in network.order] == ["Input", "Affine", "LIF", "Output"]


def test_a_batch_norm_shared_by_two_paths_cannot_fold() -> None:
    layers = {"a": nn.Linear(2, 2), "n": nn.BatchNorm1d(2), "h": LIF(0.9), "g": LIF(0.9)}
    edges = [("input", "a"), ("a", "n"), ("n", "h"), ("a", "g"), ("h", "output"), ("g", "output")]
    with pytest.raises(UnsupportedLayer, match="alone"):
        to_network(SpikingNetwork(layers, edges, input_shape=(2,), dt=1e-3))


def test_weights_cross_unchanged() -> None:
    layer = nn.Linear(3, 2, bias=False)
    network = to_network(nn.Sequential(layer, CubaLIF(0.8, 0.9, 1.5)), (3,), 2e-3, "count")
    np.testing.assert_array_equal(network.nodes["0"].weight, layer.weight.detach().double())
    node = network.nodes["1"]
    assert isinstance(node, ir.CubaLIF)
    np.testing.assert_allclose(node.tau_mem, -2e-3 / np.log(0.9))
    np.testing.assert_allclose(node.tau_syn, -2e-3 / np.log(0.8))
    np.testing.assert_allclose([node.r[0], node.w_in[0]], [10.0, 5.0])


def test_a_decay_of_zero_has_a_time_constant() -> None:
    for rule in ("exact", "euler"):
        network = to_network(nn.Sequential(nn.Linear(1, 1), LIF(0.0)), (1,), 1e-3, "count", rule)
        from neuro.discretise import coefficients

        c = coefficients(network.nodes["1"], 1e-3, rule)
        assert (float(c.beta[0]), float(c.gain_mem[0])) == (0.0, 1.0)


def test_options_reach_every_neuron() -> None:
    network = to_network(
        nn.Sequential(nn.Linear(1, 2), Recurrent(LIF(0.9), 2), nn.Linear(2, 2), IF(1.0)), (1,), 1e-3, "count"
    )
    module = to_module(network, surrogate="atan", detach=True)
    layer = module.layer("1")
    assert isinstance(layer, Recurrent)
    assert layer.neuron.surrogate == module.layer("3").surrogate
    assert layer.neuron.detach
    assert {p.dtype for p in module.parameters()} == {torch.float32}


def test_training_a_bridged_module_changes_the_network() -> None:
    network = to_network(nn.Sequential(nn.Linear(2, 2), LIF(0.9)), (2,), 1e-3, "count")
    module = to_module(network, surrogate="atan")
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    module(torch.ones(10, 1, 2)).sum().backward()
    optimiser.step()
    changed = to_network(module)
    assert (changed.nodes["0"].weight != network.nodes["0"].weight).all()
    assert changed.edges == network.edges
