"""OTTT: the gradient of each step through its layers, times a trace of what came before.

Xiao et al. 2022 (NeurIPS, arXiv:2210.04195). With delta the spatial gradient to a layer's membrane, as in
`neuro.learn.sltt`, and lam the leak of the neurons that the weights lead to::

    a[t] = lam a[t-1] + s_in[t]        dL/dW = sum over t of delta[t] a[t]^T

Behind a synapse (`CubaLIF`) the trace is that of the current, through the membrane's leak:
j[t] = alpha j[t-1] + s_in[t], a[t] = beta a[t-1] + j[t]. A bias is a weight of an input that is always 1, so it has a
trace too; the paper's code leaves that out. Weights of a `Recurrent` have traces of the spikes that come back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from neuro.errors import NetworkError
from neuro.learn import online
from neuro.learn.rule import Learnt, LossOf, Watch
from neuro.nn import fused
from neuro.nn.adaptive import AdLIF
from neuro.nn.cut import Cut
from neuro.nn.joined import Carry
from neuro.nn.layers import Neuron, Recurrent
from neuro.nn.network import SpikingNetwork
from neuro.nn.surrogate import surrogate


@dataclass(frozen=True)
class OTTT:
    """stretch: steps that are run and judged together. online: rate of plain gradient steps after each stretch within
    a sample (OTTT-O); 0 to add up the gradients of a sample (OTTT-A).

    With ``online`` the parameters walk, and are put back: ``grad`` is then the way they went, divided by the rate. So
    SGD with that rate, without momentum, ends where OTTT-O ends; any other optimiser takes the way as a gradient.
    """

    integers: ClassVar[bool] = False  # whether it goes on where weights and state are a chip's integers

    stretch: int = 10
    online: float = 0.0

    def problems(self) -> list[str]:
        bad = [] if self.stretch >= 1 else [f"stretch is {self.stretch}, it must be at least 1"]
        return bad + ([] if 0 <= self.online < float("inf") else [f"online is {self.online}, it must not be negative"])

    def backward(
        self,
        model: SpikingNetwork,
        x: Tensor,
        loss_of: LossOf,
        *,
        rng: torch.Generator | None = None,
        watch: Watch | None = None,
    ) -> Learnt:
        """As `neuro.learn.rule.Rule.backward`. watch: the traces.

        Raises:
            NetworkError: what `neuro.learn.online` cannot cut or pair; norms of a batch, delays.
        """
        heads = online.heads("ottt", model)
        made = online.shadow(model, traced(heads, watch))
        parts = online.stretches(made, x, self.stretch)
        with online.watched_rest(model, heads, watch):
            if not self.online:
                return online.learn(parts, model, loss_of)
            return _walk(self.online, parts, model, loss_of)


def _walk(rate: float, parts: online.Parts, model: SpikingNetwork, loss_of: LossOf) -> Learnt:
    """A gradient step after every stretch; then back to the start, with the way as gradient."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    start, before = [p.detach().clone() for p in parameters], [p.grad for p in parameters]

    @torch.no_grad()
    def step() -> None:
        for p in parameters:
            if p.grad is not None:
                p.sub_(p.grad, alpha=rate)
            p.grad = None

    try:
        for p in parameters:
            p.grad = None
        learnt = online.learn(parts, model, loss_of, step)
        for p, old, grad in zip(parameters, start, before, strict=True):
            way = (old - p.detach()) / rate
            p.grad = way if grad is None else grad + way
    finally:
        with torch.no_grad():
            for p, old in zip(parameters, start, strict=True):
                p.copy_(old)
    return learnt


def traced(heads: dict[str, str], watch: Watch | None, alone: bool = False) -> online.Exchange:
    """Puts `Cut` with traces in the place of populations. heads: population -> the layer with weights before it."""

    def of(name: str, layer: nn.Module) -> nn.Module:
        if name not in heads:
            return layer
        inner = layer.neuron if isinstance(layer, Recurrent) else layer
        assert isinstance(inner, (Neuron, AdLIF))
        return Cut(layer, Traces(*leaks(inner), _seen(watch, heads[name]), _seen(watch, f"{name}.recurrent")), alone)

    return of


def _seen(watch: Watch | None, name: str) -> Callable[[Tensor], None] | None:
    return None if watch is None else lambda a: watch(name, a.detach().flatten(0, 1))


def leaks(neuron: Neuron | AdLIF) -> tuple[float, float]:
    """(alpha, beta), one number each for a whole population.

    Raises:
        NetworkError: each neuron has its own; a trace would be needed for each synapse.
    """
    found = []
    for name in ("alpha", "beta"):
        if name == "alpha" and isinstance(neuron, AdLIF):
            found.append(0.0)
            continue
        value = neuron.value(name).detach()
        if not bool((value == value.flatten()[0]).all()):
            raise NetworkError(f"traces need one {name} for all neurons of a {type(neuron).__name__}")
        found.append(float(value.flatten()[0]))
    return found[0], found[1]


@dataclass
class Traces:
    """a of inputs, of a constant 1 and of spikes that come back; carried from stretch to stretch."""

    alpha: float
    beta: float
    see: Callable[[Tensor], None] | None = None
    see_returned: Callable[[Tensor], None] | None = None
    carries: tuple[Carry, Carry, Carry] = field(default_factory=lambda: (Carry(), Carry(), Carry()))

    def inputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As `neuro.nn.cut.Factor.inputs`."""
        a = self.run(x, self.carries[0])
        if self.see is not None:
            self.see(a)
        return a, self.run(torch.ones((len(x), 1, 1), dtype=x.dtype), self.carries[1]).flatten()

    def returned(self, s: Tensor) -> Tensor:
        """As `neuro.nn.cut.Factor.returned`."""
        a = self.run(s, self.carries[2])
        if self.see_returned is not None:
            self.see_returned(a)
        return a

    def run(self, x: Tensor, carry: Carry) -> Tensor:
        """j = alpha j + x, a = beta a + j over [time, batch, ...], from the state in carry."""
        one, zero = x.new_ones(()), x.new_zeros(())
        with torch.no_grad():
            a, _ = fused.run(
                x, fused.Rule(surrogate(), spiking=False), alpha=one * self.alpha, beta=one * self.beta,
                v_threshold=one, v_reset=zero, gain_syn=one, gain=one, drive=zero, carry=carry,
            )  # fmt: skip
        return a
