"""A Linear of few outputs and the integrators behind it as one autograd node: the head of a classifier.

`neuro.nn.dense` works on blocks of 64 outputs. Ten outputs of a wide layer cost it as much as 64 do, and most of that
is to turn matrices and lists round: a tenth of a training step of a convolutional network (measured). Here each pass is
one compiled call per thread (`neuro.nn.head_kernels`), from the bits of the spikes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuro.nn import head_kernels as hk
from neuro.nn.conv_layout import by_sample
from neuro.nn.deals import hands
from neuro.nn.joined import Carry
from neuro.nn.layers import Neuron
from neuro.nn.neurons import State
from neuro.nn.pages import lined, paged
from neuro.nn.spikes import Spikes

A = NDArray[Any]
NAMES = ("alpha", "gain_syn", "beta", "gain", "drive")  # in the order of `head_kernels`
LARGEST = 1 << 20  # numbers in all columns: 4 MiB in float32; every part of the batch has as much
PARTS = 4  # of the batch, each with sums of its own: fixed, so that results do not depend on threads


def few(x: Tensor, outputs: int, neurons: Neuron) -> bool:
    """Whether a Linear of so many outputs and these neurons can run here: spikes in, fixed integrators behind."""
    small = outputs <= hk.MOST and x.shape[-1] * _wide(outputs) <= LARGEST
    return small and isinstance(x, Spikes) and not neurons.spiking and not neurons.learn


def _wide(outputs: int) -> int:
    """Up to a multiple of a line of the cache."""
    return -(-outputs // hk.LINE) * hk.LINE


def run(x: Spikes, weight: Tensor, bias: Tensor | None, neurons: Neuron, carry: Carry | None = None) -> Tensor:
    """v [time, batch, out] of neurons(x weight^T + bias), for what `few` takes; see `neuro.nn.dense.run`."""
    y: Tensor = _Head.apply(x, weight, bias, _Call(neurons, carry))  # type: ignore[no-untyped-call]
    return y


@dataclass(frozen=True)
class _Call:
    """What of a run is not a tensor."""

    neurons: Neuron
    carry: Carry | None


class _Head(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Spikes, weight: Tensor, bias: Tensor | None, call: _Call) -> Tensor:
        steps, batch, inputs = x.shape
        n, w = weight.shape[0], weight.detach().contiguous().numpy()
        wide = _wide(n)
        p = np.zeros((hk.COEFFICIENTS, wide), w.dtype)
        for row, name in zip(p, NAMES, strict=False):
            row[:n] = call.neurons.value(name).detach().numpy()
        if bias is not None:
            p[hk.BIAS, :n] = bias.detach().numpy()
        i, m = _state(call.carry, batch, wide, n, w.dtype)
        v = np.empty((steps, batch, n), w.dtype)
        arrays = (x.words, w, p, lined((inputs * wide,), w.dtype), i, m, v)

        def room() -> list[A]:
            return [np.empty(inputs + 4, np.uint32), np.empty(wide, w.dtype)]

        hands(hk.PHASES, steps * batch * inputs, hk.forward, arrays, room)
        if call.carry is not None:
            call.carry.value = State(*(torch.from_numpy(part[:, :n].copy()) for part in (i, m)))
        ctx.words, ctx.p, ctx.shape = x.words, p, (steps, batch, inputs)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(weight)
        return torch.from_numpy(v)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        g = grads[0]
        if g is None:
            return (None,) * 4
        (weight,) = ctx.saved_tensors
        (steps, batch, inputs), (want_x, want_w, want_b) = ctx.shape, ctx.needs_input_grad[:3]
        w = weight.detach().contiguous().numpy()
        n, rows, parts, wide = len(w), steps * batch, min(PARTS, batch), ctx.p.shape[1]
        same = g.stride(0) == 0  # as that of a sum over time is
        above = (g.detach()[:1] if same else g.detach()).contiguous().numpy()
        d_x = lined((rows if want_x else 0, inputs), w.dtype)
        d_weight = np.empty((n if want_w else 0, inputs), w.dtype)
        tables = paged((parts, inputs * wide if want_w else 0), w.dtype)
        biases = np.empty((parts, wide), w.dtype)
        delta = lined((rows, wide), w.dtype)
        arrays = (by_sample(steps, batch), ctx.words, w, ctx.p, above, delta, tables, biases, d_x, d_weight)

        def room() -> list[A]:
            return [np.empty(inputs + 4, np.uint32), *np.empty((2, wide), w.dtype)]

        hands(hk.PHASES, rows * inputs, hk.backward, arrays, room)
        return (
            torch.from_numpy(d_x).view(steps, batch, inputs) if want_x else None,
            torch.from_numpy(d_weight) if want_w else None,
            torch.from_numpy(biases.sum(0)[:n]) if want_b else None,
            None,
        )


def _state(carry: Carry | None, batch: int, wide: int, n: int, dtype: np.dtype[Any]) -> tuple[A, A]:
    """i and m [batch, wide] to start from, of n neurons."""
    i, m = np.zeros((2, batch, wide), dtype)
    if carry is not None and carry.value is not None:
        for to, part in zip((i, m), carry.value, strict=True):
            to[:, :n] = part.detach().reshape(batch, n).numpy()
    return i, m
