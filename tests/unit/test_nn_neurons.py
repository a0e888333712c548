"""Neurons: hand-computed traces, closed forms, and the fused loop against the plain one."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from neuro.errors import NetworkError
from neuro.nn import fused, kernels
from neuro.nn.layers import IF, LI, LIF, CubaLI, CubaLIF, Neuron, Recurrent, decays
from neuro.nn.neurons import NeuronParams, li_step, lif_step, rest
from neuro.nn.surrogate import SURROGATES, surrogate

D = torch.float64


def stepped(layer: Neuron | Recurrent, x: Tensor) -> Tensor:
    state, out = None, []
    for t in range(len(x)):
        y, state = layer.step(x[t], state)
        out.append(y)
    return torch.stack(out)


def test_nine_steps_of_a_lif_by_hand() -> None:
    """beta 0.5, threshold 1, input 0.75 each step: v = 0.75, 1.125 (fires), then the same again."""
    p, state, v_seen, s_seen = NeuronParams(beta=0.5), None, [], []
    f = surrogate()
    for _ in range(9):
        x = torch.full((1, 1), 0.75, dtype=D)
        s, state = lif_step(x, state or rest(x), p, f)
        v_seen.append(state.v.item())
        s_seen.append(s.item())
    assert s_seen == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert v_seen == [0.75, 0, 0.75, 0, 0.75, 0, 0.75, 0, 0.75]


def test_subtract_keeps_what_is_above_the_threshold() -> None:
    x = torch.full((1, 1), 1.25, dtype=D)
    s, state = lif_step(x, rest(x), NeuronParams(reset="subtract"), surrogate())
    assert (s.item(), state.v.item()) == (1.0, 0.25)


def test_threshold_is_strict() -> None:
    for neuron in (IF(1.0), LIF(0.5, 1.0)):
        x = torch.tensor([1.0, 0.0], dtype=D).view(2, 1, 1)
        assert neuron(x).flatten().tolist() == [0, 0]
        assert neuron(x + torch.tensor([1e-12, 0.0], dtype=D).view(2, 1, 1)).flatten().tolist() == [1, 0]


def test_rate_of_a_lif_is_the_closed_form() -> None:
    """A constant current fires every ceil(log(1 - th/v_inf) / log(beta)) steps, v_inf = x / (1 - beta)."""
    beta, x = 0.95, 0.13
    period = math.ceil(math.log(1 - 1 / (x / (1 - beta))) / math.log(beta))
    spikes = LIF(beta)(torch.full((10 * period, 1, 1), x, dtype=D)).flatten()
    assert torch.nonzero(spikes).flatten().tolist() == [period * (k + 1) - 1 for k in range(10)]


def test_li_is_a_geometric_sum() -> None:
    x = torch.zeros(20, 1, 1, dtype=D)
    x[0] = 1.0
    torch.testing.assert_close(LI(0.8)(x).flatten(), 0.8 ** torch.arange(20, dtype=D))
    a, b = 0.5, 0.8
    expected = (b ** torch.arange(1, 21, dtype=D) - a ** torch.arange(1, 21, dtype=D)) / (b - a)
    torch.testing.assert_close(CubaLI(a, b)(x).flatten(), expected)


def test_decays() -> None:
    assert decays(0.02, 0.001, tau_syn=0.005) == {"beta": math.exp(-0.05), "alpha": math.exp(-0.2)}
    with pytest.raises(NetworkError, match=r"beta.*\n.*alpha"):
        decays(0.0, 0.001, tau_syn=-1.0)


GRADIENT_CASES = [
    (cls, reset, detach, recurrent)
    for cls, reset, detach, recurrent in itertools.product(
        (IF, LIF, CubaLIF, LI, CubaLI), ("hard", "subtract"), (False, True), (False, True)
    )
    if cls.spiking or (reset == "hard" and not detach and not recurrent)
]


def build(cls: type[Neuron], reset: str, detach: bool, recurrent: bool, name: str = "atan") -> Neuron | Recurrent:
    learn = ["beta"] * cls.leaky + ["alpha"] * cls.synapse + ["v_threshold"] * cls.spiking
    kwargs = {"alpha": np.linspace(0.3, 0.7, 5)} if cls.synapse else {}
    if cls.leaky:
        kwargs["beta"] = np.linspace(0.5, 0.95, 5)
    if cls.spiking:
        kwargs |= {"v_threshold": np.linspace(0.8, 1.2, 5), "v_reset": 0.1}
    neuron = cls(reset=reset, detach=detach, surrogate=surrogate(name, 2.0), learn=tuple(learn), gain=0.9, **kwargs)
    if not recurrent:
        return neuron.double()
    layer = Recurrent(neuron, 5)
    with torch.no_grad():
        layer.recurrent.weight.copy_(torch.from_numpy(np.random.default_rng(3).normal(size=(5, 5)) * 0.4))
    return layer.double()


@pytest.mark.parametrize(("cls", "reset", "detach", "recurrent"), GRADIENT_CASES)
def test_fused_equals_the_step_loop(cls: type[Neuron], reset: str, detach: bool, recurrent: bool) -> None:
    """Outputs and every gradient (input, recurrent weight, alpha, beta, threshold) in float64."""
    layer = build(cls, reset, detach, recurrent)
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.normal(size=(17, 3, 5)) + 0.3).requires_grad_()
    upstream = torch.from_numpy(rng.normal(size=(17, 3, 5)))
    found = []
    for run in (layer, lambda given: stepped(layer, given)):
        layer.zero_grad()
        x.grad = None
        y = run(x)
        y.backward(upstream)
        found.append([y.detach(), x.grad, *(p.grad for p in layer.parameters())])
    if cls.spiking:
        assert 0.05 < found[0][0].mean() < 0.95, "the case must spike to mean anything"
    for fast, plain in zip(*found, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", SURROGATES)
def test_fused_takes_every_surrogate(name: str) -> None:
    layer = build(LIF, "subtract", False, False, name)
    x = torch.from_numpy(np.random.default_rng(2).normal(size=(9, 2, 5))).requires_grad_()
    gradients = []
    for run in (layer, lambda given: stepped(layer, given)):
        x.grad = None
        run(x).sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


def test_fused_passes_gradcheck_where_it_is_smooth() -> None:
    """A leaky integrator has no step in it: its gradients are those of finite differences."""
    layer = CubaLI(0.6, 0.8, learn=("alpha", "beta")).double()
    x = torch.randn(6, 2, 3, dtype=D, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(layer, (x,))

    def of_decays(a: Tensor, b: Tensor) -> Tensor:
        rule = fused.Rule(surrogate(), spiking=False)
        one, zero = torch.ones((), dtype=D), torch.zeros((), dtype=D)
        rest_of = {"v_threshold": one, "v_reset": zero, "gain_syn": one, "gain": one, "drive": zero}
        return fused.run(x.detach(), rule, alpha=a, beta=b, **rest_of)[1]

    decays = (torch.tensor([0.3, 0.5, 0.7], dtype=D).requires_grad_(), torch.tensor(0.8, dtype=D).requires_grad_())
    assert torch.autograd.gradcheck(of_decays, decays)


def test_loss_on_spikes_and_membrane_at_once() -> None:
    layer = LIF(0.9, surrogate="atan")
    x = torch.randn(12, 2, 4, dtype=D, generator=torch.Generator().manual_seed(5)).requires_grad_()
    s, v = layer.with_membrane(x)
    (s.sum() + (v**2).sum()).backward()
    fast, x.grad = x.grad, None
    state, total = None, torch.zeros((), dtype=D)
    for t in range(len(x)):
        y, state = layer.step(x[t], state)
        total = total + y.sum() + (state.v**2).sum()
    total.backward()
    torch.testing.assert_close(fast, x.grad, rtol=1e-10, atol=1e-12)


def test_channels_last_changes_nothing() -> None:
    threshold = np.random.default_rng(0).uniform(0.5, 1.5, (3, 4, 5))
    layer = LIF(0.9, threshold, surrogate="triangle")
    x = torch.randn(8, 2, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    plain = x.clone().requires_grad_()
    last = x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3).requires_grad_()
    assert not last.is_contiguous()
    layer(plain).sum().backward()
    layer(last).sum().backward()
    assert torch.equal(layer(plain), layer(last))
    assert torch.equal(plain.grad, last.grad)


@pytest.mark.parametrize("recurrent", [False, True])
def test_threads_do_not_change_a_bit(recurrent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "WORTH_A_THREAD", 1)
    layer = build(CubaLIF, "hard", False, recurrent).float()
    x = torch.randn(20, 7, 5, generator=torch.Generator().manual_seed(2))
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        layer.zero_grad()
        given = x.clone().requires_grad_()
        y = layer(given)
        y.sum().backward()
        found.append([y, given.grad, *(p.grad for p in layer.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_blocks_cover_wide_layers() -> None:
    layer = LIF(0.8)
    x = torch.randn(4, 2, kernels.BLOCK * 2 + 7, dtype=D, generator=torch.Generator().manual_seed(3))
    assert torch.equal(layer(x), stepped(layer, x))


def test_kernels_run_without_the_compiler() -> None:
    import os
    import subprocess
    import sys

    code = (
        "import torch; from neuro.nn.layers import CubaLIF\n"
        "x = torch.linspace(-1, 3, 24, dtype=torch.float64).view(6, 2, 2).requires_grad_()\n"
        "y = CubaLIF(0.5, 0.9, learn=('beta',), surrogate='atan').double()(x); y.sum().backward()\n"
        "print(y.detach().flatten().tolist(), x.grad.flatten().tolist())"
    )
    outputs = [
        subprocess.run([sys.executable, "-c", code], env={**os.environ, "NUMBA_DISABLE_JIT": jit}, capture_output=True,
                       text=True, check=True, timeout=300).stdout
        for jit in ("0", "1")
    ]  # fmt: skip
    assert outputs[0] == outputs[1]
    assert "1.0" in outputs[0]


# ---------------------------------------------------------------- state on a chip's integers


def integers(a: list[list[int]], alpha: int, beta: int, theta: int, bias: int, limit: int) -> tuple[list, list]:
    """CubaLIF in Python integers, straight from the equations: one neuron, a: weight units per step."""

    def tz(x: int) -> int:
        return (abs(x) >> 12) * (1 if x >= 0 else -1)

    u = v = 0
    membrane, spikes = [], []
    for (now,) in a:
        u = tz(u * alpha) + 64 * now
        if u > limit:
            u -= 2 * limit
        elif u <= -limit:
            u += 2 * limit
        v = max(min(tz(v * beta) + u + bias, limit - 1), 1 - limit)
        membrane.append(v)
        spikes.append(int(v > 64 * theta))
        if spikes[-1]:
            v = 0
    return membrane, spikes


@pytest.mark.parametrize("scale", [1, 900, 40_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_grid_state_is_the_integers(scale: int, dtype: torch.dtype) -> None:
    """The state on a grid equals unbounded Python integers, through wrap of i and clip of v."""
    rng = np.random.default_rng(scale)
    a = rng.integers(-3 * scale, 5 * scale, (60, 1))
    unit, theta, bias = 0.0037, min(7 * scale, 60_000), 13
    grid = fused.StateGrid(unit)
    layer = CubaLIF(3000 / 4096, 3900 / 4096, theta * unit, drive=bias * unit / 64)
    layer.grid = lambda: grid
    x = torch.from_numpy(a).to(dtype).view(60, 1, 1)
    s, v = layer.run(x)
    expected_v, expected_s = integers(a.tolist(), 3000, 3900, theta, bias, grid.limit)
    assert s.flatten().tolist() == expected_s
    assert sum(expected_s) > 3
    found_v = np.rint(v.flatten().double().numpy() / (unit / 64))
    np.testing.assert_allclose(found_v, expected_v, rtol=0 if dtype == D else 1e-6)


def test_the_border_of_the_wrap() -> None:
    """i of exactly +2^23 stays, exactly -2^23 becomes +2^23 (Lava 0.10); v clips one below."""
    layer = LIF(0.0)
    layer.grid = lambda: fused.StateGrid(64.0)  # one state unit is 1.0
    x = torch.tensor([131072.0, -131072.0, 131073.0, -131071.0], dtype=D).view(4, 1, 1)
    _, v = layer.run(x)
    assert v.flatten().tolist() == [2**23 - 1, 2**23 - 1, 64 - 2**23, 64 - 2**23]


def test_grid_keeps_the_gradient_of_the_real_neuron() -> None:
    """Straight through: with the same spikes and v, the gradient ignores the rounding of the state."""
    layer = LIF(3900 / 4096, 1.0, surrogate="straight_through", detach=True)
    x = (torch.randint(-3, 6, (10, 2, 3), generator=torch.Generator().manual_seed(1)) * 0.25).requires_grad_()
    layer(x).sum().backward()
    real, x.grad = x.grad, None
    layer.grid = lambda: fused.StateGrid(1 / 128)
    layer(x * 128).sum().backward()
    torch.testing.assert_close(x.grad, real)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LIF(1.0), r"beta must lie in \[0, 1\)"),
        (lambda: LIF(-0.1), "beta"),
        (lambda: LIF(float("nan")), "NaN"),
        (lambda: LIF(0.9, float("inf")), "v_threshold"),
        (lambda: CubaLIF(1.5, 0.9), "alpha"),
        (lambda: LIF(0.9, reset="soft"), "reset"),
        (lambda: LIF(0.9, learn=("gamma",)), "learn"),
        (lambda: LIF(0.9, learn=("alpha",)), "no alpha"),
        (lambda: IF(learn=("beta",)), "no beta"),
        (lambda: LIF(0.0, learn=("beta",)), "above 0"),
        (lambda: Recurrent(LI(0.9), 3), "spiking"),
        (lambda: Recurrent(LIF(0.9), 0), "n >= 1"),
    ],
)
def test_bad_neurons(make, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        make()


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(NetworkError) as caught:
        CubaLIF(1.5, -1.0, float("nan"), reset="soft", learn=("gamma",))
    assert len(caught.value.violations) == 5


def test_step_functions_of_integrators_do_not_spike() -> None:
    x = torch.full((1, 2), 5.0)
    v, state = li_step(x, rest(x), NeuronParams(beta=0.5))
    assert torch.equal(v, state.v)
    assert torch.equal(v, x)


def test_extra_repr_shows_the_parameters() -> None:
    assert repr(LIF(0.9, learn=("beta",))) == "LIF(beta=0.9, v_threshold=1, reset='hard', learn=('beta',))"
