"""Devices: deviations are as large as said, fixed, those that training knows; and few levels cross to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from neuro import discretise, ir, load_dataset, reference
from neuro.errors import BadConfig, NetworkError
from neuro.hardware import compile
from neuro.ir import LI, CubaLIF, Input, Linear, Network, Output, chain
from neuro.nn import LI as LeakyIntegrator
from neuro.nn import LIF, FewConv2d, FewLinear
from neuro.nn.bridge import to_module, to_network
from neuro.nn.network import SpikingNetwork
from neuro.robust import Deviation, mismatched, sweep
from neuro.train.build import build
from neuro.train.config import Config


def network(inputs: int = 20, hidden: int = 200, rule: str = "exact") -> Network:
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 0.3, (hidden, inputs))
    weight[:, 0] = 0.0
    nodes = {
        "in": Input((inputs,)), "a": Linear(weight), "b": CubaLIF(5e-3, 2e-2, 1.0, r=20.0, v_leak=0.01, w_in=3.0),
        "c": Linear(rng.normal(0, 0.3, (27, hidden))), "d": LI(3e-2, r=4.0), "out": Output("sum"),
    }  # fmt: skip
    return chain(nodes, 1e-3, discretisation=rule)


@pytest.mark.parametrize("rule", ["exact", "euler"])
def test_a_device_deviates_as_said_and_keeps_its_gains(rule: str) -> None:
    net = network(rule=rule)
    made = mismatched(net, 0.1, seed=3)
    a, old = made.nodes["a"].weight, net.nodes["a"].weight
    assert not a[:, 0].any(), "a synapse that is not there stays absent"
    assert ((a[:, 1:] - old[:, 1:]) / old[:, 1:]).std() == pytest.approx(0.1, rel=0.05)
    b: Any = made.nodes["b"]
    for name, value in (("v_threshold", 1.0), ("tau_mem", 2e-2), ("tau_syn", 5e-3)):
        g = np.log(getattr(b, name) / value)
        assert g.std() == pytest.approx(0.1, rel=0.15), name
        assert abs(g.mean()) < 0.03
    c, d = (discretise.coefficients(n.nodes["b"].expand((200,)), 1e-3, rule) for n in (net, made))
    for name in ("gain_syn", "gain_mem", "drive"):
        np.testing.assert_allclose(getattr(d, name), getattr(c, name), rtol=1e-12, err_msg=name)
    assert not np.allclose(c.beta, d.beta)


def test_one_seed_is_one_device_and_kinds_are_apart() -> None:
    net = network()
    same, again, other = (mismatched(net, 0.1, seed) for seed in (1, 1, 2))
    assert np.array_equal(same.nodes["a"].weight, again.nodes["a"].weight)
    assert not np.array_equal(same.nodes["a"].weight, other.nodes["a"].weight)
    only = mismatched(net, Deviation(threshold=0.1), 1)
    assert np.array_equal(only.nodes["a"].weight, net.nodes["a"].weight)
    assert np.array_equal(only.nodes["b"].v_threshold, same.nodes["b"].v_threshold)
    assert np.array_equal(only.nodes["b"].tau_mem, np.full(200, 2e-2))
    x = (np.random.default_rng(1).random((40, 3, 20)) < 0.3).astype(np.uint8)
    still = mismatched(net, 0.0, 1)
    assert np.array_equal(reference.run(net, x).spikes["b"], reference.run(still, x).spikes["b"])
    with pytest.raises(NetworkError, match="not negative"):
        mismatched(net, -0.1, 0)
    with pytest.raises(NetworkError, match="seed"):
        mismatched(net, 0.1, -1)


def test_a_sweep_tells_how_accuracy_falls() -> None:
    data = load_dataset("braille", "valid").subset(range(40))
    net = network(inputs=int(np.prod(data.shape)), hidden=64)
    said: list[str] = []
    found = sweep(net, data, [0.0, 3.0], seeds=[0, 1, 2], steps=40, say=said.append)
    assert found.accuracy.shape == (2, 3)
    assert (found.accuracy[0] == found.clean).all(), "no deviation, no loss"
    assert len(set(found.accuracy[1])) > 1 or found.accuracy[1, 0] != found.clean
    assert len(said) == 2
    assert len(found.table().splitlines()) == 4
    assert found.to_json()["rows"][1]["accuracy"] == found.accuracy[1].tolist()
    pyplot = pytest.importorskip("matplotlib.figure")
    axes = pyplot.Figure().subplots()
    found.draw(axes, "here")
    x, y = axes.lines[0].get_data()
    assert list(x) == [0.0, 0.0, 3.0]
    np.testing.assert_allclose(y[[0, 2]], [found.clean, found.accuracy[1].mean()])
    with pytest.raises(NetworkError, match="one deviation"):
        sweep(net, data, [], [0])


# ---------------------------------------------------------------- weights on few levels


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("levels", ["binary", "ternary"])
def test_network_has_the_weights_of_the_module_to_the_last_bit(levels: str, each: bool, affine: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    options = {"levels": levels, "each": each, "affine": affine}
    layers = {
        "k": FewConv2d(2, 5, 3, bias=False, **options), "n": LIF(0.9, 0.2), "f": nn.Flatten(),
        "a": FewLinear(80, 6, False, **options), "d": LeakyIntegrator(0.9),
    }  # fmt: skip
    model = SpikingNetwork(layers, input_shape=(2, 6, 6), dt=1e-3, readout="sum")
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0.05, 0.3, generator=generator)
    made = to_network(model)
    for name in ("k", "a"):
        layer: Any = model.layer(name)
        weight, p = layer.real()[0].detach(), layer.parts()
        assert np.array_equal(made.nodes[name].weight, weight.double().numpy()), "no rounding in between"
        assert torch.equal(weight.double(), p.code.double() * p.scale + p.offset)
        assert set(p.code.unique().tolist()) == ({-1, 0, 1} if levels == "ternary" else {-1, 1})
        assert p.scale.numel() == (len(weight) if each else 1)
        assert bool(p.offset.any()) == affine
    x = (torch.rand(30, 4, 2, 6, 6, generator=generator) < 0.3).float()
    back, plain = to_module(made), model.eval()
    spikes: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]] = ({}, {})
    y = back(x, spikes[0]), plain(x, spikes[1])
    assert torch.equal(spikes[0]["n"] * 1, spikes[1]["n"] * 1)
    assert spikes[0]["n"].float().mean() > 0.02
    torch.testing.assert_close(*y)


def test_scale_and_offset_are_the_least_squares_fit_and_learn_through_the_codes() -> None:
    layer = FewLinear(64, 3, False, levels="ternary", each=True, affine=True)
    with torch.no_grad():
        layer.weight.normal_(0.1, 0.3, generator=torch.Generator().manual_seed(1))
    p = layer.parts()
    for w, code, scale, offset in zip(layer.weight.detach().double(), p.code.double(), p.scale, p.offset, strict=True):
        fit = torch.linalg.lstsq(torch.stack([code, torch.ones(64, dtype=torch.float64)], 1), w[:, None]).solution
        torch.testing.assert_close(torch.stack([scale, offset]), fit, rtol=1e-4, atol=1e-5)
    x = torch.rand(5, 64, generator=torch.Generator().manual_seed(2))
    layer(x).sum().backward()
    torch.testing.assert_close(layer.weight.grad, x.sum(0).expand(3, 64))
    count = x.double().sum(1, keepdim=True)
    shared = (x.double() @ p.code.double().T) * p.scale[:, 0] + count * p.offset[:, 0]
    torch.testing.assert_close(layer(x).double(), shared, rtol=1e-5, atol=1e-5)


def test_ternary_weights_are_exact_on_loihi2() -> None:
    layers = {"a": FewLinear(40, 12, False, levels="ternary"), "b": LIF(0.9, 1.0)}
    model = SpikingNetwork(layers, input_shape=(40,), dt=1e-3)
    program = compile(to_network(model), "loihi2")
    codes = model.layer("a").parts().code.numpy()
    (q,) = (p.weight_q for p in program.projections if p.node == "a")
    assert np.array_equal(np.sign(q), codes)
    assert len(np.unique(np.abs(q))) == 2
    errors = [e for e in program.budget if e.quantity == "weight"]
    assert errors
    assert all(e.max_error < 1e-6 for e in errors)


def test_few_levels_in_a_configuration() -> None:
    table = {
        "name": "few",
        "data": {"dataset": "braille"},
        "layers": [
            {"type": "linear", "out": 8, "few": {"levels": "binary", "affine": True}},
            {"type": "lif", "beta": 0.9},
            {"type": "linear", "out": 27, "few": {}},
            {"type": "li", "beta": 0.9},
        ],
    }
    config = Config.from_table(table)
    model = build(config.layers, (72,), 0.0125, "sum", 0, 27)
    first: Any = model.layer("0_linear")
    assert isinstance(first, FewLinear)
    assert (first.levels, first.each, first.affine) == ("binary", False, True)
    for few, said in (({"levels": "trinity"}, "trinity"), ({}, "only one can be had")):
        with pytest.raises(BadConfig, match=said):
            Config.from_table({**table, "layers": [{"type": "linear", "out": 8, "bits": 4, "few": few}]})
    assert isinstance(to_network(model).nodes["0_linear"], ir.Linear)
