"""Kernels of delays: by hand, each way against each other, numerically, at the borders, and how they shrink."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from neuro.errors import NetworkError
from neuro.nn import DelayLinear, delay_events
from neuro.nn.delay_shapes import Kernel, Plan, Sigma
from neuro.nn.delay_wide import wide
from neuro.nn.joined import Carry
from neuro.nn.spikes import Spikes

D = torch.float64
WIDTHS = [("triangle", 0.0), ("triangle", 0.7), ("triangle", 3.0), ("gauss", 0.0), ("gauss", 0.23), ("gauss", 2.0)]
LONGEST = 6


def problem(dtype: torch.dtype = D) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(x, weight, delay, what came before); delays on both bounds and on a whole step too."""
    g = torch.Generator().manual_seed(3)
    x = (torch.rand(30, 3, 20, generator=g) < 0.2).to(dtype)
    weight = torch.randn(9, 20, generator=g, dtype=D).to(dtype)
    delay = (torch.rand(9, 20, generator=g, dtype=D) * LONGEST).to(dtype)
    delay[0, :4] = torch.tensor([0.0, 3.0, LONGEST, LONGEST - 1e-3])
    return x, weight, delay, (torch.rand(8, 3, 20, generator=g) < 0.2).to(dtype)


def share(name: str, sigma: float, d: float, n: int) -> float:
    """The equations of `neuro.nn.delay_shapes`, one number."""
    if name == "triangle":
        return max(0.0, 1 + sigma - abs(n - d)) / (1 + sigma) ** 2
    s = sigma + 0.27
    g = [math.exp(-0.5 * ((m - d) / s) ** 2) if abs(m - d) <= 4.5 * s else 0.0 for m in range(LONGEST + 1)]
    return g[n] / (sum(g) + 1e-7) if n <= LONGEST else 0.0


def by_hand(x: Tensor, weight: Tensor, delay: Tensor, name: str, sigma: float) -> Tensor:
    y = torch.zeros(*x.shape[:2], len(weight), dtype=x.dtype)
    for o, i in np.ndindex(*weight.shape):
        for n in range(len(x)):
            part = share(name, sigma, float(delay[o, i]), n)
            y[n:, :, o] += weight[o, i] * part * x[: len(x) - n, :, i]
    return y


def gradients(y: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    return list(torch.autograd.grad((y * weights).sum(), leaves))


@pytest.mark.parametrize(("name", "sigma"), WIDTHS)
@pytest.mark.parametrize("events", [True, False])
def test_the_equation(monkeypatch: pytest.MonkeyPatch, name: str, sigma: float, events: bool) -> None:
    monkeypatch.setattr(delay_events, "EVENT", 0.0 if events else 1e9)
    x, weight, delay, _ = problem()
    expected = by_hand(x, weight, delay, name, sigma)
    for form in (x, Spikes.pack(x)):
        torch.testing.assert_close(wide(form, weight, delay, Kernel(name, sigma), LONGEST), expected)


@pytest.mark.parametrize(("name", "sigma"), WIDTHS)
def test_events_products_and_steps_agree(monkeypatch: pytest.MonkeyPatch, name: str, sigma: float) -> None:
    x, weight, delay, past = problem()
    found = []
    for price in (0.0, 1e9):
        monkeypatch.setattr(delay_events, "EVENT", price)
        leaves = [a.clone().requires_grad_() for a in (x, weight, delay)]
        y = wide(leaves[0], leaves[1], leaves[2], Kernel(name, sigma), LONGEST, past)
        found.append([y, *gradients(y, leaves)])
    layer = DelayLinear(20, 9, LONGEST, kernel=name).double()
    layer.sigma = sigma
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.delay.copy_(delay)
        state = None
        for now in past:
            _, state = layer.step(now, state)
    into, rows = x.clone().requires_grad_(), []
    for now in into:
        y, state = layer.step(now, state)
        rows.append(y)
    y = torch.stack(rows)
    found.append([y, *gradients(y, [into, layer.weight, layer.delay])])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("name", "sigma"), [("triangle", 1.3), ("gauss", 0.6)])
@pytest.mark.parametrize("price", [0.0, 1e9])
def test_gradients_are_the_differences(monkeypatch: pytest.MonkeyPatch, name: str, sigma: float, price: float) -> None:
    monkeypatch.setattr(delay_events, "EVENT", price)
    g = torch.Generator().manual_seed(1)
    x, weight = torch.randn(9, 2, 3, generator=g, dtype=D), torch.randn(2, 3, generator=g, dtype=D)
    delay = torch.tensor([[0.13, 1.4, 2.62], [3.87, 2.24, 0.71]], dtype=D)
    leaves = tuple(a.requires_grad_() for a in (x, weight, delay))
    assert torch.autograd.gradcheck(lambda *a: wide(*a, Kernel(name, sigma), 4), leaves, atol=1e-4)


def test_no_step_lies_outside_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wide kernels reach beyond the longest delay, where there is no memory: garbage times zero may be NaN."""
    monkeypatch.setattr(delay_events, "EVENT", 0.0)
    from neuro.nn import delay_wide

    seen: list[float] = []
    laid_out = delay_wide._Pair.laid_out

    def watched(self: delay_wide._Pair, s: delay_events.Sorted) -> object:
        assert float(self.step.max()) <= s.reach - 2
        seen.append(float(self.step.max()))
        return laid_out(self, s)

    monkeypatch.setattr(delay_wide._Pair, "laid_out", watched)
    x, weight, delay, _ = problem(torch.float32)
    for name, sigma in WIDTHS:
        leaves = [weight.clone().requires_grad_(), delay.clone().requires_grad_()]
        gradients(wide(Spikes.pack(x), *leaves, Kernel(name, sigma), LONGEST), leaves)
    assert max(seen) >= LONGEST


def test_a_narrow_triangle_is_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, delay, past = problem()
    found = []
    for call in (
        lambda *a: wide(*a, Kernel("triangle", 0.0), LONGEST, past),
        lambda *a: delay_events.late(*a, LONGEST, past),
    ):
        leaves = [a.clone().requires_grad_() for a in (x, weight, delay)]
        y = call(*leaves)
        found.append([y, *gradients(y, leaves)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("price", [0.0, 1e9])
def test_a_long_sample_in_pieces(monkeypatch: pytest.MonkeyPatch, price: float) -> None:
    monkeypatch.setattr(delay_events, "EVENT", price)
    x, weight, delay, _ = problem()
    for name, sigma in WIDTHS:
        layer = DelayLinear(20, 9, LONGEST, kernel=name).double()
        layer.sigma = sigma
        with torch.no_grad():
            layer.weight.copy_(weight)
            layer.delay.copy_(delay)
        carry = Carry()
        found = torch.cat([layer.resume(x[a:b], carry) for a, b in ((0, 1), (1, 3), (3, 12), (12, 30))])
        torch.testing.assert_close(found, layer(x))


def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delay_events, "EVENT", 0.0)
    g = torch.Generator().manual_seed(5)
    x = Spikes.pack((torch.rand(60, 8, 150, generator=g) < 0.2).to(torch.uint8), torch.float32)
    weight, delay = torch.randn(100, 150, generator=g), torch.rand(100, 150, generator=g) * 8
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            leaves = [x.detach().requires_grad_(), weight.clone().requires_grad_(), delay.clone().requires_grad_()]
            y = wide(leaves[0], leaves[1], leaves[2], Kernel("gauss", 0.5), 8)
            found.append([y, *gradients(y, leaves)])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_other_devices_take_torch() -> None:
    layer = DelayLinear(5, 4, 3, kernel="gauss").to("meta")
    assert layer(torch.empty(6, 2, 5, device="meta")).shape == (6, 2, 4)


def test_rounding_is_one_step_whatever_the_kernel() -> None:
    x, weight, delay, _ = problem()
    layer = DelayLinear(20, 9, LONGEST, kernel="gauss", rounding=True).double()
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.delay.copy_(delay)
    torch.testing.assert_close(layer(x), layer.rounded()(x))


def test_sigma_of_dcls_and_of_delrec() -> None:
    dcls = Sigma(12.0, 0.23, 0.25)
    assert [dcls(0, 100), dcls(25, 100), dcls(99, 100)] == pytest.approx([12.0, 0.23, 0.23])
    assert dcls(10, 100) == pytest.approx(12.0 * (0.23 / 12.0) ** (10 / 25))
    delrec = Sigma(10.0, 10.0 * 0.95**100, 1.0)
    assert [delrec(e, 150) for e in (0, 60, 149)] == pytest.approx([10 * 0.95 ** (100 * e / 150) for e in (0, 60, 149)])
    assert Sigma(0.1, 0.2, 0.5)(3, 10) == 0.2


def test_a_plan_is_a_function_of_the_epoch() -> None:
    layer = DelayLinear(3, 2, 8, kernel="triangle", plan=Plan(Sigma(4.0, 0.5, 0.5), 10.0, 0.8))
    rows = []
    for epoch in (0, 5, 7, 8, 9, 2):
        layer.settle(epoch, 10)
        rows.append((round(layer.sigma, 6), layer.rounding))
    assert rows[:5] == [(4.0, False), (0.5, False), (0.5, False), (0.5, True), (0.5, True)]
    assert rows[5][1] is False


@pytest.mark.parametrize("kernel", [("box", 0.0), ("gauss", -1.0), ("gauss", math.inf)])
def test_kernels_that_mean_nothing(kernel: tuple[str, float]) -> None:
    with pytest.raises(NetworkError, match="kernel is one of"):
        Kernel(*kernel)
    with pytest.raises(NetworkError, match="kernel must be one of"):
        DelayLinear(3, 2, 4, kernel="box")
