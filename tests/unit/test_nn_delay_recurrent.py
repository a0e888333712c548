"""Recurrent delays: against the step function, autograd, `Recurrent`, the reference, Loihi 2; in pieces; refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuro import ir, reference
from neuro.errors import NetworkError
from neuro.hardware import compile as compile_network
from neuro.hardware.simulate import simulate
from neuro.nn import (
    LI,
    LIF,
    AdLIF,
    CubaLIF,
    DelayedLinear,
    DelayedRecurrent,
    DelayLinear,
    Recurrent,
    SpikingNetwork,
    plain,
    to_module,
    to_network,
)
from neuro.nn.joined import Carry
from neuro.nn.levels import Levels
from neuro.nn.spikes import Spikes
from neuro.train.quantise_aware import prepare

D = torch.float64
N = 12
NEURONS: dict[str, Any] = {
    "lif": lambda: LIF(0.9, learn=("beta",)),
    "cuba": lambda: CubaLIF(0.7, 0.9, reset="subtract", detach=True, learn=("alpha", "v_threshold")),
    "adlif": lambda: AdLIF(beta=0.9, rho=0.95, a=0.1, b=0.3, learn=("beta", "a")),
}


def made(neuron: str, kernel: str = "linear", sigma: float = 0.0, kind: str = "synaptic", longest: int = 5) -> Any:
    g = torch.Generator().manual_seed(4)
    back = DelayLinear(N, N, longest, kernel=kernel, kind=kind).double()
    back.sigma = sigma
    with torch.no_grad():
        back.weight.normal_(0.0, 0.5, generator=g)
        back.delay.uniform_(0.0, longest, generator=g)
    return DelayedRecurrent(NEURONS[neuron]().double(), back)


def currents(steps: int = 25) -> Tensor:
    return torch.randn(steps, 3, N, dtype=D, generator=torch.Generator().manual_seed(6))


@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize(
    ("kernel", "sigma", "kind"), [("linear", 0.0, "synaptic"), ("triangle", 1.7, "axonal"), ("gauss", 0.8, "dendritic")]
)
def test_whole_time_is_the_step_function_over_time(neuron: str, kernel: str, sigma: float, kind: str) -> None:
    """Spikes, membranes, and the gradients of both to the currents and to all that is trained."""
    layer, found = made(neuron, kernel, sigma, kind), []
    for forced in (False, True):
        x = currents().requires_grad_()
        if forced:
            with plain.forced():
                s, v = layer.with_membrane(x)
        else:
            s, v = layer.with_membrane(x)
        w = torch.linspace(-1, 1, s.numel(), dtype=D).view(s.shape)
        leaves = [x, *layer.parameters()]
        found.append([s * 1, v, *torch.autograd.grad((s * w).sum() + (v * w.flip(0)).sum(), leaves)])
    assert 0.02 < found[0][0].mean() < 0.7
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("neuron", NEURONS)
def test_without_delays_it_is_recurrent(neuron: str) -> None:
    layer = made(neuron)
    plain_one = Recurrent(layer.neuron, N).double()
    zero = DelayedRecurrent(layer.neuron, DelayedLinear(np.zeros((N, N), np.int64)).double())
    with torch.no_grad():
        plain_one.recurrent.weight.copy_(layer.recurrent.weight)
        zero.recurrent.weight.copy_(layer.recurrent.weight)
    found = []
    for one in (plain_one, zero):
        x = currents().requires_grad_()
        s = one(x)
        w = torch.linspace(-1, 1, s.numel(), dtype=D).view(s.shape)
        found.append([s * 1, *torch.autograd.grad((s * w).sum(), [x, one.recurrent.weight])])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("neuron", NEURONS)
def test_a_long_sample_in_pieces(neuron: str) -> None:
    for kernel, sigma in (("linear", 0.0), ("triangle", 1.5)):
        layer, carry = made(neuron, kernel, sigma), Carry()
        whole = layer(currents()) * 1
        pieces = [layer.resume(currents()[a:b], carry) * 1 for a, b in ((0, 1), (1, 3), (3, 14), (14, 25))]
        assert torch.equal(torch.cat(pieces), whole)
        state, rows = None, []
        for now in currents():
            s, state = layer.step(now, state)
            rows.append(s)
        assert torch.equal(torch.stack(rows), whole)


def test_gradients_of_a_piece_know_what_arrives_from_the_last_one() -> None:
    layer, found = made("lif"), []
    for forced in (False, True):
        carry = Carry()
        layer.resume(currents()[:11], carry)
        x = currents()[11:].requires_grad_()
        if forced:
            with plain.forced():
                s = layer.resume(x, carry)
        else:
            s = layer.resume(x, carry)
        w = torch.linspace(-1, 1, s.numel(), dtype=D).view(s.shape)
        found.append(torch.autograd.grad((s * w).sum(), [x, *layer.parameters()]))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


def test_threads_change_nothing() -> None:
    g = torch.Generator().manual_seed(1)
    layer = DelayedRecurrent(LIF(0.9), DelayLinear(150, 150, 9))
    x = torch.randn(12, 16, 150, generator=g)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            into = x.clone().requires_grad_()
            s = layer(into)
            found.append([s * 1, *torch.autograd.grad((s * x).sum(), [into, *layer.parameters()])])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def network(longest: int = 4) -> SpikingNetwork:
    g = torch.Generator().manual_seed(2)
    back = DelayLinear(8, 8, longest, rounding=True)
    layers = {"a": nn.Linear(5, 8, bias=False), "b": DelayedRecurrent(LIF(0.9), back), "c": nn.Linear(8, 3, bias=False)}
    with torch.no_grad():
        for weight in (layers["a"].weight, back.weight, layers["c"].weight):
            weight.copy_((torch.randint(-60, 120, weight.shape, generator=g) * 2).float() / 128)
        back.delay.uniform_(0.0, longest, generator=g)
    return SpikingNetwork({**layers, "d": LI(0.9)}, input_shape=(5,), dt=1e-3, readout="sum").double()


def given() -> np.ndarray[Any, Any]:
    return (np.random.default_rng(3).random((40, 2, 5)) < 0.3).astype(np.float64)


def test_there_and_back_and_what_the_reference_says() -> None:
    net = network()
    graph = to_network(net)
    node = graph.nodes["b_recurrent"]
    assert isinstance(node, ir.Linear)
    assert node.delay_steps is not None
    assert node.delay_steps.max() > 1
    seen = reference.run(graph, given(), record=("spikes",))
    record: dict[str, Tensor] = {}
    y = net(torch.from_numpy(given()), record)
    np.testing.assert_array_equal(record["b"].detach() * 1, seen.spikes["b"])
    assert 0.02 < seen.spikes["b"].mean() < 0.9
    np.testing.assert_allclose(y.detach(), seen.answers["output"], atol=1e-9)
    again = to_module(graph, torch.float64)
    assert isinstance(again.layer("b"), DelayedRecurrent)
    np.testing.assert_allclose(again(torch.from_numpy(given())).detach(), seen.answers["output"], atol=1e-9)


def test_loihi2_holds_them() -> None:
    graph = to_network(network())
    program = compile_network(graph, "loihi2", max_steps=40)
    assert not program.substitutions
    (back,) = [p for p in program.projections if p.source == p.target == "b"]
    node = graph.nodes["b_recurrent"]
    assert isinstance(node, ir.Linear)
    assert node.delay_steps is not None
    used = back.weight_q != 0
    np.testing.assert_array_equal(back.params["delay_steps"][used], node.delay_steps[used])
    sent = simulate(program, given().astype(np.uint8)).spikes["b"]
    seen = reference.run(graph, given(), record=("spikes",)).spikes["b"]
    assert (sent[1 : len(seen) + 1] == seen).mean() > 0.97, "weights fit 8 bits; decays are rounded to 12"


def test_what_it_refuses() -> None:
    with pytest.raises(NetworkError, match="does not spike"):
        DelayedRecurrent(LI(0.9), DelayLinear(3, 3, 2))
    with pytest.raises(NetworkError, match="from 4 to 3"):
        DelayedRecurrent(LIF(0.9), DelayLinear(4, 3, 2))
    with pytest.raises(NetworkError, match="bias"):
        DelayedRecurrent(LIF(0.9), DelayLinear(3, 3, 2, bias=True))
    with pytest.raises(NetworkError, match="recurrent delays"):
        prepare(network(), Levels((1, -1), 1 / 64))


def test_other_devices_and_no_samples() -> None:
    layer = DelayedRecurrent(LIF(0.9), DelayLinear(5, 5, 3)).to("meta")
    assert layer(torch.empty(4, 2, 5, device="meta")).shape == (4, 2, 5)
    layer = DelayedRecurrent(LIF(0.9), DelayLinear(5, 5, 3))
    assert layer(torch.empty(4, 0, 5)).shape == (4, 0, 5)
    bits = Spikes.pack((torch.rand(6, 2, 5, generator=torch.Generator().manual_seed(0)) < 0.4).float())
    torch.testing.assert_close(layer(bits) * 1, layer(bits.dense()) * 1)
