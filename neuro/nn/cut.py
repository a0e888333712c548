"""Neurons whose past is cut off from the gradient: forwards as ever, backwards one step.

What a step hands to the next (synaptic current, membrane after the reset, adaptation, the spikes that return to a
`Recurrent`) counts as a constant there. With u the membrane before the reset and h the surrogate's derivative::

    Du[t] = g_s[t] h(u[t] - v_threshold) + g_u[t]        Dx[t] = gain gain_syn Du[t]

No step's gradient waits for another's, so all steps are done at once. Parameters see the state as the constant that it
is: D beta = sum Du v[t-1], D alpha = sum gain Du i[t-1], D v_threshold = -sum g_s h; what only the future would show
(rho, a, b of an `AdLIF`) gets 0. This is the spatial gradient of SLTT (Meng et al. 2023, ICCV, arXiv:2302.14311) and
of the rules built on it (`neuro.learn.online`). Spikes are those of the population itself: its own kernels run. With
the weights in front of it a population runs as one (`neuro.nn.cut_joins`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from neuro.errors import NetworkError
from neuro.nn import fused, plain
from neuro.nn.adaptive import AdLIF
from neuro.nn.joined import Carry, Chain
from neuro.nn.layers import Neuron, Population, Recurrent, weights
from neuro.nn.neurons import NeuronParams, State, reset_membrane
from neuro.nn.recurrent import bits_of, scatters, to_weight
from neuro.nn.spikes import Spikes
from neuro.nn.thinned import Thinned

LEARNT = ("alpha", "beta", "v_threshold")


class Factor(Protocol):
    """What the gradient of weights is a product with, in place of their inputs."""

    def inputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(a [time, batch, ...] for inputs of that shape, a of an input that is always 1, [time])."""
        ...

    def returned(self, s: Tensor) -> Tensor:
        """a [time, batch, n] for the spikes that come back, s [time, batch, n]."""
        ...


class Cut(Population):
    """A `Neuron`, an `AdLIF` or a `Recurrent` of either, which keeps its parameters, without gradient through time.

    The weights of a `Recurrent` get Dx[t] s[t-1]^T; the spikes that they carried back get nothing.

    factor: what stands for the inputs in the gradient of the weights in front, where it is not the inputs themselves.
    alone: with factor, nothing goes back to the layer that the inputs come from. see: called with the spikes that a
    `Recurrent` brings back, [time, batch, n], where a graph is made.

    Raises:
        NetworkError: another kind of layer; with factor, neurons that do not run together with their weights.
    """

    def __init__(
        self,
        layer: nn.Module,
        factor: Factor | None = None,
        alone: bool = False,
        see: Callable[[Tensor], None] | None = None,
    ) -> None:
        super().__init__()
        inner = layer.neuron if isinstance(layer, Recurrent) else layer
        if not isinstance(inner, (Neuron, AdLIF)):
            raise NetworkError(f"{type(layer).__name__} cannot be cut off from its past; cut knows Neuron and AdLIF")
        self.layer, self.factor, self.alone, self.see = layer, factor, alone, see
        self.spiking = inner.spiking

    @property
    def neuron(self) -> Neuron | AdLIF:
        """The population itself."""
        inner = self.layer.neuron if isinstance(self.layer, Recurrent) else self.layer
        assert isinstance(inner, (Neuron, AdLIF))
        return inner

    @property
    def back(self) -> Tensor | None:
        """The weights of a `Recurrent`."""
        return weights(self.layer.recurrent)[0] if isinstance(self.layer, Recurrent) else None

    def sent(self, x: Tensor, carry: Carry | None, membrane: bool = True) -> tuple[Tensor, Tensor | None]:
        """(spikes, u before the reset) for currents [time, batch, ...]; u may be None where it is not wanted."""
        if plain.wanted(x):
            raise NetworkError("rules that are local in time run on the CPU only; use rule 'bptt' on other devices")
        if self.factor is not None:
            raise NetworkError("neurons with traces run together with the Linear or Conv2d in front of them alone")
        weight = self.back
        if not torch.is_grad_enabled():
            return self.neuron.run(x, weight, carry=carry, membrane=membrane)
        given = coefficients(self.neuron, x.dtype, tuple(x.shape[2:]))
        call = Call(self.neuron, carry, None, see=self.see)
        found: tuple[Tensor, Tensor] = _Past.apply(x, weight, *given, call)  # type: ignore[no-untyped-call]
        return found if self.spiking else (found[1], found[1])

    def run(
        self,
        current: Tensor,
        weight: Tensor | None = None,
        *,
        entering: tuple[Tensor, Tensor | None] | None = None,
        carry: Carry | None = None,
        membrane: bool = True,
    ) -> tuple[Tensor, Any]:
        """As `Neuron.run`; the recurrence is the layer's own."""
        assert weight is None and entering is None  # noqa: PT018
        return self.sent(current, carry, membrane)

    def with_membrane(
        self, current: Tensor, weight: Tensor | None = None, *, carry: Carry | None = None
    ) -> tuple[Tensor, Tensor]:
        """(output, v after the reset): the reset of a step is part of that step, its gradient passes."""
        assert weight is None  # the recurrence is the layer's own
        s, u = self.sent(current, carry)
        assert u is not None
        if not self.spiking:
            return u, u
        p = self.neuron.params(u.dtype)
        kept = NeuronParams(v_threshold=p.v_threshold, v_reset=p.v_reset, reset=p.reset, detach=p.detach)
        return s, reset_membrane(u, s, kept)

    def membrane(self, state: Any) -> Tensor:
        """As the layer's own."""
        assert isinstance(self.layer, (Population, Recurrent))
        return self.layer.membrane(state)

    def forward(self, current: Tensor) -> Tensor:
        return self.sent(current, None, False)[0]

    def resume(self, x: Tensor, carry: Carry) -> Tensor:
        return self.sent(x, carry, False)[0]

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One step, from a state that is a constant."""
        past = tree_map_only(Tensor, Tensor.detach, state)
        found: tuple[Tensor, Any] = self.layer.step(x, past)  # type: ignore[operator]
        return found


@dataclass(frozen=True)
class Call:
    """What of a run is not a tensor. chain: of a Linear and the neurons, where they run as one."""

    neuron: Neuron | AdLIF
    carry: Carry | None
    chain: Chain | None
    factor: Factor | None = None
    see: Callable[[Tensor], None] | None = None


def coefficients(neuron: Neuron | AdLIF, dtype: torch.dtype, shape: tuple[int, ...]) -> list[Tensor]:
    """alpha, beta and v_threshold of every neuron, with their gradients."""
    zero = torch.zeros((), dtype=dtype)
    given = [zero if isinstance(neuron, AdLIF) and name == "alpha" else neuron.value(name) for name in LEARNT]
    return [c.to(dtype).expand(shape).reshape(-1) for c in given]


def state_of(carry: Carry | None, recurrent: bool) -> tuple[Any, Tensor | None]:
    """(state, spikes of the step before) that a run starts from; None: rest."""
    if carry is None or carry.value is None:
        return None, None
    state, spikes = carry.value if recurrent else (carry.value, None)
    return tree_map_only(Tensor, lambda part: part.detach().clone(), state), spikes


class _Past(torch.autograd.Function):
    """Currents -> (spikes, u)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, *rest: Any) -> tuple[Tensor | None, Tensor]:
        *given, call = rest
        start, before = state_of(call.carry, weight is not None)
        s, u = call.neuron.run(x.detach(), None if weight is None else weight.detach(), carry=call.carry)
        ctx.call, ctx.start, ctx.before = call, start, before
        ctx.words = s.words if isinstance(s, Spikes) else None
        if weight is not None and call.see is not None:
            call.see(returned(ctx, u))
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(u, *given)
        return (s if call.neuron.spiking else None), u

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        u, *given = ctx.saved_tensors
        back = Back.of(ctx, u, given, *grads, needs=ctx.needs_input_grad[2:5])
        if back is None:
            return (None,) * 6
        d_weight = None
        if ctx.needs_input_grad[1]:
            d_weight = outer(back.dx.flatten(0, 1).contiguous(), returned(ctx, u))
        return back.dx, d_weight, *back.learnt, None


@dataclass(frozen=True)
class Back:
    """dx [time, batch, ...] and the gradients to alpha, beta and v_threshold, [n] or None."""

    dx: Tensor
    learnt: tuple[Tensor | None, ...]

    @staticmethod
    def of(ctx: Any, u: Tensor, given: list[Tensor], g: Tensor | None, g_u: Tensor | None, *, needs: Any) -> Any:
        """None where no gradient came."""
        neuron: Neuron | AdLIF = ctx.call.neuron
        shape = u.shape[2:]
        _, beta, theta = (c.detach().view(shape) for c in given)
        du = g_u
        e = None
        if neuron.spiking and g is not None:
            over = u.detach() - theta
            if isinstance(neuron, AdLIF) and neuron.adaptation == "threshold":
                over = over - lifted(_fired(ctx, u), None if ctx.start is None else ctx.start.w, neuron)
            e = neuron.surrogate.derivative(over).mul_(g)
            du = e if g_u is None else e + g_u
        if du is None:
            return None
        gains = [neuron.value(name).to(u.dtype) for name in _GAINS if hasattr(neuron, f"{name}_fixed")]
        unit = 1.0 if neuron.grid is None else neuron.grid().unit
        dx = du
        for gain in gains:
            dx = _times(dx, gain)
        dx = dx if unit == 1.0 else dx * unit
        learnt: list[Tensor | None] = [None, None, None]
        if any(needs):
            v = _before(ctx, u, neuron)
            if needs[0]:
                i = _currents_before(ctx, u, v, beta, neuron)
                learnt[0] = (_times(du, neuron.value("gain").to(u.dtype)) * i).flatten(2).sum((0, 1))
            if needs[1]:
                learnt[1] = (du * v).flatten(2).sum((0, 1))
            if needs[2]:
                learnt[2] = torch.zeros_like(given[2]) if e is None else -e.flatten(2).sum((0, 1))
        return Back(dx, tuple(learnt))


_GAINS = ("gain", "gain_syn")


def _times(x: Tensor, gain: Tensor) -> Tensor:
    """x * gain; x itself where the gain is 1, as it is in networks that are trained here."""
    return x if gain.numel() == 1 and float(gain) == 1.0 else x * gain


def _fired(ctx: Any, u: Tensor) -> Tensor:
    return Spikes(ctx.words, tuple(u.shape), u.dtype).dense()


def _before(ctx: Any, u: Tensor, neuron: Neuron | AdLIF) -> Tensor:
    """v[t-1], after the reset, at every step."""
    u = u.detach()
    first = torch.zeros_like(u[:1]) if ctx.start is None else ctx.start.v.to(u.dtype).view(1, *u.shape[1:])
    if neuron.grid is not None and ctx.start is not None:
        grid = neuron.grid()
        first = first * (grid.unit / grid.fraction if grid.state else 1.0)
    with torch.no_grad():
        p = neuron.params(u.dtype)
        kept = NeuronParams(v_threshold=p.v_threshold, v_reset=p.v_reset, reset=p.reset)
        after = reset_membrane(u, _fired(ctx, u), kept) if neuron.spiking else u
    return torch.cat([first, after[:-1]])


def _currents_before(ctx: Any, u: Tensor, v: Tensor, beta: Tensor, neuron: Neuron | AdLIF) -> Tensor:
    """i[t-1] at every step, from u[t] = beta v[t-1] + gain i[t] + drive."""
    i = (u.detach() - beta * v - neuron.value("drive").to(u.dtype)) / neuron.value("gain").to(u.dtype)
    first = torch.zeros_like(u[:1]) if ctx.start is None else ctx.start.i.to(u.dtype).view(1, *u.shape[1:])
    if neuron.grid is not None and ctx.start is not None:
        grid = neuron.grid()
        first = first * (grid.unit / grid.fraction if grid.state else 1.0)
    return torch.cat([first, i[:-1]])


def lifted(s: Tensor, first: Tensor | None, neuron: AdLIF) -> Tensor:
    """w[t-1] [time, batch, ...] of a threshold that rises with each spike s: w[t] = rho w[t-1] + b s[t]. first: w
    before step 0, None for rest."""
    first = torch.zeros_like(s[0]) if first is None else first.to(s.dtype).view(s.shape[1:])
    carry = Carry(State(torch.zeros_like(first), first))
    one, zero = s.new_ones(()), s.new_zeros(())
    rule = fused.Rule(neuron.surrogate, spiking=False)
    with torch.no_grad():
        w, _ = fused.run(
            s[:-1], rule, alpha=zero, beta=neuron.value("rho").to(s.dtype), v_threshold=one, v_reset=zero,
            gain_syn=one, gain=neuron.value("b").to(s.dtype), drive=zero, carry=carry,
        )  # fmt: skip
    return torch.cat([first[None], w])


def returned(ctx: Any, like: Tensor) -> Spikes:
    """The spikes that a recurrence brings, those of the step before."""
    steps, batch, n = like.shape
    early = np.zeros((batch, -(-n // 64)), np.uint64) if ctx.before is None else bits_of(ctx.before)
    return Spikes(np.concatenate([early, ctx.words.reshape(steps * batch, -1)[:-batch]]), (steps, batch, n), like.dtype)


def outer(flat: Tensor, x: Tensor) -> Tensor:
    """flat^T x, by events where there are few. flat: [rows, n]."""
    if isinstance(x, Spikes) and scatters(x, flat.shape[1]):
        return to_weight(x.words[:0], x.words, flat, x.n)
    dense = x.dense() if isinstance(x, (Spikes, Thinned)) else x.detach()
    return flat.t() @ dense.flatten(0, 1)
