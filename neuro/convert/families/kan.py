"""Kolmogorov-Arnold networks (Liu et al. 2024, arXiv:2404.19756): a learnt function on every edge, sums at the nodes.

    y_j = sum_i phi_ij(x_i),   phi_ij(x) = a_ij silu(x) + sum_g c_ijg B_g(x),   B_g cubic B-splines on a uniform grid

**As events.** Inputs of a layer become levels k; phi_ij is then a table phi_ij[k] and nothing more. Its event form: the
k-th spike of input i carries phi_ij[k] - phi_ij[k - 1] (`to_graph`: a table on every edge). Or input i becomes one
binary unit per level (a thermometer code), and the layer ONE linear layer of these units with the differences as
weights (`to_thermometer`): plain neurons and synapses, which every chip has.

Exact: tables are numbers on a grid of 2^-bits and steps are powers of two, so that both forms, and any order of
messages, give the very numbers of the quantised network.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from neuro.convert.families.build import Build
from neuro.convert.graph import Graph
from neuro.convert.ops import Linear, Quantise
from neuro.convert.ops_beyond import EdgeTables
from neuro.errors import ConversionError


class KANLayer(nn.Module):
    """x [batch, inputs] -> y [batch, outputs]; x is cut off at low..high, grid intervals between them."""

    def __init__(
        self, inputs: int, outputs: int, *, low: float = -1.0, high: float = 1.0, grid: int = 6, order: int = 3,
        generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.low, self.high, self.order = low, high, order
        width = (high - low) / grid
        knots = low + width * torch.arange(-order, grid + order + 1, dtype=torch.float64)
        self.knots: Tensor
        self.register_buffer("knots", knots.to(torch.get_default_dtype()))
        scale = inputs**-0.5
        self.base = nn.Parameter(scale * torch.randn(inputs, outputs, generator=generator))
        self.splines = nn.Parameter(0.3 * scale * torch.randn(inputs, outputs, grid + order, generator=generator))

    def basis(self, x: Tensor) -> Tensor:
        """B-splines of x [...] -> [..., grid + order], by the recursion of Cox and de Boor."""
        t, x = self.knots, x[..., None]
        b = ((x >= t[:-1]) & (x < t[1:])).to(x.dtype)
        for p in range(1, self.order + 1):
            left = (x - t[: -p - 1]) / (t[p:-1] - t[: -p - 1])
            right = (t[p + 1 :] - x) / (t[p + 1 :] - t[1:-p])
            b = left * b[..., :-1] + right * b[..., 1:]
        return b

    def forward(self, x: Tensor) -> Tensor:
        x = x.clamp(self.low, self.high)
        return fn.silu(x) @ self.base + torch.einsum("big,iog->bo", self.basis(x), self.splines)

    def tables(self, x: Tensor) -> Tensor:
        """phi_ij at the values x [levels] -> [inputs, levels, outputs]."""
        x = x.clamp(self.low, self.high)
        return fn.silu(x)[None, :, None] * self.base[:, None] + torch.einsum("kg,iog->iko", self.basis(x), self.splines)


class KAN(nn.Module):
    """Layers of widths, inputs in 0..1."""

    def __init__(self, widths: tuple[int, ...], seed: int = 0, grid: int = 6) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        self.layers = nn.ModuleList(
            KANLayer(i, o, low=-1.0 if k else 0.0, grid=grid, generator=rng)
            for k, (i, o) in enumerate(pairwise(widths))
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def _layers(kan: KAN, levels: int, bits: int) -> list[tuple[Quantise, Tensor]]:
    """(neurons of its input, tables [in, levels, out]) of each layer, in float64 on their grid."""
    if levels & (levels - 1) or levels < 2:
        raise ConversionError(f"levels must be a power of two, so that steps are, got {levels}")
    found = []
    for each in kan.layers:
        layer = each.double() if isinstance(each, KANLayer) else None
        assert layer is not None
        step = torch.tensor((layer.high - layer.low) / levels, dtype=torch.float64)
        low, high = round(layer.low / float(step)), round(layer.high / float(step))
        with torch.no_grad():
            phi = layer.tables(step * torch.arange(low, high + 1, dtype=torch.float64))
        found.append((Quantise(step, low, high), torch.round(phi * 2.0**bits) / 2.0**bits))
    return found


def to_graph(kan: KAN, levels: int = 16, bits: int = 12) -> Graph:
    """Levels and tables on edges. levels: per layer input, plus zero; a power of two."""
    import copy

    build, layers = Build(), _layers(copy.deepcopy(kan), levels, bits)
    wire = build.input("x", layers[0][1].shape[0])
    for k, (neurons, phi) in enumerate(layers):
        wire = build(f"levels{k}", neurons, wire)
        wire = build(f"layer{k}", EdgeTables(phi, neurons.step, neurons.low), wire)
    return build.graph(wire, bits=None)


def to_thermometer(kan: KAN, levels: int = 16, bits: int = 12, whole: bool = False) -> Graph:
    """Binary neurons and linear layers alone. Unit (i, k) fires where the level of x_i is k or more:

        u_ik = [x_i / step + 1/2 >= k],   y_j = sum_i phi_ij[low] + sum_ik (phi_ij[k] - phi_ij[k - 1]) u_ik

    whole: the input holds the levels themselves, whole numbers 0..levels, as a chip is given them.
    """
    import copy

    build, layers = Build(), _layers(copy.deepcopy(kan), levels, bits)
    one = torch.ones((), dtype=torch.float64)
    wire = build.input("x", layers[0][1].shape[0])
    if whole:
        wire = build("levels", Quantise(one, 0, levels), wire)
    weight, bias = torch.eye(layers[0][1].shape[0], dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for k, (neurons, phi) in enumerate(layers):
        ranks = torch.arange(neurons.low + 1, neurons.high + 1, dtype=torch.float64)
        scale = 1.0 if whole and k == 0 else 1.0 / float(neurons.step)  # a power of two
        # node i of the layer before, once per level: unit fires where its sum is 1/2 or more
        spread = weight.repeat_interleave(len(ranks), 0) * scale
        shift = (bias.expand(len(weight)) * scale).repeat_interleave(len(ranks)) + 1 - ranks.repeat(len(weight))
        wire = build(f"units{k}", Quantise(one, 0, 1), build(f"sums{k}", Linear(spread, shift), wire))
        weight = (phi[:, 1:] - phi[:, :-1]).flatten(0, 1).T.contiguous()
        bias = phi[:, 0].sum(0)
    return build.graph(build("answer", Linear(weight, bias), wire), bits=None)
