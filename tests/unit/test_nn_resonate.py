"""Resonate-and-fire layers: the step loop, autograd, the reference, pieces, chips, configurations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuro import ir, reference
from neuro.errors import NetworkError, UnsupportedNode
from neuro.hardware.compile import compile as compile_network
from neuro.hardware.target import targets
from neuro.nn import Recurrent, ResonateAndFire, SpikingNetwork, to_module, to_network
from neuro.nn.joined import Carry
from neuro.nn.plain import forced
from neuro.train.build import build

D = torch.float64


def layer(resets: bool, detach: bool = False, n: int = 5) -> ResonateAndFire:
    between = np.linspace
    return ResonateAndFire(
        between(3, 9, n), between(0.8, 0.95, n), between(0.6, 1.1, n), resets=resets, detach=detach, surrogate="atan",
        learn=("period", "beta", "v_threshold"),
    ).double()  # fmt: skip


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape) + 0.2)


def stepped(one: ResonateAndFire, x: Tensor, state: object = None) -> tuple[Tensor, Tensor]:
    """(spikes, v after the reset) by plain autograd through the step function."""
    spikes, v = [], []
    for current in x:
        y, state = one.step(current, state)
        spikes.append(y)
        v.append(state.v)
    return torch.stack(spikes), torch.stack(v)


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("resets", [False, True])
def test_compiled_equals_the_step_loop(resets: bool, detach: bool) -> None:
    """Spikes, membrane and every gradient: input, period, decay, threshold."""
    one = layer(resets, detach)
    x, found = drawn(23, 3, 5).requires_grad_(), []
    up_s, up_v = drawn(23, 3, 5, seed=2), drawn(23, 3, 5, seed=3)
    for run in (one.with_membrane, lambda given: stepped(one, given)):
        one.zero_grad()
        x.grad = None
        spikes, v = run(x)
        ((spikes * up_s).sum() + (v * up_v).sum()).backward()
        found.append([spikes.detach() * 1, v.detach(), x.grad, *(p.grad for p in one.parameters())])
    assert 0.05 < found[0][0].mean() < 0.95
    for fast, plain in zip(*found, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("resets", [False, True])
def test_the_gradient_of_the_membrane_is_a_finite_difference(resets: bool) -> None:
    """Where no spike is created, v is smooth in input and coefficients: an oracle without autograd."""
    one = ResonateAndFire([4.0, 7.5], 0.9, 50.0, resets=resets, learn=("period", "beta")).double()
    x = drawn(9, 1, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: one.with_membrane(a)[1], (x,))
    names = [n for n, _ in one.named_parameters()]
    call = torch.func.functional_call
    given = tuple(p.detach().requires_grad_() for p in one.parameters())

    class Membrane(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = one

        def forward(self, a: Tensor) -> Tensor:
            return self.one.with_membrane(a)[1]

    inside = Membrane()
    assert torch.autograd.gradcheck(
        lambda *p: call(inside, {f"one.{n}": q for n, q in zip(names, p, strict=True)}, (x.detach(),)), given
    )


@pytest.mark.parametrize("resets", [False, True])
def test_pieces_and_the_plain_path_are_the_whole(resets: bool) -> None:
    one, x, carry = layer(resets), drawn(11, 3, 5, seed=4), Carry()
    whole = one(x).dense()
    parts = [one.resume(part, carry) for part in x.split((3, 1, 7))]
    assert torch.equal(torch.cat([p.dense() for p in parts]), whole)
    with forced():
        assert torch.equal(one(x).detach(), whole)


def network(resets: bool, recurrent: bool = False) -> ir.Network:
    rng = np.random.default_rng(5)
    node = ir.ResonateAndFire(0.02, np.linspace(4e-3, 9e-3, 4), 0.8, resets=resets)
    nodes = {"in": ir.Input((6,)), "w": ir.Linear(rng.normal(size=(4, 6))), "n": node}
    nodes |= {"r": ir.Linear(rng.normal(size=(4, 4)))} if recurrent else {}
    nodes |= {"out": ir.Output("count")}
    edges = [("in", "w"), ("w", "n")] + [("n", "r"), ("r", "n")] * recurrent + [("n", "out")]
    return ir.Network(nodes, tuple(edges), 1e-3)


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("resets", [False, True])
def test_module_and_network_are_the_same(resets: bool, recurrent: bool) -> None:
    net = network(resets, recurrent)
    module = to_module(net, D)
    assert isinstance(module.layer("n"), Recurrent if recurrent else ResonateAndFire)
    x = (np.random.default_rng(0).random((60, 3, 6)) < 0.3).astype(np.uint8)
    record: dict[str, Tensor] = {}
    module(torch.from_numpy(x), record)
    expected = reference.run(net, x).spikes["n"]
    assert 20 < expected.sum() < 500
    np.testing.assert_array_equal(record["n"].detach().numpy(), expected)
    back = to_network(module).nodes["n"]
    for field in ("tau_mem", "period", "v_threshold"):
        np.testing.assert_allclose(getattr(back, field), getattr(net.nodes["n"], field), rtol=1e-9)
    assert back.resets is resets


def test_membrane_of_the_last_layer_is_that_of_the_reference() -> None:
    module = SpikingNetwork({"n": layer(True)}, input_shape=(5,), dt=1e-3, readout="sum").double()
    x = np.random.default_rng(1).normal(size=(30, 2, 5))
    net = to_network(module)
    expected = reference.run(net, x, record=("v", "spikes"))
    assert expected.spikes["n"].sum() > 10
    np.testing.assert_allclose(module(torch.from_numpy(x)).detach().numpy(), expected.v["n"], atol=1e-9)


def trained(resets: bool) -> ir.Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        layers = {"w": nn.Linear(6, 8, False), "n": ResonateAndFire(np.linspace(5, 20, 8), 0.95, 0.2, resets=resets)}
    return to_network(SpikingNetwork(layers, input_shape=(6,), dt=1e-3))


@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize("chip", targets())
def test_loihi2_takes_it_and_no_other_chip(chip: str, resets: bool) -> None:
    if chip == "loihi2":
        program = compile_network(trained(resets), chip)
        assert program.populations["n"].model == ("rf_iz" if resets else "rf")
    else:
        with pytest.raises(UnsupportedNode, match="ResonateAndFire"):
            compile_network(trained(resets), chip)


def test_a_configuration() -> None:
    rows = ({"type": "linear", "out": 3}, {"type": "resonate_and_fire", "tau_mem": 0.02, "period": 0.004,
             "period_max": 0.016, "resets": True, "learn": ("period",)})  # fmt: skip
    net = build(rows, (4,), 1e-3, "count", 0, 3)
    one = net.layer("1_resonate_and_fire")
    np.testing.assert_allclose(one.value("period").detach().numpy(), [4.0, 8.0, 16.0], rtol=1e-6)
    assert one.resets
    net.scores(net(torch.ones(30, 2, 4))).sum().backward()  # in float32, as configurations train
    assert one.period_learnt.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("given", "says"),
    [({"period": 0.0}, "period must be positive"), ({"beta": 1.0}, "beta must lie"), ({"learn": ("im",)}, "learn may"),
     ({"beta": 0.0, "learn": ("beta",)}, "above 0"), ({"v_threshold": float("nan")}, "NaN")],
)  # fmt: skip
def test_bad_neurons(given: dict[str, object], says: str) -> None:
    with pytest.raises(NetworkError, match=says):
        ResonateAndFire(**given)
