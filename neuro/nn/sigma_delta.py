"""Neurons that send numbers, and seldom: delta encoders and sigma-delta neurons; the integrator that decodes them.

In one step, with v and residue of the step before::

    v[t] = x[t]                                                          Delta
    sigma[t] = sigma[t-1] + x[t];  v[t] = f(sigma[t] + bias)             SigmaDelta, f "relu" or "identity"
    d[t] = v[t] - v[t-1] + residue[t-1];  e[t] = d[t], or the sum of d since the last message (``cumulative``)
    message[t] = d[t] where abs(e[t]) >= v_threshold, else 0;  residue[t] = d[t] - message[t]

`neuro.ir.Delta` and `neuro.ir.SigmaDelta`, and Delta and SigmaDelta of Lava (O'Connor & Welling 2016,
arXiv:1611.02024). A network of SigmaDelta neurons computes, at an input that rests, what a network of f computes; with
a threshold of 0 in every step. Gradient: straight through the threshold (message = d backwards), so that training
sees the network at threshold 0: d message[t] / d v[t] = 1, d message[t + 1] / d v[t] = -1.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from neuro.ir import ACTIVATIONS
from neuro.nn import fused, plain
from neuro.nn import sigma_delta_kernels as loops
from neuro.nn.grid import straight_through
from neuro.nn.held import Held
from neuro.nn.joined import Carry
from neuro.nn.kernels import over_rows
from neuro.nn.layers import Value
from neuro.nn.neurons import State
from neuro.nn.spikes import Spikes
from neuro.nn.surrogate import Surrogate


class IntegratorState(NamedTuple):
    """The sum, [batch, ...]."""

    v: Tensor


class I(Held):  # noqa: E742  # its name in NIR
    """Integrator, the readout behind messages: v = v + gain x, sent in every step. gain: one, or one per neuron."""

    graded = True

    def __init__(self, gain: Value = 1.0) -> None:
        super().__init__({"gain": gain})

    def run(
        self,
        current: Tensor,
        weight: Tensor | None = None,
        *,
        entering: tuple[Tensor, Tensor | None] | None = None,
        carry: Carry | None = None,
        membrane: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """(v, v) of inputs [time, batch, ...]."""
        if plain.wanted(current) or weight is not None or entering is not None:
            return plain.over_time(self._one, current, weight, entering, carry)
        before = None
        if carry is not None:
            before = Carry(None if carry.value is None else State(torch.zeros_like(carry.value.v), carry.value.v))
        nothing, one = current.new_zeros(()), current.new_ones(())
        v, _ = fused.run(
            current, fused.Rule(Surrogate("atan", 2.0), spiking=False), alpha=nothing, gain_syn=one, beta=one,
            gain=self.value("gain").to(current.dtype), drive=nothing, v_threshold=one, v_reset=nothing, carry=before,
        )  # fmt: skip
        if carry is not None and before is not None:
            carry.value = IntegratorState(before.value.v)
        return v, v

    def _one(self, x: Tensor, state: IntegratorState | None) -> tuple[Tensor, Tensor, IntegratorState]:
        v = self.value("gain").to(x.dtype) * x + (0.0 if state is None else state.v)
        return v, v, IntegratorState(v)

    def with_membrane(
        self, current: Tensor, weight: Tensor | None = None, *, carry: Carry | None = None
    ) -> tuple[Tensor, Tensor]:
        """(v, v), both [time, batch, ...]."""
        return self.run(current, weight, carry=carry)

    def step(self, x: Tensor, state: IntegratorState | None) -> tuple[Tensor, IntegratorState]:
        """One step, in plain torch operations."""
        v, _, state = self._one(x, state)
        return v, state


class DeltaState(NamedTuple):
    """Sum of messages, activation v, what is not sent yet, what e has added up; [batch, ...]."""

    sigma: Tensor
    v: Tensor
    residue: Tensor
    error: Tensor


class Delta(Held):
    """Delta encoder, see the module's equations.

    Args:
        v_threshold: the smallest change that is sent, at least 0; one, or one per neuron. cumulative: as above.

    Raises:
        NetworkError: a threshold below 0; NaN or infinite values.
    """

    graded = True
    adds = False

    def __init__(self, v_threshold: Value = 0.0, *, cumulative: bool = False) -> None:
        self._make({"v_threshold": v_threshold}, (), "identity", cumulative)

    def _make(self, values: dict[str, Value], learn: tuple[str, ...], activation: str, cumulative: bool) -> None:
        bad = [] if (np.asarray(values["v_threshold"]) >= 0).all() else ["v_threshold must not be negative"]
        bad += [] if activation in ACTIVATIONS else [f"activation must be one of {ACTIVATIONS}, got {activation!r}"]
        super().__init__(values, learn, bad)
        self.activation, self.cumulative = activation, bool(cumulative)

    def run(
        self,
        current: Tensor,
        weight: Tensor | None = None,
        *,
        entering: tuple[Tensor, Tensor | None] | None = None,
        carry: Carry | None = None,
        membrane: bool = True,
    ) -> tuple[Tensor, Tensor | None]:
        """(messages, v) of inputs [time, batch, ...]."""
        if plain.wanted(current) or weight is not None or entering is not None:
            return plain.over_time(self._one, current, weight, entering, carry)
        shape = tuple(current.shape[2:])
        theta = self.value("v_threshold").to(current.dtype).expand(shape).reshape(-1)
        bias = (self.value("bias") if self.adds else theta.new_zeros(())).to(current.dtype).expand(shape).reshape(-1)
        call = _Call(self.adds, self.activation == "relu", self.cumulative, carry, membrane)
        messages, v = _Loop.apply(current, bias, theta, call)  # type: ignore[no-untyped-call]
        return messages, v if membrane else None

    def _one(self, x: Tensor, state: DeltaState | None) -> tuple[Tensor, Tensor, DeltaState]:
        """(messages, v, state) of one step, in plain torch operations."""
        zero = torch.zeros_like(x)
        state = DeltaState(zero, zero, zero, zero) if state is None else state
        sigma = state.sigma + x if self.adds else state.sigma
        v = sigma + self.value("bias").to(x.dtype) if self.adds else x
        v = torch.relu(v) if self.activation == "relu" else v
        delta = v - state.v + state.residue
        judged = (state.error + delta if self.cumulative else delta).detach()
        message = torch.where(judged.abs() >= self.value("v_threshold").to(x.dtype), delta.detach(), zero)
        error = torch.where(message != 0, zero, judged)
        return straight_through(delta, message), v, DeltaState(sigma, v, delta.detach() - message, error)

    def with_membrane(
        self, current: Tensor, weight: Tensor | None = None, *, carry: Carry | None = None
    ) -> tuple[Tensor, Tensor]:
        """(messages, v), both [time, batch, ...]."""
        messages, v = self.run(current, weight, carry=carry)
        assert v is not None
        return messages, v

    def step(self, x: Tensor, state: DeltaState | None) -> tuple[Tensor, DeltaState]:
        """One step, in plain torch operations."""
        message, _, state = self._one(x, state)
        return message, state

    def _shown(self) -> dict[str, object]:
        return {"cumulative": self.cumulative}


class SigmaDelta(Delta):
    """Sigma-delta neuron, see the module's equations.

    Args:
        v_threshold, cumulative: as for `Delta`. bias: of the activation, sent in the first step; one or one each.
        activation: "relu" or "identity". learn: ("bias",) or none.

    Raises:
        NetworkError: as `Delta`; an unknown activation or learn.
    """

    adds = True
    LEARNABLE = ("bias",)

    def __init__(
        self,
        v_threshold: Value = 0.0,
        bias: Value = 0.0,
        *,
        activation: str = "relu",
        cumulative: bool = False,
        learn: tuple[str, ...] = (),
    ) -> None:
        self._make({"v_threshold": v_threshold, "bias": bias}, learn, activation, cumulative)

    def _shown(self) -> dict[str, object]:
        return {"activation": self.activation, "cumulative": self.cumulative}


class _Call(NamedTuple):
    """What of a run is not a tensor. keep: v is wanted."""

    adds: bool
    rectifies: bool
    cumulative: bool
    carry: Carry | None
    keep: bool


class _Loop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor, theta: Tensor, call: _Call) -> Any:
        steps, batch, *shape = x.shape
        flat = x.dense() if isinstance(x, Spikes) else x.detach()
        flat = flat.reshape(steps, batch, -1).contiguous()
        rows = flat.new_zeros((4, *flat.shape[1:]))
        if call.carry is not None and call.carry.value is not None:
            rows = torch.stack([a.detach().to(flat.dtype).reshape(flat.shape[1:]) for a in call.carry.value])
        keep = call.keep or call.rectifies
        v_out = torch.empty_like(flat) if keep else flat.new_empty((0, 0, 0))
        sent = torch.empty_like(flat)
        over_rows(
            loops.forward, torch.get_num_threads(), batch, 2 * flat.numel(), flat.numpy(), *(a.numpy() for a in rows),
            v_out.numpy(), sent.numpy(), bias.detach().contiguous().numpy(), theta.detach().contiguous().numpy(),
            call.adds, call.rectifies, call.cumulative, keep,
        )  # fmt: skip
        if call.carry is not None:
            call.carry.value = DeltaState(*(a.view(batch, *shape) for a in rows))
        ctx.call = call
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(v_out.view(steps, batch, -1) > 0 if call.rectifies else None)
        return sent.view(x.shape), v_out.view(x.shape) if keep else v_out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """dv[t] = g_v[t] + g[t] - g[t+1]; the sum of messages hands its gradient back to all steps before."""
        (active,) = ctx.saved_tensors
        g, g_v = grads
        parts = [a for a in (g, g_v) if a is not None]
        if not parts:
            return None, None, None, None
        dv = sum(parts[1:], parts[0].clone())
        if g is not None:
            dv[:-1] -= g[1:]
        if active is not None:
            dv = dv * active.view(dv.shape)
        dx = dv.flip(0).cumsum(0).flip(0) if ctx.call.adds else dv
        d_bias = dv.flatten(0, 1).sum(0).reshape(-1) if ctx.call.adds and ctx.needs_input_grad[1] else None
        return dx, d_bias, None, None


__all__ = ["Delta", "DeltaState", "I", "IntegratorState", "SigmaDelta"]
