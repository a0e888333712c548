"""A matrix whose outputs read only some of the inputs: what a chip with few axons per core can hold."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuro.errors import NetworkError


def windows(inputs: int, out: int, fan_in: int) -> Tensor:
    """Float[out, inputs] of 0 and 1: outputs in blocks of equal size, each block reads ``fan_in`` neighbours.

    As many blocks as it takes for every input to be read, spread evenly over the inputs.

    Raises:
        NetworkError: fan_in is not positive, or there are fewer outputs than blocks.
    """
    fan_in = min(fan_in, inputs)
    blocks = math.ceil(inputs / fan_in) if fan_in > 0 else 0
    if not 1 <= blocks <= out:
        raise NetworkError(f"{inputs} inputs, {fan_in} for each of {out} outputs: some inputs would be read by none")
    block = torch.arange(out) * blocks // out
    first = torch.round(block * ((inputs - fan_in) / max(1, blocks - 1))).long()[:, None]
    column = torch.arange(inputs)[None]
    return ((column >= first) & (column < first + fan_in)).float()


class MaskedLinear(nn.Linear):
    """`torch.nn.Linear` with ``fan_in`` inputs per output (`windows`); the other weights are zero and stay zero."""

    def __init__(self, inputs: int, out: int, bias: bool, fan_in: int) -> None:
        mask = windows(inputs, out, fan_in)
        super().__init__(inputs, out, bias)
        self.register_buffer("mask", mask, persistent=False)

    def real(self) -> tuple[Tensor, Tensor | None]:
        """(weight with zeros where nothing is read, bias)."""
        return self.weight * self.get_buffer("mask").to(self.weight.dtype), self.bias

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, *self.real())
