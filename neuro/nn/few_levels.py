"""Weights of two or three values: a code per synapse, a scale, perhaps an offset, under real weights that learn.

    weight[o, i] = scale[o] code[o, i] + offset[o]     code in {-1, 1} (binary) or {-1, 0, 1} (ternary)

Codes: binary sign(w - mean), ternary 0 where |w - mean| is at most 0.7 of its mean size (Li & Liu 2016,
arXiv:1605.04711), the sign elsewhere; mean is 0 without an offset. Scale and offset are the least squares fit of the
real weights to these codes; without an offset, and binary, that is the mean size (Rastegari et al. 2016,
arXiv:1603.05279). Gradients pass straight through (Courbariaux et al. 2015, arXiv:1511.00363).

The offset is the affine trick: offset[o] sum_i x[i] is a count of the spikes that arrive, the same for all outputs but
for a factor, so a device holds the codes and one counter::

    sum_i weight[o, i] x[i] = scale[o] sum_i code[o, i] x[i] + offset[o] sum_i x[i]

What runs here, and what a `Network` holds, is the matrix scale code + offset. Scale and offset are whole multiples of a
power of two, 20 bits below the largest weight, so that the matrix holds them without rounding in float32 and in
float64: module and Network have the same weights to the last bit. A chip quantises that matrix as any other; without
an offset its integers meet ternary weights exactly.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuro.errors import NetworkError
from neuro.nn import dense
from neuro.nn.conv import _known
from neuro.nn.conv_function import convolve
from neuro.nn.conv_layout import Job
from neuro.nn.grid import straight_through
from neuro.nn.joined import Carry, Chain, joins
from neuro.nn.layers import Neuron
from neuro.nn.quantised import QuantisedWeights
from neuro.nn.spikes import Spikes
from neuro.nn.thinned import Thinned

LEVELS = ("binary", "ternary")
DEAD_ZONE = 0.7  # of the mean size: what is smaller has code 0
GRID_BITS = 20  # of scale and offset below the largest weight; their sum is exact in the 24 bits of float32


class Parts(NamedTuple):
    """weight = scale code + offset where a synapse is, 0 elsewhere. code: int8, like the weight; scale, offset:
    float64 [out, 1, ...], or one for the layer. present: bool, like the weight."""

    code: Tensor
    scale: Tensor
    offset: Tensor
    present: Tensor


class FewLevels(QuantisedWeights):
    """A weight layer on two or three values; `real` is what it computes with, `parts` what it is made of.

    levels: "binary" or "ternary". each: a scale (and offset) per output, not per layer. affine: with an offset.
    Synapses that are pruned (buffer ``kept``, `neuro.train.prune`) are 0, without offset.
    """

    levels: str
    affine: bool

    def settle(self, levels: str, each: bool, affine: bool) -> None:
        """Set the kind of weights.

        Raises:
            NetworkError: unknown levels.
        """
        if levels not in LEVELS:
            raise NetworkError(f"levels must be one of {LEVELS}, got {levels!r}")
        self.levels, self.each, self.affine = levels, bool(each), bool(affine)

    def parts(self) -> Parts:
        """Codes, scale and offset of the weights as they are."""
        w = self.weight.detach().double()
        kept = self._buffers.get("kept")
        present = torch.ones_like(w, dtype=torch.bool) if kept is None else kept
        on, axes = present.double(), tuple(range(1 if self.each else 0, w.dim()))
        count = on.sum(axes, keepdim=True).clamp(min=1.0)
        mean = (w * on).sum(axes, keepdim=True) / count * float(self.affine)
        x = (w - mean) * on
        if self.levels == "ternary":
            code = x.sign() * (x.abs() > DEAD_ZONE * x.abs().sum(axes, keepdim=True) / count)
        else:
            code = torch.where(x < 0, -1.0, 1.0) * on
        total = code.sum(axes, keepdim=True) * float(self.affine)
        spread = code.abs().sum(axes, keepdim=True) - total**2 / count
        above = (w * code).sum(axes, keepdim=True) - mean * total
        scale = torch.where(spread > 1e-9, above / spread.clamp(min=1e-9), torch.zeros_like(spread))
        offset = mean - scale * total / count
        largest = scale.abs() + offset.abs()
        step = torch.exp2(
            torch.ceil(torch.log2(torch.where(largest > 0, largest, torch.ones_like(largest)))) - GRID_BITS
        )
        return Parts(code.to(torch.int8), (scale / step).round() * step, (offset / step).round() * step, present)

    def unit(self) -> Tensor:
        """Reals per code."""
        return self.parts().scale

    def real(self) -> tuple[Tensor, Tensor | None]:
        """(weight, bias): scale code + offset, exact in the weight's dtype."""
        p = self.parts()
        made = (p.code.double() * p.scale + p.offset) * p.present
        return self.disturbed(straight_through(self.weight, made.to(self.weight.dtype))), self.bias

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, levels={self.levels!r}, each={self.each}, affine={self.affine}"


class FewLinear(FewLevels, nn.Linear):
    """`torch.nn.Linear` with binary or ternary weights, see `FewLevels`."""

    def __init__(
        self, inputs: int, outputs: int, bias: bool = True, *,
        levels: str = "ternary", each: bool = False, affine: bool = False,
    ) -> None:  # fmt: skip
        nn.Linear.__init__(self, inputs, outputs, bias)
        self.settle(levels, each, affine)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, *self.real())


class FewConv2d(FewLevels, nn.Conv2d):
    """`torch.nn.Conv2d` with binary or ternary weights, see `FewLevels`; takes its arguments."""

    def __init__(
        self, *args: Any, levels: str = "ternary", each: bool = False, affine: bool = False, **options: Any
    ) -> None:
        nn.Conv2d.__init__(self, *args, **options)
        self.settle(levels, each, affine)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self._conv_forward(x, *self.real())
        return y


joins(FewLinear, Neuron)(dense.linear)


@joins(FewConv2d, Neuron)
def convolution(chain: Chain, x: Tensor, carry: Carry | None) -> Tensor | None:
    """Spikes [time, batch, channel, height, width] of a `FewConv2d` and neurons; declines norms and dense inputs."""
    conv, neurons = chain.synapses, chain.neurons
    assert isinstance(conv, FewConv2d)
    assert isinstance(neurons, Neuron)
    if chain.norm is not None or not isinstance(x, (Spikes, Thinned)) or not _known(conv, x):
        return None
    currents = convolve(Job(conv, None, None, None), x, *conv.real())
    y: Tensor = neurons(currents) if carry is None else neurons.resume(currents, carry)
    return y


__all__ = ["LEVELS", "FewConv2d", "FewLevels", "FewLinear", "Parts"]
