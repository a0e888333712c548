"""Families that are layers and one more operation: dense associative memory, quadratic and complex-valued networks,
hypernetworks. Each is a small module, and the way into a graph; all are exact in the quantised model.

- `DenseMemory` (Krotov & Hopfield 2016, arXiv:1606.01164): y = C^T relu(X q)^(n-1). The power is a table of the
  memory unit's level: its k-th spike carries (k^(n-1) - (k-1)^(n-1)) step^(n-1).
- `Quadratic` (Fan et al. 2018): y = (W_1 x + b_1)(W_2 x + b_2) + W_3 x^2 + b_3. The product is a temporal-difference
  operator of two populations; the k-th spike of a square is worth 2k - 1, since k^2 - (k-1)^2 = 2k - 1.
- `ComplexNet` (Trabelsi et al. 2018, arXiv:1705.09792): (A + iB)(x + iy) = (Ax - By) + i(Bx + Ay) with a rectifier on
  each part: four real products, so plain neurons on plain synapses.
- `HyperNet` (Ha et al. 2017, arXiv:1609.09106), low rank: W(c) = sum_k h_k(c) W_k, y = W(c) x. Weights that do not
  depend on a context are constants and folded (`folded`); with one, y = sum_k h_k (W_k x) is a product of populations.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from neuro.convert.families.build import Build
from neuro.convert.graph import Graph
from neuro.convert.ops import Add, Affine, Function, Linear, MatMul, Op, Product, Quantise, Reshape
from neuro.convert.ops_beyond import Lookup


def _linear(layer: nn.Linear) -> Linear:
    return Linear(layer.weight.detach(), None if layer.bias is None else layer.bias.detach())


class DenseMemory(nn.Module):
    """memories: [M, d]; values: [M, e]; power: n - 1."""

    def __init__(self, memories: Tensor, values: Tensor, power: int = 3) -> None:
        super().__init__()
        self.memories, self.values, self.power = nn.Parameter(memories.clone()), nn.Parameter(values.clone()), power

    def forward(self, q: Tensor) -> Tensor:
        return fn.relu(q @ self.memories.T) ** self.power @ self.values


def dense_graph(net: DenseMemory, q: Tensor, levels: int = 16, bits: int = 14) -> Graph:
    """Queries and currents of memory units in levels, steps calibrated on q [batch, d]."""
    build = Build()
    wire = build.neurons("query", build.input("q", net.memories.shape[1]), levels, signed=bool((q < 0).any()))
    build.neurons("u.events", build("u", Linear(net.memories.detach()), wire), levels)
    part = build.graph("u.events", q, bits=bits)  # the table needs the step of u
    neurons = part.ops["u.events"]
    assert isinstance(neurons, Quantise)
    table = (neurons.step * torch.arange(levels + 1, dtype=torch.float64)) ** net.power
    values = torch.round(net.values.detach().double().T.contiguous() * 2.0**bits) / 2.0**bits
    ops: dict[str, Op] = {**part.ops, "power": Lookup(table, neurons.step.reshape(1), (0,)), "y": Linear(values)}
    return Graph(ops, {**part.takes, "power": ("u.events",), "y": ("power",)}, "y")


class Quadratic(nn.Module):
    """x [batch, inputs] -> hidden quadratic units, a rectifier, and a linear layer."""

    def __init__(self, inputs: int, hidden: int = 32, classes: int = 10, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first, self.second = nn.Linear(inputs, hidden), nn.Linear(inputs, hidden)
            self.square, self.out = nn.Linear(inputs, hidden), nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(fn.relu(self.first(x) * self.second(x) + self.square(x * x)))
        return y


def quadratic_graph(net: Quadratic, x: Tensor, levels: int = 16, bits: int = 14) -> Graph:
    """Steps calibrated on x [batch, inputs] in 0..1; the input has a step of 1 / levels, a table holds its squares."""
    build = Build()
    step = torch.tensor(1.0 / levels, dtype=torch.float64)
    wire = build("pixels", Quantise(step, 0, levels), build.input("x", net.first.in_features))
    table = (step * torch.arange(levels + 1, dtype=torch.float64)) ** 2
    squares = build("squares", Lookup(table, step.reshape(1), (0,)), wire)
    first = build.neurons("first.events", build("first", _linear(net.first), wire), levels, signed=True)
    second = build.neurons("second.events", build("second", _linear(net.second), wire), levels, signed=True)
    both = build("product", Product(), first, second)
    h = build.neurons("hidden", build("sum", Add(), both, build("square", _linear(net.square), squares)), levels)
    return build.graph(build("y", _linear(net.out), h), x, bits=bits)


class ComplexNet(nn.Module):
    """Complex x as [batch, 2 inputs], real parts first -> one complex layer, rectified by parts -> classes, by the real
    part of a second one."""

    def __init__(self, inputs: int, hidden: int = 32, classes: int = 10, seed: int = 0) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        self.first = nn.Parameter(torch.randn(2, hidden, inputs, generator=rng) * inputs**-0.5)
        self.bias = nn.Parameter(torch.zeros(2, hidden))
        self.second = nn.Parameter(torch.randn(2, classes, hidden, generator=rng) * hidden**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        z = torch.complex(*x.chunk(2, -1)) @ torch.complex(*self.first).T + torch.complex(*self.bias)
        h = torch.complex(fn.relu(z.real), fn.relu(z.imag))
        return (h @ torch.complex(*self.second).T).real


def split(weight: Tensor) -> Tensor:
    """[2, out, in], real and imaginary -> [2 out, 2 in], the real matrix that acts on (real, imaginary)."""
    a, b = weight
    return torch.cat([torch.cat([a, -b], 1), torch.cat([b, a], 1)])


def complex_graph(net: ComplexNet, x: Tensor, levels: int = 16, bits: int = 14) -> Graph:
    """Steps calibrated on x [batch, 2 inputs]."""
    build, classes = Build(), net.second.shape[1]
    wire = build.neurons("parts", build.input("x", 2 * net.first.shape[2]), levels, signed=True)
    wire = build("first", Linear(split(net.first.detach()), net.bias.detach().flatten()), wire)
    wire = build.neurons("hidden", wire, levels)
    return build.graph(build("y", Linear(split(net.second.detach())[:classes].contiguous()), wire), x, bits=bits)


class HyperNet(nn.Module):
    """x [batch, inputs], context c [batch, contexts] -> a hidden layer whose weights are made from c -> classes."""

    def __init__(
        self, inputs: int, contexts: int, rank: int = 4, hidden: int = 32, classes: int = 10, seed: int = 0
    ) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.mix, self.out = nn.Linear(contexts, rank), nn.Linear(hidden, classes)
        self.basis = nn.Parameter(torch.randn(rank, hidden, inputs, generator=rng) * inputs**-0.5)
        self.bias = nn.Parameter(torch.zeros(hidden))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        weight = torch.einsum("br,rhi->bhi", torch.tanh(self.mix(c)), self.basis)
        y: Tensor = self.out(fn.relu((weight @ x[..., None])[..., 0] + self.bias))
        return y


def hyper_graph(net: HyperNet, x: Tensor, c: Tensor, levels: int = 16, bits: int = 14) -> Graph:
    """Two inputs, x and c; steps calibrated on both."""
    build, (rank, hidden, inputs) = Build(), net.basis.shape
    pixels = build.neurons("pixels", build.input("x", inputs), levels)
    context = build.neurons("context", build.input("c", net.mix.in_features), levels, signed=bool((c < 0).any()))
    h = build("tanh", Function("tanh"), build("mix", _linear(net.mix), context))
    h = build("h.row", Reshape((1, rank)), build.neurons("h", h, levels, signed=True))
    each = build("basis", Linear(net.basis.detach().flatten(0, 1)), pixels)  # W_k x for every k
    each = build.neurons("basis.events", each, 4 * levels, signed=True)
    y = build("mixed", MatMul(), h, build("basis.rows", Reshape((rank, hidden)), each))
    y = build("biased", Affine(torch.ones(()), net.bias.detach()), build("flat", Reshape((hidden,)), y))
    return build.graph(build("y", _linear(net.out), build.neurons("hidden", y, levels)), x, c, bits=bits)


def folded(net: HyperNet, c: Tensor, x: Tensor, levels: int = 16, bits: int = 14) -> Graph:
    """The network of one context c [contexts]: W = sum_k h_k W_k is a constant, and what is left is an MLP."""
    build = Build()
    with torch.no_grad():
        weight = torch.einsum("r,rhi->hi", torch.tanh(net.mix(c)), net.basis)
    pixels = build.neurons("pixels", build.input("x", weight.shape[1]), levels)
    hidden = build.neurons("hidden", build("first", Linear(weight, net.bias.detach()), pixels), levels)
    return build.graph(build("y", _linear(net.out), hidden), x, bits=bits)


__all__ = ["ComplexNet", "DenseMemory", "HyperNet", "Quadratic", "complex_graph", "dense_graph",
           "folded", "hyper_graph", "quadratic_graph", "split"]  # fmt: skip
