"""The autograd node of `neuro.nn.conv`: a convolution, perhaps a norm and neurons, forwards and backwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from neuro.nn import conv_norm, conv_passes
from neuro.nn.conv_gradients import Fired, Given, through
from neuro.nn.conv_layout import Job, Layout, by_sample, empty
from neuro.nn.deals import hands
from neuro.nn.dense_kernels import WIDE
from neuro.nn.fused import Rule, surrogate_kind
from neuro.nn.joined import Carry
from neuro.nn.layers import Neuron
from neuro.nn.neurons import State
from neuro.nn.pages import lined
from neuro.nn.spikes import Spikes
from neuro.nn.thinned import Thinned

A = NDArray[Any]
COEFFICIENTS = ("alpha", "gain_syn", "beta", "gain", "drive", "v_threshold", "v_reset")


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
        ctx.set_materialize_grads(False)
        ctx.job, ctx.lay, ctx.events, ctx.factor, ctx.x_shape = job, lay, events, factor, tuple(x.shape)
        ctx.bits = x if isinstance(x, (Spikes, Thinned)) and events is None else None
        dense = (x,) if events is None and ctx.bits is None else ()
        shape = (*x.shape[:2], lay.out, *lay.geo.size)
        current = _dense(job, x, weight, bias) if events is None else _room(x.shape[0] * x.shape[1], lay, x.dtype)
        if events is None and job.neurons is None:
            ctx.save_for_backward(weight, None, *dense)
            return _as_images(current, shape)
        fired = _run(ctx, current, weight, bias, shape)
        ctx.save_for_backward(weight, current if job.neurons is not None else None, *dense)
        return _as_images(current, shape) if fired is None else fired

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        (g,), job, lay = grads, ctx.job, ctx.lay
        if g is None:
            return (None,) * 6
        weight, current, *dense = ctx.saved_tensors
        need_x, need_weight, need_bias, need_gamma, need_delta = ctx.needs_input_grad[:5]
        x = ctx.bits.dense() if ctx.bits is not None else dense[0] if dense else None
        rows = g.shape[0] * g.shape[1]
        rest = ctx.events, ctx.factor, x, weight, ctx.x_shape
        if job.neurons is None:
            d_y = g.permute(0, 1, 3, 4, 2).contiguous().view(rows, -1)
            found = through(Given(job, lay, d_y, d_y[:0].numpy(), *rest), None, need_x, need_weight)
            d_bias = d_y.view(-1, lay.out).sum(0) if need_bias else None
            return found.d_x, found.d_weight, d_bias, None, None, None
        d_y, count = _room(rows, lay, g.dtype), rows * lay.places
        found = through(Given(job, lay, d_y, current.numpy(), *rest), _back(ctx, g), need_x, need_weight)
        wanted: list[Tensor | None] = [None, None, None]
        if need_bias or need_gamma or need_delta:
            known, held = ctx.known, found.held
            a, b, c = held[conv_passes.A_], held[conv_passes.B_], held[conv_passes.C_]
            bias = a * held[conv_passes.ONE] + b * known[conv_passes.TOTAL] + c * count
            sums = (bias, *ctx.setting.gradients(known, held))
            wanted = [
                torch.from_numpy(v).to(g.dtype) if need else None
                for v, need in zip(sums, (need_bias, need_gamma, need_delta), strict=True)
            ]
        return found.d_x, found.d_weight, *wanted, None


def _room(rows: int, lay: Layout, dtype: torch.dtype) -> Tensor:
    return empty((rows, lay.places * lay.out), dtype)


def _as_images(current: Tensor, shape: tuple[int, ...]) -> Tensor:
    return current.view(*shape[:2], *shape[3:], shape[2]).permute(0, 1, 4, 2, 3)


def _dense(job: Job, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """[rows, places * out] by torch."""
    dense = x.dense() if isinstance(x, (Spikes, Thinned)) else x.detach()
    flat = dense.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    held = weight.detach().contiguous(memory_format=torch.channels_last)
    y = functional.conv2d(flat, held, None if bias is None else bias.detach(), *job.settings)
    return y.permute(0, 2, 3, 1).contiguous().view(len(flat), -1)


def _run(ctx: Any, current: Tensor, weight: Tensor, bias: Tensor | None, shape: tuple[int, ...]) -> Spikes | None:
    """Fills ``current``, where it comes from events, and runs the norm and the neurons behind it, where there are."""
    job, lay, events = ctx.job, ctx.lay, ctx.events
    (rows, n), dtype = current.shape, current.numpy().dtype
    steps, batch, out = shape[:3]
    neurons, carry = job.neurons, job.carry
    fires = neurons is not None
    setting = conv_norm.setting(job.norm if fires else None, out)
    words = np.empty((steps, batch, -(-n // 64) if fires else 0), np.uint64)
    start = _state(carry, shape, current.dtype) if fires else None
    carried = None if start is None or carry is None else tuple(part.copy() for part in start)
    size = n if fires else 0

    def room() -> list[A]:
        held = np.empty((conv_passes.STATISTICS, out))
        state = carried or np.empty((2, 0, 0), dtype)
        return [*(lay.room_of_rows() if events is not None else ()), np.empty((2, out)), held,
                lined((2, size), dtype), np.empty((2, WIDE), dtype), *state]  # fmt: skip

    numbers = _coefficients(neurons, dtype) if neurons is not None else (False, *(dtype.type(0),) * 7, False)
    sums = np.empty((-(-rows // conv_passes.GRAIN), 2, out))
    listed = by_sample(steps, batch)
    behind = (current.numpy(), sums, setting.kind, setting.affine, setting.eps, fires, lay.bits, words,
              carried is not None, *numbers)  # fmt: skip
    arrays: tuple[Any, ...] = (listed, *behind)
    run: Any = conv_passes.fire
    if events is not None:
        run = conv_passes.by_place if lay.in_registers else conv_passes.by_spike
        first = np.zeros(out, dtype) if bias is None else bias.detach().contiguous().numpy()
        arrays = (*lay.packing(weight, ctx.factor), listed, events.words, *lay.arguments, first, *behind)
    own = hands(conv_passes.PHASES, current.numel(), run, arrays, room)
    if neurons is None:
        return None
    held, spread = own[-5:-3]
    conv_norm.keep(job.norm, held, rows * lay.places)
    ctx.setting, ctx.known, ctx.spread = setting, setting.known(held), spread
    ctx.coefficients, ctx.state = numbers, start
    if carry is not None and carried is not None:
        own_shape = (batch, *shape[3:], out)
        carry.value = State(*(torch.from_numpy(p).view(own_shape).permute(0, 3, 1, 2).contiguous() for p in carried))
    return Spikes(words.reshape(steps * batch, -1), shape, current.dtype)


def _state(carry: Carry | None, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[A, A] | None:
    """i and m [batch, n] to start from, channels innermost; None: from rest, and nobody asks where it ends."""
    if carry is None:
        return None
    if carry.value is None:
        size, kind = (shape[1], shape[2] * shape[3] * shape[4]), torch.empty(0, dtype=dtype).numpy().dtype
        return np.zeros(size, kind), np.zeros(size, kind)  # a fill by torch wakes its threads, which takes longer
    parts = [p.detach().to(dtype).permute(0, 2, 3, 1).flatten(1).contiguous() for p in carry.value]
    return parts[0].numpy(), parts[1].numpy()


def _coefficients(neurons: Neuron, dtype: np.dtype[Any]) -> tuple[Any, ...]:
    """Whether they are plain (`conv_scan`), the numbers, and whether the reset subtracts."""
    values = [neurons.value(name).item() for name in COEFFICIENTS]
    plain = values[:2] == [0.0, 1.0] and values[3:5] == [1.0, 0.0]
    return (plain, *map(dtype.type, values), neurons.reset == "subtract")


def _back(ctx: Any, g: Tensor) -> Fired:
    """The gradient of the spikes and how it goes back."""
    neurons: Neuron = ctx.job.neurons
    inner = g.permute(0, 1, 3, 4, 2)
    shape, dtype = (*g.shape[:2], inner[0, 0].numel()), g.numpy().dtype
    if inner.is_contiguous() or not g.is_contiguous():
        to, wide = inner.contiguous().view(shape).numpy(), np.empty((0, 0, 0), dtype)
    else:
        to, wide = lined(shape, dtype), g.view(-1, g.shape[2], g.shape[3] * g.shape[4]).numpy()
    kind, steepness = surrogate_kind(Rule(neurons.surrogate))
    theta, v_reset = (neurons.value(name).item() for name in ("v_threshold", "v_reset"))
    attached = 0.0 if neurons.detach else 1.0
    subtract = neurons.reset == "subtract"
    slope = (0.0 if subtract else 1.0, attached * (-theta if subtract else v_reset), 0.0 if subtract else -attached)
    state = ctx.state or np.empty((2, 0, 0), dtype)
    plain, *numbers = ctx.coefficients
    rule = (kind, dtype.type(steepness), *numbers, *(dtype.type(v) for v in slope))
    after = (ctx.spread, *state, ctx.state is not None, plain)
    return Fired(to, wide, after, rule, ctx.setting.kind, ctx.known)
