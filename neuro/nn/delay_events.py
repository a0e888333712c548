"""Delays by events: what a spike costs is its synapses, not the length of the kernel it passes through.

y[t, b, o] = sum_i w[o, i] ((1 - f) x[t - k, b, i] + f x[t - k - 1, b, i]), with d = k + f the delay of synapse (o, i):
linear interpolation between the two steps around t - d. It is what DCLS-Delays (Hammouamri et al., ICLR 2024, arXiv
2306.17670) and DelRec come to when their kernels have become narrow. Forwards each spike is pushed into the steps to
come; backwards its synapses gather the gradient from there. No kernel [out, in, delay] exists anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from neuro.nn import bits, delay_kernels
from neuro.nn.kernels import over_rows
from neuro.nn.spikes import Spikes

A = NDArray[Any]
CACHE = 40 << 10  # bytes of the first-level cache that the sums of a block of targets may take
# Nanoseconds on one core, Sapphire Rapids, layer 700 -> 256, float32, forwards and backwards (tests/bench): of a
# synapse that an event passes, per tap, and of a multiply-add of a dense product.
EVENT, DENSE = 0.55, 0.03


def late(x: Tensor, weight: Tensor, delay: Tensor, longest: int, past: Tensor | None = None) -> Tensor:
    """The equation above. x: [time, batch, in]; weight, delay: [out, in], 0 <= delay <= longest.

    past: what came before x, [steps, batch, in]; None for silence. Delays in an integer type are whole, and have no
    gradient. By events where that is cheaper, which the number of spikes decides; else one matrix product per step of
    delay, as on other devices.
    """
    if x.device.type == "cpu" and x.numel() and _events_pay(x, delay, longest):
        y: Tensor = _Late.apply(x, weight, delay, longest, past)  # type: ignore[no-untyped-call]
        return y
    parts = [part.clone() if isinstance(part, Spikes) else part for part in (past, x) if part is not None]
    return by_steps(torch.cat(parts) if past is not None else parts[0], weight, delay)[-len(x) :]


def _events_pay(x: Tensor, delay: Tensor, longest: int) -> bool:
    ones = x.total() if isinstance(x, Spikes) else int(torch.count_nonzero(x.detach()))
    taps, products = (2, longest + 2) if delay.is_floating_point() else (1, len(_distinct(delay)))
    return ones * taps * EVENT <= x.numel() * products * DENSE


def _distinct(delay: Tensor) -> list[int]:
    """The whole delays that occur, rising."""
    found: list[int] = torch.bincount(delay.flatten()).nonzero().flatten().tolist()
    return found


def by_steps(x: Tensor, weight: Tensor, delay: Tensor) -> Tensor:
    """`late` in plain torch operations: one matrix product per whole step of delay."""
    y = x.new_zeros((*x.shape[:2], len(weight)))
    if delay.is_floating_point():
        k = delay.detach().floor()
        f = delay - k
        steps = list(range(len(x) if delay.is_meta else min(len(x), int(k.max()) + 2)))
    else:
        k, f = delay, None
        steps = list(range(len(x))) if delay.is_meta else [d for d in _distinct(delay) if d < len(x)]
    for d in steps:  # what is longer than the sample never arrives
        part = torch.where(k == d, weight if f is None else weight * (1 - f), 0.0)
        if f is not None:
            part = part + torch.where(k == d - 1, weight * f, 0.0)
        y = y + functional.pad(functional.linear(x[: len(x) - d], part), (0, 0, 0, 0, d, 0))
    return y


@dataclass(frozen=True)
class Sorted:
    """The spikes of a sample by source, as `delay_kernels` wants them."""

    steps: int
    batch: int
    n: int
    tile: int
    width: int
    reach: int
    start: A
    when: A
    size: A


def sources(x: Tensor, past: Tensor | None, outs: int, longest: int, dtype: np.dtype[Any]) -> Sorted:
    """Sort the spikes of past and x by sample, tile of time and source. x: [time, batch, in]."""
    batch, n = x.shape[1:]
    every = [part for part in (past, x) if part is not None]
    whole = all(isinstance(part, Spikes) for part in every)
    if whole:
        words = [part.words for part in every if isinstance(part, Spikes)]
        dense = np.empty((0, 0), dtype)
    else:
        rows = [part.detach().numpy().reshape(-1, n) for part in every]
        dense = np.ascontiguousarray(np.concatenate(rows) if len(rows) > 1 else rows[0], dtype)
        words = [np.empty((len(dense), -(-n // 64)), np.uint64)]
        bits.pack(dense, words[0])
    flat = words[0] if len(words) == 1 else np.concatenate(words)
    steps, reach = len(flat) // batch, longest + 2
    width = 8
    while width < min(outs, 256 // dtype.itemsize):
        width *= 2
    tile = max(CACHE // (width * dtype.itemsize) - reach, reach, 32)
    tile = steps if tile >= steps else tile
    start = np.zeros(batch * -(-steps // tile) * n + 1, np.int64)
    threads = torch.get_num_threads()
    over_rows(delay_kernels.tally, threads, batch, flat.size, flat, batch, tile, n, start)
    np.cumsum(start, out=start)
    when = np.empty(start[-1], np.uint32)
    size = np.empty(0 if whole else len(when), dtype)
    over_rows(
        delay_kernels.sort, threads, batch, flat.size, flat, batch, tile, n, width, start.copy(), when, dense, size
    )
    return Sorted(steps, batch, n, tile, width, reach, start, when, size)


def _laid_out(weight: A, delay: A, s: Sorted) -> tuple[A, A, A]:
    blocks = -(-len(weight) // s.width)
    near, far = (np.empty((blocks, s.n, s.width), weight.dtype) for _ in range(2))
    place = np.empty((blocks, s.n, s.width), np.uint32)
    delay_kernels.lay_out(0, s.n, weight, delay, near, far, place)
    return near, far, place


class _Late(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, delay: Tensor, longest: int, past: Tensor | None) -> Tensor:
        w = weight.detach().contiguous().numpy()
        d = delay.detach().to(weight.dtype).contiguous().numpy()
        s = sources(x, past, len(w), longest, w.dtype)
        near, far, place = _laid_out(w, d, s)
        y = np.empty((s.steps, s.batch, len(w)), w.dtype)
        both = bool(far.any())
        rows = (s.tile + s.reach) * s.width

        def push(first: int, last: int) -> None:
            room = np.empty(rows, w.dtype)
            args = (s.tile, s.start, s.when, s.size, near, far, place, both, room, y)
            delay_kernels.push(first, last, *args)

        over_rows(push, torch.get_num_threads(), s.batch, len(s.when) * len(w))
        ctx.sorted, ctx.lead = s, s.steps - len(x)
        ctx.save_for_backward(weight, delay)
        return torch.from_numpy(y[ctx.lead :])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weight, delay = ctx.saved_tensors
        s: Sorted = ctx.sorted
        w = weight.detach().contiguous().numpy()
        d = delay.detach().to(weight.dtype).contiguous().numpy()
        g = grads[0].detach().to(weight.dtype)
        g = functional.pad(g, (0, 0, 0, 0, ctx.lead, 0)) if ctx.lead else g.contiguous()
        wants_x, wants_w, wants_d = ctx.needs_input_grad[:3]
        near, far, place = _laid_out(w, d, s)
        d_w, d_d = (
            _to_synapses(s, g.numpy(), w, d, place, bool(far.any()) or wants_d, wants_d)
            if (wants_w or wants_d)
            else (None, None)
        )
        d_x = to_sources(s, g.numpy(), near, far, place)[ctx.lead :] if wants_x else None
        found = [None if a is None else torch.from_numpy(a) for a in (d_x, d_w, d_d)]
        return found[0], found[1] if wants_w else None, found[2] if wants_d else None, None, None


def _pulled(s: Sorted, g: A, place: A, both: bool) -> tuple[A, A]:
    """`delay_kernels.pull` over all sources."""
    s1, s2 = (np.zeros(place.shape, g.dtype) for _ in range(2))
    rows = (s.tile + s.reach) * s.width

    def pull(first: int, last: int) -> None:
        room = np.empty(rows, g.dtype)
        delay_kernels.pull(first, last, s.tile, s.start, s.when, s.size, g, place, both, room, s1, s2)

    over_rows(pull, torch.get_num_threads(), s.n, len(s.when) * g.shape[2])
    return s1, s2


def arrived(s: Sorted, g: A, place: A, outs: int) -> tuple[A, A]:
    """[out, in] each: what arrived k, and k + 1, steps late weighed by the gradient g there."""
    first, second = (a.transpose(0, 2, 1).reshape(-1, s.n)[:outs] for a in _pulled(s, g, place, True))
    return first, second


def _to_synapses(s: Sorted, g: A, weight: A, delay: A, place: A, both: bool, wants_d: bool) -> tuple[A, A | None]:
    """Gradients of weights and delays."""
    s1, s2 = _pulled(s, g, place, both)
    d_w = np.empty_like(weight)
    d_d = np.empty_like(weight) if wants_d else np.empty((0, 0), weight.dtype)
    threads = torch.get_num_threads()
    over_rows(delay_kernels.gradients, threads, len(weight), weight.size, s1, s2, weight, delay, d_w, d_d)
    return d_w, d_d if wants_d else None


def to_sources(s: Sorted, g: A, near: A, far: A, place: A) -> A:
    """Gradient of what came in, [time, batch, in]."""
    d_x = np.empty((s.steps, s.batch, s.n), g.dtype)
    both = bool(far.any())

    def slide(first: int, last: int) -> None:
        room = np.empty((s.width, s.tile + s.reach), g.dtype)
        rows = np.empty((s.n, s.tile), g.dtype)
        delay_kernels.slide(first, last, s.tile, g, near, far, place, both, room, rows, d_x)

    over_rows(slide, torch.get_num_threads(), s.batch, d_x.size * len(near[0, 0]))
    return d_x
