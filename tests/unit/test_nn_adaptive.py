"""Adaptive neurons: traces by hand, the compiled loop against the plain one, the IR, files and chips."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuro import ir, nir, reference
from neuro.errors import NetworkError, UnsupportedNode
from neuro.hardware.compile import compile as compile_network
from neuro.hardware.target import targets
from neuro.ir import ADAPTATIONS, chain
from neuro.nn import ALIF, AdLIF, Recurrent, SpikingNetwork, kernels, to_module, to_network
from neuro.nn.joined import Carry
from neuro.nn.surrogate import surrogate

D = torch.float64
CASES = list(itertools.product(ADAPTATIONS, ("hard", "subtract"), (False, True), (False, True)))


def stepped(layer: AdLIF | Recurrent, x: Tensor, state: object = None) -> Tensor:
    out = []
    for t in range(len(x)):
        y, state = layer.step(x[t], state)
        out.append(y)
    return torch.stack(out)


def build(
    adaptation: str, reset: str, detach: bool, recurrent: bool, n: int = 5, name: str = "atan"
) -> AdLIF | Recurrent:
    between = np.linspace
    layer = AdLIF(
        between(0.5, 0.95, n), between(0.3, 0.9, n), 0.0 if adaptation == "threshold" else between(-0.1, 0.3, n),
        between(0.1, 0.6, n), between(0.8, 1.2, n), v_reset=0.1, gain=0.9, drive=0.05, adaptation=adaptation,
        reset=reset, detach=detach, surrogate=surrogate(name, 2.0),
        learn=("beta", "rho", "b", "v_threshold") + ("a",) * (adaptation != "threshold"),
    ).double()  # fmt: skip
    if not recurrent:
        return layer
    looped = Recurrent(layer, n)
    with torch.no_grad():
        looped.recurrent.weight.copy_(torch.from_numpy(np.random.default_rng(3).normal(size=(n, n)) * 0.8 / n**0.5))
    return looped.double()


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape) + 0.3)


# ---------------------------------------------------------------- the equations


def by_hand(layer: AdLIF, xs: list[float]) -> tuple[list[float], list[float]]:
    """(spikes, v) of one neuron in Python floats, straight from the papers' normalised equations."""
    alpha, rho = 0.9, 0.8
    a, b, v, w, s, spikes, seen = 0.5, 2.0, 0.0, 0.0, 0.0, [], []
    for x in xs:
        if layer.adaptation == "threshold":
            u, theta = alpha * v + (1 - alpha) * x, 0.05 + w
        else:
            u, theta = alpha * v + (1 - alpha) * (x - w), 0.05
        before = (v, s)
        s = float(u > theta)
        v = u - 0.05 * s if layer.reset == "subtract" else u * (1 - s)
        if layer.adaptation == "threshold":
            w = rho * w + (1 - rho) * b * s
        else:
            follow = before if layer.adaptation == "euler" else (v, s)
            w = rho * w + (1 - rho) * (a * follow[0] + b * follow[1])
        spikes.append(s)
        seen.append(v)
    return spikes, seen


@pytest.mark.parametrize("adaptation", ADAPTATIONS)
@pytest.mark.parametrize("reset", ["hard", "subtract"])
def test_the_papers_equations(adaptation: str, reset: str) -> None:
    rises = adaptation == "threshold"
    scale = 0.2 if rises else 0.1 * 0.2
    layer = AdLIF(0.9, 0.8, 0.0 if rises else 0.5 * scale, 2.0 * scale, 0.05, gain=0.1, adaptation=adaptation,
                  reset=reset)  # fmt: skip
    xs = [0.3 + 0.4 * (k % 7 == 0) for k in range(60)]
    spikes, v = by_hand(layer, xs)
    found, membrane = layer.with_membrane(torch.tensor(xs, dtype=D).view(-1, 1, 1))
    assert found.flatten().tolist() == spikes
    assert 3 < sum(spikes) < 50
    np.testing.assert_allclose(membrane.flatten().numpy(), v, atol=1e-12)


def test_adaptation_slows_a_constant_drive_down() -> None:
    x = torch.full((400, 1, 1), 0.3, dtype=D)
    for layer in (AdLIF(0.9, 0.98, b=0.02), ALIF(0.9, 0.98, 0.2)):
        times = torch.nonzero(layer(x).dense().flatten()).flatten()
        gaps = times.diff()
        assert gaps[-1] > 1.5 * gaps[0]


def test_the_symplectic_scheme_is_stable_where_euler_is_not() -> None:
    """Baronig et al., fig. 3: a strong coupling of the membrane to w makes the forward Euler scheme grow."""
    x = torch.zeros(400, 1, 1, dtype=D)
    x[0] = 1.0
    peaks = []
    for adaptation in ("symplectic", "euler"):
        layer = AdLIF(0.96, 0.98, 0.3, 0.0, 1e30, adaptation=adaptation)
        peaks.append(float(layer.with_membrane(x)[1][-50:].abs().max()))
    assert peaks[0] < 1e-2
    assert peaks[1] > 1e2


# ---------------------------------------------------------------- the compiled loop


@pytest.mark.parametrize(("adaptation", "reset", "detach", "recurrent"), CASES)
def test_compiled_equals_the_step_loop(adaptation: str, reset: str, detach: bool, recurrent: bool) -> None:
    """Spikes and every gradient: input, recurrent weight, beta, rho, a, b, threshold."""
    layer = build(adaptation, reset, detach, recurrent)
    x, upstream = drawn(17, 3, 5).requires_grad_(), drawn(17, 3, 5, seed=2)
    found = []
    for run in (layer, lambda given: stepped(layer, given)):
        layer.zero_grad()
        x.grad = None
        y = run(x)
        y.backward(upstream)
        found.append([y.detach(), x.grad, *(p.grad for p in layer.parameters())])
    assert 0.05 < found[0][0].mean() < 0.95
    for fast, plain in zip(*found, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["fast_sigmoid", "gaussian", "triangle"])
@pytest.mark.parametrize("adaptation", ADAPTATIONS)
def test_membrane_and_spikes_in_one_loss_under_other_surrogates(name: str, adaptation: str) -> None:
    layer = build(adaptation, "hard", False, False, n=70, name=name)
    x = drawn(12, 2, 70).requires_grad_()
    s, v = layer.with_membrane(x)
    (s.sum() + (v**2).sum()).backward()
    fast, x.grad = x.grad, None
    state, total = None, torch.zeros((), dtype=D)
    for t in range(len(x)):
        y, state = layer.step(x[t], state)
        total = total + y.sum() + (state.v**2).sum()
    total.backward()
    torch.testing.assert_close(fast, x.grad, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("adaptation", ADAPTATIONS)
@pytest.mark.parametrize("recurrent", [False, True])
def test_pieces_are_the_whole(adaptation: str, recurrent: bool) -> None:
    """Same bits forwards; the gradient of a piece is that of the step loop from the state it began with."""
    layer = build(adaptation, "hard", False, recurrent, n=70)
    x, carry = drawn(11, 3, 70, seed=4), Carry()
    parts = [layer.resume(part, carry) for part in x.split((3, 1, 7))]
    assert torch.equal(torch.cat([p.detach() for p in parts]), layer(x).detach())
    before = Carry()
    layer.resume(x[:4], before)
    state, upstream, found = before.value, drawn(7, 3, 70, seed=6), []
    for fast in (True, False):
        given = x[4:].clone().requires_grad_()
        layer.zero_grad()
        y = layer.resume(given, Carry(state)) if fast else stepped(layer, given, state)
        y.backward(upstream)
        found.append([given.grad, *(p.grad.clone() for p in layer.parameters())])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_threads_do_not_change_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "WORTH_A_THREAD", 1)
    layer = build("symplectic", "hard", False, True, n=37).float()
    x, found = drawn(20, 7, 37).float(), []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        layer.zero_grad()
        given = x.clone().requires_grad_()
        y = layer(given)
        y.sum().backward()
        found.append([y, given.grad, *(p.grad for p in layer.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("rate", [0.05, 0.9])
@pytest.mark.parametrize("recurrent", [False, True])
def test_behind_a_linear(recurrent: bool, rate: float) -> None:
    """The joined call, by events and dense, against the layers one by one."""
    front = nn.Linear(90, 12).double()
    with torch.no_grad():
        front.weight.copy_(drawn(12, 90, seed=9) * (0.3 if rate < 0.5 else 0.05))
    layer = build("symplectic", "subtract", False, recurrent, n=12)
    net = SpikingNetwork({"w": front, "n": layer}, input_shape=(90,), dt=1e-3)
    x = (torch.rand(15, 4, 90, generator=torch.Generator().manual_seed(0)) < rate).to(torch.uint8)
    upstream, found = drawn(15, 4, 12, seed=2), []
    for run in (lambda: net(x), lambda: stepped(layer, front(x.double()))):
        net.zero_grad()
        y = run()
        y.backward(upstream)
        found.append([y.detach(), *(p.grad for p in net.parameters())])
    assert 0.02 < found[0][0].mean() < 0.9
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


# ---------------------------------------------------------------- IR, files, chips


def node(adaptation: str, n: int = 4, **options: object) -> ir.AdaptiveLIF:
    given = {"a_adapt": 0.0 if adaptation == "threshold" else 0.7, "b_adapt": np.linspace(0.1, 2.0, n)}
    return ir.AdaptiveLIF(0.02, np.linspace(0.03, 0.2, n), 0.1, **given, r=3.0, v_leak=0.05, adaptation=adaptation,
                          **options)  # fmt: skip


def network(adaptation: str, recurrent: bool = False, **options: object) -> ir.Network:
    rng = np.random.default_rng(5)
    nodes = {"in": ir.Input((6,)), "w": ir.Linear(rng.normal(size=(4, 6))), "n": node(adaptation, **options)}
    nodes |= {"r": ir.Linear(rng.normal(size=(4, 4)))} if recurrent else {}
    nodes |= {"out": ir.Output("count")}
    edges = [("in", "w"), ("w", "n")] + [("n", "r"), ("r", "n")] * recurrent + [("n", "out")]
    return ir.Network(nodes, tuple(edges), 2e-3)


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("reset", ["hard", "subtract"])
@pytest.mark.parametrize("adaptation", ADAPTATIONS)
def test_module_and_network_are_the_same(adaptation: str, reset: str, recurrent: bool) -> None:
    net = network(adaptation, recurrent, reset=reset)
    module = to_module(net, torch.float64)
    assert isinstance(module.layer("n"), Recurrent if recurrent else AdLIF)
    x = (np.random.default_rng(0).random((40, 2, 6)) < 0.3).astype(np.uint8)
    record: dict[str, Tensor] = {}
    module(torch.from_numpy(x), record)
    expected = reference.run(net, x).spikes["n"]
    assert 20 < expected.sum() < 250
    np.testing.assert_array_equal(record["n"].detach().numpy(), expected)
    again = to_network(module)
    back = again.nodes["n"]
    assert isinstance(back, ir.AdaptiveLIF)
    for field in ("tau_mem", "tau_adapt", "v_threshold", "a_adapt", "b_adapt", "r", "v_leak", "v_reset"):
        np.testing.assert_allclose(getattr(back, field), getattr(net.nodes["n"], field), rtol=1e-9, atol=1e-12)
    assert (back.reset, back.adaptation) == (reset, adaptation)


@pytest.mark.parametrize("adaptation", ADAPTATIONS)
def test_files_keep_every_field(adaptation: str, tmp_path: Path) -> None:
    net = network(adaptation, reset="subtract")
    nir.save(net, tmp_path / "n.nir")
    back = nir.load(tmp_path / "n.nir")
    for name in ("tau_mem", "tau_adapt", "v_threshold", "a_adapt", "b_adapt", "r", "v_leak", "v_reset"):
        np.testing.assert_array_equal(getattr(back.nodes["n"], name), getattr(net.nodes["n"], name))
    assert (back.nodes["n"].reset, back.nodes["n"].adaptation, back.dt) == ("subtract", adaptation, net.dt)


@pytest.mark.parametrize("chip", targets())
def test_no_chip_takes_it(chip: str) -> None:
    nodes = {"in": ir.Input((4,)), "w": ir.Linear(np.eye(4)), "n": node("symplectic"), "out": ir.Output("count")}
    with pytest.raises(UnsupportedNode, match="AdaptiveLIF"):
        compile_network(chain(nodes, 1e-3), chip)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AdLIF(1.0), "beta must lie"),
        (lambda: AdLIF(rho=-0.1), "rho must lie"),
        (lambda: AdLIF(a=float("nan")), "NaN"),
        (lambda: AdLIF(adaptation="late"), "adaptation must be"),
        (lambda: AdLIF(reset="soft"), "reset must be"),
        (lambda: AdLIF(learn=("alpha",)), "learn may hold"),
        (lambda: AdLIF(rho=0.0, learn=("rho",)), "above 0"),
        (lambda: AdLIF(a=0.1, adaptation="threshold"), "leave out a"),
        (lambda: ir.AdaptiveLIF(0.01, 0.01, 1.0, adaptation="late"), "adaptation must be"),
        (lambda: ir.AdaptiveLIF(0.01, 0.01, 1.0, a_adapt=1.0, adaptation="threshold"), "leave out a_adapt"),
        (lambda: ir.AdaptiveLIF(0.01, -0.01, 1.0), "tau_adapt must be positive"),
    ],
)
def test_bad_neurons(make, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        make()


def test_euler_refuses_a_time_constant_of_less_than_a_step() -> None:
    nodes = {"in": ir.Input((1,)), "n": ir.AdaptiveLIF(0.01, 1e-4, 1.0), "out": ir.Output("count")}
    with pytest.raises(NetworkError, match="tau_adapt"):
        chain(nodes, 1e-3, discretisation="euler")
