"""Delta, sigma-delta, integrator and ternary layers: the step loop, the reference, what they mean, chips."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuro import reference
from neuro.errors import NetworkError, UnsupportedNode
from neuro.hardware.compile import compile as compile_network
from neuro.hardware.target import targets
from neuro.nn import Delta, I, SigmaDelta, SpikingNetwork, TernaryLIF, to_module, to_network
from neuro.nn.held import Held
from neuro.nn.joined import Carry
from neuro.nn.plain import forced
from neuro.train.build import build

D = torch.float64
NEURONS = {
    **{f"delta {c}": lambda c=c: Delta(0.7, cumulative=c) for c in (False, True)},
    **{
        f"sigma {a} {c}": lambda a=a, c=c: SigmaDelta(
            0.7, np.linspace(-0.2, 0.3, 5), activation=a, cumulative=c, learn=("bias",)
        )
        for a, c in itertools.product(("relu", "identity"), (False, True))
    },
    "integrator": lambda: I(np.linspace(0.5, 1.5, 5)),
    "ternary": lambda: TernaryLIF(
        0.9, np.linspace(0.7, 1.1, 5), -0.6, v_reset=0.1, gain=0.9, drive=0.05, surrogate="atan",
        learn=("beta", "v_threshold", "v_threshold_low"),
    ),
}  # fmt: skip


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def stepped(one: Held, x: Tensor) -> tuple[Tensor, Tensor]:
    sent, v, state = [], [], None
    for current in x:
        y, state = one.step(current, state)
        sent.append(y)
        v.append(one.membrane(state))
    return torch.stack(sent), torch.stack(v)


@pytest.mark.parametrize("name", NEURONS)
def test_compiled_equals_the_step_loop(name: str) -> None:
    """Messages, membrane and every gradient, against plain autograd through the steps."""
    one = NEURONS[name]().double()
    x, found = drawn(23, 3, 5).requires_grad_(), []
    up_s, up_v = drawn(23, 3, 5, seed=2), drawn(23, 3, 5, seed=3)
    for run in (one.with_membrane, lambda given: stepped(one, given)):
        one.zero_grad()
        x.grad = None
        sent, v = run(x)
        ((sent * up_s).sum() + (v * up_v).sum()).backward()
        found.append([sent.detach(), v.detach(), x.grad, *(p.grad for p in one.parameters())])
    assert found[0][0].abs().mean() > 0.05
    for fast, plain in zip(*found, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", NEURONS)
def test_the_reference_step_for_step(name: str) -> None:
    one = NEURONS[name]()
    module = SpikingNetwork({"n": one}, input_shape=(5,), dt=1e-3, readout="sum").double()
    net = to_network(module)
    x = np.random.default_rng(4).normal(size=(40, 3, 5))
    expected = reference.run(net, x, record=("sent", "v"))
    sent, v = one.with_membrane(torch.from_numpy(x))
    exact = "ternary" not in name  # its time constant crosses as seconds
    for ours, theirs in (
        (sent, expected.sent["n"]),
        (v, expected.v["n"]),
        (module(torch.from_numpy(x)), expected.v["n"]),
    ):
        np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=0, atol=0 if exact else 1e-12)
    again = to_module(net, D)
    assert type(again.layer("n")) is type(one)
    back = to_network(again).nodes["n"]
    for field, value in vars(net.nodes["n"]).items():
        same = np.testing.assert_allclose if isinstance(value, np.ndarray) else np.testing.assert_equal
        same(getattr(back, field), value)


@pytest.mark.parametrize("name", NEURONS)
def test_pieces_and_the_plain_path_are_the_whole(name: str) -> None:
    one, x, carry = NEURONS[name]().double(), drawn(11, 3, 5, seed=4), Carry()
    whole = one(x).detach()
    assert torch.equal(torch.cat([one.resume(part, carry).detach() for part in x.split((3, 1, 7))]), whole)
    with forced():
        assert torch.equal(one(x).detach(), whole)


def chain(theta: float = 0.0) -> SpikingNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        layers = {"encode": Delta(theta), "w1": nn.Linear(6, 8, False),
                  "h": SigmaDelta(theta, np.linspace(-0.5, 0.5, 8), learn=("bias",)),
                  "w2": nn.Linear(8, 3, False), "out": I()}  # fmt: skip
    return SpikingNetwork(layers, input_shape=(6,), dt=1e-3, readout="last", high=9).double()


def test_at_threshold_zero_it_is_the_network_of_its_activation_gradients_too() -> None:
    """What a rectifier network computes of the last input: values and gradients of all weights."""
    net = chain()
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 10, (12, 4, 6))).double()
    w1, w2, h = net.layer("w1"), net.layer("w2"), net.layer("h")
    upstream, found = drawn(4, 3), []
    for run in (lambda: net(x)[-1], lambda: torch.relu(x[-1] @ w1.weight.T + h.value("bias")) @ w2.weight.T):
        net.zero_grad()
        y = run()
        y.backward(upstream)
        found.append([y.detach(), *(p.grad for p in net.parameters())])
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-9)


def test_a_threshold_saves_messages() -> None:
    x = torch.from_numpy(np.cumsum(np.random.default_rng(0).normal(0, 0.2, (50, 2, 6)), 0))
    counts = [int((chain(theta).layer("encode")(x) != 0).sum()) for theta in (0.0, 0.5)]
    assert counts[0] == x.numel()
    assert counts[1] < 0.5 * counts[0]


@pytest.mark.parametrize("chip", targets())
def test_loihi2_takes_them_and_no_other_chip(chip: str) -> None:
    net = to_network(chain(0.5))
    if chip == "loihi2":
        program = compile_network(net, chip, readout_headroom=0.1)
        assert {p.model for p in program.populations.values()} == {"input", "delta", "sigma_delta", "sigma"}
    else:
        with pytest.raises(UnsupportedNode, match="SigmaDelta"):
            compile_network(net, chip)


def test_configurations() -> None:
    rows = (
        {"type": "delta", "v_threshold": 0.5},
        {"type": "linear", "out": 4},
        {"type": "sigma_delta", "v_threshold": 0.5, "learn_bias": True},
        {"type": "linear", "out": 4},
        {"type": "ternary_lif", "beta": 0.9},
        {"type": "linear", "out": 3},
        {"type": "integrator"},
    )
    net = build(rows, (5,), 1e-3, "last", 0, 3)
    assert [type(net.layer(n)).__name__ for n in net.names][::2] == ["Delta", "SigmaDelta", "TernaryLIF", "I"]
    net.scores(net(torch.ones(4, 2, 5))).sum().backward()
    assert net.layer("2_sigma_delta").bias_learnt.grad is not None


@pytest.mark.parametrize(
    ("make", "says"),
    [(lambda: Delta(-1.0), "must not be negative"), (lambda: SigmaDelta(activation="tanh"), "activation must be"),
     (lambda: TernaryLIF(0.9, -1.0, 1.0), "must not lie above"), (lambda: SigmaDelta(learn=("v_threshold",)), "learn")],
)  # fmt: skip
def test_bad_neurons(make, says: str) -> None:
    with pytest.raises(NetworkError, match=says):
        make()
