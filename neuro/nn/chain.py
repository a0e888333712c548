"""Layers of Linear and neurons that follow each other, as one autograd node: events forwards, and backwards a few
samples at a time through all layers (`neuro.nn.chain_kernels`), so that no gradient between two is ever stored.

Forwards a layer is what `neuro.nn.dense` makes of it, to the last bit. Layers join as long as their input is sparse and
their matrices fit the cache together; the others, those that learn coefficients and surrogates that only torch can
compute run one by one.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuro.nn import chain_kernels as ck
from neuro.nn import dense, head, kernels
from neuro.nn import dense_kernels as dk
from neuro.nn.dense import Lists
from neuro.nn.fused import Rule, surrogate_kind
from neuro.nn.joined import Chain, in_series
from neuro.nn.layers import Neuron, weights
from neuro.nn.pages import paged
from neuro.nn.spikes import Spikes
from neuro.nn.tile import TALL, lanes, panels

A = NDArray[Any]
WIDE = int(dk.WIDE)
FITS = 3 << 20  # bytes of matrices in whose presence a second-level cache of 2 MiB still serves: estimated
NARROW = 32  # outputs: the input's gradient of a layer that has fewer is done sooner by a product (`neuro.nn.dense`)
PARTS = 4  # of the batch, each with sums of its own: fixed, so that results do not depend on threads
ROWS = 512  # of a group of samples: half a MiB of activity for a layer of 256 in float32


@dataclass(frozen=True)
class _Layer:
    """What of a layer is not a tensor with a gradient. p: coefficients [8, blocks * WIDE], `dense_kernels`."""

    rule: Rule
    p: A
    plain: bool


@dataclass
class _Call:
    """lists: those of the first input. done: how many layers ran, set by the forward pass."""

    layers: list[_Layer]
    lists: Lists
    graph: bool
    done: int = 0


@in_series(dense.linear)
def series(chains: tuple[Chain, ...], x: Tensor) -> tuple[Tensor, int] | None:
    """Runs the first layers of a series from rest: (what the last of them sends, how many), None to decline all."""
    first = chains[0]
    assert isinstance(first.neurons, Neuron)
    if head.few(x, weights(first.synapses)[0].shape[0], first.neurons):
        return None
    found = list(itertools.takewhile(lambda made: made is not None, (_layer(chain, x) for chain in chains)))
    sizes = [-(-len(w) // WIDE) * WIDE * w.shape[1] * w.element_size() for w, _, _ in found]  # type: ignore[misc]
    count = sum(total <= FITS for total in itertools.accumulate(sizes))
    if not count or (count == 1 and len(found[0][0]) < NARROW and x.requires_grad):  # type: ignore[index]
        return None
    lists = dense.sparse(x)
    if not isinstance(lists, Lists):
        return None
    given = [(w, bias) for w, bias, _ in found[:count]]  # type: ignore[misc]
    tensors = [t for pair in given for t in pair]
    graph = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, *tensors))
    call = _Call([layer for _, _, layer in found[:count]], lists, graph)  # type: ignore[misc]
    y: Tensor = _Series.apply(x, call, *tensors)  # type: ignore[no-untyped-call]
    return y, call.done


def _layer(chain: Chain, x: Tensor) -> tuple[Tensor, Tensor | None, _Layer] | None:
    """(weight, bias, the rest); None where it cannot be part of a series."""
    neurons = chain.neurons
    assert isinstance(neurons, Neuron)
    weight, bias = weights(chain.synapses)
    rule = Rule(neurons.surrogate, neurons.reset, neurons.detach, neurons.spiking)
    if not dense.fits(chain, x, weight) or neurons.learn or surrogate_kind(rule)[0] == dk.PRECOMPUTED:
        return None
    n = len(weight)
    p = dense.padded([neurons.value(name).to(x.dtype).expand(n) for name in dense.NAMES], bias, rule.spiking, n)
    return weight, bias, _Layer(rule, p, dense.plain(p, n))


class _Series(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, call: _Call, *tensors: Tensor | None) -> Tensor:
        matrices = tensors[::2]
        steps, batch, _ = x.shape
        lists, kept = call.lists, []
        y: Tensor = x
        for k, layer in enumerate(call.layers):
            if k:
                found = dense.sparse(y)
                if not isinstance(found, Lists):
                    break
                lists = found
            weight = matrices[k]
            assert weight is not None
            words, v = dense.by_events(lists, weight, layer.p, layer.rule, layer.plain, steps, batch)
            kept.append(lists)
            n = len(weight)
            if layer.rule.spiking:
                y = Spikes(words.reshape(steps * batch, -1), (steps, batch, n), x.dtype)
            else:
                y = v
                break  # its output is no spikes
        call.done = len(kept)
        ctx.call, ctx.shape = call, x.shape
        ctx.set_materialize_grads(False)
        if call.graph:
            ctx.lists = kept
            ctx.save_for_backward(*matrices[: call.done])
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        g, count = grads[0], len(ctx.needs_input_grad)
        if g is None:
            return (None,) * count
        call: _Call = ctx.call
        steps, batch, inputs = ctx.shape
        matrices = [w.detach().contiguous().numpy() for w in ctx.saved_tensors]
        dtype, layers = matrices[0].dtype, call.layers[: call.done]
        want_x = ctx.needs_input_grad[0]
        layout = np.zeros((len(layers), ck.FIELDS), np.int64)
        reals = np.zeros((len(layers), ck.REALS), dtype)
        blocks = [-(-len(w) // WIDE) for w in matrices]
        sizes = [b * (w.shape[1] + 1) for b, w in zip(blocks, matrices, strict=True)]
        spread = [
            panels(w) if k or want_x else np.zeros((0, 0, lanes(w.itemsize)), dtype) for k, w in enumerate(matrices)
        ]
        lengths = [len(lists.index) for lists in ctx.lists]
        for k, (layer, w) in enumerate(zip(layers, matrices, strict=True)):
            kind, steepness = surrogate_kind(layer.rule)
            attached = not (layer.rule.detach or not layer.rule.spiking)
            heights = [s.shape[0] * s.shape[1] for s in spread[:k]]
            layout[k] = (
                w.shape[1], len(w), sum(sizes[:k]), sum(heights), k * (steps * batch + 1), sum(blocks[:k]) * WIDE,
                kind, layer.rule.reset == "subtract", layer.plain,
            )  # fmt: skip
            reals[k] = steepness, attached
        tables = paged((sum(sizes), WIDE), dtype)
        for k, w in enumerate(matrices):
            at = layout[k, ck.TABLE]
            ck.pack(0, blocks[k], w, tables[at : at + sizes[k]].reshape(blocks[k], -1, WIDE))
        start = np.concatenate([lists.start + sum(lengths[:k]) for k, lists in enumerate(ctx.lists)])
        index = np.concatenate([lists.index for lists in ctx.lists])
        p = np.concatenate([layer.p for layer in layers], axis=1)
        flat = np.concatenate([s.reshape(-1, s.shape[2]) for s in spread])
        parts = min(PARTS, batch)
        group = max(1, min(ROWS // steps, -(-batch // parts)))
        d_bias = np.empty((parts, p.shape[1]), dtype)
        d_tables = paged((parts, len(tables), WIDE), dtype)
        d_x = torch.empty((steps, batch, inputs) if want_x else (0, 0, inputs), dtype=g.dtype)
        upstream = dense.upstream(g).flatten(0, 1).numpy()
        onwards = want_x or len(layers) > 1
        wide = max([inputs if want_x else 0, *map(len, matrices)]) if onwards else 0
        room = (-(-group * steps // TALL) * TALL if onwards else 0, -(-wide // WIDE) * WIDE)

        def job(first: int, last: int) -> None:
            rows = np.empty((steps, WIDE), dtype)
            sent, delta = paged(room, dtype), paged(room, dtype)
            sent[:], delta[:] = 0, 0
            ck.backward(
                first, last, batch, group, layout, reals, p, tables, flat, start, index, upstream,
                d_x.view(-1, inputs).numpy(), d_tables, d_bias, sent, delta, rows, np.zeros((2, WIDE), dtype),
            )  # fmt: skip

        work = steps * batch * max(p.shape[1], wide)  # the widest activity that is written
        kernels.over_rows(job, torch.get_num_threads(), parts, work)
        bias = dense.total(d_bias)
        found: list[Tensor | None] = [None] * (count - 2)
        for k, w in enumerate(matrices):
            n, at, padded = len(w), layout[k, ck.TABLE], layout[k, ck.PADDED]
            if ctx.needs_input_grad[2 + 2 * k]:
                found[2 * k] = torch.from_numpy(_finished(d_tables, int(at), w))
            if ctx.needs_input_grad[3 + 2 * k]:
                found[2 * k + 1] = torch.from_numpy(bias[padded : padded + n].copy())
        return (d_x if want_x else None, None, *found)


def _finished(d_tables: A, at: int, like: A) -> A:
    """The gradient of a layer's weights, from those of all parts."""
    found = np.empty_like(like)

    def job(first: int, last: int) -> None:
        ck.finish(first, last, d_tables, at, found, np.empty((16, WIDE), like.dtype))

    kernels.over_rows(job, torch.get_num_threads(), -(-len(like) // WIDE), like.size * len(d_tables))
    return found
