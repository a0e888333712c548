"""FS neurons: any function of one number by few spikes (Stoeckl and Maass 2021, Nature Machine Intelligence).

v[1] = x;  s[k] = 1 where v[k] >= T[k];  v[k+1] = v[k] - h[k] s[k];  f(x) ~ sum_k d[k] s[k],  k = 1..K

A rectifier needs no fit: T = h = d = 2^-k top is the binary expansion of x, 2^K levels by at most K spikes. Others are
fitted on a range by descent, with a triangle for the derivative of the spike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neuro.convert.graph import Graph
from neuro.convert.ops import FUNCTIONS, Function, Op, op
from neuro.errors import ConversionError

POINTS = 1024  # of a fit


@op
@dataclass(frozen=True, eq=False)
class FewSpikes(Op):
    """A population of FS neurons, see the module. threshold, reset, out: [K] each; bias: added to the result."""

    threshold: Tensor
    reset: Tensor
    out: Tensor
    bias: float = 0.0

    def problems(self) -> list[str]:
        shapes = {tuple(each.shape) for each in (self.threshold, self.reset, self.out)}
        one = len(shapes) == 1 and len(next(iter(shapes))) == 1 and self.out.numel() > 0
        return [] if one else [f"threshold, reset and out must be [K] of one K >= 1, got {sorted(shapes)}"]

    def value(self, *x: Tensor) -> Tensor:
        return self._run(x[0])[0]

    def spikes(self, x: Tensor) -> Tensor:
        """How many each neuron sends."""
        return self._run(x)[1]

    def _run(self, x: Tensor) -> tuple[Tensor, Tensor]:
        v, y, count = x, torch.full_like(x, self.bias), torch.zeros_like(x)
        for theta, h, d in zip(self.threshold.to(x), self.reset.to(x), self.out.to(x), strict=True):
            s = (v >= theta).to(x.dtype)
            v, y, count = v - h * s, y + d * s, count + s
        return y, count


def rectifier(top: float, k: int, dtype: torch.dtype = torch.float64) -> FewSpikes:
    """max(x, 0) up to top, to the nearest multiple of u = top 2^-k, at most top - u: the binary expansion of x + u / 2,
    without a fit."""
    parts = top * torch.exp2(-torch.arange(1, k + 1, dtype=torch.float64))
    half = float(parts[-1]) / 2  # thresholds move instead of x
    return FewSpikes((parts - half).to(dtype), parts.to(dtype), parts.to(dtype))


def fit(
    function: Callable[[Tensor], Tensor], x: Tensor, k: int = 12, seed: int = 0, starts: int = 3, rounds: int = 1200
) -> FewSpikes:
    """Fitted to a function on samples x (any shape): half of the points spread evenly over their range, half drawn
    from them, so that both the range and what is frequent count. The best of all rounds of all starts is taken.

    Raises:
        ConversionError: no samples, or samples that are all one.
    """
    flat = x.detach().reshape(-1).to(torch.float64)
    if not len(flat) or not float(flat.max()) > float(flat.min()):
        raise ConversionError("FS neurons need samples that differ")
    low, high = float(flat.min()), float(flat.max())
    rng = torch.Generator().manual_seed(seed)
    drawn = flat[torch.randint(len(flat), (POINTS // 2,), generator=rng)]
    points = torch.cat([torch.linspace(low, high, POINTS // 2, dtype=torch.float64), drawn])
    wanted = function(points)
    # the variable that is expanded is u = (x - low) / (high - low), in 0..1; its scale is put back below
    u, width = (points - low) / (high - low), high - low
    middle, scale = float(wanted.mean()), float(wanted.std()) + 1e-12
    aim = (wanted - middle) / scale
    start = torch.exp2(-torch.arange(1, k + 1, dtype=torch.float64))
    best: tuple[float, list[Tensor]] | None = None
    for attempt in range(starts):
        noise = 0.0 if attempt == 0 else 0.2
        parts = [start * (1 + noise * torch.randn(k, generator=rng, dtype=torch.float64)) for _ in range(3)]
        slope = float((aim[u > 0.9].mean() - aim[u < 0.1].mean()) if bool((u > 0.9).any()) else 1.0)
        parts[2] = parts[2] * (slope if abs(slope) > 0.1 else 1.0)
        leaves = [part.requires_grad_() for part in (*parts, aim[u.argmin()].detach().clone().reshape(1))]
        optimise = torch.optim.Adam(leaves, lr=0.01)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimise, rounds)
        for _ in range(rounds):
            found = _soft(u, *leaves)
            loss = ((found - aim) ** 2).mean()
            if best is None or loss.item() < best[0]:
                best = (loss.item(), [leaf.detach().clone() for leaf in leaves])
            optimise.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimise.step()
            decay.step()
    assert best is not None
    threshold, reset, out, bias = best[1]
    # v starts at x = low + width u: resets are scaled, thresholds also moved
    return FewSpikes(threshold * width + low, reset * width, out * scale, float(bias) * scale + middle)


def _soft(u: Tensor, threshold: Tensor, reset: Tensor, out: Tensor, bias: Tensor) -> Tensor:
    v, y = u, bias.expand_as(u)
    for k in range(len(out)):
        s = _Spike.apply(v - threshold[k])  # type: ignore[no-untyped-call]
        v, y = v - reset[k] * s, y + out[k] * s
    return y


class _Spike(torch.autograd.Function):
    """1 where x >= 0; its derivative is a triangle of height 3 and half width 0.1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        slope: Tensor = 3.0 * (1 - x.abs() / 0.1).clamp_min(0)
        return grad * slope


def few_spikes(graph: Graph, x: tuple[Tensor, ...], k: int = 10, seed: int = 0) -> Graph:
    """Every `Function` as FS neurons of K = k, fitted to what they take on x; rectifiers without a fit."""
    with torch.no_grad():
        values = graph.values(*x)
    changed: dict[str, Op] = {}
    for name in graph.order:
        operation = graph.ops[name]
        if not isinstance(operation, Function):
            continue
        taken = values[graph.takes[name][0]]
        if operation.name == "relu" or (operation.name == "relu6" and float(taken.max()) <= 6):
            changed[name] = rectifier(max(float(taken.max()), 1e-9), k, taken.dtype)
        else:
            found = fit(FUNCTIONS[operation.name], taken, k, seed)
            parts = [each.to(taken.dtype) for each in (found.threshold, found.reset, found.out)]
            changed[name] = FewSpikes(parts[0], parts[1], parts[2], found.bias)
    if not changed:
        raise ConversionError("the graph has no function of one number: FS neurons have nothing to stand for")
    return graph.replace(changed)


def count_spikes(graph: Graph, x: tuple[Tensor, ...]) -> float:
    """Spikes of all FS neurons, of all samples."""
    with torch.no_grad():
        values = graph.values(*x)
        found = {n: graph.ops[n] for n in graph.order}
        return sum(
            float(o.spikes(values[graph.takes[n][0]]).sum()) for n, o in found.items() if isinstance(o, FewSpikes)
        )
