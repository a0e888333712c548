"""The autograd node of `neuro.nn.conv`: a convolution, perhaps a norm and neurons, forwards and backwards."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from neuro.nn import conv_kernels, conv_norm, conv_scan, kernels
from neuro.nn.conv_geometry import Geometry, geometry
from neuro.nn.fused import Rule, surrogate_kind
from neuro.nn.joined import Carry
from neuro.nn.layers import Neuron
from neuro.nn.neurons import State
from neuro.nn.spikes import Spikes
from neuro.nn.thinned import Thinned

A = NDArray[Any]
aten: Any = torch.ops.aten
# Nanoseconds on one core at 2.6 GHz with AVX-512 (tests/bench/bench_conv.py): a run of weights, a multiply-add of a
# run, a multiply-add of torch's dense convolution.
NS_RUN, NS_SPARSE, NS_DENSE = 5.0, 1 / 14, 1 / 60
PARTS = 8  # of the rows, each with a weight gradient of its own; they are added in order
MOST_PARTIAL = 1 << 23  # numbers in all parts' weight gradients
CACHED = 1 << 15  # numbers of membrane that one block holds over all steps
BLOCK = 1024  # neurons of a block, at most


@dataclass(frozen=True)
class Job:
    """What of a call is not a tensor. neurons None: the currents are the result."""

    conv: nn.Conv2d
    norm: nn.Module | None
    neurons: Neuron | None
    carry: Carry | None

    @property
    def settings(self) -> tuple[Any, ...]:
        return self.conv.stride, self.conv.padding, self.conv.dilation, self.conv.groups


def convolve(job: Job, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Spikes or currents [time, batch, channel, height, width] for x of that form."""
    affine = (getattr(job.norm, "weight", None), getattr(job.norm, "bias", None))
    y: Tensor = _Convolve.apply(x, weight, bias, *affine, job)  # type: ignore[no-untyped-call]
    return y


def share(function: Callable[..., None], count: int, size: int, *arguments: Any, room: Any = None) -> None:
    """function(first, last, *room, *arguments) over 0..count - 1 in threads. size: elements in all; room(): arrays of
    a thread's own."""
    threads = torch.get_num_threads()
    parts = max(1, min(threads, count, size // kernels.WORTH_A_THREAD))
    ends = [count * k // parts for k in range(parts + 1)]
    own = [(a, b, *(room() if room else ()), *arguments) for a, b in itertools.pairwise(ends)]
    jobs = [kernels._pool(threads).submit(function, *each) for each in own[1:]]
    try:
        function(*own[0])  # the caller works too
    finally:
        for job in jobs:
            job.result()


@dataclass(frozen=True)
class _Layout:
    """Sizes as the kernels take them, and weights as they do: [group, in of a group, tap, out of a group]."""

    geo: Geometry
    groups: int
    inputs: int  # of a group
    each: int  # outputs of a group

    @staticmethod
    def of(conv: nn.Conv2d, shape: tuple[int, ...]) -> _Layout:
        pairs = [(int(v[0]), int(v[1])) for v in (conv.kernel_size, conv.stride, conv.padding, conv.dilation)]
        geo = geometry((shape[3], shape[4]), *pairs, conv.groups > 1)
        return _Layout(geo, conv.groups, conv.in_channels // conv.groups, conv.out_channels // conv.groups)

    @property
    def out(self) -> int:
        return self.groups * self.each

    @property
    def places(self) -> int:
        return self.geo.size[0] * self.geo.size[1]

    @property
    def arguments(self) -> tuple[Any, ...]:
        return *self.geo.tables, len(self.geo.order), self.out, self.each, self.inputs

    def pack(self, weight: Tensor, factor: float) -> A:
        by_tap = weight.detach().reshape(self.groups, self.each, self.inputs, -1).permute(0, 2, 3, 1)
        return by_tap[:, :, torch.from_numpy(self.geo.order)].mul_(factor).contiguous().view(-1).numpy()

    def unpack(self, flat: Tensor, like: Tensor) -> Tensor:
        by_tap = flat.view(self.groups, self.inputs, len(self.geo.order), self.each)
        rank = torch.from_numpy(np.argsort(self.geo.order))
        return by_tap[:, :, rank].permute(0, 3, 1, 2).reshape(like.shape)

    def sparse(self, spikes: Spikes, size: int) -> bool:
        """Whether events are cheaper than a dense convolution by ``size`` weights: a function of the number of
        spikes and of constants."""
        pixels = len(self.geo.start) - 1
        adds = float(self.geo.count.sum(dtype=np.int64)) / pixels * self.each
        per_spike = NS_RUN * len(self.geo.place) / pixels + NS_SPARSE * adds
        return spikes.total() * per_spike < NS_DENSE * len(spikes.words) * self.places * size


class _Convolve(torch.autograd.Function):
    """Currents lie in memory with channels innermost, [time * batch, place * channel]."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, gamma: Tensor | None, delta: Tensor | None, job: Job
    ) -> Tensor:
        lay = _Layout.of(job.conv, tuple(x.shape))
        spikes, factor = (x.spikes, x.factor) if isinstance(x, Thinned) else (x, 1.0)
        events = spikes if isinstance(spikes, Spikes) and lay.sparse(spikes, weight.numel()) else None
        current, sums = _currents(job, lay, x, events, factor, weight, bias)
        ctx.set_materialize_grads(False)
        ctx.job, ctx.lay, ctx.events, ctx.factor, ctx.x_shape = job, lay, events, factor, tuple(x.shape)
        ctx.bits = x if isinstance(x, (Spikes, Thinned)) and events is None else None
        shape = (*x.shape[:2], lay.out, *lay.geo.size)
        dense = (x,) if events is None and ctx.bits is None else ()
        if job.neurons is None:
            ctx.save_for_backward(weight, None, *dense)
            return current.view(*x.shape[:2], *lay.geo.size, lay.out).permute(0, 1, 4, 2, 3)
        ctx.save_for_backward(weight, current, *dense)
        ctx.sums = sums.sum(0)
        ctx.normed = conv_norm.normalise(job.norm, ctx.sums, len(current) * lay.places)
        ctx.state = _state(job.carry, shape, x.dtype)
        return _fire(ctx, current, shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        (g,), job, lay = grads, ctx.job, ctx.lay
        if g is None:
            return (None,) * 6
        weight, current, *dense = ctx.saved_tensors
        need_x, need_weight = ctx.needs_input_grad[:2]
        g = g.permute(0, 1, 3, 4, 2).contiguous().view(*g.shape[:2], -1)
        rows = g.shape[0] * g.shape[1]
        d_gamma = d_delta = d_bias = None
        a = b = c = np.zeros(0, g.numpy().dtype)
        if job.neurons is None:
            d_y = g.view(rows, -1)
            d_bias = d_y.view(-1, lay.out).sum(0) if ctx.needs_input_grad[2] else None
        else:
            d_y, s = _unfire(ctx, current, g)
            count = rows * lay.places
            a, b, c, gamma, delta = conv_norm.gradients(job.norm, ctx.normed, s, count)
            d_gamma = torch.from_numpy(gamma).to(g.dtype) if ctx.needs_input_grad[3] else None
            d_delta = torch.from_numpy(delta).to(g.dtype) if ctx.needs_input_grad[4] else None
            if ctx.needs_input_grad[2]:
                d_bias = torch.from_numpy(a * s[0] + b * ctx.sums[0] + c * count).to(g.dtype)
            a, b, c = (np.tile(k.astype(g.numpy().dtype), lay.places) for k in (a, b, c))
        normed = job.norm is not None and job.neurons is not None
        held = current if normed else d_y.new_empty((0, 0))
        d_weight = None
        if need_weight and ctx.events is not None:
            d_weight = _weights_by_event(lay, ctx.events, ctx.factor, d_y, held, (a, b, c, normed), weight)
        elif normed:
            share(conv_kernels.unscale, rows, d_y.numel(), d_y.numpy(), held.numpy(), a, b, c)
        if need_weight and ctx.events is None:
            x = ctx.bits.dense() if ctx.bits is not None else dense[0]
            d_weight = _weights_dense(job, lay, d_y, x.flatten(0, 1), weight)
        d_x = None
        if need_x:
            d_x = _inputs(job, lay, d_y, weight, ctx.x_shape)
        return d_x, d_weight, d_bias, d_gamma, d_delta, None


def _currents(
    job: Job, lay: _Layout, x: Tensor, events: Spikes | None, factor: float, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, A]:
    """[rows, places * out], and their sums and sums of squares [rows, 2, out]."""
    rows = x.shape[0] * x.shape[1]
    sums = np.empty((rows, 2, lay.out))
    if events is not None:
        current = torch.empty((rows, lay.places * lay.out), dtype=x.dtype)
        start = torch.zeros(lay.out, dtype=x.dtype) if bias is None else bias.detach().contiguous()
        arrays = (events.words, lay.pack(weight, factor), *lay.arguments, start.numpy(), current.numpy(), sums)
        share(conv_kernels.forward, rows, current.numel(), *arrays)
        return current, sums
    dense = x.dense() if isinstance(x, (Spikes, Thinned)) else x.detach()
    flat = dense.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    held = weight.detach().contiguous(memory_format=torch.channels_last)
    y = functional.conv2d(flat, held, None if bias is None else bias.detach(), *job.settings)
    current = y.permute(0, 2, 3, 1).contiguous().view(rows, -1)
    if job.neurons is not None:
        share(conv_kernels.moments, rows, current.numel(), current.numpy(), sums)
    return current, sums


def _state(carry: Carry | None, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[A, A]:
    """i and m [batch, n] to start from, channels innermost."""
    if carry is None or carry.value is None:
        size = (shape[1], shape[2] * shape[3] * shape[4])
        return torch.zeros(size, dtype=dtype).numpy(), torch.zeros(size, dtype=dtype).numpy()
    parts = [p.detach().to(dtype).permute(0, 2, 3, 1).flatten(1).contiguous() for p in carry.value]
    return parts[0].numpy(), parts[1].numpy()


def _coefficients(neurons: Neuron, dtype: np.dtype[Any]) -> tuple[Any, ...]:
    values = {n: dtype.type(neurons.value(n).to(torch.float64).item()) for n in ("alpha", "gain_syn", "beta", "gain",
              "drive", "v_threshold", "v_reset")}  # fmt: skip
    return (*values.values(), neurons.reset == "subtract")


def _spread(ctx: Any, dtype: np.dtype[Any]) -> tuple[A, A]:
    """The norm's factor and shift for every neuron."""
    return tuple(np.tile(v.astype(dtype), ctx.lay.places) for v in (ctx.normed.factor, ctx.normed.shift))  # type: ignore[return-value]


def _fire(ctx: Any, current: Tensor, shape: tuple[int, ...]) -> Spikes:
    steps, batch, out = shape[:3]
    n = current.shape[1]
    x = current.view(steps, batch, n).numpy()
    words = np.empty((steps, batch, -(-n // 64)), np.uint64)
    order = np.ascontiguousarray(np.arange(n, dtype=np.uint32).reshape(out, -1).T).reshape(-1)
    i, m = (part.copy() for part in ctx.state)
    neurons, carry = ctx.job.neurons, ctx.job.carry
    arrays = (BLOCK, x, *_spread(ctx, x.dtype), order, words, i, m, *_coefficients(neurons, x.dtype))
    share(conv_scan.forward, batch, current.numel(), *arrays)
    if carry is not None:
        size = (batch, *shape[3:], out)
        carry.value = State(*(torch.from_numpy(p).view(size).permute(0, 3, 1, 2).contiguous() for p in (i, m)))
    return Spikes(words.reshape(steps * batch, -1), shape, current.dtype)


def _unfire(ctx: Any, current: Tensor, g: Tensor) -> tuple[Tensor, A]:
    """The gradient of what the neurons read, [rows, n], and its S1 and S2."""
    neurons: Neuron = ctx.job.neurons
    steps, batch, n = g.shape
    dtype = g.numpy().dtype
    kind, steepness = surrogate_kind(Rule(neurons.surrogate))
    theta, v_reset = (neurons.value(name).item() for name in ("v_threshold", "v_reset"))
    attached = 0.0 if neurons.detach else 1.0
    subtract = neurons.reset == "subtract"
    slope = (0.0 if subtract else 1.0, attached * (-theta if subtract else v_reset), 0.0 if subtract else -attached)
    block = min(BLOCK, max(64, CACHED // steps // 64 * 64))
    d_y, sums = torch.empty((steps * batch, n), dtype=g.dtype), np.empty((batch, 2, ctx.lay.out))

    def room() -> list[A]:
        held = torch.empty((7 + steps, block), dtype=g.dtype).numpy()
        return [*held[:7], held[7:]]

    share(
        conv_scan.backward, batch, g.numel(), current.view(g.shape).numpy(), *_spread(ctx, dtype), g.numpy(),
        d_y.view(g.shape).numpy(), *ctx.state, sums, kind, dtype.type(steepness), *_coefficients(neurons, dtype),
        *(dtype.type(v) for v in slope), room=room,
    )  # fmt: skip
    return d_y, sums.sum(0)


def _weights_by_event(
    lay: _Layout,
    events: Spikes,
    factor: float,
    d_y: Tensor,
    current: Tensor,
    norm: tuple[A, A, A, bool],
    weight: Tensor,
) -> Tensor:
    parts = max(1, min(PARTS, MOST_PARTIAL // weight.numel(), len(d_y)))
    partial = torch.zeros((parts, weight.numel()), dtype=d_y.dtype)
    arrays = (events.words, d_y.numpy(), current.numpy(), *norm, *lay.arguments, partial.numpy())
    share(conv_kernels.weights, parts, d_y.numel(), *arrays)
    return lay.unpack(partial.sum(0).mul_(factor), weight)


@cache
def _workers(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="neuro.nn.conv")


def _weights_dense(job: Job, lay: _Layout, d_y: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Torch adds up the samples of a batch in an order that depends on the threads: so each part has one."""
    g = d_y.view(len(d_y), *lay.geo.size, lay.out).permute(0, 3, 1, 2)
    held = weight.detach().contiguous(memory_format=torch.channels_last)
    threads, ends = torch.get_num_threads(), [len(g) * k // PARTS for k in range(PARTS + 1)]
    pairs = [(a, b) for a, b in itertools.pairwise(ends) if a < b]

    def part(a: int, b: int) -> Tensor:
        if threads > 1:
            torch.set_num_threads(1)  # of this worker
        inputs = x[a:b].contiguous(memory_format=torch.channels_last)
        settings = ([0, 0], job.conv.groups, [False, True, False])
        found: Tensor = aten.convolution_backward(g[a:b], inputs, held, None, *job.settings[:3], False, *settings)[1]
        return found

    if threads == 1:
        found = [part(*pair) for pair in pairs]
    else:
        found = [job_.result() for job_ in [_workers(threads).submit(part, *pair) for pair in pairs]]
        torch.set_num_threads(threads)  # what a thread that torch has not seen yet would start with
    return torch.stack(found).sum(0)


def _inputs(job: Job, lay: _Layout, d_y: Tensor, weight: Tensor, shape: tuple[int, ...]) -> Tensor:
    g = d_y.view(len(d_y), *lay.geo.size, lay.out).permute(0, 3, 1, 2)
    held = weight.detach().contiguous(memory_format=torch.channels_last)
    conv: Any = job.conv
    rest = [
        n - ((p - 1) * s - 2 * q + d * (k - 1) + 1)
        for n, p, k, s, q, d in zip(shape[3:], lay.geo.size, conv.kernel_size, conv.stride, conv.padding, conv.dilation,
                                    strict=True)
    ]  # fmt: skip
    d_x: Tensor = functional.conv_transpose2d(
        g, held, None, conv.stride, conv.padding, rest, conv.groups, conv.dilation
    )
    return d_x.view(*shape[:2], *d_x.shape[1:])
