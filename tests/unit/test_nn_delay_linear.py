"""Learnable delays: by hand, against plain torch, numerically, in pieces, rounded, over threads and devices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuro import ir, reference
from neuro.errors import NetworkError, UnsupportedLayer
from neuro.nn import LI, LIF, DelayedLinear, DelayLinear, SpikingNetwork, delay_events, to_network
from neuro.nn.delay import Delay, Taps
from neuro.nn.joined import Carry
from neuro.nn.spikes import Spikes

D = torch.float64


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def sparse(*shape: int, rate: float = 0.1, seed: int = 0, dtype: torch.dtype = D) -> Spikes:
    rng = np.random.default_rng(seed)
    return Spikes.pack(torch.from_numpy((rng.random(shape) < rate).astype(np.uint8)), dtype)


def made(n: int, out: int, longest: int, seed: int = 0, dtype: torch.dtype = D, **options: object) -> DelayLinear:
    layer = DelayLinear(n, out, longest, **options).to(dtype)  # type: ignore[arg-type]
    with torch.no_grad():
        layer.weight.copy_(noise(out, n, seed=seed))
        shape = tuple(layer.delay.shape)
        layer.delay.copy_((noise(*shape, seed=seed + 1).abs() * longest / 2).clamp(max=longest - 0.25))
    return layer


def interpolated(x: Tensor, weight: Tensor, delay: Tensor) -> Tensor:
    """The equation, synapse by synapse. x: [time, batch, in]."""
    rows = []
    for o in range(len(weight)):
        y = torch.zeros_like(x[..., 0])
        for i in range(x.shape[2]):
            d = delay[o, i]
            k = int(d.detach().floor())
            f, s = d - k, x[..., i]
            late = [torch.cat([torch.zeros_like(s[:j]), s[: len(s) - j]])[: len(s)] for j in (k, k + 1)]
            y = y + weight[o, i] * ((1 - f) * late[0] + f * late[1])
        rows.append(y)
    return torch.stack(rows, -1)


def gradients(layer: DelayLinear, x: Tensor, y: Tensor) -> list[Tensor]:
    wanted = [x, layer.weight, layer.delay]
    return list(torch.autograd.grad((y * noise(*y.shape, seed=9).to(y.dtype)).sum(), wanted))


@pytest.fixture
def by_events(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whatever the rate, events; the list says that they ran."""
    ran: list[bool] = []
    apply = delay_events._Late.apply

    def watched(*args: object) -> Tensor:
        ran.append(True)
        return apply(*args)

    monkeypatch.setattr(delay_events, "EVENT", 0.0)
    monkeypatch.setattr(delay_events._Late, "apply", watched)
    return ran


def test_by_hand() -> None:
    layer = DelayLinear(2, 1, 3, bias=True).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[4.0, 10.0]]))
        layer.delay.copy_(torch.tensor([[0.25, 2.0]]))
        layer.bias.copy_(torch.tensor([0.5]))  # type: ignore[union-attr]
    x = torch.tensor([[1.0, 1.0], [0, 0], [0, 0], [1.0, 0]], dtype=D).unsqueeze(1)
    assert layer(x)[:, 0, 0].tolist() == [3.5, 1.5, 10.5, 3.5]
    assert layer(Spikes.pack(x))[:, 0, 0].tolist() == [3.5, 1.5, 10.5, 3.5]


@pytest.mark.parametrize("kind", ["synaptic", "axonal", "dendritic"])
@pytest.mark.parametrize("form", ["bits", "dense", "graded"])
def test_events_compute_the_equation_and_its_gradients(by_events: list[bool], kind: str, form: str) -> None:
    layer = made(70, 9, 6, kind=kind)
    spikes = sparse(40, 3, 70)
    x = spikes.detach() if form == "bits" else spikes.dense() * (noise(40, 3, 70) if form == "graded" else 1.0)
    x.requires_grad_()
    found = layer(x)
    assert by_events == [True]
    dense = (x.detach().dense() if isinstance(x, Spikes) else x.detach()).requires_grad_()
    expected = interpolated(dense, layer.weight, layer.delay.expand(9, 70))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(gradients(layer, x, found), gradients(layer, dense, expected), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


def test_matrix_products_compute_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = made(20, 7, 5), sparse(30, 2, 20)
    found = []
    for price in (0.0, 1e9):
        monkeypatch.setattr(delay_events, "EVENT", price)
        into = x.detach().requires_grad_()
        y = layer(into)
        found.append([y, *gradients(layer, into, y)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("density", [0.3, 1.0])
def test_gradients_are_the_differences(density: float) -> None:
    """Numerically, away from whole delays, where the line has a corner."""
    layer = made(3, 2, 4)
    delay = (
        torch.rand(2, 3, dtype=D, generator=torch.Generator().manual_seed(1)) * 0.8 + 0.1 + noise(2, 3).abs().floor()
    )
    x = noise(7, 2, 3) * (torch.rand(7, 2, 3, generator=torch.Generator().manual_seed(2)) < density)

    def run(x: Tensor, weight: Tensor, delay: Tensor) -> Tensor:
        return delay_events.late(x, weight, delay, layer.max_delay)

    leaves = [p.detach().clone().requires_grad_() for p in (x, layer.weight, delay)]
    for price in (0.0, 1e9):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(delay_events, "EVENT", price)
            # the gradient to silent inputs is asked for too: a difference makes them events
            assert torch.autograd.gradcheck(run, tuple(leaves))


@pytest.mark.parametrize("dtype", [torch.float32, D])
@pytest.mark.parametrize(("steps", "longest", "out"), [(700, 5, 3), (90, 300, 40), (3, 9, 130), (400, 60, 65)])
def test_long_samples_and_long_delays(
    by_events: list[bool], steps: int, longest: int, out: int, dtype: torch.dtype
) -> None:
    """Several tiles of time, delays beyond the sample, more targets than a block and not a multiple of it."""
    layer = made(12, out, longest, dtype=dtype)
    with torch.no_grad():
        layer.delay[0, :2] = torch.tensor([0.0, float(longest)])
    x = sparse(steps, 2, 12, rate=0.2, dtype=dtype).requires_grad_()
    y = layer(x)
    dense = x.detach().double().requires_grad_()
    expected = delay_events.by_steps(dense, layer.weight.double(), layer.delay.double())
    tolerance = 1e-4 if dtype == torch.float32 else 1e-11
    torch.testing.assert_close(y.double(), expected, rtol=tolerance, atol=tolerance)
    for ours, theirs in zip(gradients(layer, x, y), gradients(layer, dense, expected), strict=True):
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=tolerance, atol=tolerance)


def test_the_number_of_threads_changes_nothing(by_events: list[bool]) -> None:
    layer = made(150, 100, 8, dtype=torch.float32)
    x = sparse(60, 8, 150, rate=0.2, dtype=torch.float32).requires_grad_()
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            y = layer(x)
            found.append([y, *gradients(layer, x, y)])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            assert torch.equal(a, b)


def test_silence_and_a_sample_of_no_batch() -> None:
    layer = made(5, 4, 3)
    x = Spikes.pack(torch.zeros(6, 2, 5, dtype=torch.uint8), D).requires_grad_()
    y = layer(x)
    assert not y.any()
    d_x, d_w, d_d = gradients(layer, x, y)
    assert d_x.shape == x.shape
    assert not d_w.any()
    assert not d_d.any()
    assert layer(torch.zeros(0, 2, 5, dtype=D)).shape == (0, 2, 4)


@pytest.mark.parametrize("bits", [True, False])
@pytest.mark.parametrize("events", [True, False])
def test_a_long_sample_in_pieces(monkeypatch: pytest.MonkeyPatch, bits: bool, events: bool) -> None:
    monkeypatch.setattr(delay_events, "EVENT", 0.0 if events else 1e9)
    steps = np.random.default_rng(0).integers(0, 7, (4, 11))
    spikes = sparse(30, 2, 11)
    for layer in (
        made(11, 4, 6, bias=True),
        DelayedLinear(steps, bias=True).double(),
        Delay(steps[0]),
        Taps((0, 5), 11),
    ):
        x = spikes if bits else spikes.dense()
        carry, found, at = Carry(), [], 0
        for length in (1, 2, 9, 18):  # shorter and longer than the delays
            words = spikes.words[at * 2 : (at + length) * 2]
            found.append(layer.resume(Spikes(words, (length, 2, 11), D) if bits else x[at : at + length], carry))
            at += length
        assert not carry.value.requires_grad
        assert len(carry.value) <= 7
        torch.testing.assert_close(torch.cat(found), layer(x))


def test_gradients_of_a_piece_know_what_arrives_from_the_last_one(by_events: list[bool]) -> None:
    layer, x = made(6, 5, 4), noise(12, 2, 6)
    carry = Carry()
    layer.resume(x[:7], carry)
    second = x[7:].clone().requires_grad_()
    found = gradients(layer, second, layer.resume(second, carry))
    into = x[7:].clone().requires_grad_()
    whole = interpolated(torch.cat([x[:7], into]), layer.weight, layer.delay)[7:]
    for ours, theirs in zip(found, gradients(layer, into, whole), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


def test_one_step_at_a_time() -> None:
    layer, x = made(6, 5, 4, bias=True), sparse(15, 2, 6, rate=0.3)
    state, found = None, []
    for now in x.dense():
        y, state = layer.step(now, state)
        found.append(y)
    torch.testing.assert_close(torch.stack(found), layer(x))


def test_rounding_computes_what_the_rounded_layer_does() -> None:
    for kind in ("synaptic", "axonal", "dendritic"):
        layer = made(9, 5, 6, bias=True, kind=kind)
        with torch.no_grad():
            layer.delay[0, 0] = 11.0  # beyond the bound
        x = sparse(20, 2, 9, rate=0.3)
        twin = layer.rounded()
        assert twin.get_buffer("delay_steps").shape == (5, 9)
        assert int(twin.get_buffer("delay_steps").max()) == 6
        assert not torch.allclose(layer(x), twin(x))
        layer.rounding = True
        torch.testing.assert_close(layer(x), twin(x))
        assert layer.weight.data_ptr() != twin.weight.data_ptr()


def test_rounding_and_bounds_let_the_gradient_through() -> None:
    layer, x = made(9, 5, 6, rounding=True), sparse(20, 2, 9, rate=0.3)
    with torch.no_grad():
        layer.delay[0, 0], layer.delay[1, 1] = 7.5, -0.5
    used = layer.steps()
    assert used[0, 0] == 6
    assert used[1, 1] == 0
    assert torch.equal(used, used.round())
    y = layer(x)
    into = x.dense().requires_grad_()
    exact = layer.steps().detach().requires_grad_()
    expected = torch.autograd.grad(interpolated(into, layer.weight, exact).square().sum(), exact)[0]
    torch.testing.assert_close(torch.autograd.grad(y.square().sum(), layer.delay)[0], expected)
    assert expected[0, 0] != 0
    layer.clamp_()
    assert layer.delay.min() >= 0
    assert layer.delay.max() <= 6


def test_a_delay_is_learnt() -> None:
    """Two sources, a burst each: the delays that bring both bursts to one time."""
    torch.manual_seed(0)
    x = torch.zeros(40, 1, 2, dtype=D)
    x[4:7, 0, 0], x[14:17, 0, 1] = 1.0, 1.0
    goal = torch.zeros(40, 1, 1, dtype=D)
    goal[16:19] = 2.0
    layer = DelayLinear(2, 1, 20).double()
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.delay.copy_(torch.tensor([[10.3, 3.4]]))
    optimiser = torch.optim.Adam([layer.delay], 0.1)
    for _ in range(120):
        optimiser.zero_grad()
        (layer(Spikes.pack(x)) - goal).square().sum().backward()
        optimiser.step()
        layer.clamp_()
    assert layer.delay.detach().round().tolist() == [[12.0, 2.0]]


def test_other_devices_take_torch() -> None:
    layer = DelayLinear(5, 4, 3).to("meta")
    assert layer(torch.empty(6, 2, 5, device="meta")).shape == (6, 2, 4)
    fixed = DelayedLinear(np.zeros((4, 5), int)).to("meta")
    assert fixed(torch.empty(6, 2, 5, device="meta")).shape == (6, 2, 4)


def test_a_network_with_delays_becomes_one_for_chips() -> None:
    net = SpikingNetwork(
        {"a": made(6, 5, 4), "b": LIF(0.8), "c": nn.Linear(5, 3), "d": LI(0.9)},
        input_shape=(6,),
        dt=1e-3,
        readout="sum",
    ).double()
    with pytest.raises(UnsupportedLayer, match="rounded"):
        to_network(net)
    net.layer("a").rounding = True  # type: ignore[assignment]
    network = to_network(net)
    assert isinstance(network.nodes["a"], ir.Linear)
    x = sparse(20, 2, 6, rate=0.3)
    seen = reference.run(network, x.dense().numpy()).answers["output"]
    np.testing.assert_allclose(net(x).detach(), seen, atol=1e-9)
    net.replace("a", net.layer("a").rounded())  # type: ignore[operator]
    np.testing.assert_allclose(net(x).detach(), seen, atol=1e-9)


@pytest.mark.parametrize(("options", "word"), [({"max_delay": 0}, "max_delay"), ({"max_delay": 2.5}, "max_delay"),
    ({"in_features": 0}, "sizes"), ({"kind": "somatic"}, "kind")])  # fmt: skip
def test_what_cannot_be_built(options: dict[str, object], word: str) -> None:
    given = {"in_features": 3, "out_features": 2, "max_delay": 4} | options
    with pytest.raises(NetworkError, match=word):
        DelayLinear(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize("events", [True, False])
def test_whole_delays_by_events(monkeypatch: pytest.MonkeyPatch, events: bool) -> None:
    monkeypatch.setattr(delay_events, "EVENT", 0.0 if events else 1e9)
    steps = np.random.default_rng(1).integers(0, 9, (20, 33))
    layer = DelayedLinear(steps, bias=True)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.random.default_rng(2).integers(-99, 99, (20, 33))))
    x = sparse(25, 3, 33, rate=0.2, dtype=torch.float32).requires_grad_()
    y = layer(x)
    expected = np.zeros((25, 3, 20))
    dense = x.detach().numpy()
    for o, i in np.ndindex(20, 33):
        d = steps[o, i]
        expected[d:, :, o] += layer.weight[o, i].item() * dense[: 25 - d, :, i]
    assert np.array_equal(y.detach(), expected)  # integers add up without rounding
    y.square().sum().backward()
    reference_x = x.detach().dense().requires_grad_()
    weight = layer.weight.detach().clone().requires_grad_()
    delay_events.by_steps(reference_x, weight, torch.from_numpy(steps)).square().sum().backward()
    torch.testing.assert_close(x.grad, reference_x.grad)
    torch.testing.assert_close(layer.weight.grad, weight.grad)
