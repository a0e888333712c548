"""Recurrent layers in one call: gradients against the step loop, pieces, a Linear in front, threads, tiles."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuro.nn import LIF, CubaLIF, MaskedLinear, Recurrent, SpikingNetwork, crossover, fused, kernels
from neuro.nn.joined import Carry
from neuro.nn.spikes import Spikes
from neuro.nn.surrogate import SURROGATES, surrogate
from neuro.nn.tile import ROWS, lanes, panels, tile


def stepped(layer: Recurrent, x: Tensor, state: object = None) -> Tensor:
    out = []
    for t in range(len(x)):
        y, state = layer.step(x[t], state)
        out.append(y)
    return torch.stack(out)


def build(n: int, name: str = "atan", reset: str = "hard", learn: bool = True) -> Recurrent:
    names = ("alpha", "beta", "v_threshold") if learn else ()
    neuron = CubaLIF(np.linspace(0.2, 0.6, n), np.linspace(0.5, 0.95, n), np.linspace(0.7, 1.3, n), v_reset=-0.1,
                     reset=reset, surrogate=surrogate(name, 2.0), learn=names)  # fmt: skip
    layer = Recurrent(neuron, n)
    with torch.no_grad():
        layer.recurrent.weight.copy_(torch.from_numpy(np.random.default_rng(3).normal(size=(n, n)) / n**0.5))
    return layer.double()


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape) + 0.2)


@pytest.mark.parametrize(("n", "batch"), [(1, 1), (5, 3), (64, 4), (65, 5), (130, 33)])
@pytest.mark.parametrize("reset", ["hard", "subtract"])
def test_every_size_equals_the_step_loop(n: int, batch: int, reset: str) -> None:
    """Edges of words of bits, of tiles and of blocks of batch rows."""
    layer = build(n, reset=reset)
    x, upstream, found = drawn(9, batch, n), drawn(9, batch, n, seed=2), []
    for run in (layer, lambda given: stepped(layer, given)):
        layer.zero_grad()
        given = x.clone().requires_grad_()
        y = run(given)
        y.backward(upstream)
        found.append([y.detach(), given.grad, *(p.grad for p in layer.parameters())])
    for fast, plain in zip(*found, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", SURROGATES)
def test_every_surrogate_and_a_loss_on_the_membrane(name: str) -> None:
    layer = build(20, name)
    x = drawn(10, 3, 20).requires_grad_()
    s, v = layer.with_membrane(x)
    (s.sum() + v.square().sum()).backward()
    fast = [x.grad, *(p.grad for p in layer.parameters())]
    x.grad = None
    layer.zero_grad()
    state, total = None, torch.zeros((), dtype=torch.float64)
    for t in range(len(x)):
        y, state = layer.step(x[t], state)
        total = total + y.sum() + layer.membrane(state).square().sum()
    total.backward()
    for a, b in zip(fast, [x.grad, *(p.grad for p in layer.parameters())], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_a_piece_starts_from_what_the_last_one_left() -> None:
    """The gradient of the weights, too, counts the spikes before the first step."""
    layer = build(70)
    x, carry = drawn(11, 3, 70, seed=4), Carry()
    parts = [layer.resume(part, carry) for part in x.split((3, 1, 7))]
    assert torch.equal(torch.cat([p.detach() for p in parts]), layer(x).detach())
    before = Carry()
    layer.resume(x[:4], before)
    state, upstream, found = before.value, drawn(7, 3, 70, seed=6), []
    assert state[1].sum() > 0
    for fast in (True, False):
        given = x[4:].clone().requires_grad_()
        layer.zero_grad()
        y = layer.resume(given, Carry(state)) if fast else stepped(layer, given, state)
        y.backward(upstream)
        found.append([given.grad, *(p.grad.clone() for p in layer.parameters())])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.05, 0.9])
def test_a_linear_in_front_joins_in(rate: float, masked: bool) -> None:
    """By events and dense: spikes and all gradients of the layers one by one."""
    front = (MaskedLinear(90, 70, True, 45) if masked else nn.Linear(90, 70)).double()
    with torch.no_grad():
        front.weight.copy_(drawn(70, 90, seed=9) * (0.5 if rate < 0.5 else 0.05))
        front.bias.fill_(0.1)
    net = SpikingNetwork({"w": front, "n": build(70)}, input_shape=(90,), dt=1e-3)
    bits = (torch.rand(15, 4, 90, generator=torch.Generator().manual_seed(0)) < rate).to(torch.uint8)
    upstream, found = drawn(15, 4, 70, seed=2), []
    for joined in (True, False):
        net.zero_grad()
        y = net(bits) if joined else stepped(net.layer("n"), front(bits.double()))
        y.backward(upstream)
        found.append([y.detach(), *(p.grad for p in net.parameters())])
    assert isinstance(net(bits), Spikes)
    assert found[0][0].sum() > 0 or rate == 0.0
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_the_input_of_a_joined_linear_gets_its_gradient() -> None:
    layers = {"a": nn.Linear(8, 30), "s": LIF(0.9, surrogate="atan"), "b": nn.Linear(30, 20), "n": build(20, "atan")}
    net = SpikingNetwork(layers, input_shape=(8,), dt=1e-3).double()
    x, found = drawn(12, 3, 8).abs() * 3, []
    for joined in (True, False):
        net.zero_grad()
        given = x.clone().requires_grad_()
        y = net(given) if joined else stepped(layers["n"], layers["b"](layers["s"](layers["a"](given)) * 1))
        y.sum().backward()
        found.append([given.grad, *(p.grad for p in net.parameters())])
    assert found[0][0].abs().sum() > 0
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_dense_and_sparse_gradients_of_the_weights_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for share in (-1.0, math.inf):
        monkeypatch.setattr(crossover, "C", share)
        layer, carry = build(40), Carry()
        layer.resume(drawn(3, 5, 40), carry)
        layer.resume(drawn(8, 5, 40, seed=2), carry).sum().backward()
        found.append(layer.recurrent.weight.grad)
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)


def test_a_row_does_not_depend_on_the_batch_or_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "WORTH_A_THREAD", 1)
    layer = build(100).float()
    x = drawn(20, 9, 100).float()
    found = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        layer.zero_grad()
        given = x.clone().requires_grad_()
        y = layer(given)
        y.sum().backward()
        found.append([y * 1, given.grad, *(p.grad for p in layer.parameters())])
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
    alone = x[:, 4:5].clone().requires_grad_()
    y = layer(alone)
    y.sum().backward()
    assert torch.equal(y * 1, found[0][0][:, 4:5])
    assert torch.equal(alone.grad, found[0][1][:, 4:5])


def test_state_on_a_grid_sums_integers() -> None:
    """Weight integers add up without rounding, so the spikes are those of unbounded integers."""
    n, steps, unit = 6, 40, 0.25
    rng = np.random.default_rng(0)
    layer = Recurrent(LIF(3900 / 4096, 20 * unit), n)
    grid = fused.StateGrid(unit)
    layer.neuron.grid = lambda: grid
    weight, x = rng.integers(-9, 10, (n, n)), rng.integers(-4, 12, (steps, 1, n))
    s, _ = layer.neuron.run(torch.from_numpy(x).float(), torch.from_numpy(weight).float())
    v, sent, expected = np.zeros(n, np.int64), np.zeros(n, np.int64), []
    for t in range(steps):
        kept = np.sign(v) * ((np.abs(v) * 3900) >> 12)
        v = kept + 64 * (x[t, 0] + weight @ sent)
        sent = (v > 64 * 20).astype(np.int64)
        v = np.where(sent == 1, 0, v)
        expected.append(sent)
    np.testing.assert_array_equal(s.dense()[:, 0].numpy(), expected)
    assert 10 < np.sum(expected) < 200


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tiles_make_a_matrix_product(dtype: type) -> None:
    rng, wide = np.random.default_rng(0), lanes(np.dtype(dtype).itemsize)
    d, w = rng.integers(-9, 10, (2 * ROWS, 50)).astype(dtype), rng.integers(-9, 10, (50, wide + 3)).astype(dtype)
    spread = panels(w)
    assert spread.shape == (2, 50, wide)
    c = np.ones((2 * ROWS, 2 * wide), dtype)
    for panel in range(2):
        for row in (0, ROWS):
            tile(c, d, spread[panel], row, panel * wide)  # the same in plain Python as compiled, for integers
    np.testing.assert_array_equal(c[:, : wide + 3], 1 + d @ w)
    np.testing.assert_array_equal(c[:, wide + 3 :], 1)
