"""Delays with a kernel of several steps (`neuro.nn.delay_shapes`), by events or by matrix products.

y[t, b, o] = sum_i w[o, i] sum_n share(n - d[o, i]) x[t - n, b, i]. By events the steps around each delay are taken in
pairs, and each pair runs through the loops of `neuro.nn.delay_events`: what a spike costs is its synapses times the
steps that count, few once sigma has shrunk. By products there is one per step of delay. Either way one [out, in] of
shares exists at a time, forwards and backwards; never a kernel [out, in, steps].
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from neuro.nn import delay_events as events
from neuro.nn import delay_kernels
from neuro.nn.delay_shapes import Kernel, Shares
from neuro.nn.kernels import over_rows
from neuro.nn.spikes import Spikes


def wide(x: Tensor, weight: Tensor, delay: Tensor, kernel: Kernel, longest: int, past: Tensor | None = None) -> Tensor:
    """The equation above. x: [time, batch, in]; weight, delay: [out, in], 0 <= delay <= longest.

    past: what came before x, [steps, batch, in]; None for silence.
    """
    if x.is_meta or x.numel() == 0:
        return events.by_steps(x, weight, delay)
    y: Tensor = _Wide.apply(x, weight, delay, kernel, longest, past)  # type: ignore[no-untyped-call]
    return y


def _events_pay(x: Tensor, kernel: Kernel, longest: int) -> bool:
    if x.device.type != "cpu":
        return False
    ones = x.total() if isinstance(x, Spikes) else int(torch.count_nonzero(x.detach()))
    taps, products = len(kernel.offsets), min(len(x), kernel.reach(longest) + 1)
    return ones * taps * events.EVENT <= x.numel() * products * events.DENSE


class _Wide(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, delay: Tensor, kernel: Kernel, longest: int, past: Tensor | None
    ) -> Tensor:
        w, d = weight.detach(), delay.detach().to(weight.dtype)
        shares = Shares(d, kernel, longest)
        ctx.save_for_backward(weight, delay)
        ctx.shares, ctx.kernel, ctx.longest = shares, kernel, longest
        ctx.by_events = _events_pay(x, kernel, longest)
        if ctx.by_events:
            s = events.sources(x, past, len(w), kernel.reach(longest), w.numpy().dtype)
            ctx.sorted, ctx.lead = s, s.steps - len(x)
            y = torch.zeros(s.steps, s.batch, len(w), dtype=w.dtype)
            for pair in _pairs(w, shares):
                y += torch.from_numpy(_push(s, pair, len(w)))
        else:
            parts = [p.dense() if isinstance(p, Spikes) else p.detach() for p in (past, x) if p is not None]
            whole = torch.cat(parts) if past is not None else parts[0]
            ctx.seen, ctx.lead = whole, len(whole) - len(x)
            y = whole.new_zeros(*whole.shape[:2], len(w))
            for n in range(min(len(whole), kernel.reach(longest) + 1)):
                share, _ = shares.at(torch.tensor(float(n), dtype=d.dtype, device=d.device))
                y[n:] += functional.linear(whole[: len(whole) - n], w * share)
        return y[ctx.lead :]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weight, _ = ctx.saved_tensors
        w = weight.detach()
        g = grads[0].detach().to(w.dtype)
        g = functional.pad(g, (0, 0, 0, 0, ctx.lead, 0)) if ctx.lead else g.contiguous()
        wants_x, wants_w, wants_d = ctx.needs_input_grad[:3]
        both = wants_w or wants_d
        d_x, by_share, by_slope = (_back_events if ctx.by_events else _back_products)(ctx, g, w, wants_x, both)
        d_w = d_d = None
        if both:
            d_w, d_d = ctx.shares.gradients(w, by_share, by_slope)
        return (
            d_x[ctx.lead :] if wants_x and d_x is not None else None,
            d_w if wants_w else None,
            d_d if wants_d else None,
            *[None] * 3,
        )


def _back_products(
    ctx: Any, g: Tensor, w: Tensor, wants_x: bool, wants_w: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    x, shares = ctx.seen, ctx.shares
    d_x = torch.zeros_like(x) if wants_x else None
    by_share, by_slope = torch.zeros_like(w), torch.zeros_like(w)
    for n in range(min(len(x), ctx.kernel.reach(ctx.longest) + 1)):
        share, slope = shares.at(torch.tensor(float(n), dtype=w.dtype, device=w.device))
        late = g[n:].flatten(0, 1)
        if wants_w:
            met = late.t() @ x[: len(x) - n].flatten(0, 1)
            by_share += met * share
            by_slope += met * slope
        if d_x is not None:
            d_x[: len(x) - n] += (late @ (w * share)).view(len(x) - n, *x.shape[1:])
    return d_x, by_share, by_slope


class _Pair:
    """Two neighbouring steps, n and n + 1 per synapse, in the layout of `delay_kernels`.

    Where n is -1 the second step stands in the place of the first, since no spike arrives before it was sent.
    """

    def __init__(self, w: Tensor, shares: Shares, j: int) -> None:
        n = shares.whole + j
        self.early = n < 0
        (self.near, self.slope_near), (self.far, self.slope_far) = shares.at(n), shares.at(n + 1)
        near = torch.where(self.early, self.far, self.near) * w
        far = torch.where(self.early, torch.zeros_like(w), self.far) * w
        self.step = n.clamp(0.0, float(shares.kernel.reach(shares.longest)))  # beyond it shares are 0, rows are none
        self.weights = near, far

    def laid_out(self, s: events.Sorted) -> tuple[events.A, events.A, events.A]:
        near, far = (a.contiguous().numpy() for a in self.weights)
        blocks = -(-len(near) // s.width)
        place = np.empty((blocks, s.n, s.width), np.uint32)
        rooms = [np.empty(place.shape, near.dtype) for _ in range(3)]
        step = self.step.contiguous().numpy()
        delay_kernels.lay_out(0, s.n, near, step, rooms[0], rooms[2], place)  # a whole delay: all of it is near
        delay_kernels.lay_out(0, s.n, far, step, rooms[1], rooms[2], place)
        return rooms[0], rooms[1], place


def _pairs(w: Tensor, shares: Shares) -> Any:
    offsets = shares.kernel.offsets
    for j in range(offsets[0], offsets[-1] + 1, 2):
        yield _Pair(w, shares, j)


def _push(s: events.Sorted, pair: _Pair, outs: int) -> events.A:
    near, far, place = pair.laid_out(s)
    y = np.empty((s.steps, s.batch, outs), near.dtype)
    rows = (s.tile + s.reach) * s.width

    def push(first: int, last: int) -> None:
        room = np.empty(rows, near.dtype)
        delay_kernels.push(first, last, s.tile, s.start, s.when, s.size, near, far, place, True, room, y)

    over_rows(push, torch.get_num_threads(), s.batch, len(s.when) * outs)
    return y


def _back_events(ctx: Any, g: Tensor, w: Tensor, wants_x: bool, wants_w: bool) -> tuple[Tensor | None, Tensor, Tensor]:
    s: events.Sorted = ctx.sorted
    d_x: Tensor | None = torch.zeros(s.steps, s.batch, s.n, dtype=w.dtype) if wants_x else None
    by_share, by_slope = torch.zeros_like(w), torch.zeros_like(w)
    for pair in _pairs(w, ctx.shares):
        near, far, place = pair.laid_out(s)
        if d_x is not None:
            d_x += torch.from_numpy(events.to_sources(s, g.numpy(), near, far, place))
        if wants_w:
            first, second = (torch.from_numpy(a) for a in events.arrived(s, g.numpy(), place, len(w)))
            second = torch.where(pair.early, first, second)
            first = torch.where(pair.early, torch.zeros_like(first), first)
            by_share += first * pair.near + second * pair.far
            by_slope += first * pair.slope_near + second * pair.slope_far
    return d_x, by_share, by_slope
