"""Long samples in pieces: the same bits as the whole, and gradients that stop between the pieces."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuro.errors import NetworkError
from neuro.learn import rule
from neuro.learn.rule import pieces
from neuro.nn import (
    ALIF,
    IF,
    LI,
    LIF,
    AdLIF,
    AvgPool2d,
    CubaLI,
    CubaLIF,
    Delay,
    DelayedLinear,
    Dropout,
    Recurrent,
    ScaleNorm,
    SpikingNetwork,
    SumPool2d,
)
from neuro.nn.joined import Carry
from neuro.nn.layers import Temporal
from neuro.nn.spikes import Spikes


def strong(layer: nn.Module, scale: float, seed: int = 0) -> nn.Module:
    """Random weights in 64ths: their sums are exact in float32, so no order of adding up shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_((torch.randn(p.shape, generator=generator) * scale * 64).round() / 64)
    return layer


def linear_stack(neuron: nn.Module, **options: str) -> SpikingNetwork:
    layers = {"a": strong(nn.Linear(40, 70), 0.4), "n": neuron, "b": strong(nn.Linear(70, 3), 0.2, 1), "o": LI(0.9)}
    return SpikingNetwork(layers, input_shape=(40,), dt=1e-3, readout="sum", **options)


def images() -> SpikingNetwork:
    layers = {
        "c": strong(nn.Conv2d(2, 4, 3, padding=1), 0.5), "n": LIF(0.8), "p": SumPool2d(2), "q": AvgPool2d(2),
        "f": nn.Flatten(), "d": Dropout(0.5), "w": strong(nn.Linear(16, 20), 0.6), "s": ScaleNorm(20),
        "m": CubaLIF(0.5, 0.9), "b": strong(nn.Linear(20, 3), 0.5, 1), "o": IF(1.0),
    }  # fmt: skip
    return SpikingNetwork(layers, input_shape=(2, 8, 8), dt=1e-3, readout="count")


def looped() -> SpikingNetwork:
    layers = {"a": strong(nn.Linear(40, 9), 0.4), "n": LIF(0.9), "r": strong(nn.Linear(9, 9), 0.3), "d": Delay(2)}
    edges = [("input", "a"), ("a", "n"), ("n", "r"), ("r", "d"), ("d", "n"), ("n", "output")]
    return SpikingNetwork(layers, edges, input_shape=(40,), dt=1e-3)


NETWORKS = {
    "lif": lambda: linear_stack(LIF(0.9)),
    "cuba": lambda: linear_stack(CubaLIF(0.6, 0.9, reset="subtract")),
    "recurrent": lambda: linear_stack(strong(Recurrent(LIF(0.9), 70), 0.1)),
    "recurrent cuba": lambda: linear_stack(strong(Recurrent(CubaLIF(0.6, 0.9), 70), 0.1)),
    "adaptive": lambda: linear_stack(AdLIF(0.9, 0.95, 0.01, 0.1)),
    "recurrent adaptive": lambda: linear_stack(strong(Recurrent(ALIF(0.9, 0.95, 0.2), 70), 0.1)),
    "delays": lambda: linear_stack(strong(DelayedLinear(np.arange(70 * 70).reshape(70, 70) % 5), 0.1)),
    "images": images,
    "membrane": lambda: SpikingNetwork(
        {"a": strong(nn.Linear(40, 5), 0.4), "n": strong(Recurrent(LIF(0.9), 5), 0.5)}, input_shape=(40,), dt=1e-3,
        readout="last",
    ),
    "loop of layers": looped,
    "cuba readout": lambda: SpikingNetwork(
        {"a": strong(nn.Linear(40, 5), 0.4), "n": CubaLI(0.7, 0.9)}, input_shape=(40,), dt=1e-3, readout="max"
    ),
}  # fmt: skip


def sample(net: SpikingNetwork, steps: int = 23, rate: float = 0.06) -> Tensor:
    rng = np.random.default_rng(3)
    return torch.from_numpy((rng.random((steps, 3, *net.input_shape)) < rate).astype(np.uint8))


def seeded(net: SpikingNetwork) -> SpikingNetwork:
    for layer in net.modules():
        if isinstance(layer, Dropout):
            layer.generator = torch.Generator().manual_seed(7)
    return net


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_pieces_are_the_whole_bit_for_bit(name: str, training: bool) -> None:
    net = NETWORKS[name]().train(training)
    if name == "images" and training:
        for layer in net.modules():
            if isinstance(layer, ScaleNorm):
                layer.eval()  # its statistics are those of the piece, by definition
    x = sample(net)
    record: dict[str, Tensor] = {}
    whole = seeded(net)(x, record)
    carry: dict[str, Carry] = {}
    seeded(net)
    parts = [net(part, None, carry) for part in x.split((1, 9, 2, 11))]
    assert torch.equal(torch.cat([p * 1 for p in parts]), whole * 1)
    assert whole.sum() != 0
    for name_, s in record.items():
        assert s.sum() > 0, name_


def test_a_layer_that_cannot_run_in_pieces_says_so() -> None:
    class Odd(Temporal):
        def forward(self, x: Tensor) -> Tensor:
            return x

    net = SpikingNetwork({"odd": Odd()}, input_shape=(2,), dt=1e-3, readout="sum")
    with pytest.raises(NetworkError, match="Odd cannot run a long sample in pieces"):
        net(torch.zeros(2, 1, 2), None, {})


@pytest.mark.parametrize("bits", [False, True])
def test_pieces_cut_time(bits: bool) -> None:
    dense = torch.from_numpy((np.random.default_rng(0).random((7, 3, 70)) < 0.3).astype(np.float32))
    parts = list(pieces(Spikes.pack(dense) if bits else dense, 3))
    assert [len(p) for p in parts] == [3, 3, 1]
    assert all(isinstance(p, Spikes) == bits for p in parts)
    assert torch.equal(torch.cat([p * 1 for p in parts]), dense)


@pytest.mark.parametrize("readout", ["sum", "max", "last"])
def test_truncated_gradients_are_those_of_the_pieces(readout: str) -> None:
    """By hand: step through time, cut the graph between pieces, add up the losses by their share of the steps."""
    net = SpikingNetwork(
        {"a": nn.Linear(6, 8), "n": Recurrent(LIF(0.8, surrogate="atan"), 8), "b": nn.Linear(8, 2), "o": LI(0.9)},
        input_shape=(6,), dt=1e-3, readout=readout,
    ).double()  # fmt: skip
    strong(net, 0.6)
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(10, 3, 6)))

    def loss_of(trace: Tensor, spikes: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return trace.square().mean(), spikes["n"].mean() * 0.3

    learnt = rule("bptt", truncate=4).backward(net, x, loss_of)
    found = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    n, o = net.layer("n"), net.layer("o")
    states: list[object] = [None, None]
    total, fired, seen = 0.0, 0.0, []
    for begin, end in ((0, 4), (4, 8), (8, 10)):
        trace, spikes = [], []
        for t in range(begin, end):
            s, states[0] = n.step(net.layer("a")(x[t]), states[0])
            y, states[1] = o.step(net.layer("b")(s), states[1])
            trace.append(y)
            spikes.append(s)
        error, penalty = loss_of(torch.stack(trace), {"n": torch.stack(spikes)})
        ((error + penalty) * (end - begin) / 10).backward()
        total += float(error.detach()) * (end - begin) / 10
        fired += float(torch.stack(spikes).detach().sum())
        seen += [y.detach() for y in trace]
        (inner, sent), out = states
        states = [(type(inner)(*(v.detach() for v in inner)), sent.detach()), type(out)(*(v.detach() for v in out))]
    for a, p in zip(found, net.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad, rtol=1e-9, atol=1e-12)
    assert learnt.loss == pytest.approx(total)
    assert learnt.fired == {"n": fired}
    assert fired > 20
    torch.testing.assert_close(learnt.scores, net.scores(torch.stack(seen)))


LONG = """
import sys
import numpy as np, torch
from torch import nn
from neuro.nn import LI, LIF, Recurrent, SpikingNetwork
from neuro.nn.spikes import Spikes
from neuro.learn import rule
torch.set_num_threads(1)
layers = {"a": nn.Linear(64, 128), "n": Recurrent(LIF(0.9), 128), "b": nn.Linear(128, 4), "o": LI(0.9)}
net = SpikingNetwork(layers, input_shape=(64,), dt=1e-3, readout="sum")
def loss_of(trace, spikes):
    return trace.square().mean(), torch.zeros(())
def sample(steps):
    words = np.random.default_rng(0).integers(0, 1 << 62, (steps * 8, 1)).astype(np.uint64)
    words &= np.uint64(0x1111111111111111)
    return Spikes(words, (steps, 8, 64))
rule("bptt", truncate=100).backward(net, sample(200), loss_of)  # compiled, and every buffer made once
def peak():  # of this program alone; ru_maxrss begins with that of the process it was forked from
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak()
found = rule("bptt", truncate=int(sys.argv[2])).backward(net, sample(int(sys.argv[1])), loss_of)
assert found.fired["n"] > 0
print(peak() - before)
"""


def grown(steps: int, truncate: int) -> int:
    """KiB by which the peak memory of a process rises when it trains on one long batch."""
    command = [sys.executable, "-c", LONG, str(steps), str(truncate)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout)


@pytest.mark.slow
def test_ten_thousand_steps_train_in_the_memory_of_a_thousand() -> None:
    """Peak memory in pieces of 100 steps: flat but for the input's bits. The whole sample shows what it would be."""
    grown(200, 100)  # compiles, which takes more memory than any of them
    short, long, whole = grown(1000, 100), grown(10_000, 100), grown(10_000, 0)
    assert long < short + 4096, (short, long)
    assert whole > 10 * (long + 1024), (long, whole)
