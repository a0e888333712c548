"""snnTorch in: the spikes of the Network are those of snnTorch itself, step for step, in every style of module."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

import neuro
from neuro import ir, reference
from neuro.errors import ConversionError, UnsupportedLayer
from neuro.nn.bridge import to_module

snn = pytest.importorskip("snntorch", reason="needs snntorch (pip install snntorch)")
N, STEPS, BATCH = 16, 40, 3
INPUT = torch.from_numpy((np.random.default_rng(0).random((STEPS, BATCH, 12)) < 0.4).astype(np.float64))


def fires(x: Tensor) -> Tensor:
    """snnTorch's own surrogates return float32, whatever they are given."""
    return (x > 0).to(x.dtype)


@pytest.fixture(autouse=True)
def nobody_elses_neurons() -> None:
    """snnTorch resets every neuron that this process ever made, and stumbles over those that never ran."""
    snn.Leaky.instances.clear()


HIDDEN = {"spike_grad": fires, "init_hidden": True}
NEURONS: dict[str, Callable[..., nn.Module]] = {
    "Leaky": lambda **k: snn.Leaky(beta=torch.linspace(0.5, 0.95, N), threshold=torch.linspace(0.5, 2, N), **k),
    "Leaky without leak": lambda **k: snn.Leaky(beta=1.0, **k),
    "Leaky without memory": lambda **k: snn.Leaky(beta=0.0, **k),
    "Leaky graded": lambda **k: snn.Leaky(beta=0.8, graded_spikes_factor=0.5, **k),
    "Synaptic": lambda **k: snn.Synaptic(alpha=0.7, beta=torch.linspace(0.5, 0.95, N), **k),
    "Synaptic without leak": lambda **k: snn.Synaptic(alpha=0.7, beta=1.0, **k),
    "Lapicque": lambda **k: snn.Lapicque(R=5.0, C=2.0, time_step=1.0, **k),
    "RLeaky": lambda **k: snn.RLeaky(beta=0.8, linear_features=N, **k),
    "RLeaky one to one": lambda **k: snn.RLeaky(beta=0.8, all_to_all=False, V=torch.linspace(-1, 1, N), **k),
    "RSynaptic": lambda **k: snn.RSynaptic(alpha=0.6, beta=0.8, linear_features=N, **k),
}


def spiking(network: ir.Network) -> list[str]:
    return [n for n in network.order if getattr(network.nodes[n], "spiking", False)]


def dense(weight: float = 4.0, seed: int = 0, out: int = N) -> nn.Linear:
    torch.manual_seed(seed)
    layer = nn.Linear(12 if out == N else N, out).double()
    with torch.no_grad():
        layer.weight.mul_(weight)
    return layer


def stepped(net: nn.Sequential, until: int) -> NDArray[np.uint8]:
    """Spikes of snnTorch: a copy of the module, step by step, from rest."""
    from snntorch import utils

    net = copy.deepcopy(net)
    utils.reset(net)
    with torch.no_grad():
        return torch.stack([net[:until](x) for x in INPUT]).numpy()


RESETS = ("subtract", "zero", "none")
LATE_ZERO = {"Synaptic", "Synaptic without leak", "Lapicque", "RLeaky", "RLeaky one to one", "RSynaptic"}


@pytest.mark.parametrize(("kind", "reset"), list(itertools.product(NEURONS, RESETS)))
def test_spikes_are_those_of_snntorch(kind: str, reset: str) -> None:
    net = nn.Sequential(dense(), NEURONS[kind](reset_mechanism=reset, **HIDDEN), dense(out=5, seed=1),
                        snn.Leaky(beta=0.7, **HIDDEN)).double()  # fmt: skip
    if reset == "zero" and kind in LATE_ZERO:
        with pytest.raises(UnsupportedLayer, match=r"throws away the input of the step after.*use 'subtract'"):
            neuro.from_snntorch(net, INPUT[0])
        return
    network = neuro.from_snntorch(net, INPUT[0])
    run = reference.run(network, INPUT.numpy())
    wanted = stepped(net, 2) != 0
    inner = run.spikes["1_spikes" if reset == "none" else "1"]
    assert wanted.any()
    assert not wanted.all()
    assert np.array_equal(inner, wanted), f"{(inner != wanted).sum()} of {wanted.size} differ"
    assert np.array_equal(run.answers["output"], stepped(net, 4))
    with torch.no_grad():
        assert np.array_equal(to_module(network, torch.float64)(INPUT), stepped(net, 4))


@pytest.mark.parametrize("kind", ["Leaky", "Synaptic", "RLeaky"])
def test_a_reset_at_once_to_zero_is_ours(kind: str) -> None:
    net = nn.Sequential(dense(), NEURONS[kind](reset_mechanism="zero", reset_delay=False, **HIDDEN)).double()
    run = reference.run(neuro.from_snntorch(net, INPUT[0]), INPUT.numpy())
    assert np.array_equal(run.spikes["1"], stepped(net, 2))


def test_a_reset_at_once_by_subtraction_needs_a_word() -> None:
    net = nn.Sequential(dense(0.5), snn.Leaky(beta=0.5, reset_delay=False, **HIDDEN)).double()
    with pytest.raises(UnsupportedLayer, match="overshoot='accept'"):
        neuro.from_snntorch(net, INPUT[0])
    network = neuro.from_snntorch(net, INPUT[0], overshoot="accept")
    run = reference.run(network, INPUT.numpy())
    assert (run.v["1"] <= 1).all()  # so the two are the same
    assert np.array_equal(run.spikes["1"], stepped(net, 2))
    assert stepped(net, 2).any()
    assert "above its threshold" in network.metadata["1/note"]


def test_ignoring_the_late_reset_is_another_network() -> None:
    net = nn.Sequential(dense(), NEURONS["Leaky"](**HIDDEN)).double()
    network = neuro.from_snntorch(net, INPUT[0], late_reset="ignore")
    assert not network.feedback
    assert "decays with the membrane" in network.metadata["1/note"]
    assert not np.array_equal(reference.run(network, INPUT.numpy()).spikes["1"], stepped(net, 2))


def test_beta_means_the_same_steps_as_eulers_and_as_an_exponential() -> None:
    net = nn.Sequential(dense(), NEURONS["Leaky"](**HIDDEN)).double()
    euler, exact = (neuro.from_snntorch(net, INPUT[0], discretisation=rule) for rule in ("euler", "exact"))
    taus = [n.nodes["1"].tau_mem[0] for n in (euler, exact)]  # type: ignore[attr-defined]
    assert taus == pytest.approx([1e-3 / (1 - 0.5), 1e-3 / np.log(2)])
    for network in (euler, exact):
        assert np.array_equal(reference.run(network, INPUT.numpy()).spikes["1"], stepped(net, 2))


# ---------------------------------------------------------------- styles of module


class Tutorial(nn.Module):
    """As in snnTorch's tutorials 5 and 6."""

    def __init__(self, held: bool) -> None:
        super().__init__()
        self.held = held
        self.fc1, self.lif1 = dense(), snn.Leaky(beta=0.9, spike_grad=fires)
        self.fc2, self.lif2 = dense(out=5, seed=1), snn.Leaky(beta=0.8, spike_grad=fires)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        spk2_rec, mem2_rec = [], []
        for step in range(STEPS if self.held else x.size(0)):
            cur1 = self.fc1(x if self.held else x[step])
            spk1, mem1 = self.lif1(cur1, mem1)
            cur2 = self.fc2(spk1)
            spk2, mem2 = self.lif2(cur2, mem2)
            spk2_rec.append(spk2)
            mem2_rec.append(mem2)
        return torch.stack(spk2_rec, dim=0), torch.stack(mem2_rec, dim=0)


@pytest.mark.parametrize("held", [False, True])
def test_the_tutorials_loop_is_a_graph_of_one_step(held: bool) -> None:
    net = Tutorial(held).double()
    x = INPUT[0] if held else INPUT
    before = copy.deepcopy(net.state_dict())
    network = neuro.from_snntorch(net, x)
    assert set(network.nodes) == {"input", "fc1", "lif1", "lif1_recurrent", "fc2", "lif2", "lif2_recurrent", "output"}
    assert network.nodes["output"].readout == "count"  # type: ignore[attr-defined]
    with torch.no_grad():
        wanted = net(x)[0]
    run = reference.run(network, np.broadcast_to(x.numpy(), INPUT.shape) if held else x.numpy())
    assert np.array_equal(run.spikes["lif2"], wanted)
    assert wanted.any()
    assert net.training
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert ("input" in network.metadata) == held


class Convolutional(nn.Module):
    """Functions between layers, one pool used twice, batch norm, a residual sum, batch first, a sum over time."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv1, self.norm = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, (3, 1), padding="same", groups=2)
        self.lif1 = snn.Leaky(beta=0.75, threshold=torch.linspace(0.5, 1.5, 4).view(4, 1, 1), **HIDDEN)
        self.lif2 = snn.Leaky(beta=0.5, threshold=0.125, reset_mechanism="zero", **HIDDEN)
        self.out, self.read = (
            nn.Linear(4 * 2 * 2, 3),
            snn.Leaky(beta=0.9, reset_mechanism="none", **HIDDEN | {"output": True}),
        )
        with torch.no_grad():
            self.norm.running_mean.uniform_(-1, 1)
            self.norm.running_var.uniform_(0.5, 2)
            for layer in (self.conv1, self.conv2):
                layer.weight.mul_(3)

    def forward(self, x: Tensor) -> Tensor:
        total: Any = 0
        for t in range(x.shape[1]):
            s = self.lif1(self.norm(self.conv1(x[:, t])))
            s = functional.avg_pool2d(s, 2)
            s = self.lif2(2 * self.conv2(s) + s)
            s = functional.max_pool2d(s, kernel_size=2).flatten(1)
            _, mem = self.read(self.out(functional.dropout(s, 0.5, self.training)))
            total = total + mem
        return total / x.shape[1]


def test_images_functions_residuals_and_sums_over_time() -> None:
    net = Convolutional().double().eval()
    x = torch.from_numpy((np.random.default_rng(1).random((2, 12, 2, 8, 8)) < 0.3).astype(np.float64))
    network = neuro.from_snntorch(net, x)
    assert network.nodes["output"].readout == "sum"  # type: ignore[attr-defined]
    assert "norm" not in network.nodes  # folded into the convolution
    run = reference.run(network, x.transpose(0, 1).numpy())
    assert run.spikes["lif1"].any()
    assert run.spikes["lif2"].any()
    with torch.no_grad():
        wanted = net(x).numpy()
    assert reference.scores(network, run) / 12 == pytest.approx(wanted, abs=1e-12)
    module = to_module(network, torch.float64)
    assert module(x.transpose(0, 1)).sum(0).detach().numpy() / 12 == pytest.approx(wanted, abs=1e-12)


class OwnRecurrence(nn.Module):
    """A loop of the user's own: last step's output spikes feed the first layer, and its own through another."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.back, self.own = dense(), nn.Linear(5, N, bias=False), nn.Linear(N, N)
        self.lif1, self.lif2 = (snn.Leaky(beta=0.75, reset_mechanism="zero", **HIDDEN) for _ in range(2))
        self.fc2 = dense(out=5, seed=1)

    def forward(self, x: Tensor) -> Tensor:
        last, inner = x.new_zeros(x.shape[1], 5), x.new_zeros(x.shape[1], N)
        rec = torch.zeros(*x.shape[:2], 5, dtype=x.dtype)
        for t, step in enumerate(x):
            inner = self.lif1(self.fc1(step) + self.back(last) - self.own(inner))
            last = self.lif2(self.fc2(inner))
            rec[t] = last
        return rec


def test_loops_of_the_users_own_are_one_step_late() -> None:
    torch.manual_seed(5)
    net = OwnRecurrence().double()
    network = neuro.from_snntorch(net, INPUT)
    with torch.no_grad():
        wanted = net(INPUT).numpy()
    assert np.array_equal(reference.run(network, INPUT.numpy()).spikes["lif2"], wanted)
    assert wanted.any()
    assert len(network.feedback) == 2


class Echo(nn.Module):
    """The input of one step before, beside that of now: late without a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.lif = dense(), snn.Leaky(beta=0.75, reset_mechanism="zero", **HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        old, found = torch.zeros_like(x[0]), []
        for step in x.unbind(0):
            found.append(self.lif(self.fc(step + 0.5 * old)))
            old = step
        return torch.stack(found)


def test_what_is_late_without_a_loop_gets_a_delay() -> None:
    net = Echo().double()
    network = neuro.from_snntorch(net, INPUT)
    with torch.no_grad():
        wanted = net(INPUT).numpy()
    assert np.array_equal(reference.run(network, INPUT.numpy()).spikes["lif"], wanted)
    assert wanted.any()


class Wrong(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.lif = dense(), snn.Leaky(beta=0.9, inhibition=False, **HIDDEN)
        self.act, self.cell = nn.ReLU(), snn.Alpha(alpha=0.9, beta=0.8, **HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(torch.sigmoid(self.lif(self.act(self.fc(x)))) + 1.0)


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(UnsupportedLayer) as caught:
        neuro.from_snntorch(Wrong().double(), INPUT[0])
    said = str(caught.value)
    for piece in ("ReLU", "sigmoid", "bias of a layer", "Alpha", "or Synaptic"):
        assert piece in said, said


def test_axes_that_cannot_be_told_must_be_said() -> None:
    net = nn.Sequential(dense(), snn.Leaky(beta=0.9, **HIDDEN)).double()
    with pytest.raises(ConversionError, match="say axes="):
        neuro.from_snntorch(net, INPUT)
    assert neuro.from_snntorch(net, INPUT[0]).shapes["input"] == (12,)


def test_a_layer_with_memory_that_serves_twice_is_refused() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2, self.lif = dense(), dense(seed=2), snn.Leaky(beta=0.9, **HIDDEN)

        def forward(self, x: Tensor) -> Tensor:
            return self.lif(self.fc2(x)) + self.lif(self.fc1(x))

    with pytest.raises(UnsupportedLayer, match=r"wired differently|cannot serve twice|less than once"):
        neuro.from_snntorch(Twice().double(), INPUT[0])
