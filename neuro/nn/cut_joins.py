"""Weights and neurons that are cut off from their past (`neuro.nn.cut`), as one call (`neuro.nn.joined`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from neuro.nn import conv, kernels, plain
from neuro.nn.adaptive import AdLIF
from neuro.nn.conv_function import convolve
from neuro.nn.conv_layout import Job
from neuro.nn.cut import Back, Call, Cut, coefficients, outer, returned, state_of
from neuro.nn.cut_kernels import gather
from neuro.nn.dense import linear as whole_linear
from neuro.nn.joined import Carry, Chain, joins
from neuro.nn.layers import Neuron, weights
from neuro.nn.masked import MaskedLinear
from neuro.nn.recurrent import gathers, table_of
from neuro.nn.spikes import Spikes
from neuro.nn.thinned import Thinned


@joins(nn.Linear, Cut)
@joins(MaskedLinear, Cut)
def linear(chain: Chain, x: Tensor, carry: Carry | None) -> Tensor | None:
    """A Linear and neurons; None where the joins of the neurons themselves decline too, and for unpacked inputs."""
    cut = chain.neurons
    assert isinstance(cut, Cut)
    weight, bias = weights(chain.synapses)
    fits = x.dim() == 3 and x.numel() > 0 and x.dtype == weight.dtype and (isinstance(x, Spikes) or cut.factor)
    fits = fits and not torch.is_autocast_enabled("cpu") and not plain.wanted(x)
    if not fits or cut.neuron.grid is not None or chain.norm is not None:
        return None
    given = coefficients(cut.neuron, x.dtype, (len(weight),))
    call = Call(cut.neuron, carry, Chain(chain.synapses, None, cut.layer), cut.factor, cut.see)
    if not torch.is_grad_enabled():
        return whole(call, x, weight, bias, cut.back, False)[0]
    x = x.detach() if cut.alone else x
    y: Tensor = _Entering.apply(x, weight, bias, cut.back, *given, call)  # type: ignore[no-untyped-call]
    return y


def whole(
    call: Call, x: Tensor, weight: Tensor, bias: Tensor | None, back: Tensor | None, membrane: bool
) -> tuple[Tensor, Tensor | None]:
    """(what the neurons send, u where it comes with it): the very kernels that run without a cut."""
    assert call.chain is not None
    if isinstance(call.neuron, Neuron) and back is None:
        y = whole_linear(call.chain, x, call.carry)
        assert y is not None
        return y, None
    return call.neuron.run(x, back, entering=(weight, bias), carry=call.carry, membrane=membrane)


class _Entering(torch.autograd.Function):
    """Inputs through a Linear into neurons. Of a `Neuron` only bits are kept; its membrane is made again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, back: Tensor | None, *rest: Any) -> Tensor:
        *given, call = rest
        ctx.start, ctx.before = state_of(call.carry, back is not None)
        y, u = whole(call, x, weight, bias, back, True)
        ctx.call, ctx.words, ctx.bias, ctx.recurrent = call, y.words if isinstance(y, Spikes) else None, bias, back
        ctx.traces = (None, None, None)
        if back is not None and call.see is not None and call.factor is None:
            call.see(returned(ctx, y))
        if call.factor is not None:
            dense = x.dense() if isinstance(x, (Spikes, Thinned)) else x.detach()
            late = None if back is None else call.factor.returned(returned(ctx, y).dense())
            ctx.traces = (*call.factor.inputs(dense), late)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight, None if u is None else u.detach(), *given)
        return y.detach()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        (g,) = grads
        x, weight, u, *given = ctx.saved_tensors
        need = ctx.needs_input_grad
        neuron: Neuron | AdLIF = ctx.call.neuron
        if u is None and (neuron.spiking or any(need[4:7])):
            u = neuron.run(currents(x, weight, ctx.bias), carry=Carry(ctx.start))[1]
        elif u is None:
            u = weight.new_empty(()).expand(*x.shape[:2], len(weight))
        back = Back.of(ctx, u, given, *((g, None) if neuron.spiking else (None, g)), needs=need[4:7])
        if back is None:
            return (None,) * 8
        flat = back.dx.reshape(-1, len(weight)).contiguous()
        a, always, late = ctx.traces
        d_x = (flat @ weight).view(x.shape) if need[0] else None
        d_w = d_b = d_back = None
        if need[1]:
            d_w = flat.t() @ a.flatten(0, 1) if a is not None else outer(flat, x)
        if need[2]:
            d_b = flat.sum(0) if always is None else always @ back.dx.sum(1)
        if need[3]:
            if late is not None:
                d_back = flat.t() @ late.flatten(0, 1)
            else:
                d_back = outer(flat, returned(ctx, u))
        return d_x, d_w, d_b, d_back, *back.learnt, None


def currents(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """[time, batch, out], without history."""
    n = len(weight)
    if not isinstance(x, Spikes) or not gathers(x, n):
        dense = x.dense() if isinstance(x, (Spikes, Thinned)) else x.detach()
        return functional.linear(dense, weight.detach(), None if bias is None else bias.detach())
    y = torch.empty((*x.shape[:2], n), dtype=x.dtype)
    offset = np.zeros(n, y.numpy().dtype) if bias is None else bias.detach().numpy()
    table, out, rows = table_of(weight.detach()), y.numpy().reshape(-1, n), len(x.words)

    def job(first: int, last: int) -> None:
        index = np.empty((1, x.n + 4), np.uint64)
        gather(0, last - first, x.words[first:last], table, offset, out[first:last], index)

    kernels.over_rows(job, torch.get_num_threads(), rows, rows * n)
    return y


@joins(nn.Conv2d, Cut)
def convolution(chain: Chain, x: Tensor, carry: Carry | None) -> Tensor | None:
    """As `neuro.nn.conv.run`, with neurons that are cut off from their past."""
    cut, layer = chain.neurons, chain.synapses
    assert isinstance(cut, Cut)
    assert isinstance(layer, nn.Conv2d)
    if not torch.is_grad_enabled() and isinstance(cut.layer, Neuron):
        return conv.run(Chain(layer, chain.norm, cut.layer), x, carry)
    x = x.detach() if cut.alone else x
    if (cut.factor is None and not isinstance(x, (Spikes, Thinned))) or not conv._known(layer, x):
        return None
    weight, bias = layer.weight, layer.bias
    if cut.factor is not None:
        a, always = cut.factor.inputs(x.dense() if isinstance(x, (Spikes, Thinned)) else x.detach())
        y = convolve(Job(layer, None, None, None), x, weight.detach(), None if bias is None else bias.detach())
        y = _Kernel.apply(y, weight, bias, a, always, Job(layer, None, None, None))  # type: ignore[no-untyped-call]
    else:
        y = convolve(Job(layer, None, None, None), x, weight, bias)
    if chain.norm is not None:
        y = chain.norm(y.flatten(0, 1)).unflatten(0, x.shape[:2])
    return Cut(cut.layer).sent(y, carry, False)[0]


class _Kernel(torch.autograd.Function):
    """Currents as they are; the gradient of the kernel is a product with traces, that of the bias with theirs."""

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, always: Tensor, job: Job
    ) -> Tensor:
        ctx.job = job
        ctx.save_for_backward(weight, a, always)
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (g,), (weight, a, always) = grads, ctx.saved_tensors
        d_w = d_b = None
        if ctx.needs_input_grad[1]:
            stride, padding, dilation, groups = ctx.job.settings
            arguments = (stride, padding, dilation, False, [0, 0], groups, [False, True, False])
            given = (g.flatten(0, 1), a.flatten(0, 1), weight.detach(), None)
            d_w = torch.ops.aten.convolution_backward(*given, *arguments)[1]
        if ctx.needs_input_grad[2]:
            d_b = always @ g.sum((1, 3, 4))
        return g, d_w, d_b, None, None, None
