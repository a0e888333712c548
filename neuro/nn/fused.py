"""Whole-time neuron layers as one autograd node with hand-written gradients.

`run` computes what a loop over `neurons.lif_step` computes, forwards and backwards, without a graph
of time steps: the kernels keep the state of a block of neurons in cache and touch each array once.
The gradients are those of the step loop under the same surrogate (tests compare them with autograd
through that loop).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuro.nn import kernels
from neuro.nn.surrogate import AnySurrogate, Surrogate


@dataclass(frozen=True)
class StateGrid:
    """The integers that hold the state on a chip; currents then come in weight integers.

    unit: the real value of one weight integer. fraction: state units per weight integer. limit: i wraps
    and v clips here. decay_bits: decays are multiples of 2^-decay_bits. Defaults are Loihi 2's (Lava
    0.10, proc/lif/models.py). state: False leaves the state real (`Neuron.run` sees to it).
    """

    unit: float
    fraction: int = 64
    limit: int = 1 << 23
    decay_bits: int = 12
    state: bool = True


@dataclass(frozen=True)
class Rule:
    """What of a neuron is not a tensor. spiking: False for a leaky integrator."""

    surrogate: AnySurrogate
    reset: str = "hard"
    detach: bool = False
    spiking: bool = True
    grid: StateGrid | None = None


def run(
    current: Tensor,
    rule: Rule,
    *,
    alpha: Tensor,
    beta: Tensor,
    v_threshold: Tensor,
    v_reset: Tensor,
    gain_syn: Tensor,
    gain: Tensor,
    drive: Tensor,
    weight: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Drive a population for a whole sample, from rest.

    Args:
        current: float[time, batch, *shape]; with ``rule.grid`` in weight integers.
        alpha..drive: coefficients of `neurons.NeuronParams`, scalars or of ``shape``. Gradients flow to
            alpha, beta and v_threshold; the others are constants here.
        weight: [n, n], target by source; adds W s[t-1] to the current. Needs shape (n,).

    Returns:
        (spikes, v), both like current; v is the membrane before the reset.
    """
    shape = tuple(current.shape[2:])
    last = _channels_last(current)
    x = (current.permute(0, 1, 3, 4, 2) if last else current).contiguous()
    flat = x.view(x.shape[0], x.shape[1], -1)

    def spread(value: Tensor) -> Tensor:
        full = value.to(current.dtype).expand(shape)
        return (full.permute(1, 2, 0) if last else full).reshape(-1)

    spikes, v = _Scan.apply(  # type: ignore[no-untyped-call]
        flat, weight, spread(alpha), spread(beta), spread(v_threshold),
        spread(v_reset), spread(gain_syn), spread(gain), spread(drive), rule,
    )  # fmt: skip
    if last:
        return spikes.view(x.shape).permute(0, 1, 4, 2, 3), v.view(x.shape).permute(0, 1, 4, 2, 3)
    return spikes.view(current.shape), v.view(current.shape)


def _channels_last(current: Tensor) -> bool:
    """Whether [time, batch, channel, height, width] lies in memory with the channel innermost."""
    return current.dim() == 5 and not current.is_contiguous() and current.permute(0, 1, 3, 4, 2).is_contiguous()


def _grid_arguments(rule: Rule, dtype: np.dtype[Any], p: dict[str, Any]) -> tuple[dict[str, Any], tuple[Any, ...]]:
    """Coefficients in a chip's integers (float64), and (grid, unit, fraction, limit)."""
    one = dtype.type(1)
    if rule.grid is None:
        return p, (False, one, one, one)
    g = rule.grid
    steps, state = float(1 << g.decay_bits), g.unit / g.fraction
    p = {name: value.astype(np.float64) for name, value in p.items()}
    p["alpha"] = np.rint(p["alpha"] * steps) / steps
    p["beta"] = np.rint(p["beta"] * steps) / steps
    p["drive"] = np.rint(p["drive"] / state)
    p["theta"] = np.rint(p["theta"] / g.unit) * g.fraction  # whole weight integers; inf stays inf
    p["v_reset"] = np.rint(p["v_reset"] / state)
    return p, (True, state, float(g.fraction), float(g.limit))


_KINDS = {
    "fast_sigmoid": kernels.FAST_SIGMOID,
    "superspike": kernels.FAST_SIGMOID,
    "atan": kernels.ATAN,
    "triangle": kernels.TRIANGLE,
    "straight_through": kernels.STRAIGHT_THROUGH,
}


def _kind(rule: Rule) -> tuple[int, float]:
    """How the kernel gets the surrogate's derivative, and its steepness."""
    if not rule.spiking:
        return kernels.SILENT, 0.0
    if isinstance(rule.surrogate, Surrogate) and rule.surrogate.name in _KINDS:
        return _KINDS[rule.surrogate.name], rule.surrogate.alpha
    return kernels.PRECOMPUTED, 0.0


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        alpha: Tensor,
        beta: Tensor,
        theta: Tensor,
        v_reset: Tensor,
        gain_syn: Tensor,
        gain: Tensor,
        drive: Tensor,
        rule: Rule,
    ) -> tuple[Tensor, Tensor]:
        learn_alpha = bool(ctx.needs_input_grad[2])
        ctx.learn = any(ctx.needs_input_grad[2:5])
        v, s = torch.empty_like(x), torch.empty_like(x)
        i_seq = torch.empty_like(x) if learn_alpha else x.new_empty((0, 0, 0))
        if not rule.spiking:
            theta = torch.full_like(theta, torch.inf)
        names = ("alpha", "gain_syn", "beta", "gain", "drive", "theta", "v_reset")
        given = (alpha, gain_syn, beta, gain, drive, theta, v_reset)
        arrays = {n: a.detach().contiguous().numpy() for n, a in zip(names, given, strict=True)}
        x_np = x.detach().numpy()
        p, grid = _grid_arguments(rule, x_np.dtype, arrays)
        outputs = (v.numpy(), s.numpy(), i_seq.numpy())
        scalars = (rule.reset == "subtract", learn_alpha, *grid)
        state = [np.zeros(x_np.shape[1:], p["alpha"].dtype) for _ in range(2)]

        def steps(begin: int, end: int, current: Tensor) -> None:
            kernels.over_rows(
                kernels.forward, torch.get_num_threads(), x.shape[1], (end - begin) * x[0].numel(),
                begin, end, current.numpy(), *state, *outputs, *(p[n] for n in names), *scalars,
            )  # fmt: skip

        if weight is None:
            steps(0, len(x), x.detach())
        else:
            current, w_t = x.detach().clone(), weight.detach().t()
            for t in range(len(x)):
                if t > 0:
                    current[t].addmm_(s[t - 1], w_t)
                steps(t, t + 1, current)
        if learn_alpha and rule.grid is not None:
            i_seq.mul_(rule.grid.unit / rule.grid.fraction)
        ctx.rule, ctx.recurrent = rule, weight is not None
        ctx.set_materialize_grads(False)
        saved = weight if weight is not None else x.new_empty((0, 0))
        ctx.save_for_backward(v, s, i_seq, saved, alpha, beta, theta, v_reset, gain_syn, gain)
        return s, v

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        g, g_u = grads
        v, s, i_seq, weight, alpha, beta, theta, v_reset, gain_syn, gain = ctx.saved_tensors
        rule: Rule = ctx.rule
        one, n = v.new_ones(()).numpy()[()], v.shape[2]
        kind, steepness = _kind(rule)
        if kind == kernels.PRECOMPUTED:
            h = rule.surrogate.derivative(v - theta).contiguous()
        else:
            h = torch.zeros_like(v[:1])
        if not rule.spiking:
            theta = torch.zeros_like(theta)  # inf * 0 would be NaN
        if rule.grid is not None:
            gain_syn = gain_syn * rule.grid.unit  # currents came in weight integers
        attached = 0.0 if rule.detach or not rule.spiking else 1.0
        subtract = rule.reset == "subtract"
        c_h = attached * (-theta if subtract else v_reset)
        empty = v.new_empty((0, 0, 0))
        rows = (v.shape[1], n) if ctx.learn else (1, 1)
        d_alpha, d_beta, d_theta = (v.new_zeros(rows) for _ in range(3))
        dx = torch.empty_like(v)
        if g is None:
            g = torch.zeros_like(v)
        elif ctx.recurrent:
            g = g.clone(memory_format=torch.contiguous_format)  # what comes back through W is added to it
        i_seq = i_seq if i_seq.numel() else (v if ctx.learn else empty)  # unused unless alpha is learnt
        series = (g.contiguous(), empty if g_u is None else g_u.contiguous(), h, v, s, i_seq)
        state = [torch.zeros_like(v[0]) for _ in range(3)]
        tensors = (*series, *state, dx, d_alpha, d_beta, d_theta, alpha, gain_syn, beta, gain, theta, v_reset)
        arrays = [a.detach().contiguous().numpy() for a in tensors]
        head = (kind, one * steepness)
        c_s, c_uh = one * (0 if subtract else 1), one * (0 if subtract else -attached)
        tail = (c_s, c_h.contiguous().numpy(), c_uh, subtract, g_u is not None, ctx.learn)

        def steps(begin: int, end: int) -> None:
            size = (end - begin) * v[0].numel()
            kernels.over_rows(
                kernels.backward, torch.get_num_threads(), v.shape[1], size, begin, end, *head, *arrays, *tail
            )

        if not ctx.recurrent:
            steps(0, len(v))
        else:
            for t in range(len(v) - 1, -1, -1):
                if t + 1 < len(v):
                    g[t].addmm_(dx[t + 1], weight)
                steps(t, t + 1)
        d_weight = None
        if ctx.recurrent and ctx.needs_input_grad[1]:
            d_weight = dx[1:].reshape(-1, n).t() @ s[:-1].reshape(-1, n)
        wanted = [d.sum(0) if need else None for d, need in
                  zip((d_alpha, d_beta, d_theta), ctx.needs_input_grad[2:5], strict=True)]  # fmt: skip
        return dx, d_weight, *wanted, None, None, None, None, None
