"""Layers of Linear and neurons in series, as one node: values and gradients of a plain loop over time."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuro.nn import chain, crossover, dense, kernels
from neuro.nn.joined import SERIES, Chain
from neuro.nn.layers import IF, LI, LIF, CubaLI, CubaLIF, Neuron
from neuro.nn.network import SpikingNetwork
from neuro.nn.spikes import Spikes

D = torch.float64
SIZES = (90, 70, 130, 20)


def network(
    *neurons: Neuron, dtype: torch.dtype = D, gain: float = 2.0, sizes: tuple[int, ...] = SIZES
) -> SpikingNetwork:
    """One Linear before each of the neurons, the second without bias."""
    rng = np.random.default_rng(3)
    layers: dict[str, nn.Module] = {}
    for k, (neuron, (m, n)) in enumerate(zip(neurons, itertools.pairwise(SIZES), strict=False)):
        layer = nn.Linear(m, n, bias=k != 1)
        with torch.no_grad():
            for p in layer.parameters():
                p.copy_(torch.from_numpy(rng.normal(size=tuple(p.shape)) * gain / np.sqrt(m)))
        layers |= {f"w{k}": layer, f"n{k}": neuron}
    readout = "count" if neurons[-1].spiking else "sum"
    return SpikingNetwork(layers, input_shape=(SIZES[0],), dt=1e-3, readout=readout).to(dtype)


def mixed() -> tuple[Neuron, ...]:
    thresholds = np.linspace(0.7, 1.3, SIZES[1])
    return (
        LIF(np.linspace(0.5, 0.95, SIZES[1]), thresholds, v_reset=-0.1, surrogate="atan"),
        CubaLIF(0.7, 0.9, reset="subtract", gain=0.8, surrogate="triangle"),
        CubaLI(0.5, 0.9, drive=0.01),
    )


def spikes(steps: int = 23, batch: int = 7, rate: float = 0.08, inputs: int = SIZES[0]) -> Tensor:
    return torch.from_numpy(np.random.default_rng(steps).random((steps, batch, inputs)) < rate).to(torch.uint8)


def looped(net: SpikingNetwork, x: Tensor) -> Tensor:
    """The same step by step."""
    states: dict[str, object] = dict.fromkeys(net.names)
    found = []
    for now in x:
        for name in net.names:
            layer = net.layer(name)
            if isinstance(layer, Neuron):
                now, states[name] = layer.step(now, states[name])  # type: ignore[arg-type]
            else:
                now = layer(now)
        found.append(now)
    return torch.stack(found)


def gradients(net: SpikingNetwork, y: Tensor, x: Tensor, constant: bool = False) -> list[Tensor]:
    """Of a sum over the output with random factors, the same in all steps where ``constant``."""
    r = torch.from_numpy(np.random.default_rng(5).normal(size=y.shape[1 if constant else 0 :])).to(y.dtype)
    loss = ((y.sum(0) if constant else y) * r).sum()
    return list(torch.autograd.grad(loss, [x, *net.parameters()]))


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many layers each call of the series ran."""
    ran: list[int] = []

    def run(chains: tuple[Chain, ...], x: Tensor) -> tuple[Tensor, int] | None:
        found = chain.series(chains, x)
        ran.append(found[1] if found else 0)
        return found

    monkeypatch.setitem(SERIES, dense.linear, run)
    return ran


CASES = {
    "mixed": mixed(),
    "fires": (LIF(0.9, detach=True, surrogate="fast_sigmoid"), IF(0.8, surrogate="straight_through")),
    "one": (LIF(0.8, detach=True, reset="subtract"),),
    "integrator": (LI(0.9),),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("constant", [True, False])
def test_values_and_gradients_of_a_loop_over_time(name: str, constant: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    net, given = network(*CASES[name]), spikes()
    ran = counted(monkeypatch)
    x = Spikes.pack(given, D).requires_grad_()
    y = net(x)
    assert ran == [len(CASES[name])]
    plain = given.to(D).requires_grad_()
    expected = looped(net, plain)
    assert bool(expected.any())
    torch.testing.assert_close(y + 0, expected, rtol=1e-12, atol=1e-12)
    found = gradients(net, y, x, constant), gradients(net, expected, plain, constant)
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


def test_many_samples_and_one_long_one() -> None:
    for steps, batch in ((3, 61), (700, 1)):
        net, given = network(*mixed()), spikes(steps, batch)
        x, plain = Spikes.pack(given, D).requires_grad_(), given.to(D).requires_grad_()
        found = gradients(net, net(x), x), gradients(net, looped(net, plain), plain)
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "WORTH_A_THREAD", 1)
    net, given = network(*mixed(), dtype=torch.float32), spikes(40, 33)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            x = Spikes.pack(given, torch.float32).requires_grad_()
            y = net(x)
            found.append([y + 0, *gradients(net, y, x)])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("late", [False, True])
def test_a_layer_whose_input_is_not_sparse_runs_by_itself(late: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crossover, "S", 0.0)  # small layers are sparse at higher rates
    first = LIF(0.9, v_threshold=1e-3) if late else LIF(0.9)
    net, given = network(first, *mixed()[1:]), spikes(rate=0.08 if late else 0.6)
    ran = counted(monkeypatch)
    x, plain = Spikes.pack(given, D).requires_grad_(), given.to(D).requires_grad_()
    y = net(x)
    assert ran[0] == (1 if late else 0)
    assert sum(ran) < 3
    found = gradients(net, y, x), gradients(net, looped(net, plain), plain)
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


def test_what_does_not_fit_runs_layer_by_layer_and_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    given = spikes()
    learns = network(LIF(0.9, learn=("beta",)), *mixed()[1:])
    ran = counted(monkeypatch)
    learns(given)
    assert ran[0] == 0
    net = network(*mixed())
    together = net(given)
    for fits, counts in ((90 * 128 * 8, [1, 1, 1]), (1, [0, 0, 0])):
        monkeypatch.setattr(chain, "FITS", fits)
        ran.clear()
        assert torch.equal(net(given), together)
        assert len(ran) == 3
        assert ran[0] == counts[0]


def test_what_is_recorded_has_gradients_and_pieces_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    net, given = network(*mixed()), spikes()
    ran = counted(monkeypatch)
    record: dict[str, Tensor] = {}
    together = net(given)
    assert ran == [3]
    assert torch.equal(net(given, record=record), together)
    assert set(record) == {"n0", "n1"}
    assert all(s.requires_grad for s in record.values())
    carry: dict[str, object] = {}
    pieces = [net(given[a : a + 8], carry=carry) for a in range(0, len(given), 8)]  # type: ignore[arg-type]
    assert torch.equal(torch.cat(pieces), together)
    assert ran == [3]


def test_only_weights_that_are_asked_for() -> None:
    net, given = network(*mixed()), spikes()
    net.layer("w1").weight.requires_grad_(False)  # type: ignore[union-attr]
    net(given).sum().backward()
    assert net.layer("w1").weight.grad is None
    assert net.layer("w0").weight.grad is not None
    with torch.no_grad():
        assert not net(given).requires_grad
