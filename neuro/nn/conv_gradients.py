"""Gradients of a convolution's weights and input, given that of its currents.

Rows are cut into `PARTS`, whatever the number of threads; each part has a weight gradient of its own, and they are
added in order. Within a part the gradient of the currents, the events and the gradient of the input meet in cache.
Torch runs each part in one thread: how it would share the work out would decide the order of its sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from neuro.nn import conv_kernels
from neuro.nn.conv_layout import Job, Layout, empty, share
from neuro.nn.spikes import Spikes

A = NDArray[Any]
aten: Any = torch.ops.aten
PARTS = 8
MOST_PARTIAL = 1 << 24  # numbers in all parts' weight gradients
CHUNK = 20  # rows whose gradients by tap are in cache at once


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
    lay, rows, taps = g.lay, len(g.d_y), len(g.lay.geo.order)
    parts = max(1, min(PARTS, MOST_PARTIAL // g.weight.numel(), rows))
    ends = [rows * k // parts for k in range(parts + 1)]
    partial = torch.zeros((parts, g.weight.numel() if need_weight else 0), dtype=g.d_y.dtype)
    d_x = empty((rows, len(lay.geo.kind) * lay.inputs * lay.groups if need_x else 0), g.d_y.dtype)
    matrix = g.weight.detach().flatten(2).transpose(1, 2).reshape(lay.out, -1)
    held = g.weight.detach().contiguous(memory_format=torch.channels_last)
    threads = torch.get_num_threads()

    def room() -> list[Any]:
        """A thread's own, from the thread that waits: what others allocate goes back to the system every time."""
        chunk = min(CHUNK, rows) if need_x and lay.groups == 1 else 0
        lists = lay.lists(-(-rows // parts)) if need_weight and g.events is not None else []
        return [torch.empty((chunk, lay.places * taps * lay.inputs), dtype=g.d_y.dtype), lists]

    def run(first: int, last: int, columns: Tensor, lists: Any) -> None:
        if threads > 1:
            torch.set_num_threads(1)  # of this thread
        for part in range(first, last):
            a, b = ends[part], ends[part + 1]
            _currents_and_weights(g, a, b, lists, partial[part], held, need_weight)
            if need_x and lay.groups == 1:
                _inputs(lay, g.d_y[a:b], matrix, columns, d_x[a:b])
            elif need_x:
                d_x[a:b] = _inputs_of_groups(g, a, b, held)

    try:
        share(run, parts, g.d_y.numel(), room=room)
    finally:
        torch.set_num_threads(threads)
    inputs = d_x.view(*g.shape[:2], *g.shape[3:], -1).permute(0, 1, 4, 2, 3) if need_x else None
    if not need_weight:
        return inputs, None
    total = partial.sum(0)
    return inputs, total.view(g.weight.shape) if g.events is None else lay.unpack(total.mul_(g.factor), g.weight)


def _currents_and_weights(
    g: Given, a: int, b: int, lists: Any, partial: Tensor, held: Tensor, need_weight: bool
) -> None:
    """Rows a..b - 1: d_y becomes the gradient of the currents; the weights' is left in ``partial``."""
    lay, none = g.lay, g.d_y.new_empty((0, 0)).numpy()
    d_y, norm = g.d_y.numpy(), g.norm or (none[0:0].reshape(-1),) * 3 + (none,)
    if need_weight and g.events is not None:
        arrays = (g.events.words, d_y, norm[3], *norm[:3], g.norm is not None, *lay.gathered, partial.numpy())
        conv_kernels.weights(a, b, *lists, *arrays)
        return
    if g.norm is not None:
        conv_kernels.unscale(a, b, d_y, norm[3], *norm[:3])
    if need_weight:
        assert g.x is not None
        inputs = g.x.flatten(0, 1)[a:b].contiguous(memory_format=torch.channels_last)
        settings = (*g.job.settings[:3], False, [0, 0], lay.groups, [False, True, False])
        found = aten.convolution_backward(_currents(g, a, b), inputs, held, None, *settings)[1]
        partial.copy_(found.reshape(-1))


def _currents(g: Given, a: int, b: int) -> Tensor:
    return g.d_y[a:b].view(b - a, *g.lay.geo.size, g.lay.out).permute(0, 3, 1, 2)


def _inputs(lay: Layout, d_y: Tensor, matrix: Tensor, columns: Tensor, d_x: Tensor) -> None:
    """A matrix product per `CHUNK` rows, and the sum over taps."""
    rows, taps = len(d_y), len(lay.geo.order)
    for begin in range(0, rows, CHUNK):
        end = min(begin + CHUNK, rows)
        found = columns[: end - begin]
        torch.mm(d_y[begin:end].view(-1, lay.out), matrix, out=found.view(-1, taps * lay.inputs))
        conv_kernels.inputs(found.numpy(), len(lay.geo.kind), lay.geo.reach, taps, d_x[begin:end].numpy())


def _inputs_of_groups(g: Given, a: int, b: int, held: Tensor) -> Tensor:
    """[rows, pixels * in]"""
    conv: Any = g.job.conv
    sizes = (g.shape[3:], g.lay.geo.size, conv.kernel_size, conv.stride, conv.padding, conv.dilation)
    rest = [n - ((p - 1) * s - 2 * q + d * (k - 1) + 1) for n, p, k, s, q, d in zip(*sizes, strict=True)]
    settings = (conv.stride, conv.padding, rest, conv.groups, conv.dilation)
    found = functional.conv_transpose2d(_currents(g, a, b), held, None, *settings)
    return found.permute(0, 2, 3, 1).reshape(b - a, -1)
