"""A Linear and the neurons behind it, over whole time, as one autograd node that never stores the current.

By events: sums of weight rows forwards, the same again backwards (`neuro.nn.dense_kernels`); kept between the two are
only the lists of events. Dense, where so many inputs fire that a matrix product is cheaper, or where they are no
spikes: the membrane is written over the current and kept. Which of them depends on the count of events alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuro.nn import crossover, head, kernels
from neuro.nn import dense_kernels as dk
from neuro.nn.fused import Rule, surrogate_kind
from neuro.nn.joined import Carry, Chain, joins
from neuro.nn.layers import Neuron, weights
from neuro.nn.masked import MaskedLinear
from neuro.nn.neurons import State
from neuro.nn.pages import paged
from neuro.nn.spikes import Spikes

A = NDArray[Any]
LEARNABLE = ("alpha", "beta", "v_threshold")
NAMES = (*LEARNABLE, "v_reset", "gain_syn", "gain", "drive")
WIDE = int(dk.WIDE)
GROUP = 2048  # rows of activity of a group of samples: half a MiB a block in float32, of 2 MiB of second-level cache
CHUNK = 1 << 22  # elements of dense activity made at a time from bits: 16 MiB in float32


@joins(nn.Linear, Neuron)
@joins(MaskedLinear, Neuron)
def linear(chain: Chain, x: Tensor, carry: Carry | None) -> Tensor | None:
    """`Chain` of a Linear and neurons; declines norms, grids, other devices and inputs with axes besides the last."""
    neurons = chain.neurons
    assert isinstance(neurons, Neuron)
    weight, bias = weights(chain.synapses)
    if not fits(chain, x, weight):
        return None
    if head.few(x, len(weight), neurons):
        return head.run(x, weight, bias, neurons, carry)  # type: ignore[arg-type]
    return run(x, weight, bias, neurons, carry)


def fits(chain: Chain, x: Tensor, weight: Tensor) -> bool:
    """Whether a chain can run here: see `linear`."""
    known = chain.norm is None and getattr(chain.neurons, "grid", None) is None
    shaped = x.dim() == 3 and x.numel() > 0 and x.device.type == weight.device.type == "cpu"
    same = x.dtype == weight.dtype and x.dtype in (torch.float32, torch.float64)
    return known and shaped and same and not torch.is_autocast_enabled("cpu")


def run(x: Tensor, weight: Tensor, bias: Tensor | None, neurons: Neuron, carry: Carry | None = None) -> Tensor:
    """neurons(x weight^T + bias).

    Args:
        x: [time, batch, in], `Spikes` or floats; floats that are all 0 or 1 are made bits. weight: [out, in].
        neurons: not on a grid. carry: as in `Neuron.resume`.

    Returns:
        `Spikes` [time, batch, out], or v of an integrator.
    """
    n = weight.shape[0]
    given = [neurons.value(name) for name in NAMES]
    coefficients = [c.to(x.dtype).expand(n) for c in given]
    rule = Rule(neurons.surrogate, neurons.reset, neurons.detach, neurons.spiking)
    graph = torch.is_grad_enabled() and any(c is not None and c.requires_grad for c in (x, weight, bias, *coefficients))
    y: Tensor = _Dense.apply(x, weight, bias, *coefficients, _Call(rule, carry, graph))  # type: ignore[no-untyped-call]
    return y


@dataclass(frozen=True)
class _Call:
    """What of a run is not a tensor. graph: somebody may ask for gradients."""

    rule: Rule
    carry: Carry | None
    graph: bool


@dataclass(frozen=True)
class Lists:
    """Events of [time, batch, n], row by row, padded (`dense_kernels.lists`)."""

    start: A
    index: A

    @staticmethod
    def of(words: A, n: int, start: A) -> Lists:
        index = np.empty(start[-1], np.uint16 if n < 1 << 16 else np.uint32)
        kernels.over_rows(dk.lists, torch.get_num_threads(), len(words), len(index), words, start, n, index)
        return Lists(start, index)

    def columns(self, bounds: A, steps: int, batch: int, n: int, nobody: int) -> tuple[A, A]:
        """(col, when) of `dense_kernels.columns`."""
        groups = len(bounds) - 1
        per_sample = np.diff(self.start).reshape(steps, batch).sum(0)
        most = [int(per_sample[a:b].sum()) + (dk.PAD - 1) * n for a, b in itertools.pairwise(bounds)]
        col = np.empty((groups, n + 1), np.int64)
        lines = [-(-size // 64) * 64 for size in most]  # groups share no line of the cache, and nothing else
        col[:, 0] = list(itertools.accumulate([0, *lines[:-1]]))
        when = np.empty(int(col[-1, 0]) + most[-1], np.uint32)
        arguments = (bounds, self.start, self.index, steps, batch, nobody, col, when)
        kernels.over_rows(dk.columns, torch.get_num_threads(), groups, len(when), *arguments)
        return col, when


def _parts(blocks: int, batch: int) -> int:
    """Into how many parts the batch is cut besides the blocks: fixed by the shape, never by the threads."""
    return min(batch, 1 if blocks >= 4 else (2 if blocks >= 2 else 4))


def _groups(steps: int, batch: int, parts: int) -> A:
    """Bounds of the groups of samples whose adjoint fits the cache; at least ``parts`` of them."""
    size = max(1, min(GROUP // steps, batch // parts))
    return np.array([*range(0, batch, size), batch], np.int64)


def padded(coefficients: list[Tensor], bias: Tensor | None, spiking: bool, n: int) -> A:
    """[8, blocks * WIDE] in the order of `dense_kernels`."""
    alpha, beta, theta, v_reset, gain_syn, gain, drive = (c.detach().numpy() for c in coefficients)
    p = np.zeros((8, -(-n // WIDE) * WIDE), alpha.dtype)
    p[5] = 1e30  # nobody fires behind the last neuron; finite, so that 0 times it is 0
    rows = (alpha, gain_syn, beta, gain, drive, theta if spiking else np.inf, v_reset)
    for k, row in enumerate(rows):
        p[k, :n] = row
    if bias is not None:
        p[7, :n] = bias.detach().numpy()
    return p


def plain(p: A, n: int) -> bool:
    """No synapse, gains of one, no drive."""
    return not p[0, :n].any() and not p[4, :n].any() and bool((p[1, :n] == 1).all() and (p[3, :n] == 1).all())


def _rest(carry: Carry | None, batch: int, n: int, dtype: np.dtype[Any]) -> tuple[A, A]:
    if carry is None or carry.value is None:
        return np.zeros((batch, n), dtype), np.zeros((batch, n), dtype)
    state = [np.array(part.detach().reshape(batch, n).numpy(), dtype) for part in carry.value]
    return state[0], state[1]


def _share(tasks: int, work: int, job: Callable[[int, int], None]) -> None:
    """job(first, last) over tasks in threads; each brings its own room."""
    kernels.over_rows(job, torch.get_num_threads(), tasks, work)


def by_events(lists: Lists, weight: Tensor, p: A, rule: Rule, simple: bool, steps: int, batch: int) -> tuple[A, Tensor]:
    """(words [time, batch, blocks], v of an integrator) of a layer from rest."""
    n, fan_in = weight.shape
    w = weight.detach().contiguous().numpy()
    blocks, nothing = p.shape[1] // WIDE, np.empty((0, n), w.dtype)
    parts = _parts(blocks, batch)
    words = np.empty((steps, batch, blocks), np.uint64)
    v = torch.empty((0, 0, n) if rule.spiking else (steps, batch, n), dtype=weight.dtype)
    i, m = _rest(None, batch, n, w.dtype)

    def job(first: int, last: int) -> None:
        dk.forward(
            first, last, parts, False, lists.start, lists.index, w, p, i, m, words, v.view(-1, n).numpy(), nothing,
            paged((fan_in + 1, WIDE), w.dtype), np.zeros((2, WIDE), w.dtype), rule.reset == "subtract", simple,
            not rule.spiking, False,
        )  # fmt: skip

    _share(blocks * parts, steps * batch * n + len(lists.index) * n, job)
    return words, v


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
        coefficients, call = list(rest[:7]), rest[7]
        rule: Rule = call.rule
        steps, batch, fan_in = x.shape
        n, dtype = weight.shape[0], weight.detach().numpy().dtype
        blocks = -(-n // WIDE)
        learn_alpha = call.graph and bool(ctx.needs_input_grad[3])
        p = padded(coefficients, bias, rule.spiking, n)
        simple = not learn_alpha and plain(p, n)
        i, m = _rest(call.carry, batch, n, dtype)
        ctx.state = (i.copy(), m.copy()) if call.graph else None
        words = np.empty((steps, batch, blocks), np.uint64)
        nothing = np.empty((0, 0, n), dtype)
        given = sparse(x)
        by_lists = isinstance(given, Lists)
        keep_v = not rule.spiking or (call.graph and not by_lists)
        keep_i = learn_alpha and not by_lists
        v = torch.empty((steps, batch, n), dtype=x.dtype) if keep_v else torch.empty((0, 0, n), dtype=x.dtype)
        i_seq = np.empty((steps, batch, n), dtype) if keep_i else nothing
        w = weight.detach().contiguous().numpy()
        parts = _parts(blocks, batch)
        subtract = rule.reset == "subtract"

        def kernel(begin: int, end: int, current: A, lists: Lists) -> None:
            cut = slice(begin, end)
            kept = v.numpy()[cut] if keep_v else nothing
            flat: A = (kept if by_lists else current).reshape(-1, n)
            synapses: A = (i_seq[cut] if keep_i else nothing).reshape(-1, n)
            out = (words[cut], flat, synapses)

            def job(first: int, last: int) -> None:
                table = paged((fan_in + 1 if by_lists else 0, WIDE), dtype)
                dk.forward(
                    first, last, parts, not by_lists, lists.start, lists.index, w, p, i, m, *out, table,
                    np.zeros((2, WIDE), dtype), subtract, simple, keep_v, keep_i,
                )  # fmt: skip

            _share(blocks * parts, (end - begin) * batch * n + len(lists.index) * n, job)

        if by_lists:
            assert isinstance(given, Lists)
            kernel(0, steps, nothing, given)
        else:
            w_t, none = weight.detach().t(), Lists(np.zeros(1, np.int64), np.zeros(0, np.uint16))
            for begin, end in _chunks(x, n):
                some = _dense(given, begin, end)
                out = v[begin:end] if keep_v else torch.empty((end - begin, batch, n), dtype=x.dtype)
                torch.mm(some.view(-1, fan_in), w_t, out=out.view(-1, n))
                kernel(begin, end, out.numpy(), none)
        if call.carry is not None:
            call.carry.value = State(torch.from_numpy(i), torch.from_numpy(m))
        ctx.rule, ctx.plain, ctx.p, ctx.shape = rule, simple, p, (steps, batch, fan_in, n)
        ctx.lists = given if by_lists else None
        ctx.learn, ctx.learn_alpha, ctx.i_seq = any(ctx.needs_input_grad[3:6]), learn_alpha, i_seq
        ctx.set_materialize_grads(False)
        if call.graph:
            ctx.save_for_backward(weight, v, *([] if by_lists else [given]))
        return Spikes(words.reshape(steps * batch, -1), (steps, batch, n), x.dtype) if rule.spiking else v

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        g = grads[0]
        if g is None:
            return (None,) * 11
        weight, v, *inputs = ctx.saved_tensors
        steps, batch, fan_in, n = ctx.shape
        rule: Rule = ctx.rule
        lists: Lists | None = ctx.lists
        again = lists is not None
        dtype, blocks, p = ctx.p.dtype, -(-n // WIDE), ctx.p
        kind, steepness = surrogate_kind(rule)
        nothing = np.empty((0, 0, n), dtype)
        want_x, want_w, want_b = ctx.needs_input_grad[:3]
        parts = _parts(blocks, batch)
        bounds = _groups(steps, batch, parts)
        parts = min(parts, len(bounds) - 1)
        most = steps * int(np.diff(bounds).max())
        w = weight.detach().contiguous().numpy()
        col, when = np.empty((0, 0), np.int64), np.empty(0, np.uint32)
        none = Lists(np.zeros(1, np.int64), np.zeros(0, np.uint16))
        if lists is not None and want_w:
            col, when = lists.columns(bounds, steps, batch, fan_in, most)
        store = want_x or (want_w and not again)
        delta = torch.from_numpy(np.empty((steps, batch, n) if store else (0, 0, n), dtype))
        h = nothing
        if kind == dk.PRECOMPUTED:
            h = _slopes(ctx, lists, v, w)
        by_lists = len(col) > 0
        d_weight = np.empty((parts, n if by_lists else 0, fan_in), dtype)
        d_p = np.empty((parts, 4, p.shape[1]), dtype)
        u, i_seq, h, above, d_current = (
            a.reshape(-1, n) for a in (v.detach().numpy(), ctx.i_seq, h, upstream(g).numpy(), delta.numpy())
        )
        one, (i_0, m_0) = dtype.type(1), ctx.state
        attached = one * (0 if rule.detach or not rule.spiking else 1)

        def job(first: int, last: int) -> None:
            table = paged((fan_in + 1 if again else 0, WIDE), dtype)
            rows = paged((most + 1, WIDE), dtype)
            currents = np.empty((most if ctx.learn_alpha else 0, WIDE), dtype)
            events = none if lists is None else lists
            dk.backward(
                first, last, parts, bounds, events.start, events.index, col, when, w, p, i_0, m_0,
                u, i_seq, h, above, d_current, d_weight, d_p, table, rows, currents,
                np.empty((int(dk.TILE), WIDE), dtype), np.zeros((2, WIDE), dtype), steps, kind,
                one * steepness, attached, rule.reset == "subtract", ctx.plain, again, store, ctx.learn,
                ctx.learn_alpha,
            )  # fmt: skip

        _share(blocks * parts, steps * batch * n, job)
        d_x = d_w = None
        if want_x:
            room = torch.from_numpy(np.empty((steps * batch, fan_in), dtype))
            d_x = torch.mm(delta.view(-1, n), weight.detach(), out=room).view(steps, batch, fan_in)
        if want_w:
            d_w = torch.from_numpy(total(d_weight)) if by_lists else _product(inputs[0], delta, fan_in)
        learnt = torch.from_numpy(total(d_p)[:, :n])
        needed = [learnt[k] if ctx.needs_input_grad[3 + k] else None for k in range(3)]
        return d_x, d_w, learnt[3] if want_b else None, *needed, *[None] * 5


def upstream(g: Tensor) -> Tensor:
    """The gradient to the output; one step of it where all are the same, as those of a sum over time are."""
    return (g.detach()[:1] if g.stride(0) == 0 else g.detach()).contiguous()


def total(parts: A) -> A:
    """The sum over the first axis, in its order, in place."""
    found: A = parts[0]
    for part in parts[1:]:
        found += part
    return found


def sparse(x: Tensor) -> Lists | Tensor:
    """Lists where few inputs fire; else x, as bits where it has no values but 0 and 1."""
    spikes = x if isinstance(x, Spikes) else Spikes.pack_binary(x)
    if spikes is None:
        return x.detach()
    n = spikes.shape[-1]
    start = np.empty(len(spikes.words) + 1, np.int64)
    dk.starts(spikes.words, start)
    if not crossover.layer(int(start[-1]), len(spikes.words), n + dk.PAD):  # the lists are padded, half on average
        return spikes
    return Lists.of(spikes.words, n, start)


def _chunks(x: Tensor, n: int) -> list[tuple[int, int]]:
    """Steps that are made dense together."""
    size = max(1, CHUNK // (x.shape[1] * max(n, x.shape[2])))
    return [(k, min(k + size, len(x))) for k in range(0, len(x), size)]


def _dense(x: Any, begin: int, end: int) -> Tensor:
    """Steps of an input as floats."""
    if not isinstance(x, Spikes):
        found: Tensor = x[begin:end].contiguous()
        return found
    batch, n = x.shape[1:]
    return Spikes(x.words[begin * batch : end * batch], (end - begin, batch, n), x.dtype).dense()


def _product(x: Tensor, delta: Tensor, fan_in: int) -> Tensor:
    """delta^T x, in chunks of steps."""
    found = None
    for begin, end in _chunks(x, delta.shape[2]):
        given, part = _dense(x, begin, end).view(-1, fan_in), delta[begin:end].view(-1, delta.shape[2])
        found = part.t() @ given if found is None else found.addmm_(part.t(), given)
    assert found is not None
    return found


def _slopes(ctx: Any, lists: Lists | None, v: Tensor, w: A) -> A:
    """The derivative of a surrogate that torch computes, [time, batch, n]; the membrane is made again for it."""
    steps, batch, fan_in, n = ctx.shape
    if lists is not None:
        v = v.new_empty((steps, batch, n))
        blocks = ctx.p.shape[1] // WIDE
        parts = _parts(blocks, batch)
        i, m = (part.copy() for part in ctx.state)
        nothing = np.empty((0, 0, n), w.dtype)
        words = np.empty((steps, batch, blocks), np.uint64)

        def job(first: int, last: int) -> None:
            dk.forward(
                first, last, parts, False, lists.start, lists.index, w, ctx.p, i, m, words, v.view(-1, n).numpy(),
                nothing.reshape(-1, n), paged((fan_in + 1, WIDE), w.dtype), np.zeros((2, WIDE), w.dtype),
                ctx.rule.reset == "subtract", ctx.plain, True, False,
            )  # fmt: skip

        _share(blocks * parts, v.numel(), job)
    theta = torch.from_numpy(ctx.p[5, :n])
    slope = ctx.rule.surrogate.derivative(v.detach() - theta)
    found: A = slope.contiguous().numpy()
    return found
