"""Leaky integrate-and-fire without a reset: time is a scan, not a chain of decisions.

In one step::

    v[t] = beta v[t-1] + gain x[t] + drive
    s[t] = 1 if v[t] > v_threshold else 0; v is not touched

v is linear in x, v[t] = sum_k beta^(t - k) (gain x[k] + drive), so all steps can be computed at once (Fang et al. 2023,
NeurIPS, arXiv:2304.12760, of whose neurons this is the one with an exponential kernel). On the CPU it is one pass over
memory, the loop of `LI`; on other devices `scan`, log2(time) operations. Gradient: ds/dv = h(v - v_threshold).

In a `neuro.ir.Network` it is two nodes, exactly: an `LI`, and behind it a `LIF` that forgets everything within a step
and so only compares. Chips refuse it by name: none here sends a membrane from neuron to neuron.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from neuro.nn import fused, plain
from neuro.nn.held import Held
from neuro.nn.joined import Carry
from neuro.nn.layers import Value
from neuro.nn.neurons import State
from neuro.nn.spikes import Spikes
from neuro.nn.surrogate import AnySurrogate, SpikeFunction
from neuro.nn.surrogate import surrogate as make_surrogate


class ParallelState(NamedTuple):
    """The membrane, [batch, ...]."""

    v: Tensor


def scan(x: Tensor, beta: Tensor) -> Tensor:
    """y[t] = beta y[t-1] + x[t] in log2(time) operations over all of time (Hillis & Steele 1986). x: [time, ...]."""
    shift, factor = 1, beta
    while shift < len(x):
        x = torch.cat([x[:shift], x[shift:] + factor * x[:-shift]])
        shift, factor = 2 * shift, factor * factor
    return x


class ParallelLIF(Held):
    """Leaky integrate-and-fire neurons without reset, see the module's equations.

    Args:
        beta: decay per step, in [0, 1). v_threshold, gain, drive: as for `LIF`. Numbers, or one value per neuron.
        surrogate: as for `LIF`. learn: which of "beta", "v_threshold" are trained.

    Raises:
        NetworkError: as `Held`.
    """

    spiking = True
    DECAYS = ("beta",)
    LEARNABLE = ("beta", "v_threshold")

    def __init__(
        self,
        beta: Value = 0.9,
        v_threshold: Value = 1.0,
        *,
        gain: Value = 1.0,
        drive: Value = 0.0,
        surrogate: str | SpikeFunction | AnySurrogate = "fast_sigmoid",
        learn: tuple[str, ...] = (),
    ) -> None:
        super().__init__({"beta": beta, "v_threshold": v_threshold, "gain": gain, "drive": drive}, learn)
        self.surrogate = make_surrogate(surrogate)

    def run(
        self,
        current: Tensor,
        weight: Tensor | None = None,
        *,
        entering: tuple[Tensor, Tensor | None] | None = None,
        carry: Carry | None = None,
        membrane: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """(spikes, v) of currents [time, batch, ...]. Listening to themselves (weight) they run step by step: what
        they send then decides what they get."""
        if weight is not None or entering is not None:
            return plain.over_time(self._one, current, weight, entering, carry)
        p = {n: self.value(n).to(current.dtype) for n in ("beta", "gain", "drive", "v_threshold")}
        if plain.wanted(current):
            u = p["gain"] * (current * 1) + p["drive"]
            if carry is not None and carry.value is not None:
                u = torch.cat([u[:1] + p["beta"] * carry.value.v, u[1:]])
            v = scan(u, p["beta"])
            if carry is not None:
                carry.value = ParallelState(v[-1].detach())
            return self.surrogate(v - p["v_threshold"]), v
        before = None
        if carry is not None:
            before = Carry(None if carry.value is None else State(torch.zeros_like(carry.value.v), carry.value.v))
        nothing, one = current.new_zeros(()), current.new_ones(())
        v, _ = fused.run(
            current, fused.Rule(self.surrogate, spiking=False), alpha=nothing, gain_syn=one, beta=p["beta"],
            gain=p["gain"], drive=p["drive"], v_threshold=one, v_reset=nothing, carry=before,
        )  # fmt: skip
        if carry is not None and before is not None:
            carry.value = ParallelState(before.value.v)
        theta = p["v_threshold"].expand(v.shape[2:])
        return _Compare.apply(v, theta, self.surrogate), v  # type: ignore[no-untyped-call]

    def _one(self, x: Tensor, state: ParallelState | None) -> tuple[Tensor, Tensor, ParallelState]:
        before = torch.zeros_like(x) if state is None else state.v
        p = {n: self.value(n).to(x.dtype) for n in ("beta", "gain", "drive", "v_threshold")}
        v = p["beta"] * before + p["gain"] * x + p["drive"]
        return self.surrogate(v - p["v_threshold"]), v, ParallelState(v)

    def with_membrane(
        self, current: Tensor, weight: Tensor | None = None, *, carry: Carry | None = None
    ) -> tuple[Tensor, Tensor]:
        """(spikes, v), both [time, batch, ...]."""
        return self.run(current, weight, carry=carry)

    def step(self, x: Tensor, state: ParallelState | None) -> tuple[Tensor, ParallelState]:
        """One step, in plain torch operations."""
        spikes, _, state = self._one(x, state)
        return spikes, state


class _Compare(torch.autograd.Function):
    """`Spikes` where v > theta; gradients of v and theta through the surrogate."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, theta: Tensor, surrogate: AnySurrogate) -> Spikes:
        ctx.save_for_backward(v, theta)
        ctx.surrogate = surrogate
        over = v.detach() > theta.detach()
        found = Spikes.pack_binary(over, v.dtype) if over.numel() else Spikes.pack(over, v.dtype)
        assert found is not None
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        v, theta = ctx.saved_tensors
        dv = grads[0] * ctx.surrogate.derivative(v - theta)
        return dv, -dv.flatten(0, 1).sum(0), None


__all__ = ["ParallelLIF", "ParallelState", "scan"]
