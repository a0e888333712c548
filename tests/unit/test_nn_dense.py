"""A Linear and its neurons as one call: the same values and gradients as a plain loop over time."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuro.nn import crossover, dense, kernels
from neuro.nn.joined import Carry
from neuro.nn.layers import IF, LI, LIF, CubaLI, CubaLIF, Neuron
from neuro.nn.masked import MaskedLinear
from neuro.nn.network import SpikingNetwork
from neuro.nn.spikes import Spikes
from neuro.nn.surrogate import SURROGATES, surrogate

D = torch.float64
FAN_IN = 90


def neurons(cls: type[Neuron], n: int, reset: str = "hard", detach: bool = False, learn: bool = False,
            name: object = "atan") -> Neuron:  # fmt: skip
    names = (["beta"] * cls.leaky + ["alpha"] * cls.synapse + ["v_threshold"] * cls.spiking) * learn
    options = {"v_threshold": np.linspace(0.7, 1.3, n), "v_reset": -0.1} if cls.spiking else {}
    if cls.leaky:
        options["beta"] = np.linspace(0.5, 0.95, n)
    function = surrogate(name, 2.0) if isinstance(name, str) else name
    return cls(reset=reset, detach=detach, surrogate=function, learn=tuple(names), **options).double()


def matrix(n: int, fan_in: int = FAN_IN, bias: bool = True) -> nn.Linear:
    layer = nn.Linear(fan_in, n, bias).double()
    rng = np.random.default_rng(n)
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.from_numpy(rng.normal(size=tuple(p.shape)) * 0.4))
    return layer


def events(steps: int, batch: int, rate: float, fan_in: int = FAN_IN, dtype: torch.dtype = D) -> Tensor:
    return torch.from_numpy(np.random.default_rng(steps).random((steps, batch, fan_in)) < rate).to(dtype)


def both(layer: Neuron, linear: nn.Linear, x: Tensor) -> list[list[Tensor]]:
    """[output, gradients of x, weight, bias, learnt parameters] of the fused call and of the plain loop."""
    n = linear.weight.shape[0]
    upstream = torch.from_numpy(np.random.default_rng(7).normal(size=(*x.shape[:2], n))).to(x.dtype)
    found = []
    for fused in (True, False):
        layer.zero_grad()
        linear.zero_grad()
        given = x.clone().requires_grad_()
        if fused:
            y = dense.run(given, linear.weight, linear.bias, layer)
            assert isinstance(y, Spikes) == layer.spiking
        else:
            state, steps = None, []
            for t in range(len(x)):
                out, state = layer.step(linear(given[t]), state)
                steps.append(out)
            y = torch.stack(steps)
        y.backward(upstream)
        parameters = [p.grad.clone() for m in (linear, layer) for p in m.parameters()]
        found.append([y.detach() + 0, given.grad, *parameters])
    return found


def assert_same(found: list[list[Tensor]]) -> None:
    for fast, plain in zip(*found, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-9, atol=1e-10)


MODELS = [
    (cls, reset, detach, learn)
    for cls, reset, detach, learn in itertools.product(
        (IF, LIF, CubaLIF, LI, CubaLI), ("hard", "subtract"), (False, True), (False, True)
    )
    if cls.spiking or (reset == "hard" and not detach)
]


@pytest.mark.parametrize("rate", [0.1, 0.8])
@pytest.mark.parametrize(("cls", "reset", "detach", "learn"), MODELS)
def test_every_model_by_events_and_dense(cls: type[Neuron], reset: str, detach: bool, learn: bool, rate: float) -> None:
    found = both(neurons(cls, 70, reset, detach, learn), matrix(70), events(9, 3, rate))
    if cls.spiking:
        assert 0.02 < found[0][0].mean() < 0.9, "the case must spike to mean anything"
    assert_same(found)


@pytest.mark.parametrize("rate", [0.1, 0.8])
@pytest.mark.parametrize("name", [*SURROGATES, lambda x: torch.sigmoid(5 * x).round() + 0 * x])
def test_every_surrogate(name: object, rate: float) -> None:
    if not isinstance(name, str):
        name = surrogate(_Foreign.apply)  # type: ignore[arg-type]
    assert_same(both(neurons(LIF, 70, "subtract", name=name), matrix(70), events(6, 2, rate)))


class _Foreign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)  # type: ignore[attr-defined]
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> Tensor:
        return grads[0] * torch.exp(-ctx.saved_tensors[0].abs())  # type: ignore[attr-defined]


SHAPES = [  # steps, batch, neurons, inputs
    (1, 1, 1, 1), (1, 5, 64, 64), (4, 1, 65, 17), (3, 9, 20, 33), (2, 3, 300, 16), (700, 5, 3, 15), (2, 2, 128, 700),
]  # fmt: skip


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.2, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_and_rate(shape: tuple[int, int, int, int], rate: float) -> None:
    """Blocks that are not full, one step, one sample, several groups of samples, rows without events."""
    steps, batch, n, fan_in = shape
    layer = neurons(CubaLIF, n, learn=True)
    assert_same(both(layer, matrix(n, fan_in, bias=n != 65), events(steps, batch, rate, fan_in)))


def test_floats_that_are_no_spikes() -> None:
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(5, 3, FAN_IN))) * 0.3
    assert_same(both(neurons(LIF, 70, learn=True), matrix(70), x))


def test_chunks_of_steps_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "CHUNK", 300)
    layer, linear, x = neurons(CubaLIF, 70, learn=True), matrix(70), events(9, 3, 0.8)
    assert_same(both(layer, linear, x))
    with torch.no_grad():
        y = dense.run(x, linear.weight, linear.bias, layer)
    assert torch.equal(y, dense.run(x, linear.weight, linear.bias, layer))


def test_the_paths_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, linear, x = neurons(LIF, 70, learn=True), matrix(70), events(9, 3, 0.2)
    sparse = both(layer, linear, x)[0]
    monkeypatch.setattr(crossover, "R", -1.0)
    assert_same([sparse, both(layer, linear, x)[0]])


@pytest.mark.parametrize("cls", [LIF, CubaLIF, LI])
@pytest.mark.parametrize("rate", [0.1, 0.8])
def test_threads_do_not_change_a_bit(cls: type[Neuron], rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "WORTH_A_THREAD", 1)
    found = []
    for n in (20, 130, 300):
        layer, linear, x = neurons(cls, n, learn=True).float(), matrix(n).float(), events(9, 7, rate).float()
        for threads in (1, 2, 3):
            monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
            found.append(both(layer, linear, x)[0])
        first, *others = found[-3:]
        assert all(torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("cls", [IF, LIF, CubaLIF, LI, CubaLI])
@pytest.mark.parametrize("rate", [0.1, 0.8])
def test_pieces_are_the_whole(cls: type[Neuron], rate: float) -> None:
    """Bits forwards; gradients of a piece are those of the neurons behind a given current, in pieces."""
    layer, linear, x = neurons(cls, 70, learn=True), matrix(70), events(11, 3, rate)
    carry, other = Carry(), Carry()
    whole = dense.run(x, linear.weight, linear.bias, layer)
    parts = []
    for piece in x.split((3, 1, 7)):
        gradients = []
        for run in (
            lambda: dense.run(piece, linear.weight, linear.bias, layer, carry),  # noqa: B023
            lambda: layer.resume(linear(piece), other),  # noqa: B023
        ):
            layer.zero_grad()
            linear.zero_grad()
            y = run()
            (y * torch.linspace(-1, 1, y.numel(), dtype=D).view(y.shape)).sum().backward()
            gradients.append([y.detach() + 0, *(p.grad.clone() for m in (linear, layer) for p in m.parameters())])
        assert_same(gradients)
        parts.append(gradients[0][0])
    torch.testing.assert_close(torch.cat(parts), whole.detach() + 0, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(carry.value.v, other.value.v, rtol=1e-12, atol=1e-12)


def test_only_lists_of_events_are_kept() -> None:
    """By events nothing of the size of the activity outlives the forward pass."""
    layer, linear, x = neurons(LIF, 256), matrix(256), Spikes.pack(events(40, 4, 0.05))
    sizes: list[int] = []

    def pack(kept: Tensor) -> Tensor:
        sizes.append(kept.numel())
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept):
        y = dense.run(x, linear.weight, linear.bias, layer)
    assert sorted(sizes) == [0, linear.weight.numel()]
    lists = y.grad_fn.lists  # type: ignore[union-attr]
    kept = lists.start.nbytes + lists.index.nbytes + y.words.nbytes  # type: ignore[attr-defined]
    assert kept <= y.numel() + x.numel()


def test_a_second_backward_pass_is_the_same() -> None:
    for rate in (0.1, 0.8):
        layer, linear = neurons(LIF, 70, learn=True), matrix(70)
        y = dense.run(events(9, 3, rate), linear.weight, linear.bias, layer)
        grads = [torch.autograd.grad(y.sum(), list(linear.parameters()), retain_graph=True) for _ in range(2)]
        assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_a_network_runs_its_chains_as_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linear and masked ones, up to the readout; the same scores and gradients layer by layer."""
    first, second = matrix(70), MaskedLinear(70, 10, True, 16).double()
    with torch.no_grad():
        second.weight.copy_(torch.from_numpy(np.random.default_rng(5).normal(size=(10, 70))))
    layers = {"a": first, "b": neurons(LIF, 70), "c": second, "d": LI(0.8).double()}
    net = SpikingNetwork(layers, input_shape=(FAN_IN,), dt=1e-3, readout="sum")
    x = events(9, 3, 0.1)
    calls, found = [], []
    for name in ("run", "by_events"):  # by itself, and as part of a series
        once = getattr(dense, name)
        monkeypatch.setattr(dense, name, lambda *given, once=once: calls.append(1) or once(*given))
    for fused in (True, False):
        if not fused:  # a layer that somebody watches runs by itself
            for layer in layers.values():
                layer.register_forward_hook(lambda *_: None)
        net.zero_grad()
        scores = net.scores(net(x))
        scores.square().sum().backward()
        found.append([scores.detach(), *(p.grad.clone() for p in net.parameters())])
    assert len(calls) == 2
    assert_same(found)


def test_what_is_declined_runs_layer_by_layer() -> None:
    """Inputs with more axes than one; autocast; a norm between: never a wrong answer, never an error."""
    linear, layer = nn.Linear(6, 5), LIF(0.9)
    net = SpikingNetwork({"a": linear, "b": layer}, input_shape=(4, 6), dt=1e-3)
    x = torch.rand(3, 2, 4, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(net(x), layer(linear(x)))
    normed = SpikingNetwork({"a": linear, "n": nn.BatchNorm1d(5), "b": layer}, input_shape=(6,), dt=1e-3)
    assert normed(x[:, :, 0]).shape == (3, 2, 5)
    flat = SpikingNetwork({"a": linear, "b": LI(0.9)}, input_shape=(6,), dt=1e-3, readout="sum")
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(flat(x[:, :, 0])).all()


def test_a_silent_network_stays_silent() -> None:
    y = dense.run(torch.zeros(50, 2, FAN_IN, dtype=D), matrix(70, bias=False).weight, None, neurons(LIF, 70))
    assert y.sum() == 0
