"""The plain path, which tensors on other devices take: the same results on the CPU, the right shapes on "meta"."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuro.errors import NetworkError
from neuro.nn import (
    ALIF,
    IF,
    LI,
    LIF,
    AdLIF,
    AvgPool2d,
    CubaLI,
    CubaLIF,
    Dropout,
    Recurrent,
    Scale,
    ScaleNorm,
    SpikingNetwork,
    SumPool2d,
    fused,
    plain,
)
from neuro.nn.joined import Carry


def seeded(layer: nn.Module, scale: float) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in layer.parameters():
            if p.dim() > 1:
                p.copy_(torch.randn(p.shape, generator=generator) * scale)
    return layer


def dense(neuron: nn.Module, readout: str) -> SpikingNetwork:
    layers = {"a": nn.Linear(12, 20), "n": neuron, "d": Dropout(0.5), "b": nn.Linear(20, 4)}
    layers |= {"o": IF(1.0)} if readout == "count" else {"o": LI(0.9)}
    return SpikingNetwork(layers, input_shape=(12,), dt=1e-3, readout=readout)


def images() -> SpikingNetwork:
    layers = {
        "c": nn.Conv2d(2, 4, 3, padding=1), "m": nn.BatchNorm2d(4), "n": LIF(0.8), "p": SumPool2d(2),
        "x": nn.MaxPool2d(2), "q": AvgPool2d(2), "f": nn.Flatten(), "g": Scale(0.5), "w": nn.Linear(4, 5),
        "s": ScaleNorm(5), "o": CubaLIF(0.5, 0.9, 0.2),
    }  # fmt: skip
    return SpikingNetwork(layers, input_shape=(2, 8, 8), dt=1e-3)


NETWORKS = {
    "lif": lambda: dense(LIF(0.9, learn=("beta", "v_threshold")), "sum"),
    "cuba": lambda: dense(CubaLIF(0.6, 0.9, reset="subtract", learn=("alpha",)), "count"),
    "recurrent": lambda: dense(Recurrent(CubaLIF(0.6, 0.9), 20), "max"),
    "adaptive": lambda: dense(AdLIF(0.9, 0.95, 0.02, 0.1, learn=("a", "b", "rho")), "last"),
    "recurrent adaptive": lambda: dense(Recurrent(ALIF(0.9, 0.95, 0.2), 20), "sum"),
    "images": images,
    "membrane": lambda: SpikingNetwork(
        {"a": nn.Linear(12, 4), "n": Recurrent(LIF(0.9), 4)}, input_shape=(12,), dt=1e-3, readout="sum"
    ),
    "loop": lambda: SpikingNetwork(
        {"a": nn.Linear(12, 4), "n": LIF(0.9), "r": nn.Linear(4, 4), "c": CubaLI(0.7, 0.9)},
        [("input", "a"), ("a", "n"), ("n", "r"), ("r", "n"), ("n", "c"), ("c", "output")],
        input_shape=(12,), dt=1e-3, readout="sum",
    ),
}  # fmt: skip


def fresh(net: SpikingNetwork) -> SpikingNetwork:
    for layer in net.modules():
        if isinstance(layer, Dropout):
            layer.generator = torch.Generator().manual_seed(5)
    return net


@pytest.mark.parametrize("name", NETWORKS)
def test_the_plain_path_is_the_compiled_one(name: str) -> None:
    """Outputs and gradients in float64, and the same again in pieces."""
    net = seeded(NETWORKS[name](), 0.6).double()
    x = torch.from_numpy((np.random.default_rng(0).random((14, 3, *net.input_shape)) < 0.3).astype(np.uint8))
    found = []
    for other in (False, True):
        net.zero_grad()
        if other:
            with plain.forced():
                y = fresh(net)(x)
        else:
            y = fresh(net)(x)
        (y * torch.arange(1, 4, dtype=torch.float64).view(3, *[1] * (y.dim() - 2))).sum().backward()
        found.append([y.detach() * 1, *(p.grad for p in net.parameters())])
    assert found[0][0].abs().sum() > 0
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)
    if name == "images":
        return  # its norms see the piece
    carry: dict[str, Carry] = {}
    fresh(net)
    parts = []
    for k, part in enumerate(x.split((5, 1, 8))):
        if k == 1:
            parts.append(net(part, None, carry))  # either path goes on from where the other left off
            continue
        with plain.forced():
            parts.append(net(part, None, carry))
    torch.testing.assert_close(torch.cat([p.detach() * 1 for p in parts]), found[0][0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("name", NETWORKS)
def test_whole_networks_move_to_another_device(name: str, dtype: torch.dtype) -> None:
    net = fresh(NETWORKS[name]())
    record: dict[str, Tensor] = {}
    shape = net(torch.zeros(4, 2, *net.input_shape)).shape
    net = net.to("meta")
    assert {t.device.type for t in (*net.parameters(), *net.buffers())} == {"meta"}
    y = net(torch.zeros(4, 2, *net.input_shape, dtype=dtype, device="meta"), record)
    assert (y.device.type, y.shape) == ("meta", shape)
    assert {s.device.type for s in record.values()} == {"meta"}
    y.sum().backward()
    assert all(p.grad is not None and p.grad.device.type == "meta" for p in net.parameters())
    carry: dict[str, Carry] = {}
    for _ in range(2):
        assert net(torch.zeros(3, 2, *net.input_shape, device="meta"), None, carry).shape == (3, *shape[1:])


def test_nothing_but_the_plain_path_runs_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """No array of numpy is made of a tensor: what cannot be on another device would be refused there."""
    net = fresh(dense(Recurrent(LIF(0.9), 20), "sum"))

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("numpy on the plain path")

    with plain.forced():
        monkeypatch.setattr(Tensor, "numpy", refused)
        net(torch.ones(3, 2, 12)).sum().backward()


def test_a_grid_is_refused_by_name() -> None:
    layer = LIF(0.9)
    layer.grid = lambda: fused.StateGrid(0.01)
    with pytest.raises(NetworkError, match="trained on the CPU only"):
        layer(torch.zeros(3, 1, 2, device="meta"))


def test_small_layers_of_any_size_agree_with_the_plain_path() -> None:
    """Few samples, few steps, few events: lists of every length, groups of one sample."""
    rng = np.random.default_rng(0)
    for trial in range(150):
        inputs, steps, batch, n = (int(rng.integers(1, high)) for high in (20, 7, 5, 4))
        neuron = (LI(0.9), LIF(0.9, 0.2, surrogate="atan"), Recurrent(LIF(0.9, 0.2), n))[trial % 3]
        net = SpikingNetwork({"a": nn.Linear(inputs, n), "n": neuron}, input_shape=(inputs,), dt=1e-3,
                             readout="count" if neuron.spiking else "sum").double()  # fmt: skip
        x = torch.from_numpy((rng.random((steps, batch, inputs)) < rng.uniform(0, 0.5)).astype(np.uint8))
        upstream, found = torch.from_numpy(rng.normal(size=(steps, batch, n))), []
        for other in (False, True):
            net.zero_grad()
            if other:
                with plain.forced():
                    net(x).backward(upstream)
            else:
                net(x).backward(upstream)
            found.append([torch.zeros_like(p) if p.grad is None else p.grad for p in net.parameters()])
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)
