"""Whole-time neuron layers as one autograd node with hand-written gradients.

`run` computes what a loop over `neurons.lif_step` computes, forwards and backwards, without a graph
of time steps: the kernels keep the state of a block of neurons in cache and touch each array once.
The gradients are those of the step loop under the same surrogate (tests compare them with autograd
through that loop).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuro.nn import kernels
from neuro.nn.joined import Carry
from neuro.nn.neurons import State
from neuro.nn.spikes import Spikes
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
    carry: Carry | None = None,
    membrane: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """Drive a population for a whole sample.

    Args:
        current: float[time, batch, *shape]; with ``rule.grid`` in weight integers.
        alpha..drive: coefficients of `neurons.NeuronParams`, scalars or of ``shape``. Gradients flow to
            alpha, beta and v_threshold; the others are constants here.
        carry: holds the state to start from, `neurons.State` of [batch, *shape] (None: rest), and gets the one at the
            end, with v after the reset. On a grid both are in its integers.
        membrane: whether v is wanted.

    Returns:
        (spikes, v), both of the shape of current; v is the membrane before the reset, None where it is not wanted.
        The spikes are `Spikes`; an integrator has none and returns v in their place.
    """
    if current.dtype in (torch.float16, torch.bfloat16):  # autocast: the state is kept in float32
        current = current.float()
    shape = tuple(current.shape[2:])
    given = (alpha, beta, v_threshold, v_reset, gain_syn, gain, drive)
    coefficients = [c.to(current.dtype).expand(shape).reshape(-1) for c in given]
    graph = torch.is_grad_enabled() and any(c.requires_grad for c in (current, *coefficients[:3]))
    call = _Call(rule, carry, membrane or not rule.spiking, graph)
    found = _Scan.apply(current, *coefficients, call)  # type: ignore[no-untyped-call]
    spikes, v = found if isinstance(found, tuple) else (found, None)
    return (spikes, v) if rule.spiking else (v, v)


@dataclass(frozen=True)
class _Call:
    """What of a run is not a tensor. membrane: v is returned; graph: somebody may ask for gradients."""

    rule: Rule
    carry: Carry | None
    membrane: bool
    graph: bool


def _state(call: _Call, like: Tensor, dtype: np.dtype[Any]) -> list[NDArray[Any]]:
    """i and m [batch, n] to start from, as arrays of their own."""
    flat = (like.shape[1], math.prod(like.shape[2:]))
    if call.carry is None or call.carry.value is None:
        return [np.zeros(flat, dtype) for _ in range(2)]
    return [np.array(part.detach().reshape(flat).numpy(), dtype) for part in call.carry.value]


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


def surrogate_kind(rule: Rule) -> tuple[int, float]:
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
        alpha: Tensor,
        beta: Tensor,
        theta: Tensor,
        v_reset: Tensor,
        gain_syn: Tensor,
        gain: Tensor,
        drive: Tensor,
        call: _Call,
    ) -> Any:
        rule = call.rule
        learn_alpha = bool(ctx.needs_input_grad[1]) and call.graph
        ctx.learn = any(ctx.needs_input_grad[1:4])
        steps_, batch, n = x.shape[0], x.shape[1], math.prod(x.shape[2:])
        flat = x.detach().contiguous().view(steps_, batch, n)
        keep_v = call.membrane or call.graph
        # a contiguous copy of the currents is nobody else's: v is written over it
        own = flat.data_ptr() != x.data_ptr()
        v = (flat if own else torch.empty_like(flat)) if keep_v else flat.new_empty((0, 0, 0))
        i_seq = torch.empty_like(flat) if learn_alpha else flat.new_empty((0, 0, 0))
        words = np.empty((steps_, batch, -(-n // 64)), np.uint64)
        if not rule.spiking:
            theta = torch.full_like(theta, torch.inf)
        names = ("alpha", "gain_syn", "beta", "gain", "drive", "theta", "v_reset")
        given = (alpha, gain_syn, beta, gain, drive, theta, v_reset)
        arrays = {n: a.detach().contiguous().numpy() for n, a in zip(names, given, strict=True)}
        p, grid = _grid_arguments(rule, flat.numpy().dtype, arrays)
        outputs = (v.numpy(), words, i_seq.numpy())
        scalars = (rule.reset == "subtract", keep_v, learn_alpha, *grid)
        state = _state(call, x, p["alpha"].dtype)
        start = [torch.from_numpy(part * grid[1]).to(x.dtype) for part in state] if ctx.learn else []
        kernels.over_rows(
            kernels.forward, torch.get_num_threads(), batch, steps_ * batch * n,
            0, steps_, flat.numpy(), *state, *outputs, *(p[n] for n in names), *scalars,
        )  # fmt: skip
        if learn_alpha and rule.grid is not None:
            i_seq.mul_(rule.grid.unit / rule.grid.fraction)
        if call.carry is not None:
            call.carry.value = State(*(torch.from_numpy(part).view(batch, *x.shape[2:]) for part in state))
        ctx.rule, ctx.words, ctx.shape = rule, words, x.shape
        ctx.set_materialize_grads(False)
        v_out = v.view(x.shape) if keep_v else None
        kept = v_out if call.membrane else v  # torch tells an output that is saved from a mere array
        ctx.save_for_backward(kept, i_seq, alpha, beta, theta, v_reset, gain_syn, gain, *start)
        s = Spikes(words.reshape(steps_ * batch, -1), tuple(x.shape), x.dtype) if rule.spiking else None
        return (s, v_out) if call.membrane else s

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        g, g_u = (*grads, None)[:2]
        kept, i_seq, alpha, beta, theta, v_reset, gain_syn, gain, *start = ctx.saved_tensors
        words = ctx.words
        shape, v = (*words.shape[:2], -1), kept.reshape(*words.shape[:2], len(alpha))
        rule: Rule = ctx.rule
        one, n = v.new_ones(()).numpy()[()], v.shape[2]
        kind, steepness = surrogate_kind(rule)
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
        rows = (v.shape[1], n) if ctx.learn else (1, n)
        d_alpha, d_beta, d_theta = (v.new_zeros(rows) for _ in range(3))
        dx = torch.empty_like(v)
        if g is not None:
            g = g.reshape(shape)
        has_g = g is not None
        g = torch.zeros_like(v[:1]) if g is None else g.contiguous()
        i_seq = i_seq if i_seq.numel() else (v if ctx.learn else empty)  # unused unless alpha is learnt
        series = (g, empty if g_u is None else g_u.reshape(shape).contiguous(), h, v)
        i_0, m_0 = start or (v.new_empty((0, 0)), v.new_empty((0, 0)))
        state = [torch.zeros_like(v[0]) for _ in range(3)]
        room = [torch.empty_like(v[0]) for _ in range(2)]
        learnt = (d_alpha, d_beta, d_theta, alpha, gain_syn, beta, gain, theta, v_reset)
        first = [a.detach().contiguous().numpy() for a in series]
        then = [a.detach().contiguous().numpy() for a in (i_seq, i_0, m_0, *state, dx, *room, *learnt)]
        head = (kind, one * steepness)
        c_s, c_uh = one * (0 if subtract else 1), one * (0 if subtract else -attached)
        tail = (c_s, c_h.contiguous().numpy(), c_uh, subtract, has_g, g_u is not None, ctx.learn)
        kernels.over_rows(
            kernels.backward, torch.get_num_threads(), v.shape[1], v.numel(),
            0, len(v), *head, *first, words, *then, *tail,
        )  # fmt: skip
        wanted = [d.sum(0) if need else None for d, need in
                  zip((d_alpha, d_beta, d_theta), ctx.needs_input_grad[1:4], strict=True)]  # fmt: skip
        return dx.view(ctx.shape), *wanted, *[None] * 5
