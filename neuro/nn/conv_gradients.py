"""Gradients of a convolution's weights and input, given that of its currents.

Rows are cut into `PARTS`, whatever the number of threads; each part has a weight gradient of its own, and they are
added in order. Within a part the gradient of the currents, the events and the gradient of the input meet in cache, and
all parts of a thread are one compiled call: Python between them had threads wait for each other (a seventh of a
training step, measured).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from neuro.nn import conv_kernels
from neuro.nn.conv_layout import Job, Layout, share
from neuro.nn.conv_products import ROWS
from neuro.nn.spikes import Spikes

A = NDArray[Any]
aten: Any = torch.ops.aten
PARTS = 8
MOST_PARTIAL = 1 << 24  # numbers in all parts' weight gradients


@dataclass(frozen=True)
class Given:
    """d_y [rows, places * out]: gradient of the currents, or of what the norm (a, b, c, currents) made of them, which
    becomes that of the currents. events: what was convolved, times factor; None: x was, [time, batch, *]."""

    job: Job
    lay: Layout
    d_y: Tensor
    norm: tuple[A, A, A, A] | None
    events: Spikes | None
    factor: float
    x: Tensor | None
    weight: Tensor
    shape: tuple[int, ...]


def through(g: Given, need_x: bool, need_weight: bool) -> tuple[Tensor | None, Tensor | None]:
    """(gradient of x, channels innermost in memory; gradient of the weight), None where not needed."""
    lay, d_y, weight = g.lay, g.d_y.numpy(), g.weight.detach()
    rows, by_events = len(d_y), need_weight and g.events is not None
    tiles = -(-rows // ROWS)
    parts = max(1, min(PARTS, MOST_PARTIAL // weight.numel(), tiles))
    ends = np.array([min(rows, tiles * k // parts * ROWS) for k in range(parts + 1)])
    partial = np.empty((parts, weight.numel() if need_weight else 0), d_y.dtype)
    d_x = np.empty((rows if need_x else 0, len(lay.geo.kind) * lay.inputs * lay.groups), d_y.dtype)
    matrix = weight.flatten(2).transpose(1, 2).reshape(lay.out, -1).numpy()
    nothing = np.empty((0, 0), d_y.dtype)
    words = g.events.words if g.events is not None else np.empty((0, 0), np.uint64)
    *norm, current = g.norm or (nothing[0:0].reshape(-1),) * 3 + (nothing,)
    normed = g.norm is not None and (by_events or not need_weight)
    arrays: tuple[Any, ...] = (
        ends, words, d_y, current, *norm, normed, *lay.gathered, partial if by_events else nothing, lay.geo.reach,
        matrix, d_x if lay.groups == 1 else nothing,
    )  # fmt: skip
    held = weight if by_events and lay.groups == 1 else weight.contiguous(memory_format=torch.channels_last)
    threads = torch.get_num_threads()

    def run(first: int, last: int, *lists: Any) -> None:
        if need_weight and not by_events:
            for part in range(first, last):
                _dense_weights(g, int(ends[part]), int(ends[part + 1]), held, partial[part])
        conv_kernels.backward(first, last, *lists, *arrays)
        if need_x and lay.groups > 1:
            for part in range(first, last):
                a, b = int(ends[part]), int(ends[part + 1])
                d_x[a:b] = _inputs_of_groups(g, a, b, held).numpy()

    def alone(*given: Any) -> None:
        """How torch would share a product out among its threads would decide the order of its sums."""
        torch.set_num_threads(1)  # of this thread
        run(*given)

    torchs = (need_weight and not by_events) or (need_x and lay.groups > 1)
    try:
        share(alone if torchs and threads > 1 else run, parts, d_y.size, room=lambda: lay.lists(rows, by_events))
    finally:
        if torchs and threads > 1:
            torch.set_num_threads(threads)
    inputs = torch.from_numpy(d_x).view(*g.shape[:2], *g.shape[3:], -1).permute(0, 1, 4, 2, 3) if need_x else None
    if not need_weight:
        return inputs, None
    if by_events:
        return inputs, lay.unpack(partial, g.factor, weight)
    return inputs, torch.from_numpy(partial.sum(0)).view(weight.shape)


def _dense_weights(g: Given, a: int, b: int, held: Tensor, partial: A) -> None:
    """Rows a..b - 1: d_y becomes the gradient of the currents; the weights' is left in ``partial``."""
    if g.norm is not None:
        conv_kernels.unscale(a, b, g.d_y.numpy(), g.norm[3], *g.norm[:3])
    assert g.x is not None
    inputs = g.x.flatten(0, 1)[a:b].contiguous(memory_format=torch.channels_last)
    settings = (*g.job.settings[:3], False, [0, 0], g.lay.groups, [False, True, False])
    partial[:] = aten.convolution_backward(_currents(g, a, b), inputs, held, None, *settings)[1].reshape(-1).numpy()


def _currents(g: Given, a: int, b: int) -> Tensor:
    return g.d_y[a:b].view(b - a, *g.lay.geo.size, g.lay.out).permute(0, 3, 1, 2)


def _inputs_of_groups(g: Given, a: int, b: int, held: Tensor) -> Tensor:
    """[rows, pixels * in]"""
    conv: Any = g.job.conv
    sizes = (g.shape[3:], g.lay.geo.size, conv.kernel_size, conv.stride, conv.padding, conv.dilation)
    rest = [n - ((p - 1) * s - 2 * q + d * (k - 1) + 1) for n, p, k, s, q, d in zip(*sizes, strict=True)]
    settings = (conv.stride, conv.padding, rest, conv.groups, conv.dilation)
    found = functional.conv_transpose2d(_currents(g, a, b), held, None, *settings)
    return found.permute(0, 2, 3, 1).reshape(b - a, -1)
