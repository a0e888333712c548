"""Gradients of a convolution's weights and input, given those of its currents or of the spikes behind them.

Rows are cut into `PARTS`, whatever the number of threads; each part has a weight gradient of its own, and they are
added in order. All is one compiled call (`conv_passes.backward`) but what torch has to do: the weights of what was
convolved dense, and the inputs of groups.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from neuro.nn import conv_kernels, conv_passes
from neuro.nn.conv_layout import Job, Layout, by_sample, share
from neuro.nn.conv_products import ROWS
from neuro.nn.deals import hands
from neuro.nn.dense_kernels import WIDE
from neuro.nn.pages import lined
from neuro.nn.spikes import Spikes

A = NDArray[Any]
aten: Any = torch.ops.aten
PARTS = 8
MOST_PARTIAL = 1 << 24  # numbers in all parts' weight gradients
FAR = 1 << 32  # numbers of d_y: its kernels count in 32 bits how far apart the rows of a part lie


@dataclass(frozen=True)
class Given:
    """d_y [rows, places * out]: gradient of the currents, or room for it where there are neurons. events: what was
    convolved, times factor; None: x was, [time, batch, *]. current: of the forward pass, empty where there are no
    neurons."""

    job: Job
    lay: Layout
    d_y: Tensor
    current: A
    events: Spikes | None
    factor: float
    x: Tensor | None
    weight: Tensor
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Fired:
    """What goes back through neurons and norm, as `conv_passes.backward` takes it: g [time, batch, n] or room for it,
    where wide_g [rows, channels, places] is as torch has it. after: from the forward pass's factors to the state it
    began with, and whether the neurons are plain. rule: from kind to c_uh. norm, known: of the norm."""

    g: A
    wide_g: A
    after: tuple[Any, ...]
    rule: tuple[Any, ...]
    norm: int
    known: A


@dataclass
class Found:
    """d_x: channels innermost in memory. held: sums of the gradient, see `conv_passes`. None where not asked for."""

    d_x: Tensor | None = None
    d_weight: Tensor | None = None
    held: A = field(default_factory=lambda: np.zeros((conv_passes.GRADIENTS, 0)))


def through(g: Given, fired: Fired | None, need_x: bool, need_weight: bool) -> Found:
    """Back through neurons and norm, where there are, and the convolution."""
    lay, d_y, weight = g.lay, g.d_y.numpy(), g.weight.detach()
    rows, by_events, dtype = len(d_y), need_weight and g.events is not None, d_y.dtype
    tiles = -(-rows // ROWS)
    parts = max(1, min(PARTS, MOST_PARTIAL // weight.numel(), tiles))
    ends = np.array([min(rows, tiles * k // parts * ROWS) for k in range(parts + 1)])
    partial = lined((parts, weight.numel() if need_weight else 0), dtype)
    nothing = np.empty((0, 0), dtype)
    none = partial[:, :0].copy()
    inputs = len(lay.geo.kind) * lay.inputs * lay.groups
    d_x = lined((rows if need_x else 0, inputs), dtype)
    matrix = weight.flatten(2).transpose(1, 2).reshape(lay.out, -1).numpy()
    words = g.events.words if g.events is not None else np.empty((0, 0), np.uint64)
    d_weight = torch.empty(weight.shape, dtype=weight.dtype)
    by_group = d_weight.view(lay.groups, lay.each, lay.inputs, -1).numpy()
    ending = dtype.type(g.factor), lay.geo.order, by_group
    dense = need_weight and not by_events
    normed = fired is not None and g.job.norm is not None
    steps = fired.g.shape[0] if fired is not None else 0

    def room() -> list[A]:
        size = d_y.shape[1] if fired is not None else 0
        lines = lined((steps, int(WIDE)), dtype), *np.empty((2, 2, WIDE), dtype)
        held = np.empty((conv_passes.GRADIENTS, lay.out if fired is not None else 0))
        return [*lay.lists(rows, by_events), *lines, held, *lined((3, size), dtype)]

    if fired is None:
        back = Fired(
            nothing[None], nothing[None], _no_state(dtype), _no_rule(dtype), conv_passes.GIVEN, np.empty((0, 0))
        )
    else:
        back = fired
    sums = np.empty((back.g.shape[1], 2, lay.out))
    front = (back.g, back.wide_g, g.current, *back.after, d_y, sums, *back.rule, back.norm, back.known)
    onwards = (need_x or need_weight) and not dense
    towards = partial if by_events else none
    listed = by_sample(g.shape[0], g.shape[1]) if d_y.size < FAR else np.arange(rows)
    left = (
        ends,
        listed,
        words,
        *lay.gathered,
        towards,
        lay.geo.reach,
        matrix,
        d_x if lay.groups == 1 else nothing,
        *ending,
    )
    arrays = (fired is not None, *front, onwards, normed, *left)
    own = hands(conv_passes.PHASES + parts, d_y.size, conv_passes.backward, arrays, room)
    found = Found(held=own[6])
    if dense:
        held = weight.contiguous(memory_format=torch.channels_last)

        def weights(first: int, last: int) -> None:
            for part in range(first, last):
                _dense_weights(
                    g, int(ends[part]), int(ends[part + 1]), held, own[7:] if normed else None, partial[part]
                )

        _alone(weights, parts, d_y.size)
        if need_x and lay.groups == 1:
            hands(conv_passes.PHASES + parts, d_y.size, conv_passes.backward, (False, *front, True, False, *left), room)
        d_weight = torch.from_numpy(partial.sum(0)).view(weight.shape)
    if need_x and lay.groups > 1:
        held = weight if by_events else weight.contiguous(memory_format=torch.channels_last)

        def of_groups(first: int, last: int) -> None:
            for part in range(first, last):
                a, b = int(ends[part]), int(ends[part + 1])
                d_x[a:b] = _inputs_of_groups(g, a, b, held).numpy()

        _alone(of_groups, parts, d_y.size)
    if need_x:
        found.d_x = torch.from_numpy(d_x).view(*g.shape[:2], *g.shape[3:], -1).permute(0, 1, 4, 2, 3)
    found.d_weight = d_weight if need_weight else None
    return found


def _no_state(dtype: Any) -> tuple[Any, ...]:
    plane = np.empty((0, 0), dtype)
    return plane, plane, plane, False, False


def _no_rule(dtype: Any) -> tuple[Any, ...]:
    number = dtype.type(0)
    return (0, *(number,) * 8, False, *(number,) * 3)


def _alone(function: Any, parts: int, size: int) -> None:
    """How torch would share a product out among its threads would decide the order of its sums: one each."""
    threads = torch.get_num_threads()

    def run(first: int, last: int) -> None:
        torch.set_num_threads(1)  # of this thread
        function(first, last)

    try:
        share(run, parts, size)
    finally:
        torch.set_num_threads(threads)


def _dense_weights(g: Given, a: int, b: int, held: Tensor, norm: Any, partial: A) -> None:
    """Rows a..b - 1: d_y becomes the gradient of the currents; the weights' is left in ``partial``."""
    if norm is not None:
        conv_kernels.unscale(a, b, g.d_y.numpy(), g.current, *norm)
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
