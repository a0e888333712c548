"""Recurrent layers over whole time as one autograd node with hand-written gradients.

`run` computes what a loop over `neurons.lif_step` with the current x[t] + W s[t-1] computes, forwards and backwards
(tests compare it with autograd through that loop). What fires is known as bits, so W s[t-1] is a sum of few rows and
the gradient to W is made of events. A Linear in front joins in: of spikes, its currents are never stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuro.nn import bits, crossover, kernels
from neuro.nn import recurrent_kernels as loops
from neuro.nn.fused import Rule, _grid_arguments, surrogate_kind
from neuro.nn.joined import Carry
from neuro.nn.neurons import State
from neuro.nn.pages import paged
from neuro.nn.spikes import Spikes, Words
from neuro.nn.tile import ROWS, panels

WORD = int(loops.WORD)


@dataclass(frozen=True)
class _Call:
    """What of a run is not a tensor. membrane: v is returned; graph: somebody may ask for gradients."""

    rule: Rule
    carry: Carry | None
    membrane: bool
    graph: bool


def run(
    x: Tensor,
    rule: Rule,
    weight: Tensor,
    *,
    w_in: Tensor | None = None,
    bias: Tensor | None = None,
    carry: Carry | None = None,
    membrane: bool = True,
    **coefficients: Tensor,
) -> tuple[Tensor, Tensor | None]:
    """Drive a population that listens to itself for a whole sample, or for a piece of one.

    Args:
        x: currents float[time, batch, n]; with w_in what the layer in front sees, [time, batch, inputs].
        weight: [n, n], target by source; adds W s[t-1] to the current.
        w_in, bias: [n, inputs] and [n]; the current is then w_in x[t] + bias.
        carry: (`neurons.State`, spikes [batch, n]) of the step before, as `Recurrent.step` keeps it; replaced.
        membrane: whether v is wanted.
        coefficients: alpha, beta, v_threshold, v_reset, gain_syn, gain, drive as in `fused.run`.

    Returns:
        (`Spikes`, v before the reset or None), [time, batch, n].
    """
    names = ("alpha", "beta", "v_threshold", "v_reset", "gain_syn", "gain", "drive")
    given = [coefficients[name].to(x.dtype).expand(len(weight)).reshape(-1) for name in names]
    learnt = (x, w_in, bias, weight, *given[:3])
    graph = torch.is_grad_enabled() and any(a is not None and a.requires_grad for a in learnt)
    call = _Call(rule, carry, membrane, graph)
    found = _Loop.apply(x, w_in, bias, weight, *given, call)  # type: ignore[no-untyped-call]
    return found if membrane else (found, None)


def gathers(x: Spikes, n: int, carry: object = None) -> bool:
    """Whether currents of n neurons go by events. A long sample in pieces (``carry``) always does: the choice would
    depend on the pieces."""
    return carry is not None or crossover.gather(x.total(), len(x.words), x.n, n)


def scatters(x: Spikes, n: int) -> bool:
    """Whether the gradient of the weights from x to n neurons goes by events."""
    return crossover.scatter(x.total(), len(x.words), x.n, n)


def table_of(weight: Tensor) -> NDArray[Any]:
    """[n, sources] transposed, with a row of zeros behind it."""
    n, sources = weight.shape
    table = paged((sources + 1, n), weight.numpy().dtype)
    torch.from_numpy(table)[:-1].copy_(weight.t())  # in tiles, a quarter of the time of NumPy's (measured)
    table[-1] = 0
    return table


def to_weight(before: Words, words: Words, d: Tensor, sources: int) -> Tensor:
    """sum over rows of d[row] s[row]^T, [n, sources]; the spikes are ``before``, then ``words``. d: [rows, n]."""
    n, threads = d.shape[1], torch.get_num_threads()
    # the columns of each part by themselves: along a row of all of them, a processor reads ahead those of another
    # thread, which then waits for them (measured)
    wide = -(-n // (WORD * threads)) * WORD
    parts = -(-n // wide)
    total = paged((parts, sources + 1, wide), d.numpy().dtype)
    total.fill(0)
    index, size = np.empty((parts, sources + 4), np.uint64), len(d) * n * max(1, sources // 32)
    kernels.over_rows(loops.scatter, threads, parts, size, before, words, d.numpy(), total, index)
    found = d.new_empty((n, sources))
    for k in range(parts):
        part = found[k * wide : (k + 1) * wide]
        part.copy_(torch.from_numpy(total[k, :-1, : len(part)]).t())
    return found


def bits_of(spikes: Tensor) -> Words:
    words = np.empty((len(spikes), -(-spikes.shape[1] // 64)), np.uint64)
    bits.pack(spikes.detach().contiguous().numpy(), words)
    return words


def _start(carry: Carry | None, batch: int, n: int, dtype: np.dtype[Any]) -> tuple[list[NDArray[Any]], Words]:
    """(i and m [batch, n] to start from, as arrays of their own; bits of the spikes before)."""
    if carry is None or carry.value is None:
        return [np.zeros((batch, n), dtype) for _ in range(2)], np.zeros((batch, -(-n // 64)), np.uint64)
    state, spikes = carry.value
    return [np.array(part.detach().numpy(), dtype) for part in state], bits_of(spikes)


class _Loop(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        w_in: Tensor | None,
        bias: Tensor | None,
        weight: Tensor,
        alpha: Tensor,
        beta: Tensor,
        theta: Tensor,
        v_reset: Tensor,
        gain_syn: Tensor,
        gain: Tensor,
        drive: Tensor,
        call: _Call,
    ) -> Any:
        rule, n, batch = call.rule, len(weight), x.shape[1]
        ctx.learn = call.graph and any(ctx.needs_input_grad[4:7])
        learn_alpha = call.graph and bool(ctx.needs_input_grad[4])
        steps, none = len(x), weight.new_empty((0, 0, 0))
        events = w_in is not None and isinstance(x, Spikes) and gathers(x, n, call.carry)
        current = none if events else x.dense() if isinstance(x, Spikes) else x.detach()
        if w_in is not None and not events:
            current = nn.functional.linear(current, w_in.detach(), None if bias is None else bias.detach())
        current = current.contiguous()
        keep_v = call.membrane or call.graph
        v = weight.new_empty((steps, batch, n)) if keep_v else none
        i_seq = torch.empty_like(v) if learn_alpha else none
        words = np.empty((steps, batch, -(-n // 64)), np.uint64)
        names = ("alpha", "gain_syn", "beta", "gain", "drive", "theta", "v_reset")
        given = (alpha, gain_syn, beta, gain, drive, theta, v_reset)
        arrays = {name: a.detach().contiguous().numpy() for name, a in zip(names, given, strict=True)}
        dtype = weight.detach().numpy().dtype
        p, grid = _grid_arguments(rule, dtype, arrays)
        state, before = _start(call.carry, batch, n, p["alpha"].dtype)
        start = [torch.from_numpy(part * grid[1]).to(weight.dtype) for part in state] if ctx.learn else []
        entering = x.words.reshape(steps, batch, -1) if events else words[:0]  # type: ignore[attr-defined]
        table_in = table_of(w_in.detach()) if events and w_in is not None else np.zeros((1, n), dtype)
        offset = np.zeros(n, dtype) if bias is None else bias.detach().numpy()
        room, index = np.empty((batch, n), dtype), np.empty((batch, max(n, len(table_in)) + 4), np.uint64)
        kernels.over_rows(
            loops.forward, torch.get_num_threads(), batch, steps * batch * n * 4,
            current.numpy(), entering, table_in, offset, table_of(weight.detach()), before, *state, v.numpy(), words,
            i_seq.numpy(), room, index, *(p[name] for name in names), rule.reset == "subtract", keep_v, learn_alpha,
            *grid,
        )  # fmt: skip
        if learn_alpha and rule.grid is not None:
            i_seq.mul_(rule.grid.unit / rule.grid.fraction)
        s = Spikes(words.reshape(steps * batch, -1), (steps, batch, n), weight.dtype)
        if call.carry is not None:
            last = Spikes(words[-1].copy(), (1, batch, n), weight.dtype).dense()[0]
            call.carry.value = State(*map(torch.from_numpy, state)), last
        ctx.rule, ctx.words, ctx.before = rule, words, before
        ctx.set_materialize_grads(False)
        front = () if w_in is None else (x, w_in)
        ctx.save_for_backward(v, i_seq, weight, alpha, beta, theta, v_reset, gain_syn, gain, *start, *front)
        return (s, v) if call.membrane else s

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        g, g_u = (*grads, None)[:2]
        v, i_seq, weight, alpha, beta, theta, v_reset, gain_syn, gain, *rest = ctx.saved_tensors
        start, front = (rest[:2], rest[2:]) if ctx.learn else ([], rest)
        dx, d_alpha, d_beta, d_theta = _back(
            ctx, g, g_u, v, i_seq, weight, alpha, beta, theta, v_reset, gain_syn, gain, start
        )
        steps, batch, n = v.shape
        need = ctx.needs_input_grad
        flat = dx.view(-1, n)
        d_weight = None
        if need[3]:
            words = ctx.words.reshape(steps * batch, -1)
            sent = Spikes(words, (steps, batch, n), v.dtype)
            if scatters(sent, n):
                d_weight = to_weight(ctx.before, words, flat, n)
            else:
                early = Spikes(ctx.before, (1, batch, n), v.dtype).dense()
                d_weight = flat.t() @ torch.cat([early, sent.dense()[:-1]]).view(-1, n)
        d_x: Tensor | None = dx
        d_in = d_bias = None
        if front:
            x, w_in = front
            d_x = (flat @ w_in).view(x.shape) if need[0] else None
            d_bias = flat.sum(0) if need[2] else None
            if need[1] and isinstance(x, Spikes) and scatters(x, n):
                d_in = to_weight(x.words[:0], x.words, flat, w_in.shape[1])
            elif need[1]:
                d_in = flat.t() @ (x.dense() if isinstance(x, Spikes) else x).reshape(len(flat), -1)
        wanted = [d.sum(0) if n else None for d, n in zip((d_alpha, d_beta, d_theta), need[4:7], strict=True)]
        return d_x, d_in, d_bias, d_weight, *wanted, *[None] * 5


def _back(
    ctx: Any,
    g: Tensor | None,
    g_u: Tensor | None,
    v: Tensor,
    i_seq: Tensor,
    weight: Tensor,
    alpha: Tensor,
    beta: Tensor,
    theta: Tensor,
    v_reset: Tensor,
    gain_syn: Tensor,
    gain: Tensor,
    start: list[Tensor],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients to the currents [time, batch, n] and, per batch row, to alpha, beta and v_threshold."""
    rule: Rule = ctx.rule
    _, batch, n = v.shape
    one = v.new_ones(()).numpy()[()]
    kind, steepness = surrogate_kind(rule)
    if kind == kernels.PRECOMPUTED:
        h = rule.surrogate.derivative(v - theta).contiguous()
    else:
        h = torch.zeros_like(v[:1])
    if rule.grid is not None:
        gain_syn = gain_syn * rule.grid.unit  # currents came in weight integers
    attached, subtract = 0.0 if rule.detach else 1.0, rule.reset == "subtract"
    c_h = attached * (-theta if subtract else v_reset)
    c_s, c_uh = one * (0 if subtract else 1), one * (0 if subtract else -attached)
    none, row = v.new_empty((0, 0, 0)), torch.zeros_like(v[0])
    series = (none if g is None else g.contiguous(), none if g_u is None else g_u.contiguous(), h, v)
    i_seq = i_seq if i_seq.numel() else (v if ctx.learn else none)  # unused unless alpha is learnt
    i_0, m_0 = start or (row, row)
    d_alpha, d_beta, d_theta = (torch.zeros_like(row) for _ in range(3))
    room = [torch.zeros_like(row) for _ in range(3)]
    dx, s, m = torch.empty_like(v), torch.empty_like(row), torch.empty_like(row)
    spread = panels(weight.detach().contiguous().numpy())
    quads = -(-batch // ROWS)
    ds = np.zeros((quads * ROWS, spread.shape[0] * spread.shape[2]), spread.dtype)
    later = np.zeros((quads * ROWS, n), spread.dtype)
    then = (i_seq, i_0, m_0, *room, dx, s, m, d_alpha, d_beta, d_theta, alpha, gain_syn, beta, gain, theta, v_reset)
    kernels.over_rows(
        loops.backward, torch.get_num_threads(), quads, v.numel() * 8,
        kind, one * steepness, *(a.detach().numpy() for a in series), ctx.words,
        *(a.detach().contiguous().numpy() for a in then),
        c_s, c_h.contiguous().numpy(), c_uh, subtract, g is not None, g_u is not None, ctx.learn,
        spread, ds, later,
    )  # fmt: skip
    return dx, d_alpha, d_beta, d_theta
