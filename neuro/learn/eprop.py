"""e-prop: an eligibility trace at every synapse, forwards in time, times a learning signal from the output.

Bellec et al. 2020 (Nat. Commun. 11:3625). With h the surrogate's derivative and eps the derivative of neuron j's own
state by its weight, which follows the neuron's own equations::

    e_ji[t] = ds_j[t] / dW_ji = h(u_j[t] - v_threshold) eps_ji[t]        one number for LIF, two for ALIF and AdLIF
    dL/dW_ji = sum over t of L_j[t] sum over t' <= t of kappa^(t - t') e_ji[t']        L_j = sum over k B_jk dL/dy_k

kappa is the leak of the output. B are the output's weights ("symmetric"), fixed random numbers ("random"), or both
added up ("adaptive": weights that start at random and get the output's own updates keep their distance to it, which
is what is random). What one neuron's spikes do to others through recurrent weights is left out; all else is the exact
derivative, with the neuron's own reset where it is not detached. Output weights get their exact gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from neuro.learn import online
from neuro.learn.decolle import fixed
from neuro.learn.eprop_kernels import eligibility
from neuro.learn.ottt import Traces, leaks
from neuro.learn.rule import Learnt, LossOf, Watch, joined, pieces
from neuro.nn import kernels
from neuro.nn.adaptive import AdLIF
from neuro.nn.cut import Call, lifted, state_of
from neuro.nn.cut_joins import currents, whole
from neuro.nn.joined import Carry, Chain
from neuro.nn.layers import Neuron, Recurrent, weights
from neuro.nn.network import INPUT, OUTPUT, SpikingNetwork, read
from neuro.nn.spikes import Spikes

FEEDBACK = ("symmetric", "random", "adaptive")


@dataclass(frozen=True)
class EProp:
    """feedback: one of `FEEDBACK`. stretch: steps that are judged together. scale: random feedback is
    N(0, scale^2 / n). seed: of it.

    Eligibility takes 4 [batch, targets, sources] numbers per layer, whatever the length of a sample.
    """

    integers: ClassVar[bool] = False  # whether it goes on where weights and state are a chip's integers

    feedback: str = "symmetric"
    stretch: int = 10
    scale: float = 1.0
    seed: int = 0

    def problems(self) -> list[str]:
        bad = [] if self.feedback in FEEDBACK else [f"feedback must be one of {FEEDBACK}, got {self.feedback!r}"]
        bad += [] if self.stretch >= 1 else [f"stretch is {self.stretch}, it must be at least 1"]
        return bad + ([] if self.scale > 0 else [f"scale is {self.scale}, it must be positive"])

    def backward(
        self,
        model: SpikingNetwork,
        x: Tensor,
        loss_of: LossOf,
        *,
        rng: torch.Generator | None = None,
        watch: Watch | None = None,
    ) -> Learnt:
        """As `neuro.learn.rule.Rule.backward`. watch: the synaptically filtered inputs, of which eligibility is made.

        Raises:
            NetworkError: layers other than Linear, populations and one readout of weights and at most a leaky
                integrator; learnt coefficients; "symmetric" feedback to layers that do not reach the readout.
        """
        out, hidden = plan(model, self.feedback)
        loss, scores, fired = 0.0, None, dict[str, float]()
        for part in pieces(x, self.stretch):
            share = len(part) / len(x)
            with torch.no_grad():
                given = model._received(part)
                for layer in hidden:
                    given = layer.run(given)
                trace = out.run(given).requires_grad_()
            leaves = {layer.name: layer.s.detach().requires_grad_() for layer in hidden}
            error, penalty = loss_of(trace, leaves)
            wanted = [trace, *leaves.values()]
            g, *own = torch.autograd.grad((error + penalty) * share, wanted, allow_unused=True)
            g = torch.zeros_like(trace) if g is None else g
            out.learn(g, watch)
            for layer, direct in zip(hidden, own, strict=True):
                layer.learn(g @ self._feedback(out, layer, trace), direct, out.kappa, watch)
            loss += float(error.detach()) * share
            scores = joined(scores, read(trace.detach(), model.readout).flatten(1), model.readout)
            for name, s in leaves.items():
                fired[name] = fired.get(name, 0.0) + float(s.detach().sum(dtype=torch.float64))
        for layer in hidden:
            layer.finish()
        assert scores is not None
        return Learnt(loss, scores, fired)

    def _feedback(self, out: Readout, layer: Hidden, like: Tensor) -> Tensor:
        """B of a layer, [outputs, n]."""
        w: Tensor = out.linear.weight.detach()
        random: Tensor = fixed(self.seed, layer.name, len(w), layer.n, like.dtype) * (self.scale / layer.n**0.5)
        if self.feedback == "random":
            return random
        known = w if out.source == layer.name else torch.zeros_like(random)
        return known if self.feedback == "symmetric" else known + random


def plan(model: SpikingNetwork, feedback: str) -> tuple[Readout, list[Hidden]]:
    """The readout and the hidden layers, from the input on.

    Raises:
        NetworkError: as `EProp.backward`.
    """
    heads, bad = online.heads("eprop", model), dict[str, str]()
    hidden: list[Hidden] = []
    readouts = [n for n in model.sources(OUTPUT) if n != INPUT]
    for name, layer in online.layers(model).items():
        if len(model.sources(name)) != 1 or len(model.targets(name)) != 1:
            bad[name] = "does not have exactly one source and one target"
        elif name in heads and name not in readouts:
            inner = layer.neuron if isinstance(layer, Recurrent) else layer
            assert isinstance(inner, (Neuron, AdLIF))
            if not isinstance(model.layer(heads[name]), nn.Linear):
                continue  # named below
            if not inner.spiking or inner.learn or inner.grid is not None:
                bad[name] = "does not spike, learns a coefficient, or runs on a chip's integers"
            else:
                hidden.append(Hidden(name, heads[name], model.layer(heads[name]), layer))
        elif name in readouts and name in heads:
            if not isinstance(layer, Neuron) or layer.spiking or layer.synapse or layer.learn:
                bad[name] = "is read: it must be a leaky integrator without synapse, of fixed leak"
        elif not isinstance(layer, nn.Linear):
            bad[name] = f"is a {type(layer).__name__}; only Linear and populations have eligibility here"
    if len(readouts) != 1:
        bad[OUTPUT] = f"is read from {readouts}; it needs one layer"
    online.refuse("eprop", bad)
    end = readouts[0]
    out = Readout(heads.get(end, end), model.layer(heads.get(end, end)), model.layer(end) if end in heads else None)
    out.source = next(iter(model.sources(out.head)))
    if feedback == "symmetric":
        deep = {h.name: "does not reach the readout directly; use feedback 'random'" for h in hidden
                if h.name != out.source}  # fmt: skip
        online.refuse("eprop", deep)
    return out, hidden


def _add(parameter: Tensor | None, grad: Tensor) -> None:
    if parameter is not None and parameter.requires_grad:
        parameter.grad = grad if parameter.grad is None else parameter.grad + grad


class Readout:
    """y = LI(W s), or W s; its weights get the gradient that they have through time."""

    def __init__(self, head: str, linear: Any, neuron: Any) -> None:
        self.head, self.linear, self.neuron, self.source = head, linear, neuron, INPUT
        self.kappa = 0.0 if neuron is None else leaks(neuron)[1]
        self.traces, self.carry = Traces(0.0, self.kappa), Carry()
        self.a = self.always = torch.zeros(0)

    def run(self, x: Tensor) -> Tensor:
        """The trace [time, batch, outputs] of a stretch."""
        dense = x.dense() if isinstance(x, Spikes) else x
        self.a, self.always = self.traces.inputs(dense)
        if self.neuron is None:
            return currents(x, self.linear.weight, self.linear.bias)
        call = Call(self.neuron, self.carry, Chain(self.linear, None, self.neuron))
        return whole(call, x, self.linear.weight, self.linear.bias, None, True)[0].clone()

    def learn(self, g: Tensor, watch: Watch | None) -> None:
        """g: dL/dy of the stretch."""
        if self.neuron is not None:
            g = g * self.neuron.value("gain").to(g.dtype) * self.neuron.value("gain_syn").to(g.dtype)
        _add(self.linear.weight, g.flatten(0, 1).t() @ self.a.flatten(0, 1))
        _add(self.linear.bias, self.always @ g.sum(1))
        if watch is not None:
            watch(self.head, self.a.flatten(0, 1))


class Hidden:
    """Weights and neurons, their eligibility carried from stretch to stretch."""

    def __init__(self, name: str, head: str, linear: Any, layer: Any) -> None:
        self.name, self.head, self.linear, self.layer = name, head, linear, layer
        inner: Any = layer.neuron if isinstance(layer, Recurrent) else layer
        self.neuron: Neuron | AdLIF = inner
        self.back = weights(layer.recurrent)[0] if isinstance(layer, Recurrent) else None
        self.n, self.fan_in = linear.weight.shape
        self.traces, self.carry = Traces(0.0, leaks(self.neuron)[0]), Carry()
        self.x = self.s = self.u = torch.zeros(0)
        self.w: Tensor | None = None
        self.state: list[Any] = []

    def run(self, x: Tensor) -> Tensor:
        """Spikes of a stretch; keeps what learning needs of it."""
        start, before = state_of(self.carry, self.back is not None)
        weight, bias = self.linear.weight, self.linear.bias
        s, u = whole(Call(self.neuron, self.carry, Chain(self.linear, None, self.layer)), x, weight, bias, self.back,
                     True)  # fmt: skip
        if u is None:
            u = self.neuron.run(currents(x, weight, bias), carry=Carry(start))[1]
        assert isinstance(s, Spikes)
        dense = s.dense()
        parts = [x.dense() if isinstance(x, Spikes) else x.detach()]
        if self.back is not None:
            first = torch.zeros_like(dense[:1]) if before is None else before[None].to(dense.dtype)
            parts.append(torch.cat([first, dense[:-1]]))
        if bias is not None:
            parts.append(dense.new_ones((*dense.shape[:2], 1)))
        self.x = self.traces.inputs(torch.cat(parts, 2))[0] * _number(self.neuron, "gain_syn", dense.dtype)
        self.s, self.u = dense, u
        if isinstance(self.neuron, AdLIF) and self.neuron.adaptation == "threshold":
            self.w = lifted(dense, None if start is None else start.w, self.neuron)
        return s

    def learn(self, signal: Tensor, direct: Tensor | None, kappa: float, watch: Watch | None) -> None:
        """signal [time, batch, n]: L of the stretch; direct: gradient to the spikes besides."""
        cell, dtype = self.neuron, self.u.dtype
        shape = (self.x.shape[1], self.n, self.x.shape[2])
        if not self.state:
            self.state = [*(np.zeros(shape, self.x.numpy().dtype) for _ in range(4)), np.zeros(shape[1:], np.float64)]
        theta, v_reset = (cell.value(k).detach().to(dtype) for k in ("v_threshold", "v_reset"))
        over = self.u - theta if self.w is None else self.u - theta - self.w
        h = cell.surrogate.derivative(over)
        attached = 0.0 if cell.detach else 1.0
        if cell.reset == "subtract":
            keep, r = torch.ones_like(h), (-attached * theta).expand_as(h)
        else:
            keep, r = 1.0 - self.s, attached * (v_reset - self.u)
        direct = torch.zeros_like(h) if direct is None else direct
        series = [a.contiguous().numpy() for a in (self.x, h, keep, r, signal, direct)]
        names = ("beta", "rho", "a", "b", "gain")
        each = [_number(cell, k, dtype).expand(self.n).contiguous().numpy() for k in names]
        adapts = isinstance(cell, AdLIF)
        lift = 1.0 if isinstance(cell, AdLIF) and cell.adaptation == "threshold" else 0.0
        late = isinstance(cell, AdLIF) and cell.adaptation == "euler"
        number = series[0].dtype.type
        kernels.over_rows(
            eligibility, torch.get_num_threads(), self.n, self.x.numel() * self.n, *series, *self.state, *each,
            number(adapts - lift), number(lift), late, number(kappa),
        )  # fmt: skip
        if watch is not None:
            watch(self.head, self.x[..., : self.fan_in].flatten(0, 1))
            if self.back is not None:
                watch(f"{self.name}.recurrent", self.x[..., self.fan_in : self.fan_in + self.n].flatten(0, 1))

    def finish(self) -> None:
        """Adds the sums to ``grad``."""
        total = torch.from_numpy(self.state[-1]).to(self.u.dtype)
        _add(self.linear.weight, total[:, : self.fan_in].contiguous())
        if self.back is not None:
            _add(self.layer.recurrent.weight, total[:, self.fan_in : self.fan_in + self.n].contiguous())
        if self.linear.bias is not None:
            _add(self.linear.bias, total[:, -1].contiguous())


def _number(cell: Neuron | AdLIF, name: str, dtype: torch.dtype) -> Tensor:
    """A coefficient, or what it is where the neuron has none: gain_syn 1, the others 0."""
    held = hasattr(cell, f"{name}_fixed")
    return cell.value(name).detach().to(dtype) if held else torch.tensor(float(name == "gain_syn"), dtype=dtype)
