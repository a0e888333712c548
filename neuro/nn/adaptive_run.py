"""Adaptive neurons over whole time as one autograd node with hand-written gradients; with or without recurrence.

`run` computes what a loop over `adaptive.adaptive_step` computes, forwards and backwards (tests compare it with
autograd through that loop).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuro.nn import adaptive_kernels as loops
from neuro.nn import kernels
from neuro.nn.fused import Rule, surrogate_kind
from neuro.nn.joined import Carry
from neuro.nn.recurrent import bits_of, gathers, scatters, table_of, to_weight
from neuro.nn.spikes import Spikes
from neuro.nn.tile import ROWS, lanes, panels

NAMES = ("beta", "rho", "a", "b", "gain", "drive", "v_threshold", "v_reset")
LEARNT = 5  # of those, the first four and v_threshold


@dataclass(frozen=True)
class _Call:
    """What of a run is not a tensor. membrane: u is returned; graph: somebody may ask for gradients."""

    rule: Rule
    adaptation: str
    carry: Carry | None
    membrane: bool
    graph: bool
    shape: tuple[int, ...]


def run(
    x: Tensor,
    rule: Rule,
    adaptation: str,
    weight: Tensor | None = None,
    *,
    w_in: Tensor | None = None,
    bias: Tensor | None = None,
    carry: Carry | None = None,
    membrane: bool = True,
    **coefficients: Tensor,
) -> tuple[Tensor, Tensor | None]:
    """Drive a population for a whole sample, or for a piece of one.

    Args:
        x: currents [time, batch, *shape]; with w_in what the layer in front sees, [time, batch, inputs].
        weight, w_in, bias: as in `recurrent.run`; weight may be None.
        adaptation: of `adaptive.AdaptiveParams`.
        carry: `adaptive.AdaptiveState` (with weight: and the spikes, as `Recurrent.step` keeps it); replaced.
        membrane: whether u is wanted. coefficients: `NAMES`.

    Returns:
        (`Spikes`, u before the reset or None), [time, batch, *shape].
    """
    shape = tuple(x.shape[2:]) if w_in is None else (len(w_in),)
    dtype = x.dtype
    given = [coefficients[name].to(dtype).expand(shape).reshape(-1) for name in NAMES]
    trained = (x, w_in, bias, weight, *given[:4], given[6])
    graph = torch.is_grad_enabled() and any(a is not None and a.requires_grad for a in trained)
    call = _Call(rule, adaptation, carry, membrane, graph, shape)
    found = _Loop.apply(x, w_in, bias, weight, *given, call)  # type: ignore[no-untyped-call]
    return found if membrane else (found, None)


class _Loop(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w_in: Tensor | None, bias: Tensor | None, weight: Tensor | None, *rest: Any
    ) -> Any:
        *given, call = rest
        rule: Rule = call.rule
        steps, batch, n = len(x), x.shape[1], math.prod(call.shape)
        ctx.learn = call.graph and any(ctx.needs_input_grad[4 : 4 + len(NAMES)])
        none = x.new_empty((0, 0, 0), dtype=given[0].dtype)
        events = w_in is not None and isinstance(x, Spikes) and gathers(x, n, call.carry)
        current = none if events else x.dense() if isinstance(x, Spikes) else x.detach()
        if w_in is not None and not events:
            current = nn.functional.linear(current, w_in.detach(), None if bias is None else bias.detach())
        current = current if events else current.reshape(steps, batch, n).contiguous()
        keep_u, lift = call.membrane or call.graph, call.adaptation == "threshold"
        keep_w = call.graph and (ctx.learn or lift)
        u = torch.empty((steps, batch, n), dtype=none.dtype) if keep_u else none
        w_seq = torch.empty((steps, batch, n), dtype=none.dtype) if keep_w else none
        words = np.empty((steps, batch, -(-n // 64)), np.uint64)
        p = dict(zip(NAMES, (c.detach().contiguous().numpy() for c in given), strict=True))
        dtype = none.numpy().dtype
        state, before = _start(call.carry, weight is not None, batch, n, dtype)
        v_0, s_0 = (torch.from_numpy(state[k].copy()) for k in (0, 2))
        entering = x.words.reshape(steps, batch, -1) if events else words[:0]  # type: ignore[attr-defined]
        table_in = table_of(w_in.detach()) if events and w_in is not None else np.zeros((1, n), dtype)
        table = np.zeros((1, n), dtype) if weight is None else table_of(weight.detach())
        offset = np.zeros(n, dtype) if bias is None else bias.detach().numpy()
        index = np.empty((batch, max(len(table), len(table_in)) + 4), np.uint64)
        one, zero = dtype.type(1), dtype.type(0)
        kernels.over_rows(
            loops.forward, torch.get_num_threads(), batch, steps * batch * n * 2,
            current.numpy(), entering, table_in, offset, table, before, *state, u.numpy(), w_seq.numpy(), words,
            np.empty((batch, 2, n), dtype), index, *(p[k] for k in NAMES), zero if lift else one,
            one if lift else zero, call.adaptation == "euler", rule.reset == "subtract", weight is not None, keep_u,
            keep_w,
        )  # fmt: skip
        shape = (steps, batch, *call.shape)
        spikes = Spikes(words.reshape(steps * batch, -1), shape, none.dtype)
        if call.carry is not None:
            _remember(call.carry, state, weight is not None, shape[1:])
        ctx.call, ctx.words, ctx.before = call, words, before
        ctx.recurrent, ctx.front = weight is not None, w_in is not None
        ctx.set_materialize_grads(False)
        u_out = u.view(shape) if keep_u else u
        kept = u_out if call.membrane else u  # torch tells an output that is saved from a mere array
        linked = [t for t in ((x, w_in) if w_in is not None else ()) if t is not None]
        ctx.save_for_backward(kept, w_seq, v_0, s_0, weight, *given, *linked)
        return (spikes, u_out) if call.membrane else spikes

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        kept, w_seq, v_0, s_0, weight, *rest = ctx.saved_tensors
        given, front = rest[: len(NAMES)], rest[len(NAMES) :]
        call, words = ctx.call, ctx.words
        (steps, batch), n = words.shape[:2], math.prod(call.shape)
        u = kept.reshape(steps, batch, n)
        dx, found = _back(ctx, (*grads, None)[:2], u, w_seq, v_0, s_0, weight, dict(zip(NAMES, given, strict=True)))
        need, flat = ctx.needs_input_grad, dx.view(-1, n)
        d_x: Tensor | None = dx.view(steps, batch, *call.shape)
        d_in = d_bias = d_weight = None
        if ctx.recurrent and need[3]:
            d_weight = to_weight(ctx.before, words.reshape(steps * batch, -1), flat, n)
        if ctx.front:
            x, w_in = front
            d_x = (flat @ w_in).view(x.shape) if need[0] else None
            d_bias = flat.sum(0) if need[2] else None
            if need[1] and isinstance(x, Spikes) and scatters(x, n):
                d_in = to_weight(x.words[:0], x.words, flat, w_in.shape[1])
            elif need[1]:
                d_in = flat.t() @ (x.dense() if isinstance(x, Spikes) else x).reshape(len(flat), -1)
        sums = found.sum(1) if ctx.learn else found
        order = {"beta": 0, "rho": 1, "a": 2, "b": 3, "v_threshold": 4}
        wanted = [sums[order[name]] if name in order and needed else None
                  for name, needed in zip(NAMES, need[4 : 4 + len(NAMES)], strict=True)]  # fmt: skip
        return d_x, d_in, d_bias, d_weight, *wanted, None


def _start(carry: Carry | None, recurrent: bool, batch: int, n: int, dtype: Any) -> tuple[list[Any], Any]:
    """([v, w, s] to start from, [batch, n], as arrays of their own; bits of the spikes before)."""
    if carry is None or carry.value is None:
        return [np.zeros((batch, n), dtype) for _ in range(3)], np.zeros((batch, -(-n // 64)), np.uint64)
    state = carry.value[0] if recurrent else carry.value
    arrays = [np.array(part.detach().reshape(batch, n).numpy(), dtype) for part in state]
    return arrays, bits_of(torch.from_numpy(arrays[2]))


def _remember(carry: Carry, state: list[Any], recurrent: bool, shape: tuple[int, ...]) -> None:
    from neuro.nn.adaptive import AdaptiveState

    now = AdaptiveState(*(torch.from_numpy(part).view(shape) for part in state))
    carry.value = (now, now.s) if recurrent else now


def _back(
    ctx: Any,
    grads: tuple[Tensor | None, ...],
    u: Tensor,
    w_seq: Tensor,
    v_0: Tensor,
    s_0: Tensor,
    weight: Tensor | None,
    p: dict[str, Tensor],
) -> tuple[Tensor, Tensor]:
    """Gradients to the currents [time, batch, n], and [5, batch, n] to beta, rho, a, b, v_threshold."""
    rule: Rule = ctx.call.rule
    steps, batch, n = u.shape
    one = u.new_ones(()).numpy()[()]
    lift = ctx.call.adaptation == "threshold"
    kind, steepness = surrogate_kind(rule)
    if kind == kernels.PRECOMPUTED:
        over = u - p["v_threshold"]
        h = rule.surrogate.derivative(over - w_seq if lift else over).contiguous()
    else:
        h = torch.zeros_like(u[:1])
    none, row = u.new_empty((0, 0, 0)), torch.zeros_like(u[0])
    g, g_u = (none if d is None else d.reshape(steps, batch, n).contiguous() for d in grads)
    found = u.new_zeros((LEARNT, batch, n) if ctx.learn else (LEARNT, 1, 1))
    dx, room = torch.empty_like(u), [torch.zeros_like(row) for _ in range(8)]
    wide = lanes(one.itemsize)
    spread = np.zeros((0, 1, wide), one.dtype) if weight is None else panels(weight.detach().contiguous().numpy())
    quads = -(-batch // ROWS)
    ds = np.zeros((quads * ROWS, -(-n // wide) * wide), one.dtype)
    later = np.zeros((quads * ROWS, n), one.dtype)
    named = ("beta", "rho", "a", "b", "gain", "v_threshold", "v_reset")
    tensors = (g, g_u, h, u, w_seq)
    then = (v_0, s_0, dx, *room, found, *(p[k] for k in named))
    kernels.over_rows(
        loops.backward, torch.get_num_threads(), quads, u.numel() * (8 if weight is not None else 2),
        kind, one * steepness, *(t.detach().numpy() for t in tensors), ctx.words,
        *(t.detach().contiguous().numpy() for t in then), one * (not lift), one * lift,
        ctx.call.adaptation == "euler", rule.reset == "subtract", one * (not rule.detach),
        grads[0] is not None, grads[1] is not None, ctx.learn, spread, ds, later,
    )  # fmt: skip
    return dx, found
