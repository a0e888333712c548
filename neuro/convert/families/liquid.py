"""Continuous-time cells: closed-form CfC and liquid LTC, on series with irregular times.

CfC (Hasani et al. 2022, Nature Machine Intelligence 4:992), after dt since the last element:

    z = relu(W [u, x] + b);  f, g, h = three linear layers of z;   x' = s(-f dt) tanh(g) + (1 - s(-f dt)) tanh(h)

LTC (Hasani et al. 2021, AAAI, arXiv:2006.04439), dx/dt = -(1 / tau + f) x + f A by its fused semi-implicit solver:

    f = s(W [u, x] + b);    x' = (x + dt f A) / (1 + dt (1 / tau + f)),  n times with dt / n

**As events.** A cell is a graph that is run for every element of a series; state is what its last population holds.
Irregular times go into a table: s(-f dt) by the level of f and by dt in whole frames. Products and the quotient are
temporal-difference operators. Exact in the quantised model, for both cells; the LTC's solver itself approximates its
differential equation, as it does without spikes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from neuro.convert.engine import Dynamics
from neuro.convert.families.build import Build, settle
from neuro.convert.graph import Graph
from neuro.convert.ops import Add, Affine, Concat, Constant, Function, Linear, Op, Product, Quantise
from neuro.convert.ops_beyond import Lookup, Quotient

LONGEST = 16  # frames since the last element; later ones count as this


class CfC(nn.Module):
    """(u, x, dt) -> x'. u: [batch, inputs]; x: [batch, state]; dt: [batch, 1], in frames."""

    def __init__(self, inputs: int, state: int, hidden: int = 32) -> None:
        super().__init__()
        self.inputs, self.state = inputs, state
        self.trunk = nn.Linear(inputs + state, hidden)
        self.f, self.g, self.h = (nn.Linear(hidden, state) for _ in range(3))

    def forward(self, u: Tensor, x: Tensor, dt: Tensor) -> Tensor:
        z = fn.relu(self.trunk(torch.cat([u, x], 1)))
        s = torch.sigmoid(-self.f(z) * dt)
        return s * torch.tanh(self.g(z)) + (1 - s) * torch.tanh(self.h(z))


class LTC(nn.Module):
    """(u, x, dt) -> x', shapes as in `CfC`; steps: of the solver for one element."""

    def __init__(self, inputs: int, state: int, steps: int = 2) -> None:
        super().__init__()
        self.inputs, self.state, self.steps = inputs, state, steps
        self.gate = nn.Linear(inputs + state, state)
        self.target, self.log_tau = nn.Parameter(torch.linspace(-1, 1, state)), nn.Parameter(torch.ones(state))

    def forward(self, u: Tensor, x: Tensor, dt: Tensor) -> Tensor:
        part = dt / self.steps
        for _ in range(self.steps):
            f = torch.sigmoid(self.gate(torch.cat([u, x], 1)))
            x = (x + part * f * self.target) / (1 + part * (torch.exp(-self.log_tau) + f))
        return x


class Liquid(nn.Module):
    """A cell over series and a linear layer of its last state: u [batch, time, inputs], dt [batch, time] in frames, 0
    behind the end -> classes."""

    def __init__(self, kind: str, inputs: int, state: int = 24, classes: int = 9, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.cell = CfC(inputs, state) if kind == "cfc" else LTC(inputs, state)
            self.out = nn.Linear(state, classes)

    def forward(self, u: Tensor, dt: Tensor) -> Tensor:
        x = u.new_zeros(len(u), self.cell.state)
        for k in range(u.shape[1]):
            now = dt[:, k : k + 1]
            x = torch.where(now > 0, self.cell(u[:, k], x, now.clamp_max(LONGEST)), x)
        y: Tensor = self.out(x)
        return y


@dataclass(frozen=True, eq=False)
class Recurrent:
    """cell: (u, x, dt) -> x', x' in levels. readout: x -> answer."""

    cell: Graph
    readout: Graph


def to_graphs(net: Liquid, u: Tensor, dt: Tensor, levels: int = 32, bits: int = 14) -> Recurrent:
    """Steps calibrated on what the float network meets along series u [batch, time, inputs], dt [batch, time]."""
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    cell = net.cell
    with torch.no_grad():
        x = u.new_zeros(len(u), cell.state)
        for k in range(u.shape[1]):
            now = dt[:, k : k + 1]
            live = now[:, 0] > 0
            seen.append((u[live, k], x[live], now[live].clamp_max(LONGEST)))
            x = torch.where(now > 0, cell(u[:, k], x, now.clamp_max(LONGEST)), x)
    build = Build()
    inputs = build.input("u", cell.inputs), build.input("x", cell.state), build.input("dt", 1)
    wire = build.neurons("u.events", inputs[0], levels, signed=True)
    make = _cfc if isinstance(cell, CfC) else _ltc
    answer = make(build, cell, wire, inputs[1], inputs[2], levels)  # type: ignore[arg-type]
    state = build("state", Quantise(torch.tensor(1.0 / levels), -levels, levels), answer)
    graph = build.graph(state, *(torch.cat(each).double() for each in zip(*seen, strict=True)), bits=bits)
    if isinstance(cell, CfC):
        graph = _tabled(graph)
    end = Build()
    readout = Linear(net.out.weight.detach(), net.out.bias.detach())
    return Recurrent(graph, end.graph(end("y", readout, end.input("x", cell.state)), x, bits=bits))


def _layer(layer: nn.Linear) -> Linear:
    return Linear(layer.weight.detach(), layer.bias.detach())


def _cfc(build: Build, cell: CfC, u: str, x: str, dt: str, levels: int) -> str:
    z = build("trunk", _layer(cell.trunk), build("both", Concat(1), u, x))
    z = build.neurons("z", build("relu", Function("relu"), z), levels)
    f = build.neurons("f.events", build("f", _layer(cell.f), z), levels, signed=True)
    # stands for the table, whose step is that of f; see _tabled
    s = build("s", Function("sigmoid"), build("-f dt", Product(), build("-f", Affine(torch.tensor(-1.0)), f), dt))
    s = build("s.events", Quantise(torch.tensor(1.0 / levels), 0, levels), s)
    rest = build("1-s", Affine(torch.tensor(-1.0), torch.tensor(1.0)), s)
    parts = []
    for name, layer, share in (("g", cell.g, s), ("h", cell.h, rest)):
        t = build(f"{name}.tanh", Function("tanh"), build(name, _layer(layer), z))
        t = build(f"{name}.events", Quantise(torch.tensor(1.0 / levels), -levels, levels), t)
        parts.append(build(f"{name}.share", Product(), share, t))
    return build("sum", Add(), *parts)


def _tabled(graph: Graph) -> Graph:
    """With s(-f dt) as one table by the level of f and dt = 0..LONGEST frames."""
    neurons = graph.ops["f.events"]
    assert isinstance(neurons, Quantise)
    f = neurons.step * torch.arange(neurons.low, neurons.high + 1, dtype=torch.float64)
    frames = torch.arange(LONGEST + 1, dtype=torch.float64)
    table = Lookup(torch.sigmoid(-f[:, None] * frames), torch.stack([neurons.step, torch.ones(())]), (neurons.low, 0))
    ops: dict[str, Op] = {n: table if n == "s" else o for n, o in graph.ops.items() if n not in ("-f", "-f dt")}
    takes = {n: ("f.events", "dt") if n == "s" else graph.takes[n] for n in ops}
    return Graph(ops, takes, graph.output)


def _ltc(build: Build, cell: LTC, u: str, x: str, dt: str, levels: int) -> str:
    part = build("part", Affine(torch.tensor(1.0 / cell.steps)), dt)
    one = build("one", Constant(torch.ones(1)))
    with torch.no_grad():
        rate, target = torch.exp(-cell.log_tau), cell.target.detach()
    for n in range(cell.steps):
        f = build(f"f{n}.in", _layer(cell.gate), build(f"both{n}", Concat(1), u, x))
        f = build(f"f{n}.sigmoid", Function("sigmoid"), f)
        f = build(f"f{n}", Quantise(torch.tensor(1.0 / levels), 0, levels), f)
        driven = build(f"driven{n}", Product(), part, build(f"fA{n}", Affine(target), f))
        above = build(f"above{n}", Add(), x, driven)
        leak = build(f"leak{n}", Product(), part, build(f"rate{n}", Affine(torch.ones(()), rate), f))
        x = build(f"x{n}", Quotient(), above, build(f"below{n}", Add(), one, leak))
        if n + 1 < cell.steps:
            x = build(f"x{n}.events", Quantise(torch.tensor(1.0 / levels), -levels, levels), x)
    return x


@dataclass(frozen=True)
class Series:
    """Of a run over whole series. reference, answer: [batch, classes], of the quantised cell and of the spiking one.
    settled_at: the most steps that any element took until its state was right and stayed so; None: not within
    ``steps``. messages: per series, of all populations."""

    reference: Tensor
    answer: Tensor
    settled_at: int | None
    messages: float


def run(net: Recurrent, u: Tensor, dt: Tensor, steps: int, dynamics: Dynamics | None = None) -> Series:
    """Every element for ``steps`` steps at most (fewer where nobody sends any more), the state handed on."""
    reference = u.new_zeros(len(u), *getattr(net.cell.ops["x"], "shape", ()))
    x, sent, most = reference.clone(), 0.0, 0
    with torch.no_grad():
        for k in range(u.shape[1]):
            now = dt[:, k : k + 1].clamp_max(LONGEST)
            live = now[:, 0] > 0
            if not bool(live.any()):
                continue
            reference[live] = net.cell.run(u[live, k], reference[live], now[live])
            found = settle(net.cell, u[live, k], x[live], now[live], dynamics=dynamics, at=(steps,), most=steps)
            x[live] = found.outputs[steps]
            most = max(most, steps + 1 if found.equal_from is None else found.equal_from)
            sent += sum(found.messages.values()) * int(live.sum()) / len(u)
        answers = net.readout.run(reference), net.readout.run(x)
    return Series(*answers, None if most > steps else most, sent)


__all__ = ["LONGEST", "LTC", "CfC", "Liquid", "Recurrent", "Series", "run", "to_graphs"]
