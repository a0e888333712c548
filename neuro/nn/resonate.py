"""Resonate-and-fire neurons: damped oscillators that listen to the rhythm of their input (Izhikevich 2001).

In one step, with z = v + 1j im of the step before and b = beta exp(2j pi / period), period in steps::

    z[t] = b z[t-1] + x[t]                                        the input drives the real part v
    s[t] = 1 where v[t] >= v_threshold, im[t] >= 0 and im[t-1] < 0          ``resets`` False: nothing is reset
    s[t] = 1 where im[t] >= v_threshold; there v = 0, im = v_threshold      ``resets`` True

That is `neuro.ir.ResonateAndFire`, and RF and RF_IZ of Lava (Izhikevich 2001, Neural Networks 14:883; Orchard et al.
2021, arXiv:2111.03746). Gradient: s is a product of steps, and the derivative of each step is replaced by the
surrogate h, those of its other factors stay as they are. `resonate_step` is the meaning; the layer runs the same thing
over whole time, with a gradient of its own (`neuro.nn.resonate_kernels`).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from neuro.nn import plain
from neuro.nn import resonate_kernels as loops
from neuro.nn.held import Held
from neuro.nn.joined import Carry
from neuro.nn.kernels import over_rows
from neuro.nn.layers import Value
from neuro.nn.spikes import Spikes
from neuro.nn.surrogate import AnySurrogate, SpikeFunction
from neuro.nn.surrogate import surrogate as make_surrogate


class ResonateParams(NamedTuple):
    """Per step: cosine, sine: beta times those of the angle. Numbers or tensors that broadcast over [batch, ...]."""

    cosine: Tensor
    sine: Tensor
    v_threshold: Tensor
    resets: bool = False
    detach: bool = False


class ResonateState(NamedTuple):
    """Real part v and imaginary part im, [batch, ...]."""

    v: Tensor
    im: Tensor


def reached(x: Tensor, surrogate: AnySurrogate) -> Tensor:
    """1 where x >= 0, with the surrogate's gradient; a surrogate itself is 1 where x > 0."""
    return 1.0 - surrogate(-x)


def resonate_step(
    x: Tensor, state: ResonateState, p: ResonateParams, surrogate: AnySurrogate
) -> tuple[Tensor, Tensor, ResonateState]:
    """One step. x: [batch, ...]. Returns (spikes, v before the reset, state)."""
    v = p.cosine * state.v - p.sine * state.im + x
    im = p.sine * state.v + p.cosine * state.im
    if not p.resets:
        spikes = reached(v - p.v_threshold, surrogate) * reached(im, surrogate) * surrogate(-state.im)
        return spikes, v, ResonateState(v, im)
    spikes = reached(im - p.v_threshold, surrogate)
    s = spikes.detach() if p.detach else spikes
    return spikes, v, ResonateState(v * (1.0 - s), im * (1.0 - s) + p.v_threshold * s)


class ResonateAndFire(Held):
    """Resonate-and-fire neurons, see the module's equations.

    Args:
        period: of the oscillation, in steps, positive; below 2 it is faster than the steps can show.
        beta: factor of the amplitude per step, in [0, 1). v_threshold. Numbers, or one value per neuron.
        resets: which of the two neurons. detach: no gradient through the reset. surrogate: as for `LIF`.
        learn: which of "period", "beta", "v_threshold" are trained; a period as exp(w), beta as sigmoid(w).

    Raises:
        NetworkError: as `Held`.
    """

    spiking = True
    DECAYS = ("beta",)
    POSITIVE = ("period",)
    LEARNABLE = ("period", "beta", "v_threshold")

    def __init__(
        self,
        period: Value = 10.0,
        beta: Value = 0.95,
        v_threshold: Value = 1.0,
        *,
        resets: bool = False,
        detach: bool = False,
        surrogate: str | SpikeFunction | AnySurrogate = "fast_sigmoid",
        learn: tuple[str, ...] = (),
    ) -> None:
        super().__init__({"period": period, "beta": beta, "v_threshold": v_threshold}, learn)
        self.resets, self.detach = bool(resets), detach
        self.surrogate = make_surrogate(surrogate)

    def params(self, dtype: torch.dtype) -> ResonateParams:
        """All coefficients, for the step function; made in float64, where they are fixed."""
        angle = 2.0 * math.pi / self.value("period")
        beta = self.value("beta")
        cosine, sine = beta * torch.cos(angle), beta * torch.sin(angle)
        threshold = self.value("v_threshold")
        return ResonateParams(cosine.to(dtype), sine.to(dtype), threshold.to(dtype), self.resets, self.detach)

    def run(
        self,
        current: Tensor,
        weight: Tensor | None = None,
        *,
        entering: tuple[Tensor, Tensor | None] | None = None,
        carry: Carry | None = None,
        membrane: bool = True,
    ) -> tuple[Tensor, Tensor | None]:
        """(spikes, v before the reset) of currents [time, batch, ...]. Listening to themselves (weight) they run step
        by step."""
        if plain.wanted(current) or weight is not None or entering is not None:
            p = self.params(current.dtype if entering is None else entering[0].dtype)
            return plain.over_time(lambda x, state: self._one(x, state, p), current, weight, entering, carry)
        p = self.params(current.dtype)
        shape = tuple(current.shape[2:])
        given = [c.expand(shape).reshape(-1) for c in (p.cosine, p.sine, p.v_threshold)]
        graph = torch.is_grad_enabled() and any(c.requires_grad for c in (current, *given))
        call = _Call(self.surrogate, self.resets, self.detach, carry, membrane or graph, graph)
        spikes, v = _Loop.apply(current, *given, call)  # type: ignore[no-untyped-call]
        return spikes, v if membrane else None

    def _one(self, x: Tensor, state: ResonateState | None, p: ResonateParams) -> tuple[Tensor, Tensor, ResonateState]:
        state = ResonateState(torch.zeros_like(x), torch.zeros_like(x)) if state is None else state
        return resonate_step(x, state, p, self.surrogate)

    def with_membrane(
        self, current: Tensor, weight: Tensor | None = None, *, carry: Carry | None = None
    ) -> tuple[Tensor, Tensor]:
        """(spikes, v after the reset), both [time, batch, ...]."""
        spikes, v = self.run(current, weight, carry=carry)
        assert v is not None
        if not self.resets:
            return spikes, v
        return spikes, v * (1.0 - (spikes.detach() if self.detach else spikes))

    def step(self, x: Tensor, state: ResonateState | None) -> tuple[Tensor, ResonateState]:
        """One step, in plain torch operations."""
        spikes, _, state = self._one(x, state, self.params(x.dtype))
        return spikes, state

    def _shown(self) -> dict[str, object]:
        return {"resets": self.resets}


class _Call(NamedTuple):
    """What of a run is not a tensor. keep: v is kept; graph: somebody may ask for gradients."""

    surrogate: AnySurrogate
    resets: bool
    detach: bool
    carry: Carry | None
    keep: bool
    graph: bool


class _Loop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cosine: Tensor, sine: Tensor, theta: Tensor, call: _Call) -> Any:
        steps, batch, *shape = x.shape
        flat = x.dense() if isinstance(x, Spikes) else x.detach()
        flat = flat.reshape(steps, batch, -1).contiguous()
        n = flat.shape[2]
        v, im = _start(call.carry, flat)
        start = (v.clone(), im.clone())
        none = flat.new_empty((0, 0, 0))
        v_out = torch.empty_like(flat) if call.keep else none
        im_out = torch.empty_like(flat) if call.graph else none
        sent = torch.empty(flat.shape, dtype=torch.uint8)
        p = [c.detach().contiguous() for c in (cosine, sine, theta)]
        over_rows(
            loops.forward, torch.get_num_threads(), batch, flat.numel(), flat.numpy(), v.numpy(), im.numpy(),
            v_out.numpy(), im_out.numpy(), sent.numpy(), *(c.numpy() for c in p), call.resets, call.keep, call.graph,
        )  # fmt: skip
        spikes = Spikes.pack_binary(sent.view(steps, batch, n), flat.dtype)
        assert spikes is not None
        if call.carry is not None:
            call.carry.value = ResonateState(v.view(batch, *shape), im.view(batch, *shape))
        v_out = v_out.view(x.shape) if call.keep else v_out
        ctx.call = call
        ctx.set_materialize_grads(False)
        if call.graph:
            ctx.save_for_backward(v_out, im_out, *start, *p)
        return Spikes(spikes.words, tuple(x.shape), flat.dtype), v_out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        call: _Call = ctx.call
        v, im, v_0, im_0, cosine, sine, theta = ctx.saved_tensors
        batch = v.shape[1]
        whole = v.shape
        v = v.reshape(im.shape).contiguous()
        none = v.new_empty((1, 0, 0))
        g, g_v = (none if a is None else a.reshape(im.shape).contiguous() for a in grads)
        h = call.surrogate.derivative(theta - (im if call.resets else v))
        h_im = none if call.resets else call.surrogate.derivative(-im)
        h_start = none[0] if call.resets else call.surrogate.derivative(-im_0)
        dx = torch.empty_like(v)
        dv, dim, *sums = (torch.zeros_like(v_0) for _ in range(5))
        over_rows(
            loops.backward, torch.get_num_threads(), batch, 2 * dx.numel(),
            *(a.contiguous().numpy() for a in (g, g_v, h, h_im, h_start, v, im, v_0, im_0)),
            *(a.numpy() for a in (dx, dv, dim, *sums, cosine, sine, theta)), call.resets,
            theta.numpy().dtype.type(not call.detach), grads[0] is not None, grads[1] is not None,
        )  # fmt: skip
        return dx.view(whole), *(a.sum(0) for a in sums), None


def _start(carry: Carry | None, like: Tensor) -> tuple[Tensor, Tensor]:
    """The state [batch, n] to begin with, copies."""
    if carry is None or carry.value is None:
        return like.new_zeros(like.shape[1:]), like.new_zeros(like.shape[1:])
    return tuple(a.detach().to(like.dtype).reshape(like.shape[1:]).clone() for a in carry.value)


__all__ = ["ResonateAndFire", "ResonateParams", "ResonateState", "reached", "resonate_step"]
