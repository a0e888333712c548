"""The autograd node of `neuro.nn.conv`: a convolution, perhaps a norm and neurons, forwards and backwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from neuro.nn import conv_kernels, conv_norm, conv_scan
from neuro.nn.conv_gradients import Given, through
from neuro.nn.conv_layout import Job, Layout, empty, share
from neuro.nn.fused import Rule, surrogate_kind
from neuro.nn.joined import Carry
from neuro.nn.layers import Neuron
from neuro.nn.neurons import State
from neuro.nn.spikes import Spikes
from neuro.nn.thinned import Thinned

A = NDArray[Any]
CACHED = 1 << 15  # numbers of membrane that one block holds over all steps
BLOCK = 128  # neurons of a block, at most: 1024 take a quarter longer


def convolve(job: Job, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Spikes or currents [time, batch, channel, height, width] for x of that form."""
    affine = (getattr(job.norm, "weight", None), getattr(job.norm, "bias", None))
    y: Tensor = _Convolve.apply(x, weight, bias, *affine, job)  # type: ignore[no-untyped-call]
    return y


class _Convolve(torch.autograd.Function):
    """Currents lie in memory with channels innermost, [time * batch, place * channel]."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, gamma: Tensor | None, delta: Tensor | None, job: Job
    ) -> Tensor:
        lay = Layout.of(job.conv, tuple(x.shape))
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
        g = _channels_innermost(g)
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
            a, b, c = lay.spread(a, b, c, dtype=g.numpy().dtype)
        norm = (a, b, c, current.numpy()) if job.norm is not None and job.neurons is not None else None
        x = ctx.bits.dense() if ctx.bits is not None else dense[0] if dense else None
        given = Given(job, lay, d_y, norm, ctx.events, ctx.factor, x, weight, ctx.x_shape)
        d_x, d_weight = through(given, need_x, need_weight)
        return d_x, d_weight, d_bias, d_gamma, d_delta, None


def _channels_innermost(g: Tensor) -> Tensor:
    """[time, batch, channel, height, width] -> [time, batch, places * channel]."""
    inner = g.permute(0, 1, 3, 4, 2)
    if inner.is_contiguous() or not g.is_contiguous():
        return inner.contiguous().view(*g.shape[:2], -1)
    rows, channels, places = g.shape[0] * g.shape[1], g.shape[2], g.shape[3] * g.shape[4]
    found = np.empty((rows, places, channels), g.numpy().dtype)
    share(conv_kernels.turned, rows, g.numel(), g.view(rows, channels, places).numpy(), found)
    return torch.from_numpy(found).view(*g.shape[:2], -1)


def _currents(
    job: Job, lay: Layout, x: Tensor, events: Spikes | None, factor: float, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, A]:
    """[rows, places * out], and their sums and sums of squares [rows, 2, out]."""
    rows = x.shape[0] * x.shape[1]
    sums = np.empty((rows, 2, lay.out))
    if events is not None:
        current = empty((rows, lay.places * lay.out), x.dtype)
        start = torch.zeros(lay.out, dtype=x.dtype) if bias is None else bias.detach().contiguous()
        given, left = (events.words, lay.pack(weight, factor)), (current.numpy(), sums)
        if lay.in_registers:
            arrays = (*given, start.numpy(), *lay.by_place, *left)
            share(conv_kernels.forward_by_place, rows, current.numel(), *arrays, room=lay.room_by_place)
        else:
            arrays = (*given, *lay.arguments, start.numpy(), *left)
            share(conv_kernels.forward, rows, current.numel(), *arrays, room=lay.room)
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
        size, kind = (shape[1], shape[2] * shape[3] * shape[4]), torch.empty(0, dtype=dtype).numpy().dtype
        return np.zeros(size, kind), np.zeros(size, kind)  # a fill by torch wakes its threads, which takes longer
    parts = [p.detach().to(dtype).permute(0, 2, 3, 1).flatten(1).contiguous() for p in carry.value]
    return parts[0].numpy(), parts[1].numpy()


def _coefficients(neurons: Neuron, dtype: np.dtype[Any]) -> tuple[Any, ...]:
    values = {n: dtype.type(neurons.value(n).to(torch.float64).item()) for n in ("alpha", "gain_syn", "beta", "gain",
              "drive", "v_threshold", "v_reset")}  # fmt: skip
    return (*values.values(), neurons.reset == "subtract")


def _spread(ctx: Any, dtype: np.dtype[Any]) -> tuple[A, ...]:
    """The norm's factor and shift for every neuron."""
    return ctx.lay.spread(ctx.normed.factor, ctx.normed.shift, dtype=dtype)  # type: ignore[no-any-return]


def _fire(ctx: Any, current: Tensor, shape: tuple[int, ...]) -> Spikes:
    steps, batch, out = shape[:3]
    n = current.shape[1]
    x = current.view(steps, batch, n).numpy()
    words = np.empty((steps, batch, -(-n // 64)), np.uint64)
    i, m = (part.copy() for part in ctx.state)
    neurons, carry = ctx.job.neurons, ctx.job.carry
    ctx.spread, ctx.coefficients = _spread(ctx, x.dtype), _coefficients(neurons, x.dtype)
    arrays = (BLOCK, x, *ctx.spread, ctx.lay.bits, words, i, m, *ctx.coefficients)
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
    d_y, sums = empty((steps * batch, n), g.dtype), np.empty((batch, 2, ctx.lay.out))

    def room() -> list[A]:
        held = torch.empty((7 + steps, block), dtype=g.dtype).numpy()
        return [*held[:7], held[7:]]

    share(
        conv_scan.backward, batch, g.numel(), current.view(g.shape).numpy(), *ctx.spread, g.numpy(),
        d_y.view(g.shape).numpy(), *ctx.state, sums, kind, dtype.type(steepness), *ctx.coefficients,
        *(dtype.type(v) for v in slope), room=room,
    )  # fmt: skip
    return d_y, sums.sum(0)
