"""Convolution, norm and neurons in one call: the same as torch's convolution, its norm and a loop over steps."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuro.nn import LIF, CubaLIF, Dropout, ScaleNorm, conv_gradients, conv_layout
from neuro.nn.conv import run, run_on_grid
from neuro.nn.grid import Formats
from neuro.nn.joined import Carry, Chain
from neuro.nn.layers import Neuron
from neuro.nn.network import SpikingNetwork
from neuro.nn.spikes import Spikes
from neuro.nn.thinned import Thinned
from neuro.train.config import Format
from neuro.train.quantise_aware import prepare

CHANNELS, OUT = 4, 6
FORMATS = Formats(
    Format(8, -256, 254, 2), Format(8, -128, 127), Format(12, 0, 4095, 1, False), Format(17, 0, 131071, 1, False),
    Format(13, -4096, 4095),
)  # fmt: skip
STRIDES: list[Any] = [(1, (0, 0), 1), (2, (2, 1), 1), ((2, 3), (1, 2), (2, 1)), (1, (1, 1), (1, 2)), (4, 0, (1, 2))]
NORMS: dict[str, Any] = {
    "none": lambda: None,
    "batch": lambda: nn.BatchNorm2d(OUT),
    "bare": lambda: nn.BatchNorm2d(OUT, affine=False, track_running_stats=False),
    "mean": lambda: nn.BatchNorm2d(OUT, momentum=None),
    "scale": lambda: ScaleNorm(OUT, 0.7),
}
NEURONS: list[Any] = [
    lambda: LIF(0.8, v_threshold=0.3, surrogate="triangle", detach=True),
    lambda: LIF(0.9, v_threshold=0.2, v_reset=0.05, surrogate="atan"),
    lambda: CubaLIF(0.6, 0.8, v_threshold=0.3, gain=0.7, gain_syn=1.2, drive=0.02, reset="subtract"),
    lambda: LIF(0.8, v_threshold=0.3, surrogate="straight_through", reset="subtract", detach=True),
    lambda: LIF(0.8, v_threshold=0.3, surrogate="gaussian"),  # has no slope in the kernels
    lambda: LIF(0.8, v_threshold=0.3, learn=("beta", "v_threshold")),
    lambda: LIF(np.linspace(0.5, 0.9, OUT)[:, None, None], 0.3),
]


class _Pack(torch.autograd.Function):
    """Dense zeros and ones as `Spikes` that pass their gradient on."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return Spikes.pack(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


def made(norm: str, neurons: int, stride: Any = STRIDES[0], *, groups: int = 1, bias: bool = True) -> Chain:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        conv = nn.Conv2d(CHANNELS, OUT, (3, 2), *stride, groups, bias)
        chain = Chain(conv, NORMS[norm](), NEURONS[neurons]())
    for part in (conv, chain.norm, chain.neurons):
        if part is not None:
            part.double()
    return chain


def fired(steps: int, rate: float, dtype: torch.dtype = torch.float64) -> Tensor:
    rng = np.random.default_rng(3)
    return torch.from_numpy(rng.random((steps, 3, CHANNELS, 11, 9)) < rate).to(dtype)


def outcome(y: Tensor, x: Tensor, chain: Chain) -> list[Tensor]:
    """Spikes, all gradients and the norm's statistics."""
    rng = torch.Generator().manual_seed(1)
    (y * torch.randn(y.shape, generator=rng, dtype=y.dtype)).sum().backward()  # type: ignore[no-untyped-call]
    found = [y.detach() + 0.0, x.grad]
    for part in (chain.synapses, chain.norm, chain.neurons):
        if part is not None:
            found += [p.grad for p in part.parameters()]
    return [t for t in found if t is not None] + ([] if chain.norm is None else [*chain.norm.buffers()])


def by_steps(chain: Chain, x: Tensor) -> Tensor:
    current = chain.synapses(x.flatten(0, 1))
    current = (current if chain.norm is None else chain.norm(current)).unflatten(0, x.shape[:2])
    assert isinstance(chain.neurons, Neuron)
    state, found = None, []
    for now in current:
        s, state = chain.neurons.step(now, state)
        found.append(s)
    return torch.stack(found)


def check(chain: Chain, x: Tensor, make: Any = _Pack.apply) -> None:
    mine = copy.deepcopy(chain)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    y = run(mine, make(a), None)
    assert y is not None
    found, expected = outcome(y, a, mine), outcome(by_steps(chain, b), b, chain)
    assert torch.equal(found[0], expected[0])
    for got, want in zip(found, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11)


@pytest.fixture(params=["events", "places", "dense"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """By events however many, one by one or a place after the other, or by torch however few."""
    monkeypatch.setattr(conv_layout, "NS_DENSE", 0.0 if request.param == "dense" else 1e9)
    monkeypatch.setattr(conv_layout, "MANY", 0 if request.param == "places" else 1 << 30)
    return str(request.param)


@pytest.mark.parametrize("norm", list(NORMS))
@pytest.mark.parametrize("neurons", range(len(NEURONS)))
def test_gradients_are_those_of_the_step_loop(norm: str, neurons: int, path: str) -> None:
    for number, (stride, groups) in enumerate(itertools.product(STRIDES, (1, 2))):
        check(made(norm, neurons, stride, groups=groups, bias=number % 3 > 0), fired(5, 0.2))


@pytest.mark.parametrize(("steps", "rate"), [(1, 0.3), (4, 0.0), (4, 1.0)])
@pytest.mark.parametrize("norm", ["none", "batch", "scale"])
def test_one_step_silence_and_every_neuron_at_once(steps: int, rate: float, norm: str, path: str) -> None:
    check(made(norm, 1, STRIDES[1]), fired(steps, rate))


def test_neurons_that_fire_by_themselves_have_no_neighbours_behind_the_last(path: str) -> None:
    """Rows are no multiple of what runs at once: who is only there to fill it up must not be heard."""
    chain = made("none", 0)
    chain = Chain(chain.synapses, None, LIF(0.8, v_threshold=0.3, drive=1.0, surrogate="atan").double())
    assert 6 * 9 * 8 % 64
    check(chain, fired(4, 0.0))


def test_values_that_are_not_spikes() -> None:
    check(made("batch", 0), torch.randn((4, 3, CHANNELS, 11, 9), dtype=torch.float64), lambda x: x)


@pytest.mark.parametrize("norm", ["batch", "mean", "scale"])
def test_a_norm_in_evaluation_uses_what_it_has_seen(norm: str, path: str) -> None:
    chain = made(norm, 0)
    chain.synapses.requires_grad_(True)
    run(chain, Spikes.pack(fired(4, 0.3)), None)
    assert chain.norm is not None
    chain.norm.eval()
    check(chain, fired(5, 0.15))


def test_few_events_and_many_take_their_own_ways() -> None:
    chain = made("none", 0)
    conv = chain.synapses
    lay = conv_layout.Layout.of(conv, (5, 3, CHANNELS, 11, 9))  # type: ignore[arg-type]
    few, many = (Spikes.pack(fired(5, rate)) for rate in (0.01, 0.9))
    assert lay.sparse(few, 144)
    assert not lay.sparse(many, 144)


def results(threads: int, rate: float) -> list[Tensor]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            chain = Chain(nn.Conv2d(16, 32, 3, 1, 1), nn.BatchNorm2d(32), LIF(0.8, 0.5))
        rng = np.random.default_rng(0)
        x = torch.from_numpy((rng.random((6, 7, 16, 20, 20)) < rate).astype(np.float32)).requires_grad_()
        y = run(chain, _Pack.apply(x), None)
        assert y is not None
        return outcome(y, x, chain)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("rate", [0.05, 0.6])
def test_the_number_of_threads_does_not_show(rate: float) -> None:
    one = results(1, rate)
    for threads in (2, 3):
        assert all(torch.equal(a, b) for a, b in zip(one, results(threads, rate), strict=True))


def test_rows_too_far_apart_for_32_bits_go_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    by_sample = results(2, 0.05)
    monkeypatch.setattr(conv_gradients, "FAR", 0)
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(conv_gradients, "by_sample", lambda *sizes: asked.append(sizes))
    for a, b in zip(by_sample, results(2, 0.05), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)  # another order of sums, in float32
    assert not asked


def test_a_sample_in_pieces_is_the_sample(path: str) -> None:
    chain, x = made("none", 2), fired(9, 0.2)
    whole = run(chain, Spikes.pack(x), None)
    carry = Carry()
    parts = [run(chain, Spikes.pack(part), carry) for part in x.split(4)]
    assert whole is not None
    assert torch.equal(whole + 0.0, torch.cat([p + 0.0 for p in parts if p is not None]))


def test_what_dropout_leaves_of_spikes(path: str) -> None:
    dropout = Dropout(0.4)

    def thinned(x: Tensor) -> Tensor:
        dropout.generator = torch.Generator().manual_seed(5)
        return dropout(_Pack.apply(x))

    x = fired(5, 0.4)
    assert isinstance(thinned(x), Thinned)
    mine, chain = made("batch", 0), made("batch", 0)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    y = run(mine, thinned(a), None)
    assert y is not None
    dropout.generator = torch.Generator().manual_seed(5)
    dense = dropout(b)
    assert torch.equal(thinned(x) + 0.0, dense)
    for got, want in zip(outcome(y, a, mine), outcome(by_steps(chain, dense), b, chain), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11)


def test_what_it_does_not_know_it_declines() -> None:
    x, chain = Spikes.pack(fired(3, 0.2)), made("batch", 0)
    other = Chain(nn.Conv2d(CHANNELS, OUT, 3, padding=1, padding_mode="circular").double(), None, chain.neurons)
    assert run(other, x, None) is None
    assert run(Chain(nn.Conv2d(CHANNELS, OUT, 3, padding="same").double(), None, chain.neurons), x, None) is None
    assert run(Chain(nn.Conv2d(CHANNELS, OUT, 12).double(), None, chain.neurons), x, None) is None
    meta = Chain(nn.Conv2d(CHANNELS, OUT, 3, device="meta"), None, chain.neurons)
    assert run(meta, torch.zeros((3, 2, CHANNELS, 9, 9), device="meta"), None) is None


def network(dtype: torch.dtype = torch.float32) -> SpikingNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers: dict[str, nn.Module] = {
            "conv": nn.Conv2d(CHANNELS, OUT, 3, 2, bias=False),
            "lif": LIF(0.8, v_threshold=0.3),
        }
    return SpikingNetwork(layers, input_shape=(CHANNELS, 11, 9), dt=1e-3).to(dtype)


def test_a_network_runs_it() -> None:
    net, x = network(), fired(5, 0.2, torch.uint8)
    y = net(x)
    assert isinstance(y, Spikes)
    chain = Chain(net.layer("conv"), None, net.layer("lif"))
    assert torch.equal(y + 0.0, by_steps(chain, x.float()))


def test_on_a_grid_the_integers_are_exact() -> None:
    net = network()
    prepare(net, FORMATS, True, 5)
    chain, x = Chain(net.layer("conv"), None, net.layer("lif")), fired(5, 0.2, torch.float32)
    y = run_on_grid(chain, Spikes.pack(x), None)
    dense = net.layer("lif")(net.layer("conv")(x.flatten(0, 1)).unflatten(0, x.shape[:2]))
    assert y is not None
    assert torch.equal(y + 0.0, dense + 0.0)
