"""A Linear of few outputs and its integrators as one call: the same values and gradients as a plain loop over time."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuro.nn import head, kernels
from neuro.nn.head_kernels import MOST
from neuro.nn.joined import Carry
from neuro.nn.layers import LI, LIF, CubaLI, Neuron
from neuro.nn.network import SpikingNetwork
from neuro.nn.spikes import Spikes

D = torch.float64
EVERY = {"steps": 9, "batch": 7, "n": 10, "fan_in": 150}


def case(
    cls: type[Neuron], rate: float, steps: int, batch: int, n: int, fan_in: int, bias: bool = True
) -> tuple[Neuron, nn.Linear, Spikes]:
    rng = np.random.default_rng(steps * 1000 + n)
    options = {"alpha": np.linspace(0.3, 0.9, n)} if cls.synapse else {}
    gains = {"gain": np.linspace(0.8, 1.4, n), "gain_syn": 0.7, "drive": np.linspace(-0.1, 0.2, n)}
    neurons = cls(beta=np.linspace(0.5, 0.95, n), **options, **gains).double()
    linear = nn.Linear(fan_in, n, bias).double()
    with torch.no_grad():
        for p in linear.parameters():
            p.copy_(torch.from_numpy(rng.normal(size=tuple(p.shape))))
    return neurons, linear, Spikes.pack(torch.from_numpy(rng.random((steps, batch, fan_in)) < rate), D)


def one_by_one(neurons: Neuron, linear: nn.Linear, x: Tensor) -> Tensor:
    state, found = None, []
    for now in x:
        v, state = neurons.step(linear(now), state)
        found.append(v)
    return torch.stack(found)


def gradients(y: Tensor, x: Tensor, linear: nn.Linear, same: bool = False) -> list[Tensor]:
    """Output and gradients of x, weight, bias; same: of a loss that sums over time."""
    g = torch.from_numpy(np.random.default_rng(7).normal(size=tuple(y.shape))).to(y.dtype)
    loss = (y.sum(0) * g[0]).sum() if same else (y * g).sum()
    return [y.detach(), *torch.autograd.grad(loss, [x, *linear.parameters()], retain_graph=True)]


def both(neurons: Neuron, linear: nn.Linear, x: Spikes, same: bool = False) -> tuple[list[Tensor], list[Tensor]]:
    bits = Spikes(x.words, tuple(x.shape), x.dtype).requires_grad_()
    dense = x.dense().requires_grad_()
    fast = gradients(head.run(bits, linear.weight, linear.bias, neurons), bits, linear, same)  # type: ignore[arg-type]
    return fast, gradients(one_by_one(neurons, linear, dense), dense, linear, same)


def assert_same(fast: list[Tensor], plain: list[Tensor]) -> None:
    for a, b in zip(fast, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("cls", [LI, CubaLI])
def test_values_and_gradients_are_those_of_a_loop(cls: type[Neuron], rate: float, same: bool) -> None:
    assert_same(*both(*case(cls, rate, **EVERY), same))


SHAPES = [  # steps, batch, outputs, inputs
    (1, 1, 1, 1), (1, 5, 16, 64), (4, 1, 2, 65), (3, 9, 16, 129), (2, 3, 17, 1000), (3, 2, 32, 70), (300, 2, 3, 15),
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape(shape: tuple[int, int, int, int]) -> None:
    """One step, one sample, one input, words that are not full, tiles that are not, as many outputs as there may be."""
    for rate, bias in itertools.product((0.1, 0.9), (False, True)):
        assert_same(*both(*case(CubaLI, rate, *shape, bias)))


def test_threads_do_not_change_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "WORTH_A_THREAD", 1)
    neurons, linear, x = case(LI, 0.2, **EVERY)
    neurons, linear, x = neurons.float(), linear.float(), Spikes(x.words, tuple(x.shape))
    found = []
    for threads in (1, 2, 3, 8):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        found.append(both(neurons, linear, x)[0])
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("cls", [LI, CubaLI])
def test_pieces_of_a_long_sample_are_the_whole(cls: type[Neuron]) -> None:
    neurons, linear, x = case(cls, 0.2, **EVERY)
    whole = head.run(x, linear.weight, linear.bias, neurons)
    carry, parts = Carry(), []
    for first, last in ((0, 3), (3, 4), (4, 9)):
        words = x.words.reshape(9, 7, -1)[first:last].reshape((last - first) * 7, -1)
        piece = Spikes(np.ascontiguousarray(words), (last - first, *x.shape[1:]), D)
        parts.append(head.run(piece, linear.weight, linear.bias, neurons, carry).detach())
    assert torch.equal(torch.cat(parts), whole.detach())
    assert torch.equal(carry.value.v, whole[-1].detach())


def test_a_network_ends_in_it_and_learns_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    once = head.run
    monkeypatch.setattr(head, "run", lambda *given: calls.append(1) or once(*given))
    torch.manual_seed(0)
    layers = {"c": nn.Conv2d(2, 6, 3), "s": LIF(0.8), "f": nn.Flatten(), "l": nn.Linear(6 * 64, 10), "o": LI(0.9)}
    net = SpikingNetwork(layers, input_shape=(2, 10, 10), dt=1e-3, readout="sum").double()
    x = Spikes.pack(torch.from_numpy(np.random.default_rng(0).random((6, 3, 2, 10, 10)) < 0.3), D)
    found = []
    for fused in (True, False):
        if not fused:  # a layer that somebody watches runs by itself
            for layer in layers.values():
                layer.register_forward_hook(lambda *_: None)
        net.zero_grad()
        scores = net.scores(net(x))
        scores.square().sum().backward()
        found.append([scores.detach(), *(p.grad.clone() for p in net.parameters())])  # type: ignore[union-attr]
    assert calls == [1]
    assert min(g.abs().max() for g in found[0]) > 0
    assert_same(*found)


def test_who_is_declined() -> None:
    """Neurons that fire or learn, more outputs than two lines of the cache hold, real numbers: `dense` runs those."""
    x = case(LI, 0.2, **EVERY)[2]
    assert head.few(x, MOST, LI(0.9))
    assert not head.few(x, MOST + 1, LI(0.9))
    assert not head.few(x, 10, LIF(0.9))
    assert not head.few(x, 10, LI(0.9, learn=("beta",)))
    assert not head.few(x.dense(), 10, LI(0.9))
