"""Modern Hopfield layer (Ramsauer et al. 2021, arXiv:2008.02217): memories X [M, d], what they stand for V [M, e].

    y = V^T softmax(beta X q);   V = X: one step of retrieval, q -> the stored pattern

**As events.** Two layers: memory units with input u = X q, and readout units. Three forms:

- `to_graph`: softmax as temporal-difference operator, its value in levels. Exact: the quantised layer.
- `sample`: memory units fire at rate rho exp(beta u) and inhibit each other divisively, so each spike is a draw from
  the softmax: N spikes estimate y with E |error|^2 = (sum_m p_m |v_m|^2 - |y|^2) / N exactly. O(1 / sqrt N).
- `nearest`: beta -> infinity, the strongest unit wins: y is what the nearest memory stands for (largest inner product).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neuro.convert.families.build import Build
from neuro.convert.graph import Graph
from neuro.convert.ops import Linear, Quantise, Softmax
from neuro.convert.ops_beyond import Winner


class Hopfield(nn.Module):
    """memories: [M, d]; values: [M, e]; both are trained. q: [batch, d] -> [batch, e]."""

    def __init__(self, memories: Tensor, values: Tensor, beta: float = 8.0) -> None:
        super().__init__()
        self.memories, self.values, self.beta = nn.Parameter(memories.clone()), nn.Parameter(values.clone()), beta

    def weights(self, q: Tensor) -> Tensor:
        """softmax(beta X q): [batch, M]."""
        return torch.softmax(self.beta * (q @ self.memories.T), -1)

    def forward(self, q: Tensor) -> Tensor:
        return self.weights(q) @ self.values


def to_graph(layer: Hopfield, q: Tensor, levels: int = 16, shares: int = 64, bits: int = 12) -> Graph:
    """Queries in levels, weights of the softmax in shares of 1 / ``shares``; steps calibrated on q [batch, d]."""
    build = Build()
    signed = bool((q < 0).any())
    wire = build.neurons("query", build.input("q", layer.memories.shape[1]), levels, signed=signed)
    wire = build("u", Linear(layer.memories.detach()), wire)
    wire = build("softmax", Softmax(-1, layer.beta), wire)
    wire = build("weights", Quantise(torch.tensor(1.0 / shares), 0, shares), wire)
    return build.graph(build("y", Linear(layer.values.detach().T.contiguous()), wire), q, bits=bits)


def nearest(layer: Hopfield, q: Tensor, levels: int = 16, bits: int = 12) -> Graph:
    """The limit of large beta: one spike of the winner."""
    build = Build()
    signed = bool((q < 0).any())
    wire = build.neurons("query", build.input("q", layer.memories.shape[1]), levels, signed=signed)
    wire = build("winner", Winner(), build("u", Linear(layer.memories.detach()), wire))
    wire = build("spike", Quantise(torch.ones(()), 0, 1), wire)
    return build.graph(build("y", Linear(layer.values.detach().T.contiguous()), wire), q, bits=bits)


def sample(layer: Hopfield, q: Tensor, spikes: int, generator: torch.Generator) -> Tensor:
    """Estimates [spikes, batch, e] of y after 1, 2, .. spikes of memory units.

    Each spike is a race of exponential clocks: unit m would fire after Exp(1) / exp(beta u_m), the first one does and
    its inhibition resets all others. (Rates are without memory, so the race may begin anew.)
    """
    with torch.no_grad():
        rate = layer.weights(q)  # divisive inhibition: rates relative to their sum
        total = torch.zeros(len(q), layer.values.shape[1], dtype=q.dtype)
        found = []
        for n in range(1, spikes + 1):
            clock = -torch.log1p(-torch.rand(rate.shape, generator=generator, dtype=q.dtype))
            total = total + layer.values[(clock / rate).argmin(-1)]
            found.append(total / n)
        return torch.stack(found)


def spread(layer: Hopfield, q: Tensor) -> Tensor:
    """[batch]: E |error|^2 of one spike; that of N spikes is 1 / N of it."""
    with torch.no_grad():
        p = layer.weights(q)
        y: Tensor = p @ (layer.values**2).sum(1) - (layer(q) ** 2).sum(1)
        return y
