"""Quantised convolutional networks in torch: a rectifier with levels, and weights on a symmetric grid.

Gradients pass straight through the rounding, and not where the value is clipped (Bengio et al. 2013,
arXiv:1308.3432; Jacob et al. 2018, arXiv:1712.05877). What runs forwards is what `neuro.nn.bridge` writes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from neuro.errors import NetworkError
from neuro.nn.grid import straight_through
from neuro.nn.layers import Value

MOST_BITS = 16


class QuantisedReLU(nn.Module):
    """y = step clip(floor(x / step + 1/2), 0, levels), as `neuro.ir.QuantisedReLU`.

    step: one positive number, or an array that broadcasts over the channels of a step, e.g. [channel, 1, 1].

    Raises:
        NetworkError: a step that is not positive, or no level.
    """

    def __init__(self, step: Value, levels: int) -> None:
        super().__init__()
        values = torch.from_numpy(np.array(step, np.float64))
        if not bool((values > 0).all()) or not bool(values.isfinite().all()):
            raise NetworkError(f"step must be positive, got {step!r}")
        if not isinstance(levels, (int, np.integer)) or isinstance(levels, bool) or levels < 1:
            raise NetworkError(f"levels must be a whole number from 1 on, got {levels!r}")
        self.register_buffer("step", values)  # in float64 whatever the computation runs in: it is a constant
        self.levels = int(levels)

    def forward(self, x: Tensor) -> Tensor:
        step = self.get_buffer("step").to(x.dtype)
        z = x / step
        level = torch.floor(z + 0.5).clamp(0, self.levels)
        return straight_through(z.clamp(0, self.levels), level) * step

    def extra_repr(self) -> str:
        return f"levels={self.levels}"


class QuantisedWeights(nn.Module):
    """A weight layer whose weights are unit k, k whole, |k| <= 2^(bits-1) - 1; bias stays real.

    unit: largest |weight| / (2^(bits-1) - 1), of each output channel of a convolution, of a whole matrix.
    """

    weight: Any
    bias: Any
    bits: int
    each: bool
    noise: Tensor | None = None  # for the time of a batch, what a device adds to the weights (`neuro.train.noise`)

    def disturbed(self, weight: Tensor) -> Tensor:
        """Weights that are settled, with the noise of the device on them; the gradient is that of where they are."""
        return weight if self.noise is None else weight + self.noise.to(weight.dtype)

    def unit(self) -> Tensor:
        """Reals per integer, [out, 1, ...] or one."""
        magnitude = self.weight.detach().abs().double()
        most = magnitude.amax(tuple(range(1, magnitude.dim())), keepdim=True) if self.each else magnitude.amax()
        unit: Tensor = most / (2 ** (self.bits - 1) - 1)
        return torch.where(unit > 0, unit, torch.ones_like(unit))

    def real(self) -> tuple[Tensor, Tensor | None]:
        """(weight, bias) on the grid."""
        unit = self.unit()
        top = 2 ** (self.bits - 1) - 1
        rounded = (self.weight.detach().double() / unit).round().clamp(-top, top) * unit
        return self.disturbed(straight_through(self.weight, rounded.to(self.weight.dtype))), self.bias


def _check_bits(bits: int) -> int:
    if not isinstance(bits, (int, np.integer)) or not 2 <= bits <= MOST_BITS:
        raise NetworkError(f"bits of a symmetric weight must lie in 2..{MOST_BITS}, got {bits!r}")
    return int(bits)


class QuantisedLinear(QuantisedWeights, nn.Linear):
    """`torch.nn.Linear` with weights of so many bits."""

    each = False  # one unit for all outputs: they can be compared as integers

    def __init__(self, inputs: int, outputs: int, bias: bool = True, *, bits: int = 8) -> None:
        nn.Linear.__init__(self, inputs, outputs, bias)
        self.bits = _check_bits(bits)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, *self.real())


class QuantisedConv2d(QuantisedWeights, nn.Conv2d):
    """`torch.nn.Conv2d` with weights of so many bits; takes its arguments."""

    each = True

    def __init__(self, *args: Any, bits: int = 8, **options: Any) -> None:
        nn.Conv2d.__init__(self, *args, **options)
        self.bits = _check_bits(bits)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self._conv_forward(x, *self.real())
        return y


def quantise_activations(module: nn.Sequential, levels: int, samples: Tensor | None = None) -> nn.Sequential:
    """A copy of a chain in which each nn.ReLU6 and nn.ReLU is a `QuantisedReLU` of so many levels.

    ReLU6: step = 6 / levels. ReLU: step = the largest value on ``samples`` [batch, ...] / levels.

    Raises:
        NetworkError: a ReLU, but no samples; a ReLU that none of the samples excites.
    """
    made: list[tuple[str, nn.Module]] = []
    x = samples
    for name, layer in module.named_children():
        new: nn.Module = layer
        if isinstance(layer, nn.Sequential):
            new = quantise_activations(layer, levels, x)
        elif type(layer) is nn.ReLU6:
            new = QuantisedReLU(6.0 / levels, levels)
        elif type(layer) is nn.ReLU:
            if x is None:
                raise NetworkError(f"'{name}' is a ReLU, which has no largest value; give samples, or use nn.ReLU6")
            top = float(x.max())
            if not top > 0:
                raise NetworkError(f"no sample excites '{name}'; its step cannot be found")
            new = QuantisedReLU(top / levels, levels)
        made.append((name, new))
        if x is not None:
            with torch.no_grad():
                x = layer.eval()(x)
    chain = nn.Sequential()
    for name, layer in made:
        chain.add_module(name, layer)
    return chain


__all__ = [
    "QuantisedConv2d",
    "QuantisedLinear",
    "QuantisedReLU",
    "QuantisedWeights",
    "quantise_activations",
]
