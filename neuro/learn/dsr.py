"""DSR: the gradient of weighted firing rates, as those of a network of clamps; time does not enter.

Meng et al. 2022 (CVPR, arXiv:2205.00459). Of neurons v[t] = beta v[t-1] + x[t] with reset by subtraction, with the
weights k[t] = beta^(T-1-t) / sum of them, and rates r = sum k[t] s[t], x_mean = sum k[t] x[t]::

    r = (x_mean - v[T-1] / Z) / v_threshold ~ clamp(x_mean / v_threshold, 0, 1)        x_mean = W r_in + b

The rates are measured on the spikes of a forward pass without a graph; the gradient is that of the clamps at those
rates. Layers of several leaks: what enters a layer is weighted with that layer's leak, and the gradient to it taken
for that of the rate that the layer before computes. The leaky integrator that is read gets its mean input in every
step. A penalty on spikes sees the number of them, and its gradient goes to the rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from neuro.learn import online
from neuro.learn.ottt import leaks
from neuro.learn.rule import Learnt, LossOf, Watch, pieces
from neuro.nn.delay import Delay
from neuro.nn.joined import Carry
from neuro.nn.layers import IF, LIF, Neuron, Recurrent
from neuro.nn.network import INPUT, OUTPUT, SpikingNetwork
from neuro.nn.spikes import Spikes
from neuro.nn.stateless import Dropout


@dataclass(frozen=True)
class DSR:
    """stretch: steps that run at once; the result does not depend on it."""

    integers: ClassVar[bool] = False  # whether it goes on where weights and state are a chip's integers

    stretch: int = 10

    def problems(self) -> list[str]:
        return [] if self.stretch >= 1 else [f"stretch is {self.stretch}, it must be at least 1"]

    def backward(
        self,
        model: SpikingNetwork,
        x: Tensor,
        loss_of: LossOf,
        *,
        rng: torch.Generator | None = None,
        watch: Watch | None = None,
    ) -> Learnt:
        """As `neuro.learn.rule.Rule.backward`. watch: the weighted rates, one row per sample.

        Raises:
            NetworkError: neurons other than LIF and IF with reset "subtract", or recurrent; learnt leaks; norms of a
                batch; delays.
        """
        heads = online.heads("dsr", model)
        online.refuse("dsr", _problems(model, heads))
        seen = _Rates.measure(model, x, self.stretch, _wanted(model, heads))
        found: dict[str, Tensor] = {}
        for name in model.order:
            found[name] = _output(model, found, seen) if name == OUTPUT else _rate(model, name, found, seen, watch)
        spikes = {n: _Straight.apply(found[n][None].expand(len(x), *found[n].shape), (c / len(x))[None].expand(len(x),
                  *c.shape)) for n, c in seen.counts.items()}  # type: ignore[no-untyped-call]  # fmt: skip
        loss, penalty = loss_of(found[OUTPUT], spikes)
        (loss + penalty).backward()  # type: ignore[no-untyped-call]
        totals = {n: float(c.sum(dtype=torch.float64)) for n, c in seen.counts.items()}
        return Learnt(float(loss.detach()), model.scores(seen.trace), totals)


def _problems(model: SpikingNetwork, heads: dict[str, str]) -> dict[str, str]:
    bad = {}
    for name in heads:
        layer = model.layer(name)
        if isinstance(layer, Recurrent):
            bad[name] = "is recurrent: its rate is a fixed point, not a function of its input"
        elif not isinstance(layer, Neuron) or layer.synapse or (layer.spiking and not isinstance(layer, (LIF, IF))):
            bad[name] = f"the rate of a {type(layer).__name__} is not a clamp of its input"
        elif layer.spiking and layer.reset != "subtract":
            bad[name] = "resets hard, which forgets what a rate would count; use reset 'subtract'"
        elif "beta" in layer.learn or layer.grid is not None:
            bad[name] = "its leak is learnt, or it runs on a chip's integers"
    return bad


def _downstream(model: SpikingNetwork, name: str, heads: dict[str, str]) -> list[float]:
    """Leaks of the neurons that a layer's spikes come to; 1 at the output."""
    found = []
    for target in model.targets(name):
        if target == OUTPUT:
            found.append(1.0)
        elif target in heads:
            layer = model.layer(target)
            assert isinstance(layer, Neuron)
            found.append(leaks(layer)[1])
        else:
            found += _downstream(model, target, heads)
    return found


def _wanted(model: SpikingNetwork, heads: dict[str, str]) -> dict[str, float]:
    """source of spikes -> the leak that weights its rate."""
    sources = [INPUT, *(n for n in heads if getattr(model.layer(n), "spiking", False))]
    found, bad = {}, {}
    for name in sources:
        several = set(_downstream(model, name, heads))
        if len(several) > 1:
            bad[name] = f"leads to neurons of several leaks, {sorted(several)}"
        found[name] = several.pop() if several else 1.0
    online.refuse("dsr", bad)
    return found


@dataclass
class _Rates:
    """What a sample did. rates by source [batch, ...]; counts of spikes by layer; trace; masks of dropout."""

    rates: dict[str, Tensor]
    counts: dict[str, Tensor]
    trace: Tensor
    carry: dict[str, Carry]

    @staticmethod
    @torch.no_grad()
    def measure(model: SpikingNetwork, x: Tensor, stretch: int, leak: dict[str, float]) -> _Rates:
        carry: dict[str, Carry] = {}
        sums: dict[str, Tensor] = {}
        counts: dict[str, Tensor] = {}
        traces = []
        for part in pieces(x, stretch):
            spikes: dict[str, Tensor] = {}
            given = model._received(part)
            traces.append(model(given, spikes, carry))
            for name, s in {INPUT: given, **spikes}.items():
                dense = s.dense() if isinstance(s, Spikes) else s
                if name in leak:
                    weights = torch.tensor([leak[name] ** (len(s) - 1 - t) for t in range(len(s))], dtype=dense.dtype)
                    now = torch.tensordot(weights, dense, 1)
                    sums[name] = now if name not in sums else sums[name] * leak[name] ** len(s) + now
                if name != INPUT:
                    counts[name] = dense.sum(0) + counts.get(name, 0.0)
        rates = {n: total / sum(leak[n] ** t for t in range(len(x))) for n, total in sums.items()}
        return _Rates(rates, counts, torch.cat(traces), carry)


class _Straight(torch.autograd.Function):
    """The second forwards, the first's gradient backwards."""

    @staticmethod
    def forward(ctx: Any, modelled: Tensor, measured: Tensor) -> Tensor:
        return measured.view_as(measured)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def _sum(model: SpikingNetwork, name: str, found: dict[str, Tensor]) -> Tensor:
    first, *rest = [found[s] for s in model.sources(name)]
    for part in rest:
        first = first + part
    return first


def _rate(model: SpikingNetwork, name: str, found: dict[str, Tensor], seen: _Rates, watch: Watch | None) -> Tensor:
    """The rate of a layer, [batch, ...]: measured, with the gradient of its clamp. Of an integrator, its input."""
    if name == INPUT:
        return seen.rates[INPUT]
    layer, x = model.layer(name), _sum(model, name, found)
    if isinstance(layer, Neuron):
        x = layer.value("gain").to(x.dtype) * layer.value("gain_syn").to(x.dtype) * x + layer.value("drive").to(x.dtype)
        if not layer.spiking:
            return x
        clamped = (x / layer.value("v_threshold").to(x.dtype)).clamp(0.0, 1.0)
        return _Straight.apply(clamped, seen.rates[name])  # type: ignore[no-untyped-call,no-any-return]
    if isinstance(layer, Dropout):
        keep = seen.carry[name].value if layer.training and layer.p else None
        return x if keep is None else x * (keep[0].to(x.dtype) / (1.0 - layer.p))
    assert not isinstance(layer, Delay)
    if watch is not None and isinstance(layer, (nn.Linear, nn.Conv2d)):
        watch(name, x.detach())
    return layer(x)  # type: ignore[no-any-return]


def _output(model: SpikingNetwork, found: dict[str, Tensor], seen: _Rates) -> Tensor:
    """The trace as it was; its gradient goes to what every step would have been with a constant input."""
    steps = len(seen.trace)
    parts = []
    for source in model.sources(OUTPUT):
        x = found[source]
        constant = x[None].expand(steps, *x.shape)
        layer = model.layer(source) if source != INPUT else None
        if isinstance(layer, Neuron) and not layer.spiking:
            beta = leaks(layer)[1]
            growth = torch.tensor([sum(beta**k for k in range(t + 1)) for t in range(steps)], dtype=x.dtype)
            constant = constant * growth.view(-1, *[1] * x.dim())
        parts.append(constant)
    modelled = parts[0]
    for part in parts[1:]:
        modelled = modelled + part
    return _Straight.apply(modelled, seen.trace)  # type: ignore[no-untyped-call,no-any-return]
