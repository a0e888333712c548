"""Layers over [channel, length], wrappers that loop, snnTorch's neurons that are never reset: the same spikes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from axon_doors import fake
from torch import Tensor, nn
from torch.nn import functional

import neuro
from neuro import reference
from neuro.errors import UnsupportedLayer
from neuro.nn.bridge import to_module

snn = pytest.importorskip("snntorch", reason="needs snntorch (pip install snntorch)")
STEPS, BATCH = 40, 3
HIDDEN = {"spike_grad": lambda x: (x > 0).to(x.dtype), "init_hidden": True}


def spikes(*shape: int, seed: int = 0, rate: float = 0.4) -> Tensor:
    return torch.from_numpy((np.random.default_rng(seed).random((STEPS, BATCH, *shape)) < rate).astype(np.float64))


def rounded(layer: Any, scale: float = 4.0, seed: int = 0) -> Any:
    """Weights that are multiples of 1 / 64, so that no sum is rounded."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.from_numpy(np.round(rng.normal(0.1, scale / 4, p.shape) * 64) / 64))
    return layer


class Line(nn.Module):
    def __init__(self, **conv: Any) -> None:
        super().__init__()
        self.conv = rounded(nn.Conv1d(4, 6, 3, **conv))
        self.norm = nn.BatchNorm1d(6)
        self.first = snn.Leaky(beta=torch.linspace(0.5, 0.9, 6)[:, None], **HIDDEN)
        self.pool = nn.AvgPool1d(2)
        self.again = rounded(nn.Conv1d(6, 6, 3, padding=1, groups=2), seed=1)
        self.second = snn.Leaky(beta=0.75, **HIDDEN)
        self.out = nn.LazyLinear(5, bias=False)
        self.last = snn.Leaky(beta=0.5, **HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.first(self.norm(self.conv(x))))
        x = self.second(self.again(x) + x)
        return self.last(self.out(x.flatten(1)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("conv", [{}, {"padding": 1, "stride": 2}, {"dilation": 2, "groups": 2, "padding": "same"}])
def test_lines_are_matrices_that_fire_the_same_spikes(conv: dict[str, Any]) -> None:
    net = Line(**conv).double().eval()
    x = spikes(4, 20)
    net(x[0])
    rounded(net.out, seed=2)
    with torch.no_grad():
        net.norm.running_var.copy_(torch.linspace(0.5, 2, 6))
        net.norm.bias.copy_(torch.linspace(-0.1, 0.3, 6))
    network = neuro.from_snntorch(net, x[0])
    for part in (net.first, net.second, net.last):
        part.reset_mem()
    with torch.no_grad():
        wanted = torch.stack([net(step) for step in x])
    assert 0 < wanted.mean() < 1
    assert network.shapes[network.input] == (4, 20)
    run = reference.run(network, x.numpy())
    (last,) = network.sources(network.output)
    assert np.array_equal(run.spikes[last], wanted)
    assert np.array_equal(to_module(network, torch.float64)(x).detach(), wanted)


class Functions(nn.Module):
    """The module's answer is a line."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((2, 3, 2), 0.5))
        self.neuron = snn.Leaky(beta=0.5, **HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(functional.avg_pool1d(functional.conv1d(x, self.weight, stride=2), 2))  # type: ignore[no-any-return]


def test_the_functions_do_as_the_layers() -> None:
    net, x = Functions().double(), spikes(3, 16)
    network = neuro.from_snntorch(net, x[0])
    net.neuron.reset_mem()
    with torch.no_grad():
        wanted = torch.stack([net(step) for step in x])
    assert wanted.any()
    assert np.array_equal(reference.run(network, x.numpy()).spikes["neuron"], wanted.flatten(2))
    assert "flat" in network.metadata["output/note"]


def test_a_line_too_long_for_a_matrix_names_the_remedy() -> None:
    net = nn.Sequential(nn.Conv1d(2, 64, 3), snn.Leaky(beta=0.5, init_hidden=True), nn.Flatten())
    with pytest.raises(UnsupportedLayer, match=r"16,773,504 weights here, at most 4,194,304; write it as the 2d layer"):
        neuro.from_snntorch(net, torch.zeros(1, 2, 363))
    net[0].padding_mode = "circular"
    with pytest.raises(UnsupportedLayer, match="padding_mode must be 'zeros'"):
        neuro.from_snntorch(net, torch.zeros(1, 2, 36))


def test_alpha_without_a_reset() -> None:
    net = nn.Sequential(rounded(nn.Linear(12, 8, bias=False)), snn.Alpha(0.9, 0.7, reset_mechanism="none", **HIDDEN))
    net = net.double()
    network = neuro.from_snntorch(net, torch.zeros(1, 12))
    net[1].reset_mem()
    x = spikes(12)
    with torch.no_grad():
        wanted = torch.stack([net(step) for step in x])
    assert 0.05 < wanted.mean() < 0.95
    (fires,) = network.sources(network.output)
    assert np.array_equal(reference.run(network, x.numpy()).spikes[fires], wanted)
    with pytest.raises(UnsupportedLayer, match="clears or cuts its synapses"):
        neuro.from_snntorch(nn.Sequential(nn.Linear(12, 8), snn.Alpha(0.9, 0.7, init_hidden=True)), torch.zeros(1, 12))


class AllSteps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = rounded(
            snn.LinearLeaky(torch.linspace(0.5, 0.9, 8), 12, 8, spike_grad=HIDDEN["spike_grad"]).linear
        )
        self.hidden = snn.LinearLeaky(
            torch.linspace(0.5, 0.9, 8), 12, 8, spike_grad=HIDDEN["spike_grad"], threshold=0.3
        )
        self.hidden.linear = self.first
        self.last = snn.StateLeaky(0.8, 8, spike_grad=HIDDEN["spike_grad"], threshold=2.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.hidden(x)[0])[0]  # type: ignore[no-any-return]


def test_neurons_that_take_all_steps_at_once() -> None:
    net, x = AllSteps().double(), spikes(12)
    network = neuro.from_snntorch(net, x)
    with torch.no_grad():
        wanted = net(x)
    assert 0.05 < wanted.mean() < 0.95
    (fires,) = network.sources(network.output)
    assert np.array_equal(reference.run(network, x.numpy()).spikes[fires], wanted)
    net.last.kernel_truncation_steps = 4
    with pytest.raises(UnsupportedLayer, match="forgets all at once"):
        neuro.from_snntorch(net, x)


@pytest.mark.parametrize("kind", ["SLSTM", "LeakyParallel", "DeltaLeaky"])
def test_what_is_left_out_says_why(kind: str) -> None:
    given = {"SLSTM": (4, 4), "LeakyParallel": (4, 4, 0.5), "DeltaLeaky": (1.0, 0.5)}[kind]
    made = getattr(snn, kind)(*given, **({} if kind == "LeakyParallel" else {"init_hidden": True}))
    net = nn.ModuleDict({"a": snn.Leaky(beta=0.5, init_hidden=True), "b": made})

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            out = self.net["b"](self.net["a"](x))
            return out[0] if isinstance(out, tuple) else out

    with pytest.raises(UnsupportedLayer, match=rf"net.b.*{kind}.*use "):
        neuro.from_snntorch(Both(), torch.zeros(3, 4), axes="B")


# ---------------------------------------------------------------- wrappers that feed back


class ElementWiseRecurrentContainer(nn.Module):
    """As SpikingJelly's: y[t] = sub_module(f(y[t-1], x[t]))."""

    def __init__(self, sub_module: nn.Module) -> None:
        super().__init__()
        self.sub_module, self.y = sub_module, None

    def reset(self) -> None:
        self.y = None

    def forward(self, x: Tensor) -> Tensor:
        if self.y is None:
            self.y = torch.zeros_like(x.data)
        self.y = self.sub_module(self.y + x)
        return self.y


ElementWiseRecurrentContainer.__module__ = "spikingjelly.activation_based.layer.container"


class RecurrentSequential(nn.Module):
    """As Norse's: what the last module sends is added to the next step's input."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.module = nn.ModuleList(modules)

    def forward(self, x: Tensor, state: Any = None) -> Any:
        if state is not None:
            x = torch.stack((x, state[0])).sum(0)
        for part in self.module:
            x = part(x)
            x = x[0] if isinstance(x, tuple) else x
        return x, (x, None)


RecurrentSequential.__module__ = "norse.torch.module.sequential"


class Steps(nn.Module):
    """The user's own loop, which hands the state on."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        state, found = None, []
        for step in x:
            y, state = self.inner(step, state)
            found.append(y)
        return torch.stack(found)


def _looped(framework: str, weight: Tensor) -> nn.Module:
    linear = nn.Linear(*weight.T.shape, bias=False)
    linear.weight = nn.Parameter(weight)
    if framework == "norse":
        return RecurrentSequential(linear, fake("norse", "LIFCell", len(weight), v_th=0.5))
    return ElementWiseRecurrentContainer(nn.Sequential(linear, fake("spikingjelly", "LIFNode", len(weight), tau=2.0)))


@pytest.mark.parametrize(("framework", "own"), [("norse", False), ("norse", True), ("spikingjelly", False)])
def test_wrappers_that_feed_back_are_loops(framework: str, own: bool) -> None:
    with np.load(Path(__file__).parents[1] / "golden" / "doors" / "loops.npz") as file:
        golden = dict(file)
    x, weight = golden["input"], torch.from_numpy(golden["weight"])
    wanted = np.unpackbits(golden[framework], count=x.size).reshape(x.shape)
    assert 0.05 < wanted.mean() < 0.95
    module = _looped(framework, weight)
    door = getattr(neuro, f"from_{framework}")
    sample = torch.zeros(*x[:6].shape if own else (1, len(weight)), dtype=torch.float64)
    network = door(Steps(module) if own else module, sample, **({} if own else {"axes": "B"}))
    assert len(network.feedback) == 1
    (name,) = network.sources(network.output)
    assert np.array_equal(reference.run(network, x).spikes[name], wanted)
    assert np.array_equal(to_module(network, torch.float64)(torch.from_numpy(x).double()).detach(), wanted)


class Halves(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (fake("spikingjelly", "IFNode", 3) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack((self.a(x), self.b(x))).mean(0)


def test_a_stack_that_is_not_summed_stays_refused() -> None:
    with pytest.raises(UnsupportedLayer, match="stack of things that are not the steps of one layer"):
        neuro.from_spikingjelly(Halves(), torch.zeros(1, 3), axes="B")
